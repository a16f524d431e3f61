//! Towers: networks that turn one side of a pair into a vector, and how a side becomes their input.

use super::crop;
use super::pairs::{Pairs, Shape, Side};
use super::vocabulary;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use papertrial_core::{Error, Result};
use papertrial_nn::blocks::{Activation, Encoder, Mlp, Pool, Positions, Transformer, padding_mask};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Numbers of the vectors in which both sides meet.
pub(super) const DIM: usize = 64;

/// Numbers of the hidden layers.
const HIDDEN: usize = 128;

/// Words that a vocabulary holds at most.
const MOST_WORDS: usize = 4096;

/// Words of a text that the transformer reads at most.
const LONGEST: usize = 64;

/// Pieces of a picture that the transformer reads at most.
const MOST_PATCHES: usize = 64;

/// Kinds of towers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TowerKind {
    /// Perceptrons of one hidden layer on the pixels or the embedding, and on the words of the text.
    #[default]
    Tiny,
    /// Three convolutions for pictures, else as tiny.
    TinyCnn,
    /// Transformers: 4 layers of 128 on pieces of the picture, 2 layers of 128 on the words; else two hidden layers.
    Small,
}

impl TowerKind {
    /// Learning rate that suits it; the paper's 5e-4 for transformers.
    pub(super) fn rate(self) -> f64 {
        match self {
            TowerKind::Tiny | TowerKind::TinyCnn => 2e-3,
            TowerKind::Small => 5e-4,
        }
    }
}

/// What a tower reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reads {
    Vectors {
        width: usize,
        shape: Option<Shape>,
        /// Mean and deviation of all numbers seen in training, by which every number is scaled.
        mean: f32,
        deviation: f32,
    },
    Words {
        vocabulary: Vec<String>,
    },
}

/// Both towers, without their weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub kind: TowerKind,
    pub left: Reads,
    pub right: Reads,
}

impl Plan {
    /// Towers of a kind for pairs like these.
    ///
    /// # Errors
    /// Convolutions for something that is no picture of at least 4 x 4 pixels.
    pub fn of(kind: TowerKind, pairs: &Pairs) -> Result<Plan> {
        if kind == TowerKind::TinyCnn {
            match (&pairs.left, pairs.shape) {
                (Side::Vectors { .. }, Some(s)) if s.height >= 4 && s.width >= 4 => (),
                _ => {
                    return Err(Error::option(
                        "tower",
                        "tiny-cnn is for pictures of at least 4 x 4 pixels; take tiny, or give their channels, height and width with --set image-shape=[1,8,8]",
                    ));
                }
            }
        }
        Ok(Plan {
            kind,
            left: reads(&pairs.left, pairs.shape),
            right: reads(&pairs.right, None),
        })
    }

    /// Both sides of `pairs` as input.
    ///
    /// # Errors
    /// They are of another kind than those that the towers were made for.
    pub fn inputs(&self, pairs: &Pairs) -> Result<(Inputs, Inputs)> {
        Ok((
            self.left.inputs(&pairs.left, self.kind, "left")?,
            self.right.inputs(&pairs.right, self.kind, "right")?,
        ))
    }
}

fn reads(side: &Side, shape: Option<Shape>) -> Reads {
    match side {
        Side::Vectors { values, width } => {
            let n = values.len().max(1) as f64;
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
            let variance = values
                .iter()
                .map(|v| (f64::from(*v) - mean).powi(2))
                .sum::<f64>()
                / n;
            Reads::Vectors {
                width: *width,
                shape,
                mean: mean as f32,
                deviation: if variance > 0.0 {
                    variance.sqrt() as f32
                } else {
                    1.0
                },
            }
        }
        Side::Texts(texts) => Reads::Words {
            vocabulary: vocabulary::frequent(texts.iter().map(String::as_str), MOST_WORDS),
        },
    }
}

