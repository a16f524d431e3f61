//! Mean and variance in one pass, of numbers and of the columns of a matrix.

use ndarray::{Array1, ArrayView2, s};
use rayon::prelude::*;

use super::StatsError;
use crate::linalg::Real;

/// Mean and variance of numbers that arrive one by one (Welford 1962), in O(1) memory and without the
/// cancellation of the sum of squares. Two halves can be merged (Chan, Golub and LeVeque 1979).
///
/// A NaN or an infinity makes mean and variance NaN or infinite.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moments {
    count: u64,
    mean: f64,
    /// Sum of squared differences from the mean.
    squares: f64,
}

impl Moments {
    /// Takes in one number.
    pub fn push(&mut self, value: f64) {
        self.count += 1;
        let from_old = value - self.mean;
        self.mean += from_old / self.count as f64;
        self.squares += from_old * (value - self.mean);
    }

    /// Takes in everything that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let (n, m) = (self.count as f64, other.count as f64);
        let apart = other.mean - self.mean;
        self.count += other.count;
        self.mean += apart * (m / (n + m));
        self.squares += other.squares + apart * apart * (n * m / (n + m));
    }

    /// How many numbers were taken in.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; `None` of none.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// The variance of the population they are a sample of (divided by n - 1); `None` for fewer than two.
    pub fn sample_variance(&self) -> Option<f64> {
        (self.count > 1).then(|| self.squares / (self.count - 1) as f64)
    }

    /// Their own variance (divided by n); `None` of none.
    pub fn variance(&self) -> Option<f64> {
        (self.count > 0).then(|| self.squares / self.count as f64)
    }
}

impl FromIterator<f64> for Moments {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut moments = Self::default();
        values.into_iter().for_each(|value| moments.push(value));
        moments
    }
}

/// [`Moments`] of each column of a matrix [n, d] that arrives in chunks of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnMoments {
    count: u64,
    mean: Array1<f64>,
    squares: Array1<f64>,
}

/// Rows that are summed up by one thread at a time: fixed, so that the result does not depend on threads.
const ROWS_PER_BLOCK: usize = 4096;

impl ColumnMoments {
    /// For matrices of `columns` columns.
    pub fn new(columns: usize) -> Self {
        Self {
            count: 0,
            mean: Array1::zeros(columns),
            squares: Array1::zeros(columns),
        }
    }

