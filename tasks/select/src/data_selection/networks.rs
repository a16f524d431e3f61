//! The models that are trained: softmax regression, a network with a hidden layer, and two convolutional networks.
//!
//! All are trained alike, whoever chooses the rows: stochastic gradient descent with Nesterov momentum .9, weight decay
//! 5e-4 and a learning rate that falls along a cosine to 1e-4 over the steps that are really taken (the recipe of the
//! paper's authors). Steps have `batch` rows; the last of a round has what is left. Pictures may be mirrored and moved
//! by up to 4 points at random, anew in each step, as the authors do.

use super::pool::{Look, Trainer, View};
use super::resnet::{ResNet18, WIDTH};
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use ndarray::{Array2, ArrayView2};
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use papertrial_nn::blocks::{Activation, Mlp, SmallCnn};
use papertrial_nn::train::{Fit, Optimiser, Schedule, Training};
use papertrial_nn::{classes_of, cross_entropy, device, rows_of, seeded, values_of};
use papertrial_numerics::sampling::rng;
use rand::{Rng, RngExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cell::Cell;

/// Kinds of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    /// Softmax regression.
    Softmax,
    /// One hidden layer with ReLU.
    Mlp,
    /// Two rounds of convolution and maximum, and a hidden layer, on square pictures.
    Cnn,
    /// ResNet-18 for small square pictures; hopeless without a GPU.
    #[serde(rename = "resnet18")]
    Resnet18,
}

/// What a model is, and how it is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recipe {
    /// Kind of model.
    pub model: ModelKind,
    /// Numbers of the hidden layer of [`ModelKind::Mlp`].
    pub hidden: usize,
    /// Colours of the pictures of convolutional networks, whose columns are colour by colour, line by line.
    pub channels: usize,
    /// Mirror and move pictures at random while training.
    pub augment: bool,
    /// Rows of a step.
    pub batch: usize,
    /// Learning rate of the first step.
    pub learning_rate: f64,
}

/// A model.
#[derive(Module, Debug)]
pub enum Net {
    /// Softmax regression or a hidden layer.
    Mlp(Mlp),
    /// Small pictures.
    Cnn(SmallCnn),
    /// Small pictures, in depth.
    Resnet18(ResNet18),
}

/// The learning rate that the cosine goes down to.
const FLOOR: f64 = 1e-4;

/// Numbers of the rows that are looked at together.
const LOOK: usize = 1 << 19;

/// Points by which a picture is moved at most.
const MOVE: i32 = 4;

/// Trains models on a pool.
pub struct Networks<'a> {
    recipe: Recipe,
    classes: usize,
    /// Columns of the pool, row by row, and their number.
    x: &'a [f32],
    width: usize,
    labels: &'a [usize],
    /// Side of a picture.
    side: usize,
    device: Device,
    context: &'a Context<'a>,
}

impl<'a> Networks<'a> {
    /// For the rows `x`, [n, `width`] row by row, of classes `labels`.
    ///
    /// # Errors
    /// A device that is not there; columns that make no square pictures where the model needs them.
    pub fn new(
        recipe: Recipe,
        x: &'a [f32],
        width: usize,
        labels: &'a [usize],
        classes: usize,
        context: &'a Context<'a>,
    ) -> Result<Self> {
        let side = match recipe.model {
            ModelKind::Cnn | ModelKind::Resnet18 => side(width, recipe.channels)?,
            _ if recipe.augment => {
                return Err(Error::option(
                    "augment",
                    "is for pictures, which the models cnn and resnet18 take",
                ));
            }
            _ => 0,
        };
        Ok(Networks {
            recipe,
            classes,
            x,
            width,
            labels,
            side,
            device: device(&context.device)?,
            context,
        })
    }

    /// Rows of a step.
    pub fn batch(&self) -> usize {
        self.recipe.batch
    }

    /// How models are trained for `epochs` epochs.
    pub fn training(&self, seed: u64, epochs: usize) -> Training {
        Training {
            epochs,
            batch: self.recipe.batch,
            learning_rate: self.recipe.learning_rate,
            optimiser: Optimiser::Sgd {
                momentum: 0.9,
                nesterov: true,
                weight_decay: 5e-4,
            },
            schedule: Schedule::Cosine {
                floor: FLOOR.min(self.recipe.learning_rate),
            },
            clip: None,
            patience: None,
            seed,
        }
    }

