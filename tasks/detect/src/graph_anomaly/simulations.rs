//! `flipped-signals`: random graphs with smooth features, and a rare class in which some nodes have the other sign.
//!
//! 1. A graph: its number of nodes drawn evenly between two limits, each pair joined with the probability that gives the
//!    mean degree asked for (Erdős and Rényi).
//! 2. Smooth features: (I - L/2)^s Z with Z [n, d] from the normal distribution: a part at eigenvalue lambda is
//!    multiplied by (1 - lambda/2)^s.
//! 3. An anomalous graph: all features of a share of its nodes, drawn at random and at least one, change their sign.
//!
//! Mean and size of the features are the same in both classes; only their spread over the spectrum differs.

use arrow::array::{ArrayRef, Float32Builder, Int32Array, Int32Builder, ListBuilder, StringArray};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::Roles;
use papertrial_core::options::{self, Settings};
use papertrial_core::task::Simulation;
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::{permutation, rng, sample_sorted};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// All simulations of the task.
pub(crate) const SIMULATIONS: &[Simulation] = &[Simulation {
    name: "flipped-signals",
    about: "random graphs with smooth features of their nodes; in the rare graphs some nodes have the other sign",
    options: options::describe::<FlippedSignals>,
    roles,
    generate: flipped_signals,
}];

fn roles() -> Roles {
    Roles {
        label: Some("label".into()),
        id: Some("id".into()),
        ..Roles::default()
    }
}

/// Options of `flipped-signals`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct FlippedSignals {
    /// Graphs.
    #[schemars(range(min = 2))]
    graphs: usize,
    /// Share of anomalous graphs.
    #[schemars(range(min = 0.0, max = 0.5))]
    anomaly_share: f64,
    /// Share of an anomalous graph's nodes whose features change their sign.
    #[schemars(range(min = 0.0, max = 1.0))]
    flipped: f64,
    /// Fewest nodes of a graph.
    #[schemars(range(min = 2))]
    nodes_least: usize,
    /// Most nodes of a graph.
    #[schemars(range(min = 2))]
    nodes_most: usize,
    /// Mean number of neighbours.
    #[schemars(range(min = 0.0))]
    degree: f64,
    /// Features of a node.
    #[schemars(range(min = 1))]
    features: usize,
    /// How often the features are smoothed, s.
    smoothings: usize,
}

impl Default for FlippedSignals {
    fn default() -> Self {
        FlippedSignals {
            graphs: 600,
            anomaly_share: 0.08,
            flipped: 0.1,
            nodes_least: 20,
            nodes_most: 40,
            degree: 4.0,
            features: 8,
            smoothings: 4,
        }
    }
}

/// Steps 1 and 2: edges, and features [n, d] in row-major order.
fn drawn(n: usize, asked: &FlippedSignals, rng: &mut ChaCha8Rng) -> (Vec<[i32; 2]>, Vec<f32>) {
    let chance = (asked.degree / (n - 1) as f64).min(1.0);
    let mut edges = Vec::new();
    let mut degrees = vec![0.0f64; n];
    for i in 0..n {
        for j in i + 1..n {
            if rng.random::<f64>() < chance {
                edges.push([i as i32, j as i32]);
                degrees[i] += 1.0;
                degrees[j] += 1.0;
            }
        }
    }
    let d = asked.features;
    let mut x: Vec<f64> = (0..n * d).map(|_| StandardNormal.sample(rng)).collect();
    for _ in 0..asked.smoothings {
        // I - L/2 = (I + D^(-1/2) A D^(-1/2)) / 2 at a node with neighbours, and I at one without.
        let mut next = vec![0.0f64; n * d];
        for (i, degree) in degrees.iter().enumerate() {
            let own = if *degree > 0.0 { 0.5 } else { 1.0 };
            for f in 0..d {
                next[i * d + f] = own * x[i * d + f];
            }
        }
        for edge in &edges {
            let [i, j] = edge.map(|v| v as usize);
            let weight = 0.5 / (degrees[i] * degrees[j]).sqrt();
            for f in 0..d {
                next[i * d + f] += weight * x[j * d + f];
                next[j * d + f] += weight * x[i * d + f];
            }
        }
        x = next;
    }
    (edges, x.into_iter().map(|v| v as f32).collect())
}

