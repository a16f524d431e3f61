//! Task `flow-intrusion`: which network flows are attacks.
//!
//! A flow table has one row for each conversation of two hosts, in the order of time. A detector is fitted to rows
//! with a known class and says for others how probable an attack is; it may look at the flows before.
//!
//! Here are the task, its options and metrics, and the way from a table to a measurement or to written scores. All
//! methods see the same prepared columns, are fitted on the same flows and measured on the same others, whether or not
//! they look at the flows before.

mod alerts;
mod apply;
mod baselines;
pub mod capture;
mod detector;
mod exports;
mod flowtransformer;
mod follow;
mod lessons;
mod metrics;
mod model;
mod prepare;
mod records;
mod schema;
mod scorer;
mod simulation;
mod source;
mod split;
#[cfg(test)]
mod tests;
mod uses;
mod writer;

pub use alerts::Alerts;
pub use apply::{Extent, Written, score};
pub use baselines::{
    AlwaysBenign, ExtraTrees, GradientBoosting, LogisticRegression, Lstm, Mlp, RandomForest,
    WindowMlp,
};
pub use capture::{Capture, FlowOptions, FlowReader, FlowRecord, FlowTable};
pub use detector::{Detector, Fitted};
pub use exports::{Exports, Rows};
pub use flowtransformer::{Before, Encoding, FlowTransformer, Head, Sequence, Shape, Sizes};
pub use follow::{Ending, Followed, Stream, follow};
pub use lessons::BatchOrder;
pub use metrics::{Confusion, auc, label_correlation};
pub use model::{Known, load, save};
pub use prepare::{Flows, Layout, Preparation, Preparing, Tally};
pub use records::{Places, Records, Texts};
pub use schema::{FiveTuple, Schema, built_in};
pub use scorer::{Scored, Scorer};
pub use simulation::SIMULATIONS;
pub use source::{Batches, Source};
pub use split::{Parts, Split, divide};
pub use uses::{Drifting, drift, drifting, temporal_gap};
pub use writer::Writer;

use metrics::METRICS;
use papertrial_core::methods;
use papertrial_core::task::{Applied, Context, Curve, Entry, Input, Job, Measurement, Task};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The methods. A new one is a file of its own, a `mod` line above, and a name here.
const METHODS: &[Entry<dyn Detector>] = methods![
    dyn Detector;
    FlowTransformer,
    LogisticRegression,
    RandomForest,
    ExtraTrees,
    GradientBoosting,
    Mlp,
    WindowMlp,
    Lstm,
    AlwaysBenign,
];

/// The schema that is found by the columns.
const AUTO: &str = "auto";

/// Passes over the held-out flows whose time is taken at most.
const TIMED_PASSES: u32 = 4;

/// Options of the task: what is looked at, how it is prepared, and what is held out.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskOptions {
    /// Schema of the flows: a built-in one, a TOML or JSON file, or auto for the built-in one that fits.
    pub schema: String,
    /// Columns of the schema that are not looked at, a list.
    pub drop: Vec<String>,
    /// Levels of a categorical column with a code of their own; rarer and new ones share another.
    #[schemars(range(min = 1))]
    pub levels: usize,
    /// Cut prepared numbers to the range of the training rows.
    pub clip: bool,
    /// Prepare columns and choose training flows as the code of the paper's authors does.
    pub reference: bool,
    /// Flows in a window: a flow and those before it.
    #[schemars(range(min = 1, max = 10000))]
    pub window: usize,
    /// Which flows are held out.
    pub split: Split,
    /// Share of the flows that is held out.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub eval_fraction: f64,
    /// Measure on a stream that goes over from the held-out flows to those of --test.
    pub drift: bool,
    /// A probability above it is an alert; if absent, 0.5, or the model's.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub threshold: Option<f64>,
    /// Write only the flows that raise an alert; as JSON lines each comes with the flows of its window.
    pub alerts_only: bool,
    /// Wait for more at the end of the data, and write each alert, with the flows of its window, as it comes.
    pub follow: bool,
    /// Seconds without more data after which following ends; if absent, never.
    #[schemars(range(min = 0.0, max = 1e9))]
    pub idle: Option<f64>,
}

impl Default for TaskOptions {
    fn default() -> Self {
        TaskOptions {
            schema: AUTO.into(),
            drop: Vec::new(),
            levels: 32,
            clip: false,
            reference: false,
            window: 8,
            split: Split::Last,
            eval_fraction: 0.2,
            drift: false,
            threshold: None,
            alerts_only: false,
            follow: false,
            idle: None,
        }
    }
}

