//! Task `coreset`: choose rows and weights that stand for all rows under a given loss.
//!
//! Here are the task's trait, its list of methods, its metrics and its options. What is summarised is a problem
//! (`problem.rs`): linear models of two classes or of a number, softmax regression, k-means and k-medians, principal
//! components, or whatever a user of the library writes.
//!
//! ```
//! use papertrial_core::Result;
//! use papertrial_core::task::Context;
//! use papertrial_select::coreset::{AutoCoreset, WeightedProblem};
//!
//! /// A weighted mean under the squared loss.
//! struct Mean(Vec<f64>);
//!
//! impl WeightedProblem for Mean {
//!     type Model = f64;
//!     fn rows(&self) -> usize {
//!         self.0.len()
//!     }
//!     fn fit(&self, rows: &[usize], weights: &[f64]) -> Result<f64> {
//!         let sum: f64 = rows.iter().zip(weights).map(|(row, w)| w * self.0[*row]).sum();
//!         Ok(sum / weights.iter().sum::<f64>())
//!     }
//!     fn loss(&self, row: usize, model: &f64) -> f64 {
//!         (self.0[row] - model).powi(2)
//!     }
//! }
//!
//! let problem = Mean((0..1000).map(|i| f64::from(i * i % 101)).collect());
//! let coreset = AutoCoreset::default().build(&problem, 30, &Context::with_seed(0)).unwrap();
//! assert!(coreset.rows.len() <= 30);
//! ```

mod apply;
mod autocoreset;
mod baselines;
mod caratheodory;
mod centres;
mod draws;
mod frank_wolfe;
mod input;
mod interior;
mod lbfgs;
mod linear;
mod moments;
mod problem;
mod quotas;
mod sensitivity;
mod softmax;
mod subspace;
mod summary;

pub use autocoreset::{AutoCoreset, Stop};
pub use baselines::{BestOfUniform, FullData, KMeansPlusPlus, Uniform};
pub use centres::{CentreLoss, Centres};
pub use linear::{Linear, LinearLoss};
pub use problem::{Problem, WeightedProblem, check_solver};
pub use quotas::Quotas;
pub use sensitivity::SensitivitySampling;
pub use softmax::Softmax;
pub use subspace::Subspace;
pub use summary::Sampler;

use draws::first_weight;
use input::{Data, Scaling, Target};
use ndarray::Array2;
use papertrial_core::task::{Applied, Context, Curve, Entry, Job, Measurement, MetricInfo, Task};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;

/// A method of this task.
pub trait Chooser: Send + Sync {
    /// Chooses at most `size` rows of `problem`, with weights.
    ///
    /// # Errors
    /// A size that the problem cannot be fitted with, losses that are impossible, or a computation that failed.
    fn choose(
        &self,
        problem: &dyn Problem,
        size: usize,
        context: &Context,
    ) -> Result<Coreset<Array2<f64>>>;
}

/// Rows with weights that stand for all rows.
#[derive(Debug, Clone)]
pub struct Coreset<M> {
    /// Distinct rows, ascending.
    pub rows: Vec<usize>,
    /// Their weights, positive; they sum to about the number of rows.
    pub weights: Vec<f64>,
    /// The model fitted to them.
    pub model: M,
    /// Loss of ALL rows under that model.
    pub loss: f64,
    /// Loss of all rows under the model of each fit on the way, in order.
    pub sums: Vec<f64>,
    /// Remarks for the reader.
    pub notes: Vec<String>,
}

/// All rows with their first weights.
fn all_rows<P: WeightedProblem + ?Sized>(problem: &P) -> Result<Coreset<P::Model>> {
    let rows: Vec<usize> = (0..problem.rows()).collect();
    let weights: Vec<f64> = rows
        .iter()
        .map(|row| first_weight(problem.weights(), *row))
        .collect();
    let model = problem.fit(&rows, &weights)?;
    let loss = problem::total(problem, &problem::checked_losses(problem, &model)?);
    Ok(Coreset {
        rows,
        weights,
        model,
        loss,
        sums: vec![loss],
        notes: Vec::new(),
    })
}

