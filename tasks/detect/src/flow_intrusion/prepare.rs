//! Preparation: rows become numbers in [0, 1] and codes of levels, by what the training rows show.
//!
//! With v a number, v0 and r the minimum and the range of the training rows' numbers:
//! 1. a number that is not finite, or beyond `bound` either way, counts as 0;
//! 2. z = ln(v - v0 + 1) / ln(r + 1), and 0 where r is 0; below v0 the logarithm would not exist, so v - v0 is taken
//!    as 0 there; above the training rows' maximum z exceeds 1 unless it is clipped;
//! 3. the levels of a categorical column are counted on the training rows; the `levels` most frequent ones (of equally
//!    frequent ones the first in sorted order) get codes from 1; all others, and those never seen, code 0.
//!
//! With `reference` the code of a level that is rare or new is that of the most frequent one, and there is no column
//! for it, as in the code of the paper's authors.

use super::records::{Records, Texts};
use super::schema::Schema;
use papertrial_core::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// What the columns of prepared flows are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Layout {
    /// Names of the numeric columns, in schema order.
    pub numeric: Vec<String>,
    /// Names of the categorical columns, in schema order.
    pub categorical: Vec<String>,
    /// Codes of each categorical column: a code of column `j` is below `codes[j]`.
    pub codes: Vec<usize>,
}

impl Layout {
    /// Columns once every code has one of its own: the numeric ones and all codes.
    pub fn one_hot(&self) -> usize {
        self.numeric.len() + self.codes.iter().sum::<usize>()
    }
}

/// Prepared flows in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Flows {
    /// Columns.
    pub layout: Arc<Layout>,
    /// Numeric columns, [rows, numeric] in row-major order.
    pub numeric: Vec<f32>,
    /// Codes of the categorical columns, [rows, categorical] in row-major order.
    pub codes: Vec<u32>,
    /// Whether each flow is an attack; `None` where the table says nothing.
    pub attack: Option<Vec<bool>>,
    /// Number of flows.
    pub rows: usize,
}

impl Flows {
    /// Numbers of one flow.
    pub fn numbers_of(&self, row: usize) -> &[f32] {
        let width = self.layout.numeric.len();
        &self.numeric[row * width..(row + 1) * width]
    }

    /// Codes of one flow.
    pub fn codes_of(&self, row: usize) -> &[u32] {
        let width = self.layout.categorical.len();
        &self.codes[row * width..(row + 1) * width]
    }

    /// Writes one flow as [`Layout::one_hot`] numbers: the numeric columns, then a 1 at each code.
    pub fn write_one_hot(&self, row: usize, to: &mut [f32]) {
        let (numbers, mut rest) = to.split_at_mut(self.layout.numeric.len());
        numbers.copy_from_slice(self.numbers_of(row));
        for (code, codes) in self.codes_of(row).iter().zip(&self.layout.codes) {
            let (own, after) = std::mem::take(&mut rest).split_at_mut(*codes);
            own.fill(0.0);
            own[*code as usize] = 1.0;
            rest = after;
        }
    }

    /// Puts the flows of `after`, which has the same columns, behind these, and forgets all but the last `kept` of
    /// what was there before.
    pub fn follow(&mut self, after: &Flows, kept: usize) {
        let gone = self.rows.saturating_sub(kept);
        self.numeric.drain(..gone * self.layout.numeric.len());
        self.codes.drain(..gone * self.layout.categorical.len());
        self.numeric.extend_from_slice(&after.numeric);
        self.codes.extend_from_slice(&after.codes);
        self.attack = match (self.attack.take(), &after.attack) {
            (Some(mut before), Some(after)) => {
                before.drain(..gone);
                before.extend_from_slice(after);
                Some(before)
            }
            _ => None,
        };
        self.rows = self.rows - gone + after.rows;
    }

    /// The labels.
    ///
    /// # Errors
    /// There are none.
    pub fn labels(&self) -> Result<&[bool]> {
        self.attack.as_deref().ok_or_else(|| {
            Error::BadInput(
                "the flows have no class; name its column with --label, or give a model with --model".into(),
            )
        })
    }
}

