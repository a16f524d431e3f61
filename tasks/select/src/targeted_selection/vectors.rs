//! Embeddings in a table: a column of lists of numbers (f16, f32, f64 or whole), read batch by batch.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type};
use ndarray::Array2;
use papertrial_core::data::Table;
use papertrial_core::{Error, Result};
use rayon::prelude::*;

/// The column of `table` that holds embeddings: the named one, else the only column of lists of numbers.
///
/// # Errors
/// No such column, or several and none is named.
pub fn column(table: &Table, option: &str, named: Option<&str>) -> Result<usize> {
    if let Some(name) = named {
        return table.column_for(option, name);
    }
    let lists: Vec<usize> = (0..table.schema().fields().len())
        .filter(|&i| is_vectors(table.schema().field(i).data_type()))
        .collect();
    match lists.as_slice() {
        [one] => Ok(*one),
        [] => Err(Error::option(
            option,
            format!(
                "{} has no column of embeddings (lists of numbers); Parquet and .npy can hold them",
                table.name()
            ),
        )),
        several => {
            let names: Vec<&str> = several.iter().map(|&i| table.columns()[i]).collect();
            Err(Error::option(
                option,
                format!(
                    "{} has several columns of embeddings; name one of {}",
                    table.name(),
                    names.join(", ")
                ),
            ))
        }
    }
}

/// Whether a column's type is a list of numbers.
pub fn is_vectors(kind: &DataType) -> bool {
    match kind {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            item.data_type().is_numeric()
        }
        _ => false,
    }
}

/// The embeddings of one batch, \[rows, width\], each of length 1. `first` is the batch's first row, from 0.
///
/// # Errors
/// A missing, short, long, zero or non-finite embedding; the row is named, from 1.
pub fn block(
    table: &str,
    name: &str,
    column: &ArrayRef,
    width: Option<usize>,
    first: usize,
) -> Result<Array2<f32>> {
    let wrong = |problem: String| Error::column(table, name, problem);
    let n = column.len();
    if let Some(i) = (0..n).find(|&i| column.is_null(i)) {
        return Err(wrong(format!("row {} has no embedding", first + i + 1)));
    }
    let lengths: Vec<usize>;
    let (values, start): (&ArrayRef, usize) = match column.data_type() {
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            lengths = (0..n).map(|i| list.value_length(i) as usize).collect();
            (list.values(), list.value_offsets()[0] as usize)
        }
        DataType::LargeList(_) => {
            let list = column.as_list::<i64>();
            lengths = (0..n).map(|i| list.value_length(i) as usize).collect();
            (list.values(), list.value_offsets()[0] as usize)
        }
        DataType::FixedSizeList(_, size) => {
            let list = column.as_fixed_size_list();
            lengths = vec![*size as usize; n];
            (list.values(), 0)
        }
        _ => return Err(wrong("holds no lists of numbers".into())),
    };
    let width = width.or(lengths.first().copied()).unwrap_or(0);
    if let Some(i) = lengths.iter().position(|&l| l != width) {
        return Err(wrong(format!(
            "row {} has an embedding of {} numbers where the others have {width}",
            first + i + 1,
            lengths[i]
        )));
    }
    let floats = cast(&values.slice(start, n * width), &DataType::Float32)
        .map_err(|e| wrong(format!("does not hold numbers: {e}")))?;
    let floats = floats.as_primitive::<Float32Type>();
    if floats.null_count() > 0 {
        return Err(wrong(format!(
            "rows {} to {} have an embedding with a missing number",
            first + 1,
            first + n
        )));
    }
    let mut rows = Array2::from_shape_vec((n, width), floats.values().to_vec())
        .map_err(|e| wrong(e.to_string()))?;
    normalise(&mut rows, first).map_err(|e| wrong(e.problem()))?;
    Ok(rows)
}

/// A row that has no direction.
#[derive(Debug, PartialEq)]
pub struct NoDirection {
    /// The row, from 1.
    row: usize,
    /// Whether it has a number that is not finite; else it is all zeros.
    infinite: bool,
}

impl NoDirection {
    /// In words.
    pub fn problem(&self) -> String {
        if self.infinite {
            format!("row {} has NaN or infinity in its embedding", self.row)
        } else {
            format!(
                "row {} has an embedding of zeros, which has no direction",
                self.row
            )
        }
    }
}

