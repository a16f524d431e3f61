//! The select family: choose, label and collect training data.

use papertrial_core::task::Family;

/// What this crate exports to the program.
pub const FAMILY: Family = Family {
    name: "select",
    tasks: &[],
    simulations: &[],
    version: env!("CARGO_PKG_VERSION"),
};