/// All rows if there are no more than asked for; an error if there are too few for the classes.
fn too_small<P: WeightedProblem + ?Sized>(
    problem: &P,
    members: &[Vec<usize>],
    size: usize,
) -> Result<Option<Coreset<P::Model>>> {
    let n = problem.rows();
    if let Some(weights) = problem.weights()
        && (weights.len() != n || weights.iter().any(|w| !(w.is_finite() && *w > 0.0)))
    {
        return Err(Error::BadInput(format!(
            "the first weights should be {n} numbers above 0, one for each row"
        )));
    }
    if size == 0 {
        return Err(Error::option("size", "at least 1 row is needed"));
    }
    if n == 0 {
        return Err(Error::BadInput("there are no rows to choose from".into()));
    }
    if size >= n {
        let mut all = all_rows(problem)?;
        all.notes.push(format!(
            "size is {size} for {n} rows: all rows were taken with weight 1"
        ));
        return Ok(Some(all));
    }
    if size < members.len() {
        return Err(Error::option(
            "size",
            format!(
                "{size} rows cannot hold the {} classes; at least one row for each is needed",
                members.len()
            ),
        ));
    }
    Ok(None)
}

/// Kish's effective number: (sum of weights)^2 over the sum of their squares. As many rows of equal weight would vary as
/// much; few heavy rows make it small.
fn effective_rows(weights: &[f64]) -> f64 {
    let sum: f64 = weights.iter().sum();
    let squares: f64 = weights.iter().map(|w| w * w).sum();
    sum * sum / squares
}

/// The methods. A new one is a file of its own, a `mod` line above, and a line here.
const METHODS: &[Entry<dyn Chooser>] = papertrial_core::methods![dyn Chooser;
    AutoCoreset,
    Uniform,
    BestOfUniform,
    SensitivitySampling,
    KMeansPlusPlus,
    FullData,
];

const METRICS: &[MetricInfo] = &[
    MetricInfo::new(
        "relative-gap",
        Some(false),
        "loss of all training rows under the coreset's model, over that under the model of all of them, less 1",
    ),
    MetricInfo::new(
        "test-gap",
        Some(false),
        "the same of the mean loss of test rows, without the penalty; below 0 if the coreset's model is the better one",
    ),
    MetricInfo::new(
        "accuracy",
        Some(true),
        "share of test rows whose class the coreset's model predicts right, 0 to 1",
    ),
    MetricInfo::new(
        "r2",
        Some(true),
        "share of the variance of test rows' numbers that the coreset's model explains, at most 1",
    ),
    MetricInfo::new(
        "seconds",
        Some(false),
        "wall seconds of the construction with all its fits, data in memory",
    )
    .timed(),
    MetricInfo::new(
        "fits",
        None,
        "fits on the way, each judged by a pass over all rows",
    ),
    MetricInfo::new("rows", None, "distinct rows chosen"),
    MetricInfo::new(
        "weight-share",
        None,
        "sum of the weights over the number of training rows; near 1",
    ),
    MetricInfo::new(
        "effective-rows",
        None,
        "rows of equal weight that would vary as much: (sum of weights)^2 over the sum of their squares",
    ),
];

/// The problem whose loss is summarised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// Two classes, logistic loss and ridge.
    LogisticRegression,
    /// Two or more classes, softmax loss and ridge.
    Softmax,
    /// Two classes, hinge loss and ridge.
    LinearSvm,
    /// Numbers, squared error.
    LinearRegression,
    /// Numbers, squared error up to a residual, linear beyond.
    Huber,
    /// A quantile of numbers.
    Quantile,
    /// Squared distance to the nearest of k centres.
    KMeans,
    /// Distance to the nearest of k centres.
    KMedians,
    /// Squared distance to a plane through the mean.
    Pca,
}

