//! Comparisons: the methods of a task on one data set.

use crate::data::{Table, sets};
use crate::error::Result;
use crate::journal::Journal;
use crate::judge::Estimate;
use crate::options::Settings;
use crate::plan::{self, Contender, Source};
use crate::runner::{self, Event};
use crate::task::{Context, Curve, Family, Input, Job, MetricInfo, Task};
use serde::Serialize;
use std::collections::BTreeMap;

/// What `compare --json` gives.
#[derive(Debug, Clone, Serialize)]
pub struct Leaderboard {
    /// Task.
    pub task: String,
    /// The data.
    pub dataset: Described,
    /// The methods, the best first.
    pub rows: Vec<Row>,
    /// The metric by which they are ordered.
    #[serde(skip)]
    pub by: Option<MetricInfo>,
    /// The metric against which it is weighed; seconds of a job without one.
    #[serde(skip)]
    pub against: Option<MetricInfo>,
    /// Number of seeds.
    #[serde(skip)]
    pub seeds: u64,
    /// Options of each method, in the order of the rows.
    #[serde(skip)]
    pub options: Vec<Settings>,
    /// Curves of each method's first seed, in the order of the rows.
    #[serde(skip)]
    pub curves: Vec<Vec<Curve>>,
    /// Remarks, each once.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// The data of a leaderboard.
#[derive(Debug, Clone, Serialize)]
pub struct Described {
    /// File, data set or simulation.
    pub path: String,
    /// Rows; absent where the task reads no table.
    pub rows: Option<u64>,
    /// Columns; absent where the task reads no table.
    pub columns: Option<u64>,
    /// SHA-256; absent for a simulation.
    pub checksum: Option<String>,
}

/// One method of a leaderboard.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Method, with the options in which it differs from others of the same method.
    pub method: String,
    /// Mean and interval of each metric over the seeds.
    pub metrics: BTreeMap<String, Estimate>,
    /// Mean wall seconds of a job.
    pub seconds: f64,
    /// Mean CPU seconds of a job.
    pub cpu_seconds: f64,
    /// Largest memory of a job.
    pub peak_bytes: u64,
    /// Number of jobs that failed.
    pub failed: usize,
    /// Why the first of them failed.
    pub why: Option<String>,
    /// Whether its mean is the best.
    pub best: bool,
    /// Whether no other is at least as good and as cheap and one of both more so (the Pareto front).
    pub front: bool,
}

/// What is compared.
pub struct Comparison<'a> {
    /// The task's family.
    pub family: &'a Family,
    /// The task.
    pub task: &'static dyn Task,
    /// The methods with options of their own.
    pub contenders: Vec<Contender>,
    /// The data.
    pub source: Source,
    /// Options for the task and for every method that has them.
    pub options: Settings,
    /// Number of seeds.
    pub seeds: u64,
    /// Metric by which to order, if the user named one.
    pub by: Option<MetricInfo>,
    /// Metric against which to weigh it; seconds of a job without one.
    pub against: Option<MetricInfo>,
}

/// Runs every method with every seed and orders them by the metric.
///
/// # Errors
/// Options that fit nothing, data that cannot be opened, [`crate::Error::Interrupted`].
pub fn compare(
    comparison: &Comparison,
    settings: &runner::Settings,
    journal: &Journal,
    fresh: bool,
    tell: &(dyn Fn(Event) + Sync),
) -> Result<Leaderboard> {
    let Comparison {
        family,
        task,
        contenders,
        source,
        options,
        seeds,
        by,
        against,
    } = comparison;
    plan::check_shared(*task, contenders.iter().map(|c| &c.method), options)?;
    let mut jobs = Vec::new();
    for contender in contenders {
        for seed in 0..*seeds {
            let Contender { method, own, .. } = contender;
            let job = plan::job(*task, method, options, own, source, seed)?;
            // Seconds are part of every leaderboard, so no two jobs share the machine unless the user says so.
            jobs.push(plan::planned(family, job, settings.jobs <= 1));
        }
    }
    let dataset = describe(&jobs[0].job, family, *task)?;
    let ended = runner::run(&jobs, settings, journal, fresh, tell)?;
    let seeds_of = *seeds as usize;
    let mut rows = Vec::new();
    let mut notes: Vec<(String, Vec<&str>)> = Vec::new();
    for (m, contender) in contenders.iter().enumerate() {
        let mine = &ended[m * seeds_of..(m + 1) * seeds_of];
        let n = mine.len() as f64;
        let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for measurement in mine.iter().filter_map(|(o, _)| o.measurement.as_ref()) {
            for (name, value) in &measurement.metrics {
                values.entry(name.clone()).or_default().push(*value);
            }
            for note in &measurement.notes {
                let place = notes.iter().position(|(n, _)| n == note);
                let place = place.unwrap_or_else(|| {
                    notes.push((note.clone(), Vec::new()));
                    notes.len() - 1
                });
                let by = &mut notes[place].1;
                if by.last() != Some(&contender.name.as_str()) {
                    by.push(&contender.name);
                }
            }
        }
        let row = Row {
            method: contender.name.clone(),
            metrics: values
                .into_iter()
                .filter_map(|(name, v)| Estimate::of(&v).map(|e| (name, e)))
                .collect(),
            seconds: mine.iter().map(|(o, _)| o.seconds).sum::<f64>() / n,
            cpu_seconds: mine.iter().map(|(o, _)| o.cpu_seconds).sum::<f64>() / n,
            peak_bytes: mine.iter().map(|(o, _)| o.peak_bytes).max().unwrap_or(0),
            failed: mine.iter().filter(|(o, _)| o.measurement.is_none()).count(),
            why: mine.iter().find_map(|(o, _)| o.failure.clone()),
            best: false,
            front: false,
        };
        let curves = mine
            .iter()
            .find_map(|(o, _)| o.measurement.as_ref().map(|m| m.curves.clone()))
            .unwrap_or_default();
        rows.push((row, jobs[m * seeds_of].job.options.clone(), curves));
    }
    let by = by.or_else(|| {
        task.metrics()
            .iter()
            .find(|m| {
                m.higher_is_better.is_some()
                    && rows.iter().any(|r| r.0.metrics.contains_key(m.name))
            })
            .copied()
    });
    if let Some(by) = by {
        let key = |row: &Row| {
            row.metrics.get(by.name).map_or(f64::NEG_INFINITY, |e| {
                if by.higher_is_better == Some(false) {
                    -e.mean
                } else {
                    e.mean
                }
            })
        };
        rows.sort_by(|a, b| key(&b.0).total_cmp(&key(&a.0)));
        if let Some(top) = rows.first().map(|r| key(&r.0)).filter(|k| k.is_finite()) {
            for row in &mut rows {
                row.0.best = key(&row.0) == top;
            }
        }
        let places: Vec<(f64, f64)> = rows
            .iter()
            .map(|(row, ..)| (key(row), cost(row, *against)))
            .collect();
        for (row, front) in rows.iter_mut().zip(front(&places)) {
            row.0.front = front;
        }
    }
    let mut board = Leaderboard {
        task: task.name().into(),
        dataset,
        rows: Vec::new(),
        by,
        against: *against,
        seeds: *seeds,
        options: Vec::new(),
        curves: Vec::new(),
        // What every method remarks is about the data.
        notes: notes
            .into_iter()
            .map(|(note, by)| {
                if by.len() == contenders.len() {
                    note
                } else {
                    format!("{}: {note}", by.join(", "))
                }
            })
            .collect(),
    };
    for (row, options, curves) in rows {
        board.rows.push(row);
        board.options.push(options);
        board.curves.push(curves);
    }
    Ok(board)
}

