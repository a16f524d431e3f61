//! The MetaFormer frame: embeddings, blocks with an exchangeable mixer, norm, mean over positions, classes.
//!
//! On maps x, [b, h, w, c], a block does
//! 1. x <- x + drop(g1 Mix(Norm(x))),
//! 2. x <- x + drop(g2 MLP(Norm(x))), where the MLP is two 1 x 1 convolutions with GELU between them,
//!
//! with g1 and g2 a factor for each channel (layer scale) and `drop` leaving a branch out for some images (stochastic
//! depth), its rate growing in a line from 0 at the first block. Cost of all but the mixer: O(h w c^2) a block.

use super::mixers::{Mixer, MixerKind, Site, TokenMixer};
use super::parts::{Conv, Linear, Norm, NormKind, normal, resized};
use burn::module::{Initializer, Module, Param};
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Tensor};
use papertrial_core::{Error, Result};
use papertrial_nn::ops;
use serde::{Deserialize, Serialize};

/// How pictures become the first map.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// One convolution.
    Patches {
        /// Width of its window.
        size: usize,
        /// Step.
        stride: usize,
        /// Zeros at the borders.
        padding: usize,
    },
    /// Two 3 x 3 convolutions, batch norm after each and GELU between them.
    Two {
        /// Steps of the two.
        strides: [usize; 2],
    },
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StagePlan {
    /// Channels.
    pub width: usize,
    /// Mixer of each block.
    pub mixers: Vec<MixerKind>,
    /// What the factors of the branches begin with; none: no factors.
    pub layer_scale: Option<f64>,
    /// Whether a learned map of positions is added first.
    pub positions: bool,
}

/// Everything that decides a network's shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Height and width of pictures.
    pub picture: [usize; 2],
    /// Colour channels.
    pub channels: usize,
    /// Classes.
    pub classes: usize,
    /// First embedding.
    pub stem: Stem,
    /// Whether batch norm follows the convolutions between stages.
    pub normed_embedding: bool,
    /// Stages.
    pub stages: Vec<StagePlan>,
    /// Norm.
    pub norm: NormKind,
    /// Added to variances.
    pub epsilon: f64,
    /// Hidden channels of the MLP for each channel; the number is rounded.
    pub mlp_ratio: f64,
    /// Whether there is an MLP.
    pub mlp: bool,
    /// Whether branches are added to what they came from.
    pub residual: bool,
    /// Rate of stochastic depth at the last block.
    pub drop_path: f64,
}

impl Plan {
    /// Size of the map in each stage.
    ///
    /// # Errors
    /// A picture that is too small for the steps.
    pub fn sizes(&self) -> Result<Vec<[usize; 2]>> {
        let down = |n: usize, k: usize, s: usize, p: usize| super::maps::after(n, k, s, p);
        let total = self.total_stride();
        if self.picture.iter().any(|n| *n < total) {
            return Err(Error::BadInput(format!(
                "pictures of {} x {} pixels are smaller than the product of the network's steps, {total}; give larger pictures, fewer stages or a smaller stem-stride",
                self.picture[0], self.picture[1]
            )));
        }
        let mut size = self.picture.map(|n| match self.stem {
            Stem::Patches {
                size,
                stride,
                padding,
            } => down(n, size, stride, padding),
            Stem::Two { strides } => down(down(n, 3, strides[0], 1), 3, strides[1], 1),
        });
        let mut sizes = Vec::new();
        for stage in 0..self.stages.len() {
            if stage > 0 {
                size = size.map(|n| down(n, 3, 2, 1));
            }
            sizes.push(size);
        }
        Ok(sizes)
    }

    fn total_stride(&self) -> usize {
        let stem = match self.stem {
            Stem::Patches { stride, .. } => stride,
            Stem::Two { strides } => strides[0] * strides[1],
        };
        stem << self.stages.len().saturating_sub(1)
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.stages.iter().map(|s| s.mixers.len()).sum()
    }
}

/// What begins a stage.
#[derive(Module, Debug)]
struct Embedding {
    first: Conv,
    first_norm: Norm,
    second: Option<Conv>,
    second_norm: Norm,
}

impl Embedding {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.first_norm.forward(self.first.forward(x));
        match &self.second {
            Some(second) => self.second_norm.forward(second.forward(ops::gelu(x))),
            None => x,
        }
    }
}

/// A block with mixer `M`.
#[derive(Module, Debug)]
pub struct Block<M: Module> {
    norm1: Norm,
    mixer: M,
    scale1: Option<Param<Tensor<1>>>,
    norm2: Norm,
    hidden: Option<Linear>,
    out: Option<Linear>,
    scale2: Option<Param<Tensor<1>>>,
    drop: Dropout,
    residual: bool,
}

