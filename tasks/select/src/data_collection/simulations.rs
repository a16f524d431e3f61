//! Populations of groups that differ in how fast a model learns them, and tables of learning curves.

use arrow::array::{ArrayRef, Float64Array, StringArray};
use arrow::record_batch::RecordBatch;
use ndarray::Array2;
use papertrial_core::data::Roles;
use papertrial_core::options::{self, Settings};
use papertrial_core::task::Simulation;
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use rand::RngExt;
use rand_distr::{Beta, Distribution, StandardNormal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The simulations of task `data-collection`.
pub(crate) const SIMULATIONS: &[Simulation] = &[
    Simulation {
        name: "polygenic-groups",
        about: "genotypes and a trait of people of several ancestries, whose trait is learned at different speeds",
        options: options::describe::<PolygenicGroups>,
        roles: || Roles {
            label: Some("trait".into()),
            group: Some("ancestry".into()),
            ..Roles::default()
        },
        generate: polygenic_groups,
    },
    Simulation {
        name: "known-curves",
        about: "power-law learning curves alpha - beta (n + 1)^-gamma of several groups, one a row",
        options: options::describe::<KnownCurves>,
        roles: || Roles {
            group: Some("group".into()),
            ..Roles::default()
        },
        generate: known_curves,
    },
];

/// Options of `polygenic-groups`; the lists have one number a group.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct PolygenicGroups {
    /// Number of people.
    #[schemars(range(min = 10, max = 1_000_000))]
    n: usize,
    /// Number of sites in the genome.
    #[schemars(range(min = 1, max = 2000))]
    snps: usize,
    /// Sites with an effect on the trait, by group.
    causal: Vec<usize>,
    /// Standard deviation of the trait's noise, by group; its genetic part has variance 1 on average.
    noise: Vec<f64>,
    /// Shares of the groups among the people.
    shares: Vec<f64>,
    /// Distance F_ST from the ancestral frequencies, by group; one number for all groups if the list has one.
    fst: Vec<f64>,
    /// Correlation of a site's effect with its effect in the ancestral population, by group, or one number.
    effects: Vec<f64>,
    /// Correlation of neighbouring sites in blocks of 20, by group, or one number.
    linkage: Vec<f64>,
}

impl Default for PolygenicGroups {
    fn default() -> Self {
        PolygenicGroups {
            n: 20_000,
            snps: 100,
            causal: vec![30, 60, 100],
            noise: vec![0.5, 1.0, 3.0],
            shares: vec![0.7, 0.2, 0.1],
            fst: vec![0.02, 0.08, 0.15],
            effects: vec![1.0, 0.9, 0.7],
            linkage: vec![0.0],
        }
    }
}

/// Sites in a block of linked ones.
const BLOCK: usize = 20;

/// Checks one list of numbers, one a group; a single number stands for all.
fn each(option: &str, list: &[f64], groups: usize, low: f64, high: f64) -> Result<Vec<f64>> {
    if list.len() != groups && list.len() != 1 {
        return Err(Error::option(
            option,
            format!("has {} numbers for {groups} groups", list.len()),
        ));
    }
    if list.iter().any(|v| !(*v >= low && *v <= high)) {
        return Err(Error::option(
            option,
            format!("each number must be from {low} to {high}"),
        ));
    }
    Ok((0..groups)
        .map(|g| list[if list.len() == 1 { 0 } else { g }])
        .collect())
}

