//! What selection works with: the pool, models of it, and what is chosen.
//!
//! Shapes: n rows of the pool, d columns, c classes, h numbers that the last layer gets, k rows to choose.

use ndarray::{Array2, ArrayView2, Axis};
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use papertrial_numerics::{sampling, topk};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The labelled rows to choose from.
pub struct Pool<'a> {
    /// Columns, [n, d].
    pub x: ArrayView2<'a, f32>,
    /// Class of each row, `[n]`.
    pub labels: &'a [usize],
    /// Number of classes, c.
    pub classes: usize,
    /// Rows to choose for a round, k: 1 to n.
    pub choose: usize,
    /// Rounds, each one pass over the rows chosen for it.
    pub rounds: usize,
    /// Epochs of a scoring model, on all rows.
    pub scoring_epochs: usize,
    /// Step of training, which GLISTER's look ahead takes too.
    pub learning_rate: f64,
    /// Trains scoring models.
    pub trainer: &'a dyn Trainer,
    /// The seed, and the limit of memory.
    pub context: &'a Context<'a>,
}

/// A model at some moment, as selection sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// What the last layer gets, [n, h].
    pub features: Array2<f32>,
    /// What the last layer gives, [n, c].
    pub logits: Array2<f32>,
    /// Weights of the last layer, [h, c].
    pub head: Array2<f32>,
}

/// Gives the view of all rows of the pool; selection that needs no model does not call it.
pub type Look<'l> = dyn Fn() -> Result<View> + 'l;

/// Trains models on the pool: the networks of this crate, or a user's own.
pub trait Trainer: Sync {
    /// Trains a new model, drawn from `seed`, for `epochs` epochs on all rows; calls `each` with every epoch's number,
    /// from 0, when it is over.
    ///
    /// # Errors
    /// What training, or `each`, ends with.
    fn train(
        &self,
        seed: u64,
        epochs: usize,
        each: &mut dyn FnMut(usize, &Look) -> Result<()>,
    ) -> Result<()>;
}

/// Rows, and their weights in the loss.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Subset {
    /// Rows of the pool.
    pub rows: Vec<usize>,
    /// Weight of each of `rows`, with mean 1; 1 if absent.
    pub weights: Option<Vec<f32>>,
}

impl From<Vec<usize>> for Subset {
    fn from(rows: Vec<usize>) -> Self {
        Subset {
            rows,
            weights: None,
        }
    }
}

impl Subset {
    /// Keeps the first `at` rows, and gives the others.
    pub fn split_off(&mut self, at: usize) -> Subset {
        let at = at.min(self.rows.len());
        Subset {
            rows: self.rows.split_off(at),
            weights: self.weights.as_mut().map(|w| w.split_off(at)),
        }
    }
}

/// Gives the rows of a round, in the order of training, from its number; rounds come one after the other.
pub type Draw<'a> = Box<dyn FnMut(usize) -> Result<Subset> + 'a>;

/// Gives the rows of a round, in the order of training, from its number and the model as it is then.
pub type Follow<'a> = Box<dyn FnMut(usize, &Look) -> Result<Subset> + 'a>;

/// What a method chooses.
pub enum Choice<'a> {
    /// The same rows for all rounds, in any order; training shuffles them for each.
    Once(Subset),
    /// Rows for each round, whatever the model.
    Drawn(Draw<'a>),
    /// Rows for each round, by the model being trained.
    Followed(Follow<'a>),
}

/// A method of this task.
pub trait Selector: Send + Sync {
    /// Chooses rows of the pool.
    ///
    /// # Errors
    /// Options that do not fit the pool, or a training that failed.
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>>;

    /// What it must know of the rows.
    fn needs(&self) -> Needs {
        Needs::Columns
    }
}

/// What a method must know of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing but their number.
    Number,
    /// Their labels.
    Labels,
    /// Labels and columns.
    Columns,
}

/// Which end of a score is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The rows that the scoring model finds hardest.
    #[default]
    Hard,
    /// The rows that it finds easiest.
    Easy,
}

/// Where geometry is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// What the last layer of a scoring model gets.
    #[default]
    Model,
    /// The columns as they are, such as embeddings made elsewhere: no scoring model is trained.
    Columns,
}

impl View {
    /// Probabilities of the classes, [n, c].
    pub fn probabilities(&self) -> Array2<f32> {
        let mut p = self.logits.clone();
        softmax_rows(&mut p);
        p
    }

