//! Spectral clustering: k-means on the leading eigenvectors of a graph of neighbours.
//!
//! Baseline. Ng, Jordan and Weiss, *On spectral clustering: analysis and an algorithm*, 2001. The paper's affinity is
//! the Gaussian one (`rbf`); the graph of nearest neighbours is the default here, because its one option does not depend
//! on the scale of the data.
//!
//! X \[n, d\] rows.
//! 1. Affinity A \[n, n\]: 1 between a row and its nearest neighbours, averaged with its transpose; or
//!    exp(-gamma |x - y|^2), 0 on the diagonal.
//! 2. L = D^-1/2 A D^-1/2 with the degrees D.
//! 3. U \[n, k\]: the k largest eigenvectors of L; every row scaled to length 1.
//! 4. k-means on the rows of U.
//!
//! Cost: O(n^3) time for the eigenvectors, on one thread; 40 n^2 bytes of memory. A few thousand rows are the limit.

use super::{Clusterer, Grouping, Points};
use ndarray::{Array2, Axis};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::self_squared_distances;
use papertrial_numerics::kmeans::{KMeansOptions, kmeans};
use papertrial_numerics::linalg::eigh_top;
use papertrial_numerics::neighbours::self_neighbours;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of spectral clustering.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Spectral {
    /// Number of clusters.
    #[schemars(range(min = 1))]
    pub k: usize,
    /// How alike two rows are.
    pub affinity: Affinity,
    /// Neighbours of a row in the graph.
    #[schemars(range(min = 1))]
    pub neighbours: usize,
    /// Sharpness of the Gaussian affinity; one over the number of columns if none.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub gamma: Option<f64>,
    /// Starts of k-means.
    #[schemars(range(min = 1))]
    pub starts: usize,
}

/// How alike two rows are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Affinity {
    /// Whether one is among the nearest of the other.
    Nearest,
    /// A Gaussian of their distance.
    Rbf,
}

impl Default for Spectral {
    fn default() -> Self {
        Spectral {
            k: 8,
            affinity: Affinity::Nearest,
            neighbours: 10,
            gamma: None,
            starts: 10,
        }
    }
}

impl Method for Spectral {
    const FACTS: Facts = Facts {
        name: "spectral",
        about: "k-means on the leading eigenvectors of a graph of neighbours",
        paper: None,
        streams: false,
    };
}

impl Clusterer for Spectral {
    fn fit(&self, points: &Points, context: &Context) -> Result<Grouping> {
        points.check_k(self.k)?;
        let x = points.matrix(context)?;
        let n = x.nrows();
        if n == 1 {
            return Ok(Grouping {
                labels: vec![0],
                ..Grouping::default()
            });
        }
        context.require(&format!("the graph of {n} rows"), 40 * (n as u64).pow(2))?;
        let failed = |e: &dyn std::fmt::Display| Error::Failed(e.to_string());
        // Step 1.
        let mut graph = self.affinities(x)?;
        // Step 2.
        let scale = graph.sum_axis(Axis(1)).mapv(|degree| {
            // A row without any affinity stays by itself.
            if degree > 0.0 {
                1.0 / degree.sqrt()
            } else {
                0.0
            }
        });
        for ((i, j), value) in graph.indexed_iter_mut() {
            *value *= scale[i] * scale[j];
        }
        // Step 3.
        context.step("eigenvectors", 0, 1);
        let mut u = eigh_top(graph.view(), self.k)
            .map_err(|e| failed(&e))?
            .vectors;
        drop(graph);
        for mut row in u.outer_iter_mut() {
            let length = row.mapv(|v| v * v).sum().sqrt();
            if length > 0.0 {
                row /= length;
            }
        }
        // Step 4.
        let found = kmeans(
            u.view(),
            None,
            &KMeansOptions {
                starts: self.starts,
                seed: context.seed,
                ..KMeansOptions::new(self.k)
            },
        )
        .map_err(|e| failed(&e))?;
        Ok(Grouping {
            labels: found.labels.iter().map(|l| *l as i32).collect(),
            ..Grouping::default()
        })
    }
}

