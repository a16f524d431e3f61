//! A labelled table with a group column as a population from which rows are bought.
//!
//! The rows of each group are put in random order once and split three ways: a pool that is sold from its front, so
//! that what is bought only grows; validation rows that a method may measure qualities on; and test rows that only
//! the final score sees. Neither of the last two is ever bought.

use super::curves::Point;
use super::models::{self, Model, Trained};
use arrow::array::{AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use ndarray::{Array2, Axis};
use papertrial_core::data::{Features, Labels, Roles, Table};
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use rand::seq::SliceRandom;

/// A labelled table by group.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// \[n, d\]
    pub x: Array2<f64>,
    /// \[n\]: numbers, or class codes.
    pub y: Vec<f64>,
    /// Number of classes; 0 for numbers.
    pub classes: usize,
    /// Row numbers of each group.
    pub members: Vec<Vec<usize>>,
    /// Name of each group.
    pub names: Vec<String>,
}

/// A population.
#[derive(Debug, Clone)]
pub struct Rows {
    data: Labelled,
    /// Rows of each group in the order in which they are sold.
    pub pool: Vec<Vec<usize>>,
    validation: Vec<Vec<usize>>,
    test: Vec<Vec<usize>>,
    pooled: bool,
}

/// On which rows a quality is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Those that a method may look at.
    Validation,
    /// Those of the final score.
    Test,
}

/// Distinct labels up to which [`Model::Auto`] takes them for classes.
const CLASSES: usize = 20;

impl Labelled {
    /// Reads features, labels and groups. The group column is no feature.
    ///
    /// # Errors
    /// A missing role, label or group cell, or a label that does not fit the model.
    pub fn of(table: &Table, roles: &Roles, model: Model, context: &Context) -> Result<Labelled> {
        let label = roles.label.as_ref().ok_or_else(|| {
            Error::option(
                "--label",
                "name the column that a model of the groups predicts",
            )
        })?;
        let group = roles.group.as_ref().ok_or_else(|| {
            Error::option("--group", "name the column that tells each row's group")
        })?;
        if label == group {
            return Err(Error::option(
                "--group",
                "the label cannot be the group too",
            ));
        }
        let groups = Labels::of(
            table,
            &Roles {
                label: Some(group.clone()),
                ..Roles::default()
            },
        )
        .map_err(|e| match e {
            Error::Column { .. } => Error::column(
                table.name(),
                group,
                "has an empty cell; every row needs a group",
            ),
            other => other,
        })?;
        let codes = groups.as_ref().map_or(&[][..], |g| &g.codes);
        let names = groups.as_ref().map_or(vec![], |g| g.names.clone());
        if names.len() > 1000 {
            return Err(Error::option(
                "--group",
                format!(
                    "column '{group}' has {} values; groups should be few",
                    names.len()
                ),
            ));
        }
        let mut members = vec![Vec::new(); names.len()];
        for (row, code) in codes.iter().enumerate() {
            members[*code as usize].push(row);
        }
        let labels =
            Labels::of(table, roles)?.ok_or_else(|| Error::option("--label", "is needed"))?;
        let logistic = match model {
            Model::Logistic => true,
            Model::Ridge => false,
            Model::Auto => labels.names.len() <= CLASSES,
        };
        let (y, classes) = if logistic {
            if labels.names.len() < 2 || labels.names.len() > 100 {
                return Err(Error::column(
                    table.name(),
                    label,
                    format!(
                        "has {} values; logistic regression needs 2 to 100 classes",
                        labels.names.len()
                    ),
                ));
            }
            (
                labels.codes.iter().map(|c| f64::from(*c)).collect(),
                labels.names.len(),
            )
        } else {
            (numbers(table, label, "--label")?, 0)
        };
        let x = Features::of(table, roles)?.matrix(context)?;
        if x.ncols() > 2000 {
            return Err(Error::option(
                "--features",
                format!(
                    "{} columns are more than the 2,000 that the models take",
                    x.ncols()
                ),
            ));
        }
        Ok(Labelled {
            x,
            y,
            classes,
            members,
            names,
        })
    }

    /// A model of the rows `rows`; `None` without rows.
    fn train(&self, rows: &[usize]) -> Result<Option<Trained>> {
        if rows.is_empty() {
            return Ok(None);
        }
        let x = self.x.select(Axis(0), rows);
        let y: Vec<f64> = rows.iter().map(|r| self.y[*r]).collect();
        if self.classes > 0 {
            models::logistic(&x, &y, self.classes).map(Some)
        } else {
            models::ridge(&x, &y).map(Some)
        }
    }

