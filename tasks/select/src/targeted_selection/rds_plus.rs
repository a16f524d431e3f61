//! RDS+: representation-based data selection with position-weighted states. Ivison, Zhang, Brahman, Koh and Dasigi,
//! *Large-Scale Data Selection for Instruction Tuning*, 2025, arXiv 2503.01807; and its two plainer forms.
//!
//! A causal language model's last token has seen the whole row, its first ones nothing; so later states count more.
//!
//! 1. Each row is written out (`rows.rs`) and read by the untuned model: states H \[L, d\] after the last layer, for all
//!    tokens, of prompt and answer, cut after so many.
//! 2. Its embedding is sum_i w_i H_i with w_i = i / (1 + ... + L), i = 1..L, L the row's own length; scaled to length 1.
//!    Plainer forms: the last token's state (RDS), and the plain mean.
//! 3. The pool's embeddings are an index (`index.rs`), made once for all tasks; a row's score for a query is the cosine.
//! 4. Queries, or tasks, take turns in picking (`turns.rs`).
//!
//! Here the model is a small one trained on the pool itself (`lm.rs`), where the paper has Llama 2 with 7 billion
//! parameters; embeddings of a larger model come in through the method `embeddings`.
//!
//! Checked against the authors' repository (hamishivi/automated-instruction-selection, no licence stated; read for facts):
//! weights start at 1, a turn whose row is taken is lost, a full source does not cost the turn.
//!
//! Cost: one pass of the model over the pool, 2 x weights x tokens operations, then N Q d multiplications a task.

use super::index::RdsIndex;
use super::problem::{Fitted, Pool, Queries, Ranking, Read, Selector, States};
use super::rows::Part;
use ndarray::Array2;
use papertrial_core::Result;
use papertrial_core::task::{Context, Facts, Method};
use papertrial_nn::blocks::Pool as Pooling;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of RDS+.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RdsPlus {
    /// Block after which states are taken, from 1; the last one, normalised, if absent.
    #[schemars(range(min = 1))]
    pub layer: Option<usize>,
}

impl Method for RdsPlus {
    const FACTS: Facts = Facts {
        name: "rds-plus",
        about: "nearest rows by the position-weighted mean of a language model's states",
        paper: Some("rds-plus"),
        streams: false,
    };
}

impl Selector for RdsPlus {
    fn fit<'a>(&self, pool: &'a Pool, context: &Context) -> Result<Box<dyn Fitted + 'a>> {
        fit(pool, Pooling::WeightedMean, self.layer, context)
    }
}

/// Options of RDS: the last token's state.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct LastTokenStates {
    /// Block after which states are taken, from 1; the last one, normalised, if absent.
    #[schemars(range(min = 1))]
    pub layer: Option<usize>,
}

impl Method for LastTokenStates {
    const FACTS: Facts = Facts {
        name: "last-token-states",
        about: "nearest rows by the language model's state at the last token (RDS)",
        paper: None,
        streams: false,
    };
}

impl Selector for LastTokenStates {
    fn fit<'a>(&self, pool: &'a Pool, context: &Context) -> Result<Box<dyn Fitted + 'a>> {
        fit(pool, Pooling::Last, self.layer, context)
    }
}

/// Options of the plain mean.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct MeanStates {
    /// Block after which states are taken, from 1; the last one, normalised, if absent.
    #[schemars(range(min = 1))]
    pub layer: Option<usize>,
}

impl Method for MeanStates {
    const FACTS: Facts = Facts {
        name: "mean-states",
        about: "nearest rows by the plain mean of a language model's states",
        paper: None,
        streams: false,
    };
}

impl Selector for MeanStates {
    fn fit<'a>(&self, pool: &'a Pool, context: &Context) -> Result<Box<dyn Fitted + 'a>> {
        fit(pool, Pooling::Mean, self.layer, context)
    }
}

/// The model and its index of the pool.
struct Indexed {
    read: Read,
    index: RdsIndex,
    pooling: Pooling,
    layer: Option<usize>,
    part: Part,
}

/// Rows that are embedded before they go into the index.
const PART: usize = 16_384;

fn fit<'a>(
    pool: &'a Pool,
    pooling: Pooling,
    layer: Option<usize>,
    context: &Context,
) -> Result<Box<dyn Fitted + 'a>> {
    let read = Read::pool(pool, context)?;
    // Steps 1 to 3.
    let blocks = read.rows.chunks(PART);
    let index = RdsIndex::build(blocks.map(|rows| read.lm.pooled(rows, pooling, layer, context)))?;
    Ok(Box::new(Indexed {
        read,
        index,
        pooling,
        layer,
        part: pool.part,
    }))
}

impl Indexed {
    fn embedded(&self, queries: &Queries, context: &Context) -> Result<Array2<f32>> {
        let rows = self.read.queries(queries, self.part)?;
        let lm = &self.read.lm;
        lm.pooled(&rows, self.pooling, self.layer, context)
    }
}

impl Fitted for Indexed {
    fn rank<'q>(&'q self, queries: &'q Queries, context: &Context) -> Result<Ranking<'q>> {
        let states = self.embedded(queries, context)?;
        Ok(Ranking::ByQuery(Box::new(self.index.query(states.view())?)))
    }

    fn states(&self, queries: &Queries, context: &Context) -> Result<Option<States<'_>>> {
        Ok(Some(States {
            pool: &self.index,
            queries: RdsIndex::build([self.embedded(queries, context)])?,
        }))
    }

    fn notes(&self) -> Vec<String> {
        self.read.notes()
    }

    fn operations(&self) -> f64 {
        self.read.operations(1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::tests::{best, pool, queries};
    use super::*;

    #[test]
    fn rows_of_the_query_s_kind_come_first() {
        let pool = pool(80, 60);
        let count = queries(&["two three one", "three one two"]);
        for method in [
            &RdsPlus::default() as &dyn Selector,
            &MeanStates::default(),
            &LastTokenStates::default(),
        ] {
            let picked = best(method, &pool, &count, 20);
            let right = picked.iter().filter(|r| *r % 2 == 1).count();
            assert!(right >= 18, "{right}: {picked:?}");
        }
    }

    #[test]
    fn the_order_of_a_pool_and_a_missing_layer() {
        let pool = pool(20, 5);
        let all = best(
            &RdsPlus::default(),
            &pool,
            &queries(&["red blue green"]),
            20,
        );
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        let context = Context::with_seed(0);
        let wrong = RdsPlus { layer: Some(9) }.fit(&pool, &context);
        assert!(wrong.err().unwrap().to_string().contains("option layer"));
        let fitted = RdsPlus::default().fit(&pool, &context).unwrap();
        assert!(fitted.operations() > 0.0 && fitted.notes().is_empty());
        let blank = queries(&[" "]);
        let none = fitted.rank(&blank, &context);
        assert!(
            none.err()
                .unwrap()
                .to_string()
                .contains("query 1 has no token")
        );
    }
}
