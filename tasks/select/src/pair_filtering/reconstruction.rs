//! Reconstruction filter: a masked autoencoder of pairs, trained on trusted ones; keeps the pairs that it fills in best.
//!
//! One of the alternatives that Fang et al., *Data Filtering Networks*, ICLR 2024, arXiv 2309.17425, compare with the
//! contrastive filter. They take M3AE (Geng et al., *Multimodal Masked Autoencoders Learn Transferable Representations*,
//! arXiv 2205.14204), which masks 75 % of the pieces of the picture and of the words; here a perceptron does the work.
//!
//! 1. Mask: each piece of a picture (each of up to 16 runs of an embedding) and each word is hidden with probability m, at
//!    least one of each side.
//! 2. Input: what is left of both sides, and which pieces are hidden. Two hidden layers of 256. Output: all numbers of
//!    the image, and a distribution over words.
//! 3. Loss: mean squared error of the hidden numbers, plus w times the cross-entropy of the hidden words. AdamW on the
//!    trusted pairs.
//! 4. Score: less the mean loss over some masks, drawn anew from each pair's uid. Keep the best.
//!
//! Cost: about 2 x 256 (p + v + 256) multiplications a pair and mask, p numbers of an image and v words known.

use super::filter::{PairFilter, Scorer, Sets, Trained};
use super::net::Lessons;
use super::order::Order;
use super::pairs::{Pairs, Shape};
use super::towers::{Inputs, Plan, TowerKind, piece};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use papertrial_core::Result;
use papertrial_core::task::{Context, Curve, Facts, Method};
use papertrial_nn::blocks::{Activation, Mlp};
use papertrial_nn::train::{Optimiser, Schedule, Stepper, Training};
use papertrial_nn::{device, ops, seeded, values_of};
use papertrial_numerics::sampling::rng;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Numbers of a hidden layer.
const HIDDEN: usize = 256;

/// Most pieces of an embedding.
const RUNS: usize = 16;

/// Reconstruction filter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ReconstructionFilter {
    /// Probability of hiding a piece or a word.
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1.0))]
    pub mask: f64,
    /// Weight of the words in the loss.
    #[schemars(range(min = 0.0))]
    pub text_weight: f64,
    /// Masks over which a score is the mean.
    #[schemars(range(min = 1, max = 1000))]
    pub masks: usize,
    /// How many trusted pairs, drawn at random; all if absent.
    #[schemars(range(min = 1))]
    pub train_pairs: Option<usize>,
    /// Pairs seen in training.
    #[schemars(range(min = 1))]
    pub samples: usize,
    /// Pairs of a step.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Learning rate at the start.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Pull of the weights to 0, times the learning rate.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
}

impl Default for ReconstructionFilter {
    fn default() -> Self {
        let lessons = Lessons::default();
        ReconstructionFilter {
            mask: 0.75,
            text_weight: 0.5,
            masks: 8,
            train_pairs: None,
            samples: 20_000,
            batch: lessons.batch,
            learning_rate: lessons.learning_rate,
            weight_decay: lessons.weight_decay,
        }
    }
}

impl Method for ReconstructionFilter {
    const FACTS: Facts = Facts {
        name: "reconstruction-filter",
        about: "a masked autoencoder, trained on trusted pairs, scores the pool by how well it fills in hidden parts",
        paper: None,
        streams: true,
    };
}

/// How one side is hidden and compared.
enum Layout {
    /// Piece of each number, and the number of pieces.
    Numbers { pieces: Vec<usize>, count: usize },
    /// Width of the bag of words.
    Words { width: usize },
}

impl Layout {
    fn of(inputs: &Inputs) -> Layout {
        match inputs {
            Inputs::Words { width, .. } => Layout::Words { width: *width },
            Inputs::Rows { width, shape, .. } => {
                let pieces: Vec<usize> = match shape {
                    Some(shape) => (0..*width).map(|i| piece_of(i, *shape)).collect(),
                    None => {
                        let run = width.div_ceil(RUNS).max(1);
                        (0..*width).map(|i| i / run).collect()
                    }
                };
                let count = pieces.iter().max().map_or(0, |p| p + 1);
                Layout::Numbers { pieces, count }
            }
        }
    }

    /// Numbers that it adds to the input.
    fn input(&self) -> usize {
        match self {
            Layout::Numbers { pieces, count } => pieces.len() + count,
            Layout::Words { width } => *width,
        }
    }

