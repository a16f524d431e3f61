//! Task `sequence-modelling`: to say the next token, or the token asked for, at each position of a sequence.
//!
//! Here are the trait of its methods, its metrics and options. All methods but the table of keys are one model with
//! different mixers, trained alike.

mod inspect;
mod methods;
mod model;
mod outputs;
mod rows;
pub mod simulation;
mod train;

pub use inspect::{Unit, held, inspect, state};
pub use methods::{
    Dsf, Gru, KeyTable, LinearAttention, Lstm, NormalisedAttention, Qlstm, ReversedQlstm, RgLru,
    S6, SoftmaxAttention, Ssd, look_up,
};
pub use model::{Model, ModelOptions};
pub use rows::Rows;
pub use train::{Scores, Trained, score, train};

use crate::mixers::Choice;
use papertrial_core::data::Output;
use papertrial_core::methods;
use papertrial_core::task::{Applied, Context, Entry, Input, Job, Measurement, MetricInfo, Task};
use papertrial_core::{Error, Result};
use papertrial_nn::{device, store, try_seeded};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A method of this task.
pub trait Modeller: Send + Sync {
    /// The mixer that it trains in the model; `None`: a table of keys.
    fn mixer(&self) -> Option<Choice>;
}

/// The methods. A new one is a struct in `methods`, and a name here.
const METHODS: &[Entry<dyn Modeller>] = methods![
    dyn Modeller;
    Dsf,
    NormalisedAttention,
    ReversedQlstm,
    LinearAttention,
    SoftmaxAttention,
    S6,
    Ssd,
    Qlstm,
    RgLru,
    Lstm,
    Gru,
    KeyTable,
];

const METRICS: &[MetricInfo] = &[
    MetricInfo::new(
        "accuracy",
        Some(true),
        "share of the test targets that have the highest score",
    ),
    MetricInfo::new(
        "perplexity",
        Some(false),
        "exponential of the mean cross-entropy of a test target",
    ),
    MetricInfo::new(
        "bits-per-byte",
        Some(false),
        "mean cross-entropy of a byte of the text held out, in bits",
    ),
    MetricInfo::new("parameters", None, "weights of the model"),
    MetricInfo::new(
        "state",
        None,
        "numbers that a mixer keeps from one position to the next; absent where they grow with the length",
    ),
    MetricInfo::new("seconds-per-step", Some(false), "time of a training step").timed(),
];

/// Options of the task: the model around the mixer and its training.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskOptions {
    /// Numbers of a position.
    #[schemars(range(min = 1, max = 16_384))]
    pub d: usize,
    /// Blocks.
    #[schemars(range(min = 1, max = 256))]
    pub layers: usize,
    /// Positions from which attention makes queries and keys, or at which the convolution of the other mixers looks;
    /// if absent, 1 and 4.
    #[schemars(range(min = 1, max = 64))]
    pub shift: Option<usize>,
    /// Training steps, where no epochs are asked.
    #[schemars(range(min = 1))]
    pub steps: usize,
    /// Passes over the training sequences.
    #[schemars(range(min = 1))]
    pub epochs: Option<usize>,
    /// Sequences of a step.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Highest learning rate; it falls along a cosine.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Pull of the weights to 0.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// Share of the weights of attention that are dropped while training.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub dropout: f64,
    /// Text: bytes of a sequence.
    #[schemars(range(min = 2, max = 65_536))]
    pub window: usize,
    /// Tables: column with lists of token numbers.
    pub tokens_column: String,
    /// Tables: column with lists of target numbers, -1 for none; if it is missing, the next token.
    pub targets_column: String,
    /// Tables: column that says train or test; if it is missing, a tenth is held out.
    pub part_column: String,
    /// What run writes.
    pub write: Write,
    /// Text: samples to write.
    #[schemars(range(min = 1, max = 10_000))]
    pub samples: usize,
    /// Text: bytes of a sample.
    #[schemars(range(min = 1))]
    pub sample_length: usize,
    /// Text: what the samples go on from.
    pub prompt: String,
    /// Text: divides the scores before a byte is drawn.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub temperature: f64,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Write {
    /// Cross-entropy and targets met of each test sequence.
    Scores,
    /// Texts that the model goes on with.
    Samples,
    /// Eigenvalues, fading and mean distance of each head or channel, on the first 256 positions of the first test
    /// sequence.
    Memory,
    /// Phi of each head or channel, on the same positions.
    Weights,
}

