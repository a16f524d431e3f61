//! Layer normalisation with its gain and offset.

use crate::ops;
use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};

/// Scales the numbers at each position to mean 0 and deviation 1, then by a learned gain and offset.
#[derive(Module, Debug)]
pub struct LayerNorm {
    gain: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    epsilon: f64,
}

impl LayerNorm {
    /// For `d` numbers at each position.
    pub fn new(d: usize, device: &Device) -> Self {
        LayerNorm {
            gain: Initializer::Ones.init([d], device),
            bias: Initializer::Zeros.init([d], device),
            epsilon: 1e-5,
        }
    }

    /// With `epsilon` added to a variance before its root, in place of 1e-5.
    pub fn with_epsilon(mut self, epsilon: f64) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// [.., d] to [.., d].
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::layer_norm(x, self.gain.val(), Some(self.bias.val()), self.epsilon)
    }
}
