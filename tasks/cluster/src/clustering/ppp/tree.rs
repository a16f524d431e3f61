//! The tree of splits: how it grows, and how it is told.

use super::order::gather;
use super::split::{Measures, Rules, split};
use crate::clustering::Scaling;
use crate::gaussian::{self, Mixture};
use ndarray::{Array2, ArrayView2, CowArray, Ix2};
use papertrial_core::Result;
use papertrial_core::task::Context;
use papertrial_numerics::linalg::column_means;
use serde::Serialize;
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A set of rows, and what came of the attempt to split it.
pub(super) struct Node {
    /// Its parent's number.
    pub parent: Option<usize>,
    /// Splits above it.
    pub depth: usize,
    /// Number of rows.
    pub rows: usize,
    /// Mean of its rows, \[d\].
    pub centre: Vec<f64>,
    /// What was measured of its split, whether accepted or not; `None` where there was none to try.
    pub measures: Option<Measures>,
    /// Its two parts, if its split was accepted.
    pub children: Option<[usize; 2]>,
    /// The mixture of its split, if accepted.
    pub mixture: Option<Mixture>,
    /// Why it is a leaf.
    pub reason: Option<String>,
    /// The rows of a leaf, ascending.
    pub members: Vec<u32>,
    /// For each of them the product of posteriors along the way from the root.
    pub path: Vec<f64>,
}

impl Node {
    pub(super) fn is_leaf(&self) -> bool {
        self.children.is_none()
    }
}

/// Nodes, each before its parts and the first part before the second; the root is number 0.
pub(super) struct Tree {
    pub nodes: Vec<Node>,
    /// Rows from which mixtures of all rows are fitted, ascending.
    pub sample: Vec<u32>,
    /// Side of each row in the root's split, if one could be made.
    pub root_sides: Option<Vec<u32>>,
}

/// What all nodes share while the tree grows.
struct Ground<'a> {
    x: ArrayView2<'a, f64>,
    /// The rows in the mixture's space, where that is another.
    z: Option<ArrayView2<'a, f64>>,
    rules: &'a Rules,
    max_depth: usize,
    context: &'a Context<'a>,
    /// Rows that have found their leaf.
    settled: AtomicUsize,
}

/// A node before it is numbered.
struct Grown {
    node: Node,
    parts: Option<Box<[Grown; 2]>>,
    sample: Vec<u32>,
    sides: Option<Vec<u32>>,
}

/// Grows the tree on rows x \[n, d\], tried in z \[n, q\] or, without it, in x itself.
pub(super) fn grow(
    x: ArrayView2<f64>,
    z: Option<ArrayView2<f64>>,
    rules: &Rules,
    max_depth: usize,
    context: &Context,
) -> Result<Tree> {
    let n = x.nrows();
    let ground = Ground {
        x,
        z,
        rules,
        max_depth,
        context,
        settled: AtomicUsize::new(0),
    };
    let mut root = ground.node((0..n as u32).collect(), vec![1.0; n], "r".into())?;
    let mut tree = Tree {
        nodes: Vec::new(),
        sample: std::mem::take(&mut root.sample),
        root_sides: root.sides.take(),
    };
    if tree.sample.is_empty() {
        tree.sample = super::split::stride(&vec![0.0; n]);
    }
    tree.number(root, None);
    Ok(tree)
}