impl Default for TaskOptions {
    fn default() -> Self {
        TaskOptions {
            d: 64,
            layers: 2,
            shift: None,
            steps: 800,
            epochs: None,
            batch: 64,
            learning_rate: 1e-2,
            weight_decay: 0.1,
            dropout: 0.1,
            window: 128,
            tokens_column: "tokens".into(),
            targets_column: "targets".into(),
            part_column: "part".into(),
            write: Write::Scores,
            samples: 4,
            sample_length: 200,
            prompt: "\n".into(),
            temperature: 0.8,
        }
    }
}

impl TaskOptions {
    /// Training steps for `rows` training sequences.
    fn steps_for(&self, rows: usize) -> usize {
        match self.epochs {
            Some(epochs) => epochs * rows.div_ceil(self.batch),
            None => self.steps,
        }
    }
}

/// The task.
pub struct SequenceModelling;

impl Task for SequenceModelling {
    papertrial_core::states! {
        "sequence-modelling",
        "say the next token, or the token asked for, at each position of a sequence",
        METHODS,
        METRICS,
        TaskOptions,
    }

    fn inputs(&self) -> &'static [(&'static str, &'static str)] {
        &[(
            "model",
            "a model that run wrote, to be used instead of training one",
        )]
    }

    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let (method, asked) = Entry::prepare::<TaskOptions>(METHODS, job)?;
        let rows = Rows::of(job, &asked, context)?;
        let mut measurement = Measurement::default();
        let Some(choice) = method.mixer() else {
            let scores = looked_up(&rows);
            measurement
                .metrics
                .insert("accuracy".into(), scores.accuracy());
            return Ok(measurement);
        };
        let trained = trained(&choice, &rows, &asked, job, context)?;
        let device = device(&context.device)?;
        let scores = score(&trained.model, &rows, &rows.test, &device)?;
        let mut set = |name: &str, value: f64| measurement.metrics.insert(name.into(), value);
        set("accuracy", scores.accuracy());
        set("perplexity", scores.loss().exp());
        if rows.text {
            set("bits-per-byte", scores.loss() / std::f64::consts::LN_2);
        }
        set("parameters", trained.parameters() as f64);
        if let Some(state) = state(&trained.model)? {
            set("state", state as f64);
        }
        if trained.steps > 0 {
            set("seconds-per-step", trained.seconds_per_step);
        }
        measurement
            .notes
            .extend(told_held(&trained, &rows, &device)?);
        measurement.curves = trained.curves;
        Ok(measurement)
    }

    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied> {
        let mut output = Output::table(out)?;
        let (method, asked) = Entry::prepare::<TaskOptions>(METHODS, job)?;
        let rows = Rows::of(job, &asked, context)?;
        let Some(choice) = method.mixer() else {
            if asked.write != Write::Scores {
                return Err(Error::option("write", "key-table has nothing but scores"));
            }
            let scores = looked_up(&rows);
            output.write(&[outputs::scores(&rows, &scores, false)?])?;
            return Ok(Applied {
                files: output.finish()?,
                summary: vec![("accuracy".into(), format!("{:.4}", scores.accuracy()))],
                notes: Vec::new(),
                ..Applied::default()
            });
        };
        if asked.write == Write::Samples && !rows.text {
            return Err(Error::option(
                "write",
                "samples are texts; these data are a table of tokens",
            ));
        }
        let trained = trained(&choice, &rows, &asked, job, context)?;
        let device = device(&context.device)?;
        let scores = score(&trained.model, &rows, &rows.test, &device)?;
        let table = match asked.write {
            Write::Scores => outputs::scores(&rows, &scores, true)?,
            Write::Samples => outputs::samples(&trained, &asked, context.seed, &device)?,
            Write::Memory | Write::Weights => {
                let tokens = rows.tokens_at(rows.test[0]);
                let tokens = &tokens[..tokens.len().min(LOOKED_INTO)];
                let units = inspect(&trained.model, tokens, &device)?;
                if asked.write == Write::Memory {
                    outputs::memory(&units)?
                } else {
                    outputs::weights(&units)?
                }
            }
        };
        output.write(&[table])?;
        let mut summary = vec![
            ("mixer".to_owned(), choice.mixer.name().to_owned()),
            ("parameters".to_owned(), trained.parameters().to_string()),
            ("accuracy".to_owned(), format!("{:.4}", scores.accuracy())),
            (
                "perplexity".to_owned(),
                format!("{:.4}", scores.loss().exp()),
            ),
        ];
        if trained.steps > 0 {
            summary.push(("steps".to_owned(), trained.steps.to_string()));
        }
        let notes = told_held(&trained, &rows, &device)?.into_iter().collect();
        let mut files = Vec::new();
        // A model that was read is not written again.
        if trained.steps > 0 {
            let model = out.with_extension("safetensors");
            store::save(&trained.model, &trained.options, &model)?;
            files.push(model);
        }
        match output.finish() {
            Ok(mut written) => {
                written.append(&mut files);
                Ok(Applied {
                    files: written,
                    summary,
                    notes,
                    ..Applied::default()
                })
            }
            Err(error) => {
                for file in files {
                    // The first error says more than one of taking this away.
                    let _ = std::fs::remove_file(file);
                }
                Err(error)
            }
        }
    }
}

