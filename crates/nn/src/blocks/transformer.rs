//! Stacks of transformer layers (Vaswani et al., *Attention is all you need*, 1706.03762).
//!
//! A layer is attention, then an MLP at each position, each around a shortcut. `pre_norm` normalises what goes into
//! them (as GPT-2 does; the stack then ends with a normalisation); else what comes out is normalised, as in the paper.

use super::activation::Activation;
use super::attention::Attention;
use super::norm::LayerNorm;
use super::through;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Initializer, Linear, LinearConfig};
use burn::tensor::{Bool, Device, Tensor};

/// Sizes of a stack.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transformer {
    /// Numbers at each position.
    pub d: usize,
    /// Heads of attention, which share them evenly.
    pub heads: usize,
    /// Layers.
    pub layers: usize,
    /// Numbers inside the MLP.
    pub inner: usize,
    /// Activation of the MLP.
    pub activation: Activation,
    /// Share of numbers that are dropped while training.
    pub dropout: f64,
    /// Whether to normalise before attention and MLP rather than after.
    pub pre_norm: bool,
}

impl Transformer {
    /// A stack in which each position looks at all, or with a mask at some.
    pub fn encoder(&self, device: &Device) -> Encoder {
        Encoder {
            layers: (0..self.layers)
                .map(|_| EncoderLayer::new(self, device))
                .collect(),
            norm: self.pre_norm.then(|| LayerNorm::new(self.d, device)),
        }
    }

    /// A stack that looks at another sequence as well.
    pub fn decoder(&self, device: &Device) -> Decoder {
        Decoder {
            layers: (0..self.layers)
                .map(|_| DecoderLayer::new(self, device))
                .collect(),
            norm: self.pre_norm.then(|| LayerNorm::new(self.d, device)),
        }
    }
}

/// Attention of a sequence to itself, in layers; with a causal mask it is a decoder in the manner of GPT.
#[derive(Module, Debug)]
pub struct Encoder {
    layers: Vec<EncoderLayer>,
    norm: Option<LayerNorm>,
}

impl Encoder {
    /// With `epsilon` in every normalisation, in place of 1e-5.
    pub fn with_epsilon(mut self, epsilon: f64) -> Self {
        for layer in &mut self.layers {
            for shortcut in [&mut layer.around_attention, &mut layer.around_inner] {
                shortcut.norm = shortcut.norm.clone().with_epsilon(epsilon);
            }
        }
        self.norm = self.norm.map(|norm| norm.with_epsilon(epsilon));
        self
    }

    /// [b, l, d] to [b, l, d]; `hidden`, [b or 1, l or 1, l], is true where a position may not be looked at.
    pub fn forward(&self, mut x: Tensor<3>, hidden: Option<&Tensor<3, Bool>>) -> Tensor<3> {
        for layer in &self.layers {
            x = layer.forward(x, hidden);
        }
        match &self.norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }
}

/// Attention of a sequence to itself and to another one, in layers.
#[derive(Module, Debug)]
pub struct Decoder {
    layers: Vec<DecoderLayer>,
    norm: Option<LayerNorm>,
}

impl Decoder {
    /// `x` [b, l, d] looking at itself and at `at` [b, m, d], to [b, l, d]. `hidden`, [b or 1, l or 1, l], and
    /// `at_hidden`, [b or 1, l or 1, m], are true where a position may not be looked at.
    pub fn forward(
        &self,
        mut x: Tensor<3>,
        at: &Tensor<3>,
        hidden: Option<&Tensor<3, Bool>>,
        at_hidden: Option<&Tensor<3, Bool>>,
    ) -> Tensor<3> {
        for layer in &self.layers {
            x = layer.forward(x, at, hidden, at_hidden);
        }
        match &self.norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }
}

/// The shortcut around a part of a layer, with its normalisation.
#[derive(Module, Debug)]
struct Shortcut {
    norm: LayerNorm,
    dropout: Dropout,
    pre_norm: bool,
}

impl Shortcut {
    fn new(sizes: &Transformer, device: &Device) -> Self {
        Shortcut {
            norm: LayerNorm::new(sizes.d, device),
            dropout: DropoutConfig::new(sizes.dropout).init(),
            pre_norm: sizes.pre_norm,
        }
    }

    fn around(&self, x: Tensor<3>, part: impl FnOnce(Tensor<3>) -> Tensor<3>) -> Tensor<3> {
        if self.pre_norm {
            let normal = self.norm.forward(x.clone());
            x + self.dropout.forward(part(normal))
        } else {
            let out = self.dropout.forward(part(x.clone()));
            self.norm.forward(x + out)
        }
    }
}

/// The MLP at each position.
#[derive(Module, Debug)]
struct Inner {
    first: Linear,
    second: Linear,
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

impl Inner {
    fn new(sizes: &Transformer, device: &Device) -> Self {
        let linear = |from, to| {
            LinearConfig::new(from, to)
                .with_initializer(Initializer::XavierUniform { gain: 1.0 })
                .init(device)
        };
        Inner {
            first: linear(sizes.d, sizes.inner),
            second: linear(sizes.inner, sizes.d),
            dropout: DropoutConfig::new(sizes.dropout).init(),
            activation: sizes.activation,
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.activation.apply(through(&self.first, x));
        through(&self.second, self.dropout.forward(x))
    }
}

#[derive(Module, Debug)]
struct EncoderLayer {
    attention: Attention,
    around_attention: Shortcut,
    inner: Inner,
    around_inner: Shortcut,
}

impl EncoderLayer {
    fn new(sizes: &Transformer, device: &Device) -> Self {
        EncoderLayer {
            attention: Attention::new(sizes.d, sizes.heads, sizes.dropout, device),
            around_attention: Shortcut::new(sizes, device),
            inner: Inner::new(sizes, device),
            around_inner: Shortcut::new(sizes, device),
        }
    }

