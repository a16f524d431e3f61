//! A collection of small undirected graphs with features of their nodes.
//!
//! All graphs lie one behind the other: their nodes, the neighbours of each node (compressed rows) and the features.
//! From a user's lists of edges to this form, what is not an undirected simple graph is put right and counted: loops
//! and repeated edges are left out, edges listed in one direction are taken both ways.

use papertrial_core::{Error, Result};
use rayon::prelude::*;

/// Graphs that are worked on at once by one thread.
const BLOCK: usize = 16;

/// Graphs, the features of their nodes, and labels if they are known.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GraphSet {
    /// Identifier of each graph.
    pub ids: Vec<String>,
    /// Whether each graph is anomalous, where that is known.
    pub labels: Option<Vec<bool>>,
    /// Names of the d features of a node.
    pub names: Vec<String>,
    /// First node of each graph, and the number of all nodes at the end.
    starts: Vec<usize>,
    /// First entry of each node in `targets`, and the number of all entries at the end.
    rows: Vec<usize>,
    /// Neighbours of each node, ascending, numbered within their graph. Every edge has two entries.
    targets: Vec<u32>,
    /// Weight of each entry.
    weights: Vec<f32>,
    /// Features, [nodes, d] in row-major order.
    features: Vec<f32>,
}

/// One graph of a [`GraphSet`].
#[derive(Debug, Clone, Copy)]
pub struct Graph<'a> {
    set: &'a GraphSet,
    first: usize,
    nodes: usize,
}

impl<'a> Graph<'a> {
    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Number of edges.
    pub fn edges(&self) -> usize {
        (self.set.rows[self.first + self.nodes] - self.set.rows[self.first]) / 2
    }

    /// Neighbours of node `i`, numbered within the graph, with the weights of their edges.
    pub fn neighbours(&self, i: usize) -> impl Iterator<Item = (usize, f32)> + 'a {
        let set = self.set;
        let entries = set.rows[self.first + i]..set.rows[self.first + i + 1];
        set.targets[entries.clone()]
            .iter()
            .zip(&set.weights[entries])
            .map(|(target, weight)| (*target as usize, *weight))
    }

    /// Sum of the weights at node `i`: its degree where edges have no weights of their own.
    pub fn degree(&self, i: usize) -> f32 {
        let entries = self.set.rows[self.first + i]..self.set.rows[self.first + i + 1];
        self.set.weights[entries].iter().sum()
    }

    /// 1 / sqrt(degree) of each node; 0 of a node without neighbours.
    pub fn scales(&self) -> Vec<f32> {
        (0..self.nodes)
            .map(|i| match self.degree(i) {
                d if d > 0.0 => 1.0 / d.sqrt(),
                _ => 0.0,
            })
            .collect()
    }

    /// Features of node `i`.
    pub fn features(&self, i: usize) -> &'a [f32] {
        let d = self.set.width();
        &self.set.features[(self.first + i) * d..(self.first + i + 1) * d]
    }

    /// Features of all its nodes, [nodes, d] in row-major order.
    pub fn all_features(&self) -> &'a [f32] {
        let d = self.set.width();
        &self.set.features[self.first * d..(self.first + self.nodes) * d]
    }
}

impl GraphSet {
    /// Number of graphs.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no graph.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Number of features of a node.
    pub fn width(&self) -> usize {
        self.names.len()
    }

    /// Number of all nodes.
    pub fn nodes(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Number of all edges.
    pub fn edges(&self) -> usize {
        self.targets.len() / 2
    }

    /// The graph at `index`.
    pub fn graph(&self, index: usize) -> Graph<'_> {
        Graph {
            set: self,
            first: self.starts[index],
            nodes: self.starts[index + 1] - self.starts[index],
        }
    }

