//! Training: balanced batches, binary cross-entropy, Adam, an early stop on the smallest batch loss.

use super::super::prepare::Flows;
use super::FlowTransformer;
use super::network::{Network, Shape};
use super::windows::windows;
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData, activation::log_sigmoid};
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use papertrial_nn::train::{Optimiser, Schedule, Stepper, Training};
use papertrial_numerics::sampling::{rng, sample_shuffled};
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// How the windows of a batch are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Batches {
    /// Drawn anew for each batch, each window at most once in it.
    Drawn,
    /// The next ones of each class in the order of the file, from the first again after the last.
    Cursor,
}

/// A trained network and how it came about.
pub(super) struct Trained {
    /// Without dropout, on the plain device.
    pub(super) network: Network,
    /// Mean seconds of a step, the first left out.
    pub(super) seconds_per_step: Option<f64>,
    /// Mean loss of each epoch: (steps so far, loss).
    pub(super) losses: Vec<(f64, f64)>,
    /// Whether training ended early.
    pub(super) stopped: bool,
}

/// The windows of one class.
struct Pool<'a> {
    rows: &'a [usize],
    next: usize,
}

impl Pool<'_> {
    fn take(
        &mut self,
        n: usize,
        how: Batches,
        draws: &mut impl Rng,
        to: &mut Vec<usize>,
    ) -> Result<()> {
        match how {
            Batches::Drawn => {
                let drawn = sample_shuffled(draws, self.rows.len(), n)
                    .map_err(|e| Error::Failed(e.to_string()))?;
                to.extend(drawn.into_iter().map(|i| self.rows[i]));
            }
            Batches::Cursor => {
                to.extend((0..n).map(|i| self.rows[(self.next + i) % self.rows.len()]));
                self.next = (self.next + n) % self.rows.len();
            }
        }
        Ok(())
    }
}

/// Trains `network` on the windows that end in `train`.
pub(super) fn train(
    options: &FlowTransformer,
    shape: &Shape,
    mut network: Network,
    flows: &Flows,
    train: &[usize],
    device: &Device,
    context: &Context,
) -> Result<Trained> {
    let labels = flows.labels()?;
    let (attacks, benign): (Vec<usize>, Vec<usize>) =
        train.iter().copied().partition(|row| labels[*row]);
    let of_attacks = options.batch / 2;
    let of_benign = options.batch - of_attacks;
    if attacks.len() < of_attacks || benign.len() < of_benign {
        return Err(Error::BadInput(format!(
            "a batch takes {of_attacks} attacks and {of_benign} benign flows, but the training part has {} and {}; take a smaller batch, or train on more flows",
            attacks.len(),
            benign.len()
        )));
    }
    // The sign of a window turns its logit into that of its own class.
    let signs: Vec<f32> = (0..options.batch)
        .map(|i| if i < of_attacks { 1.0 } else { -1.0 })
        .collect();
    let device = device.clone().autodiff();
    let signs = Tensor::<1>::from_data(TensorData::new(signs, [options.batch]), &device);
    let (mut attacks, mut benign) = (
        Pool {
            rows: &attacks,
            next: 0,
        },
        Pool {
            rows: &benign,
            next: 0,
        },
    );
    let setting = Training {
        learning_rate: options.learning_rate,
        optimiser: Optimiser::Adam { weight_decay: 0.0 },
        schedule: Schedule::Constant,
        ..Training::default()
    };
    let mut stepper = Stepper::new(&setting, options.epochs * options.steps);
    let mut draws = rng(context.seed, "windows of the batches");
    let (mut lowest, mut waited) = (f32::INFINITY, 0);
    let mut losses = Vec::new();
    let mut first = 0.0;
    let mut seconds = 0.0;
    for epoch in 0..options.epochs {
        context.step("training", epoch, options.epochs);
        // Dropout draws from the generator of the whole process.
        let _held = papertrial_nn::hold(
            &device,
            context.seed ^ (epoch as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
        );
        let mut total = 0.0;
        let mut better = false;
        for _ in 0..options.steps {
            let began = Instant::now();
            let mut ends = Vec::with_capacity(options.batch);
            attacks.take(of_attacks, options.batches, &mut draws, &mut ends)?;
            benign.take(of_benign, options.batches, &mut draws, &mut ends)?;
            let rows = windows(
                &ends,
                shape.window,
                options.context,
                flows.rows,
                context.seed,
            );
            let logits = network.forward(shape, flows, &rows, &device);
            let loss = -log_sigmoid(logits * signs.clone()).mean();
            let (next, value) = stepper.step(network, loss)?;
            network = next;
            if value < lowest {
                lowest = value;
                better = true;
            }
            total += f64::from(value);
            let spent = began.elapsed().as_secs_f64();
            if stepper.done() == 1 {
                first = spent;
            }
            seconds += spent;
        }
        losses.push((stepper.done() as f64, total / options.steps as f64));
        waited = if better { 0 } else { waited + 1 };
        if waited > options.patience {
            break;
        }
    }
    context.step("training", options.epochs, options.epochs);
    let done = stepper.done();
    Ok(Trained {
        network: network.valid(),
        seconds_per_step: (done > 1).then(|| (seconds - first) / (done - 1) as f64),
        losses,
        stopped: done < options.epochs * options.steps,
    })
}
