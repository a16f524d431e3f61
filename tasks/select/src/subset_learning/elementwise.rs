//! Rivals that give each element a logit at once: an element classifier, deep sets and a set transformer.
//!
//! They are trained on the same elements with the same loss as the methods that learn a set function: cross-entropy on
//! the right elements and as many others, drawn anew at each step.

use super::batch::{Batch, Targets};
use super::choose::{Ranking, descending};
use super::fitting::{Learned, Problem, Trainee, train};
use super::mean_field::groups;
use super::sets::{GroundSet, check_open};
use super::{About, Ask, Selector, SubsetLearner, kept};
use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Bool, Device, Tensor};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_nn::blocks::{Activation, Attention, LayerNorm, Mlp, padding_mask};
use papertrial_nn::train::Stepper;
use papertrial_nn::{device, seeded, store, values_of};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A network with a logit for each element.
trait Logits: Module + Clone + 'static {
    /// [B, n]; any number at filling.
    fn logits(&self, batch: &Batch) -> Tensor<2>;
}

/// A rival of this file: its options and the network that follows from them.
trait Rival: Send + Sync {
    /// Its network.
    type Network: Logits + Send + Sync;
    /// Checks what the schema of the options does not, and the memory for sets of `n` elements, `batch` at once.
    ///
    /// # Errors
    /// The option that is impossible, or too little memory.
    fn check(&self, n: usize, batch: usize, context: &Context) -> Result<()>;
    /// The network for `features` features.
    fn network(&self, features: usize, device: &Device) -> Self::Network;
    /// Rows of its largest tensor for one element, against which groups of sets are cut.
    fn cost(&self) -> usize;
}

impl<R: Rival> SubsetLearner for R {
    fn learn(&self, problem: &Problem, context: &Context) -> Result<Learned> {
        let features = problem.check()?;
        let all = problem.train.iter().chain(&problem.validation);
        let n = all.map(GroundSet::len).max().unwrap_or(0);
        let batch = problem.schedule.batch.min(problem.train.len());
        self.check(n, batch, context)?;
        let device = device(&context.device)?;
        let steps = problem.schedule.steps(problem.train.len());
        let trainee = Elementwise {
            model: seeded(&device, problem.seed, |d| self.network(features, d)),
            stepper: Stepper::new(&problem.schedule.training(problem.seed), steps),
            negatives: problem.schedule.negatives,
            features,
            cost: self.cost(),
            device,
        };
        train(trainee, problem, context)
    }

    fn restore(
        &self,
        features: usize,
        path: &Path,
        context: &Context,
    ) -> Result<Box<dyn Selector>> {
        self.check(1, 1, context)?;
        let device = device(&context.device)?;
        let model = seeded(&device, 0, |d| self.network(features, d)).valid();
        Ok(Box::new(Trained {
            model: store::load(&model, path)?,
            features,
            cost: self.cost(),
            device,
        }))
    }
}

struct Elementwise<M> {
    model: M,
    stepper: Stepper,
    negatives: usize,
    features: usize,
    cost: usize,
    device: Device,
}

struct Trained<M> {
    model: M,
    features: usize,
    cost: usize,
    device: Device,
}

impl<M: Logits + Send + Sync> Trainee for Elementwise<M> {
    type Trained = Trained<M>;

    fn step(&mut self, sets: &[&GroundSet], draws: &mut ChaCha8Rng) -> Result<f64> {
        let training = self.device.clone().autodiff();
        let batch = Batch::new(sets, &training);
        let n = batch.width();
        let targets = Targets::draw(sets, self.negatives, n, draws, &training);
        let shape = [batch.len(), targets.picked.width];
        let logits = self.model.logits(&batch).reshape([batch.len() * n]);
        let logits = logits
            .select(0, targets.picked.places(&training))
            .reshape(shape);
        let loss = targets.cross_entropy(logits);
        let (model, loss) = self.stepper.step(self.model.clone(), loss)?;
        self.model = model;
        Ok(f64::from(loss))
    }

    fn trained(&self) -> Trained<M> {
        Trained {
            model: self.model.valid(),
            features: self.features,
            cost: self.cost,
            device: self.device.clone(),
        }
    }
}