    /// All graphs.
    pub fn graphs(&self) -> impl Iterator<Item = Graph<'_>> {
        (0..self.len()).map(|g| self.graph(g))
    }

    /// `of` each graph, computed on all threads, in the order of the graphs.
    pub fn map<T: Send>(&self, of: impl Fn(Graph<'_>) -> T + Sync) -> Vec<T> {
        (0..self.len())
            .into_par_iter()
            .with_min_len(BLOCK)
            .map(|g| of(self.graph(g)))
            .collect()
    }

    /// The graphs at `which`, in that order.
    pub fn select(&self, which: &[usize]) -> GraphSet {
        let mut chosen = GraphSet {
            names: self.names.clone(),
            labels: self.labels.as_ref().map(|_| Vec::new()),
            starts: vec![0],
            rows: vec![0],
            ..GraphSet::default()
        };
        for &index in which {
            let graph = self.graph(index);
            chosen.ids.push(self.ids[index].clone());
            if let (Some(to), Some(from)) = (&mut chosen.labels, &self.labels) {
                to.push(from[index]);
            }
            let nodes = graph.first..graph.first + graph.nodes;
            let entries = self.rows[nodes.start]..self.rows[nodes.end];
            let before = chosen.targets.len();
            chosen.rows.extend(
                self.rows[nodes.start + 1..=nodes.end]
                    .iter()
                    .map(|r| r - entries.start + before),
            );
            chosen.targets.extend(&self.targets[entries.clone()]);
            chosen.weights.extend(&self.weights[entries]);
            chosen.features.extend(graph.all_features());
            chosen
                .starts
                .push(chosen.starts[chosen.starts.len() - 1] + graph.nodes);
        }
        chosen
    }

    /// The same graphs with the features `names`, in that order, as a model was trained on. Features that only one
    /// side has are told: a kind of node (`label=...`) that the model knows and these graphs lack is 0; others are
    /// left out.
    ///
    /// # Errors
    /// A feature that is no kind of node is missing.
    pub fn aligned(mut self, names: &[String]) -> Result<(GraphSet, Vec<String>)> {
        if self.names == names {
            return Ok((self, Vec::new()));
        }
        let places: Vec<Option<usize>> = names
            .iter()
            .map(|n| self.names.iter().position(|m| m == n))
            .collect();
        if let Some((name, _)) = names
            .iter()
            .zip(&places)
            .find(|(name, place)| place.is_none() && !name.starts_with(KIND))
        {
            return Err(Error::BadInput(format!(
                "the model was trained on graphs whose nodes have the feature '{name}'; these have {}",
                shortened(&self.names)
            )));
        }
        let mut notes = Vec::new();
        let unknown: Vec<String> = self
            .names
            .iter()
            .filter(|n| !names.contains(n))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            notes.push(format!(
                "features that the model does not know are left out: {}",
                shortened(&unknown)
            ));
        }
        let d = self.width();
        let features = (0..self.nodes())
            .flat_map(|i| {
                let row = &self.features[i * d..(i + 1) * d];
                places.iter().map(|p| p.map_or(0.0, |p| row[p]))
            })
            .collect();
        self.features = features;
        self.names = names.to_vec();
        Ok((self, notes))
    }
}

/// What names of features that stand for a kind of node begin with.
pub(super) const KIND: &str = "label=";

/// Up to eight names in a row.
fn shortened(names: &[String]) -> String {
    let mut text = names[..names.len().min(8)].join(", ");
    if names.len() > 8 {
        text.push_str(", …");
    }
    text
}

/// What was put right while graphs were taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repairs {
    /// Edges from a node to itself, left out.
    pub loops: usize,
    /// Edges listed more than once in the same direction, counted once.
    pub repeats: usize,
    /// Edges listed in one direction, taken both ways.
    pub one_way: usize,
}

