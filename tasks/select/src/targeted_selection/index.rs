//! An index of embeddings: built once, asked by every task.
//!
//! 1. Each row's embedding is scaled to length 1 and kept in half precision: N x d numbers of two bytes.
//! 2. A query's scores are its cosines: blocks of 2,048 rows are widened to single precision and multiplied with all
//!    queries, \[Q, d\] x \[d, rows\].
//!
//! Cost of a query: N Q d multiplications; memory beside the index: a few blocks.

use super::scores::{Block, Scores, See, visit_in_blocks};
use super::vectors;
use arrow::array::{ArrayRef, FixedSizeListArray, Float16Array};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Float16Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use ndarray::{Array2, ArrayView2, Axis};
use papertrial_core::data::Table;
use papertrial_core::{Error, Result};
use papertrial_numerics::linalg::matmul_into_single;
use rayon::prelude::*;
use std::sync::Arc;

/// Half precision.
type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// Rows of a block of scores.
const ROWS: usize = 2048;

/// Embeddings of length 1 in half precision.
#[derive(Debug, Clone, Default)]
pub struct RdsIndex {
    width: usize,
    values: Vec<Half>,
}

impl RdsIndex {
    /// Builds the index from blocks of embeddings \[rows, d\], in the order of the rows.
    ///
    /// # Errors
    /// A block cannot be had or has another width, or a row has no direction (zeros, NaN, infinity): its number, from 1.
    pub fn build(blocks: impl IntoIterator<Item = Result<Array2<f32>>>) -> Result<Self> {
        let mut index = RdsIndex::default();
        for block in blocks {
            index.push(block?)?;
        }
        Ok(index)
    }

    /// Adds rows.
    ///
    /// # Errors
    /// As [`RdsIndex::build`].
    pub fn push(&mut self, mut rows: Array2<f32>) -> Result<()> {
        if self.values.is_empty() {
            self.width = rows.ncols();
        } else {
            same_width(self.width, rows.ncols())?;
        }
        vectors::normalise(&mut rows, self.rows()).map_err(|e| Error::Failed(e.problem()))?;
        self.values.extend(rows.iter().map(|v| Half::from_f32(*v)));
        Ok(())
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// Numbers of an embedding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The rows `first` to `first + n`, widened: \[n, d\].
    pub fn block(&self, first: usize, n: usize) -> Array2<f32> {
        let values = &self.values[first * self.width..(first + n) * self.width];
        let wide: Vec<f32> = values.iter().map(|v| v.to_f32()).collect();
        Array2::from_shape_vec((n, self.width), wide).unwrap_or_default()
    }

    /// Reads an index from a column of embeddings, such as [`RdsIndex::table`] writes.
    ///
    /// # Errors
    /// As [`RdsIndex::build`].
    pub fn read(table: &Table, column: usize) -> Result<Self> {
        let name = table.columns()[column].to_owned();
        let mut index = RdsIndex::default();
        for batch in table.batches()? {
            let (first, width) = (index.rows(), (index.width > 0).then_some(index.width));
            let rows = batch?.column(column).clone();
            index.push(vectors::block(table.name(), &name, &rows, width, first)?)?;
        }
        Ok(index)
    }

    /// The index as a table of one column, `vector`, of lists in half precision.
    ///
    /// # Errors
    /// Rows wider than a table can hold.
    pub fn table(&self) -> Result<RecordBatch> {
        let wrong = |e: ArrowError| Error::Failed(format!("the index makes no table: {e}"));
        let item = Arc::new(Field::new_list_field(DataType::Float16, false));
        let values = Arc::new(Float16Array::from(self.values.clone()));
        let width = i32::try_from(self.width)
            .map_err(|_| Error::Failed(format!("rows of {} numbers are too wide", self.width)))?;
        let list = FixedSizeListArray::try_new(item, width, values, None).map_err(wrong)?;
        RecordBatch::try_from_iter([("vector", Arc::new(list) as ArrayRef)]).map_err(wrong)
    }

    /// Scores of the rows for `queries` \[Q, d\], each of any length but 0.
    ///
    /// # Errors
    /// Another width, or a query without direction.
    pub fn query(&self, queries: ArrayView2<'_, f32>) -> Result<Cosines<'_>> {
        same_width(self.width, queries.ncols())?;
        let mut queries = queries.to_owned();
        vectors::normalise(&mut queries, 0)
            .map_err(|e| Error::BadInput(format!("queries: {}", e.problem())))?;
        Ok(Cosines {
            index: self,
            queries,
        })
    }
}

/// Checks that pool and queries have embeddings of one width.
///
/// # Errors
/// They do not.
pub fn same_width(pool: usize, queries: usize) -> Result<()> {
    if pool == queries {
        return Ok(());
    }
    Err(Error::BadInput(format!(
        "embeddings of {pool} and of {queries} numbers cannot be compared; pool and queries need the same model"
    )))
}

/// Cosines of an index's rows with queries.
pub struct Cosines<'a> {
    index: &'a RdsIndex,
    queries: Array2<f32>,
}

impl Scores for Cosines<'_> {
    fn rows(&self) -> usize {
        self.index.rows()
    }

    fn queries(&self) -> usize {
        self.queries.nrows()
    }

    fn visit(&self, see: &mut See) -> Result<()> {
        let score = |first, n| {
            Ok(product(
                self.queries.view(),
                self.index.block(first, n).view(),
            ))
        };
        visit_in_blocks(self.rows(), ROWS, score, see)
    }
}

