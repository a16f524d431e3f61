//! Tables with one graph a row: JSON lines, Parquet or Arrow, with lists.
//!
//! Column `edges`: a list of two node numbers each, from 0, and a weight if edges have one. Features of the nodes:
//! `features` (or `nodes`), a list of numbers for each node; `node_labels`, a list with the kind of each node; or neither,
//! and `nodes` may be their number. The label's column is named by --label, else it is `label`; the identifier's by --id,
//! else it is `id`.

use super::assemble::{Kinds, Raw, RawGraph, assemble};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use papertrial_core::data::{Roles, Table};
use papertrial_core::{Error, Result};
use std::sync::Arc;

/// Column of the edges.
pub(super) const EDGES: &str = "edges";

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

/// A column in another type.
fn turned(
    table: &Table,
    name: &str,
    array: &ArrayRef,
    to: &DataType,
    wish: &str,
) -> Result<ArrayRef> {
    let from = array.data_type();
    let wrong = || {
        Error::column(
            table.name(),
            name,
            format!("holds {from}; it should hold {wish}"),
        )
    };
    // A single value is no list of one.
    if matches!(to, DataType::List(_)) && !is_list(from) && *from != DataType::Null {
        return Err(wrong());
    }
    cast(array, to).map_err(|_| wrong())
}

fn is_list(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _)
    )
}

/// The column with a role, or the one with the usual name if there is one.
pub(super) fn role(
    table: &Table,
    option: &str,
    named: Option<&str>,
    usual: &str,
) -> Result<Option<usize>> {
    match named {
        Some(name) => table.column_for(option, name).map(Some),
        None => Ok(table.columns().iter().position(|c| *c == usual)),
    }
}

/// What the nodes have.
struct Columns {
    edges: usize,
    /// Lists of numbers.
    features: Option<usize>,
    /// Lists of kinds.
    kinds: Option<usize>,
    /// Numbers of nodes.
    count: Option<usize>,
}

impl Columns {
    fn of(table: &Table) -> Result<Columns> {
        let place = |name: &str| table.columns().iter().position(|c| *c == name);
        let lists = |at: &usize| is_list(table.schema().field(*at).data_type());
        let nodes = place("nodes");
        Ok(Columns {
            edges: table.column_for("--data", EDGES)?,
            features: place("features").or(nodes.filter(lists)),
            kinds: place("node_labels"),
            count: nodes.filter(|at| !lists(at)),
        })
    }
}

/// The items of row `row` of a list column; none where it is null.
fn items(array: &ArrayRef, row: usize) -> Option<ArrayRef> {
    let lists = array.as_list::<i32>();
    lists.is_valid(row).then(|| lists.value(row))
}

