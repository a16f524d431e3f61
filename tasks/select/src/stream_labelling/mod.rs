//! Task `stream-labelling`: decide for each row of a stream, as it comes, whether its label is worth paying for.
//!
//! Cacciarelli and Kulahci, *A survey on online active learning*, arXiv 2302.08893, turned into one engine (`engine.rs`)
//! with strategies, models, detectors of changes and estimates of the spend, each in a file of its own. Here are the
//! list of methods, the metrics and the options of the task.
//!
//! ```
//! use papertrial_select::stream_labelling::{Engine, Target, TaskOptions, Truth, VariableUncertainty};
//!
//! let asked = TaskOptions { budget: 0.2, ..TaskOptions::default() };
//! let setting = asked.setting(Target::Classes(2), 1, None, 0);
//! let mut engine = Engine::new(&VariableUncertainty::default(), &setting).unwrap();
//! for x in [0.1, 2.0, -1.5, 0.7] {
//!     let decision = engine.decide(&[x]).unwrap();
//!     if decision.ask {
//!         let label = Truth::Class(usize::from(x > 0.0));
//!         engine.learn(decision.row, label).unwrap();
//!     }
//! }
//! ```

mod adwin;
mod baselines;
mod committee;
mod ddm;
mod decisions;
mod density;
mod draws;
mod drift_boost;
mod drift_ensemble;
mod engine;
mod evolving_fuzzy;
mod models;
mod probabilistic;
mod purse;
mod quantile_filter;
mod regression;
mod score;
mod selective_sampling;
pub(crate) mod simulations;
mod single;
mod stream;
mod uncertainty;

pub use baselines::{AllLabels, FirstLabels, RandomLabels};
pub use committee::{CommitteeManager, Disagreement, ImportanceWeighted, StreamCommittee};
pub use density::{CognitiveDualQuery, DensityWindow, Manager};
pub use drift_boost::{DriftTriggeredBoost, OnDrift};
pub use drift_ensemble::DriftAwareEnsemble;
pub use engine::{Decider, Decision, Engine, Lesson, Running, Setting, Start, Strategy, Wish};
pub use evolving_fuzzy::EvolvingFuzzy;
pub use models::{ModelKind, ModelPlan, Prediction, Target, Truth};
pub use probabilistic::StreamProbabilistic;
pub use purse::{Estimate, Purse};
pub use regression::{ConditionalDOptimality, NormThreshold};
pub use selective_sampling::SelectiveSampling;
pub use uncertainty::{
    FixedUncertainty, RandomisedVariableUncertainty, SplitUncertainty, VariableUncertainty,
};

use papertrial_core::methods;
use papertrial_core::task::{Applied, Context, Entry, Input, Job, Measurement, MetricInfo, Task};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use score::Score;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use std::time::Instant;
use stream::{Order, Stream};

/// The methods. A new one is a file of its own, a `mod` line above, and a line here.
const METHODS: &[Entry<dyn Start>] = methods![
    dyn Start;
    RandomLabels,
    AllLabels,
    FirstLabels,
    FixedUncertainty,
    VariableUncertainty,
    RandomisedVariableUncertainty,
    SplitUncertainty,
    SelectiveSampling,
    StreamCommittee,
    ImportanceWeighted,
    DensityWindow,
    StreamProbabilistic,
    CognitiveDualQuery,
    DriftAwareEnsemble,
    DriftTriggeredBoost,
    EvolvingFuzzy,
    NormThreshold,
    ConditionalDOptimality,
];