impl<M: TokenMixer> Block<M> {
    fn add(&self, x: Tensor<4>, branch: Tensor<4>, scale: Option<&Param<Tensor<1>>>) -> Tensor<4> {
        let mut branch = branch;
        if let Some(scale) = scale {
            branch = branch * scale.val().unsqueeze::<4>();
        }
        if self.drop.prob > 0.0 {
            // One draw an image; nothing is drawn when the network is not trained.
            let kept = Tensor::<4>::ones([x.dims()[0], 1, 1, 1], &x.device());
            branch = branch * self.drop.forward(kept);
        }
        if self.residual { x + branch } else { branch }
    }

    fn forward(&self, x: Tensor<4>, seen: &mut impl FnMut(&M, &Tensor<4>)) -> Tensor<4> {
        let normed = self.norm1.forward(x.clone());
        seen(&self.mixer, &normed);
        let x = self.add(x, self.mixer.mix(normed), self.scale1.as_ref());
        match (&self.hidden, &self.out) {
            (Some(hidden), Some(out)) => {
                let inner = ops::gelu(hidden.forward(self.norm2.forward(x.clone())));
                self.add(x, out.forward(inner), self.scale2.as_ref())
            }
            _ => x,
        }
    }
}

/// A stage.
#[derive(Module, Debug)]
struct Stage<M: Module> {
    embedding: Embedding,
    /// [h w, c].
    positions: Option<Param<Tensor<2>>>,
    blocks: Vec<Block<M>>,
}

/// The frame with mixers `M`.
#[derive(Module, Debug)]
pub struct Net<M: Module> {
    stages: Vec<Stage<M>>,
    norm: Norm,
    head: Linear,
    sizes: Vec<usize>,
    fixed: bool,
}

impl Net<Mixer> {
    /// Numbers that are kept but not trained: random matrices, and the running statistics of batch norms.
    pub fn frozen(&self) -> usize {
        let mut total = self.norm.running();
        for stage in &self.stages {
            total += stage.embedding.first_norm.running() + stage.embedding.second_norm.running();
            for block in &stage.blocks {
                total += block.mixer.frozen() + block.norm1.running() + block.norm2.running();
            }
        }
        total
    }

    /// The network of `plan` with the mixers that it names.
    ///
    /// # Errors
    /// A plan that cannot be built.
    pub fn new(plan: &Plan, device: &Device) -> Result<Self> {
        let kinds: Vec<MixerKind> = plan.stages.iter().flat_map(|s| s.mixers.clone()).collect();
        Net::with(plan, device, |site, device| {
            kinds[site.block].build(site, device)
        })
    }
}

impl<M: TokenMixer> Net<M> {
    /// The network of `plan` with mixers of your own: `mixer` builds the one of each block.
    ///
    /// # Errors
    /// A plan that cannot be built, or an error of `mixer`.
    pub fn with(
        plan: &Plan,
        device: &Device,
        mixer: impl Fn(&Site, &Device) -> Result<M>,
    ) -> Result<Self> {
        if plan.stages.is_empty() || plan.stages.iter().any(|s| s.width == 0) {
            return Err(Error::option(
                "widths",
                "must be one whole number above 0 for each stage",
            ));
        }
        if !(0.0..1.0).contains(&plan.drop_path) {
            return Err(Error::option("drop-path", "must be at least 0 and below 1"));
        }
        let sizes = plan.sizes()?;
        let blocks = plan.blocks();
        let mut block = 0;
        let mut from = plan.channels;
        let mut stages = Vec::new();
        for (s, stage) in plan.stages.iter().enumerate() {
            let c = stage.width;
            let norm = |yes: bool, c: usize| {
                Norm::new(
                    if yes { NormKind::Batch } else { NormKind::None },
                    c,
                    1e-5,
                    device,
                )
            };
            let embedding = match plan.stem {
                Stem::Two { strides } if s == 0 => {
                    let half = (c / 2).max(1);
                    Embedding {
                        first: Conv::new([from, half], [3, strides[0], 1], true, device),
                        first_norm: norm(true, half),
                        second: Some(Conv::new([half, c], [3, strides[1], 1], true, device)),
                        second_norm: norm(true, c),
                    }
                }
                Stem::Patches {
                    size,
                    stride,
                    padding,
                } if s == 0 => Embedding {
                    first: Conv::new([from, c], [size, stride, padding], true, device),
                    first_norm: norm(false, c),
                    second: None,
                    second_norm: norm(false, c),
                },
                _ => Embedding {
                    first: Conv::new([from, c], [3, 2, 1], true, device),
                    first_norm: norm(plan.normed_embedding, c),
                    second: None,
                    second_norm: norm(false, c),
                },
            };
            let [height, width] = sizes[s];
            // The paper's maps begin at 0 in MetaFormer and at a normal draw in iFormer; small draws do for both.
            let positions = stage
                .positions
                .then(|| normal().init([height * width, c], device));
            let hidden = ((c as f64 * plan.mlp_ratio).round() as usize).max(1);
            let scale = || {
                stage
                    .layer_scale
                    .map(|value| Initializer::Constant { value }.init([c], device))
            };
            let mut built = Vec::new();
            for _ in 0..stage.mixers.len() {
                let site = Site {
                    block,
                    stage: s,
                    height,
                    width,
                    channels: c,
                };
                let rate = plan.drop_path * block as f64 / (blocks.max(2) - 1) as f64;
                let has = |linear: Linear| plan.mlp.then_some(linear);
                built.push(Block {
                    norm1: Norm::new(plan.norm, c, plan.epsilon, device),
                    mixer: mixer(&site, device)?,
                    scale1: scale(),
                    norm2: Norm::new(
                        if plan.mlp { plan.norm } else { NormKind::None },
                        c,
                        plan.epsilon,
                        device,
                    ),
                    hidden: has(Linear::new(c, hidden, true, device)),
                    out: has(Linear::new(hidden, c, true, device)),
                    scale2: plan.mlp.then(scale).flatten(),
                    drop: DropoutConfig::new(rate).init(),
                    residual: plan.residual,
                });
                block += 1;
            }
            stages.push(Stage {
                embedding,
                positions,
                blocks: built,
            });
            from = c;
        }
        Ok(Net {
            stages,
            norm: Norm::new(plan.norm, from, plan.epsilon, device),
            head: Linear::new(from, plan.classes, true, device),
            sizes: sizes.into_iter().flatten().collect(),
            fixed: plan
                .stages
                .iter()
                .flat_map(|s| &s.mixers)
                .any(|m| m.fixed_size()),
        })
    }

