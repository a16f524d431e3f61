//! Weighted sums of the rows of each label, from which centres are means.

use rayon::prelude::*;

use super::problem::Problem;
use crate::linalg::Real;
use crate::simd::vectorised;

/// The weighted sum of the rows of each label, and their weight, over one chunk or all.
#[derive(Clone)]
pub(super) struct Sums {
    /// [k, d].
    pub(super) rows: Vec<f64>,
    /// `[k]`.
    pub(super) weights: Vec<f64>,
}

impl Sums {
    pub(super) fn new(k: usize, d: usize) -> Self {
        Sums {
            rows: vec![0.0; k * d],
            weights: vec![0.0; k],
        }
    }

    pub(super) fn add(&mut self, other: &Sums) {
        for (sum, value) in self.rows.iter_mut().zip(&other.rows) {
            *sum += value;
        }
        for (sum, value) in self.weights.iter_mut().zip(&other.weights) {
            *sum += value;
        }
    }
}

vectorised! {
    /// The sums of one chunk of rows; no weights means 1 each.
    pub(super) fn sum_chunk<'a, T>(
        simd; sums: &'a mut Sums, x: &'a [T], shift: &'a [T], labels: &'a [u32], weights: &'a [f64],
    ) -> () {
        let d = shift.len();
        sums.rows.fill(0.0);
        sums.weights.fill(0.0);
        let rows = x.chunks_exact(d).zip(labels);
        if weights.is_empty() {
            for (row, &label) in rows {
                let sum = &mut sums.rows[label as usize * d..][..d];
                for ((sum, &value), &shift) in sum.iter_mut().zip(row).zip(shift) {
                    *sum += (value - shift).to_f64();
                }
                sums.weights[label as usize] += 1.0;
            }
        } else {
            for ((row, &label), &weight) in rows.zip(weights) {
                let sum = &mut sums.rows[label as usize * d..][..d];
                for ((sum, &value), &shift) in sum.iter_mut().zip(row).zip(shift) {
                    *sum += weight * (value - shift).to_f64();
                }
                sums.weights[label as usize] += weight;
            }
        }
    }
}

/// The sums over all rows, chunk by chunk.
pub(super) fn sum_all<T: Real>(problem: &Problem<'_, T>, labels: &[u32]) -> Sums {
    let &Problem { d, k, chunk, .. } = problem;
    let parts: Vec<Sums> = labels
        .par_chunks(chunk)
        .zip(problem.x.par_chunks(chunk * d))
        .enumerate()
        .map(|(index, (labels, x))| {
            let start = index * chunk;
            let weights = match &problem.weights {
                Some(weights) => &weights[start..start + labels.len()],
                None => &[],
            };
            let mut sums = Sums::new(k, d);
            sum_chunk(&mut sums, x, &problem.shift, labels, weights);
            sums
        })
        .collect();
    let mut total = Sums::new(k, d);
    for part in &parts {
        total.add(part);
    }
    total
}
