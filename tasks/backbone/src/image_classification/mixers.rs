//! The slot of the block: what mixes positions. [`TokenMixer`] is the trait, [`Mixer`] the ones that are built in.

use super::maps;
use super::parts::{Linear, attend, depthwise};
use burn::module::{Module, Param};
use burn::tensor::ops::PadMode;
use burn::tensor::{Device, Distribution, Tensor, activation};
use papertrial_core::{Error, Result};
use papertrial_nn::ops;
use serde::{Deserialize, Serialize};

/// What mixes the positions of a feature map. Any Burn module can be one: see [`super::frame::Net::with`].
pub trait TokenMixer: Module {
    /// [b, h, w, c] to the same shape.
    fn mix(&self, x: Tensor<4>) -> Tensor<4>;
    /// Multiply-adds for one map of `h` x `w` positions and `c` channels.
    fn macs(&self, h: usize, w: usize, c: usize) -> u64;
}

/// Where a mixer is to work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Site {
    /// Number of the block, over all stages.
    pub block: usize,
    /// Stage, from 0.
    pub stage: usize,
    /// Height of the map.
    pub height: usize,
    /// Width of the map.
    pub width: usize,
    /// Channels.
    pub channels: usize,
}

/// A mixer that is built in, and its settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MixerKind {
    /// Mean of a window minus the value itself.
    Pooling {
        /// Width of the window, odd.
        size: usize,
    },
    /// No mixing.
    Identity,
    /// A random matrix over positions, its rows shares; it is not trained.
    Random,
    /// Depthwise convolution.
    Depthwise {
        /// Width of the window, odd.
        size: usize,
    },
    /// One linear map over positions for all channels.
    SpatialMlp,
    /// Softmax attention.
    Attention {
        /// Channels of a head.
        head_width: usize,
        /// Whether queries, keys and values have biases.
        bias: bool,
    },
    /// Convolution, pooling and attention, each on its share of the channels.
    Inception {
        /// Parts into which the channels are cut.
        heads: usize,
        /// Parts that attention gets.
        attention: usize,
        /// Side of the squares over which attention's input is averaged: 1 or 2.
        shrink: usize,
        /// Whether there is a convolution.
        convolution: bool,
        /// Whether there is a pooling path.
        pooling: bool,
    },
}

impl MixerKind {
    /// Whether the mixer works for the size of map only for which it was built.
    pub fn fixed_size(self) -> bool {
        matches!(self, MixerKind::Random | MixerKind::SpatialMlp)
    }

    /// Checks that the mixer can be built at `site`.
    ///
    /// # Errors
    /// Channels that cannot be cut into heads or halves, or an even window.
    pub fn check(self, site: &Site) -> Result<()> {
        let c = site.channels;
        match self {
            MixerKind::Pooling { size } | MixerKind::Depthwise { size } => {
                if size.is_multiple_of(2) {
                    return Err(Error::option(
                        "window",
                        format!("{size} is even and has no middle; give an odd number, such as 3"),
                    ));
                }
            }
            MixerKind::Attention { head_width, .. } => {
                if head_width == 0 || !c.is_multiple_of(head_width) {
                    return Err(Error::option(
                        "widths",
                        format!(
                            "stage {} has {c} channels, not a multiple of the {head_width} of an attention head",
                            site.stage + 1
                        ),
                    ));
                }
            }
            MixerKind::Inception {
                heads,
                attention,
                convolution,
                pooling,
                ..
            } => {
                if heads == 0 || !c.is_multiple_of(heads) {
                    return Err(Error::option(
                        "heads",
                        format!(
                            "{heads} heads do not share the {c} channels of stage {} evenly",
                            site.stage + 1
                        ),
                    ));
                }
                let most = if convolution || pooling {
                    heads - 1
                } else {
                    heads
                };
                if attention == 0 || attention > most {
                    return Err(Error::option(
                        "heads",
                        format!(
                            "attention gets {attention} of {heads} heads in stage {}; it must get at least 1 and at most {most}",
                            site.stage + 1
                        ),
                    ));
                }
                let high = c - attention * (c / heads);
                if convolution && pooling && !high.is_multiple_of(2) {
                    return Err(Error::option(
                        "heads",
                        format!(
                            "{high} channels of stage {} are left for convolution and pooling and cannot be halved; widths divided by heads should be even",
                            site.stage + 1
                        ),
                    ));
                }
            }
            MixerKind::Identity | MixerKind::Random | MixerKind::SpatialMlp => {}
        }
        Ok(())
    }

