//! Prototypes: rows by their distance to the mean of their cluster.
//!
//! Baseline. Sorscher et al., *Beyond neural scaling laws: beating power law scaling via data pruning*, NeurIPS 2022, arXiv
//! 2206.14486.
//!
//! f \[n, h\] the columns (the paper takes embeddings from self-supervised learning), or what the last layer of a scoring
//! model gets.
//! 1. k-means on f, as many clusters as there are classes unless told otherwise; labels are not used.
//! 2. Score: the distance of a row to the mean of its cluster.
//! 3. Keep the k rows farthest from it (hard) or nearest to it (easy); the paper finds hard ones better where data are
//!    plenty, and easy ones where they are few. In each class its share, or of all together.
//!
//! Cost: k-means, a few O(n clusters h) rounds.

use super::pool::{Choice, Keep, Pool, Selector, Space};
use ndarray::ArrayView2;
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::nearest;
use papertrial_numerics::kmeans::{KMeansOptions, kmeans};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the choice by prototypes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Prototypes {
    /// Which rows are kept.
    pub keep: Keep,
    /// Keep the classes' shares.
    pub balance: bool,
    /// Where clusters are sought.
    pub space: Space,
    /// Number of clusters; as many as classes if absent.
    #[schemars(range(min = 1))]
    pub clusters: Option<usize>,
}

impl Default for Prototypes {
    fn default() -> Self {
        Prototypes {
            keep: Keep::Hard,
            balance: true,
            space: Space::Columns,
            clusters: None,
        }
    }
}

impl Method for Prototypes {
    const FACTS: Facts = Facts {
        name: "prototypes",
        about: "rows farthest from, or nearest to, the mean of their k-means cluster",
        paper: None,
        streams: false,
    };
}

impl Selector for Prototypes {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        pool.by_space(self.space, |f| {
            let clusters = self.clusters.unwrap_or(pool.classes).min(pool.len());
            let scores = distances(f, clusters, pool.context.seed)?;
            pool.best(&scores, self.keep, self.balance)
        })
    }
}

/// Steps 1 and 2: squared distances, `[n]`.
fn distances(f: ArrayView2<f32>, clusters: usize, seed: u64) -> Result<Vec<f64>> {
    let failed = |e: &dyn std::fmt::Display| Error::Failed(format!("k-means of the rows: {e}"));
    let options = KMeansOptions {
        seed,
        ..KMeansOptions::new(clusters)
    };
    let found = kmeans(f, None, &options).map_err(|e| failed(&e))?;
    let near = nearest(f, found.centres.view()).map_err(|e| failed(&e))?;
    Ok(near.squared.iter().map(|s| f64::from(*s)).collect())
}

#[cfg(test)]
mod tests {
    use super::super::pool::testing::Asked;
    use super::*;
    use ndarray::{Array2, array};

    #[test]
    fn ends_of_two_clusters_by_hand() {
        // Means 1 and 12: distances 1, 0, 1 and 2, 1, 3.
        let x = array![[0.0f32], [1.0], [2.0], [10.0], [11.0], [15.0]];
        let asked = |choose| Asked::new(x.clone(), vec![0; 6], Array2::zeros((6, 1)), choose);
        let options = |keep, space| Prototypes {
            keep,
            balance: false,
            space,
            clusters: Some(2),
        };
        for space in [Space::Columns, Space::Model] {
            let rows = |k, keep| asked(k).once(&options(keep, space)).unwrap().rows;
            assert_eq!(rows(2, Keep::Hard), [3, 5]);
            assert_eq!(rows(1, Keep::Easy), [1]);
        }
    }

    #[test]
    fn more_clusters_than_rows_are_as_many_as_rows() {
        let options = Prototypes {
            clusters: Some(50),
            ..Prototypes::default()
        };
        assert_eq!(
            Asked::plain(7, 2, 3, 0).once(&options).unwrap().rows.len(),
            3
        );
    }
}
