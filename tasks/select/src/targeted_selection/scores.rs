//! Scores of pool rows for queries, block by block, and the best rows of each list: never the whole matrix.
//!
//! A source of scores shows blocks \[queries, rows\] in the order of the rows. Each list (one a query, one a task, or one
//! for all) keeps its R best rows in a buffer of at most 2 R and cuts it back by partial selection, so that memory is
//! lists x R and time is rows x lists comparisons, whatever the number of rows. Of equal scores the lower row counts
//! more.

use ndarray::{Array2, Axis};
use papertrial_core::{Error, Result};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Scores of some rows.
pub struct Block {
    /// First row, from 0.
    pub first: usize,
    /// \[queries, rows\].
    pub scores: Array2<f32>,
}

/// What sees block after block.
pub type See<'s> = dyn FnMut(&Block) -> Result<()> + 's;

/// A source of scores, which can be run through as often as wanted.
pub trait Scores: Sync {
    /// Rows of the pool.
    fn rows(&self) -> usize;
    /// Queries.
    fn queries(&self) -> usize;
    /// Shows all blocks, in the order of the rows.
    ///
    /// # Errors
    /// The data cannot be read or are broken, or `see` failed.
    fn visit(&self, see: &mut See) -> Result<()>;
}

/// Computes blocks of `per` rows with `score(first, rows)` in parallel, a few at a time, and shows them in order.
///
/// # Errors
/// The first error of `score` or `see`.
pub fn visit_in_blocks(
    rows: usize,
    per: usize,
    score: impl Fn(usize, usize) -> Result<Array2<f32>> + Sync,
    see: &mut See,
) -> Result<()> {
    let blocks: Vec<usize> = (0..rows).step_by(per).collect();
    for some in blocks.chunks(2 * rayon::current_num_threads()) {
        let made: Vec<Result<Block>> = some
            .par_iter()
            .map(|&first| {
                let scores = score(first, per.min(rows - first))?;
                Ok(Block { first, scores })
            })
            .collect();
        for block in made {
            see(&block?)?;
        }
    }
    Ok(())
}

/// How a row's scores for several queries become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregate {
    /// Not at all: the queries take turns, each picking its best row left.
    RoundRobin,
    /// The best score of any query.
    Max,
    /// The mean score.
    Mean,
    /// The mean of scores that each query has scaled to run from 0 to 1 over the pool.
    MinMaxMean,
}

/// The lists that are made of the scores.
pub struct Lists<'a> {
    source: &'a dyn Scores,
    /// Queries of each list.
    members: Vec<Vec<usize>>,
    how: Aggregate,
    /// Least score and width of the range of each query, for [`Aggregate::MinMaxMean`].
    ranges: Vec<(f32, f32)>,
}

impl<'a> Lists<'a> {
    /// The lists of queries that belong to tasks (`tasks[q]`, from 0 without a gap).
    ///
    /// One task: a list for each query if they take turns, else one list. Several tasks: a list for each, a row's
    /// scores reduced over the task's queries (to the best one, if queries would take turns).
    ///
    /// # Errors
    /// The scores cannot be read, where they must be run through once to know their range.
    pub fn new(source: &'a dyn Scores, tasks: &[usize], aggregate: Aggregate) -> Result<Self> {
        let count = tasks.iter().max().map_or(0, |t| t + 1);
        let members = if count <= 1 && aggregate == Aggregate::RoundRobin {
            (0..tasks.len()).map(|q| vec![q]).collect()
        } else {
            (0..count)
                .map(|t| (0..tasks.len()).filter(|&q| tasks[q] == t).collect())
                .collect()
        };
        let mut ranges = Vec::new();
        if aggregate == Aggregate::MinMaxMean {
            let mut limits = vec![(f32::INFINITY, f32::NEG_INFINITY); tasks.len()];
            source.visit(&mut |block| {
                for (limit, scores) in limits.iter_mut().zip(block.scores.axis_iter(Axis(0))) {
                    for &s in scores {
                        *limit = (limit.0.min(s), limit.1.max(s));
                    }
                }
                Ok(())
            })?;
            ranges = limits
                .iter()
                .map(|(low, high)| (*low, high - low))
                .collect();
        }
        Ok(Lists {
            source,
            members,
            how: aggregate,
            ranges,
        })
    }

