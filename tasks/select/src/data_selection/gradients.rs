//! Gradients of the last layer, without writing them out.
//!
//! The gradient of a row's loss by the weights and offsets of the last layer is the outer product of its error
//! e = p - y, `[c]`, with its features and a 1, u = (f, 1), `[h + 1]`. So
//! - the product of two rows' gradients is (e_i e_j) (u_i u_j),
//! - the sum of gradients with weights w is E' diag(w) U, [c, h + 1],
//! - the product of a row's gradient with a matrix R [c, h + 1] is e_i R u_i,
//!
//! all by matrix products with n (c + h) numbers in memory instead of n c h.

use super::facility::Metric;
use super::pool::View;
use super::rows::taken;
use ndarray::{Array1, Array2, Axis, concatenate};
use papertrial_core::{Error, Result};
use papertrial_numerics::linalg::matmul;

/// Gradients of the last layer of some rows.
#[derive(Debug, Clone)]
pub struct Gradients {
    /// Errors E, [n, c].
    pub errors: Array2<f32>,
    /// Features and a 1, U, [n, h + 1].
    pub inputs: Array2<f32>,
}

impl Gradients {
    /// Of all rows of a view.
    ///
    /// # Errors
    /// Values that are not finite.
    pub fn of(view: &View, labels: &[usize]) -> Result<Gradients> {
        let ones = Array2::ones((view.features.nrows(), 1));
        let inputs = concatenate(Axis(1), &[view.features.view(), ones.view()])
            .map_err(|e| Error::Failed(e.to_string()))?;
        let gradients = Gradients {
            errors: view.errors(labels),
            inputs,
        };
        let finite = |x: &Array2<f32>| x.iter().all(|v| v.is_finite());
        if finite(&gradients.errors) && finite(&gradients.inputs) {
            Ok(gradients)
        } else {
            Err(Error::Failed(
                "the scoring model gave values that are not finite; try a lower learning-rate"
                    .into(),
            ))
        }
    }

    /// Those of the rows `which`.
    pub fn taken(&self, which: &[usize]) -> Gradients {
        Gradients {
            errors: taken(self.errors.view(), which),
            inputs: taken(self.inputs.view(), which),
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.errors.nrows()
    }

    /// The mean gradient, [c, h + 1].
    pub fn mean(&self) -> Array2<f32> {
        matmul(self.errors.t(), self.inputs.view()) / self.rows().max(1) as f32
    }

    /// Adds `weight` times the gradient of `row` to `to`, [c, h + 1].
    pub fn add(&self, to: &mut Array2<f32>, row: usize, weight: f32) {
        let inputs = self.inputs.row(row);
        for (mut line, error) in to.axis_iter_mut(Axis(0)).zip(self.errors.row(row)) {
            line.scaled_add(weight * error, &inputs);
        }
    }

    /// The product of each row's gradient with `r`, [c, h + 1]: `[n]`.
    pub fn along(&self, r: &Array2<f32>) -> Vec<f32> {
        let turned = matmul(self.inputs.view(), r.t());
        turned
            .outer_iter()
            .zip(self.errors.outer_iter())
            .map(|(t, e)| t.dot(&e))
            .collect()
    }

    /// The products of the gradients of the rows `which` with all, [which, n].
    pub fn products(&self, which: &[usize]) -> Array2<f32> {
        let mut found = matmul(taken(self.errors.view(), which).view(), self.errors.t());
        found *= &matmul(taken(self.inputs.view(), which).view(), self.inputs.t());
        found
    }

    /// Squared lengths, `[n]`.
    fn squares(&self) -> Array1<f32> {
        let square = |x: &Array2<f32>| x.mapv(|v| v * v).sum_axis(Axis(1));
        square(&self.errors) * square(&self.inputs)
    }
}

impl Metric for Gradients {
    fn rows(&self) -> usize {
        self.rows()
    }

    fn distances(&self, which: &[usize]) -> Result<Array2<f32>> {
        let squares = self.squares();
        let mut found = self.products(which);
        for (mut line, i) in found.axis_iter_mut(Axis(0)).zip(which) {
            let own = squares[*i];
            line.zip_mut_with(&squares, |p, s| *p = (own + s - 2.0 * *p).max(0.0).sqrt());
            line[*i] = 0.0;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_numerics::sampling::rng;
    use rand::RngExt;

    #[test]
    fn everything_as_with_written_out_gradients() {
        let (n, c, h) = (7, 3, 4);
        let mut rng = rng(1, "test");
        let mut draw = |r, c| Array2::from_shape_fn((r, c), |_| rng.random::<f32>() - 0.5);
        let view = View {
            features: draw(n, h),
            logits: draw(n, c) * 6.0,
            head: draw(h, c),
        };
        let labels: Vec<usize> = (0..n).map(|i| i % c).collect();
        let g = Gradients::of(&view, &labels).unwrap();
        let written = Array2::from_shape_fn((n, c * (h + 1)), |(i, at)| {
            let input = at % (h + 1);
            let u = if input < h {
                view.features[[i, input]]
            } else {
                1.0
            };
            view.errors(&labels)[[i, at / (h + 1)]] * u
        });
        let close = |a: f32, b: f32| assert!((a - b).abs() < 1e-5, "{a} {b}");
        let which = [4, 0];
        let distances = g.distances(&which).unwrap();
        let products = g.products(&which);
        for (at, i) in which.into_iter().enumerate() {
            for j in 0..n {
                close(products[[at, j]], written.row(i).dot(&written.row(j)));
                let d = &written.row(i) - &written.row(j);
                assert!((distances[[at, j]] - d.dot(&d).sqrt()).abs() < 1e-3);
            }
        }
        let mean = g.mean();
        for (m, want) in mean.iter().zip(written.mean_axis(Axis(0)).unwrap()) {
            close(*m, want);
        }
        let r = draw(c, h + 1);
        let flat: Array1<f32> = r.iter().copied().collect();
        for (a, row) in g.along(&r).iter().zip(written.outer_iter()) {
            close(*a, row.dot(&flat));
        }
        let mut sum = r.clone();
        g.add(&mut sum, 2, 3.0);
        for ((s, before), row) in sum.iter().zip(&flat).zip(written.row(2)) {
            close(*s, before + 3.0 * row);
        }
        let mut broken = view;
        broken.logits[[1, 1]] = f32::NAN;
        assert!(Gradients::of(&broken, &labels).is_err());
    }
}
