//! Scores a user's graphs, with reasons, and keeps the model.

use super::graphs::GraphSet;
use super::input::{self, Classes, Loaded};
use super::score;
use super::spectral::{ClassSpectrum, GRID, class_spectra, curve, grid, quotients};
use super::{Detector, METHODS, Scorer, Split, TaskOptions};
use arrow::array::{ArrayRef, BooleanArray, Float64Array, StringArray};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::{Output, write_whole};
use papertrial_core::options::Settings;
use papertrial_core::task::{Applied, Context, Entry, Input, Job};
use papertrial_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// File of what is known of a model besides its weights.
const MODEL: &str = "model.json";

/// A model as it stands in its folder, beside its weights.
#[derive(Debug, Serialize, Deserialize)]
struct Model {
    method: String,
    options: Settings,
    /// Names of the features of a node.
    features: Vec<String>,
    /// Names of the normal and of the anomalous class.
    classes: [String; 2],
    /// Whether edges have weights.
    weighted: bool,
    /// Graphs that score above this are anomalous.
    threshold: f64,
    /// AUC and macro-F1 at the threshold, on validation graphs.
    validation: [f64; 2],
    /// What is usual in both classes.
    spectra: [ClassSpectrum; 2],
}

/// Learns from the data and scores the input `score`, or the data themselves; or, with the input `model`, only scores the
/// data.
///
/// `out`: a row for each graph with its score, whether it is above the threshold, the class whose energy over the
/// spectrum it is nearest to, and the features whose Rayleigh quotients are farthest from those of normal graphs. Beside
/// it: what is usual in both classes (`.spectrum.json`), and, after learning, the model's folder (`.model`).
///
/// # Errors
/// Bad input or options, a training that failed, or an output that cannot be written.
pub(super) fn run(
    method: &dyn Detector,
    asked: &TaskOptions,
    job: &Job,
    out: &Path,
    context: &Context,
) -> Result<Applied> {
    let mut output = Output::table(out)?;
    let mut notes = Vec::new();
    let mut summary = Vec::new();
    let mut folder = None;
    let (model, scorer, graphs, parts) = if let Some(given) = job.inputs.get("model") {
        if job.inputs.contains_key("score") {
            return Err(Error::option(
                "score",
                "with --model the data are scored; give the graphs as --data",
            ));
        }
        let (model, scorer) = read_model(given, job, context)?;
        let classes = Classes::Known(&model.classes);
        let loaded = input::load(job, "data", model.weighted, classes, context)?;
        let graphs = followed(loaded, &model, &mut notes)?;
        let parts = vec!["new"; graphs.len()];
        (model, scorer, graphs, parts)
    } else {
        let loaded = input::load(job, "data", asked.weighted, asked.classes(), context)?;
        notes.extend(loaded.notes);
        let graphs = match asked.graphs {
            Some(count) => input::some_of(&loaded.graphs, count, job.seed)?,
            None => loaded.graphs,
        };
        let split = Split::drawn(&graphs, 0.0, job.seed)?;
        let fitted = method.fit(&graphs, &split, &asked.lessons(), context)?;
        notes.extend(fitted.notes);
        let scorer = fitted.ranker;
        let known = split.truth(&graphs, &split.validation)?;
        let scores = scorer.score(&graphs.select(&split.validation), context)?;
        let threshold = score::best_threshold(&known, &scores);
        let model = Model {
            method: job.method.clone(),
            options: job.options.clone(),
            features: graphs.names.clone(),
            classes: loaded.classes.unwrap_or_default(),
            weighted: asked.weighted,
            threshold,
            validation: [
                score::auc(&known, &scores)?,
                score::macro_f1(&known, &scores, threshold)?,
            ],
            spectra: class_spectra(&graphs.select(&split.train), asked.spectrum)?,
        };
        folder = Some(written(&model, &*scorer, out)?);
        summary.push((
            "learned from".to_owned(),
            format!("{} graphs", split.train.len()),
        ));
        if job.inputs.contains_key("score") {
            let classes = Classes::Known(&model.classes);
            let loaded = input::load(job, "score", model.weighted, classes, context)?;
            let graphs = followed(loaded, &model, &mut notes)?;
            let parts = vec!["new"; graphs.len()];
            (model, scorer, graphs, parts)
        } else {
            let mut parts = vec!["train"; graphs.len()];
            split
                .validation
                .iter()
                .for_each(|g| parts[*g] = "validation");
            notes.push("most of these graphs were learned from: their scores are better than those of new graphs will be".into());
            (model, scorer, graphs, parts)
        }
    };
    let scores = scorer.score(&graphs, context)?;
    output.write(&[table(&graphs, &model, &scores, &parts, asked)?])?;
    output.side("spectrum.json", spectrum(&model)?.as_bytes())?;
    let mut files = output.finish()?;
    if let Some((beside, place)) = folder {
        files.push(moved(beside, &place)?);
    }
    let flagged = scores.iter().filter(|s| **s > model.threshold).count();
    summary.push(("graphs".into(), graphs.len().to_string()));
    summary.push((
        "anomalous".into(),
        format!("{flagged} (score above {:.4})", model.threshold),
    ));
    summary.push((
        "on validation graphs".into(),
        format!(
            "AUC {:.3}, macro-F1 {:.3}",
            model.validation[0], model.validation[1]
        ),
    ));
    if let (Some(labels), Some(&"new")) = (&graphs.labels, parts.first())
        && let Ok(auc) = score::auc(labels, &scores)
    {
        let f1 = score::macro_f1(labels, &scores, model.threshold)?;
        summary.push((
            "on these graphs".into(),
            format!("AUC {auc:.3}, macro-F1 {f1:.3}"),
        ));
    }
    Ok(Applied {
        files,
        summary,
        notes,
        ..Applied::default()
    })
}