impl Repairs {
    /// In words, one sentence each.
    pub fn notes(&self) -> Vec<String> {
        [
            (self.loops, "edges from a node to itself were left out"),
            (self.repeats, "repeated edges were counted once"),
            (
                self.one_way,
                "edges were listed in one direction and are taken both ways",
            ),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect()
    }
}

/// Takes graphs in, one after the other.
#[derive(Debug)]
pub struct Builder {
    set: GraphSet,
    repairs: Repairs,
}

impl Builder {
    /// For graphs whose nodes have the features `names`.
    pub fn new(names: Vec<String>) -> Self {
        Builder {
            set: GraphSet {
                names,
                starts: vec![0],
                rows: vec![0],
                ..GraphSet::default()
            },
            repairs: Repairs::default(),
        }
    }

    /// Takes a graph: its number of nodes, edges as (from, to, weight) with nodes numbered from 0, and features
    /// [nodes, d] in row-major order.
    ///
    /// # Errors
    /// An edge to a node that is not there, a weight that is negative or not finite, features of another number, or one
    /// that is not finite.
    pub fn push(
        &mut self,
        id: String,
        nodes: usize,
        edges: &[(usize, usize, f32)],
        features: &[f32],
    ) -> Result<()> {
        let wrong = |what: String| Error::BadInput(format!("graph {id}: {what}"));
        let d = self.set.width();
        if features.len() != nodes * d {
            return Err(wrong(format!(
                "{} numbers as features of {nodes} nodes, where each node should have {d}",
                features.len()
            )));
        }
        if let Some(at) = features.iter().position(|v| !v.is_finite()) {
            return Err(wrong(format!(
                "feature {} of node {} is {}; features must be finite numbers",
                self.set.names[at % d],
                at / d,
                features[at]
            )));
        }
        let mut listed = Vec::with_capacity(edges.len());
        for &(from, to, weight) in edges {
            if from >= nodes || to >= nodes {
                return Err(wrong(format!(
                    "an edge joins node {from} and node {to}, but its {nodes} nodes are numbered from 0"
                )));
            }
            if !weight.is_finite() || weight < 0.0 {
                return Err(wrong(format!(
                    "the edge of node {from} and node {to} has weight {weight}; weights must not be negative"
                )));
            }
            if from == to {
                self.repairs.loops += 1;
            } else {
                listed.push((from as u32, to as u32, weight));
            }
        }
        listed.sort_by_key(|e| (e.0, e.1));
        let before = listed.len();
        listed.dedup_by_key(|e| (e.0, e.1));
        self.repairs.repeats += before - listed.len();
        let find = |from, to| listed.binary_search_by_key(&(from, to), |e| (e.0, e.1));
        let mut entries = Vec::with_capacity(2 * listed.len());
        for &(from, to, weight) in &listed {
            match find(to, from) {
                Ok(back) => entries.push((from, to, 0.5 * (weight + listed[back].2))),
                Err(_) => {
                    self.repairs.one_way += 1;
                    entries.extend([(from, to, weight), (to, from, weight)]);
                }
            }
        }
        entries.sort_by_key(|e| (e.0, e.1));
        let mut next = entries.into_iter().peekable();
        for node in 0..nodes {
            while let Some((_, to, weight)) = next.next_if(|e| e.0 as usize == node) {
                self.set.targets.push(to);
                self.set.weights.push(weight);
            }
            self.set.rows.push(self.set.targets.len());
        }
        self.set.features.extend(features);
        self.set.starts.push(self.set.nodes() + nodes);
        self.set.ids.push(id);
        Ok(())
    }