impl<M: Logits + Send + Sync> Selector for Trained<M> {
    fn rank(&self, sets: &[GroundSet], _: &Ask) -> Result<Vec<Ranking>> {
        check_open(sets, self.features)?;
        let mut rankings = Vec::with_capacity(sets.len());
        for group in groups(sets, self.cost) {
            let members: Vec<&GroundSet> = group.iter().collect();
            let batch = Batch::new(&members, &self.device);
            let logits = values_of(self.model.logits(&batch))?;
            for (row, size) in logits.chunks(batch.width()).zip(&batch.sizes) {
                let logits: Vec<f64> = row[..*size].iter().copied().map(f64::from).collect();
                rankings.push(Ranking {
                    order: descending(&logits),
                    psi: logits.iter().map(|l| 1.0 / (1.0 + (-l).exp())).collect(),
                    values: None,
                });
            }
        }
        Ok(rankings)
    }

    fn keep(&self, about: &About, out: &Path) -> Result<Option<Vec<u8>>> {
        kept::bytes(&self.model, about, out).map(Some)
    }
}

/// Baseline `element-classifier`: a network on each element by itself, blind to the set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ElementClassifier {
    /// Numbers of a hidden layer.
    #[schemars(range(min = 1, max = 65_536))]
    pub hidden: usize,
    /// Hidden layers.
    #[schemars(range(max = 64))]
    pub layers: usize,
}

impl Default for ElementClassifier {
    fn default() -> Self {
        ElementClassifier {
            hidden: 500,
            layers: 2,
        }
    }
}

impl Method for ElementClassifier {
    const FACTS: Facts = Facts {
        name: "element-classifier",
        about: "a classifier of each element by itself, blind to the set",
        paper: None,
        streams: false,
    };
}

impl Logits for Mlp {
    fn logits(&self, batch: &Batch) -> Tensor<2> {
        let [b, n, d] = batch.features.dims();
        self.forward(batch.features.clone().reshape([b * n, d]))
            .reshape([b, n])
    }
}

impl Rival for ElementClassifier {
    type Network = Mlp;

    fn check(&self, _: usize, _: usize, _: &Context) -> Result<()> {
        at_least_one("hidden", self.hidden)
    }

    fn network(&self, features: usize, device: &Device) -> Mlp {
        let widths = widths(features, self.hidden, self.layers);
        Mlp::new(&widths, Activation::Relu, 0.0, device)
    }

    fn cost(&self) -> usize {
        1
    }
}

/// Layers from `from` numbers over hidden ones to one.
fn widths(from: usize, hidden: usize, layers: usize) -> Vec<usize> {
    let mut widths = vec![from];
    widths.extend(vec![hidden; layers]);
    widths.push(1);
    widths
}

fn at_least_one(option: &str, value: usize) -> Result<()> {
    match value {
        0 => Err(Error::option(option, "must be at least 1")),
        _ => Ok(()),
    }
}

/// Baseline `deep-sets`: a network on each element's vector beside the mean vector of its set, after Zaheer, Kottur,
/// Ravanbakhsh, Poczos, Salakhutdinov and Smola, *Deep Sets*, 2017, arXiv 1703.06114.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct DeepSets {
    /// Numbers of an element's vector.
    #[schemars(range(min = 1, max = 65_536))]
    pub embedding: usize,
    /// Numbers of a hidden layer.
    #[schemars(range(min = 1, max = 65_536))]
    pub hidden: usize,
    /// Hidden layers.
    #[schemars(range(max = 64))]
    pub layers: usize,
    /// Hidden layers between an element's features and its vector; 0 for a linear map.
    #[schemars(range(max = 64))]
    pub encoder_layers: usize,
}

impl Default for DeepSets {
    fn default() -> Self {
        DeepSets {
            embedding: 256,
            hidden: 500,
            layers: 2,
            encoder_layers: 0,
        }
    }
}

impl Method for DeepSets {
    const FACTS: Facts = Facts {
        name: "deep-sets",
        about: "a classifier of each element that also sees the mean of its set",
        paper: None,
        streams: false,
    };
}

/// rho([h_i ; mean over V of h]).
#[derive(Module, Debug)]
struct DeepSetsNetwork {
    embed: Mlp,
    rho: Mlp,
}

impl Logits for DeepSetsNetwork {
    fn logits(&self, batch: &Batch) -> Tensor<2> {
        let [b, n] = batch.mask.dims();
        let mask = batch.mask.clone().reshape([b, n, 1]);
        let h = self.embed.forward(batch.features.clone());
        let e = h.dims()[2];
        let mean = (h.clone() * mask.clone()).sum_dim(1) / mask.sum_dim(1);
        let both = Tensor::cat(vec![h, mean.expand([b, n, e])], 2);
        self.rho
            .forward(both.reshape([b * n, 2 * e]))
            .reshape([b, n])
    }
}

