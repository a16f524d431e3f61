//! Value of information and return on investment.
//!
//! - A. Kapoor, E. Horvitz, S. Basu, *Selective supervision: guiding supervised learning with decision-theoretic active
//!   learning*, IJCAI 2007: the value of asking about x is the risk now, less the risk that is to be expected once (x, y) is
//!   known, less the cost of the answer; risk is the cost of mistakes that is to be expected over the pool.
//! - R. Haertel, K. Seppi, E. Ringger, J. Carroll, *Return on investment for active learning*, 2008: the same gain divided
//!   by the cost.
//!
//! 1. Draw 64 candidates from the open rows.
//! 2. For each and for each class y: refit with (x, y) added, from the current fit on; risk of the pool (of 1000 rows drawn
//!    from it, if it is larger). Average over P(y | x).
//! 3. Value: gain less cost; stop when the best is not above 0. Return: gain over cost.
//!
//! The annotator is the one of the most reliability for his fee. Costs of mistakes and fees must be in the same money.
//! Cost: 64 K short fits.

use super::state::State;
use super::strategy::{
    Axes, EXHAUSTED, Mistakes, Payment, Proposal, Reliability, Strategy, best, best_value, divisor,
    reliabilities,
};
use ndarray::{Array2, Axis, s};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::linalg::matmul;
use papertrial_numerics::sampling::sample_sorted;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rounds of a fit with one more row.
const ROUNDS: usize = 10;
/// Rows of the pool whose risk is computed.
const RISK_ROWS: usize = 1000;

/// Options of the value of information.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ValueOfInformation {
    /// Rows that are tried.
    #[schemars(range(min = 1))]
    pub candidates: usize,
}

/// Options of the return on investment.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ReturnOnInvestment {
    /// Rows that are tried.
    #[schemars(range(min = 1))]
    pub candidates: usize,
}

impl Default for ValueOfInformation {
    fn default() -> Self {
        ValueOfInformation { candidates: 64 }
    }
}

impl Default for ReturnOnInvestment {
    fn default() -> Self {
        ReturnOnInvestment { candidates: 64 }
    }
}

impl Method for ValueOfInformation {
    const FACTS: Facts = Facts {
        name: "value-of-information",
        about: "ask where the expected cost of mistakes falls by more than the answer costs; stop where it does nowhere",
        paper: Some("real-world-al"),
        streams: false,
    };
}

impl Method for ReturnOnInvestment {
    const FACTS: Facts = Facts {
        name: "return-on-investment",
        about: "ask where the expected cost of mistakes falls most for the cost of the answer",
        paper: Some("real-world-al"),
        streams: false,
    };
}

/// Both know all costs.
const AXES: Axes = Axes {
    mistakes: Mistakes::Matrix,
    payment: Payment::AnnotatorAndRow,
    reliability: Reliability::Uniform,
    ..Axes::PLAIN
};

impl Strategy for ValueOfInformation {
    fn axes(&self) -> Axes {
        AXES
    }

    fn propose(&self, state: &State) -> Result<Proposal> {
        let offers = offers(state, self.candidates)?;
        let values: Vec<f64> = offers
            .iter()
            .map(|o| o.gain - state.fee(o.row, o.annotator))
            .collect();
        Ok(match best(&values) {
            Some(i) if values[i] > 0.0 => Proposal::Ask(vec![state.about(
                offers[i].row,
                offers[i].annotator,
                values[i],
            )]),
            Some(_) => Proposal::Stop("no answer is worth its fee any more"),
            None => EXHAUSTED,
        })
    }
}

impl Strategy for ReturnOnInvestment {
    fn axes(&self) -> Axes {
        AXES
    }

    fn propose(&self, state: &State) -> Result<Proposal> {
        let offers = offers(state, self.candidates)?;
        let values: Vec<f64> = offers
            .iter()
            .map(|o| o.gain / divisor(state.fee(o.row, o.annotator)))
            .collect();
        Ok(match best(&values) {
            Some(i) => Proposal::Ask(vec![state.about(
                offers[i].row,
                offers[i].annotator,
                values[i],
            )]),
            None => EXHAUSTED,
        })
    }
}

