//! `papertrial-bench flows CAPTURE [pairs]`: turns a capture into flow records and prints JSON: seconds, packets, flows,
//! remarks, and with `pairs` the packets and bytes of each flow's ends. See `bench/flows.py`.

use crate::Result;
use papertrial_detect::flow_intrusion::capture::{FlowOptions, FlowReader, table};
use serde_json::{Value, json};
use std::fs::File;
use std::time::Instant;

pub fn run(words: &[String]) -> Result<Value> {
    let path = words
        .first()
        .ok_or("usage: papertrial-bench flows CAPTURE [pairs]")?;
    let start = Instant::now();
    let mut reader = FlowReader::new(File::open(path)?, &FlowOptions::default())?;
    let mut all = Vec::new();
    let mut flows = 0;
    let mut ready = Vec::new();
    while reader.advance(&mut ready)? {
        flows += ready.len();
        // What a user of the table waits for is the table.
        if !ready.is_empty() {
            table(&ready)?;
        }
        if words.len() > 1 {
            all.extend(ready.iter().map(|f| {
                let ends = (f.source.to_string(), f.destination.to_string());
                json!([
                    ends.0,
                    f.source_port,
                    ends.1,
                    f.destination_port,
                    f.protocol,
                    f.packets(),
                    f.bytes()
                ])
            }));
        }
        ready.clear();
    }
    Ok(json!({
        "seconds": start.elapsed().as_secs_f64(),
        "packets": reader.counts().packets,
        "flows": flows,
        "notes": reader.notes(),
        "pairs": all,
    }))
}