impl Reads {
    fn inputs(&self, side: &Side, kind: TowerKind, name: &str) -> Result<Inputs> {
        match (self, side) {
            (
                Reads::Vectors {
                    width,
                    shape,
                    mean,
                    deviation,
                },
                Side::Vectors {
                    values,
                    width: given,
                },
            ) if width == given => Ok(Inputs::Rows {
                values: values.iter().map(|v| (v - mean) / deviation).collect(),
                width: *width,
                shape: *shape,
            }),
            (Reads::Words { vocabulary }, Side::Texts(texts)) => Ok(Inputs::Words {
                numbers: vocabulary::numbers(texts, vocabulary),
                sequence: kind == TowerKind::Small,
                width: vocabulary.len() + 1,
            }),
            _ => Err(Error::BadInput(format!(
                "the {name} side of the pairs is of another kind or width than that of the pairs with which the filter was trained"
            ))),
        }
    }
}

/// One side of pairs in the form that its tower takes.
pub(super) enum Inputs {
    Rows {
        values: Vec<f32>,
        width: usize,
        shape: Option<Shape>,
    },
    Words {
        numbers: Vec<Vec<u32>>,
        sequence: bool,
        /// Words of the vocabulary and the one for all others.
        width: usize,
    },
}

/// Some rows of it on a device.
pub(super) enum Batch {
    Rows(Tensor<2>),
    Sequence {
        words: Tensor<2, Int>,
        lengths: Vec<usize>,
    },
}

impl Inputs {
    /// The rows `rows`; pictures are cropped at random if there is a generator.
    pub fn batch(&self, rows: &[usize], crops: Option<&mut ChaCha8Rng>, device: &Device) -> Batch {
        match self {
            Inputs::Rows {
                values,
                width,
                shape,
            } => {
                let mut chosen: Vec<f32> = Vec::with_capacity(rows.len() * width);
                for r in rows {
                    chosen.extend_from_slice(&values[r * width..(r + 1) * width]);
                }
                if let (Some(rng), Some(shape)) = (crops, shape) {
                    for picture in chosen.chunks_exact_mut(*width) {
                        crop::random_crop(picture, *shape, rng);
                    }
                }
                Batch::Rows(matrix(chosen, *width, device))
            }
            Inputs::Words {
                numbers,
                sequence: false,
                width,
            } => {
                let mut bags = vec![0.0; rows.len() * width];
                for (bag, r) in bags.chunks_exact_mut(*width).zip(rows) {
                    // Over the root of their number: texts of any length then have the same variance.
                    let share = 1.0 / (numbers[*r].len() as f32).sqrt();
                    for word in &numbers[*r] {
                        bag[*word as usize] += share;
                    }
                }
                Batch::Rows(matrix(bags, *width, device))
            }
            Inputs::Words {
                numbers,
                sequence: true,
                ..
            } => {
                let lengths: Vec<usize> = rows
                    .iter()
                    .map(|r| numbers[*r].len().min(LONGEST))
                    .collect();
                let longest = lengths.iter().copied().max().unwrap_or(1);
                let mut words = vec![0i32; rows.len() * longest];
                for ((line, r), length) in words.chunks_exact_mut(longest).zip(rows).zip(&lengths) {
                    for (to, word) in line.iter_mut().zip(&numbers[*r][..*length]) {
                        *to = *word as i32;
                    }
                }
                let words = TensorData::new(words, [rows.len(), longest]);
                Batch::Sequence {
                    words: Tensor::from_data(words, device),
                    lengths,
                }
            }
        }
    }
}

fn matrix(values: Vec<f32>, width: usize, device: &Device) -> Tensor<2> {
    let rows = values.len() / width.max(1);
    Tensor::from_data(TensorData::new(values, [rows, width]), device)
}

/// One tower.
#[derive(Module, Debug)]
pub(super) enum Tower {
    Perceptron(Mlp),
    Convolutions(Convolutions),
    Pieces(Pieces),
    Words(Words),
}

