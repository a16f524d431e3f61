//! The stream of a trial: the rows of a table with their labels, in the order in which they come.

use super::models::{Target, Truth};
use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use ndarray::{Array2, ArrayView1};
use papertrial_core::data::{Features, Roles, Table};
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use serde_json::Value;
use std::collections::HashMap;

/// The cells of the label column, `None` where one is empty.
///
/// # Errors
/// No label column is named, or it is missing.
pub fn answers(table: &Table, roles: &Roles) -> Result<Vec<Option<String>>> {
    let Some(column) = &roles.label else {
        return Err(Error::option(
            "--label",
            "name the column that holds the labels",
        ));
    };
    let index = table.column_for("--label", column)?;
    let mut texts = Vec::new();
    for array in table.column(index)? {
        let text =
            cast(&array, &DataType::Utf8).map_err(|e| Error::column(table.name(), column, e))?;
        let cells = text.as_string::<i32>().iter();
        texts.extend(cells.map(|c| {
            c.map(str::trim)
                .filter(|c| !c.is_empty())
                .map(str::to_owned)
        }));
    }
    Ok(texts)
}

/// The names of the classes: those given, else those that occur. Whole numbers keep their numeric order.
///
/// # Errors
/// Given names that are no words or numbers, or occur twice; fewer than two.
pub fn classes(answers: &[Option<String>], given: Option<&[Value]>) -> Result<Vec<String>> {
    let mut names = match given {
        Some(given) => words("classes", given)?,
        None => answers.iter().flatten().cloned().collect(),
    };
    names.sort_unstable();
    let before = names.len();
    names.dedup();
    if given.is_some() && names.len() < before {
        return Err(Error::option("classes", "names a class twice"));
    }
    if names.iter().all(|n| n.parse::<i64>().is_ok()) {
        names.sort_by_key(|n| n.parse::<i64>().unwrap_or_default());
    }
    if names.len() < 2 {
        return Err(Error::option(
            "classes",
            format!(
                "{} class is known, and at least two are needed; name all of them: classes=[\"a\",\"b\"]",
                names.len()
            ),
        ));
    }
    Ok(names)
}

/// Words or numbers of an option's list as texts.
fn words(option: &str, given: &[Value]) -> Result<Vec<String>> {
    given
        .iter()
        .map(|value| match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            other => Err(Error::option(
                option,
                format!("takes a list of labels, not {other}"),
            )),
        })
        .collect()
}

/// Turns label cells into truths.
pub struct Coder<'a> {
    table: &'a str,
    column: &'a str,
    target: Target,
    codes: HashMap<&'a str, usize>,
}

impl<'a> Coder<'a> {
    /// For the labels of `roles` in `table`; `classes` is empty for numbers.
    pub fn new(table: &'a Table, roles: &'a Roles, classes: &'a [String]) -> Coder<'a> {
        let target = match classes.len() {
            0 => Target::Number,
            n => Target::Classes(n),
        };
        Coder {
            table: table.name(),
            column: roles.label.as_deref().unwrap_or_default(),
            target,
            codes: classes.iter().map(String::as_str).zip(0..).collect(),
        }
    }

    /// The truth of a cell.
    ///
    /// # Errors
    /// A class that is not in the closed list, or a text that is no finite number.
    pub fn code(&self, row: usize, text: &str) -> Result<Truth> {
        let wrong = |problem: String| Err(Error::column(self.table, self.column, problem));
        match self.target {
            Target::Classes(_) => match self.codes.get(text) {
                Some(code) => Ok(Truth::Class(*code)),
                None => wrong(format!(
                    "row {} has the label '{text}', which is none of the {} classes known; name all of them with classes=[…] at the start of the stream",
                    row + 1,
                    self.codes.len()
                )),
            },
            Target::Number => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Truth::Number(value)),
                _ => wrong(format!(
                    "row {} has the label '{text}', which is no number; take a model of classes",
                    row + 1
                )),
            },
        }
    }
}

/// How a trial makes a stream of a table.
pub struct Order<'a> {
    /// Times that all rows come.
    pub passes: usize,
    /// Whether each pass has an order of its own.
    pub shuffle: bool,
    /// Labels that change places in the middle: first with second, third with fourth, ..
    pub swapped: &'a [Value],
    /// From which the order is drawn.
    pub seed: u64,
}

/// Rows with their labels, in order.
pub struct Stream {
    rows: Array2<f64>,
    truths: Vec<Truth>,
    order: Vec<usize>,
    /// What each class is called after the middle.
    swap: Vec<usize>,
    /// What is predicted.
    pub target: Target,
}

impl Stream {
    /// Reads a table with all its labels.
    ///
    /// # Errors
    /// As [`Features::matrix`]; an empty label; labels to swap that do not occur.
    pub fn of(
        table: &Table,
        roles: &Roles,
        number: bool,
        given: Option<&[Value]>,
        order: &Order,
        context: &Context,
    ) -> Result<Stream> {
        let answers = answers(table, roles)?;
        let names = if number {
            Vec::new()
        } else {
            classes(&answers, given)?
        };
        let coder = Coder::new(table, roles, &names);
        let mut truths = Vec::with_capacity(answers.len());
        for (row, answer) in answers.iter().enumerate() {
            let Some(text) = answer else {
                return Err(Error::column(
                    table.name(),
                    roles.label.as_deref().unwrap_or_default(),
                    format!(
                        "row {} has no label; a trial needs all of them (run decides rows without)",
                        row + 1
                    ),
                ));
            };
            truths.push(coder.code(row, text)?);
        }
        let mut rng = sampling::rng(order.seed, "stream-labelling order");
        let mut places = Vec::with_capacity(truths.len().saturating_mul(order.passes));
        for _ in 0..order.passes {
            if order.shuffle {
                places.extend(sampling::permutation(&mut rng, truths.len()));
            } else {
                places.extend(0..truths.len());
            }
        }
        Ok(Stream {
            rows: Features::of(table, roles)?.matrix(context)?,
            truths,
            order: places,
            swap: swap(order.swapped, &names)?,
            target: coder.target,
        })
    }