/// Graphs with the features of the model.
fn followed(loaded: Loaded, model: &Model, notes: &mut Vec<String>) -> Result<GraphSet> {
    notes.extend(loaded.notes);
    let (graphs, more) = loaded.graphs.aligned(&model.features)?;
    notes.extend(more);
    Ok(graphs)
}

fn failed(e: impl std::fmt::Display) -> Error {
    Error::Failed(e.to_string())
}

/// Writes the model into a folder beside its place, which is given too.
fn written(model: &Model, scorer: &dyn Scorer, out: &Path) -> Result<(Unfinished, PathBuf)> {
    let place = out.with_extension("model");
    let beside = Unfinished::new(out.with_extension(format!("model.{}.part", std::process::id())))?;
    scorer.save(&beside.path)?;
    let text = serde_json::to_vec_pretty(model).map_err(failed)?;
    write_whole(&beside.path.join(MODEL), &text)?;
    Ok((beside, place))
}

/// Puts a folder in its place.
fn moved(mut beside: Unfinished, place: &Path) -> Result<PathBuf> {
    let wrong = |e: std::io::Error| Error::file(place, e.kind());
    if place.exists() {
        std::fs::remove_dir_all(place).map_err(wrong)?;
    }
    std::fs::rename(&beside.path, place).map_err(wrong)?;
    beside.kept = true;
    Ok(place.to_path_buf())
}

/// A folder that goes away again unless it is moved.
struct Unfinished {
    path: PathBuf,
    kept: bool,
}

impl Unfinished {
    fn new(path: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&path).map_err(|e| Error::file(&path, e.kind()))?;
        Ok(Unfinished { path, kept: false })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing was promised of it.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Reads a model's folder.
fn read_model(given: &Input, job: &Job, context: &Context) -> Result<(Model, Box<dyn Scorer>)> {
    let Input::File { path, .. } = given else {
        return Err(Error::option(
            "model",
            "should be a folder that an earlier run wrote",
        ));
    };
    // The file in the folder stands for the folder.
    let folder = match path.is_dir() {
        true => path.as_path(),
        false => path.parent().unwrap_or(path),
    };
    let file = folder.join(MODEL);
    let text = std::fs::read(&file).map_err(|e| {
        Error::file(
            &file,
            format!("cannot be read ({}); a model's folder has it", e.kind()),
        )
    })?;
    let model: Model = serde_json::from_slice(&text)
        .map_err(|e| Error::file(&file, format!("is not a model of this task: {e}")))?;
    if model.method != job.method {
        return Err(Error::option(
            "model",
            format!(
                "{} is a model of {}, not of {}; name that method",
                folder.display(),
                model.method,
                job.method
            ),
        ));
    }
    let entry = Entry::find(METHODS, &job.task, &model.method)?;
    let method = (entry.build)(&model.options)?;
    let scorer = method.load(folder, model.features.len(), context)?;
    Ok((model, scorer))
}

/// A reason: a feature, its quotient, and how far that is from normal graphs, in their deviations.
type Reason<'a> = (&'a str, f64, f64);