    /// Probabilities less the true class's 1: the gradient of the loss by the logits, [n, c].
    pub fn errors(&self, labels: &[usize]) -> Array2<f32> {
        let mut p = self.probabilities();
        for (mut row, label) in p.axis_iter_mut(Axis(0)).zip(labels) {
            row[*label] -= 1.0;
        }
        p
    }
}

/// Softmax of each row, in place.
pub fn softmax_rows(logits: &mut Array2<f32>) {
    for mut row in logits.axis_iter_mut(Axis(0)) {
        let most = row.fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        row.mapv_inplace(|v| (v - most).exp());
        let sum = row.sum();
        row.mapv_inplace(|v| v / sum);
    }
}

impl Pool<'_> {
    /// Number of rows, n.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The rows in the groups that are chosen from apart, each with the number to choose: the classes, keeping their
    /// shares, or all rows together. Groups from which nothing is chosen are left out.
    ///
    /// # Errors
    /// More rows to choose than there are.
    pub fn groups(&self, balance: bool) -> Result<Vec<(Vec<usize>, usize)>> {
        if !balance {
            return Ok(vec![((0..self.len()).collect(), self.choose)]);
        }
        let codes: Vec<i32> = self.labels.iter().map(|l| *l as i32).collect();
        let quotas = sampling::proportional_quotas(&codes, self.choose)
            .map_err(|e| Error::option("budget", e))?;
        let mut members = vec![Vec::new(); self.classes];
        for (row, label) in self.labels.iter().enumerate() {
            members[*label].push(row);
        }
        Ok(quotas
            .into_iter()
            .filter(|(_, quota)| *quota > 0)
            .map(|(class, quota)| (std::mem::take(&mut members[class as usize]), quota))
            .collect())
    }

    /// The k rows with the highest scores, or with the lowest; of equal ones the earlier rows.
    ///
    /// # Errors
    /// A number of scores that is not n, or a score that is not a number.
    pub fn best(&self, scores: &[f64], keep: Keep, balance: bool) -> Result<Subset> {
        if scores.len() != self.len() {
            return Err(Error::Failed(format!(
                "there are {} scores for {} rows",
                scores.len(),
                self.len()
            )));
        }
        if let Some(row) = scores.iter().position(|s| s.is_nan()) {
            return Err(Error::Failed(format!(
                "the score of row {row} is not a number; the scoring model may have diverged: try a lower learning-rate"
            )));
        }
        let mut chosen = Vec::with_capacity(self.choose);
        for (rows, quota) in self.groups(balance)? {
            let of_rows: Vec<f64> = rows.iter().map(|r| scores[*r]).collect();
            let best = match keep {
                Keep::Hard => topk::largest(&of_rows, quota),
                Keep::Easy => topk::smallest(&of_rows, quota),
            };
            chosen.extend(best.into_iter().map(|i| rows[i]));
        }
        chosen.sort_unstable();
        Ok(chosen.into())
    }

    /// Chooses in each group apart: `pick` gets the group's rows and how many to choose, and gives places among these
    /// rows, with weights or without. Weights come out with mean 1 over all groups.
    ///
    /// # Errors
    /// What `pick` ends with.
    pub fn in_groups(
        &self,
        balance: bool,
        mut pick: impl FnMut(&[usize], usize) -> Result<(Vec<usize>, Option<Vec<f64>>)>,
    ) -> Result<Subset> {
        let mut chosen: Vec<(usize, Option<f64>)> = Vec::with_capacity(self.choose);
        let groups = self.groups(balance)?;
        for (i, (rows, quota)) in groups.iter().enumerate() {
            self.context.step("choosing", i, groups.len());
            let (places, weights) = pick(rows, *quota)?;
            let weight = |at: usize| weights.as_ref().map(|w| w[at]);
            chosen.extend(
                places
                    .iter()
                    .enumerate()
                    .map(|(at, p)| (rows[*p], weight(at))),
            );
        }
        chosen.sort_unstable_by_key(|(row, _)| *row);
        let weights: Option<Vec<f64>> = chosen.iter().map(|(_, w)| *w).collect();
        Ok(Subset {
            rows: chosen.iter().map(|(row, _)| *row).collect(),
            weights: weights.map(|w| mean_one(&w)),
        })
    }

    /// A view of a scoring model, trained on all rows for the scoring epochs.
    ///
    /// # Errors
    /// No scoring epochs, or a training that failed.
    pub fn scored(&self, seed: u64) -> Result<View> {
        let mut last = None;
        let epochs = self.scoring_epochs;
        self.trainer.train(seed, epochs, &mut |epoch, look| {
            if epoch + 1 == epochs {
                last = Some(look()?);
            }
            Ok(())
        })?;
        last.ok_or_else(|| {
            Error::option(
                "selection-epochs",
                "must be at least 1 for a method that scores rows by a model",
            )
        })
    }

    /// Chooses once, by a scoring model; or, with `every` above 0, anew at the start of every so many rounds, by the
    /// model that is being trained.
    ///
    /// # Errors
    /// What training or `pick` ends with.
    pub fn by_model<'s>(
        &'s self,
        every: usize,
        pick: impl Fn(&View) -> Result<Subset> + 's,
    ) -> Result<Choice<'s>> {
        if every == 0 {
            return Ok(Choice::Once(pick(&self.scored(self.context.seed)?)?));
        }
        let mut current = Subset::default();
        Ok(Choice::Followed(Box::new(move |round, look| {
            if round.is_multiple_of(every) {
                current = pick(&look()?)?;
            }
            Ok(shuffled(&current, self.context.seed, round))
        })))
    }

    /// Chooses once by geometry, in the space asked for.
    ///
    /// # Errors
    /// What training or `pick` ends with.
    pub fn by_space<'s>(
        &'s self,
        space: Space,
        pick: impl Fn(ArrayView2<f32>) -> Result<Subset> + 's,
    ) -> Result<Choice<'s>> {
        match space {
            Space::Columns => Ok(Choice::Once(pick(self.x)?)),
            Space::Model => self.by_model(0, move |view| pick(view.features.view())),
        }
    }
}

