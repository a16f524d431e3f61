//! Three tables: graphs (graph_id, label), nodes (graph_id, node_id, features) and edges (graph_id, src, dst, weight).
//!
//! Every other column of the nodes is a feature: numbers as they are, and at most one column of texts as the kind of the
//! node. Identifiers of nodes are of any kind, and mean a node of their graph only.

use super::assemble::{Kinds, Raw, RawGraph, assemble};
use super::rows::role;
use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use papertrial_core::data::{Roles, Table};
use papertrial_core::{Error, Result};
use std::collections::HashMap;

/// Reads the three tables.
///
/// # Errors
/// A column that is missing, a graph or node that is not there or comes twice, an empty cell, a feature that is no
/// number.
pub(super) fn read(
    data: &Table,
    nodes: &Table,
    edges: &Table,
    roles: &Roles,
    weighted: bool,
) -> Result<Raw> {
    let id = match &roles.id {
        Some(name) => data.column_for("--id", name)?,
        None => data.column_for("--id", "graph_id")?,
    };
    let labels = match role(data, "--label", roles.label.as_deref(), "label")? {
        Some(at) => Some(data.texts(at)?),
        None => None,
    };
    let mut graphs = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (row, id) in filled(data, id)?.into_iter().enumerate() {
        if places.insert(id.clone(), row).is_some() {
            return Err(Error::column(
                data.name(),
                "graph_id",
                format!("graph {id} comes twice"),
            ));
        }
        graphs.push(RawGraph {
            id,
            label: labels.as_ref().and_then(|l| l[row].clone()),
            ..RawGraph::default()
        });
    }
    let place = |table: &Table, id: &str| {
        places.get(id).copied().ok_or_else(|| {
            let what = format!("graph {id} is not in {}", data.name());
            Error::column(table.name(), "graph_id", what)
        })
    };

    let at = |name: &str| nodes.column_for("--nodes", name);
    let (graph_column, node_column) = (at("graph_id")?, at("node_id")?);
    let owners = filled(nodes, graph_column)?;
    let names = filled(nodes, node_column)?;
    let (numeric, kinds_column) = features(nodes, &[graph_column, node_column])?;
    let values: Vec<Vec<f32>> = numeric
        .iter()
        .map(|c| numbers(nodes, *c))
        .collect::<Result<_>>()?;
    let node_kinds = kinds_column.map(|c| filled(nodes, c)).transpose()?;
    let mut kinds = Kinds::default();
    // Number of each node within its graph.
    let mut members: Vec<HashMap<String, usize>> = vec![HashMap::new(); graphs.len()];
    for (row, (owner, name)) in owners.iter().zip(names).enumerate() {
        let g = place(nodes, owner)?;
        let graph = &mut graphs[g];
        if members[g].insert(name.clone(), graph.nodes).is_some() {
            let what = format!("node {name} of graph {owner} comes twice");
            return Err(Error::column(nodes.name(), "node_id", what));
        }
        graph.nodes += 1;
        graph
            .numbers
            .extend(values.iter().map(|column| column[row]));
        if let Some(texts) = &node_kinds {
            graph.kinds.push(kinds.number(&texts[row]));
        }
    }

    let at = |name: &str| edges.column_for("--edges", name);
    let owners = filled(edges, at("graph_id")?)?;
    let (from, to) = (filled(edges, at("src")?)?, filled(edges, at("dst")?)?);
    let weights = match weighted {
        true => Some(numbers(edges, at("weight")?)?),
        false => None,
    };
    for (row, (owner, ends)) in owners.iter().zip(from.iter().zip(&to)).enumerate() {
        let g = place(edges, owner)?;
        let end = |name: &String| {
            members[g].get(name).copied().ok_or_else(|| {
                Error::BadInput(format!(
                    "{}: row {}: graph {owner} has no node {name}; an edge joins two nodes of its graph",
                    edges.name(),
                    row + 1
                ))
            })
        };
        let weight = weights.as_ref().map_or(1.0, |w| w[row]);
        graphs[g].edges.push((end(ends.0)?, end(ends.1)?, weight));
    }
    let names = numeric
        .iter()
        .map(|c| nodes.schema().field(*c).name().clone())
        .collect();
    assemble(graphs, &kinds, names)
}