    /// A new model, its weights drawn from `seed`.
    pub fn fresh(&self, seed: u64) -> Net {
        let Recipe {
            hidden, channels, ..
        } = self.recipe;
        seeded(&self.device, seed, |d| match self.recipe.model {
            ModelKind::Softmax => Net::Mlp(Mlp::new(
                &[self.width, self.classes],
                Activation::Relu,
                0.0,
                d,
            )),
            ModelKind::Mlp => Net::Mlp(Mlp::new(
                &[self.width, hidden, self.classes],
                Activation::Relu,
                0.0,
                d,
            )),
            ModelKind::Cnn => Net::Cnn(SmallCnn::new(
                channels,
                self.side,
                self.side,
                self.classes,
                d,
            )),
            ModelKind::Resnet18 => Net::Resnet18(ResNet18::new(channels, self.classes, WIDTH, d)),
        })
    }

    /// The loss of a training: the cross-entropy of rows of the pool, `[rows]`, on the device of training. It counts its
    /// calls: pictures are changed by `seed` and the number of the step.
    pub fn loss(&self, seed: u64) -> impl Fn(&Net, &[usize]) -> Tensor<1> {
        let step = Cell::new(0u64);
        move |model, rows| {
            let device = self.device.clone().autodiff();
            let x = if self.recipe.augment {
                let mut draws = rng(seed, &format!("pictures of step {}", step.get()));
                step.set(step.get() + 1);
                let (channels, side) = (self.recipe.channels, self.side);
                let pictures: Vec<f32> = rows
                    .iter()
                    .flat_map(|r| {
                        let picture = &self.x[r * self.width..(r + 1) * self.width];
                        moved(picture, channels, side, &mut draws)
                    })
                    .collect();
                let places: Vec<usize> = (0..rows.len()).collect();
                rows_of(&pictures, self.width, &places, &device)
            } else {
                rows_of(self.x, self.width, rows, &device)
            };
            let classes: Tensor<1, Int> = classes_of(rows.iter().map(|r| self.labels[*r]), &device);
            let (_, logits) = self.forward(model, x);
            cross_entropy(logits, classes)
        }
    }

    /// Share of the rows x, [m, width] row by row, whose class is the likeliest; of equally likely ones the first counts.
    ///
    /// # Errors
    /// A device that fails.
    pub fn accuracy(&self, model: &Net, x: &[f32], labels: &[usize]) -> Result<f64> {
        let (_, logits) = self.look(model, x, labels.len())?;
        let right = logits.outer_iter().zip(labels).filter(|(row, label)| {
            let mut best = 0;
            for class in 1..row.len() {
                if row[class] > row[best] {
                    best = class;
                }
            }
            best == **label
        });
        Ok(right.count() as f64 / labels.len().max(1) as f64)
    }

    /// The model's view of the pool.
    ///
    /// # Errors
    /// A device that fails.
    pub fn view(&self, model: &Net) -> Result<View> {
        let (features, logits) = self.look(model, self.x, self.labels.len())?;
        let head = match model {
            Net::Mlp(mlp) => mlp.head(),
            Net::Cnn(cnn) => Some(cnn.head()),
            Net::Resnet18(net) => Some(net.head()),
        };
        let head = head.ok_or_else(|| Error::Failed("the model has no last layer".into()))?;
        let [h, c] = head.weight.val().dims();
        Ok(View {
            features,
            logits,
            head: matrix(values_of(head.weight.val())?, h, c)?,
        })
    }

    /// Features and logits of the n rows x.
    fn look(&self, model: &Net, x: &[f32], n: usize) -> Result<(Array2<f32>, Array2<f32>)> {
        let (mut features, mut logits) = (Vec::new(), Vec::new());
        let rows: Vec<usize> = (0..n).collect();
        for rows in rows.chunks((LOOK / self.width.max(1)).max(1)) {
            let (f, l) = self.forward(model, rows_of(x, self.width, rows, &self.device));
            features.extend(values_of(f)?);
            logits.extend(values_of(l)?);
        }
        let h = features.len() / n.max(1);
        Ok((matrix(features, n, h)?, matrix(logits, n, self.classes)?))
    }

