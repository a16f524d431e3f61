//! Task `subset-learning`: learn from sets with their right subsets to pick the right subset of a new set.
//!
//! A set is a number of elements, each with features; which of them are right may depend on the others. Here are the
//! task's trait, its list of methods, its metrics, its options and its output; each method has a file of its own.
//!
//! Data are a table with one row an element: `--group` names the set, `--id` the element, `--label` the chosen marks (1 or
//! 0). For a trial, rows with a class and no set will do as well: sets are built from them, most elements of one class,
//! a few of another, which are the right ones.

mod batch;
mod choose;
mod elementwise;
mod fitting;
mod greedy;
mod inset;
mod kept;
mod mean_field;
mod minority;
mod random;
mod recognition;
mod set_function;
mod sets;
pub(crate) mod simulations;

pub use choose::{Ranking, SizeRule, chance, cut, jaccard};
pub use elementwise::{DeepSets, ElementClassifier, SetTransformer};
pub use fitting::{Learned, Problem, Schedule};
pub use greedy::Pgm;
pub use inset::{EquiVSet, Inset, Mode};
pub use kept::About;
pub use random::RandomSubset;
pub use set_function::{Background, Pooling};
pub use sets::{GroundSet, Scale};

use arrow::array::{ArrayRef, BooleanArray, Float64Array, StringArray, UInt64Array};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::{Features, Labels, Output, Roles, Table};
use papertrial_core::task::{Applied, Context, Entry, Input, Job, Measurement, MetricInfo, Task};
use papertrial_core::{Error, Result, methods};
use papertrial_numerics::sampling;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// A method of this task.
pub trait SubsetLearner: Send + Sync {
    /// Learns from the problem's training sets; its validation sets tell when to stop.
    ///
    /// # Errors
    /// A set from which nothing can be learned, an impossible option, too little memory, or training that diverged.
    fn learn(&self, problem: &Problem, context: &Context) -> Result<Learned>;
    /// What was learned earlier with the same options from sets of `features` features, from the file at `path`.
    ///
    /// # Errors
    /// A file that does not fit, or a method that has nothing to keep.
    fn restore(&self, features: usize, path: &Path, context: &Context)
    -> Result<Box<dyn Selector>>;
}

/// What has been learned.
pub trait Selector: Send + Sync {
    /// Ranks the elements of each set.
    ///
    /// # Errors
    /// A set of fewer than two elements, with an element twice, with other features than those learned from, or with a
    /// feature that is not finite.
    fn rank(&self, sets: &[GroundSet], ask: &Ask) -> Result<Vec<Ranking>>;
    /// The model as the bytes of a file, written by way of one beside `out`; `None` if there is nothing to keep.
    ///
    /// # Errors
    /// The folder cannot be written to.
    fn keep(&self, about: &About, out: &Path) -> Result<Option<Vec<u8>>>;
}

/// What is asked of a ranking.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// How many elements of each set will be chosen at most; `None` for all.
    pub most: Option<&'a [usize]>,
    /// Whether the values of the first 1, 2, … elements are wanted.
    pub values: bool,
    /// Seed of draws.
    pub seed: u64,
}

/// The methods. A new one is a file of its own, a `mod` line above, and a line here.
const METHODS: &[Entry<dyn SubsetLearner>] = methods![dyn SubsetLearner;
    Inset,
    EquiVSet,
    DeepSets,
    SetTransformer,
    Pgm,
    ElementClassifier,
    RandomSubset,
];

const METRICS: &[MetricInfo] = &[
    MetricInfo::new(
        "jaccard",
        Some(true),
        "mean over the test sets of elements in both subsets over elements in either, 0 to 1",
    ),
    MetricInfo::new(
        "exact",
        Some(true),
        "share of test sets whose subset is right to the last element",
    ),
    MetricInfo::new(
        "size-error",
        Some(false),
        "mean difference of the chosen subset's size from the right one's; 0 where the size is known",
    ),
    MetricInfo::new(
        "chance-jaccard",
        None,
        "jaccard that subsets of the same sizes, drawn without looking, would have on average",
    ),
    MetricInfo::new("learn-seconds", Some(false), "seconds of learning").timed(),
    MetricInfo::new(
        "select-milliseconds",
        Some(false),
        "milliseconds of choosing from one set",
    )
    .timed(),
];

