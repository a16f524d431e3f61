//! Data filtering network: a small contrastive model that is trained on trusted pairs and keeps the best of a pool.
//!
//! Fang, Albin Madappally Jose, Jain, Schmidt, Toshev and Shankar, *Data Filtering Networks*, ICLR 2024,
//! arXiv 2309.17425. The training code was not published; what follows is the paper's text, and open_clip's customs where
//! it is silent.
//!
//! Symbols: n pairs of image and text to learn from; f, g the image and the text tower, to unit vectors of 64; b pairs of
//! a batch; s the scale.
//!
//! 1. Take n trusted pairs (option train-pairs). For the paper's series, replace a share r of them by pairs of the pool,
//!    n staying the same (option poison); or take the pairs from the pool at once (option train-on).
//! 2. Train f, g and s on batches: the symmetric cross-entropy of s f(x_i) . g(t_j) over the batch, the mass of a target
//!    shared among equal texts. s starts at 1 / 0.07 and is kept within 1 to 100. Pictures are cropped at random (option
//!    augment). AdamW, rate falling along half a cosine. Optionally start from weights (option init-weights).
//! 3. Train further on the pairs of the tasks that matter (input fine-tune), where there are any: the paper takes
//!    captions, and class names put into sentences.
//! 4. Score each pair of the pool: f(x) . g(t), without the scale.
//! 5. Keep the best share of the whole pool; the paper keeps 15 %. Equal scores: the uid that comes first.
//!
//! The filter is judged by the model that is trained on what it kept (see the task), never by its own accuracy: that the
//! two hardly go together is the paper's finding.
//!
//! Differences from the paper: towers of 64 to 128 numbers in place of a ViT-B/32, thousands of pairs in place of
//! billions, a rate of 2e-3 in place of 5e-4 for the smallest towers, AdamW's second moment at .999 in place of .98, no warm-up.
//!
//! Cost: 2 (forward) to 6 (training) times the weights for each pair seen, b^2 similarities a step; scoring is one
//! forward pass of each tower a pair, in batches of 1,024.

use super::filter::{PairFilter, Sets, Trained};
use super::keep::Keep;
use super::net::{FilterNet, Lessons};
use super::pairs::Pairs;
use super::towers::TowerKind;
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::{rng, sample_shuffled};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Which pairs a filter learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TrainOn {
    /// The trusted pairs.
    #[default]
    Clean,
    /// The pool as it is.
    Pool,
}

/// Data filtering network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Dfn {
    /// Which pairs it learns from.
    pub train_on: TrainOn,
    /// How many of them, drawn at random; all if absent.
    #[schemars(range(min = 1))]
    pub train_pairs: Option<usize>,
    /// Share of them that is replaced by pairs of the pool, their number staying the same.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub poison: f64,
    /// Its towers.
    pub tower: TowerKind,
    /// Pairs seen in training, the same ones again where there are fewer; 0 to take the weights of init-weights as they
    /// are.
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
    /// Crop pictures at random in training.
    pub augment: bool,
    /// File of weights that an earlier filter wrote, to start from.
    pub init_weights: Option<String>,
    /// Pairs seen in fine-tuning, where the input fine-tune is given; 0 for none.
    pub fine_tune_samples: usize,
    /// Learning rate of fine-tuning.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub fine_tune_rate: f64,
}

impl Default for Dfn {
    fn default() -> Self {
        Dfn {
            train_on: TrainOn::Clean,
            train_pairs: None,
            poison: 0.0,
            tower: TowerKind::Tiny,
            samples: 20_000,
            batch: 128,
            learning_rate: None,
            weight_decay: 0.2,
            augment: true,
            init_weights: None,
            fine_tune_samples: 5_000,
            fine_tune_rate: 2e-4,
        }
    }
}

impl Method for Dfn {
    const FACTS: Facts = Facts {
        name: "dfn",
        about: "a small contrastive model, trained on trusted pairs, scores the pool by the cosine of image and text",
        paper: Some("dfn"),
        streams: true,
    };
}

