//! Flows as they come: from a growing file, a pipe or standard input, into alerts, in bounded memory.
//!
//! What comes is told by its first bytes: a capture, or text with separated cells. A pipe ends when it is closed; a file
//! is waited on until it has not grown for a given time or somebody says stop. Rows are handed out as soon as their line
//! is whole, flows of a capture as soon as they end: at a time-out with the next packet, as packets are the clock.

use super::alerts::Alerts;
use super::capture::{self, FlowBatches, FlowOptions, FlowReader, is_capture};
use super::detector::Fitted;
use super::exports::{RowBatches, Rows};
use super::model::Known;
use super::schema::Schema;
use super::scorer::Scorer;
use super::source::{Batches, Source};
use papertrial_core::data::ReadOptions;
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Between two looks at a file that does not grow.
const POLL: Duration = Duration::from_millis(100);

/// When following ends, beside the end of a pipe.
#[derive(Debug, Clone)]
pub struct Ending {
    /// A file that has not grown for so long is whole; `None` waits for ever.
    pub idle: Option<Duration>,
    /// Set by whoever wants it to end.
    pub stop: &'static AtomicBool,
}

impl Default for Ending {
    /// Until the program is asked to stop.
    fn default() -> Self {
        Ending {
            idle: None,
            stop: &papertrial_core::runner::STOP,
        }
    }
}

/// A file that may still grow.
struct Growing {
    file: File,
    ending: Ending,
}

impl Read for Growing {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let since = Instant::now();
        loop {
            let n = self.file.read(to)?;
            let idle = self.ending.idle.is_some_and(|idle| since.elapsed() >= idle);
            if n > 0 || idle || self.ending.stop.load(Ordering::Relaxed) {
                return Ok(n);
            }
            std::thread::sleep(POLL);
        }
    }
}

/// A pipe, which ends by itself; between two reads it can be told to stop.
struct Pipe<R> {
    input: R,
    stop: &'static AtomicBool,
}

impl<R: Read> Read for Pipe<R> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Ok(0);
        }
        self.input.read(to)
    }
}

/// A source that is read once, as it comes.
pub struct Stream {
    name: String,
    columns: Vec<String>,
    batches: Mutex<Option<Batches>>,
    notes: Arc<Mutex<Vec<String>>>,
}

impl Stream {
    /// Follows the file `path`; `-` and `/dev/stdin` are standard input. Waits for the first bytes of a capture, or the
    /// first line of a text.
    ///
    /// # Errors
    /// It can't be opened, stays empty, or is neither capture nor table.
    pub fn open(
        path: &Path,
        ending: &Ending,
        flows: &FlowOptions,
        read: &ReadOptions,
        schema: Option<&Schema>,
    ) -> Result<Stream> {
        let stop = ending.stop;
        if path == Path::new("-") || path == Path::new("/dev/stdin") {
            let input = std::io::stdin();
            return Stream::new(
                Box::new(Pipe { input, stop }),
                "standard input",
                flows,
                read,
                schema,
            );
        }
        let file = File::open(path).map_err(|e| Error::file(path, e))?;
        let kind = file.metadata().map_err(|e| Error::file(path, e))?;
        if kind.is_dir() {
            return Err(Error::file(
                path,
                "is a folder; name a file, or - for standard input",
            ));
        }
        let input: Box<dyn Read> = if kind.is_file() {
            Box::new(Growing {
                file,
                ending: ending.clone(),
            })
        } else {
            Box::new(Pipe { input: file, stop })
        };
        Stream::new(input, &path.display().to_string(), flows, read, schema)
    }

