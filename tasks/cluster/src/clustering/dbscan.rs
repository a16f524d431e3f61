//! DBSCAN: clusters are dense regions, rows in thin regions are noise.
//!
//! Baseline. Ester, Kriegel, Sander and Xu, *A density-based algorithm for discovering clusters in large spatial
//! databases with noise*, 1996. Defaults are those of scikit-learn.
//!
//! X \[n, d\] rows.
//! 1. The neighbours of each row: all rows within eps, itself included.
//! 2. A row with at least min-samples neighbours is a core row.
//! 3. From each core row that has no cluster yet, in row order: a new cluster takes it, its neighbours, and the
//!    neighbours of every core row among them, and so on. Rows that no cluster takes are noise. A row on the border of
//!    two clusters goes to the one that started first.
//!
//! Cost: O(n^2 d) time by matrix products in blocks; memory O(n + pairs within eps). No random numbers.
//!
//! The crate petal-clustering has a DBSCAN too; it drops a cluster whose core row lost its neighbours to an earlier one,
//! so that a core row can become noise, which the paper excludes.

use super::ward::number_by_first_row;
use super::{Clusterer, Grouping, Points};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::map_distance_blocks;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of DBSCAN.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Dbscan {
    /// Rows within this distance are neighbours.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub eps: f64,
    /// Neighbours, itself included, that make a row a core row.
    #[schemars(range(min = 1))]
    pub min_samples: usize,
}

impl Default for Dbscan {
    fn default() -> Self {
        Dbscan {
            eps: 0.5,
            min_samples: 5,
        }
    }
}

impl Method for Dbscan {
    const FACTS: Facts = Facts {
        name: "dbscan",
        about: "dense regions are clusters, the rest is noise",
        paper: None,
        streams: false,
    };
}

impl Clusterer for Dbscan {
    fn fit(&self, points: &Points, context: &Context) -> Result<Grouping> {
        let x = points.matrix(context)?;
        // Step 1.
        let within = self.eps * self.eps;
        let blocks = map_distance_blocks(x.view(), x.view(), |_, block| {
            block
                .outer_iter()
                .map(|row| {
                    let near = row.iter().enumerate().filter(|(_, d)| **d <= within);
                    near.map(|(j, _)| j as u32).collect::<Vec<u32>>()
                })
                .collect::<Vec<_>>()
        })
        .map_err(|e| Error::BadInput(e.to_string()))?;
        let neighbours: Vec<Vec<u32>> = blocks.into_iter().flatten().collect();
        // Steps 2 and 3.
        let core = |row: usize| neighbours[row].len() >= self.min_samples;
        let mut cluster: Vec<Option<usize>> = vec![None; x.nrows()];
        let mut waiting = Vec::new();
        for start in 0..x.nrows() {
            if cluster[start].is_some() || !core(start) {
                continue;
            }
            cluster[start] = Some(start);
            waiting.push(start);
            while let Some(row) = waiting.pop() {
                for &next in &neighbours[row] {
                    let next = next as usize;
                    if cluster[next].is_none() {
                        cluster[next] = Some(start);
                        if core(next) {
                            waiting.push(next);
                        }
                    }
                }
            }
        }
        let labels = number_by_first_row(cluster.into_iter());
        let mut notes = Vec::new();
        if labels.iter().all(|l| *l == super::NOISE) {
            notes.push(format!(
                "every row is noise: no row has {} rows within {}; raise eps or lower min-samples",
                self.min_samples, self.eps
            ));
        }
        Ok(Grouping {
            labels,
            notes,
            ..Grouping::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};
    use proptest::prelude::*;

    fn fit(x: Array2<f64>, eps: f64, min_samples: usize) -> Vec<i32> {
        let points = Points::from_matrix(x).unwrap();
        let method = Dbscan { eps, min_samples };
        method.fit(&points, &Context::with_seed(0)).unwrap().labels
    }

    #[test]
    fn two_dense_groups_and_a_stray_row() {
        let x = array![[0.0], [0.4], [0.8], [50.0], [9.0], [9.4], [9.8]];
        assert_eq!(fit(x, 0.5, 2), [0, 0, 0, -1, 1, 1, 1]);
    }

    #[test]
    fn a_core_row_that_lost_its_neighbours_stays_a_cluster() {
        // With eps 1 and four neighbours, 0 and 2.8 are core, and 1 and 1.8 are on the border of both.
        let x = array![[-0.5], [0.0], [0.2], [1.0], [1.8], [2.6], [2.8], [3.3]];
        let labels = fit(x, 1.0, 4);
        assert!(labels.iter().all(|l| *l >= 0), "{labels:?}");
    }

    #[test]
    fn edges() {
        assert_eq!(fit(array![[1.0]], 0.5, 1), [0]);
        assert_eq!(fit(array![[1.0]], 0.5, 2), [-1]);
        assert_eq!(fit(Array2::ones((6, 2)), 0.5, 5), [0; 6]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn core_rows_are_grouped_by_reach_and_others_by_a_core_neighbour(
            values in prop::collection::vec(0.0..4.0f64, 40),
            min_samples in 1usize..5,
        ) {
            let x = Array2::from_shape_vec((20, 2), values).unwrap();
            let labels = fit(x.clone(), 0.7, min_samples);
            let near = |i: usize, j: usize| (&x.row(i) - &x.row(j)).mapv(|v| v * v).sum() <= 0.49;
            let core: Vec<bool> = (0..20)
                .map(|i| (0..20).filter(|j| near(i, *j)).count() >= min_samples)
                .collect();
            // Reach between core rows, by closing the relation.
            let mut reach = vec![vec![false; 20]; 20];
            for i in 0..20 {
                for j in 0..20 {
                    reach[i][j] = core[i] && core[j] && near(i, j);
                }
            }
            for m in 0..20 {
                for i in 0..20 {
                    for j in 0..20 {
                        reach[i][j] |= reach[i][m] && reach[m][j];
                    }
                }
            }
            for i in 0..20 {
                for j in 0..20 {
                    if core[i] && core[j] {
                        prop_assert_eq!(labels[i] == labels[j], reach[i][j]);
                    }
                }
                let beside = (0..20).any(|j| core[j] && near(i, j) && labels[i] == labels[j]);
                prop_assert_eq!(labels[i] >= 0, beside);
                prop_assert_eq!(labels[i] < 0, !(0..20).any(|j| core[j] && near(i, j)));
            }
        }
    }
}
