//! Flow tables as exporters write them, with the defects that published files have.
//!
//! Parquet, Arrow, JSON lines and packed text are ordinary tables. Text with separated cells is read here, line by line:
//! - a file without a header gets the names of the layout that has as many columns (NSL-KDD, UNSW-NB15), or the user's;
//! - spaces around names and cells are dropped, and a name that occurs again gets a number: `Fwd Header Length.1`;
//! - a line that repeats the header, as where files were joined, is dropped and counted;
//! - `Infinity` and `NaN` stay as they are: preparation knows what to do with them;
//! - bytes that are no UTF-8 are replaced by U+FFFD.
//!
//! All cells of such a file are texts; an empty one is null.

use super::schema::{Schema, built_in};
use super::source::{Batches, Source};
use arrow::array::{ArrayRef, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema as Columns, SchemaRef};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::{ReadOptions, Table};
use papertrial_core::{Error, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Rows of a batch, about.
const BATCH: usize = 8192;

/// Bytes read at once.
const PIECE: usize = 1 << 18;

/// A longer line is no row of flows.
const LONGEST: usize = 1 << 20;

/// A flow table on disk.
pub struct Exports {
    name: String,
    form: Form,
    notes: Arc<Mutex<Vec<String>>>,
}

enum Form {
    Table(Table),
    Text {
        path: PathBuf,
        read: ReadOptions,
        schema: Option<Box<Schema>>,
        columns: Vec<String>,
    },
}

impl Exports {
    /// Opens a file; `schema` helps where the file has no header.
    ///
    /// # Errors
    /// The file can't be read, is empty, or has neither a header nor a known layout.
    pub fn open(path: &Path, read: &ReadOptions, schema: Option<&Schema>) -> Result<Exports> {
        let name = path.display().to_string();
        let form = if is_text(path)? {
            let rows = Rows::new(file(path)?, &name, read, schema)?;
            Form::Text {
                path: path.into(),
                read: read.clone(),
                schema: schema.cloned().map(Box::new),
                columns: rows.columns().to_vec(),
            }
        } else {
            Form::Table(Table::open(path, read)?)
        };
        Ok(Exports {
            name,
            form,
            notes: Arc::default(),
        })
    }
}

fn file(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| Error::file(path, e))
}

/// Whether a file is text with separated cells, by its first bytes and its name.
fn is_text(path: &Path) -> Result<bool> {
    if path.is_dir() {
        return Err(Error::file(
            path,
            "is a folder; name a file: a flow table or a capture",
        ));
    }
    let mut start = Vec::new();
    file(path)?
        .take(6)
        .read_to_end(&mut start)
        .map_err(|e| Error::file(path, e))?;
    if start.is_empty() {
        return Err(Error::file(path, "is empty"));
    }
    let ending = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let others = [
        "gz", "jsonl", "ndjson", "json", "parquet", "arrow", "feather", "ipc", "npy",
    ];
    let binary = [&b"PAR1"[..], b"ARROW1", b"\x93NUMPY"];
    Ok(!others.contains(&ending.as_str()) && !binary.iter().any(|b| start.starts_with(b)))
}

impl Source for Exports {
    fn name(&self) -> &str {
        &self.name
    }

    fn columns(&self) -> Vec<String> {
        match &self.form {
            Form::Table(table) => Source::columns(table),
            Form::Text { columns, .. } => columns.clone(),
        }
    }

    fn batches(&self) -> Result<Batches> {
        match &self.form {
            Form::Table(table) => table.batches(),
            Form::Text {
                path, read, schema, ..
            } => Ok(Box::new(RowBatches {
                rows: Rows::new(file(path)?, &self.name, read, schema.as_deref())?,
                batch: BATCH,
                notes: self.notes.clone(),
                failed: false,
            })),
        }
    }

    fn notes(&self) -> Vec<String> {
        self.notes.lock().map(|n| n.clone()).unwrap_or_default()
    }
}

