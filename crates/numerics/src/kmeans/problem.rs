//! The rows of one call of k-means, and what is computed from them once.

use faer::traits::pulp::Simd;
use ndarray::ArrayView2;
use rayon::prelude::*;

use crate::distance::shift_rows;
use crate::linalg::{Real, column_means};
use crate::simd::vectorised;

/// Least number of rows in a chunk.
const CHUNK_ROWS: usize = 1024;

/// Largest number of numbers held in the partial sums of all chunks: 128 MB.
const PART_ENTRIES: usize = 1 << 24;

/// The data of one call, and what is computed from it once.
pub(super) struct Problem<'a, T> {
    /// The rows, [n, d]. The algorithm works on rows minus `shift`, made as they are read.
    pub(super) x: &'a [T],
    pub(super) d: usize,
    pub(super) k: usize,
    /// Mean of the rows, `[d]`: it makes norms small, so that products lose few digits to cancellation.
    pub(super) shift: Vec<T>,
    /// Squared norms of the shifted rows, `[n]`.
    pub(super) norms: Vec<T>,
    /// Weights divided by `weight_scale`, `[n]`.
    pub(super) weights: Option<Vec<f64>>,
    /// The power of 2 below the largest weight: sums stay in range and their bits do not change.
    pub(super) weight_scale: f64,
    /// Rows of one chunk.
    pub(super) chunk: usize,
}

impl<'a, T: Real> Problem<'a, T> {
    pub(super) fn new(x: &'a [T], d: usize, weights: Option<&[f64]>, k: usize) -> Self {
        let n = x.len() / d;
        let shift: Vec<T> = match ArrayView2::from_shape((n, d), x) {
            Ok(view) => column_means(view).into_iter().map(T::from_f64).collect(),
            Err(_) => vec![T::ZERO; d],
        };
        let parts = (PART_ENTRIES / (k * d)).clamp(16, 256);
        let chunk = n.div_ceil(parts).max(CHUNK_ROWS);
        let mut norms = vec![T::ZERO; n];
        norms
            .par_chunks_mut(chunk)
            .zip(x.par_chunks(chunk * d))
            .for_each_init(
                || vec![T::ZERO; chunk * d],
                |shifted, (norms, x)| shift_rows(x, &shift, &mut shifted[..x.len()], norms),
            );
        let largest = weights.into_iter().flatten().copied().fold(0.0, f64::max);
        let weight_scale = if largest > 0.0 {
            largest.log2().floor().exp2()
        } else {
            1.0
        };
        Problem {
            x,
            d,
            k,
            shift,
            norms,
            weights: weights.map(|weights| weights.iter().map(|w| w / weight_scale).collect()),
            weight_scale,
            chunk,
        }
    }

    pub(super) fn row(&self, index: usize) -> &'a [T] {
        &self.x[index * self.d..][..self.d]
    }

    pub(super) fn weight(&self, index: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |weights| weights[index])
    }

    /// Copies of some rows, shifted, [rows, d].
    pub(super) fn shifted(&self, rows: &[usize]) -> Vec<T> {
        let shifted = |&row| self.row(row).iter().zip(&self.shift).map(|(&x, &s)| x - s);
        rows.iter().flat_map(shifted).collect()
    }

    /// The tolerance in squared length: relative to the mean variance of the columns.
    pub(super) fn threshold(&self, tolerance: f64) -> f64 {
        let parts = self.norms.par_chunks(self.chunk);
        let parts: Vec<f64> = parts
            .map(|norms| norms.iter().map(|norm| norm.to_f64()).sum())
            .collect();
        tolerance * parts.iter().sum::<f64>() / self.norms.len() as f64 / self.d as f64
    }

    /// Weighted sum over rows of a value of each row, chunk by chunk.
    pub(super) fn weighted_sum(&self, values: &[T]) -> f64 {
        let parts = values.par_chunks(self.chunk).enumerate();
        let parts: Vec<f64> = parts
            .map(|(chunk, values)| {
                let start = chunk * self.chunk;
                let terms = values.iter().enumerate();
                terms
                    .map(|(i, v)| self.weight(start + i) * v.to_f64())
                    .sum()
            })
            .collect();
        parts.iter().sum()
    }

    /// Squared distance of every row to the centre of its label, from differences, `[n]`.
    pub(super) fn to_own_centre(&self, centres: &[T], labels: &[u32]) -> Vec<T> {
        let d = self.d;
        let mut squared = vec![T::ZERO; labels.len()];
        squared
            .par_chunks_mut(self.chunk)
            .zip(labels.par_chunks(self.chunk))
            .zip(self.x.par_chunks(self.chunk * d))
            .for_each(|((squared, labels), x)| {
                shifted_to_own(x, &self.shift, centres, labels, squared);
            });
        squared
    }
}

vectorised! {
    /// Squared distances of rows [m, d] to the centres of their labels.
    fn shifted_to_own<'a, T>(
        simd; x: &'a [T], shift: &'a [T], centres: &'a [T], labels: &'a [u32], squared: &'a mut [T],
    ) -> () {
        let d = shift.len();
        let rows = x.chunks_exact(d).zip(labels);
        for (squared, (row, &label)) in squared.iter_mut().zip(rows) {
            let centre = &centres[label as usize * d..][..d];
            *squared = shifted_difference(simd, row, shift, centre);
        }
    }
}

/// |(row - shift) - centre|^2, without a copy of the shifted row.
#[inline(always)]
pub(super) fn shifted_difference<S: Simd, T: Real>(
    simd: S,
    row: &[T],
    shift: &[T],
    centre: &[T],
) -> T {
    let (row, row_rest) = T::split(simd, row);
    let (shift, shift_rest) = T::split(simd, shift);
    let (centre, centre_rest) = T::split(simd, centre);
    let (row_twos, row) = row.as_chunks::<2>();
    let (shift_twos, shift) = shift.as_chunks::<2>();
    let (centre_twos, centre) = centre.as_chunks::<2>();
    let mut sums = [T::splat(simd, T::ZERO); 2];
    for ((row, shift), centre) in row_twos.iter().zip(shift_twos).zip(centre_twos) {
        for lane in 0..2 {
            let shifted = T::minus(simd, row[lane], shift[lane]);
            let difference = T::minus(simd, shifted, centre[lane]);
            sums[lane] = T::fused(simd, difference, difference, sums[lane]);
        }
    }
    let mut sum = T::plus(simd, sums[0], sums[1]);
    for ((&row, &shift), &centre) in row.iter().zip(shift).zip(centre) {
        let difference = T::minus(simd, T::minus(simd, row, shift), centre);
        sum = T::fused(simd, difference, difference, sum);
    }
    if !row_rest.is_empty() {
        let row = T::partial(simd, row_rest);
        let shifted = T::minus(simd, row, T::partial(simd, shift_rest));
        let difference = T::minus(simd, shifted, T::partial(simd, centre_rest));
        sum = T::fused(simd, difference, difference, sum);
    }
    T::total(simd, sum)
}
