//! From names and options to jobs: what a trial and a comparison share.

use crate::data::{ReadOptions, Roles, file_checksum, sets};
use crate::error::{Error, Result};
use crate::options::{self, OptionInfo, OptionKind, Settings};
use crate::runner::Planned;
use crate::task::{Family, Input, Job, MethodInfo, MetricInfo, Task, unknown_method};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

/// Data with the roles of its columns.
#[derive(Debug, Clone)]
pub struct Source {
    /// What is read.
    pub input: Input,
    /// Roles of its columns.
    pub roles: Roles,
    /// What is read beside it, by name.
    pub others: BTreeMap<String, Input>,
}

impl Source {
    /// Adds `path` as the input `name` of `task`.
    ///
    /// # Errors
    /// The task reads no such input, or the file cannot be read.
    pub fn with(
        mut self,
        name: &str,
        path: &Path,
        read: &ReadOptions,
        task: &dyn Task,
    ) -> Result<Self> {
        let known = task.inputs().iter().map(|(name, _)| *name);
        if !known.clone().any(|k| k == name) {
            if task.inputs().is_empty() {
                return Err(Error::option(
                    name,
                    format!("task {} reads nothing but --data", task.name()),
                ));
            }
            return Err(Error::unknown(
                "input",
                name,
                known,
                format!("'papertrial show {}' lists them", task.name()),
            ));
        }
        self.others.insert(name.into(), file(path, read)?);
        Ok(self)
    }
}

/// Finds data by the name of a data set, of a simulation of `family`, or of a file.
///
/// # Errors
/// Nothing has that name, or a file cannot be read.
pub fn source(
    name: &str,
    given: &Settings,
    roles: Roles,
    read: &ReadOptions,
    family: &Family,
) -> Result<Source> {
    if let Some(simulation) = family.simulations.iter().find(|s| s.name == name) {
        return Ok(Source {
            input: Input::Simulation {
                name: name.into(),
                options: options::resolve(name, &(simulation.options)(), given)?,
            },
            roles: roles.or((simulation.roles)()),
            others: BTreeMap::new(),
        });
    }
    if let Some(unwanted) = given.keys().next() {
        return Err(Error::option(
            unwanted,
            format!(
                "data {name} is not a simulation of family {} and takes no options",
                family.name
            ),
        ));
    }
    let path = Path::new(name);
    // A folder that happens to be called like a data set does not hide it.
    if path.is_file() || path.is_dir() && sets::find(name).is_err() {
        return Ok(Source {
            input: file(path, read)?,
            roles,
            others: BTreeMap::new(),
        });
    }
    match sets::find(name) {
        Ok(set) => {
            set.verify()?;
            Ok(Source {
                input: Input::Set {
                    name: set.name.clone(),
                    checksum: set.sha256.clone(),
                },
                roles: roles.or(set.roles.clone()),
                others: BTreeMap::new(),
            })
        }
        Err(_) if looks_like_path(name) => {
            Err(Error::file(path, "there is no such file or folder"))
        }
        Err(_) => {
            let sets = sets::all()?.iter().map(|s| s.name.as_str());
            let simulations = family.simulations.iter().map(|s| s.name);
            Err(Error::unknown(
                "file, data set or simulation",
                name,
                sets.chain(simulations),
                "'papertrial data list' lists the data sets",
            ))
        }
    }
}

/// A file of the user's as an input.
///
/// # Errors
/// It cannot be read.
pub fn file(path: &Path, read: &ReadOptions) -> Result<Input> {
    Ok(Input::File {
        path: path.into(),
        read: read.clone(),
        // A folder is told by what the task finds in it; its own bytes do not exist.
        checksum: if path.is_dir() {
            String::new()
        } else {
            file_checksum(path)?
        },
    })
}

fn looks_like_path(name: &str) -> bool {
    name.contains(['/', '\\', '.'])
}

/// The method named `name`.
///
/// # Errors
/// [`Error::Unknown`] with the nearest name.
pub fn method(task: &dyn Task, name: &str) -> Result<MethodInfo> {
    let methods = task.methods();
    let known: Vec<&str> = methods.iter().map(|m| m.facts.name).collect();
    methods
        .iter()
        .find(|m| m.facts.name == name)
        .cloned()
        .ok_or_else(|| unknown_method(task.name(), name, known))
}

/// The metric named `name`.
///
/// # Errors
/// [`Error::Unknown`] with the nearest name.
pub fn metric(task: &dyn Task, name: &str) -> Result<MetricInfo> {
    let metrics = task.metrics();
    metrics
        .iter()
        .find(|m| m.name == name)
        .copied()
        .ok_or_else(|| {
            Error::unknown(
                "metric",
                name,
                metrics.iter().map(|m| m.name),
                format!("'papertrial show {}' lists the metrics", task.name()),
            )
        })
}