impl PairFilter for Dfn {
    fn train(&self, sets: &Sets, context: &Context) -> Result<Trained> {
        let mut curves = Vec::new();
        let mut notes = Vec::new();
        let lessons = Lessons {
            samples: self.samples,
            batch: self.batch,
            learning_rate: self.learning_rate.unwrap_or(self.tower.rate()),
            weight_decay: self.weight_decay,
            crops: self.augment,
            seed: sets.seed,
        };
        let start = match &self.init_weights {
            Some(path) => Some(FilterNet::load(Path::new(path), context)?),
            None => None,
        };
        let mut net = match (start, self.samples) {
            (None, 0) => {
                return Err(Error::option(
                    "samples",
                    "is 0 without init-weights, so there is nothing to score with; give a number of pairs to see, or weights",
                ));
            }
            (Some(net), 0) => net,
            (start, _) => {
                let pairs = self.pairs(sets)?; // 1
                let what = "training the filter";
                let (net, curve) = match start {
                    Some(net) => net.tune(&pairs, &lessons, context, what)?,
                    None => FilterNet::train(self.tower, &pairs, &lessons, context, what)?, // 2
                };
                curves.push(curve);
                net
            }
        };
        if let (Some(pairs), 1..) = (sets.fine_tune, self.fine_tune_samples) {
            let lessons = Lessons {
                samples: self.fine_tune_samples,
                batch: self.batch.min(pairs.len()),
                learning_rate: self.fine_tune_rate,
                ..lessons
            };
            let (tuned, curve) = net.tune(pairs, &lessons, context, "tuning the filter")?; // 3
            curves.push(curve);
            notes.push(format!("the filter was tuned on {} pairs", pairs.len()));
            net = tuned;
        }
        notes.push(format!(
            "the filter's temperature ended at {:.4}",
            net.temperature()?
        ));
        Ok(Trained {
            scorer: Box::new(net), // 4
            keep: Keep::Best,      // 5
            curves,
            notes,
        })
    }
}

impl Dfn {
    /// Step 1.
    fn pairs(&self, sets: &Sets) -> Result<Pairs> {
        if self.train_on == TrainOn::Pool {
            if self.poison > 0.0 {
                return Err(Error::option(
                    "poison",
                    "replaces clean pairs by pairs of the pool; with train-on=pool all are of the pool",
                ));
            }
            return sets.raw(self.train_pairs, self.batch);
        }
        let clean = sets.trusted(self.train_pairs, self.batch)?;
        poisoned(clean, sets.pool, self.poison, sets.seed)
    }
}

/// `clean` with a share of its pairs replaced by pairs of the pool. What is replaced, and by what, of a smaller share is
/// part of that of a larger one of the same seed.
fn poisoned(clean: Pairs, pool: &Pairs, share: f64, seed: u64) -> Result<Pairs> {
    let n = clean.len();
    let count = (share * n as f64).round() as usize;
    if count == 0 {
        return Ok(clean);
    }
    if n > pool.len() {
        return Err(Error::option(
            "poison",
            format!(
                "draws from the pool, which has {} pairs; at least {n} are needed",
                pool.len()
            ),
        ));
    }
    let draw = |of: usize, purpose: &str| {
        sample_shuffled(&mut rng(seed, purpose), of, n).map_err(|e| Error::option("poison", e))
    };
    let kept = &draw(n, "clean pairs that stay")?[count..];
    let mut rows = kept.to_vec();
    rows.sort_unstable();
    let poison = &draw(pool.len(), "poison")?[..count];
    clean.select(&rows).with(&pool.select(poison))
}

/// A filter trained on the pool that it is to filter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct PoolFilter {
    /// How many pairs of the pool it learns from, drawn at random; all if absent.
    #[schemars(range(min = 1))]
    pub train_pairs: Option<usize>,
    /// Its towers.
    pub tower: TowerKind,
    /// Pairs seen in training, the same ones again where there are fewer.
    #[schemars(range(min = 1))]
    pub samples: usize,
    /// Pairs of a step.
    #[schemars(range(min = 2))]
    pub batch: usize,
    /// Learning rate at the start; if absent 2e-3, and 5e-4 for small towers.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: Option<f64>,
}

