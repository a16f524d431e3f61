//! Reads a table as pairs: which columns are which side, and which rows are refused.

use super::duplicates::Seen;
use super::pairs::{Pairs, Shape, Side};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type};
use papertrial_core::data::{Roles, Table};
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};

/// Parts of a table that holds everything.
pub(super) const PARTS: [&str; 4] = ["pool", "clean", "test", "fine-tune"];

/// How a table is read as pairs.
#[derive(Debug, Clone)]
pub(super) struct Reading<'a> {
    /// Roles: id, text, label, and the left side as features.
    pub roles: &'a Roles,
    /// Column that says which part a row belongs to.
    pub part: &'a str,
    /// Column that says whether a pair is right.
    pub matches: &'a str,
    /// Shape of the images, where the user gives it.
    pub shape: Option<Shape>,
    /// Go on without rows that cannot be used.
    pub skip_bad: bool,
}

/// Some pairs of a table.
#[derive(Debug)]
pub(super) struct Chunk {
    /// The pairs, at least one.
    pub pairs: Pairs,
    /// Row of each in the table, from 0.
    pub rows: Vec<usize>,
    /// Index into [`PARTS`] for each pair, if the table has that column.
    pub parts: Option<Vec<usize>>,
}

/// One column of one batch.
enum Cells {
    Numbers(Vec<Option<f32>>),
    /// The numbers of all rows, and where each row's begin and end; `None` for a row without a list.
    Lists(Vec<Option<f32>>, Vec<Option<(usize, usize)>>),
    Texts(Vec<Option<String>>),
}

/// What has been read of one side.
#[derive(Default)]
struct Growing {
    values: Vec<f32>,
    width: Option<usize>,
    texts: Vec<String>,
}

/// Places of the columns of a table.
struct Columns {
    left: Vec<usize>,
    right: [usize; 1],
    uid: Option<usize>,
    label: Option<usize>,
    part: Option<usize>,
    matches: Option<usize>,
}