/// Rows of a text, as they come.
pub struct Rows<R> {
    input: R,
    name: String,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    over: bool,
    delimiter: u8,
    /// The header as it stands in the file.
    header: Option<Vec<u8>>,
    columns: Vec<String>,
    schema: SchemaRef,
    cells: Vec<StringBuilder>,
    waiting: usize,
    /// Lines so far.
    line: usize,
    repeated: u64,
    /// Rows with a wrong number of cells, where they are left out.
    crooked: Option<u64>,
}

impl<R: Read> Rows<R> {
    /// Reads as far as the first line.
    ///
    /// # Errors
    /// The input fails, is empty, or has neither a header nor a known layout.
    pub fn new(input: R, name: &str, read: &ReadOptions, schema: Option<&Schema>) -> Result<Self> {
        let mut rows = Rows {
            input,
            name: name.into(),
            buffer: vec![0; PIECE],
            start: 0,
            end: 0,
            over: false,
            delimiter: b',',
            header: None,
            columns: Vec::new(),
            schema: Arc::new(Columns::empty()),
            cells: Vec::new(),
            waiting: 0,
            line: 0,
            repeated: 0,
            crooked: None,
        };
        let first = loop {
            if let Some(line) = rows.peek() {
                let text = String::from_utf8_lossy(&rows.buffer[line.0..line.1]).into_owned();
                if !text.trim().is_empty() {
                    break text;
                }
                rows.start = line.2;
                rows.line += 1;
            } else if !rows.fill()? {
                return Err(Error::file(name, "is empty"));
            }
        };
        // Some programs put a byte order mark first.
        let first = first.trim_start_matches('\u{feff}');
        rows.delimiter = delimiter(first, read)?;
        let names: Vec<String> = split(first, rows.delimiter)
            .map(|c| c.trim().to_owned())
            .collect();
        let (names, header) = name_columns(name, names, read, schema)?;
        if header {
            rows.header = Some(first.trim().as_bytes().to_vec());
            if let Some(line) = rows.peek() {
                rows.start = line.2;
                rows.line += 1;
            }
        }
        rows.columns = distinct(names);
        let fields = rows.columns.iter();
        rows.schema = Arc::new(Columns::new(
            fields
                .map(|c| Field::new(c, DataType::Utf8, true))
                .collect::<Vec<_>>(),
        ));
        rows.cells = rows.columns.iter().map(|_| StringBuilder::new()).collect();
        Ok(rows)
    }

    /// The same, but rows with a wrong number of cells are left out and counted, as a stream must not end for one.
    pub fn lenient(mut self) -> Self {
        self.crooked = Some(0);
        self
    }

    /// Names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Lines that repeat the header, so far.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Rows that wait to be taken.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Takes the lines that are there, and if there is none, reads once from the input. `false` at the end.
    ///
    /// # Errors
    /// The input fails, a line is too long, or a row has a wrong number of cells.
    pub fn advance(&mut self) -> Result<bool> {
        let mut any = false;
        while let Some((from, to, next)) = self.peek() {
            any = true;
            self.line += 1;
            self.start = next;
            self.take_line(from, to)?;
        }
        if any {
            return Ok(true);
        }
        self.fill()
    }

    /// The rows that wait, as a table.
    ///
    /// # Errors
    /// None that data can cause.
    pub fn take(&mut self) -> Result<RecordBatch> {
        self.waiting = 0;
        let arrays = self
            .cells
            .iter_mut()
            .map(|c| Arc::new(c.finish()) as ArrayRef);
        RecordBatch::try_new(self.schema.clone(), arrays.collect())
            .map_err(|e| Error::Failed(e.to_string()))
    }

