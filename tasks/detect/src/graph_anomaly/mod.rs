//! Task `graph-anomaly`: tell the few anomalous graphs of a collection from the many normal ones.
//!
//! Graphs are small (molecules, parts of a network of transactions) and labelled; a method learns from some of them and
//! scores others. All networks have the same budget, loss and head; every method may use the validation graphs to choose
//! among what it has trained, and none sees the test graphs.
//!
//! Here are the list of methods, the metrics and the options of the task.

mod apply;
mod graphs;
mod input;
mod kernel;
mod logistic;
mod loss;
mod networks;
mod ops;
mod rqgnn;
mod score;
pub(crate) mod simulations;
mod spectral;
mod statistics;

pub use graphs::{Builder, Graph, GraphSet, Repairs};
pub use kernel::{WlLogistic, WlOneClass};
pub use loss::LossKind;
pub use networks::{ChebNet, Gcn, Gin, Lessons, Readout};
pub use rqgnn::{Filters, Pooling, Rqgnn};
pub use spectral::{
    ClassSpectrum, Spread, all_energies, class_spectra, curve, energies, laplacian, quotients,
};
pub use statistics::{RayleighQuotient, StatisticsBoosting};

use input::Classes;
use papertrial_core::data::write_whole;
use papertrial_core::methods;
use papertrial_core::task::{Applied, Context, Curve, Entry, Job, Measurement, MetricInfo, Task};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::{permutation, rng};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// A method of this task.
pub trait Detector: Send + Sync {
    /// Learns from the training graphs, and chooses by the validation graphs.
    ///
    /// # Errors
    /// Graphs or options that the method cannot use, or a failure of training.
    fn fit(
        &self,
        graphs: &GraphSet,
        split: &Split,
        lessons: &Lessons,
        context: &Context,
    ) -> Result<Fitted>;

    /// The scorer that was saved in `folder`, for graphs of `width` features a node.
    ///
    /// # Errors
    /// The folder cannot be read, or holds another model.
    fn load(&self, folder: &Path, width: usize, context: &Context) -> Result<Box<dyn Scorer>>;
}

/// Gives scores to graphs.
pub trait Scorer: Send {
    /// How likely each graph is anomalous, 0 to 1.
    ///
    /// # Errors
    /// The device fails.
    fn score(&self, graphs: &GraphSet, context: &Context) -> Result<Vec<f64>>;

    /// Writes what [`Detector::load`] reads into `folder`.
    ///
    /// # Errors
    /// The folder cannot be written to.
    fn save(&self, folder: &Path) -> Result<()>;

    /// Number of weights, if the method has weights.
    fn parameters(&self) -> Option<usize> {
        None
    }
}

/// What a method has learned.
pub struct Fitted {
    /// The model that ranks best on validation graphs.
    pub ranker: Box<dyn Scorer>,
    /// The one with the best macro-F1 there, if it is another.
    pub decider: Option<Box<dyn Scorer>>,
    /// Epochs of training, if there were any.
    pub epochs: Option<Epochs>,
    /// Loss and validation scores.
    pub curves: Vec<Curve>,
    /// Remarks.
    pub notes: Vec<String>,
}

/// How long training took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epochs {
    /// Epochs.
    pub count: usize,
    /// Seconds in all, without looking at validation graphs.
    pub seconds: f64,
}

impl Fitted {
    /// One model for both purposes.
    fn of(model: impl Scorer + 'static, notes: Vec<String>) -> Self {
        Fitted {
            ranker: Box::new(model),
            decider: None,
            epochs: None,
            curves: Vec::new(),
            notes,
        }
    }
}

/// Which graphs are for what, each list ascending.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Split {
    /// To learn from.
    pub train: Vec<usize>,
    /// To choose by.
    pub validation: Vec<usize>,
    /// To be scored on.
    pub test: Vec<usize>,
}

/// Fewest graphs of either class in a part.
const FEWEST: usize = 5;

/// Share of the graphs to choose by, and, in a trial, to be scored on.
const PART: f64 = 0.15;