/// What a row costs: less is better. Infinite where it was not measured.
pub(crate) fn cost(row: &Row, against: Option<MetricInfo>) -> f64 {
    match against {
        None => row.seconds,
        Some(metric) => row.metrics.get(metric.name).map_or(f64::INFINITY, |e| {
            if metric.higher_is_better == Some(true) {
                -e.mean
            } else {
                e.mean
            }
        }),
    }
}

/// Which of the points (quality, cost) no other dominates: none is at least as good and as cheap and one of both more
/// so. A point without both is on no front.
fn front(points: &[(f64, f64)]) -> Vec<bool> {
    let finite = |p: &(f64, f64)| p.0.is_finite() && p.1.is_finite();
    points
        .iter()
        .map(|p| {
            finite(p)
                && !points
                    .iter()
                    .any(|q| finite(q) && q.0 >= p.0 && q.1 <= p.1 && q != p)
        })
        .collect()
}

fn describe(job: &Job, family: &Family, task: &dyn Task) -> Result<Described> {
    let Some(input) = job.inputs.get("data") else {
        return Err(crate::Error::BadInput("no data were named".into()));
    };
    let context = Context {
        simulations: family.simulations,
        ..Context::with_seed(job.seed)
    };
    let (table, checksum) = match input {
        Input::File { path, checksum, .. } if task.opens(path) => {
            return Ok(Described {
                path: input.shown(),
                rows: None,
                columns: None,
                checksum: Some(checksum.clone()).filter(|sum| !sum.is_empty()),
            });
        }
        Input::File {
            path,
            read,
            checksum,
        } => (Table::open(path, read)?, Some(checksum.clone())),
        Input::Set { name, checksum } => (sets::open(name)?, Some(checksum.clone())),
        Input::Simulation { .. } => (job.table("data", &context)?, None),
    };
    // A slip in a column's name is told once, not by every job.
    job.roles.check(&table)?;
    Ok(Described {
        path: input.shown(),
        rows: Some(table.rows()),
        columns: Some(table.columns().len() as u64),
        checksum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_front_of_five_points() {
        // Better and dearer stay; equal ones both stay; the dominated and the unmeasured do not.
        let points = [
            (0.9, 5.0),
            (0.8, 1.0),
            (0.8, 1.0),
            (0.8, 2.0),
            (0.95, f64::INFINITY),
        ];
        assert_eq!(front(&points), [true, true, true, false, false]);
        assert!(front(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn every_point_is_on_the_front_or_dominated_by_one_on_it(
            points in prop::collection::vec((0u8..6, 0u8..6), 1..12)
        ) {
            let points: Vec<(f64, f64)> =
                points.into_iter().map(|(q, c)| (q.into(), c.into())).collect();
            let on = front(&points);
            let chosen: Vec<_> = points.iter().zip(&on).filter(|p| *p.1).map(|p| p.0).collect();
            for (p, on) in points.iter().zip(&on) {
                let beaten = chosen.iter().any(|q| q.0 >= p.0 && q.1 <= p.1 && *q != p);
                prop_assert_eq!(*on, !beaten);
            }
        }
    }
}