    /// Remarks for the reader.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.repeated > 0 {
            notes.push(format!(
                "{} lines of {} repeat the header and were left out",
                self.repeated, self.name
            ));
        }
        if let Some(n @ 1..) = self.crooked {
            notes.push(format!(
                "{n} lines of {} do not have {} cells and were left out",
                self.name,
                self.columns.len()
            ));
        }
        notes
    }

    /// The next whole line: its begin, its end, and the begin of the one after.
    fn peek(&self) -> Option<(usize, usize, usize)> {
        let data = &self.buffer[self.start..self.end];
        let length = match data.iter().position(|b| *b == b'\n') {
            Some(at) => at,
            None if self.over && !data.is_empty() => {
                return Some((self.start, self.end, self.end));
            }
            None => return None,
        };
        let end = self.start + length;
        Some((self.start, end, end + 1))
    }

    /// Reads once. `false` if there is nothing left.
    fn fill(&mut self) -> Result<bool> {
        if self.over {
            return Ok(false);
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            if self.end >= LONGEST {
                return Err(self.wrong(
                    self.line + 1,
                    format!("is longer than {LONGEST} bytes, so this is no table of flows"),
                ));
            }
            self.buffer.resize(2 * self.end, 0);
        }
        let n = loop {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(n) => break n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::file(&self.name, e)),
            }
        };
        self.end += n;
        self.over = n == 0;
        Ok(!self.over || self.end > self.start)
    }

    /// Puts the cells of a line into the columns.
    fn take_line(&mut self, from: usize, to: usize) -> Result<()> {
        let line = String::from_utf8_lossy(&self.buffer[from..to]);
        let line = line.trim_matches(['\r', ' ']);
        if line.is_empty() {
            return Ok(());
        }
        if self.header.as_deref() == Some(line.as_bytes()) {
            self.repeated += 1;
            return Ok(());
        }
        let count = split(line, self.delimiter).count();
        if count != self.columns.len() {
            if let Some(crooked) = &mut self.crooked {
                *crooked += 1;
                return Ok(());
            }
            let problem = format!(
                "has {count} cells where the table has {} columns",
                self.columns.len()
            );
            return Err(self.wrong(self.line, problem));
        }
        for (cell, to) in split(line, self.delimiter).zip(&mut self.cells) {
            match cell.trim() {
                "" => to.append_null(),
                cell if cell.starts_with('"') => to.append_value(unquoted(cell)),
                cell => to.append_value(cell),
            }
        }
        self.waiting += 1;
        Ok(())
    }

    fn wrong(&self, line: usize, problem: String) -> Error {
        Error::Line {
            path: self.name.clone().into(),
            line,
            problem,
        }
    }
}

/// The cells of a line, quotes included.
fn split(line: &str, delimiter: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut quoted = false;
        let end = text.bytes().position(|b| {
            quoted ^= b == b'"';
            b == delimiter && !quoted
        });
        match end {
            Some(end) => {
                rest = Some(&text[end + 1..]);
                Some(&text[..end])
            }
            None => {
                rest = None;
                Some(text)
            }
        }
    })
}

/// The content of a quoted cell; a doubled quote stands for one.
fn unquoted(cell: &str) -> String {
    let inner = cell.strip_prefix('"').unwrap_or(cell);
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    inner.replace("\"\"", "\"").trim().to_owned()
}

/// What separates the cells: what the user says, or what cuts the first line into most.
fn delimiter(first: &str, read: &ReadOptions) -> Result<u8> {
    if let Some(c) = read.delimiter {
        return u8::try_from(c).ok().filter(u8::is_ascii).ok_or_else(|| {
            Error::option(
                "--delimiter",
                format!("'{c}' takes more than one byte; use a comma, semicolon, tab or bar"),
            )
        });
    }
    let mut best = (1, b',');
    for delimiter in [b',', b'\t', b';', b'|'] {
        let cells = split(first, delimiter).count();
        if cells > best.0 {
            best = (cells, delimiter);
        }
    }
    Ok(best.1)
}