    /// What the last layer gets and gives, [b, h] and [b, c].
    fn forward(&self, model: &Net, x: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        match model {
            Net::Mlp(mlp) => {
                let hidden = mlp.hidden(x);
                let logits = match mlp.head() {
                    Some(head) => head.forward(hidden.clone()),
                    None => hidden.clone(),
                };
                (hidden, logits)
            }
            Net::Cnn(cnn) => {
                let hidden = cnn.hidden(self.pictures(x));
                (hidden.clone(), cnn.head().forward(hidden))
            }
            Net::Resnet18(net) => {
                let hidden = net.hidden(self.pictures(x));
                (hidden.clone(), net.head().forward(hidden))
            }
        }
    }

    /// [b, width] to [b, channels, side, side].
    fn pictures(&self, x: Tensor<2>) -> Tensor<4> {
        let b = x.dims()[0];
        x.reshape([b, self.recipe.channels, self.side, self.side])
    }
}

/// A picture mirrored or not, and moved by up to [`MOVE`] points each way; zeros come in from the border.
fn moved(picture: &[f32], channels: usize, side: usize, draws: &mut impl Rng) -> Vec<f32> {
    let mirror: bool = draws.random();
    let down = draws.random_range(-MOVE..=MOVE);
    let right = draws.random_range(-MOVE..=MOVE);
    let mut found = Vec::with_capacity(picture.len());
    for channel in 0..channels {
        for i in 0..side {
            for j in 0..side {
                let from = if mirror { side - 1 - j } else { j };
                let (line, column) = (
                    i.checked_add_signed(down as isize),
                    from.checked_add_signed(right as isize),
                );
                found.push(match (line, column) {
                    (Some(l), Some(c)) if l < side && c < side => {
                        picture[(channel * side + l) * side + c]
                    }
                    _ => 0.0,
                });
            }
        }
    }
    found
}

impl Trainer for Networks<'_> {
    fn train(
        &self,
        seed: u64,
        epochs: usize,
        each: &mut dyn FnMut(usize, &Look) -> Result<()>,
    ) -> Result<()> {
        let training = self.training(seed, epochs);
        Fit::new(&training, self.context)
            .named("scoring model")
            .rows(self.labels.len())
            .watch(|epoch| {
                each(epoch.epoch, &|| self.view(epoch.model))?;
                Ok(None)
            })
            .run(self.fresh(seed), self.loss(seed))?;
        Ok(())
    }
}

/// Columns [n, width] as they are trained on.
pub fn flat(x: ArrayView2<f32>) -> Vec<f32> {
    x.iter().copied().collect()
}

fn matrix(values: Vec<f32>, rows: usize, width: usize) -> Result<Array2<f32>> {
    Array2::from_shape_vec((rows, width), values).map_err(|e| Error::Failed(e.to_string()))
}

