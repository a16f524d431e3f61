//! Proactive learning: P. Donmez and J. Carbonell, *Proactive learning: cost-sensitive active learning with multiple
//! imperfect oracles*, CIKM 2008.
//!
//! 1. Until a tenth of the budget B is spent: ask everybody about the rows nearest to the centres of B / 20 clusters.
//! 2. Spread what is known of each annotator from the rows that he was asked about: P(usable | x, a) = (sum of w r + 2 mean)
//!    / (sum of w + 2), w = exp(-‖x - x'‖ / median distance).
//! 3. Ask the pair (x, a) of the greatest P(usable | x, a) V(x) / cost_a(x), V the uncertainty.
//!
//! What is usable depends on the case. Fallible annotators: an answer that agrees with the label. Reluctant ones: any
//! answer at all. Varying costs: every answer, so that only the fees decide.
//!
//! Cost O(n m d) for n open rows and m answered ones, and k-means while exploring.

use super::log::Reply;
use super::performance::mean;
use super::state::{State, replies};
use super::strategy::{
    Axes, Choice, EXHAUSTED, Payment, Proposal, Reliability, Strategy, Uncertainty, best_pair,
    central_rows, divisor,
};
use ndarray::Axis;
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::squared_distances;
use papertrial_numerics::stats::quantile;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is wrong with the annotators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// They err.
    #[default]
    Fallible,
    /// They refuse.
    Reluctant,
    /// They only charge differently.
    VariableCost,
}

/// Options of proactive learning.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProactiveLearning {
    /// What is wrong with the annotators.
    pub case: Case,
    /// Share of the budget that is spent on centres of clusters first.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub explore: f64,
    /// How uncertain the classifier is of a row.
    pub uncertainty: Uncertainty,
}

impl Default for ProactiveLearning {
    fn default() -> Self {
        ProactiveLearning {
            case: Case::Fallible,
            explore: 0.1,
            uncertainty: Uncertainty::LeastConfidence,
        }
    }
}

impl Method for ProactiveLearning {
    const FACTS: Facts = Facts {
        name: "proactive-learning",
        about: "ask the row and annotator of the most uncertainty times probability of a usable answer for the fee",
        paper: Some("real-world-al"),
        streams: false,
    };
}

impl Strategy for ProactiveLearning {
    fn axes(&self) -> Axes {
        Axes {
            mistakes: self.uncertainty.mistakes(),
            payment: Payment::AnnotatorAndRow,
            reliability: match self.case {
                Case::VariableCost => Reliability::None,
                _ => Reliability::ByRow,
            },
            choice: Choice::Joint,
            ..Axes::PLAIN
        }
    }

    fn propose(&self, state: &State) -> Result<Proposal> {
        let open = state.open();
        // 1.
        let budget = state.setting.budget;
        if self.case != Case::VariableCost && budget - state.left < self.explore * budget {
            let clusters = (budget / 20.0).ceil().max(1.0) as usize;
            let rows = central_rows(state.pool, clusters, state.setting.seed)?;
            if let Some(&row) = rows.iter().find(|row| open.binary_search(row).is_ok()) {
                let questions = state.askable(row).into_iter();
                return Ok(Proposal::Ask(
                    questions.map(|a| state.about(row, a, 0.0)).collect(),
                ));
            }
        }
        // 2.
        let outcomes: Vec<Vec<(usize, f64)>> = match self.case {
            Case::Fallible => state.agreement(),
            Case::Reluctant => (0..state.pool.annotators.len())
                .map(|a| replies(state.log, a, |r| *r != Reply::Refused))
                .collect(),
            Case::VariableCost => vec![Vec::new(); state.pool.annotators.len()],
        };
        let usable = match self.case {
            Case::VariableCost => vec![vec![1.0; open.len()]; outcomes.len()],
            _ => spread(state, &open, &outcomes)?,
        };
        // 3.
        let value = self.uncertainty.of(state, &open);
        let found = best_pair(state, &open, |i, a| {
            usable[a][i] * value[i] / divisor(state.fee(open[i], a))
        });
        Ok(match found {
            Some((row, a, score)) => Proposal::Ask(vec![state.about(row, a, score)]),
            None => EXHAUSTED,
        })
    }
}

