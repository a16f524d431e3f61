//! Task `clustering`: give every row of a table the number of its group.
//!
//! Here are the task's trait, its list of methods, its metrics and its output; each method has a file of its own.

mod bisecting_kmeans;
mod dbscan;
mod g_means;
mod gaussian_mixture;
mod gaussian_mixture_bic;
mod hdbscan;
mod ila_sdp;
mod kmeans;
mod mini_batch_kmeans;
mod model;
mod points;
mod ppp;
mod sdp_kmeans;
mod spectral;
mod ward;
mod x_means;

pub use crate::gaussian::Covariance;
pub use bisecting_kmeans::BisectingKMeans;
pub use dbscan::Dbscan;
pub use g_means::GMeans;
pub use gaussian_mixture::{GaussianMixture, MixtureInit};
pub use gaussian_mixture_bic::GaussianMixtureBic;
pub use hdbscan::Hdbscan;
pub use ila_sdp::IlaSdp;
pub use kmeans::KMeans;
pub use mini_batch_kmeans::MiniBatchKMeans;
pub use model::{Labeller, Model};
pub use points::{Points, Scaling};
pub use ppp::{Ppp, PppCovariance};
pub use sdp_kmeans::SdpKMeans;
pub use spectral::Spectral;
pub use ward::Ward;
pub use x_means::XMeans;

use arrow::array::{ArrayRef, Float64Array, Int32Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use ndarray::{Array2, Axis};
use papertrial_core::data::{Labels, Output, Roles, Table};
use papertrial_core::methods;
use papertrial_core::task::{Applied, Context, Curve, Entry, Job, Measurement, MetricInfo, Task};
use papertrial_core::{Error, Result};
use papertrial_numerics::metrics::clustering as score;
use papertrial_numerics::sampling;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// A method of this task.
pub trait Clusterer: Send + Sync {
    /// Groups the rows of `points`.
    ///
    /// # Errors
    /// Options that do not fit the data, such as more clusters than rows, or a computation that failed.
    fn fit(&self, points: &Points, context: &Context) -> Result<Grouping>;
}

/// The group of a row that belongs to none.
pub const NOISE: i32 = -1;

/// What a method yields.
#[derive(Debug, Clone, Default)]
pub struct Grouping {
    /// Group of each row, from 0; [`NOISE`] for a row that belongs to none.
    pub labels: Vec<i32>,
    /// \[rows, groups\]: how much each row belongs to each group, where the method tells.
    pub memberships: Option<Array2<f64>>,
    /// Labels new rows, where the method can.
    pub model: Option<Model>,
    /// More columns of the output, such as a flag of rows on a border: name and one number a row.
    pub columns: Vec<(String, Vec<f64>)>,
    /// Files beside the output, such as a tree: ending (`tree.json`) and content.
    pub files: Vec<(String, String)>,
    /// Objective against rounds and the like.
    pub curves: Vec<Curve>,
    /// Remarks for the reader.
    pub notes: Vec<String>,
}

impl Grouping {
    /// Number of groups.
    pub fn groups(&self) -> usize {
        let mut seen: Vec<i32> = self.labels.iter().copied().filter(|l| *l >= 0).collect();
        seen.sort_unstable();
        seen.dedup();
        seen.len()
    }
}

/// The methods. A new one is a file of its own, a `mod` line above, and a line here.
const METHODS: &[Entry<dyn Clusterer>] = methods![
    dyn Clusterer;
    KMeans,
    SdpKMeans,
    IlaSdp,
    XMeans,
    Ward,
    Spectral,
    MiniBatchKMeans,
    Hdbscan,
    GMeans,
    Dbscan,
    BisectingKMeans,
    GaussianMixture,
    GaussianMixtureBic,
    Ppp,
];

const METRICS: &[MetricInfo] = &[
    MetricInfo::new(
        "ari",
        Some(true),
        "adjusted Rand index against the label column: 1 is agreement, 0 is chance",
    ),
    MetricInfo::new(
        "nmi",
        Some(true),
        "normalised mutual information with the label column, 0 to 1",
    ),
    MetricInfo::new(
        "error",
        Some(false),
        "share of rows in the wrong group after the best matching of groups to labels",
    ),
    MetricInfo::new(
        "silhouette",
        Some(true),
        "mean silhouette, -1 to 1; needs no labels; of at most 2,000 rows",
    ),
    MetricInfo::new(
        "davies-bouldin",
        Some(false),
        "Davies-Bouldin index: spread within groups over distance between them",
    ),
    MetricInfo::new(
        "inertia",
        Some(false),
        "sum of squared distances of the rows to the mean of their group, noise left out",
    ),
    MetricInfo::new(
        "stability",
        Some(true),
        "mean ARI between fits with other seeds and the rows in another order (option repeats)",
    ),
    MetricInfo::new("clusters", None, "number of groups found"),
    MetricInfo::new("noise", None, "share of rows that belong to no group"),
    MetricInfo::new(
        "fit-seconds",
        Some(false),
        "wall seconds of the fit alone, data in memory",
    )
    .timed(),
];

/// Options of the task: how the data are prepared and the result is measured.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskOptions {
    /// Scale every column to mean 0 and variance 1 first.
    pub standardise: bool,
    /// Fits with other seeds and the rows in another order, from which `stability` is computed; 0 for none.
    #[schemars(range(max = 1000))]
    pub repeats: usize,
}

