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
use papertrial_numerics::distance::squared_distance;
use rayon::prelude::*;
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
pub(super) fn agglomerate(
    x: &Array2<f64>,
    k: usize,
    linkage: Linkage,
    context: &Context,
) -> Result<Vec<i32>> {
    let n = x.nrows();
    if n < 2 {
        return Ok(vec![0; n]);
    }
    context.require(
        &format!("the distances between {n} rows"),
        4 * (n as u64).pow(2),
    )?;
    // Step 1, from differences, so that near rows keep their distance however far out they lie.
    let rows = slices(x)?;
    let mut distances = vec![0.0; n * (n - 1) / 2];
    let mut rest = &mut distances[..];
    let mut to_later = Vec::with_capacity(n);
    for i in 0..n {
        let (part, more) = rest.split_at_mut(n - 1 - i);
        to_later.push(part);
        rest = more;
    }
    to_later.into_par_iter().enumerate().for_each(|(i, out)| {
        for (out, other) in out.iter_mut().zip(&rows[i + 1..]) {
            *out = squared_distance(rows[i], other).sqrt();
        }
    });
    // Sums of squares of huge distances would overflow, and the merges do not depend on the unit.
    let largest = distances.iter().copied().fold(0.0, f64::max);
    if largest > 1e140 {
        distances.iter_mut().for_each(|d| *d /= largest);
    }
    // Step 2.
    let method = match linkage {
        Linkage::Ward => kodama::Method::Ward,
        Linkage::Complete => kodama::Method::Complete,
        Linkage::Average => kodama::Method::Average,
        Linkage::Single => kodama::Method::Single,
    };
    let merges = kodama::linkage(&mut distances, n, method);
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

/// The rows of a row-major matrix.
///
/// # Errors
/// The matrix is not row-major.
pub(super) fn slices(x: &Array2<f64>) -> Result<Vec<&[f64]>> {
    x.outer_iter()
        .map(|row| row.to_slice())
        .collect::<Option<_>>()
        .ok_or_else(|| Error::Failed("the rows are not stored one after the other".into()))
}

/// Numbers groups by the first row of each; rows of no group are noise.
pub(super) fn number_by_first_row(groups: impl Iterator<Item = Option<usize>>) -> Vec<i32> {
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
    use ndarray::{Axis, array};
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
        // Ward: {0, 1} first, at 1/2. Then {0, 1} with 4 would cost 2/3 * 3.5^2 = 8.17, 4 with 6.1 costs 2.1^2 / 2 = 2.2,
        // so the pairs stay; single linkage joins 6.1 last of all pairs' gaps 1, 2.1 and 3: the same two pairs.
        let x = array![[0.0], [1.0], [4.0], [6.1]];
        assert_eq!(fit(x.clone(), 3, Linkage::Ward).unwrap(), [0, 0, 1, 2]);
        assert_eq!(fit(x.clone(), 2, Linkage::Ward).unwrap(), [0, 0, 1, 1]);
        assert_eq!(fit(x.clone(), 2, Linkage::Single).unwrap(), [0, 0, 1, 1]);
        assert_eq!(fit(x.clone(), 4, Linkage::Average).unwrap(), [0, 1, 2, 3]);
        assert_eq!(fit(x, 1, Linkage::Complete).unwrap(), [0, 0, 0, 0]);
    }

    #[test]
    fn single_and_complete_linkage_differ_on_a_long_chain() {
        // Steps of 1, 1.1, 1.2 and 1.3: single linkage keeps the chain; complete linkage pairs {0, 1} and {2.1, 3.3},
        // then 4.6 is 2.5 from the second pair, and the pairs are 3.3 apart.
        let x = array![[0.0], [1.0], [2.1], [3.3], [4.6]];
        assert_eq!(fit(x.clone(), 2, Linkage::Single).unwrap(), [0, 0, 0, 0, 1]);
        assert_eq!(fit(x, 2, Linkage::Complete).unwrap(), [0, 0, 1, 1, 1]);
    }

    #[test]
    fn edges() {
        assert_eq!(fit(array![[3.0, 4.0]], 1, Linkage::Ward).unwrap(), [0]);
        let same = fit(Array2::ones((4, 2)), 2, Linkage::Ward).unwrap();
        assert_eq!(same.iter().max(), Some(&1));
        assert!(fit(array![[1.0]], 2, Linkage::Ward).is_err());
        // Far from the origin, and so large that squares times sizes overflow.
        let far = array![[1e9], [1e9 + 1e-6], [1e9 + 1.0], [1e9 + 1.0 + 1e-6]];
        assert_eq!(fit(far, 2, Linkage::Ward).unwrap(), [0, 0, 1, 1]);
        let huge = Array2::from_shape_fn((40, 1), |(i, _)| {
            1e153 * ((i / 8) as f64 * 1.5 - 3.0 + (i % 8) as f64 * 0.01)
        });
        let groups: Vec<i32> = (0..40).map(|i| i / 8).collect();
        assert_eq!(fit(huge, 5, Linkage::Ward).unwrap(), groups);
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
        fn every_cut_is_that_of_plain_merging(values in prop::collection::vec(-5.0..5.0f64, 24), linkage in 0..4usize) {
            let linkage = [Linkage::Ward, Linkage::Complete, Linkage::Average, Linkage::Single][linkage];
            let x = Array2::from_shape_vec((12, 2), values).unwrap();
            let labels_of = |groups: &[Vec<usize>]| -> Vec<i32> {
                number_by_first_row((0..12).map(|row| groups.iter().position(|g| g.contains(&row))))
            };
            let mut groups: Vec<Vec<usize>> = (0..12).map(|i| vec![i]).collect();
            for k in (1..=12).rev() {
                prop_assert_eq!(fit(x.clone(), k, linkage).unwrap(), labels_of(&groups));
                // The nearest pair, by the definition of the linkage on the rows themselves.
                let mut best = (f64::INFINITY, 0, 0);
                for b in 0..groups.len() {
                    for a in 0..b {
                        let distance = apart(&x, &groups[a], &groups[b], linkage);
                        if distance < best.0 {
                            best = (distance, a, b);
                        }
                    }
                }
                if k > 1 {
                    let moved = groups.remove(best.2);
                    groups[best.1].extend(moved);
                }
            }
        }
    }

    fn apart(x: &Array2<f64>, a: &[usize], b: &[usize], linkage: Linkage) -> f64 {
        let pairs: Vec<f64> = a
            .iter()
            .flat_map(|i| {
                b.iter()
                    .map(move |j| (&x.row(*i) - &x.row(*j)).mapv(|v| v * v).sum().sqrt())
            })
            .collect();
        match linkage {
            Linkage::Complete => pairs.iter().copied().fold(0.0, f64::max),
            Linkage::Single => pairs.iter().copied().fold(f64::INFINITY, f64::min),
            Linkage::Average => pairs.iter().sum::<f64>() / pairs.len() as f64,
            Linkage::Ward => {
                let both: Vec<usize> = a.iter().chain(b).copied().collect();
                let spread = |rows: &[usize]| {
                    inertia(x.select(Axis(0), rows).view(), &vec![0; rows.len()]).unwrap()
                };
                spread(&both) - spread(a) - spread(b)
            }
        }
    }
}
