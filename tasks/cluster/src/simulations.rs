//! Simulated tables with known groups.

use arrow::array::{ArrayRef, Float64Array, Int32Array};
use arrow::record_batch::RecordBatch;
use ndarray::{Array1, Array2};
use papertrial_core::data::Roles;
use papertrial_core::options::{self, Settings};
use papertrial_core::task::Simulation;
use papertrial_core::{Error, Result};
use papertrial_numerics::{linalg, sampling};
use rand::RngExt;
use rand_distr::StandardNormal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// All simulations of the family.
pub const SIMULATIONS: &[Simulation] = &[
    Simulation {
        name: "gaussian-blobs",
        about: "round normal groups of equal size and spread, with centres drawn at random",
        options: options::describe::<GaussianBlobs>,
        roles: group_is_label,
        generate: gaussian_blobs,
    },
    Simulation {
        name: "thin-clusters",
        about: "thin normal groups of equal size, each turned its own way, at one distance from each other",
        options: options::describe::<ThinClusters>,
        roles: group_is_label,
        generate: thin_clusters,
    },
];

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

/// Options of `thin-clusters`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct ThinClusters {
    /// Number of rows.
    #[schemars(range(min = 1))]
    n: usize,
    /// Number of columns.
    #[schemars(range(min = 1))]
    d: usize,
    /// Number of groups, at most one more than columns.
    #[schemars(range(min = 1))]
    k: usize,
    /// Distance between any two centres.
    #[schemars(range(min = 0.0))]
    distance: f64,
}

impl Default for ThinClusters {
    fn default() -> Self {
        ThinClusters {
            n: 90,
            d: 4,
            k: 3,
            distance: 3.0,
        }
    }
}

/// Groups of n / k rows, one more in the first n mod k, in random order. The covariance of each has the eigenvalues
/// 0.1, 1 and 6 (0.1 first, 6 last, 1 between; 1 for a single column) along axes turned at random. The centres are the
/// corners of a regular simplex: multiples of unit vectors, and for k = d + 1 the point at the same distance from all.
fn thin_clusters(seed: u64, settings: &Settings) -> Result<RecordBatch> {
    let ThinClusters { n, d, k, distance } = options::build("thin-clusters", settings)?;
    if k > n || k > d + 1 {
        return Err(Error::option(
            "k",
            format!(
                "{k} groups at one distance need {k} rows and {} columns",
                k - 1
            ),
        ));
    }
    if n.saturating_mul(d) > CELLS || d > 2000 {
        return Err(Error::option(
            "d",
            format!("{n} x {d} numbers are too many"),
        ));
    }
    // Unit vectors are sqrt 2 apart; the last corner is (c, c, ..) with the same distance to each of them.
    let last = (1.0 - (1.0 + d as f64).sqrt()) / d as f64;
    let centre = |group: usize, column: usize| {
        let corner = if group == d {
            last
        } else {
            f64::from(u8::from(group == column))
        };
        corner * distance / 2f64.sqrt()
    };
    let deviation = |column: usize| {
        let variance: f64 = match column {
            _ if d == 1 => 1.0,
            0 => 0.1,
            c if c + 1 == d => 6.0,
            _ => 1.0,
        };
        variance.sqrt()
    };
    let mut rng = sampling::rng(seed, "thin-clusters axes");
    let mut axes = Vec::new();
    for _ in 0..k {
        // The singular vectors of a normal matrix are turned uniformly.
        let normal = Array2::from_shape_simple_fn((d, d), || rng.sample::<f64, _>(StandardNormal));
        let square = linalg::gram(normal.view());
        let turned = linalg::eigh(square.view()).map_err(|e| Error::Failed(e.to_string()))?;
        axes.push(turned.vectors);
    }
    let mut rng = sampling::rng(seed, "thin-clusters order");
    let order = sampling::permutation(&mut rng, n);
    let groups: Vec<usize> = order.iter().map(|i| i % k).collect();
    let mut rng = sampling::rng(seed, "thin-clusters rows");
    let mut rows = Array2::zeros((n, d));
    for (mut row, group) in rows.outer_iter_mut().zip(&groups) {
        let along =
            Array1::from_shape_fn(d, |c| deviation(c) * rng.sample::<f64, _>(StandardNormal));
        let noise = axes[*group].dot(&along);
        for (c, value) in row.iter_mut().enumerate() {
            *value = centre(*group, c) + noise[c];
        }
    }
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

    #[test]
    fn thin_clusters_are_thin_and_equally_far_apart() {
        let given = settings(json!({"n": 60_000, "d": 2, "k": 3, "distance": 4.0}));
        let batch = thin_clusters(1, &given).unwrap();
        let column = |c: usize| {
            batch
                .column(c)
                .as_primitive::<Float64Type>()
                .values()
                .to_vec()
        };
        let (x, y) = (column(0), column(1));
        let groups = batch.column(2).as_primitive::<Int32Type>().values();
        let mean = |v: &[f64], g: i32| {
            let own: Vec<f64> = (0..v.len())
                .filter(|i| groups[*i] == g)
                .map(|i| v[i])
                .collect();
            own.iter().sum::<f64>() / own.len() as f64
        };
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            let gap = (mean(&x, a) - mean(&x, b)).hypot(mean(&y, a) - mean(&y, b));
            assert!((gap - 4.0).abs() < 0.1, "{gap}");
        }
        for g in 0..3 {
            // Trace and determinant of a covariance with the eigenvalues 0.1 and 6.
            let (mx, my) = (mean(&x, g), mean(&y, g));
            let moment = |f: &dyn Fn(f64, f64) -> f64| {
                let own = (0..x.len()).filter(|i| groups[*i] == g);
                let all: Vec<f64> = own.map(|i| f(x[i] - mx, y[i] - my)).collect();
                all.iter().sum::<f64>() / all.len() as f64
            };
            let (xx, yy, xy) = (
                moment(&|a, _| a * a),
                moment(&|_, b| b * b),
                moment(&|a, b| a * b),
            );
            assert!((xx + yy - 6.1).abs() < 0.15, "{}", xx + yy);
            assert!(
                (xx * yy - xy * xy - 0.6).abs() < 0.05,
                "{}",
                xx * yy - xy * xy
            );
        }
        assert!(thin_clusters(1, &settings(json!({"k": 6, "d": 4}))).is_err());
    }
}
