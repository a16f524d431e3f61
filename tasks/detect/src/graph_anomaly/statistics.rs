//! Detectors on a few numbers of each graph: its Rayleigh quotients alone, and boosted trees on its statistics.
//!
//! `rayleigh-quotient`: a logistic regression on q = diag(X' L X), the numbers that RQGNN's explicit branch reads (or on
//! the quotients proper, q over x . x), each less its mean over its deviation in training. It tells how much of RQGNN's
//! result they carry alone. Strength by AUC on validation graphs.
//!
//! `statistics-boosting`: gradient boosting (the crate forust-ml) on number of nodes and edges, density, mean, deviation,
//! skewness and maximum of the degrees, nodes without neighbours, triangles, sum and mean of each feature (of kinds of
//! nodes: their histogram), q and the quotients; both classes weigh the same, and as many trees are kept as give the best
//! AUC on validation graphs.
//!
//! Cost: O(edges d), and O(edges degree) for triangles; a logistic regression, or trees on 9 + 4 d numbers.

use super::graphs::{Graph, GraphSet};
use super::logistic::{Logistic, Sparse, fit_best, sigmoid};
use super::networks::Lessons;
use super::score::auc;
use super::spectral::{Spread, all_energies, quotients};
use super::{Detector, Fitted, Scorer, Split, read_state, write_state};
use forust_ml::{GradientBooster, Matrix};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Logistic regression on Rayleigh quotients alone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RayleighQuotient {
    /// Divide by x . x, which gives the quotients proper, 0 to 2.
    pub normalised: bool,
}

impl Method for RayleighQuotient {
    const FACTS: Facts = Facts {
        name: "rayleigh-quotient",
        about: "logistic regression on the Rayleigh quotients of node features alone",
        paper: Some("rqgnn"),
        streams: false,
    };
}

impl RayleighQuotient {
    /// [graphs, d] in row-major order.
    fn numbers(&self, graphs: &GraphSet) -> Vec<f32> {
        if self.normalised {
            let rows = graphs.map(|g| quotients(g, graphs.width()));
            rows.concat()
                .into_iter()
                .map(|q| q.unwrap_or(0.0))
                .collect()
        } else {
            all_energies(graphs)
        }
    }
}

#[derive(Serialize, Deserialize)]
struct QuotientModel {
    options: RayleighQuotient,
    scale: Spread,
    logistic: Logistic,
}

/// Rows of `width` numbers, each less its mean over its deviation.
fn scaled<'a>(rows: impl Iterator<Item = &'a [f32]>, scale: &Spread) -> Sparse {
    let mut all = Sparse::new(scale.mean.len());
    for row in rows {
        let moments = scale.mean.iter().zip(&scale.deviation);
        all.push(
            row.iter()
                .zip(moments)
                .enumerate()
                .map(|(c, (v, (mean, deviation)))| {
                    let away = f64::from(*v) - mean;
                    (
                        c as u32,
                        if *deviation > 0.0 {
                            away / deviation
                        } else {
                            0.0
                        },
                    )
                }),
        );
    }
    all
}

impl Scorer for QuotientModel {
    fn score(&self, graphs: &GraphSet, _: &Context) -> Result<Vec<f64>> {
        let numbers = self.options.numbers(graphs);
        let rows = scaled(numbers.chunks(graphs.width().max(1)), &self.scale);
        Ok(self.logistic.probabilities(&rows))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        write_state(folder, self)
    }

    fn parameters(&self) -> Option<usize> {
        Some(self.logistic.weights.len() + 1)
    }
}

impl Detector for RayleighQuotient {
    fn fit(&self, graphs: &GraphSet, split: &Split, _: &Lessons, _: &Context) -> Result<Fitted> {
        let d = graphs.width();
        if d == 0 {
            return Err(Error::BadInput(
                "the nodes have no features, so there are no quotients".into(),
            ));
        }
        let numbers = self.numbers(graphs);
        let row = |g: &usize| &numbers[g * d..(g + 1) * d];
        let scale = Spread::of(split.train.iter().map(row));
        let (logistic, strength) = fit_best(
            &scaled(split.train.iter().map(row), &scale),
            &split.truth(graphs, &split.train)?,
            &scaled(split.validation.iter().map(row), &scale),
            &split.truth(graphs, &split.validation)?,
        )?;
        let model = QuotientModel {
            options: self.clone(),
            scale,
            logistic,
        };
        let note = format!("strength {strength} of the logistic regression on {d} quotients");
        Ok(Fitted::of(model, vec![note]))
    }

