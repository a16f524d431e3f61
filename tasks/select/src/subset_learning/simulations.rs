//! Simulated sets in the plane: ten points of one kind among ninety of another.
//!
//! Both follow the toys of Ou, Xu, Su, Li, Zhao and Bian, *Learning Neural Set Functions Under the Optimal Subset
//! Oracle*, 2022, arXiv 2203.01693 (EquiVSet): which of the two kinds is the rare one is drawn for each set, so that no
//! point is right by itself.

use arrow::array::{ArrayRef, Float64Array, Int8Array, StringArray, UInt32Array};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::Roles;
use papertrial_core::options::{self, Settings};
use papertrial_core::task::Simulation;
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::f64::consts::{FRAC_1_SQRT_2, PI};
use std::sync::Arc;

/// The simulations of task `subset-learning`.
pub(crate) const SIMULATIONS: &[Simulation] = &[
    Simulation {
        name: "two-moons-sets",
        about: "sets of points on one of two interleaved half circles, with a few of the other, which are the right ones",
        options: options::describe::<Plane>,
        roles,
        generate: |seed, settings| draw("two-moons-sets", seed, settings, moon),
    },
    Simulation {
        name: "gaussian-mixture-sets",
        about: "sets of points from one of two normal distributions in the plane, with a few of the other, which are the right ones",
        options: options::describe::<Plane>,
        roles,
        generate: |seed, settings| draw("gaussian-mixture-sets", seed, settings, normal),
    },
];

fn roles() -> Roles {
    Roles {
        group: Some("set".into()),
        id: Some("element".into()),
        label: Some("chosen".into()),
        ..Roles::default()
    }
}

/// Options of both simulations.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct Plane {
    /// Number of sets, for training, validation and test together.
    #[schemars(range(min = 1, max = 1_000_000))]
    sets: usize,
    /// Elements of a set.
    #[schemars(range(min = 2, max = 100_000))]
    set_size: usize,
    /// Right elements of a set.
    #[schemars(range(min = 1, max = 100_000))]
    subset_size: usize,
}

impl Default for Plane {
    fn default() -> Self {
        Plane {
            sets: 1000,
            set_size: 100,
            subset_size: 10,
        }
    }
}

/// Deviation of the noise on a moon, before the moons are doubled in size.
const MOON_NOISE: f64 = 0.1;
/// Deviation of each normal distribution; their centres are at (1, 1) / sqrt(2) and its opposite.
const SPREAD: f64 = 0.5;

/// A point of the upper moon (kind false) or the lower (true): a half circle of radius 1 with noise, then doubled and
/// moved by (-1, -0.2).
fn moon(kind: bool, rng: &mut ChaCha8Rng) -> [f64; 2] {
    let angle = PI * rng.random::<f64>();
    let (x, y) = if kind {
        (1.0 - angle.cos(), 0.5 - angle.sin())
    } else {
        (angle.cos(), angle.sin())
    };
    let mut noisy =
        |v: f64, shift: f64| 2.0 * (v + MOON_NOISE * rng.sample::<f64, _>(StandardNormal)) + shift;
    [noisy(x, -1.0), noisy(y, -0.2)]
}

/// A point of one of two normal distributions.
fn normal(kind: bool, rng: &mut ChaCha8Rng) -> [f64; 2] {
    let centre = if kind { FRAC_1_SQRT_2 } else { -FRAC_1_SQRT_2 };
    [(); 2].map(|()| centre + SPREAD * rng.sample::<f64, _>(StandardNormal))
}

