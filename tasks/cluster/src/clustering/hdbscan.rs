//! HDBSCAN: the clusters that persist longest as the density threshold rises; the rest is noise.
//!
//! Baseline. Campello, Moulavi, Zimek and Sander, *Hierarchical density estimates for data clustering, visualization, and
//! outlier detection*, 2015. Defaults are those of the Python package hdbscan (min-cluster-size 5, min-samples the same).
//!
//! X \[n, d\] rows.
//! 1. Core distance of a row: to its min-samples-th nearest row, itself counted. Mutual reachability of two rows: the
//!    largest of their core distances and their distance.
//! 2. Minimum spanning tree of the mutual reachabilities (Prim).
//! 3. Its edges from the shortest make a hierarchy; edges of equal length merge at once, so that the order of the rows
//!    does not matter.
//! 4. From the top, with lambda = 1 / length: a split counts only where at least two parts have min-cluster-size rows;
//!    smaller parts fall out of their cluster. Excess of mass of a cluster: the sum over its rows of (lambda at which the
//!    row leaves) - (lambda at which the cluster began).
//! 5. Keep each cluster whose mass is at least that of the kept clusters below it together; never the one of all rows.
//!
//! Cost: O(n^2 d) time, less where core distances rule pairs out; memory O(n min-samples). No random numbers.
//!
//! The crate petal-clustering gives the same clusters where all distances differ, but with equal distances (whole
//! numbers, duplicates) it handles parts of one merge as if they were several, and its clusters then depend on the order
//! of the rows.

use super::ward::{number_by_first_row, slices};
use super::{Clusterer, Grouping, NOISE, Points};
use ndarray::Array2;
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::squared_distance;
use papertrial_numerics::neighbours::self_neighbours;
use rayon::prelude::*;
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
        let least = self.min_cluster_size;
        if least < 2 {
            return Err(Error::option("min-cluster-size", "must be at least 2"));
        }
        let x = points.matrix(context)?;
        let n = x.nrows();
        let min_samples = self.min_samples.unwrap_or(least);
        let mut notes = Vec::new();
        let labels = if n < least.max(min_samples) {
            notes.push(format!(
                "{n} rows are too few for min-cluster-size {least} and min-samples {min_samples}: all are noise"
            ));
            vec![NOISE; n]
        } else {
            let core = core_distances(x, min_samples)?;
            let edges = spanning_tree(x, &core, context)?;
            let (clusters, last) = condense(n, &hierarchy(n, edges), least);
            let kept = keep(&clusters);
            let labels = number_by_first_row(last.iter().map(|cluster| kept[*cluster]));
            if labels.iter().all(|l| *l == NOISE) {
                notes.push(
                    "every row is noise: no split leaves two clusters of min-cluster-size".into(),
                );
            }
            labels
        };
        Ok(Grouping {
            labels,
            notes,
            ..Grouping::default()
        })
    }
}

/// Step 1: squared core distances \[n\].
fn core_distances(x: &Array2<f64>, min_samples: usize) -> Result<Vec<f64>> {
    if min_samples < 2 {
        return Ok(vec![0.0; x.nrows()]);
    }
    let near =
        self_neighbours(x.view(), min_samples - 1).map_err(|e| Error::BadInput(e.to_string()))?;
    Ok(near.squared.column(min_samples - 2).to_vec())
}

/// Squared mutual reachability of two rows.
type Edge = (f64, usize, usize);

/// Step 2: the n - 1 edges of the minimum spanning tree.
fn spanning_tree(x: &Array2<f64>, core: &[f64], context: &Context) -> Result<Vec<Edge>> {
    /// Rows of one task.
    const CHUNK: usize = 2048;
    const FAR: (f64, usize) = (f64::INFINITY, 0);
    let rows = slices(x)?;
    let n = rows.len();
    // Rows outside the tree, and for each the nearest row inside.
    let mut outside: Vec<usize> = (1..n).collect();
    let mut nearest = vec![FAR; outside.len()];
    let mut edges = Vec::with_capacity(outside.len());
    let mut newest = 0;
    while !outside.is_empty() {
        let (_, place) = outside
            .par_chunks(CHUNK)
            .zip(nearest.par_chunks_mut(CHUNK))
            .enumerate()
            .map(|(chunk, (outside, nearest))| {
                let mut least = FAR;
                for (i, (row, known)) in outside.iter().zip(nearest).enumerate() {
                    let floor = core[newest].max(core[*row]);
                    if floor < known.0 {
                        let reach = squared_distance(rows[newest], rows[*row]).max(floor);
                        if reach < known.0 {
                            *known = (reach, newest);
                        }
                    }
                    if known.0 < least.0 {
                        least = (known.0, chunk * CHUNK + i);
                    }
                }
                least
            })
            .reduce(|| FAR, |a, b| if b.0 < a.0 { b } else { a });
        let (reach, inside) = nearest.swap_remove(place);
        newest = outside.swap_remove(place);
        edges.push((reach, inside, newest));
        if edges.len() % 1024 == 0 {
            context.step("joining rows", edges.len(), n);
        }
    }
    Ok(edges)
}