/// Options of the task: what is chosen, how long and how fast is learned, and how sets are built and split.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskOptions {
    /// How the size of a subset is decided; if absent, it is known in a trial, and in a run it is k, or decided by
    /// threshold where k is absent.
    pub size: Option<SizeRule>,
    /// Runs only: number of elements to choose from each set.
    #[schemars(range(min = 1))]
    pub k: Option<usize>,
    /// Passes over the training sets.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub epochs: usize,
    /// Sets of a step.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub batch: usize,
    /// Learning rate of Adam.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Pull of the weights to 0.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// Longest gradient of a network; longer ones are shortened to it.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub clip: f64,
    /// Epochs in a row without a better score on validation sets that are borne; one more ends training.
    pub patience: usize,
    /// Other elements drawn for each right one in the loss.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub negatives: usize,
    /// Scale each feature by its mean and deviation in the training sets, cut at 5 deviations.
    pub standardise: bool,
    /// Sets for training; those that are left if absent (800 where sets are built).
    #[schemars(range(min = 1, max = 1_000_000))]
    pub train_sets: Option<usize>,
    /// Sets that tell when to stop; a fifth if absent (200 where sets are built).
    #[schemars(range(max = 1_000_000))]
    pub validation_sets: Option<usize>,
    /// Trials only: sets for the test; a fifth if absent (400 where sets are built).
    #[schemars(range(min = 1, max = 1_000_000))]
    pub test_sets: Option<usize>,
    /// Where sets are built from rows with classes: elements of a set.
    #[schemars(range(min = 3, max = 100_000))]
    pub set_size: usize,
    /// Where sets are built from rows with classes: elements of the rare class, the right ones.
    #[schemars(range(min = 1, max = 100_000))]
    pub subset_size: usize,
}

impl Default for TaskOptions {
    fn default() -> Self {
        let s = Schedule::default();
        TaskOptions {
            size: None,
            k: None,
            epochs: s.epochs,
            batch: s.batch,
            learning_rate: s.learning_rate,
            weight_decay: s.weight_decay,
            clip: s.clip,
            patience: s.patience,
            negatives: s.negatives,
            standardise: true,
            train_sets: None,
            validation_sets: None,
            test_sets: None,
            set_size: 12,
            subset_size: 3,
        }
    }
}

impl TaskOptions {
    fn schedule(&self) -> Schedule {
        Schedule {
            epochs: self.epochs,
            batch: self.batch,
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            clip: self.clip,
            patience: self.patience,
            negatives: self.negatives,
        }
    }
}

/// Sets by what they are for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parts {
    /// To learn from.
    pub train: Vec<GroundSet>,
    /// To tell when to stop.
    pub validation: Vec<GroundSet>,
    /// Never seen in learning.
    pub test: Vec<GroundSet>,
}

/// The task.
pub struct SubsetLearning;

impl Task for SubsetLearning {
    papertrial_core::states! {
        "subset-learning",
        "learn from sets with their right subsets to pick the right subset of a new set",
        METHODS,
        METRICS,
        TaskOptions,
    }

