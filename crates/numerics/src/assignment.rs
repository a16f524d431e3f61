//! The best matching between two sets, each member used at most once.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Sum;

use ndarray::ArrayView2;
use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;
use pathfinding::num_traits::{Bounded, Signed, Zero};

/// Why there is no assignment.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AssignmentError {
    /// A score is infinite or not a number.
    #[error("score {value} at row {row}, column {column} is not finite")]
    NotFinite {
        /// The row, counted from 0.
        row: usize,
        /// The column, counted from 0.
        column: usize,
        /// The score found there.
        value: f64,
    },
}

/// For each row of `scores` [r, c] the column it is given, so that no column is given twice and the sum of
/// the scores is as large as possible. With `r > c`, `r - c` rows get `None`; otherwise none does.
///
/// Kuhn-Munkres, O(min(r, c)^2 max(r, c)) time. It runs on integers, since on floating-point numbers it may
/// not end: a score is first rounded to a multiple of 2^-62 of the largest magnitude's power of two, which
/// changes only scores less than 2^-10 of the largest, and those by less than the largest's own last digit.
/// Which of several best assignments is given is fixed, but otherwise not specified.
///
/// # Errors
/// [`AssignmentError::NotFinite`] for the first score that is not finite.
pub fn maximum_assignment(
    scores: ArrayView2<'_, f64>,
) -> Result<Vec<Option<usize>>, AssignmentError> {
    if let Some(((row, column), &value)) = scores.indexed_iter().find(|(_, v)| !v.is_finite()) {
        return Err(AssignmentError::NotFinite { row, column, value });
    }
    let (rows, columns) = scores.dim();
    let largest = scores.iter().fold(0.0f64, |max, v| max.max(v.abs()));
    if largest == 0.0 {
        return Ok((0..rows)
            .map(|row| (row < columns).then_some(row))
            .collect());
    }
    // In two steps, each of them a power of two and so exact: 2^(62 - exponent) alone could overflow. The
    // integers stay below 2^63, and the sums of 2^32 sums of 2^32 of them fit.
    let exponent = largest.log2().floor() as i32;
    let (half, rest) = (-exponent / 2, 62 - exponent + exponent / 2);
    let integers: Vec<i128> = scores
        .iter()
        .map(|v| (v * 2f64.powi(half) * 2f64.powi(rest)).round() as i128)
        .collect();
    Ok(assign(&integers, rows, columns))
}

/// The best assignment of integers in row-major order. Kuhn-Munkres as the library has it wants at least as
/// many columns as rows, so a taller matrix is turned.
fn assign<C>(scores: &[C], rows: usize, columns: usize) -> Vec<Option<usize>>
where
    C: Bounded + Sum<C> + Zero + Signed + Ord + Copy,
{
    if rows == 0 || columns == 0 {
        return vec![None; rows];
    }
    if rows <= columns {
        let matrix = Matrix::from_fn(rows, columns, |(r, c)| scores[r * columns + c]);
        return kuhn_munkres(&matrix).1.into_iter().map(Some).collect();
    }
    let matrix = Matrix::from_fn(columns, rows, |(c, r)| scores[r * columns + c]);
    let mut given = vec![None; rows];
    for (column, row) in kuhn_munkres(&matrix).1.into_iter().enumerate() {
        given[row] = Some(column);
    }
    given
}

/// The best matching of two labelings of the same rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMatching {
    /// For each label of the second labeling the label of the first that it is matched to, one to one.
    /// `None` where the second has more labels than the first. A pair may share no row, if nothing better
    /// was left for either.
    pub pairs: BTreeMap<i32, Option<i32>>,
    /// Rows on which the first labeling and the renamed second agree: the largest number possible.
    pub agreeing: u64,
}

