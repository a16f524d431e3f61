//! Softmax regression: a linear model of two or more classes.
//!
//! x \[n, d\] features, class y_i of k; a model is W \[k, d + 1\], the intercepts in the last column. The loss of a row is
//! |W|^2 / 2n (intercepts left out) + C (ln sum_c exp z_c - z_y), z = W (x, 1), and the fit of weighted rows keeps the
//! balance of penalty and data as in `linear.rs`. It is found by L-BFGS, whose values and gradients are matrix products.
//!
//! Cost: 4 n k d operations a round, some hundred rounds; memory n k for the largest block of rows.

use super::lbfgs;
use super::problem::{BLOCK, Problem, WeightedProblem, row_blocks};
use super::sensitivity::{leverages, with_ones};
use ndarray::{Array2, ArrayView2, Axis, CowArray, s};
use papertrial_core::{Error, Result};
use papertrial_numerics::linalg;
use rayon::prelude::*;

/// Rows with the softmax loss.
#[derive(Debug, Clone)]
pub struct Softmax {
    x: Array2<f64>,
    classes: Vec<u32>,
    k: usize,
    c: f64,
    penalised: bool,
}

impl Softmax {
    /// Classes numbered 0 to `k` - 1; `c` weighs the data against the penalty.
    ///
    /// # Errors
    /// Fewer than 2 classes, not one class for each row, or a class of `k` or above.
    pub fn new(x: Array2<f64>, classes: Vec<u32>, k: usize, c: f64) -> Result<Softmax> {
        if k < 2 || classes.len() != x.nrows() || classes.iter().any(|class| *class as usize >= k) {
            return Err(Error::Failed(format!(
                "one class for each row, from 0 and below {k}, and at least 2 classes are needed"
            )));
        }
        if !(c > 0.0 && c.is_finite()) {
            return Err(Error::option("c", "must be above 0"));
        }
        Ok(Softmax {
            x: x.as_standard_layout().into_owned(),
            classes,
            k,
            c,
            penalised: true,
        })
    }

    /// The same without a penalty in the rows' losses, to score rows that were not fitted to.
    pub fn unpenalised(self) -> Softmax {
        Softmax {
            penalised: false,
            ..self
        }
    }

    fn penalty(&self, model: &Array2<f64>) -> f64 {
        if !self.penalised {
            return 0.0;
        }
        let w = model.slice(s![.., ..self.x.ncols()]);
        0.5 * w.iter().map(|v| v * v).sum::<f64>() / self.x.nrows() as f64
    }
}

/// z = W (x, 1) for rows \[m, d\]: \[m, k\].
fn scores(x: ArrayView2<'_, f64>, model: ArrayView2<'_, f64>) -> Array2<f64> {
    let d = x.ncols();
    let mut z = Array2::zeros((x.nrows(), model.nrows()));
    linalg::matmul_into_single(z.view_mut(), 1.0, x, model.slice(s![.., ..d]).t(), 0.0);
    z += &model.column(d);
    z
}

/// ln sum exp of a row, without overflow.
fn log_sum(z: &[f64]) -> f64 {
    let most = z.iter().fold(f64::NEG_INFINITY, |most, v| most.max(*v));
    most + z.iter().map(|v| (v - most).exp()).sum::<f64>().ln()
}

impl WeightedProblem for Softmax {
    type Model = Array2<f64>;

    fn rows(&self) -> usize {
        self.x.nrows()
    }

