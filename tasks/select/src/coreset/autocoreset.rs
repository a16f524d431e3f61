//! AutoCoreset: a coreset for any loss that can be evaluated and any fit that takes weights.
//!
//! Maalouf, Tukan, Braverman and Rus, *AutoCoreset: an automatic practical coreset construction framework*, ICML 2023,
//! arXiv 2305.11980. What the paper leaves open follows the authors' released code, as it was read in November 2026.
//!
//! n rows p_i with first weights w_i (1 each), a loss f(p, x) >= 0, a fit of weighted rows, a size m, eta models to begin
//! with.
//! 1. For j = 1..eta: draw m rows uniformly with replacement, each of weight n/m times w_i, a row drawn again adds its
//!    weight; x_j = fit; append the column f(p_i, x_j) to the loss matrix M. Draws are repeated until every class occurs.
//! 2. Until the stopping rule holds: summarise the rows of M within each class (`summary.rs`) by as many rows as the class'
//!    quota (`quotas.rs`), x = fit of these; append the column f(p_i, x); the summary is kept if sum w_i f(p_i, x) over ALL
//!    rows is the lowest of all summaries so far.
//! 3. The kept rows, weights and model are the coreset.
//!
//! Stopping rules: patience (the code's), which starts from the largest sum of step 1 and stops after 5 summaries that did
//! not go below the lowest sum so far; a number of summaries; or the first summary whose own weighted loss of its model is
//! within epsilon of the full loss.
//!
//! What it promises: the sums are matched for the models met on the way and for what lies in the hull of their loss vectors,
//! not for every model. And since each summary is judged by a pass over all rows, it costs eta + summaries fits of m rows and
//! as many passes: it pays where the coreset is used again and again or a full fit is expensive, not for one cheap fit.
//!
//! Cost: O(n) numbers for the importance and random samplers, O(n t) for the others; each iteration a fit of at most m
//! rows, one evaluation of all losses, and the sampler's cost.

use super::draws::{Chosen, every_class, first_weight, members, uniform};
use super::problem::{Problem, WeightedProblem, check_solver, checked_losses, total};
use super::quotas::{Quotas, quotas};
use super::summary::{Losses, Sampler, summarise};
use super::{Chooser, Coreset, too_small};
use ndarray::Array2;
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of AutoCoreset.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct AutoCoreset {
    /// How the rows' loss vectors are summarised.
    pub sampler: Sampler,
    /// Models of uniform samples to begin with, eta.
    #[schemars(range(min = 1))]
    pub first_models: usize,
    /// When to stop.
    pub stop: Stop,
    /// For stop=patience: summaries without a lower full loss.
    #[schemars(range(min = 1))]
    pub patience: usize,
    /// Summaries at most; for stop=iterations their number.
    #[schemars(range(min = 1))]
    pub iterations: usize,
    /// For stop=epsilon: relative difference of the coreset's and the full loss of its model.
    #[schemars(range(min = 0.0))]
    pub epsilon: f64,
    /// How the rows are shared among classes.
    pub quotas: Quotas,
    /// Divide the losses under each model by their sum, so that no bad model dominates.
    pub scale_columns: bool,
    /// For sampler=median-of-means: uniform samples of which the best is taken.
    #[schemars(range(min = 1))]
    pub resamples: usize,
    /// Check first that the solver obeys weights: three more fits.
    pub check_solver: bool,
}

/// When the construction stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// After some summaries that were no better.
    Patience,
    /// After a number of summaries.
    Iterations,
    /// When the coreset's loss is near the full loss.
    Epsilon,
}

impl Default for AutoCoreset {
    fn default() -> Self {
        AutoCoreset {
            sampler: Sampler::Importance,
            first_models: 3,
            stop: Stop::Patience,
            patience: 5,
            iterations: 50,
            epsilon: 0.05,
            quotas: Quotas::Mixed,
            scale_columns: false,
            resamples: 100,
            check_solver: true,
        }
    }
}

impl Method for AutoCoreset {
    const FACTS: Facts = Facts {
        name: "autocoreset",
        about: "matches the losses of the models met on the way, for any loss and any fit that takes weights",
        paper: Some("autocoreset"),
        streams: false,
    };
}

impl Chooser for AutoCoreset {
    fn choose(
        &self,
        problem: &dyn Problem,
        size: usize,
        context: &Context,
    ) -> Result<Coreset<Array2<f64>>> {
        self.build(problem, size, context)
    }
}

