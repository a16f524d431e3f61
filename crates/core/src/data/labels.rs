//! A label column as whole numbers.

use super::features::cells;
use super::{Roles, Table};
use crate::error::{Error, Result};

/// Labels of all rows, as indices into the sorted names.
#[derive(Debug, Clone, PartialEq)]
pub struct Labels {
    /// One for each row.
    pub codes: Vec<i32>,
    /// Name of each code.
    pub names: Vec<String>,
}

impl Labels {
    /// Reads the label column, if one is named. Whole numbers keep their numeric order.
    ///
    /// # Errors
    /// The column is missing or has an empty cell.
    pub fn of(table: &Table, roles: &Roles) -> Result<Option<Labels>> {
        let Some(column) = &roles.label else {
            return Ok(None);
        };
        let index = table.column_for("--label", column)?;
        let mut texts = Vec::new();
        for array in table.column(index)? {
            for cell in cells(&array) {
                let text = cell.filter(|t| !t.trim().is_empty()).ok_or_else(|| {
                    Error::column(
                        table.name(),
                        column,
                        format!("row {} has no label", texts.len() + 1),
                    )
                })?;
                texts.push(text.trim().to_owned());
            }
        }
        let mut names = texts.clone();
        names.sort_unstable();
        names.dedup();
        if names.iter().all(|n| n.parse::<i64>().is_ok()) {
            names.sort_by_key(|n| n.parse::<i64>().unwrap_or_default());
        }
        let place: std::collections::HashMap<&str, i32> =
            names.iter().map(String::as_str).zip(0..).collect();
        let codes = texts
            .iter()
            .map(|t| place.get(t.as_str()).copied().unwrap_or_default())
            .collect();
        Ok(Some(Labels { codes, names }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::record_batch::RecordBatch;
    use std::sync::Arc;

    fn labels(column: ArrayRef) -> Result<Option<Labels>> {
        let batch = RecordBatch::try_from_iter([("y", column)]).unwrap();
        let roles = Roles {
            label: Some("y".into()),
            ..Roles::default()
        };
        Labels::of(&Table::memory("t", vec![batch]), &roles)
    }

    #[test]
    fn words_and_numbers_are_coded_in_order() {
        let words = labels(Arc::new(StringArray::from(vec!["b", "a", "b"])))
            .unwrap()
            .unwrap();
        assert_eq!(
            (words.codes, words.names),
            (vec![1, 0, 1], vec!["a".to_string(), "b".into()])
        );
        let numbers = labels(Arc::new(Int64Array::from(vec![10, 9, -1])))
            .unwrap()
            .unwrap();
        assert_eq!(numbers.codes, [2, 1, 0]);
        assert_eq!(numbers.names, ["-1", "9", "10"]);
    }

    #[test]
    fn an_empty_label_is_named_with_its_row() {
        let e = labels(Arc::new(StringArray::from(vec![Some("a"), None]))).unwrap_err();
        assert!(e.to_string().contains("row 2 has no label"), "{e}");
    }
}
