//! Statistics of samples: moments in one pass, quantiles, intervals, paired tests, a test of normality.

use ndarray::{Array1, ArrayView2, s};
use rand::RngExt;
use rayon::prelude::*;
use statrs::distribution::{ContinuousCDF, StudentsT};
use statrs::function::erf::erfc;

use crate::linalg::Real;
use crate::sampling;

/// Why a statistic could not be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StatsError {
    /// There are no values.
    #[error("there are no values")]
    Empty,
    /// A value is infinite or not a number.
    #[error("value {value} in row {row} is not finite")]
    NotFinite {
        /// The row, counted from 0.
        row: usize,
        /// The value found there.
        value: f64,
    },
    /// Two paired samples have different lengths.
    #[error("{first} values cannot be paired with {second}")]
    LengthsDiffer {
        /// Length of the first.
        first: usize,
        /// Length of the second.
        second: usize,
    },
    /// Chunks of different width cannot be summed up together.
    #[error("a chunk has {found} columns where {expected} were expected")]
    WidthsDiffer {
        /// Columns seen before.
        expected: usize,
        /// Columns of the chunk.
        found: usize,
    },
    /// A quantile's share lies outside 0 to 1.
    #[error("a quantile's share has to lie between 0 and 1, not {0}")]
    Share(f64),
    /// An interval's level lies outside 0 to 1 (both excluded).
    #[error("an interval's level has to lie strictly between 0 and 1, not {0}")]
    Level(f64),
    /// A resampling method was asked for no rounds.
    #[error("at least one round of resampling is needed")]
    NoRounds,
}

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

/// The value below which a `share` of the values lies, linearly interpolated between the two nearest:
/// position `share (n - 1)` in ascending order counted from 0 (type 7 of Hyndman and Fan 1996, the default
/// of NumPy and R). O(n).
///
/// # Errors
/// [`StatsError::Empty`], [`StatsError::NotFinite`], [`StatsError::Share`].
pub fn quantile(values: &[f64], share: f64) -> Result<f64, StatsError> {
    let (below, fraction) = quantile_position(values, share)?;
    let mut values = values.to_vec();
    let (_, &mut low, above) = values.select_nth_unstable_by(below, f64::total_cmp);
    let high = above.iter().copied().min_by(f64::total_cmp).unwrap_or(low);
    Ok(interpolate(low, high, fraction))
}

/// [`quantile`] for each share, with one sort. O(n log n).
///
/// # Errors
/// As [`quantile`].
pub fn quantiles(values: &[f64], shares: &[f64]) -> Result<Vec<f64>, StatsError> {
    check_values(values)?;
    let mut sorted = values.to_vec();
    sorted.par_sort_unstable_by(f64::total_cmp);
    shares
        .iter()
        .map(|&share| quantile_of_sorted(&sorted, share))
        .collect()
}

fn quantile_of_sorted(sorted: &[f64], share: f64) -> Result<f64, StatsError> {
    let (below, fraction) = quantile_position(sorted, share)?;
    let high = sorted[(below + 1).min(sorted.len() - 1)];
    Ok(interpolate(sorted[below], high, fraction))
}

/// The place in ascending order, and the fraction of the step to the next.
fn quantile_position(values: &[f64], share: f64) -> Result<(usize, f64), StatsError> {
    check_values(values)?;
    if !(0.0..=1.0).contains(&share) {
        return Err(StatsError::Share(share));
    }
    let position = share * (values.len() - 1) as f64;
    Ok((position as usize, position.fract()))
}

fn interpolate(low: f64, high: f64, fraction: f64) -> f64 {
    // Not low + (high - low) * fraction, which overflows when they are far apart.
    if fraction == 0.0 {
        low
    } else {
        low * (1.0 - fraction) + high * fraction
    }
}

/// An estimate and the interval around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The estimate.
    pub estimate: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// Student's interval of the mean: mean -+ t(n - 1 degrees of freedom) s / sqrt(n), two-sided, which covers
