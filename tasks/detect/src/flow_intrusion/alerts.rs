//! Alerts: one JSON object a line, written as it comes.
//!
//! Each has the number of the flow, its time and its five-tuple as far as the source has them, the probability, and in
//! `window` the same for the flows that were looked at with it, the alert's own last:
//!
//! `{"row":17,"time":1700000000000,"source_address":"10.0.0.1","source_port":4000,"destination_address":"10.0.0.2",
//! "destination_port":80,"protocol":6,"probability":0.98,"window":[{"row":10,…},…]}`

use super::schema::Schema;
use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use papertrial_core::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value};
use std::io::Write;

/// The names of the five-tuple's parts.
const PARTS: [&str; 5] = [
    "source_address",
    "source_port",
    "destination_address",
    "destination_port",
    "protocol",
];

/// One alert.
#[derive(Serialize)]
struct Alert<'a> {
    #[serde(flatten)]
    flow: &'a Map<String, Value>,
    probability: f64,
    window: Vec<&'a Map<String, Value>>,
}

/// Writes alerts and keeps what their windows need.
pub struct Alerts<W> {
    out: W,
    /// Names and columns of what is told of a flow.
    told: Vec<(&'static str, usize)>,
    window: usize,
    /// Rows so far.
    rows: u64,
    /// The last flows, one less than a window.
    before: Vec<Map<String, Value>>,
    written: u64,
}

impl<W: Write> Alerts<W> {
    /// For flows of `schema` in tables with the columns `columns`, looked at `window` at a time.
    pub fn new(out: W, schema: &Schema, columns: &[String], window: usize) -> Alerts<W> {
        let names = std::iter::once(("time", schema.time.as_deref()))
            .chain(PARTS.into_iter().zip(schema.five_tuple.columns()));
        let told = names
            .filter_map(|(name, column)| {
                let at = columns.iter().position(|c| Some(c.as_str()) == column)?;
                Some((name, at))
            })
            .collect();
        Alerts {
            out,
            told,
            window: window.max(1),
            rows: 0,
            before: Vec::new(),
            written: 0,
        }
    }

    /// Takes the next flows with, for each, its probability if that makes it an alert.
    ///
    /// # Errors
    /// The output can't be written.
    pub fn push(&mut self, flows: &RecordBatch, alerts: &[Option<f32>]) -> Result<()> {
        let failed = |e: std::io::Error| Error::Failed(format!("alerts cannot be written: {e}"));
        let n = flows.num_rows();
        let mut wrote = false;
        for (row, probability) in alerts.iter().enumerate().take(n) {
            let Some(probability) = probability else {
                continue;
            };
            let first = (row + 1).saturating_sub(self.window);
            let own: Vec<_> = (first..=row).map(|r| self.flow(flows, r)).collect();
            let lacking = (self.window - own.len()).min(self.before.len());
            let earlier = &self.before[self.before.len() - lacking..];
            let Some(flow) = own.last() else {
                continue;
            };
            let alert = Alert {
                flow,
                probability: f64::from(*probability),
                window: earlier.iter().chain(&own).collect(),
            };
            let mut line = serde_json::to_vec(&alert).map_err(|e| Error::Failed(e.to_string()))?;
            line.push(b'\n');
            self.out.write_all(&line).map_err(failed)?;
            self.written += 1;
            wrote = true;
        }
        if wrote {
            self.out.flush().map_err(failed)?;
        }
        let first = (n + 1).saturating_sub(self.window);
        let last: Vec<_> = (first..n).map(|r| self.flow(flows, r)).collect();
        self.before.extend(last);
        let surplus = (self.before.len() + 1).saturating_sub(self.window);
        self.before.drain(..surplus);
        self.rows += n as u64;
        Ok(())
    }

    /// Alerts so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// What is told of a flow.
    fn flow(&self, flows: &RecordBatch, row: usize) -> Map<String, Value> {
        let mut told = Map::new();
        told.insert("row".into(), Value::from(self.rows + row as u64));
        for (name, at) in &self.told {
            let column = flows.column(*at);
            if column.is_valid(row)
                && let Ok(text) = array_value_to_string(column, row)
            {
                told.insert((*name).into(), value(text));
            }
        }
        told
    }
}

/// A number where the text is one.
fn value(text: String) -> Value {
    if let Ok(whole) = text.parse::<i64>() {
        return whole.into();
    }
    match text
        .parse::<f64>()
        .ok()
        .and_then(serde_json::Number::from_f64)
    {
        Some(number) => Value::Number(number),
        None => Value::String(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, StringArray, UInt64Array};
    use std::sync::Arc;

    #[test]
    fn windows_reach_over_batches() {
        let mut schema = Schema::named("unified-flow").unwrap();
        schema.time = Some("t".into());
        let batch = |from: u64, n: u64| {
            let times: ArrayRef = Arc::new(UInt64Array::from_iter_values(from..from + n));
            let ports: ArrayRef = Arc::new(StringArray::from_iter_values(
                (from..from + n).map(|i| (100 + i).to_string()),
            ));
            RecordBatch::try_from_iter([("t", times), ("L4_DST_PORT", ports)]).unwrap()
        };
        let columns = ["t".to_owned(), "L4_DST_PORT".to_owned()];
        let mut out = Vec::new();
        let mut alerts = Alerts::new(&mut out, &schema, &columns, 3);
        alerts.push(&batch(0, 2), &[Some(0.75), None]).unwrap();
        alerts.push(&batch(2, 1), &[Some(0.5)]).unwrap();
        alerts
            .push(&batch(3, 5), &[Some(1.0), None, None, None, Some(0.25)])
            .unwrap();
        assert_eq!(alerts.written(), 4);
        let lines: Vec<Value> = String::from_utf8(out)
            .unwrap()
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        let window = |line: &Value| -> Vec<u64> {
            line["window"]
                .as_array()
                .unwrap()
                .iter()
                .map(|f| {
                    assert_eq!(f["time"], f["row"]);
                    f["row"].as_u64().unwrap()
                })
                .collect()
        };
        assert_eq!(window(&lines[0]), [0]);
        assert_eq!(window(&lines[1]), [0, 1, 2]);
        assert_eq!(window(&lines[2]), [1, 2, 3]);
        assert_eq!(window(&lines[3]), [5, 6, 7]);
        assert_eq!(lines[3]["destination_port"], 107);
        assert_eq!(lines[3]["probability"], 0.25);
        assert!(lines[0].get("source_address").is_none());
    }
}
