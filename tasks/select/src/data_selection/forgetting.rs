//! Forgetting: how often a row, once learned, is lost again.
//!
//! Baseline. Toneva et al., *An Empirical Study of Example Forgetting during Deep Neural Network Learning*, ICLR 2019,
//! arXiv 1812.05159.
//!
//! 1. Train a scoring model on all rows; after each of its E epochs see which rows it predicts right.
//! 2. A row's score is the number of epochs in which it went from right to wrong; a row that was never right scores
//!    E + 1, as the paper counts it as forgotten infinitely often. (RS2's and DeepCore's code counts turns alone, so that
//!    a row never learned scores 0; and it looks at each row when its step comes rather than at the end of the epoch.)
//! 3. Keep the k rows with the highest scores (hard) or the lowest (easy), in each class its share or of all together.
//!    Few epochs make many equal scores; among them the rows are drawn by the seed.
//! 4. With `every` above 0 there is no scoring model: the turns of the model being trained are counted from the start,
//!    and rows are chosen anew at the start of every so many rounds.
//!
//! Cost: the scoring model, and a look at all rows after each epoch.

use super::pool::{Choice, Keep, Pool, Selector, Subset, View, shuffled};
use ndarray::Axis;
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the choice by forgetting.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Forgetting {
    /// Which rows are kept.
    pub keep: Keep,
    /// Keep the classes' shares.
    pub balance: bool,
    /// Rounds after which rows are chosen anew, by the model being trained; 0 to choose once, by a scoring model.
    pub every: usize,
}

impl Default for Forgetting {
    fn default() -> Self {
        Forgetting {
            keep: Keep::Hard,
            balance: true,
            every: 0,
        }
    }
}

impl Method for Forgetting {
    const FACTS: Facts = Facts {
        name: "forgetting",
        about: "rows that a model in training learns and loses again most often, or never learns",
        paper: None,
        streams: false,
    };
}

impl Selector for Forgetting {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        let mut turns = Turns::new(pool.len());
        if self.every == 0 {
            if pool.scoring_epochs == 0 {
                return Err(Error::option(
                    "selection-epochs",
                    "must be at least 1 for a method that scores rows by a model",
                ));
            }
            pool.trainer
                .train(pool.context.seed, pool.scoring_epochs, &mut |_, look| {
                    turns.see(&look()?, pool.labels);
                    Ok(())
                })?;
            let scores = turns.scores(pool.context.seed);
            return Ok(Choice::Once(pool.best(&scores, self.keep, self.balance)?));
        }
        let mut current = Subset::default();
        Ok(Choice::Followed(Box::new(move |round, look| {
            turns.see(&look()?, pool.labels);
            if round.is_multiple_of(self.every) {
                let scores = turns.scores(pool.context.seed);
                current = pool.best(&scores, self.keep, self.balance)?;
            }
            Ok(shuffled(&current, pool.context.seed, round))
        })))
    }
}

/// What is known of each row's turns.
struct Turns {
    epochs: usize,
    lost: Vec<usize>,
    right: Vec<bool>,
    ever: Vec<bool>,
}

impl Turns {
    fn new(n: usize) -> Turns {
        Turns {
            epochs: 0,
            lost: vec![0; n],
            right: vec![false; n],
            ever: vec![false; n],
        }
    }

    /// Steps 1 and 2 for one epoch.
    fn see(&mut self, view: &View, labels: &[usize]) {
        self.epochs += 1;
        for (row, (logits, label)) in view.logits.axis_iter(Axis(0)).zip(labels).enumerate() {
            // Ties go to the lower class, as in the accuracy.
            let right = logits.iter().enumerate().all(|(class, v)| {
                class == *label || *v < logits[*label] || (*v == logits[*label] && class > *label)
            });
            self.lost[row] += usize::from(self.right[row] && !right);
            self.right[row] = right;
            self.ever[row] |= right;
        }
    }

    /// Whole numbers, and less than 1 above them so that equal ones come in an order drawn by the seed.
    fn scores(&self, seed: u64) -> Vec<f64> {
        let mut rng = sampling::rng(seed, "order of rows forgotten equally often");
        self.lost
            .iter()
            .zip(&self.ever)
            .map(|(lost, ever)| if *ever { *lost } else { self.epochs + 1 })
            .map(|score| score as f64 + 0.999 * rng.random::<f64>())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::testing::Asked;
    use super::*;
    use ndarray::Array2;

    /// A view in which the rows named are right; the class is 0 everywhere.
    fn view(right: &[usize], n: usize) -> View {
        View {
            features: Array2::zeros((n, 1)),
            logits: Array2::from_shape_fn((n, 2), |(i, j)| {
                if (j == 0) == right.contains(&i) {
                    1.0
                } else {
                    0.0
                }
            }),
            head: Array2::zeros((1, 2)),
        }
    }

    #[test]
    fn turns_by_hand() {
        let mut turns = Turns::new(4);
        for right in [&[0, 1][..], &[0], &[0, 1, 2], &[0]] {
            turns.see(&view(right, 4), &[0; 4]);
        }
        let whole: Vec<f64> = turns.scores(3).iter().map(|s| s.floor()).collect();
        // Always right; lost twice; lost once; never right.
        assert_eq!(whole, [0.0, 2.0, 1.0, 5.0]);
        assert_eq!(turns.scores(3), turns.scores(3));
        assert_ne!(turns.scores(3), turns.scores(4));
    }

    #[test]
    fn a_tie_counts_as_the_lower_class() {
        let mut turns = Turns::new(2);
        let mut even = view(&[], 2);
        even.logits.fill(0.5);
        turns.see(&even, &[0, 1]);
        assert_eq!(turns.right, [true, false]);
    }

    #[test]
    fn never_learned_rows_are_the_hardest() {
        let n = 9;
        let asked = |keep, every| {
            let asked = Asked::new(
                Array2::zeros((n, 1)),
                vec![0; n],
                view(&[0, 1, 2, 3, 4, 6, 7], n).logits,
                2,
            );
            let options = Forgetting {
                keep,
                balance: false,
                every,
            };
            asked.rounds(&options, 2).unwrap()
        };
        for every in [0, 1] {
            for subset in asked(Keep::Hard, every) {
                let mut rows = subset.rows;
                rows.sort_unstable();
                assert_eq!(rows, [5, 8]);
            }
            for subset in asked(Keep::Easy, every) {
                assert!(!subset.rows.contains(&5) && !subset.rows.contains(&8));
            }
        }
    }
}
