//! Training a model and measuring it.

use super::TaskOptions;
use super::model::{Model, ModelOptions, tokens_of};
use super::rows::Rows;
use crate::mixers::Choice;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use papertrial_core::Result;
use papertrial_core::task::{Context, Curve};
use papertrial_nn::train::{Fit, Optimiser, Schedule, Training};
use papertrial_nn::{cross_entropy, device, try_seeded, values_of};
use papertrial_numerics::sampling::{permutation, rng};
use std::time::Instant;

/// Steps between two looks at the test sequences, about.
const PASS: usize = 100;
/// Test sequences of such a look.
const LOOK: usize = 256;
/// Test sequences in one go.
const TEST_BATCH: usize = 128;

/// A trained model.
pub struct Trained {
    /// The model, on the plain device.
    pub model: Model,
    /// Its sizes.
    pub options: ModelOptions,
    /// Loss and accuracy while training.
    pub curves: Vec<Curve>,
    /// Seconds of a step.
    pub seconds_per_step: f64,
    /// Steps taken.
    pub steps: usize,
}

impl Trained {
    /// The number of weights.
    pub fn parameters(&self) -> usize {
        self.model.num_params()
    }
}

/// The sizes of a model for these sequences.
pub fn sizes(choice: &Choice, rows: &Rows, asked: &TaskOptions) -> ModelOptions {
    ModelOptions {
        choice: choice.clone(),
        d: asked.d,
        layers: asked.layers,
        shift: asked.shift,
        dropout: asked.dropout,
        vocabulary: rows.vocabulary,
        length: rows.length,
    }
}

/// Trains a model with the mixer `choice` on the training sequences.
///
/// # Errors
/// Sizes that do not fit, a device that is not there, or a training that diverges.
pub fn train(
    choice: &Choice,
    rows: &Rows,
    asked: &TaskOptions,
    context: &Context,
) -> Result<Trained> {
    let options = sizes(choice, rows, asked);
    let plain = device(&context.device)?;
    let model = try_seeded(&plain, context.seed, |device| Model::new(&options, device))?;
    let steps = asked.steps_for(rows.train.len());
    let passes = steps.div_ceil(PASS);
    let of_pass = steps.div_ceil(passes);
    let training = Training {
        epochs: passes,
        batch: asked.batch,
        learning_rate: asked.learning_rate,
        optimiser: Optimiser::AdamW {
            weight_decay: asked.weight_decay,
        },
        schedule: Schedule::Cosine { floor: 0.0 },
        clip: Some(1.0),
        patience: None,
        seed: context.seed,
    };
    let mut order = Order::new(rows.train.len(), context.seed);
    let look: Vec<usize> = rows.test.iter().take(LOOK).copied().collect();
    let trainer = plain.clone().autodiff();
    let began = Instant::now();
    let fitted = Fit::new(&training, context)
        .schedule(of_pass * asked.batch, |pass, _| {
            let steps = of_pass.min(steps - pass * of_pass);
            let chosen: Vec<usize> = (0..steps * asked.batch)
                .map(|_| rows.train[order.next()])
                .collect();
            Ok(chosen)
        })
        .watch(|epoch| Ok(Some(score(epoch.model, rows, &look, &plain)?.accuracy())))
        .run(model, |model, starts| losses(model, rows, starts, &trainer))?;
    let seconds = fitted
        .points
        .last()
        .map_or(began.elapsed().as_secs_f64(), |p| p.seconds);
    Ok(Trained {
        curves: fitted.curves("accuracy"),
        seconds_per_step: seconds / fitted.steps.max(1) as f64,
        steps: fitted.steps,
        model: fitted.model,
        options,
    })
}

/// The training sequences in a new random order each time all have been seen.
struct Order {
    n: usize,
    seed: u64,
    round: usize,
    order: Vec<usize>,
    next: usize,
}

impl Order {
    fn new(n: usize, seed: u64) -> Self {
        Order {
            n,
            seed,
            round: 0,
            order: Vec::new(),
            next: 0,
        }
    }

    fn next(&mut self) -> usize {
        if self.next == self.order.len() {
            let purpose = format!("order of round {}", self.round);
            self.order = permutation(&mut rng(self.seed, &purpose), self.n);
            self.round += 1;
            self.next = 0;
        }
        self.next += 1;
        self.order[self.next - 1]
    }
}

/// The places with targets of some sequences, as many in each: with a weight of 0 where a sequence has fewer.
struct Asked {
    /// In the flat row of positions.
    places: Vec<i32>,
    classes: Vec<i32>,
    weights: Vec<f32>,
    /// Places of each sequence.
    each: usize,
    /// Whether the places are all positions in their order.
    all: bool,
}

