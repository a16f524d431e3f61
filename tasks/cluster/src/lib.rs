//! The cluster family: group the rows of a table.
//!
//! Every method is a struct of options with one call:
//!
//! ```
//! use papertrial_cluster::clustering::{Clusterer, KMeans, Points};
//! use papertrial_core::task::Context;
//!
//! let rows = ndarray::array![[0.0, 0.1], [0.1, 0.0], [9.0, 9.1], [9.1, 9.0]];
//! let points = Points::from_matrix(rows).unwrap();
//! let found = KMeans { k: 2, ..KMeans::default() }
//!     .fit(&points, &Context::with_seed(0))
//!     .unwrap();
//! assert_eq!(found.labels[0], found.labels[1]);
//! assert_ne!(found.labels[0], found.labels[2]);
//! ```

pub mod clustering;
mod gaussian;
mod sdp;
mod simulations;

use papertrial_core::task::Family;

/// What this crate exports to the program.
pub const FAMILY: Family = Family {
    name: "cluster",
    tasks: &[&clustering::Clustering],
    simulations: simulations::SIMULATIONS,
    version: env!("CARGO_PKG_VERSION"),
};
