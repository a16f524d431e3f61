//! The model around the mixers, as in the authors' code: tokens as vectors, blocks of a mixer and an MLP, tokens again.
//!
//! 1. x = E[tokens], plus learned positions where the mixer takes them ([`Mixer::takes_positions`]).
//! 2. Each block: x += mixer(norm(x)), then x += mlp(norm(x)) where the mixer takes one ([`Mixer::takes_mlp`]).
//! 3. Scores of all tokens: E norm(x), with the same E.
//!
//! Weights begin normal with deviation .02, those that end a block's branch with .02 / sqrt(2 layers).

use crate::mixers::layer::{Layer, Sizes};
use crate::mixers::{Choice, Linear, Mixer, normal};
use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use papertrial_core::Result;
use papertrial_nn::blocks::{LayerNorm, Positions};
use papertrial_nn::ops;
use serde::{Deserialize, Serialize};

/// Deviation of the first weights.
const DEVIATION: f64 = 0.02;
/// Numbers inside the MLP for each number of a position.
const INNER: usize = 4;

/// Sizes of a model: what is kept with its weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelOptions {
    /// The mixer.
    pub choice: Choice,
    /// Numbers of a position.
    pub d: usize,
    /// Blocks.
    pub layers: usize,
    /// Positions that the mixer's maps or its convolution look at, if not its own number.
    pub shift: Option<usize>,
    /// Share of the weights of attention that are dropped while training.
    pub dropout: f64,
    /// Tokens that there are.
    pub vocabulary: usize,
    /// Longest sequence.
    pub length: usize,
}

/// A block.
#[derive(Module, Debug)]
struct Block {
    norm: LayerNorm,
    mixer: Layer,
    inner: Option<Inner>,
}

/// The MLP of a block with its normalisation.
#[derive(Module, Debug)]
struct Inner {
    norm: LayerNorm,
    first: Linear,
    second: Linear,
}

/// The model.
#[derive(Module, Debug)]
pub struct Model {
    /// E, [vocabulary, d].
    tokens: Param<Tensor<2>>,
    positions: Option<Positions>,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl Model {
    /// Of drawn weights.
    ///
    /// # Errors
    /// Heads that do not fit.
    pub fn new(options: &ModelOptions, device: &Device) -> Result<Model> {
        let d = options.d;
        let last = DEVIATION / (2.0 * options.layers as f64).sqrt();
        let sizes = Sizes {
            d,
            shift: options.shift,
            dropout: options.dropout,
            deviations: (DEVIATION, last),
        };
        let mixer: Mixer = options.choice.mixer;
        let blocks = (0..options.layers).map(|_| {
            Ok(Block {
                norm: LayerNorm::new(d, device),
                mixer: Layer::new(&options.choice, &sizes, device)?,
                inner: mixer.takes_mlp().then(|| Inner {
                    norm: LayerNorm::new(d, device),
                    first: Linear::new(d, INNER * d, DEVIATION, true, device),
                    second: Linear::new(INNER * d, d, last, true, device),
                }),
            })
        });
        Ok(Model {
            blocks: blocks.collect::<Result<_>>()?,
            tokens: normal(DEVIATION).init([options.vocabulary, d], device),
            positions: mixer
                .takes_positions()
                .then(|| Positions::new(options.length, d, device)),
            norm: LayerNorm::new(d, device),
        })
    }

    /// Steps 1 and 2: [b, l] to [b, l, d], normalised.
    pub fn hidden(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let x = self.blocks.iter().fold(self.embed(tokens), Self::through);
        self.norm.forward(x)
    }

    /// What goes into each block's mixer, and that mixer: from [b, l] to [b, l, inputs] each.
    pub fn mixers(&self, tokens: Tensor<2, Int>) -> Vec<(Tensor<3>, &Layer)> {
        let mut x = self.embed(tokens);
        let mut all = Vec::new();
        for block in &self.blocks {
            all.push((
                block.mixer.core(block.norm.forward(x.clone())),
                &block.mixer,
            ));
            x = Self::through(x, block);
        }
        all
    }

    /// The mixer of the first block.
    pub fn first_mixer(&self) -> Option<&Layer> {
        self.blocks.first().map(|b| &b.mixer)
    }

    /// Step 3: [rows, d] to [rows, vocabulary].
    pub fn scores(&self, hidden: Tensor<2>) -> Tensor<2> {
        hidden.matmul(self.tokens.val().transpose())
    }

    fn embed(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [b, l] = tokens.dims();
        let table = self.tokens.val();
        let [_, d] = table.dims();
        let x = table.select(0, tokens.reshape([b * l])).reshape([b, l, d]);
        match &self.positions {
            Some(positions) => positions.add(x),
            None => x,
        }
    }

    fn through(x: Tensor<3>, block: &Block) -> Tensor<3> {
        let x = x.clone() + block.mixer.forward(block.norm.forward(x));
        match &block.inner {
            Some(inner) => {
                let hidden = ops::gelu(inner.first.forward(inner.norm.forward(x.clone())));
                x + inner.second.forward(hidden)
            }
            None => x,
        }
    }
}

/// Tokens of sequences as a tensor [rows, length].
pub fn tokens_of<'a>(
    rows: impl IntoIterator<Item = &'a [u32]>,
    length: usize,
    device: &Device,
) -> Tensor<2, Int> {
    let values: Vec<i32> = rows
        .into_iter()
        .flat_map(|row| row.iter().map(|t| *t as i32))
        .collect();
    let n = values.len() / length.max(1);
    Tensor::from_data(TensorData::new(values, [n, length]), device)
}
