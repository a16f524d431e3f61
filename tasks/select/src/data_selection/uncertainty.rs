//! Scores of uncertainty: least confidence, margin and entropy of a model's probabilities.
//!
//! Baselines. As selection of a subset: Coleman et al., *Selection via Proxy*, ICLR 2020, arXiv 1906.11829.
//!
//! p \[n, c\] probabilities of a scoring model; the greater the score, the less sure the model is of the row.
//! 1. Train the scoring model on all rows (or take the model being trained, anew every `every` rounds).
//! 2. Score: least confidence -max p; margin -(largest p - second largest p); entropy -sum p ln p.
//! 3. Keep the k rows with the highest scores (hard) or the lowest (easy), in each class its share or of all together.
//!
//! Cost: the scoring model, then O(n c).

use super::pool::{Choice, Keep, Pool, Selector, View};
use ndarray::{ArrayView1, Axis};
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the choice by least confidence.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct LeastConfidence {
    /// Which rows are kept.
    pub keep: Keep,
    /// Keep the classes' shares.
    pub balance: bool,
    /// Rounds after which rows are chosen anew, by the model being trained; 0 to choose once, by a scoring model.
    pub every: usize,
}

/// Options of the choice by margin.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Margin {
    /// Which rows are kept.
    pub keep: Keep,
    /// Keep the classes' shares.
    pub balance: bool,
    /// Rounds after which rows are chosen anew, by the model being trained; 0 to choose once, by a scoring model.
    pub every: usize,
}

/// Options of the choice by entropy.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Entropy {
    /// Which rows are kept.
    pub keep: Keep,
    /// Keep the classes' shares.
    pub balance: bool,
    /// Rounds after which rows are chosen anew, by the model being trained; 0 to choose once, by a scoring model.
    pub every: usize,
}

/// The three differ in nothing but their score.
macro_rules! by_score {
    ($method:ident, $name:literal, $about:literal, $score:path) => {
        impl Default for $method {
            fn default() -> Self {
                $method {
                    keep: Keep::Hard,
                    balance: true,
                    every: 0,
                }
            }
        }

        impl Method for $method {
            const FACTS: Facts = Facts {
                name: $name,
                about: $about,
                paper: None,
                streams: false,
            };
        }

        impl Selector for $method {
            fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
                // Step 1.
                pool.by_model(self.every, |view| {
                    // Steps 2 and 3.
                    pool.best(&scores(view, $score), self.keep, self.balance)
                })
            }
        }
    };
}

by_score!(
    LeastConfidence,
    "least-confidence",
    "rows whose likeliest class a scoring model finds least likely",
    least_confidence
);
by_score!(
    Margin,
    "margin",
    "rows whose two likeliest classes a scoring model finds nearly as likely",
    margin
);
by_score!(
    Entropy,
    "entropy",
    "rows over whose classes a scoring model spreads its probability most",
    entropy
);

fn scores(view: &View, score: fn(ArrayView1<f32>) -> f64) -> Vec<f64> {
    view.probabilities().axis_iter(Axis(0)).map(score).collect()
}

fn least_confidence(p: ArrayView1<f32>) -> f64 {
    -f64::from(p.fold(0.0, |a: f32, b| a.max(*b)))
}

fn margin(p: ArrayView1<f32>) -> f64 {
    let (mut first, mut second) = (0.0f32, 0.0f32);
    for v in p {
        if *v > first {
            second = first;
            first = *v;
        } else {
            second = second.max(*v);
        }
    }
    -f64::from(first - second)
}

fn entropy(p: ArrayView1<f32>) -> f64 {
    p.iter()
        .filter(|v| **v > 0.0)
        .map(|v| -f64::from(*v) * f64::from(*v).ln())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::super::pool::testing::Asked;
    use super::*;
    use ndarray::{Array2, array};

    #[test]
    fn scores_by_hand() {
        let p = array![0.5f32, 0.2, 0.3];
        assert!((least_confidence(p.view()) + 0.5).abs() < 1e-7);
        assert!((margin(p.view()) + 0.2).abs() < 1e-7);
        let want = 0.5 * 2f64.ln() - 0.2 * 0.2f64.ln() - 0.3 * 0.3f64.ln();
        assert!((entropy(p.view()) - want).abs() < 1e-6);
        assert_eq!(entropy(array![1.0f32, 0.0].view()), 0.0);
        assert_eq!(margin(array![0.5f32, 0.5].view()), 0.0);
    }

    /// Two classes by turns; the higher the row, the surer the model.
    fn asked() -> Asked {
        let logits =
            Array2::from_shape_fn((8, 2), |(i, j)| if j == 0 { i as f32 / 4.0 } else { 0.0 });
        Asked::new(
            Array2::zeros((8, 1)),
            (0..8).map(|i| i % 2).collect(),
            logits,
            2,
        )
    }

    #[test]
    fn hard_and_easy_ends_by_class_and_together() {
        for (keep, balance, want) in [
            (Keep::Hard, false, [0, 1]),
            (Keep::Easy, false, [6, 7]),
            (Keep::Hard, true, [0, 1]),
            (Keep::Easy, true, [6, 7]),
        ] {
            let every = 0;
            let all: [Box<dyn Selector>; 3] = [
                Box::new(LeastConfidence {
                    keep,
                    balance,
                    every,
                }),
                Box::new(Margin {
                    keep,
                    balance,
                    every,
                }),
                Box::new(Entropy {
                    keep,
                    balance,
                    every,
                }),
            ];
            for (i, selector) in all.iter().enumerate() {
                let found = asked().once(&**selector).unwrap();
                assert_eq!(found.rows, want, "{i} {keep:?} {balance}");
            }
        }
    }

    #[test]
    fn anew_every_other_round() {
        let options = Margin {
            every: 2,
            ..Margin::default()
        };
        let found = asked().rounds(&options, 4).unwrap();
        assert_eq!(found.len(), 4);
        for subset in found {
            let mut rows = subset.rows;
            rows.sort_unstable();
            assert_eq!(rows, [0, 1]);
        }
        asked().with(|pool| {
            // Between two choices the model is not looked at.
            let Choice::Followed(mut next) = options.choose(pool).unwrap() else {
                panic!("once");
            };
            let looks = std::cell::Cell::new(0);
            for round in 0..5 {
                let look = || {
                    looks.set(looks.get() + 1);
                    Ok(asked().view)
                };
                next(round, &look).unwrap();
            }
            assert_eq!(looks.get(), 3);
        });
    }
}