impl TaskOptions {
    /// The schema for a source with the columns `columns`.
    fn schema(&self, source: &str, columns: &[String]) -> Result<Schema> {
        let schema = if self.schema == AUTO {
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            Schema::guess(source, &columns)?
        } else {
            Schema::named(&self.schema)?
        };
        schema.without(&self.drop)
    }

    /// The schema that is asked for by name.
    fn named_schema(&self) -> Result<Option<Schema>> {
        (self.schema != AUTO)
            .then(|| Schema::named(&self.schema))
            .transpose()
    }

    fn preparing(&self) -> Preparing {
        Preparing {
            levels: self.levels,
            clip: self.clip,
            reference: self.reference,
            ..Preparing::default()
        }
    }
}

/// The task.
pub struct FlowIntrusion;

impl Task for FlowIntrusion {
    papertrial_core::states! {
        "flow-intrusion",
        "say which network flows are attacks, from flow exports",
        METHODS,
        METRICS,
        TaskOptions,
    }

    fn inputs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            (
                "model",
                "folder of a fitted model; the flows are scored with it and nothing is fitted",
            ),
            (
                "test",
                "flows to be measured on, instead of a part of the data that is held out",
            ),
        ]
    }

    fn opens(&self, path: &Path) -> bool {
        capture::is_capture_file(path).unwrap_or(false)
    }

    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let (method, asked): (Box<dyn Detector>, TaskOptions) = Entry::prepare(METHODS, job)?;
        let ready = Ready::of(job, &asked, context)?;
        let began = Instant::now();
        let detector = method.fit(&ready.flows, &ready.parts.train, asked.window, context)?;
        let fit_seconds = began.elapsed().as_secs_f64();
        let (flows, rows) = match (&ready.stream, &ready.test) {
            (Some(stream), _) => (&stream.flows, &ready.test_rows),
            (None, Some(test)) => (test, &ready.test_rows),
            (None, None) => (&ready.flows, &ready.parts.held_out),
        };
        let scores = detector.score(flows, rows, context)?;
        let seconds = timed(&*detector, flows, rows, context)?;
        let attacks: Vec<bool> = {
            let labels = flows.labels()?;
            rows.iter().map(|row| labels[*row]).collect()
        };
        let threshold = asked.threshold.unwrap_or(0.5);
        let mut measurement = Measurement {
            metrics: Confusion::of(&attacks, &scores, threshold).metrics(),
            notes: ready.notes,
            ..Measurement::default()
        };
        let found = attacks.iter().filter(|a| **a).count();
        measurement.notes.push(format!(
            "measured on {} flows, {found} of them attacks; fitted on {}; {} columns, {} with one for each code",
            rows.len(),
            ready.parts.train.len(),
            flows.layout.numeric.len() + flows.layout.categorical.len(),
            flows.layout.one_hot()
        ));
        measurement.notes.extend(detector.notes());
        let others = [
            ("auc", auc(&attacks, &scores)),
            ("parameters", Some(detector.parameters() as f64)),
            (
                "label-correlation",
                label_correlation(ready.flows.labels()?),
            ),
            ("seconds-per-step", detector.seconds_per_step()),
            ("seconds-per-window", Some(seconds)),
            ("fit-seconds", Some(fit_seconds)),
        ];
        for (name, value) in others {
            if let Some(value) = value {
                measurement.metrics.insert(name.into(), value);
            }
        }
        if let Some(stream) = &ready.stream {
            let curve = drift(stream, rows, &attacks, &scores, threshold);
            measurement.curves.push(curve);
        } else if let (Split::Last, None, Some(trained)) =
            (asked.split, &ready.test, ready.parts.train.last())
        {
            let curve = temporal_gap(rows, *trained, &attacks, &scores, threshold);
            measurement.curves.push(curve);
        }
        let losses = detector.losses();
        if !losses.is_empty() {
            measurement.curves.push(Curve {
                name: "loss against steps".into(),
                x: "steps".into(),
                y: "loss".into(),
                points: losses,
            });
        }
        Ok(measurement)
    }

    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied> {
        let (method, asked): (Box<dyn Detector>, TaskOptions) = Entry::prepare(METHODS, job)?;
        match job.inputs.get("model") {
            Some(Input::File { path, .. }) => with_model(job, &asked, path, out, context),
            Some(_) => Err(Error::option(
                "--model",
                "should name the folder of a model",
            )),
            None => with_fit(job, &*method, &asked, out, context),
        }
    }
}

