//! Picking rows from lists that take turns.
//!
//! 1. Lists (of queries, or of tasks) stand in a fixed order. In each round every list in turn pops its best row left.
//! 2. If another list has taken that row already, the turn is lost, as in the paper's script; with `retry` the list pops
//!    on until it finds a row that is free.
//! 3. A row whose source has reached its cap is popped without costing the turn, also as in the script.
//! 4. A list that has run out is passed over. The end is when k rows are picked, or when all lists have run out.
//!
//! Lists are kept only R = ceil(2 k / lists) + slack long. If one of them runs out although the pool has more rows, they are
//! made again twice as long, so that the result is that of whole lists. Cost: pops, at most lists x R.

use super::scores::{Aggregate, Lists, Scored, Scores};
use papertrial_core::{Error, Result};

/// Rows that a list is longer than what the turns need on average.
const SLACK: usize = 64;

/// How rows are picked.
#[derive(Debug, Clone, Copy)]
pub struct Picking<'a> {
    /// Rows to pick, k.
    pub rows: usize,
    /// How scores of several queries become one.
    pub aggregate: Aggregate,
    /// Whether a list whose row is taken tries its next one.
    pub retry: bool,
    /// Rows that may be picked; `None`: all.
    pub allowed: Option<&'a [bool]>,
    /// Source of each row, and most rows of one source.
    pub cap: Option<(&'a [u32], usize)>,
}

/// A picked row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pick {
    /// The row, from 0.
    pub row: usize,
    /// Its score in the list that took it.
    pub score: f64,
    /// The query that took it, if it was one query alone.
    pub query: Option<usize>,
    /// The task that took it; `None` if the queries had no say.
    pub task: Option<usize>,
}

/// Picks k rows from `scores`; queries belong to `tasks` (see [`Lists::new`]). They come in the order of their picks.
///
/// # Errors
/// No queries, fewer rows may be picked than asked for, or the scores cannot be read.
pub fn select_round_robin(
    scores: &dyn Scores,
    tasks: &[usize],
    picking: &Picking,
) -> Result<Vec<Pick>> {
    if scores.queries() == 0 || scores.queries() != tasks.len() {
        return Err(Error::BadInput(
            "there are no query rows; give a few rows of what is wanted".into(),
        ));
    }
    if scores.rows() > u32::MAX as usize {
        return Err(Error::BadInput(format!(
            "the pool has {} rows; {} can be counted here: select from parts of it",
            scores.rows(),
            u32::MAX
        )));
    }
    let lists = Lists::new(scores, tasks, picking.aggregate)?;
    let mut length = (2 * picking.rows).div_ceil(lists.len()) + SLACK;
    loop {
        length = length.min(scores.rows());
        let best = lists.best(length, picking.allowed)?;
        let whole = length == scores.rows();
        let Some(taken) = turns(&best, whole, picking) else {
            length *= 2;
            continue;
        };
        let picks = taken.into_iter().map(|(list, scored)| Pick {
            row: scored.row as usize,
            score: f64::from(scored.score),
            query: lists.query(list),
            task: lists.task(list, tasks),
        });
        return enough(picks.collect(), picking);
    }
}

/// Takes the first k rows of one order, passing over those that may not be picked.
///
/// # Errors
/// Fewer rows may be picked than asked for.
pub fn select_in_order(
    order: impl IntoIterator<Item = (usize, f64)>,
    picking: &Picking,
) -> Result<Vec<Pick>> {
    let mut caps = Caps::new(picking.cap);
    let picks = order
        .into_iter()
        .filter(|(row, _)| picking.allowed.is_none_or(|a| a[*row]))
        .filter(|(row, _)| caps.take(*row))
        .take(picking.rows)
        .map(|(row, score)| Pick {
            row,
            score,
            query: None,
            task: None,
        })
        .collect();
    enough(picks, picking)
}

fn enough(picks: Vec<Pick>, picking: &Picking) -> Result<Vec<Pick>> {
    if picks.len() < picking.rows {
        return Err(Error::option(
            "rows",
            format!(
                "{} were asked for, and {} are left once those are taken out that may not be picked (duplicates, rows of the queries, sources at their cap); ask for fewer, or loosen these",
                picking.rows,
                picks.len()
            ),
        ));
    }
    Ok(picks)
}

