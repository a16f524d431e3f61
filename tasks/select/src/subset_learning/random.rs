//! Baseline `random`: the floor.

use super::choose::Ranking;
use super::fitting::{Learned, Problem};
use super::sets::{GroundSet, check_open};
use super::{About, Ask, Selector, SubsetLearner};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Baseline `random`: psi is an even number between 0 and 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RandomSubset {}

impl Method for RandomSubset {
    const FACTS: Facts = Facts {
        name: "random",
        about: "elements drawn without looking",
        paper: None,
        streams: false,
    };
}

struct Blind {
    features: usize,
}

impl SubsetLearner for RandomSubset {
    fn learn(&self, problem: &Problem, _: &Context) -> Result<Learned> {
        let features = problem.check()?;
        Ok(Learned {
            model: Box::new(Blind { features }),
            curves: Vec::new(),
            notes: Vec::new(),
        })
    }

    fn restore(&self, _: usize, path: &Path, _: &Context) -> Result<Box<dyn Selector>> {
        Err(Error::file(
            path,
            "cannot be of method random, which keeps nothing",
        ))
    }
}

impl Selector for Blind {
    fn rank(&self, sets: &[GroundSet], ask: &Ask) -> Result<Vec<Ranking>> {
        check_open(sets, self.features)?;
        let mut rng = sampling::rng(ask.seed, "random subsets");
        Ok(sets
            .iter()
            .map(|s| Ranking::by_psi((0..s.len()).map(|_| rng.random()).collect()))
            .collect())
    }

    fn keep(&self, _: &About, _: &Path) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::choose::{SizeRule, chance, cut, jaccard};
    use super::super::fitting::tests::{odd_ones, problem};
    use super::*;

    #[test]
    fn it_scores_what_chance_expects() {
        let context = Context::with_seed(0);
        let model = RandomSubset {}
            .learn(&problem(4, 1), &context)
            .unwrap()
            .model;
        let sets = odd_ones(2000, 1);
        let ask = Ask {
            most: None,
            values: false,
            seed: 3,
        };
        let rankings = model.rank(&sets, &ask).unwrap();
        let (mut got, mut want) = (0.0, 0.0);
        for (set, ranking) in sets.iter().zip(&rankings) {
            let chosen = cut(ranking, SizeRule::Known, Some(2)).unwrap();
            got += jaccard(&chosen, &set.right()) / 2000.0;
            want += chance(set.len(), 2, 2) / 2000.0;
        }
        // Deviation of one set's index about .27, of the mean .006.
        assert!((got - want).abs() < 0.025, "{got} {want}");
    }
}
