//! Bisecting k-means: split the cluster with the largest inertia in two until there are k.
//!
//! Baseline. Steinbach, Karypis and Kumar, *A comparison of document clustering techniques*, 2000; the choice of the
//! cluster to split is scikit-learn's default (`biggest_inertia`).
//!
//! X \[n, d\] rows.
//! 1. All rows are one cluster.
//! 2. Split the cluster with the largest inertia by k-means with k = 2, the best of several starts.
//! 3. Repeat step 2 until there are k clusters. Clusters are numbered by their first row.
//!
//! Cost: k - 1 runs of 2-means on ever fewer rows: O(n d log k) a round if the splits are even.

use super::ward::number_by_first_row;
use super::{Clusterer, Grouping, Points};
use ndarray::{Array2, ArrayView2, Axis};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::kmeans::{KMeansOptions, kmeans};
use papertrial_numerics::sampling::rng;
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of bisecting k-means.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct BisectingKMeans {
    /// Number of clusters.
    #[schemars(range(min = 1))]
    pub k: usize,
    /// Starts of each split, of which the one with the lowest inertia is kept.
    #[schemars(range(min = 1))]
    pub starts: usize,
    /// Rounds of a start at most.
    #[schemars(range(min = 1))]
    pub max_rounds: usize,
    /// A start ends when the centres move less than this, relative to the mean variance of the columns.
    #[schemars(range(min = 0.0))]
    pub tolerance: f64,
}

impl Default for BisectingKMeans {
    fn default() -> Self {
        BisectingKMeans {
            k: 8,
            starts: 1,
            max_rounds: 300,
            tolerance: 1e-4,
        }
    }
}

impl Method for BisectingKMeans {
    const FACTS: Facts = Facts {
        name: "bisecting-k-means",
        about: "splits the cluster with the largest inertia in two until there are k",
        paper: None,
        streams: false,
    };
}

impl Clusterer for BisectingKMeans {
    fn fit(&self, points: &Points, context: &Context) -> Result<Grouping> {
        points.check_k(self.k)?;
        let x = points.matrix(context)?;
        let mut draw = rng(context.seed, "bisecting k-means");
        // Step 1.
        let mut parts = vec![Part::new(x, (0..x.nrows()).collect())];
        // Steps 2 and 3.
        while parts.len() < self.k {
            context.step("splitting", parts.len(), self.k);
            // Equal rows cannot be told apart, but k clusters were asked for: any split will do.
            let widest = (0..parts.len())
                .filter(|i| parts[*i].rows.len() > 1)
                .min_by(|a, b| parts[*b].inertia.total_cmp(&parts[*a].inertia));
            let Some(widest) = widest else { break };
            let part = parts.swap_remove(widest);
            let (left, right) = halve(x, &part.rows, self, draw.random())?;
            parts.push(Part::new(x, left));
            parts.push(Part::new(x, right));
        }
        let mut groups = vec![None; x.nrows()];
        for (group, part) in parts.iter().enumerate() {
            for row in &part.rows {
                groups[*row] = Some(group);
            }
        }
        Ok(Grouping {
            labels: number_by_first_row(groups.into_iter()),
            ..Grouping::default()
        })
    }
}

struct Part {
    rows: Vec<usize>,
    inertia: f64,
}

impl Part {
    fn new(x: &Array2<f64>, rows: Vec<usize>) -> Part {
        let inside = x.select(Axis(0), &rows);
        Part {
            inertia: spread(inside.view()),
            rows,
        }
    }
}

/// Sum of squared distances to the mean.
fn spread(x: ArrayView2<f64>) -> f64 {
    match x.mean_axis(Axis(0)) {
        Some(mean) => x
            .outer_iter()
            .map(|row| (&row - &mean).mapv(|v| v * v).sum())
            .sum(),
        None => 0.0,
    }
}

/// The two sides of one split.
fn halve(
    x: &Array2<f64>,
    rows: &[usize],
    options: &BisectingKMeans,
    seed: u64,
) -> Result<(Vec<usize>, Vec<usize>)> {
    let inside = x.select(Axis(0), rows);
    let found = kmeans(
        inside.view(),
        None,
        &KMeansOptions {
            starts: options.starts,
            max_rounds: options.max_rounds,
            tolerance: options.tolerance,
            seed,
            ..KMeansOptions::new(2)
        },
    )
    .map_err(|e| Error::Failed(e.to_string()))?;
    let (mut left, mut right): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    for (row, label) in rows.iter().zip(&found.labels) {
        if *label == 0 { &mut left } else { &mut right }.push(*row);
    }
    // Equal rows may all fall to one side; then one of them goes to the other.
    if left.is_empty() {
        left.extend(right.pop());
    } else if right.is_empty() {
        right.extend(left.pop());
    }
    Ok((left, right))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use papertrial_numerics::metrics::clustering::inertia;
    use proptest::prelude::*;

    fn fit(x: Array2<f64>, k: usize) -> Result<Vec<i32>> {
        let method = BisectingKMeans {
            k,
            ..BisectingKMeans::default()
        };
        let points = Points::from_matrix(x)?;
        Ok(method.fit(&points, &Context::with_seed(0))?.labels)
    }

    #[test]
    fn the_wider_pair_is_split_first() {
        let x = array![[0.0], [1.0], [100.0], [104.0]];
        assert_eq!(fit(x.clone(), 2).unwrap(), [0, 0, 1, 1]);
        assert_eq!(fit(x, 3).unwrap(), [0, 0, 1, 2]);
    }

    #[test]
    fn edges() {
        assert_eq!(fit(array![[1.0]], 1).unwrap(), [0]);
        assert_eq!(fit(array![[1.0], [2.0]], 2).unwrap(), [0, 1]);
        assert_eq!(fit(Array2::ones((5, 2)), 3).unwrap().iter().max(), Some(&2));
        assert!(fit(array![[1.0]], 2).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_next_cluster_comes_from_the_one_with_the_largest_inertia(
            values in prop::collection::vec(-5.0..5.0f64, 30),
            k in 1usize..8,
        ) {
            let x = Array2::from_shape_vec((15, 2), values).unwrap();
            let fewer = fit(x.clone(), k).unwrap();
            let more = fit(x.clone(), k + 1).unwrap();
            prop_assert_eq!(fewer.iter().max(), Some(&(k as i32 - 1)));
            prop_assert_eq!(more.iter().max(), Some(&(k as i32)));
            let cost = |group: i32| {
                let rows: Vec<usize> = (0..15).filter(|i| fewer[*i] == group).collect();
                inertia(x.select(Axis(0), &rows).view(), &vec![0; rows.len()]).unwrap()
            };
            let split: Vec<i32> = (0..k as i32)
                .filter(|group| {
                    let mut parts: Vec<i32> = (0..15).filter(|i| fewer[*i] == *group).map(|i| more[i]).collect();
                    parts.sort_unstable();
                    parts.dedup();
                    parts.len() > 1
                })
                .collect();
            prop_assert_eq!(split.len(), 1);
            prop_assert!((0..k as i32).all(|group| cost(group) <= cost(split[0]) + 1e-9));
        }
    }
}
