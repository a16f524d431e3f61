//! Activations by name.

use crate::ops;
use burn::tensor::{Tensor, activation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A function of each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// max(x, 0).
    #[default]
    Relu,
    /// x times the normal distribution's share below x, in its exact form.
    Gelu,
    /// Hyperbolic tangent.
    Tanh,
    /// x times its logistic function.
    Silu,
}

impl Activation {
    /// Of each number of `x`.
    pub fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Activation::Relu => activation::relu(x),
            Activation::Gelu => ops::gelu(x),
            Activation::Tanh => ops::tanh(x),
            Activation::Silu => ops::silu(x),
        }
    }
}
