//! Products of matrices on all threads, in blocks that depend on the shape alone.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Rows or columns of a result that one thread makes at a time.
const BLOCK: usize = 256;
/// Below this many multiplications one thread is faster than waking another.
const ALONE: usize = 128 * 1024;
/// Rows whose gradients are summed at a time.
const DEEP: usize = 1024;

/// A matrix of `columns` values a row, one row after the other.
pub(super) fn rows_of(values: &[f32], columns: usize) -> MatRef<'_, f32> {
    let rows = values.len().checked_div(columns).unwrap_or(0);
    MatRef::from_row_major_slice(values, rows, columns)
}

/// `a` times `b` added to `out`, or in its place, on this thread.
pub(super) fn multiply(out: MatMut<'_, f32>, how: Accum, a: MatRef<'_, f32>, b: MatRef<'_, f32>) {
    matmul(out, how, a, b, 1.0, Par::Seq);
}

/// `a` times `b`, with `bias` added to each row if it is not empty; row by row.
pub(super) fn product(a: MatRef<'_, f32>, b: MatRef<'_, f32>, bias: &[f32]) -> Vec<f32> {
    let (m, k, n) = (a.nrows(), a.ncols(), b.ncols());
    let mut values = vec![0.0f32; m * n];
    let out = MatMut::from_row_major_slice_mut(&mut values, m, n);
    let of = |mut out: MatMut<'_, f32>, a: MatRef<'_, f32>, b: MatRef<'_, f32>, bias: &[f32]| {
        let mut how = Accum::Replace;
        if !bias.is_empty() {
            how = Accum::Add;
            for row in out.as_mut().row_iter_mut() {
                for (value, bias) in row.iter_mut().zip(bias) {
                    *value = *bias;
                }
            }
        }
        multiply(out, how, a, b);
    };
    if m * n * k <= ALONE {
        of(out, a, b, bias);
    } else if m >= n {
        out.par_row_chunks_mut(BLOCK)
            .enumerate()
            .for_each(|(i, out)| {
                let rows = out.nrows();
                of(out, a.subrows(i * BLOCK, rows), b, bias);
            });
    } else {
        // Narrower, for a few threads to share a layer of common width.
        let block = BLOCK / 8;
        out.par_col_chunks_mut(block)
            .enumerate()
            .for_each(|(i, out)| {
                let (from, columns) = (i * block, out.ncols());
                let bias = bias.get(from..from + columns).unwrap_or(&[]);
                of(out, a, b.subcols(from, columns), bias);
            });
    }
    values
}

/// The transpose of `x` times `g`, which have as many rows: the gradient of weights between them, row by row.
pub(super) fn weight_gradient(x: MatRef<'_, f32>, g: MatRef<'_, f32>) -> Vec<f32> {
    let (rows, k, n) = (x.nrows(), x.ncols(), g.ncols());
    if rows <= DEEP {
        return product(x.transpose(), g, &[]);
    }
    let parts: Vec<Vec<f32>> = (0..rows.div_ceil(DEEP))
        .into_par_iter()
        .map(|i| {
            let (from, rows) = (i * DEEP, DEEP.min(rows - i * DEEP));
            let mut part = vec![0.0f32; k * n];
            let out = MatMut::from_row_major_slice_mut(&mut part, k, n);
            let (x, g) = (x.subrows(from, rows), g.subrows(from, rows));
            multiply(out, Accum::Replace, x.transpose(), g);
            part
        })
        .collect();
    total(parts)
}

/// The sums of columns of the rows of `values`, `columns` each.
pub(super) fn column_sums(values: &[f32], columns: usize) -> Vec<f32> {
    let sums = |block: &[f32]| {
        let mut sums = vec![0.0f32; columns];
        for row in block.chunks_exact(columns) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
        sums
    };
    let length = columns.max(1) * BLOCK;
    let parts: Vec<Vec<f32>> = if values.len() <= ALONE {
        values.chunks(length).map(sums).collect()
    } else {
        values.par_chunks(length).map(sums).collect()
    };
    if parts.is_empty() {
        return vec![0.0; columns];
    }
    total(parts)
}

/// The sum of vectors of equal length, in their order.
pub(super) fn total(parts: Vec<Vec<f32>>) -> Vec<f32> {
    let mut parts = parts.into_iter();
    let mut sum = parts.next().unwrap_or_default();
    for part in parts {
        for (sum, value) in sum.iter_mut().zip(part) {
            *sum += value;
        }
    }
    sum
}