    /// Numbers that it takes of the output.
    fn output(&self) -> usize {
        match self {
            Layout::Numbers { pieces, .. } => pieces.len(),
            Layout::Words { width } => *width,
        }
    }
}

/// Piece of a number of a picture, all channels together.
fn piece_of(i: usize, shape: Shape) -> usize {
    let (tall, wide) = piece(shape);
    let at = i % (shape.height * shape.width);
    let (row, column) = (at / shape.width, at % shape.width);
    (row / tall) * (shape.width / wide) + column / wide
}

/// Hidden things of `count`, each with probability `share`, at least one.
fn hide(count: usize, share: f64, rng: &mut ChaCha8Rng) -> Vec<bool> {
    let mut hidden: Vec<bool> = (0..count).map(|_| rng.random::<f64>() < share).collect();
    if count > 0 && !hidden.contains(&true) {
        hidden[rng.random_range(0..count)] = true;
    }
    hidden
}

/// Rows of a batch: what goes in, what should come out, and the weight of each number of that.
#[derive(Default)]
struct Masked {
    input: Vec<f32>,
    wanted: [Vec<f32>; 2],
    weight: [Vec<f32>; 2],
}

impl Masked {
    /// Step 1 for one side of one row.
    fn push(
        &mut self,
        side: usize,
        inputs: &Inputs,
        layout: &Layout,
        row: usize,
        share: f64,
        rng: &mut ChaCha8Rng,
    ) {
        let (wanted, weight) = (&mut self.wanted[side], &mut self.weight[side]);
        match (inputs, layout) {
            (Inputs::Rows { values, width, .. }, Layout::Numbers { pieces, count }) => {
                let values = &values[row * width..(row + 1) * width];
                let hidden = hide(*count, share, rng);
                let of = pieces.iter().filter(|p| hidden[**p]).count().max(1) as f32;
                for (value, piece) in values.iter().zip(pieces) {
                    let is_hidden = hidden[*piece];
                    self.input.push(if is_hidden { 0.0 } else { *value });
                    wanted.push(*value);
                    weight.push(if is_hidden { 1.0 / of } else { 0.0 });
                }
                self.input
                    .extend(hidden.iter().map(|h| f32::from(u8::from(*h))));
            }
            (Inputs::Words { numbers, .. }, Layout::Words { width }) => {
                let words = &numbers[row];
                let hidden = hide(words.len(), share, rng);
                let of = hidden.iter().filter(|h| **h).count().max(1) as f32;
                let start = self.input.len();
                self.input.resize(start + width, 0.0);
                let target = wanted.len();
                wanted.resize(target + width, 0.0);
                for (word, is_hidden) in words.iter().zip(hidden) {
                    if is_hidden {
                        wanted[target + *word as usize] += 1.0 / of;
                    } else {
                        self.input[start + *word as usize] += 1.0;
                    }
                }
            }
            // Layouts come from the inputs themselves.
            _ => (),
        }
    }
}

#[derive(Module, Debug)]
struct Autoencoder {
    layers: Mlp,
}

/// Steps 2 and 3 for rows whose masks are drawn by `generator`, given a row's number: the loss of each, \[rows\].
struct Reading<'a> {
    sides: [&'a Inputs; 2],
    layouts: [Layout; 2],
    mask: f64,
    text_weight: f64,
}

impl Reading<'_> {
    fn losses(
        &self,
        model: &Autoencoder,
        rows: &[usize],
        mut generator: impl FnMut(usize) -> ChaCha8Rng,
        device: &Device,
    ) -> Tensor<1> {
        let mut masked = Masked::default();
        for row in rows {
            let mut rng = generator(*row);
            for side in 0..2 {
                masked.push(
                    side,
                    self.sides[side],
                    &self.layouts[side],
                    *row,
                    self.mask,
                    &mut rng,
                );
            }
        }
        let n = rows.len();
        let matrix = |values: Vec<f32>, width: usize| {
            Tensor::<2>::from_data(TensorData::new(values, [n, width]), device)
        };
        let width: usize = self.layouts.iter().map(Layout::input).sum();
        let output = model.layers.forward(matrix(masked.input, width));
        let mut total: Option<Tensor<1>> = None;
        let mut start = 0;
        let sides = self.layouts.iter().zip(masked.wanted).zip(masked.weight);
        for ((layout, wanted), weight) in sides {
            let width = layout.output();
            let guess = output.clone().narrow(1, start, width);
            let wanted = matrix(wanted, width);
            start += width;
            let loss = match layout {
                Layout::Numbers { .. } => (guess - wanted).square() * matrix(weight, width),
                Layout::Words { .. } => {
                    ops::log_softmax(guess) * wanted * (-self.text_weight as f32)
                }
            };
            let loss = loss.sum_dim(1).squeeze_dim::<1>(1);
            total = Some(match total {
                Some(total) => total + loss,
                None => loss,
            });
        }
        total.unwrap_or_else(|| Tensor::zeros([n], device))
    }
}