impl ProblemKind {
    /// Its name as an option's value.
    fn name(self) -> &'static str {
        match self {
            ProblemKind::LogisticRegression => "logistic-regression",
            ProblemKind::Softmax => "softmax",
            ProblemKind::LinearSvm => "linear-svm",
            ProblemKind::LinearRegression => "linear-regression",
            ProblemKind::Huber => "huber",
            ProblemKind::Quantile => "quantile",
            ProblemKind::KMeans => "k-means",
            ProblemKind::KMedians => "k-medians",
            ProblemKind::Pca => "pca",
        }
    }
}

/// Options of the task: the problem, and how many rows may be chosen.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskOptions {
    /// The problem whose loss the rows stand for.
    pub problem: ProblemKind,
    /// Rows to choose at most.
    #[schemars(range(min = 1))]
    pub size: usize,
    /// For logistic-regression, softmax and linear-svm: weight of the data against the ridge.
    #[schemars(range(min = 0.0))]
    pub c: f64,
    /// For k-means and k-medians: number of centres.
    #[schemars(range(min = 1))]
    pub k: usize,
    /// For k-means and k-medians: starts of a fit, of which the best is kept.
    #[schemars(range(min = 1))]
    pub k_means_starts: usize,
    /// For pca: number of axes.
    #[schemars(range(min = 1))]
    pub axes: usize,
    /// For huber: residual at which the loss becomes linear, in standard deviations of the label.
    #[schemars(range(min = 0.0))]
    pub huber_delta: f64,
    /// For quantile: share of rows below it.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub level: f64,
    /// Scale every feature to mean 0 and variance 1 first.
    pub standardise: bool,
    /// Trials only: share of rows that are kept for the test.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub test_share: f64,
}

impl Default for TaskOptions {
    fn default() -> Self {
        TaskOptions {
            problem: ProblemKind::LogisticRegression,
            size: 100,
            c: 1.0,
            k: 8,
            k_means_starts: 10,
            axes: 2,
            huber_delta: 1.345,
            level: 0.5,
            standardise: true,
            // As in the released code of AutoCoreset.
            test_share: 0.3,
        }
    }
}

/// The task.
pub struct CoresetTask;

impl Task for CoresetTask {
    papertrial_core::states! {
        "coreset",
        "choose rows and weights that stand for all rows under a given loss",
        METHODS,
        METRICS,
        TaskOptions,
    }

    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let (method, asked) = prepare(job)?;
        let table = job.table("data", context)?;
        let data = Data::of(&table, &job.roles, &asked, context)?;
        let (mut train, mut test) = data.split(asked.test_share, job.seed)?;
        if asked.standardise {
            let scaling = Scaling::of(&train.x);
            scaling.apply(&mut train.x);
            if let Some(test) = &mut test {
                scaling.apply(&mut test.x);
            }
        }
        let n = train.x.nrows();
        let unit = input::spread(&train.target);
        let problem = input::problem(train, &asked, unit, true, job.seed)?;

        let start = Instant::now();
        let found = method.choose(&*problem, asked.size, context)?;
        let seconds = start.elapsed().as_secs_f64();
        let full = all_rows(&*problem)?;

        let mut measurement = Measurement {
            notes: found.notes.clone(),
            ..Measurement::default()
        };
        let metrics = &mut measurement.metrics;
        metrics.insert("seconds".into(), seconds);
        metrics.insert("fits".into(), found.sums.len() as f64);
        metrics.insert("rows".into(), found.rows.len() as f64);
        let weight: f64 = found.weights.iter().sum();
        metrics.insert("weight-share".into(), weight / n as f64);
        metrics.insert("effective-rows".into(), effective_rows(&found.weights));
        if full.loss > 0.0 {
            let gap = |loss: f64| loss / full.loss - 1.0;
            metrics.insert("relative-gap".into(), gap(found.loss));
            measurement.curves.push(Curve {
                name: "relative gap".into(),
                x: "fit".into(),
                y: "relative gap of its model".into(),
                points: (1..)
                    .map(f64::from)
                    .zip(found.sums.iter().map(|sum| gap(*sum)))
                    .collect(),
            });
        } else {
            measurement
                .notes
                .push("the model of all rows has no loss left: there is no relative gap".into());
        }
        if let Some(test) = test {
            score(
                test,
                &asked,
                unit,
                &found.model,
                &full.model,
                &mut measurement,
            )?;
        }
        Ok(measurement)
    }

    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied> {
        let (method, asked) = prepare(job)?;
        apply::write(&*method, &asked, job, out, context)
    }
}

