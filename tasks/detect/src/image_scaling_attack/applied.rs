//! Judges a user's pictures and writes a report.

use super::attack::forge;
use super::detector::Detector;
use super::input::{self, Entry};
use super::picture::Picture;
use super::score::{Part, Rule, Side, View};
use super::threshold::Known;
use super::{Calibration, Convention, Kernel, TaskOptions};
use arrow::array::{ArrayRef, Float64Array, StringArray, UInt64Array};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::{Output, write_whole};
use papertrial_core::task::{Applied, Context, Input, Job};
use papertrial_core::{Error, Result};
use rayon::prelude::*;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The size of pictures that the model takes, where none is asked for.
const USUAL: (usize, usize) = (224, 224);

/// The view of a run.
pub(super) fn view(asked: &TaskOptions) -> Result<View> {
    Ok(View {
        target: asked.target()?.unwrap_or(USUAL),
        scaler: asked.scaler(),
    })
}

/// Refuses what only a trial can do.
pub(super) fn refuse_trial_options(asked: &TaskOptions) -> Result<()> {
    let used = [
        ("calibrate-on", asked.calibrate_on != "same"),
        ("width", asked.width.is_some()),
        ("height", asked.height.is_some()),
    ];
    match used.iter().find(|(_, used)| *used) {
        Some((option, _)) => Err(Error::option(
            option,
            "is for trials; a run takes the pictures as they are, and clean ones from --input benign=FOLDER",
        )),
        None => Ok(()),
    }
}

/// Judges all pictures of the main input.
///
/// `out`: a line a picture with its size, all numbers of the tests, their verdicts and that of the vote, the scaling and
/// remarks. Files that cannot be read have the verdict `unreadable`, pictures that do not shrink `not-applicable`. Beside
/// it: the thresholds (`.thresholds.json`), where they were set now, and on demand what the model sees (`.views/`).
///
/// Pictures are read some at a time; in memory stay the lines of the report.
///
/// # Errors
/// Bad input or options, no way to thresholds, or an output that cannot be written.
pub(super) fn run(
    parts: Vec<Part>,
    asked: &TaskOptions,
    job: &Job,
    out: &Path,
    context: &Context,
) -> Result<Applied> {
    refuse_trial_options(asked)?;
    let mut output = Output::table(out)?;
    let mut detector = Detector::of(parts, view(asked)?);
    let origin = calibrate(&mut detector, asked, job, context)?;
    let views = asked.views.then(|| out.with_extension("views"));
    if let Some(folder) = &views {
        make_folder(folder)?;
    }
    let mut names = Names::default();
    let mut lines: Vec<Line> = Vec::new();
    input::each(job, "data", context, |entries| {
        context.step("judging pictures", lines.len(), 0);
        let files: Vec<Option<PathBuf>> = (entries.iter())
            .map(|e| views.as_ref().map(|folder| folder.join(names.of(&e.name))))
            .collect();
        let more: Vec<Line> = (entries.par_iter().zip(files))
            .map(|(entry, file)| Line::of(entry, &detector, asked, file))
            .collect::<Result<_>>()?;
        lines.extend(more);
        Ok(())
    })?;

    output.write(&[table(&lines, &detector)?])?;
    let fixed = |p: &Part| matches!(p.rule, Rule::Fixed(_));
    if !job.inputs.contains_key("model") && !detector.parts().iter().all(fixed) {
        output.side("thresholds.json", detector.to_json(&origin)?.as_bytes())?;
    }
    let count = |verdict: &str| lines.iter().filter(|l| l.verdict == verdict).count();
    let unreadable = count(UNREADABLE);
    let mut summary = vec![
        ("pictures".to_owned(), lines.len().to_string()),
        ("attacks".to_owned(), count(ATTACK).to_string()),
        ("clean".to_owned(), count(CLEAN).to_string()),
        (
            "not larger than the target, nothing to hide".to_owned(),
            count(NOT_APPLICABLE).to_string(),
        ),
        ("unreadable".to_owned(), unreadable.to_string()),
        ("scaling".to_owned(), shown(detector.view())),
        ("thresholds".to_owned(), origin),
    ];
    let thresholds = detector.thresholds().unwrap_or_default();
    for (part, threshold) in detector.parts().iter().zip(thresholds) {
        let side = match part.test.side() {
            Side::High => "from",
            Side::Low => "up to",
        };
        summary.push((
            format!("{} accuses", part.name),
            format!("{side} {threshold:.4}"),
        ));
    }
    let mut notes = Vec::new();
    let skipped = lines
        .iter()
        .filter(|l| l.verdict == UNREADABLE)
        .map(|l| format!("{}: {}", l.name, l.notes.join("; ")))
        .collect();
    if asked.convention == Convention::Pillow && asked.scaler != Kernel::Nearest {
        notes.push(
            "Pillow's kernels look at every pixel: an attack on them shows in the picture itself"
                .into(),
        );
    }
    let mut files = output.finish()?;
    files.extend(views);
    Ok(Applied {
        files,
        summary,
        notes,
        skipped,
    })
}