impl Reading<'_> {
    /// All pairs of a table, and what was wrong with the rows that were left out.
    ///
    /// # Errors
    /// As [`Reading::each`], and more pairs than fit into memory.
    pub fn read(&self, table: &Table, context: &Context) -> Result<(Pairs, Vec<String>)> {
        let mut all: Option<Pairs> = None;
        let bad = self.each(table, &mut |chunk| {
            all = Some(match all.take() {
                Some(pairs) => pairs.with(&chunk.pairs)?,
                None => {
                    fits_memory(table, &chunk.pairs, table.rows(), context)?;
                    chunk.pairs
                }
            });
            Ok(())
        })?;
        let pairs = all.ok_or_else(|| Error::file(table.name(), "has no row that can be used"))?;
        Ok((pairs, bad))
    }

    /// Hands all pairs over, some thousands at a time; gives what was wrong with the rows that were left out.
    ///
    /// # Errors
    /// A missing or unfit column, a repeated uid, no usable row, an error of `take`, and, unless bad rows are left out, the
    /// first row whose image or text cannot be used.
    pub fn each(
        &self,
        table: &Table,
        take: &mut dyn FnMut(Chunk) -> Result<()>,
    ) -> Result<Vec<String>> {
        let columns = self.columns(table)?;
        let names = table.columns();
        let name_of = |at: Option<usize>, other: &'static str| at.map_or(other, |i| names[i]);
        let stated = self.shape.or_else(|| tensor_shape(table, &columns.left));
        let mut widths = [None, None];
        let mut seen = Seen::default();
        let mut bad = Vec::new();
        let (mut first, mut usable) = (0, 0);
        for batch in table.batches()? {
            let batch = batch?;
            let side = |columns: &[usize]| -> Result<Vec<(Cells, &str)>> {
                let read = |i: &usize| Ok((cells(table, names[*i], batch.column(*i))?, names[*i]));
                columns.iter().map(read).collect()
            };
            let words = |at: Option<usize>| {
                at.map(|i| texts(table, names[i], batch.column(i)))
                    .transpose()
            };
            let (left_cells, right_cells) = (side(&columns.left)?, side(&columns.right)?);
            let (uid_cells, label_cells) = (words(columns.uid)?, words(columns.label)?);
            let (part_cells, match_cells) = (words(columns.part)?, words(columns.matches)?);
            let mut left = Growing::new(widths[0]);
            let mut right = Growing::new(widths[1]);
            let (mut uids, mut rows) = (Vec::new(), Vec::new());
            for r in 0..batch.num_rows() {
                let row = first + r;
                let uid = match &uid_cells {
                    None => (row + 1).to_string(),
                    Some(cells) => cells[r].as_deref().unwrap_or_default().trim().to_owned(),
                };
                let mut problem = None;
                if uid.is_empty() {
                    problem = Some((name_of(columns.uid, "uid"), "has no uid".to_owned()));
                }
                // Both sides are taken or neither, so that they stay in step.
                if problem.is_none() {
                    problem = left.take(&left_cells, r, "image").err();
                }
                if problem.is_none() {
                    problem = right.take(&right_cells, r, "text").err();
                    if problem.is_some() {
                        left.drop_last();
                    }
                }
                if let Some((column, problem)) = problem {
                    let shown = match columns.uid {
                        Some(_) if !uid.is_empty() => {
                            format!("row {} (uid {uid}) {problem}", row + 1)
                        }
                        _ => format!("row {} {problem}", row + 1),
                    };
                    if !self.skip_bad {
                        let hint = "mend it, or leave such rows out with --set skip-bad=true";
                        return Err(Error::column(
                            table.name(),
                            column,
                            format!("{shown}; {hint}"),
                        ));
                    }
                    bad.push(shown);
                    continue;
                }
                if !seen.first(&uid) {
                    return Err(Error::column(
                        table.name(),
                        name_of(columns.uid, "uid"),
                        format!(
                            "row {} has the uid {uid} of an earlier row; each pair needs its own",
                            row + 1
                        ),
                    ));
                }
                uids.push(uid);
                rows.push(row);
            }
            let taken = |cells: Option<Vec<Option<String>>>| {
                cells.map(|cells| -> Vec<String> {
                    let cell = |row: &usize| cells[row - first].as_deref().unwrap_or_default();
                    rows.iter().map(|row| cell(row).trim().to_owned()).collect()
                })
            };
            let (labels, parts) = (taken(label_cells), taken(part_cells));
            let parts = parts.map(|p| self.parts(table, &p, &rows)).transpose()?;
            let matches = taken(match_cells)
                .map(|m| self.flags(table, &m, &rows))
                .transpose()?;
            first += batch.num_rows();
            if rows.is_empty() {
                continue;
            }
            usable += rows.len();
            widths = [left.width, right.width];
            let (left, shape) = (left.side(), stated);
            if let (Some(shape), Side::Vectors { width, .. }) = (shape, &left)
                && shape.size() != *width
            {
                return Err(Error::option(
                    "image-shape",
                    format!(
                        "{} x {} x {} is not the {width} numbers that {} holds for each image",
                        shape.channels,
                        shape.height,
                        shape.width,
                        table.name()
                    ),
                ));
            }
            take(Chunk {
                pairs: Pairs {
                    uids,
                    left,
                    right: right.side(),
                    shape,
                    labels,
                    matches,
                },
                rows,
                parts,
            })?;
        }
        if usable == 0 {
            let why = bad.first().map_or("it is empty", String::as_str);
            return Err(Error::file(
                table.name(),
                format!("has no row that can be used: {why}"),
            ));
        }
        Ok(bad)
    }

    fn columns(&self, table: &Table) -> Result<Columns> {
        self.roles.check(table)?;
        let Some(text) = &self.roles.text else {
            return Err(Error::option(
                "--text",
                format!(
                    "name the column of {} that holds the texts, or their embeddings",
                    table.name()
                ),
            ));
        };
        let names = table.columns();
        let place = |name: &str| names.iter().position(|c| *c == name);
        let text = table.column_for("--text", text)?;
        Ok(Columns {
            left: self.left_columns(table, text)?,
            right: [text],
            uid: place(self.roles.id.as_deref().unwrap_or("uid")),
            label: self.roles.label.as_deref().and_then(place),
            part: place(self.part),
            matches: place(self.matches),
        })
    }

    /// Words for parts as indices into [`PARTS`].
    fn parts(&self, table: &Table, words: &[String], rows: &[usize]) -> Result<Vec<usize>> {
        let index = |(word, row): (&String, &usize)| {
            let found = PARTS.iter().position(|p| p == word);
            found.ok_or_else(|| {
                let known = PARTS.join(", ");
                Error::column(
                    table.name(),
                    self.part,
                    format!(
                        "row {} holds '{word}', not one of {known}; name another column with --set part",
                        row + 1
                    ),
                )
            })
        };
        words.iter().zip(rows).map(index).collect()
    }

    /// Words for whether each pair is known to be right; an empty cell is no.
    fn flags(&self, table: &Table, words: &[String], rows: &[usize]) -> Result<Vec<bool>> {
        let flag = |(word, row): (&String, &usize)| match word.as_str() {
            "" | "0" | "false" | "False" => Ok(false),
            "1" | "true" | "True" => Ok(true),
            other => Err(Error::column(
                table.name(),
                self.matches,
                format!(
                    "row {} holds '{other}', not true or false; name another column with --set matches",
                    row + 1
                ),
            )),
        };
        words.iter().zip(rows).map(flag).collect()
    }

    /// Columns of the left side: those named as features, else all that have no other role.
    fn left_columns(&self, table: &Table, text: usize) -> Result<Vec<usize>> {
        if !self.roles.features.is_empty() {
            let named = self.roles.features.iter();
            return named.map(|f| table.column_for("--features", f)).collect();
        }
        let taken: Vec<&str> = self
            .roles
            .named()
            .map(|(_, column)| column)
            .chain(["uid", self.part, self.matches])
            .collect();
        let left: Vec<usize> = (table.columns().iter().enumerate())
            .filter(|(i, c)| *i != text && !taken.contains(c))
            .map(|(i, _)| i)
            .collect();
        if left.is_empty() {
            return Err(Error::option(
                "--features",
                format!(
                    "{} has no column left for the images; name it, or the columns of their pixels or embeddings",
                    table.name()
                ),
            ));
        }
        Ok(left)
    }
}

