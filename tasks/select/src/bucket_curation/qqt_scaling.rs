//! Goyal, Maini, Lipton, Raghunathan, Kolter, *Scaling Laws for Data Filtering: Data Curation cannot be Compute
//! Agnostic*, CVPR 2024, arXiv 2404.07177: which buckets of a quality-ranked pool to train on, for a given budget of
//! training, told from runs on single buckets alone.
//!
//! Given p buckets of N_i rows, each with errors y at samples seen n of one training run on it:
//!
//! 1. Leave out points before half a pass: the start of a training is no power law.
//! 2. Fit y = a n_0^{b_0} prod_{k >= 1} (n_k / n_{k-1})^{b_k} + d, n_k = min((k + 1) N, n), b_k = b (1/2)^{k / tau}:
//!    the exponent b (utility) and half-life tau for each bucket; the normaliser a', a = (a' / 100,000)^b, and the
//!    irreducible error d for all buckets together (`fit.rs`).
//! 3. For a union, one pass is over all its rows, so that a bucket's half-life becomes tau_i / share_i, and the
//!    exponent of a pass is the mean over buckets (`law.rs`).
//! 4. Order the buckets by utility, predict the error of the best one, the best two, and so on (or of all sets) at
//!    each budget, and choose the lowest (`decide.rs`).
//! 5. Draw the points of each bucket anew with replacement, fit again with a' and d as they are, and count how many
//!    draws choose the same union.
//!
//! Checked in the authors' scripts: the exponents of a union are plain means over buckets of one size (weighting by
//! rows is an extension), the half-lives are multiplied by the number of buckets, buckets are ordered by b, and in the
//! form with effective utility d is added before the product over later passes, so that it decays too
//! (`irreducible-decays` does the same, for comparison). Their search draws 100,000 points of the grid at random; this
//! one takes all.
//!
//! Cost: normalisers x half-lives x exponents x points for each bucket, about 5 million multiplications a bucket.

use super::decide::{self, Unions};
use super::fit::{self, Grid, Laws, Point};
use super::law::{Own, Wear};
use super::{Choice, Chosen, Curator, Pool};
use papertrial_core::task::{Context, Curve, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::rng;
use papertrial_numerics::stats;
use rand::RngExt;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The paper's method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct QqtScaling {
    /// What repetition wears out.
    pub wear: Wear,
    /// Which unions are compared.
    pub unions: Unions,
    /// Normalisers a' that are tried, a list; if empty, 60 that suit the size of the buckets.
    pub normalisers: Vec<f64>,
    /// Irreducible errors d that are tried, a list; if empty, ten from .02 to .15.
    pub irreducible: Vec<f64>,
    /// Steepest exponent tried at first; doubled while the best one lies at the edge.
    #[schemars(range(min = 0.01, max = 4.0))]
    pub steepest_utility: f64,
    /// Longest half-life tried, in passes.
    #[schemars(range(min = 1.5))]
    pub longest_half_life: f64,
    /// Points before this many passes are left out.
    #[schemars(range(min = 0.0))]
    pub from_passes: f64,
    /// Let d shrink with later passes, as the paper's script does.
    pub irreducible_decays: bool,
    /// Draws for the certainty of the choice; 0 for none.
    pub bootstraps: usize,
}

impl Default for QqtScaling {
    fn default() -> Self {
        QqtScaling {
            wear: Wear::EffectiveUtility,
            unions: Unions::Nested,
            normalisers: Vec::new(),
            irreducible: Vec::new(),
            steepest_utility: 0.5,
            longest_half_life: 30.0,
            from_passes: 0.5,
            irreducible_decays: false,
            bootstraps: 200,
        }
    }
}

impl Method for QqtScaling {
    const FACTS: Facts = Facts {
        name: "qqt-scaling",
        about: "the union of buckets with the lowest error predicted by scaling laws in which repetition wears out",
        paper: Some("qqt-scaling"),
        streams: false,
    };
}

impl QqtScaling {
    /// Fits the laws (steps 1 and 2).
    ///
    /// # Errors
    /// Options out of range, or a bucket with too few points.
    pub fn fit(&self, pool: &Pool) -> Result<Laws> {
        fit::fit(&pool.buckets, &self.grid()?)
    }

    /// What is searched.
    pub(super) fn grid(&self) -> Result<Grid> {
        if self.normalisers.iter().any(|a| !a.is_finite() || *a <= 0.0) {
            return Err(Error::option("normalisers", "must be positive numbers"));
        }
        if self.irreducible.iter().any(|d| !(0.0..1.0).contains(d)) {
            return Err(Error::option(
                "irreducible",
                "must be errors from 0 to below 1",
            ));
        }
        Ok(Grid {
            wear: self.wear,
            irreducible_decays: self.irreducible_decays,
            normalisers: self.normalisers.clone(),
            irreducible: if self.irreducible.is_empty() {
                fit::spaced(0.02, 0.15, 10)
            } else {
                self.irreducible.clone()
            },
            steepest: self.steepest_utility,
            half_lives: fit::spaced(1.0, self.longest_half_life, fit::STEPS),
            from_passes: self.from_passes,
        })
    }

