//! What a family exports: tasks, their methods and metrics, and simulations of data.
//!
//! The program, the runner and the judge know nothing of a task beyond [`Task`]; a task knows nothing of them
//! beyond [`Job`] and [`Context`].

use crate::data::{Roles, Table};
use crate::error::{Error, Result};
use crate::options::{self, OptionInfo, Options, Settings};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A group of related tasks: what one crate under `tasks/` exports.
pub struct Family {
    /// Name: `cluster`.
    pub name: &'static str,
    /// Its tasks.
    pub tasks: &'static [&'static dyn Task],
    /// Data that it can simulate.
    pub simulations: &'static [Simulation],
    /// Version of the crate, part of a job's fingerprint.
    pub version: &'static str,
}

/// A job that several methods can do on the same input with the same kind of output.
pub trait Task: Send + Sync {
    /// Name: `clustering`.
    fn name(&self) -> &'static str;
    /// One sentence.
    fn about(&self) -> &'static str;
    /// The methods, papers' and baselines.
    fn methods(&self) -> Vec<MethodInfo>;
    /// The metrics, the most telling first.
    fn metrics(&self) -> &'static [MetricInfo];
    /// Options of the task itself: how data are prepared and results are measured.
    fn options(&self) -> Vec<OptionInfo>;
    /// What it reads beside the main data, such as `query`: name and one sentence.
    fn inputs(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
    /// Whether it opens `path` itself: a folder, or a file that is no table, such as a capture of packets.
    fn opens(&self, _path: &Path) -> bool {
        false
    }
    /// Runs the job's method and scores it.
    ///
    /// # Errors
    /// Bad input, or a failure of the method.
    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement>;
    /// Applies the job's method and writes what it yields to `out`.
    ///
    /// # Errors
    /// Bad input, a failure of the method, or an output that cannot be written.
    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied>;
}

/// Facts of a method, stated in its file.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Name: `k-means`.
    pub name: &'static str,
    /// One sentence: what it is.
    pub about: &'static str,
    /// Slug of its paper in the catalogue; `None` for a baseline.
    pub paper: Option<&'static str>,
    /// Whether it reads data larger than memory.
    pub streams: bool,
}

/// A method's options struct together with its facts.
pub trait Method: Options + Send + Sync + 'static {
    /// Name, sentence, paper.
    const FACTS: Facts;
}

/// A method as the program sees it.
#[derive(Debug, Clone)]
pub struct MethodInfo {
    /// Name, sentence, paper.
    pub facts: Facts,
    /// Its options.
    pub options: Vec<OptionInfo>,
}

/// A metric as the program sees it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MetricInfo {
    /// Name: `ari`.
    pub name: &'static str,
    /// One sentence, with the unit.
    pub about: &'static str,
    /// Whether more is better; `None` where neither is.
    pub higher_is_better: Option<bool>,
    /// Whether it depends on what else the machine does, so that its jobs run one at a time.
    pub timing: bool,
}

impl MetricInfo {
    /// A metric that does not depend on what else the machine does.
    pub const fn new(
        name: &'static str,
        higher_is_better: Option<bool>,
        about: &'static str,
    ) -> Self {
        MetricInfo {
            name,
            about,
            higher_is_better,
            timing: false,
        }
    }

    /// The same metric, measured by the clock.
    pub const fn timed(self) -> Self {
        MetricInfo {
            timing: true,
            ..self
        }
    }
}

/// One method on one data set with one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Task.
    pub task: String,
    /// Method.
    pub method: String,
    /// The method's options, all of them.
    pub options: Settings,
    /// The task's options, all of them.
    pub task_options: Settings,
    /// What is read, by name; the main one is `data`.
    pub inputs: BTreeMap<String, Input>,
    /// Roles of the main input's columns.
    pub roles: Roles,
    /// The seed from which every random draw comes.
    pub seed: u64,
}

