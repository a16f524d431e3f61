//! Trials: all jobs of a claim, and the judgement.

use crate::catalogue::{Claim, Contender, Paper};
use crate::data::{ReadOptions, Roles};
use crate::error::{Error, Result};
use crate::journal::{Journal, Outcome};
use crate::judge::{self, Estimate, Judgement, Values, Verdict};
use crate::options::Settings;
use crate::plan;
use crate::runner::{self, Ended, Event, Planned};
use crate::task::{Curve, Family};
use crate::worker::find_task;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// What `try --json` gives for a claim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialResult {
    /// Paper's slug.
    pub paper: String,
    /// Claim's identifier.
    pub claim: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Its reason.
    pub why: String,
    /// Data set or simulation.
    pub dataset: String,
    /// Metric.
    pub metric: String,
    /// The claim's margin.
    pub margin: f64,
    /// The paper's method.
    pub method: Scored,
    /// Its rivals, or the target.
    pub against: Vec<Scored>,
    /// Advantage over the rival that decided.
    pub difference: Option<Estimate>,
    /// Number of seeds.
    pub seeds: u64,
    /// Number of jobs.
    pub jobs: JobCounts,
    /// Wall seconds of all jobs.
    pub seconds: f64,
}

/// A contender's value over the seeds; nulls if it has none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// Name for people.
    pub name: String,
    /// Mean.
    pub mean: Option<f64>,
    /// Lower end of the interval.
    pub low: Option<f64>,
    /// Upper end of the interval.
    pub high: Option<f64>,
}

impl Scored {
    fn of(name: &str, values: &Values) -> Scored {
        let estimate = Estimate::of(&values.values().copied().collect::<Vec<_>>());
        Scored {
            name: name.into(),
            mean: estimate.map(|e| e.mean),
            low: estimate.and_then(|e| e.low),
            high: estimate.and_then(|e| e.high),
        }
    }
}

/// Jobs of a trial by how they went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct JobCounts {
    /// Ran now and gave a measurement.
    pub done: usize,
    /// Ran now and failed.
    pub failed: usize,
    /// Found in the journal.
    pub reused: usize,
}

/// A trial with all that a report shows.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The paper.
    pub paper: Paper,
    /// The claim.
    pub claim: Claim,
    /// The result.
    pub result: TrialResult,
    /// Method first, then the rivals.
    pub sides: Vec<Side>,
}

/// One contender of a trial.
#[derive(Debug, Clone)]
pub struct Side {
    /// Name for people.
    pub name: String,
    /// Options of its first seed's job.
    pub options: Settings,
    /// Options of the task.
    pub task_options: Settings,
    /// The metric by seed.
    pub values: Values,
    /// Curves of the first seed that gave any.
    pub curves: Vec<Curve>,
    /// Remarks, each once.
    pub notes: Vec<String>,
    /// Why jobs failed, by seed.
    pub failures: Vec<(u64, String)>,
    /// Wall seconds and peak bytes of each job.
    pub costs: Vec<(f64, u64)>,
}

/// How trials are run.
pub struct Setting<'a> {
    /// What is built.
    pub families: &'a [Family],
    /// How jobs are run.
    pub runner: &'a runner::Settings,
    /// Where they are kept.
    pub journal: &'a Journal,
    /// Number of seeds in place of each claim's own.
    pub seeds: Option<u64>,
    /// Options over each claim's own, for methods that have them.
    pub options: &'a Settings,
    /// Run jobs even if the journal has them.
    pub fresh: bool,
}

/// What was planned for a claim: places of its jobs in the common plan, method first.
enum Plan {
    Jobs(Vec<Vec<usize>>),
    NotTried(String),
}