/// The source that a job names.
fn open(
    job: &Job,
    input: &str,
    schema: Option<&Schema>,
    context: &Context,
) -> Result<Box<dyn Source>> {
    Ok(match job.inputs.get(input) {
        Some(Input::File { path, .. }) if capture::is_capture_file(path)? => {
            Box::new(Capture::open(path, &FlowOptions::default())?)
        }
        Some(Input::File { path, read, .. }) => Box::new(Exports::open(path, read, schema)?),
        _ => Box::new(job.table(input, context)?),
    })
}

/// Flows that are ready for a detector.
struct Ready {
    schema: Schema,
    preparation: Preparation,
    flows: Flows,
    parts: Parts,
    /// Flows of another source to be measured on, and which of them have a whole window.
    test: Option<Flows>,
    test_rows: Vec<usize>,
    /// A stream that goes over from held-out flows to those of another source; `test_rows` are its own then.
    stream: Option<Drifting>,
    notes: Vec<String>,
}

impl Ready {
    fn of(job: &Job, asked: &TaskOptions, context: &Context) -> Result<Ready> {
        let named = asked.named_schema()?;
        let source = open(job, "data", named.as_ref(), context)?;
        let schema = asked.schema(source.name(), &source.columns())?;
        let class = job.roles.label.as_deref();
        let records = Records::read(&*source, &schema, class)?;
        let mut notes = source.notes();
        let attack = records.attacks(&schema, source.name())?.ok_or_else(|| {
            Error::BadInput(format!(
                "{} has no column with the class ({}); name it with --label, or give a fitted model with --model",
                source.name(),
                schema.class.join(" or ")
            ))
        })?;
        if records.backward > 0 {
            notes.push(format!(
                "the flows are not in the order of time: {} begin before the one above; windows follow the file",
                records.backward
            ));
        }
        let width = schema.features().count() as u64;
        context.require("the flows", records.rows as u64 * width * 16)?;
        let other = job.inputs.contains_key("test");
        if asked.drift && !other {
            return Err(Error::option(
                "drift",
                "needs flows from elsewhere; name them with --test",
            ));
        }
        let parts = if other && !asked.drift {
            whole(records.rows, asked.window)?
        } else {
            let flags = records
                .test
                .as_ref()
                .map(|test| (0..records.rows).map(|row| test.of(row)));
            divide(
                asked.split,
                records.rows,
                asked.window,
                asked.eval_fraction,
                flags,
                asked.reference,
                context.seed,
            )?
        };
        notes.extend(parts.notes.iter().cloned());
        let preparation = Preparation::fit(&records, &schema, &parts.training, &asked.preparing())?;
        let layout = Arc::new(preparation.layout());
        let mut tally = Tally::default();
        let mut flows = preparation.transform(&records, &layout, &mut tally);
        flows.attack = Some(attack);
        let mut ready = Ready {
            schema,
            preparation,
            flows,
            parts,
            test: None,
            test_rows: Vec::new(),
            stream: None,
            notes,
        };
        if other {
            let source = open(job, "test", Some(&ready.schema), context)?;
            let records = Records::read(&*source, &ready.schema, class)?;
            let mut test = ready.preparation.transform(&records, &layout, &mut tally);
            test.attack = records.attacks(&ready.schema, source.name())?;
            if asked.drift {
                let home = &ready.parts.held_out;
                let stream = drifting(&ready.flows, home, &test, context.seed)?;
                test.rows = stream.flows.rows;
                ready.stream = Some(stream);
            }
            ready.test_rows = (asked.window - 1..test.rows).collect();
            if ready.test_rows.is_empty() {
                return Err(Error::BadInput(format!(
                    "{}: {} flows make no window of {}",
                    source.name(),
                    test.rows,
                    asked.window
                )));
            }
            if ready.stream.is_none() {
                ready.test = Some(test);
            }
        }
        ready.notes.extend(tally.notes());
        Ok(ready)
    }
}

/// All flows of a source to train on.
fn whole(rows: usize, window: usize) -> Result<Parts> {
    if window == 0 || rows < window {
        return Err(Error::option(
            "window",
            format!("{rows} flows make no window of {window}"),
        ));
    }
    Ok(Parts {
        training: vec![true; rows],
        train: (window - 1..rows).collect(),
        held_out: Vec::new(),
        notes: Vec::new(),
    })
}

/// Mean seconds of scoring one flow of many.
fn timed(detector: &dyn Fitted, flows: &Flows, rows: &[usize], context: &Context) -> Result<f64> {
    let began = Instant::now();
    let mut passes = 0;
    while passes < TIMED_PASSES && (passes == 0 || began.elapsed().as_secs_f64() < 1.0) {
        detector.score(flows, rows, context)?;
        passes += 1;
    }
    Ok(began.elapsed().as_secs_f64() / f64::from(passes) / rows.len().max(1) as f64)
}

