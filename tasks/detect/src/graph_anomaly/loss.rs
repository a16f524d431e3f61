//! Losses of two logits per graph.
//!
//! The class-balanced focal loss joins the effective number of samples (Cui and others, *Class-Balanced Loss Based on
//! Effective Number of Samples*, 1901.05555) with the focal loss (Lin and others, 1708.02002). With the one-hot target t
//! and the logit o of a class, z = o where t = 0 and z = -o where t = 1:
//!
//! 1. w_c = (1 - beta) / (1 - beta^n_c) for n_c training graphs of class c, scaled so that both sum to 2; a class
//!    without graphs has weight 0.
//! 2. Cross-entropy of one logit: softplus(z).
//! 3. Focus: sigmoid(z)^gamma = exp(-gamma softplus(-z)): little is left of what is right already.
//! 4. Loss of a graph: w of its class times the sum over both logits of focus times cross-entropy.
//!
//! softplus is taken as -log(sigmoid(-z)), which neither overflows nor loses small values.

use burn::tensor::{Int, Tensor, TensorData, activation};
use papertrial_nn::{classes_of, cross_entropy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which loss a network learns by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Class-balanced focal loss.
    #[default]
    BalancedFocal,
    /// Cross-entropy of the softmax, every graph counting the same.
    CrossEntropy,
}

/// A loss with its parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    kind: LossKind,
    weights: [f32; 2],
    gamma: f64,
}

/// Step 1: weights of a class of `counts[0]` and one of `counts[1]` graphs.
pub fn class_weights(beta: f64, counts: [usize; 2]) -> [f64; 2] {
    let weights = counts.map(|n| {
        // beta^n of a large n is 0, which is right.
        let effective = 1.0 - beta.powf(n as f64);
        if n > 0 && effective > 0.0 {
            (1.0 - beta) / effective
        } else {
            0.0
        }
    });
    let sum = weights[0] + weights[1];
    if sum > 0.0 {
        weights.map(|w| 2.0 * w / sum)
    } else {
        // beta = 1: every graph counts as much as its class is rare, in the limit.
        let inverse = counts.map(|n| if n > 0 { 1.0 / n as f64 } else { 0.0 });
        let sum = (inverse[0] + inverse[1]).max(f64::MIN_POSITIVE);
        inverse.map(|w| 2.0 * w / sum)
    }
}

impl Loss {
    /// For training graphs of the classes' `counts`.
    pub fn new(kind: LossKind, beta: f64, gamma: f64, counts: [usize; 2]) -> Self {
        Loss {
            kind,
            weights: class_weights(beta, counts).map(|w| w as f32),
            gamma,
        }
    }

