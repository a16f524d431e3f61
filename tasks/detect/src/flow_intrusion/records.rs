//! Rows of a flow table as they are: numbers in double precision, levels of categorical columns as numbered texts.

use super::schema::{Schema, names};
use super::source::Source;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::record_batch::RecordBatch;
use papertrial_core::{Error, Result};
use rayon::prelude::*;
use std::collections::HashMap;

/// A column of texts, each text kept once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Texts {
    /// The texts, in the order in which they first occur.
    pub known: Vec<String>,
    /// For each row its text's place in `known`.
    pub at: Vec<u32>,
    numbers: HashMap<String, u32>,
}

impl Texts {
    /// Adds a row.
    fn push(&mut self, text: &str) {
        let number = match self.numbers.get(text) {
            Some(number) => *number,
            None => {
                let number = self.known.len() as u32;
                self.known.push(text.to_owned());
                self.numbers.insert(text.to_owned(), number);
                number
            }
        };
        self.at.push(number);
    }

    /// The text of a row.
    pub fn of(&self, row: usize) -> &str {
        &self.known[self.at[row] as usize]
    }
}

/// Where the columns of a schema are in a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Places {
    numeric: Vec<usize>,
    categorical: Vec<usize>,
    class: Option<usize>,
    test: Option<usize>,
    time: Option<usize>,
}

impl Places {
    /// Finds them among `columns` of `source`; `class` is the user's name of the column with the class.
    ///
    /// # Errors
    /// A column that is looked at is missing (all of them are listed), occurs twice, or `class` is not there.
    pub fn find(
        schema: &Schema,
        source: &str,
        columns: &[String],
        class: Option<&str>,
    ) -> Result<Places> {
        let place = |name: &str| columns.iter().position(|c| c == name);
        let missing: Vec<&str> = schema
            .features()
            .filter(|name| place(name).is_none())
            .collect();
        if !missing.is_empty() {
            return Err(Error::BadInput(format!(
                "{source}: {} of the {} columns of schema {} are missing: {}",
                missing.len(),
                schema.features().count(),
                schema.name,
                names(missing)
            )));
        }
        if let Some(twice) = schema
            .features()
            .find(|name| columns.iter().filter(|c| c == name).count() > 1)
        {
            return Err(Error::BadInput(format!(
                "{source}: two columns are named '{twice}'; every column needs a name of its own"
            )));
        }
        let class = match class {
            Some(name) => Some(place(name).ok_or_else(|| {
                Error::unknown(
                    "column",
                    name,
                    columns.iter().map(String::as_str),
                    format!(
                        "option --label; {source} has {}",
                        names(columns.iter().map(String::as_str))
                    ),
                )
            })?),
            None => schema.class.iter().find_map(|name| place(name)),
        };
        Ok(Places {
            numeric: schema.numeric.iter().filter_map(|c| place(c)).collect(),
            categorical: schema.categorical.iter().filter_map(|c| place(c)).collect(),
            class,
            test: schema.test.as_deref().and_then(place),
            time: schema.time.as_deref().and_then(place),
        })
    }

    /// Whether the source says what each flow is.
    pub fn labelled(&self) -> bool {
        self.class.is_some()
    }
}

/// Rows as they are, column by column.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Records {
    /// Number of rows.
    pub rows: usize,
    /// Numeric columns in schema order; an empty cell is NaN.
    pub numeric: Vec<Vec<f64>>,
    /// Categorical columns in schema order.
    pub categorical: Vec<Texts>,
    /// The class, if the source has it.
    pub class: Option<Texts>,
    /// The test flag, if the source has it.
    pub test: Option<Texts>,
    /// Rows whose time is before that of the row above.
    pub backward: usize,
    last_time: Option<f64>,
}

impl Records {
    /// No rows yet.
    pub fn new(places: &Places) -> Records {
        Records {
            numeric: vec![Vec::new(); places.numeric.len()],
            categorical: vec![Texts::default(); places.categorical.len()],
            class: places.class.map(|_| Texts::default()),
            test: places.test.map(|_| Texts::default()),
            ..Records::default()
        }
    }

    /// All rows of a source.
    ///
    /// # Errors
    /// Missing columns, texts where numbers should be, no rows, or a broken source.
    pub fn read(source: &dyn Source, schema: &Schema, class: Option<&str>) -> Result<Records> {
        let places = Places::find(schema, source.name(), &source.columns(), class)?;
        let mut records = Records::new(&places);
        for batch in source.batches()? {
            records.push(&batch?, &places, schema, source.name())?;
        }
        if records.rows == 0 {
            return Err(Error::BadInput(format!("{}: has no rows", source.name())));
        }
        Ok(records)
    }

