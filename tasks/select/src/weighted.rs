//! Chosen rows of a table with their weights, as two tasks write them.

use arrow::array::{ArrayRef, Float64Array, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::Table;
use papertrial_core::{Error, Result};
use std::sync::Arc;

/// Name of the column that is added.
pub const WEIGHT: &str = "weight";

/// Refuses a table that has a column of that name already.
///
/// # Errors
/// It has.
pub fn check(table: &Table) -> Result<()> {
    if table.columns().contains(&WEIGHT) {
        return Err(Error::column(
            table.name(),
            WEIGHT,
            "is the name of the column that is written; give this one another name",
        ));
    }
    Ok(())
}

/// The rows of `chosen`, ascending, with all their columns and their weights; read batch by batch.
///
/// # Errors
/// The table cannot be read, or has fewer rows than it had.
pub fn rows(table: &Table, chosen: &[(usize, f64)]) -> Result<Vec<RecordBatch>> {
    let failed = |e: arrow::error::ArrowError| Error::Failed(e.to_string());
    let fields = table.schema().fields().iter().cloned();
    let weight = Arc::new(Field::new(WEIGHT, DataType::Float64, false));
    let schema = Arc::new(Schema::new(fields.chain([weight]).collect::<Vec<_>>()));
    let (mut start, mut at) = (0, 0);
    let mut written = Vec::new();
    for batch in table.batches()? {
        let batch = batch?;
        let end = start + batch.num_rows();
        let from = at;
        while at < chosen.len() && chosen[at].0 < end {
            at += 1;
        }
        let here = &chosen[from..at];
        if !here.is_empty() {
            let places =
                UInt64Array::from_iter_values(here.iter().map(|(row, _)| (row - start) as u64));
            let weights: ArrayRef =
                Arc::new(Float64Array::from_iter_values(here.iter().map(|(_, w)| *w)));
            let mut columns = take_record_batch(&batch, &places)
                .map_err(failed)?
                .columns()
                .to_vec();
            columns.push(weights);
            written.push(RecordBatch::try_new(schema.clone(), columns).map_err(failed)?);
        }
        start = end;
    }
    if at < chosen.len() {
        return Err(Error::file(table.name(), "changed while it was read"));
    }
    Ok(written)
}
