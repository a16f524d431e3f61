//! From the vector of a graph to its two logits.

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

/// Batch normalisation, dropout and a weighted sum for each class.
#[derive(Module, Debug)]
pub struct Head {
    norm: BatchNorm,
    dropout: Dropout,
    last: Linear,
}

impl Head {
    /// For vectors of `width` numbers, at least one.
    pub fn new(width: usize, dropout: f64, device: &Device) -> Self {
        Head {
            norm: BatchNormConfig::new(width).init(device),
            dropout: DropoutConfig::new(dropout).init(),
            last: LinearConfig::new(width, 2).init(device),
        }
    }

    /// [graphs, width] to [graphs, 2].
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.last
            .forward(self.dropout.forward(self.norm.forward(x)))
    }
}