const METRICS: &[MetricInfo] = &[
    MetricInfo::new(
        "prequential-accuracy",
        Some(true),
        "share of all rows that were predicted right before their label could be learned, 0 to 1",
    ),
    MetricInfo::new(
        "fading-accuracy",
        Some(true),
        "the same at the end of the stream, older rows fading away (option fading), 0 to 1",
    ),
    MetricInfo::new(
        "window-accuracy",
        Some(true),
        "the same of the last rows only (option accuracy-window), 0 to 1",
    ),
    MetricInfo::new(
        "kappa",
        Some(true),
        "Cohen's kappa of predictions and labels: 1 is agreement, 0 is chance",
    ),
    MetricInfo::new(
        "accuracy-label-area",
        Some(true),
        "area under the fading accuracy against labels asked for, over their number, 0 to 1",
    ),
    MetricInfo::new(
        "kappa-per-100-labels",
        Some(true),
        "kappa over hundreds of labels asked for",
    ),
    MetricInfo::new(
        "recovery-rows",
        Some(false),
        "rows after the first known change until 100 rows reach 95 % of the accuracy before it; all rows left if never",
    ),
    MetricInfo::new(
        "prequential-rmse",
        Some(false),
        "root mean squared difference of predicted numbers before their label could be learned",
    ),
    MetricInfo::new("labels-used", None, "share of rows that were asked for"),
    MetricInfo::new(
        "drift-alarms",
        None,
        "changes that the strategy's detectors told of",
    ),
    MetricInfo::new(
        "rows-per-second",
        Some(true),
        "rows decided, and learned from where asked for, in a second",
    )
    .timed(),
];

/// Options of the task: the stream, the budget, the model and the measures.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskOptions {
    /// Share of rows whose labels may be paid.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub budget: f64,
    /// How the spend is estimated: fading lets a burst of about budget x window labels through at the start, quota
    /// gives every window its share, running keeps the exact share at any time.
    pub budget_estimate: Estimate,
    /// Rows of the window of the estimate.
    #[schemars(range(min = 1))]
    pub budget_window: u64,
    /// Rows at the start that are all asked for, as part of the spend; if absent, two for each class, or for each
    /// coefficient of a number.
    pub warm_up: Option<u64>,
    /// Rows that pass between a decision and its label.
    pub delay: u64,
    /// The model, for strategies that do not bring their own.
    pub model: ModelKind,
    /// Step of softmax regression, over the row's squared length.
    #[schemars(range(min = 0.0))]
    pub learning_rate: f64,
    /// Factor on older labels with each new one, in naive Bayes and least squares.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub forgetting: f64,
    /// Scale each column by its mean and deviation so far, cut at 5 deviations.
    pub standardise: bool,
    /// All classes, where the label column does not show them all yet: a list.
    pub classes: Option<Vec<Value>>,
    /// Trials only: times that all rows come.
    #[schemars(range(min = 1))]
    pub passes: usize,
    /// Trials only: draw an order of the rows for each pass; if absent, done for more than one pass.
    pub shuffle: Option<bool>,
    /// Trials only: labels that change places in the middle of the stream, as a list: first with second, third with
    /// fourth, and so on.
    pub swapped_labels: Vec<Value>,
    /// Trials only: rows, from 0, at which the rule behind the labels is known to change; known by itself for swapped
    /// labels and for simulations.
    pub changes: Vec<usize>,
    /// Trials only: factor on older rows in the fading accuracy.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub fading: f64,
    /// Trials only: rows of the accuracy at the end.
    #[schemars(range(min = 1))]
    pub accuracy_window: usize,
}

impl Default for TaskOptions {
    fn default() -> Self {
        TaskOptions {
            budget: 0.1,
            budget_estimate: Estimate::Fading,
            budget_window: 100,
            warm_up: None,
            delay: 0,
            model: ModelKind::Softmax,
            learning_rate: 1.0,
            forgetting: 0.995,
            standardise: true,
            classes: None,
            passes: 1,
            shuffle: None,
            swapped_labels: Vec::new(),
            changes: Vec::new(),
            fading: 0.999,
            accuracy_window: 500,
        }
    }
}

