//! Logistic regression on sparse rows, each class counting the same, by the limited-memory BFGS method.
//!
//! Minimises mean over rows of c log(1 + exp(-y (w . x + b))) + |w|^2 / (2 C n), with y = -1 or 1 and c such that both
//! classes weigh the same. (Liu and Nocedal, *On the limited memory BFGS method for large scale optimization*, 1989; steps
//! are halved until the objective falls as Armijo asks.)

use papertrial_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Rows with few numbers that are not 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sparse {
    /// Number of columns.
    pub width: usize,
    /// First entry of each row, and the number of entries at the end.
    pub starts: Vec<usize>,
    /// Column of each entry.
    pub columns: Vec<u32>,
    /// Value of each entry.
    pub values: Vec<f64>,
}

impl Sparse {
    /// No rows yet.
    pub fn new(width: usize) -> Self {
        Sparse {
            width,
            starts: vec![0],
            ..Sparse::default()
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Adds a row.
    pub fn push(&mut self, entries: impl IntoIterator<Item = (u32, f64)>) {
        for (column, value) in entries {
            self.columns.push(column);
            self.values.push(value);
        }
        self.starts.push(self.columns.len());
    }

    /// Columns and values of a row.
    pub fn row(&self, at: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let entries = self.starts[at]..self.starts[at + 1];
        let columns = self.columns[entries.clone()].iter();
        columns
            .zip(&self.values[entries])
            .map(|(c, v)| (*c as usize, *v))
    }

    /// Product of a row with `weights`.
    pub fn dot(&self, at: usize, weights: &[f64]) -> f64 {
        self.row(at).map(|(c, v)| v * weights[c]).sum()
    }
}

/// Weights and offset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Logistic {
    /// Weight of each column.
    pub weights: Vec<f64>,
    /// Offset.
    pub offset: f64,
}

/// Steps at most.
const STEPS: usize = 300;
/// Steps that are remembered.
const MEMORY: usize = 8;
/// Training ends when no derivative is larger.
const FLAT: f64 = 1e-6;

fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

/// 1 / (1 + exp(-z)).
pub fn sigmoid(z: f64) -> f64 {
    if z >= 0.0 {
        1.0 / (1.0 + (-z).exp())
    } else {
        let e = z.exp();
        e / (1.0 + e)
    }
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Logistic {
    /// Fits rows to whether they are anomalous, with strength C.
    ///
    /// # Errors
    /// Rows of one class only.
    pub fn fit(rows: &Sparse, truth: &[bool], strength: f64) -> Result<Logistic> {
        let n = rows.len() as f64;
        let anomalous = truth.iter().filter(|t| **t).count() as f64;
        if anomalous == 0.0 || anomalous == n {
            return Err(Error::BadInput(
                "a logistic regression needs graphs of both classes to learn from".into(),
            ));
        }
        let shares = [0.5 / (n - anomalous), 0.5 / anomalous];
        let pull = 1.0 / (strength * n);
        // The offset is the last weight, and is not pulled.
        let objective = |w: &[f64]| -> (f64, Vec<f64>) {
            let (weights, offset) = w.split_at(rows.width);
            let mut gradient: Vec<f64> = weights.iter().map(|v| pull * v).collect();
            gradient.push(0.0);
            let mut value = 0.5 * pull * inner(weights, weights);
            for (r, t) in truth.iter().enumerate() {
                let y = if *t { 1.0 } else { -1.0 };
                let z = -y * (rows.dot(r, weights) + offset[0]);
                let share = shares[usize::from(*t)];
                value += share * softplus(z);
                let slope = -y * share * sigmoid(z);
                for (c, v) in rows.row(r) {
                    gradient[c] += slope * v;
                }
                gradient[rows.width] += slope;
            }
            (value, gradient)
        };
        let mut w = vec![0.0; rows.width + 1];
        let (mut value, mut gradient) = objective(&w);
        let mut memory: Vec<(Vec<f64>, Vec<f64>, f64)> = Vec::new();
        for _ in 0..STEPS {
            if gradient.iter().all(|g| g.abs() < FLAT) {
                break;
            }
            let direction = direction(&gradient, &memory);
            let slope = inner(&direction, &gradient);
            let mut step = 1.0;
            let next = loop {
                let moved: Vec<f64> = w
                    .iter()
                    .zip(&direction)
                    .map(|(w, d)| w + step * d)
                    .collect();
                let (at, g) = objective(&moved);
                if at <= value + 1e-4 * step * slope {
                    break Some((moved, at, g));
                }
                step *= 0.5;
                if step < 1e-12 {
                    break None;
                }
            };
            // No step falls any more: the limit of what rounding allows.
            let Some((moved, at, g)) = next else { break };
            let change: Vec<f64> = moved.iter().zip(&w).map(|(a, b)| a - b).collect();
            let bend: Vec<f64> = g.iter().zip(&gradient).map(|(a, b)| a - b).collect();
            let curvature = inner(&change, &bend);
            if curvature > 1e-12 * inner(&bend, &bend).sqrt() {
                memory.push((change, bend, 1.0 / curvature));
                if memory.len() > MEMORY {
                    memory.remove(0);
                }
            }
            (w, value, gradient) = (moved, at, g);
        }
        let offset = w.pop().unwrap_or_default();
        Ok(Logistic { weights: w, offset })
    }

    /// Probability of being anomalous.
    pub fn probability(&self, rows: &Sparse, at: usize) -> f64 {
        sigmoid(rows.dot(at, &self.weights) + self.offset)
    }

    /// Those of all rows.
    pub fn probabilities(&self, rows: &Sparse) -> Vec<f64> {
        (0..rows.len())
            .map(|at| self.probability(rows, at))
            .collect()
    }
}

/// Minus the gradient times the remembered approximation of the inverse second derivative.
fn direction(gradient: &[f64], memory: &[(Vec<f64>, Vec<f64>, f64)]) -> Vec<f64> {
    let mut q = gradient.to_vec();
    let mut factors = Vec::with_capacity(memory.len());
    for (change, bend, rho) in memory.iter().rev() {
        let factor = rho * inner(change, &q);
        q.iter_mut().zip(bend).for_each(|(q, b)| *q -= factor * b);
        factors.push(factor);
    }
    if let Some((change, bend, _)) = memory.last() {
        let scale = inner(change, bend) / inner(bend, bend).max(f64::MIN_POSITIVE);
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for ((change, bend, rho), factor) in memory.iter().zip(factors.iter().rev()) {
        let back = factor - rho * inner(bend, &q);
        q.iter_mut().zip(change).for_each(|(q, c)| *q += back * c);
    }
    q.iter_mut().for_each(|q| *q = -*q);
    q
}

/// The fit with the best AUC on validation rows, of strengths 0.01 to 100; the weaker of equal ones.
///
/// # Errors
/// As [`Logistic::fit`]; validation rows of one class only.
pub fn fit_best(
    rows: &Sparse,
    truth: &[bool],
    validation: &Sparse,
    validation_truth: &[bool],
) -> Result<(Logistic, f64)> {
    let mut best: Option<(f64, Logistic, f64)> = None;
    for strength in [0.01, 0.1, 1.0, 10.0, 100.0] {
        let fitted = Logistic::fit(rows, truth, strength)?;
        let scores = fitted.probabilities(validation);
        let area = super::score::auc(validation_truth, &scores)?;
        if best.as_ref().is_none_or(|b| area > b.0) {
            best = Some((area, fitted, strength));
        }
    }
    best.map(|(_, fitted, strength)| (fitted, strength))
        .ok_or_else(|| Error::Failed("no strength was tried".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[&[f64]]) -> Sparse {
        let mut rows = Sparse::new(values[0].len());
        for row in values {
            let entries = row.iter().enumerate().filter(|(_, v)| **v != 0.0);
            rows.push(entries.map(|(c, v)| (c as u32, *v)));
        }
        rows
    }

    #[test]
    fn the_gradient_is_flat_at_the_end_and_classes_weigh_the_same() {
        let x: Vec<[f64; 2]> = (0..40)
            .map(|i| {
                let t = f64::from(i);
                [
                    (t * 0.7).sin(),
                    (t * 1.3).cos() + if i % 8 == 0 { 0.8 } else { 0.0 },
                ]
            })
            .collect();
        let x: Vec<&[f64]> = x.iter().map(<[f64; 2]>::as_slice).collect();
        let truth: Vec<bool> = (0..40).map(|i| i % 8 == 0).collect();
        let rows = rows(&x);
        let fitted = Logistic::fit(&rows, &truth, 1.0).unwrap();
        // Where the derivative by the offset is 0, both classes' errors weigh the same.
        let error = |class: bool| {
            let of: Vec<f64> = (0..40)
                .filter(|r| truth[*r] == class)
                .map(|r| {
                    let p = fitted.probability(&rows, r);
                    if class { 1.0 - p } else { p }
                })
                .collect();
            of.iter().sum::<f64>() / of.len() as f64
        };
        assert!((error(true) - error(false)).abs() < 1e-5);
        // The same for a weight, with its pull.
        for (c, weight) in fitted.weights.iter().enumerate() {
            let slope: f64 = (0..40)
                .map(|r| {
                    let y = if truth[r] { 1.0 } else { 0.0 };
                    let share = if truth[r] { 0.1 } else { 0.5 / 35.0 };
                    share * (fitted.probability(&rows, r) - y) * x[r][c]
                })
                .sum();
            assert!((slope + weight / 40.0).abs() < 1e-5);
        }
        assert!(fitted.weights[1] > 0.0);
    }

    #[test]
    fn separable_classes_and_one_class() {
        let x: [&[f64]; 4] = [&[1.0], &[2.0], &[-1.0], &[-2.0]];
        let truth = [true, true, false, false];
        let (fitted, _) = fit_best(&rows(&x), &truth, &rows(&x), &truth).unwrap();
        assert!(fitted.weights[0] > 0.0 && fitted.offset.abs() < 1e-6);
        assert!(Logistic::fit(&rows(&x), &[true; 4], 1.0).is_err());
        assert!(sigmoid(-800.0) >= 0.0 && sigmoid(800.0) <= 1.0);
    }
}