/// 1. Ancestral frequencies p ~ U(0.05, 0.95); group frequencies ~ Beta(p (1-F)/F, (1-p) (1-F)/F).
/// 2. The first causal_g sites of one random order have effects r_g a + sqrt(1 - r_g^2) b, a and b normal, scaled so
///    that the genetic part has variance 1 on average.
/// 3. Each person's two copies of a site: a normal autoregression along the block, below the quantile of the
///    frequency. Without linkage the copies are independent.
/// 4. Trait = sum effect (copies - 2 f) / sqrt(2 f (1 - f)) + noise.
fn polygenic_groups(seed: u64, settings: &Settings) -> Result<RecordBatch> {
    let o: PolygenicGroups = options::build("polygenic-groups", settings)?;
    let groups = o.shares.len();
    if groups == 0 || groups > 26 {
        return Err(Error::option(
            "shares",
            "must be a list of 1 to 26 numbers, one a group",
        ));
    }
    let shares = each("shares", &o.shares, groups, 0.0, f64::MAX)?;
    let total: f64 = shares.iter().sum();
    if total <= 0.0 || !total.is_finite() {
        return Err(Error::option("shares", "must have a sum above 0"));
    }
    let noise = each("noise", &o.noise, groups, 0.0, 1e6)?;
    let fst = each("fst", &o.fst, groups, 1e-4, 0.9)?;
    let related = each("effects", &o.effects, groups, 0.0, 1.0)?;
    let linkage = each("linkage", &o.linkage, groups, 0.0, 0.999)?;
    let causal: Vec<f64> = o.causal.iter().map(|c| *c as f64).collect();
    let causal = each("causal", &causal, groups, 1.0, o.snps as f64)?;
    if o.n.saturating_mul(o.snps) > 1 << 28 {
        return Err(Error::option(
            "n",
            format!("{} x {} genotypes are too many", o.n, o.snps),
        ));
    }
    let mut rng = sampling::rng(seed, "polygenic-groups sites");
    let ancestral: Vec<f64> = (0..o.snps).map(|_| rng.random_range(0.05..0.95)).collect();
    let order = sampling::permutation(&mut rng, o.snps);
    let shared: Vec<f64> = (0..o.snps).map(|_| rng.sample(StandardNormal)).collect();
    let mut frequency = Array2::zeros((groups, o.snps));
    let mut effect = Array2::zeros((groups, o.snps));
    for g in 0..groups {
        for s in 0..o.snps {
            let scale = (1.0 - fst[g]) / fst[g];
            let drawn = Beta::new(ancestral[s] * scale, (1.0 - ancestral[s]) * scale)
                .map_err(|e| Error::option("fst", e))?
                .sample(&mut rng);
            frequency[[g, s]] = drawn.clamp(0.01, 0.99);
        }
        for (place, s) in order.iter().enumerate() {
            let own: f64 = rng.sample(StandardNormal);
            if (place as f64) < causal[g] {
                let mixed = related[g] * shared[*s] + (1.0 - related[g] * related[g]).sqrt() * own;
                effect[[g, *s]] = mixed / causal[g].sqrt();
            }
        }
    }
    let mut rng = sampling::rng(seed, "polygenic-groups people");
    let mut ancestry = Vec::with_capacity(o.n);
    let mut columns = vec![Vec::with_capacity(o.n); o.snps];
    let mut outcome = Vec::with_capacity(o.n);
    for person in 0..o.n {
        // Whole shares, in order of the golden ratio's multiples, so that every part of the table has all groups.
        let at = ((person as f64 + 0.5) * 0.618_033_988_749_894_9).fract() * total;
        let mut g = 0;
        let mut until = shares[0];
        while at >= until && g + 1 < groups {
            g += 1;
            until += shares[g];
        }
        let mut value = 0.0;
        let mut latent = [0.0; 2];
        for s in 0..o.snps {
            let f = frequency[[g, s]];
            let mut copies = 0.0;
            for z in &mut latent {
                let carried = if linkage[g] == 0.0 {
                    rng.random::<f64>() < f
                } else {
                    let fresh: f64 = rng.sample(StandardNormal);
                    let r = linkage[g];
                    *z = if s % BLOCK == 0 {
                        fresh
                    } else {
                        r * *z + (1.0 - r * r).sqrt() * fresh
                    };
                    normal_share(*z) < f
                };
                copies += f64::from(u8::from(carried));
            }
            value += effect[[g, s]] * (copies - 2.0 * f) / (2.0 * f * (1.0 - f)).sqrt();
            columns[s].push(copies);
        }
        outcome.push(value + noise[g] * rng.sample::<f64, _>(StandardNormal));
        ancestry.push(group_name(g));
    }
    let mut all: Vec<(String, ArrayRef)> = columns
        .into_iter()
        .enumerate()
        .map(|(s, c)| {
            (
                format!("snp{s}"),
                Arc::new(Float64Array::from(c)) as ArrayRef,
            )
        })
        .collect();
    all.push(("trait".into(), Arc::new(Float64Array::from(outcome))));
    all.push(("ancestry".into(), Arc::new(StringArray::from(ancestry))));
    RecordBatch::try_from_iter(all).map_err(|e| Error::Failed(e.to_string()))
}

/// Share of the normal distribution below z: Abramowitz and Stegun 26.2.17, to 7.5e-8.
fn normal_share(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let series = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let above = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * series;
    if z >= 0.0 { 1.0 - above } else { above }
}

