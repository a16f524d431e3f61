//! Task `data-selection`: choose a part of a labelled pool to train on, once or anew for every round.
//!
//! Here are the list of methods, the metrics and the options of the task. `pool.rs` holds the trait of a method and what
//! it works with, `networks.rs` the models and how they are trained, `race.rs` the training by the clock, `prepare.rs` the
//! rows of a trial, `apply.rs` what is written; each method, or closely tied group, has a file of its own.

mod apply;
mod baselines;
mod contrast;
mod deepfool;
mod error_norms;
mod facility;
mod forgetting;
mod glister;
mod grad_match;
mod gradients;
mod graph_cut;
mod herding;
mod importance;
mod k_center;
mod networks;
mod pool;
mod prepare;
mod prototypes;
mod race;
mod resnet;
mod rows;
mod rs2;
mod uncertainty;

pub use baselines::{FullData, Stratified, Uniform};
pub use contrast::Cal;
pub use deepfool::DeepFool;
pub use error_norms::{El2n, GraNd};
pub use facility::{Craig, FacilityLocation, Greedy, Metric, Points, locate};
pub use forgetting::Forgetting;
pub use glister::Glister;
pub use grad_match::GradMatch;
pub use gradients::Gradients;
pub use graph_cut::GraphCut;
pub use herding::{Herding, herd};
pub use importance::{Importance, ImportanceSampling};
pub use k_center::{ContextualDiversity, KCenter, centers};
pub use networks::{ModelKind, Net, Networks, Recipe};
pub use pool::{
    Choice, Draw, Follow, Keep, Look, Needs, Pool, Selector, Space, Subset, Trainer, View,
};
pub use prototypes::Prototypes;
pub use race::{Moment, Race, race, schedule};
pub use resnet::ResNet18;
pub use rs2::Rs2;
pub use uncertainty::{Entropy, LeastConfidence, Margin};

use networks::flat;
use papertrial_core::options::{self};
use papertrial_core::task::{Applied, Context, Curve, Entry, Job, Measurement, MetricInfo, Task};
use papertrial_core::{Error, Result, methods};
use prepare::{Rows, Trial, trial};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The methods. A new one is a file of its own, a `mod` line above, and a line here.
const METHODS: &[Entry<dyn Selector>] = methods![dyn Selector;
    Rs2,
    Uniform,
    Stratified,
    FullData,
    LeastConfidence,
    Margin,
    Entropy,
    El2n,
    GraNd,
    Forgetting,
    Herding,
    KCenter,
    ContextualDiversity,
    Craig,
    GradMatch,
    Glister,
    FacilityLocation,
    GraphCut,
    Prototypes,
    Cal,
    DeepFool,
    ImportanceSampling,
];

const METRICS: &[MetricInfo] = &[
    MetricInfo::new(
        "accuracy",
        Some(true),
        "share of the test rows that are predicted right after the last round, 0 to 1",
    ),
    MetricInfo::new(
        "seconds-to-target",
        Some(false),
        "seconds of choosing and training until the accuracy of option target-accuracy is reached; if never, all seconds plus those that training on all rows for all rounds would then take",
    )
    .timed(),
    MetricInfo::new(
        "samples-to-target",
        Some(false),
        "rows trained on, each as often as it was, until that accuracy is reached; if never, all of them plus all rows for all rounds",
    ),
    MetricInfo::new(
        "reached-target",
        Some(true),
        "1 if that accuracy was reached after any round, else 0",
    ),
    MetricInfo::new(
        "accuracy-lost-to-noise",
        Some(false),
        "accuracy with the labels as they are less the accuracy with wrong ones (option label-noise)",
    ),
    MetricInfo::new(
        "wrong-labels-share",
        None,
        "share of wrong labels among the rows trained on (option label-noise)",
    ),
    MetricInfo::new(
        "selection-seconds",
        Some(false),
        "seconds of choosing, scoring models included",
    )
    .timed(),
    MetricInfo::new("training-seconds", Some(false), "seconds of training alone").timed(),
    MetricInfo::new("total-seconds", Some(false), "seconds of choosing and training").timed(),
    MetricInfo::new("samples", None, "rows trained on, each as often as it was"),
    MetricInfo::new("different-rows", None, "share of the pool that was trained on"),
];