/// For each set: the rare kind by the toss of a coin, the places of its points at random, then the points.
fn draw(
    name: &str,
    seed: u64,
    settings: &Settings,
    point: fn(bool, &mut ChaCha8Rng) -> [f64; 2],
) -> Result<RecordBatch> {
    let o: Plane = options::build(name, settings)?;
    if o.subset_size >= o.set_size {
        return Err(Error::option(
            "subset-size",
            format!("{} must be below set-size {}", o.subset_size, o.set_size),
        ));
    }
    let rows = o.sets.saturating_mul(o.set_size);
    if rows > 1 << 25 {
        return Err(Error::option(
            "sets",
            format!("{} sets of {} elements are too many", o.sets, o.set_size),
        ));
    }
    let mut rng = sampling::rng(seed, name);
    let (mut sets, mut elements) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    let (mut x, mut y) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    let mut chosen = Vec::with_capacity(rows);
    for set in 0..o.sets {
        let rare: bool = rng.random();
        let right = sampling::sample_sorted(&mut rng, o.set_size, o.subset_size)
            .map_err(|e| Error::option("subset-size", e))?;
        for element in 0..o.set_size {
            let is_right = right.binary_search(&element).is_ok();
            let [a, b] = point(rare == is_right, &mut rng);
            sets.push(set as u32 + 1);
            elements.push(format!("{}-{}", set + 1, element + 1));
            x.push(a);
            y.push(b);
            chosen.push(i8::from(is_right));
        }
    }
    let columns: [(&str, ArrayRef); 5] = [
        ("set", Arc::new(UInt32Array::from(sets))),
        ("element", Arc::new(StringArray::from(elements))),
        ("x", Arc::new(Float64Array::from(x))),
        ("y", Arc::new(Float64Array::from(y))),
        ("chosen", Arc::new(Int8Array::from(chosen))),
    ];
    RecordBatch::try_from_iter(columns).map_err(|e| Error::Failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::sets::{self, GroundSet};
    use super::*;
    use papertrial_core::data::Table;
    use papertrial_core::task::Context;
    use serde_json::json;

    fn drawn(name: &str, seed: u64, options: serde_json::Value) -> Result<Vec<GroundSet>> {
        let simulation = SIMULATIONS.iter().find(|s| s.name == name).unwrap();
        let settings = options.as_object().cloned().unwrap();
        let batch = (simulation.generate)(seed, &settings)?;
        let table = Table::memory(name, vec![batch]);
        sets::read(&table, &roles(), &Context::with_seed(0)).map(|r| r.0)
    }

    #[test]
    fn sizes_are_as_asked_and_seeds_differ() {
        for name in ["two-moons-sets", "gaussian-mixture-sets"] {
            let o = json!({"sets": 7, "set-size": 12, "subset-size": 3});
            let sets = drawn(name, 1, o.clone()).unwrap();
            assert_eq!(sets.len(), 7);
            assert!(sets.iter().all(|s| s.len() == 12 && s.right_size() == 3));
            assert_eq!(sets, drawn(name, 1, o.clone()).unwrap());
            assert_ne!(sets, drawn(name, 2, o).unwrap());
            let e = drawn(name, 0, json!({"set-size": 5, "subset-size": 5})).unwrap_err();
            assert!(e.to_string().contains("subset-size"), "{e}");
        }
    }

    #[test]
    fn each_kind_is_rare_in_about_half_of_the_sets() {
        let sets = drawn(
            "gaussian-mixture-sets",
            3,
            json!({"sets": 200, "set-size": 20, "subset-size": 4}),
        )
        .unwrap();
        let mut above = 0;
        for set in &sets {
            let mean = |right: bool| {
                let rows: Vec<usize> = (0..20)
                    .filter(|i| set.right().contains(i) == right)
                    .collect();
                rows.iter().map(|i| set.features.row(*i).sum()).sum::<f32>() / rows.len() as f32
            };
            above += usize::from(mean(true) > mean(false));
            // Centres are 2 apart, so their sums of coordinates differ by 2 sqrt(2); a mean of 4 deviates by .35.
            assert!((mean(true) - mean(false)).abs() > 0.8);
        }
        assert!((70..130).contains(&above), "{above}");
    }

    #[test]
    fn moons_lie_on_their_half_circles() {
        let mut rng = sampling::rng(0, "test");
        let n = 2000;
        for kind in [false, true] {
            let centre = if kind { [1.0, 0.8] } else { [-1.0, -0.2] };
            let mean: f64 = (0..n)
                .map(|_| {
                    let [x, y] = moon(kind, &mut rng);
                    ((x - centre[0]).powi(2) + (y - centre[1]).powi(2)).sqrt()
                })
                .sum::<f64>()
                / f64::from(n);
            assert!((mean - 2.0).abs() < 0.03, "{mean}");
        }
    }
}
