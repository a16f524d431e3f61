//! Where flows come from: anything that gives batches of rows with named columns.

use papertrial_core::Result;
pub use papertrial_core::data::Batches;
use papertrial_core::data::Table;

/// A flow table.
pub trait Source {
    /// File or data set, for messages.
    fn name(&self) -> &str;

    /// Names of the columns.
    fn columns(&self) -> Vec<String>;

    /// The rows from the first on.
    ///
    /// # Errors
    /// It cannot be opened, or not a second time; errors of the content come with their batch.
    fn batches(&self) -> Result<Batches>;

    /// Remarks for the reader, once the rows were read.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Source for Table {
    fn name(&self) -> &str {
        Table::name(self)
    }

    fn columns(&self) -> Vec<String> {
        Table::columns(self)
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    fn batches(&self) -> Result<Batches> {
        Table::batches(self)
    }
}