    fn load(&self, folder: &Path, _: usize, _: &Context) -> Result<Box<dyn Scorer>> {
        Ok(Box::new(read_state::<QuotientModel>(folder)?))
    }
}

/// Gradient boosting on statistics of graphs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct StatisticsBoosting {
    /// Most trees.
    #[schemars(range(min = 1, max = 10000))]
    pub trees: usize,
    /// Depth of a tree.
    #[schemars(range(min = 1, max = 16))]
    pub depth: usize,
    /// Share of a tree's answer that is added.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub shrinkage: f64,
}

impl Default for StatisticsBoosting {
    fn default() -> Self {
        StatisticsBoosting {
            trees: 200,
            depth: 4,
            shrinkage: 0.1,
        }
    }
}

impl Method for StatisticsBoosting {
    const FACTS: Facts = Facts {
        name: "statistics-boosting",
        about: "gradient boosting on size, degrees, sums of features and Rayleigh quotients",
        paper: None,
        streams: false,
    };
}

/// Triangles of a graph.
fn triangles(graph: Graph<'_>) -> usize {
    let mut count = 0;
    for i in 0..graph.nodes() {
        for (j, _) in graph.neighbours(i).filter(|n| n.0 > i) {
            let mut others = graph
                .neighbours(j)
                .map(|n| n.0)
                .filter(|k| *k > j)
                .peekable();
            for (k, _) in graph.neighbours(i).filter(|n| n.0 > j) {
                while others.next_if(|o| *o < k).is_some() {}
                count += usize::from(others.peek() == Some(&k));
            }
        }
    }
    count
}

/// The numbers of a graph, 9 + 4 d.
fn statistics(graph: Graph<'_>, d: usize) -> Vec<f64> {
    let n = graph.nodes() as f64;
    let edges = graph.edges() as f64;
    let degrees: Vec<f64> = (0..graph.nodes())
        .map(|i| graph.neighbours(i).count() as f64)
        .collect();
    let count = n.max(1.0);
    let mean = degrees.iter().sum::<f64>() / count;
    let moment = |p: i32| degrees.iter().map(|v| (v - mean).powi(p)).sum::<f64>() / count;
    let deviation = moment(2).sqrt();
    let mut row = vec![
        n,
        edges,
        2.0 * edges / (n * (n - 1.0)).max(1.0),
        mean,
        deviation,
        if deviation > 0.0 {
            moment(3) / deviation.powi(3)
        } else {
            0.0
        },
        degrees.iter().copied().fold(0.0, f64::max),
        degrees.iter().filter(|v| **v == 0.0).count() as f64,
        triangles(graph) as f64,
    ];
    let mut sums = vec![0.0f64; d];
    let mut squares = vec![0.0f64; d];
    for i in 0..graph.nodes() {
        for (f, v) in graph.features(i).iter().enumerate() {
            sums[f] += f64::from(*v);
            squares[f] += f64::from(*v).powi(2);
        }
    }
    row.extend(&sums);
    row.extend(sums.iter().map(|s| s / count));
    let quotients: Vec<f64> = quotients(graph, d)
        .into_iter()
        .map(|q| f64::from(q.unwrap_or(0.0)))
        .collect();
    row.extend(quotients.iter().zip(&squares).map(|(q, s)| q * s));
    row.extend(quotients);
    row
}

/// All graphs' numbers, column after column.
struct Columns {
    rows: Vec<Vec<f64>>,
    width: usize,
}

impl Columns {
    fn of(graphs: &GraphSet) -> Self {
        let d = graphs.width();
        Columns {
            rows: graphs.map(|g| statistics(g, d)),
            width: 9 + 4 * d,
        }
    }

    fn part(&self, which: impl Iterator<Item = usize> + Clone) -> Vec<f64> {
        (0..self.width)
            .flat_map(|c| which.clone().map(move |r| self.rows[r][c]))
            .collect()
    }
}

struct BoostingModel {
    booster: GradientBooster,
}

/// A booster's error is about its own input, which is checked before; what is left is told as it stands.
fn failed(e: impl std::fmt::Display) -> Error {
    Error::Failed(format!("gradient boosting failed: {e}"))
}

