//! Second slot: the transformer over the flows of a window. No positions are added and nothing is hidden, unless a
//! decoder is asked to be causal.
//!
//! With D the width of an encoded flow, h heads, m the inner size and x [windows, w, D]:
//!
//! Encoder block: queries, keys and values D -> h x m, so that each head is m wide; a = dropout(attention(x, x)) back
//! to D; u = norm1(x + a); f = dropout(W2 relu(W1 u)) with D -> m -> D; the result is norm2(u + f). With `reference`
//! it is norm2(a + f), the shortcut leaving from the attention, and another relu follows W2: so the code of the
//! paper's authors has it.
//!
//! Decoder block: each head is D wide; o1 = norm1(x + dropout(attention(x, x))); o2 = norm2(o1 + dropout(attention(o1,
//! x))) by the same attention weights; the result is norm2(o2 + dropout(W2 relu(W1 o2))) by the same norm2.
//!
//! Where the head reads the last position alone, the last block computes that position alone: the same numbers for
//! about a third of the work.

use super::parts::{Norm, linear};
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::{Device, Tensor, activation::relu};
use papertrial_nn::blocks::{causal_mask, through};
use papertrial_nn::ops;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Transformers, all trained from scratch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sequence {
    /// 2 encoder blocks of inner size 128 with 2 heads.
    ShallowEncoder,
    /// 2 decoder blocks of inner size 128 with 2 heads.
    ShallowDecoder,
    /// 12 decoder blocks of inner size 768 with 12 heads, the shape of GPT-2 small.
    Gpt2Small,
    /// 12 encoder blocks of inner size 768 with 12 heads, the shape of BERT base.
    BertBase,
}

/// Sizes of a transformer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sizes {
    /// Decoder blocks rather than encoder blocks.
    pub decoder: bool,
    /// Blocks.
    pub layers: usize,
    /// Inner size.
    pub inner: usize,
    /// Heads of attention.
    pub heads: usize,
    /// Share of numbers that are dropped while training.
    pub dropout: f64,
}

impl Sequence {
    /// Its sizes.
    pub fn sizes(self) -> Sizes {
        let (decoder, layers, inner, heads, dropout) = match self {
            Sequence::ShallowEncoder => (false, 2, 128, 2, 0.1),
            Sequence::ShallowDecoder => (true, 2, 128, 2, 0.1),
            Sequence::Gpt2Small => (true, 12, 768, 12, 0.02),
            Sequence::BertBase => (false, 12, 768, 12, 0.02),
        };
        Sizes {
            decoder,
            layers,
            inner,
            heads,
            dropout,
        }
    }
}

impl Sizes {
    /// Weights of the whole stack for flows `d` wide.
    pub fn parameters(&self, d: usize) -> usize {
        let wide = self.heads * if self.decoder { d } else { self.inner };
        let attention = 3 * (d * wide + wide) + (wide * d + d);
        let inner = (d * self.inner + self.inner) + (self.inner * d + d);
        self.layers * (attention + 4 * d + inner)
    }
}

/// Attention with heads of any width.
#[derive(Module, Debug)]
pub(super) struct Attention {
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) out: Linear,
    pub(super) heads: usize,
}

impl Attention {
    fn new(d: usize, heads: usize, width: usize, device: &Device) -> Self {
        Attention {
            query: linear(d, heads * width, true, device),
            key: linear(d, heads * width, true, device),
            value: linear(d, heads * width, true, device),
            out: linear(heads * width, d, true, device),
            heads,
        }
    }

    /// From each position of `x` [b, q, d] at those of `at` [b, l, d].
    fn forward(&self, x: Tensor<3>, at: Tensor<3>, causal: bool) -> Tensor<3> {
        let [b, q, _] = x.dims();
        let [_, l, _] = at.dims();
        let split = |t: Tensor<3>, n: usize| {
            let width = t.dims()[2] / self.heads;
            t.reshape([b, n, self.heads, width]).swap_dims(1, 2)
        };
        let query = split(through(&self.query, x), q);
        let width = query.dims()[3];
        let key = split(through(&self.key, at.clone()), l);
        let value = split(through(&self.value, at), l);
        let mut scores = query.matmul(key.transpose()) / (width as f64).sqrt();
        if causal && q > 1 {
            let hidden = causal_mask(l, &scores.device());
            let hidden = hidden.reshape([1, 1, l, l]).expand([b, self.heads, l, l]);
            scores = scores.mask_fill(hidden, -1e9);
        }
        let seen =
            ops::softmax(scores)
                .matmul(value)
                .swap_dims(1, 2)
                .reshape([b, q, self.heads * width]);
        through(&self.out, seen)
    }
}

/// One block, of either kind.
#[derive(Module, Debug)]
pub(super) struct Block {
    pub(super) attention: Attention,
    pub(super) first: Norm,
    pub(super) second: Norm,
    pub(super) up: Linear,
    pub(super) down: Linear,
    dropout: Dropout,
}

/// A stack of blocks.
#[derive(Module, Debug)]
pub(super) struct Stack {
    pub(super) blocks: Vec<Block>,
    pub(super) decoder: bool,
    pub(super) causal: bool,
    pub(super) reference: bool,
}

impl Stack {
    pub(super) fn new(
        sizes: &Sizes,
        d: usize,
        causal: bool,
        reference: bool,
        device: &Device,
    ) -> Self {
        let width = if sizes.decoder { d } else { sizes.inner };
        Stack {
            blocks: (0..sizes.layers)
                .map(|_| Block {
                    attention: Attention::new(d, sizes.heads, width, device),
                    first: Norm::new(d, device),
                    second: Norm::new(d, device),
                    up: linear(d, sizes.inner, true, device),
                    down: linear(sizes.inner, d, true, device),
                    dropout: DropoutConfig::new(sizes.dropout).init(),
                })
                .collect(),
            decoder: sizes.decoder,
            causal,
            reference,
        }
    }

    /// [b, l, d] to [b, l, d], or to [b, 1, d] where only the last position is wanted.
    pub(super) fn forward(&self, mut x: Tensor<3>, last_only: bool) -> Tensor<3> {
        for (i, block) in self.blocks.iter().enumerate() {
            let of_last = last_only && i + 1 == self.blocks.len();
            x = self.block(block, x, of_last);
        }
        x
    }

    fn block(&self, block: &Block, x: Tensor<3>, of_last: bool) -> Tensor<3> {
        let from = if of_last {
            let l = x.dims()[1];
            x.clone().narrow(1, l - 1, 1)
        } else {
            x.clone()
        };
        let attend = |from: Tensor<3>, at: Tensor<3>| {
            let a = block.attention.forward(from, at, self.causal && !of_last);
            block.dropout.forward(a)
        };
        let inner = |x: Tensor<3>| {
            let mut f = through(&block.down, relu(through(&block.up, x)));
            if self.reference && !self.decoder {
                f = relu(f);
            }
            block.dropout.forward(f)
        };
        if self.decoder {
            let o1 = block.first.forward(from.clone() + attend(from, x.clone()));
            let o2 = block.second.forward(o1.clone() + attend(o1, x));
            return block.second.forward(o2.clone() + inner(o2));
        }
        let a = attend(from.clone(), x);
        let u = block.first.forward(from + a.clone());
        let f = inner(u.clone());
        let shortcut = if self.reference { a } else { u };
        block.second.forward(shortcut + f)
    }
}
