//! Task `mixer-equivalence`: whether the forms of a sequence mixer agree, on any sequence.
//!
//! Here are the trait of its methods, its metrics and options; what is compared is in [`dsf`] and [`statements`].

mod dsf;
pub mod simulation;
mod statements;

pub use dsf::{Dsf, Form};
pub use statements::{
    Taylor, relative, reversed_gate, s6_is_a_gated_network, ssd_is_separable_attention, taylor,
};

use arrow::array::{ArrayRef, BooleanArray, Float64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use ndarray::ArrayView2;
use papertrial_core::data::{Features, Output};
use papertrial_core::methods;
use papertrial_core::task::{Applied, Context, Curve, Entry, Job, Measurement, MetricInfo, Task};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A method of this task.
pub trait Representation: Send + Sync {
    /// Compares the forms of its mixers on `u`, [L, d].
    ///
    /// # Errors
    /// Options that do not fit, or numbers that are not finite.
    fn check(&self, u: ArrayView2<f64>, asked: &TaskOptions, context: &Context) -> Result<Checks>;
}

/// What was compared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checks {
    /// One for each check.
    pub rows: Vec<Row>,
    /// Metrics.
    pub metrics: BTreeMap<String, f64>,
    /// Curves.
    pub curves: Vec<Curve>,
    /// Remarks.
    pub notes: Vec<String>,
}

/// A check.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The mixer, or `statement`.
    pub mixer: String,
    /// What is compared.
    pub check: String,
    /// The number found.
    pub value: f64,
    /// The most that it should be, if there is a most.
    pub limit: Option<f64>,
}

impl Checks {
    /// Raises a metric to `value` if that is more.
    fn raise(&mut self, metric: &str, value: f64) {
        let entry = self.metrics.entry(metric.into()).or_insert(value);
        // What is not a number is the worst.
        if value > *entry || value.is_nan() {
            *entry = value;
        }
    }

    /// Adds a remark once.
    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

const METHODS: &[Entry<dyn Representation>] = methods![dyn Representation; Dsf];

const METRICS: &[MetricInfo] = &[
    MetricInfo::new(
        "form-difference",
        Some(false),
        "largest relative difference of two forms of a mixer",
    ),
    MetricInfo::new(
        "statement-difference",
        Some(false),
        "largest relative difference of what the paper says is equal, in double precision",
    ),
    MetricInfo::new(
        "largest-error-ratio",
        Some(false),
        "largest ratio of the truncated softmax's error at one order to that at the order before",
    ),
    MetricInfo::new(
        "bound-share",
        Some(false),
        "largest error of a truncated weight as a share of the Taylor remainder",
    ),
    MetricInfo::new(
        "memory-ratio",
        Some(false),
        "memory of an evaluation of the whole sequence, as a multiple of that of its first positions, at its worst",
    ),
    MetricInfo::new("state", None, "numbers of the state, of the largest mixer"),
];

/// Options of the task: precision and lengths.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskOptions {
    /// Precision of the evaluations.
    pub precision: Precision,
    /// Orders at which softmax attention is cut, a list, ascending.
    pub orders: Vec<usize>,
    /// Positions of the short evaluation whose memory is compared.
    #[schemars(range(min = 1))]
    pub short_length: usize,
}

/// A precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Single.
    F32,
    /// Double.
    F64,
}

impl Precision {
    /// Most that two forms should differ.
    fn limit(self) -> f64 {
        match self {
            Precision::F32 => 1e-4,
            Precision::F64 => 1e-10,
        }
    }
}

impl Default for TaskOptions {
    fn default() -> Self {
        TaskOptions {
            precision: Precision::F64,
            orders: vec![1, 2, 3, 4, 5, 6],
            short_length: 256,
        }
    }
}

/// Highest order at which an error is still more than rounding for inputs of moderate size.
const HIGHEST_ORDER: usize = 30;

/// The task.
pub struct MixerEquivalence;

impl Task for MixerEquivalence {
    papertrial_core::states! {
        "mixer-equivalence",
        "check that the recurrent, parallel and usual form of a sequence mixer agree",
        METHODS,
        METRICS,
        TaskOptions,
    }

    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let checks = checks(job, context)?;
        Ok(Measurement {
            metrics: checks.metrics,
            curves: checks.curves,
            notes: checks.notes,
        })
    }

    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied> {
        let mut output = Output::table(out)?;
        let checks = checks(job, context)?;
        output.write(&[table(&checks.rows)?])?;
        let failed = checks.rows.iter().filter(|r| !holds(r)).count();
        let limited = checks.rows.iter().filter(|r| r.limit.is_some()).count();
        let mut summary = vec![(
            "checks".to_owned(),
            format!("{} of {limited} hold", limited - failed),
        )];
        for (name, value) in &checks.metrics {
            summary.push((name.clone(), format!("{value:.3e}")));
        }
        Ok(Applied {
            files: output.finish()?,
            summary,
            notes: checks.notes,
            ..Applied::default()
        })
    }
}

/// Whether a check holds; one without a limit cannot fail.
fn holds(row: &Row) -> bool {
    row.limit.is_none_or(|limit| row.value <= limit)
}