impl Tower {
    pub fn new(reads: &Reads, kind: TowerKind, device: &Device) -> Tower {
        let perceptron = |from: usize| {
            let widths: &[usize] = match kind {
                TowerKind::Small => &[from, HIDDEN, HIDDEN, DIM],
                _ => &[from, HIDDEN, DIM],
            };
            Tower::Perceptron(Mlp::new(widths, Activation::Relu, 0.0, device))
        };
        match (reads, kind) {
            (
                Reads::Vectors {
                    shape: Some(shape), ..
                },
                TowerKind::TinyCnn,
            ) => Tower::Convolutions(Convolutions::new(*shape, device)),
            (
                Reads::Vectors {
                    shape: Some(shape), ..
                },
                TowerKind::Small,
            ) => Tower::Pieces(Pieces::new(*shape, device)),
            (Reads::Vectors { width, .. }, _) => perceptron(*width),
            (Reads::Words { vocabulary }, TowerKind::Small) => {
                Tower::Words(Words::new(vocabulary.len() + 1, device))
            }
            (Reads::Words { vocabulary }, _) => perceptron(vocabulary.len() + 1),
        }
    }

    /// Vectors of length 1, \[rows, [`DIM`]\].
    pub fn embed(&self, batch: Batch) -> Tensor<2> {
        let z = match (self, batch) {
            (Tower::Perceptron(tower), Batch::Rows(rows)) => tower.forward(rows),
            (Tower::Convolutions(tower), Batch::Rows(rows)) => tower.forward(rows),
            (Tower::Pieces(tower), Batch::Rows(rows)) => tower.forward(rows),
            (Tower::Words(tower), Batch::Sequence { words, lengths }) => {
                tower.forward(words, &lengths)
            }
            // Inputs and towers come from one plan, so this does not happen; zeros score nothing.
            (_, Batch::Rows(rows)) => {
                let [n, _] = rows.dims();
                Tensor::zeros([n, DIM], &rows.device())
            }
            (_, Batch::Sequence { words, lengths }) => {
                Tensor::zeros([lengths.len(), DIM], &words.device())
            }
        };
        let length = (z.clone().square().sum_dim(1) + 1e-12).sqrt();
        z / length
    }
}

/// Three rounds of 3 x 3 convolution and ReLU, with 2 x 2 maximum between them, then the mean over the picture.
#[derive(Module, Debug)]
pub(super) struct Convolutions {
    layers: Vec<Conv2d>,
    pool: MaxPool2d,
    head: Linear,
    #[module(skip)]
    sizes: [usize; 3],
}

impl Convolutions {
    fn new(shape: Shape, device: &Device) -> Self {
        let conv = |from, to| {
            Conv2dConfig::new([from, to], [3, 3])
                .with_padding(PaddingConfig2d::Same)
                .init(device)
        };
        Convolutions {
            layers: vec![conv(shape.channels, 16), conv(16, 32), conv(32, 64)],
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            head: LinearConfig::new(64, DIM).init(device),
            sizes: [shape.channels, shape.height, shape.width],
        }
    }

    fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        let [n, _] = rows.dims();
        let [channels, height, width] = self.sizes;
        let mut x = rows.reshape([n, channels, height, width]);
        for (i, layer) in self.layers.iter().enumerate() {
            x = relu(layer.forward(x));
            if i < 2 {
                x = self.pool.forward(x);
            }
        }
        let x = x.flatten::<3>(2, 3).mean_dim(2).squeeze_dim::<2>(2);
        self.head.forward(x)
    }
}

/// A transformer on square pieces of a picture (the ViT), 4 layers of 128.
#[derive(Module, Debug)]
pub(super) struct Pieces {
    embed: Linear,
    positions: Positions,
    encoder: Encoder,
    head: Linear,
    #[module(skip)]
    sizes: [usize; 4],
}

fn transformer(layers: usize, device: &Device) -> Encoder {
    Transformer {
        d: HIDDEN,
        heads: 4,
        layers,
        inner: 4 * HIDDEN,
        activation: Activation::Gelu,
        dropout: 0.0,
        pre_norm: true,
    }
    .encoder(device)
}