fn side(width: usize, channels: usize) -> Result<usize> {
    let side = ((width / channels.max(1)) as f64).sqrt().round() as usize;
    if channels * side * side == width && side >= 4 {
        Ok(side)
    } else {
        Err(Error::option(
            "model",
            format!(
                "cnn and resnet18 need square pictures of at least 4 x 4; {width} columns make none with channels = {channels}"
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(model: ModelKind) -> Recipe {
        Recipe {
            model,
            hidden: 8,
            channels: 1,
            augment: false,
            batch: 5,
            learning_rate: 0.1,
        }
    }

    /// Two heaps of 16 columns.
    fn rows(n: usize) -> (Vec<f32>, Vec<usize>) {
        let x = (0..n * 16).map(|i| {
            let (row, column) = (i / 16, i % 16);
            ((row * 13 + column * 7) % 5) as f32 / 5.0 + if row % 2 == 0 { 1.0 } else { -1.0 }
        });
        (x.collect(), (0..n).map(|i| i % 2).collect())
    }

    #[test]
    fn each_model_learns_two_heaps_and_shows_what_it_sees() {
        let (x, labels) = rows(23);
        let context = Context::with_seed(0);
        for (model, h) in [
            (ModelKind::Softmax, 16),
            (ModelKind::Mlp, 8),
            (ModelKind::Cnn, 128),
        ] {
            let nets = Networks::new(recipe(model), &x, 16, &labels, 2, &context).unwrap();
            let mut epochs = Vec::new();
            let mut last = None;
            nets.train(3, 4, &mut |epoch, look| {
                epochs.push(epoch);
                last = Some(look()?);
                Ok(())
            })
            .unwrap();
            assert_eq!(epochs, [0, 1, 2, 3]);
            let view = last.unwrap();
            assert_eq!(view.features.dim(), (23, h));
            assert_eq!(view.head.dim(), (h, 2));
            let right = view.errors(&labels).iter().all(|e| e.abs() < 0.5);
            assert!(right, "{model:?}: {}", view.errors(&labels));
            // The logits are the features times the head, up to an offset for each class.
            let off = &view.logits - &view.features.dot(&view.head);
            for class in 0..2 {
                let column = off.column(class);
                assert!(
                    column.iter().all(|v| (v - column[0]).abs() < 1e-4),
                    "{column}"
                );
            }
        }
    }

    #[test]
    fn losses_are_the_cross_entropy_of_the_view() {
        let (x, labels) = rows(9);
        let context = Context::with_seed(0);
        let nets = Networks::new(recipe(ModelKind::Mlp), &x, 16, &labels, 2, &context).unwrap();
        let model = nets.fresh(1);
        let losses = values_of(nets.loss(0)(&model, &[4, 7])).unwrap();
        let view = nets.view(&model.valid()).unwrap();
        let p = view.probabilities();
        for (loss, row) in losses.iter().zip([4, 7]) {
            assert!((loss + p[[row, labels[row]]].ln()).abs() < 1e-5);
        }
        let accuracy = nets.accuracy(&model.valid(), &x, &labels).unwrap();
        let right = view.errors(&labels);
        let right = (0..9).filter(|i| right[[*i, labels[*i]]] > -0.5).count();
        assert!((accuracy - right as f64 / 9.0).abs() < 1e-12);
    }

    #[test]
    fn pictures_are_moved_by_the_seed_and_the_step() {
        // A picture of 5 x 5 in two colours that tells where each point came from.
        let picture: Vec<f32> = (1..=50).map(|v| v as f32).collect();
        let mut draws = rng(0, "test");
        let mut kinds = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let found = moved(&picture, 2, 5, &mut draws);
            let kept: Vec<(usize, f32)> = found
                .iter()
                .copied()
                .enumerate()
                .filter(|(_, v)| *v > 0.0)
                .collect();
            // The colours move alike.
            let (first, second) = kept.split_at(kept.len() / 2);
            assert!(
                first
                    .iter()
                    .zip(second)
                    .all(|(a, b)| (a.0 + 25, a.1 + 25.0) == *b)
            );
            kinds.insert(found.iter().map(|v| *v as usize).collect::<Vec<_>>());
        }
        // Mirrored or not, nine by nine places.
        assert!(kinds.len() > 100 && kinds.len() <= 162, "{}", kinds.len());

        let (x, labels) = rows(9);
        let context = Context::with_seed(0);
        let recipe = Recipe {
            augment: true,
            ..recipe(ModelKind::Cnn)
        };
        let nets = Networks::new(recipe, &x, 16, &labels, 2, &context).unwrap();
        let model = nets.fresh(1);
        let loss = nets.loss(3);
        let of = |loss: &dyn Fn(&Net, &[usize]) -> Tensor<1>| {
            values_of(loss(&model, &[0, 1, 2])).unwrap()
        };
        let (first, second) = (of(&loss), of(&loss));
        assert_ne!(first, second);
        assert_eq!(first, of(&nets.loss(3)));
        let mlp = Recipe {
            model: ModelKind::Mlp,
            ..recipe
        };
        let e = Networks::new(mlp, &x, 16, &labels, 2, &context)
            .err()
            .unwrap();
        assert!(e.to_string().contains("augment"), "{e}");
    }

    #[test]
    fn columns_that_are_no_pictures_and_devices_that_are_not_there() {
        let context = Context::with_seed(0);
        let wrong = |width, channels| {
            let recipe = Recipe {
                channels,
                ..recipe(ModelKind::Cnn)
            };
            Networks::new(recipe, &[], width, &[], 2, &context).err()
        };
        for (width, channels) in [(63, 1), (9, 1), (64, 3), (0, 1), (64, 0)] {
            let e = wrong(width, channels).unwrap().to_string();
            assert!(e.contains("square pictures"), "{e}");
        }
        assert!(wrong(3 * 64, 3).is_none());
        let context = Context {
            device: "abacus".into(),
            ..Context::with_seed(0)
        };
        assert!(Networks::new(recipe(ModelKind::Mlp), &[], 1, &[], 2, &context).is_err());
    }
}
