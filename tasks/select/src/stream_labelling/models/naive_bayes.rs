//! Gaussian naive Bayes that forgets.
//!
//! For each class its weight n_c, and for each column mean and sum of squared deviations. With each label all weights
//! and sums shrink by the factor f (0.995), then the row is added to its class. Variances are drawn towards 1 as by one
//! more row, (S + 1) / (n + 1), so that a class with few labels, or a constant column, has a spread: columns are scaled to
//! about unit variance. Priors have one more row for each class. O(K d) for a prediction and for a label.

use super::shares;
use serde::{Deserialize, Serialize};

/// Sums of all classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NaiveBayes {
    classes: Vec<Sums>,
    forgetting: f64,
}

/// Weighted mean and squared deviations of the columns of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Weight of the rows.
    pub n: f64,
    /// Mean of each column.
    pub mean: Vec<f64>,
    /// Sum of squared deviations of each column.
    pub squares: Vec<f64>,
}

impl Sums {
    /// Of no rows.
    pub fn new(width: usize) -> Sums {
        Sums {
            n: 0.0,
            mean: vec![0.0; width],
            squares: vec![0.0; width],
        }
    }

    /// Adds a row.
    pub fn add(&mut self, x: &[f64], weight: f64) {
        self.n += weight;
        let share = weight / self.n;
        for ((mean, squares), x) in self.mean.iter_mut().zip(&mut self.squares).zip(x) {
            let difference = x - *mean;
            *mean += share * difference;
            *squares += weight * difference * (x - *mean);
        }
    }

    /// Multiplies all weights.
    pub fn scale(&mut self, factor: f64) {
        self.n *= factor;
        self.squares.iter_mut().for_each(|s| *s *= factor);
    }

    /// Variance of a column, drawn towards 1.
    pub fn variance(&self, column: usize) -> f64 {
        (self.squares[column] + 1.0) / (self.n + 1.0)
    }

    /// Logarithm of prior times density, up to a constant.
    fn evidence(&self, x: &[f64]) -> f64 {
        let mut sum = (self.n + 1.0).ln();
        for (column, x) in x.iter().enumerate() {
            let variance = self.variance(column);
            let difference = x - self.mean[column];
            sum -= 0.5 * (variance.ln() + difference * difference / variance);
        }
        sum
    }
}

/// Probability of each class; classes that no row was seen of count as one row of mean 0.
pub fn probabilities(classes: &[Sums], x: &[f64]) -> Vec<f64> {
    shares(classes.iter().map(|c| c.evidence(x)).collect())
}

impl NaiveBayes {
    /// Has seen nothing.
    pub fn new(classes: usize, width: usize, forgetting: f64) -> NaiveBayes {
        NaiveBayes {
            classes: vec![Sums::new(width); classes],
            forgetting,
        }
    }

    /// Probability of each class.
    pub fn probabilities(&self, x: &[f64]) -> Vec<f64> {
        probabilities(&self.classes, x)
    }

    /// Forgets a little of everything and adds the row.
    pub fn learn(&mut self, x: &[f64], y: usize, weight: f64) {
        if weight <= 0.0 {
            return;
        }
        for class in &mut self.classes {
            class.scale(self.forgetting);
        }
        if let Some(class) = self.classes.get_mut(y) {
            class.add(x, weight);
        }
    }

    /// Halves all weights.
    pub fn halve(&mut self) {
        self.classes.iter_mut().for_each(|c| c.scale(0.5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_probabilities_by_hand() {
        let mut sums = Sums::new(1);
        for x in [1.0, 2.0, 6.0] {
            sums.add(&[x], 1.0);
        }
        assert!((sums.mean[0] - 3.0).abs() < 1e-12);
        assert!((sums.squares[0] - 14.0).abs() < 1e-12);
        assert!((sums.variance(0) - 15.0 / 4.0).abs() < 1e-12);

        let mut model = NaiveBayes::new(2, 1, 1.0);
        model.learn(&[1.0], 0, 1.0);
        // Class 0: prior 2, mean 1, variance 1/2; class 1: prior 1, mean 0, variance 1; at x = 0.
        let odds = 2.0 * 2f64.sqrt() * (-1.0f64).exp();
        assert!((model.probabilities(&[0.0])[0] - odds / (1.0 + odds)).abs() < 1e-12);
    }

    #[test]
    fn what_was_forgotten_counts_less() {
        let mut model = NaiveBayes::new(2, 1, 0.5);
        model.learn(&[0.0], 0, 1.0);
        model.learn(&[4.0], 0, 1.0);
        // Weights 0.5 and 1: the mean is 4 / 1.5.
        assert!((model.classes[0].mean[0] - 4.0 / 1.5).abs() < 1e-12);
        assert!((model.classes[0].n - 1.5).abs() < 1e-12);
    }
}
