//! A table: CSV, JSON lines, Parquet, Arrow IPC or NumPy, read in batches as often as wanted.

use super::{csv, npy, reason};
use crate::error::{Error, Result};
use arrow::array::{AsArray, RecordBatchReader};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::file::reader::ChunkReader;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows of a batch.
const BATCH: usize = 8192;

/// How a text file is to be read, where the user knows better than the file shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadOptions {
    /// Delimiter of a CSV file; found by itself if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// Whether the first line holds names; found by itself if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// Names for the columns of a file that has no header.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
}

/// A table that can be read again and again, batch by batch.
#[derive(Debug, Clone)]
pub struct Table {
    name: String,
    schema: SchemaRef,
    rows: u64,
    backing: Backing,
}

#[derive(Debug, Clone)]
enum Backing {
    Csv(PathBuf, csv::Dialect),
    Json(PathBuf),
    Parquet(PathBuf),
    ParquetBytes(&'static [u8]),
    Ipc(PathBuf),
    Npy(PathBuf),
    Memory(Arc<Vec<RecordBatch>>),
}

/// Batches of a table, in order.
pub type Batches = Box<dyn Iterator<Item = Result<RecordBatch>>>;

impl Table {
    /// Opens a file; the format is told by its content, else by its name.
    ///
    /// # Errors
    /// The file is missing, a folder, empty, of no known format, or broken.
    pub fn open(path: &Path, read: &ReadOptions) -> Result<Table> {
        let shown = path.display().to_string();
        let info = std::fs::metadata(path).map_err(|e| Error::file(path, reason(&e)))?;
        if info.is_dir() {
            return Err(Error::file(
                path,
                "is a folder; name a file: CSV, Parquet, Arrow, JSON lines or .npy",
            ));
        }
        let mut start = Vec::new();
        File::open(path)
            .and_then(|f| f.take(8).read_to_end(&mut start))
            .map_err(|e| Error::file(path, reason(&e)))?;
        if start.is_empty() {
            return Err(Error::file(path, "is empty"));
        }
        let file = path
            .file_name()
            .map(|n| n.to_string_lossy().to_lowercase())
            .unwrap_or_default();
        let bare = file.strip_suffix(".gz").unwrap_or(&file);
        let ends = |endings: &[&str]| endings.iter().any(|e| bare.ends_with(e));
        let (backing, schema, rows) = if start.starts_with(b"PAR1") || ends(&[".parquet"]) {
            let (schema, rows) = parquet_facts(path)?;
            (Backing::Parquet(path.into()), schema, rows)
        } else if start.starts_with(b"ARROW1") || ends(&[".arrow", ".feather", ".ipc"]) {
            let (schema, rows) = ipc_facts(path)?;
            (Backing::Ipc(path.into()), schema, rows)
        } else if start.starts_with(b"\x93NUMPY") || ends(&[".npy"]) {
            let (schema, rows) = npy::facts(path)?;
            (Backing::Npy(path.into()), schema, rows)
        } else if ends(&[".jsonl", ".ndjson", ".json"]) {
            let (schema, rows) = json_facts(path)?;
            (Backing::Json(path.into()), schema, rows)
        } else if ends(&[".csv", ".tsv", ".txt", ".data", ".tab"]) || looks_like_text(&start) {
            let (dialect, schema, rows) = csv::facts(path, read)?;
            (Backing::Csv(path.into(), dialect), schema, rows)
        } else {
            return Err(Error::file(
                path,
                "has no format known here; it should be CSV, Parquet, Arrow, JSON lines or .npy",
            ));
        };
        check_names(path, &schema)?;
        if rows == 0 {
            return Err(Error::file(path, "has no rows"));
        }
        Ok(Table {
            name: shown,
            schema,
            rows,
            backing,
        })
    }