/// Reads the table.
///
/// # Errors
/// A column that is missing or holds something else; the row is told.
pub(super) fn read(table: &Table, roles: &Roles, weighted: bool) -> Result<Raw> {
    let columns = Columns::of(table)?;
    let labels = match role(table, "--label", roles.label.as_deref(), "label")? {
        Some(at) => Some(table.texts(at)?),
        None => None,
    };
    let ids = match role(table, "--id", roles.id.as_deref(), "id")? {
        Some(at) => Some(table.texts(at)?),
        None => None,
    };
    let mut kinds = Kinds::default();
    let mut graphs: Vec<RawGraph> = Vec::new();
    let mut width = None;
    let numbers = list_of(list_of(DataType::Float64));
    for batch in table.batches()? {
        let batch = batch?;
        let of = |at: usize, to: &DataType, wish: &str| {
            let name = table.schema().field(at).name().clone();
            turned(table, &name, batch.column(at), to, wish)
        };
        let edges = of(columns.edges, &numbers, "lists such as [[0,1],[1,2]]")?;
        let features = columns
            .features
            .map(|at| of(at, &numbers, "a list of numbers for each node"))
            .transpose()?;
        let names = columns
            .kinds
            .map(|at| {
                of(
                    at,
                    &list_of(DataType::Utf8),
                    "a list with the kind of each node",
                )
            })
            .transpose()?;
        let counts = columns
            .count
            .map(|at| of(at, &DataType::Int64, "the number of nodes"))
            .transpose()?;
        for r in 0..batch.num_rows() {
            let row = graphs.len();
            let id = ids
                .as_ref()
                .and_then(|ids| ids.get(row).cloned().flatten())
                .unwrap_or_else(|| (row + 1).to_string());
            let wrong = |what: String| {
                Error::BadInput(format!(
                    "{}: graph {id} (row {}): {what}",
                    table.name(),
                    row + 1
                ))
            };
            let mut graph = RawGraph {
                label: labels.as_ref().and_then(|l| l.get(row).cloned().flatten()),
                ..RawGraph::default()
            };
            let mut known = None;
            if let Some(list) = features.as_ref().and_then(|f| items(f, r)) {
                let lists = list.as_list::<i32>();
                known = Some(lists.len());
                for i in 0..lists.len() {
                    let node = lists.value(i);
                    let node = node.as_primitive::<Float64Type>();
                    let width = *width.get_or_insert(node.len());
                    if node.len() != width || node.null_count() > 0 {
                        return Err(wrong(format!(
                            "node {i} has {} features{}; every node of every graph should have {width}",
                            node.len(),
                            if node.null_count() > 0 {
                                ", some of them empty"
                            } else {
                                ""
                            }
                        )));
                    }
                    graph
                        .numbers
                        .extend(node.values().iter().map(|v| *v as f32));
                }
            }
            if let Some(list) = names.as_ref().and_then(|n| items(n, r)) {
                let texts = list.as_string::<i32>();
                if known.is_some_and(|n| n != texts.len()) {
                    return Err(wrong(format!(
                        "{} nodes have features, but {} have a kind in node_labels",
                        known.unwrap_or(0),
                        texts.len()
                    )));
                }
                known = Some(texts.len());
                for text in texts {
                    let text = text.ok_or_else(|| wrong("a node has an empty kind".into()))?;
                    graph.kinds.push(kinds.number(text));
                }
            }
            if let Some(counts) = &counts {
                let counts = counts.as_primitive::<Int64Type>();
                let count = if counts.is_valid(r) {
                    counts.value(r)
                } else {
                    0
                };
                let count = usize::try_from(count)
                    .ok()
                    .filter(|n| *n <= u32::MAX as usize)
                    .ok_or_else(|| wrong(format!("{count} is no number of nodes")))?;
                if known.is_some_and(|n| n != count) {
                    return Err(wrong(format!(
                        "it should have {count} nodes, but {} are given",
                        known.unwrap_or(0)
                    )));
                }
                known = Some(count);
            }
            let mut last = 0;
            if let Some(list) = items(&edges, r) {
                let lists = list.as_list::<i32>();
                for i in 0..lists.len() {
                    let edge = lists.value(i);
                    let edge = edge.as_primitive::<Float64Type>();
                    let ends = edge.values();
                    if !(2..=3).contains(&edge.len()) || edge.null_count() > 0 {
                        return Err(wrong(format!(
                            "edge {i} should be two nodes, and a weight if it has one"
                        )));
                    }
                    let node = |v: f64| match v.fract() == 0.0
                        && (0.0..f64::from(u32::MAX)).contains(&v)
                    {
                        true => Ok(v as usize),
                        false => Err(wrong(format!(
                            "edge {i} has the end {v}; nodes are numbered from 0"
                        ))),
                    };
                    let (from, to) = (node(ends[0])?, node(ends[1])?);
                    last = last.max(from + 1).max(to + 1);
                    let weight = match ends.get(2) {
                        Some(weight) if weighted => *weight as f32,
                        _ => 1.0,
                    };
                    graph.edges.push((from, to, weight));
                }
            }
            // Without features a node exists only through its edges.
            graph.nodes = known.unwrap_or(last);
            enough(graph.nodes, known.is_some(), graph.edges.len()).map_err(wrong)?;
            graph.id = id;
            graphs.push(graph);
        }
    }
    let names = (0..width.unwrap_or(0)).map(|f| format!("f{f}")).collect();
    assemble(graphs, &kinds, names)
}

