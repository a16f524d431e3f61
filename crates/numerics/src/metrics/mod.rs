//! Numbers that say how good a result is. Where scikit-learn has the metric, its convention is followed,
//! edge cases included, unless the function says otherwise.

/// Quality of clusterings: against known labels, and from the data alone.
pub mod clustering;

/// Quality of classifiers: of predicted labels, of scores and of probabilities.
pub mod classification;

/// Why a metric could not be computed. Rows and columns are counted from 0.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MetricError {
    /// Two inputs that belong together row by row have different lengths.
    #[error("{first} rows do not match {second} rows")]
    LengthsDiffer {
        /// Rows of the first input.
        first: usize,
        /// Rows of the second.
        second: usize,
    },
    /// There is nothing to score.
    #[error("there are no rows to score")]
    Empty,
    /// The metric compares two classes and only one occurs.
    #[error("all rows are of one class; the metric needs both")]
    OneClass,
    /// The metric looks for the rows of the positive class and there are none.
    #[error("no row is of the positive class")]
    NoPositive,
    /// A score is not a number.
    #[error("the score in row {row} is not a number")]
    NanScore {
        /// The row.
        row: usize,
    },
    /// A value of the data is infinite or not a number.
    #[error("value {value} in row {row}, column {column} is not finite")]
    NotFinite {
        /// The row.
        row: usize,
        /// The column.
        column: usize,
        /// The value found there.
        value: f64,
    },
    /// A probability lies outside 0 to 1, or is not a number.
    #[error("{value} in row {row} is not a probability")]
    Probability {
        /// The row.
        row: usize,
        /// The value found there.
        value: f64,
    },
    /// The probabilities of a row do not sum to 1.
    #[error("the probabilities in row {row} sum to {sum}, not to 1")]
    ProbabilitySum {
        /// The row.
        row: usize,
        /// Their sum.
        sum: f64,
    },
    /// A class has no column among the probabilities.
    #[error("row {row} is of class {class}, but there are only {columns} columns of probabilities")]
    ClassColumn {
        /// The row.
        row: usize,
        /// Its class.
        class: usize,
        /// The number of columns.
        columns: usize,
    },
    /// The metric needs at least two clusters, and fewer clusters than rows.
    #[error("{clusters} clusters of {rows} rows: from 2 to one less than the rows are needed")]
    ClusterCount {
        /// Clusters found; noise is none.
        clusters: usize,
        /// Rows in clusters.
        rows: usize,
    },
    /// A histogram was asked for without a bin.
    #[error("at least one bin is needed")]
    NoBins,
}

pub(crate) fn check_lengths(first: usize, second: usize) -> Result<(), MetricError> {
    if first != second {
        return Err(MetricError::LengthsDiffer { first, second });
    }
    if first == 0 {
        return Err(MetricError::Empty);
    }
    Ok(())
}