    /// Laws fitted to points drawn anew with replacement (step 5). A bucket of which too few different points came
    /// keeps its law.
    fn drawn(&self, pool: &Pool, laws: &Laws, seed: u64) -> Result<Vec<Laws>> {
        let grid = self.grid()?;
        let buckets = &pool.buckets;
        (0..self.bootstraps)
            .into_par_iter()
            .map(|draw| {
                let mut rng = rng(seed, &format!("bucket-curation draw {draw}"));
                let mut own = Vec::with_capacity(laws.own.len());
                for (bucket, law) in buckets.iter().zip(&laws.own) {
                    let points = fit::usable(bucket, self.from_passes)?;
                    let picked: Vec<Point> = (0..points.len())
                        .map(|_| points[rng.random_range(0..points.len())])
                        .collect();
                    let mut beyond: Vec<f64> = picked
                        .iter()
                        .map(|p| p.samples)
                        .filter(|n| *n > bucket.rows)
                        .collect();
                    beyond.sort_by(f64::total_cmp);
                    beyond.dedup();
                    own.push(if beyond.len() < 3 {
                        *law
                    } else {
                        fit::refit(bucket.rows, &picked, &grid, &laws.shared)
                    });
                }
                Ok(Laws {
                    own,
                    ..laws.clone()
                })
            })
            .collect()
    }
}

impl Curator for QqtScaling {
    fn choose(&self, pool: &Pool, budgets: &[f64], context: &Context) -> Result<Choice> {
        context.step("fitting laws", 0, 2);
        let laws = self.fit(pool)?;
        let rows: Vec<f64> = pool.buckets.iter().map(|b| b.rows).collect();
        let unions = decide::candidates(self.unions, &decide::by_utility(&laws))?;
        context.step("fitting laws", 1, 2);
        let draws = self.drawn(pool, &laws, context.seed)?;
        let chosen = budgets
            .iter()
            .map(|n| {
                let (place, predicted) = decide::best(&laws, &rows, &unions, *n);
                let mut same = 0;
                let mut errors = Vec::with_capacity(draws.len());
                for drawn in &draws {
                    let by_draw = decide::candidates(self.unions, &decide::by_utility(drawn))?;
                    let (other, _) = decide::best(drawn, &rows, &by_draw, *n);
                    same += usize::from(alike(&by_draw[other], &unions[place]));
                    errors.push(decide::error(drawn, &rows, &unions[place], *n));
                }
                let spread = match errors.len() {
                    0 => None,
                    _ => stats::quantiles(&errors, &[0.025, 0.975])
                        .ok()
                        .map(|q| (q[0], q[1])),
                };
                Ok(Chosen {
                    union: unions[place].clone(),
                    predicted: Some(predicted),
                    spread,
                    agreement: (!draws.is_empty()).then(|| same as f64 / draws.len() as f64),
                })
            })
            .collect::<Result<Vec<Chosen>>>()?;
        context.step("fitting laws", 2, 2);
        Ok(Choice {
            chosen,
            curves: curves(pool, &laws, &rows, &unions, budgets),
            notes: self.notes(pool, &laws, &rows, &unions, budgets),
            laws: Some(laws),
        })
    }
}

impl QqtScaling {
    fn notes(
        &self,
        pool: &Pool,
        laws: &Laws,
        rows: &[f64],
        unions: &[Vec<usize>],
        budgets: &[f64],
    ) -> Vec<String> {
        let mut notes: Vec<String> = pool
            .buckets
            .iter()
            .zip(&laws.own)
            .map(|(bucket, own)| self.told(&bucket.name, own))
            .collect();
        let (from, to) = ends(budgets);
        for (at, union) in decide::crossovers(laws, rows, unions, from, to) {
            let names: Vec<&str> = unions[union]
                .iter()
                .map(|b| pool.buckets[*b].name.as_str())
                .collect();
            notes.push(format!(
                "from {:.0} samples on: {}",
                at.ceil(),
                names.join(", ")
            ));
        }
        if pool.buckets.windows(2).any(|b| b[0].rows != b[1].rows) {
            notes.push(
                "buckets differ in size: their parts in a union are weighted by rows, which extends the paper's rule"
                    .into(),
            );
        }
        notes
    }

