//! Folders of the TUDataset collection (Morris and others, *TUDataset: A collection of benchmark datasets for learning
//! with graphs*, 2007.08663): text files NAME_A.txt with an edge a line, NAME_graph_indicator.txt with the graph of each
//! node, and NAME_graph_labels.txt, NAME_node_labels.txt, NAME_node_attributes.txt, NAME_edge_attributes.txt where they
//! exist. Nodes and graphs are numbered from 1, over all graphs; each edge stands in both directions.

use super::EDGES;
use super::assemble::{Kinds, Raw, RawGraph, assemble};
use papertrial_core::{Error, Result};
use std::path::{Path, PathBuf};

/// Reads the folder `path`, or the folder of the file of edges `path`.
///
/// # Errors
/// A file that must exist is missing or is not what it should be; the line is told.
pub(super) fn read(path: &Path, weighted: bool) -> Result<Raw> {
    let stem = stem(path)?;
    let name = |part: &str| PathBuf::from(format!("{stem}_{part}.txt"));
    let indicator = name("graph_indicator");
    let mut members: Vec<usize> = Vec::new();
    let mut most = 0;
    lines(&indicator, |at, text| {
        let graph: usize = number(&indicator, at, text)?;
        if graph == 0 {
            return Err(line(&indicator, at, "graphs are numbered from 1, not 0"));
        }
        most = most.max(graph);
        members.push(graph - 1);
        Ok(())
    })?;
    // Some graphs may be empty; a number far beyond the nodes is an error, and would take memory without end.
    if most > 2 * members.len() + 1000 {
        let what = format!("names graph {most}, with {} nodes in all", members.len());
        return Err(Error::file(&indicator, what));
    }
    let mut graphs: Vec<RawGraph> = (1..=most)
        .map(|g| RawGraph {
            id: g.to_string(),
            ..RawGraph::default()
        })
        .collect();
    // Graph of each node, and its number there.
    let places: Vec<(usize, usize)> = members
        .into_iter()
        .map(|graph| {
            let own = &mut graphs[graph];
            own.nodes += 1;
            (graph, own.nodes - 1)
        })
        .collect();
    let labels = name("graph_labels");
    if labels.is_file() {
        let mut count = 0;
        lines(&labels, |at, text| {
            let Some(graph) = graphs.get_mut(count) else {
                // Graphs at the end may have no nodes.
                graphs.push(RawGraph {
                    id: at.to_string(),
                    label: Some(text.to_owned()),
                    ..RawGraph::default()
                });
                count += 1;
                return Ok(());
            };
            graph.label = Some(text.to_owned());
            count += 1;
            Ok(())
        })?;
        same(&labels, count, graphs.len(), "graphs")?;
    }
    let mut kinds = Kinds::default();
    let node_labels = name("node_labels");
    if node_labels.is_file() {
        let mut count = 0;
        lines(&node_labels, |at, text| {
            let Some((graph, _)) = places.get(count) else {
                return Err(line(&node_labels, at, too_many(places.len(), "nodes")));
            };
            // Some sets give several labels; together they are one kind.
            graphs[*graph].kinds.push(kinds.number(text));
            count += 1;
            Ok(())
        })?;
        same(&node_labels, count, places.len(), "nodes")?;
    }
    let mut width = 0;
    let attributes = name("node_attributes");
    if attributes.is_file() {
        let mut count = 0;
        lines(&attributes, |at, text| {
            let Some((graph, _)) = places.get(count) else {
                return Err(line(&attributes, at, too_many(places.len(), "nodes")));
            };
            let row = text
                .split(',')
                .map(|v| number(&attributes, at, v))
                .collect::<Result<Vec<f32>>>()?;
            if count == 0 {
                width = row.len();
            }
            if row.len() != width || row.iter().any(|v| !v.is_finite()) {
                let what = format!("{text} should be {width} finite numbers, as on the first line");
                return Err(line(&attributes, at, what));
            }
            graphs[*graph].numbers.extend(row);
            count += 1;
            Ok(())
        })?;
        same(&attributes, count, places.len(), "nodes")?;
    }
    let weights = match weighted {
        true => Some(edge_weights(&name("edge_attributes"))?),
        false => None,
    };
    let edges = name("A");
    let mut count = 0;
    lines(&edges, |at, text| {
        let (from, to) = text.split_once(',').ok_or_else(|| {
            line(
                &edges,
                at,
                format!("'{text}' should be two numbers of nodes"),
            )
        })?;
        let mut ends = [(0, 0); 2];
        for (end, text) in ends.iter_mut().zip([from, to]) {
            let node: usize = number(&edges, at, text)?;
            *end = *node
                .checked_sub(1)
                .and_then(|i| places.get(i))
                .ok_or_else(|| {
                    let what = format!("there is no node {node}; nodes are 1 to {}", places.len());
                    line(&edges, at, what)
                })?;
        }
        let [(graph, from), (other, to)] = ends;
        if graph != other {
            let what = format!(
                "the edge {text} joins graph {} and graph {}; an edge stays in its graph",
                graph + 1,
                other + 1
            );
            return Err(line(&edges, at, what));
        }
        let weight = match &weights {
            None => 1.0,
            Some(weights) => *weights.get(count).ok_or_else(|| {
                line(
                    &edges,
                    at,
                    format!("only {} edges have a weight", weights.len()),
                )
            })?,
        };
        graphs[graph].edges.push((from, to, weight));
        count += 1;
        Ok(())
    })?;
    let names = (0..width).map(|f| format!("f{f}")).collect();
    assemble(graphs, &kinds, names)
}

