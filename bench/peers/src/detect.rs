//! `papertrial-bench detect FOLDER FLOWS STEPS REPEATS`: trains the recommended FlowTransformer on drawn flows, scores
//! them, and prints JSON with the seconds; FOLDER gets the flows (`numbers`, f32, `codes`, u32, row by row), the
//! `scores` (f32) of all windows and the weights. See `bench/detect.py`.

use crate::Result;
use papertrial_core::task::Context;
use papertrial_detect::flow_intrusion::{Detector, FlowTransformer, Flows, Layout};
use papertrial_numerics::sampling::rng;
use rand::RngExt;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Columns as in NSL-KDD: numbers, and codes of each categorical column.
const NUMBERS: usize = 34;
const CODES: [usize; 7] = [4, 33, 12, 3, 3, 2, 3];

/// Flows of a window.
const WINDOW: usize = 8;

/// Scorings of one flow behind one timing, each of another flow.
const SINGLES: usize = 1000;

pub fn run(words: &[String]) -> Result<Value> {
    let [folder, rows, steps, repeats] = words else {
        return Err("usage: papertrial-bench detect FOLDER FLOWS STEPS REPEATS".into());
    };
    let folder = Path::new(folder);
    let (rows, steps, repeats): (usize, usize, usize) =
        (rows.parse()?, steps.parse()?, repeats.parse()?);
    let flows = drawn(rows);
    let context = Context::with_seed(0);
    let method = FlowTransformer {
        epochs: 1,
        steps,
        ..FlowTransformer::default()
    };
    let ends: Vec<usize> = (WINDOW - 1..rows).collect();
    let fitted = method.fit(&flows, &ends, WINDOW, &context)?;
    fitted.save(folder)?;
    let mut whole = Vec::new();
    let mut single = Vec::new();
    let mut scores = Vec::new();
    for _ in 0..repeats {
        let began = Instant::now();
        scores = fitted.score(&flows, &ends, &context)?;
        whole.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        for row in ends.iter().take(SINGLES) {
            fitted.score(&flows, &[*row], &context)?;
        }
        single.push(began.elapsed().as_secs_f64() / SINGLES.min(ends.len()) as f64);
    }
    write(
        folder,
        "numbers",
        flows.numeric.iter().map(|v| v.to_le_bytes()),
    )?;
    write(folder, "codes", flows.codes.iter().map(|v| v.to_le_bytes()))?;
    write(folder, "scores", scores.iter().map(|v| v.to_le_bytes()))?;
    Ok(json!({
        "parameters": fitted.parameters(),
        "step": fitted.seconds_per_step(),
        "whole": whole,
        "single": single,
    }))
}

fn write(folder: &Path, name: &str, values: impl Iterator<Item = [u8; 4]>) -> Result<()> {
    let bytes: Vec<u8> = values.flatten().collect();
    Ok(std::fs::write(folder.join(name), bytes)?)
}

/// Flows without any rule: times do not depend on what there is to learn.
fn drawn(rows: usize) -> Flows {
    let mut draws = rng(0, "flows to be timed");
    Flows {
        layout: Arc::new(Layout {
            numeric: (0..NUMBERS).map(|i| format!("number {i}")).collect(),
            categorical: (0..CODES.len()).map(|i| format!("code {i}")).collect(),
            codes: CODES.to_vec(),
        }),
        numeric: (0..rows * NUMBERS).map(|_| draws.random()).collect(),
        codes: (0..rows * CODES.len())
            .map(|i| draws.random_range(0..CODES[i % CODES.len()] as u32))
            .collect(),
        attack: Some((0..rows).map(|_| draws.random()).collect()),
        rows,
    }
}