/// A row, whom to ask about it, and by how much the risk is expected to fall.
struct Offer {
    row: usize,
    annotator: usize,
    gain: f64,
}

fn offers(state: &State, candidates: usize) -> Result<Vec<Offer>> {
    // 1.
    let open = state.open();
    let mut rng = state.rng("candidates");
    let drawn = sample_sorted(&mut rng, open.len(), candidates.min(open.len()))
        .map_err(|e| Error::Failed(e.to_string()))?;
    let n = state.pool.rows();
    let judged =
        sample_sorted(&mut rng, n, n.min(RISK_ROWS)).map_err(|e| Error::Failed(e.to_string()))?;
    let scale = n as f64 / judged.len().max(1) as f64;
    let pool = state.pool.x.select(Axis(0), &judged);
    let risk = |probabilities: &Array2<f64>| -> f64 {
        matmul(probabilities.view(), state.pool.costs.view())
            .outer_iter()
            .zip(&judged)
            .map(|(costs, &row)| {
                state.pool.row_costs[row] * costs.fold(f64::INFINITY, |a, &b| a.min(b))
            })
            .sum::<f64>()
            * scale
    };
    let now = risk(&state.model.probabilities(pool.view()));
    let reliability = reliabilities(state);
    let k = state.pool.classes.len();
    let m = state.learned.len();
    let known = state.pool.x.select(Axis(0), &state.learned);
    // 2.
    Ok(drawn
        .into_par_iter()
        .filter_map(|i| {
            let row = open[i];
            let annotator = best_value(&state.askable(row), &reliability, |a| state.fee(row, a))?;
            let mut x = Array2::zeros((m + 1, known.ncols()));
            x.slice_mut(s![..m, ..]).assign(&known);
            x.row_mut(m).assign(&state.pool.x.row(row));
            let mut targets = Array2::zeros((m + 1, k));
            targets.slice_mut(s![..m, ..]).assign(&state.targets);
            let later: f64 = (0..k)
                .map(|y| {
                    targets.row_mut(m).fill(0.0);
                    targets[[m, y]] = 1.0;
                    let model = state.model.clone().fitted(
                        x.view(),
                        targets.view(),
                        state.setting.l2,
                        ROUNDS,
                    );
                    state.probabilities[[row, y]] * risk(&model.probabilities(pool.view()))
                })
                .sum();
            Some(Offer {
                row,
                annotator,
                gain: now - later,
            })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::super::pool::tests::halves;
    use super::super::state::Setting;
    use super::super::state::tests::start;
    use super::*;

    fn propose(strategy: &dyn Strategy, fees: &[f64], cost: f64) -> Proposal {
        let (pool, truth) = halves(60, fees, 0);
        let pool = pool
            .with_costs(&[vec![0.0, cost], vec![cost, 0.0]])
            .unwrap();
        let setting = Setting {
            first: 2,
            budget: 50.0,
            ..Setting::default()
        };
        let log = start(&pool, &truth, &setting);
        let state = State::new(&pool, &log, &setting).unwrap();
        strategy.propose(&state).unwrap()
    }

    #[test]
    fn nothing_is_asked_where_mistakes_are_cheaper_than_answers() {
        let value = ValueOfInformation::default();
        let stop = propose(&value, &[1.0, 1.0], 1e-6);
        assert_eq!(stop, Proposal::Stop("no answer is worth its fee any more"));
        let asks = propose(&value, &[1.0, 1.0], 1e6);
        assert!(matches!(asks, Proposal::Ask(_)), "{asks:?}");
    }

    #[test]
    fn a_return_scales_with_the_cost_of_mistakes_and_asks_the_cheap_annotator() {
        let roi = ReturnOnInvestment::default();
        let (Proposal::Ask(one), Proposal::Ask(ten)) = (
            propose(&roi, &[2.0, 1.0], 1.0),
            propose(&roi, &[2.0, 1.0], 10.0),
        ) else {
            panic!("questions were expected");
        };
        assert_eq!(one[0].query, ten[0].query);
        assert_eq!(one[0].annotator, 1);
        assert!((ten[0].score - 10.0 * one[0].score).abs() < 1e-9 * ten[0].score.abs());
    }
}