    /// Quality of `model` on `rows`, and its standard error. Without a model it is 0.
    fn score(&self, model: Option<&Trained>, rows: &[usize]) -> (f64, f64) {
        let n = rows.len() as f64;
        let Some(model) = model else {
            return (0.0, 1.0 / n.sqrt());
        };
        if self.classes > 0 {
            let right = rows
                .iter()
                .filter(|r| model.predict(self.x.row(**r)) == self.y[**r])
                .count() as f64;
            // One right and one wrong more, so that no error is 0.
            let p = (right + 1.0) / (n + 2.0);
            return (right / n, (p * (1.0 - p) / n).sqrt());
        }
        let mean = rows.iter().map(|r| self.y[*r]).sum::<f64>() / n;
        let squares: Vec<(f64, f64)> = rows
            .iter()
            .map(|r| {
                let miss = self.y[*r] - model.predict(self.x.row(*r));
                (miss * miss, (self.y[*r] - mean).powi(2))
            })
            .collect();
        let missed = squares.iter().map(|s| s.0).sum::<f64>() / n;
        let spread = squares.iter().map(|s| s.1).sum::<f64>() / n;
        if spread <= 0.0 {
            return (0.0, 1.0 / n.sqrt());
        }
        let ratio = missed / spread;
        // The delta method for a ratio of means.
        let variance = squares
            .iter()
            .map(|(m, s)| ((m - ratio * s) / spread).powi(2))
            .sum::<f64>()
            / n;
        (1.0 - ratio, (variance / n).sqrt().max(1e-6))
    }

    /// Qualities of group g by a model of some of its own rows, in rising numbers of rows, averaged over `repeats`
    /// splits in which a quarter of the group's rows is held out.
    ///
    /// # Errors
    /// Fewer than 8 rows, or a model cannot be trained.
    pub fn pilot(&self, g: usize, repeats: usize, seed: u64) -> Result<Vec<Point>> {
        let have = self.members[g].len();
        if have < 8 {
            return Err(Error::BadInput(format!(
                "group {} has {have} rows; a learning curve needs at least 8 of each group",
                self.names[g]
            )));
        }
        let held = (have / 4).max(2);
        let train = have - held;
        let mut sizes: Vec<usize> = [0.125, 0.25, 0.5, 0.75, 1.0]
            .iter()
            .map(|s| ((train as f64 * s).round() as usize).max(2))
            .collect();
        sizes.dedup();
        let mut sums = vec![(0.0, 0.0, 0.0); sizes.len()];
        for repeat in 0..repeats {
            let mut rng = sampling::rng(seed, &format!("data-collection pilot {g} {repeat}"));
            let mut order = self.members[g].clone();
            order.shuffle(&mut rng);
            for (sum, n) in sums.iter_mut().zip(&sizes) {
                let model = self.train(&order[held..held + n])?;
                let (value, error) = self.score(model.as_ref(), &order[..held]);
                *sum = (sum.0 + value, sum.1 + error * error, sum.2 + value * value);
            }
        }
        let k = repeats as f64;
        Ok(sums
            .iter()
            .zip(&sizes)
            .map(|((value, variance, squares), n)| {
                // Splits overlap, so they do not average out like independent ones: the larger of the two accounts.
                let between = (squares / k - (value / k).powi(2)).max(0.0) / k;
                Point {
                    n: *n as f64,
                    value: value / k,
                    error: (variance / k / k.min(4.0)).max(between).sqrt().max(1e-4),
                }
            })
            .collect())
    }
}

impl Rows {
    /// Splits each group: `share` of its rows for validation, as many for the test, the rest for sale.
    ///
    /// # Errors
    /// A group with fewer than 6 rows.
    pub fn new(data: Labelled, share: f64, pooled: bool, seed: u64) -> Result<Rows> {
        let mut rows = Rows {
            pool: Vec::new(),
            validation: Vec::new(),
            test: Vec::new(),
            data,
            pooled,
        };
        for (g, members) in rows.data.members.iter().enumerate() {
            if members.len() < 6 {
                return Err(Error::BadInput(format!(
                    "group {} has {} rows; at least 6 are needed to sell some and hold others out",
                    rows.data.names[g],
                    members.len()
                )));
            }
            let mut order = members.clone();
            order.shuffle(&mut sampling::rng(
                seed,
                &format!("data-collection order {g}"),
            ));
            let held =
                ((members.len() as f64 * share).round() as usize).clamp(2, members.len() / 3);
            rows.test.push(order[..held].to_vec());
            rows.validation.push(order[held..2 * held].to_vec());
            rows.pool.push(order[2 * held..].to_vec());
        }
        Ok(rows)
    }

    /// Whether one model serves all groups.
    pub fn pooled(&self) -> bool {
        self.pooled
    }

    /// Whether quality is accuracy; else it is R².
    pub fn accuracy(&self) -> bool {
        self.data.classes > 0
    }

