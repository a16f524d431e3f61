//! Roles of columns: which one is the label, which are features, and so on.

use super::Table;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Names of the columns that have a role.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Roles {
    /// The truth that a prediction is compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Text to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Group of a row, such as a client or a protected attribute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Identifier of a row, carried to the output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Time of a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Columns to compute with; empty: all that have no other role.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
}

impl Roles {
    /// Columns with a role other than feature, each with the option that names it.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("--label", &self.label),
            ("--text", &self.text),
            ("--group", &self.group),
            ("--id", &self.id),
            ("--time", &self.time),
        ]
        .into_iter()
        .filter_map(|(option, column)| column.as_deref().map(|c| (option, c)))
    }

    /// Checks that every named column exists in `table`.
    ///
    /// # Errors
    /// [`Error::Option`] with the nearest column's name, or for a column with two roles.
    pub fn check(&self, table: &Table) -> Result<()> {
        let features = self.features.iter().map(|f| ("--features", f.as_str()));
        for (option, column) in self.named().chain(features) {
            table.column_for(option, column)?;
        }
        if let Some((option, column)) = self
            .named()
            .find(|(_, column)| self.features.iter().any(|f| f == column))
        {
            return Err(Error::option(
                "--features",
                format!(
                    "column '{column}' is already named by {option}; it can't be a feature too"
                ),
            ));
        }
        Ok(())
    }

    /// These roles where they are set, else those of `other`.
    pub fn or(self, other: Roles) -> Roles {
        Roles {
            label: self.label.or(other.label),
            text: self.text.or(other.text),
            group: self.group.or(other.group),
            id: self.id.or(other.id),
            time: self.time.or(other.time),
            features: if self.features.is_empty() {
                other.features
            } else {
                self.features
            },
        }
    }
}