/// How flows are prepared.
#[derive(Debug, Clone, PartialEq)]
pub struct Preparing {
    /// Levels of a categorical column that get a code of their own.
    pub levels: usize,
    /// Whether numbers beyond the training rows' are cut to [0, 1].
    pub clip: bool,
    /// Numbers beyond it, either way, count as 0.
    pub bound: f64,
    /// Whether rare levels share the code of the most frequent one.
    pub reference: bool,
}

impl Default for Preparing {
    fn default() -> Self {
        Preparing {
            levels: 32,
            clip: false,
            bound: 1e9,
            reference: false,
        }
    }
}

/// What the training rows showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Preparation {
    numeric: Vec<Scale>,
    categorical: Vec<Levels>,
    clip: bool,
    bound: f64,
    reference: bool,
}

/// A numeric column of the training rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Scale {
    name: String,
    minimum: f64,
    range: f64,
}

/// A categorical column of the training rows: its levels with a code of their own, the most frequent first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Levels {
    name: String,
    levels: Vec<String>,
}

/// How often numbers were not what training showed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// Not finite, or empty.
    pub not_finite: u64,
    /// Beyond the bound.
    pub beyond: u64,
    /// Below the training minimum.
    pub below: u64,
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: Tally) {
        self.not_finite += other.not_finite;
        self.beyond += other.beyond;
        self.below += other.below;
    }

    /// Remarks for the reader.
    pub fn notes(&self) -> Vec<String> {
        [
            (
                self.not_finite,
                "numbers were empty or not finite and count as 0",
            ),
            (self.beyond, "numbers were beyond 1e9 and count as 0"),
            (
                self.below,
                "numbers were below the training rows' minimum and count as it",
            ),
        ]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect()
    }
}

impl Preparation {
    /// Looks at the rows of `records` for which `training` is true.
    ///
    /// # Errors
    /// No training rows, or no levels.
    pub fn fit(
        records: &Records,
        schema: &Schema,
        training: &[bool],
        how: &Preparing,
    ) -> Result<Preparation> {
        if !training.iter().any(|t| *t) {
            return Err(Error::BadInput("there are no training rows".into()));
        }
        if how.levels == 0 {
            return Err(Error::option("levels", "must be at least 1"));
        }
        let numeric = records
            .numeric
            .par_iter()
            .zip(&schema.numeric)
            .map(|(column, name)| {
                let mut range = (f64::INFINITY, f64::NEG_INFINITY);
                for (value, _) in column.iter().zip(training).filter(|(_, t)| **t) {
                    let value = cleaned(*value, how.bound).0;
                    range = (range.0.min(value), range.1.max(value));
                }
                Scale {
                    name: name.clone(),
                    minimum: range.0,
                    range: range.1 - range.0,
                }
            })
            .collect();
        let categorical = records
            .categorical
            .par_iter()
            .zip(&schema.categorical)
            .map(|(column, name)| Levels {
                name: name.clone(),
                levels: most_frequent(column, training, how.levels),
            })
            .collect();
        Ok(Preparation {
            numeric,
            categorical,
            clip: how.clip,
            bound: how.bound,
            reference: how.reference,
        })
    }

    /// What the columns of prepared flows are.
    pub fn layout(&self) -> Layout {
        let rare = usize::from(!self.reference);
        Layout {
            numeric: self.numeric.iter().map(|s| s.name.clone()).collect(),
            categorical: self.categorical.iter().map(|l| l.name.clone()).collect(),
            codes: self
                .categorical
                .iter()
                .map(|l| (l.levels.len() + rare).max(1))
                .collect(),
        }
    }

    /// Prepares rows; how often they were not what training showed is added to `tally`.
    pub fn transform(&self, records: &Records, layout: &Arc<Layout>, tally: &mut Tally) -> Flows {
        let columns: Vec<(Vec<f32>, Tally)> = records
            .numeric
            .par_iter()
            .zip(&self.numeric)
            .map(|(column, scale)| self.numbers(column, scale))
            .collect();
        let width = columns.len();
        let mut numeric = vec![0.0; records.rows * width];
        for (j, (column, odd)) in columns.into_iter().enumerate() {
            tally.add(odd);
            for (i, value) in column.into_iter().enumerate() {
                numeric[i * width + j] = value;
            }
        }
        let columns: Vec<Vec<u32>> = records
            .categorical
            .par_iter()
            .zip(&self.categorical)
            .map(|(column, levels)| self.codes(column, levels))
            .collect();
        let width = columns.len();
        let mut codes = vec![0; records.rows * width];
        for (j, column) in columns.into_iter().enumerate() {
            for (i, value) in column.into_iter().enumerate() {
                codes[i * width + j] = value;
            }
        }
        Flows {
            layout: layout.clone(),
            numeric,
            codes,
            attack: None,
            rows: records.rows,
        }
    }

