//! `flowtransformer`: a transformer over the last few flows says whether the newest one is an attack.
//!
//! Manocchio, Layeghy, Lo, Kulatilleke, Sarhan, Portmann, *FlowTransformer: A Transformer Framework for Flow-based
//! Network Intrusion Detection Systems* (2023), arXiv 2304.14746; Expert Systems with Applications 241 (2024).
//!
//! A window is the flows i - w + 1 .. i of the file, and the question is whether flow i is an attack. Four slots are
//! exchangeable by name: the preparation of columns (the task's; see `prepare`), the input encoding, the sequence
//! model, and the classification head.
//!
//! 1. Each flow of the window is encoded as a vector of D numbers ([`Encoding`]).
//! 2. The head adds what it needs before the transformer ([`Head::before`]).
//! 3. The transformer turns [windows, w, D] into [windows, w, D] ([`Sequence`]); it knows no positions.
//! 4. The head reads from it a vector ([`Head`]).
//! 5. A dense layer with relu and dropout 0.1, and one with a single output, give the logit; its sigmoid is the
//!    probability of an attack.
//! 6. Training: each batch has as many attacks as benign flows, drawn without replacement inside the batch; binary
//!    cross-entropy; Adam. Training ends early if the smallest loss of any batch so far has not fallen for more than
//!    `patience` epochs.
//!
//! With `reference` the encoder block is that of the code of the authors (see `sequence`), and the task prepares
//! columns and chooses training windows as that code does. The paper's option to compute the inner layers as
//! convolutions over one position is left out: it is the same function with the same weights.
//!
//! Cost of a training step: about 6 x windows x w x weights operations. On the CPU scoring needs about a seventh of
//! the network's own operations (see `fast`).

mod encodings;
mod fast;
mod heads;
mod network;
mod parts;
mod sequence;
mod windows;

pub use encodings::Encoding;
pub use heads::Head;
pub use network::Shape;
pub use sequence::{Sequence, Sizes};
pub use windows::Before;

use super::detector::{Detector, Fitted};
use super::lessons::{self, BatchOrder, Lessons};
use super::prepare::Flows;
use burn::module::Module;
use burn::tensor::{Device, activation::sigmoid};
use fast::Fast;
use network::Network;
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_nn::{device, seeded, store, values_of};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use windows::windows;

/// Share of the classifier's numbers that are dropped while training.
const CLASSIFIER_DROPOUT: f64 = 0.1;

/// Windows of one forward pass on another device than the CPU.
const SCORED: usize = 1024;

/// File of the weights in a model's folder.
const WEIGHTS: &str = "weights.safetensors";

/// Options: the paper's, as its code's library has them.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct FlowTransformer {
    /// First slot: how the columns of a flow become one vector.
    pub encoding: Encoding,
    /// Width of a record encoding.
    #[schemars(range(min = 1, max = 65536))]
    pub width: usize,
    /// Width of each categorical column in a feature encoding.
    #[schemars(range(min = 1, max = 65536))]
    pub feature_width: usize,
    /// Second slot: the transformer.
    pub sequence: Sequence,
    /// Blocks of the transformer, if not as many as it has.
    #[schemars(range(min = 1, max = 1000))]
    pub layers: Option<usize>,
    /// Inner size of the transformer, if not its own.
    #[schemars(range(min = 1, max = 65536))]
    pub inner: Option<usize>,
    /// Heads of attention, if not as many as it has.
    #[schemars(range(min = 1, max = 1000))]
    pub heads: Option<usize>,
    /// Share of the transformer's numbers that are dropped while training, if not its own.
    #[schemars(range(min = 0.0, max = 0.99))]
    pub dropout: Option<f64>,
    /// Decoders: each flow looks only at those before it.
    pub causal: bool,
    /// Third slot: what of the transformer's output is classified.
    pub head: Head,
    /// Width of the classifier.
    #[schemars(range(min = 1, max = 65536))]
    pub hidden: usize,
    /// The flows of a window before the last.
    pub context: Before,
    /// How the windows of a batch are chosen.
    pub batches: BatchOrder,
    /// Epochs at most.
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// Steps of an epoch.
    #[schemars(range(min = 1))]
    pub steps: usize,
    /// Windows of a step, half of them attacks.
    #[schemars(range(min = 2))]
    pub batch: usize,
    /// Learning rate of Adam.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Epochs without a lower loss of any batch after which training ends: more than these.
    pub patience: usize,
    /// Blocks as in the code of the paper's authors.
    pub reference: bool,
}

