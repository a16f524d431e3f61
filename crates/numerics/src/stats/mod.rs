//! Statistics of samples: moments in one pass, quantiles, intervals, paired tests, a test of normality.

mod intervals;
mod moments;
mod normality;
mod quantiles;
mod ranks;
mod tests_of_difference;

pub use intervals::{Interval, bootstrap_interval, mean_interval};
pub use moments::{ColumnMoments, Moments};
pub use normality::anderson_darling;
pub use quantiles::{quantile, quantiles};
pub use ranks::midranks;
pub use tests_of_difference::{PairedTest, paired_permutation, wilcoxon_signed_rank};

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
    pub(super) fn close(a: f64, b: f64, tolerance: f64) -> bool {
        (a - b).abs() <= tolerance * b.abs().max(1.0)
    }
}