impl Scorer for BoostingModel {
    fn score(&self, graphs: &GraphSet, _: &Context) -> Result<Vec<f64>> {
        let columns = Columns::of(graphs);
        let data = columns.part(0..graphs.len());
        let matrix = Matrix::new(&data, graphs.len(), columns.width);
        Ok(self
            .booster
            .predict(&matrix, false)
            .into_iter()
            .map(sigmoid)
            .collect())
    }

    fn save(&self, folder: &Path) -> Result<()> {
        write_state(folder, &self.booster.json_dump().map_err(failed)?)
    }
}

impl Detector for StatisticsBoosting {
    fn fit(
        &self,
        graphs: &GraphSet,
        split: &Split,
        _: &Lessons,
        context: &Context,
    ) -> Result<Fitted> {
        let columns = Columns::of(graphs);
        let truth = split.truth(graphs, &split.train)?;
        let data = columns.part(split.train.iter().copied());
        let n = truth.len();
        let anomalous = truth.iter().filter(|t| **t).count().max(1);
        let weights: Vec<f64> = truth
            .iter()
            .map(|t| match t {
                true => n as f64 / (2 * anomalous) as f64,
                false => n as f64 / (2 * (n - anomalous).max(1)) as f64,
            })
            .collect();
        let answers: Vec<f64> = truth.iter().map(|t| f64::from(u8::from(*t))).collect();
        // One thread: sums of histograms in parallel would come in any order.
        let mut booster = GradientBooster::default()
            .set_parallel(false)
            .set_iterations(self.trees)
            .set_max_depth(self.depth)
            .set_learning_rate(self.shrinkage as f32)
            .set_seed(context.seed);
        booster
            .fit(
                &Matrix::new(&data, n, columns.width),
                &answers,
                &weights,
                None,
            )
            .map_err(failed)?;
        let known = split.truth(graphs, &split.validation)?;
        let data = columns.part(split.validation.iter().copied());
        let matrix = Matrix::new(&data, known.len(), columns.width);
        let mut best = (f64::NEG_INFINITY, 0);
        // Ten steps over the number of trees; of equal ones the fewest trees.
        let grown = booster.trees.len();
        for tenth in 1..=10 {
            let trees = (grown * tenth / 10).max(1).min(grown);
            // The crate counts from 0: it takes one tree more than it is told.
            booster = booster.set_prediction_iteration(trees.checked_sub(1));
            let area = auc(&known, &booster.predict(&matrix, false))?;
            if area > best.0 {
                best = (area, trees);
            }
        }
        let booster = booster.set_prediction_iteration(best.1.checked_sub(1));
        let note = format!("{} of {grown} trees kept", best.1);
        Ok(Fitted::of(BoostingModel { booster }, vec![note]))
    }

    fn load(&self, folder: &Path, _: usize, _: &Context) -> Result<Box<dyn Scorer>> {
        let text: String = read_state(folder)?;
        let booster = GradientBooster::from_json(&text).map_err(failed)?;
        Ok(Box::new(BoostingModel { booster }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::graphs::tests::of_edges;
    use super::*;

    #[test]
    fn statistics_by_hand() {
        // A triangle with a tail, and a node alone; features 1 to 5.
        let set = of_edges(&[(5, &[(0, 1), (1, 2), (2, 0), (2, 3)]), (0, &[])]);
        let row = statistics(set.graph(0), 1);
        assert_eq!(row.len(), 13);
        assert_eq!(row[..4], [5.0, 4.0, 0.4, 1.6]);
        assert!((row[4] - 1.04f64.sqrt()).abs() < 1e-12);
        assert_eq!(row[6..11], [3.0, 1.0, 1.0, 15.0, 3.0]);
        assert!((row[11] / row[12] - 55.0).abs() < 1e-4);
        assert!(statistics(set.graph(1), 1).iter().all(|v| *v == 0.0));
    }

    #[test]
    fn columns_come_one_after_the_other() {
        let set = of_edges(&[(3, &[]), (4, &[(0, 1)])]);
        let columns = Columns::of(&set);
        let data = columns.part([1, 0].into_iter());
        assert_eq!(data[..4], [4.0, 3.0, 1.0, 0.0]);
        assert_eq!(data.len(), 2 * 13);
    }

    #[test]
    fn a_constant_column_is_no_danger() {
        let rows: [&[f32]; 2] = [&[1.0, 5.0], &[3.0, 5.0]];
        let scale = Spread::of(rows.iter().copied());
        let got = scaled(rows.iter().copied(), &scale);
        assert_eq!(got.values, [-1.0, 0.0, 1.0, 0.0]);
    }
}