/// Names of the columns, and whether the first line, whose cells are `cells`, is a header.
fn name_columns(
    file: &str,
    cells: Vec<String>,
    read: &ReadOptions,
    schema: Option<&Schema>,
) -> Result<(Vec<String>, bool)> {
    let cells: Vec<String> = cells.iter().map(|c| unquoted(c)).collect();
    if !read.columns.is_empty() {
        if read.columns.len() != cells.len() {
            return Err(Error::file(
                file,
                format!(
                    "has {} columns where {} names are given",
                    cells.len(),
                    read.columns.len()
                ),
            ));
        }
        return Ok((read.columns.clone(), read.header == Some(true)));
    }
    let number = |c: &String| c.parse::<f64>().is_ok();
    let header = read.header.unwrap_or_else(|| !cells.iter().any(number));
    if header {
        return Ok((cells, true));
    }
    let known = built_in()?;
    let mut layouts = schema.into_iter().chain(&known).map(|s| &s.layout);
    // Some copies lack the last column, which is no feature.
    let layout =
        layouts.find(|l| !l.is_empty() && (cells.len() == l.len() || cells.len() + 1 == l.len()));
    match layout {
        Some(layout) => Ok((layout[..cells.len()].to_vec(), false)),
        None => Err(Error::file(
            file,
            format!(
                "has no header line, and no layout of a schema has {} columns; name them with --columns, or give a schema with a layout",
                cells.len()
            ),
        )),
    }
}

/// The same names, where one that occurs again gets a number.
fn distinct(names: Vec<String>) -> Vec<String> {
    let mut count: HashMap<String, usize> = HashMap::new();
    let mut all: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let seen = count.entry(name.clone()).or_default();
        let mut own = name.clone();
        while all.contains(&own) {
            *seen += 1;
            own = format!("{name}.{seen}");
        }
        all.push(own);
    }
    all
}

/// Batches of rows from a text.
pub(super) struct RowBatches<R> {
    pub rows: Rows<R>,
    /// A batch is handed out as soon as it has that many rows.
    pub batch: usize,
    /// Where the remarks go at the end.
    pub notes: Arc<Mutex<Vec<String>>>,
    /// Whether an error was given out.
    pub failed: bool,
}

