//! Baselines of chance: rows drawn at random, from the whole pool or from its sources in turn.
//!
//! The balanced draw goes round the sources, one row a turn; a source that has run out is passed over, so that its share
//! goes to the others.

use super::problem::{Fitted, Pool, Queries, Ranking, Reads, Selector};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the draw from the whole pool: none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Uniform {}

impl Method for Uniform {
    const FACTS: Facts = Facts {
        name: "uniform",
        about: "rows at random, all alike",
        paper: None,
        streams: true,
    };
}

impl Selector for Uniform {
    fn reads(&self) -> Reads {
        Reads::Nothing
    }

    fn fit<'a>(&self, pool: &'a Pool, context: &Context) -> Result<Box<dyn Fitted + 'a>> {
        let mut rng = sampling::rng(context.seed, "targeted-selection uniform");
        Ok(Box::new(Drawn(sampling::permutation(&mut rng, pool.count))))
    }
}

/// Options of the draw from sources in turn: none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Balanced {}

impl Method for Balanced {
    const FACTS: Facts = Facts {
        name: "balanced",
        about: "rows at random, from the sources in turn",
        paper: None,
        streams: true,
    };
}

impl Selector for Balanced {
    fn reads(&self) -> Reads {
        Reads::Sources
    }

    fn fit<'a>(&self, pool: &'a Pool, context: &Context) -> Result<Box<dyn Fitted + 'a>> {
        let sources = pool.sources.as_deref().ok_or_else(|| {
            Error::option(
                "--group",
                "name the column with each row's source, which balanced draws from in turn",
            )
        })?;
        let mut rng = sampling::rng(context.seed, "targeted-selection balanced");
        let order = sampling::permutation(&mut rng, pool.count);
        Ok(Box::new(Drawn(balanced(&order, sources))))
    }
}

/// `order` so that sources come in turn, each in its own order.
fn balanced(order: &[usize], sources: &[u32]) -> Vec<usize> {
    let count = sources.iter().max().map_or(0, |m| *m as usize + 1);
    let mut turn = vec![0usize; count];
    let mut placed: Vec<(usize, u32, usize)> = order
        .iter()
        .map(|&row| {
            let source = sources[row];
            let own = turn[source as usize];
            turn[source as usize] += 1;
            (own, source, row)
        })
        .collect();
    placed.sort_unstable();
    placed.into_iter().map(|(_, _, row)| row).collect()
}

/// Rows in a random order; their score is 0.
struct Drawn(Vec<usize>);

impl Fitted for Drawn {
    fn rank<'q>(&'q self, _queries: &'q Queries, _context: &Context) -> Result<Ranking<'q>> {
        Ok(Ranking::Order(self.0.iter().map(|r| (*r, 0.0)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::tests::{best, pool, queries};
    use super::*;

    #[test]
    fn sources_come_in_turn_and_the_rest_of_an_exhausted_one_goes_to_the_others() {
        let sources = [0, 0, 0, 0, 1, 2, 2, 0];
        let order = [7, 1, 4, 6, 0, 5, 3, 2];
        assert_eq!(balanced(&order, &sources), [7, 4, 6, 1, 5, 0, 3, 2]);
        let mut pool = pool(8, 1);
        pool.sources = Some(sources.to_vec());
        let picked = best(&Balanced::default(), &pool, &queries(&["x"]), 6);
        let of = |s: u32| picked.iter().filter(|r| sources[**r] == s).count();
        assert_eq!((of(0), of(1), of(2)), (3, 1, 2));
        pool.sources = None;
        let e = Balanced::default()
            .fit(&pool, &Context::with_seed(0))
            .err()
            .unwrap();
        assert!(e.to_string().contains("--group"), "{e}");
    }

    #[test]
    fn every_row_is_as_likely_as_every_other() {
        let pool = pool(5, 1);
        let mut counts = [0; 5];
        for seed in 0..500 {
            let context = Context::with_seed(seed);
            let fitted = Uniform::default().fit(&pool, &context).unwrap();
            let none = queries(&["x"]);
            let Ranking::Order(order) = fitted.rank(&none, &context).unwrap() else {
                panic!("chance gives one order");
            };
            for (row, _) in &order[..2] {
                counts[*row] += 1;
            }
        }
        // 200 each expected, deviation 11.
        assert!(counts.iter().all(|c| (150..250).contains(c)), "{counts:?}");
    }
}
