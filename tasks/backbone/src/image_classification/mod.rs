//! Task `image-classification`: train a network on pictures with labels and name the class of others.
//!
//! The networks share one frame whose mixer of positions is a slot: [`mixers::TokenMixer`]. All methods of a
//! comparison get the same pictures, steps and learning rates, and their best rate is chosen on pictures kept apart.
//! Pictures are not altered at random in training, so figures of published recipes are out of reach here.

pub mod fourier;
pub mod frame;
mod images;
mod learn;
pub mod maps;
mod methods;
pub mod mixers;
mod nets;
pub mod parts;

pub use images::{Colour, Pictures};
pub use learn::{Scale, accuracy, predict};
pub use methods::{
    IFormer, LogisticRegression, MetaFormer, PathsKept, PoolFormer, Ramp, Shape, SmallConvolution,
    VisionTransformer, iformer, poolformer,
};
pub use nets::{Classifier, Design};

use arrow::array::{ArrayRef, Float32Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use learn::{Inputs, Learned, learn, milliseconds};
use papertrial_core::data::Output;
use papertrial_core::methods;
use papertrial_core::task::{Applied, Context, Curve, Entry, Job, Measurement, MetricInfo, Task};
use papertrial_core::{Error, Result};
use papertrial_nn::{device, store, try_seeded};
use papertrial_numerics::sampling::rng;
use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// A method of this task: which network it is.
pub trait Backbone: Send + Sync {
    /// The network for pictures of `shape`.
    ///
    /// # Errors
    /// Options that do not fit each other or the pictures.
    fn design(&self, shape: &Shape, task: &TaskOptions) -> Result<Design>;
}

/// The methods. A new one implements [`Backbone`] and has its name here.
const METHODS: &[Entry<dyn Backbone>] = methods![
    dyn Backbone;
    PoolFormer,
    MetaFormer,
    IFormer,
    VisionTransformer,
    SmallConvolution,
    LogisticRegression,
];

const METRICS: &[MetricInfo] = &[
    MetricInfo::new(
        "accuracy",
        Some(true),
        "share of test pictures whose class is named rightly",
    ),
    MetricInfo::new("parameters", Some(false), "numbers that training changes"),
    MetricInfo::new(
        "macs",
        Some(false),
        "multiply-adds for one picture, in networks of the frame",
    ),
    MetricInfo::new(
        "samples-per-second",
        Some(true),
        "pictures trained on in a second",
    )
    .timed(),
    MetricInfo::new(
        "seconds-per-step",
        Some(false),
        "seconds of a training step",
    )
    .timed(),
    MetricInfo::new(
        "milliseconds-per-picture",
        Some(false),
        "time to classify one picture of a batch of 128",
    )
    .timed(),
    MetricInfo::new(
        "high-frequency-block-share",
        Some(true),
        "share of inception blocks whose convolution and pooling paths both have a higher relative log amplitude at half the sampling frequency than their attention path",
    ),
];

/// Options of the task: pictures, split, the size of small networks, training.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskOptions {
    /// Channels of each stage of a small network, a list.
    pub widths: Vec<usize>,
    /// Blocks of each stage of a small network, a list.
    pub depths: Vec<usize>,
    /// Step of a small network's first convolution: 2 for pictures of 28 to 32 pixels, 1 for 8.
    #[schemars(range(min = 1, max = 16))]
    pub stem_stride: usize,
    /// What the factors of a small network's branches begin with. The papers' 1e-5 and 1e-6 leave short trainings
    /// where they began.
    pub layer_scale: f64,
    /// Rate at which the last block of a small network is left out in training; earlier ones less.
    #[schemars(range(min = 0.0, max = 0.99))]
    pub drop_path: f64,
    /// Passes.
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// Pictures of a step.
    #[schemars(range(min = 2))]
    pub batch_size: usize,
    /// Learning rates, a list: each is tried, and the best on pictures kept apart is used.
    pub learning_rates: Vec<f64>,
    /// Pull of the weights to 0.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// Part of each label that is spread over all classes.
    #[schemars(range(min = 0.0, max = 0.99))]
    pub label_smoothing: f64,
    /// Share of the pictures on which results are measured.
    #[schemars(range(min = 0.01, max = 0.9))]
    pub test_share: f64,
    /// Share of the others on which the learning rate is chosen.
    #[schemars(range(min = 0.01, max = 0.9))]
    pub validation_share: f64,
    /// Height and width to which pictures in files are brought; if absent, they must have one size.
    #[schemars(range(min = 1))]
    pub image_size: Option<usize>,
    /// Colours: those of the pictures (same), one channel (grey) or three (rgb).
    pub colour: Colour,
    /// When run: a model to use instead of training one, a file that an earlier run wrote.
    pub model: Option<String>,
    /// When run: the classes named for each picture, the likeliest first.
    #[schemars(range(min = 1))]
    pub top: usize,
    /// When run: also write the mean of each channel after each stage.
    pub features: bool,
}

