//! `associative-recall`: keys with values, then queries for them (MQAR: Arora and others, *Zoology*, 2312.04927).
//!
//! A sequence of L tokens out of a vocabulary of V: K pairs of a key from 1 to V/2 - 1 and a value from V/2 to V - 1, no
//! key and no value twice, then each key once more, at even offsets that are drawn without replacement with
//! probabilities a t^(a-1) for place t = 1, 2, .... All else is token 0. The target at a query is its value, at the
//! position of the query itself; other positions have no target (-1). So do the authors' settings, with the rest of the
//! positions left 0.

use arrow::array::{ArrayRef, FixedSizeListArray, Int32Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::Roles;
use papertrial_core::options::{self, Settings};
use papertrial_core::task::Simulation;
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::rng;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The simulation.
pub const SIMULATION: Simulation = Simulation {
    name: "associative-recall",
    about: "sequences of keys with values, then queries whose target is the key's value",
    options: options::describe::<AssociativeRecall>,
    roles: Roles::default,
    generate,
};

/// Options of `associative-recall`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct AssociativeRecall {
    /// Tokens that there are, V; more than length.
    #[schemars(range(min = 6, max = 1_000_000))]
    vocabulary: usize,
    /// Tokens of a sequence, L; even.
    #[schemars(range(min = 4, max = 65_536))]
    length: usize,
    /// Pairs of a sequence, K; at most a quarter of length.
    #[schemars(range(min = 1))]
    pairs: usize,
    /// a: how the places of queries are spread; near 0 most are early, at 1 they are even.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    power: f64,
    /// Sequences to train on.
    #[schemars(range(min = 1))]
    sequences: usize,
    /// Sequences to test on.
    #[schemars(range(min = 1))]
    test: usize,
}

impl Default for AssociativeRecall {
    fn default() -> Self {
        AssociativeRecall {
            vocabulary: 8192,
            length: 64,
            pairs: 4,
            power: 0.01,
            sequences: 100_000,
            test: 3000,
        }
    }
}

/// Columns tokens, targets (lists of L numbers) and part.
fn generate(seed: u64, settings: &Settings) -> Result<RecordBatch> {
    let asked: AssociativeRecall = options::build("associative-recall", settings)?;
    let (v, l, k) = (asked.vocabulary, asked.length, asked.pairs);
    if !l.is_multiple_of(2) {
        return Err(Error::option(
            "length",
            format!("{l} is odd; it must be even"),
        ));
    }
    if 4 * k > l {
        return Err(Error::option(
            "pairs",
            format!("{k} pairs need a length of at least {}, not {l}", 4 * k),
        ));
    }
    if v <= l {
        return Err(Error::option(
            "vocabulary",
            format!("must be more than the length, {l}, not {v}"),
        ));
    }
    let rows = asked.sequences + asked.test;
    let mut tokens = vec![0i32; rows * l];
    let mut targets = vec![-1i32; rows * l];
    let mut keys: Vec<i32> = (1..(v / 2) as i32).collect();
    let mut values: Vec<i32> = ((v / 2) as i32..v as i32).collect();
    let places = (l - 2 * k) / 2;
    let weights: Vec<f64> = (1..=places)
        .map(|t| asked.power * (t as f64).powf(asked.power - 1.0))
        .collect();
    let mut rng = rng(seed, "associative recall");
    for (tokens, targets) in tokens.chunks_exact_mut(l).zip(targets.chunks_exact_mut(l)) {
        // The first k after a partial shuffle; what order the rest is left in does not matter.
        first_shuffled(&mut keys, k, &mut rng);
        first_shuffled(&mut values, k, &mut rng);
        let mut left = weights.clone();
        for i in 0..k {
            tokens[2 * i] = keys[i];
            tokens[2 * i + 1] = values[i];
            let query = 2 * k + 2 * drawn_by(&mut left, &mut rng);
            tokens[query] = keys[i];
            targets[query] = values[i];
        }
    }
    let item = Arc::new(Field::new_list_field(DataType::Int32, false));
    let wrong = |e: arrow::error::ArrowError| Error::Failed(e.to_string());
    let list = |values: Vec<i32>| -> Result<ArrayRef> {
        let values = Arc::new(Int32Array::from(values));
        FixedSizeListArray::try_new(item.clone(), l as i32, values, None)
            .map(|a| Arc::new(a) as ArrayRef)
            .map_err(wrong)
    };
    let kind = DataType::FixedSizeList(item.clone(), l as i32);
    let schema = Schema::new(vec![
        Field::new("tokens", kind.clone(), false),
        Field::new("targets", kind, false),
        Field::new("part", DataType::Utf8, false),
    ]);
    let parts = (0..rows).map(|row| {
        if row < asked.sequences {
            "train"
        } else {
            "test"
        }
    });
    let columns: Vec<ArrayRef> = vec![
        list(tokens)?,
        list(targets)?,
        Arc::new(StringArray::from_iter_values(parts)),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).map_err(wrong)
}