    /// A Parquet file that is part of the program.
    ///
    /// # Errors
    /// The bytes are not a Parquet file.
    pub fn embedded(name: &str, content: &'static [u8]) -> Result<Table> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from_static(content))
            .map_err(|e| Error::file(name, not_parquet(&e)))?;
        let rows = builder.metadata().file_metadata().num_rows().max(0) as u64;
        Ok(Table {
            name: name.into(),
            schema: builder.schema().clone(),
            rows,
            backing: Backing::ParquetBytes(content),
        })
    }

    /// A table in memory. Without a batch it has no columns.
    pub fn memory(name: &str, batches: Vec<RecordBatch>) -> Table {
        Table {
            name: name.into(),
            schema: batches
                .first()
                .map(|b| b.schema())
                .unwrap_or_else(|| Arc::new(Schema::empty())),
            rows: batches.iter().map(|b| b.num_rows() as u64).sum(),
            backing: Backing::Memory(Arc::new(batches)),
        }
    }

    /// File or data set, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names and types of the columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Names of the columns.
    pub fn columns(&self) -> Vec<&str> {
        self.schema
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .collect()
    }

    /// Index of the column that `option` names.
    ///
    /// # Errors
    /// [`Error::Option`] with the nearest column's name.
    pub fn column_for(&self, option: &str, column: &str) -> Result<usize> {
        let columns = self.columns();
        columns.iter().position(|c| *c == column).ok_or_else(|| {
            let near = match crate::error::nearest(column, columns.iter().copied()) {
                Some(name) => format!("; did you mean '{name}'?"),
                None => String::new(),
            };
            let mut all = columns[..columns.len().min(12)].join(", ");
            if columns.len() > 12 {
                all.push_str(", …");
            }
            Error::option(
                option,
                format!(
                    "{} has no column '{column}'{near} (its columns: {all})",
                    self.name
                ),
            )
        })
    }

    /// The rows from the first, in batches.
    ///
    /// # Errors
    /// The file cannot be opened; errors of the content come with their batch.
    pub fn batches(&self) -> Result<Batches> {
        let name = self.name.clone();
        match &self.backing {
            Backing::Csv(path, dialect) => csv::batches(path, dialect, &self.schema, BATCH),
            Backing::Json(path) => {
                let reader = arrow::json::ReaderBuilder::new(self.schema.clone())
                    .with_batch_size(BATCH)
                    .build(text(path)?)
                    .map_err(|e| Error::file(path, e))?;
                Ok(Box::new(
                    reader.map(move |b| b.map_err(|e| broken(&name, &e))),
                ))
            }
            Backing::Parquet(path) => parquet_batches(&name, open(path)?),
            Backing::ParquetBytes(content) => {
                parquet_batches(&name, bytes::Bytes::from_static(content))
            }
            Backing::Ipc(path) => {
                let reader = ipc_reader(path)?;
                Ok(Box::new(
                    reader.map(move |b| b.map_err(|e| broken(&name, &e))),
                ))
            }
            Backing::Npy(path) => npy::batches(path, &self.schema, BATCH),
            Backing::Memory(batches) => {
                let batches = batches.clone();
                Ok(Box::new(
                    (0..batches.len()).map(move |i| Ok(batches[i].clone())),
                ))
            }
        }
    }

    /// One column of all rows.
    ///
    /// # Errors
    /// The content is broken.
    pub fn column(&self, index: usize) -> Result<Vec<arrow::array::ArrayRef>> {
        self.batches()?
            .map(|b| b.map(|b| b.column(index).clone()))
            .collect()
    }

    /// The cells of one column as trimmed texts, `None` where one is empty.
    ///
    /// # Errors
    /// The content is broken, or cannot be shown as text.
    pub fn texts(&self, index: usize) -> Result<Vec<Option<String>>> {
        let mut all = Vec::new();
        for batch in self.batches()? {
            all.extend(self.texts_of(&batch?, index)?);
        }
        Ok(all)
    }