/// Scores the coreset's model on test rows, beside the model of all rows.
fn score(
    test: Data,
    asked: &TaskOptions,
    unit: f64,
    model: &Array2<f64>,
    full: &Array2<f64>,
    measurement: &mut Measurement,
) -> Result<()> {
    let truth = test.target.clone();
    let fixed = TaskOptions {
        // The models are there; nothing is fitted to the test rows, which may be fewer than centres.
        k: asked.k.min(test.x.nrows()),
        ..asked.clone()
    };
    let problem = input::problem(test, &fixed, unit, false, 0)?;
    let metrics = &mut measurement.metrics;
    let mean = |model: &Array2<f64>| -> Result<f64> {
        let losses = problem::checked_losses(&*problem, model)?;
        Ok(losses.iter().sum::<f64>() / losses.len() as f64)
    };
    let best = mean(full)?;
    if best > 0.0 {
        metrics.insert("test-gap".into(), mean(model)? / best - 1.0);
    }
    let Some(predicted) = problem.predict(model, problem.points()) else {
        return Ok(());
    };
    let values = truth.values();
    let pairs = || values.iter().zip(&predicted);
    let n = values.len() as f64;
    match truth {
        Target::Classes(..) => {
            let right = pairs().filter(|(t, p)| t == p).count();
            metrics.insert("accuracy".into(), right as f64 / n);
        }
        // A quantile explains no variance.
        Target::Numbers(_) if asked.problem != ProblemKind::Quantile => {
            let mean = values.iter().sum::<f64>() / n;
            let spread: f64 = values.iter().map(|t| (t - mean).powi(2)).sum();
            let rest: f64 = pairs().map(|(t, p)| (t - p).powi(2)).sum();
            if spread > 0.0 {
                metrics.insert("r2".into(), 1.0 - rest / spread);
            }
        }
        _ => {}
    }
    Ok(())
}

