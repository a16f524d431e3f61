//! Mean-field learning of a set function from right subsets: what INSet and EquiVSet share.
//!
//! The steps are those in the documentation of [`Inset`](super::Inset).

use super::batch::{Batch, Picked, Targets};
use super::choose::{Ranking, descending};
use super::fitting::{Learned, Problem, Trainee, train};
use super::recognition::{Noise, Recognition, Ties};
use super::set_function::{Projected, SetFunction, Shape};
use super::sets::{GroundSet, check_open};
use super::{About, Ask, Selector, kept};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use papertrial_nn::train::Stepper;
use papertrial_nn::{device, seeded, store, values_of};
use papertrial_numerics::sampling;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// What is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// The networks.
    pub shape: Shape,
    /// The recognition network's kind; `None` for none.
    pub recognition: Option<Ties>,
    /// Subsets drawn of each set, M.
    pub samples: usize,
    /// Temperature of a relaxed draw, tau.
    pub tau: f64,
    /// Mean-field steps, T.
    pub steps: usize,
}

/// Rows of hidden numbers that are held at once when nothing is trained.
const ROWS: usize = 1 << 14;

impl Setting {
    /// The networks for sets of `features` features, on the device of training.
    fn networks(&self, features: usize, seed: u64, device: &Device) -> Result<Networks> {
        let shape = Shape {
            features,
            ..self.shape
        };
        shape.check()?;
        let rank = match self.recognition {
            Some(Ties::Copula(rank)) => rank,
            _ => 1,
        };
        for (option, value) in [
            ("samples", self.samples),
            ("mean-field-steps", self.steps),
            ("rank", rank),
        ] {
            if value == 0 {
                return Err(Error::option(option, "must be at least 1"));
            }
        }
        if !(self.tau > 0.0 && self.tau.is_finite()) {
            return Err(Error::option("tau", "must be above 0"));
        }
        Ok(Networks {
            function: seeded(device, mixed(seed, 1), |d| SetFunction::new(&shape, d)),
            recognition: self.recognition.map(|ties| {
                seeded(device, mixed(seed, 2), |d| {
                    Recognition::new(&shape, ties, d)
                })
            }),
        })
    }
}

/// Learns from `problem`.
///
/// # Errors
/// A problem that cannot be learned from, sizes of 0, too little memory, or training that diverged.
pub fn learn(setting: &Setting, problem: &Problem, context: &Context) -> Result<Learned> {
    let features = problem.check()?;
    let batch = problem.schedule.batch.min(problem.train.len());
    let largest = problem.train.iter().map(|s| {
        let right = s.right_size();
        right + (right * problem.schedule.negatives).min(s.len() - right)
    });
    let rows = (batch * setting.samples).saturating_mul(largest.max().unwrap_or(0));
    context.require(
        &format!("a step on {batch} sets"),
        setting.shape.bytes(rows),
    )?;
    let device = device(&context.device)?;
    let steps = problem.schedule.steps(problem.train.len());
    let training = problem.schedule.training(problem.seed);
    let trainee = MeanField {
        networks: setting.networks(features, problem.seed, &device)?,
        of_function: Stepper::new(&training, steps),
        of_recognition: Stepper::new(&training, steps),
        negatives: problem.schedule.negatives,
        setting: *setting,
        features,
        device,
    };
    train(trainee, problem, context)
}

/// What [`learn`] learned earlier with the same setting, from the file at `path`.
///
/// # Errors
/// A file that does not fit.
pub fn restore(
    setting: &Setting,
    features: usize,
    path: &Path,
    context: &Context,
) -> Result<Box<dyn Selector>> {
    let device = device(&context.device)?;
    let networks = setting.networks(features, 0, &device)?.valid();
    Ok(Box::new(Trained {
        networks: store::load(&networks, path)?,
        samples: setting.samples,
        steps: setting.steps,
        features,
        device,
    }))
}

/// The set function and, where there is one, the recognition network.
#[derive(Module, Debug)]
struct Networks {
    function: SetFunction,
    recognition: Option<Recognition>,
}