/// Rows taken of each source.
struct Caps<'a> {
    sources: Option<(&'a [u32], usize)>,
    taken: Vec<usize>,
}

impl<'a> Caps<'a> {
    fn new(sources: Option<(&'a [u32], usize)>) -> Self {
        let count = sources.map_or(0, |(s, _)| s.iter().max().map_or(0, |m| *m as usize + 1));
        Caps {
            sources,
            taken: vec![0; count],
        }
    }

    fn full(&self, row: usize) -> bool {
        self.sources
            .is_some_and(|(sources, cap)| self.taken[sources[row] as usize] >= cap)
    }

    /// Counts the row, unless its source is full.
    fn take(&mut self, row: usize) -> bool {
        if self.full(row) {
            return false;
        }
        if let Some((sources, _)) = self.sources {
            self.taken[sources[row] as usize] += 1;
        }
        true
    }
}

/// Steps 1 to 4: lists with what they took; `None` if a list that is not `whole` runs out.
fn turns(lists: &[Vec<Scored>], whole: bool, picking: &Picking) -> Option<Vec<(usize, Scored)>> {
    let mut next = vec![0usize; lists.len()];
    let mut taken = std::collections::HashSet::with_capacity(picking.rows);
    let mut caps = Caps::new(picking.cap);
    let mut picks = Vec::with_capacity(picking.rows);
    while picks.len() < picking.rows {
        let mut popped = false;
        for (list, rows) in lists.iter().enumerate() {
            loop {
                let Some(scored) = rows.get(next[list]) else {
                    if !whole {
                        return None;
                    }
                    break;
                };
                next[list] += 1;
                popped = true;
                if taken.contains(&scored.row) {
                    if picking.retry {
                        continue;
                    }
                    break;
                }
                if !caps.take(scored.row as usize) {
                    continue;
                }
                taken.insert(scored.row);
                picks.push((list, *scored));
                break;
            }
            if picks.len() == picking.rows {
                break;
            }
        }
        if !popped {
            break;
        }
    }
    Some(picks)
}

#[cfg(test)]
mod tests {
    use super::super::scores::tests::Matrix;
    use super::*;
    use ndarray::{Array2, array};
    use proptest::prelude::*;

    fn picking(rows: usize) -> Picking<'static> {
        Picking {
            rows,
            aggregate: Aggregate::RoundRobin,
            retry: false,
            allowed: None,
            cap: None,
        }
    }

    fn rows(picks: &[Pick]) -> Vec<usize> {
        picks.iter().map(|p| p.row).collect()
    }

    /// Three queries, lists: 0 1 2 3 4, 0 2 1 3 4, 1 0 4 3 2.
    fn three() -> Matrix {
        Matrix(array![
            [0.9, 0.8, 0.7, 0.6, 0.5],
            [0.9, 0.7, 0.8, 0.6, 0.5],
            [0.8, 0.9, 0.5, 0.6, 0.7],
        ])
    }

    #[test]
    fn a_taken_row_loses_the_turn_and_retry_finds_the_next() {
        let m = three();
        // Round 1: 0, lost (0), 1. Round 2: lost (1), 2, lost (0). Round 3: lost (2), lost (1), 4.
        let picks = select_round_robin(&m, &[0; 3], &picking(4)).unwrap();
        assert_eq!(rows(&picks), [0, 1, 2, 4]);
        let queries: Vec<Option<usize>> = picks.iter().map(|p| p.query).collect();
        assert_eq!(queries, [Some(0), Some(2), Some(1), Some(2)]);
        assert_eq!(picks[2].score, f64::from(0.8f32));
        // With retry: 0, then 2 (0 is taken), then 1; 3, ...
        let retry = Picking {
            retry: true,
            ..picking(4)
        };
        let picks = select_round_robin(&m, &[0; 3], &retry).unwrap();
        assert_eq!(rows(&picks), [0, 2, 1, 3]);
    }