/// The method of a job and what is asked of the task.
fn prepare(job: &Job) -> Result<(Box<dyn Chooser>, TaskOptions)> {
    let (method, asked): (_, TaskOptions) = Entry::prepare(METHODS, job)?;
    for (option, value) in [("c", asked.c), ("huber-delta", asked.huber_delta)] {
        if value <= 0.0 {
            return Err(Error::option(option, "must be above 0"));
        }
    }
    if !(asked.level > 0.0 && asked.level < 1.0) {
        return Err(Error::option(
            "level",
            "must be between 0 and 1, neither of them",
        ));
    }
    Ok((method, asked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Float64Type;
    use papertrial_core::data::{ReadOptions, Roles, Table};
    use papertrial_core::options::Settings;
    use papertrial_core::plan;
    use serde_json::{Value, json};

    fn settings(value: Value) -> Settings {
        value.as_object().cloned().unwrap_or_default()
    }

    fn job(data: &str, method: &str, roles: Roles, given: Value) -> Result<Job> {
        let source = plan::source(
            data,
            &Settings::new(),
            roles,
            &ReadOptions::default(),
            &crate::FAMILY,
        )?;
        let method = plan::method(&CoresetTask, method)?;
        plan::job(
            &CoresetTask,
            &method,
            &settings(given),
            &Settings::new(),
            &source,
            0,
        )
    }

    fn measure(data: &str, method: &str, given: Value) -> Result<Measurement> {
        let job = job(data, method, Roles::default(), given)?;
        CoresetTask.measure(&job, &Context::with_seed(0))
    }

    fn label(column: &str) -> Roles {
        Roles {
            label: Some(column.into()),
            ..Roles::default()
        }
    }

    #[test]
    fn every_metric_that_is_measured_is_listed() {
        let measured = measure("breast-cancer", "autocoreset", json!({})).unwrap();
        for name in measured.metrics.keys() {
            assert!(METRICS.iter().any(|m| m.name == name), "{name}");
        }
        assert!(measured.metrics["relative-gap"] >= 0.0);
        assert!(measured.metrics["accuracy"] > 0.85);
        assert!(measured.metrics["rows"] <= 100.0);
        assert_eq!(
            measured.curves[0].points.len(),
            measured.metrics["fits"] as usize
        );
    }

    #[test]
    fn all_rows_have_no_gap() {
        let measured = measure("breast-cancer", "full-data", json!({})).unwrap();
        assert_eq!(measured.metrics["relative-gap"], 0.0);
        assert_eq!(measured.metrics["test-gap"], 0.0);
        assert_eq!(measured.metrics["weight-share"], 1.0);
        assert_eq!(measured.metrics["effective-rows"], measured.metrics["rows"]);
    }

    #[test]
    fn every_problem_is_measured() {
        for (data, problem) in [
            ("breast-cancer", "logistic-regression"),
            ("breast-cancer", "linear-svm"),
            ("wine", "softmax"),
            ("iris", "k-means"),
            ("iris", "k-medians"),
            ("iris", "pca"),
        ] {
            for sampler in ["caratheodory", "sparse"] {
                let given = json!({"problem": problem, "size": 60, "sampler": sampler, "k": 3});
                let measured = measure(data, "autocoreset", given).unwrap();
                assert!(measured.metrics["relative-gap"] > -0.05, "{problem}");
                assert_eq!(
                    measured.metrics.contains_key("accuracy"),
                    ["logistic-regression", "linear-svm", "softmax"].contains(&problem)
                );
            }
        }
    }

    /// A file with a number to predict and a name for each row; `None` for a weight column.
    fn numbers(folder: &Path, last: &str) -> String {
        let mut text = format!("name,a,b,y,{last}\n");
        for i in 0..200u32 {
            let (a, b) = (f64::from(i * 7 % 23), f64::from(i * 11 % 29));
            let y = 2.0 * a - b + f64::from(i % 5);
            text += &format!("row {i},{a},{b},{y},{}\n", i % 2);
        }
        let path = folder.join("numbers.csv");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn of_numbers() -> Roles {
        Roles {
            id: Some("name".into()),
            ..label("y")
        }
    }

    #[test]
    fn numbers_are_predicted() {
        let folder = tempfile::tempdir().unwrap();
        let data = numbers(folder.path(), "c");
        for problem in ["linear-regression", "huber", "quantile"] {
            let given = json!({"problem": problem, "size": 40});
            let job = job(&data, "autocoreset", of_numbers(), given).unwrap();
            let measured = CoresetTask.measure(&job, &Context::with_seed(0)).unwrap();
            assert!(measured.metrics["relative-gap"] < 0.5, "{problem}");
            match measured.metrics.get("r2") {
                Some(r2) => assert!(*r2 > 0.9 && problem != "quantile"),
                None => assert_eq!(problem, "quantile"),
            }
        }
    }

    #[test]
    fn chosen_rows_are_written_whole_with_a_weight_and_a_report() {
        let folder = tempfile::tempdir().unwrap();
        let data = numbers(folder.path(), "c");
        for ending in ["parquet", "csv"] {
            let out = folder.path().join(format!("chosen.{ending}"));
            let given =
                json!({"problem": "linear-regression", "size": 30, "sampler": "caratheodory"});
            let job = job(&data, "autocoreset", of_numbers(), given).unwrap();
            let applied = CoresetTask
                .apply(&job, &out, &Context::with_seed(0))
                .unwrap();
            assert_eq!(applied.files.len(), 2);
            let table = Table::open(&out, &ReadOptions::default()).unwrap();
            assert_eq!(table.columns(), ["name", "a", "b", "y", "c", "weight"]);
            assert!(table.rows() <= 30);
            let mut sum = 0.0;
            for batch in table.batches().unwrap() {
                let batch = batch.unwrap();
                let weights = batch.column(5).as_primitive::<Float64Type>();
                sum += weights.values().iter().sum::<f64>();
                // Each row is one of the file's: y follows from its number in the file.
                let names =
                    arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8)
                        .unwrap();
                let y = arrow::compute::cast(batch.column(3), &arrow::datatypes::DataType::Float64)
                    .unwrap();
                for (at, name) in names.as_string::<i32>().iter().enumerate() {
                    let i: u32 = name.unwrap()[4..].parse().unwrap();
                    let expected =
                        2.0 * f64::from(i * 7 % 23) - f64::from(i * 11 % 29) + f64::from(i % 5);
                    assert_eq!(y.as_primitive::<Float64Type>().value(at), expected);
                }
            }
            assert!((sum - 200.0).abs() < 1e-6);
            let report = std::fs::read(folder.path().join("chosen.report.json")).unwrap();
            let report: Value = serde_json::from_slice(&report).unwrap();
            assert_eq!(report["rows"], 200);
            assert_eq!(report["rows_chosen"], table.rows());
            assert!(report["relative_gap"].as_f64().unwrap() >= -1e-9);
            assert!(report["fits"].as_array().unwrap().len() > 3);
        }
    }

    #[test]
    fn bad_input_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let data = numbers(folder.path(), "c");
        let told = |data: &str, roles: Roles, given: Value, words: &[&str]| {
            let e = job(data, "autocoreset", roles, given)
                .and_then(|job| CoresetTask.measure(&job, &Context::with_seed(0)))
                .unwrap_err();
            assert_eq!(e.exit_status(), 2, "{e}");
            let text = e.to_string();
            assert!(words.iter().all(|w| text.contains(w)), "{text}");
        };
        let id = || Roles {
            id: Some("name".into()),
            ..Roles::default()
        };
        told(&data, id(), json!({}), &["--label", "logistic-regression"]);
        told(
            "iris",
            Roles::default(),
            json!({}),
            &["3 classes", "softmax"],
        );
        told(
            "iris",
            Roles::default(),
            json!({"problem": "linear-regression"}),
            &["species", "numbers"],
        );
        told(
            "iris",
            Roles::default(),
            json!({"problem": "softmax", "size": 2}),
            &["size", "3 classes"],
        );
        told(
            "iris",
            Roles::default(),
            json!({"problem": "k-means", "size": 4}),
            &["size", "8 centres"],
        );
        told(
            "iris",
            Roles::default(),
            json!({"problem": "pca", "axes": 4}),
            &["axes"],
        );
        told(
            "breast-cancer",
            Roles::default(),
            json!({"c": 0}),
            &["c", "above 0"],
        );
        told(
            &data,
            of_numbers(),
            json!({"problem": "quantile", "level": 1}),
            &["level"],
        );

        let taken = numbers(folder.path(), "weight");
        let out = folder.path().join("chosen.csv");
        let job = job(
            &taken,
            "uniform",
            of_numbers(),
            json!({"problem": "linear-regression"}),
        )
        .unwrap();
        let e = CoresetTask
            .apply(&job, &out, &Context::with_seed(0))
            .unwrap_err();
        assert!(e.to_string().contains("'weight'") && !out.exists(), "{e}");
    }

    #[test]
    fn more_rows_than_there_are_is_all_rows() {
        let measured = measure(
            "iris",
            "autocoreset",
            json!({"problem": "softmax", "size": 500}),
        )
        .unwrap();
        assert_eq!(measured.metrics["weight-share"], 1.0);
        assert!(measured.notes[0].contains("all rows"));
    }
}
