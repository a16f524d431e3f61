//! Trials: how well does a method find the rows of a target, and what is a model worth that is trained on them?
//!
//! With a label column, targets are its most frequent values. For each, some of its rows are queries and (where perplexity
//! is asked for) some are held out; none of these is in the pool, which is the same for all targets and is prepared once.
//! Precision and recall count rows of the target among the picked ones.
//!
//! With queries of the user's and no label, half of each task's queries choose, and perplexity is measured on the others.
//!
//! Perplexity: a fresh model with the plan and the vocabulary of the pool's, trained for a few steps on the picked rows
//! alone; the exponential of its mean -log p over the tokens of the rows held out.

use super::TaskOptions;
use super::choice::{Barred, choose};
use super::index::RdsIndex;
use super::lm::{Lm, Plan};
use super::problem::{Pool, Queries, Reads, Selector, Vectors};
use super::rows::Row;
use super::sources::{self, Opened};
use super::tokens::Vocabulary;
use super::vectors;
use ndarray::{Array2, Axis};
use papertrial_core::data::Labels;
use papertrial_core::task::{Context, Curve, Job, Measurement};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use std::time::Instant;

/// What is chosen for.
struct Target {
    name: String,
    queries: Queries,
    held_out: Vec<Row>,
    /// Whether each row of the pool is of the target; `None` where that is not known.
    relevant: Option<Vec<bool>>,
}

/// Runs a method on all targets and scores it.
///
/// # Errors
/// Bad input, or a computation that failed.
pub fn measure(
    selector: &dyn Selector,
    options: &TaskOptions,
    job: &Job,
    context: &Context,
) -> Result<Measurement> {
    let opened = sources::pool_table(job, options, context)?;
    let reads = selector.reads();
    let (pool, targets) = match Labels::of(&opened.table, &opened.roles)? {
        Some(labels) => labelled(&opened, &labels, reads, options, job.seed)?,
        None if job.inputs.contains_key("query") => asked(&opened, reads, options, job, context)?,
        None => {
            return Err(Error::option(
                "--label",
                "name the column of topics, or give --query a file with rows of what is wanted",
            ));
        }
    };
    let start = Instant::now();
    let fitted = selector.fit(&pool, context)?;
    let mut seconds = start.elapsed().as_secs_f64();
    let mut measurement = Measurement::default();
    let mut sums = Sums::default();
    for (done, target) in targets.iter().enumerate() {
        context.step("targets", done, targets.len());
        let barred = Barred::of(&pool, &target.queries, options);
        let start = Instant::now();
        let picks = choose(&*fitted, &pool, &target.queries, &barred, options, context)?;
        seconds += start.elapsed().as_secs_f64();
        let rows: Vec<usize> = picks.iter().map(|p| p.row).collect();
        if let Some(relevant) = &target.relevant {
            sums.add(&rows, relevant);
        }
        if !target.held_out.is_empty() {
            let loss = fresh_loss(&pool, &rows, &target.held_out, options, job.seed, context)?;
            sums.losses.push(loss);
        }
        for note in barred.notes(&target.queries, options) {
            measurement.notes.push(format!("{}: {note}", target.name));
        }
    }
    sums.report(&mut measurement);
    measurement.notes.extend(fitted.notes());
    let names: Vec<&str> = targets.iter().map(|t| t.name.as_str()).collect();
    measurement.notes.push(format!(
        "targets: {}; pool of {} rows",
        names.join(", "),
        pool.count
    ));
    measurement
        .metrics
        .insert("operations".into(), fitted.operations() / 1e9);
    measurement.metrics.insert("seconds".into(), seconds);
    Ok(measurement)
}

/// Scores so far.
#[derive(Default)]
struct Sums {
    precision: Vec<f64>,
    recall: Vec<f64>,
    lift: Vec<f64>,
    /// Right rows among the first 1, 2, ... picked, for each target.
    right: Vec<Vec<usize>>,
    losses: Vec<f64>,
}

impl Sums {
    fn add(&mut self, rows: &[usize], relevant: &[bool]) {
        let right: Vec<usize> = rows
            .iter()
            .scan(0, |sum, row| {
                *sum += usize::from(relevant[*row]);
                Some(*sum)
            })
            .collect();
        let found = right.last().copied().unwrap_or(0) as f64;
        let all = relevant.iter().filter(|r| **r).count() as f64;
        let precision = found / rows.len() as f64;
        self.precision.push(precision);
        self.recall.push(found / all);
        self.lift.push(precision / (all / relevant.len() as f64));
        self.right.push(right);
    }

