//! Weisfeiler-Lehman features of graphs, and two detectors on them.
//!
//! Shervashidze, Schweitzer, van Leeuwen, Mehlhorn and Borgwardt, *Weisfeiler-Lehman Graph Kernels*, JMLR 12, 2011:
//!
//! 1. The first name of a node is the row of its features if all features are whole numbers (kinds of atoms, say), else
//!    its number of neighbours.
//! 2. In each of `rounds` rounds a node is renamed by its name and the sorted names of its neighbours (64-bit hashes).
//! 3. Features of a graph: how often each name of each round occurs; its row is scaled to length 1, so that products
//!    of rows are the normalised kernel.
//!
//! `wl-logistic` is a logistic regression on them; its strength is chosen by AUC on validation graphs. `wl-one-class` is
//! the one-class support vector machine (Schölkopf and others, *Estimating the Support of a High-Dimensional
//! Distribution*, 2001) of the normal training graphs alone: it never sees an anomalous one, and its score is
//! rho / (rho + w . x), above one half beyond the boundary.
//!
//! Cost: O(rounds edges log) for the features; the support vector machine holds the products of all pairs of at most
//! `most` normal graphs and takes a few times that many steps.

use super::graphs::{Graph, GraphSet};
use super::logistic::{Logistic, Sparse, fit_best};
use super::networks::Lessons;
use super::{Detector, Fitted, Scorer, Split, read_state, write_state};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::{rng, sample_sorted};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Mixes `more` into `hash`; every bit of both matters to every bit of the result (the finish of splitmix64).
fn mixed(hash: u64, more: u64) -> u64 {
    let mut z =
        (hash ^ more.wrapping_mul(0xff51_afd7_ed55_8ccd)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Step 1 for all graphs: whether features name the nodes.
fn features_name_nodes(graphs: &GraphSet) -> bool {
    graphs.width() > 0
        && graphs
            .graphs()
            .all(|g| g.all_features().iter().all(|v| v.fract() == 0.0))
}

/// Steps 1 to 3 without the scaling: counts of names, by name.
fn counts(graph: Graph<'_>, rounds: usize, by_features: bool) -> BTreeMap<u64, u32> {
    let mut names: Vec<u64> = (0..graph.nodes())
        .map(|i| {
            if by_features {
                let row = graph.features(i);
                // 0 and -0 are one number.
                row.iter()
                    .fold(1, |h, v| mixed(h, u64::from((v + 0.0).to_bits())))
            } else {
                mixed(2, graph.neighbours(i).count() as u64)
            }
        })
        .collect();
    let mut counts = BTreeMap::new();
    for round in 0..=rounds {
        for name in &names {
            // A name of another round is another name, even where the hash is the same.
            *counts.entry(mixed(round as u64, *name)).or_insert(0) += 1;
        }
        if round < rounds {
            names = (0..graph.nodes())
                .map(|i| {
                    let mut around: Vec<u64> = graph.neighbours(i).map(|n| names[n.0]).collect();
                    around.sort_unstable();
                    around.iter().fold(mixed(3, names[i]), |h, n| mixed(h, *n))
                })
                .collect();
        }
    }
    counts
}

/// The names that were seen in training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Vocabulary {
    rounds: usize,
    by_features: bool,
    /// Column of each name.
    columns: BTreeMap<u64, u32>,
}

impl Vocabulary {
    /// Of the graphs at `which`, and the rows of all graphs.
    fn of(graphs: &GraphSet, which: &[usize], rounds: usize) -> (Vocabulary, Sparse) {
        let by_features = features_name_nodes(graphs);
        let all = graphs.map(|g| counts(g, rounds, by_features));
        let mut columns = BTreeMap::new();
        for &g in which {
            for name in all[g].keys() {
                let next = columns.len() as u32;
                columns.entry(*name).or_insert(next);
            }
        }
        let vocabulary = Vocabulary {
            rounds,
            by_features,
            columns,
        };
        let rows = vocabulary.rows(&all);
        (vocabulary, rows)
    }

    /// Rows of length 1; names that were never seen have a share of that length but no column.
    fn rows(&self, all: &[BTreeMap<u64, u32>]) -> Sparse {
        let mut rows = Sparse::new(self.columns.len());
        for counts in all {
            let squares: f64 = counts.values().map(|c| f64::from(*c).powi(2)).sum();
            let length = squares.sqrt().max(f64::MIN_POSITIVE);
            rows.push(counts.iter().filter_map(|(name, count)| {
                let column = self.columns.get(name)?;
                Some((*column, f64::from(*count) / length))
            }));
        }
        rows
    }

    /// Rows of other graphs.
    fn read(&self, graphs: &GraphSet) -> Sparse {
        self.rows(&graphs.map(|g| counts(g, self.rounds, self.by_features)))
    }
}

/// The rows at `which`, in that order.
fn part(rows: &Sparse, which: &[usize]) -> Sparse {
    let mut some = Sparse::new(rows.width);
    for &r in which {
        some.push(rows.row(r).map(|(c, v)| (c as u32, v)));
    }
    some
}

/// Logistic regression on Weisfeiler-Lehman features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct WlLogistic {
    /// Rounds of renaming.
    #[schemars(range(min = 0, max = 16))]
    pub rounds: usize,
}