    /// Quality of the groups `of` by models of the first `counts` rows of each pool.
    ///
    /// # Errors
    /// A model cannot be trained.
    pub fn qualities(&self, counts: &[usize], of: &[usize], held: Held) -> Result<Vec<Point>> {
        let bought = |g: usize| &self.pool[g][..counts[g].min(self.pool[g].len())];
        let shared = if self.pooled {
            let rows: Vec<usize> = (0..counts.len()).flat_map(bought).copied().collect();
            self.data.train(&rows)?
        } else {
            None
        };
        of.iter()
            .map(|g| {
                let own = if self.pooled {
                    None
                } else {
                    self.data.train(bought(*g))?
                };
                let model = if self.pooled {
                    shared.as_ref()
                } else {
                    own.as_ref()
                };
                let on = match held {
                    Held::Validation => &self.validation[*g],
                    Held::Test => &self.test[*g],
                };
                let (value, error) = self.data.score(model, on);
                Ok(Point {
                    n: counts[*g] as f64,
                    value,
                    error,
                })
            })
            .collect()
    }

    /// Mean quality on the test rows of group g by a model of n of its own rows, over `repeats` redraws of the pool.
    ///
    /// # Errors
    /// A model cannot be trained.
    pub fn truth(&self, g: usize, n: usize, repeats: usize, seed: u64) -> Result<f64> {
        let mut sum = 0.0;
        for repeat in 0..repeats {
            let mut rng = sampling::rng(seed, &format!("data-collection truth {g} {n} {repeat}"));
            let drawn =
                sampling::sample_sorted(&mut rng, self.pool[g].len(), n.min(self.pool[g].len()))
                    .map_err(|e| Error::Failed(e.to_string()))?;
            let rows: Vec<usize> = drawn.iter().map(|i| self.pool[g][*i]).collect();
            let model = self.data.train(&rows)?;
            sum += self.data.score(model.as_ref(), &self.test[g]).0;
        }
        Ok(sum / repeats as f64)
    }
}

/// A column as numbers.
///
/// # Errors
/// The column is missing, or a cell is no finite number.
pub fn numbers(table: &Table, column: &str, option: &str) -> Result<Vec<f64>> {
    let index = table.column_for(option, column)?;
    let mut values = Vec::new();
    for array in table.column(index)? {
        let cast = cast(&array, &DataType::Float64)
            .map_err(|_| Error::column(table.name(), column, "is no column of numbers"))?;
        let cells: &Float64Array = cast.as_primitive::<Float64Type>();
        for cell in cells {
            match cell.filter(|v| v.is_finite()) {
                Some(v) => values.push(v),
                None => {
                    return Err(Error::column(
                        table.name(),
                        column,
                        format!("row {} holds no finite number", values.len() + 1),
                    ));
                }
            }
        }
    }
    Ok(values)
}

#[cfg(test)]
pub(super) fn toy(rows: &[usize]) -> Labelled {
    // y = x for group 0, y = -x for the others; x in a fixed scatter.
    let n: usize = rows.iter().sum();
    let x = Array2::from_shape_fn((n, 1), |(i, _)| ((i * 37) % 101) as f64 / 10.0);
    let mut members = Vec::new();
    let mut start = 0;
    for count in rows {
        members.push((start..start + count).collect::<Vec<_>>());
        start += count;
    }
    let y = (0..n)
        .map(|i| if i < rows[0] { x[[i, 0]] } else { -x[[i, 0]] })
        .collect();
    let names = (0..rows.len()).map(|g| g.to_string()).collect();
    Labelled {
        x,
        y,
        classes: 0,
        members,
        names,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_held_out_is_sold() {
        let rows = Rows::new(toy(&[40, 60]), 0.25, false, 3).unwrap();
        for g in 0..2 {
            let mut all = [&rows.pool[g][..], &rows.validation[g], &rows.test[g]].concat();
            all.sort_unstable();
            assert_eq!(all, rows.data.members[g]);
        }
        assert_eq!((rows.pool[0].len(), rows.test[1].len()), (20, 15));
        assert!(
            Rows::new(toy(&[5, 60]), 0.25, false, 3)
                .unwrap_err()
                .to_string()
                .contains("group 0")
        );
    }

    #[test]
    fn models_of_their_own_fit_groups_that_a_shared_one_cannot() {
        let own = Rows::new(toy(&[80, 80]), 0.25, false, 0).unwrap();
        let shared = Rows::new(toy(&[80, 80]), 0.25, true, 0).unwrap();
        let at = |r: &Rows| r.qualities(&[30, 30], &[0, 1], Held::Test).unwrap();
        assert!(at(&own).iter().all(|p| p.value > 0.99));
        assert!(at(&shared).iter().all(|p| p.value < 0.5));
        assert_eq!(
            own.qualities(&[0, 3], &[0], Held::Validation).unwrap()[0].value,
            0.0
        );
    }

    #[test]
    fn pilots_need_rows() {
        let points = toy(&[40, 7]).pilot(0, 3, 0).unwrap();
        assert!(points.len() == 5 && points[4].n == 30.0 && points[4].value > 0.99);
        assert!(
            toy(&[40, 7])
                .pilot(1, 3, 0)
                .unwrap_err()
                .to_string()
                .contains("group 1 has 7 rows")
        );
    }
}
