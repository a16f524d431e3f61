//! Crowd logistic: Y. Yan, R. Rosales, G. Fung, J. Dy, *Active learning from crowds*, ICML 2011.
//!
//! The true class z follows P(z | x), softmax regression; annotator a answers it with probability p_a(x) = sigmoid(v_a x +
//! b_a), else one of the other K - 1 classes, all alike. Fitted by EM with a penalty of 1 on the slopes:
//! 1. Posterior T \[m, K\] of z from the aggregate of the votes.
//! 2. Fit P(z | x) to T; fit p_a to the T of the class that a answered.
//! 3. T ∝ P(z | x) product over votes of p_a(x) where the vote is z, (1 - p_a(x)) / (K - 1) where it is not.
//! 4. Repeat 2 and 3 until T moves by less than 1e-3 on average, at most 20 times.
//!
//! Then ask about the row whose greatest probability is closest to 1/2, the annotator of the greatest p_a(x). (With more
//! than two classes the distance is taken to 1/2 from above only: a greatest probability below 1/2 is the less certain.)
//!
//! Cost of a round: the fits, O(m d (K + A)) a step of each.

use super::softmax::Softmax;
use super::state::State;
use super::strategy::{Axes, EXHAUSTED, Proposal, Reliability, Strategy, best};
use ndarray::{Array2, Axis};
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Steps of each fit in a round of EM; fits go on from those of the round before.
const STEPS: usize = 20;

/// Options of crowd logistic.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct CrowdLogistic {
    /// Penalty on the slopes.
    #[schemars(range(min = 0.0))]
    pub penalty: f64,
    /// Rounds of EM at most.
    #[schemars(range(min = 1))]
    pub rounds: usize,
}

impl Default for CrowdLogistic {
    fn default() -> Self {
        CrowdLogistic {
            penalty: 1.0,
            rounds: 20,
        }
    }
}

impl Method for CrowdLogistic {
    const FACTS: Facts = Facts {
        name: "crowd-logistic",
        about: "learn classes and where each annotator is reliable together; ask the best one for the least certain row",
        paper: Some("real-world-al"),
        streams: false,
    };
}

/// The fitted model of classes and annotators.
pub struct Crowd {
    /// P(z | x).
    pub classes: Softmax,
    /// For each annotator, P(wrong), P(right) at x.
    pub annotators: Vec<Softmax>,
}

impl CrowdLogistic {
    /// Fits classes and annotators to the votes of a state.
    pub fn fit(&self, state: &State) -> Crowd {
        let (votes, k) = (&state.votes, state.pool.classes.len());
        let d = state.pool.x.ncols();
        let rows: Vec<usize> = votes.rows.iter().map(|&r| r as usize).collect();
        let x = state.pool.x.select(Axis(0), &rows);
        // The votes of each annotator: rows of x and classes.
        let mut of = vec![(Vec::new(), Vec::new()); votes.annotators];
        for i in 0..rows.len() {
            for (a, class, _) in votes.of_row(i) {
                of[a].0.push(i);
                of[a].1.push(class);
            }
        }
        // 1.
        let mut posterior = state.truth.posterior.clone();
        let mut classes = Softmax::flat(d, k);
        let mut annotators = vec![Softmax::flat(d, 2); votes.annotators];
        for _ in 0..self.rounds {
            // 2.
            classes = classes.fitted(x.view(), posterior.view(), self.penalty, STEPS);
            let mut log = classes.probabilities(x.view()).mapv(|p| p.max(1e-300).ln());
            for ((rows, said), model) in of.iter().zip(&mut annotators) {
                if rows.is_empty() {
                    continue;
                }
                let own = x.select(Axis(0), rows);
                let mut targets = Array2::zeros((rows.len(), 2));
                for (mut t, (&i, &class)) in targets.outer_iter_mut().zip(rows.iter().zip(said)) {
                    t[1] = posterior[[i, class]];
                    t[0] = 1.0 - t[1];
                }
                *model = std::mem::replace(model, Softmax::flat(0, 0)).fitted(
                    own.view(),
                    targets.view(),
                    self.penalty,
                    STEPS,
                );
                // 3.
                let right = model.probabilities(own.view());
                for (p, (&i, &class)) in right.outer_iter().zip(rows.iter().zip(said)) {
                    for z in 0..k {
                        let chance = if z == class {
                            p[1]
                        } else {
                            p[0] / (k - 1) as f64
                        };
                        log[[i, z]] += chance.max(1e-300).ln();
                    }
                }
            }
            let mut moved = 0.0;
            for (mut t, l) in posterior.outer_iter_mut().zip(log.outer_iter()) {
                let top = l.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                let new = l.mapv(|v| (v - top).exp());
                let sum = new.sum();
                for (t, new) in t.iter_mut().zip(&new) {
                    moved += (new / sum - *t).abs();
                    *t = new / sum;
                }
            }
            // 4.
            if moved < 1e-3 * posterior.len() as f64 {
                break;
            }
        }
        Crowd {
            classes,
            annotators,
        }
    }
}

