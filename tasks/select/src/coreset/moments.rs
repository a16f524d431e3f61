//! Sums over rows that every fit of a linear model needs, from (x, 1) \[n, d + 1\].

use super::problem::{BLOCK, row_blocks};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, s};
use papertrial_core::{Error, Result};
use papertrial_numerics::linalg;
use rayon::prelude::*;

/// Rows that are packed for one product.
const PACK: usize = 256;

/// x.w + b for rows \[n, d\] and a model w, b \[d + 1\].
pub(super) fn scores(x: &ArrayView2<'_, f64>, model: ArrayView1<'_, f64>) -> Vec<f64> {
    let d = x.ncols();
    let (w, b) = (model.slice(s![..d]), model[d]);
    let mut z = vec![0.0; x.nrows()];
    z.par_chunks_mut(BLOCK)
        .zip(row_blocks(x))
        .for_each(|(z, x)| {
            for (z, row) in z.iter_mut().zip(x.outer_iter()) {
                *z = row.dot(&w) + b;
            }
        });
    z
}

/// Sum of factor times (x, 1), `[d + 1]`.
pub(super) fn first(x: &ArrayView2<'_, f64>, factors: &[f64]) -> Array1<f64> {
    let d = x.ncols();
    let parts: Vec<Array1<f64>> = factors
        .par_chunks(BLOCK)
        .zip(row_blocks(x))
        .map(|(factors, x)| {
            let mut sum = Array1::zeros(d + 1);
            for (factor, row) in factors.iter().zip(x.outer_iter()) {
                if *factor != 0.0 {
                    sum.slice_mut(s![..d]).scaled_add(*factor, &row);
                    sum[d] += factor;
                }
            }
            sum
        })
        .collect();
    let mut sum = Array1::zeros(d + 1);
    for part in parts {
        sum += &part;
    }
    sum
}

/// Sum of factor times (x, 1)' (x, 1), \[d + 1, d + 1\]; factors are at least 0, and rows of factor 0 cost nothing.
pub(super) fn second(x: &ArrayView2<'_, f64>, factors: &[f64]) -> Array2<f64> {
    let (n, d) = x.dim();
    // At most 64 partial sums, whatever the number of rows.
    let block = n.div_ceil(64).max(BLOCK);
    let parts: Vec<Array2<f64>> = (0..n.div_ceil(block))
        .into_par_iter()
        .map(|b| {
            let mut sum = Array2::zeros((d + 1, d + 1));
            let mut pack = Array2::<f64>::zeros((PACK, d + 1));
            let mut packed = 0;
            let mut add = |pack: &Array2<f64>, packed: usize| {
                let rows = pack.slice(s![..packed, ..]);
                linalg::matmul_into_single(sum.view_mut(), 1.0, rows.t(), rows, 1.0);
            };
            let rows = b * block..((b + 1) * block).min(n);
            for (row, factor) in rows.clone().zip(&factors[rows]) {
                if *factor == 0.0 {
                    continue;
                }
                let root = factor.sqrt();
                let mut to = pack.row_mut(packed);
                for (to, x) in to.iter_mut().zip(x.row(row)) {
                    *to = root * x;
                }
                to[d] = root;
                packed += 1;
                if packed == PACK {
                    add(&pack, packed);
                    packed = 0;
                }
            }
            if packed > 0 {
                add(&pack, packed);
            }
            sum
        })
        .collect();
    let mut sum = Array2::zeros((d + 1, d + 1));
    for part in parts {
        sum += &part;
    }
    sum
}

/// inv(H) g for a matrix that may be singular to rounding: its diagonal is raised until the factor exists.
///
/// # Errors
/// Entries that are not finite.
pub(super) fn solve(mut hessian: Array2<f64>, gradient: &Array1<f64>) -> Result<Array1<f64>> {
    let most = hessian.diag().iter().fold(0.0f64, |most, v| most.max(*v));
    let mut damping = 1e-14 * most.max(1e-300);
    for _ in 0..12 {
        for j in 0..hessian.nrows() {
            hessian[[j, j]] += damping;
        }
        if let Ok(factor) = linalg::cholesky(hessian.view()) {
            return Ok(factor.solve_vector(gradient.view()));
        }
        damping *= 100.0;
    }
    Err(Error::Failed(
        "the fit of a linear model failed: the features are too large to compute with; scale them (standardise=true)".into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn sums_by_hand() {
        let x = array![[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]];
        assert_eq!(
            scores(&x.view(), array![1.0, -1.0, 10.0].view()),
            [9.0, 9.0, 9.0]
        );
        assert_eq!(first(&x.view(), &[1.0, 0.0, 2.0]), array![11.0, 14.0, 3.0]);
        let found = second(&x.view(), &[1.0, 4.0, 0.0]);
        let expected = array![[37.0, 50.0, 13.0], [50.0, 68.0, 18.0], [13.0, 18.0, 5.0]];
        assert!(
            (&found - &expected).iter().all(|v| v.abs() < 1e-12),
            "{found}"
        );
    }

    #[test]
    fn many_rows_are_cut_into_blocks_without_loss() {
        let n = 64 * BLOCK + 777;
        let x = Array2::from_shape_fn((n, 1), |(i, _)| (i % 3) as f64);
        let factors: Vec<f64> = (0..n).map(|i| (i % 2) as f64).collect();
        let (mut sum, mut square, mut count) = (0.0, 0.0, 0.0);
        for i in 0..n {
            sum += factors[i] * x[[i, 0]];
            square += factors[i] * x[[i, 0]] * x[[i, 0]];
            count += factors[i];
        }
        assert_eq!(first(&x.view(), &factors), array![sum, count]);
        let found = second(&x.view(), &factors);
        assert!((found[[0, 0]] / square - 1.0).abs() < 1e-12);
        assert!((found[[0, 1]] / sum - 1.0).abs() < 1e-12);
    }

    #[test]
    fn singular_matrices_are_solved_nearly() {
        let h = array![[1.0, 1.0], [1.0, 1.0]];
        let x = solve(h, &array![2.0, 2.0]).unwrap();
        assert!((x[0] + x[1] - 2.0).abs() < 1e-3, "{x}");
        assert!(solve(array![[f64::NAN]], &array![1.0]).is_err());
    }
}