/// Options of the task: the budget, the model and its training, and the trial.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskOptions {
    /// Rows of a round: up to 1 a share of the pool, above 1 a number of rows.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub budget: f64,
    /// Rounds, each one pass over its rows; the learning rate falls over all of them.
    #[schemars(range(min = 1))]
    pub rounds: usize,
    /// The model that is trained, and that scores rows where a method needs one.
    pub model: ModelKind,
    /// Numbers of the hidden layer of mlp.
    #[schemars(range(min = 1))]
    pub hidden: usize,
    /// Colours of the pictures of cnn and resnet18, whose columns come colour by colour, line by line.
    #[schemars(range(min = 1))]
    pub channels: usize,
    /// Mirror pictures and move them by up to 4 points, at random in every step.
    pub augment: bool,
    /// Rows of a step.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Learning rate at the start.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Epochs of a scoring model, on all rows; its time counts as choosing.
    #[schemars(range(min = 1))]
    pub selection_epochs: usize,
    /// Scale every column to mean 0 and variance 1 first.
    pub standardise: bool,
    /// Trials only: share of the rows on which the accuracy is measured and that no method sees.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub test_share: f64,
    /// Trials only: share of the pool's labels that are made wrong.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub label_noise: f64,
    /// Trials only: the accuracy whose time is measured.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub target_accuracy: f64,
    /// Trials only: times that everything is run, for the median of the seconds.
    #[schemars(range(min = 1, max = 99))]
    pub timing_runs: usize,
}

impl Default for TaskOptions {
    fn default() -> Self {
        TaskOptions {
            budget: 0.1,
            rounds: 200,
            model: ModelKind::Mlp,
            hidden: 64,
            channels: 1,
            augment: false,
            batch: 128,
            learning_rate: 0.1,
            selection_epochs: 10,
            standardise: true,
            test_share: 0.28,
            label_noise: 0.0,
            target_accuracy: 0.95,
            timing_runs: 1,
        }
    }
}

impl TaskOptions {
    /// What models are, and how they are trained.
    pub fn recipe(&self) -> Recipe {
        Recipe {
            model: self.model,
            hidden: self.hidden,
            channels: self.channels,
            augment: self.augment,
            batch: self.batch,
            learning_rate: self.learning_rate,
        }
    }
}

/// Rows of a round, of a pool of `n`.
fn chosen(asked: &TaskOptions, n: usize) -> Result<usize> {
    options::budget(asked.budget, n)
}

/// The task.
pub struct DataSelection;

impl Task for DataSelection {
    papertrial_core::states! {
        "data-selection",
        "choose a part of a labelled pool to train on, once or anew for every round",
        METHODS,
        METRICS,
        TaskOptions,
    }

    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let (selector, asked) = prepared(job)?;
        let rows = Rows::of(job, context)?;
        let trial = trial(rows, &asked, job.seed)?;
        let mut races = Vec::with_capacity(asked.timing_runs);
        for _ in 0..asked.timing_runs {
            races.push(run(&*selector, &asked, &trial, &trial.labels, context)?);
        }
        let mut measurement = score(&races, &asked, &trial)?;
        if asked.label_noise > 0.0 {
            let clean = run(&*selector, &asked, &trial, &trial.clean, context)?;
            let metrics = &mut measurement.metrics;
            metrics.insert(
                "accuracy-lost-to-noise".into(),
                last(&clean)?.accuracy - last(&races[0])?.accuracy,
            );
        }
        Ok(measurement)
    }

    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied> {
        let (selector, asked) = prepared(job)?;
        apply::write(&*selector, &asked, job, out, context)
    }
}

/// The method of a job and what is asked of the task.
fn prepared(job: &Job) -> Result<(Box<dyn Selector>, TaskOptions)> {
    Entry::prepare(METHODS, job)
}

