//! Binary filter: a classifier of trusted pairs against pairs of the pool; the pool's most trusted-looking pairs are kept.
//!
//! One of the alternatives that Fang et al., *Data Filtering Networks*, ICLR 2024, arXiv 2309.17425, compare with the
//! contrastive filter; the idea is older (Brown et al., *Language Models are Few-Shot Learners*, arXiv 2005.14165, filter
//! web text in this way).
//!
//! 1. Features of a pair: the image tower's vector, \[64\], or both vectors and their product number by number, \[192\]
//!    (option features; without the product a linear head could not see whether image and text belong together).
//! 2. The towers are those of a contrastive model trained on the trusted pairs and stay as they are, or they are trained
//!    together with the head (option towers).
//! 3. Logistic loss on batches of half trusted pairs, half pairs of the pool, AdamW.
//! 4. Score: the head's number, before the logistic function. Keep the best.
//!
//! The pool holds good pairs too, which the classifier is told are bad: it learns what sets the trusted pairs apart as a
//! set, not which pairs are right.
//!
//! Cost as for the contrastive filter, without the similarities.

use super::filter::{PairFilter, Scorer, Sets, Trained};
use super::net::{FilterNet, Lessons};
use super::order::Order;
use super::pairs::Pairs;
use super::towers::{Batch, DIM, Plan, Tower, TowerKind};
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use papertrial_core::Result;
use papertrial_core::task::{Context, Curve, Facts, Method};
use papertrial_nn::train::{Optimiser, Schedule, Stepper, Training};
use papertrial_nn::{device, seeded, values_of};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the classifier sees of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PairFeatures {
    /// The image alone.
    Image,
    /// Image, text, and their product.
    #[default]
    Joint,
}

/// What becomes of the towers under the classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TowerUse {
    /// Trained by contrast on the trusted pairs, then left as they are.
    Frozen,
    /// Trained together with the head.
    #[default]
    Trained,
}

/// Binary filter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct BinaryFilter {
    /// What the classifier sees.
    pub features: PairFeatures,
    /// Whether the towers are trained with it.
    pub towers: TowerUse,
    /// Kind of towers.
    pub tower: TowerKind,
    /// How many trusted pairs, drawn at random; all if absent.
    #[schemars(range(min = 1))]
    pub train_pairs: Option<usize>,
    /// Pairs seen in training, half of them of the pool.
    #[schemars(range(min = 1))]
    pub samples: usize,
    /// Pairs of a step.
    #[schemars(range(min = 2))]
    pub batch: usize,
    /// Learning rate at the start; if absent 2e-3, and 5e-4 for small towers.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: Option<f64>,
    /// Pull of the weights to 0, times the learning rate.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
}

impl Default for BinaryFilter {
    fn default() -> Self {
        let lessons = Lessons::default();
        BinaryFilter {
            features: PairFeatures::Joint,
            towers: TowerUse::Trained,
            tower: TowerKind::Tiny,
            train_pairs: None,
            samples: 20_000,
            batch: lessons.batch,
            learning_rate: None,
            weight_decay: lessons.weight_decay,
        }
    }
}

impl Method for BinaryFilter {
    const FACTS: Facts = Facts {
        name: "binary-filter",
        about: "a logistic classifier of trusted pairs against pairs of the pool; keeps what looks trusted",
        paper: None,
        streams: true,
    };
}

/// Towers and head.
#[derive(Module, Debug)]
struct Classifier {
    left: Tower,
    right: Tower,
    head: Linear,
    joint: bool,
    frozen: bool,
}

impl Classifier {
    /// The head's numbers, \[rows\].
    fn forward(&self, left: Batch, right: Batch) -> Tensor<1> {
        let mut features = self.left.embed(left);
        if self.joint {
            let text = self.right.embed(right);
            let product = features.clone() * text.clone();
            features = Tensor::cat(vec![features, text, product], 1);
        }
        if self.frozen {
            features = features.detach();
        }
        self.head.forward(features).squeeze_dim::<1>(1)
    }
}

/// Logistic loss of each row: -log sigmoid(x) where `trusted`, -log(1 - sigmoid(x)) elsewhere, without overflow.
fn logistic(x: Tensor<1>, trusted: Tensor<1>) -> Tensor<1> {
    relu(x.clone()) - x.clone() * trusted + (x.abs().neg().exp() + 1.0).log()
}

struct BinaryScorer {
    plan: Plan,
    model: Classifier,
}

impl Scorer for BinaryScorer {
    fn score(&self, pairs: &Pairs, context: &Context) -> Result<Vec<f32>> {
        let (left, right) = self.plan.inputs(pairs)?;
        let device = device(&context.device)?;
        let rows: Vec<usize> = (0..pairs.len()).collect();
        let mut scores = Vec::with_capacity(rows.len());
        for chunk in rows.chunks(1024) {
            let logits = self.model.forward(
                left.batch(chunk, None, &device),
                right.batch(chunk, None, &device),
            );
            scores.extend(values_of(logits)?);
        }
        Ok(scores)
    }
}