/// Matches the labels of `second` to those of `first`, one to one, so that as many rows as possible agree.
///
/// `cells` holds (label in the first, label in the second, rows with both) for each pair that occurs, as
/// [`Contingency::cells`](crate::metrics::clustering::Contingency) does. Exact, since counts are integers.
/// O(min(r, c)^2 max(r, c)) time and r c memory for r and c labels.
pub fn match_labels(cells: &[(i32, i32, u64)]) -> LabelMatching {
    let firsts: BTreeSet<i32> = cells.iter().map(|cell| cell.0).collect();
    let firsts: Vec<i32> = firsts.into_iter().collect();
    let mut seconds: BTreeMap<i32, usize> = cells.iter().map(|cell| (cell.1, 0)).collect();
    for (index, place) in seconds.values_mut().enumerate() {
        *place = index;
    }
    let (rows, columns) = (seconds.len(), firsts.len());
    let mut counts = vec![0i64; rows * columns];
    for &(first, second, count) in cells {
        let column = firsts.partition_point(|&label| label < first);
        counts[seconds[&second] * columns + column] += count as i64;
    }
    let given = assign(&counts, rows, columns);
    LabelMatching {
        pairs: seconds
            .iter()
            .map(|(&label, &row)| (label, given[row].map(|column| firsts[column])))
            .collect(),
        agreeing: given
            .iter()
            .enumerate()
            .filter_map(|(row, column)| column.map(|c| counts[row * columns + c] as u64))
            .sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};
    use proptest::prelude::*;

    fn total(scores: &Array2<f64>, given: &[Option<usize>]) -> f64 {
        given
            .iter()
            .enumerate()
            .filter_map(|(r, c)| c.map(|c| scores[(r, c)]))
            .sum()
    }

    /// The best total by trying every choice: row by row, each free column or (if rows are in excess) none.
    fn by_trying_all(scores: &Array2<f64>, row: usize, used: u32, spare: usize) -> f64 {
        if row == scores.nrows() {
            return 0.0;
        }
        let mut best = f64::NEG_INFINITY;
        if spare > 0 {
            best = by_trying_all(scores, row + 1, used, spare - 1);
        }
        for c in 0..scores.ncols() {
            if used & (1 << c) == 0 {
                best = best
                    .max(scores[(row, c)] + by_trying_all(scores, row + 1, used | (1 << c), spare));
            }
        }
        best
    }

    #[test]
    fn a_case_by_hand() {
        // Taking each row's best (9, 8, 9 in column 0, 0, 1) is not allowed; 8 + 6 + 9 is the best.
        let scores = array![[9.0, 2.0, 6.0], [8.0, 7.0, 1.0], [5.0, 9.0, 4.0]];
        assert_eq!(
            maximum_assignment(scores.view()).unwrap(),
            [Some(2), Some(0), Some(1)]
        );
        let tall = array![[1.0], [3.0], [2.0]];
        assert_eq!(
            maximum_assignment(tall.view()).unwrap(),
            [None, Some(0), None]
        );
        assert_eq!(maximum_assignment(tall.t()).unwrap(), [Some(1)]);
    }

    #[test]
    fn every_row_is_given_a_column_even_at_a_loss() {
        let scores = array![[-5.0, -1.0], [-2.0, -1.0]];
        assert_eq!(
            maximum_assignment(scores.view()).unwrap(),
            [Some(1), Some(0)]
        );
    }

    #[test]
    fn magnitudes_do_not_matter() {
        let scores = array![[9.0, 2.0, 6.0], [8.0, 7.0, 1.0], [5.0, 9.0, 4.0]];
        for scale in [
            f64::MAX / 10.0,
            f64::MIN_POSITIVE,
            1e-320,
            -f64::MIN_POSITIVE,
        ] {
            let scaled = &scores * scale;
            let expected = if scale > 0.0 {
                [Some(2), Some(0), Some(1)]
            } else {
                // The least total: 2 + 1 + 5.
                [Some(1), Some(2), Some(0)]
            };
            assert_eq!(
                maximum_assignment(scaled.view()).unwrap(),
                expected,
                "{scale}"
            );
        }
    }

    #[test]
    fn a_difference_in_the_last_digit_decides() {
        let (one, more) = (1.0, 1.0 + f64::EPSILON);
        let scores = array![[one, more], [one, one]];
        assert_eq!(
            maximum_assignment(scores.view()).unwrap(),
            [Some(1), Some(0)]
        );
        let scores = array![[more, one], [one, one]];
        assert_eq!(
            maximum_assignment(scores.view()).unwrap(),
            [Some(0), Some(1)]
        );
    }

    #[test]
    fn edges_and_bad_input() {
        assert!(
            maximum_assignment(Array2::zeros((0, 3)).view())
                .unwrap()
                .is_empty()
        );
        assert_eq!(
            maximum_assignment(Array2::zeros((2, 0)).view()).unwrap(),
            [None, None]
        );
        assert_eq!(
            maximum_assignment(Array2::zeros((3, 2)).view()).unwrap(),
            [Some(0), Some(1), None]
        );
        assert!(matches!(
            maximum_assignment(array![[0.0, 1.0], [f64::NAN, 2.0]].view()),
            Err(AssignmentError::NotFinite {
                row: 1,
                column: 0,
                ..
            })
        ));
    }

    #[test]
    fn labels_are_matched_by_shared_rows() {
        // Second label 7 shares 3 rows with 0 and 2 with 1; 8 shares 2 with 0; 9 shares 1 with 0.
        let cells = [(0, 7, 3), (1, 7, 2), (0, 8, 2), (0, 9, 1)];
        let matching = match_labels(&cells);
        assert_eq!(matching.agreeing, 4); // 7 to 1 and 8 to 0, although 7 to 0 alone has more
        assert_eq!(
            matching.pairs,
            BTreeMap::from([(7, Some(1)), (8, Some(0)), (9, None)])
        );
        assert_eq!(match_labels(&[]).agreeing, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn as_good_as_trying_all(rows in 0usize..6, columns in 0usize..6, values in prop::collection::vec(-3.0f64..3.0, 25), ties: bool) {
            let scores = Array2::from_shape_fn((rows, columns), |(r, c)| {
                let v = values[r * 5 + c];
                if ties { v.round() } else { v }
            });
            let given = maximum_assignment(scores.view()).unwrap();
            let mut used: Vec<usize> = given.iter().flatten().copied().collect();
            prop_assert_eq!(used.len(), rows.min(columns));
            used.sort_unstable();
            used.dedup();
            prop_assert_eq!(used.len(), rows.min(columns));
            let best = by_trying_all(&scores, 0, 0, rows.saturating_sub(columns));
            prop_assert!((total(&scores, &given) - best).abs() < 1e-12);
        }
    }
}