/// Scales each row to length 1. `first` is the number of the first row, from 0.
///
/// # Errors
/// The first row that has no direction.
pub fn normalise(rows: &mut Array2<f32>, first: usize) -> std::result::Result<(), NoDirection> {
    let width = rows.ncols();
    if width == 0 && rows.nrows() > 0 {
        return Err(NoDirection {
            row: first + 1,
            infinite: false,
        });
    }
    if !rows.is_standard_layout() {
        *rows = rows.as_standard_layout().into_owned();
    }
    let worst = rows
        .as_slice_mut()
        .unwrap_or_default()
        .par_chunks_mut(width.max(1))
        .enumerate()
        .filter_map(|(i, row)| {
            let length = row
                .iter()
                .map(|v| f64::from(*v) * f64::from(*v))
                .sum::<f64>()
                .sqrt();
            if !length.is_finite() || length == 0.0 {
                return Some((i, !length.is_finite()));
            }
            row.iter_mut()
                .for_each(|v| *v = (f64::from(*v) / length) as f32);
            None
        })
        .min();
    match worst {
        None => Ok(()),
        Some((i, infinite)) => Err(NoDirection {
            row: first + i + 1,
            infinite,
        }),
    }
}

/// All embeddings of a column, \[rows, width\], each of length 1. For queries and other small tables.
///
/// # Errors
/// As [`block`].
pub fn all(table: &Table, index: usize) -> Result<Array2<f32>> {
    let name = table.columns()[index].to_owned();
    let mut whole = Vec::new();
    let (mut rows, mut width) = (0, None);
    for column in table.column(index)? {
        let part = block(table.name(), &name, &column, width, rows)?;
        width = Some(part.ncols());
        rows += part.nrows();
        whole.extend(part);
    }
    Array2::from_shape_vec((rows, width.unwrap_or(0)), whole)
        .map_err(|e| Error::column(table.name(), &name, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{FixedSizeListArray, Float16Array, ListArray};
    use arrow::datatypes::{ArrowPrimitiveType, Field, Float16Type, Float64Type};
    use arrow::record_batch::RecordBatch;
    use std::sync::Arc;

    type Half = <Float16Type as ArrowPrimitiveType>::Native;

    #[test]
    fn halves_and_doubles_in_lists_of_either_kind_are_read_alike() {
        let halves: Vec<Half> = [3.0, 4.0, 0.0, -2.0].map(Half::from_f32).to_vec();
        let field = Arc::new(Field::new_list_field(DataType::Float16, false));
        let fixed: ArrayRef = Arc::new(
            FixedSizeListArray::try_new(field, 2, Arc::new(Float16Array::from(halves)), None)
                .unwrap(),
        );
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>([
            Some(vec![Some(3.0), Some(4.0)]),
            Some(vec![Some(0.0), Some(-2.0)]),
        ]));
        for column in [fixed, list.clone(), list.slice(0, 2)] {
            let got = block("t", "v", &column, None, 0).unwrap();
            assert_eq!(got, ndarray::array![[0.6, 0.8], [0.0, -1.0]]);
        }
        let second = block("t", "v", &list.slice(1, 1), None, 1).unwrap();
        assert_eq!(second, ndarray::array![[0.0, -1.0]]);
    }

    #[test]
    fn rows_without_direction_and_of_other_widths_are_told_by_number() {
        let list = |rows: Vec<Option<Vec<f64>>>| -> ArrayRef {
            Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(
                rows.into_iter()
                    .map(|r| r.map(|r| r.into_iter().map(Some).collect::<Vec<_>>())),
            ))
        };
        for (rows, told) in [
            (
                vec![Some(vec![1.0, 0.0]), Some(vec![0.0, 0.0])],
                "row 12 has an embedding of zeros",
            ),
            (vec![Some(vec![f64::NAN, 0.0])], "row 11 has NaN"),
            (
                vec![Some(vec![1.0, 0.0]), Some(vec![1.0])],
                "row 12 has an embedding of 1 numbers",
            ),
            (vec![Some(vec![1.0, 0.0]), None], "row 12 has no embedding"),
        ] {
            let text = block("t", "v", &list(rows), None, 10)
                .unwrap_err()
                .to_string();
            assert!(text.contains(told), "{text}");
        }
    }

    #[test]
    fn the_only_column_of_lists_is_found() {
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>([Some(
            vec![Some(3.0)],
        )]));
        let number: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![1.0]));
        let table = |columns: Vec<(&str, ArrayRef)>| {
            Table::memory("t", vec![RecordBatch::try_from_iter(columns).unwrap()])
        };
        let one = table(vec![("n", number.clone()), ("v", list.clone())]);
        assert_eq!(column(&one, "vectors", None).unwrap(), 1);
        let two = table(vec![("w", list.clone()), ("v", list)]);
        assert!(
            column(&two, "vectors", None)
                .unwrap_err()
                .to_string()
                .contains("w, v")
        );
        assert_eq!(column(&two, "vectors", Some("v")).unwrap(), 1);
        assert!(column(&table(vec![("n", number)]), "vectors", None).is_err());
    }
}