    fn inputs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            (
                "query",
                "sets to choose from, with the columns of the data; its marks, if any, are not looked at",
            ),
            (
                "model",
                "a model.safetensors of an earlier run, with which to choose from the sets of the data",
            ),
        ]
    }

    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let (method, asked) = prepare(job)?;
        if asked.k.is_some() {
            return Err(Error::option(
                "k",
                "belongs to runs; a trial knows the size of each right subset (or give size=threshold)",
            ));
        }
        let table = job.table("data", context)?;
        let mut parts = match job.roles.group {
            Some(_) => split(&table, &job.roles, &asked, job.seed, context)?,
            None => built(&table, &job.roles, &asked, job.seed, context)?,
        };
        sets::check_marked(&parts.test, "test")?;
        let shared = sets::shared_elements(&parts.train, &parts.test);
        if asked.standardise {
            let scale = Scale::of(&parts.train);
            for sets in [&mut parts.train, &mut parts.validation, &mut parts.test] {
                scale.apply(sets);
            }
        }
        let Parts {
            train,
            validation,
            test,
        } = parts;
        let counts = format!(
            "{} sets to learn from, {} for validation, {} for the test",
            train.len(),
            validation.len(),
            test.len()
        );
        let problem = Problem {
            train,
            validation,
            schedule: asked.schedule(),
            seed: job.seed,
        };
        let start = Instant::now();
        let learned = method.learn(&problem, context)?;
        let learn_seconds = start.elapsed().as_secs_f64();

        let rule = asked.size.unwrap_or(SizeRule::Known);
        let sizes: Vec<usize> = test.iter().map(GroundSet::right_size).collect();
        let ask = Ask {
            most: (rule == SizeRule::Known).then_some(&sizes),
            values: rule == SizeRule::BestPrefix,
            seed: job.seed,
        };
        let start = Instant::now();
        let rankings = learned.model.rank(&test, &ask)?;
        let select_seconds = start.elapsed().as_secs_f64();

        let mut totals = [0.0; 4];
        for ((set, ranking), size) in test.iter().zip(&rankings).zip(&sizes) {
            let chosen = cut(ranking, rule, Some(*size))?;
            let index = jaccard(&chosen, &set.right());
            for (total, value) in totals.iter_mut().zip([
                index,
                f64::from(u8::from(index == 1.0)),
                chosen.len().abs_diff(*size) as f64,
                chance(set.len(), *size, chosen.len()),
            ]) {
                *total += value / test.len() as f64;
            }
        }
        let mut measurement = Measurement {
            curves: learned.curves,
            notes: learned.notes,
            ..Measurement::default()
        };
        for (name, value) in ["jaccard", "exact", "size-error", "chance-jaccard"]
            .iter()
            .zip(totals)
        {
            measurement.metrics.insert((*name).into(), value);
        }
        let mut set = |name: &str, value: f64| measurement.metrics.insert(name.into(), value);
        set("learn-seconds", learn_seconds);
        set(
            "select-milliseconds",
            1000.0 * select_seconds / test.len() as f64,
        );
        measurement.notes.push(counts);
        measurement.notes.push(match rule {
            SizeRule::Known => "the size of each right subset was given".into(),
            SizeRule::Threshold => "sizes were decided by psi of 0.5 or more".into(),
            SizeRule::BestPrefix => "sizes were decided by the value of the first so many".into(),
        });
        if shared > 0.0 {
            measurement.notes.push(format!(
                "{:.1} % of the elements of test sets also occur in training sets",
                100.0 * shared
            ));
        }
        Ok(measurement)
    }

    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied> {
        let mut output = Output::table(out)?;
        let (method, asked) = prepare(job)?;
        refuse_trial_options(&asked)?;
        let rule = match (asked.size, asked.k) {
            (Some(SizeRule::Threshold | SizeRule::BestPrefix), Some(_)) => {
                return Err(Error::option(
                    "k",
                    "is for size=known; leave out one of the two",
                ));
            }
            (Some(rule), _) => rule,
            (None, Some(_)) => SizeRule::Known,
            (None, None) => SizeRule::Threshold,
        };
        if rule == SizeRule::Known && asked.k.is_none() {
            return Err(Error::option(
                "k",
                "size=known needs the number of elements to choose",
            ));
        }
        let Made {
            model,
            open,
            kept,
            mut summary,
            notes,
        } = match job.inputs.get("model") {
            Some(input) => restored(job, input, context)?,
            None => learned(&*method, &asked, job, out, context)?,
        };
        if let Some(k) = asked.k
            && let Some(small) = open.iter().find(|s| s.len() < k)
        {
            return Err(Error::option(
                "k",
                format!(
                    "{k} elements cannot be chosen from set '{}', which has {}",
                    small.name,
                    small.len()
                ),
            ));
        }
        let ask = Ask {
            most: None,
            values: rule == SizeRule::BestPrefix,
            seed: job.seed,
        };
        let rankings = model.rank(&open, &ask)?;
        let chosen = rankings
            .iter()
            .map(|r| cut(r, rule, asked.k))
            .collect::<Result<Vec<_>>>()?;
        output.write(&[written(&open, &rankings, &chosen)?])?;
        if let Some(content) = kept {
            output.side("model.safetensors", &content)?;
        }
        let total: usize = chosen.iter().map(Vec::len).sum();
        summary.push(("sets chosen from".into(), open.len().to_string()));
        summary.push(("elements chosen".into(), total.to_string()));
        Ok(Applied {
            files: output.finish()?,
            summary,
            notes,
            ..Applied::default()
        })
    }
}

/// What a run chooses with, and from.
struct Made {
    /// What chooses.
    model: Box<dyn Selector>,
    /// Sets to choose from, scaled.
    open: Vec<GroundSet>,
    /// The model as the bytes of a file, if it is new.
    kept: Option<Vec<u8>>,
    /// Facts for the reader.
    summary: Vec<(String, String)>,
    /// Remarks for the reader.
    notes: Vec<String>,
}

