//! Passes over all rows that several greedy methods make once for each row they choose.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

/// Rows of one piece of parallel work: fixed, so that results do not depend on the number of threads.
const BLOCK: usize = 512;

/// The product of each row of x [n, d] with v, `[n]`. Reads x once, on all threads.
pub fn products(x: ArrayView2<f32>, v: ArrayView1<f32>) -> Vec<f32> {
    let mut found = vec![0.0f32; x.nrows()];
    found
        .par_chunks_mut(BLOCK)
        .enumerate()
        .for_each(|(b, out)| {
            let first = b * BLOCK;
            for (i, value) in out.iter_mut().enumerate() {
                *value = x.row(first + i).dot(&v);
            }
        });
    found
}

/// The place of the largest value that is not taken, the first of equal ones; `None` if all are taken.
pub fn largest_free(values: impl Iterator<Item = f64>, taken: &[bool]) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (i, value) in values.enumerate() {
        if !taken[i] && best.is_none_or(|(_, b)| value > b) {
            best = Some((i, value));
        }
    }
    best.map(|(i, _)| i)
}

/// The sum of the rows, in double precision, `[d]`.
pub fn sum_of_rows(x: ArrayView2<f32>) -> Array1<f64> {
    let mut sum = Array1::zeros(x.ncols());
    for row in x.axis_iter(Axis(0)) {
        sum.zip_mut_with(&row, |s: &mut f64, v| *s += f64::from(*v));
    }
    sum
}

/// The rows `which`, one after the other.
pub fn taken(x: ArrayView2<f32>, which: &[usize]) -> Array2<f32> {
    x.select(Axis(0), which)
}

/// Each row over its length; rows of zeros stay as they are.
pub fn unit_rows(x: ArrayView2<f32>) -> Array2<f32> {
    let mut unit = x.to_owned();
    for mut row in unit.axis_iter_mut(Axis(0)) {
        let length = f64::from(row.dot(&row)).sqrt() as f32;
        if length > 0.0 {
            row.mapv_inplace(|v| v / length);
        }
    }
    unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn by_hand() {
        let x = array![[3.0f32, 4.0], [0.0, 0.0], [1.0, -1.0]];
        assert_eq!(
            products(x.view(), array![2.0, 1.0].view()),
            [10.0, 0.0, 1.0]
        );
        assert_eq!(sum_of_rows(x.view()), array![4.0, 3.0]);
        assert_eq!(unit_rows(x.view()).row(0), array![0.6, 0.8]);
        assert_eq!(unit_rows(x.view()).row(1), array![0.0, 0.0]);
        let free = |taken| largest_free([1.0, 2.0, 2.0].into_iter(), taken);
        assert_eq!(free(&[false; 3]), Some(1));
        assert_eq!(free(&[false, true, false]), Some(2));
        assert_eq!(free(&[true; 3]), None);
    }
}
