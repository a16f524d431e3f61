//! What the networks share: batches of graphs, the readout, the head, the loop of training, and models on disk.

mod head;
mod plain;
mod readout;
mod train;

pub use head::Head;
pub use plain::{ChebNet, Gcn, Gin};
pub use readout::{Readout, attention};
pub use train::{Learner, Lessons, fit};

use super::Scorer;
use super::graphs::GraphSet;
use super::ops::{Links, Matrix};
use super::spectral::all_energies;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use papertrial_core::Result;
use papertrial_core::task::Context;
use papertrial_nn::{ops, store, values_of};
use std::path::Path;
use std::sync::Arc;

/// A network that gives two logits for each graph.
pub trait Network: Module + Clone {
    /// The matrix by which it multiplies node features.
    fn matrix(&self) -> Matrix;
    /// Logits of normal and anomalous, [graphs, 2].
    fn logits(&self, batch: &Batch) -> Tensor<2>;
}

/// Graphs that are computed together, as one graph in several pieces.
pub struct Batch {
    /// Features of all nodes, [n, d].
    pub features: Tensor<2>,
    /// x_f . L x_f of each graph and feature, [graphs, d].
    pub energies: Tensor<2>,
    /// The matrix over all nodes.
    pub links: Arc<Links>,
}

/// Graphs with their energies, from which batches are made.
pub struct Prepared<'a> {
    graphs: &'a GraphSet,
    energies: Vec<f32>,
}

impl<'a> Prepared<'a> {
    /// Computes the energies, once for all.
    pub fn new(graphs: &'a GraphSet) -> Self {
        Prepared {
            graphs,
            energies: all_energies(graphs),
        }
    }

    /// The graphs at `which`.
    pub fn batch(&self, which: &[usize], matrix: Matrix, device: &Device) -> Batch {
        let d = self.graphs.width();
        let links = Links::new(self.graphs, which, matrix);
        let mut features = Vec::with_capacity(links.nodes() * d);
        let mut energies = Vec::with_capacity(which.len() * d);
        for &g in which {
            features.extend_from_slice(self.graphs.graph(g).all_features());
            energies.extend_from_slice(&self.energies[g * d..(g + 1) * d]);
        }
        Batch {
            features: Tensor::from_data(TensorData::new(features, [links.nodes(), d]), device),
            energies: Tensor::from_data(TensorData::new(energies, [which.len(), d]), device),
            links: Arc::new(links),
        }
    }

    /// Probability of being anomalous of the graphs at `which`, by a network on the plain device.
    ///
    /// # Errors
    /// The device gives no values.
    pub fn probabilities<N: Network>(
        &self,
        network: &N,
        which: &[usize],
        device: &Device,
    ) -> Result<Vec<f64>> {
        let mut all = Vec::with_capacity(which.len());
        for some in which.chunks(CHUNK) {
            let logits = network.logits(&self.batch(some, network.matrix(), device));
            let shares = values_of(ops::softmax(logits))?;
            all.extend(shares.chunks(2).map(|row| f64::from(row[1])));
        }
        Ok(all)
    }
}

/// Graphs that are scored at once.
const CHUNK: usize = 512;

/// File of a network in a model's folder.
const WEIGHTS: &str = "network.safetensors";

/// A trained network.
pub struct Net<N> {
    /// On the plain device.
    pub network: N,
    /// Where it is.
    pub device: Device,
}

impl<N: Network + Send> Scorer for Net<N> {
    fn score(&self, graphs: &GraphSet, _: &Context) -> Result<Vec<f64>> {
        let all: Vec<usize> = (0..graphs.len()).collect();
        Prepared::new(graphs).probabilities(&self.network, &all, &self.device)
    }

    fn save(&self, folder: &Path) -> Result<()> {
        store::save(&self.network, &(), &folder.join(WEIGHTS))
    }

    fn parameters(&self) -> Option<usize> {
        Some(weights(&self.network))
    }
}

/// Number of learned weights. The running means and deviations of batch normalisation are not learned.
pub fn weights<M: Module>(model: &M) -> usize {
    struct Count {
        path: Vec<String>,
        weights: usize,
    }
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !self.path.iter().any(|name| name.starts_with("running_")) {
                self.weights += param.val().dims().iter().product::<usize>();
            }
        }
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
    }
    let mut count = Count {
        path: Vec::new(),
        weights: 0,
    };
    model.visit(&mut count);
    count.weights
}

/// The weights of `network` as [`Net`] saved them.
///
/// # Errors
/// The file cannot be read, or is of another network.
pub fn load<N: Network + Send + 'static>(
    build: impl FnOnce(&Device) -> N,
    folder: &Path,
    context: &Context,
) -> Result<Box<dyn Scorer>> {
    let device = papertrial_nn::device(&context.device)?;
    // The first weights do not matter, but drawing them uses the generator that all trainings share.
    let start = papertrial_nn::seeded(&device, 0, build).valid();
    Ok(Box::new(Net {
        network: store::load(&start, &folder.join(WEIGHTS))?,
        device,
    }))
}
