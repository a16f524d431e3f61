//! Task `bucket-curation`: how many buckets of a quality-ranked pool to train on, for a given budget of training.
//!
//! Here are the trait of its methods, its metrics and options, and its two inputs: a table of errors of training runs,
//! or rows with labels on which the runs are made.

mod baselines;
mod decide;
mod fit;
mod law;
mod qqt_scaling;
mod train;

pub use baselines::{HomogeneousData, NoFiltering, Oracle, PlainPowerLaw, TopBucket};
pub use decide::{Union, Unions};
pub use fit::{Bucket, Laws, Point};
pub use law::{Own, Part, Shared, Wear, predict};
pub use qqt_scaling::QqtScaling;
pub use train::{BucketBy, Model};

use arrow::array::{ArrayRef, Float64Array, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::{Output, Roles, Table};
use papertrial_core::methods;
use papertrial_core::task::{Applied, Context, Curve, Entry, Job, Measurement, MetricInfo, Task};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use train::Rows;

/// A method of this task.
pub trait Curator: Send + Sync {
    /// Chooses a union of buckets for each of `budgets`, in samples seen.
    ///
    /// # Errors
    /// Options out of range, or runs that cannot be used.
    fn choose(&self, pool: &Pool, budgets: &[f64], context: &Context) -> Result<Choice>;
}

/// Errors of a union at each budget, by training on it.
pub type Measured<'a> = Box<dyn Fn(&[usize]) -> Result<Vec<f64>> + 'a>;

/// A pool in buckets, the best first, with a training run on each.
pub struct Pool<'a> {
    /// Buckets.
    pub buckets: Vec<Bucket>,
    /// Errors of any union, where the rows are at hand.
    pub measured: Option<Measured<'a>>,
}

impl Pool<'_> {
    /// A bucket of the mean size whose run is the mean of all runs.
    ///
    /// # Errors
    /// Runs that were looked at after different numbers of samples.
    fn mean_bucket(&self) -> Result<Bucket> {
        let first = self
            .buckets
            .first()
            .ok_or_else(|| Error::BadInput("there are no buckets".into()))?;
        let n = self.buckets.len() as f64;
        let mut points = first.points.clone();
        for point in &mut points {
            point.error = 0.0;
        }
        for bucket in &self.buckets {
            let same = bucket.points.len() == points.len()
                && bucket
                    .points
                    .iter()
                    .zip(&points)
                    .all(|(a, b)| a.samples == b.samples);
            if !same {
                return Err(Error::BadInput(format!(
                    "buckets {} and {} have different checkpoints; a mean over buckets needs the same ones",
                    first.name, bucket.name
                )));
            }
            for (mean, point) in points.iter_mut().zip(&bucket.points) {
                mean.error += point.error / n;
            }
        }
        Ok(Bucket {
            name: "mean".into(),
            rows: self.buckets.iter().map(|b| b.rows).sum::<f64>() / n,
            points,
        })
    }
}

/// What a method chose.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// One for each budget.
    pub chosen: Vec<Chosen>,
    /// Predicted errors against samples.
    pub curves: Vec<Curve>,
    /// Remarks.
    pub notes: Vec<String>,
    /// The laws behind it, if any.
    pub laws: Option<Laws>,
}

impl Choice {
    /// The same union for each of `budgets` budgets.
    fn always(union: Union, budgets: usize) -> Self {
        Choice {
            chosen: vec![
                Chosen {
                    union,
                    predicted: None,
                    spread: None,
                    agreement: None,
                };
                budgets
            ],
            curves: Vec::new(),
            notes: Vec::new(),
            laws: None,
        }
    }
}

/// The choice at one budget.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Buckets.
    pub union: Union,
    /// Predicted error, if the method predicts.
    pub predicted: Option<f64>,
    /// 95 % of the predictions by redrawn points.
    pub spread: Option<(f64, f64)>,
    /// Share of redrawn points that choose the same union.
    pub agreement: Option<f64>,
}

/// The methods. A new one is a file of its own, a `mod` line above, and a name here.
const METHODS: &[Entry<dyn Curator>] = methods![
    dyn Curator;
    QqtScaling,
    TopBucket,
    NoFiltering,
    PlainPowerLaw,
    HomogeneousData,
    Oracle,
];

