//! Sets built from labelled rows: most elements of one class, a few of another, which are the right ones.
//!
//! The rows are split first, class by class, and the sets of a part are built from its rows alone: no row of a test set
//! occurs in training.

use super::Parts;
use super::sets::GroundSet;
use ndarray::{Array2, Axis};
use papertrial_core::data::Labels;
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Sizes of what is built.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Elements of a set.
    pub set_size: usize,
    /// Right elements of a set.
    pub subset_size: usize,
    /// Sets for training, validation and test.
    pub sets: [usize; 3],
}

/// 1. The rows of each class, shuffled, are split in proportion to the numbers of sets.
/// 2. For each set a class for the majority and another for the minority are drawn among those with enough rows in the
///    part, then rows of each without repetition, then the order of the elements.
///
/// # Errors
/// A minority that is none; fewer than two classes with enough rows in a part.
pub fn build(rows: &Array2<f64>, labels: &Labels, plan: Plan, seed: u64) -> Result<Parts> {
    let Plan {
        set_size,
        subset_size,
        sets,
    } = plan;
    if subset_size == 0 || 2 * subset_size >= set_size {
        return Err(Error::option(
            "subset-size",
            format!(
                "{subset_size} of {set_size} elements are no minority; give 1 to {}",
                set_size.saturating_sub(1) / 2
            ),
        ));
    }
    let total: usize = sets.iter().sum();
    let mut classes: Vec<Vec<usize>> = vec![Vec::new(); labels.names.len()];
    for (row, code) in labels.codes.iter().enumerate() {
        if let Some(class) = classes.get_mut(*code as usize) {
            class.push(row);
        }
    }
    let mut rng = sampling::rng(seed, "subset-learning split of rows");
    // [part][class] -> rows
    let mut pools: [Vec<Vec<usize>>; 3] = Default::default();
    for class in &classes {
        let order = sampling::permutation(&mut rng, class.len());
        let mut from = 0;
        let mut sets_so_far = 0;
        for (pool, n) in pools.iter_mut().zip(sets) {
            sets_so_far += n;
            let to = (class.len() as f64 * sets_so_far as f64 / total as f64).round() as usize;
            pool.push(order[from..to].iter().map(|i| class[*i]).collect());
            from = to;
        }
    }
    let mut rng = sampling::rng(seed, "subset-learning sets of rows");
    let mut draw = |part: usize, name: &str| {
        sets_of(rows, labels, &pools[part], plan, sets[part], name, &mut rng)
    };
    Ok(Parts {
        train: draw(0, "training")?,
        validation: draw(1, "validation")?,
        test: draw(2, "test")?,
    })
}

fn sets_of(
    rows: &Array2<f64>,
    labels: &Labels,
    pool: &[Vec<usize>],
    plan: Plan,
    sets: usize,
    part: &str,
    rng: &mut ChaCha8Rng,
) -> Result<Vec<GroundSet>> {
    let most = plan.set_size - plan.subset_size;
    let enough =
        |n: usize| -> Vec<usize> { (0..pool.len()).filter(|c| pool[*c].len() >= n).collect() };
    let (majorities, minorities) = (enough(most), enough(plan.subset_size));
    if sets > 0 && (majorities.is_empty() || minorities.len() < 2) {
        return Err(Error::option(
            "set-size",
            format!(
                "the {part} part of the rows has {} classes with {most} rows or more and {} with {}; one and another are needed: give a smaller set-size, or more rows",
                majorities.len(),
                minorities.len(),
                plan.subset_size
            ),
        ));
    }
    let mut built = Vec::with_capacity(sets);
    for number in 0..sets {
        let majority = majorities[rng.random_range(0..majorities.len())];
        let others: Vec<usize> = minorities
            .iter()
            .copied()
            .filter(|c| *c != majority)
            .collect();
        let minority = others[rng.random_range(0..others.len())];
        let mut members = Vec::with_capacity(plan.set_size);
        for (class, n, right) in [(majority, most, false), (minority, plan.subset_size, true)] {
            let picks = sampling::sample_sorted(rng, pool[class].len(), n)
                .map_err(|e| Error::Failed(e.to_string()))?;
            members.extend(picks.into_iter().map(|i| (pool[class][i], right)));
        }
        let order = sampling::permutation(rng, members.len());
        let members: Vec<(usize, bool)> = order.into_iter().map(|i| members[i]).collect();
        let picked: Vec<usize> = members.iter().map(|m| m.0).collect();
        built.push(GroundSet {
            name: format!(
                "{part} {}: {} among {}",
                number + 1,
                labels.names[minority],
                labels.names[majority]
            ),
            elements: picked
                .iter()
                .map(|row| format!("row {}", row + 1))
                .collect(),
            features: rows.select(Axis(0), &picked).mapv(|v| v as f32),
            chosen: Some(members.iter().map(|m| m.1).collect()),
        });
    }
    Ok(built)
}

