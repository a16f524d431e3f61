//! What `run` writes: the chosen rows with their weights, or the rows of every round.
//!
//! A method that chooses once gives the rows of the table that it chose, as they were, in their order, and a column
//! `weight` (mean 1). A method that chooses for each round gives a line for each row of each round, in the order of
//! training: `round` from 0, `row` from 0, the identifier if one is named, and `weight` where the method weighs.

use super::networks::{Networks, flat};
use super::pool::{Choice, Look, Needs, Pool, Selector, Subset, Trainer};
use super::prepare::Rows;
use super::race::{followed, schedule};
use super::{TaskOptions, chosen};
use crate::weighted::{self, WEIGHT};
use arrow::array::{Array, ArrayRef, Float64Array, UInt64Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use ndarray::Array2;
use papertrial_core::data::{Labels, Output, Table};
use papertrial_core::task::{Applied, Context, Job};
use papertrial_core::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// What is written: one subset, or one for each round.
enum Written {
    Once(Subset),
    Rounds(Vec<Subset>),
}

/// Chooses rows of the job's table and writes them.
///
/// # Errors
/// Options of trials; a table that lacks what the method needs; an output that cannot be written.
pub fn write(
    selector: &dyn Selector,
    asked: &TaskOptions,
    job: &Job,
    out: &Path,
    context: &Context,
) -> Result<Applied> {
    if asked.label_noise > 0.0 {
        return Err(Error::option(
            "label-noise",
            "is for trials; run takes the labels as they are",
        ));
    }
    let mut output = Output::table(out)?;
    let table = job.table("data", context)?;
    let (found, n) = match selector.needs() {
        Needs::Columns => by_columns(selector, asked, job, context)?,
        needs => by_number(selector, needs, asked, job, &table, context)?,
    };
    let (batches, facts) = match &found {
        Written::Once(subset) => (
            chosen_rows(&table, subset)?,
            vec![("rows chosen".to_owned(), subset.rows.len().to_string())],
        ),
        Written::Rounds(rounds) => {
            let mut seen: Vec<usize> = rounds.iter().flat_map(|s| s.rows.clone()).collect();
            let lines = seen.len();
            seen.sort_unstable();
            seen.dedup();
            (
                lines_of(&table, job, rounds)?,
                vec![
                    ("rounds".to_owned(), rounds.len().to_string()),
                    ("rows in all rounds".into(), lines.to_string()),
                    ("different rows".into(), seen.len().to_string()),
                ],
            )
        }
    };
    output.write(&batches)?;
    let mut summary = vec![("rows".to_owned(), n.to_string())];
    summary.extend(facts);
    Ok(Applied {
        files: output.finish()?,
        summary,
        notes: Vec::new(),
        ..Applied::default()
    })
}

/// With models, or the columns.
fn by_columns(
    selector: &dyn Selector,
    asked: &TaskOptions,
    job: &Job,
    context: &Context,
) -> Result<(Written, usize)> {
    let mut rows = Rows::of(job, context)?;
    let n = rows.labels.len();
    if asked.standardise {
        rows.standardise(&(0..n).collect::<Vec<_>>());
    }
    let x = flat(rows.x.view());
    let classes = rows.names.len();
    let networks = Networks::new(
        asked.recipe(),
        &x,
        rows.x.ncols(),
        &rows.labels,
        classes,
        context,
    )?;
    let pool = Pool {
        x: rows.x.view(),
        labels: &rows.labels,
        classes,
        choose: chosen(asked, n)?,
        rounds: asked.rounds,
        scoring_epochs: asked.selection_epochs,
        learning_rate: asked.learning_rate,
        trainer: &networks,
        context,
    };
    let found = match selector.choose(&pool)? {
        Choice::Once(subset) => Written::Once(subset),
        followed_by @ Choice::Followed(_) => {
            Written::Rounds(followed(followed_by, &pool, &networks)?)
        }
        drawn => rounds_of(drawn, &pool)?,
    };
    Ok((found, n))
}

/// Without: nothing is read but the number of rows, and labels where they are needed.
fn by_number(
    selector: &dyn Selector,
    needs: Needs,
    asked: &TaskOptions,
    job: &Job,
    table: &Table,
    context: &Context,
) -> Result<(Written, usize)> {
    let n = usize::try_from(table.rows()).unwrap_or(usize::MAX);
    let (labels, classes) = match (needs, Labels::of(table, &job.roles)?) {
        (Needs::Number, _) => (vec![0; n], 1),
        (_, Some(labels)) => (
            labels.codes.iter().map(|c| *c as usize).collect(),
            labels.names.len(),
        ),
        (_, None) => {
            return Err(Error::BadInput(format!(
                "{} has no label column, by which {} keeps shares; name it with --label",
                table.name(),
                job.method
            )));
        }
    };
    let x = Array2::zeros((n, 0));
    let pool = Pool {
        x: x.view(),
        labels: &labels,
        classes,
        choose: chosen(asked, n)?,
        rounds: asked.rounds,
        scoring_epochs: asked.selection_epochs,
        learning_rate: asked.learning_rate,
        trainer: &NoTrainer,
        context,
    };
    let found = match selector.choose(&pool)? {
        Choice::Once(subset) => Written::Once(subset),
        drawn => rounds_of(drawn, &pool)?,
    };
    Ok((found, n))
}

fn rounds_of(choice: Choice, pool: &Pool) -> Result<Written> {
    match schedule(choice, pool.rounds, pool.context.seed) {
        Some(rounds) => Ok(Written::Rounds(rounds?)),
        None => Err(Error::Failed(
            "a method that said it needs no columns follows a model".into(),
        )),
    }
}

/// For methods that train nothing.
struct NoTrainer;

impl Trainer for NoTrainer {
    fn train(&self, _: u64, _: usize, _: &mut dyn FnMut(usize, &Look) -> Result<()>) -> Result<()> {
        Err(Error::Failed(
            "a method that said it needs no columns trains a model".into(),
        ))
    }
}

/// The chosen rows of the table, as they are, and their weights.
fn chosen_rows(table: &Table, subset: &Subset) -> Result<Vec<RecordBatch>> {
    weighted::check(table)?;
    let mut chosen: Vec<(usize, f64)> = subset
        .rows
        .iter()
        .enumerate()
        .map(|(at, row)| (*row, weight_of(subset, at)))
        .collect();
    chosen.sort_unstable_by_key(|(row, _)| *row);
    weighted::rows(table, &chosen)
}

/// A batch of lines for each round.
fn lines_of(table: &Table, job: &Job, rounds: &[Subset]) -> Result<Vec<RecordBatch>> {
    let failed = |e: arrow::error::ArrowError| Error::Failed(e.to_string());
    let id = match &job.roles.id {
        None => None,
        Some(column) => {
            let index = table.column_for("--id", column)?;
            let parts = table.column(index)?;
            let parts: Vec<&dyn Array> = parts.iter().map(|a| a.as_ref()).collect();
            let field = table.schema().field(index).clone();
            Some((field, concat(&parts).map_err(failed)?))
        }
    };
    if let Some((field, _)) = &id
        && ["round", "row", WEIGHT].contains(&field.name().as_str())
    {
        return Err(Error::column(
            table.name(),
            field.name(),
            "is the name of a column that is written; give this one another name",
        ));
    }
    let weighted = rounds.iter().any(|s| s.weights.is_some());
    let mut written = Vec::with_capacity(rounds.len());
    for (round, subset) in rounds.iter().enumerate() {
        let rows = UInt64Array::from_iter_values(subset.rows.iter().map(|r| *r as u64));
        let rounds = UInt64Array::from_value(round as u64, rows.len());
        let mut fields = vec![
            Field::new("round", DataType::UInt64, false),
            Field::new("row", DataType::UInt64, false),
        ];
        let mut columns: Vec<ArrayRef> = vec![Arc::new(rounds), Arc::new(rows.clone())];
        if let Some((field, cells)) = &id {
            fields.push(field.clone());
            columns.push(take(cells, &rows, None).map_err(failed)?);
        }
        if weighted {
            fields.push(Field::new(WEIGHT, DataType::Float64, false));
            let weights = (0..subset.rows.len()).map(|at| weight_of(subset, at));
            columns.push(Arc::new(Float64Array::from_iter_values(weights)));
        }
        let schema = Arc::new(Schema::new(fields));
        written.push(RecordBatch::try_new(schema, columns).map_err(failed)?);
    }
    Ok(written)
}

fn weight_of(subset: &Subset, at: usize) -> f64 {
    subset.weights.as_ref().map_or(1.0, |w| f64::from(w[at]))
}
