//! `random-sequences`: positions of normal numbers.

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::Roles;
use papertrial_core::options::{self, Settings};
use papertrial_core::task::Simulation;
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::rng;
use rand_distr::{Distribution, StandardNormal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The simulation.
pub const SIMULATION: Simulation = Simulation {
    name: "random-sequences",
    about: "a sequence of positions, each of normal random numbers",
    options: options::describe::<RandomSequences>,
    roles: Roles::default,
    generate,
};

/// Options of `random-sequences`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct RandomSequences {
    /// Positions.
    #[schemars(range(min = 1, max = 1_000_000))]
    length: usize,
    /// Numbers of a position.
    #[schemars(range(min = 1, max = 4096))]
    d: usize,
    /// If given, all positions are scaled so that this is the largest |u.u'| / sqrt(d) of two of them.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    largest_logit: Option<f64>,
}

impl Default for RandomSequences {
    fn default() -> Self {
        RandomSequences {
            length: 64,
            d: 16,
            largest_logit: None,
        }
    }
}

/// Columns u1 to ud, a row a position.
fn generate(seed: u64, settings: &Settings) -> Result<RecordBatch> {
    let asked: RandomSequences = options::build("random-sequences", settings)?;
    let (length, d) = (asked.length, asked.d);
    let mut rng = rng(seed, "random sequences");
    let mut values: Vec<f64> = (0..length * d)
        .map(|_| StandardNormal.sample(&mut rng))
        .collect();
    if let Some(largest) = asked.largest_logit {
        // The largest product is that of the longest position with itself.
        let square = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>();
        let longest = values.chunks_exact(d).map(square).fold(0.0, f64::max);
        let scale = (largest * (d as f64).sqrt() / longest).sqrt();
        values.iter_mut().for_each(|v| *v *= scale);
    }
    let fields: Vec<Field> = (1..=d)
        .map(|c| Field::new(format!("u{c}"), DataType::Float64, false))
        .collect();
    let columns = (0..d).map(|c| {
        let column = values.iter().skip(c).step_by(d).copied();
        Arc::new(Float64Array::from_iter_values(column)) as ArrayRef
    });
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.collect())
        .map_err(|e| Error::Failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Float64Type;
    use serde_json::json;

    #[test]
    fn the_largest_product_is_as_asked() {
        let settings = json!({"length": 9, "d": 4, "largest-logit": 0.5});
        let batch = generate(1, settings.as_object().unwrap()).unwrap();
        assert_eq!((batch.num_rows(), batch.num_columns()), (9, 4));
        let at = |row: usize, column: usize| {
            batch
                .column(column)
                .as_primitive::<Float64Type>()
                .value(row)
        };
        let mut largest: f64 = 0.0;
        for i in 0..9 {
            for j in 0..9 {
                let dot: f64 = (0..4).map(|c| at(i, c) * at(j, c)).sum();
                largest = largest.max(dot.abs() / 2.0);
            }
        }
        assert!((largest - 0.5).abs() < 1e-12);
    }
}