    /// The graphs, and what was put right.
    pub fn finish(self) -> (GraphSet, Repairs) {
        (self.set, self.repairs)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Graphs of one feature from lists of edges; the feature of node i is i + 1.
    pub fn of_edges(graphs: &[(usize, &[(usize, usize)])]) -> GraphSet {
        let mut builder = Builder::new(vec!["f0".into()]);
        for (g, (nodes, edges)) in graphs.iter().enumerate() {
            let edges: Vec<_> = edges.iter().map(|(a, b)| (*a, *b, 1.0)).collect();
            let features: Vec<f32> = (1..=*nodes).map(|i| i as f32).collect();
            builder
                .push(g.to_string(), *nodes, &edges, &features)
                .unwrap();
        }
        builder.finish().0
    }

    #[test]
    fn loops_repeats_and_single_directions_are_put_right_and_counted() {
        let mut builder = Builder::new(vec![]);
        let edges = [(0, 1), (1, 0), (1, 1), (1, 2), (1, 2)].map(|(a, b)| (a, b, 1.0));
        builder.push("a".into(), 4, &edges, &[]).unwrap();
        let (set, repairs) = builder.finish();
        let wanted = Repairs {
            loops: 1,
            repeats: 1,
            one_way: 1,
        };
        assert_eq!(repairs, wanted);
        let graph = set.graph(0);
        assert_eq!((graph.nodes(), graph.edges(), set.edges()), (4, 2, 2));
        assert_eq!(graph.neighbours(1).map(|n| n.0).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(graph.scales()[3], 0.0);
        assert_eq!(repairs.notes().len(), 3);
    }

    #[test]
    fn directions_with_two_weights_get_their_mean() {
        let mut builder = Builder::new(vec![]);
        let edges = [(0, 1, 1.0), (1, 0, 3.0), (1, 2, 4.0)];
        builder.push("a".into(), 3, &edges, &[]).unwrap();
        let set = builder.finish().0;
        let weights: Vec<f32> = set.graph(0).neighbours(1).map(|n| n.1).collect();
        assert_eq!(weights, [2.0, 4.0]);
        assert_eq!(set.graph(0).degree(1), 6.0);
    }

    #[test]
    fn wrong_graphs_are_told_with_their_name() {
        let push = |nodes, edges: &[(usize, usize, f32)], features: &[f32]| {
            Builder::new(vec!["f0".into()])
                .push("g7".into(), nodes, edges, features)
                .unwrap_err()
                .to_string()
        };
        for (text, told) in [
            (push(2, &[(0, 2, 1.0)], &[1.0, 1.0]), "numbered from 0"),
            (push(2, &[(0, 1, -1.0)], &[1.0, 1.0]), "negative"),
            (push(2, &[], &[1.0]), "should have 1"),
            (push(2, &[], &[1.0, f32::NAN]), "node 1 is NaN"),
        ] {
            assert!(text.contains("g7") && text.contains(told), "{text}");
        }
    }

    #[test]
    fn features_follow_the_model() {
        let mut builder = Builder::new(vec!["label=N".into(), "label=C".into()]);
        builder.push("a".into(), 2, &[], &[1., 0., 0., 1.]).unwrap();
        let set = builder.finish().0;
        let names = ["label=C".to_string(), "label=O".into()];
        let (set, notes) = set.aligned(&names).unwrap();
        assert_eq!(set.graph(0).all_features(), [0., 0., 1., 0.]);
        assert!(notes[0].contains("label=N"));
        let text = set.aligned(&["charge".into()]).unwrap_err().to_string();
        assert!(text.contains("'charge'"), "{text}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn neighbours_are_symmetric_and_parts_are_the_whole(
            edges in proptest::collection::vec((0usize..7, 0usize..7), 0..30),
        ) {
            let set = of_edges(&[(3, &[(0, 1)]), (7, &edges), (0, &[])]);
            let graph = set.graph(1);
            for i in 0..7 {
                for (j, w) in graph.neighbours(i) {
                    prop_assert!(i != j && graph.neighbours(j).any(|n| n == (i, w)));
                    prop_assert!(edges.contains(&(i, j)) || edges.contains(&(j, i)));
                }
            }
            prop_assert_eq!(set.select(&[0, 1, 2]), set.clone());
            let turned = set.select(&[2, 1]);
            prop_assert_eq!(turned.graph(1).edges(), graph.edges());
            prop_assert_eq!(turned.graph(0).nodes(), 0);
        }
    }
}
