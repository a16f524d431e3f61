//! IEThresh: P. Donmez, J. Carbonell, J. Schneider, *Efficiently learning the accuracy of labeling sources for selective
//! sampling*, KDD 2009.
//!
//! 1. Take the row of which the classifier is least certain.
//! 2. For each annotator, the interval of his agreement with the labels: mean ± t s / sqrt(c), with one agreement and one
//!    disagreement added; or that of the filter for drifting accuracy.
//! 3. Ask every annotator whose upper end is at least eps times the greatest one. Upper ends may exceed 1.
//!
//! With `shifted-bounds` 1 is added to every upper end before the comparison, as scikit-activeml's ranking does, so that
//! more annotators pass.
//!
//! Cost O(n K + votes) for each row asked for.

use super::performance::{Belief, filter, interval};
use super::state::State;
use super::strategy::{
    Axes, EXHAUSTED, Proposal, Reliability, Strategy, Uncertainty, most_uncertain,
};
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the interval of an annotator's accuracy is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Estimate {
    /// Student's interval of all his agreements.
    #[default]
    Interval,
    /// Particles that follow an accuracy that drifts, such as of somebody who tires.
    Filter,
}

/// Options of IEThresh.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct IeThresh {
    /// Share of the greatest upper end that an annotator's must reach.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub eps: f64,
    /// One minus the level of the intervals.
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1.0))]
    pub alpha: f64,
    /// Compare upper ends plus 1, which asks more annotators.
    pub shifted_bounds: bool,
    /// How the intervals are found.
    pub estimate: Estimate,
    /// With estimate=filter: deviation of the drift for each answer.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sigma: f64,
    /// How uncertain the classifier is of a row.
    pub uncertainty: Uncertainty,
}

impl Default for IeThresh {
    fn default() -> Self {
        IeThresh {
            eps: 0.9,
            alpha: 0.05,
            shifted_bounds: false,
            estimate: Estimate::Interval,
            sigma: 0.02,
            uncertainty: Uncertainty::LeastConfidence,
        }
    }
}

impl Method for IeThresh {
    const FACTS: Facts = Facts {
        name: "iethresh",
        about: "ask about the least certain row all annotators whose accuracy may be among the best",
        paper: Some("real-world-al"),
        streams: false,
    };
}

impl IeThresh {
    /// What is believed of each annotator.
    pub fn beliefs(&self, state: &State) -> Vec<Belief> {
        state
            .agreement()
            .into_iter()
            .enumerate()
            .map(|(a, rewards)| match self.estimate {
                Estimate::Interval => interval(rewards.into_iter().map(|r| r.1), self.alpha),
                Estimate::Filter => {
                    let rewards = in_order(state, a, &rewards);
                    filter(
                        rewards.into_iter(),
                        self.sigma,
                        self.alpha,
                        state.setting.seed,
                        a,
                    )
                }
            })
            .collect()
    }
}

/// Rewards in the order of the log rather than of the rows.
fn in_order(state: &State, a: usize, rewards: &[(usize, f64)]) -> Vec<f64> {
    let mut found = Vec::with_capacity(rewards.len());
    for answer in state.log.iter().filter(|answer| answer.annotator == a) {
        for row in answer.query.rows() {
            if let Ok(at) = rewards.binary_search_by_key(&row, |r| r.0) {
                found.push(rewards[at].1);
            }
        }
    }
    found
}

impl Strategy for IeThresh {
    fn axes(&self) -> Axes {
        Axes {
            mistakes: self.uncertainty.mistakes(),
            reliability: match self.estimate {
                Estimate::Interval => Reliability::Uniform,
                Estimate::Filter => Reliability::Drifting,
            },
            ..Axes::PLAIN
        }
    }

    fn propose(&self, state: &State) -> Result<Proposal> {
        // 1.
        let Some((row, _)) = most_uncertain(state, self.uncertainty) else {
            return Ok(EXHAUSTED);
        };
        // 2.
        let shift = f64::from(u8::from(self.shifted_bounds));
        let who = state.askable(row);
        let upper: Vec<f64> = self.beliefs(state).iter().map(|b| b.high + shift).collect();
        let greatest = who
            .iter()
            .map(|&a| upper[a])
            .fold(f64::NEG_INFINITY, f64::max);
        // 3. The best first: if the money does not pay for all of them, it pays for those.
        let mut chosen: Vec<usize> = who
            .into_iter()
            .filter(|&a| upper[a] >= self.eps * greatest)
            .collect();
        chosen.sort_by(|&a, &b| upper[b].total_cmp(&upper[a]).then(a.cmp(&b)));
        Ok(Proposal::Ask(
            chosen
                .into_iter()
                .map(|a| state.about(row, a, upper[a] - shift))
                .collect(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::Answer;
    use super::super::pool::tests::halves;
    use super::super::state::tests::answer;
    use super::super::state::{Setting, State};
    use super::*;

    /// Answers to `rows` rows: annotator a is right on a row if its number is not a multiple of `wrong[a]`.
    fn answers(rows: usize, truth: &[usize], wrong: &[usize]) -> Vec<Answer> {
        (0..rows)
            .flat_map(|row| {
                wrong.iter().enumerate().map(move |(a, &every)| {
                    let lies = every > 0 && row % every == 0;
                    answer(0, row, a, if lies { 1 - truth[row] } else { truth[row] })
                })
            })
            .collect()
    }

    fn asked(strategy: &IeThresh, log: &[Answer], people: usize) -> Vec<usize> {
        let (pool, _) = halves(60, &vec![1.0; people], 0);
        let setting = Setting::default();
        let state = State::new(&pool, log, &setting).unwrap();
        match strategy.propose(&state).unwrap() {
            Proposal::Ask(questions) => questions.iter().map(|q| q.annotator).collect(),
            Proposal::Stop(why) => panic!("{why}"),
        }
    }

    #[test]
    fn reliable_annotators_are_asked_and_the_shift_widens_the_circle() {
        let (_, truth) = halves(60, &[1.0], 0);
        let log = answers(40, &truth, &[0, 0, 2]);
        assert_eq!(asked(&IeThresh::default(), &log, 3), [0, 1]);
        let shifted = IeThresh {
            shifted_bounds: true,
            eps: 0.8,
            ..IeThresh::default()
        };
        assert_eq!(asked(&shifted, &log, 3), [0, 1, 2]);
        let raw = IeThresh {
            eps: 0.8,
            ..IeThresh::default()
        };
        assert_eq!(asked(&raw, &log, 3), [0, 1]);
        let filter = IeThresh {
            estimate: Estimate::Filter,
            ..IeThresh::default()
        };
        assert_eq!(asked(&filter, &log, 3).len(), 2);
    }

    #[test]
    fn two_that_lie_together_outvote_the_honest_one() {
        // The known weakness: agreement with a wrong majority makes liars look good.
        let (_, truth) = halves(60, &[1.0], 0);
        let log = answers(40, &truth, &[1, 1, 0]);
        assert_eq!(asked(&IeThresh::default(), &log, 3), [0, 1]);
    }
}
