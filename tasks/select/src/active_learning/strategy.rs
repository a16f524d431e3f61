//! What a strategy is: where it stands on the three axes, and what it asks next.

use super::log::Question;
use super::performance;
use super::pool::Pool;
use super::state::State;
use ndarray::ArrayView1;
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::nearest;
use papertrial_numerics::kmeans::{KMeansOptions, kmeans};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a mistake of the classifier costs, as far as the strategy's choice knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistakes {
    /// All the same.
    Uniform,
    /// By the true and the predicted class, and by the row.
    Matrix,
}

/// What an answer costs, as far as the strategy's choice knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payment {
    /// All the same.
    Uniform,
    /// By the annotator and the row, known or predicted.
    AnnotatorAndRow,
}

/// What is asked about, and the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interaction {
    /// A row; its class, perhaps with a confidence.
    Class,
    /// A row; its class or "don't know".
    ClassOrUnsure,
    /// A region of the columns; the shares of the classes.
    RegionShares,
    /// Two rows; whether they are of the same class.
    PairSame,
}

/// How an annotator's reliability is modelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reliability {
    /// Not at all.
    None,
    /// One rate.
    Uniform,
    /// One rate that may drift in time.
    Drifting,
    /// A rate for each row.
    ByRow,
}

/// How row and annotator are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The row first, then the annotator.
    Sequential,
    /// Both at once.
    Joint,
}

/// Where a strategy stands on the survey's three axes: costs, interaction, annotators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axes {
    /// Cost of mistakes.
    pub mistakes: Mistakes,
    /// Cost of answers.
    pub payment: Payment,
    /// Queries and answers.
    pub interaction: Interaction,
    /// Model of the annotators.
    pub reliability: Reliability,
    /// How row and annotator are chosen.
    pub choice: Choice,
}

impl Axes {
    /// Classes of rows, all costs alike, annotators not modelled, the row first.
    pub const PLAIN: Axes = Axes {
        mistakes: Mistakes::Uniform,
        payment: Payment::Uniform,
        interaction: Interaction::Class,
        reliability: Reliability::None,
        choice: Choice::Sequential,
    };

    /// In words.
    pub fn shown(&self) -> String {
        format!(
            "mistakes {}, answers {}, asks for {}, reliability {}, {}",
            match self.mistakes {
                Mistakes::Uniform => "cost the same",
                Mistakes::Matrix => "cost by class and row",
            },
            match self.payment {
                Payment::Uniform => "cost the same",
                Payment::AnnotatorAndRow => "cost by annotator and row",
            },
            match self.interaction {
                Interaction::Class => "the class of a row",
                Interaction::ClassOrUnsure => "the class of a row or \"don't know\"",
                Interaction::RegionShares => "the shares of the classes in a region",
                Interaction::PairSame => "whether two rows are of the same class",
            },
            match self.reliability {
                Reliability::None => "not modelled",
                Reliability::Uniform => "one rate for each annotator",
                Reliability::Drifting => "a drifting rate for each annotator",
                Reliability::ByRow => "by annotator and row",
            },
            match self.choice {
                Choice::Sequential => "the row before the annotator",
                Choice::Joint => "row and annotator together",
            }
        )
    }
}

/// What a strategy wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Proposal {
    /// These questions, before the next turn.
    Ask(Vec<Question>),
    /// No more, although money is left; the reason.
    Stop(&'static str),
}

/// Nothing that can be paid is left to ask.
pub const EXHAUSTED: Proposal = Proposal::Stop("nothing that can be paid is left to ask");

/// Chooses the next questions.
pub trait Strategy: Send + Sync {
    /// Where it stands on the three axes.
    fn axes(&self) -> Axes;
    /// What to ask after what is known.
    ///
    /// # Errors
    /// A computation on the pool fails.
    fn propose(&self, state: &State) -> Result<Proposal>;
}

/// The most telling questions for about `count` rows, regions or pairs, without an answer in between; what cannot be paid
/// is left out. The second part tells why there are none.
///
/// # Errors
/// As [`Strategy::propose`].
pub fn batch(
    strategy: &dyn Strategy,
    state: &mut State,
    count: usize,
) -> Result<(Vec<Question>, Option<&'static str>)> {
    let mut all = Vec::new();
    for _ in 0..count {
        match strategy.propose(state)? {
            Proposal::Stop(why) => return Ok((all, Some(why))),
            Proposal::Ask(questions) => {
                let held = state.hold(questions);
                if held.is_empty() {
                    return Ok((all, Some("the money does not pay for another answer")));
                }
                all.extend(held);
            }
        }
    }
    Ok((all, None))
}

/// How uncertain the classifier is of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Uncertainty {
    /// One minus the greatest probability.
    #[default]
    LeastConfidence,
    /// One minus the difference of the two greatest.
    Margin,
    /// Entropy, in nats.
    Entropy,
    /// Cost of the best prediction that is to be expected, from the cost matrix and the row's factor.
    ExpectedCost,
}

impl Uncertainty {
    /// Which costs of mistakes it knows.
    pub fn mistakes(self) -> Mistakes {
        match self {
            Uncertainty::ExpectedCost => Mistakes::Matrix,
            _ => Mistakes::Uniform,
        }
    }