/// Something that a job reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// A file or folder of the user's.
    File {
        /// Where it is.
        path: PathBuf,
        /// How to read it.
        read: crate::data::ReadOptions,
        /// SHA-256 of its bytes.
        checksum: String,
    },
    /// A named data set.
    Set {
        /// Its name.
        name: String,
        /// SHA-256 of its bytes.
        checksum: String,
    },
    /// Data drawn anew from the job's seed.
    Simulation {
        /// Its name.
        name: String,
        /// Its options, all of them.
        options: Settings,
    },
}

impl Input {
    /// Name for people.
    pub fn shown(&self) -> String {
        match self {
            Input::File { path, .. } => path.display().to_string(),
            Input::Set { name, .. } => name.clone(),
            Input::Simulation { name, options } => {
                let options: Vec<String> = options
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                format!("{name} ({})", options.join(" "))
            }
        }
    }
}

impl Job {
    /// Opens the input `name` as a table.
    ///
    /// # Errors
    /// The input is missing, cannot be read, or is not a table.
    pub fn table(&self, name: &str, context: &Context) -> Result<Table> {
        match self.inputs.get(name) {
            None => Err(Error::BadInput(format!(
                "task {} needs --{name}; none was given",
                self.task
            ))),
            Some(Input::File { path, read, .. }) => Table::open(path, read),
            Some(Input::Set { name, .. }) => crate::data::sets::open(name),
            Some(Input::Simulation { name, options }) => {
                let simulation = context
                    .simulations
                    .iter()
                    .find(|s| s.name == name)
                    .ok_or_else(|| {
                        Error::unknown(
                            "simulation",
                            name,
                            context.simulations.iter().map(|s| s.name),
                            "see papertrial data list",
                        )
                    })?;
                let batch = (simulation.generate)(self.seed, options)?;
                Ok(Table::memory(name, vec![batch]))
            }
        }
    }

    /// SHA-256 over everything that determines the result: this job and the code's `version`.
    pub fn fingerprint(&self, version: &str) -> String {
        let mut inputs = self.inputs.clone();
        for input in inputs.values_mut() {
            // The content counts, not the place: a file that moved is the same file.
            if let Input::File { path, .. } = input {
                *path = PathBuf::new();
            }
        }
        let job = Job {
            inputs,
            ..self.clone()
        };
        let mut value = serde_json::to_value(&job).unwrap_or(Value::Null);
        sort_keys(&mut value);
        crate::data::checksum(format!("{version}\n{value}").as_bytes())
    }
}

fn sort_keys(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.sort_keys();
            map.values_mut().for_each(sort_keys);
        }
        Value::Array(items) => items.iter_mut().for_each(sort_keys),
        _ => {}
    }
}

/// Data with a known truth, drawn from a seed.
#[derive(Clone, Copy)]
pub struct Simulation {
    /// Name: `gaussian-blobs`.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// Its options.
    pub options: fn() -> Vec<OptionInfo>,
    /// Roles of its columns.
    pub roles: fn() -> Roles,
    /// Draws the table.
    pub generate: fn(u64, &Settings) -> Result<arrow::record_batch::RecordBatch>,
}

impl Simulation {
    /// Number of all simulations in the lists of several tasks.
    pub const fn count(of_tasks: &[&[Simulation]]) -> usize {
        let (mut task, mut count) = (0, 0);
        while task < of_tasks.len() {
            count += of_tasks[task].len();
            task += 1;
        }
        count
    }

    /// The lists of several tasks in one row, for [`Family::simulations`]: N is their [`Simulation::count`], and the
    /// first list has one at least.
    pub const fn joined<const N: usize>(of_tasks: &[&[Simulation]]) -> [Simulation; N] {
        let mut all = [of_tasks[0][0]; N];
        let (mut task, mut next) = (0, 0);
        while task < of_tasks.len() {
            let mut i = 0;
            while i < of_tasks[task].len() {
                all[next] = of_tasks[task][i];
                next += 1;
                i += 1;
            }
            task += 1;
        }
        all
    }
}

/// A step of long work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub what: String,
    /// Steps done.
    pub done: u64,
    /// Steps in all; 0 if unknown.
    pub total: u64,
}