impl Default for PoolFilter {
    fn default() -> Self {
        let dfn = Dfn::default();
        PoolFilter {
            train_pairs: None,
            tower: dfn.tower,
            samples: dfn.samples,
            batch: dfn.batch,
            learning_rate: dfn.learning_rate,
        }
    }
}

impl Method for PoolFilter {
    const FACTS: Facts = Facts {
        name: "pool-filter",
        about: "the same contrastive model as dfn, trained on the pool as it is; needs no trusted pairs",
        paper: None,
        streams: true,
    };
}

impl PairFilter for PoolFilter {
    fn train(&self, sets: &Sets, context: &Context) -> Result<Trained> {
        Dfn {
            train_on: TrainOn::Pool,
            train_pairs: self.train_pairs,
            tower: self.tower,
            samples: self.samples,
            batch: self.batch,
            learning_rate: self.learning_rate,
            fine_tune_samples: 0,
            ..Dfn::default()
        }
        .train(sets, context)
    }
}

/// Keeps what scores above a fixed cosine, whatever share of the pool that is.
///
/// LAION-400M (Schuhmann et al., *LAION-400M: Open Dataset of CLIP-Filtered 400 Million Image-Text Pairs*, 2021,
/// arXiv 2111.02114) keeps pairs whose CLIP cosine is at least .3. Cosines of another model are on another scale, so the
/// threshold means something else here: that is what the comparison shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct FixedThreshold {
    /// Least cosine that is kept.
    #[schemars(range(min = -1.0, max = 1.0))]
    pub threshold: f64,
    /// Which pairs the filter learns from.
    pub train_on: TrainOn,
    /// How many of them, drawn at random; all if absent.
    #[schemars(range(min = 1))]
    pub train_pairs: Option<usize>,
    /// Its towers.
    pub tower: TowerKind,
    /// Pairs seen in training.
    #[schemars(range(min = 1))]
    pub samples: usize,
    /// Pairs of a step.
    #[schemars(range(min = 2))]
    pub batch: usize,
}

impl Default for FixedThreshold {
    fn default() -> Self {
        let dfn = Dfn::default();
        FixedThreshold {
            threshold: 0.3,
            train_on: dfn.train_on,
            train_pairs: None,
            tower: dfn.tower,
            samples: dfn.samples,
            batch: dfn.batch,
        }
    }
}

impl Method for FixedThreshold {
    const FACTS: Facts = Facts {
        name: "fixed-threshold",
        about: "the filter of dfn, but keeps what scores above a fixed cosine, as LAION does, whatever share that is",
        paper: None,
        streams: true,
    };
}

