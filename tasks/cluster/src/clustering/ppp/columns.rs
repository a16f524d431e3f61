//! Which columns separate best: backward elimination on the root's split, and how clusterable the rows are with all
//! columns and with those that were kept.

use super::split::{Within, fit, mean_variance, separation};
use crate::gaussian::{self, Covariance};
use ndarray::{Array1, Array2, ArrayView2, Axis};
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::map_distance_blocks;
use papertrial_numerics::{linalg, sampling};
use rand::RngExt;
use serde::Serialize;

/// Rows, and as many random points, whose neighbours the Hopkins statistic looks at, at most.
const PROBES: usize = 200;

/// What the elimination found; each pair is with all columns and with those kept.
#[derive(Serialize)]
pub(super) struct Reduction {
    /// Columns kept, by place.
    pub kept: Vec<usize>,
    /// Columns dropped, in the order in which they were.
    pub dropped: Vec<usize>,
    /// Separation J of the two sides.
    pub separation: [f64; 2],
    /// J for each column that it is computed from.
    pub separation_per_column: [f64; 2],
    /// BIC of one Gaussian minus that of two.
    pub bic_gap: [f64; 2],
    /// Hopkins statistic: near 0.5 for rows without structure, near 1 for tight clusters.
    pub hopkins: [Option<f64>; 2],
}

/// Drops columns of x \[m, d\] while the evidence for the split into `sides` \[m\] grows.
///
/// With Sp the covariance within the sides, P its inverse and e the difference of the sides' means, J = e' P e, and
/// without column c it is J - (P e)_c^2 / P_cc: the column with the least loss is tried first. It is dropped if the
/// BIC gap of the mixtures on the others, started from the sides, is larger than before; else the elimination ends.
/// P of the others is P - P_c P_c' / P_cc, so that a step costs d^2 and the two mixtures.
pub(super) fn reduce(
    x: ArrayView2<f64>,
    sides: &[u32],
    covariance: Covariance,
    context: &Context,
) -> Result<Reduction> {
    let d = x.ncols();
    let all = Within::of(x, sides)?;
    let mut difference = all.difference.clone();
    let mut inverse = linalg::cholesky(all.covariance.view())
        .map_err(|e| Error::Failed(format!("the covariance within the sides: {e}")))?
        .solve(Array2::eye(d).view());
    let mut kept: Vec<usize> = (0..d).collect();
    let mut dropped = Vec::new();
    let first_gap = gap(x, sides, covariance)?;
    let mut best_gap = first_gap;
    while kept.len() > 1 {
        context.step("eliminating columns", dropped.len(), d);
        let weights = inverse.dot(&difference);
        let loss = |i: usize| weights[i] * weights[i] / inverse[[i, i]];
        let mut least = 0;
        for i in 1..kept.len() {
            if loss(i) < loss(least) {
                least = i;
            }
        }
        let others: Vec<usize> = (0..kept.len()).filter(|i| *i != least).collect();
        let columns: Vec<usize> = others.iter().map(|i| kept[*i]).collect();
        let without = gap(x.select(Axis(1), &columns).view(), sides, covariance)?;
        if without <= best_gap {
            break;
        }
        best_gap = without;
        dropped.push(kept[least]);
        kept = columns;
        let pivot = inverse[[least, least]];
        let column: Array1<f64> = inverse.column(least).select(Axis(0), &others);
        inverse = inverse.select(Axis(0), &others).select(Axis(1), &others);
        for (i, mut row) in inverse.outer_iter_mut().enumerate() {
            row.scaled_add(-column[i] / pivot, &column);
        }
        difference = difference.select(Axis(0), &others);
    }
    let part = x.select(Axis(1), &kept);
    let separations = [
        separation(&all)?,
        separation(&Within::of(part.view(), sides)?)?,
    ];
    Ok(Reduction {
        separation: separations,
        separation_per_column: [
            separations[0] / d as f64,
            separations[1] / kept.len() as f64,
        ],
        bic_gap: [first_gap, best_gap],
        hopkins: [
            hopkins(x, context.seed)?,
            hopkins(part.view(), context.seed)?,
        ],
        kept,
        dropped,
    })
}

/// BIC of one Gaussian minus that of two that were started from the sides.
fn gap(x: ArrayView2<f64>, sides: &[u32], covariance: Covariance) -> Result<f64> {
    let (m, d) = x.dim();
    let variance = mean_variance(x);
    if variance == 0.0 {
        return Ok(f64::NEG_INFINITY);
    }
    let bic = |k: usize, start: &Array2<f64>| -> Result<f64> {
        let mixture = fit(x, start, covariance, variance)?;
        let parameters = gaussian::free_parameters(k, d, covariance);
        Ok(gaussian::bic(mixture.log_likelihood, parameters, m))
    };
    Ok(bic(1, &Array2::ones((m, 1)))? - bic(2, &gaussian::hard(sides, 2)?)?)
}