/// P(usable) of each annotator for each of `rows`.
fn spread(state: &State, rows: &[usize], outcomes: &[Vec<(usize, f64)>]) -> Result<Vec<Vec<f64>>> {
    let mut anchors: Vec<usize> = outcomes.iter().flatten().map(|(row, _)| *row).collect();
    anchors.sort_unstable();
    anchors.dedup();
    if anchors.is_empty() || rows.is_empty() {
        return Ok(vec![vec![0.5; rows.len()]; outcomes.len()]);
    }
    let failed = |e: &dyn std::fmt::Display| Error::Failed(e.to_string());
    let x = state.pool.x.select(Axis(0), rows);
    let known = state.pool.x.select(Axis(0), &anchors);
    let distances = squared_distances(x.view(), known.view())
        .map_err(|e| failed(&e))?
        .mapv(|d| d.max(0.0).sqrt());
    let sample: Vec<f64> = distances.iter().copied().collect();
    let median = quantile(&sample, 0.5).map_err(|e| failed(&e))?.max(1e-12);
    let weights = distances.mapv(|d| (-d / median).exp());
    Ok(outcomes
        .iter()
        .map(|outcomes| {
            let mean = mean(outcomes);
            let places: Vec<(usize, f64)> = outcomes
                .iter()
                .filter_map(|(row, r)| anchors.binary_search(row).ok().map(|at| (at, *r)))
                .collect();
            weights
                .outer_iter()
                .map(|w| {
                    let (mut hits, mut all) = (2.0 * mean, 2.0);
                    for &(at, r) in &places {
                        hits += w[at] * r;
                        all += w[at];
                    }
                    hits / all
                })
                .collect()
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::super::log::{Answer, Question};
    use super::super::pool::tests::halves;
    use super::super::state::Setting;
    use super::super::state::tests::answer;
    use super::*;

    fn ask(
        strategy: &ProactiveLearning,
        log: &[Answer],
        fees: &[f64],
        budget: f64,
    ) -> Vec<Question> {
        let (pool, _) = halves(60, fees, 0);
        let setting = Setting {
            budget,
            ..Setting::default()
        };
        let state = State::new(&pool, log, &setting).unwrap();
        match strategy.propose(&state).unwrap() {
            Proposal::Ask(questions) => questions,
            Proposal::Stop(why) => panic!("{why}"),
        }
    }

    fn log(step: usize, rows: usize, right: [bool; 2]) -> Vec<Answer> {
        let (_, truth) = halves(60, &[1.0], 0);
        (0..rows)
            .flat_map(|row| {
                let truth = truth[row];
                // The third decides what is true.
                [right[0], right[1], true]
                    .into_iter()
                    .enumerate()
                    .map(move |(a, right)| {
                        answer(step, row, a, if right { truth } else { 1 - truth })
                    })
            })
            .collect()
    }

    #[test]
    fn centres_first_then_the_reliable_for_the_fee() {
        let fees = [1.0, 1.0, 9.0];
        let first = ask(
            &ProactiveLearning::default(),
            &log(0, 8, [true, false]),
            &fees,
            100.0,
        );
        assert_eq!(
            first.iter().map(|q| q.annotator).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        let later = ask(
            &ProactiveLearning::default(),
            &log(1, 8, [true, false]),
            &fees,
            100.0,
        );
        assert_eq!(later.iter().map(|q| q.annotator).collect::<Vec<_>>(), [0]);
        let dear = ask(
            &ProactiveLearning::default(),
            &log(1, 8, [true, false]),
            &[50.0, 1.0, 50.0],
            100.0,
        );
        assert_eq!(dear[0].annotator, 1);
    }

    #[test]
    fn the_reluctant_are_spared() {
        let mut answers = log(1, 10, [true, true]);
        for a in &mut answers {
            if a.annotator == 0 {
                a.reply = Reply::Refused;
            }
        }
        let strategy = ProactiveLearning {
            case: Case::Reluctant,
            ..ProactiveLearning::default()
        };
        assert_ne!(ask(&strategy, &answers, &[1.0; 3], 100.0)[0].annotator, 0);
        let by_cost = ProactiveLearning {
            case: Case::VariableCost,
            ..ProactiveLearning::default()
        };
        assert_eq!(
            ask(&by_cost, &answers, &[1.0, 0.5, 0.4], 100.0)[0].annotator,
            2
        );
    }
}
