//! HDBSCAN: the clusters that persist longest as the density threshold rises; the rest is noise.
//!
//! Baseline. Campello, Moulavi, Zimek and Sander, *Hierarchical density estimates for data clustering, visualization, and
//! outlier detection*, 2015, by the crate petal-clustering. Defaults are those of the Python package hdbscan
//! (min-cluster-size 5, min-samples the same).
//!
//! X \[n, d\] rows.
//! 1. Core distance of a row: to its min-samples-th nearest row, itself counted. Mutual reachability of two rows: the
//!    largest of their core distances and their distance.
//! 2. Minimum spanning tree of the mutual reachabilities; its edges in order make a hierarchy.
//! 3. Splits that leave a side smaller than min-cluster-size are no splits.
//! 4. Of the clusters that remain keep those whose excess of mass is larger than that of their parts together.
//!
//! Cost: about O(n log n) tree queries in few dimensions, O(n^2 d) in many. No random numbers.

use super::ward::number_by_first_row;
use super::{Clusterer, Grouping, Points};
use papertrial_core::Result;
use papertrial_core::task::{Context, Facts, Method};
use petal_clustering::{Fit, HDbscan};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of HDBSCAN.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Hdbscan {
    /// Rows that make a cluster at least.
    #[schemars(range(min = 2))]
    pub min_cluster_size: usize,
    /// Rows, itself included, within the core distance; min-cluster-size if none.
    #[schemars(range(min = 1))]
    pub min_samples: Option<usize>,
}

impl Default for Hdbscan {
    fn default() -> Self {
        Hdbscan {
            min_cluster_size: 5,
            min_samples: None,
        }
    }
}

impl Method for Hdbscan {
    const FACTS: Facts = Facts {
        name: "hdbscan",
        about: "the most persistent dense regions are clusters, the rest is noise",
        paper: None,
        streams: false,
    };
}

impl Clusterer for Hdbscan {
    fn fit(&self, points: &Points, context: &Context) -> Result<Grouping> {
        let x = points.matrix(context)?;
        let n = x.nrows();
        let min_samples = self.min_samples.unwrap_or(self.min_cluster_size);
        let mut groups = vec![None; n];
        let mut notes = Vec::new();
        // The tree needs as many rows as a core distance counts; fewer than two clusters' worth make none.
        if n < min_samples.max(self.min_cluster_size) || n < 2 {
            notes.push(format!(
                "{n} rows are too few for a cluster of {}",
                self.min_cluster_size
            ));
        } else {
            let mut method = HDbscan::<f64, _> {
                min_samples,
                min_cluster_size: self.min_cluster_size,
                ..Default::default()
            };
            let (clusters, _, _) = method.fit(x, None);
            for (cluster, rows) in clusters {
                for row in rows {
                    groups[row] = Some(cluster);
                }
            }
        }
        Ok(Grouping {
            labels: number_by_first_row(groups.into_iter()),
            notes,
            ..Grouping::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};
    use papertrial_numerics::sampling::rng;
    use proptest::prelude::*;
    use rand::RngExt;

    fn fit(x: Array2<f64>, min_cluster_size: usize) -> Grouping {
        let points = Points::from_matrix(x).unwrap();
        let method = Hdbscan {
            min_cluster_size,
            min_samples: None,
        };
        method.fit(&points, &Context::with_seed(0)).unwrap()
    }

    #[test]
    fn groups_of_unlike_density_are_found_and_a_stray_row_is_noise() {
        // Spacing 0.1 and 1: no single distance of DBSCAN keeps both whole and apart from the stray row.
        let mut values: Vec<f64> = (0..10).map(|i| f64::from(i) * 0.1).collect();
        values.extend((0..10).map(|i| 20.0 + f64::from(i)));
        values.push(200.0);
        let found = fit(Array2::from_shape_vec((21, 1), values).unwrap(), 5);
        assert_eq!(found.groups(), 2);
        assert!(found.labels[..10].iter().all(|l| *l == 0));
        assert!(
            found.labels[10..20].iter().all(|l| *l == 1),
            "{:?}",
            found.labels
        );
        assert_eq!(found.labels[20], super::super::NOISE);
    }

    #[test]
    fn few_rows_and_equal_rows_are_answered() {
        let few = fit(array![[1.0], [2.0]], 5);
        assert_eq!(few.labels, [-1, -1]);
        assert!(few.notes[0].contains("too few"));
        assert_eq!(fit(array![[1.0]], 2).labels, [-1]);
        assert_eq!(fit(Array2::ones((12, 2)), 5).labels.len(), 12);
    }

    #[test]
    fn any_number_of_threads_gives_the_same_groups() {
        let mut draw = rng(1, "hdbscan");
        let x = Array2::from_shape_simple_fn((300, 3), || draw.random_range(-1.0..1.0));
        let groups = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| fit(x.clone(), 4).labels)
        };
        assert_eq!(groups(1), groups(3));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_cluster_has_the_asked_size(values in prop::collection::vec(-3.0..3.0f64, 60), size in 2usize..8) {
            let found = fit(Array2::from_shape_vec((30, 2), values).unwrap(), size);
            for group in 0..found.groups() as i32 {
                prop_assert!(found.labels.iter().filter(|l| **l == group).count() >= size);
            }
        }
    }
}
