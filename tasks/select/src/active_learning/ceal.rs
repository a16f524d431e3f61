//! CEAL: S.-J. Huang, J.-L. Chen, X. Mu, Z.-H. Zhou, *Cost-effective active learning from diverse labelers*, IJCAI 2017.
//!
//! Asks the pair (x, a) of the greatest q_a(x) u(x) / cost_a(x): q the annotator's agreement on the nearest rows that he
//! answered, shrunk to his mean; u the classifier's uncertainty.
//!
//! Cost O(n A (m d + k)) for n open rows and m answered ones.

use super::performance::nearby;
use super::state::State;
use super::strategy::{
    Axes, Choice, EXHAUSTED, Payment, Proposal, Reliability, Strategy, Uncertainty, best_pair,
    divisor,
};
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of CEAL.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ceal {
    /// Nearest answered rows on which an annotator is judged.
    #[schemars(range(min = 1))]
    pub neighbours: usize,
    /// How uncertain the classifier is of a row.
    pub uncertainty: Uncertainty,
}

impl Default for Ceal {
    fn default() -> Self {
        Ceal {
            neighbours: 10,
            uncertainty: Uncertainty::LeastConfidence,
        }
    }
}

impl Method for Ceal {
    const FACTS: Facts = Facts {
        name: "ceal",
        about: "ask the row and annotator of the most uncertainty times reliability near that row for the fee",
        paper: Some("real-world-al"),
        streams: false,
    };
}

impl Strategy for Ceal {
    fn axes(&self) -> Axes {
        Axes {
            mistakes: self.uncertainty.mistakes(),
            payment: Payment::AnnotatorAndRow,
            reliability: Reliability::ByRow,
            choice: Choice::Joint,
            ..Axes::PLAIN
        }
    }

    fn propose(&self, state: &State) -> Result<Proposal> {
        let open = state.open();
        let doubt = self.uncertainty.of(state, &open);
        let quality = state
            .agreement()
            .iter()
            .map(|outcomes| nearby(state.pool, &open, outcomes, self.neighbours))
            .collect::<Result<Vec<_>>>()?;
        let found = best_pair(state, &open, |i, a| {
            quality[a][i] * doubt[i] / divisor(state.fee(open[i], a))
        });
        Ok(match found {
            Some((row, a, score)) => Proposal::Ask(vec![state.about(row, a, score)]),
            None => EXHAUSTED,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::tests::halves;
    use super::super::state::tests::answer;
    use super::super::state::{Setting, State};
    use super::*;

    fn asked(fees: &[f64]) -> (usize, usize) {
        let (pool, truth) = halves(60, fees, 0);
        // Annotator 0 is right on the left (even rows) only, 1 on the right only, 2 and 3 always.
        let log: Vec<_> = (0..40)
            .flat_map(|row| {
                let truth = truth[row];
                [row % 2 == 0, row % 2 == 1, true, true]
                    .into_iter()
                    .take(fees.len())
                    .enumerate()
                    .map(move |(a, right)| answer(0, row, a, if right { truth } else { 1 - truth }))
            })
            .collect();
        let setting = Setting::default();
        let state = State::new(&pool, &log, &setting).unwrap();
        match Ceal::default().propose(&state).unwrap() {
            Proposal::Ask(q) => (q[0].query.rows().next().unwrap(), q[0].annotator),
            Proposal::Stop(why) => panic!("{why}"),
        }
    }

    #[test]
    fn specialists_are_asked_on_their_side_when_they_are_cheap() {
        let (row, annotator) = asked(&[1.0, 1.0, 5.0, 5.0]);
        assert_eq!(annotator, row % 2);
        let (_, annotator) = asked(&[1.0, 1.0, 0.5, 5.0]);
        assert_eq!(annotator, 2);
    }
}