struct ReconstructionScorer {
    plan: Plan,
    model: Autoencoder,
    options: ReconstructionFilter,
    seed: u64,
}

impl Scorer for ReconstructionScorer {
    fn score(&self, pairs: &Pairs, context: &Context) -> Result<Vec<f32>> {
        let device = device(&context.device)?;
        let (left, right) = self.plan.inputs(pairs)?;
        let reading = Reading {
            layouts: [Layout::of(&left), Layout::of(&right)],
            sides: [&left, &right],
            mask: self.options.mask,
            text_weight: self.options.text_weight,
        };
        let rows: Vec<usize> = (0..pairs.len()).collect();
        let mut scores = vec![0.0; rows.len()];
        for (chunk, scores) in rows.chunks(1024).zip(scores.chunks_mut(1024)) {
            for mask in 0..self.options.masks {
                let of_pair =
                    |row: usize| rng(self.seed, &format!("mask {mask} of {}", pairs.uids[row]));
                let losses = values_of(reading.losses(&self.model, chunk, of_pair, &device))?;
                for (score, loss) in scores.iter_mut().zip(losses) {
                    *score -= loss / self.options.masks as f32;
                }
            }
        }
        Ok(scores)
    }
}

impl PairFilter for ReconstructionFilter {
    fn train(&self, sets: &Sets, context: &Context) -> Result<Trained> {
        let clean = sets.trusted(self.train_pairs, self.batch)?;
        let plan = Plan::of(TowerKind::Tiny, &clean)?;
        let plain = device(&context.device)?;
        let (left, right) = plan.inputs(&clean)?;
        let reading = Reading {
            layouts: [Layout::of(&left), Layout::of(&right)],
            sides: [&left, &right],
            mask: self.mask,
            text_weight: self.text_weight,
        };
        let widths = [
            reading.layouts.iter().map(Layout::input).sum(),
            HIDDEN,
            HIDDEN,
            reading.layouts.iter().map(Layout::output).sum(),
        ];
        let mut model = seeded(&plain, sets.seed, |d| Autoencoder {
            layers: Mlp::new(&widths, Activation::Relu, 0.0, d),
        });
        let steps = self.samples.div_ceil(self.batch);
        let training = Training {
            batch: self.batch,
            learning_rate: self.learning_rate,
            optimiser: Optimiser::AdamW {
                weight_decay: self.weight_decay,
            },
            schedule: Schedule::Cosine { floor: 0.0 },
            ..Training::default()
        };
        let auto = plain.autodiff();
        let mut stepper = Stepper::new(&training, steps);
        let mut order = Order::new(clean.len(), sets.seed, "order of pairs");
        let mut points = Vec::new();
        for step in 0..steps {
            context.step("training the autoencoder", step, steps);
            let rows = order.take(self.batch);
            let mut drawn = 0;
            let generator = |_| {
                drawn += 1;
                rng(sets.seed, &format!("mask {drawn} of step {step}"))
            };
            let loss = reading.losses(&model, &rows, generator, &auto).mean();
            let (next, value) = stepper.step(model, loss)?;
            model = next;
            points.push((((step + 1) * self.batch) as f64, f64::from(value)));
        }
        let scorer = ReconstructionScorer {
            model: model.valid(),
            options: self.clone(),
            seed: sets.seed,
            plan,
        };
        Ok(Trained {
            curves: vec![Curve {
                name: "loss: training the autoencoder".into(),
                x: "pairs seen".into(),
                y: "loss".into(),
                points,
            }],
            ..Trained::best(scorer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::pairs::Side;
    use super::*;

    #[test]
    fn pieces_of_pictures_and_embeddings() {
        let shape = Shape {
            channels: 2,
            height: 4,
            width: 4,
        };
        let of: Vec<usize> = (0..32).map(|i| piece_of(i, shape)).collect();
        assert_eq!(of[..8], [0, 0, 1, 1, 0, 0, 1, 1]);
        assert_eq!(of[8..16], [2, 2, 3, 3, 2, 2, 3, 3]);
        assert_eq!(of[16..], of[..16]);
        let rows = Inputs::Rows {
            values: vec![0.0; 40],
            width: 40,
            shape: None,
        };
        let Layout::Numbers { pieces, count } = Layout::of(&rows) else {
            panic!("numbers have pieces");
        };
        assert_eq!((count, pieces[2], pieces[3], pieces[39]), (14, 0, 1, 13));
    }

    #[test]
    fn masks_hide_something_and_only_that_is_compared() {
        let rows = Inputs::Rows {
            values: vec![1.0, 2.0, 3.0, 4.0],
            width: 4,
            shape: None,
        };
        let layout = Layout::of(&rows);
        let words = Inputs::Words {
            numbers: vec![vec![1, 2, 2]],
            sequence: false,
            width: 3,
        };
        for seed in 0..30 {
            let mut masked = Masked::default();
            let mut rng = rng(seed, "test");
            masked.push(0, &rows, &layout, 0, 0.5, &mut rng);
            assert_eq!(masked.input.len(), 8);
            assert_eq!(masked.wanted[0], [1.0, 2.0, 3.0, 4.0]);
            assert!((masked.weight[0].iter().sum::<f32>() - 1.0).abs() < 1e-6);
            for i in 0..4 {
                let hidden = masked.input[4 + i] == 1.0;
                assert_eq!(hidden, masked.weight[0][i] > 0.0);
                assert_eq!(masked.input[i] == 0.0, hidden);
            }
            masked.push(1, &words, &Layout::of(&words), 0, 0.5, &mut rng);
            assert!((masked.wanted[1].iter().sum::<f32>() - 1.0).abs() < 1e-6);
            let left: f32 = masked.input[8..].iter().sum();
            let hidden = 3.0 - left;
            assert!(hidden >= 1.0);
            // Word 2 stands twice: what is left of it and what is hidden of it make two.
            assert!((masked.input[10] + masked.wanted[1][2] * hidden - 2.0).abs() < 1e-5);
        }
        assert!(hide(5, 1.0, &mut rng(0, "test")).iter().all(|h| *h));
    }

    /// Vectors of which the word names the direction: a wrong word cannot be filled in.
    #[test]
    fn wrong_pairs_are_filled_in_worse() {
        let names = ["north", "east", "south", "west"];
        let pairs = |n: usize, wrong: usize| Pairs {
            uids: (0..n).map(|i| i.to_string()).collect(),
            left: Side::Vectors {
                values: (0..n)
                    .flat_map(|i| (0..4).map(move |j| if j == i % 4 { 1.0 } else { 0.0 }))
                    .collect(),
                width: 4,
            },
            right: Side::Texts(
                (0..n)
                    .map(|i| names[(i % 4 + usize::from(i < wrong)) % 4].to_owned())
                    .collect(),
            ),
            shape: None,
            labels: None,
            matches: None,
        };
        let (pool, clean) = (pairs(40, 20), pairs(32, 0));
        let sets = Sets {
            pool: &pool,
            clean: Some(&clean),
            fine_tune: None,
            seed: 1,
        };
        let context = Context::with_seed(1);
        let filter = ReconstructionFilter {
            mask: 0.5,
            samples: 3_200,
            batch: 32,
            learning_rate: 1e-2,
            ..ReconstructionFilter::default()
        };
        let trained = filter.train(&sets, &context).unwrap();
        let scores = trained.scorer.score(&pool, &context).unwrap();
        let mean = |part: &[f32]| part.iter().sum::<f32>() / part.len() as f32;
        assert!(
            mean(&scores[20..]) > mean(&scores[..20]) + 0.1,
            "{scores:?}"
        );
        // A score belongs to the pair, whatever stands beside it.
        let alone = trained.scorer.score(&pool.select(&[7]), &context).unwrap();
        assert!((alone[0] - scores[7]).abs() < 1e-4);
    }
}
