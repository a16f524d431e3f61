//! Layers that the slots share, drawn as Keras draws them.

use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use papertrial_nn::ops;

/// A dense layer, weights evenly from Glorot's range, offsets 0.
pub(super) fn linear(from: usize, to: usize, bias: bool, device: &Device) -> Linear {
    let mut layer = LinearConfig::new(from, to)
        .with_bias(false)
        .with_initializer(Initializer::XavierUniform { gain: 1.0 })
        .init(device);
    if bias {
        layer.bias = Some(Initializer::Zeros.init([to], device));
    }
    layer
}

/// Added to the variance.
pub(super) const EPSILON: f64 = 1e-6;

/// Layer normalisation with gain and offset.
#[derive(Module, Debug)]
pub(super) struct Norm {
    pub(super) gain: Param<Tensor<1>>,
    pub(super) offset: Param<Tensor<1>>,
}

impl Norm {
    pub(super) fn new(d: usize, device: &Device) -> Self {
        Norm {
            gain: Initializer::Ones.init([d], device),
            offset: Initializer::Zeros.init([d], device),
        }
    }

    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        ops::layer_norm(x, self.gain.val(), Some(self.offset.val()), EPSILON)
    }
}
