//! Embeddings that another model made, with the same selection: sentence encoders, or states of a large model.
//!
//! The pool's embeddings stand in a column of the table (lists of numbers in Parquet or Arrow, or the rows of a .npy
//! matrix), or in a table of their own. They are read once for every run over the pool and never held: memory is that of
//! a batch, the queries, and the best rows of each list.

use super::index::{TableCosines, same_width};
use super::problem::{Fitted, Pool, Queries, Ranking, Reads, Selector, Vectors};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of embeddings that are given: none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Embeddings {}

impl Method for Embeddings {
    const FACTS: Facts = Facts {
        name: "embeddings",
        about: "nearest rows by embeddings that are given",
        paper: None,
        streams: true,
    };
}

impl Selector for Embeddings {
    fn reads(&self) -> Reads {
        Reads::Vectors
    }

    fn fit<'a>(&self, pool: &'a Pool, _context: &Context) -> Result<Box<dyn Fitted + 'a>> {
        let vectors = pool
            .vectors
            .as_ref()
            .ok_or_else(|| Error::option("vectors", "name the column of embeddings of the pool"))?;
        Ok(Box::new(Given(vectors)))
    }
}

struct Given<'a>(&'a Vectors<'a>);

impl Fitted for Given<'_> {
    fn rank<'q>(&'q self, queries: &'q Queries, _context: &Context) -> Result<Ranking<'q>> {
        let asked = queries
            .vectors
            .as_ref()
            .ok_or_else(|| Error::option("vectors", "the queries have no column of embeddings"))?;
        Ok(Ranking::ByQuery(match self.0 {
            Vectors::Index(index) => {
                same_width(index.width(), asked.ncols())?;
                Box::new(index.query(asked.view())?)
            }
            Vectors::Table { table, column } => Box::new(TableCosines {
                table,
                column: *column,
                queries: asked,
            }),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::index::RdsIndex;
    use super::super::problem::tests::{best, pool, queries};
    use super::*;
    use ndarray::array;

    #[test]
    fn nearest_rows_come_first_and_other_widths_are_told() {
        let mut pool = pool(4, 1);
        let rows = array![[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [-1.0, 0.1]];
        pool.vectors = Some(Vectors::Index(RdsIndex::build([Ok(rows)]).unwrap()));
        let mut one = queries(&["x"]);
        one.vectors = Some(array![[0.0, 1.0]]);
        assert_eq!(best(&Embeddings::default(), &pool, &one, 4), [2, 1, 3, 0]);
        let context = Context::with_seed(0);
        one.vectors = Some(array![[0.0, 1.0, 0.0]]);
        let fitted = Embeddings::default().fit(&pool, &context).unwrap();
        let e = fitted.rank(&one, &context).err().unwrap();
        assert!(e.to_string().contains("of 2 and of 3"), "{e}");
        one.vectors = None;
        assert!(fitted.rank(&one, &context).is_err());
        drop(fitted);
        pool.vectors = None;
        assert!(Embeddings::default().fit(&pool, &context).is_err());
    }
}
