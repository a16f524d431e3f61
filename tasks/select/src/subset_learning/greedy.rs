//! Rival `pgm`: a set function learned as the odds of greedy choices.

use super::batch::{Batch, Picked};
use super::choose::Ranking;
use super::fitting::{Learned, Problem, Trainee, train};
use super::mean_field::groups;
use super::set_function::{Background, Pooling, SetFunction, Shape};
use super::sets::{GroundSet, check_open};
use super::{About, Ask, Selector, SubsetLearner, kept};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_nn::train::Stepper;
use papertrial_nn::{device, ops, seeded, store, values_of};
use papertrial_numerics::sampling;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Baseline `pgm`: the probabilistic greedy model of Tschiatschek, Sahin and Krause, *Differentiable Submodular
/// Maximization*, 2018, arXiv 1803.01785.
///
/// 1. F(S) is the network of EquiVSet, f(sum over S of h).
/// 2. A subset is built element by element: from S, element i comes next with odds exp((F(S + i) - F(S)) / temperature),
///    and the building stops with odds 1. (The stop is an addition here: without it the size of a subset could not be
///    learned. With a known size it plays no part.)
/// 3. Training: the likelihood of the right subset in an order drawn anew at each step, mean over its choices.
/// 4. To choose: the most likely element at each step. psi is the odds of coming in against stopping, lowered to that of
///    the element before where it is higher, so that 0.5 is where building stops.
///
/// Time for an epoch of N sets: O(N |S| n 500^2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pgm {
    /// Temperature of the choices.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub temperature: f64,
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
}

impl Default for Pgm {
    fn default() -> Self {
        Pgm {
            temperature: 1.0,
            pooling: Pooling::Sum,
            embedding: 256,
            hidden: 500,
            layers: 2,
        }
    }
}

impl Method for Pgm {
    const FACTS: Facts = Facts {
        name: "pgm",
        about: "learns a value of subsets as the odds of greedy choices, the probabilistic greedy model",
        paper: None,
        streams: false,
    };
}

/// What is not in the running.
const OUT: f32 = -1e9;

struct Greedy {
    function: SetFunction,
    stepper: Stepper,
    temperature: f64,
    features: usize,
    device: Device,
}

struct Trained {
    function: SetFunction,
    temperature: f64,
    features: usize,
    device: Device,
}

impl Pgm {
    fn shape(&self, features: usize) -> Result<Shape> {
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return Err(Error::option("temperature", "must be above 0"));
        }
        let shape = Shape {
            features,
            embedding: self.embedding,
            hidden: self.hidden,
            layers: self.layers,
            encoder_layers: 0,
            encoder_mean: false,
            background: Background::None,
            pooling: self.pooling,
        };
        shape.check()?;
        Ok(shape)
    }
}

impl SubsetLearner for Pgm {
    fn learn(&self, problem: &Problem, context: &Context) -> Result<Learned> {
        let features = problem.check()?;
        let shape = self.shape(features)?;
        let batch = problem.schedule.batch.min(problem.train.len());
        let flips = problem.train.iter().map(|s| (s.right_size() + 1) * s.len());
        let rows = flips.max().unwrap_or(0).saturating_mul(batch);
        context.require(&format!("a step on {batch} sets"), shape.bytes(rows))?;
        let device = device(&context.device)?;
        let steps = problem.schedule.steps(problem.train.len());
        let trainee = Greedy {
            function: seeded(&device, problem.seed, |d| SetFunction::new(&shape, d)),
            stepper: Stepper::new(&problem.schedule.training(problem.seed), steps),
            temperature: self.temperature,
            features,
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
        let shape = self.shape(features)?;
        let device = device(&context.device)?;
        let function = seeded(&device, 0, |d| SetFunction::new(&shape, d)).valid();
        Ok(Box::new(Trained {
            function: store::load(&function, path)?,
            temperature: self.temperature,
            features,
            device,
        }))
    }
}

impl Trainee for Greedy {
    type Trained = Trained;

