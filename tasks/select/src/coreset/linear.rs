//! Linear models of two classes or of a number: logistic regression, linear support vectors, least squares, Huber's loss
//! and quantiles.
//!
//! x \[n, d\] features, y \[n\] the class as -1 and 1 or the number; a model is w \[d\] and the intercept b, and
//! z = x.w + b. The loss of a row is |w|^2 / 2n + C phi(y, z) for classes and phi(y, z) for numbers, so that the sum over
//! rows is the usual objective:
//! - logistic: ln(1 + exp(-y z)); hinge: max(0, 1 - y z);
//! - squared: (y - z)^2; Huber: r^2 / 2 for |r| <= delta, else delta |r| - delta^2 / 2, r = y - z;
//! - quantile: r (level - \[r < 0\]).
//!
//! The fit for rows with weights v minimises |w|^2 / 2 + C n / sum(v) sum v phi: the penalty keeps its balance with the
//! data, as in the released code. Numbers get a penalty of 1e-9 of the data's scale, only to make the model unique.
//! 1. Smooth losses: Newton's method. With u = weights, g = X'(u phi') + penalty and H = X' diag(u phi'') X + penalty, solve
//!    H p = -g by Cholesky and halve the step until the objective falls enough. If ten halvings do not do it (Huber's
//!    curvature is 0 far from the data), take the step of the parabola above the loss, which always goes down (iteratively
//!    reweighted least squares). Stop when the decrement -g'p is 1e-10 of the objective.
//! 2. Losses with a kink, hinge and quantile: an interior-point method (`interior.rs`).
//! 3. Smooth losses of more than 1000 columns: L-BFGS in place of Newton.
//!
//! Cost: n d^2 a Newton step, about 8 steps for logistic regression, 1 for squares, and 10 to 25 rounds for a kink; memory
//! some numbers for each row beside the rows, and 64 d^2.

use super::interior::{self, Kinked};
use super::lbfgs;
use super::moments::{self, scores};
use super::problem::{BLOCK, Problem, WeightedProblem};
use super::sensitivity::{leverages, with_ones};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, CowArray, Ix2, s};
use papertrial_core::{Error, Result};
use rayon::prelude::*;

/// The loss of a row of a linear model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LinearLoss {
    /// Logistic regression; y is -1 or 1.
    Logistic,
    /// Support vectors; y is -1 or 1.
    Hinge,
    /// Least squares.
    Squared,
    /// Squared up to `delta`, linear beyond.
    Huber {
        /// Residual at which the loss becomes linear, in units of y.
        delta: f64,
    },
    /// Pinball loss, whose minimum is a quantile.
    Quantile {
        /// Share of rows below the quantile, between 0 and 1.
        level: f64,
    },
}

/// Columns from which L-BFGS is used.
const MANY_COLUMNS: usize = 1000;

impl LinearLoss {
    fn of_classes(self) -> bool {
        matches!(self, LinearLoss::Logistic | LinearLoss::Hinge)
    }

    /// phi(y, z).
    fn value(self, y: f64, z: f64) -> f64 {
        match self {
            LinearLoss::Logistic => softplus(-y * z),
            LinearLoss::Hinge => (1.0 - y * z).max(0.0),
            LinearLoss::Squared => (y - z).powi(2),
            LinearLoss::Huber { delta } => {
                let r = (y - z).abs();
                if r <= delta {
                    0.5 * r * r
                } else {
                    delta * (r - 0.5 * delta)
                }
            }
            LinearLoss::Quantile { level } => {
                let r = y - z;
                if r < 0.0 {
                    (level - 1.0) * r
                } else {
                    level * r
                }
            }
        }
    }

    /// First derivative of phi in z; of smooth losses, 0 for others.
    fn slope(self, y: f64, z: f64) -> f64 {
        match self {
            LinearLoss::Logistic => -y / (1.0 + (y * z).exp()),
            LinearLoss::Squared => 2.0 * (z - y),
            LinearLoss::Huber { delta } => (z - y).clamp(-delta, delta),
            LinearLoss::Hinge | LinearLoss::Quantile { .. } => 0.0,
        }
    }

