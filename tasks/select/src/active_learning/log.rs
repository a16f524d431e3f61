//! Questions, answers, and the votes that they amount to.

use super::pool::Pool;
use papertrial_core::{Error, Result};
use std::collections::HashSet;

/// An interval of one column, in the units of the data.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// The column.
    pub column: usize,
    /// Least value.
    pub low: f64,
    /// Greatest value.
    pub high: f64,
}

/// What is asked about.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// The class of a row.
    Row(usize),
    /// Whether two rows are of the same class.
    Pair(usize, usize),
    /// The shares of the classes among the rows within all these bounds.
    Region(Vec<Bound>),
}

/// A question to one annotator.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// What is asked about.
    pub query: Query,
    /// Who is asked.
    pub annotator: usize,
    /// What the strategy expects of it; only comparable within a strategy.
    pub score: f64,
    /// What it will cost.
    pub fee: f64,
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// A class, and how sure the annotator is of it (1 where nothing is said).
    Class {
        /// The class.
        class: usize,
        /// Above 0, up to 1: the weight of this vote.
        confidence: f64,
    },
    /// "Don't know": charged, and no vote.
    Unsure,
    /// No answer, not charged.
    Refused,
    /// Whether the rows of a pair are of the same class.
    Same(bool),
    /// The shares of the classes in a region; they sum to 1.
    Shares(Vec<f64>),
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The step of the cycle that asked; 0 for the first rows, which the budget does not pay for.
    pub step: usize,
    /// What was asked about.
    pub query: Query,
    /// Who was asked.
    pub annotator: usize,
    /// What came back.
    pub reply: Reply,
    /// What it cost.
    pub fee: f64,
    /// How long it took, in seconds, where that is known.
    pub seconds: Option<f64>,
}

impl Query {
    /// Rows that the query is about by their number: one, two, or none for a region.
    pub fn rows(&self) -> impl Iterator<Item = usize> {
        let (first, second) = match self {
            Query::Row(row) => (Some(*row), None),
            Query::Pair(a, b) => (Some(*a), Some(*b)),
            Query::Region(_) => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// Rows of the pool within all bounds of a region, \[≤ n\].
    pub fn matching(bounds: &[Bound], pool: &Pool) -> Vec<usize> {
        let scaled: Vec<(usize, f64, f64)> = bounds
            .iter()
            .map(|b| {
                let of = |v: f64| (v - pool.means[b.column]) / pool.deviations[b.column];
                (b.column, of(b.low), of(b.high))
            })
            .collect();
        pool.x
            .outer_iter()
            .enumerate()
            .filter(|(_, x)| {
                scaled
                    .iter()
                    .all(|&(c, low, high)| x[c] >= low && x[c] <= high)
            })
            .map(|(row, _)| row)
            .collect()
    }
}

/// Checks a log against its pool.
///
/// # Errors
/// A row, annotator or class that the pool does not have, a reply that does not fit its question, a fee below 0, a
/// confidence outside (0, 1], and, unless `repeats`, the same question to the same annotator twice.
pub fn check(log: &[Answer], pool: &Pool, repeats: bool) -> Result<()> {
    let mut asked = HashSet::new();
    for (line, answer) in log.iter().enumerate() {
        let wrong = |problem: String| {
            Err(Error::BadInput(format!(
                "answer {} of the log: {problem}",
                line + 1
            )))
        };
        if let Some(row) = answer.query.rows().find(|&r| r >= pool.rows()) {
            return wrong(format!(
                "row {row} is not in the pool of {} rows",
                pool.rows()
            ));
        }
        if answer.annotator >= pool.annotators.len() {
            return wrong(format!(
                "annotator {} is not among the {} annotators",
                answer.annotator,
                pool.annotators.len()
            ));
        }
        if !answer.fee.is_finite() || answer.fee < 0.0 {
            return wrong(format!("the fee is {}; it is a number from 0", answer.fee));
        }
        if let Some(seconds) = answer.seconds
            && (!seconds.is_finite() || seconds < 0.0)
        {
            return wrong(format!("took {seconds} seconds; it is a number from 0"));
        }
        match (&answer.query, &answer.reply) {
            (_, Reply::Refused | Reply::Unsure) => {}
            (Query::Row(_), Reply::Class { class, confidence }) => {
                if *class >= pool.classes.len() {
                    return wrong(format!("class {class} is not in the list of classes"));
                }
                if !(*confidence > 0.0 && *confidence <= 1.0) {
                    return wrong(format!(
                        "the confidence is {confidence}; it is a number above 0, up to 1"
                    ));
                }
            }
            (Query::Pair(a, b), Reply::Same(_)) => {
                if a == b {
                    return wrong(format!("row {a} is paired with itself"));
                }
            }
            (Query::Region(bounds), Reply::Shares(shares)) => {
                let sum: f64 = shares.iter().sum();
                if shares.len() != pool.classes.len()
                    || shares.iter().any(|s| !(0.0..=1.0).contains(s))
                    || (sum - 1.0).abs() > 0.01
                {
                    return wrong(
                        "the shares of a region are numbers from 0 to 1 that sum to 1".into(),
                    );
                }
                if bounds.iter().any(|b| b.column >= pool.x.ncols()) {
                    return wrong("the region names a column that the pool does not have".into());
                }
            }
            _ => return wrong("the answer does not fit the kind of question".into()),
        }
        let fresh = match &answer.query {
            Query::Row(row) => asked.insert((*row, usize::MAX, answer.annotator)),
            Query::Pair(a, b) => asked.insert((*a.min(b), *a.max(b), answer.annotator)),
            Query::Region(_) => true,
        };
        if !fresh && !repeats {
            let who = &pool.annotators[answer.annotator].name;
            return wrong(format!(
                "{who} was asked the same question before; drop one of the two answers, or set repeats=true"
            ));
        }
    }
    Ok(())
}

/// Class votes, grouped by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Votes {
    /// Rows of the pool that have a vote, ascending, m of them.
    pub rows: Vec<u32>,
    /// The votes of row i of `rows` are `starts[i]..starts[i + 1]`; m + 1 entries.
    pub starts: Vec<usize>,
    /// Who voted.
    pub annotator: Vec<u32>,
    /// For which class.
    pub class: Vec<u32>,
    /// With which weight.
    pub weight: Vec<f64>,
    /// Number of annotators.
    pub annotators: usize,
    /// Number of classes.
    pub classes: usize,
}

impl Votes {
    /// Groups votes (row, annotator, class, weight) about `n` rows; within a row they keep their order. O(n + votes).
    pub fn new(
        votes: &[(u32, u32, u32, f64)],
        n: usize,
        annotators: usize,
        classes: usize,
    ) -> Votes {
        let mut counts = vec![0usize; n];
        for &(row, ..) in votes {
            counts[row as usize] += 1;
        }
        let mut rows = Vec::new();
        let mut starts = vec![0];
        // Where the next vote of each row goes.
        let mut next = vec![0usize; n];
        let mut place = 0;
        for (row, &count) in counts.iter().enumerate() {
            next[row] = place;
            if count > 0 {
                rows.push(row as u32);
                place += count;
                starts.push(place);
            }
        }
        let mut annotator = vec![0; place];
        let mut class = vec![0; place];
        let mut weight = vec![0.0; place];
        for &(row, a, c, w) in votes {
            let at = next[row as usize];
            next[row as usize] += 1;
            annotator[at] = a;
            class[at] = c;
            weight[at] = w;
        }
        Votes {
            rows,
            starts,
            annotator,
            class,
            weight,
            annotators,
            classes,
        }
    }