/// One race on the trial's pool with these labels.
fn run(
    selector: &dyn Selector,
    asked: &TaskOptions,
    trial: &Trial,
    labels: &[usize],
    context: &Context,
) -> Result<Race> {
    let (x, test_x) = (flat(trial.x.view()), flat(trial.test_x.view()));
    let width = trial.x.ncols();
    let networks = Networks::new(asked.recipe(), &x, width, labels, trial.classes, context)?;
    race::warm_up(&networks, labels.len(), context)?;
    let pool = Pool {
        x: trial.x.view(),
        labels,
        classes: trial.classes,
        choose: chosen(asked, labels.len())?,
        rounds: asked.rounds,
        scoring_epochs: asked.selection_epochs,
        learning_rate: asked.learning_rate,
        trainer: &networks,
        context,
    };
    race(selector, &pool, &networks, |model| {
        networks.accuracy(model, &test_x, &trial.test_labels)
    })
}

/// Metrics and curves of the first race, its times the medians of all; all give the same but for the time.
fn score(races: &[Race], asked: &TaskOptions, trial: &Trial) -> Result<Measurement> {
    let first = &races[0];
    let end = last(first)?;
    let everything = (trial.labels.len() * asked.rounds) as f64;
    let reached = first
        .moments
        .iter()
        .position(|m| m.accuracy >= asked.target_accuracy);
    let median = |of: &dyn Fn(&Race) -> f64| {
        let mut values: Vec<f64> = races.iter().map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        let half = values.len() / 2;
        match values.len() % 2 {
            1 => values[half],
            _ => (values[half - 1] + values[half]) / 2.0,
        }
    };
    let to_target = |race: &Race| match reached {
        Some(at) => race.moments[at].seconds,
        None => {
            let a_row = race.training_seconds / end.samples as f64;
            race.selection_seconds + race.training_seconds + everything * a_row
        }
    };
    let mut measurement = Measurement::default();
    let metrics = &mut measurement.metrics;
    metrics.insert("accuracy".into(), end.accuracy);
    metrics.insert("seconds-to-target".into(), median(&to_target));
    metrics.insert(
        "samples-to-target".into(),
        match reached {
            Some(at) => first.moments[at].samples as f64,
            None => end.samples as f64 + everything,
        },
    );
    metrics.insert(
        "reached-target".into(),
        f64::from(u8::from(reached.is_some())),
    );
    metrics.insert("selection-seconds".into(), median(&|r| r.selection_seconds));
    metrics.insert("training-seconds".into(), median(&|r| r.training_seconds));
    metrics.insert(
        "total-seconds".into(),
        median(&|r| r.selection_seconds + r.training_seconds),
    );
    metrics.insert("samples".into(), end.samples as f64);
    let different = first.uses.iter().filter(|u| **u > 0).count();
    metrics.insert(
        "different-rows".into(),
        different as f64 / first.uses.len() as f64,
    );
    if asked.label_noise > 0.0 {
        let pairs = trial.labels.iter().zip(&trial.clean);
        let wrong = pairs.zip(&first.uses).filter(|((a, b), _)| a != b);
        let wrong: usize = wrong.map(|(_, uses)| uses).sum();
        metrics.insert(
            "wrong-labels-share".into(),
            wrong as f64 / end.samples as f64,
        );
    }
    measurement.curves = curves(first);
    Ok(measurement)
}

fn last(race: &Race) -> Result<Moment> {
    race.moments
        .last()
        .copied()
        .ok_or_else(|| Error::Failed("there was no round".into()))
}