impl Default for TaskOptions {
    fn default() -> Self {
        TaskOptions {
            standardise: true,
            repeats: 0,
        }
    }
}

/// Rows of which the silhouette is computed at most; it compares all pairs.
const SILHOUETTE_ROWS: usize = 2000;

/// The task.
pub struct Clustering;

impl Task for Clustering {
    papertrial_core::states! {
        "clustering",
        "give every row of a table the number of its group",
        METHODS,
        METRICS,
        TaskOptions,
    }

    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let (method, asked) = prepare(job)?;
        let table = job.table("data", context)?;
        let points = Points::of(&table, &job.roles, asked.standardise, context)?;
        let truth = Labels::of(&table, &job.roles)?;

        let start = Instant::now();
        let found = method.fit(&points, context)?;
        let seconds = start.elapsed().as_secs_f64();

        let mut measurement = Measurement {
            curves: found.curves.clone(),
            notes: points.notes().iter().chain(&found.notes).cloned().collect(),
            ..Measurement::default()
        };
        let metrics = &mut measurement.metrics;
        metrics.insert("fit-seconds".into(), seconds);
        metrics.insert("clusters".into(), found.groups() as f64);
        let noise = found.labels.iter().filter(|l| **l == NOISE).count();
        metrics.insert("noise".into(), noise as f64 / found.labels.len() as f64);
        if let Some(truth) = truth {
            let table = contingency(&truth.codes, &found.labels)?;
            metrics.insert("ari".into(), score::adjusted_rand_index(&table));
            metrics.insert("nmi".into(), score::normalized_mutual_information(&table));
            metrics.insert("error".into(), score::misclustering_error(&table));
        }
        if let Ok(x) = points.matrix(context) {
            // Of rows that are all noise there is none.
            if let Ok(inertia) = score::inertia(x.view(), &found.labels) {
                metrics.insert("inertia".into(), inertia);
            }
            // Both need at least two groups; without them they are absent.
            let sample = score::RowSample {
                rows: SILHOUETTE_ROWS,
                // The same rows for every method and seed, so that their values can be compared.
                seed: 0,
            };
            if let Ok(s) = score::silhouette(x.view(), &found.labels, Some(sample)) {
                metrics.insert("silhouette".into(), s);
            }
            if let Ok(d) = score::davies_bouldin(x.view(), &found.labels) {
                metrics.insert("davies-bouldin".into(), d);
            }
        } else {
            measurement.notes.push(
                "the rows do not fit into memory: inertia and silhouette were left out".into(),
            );
        }
        if asked.repeats > 0 {
            let stability = stability(&*method, &points, &found, asked.repeats, context)?;
            measurement.metrics.insert("stability".into(), stability);
        }
        Ok(measurement)
    }

    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied> {
        let mut output = Output::table(out)?;
        let table = job.table("data", context)?;
        let (labels, memberships, found) = if job.inputs.contains_key("model") {
            let labeller = Labeller::read(job, "model")?;
            let (labels, memberships) = labeller.label(&table, &job.roles)?;
            (labels, memberships, None)
        } else {
            let (method, asked) = prepare(job)?;
            let points = Points::of(&table, &job.roles, asked.standardise, context)?;
            let mut found = method.fit(&points, context)?;
            found.notes = points.notes().iter().chain(&found.notes).cloned().collect();
            if let Some(model) = found.model.clone() {
                let labeller = Labeller {
                    method: job.method.clone(),
                    columns: points.names().to_vec(),
                    scaling: points.scaling().cloned(),
                    model,
                };
                found.files.push(("model.json".into(), labeller.to_json()?));
            }
            (found.labels.clone(), found.memberships.clone(), Some(found))
        };
        let extra = found.as_ref().map_or(&[][..], |f| &f.columns);
        output.write(&batches(
            &table,
            &job.roles,
            &labels,
            memberships.as_ref(),
            extra,
        )?)?;
        for (name, content) in found.iter().flat_map(|f| &f.files) {
            output.side(name, content.as_bytes())?;
        }
        let groups = Grouping {
            labels,
            ..Grouping::default()
        };
        Ok(Applied {
            files: output.finish()?,
            summary: summary(&groups),
            notes: found.map(|f| f.notes).unwrap_or_default(),
            ..Applied::default()
        })
    }
}