impl TaskOptions {
    /// The setting for a stream of `width` columns; `rows` to come, where that is known.
    pub fn setting(&self, target: Target, width: usize, rows: Option<u64>, seed: u64) -> Setting {
        let least = match target {
            Target::Classes(classes) => 2 * classes as u64,
            Target::Number => 2 * (width as u64 + 1),
        };
        Setting {
            model: ModelPlan {
                kind: match target {
                    Target::Classes(_) => self.model,
                    Target::Number => ModelKind::LeastSquares,
                },
                target,
                width,
                learning_rate: self.learning_rate,
                forgetting: self.forgetting,
                seed,
            },
            budget: self.budget,
            estimate: self.budget_estimate,
            window: self.budget_window,
            warm_up: self.warm_up.unwrap_or(least),
            delay: self.delay,
            standardise: self.standardise,
            rows,
            seed,
        }
    }

    /// Whether the label is a number: by the model, or because the strategy is for numbers.
    fn number(&self, method: &str) -> bool {
        self.model == ModelKind::LeastSquares || NUMBER_METHODS.contains(&method)
    }
}

/// Strategies that predict numbers whatever the model option says.
const NUMBER_METHODS: [&str; 2] = ["norm-threshold", "conditional-d-optimality"];

/// The task.
pub struct StreamLabelling;

impl Task for StreamLabelling {
    papertrial_core::states! {
        "stream-labelling",
        "decide for each row of a stream, as it comes, whether its label is worth paying for",
        METHODS,
        METRICS,
        TaskOptions,
    }

    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let (strategy, asked) = prepare(job)?;
        let table = job.table("data", context)?;
        let order = Order {
            passes: asked.passes,
            shuffle: asked.shuffle.unwrap_or(asked.passes > 1),
            swapped: &asked.swapped_labels,
            seed: job.seed,
        };
        let number = asked.number(&job.method);
        let stream = Stream::of(
            &table,
            &job.roles,
            number,
            asked.classes.as_deref(),
            &order,
            context,
        )?;
        let n = stream.len();
        let setting = asked.setting(stream.target, stream.width(), Some(n as u64), job.seed);
        let mut engine = Engine::new(&*strategy, &setting)?;
        let mut score = Score::new(n, asked.fading, asked.accuracy_window);

        let start = Instant::now();
        for t in 0..n {
            let (x, truth) = stream.at(t);
            let decision = match x.as_slice() {
                Some(x) => engine.decide(x)?,
                None => engine.decide(&x.to_vec())?,
            };
            if decision.ask {
                engine.learn(decision.row, truth)?;
            }
            score.add(&decision, truth);
            if t.is_multiple_of(1024) {
                context.step("rows", t, n);
            }
        }
        let seconds = start.elapsed().as_secs_f64();

        let mut measurement = score.finish(&changes(job, &asked, &order, &stream))?;
        let metrics = &mut measurement.metrics;
        metrics.insert("rows-per-second".into(), n as f64 / seconds);
        metrics.insert("drift-alarms".into(), engine.alarms() as f64);
        Ok(measurement)
    }

    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied> {
        let (strategy, asked) = prepare(job)?;
        decisions::write(&*strategy, &asked, job, out, context)
    }
}

/// The strategy of a job and what is asked of the task.
fn prepare(job: &Job) -> Result<(Box<dyn Start>, TaskOptions)> {
    let (method, asked): (_, TaskOptions) = Entry::prepare(METHODS, job)?;
    if asked.forgetting <= 0.0 {
        return Err(Error::option("forgetting", "must be above 0"));
    }
    if asked.learning_rate <= 0.0 {
        return Err(Error::option("learning-rate", "must be above 0"));
    }
    Ok((method, asked))
}

