//! Columns of bytes, such as pictures: binary ones, or structures of bytes and path as published data sets have them.

use super::Table;
use arrow::array::{ArrayRef, AsArray, LargeBinaryArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

/// The field of a structure that holds the bytes.
const FIELD: &str = "bytes";

/// Whether the column `index` of `table` holds bytes.
pub fn holds_bytes(table: &Table, index: usize) -> bool {
    let binary = |kind: &DataType| {
        matches!(
            kind,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView
        )
    };
    match table.schema().field(index).data_type() {
        DataType::Struct(fields) => fields
            .find(FIELD)
            .is_some_and(|(_, f)| binary(f.data_type())),
        kind => binary(kind),
    }
}

/// The bytes of a column that [`holds_bytes`], null where a cell is empty.
///
/// # Errors
/// The column cannot be read as bytes.
pub fn bytes_of(column: &ArrayRef) -> Result<LargeBinaryArray, ArrowError> {
    let column = match column
        .as_struct_opt()
        .and_then(|parts| parts.column_by_name(FIELD))
    {
        Some(bytes) => bytes,
        None => column,
    };
    Ok(cast(column, &DataType::LargeBinary)?
        .as_binary::<i64>()
        .clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BinaryArray, Int64Array, StructArray};
    use arrow::datatypes::Field;
    use arrow::record_batch::RecordBatch;
    use std::sync::Arc;

    #[test]
    fn plain_columns_and_structures_give_their_bytes() {
        let plain: ArrayRef = Arc::new(BinaryArray::from_opt_vec(vec![Some(b"ab"), None]));
        let number: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let of = |name: &str, column: &ArrayRef| {
            let field = Field::new(name, column.data_type().clone(), true);
            let parts: ArrayRef =
                Arc::new(StructArray::from(vec![(Arc::new(field), column.clone())]));
            parts
        };
        let columns = [
            ("plain", plain.clone()),
            ("parts", of("bytes", &plain)),
            ("other", of("path", &plain)),
            ("number", number.clone()),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let table = Table::memory("t", vec![batch.clone()]);
        let held: Vec<bool> = (0..4).map(|i| holds_bytes(&table, i)).collect();
        assert_eq!(held, [true, true, false, false]);
        for i in 0..2 {
            let bytes = bytes_of(batch.column(i)).unwrap();
            let cells: Vec<Option<&[u8]>> = bytes.iter().collect();
            assert_eq!(cells, [Some(&b"ab"[..]), None]);
        }
        assert!(bytes_of(batch.column(2)).is_err());
    }
}
