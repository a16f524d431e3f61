//! What `run` writes: a decision for each row, and the state from which a later run goes on.
//!
//! The rows come in the order of the file. A row whose label cell is filled in is learned from if it was asked for; a row
//! with an empty cell is decided only. So a user works in steps: decide the rows at hand, fill in the labels that were
//! asked for, run again. A run with the state of an earlier one goes on with the rows that follow, bit by bit as if one run
//! had read both files.

use super::TaskOptions;
use super::engine::{Engine, Start};
use super::models::{Target, Truth};
use super::stream::{Coder, answers, classes};
use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::{Features, Output, Table};
use papertrial_core::task::{Applied, Context, Input, Job};
use papertrial_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// The side file: state and what must fit it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// Method that wrote it.
    method: String,
    /// Feature columns, in order.
    columns: Vec<String>,
    /// Names of the classes; empty for numbers.
    classes: Vec<String>,
    /// The engine's state.
    state: Value,
}

/// A line of the output.
struct Line {
    value: Truth,
    confidence: f64,
    ask: bool,
    spent: u64,
}

/// Decides all rows of the job's table and writes decisions and state.
///
/// # Errors
/// Options of trials; a state that does not fit the method or the columns; an unknown class; an output that cannot be
/// written.
pub fn write(
    strategy: &dyn Start,
    asked: &TaskOptions,
    job: &Job,
    out: &Path,
    context: &Context,
) -> Result<Applied> {
    refuse_trial_options(asked)?;
    let mut output = Output::table(out)?;
    let table = job.table("data", context)?;
    let features = Features::of(&table, &job.roles)?;
    let answers = answers(&table, &job.roles)?;
    let (mut engine, names) = match job.inputs.get("model") {
        Some(input) => {
            let kept = read(input, &job.method, features.names())?;
            (Engine::resume(strategy, kept.state)?, kept.classes)
        }
        None => {
            let names = if asked.number(&job.method) {
                Vec::new()
            } else {
                classes(&answers, asked.classes.as_deref())?
            };
            let target = match names.len() {
                0 => Target::Number,
                n => Target::Classes(n),
            };
            let rows = Some(features.rows());
            let setting = asked.setting(target, features.width(), rows, job.seed);
            (Engine::new(strategy, &setting)?, names)
        }
    };

    let coder = Coder::new(&table, &job.roles, &names);
    let mut lines: Vec<Line> = Vec::with_capacity(answers.len());
    let (mut learned, mut right) = (0u64, 0u64);
    for chunk in features.chunks()? {
        for x in chunk?.outer_iter() {
            let row = lines.len();
            let decision = engine.decide(&x.to_vec())?;
            let answer = answers
                .get(row)
                .ok_or_else(|| Error::file(table.name(), "changed while it was read"))?;
            if let Some(text) = answer {
                let truth = coder.code(row, text)?;
                if decision.ask {
                    engine.learn(decision.row, truth)?;
                    learned += 1;
                }
                right += u64::from(!decision.prediction.misses(truth));
            } else if decision.ask {
                engine.forget(decision.row);
            }
            lines.push(Line {
                value: decision.prediction.value,
                confidence: decision.prediction.confidence,
                ask: decision.ask,
                spent: decision.spent,
            });
            if row.is_multiple_of(1024) {
                context.step("rows", row, answers.len());
            }
        }
    }

    output.write(&batches(&table, job, &lines, &names)?)?;
    let kept = Kept {
        method: job.method.clone(),
        columns: features.names().to_vec(),
        classes: names.clone(),
        state: engine.save()?,
    };
    let text = serde_json::to_vec(&kept).map_err(|e| Error::Failed(e.to_string()))?;
    output.side("state.json", &text)?;
    let wanted = lines.iter().filter(|l| l.ask).count() as u64;
    let known = answers.iter().flatten().count();
    let mut summary = vec![
        ("rows".to_owned(), lines.len().to_string()),
        (
            "rows of the stream so far".into(),
            engine.seen().to_string(),
        ),
        ("labels asked for".into(), wanted.to_string()),
        ("of these at hand and learned".into(), learned.to_string()),
        (
            "alarms of a change so far".into(),
            engine.alarms().to_string(),
        ),
    ];
    if known > 0 && engine.target() != Target::Number {
        let share = right as f64 / known as f64;
        summary.push((
            "accuracy on rows with a label, before it was learned".into(),
            format!("{share:.3}"),
        ));
    }
    let mut notes = Vec::new();
    if job.inputs.contains_key("model") {
        notes.push("budget, model and all other options are those of the state".into());
    }
    if wanted > learned {
        notes.push(format!(
            "{} labels that were asked for are not in the file: fill them in and run the same command on the same rows again; decisions on later rows may change",
            wanted - learned
        ));
    }
    Ok(Applied {
        files: output.finish()?,
        summary,
        notes,
        ..Applied::default()
    })
}

