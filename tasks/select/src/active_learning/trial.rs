//! A trial: simulated annotators answer until the budget is spent; the classifier is judged on rows held out.

use super::log::{Answer, Query, Reply};
use super::pool::Pool;
use super::simulator::Crowd;
use super::state::{Setting, State, first_questions, predictions};
use super::strategy::{Strategy, batch, reliabilities};
use ndarray::Array2;
use papertrial_core::task::{Context, Curve, Measurement};
use papertrial_core::{Error, Result};
use papertrial_numerics::metrics::classification::{accuracy, balanced_accuracy, confusion};
use std::collections::BTreeMap;
use std::time::Instant;

/// Rows that no strategy sees.
pub struct HeldOut {
    /// Features, scaled as the pool's \[m, d\].
    pub x: Array2<f64>,
    /// The class of each, m of them.
    pub truth: Vec<i32>,
    /// Factor on the cost of a mistake in each, m of them.
    pub row_costs: Vec<f64>,
}

/// The money that was spent after the first rows.
fn spent(log: &[Answer]) -> f64 {
    log.iter().filter(|a| a.step > 0).map(|a| a.fee).sum()
}

/// The classifier's predictions of the rows held out.
fn predict(state: &State, held: &HeldOut) -> Vec<i32> {
    predictions(&state.model.probabilities(held.x.view()), &state.pool.costs)
        .into_iter()
        .map(|class| class as i32)
        .collect()
}

fn failed(e: impl std::fmt::Display) -> Error {
    Error::Failed(e.to_string())
}

/// What a trial runs on.
pub struct Trial<'a> {
    /// The pool.
    pub pool: &'a Pool,
    /// The class of each of its rows.
    pub truth: &'a [usize],
    /// Who answers.
    pub crowd: &'a Crowd<'a>,
    /// On what the classifier is judged.
    pub held: &'a HeldOut,
    /// What stays the same.
    pub setting: &'a Setting,
    /// Rows that are asked about in a turn.
    pub questions: usize,
}

/// Runs the cycle and measures it.
///
/// # Errors
/// The first rows get no label; a strategy fails.
pub fn run(strategy: &dyn Strategy, trial: &Trial, context: &Context) -> Result<Measurement> {
    let Trial {
        pool,
        truth,
        crowd,
        held,
        setting,
        questions,
    } = *trial;
    let start = Instant::now();
    let mut log = Vec::new();
    for question in first_questions(pool, setting)? {
        log.push(crowd.answer(&question, 0, &log));
    }
    let mut points = Vec::new();
    let mut step = 0;
    let (predicted, stopped) = loop {
        let mut state = State::new(pool, &log, setting)?;
        let predicted = predict(&state, held);
        let table = confusion(&held.truth, &predicted).map_err(failed)?;
        points.push((setting.budget - state.left, accuracy(&table)));
        let (asked, stopped) = batch(strategy, &mut state, questions)?;
        if asked.is_empty() {
            break (predicted, stopped);
        }
        step += 1;
        for question in asked {
            log.push(crowd.answer(&question, step, &log));
        }
        let money = spent(&log);
        context.step(
            "money",
            money.min(setting.budget) as usize,
            setting.budget as usize,
        );
    };
    let seconds = start.elapsed().as_secs_f64();

    let state = State::new(pool, &log, setting)?;
    let table = confusion(&held.truth, &predicted).map_err(failed)?;
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: f64| metrics.insert(name.to_owned(), value);
    put("accuracy", accuracy(&table));
    put("balanced-accuracy", balanced_accuracy(&table));
    put("accuracy-per-cost", area(&points, setting.budget));
    let cost: f64 = predicted
        .iter()
        .zip(&held.truth)
        .zip(&held.row_costs)
        .map(|((&j, &y), factor)| pool.costs[[y as usize, j as usize]] * factor)
        .sum();
    put("mistake-cost", cost / held.truth.len() as f64);
    let labelled: Vec<(usize, usize)> = state
        .labels
        .iter()
        .enumerate()
        .filter_map(|(row, label)| label.map(|l| (row, l)))
        .collect();
    let right = labelled.iter().filter(|(row, l)| truth[*row] == *l).count();
    put("label-accuracy", right as f64 / labelled.len() as f64);
    put("labelled-rows", labelled.len() as f64);
    put("reliability-error", reliability_error(&state, truth));
    put("spent", spent(&log));
    put("answers", log.iter().filter(|a| a.step > 0).count() as f64);
    let replies = |kind: &Reply| {
        log.iter()
            .filter(|a| a.step > 0 && a.reply == *kind)
            .count()
    };
    put("refused", replies(&Reply::Refused) as f64);
    put("unsure", replies(&Reply::Unsure) as f64);
    put("answers-per-second", log.len() as f64 / seconds);

    let mut notes = vec![format!("the strategy: {}", strategy.axes().shown())];
    notes.extend(stopped.map(|why| format!("ended: {why}")));
    Ok(Measurement {
        metrics,
        curves: vec![Curve {
            name: "accuracy for money".into(),
            x: "money spent".into(),
            y: "accuracy on rows held out".into(),
            points,
        }],
        notes,
    })
}

/// Area under accuracy against money, over the budget; an accuracy holds until the next.
fn area(points: &[(f64, f64)], budget: f64) -> f64 {
    let mut sum = 0.0;
    for (i, (from, accuracy)) in points.iter().enumerate() {
        let to = points.get(i + 1).map_or(budget, |p| p.0).min(budget);
        sum += accuracy * (to - from.min(budget)).max(0.0);
    }
    sum / budget
}

/// Mean absolute difference of each annotator's agreement with the labels and his share of right answers.
fn reliability_error(state: &State, truth: &[usize]) -> f64 {
    let believed = reliabilities(state);
    let people = believed.len();
    let (mut right, mut all) = (vec![0.0; people], vec![0.0; people]);
    for answer in state.log {
        if let (Query::Row(row), Reply::Class { class, .. }) = (&answer.query, &answer.reply) {
            all[answer.annotator] += 1.0;
            right[answer.annotator] += f64::from(u8::from(truth[*row] == *class));
        }
    }
    let heard: Vec<usize> = (0..people).filter(|&a| all[a] > 0.0).collect();
    heard
        .iter()
        .map(|&a| (believed[a] - right[a] / all[a]).abs())
        .sum::<f64>()
        / heard.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn area_by_hand() {
        // 0.5 for 2, 0.75 for 4, 1 for the last 4 of 10.
        let points = [(0.0, 0.5), (2.0, 0.75), (6.0, 1.0)];
        assert!((area(&points, 10.0) - 0.8).abs() < 1e-12);
        assert!((area(&[(0.0, 0.6)], 7.0) - 0.6).abs() < 1e-12);
        // Money beyond the budget counts for nothing.
        assert!((area(&[(0.0, 0.5), (12.0, 1.0)], 10.0) - 0.5).abs() < 1e-12);
    }
}