/// The model that the job names, or a new one.
fn trained(
    choice: &Choice,
    rows: &Rows,
    asked: &TaskOptions,
    job: &Job,
    context: &Context,
) -> Result<Trained> {
    let path = match job.inputs.get("model") {
        None => return train(choice, rows, asked, context),
        Some(Input::File { path, .. }) => path,
        Some(other) => {
            return Err(Error::BadInput(format!(
                "{} is not a model file",
                other.shown()
            )));
        }
    };
    let options: ModelOptions = store::options(path)?;
    let wrong = |problem: String| Err(Error::file(path, problem));
    if options.choice.mixer != choice.mixer {
        return wrong(format!(
            "is a model with {}, not {}",
            options.choice.mixer.name(),
            choice.mixer.name()
        ));
    }
    if rows.vocabulary > options.vocabulary {
        return wrong(format!(
            "knows {} tokens; these data have {}",
            options.vocabulary, rows.vocabulary
        ));
    }
    if options.choice.mixer.takes_positions() && rows.length > options.length {
        return wrong(format!(
            "knows {} positions; these sequences have {}",
            options.length, rows.length
        ));
    }
    let plain = device(&context.device)?;
    let drawn = try_seeded(&plain, 0, |device| Model::new(&options, device))?;
    let model = store::load(&burn::module::Module::valid(&drawn), path)?;
    Ok(Trained {
        model,
        options,
        curves: Vec::new(),
        seconds_per_step: 0.0,
        steps: 0,
    })
}

/// Most positions of the sequence that is looked into: each head or channel has a matrix of their square.
const LOOKED_INTO: usize = 256;
/// Test sequences whose exponents are counted.
const COUNTED: usize = 16;

/// How many exponents of learned normalisers were held within their limits, if any were.
fn told_held(
    trained: &Trained,
    rows: &Rows,
    device: &burn::tensor::Device,
) -> Result<Option<String>> {
    if trained.options.choice.mixer != crate::mixers::Mixer::NormalisedAttention {
        return Ok(None);
    }
    let (mut beyond, mut all) = (0, 0);
    for start in rows.test.iter().take(COUNTED) {
        let (b, a) = held(&trained.model, rows.tokens_at(*start), device)?;
        beyond += b;
        all += a;
    }
    Ok((beyond > 0).then(|| {
        format!("{beyond} of {all} exponents of normalisers were beyond -20 or 20 and held there")
    }))
}

/// What a table of keys scores on the test sequences.
fn looked_up(rows: &Rows) -> Scores {
    let of = |start: &usize| {
        let targets = rows.targets_at(*start);
        let said = look_up(rows.tokens_at(*start));
        let met = said
            .iter()
            .zip(targets)
            .filter(|(said, target)| said.is_some_and(|s| i64::from(s) == i64::from(**target)))
            .count();
        (0.0, met, targets.iter().filter(|t| **t >= 0).count())
    };
    Scores {
        rows: rows.test.iter().map(of).collect(),
    }
}

#[cfg(test)]
mod tests;