/// a, b, c, …
fn group_name(g: usize) -> String {
    char::from(b'a' + (g % 26) as u8).to_string()
}

/// Options of `known-curves`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct KnownCurves {
    /// Number of groups.
    #[schemars(range(min = 1, max = 26))]
    groups: usize,
}

impl Default for KnownCurves {
    fn default() -> Self {
        KnownCurves { groups: 3 }
    }
}

/// alpha ~ U(0.6, 0.95), beta ~ U(0.3, 2), gamma ~ U(0.1, 1.2).
fn known_curves(seed: u64, settings: &Settings) -> Result<RecordBatch> {
    let KnownCurves { groups } = options::build("known-curves", settings)?;
    let mut rng = sampling::rng(seed, "known-curves");
    let mut draw = |low: f64, high: f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(
            (0..groups).map(|_| rng.random_range(low..high)),
        ))
    };
    let (alpha, beta, gamma) = (draw(0.6, 0.95), draw(0.3, 2.0), draw(0.1, 1.2));
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..groups).map(group_name)));
    RecordBatch::try_from_iter([
        ("group", names),
        ("alpha", alpha),
        ("beta", beta),
        ("gamma", gamma),
    ])
    .map_err(|e| Error::Failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::rows::numbers;
    use super::*;
    use papertrial_core::data::Table;
    use serde_json::json;

    fn drawn(seed: u64, options: serde_json::Value) -> Result<Table> {
        let serde_json::Value::Object(settings) = options else {
            unreachable!()
        };
        Ok(Table::memory("t", vec![polygenic_groups(seed, &settings)?]))
    }

    #[test]
    fn shares_genotypes_and_heritability_are_as_asked() {
        let t = drawn(1, json!({"n": 4000, "snps": 40, "causal": [40], "noise": [1.0], "shares": [1.0], "fst": [0.02], "effects": [1.0]})).unwrap();
        let y = numbers(&t, "trait", "--label").unwrap();
        let mean = y.iter().sum::<f64>() / 4000.0;
        let variance = y.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 4000.0;
        // Genetic variance: sum of 40 squared effects of mean 1/40, relative deviation sqrt(2 / 40) = 0.22.
        assert!((1.3..2.9).contains(&variance), "{variance}");
        assert!(
            numbers(&t, "snp3", "--features")
                .unwrap()
                .iter()
                .all(|v| [0.0, 1.0, 2.0].contains(v))
        );
    }

    #[test]
    fn neighbours_are_linked_when_asked() {
        let correlation = |linkage: f64| {
            let o = json!({"n": 3000, "snps": 10, "causal": [3], "noise": [1.0], "shares": [1.0], "fst": [0.01], "effects": [1.0], "linkage": [linkage]});
            let t = drawn(4, o).unwrap();
            let (a, b) = (
                numbers(&t, "snp4", "x").unwrap(),
                numbers(&t, "snp5", "x").unwrap(),
            );
            let m = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
            let cov = |u: &[f64], v: &[f64]| {
                u.iter()
                    .zip(v)
                    .map(|(x, y)| (x - m(u)) * (y - m(v)))
                    .sum::<f64>()
            };
            cov(&a, &b) / (cov(&a, &a) * cov(&b, &b)).sqrt()
        };
        assert!(correlation(0.0).abs() < 0.08);
        assert!(correlation(0.95) > 0.3);
        assert!(
            (normal_share(1.959_964) - 0.975).abs() < 1e-6
                && (normal_share(-1.0) - 0.158_655_25).abs() < 1e-6
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_people_and_wrong_lists_are_told() {
        let o = json!({"n": 50, "snps": 5, "causal": [2, 3, 5]});
        let column = |seed| numbers(&drawn(seed, o.clone()).unwrap(), "trait", "x").unwrap();
        assert_eq!(column(3), column(3));
        assert_ne!(column(3), column(4));
        for (bad, told) in [
            (json!({"noise": [1.0, 2.0]}), "noise"),
            (json!({"shares": [0.0, 0.0, 0.0]}), "shares"),
            (json!({"causal": [500, 1, 1]}), "causal"),
            (json!({"fst": [1.5]}), "fst"),
        ] {
            let e = drawn(0, bad).err().unwrap();
            assert!(e.to_string().contains(told), "{e}");
        }
    }
}