    /// Adds the rows of a batch.
    ///
    /// # Errors
    /// A text where a number should be, with its row and column.
    pub fn push(
        &mut self,
        batch: &RecordBatch,
        places: &Places,
        schema: &Schema,
        source: &str,
    ) -> Result<()> {
        let first = self.rows;
        self.numeric
            .par_iter_mut()
            .zip(&places.numeric)
            .zip(&schema.numeric)
            .try_for_each(|((column, place), name)| {
                push_numbers(column, batch.column(*place)).map_err(|e| {
                    Error::column(
                        source,
                        name,
                        format!("row {}: {}", first + e.row + 1, e.problem),
                    )
                })
            })?;
        self.categorical
            .par_iter_mut()
            .zip(&places.categorical)
            .zip(&schema.categorical)
            .try_for_each(|((column, place), name)| {
                push_texts(column, batch.column(*place)).map_err(|e| Error::column(source, name, e))
            })?;
        for (column, place) in [
            (&mut self.class, places.class),
            (&mut self.test, places.test),
        ] {
            if let (Some(column), Some(place)) = (column, place) {
                push_texts(column, batch.column(place))
                    .map_err(|e| Error::column(source, batch.schema().field(place).name(), e))?;
            }
        }
        if let Some(place) = places.time {
            // Times that are no numbers cannot be compared here; they are for people only.
            let mut times = Vec::new();
            if push_numbers(&mut times, batch.column(place)).is_ok() {
                for time in times {
                    if self.last_time.is_some_and(|last| time < last) {
                        self.backward += 1;
                    }
                    self.last_time = Some(time);
                }
            }
        }
        self.rows += batch.num_rows();
        Ok(())
    }

    /// Whether each flow is an attack; `None` where the source says nothing.
    ///
    /// # Errors
    /// No flow has a benign class, or all have: one class teaches nothing, and a benign class in an unknown spelling
    /// would make every flow an attack.
    pub fn attacks(&self, schema: &Schema, source: &str) -> Result<Option<Vec<bool>>> {
        let Some(class) = &self.class else {
            return Ok(None);
        };
        let attack: Vec<bool> = class.known.iter().map(|c| schema.is_attack(c)).collect();
        let shown: Vec<&str> = class.known.iter().take(12).map(String::as_str).collect();
        if attack.iter().all(|a| *a) {
            return Err(Error::BadInput(format!(
                "{source}: no flow has the benign class of schema {} ({}); the classes are {}; if another one is benign, say so in a schema of your own",
                schema.name,
                schema.benign.join(" or "),
                names(shown)
            )));
        }
        if attack.iter().all(|a| !*a) {
            return Err(Error::BadInput(format!(
                "{source}: all {} flows are benign ({}); a detector needs attacks as well",
                self.rows,
                names(shown)
            )));
        }
        Ok(Some(
            class.at.iter().map(|at| attack[*at as usize]).collect(),
        ))
    }
}

/// A cell that is no number.
struct NoNumber {
    row: usize,
    problem: String,
}

/// Adds the numbers of an array; empty cells become NaN.
fn push_numbers(to: &mut Vec<f64>, array: &ArrayRef) -> std::result::Result<(), NoNumber> {
    let kind = array.data_type();
    if kind.is_numeric() || *kind == DataType::Boolean {
        let numbers = cast(array, &DataType::Float64).map_err(|e| NoNumber {
            row: 0,
            problem: e.to_string(),
        })?;
        let numbers = numbers.as_primitive::<Float64Type>();
        if numbers.null_count() == 0 {
            to.extend_from_slice(numbers.values());
        } else {
            to.extend(numbers.iter().map(|v| v.unwrap_or(f64::NAN)));
        }
        return Ok(());
    }
    let texts = cast(array, &DataType::Utf8).map_err(|_| NoNumber {
        row: 0,
        problem: format!("holds {kind}, not numbers"),
    })?;
    to.reserve(texts.len());
    for (row, cell) in texts.as_string::<i32>().iter().enumerate() {
        let cell = cell.map_or("", str::trim);
        let number = if cell.is_empty() {
            f64::NAN
        } else {
            // `Infinity` and `NaN`, in any case, are numbers here.
            cell.parse().map_err(|_| NoNumber {
                row,
                problem: format!(
                    "'{cell}' is not a number; if the column holds names, list it as categorical"
                ),
            })?
        };
        to.push(number);
    }
    Ok(())
}