    /// Second derivative of phi in z; of smooth losses, 0 for others.
    fn curvature(self, y: f64, z: f64) -> f64 {
        match self {
            LinearLoss::Logistic => {
                let p = 1.0 / (1.0 + (y * z).exp());
                p * (1.0 - p)
            }
            LinearLoss::Squared => 2.0,
            LinearLoss::Huber { delta } if (z - y).abs() <= delta => 1.0,
            _ => 0.0,
        }
    }

    /// Curvature of a parabola that touches phi at z and lies above it everywhere; of smooth losses, 0 for others.
    fn majorant(self, y: f64, z: f64) -> f64 {
        match self {
            LinearLoss::Logistic => 0.25,
            LinearLoss::Squared => 2.0,
            LinearLoss::Huber { delta } => (delta / (z - y).abs()).min(1.0),
            LinearLoss::Hinge | LinearLoss::Quantile { .. } => 0.0,
        }
    }
}

/// ln(1 + exp(x)) without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Rows with a linear model's loss.
#[derive(Debug, Clone)]
pub struct Linear {
    x: Array2<f64>,
    y: Vec<f64>,
    classes: Option<Vec<u32>>,
    loss: LinearLoss,
    c: f64,
    penalised: bool,
}

impl Linear {
    /// Two classes, as 0 and 1; `c` weighs the data against the penalty.
    ///
    /// # Errors
    /// Not one class for each row, a class above 1, or a loss of numbers.
    pub fn of_classes(
        x: Array2<f64>,
        classes: Vec<u32>,
        loss: LinearLoss,
        c: f64,
    ) -> Result<Linear> {
        if !loss.of_classes() {
            return Err(Error::Failed("the loss is one of numbers".into()));
        }
        if classes.len() != x.nrows() || classes.iter().any(|class| *class > 1) {
            return Err(Error::Failed(
                "two classes, numbered 0 and 1, are needed: one for each row".into(),
            ));
        }
        if !(c > 0.0 && c.is_finite()) {
            return Err(Error::option("c", "must be above 0"));
        }
        let y = classes
            .iter()
            .map(|class| if *class == 1 { 1.0 } else { -1.0 })
            .collect();
        Ok(Linear {
            x: x.as_standard_layout().into_owned(),
            y,
            classes: Some(classes),
            loss,
            c,
            penalised: true,
        })
    }

    /// Numbers to predict.
    ///
    /// # Errors
    /// Not one finite number for each row, a loss of classes, or an impossible `delta` or `level`.
    pub fn of_numbers(x: Array2<f64>, y: Vec<f64>, loss: LinearLoss) -> Result<Linear> {
        if loss.of_classes() {
            return Err(Error::Failed("the loss is one of classes".into()));
        }
        if y.len() != x.nrows() || y.iter().any(|v| !v.is_finite()) {
            return Err(Error::Failed(
                "one finite number for each row is needed".into(),
            ));
        }
        match loss {
            LinearLoss::Huber { delta } if delta <= 0.0 || delta.is_nan() => {
                return Err(Error::option("huber-delta", "must be above 0"));
            }
            LinearLoss::Quantile { level } if !(level > 0.0 && level < 1.0) => {
                return Err(Error::option("level", "must be between 0 and 1"));
            }
            _ => {}
        }
        Ok(Linear {
            x: x.as_standard_layout().into_owned(),
            y,
            classes: None,
            loss,
            c: 1.0,
            penalised: true,
        })
    }

    /// The same without a penalty in the rows' losses, to score rows that were not fitted to.
    pub fn unpenalised(self) -> Linear {
        Linear {
            penalised: false,
            ..self
        }
    }

    /// The share of the penalty in each row's loss.
    fn penalty(&self, model: &Array2<f64>) -> f64 {
        if !self.penalised || !self.loss.of_classes() {
            return 0.0;
        }
        let row = model.row(0);
        let w = row.slice(s![..self.x.ncols()]);
        0.5 * w.dot(&w) / self.x.nrows() as f64
    }
}

impl WeightedProblem for Linear {
    type Model = Array2<f64>;

    fn rows(&self) -> usize {
        self.x.nrows()
    }