/// Tries `claims`: one run of all jobs they need, each once, then a judgement for each. Verdicts of claims that
/// could be tried go into the journal.
///
/// # Errors
/// [`Error::Interrupted`], or a journal that cannot be used.
pub fn try_claims(
    claims: &[(&Paper, &Claim)],
    setting: &Setting,
    tell: &(dyn Fn(Event) + Sync),
) -> Result<Vec<Trial>> {
    let claims: Vec<(&Paper, Claim)> = claims
        .iter()
        .map(|(paper, claim)| {
            let seeds = setting.seeds.unwrap_or(claim.seeds);
            (
                *paper,
                Claim {
                    seeds,
                    ..(*claim).clone()
                },
            )
        })
        .collect();
    let mut jobs: Vec<Planned> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut plans = Vec::new();
    for (_, claim) in &claims {
        plans.push(match expand(claim, setting) {
            Ok(sides) => Plan::Jobs(
                sides
                    .into_iter()
                    .map(|side| {
                        side.into_iter()
                            .map(|planned| {
                                let next = jobs.len();
                                let place =
                                    *places.entry(planned.fingerprint.clone()).or_insert(next);
                                if place == next {
                                    jobs.push(planned);
                                } else {
                                    jobs[place].alone |= planned.alone;
                                }
                                place
                            })
                            .collect()
                    })
                    .collect(),
            ),
            Err(why) => Plan::NotTried(why),
        });
    }
    let ended = runner::run(&jobs, setting.runner, setting.journal, setting.fresh, tell)?;
    let mut trials = Vec::new();
    for ((paper, claim), plan) in claims.into_iter().zip(plans) {
        let trial = match plan {
            Plan::NotTried(why) => conclude(
                paper,
                claim,
                Vec::new(),
                JobCounts::default(),
                Some(Judgement {
                    verdict: Verdict::NotTried,
                    why,
                    difference: None,
                }),
            ),
            Plan::Jobs(sides) => {
                let mut counts = JobCounts::default();
                for (outcome, reused) in sides.iter().flatten().map(|i| &ended[*i]) {
                    match (reused, &outcome.measurement) {
                        (true, _) => counts.reused += 1,
                        (false, Some(_)) => counts.done += 1,
                        (false, None) => counts.failed += 1,
                    }
                }
                let contenders: Vec<&Contender> = std::iter::once(&claim.method)
                    .chain(&claim.against)
                    .collect();
                let sides: Vec<Side> = contenders
                    .iter()
                    .zip(&sides)
                    .map(|(c, places)| side(c, &claim.metric, places, &jobs, &ended))
                    .collect();
                let trial = conclude(paper, claim, sides, counts, None);
                let result = serde_json::to_value(&trial.result)
                    .map_err(|e| Error::Failed(e.to_string()))?;
                setting.journal.record_verdict(
                    &paper.slug,
                    &trial.claim.id,
                    &trial.result.verdict.to_string(),
                    &result,
                )?;
                trial
            }
        };
        trials.push(trial);
    }
    Ok(trials)
}

/// The jobs of a claim for method and rivals, a seed each; or why it cannot be tried.
fn expand(claim: &Claim, setting: &Setting) -> std::result::Result<Vec<Vec<Planned>>, String> {
    let Ok((family, task)) = find_task(setting.families, &claim.task) else {
        return Err("method not built yet".into());
    };
    let contenders: Vec<&Contender> = std::iter::once(&claim.method)
        .chain(&claim.against)
        .collect();
    let mut methods = Vec::new();
    for contender in &contenders {
        methods.push(plan::method(task, &contender.name).map_err(|_| {
            if contender.name == claim.method.name {
                "method not built yet".to_owned()
            } else {
                format!("rival {} not built yet", contender.name)
            }
        })?);
    }
    let metric = plan::metric(task, &claim.metric)
        .map_err(|_| format!("metric {} not built yet", claim.metric))?;
    let source = plan::source(
        &claim.data,
        &claim.data_options,
        Roles::default(),
        &ReadOptions::default(),
        family,
    )
    .map_err(|e| e.to_string())?;
    let mut shared = claim.options.clone();
    shared.extend(setting.options.clone());
    plan::check_shared(task, &methods, &shared).map_err(|e| e.to_string())?;
    contenders
        .iter()
        .zip(&methods)
        .map(|(contender, method)| {
            (0..claim.seeds)
                .map(|seed| {
                    plan::job(task, method, &shared, &contender.options, &source, seed)
                        .map(|job| plan::planned(family, job, metric.timing))
                        .map_err(|e| e.to_string())
                })
                .collect()
        })
        .collect()
}