impl Asked {
    fn of(rows: &Rows, starts: &[usize]) -> Asked {
        let l = rows.length;
        let count = |start: &usize| rows.targets_at(*start).iter().filter(|t| **t >= 0).count();
        let each = starts.iter().map(count).max().unwrap_or(0).max(1);
        let n = starts.len() * each;
        let mut asked = Asked {
            places: vec![0; n],
            classes: vec![0; n],
            weights: vec![0.0; n],
            each,
            all: each == l,
        };
        for (row, start) in starts.iter().enumerate() {
            let share = 1.0 / count(start).max(1) as f32;
            let targets = rows.targets_at(*start).iter().enumerate();
            for (to, (i, class)) in targets.filter(|(_, t)| **t >= 0).enumerate() {
                asked.places[row * each + to] = (row * l + i) as i32;
                asked.classes[row * each + to] = *class;
                asked.weights[row * each + to] = share;
            }
            asked.all &= count(start) == l;
        }
        asked
    }

    /// What the model holds there, [rows each, d].
    fn pick(&self, hidden: Tensor<3>) -> Tensor<2> {
        let [b, l, d] = hidden.dims();
        let hidden = hidden.reshape([b * l, d]);
        if self.all {
            return hidden;
        }
        let places = TensorData::new(self.places.clone(), [self.places.len()]);
        hidden
            .clone()
            .select(0, Tensor::from_data(places, &hidden.device()))
    }

    fn classes(&self, device: &Device) -> Tensor<1, Int> {
        Tensor::from_data(
            TensorData::new(self.classes.clone(), [self.classes.len()]),
            device,
        )
    }
}

/// Mean cross-entropy over the targets of each sequence, [rows].
fn losses(model: &Model, rows: &Rows, starts: &[usize], device: &Device) -> Tensor<1> {
    let asked = Asked::of(rows, starts);
    let tokens = tokens_of(
        starts.iter().map(|s| rows.tokens_at(*s)),
        rows.length,
        device,
    );
    let scores = model.scores(asked.pick(model.hidden(tokens)));
    let losses = cross_entropy(scores, asked.classes(device));
    let weights = TensorData::new(asked.weights.clone(), [asked.weights.len()]);
    let losses = losses * Tensor::from_data(weights, device);
    losses
        .reshape([starts.len(), asked.each])
        .sum_dim(1)
        .squeeze_dim::<1>(1)
}

/// What a model says of sequences.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    /// Of each sequence: sum of the cross-entropies, targets met, targets.
    pub rows: Vec<(f64, usize, usize)>,
}

impl Scores {
    fn targets(&self) -> f64 {
        self.rows.iter().map(|r| r.2).sum::<usize>().max(1) as f64
    }

    /// Share of targets that have the highest score.
    pub fn accuracy(&self) -> f64 {
        self.rows.iter().map(|r| r.1).sum::<usize>() as f64 / self.targets()
    }

    /// Mean cross-entropy of a target, in nats.
    pub fn loss(&self) -> f64 {
        self.rows.iter().map(|r| r.0).sum::<f64>() / self.targets()
    }
}

/// Scores the sequences at `starts`.
///
/// # Errors
/// The device gives no values.
pub fn score(model: &Model, rows: &Rows, starts: &[usize], device: &Device) -> Result<Scores> {
    let mut scores = Scores::default();
    for starts in starts.chunks(TEST_BATCH) {
        let asked = Asked::of(rows, starts);
        let tokens = tokens_of(
            starts.iter().map(|s| rows.tokens_at(*s)),
            rows.length,
            device,
        );
        let said = model.scores(asked.pick(model.hidden(tokens)));
        let [_, vocabulary] = said.dims();
        let losses = values_of(cross_entropy(said.clone(), asked.classes(device)))?;
        let said = values_of(said)?;
        for row in 0..starts.len() {
            let mut of_row = (0.0, 0, 0);
            for at in row * asked.each..(row + 1) * asked.each {
                if asked.weights[at] == 0.0 {
                    continue;
                }
                let scores = &said[at * vocabulary..(at + 1) * vocabulary];
                of_row.0 += f64::from(losses[at]);
                of_row.1 += usize::from(highest(scores) == asked.classes[at] as usize);
                of_row.2 += 1;
            }
            scores.rows.push(of_row);
        }
    }
    Ok(scores)
}

/// The place of the highest score; of equal ones the first.
pub fn highest(scores: &[f32]) -> usize {
    let mut best = 0;
    for (i, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = i;
        }
    }
    best
}