    /// Follows `input`, called `name` in messages.
    ///
    /// # Errors
    /// As [`Stream::open`].
    pub fn new(
        mut input: Box<dyn Read>,
        name: &str,
        flows: &FlowOptions,
        read: &ReadOptions,
        schema: Option<&Schema>,
    ) -> Result<Stream> {
        let mut start = Vec::new();
        input
            .by_ref()
            .take(4)
            .read_to_end(&mut start)
            .map_err(|e| Error::file(name, e))?;
        if start.is_empty() {
            return Err(Error::file(name, "is empty"));
        }
        let captured = is_capture(&start);
        let input = Cursor::new(start).chain(input);
        let notes: Arc<Mutex<Vec<String>>> = Arc::default();
        let (columns, batches): (_, Batches) = if captured {
            let batches = FlowBatches {
                flows: FlowReader::new(input, flows)?,
                name: name.into(),
                batch: 1,
                notes: notes.clone(),
            };
            (capture::columns(), Box::new(batches))
        } else {
            let rows = Rows::new(input, name, read, schema)?.lenient();
            let columns = rows.columns().to_vec();
            let batches = RowBatches {
                rows,
                batch: 1,
                notes: notes.clone(),
                failed: false,
            };
            (columns, Box::new(batches))
        };
        Ok(Stream {
            name: name.into(),
            columns,
            batches: Mutex::new(Some(batches)),
            notes,
        })
    }
}

impl Source for Stream {
    fn name(&self) -> &str {
        &self.name
    }

    fn columns(&self) -> Vec<String> {
        self.columns.clone()
    }

    fn batches(&self) -> Result<Batches> {
        let taken = self.batches.lock().ok().and_then(|mut b| b.take());
        taken.ok_or_else(|| Error::file(&self.name, "comes as it comes and can be read only once"))
    }

    fn notes(&self) -> Vec<String> {
        self.notes.lock().map(|n| n.clone()).unwrap_or_default()
    }
}

/// What following came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Followed {
    /// Flows that came.
    pub flows: u64,
    /// Of them with a whole window, so that they have a probability.
    pub scored: u64,
    /// Alerts that were written.
    pub alerts: u64,
}

/// Scores the flows of `source` as they come and writes the alerts to `out`, each as soon as its flow is there.
///
/// # Errors
/// Columns are missing, the source or the detector fails, or the output can't be written.
pub fn follow(
    known: &Known,
    detector: &dyn Fitted,
    source: &dyn Source,
    out: impl Write,
    context: &Context,
) -> Result<Followed> {
    let columns = source.columns();
    let mut scorer = Scorer::new(known, detector, source.name(), &columns, None)?;
    let mut alerts = Alerts::new(out, &known.schema, &columns, detector.window());
    let mut followed = Followed::default();
    for batch in source.batches()? {
        let batch = batch?;
        let scored = scorer.push(&batch, context)?;
        let above: Vec<Option<f32>> = scored
            .probabilities
            .iter()
            .map(|p| p.filter(|p| scorer.is_alert(*p)))
            .collect();
        alerts.push(&batch, &above)?;
        followed.flows += batch.num_rows() as u64;
        followed.scored += scored.probabilities.iter().flatten().count() as u64;
        followed.alerts = alerts.written();
    }
    Ok(followed)
}

#[cfg(test)]
mod tests {
    use super::super::prepare::{Flows, Preparation, Preparing};
    use super::super::records::Records;
    use super::*;

    fn text(path: &Path, ending: &Ending) -> Stream {
        let (flows, read) = (FlowOptions::default(), ReadOptions::default());
        Stream::open(path, ending, &flows, &read, None).unwrap()
    }