/// Columns id, label (1 anomalous), features (a list of numbers for each node) and edges (a list of two numbers each).
fn flipped_signals(seed: u64, settings: &Settings) -> Result<RecordBatch> {
    let asked: FlippedSignals = options::build("flipped-signals", settings)?;
    if asked.nodes_least > asked.nodes_most {
        return Err(Error::option(
            "nodes-least",
            format!(
                "{} is more than nodes-most, {}",
                asked.nodes_least, asked.nodes_most
            ),
        ));
    }
    let anomalous = (asked.anomaly_share * asked.graphs as f64).round() as usize;
    let mut labels = vec![0; asked.graphs];
    for g in &permutation(&mut rng(seed, "flipped-signals classes"), asked.graphs)[..anomalous] {
        labels[*g] = 1;
    }
    let mut features = ListBuilder::new(ListBuilder::new(Float32Builder::new()));
    let mut lists = ListBuilder::new(ListBuilder::new(Int32Builder::new()));
    for (g, label) in labels.iter().enumerate() {
        let mut draws = rng(seed, &format!("flipped-signals graph {g}"));
        let n = draws.random_range(asked.nodes_least..=asked.nodes_most);
        let (edges, mut x) = drawn(n, &asked, &mut draws);
        if *label == 1 {
            let count = ((asked.flipped * n as f64).round() as usize).max(1);
            let turned =
                sample_sorted(&mut draws, n, count).map_err(|e| Error::option("flipped", e))?;
            for node in turned {
                let row = node * asked.features..(node + 1) * asked.features;
                x[row].iter_mut().for_each(|v| *v = -*v);
            }
        }
        for row in x.chunks(asked.features) {
            features.values().values().append_slice(row);
            features.values().append(true);
        }
        features.append(true);
        for edge in edges {
            lists.values().values().append_slice(&edge);
            lists.values().append(true);
        }
        lists.append(true);
    }
    let columns: [(&str, ArrayRef); 4] = [
        (
            "id",
            Arc::new(StringArray::from_iter_values(
                (0..asked.graphs).map(|g| format!("g{g}")),
            )),
        ),
        ("label", Arc::new(Int32Array::from(labels))),
        ("features", Arc::new(features.finish())),
        ("edges", Arc::new(lists.finish())),
    ];
    RecordBatch::try_from_iter(columns).map_err(|e| Error::Failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Int32Type;
    use rand::SeedableRng;

    fn settings(value: serde_json::Value) -> Settings {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn shares_are_exact_and_the_seed_decides() {
        let few = settings(serde_json::json!({"graphs": 50, "anomaly-share": 0.1}));
        let batch = flipped_signals(3, &few).unwrap();
        let labels = batch.column(1).as_primitive::<Int32Type>();
        assert_eq!(labels.values().iter().sum::<i32>(), 5);
        assert_eq!(batch, flipped_signals(3, &few).unwrap());
        assert_ne!(batch, flipped_signals(4, &few).unwrap());
        let wrong = settings(serde_json::json!({"nodes-least": 9, "nodes-most": 8}));
        assert!(flipped_signals(3, &wrong).is_err());
    }

    #[test]
    fn smoothing_keeps_what_is_at_eigenvalue_0_and_removes_what_is_at_2() {
        // Two nodes on one edge: after smoothing both have the mean.
        let asked = FlippedSignals {
            degree: 10.0,
            features: 2,
            smoothings: 1,
            ..FlippedSignals::default()
        };
        let (edges, x) = drawn(2, &asked, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(edges, [[0, 1]]);
        assert_eq!(x[..2], x[2..]);
    }
}