    /// Number of lists.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// The one query of list `list`, if it has but one.
    pub fn query(&self, list: usize) -> Option<usize> {
        match self.members[list].as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// The task of list `list`.
    pub fn task(&self, list: usize, tasks: &[usize]) -> Option<usize> {
        self.members[list].first().map(|q| tasks[*q])
    }

    /// The best `length` rows of each list among those allowed, best first.
    ///
    /// # Errors
    /// The scores cannot be read or one is not a number.
    pub fn best(&self, length: usize, allowed: Option<&[bool]>) -> Result<Vec<Vec<Scored>>> {
        let mut lists: Vec<Best> = self.members.iter().map(|_| Best::new(length)).collect();
        self.source.visit(&mut |block| {
            if let Some(at) = block.scores.iter().position(|s| s.is_nan()) {
                let row = block.first + at % block.scores.ncols().max(1) + 1;
                return Err(Error::Failed(format!(
                    "the score of row {row} is not a number: the model's states are not finite"
                )));
            }
            lists
                .par_iter_mut()
                .zip(&self.members)
                .for_each(|(list, members)| {
                    for j in 0..block.scores.ncols() {
                        let row = block.first + j;
                        let score = self.reduce(&block.scores, members, j);
                        if list.takes(score) && allowed.is_none_or(|a| a[row]) {
                            list.push(score, row as u32);
                        }
                    }
                });
            Ok(())
        })?;
        Ok(lists.into_iter().map(Best::finish).collect())
    }

    /// The score of column `j` for the queries `members`.
    fn reduce(&self, scores: &Array2<f32>, members: &[usize], j: usize) -> f32 {
        if let [one] = members
            && self.how != Aggregate::MinMaxMean
        {
            return scores[[*one, j]];
        }
        match self.how {
            Aggregate::RoundRobin | Aggregate::Max => members
                .iter()
                .map(|&q| scores[[q, j]])
                .fold(f32::NEG_INFINITY, f32::max),
            Aggregate::Mean => {
                let sum: f64 = members.iter().map(|&q| f64::from(scores[[q, j]])).sum();
                (sum / members.len() as f64) as f32
            }
            Aggregate::MinMaxMean => {
                let sum: f64 = members
                    .iter()
                    .map(|&q| {
                        let (low, range) = self.ranges[q];
                        // A query that finds all rows alike says nothing.
                        if range > 0.0 {
                            f64::from((scores[[q, j]] - low) / range)
                        } else {
                            0.0
                        }
                    })
                    .sum();
                (sum / members.len() as f64) as f32
            }
        }
    }
}

/// A row with its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The score.
    pub score: f32,
    /// The row, from 0.
    pub row: u32,
}

/// The best rows so far.
struct Best {
    length: usize,
    rows: Vec<Scored>,
    /// Score that a row must beat, once there are `length` rows: later rows lose against equals.
    bar: Option<f32>,
}

/// Best first; of equals the lower row.
fn order(a: &Scored, b: &Scored) -> std::cmp::Ordering {
    b.score.total_cmp(&a.score).then(a.row.cmp(&b.row))
}

impl Best {
    fn new(length: usize) -> Self {
        Best {
            length: length.max(1),
            rows: Vec::new(),
            bar: None,
        }
    }

    fn takes(&self, score: f32) -> bool {
        self.bar.is_none_or(|bar| score > bar)
    }

