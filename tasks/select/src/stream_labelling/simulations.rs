//! Simulated streams whose rule changes.

use crate::stream_labelling::draws::Draws;
use arrow::array::{ArrayRef, Float64Array, Int32Array};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::Roles;
use papertrial_core::options::{self, Settings};
use papertrial_core::task::Simulation;
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// All simulations of the task.
pub(crate) const SIMULATIONS: &[Simulation] = &[
    Simulation {
        name: "sea-concepts",
        about: "three columns of which two count, with a threshold that jumps three times (SEA)",
        options: options::describe::<SeaConcepts>,
        roles: class_is_label,
        generate: sea_concepts,
    },
    Simulation {
        name: "rotating-hyperplane",
        about: "two classes on the sides of a plane that turns a little with every row",
        options: options::describe::<RotatingHyperplane>,
        roles: class_is_label,
        generate: rotating_hyperplane,
    },
    Simulation {
        name: "stagger",
        about: "size, colour and shape as nine columns of 0 and 1, with three rules one after the other",
        options: options::describe::<Stagger>,
        roles: class_is_label,
        generate: stagger,
    },
    Simulation {
        name: "moving-rbf",
        about: "round groups of several classes whose centres move",
        options: options::describe::<MovingRbf>,
        roles: class_is_label,
        generate: moving_rbf,
    },
];

/// Rows, from 0, at which the rule of simulation `name` jumps, of `n` rows.
pub(crate) fn changes(name: &str, n: usize) -> Vec<usize> {
    let parts = match name {
        "sea-concepts" => 4,
        "stagger" => 3,
        _ => 1,
    };
    (1..parts).map(|k| (k * n).div_ceil(parts)).collect()
}

fn class_is_label() -> Roles {
    Roles {
        label: Some("class".into()),
        ..Roles::default()
    }
}

/// Numbers that a simulated table holds at most: 8 GiB.
const CELLS: usize = 1 << 30;

fn check_size(n: usize, d: usize) -> Result<()> {
    if n.saturating_mul(d) > CELLS {
        return Err(Error::option(
            "n",
            format!("{n} x {d} numbers are more than {CELLS}"),
        ));
    }
    Ok(())
}

/// A table of columns `x0`, `x1`, … and `class`.
fn table(columns: Vec<Vec<f64>>, classes: Vec<i32>) -> Result<RecordBatch> {
    let mut all: Vec<(String, ArrayRef)> = Vec::new();
    for (c, column) in columns.into_iter().enumerate() {
        all.push((format!("x{c}"), Arc::new(Float64Array::from(column))));
    }
    all.push(("class".into(), Arc::new(Int32Array::from(classes))));
    RecordBatch::try_from_iter(all).map_err(|e| Error::Failed(e.to_string()))
}

/// Options of `sea-concepts`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct SeaConcepts {
    /// Number of rows.
    #[schemars(range(min = 4))]
    n: usize,
    /// Share of labels that are turned round.
    #[schemars(range(min = 0.0, max = 1.0))]
    noise: f64,
}

impl Default for SeaConcepts {
    fn default() -> Self {
        SeaConcepts {
            n: 20_000,
            noise: 0.1,
        }
    }
}

/// Street and Kim 2001: three columns uniform in \[0, 10\]; class 1 where x0 + x1 <= theta, with theta 8, 9, 7 and 9.5 for a
/// quarter of the rows each.
fn sea_concepts(seed: u64, settings: &Settings) -> Result<RecordBatch> {
    let SeaConcepts { n, noise } = options::build("sea-concepts", settings)?;
    check_size(n, 3)?;
    let mut draws = Draws::new(seed, "sea-concepts");
    let mut columns = vec![Vec::new(); 3];
    let mut classes = Vec::with_capacity(n);
    for i in 0..n {
        let theta = [8.0, 9.0, 7.0, 9.5][4 * i / n];
        let x: Vec<f64> = (0..3).map(|_| 10.0 * draws.share()).collect();
        let class = x[0] + x[1] <= theta;
        classes.push(i32::from(class != draws.chance(noise)));
        columns.iter_mut().zip(x).for_each(|(c, x)| c.push(x));
    }
    table(columns, classes)
}