impl<R: Read> Iterator for RowBatches<R> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed && self.rows.waiting() < self.batch {
            match self.rows.advance() {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) => {
                    self.failed = true;
                    return Some(Err(e));
                }
            }
        }
        if self.failed || self.rows.waiting() == 0 {
            if let Ok(mut notes) = self.notes.lock() {
                *notes = self.rows.notes();
            }
            return None;
        }
        Some(self.rows.take())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};

    /// A file of the user's data folder; without it the test is left out, and says so.
    pub fn real(file: &str) -> Option<PathBuf> {
        let path = std::env::var_os("PAPERTRIAL_DATA").map(|root| PathBuf::from(root).join(file));
        let path = path.filter(|p| p.is_file());
        if path.is_none() {
            eprintln!("left out: there is no {file} in the folder that PAPERTRIAL_DATA names");
        }
        path
    }

    type Row = Vec<Option<String>>;

    /// Columns, rows, remarks.
    fn read(text: &[u8]) -> Result<(Vec<String>, Vec<Row>, Vec<String>)> {
        let rows = Rows::new(text, "t.csv", &ReadOptions::default(), None)?;
        let columns = rows.columns().to_vec();
        let notes: Arc<Mutex<Vec<String>>> = Arc::default();
        let batches = RowBatches {
            rows,
            batch: 2,
            notes: notes.clone(),
            failed: false,
        };
        let mut all = Vec::new();
        for batch in batches {
            let batch = batch?;
            for row in 0..batch.num_rows() {
                let cell = |c: &ArrayRef| {
                    let c = c.as_string::<i32>();
                    c.is_valid(row).then(|| c.value(row).to_owned())
                };
                all.push(batch.columns().iter().map(cell).collect());
            }
        }
        let notes = notes.lock().unwrap().clone();
        Ok((columns, all, notes))
    }

    #[test]
    fn defects_of_flow_meters() {
        let text =
            b"\xef\xbb\xbf Flow ID, Fwd Header Length,Flow Bytes/s , Fwd Header Length,Label\r\n\
            a,1,Infinity,2,BENIGN\r\n\
            \r\n\
             Flow ID, Fwd Header Length,Flow Bytes/s , Fwd Header Length,Label\r\n\
            \"b,c\",,NaN,4,Web Attack \x96 XSS\r\n\
            d,5,1e3,6,\"say \"\"x\"\"\"";
        let (columns, rows, notes) = read(text).unwrap();
        assert_eq!(
            columns,
            [
                "Flow ID",
                "Fwd Header Length",
                "Flow Bytes/s",
                "Fwd Header Length.1",
                "Label"
            ]
        );
        let cell = |r: usize, c: usize| rows[r][c].as_deref();
        assert_eq!(rows.len(), 3);
        assert_eq!((cell(0, 2), cell(0, 3)), (Some("Infinity"), Some("2")));
        assert_eq!(
            (cell(1, 0), cell(1, 1), cell(1, 2)),
            (Some("b,c"), None, Some("NaN"))
        );
        assert_eq!(cell(1, 4), Some("Web Attack \u{fffd} XSS"));
        assert_eq!(cell(2, 4), Some("say \"x\""));
        assert_eq!(
            notes,
            ["1 lines of t.csv repeat the header and were left out"]
        );
    }

    #[test]
    fn names_that_occur_again_stay_apart() {
        let names = ["a", "a.1", "a", "a", "b"].map(str::to_owned).to_vec();
        assert_eq!(distinct(names), ["a", "a.1", "a.2", "a.3", "b"]);
    }

    #[test]
    fn files_without_header_get_the_layout_that_fits() {
        let mut row: Vec<String> = (0..43).map(|i| i.to_string()).collect();
        row[41] = "normal".into();
        let (columns, rows, _) = read(row.join(",").as_bytes()).unwrap();
        assert_eq!(
            (columns[0].as_str(), columns[41].as_str()),
            ("duration", "class")
        );
        assert_eq!(
            (columns[42].as_str(), rows[0][41].as_deref()),
            ("difficulty", Some("normal"))
        );
        row.pop();
        assert_eq!(read(row.join(",").as_bytes()).unwrap().0.len(), 42);
        let e = read(b"1,2,3\n").unwrap_err().to_string();
        assert!(e.contains("no layout of a schema has 3 columns"), "{e}");
    }

    #[test]
    fn what_is_no_table_says_where() {
        let e = read(b"a,b\n1,2\n3\n").unwrap_err().to_string();
        assert_eq!(e, "t.csv:3: has 1 cells where the table has 2 columns");
        for text in [&b""[..], b"\n \n"] {
            assert!(read(text).unwrap_err().to_string().contains("is empty"));
        }
        let mut long = b"a,b\n".to_vec();
        long.resize(3 << 20, b'x');
        assert!(read(&long).unwrap_err().to_string().contains("longer than"));
        let rows = Rows::new(&b"a;b\n1;2\n3\n4;5"[..], "t", &ReadOptions::default(), None).unwrap();
        let mut rows = rows.lenient();
        while rows.advance().unwrap() {}
        assert_eq!(rows.take().unwrap().num_rows(), 2);
        assert!(rows.notes()[0].starts_with("1 lines of t do not have 2 cells"));
    }

    #[test]
    fn nsl_kdd_as_published() {
        let Some(path) = real("nsl-kdd/KDDTrain+_20Percent.txt") else {
            return;
        };
        let table = Exports::open(&path, &ReadOptions::default(), None).unwrap();
        let columns = Source::columns(&table);
        assert_eq!((columns.len(), columns[1].as_str()), (43, "protocol_type"));
        let mut normal = 0;
        let mut rows = 0;
        for batch in table.batches().unwrap() {
            let batch = batch.unwrap();
            rows += batch.num_rows();
            let class = batch.column_by_name("class").unwrap().as_string::<i32>();
            normal += class.iter().filter(|c| *c == Some("normal")).count();
        }
        assert_eq!((rows, normal), (25_192, 13_449));
    }
}