    #[test]
    fn tasks_take_turns_by_their_best_scores() {
        // Task 0 has queries 0 and 1, best scores .9 .8 .8 .6 .5; task 1 has query 2.
        let picks = select_round_robin(&three(), &[0, 0, 1], &picking(4)).unwrap();
        // 0, 1; lost (1), lost (0); 2, 4.
        assert_eq!(rows(&picks), [0, 1, 2, 4]);
        assert_eq!((picks[3].query, picks[3].task), (Some(2), Some(1)));
        assert_eq!((picks[0].query, picks[0].task), (None, Some(0)));
    }

    #[test]
    fn a_full_source_does_not_cost_the_turn() {
        let m = three();
        let capped = Picking {
            cap: Some((&[7, 7, 7, 1, 1], 1)),
            ..picking(2)
        };
        // Query 0 takes 0; its source is full: query 1 pops 0 (taken, lost), query 2 pops 1 (full), 0 (taken, lost);
        // then query 0 pops 1, 2 (full) and takes 3.
        let picks = select_round_robin(&m, &[0; 3], &capped).unwrap();
        assert_eq!(rows(&picks), [0, 3]);
        let text = select_round_robin(&m, &[0; 3], &Picking { rows: 3, ..capped })
            .unwrap_err()
            .to_string();
        assert!(text.contains("3 were asked for, and 2 are left"), "{text}");
    }

    #[test]
    fn lists_that_run_out_are_passed_over_and_none_is_an_error() {
        let m = three();
        let picks = select_round_robin(&m, &[0; 3], &picking(5)).unwrap();
        let mut all = rows(&picks);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
        let allowed = [false, true, true, true, true];
        let some = Picking {
            allowed: Some(&allowed),
            ..picking(4)
        };
        assert!(!rows(&select_round_robin(&m, &[0; 3], &some).unwrap()).contains(&0));
        assert!(select_round_robin(&m, &[0; 3], &Picking { rows: 5, ..some }).is_err());
        let none = Matrix(Array2::zeros((0, 5)));
        let text = select_round_robin(&none, &[], &picking(1))
            .unwrap_err()
            .to_string();
        assert!(text.contains("no query rows"), "{text}");
    }

    #[test]
    fn an_order_passes_over_what_may_not_be_picked() {
        let order = [3, 0, 2, 1].map(|r| (r, -(r as f64)));
        let allowed = [true, true, true, false];
        let some = Picking {
            allowed: Some(&allowed),
            cap: Some((&[0, 1, 0, 1], 1)),
            ..picking(2)
        };
        let picks = select_in_order(order, &some).unwrap();
        assert_eq!(rows(&picks), [0, 1]);
        assert_eq!(picks[1].score, -1.0);
        assert!(select_in_order(order, &Picking { rows: 3, ..some }).is_err());
    }

    /// The script's loop on whole sorted lists.
    fn plain(scores: &Array2<f32>, k: usize) -> Vec<usize> {
        let (q, n) = scores.dim();
        let mut lists: Vec<Vec<usize>> = (0..q)
            .map(|i| {
                let mut list: Vec<usize> = (0..n).collect();
                list.sort_by(|&a, &b| scores[[i, b]].total_cmp(&scores[[i, a]]).then(a.cmp(&b)));
                list.reverse();
                list
            })
            .collect();
        let mut picked = Vec::new();
        while picked.len() < k {
            for list in &mut lists {
                if picked.len() < k
                    && let Some(row) = list.pop()
                    && !picked.contains(&row)
                {
                    picked.push(row);
                }
            }
        }
        picked
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn short_lists_pick_what_whole_lists_pick(
            (q, n) in (1usize..5, 1usize..400),
            levels in 1u32..40,
            share in 0.0f64..1.0,
            seed in 0u32..1000,
        ) {
            // Few levels make many ties; all queries alike lose nearly all turns, so that lists must be made longer.
            let score = |i: usize, j: usize| {
                let alike = if seed % 2 == 0 { 0 } else { i };
                ((alike as u32 * 7919 + j as u32 * 104_729 + seed) % 1009 % levels) as f32
            };
            let scores = Array2::from_shape_fn((q, n), |(i, j)| score(i, j));
            let k = ((n as f64 * share) as usize).max(1);
            let want = plain(&scores, k);
            let picks = select_round_robin(&Matrix(scores), &vec![0; q], &picking(k)).unwrap();
            prop_assert_eq!(rows(&picks), want);
        }
    }
}
