//! Packet captures as flow tables: `.pcap` and `.pcapng`, packets in, bidirectional flow records out.
//!
//! The records have the columns of the NetFlow version 2 layout that a capture can give, so that a model of schema
//! `unified-flow` can be used on them. What no flow can take is counted by its kind and never stops the reading.

mod flows;
mod fragments;
mod order;
mod packet;
mod reader;
mod record;

pub use flows::{FlowOptions, FlowTable};
pub use packet::{Dns, Fragment, Header, Tcp, Unread, parse};
pub use reader::{Captured, Oddities, Reader, is_capture};
pub use record::{End, FlowRecord, Way, columns, table};

use super::source::{Batches, Source};
use papertrial_core::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Flows of one batch, about.
const BATCH: usize = 8192;

/// What became of the packets of a capture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets of the capture: the sum of the next five.
    pub packets: u64,
    /// Part of a flow.
    pub in_flows: u64,
    /// On a link of a type that is not known here.
    pub other_link: u64,
    /// Not IP.
    pub not_ip: u64,
    /// Too little was kept of them.
    pub truncated: u64,
    /// Their header contradicts itself.
    pub malformed: u64,
    /// IP bytes of the packets that are part of a flow.
    pub bytes: u64,
}

/// The flows of a capture, as they end.
pub struct FlowReader<R> {
    reader: Reader<R>,
    table: FlowTable,
    counts: Counts,
    over: bool,
}

impl<R: Read> FlowReader<R> {
    /// For the bytes of `input`, from the first.
    ///
    /// # Errors
    /// Options out of range.
    pub fn new(input: R, options: &FlowOptions) -> Result<FlowReader<R>> {
        Ok(FlowReader {
            reader: Reader::new(input),
            table: FlowTable::new(options)?,
            counts: Counts::default(),
            over: false,
        })
    }

    /// Reads once from the input and adds the flows that have ended to `out`, at the end of the capture all that are
    /// left. `false` when there is no more.
    ///
    /// # Errors
    /// The input fails, or is no capture.
    pub fn advance(&mut self, out: &mut Vec<FlowRecord>) -> Result<bool> {
        if self.over {
            return Ok(false);
        }
        let (counts, table) = (&mut self.counts, &mut self.table);
        let more = self.reader.advance(|captured| {
            counts.packets += 1;
            match parse(captured.link, captured.data, captured.original) {
                Ok(header) => {
                    counts.in_flows += 1;
                    counts.bytes += u64::from(header.length);
                    table.push(captured.time, &header, out);
                }
                Err(Unread::Link) => counts.other_link += 1,
                Err(Unread::NotIp) => counts.not_ip += 1,
                Err(Unread::Truncated) => counts.truncated += 1,
                Err(Unread::Malformed) => counts.malformed += 1,
            }
        })?;
        if !more {
            self.table.flush(out);
            self.over = true;
        }
        Ok(true)
    }

    /// What became of the packets so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Remarks for the reader: what is in no flow, and what is strange about the capture.
    pub fn notes(&self) -> Vec<String> {
        let counts = self.counts;
        let ended: u64 = self.table.ended().iter().map(|(_, n)| n).sum();
        let mut notes = vec![format!(
            "{} packets of the capture, {} of them in {ended} flows",
            counts.packets, counts.in_flows
        )];
        for (n, what) in [
            (counts.not_ip, "packets are not IP"),
            (
                counts.truncated,
                "packets were cut too short when they were captured",
            ),
            (
                counts.malformed,
                "packets have headers that contradict themselves",
            ),
            (
                counts.other_link,
                "packets come from links of a type that is not known here",
            ),
            (
                self.table.orphans(),
                "pieces of packets came without the first piece and have ports 0",
            ),
            (
                self.reader.oddities().skipped,
                "blocks of the file contradict themselves and were skipped",
            ),
        ] {
            if n > 0 {
                notes.push(format!("{n} {what}"));
            }
        }
        let evicted = self.table.ended()[End::Evicted as usize].1;
        if evicted > 0 {
            notes.push(format!(
                "{evicted} flows were given out early, because more were under way than the table has room for"
            ));
        }
        notes.extend(self.reader.oddities().stopped.clone());
        notes
    }
}

/// A capture file as a flow table.
pub struct Capture {
    path: PathBuf,
    name: String,
    options: FlowOptions,
    notes: Arc<Mutex<Vec<String>>>,
}

impl Capture {
    /// A file whose flows can be read as often as wanted.
    ///
    /// # Errors
    /// The file can't be read, is no capture, or options out of range.
    pub fn open(path: &Path, options: &FlowOptions) -> Result<Capture> {
        FlowTable::new(options)?;
        if !is_capture_file(path)? {
            return Err(Error::file(
                path,
                "is no capture: it begins neither like .pcap nor like .pcapng",
            ));
        }
        Ok(Capture {
            path: path.into(),
            name: path.display().to_string(),
            options: options.clone(),
            notes: Arc::default(),
        })
    }
}

/// Whether a file begins like a capture; a folder doesn't.
///
/// # Errors
/// It can't be read.
pub fn is_capture_file(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    if !path.is_dir() {
        file(path)?
            .take(4)
            .read_to_end(&mut start)
            .map_err(|e| Error::file(path, e))?;
    }
    Ok(is_capture(&start))
}

fn file(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| Error::file(path, e))
}

impl Source for Capture {
    fn name(&self) -> &str {
        &self.name
    }

    fn columns(&self) -> Vec<String> {
        columns()
    }

    fn batches(&self) -> Result<Batches> {
        let flows = FlowReader::new(file(&self.path)?, &self.options)?;
        Ok(Box::new(FlowBatches {
            flows,
            name: self.name.clone(),
            batch: BATCH,
            notes: self.notes.clone(),
        }))
    }

    fn notes(&self) -> Vec<String> {
        self.notes.lock().map(|n| n.clone()).unwrap_or_default()
    }
}

/// Batches of flows from a capture.
pub(super) struct FlowBatches<R> {
    pub flows: FlowReader<R>,
    /// For messages.
    pub name: String,
    /// A batch is handed out as soon as it has that many flows.
    pub batch: usize,
    /// Where the remarks go at the end.
    pub notes: Arc<Mutex<Vec<String>>>,
}

impl<R: Read> Iterator for FlowBatches<R> {
    type Item = Result<arrow::record_batch::RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut ready = Vec::new();
        while ready.len() < self.batch {
            match self.flows.advance(&mut ready) {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) => {
                    self.flows.over = true;
                    return Some(Err(Error::file(&self.name, e)));
                }
            }
        }
        if ready.is_empty() {
            if let Ok(mut notes) = self.notes.lock() {
                *notes = self.flows.notes();
            }
            return None;
        }
        Some(table(&ready))
    }
}

#[cfg(test)]
mod tests;