impl Rival for DeepSets {
    type Network = DeepSetsNetwork;

    fn check(&self, _: usize, _: usize, _: &Context) -> Result<()> {
        at_least_one("hidden", self.hidden)?;
        at_least_one("embedding", self.embedding)
    }

    fn network(&self, features: usize, device: &Device) -> DeepSetsNetwork {
        let mut embed = vec![features];
        embed.extend(vec![self.embedding; self.encoder_layers + 1]);
        let rho = widths(2 * self.embedding, self.hidden, self.layers);
        DeepSetsNetwork {
            embed: Mlp::new(&embed, Activation::Relu, 0.0, device),
            rho: Mlp::new(&rho, Activation::Relu, 0.0, device),
        }
    }

    fn cost(&self) -> usize {
        1
    }
}

/// Baseline `set-transformer`: attention among the elements of a set (two SAB), a summary by attention of a learned seed
/// (PMA with one seed), and a network on each element beside the summary; Lee, Lee, Kim, Kosiorek, Choi and Teh, *Set
/// Transformer*, 2019, arXiv 1810.00825.
///
/// Time and memory O(n^2) in the elements of a set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct SetTransformer {
    /// Numbers of an element's vector; a multiple of heads.
    #[schemars(range(min = 1, max = 65_536))]
    pub embedding: usize,
    /// Heads of attention.
    #[schemars(range(min = 1, max = 1024))]
    pub heads: usize,
    /// Layers of attention among elements.
    #[schemars(range(min = 1, max = 64))]
    pub layers: usize,
    /// Numbers of the last network's hidden layer.
    #[schemars(range(min = 1, max = 65_536))]
    pub hidden: usize,
}

impl Default for SetTransformer {
    fn default() -> Self {
        SetTransformer {
            embedding: 128,
            heads: 4,
            layers: 2,
            hidden: 500,
        }
    }
}

impl Method for SetTransformer {
    const FACTS: Facts = Facts {
        name: "set-transformer",
        about: "a classifier of each element that attends to the other elements of its set",
        paper: None,
        streams: false,
    };
}

/// MAB(X, Y) = N(H + relu(H W)), H = N(X + attention(X, Y)).
#[derive(Module, Debug)]
struct Block {
    attention: Attention,
    first: LayerNorm,
    forward: Linear,
    second: LayerNorm,
}

impl Block {
    fn new(d: usize, heads: usize, device: &Device) -> Self {
        Block {
            attention: Attention::new(d, heads, 0.0, device),
            first: LayerNorm::new(d, device),
            forward: LinearConfig::new(d, d).init(device),
            second: LayerNorm::new(d, device),
        }
    }

    fn forward(&self, x: Tensor<3>, at: Tensor<3>, filling: &Tensor<3, Bool>) -> Tensor<3> {
        let h = self
            .first
            .forward(x.clone() + self.attention.forward(x, at, Some(filling)));
        self.second
            .forward(h.clone() + relu(self.forward.forward(h)))
    }
}

#[derive(Module, Debug)]
struct SetTransformerNetwork {
    embed: Linear,
    blocks: Vec<Block>,
    seed: Param<Tensor<3>>,
    summary: Block,
    out: Mlp,
}

impl Logits for SetTransformerNetwork {
    fn logits(&self, batch: &Batch) -> Tensor<2> {
        let [b, n] = batch.mask.dims();
        let filling = padding_mask(&batch.sizes, n, &batch.mask.device());
        let mut z = self.embed.forward(batch.features.clone());
        for block in &self.blocks {
            z = block.forward(z.clone(), z, &filling);
        }
        let d = z.dims()[2];
        let seed = self.seed.val().expand([b, 1, d]);
        let summary = self.summary.forward(seed, z.clone(), &filling);
        let both = Tensor::cat(vec![z, summary.expand([b, n, d])], 2);
        self.out
            .forward(both.reshape([b * n, 2 * d]))
            .reshape([b, n])
    }
}

impl Rival for SetTransformer {
    type Network = SetTransformerNetwork;

