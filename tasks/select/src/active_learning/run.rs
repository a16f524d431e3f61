//! What `run` reads and writes: the log of answers, the next questions.
//!
//! Without a log the questions are those of step 0: everybody about the first rows. They are answered in the column
//! `answer`, and the file, or several of them one below the other, is the log of the next run. A line without an answer was
//! not answered yet. If answers of the last step are missing, the questions of that step are found again from the answers
//! before it and those that are missing are written; so it does not matter where a run was interrupted.
//!
//! Columns of both, of which the log needs the first three: `row`, `annotator`, `answer`, then `with` (the other row of a
//! pair), `region`, `step`, `score`, `fee`, and, in the log only, `seconds` and `confidence`. An answer is a class,
//! `unsure`, `refused`, `same` or `different` for a pair, and `class=share;class=share` for a region.

use super::TaskOptions;
use super::input::{self, RowNames};
use super::log::{Answer, Bound, Query, Question, Reply, check};
use super::performance::interval;
use super::pool::Pool;
use super::state::{Setting, State, first_questions};
use super::strategy::{Strategy, batch};
use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::{Output, Table};
use papertrial_core::task::{Applied, Context, Job};
use papertrial_core::{Error, Result};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// A log as text, not yet checked against a pool.
pub struct Lines {
    table: Table,
    row: Vec<Option<String>>,
    annotator: Vec<Option<String>>,
    answer: Vec<Option<String>>,
    with: Option<Vec<Option<String>>>,
    region: Option<Vec<Option<String>>>,
    step: Option<Vec<Option<String>>>,
    fee: Option<Vec<Option<String>>>,
    seconds: Option<Vec<Option<String>>>,
    confidence: Option<Vec<Option<String>>>,
}

impl Lines {
    /// Reads the input `answers`, if there is one.
    ///
    /// # Errors
    /// It cannot be read, or lacks one of the columns `row`, `annotator`, `answer`.
    pub fn of(job: &Job, context: &Context) -> Result<Option<Lines>> {
        if !job.inputs.contains_key("answers") {
            return Ok(None);
        }
        let table = job.table("answers", context)?;
        let read = |name: &str| -> Result<Option<Vec<Option<String>>>> {
            match table.columns().iter().position(|c| *c == name) {
                None => Ok(None),
                Some(index) => table.texts(index).map(Some),
            }
        };
        let needed = |name: &str| -> Result<Vec<Option<String>>> {
            read(name)?.ok_or_else(|| {
                Error::column(
                    table.name(),
                    name,
                    "is missing; a log of answers has the columns row, annotator and answer",
                )
            })
        };
        Ok(Some(Lines {
            row: needed("row")?,
            annotator: needed("annotator")?,
            answer: needed("answer")?,
            with: read("with")?,
            region: read("region")?,
            step: read("step")?,
            fee: read("fee")?,
            seconds: read("seconds")?,
            confidence: read("confidence")?,
            table,
        }))
    }

    /// The annotators named, in the order of their first line.
    pub fn annotators(&self) -> Vec<String> {
        let mut seen = std::collections::HashSet::new();
        self.annotator
            .iter()
            .flatten()
            .filter(|a| seen.insert((*a).clone()))
            .cloned()
            .collect()
    }