    fn fit(&self, rows: &[usize], weights: &[f64]) -> Result<Array2<f64>> {
        let n = self.x.nrows() as f64;
        let sum: f64 = weights.iter().sum();
        let factor = self.c * n / sum;
        let whole = rows.len() == self.x.nrows();
        let x = if whole {
            CowArray::from(self.x.view())
        } else {
            CowArray::from(self.x.select(Axis(0), rows))
        };
        let y: Vec<f64> = rows.iter().map(|row| self.y[*row]).collect();
        let u: Vec<f64> = weights.iter().map(|w| factor * w).collect();
        // Numbers have no penalty of their own; this much makes the model unique.
        let ridge = if self.loss.of_classes() {
            1.0
        } else {
            1e-9 * n
        };
        let model = match self.loss {
            LinearLoss::Hinge => {
                let rows = Kinked {
                    target: vec![1.0; y.len()],
                    below: vec![0.0; y.len()],
                    sign: y,
                    above: u,
                };
                interior::minimise(&x.view(), &rows, ridge)?
            }
            LinearLoss::Quantile { level } => {
                let rows = Kinked {
                    sign: vec![1.0; y.len()],
                    target: y,
                    above: u.iter().map(|u| level * u).collect(),
                    below: u.iter().map(|u| (1.0 - level) * u).collect(),
                };
                interior::minimise(&x.view(), &rows, ridge)?
            }
            loss => {
                let fit = Fit {
                    x,
                    y,
                    u,
                    loss,
                    ridge,
                };
                if self.x.ncols() >= MANY_COLUMNS {
                    fit.lbfgs()
                } else {
                    fit.newton()?
                }
            }
        };
        Ok(model.insert_axis(Axis(0)))
    }

    fn loss(&self, row: usize, model: &Array2<f64>) -> f64 {
        let model_row = model.row(0);
        let d = self.x.ncols();
        let z = self.x.row(row).dot(&model_row.slice(s![..d])) + model_row[d];
        self.penalty(model) + self.c * self.loss.value(self.y[row], z)
    }

    fn losses(&self, model: &Array2<f64>) -> Result<Vec<f64>> {
        let mut z = scores(&self.x.view(), model.row(0));
        let penalty = self.penalty(model);
        z.par_chunks_mut(BLOCK)
            .zip(self.y.par_chunks(BLOCK))
            .for_each(|(z, y)| {
                for (z, y) in z.iter_mut().zip(y) {
                    *z = penalty + self.c * self.loss.value(*y, *z);
                }
            });
        Ok(z)
    }

    fn classes(&self) -> Option<&[u32]> {
        self.classes.as_deref()
    }
}

impl Problem for Linear {
    fn points(&self) -> ArrayView2<'_, f64> {
        self.x.view()
    }

    /// Classes: root of the leverage of (x, 1), plus 1/n (Munteanu, Schwiegelshohn, Sohler and Woodruff, *On coresets for
    /// logistic regression*, 2018). Numbers: leverage of (x, 1, y) for squares, its root for losses that grow linearly;
    /// plus 1/n.
    fn sensitivities(&self, _seed: u64) -> Result<Vec<f64>> {
        let n = self.x.nrows() as f64;
        let leverages = if self.loss.of_classes() {
            leverages(with_ones(&self.x.view(), None).view())?
        } else {
            leverages(with_ones(&self.x.view(), Some(&self.y)).view())?
        };
        let root = self.loss != LinearLoss::Squared;
        Ok(leverages
            .into_iter()
            .map(|l| 1.0 / n + if root { l.sqrt() } else { l })
            .collect())
    }

    fn predict(&self, model: &Array2<f64>, x: ArrayView2<'_, f64>) -> Option<Vec<f64>> {
        let mut z = scores(&x, model.row(0));
        if self.loss.of_classes() {
            for z in &mut z {
                *z = if *z > 0.0 { 1.0 } else { 0.0 };
            }
        }
        Some(z)
    }
}

/// One weighted fit of a smooth loss: rows, targets, and weights that are scaled already.
struct Fit<'a> {
    x: CowArray<'a, f64, Ix2>,
    y: Vec<f64>,
    u: Vec<f64>,
    loss: LinearLoss,
    ridge: f64,
}