/// The scaling in words.
pub(super) fn shown(view: View) -> String {
    format!(
        "{}x{} by {}",
        view.target.1,
        view.target.0,
        view.scaler.describe()
    )
}

/// Sets the thresholds: from a file of an earlier run, or from clean pictures. Returns where they come from.
fn calibrate(
    detector: &mut Detector,
    asked: &TaskOptions,
    job: &Job,
    context: &Context,
) -> Result<String> {
    if detector.thresholds().is_some() {
        return Ok("fixed".into());
    }
    if let Some(Input::File { path, .. }) = job.inputs.get("model") {
        let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
        return detector
            .take_json(&text)
            .map_err(|told| Error::file(path, told));
    }
    if !job.inputs.contains_key("benign") {
        return Err(Error::BadInput(
            "the thresholds of these tests come from pictures: give clean ones of your own as --input benign=FOLDER (10 at least, better 100), or thresholds of an earlier run as --model FILE".into(),
        ));
    }
    let given = job.inputs.contains_key("attack");
    let forging = asked.calibration == Calibration::WhiteBox && !given;
    let clean = known(detector, asked, job, "benign", forging, context)?;
    let attack = match asked.calibration {
        Calibration::BlackBox => Vec::new(),
        Calibration::WhiteBox if given => {
            known(detector, asked, job, "attack", false, context)?.scores
        }
        Calibration::WhiteBox => clean.forged,
    };
    detector.calibrate(&Known {
        clean: &clean.scores,
        attack: &attack,
        percentile: asked.percentile,
        seed: job.seed,
    })?;
    let mut origin = match asked.calibration {
        Calibration::BlackBox => format!(
            "black box, percentile {}, {} clean pictures",
            asked.percentile,
            clean.scores.len()
        ),
        Calibration::WhiteBox => format!(
            "white box, {} clean pictures, {} {} attacks",
            clean.scores.len(),
            attack.len(),
            if given { "given" } else { "made" }
        ),
    };
    if clean.left_out > 0 {
        origin.push_str(&format!(
            " ({} files unreadable or not larger than the target)",
            clean.left_out
        ));
    }
    Ok(origin)
}

/// Scores of known pictures.
struct Scored {
    scores: Vec<Vec<f64>>,
    /// Of attacks made of them: each hides the next one.
    forged: Vec<Vec<f64>>,
    left_out: usize,
}

fn known(
    detector: &Detector,
    asked: &TaskOptions,
    job: &Job,
    input: &str,
    forging: bool,
    context: &Context,
) -> Result<Scored> {
    let view = detector.view();
    let mut found = Scored {
        scores: Vec::new(),
        forged: Vec::new(),
        left_out: 0,
    };
    let mut first: Option<Picture> = None;
    let mut last: Option<Picture> = None;
    input::each(job, input, context, |entries| {
        context.step("setting thresholds", found.scores.len(), 0);
        let loaded: Vec<_> = entries.par_iter().map(|e| e.load(asked.alpha)).collect();
        let mut pictures: Vec<Picture> = last.take().into_iter().collect();
        let old = pictures.len();
        for picture in loaded {
            match picture {
                Ok((picture, _)) if view.applies(&picture) => pictures.push(picture),
                _ => found.left_out += 1,
            }
        }
        let scores: Vec<Vec<f64>> = (pictures[old..].par_iter())
            .map(|p| detector.scores(p))
            .collect::<Result<_>>()?;
        found.scores.extend(scores);
        if forging {
            if first.is_none() {
                first = pictures.first().cloned();
            }
            let pairs: Vec<_> = pictures.windows(2).collect();
            let more: Vec<Option<Vec<f64>>> = (pairs.into_par_iter())
                .map(|pair| forged(detector, &pair[0], &pair[1]))
                .collect::<Result<_>>()?;
            found.forged.extend(more.into_iter().flatten());
            last = pictures.pop();
        }
        Ok(())
    })?;
    if let (Some(last), Some(first)) = (&last, &first) {
        found.forged.extend(forged(detector, last, first)?);
    }
    Ok(found)
}

/// Scores of `source` with `hidden` in it; `None` where it shrinks in one direction alone.
fn forged(detector: &Detector, source: &Picture, hidden: &Picture) -> Result<Option<Vec<f64>>> {
    let view = detector.view();
    if source.height() <= view.target.0 || source.width() <= view.target.1 {
        return Ok(None);
    }
    let attack = forge(source, &hidden.scaled(view.target)?, view.scaler)?;
    detector.scores(&attack.picture).map(Some)
}

const ATTACK: &str = "attack";
const CLEAN: &str = "clean";
const NOT_APPLICABLE: &str = "not-applicable";
const UNREADABLE: &str = "unreadable";

/// A line of the report.
struct Line {
    name: String,
    size: Option<(usize, usize)>,
    /// Numbers of each test.
    readings: Vec<Vec<Option<f64>>>,
    votes: Vec<bool>,
    verdict: &'static str,
    notes: Vec<String>,
}