/// Nodes that no list holds and hardly an edge names are more likely an error than a graph.
fn enough(nodes: usize, known: bool, edges: usize) -> std::result::Result<(), String> {
    match !known && nodes > 1000 * (edges + 1) {
        true => Err(format!(
            "an edge names node {}, but there are only {edges} edges; give the number of nodes in a column 'nodes'",
            nodes - 1
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(lines: &str) -> Result<Raw> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.jsonl");
        std::fs::write(&path, lines).unwrap();
        read(
            &Table::open(&path, &Default::default())?,
            &Roles::default(),
            false,
        )
    }

    #[test]
    fn json_lines_with_features_and_kinds() {
        let raw = open(
            "{\"id\":\"a\",\"label\":1,\"features\":[[0.5,1],[2,3]],\"edges\":[[0,1]]}\n\
             {\"id\":\"b\",\"label\":0,\"features\":[[1,1]],\"edges\":[]}\n",
        )
        .unwrap();
        assert_eq!(raw.graphs.ids, ["a", "b"]);
        assert_eq!(raw.labels.unwrap(), ["1", "0"]);
        assert_eq!(raw.graphs.graph(0).all_features(), [0.5, 1., 2., 3.]);
        assert_eq!(
            (raw.graphs.graph(0).edges(), raw.graphs.graph(1).edges()),
            (1, 0)
        );
        let raw = open("{\"node_labels\":[\"C\",\"N\"],\"edges\":[[0,1],[1,0]]}\n").unwrap();
        assert_eq!(raw.graphs.names, ["label=C", "label=N"]);
        assert!(raw.labels.is_none() && raw.notes.is_empty());
        let raw =
            open("{\"nodes\":3,\"edges\":[[0,1],[1,0]]}\n{\"nodes\":1,\"edges\":[]}\n").unwrap();
        assert_eq!(raw.graphs.names, ["one", "degree"]);
        assert_eq!(raw.graphs.graph(0).nodes(), 3);
    }

    #[test]
    fn weights_count_only_if_asked_for() {
        let line = "{\"nodes\":2,\"edges\":[[0,1,0.25],[1,0,0.25]]}\n";
        assert_eq!(open(line).unwrap().graphs.graph(0).degree(0), 1.0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.jsonl");
        std::fs::write(&path, line).unwrap();
        let table = Table::open(&path, &Default::default()).unwrap();
        let raw = read(&table, &Roles::default(), true).unwrap();
        assert_eq!(raw.graphs.graph(0).degree(0), 0.25);
    }

    #[test]
    fn faults_are_told_with_graph_and_row() {
        for (lines, told) in [
            (
                "{\"features\":[[1,2],[1]],\"edges\":[]}\n",
                "node 1 has 1 features",
            ),
            (
                "{\"features\":[[1]],\"edges\":[]}\n{\"features\":[[1,2]],\"edges\":[]}\n",
                "(row 2): node 0 has 2 features",
            ),
            (
                "{\"features\":[[1]],\"edges\":[[0,1]]}\n",
                "numbered from 0",
            ),
            (
                "{\"features\":[[1],[1]],\"edges\":[[0,1,2,3]]}\n",
                "two nodes",
            ),
            (
                "{\"features\":[[1],[1]],\"edges\":[[0,-1]]}\n",
                "the end -1",
            ),
            (
                "{\"features\":[[1],[1]],\"edges\":[[0,0.5]]}\n",
                "the end 0.5",
            ),
            (
                "{\"node_labels\":[\"C\"],\"features\":[[1],[1]],\"edges\":[]}\n",
                "1 have a kind",
            ),
            ("{\"nodes\":-3,\"edges\":[[0,1]]}\n", "no number of nodes"),
            ("{\"edges\":[[0,4000000]]}\n", "column 'nodes'"),
            (
                "{\"features\":\"x\",\"edges\":[[0,1]]}\n",
                "list of numbers for each node",
            ),
        ] {
            let text = open(lines).unwrap_err().to_string();
            assert!(text.contains(told), "{text}");
        }
    }
}