    fn report(&self, measurement: &mut Measurement) {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let metrics = &mut measurement.metrics;
        if !self.precision.is_empty() {
            metrics.insert("precision".into(), mean(&self.precision));
            metrics.insert("recall".into(), mean(&self.recall));
            metrics.insert("lift".into(), mean(&self.lift));
            let rows = self.right.iter().map(Vec::len).min().unwrap_or(0);
            let step = rows.div_ceil(40).max(1);
            let points = (step..=rows)
                .step_by(step)
                .map(|k| {
                    let right: usize = self.right.iter().map(|r| r[k - 1]).sum();
                    (k as f64, right as f64 / (k * self.right.len()) as f64)
                })
                .collect();
            measurement.curves.push(Curve {
                name: "precision against rows picked".into(),
                x: "rows picked".into(),
                y: "precision".into(),
                points,
            });
        }
        if !self.losses.is_empty() {
            metrics.insert("perplexity".into(), mean(&self.losses).exp());
        }
    }
}

/// Mean -log p on `held_out` of a model trained on `rows` of the pool.
fn fresh_loss(
    pool: &Pool,
    rows: &[usize],
    held_out: &[Row],
    options: &TaskOptions,
    seed: u64,
    context: &Context,
) -> Result<f64> {
    let reading = &pool.reading;
    let vocabulary = Vocabulary::of(
        &pool.rows,
        reading.tokens,
        reading.vocabulary,
        reading.longest,
    );
    let chosen: Vec<Row> = rows.iter().map(|r| pool.rows[*r].clone()).collect();
    let chosen = vocabulary.encode_all(&chosen, pool.part);
    let plan = Plan {
        steps: options.fresh_steps,
        // Not the start of the model that chose.
        seed: seed ^ 0x6672_6573_6800_0000,
        ..reading.plan.clone()
    };
    let lm = Lm::train(&chosen, &vocabulary, &plan, context)?;
    let held_out = vocabulary.encode_all(held_out, pool.part);
    let losses = lm.losses(&held_out, context)?;
    let tokens: usize = losses.iter().map(|l| l.tokens).sum();
    let sum: f64 = losses.iter().map(|l| l.all * l.tokens as f64).sum();
    Ok(sum / tokens.max(1) as f64)
}

/// Pool and targets of a table with labels.
fn labelled<'a>(
    opened: &Opened,
    labels: &Labels,
    reads: Reads,
    options: &TaskOptions,
    seed: u64,
) -> Result<(Pool<'a>, Vec<Target>)> {
    let split = Split::of(labels, options, seed)?;
    let texts = sources::needs_text(reads, options) || options.perplexity;
    let rows = if texts {
        sources::text(opened, options)?
    } else {
        Vec::new()
    };
    let some = |which: &[usize]| -> Vec<Row> {
        which.iter().filter_map(|r| rows.get(*r).cloned()).collect()
    };
    let embedded: Option<Array2<f32>> = match reads {
        Reads::Vectors => {
            let column = vectors::column(&opened.table, "vectors", options.vectors.as_deref())?;
            Some(vectors::all(&opened.table, column)?)
        }
        _ => None,
    };
    let of = |which: &[usize]| embedded.as_ref().map(|e| e.select(Axis(0), which));
    let targets = split
        .targets
        .iter()
        .map(|t| Target {
            name: labels.names[t.label as usize].clone(),
            queries: Queries {
                rows: some(&t.queries),
                ids: t.queries.iter().map(|r| (r + 1).to_string()).collect(),
                tasks: vec![0; t.queries.len()],
                names: vec![labels.names[t.label as usize].clone()],
                vectors: of(&t.queries),
            },
            held_out: some(&t.held_out),
            relevant: Some(
                split
                    .pool
                    .iter()
                    .map(|r| labels.codes[*r] == t.label)
                    .collect(),
            ),
        })
        .collect();
    let sources = if sources::needs_sources(reads, options) {
        let all = sources::sources(opened)?;
        Some(split.pool.iter().map(|r| all[*r]).collect())
    } else {
        None
    };
    let pool = Pool {
        count: split.pool.len(),
        rows: some(&split.pool),
        sources,
        vectors: match of(&split.pool) {
            Some(rows) => Some(Vectors::Index(RdsIndex::build([Ok(rows)])?)),
            None => None,
        },
        part: options.part,
        reading: options.reading(seed),
    };
    Ok((pool, targets))
}

/// Rows of the table by what they are used for.
struct Split {
    pool: Vec<usize>,
    targets: Vec<Chosen>,
}

struct Chosen {
    label: i32,
    /// In ascending order: as identifiers they take turns by.
    queries: Vec<usize>,
    held_out: Vec<usize>,
}