/// the true mean with probability `level` if the values are independent and normal.
///
/// `None` for fewer than two values, which say nothing of their spread. Values that are all equal give a
/// point.
///
/// # Errors
/// [`StatsError::NotFinite`], [`StatsError::Level`].
pub fn mean_interval(values: &[f64], level: f64) -> Result<Option<Interval>, StatsError> {
    check_level(level)?;
    check_finite(values)?;
    let moments: Moments = values.iter().copied().collect();
    let (Some(mean), Some(variance)) = (moments.mean(), moments.sample_variance()) else {
        return Ok(None);
    };
    let n = values.len() as f64;
    let half = if variance == 0.0 {
        0.0
    } else {
        student_quantile(0.5 + level / 2.0, n - 1.0) * (variance / n).sqrt()
    };
    Ok(Some(Interval {
        estimate: mean,
        low: mean - half,
        high: mean + half,
    }))
}

/// [`mean_interval`] of the differences `first[i] - second[i]`: what two methods differ by, seed by seed.
///
/// # Errors
/// [`StatsError::LengthsDiffer`], and those of [`mean_interval`].
pub fn paired_interval(
    first: &[f64],
    second: &[f64],
    level: f64,
) -> Result<Option<Interval>, StatsError> {
    mean_interval(&differences(first, second)?, level)
}

/// The t below which Student's distribution has `share` of its mass, `share` above 1/2.
fn student_quantile(share: f64, freedom: f64) -> f64 {
    match StudentsT::new(0.0, 1.0, freedom) {
        Ok(student) => student.inverse_cdf(share),
        // Not reached: freedom is at least 1. An unbounded interval is the honest answer to no freedom.
        Err(_) => f64::INFINITY,
    }
}

/// The percentile bootstrap interval of a statistic (Efron 1979): the `(1 - level) / 2` and
/// `(1 + level) / 2` [quantiles](quantile) of its values on `rounds` samples of n drawn with replacement.
/// The estimate is the statistic of the values themselves.
///
/// Rounds run in parallel, each with a stream of its own, so the result does not depend on threads.
/// `None` for fewer than two values.
///
/// # Errors
/// [`StatsError::NotFinite`] for a value (with its row), or for a round's statistic (with the round);
/// [`StatsError::Level`], [`StatsError::NoRounds`].
pub fn bootstrap_interval<F>(
    values: &[f64],
    statistic: F,
    level: f64,
    rounds: usize,
    seed: u64,
) -> Result<Option<Interval>, StatsError>
where
    F: Fn(&[f64]) -> f64 + Sync,
{
    check_level(level)?;
    check_finite(values)?;
    if rounds == 0 {
        return Err(StatsError::NoRounds);
    }
    let n = values.len();
    if n < 2 {
        return Ok(None);
    }
    let start = sampling::rng(seed, "bootstrap");
    let results: Vec<f64> = (0..rounds as u64)
        .into_par_iter()
        .map(|round| {
            let mut rng = start.clone();
            rng.set_stream(round);
            let sample: Vec<f64> = (0..n).map(|_| values[rng.random_range(0..n)]).collect();
            statistic(&sample)
        })
        .collect();
    let tail = (1.0 - level) / 2.0;
    let ends = quantiles(&results, &[tail, 1.0 - tail])?;
    Ok(Some(Interval {
        estimate: statistic(values),
        low: ends[0],
        high: ends[1],
    }))
}

/// What a paired test found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedTest {
    /// The test's statistic.
    pub statistic: f64,
    /// The probability, if neither sample tends to be larger, of a statistic at least this far from its
    /// centre, on either side.
    pub p_value: f64,
}

/// Wilcoxon's signed-rank test (1945) of paired samples. The statistic is the sum of the ranks of
/// `|first[i] - second[i]|` where the difference is positive; pairs without a difference are left out, equal
/// differences share their mean rank.
///
/// For up to 50 differences the p-value is exact, over all 2^n signs of the ranks as they are, ties
/// included; above, from the normal approximation with the variance corrected for ties. No difference at
/// all gives a p-value of 1.
///
/// # Errors
/// [`StatsError::LengthsDiffer`], [`StatsError::NotFinite`] with the row of the difference.
pub fn wilcoxon_signed_rank(first: &[f64], second: &[f64]) -> Result<PairedTest, StatsError> {
    let differences = differences(first, second)?;
    check_finite(&differences)?;
    let differences: Vec<f64> = differences.into_iter().filter(|&d| d != 0.0).collect();
    let magnitudes: Vec<f64> = differences.iter().map(|d| d.abs()).collect();
    let ranks = midranks(&magnitudes);
    let statistic: f64 = ranks
        .iter()
        .zip(&differences)
        .filter_map(|(&rank, &d)| (d > 0.0).then_some(rank))
        .sum();
    let p_value = if ranks.len() <= 50 {
        signed_rank_exact(&ranks, statistic)
    } else {
        signed_rank_normal(&ranks, statistic)
    };
    Ok(PairedTest { statistic, p_value })
}