    /// Of each of `rows`, in their order.
    pub fn of(self, state: &State, rows: &[usize]) -> Vec<f64> {
        if self == Uncertainty::ExpectedCost {
            let all = state.risks(&state.probabilities);
            return rows.iter().map(|&row| all[row]).collect();
        }
        rows.iter()
            .map(|&row| self.of_probabilities(state.probabilities.row(row)))
            .collect()
    }

    /// Of the probabilities of one row; expected cost as if all mistakes cost 1.
    pub fn of_probabilities(self, p: ArrayView1<'_, f64>) -> f64 {
        let (first, second) = p.iter().fold((0.0f64, 0.0f64), |(first, second), &v| {
            if v > first {
                (v, first)
            } else {
                (first, second.max(v))
            }
        });
        match self {
            Uncertainty::LeastConfidence | Uncertainty::ExpectedCost => 1.0 - first,
            Uncertainty::Margin => 1.0 - (first - second),
            Uncertainty::Entropy => -p
                .iter()
                .filter(|v| **v > 0.0)
                .map(|v| v * v.ln())
                .sum::<f64>(),
        }
    }
}

/// The place of the greatest value, the first of equal ones.
pub fn best(values: &[f64]) -> Option<usize> {
    let mut found: Option<usize> = None;
    for (i, v) in values.iter().enumerate() {
        if !v.is_nan() && found.is_none_or(|b| *v > values[b]) {
            found = Some(i);
        }
    }
    found
}

/// A fee to divide by: an answer for nothing is worth more than any paid one.
pub fn divisor(fee: f64) -> f64 {
    fee.max(1e-9)
}

/// The mean reliability of each annotator: agreement with one hit and one miss added.
pub fn reliabilities(state: &State) -> Vec<f64> {
    state
        .agreement()
        .iter()
        .map(|a| performance::mean(a))
        .collect()
}

/// Among `candidates`, the annotator of the most reliability for his fee; of equal ones the first.
pub fn best_value(
    candidates: &[usize],
    reliability: &[f64],
    fee: impl Fn(usize) -> f64,
) -> Option<usize> {
    let values: Vec<f64> = candidates
        .iter()
        .map(|&a| reliability[a] / divisor(fee(a)))
        .collect();
    best(&values).map(|i| candidates[i])
}

/// The most uncertain open row and its uncertainty.
pub fn most_uncertain(state: &State, uncertainty: Uncertainty) -> Option<(usize, f64)> {
    let open = state.open();
    let scores = uncertainty.of(state, &open);
    best(&scores).map(|i| (open[i], scores[i]))
}

/// The (row, annotator) pair of the greatest value among all that can be asked; `value(i, a)` for the i-th of `rows`.
pub fn best_pair(
    state: &State,
    rows: &[usize],
    value: impl Fn(usize, usize) -> f64,
) -> Option<(usize, usize, f64)> {
    let mut found: Option<(usize, usize, f64)> = None;
    for (i, &row) in rows.iter().enumerate() {
        for a in 0..state.pool.annotators.len() {
            if state.may_ask(row, a) {
                let v = value(i, a);
                if !v.is_nan() && found.is_none_or(|(.., b)| v > b) {
                    found = Some((row, a, v));
                }
            }
        }
    }
    found
}

/// Rows of a pool nearest to the centres of its clusters, in the order of the clusters; each once.
///
/// # Errors
/// The clustering fails.
pub fn central_rows(pool: &Pool, clusters: usize, seed: u64) -> Result<Vec<usize>> {
    let options = KMeansOptions {
        seed,
        ..KMeansOptions::new(clusters.clamp(1, pool.rows()))
    };
    let failed = |e: &dyn std::fmt::Display| Error::Failed(e.to_string());
    let found = kmeans(pool.x.view(), None, &options).map_err(|e| failed(&e))?;
    let near = nearest(found.centres.view(), pool.x.view()).map_err(|e| failed(&e))?;
    let mut rows: Vec<usize> = Vec::new();
    for row in near.indices {
        if !rows.contains(&(row as usize)) {
            rows.push(row as usize);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn uncertainties_by_hand() {
        let p = array![0.5, 0.3, 0.2];
        let of = |u: Uncertainty| u.of_probabilities(p.view());
        assert!((of(Uncertainty::LeastConfidence) - 0.5).abs() < 1e-15);
        assert!((of(Uncertainty::Margin) - 0.8).abs() < 1e-15);
        let entropy = -(0.5 * 0.5f64.ln() + 0.3 * 0.3f64.ln() + 0.2 * 0.2f64.ln());
        assert!((of(Uncertainty::Entropy) - entropy).abs() < 1e-12);
        let sure = array![1.0, 0.0];
        assert_eq!(Uncertainty::Entropy.of_probabilities(sure.view()), 0.0);
    }

    #[test]
    fn the_best_is_the_first_of_equals_and_nan_is_none() {
        assert_eq!(best(&[f64::NAN, 1.0, 2.0, 2.0]), Some(2));
        assert_eq!(best(&[]), None);
        assert_eq!(
            best_value(&[0, 2], &[0.6, 1.0, 0.9], |a| [1.0, 1.0, 3.0][a]),
            Some(0)
        );
    }
}