/// Deviations smaller than this count as this: a quotient lies between 0 and 2.
const LEAST_DEVIATION: f64 = 0.01;

/// The features of each graph whose quotients are farthest from what is usual, the farthest first.
fn reasons<'a>(graphs: &GraphSet, model: &'a Model, top: usize) -> Vec<Vec<Reason<'a>>> {
    let usual = &model.spectra[0].quotients;
    graphs.map(|graph| {
        let mut all: Vec<Reason> = quotients(graph, model.features.len())
            .into_iter()
            .enumerate()
            .filter_map(|(f, q)| {
                let q = f64::from(q?);
                let deviation = usual.deviation[f].max(LEAST_DEVIATION);
                Some((
                    model.features[f].as_str(),
                    q,
                    (q - usual.mean[f]) / deviation,
                ))
            })
            .collect();
        all.sort_by(|a, b| b.2.abs().total_cmp(&a.2.abs()));
        all.truncate(top);
        all
    })
}

/// The class whose curve is nearest to that of each graph; none for a graph or classes without a curve.
fn nearest(graphs: &GraphSet, model: &Model) -> Result<Vec<Option<String>>> {
    if model.spectra.iter().any(|s| s.curve.mean.is_empty()) {
        return Ok(vec![None; graphs.len()]);
    }
    graphs
        .map(|graph| {
            let curve = curve(graph)?;
            Ok(curve.map(|curve| {
                let [normal, anomalous] = [0, 1].map(|c| model.spectra[c].curve.distance(&curve));
                model.classes[usize::from(anomalous < normal)].clone()
            }))
        })
        .into_iter()
        .collect()
}

fn table(
    graphs: &GraphSet,
    model: &Model,
    scores: &[f64],
    parts: &[&str],
    asked: &TaskOptions,
) -> Result<RecordBatch> {
    let mut columns: Vec<(String, ArrayRef)> = vec![
        (
            "id".into(),
            Arc::new(StringArray::from_iter_values(&graphs.ids)),
        ),
        (
            "score".into(),
            Arc::new(Float64Array::from(scores.to_vec())),
        ),
        (
            "anomalous".into(),
            Arc::new(BooleanArray::from_iter(
                scores.iter().map(|s| Some(*s > model.threshold)),
            )),
        ),
        (
            "part".into(),
            Arc::new(StringArray::from_iter_values(parts)),
        ),
    ];
    if let Some(labels) = &graphs.labels {
        let names = labels.iter().map(|l| &model.classes[usize::from(*l)]);
        columns.push((
            "label".into(),
            Arc::new(StringArray::from_iter_values(names)),
        ));
    }
    if asked.spectrum {
        let nearest = StringArray::from_iter(nearest(graphs, model)?);
        columns.push(("nearest_curve".into(), Arc::new(nearest)));
    }
    let reasons = reasons(graphs, model, asked.top);
    for k in 0..asked.top {
        let of = |f: fn(&Reason) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter(
                reasons.iter().map(|r| r.get(k).map(f)),
            ))
        };
        let names = StringArray::from_iter(reasons.iter().map(|r| r.get(k).map(|r| r.0)));
        columns.push((format!("feature_{}", k + 1), Arc::new(names)));
        columns.push((format!("quotient_{}", k + 1), of(|r| r.1)));
        columns.push((format!("deviations_{}", k + 1), of(|r| r.2)));
    }
    RecordBatch::try_from_iter(columns).map_err(failed)
}

/// What is usual in both classes, for people and plots.
fn spectrum(model: &Model) -> Result<String> {
    let class = |c: usize| {
        let spectrum = &model.spectra[c];
        let quotients: Vec<_> = model
            .features
            .iter()
            .zip(spectrum.quotients.mean.iter().zip(&spectrum.quotients.deviation))
            .map(|(name, (mean, deviation))| json!({"feature": name, "mean": mean, "deviation": deviation}))
            .collect();
        json!({
            "class": model.classes[c],
            "graphs": spectrum.graphs,
            "energy-up-to": spectrum.curve,
            "quotients": quotients,
        })
    };
    let told = json!({
        "eigenvalues": (0..GRID).map(grid).collect::<Vec<f64>>(),
        "normal": class(0),
        "anomalous": class(1),
    });
    serde_json::to_string_pretty(&told).map_err(failed)
}