impl Split {
    /// Drawn from the seed with the classes' shares kept: 15 % to choose by, `test` of the graphs to be scored on.
    ///
    /// # Errors
    /// Graphs without labels; fewer than 5 graphs of a class in a part.
    pub fn drawn(graphs: &GraphSet, test: f64, seed: u64) -> Result<Split> {
        let labels = graphs.labels.as_ref().ok_or_else(|| {
            Error::BadInput(
                "the graphs have no labels; name their column with --label, or give NAME_graph_labels.txt".into(),
            )
        })?;
        let mut split = Split::default();
        for class in [false, true] {
            let members: Vec<usize> = (0..labels.len()).filter(|g| labels[*g] == class).collect();
            let n = members.len();
            let purpose = format!("graph-anomaly split of {class}");
            let order = permutation(&mut rng(seed, &purpose), n);
            let count = |share: f64| (share * n as f64).round() as usize;
            let (tested, chosen) = (count(test), count(PART));
            let smallest = if test > 0.0 {
                tested.min(chosen)
            } else {
                chosen
            };
            let smallest = smallest.min(n.saturating_sub(tested + chosen));
            if smallest < FEWEST {
                return Err(Error::BadInput(format!(
                    "there are {n} {} graphs, of which a part for validation or test would get {smallest}; at least {FEWEST} are needed there, hence about {} in all",
                    if class { "anomalous" } else { "normal" },
                    (FEWEST as f64 / PART).ceil()
                )));
            }
            for (place, i) in order.into_iter().enumerate() {
                let part = match place {
                    p if p < tested => &mut split.test,
                    p if p < tested + chosen => &mut split.validation,
                    _ => &mut split.train,
                };
                part.push(members[i]);
            }
        }
        for part in [&mut split.train, &mut split.validation, &mut split.test] {
            part.sort_unstable();
        }
        Ok(split)
    }

    /// Whether each of `which` is anomalous.
    ///
    /// # Errors
    /// Graphs without labels.
    pub fn truth(&self, graphs: &GraphSet, which: &[usize]) -> Result<Vec<bool>> {
        match &graphs.labels {
            Some(labels) => Ok(which.iter().map(|g| labels[*g]).collect()),
            None => Err(Error::BadInput("the graphs have no labels".into())),
        }
    }
}

/// File of a model that is no network.
const STATE: &str = "state.json";

fn write_state(folder: &Path, state: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(state).map_err(|e| Error::Failed(e.to_string()))?;
    write_whole(&folder.join(STATE), &text)
}

fn read_state<T: serde::de::DeserializeOwned>(folder: &Path) -> Result<T> {
    let path = folder.join(STATE);
    let text = std::fs::read(&path).map_err(|e| Error::file(&path, e.kind()))?;
    serde_json::from_slice(&text)
        .map_err(|e| Error::file(&path, format!("is not the state of this method: {e}")))
}

/// The methods. A new one is a file of its own, a `mod` line above, and a name here.
const METHODS: &[Entry<dyn Detector>] = methods![
    dyn Detector;
    Rqgnn,
    RayleighQuotient,
    Gcn,
    Gin,
    ChebNet,
    WlLogistic,
    WlOneClass,
    StatisticsBoosting,
];

const METRICS: &[MetricInfo] = &[
    MetricInfo::new(
        "auc",
        Some(true),
        "probability that an anomalous test graph scores above a normal one, of the model with the best validation AUC, 0 to 1",
    ),
    MetricInfo::new(
        "macro-f1",
        Some(true),
        "mean F1 of both classes on test graphs at threshold 0.5, of the model with the best validation macro-F1, 0 to 1",
    ),
    MetricInfo::new(
        "best-threshold-f1",
        Some(true),
        "macro-F1 of the model with the best validation AUC at the threshold that is best on validation graphs, 0 to 1",
    ),
    MetricInfo::new(
        "average-precision",
        Some(true),
        "mean precision over the ranks of anomalous test graphs, of the model with the best validation AUC, 0 to 1",
    ),
    MetricInfo::new(
        "auc-of-f1-model",
        Some(true),
        "AUC of the model with the best validation macro-F1, 0 to 1",
    ),
    MetricInfo::new(
        "macro-f1-of-auc-model",
        Some(true),
        "macro-F1 at threshold 0.5 of the model with the best validation AUC, 0 to 1",
    ),
    MetricInfo::new("parameters", None, "number of weights"),
    MetricInfo::new("train-seconds", Some(false), "wall seconds of learning").timed(),
    MetricInfo::new(
        "epoch-seconds",
        Some(false),
        "wall seconds of an epoch of training, without validation",
    )
    .timed(),
    MetricInfo::new(
        "graphs-per-second",
        Some(true),
        "test graphs scored in a second",
    )
    .timed(),
];

/// Options of the task: which graphs, and the budget and the loss that all networks share.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskOptions {
    /// Graphs to take, drawn at random with the classes' shares kept; all if absent.
    #[schemars(range(min = 1))]
    pub graphs: Option<usize>,
    /// Label of the anomalous graphs; if absent, the rarer of two.
    pub anomaly: Option<String>,
    /// Edges have weights, which count in degrees and products.
    pub weighted: bool,
    /// Networks: passes over the training graphs.
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// Networks: graphs of a step.
    #[schemars(range(min = 2))]
    pub batch: usize,
    /// Networks: Adam's learning rate.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Networks: epochs without as good a validation macro-F1 after which training ends.
    pub patience: usize,
    /// Networks: the loss.
    pub loss: LossKind,
    /// Networks: beta of the class weights, 0 for equal ones.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub beta: f64,
    /// Networks: gamma of the focus, 0 for none.
    #[schemars(range(min = 0.0))]
    pub gamma: f64,
    /// Output only: features that are told for each graph, those whose quotients are farthest from what is usual.
    #[schemars(range(min = 0, max = 20))]
    pub top: usize,
    /// Output only: compare the energy of each graph over the spectrum with that of both classes; needs eigenvectors.
    pub spectrum: bool,
}

