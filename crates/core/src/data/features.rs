//! Columns to compute with, as rows of f64: numbers, lists (embeddings) and categories.

use super::{Roles, Table};
use crate::error::{Error, Result};
use crate::task::{Context, matrix_bytes};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::record_batch::RecordBatch;
use ndarray::{Array2, ArrayViewMut2, s};

/// Most distinct values of a text column that is used as a category.
const MAX_CATEGORIES: usize = 128;

/// From here on, f64 cannot tell neighbouring whole numbers apart.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The feature columns of a table, read as a matrix or in chunks of rows.
#[derive(Debug, Clone)]
pub struct Features {
    table: Table,
    columns: Vec<Column>,
    names: Vec<String>,
}

#[derive(Debug, Clone)]
struct Column {
    index: usize,
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Number,
    /// Text in which every cell is a number, such as ` 5` with a blank in front.
    NumberText,
    List(usize),
    Category(Vec<String>),
}

impl Features {
    /// Finds out which columns are features and how each is read.
    ///
    /// Without names in `roles.features` these are all columns that have no other role, and all must be numbers
    /// or lists of numbers. A text column that is named becomes one column of 0 and 1 for each of its values.
    ///
    /// # Errors
    /// A named column is missing; a text column is not named; a cell that should be a number is not.
    pub fn of(table: &Table, roles: &Roles) -> Result<Features> {
        roles.check(table)?;
        let explicit = !roles.features.is_empty();
        let chosen: Vec<String> = if explicit {
            roles.features.clone()
        } else {
            let taken: Vec<&str> = roles.named().map(|(_, c)| c).collect();
            table
                .columns()
                .into_iter()
                .filter(|c| !taken.contains(c))
                .map(str::to_owned)
                .collect()
        };
        if chosen.is_empty() {
            return Err(Error::file(
                table.name(),
                "has no column left to compute with: every column has another role",
            ));
        }
        let mut columns = Vec::new();
        for name in &chosen {
            let index = table.column_for("--features", name)?;
            let kind = kind(table, index, name, explicit)?;
            columns.push(Column {
                index,
                name: name.clone(),
                kind,
            });
        }
        let names = columns
            .iter()
            .flat_map(|c| match &c.kind {
                Kind::Number | Kind::NumberText => vec![c.name.clone()],
                Kind::List(width) => (0..*width).map(|i| format!("{}[{i}]", c.name)).collect(),
                Kind::Category(values) => {
                    values.iter().map(|v| format!("{}={v}", c.name)).collect()
                }
            })
            .collect();
        Ok(Features {
            table: table.clone(),
            columns,
            names,
        })
    }

    /// Names of the matrix' columns.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Number of the matrix' columns.
    pub fn width(&self) -> usize {
        self.names.len()
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.table.rows()
    }

    /// Where the rows come from, for messages.
    pub fn source(&self) -> &str {
        self.table.name()
    }

