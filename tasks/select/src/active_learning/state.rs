//! What is known before the next question: labels so far, the classifier, the money left.
//!
//! A state is a function of the pool, the log and the seed alone, so a run that is taken up from its log goes on as if it
//! had never stopped. One turn of the cycle:
//! 1. The votes of the log become one label for each answered row (`aggregate`).
//! 2. Stated shares of regions and answers about pairs are spread to further rows (`spread`).
//! 3. Softmax regression is fitted to all of them, and predicts the pool.
//! 4. A strategy proposes questions; they are asked, paid, and the log grows.

use super::aggregate::{Aggregate, Aggregator};
use super::log::{Answer, Query, Question, Reply, Votes, check};
use super::performance::{self, Agreement};
use super::pool::Pool;
use super::softmax::Softmax;
use super::spread;
use ndarray::{Array2, Axis};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Rounds of a fit from nothing.
const ROUNDS: usize = 100;

/// Where the cost of an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fees {
    /// The fees that annotators ask are known beforehand.
    #[default]
    Known,
    /// Only what was paid, and how long it took, is known; ridge regression predicts the rest.
    Predicted,
}

/// What stays the same over the whole cycle.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Money for answers after the first rows.
    pub budget: f64,
    /// How votes become a label.
    pub aggregator: Aggregator,
    /// With what an annotator's votes are compared to judge him.
    pub agreement: Agreement,
    /// Strength of the penalty in the classifier.
    pub l2: f64,
    /// Whether an annotator may be asked the same twice.
    pub repeats: bool,
    /// Where costs come from.
    pub fees: Fees,
    /// Rows about which everybody is asked at first.
    pub first: usize,
    /// From which everything random is drawn.
    pub seed: u64,
}

impl Default for Setting {
    fn default() -> Self {
        Setting {
            budget: 100.0,
            aggregator: Aggregator::default(),
            agreement: Agreement::default(),
            l2: 1.0,
            repeats: false,
            fees: Fees::default(),
            first: 8,
            seed: 0,
        }
    }
}

/// What is known before the next question.
pub struct State<'a> {
    /// The pool.
    pub pool: &'a Pool,
    /// The answers so far.
    pub log: &'a [Answer],
    /// What stays the same.
    pub setting: &'a Setting,
    /// The class votes.
    pub votes: Votes,
    /// The labels that they amount to.
    pub truth: Aggregate,
    /// The label of each row that has votes, n entries.
    pub labels: Vec<Option<usize>>,
    /// Rows that the classifier learned from, r of them.
    pub learned: Vec<usize>,
    /// Their weights for each class \[r, K\].
    pub targets: Array2<f64>,
    /// The classifier.
    pub model: Softmax,
    /// P(y | x) of all rows \[n, K\].
    pub probabilities: Array2<f64>,
    /// Questions of this turn that are not answered yet.
    pub pending: Vec<Question>,
    /// Money left when the pending questions are paid.
    pub left: f64,
    asked: HashSet<(usize, usize)>,
    refused: HashSet<(usize, usize)>,
    pairs: HashSet<(usize, usize, usize)>,
    /// Rows with a vote or a pending question, n entries.
    touched: Vec<bool>,
    /// Predicted costs, where they are.
    prices: Option<performance::Prices>,
}

