//! Unsure-aware sampling, for annotators who may say "don't know": after M. Fang and X. Zhu, *Active learning with
//! uncertain labeling knowledge*, Pattern Recognition Letters 43, 2014.
//!
//! Asks the pair (x, a) of the greatest u(x) P(not unsure | x, a) / cost_a(x); P by logistic regression of the kernel-
//! smoothed share of a's answers that were not "don't know". Such an answer is charged and is never a label.
//!
//! Cost O(A m² d) for m answered rows, and O(n A d).

use super::log::Reply;
use super::performance::willing;
use super::state::{State, replies};
use super::strategy::{
    Axes, Choice, EXHAUSTED, Interaction, Payment, Proposal, Strategy, Uncertainty, best_pair,
    divisor,
};
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of unsure-aware sampling.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct UnsureAware {
    /// How uncertain the classifier is of a row.
    pub uncertainty: Uncertainty,
}

impl Method for UnsureAware {
    const FACTS: Facts = Facts {
        name: "unsure-aware",
        about: "ask where the classifier is uncertain but the annotator will probably know",
        paper: Some("real-world-al"),
        streams: false,
    };
}

impl Strategy for UnsureAware {
    fn axes(&self) -> Axes {
        Axes {
            mistakes: self.uncertainty.mistakes(),
            payment: Payment::AnnotatorAndRow,
            interaction: Interaction::ClassOrUnsure,
            choice: Choice::Joint,
            ..Axes::PLAIN
        }
    }

    fn propose(&self, state: &State) -> Result<Proposal> {
        let open = state.open();
        let doubt = self.uncertainty.of(state, &open);
        let knows = (0..state.pool.annotators.len())
            .map(|a| {
                let outcomes = replies(state.log, a, |r| *r != Reply::Unsure);
                willing(state.pool, &open, &outcomes)
            })
            .collect::<Result<Vec<_>>>()?;
        let found = best_pair(state, &open, |i, a| {
            doubt[i] * knows[a][i] / divisor(state.fee(open[i], a))
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
    use super::super::state::Setting;
    use super::super::state::tests::answer;
    use super::*;

    #[test]
    fn those_who_know_a_side_are_asked_about_it_and_doubt_is_charged() {
        let (pool, truth) = halves(60, &[1.0, 1.0], 0);
        // Annotator 0 does not know the right side (odd rows), 1 not the left.
        let log: Vec<_> = (0..40)
            .flat_map(|row| {
                let class = truth[row];
                (0..2).map(move |a| {
                    let mut found = answer(1, row, a, class);
                    if row % 2 != a {
                        found.reply = Reply::Unsure;
                    }
                    found
                })
            })
            .collect();
        let setting = Setting::default();
        let state = State::new(&pool, &log, &setting).unwrap();
        assert_eq!(state.left, 100.0 - 80.0);
        let Proposal::Ask(found) = UnsureAware::default().propose(&state).unwrap() else {
            panic!("a question was expected");
        };
        let row = found[0].query.rows().next().unwrap();
        assert_eq!(found[0].annotator, row % 2);
    }
}