/// A column's cells as texts, none of them empty.
fn filled(table: &Table, at: usize) -> Result<Vec<String>> {
    table
        .texts(at)?
        .into_iter()
        .enumerate()
        .map(|(row, text)| {
            text.ok_or_else(|| {
                let name = table.schema().field(at).name();
                Error::column(table.name(), name, format!("row {} is empty", row + 1))
            })
        })
        .collect()
}

/// The columns of numbers, and the one of texts.
fn features(nodes: &Table, known: &[usize]) -> Result<(Vec<usize>, Option<usize>)> {
    let mut numeric = Vec::new();
    let mut kinds = None;
    for (at, field) in nodes.schema().fields().iter().enumerate() {
        if known.contains(&at) {
            continue;
        }
        match field.data_type() {
            t if t.is_numeric() || *t == DataType::Boolean => numeric.push(at),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View if kinds.is_none() => {
                kinds = Some(at);
            }
            other => {
                return Err(Error::column(
                    nodes.name(),
                    field.name(),
                    format!(
                        "holds {other}; features are numbers, beside one column of texts at most"
                    ),
                ));
            }
        }
    }
    Ok((numeric, kinds))
}

/// A column of numbers, none of them empty.
fn numbers(table: &Table, at: usize) -> Result<Vec<f32>> {
    let name = table.schema().field(at).name().clone();
    let mut all = Vec::new();
    for array in table.column(at)? {
        let array =
            cast(&array, &DataType::Float64).map_err(|e| Error::column(table.name(), &name, e))?;
        for value in array.as_primitive::<Float64Type>() {
            let value = value.ok_or_else(|| {
                Error::column(
                    table.name(),
                    &name,
                    format!("row {} is empty", all.len() + 1),
                )
            })?;
            all.push(value as f32);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, text: &str) -> (tempfile::TempDir, Table) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let table = Table::open(&path, &Default::default()).unwrap();
        (folder, table)
    }

    fn given(graphs: &str, nodes: &str, edges: &str) -> Result<Raw> {
        let (a, b, c) = (
            table("g.csv", graphs),
            table("n.csv", nodes),
            table("e.csv", edges),
        );
        read(&a.1, &b.1, &c.1, &Roles::default(), false)
    }

    const GRAPHS: &str = "graph_id,label\nx,0\ny,1\n";
    const NODES: &str = "graph_id,node_id,charge,atom\ny,7,0.5,C\nx,1,1,N\ny,9,2,O\n";
    const EDGES: &str = "graph_id,src,dst\ny,9,7\n";

    #[test]
    fn three_tables_by_hand() {
        let raw = given(GRAPHS, NODES, EDGES).unwrap();
        assert_eq!(
            raw.graphs.names,
            ["label=C", "label=N", "label=O", "charge"]
        );
        assert_eq!(raw.labels.unwrap(), ["0", "1"]);
        let y = raw.graphs.graph(1);
        assert_eq!(y.all_features(), [1., 0., 0., 0.5, 0., 0., 1., 2.]);
        assert_eq!((y.edges(), raw.graphs.graph(0).nodes()), (1, 1));
    }

    #[test]
    fn faults_are_told() {
        for (result, told) in [
            (
                given(GRAPHS, NODES, "graph_id,src,dst\ny,9,1\n"),
                "graph y has no node 1",
            ),
            (
                given(GRAPHS, NODES, "graph_id,src,dst\nz,9,1\n"),
                "graph z is not in",
            ),
            (
                given("graph_id,label\nx,0\nx,1\n", NODES, EDGES),
                "comes twice",
            ),
            (
                given(GRAPHS, "graph_id,node_id,f\nx,1,0\nx,1,2\n", EDGES),
                "node 1 of graph x",
            ),
            (
                given(GRAPHS, "graph_id,node_id,f\nx,1,0\ny,1,\n", EDGES),
                "row 2 is empty",
            ),
            (given(GRAPHS, "graph_id,f\nx,1\n", EDGES), "node_id"),
        ] {
            let text = result.unwrap_err().to_string();
            assert!(text.contains(told), "{text}");
        }
    }
}