    fn forward(&self, x: Tensor<3>, hidden: Option<&Tensor<3, Bool>>) -> Tensor<3> {
        let x = self
            .around_attention
            .around(x, |x| self.attention.forward(x.clone(), x, hidden));
        self.around_inner.around(x, |x| self.inner.forward(x))
    }
}

#[derive(Module, Debug)]
struct DecoderLayer {
    attention: Attention,
    around_attention: Shortcut,
    cross: Attention,
    around_cross: Shortcut,
    inner: Inner,
    around_inner: Shortcut,
}

impl DecoderLayer {
    fn new(sizes: &Transformer, device: &Device) -> Self {
        DecoderLayer {
            attention: Attention::new(sizes.d, sizes.heads, sizes.dropout, device),
            around_attention: Shortcut::new(sizes, device),
            cross: Attention::new(sizes.d, sizes.heads, sizes.dropout, device),
            around_cross: Shortcut::new(sizes, device),
            inner: Inner::new(sizes, device),
            around_inner: Shortcut::new(sizes, device),
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        at: &Tensor<3>,
        hidden: Option<&Tensor<3, Bool>>,
        at_hidden: Option<&Tensor<3, Bool>>,
    ) -> Tensor<3> {
        let x = self
            .around_attention
            .around(x, |x| self.attention.forward(x.clone(), x, hidden));
        let x = self
            .around_cross
            .around(x, |x| self.cross.forward(x, at.clone(), at_hidden));
        self.around_inner.around(x, |x| self.inner.forward(x))
    }
}

#[cfg(test)]
mod tests {
    use super::super::attention::causal_mask;
    use super::*;
    use crate::{device, seeded, values_of};
    use burn::tensor::Distribution;

    fn sizes(pre_norm: bool) -> Transformer {
        Transformer {
            d: 8,
            heads: 2,
            layers: 2,
            inner: 16,
            activation: Activation::Gelu,
            dropout: 0.0,
            pre_norm,
        }
    }

    fn random(shape: [usize; 3], seed: u64, device: &Device) -> Tensor<3> {
        let _held = crate::hold(device, seed);
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
    }

    /// Post-norm output is normalised; pre-norm output is normalised by the last layer's: mean 0, mean square 1.
    #[test]
    fn what_comes_out_is_normalised_either_way() {
        let device = device("cpu").unwrap();
        for pre_norm in [false, true] {
            let model = seeded(&device, 1, |d| sizes(pre_norm).encoder(d)).valid();
            let out = values_of(model.forward(random([2, 3, 8], 4, &device), None)).unwrap();
            for row in out.chunks(8) {
                let mean: f32 = row.iter().sum::<f32>() / 8.0;
                let square: f32 = row.iter().map(|v| v * v).sum::<f32>() / 8.0;
                assert!(mean.abs() < 1e-5 && (square - 1.0).abs() < 1e-3, "{row:?}");
            }
        }
    }

    #[test]
    fn a_causal_stack_does_not_see_what_comes_later() {
        let device = device("cpu").unwrap();
        let encoder = seeded(&device, 1, |d| sizes(true).encoder(d)).valid();
        let decoder = seeded(&device, 2, |d| sizes(false).decoder(d)).valid();
        let at = random([1, 4, 8], 6, &device);
        let x = random([1, 5, 8], 4, &device);
        let changed = Tensor::cat(
            vec![x.clone().narrow(1, 0, 3), random([1, 2, 8], 5, &device)],
            1,
        );
        let causal = causal_mask(5, &device);
        let first = |t: Tensor<3>| values_of(t.narrow(1, 0, 3)).unwrap();
        assert_eq!(
            first(encoder.forward(x.clone(), Some(&causal))),
            first(encoder.forward(changed.clone(), Some(&causal)))
        );
        let seen = first(decoder.forward(x.clone(), &at, Some(&causal), None));
        assert_eq!(
            seen,
            first(decoder.forward(changed, &at, Some(&causal), None))
        );
        // It does see the other sequence.
        let elsewhere = random([1, 4, 8], 7, &device);
        assert_ne!(
            seen,
            first(decoder.forward(x, &elsewhere, Some(&causal), None))
        );
    }

    /// Gradients of a whole stack against differences of its output.
    #[test]
    fn gradients_agree_with_differences() {
        let plain = device("cpu").unwrap();
        let device = plain.clone().autodiff();
        for pre_norm in [false, true] {
            let model = seeded(&plain, 1, |d| sizes(pre_norm).encoder(d));
            let weigh = random([1, 3, 8], 8, &plain);
            let start = random([1, 3, 8], 4, &plain);
            let x = Tensor::<3>::from_data(start.to_data(), &device).require_grad();
            let out = model.forward(x.clone(), None) * Tensor::from_data(weigh.to_data(), &device);
            let gradient = values_of(x.grad(&out.sum().backward()).unwrap()).unwrap();
            let value = |at: usize, by: f32| {
                let mut v = values_of(start.clone()).unwrap();
                v[at] += by;
                let moved = Tensor::from_data(burn::tensor::TensorData::new(v, [1, 3, 8]), &plain);
                let out = model.valid().forward(moved, None) * weigh.clone();
                values_of(out)
                    .unwrap()
                    .iter()
                    .map(|v| f64::from(*v))
                    .sum::<f64>()
            };
            for at in [0, 9, 23] {
                let difference = (value(at, 1e-2) - value(at, -1e-2)) / 2e-2;
                assert!(
                    (difference - f64::from(gradient[at])).abs() < 2e-2 * (1.0 + difference.abs()),
                    "{at}: {difference} {}",
                    gradient[at]
                );
            }
        }
    }
}
