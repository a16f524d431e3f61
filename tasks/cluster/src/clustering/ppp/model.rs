//! What labels new rows: the final mixture, or the clusters' centres.

use super::order::Ordered;
use super::repair::Repaired;
use super::split::mean_variance;
use crate::clustering::Model;
use crate::gaussian::Mixture;
use ndarray::{Array2, Array3, ArrayView2, Axis};
use papertrial_numerics::linalg::Pca;

/// Numbers in the covariances of a model's file at most.
const MODEL_ENTRIES: usize = 1 << 22;

/// The mixture of step 7 in the space of the columns, or the clusters' centres.
pub(super) fn model(
    repaired: Option<&Repaired>,
    pca: Option<&Pca>,
    ordered: &Ordered,
    labels: &[i32],
    cluster_of: &[usize],
    notes: &mut Vec<String>,
) -> Model {
    let d = ordered.x.ncols();
    let k = cluster_of.len();
    match repaired {
        Some(repaired) if k * d * d <= MODEL_ENTRIES => {
            let places: Vec<usize> = sorted_places(cluster_of);
            let mixture = &repaired.mixture;
            let (means, covariances) = match pca {
                Some(pca) => lifted(mixture, pca, ordered.x.view()),
                None => (mixture.means.clone(), mixture.full_covariances()),
            };
            Model::gaussians(
                &mixture.weights.select(Axis(0), &places),
                &means.select(Axis(0), &places),
                &covariances.select(Axis(0), &places),
            )
        }
        _ => {
            if repaired.is_some() {
                notes.push(format!(
                    "the model holds the clusters' centres: {k} covariances of {d} columns are too large for a file"
                ));
            } else if k > 1 {
                notes.push(
                    "the model gives a new row to the nearest centre, not along the tree".into(),
                );
            }
            Model::centres(&centres(ordered.x.view(), labels, k))
        }
    }
}

/// The old place of each new one, of a list of the new place of each old one.
fn sorted_places(new: &[usize]) -> Vec<usize> {
    let mut places = vec![0; new.len()];
    for (old, new) in new.iter().enumerate() {
        places[*new] = old;
    }
    places
}

/// A mixture in q principal components as one in d columns: along the axes its own, across them the same sphere
/// around the mean for all components. That factor is common to all densities, so the posteriors are the same.
fn lifted(mixture: &Mixture, pca: &Pca, x: ArrayView2<f64>) -> (Array2<f64>, Array3<f64>) {
    let (k, q) = mixture.means.dim();
    let d = pca.axes.ncols();
    let means = mixture.means.dot(&pca.axes) + &pca.mean;
    let inner = mixture.full_covariances();
    // Any size of the sphere will do; that of what the axes leave is of the same order as the rest.
    let total = mean_variance(x) * d as f64;
    let left = (total - pca.variances.sum()).max(0.0) / (d - q).max(1) as f64;
    let size = if left > 1e-9 * total {
        left
    } else {
        total / d as f64
    };
    let mut covariances = Array3::zeros((k, d, d));
    for (mut out, inner) in covariances.outer_iter_mut().zip(inner.outer_iter()) {
        let narrowed = &inner - &(Array2::<f64>::eye(q) * size);
        out.assign(&pca.axes.t().dot(&narrowed).dot(&pca.axes));
        out.diag_mut().iter_mut().for_each(|v| *v += size);
        // Rounding must not leave it unsymmetric.
        let both = (&out + &out.t()) / 2.0;
        out.assign(&both);
    }
    (means, covariances)
}

/// Means \[k, d\] of the rows of each label; zeros for a label without rows.
fn centres(x: ArrayView2<f64>, labels: &[i32], k: usize) -> Array2<f64> {
    let mut sums = Array2::zeros((k, x.ncols()));
    let mut counts = vec![0.0f64; k];
    for (row, label) in x.outer_iter().zip(labels) {
        counts[*label as usize] += 1.0;
        let mut sum = sums.row_mut(*label as usize);
        sum += &row;
    }
    for (mut sum, count) in sums.outer_iter_mut().zip(counts) {
        sum /= count.max(1.0);
    }
    sums
}