/// The method of a job and what is asked of the task.
fn prepare(job: &Job) -> Result<(Box<dyn Clusterer>, TaskOptions)> {
    Entry::prepare(METHODS, job)
}

fn contingency(first: &[i32], second: &[i32]) -> Result<score::Contingency> {
    score::contingency(first, second).map_err(|e| Error::Failed(e.to_string()))
}

fn summary(found: &Grouping) -> Vec<(String, String)> {
    let mut sizes = std::collections::BTreeMap::new();
    for label in &found.labels {
        *sizes.entry(*label).or_insert(0usize) += 1;
    }
    let noise = sizes.remove(&NOISE).unwrap_or(0);
    let shown: Vec<String> = sizes.values().take(20).map(usize::to_string).collect();
    let more = if sizes.len() > 20 { ", …" } else { "" };
    vec![
        ("rows".into(), found.labels.len().to_string()),
        ("clusters".into(), sizes.len().to_string()),
        ("sizes".into(), format!("{}{more}", shown.join(", "))),
        ("noise rows".into(), noise.to_string()),
    ]
}

/// Mean ARI over all pairs of fits: the one at hand and `repeats` more, each with its own seed and row order.
fn stability(
    method: &dyn Clusterer,
    points: &Points,
    first: &Grouping,
    repeats: usize,
    context: &Context,
) -> Result<f64> {
    let x = points.matrix(context)?;
    let mut all = vec![first.labels.clone()];
    for repeat in 0..repeats {
        context.step("repeating", repeat, repeats);
        let mut rng = sampling::rng(context.seed, &format!("stability {repeat}"));
        let order = sampling::permutation(&mut rng, x.nrows());
        let shuffled = Points::from_matrix(x.select(Axis(0), &order))?;
        let quiet = |_| ();
        let again = Context {
            seed: context.seed + 1000 * (repeat as u64 + 1),
            memory: context.memory,
            device: context.device.clone(),
            simulations: context.simulations,
            streams: context.streams.clone(),
            progress: &quiet,
        };
        let found = method.fit(&shuffled, &again)?;
        let mut labels = vec![0; order.len()];
        for (place, row) in order.iter().enumerate() {
            labels[*row] = found.labels[place];
        }
        all.push(labels);
    }
    let mut sum = 0.0;
    let mut pairs = 0;
    for i in 0..all.len() {
        for j in 0..i {
            sum += score::adjusted_rand_index(&contingency(&all[i], &all[j])?);
            pairs += 1;
        }
    }
    Ok(sum / f64::from(pairs))
}

/// The output table: identifier if one is named, `label`, memberships, and the method's own columns.
fn batches(
    table: &Table,
    roles: &Roles,
    labels: &[i32],
    memberships: Option<&Array2<f64>>,
    extra: &[(String, Vec<f64>)],
) -> Result<Vec<RecordBatch>> {
    let id = match &roles.id {
        Some(column) => Some(table.column_for("--id", column)?),
        None => None,
    };
    let mut start = 0;
    let mut written = Vec::new();
    for batch in table.batches()? {
        let batch = batch?;
        let end = start + batch.num_rows();
        if end > labels.len() {
            return Err(Error::file(table.name(), "changed while it was read"));
        }
        let mut fields = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::new();
        if let Some(id) = id {
            fields.push(batch.schema().field(id).clone());
            columns.push(batch.column(id).clone());
        }
        fields.push(Field::new("label", DataType::Int32, false));
        columns.push(Arc::new(Int32Array::from(labels[start..end].to_vec())));
        for group in 0..memberships.map_or(0, |m| m.ncols()) {
            fields.push(Field::new(
                format!("membership_{group}"),
                DataType::Float64,
                false,
            ));
            let values = memberships.map(|m| m.slice(ndarray::s![start..end, group]).to_vec());
            columns.push(Arc::new(Float64Array::from(values.unwrap_or_default())));
        }
        for (name, values) in extra {
            fields.push(Field::new(name, DataType::Float64, false));
            columns.push(Arc::new(Float64Array::from(values[start..end].to_vec())));
        }
        let schema = Arc::new(Schema::new(fields));
        written
            .push(RecordBatch::try_new(schema, columns).map_err(|e| Error::Failed(e.to_string()))?);
        start = end;
    }
    Ok(written)
}
