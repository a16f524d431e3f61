//! The repair pass: rows that an early split put on the wrong side find their cluster, and needless splits are undone.

use super::split::{LLOYD_ROUNDS, fit, lloyd};
use super::tree::Tree;
use crate::gaussian::{self, Covariance, Mixture};
use ndarray::{Array2, ArrayView2, s};
use papertrial_core::Result;
use papertrial_core::task::Context;
use papertrial_numerics::kmeans::kmeans_from;

/// The mixture of all clusters.
pub(super) struct Repaired {
    /// One component a cluster, without its responsibilities.
    pub mixture: Mixture,
    /// Cluster of each row by Lloyd, \[n\].
    pub groups: Vec<u32>,
    /// Cluster that each of the leaves became part of.
    pub of_leaf: Vec<usize>,
    /// Nodes whose two parts became one cluster.
    pub merged: Vec<usize>,
}

/// Rows x \[n, d\] and z \[n, q\] in the mixture's space; `variance` is the mean variance of z.
///
/// 1. Lloyd from the means of the leaves.
/// 2. A mixture with a component for each of its clusters, on the rows of the root's sample.
/// 3. For two parts of one node that are both clusters: the mixture in which they are one, started from the sum of
///    their responsibilities. The merge that lowers the BIC most is kept (of equal ones the first), and the step
///    is repeated until none lowers it.
pub(super) fn repair(
    x: ArrayView2<f64>,
    z: ArrayView2<f64>,
    tree: &Tree,
    leaves: &[usize],
    covariance: Covariance,
    variance: f64,
    context: &Context,
) -> Result<Repaired> {
    let mut centres = Array2::zeros((leaves.len(), x.ncols()));
    for (mut centre, leaf) in centres.outer_iter_mut().zip(leaves) {
        let mean = &tree.nodes[*leaf].centre;
        centre.iter_mut().zip(mean).for_each(|(c, m)| *c = *m);
    }
    let mut groups = lloyd(kmeans_from(x, None, centres.view(), LLOYD_ROUNDS, 0.0))?.labels;

    let sampled = (tree.sample.len() < z.nrows()).then(|| super::order::gather(z, &tree.sample));
    let rows = sampled.as_ref().map_or(z, |rows| rows.view());
    let started: Vec<u32> = tree
        .sample
        .iter()
        .map(|row| groups[*row as usize])
        .collect();
    let start = gaussian::hard(&started, leaves.len())?;
    let mut mixture = fit(rows, &start, covariance, variance)?;
    let bic = |mixture: &Mixture| {
        let parameters = gaussian::free_parameters(mixture.weights.len(), z.ncols(), covariance);
        gaussian::bic(mixture.log_likelihood, parameters, rows.nrows())
    };

    let mut nodes: Vec<usize> = leaves.to_vec();
    let mut of_leaf: Vec<usize> = (0..leaves.len()).collect();
    let mut merged = Vec::new();
    loop {
        context.step("repairing", merged.len(), leaves.len());
        let mut best: Option<(f64, usize, [usize; 2], Mixture)> = None;
        for (id, node) in tree.nodes.iter().enumerate() {
            let places = node
                .children
                .map(|c| c.map(|c| nodes.iter().position(|n| *n == c)));
            let Some([Some(a), Some(b)]) = places else {
                continue;
            };
            let (a, b) = (a.min(b), a.max(b));
            let together = fit(
                rows,
                &joined(&mixture.responsibilities, a, b),
                covariance,
                variance,
            )?;
            let criterion = bic(&together);
            if criterion < best.as_ref().map_or_else(|| bic(&mixture), |b| b.0) {
                best = Some((criterion, id, [a, b], together));
            }
        }
        let Some((_, id, [a, b], together)) = best else {
            break;
        };
        mixture = together;
        nodes[a] = id;
        nodes.remove(b);
        merged.push(id);
        let renamed = |group: usize| match group {
            g if g == b => a,
            g if g > b => g - 1,
            g => g,
        };
        of_leaf.iter_mut().for_each(|g| *g = renamed(*g));
        groups
            .iter_mut()
            .for_each(|g| *g = renamed(*g as usize) as u32);
    }
    mixture.responsibilities = Array2::zeros((0, nodes.len()));
    Ok(Repaired {
        mixture,
        groups,
        of_leaf,
        merged,
    })
}