impl Ground<'_> {
    /// Steps 1 to 5 for the rows of one node; `place` spells the way to it from the root.
    fn node(&self, rows: Vec<u32>, path: Vec<f64>, place: String) -> Result<Grown> {
        let depth = place.len() - 1;
        let whole = rows.len() == self.x.nrows();
        let pick = |all: ArrayView2<'_, f64>| -> Array2<f64> { gather(all, &rows) };
        let x: CowArray<f64, Ix2> = if whole {
            self.x.into()
        } else {
            pick(self.x).into()
        };
        let mut grown = Grown {
            node: Node {
                parent: None,
                depth,
                rows: rows.len(),
                centre: column_means(x.view()),
                measures: None,
                children: None,
                mixture: None,
                reason: None,
                members: Vec::new(),
                path: Vec::new(),
            },
            parts: None,
            sample: Vec::new(),
            sides: None,
        };
        let trial = if rows.len() < 2 * self.rules.least {
            let least = self.rules.least;
            grown.node.reason = Some(format!(
                "{} rows are too few for two sides of {least}",
                rows.len()
            ));
            None
        } else if depth >= self.max_depth {
            grown.node.reason = Some(format!("the depth limit of {} is reached", self.max_depth));
            None
        } else {
            let z: Option<CowArray<f64, Ix2>> = match self.z {
                Some(z) if whole => Some(z.into()),
                Some(z) => Some(pick(z).into()),
                None => None,
            };
            let z = z.as_ref().map_or(x.view(), |z| z.view());
            let trial = split(x.view(), z, &place, self.rules)?;
            if trial.is_none() {
                grown.node.reason = Some("its rows are all equal".into());
            }
            trial
        };
        // The copies of the rows are not needed below this node, which bounds the memory of the recursion.
        drop(x);
        let Some(trial) = trial else {
            return Ok(self.leaf(grown, rows, path));
        };
        grown.node.measures = Some(trial.measures);
        if whole {
            grown.sample = trial.sample;
            grown.sides = Some(trial.sides.clone());
        }
        if !trial.refusals.is_empty() {
            grown.node.reason = Some(trial.refusals.join("; "));
            return Ok(self.leaf(grown, rows, path));
        }
        grown.node.mixture = Some(trial.mixture);
        let part = |side: u32| {
            let mine = || {
                trial
                    .sides
                    .iter()
                    .enumerate()
                    .filter(|(_, s)| **s == side)
                    .map(|(i, _)| i)
            };
            let along = |i| path[i] * trial.own[i];
            (
                mine().map(|i| rows[i]).collect::<Vec<u32>>(),
                mine().map(along).collect::<Vec<f64>>(),
            )
        };
        let (first, second) = (part(0), part(1));
        drop((rows, path, trial.sides, trial.own));
        let (first, second) = rayon::join(
            || self.node(first.0, first.1, format!("{place}0")),
            || self.node(second.0, second.1, format!("{place}1")),
        );
        grown.parts = Some(Box::new([first?, second?]));
        Ok(grown)
    }

    fn leaf(&self, mut grown: Grown, rows: Vec<u32>, path: Vec<f64>) -> Grown {
        let before = self.settled.fetch_add(rows.len(), Ordering::Relaxed);
        self.context
            .step("splitting", before + rows.len(), self.x.nrows());
        grown.node.members = rows;
        grown.node.path = path;
        grown
    }
}

impl Tree {
    fn number(&mut self, grown: Grown, parent: Option<usize>) -> usize {
        let id = self.nodes.len();
        self.nodes.push(Node {
            parent,
            ..grown.node
        });
        if let Some(parts) = grown.parts {
            let [first, second] = *parts;
            let children = [self.number(first, Some(id)), self.number(second, Some(id))];
            self.nodes[id].children = Some(children);
        }
        id
    }

    /// The leaves by falling size; of equal ones that with the earlier first row comes first.
    pub(super) fn leaves(&self) -> Vec<usize> {
        let mut leaves: Vec<usize> = (0..self.nodes.len())
            .filter(|i| self.nodes[*i].is_leaf())
            .collect();
        leaves.sort_by_key(|i| {
            let node = &self.nodes[*i];
            (std::cmp::Reverse(node.rows), node.members.first().copied())
        });
        leaves
    }

    /// For each row its leaf's place in `leaves` and the product of posteriors on the way to it.
    pub(super) fn places(&self, leaves: &[usize]) -> (Vec<u32>, Vec<f64>) {
        let n = self.nodes[0].rows;
        let (mut label, mut path) = (vec![0; n], vec![1.0; n]);
        for (place, leaf) in leaves.iter().enumerate() {
            let leaf = &self.nodes[*leaf];
            for (row, product) in leaf.members.iter().zip(&leaf.path) {
                label[*row as usize] = place as u32;
                path[*row as usize] = *product;
            }
        }
        (label, path)
    }

