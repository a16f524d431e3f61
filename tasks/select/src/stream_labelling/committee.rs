//! A committee by online bagging: query by committee, and importance-weighted sampling.
//!
//! As the survey (arXiv 2302.08893) sets them out. M members (10) of the model option's kind, each of which learns a row
//! Poisson(1) times; the prediction is the mean of the members.
//!
//! - stream-committee: disagreement u is the entropy of the members' votes, or the mean divergence (Kullback-Leibler) of
//!   their probabilities from the mean, over ln K so that it lies from 0 to 1. Asked for if 1 - u is below a variable
//!   threshold, or if u passes the quantile filter.
//! - importance-weighted (IWAL, Beygelzimer, Dasgupta and Langford 2009, in bootstrap form): with the loss 1 - P(y | x),
//!   p = p_min + (1 - p_min) max over pairs of members and labels of the difference of their losses. Asked for with
//!   probability p, and learned with weight 1 / p. Where the purse blocks a row, the weights no longer make the sample
//!   stand for all rows; IWAL by itself knows no budget.
//!
//! M times the cost of a member.

use super::draws::Draws;
use super::engine::{Decider, Lesson, Setting, Strategy, Wish};
use super::models::{Bagging, ModelKind, ModelPlan, Prediction, largest};
use super::quantile_filter::QuantileFilter;
use super::uncertainty::Variable;
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A bag of the model option's kind; of trees if that is a bag itself.
fn bag(setting: &Setting, members: usize) -> Bagging {
    let kind = match setting.model.kind {
        ModelKind::Bagging => ModelKind::HoeffdingTree,
        kind => kind,
    };
    let plan = ModelPlan {
        kind,
        ..setting.model
    };
    Bagging::new(&plan, members)
}

fn check_members(members: usize) -> Result<()> {
    if members < 2 {
        return Err(Error::option("members", "must be at least 2 to disagree"));
    }
    Ok(())
}

/// What the members' disagreement is taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Disagreement {
    /// The classes they vote for.
    VoteEntropy,
    /// Their probabilities.
    Divergence,
}

/// Which rows of much disagreement are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CommitteeManager {
    /// Those beyond a variable threshold.
    Variable,
    /// Those that pass the balanced quantile filter.
    Quantile,
}

/// Options of the committee.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct StreamCommittee {
    /// Number of members.
    #[schemars(range(min = 2))]
    pub members: usize,
    /// What disagreement is taken of.
    pub disagreement: Disagreement,
    /// Which rows of much disagreement are asked for.
    pub manager: CommitteeManager,
    /// Share by which the variable threshold moves with each row.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub step: f64,
}

impl Default for StreamCommittee {
    fn default() -> Self {
        StreamCommittee {
            members: 10,
            disagreement: Disagreement::VoteEntropy,
            manager: CommitteeManager::Variable,
            step: 0.01,
        }
    }
}

impl Method for StreamCommittee {
    const FACTS: Facts = Facts {
        name: "stream-committee",
        about: "ask where the members of an online bag disagree",
        paper: Some("online-al"),
        streams: false,
    };
}

/// Members and manager.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Committee {
    bag: Bagging,
    disagreement: Disagreement,
    manager: Manager,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Manager {
    Variable(Variable),
    Quantile(QuantileFilter),
}

/// Disagreement of votes, from 0 to 1.
fn disagreement(kind: Disagreement, votes: &[Vec<f64>]) -> f64 {
    let classes = votes.first().map_or(0, Vec::len);
    let most = (classes as f64).ln();
    let n = votes.len() as f64;
    let sum: f64 = match kind {
        Disagreement::VoteEntropy => {
            let mut counts = vec![0.0; classes];
            votes.iter().for_each(|v| counts[largest(v)] += 1.0 / n);
            let present = counts.iter().filter(|c| **c > 0.0);
            present.map(|c| -c * c.ln()).sum()
        }
        Disagreement::Divergence => {
            let mut mean = vec![0.0; classes];
            for vote in votes {
                mean.iter_mut().zip(vote).for_each(|(m, p)| *m += p / n);
            }
            let pairs = votes.iter().flat_map(|v| v.iter().zip(&mean));
            let present = pairs.filter(|(p, _)| **p > 0.0);
            present.map(|(p, m)| p * (p / m).ln()).sum::<f64>() / n
        }
    };
    (sum / most).clamp(0.0, 1.0)
}

impl Decider for Committee {
    fn predict(&self, x: &[f64]) -> Prediction {
        self.bag.predict(x)
    }

    fn wish(&mut self, x: &[f64], _prediction: &Prediction, open: bool) -> Wish {
        let u = disagreement(self.disagreement, &self.bag.votes(x));
        Wish::plain(match &mut self.manager {
            Manager::Variable(threshold) => threshold.asks(1.0 - u, 1.0, open),
            Manager::Quantile(filter) => filter.asks(u, open),
        })
    }