/// The model of an earlier run, and all sets of the data.
fn restored(job: &Job, input: &Input, context: &Context) -> Result<Made> {
    if job.inputs.contains_key("query") {
        return Err(Error::option(
            "--query",
            "with --model the sets to choose from are those of --data; leave out one of the two",
        ));
    }
    let table = job.table("data", context)?;
    let (mut open, features) = sets::read(&table, &job.roles, context)?;
    let (path, about) = kept::read(input, &job.method, &features)?;
    // Options of the earlier run, not of this one: the weights are of their shape.
    let method = (Entry::find(METHODS, "subset-learning", &job.method)?.build)(&about.options)?;
    let model = method.restore(features.len(), &path, context)?;
    if let Some(scale) = &about.scale {
        scale.apply(&mut open);
    }
    Ok(Made {
        model,
        open,
        kept: None,
        summary: vec![("model".into(), path.display().to_string())],
        notes: vec!["all options of learning are those of the model".into()],
    })
}

/// A model learned from the sets with marks, and the other sets.
fn learned(
    method: &dyn SubsetLearner,
    asked: &TaskOptions,
    job: &Job,
    out: &Path,
    context: &Context,
) -> Result<Made> {
    let Reading {
        mut known,
        mut open,
        features,
        mut notes,
    } = read_for_run(job, context)?;
    // Before long work.
    sets::check_open(&open, features.len())?;
    let order = sampling::permutation(
        &mut sampling::rng(job.seed, "subset-learning split of sets"),
        known.len(),
    );
    let held = asked.validation_sets.unwrap_or(known.len() / 5);
    if held >= known.len() {
        return Err(Error::option(
            "validation-sets",
            format!("{held} of {} sets leave none to learn from", known.len()),
        ));
    }
    let end = match asked.train_sets {
        Some(n) if held + n > known.len() => {
            return Err(Error::option(
                "train-sets",
                format!(
                    "{n} and {held} for validation are more than the {} sets with marks",
                    known.len()
                ),
            ));
        }
        Some(n) => held + n,
        None => known.len(),
    };
    let scale = asked.standardise.then(|| Scale::of(&known));
    if let Some(scale) = &scale {
        scale.apply(&mut known);
        scale.apply(&mut open);
    }
    let pick = |places: &[usize]| places.iter().map(|i| known[*i].clone()).collect();
    let problem = Problem {
        validation: pick(&order[..held]),
        train: pick(&order[held..end]),
        schedule: asked.schedule(),
        seed: job.seed,
    };
    let learned = method.learn(&problem, context)?;
    let about = About {
        method: job.method.clone(),
        options: job.options.clone(),
        features,
        scale,
    };
    notes.extend(learned.notes);
    Ok(Made {
        kept: learned.model.keep(&about, out)?,
        model: learned.model,
        open,
        summary: vec![
            ("sets learned from".into(), problem.train.len().to_string()),
            (
                "validation sets".into(),
                problem.validation.len().to_string(),
            ),
        ],
        notes,
    })
}

/// The method of a job and what is asked of the task.
fn prepare(job: &Job) -> Result<(Box<dyn SubsetLearner>, TaskOptions)> {
    Entry::prepare(METHODS, job)
}

/// Refuses what has no meaning when sets are given and none is held out for a test.
fn refuse_trial_options(asked: &TaskOptions) -> Result<()> {
    let default = TaskOptions::default();
    for (option, changed) in [
        ("test-sets", asked.test_sets.is_some()),
        ("set-size", asked.set_size != default.set_size),
        ("subset-size", asked.subset_size != default.subset_size),
    ] {
        if changed {
            return Err(Error::option(
                option,
                "belongs to trials; a run learns from the sets of the data",
            ));
        }
    }
    Ok(())
}

/// Sets of a table for training, validation and test, in an order drawn from the seed.
fn split(
    table: &Table,
    roles: &Roles,
    asked: &TaskOptions,
    seed: u64,
    context: &Context,
) -> Result<Parts> {
    if roles.label.is_none() {
        return Err(Error::option(
            "--label",
            "name the column of chosen marks, 1 or 0 for each element",
        ));
    }
    let (sets, _) = sets::read(table, roles, context)?;
    sets::check_marked(&sets, "marked")?;
    let n = sets.len();
    let test = asked.test_sets.unwrap_or((n / 5).max(1));
    let validation = asked.validation_sets.unwrap_or(n / 5);
    let train = asked
        .train_sets
        .unwrap_or_else(|| n.saturating_sub(test + validation));
    if train == 0 || train.saturating_add(validation).saturating_add(test) > n {
        return Err(Error::option(
            "train-sets",
            format!(
                "{} has {n} sets, and {train} for training, {validation} for validation and {test} for the test were asked for",
                table.name()
            ),
        ));
    }
    let order = sampling::permutation(&mut sampling::rng(seed, "subset-learning split of sets"), n);
    let pick = |from: usize, count: usize| -> Vec<GroundSet> {
        order[from..from + count]
            .iter()
            .map(|i| sets[*i].clone())
            .collect()
    };
    Ok(Parts {
        test: pick(0, test),
        validation: pick(test, validation),
        train: pick(test + validation, train),
    })
}