    fn numbers(&self, column: &[f64], scale: &Scale) -> (Vec<f32>, Tally) {
        let mut tally = Tally::default();
        let whole = scale.range.ln_1p();
        let values = column
            .iter()
            .map(|value| {
                let (value, odd) = cleaned(*value, self.bound);
                match odd {
                    Some(Odd::NotFinite) => tally.not_finite += 1,
                    Some(Odd::Beyond) => tally.beyond += 1,
                    None => (),
                }
                if value < scale.minimum {
                    tally.below += 1;
                }
                if scale.range == 0.0 {
                    return 0.0;
                }
                let z = ((value - scale.minimum).max(0.0).ln_1p() / whole) as f32;
                if self.clip { z.min(1.0) } else { z }
            })
            .collect();
        (values, tally)
    }

    fn codes(&self, column: &Texts, levels: &Levels) -> Vec<u32> {
        let first = u32::from(!self.reference);
        let known: HashMap<&str, u32> = levels
            .levels
            .iter()
            .zip(first..)
            .map(|(level, code)| (level.as_str(), code))
            .collect();
        let of: Vec<u32> = column
            .known
            .iter()
            .map(|text| known.get(text.as_str()).copied().unwrap_or(0))
            .collect();
        column.at.iter().map(|at| of[*at as usize]).collect()
    }
}

enum Odd {
    NotFinite,
    Beyond,
}

fn cleaned(value: f64, bound: f64) -> (f64, Option<Odd>) {
    if !value.is_finite() {
        (0.0, Some(Odd::NotFinite))
    } else if value.abs() > bound {
        (0.0, Some(Odd::Beyond))
    } else {
        (value, None)
    }
}