    /// Number of rows to come.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.rows.ncols()
    }

    /// Whether labels change places in the middle.
    pub fn swaps(&self) -> bool {
        self.swap.iter().enumerate().any(|(a, b)| a != *b)
    }

    /// Row `t` and its label.
    pub fn at(&self, t: usize) -> (ArrayView1<'_, f64>, Truth) {
        let row = self.order[t];
        let truth = match self.truths[row] {
            Truth::Class(class) if t >= self.len() / 2 => Truth::Class(self.swap[class]),
            other => other,
        };
        (self.rows.row(row), truth)
    }
}

fn swap(swapped: &[Value], names: &[String]) -> Result<Vec<usize>> {
    let mut places: Vec<usize> = (0..names.len()).collect();
    let words = words("swapped-labels", swapped)?;
    if words.len() % 2 == 1 {
        return Err(Error::option(
            "swapped-labels",
            "takes pairs: an even number of labels",
        ));
    }
    for pair in words.chunks_exact(2) {
        let find = |word: &String| {
            names.iter().position(|n| n == word).ok_or_else(|| {
                Error::option(
                    "swapped-labels",
                    format!("'{word}' is none of the classes {}", names.join(", ")),
                )
            })
        };
        let (a, b) = (find(&pair[0])?, find(&pair[1])?);
        if places[a] != a || places[b] != b || a == b {
            return Err(Error::option("swapped-labels", "names a label twice"));
        }
        places.swap(a, b);
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float64Array, StringArray};
    use arrow::record_batch::RecordBatch;
    use serde_json::json;
    use std::sync::Arc;

    fn table(labels: Vec<Option<&str>>) -> (Table, Roles) {
        let x: Vec<f64> = (0..labels.len()).map(|i| i as f64).collect();
        let columns: [(&str, ArrayRef); 2] = [
            ("x", Arc::new(Float64Array::from(x))),
            ("y", Arc::new(StringArray::from(labels))),
        ];
        let roles = Roles {
            label: Some("y".into()),
            ..Roles::default()
        };
        (
            Table::memory("t", vec![RecordBatch::try_from_iter(columns).unwrap()]),
            roles,
        )
    }

    fn stream(labels: Vec<Option<&str>>, number: bool, order: &Order) -> Result<Stream> {
        let (table, roles) = table(labels);
        Stream::of(&table, &roles, number, None, order, &Context::with_seed(0))
    }

    const PLAIN: Order<'static> = Order {
        passes: 1,
        shuffle: false,
        swapped: &[],
        seed: 0,
    };

    #[test]
    fn labels_swap_in_the_middle_and_passes_repeat() {
        let swapped = [json!("a"), json!("c")];
        let order = Order {
            passes: 2,
            swapped: &swapped,
            ..PLAIN
        };
        let s = stream(vec![Some("a"), Some("b"), Some("c")], false, &order).unwrap();
        assert_eq!((s.len(), s.width(), s.swaps()), (6, 1, true));
        let classes: Vec<Truth> = (0..6).map(|t| s.at(t).1).collect();
        assert_eq!(classes, [0, 1, 2, 2, 1, 0].map(Truth::Class));
        assert_eq!(s.at(4).0[0], 1.0);
    }

    #[test]
    fn each_pass_has_an_order_of_its_own_and_holds_every_row_once() {
        let labels: Vec<_> = (0..50)
            .map(|i| Some(if i % 2 == 0 { "1" } else { "2" }))
            .collect();
        let order = Order {
            passes: 2,
            shuffle: true,
            ..PLAIN
        };
        let s = stream(labels.clone(), false, &order).unwrap();
        let pass = |k: usize| s.order[50 * k..50 * (k + 1)].to_vec();
        assert_ne!(pass(0), pass(1));
        for k in 0..2 {
            let mut sorted = pass(k);
            sorted.sort_unstable();
            assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        }
        let other = stream(labels, false, &Order { seed: 1, ..order }).unwrap();
        assert_ne!(other.order, s.order);
    }

    #[test]
    fn bad_labels_are_told() {
        let told = |labels, number, order: &Order| {
            stream(labels, number, order).err().unwrap().to_string()
        };
        assert!(
            told(vec![Some("a"), Some("b"), None], false, &PLAIN).contains("row 3 has no label")
        );
        assert!(told(vec![Some("a"), Some("a")], false, &PLAIN).contains("at least two"));
        assert!(told(vec![Some("1.5"), Some("a")], true, &PLAIN).contains("no number"));
        for (swapped, problem) in [
            (vec![json!("a")], "pairs"),
            (vec![json!("a"), json!("z")], "none of the classes"),
            (vec![json!("a"), json!("a")], "twice"),
            (vec![json!([1]), json!("a")], "list of labels"),
        ] {
            let order = Order {
                swapped: &swapped,
                ..PLAIN
            };
            let text = told(vec![Some("a"), Some("b")], false, &order);
            assert!(text.contains(problem), "{text}");
        }
        let (table, roles) = table(vec![Some("a")]);
        let names = ["b".to_owned(), "c".to_owned()];
        let e = Coder::new(&table, &roles, &names).code(0, "a").unwrap_err();
        assert!(e.to_string().contains("none of the 2 classes"), "{e}");
        assert!(classes(&[], Some(&[json!("a"), json!("a")])).is_err());
        assert_eq!(
            classes(&[], Some(&[json!(10), json!(9)])).unwrap(),
            ["9", "10"]
        );
    }
}