/// Scores flows with a model on disk.
fn with_model(
    job: &Job,
    asked: &TaskOptions,
    folder: &Path,
    out: &Path,
    context: &Context,
) -> Result<Applied> {
    let (mut known, detector) = load(folder, context)?;
    if known.method != job.method {
        return Err(Error::file(
            folder,
            format!("is a model of {}, not of {}", known.method, job.method),
        ));
    }
    if asked.schema != AUTO {
        let schema = Schema::named(&asked.schema)?.without(&asked.drop)?;
        known.check_schema(&schema, folder)?;
    }
    if let Some(threshold) = asked.threshold {
        known.threshold = threshold;
    }
    if asked.follow || asked.alerts_only && apply::is_json_lines(out) {
        let source: Box<dyn Source> = match job.inputs.get("data") {
            Some(Input::File { path, read, .. }) if asked.follow => {
                let ending = Ending {
                    idle: asked.idle.map(Duration::from_secs_f64),
                    ..Ending::default()
                };
                let flows = FlowOptions::default();
                Box::new(Stream::open(
                    path,
                    &ending,
                    &flows,
                    read,
                    Some(&known.schema),
                )?)
            }
            _ => open(job, "data", Some(&known.schema), context)?,
        };
        let written = apply::alerts(&*source, &known, &*detector, asked.follow, out, context)?;
        return Ok(applied(written, &known, Vec::new(), Vec::new()));
    }
    let source = open(job, "data", Some(&known.schema), context)?;
    let extent = Extent {
        alerts_only: asked.alerts_only,
        class: job.roles.label.as_deref(),
        id: job.roles.id.as_deref(),
        training: None,
        flows: 0,
    };
    let written = score(&*source, &known, &*detector, &extent, out, context)?;
    Ok(applied(written, &known, Vec::new(), Vec::new()))
}

/// Fits on the flows, keeps the model beside the output, and scores the same flows.
fn with_fit(
    job: &Job,
    method: &dyn Detector,
    asked: &TaskOptions,
    out: &Path,
    context: &Context,
) -> Result<Applied> {
    if asked.follow {
        return Err(Error::option(
            "follow",
            "needs a fitted model; name its folder with --model",
        ));
    }
    let folder = model::beside(out);
    model::check_target(&folder)?;
    // Tried at once, so that long work does not end in vain.
    papertrial_core::data::Output::table(out)?;
    let ready = Ready::of(job, asked, context)?;
    let detector = method.fit(&ready.flows, &ready.parts.train, asked.window, context)?;
    let known = Known::new(
        &job.method,
        detector.window(),
        asked.threshold.unwrap_or(0.5),
        ready.schema,
        ready.preparation,
    );
    let flows = ready.flows.rows;
    drop(ready.flows);
    let source = open(job, "data", Some(&known.schema), context)?;
    let extent = Extent {
        alerts_only: asked.alerts_only,
        class: job.roles.label.as_deref(),
        id: job.roles.id.as_deref(),
        training: Some(&ready.parts.training),
        flows,
    };
    let written = score(&*source, &known, &*detector, &extent, out, context)?;
    let mut files = Vec::new();
    let mut notes = ready.notes;
    notes.extend(detector.notes());
    if save(&known, &*detector, &folder)? {
        files.push(folder);
    } else {
        notes.push(format!("{} keeps no model", job.method));
    }
    Ok(applied(written, &known, files, notes))
}

fn applied(
    written: Written,
    known: &Known,
    models: Vec<std::path::PathBuf>,
    mut notes: Vec<String>,
) -> Applied {
    let mut summary = vec![
        ("schema".to_string(), known.schema.name.clone()),
        ("flows".into(), written.flows.to_string()),
        ("alerts".into(), written.alerts.to_string()),
        ("threshold".into(), known.threshold.to_string()),
    ];
    if written.unscored > 0 {
        notes.push(format!(
            "the first {} flows have no whole window of {} and no score",
            written.unscored, known.window
        ));
    }
    if let Some(confusion) = written.confusion {
        let metrics = confusion.metrics();
        for name in [
            "balanced-accuracy",
            "false-alarm-rate",
            "detection-rate",
            "f1",
        ] {
            if let Some(value) = metrics.get(name) {
                summary.push((name.into(), format!("{value:.4}")));
            }
        }
    }
    for note in written.notes {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    let mut files = vec![written.file];
    files.extend(models);
    Applied {
        files,
        summary,
        notes,
        ..Applied::default()
    }
}
