//! What methods see: the pool and the queries; and what they give: scores for queries, or one order.

use super::index::RdsIndex;
use super::lm::{Lm, Plan};
use super::rows::{Part, Row};
use super::scores::Scores;
use super::tokens::{Cut, Encoded, Tokens, Vocabulary};
use ndarray::Array2;
use papertrial_core::data::Table;
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};

/// The rows to choose from.
pub struct Pool<'a> {
    /// Number of rows.
    pub count: usize,
    /// Their text; empty where the method reads none.
    pub rows: Vec<Row>,
    /// Number of each row's source; `None` where the rows have none.
    pub sources: Option<Vec<u32>>,
    /// Their embeddings, where the method compares those.
    pub vectors: Option<Vectors<'a>>,
    /// Which part of a row is read.
    pub part: Part,
    /// How the language model is made.
    pub reading: Reading,
}

/// How the language model reads and learns.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// What a token is.
    pub tokens: Tokens,
    /// Most tokens in the vocabulary.
    pub vocabulary: usize,
    /// Tokens after which a row is cut.
    pub longest: usize,
    /// Sizes and training.
    pub plan: Plan,
}

/// Embeddings of the pool.
pub enum Vectors<'a> {
    /// In a column of a table, read anew for every run over the pool.
    Table {
        /// The table.
        table: &'a Table,
        /// Its column.
        column: usize,
    },
    /// In memory.
    Index(RdsIndex),
}

/// A few rows of what is wanted, in the order in which they take turns.
#[derive(Debug, Clone, Default)]
pub struct Queries {
    /// Their text; empty where the method reads none.
    pub rows: Vec<Row>,
    /// Their identifiers.
    pub ids: Vec<String>,
    /// Task of each, from 0 without a gap.
    pub tasks: Vec<usize>,
    /// Names of the tasks.
    pub names: Vec<String>,
    /// \[queries, d\], each of length 1, where embeddings are compared.
    pub vectors: Option<Array2<f32>>,
}

/// What a method must be given of each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// The text.
    Text,
    /// An embedding.
    Vectors,
    /// The source.
    Sources,
    /// Nothing.
    Nothing,
}

/// A method of this task.
pub trait Selector: Send + Sync {
    /// What it must be given of each row.
    fn reads(&self) -> Reads {
        Reads::Text
    }

    /// Does what needs no query, once for all tasks: trains models, embeds the pool.
    ///
    /// # Errors
    /// Options that do not fit the pool, or a computation that failed.
    fn fit<'a>(&self, pool: &'a Pool, context: &Context) -> Result<Box<dyn Fitted + 'a>>;
}

/// A method that knows the pool.
pub trait Fitted {
    /// Ranks the pool for `queries`.
    ///
    /// # Errors
    /// A computation that failed.
    fn rank<'q>(&'q self, queries: &'q Queries, context: &Context) -> Result<Ranking<'q>>;

    /// The embeddings that it compares, of the pool and of `queries`, if it makes any.
    ///
    /// # Errors
    /// A computation that failed.
    fn states(&self, _queries: &Queries, _context: &Context) -> Result<Option<States<'_>>> {
        Ok(None)
    }

    /// Remarks for the reader.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Operations of models spent so far: training, and passes over the pool.
    fn operations(&self) -> f64 {
        0.0
    }
}

/// Embeddings that a method made.
pub struct States<'a> {
    /// Of the pool.
    pub pool: &'a RdsIndex,
    /// Of the queries.
    pub queries: RdsIndex,
}

/// How the rows of the pool stand.
pub enum Ranking<'q> {
    /// Each query has scores.
    ByQuery(Box<dyn Scores + 'q>),
    /// One order, best first, whatever the queries: rows with scores. Rows that are left out are never picked.
    Order(Vec<(usize, f64)>),
}

/// The pool as a language model reads it, and the model.
pub struct Read {
    /// Its vocabulary.
    pub vocabulary: Vocabulary,
    /// The rows.
    pub rows: Vec<Encoded>,
    /// The model, trained on them.
    pub lm: Lm,
}

impl Read {
    /// Reads the pool and trains a model on it.
    ///
    /// # Errors
    /// Options that do not fit, or training that failed.
    pub fn pool(pool: &Pool, context: &Context) -> Result<Read> {
        let reading = &pool.reading;
        let vocabulary = Vocabulary::of(
            &pool.rows,
            reading.tokens,
            reading.vocabulary,
            reading.longest,
        );
        let rows = vocabulary.encode_all(&pool.rows, pool.part);
        let lm = Lm::train(&rows, &vocabulary, &reading.plan, context)?;
        Ok(Read {
            vocabulary,
            rows,
            lm,
        })
    }

    /// The queries as the model reads them.
    ///
    /// # Errors
    /// A query without a token.
    pub fn queries(&self, queries: &Queries, part: Part) -> Result<Vec<Encoded>> {
        let rows = self.vocabulary.encode_all(&queries.rows, part);
        match rows.iter().position(|r| r.tokens.len() < 2) {
            None => Ok(rows),
            Some(i) => Err(Error::BadInput(format!(
                "query {} has no token to read in this part of the row",
                queries.ids[i]
            ))),
        }
    }

    /// A warning, if rows were cut.
    pub fn notes(&self) -> Vec<String> {
        let cut = Cut::of(&self.rows);
        cut.note(self.vocabulary.longest()).into_iter().collect()
    }

    /// Operations of training and of `passes` passes over the pool.
    pub fn operations(&self, passes: usize) -> f64 {
        self.lm.training_operations + passes as f64 * self.lm.pass_operations(&self.rows)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::lm::tests::{sentences, tiny};
    use super::*;

    /// A pool of sentences of two kinds: even rows name colours, odd ones count.
    pub fn pool(n: usize, steps: usize) -> Pool<'static> {
        Pool {
            count: n,
            rows: sentences(n),
            sources: None,
            vectors: None,
            part: Part::All,
            reading: Reading {
                tokens: Tokens::Words,
                vocabulary: 64,
                longest: 16,
                plan: tiny(steps, 0),
            },
        }
    }

    pub fn queries(texts: &[&str]) -> Queries {
        Queries {
            rows: texts.iter().map(|t| Row::plain(t)).collect(),
            ids: (1..=texts.len()).map(|i| i.to_string()).collect(),
            tasks: vec![0; texts.len()],
            names: vec!["query".into()],
            vectors: None,
        }
    }

    /// The best `k` rows of a method for queries that take turns.
    pub fn best(method: &dyn Selector, pool: &Pool, queries: &Queries, k: usize) -> Vec<usize> {
        use super::super::scores::Aggregate;
        use super::super::turns::{Picking, select_in_order, select_round_robin};
        let context = Context::with_seed(0);
        let fitted = method.fit(pool, &context).unwrap();
        let picking = Picking {
            rows: k,
            aggregate: Aggregate::RoundRobin,
            retry: false,
            allowed: None,
            cap: None,
        };
        let picks = match fitted.rank(queries, &context).unwrap() {
            Ranking::ByQuery(scores) => select_round_robin(&*scores, &queries.tasks, &picking),
            Ranking::Order(order) => select_in_order(order, &picking),
        };
        picks.unwrap().iter().map(|p| p.row).collect()
    }
}