impl Default for WlLogistic {
    fn default() -> Self {
        WlLogistic { rounds: 3 }
    }
}

impl Method for WlLogistic {
    const FACTS: Facts = Facts {
        name: "wl-logistic",
        about: "logistic regression on how often each Weisfeiler-Lehman neighbourhood occurs",
        paper: None,
        streams: false,
    };
}

#[derive(Serialize, Deserialize)]
struct WlLogisticModel {
    vocabulary: Vocabulary,
    logistic: Logistic,
}

impl Scorer for WlLogisticModel {
    fn score(&self, graphs: &GraphSet, _: &Context) -> Result<Vec<f64>> {
        let rows = self.vocabulary.read(graphs);
        Ok(self.logistic.probabilities(&rows))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        write_state(folder, self)
    }

    fn parameters(&self) -> Option<usize> {
        Some(self.logistic.weights.len() + 1)
    }
}

impl Detector for WlLogistic {
    fn fit(&self, graphs: &GraphSet, split: &Split, _: &Lessons, _: &Context) -> Result<Fitted> {
        let (vocabulary, rows) = Vocabulary::of(graphs, &split.train, self.rounds);
        let (logistic, strength) = fit_best(
            &part(&rows, &split.train),
            &split.truth(graphs, &split.train)?,
            &part(&rows, &split.validation),
            &split.truth(graphs, &split.validation)?,
        )?;
        let note = format!(
            "{} neighbourhoods; strength {strength} of the logistic regression",
            vocabulary.columns.len()
        );
        Ok(Fitted::of(
            WlLogisticModel {
                vocabulary,
                logistic,
            },
            vec![note],
        ))
    }

    fn load(&self, folder: &Path, _: usize, _: &Context) -> Result<Box<dyn Scorer>> {
        Ok(Box::new(read_state::<WlLogisticModel>(folder)?))
    }
}

/// One-class support vector machine on Weisfeiler-Lehman features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct WlOneClass {
    /// Rounds of renaming.
    #[schemars(range(min = 0, max = 16))]
    pub rounds: usize,
    /// Share of the normal training graphs that may lie beyond the boundary.
    #[schemars(range(max = 0.99), extend("exclusiveMinimum" = 0.0))]
    pub nu: f64,
    /// Most normal training graphs, drawn at random where there are more.
    #[schemars(range(min = 2, max = 20000))]
    pub most: usize,
}

impl Default for WlOneClass {
    fn default() -> Self {
        WlOneClass {
            rounds: 3,
            nu: 0.1,
            most: 2000,
        }
    }
}

impl Method for WlOneClass {
    const FACTS: Facts = Facts {
        name: "wl-one-class",
        about: "one-class support vector machine on Weisfeiler-Lehman features of normal graphs alone",
        paper: None,
        streams: false,
    };
}

#[derive(Serialize, Deserialize)]
struct WlOneClassModel {
    vocabulary: Vocabulary,
    weights: Vec<f64>,
    rho: f64,
}

impl Scorer for WlOneClassModel {
    fn score(&self, graphs: &GraphSet, _: &Context) -> Result<Vec<f64>> {
        let rows = self.vocabulary.read(graphs);
        Ok((0..rows.len())
            .map(|r| self.rho / (self.rho + rows.dot(r, &self.weights)).max(f64::MIN_POSITIVE))
            .collect())
    }