/// Counts, for each possible sum, the sets of ranks with that sum. Ranks are doubled, since half ranks occur;
/// the counts stay below 2^53 and so are exact.
fn signed_rank_exact(ranks: &[f64], statistic: f64) -> f64 {
    let doubled: Vec<usize> = ranks.iter().map(|rank| (2.0 * rank) as usize).collect();
    let most: usize = doubled.iter().sum();
    let mut sets = vec![0.0f64; most + 1];
    sets[0] = 1.0;
    for rank in doubled {
        for sum in (rank..=most).rev() {
            sets[sum] += sets[sum - rank];
        }
    }
    let observed = (2.0 * statistic) as usize;
    let below: f64 = sets[..=observed].iter().sum();
    let above: f64 = sets[observed..].iter().sum();
    let all = 2f64.powi(ranks.len() as i32);
    (2.0 * below.min(above) / all).min(1.0)
}

fn signed_rank_normal(ranks: &[f64], statistic: f64) -> f64 {
    // Each rank enters with probability 1/2: mean r / 2, variance r^2 / 4. Mean ranks make the usual
    // correction for ties part of the sum.
    let mean: f64 = ranks.iter().sum::<f64>() / 2.0;
    let variance: f64 = ranks.iter().map(|rank| rank * rank).sum::<f64>() / 4.0;
    let z = (statistic - mean) / variance.sqrt();
    erfc(z.abs() / std::f64::consts::SQRT_2)
}

/// The paired permutation test (Fisher 1935): the mean of `first[i] - second[i]` against its distribution
/// over the signs of the differences.
///
/// Where all 2^n signs are no more than `rounds`, they are all tried and the p-value is exact; otherwise
/// `rounds` random ones are, and it is (1 + as extreme) / (1 + rounds), which is never 0. Sums that differ
/// by rounding alone count as equally extreme. No pairs give a statistic of 0 and a p-value of 1.
///
/// # Errors
/// [`StatsError::LengthsDiffer`], [`StatsError::NotFinite`] with the row of the difference,
/// [`StatsError::NoRounds`].
pub fn paired_permutation(
    first: &[f64],
    second: &[f64],
    rounds: usize,
    seed: u64,
) -> Result<PairedTest, StatsError> {
    let differences = differences(first, second)?;
    check_finite(&differences)?;
    if rounds == 0 {
        return Err(StatsError::NoRounds);
    }
    let n = differences.len();
    if n == 0 {
        return Ok(PairedTest {
            statistic: 0.0,
            p_value: 1.0,
        });
    }
    let total: f64 = differences.iter().sum();
    let rounding = 1e-12 * differences.iter().map(|d| d.abs()).sum::<f64>();
    let extreme = |signs: &mut dyn FnMut(usize) -> bool| {
        let sum: f64 = differences
            .iter()
            .enumerate()
            .map(|(i, &d)| if signs(i) { -d } else { d })
            .sum();
        sum.abs() >= total.abs() - rounding
    };
    let p_value = if n < 63 && 1usize << n <= rounds {
        let all = 1usize << n;
        let as_extreme = (0..all)
            .filter(|mask| extreme(&mut |i| mask >> i & 1 == 1))
            .count();
        as_extreme as f64 / all as f64
    } else {
        let mut rng = sampling::rng(seed, "paired permutation");
        let as_extreme = (0..rounds)
            .filter(|_| extreme(&mut |_| rng.random()))
            .count();
        (1 + as_extreme) as f64 / (1 + rounds) as f64
    };
    Ok(PairedTest {
        statistic: total / n as f64,
        p_value,
    })
}

/// The critical value of [`anderson_darling`] at the significance level 0.0001, as Hamerly and Elkan give
/// it for G-means (2003, Learning the k in k-means).
pub const ANDERSON_DARLING_CRITICAL: f64 = 1.8692;