impl PairFilter for BinaryFilter {
    fn train(&self, sets: &Sets, context: &Context) -> Result<Trained> {
        let rate = self.learning_rate.unwrap_or(self.tower.rate());
        let half = self.batch.div_ceil(2);
        let clean = sets.trusted(self.train_pairs, half)?;
        let pool = sets.raw(None, half)?;
        let plain = device(&context.device)?;
        let joint = self.features == PairFeatures::Joint;
        let width = if joint { 3 * DIM } else { DIM }; // 1
        let head = |d: &Device| LinearConfig::new(width, 1).init(d);
        let mut curves = Vec::new();
        let (plan, mut model) = match self.towers {
            TowerUse::Trained => {
                let plan = Plan::of(self.tower, &clean.clone().with(&pool)?)?;
                let model = seeded(&plain, sets.seed, |d| Classifier {
                    left: Tower::new(&plan.left, plan.kind, d),
                    right: Tower::new(&plan.right, plan.kind, d),
                    head: head(d),
                    joint,
                    frozen: false,
                });
                (plan, model)
            }
            TowerUse::Frozen => {
                let lessons = Lessons {
                    samples: self.samples,
                    batch: half,
                    learning_rate: rate,
                    weight_decay: self.weight_decay,
                    crops: true,
                    seed: sets.seed,
                };
                let what = "training the towers";
                let (net, curve) = FilterNet::train(self.tower, &clean, &lessons, context, what)?; // 2
                curves.push(curve);
                let (plan, left, right) = net.into_towers();
                let model = Classifier {
                    left,
                    right,
                    head: seeded(&plain, sets.seed, head),
                    joint,
                    frozen: true,
                };
                (plan, model)
            }
        };

        // 3.
        let device = plain.autodiff();
        let sides = [plan.inputs(&clean)?, plan.inputs(&pool)?];
        let mut orders = [
            Order::new(clean.len(), sets.seed, "order of clean pairs"),
            Order::new(pool.len(), sets.seed, "order of the pool"),
        ];
        let steps = self.samples.div_ceil(2 * half);
        let training = Training {
            batch: self.batch,
            learning_rate: rate,
            optimiser: Optimiser::AdamW {
                weight_decay: self.weight_decay,
            },
            schedule: Schedule::Cosine { floor: 0.0 },
            ..Training::default()
        };
        let mut stepper = Stepper::new(&training, steps);
        let mut points = Vec::new();
        for step in 0..steps {
            context.step("training the classifier", step, steps);
            let mut losses = Vec::new();
            for (((left, right), order), trusted) in
                sides.iter().zip(&mut orders).zip([1.0f32, 0.0])
            {
                let rows = order.take(half);
                let logits = model.forward(
                    left.batch(&rows, None, &device),
                    right.batch(&rows, None, &device),
                );
                let truth = Tensor::<1>::full([half], trusted, &device);
                losses.push(logistic(logits, truth));
            }
            let (next, value) = stepper.step(model, Tensor::cat(losses, 0).mean())?;
            model = next;
            points.push((((step + 1) * 2 * half) as f64, f64::from(value)));
        }
        curves.push(Curve {
            name: "loss: training the classifier".into(),
            x: "pairs seen".into(),
            y: "loss".into(),
            points,
        });
        let scorer = BinaryScorer {
            plan,
            model: model.valid(),
        };
        Ok(Trained {
            curves,
            ..Trained::best(scorer) // 4
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::pairs::Side;
    use super::*;

    #[test]
    fn the_logistic_loss_by_hand_and_far_out() {
        let device = device("cpu").unwrap();
        let x = Tensor::<1>::from_data([0.0f32, 2.0, 2.0, -80.0, 80.0], &device);
        let truth = Tensor::<1>::from_data([1.0f32, 1.0, 0.0, 1.0, 1.0], &device);
        let got = values_of(logistic(x, truth)).unwrap();
        let want = [
            2f64.ln(),
            (1.0 + (-2f64).exp()).ln(),
            (1.0 + 2f64.exp()).ln(),
            80.0,
            0.0,
        ];
        for (g, w) in got.iter().zip(want) {
            assert!((f64::from(*g) - w).abs() < 1e-5, "{g} {w}");
        }
    }

    /// Trusted pairs are bright pictures; the pool is half bright.
    #[test]
    fn what_looks_trusted_scores_high() {
        let pairs = |n: usize, bright: fn(usize) -> bool| Pairs {
            uids: (0..n).map(|i| i.to_string()).collect(),
            left: Side::Vectors {
                values: (0..n)
                    .flat_map(|i| {
                        let level = if bright(i) { 1.0 } else { -1.0 };
                        [level, level * 0.5 + 0.01 * (i % 5) as f32, 0.3]
                    })
                    .collect(),
                width: 3,
            },
            right: Side::Texts((0..n).map(|i| format!("thing {}", i % 3)).collect()),
            shape: None,
            labels: None,
            matches: None,
        };
        let (pool, clean) = (pairs(60, |i| i % 2 == 0), pairs(40, |_| true));
        let sets = Sets {
            pool: &pool,
            clean: Some(&clean),
            fine_tune: None,
            seed: 1,
        };
        let context = Context::with_seed(1);
        for features in [PairFeatures::Image, PairFeatures::Joint] {
            for towers in [TowerUse::Frozen, TowerUse::Trained] {
                let filter = BinaryFilter {
                    features,
                    towers,
                    samples: 2_000,
                    batch: 32,
                    learning_rate: Some(1e-2),
                    ..BinaryFilter::default()
                };
                let trained = filter.train(&sets, &context).unwrap();
                let scores = trained.scorer.score(&pool, &context).unwrap();
                let mean = |odd: usize| (0..30).map(|i| scores[2 * i + odd]).sum::<f32>() / 30.0;
                assert!(
                    mean(0) > mean(1),
                    "{features:?} {towers:?}: {} {}",
                    mean(0),
                    mean(1)
                );
                assert!(trained.scorer.net().is_none());
            }
        }
        let none = Sets {
            clean: None,
            ..sets
        };
        assert!(BinaryFilter::default().train(&none, &context).is_err());
    }
}
