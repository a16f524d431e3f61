//! The models that the collected rows train: ridge regression and logistic regression.
//!
//! Both standardise the columns of their training rows. Ridge picks its penalty by generalised cross-validation
//! (n d^2 + 9 d^3 for one decomposition, then O(d) a penalty); logistic regression has the fixed penalty |w|^2 / 2 and
//! takes Newton steps (n d^2 + d^3 / 3 each), one class against the rest where there are more than two.

use ndarray::{Array1, Array2, ArrayView1, Axis};
use papertrial_core::{Error, Result};
use papertrial_numerics::linalg;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Kind of model, and with it the quality that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// Logistic regression if the label has at most 20 values, else ridge regression.
    Auto,
    /// Ridge regression of a numeric label; quality is R² = 1 - squared error / squared deviation from the mean.
    Ridge,
    /// Logistic regression of a label of classes; quality is accuracy.
    Logistic,
}

/// A trained model: one score a class, or one prediction.
#[derive(Debug, Clone)]
pub struct Trained {
    /// \[outputs\]\[d\], on the columns as they are.
    weights: Vec<Array1<f64>>,
    intercepts: Vec<f64>,
}

impl Trained {
    /// The predicted number, or the predicted class as a number.
    pub fn predict(&self, row: ArrayView1<'_, f64>) -> f64 {
        let score = |o: usize| self.weights[o].dot(&row) + self.intercepts[o];
        if self.weights.len() == 1 {
            return score(0);
        }
        let mut best = (0, score(0));
        for o in 1..self.weights.len() {
            let s = score(o);
            if s > best.1 {
                best = (o, s);
            }
        }
        best.0 as f64
    }
}

/// Rows with columns of mean 0 and variance 1 (constant columns: all 0), the means and the deviations.
fn standardised(x: &Array2<f64>) -> (Array2<f64>, Array1<f64>, Array1<f64>) {
    let n = x.nrows().max(1) as f64;
    let means = x.sum_axis(Axis(0)) / n;
    let mut z = x - &means;
    let mut deviations = Array1::ones(x.ncols());
    for (mut column, deviation) in z.columns_mut().into_iter().zip(deviations.iter_mut()) {
        let variance = column.iter().map(|v| v * v).sum::<f64>() / n;
        if variance > 1e-20 {
            *deviation = variance.sqrt();
            column /= *deviation;
        } else {
            column.fill(0.0);
        }
    }
    (z, means, deviations)
}

/// Undoes the standardisation of weights.
fn unscaled(
    w: &Array1<f64>,
    intercept: f64,
    means: &Array1<f64>,
    deviations: &Array1<f64>,
) -> (Array1<f64>, f64) {
    let weights = w / deviations;
    let intercept = intercept - weights.dot(means);
    (weights, intercept)
}

/// Penalties that ridge regression tries: from 0.01 to 10^6 in steps of a factor of about 2.
const PENALTIES: usize = 28;

/// Ridge regression of `y` on the rows `x` \[n, d\], n >= 1.
///
/// # Errors
/// The decomposition fails.
pub fn ridge(x: &Array2<f64>, y: &[f64]) -> Result<Trained> {
    let n = y.len() as f64;
    let (z, means, deviations) = standardised(x);
    let mean = y.iter().sum::<f64>() / n;
    let centred: Array1<f64> = y.iter().map(|v| v - mean).collect();
    let eigen =
        linalg::eigh(linalg::gram(z.view()).view()).map_err(|e| Error::Failed(e.to_string()))?;
    let along = eigen.vectors.t().dot(&z.t().dot(&centred));
    let total = centred.dot(&centred);
    let values = eigen.values.mapv(|v| v.max(0.0));
    let mut best = (f64::INFINITY, 0.0);
    for step in 0..PENALTIES {
        let penalty = 0.01 * 1e8f64.powf(step as f64 / (PENALTIES - 1) as f64);
        let (mut squares, mut freedom) = (total, 1.0);
        for (c, e) in along.iter().zip(&values) {
            let shrunk = c / (e + penalty);
            squares += -2.0 * c * shrunk + e * shrunk * shrunk;
            freedom += e / (e + penalty);
        }
        let rest = 1.0 - freedom / n;
        if rest > 0.0 {
            let score = squares / (rest * rest);
            if score < best.0 {
                best = (score, penalty);
            }
        }
    }
    let w = if best.1 > 0.0 {
        eigen.vectors.dot(&(&along / &(&values + best.1)))
    } else {
        Array1::zeros(x.ncols())
    };
    let (w, intercept) = unscaled(&w, mean, &means, &deviations);
    Ok(Trained {
        weights: vec![w],
        intercepts: vec![intercept],
    })
}

/// Newton steps at most.
const STEPS: usize = 30;

/// Logistic regression of the classes `y` in 0..classes on the rows `x` \[n, d\], n >= 1.
///
/// # Errors
/// The factorisation fails.
pub fn logistic(x: &Array2<f64>, y: &[f64], classes: usize) -> Result<Trained> {
    let (z, means, deviations) = standardised(x);
    let mut trained = Trained {
        weights: Vec::new(),
        intercepts: Vec::new(),
    };
    let add = |trained: &mut Trained, (w, b): (Array1<f64>, f64)| {
        trained.weights.push(w);
        trained.intercepts.push(b);
    };
    if classes <= 2 {
        // Class 0 has the score 0.
        let (w, b) = one_class(&z, &y.iter().map(|v| *v == 1.0).collect::<Vec<_>>())?;
        add(&mut trained, (Array1::zeros(x.ncols()), 0.0));
        add(&mut trained, unscaled(&w, b, &means, &deviations));
    } else {
        for class in 0..classes {
            let is: Vec<bool> = y.iter().map(|v| *v == class as f64).collect();
            let (w, b) = one_class(&z, &is)?;
            add(&mut trained, unscaled(&w, b, &means, &deviations));
        }
    }
    Ok(trained)
}