    /// The mixer, its weights drawn anew.
    ///
    /// # Errors
    /// As [`MixerKind::check`].
    pub fn build(self, site: &Site, device: &Device) -> Result<Mixer> {
        self.check(site)?;
        let c = site.channels;
        let n = site.height * site.width;
        Ok(match self {
            MixerKind::Pooling { size } => Mixer::Pooling(Pooling { size }),
            MixerKind::Identity => Mixer::Identity(Identity { parameters: 0 }),
            MixerKind::Random => {
                let drawn = Tensor::<2>::random([n, n], Distribution::Default, device);
                let shares = activation::softmax(drawn, 1).detach();
                Mixer::Random(Random {
                    shares: Param::from_tensor(shares).set_require_grad(false),
                })
            }
            MixerKind::Depthwise { size } => Mixer::Depthwise(Depthwise {
                weight: depthwise(size, c, device),
            }),
            MixerKind::SpatialMlp => Mixer::SpatialMlp(SpatialMlp {
                linear: Linear::new(n, n, false, device),
            }),
            MixerKind::Attention { head_width, bias } => Mixer::Attention(Attention {
                joined: Linear::new(c, 3 * c, bias, device),
                out: Linear::new(c, c, true, device),
                heads: c / head_width,
            }),
            MixerKind::Inception {
                heads,
                attention,
                shrink,
                convolution,
                pooling,
            } => {
                let paths = usize::from(convolution) + usize::from(pooling);
                let low = if paths == 0 {
                    c
                } else {
                    attention * (c / heads)
                };
                let part = (c - low).checked_div(paths).unwrap_or(0);
                let joined = low + 2 * part * paths;
                Mixer::Inception(Inception {
                    convolution: convolution.then(|| ConvolutionPath {
                        widen: Linear::new(part, 2 * part, false, device),
                        weight: depthwise(3, 2 * part, device),
                    }),
                    pooling: pooling.then(|| Linear::new(part, 2 * part, true, device)),
                    attention: Linear::new(low, 3 * low, true, device),
                    fuse: depthwise(3, joined, device),
                    out: Linear::new(joined, c, true, device),
                    heads: if paths == 0 { heads } else { attention },
                    part,
                    shrink,
                })
            }
        })
    }
}

/// The built-in mixers.
// A model has a handful of them, and a box is no module.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum Mixer {
    /// Mean of a window minus the value.
    Pooling(Pooling),
    /// Nothing.
    Identity(Identity),
    /// A fixed random matrix.
    Random(Random),
    /// Depthwise convolution.
    Depthwise(Depthwise),
    /// A linear map over positions.
    SpatialMlp(SpatialMlp),
    /// Attention.
    Attention(Attention),
    /// Convolution, pooling and attention.
    Inception(Inception),
}

impl TokenMixer for Mixer {
    fn mix(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Mixer::Pooling(m) => maps::average_minus_self(x, m.size),
            Mixer::Identity(_) => x,
            Mixer::Random(m) => over_positions(m.shares.val(), x),
            Mixer::Depthwise(m) => maps::depthwise_convolution(x, m.weight.val()),
            Mixer::SpatialMlp(m) => over_positions(m.linear.weight.val().transpose(), x),
            Mixer::Attention(m) => m.forward(x),
            Mixer::Inception(m) => m.forward(x),
        }
    }

    fn macs(&self, h: usize, w: usize, c: usize) -> u64 {
        let n = h * w;
        match self {
            // Sums, and one product with a share.
            Mixer::Pooling(_) => (n * c) as u64,
            Mixer::Identity(_) => 0,
            Mixer::Random(_) | Mixer::SpatialMlp(_) => (n * n * c) as u64,
            Mixer::Depthwise(m) => (m.weight.shape()[0] * n * c) as u64,
            Mixer::Attention(m) => m.joined.macs(n) + m.out.macs(n) + (2 * n * n * c) as u64,
            Mixer::Inception(m) => m.macs(h, w),
        }
    }
}

impl Mixer {
    /// Numbers that are drawn and never trained.
    pub(super) fn frozen(&self) -> usize {
        match self {
            Mixer::Random(m) => m.shares.shape()[0] * m.shares.shape()[1],
            _ => 0,
        }
    }
}

/// [n, n] times each map of [b, h, w, c], n = h w.
fn over_positions(matrix: Tensor<2>, x: Tensor<4>) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    matrix
        .unsqueeze::<3>()
        .expand([b, h * w, h * w])
        .matmul(x.reshape([b, h * w, c]))
        .reshape([b, h, w, c])
}

/// See [`MixerKind::Pooling`].
#[derive(Module, Debug)]
pub struct Pooling {
    size: usize,
}

/// See [`MixerKind::Identity`].
#[derive(Module, Debug)]
pub struct Identity {
    parameters: usize,
}

/// See [`MixerKind::Random`].
#[derive(Module, Debug)]
pub struct Random {
    /// [n, n], rows that sum to 1.
    shares: Param<Tensor<2>>,
}

/// See [`MixerKind::Depthwise`].
#[derive(Module, Debug)]
pub struct Depthwise {
    weight: Param<Tensor<2>>,
}