/// Seeds of several networks from one.
fn mixed(seed: u64, part: u64) -> u64 {
    seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(part)
}

struct MeanField {
    networks: Networks,
    of_function: Stepper,
    of_recognition: Stepper,
    negatives: usize,
    setting: Setting,
    features: usize,
    device: Device,
}

impl Trainee for MeanField {
    type Trained = Trained;

    fn step(&mut self, sets: &[&GroundSet], draws: &mut ChaCha8Rng) -> Result<f64> {
        let training = self.device.clone().autodiff();
        let batch = Batch::new(sets, &training);
        // (a) The recognition network; the set function's weights stand still.
        if let (Some(q), Some(ties)) = (&self.networks.recognition, self.setting.recognition) {
            let noise = Noise::draw(&batch, self.setting.samples, ties, draws);
            let (subsets, logits) = q.subsets(&batch, &noise, self.setting.tau);
            let still = self.networks.function.clone().no_grad();
            let values = still.values(&still.project(&batch), subsets);
            let mean = values.mean_dim(1).reshape([batch.len()]);
            let elbo = mean + Recognition::entropy(&batch, logits);
            let (q, _) = self.of_recognition.step(q.clone(), elbo.mean().neg())?;
            self.networks.recognition = Some(q);
        }
        // (b) The set function; q stands still: it is asked on the plain device.
        let plain = Batch::new(sets, &self.device);
        let q = self.networks.recognition.as_ref().map(Module::valid);
        let mut psi = start(q.as_ref(), &plain)?;
        for _ in 1..self.setting.steps {
            // No gradient flows through the draws of the next step, so these steps need none.
            let masks = draw_masks(
                &psi,
                &plain,
                self.setting.samples,
                std::slice::from_mut(draws),
            );
            let function = self.networks.function.valid();
            psi = mean_field(&function, &function.project(&plain), &plain, &masks)?
                .iter()
                .map(|l| sigmoid(f64::from(*l)) as f32)
                .collect();
        }
        let masks = draw_masks(
            &psi,
            &plain,
            self.setting.samples,
            std::slice::from_mut(draws),
        );
        let targets = Targets::draw(sets, self.negatives, batch.width(), draws, &training);
        // The loss looks at the targets only, so no other element's flips are needed.
        let parts = self.networks.function.project(&batch);
        let flips = self
            .networks
            .function
            .flips(&parts, &masks, &targets.picked);
        let [b, _, k] = flips.dims();
        let loss = targets.cross_entropy(flips.mean_dim(1).reshape([b, k]));
        let (function, loss) = self
            .of_function
            .step(self.networks.function.clone(), loss)?;
        self.networks.function = function;
        Ok(f64::from(loss))
    }

    fn trained(&self) -> Trained {
        Trained {
            networks: self.networks.valid(),
            samples: self.setting.samples,
            steps: self.setting.steps,
            features: self.features,
            device: self.device.clone(),
        }
    }
}

/// Probabilities [B, n] before the first mean-field step: q's means, or 1/2 without q; 0 at filling.
fn start(recognition: Option<&Recognition>, batch: &Batch) -> Result<Vec<f32>> {
    let b = batch.len();
    Ok(match recognition {
        Some(q) => {
            let psi = burn::tensor::activation::sigmoid(q.logits(batch)) * batch.mask.clone();
            values_of(psi)?
        }
        None => {
            let n = batch.width();
            let mut psi = vec![0.0; b * n];
            for (row, size) in psi.chunks_mut(n).zip(&batch.sizes) {
                row[..*size].fill(0.5);
            }
            psi
        }
    })
}

