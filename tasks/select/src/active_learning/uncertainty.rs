//! Baselines and strategies 1 and 2: a random row, or the most uncertain one, to annotators who are not modelled.
//!
//! - random: a random open row to a random annotator.
//! - uncertainty-sampling: D. Lewis and W. Gale, *A sequential algorithm for training text classifiers*, SIGIR 1994, to one
//!   annotator at random, to all, or always to the same one.
//!
//! Cost O(n K) for each row asked for.

use super::state::State;
use super::strategy::{Axes, EXHAUSTED, Proposal, Strategy, Uncertainty, most_uncertain};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A random row to a random annotator; no options.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RandomQuery {}

impl Method for RandomQuery {
    const FACTS: Facts = Facts {
        name: "random",
        about: "ask a random annotator about a random row",
        paper: None,
        streams: false,
    };
}

impl Strategy for RandomQuery {
    fn axes(&self) -> Axes {
        Axes::PLAIN
    }

    fn propose(&self, state: &State) -> Result<Proposal> {
        let open = state.open();
        if open.is_empty() {
            return Ok(EXHAUSTED);
        }
        let mut rng = state.rng("random");
        let row = open[rng.random_range(0..open.len())];
        let who = state.askable(row);
        let a = who[rng.random_range(0..who.len())];
        Ok(Proposal::Ask(vec![state.about(row, a, 0.0)]))
    }
}

/// Who is asked about the most uncertain row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// One annotator, drawn at random.
    #[default]
    Random,
    /// All of them.
    All,
    /// Always the same one.
    Fixed,
}

/// Options of uncertainty sampling.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct UncertaintySampling {
    /// Who is asked.
    pub ask: Ask,
    /// With ask=fixed: which annotator, from 0.
    pub fixed: usize,
    /// How uncertain the classifier is of a row.
    pub uncertainty: Uncertainty,
}

impl Method for UncertaintySampling {
    const FACTS: Facts = Facts {
        name: "uncertainty-sampling",
        about: "ask one annotator, or all, about the row of which the classifier is least certain",
        paper: Some("real-world-al"),
        streams: false,
    };
}

impl Strategy for UncertaintySampling {
    fn axes(&self) -> Axes {
        Axes {
            mistakes: self.uncertainty.mistakes(),
            ..Axes::PLAIN
        }
    }

    fn propose(&self, state: &State) -> Result<Proposal> {
        let people = state.pool.annotators.len();
        if self.ask == Ask::Fixed && self.fixed >= people {
            return Err(Error::option(
                "fixed",
                format!(
                    "{} is not among the {people} annotators, 0 to {}",
                    self.fixed,
                    people - 1
                ),
            ));
        }
        if self.ask == Ask::Fixed {
            let open: Vec<usize> = state
                .open()
                .into_iter()
                .filter(|&row| state.may_ask(row, self.fixed))
                .collect();
            let scores = self.uncertainty.of(state, &open);
            return Ok(match super::strategy::best(&scores) {
                Some(i) => Proposal::Ask(vec![state.about(open[i], self.fixed, scores[i])]),
                None => EXHAUSTED,
            });
        }
        let Some((row, score)) = most_uncertain(state, self.uncertainty) else {
            return Ok(EXHAUSTED);
        };
        let mut who = state.askable(row);
        if self.ask == Ask::Random {
            let drawn = state.rng("annotator").random_range(0..who.len());
            who = vec![who[drawn]];
        }
        Ok(Proposal::Ask(
            who.into_iter()
                .map(|a| state.about(row, a, score))
                .collect(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::tests::halves;
    use super::super::state::tests::start;
    use super::super::state::{Setting, State};
    use super::*;

    fn asked(strategy: &dyn Strategy, seed: u64) -> Vec<(usize, usize)> {
        let (pool, truth) = halves(40, &[1.0, 1.0, 1.0], 0);
        let setting = Setting {
            seed,
            ..Setting::default()
        };
        let log = start(&pool, &truth, &setting);
        let state = State::new(&pool, &log, &setting).unwrap();
        match strategy.propose(&state).unwrap() {
            Proposal::Ask(questions) => questions
                .iter()
                .map(|q| (q.query.rows().next().unwrap(), q.annotator))
                .collect(),
            Proposal::Stop(why) => panic!("{why}"),
        }
    }

    #[test]
    fn all_are_asked_about_the_least_certain_row() {
        let all = UncertaintySampling {
            ask: Ask::All,
            ..UncertaintySampling::default()
        };
        let found = asked(&all, 0);
        assert_eq!(found.iter().map(|q| q.1).collect::<Vec<_>>(), [0, 1, 2]);
        let (pool, truth) = halves(40, &[1.0, 1.0, 1.0], 0);
        let setting = Setting::default();
        let log = start(&pool, &truth, &setting);
        let state = State::new(&pool, &log, &setting).unwrap();
        let row = found[0].0;
        assert!(found.iter().all(|q| q.0 == row));
        let doubt = |row: usize| (state.probabilities[[row, 0]] - 0.5).abs();
        for other in state.open() {
            assert!(doubt(row) <= doubt(other) + 1e-12);
        }
        let one = asked(&UncertaintySampling::default(), 0);
        assert_eq!((one.len(), one[0].0), (1, row));
        let fixed = UncertaintySampling {
            ask: Ask::Fixed,
            fixed: 2,
            ..UncertaintySampling::default()
        };
        assert_eq!(asked(&fixed, 0), [(row, 2)]);
    }

    #[test]
    fn chance_depends_on_the_seed_alone() {
        let random = RandomQuery::default();
        assert_eq!(asked(&random, 1), asked(&random, 1));
        let different: std::collections::HashSet<_> =
            (0..10).map(|seed| asked(&random, seed)).collect();
        assert!(different.len() > 5);
    }
}