    fn check(&self, n: usize, batch: usize, context: &Context) -> Result<()> {
        at_least_one("hidden", self.hidden)?;
        at_least_one("heads", self.heads)?;
        at_least_one("embedding", self.embedding)?;
        if !self.embedding.is_multiple_of(self.heads) {
            return Err(Error::option(
                "heads",
                format!(
                    "{} heads do not share {} numbers of embedding evenly",
                    self.heads, self.embedding
                ),
            ));
        }
        // The weights of each layer, their softmax and the gradients of both.
        let each = (batch * self.heads * (self.layers + 1) * 4 * 4) as u64;
        context.require(
            &format!("attention among {n} elements"),
            (n as u64 * n as u64).saturating_mul(each),
        )
    }

    fn network(&self, features: usize, device: &Device) -> SetTransformerNetwork {
        let (d, heads) = (self.embedding, self.heads);
        let out = widths(2 * d, self.hidden, 1);
        SetTransformerNetwork {
            embed: LinearConfig::new(features, d).init(device),
            blocks: (0..self.layers)
                .map(|_| Block::new(d, heads, device))
                .collect(),
            seed: Initializer::XavierUniform { gain: 1.0 }.init_with(
                [1, 1, d],
                Some(1),
                Some(d),
                device,
            ),
            summary: Block::new(d, heads, device),
            out: Mlp::new(&out, Activation::Relu, 0.0, device),
        }
    }

    fn cost(&self) -> usize {
        self.heads
    }
}

#[cfg(test)]
mod tests {
    use super::super::choose::{SizeRule, cut, jaccard};
    use super::super::fitting::tests::{odd_ones, problem};
    use super::*;
    use papertrial_numerics::sampling;

    const ASK: Ask = Ask {
        most: None,
        values: false,
        seed: 0,
    };

    fn small() -> [Box<dyn SubsetLearner>; 3] {
        [
            Box::new(ElementClassifier {
                hidden: 16,
                layers: 1,
            }),
            Box::new(DeepSets {
                embedding: 8,
                hidden: 16,
                layers: 1,
                encoder_layers: 0,
            }),
            Box::new(SetTransformer {
                embedding: 8,
                heads: 2,
                layers: 2,
                hidden: 16,
            }),
        ]
    }

    #[test]
    fn sight_of_the_set_is_what_tells_the_odd_ones() {
        let context = Context::with_seed(5);
        let p = problem(100, 12);
        let sets = odd_ones(60, 8);
        let scores = small().map(|learner| {
            let model = learner.learn(&p, &context).unwrap().model;
            let rankings = model.rank(&sets, &ASK).unwrap();
            let each = sets
                .iter()
                .zip(&rankings)
                .map(|(s, r)| jaccard(&cut(r, SizeRule::Known, Some(2)).unwrap(), &s.right()));
            each.sum::<f64>() / 60.0
        });
        // Blind, half of the sets at most.
        assert!(
            scores[0] < 0.7 && scores[1] > 0.85 && scores[2] > 0.85,
            "{scores:?}"
        );
    }

    #[test]
    fn order_and_neighbours_do_not_matter() {
        let context = Context::with_seed(5);
        for learner in small() {
            let model = learner.learn(&problem(8, 1), &context).unwrap().model;
            let sets = odd_ones(3, 8);
            let beside = model.rank(&sets, &ASK).unwrap();
            let order = sampling::permutation(&mut sampling::rng(1, "order"), sets[0].len());
            let turned = GroundSet {
                features: sets[0].features.select(ndarray::Axis(0), &order),
                ..sets[0].clone()
            };
            let alone = model.rank(&[turned], &ASK).unwrap();
            for (to, from) in order.iter().enumerate() {
                let (a, b) = (alone[0].psi[to], beside[0].psi[*from]);
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
            assert!(alone[0].values.is_none());
        }
    }

    #[test]
    fn impossible_settings_are_told() {
        let context = Context::with_seed(0);
        let p = problem(4, 1);
        let odd = SetTransformer {
            heads: 3,
            ..SetTransformer::default()
        };
        let e = odd.learn(&p, &context).err().unwrap();
        assert!(e.to_string().contains("3 heads"), "{e}");
        let small = Context {
            memory: Some(100),
            ..Context::with_seed(0)
        };
        let e = SetTransformer::default().learn(&p, &small).err().unwrap();
        assert!(e.to_string().contains("memory"), "{e}");
        let none = DeepSets {
            embedding: 0,
            ..DeepSets::default()
        };
        assert!(none.learn(&p, &context).is_err());
    }
}