/// Side of the pieces: the least from 2 that divides height and width and gives at most [`MOST_PATCHES`] of them; the
/// whole line of pixels where nothing does.
pub(super) fn piece(shape: Shape) -> (usize, usize) {
    let least = shape.height.min(shape.width);
    let fits = |p: &usize| {
        shape.height.is_multiple_of(*p)
            && shape.width.is_multiple_of(*p)
            && (shape.height / p) * (shape.width / p) <= MOST_PATCHES
    };
    match (2..=least).find(fits) {
        Some(p) => (p, p),
        None => (1, shape.width),
    }
}

impl Pieces {
    fn new(shape: Shape, device: &Device) -> Self {
        let (tall, wide) = piece(shape);
        let pieces = (shape.height / tall) * (shape.width / wide);
        Pieces {
            embed: LinearConfig::new(shape.channels * tall * wide, HIDDEN).init(device),
            positions: Positions::new(pieces, HIDDEN, device),
            encoder: transformer(4, device),
            head: LinearConfig::new(HIDDEN, DIM).init(device),
            sizes: [shape.channels, shape.height, shape.width, tall],
        }
    }

    fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        let [n, _] = rows.dims();
        let [channels, height, width, _] = self.sizes;
        let (tall, wide) = piece(Shape {
            channels,
            height,
            width,
        });
        let (down, across) = (height / tall, width / wide);
        // [n, c, down, tall, across, wide] to [n, down, across, c, tall, wide].
        let pieces = rows
            .reshape([n, channels, down, tall, across, wide])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([n, down * across, channels * tall * wide]);
        let x = self.positions.add(self.embed.forward(pieces));
        let x = self.encoder.forward(x, None);
        let x = x.mean_dim(1).squeeze_dim::<2>(1);
        self.head.forward(x)
    }
}

/// A transformer on words, 2 layers of 128.
#[derive(Module, Debug)]
pub(super) struct Words {
    embed: Embedding,
    positions: Positions,
    encoder: Encoder,
    head: Linear,
}

impl Words {
    fn new(words: usize, device: &Device) -> Self {
        Words {
            embed: EmbeddingConfig::new(words, HIDDEN).init(device),
            positions: Positions::new(LONGEST, HIDDEN, device),
            encoder: transformer(2, device),
            head: LinearConfig::new(HIDDEN, DIM).init(device),
        }
    }