/// Adds the texts of an array; whole numbers look the same whatever their type: `80`, never `80.0`.
fn push_texts(to: &mut Texts, array: &ArrayRef) -> std::result::Result<(), String> {
    let texts = cast(array, &DataType::Utf8).map_err(|e| e.to_string())?;
    to.at.reserve(texts.len());
    for cell in texts.as_string::<i32>() {
        to.push(plain(cell.unwrap_or_default()));
    }
    Ok(())
}

fn plain(text: &str) -> &str {
    let text = text.trim();
    match text.strip_suffix(".0") {
        Some(whole) if whole.bytes().all(|b| b.is_ascii_digit() || b == b'-') => whole,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray};
    use papertrial_core::data::Table;
    use std::sync::Arc;

    fn schema() -> Schema {
        toml::from_str(
            "name = 'mine'\nnumeric = ['bytes', 'rate']\ncategorical = ['port']\nclass = ['kind', 'label']\nbenign = ['ok', '0']\ntime = 'at'\n",
        )
        .unwrap()
    }

    fn table(columns: Vec<(&str, ArrayRef)>) -> Table {
        Table::memory("flows", vec![RecordBatch::try_from_iter(columns).unwrap()])
    }

    fn texts(cells: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(cells.to_vec()))
    }

    #[test]
    fn cells_of_any_type_become_numbers_and_texts() {
        let source = table(vec![
            (
                "port",
                Arc::new(Float64Array::from(vec![Some(80.0), Some(80.5), None])) as ArrayRef,
            ),
            ("rate", texts(&[" Infinity", "nan", ""])),
            (
                "bytes",
                Arc::new(Int64Array::from(vec![1, 2, 9_007_199_254_740_992])) as ArrayRef,
            ),
            (
                "label",
                Arc::new(Int64Array::from(vec![0, 1, 1])) as ArrayRef,
            ),
            ("at", Arc::new(Int64Array::from(vec![5, 4, 6])) as ArrayRef),
        ]);
        let records = Records::read(&source, &schema(), None).unwrap();
        assert_eq!(records.numeric[0][2], 9_007_199_254_740_992.0);
        assert!(records.numeric[1][0].is_infinite() && records.numeric[1][2].is_nan());
        let ports: Vec<&str> = (0..3).map(|i| records.categorical[0].of(i)).collect();
        assert_eq!(ports, ["80", "80.5", ""]);
        assert_eq!(records.backward, 1);
        let attack = records.attacks(&schema(), "flows").unwrap().unwrap();
        assert_eq!(attack, [false, true, true]);
    }

    #[test]
    fn what_does_not_fit_is_told_with_all_names() {
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
        let e = Records::read(&table(vec![("port", flags.clone())]), &schema(), None);
        let text = e.unwrap_err().to_string();
        assert!(
            text.contains("2 of the 3") && text.contains("bytes, rate"),
            "{text}"
        );
        let source = table(vec![
            ("bytes", texts(&["1", "many"])),
            ("rate", texts(&["1", "2"])),
            ("port", texts(&["1", "2"])),
        ]);
        let text = Records::read(&source, &schema(), None)
            .unwrap_err()
            .to_string();
        assert!(text.contains("'bytes': row 2: 'many'"), "{text}");
        let text = Records::read(&source, &schema(), Some("kinds"))
            .unwrap_err()
            .to_string();
        assert!(text.contains("kinds"), "{text}");
    }

    #[test]
    fn one_class_alone_is_refused_with_its_spelling() {
        let of = |classes: &[&str]| {
            let n = classes.len();
            let source = table(vec![
                ("bytes", Arc::new(Int64Array::from(vec![1; n])) as ArrayRef),
                ("rate", Arc::new(Int64Array::from(vec![1; n])) as ArrayRef),
                ("port", Arc::new(Int64Array::from(vec![1; n])) as ArrayRef),
                ("kind", texts(classes)),
            ]);
            let records = Records::read(&source, &schema(), None).unwrap();
            records.attacks(&schema(), "flows")
        };
        let text = of(&["harmless", "scan"]).unwrap_err().to_string();
        assert!(
            text.contains("harmless, scan") && text.contains("ok or 0"),
            "{text}"
        );
        let text = of(&["ok", "OK"]).unwrap_err().to_string();
        assert!(text.contains("all 2 flows are benign"), "{text}");
        assert_eq!(of(&["ok", "scan"]).unwrap().unwrap(), [false, true]);
    }
}