/// Options of `rotating-hyperplane`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct RotatingHyperplane {
    /// Number of rows.
    #[schemars(range(min = 1))]
    n: usize,
    /// Number of columns.
    #[schemars(range(min = 1))]
    d: usize,
    /// Number of columns whose weight moves.
    moving: usize,
    /// By how much a weight moves with each row.
    #[schemars(range(min = 0.0))]
    magnitude: f64,
    /// Probability that a weight turns round at a row.
    #[schemars(range(min = 0.0, max = 1.0))]
    turning: f64,
    /// Share of labels that are turned round.
    #[schemars(range(min = 0.0, max = 1.0))]
    noise: f64,
}

impl Default for RotatingHyperplane {
    fn default() -> Self {
        RotatingHyperplane {
            n: 10_000,
            d: 10,
            moving: 10,
            magnitude: 0.001,
            turning: 0.001,
            noise: 0.0,
        }
    }
}

/// Hulten, Spencer and Domingos 2001: columns uniform in \[0, 1\]; class 1 where sum w x >= sum w / 2, the weights uniform
/// in \[0, 1\] at first. Without turning round a weight would grow without end.
fn rotating_hyperplane(seed: u64, settings: &Settings) -> Result<RecordBatch> {
    let RotatingHyperplane {
        n,
        d,
        moving,
        magnitude,
        turning,
        noise,
    } = options::build("rotating-hyperplane", settings)?;
    check_size(n, d)?;
    if moving > d {
        return Err(Error::option(
            "moving",
            format!("{moving} of {d} columns cannot move"),
        ));
    }
    let mut draws = Draws::new(seed, "rotating-hyperplane");
    let mut weights: Vec<f64> = (0..d).map(|_| draws.share()).collect();
    let mut steps: Vec<f64> = (0..moving)
        .map(|_| {
            if draws.chance(0.5) {
                magnitude
            } else {
                -magnitude
            }
        })
        .collect();
    let mut columns = vec![Vec::new(); d];
    let mut classes = Vec::with_capacity(n);
    for _ in 0..n {
        let x: Vec<f64> = (0..d).map(|_| draws.share()).collect();
        let side: f64 = weights.iter().zip(&x).map(|(w, x)| w * (x - 0.5)).sum();
        classes.push(i32::from((side >= 0.0) != draws.chance(noise)));
        columns.iter_mut().zip(x).for_each(|(c, x)| c.push(x));
        for (weight, step) in weights.iter_mut().zip(&mut steps) {
            *weight += *step;
            if draws.chance(turning) {
                *step = -*step;
            }
        }
    }
    table(columns, classes)
}

/// Options of `stagger`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct Stagger {
    /// Number of rows.
    #[schemars(range(min = 3))]
    n: usize,
    /// Share of labels that are turned round.
    #[schemars(range(min = 0.0, max = 1.0))]
    noise: f64,
}

impl Default for Stagger {
    fn default() -> Self {
        Stagger {
            n: 9000,
            noise: 0.0,
        }
    }
}

/// Schlimmer and Granger 1986: size (small, medium, large), colour (red, green, blue), shape (square, round, triangular).
/// Class 1 in the first third: small and red; in the second: green or round; in the last: medium or large.
fn stagger(seed: u64, settings: &Settings) -> Result<RecordBatch> {
    let Stagger { n, noise } = options::build("stagger", settings)?;
    check_size(n, 9)?;
    let mut draws = Draws::new(seed, "stagger");
    let mut columns = vec![Vec::new(); 9];
    let mut classes = Vec::with_capacity(n);
    for i in 0..n {
        let [size, colour, shape] = [(); 3].map(|()| draws.below(3));
        for (c, column) in columns.iter_mut().enumerate() {
            let value = [size, colour, shape][c / 3] == c % 3;
            column.push(f64::from(u8::from(value)));
        }
        let class = match 3 * i / n {
            0 => size == 0 && colour == 0,
            1 => colour == 1 || shape == 1,
            _ => size != 0,
        };
        classes.push(i32::from(class != draws.chance(noise)));
    }
    table(columns, classes)
}

