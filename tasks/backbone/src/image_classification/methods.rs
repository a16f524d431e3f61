//! The methods: which network each option set stands for.
//!
//! PoolFormer and MetaFormer: Yu and others, *MetaFormer Is Actually What You Need for Vision* (CVPR 2022, 2111.11418).
//! iFormer: Si and others, *Inception Transformer* (NeurIPS 2022, 2205.12956).

use super::frame::{Plan, StagePlan, Stem};
use super::mixers::MixerKind;
use super::nets::Design;
use super::parts::NormKind;
use super::{Backbone, TaskOptions};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pictures and classes of a data set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Height and width.
    pub picture: [usize; 2],
    /// Colour channels: 1 or 3.
    pub channels: usize,
    /// Classes.
    pub classes: usize,
}

/// A published PoolFormer: `s12`, `s24`, `s36`, `m36` or `m48`.
///
/// # Errors
/// Another name.
pub fn poolformer(preset: &str, shape: &Shape) -> Result<Plan> {
    let small = [64, 128, 320, 512];
    let medium = [96, 192, 384, 768];
    let (depths, widths, layer_scale, drop_path) = match preset {
        "s12" => ([2, 2, 6, 2], small, 1e-5, 0.1),
        "s24" => ([4, 4, 12, 4], small, 1e-5, 0.1),
        "s36" => ([6, 6, 18, 6], small, 1e-6, 0.2),
        "m36" => ([6, 6, 18, 6], medium, 1e-6, 0.3),
        "m48" => ([8, 8, 24, 8], medium, 1e-6, 0.4),
        _ => {
            return Err(Error::unknown(
                "preset",
                preset,
                ["small", "s12", "s24", "s36", "m36", "m48"],
                "small takes widths and depths from the task's options",
            ));
        }
    };
    Ok(Plan {
        picture: shape.picture,
        channels: shape.channels,
        classes: shape.classes,
        stem: Stem::Patches {
            size: 7,
            stride: 4,
            padding: 2,
        },
        normed_embedding: false,
        stages: depths
            .into_iter()
            .zip(widths)
            .map(|(depth, width)| StagePlan {
                width,
                mixers: vec![MixerKind::Pooling { size: 3 }; depth],
                layer_scale: Some(layer_scale),
                positions: false,
            })
            .collect(),
        norm: NormKind::Group,
        epsilon: 1e-5,
        mlp_ratio: 4.0,
        mlp: true,
        residual: true,
        drop_path,
    })
}

/// A published iFormer: `s`, `b` or `l`.
///
/// # Errors
/// Another name.
pub fn iformer(preset: &str, shape: &Shape) -> Result<Plan> {
    // Width, heads, and the heads of attention in runs: (blocks, heads).
    type Stage = (usize, usize, &'static [(usize, usize)]);
    let (stages, drop_path): ([Stage; 4], f64) = match preset {
        "s" => (
            [
                (96, 3, &[(3, 1)]),
                (192, 6, &[(3, 3)]),
                (320, 10, &[(4, 7), (5, 9)]),
                (384, 12, &[(3, 11)]),
            ],
            0.2,
        ),
        "b" => (
            [
                (96, 3, &[(4, 1)]),
                (192, 6, &[(6, 3)]),
                (384, 12, &[(7, 8), (7, 10)]),
                (512, 16, &[(6, 15)]),
            ],
            0.4,
        ),
        "l" => (
            [
                (96, 3, &[(4, 1)]),
                (192, 6, &[(6, 3)]),
                (448, 14, &[(9, 10), (9, 12)]),
                (640, 20, &[(8, 19)]),
            ],
            0.5,
        ),
        _ => {
            return Err(Error::unknown(
                "preset",
                preset,
                ["small", "s", "b", "l"],
                "small takes widths and depths from the task's options",
            ));
        }
    };
    let stages = stages
        .into_iter()
        .enumerate()
        .map(|(s, (width, heads, runs))| StagePlan {
            width,
            mixers: runs
                .iter()
                .flat_map(|(blocks, attention)| {
                    let kind = MixerKind::Inception {
                        heads,
                        attention: *attention,
                        shrink: if s < 2 { 2 } else { 1 },
                        convolution: true,
                        pooling: true,
                    };
                    vec![kind; *blocks]
                })
                .collect(),
            layer_scale: (s > 1).then_some(1e-6),
            positions: true,
        })
        .collect();
    Ok(inception_frame(shape, [2, 2], stages, drop_path))
}

fn inception_frame(shape: &Shape, strides: [usize; 2], stages: Vec<StagePlan>, drop: f64) -> Plan {
    Plan {
        picture: shape.picture,
        channels: shape.channels,
        classes: shape.classes,
        stem: Stem::Two { strides },
        normed_embedding: true,
        stages,
        norm: NormKind::Layer,
        epsilon: 1e-6,
        mlp_ratio: 4.0,
        mlp: true,
        residual: true,
        drop_path: drop,
    }
}

/// The mixers that can be named.
const NAMES: [&str; 6] = [
    "pooling",
    "identity",
    "random",
    "depthwise",
    "spatial-mlp",
    "attention",
];

fn named(name: &str, window: usize, head_width: usize) -> Result<MixerKind> {
    Ok(match name {
        "pooling" => MixerKind::Pooling { size: window },
        "identity" => MixerKind::Identity,
        "random" => MixerKind::Random,
        "depthwise" => MixerKind::Depthwise { size: window },
        "spatial-mlp" => MixerKind::SpatialMlp,
        "attention" => MixerKind::Attention {
            head_width,
            bias: false,
        },
        _ => {
            return Err(Error::unknown(
                "mixer",
                name,
                NAMES,
                format!("mixers are {}", NAMES.join(", ")),
            ));
        }
    })
}

/// The MetaFormer frame with a mixer of choice.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct MetaFormer {
    /// The network: small (the task's widths and depths) or a published one: s12, s24, s36, m36, m48.
    pub preset: String,
    /// What mixes positions: pooling, identity, random, depthwise, spatial-mlp or attention; one for all stages, or
    /// one for each with commas between.
    pub mixer: String,
    /// Width of the window of pooling and depthwise, odd.
    #[schemars(range(min = 1, max = 99))]
    pub window: usize,
    /// Channels of an attention head.
    #[schemars(range(min = 1))]
    pub head_width: usize,
    /// What is normalised.
    pub norm: NormKind,
    /// Whether branches are added to what they came from.
    pub residual: bool,
    /// Whether blocks have their channel network.
    pub mlp: bool,
}