impl AutoCoreset {
    /// A coreset of at most `size` rows of `problem`.
    ///
    /// From `size` = rows on it is all rows with their first weights.
    ///
    /// # Errors
    /// Fewer rows than classes, first weights that are not positive, a solver that does not obey weights, a loss that is
    /// NaN, infinite or negative, losses that are the same for every row, or a fit that fails.
    pub fn build<P: WeightedProblem + ?Sized>(
        &self,
        problem: &P,
        size: usize,
        context: &Context,
    ) -> Result<Coreset<P::Model>> {
        let n = problem.rows();
        let members = members(problem);
        if let Some(all) = too_small(problem, &members, size)? {
            return Ok(all);
        }
        let weights = problem.weights();
        let sizes: Vec<usize> = members.iter().map(Vec::len).collect();
        let quotas = quotas(&sizes, size, self.quotas);
        let mut losses = Losses::new(n, self.sampler, self.scale_columns);
        let mut sums: Vec<f64> = Vec::new();
        let mut notes = Vec::new();
        let most_fits = self.first_models + self.iterations;

        // Step 1.
        let mut constant = true;
        for j in 0..self.first_models {
            context.step("fits", j, most_fits);
            let mut rng = sampling::rng(context.seed, &format!("autocoreset first model {j}"));
            let (first, apart) = every_class(problem, &members, size, |rows, m| {
                Ok(uniform(rows, weights, m, &mut rng))
            })?;
            if j == 0 {
                if apart {
                    notes.push("a class is so rare that uniform samples miss it: the first samples were drawn class by class".into());
                }
                if self.check_solver {
                    check_solver(problem, &first.rows)?;
                }
            }
            let model = problem.fit(&first.rows, &first.weights)?;
            let column = checked_losses(problem, &model)?;
            constant &= is_constant(&column);
            sums.push(total(problem, &column));
            losses.push(column);
        }
        if constant {
            return Err(Error::Failed(format!(
                "every row has the same loss under each of the {} first models, so that no row tells more than another; check the loss and the features",
                self.first_models
            )));
        }

        // Step 2.
        let mut lowest = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut idle = 0;
        let mut best: Option<(f64, Chosen, P::Model)> = None;
        for iteration in 0..self.iterations {
            context.step("fits", self.first_models + iteration, most_fits);
            if self.sampler == Sampler::Caratheodory
                && let Some(least) = exhausted(&sizes, &quotas, sums.len())
            {
                if best.is_none() {
                    return Err(Error::option(
                        "size",
                        format!(
                            "gives a class {least} rows, but sampler=caratheodory needs more rows than models ({}) in each; raise size, lower first-models, or take sampler=importance",
                            sums.len()
                        ),
                    ));
                }
                notes.push(format!(
                    "stopped after {} models: exact sums of more would need more rows",
                    sums.len()
                ));
                break;
            }
            let mut pairs = Vec::with_capacity(size);
            for (class, (rows, quota)) in members.iter().zip(&quotas).enumerate() {
                if *quota >= rows.len() {
                    pairs.extend(rows.iter().map(|row| (*row, first_weight(weights, *row))));
                    continue;
                }
                let purpose = format!("autocoreset summary {iteration} class {class}");
                let mut rng = sampling::rng(context.seed, &purpose);
                pairs.extend(summarise(
                    self.sampler,
                    &losses,
                    rows,
                    weights,
                    *quota,
                    self.resamples,
                    &mut rng,
                )?);
            }
            let chosen = Chosen::of(pairs);
            let model = problem.fit(&chosen.rows, &chosen.weights)?;
            let column = checked_losses(problem, &model)?;
            let sum = total(problem, &column);
            let own: f64 = chosen
                .rows
                .iter()
                .zip(&chosen.weights)
                .map(|(row, w)| w * column[*row])
                .sum();
            sums.push(sum);
            losses.push(column);
            if best.as_ref().is_none_or(|(least, _, _)| sum < *least) {
                best = Some((sum, chosen, model));
            }
            if sum < lowest {
                lowest = sum;
                idle = 0;
            } else {
                idle += 1;
            }
            let done = match self.stop {
                Stop::Patience => idle >= self.patience,
                Stop::Iterations => false,
                Stop::Epsilon => (own - sum).abs() <= self.epsilon * sum,
            };
            if done {
                break;
            }
        }
        context.step("fits", sums.len(), sums.len());

        // Step 3.
        let Some((loss, chosen, model)) = best else {
            return Err(Error::option("iterations", "at least 1 is needed"));
        };
        Ok(Coreset {
            rows: chosen.rows,
            weights: chosen.weights,
            model,
            loss,
            sums,
            notes,
        })
    }
}

fn is_constant(losses: &[f64]) -> bool {
    let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
    let most = losses.iter().copied().fold(0.0, f64::max);
    most - least <= 1e-12 * most
}