/// See [`MixerKind::SpatialMlp`].
#[derive(Module, Debug)]
pub struct SpatialMlp {
    linear: Linear,
}

/// See [`MixerKind::Attention`].
#[derive(Module, Debug)]
pub struct Attention {
    joined: Linear,
    out: Linear,
    heads: usize,
}

impl Attention {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [b, h, w, c] = x.dims();
        let joined = self.joined.forward(x).reshape([b, h * w, 3 * c]);
        self.out
            .forward(attend(joined, self.heads).reshape([b, h, w, c]))
    }
}

/// Widening, depthwise convolution, GELU.
#[derive(Module, Debug)]
pub struct ConvolutionPath {
    widen: Linear,
    weight: Param<Tensor<2>>,
}

/// The inception mixer. Channels come in as high first (convolution, then pooling), low last, and go to the fusion in
/// the same order, the high ones doubled.
#[derive(Module, Debug)]
pub struct Inception {
    convolution: Option<ConvolutionPath>,
    pooling: Option<Linear>,
    attention: Linear,
    fuse: Param<Tensor<2>>,
    out: Linear,
    heads: usize,
    part: usize,
    shrink: usize,
}

/// Outputs of the paths of [`Inception`], [b, h, w, channels of the path].
#[derive(Debug, Clone)]
pub struct Paths {
    /// Convolution.
    pub convolution: Option<Tensor<4>>,
    /// Maximum pooling.
    pub pooling: Option<Tensor<4>>,
    /// Attention, brought back to the size of the map.
    pub attention: Tensor<4>,
}

impl Inception {
    /// What each path makes of a map.
    pub fn paths(&self, x: Tensor<4>) -> Paths {
        let c = x.dims()[3];
        let mut from = 0;
        let mut next = |n: usize| {
            from += n;
            x.clone().narrow(3, from - n, n)
        };
        // High i: 1x1, depthwise 3x3, GELU.
        let convolution = self.convolution.as_ref().map(|path| {
            let wide = path.widen.forward(next(self.part));
            ops::gelu(maps::depthwise_convolution(wide, path.weight.val()))
        });
        // High ii: highest of 3x3, 1x1, GELU.
        let pooling = self
            .pooling
            .as_ref()
            .map(|linear| ops::gelu(linear.forward(maps::highest_of_window(next(self.part)))));
        let high = self.part
            * (usize::from(self.convolution.is_some()) + usize::from(self.pooling.is_some()));
        let attention = self.low(next(c - high));
        Paths {
            convolution,
            pooling,
            attention,
        }
    }

    /// Mean of squares, attention, nearest positions.
    fn low(&self, x: Tensor<4>) -> Tensor<4> {
        let [b, h, w, c] = x.dims();
        let s = self.shrink;
        let (rows, columns) = (h.div_ceil(s), w.div_ceil(s));
        let small = if s == 1 {
            x
        } else {
            // A repeated border leaves the mean of what is really there.
            let (below, beside) = (rows * s - h, columns * s - w);
            let x = if below + beside > 0 {
                x.pad([(0, 0), (0, below), (0, beside), (0, 0)], PadMode::Edge)
            } else {
                x
            };
            x.reshape([b, rows, s, columns, s, c])
                .mean_dim(4)
                .mean_dim(2)
                .reshape([b, rows, columns, c])
        };
        let joined = self
            .attention
            .forward(small)
            .reshape([b, rows * columns, 3 * c]);
        let seen = attend(joined, self.heads);
        if s == 1 {
            return seen.reshape([b, h, w, c]);
        }
        let large = seen
            .reshape([b, rows, 1, columns, 1, c])
            .expand([b, rows, s, columns, s, c])
            .reshape([b, rows * s, columns * s, c]);
        large.narrow(1, 0, h).narrow(2, 0, w)
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let paths = self.paths(x);
        let joined: Vec<Tensor<4>> = paths
            .convolution
            .into_iter()
            .chain(paths.pooling)
            .chain([paths.attention])
            .collect();
        let y = Tensor::cat(joined, 3);
        let y = y.clone() + maps::depthwise_convolution(y, self.fuse.val());
        self.out.forward(y)
    }

    fn macs(&self, h: usize, w: usize) -> u64 {
        let n = h * w;
        let s = self.shrink;
        let few = h.div_ceil(s) * w.div_ceil(s);
        let low = self.attention.weight.shape()[0];
        let convolution = self
            .convolution
            .as_ref()
            .map_or(0, |p| p.widen.macs(n) + (9 * n * 2 * self.part) as u64);
        let pooling = self.pooling.as_ref().map_or(0, |l| l.macs(n));
        let attention = self.attention.macs(few) + (2 * few * few * low) as u64;
        let fuse = (9 * n * self.fuse.shape()[1]) as u64;
        convolution + pooling + attention + fuse + self.out.macs(n)
    }
}