impl Default for MetaFormer {
    fn default() -> Self {
        MetaFormer {
            preset: "small".into(),
            mixer: "pooling".into(),
            window: 3,
            head_width: 32,
            norm: NormKind::Group,
            residual: true,
            mlp: true,
        }
    }
}

impl Method for MetaFormer {
    const FACTS: Facts = Facts {
        name: "metaformer",
        about: "the frame of a transformer block with a mixer of choice in its slot",
        paper: Some("poolformer"),
        streams: false,
    };
}

impl Backbone for MetaFormer {
    fn design(&self, shape: &Shape, task: &TaskOptions) -> Result<Design> {
        let mut plan = if self.preset == "small" {
            task.check()?;
            Plan {
                stem: Stem::Patches {
                    size: 3,
                    stride: task.stem_stride,
                    padding: 1,
                },
                stages: task
                    .widths
                    .iter()
                    .zip(&task.depths)
                    .map(|(width, depth)| StagePlan {
                        width: *width,
                        mixers: vec![MixerKind::Identity; *depth],
                        layer_scale: Some(task.layer_scale),
                        positions: false,
                    })
                    .collect(),
                drop_path: task.drop_path,
                ..poolformer("s12", shape)?
            }
        } else {
            poolformer(&self.preset, shape)?
        };
        let names: Vec<&str> = self.mixer.split(',').map(str::trim).collect();
        if names.len() != 1 && names.len() != plan.stages.len() {
            return Err(Error::option(
                "mixer",
                format!(
                    "names {} mixers for {} stages; give one, or one for each",
                    names.len(),
                    plan.stages.len()
                ),
            ));
        }
        // In hybrids, a map of positions is added where attention begins.
        let hybrid = names.len() > 1 && names.iter().any(|n| *n != "attention");
        let begins = names.iter().position(|n| *n == "attention");
        for (s, stage) in plan.stages.iter_mut().enumerate() {
            let name = names[s.min(names.len() - 1)];
            let kind = named(name, self.window, self.head_width)?;
            stage.mixers.fill(kind);
            stage.positions = hybrid && begins == Some(s);
        }
        plan.norm = self.norm;
        plan.residual = self.residual;
        plan.mlp = self.mlp;
        Ok(Design::Frame(plan))
    }
}

/// PoolFormer: the frame with pooling.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct PoolFormer {
    /// The network: small (the task's widths and depths) or a published one: s12, s24, s36, m36, m48.
    pub preset: String,
    /// Width of the pooling window, odd.
    #[schemars(range(min = 1, max = 99))]
    pub window: usize,
}

impl Default for PoolFormer {
    fn default() -> Self {
        PoolFormer {
            preset: "small".into(),
            window: 3,
        }
    }
}