/// What a running job may use.
pub struct Context<'a> {
    /// The seed from which every random draw comes.
    pub seed: u64,
    /// Bytes of memory that may be used.
    pub memory: Option<u64>,
    /// Device of neural computations: `cpu`, `cuda:0`, `vulkan:0`.
    pub device: String,
    /// Simulations of the task's family.
    pub simulations: &'static [Simulation],
    /// Methods of the task that stream, for messages.
    pub streams: String,
    /// Where progress goes.
    pub progress: &'a (dyn Fn(Progress) + Sync),
}

impl Context<'static> {
    /// For use as a library: a seed, the CPU, no limit but the machine's, no progress shown.
    pub fn with_seed(seed: u64) -> Self {
        Context {
            seed,
            memory: None,
            device: "cpu".into(),
            simulations: &[],
            streams: String::new(),
            progress: &|_| (),
        }
    }
}

impl Context<'_> {
    /// Tells how far the work is.
    pub fn step(&self, what: &str, done: usize, total: usize) {
        (self.progress)(Progress {
            what: what.into(),
            done: done as u64,
            total: total as u64,
        });
    }

    /// Refuses work that needs more memory than the limit, or than the machine has free.
    ///
    /// # Errors
    /// [`Error::Memory`] with both sizes.
    pub fn require(&self, what: &str, needed: u64) -> Result<()> {
        match self.memory.or_else(available_memory) {
            Some(limit) if needed > limit => Err(Error::Memory {
                what: what.into(),
                needed,
                limit,
                streams: if self.streams.is_empty() {
                    "none here".into()
                } else {
                    self.streams.clone()
                },
            }),
            _ => Ok(()),
        }
    }
}

/// Bytes that the machine can still give, where the system tells.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// What a job yields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Metric values; a metric that does not apply is absent.
    pub metrics: BTreeMap<String, f64>,
    /// Curves, such as the objective against rounds.
    #[serde(default)]
    pub curves: Vec<Curve>,
    /// Remarks for the reader.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A line of points in a plot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// What it shows.
    pub name: String,
    /// Label of the horizontal axis.
    pub x: String,
    /// Label of the vertical axis.
    pub y: String,
    /// The points.
    pub points: Vec<(f64, f64)>,
}

/// What `run` tells when it is done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// Files written.
    pub files: Vec<PathBuf>,
    /// A line a fact: `clusters: 3`.
    pub summary: Vec<(String, String)>,
    /// Remarks for the reader.
    pub notes: Vec<String>,
    /// What could not be processed and was left out, with the reason; the program then ends with status 1.
    #[serde(default)]
    pub skipped: Vec<String>,
}

/// The bytes of `rows` x `width` numbers of eight bytes.
pub fn matrix_bytes(rows: u64, width: u64) -> u64 {
    rows.saturating_mul(width).saturating_mul(8)
}

/// A task's table of methods: how to build each from its settings.
///
/// `T` is the task's own trait object, such as `dyn Clusterer`.
pub struct Entry<T: ?Sized> {
    /// Name, sentence, paper.
    pub facts: Facts,
    /// Describes its options.
    pub options: fn() -> Vec<OptionInfo>,
    /// Builds it from checked settings.
    pub build: fn(&Settings) -> Result<Box<T>>,
}

/// A task's table of methods, in the order in which they are listed: `methods![dyn Clusterer; KMeans, Ppp]`.
///
/// Each is a struct of options that implements [`Method`] and the task's trait.
#[macro_export]
macro_rules! methods {
    ($trait:ty; $($method:ty),+ $(,)?) => {
        &[$($crate::task::Entry::<$trait> {
            facts: <$method as $crate::task::Method>::FACTS,
            options: $crate::options::describe::<$method>,
            build: |settings| {
                let name = <$method as $crate::task::Method>::FACTS.name;
                Ok(Box::new($crate::options::build::<$method>(name, settings)?))
            },
        }),+]
    };
}

