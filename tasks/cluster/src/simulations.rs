//! Simulated tables with known groups.

use arrow::array::{ArrayRef, Float64Array, Int32Array};
use arrow::record_batch::RecordBatch;
use ndarray::Array2;
use papertrial_core::data::Roles;
use papertrial_core::options::{self, Settings};
use papertrial_core::task::Simulation;
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use rand::RngExt;
use rand_distr::StandardNormal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// All simulations of the family.
pub const SIMULATIONS: &[Simulation] = &[Simulation {
    name: "gaussian-blobs",
    about: "round normal groups of equal size and spread, with centres drawn at random",
    options: options::describe::<GaussianBlobs>,
    roles: group_is_label,
    generate: gaussian_blobs,
}];

/// Roles of a table whose column `group` is the truth.
fn group_is_label() -> Roles {
    Roles {
        label: Some("group".into()),
        ..Roles::default()
    }
}

/// Numbers that a simulated table holds at most: 8 GiB.
const CELLS: usize = 1 << 30;

/// A table of the rows \[n, d\] as columns `x0`, `x1`, … and their groups as column `group`.
fn table(rows: &Array2<f64>, groups: Vec<i32>) -> Result<RecordBatch> {
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for (c, column) in rows.columns().into_iter().enumerate() {
        columns.push((
            format!("x{c}"),
            Arc::new(Float64Array::from(column.to_vec())),
        ));
    }
    columns.push(("group".into(), Arc::new(Int32Array::from(groups))));
    RecordBatch::try_from_iter(columns).map_err(|e| Error::Failed(e.to_string()))
}

/// Options of `gaussian-blobs`; the groups are those of scikit-learn's `make_blobs`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct GaussianBlobs {
    /// Number of rows.
    #[schemars(range(min = 1))]
    n: usize,
    /// Number of columns.
    #[schemars(range(min = 1))]
    d: usize,
    /// Number of groups.
    #[schemars(range(min = 1))]
    k: usize,
    /// Standard deviation of a group along every column.
    #[schemars(range(min = 0.0))]
    std: f64,
}

impl Default for GaussianBlobs {
    fn default() -> Self {
        GaussianBlobs {
            n: 1000,
            d: 5,
            k: 7,
            std: 1.5,
        }
    }
}

/// Centres uniform in \[-10, 10\]^d; n / k rows about each, one more about the first n mod k; rows in random order.
fn gaussian_blobs(seed: u64, settings: &Settings) -> Result<RecordBatch> {
    let GaussianBlobs { n, d, k, std } = options::build("gaussian-blobs", settings)?;
    if k > n {
        return Err(Error::option(
            "k",
            format!("{k} groups cannot be made of {n} rows"),
        ));
    }
    if n.saturating_mul(d) > CELLS {
        return Err(Error::option(
            "n",
            format!("{n} x {d} numbers are more than {CELLS}"),
        ));
    }
    let mut rng = sampling::rng(seed, "gaussian-blobs centres");
    let centres = Array2::from_shape_fn((k, d), |_| rng.random_range(-10.0..=10.0));
    let mut rng = sampling::rng(seed, "gaussian-blobs order");
    let order = sampling::permutation(&mut rng, n);
    // Of the numbers 0..n, every k-th is in the same group.
    let groups: Vec<usize> = order.iter().map(|i| i % k).collect();
    let mut rng = sampling::rng(seed, "gaussian-blobs rows");
    let rows = Array2::from_shape_fn((n, d), |(i, c)| {
        let noise: f64 = rng.sample(StandardNormal);
        centres[[groups[i], c]] + std * noise
    });
    table(&rows, groups.iter().map(|g| *g as i32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int32Type};
    use serde_json::json;

    fn settings(value: serde_json::Value) -> Settings {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn blobs_have_the_sizes_the_spread_and_the_names_that_were_asked() {
        let asked = settings(json!({"n": 20_002, "d": 3, "k": 4, "std": 0.5}));
        let batch = gaussian_blobs(5, &asked).unwrap();
        let names: Vec<_> = batch
            .schema()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect();
        assert_eq!(names, ["x0", "x1", "x2", "group"]);
        let groups = batch
            .column(3)
            .as_primitive::<Int32Type>()
            .values()
            .to_vec();
        for (group, size) in [5001, 5001, 5000, 5000].into_iter().enumerate() {
            assert_eq!(groups.iter().filter(|g| **g == group as i32).count(), size);
            for c in 0..3 {
                let column = batch.column(c).as_primitive::<Float64Type>();
                let all = groups.iter().zip(column.values());
                let own: Vec<f64> = all
                    .filter(|(g, _)| **g == group as i32)
                    .map(|(_, v)| *v)
                    .collect();
                let mean = own.iter().sum::<f64>() / size as f64;
                let variance = own.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / size as f64;
                // The standard error of a variance from 5,000 normal rows is 2 %.
                assert!((variance / 0.25 - 1.0).abs() < 0.1, "{variance}");
                assert!(mean.abs() < 10.1);
            }
        }
        // In random order: neighbours are of the same group in a quarter of the cases.
        let same = groups.windows(2).filter(|w| w[0] == w[1]).count();
        assert!((same as f64 / 20_001.0 - 0.25).abs() < 0.02);
    }

    #[test]
    fn blobs_follow_their_seed() {
        let draw = |seed| gaussian_blobs(seed, &Settings::new()).unwrap();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_eq!((draw(1).num_rows(), draw(1).num_columns()), (1000, 6));
        assert_eq!(group_is_label().label.as_deref(), Some("group"));
    }

    #[test]
    fn impossible_blobs_are_refused() {
        for bad in [
            json!({"n": 0}),
            json!({"d": 0}),
            json!({"k": 0}),
            json!({"n": 3, "k": 4}),
            json!({"std": -1.0}),
            json!({"n": 1_000_000_000_u64, "d": 1000}),
            json!({"rows": 3}),
        ] {
            assert!(gaussian_blobs(0, &settings(bad.clone())).is_err(), "{bad}");
        }
        let one =
            gaussian_blobs(0, &settings(json!({"n": 1, "d": 1, "k": 1, "std": 0.0}))).unwrap();
        assert_eq!(one.num_rows(), 1);
    }
}
