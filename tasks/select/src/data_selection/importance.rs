//! Importance sampling: every round draws rows by their loss, or by the length of their gradient.
//!
//! Baseline. Katharopoulos and Fleuret, *Not All Samples Are Created Equal: Deep Learning with Importance Sampling*, ICML
//! 2018, arXiv 1803.00942.
//!
//! 1. At the start of every `every` rounds score all n rows by the model being trained: s_i the loss, or the length of
//!    the last layer's gradient, which bounds that of the whole network.
//! 2. p_i = (1 - u) s_i / sum s + u / n, u the uniform share, which keeps weights below 1 / u.
//! 3. Draw the k rows of each round by p, with replacement; the weight of a row in the loss is 1 / (n p_i), so that the
//!    expected gradient is that of all rows.
//!
//! Cost: a look at all rows for each scoring, O(n + k log n) a round.

use super::contrast::log_probabilities;
use super::error_norms::gradient_lengths;
use super::pool::{Choice, Pool, Selector, Subset, View};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of importance sampling.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ImportanceSampling {
    /// What makes a row important.
    pub by: Importance,
    /// Share of the probability that all rows have alike.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub uniform_share: f64,
    /// Rounds after which rows are scored anew.
    #[schemars(range(min = 1))]
    pub every: usize,
}

/// What makes a row important.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Importance {
    /// Its loss.
    Loss,
    /// The length of the gradient of the last layer.
    Gradient,
}

impl Default for ImportanceSampling {
    fn default() -> Self {
        ImportanceSampling {
            by: Importance::Loss,
            uniform_share: 0.1,
            every: 1,
        }
    }
}

impl Method for ImportanceSampling {
    const FACTS: Facts = Facts {
        name: "importance-sampling",
        about: "rows drawn in every round by their loss or gradient, with weights that undo it on average",
        paper: None,
        streams: false,
    };
}

impl Selector for ImportanceSampling {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        let mut shares = Vec::new();
        Ok(Choice::Followed(Box::new(move |round, look| {
            if round.is_multiple_of(self.every) {
                let scores = self.scores(&look()?, pool.labels);
                shares = mixed(&scores, self.uniform_share);
            }
            let mut rng = sampling::rng(pool.context.seed, &format!("rows of round {round}"));
            let rows = sampling::weighted_with_replacement(&mut rng, &shares, pool.choose)
                .map_err(|e| Error::Failed(format!("the losses of round {round}: {e}")))?;
            let n = pool.len() as f64;
            let weights = rows.iter().map(|r| (1.0 / (n * shares[*r])) as f32);
            Ok(Subset {
                weights: Some(weights.collect()),
                rows,
            })
        })))
    }
}

impl ImportanceSampling {
    /// Step 1.
    fn scores(&self, view: &View, labels: &[usize]) -> Vec<f64> {
        match self.by {
            Importance::Gradient => gradient_lengths(view, labels),
            Importance::Loss => log_probabilities(view)
                .iter()
                .zip(labels)
                .map(|(logs, label)| -logs[*label])
                .collect(),
        }
    }
}

/// Step 2; equal shares where all scores are 0.
fn mixed(scores: &[f64], uniform: f64) -> Vec<f64> {
    let sum: f64 = scores.iter().sum();
    let even = 1.0 / scores.len() as f64;
    let of = |s: &f64| match sum > 0.0 {
        true => (1.0 - uniform) * s / sum + uniform * even,
        false => even,
    };
    scores.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::super::pool::testing::Asked;
    use super::*;
    use ndarray::{Array2, array};

    #[test]
    fn shares_by_hand() {
        assert_eq!(mixed(&[3.0, 1.0], 0.5), [0.625, 0.375]);
        assert_eq!(mixed(&[0.0, 0.0], 0.0), [0.5, 0.5]);
    }

    #[test]
    fn losses_by_hand() {
        let asked = Asked::new(array![[2.0f32]], vec![1], array![[0.0, 3f32.ln()]], 1);
        let score = |by| {
            let options = ImportanceSampling {
                by,
                ..ImportanceSampling::default()
            };
            options.scores(&asked.view, &[1])[0]
        };
        assert!((score(Importance::Loss) - (4.0f64 / 3.0).ln()).abs() < 1e-6);
        // Error (1/4, -1/4), feature 2.
        assert!((score(Importance::Gradient) - (0.125f64 * 5.0).sqrt()).abs() < 1e-6);
    }

    #[test]
    fn frequencies_and_weights_fit_each_other() {
        // Row 0 has nearly all the loss.
        let n = 20;
        let logits = Array2::from_shape_fn(
            (n, 2),
            |(i, j)| {
                if (i == 0) == (j == 1) { 6.0 } else { 0.0 }
            },
        );
        let asked = Asked::new(Array2::zeros((n, 1)), vec![0; n], logits, 10);
        let options = ImportanceSampling {
            uniform_share: 0.5,
            ..ImportanceSampling::default()
        };
        let found = asked.rounds(&options, 200).unwrap();
        let drawn = found
            .iter()
            .flat_map(|s| &s.rows)
            .filter(|r| **r == 0)
            .count();
        // Share just below .5 + .025.
        assert!((drawn as f64 / 2000.0 - 0.52).abs() < 0.04, "{drawn}");
        let weights = found
            .iter()
            .flat_map(|s| s.weights.clone().unwrap_or_default());
        let mean = weights.map(f64::from).sum::<f64>() / 2000.0;
        assert!((mean - 1.0).abs() < 0.06, "{mean}");
    }
}