/// Rows at which the rule behind the labels is known to change.
fn changes(job: &Job, asked: &TaskOptions, order: &Order, stream: &Stream) -> Vec<usize> {
    if !asked.changes.is_empty() {
        return asked.changes.clone();
    }
    if stream.swaps() {
        return vec![stream.len() / 2];
    }
    match job.inputs.get("data") {
        Some(Input::Simulation { name, .. }) if order.passes == 1 && !order.shuffle => {
            simulations::changes(name, stream.len())
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_core::data::{ReadOptions, Roles};
    use papertrial_core::options::Settings;
    use papertrial_core::plan;
    use serde_json::json;
    use std::path::PathBuf;

    fn settings(value: Value) -> Settings {
        value.as_object().cloned().unwrap_or_default()
    }

    fn job(data: &str, method: &str, roles: Roles, options: Value, seed: u64) -> Result<Job> {
        let family = crate::FAMILY;
        let source = plan::source(
            data,
            &Settings::new(),
            roles,
            &ReadOptions::default(),
            &family,
        )?;
        let method = plan::method(&StreamLabelling, method)?;
        plan::job(
            &StreamLabelling,
            &method,
            &settings(options),
            &Settings::new(),
            &source,
            seed,
        )
    }

    fn measure(data: &str, method: &str, options: Value, seed: u64) -> Result<Measurement> {
        let context = Context {
            simulations: crate::FAMILY.simulations,
            ..Context::with_seed(seed)
        };
        let job = job(data, method, Roles::default(), options, seed)?;
        StreamLabelling.measure(&job, &context)
    }

    /// A folder of this test's own, gone at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir()
                .join(format!("papertrial-stream-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn write(&self, name: &str, text: &str) -> String {
            let path = self.0.join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn roles() -> Roles {
        Roles {
            label: Some("y".into()),
            id: Some("name".into()),
            ..Roles::default()
        }
    }

    /// Lines of a file with columns name, a, b, y.
    fn lines(n: usize, labelled: impl Fn(usize) -> bool) -> Vec<String> {
        (0..n)
            .map(|i| {
                let (a, b) = ((i as f64 * 0.7).sin(), (i as f64 * 1.3).cos());
                let y = match labelled(i) {
                    true if a + b > 0.0 => "up",
                    true => "down",
                    false => "",
                };
                format!("r{i},{a},{b},{y}")
            })
            .collect()
    }

    fn file(lines: &[String]) -> String {
        format!("name,a,b,y\n{}\n", lines.join("\n"))
    }

    fn apply(job: &Job, out: &Path) -> Result<Applied> {
        StreamLabelling.apply(job, out, &Context::with_seed(job.seed))
    }

    #[test]
    fn the_claims_stream_of_digits_measures_all_it_should() {
        let options = json!({
            "passes": 3, "swapped-labels": [1, 7, 3, 8, 0, 6], "budget": 0.1, "model": "softmax"
        });
        let m = measure("digits", "variable-uncertainty", options.clone(), 0).unwrap();
        for name in METRICS.iter().map(|m| m.name) {
            assert_eq!(
                m.metrics.contains_key(name),
                name != "prequential-rmse",
                "{name}"
            );
        }
        let accuracy = m.metrics["prequential-accuracy"];
        assert!(accuracy > 0.4 && accuracy < 1.0, "{accuracy}");
        assert_eq!(m.curves.len(), 2);
        let mut again = measure("digits", "variable-uncertainty", options, 0).unwrap();
        again
            .metrics
            .insert("rows-per-second".into(), m.metrics["rows-per-second"]);
        assert_eq!(again, m);
    }

    #[test]
    fn simulations_and_numbers_measure_too() {
        let m = measure("stagger", "random", json!({"model": "hoeffding-tree"}), 1).unwrap();
        assert!(m.metrics["recovery-rows"] >= 100.0);
        let m = measure("stagger", "norm-threshold", json!({}), 1).unwrap();
        let rmse = m.metrics["prequential-rmse"];
        assert!(rmse > 0.0 && rmse < 1.0, "{rmse}");
    }

    #[test]
    fn a_later_run_goes_on_as_if_there_had_been_one() {
        let folder = Folder::new("resume");
        // Some rows have no label: they are decided and not learned from.
        let all = lines(300, |i| i % 7 != 3);
        let (first, rest) = all.split_at(130);
        let whole = folder.write("whole.csv", &file(&all));
        let first = folder.write("first.csv", &file(first));
        let rest = folder.write("rest.csv", &file(rest));
        let out = |name: &str| folder.0.join(name);
        let made = |data: &str| {
            job(
                data,
                "split-uncertainty",
                roles(),
                json!({"delay": 3, "budget": 0.3}),
                5,
            )
            .unwrap()
        };
        apply(&made(&whole), &out("w.csv")).unwrap();
        apply(&made(&first), &out("a.csv")).unwrap();
        let mut second = made(&rest);
        let state = plan::file(&out("a.state.json"), &ReadOptions::default()).unwrap();
        second.inputs.insert("model".into(), state.clone());
        let applied = apply(&second, &out("b.csv")).unwrap();
        assert_eq!(applied.files.len(), 2);
        let read = |name: &str| std::fs::read_to_string(out(name)).unwrap();
        let (w, a, b) = (read("w.csv"), read("a.csv"), read("b.csv"));
        let b = b.split_once('\n').unwrap().1;
        assert_eq!(w, format!("{a}{b}"));
        assert_eq!(read("w.state.json"), read("b.state.json"));
        let mut lines = w.lines();
        assert_eq!(lines.next(), Some("name,prediction,confidence,ask,spent"));
        let cells: Vec<&str> = lines.next().unwrap().split(',').collect();
        assert_eq!((cells[0], cells[3], cells[4]), ("r0", "1", "1"));
        assert!(["up", "down"].contains(&cells[1]));

        // The state of another method, or of other columns, is refused.
        let mut other = job(&rest, "random", roles(), json!({}), 5).unwrap();
        other.inputs.insert("model".into(), state.clone());
        let e = apply(&other, &out("c.csv")).unwrap_err().to_string();
        assert!(e.contains("is a state of split-uncertainty"), "{e}");
        let narrow = Roles {
            features: vec!["a".into()],
            ..roles()
        };
        let mut other = job(&rest, "split-uncertainty", narrow, json!({}), 5).unwrap();
        other.inputs.insert("model".into(), state);
        let e = apply(&other, &out("c.csv")).unwrap_err().to_string();
        assert!(e.contains("columns a, b"), "{e}");
        assert!(!out("c.csv").exists());
    }

    #[test]
    fn a_user_can_start_without_a_single_label() {
        let folder = Folder::new("empty");
        let data = folder.write("rows.csv", &file(&lines(30, |_| false)));
        let out = folder.0.join("out.csv");
        let e = apply(&job(&data, "random", roles(), json!({}), 0).unwrap(), &out).unwrap_err();
        assert!(e.to_string().contains("name all of them"), "{e}");
        let named = json!({"classes": ["up", "down"]});
        let applied = apply(&job(&data, "random", roles(), named, 0).unwrap(), &out).unwrap();
        // The warm-up of four rows at least is asked for, and the note says that the labels are missing.
        assert!(applied.notes.iter().any(|n| n.contains("fill them in")));
        let text = std::fs::read_to_string(&out).unwrap();
        assert!(text.lines().skip(1).take(4).all(|l| l.contains(",1,")));
        // A label that is none of the classes named.
        let wrong = json!({"classes": ["up", "left"]});
        let labelled = folder.write("labelled.csv", &file(&lines(30, |_| true)));
        let e = apply(&job(&labelled, "random", roles(), wrong, 0).unwrap(), &out).unwrap_err();
        assert!(e.to_string().contains("none of the 2 classes"), "{e}");
    }

    #[test]
    fn options_that_cannot_be_are_refused() {
        for bad in [
            json!({"budget": 0}),
            json!({"budget": 1.5}),
            json!({"budget-window": 0}),
            json!({"passes": 0}),
            json!({"forgetting": 0}),
            json!({"learning-rate": 0}),
            json!({"swapped-labels": [1]}),
            json!({"model": "forest"}),
            json!({"model": "least-squares"}),
        ] {
            let e = measure("iris", "variable-uncertainty", bad.clone(), 0);
            assert!(e.is_err(), "{bad}");
        }
        let folder = Folder::new("trial");
        let data = folder.write("rows.csv", &file(&lines(30, |_| true)));
        let job = job(&data, "random", roles(), json!({"passes": 2}), 0).unwrap();
        let e = apply(&job, &folder.0.join("o.csv")).unwrap_err();
        assert!(e.to_string().contains("is for trials"), "{e}");
    }
}