const METRICS: &[MetricInfo] = &[
    MetricInfo::new(
        "error",
        Some(false),
        "test error of the chosen union at the largest budget, 0 to 1",
    ),
    MetricInfo::new(
        "error-above-best",
        Some(false),
        "how far the chosen union's test error is above the lowest of all unions, at its worst over budgets of 8 \
         passes of a bucket and more",
    ),
    MetricInfo::new(
        "non-decreasing-share",
        Some(true),
        "share of consecutive budgets at which the number of buckets does not fall",
    ),
    MetricInfo::new(
        "prediction-error",
        Some(false),
        "mean difference of predicted and test error, over budgets",
    ),
    MetricInfo::new("buckets", None, "buckets chosen at the largest budget"),
    MetricInfo::new(
        "decision-seconds",
        Some(false),
        "time to fit and decide, training runs not counted",
    )
    .timed(),
];

/// Options of the task: where the runs come from and which budgets are asked about.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskOptions {
    /// Budgets in samples seen, a list; if empty: passes of a bucket, doubled from one on, up to max-samples.
    pub budgets: Vec<f64>,
    /// Largest budget, where none are listed; if absent, 64 passes of a bucket.
    pub max_samples: Option<f64>,
    /// Table of errors: column with the bucket, best first.
    pub bucket_column: String,
    /// Table of errors: column with the rows of the bucket.
    pub rows_column: String,
    /// Table of errors: column with the samples seen.
    pub samples_column: String,
    /// Table of errors: column with the error then, 0 to 1.
    pub error_column: String,
    /// Table of errors: the column holds an accuracy instead, 0 to 1.
    pub accuracy: bool,
    /// Rows with labels: where the buckets come from.
    pub bucket_by: BucketBy,
    /// Rows with labels: number of buckets.
    #[schemars(range(min = 1, max = 100))]
    pub buckets: usize,
    /// Rows with labels: rows of a bucket that is drawn.
    #[schemars(range(min = 1))]
    pub bucket_rows: usize,
    /// Rows with labels: share of wrong labels in each bucket, a list.
    pub label_noise: Vec<f64>,
    /// Rows with labels: rows that train the scoring model of filter-score.
    #[schemars(range(min = 1))]
    pub scorer_rows: usize,
    /// Rows with labels: rows on which the errors of the runs are measured.
    #[schemars(range(min = 1))]
    pub validation_rows: usize,
    /// Rows with labels: rows on which choices are scored.
    #[schemars(range(min = 1))]
    pub test_rows: usize,
    /// The model that is trained.
    pub model: Model,
    /// Learning rate, constant.
    #[schemars(range(min = 0.0))]
    pub learning_rate: f64,
    /// Rows of a step.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Trainings of which each error is the mean.
    #[schemars(range(min = 1, max = 100))]
    pub repeats: usize,
}

impl Default for TaskOptions {
    fn default() -> Self {
        TaskOptions {
            budgets: Vec::new(),
            max_samples: None,
            bucket_column: "bucket".into(),
            rows_column: "rows".into(),
            samples_column: "samples".into(),
            error_column: "error".into(),
            accuracy: false,
            bucket_by: BucketBy::Noise,
            buckets: 4,
            bucket_rows: 150,
            label_noise: vec![0.0, 0.2, 0.4, 0.6],
            scorer_rows: 500,
            validation_rows: 400,
            test_rows: 700,
            model: Model::Mlp,
            learning_rate: 0.05,
            batch: 16,
            repeats: 4,
        }
    }
}

impl TaskOptions {
    /// Budgets for buckets of `rows` rows, ascending.
    fn budgets(&self, rows: f64) -> Result<Vec<f64>> {
        if self.budgets.iter().any(|n| !n.is_finite() || *n < 1.0) {
            return Err(Error::option(
                "budgets",
                "must be numbers of samples, at least 1",
            ));
        }
        let mut budgets = self.budgets.clone();
        if budgets.is_empty() {
            let largest = self.max_samples.unwrap_or(64.0 * rows);
            if !largest.is_finite() || largest < rows {
                return Err(Error::option(
                    "max-samples",
                    format!("{largest} is less than one pass of a bucket of {rows} rows"),
                ));
            }
            let mut next = rows;
            while next <= largest * (1.0 + 1e-9) {
                budgets.push(next);
                next *= 2.0;
            }
        }
        budgets.sort_by(f64::total_cmp);
        budgets.dedup();
        Ok(budgets)
    }
}

/// The task.
pub struct BucketCuration;

