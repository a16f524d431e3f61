//! NumPy arrays: a matrix becomes one column `vector` of lists, a vector one column `value`.

use super::reason;
use super::table::Batches;
use crate::error::{Error, Result};
use arrow::array::{ArrayRef, FixedSizeListArray, Float64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use npyz::{DType, NpyFile, Order, TypeChar};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

fn open(path: &Path) -> Result<NpyFile<BufReader<File>>> {
    let file = File::open(path).map_err(|e| Error::file(path, reason(&e)))?;
    NpyFile::new(BufReader::with_capacity(1 << 18, file))
        .map_err(|e| Error::file(path, format!("is not a whole .npy file: {e}")))
}

/// Schema and number of rows.
pub(super) fn facts(path: &Path) -> Result<(SchemaRef, u64)> {
    let file = open(path)?;
    let shape = file.shape();
    let field = match shape {
        [_] => Field::new("value", DataType::Float64, false),
        [_, width] => {
            let width = i32::try_from(*width)
                .ok()
                .filter(|w| *w > 0)
                .ok_or_else(|| Error::file(path, format!("has {width} columns")))?;
            Field::new("vector", list(width), false)
        }
        _ => {
            return Err(Error::file(
                path,
                format!(
                    "has {} dimensions; one (values) or two (rows, columns) can be read",
                    shape.len()
                ),
            ));
        }
    };
    let rows = shape[0];
    // A cut file is better refused now than after an hour's work.
    if let Some(size) = file.header().dtype().num_bytes() {
        let needed = file.header().len().saturating_mul(size as u64);
        let have = std::fs::metadata(path).map_or(u64::MAX, |m| m.len());
        if needed > have {
            return Err(Error::file(
                path,
                format!(
                    "is cut short: its header promises {needed} bytes of numbers, the file has {have}"
                ),
            ));
        }
    }
    Ok((Arc::new(Schema::new(vec![field])), rows))
}

fn list(width: i32) -> DataType {
    DataType::FixedSizeList(
        Arc::new(Field::new_list_field(DataType::Float64, false)),
        width,
    )
}

/// The rows in batches.
pub(super) fn batches(path: &Path, schema: &SchemaRef, batch: usize) -> Result<Batches> {
    let file = open(path)?;
    let width = match schema.field(0).data_type() {
        DataType::FixedSizeList(_, width) => *width as usize,
        _ => 1,
    };
    let rows = file.shape()[0] as usize;
    let fortran = file.order() == Order::Fortran && width > 1;
    let mut numbers = numbers(path, file)?;
    let schema = schema.clone();
    let owned = path.to_owned();
    let mut done = 0;
    // Column-major arrays are turned once; that needs the whole array.
    let mut turned: Option<Vec<f64>> = None;
    Ok(Box::new(std::iter::from_fn(move || {
        if done >= rows {
            return None;
        }
        let take = batch.min(rows - done);
        let mut read = |count: usize| -> Result<Vec<f64>> {
            let mut values = Vec::with_capacity(count);
            for value in numbers.by_ref().take(count) {
                values.push(value.map_err(|e| Error::file(&owned, reason(&e)))?);
            }
            if values.len() == count {
                Ok(values)
            } else {
                Err(Error::file(&owned, "ends before its last row"))
            }
        };
        let values = if fortran {
            if turned.is_none() {
                match read(rows * width) {
                    Ok(columns) => {
                        let row_major = (0..rows * width)
                            .map(|i| columns[(i % width) * rows + i / width])
                            .collect();
                        turned = Some(row_major);
                    }
                    Err(e) => {
                        done = rows;
                        return Some(Err(e));
                    }
                }
            }
            turned
                .as_ref()
                .map(|t| t[done * width..(done + take) * width].to_vec())
                .unwrap_or_default()
        } else {
            match read(take * width) {
                Ok(values) => values,
                Err(e) => {
                    done = rows;
                    return Some(Err(e));
                }
            }
        };
        done += take;
        Some(record(&schema, values, width).map_err(|e| Error::file(&owned, e)))
    })))
}

fn record(
    schema: &SchemaRef,
    values: Vec<f64>,
    width: usize,
) -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
    let values: ArrayRef = Arc::new(Float64Array::from(values));
    let column: ArrayRef = match schema.field(0).data_type() {
        DataType::FixedSizeList(item, _) => Arc::new(FixedSizeListArray::try_new(
            item.clone(),
            width as i32,
            values,
            None,
        )?),
        _ => values,
    };
    RecordBatch::try_new(schema.clone(), vec![column])
}

