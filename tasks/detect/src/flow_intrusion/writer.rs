//! A table written batch by batch: CSV, JSON lines, Parquet or Arrow by the ending of its name.
//!
//! It appears under its name when it is whole, and not before.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use papertrial_core::{Error, Result};
use parquet::arrow::ArrowWriter;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A table being written.
pub struct Writer {
    path: PathBuf,
    file: NamedTempFile,
    form: Form,
}

enum Form {
    Csv(arrow::csv::Writer<BufWriter<File>>),
    Json(arrow::json::LineDelimitedWriter<BufWriter<File>>),
    Parquet(Box<ArrowWriter<BufWriter<File>>>),
    Ipc(arrow::ipc::writer::FileWriter<BufWriter<File>>),
}

impl Writer {
    /// Begins the table at `path` with the columns of `schema`.
    ///
    /// # Errors
    /// An ending that names no format, or a folder that is missing or cannot be written to.
    pub fn new(path: &Path, schema: &SchemaRef) -> Result<Writer> {
        let folder = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let file = NamedTempFile::new_in(folder)
            .map_err(|e| Error::file(path, format!("cannot be written: {e}")))?;
        let to = file
            .as_file()
            .try_clone()
            .map_err(|e| Error::file(path, format!("cannot be written: {e}")))?;
        let to = BufWriter::with_capacity(1 << 18, to);
        let ending = path
            .extension()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        let form = match ending.as_str() {
            "csv" => Form::Csv(arrow::csv::Writer::new(to)),
            "jsonl" | "ndjson" | "json" => Form::Json(arrow::json::LineDelimitedWriter::new(to)),
            "parquet" => Form::Parquet(Box::new(
                ArrowWriter::try_new(to, schema.clone(), None).map_err(|e| failed(path, &e))?,
            )),
            "arrow" | "feather" | "ipc" => Form::Ipc(
                arrow::ipc::writer::FileWriter::try_new(to, schema)
                    .map_err(|e| failed(path, &e))?,
            ),
            _ => {
                return Err(Error::file(
                    path,
                    "should end in .csv, .jsonl, .parquet or .arrow",
                ));
            }
        };
        Ok(Writer {
            path: path.into(),
            file,
            form,
        })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match &mut self.form {
            Form::Csv(writer) => writer.write(batch).map_err(|e| failed(&self.path, &e)),
            Form::Json(writer) => writer.write(batch).map_err(|e| failed(&self.path, &e)),
            Form::Parquet(writer) => writer.write(batch).map_err(|e| failed(&self.path, &e)),
            Form::Ipc(writer) => writer.write(batch).map_err(|e| failed(&self.path, &e)),
        }
    }

    /// Ends the table and gives it its name.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn finish(self) -> Result<PathBuf> {
        let path = self.path;
        let rest = match self.form {
            Form::Csv(writer) => writer.into_inner(),
            Form::Json(mut writer) => {
                writer.finish().map_err(|e| failed(&path, &e))?;
                writer.into_inner()
            }
            Form::Parquet(writer) => writer.into_inner().map_err(|e| failed(&path, &e))?,
            Form::Ipc(mut writer) => {
                writer.finish().map_err(|e| failed(&path, &e))?;
                writer.into_inner().map_err(|e| failed(&path, &e))?
            }
        };
        rest.into_inner()
            .map_err(|e| failed(&path, &e))?
            .sync_all()
            .map_err(|e| failed(&path, &e))?;
        self.file.persist(&path).map_err(|e| failed(&path, &e))?;
        Ok(path)
    }
}

fn failed(path: &Path, e: &dyn std::fmt::Display) -> Error {
    Error::file(path, format!("cannot be written: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float32Array, UInt64Array};
    use papertrial_core::data::{ReadOptions, Table};
    use std::sync::Arc;

    #[test]
    fn batches_come_back_from_every_format_and_nothing_is_left_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let batch = |start: u64| {
            RecordBatch::try_from_iter([
                (
                    "row",
                    Arc::new(UInt64Array::from(vec![start, start + 1])) as ArrayRef,
                ),
                (
                    "p",
                    Arc::new(Float32Array::from(vec![None, Some(0.25)])) as ArrayRef,
                ),
            ])
            .unwrap()
        };
        for ending in ["csv", "jsonl", "parquet", "arrow"] {
            let path = folder.path().join(format!("out.{ending}"));
            let mut writer = Writer::new(&path, &batch(0).schema()).unwrap();
            writer.write(&batch(0)).unwrap();
            writer.write(&batch(2)).unwrap();
            assert!(!path.exists());
            assert_eq!(writer.finish().unwrap(), path);
            let table = Table::open(&path, &ReadOptions::default()).unwrap();
            assert_eq!(
                (table.rows(), table.columns()),
                (4, vec!["row", "p"]),
                "{ending}"
            );
            assert_eq!(
                table.texts(1).unwrap()[1..3],
                [Some("0.25".to_string()), None]
            );
        }
        let schema = batch(0).schema();
        drop(Writer::new(&folder.path().join("gone.csv"), &schema));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4);
        assert!(Writer::new(&folder.path().join("out.txt"), &schema).is_err());
        assert!(Writer::new(&folder.path().join("no/out.csv"), &schema).is_err());
    }
}
