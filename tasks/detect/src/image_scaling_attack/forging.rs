//! Makes attacks of a user's pictures, to test a service with.

use super::TaskOptions;
use super::applied::{Names, make_folder, refuse_trial_options, shown, view};
use super::attack::{Forged, forge};
use super::input::{self, Collection};
use super::picture::Picture;
use arrow::array::{ArrayRef, BooleanArray, Float64Array, StringArray, UInt32Array};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::{Output, write_whole};
use papertrial_core::task::{Applied, Context, Job};
use papertrial_core::{Error, Result};
use rayon::prelude::*;
use std::path::Path;
use std::sync::Arc;

/// Hides a picture in each picture of the main input that is larger than the target in both directions: those of the
/// input `hidden` in turn, or else the next one.
///
/// `out`: a line an attack with its source, what it hides, its file, and how well it works. The attacks lie beside it in
/// `.attacks/`, as PNG: a format that loses some of the values would destroy them.
///
/// # Errors
/// Bad input or options, nothing that is large enough, or an output that cannot be written.
pub(super) fn run(
    asked: &TaskOptions,
    job: &Job,
    out: &Path,
    context: &Context,
) -> Result<Applied> {
    refuse_trial_options(asked)?;
    let mut output = Output::table(out)?;
    let view = view(asked)?;
    let all = Collection::read(asked.alpha, context, |each| {
        input::each(job, "data", context, each)
    })?;
    let mut notes = Vec::new();
    let skipped = all.unreadable;
    let all = all.pictures;
    let fits = |p: &Picture| p.height() > view.target.0 && p.width() > view.target.1;
    let sources: Vec<usize> = (0..all.len()).filter(|i| fits(&all[*i].1)).collect();
    if sources.is_empty() {
        return Err(Error::BadInput(format!(
            "none of {} pictures is larger than {}x{} in both directions, so nothing can be hidden; give a smaller target-size",
            all.len(),
            view.target.1,
            view.target.0
        )));
    }
    if sources.len() < all.len() {
        notes.push(format!(
            "{} pictures are not larger than the target in both directions and were left out",
            all.len() - sources.len()
        ));
    }
    let hidden = match job.inputs.contains_key("hidden") {
        true => Some(Collection::read(asked.alpha, context, |each| {
            input::each(job, "hidden", context, each)
        })?),
        false => None,
    };
    notes.extend(hidden.as_ref().and_then(Collection::note));
    if hidden.is_none() && all.len() < 2 {
        return Err(Error::BadInput(
            "there is one picture and nothing to hide in it; give some as --input hidden=FILE"
                .into(),
        ));
    }
    let partner = |i: usize| match &hidden {
        Some(hidden) => &hidden.pictures[i % hidden.pictures.len()],
        None => &all[(sources[i] + 1) % all.len()],
    };
    let folder = out.with_extension("attacks");
    make_folder(&folder)?;
    let mut names = Names::default();
    let files: Vec<String> = sources.iter().map(|s| names.of(&all[*s].0)).collect();
    let numbers: Vec<usize> = (0..sources.len()).collect();
    let mut made: Vec<Forged> = Vec::new();
    for some in numbers.chunks(16) {
        context.step("making attacks", made.len(), sources.len());
        let more: Vec<Forged> = (some.par_iter())
            .map(|i| {
                let hidden = partner(*i).1.scaled(view.target)?;
                let mut forged = forge(&all[sources[*i]].1, &hidden, view.scaler)?;
                write_whole(&folder.join(&files[*i]), &forged.picture.png()?)?;
                // What is written need not stay in memory.
                forged.picture = Picture::made(1, 1, 1, vec![0]);
                Ok(forged)
            })
            .collect::<Result<_>>()?;
        made.extend(more);
    }

    let texts = |of: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(
            numbers.iter().map(|i| of(*i)),
        ))
    };
    let scaling = shown(view);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("source", texts(&|i| all[sources[i]].0.clone())),
        ("hidden", texts(&|i| partner(i).0.clone())),
        ("file", texts(&|i| files[i].clone())),
        (
            "eps",
            Arc::new(UInt32Array::from_iter_values(made.iter().map(|m| m.eps))),
        ),
        (
            "mean_error",
            Arc::new(Float64Array::from_iter_values(made.iter().map(|m| m.error))),
        ),
        (
            "similarity",
            Arc::new(made.iter().map(|m| m.similarity).collect::<Float64Array>()),
        ),
        (
            "success",
            Arc::new(BooleanArray::from_iter(
                made.iter().map(|m| Some(m.success)),
            )),
        ),
        ("scaling", texts(&|_| scaling.clone())),
    ];
    let table = RecordBatch::try_from_iter(columns).map_err(|e| Error::Failed(e.to_string()))?;
    output.write(&[table])?;
    let successes = made.iter().filter(|m| m.success).count();
    let mut files = output.finish()?;
    files.push(folder);
    Ok(Applied {
        files,
        summary: vec![
            ("attacks".into(), made.len().to_string()),
            (
                "that come out as what they hide".into(),
                successes.to_string(),
            ),
            ("unreadable".into(), skipped.len().to_string()),
            ("scaling".into(), scaling),
        ],
        notes,
        skipped,
    })
}
