//! `papertrial-bench WHAT DATA N D K REPEATS [START]`: times one kernel or method, data in memory, and prints JSON.
//!
//! DATA holds N x D numbers (f64, little-endian, row by row). WHAT is `kmeans` (START: K x D centres), `knn`, `gmm`
//! or `sdp`. See `bench/cluster.py`. The others, such as `papertrial-bench neural`, are described in their own files.

mod decamouflage;
mod detect;
mod flows;
mod graph;
mod neural;
mod select;

use ndarray::Array2;
use papertrial_cluster::clustering::{Clusterer, GaussianMixture, Points, SdpKMeans};
use papertrial_core::task::Context;
use papertrial_numerics::kmeans::kmeans_from;
use papertrial_numerics::neighbours::nearest_neighbours;
use serde_json::{Value, json};
use std::error::Error;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().collect();
    let own = match words.get(1).map(String::as_str) {
        Some("decamouflage") => Some(decamouflage::run(&words[2..])?),
        Some("detect") => Some(detect::run(&words[2..])?),
        Some("flows") => Some(flows::run(&words[2..])?),
        Some("graph") => Some(graph::run(&words[2..])?),
        Some("neural") => Some(neural::run(&words[2..])?),
        Some("select") => Some(select::run(&words[2..])?),
        _ => None,
    };
    if let Some(result) = own {
        println!("{result}");
        return Ok(());
    }
    let [_, what, data, n, d, k, repeats, rest @ ..] = &words[..] else {
        return Err("usage: papertrial-bench WHAT DATA N D K REPEATS [START]".into());
    };
    let (n, d, k): (usize, usize, usize) = (n.parse()?, d.parse()?, k.parse()?);
    let repeats: usize = repeats.parse()?;
    let x = matrix(data, n, d)?;
    let result = match what.as_str() {
        "kmeans" => {
            let start = matrix(rest.first().ok_or("kmeans needs START")?, k, d)?;
            timed(repeats, || {
                let found = kmeans_from(x.view(), None, start.view(), 300, 1e-4)?;
                Ok(json!({"inertia": found.inertia, "rounds": found.rounds}))
            })?
        }
        "knn" => timed(repeats, || {
            let found = nearest_neighbours(x.view(), x.view(), k)?;
            // A sum over all distances tells whether the neighbours are the same ones.
            let sum: f64 = found.squared.iter().map(|s| s.sqrt()).sum();
            Ok(json!({"distances": sum}))
        })?,
        "gmm" => {
            let points = Points::from_matrix(x)?;
            let method = GaussianMixture {
                k,
                ..GaussianMixture::default()
            };
            timed(repeats, || {
                let found = method.fit(&points, &Context::with_seed(0))?;
                let curve = &found.curves[0].points;
                let last = curve.last().map_or(f64::NAN, |p| p.1);
                Ok(json!({"likelihood": last, "rounds": curve.len() - 1}))
            })?
        }
        "sdp" => {
            let points = Points::from_matrix(x)?;
            let method = SdpKMeans {
                k,
                ..SdpKMeans::default()
            };
            timed(repeats, || {
                let found = method.fit(&points, &Context::with_seed(0))?;
                let objective = found.curves[0].points.last().map_or(f64::NAN, |p| p.1);
                Ok(json!({"objective": objective, "notes": found.notes}))
            })?
        }
        other => return Err(format!("nothing is called {other}").into()),
    };
    println!("{result}");
    Ok(())
}

fn matrix(path: &str, rows: usize, columns: usize) -> Result<Array2<f64>> {
    let bytes = std::fs::read(path)?;
    let numbers = bytes
        .chunks_exact(8)
        .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
        .collect();
    Ok(Array2::from_shape_vec((rows, columns), numbers)?)
}

/// The result of the last repeat with the seconds of all.
fn timed(repeats: usize, mut body: impl FnMut() -> Result<Value>) -> Result<Value> {
    let mut seconds = Vec::new();
    let mut last = Value::Null;
    for _ in 0..repeats {
        let start = Instant::now();
        last = body()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    last["seconds"] = json!(seconds);
    Ok(last)
}
