//! Scores of a whole source, written as they come.

use super::detector::Fitted;
use super::follow::follow;
use super::metrics::Confusion;
use super::model::Known;
use super::scorer::{Scored, Scorer};
use super::source::Source;
use super::writer::Writer;
use arrow::array::{ArrayRef, BooleanArray, Float32Array, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was written.
pub struct Written {
    /// The file.
    pub file: PathBuf,
    /// Flows read.
    pub flows: u64,
    /// Flows without a whole window, which have no score.
    pub unscored: u64,
    /// Alerts.
    pub alerts: u64,
    /// Against the truth, where the source says it; of held-out flows only, where some were trained on.
    pub confusion: Option<Confusion>,
    /// Remarks for the reader.
    pub notes: Vec<String>,
}

/// What is written and read beside the scores.
pub struct Extent<'a> {
    /// Only alerts are written.
    pub alerts_only: bool,
    /// The user's name of the column with the class.
    pub class: Option<&'a str>,
    /// A column that is written as it is read.
    pub id: Option<&'a str>,
    /// For each flow whether it was trained on, where this run did so.
    pub training: Option<&'a [bool]>,
    /// Number of flows, for the progress; 0 if unknown.
    pub flows: usize,
}

/// Scores `source` and writes to `out`: `row` from 0, `probability`, `alert`; `class`, where the source says it; and
/// `held_out`, where this run trained on some of the flows.
///
/// Memory does not depend on the number of flows.
///
/// # Errors
/// Columns that are missing, cells that cannot be read, a failure of the detector, or a disk that is full.
pub fn score(
    source: &dyn Source,
    known: &Known,
    detector: &dyn Fitted,
    extent: &Extent,
    out: &Path,
    context: &Context,
) -> Result<Written> {
    let columns = source.columns();
    let mut scorer = Scorer::new(known, detector, source.name(), &columns, extent.class)?;
    let id = match extent.id {
        Some(name) => Some(columns.iter().position(|c| c == name).ok_or_else(|| {
            Error::unknown(
                "column",
                name,
                columns.iter().map(String::as_str),
                "option --id; the file has no such column",
            )
        })?),
        None => None,
    };
    let mut writer: Option<Writer> = None;
    let mut row = 0usize;
    let mut written = Written {
        file: out.into(),
        flows: 0,
        unscored: 0,
        alerts: 0,
        confusion: scorer.labelled().then(Confusion::default),
        notes: Vec::new(),
    };
    for batch in source.batches()? {
        let batch = batch?;
        if batch.num_rows() == 0 {
            continue;
        }
        let scored = scorer.push(&batch, context)?;
        let alerts: Vec<Option<bool>> = scored
            .probabilities
            .iter()
            .map(|p| p.map(|p| scorer.is_alert(p)))
            .collect();
        tally(&scored, &alerts, row, known, extent, &mut written);
        let schema = columns_of(&batch, id, &scored, extent);
        let mut rows = table(&batch, id, &scored, &alerts, row, extent, &schema)?;
        if extent.alerts_only {
            let keep: BooleanArray = alerts.iter().map(|a| Some(*a == Some(true))).collect();
            rows = arrow::compute::filter_record_batch(&rows, &keep)
                .map_err(|e| Error::Failed(e.to_string()))?;
        }
        let writer = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(Writer::new(out, &schema)?),
        };
        writer.write(&rows)?;
        row += batch.num_rows();
        context.step("scoring", row, extent.flows);
    }
    written.flows = row as u64;
    let Some(writer) = writer else {
        return Err(Error::BadInput(format!("{}: has no rows", source.name())));
    };
    written.file = writer.finish()?;
    written.notes = scorer.tally().notes();
    written.notes.extend(source.notes());
    Ok(written)
}

/// Whether `path` is to hold JSON lines.
pub fn is_json_lines(path: &Path) -> bool {
    path.extension().is_some_and(|e| {
        ["jsonl", "ndjson", "json"]
            .iter()
            .any(|j| e.eq_ignore_ascii_case(j))
    })
}