impl Default for TaskOptions {
    fn default() -> Self {
        TaskOptions {
            widths: vec![32, 64],
            depths: vec![2, 2],
            stem_stride: 2,
            layer_scale: 1.0,
            drop_path: 0.0,
            epochs: 10,
            batch_size: 64,
            learning_rates: vec![1e-3, 3e-3],
            weight_decay: 0.05,
            label_smoothing: 0.0,
            test_share: 0.2,
            validation_share: 0.1,
            image_size: None,
            colour: Colour::Same,
            model: None,
            top: 3,
            features: false,
        }
    }
}

impl TaskOptions {
    /// Checks the size of small networks.
    fn check(&self) -> Result<()> {
        if self.widths.is_empty() || self.widths.len() != self.depths.len() {
            return Err(Error::option(
                "depths",
                format!(
                    "has {} entries and widths has {}; both need one for each stage",
                    self.depths.len(),
                    self.widths.len()
                ),
            ));
        }
        if self.depths.contains(&0) || self.widths.iter().chain(&self.depths).any(|n| *n > 4096) {
            return Err(Error::option(
                "depths",
                "and widths must be whole numbers from 1 to 4096",
            ));
        }
        Ok(())
    }
}

/// What is kept with a model's weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    design: Design,
    scale: Scale,
    classes: Vec<String>,
    picture: [usize; 2],
    channels: usize,
}

/// The task.
pub struct ImageClassification;

/// Labels, and at least two classes.
fn labelled(pictures: &Pictures) -> Result<&[usize]> {
    match &pictures.labels {
        Some(labels) if pictures.classes.len() > 1 => Ok(labels),
        Some(_) => Err(Error::BadInput("all pictures have one class; training needs at least two".into())),
        None => Err(Error::BadInput(
            "the pictures have no labels; name the column with --label, or give a folder with a folder for each class, or put the labels-idx1 file beside the IDX file".into(),
        )),
    }
}

/// Rows in an order of the seed, the first `share` of them apart; both parts have at least one.
fn parted(mut rows: Vec<usize>, share: f64, seed: u64, why: &str) -> [Vec<usize>; 2] {
    rows.shuffle(&mut rng(seed, why));
    let apart = ((rows.len() as f64 * share).round() as usize).clamp(1, rows.len().max(2) - 1);
    let rest = rows.split_off(apart.min(rows.len()));
    [rows, rest]
}

impl Task for ImageClassification {
    papertrial_core::states! {
        "image-classification",
        "train a network on pictures with labels and name the class of others",
        METHODS,
        METRICS,
        TaskOptions,
    }