/// Options of `moving-rbf`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct MovingRbf {
    /// Number of rows.
    #[schemars(range(min = 1))]
    n: usize,
    /// Number of columns.
    #[schemars(range(min = 1))]
    d: usize,
    /// Number of classes.
    #[schemars(range(min = 2))]
    classes: usize,
    /// Number of groups; group i has class i mod classes.
    #[schemars(range(min = 2))]
    groups: usize,
    /// Distance that a centre moves with each row.
    #[schemars(range(min = 0.0))]
    speed: f64,
}

impl Default for MovingRbf {
    fn default() -> Self {
        MovingRbf {
            n: 10_000,
            d: 10,
            classes: 2,
            groups: 50,
            speed: 0.0001,
        }
    }
}

/// As the generator of MOA: centres uniform in \[0, 1\]^d, each with a weight and a deviation uniform in \[0, 1\], a row in a
/// random direction from its centre at a normal distance. A centre moves along a straight line and turns back at the walls.
fn moving_rbf(seed: u64, settings: &Settings) -> Result<RecordBatch> {
    let MovingRbf {
        n,
        d,
        classes,
        groups,
        speed,
    } = options::build("moving-rbf", settings)?;
    check_size(n.max(groups), d)?;
    if groups < classes {
        return Err(Error::option(
            "groups",
            format!("{groups} groups cannot have {classes} classes"),
        ));
    }
    let mut draws = Draws::new(seed, "moving-rbf");
    let mut centres: Vec<Vec<f64>> = Vec::new();
    let mut ways: Vec<Vec<f64>> = Vec::new();
    let (mut deviations, mut ends) = (Vec::new(), Vec::new());
    let mut sum = 0.0;
    for _ in 0..groups {
        centres.push((0..d).map(|_| draws.share()).collect());
        ways.push(direction(&mut draws, d, speed));
        deviations.push(draws.share());
        sum += draws.share();
        ends.push(sum);
    }
    let mut columns = vec![Vec::new(); d];
    let mut labels = Vec::with_capacity(n);
    for _ in 0..n {
        let at = sum * draws.share();
        let group = ends.partition_point(|end| *end <= at).min(groups - 1);
        let distance = draws.normal() * deviations[group];
        let offset = direction(&mut draws, d, distance);
        for (c, column) in columns.iter_mut().enumerate() {
            column.push(centres[group][c] + offset[c]);
        }
        labels.push((group % classes) as i32);
        for (centre, way) in centres.iter_mut().zip(&mut ways) {
            for (place, step) in centre.iter_mut().zip(way) {
                *place += *step;
                if !(0.0..=1.0).contains(place) {
                    *step = -*step;
                    *place = place.clamp(0.0, 1.0);
                }
            }
        }
    }
    table(columns, labels)
}

