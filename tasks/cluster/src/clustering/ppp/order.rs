//! The order of the rows in which everything is computed, so that the order in the file cannot matter.
//!
//! Sums of floating-point numbers, ties and first rows all depend on the order of the rows. Here rows are put in an
//! order that depends on their content alone: by the first column, then the second, and so on. Equal rows are
//! interchangeable, so the sorted matrix has the same bits however the file was shuffled.

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

/// Rows in the order of their content.
pub(super) struct Ordered {
    /// The rows \[n, d\], with no negative zeros.
    pub x: Array2<f64>,
    /// The place in the file of each row of `x`, \[n\].
    pub from: Vec<u32>,
}

/// Sorts rows \[n, d\] of finite numbers by content; n below 2^32.
///
/// Time O(n d + n log n) where the first columns tell rows apart.
pub(super) fn by_content(x: ArrayView2<f64>) -> Ordered {
    let n = x.nrows();
    let x = x.as_standard_layout();
    let row = |i: u32| x.row(i as usize);
    // The first entry travels with the row's number, so that most comparisons read no row.
    let mut keys: Vec<(f64, u32)> = (0..n as u32).map(|i| (row(i)[0] + 0.0, i)).collect();
    keys.par_sort_unstable_by(|a, b| {
        let rest = || {
            let pairs = row(a.1).into_iter().zip(row(b.1));
            let mut pairs = pairs.map(|(a, b)| (a + 0.0).total_cmp(&(b + 0.0)));
            pairs.find(|order| order.is_ne()).unwrap_or(a.1.cmp(&b.1))
        };
        a.0.total_cmp(&b.0).then_with(rest)
    });
    let from: Vec<u32> = keys.into_iter().map(|(_, i)| i).collect();
    let mut sorted = gather(x.view(), &from);
    // Adding 0 makes a negative zero positive and changes nothing else.
    sorted.iter_mut().for_each(|v| *v += 0.0);
    Ordered { x: sorted, from }
}

/// Copies of some rows of a matrix \[n, d\], in the given order.
pub(super) fn gather(x: ArrayView2<f64>, rows: &[u32]) -> Array2<f64> {
    let mut out = Array2::zeros((rows.len(), x.ncols()));
    for (mut to, &row) in out.outer_iter_mut().zip(rows) {
        to.assign(&x.row(row as usize));
    }
    out
}

impl Ordered {
    /// Runs of equal rows, each as (first place, number of rows), for runs of two or more.
    pub(super) fn duplicates(&self) -> Vec<(usize, usize)> {
        let mut runs = Vec::new();
        let mut first = 0;
        for i in 1..=self.x.nrows() {
            if i == self.x.nrows() || self.x.row(i) != self.x.row(first) {
                if i - first > 1 {
                    runs.push((first, i - first));
                }
                first = i;
            }
        }
        runs
    }

    /// Values in the order of `x` put into the order of the file.
    pub(super) fn restore<T: Copy + Default>(&self, values: &[T]) -> Vec<T> {
        let mut out = vec![T::default(); values.len()];
        for (value, &row) in values.iter().zip(&self.from) {
            out[row as usize] = *value;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn rows_are_sorted_by_content_and_go_back_to_their_places() {
        let x = array![[2.0, 1.0], [-0.0, 5.0], [0.0, 3.0], [2.0, 1.0], [-1.0, 9.0]];
        let ordered = by_content(x.view());
        assert_eq!(
            ordered.x,
            array![[-1.0, 9.0], [0.0, 3.0], [0.0, 5.0], [2.0, 1.0], [2.0, 1.0]]
        );
        assert!(ordered.x.iter().all(|v| v.is_sign_positive() || *v < 0.0));
        assert_eq!(ordered.duplicates(), [(3, 2)]);
        assert_eq!(ordered.restore(&[10, 11, 12, 13, 14]), [13, 12, 11, 14, 10]);
    }
}