fn curves(race: &Race) -> Vec<Curve> {
    let against = |x: &str, at: fn(&Moment) -> f64| Curve {
        name: format!("accuracy against {x}"),
        x: x.into(),
        y: "accuracy".into(),
        points: race.moments.iter().map(|m| (at(m), m.accuracy)).collect(),
    };
    vec![
        against("seconds", |m| m.seconds),
        against("samples", |m| m.samples as f64),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_core::data::{ReadOptions, Roles, Table};
    use papertrial_core::options::Settings;
    use papertrial_core::plan;
    use papertrial_core::task::Family;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    static ALONE: Family = Family {
        name: "alone",
        tasks: &[&DataSelection],
        simulations: &[],
        version: "test",
    };

    fn settings(value: Value) -> Settings {
        value.as_object().cloned().unwrap_or_default()
    }

    fn job(data: &str, method: &str, roles: Roles, options: Value, seed: u64) -> Result<Job> {
        let read = ReadOptions::default();
        let source = plan::source(data, &Settings::new(), roles, &read, &ALONE)?;
        let method = plan::method(&DataSelection, method)?;
        let none = Settings::new();
        plan::job(
            &DataSelection,
            &method,
            &settings(options),
            &none,
            &source,
            seed,
        )
    }

    fn measure(data: &str, method: &str, options: Value, seed: u64) -> Result<Measurement> {
        let job = job(data, method, Roles::default(), options, seed)?;
        DataSelection.measure(&job, &Context::with_seed(seed))
    }

    fn timed(name: &str) -> bool {
        METRICS.iter().any(|m| m.name == name && m.timing)
    }

    #[test]
    fn every_method_races_on_irises_and_the_seed_decides_all_but_the_time() {
        let options = json!({
            "budget": 0.2, "rounds": 3, "batch": 8, "selection-epochs": 2, "models": 2, "hidden": 6,
        });
        for entry in METHODS {
            let name = entry.facts.name;
            let run = || measure("iris", name, options.clone(), 3).unwrap();
            let (first, again) = (run(), run());
            let untimed = |m: &Measurement| -> BTreeMap<String, f64> {
                let kept = m.metrics.iter().filter(|(n, _)| !timed(n));
                kept.map(|(n, v)| (n.clone(), *v)).collect()
            };
            assert_eq!(untimed(&first), untimed(&again), "{name}");
            assert!(first.metrics.values().all(|v| v.is_finite()), "{name}");
            // 150 rows less 42 for the test; a fifth of 108 is 21.
            let samples = first.metrics["samples"];
            match name {
                "full-data" => assert_eq!(samples, 324.0),
                "grad-match" => assert!(samples <= 63.0),
                _ => assert_eq!(samples, 63.0, "{name}"),
            }
            assert_eq!(first.curves.len(), 2);
            // All rows have 14 steps a round, and are looked at after every second.
            let looks = if name == "full-data" { 21 } else { 3 };
            assert_eq!(first.curves[0].points.len(), looks, "{name}");
        }
    }

    #[test]
    fn noise_is_measured_against_clean_labels() {
        let options = |noise| json!({"budget": 0.5, "rounds": 6, "batch": 8, "label-noise": noise, "timing-runs": 2});
        let clean = measure("iris", "uniform", options(0.0), 1).unwrap();
        let noisy = measure("iris", "uniform", options(0.4), 1).unwrap();
        assert!(!clean.metrics.contains_key("accuracy-lost-to-noise"));
        let lost = clean.metrics["accuracy"] - noisy.metrics["accuracy"];
        assert_eq!(noisy.metrics["accuracy-lost-to-noise"], lost);
        let share = noisy.metrics["wrong-labels-share"];
        assert!((share - 0.4).abs() < 0.2, "{share}");
    }

    #[test]
    fn a_target_that_is_never_reached_costs_a_full_training_more() {
        let options =
            |target| json!({"budget": 0.1, "rounds": 2, "batch": 8, "target-accuracy": target});
        let never = measure("iris", "rs2", options(1.0), 0).unwrap().metrics;
        assert_eq!(never["reached-target"], 0.0);
        assert_eq!(never["samples-to-target"], 20.0 + 216.0);
        let ratio = never["seconds-to-target"] / never["total-seconds"];
        assert!(ratio > 5.0 && ratio < 12.0, "{ratio}");
        let soon = measure("iris", "rs2", options(0.0), 0).unwrap().metrics;
        assert_eq!(
            (soon["reached-target"], soon["samples-to-target"]),
            (1.0, 10.0)
        );
        assert!(soon["seconds-to-target"] < soon["total-seconds"]);
    }

    #[test]
    fn times_are_medians() {
        let race = |seconds: f64| Race {
            moments: vec![Moment {
                samples: 5,
                steps: 1,
                seconds,
                accuracy: 0.96,
            }],
            selection_seconds: 0.0,
            training_seconds: seconds,
            uses: vec![5, 0],
        };
        let trial = Trial {
            x: ndarray::Array2::zeros((2, 1)),
            labels: vec![0, 1],
            clean: vec![0, 1],
            test_x: ndarray::Array2::zeros((1, 1)),
            test_labels: vec![0],
            classes: 2,
        };
        let races = [race(9.0), race(1.0), race(2.0)];
        let of = |n: usize| {
            score(&races[..n], &TaskOptions::default(), &trial)
                .unwrap()
                .metrics
        };
        assert_eq!(of(3)["seconds-to-target"], 2.0);
        assert_eq!(of(2)["training-seconds"], 5.0);
        assert_eq!(of(1)["different-rows"], 0.5);
    }

    /// A table of three classes, 30 rows, with an embedding in two columns.
    fn table(folder: &Path) -> String {
        let mut text = String::from("key,a,b,class\n");
        for i in 0..30 {
            let (a, b) = (
                (i * 7 % 11) as f64 / 3.0,
                (i * 5 % 13) as f64 / 4.0 + (i % 3) as f64,
            );
            text += &format!("k{i},{a},{b},c{}\n", i % 3);
        }
        let path = folder.join("rows.csv");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn roles() -> Roles {
        Roles {
            label: Some("class".into()),
            id: Some("key".into()),
            ..Roles::default()
        }
    }

    fn apply(
        data: &str,
        method: &str,
        roles: Roles,
        options: Value,
        out: &Path,
    ) -> Result<Applied> {
        let job = job(data, method, roles, options, 2)?;
        DataSelection.apply(&job, out, &Context::with_seed(2))
    }

    #[test]
    fn a_subset_is_rows_of_the_table_with_weights() {
        let folder = tempfile::tempdir().unwrap();
        let data = table(folder.path());
        let out = folder.path().join("out.csv");
        let asked = json!({"budget": 6, "batch": 8, "selection-epochs": 2});
        let applied = apply(&data, "craig", roles(), asked, &out).unwrap();
        assert_eq!(applied.files, std::slice::from_ref(&out));
        let text = std::fs::read_to_string(&out).unwrap();
        let source = std::fs::read_to_string(&data).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines.len()), ("key,a,b,class,weight", 7));
        let mut sum = 0.0;
        let mut classes = BTreeMap::new();
        for line in &lines[1..] {
            let (row, weight) = line.rsplit_once(',').unwrap();
            sum += weight.parse::<f64>().unwrap();
            let cells: Vec<&str> = row.split(',').collect();
            *classes.entry(cells[3].to_owned()).or_insert(0) += 1;
            assert!(
                source
                    .lines()
                    .any(|l| l.starts_with(&format!("{},", cells[0])))
            );
        }
        assert!((sum - 6.0).abs() < 1e-5, "{sum}");
        assert!(classes.values().all(|n| *n == 2));
    }

    #[test]
    fn a_schedule_has_a_line_for_each_row_of_each_round() {
        let folder = tempfile::tempdir().unwrap();
        let data = table(folder.path());
        let out = folder.path().join("out.parquet");
        let asked = json!({"budget": 0.2, "rounds": 5});
        apply(&data, "rs2", roles(), asked, &out).unwrap();
        let written = Table::open(&out, &ReadOptions::default()).unwrap();
        assert_eq!(
            (written.columns(), written.rows()),
            (vec!["round", "row", "key"], 30)
        );
        // Five rounds of six are all rows once.
        let csv = folder.path().join("out.csv");
        apply(
            &data,
            "rs2",
            roles(),
            json!({"budget": 0.2, "rounds": 5}),
            &csv,
        )
        .unwrap();
        let text = std::fs::read_to_string(&csv).unwrap();
        let mut rows = Vec::new();
        for (at, line) in text.lines().skip(1).enumerate() {
            let cells: Vec<&str> = line.split(',').collect();
            assert_eq!(cells[0], (at / 6).to_string());
            assert_eq!(cells[2], format!("k{}", cells[1]));
            rows.push(cells[1].parse::<usize>().unwrap());
        }
        rows.sort_unstable();
        assert_eq!(rows, (0..30).collect::<Vec<_>>());
    }

    #[test]
    fn a_schedule_by_a_model_has_weights_and_needs_labels() {
        let folder = tempfile::tempdir().unwrap();
        let data = table(folder.path());
        let out = folder.path().join("out.csv");
        let asked = json!({"budget": 5, "rounds": 3, "batch": 8});
        apply(&data, "importance-sampling", roles(), asked.clone(), &out).unwrap();
        let text = std::fs::read_to_string(&out).unwrap();
        assert_eq!(text.lines().next(), Some("round,row,key,weight"));
        assert_eq!(text.lines().count(), 16);
        let unlabelled = || Roles {
            label: None,
            features: vec!["a".into(), "b".into()],
            ..roles()
        };
        let e = apply(&data, "margin", unlabelled(), asked.clone(), &out).unwrap_err();
        assert!(e.to_string().contains("--label"), "{e}");
        let e = apply(&data, "stratified", unlabelled(), asked.clone(), &out).unwrap_err();
        assert!(e.to_string().contains("--label"), "{e}");
        apply(&data, "rs2", unlabelled(), asked, &out).unwrap();
    }

    #[test]
    fn precomputed_embeddings_are_columns() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("rows.jsonl");
        let mut text = String::new();
        for i in 0..24 {
            let class = i % 2;
            text += &format!(
                "{{\"v\": [{class}.5, {}.25, 1.0], \"class\": \"c{class}\"}}\n",
                i % 5
            );
        }
        std::fs::write(&data, text).unwrap();
        let out = folder.path().join("out.parquet");
        let labelled = Roles {
            label: Some("class".into()),
            ..Roles::default()
        };
        let asked = json!({"budget": 4, "space": "columns"});
        for method in [
            "k-center",
            "herding",
            "facility-location",
            "graph-cut",
            "prototypes",
        ] {
            let data = data.display().to_string();
            apply(&data, method, labelled.clone(), asked.clone(), &out).unwrap();
            assert_eq!(
                Table::open(&out, &ReadOptions::default()).unwrap().rows(),
                4
            );
        }
    }

    #[test]
    fn what_cannot_be_is_refused_and_nothing_is_written() {
        for (bad, told) in [
            (json!({"budget": 0.001}), "less than one row"),
            (json!({"budget": 1.5}), "budget"),
            (json!({"budget": -1}), "budget"),
            (json!({"budget": 1000}), "more than the pool"),
            (json!({"test-share": 0}), "test-share"),
            (json!({"model": "cnn"}), "square pictures"),
            (json!({"rounds": 0}), "rounds"),
            (
                json!({"learning-rate": 1e6, "rounds": 20, "budget": 1}),
                "diverged",
            ),
        ] {
            let e = measure("iris", "rs2", bad.clone(), 0).unwrap_err();
            assert!(e.to_string().contains(told), "{bad}: {e}");
        }
        let folder = tempfile::tempdir().unwrap();
        let data = table(folder.path());
        let out = folder.path().join("out.csv");
        let e = apply(&data, "rs2", roles(), json!({"label-noise": 0.1}), &out).unwrap_err();
        assert!(e.to_string().contains("for trials"), "{e}");
        let one = folder.path().join("one.csv");
        std::fs::write(&one, "a,class\n1,x\n2,x\n").unwrap();
        let labelled = Roles {
            label: Some("class".into()),
            ..Roles::default()
        };
        let one = one.display().to_string();
        let e = apply(&one, "margin", labelled.clone(), json!({"budget": 1}), &out).unwrap_err();
        assert!(e.to_string().contains("only 'x'"), "{e}");
        let taken = folder.path().join("taken.csv");
        std::fs::write(&taken, "weight,class\n1,x\n2,y\n").unwrap();
        let taken = taken.display().to_string();
        let e = apply(&taken, "uniform", labelled, json!({"budget": 1}), &out).unwrap_err();
        assert!(e.to_string().contains("another name"), "{e}");
        assert!(!out.exists());
    }
}