    /// The classes that answers about rows name.
    pub fn classes(&self) -> Vec<String> {
        let of_row = |i: usize| {
            let empty = |column: &Option<Vec<Option<String>>>| {
                column.as_ref().is_none_or(|c| c[i].is_none())
            };
            empty(&self.with) && empty(&self.region)
        };
        let mut found: Vec<String> = self
            .answer
            .iter()
            .enumerate()
            .filter(|(i, _)| of_row(*i))
            .filter_map(|(_, a)| a.clone())
            .filter(|a| a != "unsure" && a != "refused")
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The answers; lines without one are left out. The second part tells whether steps are numbered.
    ///
    /// # Errors
    /// A row, annotator, class or column that is not known; a text that is no number where one is needed.
    pub fn answers(&self, pool: &Pool, names: &RowNames) -> Result<(Vec<Answer>, bool)> {
        let people: HashMap<&str, usize> = pool
            .annotators
            .iter()
            .map(|a| a.name.as_str())
            .zip(0..)
            .collect();
        let classes: HashMap<&str, usize> =
            pool.classes.iter().map(String::as_str).zip(0..).collect();
        let mut found = Vec::new();
        for (i, text) in self.answer.iter().enumerate() {
            let Some(text) = text else { continue };
            let wrong = |column: &str, problem: String| {
                Error::column(
                    self.table.name(),
                    column,
                    format!("line {} {problem}", i + 1),
                )
            };
            let cell = |column: &Option<Vec<Option<String>>>| -> Option<String> {
                column.as_ref().and_then(|c| c[i].clone())
            };
            let number =
                |name: &str, column: &Option<Vec<Option<String>>>| -> Result<Option<f64>> {
                    cell(column)
                        .map(|text| {
                            text.parse::<f64>()
                                .ok()
                                .filter(|v| v.is_finite())
                                .ok_or_else(|| {
                                    wrong(name, format!("holds '{text}', which is no number"))
                                })
                        })
                        .transpose()
                };
            let row = |column: &str, text: &str| {
                names.find(text).ok_or_else(|| {
                    wrong(
                        column,
                        format!("names the row '{text}', which the data do not have"),
                    )
                })
            };
            let who = self.annotator[i]
                .as_deref()
                .ok_or_else(|| wrong("annotator", "is empty; name who answered".into()))?;
            let annotator = *people.get(who).ok_or_else(|| {
                wrong(
                    "annotator",
                    format!("names '{who}', who is none of the annotators {}", {
                        let all: Vec<&str> =
                            pool.annotators.iter().map(|a| a.name.as_str()).collect();
                        all.join(", ")
                    }),
                )
            })?;
            let query = match (cell(&self.region), cell(&self.with), &self.row[i]) {
                (Some(region), ..) => Query::Region(
                    read_region(&region, pool).map_err(|problem| wrong("region", problem))?,
                ),
                (None, Some(with), Some(first)) => {
                    Query::Pair(row("row", first)?, row("with", &with)?)
                }
                (None, None, Some(first)) => Query::Row(row("row", first)?),
                (None, _, None) => return Err(wrong("row", "names no row".into())),
            };
            let class = |text: &str| {
                classes.get(text).copied().ok_or_else(|| {
                    wrong(
                        "answer",
                        format!(
                            "holds '{text}', which is none of the classes {}; name all of them with classes=[…]",
                            pool.classes.join(", ")
                        ),
                    )
                })
            };
            let reply = match (&query, text.as_str()) {
                (Query::Row(_), text) if classes.contains_key(text) => Reply::Class {
                    class: class(text)?,
                    confidence: number("confidence", &self.confidence)?.unwrap_or(1.0),
                },
                (_, "unsure") => Reply::Unsure,
                (_, "refused") => Reply::Refused,
                (Query::Row(_), text) => Reply::Class {
                    class: class(text)?,
                    confidence: 1.0,
                },
                (Query::Pair(..), "same") => Reply::Same(true),
                (Query::Pair(..), "different") => Reply::Same(false),
                (Query::Pair(..), text) => {
                    return Err(wrong(
                        "answer",
                        format!("holds '{text}'; a pair is same, different, unsure or refused"),
                    ));
                }
                (Query::Region(_), text) => {
                    let mut shares = vec![0.0; pool.classes.len()];
                    for part in text.split(';') {
                        let share = part.rsplit_once('=').and_then(|(name, share)| {
                            Some((name.trim(), share.trim().parse::<f64>().ok()?))
                        });
                        let Some((name, share)) = share else {
                            return Err(wrong(
                                "answer",
                                format!("holds '{text}'; a region is answered by shares: {}", {
                                    let all: Vec<String> =
                                        pool.classes.iter().map(|c| format!("{c}=…")).collect();
                                    all.join(";")
                                }),
                            ));
                        };
                        shares[class(name)?] += share;
                    }
                    Reply::Shares(shares)
                }
            };
            let step = match number("step", &self.step)? {
                Some(step) if step >= 0.0 && step.fract() == 0.0 => step as usize,
                Some(step) => {
                    return Err(wrong("step", format!("holds {step}, which is no count")));
                }
                // Without numbers every answer is one that the budget has paid for.
                None => 1,
            };
            let usual = match (&reply, &query) {
                (Reply::Refused, _) => 0.0,
                (_, Query::Region(_)) => pool.annotators[annotator].fee,
                (_, query) => query
                    .rows()
                    .next()
                    .map_or(0.0, |row| pool.fee(row, annotator)),
            };
            found.push(Answer {
                step,
                query,
                annotator,
                fee: match reply {
                    Reply::Refused => 0.0,
                    _ => number("fee", &self.fee)?.unwrap_or(usual),
                },
                seconds: number("seconds", &self.seconds)?,
                reply,
            });
        }
        Ok((found, self.step.is_some()))
    }
}

/// A region as `column in [low, high]; ..`.
fn show_region(bounds: &[Bound], pool: &Pool) -> String {
    let parts: Vec<String> = bounds
        .iter()
        .map(|b| format!("{} in [{}, {}]", pool.columns[b.column], b.low, b.high))
        .collect();
    parts.join("; ")
}

/// The opposite of [`show_region`]; the error tells what is wrong with the text.
fn read_region(text: &str, pool: &Pool) -> std::result::Result<Vec<Bound>, String> {
    text.split("; ")
        .map(|part| {
            let wrong =
                || format!("holds '{part}', which is not of the form column in [low, high]");
            let (name, interval) = part.rsplit_once(" in [").ok_or_else(wrong)?;
            let column =
                pool.columns.iter().position(|c| c == name).ok_or_else(|| {
                    format!("names the column '{name}', which the data do not have")
                })?;
            let (low, high) = interval
                .strip_suffix(']')
                .and_then(|i| i.split_once(", "))
                .ok_or_else(wrong)?;
            let number = |text: &str| text.parse::<f64>().ok().filter(|v| v.is_finite());
            Ok(Bound {
                column,
                low: number(low).ok_or_else(wrong)?,
                high: number(high).ok_or_else(wrong)?,
            })
        })
        .collect()
}

/// The questions to ask now.
pub struct Next {
    /// The questions, of which none is in the log.
    pub questions: Vec<Question>,
    /// Their step.
    pub step: usize,
    /// Why there are no more, where that is so.
    pub stopped: Option<&'static str>,
    /// Whether the answers of the last step are to other questions than this strategy asks.
    pub foreign: bool,
}

/// The next questions after a log: what is missing of its last step, else those of a new one. `numbered` tells whether the
/// log's steps mean anything.
///
/// # Errors
/// The log does not fit the pool, or holds no label; the strategy fails.
pub fn next(
    strategy: &dyn Strategy,
    pool: &Pool,
    log: &[Answer],
    numbered: bool,
    setting: &Setting,
    questions: usize,
) -> Result<Next> {
    check(log, pool, setting.repeats)?;
    let last = log.iter().map(|a| a.step).max().unwrap_or(0);
    let mut foreign = false;
    if log.is_empty() || numbered {
        let before: Vec<Answer> = log.iter().filter(|a| a.step < last).cloned().collect();
        // The answers before the last step may hold no label, in a log of somebody else's.
        let asked = if last == 0 {
            Some(first_questions(pool, setting)?)
        } else {
            match State::new(pool, &before, setting) {
                Ok(mut state) => Some(batch(strategy, &mut state, questions)?.0),
                Err(_) => None,
            }
        };
        let given: Vec<&Answer> = log.iter().filter(|a| a.step == last).collect();
        let answers = |q: &Question, a: &Answer| a.annotator == q.annotator && a.query == q.query;
        if let Some(asked) = asked {
            foreign = given.iter().any(|a| !asked.iter().any(|q| answers(q, a)));
            let missing: Vec<Question> = asked
                .into_iter()
                .filter(|q| !given.iter().any(|a| answers(q, a)))
                .collect();
            if !foreign && !missing.is_empty() {
                return Ok(Next {
                    questions: missing,
                    step: last,
                    stopped: None,
                    foreign,
                });
            }
        }
    }
    let mut state = State::new(pool, log, setting)?;
    let (questions, stopped) = batch(strategy, &mut state, questions)?;
    Ok(Next {
        questions,
        step: last + 1,
        stopped,
        foreign,
    })
}

/// Writes the next questions, the labels so far and what is known of the annotators.
///
/// # Errors
/// Bad data, options or answers; an output that cannot be written.
pub fn write(
    strategy: &dyn Strategy,
    asked: &TaskOptions,
    job: &Job,
    out: &Path,
    context: &Context,
) -> Result<Applied> {
    asked.refuse_trial_options()?;
    let mut output = Output::table(out)?;
    let table = job.table("data", context)?;
    let lines = Lines::of(job, context)?;
    let names = RowNames::of(&table, &job.roles)?;
    let pool = input::pool(&table, job, asked, lines.as_ref(), context)?;
    let setting = asked.setting(job.seed);
    pool.check_budget(setting.budget)?;
    let (log, numbered) = match &lines {
        Some(lines) => lines.answers(&pool, &names)?,
        None => (Vec::new(), true),
    };
    let next = next(strategy, &pool, &log, numbered, &setting, asked.questions)?;
    output.write(&[questions(&next, &pool, &names)?])?;
    let spent: f64 = log.iter().filter(|a| a.step > 0).map(|a| a.fee).sum();
    let mut summary = vec![
        ("answers so far".to_owned(), log.len().to_string()),
        ("money spent after the first rows".into(), spent.to_string()),
        ("step".into(), next.step.to_string()),
        ("questions".into(), next.questions.len().to_string()),
        (
            "their cost".into(),
            next.questions
                .iter()
                .map(|q| q.fee)
                .sum::<f64>()
                .to_string(),
        ),
        ("the strategy".into(), strategy.axes().shown()),
    ];
    let mut notes = Vec::new();
    if let Ok(state) = State::new(&pool, &log, &setting) {
        summary.push(("labelled rows".into(), state.votes.rows.len().to_string()));
        output.side("labels.csv", &csv(&labels(&state, &names)?)?)?;
        output.side("annotators.csv", &csv(&annotators(&state)?)?)?;
    }
    if next.foreign {
        notes.push(format!(
            "the answers of step {} are to other questions than this strategy would have asked; it goes on from all of them",
            next.step - 1
        ));
    }
    notes.extend(next.stopped.map(|why| format!("no more questions: {why}")));
    if !next.questions.is_empty() {
        notes.push(
            "fill in the column answer and give this file, below the log so far, as --answers"
                .into(),
        );
    }
    Ok(Applied {
        files: output.finish()?,
        summary,
        notes,
        ..Applied::default()
    })
}

fn table_of(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, c)| (name, c, true)))
        .map_err(|e| Error::Failed(e.to_string()))
}

