//! Multi-layer perceptron.

use super::activation::Activation;
use super::through;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

/// Layers of weighted sums with an activation, and dropout, between them.
#[derive(Module, Debug)]
pub struct Mlp {
    layers: Vec<Linear>,
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    /// Layers from `widths[0]` to `widths[1]`, and so on; a single pair is a linear model.
    ///
    /// Weights and offsets are drawn evenly up to 1 over the square root of a layer's inputs, as PyTorch draws them.
    pub fn new(widths: &[usize], activation: Activation, dropout: f64, device: &Device) -> Self {
        Mlp {
            layers: widths
                .windows(2)
                .map(|w| LinearConfig::new(w[0], w[1]).init(device))
                .collect(),
            dropout: DropoutConfig::new(dropout).init(),
            activation,
        }
    }

    /// [.., first width] to [.., last width].
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let x = self.hidden(x);
        match self.layers.last() {
            Some(last) => through(last, x),
            None => x,
        }
    }

    /// What the last layer gets: [.., first width] to [.., last width but one].
    pub fn hidden<const D: usize>(&self, mut x: Tensor<D>) -> Tensor<D> {
        for layer in self.layers.iter().take(self.layers.len().saturating_sub(1)) {
            x = self
                .dropout
                .forward(self.activation.apply(through(layer, x)));
        }
        x
    }

    /// The last layer.
    pub fn head(&self) -> Option<&Linear> {
        self.layers.last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{device, rows_of, seeded, values_of};

    #[test]
    fn two_layers_by_hand() {
        let device = device("cpu").unwrap();
        let mlp = seeded(&device, 1, |d| {
            Mlp::new(&[2, 3, 1], Activation::Relu, 0.5, d)
        })
        .valid();
        let x = [0.5f32, -1.5];
        let weights = |l: usize| {
            let layer = &mlp.layers[l];
            (
                values_of(layer.weight.val()).unwrap(),
                values_of(layer.bias.as_ref().unwrap().val()).unwrap(),
            )
        };
        let ((w, b), (v, c)) = (weights(0), weights(1));
        let hidden: Vec<f32> = (0..3)
            .map(|j| (x[0] * w[j] + x[1] * w[3 + j] + b[j]).max(0.0))
            .collect();
        let want: f32 = c[0] + hidden.iter().zip(&v).map(|(h, v)| h * v).sum::<f32>();
        let input = rows_of(&x, 2, &[0], &device);
        let got = values_of(mlp.forward(input.clone())).unwrap();
        assert!((got[0] - want).abs() < 1e-6, "{got:?} {want}");
        assert_eq!(mlp.hidden(input).dims(), [1, 3]);
    }
}