/// What a task states of itself, inside `impl Task`: its name, one sentence, its table of [`methods!`], its metrics, and
/// the struct of its options: `states!("clustering", "give every row …", METHODS, METRICS, TaskOptions);`.
#[macro_export]
macro_rules! states {
    ($name:expr, $about:expr, $methods:expr, $metrics:expr, $options:ty $(,)?) => {
        fn name(&self) -> &'static str {
            $name
        }

        fn about(&self) -> &'static str {
            $about
        }

        fn methods(&self) -> Vec<$crate::task::MethodInfo> {
            $methods.iter().map($crate::task::Entry::info).collect()
        }

        fn metrics(&self) -> &'static [$crate::task::MetricInfo] {
            $metrics
        }

        fn options(&self) -> Vec<$crate::options::OptionInfo> {
            $crate::options::describe::<$options>()
        }
    };
}

impl<T: ?Sized> Entry<T> {
    /// The method as the program sees it.
    pub fn info(&self) -> MethodInfo {
        MethodInfo {
            facts: self.facts,
            options: (self.options)(),
        }
    }

    /// The method of `job`, and what it asks of the task.
    ///
    /// # Errors
    /// A method that is not among `entries`, or settings that do not fit.
    pub fn prepare<O: Options>(entries: &[Self], job: &Job) -> Result<(Box<T>, O)> {
        let entry = Self::find(entries, &job.task, &job.method)?;
        Ok((
            (entry.build)(&job.options)?,
            options::build(&job.task, &job.task_options)?,
        ))
    }

    /// The entry named `name`.
    ///
    /// # Errors
    /// [`Error::Unknown`] with the nearest name.
    pub fn find<'a>(entries: &'a [Self], task: &str, name: &str) -> Result<&'a Self> {
        entries
            .iter()
            .find(|e| e.facts.name == name)
            .ok_or_else(|| unknown_method(task, name, entries.iter().map(|e| e.facts.name)))
    }
}

/// The error for a method that a task does not have.
pub fn unknown_method<'a>(
    task: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Error {
    Error::unknown(
        "method",
        name,
        known,
        format!("'papertrial show {task}' lists the methods"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(path: &str, seed: u64) -> Job {
        Job {
            task: "clustering".into(),
            method: "k-means".into(),
            options: Settings::from_iter([("k".to_string(), Value::from(3))]),
            task_options: Settings::new(),
            inputs: BTreeMap::from([(
                "data".to_string(),
                Input::File {
                    path: path.into(),
                    read: Default::default(),
                    checksum: "abc".into(),
                },
            )]),
            roles: Roles::default(),
            seed,
        }
    }

    #[test]
    fn fingerprint_follows_content_seed_and_version_but_not_the_place() {
        let a = job("a.csv", 0).fingerprint("1");
        assert_eq!(a, job("elsewhere/b.csv", 0).fingerprint("1"));
        assert_ne!(a, job("a.csv", 1).fingerprint("1"));
        assert_ne!(a, job("a.csv", 0).fingerprint("2"));
        let mut other = job("a.csv", 0);
        other.options.insert("k".into(), Value::from(4));
        assert_ne!(a, other.fingerprint("1"));
    }

    #[test]
    fn fingerprint_does_not_depend_on_the_order_of_options() {
        let mut a = job("a", 0);
        a.options = Settings::from_iter([("x".into(), 1.into()), ("y".into(), 2.into())]);
        let mut b = a.clone();
        b.options = Settings::from_iter([("y".into(), 2.into()), ("x".into(), 1.into())]);
        assert_eq!(a.fingerprint("1"), b.fingerprint("1"));
    }

    #[test]
    fn memory_is_refused_with_both_sizes() {
        let context = Context {
            memory: Some(1 << 20),
            streams: "mini-batch-k-means".into(),
            ..Context::with_seed(0)
        };
        assert!(context.require("the matrix", 1 << 20).is_ok());
        let e = context.require("the matrix", 1 << 21).unwrap_err();
        let text = e.to_string();
        assert!(
            text.contains("2.0 MiB") && text.contains("1.0 MiB"),
            "{text}"
        );
        assert!(text.contains("mini-batch-k-means"), "{text}");
    }
}