/// Responsibilities with columns a < b summed into a.
fn joined(r: &Array2<f64>, a: usize, b: usize) -> Array2<f64> {
    let k = r.ncols();
    let mut out = Array2::zeros((r.nrows(), k - 1));
    out.slice_mut(s![.., ..b]).assign(&r.slice(s![.., ..b]));
    out.slice_mut(s![.., b..]).assign(&r.slice(s![.., b + 1..]));
    let mut column = out.column_mut(a);
    column += &r.column(b);
    out
}

#[cfg(test)]
mod tests {
    use super::super::tree::Node;
    use super::*;
    use ndarray::array;

    #[test]
    fn columns_are_joined() {
        let r = array![[0.1, 0.2, 0.3, 0.4]];
        assert_eq!(joined(&r, 0, 2), array![[0.1 + 0.3, 0.2, 0.4]]);
        assert_eq!(joined(&r, 2, 3), array![[0.1, 0.2, 0.3 + 0.4]]);
        assert_eq!(joined(&array![[0.25, 0.75]], 0, 1), array![[1.0]]);
    }

    /// A tree whose root was split so that the first rows are one leaf and the others the second.
    fn halved(x: &Array2<f64>, first: usize) -> Tree {
        let n = x.nrows();
        let node = |parent, rows: std::ops::Range<usize>, children| Node {
            parent,
            depth: usize::from(parent.is_some()),
            rows: rows.len(),
            centre: x
                .slice(s![rows.clone(), ..])
                .mean_axis(ndarray::Axis(0))
                .unwrap()
                .to_vec(),
            measures: None,
            children,
            mixture: None,
            reason: None,
            path: vec![1.0; rows.len()],
            members: rows.map(|i| i as u32).collect(),
        };
        Tree {
            nodes: vec![
                node(None, 0..n, Some([1, 2])),
                node(Some(0), 0..first, None),
                node(Some(0), first..n, None),
            ],
            sample: (0..n as u32).collect(),
            root_sides: None,
        }
    }

    fn repaired(x: &Array2<f64>, first: usize) -> Repaired {
        let tree = halved(x, first);
        let context = Context::with_seed(0);
        let variance = super::super::split::mean_variance(x.view());
        repair(
            x.view(),
            x.view(),
            &tree,
            &[1, 2],
            Covariance::Full,
            variance,
            &context,
        )
        .unwrap()
    }

    #[test]
    fn the_halves_of_one_cloud_are_merged() {
        // The quantiles of a normal distribution in each of two columns, cut at 60 of 100 rows.
        let x = Array2::from_shape_fn((100, 2), |(i, c)| {
            let i = if c == 0 { i } else { i * 37 % 100 };
            let u = (i as f64 + 0.5) / 100.0;
            (u / (1.0 - u)).ln()
        });
        let found = repaired(&x, 60);
        assert_eq!(found.merged, [0]);
        assert_eq!(found.of_leaf, [0, 0]);
        assert_eq!(found.mixture.weights.len(), 1);
        assert!(found.groups.iter().all(|g| *g == 0));
    }

    #[test]
    fn rows_on_the_wrong_side_move_and_true_clusters_stay() {
        // Groups of 50 and 50, but the tree put 60 on the first side.
        let x = Array2::from_shape_fn((100, 2), |(i, c)| {
            let i = if c == 0 { i } else { i * 37 % 100 };
            (i % 50) as f64 * 0.1 + if i >= 50 && c == 0 { 30.0 } else { 0.0 }
        });
        let found = repaired(&x, 60);
        assert!(found.merged.is_empty());
        assert_eq!(found.of_leaf, [0, 1]);
        let expected: Vec<u32> = (0..100).map(|i| u32::from(i >= 50)).collect();
        assert_eq!(found.groups, expected);
    }
}