    fn forward(&self, words: Tensor<2, Int>, lengths: &[usize]) -> Tensor<2> {
        let [_, longest] = words.dims();
        let hidden = padding_mask(lengths, longest, &words.device());
        let x = self.positions.add(self.embed.forward(words));
        let x = self.encoder.forward(x, Some(&hidden));
        self.head.forward(Pool::Mean.apply(x, lengths))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_nn::{device, seeded, values_of};

    fn pairs(shape: Shape) -> Pairs {
        let n = 3;
        Pairs {
            uids: (0..n).map(|i| i.to_string()).collect(),
            left: Side::Vectors {
                values: (0..n * shape.size())
                    .map(|i| ((i * 37) % 11) as f32)
                    .collect(),
                width: shape.size(),
            },
            right: Side::Texts(vec!["a red dog".into(), "dog".into(), "!".into()]),
            shape: Some(shape),
            labels: None,
            matches: None,
        }
    }

    const SHAPE: Shape = Shape {
        channels: 2,
        height: 8,
        width: 4,
    };

    #[test]
    fn each_kind_gives_unit_vectors_that_do_not_depend_on_the_batch() {
        let device = device("cpu").unwrap();
        let pairs = pairs(SHAPE);
        for kind in [TowerKind::Tiny, TowerKind::TinyCnn, TowerKind::Small] {
            let plan = Plan::of(kind, &pairs).unwrap();
            let (left, right) = plan.inputs(&pairs).unwrap();
            for (reads, inputs) in [(&plan.left, left), (&plan.right, right)] {
                let tower = seeded(&device, 3, |d| Tower::new(reads, kind, d)).valid();
                let embed = |rows: &[usize]| {
                    values_of(tower.embed(inputs.batch(rows, None, &device))).unwrap()
                };
                let all = embed(&[0, 1, 2]);
                assert_eq!(all.len(), 3 * DIM);
                for z in all.chunks(DIM) {
                    let length: f32 = z.iter().map(|v| v * v).sum();
                    assert!((length - 1.0).abs() < 1e-4, "{kind:?} {length}");
                }
                let alone = embed(&[1]);
                for (a, b) in alone.iter().zip(&all[DIM..2 * DIM]) {
                    assert!((a - b).abs() < 1e-5, "{kind:?}: {a} {b}");
                }
                assert_ne!(all[..DIM], all[DIM..2 * DIM]);
            }
        }
    }

    #[test]
    fn numbers_are_scaled_and_words_counted() {
        let device = device("cpu").unwrap();
        let pairs = pairs(SHAPE);
        let plan = Plan::of(TowerKind::Tiny, &pairs).unwrap();
        let (left, right) = plan.inputs(&pairs).unwrap();
        let Batch::Rows(rows) = left.batch(&[0, 1, 2], None, &device) else {
            panic!("tiny towers take rows");
        };
        let values = values_of(rows).unwrap();
        let n = values.len() as f32;
        let mean = values.iter().sum::<f32>() / n;
        let square = values.iter().map(|v| v * v).sum::<f32>() / n;
        assert!(mean.abs() < 1e-5 && (square - 1.0).abs() < 1e-4);
        let Batch::Rows(bags) = right.batch(&[0, 2], None, &device) else {
            panic!("tiny towers take rows");
        };
        // The words by frequency: dog, a, red; the text without words is the place of all others.
        let third = 1.0 / 3f32.sqrt();
        assert_eq!(
            values_of(bags).unwrap(),
            [0.0, third, third, third, 1.0, 0.0, 0.0, 0.0]
        );
    }

    #[test]
    fn pieces_divide_the_picture() {
        let of = |height, width| {
            piece(Shape {
                channels: 1,
                height,
                width,
            })
        };
        assert_eq!(of(8, 8), (2, 2));
        assert_eq!(of(28, 28), (4, 4));
        assert_eq!(of(32, 48), (8, 8));
        assert_eq!(of(7, 5), (1, 5));
    }

    /// The first piece of the picture reaches only the first position: with a picture that is zero elsewhere, other
    /// positions hold the bias alone.
    #[test]
    fn a_piece_holds_its_pixels() {
        let device = device("cpu").unwrap();
        let shape = Shape {
            channels: 1,
            height: 4,
            width: 4,
        };
        let x: Vec<f32> = (0..16).map(|i| i as f32).collect();
        let (down, across, p) = (2, 2, 2);
        let pieces = matrix(x, 16, &device)
            .reshape([1, 1, down, p, across, p])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([down * across, p * p]);
        assert_eq!(piece(shape), (2, 2));
        assert_eq!(
            values_of(pieces).unwrap(),
            [
                0., 1., 4., 5., 2., 3., 6., 7., 8., 9., 12., 13., 10., 11., 14., 15.
            ]
        );
    }

    #[test]
    fn other_pairs_and_no_pictures_are_refused() {
        let plan = Plan::of(TowerKind::Tiny, &pairs(SHAPE)).unwrap();
        let other = pairs(Shape {
            channels: 1,
            ..SHAPE
        });
        assert!(plan.inputs(&other).is_err());
        let mut flat = pairs(SHAPE);
        flat.shape = None;
        let text = Plan::of(TowerKind::TinyCnn, &flat).unwrap_err().to_string();
        assert!(text.contains("image-shape"), "{text}");
        assert!(Plan::of(TowerKind::Small, &flat).is_ok());
    }
}
