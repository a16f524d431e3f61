//! Folds of images: each image in one, each class spread over all of them as far as its images reach.

use papertrial_numerics::sampling;

/// The fold of each image, from 0, for images of which `of_class` lists those of each class.
///
/// Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011): the class with the fewest images not yet placed
/// goes first; each of its images goes to the fold that has the fewest of this class, of equal ones to that with the
/// fewest images. Images are taken in an order drawn from the seed; images of no class fill up the folds.
/// Time O(classes^2 + crops).
pub fn folds(images: usize, of_class: &[Vec<usize>], folds: usize, seed: u64) -> Vec<usize> {
    let mut rng = sampling::rng(seed, "folds");
    let order = sampling::permutation(&mut rng, images);
    let mut classes = vec![Vec::new(); images];
    for (class, members) in of_class.iter().enumerate() {
        members.iter().for_each(|i| classes[*i].push(class));
    }
    let mut members = vec![Vec::new(); of_class.len()];
    for image in &order {
        classes[*image]
            .iter()
            .for_each(|c| members[*c].push(*image));
    }
    let mut left: Vec<usize> = members.iter().map(Vec::len).collect();
    let mut fold = vec![usize::MAX; images];
    let mut sizes = vec![0usize; folds];
    let mut counts = vec![vec![0usize; folds]; of_class.len()];
    let mut place = |image: usize, class: Option<usize>, left: &mut [usize]| {
        let key = |f: &usize| (class.map_or(0, |c| counts[c][*f]), sizes[*f]);
        let Some(best) = (0..folds).min_by_key(key) else {
            return;
        };
        fold[image] = best;
        sizes[best] += 1;
        for c in &classes[image] {
            counts[*c][best] += 1;
            left[*c] -= 1;
        }
    };
    let mut placed = vec![false; images];
    while let Some(class) = (0..left.len())
        .filter(|c| left[*c] > 0)
        .min_by_key(|c| left[*c])
    {
        for image in &members[class] {
            if !placed[*image] {
                placed[*image] = true;
                place(*image, Some(class), &mut left);
            }
        }
    }
    for image in order {
        if !placed[image] {
            place(image, None, &mut left);
        }
    }
    fold
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_image_has_a_fold_and_single_classes_are_spread_evenly(
            labels in prop::collection::vec(0usize..5, 1..120), k in 2usize..6, seed in 0u64..100
        ) {
            // Class 4 stands for none.
            let of_class: Vec<Vec<usize>> = (0..4)
                .map(|c| (0..labels.len()).filter(|i| labels[*i] == c).collect())
                .collect();
            let fold = folds(labels.len(), &of_class, k, seed);
            prop_assert!(fold.iter().all(|f| *f < k));
            for members in &of_class {
                let count = |f: usize| members.iter().filter(|i| fold[**i] == f).count();
                let counts: Vec<usize> = (0..k).map(count).collect();
                prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
            }
            prop_assert_eq!(&fold, &folds(labels.len(), &of_class, k, seed));
        }
    }

    #[test]
    fn a_rare_class_among_common_ones_reaches_every_fold() {
        // All images are of class 0, every tenth of class 1 as well.
        let common: Vec<usize> = (0..100).collect();
        let rare: Vec<usize> = (0..100).step_by(20).collect();
        let fold = folds(100, &[common, rare.clone()], 5, 1);
        let mut of_rare: Vec<usize> = rare.iter().map(|i| fold[*i]).collect();
        of_rare.sort_unstable();
        assert_eq!(of_rare, [0, 1, 2, 3, 4]);
        assert!((0..5).all(|f| fold.iter().filter(|x| **x == f).count() == 20));
        assert_ne!(fold, folds(100, &[(0..100).collect(), rare], 5, 2));
    }
}
