//! Agglomerative clustering, with Ward's linkage by default.
//!
//! Baseline. Ward, *Hierarchical grouping to optimize an objective function*, 1963; computed by the nearest-neighbour
//! chain of Müllner, *Modern hierarchical, agglomerative clustering algorithms*, 2011 (crate kodama).
//!
//! X \[n, d\] rows.
//! 1. Every row is a cluster. Distances between all pairs, \[n (n - 1) / 2\].
//! 2. Merge the two nearest clusters until one is left: nearest by the increase of the sum of squares (Ward), or by the
//!    largest, mean or smallest distance between their rows.
//! 3. Undo the last k - 1 merges: k clusters, numbered by their first row.
//!
//! Cost: O(n^2 d) time for the distances and O(n^2) for the merges, 4 n^2 bytes of memory. No random numbers.

use super::{Clusterer, Grouping, Points};
use ndarray::Array2;
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::self_squared_distances;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of agglomerative clustering.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ward {
    /// Number of clusters.
    #[schemars(range(min = 1))]
    pub k: usize,
    /// Which clusters are nearest.
    pub linkage: Linkage,
}

/// How far two clusters are apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Linkage {
    /// By the increase of the sum of squares within clusters.
    Ward,
    /// By the largest distance between their rows.
    Complete,
    /// By the mean distance between their rows.
    Average,
    /// By the smallest distance between their rows.
    Single,
}

impl Default for Ward {
    fn default() -> Self {
        Ward {
            k: 8,
            linkage: Linkage::Ward,
        }
    }
}

impl Method for Ward {
    const FACTS: Facts = Facts {
        name: "ward",
        about: "agglomerative clustering, by default with Ward's linkage",
        paper: None,
        streams: false,
    };
}

impl Clusterer for Ward {
    fn fit(&self, points: &Points, context: &Context) -> Result<Grouping> {
        points.check_k(self.k)?;
        let x = points.matrix(context)?;
        Ok(Grouping {
            labels: agglomerate(x, self.k, self.linkage, context)?,
            ..Grouping::default()
        })
    }
}

/// Labels \[n\] of k clusters, numbered by their first row.
///
/// # Errors
/// The distances would not fit into memory.
pub(crate) fn agglomerate(
    x: &Array2<f64>,
    k: usize,
    linkage: Linkage,
    context: &Context,
) -> Result<Vec<i32>> {
    let n = x.nrows();
    if n < 2 {
        return Ok(vec![0; n]);
    }
    // The square matrix lives until its half was copied.
    context.require(
        &format!("the distances between {n} rows"),
        12 * (n as u64).pow(2),
    )?;
    // Step 1.
    let square = self_squared_distances(x.view()).map_err(|e| Error::BadInput(e.to_string()))?;
    let mut half = Vec::with_capacity(n * (n - 1) / 2);
    for i in 0..n {
        half.extend((i + 1..n).map(|j| square[[i, j]].sqrt()));
    }
    drop(square);
    // Step 2.
    let method = match linkage {
        Linkage::Ward => kodama::Method::Ward,
        Linkage::Complete => kodama::Method::Complete,
        Linkage::Average => kodama::Method::Average,
        Linkage::Single => kodama::Method::Single,
    };
    let merges = kodama::linkage(&mut half, n, method);
    // Step 3: the merge with number i makes cluster n + i of two earlier ones.
    let mut parent: Vec<usize> = (0..2 * n - 1).collect();
    for (i, step) in merges.steps().iter().take(n - k).enumerate() {
        parent[step.cluster1] = n + i;
        parent[step.cluster2] = n + i;
    }
    // A parent has a higher number than its children, so one pass from the top finds all roots.
    for i in (0..parent.len()).rev() {
        parent[i] = parent[parent[i]];
    }
    Ok(number_by_first_row((0..n).map(|row| Some(parent[row]))))
}

/// Numbers groups by the first row of each; rows of no group are noise.
pub(crate) fn number_by_first_row(groups: impl Iterator<Item = Option<usize>>) -> Vec<i32> {
    let mut numbers = std::collections::HashMap::new();
    groups
        .map(|group| match group {
            None => super::NOISE,
            Some(group) => {
                let next = numbers.len() as i32;
                *numbers.entry(group).or_insert(next)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use papertrial_numerics::metrics::clustering::inertia;
    use proptest::prelude::*;

    fn fit(x: Array2<f64>, k: usize, linkage: Linkage) -> Result<Vec<i32>> {
        let points = Points::from_matrix(x)?;
        Ok(Ward { k, linkage }
            .fit(&points, &Context::with_seed(0))?
            .labels)
    }

    #[test]
    fn a_chain_is_cut_as_by_hand() {
        // Gaps 1, 1.5, 3: single linkage cuts at the 3; Ward merges {0, 1} and then {2.5, 5.5} would cost 4.5,
        // {0, 1} with 2.5 costs 2/3 * 1 * 2 * 2 = 2.67, so it cuts there too.
        let x = array![[0.0], [1.0], [2.5], [5.5]];
        assert_eq!(fit(x.clone(), 2, Linkage::Single).unwrap(), [0, 0, 0, 1]);
        assert_eq!(fit(x.clone(), 2, Linkage::Ward).unwrap(), [0, 0, 0, 1]);
        assert_eq!(fit(x.clone(), 3, Linkage::Complete).unwrap(), [0, 0, 1, 2]);
        assert_eq!(fit(x.clone(), 4, Linkage::Average).unwrap(), [0, 1, 2, 3]);
        assert_eq!(fit(x, 1, Linkage::Ward).unwrap(), [0, 0, 0, 0]);
    }

    #[test]
    fn single_and_complete_linkage_differ_on_a_long_chain() {
        // Steps of 1, 1, 1, 1.2: single linkage keeps the chain, complete linkage halves it.
        let x = array![[0.0], [1.0], [2.0], [3.0], [4.2]];
        assert_eq!(fit(x.clone(), 2, Linkage::Single).unwrap(), [0, 0, 0, 0, 1]);
        assert_ne!(fit(x, 2, Linkage::Complete).unwrap(), [0, 0, 0, 0, 1]);
    }

    #[test]
    fn edges() {
        assert_eq!(fit(array![[3.0, 4.0]], 1, Linkage::Ward).unwrap(), [0]);
        let same = fit(Array2::ones((4, 2)), 2, Linkage::Ward).unwrap();
        assert_eq!(same.iter().max(), Some(&1));
        assert!(fit(array![[1.0]], 2, Linkage::Ward).is_err());
        let points = Points::from_matrix(Array2::zeros((100, 1))).unwrap();
        let tight = Context {
            memory: Some(1000),
            ..Context::with_seed(0)
        };
        let e = Ward::default().fit(&points, &tight).unwrap_err();
        assert!(matches!(e, Error::Memory { .. }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_last_merge_is_the_cheapest_of_all_pairs(values in prop::collection::vec(-5.0..5.0f64, 16)) {
            let x = Array2::from_shape_vec((8, 2), values).unwrap();
            let three = fit(x.clone(), 3, Linkage::Ward).unwrap();
            let two = fit(x.clone(), 2, Linkage::Ward).unwrap();
            let cost = inertia(x.view(), &two).unwrap();
            for (a, b) in [(0, 1), (0, 2), (1, 2)] {
                let merged: Vec<i32> = three.iter().map(|l| if *l == b { a } else { *l }).collect();
                prop_assert!(cost <= inertia(x.view(), &merged).unwrap() + 1e-9);
            }
        }
    }
}