/// Which curvature a step is made with.
#[derive(Clone, Copy)]
enum Curve {
    /// The second derivative.
    Own,
    /// That of the parabola above the loss that touches it here.
    Majorant,
}

impl Fit<'_> {
    /// Objective at scores z and a model.
    fn value(&self, z: &[f64], model: ArrayView1<'_, f64>) -> f64 {
        let parts: Vec<f64> = z
            .par_chunks(BLOCK)
            .enumerate()
            .map(|(block, z)| {
                (block * BLOCK..)
                    .zip(z)
                    .map(|(row, z)| self.u[row] * self.loss.value(self.y[row], *z))
                    .sum()
            })
            .collect();
        let w = model.slice(s![..model.len() - 1]);
        parts.iter().sum::<f64>() + 0.5 * self.ridge * w.dot(&w)
    }

    fn gradient(&self, z: &[f64], model: ArrayView1<'_, f64>) -> Array1<f64> {
        let slopes: Vec<f64> = (0..z.len())
            .into_par_iter()
            .map(|row| self.u[row] * self.loss.slope(self.y[row], z[row]))
            .collect();
        let mut gradient = moments::first(&self.x.view(), &slopes);
        let d = self.x.ncols();
        gradient
            .slice_mut(s![..d])
            .scaled_add(self.ridge, &model.slice(s![..d]));
        gradient
    }

    fn step(&self, z: &[f64], gradient: &Array1<f64>, curve: Curve) -> Result<Array1<f64>> {
        let curvatures: Vec<f64> = (0..z.len())
            .into_par_iter()
            .map(|row| {
                let (y, z) = (self.y[row], z[row]);
                self.u[row]
                    * match curve {
                        Curve::Own => self.loss.curvature(y, z),
                        Curve::Majorant => self.loss.majorant(y, z),
                    }
            })
            .collect();
        let mut hessian = moments::second(&self.x.view(), &curvatures);
        for j in 0..self.x.ncols() {
            hessian[[j, j]] += self.ridge;
        }
        Ok(-moments::solve(hessian, gradient)?)
    }

    /// Step 1.
    fn newton(&self) -> Result<Array1<f64>> {
        let mut model = Array1::zeros(self.x.ncols() + 1);
        let mut z = scores(&self.x.view(), model.view());
        let mut value = self.value(&z, model.view());
        'steps: for _ in 0..200 {
            let gradient = self.gradient(&z, model.view());
            for (curve, halvings) in [(Curve::Own, 10), (Curve::Majorant, 1)] {
                let step = self.step(&z, &gradient, curve)?;
                let decrement = -gradient.dot(&step);
                if decrement <= 1e-10 * value || decrement.is_nan() {
                    break 'steps;
                }
                let along = scores(&self.x.view(), step.view());
                for halving in 0..halvings {
                    let length = 0.5f64.powi(halving);
                    let mut next = model.clone();
                    next.scaled_add(length, &step);
                    let reached: Vec<f64> =
                        z.iter().zip(&along).map(|(z, a)| z + length * a).collect();
                    let found = self.value(&reached, next.view());
                    if found <= value - 1e-4 * length * decrement {
                        (model, z, value) = (next, reached, found);
                        continue 'steps;
                    }
                }
            }
            // Rounding stops the fall before the decrement does.
            break;
        }
        Ok(model)
    }

    /// Step 3.
    fn lbfgs(&self) -> Array1<f64> {
        let start = vec![0.0; self.x.ncols() + 1];
        let found = lbfgs::minimise(start, 1000, 1e-7, |point, gradient| {
            let model = ArrayView1::from(point);
            let z = scores(&self.x.view(), model);
            for (to, g) in gradient.iter_mut().zip(self.gradient(&z, model)) {
                *to = g;
            }
            self.value(&z, model)
        });
        Array1::from(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Rows of two overlapping classes, and a number that depends on the features with some outliers.
    pub(super) fn data(n: usize, d: usize, seed: u64) -> (Array2<f64>, Vec<u32>, Vec<f64>) {
        use rand::RngExt;
        let mut rng = papertrial_numerics::sampling::rng(seed, "linear test");
        let mut uniform = || rng.random::<f64>() * 2.0 - 1.0;
        let x = Array2::from_shape_simple_fn((n, d), &mut uniform);
        let mut classes = Vec::new();
        let mut y = Vec::new();
        for i in 0..n {
            let z: f64 = x
                .row(i)
                .iter()
                .enumerate()
                .map(|(j, v)| v * (j as f64 - 0.7))
                .sum();
            classes.push(u32::from(z + 0.8 * uniform() > 0.1));
            let noise = if i % 11 == 0 { 5.0 } else { 0.3 };
            y.push(z + noise * uniform());
        }
        (x, classes, y)
    }

    fn every(n: usize) -> (Vec<usize>, Vec<f64>) {
        ((0..n).collect(), vec![1.0; n])
    }

    fn objective(problem: &Linear, model: &Array2<f64>) -> f64 {
        problem.losses(model).unwrap().iter().sum()
    }

    #[test]
    fn losses_by_hand() {
        assert!((LinearLoss::Logistic.value(1.0, 0.0) - 2f64.ln()).abs() < 1e-15);
        // No overflow far out.
        assert_eq!(LinearLoss::Logistic.value(-1.0, 1000.0), 1000.0);
        assert_eq!(LinearLoss::Hinge.value(-1.0, 0.5), 1.5);
        assert_eq!(LinearLoss::Squared.value(3.0, 1.0), 4.0);
        let huber = LinearLoss::Huber { delta: 1.0 };
        assert_eq!((huber.value(0.5, 0.0), huber.value(3.0, 0.0)), (0.125, 2.5));
        let quantile = LinearLoss::Quantile { level: 0.9 };
        assert!((quantile.value(1.0, 0.0) - 0.9).abs() < 1e-15);
        assert!((quantile.value(0.0, 1.0) - 0.1).abs() < 1e-15);
    }

    #[test]
    fn derivatives_agree_with_differences_and_majorants_lie_above() {
        let losses = [
            LinearLoss::Logistic,
            LinearLoss::Squared,
            LinearLoss::Huber { delta: 0.7 },
        ];
        let e = 1e-6;
        for loss in losses {
            for z in [-1.3, -0.4, 0.05, 0.81, 1.02, 2.6] {
                for y in [-1.0, 1.0] {
                    let slope = loss.slope(y, z);
                    let value = (loss.value(y, z + e) - loss.value(y, z - e)) / (2.0 * e);
                    assert!((value - slope).abs() < 1e-6, "{loss:?}");
                    let change = (loss.slope(y, z + e) - loss.slope(y, z - e)) / (2.0 * e);
                    assert!((change - loss.curvature(y, z)).abs() < 1e-6, "{loss:?}");
                    for far in [-30.0, -2.0, 0.3, 5.0] {
                        let above = loss.value(y, z)
                            + slope * (far - z)
                            + 0.5 * loss.majorant(y, z) * (far - z) * (far - z);
                        assert!(above >= loss.value(y, far) - 1e-9, "{loss:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn logistic_model_of_two_weighted_groups_by_hand() {
        // One column of zeros: only the intercept counts, the log odds of the weights, 3 to 1.
        let x = Array2::zeros((4, 1));
        let problem = Linear::of_classes(x, vec![1, 0, 1, 0], LinearLoss::Logistic, 1.0).unwrap();
        let model = problem.fit(&[0, 1], &[3.0, 1.0]).unwrap();
        assert!(model[[0, 0]].abs() < 1e-12);
        assert!((model[[0, 1]] - 3f64.ln()).abs() < 1e-5, "{model}");
    }

    #[test]
    fn logistic_gradient_vanishes_and_newton_agrees_with_lbfgs() {
        let (x, classes, _) = data(300, 4, 1);
        let problem = Linear::of_classes(x.clone(), classes, LinearLoss::Logistic, 2.0).unwrap();
        let (rows, weights) = every(300);
        let model = problem.fit(&rows, &weights).unwrap();
        let fit = Fit {
            x: CowArray::from(x.view()),
            y: problem.y.clone(),
            u: vec![2.0; 300],
            loss: LinearLoss::Logistic,
            ridge: 1.0,
        };
        let other = fit.lbfgs().insert_axis(Axis(0));
        let z = scores(&x.view(), model.row(0));
        let gradient = fit.gradient(&z, model.row(0));
        for j in 0..5 {
            assert!(gradient[j].abs() < 1e-4, "{j}");
            assert!(
                (model[[0, j]] - other[[0, j]]).abs() < 1e-4,
                "{model} {other}"
            );
        }
    }

    #[test]
    fn support_vectors_close_the_duality_gap() {
        let (x, classes, _) = data(200, 3, 2);
        let problem = Linear::of_classes(x.clone(), classes, LinearLoss::Hinge, 1.5).unwrap();
        let (rows, weights) = every(200);
        let model = problem.fit(&rows, &weights).unwrap();
        // Any a in [0, C] with sum a y = 0 bounds the optimum from below by sum a - |sum a y x|^2 / 2. Rows inside the
        // margin have a = C, outside 0; the few on it share what is left: solve for them by least squares.
        let z = scores(&x.view(), model.row(0));
        let margin: Vec<f64> = (0..200).map(|i| 1.0 - problem.y[i] * z[i]).collect();
        let on: Vec<usize> = (0..200).filter(|i| margin[*i].abs() < 1e-5).collect();
        assert!((1..=4).contains(&on.len()), "{on:?}");
        let mut left = Array1::<f64>::zeros(4);
        left.slice_mut(s![..3]).assign(&model.slice(s![0, ..3]));
        for i in (0..200).filter(|i| margin[*i] >= 1e-5) {
            left.slice_mut(s![..3])
                .scaled_add(-1.5 * problem.y[i], &x.row(i));
            left[3] -= 1.5 * problem.y[i];
        }
        // The columns y (x, 1) of the rows on the margin must make up `left` with shares in [0, C].
        let columns = Array2::from_shape_fn((4, on.len()), |(j, k)| {
            problem.y[on[k]] * if j < 3 { x[[on[k], j]] } else { 1.0 }
        });
        let shares = moments::solve(columns.t().dot(&columns), &columns.t().dot(&left)).unwrap();
        assert!(
            shares.iter().all(|a| (-1e-3..=1.5 + 1e-3).contains(a)),
            "{shares}"
        );
        let rest = &columns.dot(&shares) - &left;
        assert!(rest.iter().all(|v| v.abs() < 1e-3), "{rest}");
    }

    #[test]
    fn least_squares_solves_the_normal_equations() {
        let (x, _, y) = data(50, 3, 3);
        let problem = Linear::of_numbers(x.clone(), y.clone(), LinearLoss::Squared).unwrap();
        let (rows, weights) = every(50);
        let model = problem.fit(&rows, &weights).unwrap();
        let z = scores(&x.view(), model.row(0));
        for j in 0..4 {
            let sum: f64 = (0..50)
                .map(|i| (y[i] - z[i]) * if j < 3 { x[[i, j]] } else { 1.0 })
                .sum();
            assert!(sum.abs() < 1e-5, "{sum}");
        }
    }

    #[test]
    fn a_quantile_of_numbers_without_features_is_the_sorted_one() {
        let y: Vec<f64> = (0..101).map(|i| f64::from(i * 37 % 101)).collect();
        let loss = LinearLoss::Quantile { level: 0.2 };
        let problem = Linear::of_numbers(Array2::zeros((101, 1)), y, loss).unwrap();
        let (rows, weights) = every(101);
        let model = problem.fit(&rows, &weights).unwrap();
        assert!((model[[0, 1]] - 20.0).abs() < 1e-4, "{model}");
        // 60 rows of weight 1 and 41 of weight 100: a fifth of 4160 is reached within the eighth of them, 67.
        let heavy: Vec<f64> = (0..101)
            .map(|row| if problem.y[row] >= 60.0 { 100.0 } else { 1.0 })
            .collect();
        let model = problem.fit(&rows, &heavy).unwrap();
        assert!((model[[0, 1]] - 67.0).abs() < 1e-3, "{model}");
    }

    #[test]
    fn huber_lies_between_squares_and_the_median() {
        // Nine zeros and an outlier: each row's pull is at most delta, so 9 b = 1 with delta 1.
        let mut y = vec![0.0; 9];
        y.push(1000.0);
        let loss = LinearLoss::Huber { delta: 1.0 };
        let problem = Linear::of_numbers(Array2::zeros((10, 1)), y, loss).unwrap();
        let (rows, weights) = every(10);
        let model = problem.fit(&rows, &weights).unwrap();
        assert!((model[[0, 1]] - 1.0 / 9.0).abs() < 1e-6, "{model}");
    }

    #[test]
    fn fewer_rows_than_columns_are_fitted() {
        let (x, classes, y) = data(60, 8, 4);
        let rows = [3, 17, 40];
        for loss in [
            LinearLoss::Squared,
            LinearLoss::Quantile { level: 0.5 },
            LinearLoss::Huber { delta: 0.5 },
        ] {
            let problem = Linear::of_numbers(x.clone(), y.clone(), loss).unwrap();
            let model = problem.fit(&rows, &[1.0, 2.0, 3.0]).unwrap();
            assert!(model.iter().all(|v| v.is_finite()));
            for row in rows {
                assert!(problem.loss(row, &model) < 1e-3, "{loss:?}");
            }
        }
        let hinge = Linear::of_classes(x, classes, LinearLoss::Hinge, 1.0).unwrap();
        assert!(
            hinge
                .fit(&[0, 1], &[1.0, 1.0])
                .unwrap()
                .iter()
                .all(|v| v.is_finite())
        );
    }

    #[test]
    fn impossible_input_is_refused() {
        let x = || Array2::zeros((2, 1));
        assert!(Linear::of_classes(x(), vec![0, 2], LinearLoss::Hinge, 1.0).is_err());
        assert!(Linear::of_classes(x(), vec![0, 1], LinearLoss::Squared, 1.0).is_err());
        assert!(Linear::of_classes(x(), vec![0, 1], LinearLoss::Hinge, 0.0).is_err());
        assert!(Linear::of_numbers(x(), vec![0.0], LinearLoss::Squared).is_err());
        let level = LinearLoss::Quantile { level: 1.0 };
        assert!(Linear::of_numbers(x(), vec![0.0, 1.0], level).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        /// A weight of 3 is the row three times, no weight scale matters, and no nearby model is better.
        #[test]
        fn weights_are_repetitions(seed in 0u64..1000, kind in 0usize..5) {
            let (x, classes, y) = data(40, 3, seed);
            let make = |x: Array2<f64>, classes: Vec<u32>, y: Vec<f64>| match kind {
                0 => Linear::of_classes(x, classes, LinearLoss::Logistic, 1.0),
                1 => Linear::of_classes(x, classes, LinearLoss::Hinge, 1.0),
                2 => Linear::of_numbers(x, y, LinearLoss::Squared),
                3 => Linear::of_numbers(x, y, LinearLoss::Huber { delta: 0.5 }),
                _ => Linear::of_numbers(x, y, LinearLoss::Quantile { level: 0.3 }),
            }.unwrap();
            let weights: Vec<f64> = (0..40).map(|i| f64::from(1 + i % 3)).collect();
            let repeated: Vec<usize> = (0..40).flat_map(|i| vec![i; 1 + i % 3]).collect();
            let long = make(
                x.select(Axis(0), &repeated),
                repeated.iter().map(|i| classes[*i]).collect(),
                repeated.iter().map(|i| y[*i]).collect(),
            );
            // The penalty of the weighted fit is balanced against 40 rows, that of the long one against 79.
            let long = Linear { c: long.c * 40.0 / repeated.len() as f64, ..long };
            let short = make(x, classes, y);
            let (rows, _) = every(40);
            let a = short.fit(&rows, &weights).unwrap();
            let doubled: Vec<f64> = weights.iter().map(|w| 2.0 * w).collect();
            prop_assert_eq!(&a, &short.fit(&rows, &doubled).unwrap());
            let (all, ones) = every(repeated.len());
            let b = long.fit(&all, &ones).unwrap();
            let best = objective(&long, &b);
            prop_assert!((objective(&long, &a) - best).abs() <= 1e-5 * (1e-3 + best));
            for j in 0..4 {
                for e in [-0.05, 0.05] {
                    let mut moved = b.clone();
                    moved[[0, j]] += e;
                    prop_assert!(objective(&long, &moved) >= best * (1.0 - 1e-6));
                }
            }
        }
    }
}
