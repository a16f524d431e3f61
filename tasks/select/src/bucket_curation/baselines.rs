//! What is done without the paper: always the best bucket, always all, laws that know nothing of wear or of
//! differences between buckets, and training every union to see.

use super::decide::{self, Unions};
use super::fit::{self, Grid, Laws};
use super::law::Wear;
use super::qqt_scaling::QqtScaling;
use super::{Choice, Chosen, Curator, Pool};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Always the first bucket: filtering hard whatever the budget (as LAION's fixed threshold does).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TopBucket {}

impl Method for TopBucket {
    const FACTS: Facts = Facts {
        name: "top-bucket",
        about: "always the first bucket, whatever the budget",
        paper: None,
        streams: false,
    };
}

impl Curator for TopBucket {
    fn choose(&self, _: &Pool, budgets: &[f64], _: &Context) -> Result<Choice> {
        Ok(Choice::always(vec![0], budgets.len()))
    }
}

/// Always every bucket: no filtering.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct NoFiltering {}

impl Method for NoFiltering {
    const FACTS: Facts = Facts {
        name: "no-filtering",
        about: "always all buckets, whatever the budget",
        paper: None,
        streams: false,
    };
}

impl Curator for NoFiltering {
    fn choose(&self, pool: &Pool, budgets: &[f64], _: &Context) -> Result<Choice> {
        let all = (0..pool.buckets.len()).collect();
        Ok(Choice::always(all, budgets.len()))
    }
}

/// A power law of samples seen for each bucket, in which a repeated row counts as a new one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct PlainPowerLaw {}

impl Method for PlainPowerLaw {
    const FACTS: Facts = Facts {
        name: "plain-power-law",
        about: "a power law a n^b + d for each bucket, in which repeated rows count as new ones",
        paper: None,
        streams: false,
    };
}

/// A half-life beyond any training: repetition wears out nothing.
const ENDLESS: f64 = 1e12;

impl Curator for PlainPowerLaw {
    fn choose(&self, pool: &Pool, budgets: &[f64], _: &Context) -> Result<Choice> {
        let grid = Grid {
            half_lives: vec![ENDLESS],
            ..QqtScaling::default().grid()?
        };
        let laws = fit::fit(&pool.buckets, &grid)?;
        decided(pool, laws, budgets)
    }
}

/// One law for the pool as a whole, in which repeated rows count as fewer (Muennighoff et al., *Scaling
/// Data-Constrained Language Models*, 2305.16264): it does not see that buckets differ.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct HomogeneousData {}

impl Method for HomogeneousData {
    const FACTS: Facts = Facts {
        name: "homogeneous-data",
        about: "one law of effective data for the whole pool, blind to the quality of buckets",
        paper: None,
        streams: false,
    };
}

impl Curator for HomogeneousData {
    fn choose(&self, pool: &Pool, budgets: &[f64], _: &Context) -> Result<Choice> {
        let method = QqtScaling {
            wear: Wear::EffectiveData,
            ..QqtScaling::default()
        };
        // One bucket whose run is the mean of all runs.
        let mean = pool.mean_bucket()?;
        let one = method.fit(&Pool {
            buckets: vec![mean],
            measured: None,
        })?;
        let laws = Laws {
            own: vec![one.own[0]; pool.buckets.len()],
            ..one
        };
        decided(pool, laws, budgets)
    }
}

/// The choice that `laws` lead to, among nested unions.
fn decided(pool: &Pool, laws: Laws, budgets: &[f64]) -> Result<Choice> {
    let rows: Vec<f64> = pool.buckets.iter().map(|b| b.rows).collect();
    let unions = decide::candidates(Unions::Nested, &decide::by_utility(&laws))?;
    Ok(Choice {
        chosen: budgets
            .iter()
            .map(|n| {
                let (place, predicted) = decide::best(&laws, &rows, &unions, *n);
                Chosen {
                    union: unions[place].clone(),
                    predicted: Some(predicted),
                    spread: None,
                    agreement: None,
                }
            })
            .collect(),
        curves: Vec::new(),
        notes: Vec::new(),
        laws: Some(laws),
    })
}

/// Trains on every nested union and takes the best at each budget: what the law spares one from doing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Oracle {}

impl Method for Oracle {
    const FACTS: Facts = Facts {
        name: "oracle",
        about: "trains on every union and takes the best at each budget",
        paper: None,
        streams: false,
    };
}

impl Curator for Oracle {
    fn choose(&self, pool: &Pool, budgets: &[f64], _: &Context) -> Result<Choice> {
        let measured = pool.measured.as_ref().ok_or_else(|| {
            Error::BadInput(
                "oracle trains on every union, which needs rows with labels; this is a table of errors".into(),
            )
        })?;
        let order: Vec<usize> = (0..pool.buckets.len()).collect();
        let unions = decide::candidates(Unions::Nested, &order)?;
        let errors: Vec<Vec<f64>> = unions.iter().map(|u| measured(u)).collect::<Result<_>>()?;
        let chosen = (0..budgets.len())
            .map(|n| {
                let best = (0..unions.len())
                    .min_by(|a, b| errors[*a][n].total_cmp(&errors[*b][n]))
                    .unwrap_or(0);
                Chosen {
                    union: unions[best].clone(),
                    predicted: Some(errors[best][n]),
                    spread: None,
                    agreement: None,
                }
            })
            .collect();
        Ok(Choice {
            chosen,
            curves: Vec::new(),
            notes: Vec::new(),
            laws: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fit::tests::bucket;
    use super::super::fit::{Bucket, Point};
    use super::super::law::{Own, Shared};
    use super::*;

    fn pool() -> Pool<'static> {
        let shared = Shared {
            normaliser: 1_000.0,
            irreducible: 0.1,
            wear: Wear::EffectiveUtility,
            irreducible_decays: false,
        };
        let own = [(-0.3, 2.0), (-0.1, 4.0)].map(|(utility, half_life)| Own { utility, half_life });
        Pool {
            buckets: vec![
                bucket("a", 1000.0, &shared, own[0]),
                bucket("b", 1000.0, &shared, own[1]),
            ],
            measured: None,
        }
    }

    #[test]
    fn the_fixed_ones_are_fixed() {
        let context = Context::with_seed(0);
        let top = TopBucket {}.choose(&pool(), &[1.0, 1e6], &context).unwrap();
        assert!(top.chosen.iter().all(|c| c.union == [0]));
        let all = NoFiltering {}
            .choose(&pool(), &[1.0, 1e6], &context)
            .unwrap();
        assert!(all.chosen.iter().all(|c| c.union == [0, 1]));
    }

    #[test]
    fn without_wear_the_choice_does_not_change_with_compute() {
        let context = Context::with_seed(0);
        let budgets = [1_000.0, 10_000.0, 1e7];
        let found = PlainPowerLaw {}
            .choose(&pool(), &budgets, &context)
            .unwrap();
        assert!(
            found.chosen.iter().all(|c| c.union == [0]),
            "{:?}",
            found.chosen
        );
    }

    #[test]
    fn blind_to_quality_more_data_always_wins_once_rows_repeat() {
        let context = Context::with_seed(0);
        let found = HomogeneousData {}
            .choose(&pool(), &[20_000.0], &context)
            .unwrap();
        assert_eq!(found.chosen[0].union, [0, 1]);
    }

    #[test]
    fn the_oracle_takes_what_was_measured_best() {
        let context = Context::with_seed(0);
        let plain = Oracle {}.choose(&pool(), &[1.0], &context).unwrap_err();
        assert!(plain.to_string().contains("rows with labels"), "{plain}");
        let told = Pool {
            measured: Some(Box::new(|union: &[usize]| {
                Ok(if union.len() == 1 {
                    vec![0.3, 0.3]
                } else {
                    vec![0.5, 0.2]
                })
            })),
            ..pool()
        };
        let found = Oracle {}.choose(&told, &[1.0, 2.0], &context).unwrap();
        assert_eq!(found.chosen[0].union, [0]);
        assert_eq!(found.chosen[1].union, [0, 1]);
    }

    #[test]
    fn a_mean_needs_the_same_checkpoints() {
        let mut pool = pool();
        pool.buckets[1] = Bucket {
            points: vec![Point {
                samples: 3.0,
                error: 0.1,
            }],
            ..pool.buckets[1].clone()
        };
        let text = pool.mean_bucket().unwrap_err().to_string();
        assert!(text.contains("checkpoints"), "{text}");
    }
}
