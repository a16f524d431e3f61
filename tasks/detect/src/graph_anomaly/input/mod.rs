//! From a job's inputs to graphs: a folder of the TUDataset collection, one graph a row, or three tables.

mod assemble;
mod rows;
mod tables;
mod tu;

use super::graphs::GraphSet;
use assemble::Raw;
use papertrial_core::data::{Table, sets};
use papertrial_core::task::{Context, Input, Job};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::{proportional_quotas, rng, stratified};
use std::collections::BTreeMap;
use std::path::Path;

/// The ending of the file by which a folder of the TUDataset collection is known.
const EDGES: &str = "_A.txt";

/// Graphs with labels, where they are known.
pub(super) struct Loaded {
    pub graphs: GraphSet,
    /// Names of the normal and of the anomalous class.
    pub classes: Option<[String; 2]>,
    pub notes: Vec<String>,
}

/// What the user says of the classes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Classes<'a> {
    /// The rarer of two is the anomalous one.
    Rarer,
    /// This one is anomalous, all others are normal.
    Named(&'a str),
    /// These are normal and anomalous, of a model; graphs with other labels have none.
    Known(&'a [String; 2]),
}

/// Reads the input `name`.
///
/// # Errors
/// The input is missing, in no known layout, or broken; labels that are not of two classes.
pub(super) fn load(
    job: &Job,
    name: &str,
    weighted: bool,
    classes: Classes<'_>,
    context: &Context,
) -> Result<Loaded> {
    context.step("reading graphs", 0, 1);
    let raw = match job.inputs.get(name) {
        Some(Input::File { path, .. }) if is_tu(path) => tu::read(path, weighted)?,
        Some(Input::Set { name: set, .. }) => match local(set)? {
            Some(path) => tu::read(&path, weighted)?,
            None => of_table(job, name, weighted, context)?,
        },
        _ => of_table(job, name, weighted, context)?,
    };
    context.step("reading graphs", 1, 1);
    let Raw {
        mut graphs,
        labels,
        mut notes,
    } = raw;
    if graphs.is_empty() {
        return Err(Error::BadInput("there are no graphs".into()));
    }
    let names = match labels {
        None => None,
        Some(labels) => {
            let (anomalous, names, note) = classified(&labels, classes)?;
            graphs.labels = anomalous;
            notes.extend(note);
            names
        }
    };
    Ok(Loaded {
        graphs,
        classes: names,
        notes,
    })
}

/// Whether `path` is a folder, or the file of edges in one.
pub(super) fn is_tu(path: &Path) -> bool {
    path.is_dir() || path.to_string_lossy().ends_with(EDGES)
}

/// The file of a named data set that is in the TUDataset format.
fn local(name: &str) -> Result<Option<std::path::PathBuf>> {
    let set = sets::find(name)?;
    if !set.file.ends_with(EDGES) {
        return Ok(None);
    }
    match set.place()? {
        sets::Place::Local(path) | sets::Place::Cached(path) => Ok(Some(path)),
        // Tells how to get it.
        _ => sets::open(name).map(|_| None),
    }
}

fn of_table(job: &Job, name: &str, weighted: bool, context: &Context) -> Result<Raw> {
    let table = job.table(name, context)?;
    let has = |column: &str| table.columns().contains(&column);
    // Roles are those of the main data; graphs to be scored need not have a label.
    let mut roles = job.roles.clone();
    if name != "data" || job.inputs.contains_key("model") {
        for role in [&mut roles.label, &mut roles.id] {
            role.take_if(|column| !table.columns().contains(&column.as_str()));
        }
    }
    if has(rows::EDGES) {
        return rows::read(&table, &roles, weighted);
    }
    let other = |input: &str| -> Result<Option<Table>> {
        match name == "data" && job.inputs.contains_key(input) {
            true => job.table(input, context).map(Some),
            false => Ok(None),
        }
    };
    match (other("nodes")?, other("edges")?) {
        (Some(nodes), Some(edges)) => tables::read(&table, &nodes, &edges, &roles, weighted),
        _ => Err(Error::BadInput(format!(
            "{} is no collection of graphs: it should be a folder of the TUDataset format (its file {EDGES}), a table \
             with one graph a row and a column '{}' with lists such as [[0,1],[1,2]], or a table of graphs beside which \
             --nodes and --edges are given",
            table.name(),
            rows::EDGES
        ))),
    }
}

/// Whether each graph is anomalous, the names of both classes, and what to tell.
type Classified = (Option<Vec<bool>>, Option<[String; 2]>, Option<String>);

fn classified(labels: &[String], classes: Classes<'_>) -> Result<Classified> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for label in labels {
        *counts.entry(label).or_default() += 1;
    }
    let shown = || {
        let mut all: Vec<String> = counts
            .iter()
            .take(8)
            .map(|(l, c)| format!("'{l}' ({c})"))
            .collect();
        if counts.len() > 8 {
            all.push("…".into());
        }
        all.join(", ")
    };
    let (anomalous, names) = match classes {
        Classes::Known(names) => {
            if let Some(label) = counts.keys().find(|l| !names.iter().any(|n| n == **l)) {
                let note = format!(
                    "the labels are left out of account: '{label}' is none of the model's classes, '{}' and '{}'",
                    names[0], names[1]
                );
                return Ok((None, None, Some(note)));
            }
            (names[1].clone(), Some(names[0].clone()))
        }
        Classes::Named(name) => {
            if !counts.contains_key(name) {
                return Err(Error::option(
                    "anomaly",
                    format!("no graph has the label '{name}'; there are {}", shown()),
                ));
            }
            (name.to_owned(), None)
        }
        Classes::Rarer => {
            let mut sizes: Vec<(usize, &str)> = counts.iter().map(|(l, c)| (*c, *l)).collect();
            // Of equally many the later name, which is 1 of 0 and 1.
            sizes.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(a.1)));
            match sizes.as_slice() {
                [(_, rare), (_, common)] => ((*rare).to_owned(), Some((*common).to_owned())),
                _ => {
                    return Err(Error::BadInput(format!(
                        "graphs should be of two classes, but their labels are {}; if one of several is anomalous, name it with --set anomaly=LABEL",
                        shown()
                    )));
                }
            }
        }
    };
    let normal = names.unwrap_or_else(|| {
        let others: Vec<&str> = counts
            .keys()
            .filter(|l| **l != anomalous)
            .copied()
            .collect();
        match others.as_slice() {
            [one] => (*one).to_owned(),
            _ => format!("not {anomalous}"),
        }
    });
    let flags: Vec<bool> = labels.iter().map(|l| *l == anomalous).collect();
    let count = flags.iter().filter(|a| **a).count();
    let note = format!(
        "label '{anomalous}' is taken as anomalous ({count} graphs), '{normal}' as normal ({})",
        flags.len() - count
    );
    Ok((Some(flags), Some([normal, anomalous]), Some(note)))
}