/// The path up to the part's name: FOLDER/NAME.
fn stem(path: &Path) -> Result<String> {
    let text = path.to_string_lossy();
    if let Some(stem) = text.strip_suffix(EDGES) {
        return Ok(stem.to_owned());
    }
    let wrong = |e: std::io::Error| Error::file(path, e.kind());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(wrong)? {
        let name = entry.map_err(wrong)?.path().to_string_lossy().into_owned();
        if let Some(stem) = name.strip_suffix(EDGES) {
            found.push(stem.to_owned());
        }
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::file(
            path,
            format!("is no folder of the TUDataset format: it has no file NAME{EDGES}"),
        )),
        _ => Err(Error::file(
            path,
            format!(
                "has {} files NAME{EDGES}; name the one that is meant",
                found.len()
            ),
        )),
    }
}

fn line(path: &Path, line: usize, problem: impl Into<String>) -> Error {
    Error::Line {
        path: path.to_path_buf(),
        line,
        problem: problem.into(),
    }
}

fn too_many(count: usize, what: &str) -> String {
    format!("there are {count} {what}, and this line is one more")
}

fn same(path: &Path, found: usize, wanted: usize, what: &str) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(Error::file(
        path,
        format!("has {found} lines, but there are {wanted} {what}"),
    ))
}

/// `of` each line that is not blank, with its number from 1.
fn lines(path: &Path, mut of: impl FnMut(usize, &str) -> Result<()>) -> Result<()> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        let what = match e.kind() {
            std::io::ErrorKind::NotFound => {
                "is missing; a folder of the TUDataset format has it".into()
            }
            kind => format!("cannot be read: {kind}"),
        };
        Error::file(path, what)
    })?;
    for (i, text) in text.lines().enumerate() {
        let text = text.trim();
        if !text.is_empty() {
            of(i + 1, text)?;
        }
    }
    Ok(())
}

fn number<T: std::str::FromStr>(path: &Path, at: usize, text: &str) -> Result<T> {
    let text = text.trim();
    text.parse()
        .map_err(|_| line(path, at, format!("'{text}' should be a number")))
}