    fn save(&self, folder: &Path) -> Result<()> {
        write_state(folder, self)
    }
}

impl Detector for WlOneClass {
    fn fit(
        &self,
        graphs: &GraphSet,
        split: &Split,
        _: &Lessons,
        context: &Context,
    ) -> Result<Fitted> {
        let truth = split.truth(graphs, &split.train)?;
        let mut normal: Vec<usize> = (split.train.iter().zip(&truth))
            .filter(|(_, anomalous)| !**anomalous)
            .map(|(g, _)| *g)
            .collect();
        if normal.len() < 2 {
            return Err(Error::BadInput(
                "a one-class detector learns from normal graphs; at least 2 are needed".into(),
            ));
        }
        if normal.len() > self.most {
            let mut draws = rng(context.seed, "graph-anomaly normal graphs");
            let drawn = sample_sorted(&mut draws, normal.len(), self.most)
                .map_err(|e| Error::option("most", e))?;
            normal = drawn.into_iter().map(|i| normal[i]).collect();
        }
        let n = normal.len() as u64;
        context.require("the products of all pairs of normal graphs", 4 * n * n)?;
        let (vocabulary, rows) = Vocabulary::of(graphs, &normal, self.rounds);
        let rows = part(&rows, &normal);
        let (alphas, rho) = one_class(&products(&rows), self.nu);
        let mut weights = vec![0.0; rows.width];
        for (r, alpha) in alphas.iter().enumerate() {
            for (c, v) in rows.row(r) {
                weights[c] += alpha * v;
            }
        }
        let note = format!(
            "{} normal graphs, {} of them support vectors",
            normal.len(),
            alphas.iter().filter(|a| **a > 0.0).count()
        );
        Ok(Fitted::of(
            WlOneClassModel {
                vocabulary,
                weights,
                rho,
            },
            vec![note],
        ))
    }

    fn load(&self, folder: &Path, _: usize, _: &Context) -> Result<Box<dyn Scorer>> {
        Ok(Box::new(read_state::<WlOneClassModel>(folder)?))
    }
}

/// Products of all pairs of rows.
fn products(rows: &Sparse) -> Vec<Vec<f32>> {
    (0..rows.len())
        .into_par_iter()
        .map(|r| {
            let mut dense = vec![0.0; rows.width];
            rows.row(r).for_each(|(c, v)| dense[c] = v);
            (0..rows.len())
                .map(|s| rows.dot(s, &dense) as f32)
                .collect()
        })
        .collect()
}

/// The dual of the one-class support vector machine: minimises a . K a / 2 with 0 <= a_i <= 1 / (nu n) and sum 1, a pair
/// of the worst violators at a time, and gives rho, the product at the boundary.
fn one_class(kernel: &[Vec<f32>], nu: f64) -> (Vec<f64>, f64) {
    let n = kernel.len();
    let most = 1.0 / (nu * n as f64).max(1.0);
    // The first share of the rows is full at the start.
    let mut left = 1.0;
    let mut alphas: Vec<f64> = (0..n)
        .map(|_| {
            let a = f64::min(most, left);
            left -= a;
            a
        })
        .collect();
    let mut outputs: Vec<f64> = kernel
        .iter()
        .map(|row| {
            row.iter()
                .zip(&alphas)
                .map(|(k, a)| f64::from(*k) * a)
                .sum()
        })
        .collect();
    for _ in 0..100 * n {
        // Raise where the output is least, lower where it is greatest; of equal ones the first.
        let mut up = None;
        let mut down = None;
        for (i, (alpha, output)) in alphas.iter().zip(&outputs).enumerate() {
            if *alpha < most && up.is_none_or(|u: usize| *output < outputs[u]) {
                up = Some(i);
            }
            if *alpha > 0.0 && down.is_none_or(|d: usize| *output > outputs[d]) {
                down = Some(i);
            }
        }
        let (Some(up), Some(down)) = (up, down) else {
            break;
        };
        let gap = outputs[down] - outputs[up];
        if gap < 1e-5 {
            break;
        }
        let bend = f64::from(kernel[up][up] + kernel[down][down] - 2.0 * kernel[up][down]);
        let step = (gap / bend.max(1e-12))
            .min(most - alphas[up])
            .min(alphas[down]);
        alphas[up] += step;
        alphas[down] -= step;
        // What is left of rounding would be chosen again and again.
        if alphas[down] < 1e-12 * most {
            alphas[down] = 0.0;
        }
        if most - alphas[up] < 1e-12 * most {
            alphas[up] = most;
        }
        for (i, output) in outputs.iter_mut().enumerate() {
            *output += step * f64::from(kernel[up][i] - kernel[down][i]);
        }
    }
    let free: Vec<f64> = (0..n)
        .filter(|i| alphas[*i] > 0.0 && alphas[*i] < most)
        .map(|i| outputs[i])
        .collect();
    let rho = if free.is_empty() {
        (0..n)
            .filter(|i| alphas[*i] > 0.0)
            .map(|i| outputs[i])
            .fold(0.0, f64::max)
    } else {
        free.iter().sum::<f64>() / free.len() as f64
    };
    (alphas, rho)
}