    fn told(&self, name: &str, own: &Own) -> String {
        let worn = if own.half_life >= self.longest_half_life * (1.0 - 1e-9) {
            "no wear by repetition was seen".to_owned()
        } else {
            format!("half of it is left after {:.1} passes", own.half_life)
        };
        format!("bucket {name}: utility {:.3}, {worn}", own.utility)
    }
}

fn ends(budgets: &[f64]) -> (f64, f64) {
    budgets
        .iter()
        .fold((f64::INFINITY, 0.0), |(l, h), n| (n.min(l), n.max(h)))
}

/// Whether two unions have the same buckets.
fn alike(a: &[usize], b: &[usize]) -> bool {
    a.len() == b.len() && a.iter().all(|x| b.contains(x))
}

/// Predicted error against samples of each union that is best somewhere.
fn curves(
    pool: &Pool,
    laws: &Laws,
    rows: &[f64],
    unions: &[Vec<usize>],
    budgets: &[f64],
) -> Vec<Curve> {
    const POINTS: usize = 40;
    let (from, to) = ends(budgets);
    if budgets.is_empty() || from <= 0.0 {
        return Vec::new();
    }
    let at = |i: usize| from * (to / from).powf(i as f64 / (POINTS - 1) as f64);
    let mut shown: Vec<usize> = (0..POINTS)
        .map(|i| decide::best(laws, rows, unions, at(i)).0)
        .collect();
    shown.sort_unstable();
    shown.dedup();
    shown
        .into_iter()
        .map(|u| {
            let names: Vec<&str> = unions[u]
                .iter()
                .map(|b| pool.buckets[*b].name.as_str())
                .collect();
            Curve {
                name: names.join(" + "),
                x: "samples seen".into(),
                y: "predicted error".into(),
                points: (0..POINTS)
                    .map(|i| (at(i), decide::error(laws, rows, &unions[u], at(i))))
                    .collect(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::fit::tests::bucket;
    use super::super::law::{Shared, predict};
    use super::*;

    fn pool() -> Pool<'static> {
        let shared = Shared {
            normaliser: 1_000.0,
            irreducible: 0.1,
            wear: Wear::EffectiveUtility,
            irreducible_decays: false,
        };
        let own = [(-0.3, 1.5), (-0.2, 4.0), (-0.05, 5.0)];
        Pool {
            buckets: own
                .iter()
                .enumerate()
                .map(|(i, (utility, half_life))| {
                    let own = Own {
                        utility: *utility,
                        half_life: *half_life,
                    };
                    bucket(&format!("q{i}"), 1000.0, &shared, own)
                })
                .collect(),
            measured: None,
        }
    }

    #[test]
    fn filters_hard_for_a_short_training_and_softly_for_a_long_one() {
        let method = QqtScaling {
            normalisers: vec![1_000.0],
            irreducible: vec![0.1],
            bootstraps: 20,
            ..QqtScaling::default()
        };
        let context = Context::with_seed(1);
        let found = method
            .choose(&pool(), &[800.0, 20_000.0], &context)
            .unwrap();
        assert_eq!(found.chosen[0].union, [0]);
        assert_eq!(found.chosen[1].union, [0, 1]);
        // The prediction is the law's own number.
        let shared = found.laws.as_ref().unwrap().shared;
        let own = [(-0.3, 1.5), (-0.2, 4.0)].map(|(utility, half_life)| Own { utility, half_life });
        let want = predict(&shared, &own.map(|o| (o, 1000.0)), 20_000.0);
        assert!((found.chosen[1].predicted.unwrap() - want).abs() < 0.005);
        // Points without noise: every draw agrees.
        assert!(found.chosen.iter().all(|c| c.agreement.unwrap() > 0.8));
        assert!(
            found.notes.iter().any(|n| n.starts_with("from ")),
            "{:?}",
            found.notes
        );
        assert_eq!(
            found,
            method
                .choose(&pool(), &[800.0, 20_000.0], &context)
                .unwrap()
        );
    }

    #[test]
    fn a_half_life_at_the_edge_is_told_as_no_wear() {
        let method = QqtScaling::default();
        let own = Own {
            utility: -0.1,
            half_life: method.longest_half_life,
        };
        assert!(method.told("a", &own).contains("no wear"));
    }

    #[test]
    fn impossible_grids_are_told_by_their_option() {
        let wrong = QqtScaling {
            normalisers: vec![-1.0],
            ..QqtScaling::default()
        };
        assert!(
            wrong
                .fit(&pool())
                .unwrap_err()
                .to_string()
                .contains("normalisers")
        );
        let wrong = QqtScaling {
            irreducible: vec![1.5],
            ..QqtScaling::default()
        };
        assert!(
            wrong
                .fit(&pool())
                .unwrap_err()
                .to_string()
                .contains("irreducible")
        );
    }
}
