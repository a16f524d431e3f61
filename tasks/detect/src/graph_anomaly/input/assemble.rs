//! Graphs as they are read, before the kinds of their nodes are known, and how they become a collection.

use super::super::graphs::{Builder, GraphSet, KIND};
use papertrial_core::{Error, Result};
use std::collections::HashMap;

/// Graphs, their labels as they are written, and what to tell.
#[derive(Debug)]
pub(super) struct Raw {
    pub graphs: GraphSet,
    pub labels: Option<Vec<String>>,
    pub notes: Vec<String>,
}

/// A graph as it is read.
#[derive(Debug, Default)]
pub(super) struct RawGraph {
    pub id: String,
    pub label: Option<String>,
    pub nodes: usize,
    /// Kind of each node, a number of [`Kinds`], or none.
    pub kinds: Vec<u32>,
    /// Numbers of each node, or none.
    pub numbers: Vec<f32>,
    pub edges: Vec<(usize, usize, f32)>,
}

/// Names of kinds of nodes, numbered as they come.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    names: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Kinds {
    pub fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }

    /// Column of each number: the names in order, whole numbers by their value.
    fn columns(&self) -> (Vec<String>, Vec<usize>) {
        let mut order: Vec<usize> = (0..self.names.len()).collect();
        if self.names.iter().all(|n| n.parse::<i64>().is_ok()) {
            order.sort_by_key(|i| self.names[*i].parse::<i64>().unwrap_or_default());
        } else {
            order.sort_by(|a, b| self.names[*a].cmp(&self.names[*b]));
        }
        let mut columns = vec![0; order.len()];
        for (column, number) in order.iter().enumerate() {
            columns[*number] = column;
        }
        let names = order
            .iter()
            .map(|i| format!("{KIND}{}", self.names[*i]))
            .collect();
        (names, columns)
    }
}

/// The collection: kinds of nodes as one feature each, then numbers. Without either, a constant and the degree.
///
/// # Errors
/// Graphs of which only some have kinds, numbers or labels; as [`Builder::push`].
pub(super) fn assemble(graphs: Vec<RawGraph>, kinds: &Kinds, numbers: Vec<String>) -> Result<Raw> {
    let (mut names, columns) = kinds.columns();
    let width = names.len();
    let count = numbers.len();
    names.extend(numbers);
    let bare = names.is_empty();
    if bare {
        names = vec!["one".into(), "degree".into()];
    }
    let mut builder = Builder::new(names.clone());
    let labelled = graphs.iter().filter(|g| g.label.is_some()).count();
    let mut labels = Vec::with_capacity(labelled);
    let total = graphs.len();
    for graph in graphs {
        let n = graph.nodes;
        let missing = |what: &str| {
            Error::BadInput(format!(
                "graph {}: it has {what} for some of its {n} nodes, not for each",
                graph.id
            ))
        };
        if width > 0 && graph.kinds.len() != n {
            return Err(missing("labels of nodes"));
        }
        if count > 0 && graph.numbers.len() != n * count {
            return Err(missing("features"));
        }
        let mut features = vec![0.0f32; n * names.len()];
        for (i, row) in features.chunks_exact_mut(names.len()).enumerate() {
            if bare {
                row[0] = 1.0;
            } else {
                if let Some(kind) = graph.kinds.get(i) {
                    row[columns[*kind as usize]] = 1.0;
                }
                row[width..].copy_from_slice(&graph.numbers[i * count..(i + 1) * count]);
            }
        }
        if bare {
            // As the collection will count them: without loops, each neighbour once.
            let mut pairs: Vec<(usize, usize)> = graph
                .edges
                .iter()
                .filter(|e| e.0 != e.1)
                .flat_map(|e| [(e.0, e.1), (e.1, e.0)])
                .collect();
            pairs.sort_unstable();
            pairs.dedup();
            for (from, _) in pairs.into_iter().filter(|p| p.0 < n) {
                features[2 * from + 1] += 1.0;
            }
        }
        builder.push(graph.id, n, &graph.edges, &features)?;
        labels.extend(graph.label);
    }
    if labelled > 0 && labelled < total {
        return Err(Error::BadInput(format!(
            "{labelled} of {total} graphs have a label; either all should have one, or none"
        )));
    }
    let (graphs, repairs) = builder.finish();
    let mut notes = repairs.notes();
    if bare {
        notes.push("the nodes have no features; a constant and the degree are taken".into());
    }
    Ok(Raw {
        graphs,
        labels: (labelled > 0).then_some(labels),
        notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_become_columns_in_order_and_numbers_follow() {
        let mut kinds = Kinds::default();
        let of = |k: &mut Kinds, names: &[&str]| names.iter().map(|n| k.number(n)).collect();
        let graph = RawGraph {
            id: "a".into(),
            nodes: 2,
            kinds: of(&mut kinds, &["10", "9"]),
            numbers: vec![0.5, 0.25],
            ..RawGraph::default()
        };
        let raw = assemble(vec![graph], &kinds, vec!["charge".into()]).unwrap();
        assert_eq!(raw.graphs.names, ["label=9", "label=10", "charge"]);
        assert_eq!(
            raw.graphs.graph(0).all_features(),
            [0., 1., 0.5, 1., 0., 0.25]
        );
        assert!(raw.labels.is_none());
    }

    #[test]
    fn without_features_the_degree_is_taken() {
        let graph = RawGraph {
            id: "a".into(),
            nodes: 3,
            edges: vec![(0, 1, 1.0), (1, 0, 1.0), (1, 2, 1.0), (2, 2, 1.0)],
            ..RawGraph::default()
        };
        let raw = assemble(vec![graph], &Kinds::default(), vec![]).unwrap();
        assert_eq!(raw.graphs.graph(0).all_features(), [1., 1., 1., 2., 1., 1.]);
        assert_eq!(raw.notes.len(), 3);
    }

    #[test]
    fn graphs_that_are_labelled_in_part_are_refused() {
        let graph = |label: Option<&str>| RawGraph {
            id: "a".into(),
            label: label.map(Into::into),
            ..RawGraph::default()
        };
        let e = assemble(
            vec![graph(Some("0")), graph(None)],
            &Kinds::default(),
            vec![],
        );
        assert!(e.unwrap_err().to_string().contains("1 of 2 graphs"));
    }
}
