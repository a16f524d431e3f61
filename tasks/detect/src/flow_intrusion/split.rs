//! Which flows are trained on and which are held out.

use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::{rng, sample_sorted};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How held-out flows are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// The last flows of the file: the future, as in use.
    Last,
    /// Flows drawn from the whole file: easier than use, as their neighbours are trained on.
    Random,
    /// The flows that the test column of the schema marks.
    Column,
}

/// The parts of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// For each row whether preparation may look at it.
    pub training: Vec<bool>,
    /// Rows to train on: training rows with a whole window before them, ascending.
    pub train: Vec<usize>,
    /// Rows to be measured on: held-out rows with a whole window, ascending.
    pub held_out: Vec<usize>,
    /// Remarks for the reader.
    pub notes: Vec<String>,
}

/// Divides `rows` flows.
///
/// `share` is the part that is held out, for [`Split::Last`] and [`Split::Random`]; `flags` the texts of the test
/// column, for [`Split::Column`]. With `reference` the training rows are at least `window` away from both ends of the
/// file, as in the code of the paper's authors.
///
/// # Errors
/// A window of 0 or too long for the file, a share that leaves a part empty, or a test column that is missing or says
/// what nobody knows.
pub fn divide<'a>(
    how: Split,
    rows: usize,
    window: usize,
    share: f64,
    flags: Option<impl Iterator<Item = &'a str>>,
    reference: bool,
    seed: u64,
) -> Result<Parts> {
    if window == 0 {
        return Err(Error::option("window", "must be at least 1"));
    }
    if rows <= 2 * window {
        return Err(Error::BadInput(format!(
            "{rows} flows are too few for windows of {window}; give more than {}",
            2 * window
        )));
    }
    let mut notes = Vec::new();
    let count = || {
        let count = (rows as f64 * share) as usize;
        if !(share > 0.0 && share < 1.0) || count == 0 || count >= rows - window {
            return Err(Error::option(
                "eval-fraction",
                format!(
                    "{share} of {rows} flows leaves nothing to train or to measure on; give a share between 0 and 1"
                ),
            ));
        }
        Ok(count)
    };
    let mut training = vec![true; rows];
    match how {
        Split::Last => training[rows - count()?..].fill(false),
        Split::Random => {
            let drawn = sample_sorted(&mut rng(seed, "held-out flows"), rows - window, count()?)
                .map_err(|e| Error::Failed(e.to_string()))?;
            for row in drawn {
                training[row + window] = false;
            }
        }
        Split::Column => {
            let flags = flags.ok_or_else(|| {
                Error::option(
                    "split",
                    "the flows have no test column; name one in a schema of your own, or split by last or random",
                )
            })?;
            for (row, flag) in flags.enumerate() {
                training[row] = !is_test(flag).ok_or_else(|| {
                    Error::option(
                        "split",
                        format!("row {}: the test column says '{flag}'; it should say 0 or 1, train or test, false or true", row + 1),
                    )
                })?;
            }
        }
    }
    if how != Split::Last && window > 1 {
        notes.push(
            "held-out flows lie among training flows: windows of either kind contain flows of the other (not their labels)"
                .into(),
        );
    }
    let first = if reference { window } else { window - 1 };
    let end = if reference { rows - window } else { rows };
    let parts = Parts {
        train: (first..end).filter(|row| training[*row]).collect(),
        held_out: (window - 1..rows).filter(|row| !training[*row]).collect(),
        training,
        notes,
    };
    if parts.train.is_empty() || parts.held_out.is_empty() {
        return Err(Error::option(
            "split",
            format!(
                "{} flows to train on and {} to measure on: both are needed",
                parts.train.len(),
                parts.held_out.len()
            ),
        ));
    }
    Ok(parts)
}

fn is_test(flag: &str) -> Option<bool> {
    match flag.to_ascii_lowercase().as_str() {
        "1" | "true" | "test" | "yes" => Some(true),
        "0" | "false" | "train" | "no" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONE: Option<std::iter::Empty<&str>> = None;

    #[test]
    fn last_rows_are_the_last_and_reference_keeps_away_from_the_ends() {
        let parts = divide(Split::Last, 20, 3, 0.25, NONE, false, 0).unwrap();
        assert_eq!(parts.train, (2..15).collect::<Vec<_>>());
        assert_eq!(parts.held_out, (15..20).collect::<Vec<_>>());
        assert!(parts.training[0] && parts.notes.is_empty());
        let parts = divide(Split::Last, 20, 3, 0.1, NONE, true, 0).unwrap();
        assert_eq!(parts.train, (3..17).collect::<Vec<_>>());
        assert_eq!(parts.held_out, [18, 19]);
    }

    #[test]
    fn the_test_column_is_followed() {
        let flags = ["0", "1", "0", "1", "0", "0", "TRUE"];
        let parts = divide(Split::Column, 7, 2, 0.5, Some(flags.into_iter()), false, 0).unwrap();
        assert_eq!(parts.held_out, [1, 3, 6]);
        assert_eq!(parts.train, [2, 4, 5]);
        let wrong = ["0", "1", "maybe", "0", "0", "0", "0"];
        let text = divide(Split::Column, 7, 2, 0.5, Some(wrong.into_iter()), false, 0)
            .unwrap_err()
            .to_string();
        assert!(text.contains("row 3") && text.contains("'maybe'"), "{text}");
    }

    #[test]
    fn what_cannot_be_divided_is_told() {
        for (rows, window, share, told) in [
            (100, 0, 0.2, "window"),
            (16, 8, 0.2, "too few"),
            (100, 8, 0.0, "eval-fraction"),
            (100, 8, 1.0, "eval-fraction"),
            (100, 8, 0.001, "eval-fraction"),
            (100, 8, f64::NAN, "eval-fraction"),
        ] {
            let text = divide(Split::Last, rows, window, share, NONE, false, 0)
                .unwrap_err()
                .to_string();
            assert!(text.contains(told), "{text}");
        }
        assert!(divide(Split::Column, 100, 8, 0.2, NONE, false, 0).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn parts_are_apart_and_have_whole_windows(
            rows in 30usize..200, window in 1usize..10, share in 0.05f64..0.6, random: bool, reference: bool, seed in 0u64..99,
        ) {
            let how = if random { Split::Random } else { Split::Last };
            let parts = divide(how, rows, window, share, NONE, reference, seed).unwrap();
            prop_assert_eq!(parts.held_out.len(), (rows as f64 * share) as usize);
            prop_assert!(parts.train.iter().all(|r| parts.training[*r] && *r + 1 >= window && *r < rows));
            prop_assert!(parts.held_out.iter().all(|r| !parts.training[*r] && *r + 1 >= window));
            let again = divide(how, rows, window, share, NONE, reference, seed).unwrap();
            prop_assert_eq!(parts, again);
        }
    }
}