#[cfg(test)]
mod tests {
    use super::super::graphs::Builder;
    use super::super::graphs::tests::of_edges;
    use super::*;

    #[test]
    fn names_tell_graphs_apart_as_the_test_of_isomorphism_does() {
        let rounds = 2;
        // A path of four, the same with other numbers, and a star of four.
        let set = of_edges(&[
            (4, &[(0, 1), (1, 2), (2, 3)]),
            (4, &[(2, 0), (0, 3), (3, 1)]),
            (4, &[(0, 1), (0, 2), (0, 3)]),
        ]);
        let of = |g| counts(set.graph(g), rounds, false);
        assert_eq!(of(0), of(1));
        assert_ne!(of(0), of(2));
        // Round 0: two names (degrees), twice each; round 1 likewise; round 2 likewise.
        assert_eq!(of(0).len(), 6);
        assert!(of(0).values().all(|c| *c == 2));
        // The features 1 to 4 are four names.
        assert!(features_name_nodes(&set));
        assert_eq!(counts(set.graph(0), 0, true).len(), 4);
        assert_ne!(counts(set.graph(0), 1, true), counts(set.graph(1), 1, true));
    }

    #[test]
    fn rows_have_length_one_and_unknown_names_no_column() {
        let set = of_edges(&[(2, &[(0, 1)]), (3, &[(0, 1), (1, 2)])]);
        let (vocabulary, rows) = Vocabulary::of(&set, &[0], 1);
        let squares = |r: usize| rows.row(r).map(|e| e.1 * e.1).sum::<f64>();
        assert!((squares(0) - 1.0).abs() < 1e-12 && squares(1) < 0.9);
        assert_eq!(vocabulary.read(&set), rows);
        let real = {
            let mut builder = Builder::new(vec!["x".into()]);
            builder
                .push("a".into(), 2, &[(0, 1, 1.0)], &[0.5, 0.25])
                .unwrap();
            builder.finish().0
        };
        assert!(!features_name_nodes(&real));
    }

    #[test]
    fn the_support_vector_machine_meets_its_conditions() {
        // Rows of angle 0 to 0.9, and one far off at 2.5.
        let angles: Vec<f64> = (0..10).map(|i| f64::from(i) * 0.1).chain([2.5]).collect();
        let kernel: Vec<Vec<f32>> = angles
            .iter()
            .map(|a| {
                angles
                    .iter()
                    .map(|b| ((a - b).cos() * 0.5 + 0.5) as f32)
                    .collect()
            })
            .collect();
        let nu = 0.3;
        let (alphas, rho) = one_class(&kernel, nu);
        let most = 1.0 / (nu * 11.0);
        assert!((alphas.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        for (row, alpha) in kernel.iter().zip(&alphas) {
            let output: f64 = row
                .iter()
                .zip(&alphas)
                .map(|(k, a)| f64::from(*k) * a)
                .sum();
            assert!((0.0..=most + 1e-12).contains(alpha));
            if *alpha < 1e-9 {
                assert!(output >= rho - 1e-4);
            } else if *alpha > most - 1e-9 {
                assert!(output <= rho + 1e-4);
            } else {
                assert!((output - rho).abs() < 1e-4);
            }
        }
        // The far one is beyond the boundary.
        assert!(alphas[10] > most - 1e-9);
    }
}
