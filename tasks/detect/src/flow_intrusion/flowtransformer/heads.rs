//! Third slot: what of the transformer's output, [windows, w, D], is classified.

use super::parts::linear;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::{Device, Tensor, TensorData, activation::relu};
use papertrial_nn::blocks::through;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Head {
    /// The last position: D numbers.
    LastToken,
    /// All positions one after another: w x D numbers.
    Flatten,
    /// The mean of the positions: D numbers.
    GlobalAveragePooling,
    /// A position of zeros is added before the transformer, and a channel that is 1 there alone; that position: D + 1.
    ClsToken,
    /// One number of each position by a dense layer shared by all: w numbers.
    FeaturewiseEmbedding,
    /// The same without an offset.
    FeaturewiseProjection,
}

impl Head {
    /// Positions and width of what the transformer reads, for a window of `w` flows `d` wide.
    pub fn before(self, w: usize, d: usize) -> (usize, usize) {
        match self {
            Head::ClsToken => (w + 1, d + 1),
            _ => (w, d),
        }
    }

    /// Width of what is classified.
    pub fn width(self, w: usize, d: usize) -> usize {
        let (positions, d) = self.before(w, d);
        match self {
            Head::Flatten => positions * d,
            Head::FeaturewiseEmbedding | Head::FeaturewiseProjection => positions,
            _ => d,
        }
    }

    /// Whether it reads the last position alone.
    pub fn last_only(self) -> bool {
        matches!(self, Head::LastToken | Head::ClsToken)
    }

    /// Weights of the head and the classifier behind it, `hidden` wide.
    pub fn parameters(self, w: usize, d: usize, hidden: usize) -> usize {
        let own = match self {
            Head::FeaturewiseEmbedding => d + 1,
            Head::FeaturewiseProjection => d,
            _ => 0,
        };
        own + self.width(w, d) * hidden + hidden + hidden + 1
    }
}

/// The weights of a head and of the classifier behind it: a dense layer with relu and dropout, then one number.
#[derive(Module, Debug)]
pub(super) struct Classify {
    pub(super) shared: Option<Linear>,
    pub(super) hidden: Linear,
    pub(super) out: Linear,
    dropout: Dropout,
}

impl Classify {
    /// `w` positions of `d` numbers before [`Head::before`].
    pub(super) fn new(
        head: Head,
        w: usize,
        d: usize,
        hidden: usize,
        dropout: f64,
        device: &Device,
    ) -> Self {
        let shared = match head {
            Head::FeaturewiseEmbedding => Some(linear(d, 1, true, device)),
            Head::FeaturewiseProjection => Some(linear(d, 1, false, device)),
            _ => None,
        };
        Classify {
            shared,
            hidden: linear(head.width(w, d), hidden, true, device),
            out: linear(hidden, 1, true, device),
            dropout: DropoutConfig::new(dropout).init(),
        }
    }

    /// [b, l, d] (l = 1 for a head of the last position alone) to logits [b].
    pub(super) fn forward(&self, head: Head, x: Tensor<3>) -> Tensor<1> {
        let [b, l, d] = x.dims();
        let pooled: Tensor<2> = match (head, &self.shared) {
            (Head::GlobalAveragePooling, _) => x.mean_dim(1).reshape([b, d]),
            (_, Some(shared)) => through(shared, x).reshape([b, l]),
            (Head::LastToken | Head::ClsToken, _) => x.narrow(1, l - 1, 1).reshape([b, d]),
            _ => x.reshape([b, l * d]),
        };
        let hidden = self.dropout.forward(relu(through(&self.hidden, pooled)));
        through(&self.out, hidden).reshape([b])
    }
}

/// What a head adds before the transformer.
pub(super) fn before(head: Head, x: Tensor<3>) -> Tensor<3> {
    if head != Head::ClsToken {
        return x;
    }
    let [b, l, d] = x.dims();
    let device = x.device();
    let x = Tensor::cat(vec![x, Tensor::zeros([b, 1, d], &device)], 1);
    let flags: Vec<f32> = (0..b * (l + 1))
        .map(|i| if i % (l + 1) == l { 1.0 } else { 0.0 })
        .collect();
    let flags = Tensor::from_data(TensorData::new(flags, [b, l + 1, 1]), &device);
    Tensor::cat(vec![x, flags], 2)
}