    /// The rows in chunks \[some thousands, width\], from the first.
    ///
    /// # Errors
    /// The file cannot be opened; each chunk may tell of a broken file or of a cell that is empty, NaN, infinite
    /// or no number, with its row and column.
    pub fn chunks(&self) -> Result<impl Iterator<Item = Result<Array2<f64>>> + '_> {
        let mut start = 0usize;
        Ok(self.table.batches()?.map(move |batch| {
            let batch = batch?;
            let mut chunk = Array2::zeros((batch.num_rows(), self.width()));
            self.fill(&batch, start, chunk.view_mut())?;
            start += batch.num_rows();
            Ok(chunk)
        }))
    }

    /// All rows as one matrix \[rows, width\].
    ///
    /// # Errors
    /// As [`Features::chunks`], and [`Error::Memory`] if the matrix would not fit.
    pub fn matrix(&self, context: &Context) -> Result<Array2<f64>> {
        let rows = usize::try_from(self.rows()).unwrap_or(usize::MAX);
        context.require(
            &format!(
                "the matrix of {} rows and {} columns of {}",
                rows,
                self.width(),
                self.table.name()
            ),
            // The matrix, and about as much again for what is computed from it.
            matrix_bytes(self.rows(), self.width() as u64).saturating_mul(2),
        )?;
        let mut matrix = Array2::zeros((rows, self.width()));
        let mut start = 0;
        for batch in self.table.batches()? {
            let batch = batch?;
            let end = start + batch.num_rows();
            if end > rows {
                return Err(Error::file(self.table.name(), "changed while it was read"));
            }
            self.fill(&batch, start, matrix.slice_mut(s![start..end, ..]))?;
            start = end;
        }
        if start == rows {
            Ok(matrix)
        } else {
            Err(Error::file(self.table.name(), "changed while it was read"))
        }
    }

    fn fill(&self, batch: &RecordBatch, start: usize, mut to: ArrayViewMut2<f64>) -> Result<()> {
        let mut at = 0;
        for column in &self.columns {
            let wrong = |row: usize, problem: &str| {
                Error::column(
                    self.table.name(),
                    &column.name,
                    format!("row {} {problem}", start + row + 1),
                )
            };
            let array = batch.column(column.index);
            match &column.kind {
                Kind::Number => {
                    let numbers = cast(array, &DataType::Float64)
                        .map_err(|e| Error::column(self.table.name(), &column.name, e))?;
                    let numbers = numbers.as_primitive::<Float64Type>();
                    let whole = array.data_type().is_integer();
                    for row in 0..numbers.len() {
                        if numbers.is_null(row) {
                            return Err(wrong(
                                row,
                                "is empty; fill it in, or leave the column out with --features",
                            ));
                        }
                        let value = numbers.value(row);
                        finite(value).map_err(|p| wrong(row, p))?;
                        if whole && value.abs() >= EXACT {
                            return Err(wrong(
                                row,
                                "is a whole number too large to compute with exactly; if it identifies the row, name the column with --id",
                            ));
                        }
                        to[[row, at]] = value;
                    }
                    at += 1;
                }
                Kind::NumberText => {
                    for (row, cell) in cells(array).into_iter().enumerate() {
                        let text = cell.unwrap_or_default();
                        let value = number(&text).ok_or_else(|| {
                            wrong(row, &format!("holds '{text}', which is not a number"))
                        })?;
                        finite(value).map_err(|p| wrong(row, p))?;
                        to[[row, at]] = value;
                    }
                    at += 1;
                }
                Kind::List(width) => {
                    let lists = Lists::of(array)
                        .ok_or_else(|| wrong(0, "does not hold a list of numbers"))?;
                    for row in 0..array.len() {
                        if array.is_null(row) {
                            return Err(wrong(row, "has no list"));
                        }
                        let list = lists.row(row);
                        if list.len() != *width {
                            return Err(wrong(
                                row,
                                &format!(
                                    "has a list of {} numbers where row 1 has {width}",
                                    list.len()
                                ),
                            ));
                        }
                        for (i, value) in list.iter().enumerate() {
                            finite(*value).map_err(|p| wrong(row, p))?;
                            to[[row, at + i]] = *value;
                        }
                    }
                    at += width;
                }
                Kind::Category(values) => {
                    for (row, cell) in cells(array).into_iter().enumerate() {
                        let text = cell.ok_or_else(|| wrong(row, "is empty"))?;
                        // Values are sorted; a new one can only appear if the file changed.
                        let place = values
                            .binary_search(&text)
                            .map_err(|_| wrong(row, "changed while it was read"))?;
                        to[[row, at + place]] = 1.0;
                    }
                    at += values.len();
                }
            }
        }
        Ok(())
    }
}

fn finite(value: f64) -> std::result::Result<(), &'static str> {
    if value.is_nan() {
        Err("is NaN; fill it in, or leave the row out")
    } else if value.is_infinite() {
        Err("is infinite; a finite number is needed")
    } else {
        Ok(())
    }
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

