//! Baselines: one random subset for all rounds, the same by classes, and all rows.
//!
//! 1. `uniform`: S of k rows, every set equally likely; `stratified`: the classes keep their shares in S.
//! 2. `full-data`: S is all n rows, whatever the budget: the ceiling. With `rounds` times the budget for rounds it is
//!    plain training with the compute of the others.
//!
//! Cost: O(n).

use super::pool::{Choice, Needs, Pool, Selector};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One random subset for all rounds.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Uniform {}

/// One random subset for all rounds in which the classes keep their shares.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Stratified {}

/// All rows in every round.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct FullData {}

impl Method for Uniform {
    const FACTS: Facts = Facts {
        name: "uniform",
        about: "one random subset, the same for all rounds",
        paper: None,
        streams: false,
    };
}

impl Method for Stratified {
    const FACTS: Facts = Facts {
        name: "stratified",
        about: "one random subset, the same for all rounds, in which the classes keep their shares",
        paper: None,
        streams: false,
    };
}

impl Method for FullData {
    const FACTS: Facts = Facts {
        name: "full-data",
        about: "all rows in every round, whatever the budget",
        paper: None,
        streams: false,
    };
}

impl Selector for Uniform {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        random(pool, false)
    }

    fn needs(&self) -> Needs {
        Needs::Number
    }
}

impl Selector for Stratified {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        random(pool, true)
    }

    fn needs(&self) -> Needs {
        Needs::Labels
    }
}

impl Selector for FullData {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        Ok(Choice::Once((0..pool.len()).collect::<Vec<_>>().into()))
    }

    fn needs(&self) -> Needs {
        Needs::Number
    }
}

fn random<'a>(pool: &Pool, balance: bool) -> Result<Choice<'a>> {
    let mut rng = sampling::rng(pool.context.seed, "one random subset");
    let subset = pool.in_groups(balance, |rows, quota| {
        let places = sampling::sample_sorted(&mut rng, rows.len(), quota)
            .map_err(|e| Error::option("budget", e))?;
        Ok((places, None))
    })?;
    Ok(Choice::Once(subset))
}

#[cfg(test)]
mod tests {
    use super::super::pool::testing::Asked;
    use super::*;

    #[test]
    fn sizes_shares_and_seeds() {
        let asked = |seed| Asked::plain(40, 4, 12, seed);
        let first = asked(1).once(&Uniform {}).unwrap();
        assert_eq!(first.rows.len(), 12);
        assert!(first.rows.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(first, asked(1).once(&Uniform {}).unwrap());
        assert_ne!(first, asked(2).once(&Uniform {}).unwrap());
        let by_class = asked(1).once(&Stratified {}).unwrap();
        for class in 0..4 {
            let rows = by_class.rows.iter().filter(|r| **r % 4 == class);
            assert_eq!(rows.count(), 3);
        }
        assert_eq!(asked(1).once(&FullData {}).unwrap().rows.len(), 40);
    }
}