fn csv(batch: &RecordBatch) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    arrow::csv::Writer::new(&mut bytes)
        .write(batch)
        .map_err(|e| Error::Failed(e.to_string()))?;
    Ok(bytes)
}

/// Text columns of one entry for each question.
fn questions(next: &Next, pool: &Pool, names: &RowNames) -> Result<RecordBatch> {
    let asked = &next.questions;
    let column = |of: &dyn Fn(&Question) -> Option<String>| -> ArrayRef {
        Arc::new(StringArray::from_iter(asked.iter().map(of)))
    };
    let number = |of: &dyn Fn(&Question) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(asked.iter().map(of)))
    };
    let row = |place: usize| move |q: &Question| q.query.rows().nth(place).map(|r| names.name(r));
    table_of(vec![
        ("row", column(&row(0))),
        (
            "annotator",
            column(&|q| Some(pool.annotators[q.annotator].name.clone())),
        ),
        ("answer", column(&|_| None)),
        ("with", column(&row(1))),
        (
            "region",
            column(&|q| match &q.query {
                Query::Region(bounds) => Some(show_region(bounds, pool)),
                _ => None,
            }),
        ),
        (
            "step",
            Arc::new(Int64Array::from_iter_values(
                asked.iter().map(|_| next.step as i64),
            )),
        ),
        ("score", number(&|q| q.score)),
        ("fee", number(&|q| q.fee)),
    ])
}

