//! Softmax regression: the classifier of every strategy.
//!
//! P(y | x) ∝ exp(x W\[:, y\] + b\[y\]). Minimises sum over rows and classes of -t\[i, y\] ln P(y | x_i) + l2 / 2 ‖W‖² by
//! L-BFGS (ten pairs, Armijo backtracking), t \[m, K\] being weights, so that a row may count for several classes. The
//! intercept b is not penalised. Without a start W = 0. Each round costs O(m d K).

use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};
use papertrial_numerics::linalg::matmul;
use std::collections::VecDeque;

/// Pairs of steps and gradient changes that are kept.
const PAIRS: usize = 10;
/// A fit ends when no entry of the gradient of the mean loss is larger.
const TOLERANCE: f64 = 1e-5;

/// Weights \[d + 1, K\], the last row the intercepts.
#[derive(Debug, Clone, PartialEq)]
pub struct Softmax {
    weights: Array2<f64>,
}

impl Softmax {
    /// Knows nothing: every class is equally probable.
    pub fn flat(d: usize, k: usize) -> Softmax {
        Softmax {
            weights: Array2::zeros((d + 1, k)),
        }
    }

    /// Fits to rows x \[m, d\] with class weights t \[m, K\], from these weights on, for at most `rounds` rounds.
    pub fn fitted(
        self,
        x: ArrayView2<'_, f64>,
        t: ArrayView2<'_, f64>,
        l2: f64,
        rounds: usize,
    ) -> Softmax {
        let total = t.sum();
        if total <= 0.0 {
            return self;
        }
        let shape = self.weights.raw_dim();
        let mut at = self.weights.into_raw_vec_and_offset().0;
        let size = at.len();
        let (d, k) = (x.ncols(), t.ncols());
        let of = |at: &[f64], gradient: &mut [f64]| {
            match (
                ArrayView2::from_shape((d + 1, k), at),
                ArrayViewMut2::from_shape((d + 1, k), gradient),
            ) {
                (Ok(w), Ok(g)) => loss(w, x, t, l2, total, g),
                // The weights were made with this shape.
                _ => f64::INFINITY,
            }
        };
        let mut gradient = vec![0.0; size];
        let mut value = of(&at, &mut gradient);
        let mut pairs: VecDeque<(Vec<f64>, Vec<f64>, f64)> = VecDeque::new();
        for _ in 0..rounds {
            if gradient.iter().all(|g| g.abs() <= TOLERANCE) {
                break;
            }
            let direction = direction(&gradient, &pairs);
            let slope = dot(&gradient, &direction);
            if slope >= 0.0 {
                break;
            }
            let mut step = if pairs.is_empty() {
                1.0 / dot(&gradient, &gradient).sqrt().max(1.0)
            } else {
                1.0
            };
            let mut next_gradient = vec![0.0; size];
            let found = (0..30).find_map(|_| {
                let next: Vec<f64> = at
                    .iter()
                    .zip(&direction)
                    .map(|(a, p)| a + step * p)
                    .collect();
                let next_value = of(&next, &mut next_gradient);
                if next_value <= value + 1e-4 * step * slope {
                    return Some((next, next_value));
                }
                step *= 0.5;
                None
            });
            let Some((next, next_value)) = found else {
                break;
            };
            let moved: Vec<f64> = next.iter().zip(&at).map(|(a, b)| a - b).collect();
            let changed: Vec<f64> = next_gradient
                .iter()
                .zip(&gradient)
                .map(|(a, b)| a - b)
                .collect();
            let curvature = dot(&moved, &changed);
            if curvature > 1e-14 * dot(&moved, &moved) {
                if pairs.len() == PAIRS {
                    pairs.pop_front();
                }
                pairs.push_back((moved, changed, curvature));
            }
            (at, value, gradient) = (next, next_value, next_gradient);
        }
        Softmax {
            weights: Array2::from_shape_vec(shape, at)
                .unwrap_or_else(|_| Array2::zeros((d + 1, k))),
        }
    }

    /// Weights \[d, K\] without the intercepts.
    pub fn slopes(&self) -> ArrayView2<'_, f64> {
        let d = self.weights.nrows() - 1;
        self.weights.slice(s![..d, ..])
    }

    /// P(y | x) \[n, K\] for rows x \[n, d\].
    pub fn probabilities(&self, x: ArrayView2<'_, f64>) -> Array2<f64> {
        let mut p = matmul(x, self.slopes());
        let intercepts = self.weights.row(self.weights.nrows() - 1);
        for mut row in p.rows_mut() {
            row += &intercepts;
            let top = row.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            row.mapv_inplace(|v| (v - top).exp());
            let sum = row.sum();
            row /= sum;
        }
        p
    }
}

