//! The data of a trial: columns and classes of a table, split into pool and test rows, with wrong labels where asked.

use super::TaskOptions;
use ndarray::{Array2, Axis};
use papertrial_core::data::{Features, Labels};
use papertrial_core::task::{Context, Job};
use papertrial_core::{Error, Result};
use papertrial_numerics::linalg::column_means;
use papertrial_numerics::sampling;
use rand::RngExt;

/// Columns and classes of all rows of a table.
#[derive(Debug, Clone)]
pub struct Rows {
    /// Columns, [n, d].
    pub x: Array2<f32>,
    /// Class of each row, `[n]`.
    pub labels: Vec<usize>,
    /// Names of the classes.
    pub names: Vec<String>,
}

impl Rows {
    /// Reads the job's table.
    ///
    /// # Errors
    /// No label column; fewer than two classes; columns that cannot be computed with.
    pub fn of(job: &Job, context: &Context) -> Result<Rows> {
        let table = job.table("data", context)?;
        let features = Features::of(&table, &job.roles)?;
        let Some(labels) = Labels::of(&table, &job.roles)? else {
            return Err(Error::BadInput(format!(
                "{} has no label column; name it with --label",
                table.name()
            )));
        };
        if labels.names.len() < 2 {
            let column = job.roles.label.as_deref().unwrap_or_default();
            return Err(Error::column(
                table.name(),
                column,
                format!(
                    "holds {}; a model needs at least two classes to tell apart",
                    match labels.names.first() {
                        Some(name) => format!("only '{name}'"),
                        None => "no rows".into(),
                    }
                ),
            ));
        }
        Ok(Rows {
            x: features.matrix(context)?.mapv(|v| v as f32),
            labels: labels.codes.iter().map(|c| *c as usize).collect(),
            names: labels.names,
        })
    }

    /// Every column less its mean, over its deviation, both of the rows `by`; a column that is constant there becomes 0
    /// there.
    pub fn standardise(&mut self, by: &[usize]) {
        let means = column_means(self.x.select(Axis(0), by).view());
        for (j, mean) in means.into_iter().enumerate() {
            let mut column = self.x.column_mut(j);
            let squares = by.iter().map(|i| (f64::from(column[*i]) - mean).powi(2));
            let deviation = (squares.sum::<f64>() / by.len().max(1) as f64).sqrt();
            let over = if deviation > 1e-12 * mean.abs() && deviation > 0.0 {
                1.0 / deviation
            } else {
                1.0
            };
            column.mapv_inplace(|v| ((f64::from(v) - mean) * over) as f32);
        }
    }
}

/// A trial's rows.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Columns of the pool, [n, d].
    pub x: Array2<f32>,
    /// Classes of the pool, as the methods see them.
    pub labels: Vec<usize>,
    /// Classes of the pool before any was made wrong.
    pub clean: Vec<usize>,
    /// Columns of the test rows, [m, d].
    pub test_x: Array2<f32>,
    /// Classes of the test rows.
    pub test_labels: Vec<usize>,
    /// Number of classes.
    pub classes: usize,
}

/// Splits rows by the seed: test rows are drawn first, the same for all methods.
///
/// # Errors
/// Too few rows for both parts.
pub fn trial(mut rows: Rows, asked: &TaskOptions, seed: u64) -> Result<Trial> {
    let n = rows.labels.len();
    let m = (asked.test_share * n as f64).round() as usize;
    if m == 0 || m >= n {
        return Err(Error::option(
            "test-share",
            format!(
                "{} of {n} rows leaves none for one of the two parts",
                asked.test_share
            ),
        ));
    }
    let order = sampling::permutation(&mut sampling::rng(seed, "test rows"), n);
    let (test, pool) = order.split_at(m);
    let (mut test, mut pool) = (test.to_vec(), pool.to_vec());
    test.sort_unstable();
    pool.sort_unstable();
    if asked.standardise {
        rows.standardise(&pool);
    }
    let of = |which: &[usize]| -> Vec<usize> { which.iter().map(|i| rows.labels[*i]).collect() };
    let clean = of(&pool);
    Ok(Trial {
        x: rows.x.select(Axis(0), &pool),
        labels: noisy(&clean, rows.names.len(), asked.label_noise, seed),
        clean,
        test_x: rows.x.select(Axis(0), &test),
        test_labels: of(&test),
        classes: rows.names.len(),
    })
}

/// The labels with a share of them, rounded, replaced by another class drawn evenly.
fn noisy(labels: &[usize], classes: usize, share: f64, seed: u64) -> Vec<usize> {
    let mut rng = sampling::rng(seed, "wrong labels");
    let wrong = (share * labels.len() as f64).round() as usize;
    let mut labels = labels.to_vec();
    // Never more than there are, so a sample there is.
    let rows = sampling::sample_sorted(&mut rng, labels.len(), wrong.min(labels.len()));
    for row in rows.unwrap_or_default() {
        let other = rng.random_range(1..classes);
        labels[row] = (labels[row] + other) % classes;
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;

    fn rows(n: usize, classes: usize) -> Rows {
        Rows {
            x: Array2::from_shape_fn((n, 2), |(i, j)| (i * (j + 1)) as f32),
            labels: (0..n).map(|i| i % classes).collect(),
            names: (0..classes).map(|c| c.to_string()).collect(),
        }
    }

    #[test]
    fn standardising_by_hand() {
        let mut rows = rows(3, 2);
        rows.x = array![[1.0, 7.0], [3.0, 7.0], [5.0, 8.0]];
        rows.standardise(&[0, 1]);
        assert_eq!(rows.x, array![[-1.0, 0.0], [1.0, 0.0], [3.0, 1.0]]);
    }

    #[test]
    fn shares_that_leave_nothing() {
        for share in [0.0, 1.0, 0.04] {
            let asked = TaskOptions {
                test_share: share,
                ..TaskOptions::default()
            };
            let e = trial(rows(10, 2), &asked, 0).unwrap_err();
            assert!(e.to_string().contains("test-share"), "{e}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn parts_are_apart_and_as_many_labels_are_wrong_as_asked(
            n in 10usize..80, classes in 2usize..5, noise in 0.0f64..0.9, seed in 0u64..99,
        ) {
            let asked = TaskOptions {
                test_share: 0.3,
                label_noise: noise,
                standardise: false,
                ..TaskOptions::default()
            };
            let t = trial(rows(n, classes), &asked, seed).unwrap();
            let mut all: Vec<f32> = t.x.column(0).iter().chain(t.test_x.column(0)).copied().collect();
            all.sort_unstable_by(f32::total_cmp);
            let want: Vec<f32> = (0..n).map(|i| i as f32).collect();
            prop_assert_eq!(all, want);
            prop_assert_eq!(t.test_labels.len(), (0.3 * n as f64).round() as usize);
            let wrong = t.labels.iter().zip(&t.clean).filter(|(a, b)| a != b).count();
            prop_assert_eq!(wrong, (noise * t.labels.len() as f64).round() as usize);
            prop_assert!(t.labels.iter().all(|l| *l < classes));
        }
    }
}