/// The Anderson-Darling statistic of normality with mean and variance estimated from the values, corrected
/// for small samples as in G-means: A*^2 = A^2 (1 + 4/n - 25/n^2).
///
/// With z the ascending values, standardised by their mean and their (n - 1)-variance, and F the normal
/// distribution function, A^2 = -n - (1/n) sum_{i=1..n} (2i - 1) (ln F(z_i) + ln(1 - F(z_{n+1-i}))).
/// O(n log n). The larger, the less normal.
///
/// `None` for fewer than 8 values, for which the correction does not hold (it is even negative up to 3),
/// and for values that are all equal: there is no evidence against normality then.
///
/// # Errors
/// [`StatsError::NotFinite`].
pub fn anderson_darling(values: &[f64]) -> Result<Option<f64>, StatsError> {
    check_finite(values)?;
    let n = values.len();
    let moments: Moments = values.iter().copied().collect();
    let (Some(mean), Some(variance)) = (moments.mean(), moments.sample_variance()) else {
        return Ok(None);
    };
    if n < 8 || variance <= 0.0 {
        return Ok(None);
    }
    let deviation = variance.sqrt();
    let mut z: Vec<f64> = values.iter().map(|v| (v - mean) / deviation).collect();
    z.sort_unstable_by(f64::total_cmp);
    let sum: f64 = (0..n)
        .map(|i| (2 * i + 1) as f64 * (ln_normal(z[i]) + ln_normal(-z[n - 1 - i])))
        .sum();
    let n = n as f64;
    let a2 = -n - sum / n;
    Ok(Some(a2 * (1.0 + 4.0 / n - 25.0 / (n * n))))
}

/// ln F(z) of the standard normal distribution. Far out, where F itself is 0 to the machine, by its
/// asymptotic series.
fn ln_normal(z: f64) -> f64 {
    if z > -30.0 {
        (0.5 * erfc(-z / std::f64::consts::SQRT_2)).ln()
    } else {
        let z2 = z * z;
        -0.5 * z2 - (-z).ln() - 0.5 * std::f64::consts::TAU.ln()
            + (-1.0 / z2 + 3.0 / (z2 * z2)).ln_1p()
    }
}

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

fn differences(first: &[f64], second: &[f64]) -> Result<Vec<f64>, StatsError> {
    if first.len() != second.len() {
        return Err(StatsError::LengthsDiffer {
            first: first.len(),
            second: second.len(),
        });
    }
    Ok(first.iter().zip(second).map(|(a, b)| a - b).collect())
}

fn check_values(values: &[f64]) -> Result<(), StatsError> {
    if values.is_empty() {
        return Err(StatsError::Empty);
    }
    check_finite(values)
}

fn check_finite(values: &[f64]) -> Result<(), StatsError> {
    match values.iter().position(|v| !v.is_finite()) {
        Some(row) => Err(StatsError::NotFinite {
            row,
            value: values[row],
        }),
        None => Ok(()),
    }
}

