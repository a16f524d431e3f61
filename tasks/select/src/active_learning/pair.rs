//! Pair queries: Y. Fu, B. Li, X. Zhu, C. Zhang, *Active learning without knowing individual instance labels: a pairwise
//! label homogeneity query approach*, TKDE 26, 2014.
//!
//! 1. Take the 100 most uncertain rows that no label reaches yet.
//! 2. Among the pairs of such a row with one that a label reaches, ask about the one whose probability of being of the same
//!    class, sum_y P(y | x) P(y | x'), is closest to 1/2. An answer about two rows that no label reaches would teach nothing
//!    yet.
//! 3. Answers are the edges of a signed graph, along which labels are spread (`spread`).
//!
//! How the pair is chosen is described only in outline; 1 and 2 are choices. The annotator is the one of the most
//! reliability for his fee. Cost O(100 r K) for r rows that a label reaches.

use super::log::{Query, Question};
use super::spread::connected;
use super::state::State;
use super::strategy::{
    Axes, EXHAUSTED, Interaction, Payment, Proposal, Reliability, Strategy, Uncertainty,
    best_value, reliabilities,
};
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use papertrial_numerics::topk::largest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of pair queries.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct PairQuery {
    /// Most uncertain rows of which one is in the pair.
    #[schemars(range(min = 1))]
    pub candidates: usize,
    /// How uncertain the classifier is of a row.
    pub uncertainty: Uncertainty,
}

impl Default for PairQuery {
    fn default() -> Self {
        PairQuery {
            candidates: 100,
            uncertainty: Uncertainty::LeastConfidence,
        }
    }
}

impl Method for PairQuery {
    const FACTS: Facts = Facts {
        name: "pair-query",
        about: "ask whether an uncertain row is of the same class as a known one",
        paper: Some("real-world-al"),
        streams: false,
    };
}

impl Strategy for PairQuery {
    fn axes(&self) -> Axes {
        Axes {
            payment: Payment::AnnotatorAndRow,
            interaction: Interaction::PairSame,
            reliability: Reliability::Uniform,
            ..Axes::PLAIN
        }
    }

    fn propose(&self, state: &State) -> Result<Proposal> {
        let pool = state.pool;
        // 1.
        let known = connected(state.log, &state.labels);
        let mut out = vec![true; pool.rows()];
        known.iter().for_each(|&row| out[row] = false);
        for row in state.pending.iter().flat_map(|q| q.query.rows()) {
            out[row] = false;
        }
        let rows: Vec<usize> = (0..pool.rows()).filter(|&row| out[row]).collect();
        let doubt = self.uncertainty.of(state, &rows);
        let top: Vec<usize> = largest(&doubt, self.candidates)
            .into_iter()
            .map(|i| rows[i])
            .collect();
        // 2.
        let reliability = reliabilities(state);
        let mut found: Option<(usize, usize, usize, f64)> = None;
        for &x in &top {
            for &other in &known {
                let same = state
                    .probabilities
                    .row(x)
                    .dot(&state.probabilities.row(other));
                let distance = (same - 0.5).abs();
                if found.is_some_and(|(.., best)| distance >= best) {
                    continue;
                }
                let who: Vec<usize> = (0..pool.annotators.len())
                    .filter(|&a| !state.pair_asked(x, other, a))
                    .filter(|&a| state.affordable(state.fee(x, a)))
                    .collect();
                if let Some(a) = best_value(&who, &reliability, |a| state.fee(x, a)) {
                    found = Some((x, other, a, distance));
                }
            }
        }
        Ok(match found {
            Some((x, other, annotator, distance)) => Proposal::Ask(vec![Question {
                query: Query::Pair(x, other),
                annotator,
                score: 0.5 - distance,
                fee: state.fee(x, annotator),
            }]),
            None => EXHAUSTED,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::{Answer, Reply};
    use super::super::pool::tests::halves;
    use super::super::state::Setting;
    use super::super::state::tests::start;
    use super::*;

    #[test]
    fn an_answer_about_a_pair_labels_the_new_row() {
        let (pool, truth) = halves(40, &[1.0], 0);
        let setting = Setting::default();
        let mut log = start(&pool, &truth, &setting);
        for step in 1..6 {
            let state = State::new(&pool, &log, &setting).unwrap();
            let before = state.learned.len();
            let Proposal::Ask(found) = PairQuery::default().propose(&state).unwrap() else {
                panic!("a question was expected");
            };
            let Query::Pair(x, other) = found[0].query else {
                panic!("a pair was expected");
            };
            assert!(!state.learned.contains(&x) && state.learned.contains(&other));
            log.push(Answer {
                step,
                query: found[0].query.clone(),
                annotator: 0,
                reply: Reply::Same(truth[x] == truth[other]),
                fee: 1.0,
                seconds: None,
            });
            let state = State::new(&pool, &log, &setting).unwrap();
            assert_eq!(state.learned.len(), before + 1);
            let at = state.learned.iter().position(|&r| r == x).unwrap();
            assert_eq!(state.targets[[at, truth[x]]], 1.0);
        }
    }
}
