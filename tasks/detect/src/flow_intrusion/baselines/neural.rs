//! What the rival networks share: training as the paper's method trains, scoring, and the file of the weights.

use super::super::detector::Fitted;
use super::super::lessons::{self, Lessons};
use super::super::prepare::{Flows, Layout};
use papertrial_core::Result;
use papertrial_core::task::Context;
use papertrial_nn::burn::module::Module;
use papertrial_nn::burn::tensor::{Device, Tensor, TensorData};
use papertrial_nn::{device, ops, seeded, store, values_of};
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;

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

/// Trains a network as the paper's method is trained.
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
    let width = flows.layout.one_hot();
    context.require("a batch", (16 * lessons.batch * window * width) as u64)?;
    let device = device(&context.device)?;
    let network = seeded(&device, context.seed, |d| N::new(&sizes, width, d));
    let classes = [&attacks[..], &benign[..]];
    let trained = lessons::train(
        lessons,
        network,
        classes,
        &device,
        context,
        |network, rows, device| network.logits(&sizes, windows(flows, rows, window, device)),
    )?;
    Ok(Model {
        kept: Kept {
            sizes,
            layout: (*flows.layout).clone(),
        },
        network: trained.network,
        device,
        seconds_per_step: trained.seconds_per_step,
        losses: trained.losses,
        notes: trained.notes,
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
