//! Recursive least squares with forgetting.
//!
//! With z = (x, 1), P \[d + 1, d + 1\] starting at 1000 I (a faint ridge) and coefficients b at 0, a label y of weight v:
//! g = P z / (f / v + z' P z); b += g (y - z' b); P = (P - g z' P) / f. With f < 1 directions that no label
//! touches would grow without end, so P is not divided by f while its trace is above its first one.
//! O(d^2) for a label and for the leverage z' P z.

use super::dot;
use serde::{Deserialize, Serialize};

const START: f64 = 1000.0;

/// Coefficients and P, row by row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeastSquares {
    coefficients: Vec<f64>,
    p: Vec<f64>,
    forgetting: f64,
}

impl LeastSquares {
    /// Predicts 0 everywhere.
    pub fn new(width: usize, forgetting: f64) -> LeastSquares {
        let size = width + 1;
        let mut p = vec![0.0; size * size];
        (0..size).for_each(|i| p[i * size + i] = START);
        LeastSquares {
            coefficients: vec![0.0; size],
            p,
            forgetting,
        }
    }

    /// The prediction at `x`.
    pub fn value(&self, x: &[f64]) -> f64 {
        dot(&self.coefficients, &extended(x))
    }

    /// z' P z: how little is known at `x`.
    pub fn leverage(&self, x: &[f64]) -> f64 {
        let z = extended(x);
        dot(&z, &self.times(&z)).max(0.0)
    }

    /// Learns a number.
    pub fn learn(&mut self, x: &[f64], y: f64, weight: f64) {
        if weight <= 0.0 {
            return;
        }
        let z = extended(x);
        let size = z.len();
        let pz = self.times(&z);
        let denominator = self.forgetting / weight + dot(&z, &pz);
        let error = y - dot(&self.coefficients, &z);
        for (b, g) in self.coefficients.iter_mut().zip(&pz) {
            *b += g / denominator * error;
        }
        let trace: f64 = (0..size).map(|i| self.p[i * size + i]).sum();
        let f = if trace > START * size as f64 {
            1.0
        } else {
            self.forgetting
        };
        for (row, a) in self.p.chunks_exact_mut(size).zip(&pz) {
            for (p, b) in row.iter_mut().zip(&pz) {
                *p = (*p - a * b / denominator) / f;
            }
        }
    }

    /// Halves what was learned: P doubles.
    pub fn halve(&mut self) {
        self.p.iter_mut().for_each(|p| *p *= 2.0);
    }

    fn times(&self, z: &[f64]) -> Vec<f64> {
        self.p
            .chunks_exact(z.len())
            .map(|row| dot(row, z))
            .collect()
    }
}

fn extended(x: &[f64]) -> Vec<f64> {
    x.iter().copied().chain([1.0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_ridge_solution() {
        // Rows (1), (2), (4) with y = 1, 3, 4: solve (Z'Z + I / 1000) b = Z'y by Cramer's rule.
        let mut model = LeastSquares::new(1, 1.0);
        for (x, y) in [(1.0, 1.0), (2.0, 3.0), (4.0, 4.0)] {
            model.learn(&[x], y, 1.0);
        }
        let (a, b, d) = (21.0 + 1e-3, 7.0, 3.0 + 1e-3);
        let (r, s) = (23.0, 8.0);
        let det = a * d - b * b;
        let slope = (r * d - b * s) / det;
        let constant = (a * s - b * r) / det;
        assert!((model.coefficients[0] - slope).abs() < 1e-8);
        assert!((model.coefficients[1] - constant).abs() < 1e-8);
        // Leverage at x = 0 is the last entry of the inverse.
        assert!((model.leverage(&[0.0]) - a / det).abs() < 1e-8);
    }

    #[test]
    fn it_follows_a_change_and_stays_finite_without_news() {
        let mut model = LeastSquares::new(1, 0.9);
        for i in 0..200 {
            model.learn(&[f64::from(i % 5)], f64::from(i % 5), 1.0);
        }
        for i in 0..200 {
            model.learn(&[f64::from(i % 5)], -f64::from(i % 5), 1.0);
        }
        assert!((model.value(&[2.0]) + 2.0).abs() < 1e-3);
        for _ in 0..5000 {
            model.learn(&[0.0], 0.0, 1.0);
        }
        assert!(model.leverage(&[3.0]).is_finite() && model.leverage(&[3.0]) < 1e5);
    }
}
