//! Intervals around an estimate: Student's for a mean, the bootstrap's for any statistic.

use rand::RngExt;
use rayon::prelude::*;
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{Moments, StatsError, check_finite, check_level, quantiles};
use crate::sampling;

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
/// The t below which Student's distribution has `share` of its mass, `share` above 1/2.
fn student_quantile(share: f64, freedom: f64) -> f64 {
    match StudentsT::new(0.0, 1.0, freedom) {
        Ok(student) => student.inverse_cdf(share),
        // Not reached: freedom is at least 1. An unbounded interval is the honest answer to no freedom.
        Err(_) => f64::INFINITY,
    }
}

/// The percentile bootstrap interval of a statistic (Efron 1979): the `(1 - level) / 2` and
/// `(1 + level) / 2` [quantiles](super::quantile) of its values on `rounds` samples of n drawn with replacement.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::tests::close;

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
}
