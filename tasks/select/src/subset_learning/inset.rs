//! INSet, and EquiVSet from which it comes.

use super::fitting::{Learned, Problem};
use super::mean_field::{Setting, learn, restore};
use super::recognition::Ties;
use super::set_function::{Background, Pooling, Shape};
use super::{Selector, SubsetLearner};
use papertrial_core::Result;
use papertrial_core::task::{Context, Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Method `inset`: Xie, Bian, Zhou, Chen, Zhao, Han, Meng and Cheng, *Enhancing Neural Subset Selection: Integrating
/// Background Information into Set Representations*, 2024, arXiv 2402.03139.
///
/// Training data are sets V_i of n_i elements with d features and the right subset S_i of each. p(S | V) is proportional
/// to exp F(S; V). F is unchanged by the order of elements; that it sees V, and not S alone, is the paper's point. In a
/// batch of B sets:
/// 1. Element vectors h_i = linear(x_i), \[B, n, 256\].
/// 2. F(S; V) = f(sum over S of h) + g(sum over V without S of h); f and g have `layers` hidden layers of 500 with ReLU
///    and one number at the end. (Options `module`: other ways to see V.)
/// 3. Recognition network q, with element vectors of its own: psi_i = sigmoid(w z_i) from z_i = relu(network(h_i)), and
///    spreads and factors of a normal copula, from which M relaxed subsets are drawn (`recognition.rs`).
/// 4. First Adam step, on q alone: up the evidence bound, mean over M of F(S_m; V) + sum over i of entropy(psi_i).
/// 5. Second Adam step, on F alone: from psi of q, which stands still, T times: draw M subsets with probabilities psi, then
///    psi_i = sigmoid(mean over m of F(S_m + i) - F(S_m - i)). The loss is the cross-entropy of psi with S_i, on S_i and as
///    many other elements, drawn anew; summed over elements, mean over sets.
/// 6. To choose from a new V: psi as in 5, then the first k, those from 0.5 on, or the first so many of greatest F.
///
/// What the authors' program does and the paper leaves open was read there: 2 (two heads of one number, the second on the
/// complement), 4 before 5, the entropy of the marginals in place of the copula's, gradients of at most length 10, a stop
/// after more than 6 epochs without a better validation score, M = rank = 8, tau = 0.1. Its batch is 4 by default, but
/// the settings of each of its data sets make it 128.
///
/// Unlike there: the n masks of step 5 share the draws of the other elements (the expectation is the same); the steps of
/// T before the last carry no gradient (there none can flow either, through the draws); losses are computed from logits
/// without clamps; each network's gradient is shortened by itself. The convolutions for images are not here: give
/// features, or raise `encoder-layers`.
///
/// Time for an epoch of N sets: O(N M K 500^2) with K = 2 |S| flips in training and n in validation, for each of the two
/// networks; memory O(B M K 500).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Inset {
    /// How the value of a subset sees what it was picked from.
    pub module: Background,
    /// How the first estimate of the subset is made.
    pub mode: Mode,
    /// Subsets drawn of each set, M.
    #[schemars(range(min = 1, max = 10_000))]
    pub samples: usize,
    /// Rank of the copula's correlation.
    #[schemars(range(min = 1, max = 1000))]
    pub rank: usize,
    /// Temperature of a relaxed draw.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub tau: f64,
    /// Mean-field steps, T.
    #[schemars(range(min = 1, max = 1000))]
    pub mean_field_steps: usize,
    /// How element vectors become one; sums grow with the set.
    pub pooling: Pooling,
    /// Numbers of an element's vector.
    #[schemars(range(min = 1, max = 65_536))]
    pub embedding: usize,
    /// Numbers of a hidden layer.
    #[schemars(range(min = 1, max = 65_536))]
    pub hidden: usize,
    /// Hidden layers.
    #[schemars(range(min = 1, max = 64))]
    pub layers: usize,
    /// Hidden layers between an element's features and its vector; 0 for a linear map.
    #[schemars(range(max = 64))]
    pub encoder_layers: usize,
    /// Whether each element's vector also sees the mean vector of its set.
    pub encoder_mean: bool,
}

/// How the first estimate of the subset is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// By a recognition network, its draws tied by a copula.
    Copula,
    /// By a recognition network, each element drawn by itself.
    Ind,
    /// Not at all: mean field starts from 1/2.
    DiffMf,
}

impl Default for Inset {
    fn default() -> Self {
        Inset {
            module: Background::Complement,
            mode: Mode::Copula,
            samples: 8,
            rank: 8,
            tau: 0.1,
            mean_field_steps: 1,
            pooling: Pooling::Sum,
            embedding: 256,
            hidden: 500,
            layers: 2,
            encoder_layers: 0,
            encoder_mean: false,
        }
    }
}

impl Method for Inset {
    const FACTS: Facts = Facts {
        name: "inset",
        about: "learns a value of subsets that sees what they are picked from, from examples of right subsets",
        paper: Some("inset"),
        streams: false,
    };
}