impl Default for FlowTransformer {
    fn default() -> Self {
        FlowTransformer {
            encoding: Encoding::RecordEmbedding,
            width: 64,
            feature_width: 16,
            sequence: Sequence::ShallowEncoder,
            layers: None,
            inner: None,
            heads: None,
            dropout: None,
            causal: false,
            head: Head::LastToken,
            hidden: 128,
            context: Before::InOrder,
            batches: BatchOrder::Drawn,
            epochs: 100,
            steps: 128,
            batch: 128,
            learning_rate: 1e-3,
            patience: 5,
            reference: false,
        }
    }
}

impl Method for FlowTransformer {
    const FACTS: Facts = Facts {
        name: "flowtransformer",
        about: "a transformer over the last few flows, from exchangeable encoding, sequence model and head",
        paper: Some("flowtransformer"),
        streams: true,
    };
}

impl FlowTransformer {
    /// The network's shape for windows of `window` flows.
    ///
    /// # Errors
    /// A causal encoder, or a window of 0.
    pub fn shape(&self, flows: &Flows, window: usize) -> Result<Shape> {
        if window == 0 {
            return Err(Error::option("window", "must be at least 1"));
        }
        let mut sequence = self.sequence.sizes();
        if self.causal && !sequence.decoder {
            return Err(Error::option(
                "causal",
                "is for decoders; take sequence=shallow-decoder or gpt2-small",
            ));
        }
        sequence.layers = self.layers.unwrap_or(sequence.layers);
        sequence.inner = self.inner.unwrap_or(sequence.inner);
        sequence.heads = self.heads.unwrap_or(sequence.heads);
        sequence.dropout = self.dropout.unwrap_or(sequence.dropout);
        Ok(Shape {
            encoding: self.encoding,
            width: self.width,
            feature_width: self.feature_width,
            sequence,
            causal: self.causal,
            head: self.head,
            hidden: self.hidden,
            window,
            reference: self.reference,
            layout: (*flows.layout).clone(),
        })
    }
}

impl Detector for FlowTransformer {
    fn fit(
        &self,
        flows: &Flows,
        train: &[usize],
        window: usize,
        context: &Context,
    ) -> Result<Box<dyn Fitted>> {
        let shape = self.shape(flows, window)?;
        // Weights, gradients and Adam's two moments, beside what a batch needs.
        let wide = shape
            .encoded()
            .max(shape.sequence.inner * shape.sequence.heads);
        let held =
            4 * (4 * shape.parameters() + 20 * self.batch * window * wide * shape.sequence.layers);
        context.require("the network and its training", held as u64)?;
        let device = device(&context.device)?;
        let network = seeded(&device, context.seed, |device| Network::new(&shape, device));
        let labels = flows.labels()?;
        let (attacks, benign): (Vec<usize>, Vec<usize>) =
            train.iter().copied().partition(|row| labels[*row]);
        let lessons = Lessons {
            epochs: self.epochs,
            steps: self.steps,
            batch: self.batch,
            batches: self.batches,
            learning_rate: self.learning_rate,
            patience: self.patience,
        };
        let classes = [&attacks[..], &benign[..]];
        let trained = lessons::train(
            &lessons,
            network,
            classes,
            &device,
            context,
            |network, ends, device| {
                let rows = windows(ends, window, self.context, flows.rows, context.seed);
                network.forward(&shape, flows, &rows, device)
            },
        )?;
        let mut model = Model::new(shape, self.context, trained.network, device)?;
        model.seconds_per_step = trained.seconds_per_step;
        model.losses = trained.losses;
        model.notes = trained.notes;
        Ok(Box::new(model))
    }
}

/// A trained network.
pub(super) struct Model {
    kept: Kept,
    network: Network,
    /// For the CPU; absent on other devices.
    fast: Option<Fast>,
    device: Device,
    seconds_per_step: Option<f64>,
    losses: Vec<(f64, f64)>,
    notes: Vec<String>,
}

/// What is written with the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kept {
    shape: Shape,
    context: Before,
}