    fn fit(&self, rows: &[usize], weights: &[f64]) -> Result<Array2<f64>> {
        let (n, d) = self.x.dim();
        let k = self.k;
        let factor = self.c * n as f64 / weights.iter().sum::<f64>();
        let x = if rows.len() == n {
            CowArray::from(self.x.view())
        } else {
            CowArray::from(self.x.select(Axis(0), rows))
        };
        let u: Vec<f64> = weights.iter().map(|w| factor * w).collect();
        let y: Vec<usize> = rows.iter().map(|row| self.classes[*row] as usize).collect();
        let block = x.nrows().div_ceil(64).max(256);
        let found = lbfgs::minimise(vec![0.0; k * (d + 1)], 1000, 1e-7, |point, gradient| {
            let Ok(model) = ArrayView2::from_shape((k, d + 1), point) else {
                return f64::NAN;
            };
            let parts: Vec<(f64, Array2<f64>)> = (0..x.nrows().div_ceil(block))
                .into_par_iter()
                .map(|b| {
                    let start = b * block;
                    let end = (start + block).min(x.nrows());
                    let rows = x.slice(s![start..end, ..]);
                    // z becomes weight times (probability - 1 of the class).
                    let mut z = scores(rows, model);
                    let mut value = 0.0;
                    for (mut z, row) in z.outer_iter_mut().zip(start..end) {
                        let log = z.as_slice().map_or(f64::NAN, log_sum);
                        value += u[row] * (log - z[y[row]]);
                        z.mapv_inplace(|v| u[row] * (v - log).exp());
                        z[y[row]] -= u[row];
                    }
                    let mut part = Array2::zeros((k, d + 1));
                    linalg::matmul_into_single(part.slice_mut(s![.., ..d]), 1.0, z.t(), rows, 0.0);
                    part.column_mut(d).assign(&z.sum_axis(Axis(0)));
                    (value, part)
                })
                .collect();
            gradient.fill(0.0);
            let mut value = 0.0;
            for (part, slope) in &parts {
                value += part;
                for (g, s) in gradient.iter_mut().zip(slope) {
                    *g += s;
                }
            }
            for (at, (g, w)) in gradient.iter_mut().zip(point).enumerate() {
                if at % (d + 1) < d {
                    *g += w;
                    value += 0.5 * w * w;
                }
            }
            value
        });
        Array2::from_shape_vec((k, d + 1), found).map_err(|e| Error::Failed(e.to_string()))
    }

    fn loss(&self, row: usize, model: &Array2<f64>) -> f64 {
        let z = scores(self.x.slice(s![row..row + 1, ..]), model.view());
        let loss = z.as_slice().map_or(f64::NAN, log_sum) - z[[0, self.classes[row] as usize]];
        self.penalty(model) + self.c * loss.max(0.0)
    }

    fn losses(&self, model: &Array2<f64>) -> Result<Vec<f64>> {
        let penalty = self.penalty(model);
        let mut losses = vec![0.0; self.rows()];
        losses
            .par_chunks_mut(BLOCK)
            .zip(row_blocks(&self.x.view()))
            .zip(self.classes.par_chunks(BLOCK))
            .for_each(|((losses, x), classes)| {
                let z = scores(x, model.view());
                for ((loss, z), class) in losses.iter_mut().zip(z.outer_iter()).zip(classes) {
                    let row = z.as_slice().map_or(f64::NAN, log_sum) - z[*class as usize];
                    *loss = penalty + self.c * row.max(0.0);
                }
            });
        Ok(losses)
    }

    fn classes(&self) -> Option<&[u32]> {
        Some(&self.classes)
    }
}