impl Method for PoolFormer {
    const FACTS: Facts = Facts {
        name: "poolformer",
        about: "the frame of a transformer block with averaging over neighbours in place of attention",
        paper: Some("poolformer"),
        streams: false,
    };
}

impl Backbone for PoolFormer {
    fn design(&self, shape: &Shape, task: &TaskOptions) -> Result<Design> {
        MetaFormer {
            preset: self.preset.clone(),
            window: self.window,
            ..MetaFormer::default()
        }
        .design(shape, task)
    }
}

/// How attention's share of the channels changes with depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ramp {
    /// It rises from share-first to share-last.
    Rising,
    /// It is the mean of the two everywhere.
    Flat,
    /// It falls from share-last to share-first.
    Falling,
}

/// The paths of the inception mixer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PathsKept {
    /// Convolution, pooling and attention.
    All,
    /// Attention and convolution.
    Convolution,
    /// Attention and pooling.
    Pooling,
    /// Attention alone, on all channels.
    Attention,
}

/// Inception Transformer.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct IFormer {
    /// The network: small (the task's widths and depths) or a published one: s, b, l.
    pub preset: String,
    /// Channels of a head, in small networks.
    #[schemars(range(min = 1))]
    pub head_width: usize,
    /// How attention's share changes with depth, in small networks.
    pub ramp: Ramp,
    /// Attention's share of the heads at the first block.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share_first: f64,
    /// Attention's share of the heads at the last block.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share_last: f64,
    /// Which paths there are.
    pub paths: PathsKept,
}

impl Default for IFormer {
    fn default() -> Self {
        IFormer {
            preset: "small".into(),
            head_width: 8,
            ramp: Ramp::Rising,
            share_first: 1.0 / 3.0,
            share_last: 11.0 / 12.0,
            paths: PathsKept::All,
        }
    }
}

impl Method for IFormer {
    const FACTS: Facts = Facts {
        name: "iformer",
        about: "channels split between convolution, maximum pooling and attention, whose share changes with depth",
        paper: Some("iformer"),
        streams: false,
    };
}

impl IFormer {
    fn small(&self, shape: &Shape, task: &TaskOptions) -> Result<Plan> {
        task.check()?;
        let blocks: usize = task.depths.iter().sum();
        let mut block = 0;
        let mut stages = Vec::new();
        let last = task.widths.len() - 1;
        for (s, (width, depth)) in task.widths.iter().zip(&task.depths).enumerate() {
            let heads = width / self.head_width;
            let mut mixers = Vec::new();
            for _ in 0..*depth {
                let at = block as f64 / (blocks.max(2) - 1) as f64;
                let share = match self.ramp {
                    Ramp::Rising => self.share_first + at * (self.share_last - self.share_first),
                    Ramp::Falling => self.share_last - at * (self.share_last - self.share_first),
                    Ramp::Flat => 0.5 * (self.share_first + self.share_last),
                };
                let most = heads.saturating_sub(1).max(1);
                mixers.push(MixerKind::Inception {
                    heads,
                    attention: ((share * heads as f64).round() as usize).clamp(1, most),
                    // The first half of the stages looks at means of squares.
                    shrink: if s < last.div_ceil(2) { 2 } else { 1 },
                    convolution: true,
                    pooling: true,
                });
                block += 1;
            }
            stages.push(StagePlan {
                width: *width,
                mixers,
                // The paper scales the branches of the later half of the stages only.
                layer_scale: (2 * s > last || last == 0).then_some(task.layer_scale),
                positions: true,
            });
        }
        Ok(inception_frame(
            shape,
            [1, task.stem_stride],
            stages,
            task.drop_path,
        ))
    }

    fn plan(&self, shape: &Shape, task: &TaskOptions) -> Result<Plan> {
        let mut plan = if self.preset == "small" {
            self.small(shape, task)?
        } else {
            iformer(&self.preset, shape)?
        };
        for mixer in plan.stages.iter_mut().flat_map(|s| &mut s.mixers) {
            if let MixerKind::Inception {
                convolution,
                pooling,
                heads,
                attention,
                ..
            } = mixer
            {
                *convolution = matches!(self.paths, PathsKept::All | PathsKept::Convolution);
                *pooling = matches!(self.paths, PathsKept::All | PathsKept::Pooling);
                if self.paths == PathsKept::Attention {
                    *attention = *heads;
                }
            }
        }
        Ok(plan)
    }
}

impl Backbone for IFormer {
    fn design(&self, shape: &Shape, task: &TaskOptions) -> Result<Design> {
        Ok(Design::Frame(self.plan(shape, task)?))
    }
}