/// Row, label, confidence and number of votes of each labelled row.
fn labels(state: &State, names: &RowNames) -> Result<RecordBatch> {
    let (votes, truth) = (&state.votes, &state.truth);
    let rows = votes.rows.iter().map(|&row| names.name(row as usize));
    let labels = truth.labels.iter().map(|&l| state.pool.classes[l].as_str());
    let confidence = truth
        .labels
        .iter()
        .zip(truth.posterior.outer_iter())
        .map(|(&l, p)| p[l]);
    let counts = votes.starts.windows(2).map(|w| (w[1] - w[0]) as i64);
    table_of(vec![
        ("row", Arc::new(StringArray::from_iter_values(rows))),
        ("label", Arc::new(StringArray::from_iter_values(labels))),
        (
            "confidence",
            Arc::new(Float64Array::from_iter_values(confidence)),
        ),
        ("votes", Arc::new(Int64Array::from_iter_values(counts))),
    ])
}

/// What is known of each annotator.
fn annotators(state: &State) -> Result<RecordBatch> {
    let people = state.pool.annotators.len();
    let agreement = state.agreement();
    let beliefs: Vec<_> = agreement
        .iter()
        .map(|outcomes| interval(outcomes.iter().map(|o| o.1), 0.05))
        .collect();
    let count = |counts: &dyn Fn(&Answer) -> bool| -> ArrayRef {
        let of = |a: usize| {
            state
                .log
                .iter()
                .filter(|x| x.annotator == a && counts(x))
                .count()
        };
        Arc::new(Int64Array::from_iter_values(
            (0..people).map(|a| of(a) as i64),
        ))
    };
    let paid = |a: usize| -> f64 {
        state
            .log
            .iter()
            .filter(|x| x.annotator == a)
            .map(|x| x.fee)
            .sum()
    };
    let number = |of: &dyn Fn(usize) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values((0..people).map(of)))
    };
    table_of(vec![
        (
            "annotator",
            Arc::new(StringArray::from_iter_values(
                state.pool.annotators.iter().map(|a| a.name.as_str()),
            )),
        ),
        ("answers", count(&|_| true)),
        ("unsure", count(&|x| x.reply == Reply::Unsure)),
        ("refused", count(&|x| x.reply == Reply::Refused)),
        ("paid", number(&paid)),
        ("agreement", number(&|a| beliefs[a].mean)),
        ("low", number(&|a| beliefs[a].low)),
        ("high", number(&|a| beliefs[a].high)),
    ])
}
