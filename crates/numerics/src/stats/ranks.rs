//! Ranks of the values of a sample.

use rayon::prelude::*;

/// The ranks 1 to n of the values in ascending order; equal ones share the mean of theirs. O(n log n).
///
/// Values have to be numbers: a NaN gets a rank of its own at an end.
pub fn midranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.par_sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (tied.len() + 1) as f64 / 2.0;
        tied.iter().for_each(|&row| ranks[row] = rank);
        before += tied.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_share_ties() {
        assert_eq!(
            midranks(&[3.0, -0.0, 3.0, 0.0, 9.0, 3.0]),
            [4.0, 1.5, 4.0, 1.5, 6.0, 4.0]
        );
        assert!(midranks(&[]).is_empty());
    }
}