/// `count` of the graphs, drawn from the seed with the classes' shares kept.
///
/// # Errors
/// More than there are.
pub(super) fn some_of(graphs: &GraphSet, count: usize, seed: u64) -> Result<GraphSet> {
    let wrong = |e: papertrial_numerics::sampling::SamplingError| Error::option("graphs", e);
    let labels: Vec<i32> = match &graphs.labels {
        Some(labels) => labels.iter().map(|l| i32::from(*l)).collect(),
        None => vec![0; graphs.len()],
    };
    let quotas = proportional_quotas(&labels, count).map_err(wrong)?;
    let mut draws = rng(seed, "graph-anomaly graphs");
    Ok(graphs.select(&stratified(&mut draws, &labels, &quotas).map_err(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::super::graphs::tests::of_edges;
    use super::*;

    fn labels(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn the_rarer_class_is_anomalous_and_it_is_told() {
        let given = labels(&["1", "-1", "1", "1"]);
        let (flags, names, note) = classified(&given, Classes::Rarer).unwrap();
        assert_eq!(flags.unwrap(), [false, true, false, false]);
        assert_eq!(names.unwrap(), ["1", "-1"]);
        assert!(
            note.unwrap()
                .contains("'-1' is taken as anomalous (1 graphs)")
        );
        let (flags, ..) = classified(&labels(&["0", "1"]), Classes::Rarer).unwrap();
        assert_eq!(flags.unwrap(), [false, true]);
    }

    #[test]
    fn one_class_and_three_are_refused_unless_one_is_named() {
        for wrong in [&["0", "0"][..], &["a", "b", "c"]] {
            let e = classified(&labels(wrong), Classes::Rarer).unwrap_err();
            assert!(e.to_string().contains("two classes"), "{e}");
        }
        let three = labels(&["a", "b", "c", "b"]);
        let (flags, names, _) = classified(&three, Classes::Named("b")).unwrap();
        assert_eq!(flags.unwrap(), [false, true, false, true]);
        assert_eq!(names.unwrap(), ["not b", "b"]);
        assert!(classified(&three, Classes::Named("d")).is_err());
    }

    #[test]
    fn a_model_knows_its_classes() {
        let known = ["0".to_owned(), "1".into()];
        let classes = Classes::Known(&known);
        let (flags, ..) = classified(&labels(&["1", "1"]), classes).unwrap();
        assert_eq!(flags.unwrap(), [true, true]);
        let (flags, _, note) = classified(&labels(&["1", "x"]), classes).unwrap();
        assert!(flags.is_none() && note.unwrap().contains("'x'"));
    }

    #[test]
    fn a_part_keeps_the_shares() {
        let edges: Vec<(usize, &[(usize, usize)])> = vec![(1, &[]); 20];
        let mut set = of_edges(&edges);
        set.labels = Some((0..20).map(|i| i % 5 == 0).collect());
        let part = some_of(&set, 10, 3).unwrap();
        assert_eq!(part.labels.unwrap().iter().filter(|l| **l).count(), 2);
        assert!(some_of(&set, 21, 3).is_err());
    }
}