/// Checks that each shared option is known to the task or to one of the methods.
///
/// # Errors
/// [`Error::Unknown`] with the nearest option.
pub fn check_shared<'a>(
    task: &dyn Task,
    methods: impl IntoIterator<Item = &'a MethodInfo>,
    shared: &Settings,
) -> Result<()> {
    let mut known: Vec<String> = task.options().into_iter().map(|o| o.name).collect();
    known.extend(
        methods
            .into_iter()
            .flat_map(|m| &m.options)
            .map(|o| o.name.clone()),
    );
    for name in shared.keys() {
        if !known.contains(name) {
            return Err(Error::unknown(
                "option",
                name,
                known.iter().map(String::as_str),
                format!("'papertrial show {}' lists options", task.name()),
            ));
        }
    }
    Ok(())
}

/// A method with options of its own, under a name that tells it apart from the others of a comparison.
#[derive(Debug, Clone)]
pub struct Contender {
    /// Name: the method, and the options in which it differs.
    pub name: String,
    /// The method.
    pub method: MethodInfo,
    /// Its own options, of the method or of the task.
    pub own: Settings,
}

/// One axis of a grid: an option and the values that it takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// Option.
    pub option: String,
    /// Its values; `None` for all words that it can be.
    pub values: Option<Vec<Value>>,
}

/// Every method with every combination of the axes that it knows; a method that knows none stands once.
///
/// # Errors
/// An option that neither the task nor a method has, one without a list of words and without values, or an impossible
/// value.
pub fn grid(task: &dyn Task, methods: &[MethodInfo], axes: &[Axis]) -> Result<Vec<Contender>> {
    let of_task = task.options();
    let asked = axes.iter().map(|axis| (axis.option.clone(), Value::Null));
    check_shared(task, methods, &asked.collect())?;
    let mut all = Vec::new();
    for method in methods {
        let mut mine = vec![Contender {
            name: method.facts.name.into(),
            method: method.clone(),
            own: Settings::new(),
        }];
        for axis in axes {
            let find = |infos: &[OptionInfo]| infos.iter().find(|o| o.name == axis.option).cloned();
            let Some(info) = find(&method.options).or_else(|| find(&of_task)) else {
                continue;
            };
            let values = values(method.facts.name, axis, &info)?;
            mine = mine
                .iter()
                .flat_map(|c| {
                    values.iter().map(|value| {
                        let shown = match value {
                            Value::String(word) => word.clone(),
                            other => other.to_string(),
                        };
                        let mut more = c.clone();
                        more.name = format!("{} {}={shown}", c.name, axis.option);
                        more.own.insert(axis.option.clone(), value.clone());
                        more
                    })
                })
                .collect();
        }
        all.extend(mine);
    }
    Ok(all)
}

fn values(owner: &str, axis: &Axis, info: &OptionInfo) -> Result<Vec<Value>> {
    match (&axis.values, &info.kind) {
        (Some(values), _) => values
            .iter()
            .map(|value| options::check(owner, info, value))
            .collect(),
        (None, OptionKind::Word(words)) => Ok(words.iter().cloned().map(Value::String).collect()),
        (None, OptionKind::Switch) => Ok(vec![Value::Bool(false), Value::Bool(true)]),
        (None, kind) => Err(Error::option(
            &axis.option,
            format!(
                "it is {kind}, so a grid needs its values: {}=A/B/C",
                axis.option
            ),
        )),
    }
}

/// One job: `shared` options reach the task and the method as far as they have them, `own` ones must fit.
///
/// # Errors
/// An option that neither has, or an impossible value.
pub fn job(
    task: &dyn Task,
    method: &MethodInfo,
    shared: &Settings,
    own: &Settings,
    source: &Source,
    seed: u64,
) -> Result<Job> {
    let of_task = task.options();
    let of_method = &method.options;
    let mut for_task = options::known(&of_task, shared);
    let mut for_method = options::known(of_method, shared);
    for (name, value) in own {
        let task_has_it = of_task.iter().any(|o| o.name == *name);
        let method_has_it = of_method.iter().any(|o| o.name == *name);
        if task_has_it {
            for_task.insert(name.clone(), value.clone());
        }
        if method_has_it || !task_has_it {
            // One that neither has is refused below, with the nearest name.
            for_method.insert(name.clone(), value.clone());
        }
    }
    Ok(Job {
        task: task.name().into(),
        method: method.facts.name.into(),
        options: options::resolve(method.facts.name, of_method, &for_method)?,
        task_options: options::resolve(task.name(), &of_task, &for_task)?,
        inputs: {
            let mut inputs = source.others.clone();
            inputs.insert("data".into(), source.input.clone());
            inputs
        },
        roles: source.roles.clone(),
        seed,
    })
}

/// The job with its fingerprint.
pub fn planned(family: &Family, job: Job, alone: bool) -> Planned {
    Planned {
        fingerprint: job.fingerprint(&version(family)),
        job,
        alone,
    }
}

/// Version of a family's code. A development version says nothing of the code, so the program's own bytes do.
fn version(family: &Family) -> String {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    if family.version.ends_with("-dev") {
        let program = PROGRAM.get_or_init(|| {
            std::env::current_exe()
                .ok()
                .and_then(|path| file_checksum(&path).ok())
                .unwrap_or_default()
        });
        format!("{} {} {program}", family.name, family.version)
    } else {
        format!("{} {}", family.name, family.version)
    }
}