/// The loss over the total weight, and its gradient.
fn loss(
    w: ArrayView2<'_, f64>,
    x: ArrayView2<'_, f64>,
    t: ArrayView2<'_, f64>,
    l2: f64,
    total: f64,
    mut gradient: ArrayViewMut2<'_, f64>,
) -> f64 {
    let d = x.ncols();
    let slopes = w.slice(s![..d, ..]);
    let mut p = matmul(x, slopes);
    let mut value = 0.0;
    for (mut p, t) in p.outer_iter_mut().zip(t.outer_iter()) {
        p += &w.row(d);
        let top = p.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        let weight = t.sum();
        let linear: f64 = p.iter().zip(&t).map(|(p, t)| p * t).sum();
        p.mapv_inplace(|v| (v - top).exp());
        let sum = p.sum();
        value += weight * (top + sum.ln()) - linear;
        for (p, t) in p.iter_mut().zip(&t) {
            *p = weight * *p / sum - t;
        }
    }
    let mut inner = matmul(x.t(), p.view());
    inner.scaled_add(l2, &slopes);
    inner /= total;
    gradient.slice_mut(s![..d, ..]).assign(&inner);
    for (g, column) in gradient.row_mut(d).iter_mut().zip(p.columns()) {
        *g = column.sum() / total;
    }
    let norm: f64 = slopes.iter().map(|v| v * v).sum();
    (value + 0.5 * l2 * norm) / total
}

/// The two loops of L-BFGS: minus the gradient times the inverse curvature that the pairs know.
fn direction(gradient: &[f64], pairs: &VecDeque<(Vec<f64>, Vec<f64>, f64)>) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(pairs.len());
    for (moved, changed, curvature) in pairs.iter().rev() {
        let alpha = dot(moved, &q) / curvature;
        add(&mut q, -alpha, changed);
        alphas.push(alpha);
    }
    if let Some((_, changed, curvature)) = pairs.back() {
        let scale = curvature / dot(changed, changed);
        q.iter_mut().for_each(|v| *v *= scale);
    }
    for ((moved, changed, curvature), alpha) in pairs.iter().zip(alphas.into_iter().rev()) {
        let beta = dot(changed, &q) / curvature;
        add(&mut q, alpha - beta, moved);
    }
    q
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], factor: f64, what: &[f64]) {
    for (to, what) in to.iter_mut().zip(what) {
        *to += factor * what;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_numerics::sampling;
    use rand::RngExt;

    fn sample(m: usize, d: usize, k: usize, seed: u64) -> (Array2<f64>, Array2<f64>) {
        let mut rng = sampling::rng(seed, "softmax sample");
        let x = Array2::from_shape_fn((m, d), |_| rng.random::<f64>() * 2.0 - 1.0);
        let mut t = Array2::zeros((m, k));
        for i in 0..m {
            t[[
                i,
                (x[[i, 0]] * 3.0 + 4.0 + rng.random::<f64>()) as usize % k,
            ]] = 1.0;
        }
        (x, t)
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let (x, t) = sample(12, 3, 3, 0);
        let (w, _) = sample(4, 3, 2, 1);
        let mut gradient = Array2::zeros((4, 3));
        loss(w.view(), x.view(), t.view(), 0.7, 12.0, gradient.view_mut());
        let mut scratch = Array2::zeros((4, 3));
        for ((r, c), g) in gradient.indexed_iter() {
            let mut at = |shift: f64| {
                let mut w = w.clone();
                w[[r, c]] += shift;
                loss(w.view(), x.view(), t.view(), 0.7, 12.0, scratch.view_mut())
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((slope - g).abs() < 1e-8, "{r} {c}: {slope} {g}");
        }
    }

    #[test]
    fn a_fit_is_where_the_gradient_vanishes_from_any_start() {
        let (x, t) = sample(40, 3, 3, 2);
        let fit = Softmax::flat(3, 3).fitted(x.view(), t.view(), 0.5, 500);
        let mut gradient = Array2::zeros((4, 3));
        loss(
            fit.weights.view(),
            x.view(),
            t.view(),
            0.5,
            40.0,
            gradient.view_mut(),
        );
        assert!(gradient.iter().all(|g| g.abs() < 1e-4), "{gradient:?}");
        let start = Softmax {
            weights: sample(4, 3, 2, 5).0,
        };
        let other = start.fitted(x.view(), t.view(), 0.5, 500);
        for (a, b) in fit
            .probabilities(x.view())
            .iter()
            .zip(&other.probabilities(x.view()))
        {
            assert!((a - b).abs() < 1e-3);
        }
    }

    #[test]
    fn without_slopes_the_probabilities_are_the_shares() {
        let x = Array2::zeros((4, 1));
        let t = ndarray::array![[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]];
        let p = Softmax::flat(1, 2)
            .fitted(x.view(), t.view(), 1.0, 200)
            .probabilities(x.view());
        assert!((p[[0, 0]] - 0.75).abs() < 1e-4, "{p:?}");
    }

    #[test]
    fn a_row_of_weight_two_counts_as_two_rows() {
        let (x, t) = sample(10, 2, 2, 3);
        let twice = ndarray::concatenate![ndarray::Axis(0), x, x];
        let both = ndarray::concatenate![ndarray::Axis(0), t, t];
        let a = Softmax::flat(2, 2).fitted(twice.view(), both.view(), 1.0, 300);
        let b = Softmax::flat(2, 2).fitted(x.view(), (&t * 2.0).view(), 1.0, 300);
        for (a, b) in a
            .probabilities(x.view())
            .iter()
            .zip(&b.probabilities(x.view()))
        {
            assert!((a - b).abs() < 1e-4);
        }
    }

    #[test]
    fn without_labels_nothing_is_learned() {
        let x = Array2::zeros((0, 2));
        let t = Array2::zeros((0, 3));
        let fit = Softmax::flat(2, 3).fitted(x.view(), t.view(), 1.0, 10);
        assert_eq!(fit, Softmax::flat(2, 3));
    }
}