/// Weights \[d\] and intercept that minimise sum log(1 + exp(-s (w z + b))) + |w|^2 / 2, s = 1 where `is`, else -1.
fn one_class(z: &Array2<f64>, is: &[bool]) -> Result<(Array1<f64>, f64)> {
    let (n, d) = z.dim();
    let positive = is.iter().filter(|v| **v).count();
    if positive == 0 || positive == n {
        // A single class: no direction to learn, and an intercept that is sure of it.
        return Ok((Array1::zeros(d), if positive == 0 { -20.0 } else { 20.0 }));
    }
    let mut full = Array2::ones((n, d + 1));
    full.slice_mut(ndarray::s![.., ..d]).assign(z);
    let loss = |w: &Array1<f64>| -> f64 {
        let scores = full.dot(w);
        let fit: f64 = scores
            .iter()
            .zip(is)
            .map(|(s, v)| softplus(if *v { -s } else { *s }))
            .sum();
        fit + w.iter().take(d).map(|v| v * v).sum::<f64>() / 2.0
    };
    let mut w = Array1::zeros(d + 1);
    let mut now = loss(&w);
    for _ in 0..STEPS {
        let p = full.dot(&w).mapv(|s| 1.0 / (1.0 + (-s).exp()));
        let miss: Array1<f64> = p
            .iter()
            .zip(is)
            .map(|(p, v)| p - f64::from(u8::from(*v)))
            .collect();
        let mut gradient = full.t().dot(&miss);
        let mut scaled = full.clone();
        for (mut row, p) in scaled.outer_iter_mut().zip(&p) {
            row *= (p * (1.0 - p)).sqrt();
        }
        let mut hessian = linalg::gram(scaled.view());
        for j in 0..d {
            gradient[j] += w[j];
            hessian[[j, j]] += 1.0;
        }
        hessian[[d, d]] += 1e-9;
        let step = linalg::cholesky(hessian.view())
            .map_err(|e| Error::Failed(format!("logistic regression: {e}")))?
            .solve_vector(gradient.view());
        // Half steps until the loss falls: a whole one can overshoot where classes are nearly separated.
        let mut length = 1.0;
        let mut next = &w - &step;
        let mut after = loss(&next);
        while after > now && length > 1e-4 {
            length /= 2.0;
            next = &w - &(&step * length);
            after = loss(&next);
        }
        if after >= now {
            break;
        }
        let gained = now - after;
        (w, now) = (next, after);
        if gained < 1e-8 * (1.0 + now) {
            break;
        }
    }
    let intercept = w[d];
    Ok((w.slice(ndarray::s![..d]).to_owned(), intercept))
}

/// ln(1 + exp(s)) without overflow.
fn softplus(s: f64) -> f64 {
    s.max(0.0) + (-s.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn ridge_finds_an_exact_line_and_the_mean_without_one() {
        let x = Array2::from_shape_fn((50, 2), |(i, j)| ((i * (7 + j)) % 13) as f64);
        let y: Vec<f64> = x.outer_iter().map(|r| 3.0 * r[0] - r[1] + 5.0).collect();
        let model = ridge(&x, &y).unwrap();
        assert!((model.predict(array![2.0, 1.0].view()) - 10.0).abs() < 0.01);
        let flat = ridge(&Array2::ones((4, 2)), &[1.0, 2.0, 3.0, 6.0]).unwrap();
        assert!((flat.predict(array![9.0, 9.0].view()) - 3.0).abs() < 1e-12);
        assert_eq!(
            ridge(&array![[1.0]], &[4.0])
                .unwrap()
                .predict(array![7.0].view()),
            4.0
        );
    }

    #[test]
    fn logistic_is_stationary_and_separates() {
        let z = array![[-1.5], [-0.5], [0.5], [1.5]];
        let is = [false, true, false, true];
        let (w, b) = one_class(&z, &is).unwrap();
        // The gradient of the loss, by hand, is 0.
        let p: Vec<f64> = z
            .column(0)
            .iter()
            .map(|v| 1.0 / (1.0 + (-(w[0] * v + b)).exp()))
            .collect();
        let miss: Vec<f64> = p
            .iter()
            .zip(is)
            .map(|(p, v)| p - f64::from(u8::from(v)))
            .collect();
        let along: f64 = z.column(0).iter().zip(&miss).map(|(z, m)| z * m).sum();
        assert!((along + w[0]).abs() < 1e-4 && miss.iter().sum::<f64>().abs() < 1e-4);
        let x = array![[0.0], [1.0], [5.0], [6.0], [10.0], [11.0]];
        let three = logistic(&x, &[0.0, 0.0, 1.0, 1.0, 2.0, 2.0], 3).unwrap();
        assert_eq!(
            (
                three.predict(array![-1.0].view()),
                three.predict(array![12.0].view())
            ),
            (0.0, 2.0)
        );
        let single = logistic(&x, &[1.0; 6], 2).unwrap();
        assert_eq!(single.predict(array![3.0].view()), 1.0);
    }
}