/// The numbers over their mean; ones where they are all 0.
pub fn mean_one(weights: &[f64]) -> Vec<f32> {
    let mean = weights.iter().sum::<f64>() / weights.len().max(1) as f64;
    weights
        .iter()
        .map(|w| if mean > 0.0 { (w / mean) as f32 } else { 1.0 })
        .collect()
}

/// Name of the generator of a round's order: that of plain training, so that choosing all rows is plain training.
pub fn order_of(round: usize) -> String {
    format!("order of epoch {round}")
}

/// The subset in the order of training in round `round`.
pub fn shuffled(subset: &Subset, seed: u64, round: usize) -> Subset {
    let order = sampling::permutation(
        &mut sampling::rng(seed, &order_of(round)),
        subset.rows.len(),
    );
    Subset {
        rows: order.iter().map(|i| subset.rows[*i]).collect(),
        weights: subset
            .weights
            .as_ref()
            .map(|w| order.iter().map(|i| w[*i]).collect()),
    }
}

/// For tests: pools without networks.
#[cfg(test)]
pub mod testing {
    use super::*;

    /// A trainer whose models are one and the same view.
    pub struct Fixed(pub View);

    impl Trainer for Fixed {
        fn train(
            &self,
            _: u64,
            epochs: usize,
            each: &mut dyn FnMut(usize, &Look) -> Result<()>,
        ) -> Result<()> {
            (0..epochs).try_for_each(|epoch| each(epoch, &|| Ok(self.0.clone())))
        }
    }

    /// What a test asks of a pool.
    pub struct Asked {
        /// Columns.
        pub x: Array2<f32>,
        /// Classes.
        pub labels: Vec<usize>,
        /// The model.
        pub view: View,
        /// Rows to choose.
        pub choose: usize,
        /// Seed.
        pub seed: u64,
    }

    impl Asked {
        /// Rows of `x` with the model given by logits; features are the columns.
        pub fn new(
            x: Array2<f32>,
            labels: Vec<usize>,
            logits: Array2<f32>,
            choose: usize,
        ) -> Asked {
            let head =
                Array2::from_shape_fn(
                    (x.ncols(), logits.ncols()),
                    |(i, j)| {
                        if i == j { 1.0 } else { 0.0 }
                    },
                );
            Asked {
                view: View {
                    features: x.clone(),
                    logits,
                    head,
                },
                x,
                labels,
                choose,
                seed: 0,
            }
        }

        /// Rows without a model worth the name.
        pub fn plain(n: usize, classes: usize, choose: usize, seed: u64) -> Asked {
            let x = Array2::from_shape_fn((n, 2), |(i, j)| ((i * 7 + j * 3) % 11) as f32 - 5.0);
            let logits =
                Array2::from_shape_fn((n, classes), |(i, j)| ((i * 5 + j * 2) % 7) as f32 / 3.0);
            Asked {
                seed,
                ..Asked::new(x, (0..n).map(|i| i % classes).collect(), logits, choose)
            }
        }