impl Line {
    /// # Errors
    /// The view of a picture cannot be written.
    fn of(
        entry: &Entry,
        detector: &Detector,
        asked: &TaskOptions,
        file: Option<PathBuf>,
    ) -> Result<Line> {
        let mut line = Line {
            name: entry.name.clone(),
            size: None,
            readings: Vec::new(),
            votes: Vec::new(),
            verdict: UNREADABLE,
            notes: Vec::new(),
        };
        let (picture, notes) = match entry.load(asked.alpha) {
            Ok(found) => found,
            Err(told) => {
                line.notes.push(told);
                return Ok(line);
            }
        };
        line.notes = notes;
        line.size = Some((picture.height(), picture.width()));
        let view = detector.view();
        if let Some(file) = file {
            write_whole(&file, &view.seen(&picture)?.png()?)?;
        }
        line.verdict = NOT_APPLICABLE;
        if !view.applies(&picture) {
            return Ok(line);
        }
        line.readings = (detector.parts().iter())
            .map(|p| p.test.readings(&picture, &view))
            .collect::<Result<_>>()?;
        let scores: Option<Vec<f64>> = (detector.parts().iter().zip(&line.readings))
            .map(|(part, readings)| part.test.decisive(readings))
            .collect();
        let Some(scores) = scores else {
            line.notes
                .push("too small for structural similarity".into());
            return Ok(line);
        };
        let (votes, attack) = detector.judge(&scores)?;
        line.verdict = if attack { ATTACK } else { CLEAN };
        let spectrum = |p: &Part| matches!(p.test, super::Test::Spectrum { .. });
        let accuses = (detector.parts().iter().zip(&votes)).any(|(p, v)| spectrum(p) && *v);
        if accuses && votes.iter().filter(|v| **v).count() == 1 {
            line.notes.push(
                "only the spectrum accuses: screenshots and fine regular patterns have several points as well"
                    .into(),
            );
        }
        line.votes = votes;
        Ok(line)
    }
}

fn table(lines: &[Line], detector: &Detector) -> Result<RecordBatch> {
    let texts = |of: &dyn Fn(&Line) -> Option<String>| -> ArrayRef {
        Arc::new(lines.iter().map(of).collect::<StringArray>())
    };
    let sizes = |of: &dyn Fn((usize, usize)) -> usize| -> ArrayRef {
        let cells = lines.iter().map(|l| l.size.map(|s| of(s) as u64));
        Arc::new(cells.collect::<UInt64Array>())
    };
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("file".into(), texts(&|l| Some(l.name.clone()))),
        ("width".into(), sizes(&|s| s.1)),
        ("height".into(), sizes(&|s| s.0)),
    ];
    for (p, part) in detector.parts().iter().enumerate() {
        for (r, reading) in part.test.reading_names().iter().enumerate() {
            let cells = lines
                .iter()
                .map(|l| l.readings.get(p).and_then(|readings| readings[r]));
            columns.push((
                format!("{}_{reading}", part.name),
                Arc::new(cells.collect::<Float64Array>()),
            ));
        }
    }
    for (p, part) in detector.parts().iter().enumerate() {
        let verdict = |l: &Line| {
            let vote = *l.votes.get(p)?;
            Some(if vote { ATTACK } else { CLEAN }.to_owned())
        };
        columns.push((format!("{}_verdict", part.name), texts(&verdict)));
    }
    let scaling = shown(detector.view());
    columns.push(("verdict".into(), texts(&|l| Some(l.verdict.into()))));
    columns.push(("scaling".into(), texts(&|_| Some(scaling.clone()))));
    columns.push((
        "notes".into(),
        texts(&|l| (!l.notes.is_empty()).then(|| l.notes.join("; "))),
    ));
    RecordBatch::try_from_iter(columns).map_err(|e| Error::Failed(e.to_string()))
}

/// Makes a folder beside the report, unless it is there.
pub(super) fn make_folder(folder: &Path) -> Result<()> {
    match std::fs::create_dir(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::file(folder, e)),
        _ => Ok(()),
    }
}

/// Names for pictures written as PNG, each given once.
#[derive(Default)]
pub(super) struct Names {
    given: HashSet<String>,
}

impl Names {
    /// A file name for the picture called `name`.
    pub fn of(&mut self, name: &str) -> String {
        let plain: String = name
            .chars()
            .map(|c| match c {
                c if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') => c,
                _ => '_',
            })
            .collect();
        let stem = plain.rsplit_once('.').map_or(plain.as_str(), |(s, _)| s);
        let stem = if stem.is_empty() { "picture" } else { stem };
        let mut found = format!("{stem}.png");
        let mut number = 2;
        // Some file systems take capitals for small letters.
        while !self.given.insert(found.to_lowercase()) {
            found = format!("{stem}-{number}.png");
            number += 1;
        }
        found
    }
}