/// A vector of the given length that points anywhere.
fn direction(draws: &mut Draws, d: usize, length: f64) -> Vec<f64> {
    let normal: Vec<f64> = (0..d).map(|_| draws.normal()).collect();
    let norm = normal.iter().map(|v| v * v).sum::<f64>().sqrt();
    normal.iter().map(|v| v / norm * length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int32Type};
    use serde_json::json;

    fn draw(name: &str, seed: u64, settings: serde_json::Value) -> Result<RecordBatch> {
        let simulation = SIMULATIONS.iter().find(|s| s.name == name).unwrap();
        (simulation.generate)(seed, &settings.as_object().cloned().unwrap())
    }

    fn column(batch: &RecordBatch, c: usize) -> Vec<f64> {
        batch
            .column(c)
            .as_primitive::<Float64Type>()
            .values()
            .to_vec()
    }

    fn classes(batch: &RecordBatch) -> Vec<i32> {
        let last = batch.num_columns() - 1;
        batch
            .column(last)
            .as_primitive::<Int32Type>()
            .values()
            .to_vec()
    }

    #[test]
    fn sea_follows_its_thresholds_but_for_the_noise() {
        let batch = draw("sea-concepts", 1, json!({"n": 8000})).unwrap();
        let (a, b, y) = (column(&batch, 0), column(&batch, 1), classes(&batch));
        for (part, theta) in [8.0, 9.0, 7.0, 9.5].into_iter().enumerate() {
            let rows = part * 2000..(part + 1) * 2000;
            let off = rows
                .filter(|i| (a[*i] + b[*i] <= theta) != (y[*i] == 1))
                .count();
            // A tenth, standard error 13 rows.
            assert!((140..=260).contains(&off), "{off}");
        }
        assert_eq!(changes("sea-concepts", 8000), [2000, 4000, 6000]);
    }

    #[test]
    fn stagger_follows_its_rules_exactly() {
        let batch = draw("stagger", 1, json!({"n": 900})).unwrap();
        let x: Vec<Vec<f64>> = (0..9).map(|c| column(&batch, c)).collect();
        for (i, y) in classes(&batch).into_iter().enumerate() {
            let on = |c: usize| x[c][i] == 1.0;
            assert_eq!((0..9).filter(|c| on(*c)).count(), 3);
            let rule = [on(0) && on(3), on(4) || on(7), on(1) || on(2)][i / 300];
            assert_eq!(y, i32::from(rule));
        }
        assert_eq!(changes("stagger", 900), [300, 600]);
    }

    #[test]
    fn a_still_plane_has_two_even_sides_and_a_moving_one_changes_labels() {
        let still = json!({"n": 2000, "magnitude": 0.0});
        let y = classes(&draw("rotating-hyperplane", 3, still.clone()).unwrap());
        let moved = draw("rotating-hyperplane", 3, json!({"n": 2000})).unwrap();
        let ones = y.iter().filter(|y| **y == 1).count();
        assert!((900..=1100).contains(&ones), "{ones}");
        // The same draws but for the weights: first rows agree, late rows do not always.
        let z = classes(&moved);
        assert_eq!(y[..20], z[..20]);
        let off = (1000..2000).filter(|i| y[*i] != z[*i]).count();
        assert!(off > 20, "{off}");
        assert_eq!(changes("rotating-hyperplane", 2000), [0usize; 0]);
    }

    #[test]
    fn groups_have_all_classes_and_seeds_matter() {
        let batch = draw("moving-rbf", 1, json!({"n": 1000, "classes": 3, "d": 4})).unwrap();
        assert_eq!((batch.num_rows(), batch.num_columns()), (1000, 5));
        let mut y = classes(&batch);
        y.sort_unstable();
        y.dedup();
        assert_eq!(y, [0, 1, 2]);
        for simulation in SIMULATIONS {
            let draw = |seed| (simulation.generate)(seed, &Settings::new()).unwrap();
            assert_eq!(draw(1), draw(1));
            assert_ne!(draw(1), draw(2));
            assert_eq!((simulation.roles)().label.as_deref(), Some("class"));
        }
    }

    #[test]
    fn impossible_streams_are_refused() {
        for (name, bad) in [
            ("sea-concepts", json!({"n": 3})),
            ("sea-concepts", json!({"noise": 2.0})),
            ("rotating-hyperplane", json!({"moving": 11})),
            ("rotating-hyperplane", json!({"n": 1_000_000_000_u64})),
            ("moving-rbf", json!({"groups": 2, "classes": 3})),
            ("stagger", json!({"rows": 3})),
        ] {
            assert!(draw(name, 0, bad.clone()).is_err(), "{name} {bad}");
        }
    }
}