/// Brings `count` random ones to the front.
fn first_shuffled(values: &mut [i32], count: usize, rng: &mut ChaCha8Rng) {
    for i in 0..count {
        let other = rng.random_range(i..values.len());
        values.swap(i, other);
    }
}

/// A place drawn in proportion to its weight, which becomes 0.
fn drawn_by(weights: &mut [f64], rng: &mut ChaCha8Rng) -> usize {
    let total: f64 = weights.iter().sum();
    let mut at = rng.random_range(0.0..1.0) * total;
    let mut last = 0;
    for (place, weight) in weights.iter().enumerate() {
        if *weight > 0.0 {
            last = place;
            if at < *weight {
                break;
            }
            at -= weight;
        }
    }
    weights[last] = 0.0;
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Int32Type;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn rows(seed: u64, settings: Value) -> Result<Vec<(Vec<i32>, Vec<i32>)>> {
        let batch = generate(seed, settings.as_object().unwrap())?;
        let column = |c: usize, row: usize| -> Vec<i32> {
            let list = batch.column(c).as_fixed_size_list().value(row);
            list.as_primitive::<Int32Type>().values().to_vec()
        };
        Ok((0..batch.num_rows())
            .map(|r| (column(0, r), column(1, r)))
            .collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn each_query_has_its_own_value(seed in 0u64..1000, k in 1usize..5, extra in 0usize..9) {
            let l = 4 * k + 2 * extra;
            let settings = json!({"vocabulary": l + 3, "length": l, "pairs": k, "sequences": 6, "test": 2});
            for (tokens, targets) in rows(seed, settings).unwrap() {
                let mut answered = 0;
                for i in 0..l {
                    if targets[i] < 0 {
                        prop_assert!(i < 2 * k || tokens[i] == 0);
                        continue;
                    }
                    answered += 1;
                    prop_assert!(i >= 2 * k && i % 2 == 0);
                    let pair = (0..k).find(|p| tokens[2 * p] == tokens[i]).unwrap();
                    prop_assert_eq!(tokens[2 * pair + 1], targets[i]);
                    prop_assert!((tokens[i] as usize) < (l + 3) / 2 && targets[i] as usize >= (l + 3) / 2);
                }
                prop_assert_eq!(answered, k);
            }
        }
    }

    /// The share of first queries at each place is that of its weight.
    #[test]
    fn early_places_are_likelier() {
        let settings = json!({"vocabulary": 40, "length": 12, "pairs": 1, "power": 0.5, "sequences": 4000, "test": 1});
        let mut counts = [0.0; 5];
        for (_, targets) in rows(1, settings).unwrap() {
            let place = targets.iter().position(|t| *t >= 0).unwrap();
            counts[(place - 2) / 2] += 1.0;
        }
        let weights: Vec<f64> = (1..=5).map(|t| f64::from(t).powf(-0.5)).collect();
        let total: f64 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(weights) {
            let p = weight / total;
            let deviation = (p * (1.0 - p) / 4001.0).sqrt();
            assert!((count / 4001.0 - p).abs() < 4.0 * deviation);
        }
    }

    #[test]
    fn impossible_sizes_are_told() {
        let told = |settings: Value| rows(0, settings).unwrap_err().to_string();
        assert!(told(json!({"length": 15, "vocabulary": 64})).contains("even"));
        assert!(told(json!({"length": 14, "vocabulary": 64})).contains("at least 16"));
        assert!(told(json!({"length": 64, "vocabulary": 64})).contains("more than the length"));
    }
}