    fn inputs(&self) -> &'static [(&'static str, &'static str)] {
        &[(
            "query",
            "pictures to name the classes of, when run; without it those of --data",
        )]
    }

    fn opens(&self, path: &Path) -> bool {
        path.is_dir() || images::is_idx(path)
    }

    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let (method, task) = Entry::prepare::<TaskOptions>(METHODS, job)?;
        let device = device(&context.device)?;
        let pictures = Pictures::read(job, "data", &task, context)?;
        let labels = labelled(&pictures)?;
        let [test, rest] = parted(
            (0..pictures.len()).collect(),
            task.test_share,
            job.seed,
            "test pictures",
        );
        let [validation, train] =
            parted(rest, task.validation_share, job.seed, "validation pictures");
        let scale = Scale::of(&pictures, &train);
        let values = scale.apply(&pictures);
        let inputs = inputs(&values, &pictures);
        let design = method.design(&shape(&pictures), &task)?;
        let learned = learn(
            &design,
            &inputs,
            labels,
            [&train, &validation],
            &task,
            &device,
            context,
        )?;
        let shares = predict(&learned.model, &inputs, &test, &device)?;
        let mut measurement = Measurement {
            curves: learned.curves.clone(),
            notes: vec![format!(
                "learning rate {} of {:?}; layer scale of small networks {}",
                learned.rate, task.learning_rates, task.layer_scale
            )],
            ..Measurement::default()
        };
        let mut set = |name: &str, value: f64| measurement.metrics.insert(name.into(), value);
        set("accuracy", accuracy(&shares, labels, &test));
        set("parameters", learned.model.parameters() as f64);
        set(
            "samples-per-second",
            learned.samples as f64 / learned.seconds.max(1e-9),
        );
        set(
            "seconds-per-step",
            learned.seconds / learned.steps.max(1) as f64,
        );
        set(
            "milliseconds-per-picture",
            milliseconds(&learned.model, &inputs, &test, &device)?,
        );
        if let Classifier::Frame(net) = &learned.model {
            set("macs", net.macs(pictures.picture) as f64);
            let some = &test[..test.len().min(64)];
            let blocks = fourier::frequencies(net, inputs.rows(some, &device))?;
            if blocks
                .iter()
                .any(|b| b.convolution.is_some() || b.pooling.is_some())
            {
                let above = |path: Option<f64>, than: f64| path.is_none_or(|p| p > than);
                let higher = blocks
                    .iter()
                    .filter(|b| above(b.convolution, b.attention) && above(b.pooling, b.attention));
                set(
                    "high-frequency-block-share",
                    higher.count() as f64 / blocks.len() as f64,
                );
                measurement.curves.extend(by_depth(&blocks));
            }
        }
        Ok(measurement)
    }

    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied> {
        let mut output = Output::table(out)?;
        let (method, task) = Entry::prepare::<TaskOptions>(METHODS, job)?;
        let device = device(&context.device)?;
        let data = Pictures::read(job, "data", &task, context)?;
        let mut summary = Vec::new();
        let (model, kept) = match &task.model {
            Some(path) => {
                let path = Path::new(path);
                let kept: Kept = store::options(path)?;
                let drawn = try_seeded(&device, 0, |d| kept.design.build(d))?;
                (
                    store::load(&burn::module::Module::valid(&drawn), path)?,
                    kept,
                )
            }
            None => {
                let labels = labelled(&data)?;
                let [validation, train] = parted(
                    (0..data.len()).collect(),
                    task.validation_share,
                    job.seed,
                    "validation pictures",
                );
                let scale = Scale::of(&data, &train);
                let values = scale.apply(&data);
                let design = method.design(&shape(&data), &task)?;
                let Learned { model, rate, .. } = learn(
                    &design,
                    &inputs(&values, &data),
                    labels,
                    [&train, &validation],
                    &task,
                    &device,
                    context,
                )?;
                let shares = predict(&model, &inputs(&values, &data), &validation, &device)?;
                summary.push(("learning rate".to_owned(), rate.to_string()));
                summary.push((
                    "accuracy on pictures kept apart".to_owned(),
                    format!("{:.4}", accuracy(&shares, labels, &validation)),
                ));
                let kept = Kept {
                    design,
                    scale,
                    classes: data.classes.clone(),
                    picture: data.picture,
                    channels: data.channels,
                };
                (model, kept)
            }
        };
        let pictures = if job.inputs.contains_key("query") {
            Pictures::read(job, "query", &task, context)?
        } else {
            data
        };
        if pictures.channels != kept.channels {
            return Err(Error::BadInput(format!(
                "the pictures have {} colour channels, the network was trained on {}; set colour to {}",
                pictures.channels,
                kept.channels,
                if kept.channels == 1 { "grey" } else { "rgb" }
            )));
        }
        if pictures.picture != kept.picture {
            return Err(Error::BadInput(format!(
                "the pictures have {} x {} pixels, the network was trained on {} x {}; set image-size",
                pictures.picture[0], pictures.picture[1], kept.picture[0], kept.picture[1]
            )));
        }
        let values = kept.scale.apply(&pictures);
        let inputs = inputs(&values, &pictures);
        let rows: Vec<usize> = (0..pictures.len()).collect();
        let shares = predict(&model, &inputs, &rows, &device)?;
        output.write(&[answer(&pictures, &shares, &kept.classes, task.top)?])?;
        if task.features {
            let text = features(&model, &inputs, &pictures, &device)?;
            output.side("features.csv", text.as_bytes())?;
        }
        if task.model.is_none() {
            let folder = out
                .parent()
                .filter(|p| !p.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            let path = folder.join(format!(".{}.weights", std::process::id()));
            store::save(&model, &kept, &path)?;
            let weights = std::fs::read(&path).map_err(|e| Error::file(&path, e));
            // Only a copy that is read again just above.
            let _ = std::fs::remove_file(&path);
            output.side("model.safetensors", &weights?)?;
        }
        summary.push(("pictures".to_owned(), pictures.len().to_string()));
        summary.push(("classes".to_owned(), kept.classes.len().to_string()));
        summary.push(("parameters".to_owned(), model.parameters().to_string()));
        Ok(Applied {
            files: output.finish()?,
            summary,
            notes: Vec::new(),
            ..Applied::default()
        })
    }
}