/// The first number of each line.
fn edge_weights(path: &Path) -> Result<Vec<f32>> {
    let mut weights = Vec::new();
    lines(path, |at, text| {
        let first = text.split(',').next().unwrap_or_default();
        weights.push(number(path, at, first)?);
        Ok(())
    })?;
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these parts.
    fn folder(parts: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (part, text) in parts {
            std::fs::write(folder.path().join(format!("T_{part}.txt")), text).unwrap();
        }
        folder
    }

    const GOOD: [(&str, &str); 4] = [
        ("A", "1, 2\n2, 1\n4,5\n5,4\n"),
        ("graph_indicator", "1\n1\n1\n2\n2\n"),
        ("graph_labels", "-1\n1\n"),
        ("node_labels", "6\n7\n6\n6\n16\n"),
    ];

    #[test]
    fn a_small_folder_by_hand() {
        let folder = folder(&GOOD);
        let raw = read(folder.path(), false).unwrap();
        assert_eq!(raw.graphs.names, ["label=6", "label=7", "label=16"]);
        assert_eq!(raw.labels.unwrap(), ["-1", "1"]);
        assert_eq!(raw.graphs.ids, ["1", "2"]);
        let second = raw.graphs.graph(1);
        assert_eq!((second.nodes(), second.edges()), (2, 1));
        assert_eq!(second.features(1), [0., 0., 1.]);
        assert_eq!(raw.graphs.graph(0).degree(2), 0.0);
        assert!(raw.notes.is_empty());
        // The file of edges means its folder.
        let by_file = read(&folder.path().join("T_A.txt"), false).unwrap();
        assert_eq!(by_file.graphs, raw.graphs);
    }

    #[test]
    fn attributes_and_weights_are_read() {
        let mut parts = GOOD.to_vec();
        parts.push(("node_attributes", "1, .5\n2,0\n3,0\n4,0\n5,-1e-3\n"));
        parts.push(("edge_attributes", "2\n2\n0.5\n0.5\n"));
        let folder = folder(&parts);
        let raw = read(folder.path(), true).unwrap();
        assert_eq!(raw.graphs.width(), 5);
        assert_eq!(raw.graphs.graph(0).features(0), [1., 0., 0., 1., 0.5]);
        assert_eq!(raw.graphs.graph(1).degree(0), 0.5);
    }

    #[test]
    fn faults_are_told_with_file_and_line() {
        let with = |part: &str, text: &str| {
            let mut parts: Vec<_> = GOOD.iter().filter(|p| p.0 != part).copied().collect();
            if !text.is_empty() {
                parts.push((part, text));
            }
            let folder = folder(&parts);
            read(folder.path(), false).unwrap_err().to_string()
        };
        for (text, told) in [
            (
                with("A", "1, 2\n2, 4\n"),
                "T_A.txt:2: the edge 2, 4 joins graph 1 and graph 2",
            ),
            (with("A", "0, 1\n"), "there is no node 0"),
            (with("A", "1 2\n"), "two numbers"),
            (with("A", "x, 2\n"), "'x' should be a number"),
            (
                with("graph_labels", "0\n"),
                "has 1 lines, but there are 2 graphs",
            ),
            (with("node_labels", "0\n1\n"), "but there are 5 nodes"),
            (with("node_labels", "0\n1\n1\n1\n1\n1\n"), "one more"),
            (with("node_attributes", "0\nNaN\n1\n1\n1\n"), "finite"),
            (
                with("node_attributes", "0\n1,2\n1\n1\n1\n"),
                "should be 1 finite",
            ),
            (with("graph_indicator", "1\n1\n1\n9000\n2\n"), "graph 9000"),
            (with("graph_indicator", ""), "is missing"),
        ] {
            assert!(text.contains(told), "{text}");
        }
        let e = read(tempfile::tempdir().unwrap().path(), false).unwrap_err();
        assert!(e.to_string().contains("no file NAME_A.txt"), "{e}");
    }
}