    fn step(&mut self, sets: &[&GroundSet], draws: &mut ChaCha8Rng) -> Result<f64> {
        let training = self.device.clone().autodiff();
        let batch = Batch::new(sets, &training);
        let (b, n) = (batch.len(), batch.width());
        let longest = sets.iter().map(|s| s.right_size()).max().unwrap_or(0) + 1;
        // The first t elements of the order, for t = 0, 1, …: as masks, as what is out, and with what comes next.
        let mut masks = vec![0.0f32; b * longest * n];
        let mut out = vec![0.0f32; b * longest * (n + 1)];
        let mut next = vec![0i32; b * longest];
        let mut shares = vec![0.0f32; b * longest];
        for (i, set) in sets.iter().enumerate() {
            let right = set.right();
            let order = sampling::permutation(draws, right.len());
            for t in 0..=right.len() {
                let row = i * longest + t;
                // The last column is the stop.
                for e in set.len()..n {
                    out[row * (n + 1) + e] = OUT;
                }
                for place in &order[..t] {
                    masks[row * n + right[*place]] = 1.0;
                    out[row * (n + 1) + right[*place]] = OUT;
                }
                next[row] = order.get(t).map_or(n, |place| right[*place]) as i32;
                shares[row] = 1.0 / ((right.len() + 1) * b) as f32;
            }
        }
        let everything = Picked::range(&batch, 0, n);
        let parts = self.function.project(&batch);
        let gains = self.function.flips(&parts, &masks, &everything) / self.temperature;
        let stop = Tensor::<3>::zeros([b, longest, 1], &training);
        let out = Tensor::<3>::from_data(TensorData::new(out, [b, longest, n + 1]), &training);
        let odds = ops::log_softmax(Tensor::cat(vec![gains, stop], 2) + out);
        let next = Tensor::from_data(TensorData::new(next, [b, longest, 1]), &training);
        let shares = Tensor::<3>::from_data(TensorData::new(shares, [b, longest, 1]), &training);
        let loss = (odds.gather(2, next) * shares).sum().neg();
        let (function, loss) = self.stepper.step(self.function.clone(), loss)?;
        self.function = function;
        Ok(f64::from(loss))
    }

    fn trained(&self) -> Trained {
        Trained {
            function: self.function.valid(),
            temperature: self.temperature,
            features: self.features,
            device: self.device.clone(),
        }
    }
}

impl Selector for Trained {
    fn rank(&self, sets: &[GroundSet], ask: &Ask) -> Result<Vec<Ranking>> {
        check_open(sets, self.features)?;
        let mut rankings = Vec::with_capacity(sets.len());
        for group in groups(sets, 1) {
            let most: Vec<usize> = group
                .iter()
                .enumerate()
                .map(|(i, set)| {
                    let asked = ask.most.and_then(|m| m.get(rankings.len() + i));
                    asked.map_or(set.len(), |m| (*m).min(set.len()))
                })
                .collect();
            rankings.extend(self.build(group, &most)?);
        }
        Ok(rankings)
    }