fn shape(pictures: &Pictures) -> Shape {
    Shape {
        picture: pictures.picture,
        channels: pictures.channels,
        classes: pictures.classes.len(),
    }
}

fn inputs<'a>(values: &'a [f32], pictures: &Pictures) -> Inputs<'a> {
    Inputs {
        values,
        picture: pictures.picture,
        channels: pictures.channels,
    }
}

/// Relative log amplitude of each path against depth.
fn by_depth(blocks: &[fourier::BlockFrequencies]) -> Vec<Curve> {
    let curve = |name: &str, of: &dyn Fn(&fourier::BlockFrequencies) -> Option<f64>| Curve {
        name: format!("relative log amplitude of {name}"),
        x: "block".into(),
        y: "relative log amplitude at half the sampling frequency".into(),
        points: blocks
            .iter()
            .filter_map(|b| of(b).map(|v| (b.block as f64, v)))
            .collect(),
    };
    vec![
        curve("convolution", &|b| b.convolution),
        curve("pooling", &|b| b.pooling),
        curve("attention", &|b| Some(b.attention)),
    ]
}

/// One row a picture: its name, and the likeliest classes with their probabilities.
fn answer(
    pictures: &Pictures,
    shares: &[Vec<f32>],
    classes: &[String],
    top: usize,
) -> Result<RecordBatch> {
    let top = top.min(classes.len());
    let order: Vec<Vec<usize>> = shares
        .iter()
        .map(|s| {
            let mut order: Vec<usize> = (0..s.len()).collect();
            order.sort_by(|a, b| s[*b].total_cmp(&s[*a]));
            order
        })
        .collect();
    let mut fields = vec![Field::new("picture", DataType::Utf8, false)];
    let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from_iter_values(&pictures.names))];
    for rank in 0..top {
        let suffix = if rank == 0 {
            String::new()
        } else {
            format!("_{}", rank + 1)
        };
        fields.push(Field::new(format!("class{suffix}"), DataType::Utf8, false));
        columns.push(Arc::new(StringArray::from_iter_values(
            order.iter().map(|o| classes[o[rank]].as_str()),
        )));
        fields.push(Field::new(
            format!("probability{suffix}"),
            DataType::Float32,
            false,
        ));
        columns.push(Arc::new(Float32Array::from_iter_values(
            order.iter().zip(shares).map(|(o, s)| s[o[rank]]),
        )));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|e| Error::Failed(e.to_string()))
}

/// CSV of the mean of each channel after each stage.
fn features(
    model: &Classifier,
    inputs: &Inputs,
    pictures: &Pictures,
    device: &burn::tensor::Device,
) -> Result<String> {
    use std::fmt::Write;
    let Classifier::Frame(net) = model else {
        return Err(Error::option(
            "features",
            "only networks with stages have features",
        ));
    };
    let rows: Vec<usize> = (0..pictures.len()).collect();
    let mut text = String::from("row");
    let mut first = true;
    let mut lines = String::new();
    for some in rows.chunks(128) {
        let mut stages = Vec::new();
        for (s, map) in net
            .stages(inputs.rows(some, device), |_, _| ())?
            .into_iter()
            .enumerate()
        {
            let [b, h, w, c] = map.dims();
            let mean = map.reshape([b, h * w, c]).mean_dim(1).reshape([b, c]);
            if first {
                (0..c).for_each(|i| text.push_str(&format!(",stage{}_{i}", s + 1)));
            }
            stages.push((c, papertrial_nn::values_of(mean)?));
        }
        first = false;
        for (i, row) in some.iter().enumerate() {
            let _ = write!(lines, "{}", row + 1);
            for (c, values) in &stages {
                for value in &values[i * c..(i + 1) * c] {
                    let _ = write!(lines, ",{value}");
                }
            }
            lines.push('\n');
        }
    }
    Ok(format!("{text}\n{lines}"))
}

#[cfg(test)]
mod tests;
