//! Outputs: all of them appear whole, or none does.

use super::reason;
use crate::error::{Error, Result};
use arrow::record_batch::RecordBatch;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Files written beside their final names, moved there together by [`Output::finish`].
///
/// Dropped before that, it leaves nothing behind.
pub struct Output {
    main: PathBuf,
    files: Vec<(NamedTempFile, PathBuf)>,
}

/// Formats of a written table.
enum Format {
    Csv,
    Json,
    Parquet,
    Ipc,
}

impl Output {
    /// Checks that `path` names a table format and can be written to.
    ///
    /// # Errors
    /// Unknown ending, missing or read-only folder, or a folder of that name.
    pub fn table(path: &Path) -> Result<Output> {
        format(path)?;
        if path.is_dir() {
            return Err(Error::file(path, "is a folder; name a file"));
        }
        // Tried at once, so that long work does not end in vain.
        beside(path)?;
        Ok(Output {
            main: path.to_path_buf(),
            files: Vec::new(),
        })
    }

    /// Writes the table in the format that the path's ending names.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn write(&mut self, batches: &[RecordBatch]) -> Result<()> {
        let Some(first) = batches.first() else {
            return Err(Error::Failed("there is nothing to write".into()));
        };
        let path = self.main.clone();
        let file = beside(&path)?;
        let to = BufWriter::new(file.as_file());
        let schema = first.schema();
        let written: std::result::Result<(), Box<dyn std::error::Error>> = (|| {
            match format(&path)? {
                Format::Csv => {
                    let mut writer = arrow::csv::Writer::new(to);
                    for batch in batches {
                        writer.write(batch)?;
                    }
                }
                Format::Json => {
                    let mut writer = arrow::json::LineDelimitedWriter::new(to);
                    for batch in batches {
                        writer.write(batch)?;
                    }
                    writer.finish()?;
                }
                Format::Parquet => {
                    let mut writer = parquet::arrow::ArrowWriter::try_new(to, schema, None)?;
                    for batch in batches {
                        writer.write(batch)?;
                    }
                    writer.close()?;
                }
                Format::Ipc => {
                    let mut writer = arrow::ipc::writer::FileWriter::try_new(to, &schema)?;
                    for batch in batches {
                        writer.write(batch)?;
                    }
                    writer.finish()?;
                }
            }
            Ok(())
        })();
        written.map_err(|e| Error::file(&path, format!("cannot be written: {e}")))?;
        self.files.push((file, path));
        Ok(())
    }

    /// Writes a file beside the table: `labels.csv` and `tree.json` give `labels.tree.json`.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn side(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.main.with_extension(name);
        let mut file = beside(&path)?;
        file.write_all(content)
            .map_err(|e| Error::file(&path, reason(&e)))?;
        self.files.push((file, path));
        Ok(())
    }

    /// Moves everything to its final name.
    ///
    /// # Errors
    /// The disk fails; files moved before that are taken away again.
    pub fn finish(self) -> Result<Vec<PathBuf>> {
        for (file, path) in &self.files {
            file.as_file()
                .sync_all()
                .map_err(|e| Error::file(path, reason(&e)))?;
        }
        let mut done = Vec::new();
        for (file, path) in self.files {
            if let Err(e) = file.persist(&path) {
                for path in &done {
                    let _ = std::fs::remove_file(path);
                }
                return Err(Error::file(&path, reason(&e.error)));
            }
            done.push(path);
        }
        Ok(done)
    }
}

/// Writes one file whole, or not at all.
///
/// # Errors
/// The folder is missing or read-only, or the disk is full.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let mut file = beside(path)?;
    file.write_all(content)
        .and_then(|()| file.as_file().sync_all())
        .map_err(|e| Error::file(path, reason(&e)))?;
    file.persist(path)
        .map_err(|e| Error::file(path, reason(&e.error)))?;
    Ok(())
}

/// A new file in the folder of `path`, gone again unless it is moved.
fn beside(path: &Path) -> Result<NamedTempFile> {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(Error::file(
            path,
            format!("the folder {} does not exist", folder.display()),
        ));
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".papertrial-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o644));
    }
    builder
        .tempfile_in(folder)
        .map_err(|e| Error::file(path, format!("cannot be written: {}", reason(&e))))
}

fn format(path: &Path) -> Result<Format> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("csv") => Ok(Format::Csv),
        Some("jsonl" | "ndjson") => Ok(Format::Json),
        Some("parquet") => Ok(Format::Parquet),
        Some("arrow" | "feather" | "ipc") => Ok(Format::Ipc),
        _ => Err(Error::option(
            "--out",
            format!(
                "{} should end in .csv, .parquet, .arrow or .jsonl",
                path.display()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Table;
    use arrow::array::{ArrayRef, Float64Array};
    use std::sync::Arc;

    fn batch() -> RecordBatch {
        let column: ArrayRef = Arc::new(Float64Array::from(vec![1.5, -2.0]));
        RecordBatch::try_from_iter([("x", column)]).unwrap()
    }

    #[test]
    fn every_format_reads_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        for ending in ["csv", "jsonl", "parquet", "arrow"] {
            let path = dir.path().join(format!("t.{ending}"));
            let mut out = Output::table(&path).unwrap();
            out.write(&[batch()]).unwrap();
            assert!(!path.exists());
            out.finish().unwrap();
            let table = Table::open(&path, &Default::default()).unwrap();
            let back: Vec<RecordBatch> = table.batches().unwrap().map(Result::unwrap).collect();
            assert_eq!(back[0].column(0), batch().column(0), "{ending}");
        }
    }

    #[test]
    fn an_output_that_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut out = Output::table(&dir.path().join("t.csv")).unwrap();
        out.write(&[batch()]).unwrap();
        out.side("tree.json", b"{}").unwrap();
        drop(out);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn wrong_endings_and_missing_folders_are_told_at_once() {
        let e = Output::table(Path::new("labels.xlsx")).err().unwrap();
        assert!(e.to_string().contains(".csv"), "{e}");
        let e = Output::table(Path::new("no/such/labels.csv"))
            .err()
            .unwrap();
        assert!(e.to_string().contains("does not exist"), "{e}");
    }
}