/// M subsets [B, M, n] of each set, elements by themselves with probability psi. `draws` holds one generator for all sets,
/// or one for each.
fn draw_masks(psi: &[f32], batch: &Batch, samples: usize, draws: &mut [ChaCha8Rng]) -> Vec<f32> {
    let n = batch.width();
    let mut masks = vec![0.0f32; batch.len() * samples * n];
    for (i, subsets) in masks.chunks_mut((samples * n).max(1)).enumerate() {
        let which = i % draws.len().max(1);
        let Some(rng) = draws.get_mut(which) else {
            continue;
        };
        for subset in subsets.chunks_mut(n) {
            for (to, p) in subset.iter_mut().zip(&psi[i * n..]).take(batch.sizes[i]) {
                *to = f32::from(u8::from(rng.random::<f32>() < *p));
            }
        }
    }
    masks
}

/// Mean over M subsets of F(S + i) - F(S - i), for every element: [B, n]; any number at filling.
fn mean_field(
    function: &SetFunction,
    parts: &Projected,
    batch: &Batch,
    masks: &[f32],
) -> Result<Vec<f32>> {
    let (b, n) = (batch.len(), batch.width());
    let samples = masks.len() / (b * n).max(1);
    let piece = (ROWS / (b * samples).max(1)).max(1);
    let mut logits = vec![0.0f32; b * n];
    for from in (0..n).step_by(piece) {
        let to = (from + piece).min(n);
        let picked = Picked::range(batch, from, to);
        let flips = function.flips(parts, masks, &picked).mean_dim(1);
        let values = values_of(flips)?;
        if !values.iter().all(|v| v.is_finite()) {
            return Err(Error::Failed(
                "the values of subsets are beyond 3e38: a set is too large for sums; learn with pooling=mean-log-size"
                    .into(),
            ));
        }
        for (row, piece) in logits.chunks_mut(n).zip(values.chunks(to - from)) {
            row[from..to].copy_from_slice(piece);
        }
    }
    Ok(logits)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// What has been learned, on the plain device.
struct Trained {
    networks: Networks,
    samples: usize,
    steps: usize,
    features: usize,
    device: Device,
}

impl Trained {
    /// Logits of psi of the sets of one batch.
    fn logits(&self, sets: &[&GroundSet], draws: &mut [ChaCha8Rng]) -> Result<Vec<Vec<f64>>> {
        let batch = Batch::new(sets, &self.device);
        let n = batch.width();
        let parts = self.networks.function.project(&batch);
        let mut psi = start(self.networks.recognition.as_ref(), &batch)?;
        let mut logits = Vec::new();
        for _ in 0..self.steps {
            let masks = draw_masks(&psi, &batch, self.samples, draws);
            logits = mean_field(&self.networks.function, &parts, &batch, &masks)?;
            psi = logits
                .iter()
                .map(|l| sigmoid(f64::from(*l)) as f32)
                .collect();
        }
        Ok(logits
            .chunks(n)
            .zip(&batch.sizes)
            .map(|(row, size)| row[..*size].iter().copied().map(f64::from).collect())
            .collect())
    }

    /// F of the first 1, 2, … elements of `order`.
    fn prefixes(&self, set: &GroundSet, order: &[usize]) -> Result<Vec<f64>> {
        let batch = Batch::new(&[set], &self.device);
        let parts = self.networks.function.project(&batch);
        let n = set.len();
        let piece = (ROWS / n).max(1);
        let mut subset = vec![0.0f32; n];
        let mut values = Vec::with_capacity(n);
        for elements in order.chunks(piece) {
            let mut masks = Vec::with_capacity(elements.len() * n);
            for i in elements {
                subset[*i] = 1.0;
                masks.extend_from_slice(&subset);
            }
            let shape = [1, elements.len(), n];
            let masks = Tensor::<3>::from_data(TensorData::new(masks, shape), &self.device);
            let f = values_of(self.networks.function.values(&parts, masks))?;
            values.extend(f.into_iter().map(f64::from));
        }
        Ok(values)
    }
}

impl Selector for Trained {
    fn rank(&self, sets: &[GroundSet], ask: &Ask) -> Result<Vec<Ranking>> {
        check_open(sets, self.features)?;
        let mut rankings = Vec::with_capacity(sets.len());
        for group in groups(sets, self.samples) {
            // Each set draws by its own number, whatever lies beside it.
            let first = rankings.len();
            let mut draws: Vec<ChaCha8Rng> = (first..first + group.len())
                .map(|i| sampling::rng(ask.seed, &format!("mean field of set {i}")))
                .collect();
            let members: Vec<&GroundSet> = group.iter().collect();
            for (set, logits) in group.iter().zip(self.logits(&members, &mut draws)?) {
                // By logits: many probabilities may be 1 to the last digit.
                let order = descending(&logits);
                let values = match ask.values {
                    true => Some(self.prefixes(set, &order)?),
                    false => None,
                };
                rankings.push(Ranking {
                    psi: logits.into_iter().map(sigmoid).collect(),
                    order,
                    values,
                });
            }
        }
        Ok(rankings)
    }

    fn keep(&self, about: &About, out: &Path) -> Result<Option<Vec<u8>>> {
        kept::bytes(&self.networks, about, out).map(Some)
    }
}

/// Neighbouring sets whose flips fit the rows that may be held at once; one set at least.
pub fn groups(sets: &[GroundSet], samples: usize) -> Vec<&[GroundSet]> {
    let mut found = Vec::new();
    let (mut from, mut widest) = (0, 0);
    for (i, set) in sets.iter().enumerate() {
        widest = widest.max(set.len());
        if i > from && (i + 1 - from).saturating_mul(widest * samples) > ROWS {
            found.push(&sets[from..i]);
            from = i;
            widest = set.len();
        }
    }
    if from < sets.len() {
        found.push(&sets[from..]);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::choose::{SizeRule, cut, jaccard};
    use super::super::fitting::tests::{odd_ones, problem};
    use super::super::set_function::tests::ALL;
    use super::super::set_function::{Background, Pooling};
    use super::super::sets::tests::set;
    use super::*;

    fn setting(background: Background, recognition: Option<Ties>) -> Setting {
        Setting {
            shape: Shape {
                features: 0,
                embedding: 16,
                hidden: 24,
                layers: 2,
                encoder_layers: 0,
                encoder_mean: false,
                background,
                pooling: Pooling::Sum,
            },
            recognition,
            samples: 4,
            tau: 0.1,
            steps: 1,
        }
    }

    const ASK: Ask = Ask {
        most: None,
        values: true,
        seed: 9,
    };

    fn score(model: &dyn Selector, rule: SizeRule) -> f64 {
        let sets = odd_ones(40, 8);
        let rankings = model.rank(&sets, &ASK).unwrap();
        let each = sets
            .iter()
            .zip(&rankings)
            .map(|(s, r)| jaccard(&cut(r, rule, Some(2)).unwrap(), &s.right()));
        each.sum::<f64>() / 40.0
    }

    #[test]
    fn what_stands_out_is_learned_and_beats_chance_by_far() {
        let context = Context::with_seed(5);
        let learned = learn(
            &setting(Background::Complement, Some(Ties::Copula(2))),
            &problem(80, 12),
            &context,
        )
        .unwrap();
        // Two of 6 to 8 by chance: about .2.
        assert!(score(&*learned.model, SizeRule::Known) > 0.9);
        assert!(score(&*learned.model, SizeRule::Threshold) > 0.7);
        assert_eq!(learned.curves.len(), 2);
    }

    #[test]
    fn every_module_and_mode_takes_its_steps_and_the_same_seed_gives_the_same() {
        let context = Context::with_seed(5);
        let few = problem(12, 1);
        let mut modes: Vec<Setting> = ALL.map(|b| setting(b, Some(Ties::Copula(2)))).to_vec();
        modes.push(setting(Background::Complement, Some(Ties::Independent)));
        modes.push(Setting {
            steps: 3,
            ..setting(Background::Complement, None)
        });
        let mut seen: Vec<Vec<f64>> = Vec::new();
        for s in &modes {
            let psi = |p: &Problem| -> Vec<f64> {
                let model = learn(s, p, &context).unwrap().model;
                let sets = odd_ones(3, 8);
                let rankings = model.rank(&sets, &ASK).unwrap();
                for (set, r) in sets.iter().zip(&rankings) {
                    assert_eq!((r.psi.len(), r.order.len()), (set.len(), set.len()));
                    assert_eq!(r.values.as_ref().unwrap().len(), set.len());
                }
                rankings.into_iter().flat_map(|r| r.psi).collect()
            };
            let first = psi(&few);
            assert!(first.iter().all(|p| (0.0..=1.0).contains(p)));
            assert_eq!(first, psi(&few));
            assert_ne!(
                first,
                psi(&Problem {
                    seed: 6,
                    ..few.clone()
                })
            );
            assert!(!seen.contains(&first));
            seen.push(first);
        }
    }

    #[test]
    fn a_set_is_ranked_alike_whatever_lies_beside_it() {
        let context = Context::with_seed(5);
        let s = setting(Background::Complement, Some(Ties::Copula(2)));
        let model = learn(&s, &problem(12, 1), &context).unwrap().model;
        let sets = odd_ones(4, 3);
        let alone = model.rank(&sets[..1], &ASK).unwrap();
        let beside = model.rank(&sets, &ASK).unwrap();
        assert_eq!(alone[0].order, beside[0].order);
        for (a, b) in alone[0].psi.iter().zip(&beside[0].psi) {
            assert!((a - b).abs() < 1e-5);
        }
        assert!(model.rank(&[], &ASK).unwrap().is_empty());
        let wide = GroundSet {
            features: ndarray::Array2::zeros((2, 2)),
            ..set("w", &[0.0, 0.0], &[0])
        };
        let text = model.rank(&[wide], &ASK).unwrap_err().to_string();
        assert!(text.contains("2 features"), "{text}");
    }

    #[test]
    fn values_that_overflow_are_told() {
        let context = Context::with_seed(5);
        let s = setting(Background::Complement, None);
        let model = learn(&s, &problem(12, 1), &context).unwrap().model;
        let huge = set("h", &[3e38, 3e38, -3e38], &[0]);
        let text = model.rank(&[huge], &ASK).unwrap_err().to_string();
        assert!(text.contains("pooling=mean-log-size"), "{text}");
    }

    #[test]
    fn groups_hold_all_sets_in_order() {
        let sets: Vec<GroundSet> = (0..30)
            .map(|i| set(&format!("{i}"), &vec![0.0; 200 + i], &[0]))
            .collect();
        let found = groups(&sets, 8);
        assert!(found.len() > 2);
        assert!(found.iter().all(|g| g.len() * 8 * 229 <= ROWS + 8 * 229));
        let names: Vec<&str> = found
            .iter()
            .flat_map(|g| g.iter().map(|s| s.name.as_str()))
            .collect();
        assert_eq!(
            names,
            sets.iter().map(|s| s.name.as_str()).collect::<Vec<_>>()
        );
        assert!(groups(&[], 8).is_empty());
        // One set beyond the limit still comes, by itself.
        assert_eq!(groups(&sets[..2], 1 << 20).len(), 2);
    }

    #[test]
    fn impossible_settings_are_told() {
        let context = Context::with_seed(0);
        let good = setting(Background::None, Some(Ties::Copula(2)));
        for (bad, word) in [
            (Setting { samples: 0, ..good }, "samples"),
            (Setting { steps: 0, ..good }, "mean-field-steps"),
            (Setting { tau: 0.0, ..good }, "tau"),
            (
                Setting {
                    recognition: Some(Ties::Copula(0)),
                    ..good
                },
                "rank",
            ),
            (
                Setting {
                    shape: Shape {
                        hidden: 0,
                        ..good.shape
                    },
                    ..good
                },
                "hidden",
            ),
        ] {
            let e = learn(&bad, &problem(4, 1), &context).err().unwrap();
            assert!(e.to_string().contains(word), "{e}");
        }
        let small = Context {
            memory: Some(1000),
            ..Context::with_seed(0)
        };
        let e = learn(&good, &problem(4, 1), &small).err().unwrap();
        assert!(e.to_string().contains("memory"), "{e}");
    }
}