    /// Takes in a chunk [m, d]. O(m d). The result depends on how the rows are cut into chunks only by
    /// rounding, and not at all on the number of threads.
    ///
    /// # Errors
    /// [`StatsError::WidthsDiffer`] if the chunk has not d columns.
    pub fn push_chunk<T>(&mut self, chunk: ArrayView2<'_, T>) -> Result<(), StatsError>
    where
        T: Real,
    {
        self.check_width(chunk.ncols())?;
        let blocks: Vec<Self> = (0..chunk.nrows().div_ceil(ROWS_PER_BLOCK))
            .into_par_iter()
            .map(|block| {
                let start = block * ROWS_PER_BLOCK;
                let end = chunk.nrows().min(start + ROWS_PER_BLOCK);
                Self::of_block(chunk.slice(s![start..end, ..]))
            })
            .collect();
        blocks.iter().for_each(|block| self.add(block));
        Ok(())
    }

    /// Takes in everything that `other` has seen.
    ///
    /// # Errors
    /// [`StatsError::WidthsDiffer`] if `other` has another number of columns.
    pub fn merge(&mut self, other: &Self) -> Result<(), StatsError> {
        self.check_width(other.mean.len())?;
        self.add(other);
        Ok(())
    }

    /// How many rows were taken in.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The columns' means (d of them); `None` before the first row.
    pub fn mean(&self) -> Option<&Array1<f64>> {
        (self.count > 0).then_some(&self.mean)
    }

    /// The columns' variances (d of them), divided by n - 1; `None` before the second row.
    pub fn sample_variance(&self) -> Option<Array1<f64>> {
        (self.count > 1).then(|| &self.squares / (self.count - 1) as f64)
    }

    /// The columns' variances (d of them), divided by n; `None` before the first row.
    pub fn variance(&self) -> Option<Array1<f64>> {
        (self.count > 0).then(|| &self.squares / self.count as f64)
    }

    /// Two passes over rows that are still in the cache: exact to rounding, and the inner loop runs along
    /// a row, without a division.
    fn of_block<T: Real>(rows: ArrayView2<'_, T>) -> Self {
        let mut block = Self::new(rows.ncols());
        block.count = rows.nrows() as u64;
        for row in rows.rows() {
            block.mean.zip_mut_with(&row, |sum, &v| *sum += v.to_f64());
        }
        block.mean /= rows.nrows() as f64;
        for row in rows.rows() {
            ndarray::Zip::from(&mut block.squares)
                .and(&block.mean)
                .and(&row)
                .for_each(|sum, &mean, &v| *sum += (v.to_f64() - mean).powi(2));
        }
        block
    }

    fn add(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let (n, m) = (self.count as f64, other.count as f64);
        self.count += other.count;
        ndarray::Zip::from(&mut self.mean)
            .and(&mut self.squares)
            .and(&other.mean)
            .and(&other.squares)
            .for_each(|mean, squares, &other_mean, &other_squares| {
                let apart = other_mean - *mean;
                *mean += apart * (m / (n + m));
                *squares += other_squares + apart * apart * (n * m / (n + m));
            });
    }

    fn check_width(&self, found: usize) -> Result<(), StatsError> {
        let expected = self.mean.len();
        if found == expected {
            Ok(())
        } else {
            Err(StatsError::WidthsDiffer { expected, found })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::tests::close;
    use ndarray::Array2;
    use proptest::prelude::*;

    fn sums(values: &[f64]) -> (f64, f64) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (mean, values.iter().map(|v| (v - mean).powi(2)).sum())
    }

    #[test]
    fn moments_of_none_one_and_two() {
        let mut moments = Moments::default();
        assert_eq!((moments.mean(), moments.variance()), (None, None));
        moments.push(3.0);
        assert_eq!(moments.mean(), Some(3.0));
        assert_eq!(moments.variance(), Some(0.0));
        assert_eq!(moments.sample_variance(), None);
        moments.push(7.0);
        assert_eq!(moments.mean(), Some(5.0));
        assert_eq!(moments.variance(), Some(4.0));
        assert_eq!(moments.sample_variance(), Some(8.0));
    }

    #[test]
    fn a_large_mean_does_not_swallow_the_variance() {
        // The sum of squares minus the squared sum gives 0 or less here.
        let values = [4.0, 7.0, 13.0, 16.0].map(|v| v + 1e9);
        let moments: Moments = values.into_iter().collect();
        assert_eq!(moments.sample_variance(), Some(30.0));
        let mut columns = ColumnMoments::new(1);
        columns
            .push_chunk(
                Array2::from_shape_vec((4, 1), values.to_vec())
                    .unwrap()
                    .view(),
            )
            .unwrap();
        assert_eq!(columns.sample_variance().unwrap()[0], 30.0);
    }

    #[test]
    fn columns_do_not_depend_on_threads_and_refuse_other_widths() {
        let x = Array2::from_shape_fn((10_000, 3), |(i, j)| ((i * 7919 + j) % 1009) as f32 * 0.37);
        let with = |threads| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap()
                .install(|| {
                    let mut moments = ColumnMoments::new(3);
                    moments.push_chunk(x.view()).unwrap();
                    moments
                })
        };
        assert_eq!(with(1), with(3));
        for column in 0..3 {
            let values: Vec<f64> = x.column(column).iter().map(|&v| f64::from(v)).collect();
            let (mean, squares) = sums(&values);
            assert!(close(with(2).mean().unwrap()[column], mean, 1e-12));
            assert!(close(
                with(2).variance().unwrap()[column],
                squares / 10_000.0,
                1e-12
            ));
        }
        assert_eq!(
            ColumnMoments::new(2).push_chunk(x.view()),
            Err(StatsError::WidthsDiffer {
                expected: 2,
                found: 3
            })
        );
        assert_eq!(ColumnMoments::new(2).mean(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn merged_parts_are_the_whole(values in prop::collection::vec(-1e3f64..1e3, 1..60), cut in 0usize..60) {
            let cut = cut.min(values.len());
            let (mean, squares) = sums(&values);
            let whole: Moments = values.iter().copied().collect();
            let mut merged: Moments = values[..cut].iter().copied().collect();
            merged.merge(&values[cut..].iter().copied().collect());
            for m in [whole, merged] {
                prop_assert_eq!(m.count(), values.len() as u64);
                prop_assert!(close(m.mean().unwrap(), mean, 1e-12));
                prop_assert!(close(m.variance().unwrap(), squares / values.len() as f64, 1e-12));
            }
            let matrix = |v: &[f64]| Array2::from_shape_fn((v.len(), 2), |(i, j)| v[i] * (1.0 + j as f64));
            let mut columns = ColumnMoments::new(2);
            columns.push_chunk(matrix(&values[..cut]).view()).unwrap();
            let mut rest = ColumnMoments::new(2);
            rest.push_chunk(matrix(&values[cut..]).view()).unwrap();
            columns.merge(&rest).unwrap();
            prop_assert_eq!(columns.count(), values.len() as u64);
            prop_assert!(close(columns.mean().unwrap()[1], 2.0 * mean, 1e-12));
            prop_assert!(close(columns.variance().unwrap()[1], 4.0 * squares / values.len() as f64, 1e-12));
        }
    }
}