/// Scores `source` and writes the alerts to `out` as JSON lines, each with the flows of its window. `live` alerts can
/// be read from `out` while they come; others appear together when all is done.
///
/// # Errors
/// Those of [`score`], or an `out` that is no file of JSON lines.
pub fn alerts(
    source: &dyn Source,
    known: &Known,
    detector: &dyn Fitted,
    live: bool,
    out: &Path,
    context: &Context,
) -> Result<Written> {
    if !is_json_lines(out) {
        return Err(Error::file(
            out,
            "alerts with the flows of their windows are JSON lines; end the name in .jsonl",
        ));
    }
    let wrong = |e: std::io::Error| Error::file(out, format!("cannot be written: {e}"));
    let followed = if live {
        let to = std::fs::File::create(out).map_err(wrong)?;
        follow(known, detector, source, to, context)?
    } else {
        let folder = match out.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let file = tempfile::NamedTempFile::new_in(folder).map_err(wrong)?;
        let to = std::io::BufWriter::new(file.as_file());
        let followed = follow(known, detector, source, to, context)?;
        file.persist(out).map_err(|e| wrong(e.error))?;
        followed
    };
    Ok(Written {
        file: out.into(),
        flows: followed.flows,
        unscored: followed.flows - followed.scored,
        alerts: followed.alerts,
        confusion: None,
        notes: source.notes(),
    })
}

fn tally(
    scored: &Scored,
    alerts: &[Option<bool>],
    first: usize,
    known: &Known,
    extent: &Extent,
    written: &mut Written,
) {
    let attacks: Option<Vec<bool>> = scored.records.class.as_ref().map(|class| {
        class
            .known
            .iter()
            .map(|c| known.schema.is_attack(c))
            .collect()
    });
    for (i, alert) in alerts.iter().enumerate() {
        let Some(alert) = alert else {
            written.unscored += 1;
            continue;
        };
        written.alerts += u64::from(*alert);
        let trained = extent
            .training
            .is_some_and(|t| t.get(first + i) == Some(&true));
        if let (Some(attacks), Some(class), Some(confusion), false) = (
            &attacks,
            &scored.records.class,
            &mut written.confusion,
            trained,
        ) {
            confusion.add(attacks[class.at[i] as usize], *alert);
        }
    }
}

fn columns_of(
    batch: &RecordBatch,
    id: Option<usize>,
    scored: &Scored,
    extent: &Extent,
) -> SchemaRef {
    let mut fields = Vec::new();
    if let Some(id) = id {
        fields.push(batch.schema().field(id).clone());
    }
    fields.push(Field::new("row", DataType::UInt64, false));
    fields.push(Field::new("probability", DataType::Float32, true));
    fields.push(Field::new("alert", DataType::Boolean, true));
    if scored.records.class.is_some() {
        fields.push(Field::new("class", DataType::Utf8, true));
    }
    if extent.training.is_some() {
        fields.push(Field::new("held_out", DataType::Boolean, false));
    }
    Arc::new(Schema::new(fields))
}

fn table(
    batch: &RecordBatch,
    id: Option<usize>,
    scored: &Scored,
    alerts: &[Option<bool>],
    first: usize,
    extent: &Extent,
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let n = batch.num_rows();
    let mut columns: Vec<ArrayRef> = Vec::new();
    if let Some(id) = id {
        columns.push(batch.column(id).clone());
    }
    columns.push(Arc::new(UInt64Array::from_iter_values(
        (first..first + n).map(|row| row as u64),
    )));
    columns.push(Arc::new(Float32Array::from(scored.probabilities.clone())));
    columns.push(Arc::new(BooleanArray::from(alerts.to_vec())));
    if let Some(class) = &scored.records.class {
        columns.push(Arc::new(StringArray::from_iter_values(
            (0..n).map(|i| class.of(i)),
        )));
    }
    if let Some(training) = extent.training {
        let held_out = (first..first + n).map(|row| Some(training.get(row) != Some(&true)));
        columns.push(Arc::new(held_out.collect::<BooleanArray>()));
    }
    RecordBatch::try_new(schema.clone(), columns).map_err(|e| Error::Failed(e.to_string()))
}