    /// The votes of a log.
    pub fn of(log: &[Answer], pool: &Pool) -> Votes {
        let votes: Vec<_> = log
            .iter()
            .filter_map(|answer| match (&answer.query, &answer.reply) {
                (Query::Row(row), Reply::Class { class, confidence }) => Some((
                    *row as u32,
                    answer.annotator as u32,
                    *class as u32,
                    *confidence,
                )),
                _ => None,
            })
            .collect();
        Votes::new(
            &votes,
            pool.rows(),
            pool.annotators.len(),
            pool.classes.len(),
        )
    }

    /// The votes of row i of `rows`: (annotator, class, weight).
    pub fn of_row(&self, i: usize) -> impl Iterator<Item = (usize, usize, f64)> + Clone + '_ {
        (self.starts[i]..self.starts[i + 1]).map(|v| {
            (
                self.annotator[v] as usize,
                self.class[v] as usize,
                self.weight[v],
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::tests::halves;
    use super::*;

    fn vote(row: usize, annotator: usize, class: usize) -> Answer {
        Answer {
            step: 0,
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

    #[test]
    fn votes_are_grouped_by_row_in_their_order() {
        let (pool, _) = halves(6, &[1.0, 1.0, 1.0], 0);
        let mut refused = vote(3, 0, 0);
        refused.reply = Reply::Refused;
        let log = [vote(5, 2, 1), vote(1, 0, 0), refused, vote(5, 1, 0)];
        let votes = Votes::of(&log, &pool);
        assert_eq!(votes.rows, [1, 5]);
        assert_eq!(votes.starts, [0, 1, 3]);
        let of_five: Vec<_> = votes.of_row(1).collect();
        assert_eq!(of_five, [(2, 1, 1.0), (1, 0, 1.0)]);
    }

    #[test]
    fn a_region_holds_the_rows_within_all_bounds() {
        let (pool, _) = halves(10, &[1.0], 0);
        let all = Query::matching(&[], &pool);
        assert_eq!(all.len(), 10);
        let left = Bound {
            column: 0,
            low: -10.0,
            high: 0.0,
        };
        assert_eq!(Query::matching(&[left], &pool), [0, 2, 4, 6, 8]);
    }

    #[test]
    fn bad_answers_are_refused_with_their_line() {
        let (pool, _) = halves(6, &[1.0, 1.0], 0);
        let told = |answer: Answer| {
            check(&[vote(0, 0, 0), answer], &pool, false)
                .unwrap_err()
                .to_string()
        };
        let changed = |change: &dyn Fn(&mut Answer)| {
            let mut answer = vote(1, 0, 0);
            change(&mut answer);
            told(answer)
        };
        assert!(told(vote(6, 0, 0)).contains("answer 2 of the log: row 6"));
        assert!(told(vote(1, 2, 0)).contains("annotator 2"));
        assert!(told(vote(1, 0, 2)).contains("class 2"));
        assert!(told(vote(0, 0, 1)).contains("asked the same question before"));
        assert!(check(&[vote(0, 0, 0), vote(0, 0, 1)], &pool, true).is_ok());
        assert!(changed(&|a| a.fee = -1.0).contains("fee"));
        assert!(changed(&|a| a.seconds = Some(f64::NAN)).contains("seconds"));
        assert!(changed(&|a| a.reply = Reply::Same(true)).contains("does not fit"));
        assert!(
            changed(&|a| {
                a.query = Query::Pair(2, 2);
                a.reply = Reply::Same(true);
            })
            .contains("itself")
        );
        assert!(
            changed(&|a| {
                a.query = Query::Region(Vec::new());
                a.reply = Reply::Shares(vec![0.5, 0.2]);
            })
            .contains("sum to 1")
        );
    }
}