    /// The product of posteriors \[n, leaves\] on the way to each leaf, for all rows z \[n, q\]; rows sum to 1.
    pub(super) fn memberships(&self, z: ArrayView2<f64>, leaves: &[usize]) -> Result<Array2<f64>> {
        let mut out = Array2::ones((z.nrows(), leaves.len()));
        for node in &self.nodes {
            let (Some(mixture), Some(children)) = (&node.mixture, node.children) else {
                continue;
            };
            let (posterior, _) = gaussian::responsibilities(z, mixture)?;
            for (place, leaf) in leaves.iter().enumerate() {
                if let Some(side) = children.iter().position(|child| self.above(*child, *leaf)) {
                    let mut column = out.column_mut(place);
                    column *= &posterior.column(side);
                }
            }
        }
        Ok(out)
    }

    /// Whether `node` is `ancestor` or lies below it.
    fn above(&self, ancestor: usize, mut node: usize) -> bool {
        while let Some(parent) = self.nodes[node].parent {
            if node == ancestor {
                return true;
            }
            node = parent;
        }
        node == ancestor
    }

    /// The node whose accepted split has the largest J; of equal ones the nearest to the root.
    pub(super) fn most_separable(&self) -> Option<(usize, &Measures)> {
        let mut best: Option<(usize, &Measures)> = None;
        for (id, node) in self.nodes.iter().enumerate() {
            let Some(found) = node.measures.as_ref().filter(|_| !node.is_leaf()) else {
                continue;
            };
            let better = best.is_none_or(|(leader, most)| {
                found.separation > most.separation
                    || (found.separation == most.separation
                        && node.depth < self.nodes[leader].depth)
            });
            if better {
                best = Some((id, found));
            }
        }
        best
    }

    /// Least share of runs of 2-means that agreed on an accepted split.
    pub(super) fn least_stability(&self) -> Option<f64> {
        let accepted = self.nodes.iter().filter(|node| !node.is_leaf());
        let shares = accepted.filter_map(|node| node.measures.as_ref()?.stability);
        shares.reduce(f64::min)
    }

    /// The nodes for `tree.json`; `clusters` gives the final cluster of a leaf, centres are in the file's units.
    pub(super) fn told<'a>(
        &'a self,
        clusters: &'a [Option<usize>],
        scaling: Option<&Scaling>,
    ) -> Vec<Told<'a>> {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .map(|(id, node)| Told {
                id,
                parent: node.parent,
                depth: node.depth,
                rows: node.rows,
                centre: match scaling {
                    Some(s) => {
                        let places = node.centre.iter().zip(&s.mean).zip(&s.deviation);
                        places
                            .map(|((c, mean), deviation)| c * deviation + mean)
                            .collect()
                    }
                    None => node.centre.clone(),
                },
                children: node.children,
                cluster: clusters[id],
                split: node.measures.as_ref(),
                reason: node.reason.as_deref(),
            })
            .collect()
    }

    /// The tree in the language of Graphviz.
    pub(super) fn dot(&self, clusters: &[Option<usize>]) -> String {
        let mut text = String::from("digraph tree {\n  node [shape=box];\n");
        for (id, node) in self.nodes.iter().enumerate() {
            let told = match (node.is_leaf(), clusters[id], &node.measures) {
                (true, Some(cluster), _) => format!("cluster {cluster}\\n{} rows", node.rows),
                (false, _, Some(found)) => format!(
                    "{} rows\\nJ {:.1}, BIC gap {:.0}\\nagreement {:.3}",
                    node.rows, found.separation, found.bic_gap, found.agreement
                ),
                _ => format!("{} rows", node.rows),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  n{id} [label=\"{told}\"];");
            for child in node.children.iter().flatten() {
                let _ = writeln!(text, "  n{id} -> n{child};");
            }
        }
        text.push_str("}\n");
        text
    }
}

/// A node as `tree.json` tells it.
#[derive(Serialize)]
pub(super) struct Told<'a> {
    id: usize,
    parent: Option<usize>,
    depth: usize,
    rows: usize,
    centre: Vec<f64>,
    children: Option<[usize; 2]>,
    /// Cluster that the leaf became.
    cluster: Option<usize>,
    /// Measures of its split, accepted or refused.
    split: Option<&'a Measures>,
    /// Why it is a leaf.
    reason: Option<&'a str>,
}
