//! `papertrial-bench select WHAT FILE NUMBERS…`: the select family's kernels and methods, for `bench/selection.py`.
//!
//! - `facility FILE N D K`, `k-center FILE N D K`: FILE holds N x D numbers (f32); the K chosen rows.
//! - `embeddings FILE QUERIES N D Q K`: Parquet with a column `vector`, numbers (f32) of the queries; the K chosen rows
//!   and the peak memory.
//! - `coreset FILE N D K`: N x D numbers (f64) and then N classes, 0 or 1; losses of the coreset's and the full model.
//! - `votes FILE VOTES N A C`: VOTES x 3 numbers (u32): row, annotator, class; the class of each row.
//! - `stream FILE N D BUDGET`: N x D numbers (f64) and then N classes; accuracy and share of labels.

use super::{Result, timed};
use ndarray::{Array2, ArrayView2, s};
use papertrial_core::data::{ReadOptions, Table};
use papertrial_core::task::Context;
use papertrial_select::active_learning::{Votes, dawid_skene};
use papertrial_select::coreset::{AutoCoreset, Chooser, FullData, Linear, LinearLoss};
use papertrial_select::data_selection::{Greedy, Points, centers, locate};
use papertrial_select::stream_labelling::{
    Engine, Target, TaskOptions, Truth, VariableUncertainty,
};
use papertrial_select::targeted_selection::{Aggregate, Picking, TableCosines, select_round_robin};
use serde_json::{Value, json};
use std::path::Path;

/// The result of one piece of work, with its seconds.
pub fn run(words: &[String]) -> Result<Value> {
    let [what, file, numbers @ ..] = words else {
        return Err("usage: papertrial-bench select WHAT FILE NUMBERS...".into());
    };
    let number =
        |at: usize| -> Result<usize> { Ok(numbers.get(at).ok_or("a number is missing")?.parse()?) };
    match what.as_str() {
        "facility" => {
            let x = singles(file, number(0)?, number(1)?)?;
            let k = number(2)?;
            timed(1, || {
                let points = Points::new(x.clone())?;
                let rows = locate(&points, k, Greedy::Lazy, 0.0, &Context::with_seed(0))?;
                Ok(json!({ "rows": rows }))
            })
        }
        "k-center" => {
            let x = singles(file, number(0)?, number(1)?)?;
            let k = number(2)?;
            timed(1, || Ok(json!({ "rows": centers(x.view(), k)? })))
        }
        "embeddings" => {
            let queries_file = numbers.first().ok_or("the file of queries is missing")?;
            let (d, q, k) = (number(2)?, number(3)?, number(4)?);
            let queries = singles(queries_file, q, d)?;
            timed(1, || {
                let table = Table::open(Path::new(file), &ReadOptions::default())?;
                let scores = TableCosines {
                    table: &table,
                    column: 0,
                    queries: &queries,
                };
                let picking = Picking {
                    rows: k,
                    aggregate: Aggregate::RoundRobin,
                    retry: false,
                    allowed: None,
                    cap: None,
                };
                let picks = select_round_robin(&scores, &vec![0; q], &picking)?;
                let rows: Vec<usize> = picks.iter().map(|p| p.row).collect();
                Ok(json!({ "rows": rows, "peak_bytes": peak_bytes() }))
            })
        }
        "coreset" => {
            let (n, d, k) = (number(0)?, number(1)?, number(2)?);
            let (x, classes) = labelled(file, n, d)?;
            let classes: Vec<u32> = classes.iter().map(|c| *c as u32).collect();
            let problem = Linear::of_classes(x, classes, LinearLoss::Logistic, 1.0)?;
            let context = Context::with_seed(0);
            let full = FullData {}.choose(&problem, k, &context)?.loss;
            timed(1, || {
                let found = AutoCoreset::default().build(&problem, k, &context)?;
                Ok(json!({ "loss": found.loss, "full": full, "fits": found.sums.len() }))
            })
        }
        "votes" => {
            let (count, n, annotators, classes) = (number(0)?, number(1)?, number(2)?, number(3)?);
            let numbers = words32(file)?;
            let votes: Vec<(u32, u32, u32, f64)> = numbers
                .chunks_exact(3)
                .take(count)
                .map(|v| (v[0], v[1], v[2], 1.0))
                .collect();
            timed(1, || {
                let votes = Votes::new(&votes, n, annotators, classes);
                let (posterior, _) = dawid_skene(&votes);
                let labels: Vec<usize> = posterior
                    .outer_iter()
                    .map(|p| {
                        let best = |b: usize, (c, v): (usize, &f64)| if *v > p[b] { c } else { b };
                        p.iter().enumerate().fold(0, best)
                    })
                    .collect();
                Ok(json!({ "labels": labels }))
            })
        }
        "stream" => {
            let (n, d) = (number(0)?, number(1)?);
            let budget: f64 = numbers.get(2).ok_or("the budget is missing")?.parse()?;
            let (x, classes) = labelled(file, n, d)?;
            timed(1, || stream(x.view(), &classes, budget))
        }
        other => Err(format!("nothing is called {other}").into()),
    }
}

/// Variable uncertainty with softmax regression over the rows, in their order.
fn stream(x: ArrayView2<f64>, classes: &[f64], budget: f64) -> Result<Value> {
    let asked = TaskOptions {
        budget,
        ..TaskOptions::default()
    };
    let count = classes.iter().fold(0.0f64, |m, c| m.max(*c)) as usize + 1;
    let setting = asked.setting(Target::Classes(count), x.ncols(), None, 0);
    let mut engine = Engine::new(&VariableUncertainty::default(), &setting)?;
    let (mut right, mut labels) = (0usize, 0usize);
    for (row, class) in x.outer_iter().zip(classes) {
        let row = row.to_slice().ok_or("rows are not in one piece")?;
        let decision = engine.decide(row)?;
        let truth = Truth::Class(*class as usize);
        right += usize::from(decision.prediction.value == truth);
        if decision.ask {
            labels += 1;
            engine.learn(decision.row, truth)?;
        }
    }
    let n = classes.len() as f64;
    Ok(json!({ "accuracy": right as f64 / n, "labels": labels as f64 / n }))
}

fn words32(path: &str) -> Result<Vec<u32>> {
    Ok(std::fs::read(path)?
        .chunks_exact(4)
        .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect())
}

fn singles(path: &str, n: usize, d: usize) -> Result<Array2<f32>> {
    let numbers = words32(path)?.into_iter().map(f32::from_bits).collect();
    Ok(Array2::from_shape_vec((n, d), numbers)?)
}

/// n rows of d numbers, and then n classes.
fn labelled(path: &str, n: usize, d: usize) -> Result<(Array2<f64>, Vec<f64>)> {
    let all = super::matrix(path, n * (d + 1), 1)?;
    let x = all
        .slice(s![..n * d, 0])
        .to_owned()
        .into_shape_with_order((n, d))?;
    Ok((x, all.slice(s![n * d.., 0]).to_vec()))
}

/// Largest memory of this process, where the system tells.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