/// The quota of a class that is too small for exact sums of so many columns; classes taken whole need none.
fn exhausted(sizes: &[usize], quotas: &[usize], columns: usize) -> Option<usize> {
    sizes
        .iter()
        .zip(quotas)
        .find(|(size, quota)| *quota < size && **quota < columns + 1)
        .map(|(_, quota)| *quota)
}

#[cfg(test)]
mod tests {
    use super::super::problem::toy::{Mean, Wrong};
    use super::*;
    use proptest::prelude::*;

    const SAMPLERS: [Sampler; 6] = [
        Sampler::Caratheodory,
        Sampler::Importance,
        Sampler::MedianOfMeans,
        Sampler::FrankWolfe,
        Sampler::Sparse,
        Sampler::Random,
    ];

    fn numbers(n: usize) -> Mean {
        Mean::of((0..n).map(|i| ((i * i) % 101) as f64 / 10.0).collect())
    }

    fn build(options: &AutoCoreset, problem: &Mean, size: usize) -> Result<Coreset<f64>> {
        options.build(problem, size, &Context::with_seed(3))
    }

    #[test]
    fn exact_sums_give_the_exact_mean() {
        // (v - x)^2 under two models fixes sum v, and with the sum of weights the mean: the fit is the full fit.
        let problem = numbers(500);
        let mean = problem.values.iter().sum::<f64>() / 500.0;
        let options = AutoCoreset {
            sampler: Sampler::Caratheodory,
            ..AutoCoreset::default()
        };
        let found = build(&options, &problem, 12).unwrap();
        assert!((found.model - mean).abs() < 1e-6, "{} {mean}", found.model);
        assert!((found.weights.iter().sum::<f64>() - 500.0).abs() < 1e-9);
        assert!(found.rows.len() <= 12);
    }

    #[test]
    fn every_sampler_beats_a_sample_of_its_size() {
        let problem = numbers(3000);
        let all: Vec<usize> = (0..3000).collect();
        let best = problem.fit(&all, &[1.0; 3000]).unwrap();
        let least: f64 = problem.losses(&best).unwrap().iter().sum();
        for sampler in SAMPLERS {
            let options = AutoCoreset {
                sampler,
                ..AutoCoreset::default()
            };
            let found = build(&options, &problem, 40).unwrap();
            // The variance of a mean of 40 makes a gap of 1/40 on average.
            assert!(
                found.loss / least - 1.0 < 0.025,
                "{sampler:?} {}",
                found.loss / least
            );
            assert!(found.rows.len() <= 40 && found.rows.is_sorted());
            let kept = found.sums[3..]
                .iter()
                .copied()
                .fold(f64::INFINITY, f64::min);
            assert_eq!(found.loss, kept);
        }
    }

    #[test]
    fn patience_counts_summaries_that_are_not_lower() {
        let problem = numbers(400);
        let options = AutoCoreset {
            patience: 4,
            ..AutoCoreset::default()
        };
        let found = build(&options, &problem, 30).unwrap();
        let mut lowest = found.sums[..3].iter().copied().fold(0.0, f64::max);
        let mut idle = 0;
        for (at, sum) in found.sums.iter().enumerate().skip(3) {
            idle = if *sum < lowest { 0 } else { idle + 1 };
            lowest = lowest.min(*sum);
            assert_eq!(idle >= 4, at + 1 == found.sums.len());
        }
    }

    #[test]
    fn other_stopping_rules() {
        let problem = numbers(400);
        let fixed = AutoCoreset {
            stop: Stop::Iterations,
            iterations: 7,
            ..AutoCoreset::default()
        };
        assert_eq!(build(&fixed, &problem, 30).unwrap().sums.len(), 10);
        // Exact sums of the models so far do not yet fit the new one; a wide epsilon stops at once.
        let wide = AutoCoreset {
            stop: Stop::Epsilon,
            epsilon: 10.0,
            ..AutoCoreset::default()
        };
        assert_eq!(build(&wide, &problem, 30).unwrap().sums.len(), 4);
        let narrow = AutoCoreset {
            stop: Stop::Epsilon,
            epsilon: 0.0,
            iterations: 6,
            ..AutoCoreset::default()
        };
        assert_eq!(build(&narrow, &problem, 30).unwrap().sums.len(), 9);
    }