fn side(
    contender: &Contender,
    metric: &str,
    places: &[usize],
    jobs: &[Planned],
    ended: &[Ended],
) -> Side {
    let first = places.first().map(|i| &jobs[*i].job);
    let mut side = Side {
        name: contender.shown().to_owned(),
        options: first.map(|j| j.options.clone()).unwrap_or_default(),
        task_options: first.map(|j| j.task_options.clone()).unwrap_or_default(),
        values: Values::new(),
        curves: Vec::new(),
        notes: Vec::new(),
        failures: Vec::new(),
        costs: Vec::new(),
    };
    for i in places {
        let seed = jobs[*i].job.seed;
        let (outcome, _) = &ended[*i];
        side.costs.push((outcome.seconds, outcome.peak_bytes));
        match value(outcome, metric) {
            Ok(value) => {
                side.values.insert(seed, value);
            }
            Err(why) => side.failures.push((seed, why)),
        }
        if let Some(measurement) = &outcome.measurement {
            if side.curves.is_empty() {
                side.curves = measurement.curves.clone();
            }
            for note in &measurement.notes {
                if !side.notes.contains(note) {
                    side.notes.push(note.clone());
                }
            }
        }
    }
    side
}

fn value(outcome: &Outcome, metric: &str) -> std::result::Result<f64, String> {
    match &outcome.measurement {
        Some(measurement) => match measurement.metrics.get(metric) {
            Some(value) if value.is_finite() => Ok(*value),
            Some(value) => Err(format!("{metric} is {value}")),
            None => Err(format!("it gave no {metric}")),
        },
        None => Err(outcome.failure.clone().unwrap_or_default()),
    }
}

fn conclude(
    paper: &Paper,
    claim: Claim,
    sides: Vec<Side>,
    jobs: JobCounts,
    given: Option<Judgement>,
) -> Trial {
    let none = Values::new();
    let method = sides.first().map_or(&none, |s| &s.values);
    let rivals: Vec<Values> = sides.iter().skip(1).map(|s| s.values.clone()).collect();
    let mut judgement = given.unwrap_or_else(|| judge::judge(&claim, method, &rivals));
    if judgement.verdict == Verdict::NotTried
        && let Some((_, failure)) = sides.iter().flat_map(|s| &s.failures).next()
    {
        judgement.why = format!("{} ({failure})", judgement.why);
    }
    let against = match claim.target {
        Some(target) => vec![Scored {
            name: "target".into(),
            mean: Some(target),
            low: Some(target),
            high: Some(target),
        }],
        None => claim
            .against
            .iter()
            .enumerate()
            .map(|(i, c)| Scored::of(c.shown(), rivals.get(i).unwrap_or(&none)))
            .collect(),
    };
    let result = TrialResult {
        paper: paper.slug.clone(),
        claim: claim.id.clone(),
        verdict: judgement.verdict,
        why: judgement.why,
        dataset: claim.data.clone(),
        metric: claim.metric.clone(),
        margin: claim.margin,
        method: Scored::of(claim.method.shown(), method),
        against,
        difference: judgement.difference,
        seeds: claim.seeds,
        jobs,
        seconds: sides.iter().flat_map(|s| &s.costs).map(|c| c.0).sum(),
    };
    Trial {
        paper: paper.clone(),
        claim,
        result,
        sides,
    }
}
