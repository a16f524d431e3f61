//! Online bagging (Oza and Russell 2001): M models, each of which learns a row Poisson(1) times.
//!
//! Probabilities are the mean of the members'. M times the cost of a member.

use super::{Model, ModelPlan, Prediction, Truth};
use crate::stream_labelling::draws::Draws;
use serde::{Deserialize, Serialize};

/// The members and the draws of how often each sees a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bagging {
    members: Vec<Model>,
    draws: Draws,
}

impl Bagging {
    /// `size` models made by `plan`, which must not be a bag itself.
    pub fn new(plan: &ModelPlan, size: usize) -> Bagging {
        Bagging {
            members: (0..size.max(1)).map(|_| Model::new(plan)).collect(),
            draws: Draws::new(plan.seed, "stream-labelling bagging"),
        }
    }

    /// The probabilities of each member.
    pub fn votes(&self, x: &[f64]) -> Vec<Vec<f64>> {
        let each = self.members.iter().map(|m| m.predict(x).probabilities);
        each.collect()
    }

    /// The mean of the members.
    pub fn predict(&self, x: &[f64]) -> Prediction {
        Prediction::of_classes(mean(&self.votes(x)))
    }

    /// Each member learns the row a random number of times.
    pub fn learn(&mut self, x: &[f64], truth: Truth, weight: f64) {
        for member in &mut self.members {
            let times = self.draws.poisson();
            if times > 0.0 {
                member.learn(x, truth, weight * times);
            }
        }
    }

    /// Halves what each member has learned.
    pub fn halve(&mut self) {
        self.members.iter_mut().for_each(Model::halve);
    }
}

/// Mean of probability vectors of one length.
pub fn mean(votes: &[Vec<f64>]) -> Vec<f64> {
    let mut sum = vec![0.0; votes.first().map_or(0, Vec::len)];
    for vote in votes {
        for (sum, p) in sum.iter_mut().zip(vote) {
            *sum += p / votes.len() as f64;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_labelling::models::{ModelKind, tests::plan};

    #[test]
    fn members_differ_and_the_bag_is_their_mean() {
        let mut bag = Bagging::new(&plan(ModelKind::NaiveBayes, 2, 1), 10);
        for i in 0..40 {
            bag.learn(&[f64::from(i % 7)], Truth::Class(i as usize % 2), 1.0);
        }
        let votes = bag.votes(&[2.0]);
        assert_eq!(votes.len(), 10);
        assert!(votes.iter().any(|v| v != &votes[0]));
        let mean = votes.iter().map(|v| v[1]).sum::<f64>() / 10.0;
        assert!((bag.predict(&[2.0]).probabilities[1] - mean).abs() < 1e-12);
    }
}