impl Growing {
    /// For rows of `width` numbers, or of any where no row has been read yet.
    fn new(width: Option<usize>) -> Self {
        Growing {
            width,
            ..Growing::default()
        }
    }

    /// Takes row `r` of these columns, or says which column is at fault and why.
    fn take<'c>(
        &mut self,
        cells: &[(Cells, &'c str)],
        r: usize,
        what: &str,
    ) -> std::result::Result<(), (&'c str, String)> {
        let start = self.values.len();
        let outcome = self.append(cells, r, what);
        if outcome.is_err() {
            self.values.truncate(start);
        }
        outcome
    }

    fn append<'c>(
        &mut self,
        cells: &[(Cells, &'c str)],
        r: usize,
        what: &str,
    ) -> std::result::Result<(), (&'c str, String)> {
        if let [(Cells::Texts(texts), name)] = cells {
            return match texts[r].as_deref() {
                Some(text) if !text.trim().is_empty() => {
                    self.texts.push(text.to_owned());
                    Ok(())
                }
                _ => Err((name, format!("has no {what}"))),
            };
        }
        let start = self.values.len();
        let mut last = "";
        for (cells, name) in cells {
            last = name;
            let row: &[Option<f32>] = match cells {
                Cells::Numbers(numbers) => &numbers[r..=r],
                Cells::Lists(numbers, places) => match places[r] {
                    Some((from, to)) if from < to => &numbers[from..to],
                    _ => return Err((name, format!("has no {what}"))),
                },
                Cells::Texts(_) => {
                    let problem = "is text beside columns of numbers; name the columns of the images with --features";
                    return Err((name, problem.into()));
                }
            };
            for value in row {
                match value {
                    Some(v) if v.is_finite() => self.values.push(*v),
                    Some(v) => return Err((name, format!("holds {v}, not a finite number"))),
                    None => return Err((name, format!("has a gap in its {what}"))),
                }
            }
        }
        let width = self.values.len() - start;
        match self.width {
            Some(first) if first != width => Err((
                last,
                format!("has {width} numbers where the rows before have {first}"),
            )),
            _ => {
                self.width = Some(width);
                Ok(())
            }
        }
    }

    fn drop_last(&mut self) {
        match self.width {
            Some(width) => self.values.truncate(self.values.len() - width),
            None => {
                self.texts.pop();
            }
        }
    }

    fn side(self) -> Side {
        match self.width {
            Some(width) => Side::Vectors {
                values: self.values,
                width,
            },
            None => Side::Texts(self.texts),
        }
    }
}

/// Refuses `rows` pairs like these of `table` if they would not fit into memory.
pub(super) fn fits_memory(
    table: &Table,
    pairs: &Pairs,
    rows: u64,
    context: &Context,
) -> Result<()> {
    let numbers = |side: &Side| match side {
        Side::Vectors { width, .. } => *width as u64,
        Side::Texts(_) => 25,
    };
    context.require(
        &format!("{rows} pairs of {}", table.name()),
        // Each number once as read and once as a tower takes it, and some bytes for uid and place.
        rows.saturating_mul(8 * (numbers(&pairs.left) + numbers(&pairs.right)) + 100),
    )
}

/// The shape that a column of images states in the way of Arrow's fixed-shape tensors: height and width, with the
/// channels before them if there are any.
fn tensor_shape(table: &Table, left: &[usize]) -> Option<Shape> {
    let [column] = left else { return None };
    let facts = table.schema().field(*column).metadata();
    if facts.get("ARROW:extension:name")? != "arrow.fixed_shape_tensor" {
        return None;
    }
    let facts: serde_json::Value =
        serde_json::from_str(facts.get("ARROW:extension:metadata")?).ok()?;
    let sizes: Vec<usize> = serde_json::from_value(facts.get("shape")?.clone()).ok()?;
    match sizes[..] {
        [height, width] => Some(Shape {
            channels: 1,
            height,
            width,
        }),
        [channels, height, width] => Some(Shape {
            channels,
            height,
            width,
        }),
        _ => None,
    }
}

fn cells(table: &Table, name: &str, array: &ArrayRef) -> Result<Cells> {
    let floats = |values: &ArrayRef| -> Result<Vec<Option<f32>>> {
        let numbers =
            cast(values, &DataType::Float32).map_err(|e| Error::column(table.name(), name, e))?;
        Ok(numbers.as_primitive::<Float32Type>().iter().collect())
    };
    let places = |ends: &dyn Fn(usize) -> (usize, usize)| {
        (0..array.len())
            .map(|r| array.is_valid(r).then(|| ends(r)))
            .collect()
    };
    match array.data_type() {
        t if t.is_numeric() || *t == DataType::Boolean => Ok(Cells::Numbers(floats(array)?)),
        DataType::FixedSizeList(item, width) if item.data_type().is_numeric() => {
            let list = array.as_fixed_size_list();
            let width = *width as usize;
            let ends = |r: usize| {
                let start = r * width;
                (start, start + width)
            };
            Ok(Cells::Lists(floats(list.values())?, places(&ends)))
        }
        DataType::List(item) if item.data_type().is_numeric() => {
            let list = array.as_list::<i32>();
            let at = list.value_offsets();
            let ends = |r: usize| (at[r] as usize, at[r + 1] as usize);
            Ok(Cells::Lists(floats(list.values())?, places(&ends)))
        }
        DataType::LargeList(item) if item.data_type().is_numeric() => {
            let list = array.as_list::<i64>();
            let at = list.value_offsets();
            let ends = |r: usize| (at[r] as usize, at[r + 1] as usize);
            Ok(Cells::Lists(floats(list.values())?, places(&ends)))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(_, _) => {
            Ok(Cells::Texts(texts(table, name, array)?))
        }
        other => Err(Error::column(
            table.name(),
            name,
            format!(
                "is of type {other}; a side of a pair is numbers (pixels or an embedding), a list of them, or text"
            ),
        )),
    }
}

fn texts(table: &Table, name: &str, array: &ArrayRef) -> Result<Vec<Option<String>>> {
    let words = cast(array, &DataType::Utf8).map_err(|e| Error::column(table.name(), name, e))?;
    let words = words.as_string::<i32>();
    Ok(words.iter().map(|w| w.map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float32Array, ListArray, StringArray};
    use arrow::datatypes::{Field, Float64Type, Schema};
    use arrow::record_batch::RecordBatch;
    use std::collections::HashMap;
    use std::sync::Arc;

    fn roles() -> Roles {
        Roles {
            text: Some("caption".into()),
            id: Some("uid".into()),
            ..Roles::default()
        }
    }

    fn reading(roles: &Roles, skip_bad: bool) -> Reading<'_> {
        Reading {
            roles,
            part: "part",
            matches: "match",
            shape: None,
            skip_bad,
        }
    }

    type Row = (
        Option<&'static str>,
        Option<Vec<Option<f64>>>,
        Option<&'static str>,
    );

    fn table(rows: Vec<Row>) -> Table {
        let uids = StringArray::from_iter(rows.iter().map(|r| r.0));
        let images =
            ListArray::from_iter_primitive::<Float64Type, _, _>(rows.iter().map(|r| r.1.clone()));
        let captions = StringArray::from_iter(rows.iter().map(|r| r.2));
        let batch = RecordBatch::try_from_iter([
            ("uid", Arc::new(uids) as ArrayRef),
            ("image", Arc::new(images) as ArrayRef),
            ("caption", Arc::new(captions) as ArrayRef),
        ])
        .unwrap();
        // Two batches, the second of which begins in the middle of the numbers.
        let n = batch.num_rows();
        Table::memory("t", vec![batch.slice(0, 1), batch.slice(1, n - 1)])
    }

    fn good(uid: &'static str, first: f64) -> Row {
        (Some(uid), Some(vec![Some(first), Some(0.5)]), Some("a dog"))
    }

    #[test]
    fn lists_and_texts_become_sides() {
        let (pairs, bad) = reading(&roles(), false)
            .read(
                &table(vec![good("a", 1.0), good("b", 2.0), good("c", 3.0)]),
                &Context::with_seed(0),
            )
            .unwrap();
        assert_eq!(pairs.uids, ["a", "b", "c"]);
        assert_eq!(
            pairs.left,
            Side::Vectors {
                values: vec![1.0, 0.5, 2.0, 0.5, 3.0, 0.5],
                width: 2
            }
        );
        assert_eq!(pairs.right, Side::Texts(vec!["a dog".into(); 3]));
        assert!(bad.is_empty() && pairs.labels.is_none() && pairs.matches.is_none());
    }

    #[test]
    fn bad_rows_are_named_or_left_out() {
        let wrong: Vec<(Row, &str)> = vec![
            ((Some("x"), None, Some("a")), "has no image"),
            ((Some("x"), Some(vec![]), Some("a")), "has no image"),
            (
                (Some("x"), Some(vec![Some(1.0)]), Some("a")),
                "has 1 numbers where the rows before have 2",
            ),
            (
                (Some("x"), Some(vec![Some(f64::NAN), Some(1.0)]), Some("a")),
                "not a finite number",
            ),
            (
                (Some("x"), Some(vec![None, Some(1.0)]), Some("a")),
                "has a gap",
            ),
            (
                (Some("x"), Some(vec![Some(1.0), Some(1.0)]), Some("  ")),
                "has no text",
            ),
            (
                (Some(" "), Some(vec![Some(1.0), Some(1.0)]), Some("a")),
                "has no uid",
            ),
        ];
        for (row, told) in wrong {
            let table = table(vec![good("a", 1.0), row, good("c", 3.0)]);
            let text = reading(&roles(), false)
                .read(&table, &Context::with_seed(0))
                .unwrap_err()
                .to_string();
            assert!(
                text.contains(told) && text.contains("row 2") && text.contains("skip-bad"),
                "{text}"
            );
            let (pairs, bad) = reading(&roles(), true)
                .read(&table, &Context::with_seed(0))
                .unwrap();
            assert_eq!(pairs.uids, ["a", "c"]);
            assert_eq!(pairs.left.identities().len(), 2);
            assert_eq!(pairs.right.identities().len(), 2);
            assert!(bad[0].contains(told), "{:?}", bad);
        }
        let none = table(vec![
            (Some("a"), None, Some("t")),
            (Some("b"), None, Some("t")),
        ]);
        let text = reading(&roles(), true)
            .read(&none, &Context::with_seed(0))
            .unwrap_err()
            .to_string();
        assert!(text.contains("no row that can be used"), "{text}");
    }

    #[test]
    fn a_uid_that_comes_twice_is_refused() {
        let text = reading(&roles(), false)
            .read(
                &table(vec![good("a", 1.0), good("b", 1.0), good("a", 2.0)]),
                &Context::with_seed(0),
            )
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("row 3 has the uid a of an earlier row"),
            "{text}"
        );
    }

    #[test]
    fn the_shape_comes_from_the_column_or_the_option() {
        let image = Field::new(
            "image",
            DataType::new_fixed_size_list(DataType::Float32, 4, false),
            false,
        )
        .with_metadata(HashMap::from([
            (
                "ARROW:extension:name".to_owned(),
                "arrow.fixed_shape_tensor".to_owned(),
            ),
            (
                "ARROW:extension:metadata".to_owned(),
                r#"{"shape":[2,2]}"#.to_owned(),
            ),
        ]));
        let schema = Arc::new(Schema::new(vec![
            image,
            Field::new("caption", DataType::Utf8, false),
        ]));
        let item = Arc::new(Field::new_list_field(DataType::Float32, false));
        let lists = arrow::array::FixedSizeListArray::new(
            item,
            4,
            Arc::new(Float32Array::from(vec![0.25; 8])),
            None,
        );
        let batch = RecordBatch::try_new(
            schema,
            vec![Arc::new(lists), Arc::new(StringArray::from(vec!["x", "y"]))],
        )
        .unwrap();
        let table = Table::memory("t", vec![batch]);
        let roles = Roles {
            id: None,
            ..roles()
        };
        let (pairs, _) = reading(&roles, false)
            .read(&table, &Context::with_seed(0))
            .unwrap();
        assert_eq!(
            pairs.shape,
            Some(Shape {
                channels: 1,
                height: 2,
                width: 2
            })
        );
        assert_eq!(pairs.uids, ["1", "2"]);
        let other = Reading {
            shape: Some(Shape {
                channels: 3,
                height: 2,
                width: 2,
            }),
            ..reading(&roles, false)
        };
        let text = other
            .read(&table, &Context::with_seed(0))
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("image-shape") && text.contains("3 x 2 x 2"),
            "{text}"
        );
    }

    #[test]
    fn missing_columns_are_told() {
        let table = table(vec![good("a", 1.0), good("b", 1.0)]);
        let text = reading(&Roles::default(), false)
            .read(&table, &Context::with_seed(0))
            .unwrap_err()
            .to_string();
        assert!(text.contains("--text"), "{text}");
        let only = Roles {
            text: Some("caption".into()),
            id: Some("image".into()),
            ..Roles::default()
        };
        let text = reading(&only, false)
            .read(&table, &Context::with_seed(0))
            .unwrap_err()
            .to_string();
        assert!(text.contains("--features"), "{text}");
    }
}