type Numbers = Box<dyn Iterator<Item = std::io::Result<f64>>>;

/// The numbers in the order of the file, as f64.
fn numbers(path: &Path, file: NpyFile<BufReader<File>>) -> Result<Numbers> {
    let dtype = file.dtype();
    let DType::Plain(kind) = &dtype else {
        return Err(Error::file(
            path,
            "holds records; plain numbers can be read",
        ));
    };
    macro_rules! read {
        ($type:ty, $convert:expr) => {{
            let data = file.data::<$type>().map_err(|e| Error::file(path, e))?;
            Ok(Box::new(data.map(|v| v.map($convert))) as Numbers)
        }};
    }
    match (kind.type_char(), kind.size_field()) {
        (TypeChar::Float, 4) => read!(f32, f64::from),
        (TypeChar::Float, 8) => read!(f64, |v| v),
        (TypeChar::Int, 1) => read!(i8, f64::from),
        (TypeChar::Int, 2) => read!(i16, f64::from),
        (TypeChar::Int, 4) => read!(i32, f64::from),
        (TypeChar::Int, 8) => read!(i64, |v| v as f64),
        (TypeChar::Uint, 1) => read!(u8, f64::from),
        (TypeChar::Uint, 2) => read!(u16, f64::from),
        (TypeChar::Uint, 4) => read!(u32, f64::from),
        (TypeChar::Uint, 8) => read!(u64, |v| v as f64),
        (TypeChar::Bool, 1) => read!(bool, |v| if v { 1.0 } else { 0.0 }),
        _ => Err(Error::file(
            path,
            format!(
                "holds numbers of type {}; f4, f8, whole numbers and booleans can be read (half precision: save as f4)",
                dtype.descr()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Table;
    use super::*;
    use npyz::WriterBuilder;

    fn write<T: npyz::AutoSerialize>(path: &Path, shape: &[u64], order: Order, values: Vec<T>) {
        let file = std::io::BufWriter::new(File::create(path).unwrap());
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(shape)
            .order(order)
            .writer(file)
            .begin_nd()
            .unwrap();
        writer.extend(values).unwrap();
        writer.finish().unwrap();
    }

    fn rows(path: &Path) -> Vec<f64> {
        let table = Table::open(path, &Default::default()).unwrap();
        table
            .batches()
            .unwrap()
            .flat_map(|b| {
                let b = b.unwrap();
                let list = b
                    .column(0)
                    .as_any()
                    .downcast_ref::<FixedSizeListArray>()
                    .unwrap()
                    .values()
                    .clone();
                list.as_any()
                    .downcast_ref::<Float64Array>()
                    .unwrap()
                    .values()
                    .to_vec()
            })
            .collect()
    }

    #[test]
    fn both_orders_give_the_same_rows() {
        let dir = tempfile::tempdir().unwrap();
        let c = dir.path().join("c.npy");
        let f = dir.path().join("f.npy");
        write(&c, &[2, 3], Order::C, vec![1f32, 2., 3., 4., 5., 6.]);
        write(&f, &[2, 3], Order::Fortran, vec![1i32, 4, 2, 5, 3, 6]);
        assert_eq!(rows(&c), [1., 2., 3., 4., 5., 6.]);
        assert_eq!(rows(&f), rows(&c));
    }

    #[test]
    fn cut_and_many_dimensional_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        write(&path, &[100, 3], Order::C, vec![0f64; 300]);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let e = Table::open(&path, &Default::default()).unwrap_err();
        assert!(e.to_string().contains("cut short"), "{e}");
        write(&path, &[2, 2, 2], Order::C, vec![0f64; 8]);
        let e = Table::open(&path, &Default::default()).unwrap_err();
        assert!(e.to_string().contains("3 dimensions"), "{e}");
    }
}