    fn push(&mut self, score: f32, row: u32) {
        // -0 and 0 are equal scores.
        self.rows.push(Scored {
            score: score + 0.0,
            row,
        });
        if self.rows.len() >= 2 * self.length {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.rows.len() > self.length {
            self.rows.select_nth_unstable_by(self.length - 1, order);
            self.rows.truncate(self.length);
            self.bar = Some(self.rows[self.length - 1].score);
        }
    }

    fn finish(mut self) -> Vec<Scored> {
        self.cut();
        self.rows.sort_unstable_by(order);
        self.rows
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Scores in memory, \[queries, rows\], shown in blocks of three rows.
    pub struct Matrix(pub Array2<f32>);

    impl Scores for Matrix {
        fn rows(&self) -> usize {
            self.0.ncols()
        }

        fn queries(&self) -> usize {
            self.0.nrows()
        }

        fn visit(&self, see: &mut See) -> Result<()> {
            visit_in_blocks(
                self.0.ncols(),
                3,
                |first, n| Ok(self.0.slice(ndarray::s![.., first..first + n]).to_owned()),
                see,
            )
        }
    }

    fn rows(list: &[Scored]) -> Vec<u32> {
        list.iter().map(|s| s.row).collect()
    }

    #[test]
    fn aggregates_by_hand() {
        let m = Matrix(ndarray::array![[0.9, 0.0, 0.5, 0.1], [0.0, 0.4, 0.3, 0.1],]);
        let list = |how| {
            let lists = Lists::new(&m, &[0, 0], how).unwrap();
            lists.best(4, None).unwrap()
        };
        let turns = list(Aggregate::RoundRobin);
        assert_eq!(
            (rows(&turns[0]), rows(&turns[1])),
            (vec![0, 2, 3, 1], vec![1, 2, 3, 0])
        );
        assert_eq!(rows(&list(Aggregate::Max)[0]), [0, 2, 1, 3]);
        // Means .45, .2, .4, .1.
        assert_eq!(rows(&list(Aggregate::Mean)[0]), [0, 2, 1, 3]);
        // Scaled: 1+0, 0+1, .5556+.75, .1111+.25.
        let scaled = list(Aggregate::MinMaxMean);
        assert_eq!(rows(&scaled[0]), [2, 0, 1, 3]);
        assert!((scaled[0][0].score - (0.5 / 0.9 + 0.75) / 2.0).abs() < 1e-6);
        // Two tasks of one query each keep a list each; turns within a task become its best score.
        let lists = Lists::new(&m, &[0, 1], Aggregate::RoundRobin).unwrap();
        assert_eq!((lists.len(), lists.query(1)), (2, Some(1)));
        let forbidden = [false, true, true, true];
        let best = lists.best(2, Some(&forbidden)).unwrap();
        assert_eq!((rows(&best[0]), rows(&best[1])), (vec![2, 3], vec![1, 2]));
    }

    #[test]
    fn a_score_that_is_no_number_is_told_with_its_row() {
        let m = Matrix(ndarray::array![[0.0, 1.0, 2.0, 3.0, f32::NAN]]);
        let lists = Lists::new(&m, &[0], Aggregate::Max).unwrap();
        let text = lists.best(2, None).unwrap_err().to_string();
        assert!(text.contains("row 5"), "{text}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn kept_rows_are_those_of_a_full_sort(
            scores in proptest::collection::vec(0u8..12, 1..80),
            length in 1usize..20,
        ) {
            let n = scores.len();
            let m = Matrix(Array2::from_shape_fn((1, n), |(_, j)| f32::from(scores[j])));
            let best = Lists::new(&m, &[0], Aggregate::Max).unwrap().best(length, None).unwrap();
            let mut want: Vec<usize> = (0..n).collect();
            want.sort_by_key(|&j| (std::cmp::Reverse(scores[j]), j));
            let want: Vec<u32> = want.into_iter().take(length).map(|j| j as u32).collect();
            prop_assert_eq!(rows(&best[0]), want);
        }
    }
}