impl Strategy for CrowdLogistic {
    fn axes(&self) -> Axes {
        Axes {
            reliability: Reliability::ByRow,
            ..Axes::PLAIN
        }
    }

    fn propose(&self, state: &State) -> Result<Proposal> {
        let open = state.open();
        if open.is_empty() {
            return Ok(EXHAUSTED);
        }
        let crowd = self.fit(state);
        let x = state.pool.x.select(Axis(0), &open);
        let scores: Vec<f64> = crowd
            .classes
            .probabilities(x.view())
            .outer_iter()
            .map(|p| 0.5 - p.fold(0.0f64, |a, &b| a.max(b)))
            .collect();
        let Some(i) = best(&scores) else {
            return Ok(EXHAUSTED);
        };
        let who = state.askable(open[i]);
        let row = x.select(Axis(0), &[i]);
        let rates: Vec<f64> = who
            .iter()
            .map(|&a| crowd.annotators[a].probabilities(row.view())[[0, 1]])
            .collect();
        Ok(match best(&rates) {
            Some(at) => Proposal::Ask(vec![state.about(open[i], who[at], scores[i])]),
            None => EXHAUSTED,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::tests::halves;
    use super::super::state::Setting;
    use super::super::state::tests::answer;
    use super::*;

    #[test]
    fn specialists_are_found_out_where_nobody_is_always_right() {
        let (pool, truth) = halves(80, &[1.0; 4], 0);
        // 0 errs on a third of the right side, 1 on a third of the left, 2 and 3 on every fifth row, not the same ones.
        let log: Vec<_> = (0..60)
            .flat_map(|row| {
                let truth = truth[row];
                let third = row / 2 % 3 == 0;
                [
                    !(row % 2 == 1 && third),
                    !(row % 2 == 0 && third),
                    row % 5 != 0,
                    row % 5 != 1,
                ]
                .into_iter()
                .enumerate()
                .map(move |(a, right)| answer(0, row, a, if right { truth } else { 1 - truth }))
            })
            .collect();
        let setting = Setting::default();
        let state = State::new(&pool, &log, &setting).unwrap();
        let crowd = CrowdLogistic::default().fit(&state);
        let right = |a: usize, row: usize| {
            crowd.annotators[a].probabilities(pool.x.select(Axis(0), &[row]).view())[[0, 1]]
        };
        // The penalty draws rates together, but each is better on his side.
        for (own, other) in [(right(0, 70), right(0, 71)), (right(1, 71), right(1, 70))] {
            assert!(own > 0.9 && other < own - 0.05, "{own} {other}");
        }
        let Proposal::Ask(questions) = CrowdLogistic::default().propose(&state).unwrap() else {
            panic!("a question was expected");
        };
        let row = questions[0].query.rows().next().unwrap();
        assert_eq!(questions[0].annotator, row % 2);
    }
}
