//! Filters a user's pool and writes what is kept.

use super::filter::{PairFilter, Sets, Trained};
use super::input::{self, Loaded};
use super::keep::{histogram, ranks};
use super::subset::subset_file;
use super::{Agreement, TaskOptions, choose};
use arrow::array::{ArrayRef, BooleanArray, Float32Array, StringArray, UInt64Array};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::Output;
use papertrial_core::options;
use papertrial_core::task::{Applied, Context, Job};
use papertrial_core::{Error, Result};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// Rows of a written batch.
const BATCH: usize = 65_536;

/// Trains the job's filter and scores the whole pool, which is read twice and never held at once; then writes.
///
/// `out`: uid, score and rank of the kept pairs, in the order of the pool, or of all pairs with a column `kept`. Beside
/// it: the filter's weights, where it has towers (`.filter.safetensors`), a report (`.report.json`), and on demand the
/// subset as DataComp's tools read it (`.subset.npy`).
///
/// In memory: of the pool at most `pool-sample` pairs to learn from, one chunk, and each pair's uid and score.
///
/// # Errors
/// Bad input or options, a training that failed, or an output that cannot be written.
pub(super) fn run(
    filter: &dyn PairFilter,
    asked: &TaskOptions,
    job: &Job,
    out: &Path,
    context: &Context,
) -> Result<Applied> {
    let output = Output::table(out)?;
    let mut loaded =
        input::load(job, asked, Some(asked.pool_sample), context)?.without_duplicates(asked)?;
    // What is wrong with the wish is told before the work, not after it, as far as the part that was read can tell.
    if loaded.pool.len() < asked.pool_sample {
        options::budget(asked.budget, loaded.pool.len())?;
    }
    if asked.datacomp_subset {
        subset_file(loaded.pool.uids.iter().map(String::as_str))?;
    }
    let sets = Sets {
        pool: &loaded.pool,
        clean: loaded.clean.as_ref(),
        fine_tune: loaded.fine_tune.as_ref(),
        seed: job.seed,
    };
    let trained = filter.train(&sets, context)?;
    let mut uids = Vec::new();
    let mut scores = Vec::new();
    let mut known = Some(Vec::new());
    input::whole_pool(job, asked, &mut loaded, context, |pairs| {
        scores.extend(trained.scorer.score(&pairs, context)?);
        match (&mut known, &pairs.matches) {
            (Some(known), Some(more)) => known.extend(more),
            _ => known = None,
        }
        uids.extend(pairs.uids);
        Ok(())
    })?;
    let kept = choose(trained.keep, &scores, &uids, asked.budget)?;
    let scored = Scored {
        uids: &uids,
        scores: &scores,
        known: known.as_deref(),
        kept: &kept,
    };
    write(output, out, &loaded, &trained, &scored, asked)
}

/// The pool with its scores.
struct Scored<'a> {
    uids: &'a [String],
    scores: &'a [f32],
    known: Option<&'a [bool]>,
    kept: &'a [usize],
}

fn write(
    mut output: Output,
    out: &Path,
    loaded: &Loaded,
    trained: &Trained,
    scored: &Scored,
    asked: &TaskOptions,
) -> Result<Applied> {
    let Scored {
        uids,
        scores,
        known,
        kept,
    } = *scored;
    let n = uids.len();
    let mut is_kept = vec![false; n];
    kept.iter().for_each(|r| is_kept[*r] = true);
    let rows: Vec<usize> = if asked.all_scores {
        (0..n).collect()
    } else {
        kept.to_vec()
    };
    let ranks = ranks(scores, uids, &rows);
    let failed = |e: arrow::error::ArrowError| Error::Failed(e.to_string());
    let batch = |rows: &[usize], ranks: &[u64]| {
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            (
                "uid",
                Arc::new(StringArray::from_iter_values(
                    rows.iter().map(|r| &uids[*r]),
                )),
            ),
            (
                "score",
                Arc::new(Float32Array::from_iter_values(
                    rows.iter().map(|r| scores[*r]),
                )),
            ),
            ("rank", Arc::new(UInt64Array::from(ranks.to_vec()))),
        ];
        if asked.all_scores {
            let kept: Vec<bool> = rows.iter().map(|r| is_kept[*r]).collect();
            columns.push(("kept", Arc::new(BooleanArray::from(kept))));
        }
        RecordBatch::try_from_iter(columns).map_err(failed)
    };
    let batches = rows
        .chunks(BATCH)
        .zip(ranks.chunks(BATCH))
        .map(|(rows, ranks)| batch(rows, ranks))
        .collect::<Result<Vec<RecordBatch>>>()?;
    output.write(&batches)?;
    if asked.datacomp_subset {
        output.side(
            "subset.npy",
            &subset_file(kept.iter().map(|r| uids[*r].as_str()))?,
        )?;
    }
    if let Some(net) = trained.scorer.net() {
        // The weights are written to a file of their own first, which is all that their writer can do.
        let path = out.with_extension(format!("{}.part", std::process::id()));
        net.save(&path)?;
        let content = std::fs::read(&path).map_err(|e| Error::file(&path, e));
        std::fs::remove_file(&path).map_err(|e| Error::file(&path, e))?;
        output.side("filter.safetensors", &content?)?;
    }
    let threshold = kept
        .iter()
        .map(|r| scores[*r])
        .fold(f32::INFINITY, f32::min);
    let agreement = known.map(|known| Agreement::of(known, scores, kept));
    let report = json!({
        "pairs": n,
        "kept": kept.len(),
        "kept-share": kept.len() as f64 / n as f64,
        "least-kept-score": threshold,
        "histogram": histogram(scores, 50),
        "agreement": agreement.as_ref().map(|a| json!({
            "kept-precision": a.precision, "kept-recall": a.recall, "score-auc": a.auc,
        })),
        "left-out": loaded.bad,
        "repeats": loaded.repeats,
        "near-duplicates-of-test": loaded.test.as_ref().map(|_| loaded.near),
        "losses": trained.curves,
        "notes": trained.notes,
    });
    let report = serde_json::to_string_pretty(&report).map_err(|e| Error::Failed(e.to_string()))?;
    output.side("report.json", report.as_bytes())?;
    let mut summary = vec![
        ("pairs".to_owned(), n.to_string()),
        ("kept".to_owned(), kept.len().to_string()),
        ("least kept score".to_owned(), format!("{threshold:.4}")),
    ];
    if let Some(a) = agreement {
        summary.push((
            "known to be right among the kept".to_owned(),
            format!("{:.1} %", 100.0 * a.precision),
        ));
    }
    Ok(Applied {
        files: output.finish()?,
        summary,
        notes: loaded
            .notes()
            .into_iter()
            .chain(trained.notes.iter().cloned())
            .collect(),
        ..Applied::default()
    })
}
