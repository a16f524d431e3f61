//! Which pairs are kept, by their scores.

use std::cmp::Ordering;

/// What is kept of scored pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Keep {
    /// The best, as many as the budget says.
    Best,
    /// Those that score at least this much, whatever the budget says.
    AtLeast(f32),
    /// All, whatever the budget says.
    All,
}

/// Better first: the higher score; of equal scores the uid that comes first, so that the choice does not depend on the
/// order of the pool. A score that is not a number is the worst.
fn order(scores: &[f32], uids: &[String], a: usize, b: usize) -> Ordering {
    let number = |i: usize| match scores[i] {
        s if s.is_nan() => f32::NEG_INFINITY,
        s => s,
    };
    number(b)
        .partial_cmp(&number(a))
        .unwrap_or(Ordering::Equal)
        .then_with(|| uids[a].cmp(&uids[b]))
}

/// The `count` best rows of the whole pool, in the order of the pool. O(n): partial selection, no sort of all scores.
///
/// `scores` and `uids` are one for each pair; all pairs are kept if there are fewer than `count`.
pub fn keep_top(scores: &[f32], uids: &[String], count: usize) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..scores.len().min(uids.len())).collect();
    if count < rows.len() {
        if count > 0 {
            rows.select_nth_unstable_by(count - 1, |a, b| order(scores, uids, *a, *b));
        }
        rows.truncate(count);
        rows.sort_unstable();
    }
    rows
}

/// The rows that score at least `threshold`, in the order of the pool.
pub fn keep_above(scores: &[f32], threshold: f32) -> Vec<usize> {
    (0..scores.len())
        .filter(|i| scores[*i] >= threshold)
        .collect()
}

/// The place of each of `rows` from 1, best first.
pub(super) fn ranks(scores: &[f32], uids: &[String], rows: &[usize]) -> Vec<u64> {
    let mut best: Vec<usize> = (0..rows.len()).collect();
    best.sort_unstable_by(|a, b| order(scores, uids, rows[*a], rows[*b]));
    let mut ranks = vec![0; rows.len()];
    for (rank, at) in (1..).zip(best) {
        ranks[at] = rank;
    }
    ranks
}

/// Counts of the scores in `bins` bins of equal width from the least to the greatest: the middle of each bin and its
/// count. Scores that are not finite are left out.
pub(super) fn histogram(scores: &[f32], bins: usize) -> Vec<(f64, f64)> {
    let finite = || {
        scores
            .iter()
            .map(|s| f64::from(*s))
            .filter(|s| s.is_finite())
    };
    let (low, high) = finite().fold((f64::MAX, f64::MIN), |(l, h), s| (l.min(s), h.max(s)));
    if low > high || bins == 0 {
        return Vec::new();
    }
    let width = ((high - low) / bins as f64).max(f64::MIN_POSITIVE);
    let mut counts = vec![0.0; bins];
    for score in finite() {
        counts[(((score - low) / width) as usize).min(bins - 1)] += 1.0;
    }
    (0..bins)
        .map(|b| (low + (b as f64 + 0.5) * width, counts[b]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_string()).collect()
    }

    #[test]
    fn ties_go_to_the_first_uid_wherever_it_stands() {
        let scores = [0.5, 0.9, 0.5, 0.5, f32::NAN];
        let uids = named(&["d", "e", "c", "b", "a"]);
        assert_eq!(keep_top(&scores, &uids, 1), [1]);
        assert_eq!(keep_top(&scores, &uids, 2), [1, 3]);
        assert_eq!(keep_top(&scores, &uids, 3), [1, 2, 3]);
        assert_eq!(keep_top(&scores, &uids, 4), [0, 1, 2, 3]);
        assert_eq!(keep_top(&scores, &uids, 0), [0usize; 0]);
        assert_eq!(keep_top(&scores, &uids, 9), [0, 1, 2, 3, 4]);
        assert_eq!(ranks(&scores, &uids, &[0, 1, 2, 3, 4]), [4, 1, 3, 2, 5]);
        assert_eq!(keep_above(&scores, 0.5), [0, 1, 2, 3]);
    }

    #[test]
    fn bins_count_everything_once() {
        let bins = histogram(&[0.0, 0.1, 0.5, 1.0, f32::INFINITY], 2);
        assert_eq!(bins, [(0.25, 2.0), (0.75, 2.0)]);
        assert_eq!(histogram(&[3.0; 4], 5)[0].1, 4.0);
        assert!(histogram(&[f32::NAN], 5).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_choice_is_that_of_a_sort_and_not_of_the_order(
            scores in prop::collection::vec(0u8..4, 1..40),
            count in 0usize..45,
            turn in 0usize..40,
        ) {
            let n = scores.len();
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let uids: Vec<String> = (0..n).map(|i| format!("{:03}", i * 17 % 41)).collect();
            let kept = keep_top(&scores, &uids, count);
            let mut sorted: Vec<usize> = (0..n).collect();
            sorted.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(uids[*a].cmp(&uids[*b])));
            sorted.truncate(count);
            sorted.sort_unstable();
            prop_assert_eq!(&kept, &sorted);
            let turned: Vec<usize> = (0..n).map(|i| (i + turn) % n).collect();
            let s: Vec<f32> = turned.iter().map(|i| scores[*i]).collect();
            let u: Vec<String> = turned.iter().map(|i| uids[*i].clone()).collect();
            let mut again: Vec<usize> = keep_top(&s, &u, count).into_iter().map(|i| turned[i]).collect();
            again.sort_unstable();
            prop_assert_eq!(kept, again);
        }
    }
}