    #[test]
    fn classes_get_their_quotas() {
        let mut problem = numbers(1000);
        problem.classes = Some((0..1000).map(|i| u32::from(i % 50 == 0)).collect());
        for sampler in SAMPLERS {
            let options = AutoCoreset {
                sampler,
                quotas: Quotas::Proportional,
                ..AutoCoreset::default()
            };
            let found = build(&options, &problem, 500).unwrap();
            let rare: f64 = found
                .rows
                .iter()
                .zip(&found.weights)
                .filter(|(row, _)| **row % 50 == 0)
                .map(|(_, w)| w)
                .sum();
            // 20 rows of 1000 stand for 20, within the draws' error.
            assert!((rare / 20.0 - 1.0).abs() < 0.8, "{sampler:?} {rare}");
            let count = found.rows.iter().filter(|row| **row % 50 == 0).count();
            assert!((1..=10).contains(&count), "{sampler:?} {count}");
        }
    }

    #[test]
    fn all_rows_when_as_many_are_allowed() {
        let problem = numbers(20);
        for size in [20, 21] {
            let found = build(&AutoCoreset::default(), &problem, size).unwrap();
            assert_eq!(found.rows, (0..20).collect::<Vec<_>>());
            assert_eq!(found.weights, [1.0; 20]);
            assert_eq!(found.notes.len(), 1);
        }
    }

    #[test]
    fn a_coreset_of_a_coreset_keeps_its_weights() {
        let mut problem = numbers(600);
        problem.weights = Some((0..600).map(|i| if i < 60 { 30.0 } else { 1.0 }).collect());
        let all: f64 = 60.0 * 30.0 + 540.0;
        for sampler in [Sampler::Caratheodory, Sampler::FrankWolfe] {
            let options = AutoCoreset {
                sampler,
                ..AutoCoreset::default()
            };
            let found = build(&options, &problem, 50).unwrap();
            assert!((found.weights.iter().sum::<f64>() - all).abs() < 1e-6);
        }
    }

    #[test]
    fn what_cannot_be_is_told() {
        let options = AutoCoreset::default();
        let told =
            |problem: &Mean, size: usize| build(&options, problem, size).unwrap_err().to_string();
        assert!(told(&numbers(50), 0).contains("size"));
        let mut classes = numbers(50);
        classes.classes = Some((0..50).map(|i| i % 5).collect());
        let e = told(&classes, 4);
        assert!(e.contains("size") && e.contains("5 classes"), "{e}");
        for (wrong, word) in [
            (Wrong::IgnoresWeights, "ignores weights"),
            (Wrong::CountsWeights, "doubled"),
            (Wrong::Nan, "NaN"),
            (Wrong::Negative, "at least 0"),
            (Wrong::Constant, "same loss"),
        ] {
            let problem = Mean {
                wrong,
                ..numbers(200)
            };
            let e = told(&problem, 20);
            assert!(e.contains(word), "{e}");
        }
        let mut weighted = numbers(50);
        weighted.weights = Some(vec![0.0; 50]);
        assert!(told(&weighted, 5).contains("weight"));
        let exact = AutoCoreset {
            sampler: Sampler::Caratheodory,
            ..AutoCoreset::default()
        };
        let e = build(&exact, &numbers(50), 3).unwrap_err().to_string();
        assert!(
            e.contains("caratheodory") && e.contains("first-models"),
            "{e}"
        );
        let found = build(&exact, &numbers(50), 5).unwrap();
        assert!(
            found.notes[0].contains("stopped after"),
            "{:?}",
            found.notes
        );
    }

    #[test]
    fn threads_change_no_bit() {
        let problem = numbers(20_000);
        for sampler in SAMPLERS {
            let options = AutoCoreset {
                sampler,
                ..AutoCoreset::default()
            };
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| build(&options, &problem, 25).unwrap())
            };
            let (one, three) = (on(1), on(3));
            assert_eq!(
                (one.rows, one.weights, one.sums),
                (three.rows, three.weights, three.sums)
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn rows_are_distinct_with_positive_weights_of_about_n(
            n in 30usize..300, share in 0.2f64..0.9, which in 0usize..6, seed in 0u64..1000, scale in any::<bool>(),
        ) {
            let problem = numbers(n);
            let size = ((n as f64 * share) as usize).max(5);
            let options = AutoCoreset {
                sampler: SAMPLERS[which], scale_columns: scale, iterations: 8, ..AutoCoreset::default()
            };
            let found = options.build(&problem, size, &Context::with_seed(seed)).unwrap();
            prop_assert!(found.rows.windows(2).all(|w| w[0] < w[1]));
            prop_assert!(found.rows.len() <= size && found.rows.iter().all(|row| *row < n));
            prop_assert!(found.weights.iter().all(|w| w.is_finite() && *w > 0.0));
            let again = options.build(&problem, size, &Context::with_seed(seed)).unwrap();
            prop_assert_eq!(&found.rows, &again.rows);
            let weight: f64 = found.weights.iter().sum();
            if which == 0 {
                prop_assert!((weight - n as f64).abs() <= 1e-9 * n as f64);
            }
        }
    }
}