impl Split {
    fn of(labels: &Labels, options: &TaskOptions, seed: u64) -> Result<Split> {
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); labels.names.len()];
        for (row, code) in labels.codes.iter().enumerate() {
            members[*code as usize].push(row);
        }
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_by_key(|&l| (std::cmp::Reverse(members[l].len()), l));
        if order.len() < options.targets {
            return Err(Error::option(
                "targets",
                format!(
                    "{} is more than the {} labels",
                    options.targets,
                    order.len()
                ),
            ));
        }
        let mut targets = Vec::new();
        let mut used = vec![false; labels.codes.len()];
        for &label in &order[..options.targets] {
            let own = &members[label];
            let mut rng = sampling::rng(seed, &format!("targeted-selection target {label}"));
            let shuffled = sampling::permutation(&mut rng, own.len());
            let rows: Vec<usize> = shuffled.iter().map(|i| own[*i]).collect();
            let held = if options.perplexity {
                (own.len() / 4).max(1)
            } else {
                0
            };
            if own.len() <= options.queries + held {
                return Err(Error::option(
                    "queries",
                    format!(
                        "label {} has {} rows; {} queries{} would leave none of them in the pool",
                        labels.names[label],
                        own.len(),
                        options.queries,
                        if held > 0 {
                            format!(" and {held} rows for perplexity")
                        } else {
                            String::new()
                        }
                    ),
                ));
            }
            let mut queries = rows[..options.queries].to_vec();
            queries.sort_unstable();
            let held_out = rows[options.queries..options.queries + held].to_vec();
            for row in queries.iter().chain(&held_out) {
                used[*row] = true;
            }
            targets.push(Chosen {
                label: label as i32,
                queries,
                held_out,
            });
        }
        let rest: Vec<usize> = (0..used.len()).filter(|r| !used[*r]).collect();
        let mut rng = sampling::rng(seed, "targeted-selection pool");
        let order = sampling::permutation(&mut rng, rest.len());
        let size = ((rest.len() as f64 * options.pool_share).round() as usize).max(1);
        let mut pool: Vec<usize> = order.iter().take(size).map(|i| rest[*i]).collect();
        pool.sort_unstable();
        for target in &targets {
            if !pool.iter().any(|r| labels.codes[*r] == target.label) {
                return Err(Error::option(
                    "pool-share",
                    format!(
                        "no row of {} is left in a pool of {size} rows",
                        labels.names[target.label as usize]
                    ),
                ));
            }
        }
        Ok(Split { pool, targets })
    }
}

/// Pool and targets of a table without labels and queries of the user's.
fn asked<'a>(
    opened: &'a Opened,
    reads: Reads,
    options: &TaskOptions,
    job: &Job,
    context: &Context,
) -> Result<(Pool<'a>, Vec<Target>)> {
    if !options.perplexity {
        return Err(Error::option(
            "perplexity",
            "without labels the perplexity of what is trained on the picked rows is all that can be measured; say --set perplexity=true, or name the column of topics with --label",
        ));
    }
    // Perplexity reads text whatever the method reads.
    let query = sources::query_table(job, options, context)?;
    let all = sources::queries(&query, None, reads, options)?;
    let mut pool = sources::pool(opened, None, reads, options, job.seed)?;
    if pool.rows.is_empty() {
        pool.rows = sources::text(opened, options)?;
    }
    let of_text = sources::queries(&query, None, Reads::Text, options)?;
    let mut targets = Vec::new();
    for (task, name) in all.names.iter().enumerate() {
        let own: Vec<usize> = (0..all.ids.len())
            .filter(|q| all.tasks[*q] == task)
            .collect();
        if own.len() < 2 {
            return Err(Error::BadInput(format!(
                "task '{name}' has {} of the {} queries; a trial needs two, one to choose and one to measure",
                own.len(),
                all.ids.len()
            )));
        }
        let mut rng = sampling::rng(job.seed, &format!("targeted-selection queries {task}"));
        let order = sampling::permutation(&mut rng, own.len());
        let half = own.len().div_ceil(2);
        let mut first: Vec<usize> = order[..half].iter().map(|i| own[*i]).collect();
        first.sort_unstable();
        let held_out = order[half..]
            .iter()
            .map(|i| of_text.rows[own[*i]].clone())
            .collect();
        targets.push(Target {
            name: name.clone(),
            queries: Queries {
                rows: first.iter().map(|q| of_text.rows[*q].clone()).collect(),
                ids: first.iter().map(|q| all.ids[*q].clone()).collect(),
                tasks: vec![0; first.len()],
                names: vec![name.clone()],
                vectors: all.vectors.as_ref().map(|v| v.select(Axis(0), &first)),
            },
            held_out,
            relevant: None,
        });
    }
    Ok((pool, targets))
}