/// A merge: what it joins (rows below n, the merge with number i as n + i), how many rows, at which squared length.
struct Merge {
    parts: Vec<usize>,
    size: usize,
    squared: f64,
}

/// Step 3: the merges, shortest first; the last joins all rows.
fn hierarchy(n: usize, mut edges: Vec<Edge>) -> Vec<Merge> {
    edges.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut merges: Vec<Merge> = Vec::new();
    // Union-find over rows; `top` is the newest part that the rows of a root belong to.
    let mut parent: Vec<usize> = (0..n).collect();
    let mut top: Vec<usize> = (0..n).collect();
    for equal in edges.chunk_by(|a, b| a.0 == b.0) {
        let mut joined: Vec<usize> = Vec::with_capacity(2 * equal.len());
        for (_, a, b) in equal {
            joined.extend([find(&mut parent, *a), find(&mut parent, *b)]);
        }
        joined.sort_unstable();
        joined.dedup();
        for (_, a, b) in equal {
            let (a, b) = (find(&mut parent, *a), find(&mut parent, *b));
            parent[a.max(b)] = a.min(b);
        }
        let mut parts: Vec<(usize, usize)> = joined
            .iter()
            .map(|root| (find(&mut parent, *root), top[*root]))
            .collect();
        parts.sort_unstable();
        for together in parts.chunk_by(|a, b| a.0 == b.0) {
            let parts: Vec<usize> = together.iter().map(|p| p.1).collect();
            top[together[0].0] = n + merges.len();
            merges.push(Merge {
                size: parts.iter().map(|p| size(n, &merges, *p)).sum(),
                squared: equal[0].0,
                parts,
            });
        }
    }
    merges
}

fn find(parent: &mut [usize], mut row: usize) -> usize {
    while parent[row] != row {
        parent[row] = parent[parent[row]];
        row = parent[row];
    }
    row
}

fn size(n: usize, merges: &[Merge], part: usize) -> usize {
    if part < n { 1 } else { merges[part - n].size }
}

/// A cluster of step 4; the first is all rows, and every other comes after its parent.
struct Cluster {
    parent: usize,
    birth: f64,
    mass: f64,
}

/// Step 4: the clusters, and for each row the last that it belongs to.
fn condense(n: usize, merges: &[Merge], least: usize) -> (Vec<Cluster>, Vec<usize>) {
    let mut clusters = vec![Cluster {
        parent: 0,
        birth: 0.0,
        mass: 0.0,
    }];
    let mut last = vec![0; n];
    // Parts to be looked at, with their cluster and whether they are still in it.
    let mut waiting = vec![(n + merges.len() - 1, 0, true)];
    while let Some((part, cluster, alive)) = waiting.pop() {
        if part < n {
            last[part] = cluster;
            continue;
        }
        let merge = &merges[part - n];
        let large = |part: usize| size(n, merges, part) >= least;
        let larges = merge.parts.iter().filter(|p| large(**p)).count();
        if alive {
            let stay = match larges {
                1 => merge
                    .parts
                    .iter()
                    .map(|p| size(n, merges, *p))
                    .max()
                    .unwrap_or(0),
                _ => 0,
            };
            // Rows at one place have no density; the largest number keeps the masses comparable.
            let lambda = (1.0 / merge.squared.sqrt()).min(f64::MAX);
            let gain = (lambda - clusters[cluster].birth) * (merge.size - stay) as f64;
            clusters[cluster].mass += gain;
            for &part in &merge.parts {
                let inside = if larges > 1 && large(part) {
                    clusters.push(Cluster {
                        parent: cluster,
                        birth: lambda,
                        mass: 0.0,
                    });
                    clusters.len() - 1
                } else {
                    cluster
                };
                waiting.push((part, inside, large(part)));
            }
        } else {
            waiting.extend(merge.parts.iter().map(|p| (*p, cluster, false)));
        }
    }
    (clusters, last)
}

