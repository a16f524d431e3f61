//! Softmax regression, learned by one normalised gradient step for each label.
//!
//! W \[K, d + 1\], the last column for the constant 1; p = softmax(W (x, 1)). A label y moves
//! W_k by r (1\[y = k\] - p_k) (x, 1) / (1 + |x|^2): dividing by the row's own squared length makes the step mean the
//! same whatever the number and the size of the columns. A weight of more than 1 is taken in steps of at most 1.
//! O(K d) for a prediction and for a label.

use super::{dot, shares};
use serde::{Deserialize, Serialize};

/// The weights, row by row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Softmax {
    weights: Vec<f64>,
    classes: usize,
    width: usize,
    rate: f64,
}

impl Softmax {
    /// All weights 0: every class is as probable.
    pub fn new(classes: usize, width: usize, rate: f64) -> Softmax {
        Softmax {
            weights: vec![0.0; classes * (width + 1)],
            classes,
            width,
            rate,
        }
    }

    /// W (x, 1) \[K\].
    pub fn scores(&self, x: &[f64]) -> Vec<f64> {
        self.weights
            .chunks_exact(self.width + 1)
            .map(|w| dot(w, x) + w[self.width])
            .collect()
    }

    /// Probability of each class.
    pub fn probabilities(&self, x: &[f64]) -> Vec<f64> {
        shares(self.scores(x))
    }

    /// Steps towards label `y`.
    pub fn learn(&mut self, x: &[f64], y: usize, weight: f64) {
        let mut left = weight;
        while left > 0.0 {
            let error: Vec<f64> = self
                .probabilities(x)
                .iter()
                .enumerate()
                .map(|(k, p)| f64::from(u8::from(k == y)) - p)
                .collect();
            let step = self.rate * left.min(1.0) / (1.0 + dot(x, x));
            self.shift(x, &error, step);
            left -= 1.0;
        }
    }

    /// Adds `step` x `by`\[k\] x (x, 1) to each W_k.
    pub fn shift(&mut self, x: &[f64], by: &[f64], step: f64) {
        for (w, by) in self.weights.chunks_exact_mut(self.width + 1).zip(by) {
            let step = step * by;
            for (w, v) in w.iter_mut().zip(x) {
                *w += step * v;
            }
            w[self.width] += step;
        }
    }

    /// Halves all weights.
    pub fn halve(&mut self) {
        self.weights.iter_mut().for_each(|w| *w *= 0.5);
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_step_by_hand() {
        let mut model = Softmax::new(2, 1, 2.0);
        model.learn(&[3.0], 0, 1.0);
        // p = 1/2 each; step 2 / (1 + 9) = 0.2; W_0 = 0.2 * 0.5 * (3, 1), W_1 its negative.
        let scores = model.scores(&[1.0]);
        assert!((scores[0] - 0.4).abs() < 1e-12 && (scores[1] + 0.4).abs() < 1e-12);
        let p = model.probabilities(&[1.0]);
        assert!((p[0] - 1.0 / (1.0 + (-0.8f64).exp())).abs() < 1e-12);
    }

    #[test]
    fn two_equal_rows_are_a_row_of_weight_two() {
        let mut twice = Softmax::new(3, 2, 0.5);
        let mut heavy = twice.clone();
        for _ in 0..2 {
            twice.learn(&[1.0, -2.0], 2, 1.0);
        }
        heavy.learn(&[1.0, -2.0], 2, 2.0);
        assert_eq!(twice, heavy);
    }
}