impl Spectral {
    fn affinities(&self, x: &Array2<f64>) -> Result<Array2<f64>> {
        let n = x.nrows();
        let bad = |e: &dyn std::fmt::Display| Error::BadInput(e.to_string());
        match self.affinity {
            Affinity::Nearest => {
                let near =
                    self_neighbours(x.view(), self.neighbours.min(n - 1)).map_err(|e| bad(&e))?;
                let mut graph = Array2::zeros((n, n));
                for (i, row) in near.indices.outer_iter().enumerate() {
                    for j in row {
                        let j = *j as usize;
                        graph[[i, j]] += 0.5;
                        graph[[j, i]] += 0.5;
                    }
                }
                Ok(graph)
            }
            Affinity::Rbf => {
                let gamma = self.gamma.unwrap_or(1.0 / x.ncols() as f64);
                let mut graph = self_squared_distances(x.view()).map_err(|e| bad(&e))?;
                graph.mapv_inplace(|d| (-gamma * d).exp());
                graph.diag_mut().fill(0.0);
                Ok(graph)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clustering::KMeans;
    use ndarray::array;
    use papertrial_numerics::metrics::clustering::{adjusted_rand_index, contingency};
    use papertrial_numerics::sampling::{permutation, rng};
    use proptest::prelude::*;

    fn fit(method: &Spectral, x: Array2<f64>) -> Result<Vec<i32>> {
        Ok(method
            .fit(&Points::from_matrix(x)?, &Context::with_seed(0))?
            .labels)
    }

    /// Two rings with one centre, 60 rows each.
    fn rings() -> (Array2<f64>, Vec<i32>) {
        let x = Array2::from_shape_fn((120, 2), |(i, j)| {
            let radius = if i < 60 { 1.0 } else { 4.0 };
            let angle = (i % 60) as f64 / 60.0 * std::f64::consts::TAU;
            radius * if j == 0 { angle.cos() } else { angle.sin() }
        });
        (x, (0..120).map(|i| i / 60).collect())
    }

    #[test]
    fn rings_are_told_apart_where_k_means_fails() {
        let (x, truth) = rings();
        let agree = |labels: &[i32]| adjusted_rand_index(&contingency(&truth, labels).unwrap());
        for affinity in [Affinity::Nearest, Affinity::Rbf] {
            let method = Spectral {
                k: 2,
                affinity,
                neighbours: 4,
                gamma: Some(4.0),
                ..Spectral::default()
            };
            assert_eq!(
                agree(&fit(&method, x.clone()).unwrap()),
                1.0,
                "{affinity:?}"
            );
        }
        let points = Points::from_matrix(x).unwrap();
        let means = KMeans {
            k: 2,
            ..KMeans::default()
        };
        assert!(agree(&means.fit(&points, &Context::with_seed(0)).unwrap().labels) < 0.2);
    }

    #[test]
    fn edges() {
        let method = |k| Spectral {
            k,
            ..Spectral::default()
        };
        assert_eq!(fit(&method(1), array![[2.0]]).unwrap(), [0]);
        assert_eq!(fit(&method(1), array![[2.0], [3.0]]).unwrap(), [0, 0]);
        assert_eq!(fit(&method(2), Array2::ones((6, 2))).unwrap().len(), 6);
        assert!(fit(&method(3), array![[2.0], [3.0]]).is_err());
        let tight = Context {
            memory: Some(1000),
            ..Context::with_seed(0)
        };
        let points = Points::from_matrix(Array2::zeros((50, 1))).unwrap();
        assert!(matches!(
            method(2).fit(&points, &tight),
            Err(Error::Memory { .. })
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn groups_that_no_edge_connects_are_found_in_any_order(
            values in prop::collection::vec(-1.0..1.0f64, 72),
            order in 0u64..1000,
            nearest in any::<bool>(),
        ) {
            // Three groups of 12 rows, 40 apart; 11 neighbours at most, or affinities that vanish between groups.
            let order = permutation(&mut rng(order, "order"), 36);
            let truth: Vec<i32> = order.iter().map(|i| (i % 3) as i32).collect();
            let x = Array2::from_shape_fn((36, 2), |(i, j)| {
                values[2 * order[i] + j] + f64::from(truth[i]) * 40.0 * (j == 0) as i32 as f64
            });
            let affinity = if nearest { Affinity::Nearest } else { Affinity::Rbf };
            let method = Spectral { k: 3, affinity, neighbours: 6, ..Spectral::default() };
            let found = fit(&method, x).unwrap();
            let agreement = adjusted_rand_index(&contingency(&truth, &found).unwrap());
            prop_assert_eq!(agreement, 1.0);
        }
    }
}
