//! How networks of this task learn, the paper's and its rivals alike: balanced batches, binary cross-entropy, Adam, an
//! early stop on the smallest batch loss.

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
pub enum BatchOrder {
    /// Drawn anew for each batch, each window at most once in it.
    Drawn,
    /// The next ones of each class in the order of the file, from the first again after the last.
    Cursor,
}

/// How long and in which steps.
pub(super) struct Lessons {
    /// Epochs at most.
    pub(super) epochs: usize,
    /// Steps of an epoch.
    pub(super) steps: usize,
    /// Windows of a step, half of them attacks.
    pub(super) batch: usize,
    /// How they are chosen.
    pub(super) batches: BatchOrder,
    /// Learning rate of Adam.
    pub(super) learning_rate: f64,
    /// Epochs without a lower loss of any batch after which training ends: more than these.
    pub(super) patience: usize,
}

/// A trained network and how it came about.
pub(super) struct Trained<N> {
    /// Without dropout, on the plain device.
    pub(super) network: N,
    /// Mean seconds of a step, the first left out.
    pub(super) seconds_per_step: Option<f64>,
    /// Mean loss of each epoch: (steps so far, loss).
    pub(super) losses: Vec<(f64, f64)>,
    /// Remarks for the reader.
    pub(super) notes: Vec<String>,
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
        how: BatchOrder,
        draws: &mut impl Rng,
        to: &mut Vec<usize>,
    ) -> Result<()> {
        match how {
            BatchOrder::Drawn => {
                let drawn = sample_shuffled(draws, self.rows.len(), n)
                    .map_err(|e| Error::Failed(e.to_string()))?;
                to.extend(drawn.into_iter().map(|i| self.rows[i]));
            }
            BatchOrder::Cursor => {
                to.extend((0..n).map(|i| self.rows[(self.next + i) % self.rows.len()]));
                self.next = (self.next + n) % self.rows.len();
            }
        }
        Ok(())
    }
}

/// Trains `network` on the windows that end in `attacks` and `benign`; `logits`, [b], of the windows that end in the
/// rows it is given, on the device it is given.
///
/// # Errors
/// Fewer windows of a class than a batch needs, or a loss that is not finite.
pub(super) fn train<N: Module>(
    lessons: &Lessons,
    mut network: N,
    [attacks, benign]: [&[usize]; 2],
    device: &Device,
    context: &Context,
    logits: impl Fn(&N, &[usize], &Device) -> Tensor<1>,
) -> Result<Trained<N>> {
    let of_attacks = lessons.batch / 2;
    let of_benign = lessons.batch - of_attacks;
    if attacks.len() < of_attacks || benign.len() < of_benign {
        return Err(Error::BadInput(format!(
            "a batch takes {of_attacks} attacks and {of_benign} benign flows, but the training part has {} and {}; take a smaller batch, or train on more flows",
            attacks.len(),
            benign.len()
        )));
    }
    // The sign of a window turns its logit into that of its own class.
    let signs: Vec<f32> = (0..lessons.batch)
        .map(|i| if i < of_attacks { 1.0 } else { -1.0 })
        .collect();
    let device = device.clone().autodiff();
    let signs = Tensor::<1>::from_data(TensorData::new(signs, [lessons.batch]), &device);
    let pool = |rows| Pool { rows, next: 0 };
    let (mut attacks, mut benign) = (pool(attacks), pool(benign));
    let setting = Training {
        learning_rate: lessons.learning_rate,
        optimiser: Optimiser::Adam { weight_decay: 0.0 },
        schedule: Schedule::Constant,
        ..Training::default()
    };
    let mut stepper = Stepper::new(&setting, lessons.epochs * lessons.steps);
    let mut draws = rng(context.seed, "windows of the batches");
    let (mut lowest, mut waited) = (f32::INFINITY, 0);
    let mut losses = Vec::new();
    let (mut first, mut seconds) = (0.0, 0.0);
    for epoch in 0..lessons.epochs {
        context.step("training", epoch, lessons.epochs);
        // Dropout draws from the generator of the whole process.
        let spread = (epoch as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let _held = papertrial_nn::hold(&device, context.seed ^ spread);
        let (mut total, mut better) = (0.0, false);
        for _ in 0..lessons.steps {
            let began = Instant::now();
            let mut ends = Vec::with_capacity(lessons.batch);
            attacks.take(of_attacks, lessons.batches, &mut draws, &mut ends)?;
            benign.take(of_benign, lessons.batches, &mut draws, &mut ends)?;
            let logits = logits(&network, &ends, &device);
            let loss = -log_sigmoid(logits * signs.clone()).mean();
            let (next, value) = stepper.step(network, loss)?;
            network = next;
            if value < lowest {
                (lowest, better) = (value, true);
            }
            total += f64::from(value);
            let spent = began.elapsed().as_secs_f64();
            if stepper.done() == 1 {
                first = spent;
            }
            seconds += spent;
        }
        losses.push((stepper.done() as f64, total / lessons.steps as f64));
        waited = if better { 0 } else { waited + 1 };
        if waited > lessons.patience {
            break;
        }
    }
    context.step("training", lessons.epochs, lessons.epochs);
    let done = stepper.done();
    let mut notes = Vec::new();
    if done < lessons.epochs * lessons.steps {
        notes.push(format!(
            "training ended early after {done} steps: no batch had a lower loss for more than {} epochs",
            lessons.patience
        ));
    }
    Ok(Trained {
        network: network.valid(),
        seconds_per_step: (done > 1).then(|| (seconds - first) / (done - 1) as f64),
        losses,
        notes,
    })
}