fn checks(job: &Job, context: &Context) -> Result<Checks> {
    let (method, asked) = Entry::prepare::<TaskOptions>(METHODS, job)?;
    if asked.orders.windows(2).any(|w| w[1] <= w[0])
        || asked.orders.iter().any(|o| *o > HIGHEST_ORDER)
    {
        return Err(Error::option(
            "orders",
            format!("must ascend, up to {HIGHEST_ORDER}"),
        ));
    }
    let table = job.table("data", context)?;
    let u = Features::of(&table, &job.roles)?.matrix(context)?;
    method.check(u.view(), &asked, context)
}

/// The output: one row a check.
fn table(rows: &[Row]) -> Result<RecordBatch> {
    let text = |f: &dyn Fn(&Row) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(f)))
    };
    let columns: Vec<(&str, DataType, ArrayRef)> = vec![
        ("mixer", DataType::Utf8, text(&|r| r.mixer.clone())),
        ("check", DataType::Utf8, text(&|r| r.check.clone())),
        (
            "value",
            DataType::Float64,
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.value))),
        ),
        (
            "limit",
            DataType::Float64,
            Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.limit))),
        ),
        (
            "holds",
            DataType::Boolean,
            Arc::new(BooleanArray::from_iter(
                rows.iter().map(|r| r.limit.map(|_| holds(r))),
            )),
        ),
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
    use papertrial_core::data::{ReadOptions, Roles};
    use papertrial_core::options;
    use papertrial_core::options::Settings;
    use papertrial_core::plan::{self, Source};
    use papertrial_core::task::Input;
    use serde_json::{Value, json};

    fn settings(value: Value) -> Settings {
        value.as_object().cloned().unwrap_or_default()
    }

    fn job(data: Value, options: Value) -> Result<Job> {
        let about = (simulation::SIMULATION.options)();
        let source = Source {
            input: Input::Simulation {
                name: "random-sequences".into(),
                options: options::resolve("random-sequences", &about, &settings(data))?,
            },
            roles: Roles::default(),
            others: Default::default(),
        };
        let method = plan::method(&MixerEquivalence, "dsf")?;
        let none = Settings::new();
        plan::job(
            &MixerEquivalence,
            &method,
            &settings(options),
            &none,
            &source,
            1,
        )
    }

    fn context() -> Context<'static> {
        Context {
            simulations: &[simulation::SIMULATION],
            ..Context::with_seed(1)
        }
    }

    fn measured(data: Value, options: Value) -> Result<BTreeMap<String, f64>> {
        Ok(MixerEquivalence
            .measure(&job(data, options)?, &context())?
            .metrics)
    }

    #[test]
    fn all_forms_agree_in_both_precisions() {
        for (precision, limit) in [("f32", 1e-4), ("f64", 1e-10)] {
            let metrics = measured(
                json!({"length": 40, "d": 8}),
                json!({"precision": precision, "short-length": 10, "heads": 2}),
            )
            .unwrap();
            assert!(metrics["form-difference"] < limit, "{metrics:?}");
            assert!(metrics["form-difference"] > 0.0);
            assert!(metrics["statement-difference"] < 1e-10);
            assert_eq!(metrics["memory-ratio"], 1.0);
            // Softmax, cut at order 2: 15 monomials of 4 features a head, 8 channels.
            assert_eq!(metrics["state"], 120.0);
        }
    }

    #[test]
    fn the_matrix_needs_the_square_of_the_length() {
        let metrics = measured(
            json!({"length": 40, "d": 8}),
            json!({"short-length": 20, "form": "parallel", "mixer": "qlstm"}),
        )
        .unwrap();
        assert!(metrics["memory-ratio"] > 2.0 && metrics["memory-ratio"] <= 4.0);
        assert!(!metrics.contains_key("largest-error-ratio"));
    }

    #[test]
    fn the_checks_of_a_file_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("u.csv");
        std::fs::write(&data, "a,b\n1,2\n0,-1\n0.5,0.25\n").unwrap();
        let method = plan::method(&MixerEquivalence, "dsf").unwrap();
        let source = Source {
            input: plan::file(&data, &ReadOptions::default()).unwrap(),
            roles: Roles::default(),
            others: Default::default(),
        };
        let none = Settings::new();
        let job = plan::job(&MixerEquivalence, &method, &none, &none, &source, 1).unwrap();
        let out = folder.path().join("checks.csv");
        let applied = MixerEquivalence.apply(&job, &out, &context()).unwrap();
        let text = std::fs::read_to_string(&out).unwrap();
        assert!(
            text.starts_with("mixer,check,value,limit,holds\n"),
            "{text}"
        );
        assert!(text.contains("ssd,matrix = recurrence,"), "{text}");
        assert!(!text.contains("false"), "{text}");
        assert_eq!(applied.files, [out]);
    }

    #[test]
    fn impossible_options_are_told() {
        let told = |options: Value| {
            measured(json!({"length": 8, "d": 4}), options)
                .unwrap_err()
                .to_string()
        };
        assert!(told(json!({"mixer": "gru"})).contains("not a linear system"));
        assert!(told(json!({"order": 3})).contains("odd"));
        assert!(told(json!({"state": 400, "order": 4})).contains("at most 1000000"));
        assert!(told(json!({"orders": [2, 1]})).contains("ascend"));
        assert!(told(json!({"heads": 3, "state": 9})).contains("heads"));
    }
}