fn kind(table: &Table, index: usize, name: &str, explicit: bool) -> Result<Kind> {
    let field = table.schema().field(index);
    match field.data_type() {
        t if t.is_numeric() || *t == DataType::Boolean => Ok(Kind::Number),
        DataType::FixedSizeList(item, width) if item.data_type().is_numeric() => {
            Ok(Kind::List(*width as usize))
        }
        DataType::List(item) | DataType::LargeList(item) if item.data_type().is_numeric() => {
            let width = match table.batches()?.next() {
                Some(batch) => {
                    let batch = batch?;
                    Lists::of(batch.column(index)).map_or(0, |l| l.row(0).len())
                }
                None => 0,
            };
            if width == 0 {
                return Err(Error::column(
                    table.name(),
                    name,
                    "row 1 has an empty list; every row needs a list of the same length",
                ));
            }
            Ok(Kind::List(width))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(_, _) => {
            text_kind(table, index, name, explicit)
        }
        DataType::Null => Err(Error::column(
            table.name(),
            name,
            "every cell is empty; leave it out with --features",
        )),
        other => Err(Error::column(
            table.name(),
            name,
            format!(
                "is of type {other}, which is not a number; leave it out with --features, or give it another role (--id, --time, --text)"
            ),
        )),
    }
}

/// A text column: numbers with a slip in them, or categories if the user named the column.
fn text_kind(table: &Table, index: usize, name: &str, explicit: bool) -> Result<Kind> {
    let mut values = std::collections::BTreeSet::new();
    let (mut numbers, mut others) = (0u64, 0u64);
    let mut first_other = None;
    let mut row = 0u64;
    for array in table.column(index)? {
        for cell in cells(&array) {
            row += 1;
            let text = cell.unwrap_or_default();
            if number(&text).is_some() {
                numbers += 1;
            } else {
                others += 1;
                first_other.get_or_insert((row, text.clone()));
            }
            if values.len() <= MAX_CATEGORIES {
                values.insert(text);
            }
        }
    }
    match first_other {
        None => Ok(Kind::NumberText),
        Some((row, text)) if numbers > others => Err(Error::column(
            table.name(),
            name,
            if text.trim().is_empty() {
                format!("row {row} is empty; fill it in, or leave the column out with --features")
            } else {
                format!("row {row} holds '{text}', which is not a number")
            },
        )),
        Some(_) if explicit && values.len() <= MAX_CATEGORIES => {
            Ok(Kind::Category(values.into_iter().collect()))
        }
        Some((row, text)) => {
            let numeric: Vec<&str> = table
                .schema()
                .fields()
                .iter()
                .filter(|f| f.data_type().is_numeric())
                .map(|f| f.name().as_str())
                .collect();
            let advice = if explicit {
                format!(
                    "it has more than {MAX_CATEGORIES} different values, too many for a category"
                )
            } else if numeric.is_empty() {
                "no column holds numbers; is the delimiter right? (--delimiter)".into()
            } else {
                format!(
                    "give it a role (--label, --id, --text, --group) or choose the columns to compute with: --features {}",
                    numeric.join(",")
                )
            };
            Err(Error::column(
                table.name(),
                name,
                format!("holds text (row {row}: '{text}'), not numbers; {advice}"),
            ))
        }
    }
}

/// Cells of a text or dictionary column; `None` for an empty one.
pub(super) fn cells(array: &ArrayRef) -> Vec<Option<String>> {
    match cast(array, &DataType::Utf8) {
        Ok(text) => text
            .as_string::<i32>()
            .iter()
            .map(|c| c.map(str::to_owned))
            .collect(),
        Err(_) => vec![None; array.len()],
    }
}

/// A list column as f64: all its numbers, and where each row's begin.
struct Lists {
    numbers: Vec<f64>,
    starts: Vec<usize>,
}

impl Lists {
    /// Converts the whole column at once; an empty number becomes NaN. `None` if it is no list of numbers.
    fn of(array: &ArrayRef) -> Option<Lists> {
        let (values, starts): (&ArrayRef, Vec<usize>) = match array.data_type() {
            DataType::FixedSizeList(_, width) => {
                let list = array.as_fixed_size_list();
                let width = *width as usize;
                let first = list.value_offset_at(0);
                let starts = (0..=list.len()).map(|i| first + i * width).collect();
                (list.values(), starts)
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let starts = list.value_offsets().iter().map(|o| *o as usize).collect();
                (list.values(), starts)
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                let starts = list.value_offsets().iter().map(|o| *o as usize).collect();
                (list.values(), starts)
            }
            _ => return None,
        };
        let numbers = cast(values, &DataType::Float64).ok()?;
        let numbers = numbers.as_primitive::<Float64Type>();
        let numbers = if numbers.null_count() == 0 {
            numbers.values().to_vec()
        } else {
            numbers.iter().map(|v| v.unwrap_or(f64::NAN)).collect()
        };
        Some(Lists { numbers, starts })
    }

    fn row(&self, row: usize) -> &[f64] {
        &self.numbers[self.starts[row]..self.starts[row + 1]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn open(name: &str, content: &str) -> Result<Table> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        // The folder must outlive the table.
        std::mem::forget(dir);
        Table::open(&path, &Default::default())
    }

    fn matrix(table: &Table, roles: &Roles) -> Result<Array2<f64>> {
        Features::of(table, roles)?.matrix(&Context::with_seed(0))
    }

    fn roles(label: Option<&str>, features: &[&str]) -> Roles {
        Roles {
            label: label.map(str::to_owned),
            features: features.iter().map(|f| f.to_string()).collect(),
            ..Roles::default()
        }
    }

    #[test]
    fn label_is_left_out_and_numbers_come_as_they_are() {
        let t = open("a.csv", "x,y,kind\n1,2.5,a\n-3,4e2,b\n").unwrap();
        let f = Features::of(&t, &roles(Some("kind"), &[])).unwrap();
        assert_eq!(f.names(), ["x", "y"]);
        assert_eq!(
            f.matrix(&Context::with_seed(0)).unwrap(),
            array![[1., 2.5], [-3., 400.]]
        );
        let chunks: Vec<_> = f.chunks().unwrap().map(Result::unwrap).collect();
        assert_eq!(chunks, [array![[1., 2.5], [-3., 400.]]]);
    }

    #[test]
    fn categories_must_be_named() {
        let t = open("a.csv", "x,kind\n1,b\n2,a\n3,b\n").unwrap();
        let e = matrix(&t, &roles(None, &[])).unwrap_err().to_string();
        assert!(e.contains("'kind'") && e.contains("--features x"), "{e}");
        let m = matrix(&t, &roles(None, &["x", "kind"])).unwrap();
        assert_eq!(m, array![[1., 0., 1.], [2., 1., 0.], [3., 0., 1.]]);
    }

    #[test]
    fn a_word_among_numbers_is_named_with_row_and_column() {
        let t = open("a.csv", "x,y\n1,2\n3,oops\n5,6\n").unwrap();
        let e = matrix(&t, &roles(None, &[])).unwrap_err().to_string();
        assert!(
            e.contains("'y'") && e.contains("row 2") && e.contains("oops"),
            "{e}"
        );
    }

    #[test]
    fn blanks_around_numbers_do_no_harm() {
        let t = open("a.csv", "x,y\n1, 2\n3, 4\n").unwrap();
        assert_eq!(
            matrix(&t, &roles(None, &[])).unwrap(),
            array![[1., 2.], [3., 4.]]
        );
    }

    #[test]
    fn nan_infinity_and_gaps_are_named() {
        for (content, told) in [
            ("x,y\n1,2\n3,NaN\n", "row 2 is NaN"),
            ("x,y\n1,2\n3,inf\n", "row 2 is infinite"),
            ("x,y\n1,2\n3,\n", "row 2 is empty"),
            ("x,y\n1,2\n3,9007199254740993\n", "too large"),
        ] {
            let t = open("a.csv", content).unwrap();
            let e = matrix(&t, &roles(None, &[])).unwrap_err().to_string();
            assert!(e.contains("'y'") && e.contains(told), "{e}");
        }
    }

    #[test]
    fn lists_become_columns_and_must_have_one_length() {
        let t = open("a.jsonl", "{\"v\":[1,2]}\n{\"v\":[3,4]}\n").unwrap();
        assert_eq!(
            matrix(&t, &roles(None, &[])).unwrap(),
            array![[1., 2.], [3., 4.]]
        );
        let t = open("a.jsonl", "{\"v\":[1,2]}\n{\"v\":[3]}\n").unwrap();
        let e = matrix(&t, &roles(None, &[])).unwrap_err().to_string();
        assert!(e.contains("row 2 has a list of 1"), "{e}");
    }

    #[test]
    fn embeddings_of_parquet_are_read_batch_by_batch() {
        use arrow::array::{FixedSizeListArray, Float32Array};
        use arrow::datatypes::Field;
        use std::sync::Arc;
        // More rows than a batch, so that later batches start in the middle of the numbers.
        let rows = 10_000;
        let numbers = Float32Array::from_iter_values((0..rows * 3).map(|i| i as f32));
        let item = Arc::new(Field::new_list_field(DataType::Float32, true));
        let lists = FixedSizeListArray::new(item, 3, Arc::new(numbers), None);
        let batch = RecordBatch::try_from_iter([("v", Arc::new(lists) as ArrayRef)]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.parquet");
        let mut out = crate::data::Output::table(&path).unwrap();
        out.write(&[batch.slice(0, 1), batch.slice(1, rows as usize - 1)])
            .unwrap();
        out.finish().unwrap();
        let t = Table::open(&path, &Default::default()).unwrap();
        let m = matrix(&t, &Roles::default()).unwrap();
        assert_eq!(m.dim(), (rows as usize, 3));
        assert!(m.iter().enumerate().all(|(i, v)| *v == i as f64));
    }

    #[test]
    fn a_missing_column_suggests_the_nearest() {
        let t = open("a.csv", "width,height\n1,2\n").unwrap();
        let e = matrix(&t, &roles(Some("hieght"), &[]))
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("--label") && e.contains("did you mean 'height'"),
            "{e}"
        );
        let e = matrix(&t, &roles(Some("width"), &["width"]))
            .unwrap_err()
            .to_string();
        assert!(e.contains("can't be a feature too"), "{e}");
    }

    #[test]
    fn memory_limit_refuses_the_matrix() {
        let t = open("a.csv", "x,y\n1,2\n3,4\n").unwrap();
        let f = Features::of(&t, &Roles::default()).unwrap();
        let context = Context {
            memory: Some(10),
            ..Context::with_seed(0)
        };
        assert!(matches!(f.matrix(&context), Err(Error::Memory { .. })));
    }
}