fn check_level(level: f64) -> Result<(), StatsError> {
    if level > 0.0 && level < 1.0 {
        Ok(())
    } else {
        Err(StatsError::Level(level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;
    use proptest::prelude::*;

    fn close(a: f64, b: f64, tolerance: f64) -> bool {
        (a - b).abs() <= tolerance * b.abs().max(1.0)
    }

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

    #[test]
    fn quantiles_as_numpy() {
        // np.quantile([3, 1, 4, 1, 5, 9, 2, 6], [0, .1, .25, .5, .9, 1])
        let values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0];
        let shares = [0.0, 0.1, 0.25, 0.5, 0.9, 1.0];
        let expected = [1.0, 1.0, 1.75, 3.5, 6.8999999999999995, 9.0];
        let found = quantiles(&values, &shares).unwrap();
        for i in 0..6 {
            assert!(close(found[i], expected[i], 1e-14));
            assert_eq!(quantile(&values, shares[i]).unwrap(), found[i]);
        }
        assert_eq!(quantile(&[2.0], 0.3), Ok(2.0));
        assert_eq!(quantile(&[-f64::MAX, f64::MAX], 0.5), Ok(0.0));
        assert_eq!(quantile(&[], 0.5), Err(StatsError::Empty));
        assert_eq!(quantile(&[1.0], 1.5), Err(StatsError::Share(1.5)));
        assert!(matches!(
            quantile(&[1.0], f64::NAN),
            Err(StatsError::Share(_))
        ));
        assert!(matches!(
            quantiles(&[1.0, f64::NAN], &[0.5]),
            Err(StatsError::NotFinite { row: 1, .. })
        ));
    }

    #[test]
    fn students_quantiles_as_scipy() {
        // scipy.stats.t.ppf([.975, .995, .9995], [1, 4, 19])
        for (share, freedom, expected) in [
            (0.975, 1.0, 12.706204736174694),
            (0.995, 4.0, 4.604094871349992),
            (0.9995, 19.0, 3.883405852592131),
            (0.6, 3.0, 0.2766706623326898),
        ] {
            assert!(close(student_quantile(share, freedom), expected, 1e-10));
        }
    }

    #[test]
    fn intervals_of_a_mean() {
        // v = [2.1, 2.5, 1.9, 2.8, 2.2]
        // scipy.stats.t.interval(.95, 4, loc=np.mean(v), scale=scipy.stats.sem(v))
        let interval = mean_interval(&[2.1, 2.5, 1.9, 2.8, 2.2], 0.95)
            .unwrap()
            .unwrap();
        assert!(close(interval.estimate, 2.3, 1e-14));
        assert!(close(interval.low, 1.8610054834574585, 1e-10));
        assert!(close(interval.high, 2.738994516542541, 1e-10));
        assert_eq!(mean_interval(&[], 0.95), Ok(None));
        assert_eq!(mean_interval(&[1.0], 0.95), Ok(None));
        let point = Interval {
            estimate: 0.1,
            low: 0.1,
            high: 0.1,
        };
        assert_eq!(mean_interval(&[0.1; 7], 0.95), Ok(Some(point)));
        assert_eq!(mean_interval(&[1.0, 2.0], 1.0), Err(StatsError::Level(1.0)));
        assert_eq!(
            paired_interval(&[3.1, 4.5], &[1.0], 0.9),
            Err(StatsError::LengthsDiffer {
                first: 2,
                second: 1
            })
        );
        let paired = paired_interval(&[5.0, 7.0, 6.5], &[4.0, 4.0, 4.5], 0.9)
            .unwrap()
            .unwrap();
        assert_eq!(
            paired,
            mean_interval(&[1.0, 3.0, 2.0], 0.9).unwrap().unwrap()
        );
    }

    #[test]
    fn intervals_cover_at_their_level() {
        // Means of 5 numbers that are near normal (sums of 12 uniforms), true mean 6: 2000 intervals at 0.9
        // cover 1800 times, standard deviation 13.4.
        let mut rng = sampling::rng(1, "test");
        let covered = (0..2000)
            .filter(|_| {
                let values: Vec<f64> = (0..5)
                    .map(|_| (0..12).map(|_| rng.random::<f64>()).sum())
                    .collect();
                let interval = mean_interval(&values, 0.9).unwrap().unwrap();
                interval.low <= 6.0 && 6.0 <= interval.high
            })
            .count() as i32;
        assert!((covered - 1800).abs() < 67, "{covered}");
    }

    #[test]
    fn bootstrap_is_near_students_for_a_mean() {
        let values: Vec<f64> = (0..200).map(|i| f64::from(i * 37 % 101)).collect();
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let booted = bootstrap_interval(&values, mean, 0.95, 4000, 5)
            .unwrap()
            .unwrap();
        let student = mean_interval(&values, 0.95).unwrap().unwrap();
        let width = student.high - student.low;
        assert_eq!(booted.estimate, mean(&values));
        assert!((booted.low - student.low).abs() < 0.05 * width);
        assert!((booted.high - student.high).abs() < 0.05 * width);
        assert_ne!(booted.low, student.low);
        assert_eq!(
            bootstrap_interval(&values, mean, 0.95, 4000, 5).unwrap(),
            Some(booted)
        );
        assert_ne!(
            bootstrap_interval(&values, mean, 0.95, 4000, 6).unwrap(),
            Some(booted)
        );
        assert_eq!(bootstrap_interval(&[1.0], mean, 0.95, 10, 0), Ok(None));
        assert_eq!(
            bootstrap_interval(&values, mean, 0.95, 0, 0),
            Err(StatsError::NoRounds)
        );
    }

    /// The depression scores of R's example of the test, the pair before the last moved by 0.01.
    const BEFORE: [f64; 9] = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.05, 1.30];
    const AFTER: [f64; 9] = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.13, 1.29];

    #[test]
    fn wilcoxon_as_scipy() {
        // scipy.stats.wilcoxon(before, after): (5.0, 0.0390625), its statistic being the smaller sum.
        let test = wilcoxon_signed_rank(&BEFORE, &AFTER).unwrap();
        assert_eq!((test.statistic, test.p_value), (40.0, 0.0390625));
        // x = [(i*37 % 101 - 30) / 7 for i in range(60)]
        // scipy.stats.wilcoxon(x, method="approx", correction=False)
        let x: Vec<f64> = (0..60)
            .map(|i| f64::from(i * 37 % 101 - 30) / 7.0)
            .collect();
        let test = wilcoxon_signed_rank(&x, &[0.0; 60]).unwrap();
        assert!(
            close(test.p_value / 2.7991965601159334e-05, 1.0, 1e-9),
            "{test:?}"
        );
        // With ties and zeros: x = [i*37 % 23 - 8 for i in range(60)]
        let x: Vec<f64> = (0..60).map(|i| f64::from(i * 37 % 23 - 8)).collect();
        let test = wilcoxon_signed_rank(&x, &[0.0; 60]).unwrap();
        assert!(
            close(test.p_value / 0.0031533488349645717, 1.0, 1e-9),
            "{test:?}"
        );
    }

    #[test]
    fn no_difference_is_no_evidence() {
        assert_eq!(
            wilcoxon_signed_rank(&[1.0, 2.0], &[1.0, 2.0])
                .unwrap()
                .p_value,
            1.0
        );
        assert_eq!(wilcoxon_signed_rank(&[], &[]).unwrap().p_value, 1.0);
        assert_eq!(
            paired_permutation(&[1.0; 3], &[1.0; 3], 100, 0)
                .unwrap()
                .p_value,
            1.0
        );
        assert_eq!(paired_permutation(&[], &[], 100, 0).unwrap().p_value, 1.0);
        assert!(matches!(
            wilcoxon_signed_rank(&[1.0, f64::INFINITY], &[1.0, 2.0]),
            Err(StatsError::NotFinite { row: 1, .. })
        ));
        assert_eq!(
            paired_permutation(&[1.0], &[2.0], 0, 0),
            Err(StatsError::NoRounds)
        );
    }

    #[test]
    fn permutations_as_scipy_and_sampled_near_exact() {
        // scipy.stats.permutation_test((before - after,), np.mean, permutation_type="samples",
        //                              n_resamples=np.inf).pvalue
        let exact = paired_permutation(&BEFORE, &AFTER, 512, 0).unwrap();
        assert_eq!(exact.p_value, 0.02734375);
        // 511 rounds are too few for all signs, 100,000 random ones come near: sd 0.0005.
        let longer = |v: &[f64]| [v, v].concat();
        let (before, after) = (longer(&BEFORE), longer(&AFTER));
        let exact = paired_permutation(&before, &after, 1 << 18, 0).unwrap();
        let sampled = paired_permutation(&before, &after, 100_000, 3).unwrap();
        let sd = (exact.p_value / 1e5).sqrt();
        assert_ne!(exact.p_value, sampled.p_value);
        assert!((exact.p_value - sampled.p_value).abs() < 5.0 * sd + 1e-5);
        assert_eq!(exact.statistic, sampled.statistic);
    }

    /// The library's erfc is off by up to 1e-10 of its value: it has some constants of the approximation
    /// rounded to ten digits. That shows in the statistic, and is far below any use of it.
    #[test]
    fn anderson_darling_as_scipy() {
        // v = [148, 154, 158, 160, 161, 162, 166, 170, 182, 195, 236]; n = 11
        // scipy.stats.anderson(v, "norm").statistic * (1 + 4/n - 25/n**2)
        let v = [
            148., 154., 158., 160., 161., 162., 166., 170., 182., 195., 236.,
        ];
        let found = anderson_darling(&v).unwrap().unwrap();
        assert!(close(found, 1.0954385383788767, 1e-9), "{found}");
        // scipy.stats.anderson([i*i % 17 for i in range(40)], "norm").statistic
        let v: Vec<f64> = (0..40).map(|i| f64::from(i * i % 17)).collect();
        let found = anderson_darling(&v).unwrap().unwrap() / (1.0 + 4.0 / 40.0 - 25.0 / 1600.0);
        assert!(close(found, 1.4566904818976738, 1e-9), "{found}");
    }

    #[test]
    fn anderson_darling_tells_two_humps_from_one() {
        let mut rng = sampling::rng(2, "test");
        let mut normal = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let one: Vec<f64> = (0..500).map(|_| normal()).collect();
        let two: Vec<f64> = one
            .iter()
            .enumerate()
            .map(|(i, v)| v + (i % 2) as f64 * 8.0)
            .collect();
        assert!(anderson_darling(&one).unwrap().unwrap() < ANDERSON_DARLING_CRITICAL);
        assert!(anderson_darling(&two).unwrap().unwrap() > 10.0 * ANDERSON_DARLING_CRITICAL);
        // A value so far out that its probability is 0 to the machine still gives a number.
        let mut far = vec![0.0; 5000];
        far.iter_mut().zip(&one).for_each(|(v, o)| *v = *o);
        far[0] = 1e9;
        assert!(anderson_darling(&far).unwrap().unwrap().is_finite());
        assert_eq!(anderson_darling(&[1.0; 20]), Ok(None));
        assert_eq!(anderson_darling(&[1., 2., 3., 4., 5., 6., 7.]), Ok(None));
    }

    #[test]
    fn the_two_branches_of_ln_normal_meet() {
        let (near, far) = (ln_normal(-30.0 + 1e-9), ln_normal(-30.0));
        // The slope is about -z = 30, and the series' next term is 15 / z^6 = 2e-8.
        assert!((near - far).abs() < 1e-7, "{near} {far}");
        assert!(close(ln_normal(0.0), -std::f64::consts::LN_2, 1e-15));
    }

    #[test]
    fn ranks_share_ties() {
        assert_eq!(
            midranks(&[3.0, -0.0, 3.0, 0.0, 9.0, 3.0]),
            [4.0, 1.5, 4.0, 1.5, 6.0, 4.0]
        );
        assert!(midranks(&[]).is_empty());
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

        #[test]
        fn exact_wilcoxon_is_the_enumeration(values in prop::collection::vec(-4i32..5, 1..11)) {
            let d: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            let test = wilcoxon_signed_rank(&d, &vec![0.0; d.len()]).unwrap();
            let magnitudes: Vec<f64> = d.iter().filter(|&&v| v != 0.0).map(|v| v.abs()).collect();
            // Ranks by counting: those smaller, and the middle of those equal.
            let ranks: Vec<f64> = magnitudes.iter().map(|m| {
                let smaller = magnitudes.iter().filter(|o| *o < m).count() as f64;
                let equal = magnitudes.iter().filter(|o| *o == m).count() as f64;
                smaller + (equal + 1.0) / 2.0
            }).collect();
            let n = ranks.len();
            let sum_of = |mask: u32| (0..n).filter(|i| mask >> i & 1 == 1).map(|i| ranks[i]).sum::<f64>();
            let (mut below, mut above) = (0, 0);
            for mask in 0..1u32 << n {
                below += i32::from(sum_of(mask) <= test.statistic);
                above += i32::from(sum_of(mask) >= test.statistic);
            }
            let expected = (2.0 * f64::from(below.min(above)) / f64::from(1u32 << n)).min(1.0);
            prop_assert_eq!(test.p_value, expected);
        }

        #[test]
        fn quantiles_rise_and_stay_inside(values in prop::collection::vec(-1e6f64..1e6, 1..40), a in 0.0f64..=1.0, b in 0.0f64..=1.0) {
            let (a, b) = (a.min(b), a.max(b));
            let found = quantiles(&values, &[0.0, a, b, 1.0]).unwrap();
            // Interpolation rounds, so a plateau may waver in its last digit.
            prop_assert!(found.windows(2).all(|w| w[0] <= w[1] + 1e-9));
            prop_assert_eq!(quantile(&values, a).unwrap(), found[1]);
        }
    }
}