    fn keep(&self, about: &About, out: &Path) -> Result<Option<Vec<u8>>> {
        kept::bytes(&self.function, about, out).map(Some)
    }
}

impl Trained {
    /// Greedy choices of `most` elements in each set, side by side.
    fn build(&self, sets: &[GroundSet], most: &[usize]) -> Result<Vec<Ranking>> {
        let members: Vec<&GroundSet> = sets.iter().collect();
        let batch = Batch::new(&members, &self.device);
        let n = batch.width();
        let everything = Picked::range(&batch, 0, n);
        let parts = self.function.project(&batch);
        let mut masks = vec![0.0f32; sets.len() * n];
        let mut rankings: Vec<Ranking> = sets
            .iter()
            .map(|s| Ranking {
                psi: vec![0.0; s.len()],
                order: Vec::new(),
                values: Some(Vec::new()),
            })
            .collect();
        for step in 0..most.iter().copied().max().unwrap_or(0) {
            let gains = values_of(self.function.flips(&parts, &masks, &everything))?;
            for (i, ranking) in rankings.iter_mut().enumerate() {
                if step >= most[i] {
                    continue;
                }
                let own = &gains[i * n..][..sets[i].len()];
                let inside = masks[i * n..(i + 1) * n].to_vec();
                let free = (0..own.len()).filter(|e| inside[*e] == 0.0);
                let Some(best) = free.reduce(|a, e| if own[e] > own[a] { e } else { a }) else {
                    continue;
                };
                let highest = ranking.order.last().map_or(1.0, |l| ranking.psi[*l]);
                let odds = |e: usize| {
                    let gain = f64::from(own[e]) / self.temperature;
                    (1.0 / (1.0 + (-gain).exp())).min(highest)
                };
                // What is left out in the end keeps the odds that it had last.
                for e in (0..own.len()).filter(|e| inside[*e] == 0.0) {
                    ranking.psi[e] = odds(e);
                }
                if let Some(values) = &mut ranking.values {
                    let before = values.last().copied().unwrap_or(0.0);
                    values.push(before + f64::from(own[best]));
                }
                ranking.order.push(best);
                masks[i * n + best] = 1.0;
            }
        }
        Ok(rankings)
    }
}

#[cfg(test)]
mod tests {
    use super::super::choose::{SizeRule, cut, jaccard};
    use super::super::fitting::tests::{odd_ones, problem};
    use super::super::sets::tests::set;
    use super::*;

    fn small() -> Pgm {
        Pgm {
            embedding: 8,
            hidden: 16,
            ..Pgm::default()
        }
    }

    const ASK: Ask = Ask {
        most: None,
        values: true,
        seed: 0,
    };

    /// The right ones are the large numbers, whatever the set: what a value of S alone can learn.
    fn large_ones(n: usize) -> Vec<GroundSet> {
        (0..n)
            .map(|i| {
                let values: Vec<f32> = (0..6 + i % 2)
                    .map(|e| if e < 2 { 1.0 } else { -1.0 } + (i * 7 + e * 3) as f32 % 5.0 * 0.1)
                    .collect();
                set(&format!("s{i}"), &values, &[0, 1])
            })
            .collect()
    }

    #[test]
    fn size_and_elements_are_learned() {
        let context = Context::with_seed(5);
        let mut p = problem(8, 15);
        (p.train, p.validation) = (large_ones(80), large_ones(9));
        let model = small().learn(&p, &context).unwrap().model;
        let sets = large_ones(20);
        let rankings = model.rank(&sets, &ASK).unwrap();
        for rule in [SizeRule::Known, SizeRule::Threshold, SizeRule::BestPrefix] {
            let each = sets
                .iter()
                .zip(&rankings)
                .map(|(s, r)| jaccard(&cut(r, rule, Some(2)).unwrap(), &s.right()));
            let mean = each.sum::<f64>() / 20.0;
            assert!(mean > 0.9, "{rule:?} {mean}");
        }
    }

    #[test]
    fn orders_are_whole_or_as_long_as_asked_and_odds_fall() {
        let context = Context::with_seed(5);
        let model = small().learn(&problem(8, 1), &context).unwrap().model;
        let sets = odd_ones(3, 4);
        for r in model.rank(&sets, &ASK).unwrap() {
            let mut sorted = r.order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..r.psi.len()).collect::<Vec<_>>());
            assert!(r.order.windows(2).all(|w| r.psi[w[0]] >= r.psi[w[1]]));
            assert_eq!(r.values.unwrap().len(), r.psi.len());
        }
        let ask = Ask {
            most: Some(&[1, 3, 99]),
            ..ASK
        };
        let lengths: Vec<usize> = model
            .rank(&sets, &ask)
            .unwrap()
            .iter()
            .map(|r| r.order.len())
            .collect();
        assert_eq!(lengths, [1, 3, sets[2].len()]);
        let bad = Pgm {
            temperature: 0.0,
            ..small()
        };
        assert!(bad.learn(&problem(4, 1), &context).is_err());
    }
}