impl Task for BucketCuration {
    papertrial_core::states! {
        "bucket-curation",
        "choose how many buckets of a quality-ranked pool to train on, for a given budget of training",
        METHODS,
        METRICS,
        TaskOptions,
    }

    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let (method, asked) = prepare(job)?;
        let table = job.table("data", context)?;
        let rows = Rows::of(&table, &job.roles, &asked, context)?;
        let largest = rows.buckets.iter().map(Vec::len).max().unwrap_or(0) as f64;
        let budgets = asked.budgets(largest)?;
        let samples: Vec<usize> = budgets.iter().map(|n| *n as usize).collect();
        let pool = trained(&rows, &samples, &asked, context)?;
        let began = Instant::now();
        let choice = method.choose(&pool, &budgets, context)?;
        let decision = began.elapsed().as_secs_f64();
        let test = |union: &[usize]| rows.test_errors(union, &samples, &asked, context);
        let nested: Vec<Vec<f64>> = (1..=rows.buckets.len())
            .map(|k| test(&(0..k).collect::<Vec<usize>>()))
            .collect::<Result<_>>()?;
        let mut true_errors = Vec::with_capacity(budgets.len());
        let mut above: f64 = 0.0;
        let mut predictions = Vec::new();
        for (n, chosen) in choice.chosen.iter().enumerate() {
            let error = test(&chosen.union)?[n];
            let lowest = nested.iter().map(|e| e[n]).fold(error, f64::min);
            if budgets[n] >= 8.0 * largest {
                above = above.max(error - lowest);
            }
            if let Some(predicted) = chosen.predicted {
                predictions.push((predicted - error).abs());
            }
            true_errors.push((budgets[n], error));
        }
        let sizes: Vec<usize> = choice.chosen.iter().map(|c| c.union.len()).collect();
        let mut measurement = Measurement {
            curves: choice.curves,
            notes: choice.notes,
            ..Measurement::default()
        };
        measurement.notes.push(format!(
            "buckets by budget: {}",
            budgets
                .iter()
                .zip(&sizes)
                .map(|(n, k)| format!("{n:.0}: {k}"))
                .collect::<Vec<_>>()
                .join(", ")
        ));
        measurement.curves.push(Curve {
            name: "error of the chosen union".into(),
            x: "samples seen".into(),
            y: "test error".into(),
            points: true_errors.clone(),
        });
        let mut set = |name: &str, value: f64| measurement.metrics.insert(name.into(), value);
        if let (Some((_, error)), Some(size)) = (true_errors.last(), sizes.last()) {
            set("error", *error);
            set("buckets", *size as f64);
        }
        if budgets.iter().any(|n| *n >= 8.0 * largest) {
            set("error-above-best", above);
        }
        if sizes.len() > 1 {
            let kept = sizes.windows(2).filter(|w| w[1] >= w[0]).count();
            set(
                "non-decreasing-share",
                kept as f64 / (sizes.len() - 1) as f64,
            );
        }
        if !predictions.is_empty() {
            set(
                "prediction-error",
                predictions.iter().sum::<f64>() / predictions.len() as f64,
            );
        }
        set("decision-seconds", decision);
        Ok(measurement)
    }

    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied> {
        let mut output = Output::table(out)?;
        let (method, asked) = prepare(job)?;
        let table = job.table("data", context)?;
        let rows;
        let samples: Vec<usize>;
        let (pool, budgets) = if job.roles.label.is_some() {
            rows = Rows::of(&table, &job.roles, &asked, context)?;
            let largest = rows.buckets.iter().map(Vec::len).max().unwrap_or(0) as f64;
            let budgets = asked.budgets(largest)?;
            samples = budgets.iter().map(|n| *n as usize).collect();
            (trained(&rows, &samples, &asked, context)?, budgets)
        } else {
            let buckets = table_of_errors(&table, &asked)?;
            let mean = buckets.iter().map(|b| b.rows).sum::<f64>() / buckets.len() as f64;
            let budgets = asked.budgets(mean)?;
            let pool = Pool {
                buckets,
                measured: None,
            };
            (pool, budgets)
        };
        let choice = method.choose(&pool, &budgets, context)?;
        output.write(&[answer(&pool, &budgets, &choice)?])?;
        if let Some(laws) = &choice.laws {
            let told = serde_json::json!({
                "buckets": pool.buckets.iter().map(|b| &b.name).collect::<Vec<_>>(),
                "rows": pool.buckets.iter().map(|b| b.rows).collect::<Vec<_>>(),
                "laws": laws,
            });
            let text =
                serde_json::to_string_pretty(&told).map_err(|e| Error::Failed(e.to_string()))?;
            output.side("laws.json", text.as_bytes())?;
        }
        let mut summary = vec![("buckets".to_owned(), pool.buckets.len().to_string())];
        if let Some(laws) = &choice.laws {
            summary.push(("error of the fit".into(), format!("{:.4}", laws.rmse)));
        }
        for (n, chosen) in budgets.iter().zip(&choice.chosen) {
            summary.push((
                format!("at {n:.0} samples"),
                names(&pool, &chosen.union).join(", "),
            ));
        }
        Ok(Applied {
            files: output.finish()?,
            summary,
            notes: choice.notes,
            ..Applied::default()
        })
    }
}

