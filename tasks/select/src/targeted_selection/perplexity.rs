//! Baselines that rank rows by how badly a language model predicts them, whatever the queries.
//!
//! - top-perplexity: the rows with the highest mean of -log p over their tokens.
//! - middle-perplexity: rows sorted by it, highest first, from a third of the way down.
//! - ifd: instruction-following difficulty (Li et al., *From Quantity to Quality*, 2023, arXiv 2308.12032): the loss of the
//!   answer after its prompt over the loss of the answer alone; the highest ratios below 1. A ratio of 1 or more means
//!   that the prompt does not help, so the two do not belong together.
//!
//! The model is the small one trained on the pool (`lm.rs`). Cost: its training and one pass over the pool (ifd: two).

use super::problem::{Fitted, Pool, Queries, Ranking, Read, Selector};
use super::rows::Part;
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the highest perplexity: none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TopPerplexity {}

impl Method for TopPerplexity {
    const FACTS: Facts = Facts {
        name: "top-perplexity",
        about: "rows that a language model predicts worst",
        paper: None,
        streams: false,
    };
}

impl Selector for TopPerplexity {
    fn fit<'a>(&self, pool: &'a Pool, context: &Context) -> Result<Box<dyn Fitted + 'a>> {
        ordered(pool, 0.0, context)
    }
}

/// Options of middling perplexity.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct MiddlePerplexity {
    /// Share of the rows, those of highest perplexity, that are passed over.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub start: f64,
}

impl Default for MiddlePerplexity {
    fn default() -> Self {
        MiddlePerplexity { start: 0.33 }
    }
}

impl Method for MiddlePerplexity {
    const FACTS: Facts = Facts {
        name: "middle-perplexity",
        about: "rows that a language model predicts neither worst nor best",
        paper: None,
        streams: false,
    };
}

impl Selector for MiddlePerplexity {
    fn fit<'a>(&self, pool: &'a Pool, context: &Context) -> Result<Box<dyn Fitted + 'a>> {
        ordered(pool, self.start, context)
    }
}

/// Options of instruction-following difficulty: none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ifd {}

impl Method for Ifd {
    const FACTS: Facts = Facts {
        name: "ifd",
        about: "rows whose answer stays hard after its prompt, by a language model's losses (IFD)",
        paper: None,
        streams: false,
    };
}

impl Selector for Ifd {
    fn fit<'a>(&self, pool: &'a Pool, context: &Context) -> Result<Box<dyn Fitted + 'a>> {
        let read = Read::pool(pool, context)?;
        let alone = read.vocabulary.encode_all(&pool.rows, Part::Response);
        if let Some(i) = alone.iter().position(|r| r.answers.is_empty()) {
            return Err(Error::BadInput(format!(
                "row {} has no answer; ifd needs prompts with responses, or chats in which the assistant answers",
                i + 1
            )));
        }
        let after = read.vocabulary.encode_all(&pool.rows, Part::All);
        let with = read.lm.losses(&after, context)?;
        let without = read.lm.losses(&alone, context)?;
        let ratios: Vec<(usize, f64)> = with
            .iter()
            .zip(&without)
            .enumerate()
            .filter_map(|(row, (with, without))| {
                // Cut before its answer: there is nothing to compare.
                let ratio = with.answer? / without.answer?;
                (ratio < 1.0).then_some((row, ratio))
            })
            .collect();
        let mut notes = read.notes();
        if ratios.len() < pool.count {
            notes.push(format!(
                "{} of {} rows were left out: their prompt does not help, or their answer was cut off",
                pool.count - ratios.len(),
                pool.count
            ));
        }
        Ok(Box::new(Order {
            operations: read.operations(2),
            order: sorted(ratios),
            notes,
        }))
    }
}

/// One order for all queries.
struct Order {
    order: Vec<(usize, f64)>,
    notes: Vec<String>,
    operations: f64,
}

impl Fitted for Order {
    fn rank<'q>(&'q self, _queries: &'q Queries, _context: &Context) -> Result<Ranking<'q>> {
        Ok(Ranking::Order(self.order.clone()))
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn operations(&self) -> f64 {
        self.operations
    }
}

fn ordered<'a>(pool: &'a Pool, start: f64, context: &Context) -> Result<Box<dyn Fitted + 'a>> {
    let read = Read::pool(pool, context)?;
    let losses = read.lm.losses(&read.rows, context)?;
    let mut order = sorted(losses.iter().map(|l| l.all).enumerate().collect());
    order.drain(..((order.len() as f64 * start) as usize).min(order.len()));
    Ok(Box::new(Order {
        order,
        notes: read.notes(),
        operations: read.operations(1),
    }))
}

/// Highest first; of equals the lower row.
fn sorted(mut rows: Vec<(usize, f64)>) -> Vec<(usize, f64)> {
    rows.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    rows
}

#[cfg(test)]
mod tests {
    use super::super::problem::tests::{best, pool, queries};
    use super::super::rows::Row;
    use super::*;

    #[test]
    fn a_row_unlike_all_others_has_the_highest_perplexity() {
        let mut pool = pool(60, 60);
        pool.rows[17] = Row::plain("green two green three");
        let none = queries(&["red"]);
        assert_eq!(best(&TopPerplexity::default(), &pool, &none, 1), [17]);
        let top = best(&TopPerplexity::default(), &pool, &none, 60);
        let middle = best(&MiddlePerplexity::default(), &pool, &none, 41);
        // 33 % of 60 is 19.8: the first 19 are passed over.
        assert_eq!(middle, top[19..]);
    }

    #[test]
    fn answers_that_their_prompt_foretells_have_low_difficulty() {
        // The prompt names the answer in most rows; in every fifth it does not matter which it names.
        let words = ["red", "blue", "green", "white"];
        let mut pool = pool(120, 150);
        pool.rows = (0..120)
            .map(|i| {
                let prompt = if i % 5 == 0 { "any" } else { words[i % 4] };
                Row::pair(prompt, words[i % 4])
            })
            .collect();
        let context = Context::with_seed(0);
        let fitted = Ifd::default().fit(&pool, &context).unwrap();
        let Ranking::Order(order) = fitted.rank(&queries(&["red"]), &context).unwrap() else {
            panic!("ifd gives one order");
        };
        assert!(order.iter().all(|(_, ratio)| *ratio < 1.0));
        assert!(order.windows(2).all(|w| w[0].1 >= w[1].1));
        let told: Vec<usize> = order.iter().map(|o| o.0).filter(|r| r % 5 != 0).collect();
        assert!(told.len() > 80, "{}", told.len());
        // Every row that is still hard is one whose prompt says nothing.
        let worst = order.iter().find(|(row, _)| row % 5 != 0).unwrap().1;
        assert!(worst < 0.5, "{worst}");
    }

    #[test]
    fn rows_without_answers_are_told() {
        let pool = pool(4, 1);
        let e = Ifd::default()
            .fit(&pool, &Context::with_seed(0))
            .err()
            .unwrap();
        assert!(e.to_string().contains("row 1 has no answer"), "{e}");
    }
}
