//! What `run` writes: the chosen rows, as they were, with a weight; and a report beside them.

use super::baselines::FullData;
use super::input::{Data, Scaling, problem, spread};
use super::{Chooser, TaskOptions, effective_rows};
use crate::weighted;
use papertrial_core::data::Output;
use papertrial_core::task::{Applied, Context, Job};
use papertrial_core::{Error, Result};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

/// The side file.
#[derive(Serialize)]
struct Report<'a> {
    method: &'a str,
    problem: &'a str,
    rows: usize,
    size_asked: usize,
    rows_chosen: usize,
    weight_sum: f64,
    effective_rows: f64,
    /// Wall seconds of the construction with all its fits.
    seconds: f64,
    full_fit_seconds: f64,
    /// Loss of all rows under the model of all rows.
    full_loss: f64,
    /// Loss of all rows under the model of the coreset.
    coreset_loss: f64,
    /// Their ratio less 1; absent where the full loss is 0.
    relative_gap: Option<f64>,
    fits: Vec<Fit>,
    notes: &'a [String],
}

/// A fit on the way.
#[derive(Serialize)]
struct Fit {
    loss: f64,
    relative_gap: Option<f64>,
}

/// Chooses rows of the job's table and writes them.
///
/// # Errors
/// Bad input, a fit that fails, a column that is called like the weights', or an output that cannot be written.
pub(super) fn write(
    method: &dyn Chooser,
    asked: &TaskOptions,
    job: &Job,
    out: &Path,
    context: &Context,
) -> Result<Applied> {
    let mut output = Output::table(out)?;
    let table = job.table("data", context)?;
    weighted::check(&table)?;
    let mut data = Data::of(&table, &job.roles, asked, context)?;
    if asked.standardise {
        Scaling::of(&data.x).apply(&mut data.x);
    }
    let n = data.x.nrows();
    let unit = spread(&data.target);
    let problem = problem(data, asked, unit, true, context.seed)?;

    let start = Instant::now();
    let found = method.choose(&*problem, asked.size, context)?;
    let seconds = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let full_loss = FullData {}.choose(&*problem, n, context)?.loss;
    let full_fit_seconds = start.elapsed().as_secs_f64();

    let chosen: Vec<(usize, f64)> = found
        .rows
        .iter()
        .copied()
        .zip(found.weights.iter().copied())
        .collect();
    output.write(&weighted::rows(&table, &chosen)?)?;
    let gap = |loss: f64| (full_loss > 0.0).then(|| loss / full_loss - 1.0);
    let weight_sum = found.weights.iter().sum();
    let report = Report {
        method: &job.method,
        problem: asked.problem.name(),
        rows: n,
        size_asked: asked.size,
        rows_chosen: found.rows.len(),
        weight_sum,
        effective_rows: effective_rows(&found.weights),
        seconds,
        full_fit_seconds,
        full_loss,
        coreset_loss: found.loss,
        relative_gap: gap(found.loss),
        fits: found
            .sums
            .iter()
            .map(|loss| Fit {
                loss: *loss,
                relative_gap: gap(*loss),
            })
            .collect(),
        notes: &found.notes,
    };
    let text = serde_json::to_vec_pretty(&report).map_err(|e| Error::Failed(e.to_string()))?;
    output.side("report.json", &text)?;
    let mut summary = vec![
        ("rows".to_owned(), n.to_string()),
        ("rows chosen".into(), found.rows.len().to_string()),
        ("sum of weights".into(), format!("{weight_sum:.1}")),
        (
            "rows that as many equal weights would need".into(),
            format!("{:.1}", effective_rows(&found.weights)),
        ),
        (
            "fits on the way, with passes over all rows".into(),
            found.sums.len().to_string(),
        ),
        ("seconds".into(), format!("{seconds:.2}")),
    ];
    if let Some(gap) = gap(found.loss) {
        summary.push((
            "loss of all rows above that of the full fit".into(),
            format!("{:.2} %", 100.0 * gap),
        ));
    }
    Ok(Applied {
        files: output.finish()?,
        summary,
        notes: found.notes,
        ..Applied::default()
    })
}