    /// Loss of each graph, [b], from its logits, [b, 2], and whether it is anomalous.
    pub fn of(&self, logits: Tensor<2>, anomalous: &[bool]) -> Tensor<1> {
        let device = logits.device();
        if self.kind == LossKind::CrossEntropy {
            let classes: Tensor<1, Int> =
                classes_of(anomalous.iter().map(|a| usize::from(*a)), &device);
            return cross_entropy(logits, classes);
        }
        let b = anomalous.len();
        let signs: Vec<f32> = anomalous
            .iter()
            .flat_map(|a| if *a { [1.0, -1.0] } else { [-1.0, 1.0] })
            .collect();
        let weights: Vec<f32> = anomalous
            .iter()
            .map(|a| self.weights[usize::from(*a)])
            .collect();
        let z = logits * Tensor::from_data(TensorData::new(signs, [b, 2]), &device);
        let focus = (activation::log_sigmoid(z.clone()) * self.gamma).exp();
        let entropy = -activation::log_sigmoid(-z);
        let weights = Tensor::<1>::from_data(TensorData::new(weights, [b]), &device);
        (focus * entropy).sum_dim(1).squeeze_dim::<1>(1) * weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use papertrial_nn::values_of;

    fn logits(values: &[f32], device: &Device) -> Tensor<2> {
        Tensor::from_data(
            TensorData::new(values.to_vec(), [values.len() / 2, 2]),
            device,
        )
    }

    #[test]
    fn weights_by_hand() {
        // 1 - .5^1 = .5 and 1 - .5^2 = .75: .5 / .5 = 1 and .5 / .75 = 2/3, scaled by 2 / (5/3).
        let w = class_weights(0.5, [2, 1]);
        assert!(
            (w[1] - 1.2).abs() < 1e-12 && (w[0] - 0.8).abs() < 1e-12,
            "{w:?}"
        );
        assert_eq!(class_weights(0.999, [10, 0]), [2.0, 0.0]);
        assert_eq!(class_weights(0.0, [9, 1]), [1.0, 1.0]);
        let many = class_weights(0.999, [10_000_000, 10_000_000]);
        assert_eq!(many, [1.0, 1.0]);
        let rare = class_weights(1.0, [9, 1]);
        assert!((rare[1] - 1.8).abs() < 1e-12);
    }

    #[test]
    fn the_focal_loss_by_the_formula_as_it_is_published() {
        let device = Device::flex();
        let gamma = 1.5f64;
        let values = [0.3f32, -1.2, 2.0, 0.7, -0.4, 0.9];
        let anomalous = [false, true, true];
        let loss = Loss::new(LossKind::BalancedFocal, 0.9, gamma, [5, 2]);
        let got = values_of(loss.of(logits(&values, &device), &anomalous)).unwrap();
        let weights = class_weights(0.9, [5, 2]);
        for (g, row) in values.chunks(2).enumerate() {
            let mut want = 0.0;
            for (class, o) in row.iter().enumerate() {
                let (o, t) = (f64::from(*o), f64::from(usize::from(anomalous[g]) == class));
                let entropy = (1.0 - t) * o + (1.0 + (-o).exp()).ln();
                let focus = (-gamma * t * o - gamma * (1.0 + (-o).exp()).ln()).exp();
                want += weights[usize::from(anomalous[g])] * focus * entropy;
            }
            assert!((f64::from(got[g]) - want).abs() < 1e-6, "{} {want}", got[g]);
        }
    }

    #[test]
    fn gradients_agree_with_differences_and_extreme_logits_stay_finite() {
        let device = Device::flex().autodiff();
        let loss = Loss::new(LossKind::BalancedFocal, 0.999, 1.5, [90, 10]);
        let values = [0.0f32, 0.0, 1.5, -0.5, -2.0, 3.0];
        let anomalous = [true, false, true];
        let x = logits(&values, &device).require_grad();
        let gradients = loss.of(x.clone(), &anomalous).sum().backward();
        let got = values_of(x.grad(&gradients).unwrap()).unwrap();
        let total = |values: &[f32]| -> f32 {
            let x = logits(values, &Device::flex());
            values_of(loss.of(x, &anomalous)).unwrap().iter().sum()
        };
        for i in 0..values.len() {
            let step = 1e-2;
            let (mut up, mut down) = (values, values);
            up[i] += step;
            down[i] -= step;
            let want = (total(&up) - total(&down)) / (2.0 * step);
            assert!((got[i] - want).abs() < 2e-3, "{i}: {} {want}", got[i]);
        }
        let x = logits(&[1e4, -1e4, -1e4, 1e4], &device).require_grad();
        let y = loss.of(x.clone(), &[true, false]);
        let gradients = y.clone().sum().backward();
        assert!(
            values_of(y)
                .unwrap()
                .iter()
                .all(|v| v.is_finite() && *v > 0.0)
        );
        let slopes = values_of(x.grad(&gradients).unwrap()).unwrap();
        assert!(
            slopes.iter().all(|v| v.is_finite() && *v != 0.0),
            "{slopes:?}"
        );
    }

    #[test]
    fn cross_entropy_is_that_of_the_softmax() {
        let loss = Loss::new(LossKind::CrossEntropy, 0.999, 1.5, [90, 10]);
        let x = logits(&[0.0, 0.0], &Device::flex());
        let got = values_of(loss.of(x, &[true])).unwrap();
        assert!((got[0] - 2f32.ln()).abs() < 1e-6);
    }
}
