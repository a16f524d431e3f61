//! What the rival networks share: training as the paper's method trains, scoring, and the file of the weights.

use super::super::detector::Fitted;
use super::super::prepare::{Flows, Layout};
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use papertrial_nn::burn::module::Module;
use papertrial_nn::burn::tensor::activation::log_sigmoid;
use papertrial_nn::burn::tensor::{Device, Tensor, TensorData};
use papertrial_nn::train::{Stepper, Training};
use papertrial_nn::{device, hold, ops, seeded, store, values_of};
use papertrial_numerics::sampling::{rng, sample_shuffled};
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;

/// A network over windows.
pub(super) trait Network: Module + Sync + 'static {
    /// What it is built from.
    type Sizes: Clone + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// With new weights, for flows of `inputs` numbers.
    fn new(sizes: &Self::Sizes, inputs: usize, device: &Device) -> Self;

    /// Flows in a window.
    fn window(sizes: &Self::Sizes) -> usize;

    /// Logits, [b], of windows [b, window x inputs], the flows of each one behind the other.
    fn logits(&self, sizes: &Self::Sizes, x: Tensor<2>) -> Tensor<1>;
}

/// How long and in which steps; the paper's defaults are in the options of each network.
pub(super) struct Lessons {
    pub(super) epochs: usize,
    pub(super) steps: usize,
    pub(super) batch: usize,
    pub(super) learning_rate: f64,
    pub(super) patience: usize,
}

/// Windows of one forward pass while scoring.
const SCORED: usize = 1024;

/// File of the weights in a model's folder.
const WEIGHTS: &str = "weights.safetensors";

/// A trained network.
pub(super) struct Model<N: Network> {
    kept: Kept<N::Sizes>,
    network: N,
    device: Device,
    seconds_per_step: Option<f64>,
    losses: Vec<(f64, f64)>,
    notes: Vec<String>,
}

/// What is written with the weights.
#[derive(Clone, Serialize, Deserialize)]
struct Kept<S> {
    sizes: S,
    layout: Layout,
}

/// The windows that end in `rows`, [rows, window x columns].
fn windows(flows: &Flows, rows: &[usize], window: usize, device: &Device) -> Tensor<2> {
    let width = flows.layout.one_hot();
    let mut values = vec![0.0f32; rows.len() * window * width];
    values
        .par_chunks_mut((window * width).max(1))
        .with_min_len(16)
        .zip(rows)
        .for_each(|(to, row)| {
            for (to, row) in to.chunks_exact_mut(width).zip(row + 1 - window..) {
                flows.write_one_hot(row, to);
            }
        });
    Tensor::from_data(
        TensorData::new(values, [rows.len(), window * width]),
        device,
    )
}

/// Trains a network: each batch has as many attacks as benign flows, drawn without replacement inside the batch; binary
/// cross-entropy; Adam; an end when the smallest loss of any batch has not fallen for more than `patience` epochs.
///
/// # Errors
/// One class, fewer flows of a class than a batch needs, no memory, or a loss that is not finite.
pub(super) fn fit<N: Network>(
    sizes: N::Sizes,
    lessons: &Lessons,
    flows: &Flows,
    train: &[usize],
    context: &Context,
) -> Result<Model<N>> {
    let (attacks, benign) = super::classes(flows, train)?;
    let window = N::window(&sizes);
    let half = lessons.batch / 2;
    let others = lessons.batch - half;
    if attacks.len() < half || benign.len() < others {
        return Err(Error::BadInput(format!(
            "a batch takes {half} attacks and {others} benign flows, but the training part has {} and {}; take a smaller batch, or train on more flows",
            attacks.len(),
            benign.len()
        )));
    }
    let width = flows.layout.one_hot();
    context.require("a batch", (16 * lessons.batch * window * width) as u64)?;
    let plain = device(&context.device)?;
    let mut network = seeded(&plain, context.seed, |d| N::new(&sizes, width, d));
    let device = plain.clone().autodiff();
    // The sign of a window turns its logit into that of its own class.
    let signs: Vec<f32> = (0..lessons.batch)
        .map(|i| if i < half { 1.0 } else { -1.0 })
        .collect();
    let signs = Tensor::<1>::from_data(TensorData::new(signs, [lessons.batch]), &device);
    let setting = Training {
        learning_rate: lessons.learning_rate,
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
        let _held = hold(&device, context.seed ^ spread);
        let (mut total, mut better) = (0.0, false);
        for _ in 0..lessons.steps {
            let began = Instant::now();
            let mut rows = Vec::with_capacity(lessons.batch);
            for (of_class, count) in [(&attacks, half), (&benign, others)] {
                let drawn = sample_shuffled(&mut draws, of_class.len(), count)
                    .map_err(|e| Error::Failed(e.to_string()))?;
                rows.extend(drawn.into_iter().map(|i| of_class[i]));
            }
            let logits = network.logits(&sizes, windows(flows, &rows, window, &device));
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
    Ok(Model {
        kept: Kept {
            sizes,
            layout: (*flows.layout).clone(),
        },
        network: network.valid(),
        device: plain,
        seconds_per_step: (done > 1).then(|| (seconds - first) / (done - 1) as f64),
        losses,
        notes,
    })
}

impl<N: Network> Model<N> {
    /// The model that [`Fitted::save`] wrote into `folder`.
    ///
    /// # Errors
    /// The weights are missing, broken, or of another network.
    pub(super) fn load(folder: &Path, context: &Context) -> Result<Self> {
        let path = folder.join(WEIGHTS);
        let kept: Kept<N::Sizes> = store::options(&path)?;
        let device = device(&context.device)?;
        let width = kept.layout.one_hot();
        let network = seeded(&device, 0, |d| N::new(&kept.sizes, width, d)).valid();
        Ok(Model {
            network: store::load(&network, &path)?,
            kept,
            device,
            seconds_per_step: None,
            losses: Vec::new(),
            notes: Vec::new(),
        })
    }
}

impl<N: Network> Fitted for Model<N> {
    fn window(&self) -> usize {
        N::window(&self.kept.sizes)
    }

    fn parameters(&self) -> usize {
        self.network.num_params()
    }

    fn score(&self, flows: &Flows, rows: &[usize], _: &Context) -> Result<Vec<f32>> {
        let window = self.window();
        super::check(flows, &self.kept.layout, rows, window)?;
        let mut scores = Vec::with_capacity(rows.len());
        for rows in rows.chunks(SCORED) {
            let x = windows(flows, rows, window, &self.device);
            scores.extend(values_of(ops::sigmoid(
                self.network.logits(&self.kept.sizes, x),
            ))?);
        }
        Ok(scores)
    }

    fn seconds_per_step(&self) -> Option<f64> {
        self.seconds_per_step
    }

    fn losses(&self) -> Vec<(f64, f64)> {
        self.losses.clone()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn save(&self, folder: &Path) -> Result<bool> {
        store::save(&self.network, &self.kept, &folder.join(WEIGHTS))?;
        Ok(true)
    }
}