impl PairFilter for FixedThreshold {
    fn train(&self, sets: &Sets, context: &Context) -> Result<Trained> {
        let trained = Dfn {
            train_on: self.train_on,
            train_pairs: self.train_pairs,
            tower: self.tower,
            samples: self.samples,
            batch: self.batch,
            ..Dfn::default()
        }
        .train(sets, context)?;
        Ok(Trained {
            keep: Keep::AtLeast(self.threshold as f32),
            ..trained
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::pairs::Side;
    use super::*;
    use proptest::prelude::*;

    /// Vectors of which the largest place is named by the text, where it is right.
    fn pairs(n: usize, wrong: usize, name: &str) -> Pairs {
        let names = ["north", "east", "south", "west"];
        let place = |i: usize| i % 4;
        Pairs {
            uids: (0..n).map(|i| format!("{name}{i}")).collect(),
            left: Side::Vectors {
                values: (0..n)
                    .flat_map(|i| {
                        (0..4).map(move |j| {
                            f32::from(u8::from(j == place(i))) + 0.01 * (i % 7) as f32
                        })
                    })
                    .collect(),
                width: 4,
            },
            right: Side::Texts(
                (0..n)
                    .map(|i| names[(place(i) + usize::from(i < wrong)) % 4].to_string())
                    .collect(),
            ),
            shape: None,
            labels: None,
            matches: Some((0..n).map(|i| i >= wrong).collect()),
        }
    }

    fn sets<'a>(pool: &'a Pairs, clean: &'a Pairs) -> Sets<'a> {
        Sets {
            pool,
            clean: Some(clean),
            fine_tune: None,
            seed: 1,
        }
    }

    fn quick() -> Dfn {
        Dfn {
            samples: 1600,
            batch: 16,
            learning_rate: Some(1e-2),
            ..Dfn::default()
        }
    }

    #[test]
    fn right_pairs_score_above_wrong_ones() {
        let context = Context::with_seed(1);
        let (pool, clean) = (pairs(100, 60, "p"), pairs(32, 0, "c"));
        let trained = quick().train(&sets(&pool, &clean), &context).unwrap();
        let scores = trained.scorer.score(&pool, &context).unwrap();
        let least = scores[60..].iter().copied().fold(f32::MAX, f32::min);
        assert!(scores[..60].iter().all(|s| *s < least));
        assert_eq!(trained.curves.len(), 1);
    }

    #[test]
    fn tuning_and_weights_are_switches() {
        let context = Context::with_seed(1);
        let (pool, clean) = (pairs(40, 20, "p"), pairs(32, 0, "c"));
        let plain = sets(&pool, &clean);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let first = quick().train(&plain, &context).unwrap();
        first.scorer.net().unwrap().save(&path).unwrap();
        let scores = first.scorer.score(&pool, &context).unwrap();
        let weights = Dfn {
            init_weights: Some(path.display().to_string()),
            samples: 0,
            ..quick()
        };
        let none = Sets {
            clean: None,
            ..sets(&pool, &clean)
        };
        let loaded = weights.train(&none, &context).unwrap();
        assert_eq!(scores, loaded.scorer.score(&pool, &context).unwrap());
        let tuning = Sets {
            fine_tune: Some(&clean),
            ..none
        };
        let tuned = weights.train(&tuning, &context).unwrap();
        assert_ne!(scores, tuned.scorer.score(&pool, &context).unwrap());
        assert_eq!(tuned.curves.len(), 1);
        let nothing = Dfn {
            samples: 0,
            ..quick()
        };
        assert!(nothing.train(&tuning, &context).is_err());
    }

    #[test]
    fn sets_that_are_missing_or_small_are_told() {
        let context = Context::with_seed(1);
        let (pool, clean) = (pairs(40, 20, "p"), pairs(12, 0, "c"));
        let told = |filter: &Dfn, sets: &Sets| match filter.train(sets, &context) {
            Ok(_) => String::new(),
            Err(e) => e.to_string(),
        };
        let both = sets(&pool, &clean);
        assert!(told(&quick(), &both).contains("16, more than the 12 clean pairs"));
        let many = Dfn {
            train_pairs: Some(13),
            ..quick()
        };
        assert!(told(&many, &both).contains("asks for 13 clean pairs; there are 12"));
        let none = Sets {
            clean: None,
            ..sets(&pool, &clean)
        };
        assert!(told(&quick(), &none).contains("--clean"));
        let both_ways = Dfn {
            train_on: TrainOn::Pool,
            poison: 0.5,
            ..quick()
        };
        assert!(told(&both_ways, &both).contains("poison"));
        assert!(
            PoolFilter {
                batch: 16,
                samples: 64,
                ..PoolFilter::default()
            }
            .train(&none, &context)
            .is_ok()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn poison_keeps_the_number_and_is_nested(seed in 0u64..50, a in 0.0f64..1.0, b in 0.0f64..1.0) {
            let (low, high) = (a.min(b), a.max(b));
            let (pool, clean) = (pairs(60, 30, "p"), pairs(40, 0, "c"));
            let uids = |share| poisoned(clean.clone(), &pool, share, seed).unwrap().uids;
            let (few, many) = (uids(low), uids(high));
            prop_assert_eq!(few.len(), 40);
            prop_assert_eq!(many.len(), 40);
            let poison = |uids: &[String]| uids.iter().filter(|u| u.starts_with('p')).count();
            prop_assert_eq!(poison(&few), (low * 40.0).round() as usize);
            prop_assert!(few.iter().filter(|u| u.starts_with('p')).all(|u| many.contains(u)));
            prop_assert!(many.iter().filter(|u| u.starts_with('c')).all(|u| few.contains(u)));
        }
    }
}