impl Model {
    fn new(shape: Shape, context: Before, network: Network, device: Device) -> Result<Model> {
        let fast = if device == papertrial_nn::device("cpu")? {
            Some(Fast::of(&shape, &network)?)
        } else {
            None
        };
        Ok(Model {
            kept: Kept { shape, context },
            network,
            fast,
            device,
            seconds_per_step: None,
            losses: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// The model that [`Fitted::save`] wrote into `folder`.
    ///
    /// # Errors
    /// The weights are missing, broken, or of another program.
    pub(super) fn load(folder: &Path, context: &Context) -> Result<Model> {
        let path = folder.join(WEIGHTS);
        let kept: Kept = store::options(&path)?;
        let device = device(&context.device)?;
        let network = seeded(&device, 0, |device| Network::new(&kept.shape, device)).valid();
        let network = store::load(&network, &path)?;
        Model::new(kept.shape, kept.context, network, device)
    }

    /// Columns that it reads.
    pub(super) fn layout(&self) -> &super::prepare::Layout {
        &self.kept.shape.layout
    }

    /// Probabilities by the network itself, [windows], of windows whose rows are `rows`, [windows, w].
    fn by_network(&self, flows: &Flows, rows: &[usize]) -> Result<Vec<f32>> {
        let mut scores = Vec::with_capacity(rows.len() / self.kept.shape.window);
        for rows in rows.chunks(SCORED * self.kept.shape.window) {
            let logits = self
                .network
                .forward(&self.kept.shape, flows, rows, &self.device);
            scores.extend(values_of(sigmoid(logits))?);
        }
        Ok(scores)
    }
}

impl Fitted for Model {
    fn window(&self) -> usize {
        self.kept.shape.window
    }

    fn parameters(&self) -> usize {
        self.network.num_params()
    }

    fn score(&self, flows: &Flows, rows: &[usize], context: &Context) -> Result<Vec<f32>> {
        let w = self.window();
        if *flows.layout != self.kept.shape.layout {
            return Err(Error::Failed(
                "the flows were prepared for another network".into(),
            ));
        }
        if let Some(row) = rows.iter().find(|row| **row + 1 < w || **row >= flows.rows) {
            return Err(Error::Failed(format!(
                "flow {row} has no window of {w} flows"
            )));
        }
        let mut scores = Vec::with_capacity(rows.len());
        // Row lists of windows are made for a part at a time: all of them would be w times as long as the file.
        for part in rows.chunks(1 << 16) {
            let windows = windows(part, w, self.kept.context, flows.rows, context.seed);
            match &self.fast {
                Some(fast) => scores.extend(fast.score(flows, &windows)),
                None => scores.extend(self.by_network(flows, &windows)?),
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow_intrusion::prepare::Layout;
    use papertrial_numerics::sampling::rng;
    use rand::RngExt;
    use std::sync::Arc;

    const ENCODINGS: [Encoding; 6] = [
        Encoding::None,
        Encoding::RecordEmbedding,
        Encoding::RecordProjection,
        Encoding::FeatureEmbedding,
        Encoding::FeatureProjection,
        Encoding::FeatureLookup,
    ];
    const HEADS: [Head; 6] = [
        Head::LastToken,
        Head::Flatten,
        Head::GlobalAveragePooling,
        Head::ClsToken,
        Head::FeaturewiseEmbedding,
        Head::FeaturewiseProjection,
    ];

    /// Flows of which the attacks differ in the first number.
    fn flows(rows: usize, numeric: usize, codes: &[usize]) -> Flows {
        let mut draws = rng(5, "test flows");
        let attack: Vec<bool> = (0..rows).map(|_| draws.random_range(0..2) == 1).collect();
        let mut numbers = Vec::new();
        let mut cells = Vec::new();
        for row in &attack {
            for j in 0..numeric {
                let shift = if j == 0 && *row { 0.5 } else { 0.0 };
                numbers.push(shift + 0.5 * draws.random::<f32>());
            }
            cells.extend(codes.iter().map(|k| draws.random_range(0..*k as u32)));
        }
        Flows {
            layout: Arc::new(Layout {
                numeric: (0..numeric).map(|j| format!("n{j}")).collect(),
                categorical: (0..codes.len()).map(|j| format!("c{j}")).collect(),
                codes: codes.to_vec(),
            }),
            numeric: numbers,
            codes: cells,
            attack: Some(attack),
            rows,
        }
    }

    fn network(shape: &Shape, seed: u64) -> Network {
        seeded(&device("cpu").unwrap(), seed, |d| Network::new(shape, d)).valid()
    }

    #[test]
    fn the_recommended_network_has_192065_weights_on_268_columns() {
        // 28 numeric columns and 240 codes in nine columns.
        let flows = flows(1, 28, &[27, 32, 32, 20, 30, 3, 32, 32, 32]);
        assert_eq!(flows.layout.one_hot(), 268);
        let shape = FlowTransformer::default().shape(&flows, 8).unwrap();
        assert_eq!(network(&shape, 0).num_params(), 192_065);
        assert_eq!(shape.parameters(), 192_065);
    }

    #[test]
    fn every_combination_has_as_many_weights_as_its_formula_says() {
        let flows = flows(1, 3, &[2, 4]);
        let (n, k, c, w) = (3, 6, 2, 5);
        for sequence in [Sequence::ShallowEncoder, Sequence::ShallowDecoder] {
            for encoding in ENCODINGS {
                for head in HEADS {
                    let options = FlowTransformer {
                        encoding,
                        width: 7,
                        feature_width: 4,
                        sequence,
                        inner: Some(6),
                        heads: Some(3),
                        layers: Some(2),
                        head,
                        hidden: 5,
                        ..FlowTransformer::default()
                    };
                    let shape = options.shape(&flows, w).unwrap();
                    let (d, encoded) = match encoding {
                        Encoding::None => (n + k, 0),
                        Encoding::RecordEmbedding => (7, (n + k + 1) * 7),
                        Encoding::RecordProjection => (7, (n + k) * 7),
                        Encoding::FeatureEmbedding => (n + 4 * c, (2 + 1) * 4 + (4 + 1) * 4),
                        Encoding::FeatureProjection => (n + 4 * c, 2 * 4 + 4 * 4),
                        Encoding::FeatureLookup => (n + 4 * c, 3 * 4 + 5 * 4),
                    };
                    let inside = if head == Head::ClsToken { d + 1 } else { d };
                    let head_width = if sequence == Sequence::ShallowDecoder {
                        inside
                    } else {
                        6
                    };
                    let dense = |from: usize, to: usize| from * to + to;
                    let block = 3 * dense(inside, 3 * head_width)
                        + dense(3 * head_width, inside)
                        + 4 * inside
                        + dense(inside, 6)
                        + dense(6, inside);
                    let (own, read) = match head {
                        Head::LastToken | Head::GlobalAveragePooling => (0, d),
                        Head::ClsToken => (0, d + 1),
                        Head::Flatten => (0, w * d),
                        Head::FeaturewiseEmbedding => (d + 1, w),
                        Head::FeaturewiseProjection => (d, w),
                    };
                    let want = encoded + 2 * block + own + dense(read, 5) + dense(5, 1);
                    let got = network(&shape, 1).num_params();
                    assert_eq!(
                        (got, shape.parameters()),
                        (want, want),
                        "{sequence:?} {encoding:?} {head:?}"
                    );
                }
            }
        }
    }

    /// The fast scorer forms other sums; the network is the independent formula.
    #[test]
    fn fast_scores_are_the_networks() {
        let flows = flows(60, 4, &[3, 5]);
        let context = Context::with_seed(2);
        for (i, sequence) in [Sequence::ShallowEncoder, Sequence::ShallowDecoder]
            .into_iter()
            .enumerate()
        {
            for (e, encoding) in ENCODINGS.into_iter().enumerate() {
                for (h, head) in HEADS.into_iter().enumerate() {
                    let options = FlowTransformer {
                        encoding,
                        width: 8,
                        feature_width: 3,
                        sequence,
                        inner: Some(12),
                        heads: Some(1 + (e + h) % 3),
                        layers: Some(1 + h % 3),
                        head,
                        causal: i == 1 && e % 2 == 0,
                        reference: e % 2 == 1,
                        context: if h == 5 {
                            Before::Random
                        } else {
                            Before::InOrder
                        },
                        ..FlowTransformer::default()
                    };
                    let shape = options.shape(&flows, 4).unwrap();
                    let network = network(&shape, 3);
                    let model = Model::new(shape, options.context, network, device("cpu").unwrap())
                        .unwrap();
                    let rows: Vec<usize> = (3..60).filter(|r| r % 7 != 2).chain([10, 59]).collect();
                    let fast = model.score(&flows, &rows, &context).unwrap();
                    let windows = windows(&rows, 4, options.context, 60, context.seed);
                    let plain = model.by_network(&flows, &windows).unwrap();
                    assert_eq!(fast.len(), rows.len());
                    for (f, p) in fast.iter().zip(&plain) {
                        assert!(
                            (f - p).abs() < 1e-5,
                            "{sequence:?} {encoding:?} {head:?}: {f} {p}"
                        );
                    }
                    assert!(plain.iter().any(|p| (p - plain[0]).abs() > 1e-3));
                }
            }
        }
    }

    #[test]
    fn without_positions_an_average_does_not_know_the_order_and_a_causal_decoder_does() {
        let flows = flows(8, 4, &[3]);
        let score = |options: FlowTransformer, rows: &[usize]| {
            let shape = options.shape(&flows, 4).unwrap();
            let network = network(&shape, 3);
            let model =
                Model::new(shape, options.context, network, device("cpu").unwrap()).unwrap();
            model.by_network(&flows, rows).unwrap()[0]
        };
        let average = FlowTransformer {
            head: Head::GlobalAveragePooling,
            ..FlowTransformer::default()
        };
        let apart = |o: &FlowTransformer| {
            (score(o.clone(), &[0, 1, 2, 3]) - score(o.clone(), &[1, 3, 2, 0])).abs()
        };
        assert!(apart(&average) < 1e-6);
        let causal = FlowTransformer {
            sequence: Sequence::ShallowDecoder,
            causal: true,
            ..average
        };
        assert!(apart(&causal) > 1e-4);
        assert!(
            FlowTransformer {
                causal: true,
                ..FlowTransformer::default()
            }
            .shape(&flows, 4)
            .is_err()
        );
    }

    fn quick() -> FlowTransformer {
        FlowTransformer {
            width: 8,
            inner: Some(8),
            epochs: 6,
            steps: 20,
            batch: 16,
            learning_rate: 5e-3,
            ..FlowTransformer::default()
        }
    }

    #[test]
    fn training_learns_and_what_is_saved_scores_the_same() {
        let flows = flows(400, 4, &[3, 5]);
        let train: Vec<usize> = (7..300).collect();
        let test: Vec<usize> = (300..400).collect();
        let context = Context::with_seed(4);
        let fitted = quick().fit(&flows, &train, 8, &context).unwrap();
        let scores = fitted.score(&flows, &test, &context).unwrap();
        let labels = flows.labels().unwrap();
        let right = test
            .iter()
            .zip(&scores)
            .filter(|(row, s)| labels[**row] == (**s > 0.5))
            .count();
        // Guessing gives 50, give or take 5; the few steps of this test don't find the border to the last flow.
        assert!(right >= 80, "{right} of 100");
        assert!(fitted.seconds_per_step().unwrap() > 0.0);
        let again = quick().fit(&flows, &train, 8, &context).unwrap();
        assert_eq!(scores, again.score(&flows, &test, &context).unwrap());
        let folder = tempfile::tempdir().unwrap();
        assert!(fitted.save(folder.path()).unwrap());
        let loaded = Model::load(folder.path(), &context).unwrap();
        assert_eq!(scores, loaded.score(&flows, &test, &context).unwrap());
        assert!(loaded.score(&flows, &[3], &context).is_err());
        assert!(Model::load(&folder.path().join("no"), &context).is_err());
    }

    #[test]
    fn labels_of_rows_that_are_not_trained_on_do_not_matter() {
        let mut flows = flows(200, 3, &[3]);
        let train: Vec<usize> = (7..100).collect();
        let context = Context::with_seed(4);
        let options = FlowTransformer {
            epochs: 1,
            steps: 3,
            batches: BatchOrder::Cursor,
            ..quick()
        };
        let first = options
            .fit(&flows, &train, 8, &context)
            .unwrap()
            .score(&flows, &[150], &context)
            .unwrap();
        if let Some(attack) = &mut flows.attack {
            attack[100..].iter_mut().for_each(|a| *a = !*a);
        }
        let second = options
            .fit(&flows, &train, 8, &context)
            .unwrap()
            .score(&flows, &[150], &context)
            .unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn too_few_of_a_class_are_told_with_their_number() {
        let mut flows = flows(100, 3, &[3]);
        let train: Vec<usize> = (7..100).collect();
        let context = Context::with_seed(4);
        flows.attack = Some((0..100).map(|i| i >= 95).collect());
        let text = quick()
            .fit(&flows, &train, 8, &context)
            .err()
            .unwrap()
            .to_string();
        assert!(
            text.contains("8 attacks") && text.contains("has 5 and 88"),
            "{text}"
        );
        flows.attack = None;
        assert!(quick().fit(&flows, &train, 8, &context).is_err());
    }

    #[test]
    fn training_stops_when_no_batch_gets_better() {
        let flows = flows(200, 3, &[3]);
        let train: Vec<usize> = (7..200).collect();
        let options = FlowTransformer {
            learning_rate: 1e-12,
            dropout: Some(0.0),
            epochs: 60,
            steps: 1,
            patience: 1,
            ..quick()
        };
        let fitted = options
            .fit(&flows, &train, 8, &Context::with_seed(1))
            .unwrap();
        assert!(fitted.losses().len() < 60);
        assert!(fitted.notes()[0].contains("ended early"));
    }
}