/// Sets built from rows with classes.
fn built(
    table: &Table,
    roles: &Roles,
    asked: &TaskOptions,
    seed: u64,
    context: &Context,
) -> Result<Parts> {
    let labels = Labels::of(table, roles)?.ok_or_else(|| {
        Error::option(
            "--group",
            "name the column of the sets (and with --label that of the chosen marks); or name with --label alone a column of classes from which sets are built",
        )
    })?;
    let rows = Features::of(table, roles)?.matrix(context)?;
    let plan = minority::Plan {
        set_size: asked.set_size,
        subset_size: asked.subset_size,
        sets: [
            asked.train_sets.unwrap_or(800),
            asked.validation_sets.unwrap_or(200),
            asked.test_sets.unwrap_or(400),
        ],
    };
    minority::build(&rows, &labels, plan, seed)
}

/// What a run reads.
struct Reading {
    /// Sets with marks.
    known: Vec<GroundSet>,
    /// Sets to choose from.
    open: Vec<GroundSet>,
    /// Names of the features.
    features: Vec<String>,
    /// Remarks for the reader.
    notes: Vec<String>,
}

/// Sets with marks to learn from, and those of `query`, or else those of the data without marks, to choose from.
fn read_for_run(job: &Job, context: &Context) -> Result<Reading> {
    let table = job.table("data", context)?;
    if job.roles.label.is_none() {
        return Err(Error::option(
            "--label",
            "name the column of chosen marks, 1 or 0 for each element, empty for sets to choose from",
        ));
    }
    let (all, features) = sets::read(&table, &job.roles, context)?;
    let (known, unmarked): (Vec<_>, Vec<_>) = all.into_iter().partition(|s| s.chosen.is_some());
    if known.is_empty() {
        return Err(Error::file(
            table.name(),
            "has no set with chosen marks, so there is nothing to learn from",
        ));
    }
    let mut notes = Vec::new();
    let open = if job.inputs.contains_key("query") {
        let query = job.table("query", context)?;
        let taken: Vec<&str> = job.roles.named().map(|(_, column)| column).collect();
        let columns = if job.roles.features.is_empty() {
            table
                .columns()
                .into_iter()
                .filter(|c| !taken.contains(c))
                .map(str::to_owned)
                .collect()
        } else {
            job.roles.features.clone()
        };
        let roles = Roles {
            group: job.roles.group.clone(),
            id: job.roles.id.clone(),
            features: columns,
            ..Roles::default()
        };
        let (open, others) = sets::read(&query, &roles, context)?;
        if others != features {
            return Err(Error::file(
                query.name(),
                format!(
                    "its features are {}, and not those of {}: {}; a column of categories must hold the same values in both",
                    others.join(", "),
                    table.name(),
                    features.join(", ")
                ),
            ));
        }
        if !unmarked.is_empty() {
            notes.push(format!(
                "{} sets of the data without marks were left aside for those of the query",
                unmarked.len()
            ));
        }
        open
    } else {
        unmarked
    };
    if open.is_empty() {
        return Err(Error::BadInput(
            "there is no set to choose from: give --query, or sets of the data with empty marks"
                .into(),
        ));
    }
    Ok(Reading {
        known,
        open,
        features,
        notes,
    })
}