/// Attention in every block, with iFormer's stem and as many parameters.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct VisionTransformer {
    /// Channels of a head.
    #[schemars(range(min = 1))]
    pub head_width: usize,
}

impl Default for VisionTransformer {
    fn default() -> Self {
        VisionTransformer { head_width: 8 }
    }
}

impl Method for VisionTransformer {
    const FACTS: Facts = Facts {
        name: "vision-transformer",
        about: "attention in every block, with the stem of the small iFormer and, by the width of its channel networks, as many parameters",
        paper: None,
        streams: false,
    };
}

impl Backbone for VisionTransformer {
    fn design(&self, shape: &Shape, task: &TaskOptions) -> Result<Design> {
        let model = IFormer {
            head_width: self.head_width,
            ..IFormer::default()
        };
        let target = model.plan(shape, task)?;
        let count =
            |plan: &Plan| -> Result<f64> { Ok(Design::Frame(plan.clone()).parameters()? as f64) };
        let mut plan = target.clone();
        for mixer in plan.stages.iter_mut().flat_map(|s| &mut s.mixers) {
            *mixer = MixerKind::Attention {
                head_width: self.head_width,
                bias: true,
            };
        }
        // The count is linear in the ratio, but for rounding.
        let wanted = count(&target)?;
        let at_four = count(&plan)?;
        let slope = count(&Plan {
            mlp_ratio: 5.0,
            ..plan.clone()
        })? - at_four;
        plan.mlp_ratio = (4.0 + (wanted - at_four) / slope).max(0.25);
        Ok(Design::Frame(plan))
    }
}

/// A small convolutional network.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct SmallConvolution {}

impl Method for SmallConvolution {
    const FACTS: Facts = Facts {
        name: "small-cnn",
        about: "two rounds of 3 x 3 convolution and 2 x 2 maximum, and a hidden layer",
        paper: None,
        streams: false,
    };
}

impl Backbone for SmallConvolution {
    fn design(&self, shape: &Shape, _: &TaskOptions) -> Result<Design> {
        Ok(Design::SmallCnn {
            picture: shape.picture,
            channels: shape.channels,
            classes: shape.classes,
        })
    }
}

/// Logistic regression.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct LogisticRegression {}

impl Method for LogisticRegression {
    const FACTS: Facts = Facts {
        name: "logistic-regression",
        about: "one linear map of all pixels: the floor",
        paper: None,
        streams: false,
    };
}

impl Backbone for LogisticRegression {
    fn design(&self, shape: &Shape, _: &TaskOptions) -> Result<Design> {
        Ok(Design::Pixels {
            inputs: shape.picture[0] * shape.picture[1] * shape.channels,
            classes: shape.classes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        picture: [28, 28],
        channels: 1,
        classes: 10,
    };

    #[test]
    fn the_rival_has_as_many_parameters() {
        let task = TaskOptions {
            depths: vec![2, 3],
            ..TaskOptions::default()
        };
        let count = |b: &dyn Backbone| {
            let design = b.design(&SHAPE, &task).unwrap();
            design.parameters().unwrap() as f64
        };
        let (ours, rival) = (
            count(&IFormer::default()),
            count(&VisionTransformer::default()),
        );
        assert!((ours / rival - 1.0).abs() < 0.01, "{ours} {rival}");
    }

    #[test]
    fn wrong_options_are_told() {
        let told = |b: &dyn Backbone, task: &TaskOptions, shape: &Shape| {
            b.design(shape, task)
                .and_then(|d| d.parameters())
                .unwrap_err()
                .to_string()
        };
        let task = TaskOptions::default();
        let with = |mixer: &str, window| MetaFormer {
            mixer: mixer.into(),
            window,
            ..MetaFormer::default()
        };
        assert!(told(&with("poling", 3), &task, &SHAPE).contains("pooling"));
        assert!(told(&with("pooling", 4), &task, &SHAPE).contains("even"));
        assert!(
            told(&with("pooling,pooling,pooling", 3), &task, &SHAPE).contains("3 mixers for 2")
        );
        let narrow = TaskOptions {
            widths: vec![24, 64],
            ..TaskOptions::default()
        };
        assert!(told(&with("attention", 3), &narrow, &SHAPE).contains("not a multiple of the 32"));
        let tiny = Shape {
            picture: [3, 3],
            ..SHAPE
        };
        assert!(told(&PoolFormer::default(), &task, &tiny).contains("smaller than"));
        let lengths = TaskOptions {
            depths: vec![2],
            ..TaskOptions::default()
        };
        assert!(told(&PoolFormer::default(), &lengths, &SHAPE).contains("depths"));
    }
}