    /// The map after each stage of pictures [b, h, w, colours]; `seen` is shown each block's mixer and its input.
    ///
    /// Pictures of another size than the plan's are taken where the mixers can; maps of positions are resized.
    ///
    /// # Errors
    /// Another size where a mixer is built for one.
    pub fn stages(
        &self,
        x: Tensor<4>,
        mut seen: impl FnMut(&M, &Tensor<4>),
    ) -> Result<Vec<Tensor<4>>> {
        let mut x = x;
        let mut maps = Vec::new();
        for (stage, size) in self.stages.iter().zip(self.sizes.chunks_exact(2)) {
            x = stage.embedding.forward(x);
            let [_, h, w, c] = x.dims();
            if self.fixed && [h, w] != *size {
                return Err(Error::BadInput(format!(
                    "the mixers of this network are built for maps of {} x {}, not {h} x {w}; give pictures of the size that it was trained on",
                    size[0], size[1]
                )));
            }
            if let Some(map) = &stage.positions {
                let map = resized(map.val(), [size[0], size[1]], [h, w]);
                x = x + map.reshape([1, h, w, c]);
            }
            for block in &stage.blocks {
                x = block.forward(x, &mut seen);
            }
            maps.push(x.clone());
        }
        Ok(maps)
    }

    /// Pictures [b, h, w, colours] to [b, classes].
    ///
    /// # Errors
    /// As [`Net::stages`].
    pub fn classes(&self, x: Tensor<4>) -> Result<Tensor<2>> {
        let maps = self.stages(x, |_, _| ())?;
        let Some(last) = maps.into_iter().next_back() else {
            return Err(Error::Failed("a network without stages".into()));
        };
        Ok(self.head.forward(self.mean(last)))
    }

    /// Norm and mean over positions: [b, c].
    fn mean(&self, map: Tensor<4>) -> Tensor<2> {
        let [b, h, w, c] = map.dims();
        self.norm
            .forward(map)
            .reshape([b, h * w, c])
            .mean_dim(1)
            .reshape([b, c])
    }

    /// Multiply-adds for one picture of `picture` pixels; norms and activations are not counted.
    pub fn macs(&self, picture: [usize; 2]) -> u64 {
        let mut size = picture;
        let mut total = 0;
        for stage in &self.stages {
            size = size.map(|n| stage.embedding.first.after(n));
            total += stage.embedding.first.linear.macs(size[0] * size[1]);
            if let Some(second) = &stage.embedding.second {
                size = size.map(|n| second.after(n));
                total += second.linear.macs(size[0] * size[1]);
            }
            let n = size[0] * size[1];
            for block in &stage.blocks {
                let [c, _] = block
                    .hidden
                    .as_ref()
                    .map_or([stage.embedding.width(), 0], |l| l.weight.shape().dims());
                total += block.mixer.macs(size[0], size[1], c);
                total += block.hidden.as_ref().map_or(0, |l| l.macs(n));
                total += block.out.as_ref().map_or(0, |l| l.macs(n));
            }
        }
        total + self.head.macs(1)
    }
}

impl Embedding {
    fn width(&self) -> usize {
        let last = self.second.as_ref().unwrap_or(&self.first);
        last.linear.weight.shape()[1]
    }
}
