//! What is set before a training: epochs, batch, optimiser, learning rate and its schedule.

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, AdamWConfig, ModuleOptimizer, SgdConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// How a model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Passes.
    pub epochs: usize,
    /// Rows of a step; the last step of a pass may have fewer.
    pub batch: usize,
    /// Learning rate at its highest.
    pub learning_rate: f64,
    /// Optimiser.
    pub optimiser: Optimiser,
    /// How the learning rate changes with the steps.
    pub schedule: Schedule,
    /// Longest gradient, over all weights together; longer ones are shortened to it.
    pub clip: Option<f64>,
    /// Passes without a better score after which training ends, with the model of the best score.
    pub patience: Option<usize>,
    /// Seed of the order of rows and of dropout.
    pub seed: u64,
}

impl Default for Training {
    fn default() -> Self {
        Training {
            epochs: 10,
            batch: 32,
            learning_rate: 1e-3,
            optimiser: Optimiser::Adam { weight_decay: 0.0 },
            schedule: Schedule::Constant,
            clip: None,
            patience: None,
            seed: 0,
        }
    }
}

/// Optimisers, with the formulas and defaults of PyTorch: Adam's moments .9 and .999, epsilon 1e-8.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Optimiser {
    /// Stochastic gradient descent.
    Sgd {
        /// Share of the last step that is kept; 0 for none.
        momentum: f64,
        /// Nesterov's form of momentum.
        nesterov: bool,
        /// Pull of the weights to 0, added to the gradient.
        weight_decay: f64,
    },
    /// Adam, the pull of the weights added to the gradient.
    Adam {
        /// Pull of the weights to 0.
        weight_decay: f64,
    },
    /// Adam with the pull of the weights apart from the gradient (Loshchilov and Hutter, 1711.05101).
    AdamW {
        /// Pull of the weights to 0, times the learning rate.
        weight_decay: f64,
    },
}

impl Optimiser {
    pub(super) fn init(self) -> ModuleOptimizer {
        let decay = |rate: f64| (rate != 0.0).then(|| WeightDecayConfig::new(rate as f32));
        match self {
            Optimiser::Sgd {
                momentum,
                nesterov,
                weight_decay,
            } => SgdConfig::new()
                .with_weight_decay(decay(weight_decay))
                .with_momentum((momentum != 0.0).then_some(MomentumConfig {
                    momentum,
                    dampening: 0.0,
                    nesterov,
                }))
                .init(),
            Optimiser::Adam { weight_decay } => AdamConfig::new()
                .with_epsilon(1e-8)
                .with_weight_decay(decay(weight_decay))
                .init(),
            Optimiser::AdamW { weight_decay } => AdamWConfig::new()
                .with_epsilon(1e-8)
                .with_weight_decay(weight_decay as f32)
                .init(),
        }
    }
}

/// How the learning rate changes, over the true number of steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Not at all.
    Constant,
    /// Down along half a cosine.
    Cosine {
        /// The learning rate that it goes down to.
        floor: f64,
    },
    /// Up in a line from 0, then down in a line to 0.
    Linear {
        /// Share of the steps that go up.
        warmup: f64,
    },
}

impl Schedule {
    /// Learning rate of step `step`, from 0, of `steps`.
    pub fn rate(self, highest: f64, step: usize, steps: usize) -> f64 {
        let share = step as f64 / steps.max(1) as f64;
        match self {
            Schedule::Constant => highest,
            Schedule::Cosine { floor } => {
                floor + (highest - floor) * 0.5 * (1.0 + (PI * share.min(1.0)).cos())
            }
            Schedule::Linear { warmup } => {
                // The first step of the way up is not 0: it would be wasted.
                let up = (warmup * steps as f64).ceil();
                if (step as f64) < up {
                    highest * (step as f64 + 1.0) / up
                } else {
                    let down = (steps as f64 - up).max(1.0);
                    highest * (1.0 - (step as f64 - up) / down).max(0.0)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_at_their_ends_and_in_the_middle() {
        let cosine = Schedule::Cosine { floor: 0.1 };
        assert_eq!(cosine.rate(1.0, 0, 10), 1.0);
        assert!((cosine.rate(1.0, 5, 10) - 0.55).abs() < 1e-12);
        assert!((cosine.rate(1.0, 10, 10) - 0.1).abs() < 1e-12);
        let linear = Schedule::Linear { warmup: 0.2 };
        let rates: Vec<f64> = (0..10).map(|s| linear.rate(1.0, s, 10)).collect();
        assert_eq!(rates[..3], [0.5, 1.0, 1.0]);
        assert!((rates[6] - 0.5).abs() < 1e-12 && rates[9] > 0.0);
        assert_eq!(Schedule::Constant.rate(0.3, 7, 9), 0.3);
        assert_eq!(Schedule::Linear { warmup: 0.0 }.rate(1.0, 0, 0), 1.0);
    }
}