/// The `most` most frequent texts of the training rows, of equally frequent ones the first in sorted order.
fn most_frequent(column: &Texts, training: &[bool], most: usize) -> Vec<String> {
    let mut counts = vec![0u64; column.known.len()];
    for (at, _) in column.at.iter().zip(training).filter(|(_, t)| **t) {
        counts[*at as usize] += 1;
    }
    let mut order: Vec<usize> = (0..counts.len()).filter(|i| counts[*i] > 0).collect();
    order.sort_by(|a, b| {
        counts[*b]
            .cmp(&counts[*a])
            .then_with(|| column.known[*a].cmp(&column.known[*b]))
    });
    order.truncate(most);
    order.into_iter().map(|i| column.known[i].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow_intrusion::source::Source;
    use arrow::array::{ArrayRef, Float64Array, StringArray};
    use arrow::record_batch::RecordBatch;
    use papertrial_core::data::Table;
    use proptest::prelude::*;

    fn schema() -> Schema {
        toml::from_str("name = 'mine'\nnumeric = ['a']\ncategorical = ['c']\n").unwrap()
    }

    fn records(numbers: &[f64], texts: &[&str]) -> Records {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("c", Arc::new(StringArray::from(texts.to_vec()))),
            ("a", Arc::new(Float64Array::from(numbers.to_vec()))),
        ];
        let table = Table::memory("t", vec![RecordBatch::try_from_iter(columns).unwrap()]);
        Records::read(&table as &dyn Source, &schema(), None).unwrap()
    }

    fn prepared(records: &Records, training: &[bool], how: &Preparing) -> (Flows, Tally) {
        let preparation = Preparation::fit(records, &schema(), training, how).unwrap();
        let mut tally = Tally::default();
        let layout = Arc::new(preparation.layout());
        (preparation.transform(records, &layout, &mut tally), tally)
    }

    #[test]
    fn numbers_and_codes_by_hand() {
        let records = records(
            &[2.0, 9.0, 5.0, f64::NAN, 2e9, 30.0, -1.0],
            &["x", "y", "y", "z", "w", "q", "x"],
        );
        let training = [true, true, true, true, true, false, false];
        let (flows, tally) = prepared(
            &records,
            &training,
            &Preparing {
                levels: 2,
                ..Preparing::default()
            },
        );
        // NaN and 2e9 count as 0, so the minimum is 0 and the range 9.
        let z = |v: f64| ((v + 1.0).ln() / 10f64.ln()) as f32;
        let want = [z(2.0), 1.0, z(5.0), 0.0, 0.0, z(30.0), 0.0];
        for (got, want) in flows.numeric.iter().zip(want) {
            assert!((got - want).abs() < 1e-6, "{:?}", flows.numeric);
        }
        assert_eq!(
            tally,
            Tally {
                not_finite: 1,
                beyond: 1,
                below: 1
            }
        );
        // y twice; w, x and z once each: w is first in sorted order.
        assert_eq!(flows.codes, [0, 1, 1, 0, 2, 0, 0]);
        assert_eq!(flows.layout.codes, [3]);
        let mut row = [9.0; 4];
        flows.write_one_hot(4, &mut row);
        assert_eq!(row, [0.0, 0.0, 0.0, 1.0]);
        let clip = Preparing {
            levels: 2,
            clip: true,
            ..Preparing::default()
        };
        assert_eq!(prepared(&records, &training, &clip).0.numeric[5], 1.0);
        // A rare or new level shares the code of the most frequent one.
        let reference = Preparing {
            levels: 2,
            reference: true,
            ..Preparing::default()
        };
        let (flows, _) = prepared(&records, &training, &reference);
        assert_eq!(flows.codes, [0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(flows.layout.codes, [2]);
    }

    #[test]
    fn columns_without_range_are_zero_and_large_numbers_keep_their_differences() {
        let all = [true; 3];
        let (flows, _) = prepared(&records(&[7.0; 3], &["x"; 3]), &all, &Preparing::default());
        assert_eq!(flows.numeric, [0.0; 3]);
        // In single precision these three are one number.
        let large = [900_000_000.0, 900_000_001.0, 900_000_003.0];
        let (flows, _) = prepared(&records(&large, &["x"; 3]), &all, &Preparing::default());
        assert_eq!(flows.numeric, [0.0, 0.5, 1.0]);
    }

    #[test]
    fn what_is_not_training_changes_nothing() {
        let a = records(&[1.0, 4.0, 3.0], &["x", "y", "z"]);
        let b = records(&[1.0, 4.0, -9e5], &["x", "y", "y"]);
        let training = [true, true, false];
        let fit =
            |r: &Records| Preparation::fit(r, &schema(), &training, &Preparing::default()).unwrap();
        assert_eq!(fit(&a), fit(&b));
        assert!(Preparation::fit(&a, &schema(), &[false; 3], &Preparing::default()).is_err());
    }

    #[test]
    fn flows_follow_each_other() {
        let of = |n: usize, start: f64| {
            let numbers: Vec<f64> = (0..n).map(|i| start + i as f64).collect();
            prepared(
                &records(&numbers, &vec!["x"; n]),
                &vec![true; n],
                &Preparing::default(),
            )
            .0
        };
        let (mut held, next) = (of(5, 0.0), of(3, 0.0));
        let want = [&held.numeric[3..], &next.numeric[..]].concat();
        held.follow(&next, 2);
        assert_eq!((held.rows, held.numeric), (5, want));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn training_rows_land_in_0_to_1_in_their_order(values in prop::collection::vec(-1e8f64..1e8, 2..40)) {
            let texts = vec!["x"; values.len()];
            let (flows, tally) = prepared(&records(&values, &texts), &vec![true; values.len()], &Preparing::default());
            prop_assert_eq!(tally, Tally::default());
            for i in 0..values.len() {
                prop_assert!((0.0..=1.0).contains(&flows.numeric[i]));
                for j in 0..i {
                    prop_assert!((values[i] < values[j]) <= (flows.numeric[i] <= flows.numeric[j]));
                }
            }
        }
    }
}
