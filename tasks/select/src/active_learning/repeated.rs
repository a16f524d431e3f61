//! Repeated labelling: V. Sheng, F. Provost, P. Ipeirotis, *Get another label? Improving data quality and data mining using
//! multiple, noisy labelers*, KDD 2008.
//!
//! A row may be asked about again. For p votes for its leading class and n against it (0 of both: the class that the
//! classifier predicts):
//! 1. label uncertainty LU = min(I(p + 1, n + 1), 1 - I(p + 1, n + 1)), I the regularised incomplete beta function at 1/2;
//! 2. model uncertainty MU = 1/2 - |P - 1/2|, P the classifier's probability of that class;
//! 3. the row of the greatest sqrt(LU MU), or of one of the two, to a random annotator who was not asked about it.
//!
//! More than two classes: the leading class against the rest. Cost O(n K).

use super::state::State;
use super::strategy::{Axes, EXHAUSTED, Proposal, Strategy, best};
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::function::beta::checked_beta_reg;

/// Which uncertainty ranks the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ranking {
    /// The root of the product of both.
    #[default]
    Both,
    /// That of the votes.
    Label,
    /// That of the classifier.
    Model,
}

/// Options of repeated labelling.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RepeatedLabelling {
    /// Which uncertainty ranks the rows.
    pub ranking: Ranking,
}

impl Method for RepeatedLabelling {
    const FACTS: Facts = Facts {
        name: "repeated-labelling",
        about: "ask again, or anew, about the row whose votes and prediction are both uncertain",
        paper: Some("real-world-al"),
        streams: false,
    };
}

impl Strategy for RepeatedLabelling {
    fn axes(&self) -> Axes {
        Axes::PLAIN
    }

    fn propose(&self, state: &State) -> Result<Proposal> {
        let k = state.pool.classes.len();
        let mut counts = vec![Vec::new(); state.pool.rows()];
        for (i, &row) in state.votes.rows.iter().enumerate() {
            let mut sums = vec![0.0; k];
            for (_, class, weight) in state.votes.of_row(i) {
                sums[class] += weight;
            }
            counts[row as usize] = sums;
        }
        // A row that awaits an answer waits for it.
        let waiting: Vec<usize> = state.pending.iter().flat_map(|q| q.query.rows()).collect();
        let rows: Vec<usize> = (0..state.pool.rows())
            .filter(|row| !waiting.contains(row) && !state.askable(*row).is_empty())
            .collect();
        let scores: Vec<f64> = rows
            .iter()
            .map(|&row| {
                let p = state.probabilities.row(row);
                let predicted = p.iter().copied().collect::<Vec<_>>();
                let leading = match state.labels[row] {
                    Some(label) => label,
                    None => best(&predicted).unwrap_or(0),
                };
                let votes = &counts[row];
                let yes = votes.get(leading).copied().unwrap_or(0.0);
                let no = votes.iter().sum::<f64>() - yes;
                // 1. and 2.
                let label = label_uncertainty(yes, no.max(0.0));
                let model = 0.5 - (p[leading] - 0.5).abs();
                match self.ranking {
                    Ranking::Both => (label * model).max(0.0).sqrt(),
                    Ranking::Label => label,
                    Ranking::Model => model,
                }
            })
            .collect();
        // 3.
        let Some(i) = best(&scores) else {
            return Ok(EXHAUSTED);
        };
        let who = state.askable(rows[i]);
        let a = who[state.rng("annotator").random_range(0..who.len())];
        Ok(Proposal::Ask(vec![state.about(rows[i], a, scores[i])]))
    }
}

/// Probability that the class with `yes` votes is the rarer one, or its opposite, whichever is less.
fn label_uncertainty(yes: f64, no: f64) -> f64 {
    let tail = checked_beta_reg(yes + 1.0, no + 1.0, 0.5).unwrap_or(0.5);
    tail.min(1.0 - tail)
}

#[cfg(test)]
mod tests {
    use super::super::pool::tests::halves;
    use super::super::state::Setting;
    use super::super::state::tests::answer;
    use super::*;

    #[test]
    fn uncertainty_of_votes_by_hand() {
        // I(n + 1, 1) at 1/2 is 2^-(n + 1).
        assert!((label_uncertainty(0.0, 0.0) - 0.5).abs() < 1e-12);
        assert!((label_uncertainty(3.0, 0.0) - 0.0625).abs() < 1e-12);
        // I(3, 2) at 1/2: P(at least 3 of 4 heads) = 5/16.
        assert!((label_uncertainty(2.0, 1.0) - 0.3125).abs() < 1e-12);
        assert!((label_uncertainty(1.0, 2.0) - 0.3125).abs() < 1e-12);
    }

    #[test]
    fn a_row_of_contradicting_votes_is_asked_again_by_somebody_else() {
        let (pool, truth) = halves(12, &[1.0, 1.0, 1.0], 0);
        let mut log: Vec<_> = (0..12)
            .flat_map(|row| {
                let class = truth[row];
                (0..2).map(move |a| answer(0, row, a, class))
            })
            .collect();
        log[6] = answer(0, 3, 0, 1 - truth[3]);
        let setting = Setting::default();
        let state = State::new(&pool, &log, &setting).unwrap();
        let strategy = RepeatedLabelling {
            ranking: Ranking::Label,
        };
        let Proposal::Ask(questions) = strategy.propose(&state).unwrap() else {
            panic!("a question was expected");
        };
        assert_eq!(questions[0], state.about(3, 2, questions[0].score));
    }
}