    fn learn(&mut self, lesson: &Lesson) {
        self.bag.learn(lesson.x, lesson.truth, lesson.weight);
    }

    fn warm(&mut self, _x: &[f64]) {
        if let Manager::Quantile(filter) = &mut self.manager {
            filter.warm();
        }
    }
}

impl Strategy for StreamCommittee {
    type State = Committee;

    fn begin(&self, setting: &Setting) -> Result<Committee> {
        let classes = setting.classes(Self::FACTS.name)?;
        check_members(self.members)?;
        super::uncertainty::check_step(self.step)?;
        Ok(Committee {
            bag: bag(setting, self.members),
            disagreement: self.disagreement,
            manager: match self.manager {
                CommitteeManager::Variable => Manager::Variable(Variable::new(self.step, classes)),
                CommitteeManager::Quantile => {
                    Manager::Quantile(QuantileFilter::new(setting.budget, 100, 50.0))
                }
            },
        })
    }
}

/// Options of importance-weighted sampling.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ImportanceWeighted {
    /// Number of members.
    #[schemars(range(min = 2))]
    pub members: usize,
    /// Least probability of asking.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub least_probability: f64,
}

impl Default for ImportanceWeighted {
    fn default() -> Self {
        ImportanceWeighted {
            members: 10,
            least_probability: 0.1,
        }
    }
}

impl Method for ImportanceWeighted {
    const FACTS: Facts = Facts {
        name: "importance-weighted",
        about: "ask with a probability that grows with the members' differences, and weigh the label by its inverse",
        paper: Some("online-al"),
        streams: false,
    };
}

/// Members and draws.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Weighted {
    bag: Bagging,
    least: f64,
    draws: Draws,
}

/// Greatest difference of the losses 1 - P(y) of two members for a label.
fn spread(votes: &[Vec<f64>]) -> f64 {
    let classes = votes.first().map_or(0, Vec::len);
    let mut widest = 0.0f64;
    for k in 0..classes {
        let of_class = || votes.iter().map(|v| v[k]);
        let most = of_class().fold(f64::NEG_INFINITY, f64::max);
        let least = of_class().fold(f64::INFINITY, f64::min);
        widest = widest.max(most - least);
    }
    widest.clamp(0.0, 1.0)
}

impl Decider for Weighted {
    fn predict(&self, x: &[f64]) -> Prediction {
        self.bag.predict(x)
    }

    fn wish(&mut self, x: &[f64], _prediction: &Prediction, _open: bool) -> Wish {
        let p = self.least + (1.0 - self.least) * spread(&self.bag.votes(x));
        Wish {
            weight: 1.0 / p,
            ..Wish::plain(self.draws.chance(p))
        }
    }

    fn learn(&mut self, lesson: &Lesson) {
        self.bag.learn(lesson.x, lesson.truth, lesson.weight);
    }
}

impl Strategy for ImportanceWeighted {
    type State = Weighted;

    fn begin(&self, setting: &Setting) -> Result<Weighted> {
        setting.classes(Self::FACTS.name)?;
        check_members(self.members)?;
        if !(self.least_probability > 0.0 && self.least_probability <= 1.0) {
            return Err(Error::option(
                "least-probability",
                "must be above 0 and at most 1",
            ));
        }
        Ok(Weighted {
            bag: bag(setting, self.members),
            least: self.least_probability,
            draws: Draws::new(setting.seed, "stream-labelling importance-weighted"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn disagreement_and_spread_by_hand() {
        let votes = [vec![0.9, 0.1], vec![0.3, 0.7]];
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        // One vote each: one bit of one.
        close(disagreement(Disagreement::VoteEntropy, &votes), 1.0);
        // Means 0.6 and 0.4.
        let kl = |p: f64, m: f64| p * (p / m).ln();
        let sum = kl(0.9, 0.6) + kl(0.1, 0.4) + kl(0.3, 0.6) + kl(0.7, 0.4);
        close(
            disagreement(Disagreement::Divergence, &votes),
            sum / 2.0 / 2f64.ln(),
        );
        close(spread(&votes), 0.6);
        let same = [vec![0.2, 0.8], vec![0.2, 0.8]];
        for kind in [Disagreement::VoteEntropy, Disagreement::Divergence] {
            close(disagreement(kind, &same), 0.0);
        }
        close(spread(&same), 0.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn both_lie_from_0_to_1(raw in prop::collection::vec(prop::array::uniform4(0.0f64..1.0), 2..8)) {
            let votes: Vec<Vec<f64>> = raw
                .iter()
                .map(|v| v.iter().map(|p| (p + 1e-9) / (v.iter().sum::<f64>() + 4e-9)).collect())
                .collect();
            for kind in [Disagreement::VoteEntropy, Disagreement::Divergence] {
                prop_assert!((0.0..=1.0).contains(&disagreement(kind, &votes)));
            }
            prop_assert!((0.0..=1.0).contains(&spread(&votes)));
        }
    }
}