/// The method of a job and what is asked of the task.
fn prepare(job: &Job) -> Result<(Box<dyn Curator>, TaskOptions)> {
    Entry::prepare(METHODS, job)
}

/// The pool with a run on each bucket; runs on unions are made when asked for.
fn trained<'a>(
    rows: &'a Rows,
    samples: &'a [usize],
    asked: &'a TaskOptions,
    context: &'a Context,
) -> Result<Pool<'a>> {
    let buckets = rows
        .names
        .iter()
        .enumerate()
        .map(|(b, name)| {
            Ok(Bucket {
                name: name.clone(),
                rows: rows.buckets[b].len() as f64,
                points: rows.points(b, samples, asked, context)?,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Pool {
        buckets,
        measured: Some(Box::new(|union| {
            rows.validation_errors(union, samples, asked, context)
        })),
    })
}

/// Buckets from a table of (bucket, rows, samples, error).
fn table_of_errors(table: &Table, asked: &TaskOptions) -> Result<Vec<Bucket>> {
    let names = column_as_text(table, &asked.bucket_column, "bucket-column")?;
    let rows = column_as_numbers(table, &asked.rows_column, "rows-column")?;
    let samples = column_as_numbers(table, &asked.samples_column, "samples-column")?;
    let errors = column_as_numbers(table, &asked.error_column, "error-column")?;
    let mut buckets: Vec<Bucket> = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let wrong =
            |column: &str, problem: String| Err(Error::column(table.name(), column, problem));
        if !(rows[i].is_finite() && rows[i] >= 1.0) {
            return wrong(
                &asked.rows_column,
                format!("row {}: {} is no number of rows", i + 1, rows[i]),
            );
        }
        if !(samples[i].is_finite() && samples[i] > 0.0) {
            return wrong(
                &asked.samples_column,
                format!(
                    "row {}: {} is no number of samples above 0",
                    i + 1,
                    samples[i]
                ),
            );
        }
        if !(0.0..=1.0).contains(&errors[i]) {
            return wrong(
                &asked.error_column,
                format!("row {}: {} is not between 0 and 1", i + 1, errors[i]),
            );
        }
        let point = Point {
            samples: samples[i],
            error: if asked.accuracy {
                1.0 - errors[i]
            } else {
                errors[i]
            },
        };
        match buckets.iter_mut().find(|b| b.name == *name) {
            None => buckets.push(Bucket {
                name: name.clone(),
                rows: rows[i],
                points: vec![point],
            }),
            Some(bucket) => {
                if bucket.rows != rows[i] {
                    return wrong(
                        &asked.rows_column,
                        format!(
                            "row {}: bucket {name} had {} rows before, now {}",
                            i + 1,
                            bucket.rows,
                            rows[i]
                        ),
                    );
                }
                if bucket.points.iter().any(|p| p.samples == samples[i]) {
                    return wrong(
                        &asked.samples_column,
                        format!(
                            "row {}: bucket {name} has {} samples twice",
                            i + 1,
                            samples[i]
                        ),
                    );
                }
                bucket.points.push(point);
            }
        }
    }
    for bucket in &mut buckets {
        bucket
            .points
            .sort_by(|a, b| a.samples.total_cmp(&b.samples));
    }
    if buckets.is_empty() {
        return Err(Error::BadInput(format!("{} has no rows", table.name())));
    }
    Ok(buckets)
}

fn column_as_numbers(table: &Table, column: &str, option: &str) -> Result<Vec<f64>> {
    let roles = Roles {
        features: vec![column.to_owned()],
        ..Roles::default()
    };
    table.column_for(option, column)?;
    let matrix =
        papertrial_core::data::Features::of(table, &roles)?.matrix(&Context::with_seed(0))?;
    Ok(matrix.column(0).to_vec())
}

fn column_as_text(table: &Table, column: &str, option: &str) -> Result<Vec<String>> {
    table.column_for(option, column)?;
    let roles = Roles {
        label: Some(column.to_owned()),
        ..Roles::default()
    };
    let labels = papertrial_core::data::Labels::of(table, &roles)?
        .ok_or_else(|| Error::column(table.name(), column, "cannot be read"))?;
    Ok(labels
        .codes
        .iter()
        .map(|c| labels.names[*c as usize].clone())
        .collect())
}

fn names<'a>(pool: &'a Pool, union: &[usize]) -> Vec<&'a str> {
    union
        .iter()
        .map(|b| pool.buckets[*b].name.as_str())
        .collect()
}