    /// As [`Table::texts`], of one of its batches.
    ///
    /// # Errors
    /// A cell cannot be shown as text.
    pub fn texts_of(&self, batch: &RecordBatch, index: usize) -> Result<Vec<Option<String>>> {
        let text = cast(batch.column(index), &DataType::Utf8)
            .map_err(|e| Error::column(&self.name, self.schema.field(index).name(), e))?;
        let cells = text.as_string::<i32>().iter();
        Ok(cells
            .map(|cell| {
                cell.map(str::trim)
                    .filter(|c| !c.is_empty())
                    .map(str::to_owned)
            })
            .collect())
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| Error::file(path, reason(&e)))
}

/// A text file, unpacked if its name ends in `.gz`.
pub(super) fn text(path: &Path) -> Result<BufReader<Box<dyn Read>>> {
    let file = open(path)?;
    let packed = path.extension().is_some_and(|e| e == "gz");
    let reader: Box<dyn Read> = if packed {
        Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file)))
    } else {
        Box::new(file)
    };
    Ok(BufReader::with_capacity(1 << 18, reader))
}

fn looks_like_text(start: &[u8]) -> bool {
    start
        .iter()
        .all(|b| *b >= 0x20 || matches!(b, b'\t' | b'\n' | b'\r'))
}

fn check_names(path: &Path, schema: &Schema) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for field in schema.fields() {
        if !seen.insert(field.name()) {
            return Err(Error::file(
                path,
                format!(
                    "two columns are named '{}'; every column needs a name of its own",
                    field.name()
                ),
            ));
        }
    }
    Ok(())
}

fn broken(name: &str, e: &ArrowError) -> Error {
    Error::file(name, format!("cannot be read to its end: {e}"))
}

fn not_parquet(e: &parquet::errors::ParquetError) -> String {
    format!("is not a whole Parquet file: {e}")
}

fn parquet_facts(path: &Path) -> Result<(SchemaRef, u64)> {
    let file = open(path)?;
    let facts = ArrowReaderMetadata::load(&file, Default::default())
        .map_err(|e| Error::file(path, not_parquet(&e)))?;
    let rows = facts.metadata().file_metadata().num_rows().max(0) as u64;
    Ok((facts.schema().clone(), rows))
}

fn parquet_batches(name: &str, source: impl ChunkReader + 'static) -> Result<Batches> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(source)
        .and_then(|b| b.with_batch_size(BATCH).build())
        .map_err(|e| Error::file(name, not_parquet(&e)))?;
    let name = name.to_owned();
    Ok(Box::new(
        reader.map(move |b| b.map_err(|e| broken(&name, &e))),
    ))
}

fn ipc_reader(path: &Path) -> Result<Box<dyn RecordBatchReader>> {
    let wrong = |e: ArrowError| Error::file(path, format!("is not a whole Arrow file: {e}"));
    let mut start = [0u8; 6];
    let file_format = open(path)?.read_exact(&mut start).is_ok() && &start == b"ARROW1";
    Ok(if file_format {
        Box::new(arrow::ipc::reader::FileReader::try_new(open(path)?, None).map_err(wrong)?)
    } else {
        Box::new(
            arrow::ipc::reader::StreamReader::try_new(BufReader::new(open(path)?), None)
                .map_err(wrong)?,
        )
    })
}

fn ipc_facts(path: &Path) -> Result<(SchemaRef, u64)> {
    let reader = ipc_reader(path)?;
    let schema = reader.schema();
    let mut rows = 0;
    for batch in reader {
        rows += batch
            .map_err(|e| broken(&path.display().to_string(), &e))?
            .num_rows() as u64;
    }
    Ok((schema, rows))
}

fn json_facts(path: &Path) -> Result<(SchemaRef, u64)> {
    let (schema, rows) = arrow::json::reader::infer_json_schema(text(path)?, None)
        .map_err(|e| Error::file(path, format!("is not JSON lines (one object a line): {e}")))?;
    Ok((Arc::new(schema), rows as u64))
}