/// Hopkins statistic of rows x \[m, d\]: U / (U + W), where W sums the distances of some rows to the nearest other
/// row, and U those of as many points, uniform in the box around the rows, to the nearest row. The distances
/// themselves are summed, not their d-th powers, which overflow where there are many columns. `None` for one row,
/// or where all distances are 0.
fn hopkins(x: ArrayView2<f64>, seed: u64) -> Result<Option<f64>> {
    let (m, d) = x.dim();
    if m < 2 {
        return Ok(None);
    }
    let probes = PROBES.min(m.div_ceil(10));
    let failed = |e: &dyn std::fmt::Display| Error::Failed(format!("the Hopkins statistic: {e}"));
    let mut draws = sampling::rng(seed, "ppp hopkins");
    let chosen = sampling::sample_sorted(&mut draws, m, probes).map_err(|e| failed(&e))?;
    let mut points = Array2::zeros((2 * probes, d));
    for (i, row) in chosen.iter().enumerate() {
        points.row_mut(i).assign(&x.row(*row));
    }
    for (c, column) in x.columns().into_iter().enumerate() {
        let low = column.iter().copied().fold(f64::INFINITY, f64::min);
        let high = column.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for i in probes..2 * probes {
            points[[i, c]] = low + (high - low) * draws.random::<f64>();
        }
    }
    let blocks = map_distance_blocks(x, points.view(), |start, block| {
        let mut nearest = vec![f64::INFINITY; 2 * probes];
        for (i, distances) in block.outer_iter().enumerate() {
            for (j, (nearest, distance)) in nearest.iter_mut().zip(distances).enumerate() {
                if chosen.get(j) != Some(&(start + i)) {
                    *nearest = nearest.min(*distance);
                }
            }
        }
        nearest
    })
    .map_err(|e| failed(&e))?;
    let sum = |range: std::ops::Range<usize>| -> f64 {
        let nearest = |j: usize| blocks.iter().map(|b| b[j]).fold(f64::INFINITY, f64::min);
        range.map(|j| nearest(j).max(0.0).sqrt()).sum()
    };
    let (own, uniform) = (sum(0..probes), sum(probes..2 * probes));
    let total = own + uniform;
    Ok((total > 0.0).then(|| uniform / total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_numerics::sampling::rng;
    use proptest::prelude::*;

    /// Two groups that differ in the first column only, beside three columns of noise.
    fn one_telling_column(seed: u64) -> (Array2<f64>, Vec<u32>) {
        let mut draws = rng(seed, "test");
        let mut noise = || (0..12).map(|_| draws.random::<f64>()).sum::<f64>() - 6.0;
        let x = Array2::from_shape_fn((200, 4), |(i, c)| {
            noise() + if c == 0 && i % 2 == 1 { 9.0 } else { 0.0 }
        });
        (x, (0..200).map(|i| i % 2).collect())
    }

    #[test]
    fn noise_is_dropped_and_the_telling_column_kept() {
        let (x, sides) = one_telling_column(0);
        let found = reduce(x.view(), &sides, Covariance::Full, &Context::with_seed(0)).unwrap();
        assert_eq!(found.kept, [0]);
        assert_eq!(found.dropped.len(), 3);
        assert!(found.bic_gap[1] > found.bic_gap[0]);
        assert!(found.separation_per_column[1] > found.separation_per_column[0]);
        let [before, after] = found.hopkins.map(Option::unwrap);
        assert!(after > before, "{before} {after}");
    }

    #[test]
    fn hopkins_tells_clusters_from_a_uniform_cloud() {
        let mut draws = rng(1, "test");
        let even = Array2::from_shape_simple_fn((1000, 2), || draws.random::<f64>());
        let tight = Array2::from_shape_fn((1000, 2), |(i, _)| {
            (i % 3) as f64 + 0.01 * draws.random::<f64>()
        });
        let even = hopkins(even.view(), 0).unwrap().unwrap();
        let tight = hopkins(tight.view(), 0).unwrap().unwrap();
        assert!((even - 0.5).abs() < 0.06, "{even}");
        assert!(tight > 0.95, "{tight}");
        assert_eq!(hopkins(Array2::zeros((1, 2)).view(), 0).unwrap(), None);
        assert_eq!(hopkins(Array2::zeros((9, 2)).view(), 0).unwrap(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// The formula for J without a column, against J computed anew.
        #[test]
        fn the_loss_of_a_column_is_exact(seed: u64, column in 0usize..4) {
            let (x, sides) = one_telling_column(seed);
            let all = Within::of(x.view(), &sides).unwrap();
            let inverse = linalg::cholesky(all.covariance.view()).unwrap().solve(Array2::eye(4).view());
            let weights = inverse.dot(&all.difference);
            let left = separation(&all).unwrap() - weights[column].powi(2) / inverse[[column, column]];
            let others: Vec<usize> = (0..4).filter(|c| *c != column).collect();
            let part = Within {
                difference: all.difference.select(Axis(0), &others),
                covariance: all.covariance.select(Axis(0), &others).select(Axis(1), &others),
            };
            let anew = separation(&part).unwrap();
            prop_assert!((left - anew).abs() < 1e-9 * (1.0 + anew), "{} {}", left, anew);
        }
    }
}