/// Step 5: for each cluster the kept one that its rows belong to.
fn keep(clusters: &[Cluster]) -> Vec<Option<usize>> {
    let mut below = vec![0.0; clusters.len()];
    let mut chosen = vec![false; clusters.len()];
    for (i, cluster) in clusters.iter().enumerate().skip(1).rev() {
        chosen[i] = cluster.mass >= below[i];
        below[cluster.parent] += cluster.mass.max(below[i]);
    }
    let mut kept = vec![None; clusters.len()];
    for (i, cluster) in clusters.iter().enumerate().skip(1) {
        kept[i] = kept[cluster.parent].or(chosen[i].then_some(i));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Axis, array};
    use papertrial_numerics::sampling::{permutation, rng};
    use proptest::prelude::*;
    use rand::RngExt;

    fn fit_samples(
        x: Array2<f64>,
        min_cluster_size: usize,
        min_samples: Option<usize>,
    ) -> Grouping {
        let points = Points::from_matrix(x).unwrap();
        let method = Hdbscan {
            min_cluster_size,
            min_samples,
        };
        method.fit(&points, &Context::with_seed(0)).unwrap()
    }

    fn fit(x: Array2<f64>, min_cluster_size: usize) -> Grouping {
        fit_samples(x, min_cluster_size, None)
    }

    #[test]
    fn groups_of_unlike_density_are_found_and_a_stray_row_is_noise() {
        // Spacing 0.1 and 1: no single distance of DBSCAN keeps both whole and apart from the stray row.
        let mut values: Vec<f64> = (0..10).map(|i| f64::from(i) * 0.1).collect();
        values.extend((0..10).map(|i| 20.0 + f64::from(i)));
        values.push(200.0);
        let found = fit(Array2::from_shape_vec((21, 1), values).unwrap(), 5);
        let expected: Vec<i32> = (0..21)
            .map(|i| if i == 20 { NOISE } else { i / 10 })
            .collect();
        assert_eq!(found.labels, expected);
    }

    #[test]
    fn masses_of_hand() {
        // Three rows at 0, 1, 2 and three at 10, 11, 12; min-samples 1, so that lengths are distances. The top splits
        // at 8; both parts are born at 1/8 and lose all three rows at 1.
        let x = array![[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]];
        let context = Context::with_seed(0);
        let edges = spanning_tree(&x, &[0.0; 6], &context).unwrap();
        let merges = hierarchy(6, edges);
        assert_eq!(merges.iter().map(|m| m.size).collect::<Vec<_>>(), [3, 3, 6]);
        let (clusters, last) = condense(6, &merges, 2);
        let mut masses: Vec<f64> = clusters.iter().map(|c| c.mass).collect();
        masses.sort_by(f64::total_cmp);
        assert_eq!(masses, [6.0 / 8.0, 3.0 * 7.0 / 8.0, 3.0 * 7.0 / 8.0]);
        assert_eq!(
            number_by_first_row(last.into_iter().map(Some)),
            [0, 0, 0, 1, 1, 1]
        );
    }

    #[test]
    fn edges_of_the_input() {
        let few = fit(array![[1.0], [2.0]], 5);
        assert_eq!(few.labels, [NOISE; 2]);
        assert!(few.notes[0].contains("too few"));
        assert_eq!(fit(array![[1.0]], 2).labels, [NOISE]);
        // One place is one cluster of all rows, which is never kept; two places are two.
        let same = fit(Array2::ones((12, 2)), 5);
        assert_eq!(same.labels, [NOISE; 12]);
        assert!(same.notes[0].contains("every row is noise"));
        let two = Array2::from_shape_fn((12, 2), |(i, _)| (i % 2) as f64);
        assert_eq!(fit(two, 5).labels, [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
        let wide = Array2::from_shape_fn((8, 40), |(i, j)| (i / 4 * 9) as f64 + (i * j % 3) as f64);
        assert_eq!(fit(wide, 3).labels.len(), 8);
        let points = Points::from_matrix(array![[1.0], [2.0]]).unwrap();
        let impossible = Hdbscan {
            min_cluster_size: 1,
            min_samples: None,
        };
        assert!(impossible.fit(&points, &Context::with_seed(0)).is_err());
    }

    #[test]
    fn any_number_of_threads_gives_the_same_groups() {
        let mut draw = rng(1, "hdbscan");
        let x = Array2::from_shape_simple_fn((5000, 2), || draw.random_range(-1.0..1.0));
        let groups = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| fit(x.clone(), 4).labels)
        };
        assert_eq!(groups(1), groups(3));
    }

    /// The definition, with no tree: a cluster lives down the lengths, and at each the parts of its rows are those that
    /// shorter pairs connect. The kept groups of rows; `slack` is a factor on what lies below where masses are compared.
    fn by_definition(
        x: &Array2<f64>,
        least: usize,
        min_samples: usize,
        slack: f64,
    ) -> Vec<Vec<usize>> {
        let n = x.nrows();
        let distance = |i: usize, j: usize| (&x.row(i) - &x.row(j)).mapv(|v| v * v).sum().sqrt();
        let core: Vec<f64> = (0..n)
            .map(|i| {
                let mut all: Vec<f64> = (0..n).map(|j| distance(i, j)).collect();
                all.sort_by(f64::total_cmp);
                all[min_samples - 1]
            })
            .collect();
        let reach =
            Array2::from_shape_fn((n, n), |(i, j)| distance(i, j).max(core[i]).max(core[j]));
        let (_, mut kept) = live((0..n).collect(), 0.0, &reach, least, slack, true);
        kept.sort();
        kept
    }

    /// Mass and kept groups of the cluster `rows` that is born at `birth`.
    fn live(
        mut rows: Vec<usize>,
        birth: f64,
        reach: &Array2<f64>,
        least: usize,
        slack: f64,
        is_root: bool,
    ) -> (f64, Vec<Vec<usize>>) {
        let own = rows.clone();
        let mut mass = 0.0;
        loop {
            let mut lengths: Vec<f64> = Vec::new();
            for a in &rows {
                lengths.extend(rows.iter().filter(|b| *b != a).map(|b| reach[[*a, *b]]));
            }
            lengths.sort_by(f64::total_cmp);
            lengths.dedup();
            // The length at which the rows are connected, but below which they are not.
            let length = lengths
                .iter()
                .rev()
                .take_while(|l| parts(&rows, reach, l.next_up()).len() == 1)
                .last();
            let length = *length.unwrap();
            let lambda = if length > 0.0 { 1.0 / length } else { f64::MAX };
            let mut large = parts(&rows, reach, length);
            large.retain(|p| p.len() >= least);
            if large.len() == 1 {
                mass += (lambda - birth) * (rows.len() - large[0].len()) as f64;
                rows = large.remove(0);
                continue;
            }
            mass += (lambda - birth) * rows.len() as f64;
            let (mut below, mut kept) = (0.0, Vec::new());
            for part in large {
                let (more, groups) = live(part, lambda, reach, least, slack, false);
                below += more;
                kept.extend(groups);
            }
            return if !is_root && mass >= below * slack {
                (mass, vec![own])
            } else {
                (below, kept)
            };
        }
    }

    fn parts(rows: &[usize], reach: &Array2<f64>, below: f64) -> Vec<Vec<usize>> {
        let mut left = rows.to_vec();
        let mut all = Vec::new();
        while let Some(start) = left.pop() {
            let mut part = vec![start];
            let mut next = 0;
            while next < part.len() {
                let row = part[next];
                next += 1;
                let (near, far): (Vec<usize>, Vec<usize>) =
                    left.iter().partition(|other| reach[[row, **other]] < below);
                part.extend(near);
                left = far;
            }
            part.sort_unstable();
            all.push(part);
        }
        all
    }

    fn groups(labels: &[i32]) -> Vec<Vec<usize>> {
        let count = labels.iter().max().map_or(0, |l| l + 1);
        let rows = |group| (0..labels.len()).filter(|i| labels[*i] == group).collect();
        let mut all: Vec<Vec<usize>> = (0..count).map(rows).collect();
        all.sort();
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn groups_are_those_of_the_definition(
            values in prop::collection::vec(0.0..12.0f64, 60),
            whole in any::<bool>(),
            least in 2usize..6,
            min_samples in 1usize..6,
            order in 0u64..1000,
        ) {
            // Whole numbers make many equal distances.
            let x = Array2::from_shape_vec((30, 2), values).unwrap();
            let x = if whole { x.mapv(f64::floor) } else { x };
            let found = fit_samples(x.clone(), least, Some(min_samples)).labels;
            // Masses may be equal but for rounding: either decision is right.
            let allowed: Vec<_> = [1.0, 1.0 - 1e-9, 1.0 + 1e-9]
                .iter()
                .map(|slack| by_definition(&x, least, min_samples, *slack))
                .collect();
            prop_assert!(allowed.contains(&groups(&found)), "{:?} is none of {:?}", found, allowed);
            // The order of the rows changes nothing.
            let order = permutation(&mut rng(order, "order"), 30);
            let shuffled = fit_samples(x.select(Axis(0), &order), least, Some(min_samples)).labels;
            let mut back = vec![0; 30];
            for (place, row) in order.iter().enumerate() {
                back[*row] = shuffled[place];
            }
            prop_assert!(allowed.contains(&groups(&back)));
        }
    }
}
