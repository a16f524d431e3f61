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
//! Step 3 is computed from the other end: core rows within eps of each other are joined (union-find), the cluster that
//! starts first is the one whose first core row comes first, and a row on a border goes to the first of its core
//! neighbours' clusters.
//!
//! Cost: twice O(n^2 d) time by matrix products in blocks; memory O(n min-samples), however many pairs are within eps.
//! Pairs at a distance of eps up to rounding are decided from their differences. No random numbers.
//!
//! The crate petal-clustering has a DBSCAN too; it drops a cluster whose core row lost its neighbours to an earlier one,
//! so that a core row can become noise, which the paper excludes, and counts a pair at exactly eps as near or not by
//! where its search tree was cut.

use super::ward::{number_by_first_row, slices};
use super::{Clusterer, Grouping, NOISE, Points};
use ndarray::Array2;
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::{map_distance_blocks, squared_distance};
use papertrial_numerics::linalg::column_means;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU32, Ordering};

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
        // Steps 1 and 2.
        context.step("counting neighbours", 0, 2);
        let counts = map_neighbours(x, self.eps, |_, near| near.len())?;
        let core = |row: u32| counts[row as usize] >= self.min_samples;
        // Step 3: join core rows; keep the few core neighbours of the others.
        context.step("joining core rows", 1, 2);
        let joined = Joined::new(x.nrows());
        let beside = map_neighbours(x, self.eps, |row, near| {
            let near = near.iter().copied().filter(|other| core(*other));
            if core(row) {
                near.filter(|other| *other < row)
                    .for_each(|other| joined.join(row, other));
                Vec::new()
            } else {
                near.collect()
            }
        })?;
        let labels = number_by_first_row(beside.iter().zip(0..).map(|(near, row)| {
            let first = if core(row) {
                Some(joined.first(row))
            } else {
                near.iter().map(|other| joined.first(*other)).min()
            };
            first.map(|row| row as usize)
        }));
        let mut notes = Vec::new();
        if labels.iter().all(|l| *l == NOISE) {
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

/// Calls `visit` with every row and its neighbours within `eps`, itself included, in order; the results in order.
fn map_neighbours<R: Send>(
    x: &Array2<f64>,
    eps: f64,
    visit: impl Fn(u32, &[u32]) -> R + Sync,
) -> Result<Vec<R>> {
    let rows = slices(x)?;
    let (d, within) = (x.ncols(), eps * eps);
    // Products of rows less the mean are wrong by a few roundings of the largest squared length.
    let means = column_means(x.view());
    let longest = rows
        .iter()
        .map(|row| squared_distance(row, &means))
        .fold(0.0, f64::max);
    let doubt = 8.0 * (d + 4) as f64 * f64::EPSILON * longest;
    let blocks = map_distance_blocks(x.view(), x.view(), |start, block| {
        let mut near = Vec::new();
        let visited = block.outer_iter().enumerate().map(|(i, squared)| {
            let row = start + i;
            near.clear();
            for (other, squared) in squared.iter().enumerate() {
                if *squared <= within + doubt
                    && (*squared < within - doubt
                        || squared_distance(rows[row], rows[other]) <= within)
                {
                    near.push(other as u32);
                }
            }
            visit(row as u32, &near)
        });
        visited.collect::<Vec<R>>()
    })
    .map_err(|e| Error::BadInput(e.to_string()))?;
    Ok(blocks.into_iter().flatten().collect())
}

/// Sets of rows that threads join at the same time. A row points to an earlier one of its set, the first to itself, so
/// that in the end the same row stands for a set whatever the order of the joins.
struct Joined(Vec<AtomicU32>);

impl Joined {
    fn new(rows: usize) -> Joined {
        Joined((0..rows as u32).map(AtomicU32::new).collect())
    }

    /// The first row of the set of `row`.
    fn first(&self, mut row: u32) -> u32 {
        loop {
            let next = self.0[row as usize].load(Ordering::Relaxed);
            if next == row {
                return row;
            }
            // Later searches skip a step; where another thread was quicker nothing is lost.
            let after = self.0[next as usize].load(Ordering::Relaxed);
            let _ = self.0[row as usize].compare_exchange(
                next,
                after,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            row = after;
        }
    }

    fn join(&self, a: u32, b: u32) {
        loop {
            let (a, b) = (self.first(a), self.first(b));
            if a == b {
                return;
            }
            // Only a row that still stands for its set is moved.
            let (low, high) = (a.min(b), a.max(b));
            let moved = self.0[high as usize].compare_exchange(
                high,
                low,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if moved.is_ok() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use papertrial_numerics::sampling::rng;
    use proptest::prelude::*;
    use rand::RngExt;

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
    fn a_border_row_goes_to_the_cluster_that_starts_first() {
        // Cores 3.0 (rows 0, 2, 3, 4) and 1.0 (rows 0, 1, 5, 6); row 0 at 2.0 is beside both. Row 1 at 1.0 comes first.
        let x = array![[2.0], [1.0], [3.0], [3.5], [4.0], [0.5], [0.0]];
        assert_eq!(fit(x, 1.0, 4), [0, 0, 1, 1, 1, 0, 0]);
    }

    #[test]
    fn any_number_of_threads_gives_the_same_groups() {
        let mut draw = rng(4, "dbscan");
        let x = Array2::from_shape_simple_fn((3000, 2), || draw.random_range(-1.0..1.0));
        let groups = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| fit(x.clone(), 0.045, 12))
        };
        let one = groups(1);
        assert!(one.iter().max() > Some(&5) && one.contains(&NOISE));
        assert_eq!(one, groups(4));
    }

    #[test]
    fn edges() {
        assert_eq!(fit(array![[1.0]], 0.5, 1), [0]);
        assert_eq!(fit(array![[1.0]], 0.5, 2), [-1]);
        assert_eq!(fit(Array2::ones((6, 2)), 0.5, 5), [0; 6]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn labels_are_those_of_the_paper_step_by_step(
            values in prop::collection::vec(0.0..6.0f64, 80),
            whole in any::<bool>(),
            min_samples in 1usize..6,
        ) {
            // Whole numbers make many pairs at exactly eps; the far corner makes products inexact.
            let x = Array2::from_shape_vec((40, 2), values).unwrap();
            let (x, eps) = if whole { (x.mapv(f64::floor) + 1e5, 1.0) } else { (x, 0.7) };
            let near = |i: usize| -> Vec<usize> {
                let close = |j: &usize| (&x.row(i) - &x.row(*j)).mapv(|v| v * v).sum() <= eps * eps;
                (0..40).filter(close).collect()
            };
            let mut expected: Vec<Option<i32>> = vec![None; 40];
            let mut clusters = 0;
            for start in 0..40 {
                if expected[start].is_some() || near(start).len() < min_samples {
                    continue;
                }
                let mut seeds = vec![start];
                while let Some(row) = seeds.pop() {
                    if expected[row].is_none() {
                        expected[row] = Some(clusters);
                        if near(row).len() >= min_samples {
                            seeds.extend(near(row));
                        }
                    }
                }
                clusters += 1;
            }
            // Clusters are numbered by their first row here, by their first core row there.
            let expected = number_by_first_row(expected.iter().map(|c| c.map(|c| c as usize)));
            prop_assert_eq!(fit(x.clone(), eps, min_samples), expected);
        }
    }
}