/// The output: one row an element, set by set, in the order of choosing.
fn written(sets: &[GroundSet], rankings: &[Ranking], chosen: &[Vec<usize>]) -> Result<RecordBatch> {
    let (mut names, mut elements) = (Vec::new(), Vec::new());
    let (mut psi, mut ranks, mut marks) = (Vec::new(), Vec::new(), Vec::new());
    for ((set, ranking), chosen) in sets.iter().zip(rankings).zip(chosen) {
        for (rank, i) in ranking.order.iter().enumerate() {
            names.push(set.name.as_str());
            elements.push(set.elements[*i].as_str());
            psi.push(ranking.psi[*i]);
            ranks.push(rank as u64 + 1);
            marks.push(rank < chosen.len());
        }
    }
    let columns: [(&str, ArrayRef); 5] = [
        ("set", Arc::new(StringArray::from(names))),
        ("element", Arc::new(StringArray::from(elements))),
        ("chosen", Arc::new(BooleanArray::from(marks))),
        ("psi", Arc::new(Float64Array::from(psi))),
        ("rank", Arc::new(UInt64Array::from(ranks))),
    ];
    RecordBatch::try_from_iter(columns).map_err(|e| Error::Failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_core::data::ReadOptions;
    use papertrial_core::options::Settings;
    use papertrial_core::plan;
    use papertrial_core::task::Family;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    static ALONE: Family = Family {
        name: "select",
        tasks: &[&SubsetLearning],
        simulations: simulations::SIMULATIONS,
        version: "0",
    };

    fn settings(value: Value) -> Settings {
        value.as_object().cloned().unwrap_or_default()
    }

    fn job(data: &str, drawn: Value, roles: Roles, method: &str, options: Value) -> Result<Job> {
        let read = ReadOptions::default();
        let source = plan::source(data, &settings(drawn), roles, &read, &ALONE)?;
        let info = plan::method(&SubsetLearning, method)?;
        let none = Settings::new();
        let shared = settings(options);
        plan::check_shared(&SubsetLearning, std::slice::from_ref(&info), &shared)?;
        plan::job(&SubsetLearning, &info, &shared, &none, &source, 7)
    }

    fn measured(data: &str, drawn: Value, method: &str, options: Value) -> Result<Measurement> {
        let job = job(data, drawn, Roles::default(), method, options)?;
        let context = Context {
            simulations: simulations::SIMULATIONS,
            ..Context::with_seed(7)
        };
        SubsetLearning.measure(&job, &context)
    }

    fn small_sets() -> Value {
        json!({"sets": 50, "set-size": 10, "subset-size": 2})
    }

    #[test]
    fn every_method_is_scored_on_simulated_sets() {
        for method in METHODS {
            let name = method.facts.name;
            let has = |option: &str| (method.options)().iter().any(|o| o.name == option);
            let mut options = json!({"epochs": 1, "batch": 16});
            for (option, value) in [("hidden", 8), ("embedding", 8), ("samples", 2)] {
                if has(option) {
                    options[option] = json!(value);
                }
            }
            let m = measured("two-moons-sets", small_sets(), name, options.clone()).unwrap();
            assert_eq!(m.metrics.len(), METRICS.len(), "{name}");
            assert!((0.0..=1.0).contains(&m.metrics["jaccard"]));
            assert_eq!(m.metrics["size-error"], 0.0);
            assert!((m.metrics["chance-jaccard"] - chance(10, 2, 2)).abs() < 1e-12);
            let notes = m.notes.join("\n");
            assert!(
                notes.contains("30 sets to learn from, 10 for validation, 10"),
                "{notes}"
            );
            assert!(notes.contains("size of each right subset was given"));
            assert!(!notes.contains("also occur"), "{notes}");
            options["size"] = json!("best-prefix");
            let again = measured("two-moons-sets", small_sets(), name, options).unwrap();
            assert!(again.metrics["size-error"] >= 0.0);
        }
    }

    #[test]
    fn sets_are_built_from_digits_whose_images_are_split_first() {
        let options = json!({
            "train-sets": 60, "validation-sets": 20, "test-sets": 30, "epochs": 1,
            "hidden": 8, "embedding": 8, "samples": 2
        });
        let m = measured("digits", json!({}), "inset", options).unwrap();
        let notes = m.notes.join("\n");
        assert!(
            notes.contains("60 sets to learn from, 20 for validation, 30"),
            "{notes}"
        );
        assert!(!notes.contains("also occur"), "{notes}");
        assert!((m.metrics["chance-jaccard"] - chance(12, 3, 3)).abs() < 1e-12);
    }

    #[test]
    fn impossible_trials_are_told() {
        let told = |data: &str, drawn: Value, options: Value| {
            measured(data, drawn, "random", options)
                .unwrap_err()
                .to_string()
        };
        let many = told("two-moons-sets", small_sets(), json!({"test-sets": 60}));
        assert!(
            many.contains("50 sets") && many.contains("train-sets"),
            "{many}"
        );
        assert!(told("two-moons-sets", small_sets(), json!({"k": 3})).contains("option k"));
        assert!(told("digits", json!({}), json!({"subset-size": 6})).contains("no minority"));
        let unknown = told("two-moons-sets", small_sets(), json!({"epoch": 3}));
        assert!(unknown.contains("epochs"), "{unknown}");
    }

    /// Sets of seven numbers in which the right ones are the two that are far from the others.
    fn lines(first: usize, sets: usize, marked: bool) -> String {
        let mut text = String::new();
        for set in first..first + sets {
            let side = if set % 2 == 0 { 5.0 } else { -5.0 };
            for e in 0..7 {
                let x = if e < 2 { side } else { -side } + ((set * 7 + e * 3) % 5) as f64 * 0.1;
                let mark = match marked {
                    true => u8::from(e < 2).to_string(),
                    false => String::new(),
                };
                text.push_str(&format!("basket{set},thing{e},{x},{mark}\n"));
            }
        }
        text
    }

    struct Files {
        folder: tempfile::TempDir,
    }

    impl Files {
        fn write(&self, name: &str, lines: &str) -> String {
            let path = self.folder.path().join(name);
            std::fs::write(&path, format!("basket,thing,x,bought\n{lines}")).unwrap();
            path.display().to_string()
        }

        fn run(
            &self,
            data: &str,
            query: Option<&str>,
            method: &str,
            options: Value,
        ) -> Result<Applied> {
            self.run_with(data, &[("query", query)], method, options)
        }

        fn run_with(
            &self,
            data: &str,
            others: &[(&str, Option<&str>)],
            method: &str,
            options: Value,
        ) -> Result<Applied> {
            let roles = Roles {
                group: Some("basket".into()),
                id: Some("thing".into()),
                label: Some("bought".into()),
                ..Roles::default()
            };
            let mut job = job(data, json!({}), roles, method, options)?;
            for (name, path) in others {
                if let Some(path) = path {
                    let input = plan::file(Path::new(path), &ReadOptions::default())?;
                    job.inputs.insert((*name).into(), input);
                }
            }
            let out = self.folder.path().join("out.csv");
            SubsetLearning.apply(&job, &out, &Context::with_seed(7))
        }

        /// Chosen elements of each set of the output.
        fn chosen(&self) -> BTreeMap<String, Vec<String>> {
            let text = std::fs::read_to_string(self.folder.path().join("out.csv")).unwrap();
            let mut chosen: BTreeMap<String, Vec<String>> = BTreeMap::new();
            let mut last = (String::new(), 0);
            assert_eq!(text.lines().next(), Some("set,element,chosen,psi,rank"));
            for line in text.lines().skip(1) {
                let cells: Vec<&str> = line.split(',').collect();
                let psi: f64 = cells[3].parse().unwrap();
                assert!((0.0..=1.0).contains(&psi));
                let rank: usize = cells[4].parse().unwrap();
                let expected = if last.0 == cells[0] { last.1 + 1 } else { 1 };
                assert_eq!(rank, expected);
                last = (cells[0].to_owned(), rank);
                let of_set = chosen.entry(cells[0].into()).or_default();
                if cells[2] == "true" {
                    of_set.push(cells[1].into());
                }
            }
            chosen.values_mut().for_each(|c| c.sort());
            chosen
        }
    }

    fn files() -> Files {
        Files {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn quick() -> Value {
        json!({"epochs": 30, "batch": 8, "learning-rate": 0.003, "hidden": 24, "embedding": 16, "samples": 4})
    }

    #[test]
    fn a_run_chooses_for_the_query_and_for_sets_without_marks() {
        let f = files();
        let want = ["thing0", "thing1"];
        let data = f.write("data.csv", &lines(0, 60, true));
        let query = f.write("query.csv", &lines(100, 4, false));
        let mut options = quick();
        options["k"] = json!(2);
        let applied = f
            .run(&data, Some(&query), "inset", options.clone())
            .unwrap();
        assert_eq!(applied.summary[0].1, "48");
        assert_eq!(applied.summary[2].1, "4");
        let chosen = f.chosen();
        assert_eq!(chosen.len(), 4);
        assert!(chosen.values().all(|c| c == &want), "{chosen:?}");
        // The same from one file, and the size by threshold.
        let both = f.write("both.csv", &(lines(0, 60, true) + &lines(100, 4, false)));
        f.run(&both, None, "inset", options).unwrap();
        assert_eq!(f.chosen(), chosen);
        f.run(&both, None, "inset", quick()).unwrap();
        let right = f.chosen().values().filter(|c| *c == &want).count();
        assert!(right >= 3, "{:?}", f.chosen());
        let with_query = f
            .run(&both, Some(&query), "random", json!({"k": 1}))
            .unwrap();
        assert!(with_query.notes[0].contains("4 sets of the data without marks"));
        assert!(f.chosen().values().all(|c| c.len() == 1));
    }

    #[test]
    fn a_kept_model_chooses_as_it_did_when_it_was_new() {
        let f = files();
        let data = f.write("data.csv", &lines(0, 10, true));
        let query = f.write("query.csv", &lines(100, 4, false));
        let model = f.folder.path().join("out.model.safetensors");
        let kept = f.folder.path().join("kept.safetensors");
        let kept = kept.display().to_string();
        let text = || std::fs::read_to_string(f.folder.path().join("out.csv")).unwrap();
        for method in METHODS {
            let name = method.facts.name;
            let options = match name {
                "inset" | "equivset" => {
                    json!({"hidden": 8, "embedding": 8, "samples": 2, "rank": 3})
                }
                "random" | "element-classifier" => json!({}),
                _ => json!({"hidden": 8, "embedding": 8}),
            };
            let mut learning = options.clone();
            learning["epochs"] = json!(1);
            let files = f.run(&data, Some(&query), name, learning).unwrap().files;
            if name == "random" {
                assert_eq!(files.len(), 1);
                continue;
            }
            assert_eq!(files.len(), 2, "{name}");
            let first = text();
            std::fs::rename(&model, &kept).unwrap();
            // Its options come from the file, not from the command.
            let with = [("model", Some(kept.as_str()))];
            let applied = f.run_with(&query, &with, name, json!({})).unwrap();
            assert_eq!(applied.files.len(), 1);
            assert_eq!(text(), first, "{name}");
        }
        let told = |data: &str, query: Option<&str>, method: &str| {
            let with = [("model", Some(kept.as_str())), ("query", query)];
            let e = f.run_with(data, &with, method, json!({})).unwrap_err();
            e.to_string()
        };
        assert!(told(&data, Some(&query), "element-classifier").contains("leave out one"));
        let other = told(&query, None, "inset");
        assert!(
            other.contains("model of element-classifier, not of inset"),
            "{other}"
        );
        let wide = f.folder.path().join("wide.csv");
        std::fs::write(&wide, "basket,thing,x,y,bought\nb,t,1,2,\nb,u,2,3,\n").unwrap();
        let wide = told(&wide.display().to_string(), None, "element-classifier");
        assert!(wide.contains("learned from the features x"), "{wide}");
        std::fs::write(&kept, "nothing").unwrap();
        assert!(told(&query, None, "element-classifier").contains("not a safetensors file"));
        let left: Vec<_> = std::fs::read_dir(f.folder.path()).unwrap().collect();
        // data, query, wide, kept, out.
        assert_eq!(left.len(), 5);
    }

    #[test]
    fn impossible_runs_are_told_and_leave_nothing() {
        let f = files();
        let data = f.write("data.csv", &lines(0, 10, true));
        let unmarked = f.write("unmarked.csv", &lines(0, 3, false));
        let query = f.write("query.csv", &lines(50, 2, false));
        let one = f.write("one.csv", "basket1,thing1,0.5,\n");
        let other = f.folder.path().join("other.csv");
        std::fs::write(&other, "basket,thing,y\nb,t,1\nb,u,2\n").unwrap();
        let other = other.display().to_string();
        let empty = f.write("empty.csv", "a,t,1,0\na,u,2,0\nb,t,1,1\nb,u,2,0\n");
        let cases: [(&str, Option<&str>, Value, &str); 11] = [
            (&data, None, json!({}), "no set to choose from"),
            (
                &unmarked,
                Some(&query),
                json!({}),
                "no set with chosen marks",
            ),
            (&data, Some(&query), json!({"k": 9}), "which has 7"),
            (
                &data,
                Some(&query),
                json!({"size": "known"}),
                "size=known needs",
            ),
            (
                &data,
                Some(&query),
                json!({"size": "threshold", "k": 2}),
                "leave out one",
            ),
            (
                &data,
                Some(&query),
                json!({"test-sets": 2}),
                "belongs to trials",
            ),
            (
                &data,
                Some(&query),
                json!({"validation-sets": 10}),
                "leave none",
            ),
            (
                &data,
                Some(&query),
                json!({"validation-sets": 5, "train-sets": 6}),
                "more than the 10",
            ),
            (&data, Some(&one), json!({}), "has 1 element"),
            (&data, Some(&other), json!({}), "no column 'x'"),
            (
                &empty,
                Some(&query),
                json!({}),
                "set 'a': none of its elements is chosen",
            ),
        ];
        for (data, query, options, words) in cases {
            let text = f
                .run(data, query, "random", options)
                .unwrap_err()
                .to_string();
            assert!(text.contains(words), "{text}");
        }
        assert!(!f.folder.path().join("out.csv").exists());
    }
}