impl Problem for Softmax {
    fn points(&self) -> ArrayView2<'_, f64> {
        self.x.view()
    }

    /// As for logistic regression: root of the leverage of (x, 1), plus 1/n.
    fn sensitivities(&self, _seed: u64) -> Result<Vec<f64>> {
        let n = self.x.nrows() as f64;
        let leverages = leverages(with_ones(&self.x.view(), None).view())?;
        Ok(leverages.into_iter().map(|l| l.sqrt() + 1.0 / n).collect())
    }

    fn predict(&self, model: &Array2<f64>, x: ArrayView2<'_, f64>) -> Option<Vec<f64>> {
        let mut classes = Vec::with_capacity(x.nrows());
        for x in row_blocks(&x) {
            for z in scores(x, model.view()).outer_iter() {
                let mut best = 0;
                for (class, v) in z.iter().enumerate() {
                    if *v > z[best] {
                        best = class;
                    }
                }
                classes.push(best as f64);
            }
        }
        Some(classes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::linear::{Linear, LinearLoss};
    use super::*;
    use proptest::prelude::*;

    fn data(n: usize, k: u32) -> (Array2<f64>, Vec<u32>) {
        let x = Array2::from_shape_fn((n, 2), |(i, j)| {
            ((i * (7 + 5 * j)) % 23) as f64 / 11.0 - 1.0
        });
        let y = (0..n).map(|i| (i as u32 * 13 % 17) % k).collect();
        (x, y)
    }

    #[test]
    fn intercepts_are_log_shares_by_hand() {
        // No features: probabilities are shares of the weight, 1/2, 1/3, 1/6.
        let problem = Softmax::new(Array2::zeros((3, 1)), vec![0, 1, 2], 3, 1.0).unwrap();
        let model = problem.fit(&[0, 1, 2], &[3.0, 2.0, 1.0]).unwrap();
        let b = model.column(1);
        assert!((b[0] - b[1] - 1.5f64.ln()).abs() < 1e-6);
        assert!((b[1] - b[2] - 2f64.ln()).abs() < 1e-6);
        assert!((problem.loss(1, &model) - 3f64.ln()).abs() < 1e-6);
        assert_eq!(problem.predict(&model, problem.points()).unwrap(), [0.0; 3]);
    }

    #[test]
    fn two_classes_are_logistic_regression_with_half_the_penalty() {
        // W1 = -W0 = w / 2 gives the same probabilities, and |W|^2 = |w|^2 / 2: as C twice as large.
        let (x, y) = data(60, 2);
        let soft = Softmax::new(x.clone(), y.clone(), 2, 1.0).unwrap();
        let hard = Linear::of_classes(x, y, LinearLoss::Logistic, 2.0).unwrap();
        let rows: Vec<usize> = (0..60).collect();
        let weights: Vec<f64> = (0..60).map(|i| 1.0 + f64::from(i % 4)).collect();
        let a = soft.fit(&rows, &weights).unwrap();
        let b = hard.fit(&rows, &weights).unwrap();
        for j in 0..3 {
            assert!((a[[1, j]] - a[[0, j]] - b[[0, j]]).abs() < 1e-4, "{a} {b}");
        }
    }

    #[test]
    fn all_losses_are_those_of_each_row() {
        let (x, y) = data(30, 4);
        let problem = Softmax::new(x, y, 4, 3.0).unwrap();
        let model = problem.fit(&[0, 1, 5, 9, 20], &[1.0; 5]).unwrap();
        for (row, loss) in problem.losses(&model).unwrap().into_iter().enumerate() {
            assert!((loss - problem.loss(row, &model)).abs() < 1e-12);
        }
    }

    #[test]
    fn wrong_classes_are_refused() {
        assert!(Softmax::new(Array2::zeros((2, 1)), vec![0, 3], 3, 1.0).is_err());
        assert!(Softmax::new(Array2::zeros((2, 1)), vec![0, 0], 1, 1.0).is_err());
        assert!(Softmax::new(Array2::zeros((2, 1)), vec![0], 2, 1.0).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn no_nearby_model_is_better(k in 2u32..5, at in 0usize..6, e in prop::sample::select(vec![-0.1, 0.1])) {
            let (x, y) = data(40, k);
            let problem = Softmax::new(x, y, k as usize, 1.0).unwrap();
            let rows: Vec<usize> = (0..40).collect();
            let mut model = problem.fit(&rows, &[1.0; 40]).unwrap();
            let best: f64 = problem.losses(&model).unwrap().iter().sum();
            model[[at % k as usize, at % 3]] += e;
            let moved: f64 = problem.losses(&model).unwrap().iter().sum();
            prop_assert!(moved > best);
        }
    }
}
