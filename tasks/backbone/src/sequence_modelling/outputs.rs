//! The tables that run writes.

use super::TaskOptions;
use super::inspect::Unit;
use super::model::tokens_of;
use super::rows::Rows;
use super::train::{Scores, Trained};
use arrow::array::{ArrayRef, Float64Array, StringArray, UInt64Array};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use burn::tensor::Device;
use papertrial_core::{Error, Result};
use papertrial_nn::values_of;
use papertrial_numerics::sampling::rng;
use rand::RngExt;
use std::sync::Arc;

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns.into_iter().map(|(_, array)| array).collect(),
    )
    .map_err(|e| Error::Failed(e.to_string()))
}

fn whole(values: impl Iterator<Item = usize>) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(values.map(|v| v as u64)))
}

fn numbers(values: impl Iterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(Float64Array::from_iter(values))
}

/// A row a test sequence: its place (of a text its first byte, of a table its row, from 0), targets, targets met and,
/// if they are `known`, the mean cross-entropy in nats.
pub fn scores(rows: &Rows, scores: &Scores, known: bool) -> Result<RecordBatch> {
    let unit = if rows.text { 1 } else { rows.length };
    let mut columns = vec![
        ("start", whole(rows.test.iter().map(|start| start / unit))),
        ("targets", whole(scores.rows.iter().map(|r| r.2))),
        ("met", whole(scores.rows.iter().map(|r| r.1))),
    ];
    if known {
        let mean = |r: &(f64, usize, usize)| (r.2 > 0).then(|| r.0 / r.2 as f64);
        columns.push(("cross_entropy", numbers(scores.rows.iter().map(mean))));
    }
    batch(columns)
}

/// A row a sample: its number from 1 and its text, bytes that are no UTF-8 replaced.
pub fn samples(
    trained: &Trained,
    asked: &TaskOptions,
    seed: u64,
    device: &Device,
) -> Result<RecordBatch> {
    if asked.prompt.is_empty() {
        return Err(Error::option("prompt", "must not be empty"));
    }
    let mut rng = rng(seed, "samples");
    let length = trained.options.length;
    let mut texts = vec![asked.prompt.as_bytes().to_vec(); asked.samples];
    for _ in 0..asked.sample_length {
        let shown = texts[0].len().min(length);
        let last: Vec<Vec<u32>> = texts
            .iter()
            .map(|t| t[t.len() - shown..].iter().map(|b| u32::from(*b)).collect())
            .collect();
        let tokens = tokens_of(last.iter().map(Vec::as_slice), shown, device);
        let hidden = trained.model.hidden(tokens);
        let [b, l, d] = hidden.dims();
        let said = trained
            .model
            .scores(hidden.narrow(1, l - 1, 1).reshape([b, d]));
        let [_, vocabulary] = said.dims();
        let said = values_of(said)?;
        for (text, scores) in texts.iter_mut().zip(said.chunks_exact(vocabulary)) {
            let byte = drawn(scores, asked.temperature, rng.random_range(0.0..1.0));
            text.push(byte as u8);
        }
    }
    let text = |t: &Vec<u8>| String::from_utf8_lossy(t).into_owned();
    batch(vec![
        ("sample", whole(1..=texts.len())),
        (
            "text",
            Arc::new(StringArray::from_iter_values(texts.iter().map(text))),
        ),
    ])
}

/// A token in proportion to exp(score / temperature); `at` is even in [0, 1).
fn drawn(scores: &[f32], temperature: f64, at: f64) -> usize {
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |score: &f32| (f64::from(*score - top) / temperature).exp();
    let mut left = at * scores.iter().map(weight).sum::<f64>();
    for (token, score) in scores.iter().enumerate() {
        left -= weight(score);
        if left < 0.0 {
            return token;
        }
    }
    super::train::highest(scores)
}

/// A row a head or channel.
pub fn memory(units: &[Unit]) -> Result<RecordBatch> {
    let part = |f: fn((f64, f64, f64)) -> f64| numbers(units.iter().map(|u| u.eigenvalues.map(f)));
    batch(vec![
        ("layer", whole(units.iter().map(|u| u.layer))),
        ("unit", whole(units.iter().map(|u| u.unit))),
        ("lowest_eigenvalue", part(|e| e.0)),
        ("mean_eigenvalue", part(|e| e.1)),
        ("highest_eigenvalue", part(|e| e.2)),
        ("fades_in", numbers(units.iter().map(|u| u.fades_in))),
        (
            "mean_distance",
            numbers(units.iter().map(|u| Some(u.distance))),
        ),
    ])
}

/// A row a pair of positions, from 1, of each head or channel.
pub fn weights(units: &[Unit]) -> Result<RecordBatch> {
    let all = || {
        units.iter().flat_map(|unit| {
            let l = unit.phi.nrows();
            (0..l).flat_map(move |i| (0..=i).map(move |j| (unit, i, j)))
        })
    };
    batch(vec![
        ("layer", whole(all().map(|(u, _, _)| u.layer))),
        ("unit", whole(all().map(|(u, _, _)| u.unit))),
        ("to", whole(all().map(|(_, i, _)| i + 1))),
        ("from", whole(all().map(|(_, _, j)| j + 1))),
        (
            "weight",
            numbers(all().map(|(u, i, j)| Some(u.phi[[i, j]]))),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_drawn_by_their_scores() {
        // Weights 1, 2 and 1 at temperature 1.
        let scores = [0.0, 2f32.ln(), 0.0];
        let at = |at: f64| drawn(&scores, 1.0, at);
        assert_eq!(
            [at(0.0), at(0.24), at(0.26), at(0.74), at(0.76), at(0.99)],
            [0, 0, 1, 1, 2, 2]
        );
        // Cold: the highest.
        assert_eq!(drawn(&scores, 1e-3, 0.999), 1);
    }
}
