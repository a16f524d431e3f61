//! CSV: the dialect is found from the first lines, the types from all of them.

use super::table::{Batches, ReadOptions, text};
use crate::error::{Error, Result};
use arrow::csv::reader::{Format, ReaderBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// What separates the cells, and whether the first line holds names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Dialect {
    pub delimiter: u8,
    pub header: bool,
}

/// Bytes of the file from which the dialect is guessed.
const SAMPLE: u64 = 1 << 16;

/// Dialect, schema and number of rows.
pub(super) fn facts(path: &Path, read: &ReadOptions) -> Result<(Dialect, SchemaRef, u64)> {
    let mut sample = Vec::new();
    text(path)?
        .take(SAMPLE)
        .read_to_end(&mut sample)
        .map_err(|e| Error::file(path, super::reason(&e)))?;
    if sample.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::file(path, "is empty"));
    }
    let sample = String::from_utf8_lossy(&sample);
    let delimiter = match read.delimiter {
        Some(c) => u8::try_from(c).map_err(|_| {
            Error::option(
                "--delimiter",
                format!("'{c}' takes more than one byte; use a comma, semicolon, tab or bar"),
            )
        })?,
        None => guess_delimiter(&sample),
    };
    let header = read
        .header
        .unwrap_or_else(|| read.columns.is_empty() && guess_header(&sample, delimiter));
    let dialect = Dialect { delimiter, header };
    let (schema, rows) = format(&dialect)
        .infer_schema(text(path)?, None)
        .map_err(|e| wrong(path, &e))?;
    if rows == 0 {
        return Err(Error::file(
            path,
            "has a header line and no rows (if that line is data, say --no-header)",
        ));
    }
    let schema = if read.columns.is_empty() {
        schema
    } else {
        renamed(path, &schema, &read.columns)?
    };
    Ok((dialect, Arc::new(schema), rows as u64))
}

/// The rows in batches of the given schema.
pub(super) fn batches(
    path: &Path,
    dialect: &Dialect,
    schema: &SchemaRef,
    batch: usize,
) -> Result<Batches> {
    let reader = ReaderBuilder::new(schema.clone())
        .with_format(format(dialect))
        .with_batch_size(batch)
        .build_buffered(text(path)?)
        .map_err(|e| wrong(path, &e))?;
    let path = path.to_owned();
    Ok(Box::new(
        reader.map(move |b| b.map_err(|e| wrong(&path, &e))),
    ))
}

fn format(dialect: &Dialect) -> Format {
    Format::default()
        .with_header(dialect.header)
        .with_delimiter(dialect.delimiter)
}

fn renamed(path: &Path, schema: &Schema, names: &[String]) -> Result<Schema> {
    if schema.fields().len() != names.len() {
        return Err(Error::file(
            path,
            format!(
                "has {} columns where {} names are given",
                schema.fields().len(),
                names.len()
            ),
        ));
    }
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .zip(names)
        .map(|(f, name)| {
            // A column in which every cell is empty has no type of its own.
            let kind = match f.data_type() {
                DataType::Null => DataType::Utf8,
                other => other.clone(),
            };
            Field::new(name, kind, true)
        })
        .collect();
    Ok(Schema::new(fields))
}

/// The delimiter that cuts the first lines into the most cells, the same number in each.
fn guess_delimiter(sample: &str) -> u8 {
    let lines: Vec<&str> = sample
        .lines()
        .filter(|l| !l.trim().is_empty())
        .take(20)
        .collect();
    // The last line of a full sample may be cut in the middle.
    let lines = if lines.len() > 2 {
        &lines[..lines.len() - 1]
    } else {
        &lines[..]
    };
    let mut best = (false, 0, b',');
    for delimiter in [b',', b'\t', b';', b'|'] {
        let counts: Vec<usize> = lines.iter().map(|l| cells(l, delimiter).len()).collect();
        let fewest = counts.iter().copied().min().unwrap_or(0);
        let even = counts.iter().all(|c| *c == fewest);
        if fewest > 1 && (even, fewest) > (best.0, best.1) {
            best = (even, fewest, delimiter);
        }
    }
    best.2
}

/// The first line holds names if none of its cells is a number while a later line has one, or if nothing is a
/// number and the first line's cells all differ.
fn guess_header(sample: &str, delimiter: u8) -> bool {
    let mut lines = sample.lines().filter(|l| !l.trim().is_empty());
    let first = lines
        .next()
        .map(|l| cells(l, delimiter))
        .unwrap_or_default();
    let number = |c: &String| c.trim().parse::<f64>().is_ok();
    if first.iter().any(number) {
        return false;
    }
    let later_number = lines
        .take(20)
        .any(|l| cells(l, delimiter).iter().any(number));
    let distinct: std::collections::HashSet<&String> = first.iter().collect();
    later_number || distinct.len() == first.len()
}

/// Cells of one line; a quoted cell may hold the delimiter.
fn cells(line: &str, delimiter: u8) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        if c == '"' {
            quoted = !quoted;
        } else if c == char::from(delimiter) && !quoted {
            cells.push(String::new());
        } else if let Some(cell) = cells.last_mut() {
            cell.push(c);
        }
    }
    cells
}

/// Arrow's message, without its own class of error in front.
fn wrong(path: &Path, e: &ArrowError) -> Error {
    let text = match e {
        ArrowError::CsvError(text) => text.clone(),
        other => other.to_string(),
    };
    let hint = if text.contains("incorrect number of fields") || text.contains("unequal lengths") {
        "; every row needs the same number of cells (--delimiter sets what separates them)"
    } else if text.to_lowercase().contains("utf-8") {
        "; the file must be UTF-8 text"
    } else {
        ""
    };
    Error::file(path, format!("{text}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiter_is_the_one_that_cuts_evenly() {
        assert_eq!(guess_delimiter("a,b\n1,2\n3,4\n"), b',');
        assert_eq!(guess_delimiter("a;b\n1,5;2\n3;4,5\n"), b';');
        assert_eq!(guess_delimiter("a\tb c\n1\t2 3\n"), b'\t');
        assert_eq!(guess_delimiter("x|y|z\n1|2|3\n"), b'|');
        assert_eq!(guess_delimiter("name,\"a;b;c\"\n1,\"d;e;f\"\n"), b',');
        assert_eq!(guess_delimiter("single\n1\n2\n"), b',');
    }

    #[test]
    fn header_is_told_from_data() {
        assert!(guess_header("a,b\n1,2\n", b','));
        assert!(!guess_header("1,2\n3,4\n", b','));
        assert!(!guess_header("5.1,setosa\n4.9,setosa\n", b','));
        assert!(guess_header("name,town\nanna,rome\n", b','));
        assert!(!guess_header("rome,rome\nanna,rome\n", b','));
    }
}