    #[test]
    fn a_growing_file_hands_out_rows_as_they_come() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("grows.csv");
        std::fs::write(&path, "a,b\n1,2\n3,").unwrap();
        let ending = Ending {
            idle: None,
            stop: Box::leak(Box::default()),
        };
        let stream = text(&path, &ending);
        assert_eq!(stream.columns(), ["a", "b"]);
        let mut batches = stream.batches().unwrap();
        assert_eq!(batches.next().unwrap().unwrap().num_rows(), 1);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"4\n5\n6,7\n").unwrap();
        // The line with one cell is left out.
        assert_eq!(batches.next().unwrap().unwrap().num_rows(), 2);
        let stop = ending.stop;
        let later = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            stop.store(true, Ordering::Relaxed);
        });
        assert!(batches.next().is_none());
        later.join().unwrap();
        assert!(stream.notes()[0].contains("do not have 2 cells"));
        assert!(stream.batches().is_err());
    }

    #[test]
    fn an_idle_file_ends_and_what_is_nothing_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("idle.csv");
        let ending = Ending {
            idle: Some(Duration::from_millis(120)),
            stop: Box::leak(Box::default()),
        };
        std::fs::write(&path, "a,b\n1,2\n3,4").unwrap();
        let rows: usize = text(&path, &ending)
            .batches()
            .unwrap()
            .map(|b| b.unwrap().num_rows())
            .sum();
        assert_eq!(rows, 2);
        let (flows, read) = (FlowOptions::default(), ReadOptions::default());
        let open = |path: &Path| Stream::open(path, &ending, &flows, &read, None).err();
        std::fs::write(&path, "").unwrap();
        assert!(open(&path).unwrap().to_string().contains("is empty"));
        assert!(
            open(folder.path())
                .unwrap()
                .to_string()
                .contains("is a folder")
        );
        assert!(open(&folder.path().join("no")).is_some());
    }

    /// Finds flows of more than 900 bytes, of which the one before had more as well.
    struct Both;

    impl Fitted for Both {
        fn window(&self) -> usize {
            2
        }

        fn parameters(&self) -> usize {
            0
        }

        fn score(&self, flows: &Flows, rows: &[usize], _: &Context) -> Result<Vec<f32>> {
            let least = |row: usize| flows.numbers_of(row)[0].min(flows.numbers_of(row - 1)[0]);
            Ok(rows.iter().map(|row| least(*row)).collect())
        }
    }

    #[test]
    fn flows_become_alerts_as_they_come() {
        let schema: Schema = toml::from_str(
            "name = 'small'\nnumeric = ['IN_BYTES']\ntime = 'FLOW_START_MILLISECONDS'\n[five-tuple]\nsource-address = 'IPV4_SRC_ADDR'\n",
        )
        .unwrap();
        let stream = |text: &'static [u8]| {
            let (flows, read) = (FlowOptions::default(), ReadOptions::default());
            Stream::new(Box::new(text), "pipe", &flows, &read, None).unwrap()
        };
        let training = stream(b"IN_BYTES\n0\n1000\n");
        let records = Records::read(&training, &schema, None).unwrap();
        let how = Preparing::default();
        let preparation = Preparation::fit(&records, &schema, &[true; 2], &how).unwrap();
        let known = Known::new("both", 2, 0.98, schema, preparation);
        let context = Context::with_seed(0);

        let source = stream(
            b"FLOW_START_MILLISECONDS,IPV4_SRC_ADDR,IN_BYTES\n1,a,1000\n2,b,999\n3,c,5\n4,d,1000\n5,e,\n6,f,1000\n7,g,990",
        );
        let mut out = Vec::new();
        let followed = follow(&known, &Both, &source, &mut out, &context).unwrap();
        let expected = Followed {
            flows: 7,
            scored: 6,
            alerts: 2,
        };
        assert_eq!(followed, expected);
        let alerts: Vec<serde_json::Value> = String::from_utf8(out)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(alerts[0]["time"], 2);
        assert_eq!(alerts[0]["window"][0]["source_address"], "a");
        assert_eq!(alerts[1]["source_address"], "g");
        assert_eq!(alerts[1]["window"][0]["time"], 6);

        // A capture goes the same way.
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../fuzz/corpus-seed/capture/http-le-us.pcap");
        let ending = Ending {
            idle: Some(Duration::ZERO),
            stop: Box::leak(Box::default()),
        };
        let source = text(&path, &ending);
        let followed = follow(&known, &Both, &source, Vec::new(), &context).unwrap();
        assert_eq!((followed.flows, followed.scored), (1, 0));
        let missing = stream(b"a,b\n1,2\n");
        let e = follow(&known, &Both, &missing, Vec::new(), &context).unwrap_err();
        assert!(e.to_string().contains("are missing: IN_BYTES"), "{e}");
    }
}