/// queries x rows'.
fn product(queries: ArrayView2<'_, f32>, rows: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut scores = Array2::zeros((queries.nrows(), rows.nrows()));
    matmul_into_single(scores.view_mut(), 1.0, queries, rows.t(), 0.0);
    scores
}

/// Cosines of queries with the embeddings in a table, read anew each time and never held.
pub struct TableCosines<'a> {
    /// The table.
    pub table: &'a Table,
    /// Its column of embeddings.
    pub column: usize,
    /// \[Q, d\], each of length 1.
    pub queries: &'a Array2<f32>,
}

impl Scores for TableCosines<'_> {
    fn rows(&self) -> usize {
        self.table.rows() as usize
    }

    fn queries(&self) -> usize {
        self.queries.nrows()
    }

    fn visit(&self, see: &mut See) -> Result<()> {
        let name = self.table.columns()[self.column].to_owned();
        let mut first = 0;
        for batch in self.table.batches()? {
            let batch = batch?;
            let width = Some(self.queries.ncols());
            let rows = vectors::block(
                self.table.name(),
                &name,
                batch.column(self.column),
                width,
                first,
            )?;
            let parts: Vec<ArrayView2<f32>> = rows.axis_chunks_iter(Axis(0), ROWS).collect();
            let parts: Vec<Array2<f32>> = parts
                .into_par_iter()
                .map(|part| product(self.queries.view(), part))
                .collect();
            for scores in parts {
                let n = scores.ncols();
                see(&Block { first, scores })?;
                first += n;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::scores::{Aggregate, Lists};
    use super::*;
    use ndarray::array;

    #[test]
    fn cosines_by_hand_whatever_the_lengths() {
        let blocks = [Ok(array![[3.0, 4.0], [0.0, -7.0]]), Ok(array![[1e-3, 0.0]])];
        let index = RdsIndex::build(blocks).unwrap();
        assert_eq!((index.rows(), index.width()), (3, 2));
        let cosines = index.query(array![[0.0, 2.0], [5.0, 0.0]].view()).unwrap();
        let mut seen = Vec::new();
        cosines
            .visit(&mut |b| {
                seen.push(b.scores.clone());
                Ok(())
            })
            .unwrap();
        let want = array![[0.8, -1.0, 0.0], [0.6, 0.0, 1.0]];
        assert_eq!(seen.len(), 1);
        assert!(seen[0].iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-3));
    }

    #[test]
    fn an_index_comes_back_from_its_table() {
        let index = RdsIndex::build([Ok(array![[3.0, 4.0], [0.0, -7.0], [2.0, 2.0]])]).unwrap();
        let batch = index.table().unwrap();
        let table = Table::memory("t", vec![batch.slice(0, 1), batch.slice(1, 2)]);
        let back = RdsIndex::read(&table, 0).unwrap();
        assert_eq!((back.rows(), back.width()), (3, 2));
        let apart = back.block(0, 3) - index.block(0, 3);
        // Scaled again to length 1, and rounded again.
        assert!(apart.iter().all(|v| v.abs() < 1e-3), "{apart}");
    }

    #[test]
    fn rows_without_direction_and_other_widths_are_refused() {
        let text = RdsIndex::build([Ok(array![[1.0, 0.0]]), Ok(array![[2.0, 1.0], [0.0, 0.0]])])
            .unwrap_err()
            .to_string();
        assert!(text.contains("row 3"), "{text}");
        assert!(RdsIndex::build([Ok(array![[1.0]]), Ok(array![[1.0, 2.0]])]).is_err());
        assert!(RdsIndex::build([Ok(array![[f32::NAN]])]).is_err());
        let index = RdsIndex::build([Ok(array![[1.0, 0.0]])]).unwrap();
        assert!(index.query(array![[1.0]].view()).is_err());
        assert!(index.query(array![[0.0, 0.0]].view()).is_err());
    }

    #[test]
    fn a_table_that_is_read_gives_what_the_index_gives() {
        let (n, d) = (5000, 3);
        let value = |i: usize| ((i * 7919 % 1013) as f32 - 500.0) / 97.0;
        let halves: Vec<Half> = (0..n * d).map(|i| Half::from_f32(value(i))).collect();
        let field = Arc::new(Field::new_list_field(DataType::Float16, false));
        let values = Arc::new(Float16Array::from(halves.clone()));
        let list: ArrayRef =
            Arc::new(FixedSizeListArray::try_new(field, d as i32, values, None).unwrap());
        let whole = RecordBatch::try_from_iter([("v", list)]).unwrap();
        let table = Table::memory("t", vec![whole.slice(0, 2100), whole.slice(2100, n - 2100)]);
        let queries = vectors::all(&table, 0)
            .unwrap()
            .slice(ndarray::s![..4, ..])
            .to_owned();
        let streamed = TableCosines {
            table: &table,
            column: 0,
            queries: &queries,
        };
        let index = RdsIndex::build([vectors::all(&table, 0)]).unwrap();
        let held = index.query(queries.view()).unwrap();
        let best = |s: &dyn Scores| {
            let lists = Lists::new(s, &[0; 4], Aggregate::RoundRobin).unwrap();
            lists.best(40, None).unwrap()
        };
        for (a, b) in best(&streamed).iter().zip(best(&held)) {
            for (a, b) in a.iter().zip(&b) {
                assert!((a.score - b.score).abs() < 2e-3, "{a:?} {b:?}");
            }
        }
        // Each query is a row of the pool: it finds itself first.
        for (i, list) in best(&streamed).iter().enumerate() {
            assert!(list[0].score > 0.9999 && list.iter().take(9).any(|s| s.row as usize == i));
        }
    }
}