impl Inset {
    fn setting(&self) -> Setting {
        Setting {
            shape: Shape {
                // Told by the sets.
                features: 0,
                embedding: self.embedding,
                hidden: self.hidden,
                layers: self.layers,
                encoder_layers: self.encoder_layers,
                encoder_mean: self.encoder_mean,
                background: self.module,
                pooling: self.pooling,
            },
            recognition: match self.mode {
                Mode::Copula => Some(Ties::Copula(self.rank)),
                Mode::Ind => Some(Ties::Independent),
                Mode::DiffMf => None,
            },
            samples: self.samples,
            tau: self.tau,
            steps: self.mean_field_steps,
        }
    }
}

impl SubsetLearner for Inset {
    fn learn(&self, problem: &Problem, context: &Context) -> Result<Learned> {
        learn(&self.setting(), problem, context)
    }

    fn restore(
        &self,
        features: usize,
        path: &Path,
        context: &Context,
    ) -> Result<Box<dyn Selector>> {
        restore(&self.setting(), features, path, context)
    }
}

/// Method `equivset`: Ou, Xu, Su, Li, Zhao and Bian, *Learning Neural Set Functions Under the Optimal Subset Oracle*, 2022,
/// arXiv 2203.01693: [`Inset`] without its module, F(S) = f(sum over S of h).
///
/// The defaults are those of [`Inset`], so that the two differ in the module alone; the authors' own are 5 subsets and
/// rank 5.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct EquiVSet {
    /// How the first estimate of the subset is made.
    pub mode: Mode,
    /// Subsets drawn of each set, M.
    #[schemars(range(min = 1, max = 10_000))]
    pub samples: usize,
    /// Rank of the copula's correlation.
    #[schemars(range(min = 1, max = 1000))]
    pub rank: usize,
    /// Temperature of a relaxed draw.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub tau: f64,
    /// Mean-field steps, T.
    #[schemars(range(min = 1, max = 1000))]
    pub mean_field_steps: usize,
    /// How element vectors become one; sums grow with the set.
    pub pooling: Pooling,
    /// Numbers of an element's vector.
    #[schemars(range(min = 1, max = 65_536))]
    pub embedding: usize,
    /// Numbers of a hidden layer.
    #[schemars(range(min = 1, max = 65_536))]
    pub hidden: usize,
    /// Hidden layers.
    #[schemars(range(min = 1, max = 64))]
    pub layers: usize,
    /// Hidden layers between an element's features and its vector; 0 for a linear map.
    #[schemars(range(max = 64))]
    pub encoder_layers: usize,
}

impl EquiVSet {
    /// The same with the module off and no sight of V in the encoder.
    fn as_inset(&self) -> Inset {
        Inset {
            module: Background::None,
            encoder_mean: false,
            mode: self.mode,
            samples: self.samples,
            rank: self.rank,
            tau: self.tau,
            mean_field_steps: self.mean_field_steps,
            pooling: self.pooling,
            embedding: self.embedding,
            hidden: self.hidden,
            layers: self.layers,
            encoder_layers: self.encoder_layers,
        }
    }
}

impl Default for EquiVSet {
    fn default() -> Self {
        let inset = Inset::default();
        EquiVSet {
            mode: inset.mode,
            samples: inset.samples,
            rank: inset.rank,
            tau: inset.tau,
            mean_field_steps: inset.mean_field_steps,
            pooling: inset.pooling,
            embedding: inset.embedding,
            hidden: inset.hidden,
            layers: inset.layers,
            encoder_layers: inset.encoder_layers,
        }
    }
}

impl Method for EquiVSet {
    const FACTS: Facts = Facts {
        name: "equivset",
        about: "learns a value of subsets that sees the subset alone, from examples of right subsets",
        paper: None,
        streams: false,
    };
}

impl SubsetLearner for EquiVSet {
    fn learn(&self, problem: &Problem, context: &Context) -> Result<Learned> {
        self.as_inset().learn(problem, context)
    }

    fn restore(
        &self,
        features: usize,
        path: &Path,
        context: &Context,
    ) -> Result<Box<dyn Selector>> {
        self.as_inset().restore(features, path, context)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ask;
    use super::super::fitting::tests::{odd_ones, problem};
    use super::*;

    #[test]
    fn equivset_is_inset_with_the_module_off() {
        let context = Context::with_seed(1);
        let p = problem(8, 1);
        let small = Inset {
            embedding: 8,
            hidden: 8,
            samples: 2,
            rank: 2,
            ..Inset::default()
        };
        let off = Inset {
            module: Background::None,
            ..small.clone()
        };
        let blind = EquiVSet {
            embedding: 8,
            hidden: 8,
            samples: 2,
            rank: 2,
            ..EquiVSet::default()
        };
        let psi = |learner: &dyn SubsetLearner| {
            let ask = Ask {
                most: None,
                values: false,
                seed: 0,
            };
            let model = learner.learn(&p, &context).unwrap().model;
            model.rank(&odd_ones(2, 3), &ask).unwrap()
        };
        assert_eq!(psi(&off), psi(&blind));
        assert_ne!(psi(&small), psi(&blind));
    }
}