        /// Calls `work` with the pool.
        pub fn with<R>(&self, work: impl FnOnce(&Pool) -> R) -> R {
            let context = Context::with_seed(self.seed);
            let trainer = Fixed(self.view.clone());
            let pool = Pool {
                x: self.x.view(),
                labels: &self.labels,
                classes: self.view.logits.ncols(),
                choose: self.choose,
                rounds: 6,
                scoring_epochs: 3,
                learning_rate: 0.1,
                trainer: &trainer,
                context: &context,
            };
            work(&pool)
        }

        /// The subset that is chosen once.
        pub fn once(&self, selector: &dyn Selector) -> Result<Subset> {
            self.with(|pool| match selector.choose(pool)? {
                Choice::Once(subset) => Ok(subset),
                _ => Err(Error::Failed("chose rounds".into())),
            })
        }

        /// The subsets of the first rounds.
        pub fn rounds(&self, selector: &dyn Selector, rounds: usize) -> Result<Vec<Subset>> {
            self.with(|pool| match selector.choose(pool)? {
                Choice::Once(subset) => Ok((0..rounds)
                    .map(|r| shuffled(&subset, self.seed, r))
                    .collect()),
                Choice::Drawn(next) => (0..rounds).map(next).collect(),
                Choice::Followed(mut next) => (0..rounds)
                    .map(|r| next(r, &|| Ok(self.view.clone())))
                    .collect(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Asked;
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;

    #[test]
    fn scores_by_hand_with_ties_and_classes() {
        let asked = Asked {
            labels: vec![0, 0, 0, 0, 1, 1],
            ..Asked::plain(6, 2, 3, 0)
        };
        let scores = [5.0, 4.0, 5.0, 3.0, 1.0, 0.0];
        asked.with(|pool| {
            let of = |keep, balance| pool.best(&scores, keep, balance).unwrap().rows;
            assert_eq!(of(Keep::Hard, false), [0, 1, 2]);
            assert_eq!(of(Keep::Easy, false), [3, 4, 5]);
            // Two of the first class and one of the second.
            assert_eq!(of(Keep::Hard, true), [0, 2, 4]);
            assert_eq!(of(Keep::Easy, true), [1, 3, 5]);
            let e = pool.best(&scores[1..], Keep::Hard, false).unwrap_err();
            assert!(e.to_string().contains("5 scores for 6 rows"), "{e}");
            let e = pool.best(&[f64::NAN; 6], Keep::Hard, false).unwrap_err();
            assert!(e.to_string().contains("row 0 is not a number"), "{e}");
        });
    }

    #[test]
    fn errors_of_a_model_by_hand() {
        let view = View {
            features: array![[1.0]],
            logits: array![[0.0, 3f32.ln()]],
            head: array![[1.0, 0.0]],
        };
        let e = view.errors(&[1]);
        assert!(
            (e[[0, 0]] - 0.25).abs() < 1e-6 && (e[[0, 1]] + 0.25).abs() < 1e-6,
            "{e}"
        );
    }

    #[test]
    fn weights_get_mean_one() {
        assert_eq!(mean_one(&[1.0, 3.0]), [0.5, 1.5]);
        assert_eq!(mean_one(&[0.0, 0.0]), [1.0, 1.0]);
        assert!(mean_one(&[]).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn balanced_choices_keep_shares(n in 1usize..60, classes in 1usize..6, share in 0.01f64..1.0) {
            let k = ((n as f64 * share) as usize).max(1);
            let asked = Asked::plain(n, classes, k, 0);
            let scores: Vec<f64> = (0..n).map(|i| ((i * 31) % 17) as f64).collect();
            let (rows, sizes) = asked.with(|pool| {
                let rows = pool.best(&scores, Keep::Hard, true).unwrap().rows;
                let sizes: Vec<usize> = (0..classes)
                    .map(|c| rows.iter().filter(|r| pool.labels[**r] == c).count())
                    .collect();
                (rows, sizes)
            });
            prop_assert_eq!(rows.len(), k);
            prop_assert!(rows.windows(2).all(|w| w[0] < w[1]));
            for (c, size) in sizes.iter().enumerate() {
                let exact = k as f64 * asked.labels.iter().filter(|l| **l == c).count() as f64 / n as f64;
                prop_assert!((*size as f64 - exact).abs() < 1.0);
            }
        }
    }
}
