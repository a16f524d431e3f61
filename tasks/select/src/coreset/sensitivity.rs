//! Sensitivity sampling: draws in proportion to a bound, derived for the problem, on what a row can matter to any model.
//!
//! Baseline; this is what AutoCoreset spares its user. Feldman and Langberg, *A unified framework for approximating and
//! clustering data*, 2011; the bounds of each problem stand in its file (`Problem::sensitivities`).
//! 1. s_i from the problem; 2. m draws with replacement with p_i = s_i / sum s, each of weight 1 / (m p_i); 3. one fit.
//!
//! Cost: O(n d^2) for leverages, O(n k d) for centres.

use super::baselines::finish;
use super::draws::{by_importance, every_class, members};
use super::problem::{Problem, row_blocks};
use super::{Chooser, Coreset, too_small};
use ndarray::{Array2, ArrayView2, s};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::{linalg, sampling};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of sensitivity sampling: none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct SensitivitySampling {}

impl Method for SensitivitySampling {
    const FACTS: Facts = Facts {
        name: "sensitivity-sampling",
        about: "draws rows in proportion to a bound on their sensitivity, derived for the problem at hand",
        paper: None,
        streams: false,
    };
}

impl Chooser for SensitivitySampling {
    fn choose(
        &self,
        problem: &dyn Problem,
        size: usize,
        context: &Context,
    ) -> Result<Coreset<Array2<f64>>> {
        let members = members(problem);
        if let Some(all) = too_small(problem, &members, size)? {
            return Ok(all);
        }
        let sensitivities = problem.sensitivities(context.seed)?;
        let mut rng = sampling::rng(context.seed, "sensitivity sampling");
        let (chosen, apart) = every_class(problem, &members, size, |rows, m| {
            let importance: Vec<f64> = rows.iter().map(|row| sensitivities[*row]).collect();
            by_importance(rows, &importance, problem.weights(), 0.0, m, &mut rng)
        })?;
        finish(problem, chosen, apart)
    }
}

/// The features with a column of ones, and one of `y` where there is one: \[n, d + 1 or 2\].
pub(super) fn with_ones(x: &ArrayView2<'_, f64>, y: Option<&[f64]>) -> Array2<f64> {
    let (n, d) = x.dim();
    let mut wide = Array2::ones((n, d + 1 + usize::from(y.is_some())));
    wide.slice_mut(s![.., ..d]).assign(x);
    if let Some(y) = y {
        for (to, y) in wide.column_mut(d + 1).iter_mut().zip(y) {
            *to = *y;
        }
    }
    wide
}

/// Leverage of each row, a' inv(A' A) a, 0 to 1.
pub(super) fn leverages(a: ArrayView2<'_, f64>) -> Result<Vec<f64>> {
    ridge_leverages(a, 0.0)
}

/// a' inv(A' A + ridge I) a of each row; the ridge is at least 1e-12 of the mean diagonal, so that an inverse exists.
pub(super) fn ridge_leverages(a: ArrayView2<'_, f64>, ridge: f64) -> Result<Vec<f64>> {
    let d = a.ncols();
    let mut gram = linalg::gram(a);
    let trace = gram.diag().sum();
    if trace == 0.0 {
        return Ok(vec![0.0; a.nrows()]);
    }
    let ridge = ridge.max(1e-12 * trace / d as f64);
    for j in 0..d {
        gram[[j, j]] += ridge;
    }
    let factor = linalg::cholesky(gram.view())
        .map_err(|e| Error::Failed(format!("leverages cannot be computed: {e}")))?;
    // |inv(L) a|^2, with inv(L) made once and applied as a product.
    let inverse = factor.solve_lower(Array2::eye(d).view());
    let parts: Vec<Vec<f64>> = row_blocks(&a)
        .into_par_iter()
        .map(|rows| {
            let mut turned = Array2::zeros((rows.nrows(), d));
            linalg::matmul_into_single(turned.view_mut(), 1.0, rows, inverse.t(), 0.0);
            turned.outer_iter().map(|row| row.dot(&row)).collect()
        })
        .collect();
    Ok(parts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn leverages_by_hand() {
        // A column of ones and a column: 1/n + (x - mean)^2 / sum of squares.
        let x = array![[0.0], [1.0], [2.0], [7.0]];
        let found = leverages(with_ones(&x.view(), None).view()).unwrap();
        let (mean, sum) = (2.5, 6.25 + 2.25 + 0.25 + 20.25);
        for (row, l) in found.iter().enumerate() {
            let expected = 0.25 + (x[[row, 0]] - mean).powi(2) / sum;
            assert!((l - expected).abs() < 1e-9, "{l} {expected}");
        }
        assert!((found.iter().sum::<f64>() - 2.0).abs() < 1e-9);
    }

    #[test]
    fn equal_columns_and_zeros_have_leverages() {
        let a = array![[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]];
        let found = leverages(a.view()).unwrap();
        assert!((found[0] - 1.0 / 9.0).abs() < 1e-6 && (found[1] - 4.0 / 9.0).abs() < 1e-6);
        assert_eq!(leverages(Array2::zeros((2, 3)).view()).unwrap(), [0.0, 0.0]);
    }

    #[test]
    fn a_ridge_shrinks() {
        let a = array![[3.0], [4.0]];
        let found = ridge_leverages(a.view(), 75.0).unwrap();
        assert!((found[0] - 0.09).abs() < 1e-12 && (found[1] - 0.16).abs() < 1e-12);
    }
}
