//! `papertrial-bench graph FOLDER EPOCHS OUT`: times RQGNN for `bench/graph.py`. Measures on the folder (TUDataset
//! format), then learns from it and writes scores and the model to OUT.

use crate::Result;
use papertrial_core::data::{ReadOptions, Roles};
use papertrial_core::options::Settings;
use papertrial_core::plan;
use papertrial_core::task::{Context, Task};
use papertrial_detect::FAMILY;
use papertrial_detect::graph_anomaly::GraphAnomaly;
use serde_json::Value;
use std::path::Path;

pub fn run(words: &[String]) -> Result<Value> {
    let [folder, epochs, out] = words else {
        return Err("usage: papertrial-bench graph FOLDER EPOCHS OUT".into());
    };
    let read = ReadOptions::default();
    let source = plan::source(folder, &Settings::new(), Roles::default(), &read, &FAMILY)?;
    let method = plan::method(&GraphAnomaly, "rqgnn")?;
    let mut options = Settings::new();
    options.insert("epochs".into(), epochs.parse::<usize>()?.into());
    options.insert("spectrum".into(), false.into());
    let job = plan::job(
        &GraphAnomaly,
        &method,
        &Settings::new(),
        &options,
        &source,
        0,
    )?;
    let context = Context::with_seed(0);
    let measured = GraphAnomaly.measure(&job, &context)?;
    GraphAnomaly.apply(&job, Path::new(out), &context)?;
    Ok(serde_json::to_value(&measured.metrics)?)
}