impl Default for TaskOptions {
    fn default() -> Self {
        let lessons = Lessons::default();
        TaskOptions {
            graphs: None,
            anomaly: None,
            weighted: false,
            epochs: lessons.epochs,
            batch: lessons.batch,
            learning_rate: lessons.learning_rate,
            patience: lessons.patience,
            loss: lessons.loss,
            beta: lessons.beta,
            gamma: lessons.gamma,
            top: 3,
            spectrum: true,
        }
    }
}

impl TaskOptions {
    fn lessons(&self) -> Lessons {
        Lessons {
            epochs: self.epochs,
            batch: self.batch,
            learning_rate: self.learning_rate,
            patience: self.patience,
            loss: self.loss,
            beta: self.beta,
            gamma: self.gamma,
        }
    }

    fn classes(&self) -> Classes<'_> {
        self.anomaly
            .as_deref()
            .map_or(Classes::Rarer, Classes::Named)
    }
}

/// The task.
pub struct GraphAnomaly;

impl Task for GraphAnomaly {
    papertrial_core::states! {
        "graph-anomaly",
        "tell the few anomalous graphs of a collection from the many normal ones",
        METHODS,
        METRICS,
        TaskOptions,
    }

    fn inputs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            (
                "nodes",
                "table of nodes (graph_id, node_id, features), where the data are a table of graphs",
            ),
            (
                "edges",
                "table of edges (graph_id, src, dst), where the data are a table of graphs",
            ),
            (
                "score",
                "graphs to score with what is learned from the data; if absent, the data themselves",
            ),
            (
                "model",
                "folder of a model that an earlier run wrote; the data are then scored, and nothing is learned",
            ),
        ]
    }

    fn opens(&self, path: &Path) -> bool {
        input::is_tu(path)
    }

    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let (method, asked) = prepare(job)?;
        let loaded = input::load(job, "data", asked.weighted, asked.classes(), context)?;
        let graphs = match asked.graphs {
            Some(count) => input::some_of(&loaded.graphs, count, job.seed)?,
            None => loaded.graphs,
        };
        let split = Split::drawn(&graphs, PART, job.seed)?;
        let start = Instant::now();
        let fitted = method.fit(&graphs, &split, &asked.lessons(), context)?;
        let seconds = start.elapsed().as_secs_f64();

        let part = |which: &[usize]| graphs.select(which);
        let (validation, test) = (part(&split.validation), part(&split.test));
        let known = split.truth(&graphs, &split.validation)?;
        let truth = split.truth(&graphs, &split.test)?;
        let start = Instant::now();
        let scores = fitted.ranker.score(&test, context)?;
        let speed = truth.len() as f64 / start.elapsed().as_secs_f64().max(1e-9);
        let threshold = score::best_threshold(&known, &fitted.ranker.score(&validation, context)?);
        let decided = match &fitted.decider {
            Some(decider) => &decider.score(&test, context)?,
            None => &scores,
        };
        let mut metrics = BTreeMap::new();
        let mut put = |name: &str, value: f64| metrics.insert(name.to_owned(), value);
        put("auc", score::auc(&truth, &scores)?);
        put("macro-f1", score::macro_f1(&truth, decided, 0.5)?);
        put(
            "best-threshold-f1",
            score::macro_f1(&truth, &scores, threshold)?,
        );
        put(
            "average-precision",
            score::average_precision(&truth, &scores)?,
        );
        put("auc-of-f1-model", score::auc(&truth, decided)?);
        put(
            "macro-f1-of-auc-model",
            score::macro_f1(&truth, &scores, 0.5)?,
        );
        put("train-seconds", seconds);
        put("graphs-per-second", speed);
        if let Some(parameters) = fitted.ranker.parameters() {
            put("parameters", parameters as f64);
        }
        if let Some(epochs) = fitted.epochs {
            put("epoch-seconds", epochs.seconds / epochs.count.max(1) as f64);
        }
        let mut notes = loaded.notes;
        notes.push(format!(
            "{} graphs, {} nodes, {} edges, {} features; {} to learn from, {} to choose by, {} to be scored on",
            graphs.len(),
            graphs.nodes(),
            graphs.edges(),
            graphs.width(),
            split.train.len(),
            split.validation.len(),
            split.test.len()
        ));
        notes.extend(fitted.notes);
        Ok(Measurement {
            metrics,
            curves: fitted.curves,
            notes,
        })
    }

    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied> {
        let (method, asked) = prepare(job)?;
        apply::run(&*method, &asked, job, out, context)
    }
}

/// The method of a job and what is asked of the task.
fn prepare(job: &Job) -> Result<(Box<dyn Detector>, TaskOptions)> {
    Entry::prepare(METHODS, job)
}

#[cfg(test)]
mod tests;