fn refuse_trial_options(asked: &TaskOptions) -> Result<()> {
    let used = [
        ("passes", asked.passes != 1),
        ("shuffle", asked.shuffle == Some(true)),
        ("swapped-labels", !asked.swapped_labels.is_empty()),
    ];
    match used.iter().find(|(_, used)| *used) {
        Some((option, _)) => Err(Error::option(
            option,
            "is for trials; run decides the rows once, in the order of the file",
        )),
        None => Ok(()),
    }
}

fn read(input: &Input, method: &str, columns: &[String]) -> Result<Kept> {
    let Input::File { path, .. } = input else {
        return Err(Error::option(
            "--model",
            "name a state.json of an earlier run",
        ));
    };
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
    let kept: Kept = serde_json::from_str(&text).map_err(|e| {
        Error::file(
            path,
            format!("is not a state of a stream ({e}); name a state.json of an earlier run"),
        )
    })?;
    if kept.method != method {
        return Err(Error::file(
            path,
            format!("is a state of {}, not of {method}", kept.method),
        ));
    }
    if kept.columns != columns {
        return Err(Error::file(
            path,
            format!(
                "is of a stream with the columns {}; these rows have {}",
                kept.columns.join(", "),
                columns.join(", ")
            ),
        ));
    }
    Ok(kept)
}

/// The output table: identifier if one is named, `prediction`, `confidence`, `ask`, `spent`.
fn batches(table: &Table, job: &Job, lines: &[Line], names: &[String]) -> Result<Vec<RecordBatch>> {
    let id = match &job.roles.id {
        Some(column) => Some(table.column_for("--id", column)?),
        None => None,
    };
    let mut start = 0;
    let mut written = Vec::new();
    for batch in table.batches()? {
        let batch = batch?;
        let lines = lines
            .get(start..start + batch.num_rows())
            .ok_or_else(|| Error::file(table.name(), "changed while it was read"))?;
        start += batch.num_rows();
        let mut fields = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::new();
        if let Some(id) = id {
            fields.push(batch.schema().field(id).clone());
            columns.push(batch.column(id).clone());
        }
        let prediction: ArrayRef = if names.is_empty() {
            Arc::new(Float64Array::from_iter_values(lines.iter().map(
                |l| match l.value {
                    Truth::Number(value) => value,
                    Truth::Class(class) => class as f64,
                },
            )))
        } else {
            Arc::new(StringArray::from_iter(lines.iter().map(
                |l| match l.value {
                    Truth::Class(class) => names.get(class).map(String::as_str),
                    Truth::Number(_) => None,
                },
            )))
        };
        fields.push(Field::new(
            "prediction",
            prediction.data_type().clone(),
            true,
        ));
        columns.push(prediction);
        fields.push(Field::new("confidence", DataType::Float64, false));
        let confidence = lines.iter().map(|l| l.confidence);
        columns.push(Arc::new(Float64Array::from_iter_values(confidence)));
        fields.push(Field::new("ask", DataType::Int32, false));
        let ask = lines.iter().map(|l| i32::from(l.ask));
        columns.push(Arc::new(Int32Array::from_iter_values(ask)));
        fields.push(Field::new("spent", DataType::Int64, false));
        let spent = lines.iter().map(|l| l.spent as i64);
        columns.push(Arc::new(Int64Array::from_iter_values(spent)));
        let schema = Arc::new(Schema::new(fields));
        written
            .push(RecordBatch::try_new(schema, columns).map_err(|e| Error::Failed(e.to_string()))?);
    }
    Ok(written)
}