/// The output: one row a budget.
fn answer(pool: &Pool, budgets: &[f64], choice: &Choice) -> Result<RecordBatch> {
    let chosen = &choice.chosen;
    let number = |f: &dyn Fn(&Chosen) -> Option<f64>| -> ArrayRef {
        Arc::new(Float64Array::from_iter(chosen.iter().map(f)))
    };
    let passes = budgets.iter().zip(chosen).map(|(n, c)| {
        let rows: f64 = c.union.iter().map(|b| pool.buckets[*b].rows).sum();
        n / rows
    });
    let columns: Vec<(&str, DataType, ArrayRef)> = vec![
        (
            "samples",
            DataType::Float64,
            Arc::new(Float64Array::from(budgets.to_vec())),
        ),
        (
            "buckets",
            DataType::UInt32,
            Arc::new(UInt32Array::from_iter_values(
                chosen.iter().map(|c| c.union.len() as u32),
            )),
        ),
        (
            "union",
            DataType::Utf8,
            Arc::new(StringArray::from_iter_values(
                chosen.iter().map(|c| names(pool, &c.union).join("; ")),
            )),
        ),
        (
            "passes",
            DataType::Float64,
            Arc::new(Float64Array::from_iter_values(passes)),
        ),
        (
            "predicted_error",
            DataType::Float64,
            number(&|c| c.predicted),
        ),
        ("low", DataType::Float64, number(&|c| c.spread.map(|s| s.0))),
        (
            "high",
            DataType::Float64,
            number(&|c| c.spread.map(|s| s.1)),
        ),
        ("agreement", DataType::Float64, number(&|c| c.agreement)),
    ];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, kind, _)| Field::new(*name, kind.clone(), true))
        .collect();
    RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns.into_iter().map(|(_, _, array)| array).collect(),
    )
    .map_err(|e| Error::Failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_core::data::ReadOptions;
    use papertrial_core::options::Settings;
    use papertrial_core::plan::{self, Source};
    use papertrial_core::task::Input;
    use serde_json::json;

    fn job(method: &str, source: Source, options: &[(&str, serde_json::Value)]) -> Result<Job> {
        let method = plan::method(&BucketCuration, method)?;
        let shared: Settings = options
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        plan::job(
            &BucketCuration,
            &method,
            &shared,
            &Settings::new(),
            &source,
            1,
        )
    }

    fn digits() -> Source {
        Source {
            input: Input::Set {
                name: "digits".into(),
                checksum: String::new(),
            },
            roles: papertrial_core::data::sets::find("digits")
                .unwrap()
                .roles
                .clone(),
            others: Default::default(),
        }
    }

    fn csv(text: &str) -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs.csv");
        std::fs::write(&path, text).unwrap();
        let source = Source {
            input: plan::file(&path, &ReadOptions::default()).unwrap(),
            roles: Roles::default(),
            others: Default::default(),
        };
        (folder, source)
    }

    fn runs() -> String {
        let mut text = String::from("bucket,rows,samples,error\n");
        for (name, utility, half_life) in [("good", -0.4, 1.0), ("fair", -0.2, 8.0)] {
            let own = Own { utility, half_life };
            let shared = Shared {
                normaliser: 1_000.0,
                irreducible: 0.05,
                wear: Wear::EffectiveUtility,
                irreducible_decays: false,
            };
            for passes in [1.0, 2.0, 4.0, 6.0, 8.0, 10.0] {
                let error = predict(&shared, &[(own, 200.0)], passes * 200.0).min(1.0);
                text += &format!("{name},200,{},{error}\n", passes * 200.0);
            }
        }
        text
    }

    #[test]
    fn a_table_of_errors_becomes_a_recommendation() {
        let (folder, source) = csv(&runs());
        let out = folder.path().join("plan.csv");
        let budgets = json!([200, 6400]);
        let job = job(
            "qqt-scaling",
            source,
            &[("budgets", budgets), ("bootstraps", json!(10))],
        )
        .unwrap();
        let applied = BucketCuration
            .apply(&job, &out, &Context::with_seed(1))
            .unwrap();
        assert_eq!(applied.files.len(), 2);
        let text = std::fs::read_to_string(&out).unwrap();
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 3);
        assert!(
            rows[0].starts_with("samples,buckets,union,passes,predicted_error"),
            "{text}"
        );
        assert!(rows[1].starts_with("200.0,1,good,1.0"), "{text}");
        assert!(rows[2].starts_with("6400.0,2,"), "{text}");
    }

    #[test]
    fn wrong_tables_are_told_by_column_and_row() {
        let refused = |text: &str| {
            let (folder, source) = csv(text);
            let out = folder.path().join("plan.csv");
            let job = job("qqt-scaling", source, &[]).unwrap();
            let error = BucketCuration
                .apply(&job, &out, &Context::with_seed(0))
                .unwrap_err();
            assert!(!out.exists());
            error.to_string()
        };
        let head = "bucket,rows,samples,error\n";
        assert!(refused(&format!("{head}a,10,10,1.5\n")).contains("'error': row 1: 1.5"));
        assert!(refused(&format!("{head}a,10,0,0.5\n")).contains("'samples': row 1"));
        assert!(
            refused(&format!("{head}a,10,10,0.5\na,12,20,0.5\n")).contains("had 10 rows before")
        );
        assert!(refused(&format!("{head}a,10,10,0.5\na,10,10,0.4\n")).contains("twice"));
        assert!(refused(&format!("{head}a,10,10,0.5\n")).contains("at least 3"));
        assert!(refused("bucket,rows,samples\na,10,10\n").contains("error"));
    }

    #[test]
    fn every_method_runs_on_rows_with_labels_and_scores_what_it_promises() {
        let few: &[(&str, serde_json::Value)] = &[
            ("max-samples", json!(800)),
            ("bucket-rows", json!(50)),
            ("buckets", json!(2)),
            ("label-noise", json!([0.0, 0.5])),
            ("repeats", json!(1)),
            ("bootstraps", json!(3)),
        ];
        for entry in METHODS {
            let known: Vec<String> = (entry.options)().into_iter().map(|o| o.name).collect();
            let options: Vec<_> = few
                .iter()
                .filter(|(name, _)| *name != "bootstraps" || known.contains(&(*name).to_owned()))
                .cloned()
                .collect();
            let job = job(entry.facts.name, digits(), &options).unwrap();
            let context = Context::with_seed(1);
            let first = BucketCuration.measure(&job, &context).unwrap();
            let again = BucketCuration.measure(&job, &context).unwrap();
            for name in [
                "error",
                "error-above-best",
                "non-decreasing-share",
                "buckets",
            ] {
                assert_eq!(first.metrics[name], again.metrics[name], "{name}");
                assert!(METRICS.iter().any(|m| m.name == name));
            }
            assert!(first.metrics["error"] < 0.5 && first.metrics["error-above-best"] >= 0.0);
        }
    }

    #[test]
    fn too_few_rows_and_impossible_options_are_errors() {
        let refused = |options: &[(&str, serde_json::Value)]| {
            let job = job("top-bucket", digits(), options)?;
            BucketCuration.measure(&job, &Context::with_seed(0))
        };
        let told =
            |options: &[(&str, serde_json::Value)]| refused(options).unwrap_err().to_string();
        assert!(told(&[("bucket-rows", json!(600))]).contains("too few"));
        assert!(told(&[("max-samples", json!(10))]).contains("max-samples"));
        assert!(told(&[("label-noise", json!([0.1]))]).contains("label-noise"));
        assert!(told(&[("bucket-by", json!("group"))]).contains("--group"));
        assert!(told(&[("budgets", json!([0.0]))]).contains("budgets"));
    }
}
