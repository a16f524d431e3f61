//! Region queries: J. Du and C. X. Ling, *Active learning with generalized queries*, ICDM 2009, and *Asking generalized
//! queries to domain experts to improve learning*, TKDE 2010.
//!
//! 1. Start from the most uncertain row without a label of any kind; the region is the box of all its columns, 1 standard
//!    deviation wide each.
//! 2. Drop columns one by one, the one of the smallest weights in the classifier first, as long as the mean entropy that is
//!    predicted for the rows in the region stays within 0.1 of the row's own.
//! 3. Ask for the shares of the classes in the region. They are spread to its rows without a label (`spread`).
//!
//! How columns are dropped is described only in outline; the order, the box and the 0.1 are choices. The annotator is the
//! one of the most reliability for his fee. Cost O(n d) for each row asked for.

use super::log::{Bound, Query, Question};
use super::state::State;
use super::strategy::{
    Axes, EXHAUSTED, Interaction, Payment, Proposal, Reliability, Strategy, Uncertainty, best,
    best_value, reliabilities,
};
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of region queries.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RegionQuery {
    /// Half the width of the region in each column, in standard deviations.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub reach: f64,
    /// Entropy, in nats, by which the mean of the region may differ from that of its row.
    #[schemars(range(min = 0.0))]
    pub tolerance: f64,
}

impl Default for RegionQuery {
    fn default() -> Self {
        RegionQuery {
            reach: 0.5,
            tolerance: 0.1,
        }
    }
}

impl Method for RegionQuery {
    const FACTS: Facts = Facts {
        name: "region-query",
        about: "ask for the shares of the classes in a region around the most uncertain row",
        paper: Some("real-world-al"),
        streams: false,
    };
}

impl Strategy for RegionQuery {
    fn axes(&self) -> Axes {
        Axes {
            payment: Payment::AnnotatorAndRow,
            interaction: Interaction::RegionShares,
            reliability: Reliability::Uniform,
            ..Axes::PLAIN
        }
    }

    fn propose(&self, state: &State) -> Result<Proposal> {
        let pool = state.pool;
        // 1. Rows of regions that were asked about have had their turn, whatever came back.
        let mut had = vec![false; pool.rows()];
        state.learned.iter().for_each(|&row| had[row] = true);
        let regions = state.log.iter().map(|a| &a.query);
        for query in regions.chain(state.pending.iter().map(|q| &q.query)) {
            if let Query::Region(bounds) = query {
                for row in Query::matching(bounds, pool) {
                    had[row] = true;
                }
            }
        }
        let rows: Vec<usize> = (0..pool.rows()).filter(|&row| !had[row]).collect();
        let scores = Uncertainty::Entropy.of(state, &rows);
        let who: Vec<usize> = (0..pool.annotators.len())
            .filter(|&a| state.affordable(pool.annotators[a].fee))
            .collect();
        let annotator = best_value(&who, &reliabilities(state), |a| pool.annotators[a].fee);
        let (Some(i), Some(annotator)) = (best(&scores), annotator) else {
            return Ok(EXHAUSTED);
        };
        Ok(Proposal::Ask(vec![Question {
            query: Query::Region(self.around(state, rows[i], scores[i])),
            annotator,
            score: scores[i],
            fee: pool.annotators[annotator].fee,
        }]))
    }
}

impl RegionQuery {
    /// The region around a row of this entropy, in the units of the data.
    fn around(&self, state: &State, row: usize, entropy: f64) -> Vec<Bound> {
        let pool = state.pool;
        let (n, d) = pool.x.dim();
        let entropies: Vec<f64> = state
            .probabilities
            .outer_iter()
            .map(|p| Uncertainty::Entropy.of_probabilities(p))
            .collect();
        let weights: Vec<f64> = state
            .model
            .slopes()
            .outer_iter()
            .map(|w| w.iter().map(|v| v.abs()).sum())
            .collect();
        let mut order: Vec<usize> = (0..d).collect();
        order.sort_by(|&a, &b| weights[a].total_cmp(&weights[b]).then(a.cmp(&b)));
        // Columns in which each row lies outside, so that dropping one takes O(n).
        let outside = |i: usize, c: usize| (pool.x[[i, c]] - pool.x[[row, c]]).abs() > self.reach;
        let mut missed: Vec<usize> = (0..n)
            .map(|i| (0..d).filter(|&c| outside(i, c)).count())
            .collect();
        let mut kept: Vec<usize> = order.clone();
        // 2. One column stays: a region without bounds is the whole pool.
        for &c in &order[..d - 1] {
            let inside = |i: usize| missed[i] - usize::from(outside(i, c)) == 0;
            let (mut sum, mut count) = (0.0, 0.0);
            for i in (0..n).filter(|&i| inside(i)) {
                sum += entropies[i];
                count += 1.0;
            }
            if (sum / count - entropy).abs() > self.tolerance {
                break;
            }
            for (i, missed) in missed.iter_mut().enumerate() {
                *missed -= usize::from(outside(i, c));
            }
            kept.retain(|&k| k != c);
        }
        kept.sort_unstable();
        kept.into_iter()
            .map(|column| {
                let of = |v: f64| v * pool.deviations[column] + pool.means[column];
                let x = pool.x[[row, column]];
                Bound {
                    column,
                    low: of(x - self.reach),
                    high: of(x + self.reach),
                }
            })
            .collect()
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
    fn the_idle_column_is_dropped_and_the_region_is_not_asked_about_again() {
        let (pool, truth) = halves(80, &[1.0], 0);
        let setting = Setting {
            first: 20,
            ..Setting::default()
        };
        let mut log = start(&pool, &truth, &setting);
        let state = State::new(&pool, &log, &setting).unwrap();
        let wide = RegionQuery {
            tolerance: 0.3,
            ..RegionQuery::default()
        };
        let Proposal::Ask(found) = wide.propose(&state).unwrap() else {
            panic!("a question was expected");
        };
        let Query::Region(bounds) = &found[0].query else {
            panic!("a region was expected");
        };
        assert_eq!(bounds.iter().map(|b| b.column).collect::<Vec<_>>(), [0]);
        let inside = Query::matching(bounds, &pool);
        assert!(!inside.is_empty());
        log.push(Answer {
            step: 1,
            query: found[0].query.clone(),
            annotator: 0,
            reply: Reply::Shares(vec![0.9, 0.1]),
            fee: 1.0,
            seconds: None,
        });
        let state = State::new(&pool, &log, &setting).unwrap();
        assert!(inside.iter().all(|row| state.learned.contains(row)));
        let Proposal::Ask(next) = wide.propose(&state).unwrap() else {
            panic!("a question was expected");
        };
        let Query::Region(other) = &next[0].query else {
            panic!("a region was expected");
        };
        assert_ne!(other, bounds);
    }

    #[test]
    fn without_tolerance_all_columns_stay() {
        let (pool, truth) = halves(80, &[1.0], 0);
        let setting = Setting::default();
        let log = start(&pool, &truth, &setting);
        let state = State::new(&pool, &log, &setting).unwrap();
        let strict = RegionQuery {
            tolerance: 0.0,
            reach: 1.0,
        };
        let Proposal::Ask(found) = strict.propose(&state).unwrap() else {
            panic!("a question was expected");
        };
        assert!(matches!(&found[0].query, Query::Region(bounds) if bounds.len() == 2));
    }
}