#[cfg(test)]
mod tests {
    use super::super::sets::{check_marked, shared_elements};
    use super::*;

    /// `per` rows of each of `classes` classes; a row holds its number and its class.
    fn labelled(classes: usize, per: usize) -> (Array2<f64>, Labels) {
        let n = classes * per;
        let rows = Array2::from_shape_fn((n, 2), |(i, c)| {
            if c == 0 {
                i as f64
            } else {
                (i % classes) as f64
            }
        });
        let labels = Labels {
            codes: (0..n).map(|i| (i % classes) as i32).collect(),
            names: (0..classes).map(|c| c.to_string()).collect(),
        };
        (rows, labels)
    }

    const PLAN: Plan = Plan {
        set_size: 5,
        subset_size: 2,
        sets: [40, 10, 20],
    };

    #[test]
    fn the_right_ones_are_a_minority_of_one_class_and_no_row_is_in_two_parts() {
        let (rows, labels) = labelled(4, 40);
        let parts = build(&rows, &labels, PLAN, 3).unwrap();
        for (sets, n) in [
            (&parts.train, 40),
            (&parts.validation, 10),
            (&parts.test, 20),
        ] {
            assert_eq!(sets.len(), n);
            check_marked(sets, "built").unwrap();
            for set in sets.iter() {
                let class = |i: usize| set.features[[i, 1]];
                let right = set.right();
                let left: Vec<usize> = (0..5).filter(|i| !right.contains(i)).collect();
                assert_eq!(right.len(), 2);
                assert!(right.iter().all(|i| class(*i) == class(right[0])));
                assert!(left.iter().all(|i| class(*i) == class(left[0])));
                assert_ne!(class(right[0]), class(left[0]));
            }
        }
        assert_eq!(shared_elements(&parts.train, &parts.test), 0.0);
        assert_eq!(shared_elements(&parts.train, &parts.validation), 0.0);
        assert_eq!(shared_elements(&parts.validation, &parts.test), 0.0);
        assert_eq!(parts.train, build(&rows, &labels, PLAN, 3).unwrap().train);
        assert_ne!(parts.train, build(&rows, &labels, PLAN, 4).unwrap().train);
    }

    #[test]
    fn what_cannot_be_built_is_told() {
        let (rows, labels) = labelled(4, 40);
        let told = |plan| build(&rows, &labels, plan, 0).unwrap_err().to_string();
        let half = told(Plan {
            subset_size: 3,
            ..PLAN
        });
        assert!(
            half.contains("no minority") && half.contains("1 to 2"),
            "{half}"
        );
        assert!(
            told(Plan {
                subset_size: 0,
                ..PLAN
            })
            .contains("subset-size")
        );
        let large = told(Plan {
            set_size: 90,
            ..PLAN
        });
        assert!(large.contains("smaller set-size"), "{large}");
        let (rows, labels) = labelled(1, 100);
        assert!(build(&rows, &labels, PLAN, 0).is_err());
    }
}