impl<'a> State<'a> {
    /// The state after a log.
    ///
    /// # Errors
    /// A log that does not fit the pool, or that holds answers but no label.
    pub fn new(pool: &'a Pool, log: &'a [Answer], setting: &'a Setting) -> Result<State<'a>> {
        check(log, pool, setting.repeats)?;
        let n = pool.rows();
        // 1.
        let votes = Votes::of(log, pool);
        if votes.rows.is_empty() {
            return Err(Error::BadInput(
                "no row has a label: every answer is missing, refused or unsure; ask further annotators about the first rows".into(),
            ));
        }
        let truth = setting.aggregator.labels(&votes, setting.seed);
        let mut labels = vec![None; n];
        for (&row, &label) in votes.rows.iter().zip(&truth.labels) {
            labels[row as usize] = Some(label);
        }
        // 2.
        let (learned, targets) = spread::lessons(pool, log, &labels);
        // 3.
        let d = pool.x.ncols();
        let model = Softmax::flat(d, pool.classes.len()).fitted(
            pool.x.select(Axis(0), &learned).view(),
            targets.view(),
            setting.l2,
            ROUNDS,
        );
        let probabilities = model.probabilities(pool.x.view());

        let spent: f64 = log.iter().filter(|a| a.step > 0).map(|a| a.fee).sum();
        let mut asked = HashSet::new();
        let mut refused = HashSet::new();
        let mut pairs = HashSet::new();
        for answer in log {
            match answer.query {
                Query::Row(row) => {
                    asked.insert((row, answer.annotator));
                    if answer.reply == Reply::Refused {
                        refused.insert((row, answer.annotator));
                    }
                }
                Query::Pair(a, b) => {
                    pairs.insert((a.min(b), a.max(b), answer.annotator));
                }
                Query::Region(_) => {}
            }
        }
        let prices = match setting.fees {
            Fees::Known => None,
            Fees::Predicted => Some(performance::Prices::of(pool, log)?),
        };
        Ok(State {
            pool,
            log,
            setting,
            touched: labels.iter().map(Option::is_some).collect(),
            votes,
            truth,
            labels,
            learned,
            targets,
            model,
            probabilities,
            pending: Vec::new(),
            left: setting.budget - spent,
            asked,
            refused,
            pairs,
            prices,
        })
    }

    /// What an answer of `a` about `row` costs, or is expected to.
    pub fn fee(&self, row: usize, a: usize) -> f64 {
        match &self.prices {
            None => self.pool.fee(row, a),
            Some(prices) => prices.of_answer(self.pool, row, a),
        }
    }

    /// Whether a fee can still be paid; sums of fees may be off by rounding.
    pub fn affordable(&self, fee: f64) -> bool {
        fee <= self.left + 1e-9
    }

    /// Whether `a` can be asked about `row`: not asked before, and affordable.
    pub fn may_ask(&self, row: usize, a: usize) -> bool {
        let fee = self.fee(row, a);
        // Who refused, or answers for nothing, is not asked again, or a run would not end.
        let again = || self.setting.repeats && fee > 0.0 && !self.refused.contains(&(row, a));
        (!self.asked.contains(&(row, a)) || again()) && self.affordable(fee)
    }

    /// Whether `a` was asked about this pair before.
    pub fn pair_asked(&self, first: usize, second: usize, a: usize) -> bool {
        self.pairs
            .contains(&(first.min(second), first.max(second), a))
    }

    /// Annotators who can be asked about a row.
    pub fn askable(&self, row: usize) -> Vec<usize> {
        (0..self.pool.annotators.len())
            .filter(|&a| self.may_ask(row, a))
            .collect()
    }

    /// Rows without a vote or a pending question, about which somebody can be asked.
    pub fn open(&self) -> Vec<usize> {
        (0..self.pool.rows())
            .filter(|&row| !self.touched[row])
            .filter(|&row| (0..self.pool.annotators.len()).any(|a| self.may_ask(row, a)))
            .collect()
    }

    /// A question about a row.
    pub fn about(&self, row: usize, annotator: usize, score: f64) -> Question {
        Question {
            query: Query::Row(row),
            annotator,
            score,
            fee: self.fee(row, annotator),
        }
    }

    /// The generator for one purpose at this point of the log.
    pub fn rng(&self, purpose: &str) -> ChaCha8Rng {
        let place = self.log.len() + self.pending.len();
        sampling::rng(
            self.setting.seed,
            &format!("active-learning {purpose} {place}"),
        )
    }

    /// Takes note of questions that are asked before the next turn; only those that can be paid are. They are returned.
    pub fn hold(&mut self, questions: Vec<Question>) -> Vec<Question> {
        let mut held = Vec::new();
        for question in questions {
            if !self.affordable(question.fee) {
                continue;
            }
            self.left -= question.fee;
            match question.query {
                Query::Row(row) => {
                    self.touched[row] = true;
                    self.asked.insert((row, question.annotator));
                }
                Query::Pair(a, b) => {
                    self.pairs.insert((a.min(b), a.max(b), question.annotator));
                }
                Query::Region(_) => {}
            }
            self.pending.push(question.clone());
            held.push(question);
        }
        held
    }

    /// For each annotator, the rows that he labelled and whether that agrees with the others, in the order of the rows.
    pub fn agreement(&self) -> Vec<Vec<(usize, f64)>> {
        self.setting.agreement.of(&self.votes, &self.truth)
    }

    /// Cost of predicting the best class for each row \[n\]: min over j of sum_y P(y | x) C\[y, j\], times the row's factor.
    pub fn risks(&self, probabilities: &Array2<f64>) -> Vec<f64> {
        papertrial_numerics::linalg::matmul(probabilities.view(), self.pool.costs.view())
            .outer_iter()
            .zip(&self.pool.row_costs)
            .map(|(costs, factor)| factor * costs.fold(f64::INFINITY, |a, &b| a.min(b)))
            .collect()
    }
}

/// The class of least expected cost for each row of probabilities \[n, K\]; the lower of equal ones.
pub fn predictions(probabilities: &Array2<f64>, costs: &Array2<f64>) -> Vec<usize> {
    papertrial_numerics::linalg::matmul(probabilities.view(), costs.view())
        .outer_iter()
        .map(|costs| {
            costs
                .iter()
                .enumerate()
                .fold((0, f64::INFINITY), |best, (j, &cost)| {
                    if cost < best.1 { (j, cost) } else { best }
                })
                .0
        })
        .collect()
}

/// The questions of step 0: everybody about `first` rows, drawn from the seed.
///
/// # Errors
/// More first rows than rows, or none.
pub fn first_questions(pool: &Pool, setting: &Setting) -> Result<Vec<Question>> {
    let n = pool.rows();
    if setting.first == 0 || setting.first > n {
        return Err(Error::option(
            "seed-rows",
            format!(
                "{} first rows of a pool of {n}; give a number from 1 to {n}",
                setting.first
            ),
        ));
    }
    let mut rng = sampling::rng(setting.seed, "active-learning first rows");
    let rows = sampling::sample_sorted(&mut rng, n, setting.first)
        .map_err(|e| Error::Failed(e.to_string()))?;
    Ok(rows
        .into_iter()
        .flat_map(|row| {
            (0..pool.annotators.len()).map(move |annotator| Question {
                query: Query::Row(row),
                annotator,
                score: 1.0,
                fee: pool.fee(row, annotator),
            })
        })
        .collect())
}

/// Rows and annotators whose reply was refused or unsure or a class: (row, whether `counts` holds), for annotator `a`.
pub fn replies(log: &[Answer], a: usize, counts: impl Fn(&Reply) -> bool) -> Vec<(usize, f64)> {
    log.iter()
        .filter(|answer| answer.annotator == a)
        .filter_map(|answer| match answer.query {
            Query::Row(row) => Some((row, f64::from(u8::from(counts(&answer.reply))))),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::pool::tests::halves;
    use super::*;

    /// The answer of an annotator to a row.
    pub fn answer(step: usize, row: usize, annotator: usize, class: usize) -> Answer {
        Answer {
            step,
            query: Query::Row(row),
            annotator,
            reply: Reply::Class {
                class,
                confidence: 1.0,
            },
            fee: 1.0,
            seconds: None,
        }
    }

    /// Right answers of all annotators about the first rows.
    pub fn start(pool: &Pool, truth: &[usize], setting: &Setting) -> Vec<Answer> {
        first_questions(pool, setting)
            .unwrap()
            .into_iter()
            .map(|q| match q.query {
                Query::Row(row) => answer(0, row, q.annotator, truth[row]),
                _ => unreachable!("first questions are about rows"),
            })
            .collect()
    }

    #[test]
    fn a_state_learns_the_sides_and_counts_the_money() {
        let (pool, truth) = halves(30, &[1.0, 2.0], 0);
        let setting = Setting {
            budget: 4.0,
            first: 20,
            ..Setting::default()
        };
        let mut log = start(&pool, &truth, &setting);
        let seeds: Vec<usize> = log.iter().flat_map(|a| a.query.rows()).collect();
        let free = (0..30).find(|r| !seeds.contains(r)).unwrap();
        log.push(answer(1, free, 0, truth[free]));
        let mut state = State::new(&pool, &log, &setting).unwrap();
        assert_eq!(predictions(&state.probabilities, &pool.costs), truth);
        assert_eq!(state.left, 3.0);
        assert!(!state.may_ask(free, 0) && state.may_ask(free, 1));
        assert_eq!(state.open().len(), 30 - 20 - 1);
        let row = state.open()[0];
        let held = state.hold(vec![
            state.about(row, 1, 1.0),
            state.about(row, 0, 1.0),
            state.about(row, 1, 1.0),
        ]);
        assert_eq!(held.len(), 2);
        assert_eq!(state.left, 0.0);
        assert!(state.open().is_empty());
    }

    #[test]
    fn costs_turn_predictions() {
        let p = ndarray::array![[0.8, 0.2]];
        assert_eq!(
            predictions(&p, &ndarray::array![[0.0, 1.0], [1.0, 0.0]]),
            [0]
        );
        assert_eq!(
            predictions(&p, &ndarray::array![[0.0, 1.0], [9.0, 0.0]]),
            [1]
        );
    }

    #[test]
    fn a_log_without_a_label_is_refused() {
        let (pool, _) = halves(5, &[1.0], 0);
        let setting = Setting::default();
        let mut log = vec![answer(0, 1, 0, 0)];
        log[0].reply = Reply::Unsure;
        let e = State::new(&pool, &log, &setting).err().unwrap();
        assert!(e.to_string().contains("no row has a label"), "{e}");
        let many = Setting {
            first: 6,
            ..setting
        };
        assert!(first_questions(&pool, &many).is_err());
    }
}
