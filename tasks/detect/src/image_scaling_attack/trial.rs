//! A trial: every picture is judged as it is and with another picture hidden in it.
//!
//! 1. The pictures, scaled to `width` x `height` first where asked. Each gets a target: the target size, or its own size
//!    over a ratio drawn between `ratio-min` and `ratio-max`. Those that do not shrink in both directions are left out.
//! 2. The picture hidden in each is the next one, brought to its target by area; the attack is made for the scaling in
//!    use. With the input `attack`, the attacks are given instead.
//! 3. A random share of the pictures, with the attacks made of them, sets the thresholds; the others are judged.

use super::attack::forge;
use super::input::{self, Collection};
use super::picture::Picture;
use super::score::{Part, Rule, Side, View};
use super::threshold::{Known, LEAST, thresholds, vote};
use super::{Calibration, Plan, TaskOptions};
use papertrial_core::task::{Context, Curve, Job, Measurement};
use papertrial_core::{Error, Result};
use papertrial_numerics::metrics::classification::roc_auc;
use papertrial_numerics::sampling::{permutation, rng};
use rand::RngExt;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::time::Instant;

/// Pictures whose tests are timed.
const TIMED: usize = 12;

/// A picture with the size that the model sees of it.
struct Subject {
    picture: Picture,
    target: (usize, usize),
}

/// What became of one picture.
struct Outcome {
    clean: Vec<f64>,
    attack: Vec<f64>,
    made: Option<Made>,
}

/// Facts of a made attack.
struct Made {
    success: bool,
    error: f64,
    similarity: Option<f64>,
}

pub(super) fn measure(
    plan: &Plan,
    asked: &TaskOptions,
    job: &Job,
    context: &Context,
) -> Result<Measurement> {
    let parts: &[Part] = match plan {
        Plan::Detect(parts) => parts,
        Plan::Forge => &[],
    };
    let mut notes = vec![format!("scaling: {}", asked.scaler().describe())];
    let mut read = |collection: Collection, what: &str| {
        notes.extend(collection.note());
        let all = collection.pictures.len();
        let found = subjects(collection, asked, job.seed, what)?;
        if found.len() < all {
            notes.push(format!(
                "{} pictures were left out, as they are not larger than what the model sees in both directions",
                all - found.len()
            ));
        }
        Ok::<Vec<Subject>, Error>(found)
    };
    let collection = Collection::read(asked.alpha, context, |each| {
        input::each(job, "data", context, each)
    })?;
    let own = read(collection, "data")?;
    let outcomes = match job.inputs.contains_key("attack") {
        true => given_attacks(&own, parts, asked, job, context)?,
        false => made_attacks(&own, parts, asked, context)?,
    };

    let mut metrics = BTreeMap::new();
    let mut curves = Vec::new();
    attack_facts(&outcomes, &mut metrics);
    if !parts.is_empty() {
        let order = permutation(&mut rng(job.seed, "halves"), outcomes.len());
        let share = (asked.train_fraction * outcomes.len() as f64).round() as usize;
        let (train, test) = order.split_at(share.clamp(1, outcomes.len() - 1));
        let other = match asked.calibrate_on.as_str() {
            "same" => None,
            name => {
                let collection =
                    Collection::read(asked.alpha, context, |each| input::each_named(name, each))?;
                let other = read(collection, name)?;
                Some(made_attacks(&other, parts, asked, context)?)
            }
        };
        let known: Vec<&Outcome> = match &other {
            Some(outcomes) => outcomes.iter().collect(),
            None => train.iter().map(|i| &outcomes[*i]).collect(),
        };
        let calibrated = parts.iter().any(|p| !matches!(p.rule, Rule::Fixed(_)));
        if calibrated && known.len() < LEAST {
            return Err(Error::BadInput(format!(
                "{} pictures to set thresholds from are too few; it takes {LEAST} at least",
                known.len()
            )));
        }
        let clean: Vec<Vec<f64>> = known.iter().map(|o| o.clean.clone()).collect();
        let attack: Vec<Vec<f64>> = match asked.calibration {
            Calibration::WhiteBox => known.iter().map(|o| o.attack.clone()).collect(),
            Calibration::BlackBox => Vec::new(),
        };
        let thresholds = thresholds(
            parts,
            &Known {
                clean: &clean,
                attack: &attack,
                percentile: asked.percentile,
                seed: job.seed,
            },
        )?;
        for (part, threshold) in parts.iter().zip(&thresholds) {
            let side = match part.test.side() {
                Side::High => "at least",
                Side::Low => "at most",
            };
            notes.push(format!(
                "{}: an attack scores {side} {threshold:.4}",
                part.name
            ));
        }
        let judged: Vec<&Outcome> = test.iter().map(|i| &outcomes[*i]).collect();
        judge(parts, &thresholds, &judged, &mut metrics, &mut curves)?;
        timing(&own, parts, asked, &mut metrics)?;
        notes.push(format!(
            "thresholds from {} clean pictures and {} attacks, {} of each judged",
            clean.len(),
            attack.len(),
            judged.len()
        ));
    }
    Ok(Measurement {
        metrics,
        curves,
        notes,
    })
}

/// Step 1.
fn subjects(
    collection: Collection,
    asked: &TaskOptions,
    seed: u64,
    what: &str,
) -> Result<Vec<Subject>> {
    let fixed = asked.target()?;
    let mut ratios = rng(seed, &format!("ratios of {what}"));
    let mut found = Vec::new();
    for (_, picture) in collection.pictures {
        let ratio = asked.ratio_min + (asked.ratio_max - asked.ratio_min) * ratios.random::<f64>();
        let size = (
            asked.height.unwrap_or(picture.height()),
            asked.width.unwrap_or(picture.width()),
        );
        let from = (picture.height(), picture.width());
        let picture = match size == from {
            true => picture,
            false => picture.scaled(size)?,
        };
        let over = |side: usize| ((side as f64 / ratio).round() as usize).max(1);
        let target = fixed.unwrap_or((over(size.0), over(size.1)));
        if target.0 < size.0 && target.1 < size.1 {
            found.push(Subject { picture, target });
        }
    }
    if found.len() < 2 {
        return Err(Error::BadInput(format!(
            "{} pictures are larger than what the model sees; a trial needs 2 at least, and thresholds more",
            found.len()
        )));
    }
    Ok(found)
}

fn scores(parts: &[Part], picture: &Picture, view: &View) -> Result<Vec<f64>> {
    parts.iter().map(|p| p.test.score(picture, view)).collect()
}

/// Step 2, attacks made of the pictures themselves.
fn made_attacks(
    subjects: &[Subject],
    parts: &[Part],
    asked: &TaskOptions,
    context: &Context,
) -> Result<Vec<Outcome>> {
    let scaler = asked.scaler();
    let n = subjects.len();
    let mut outcomes = Vec::with_capacity(n);
    let numbers: Vec<usize> = (0..n).collect();
    for some in numbers.chunks(16) {
        context.step("making and scoring attacks", outcomes.len(), n);
        let more: Vec<Outcome> = (some.par_iter())
            .map(|i| {
                let Subject { picture, target } = &subjects[*i];
                let view = View {
                    target: *target,
                    scaler,
                };
                let next = &subjects[(i + 1) % n].picture;
                let hidden = next.scaled(*target)?;
                let forged = forge(picture, &hidden, scaler)?;
                Ok(Outcome {
                    clean: scores(parts, picture, &view)?,
                    attack: scores(parts, &forged.picture, &view)?,
                    made: Some(Made {
                        success: forged.success,
                        error: forged.error,
                        similarity: forged.similarity,
                    }),
                })
            })
            .collect::<Result<_>>()?;
        outcomes.extend(more);
    }
    Ok(outcomes)
}

/// Step 2, attacks that are given: as many as there are pictures, or the fewer of both.
fn given_attacks(
    subjects: &[Subject],
    parts: &[Part],
    asked: &TaskOptions,
    job: &Job,
    context: &Context,
) -> Result<Vec<Outcome>> {
    let Some(target) = asked.target()? else {
        return Err(Error::option(
            "target-size",
            "has to be given with --input attack=...: attacks are made for one size",
        ));
    };
    let view = View {
        target,
        scaler: asked.scaler(),
    };
    let attacks = Collection::read(asked.alpha, context, |each| {
        input::each(job, "attack", context, each)
    })?;
    let attacks: Vec<&Picture> = (attacks.pictures.iter().map(|(_, p)| p))
        .filter(|p| view.applies(p))
        .collect();
    if attacks.len() < 2 {
        return Err(Error::BadInput(
            "fewer than 2 of the attacks are larger than the target size".into(),
        ));
    }
    subjects
        .par_iter()
        .zip(attacks)
        .map(|(subject, attack)| {
            Ok(Outcome {
                clean: scores(parts, &subject.picture, &view)?,
                attack: scores(parts, attack, &view)?,
                made: None,
            })
        })
        .collect()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0usize);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}

fn attack_facts(outcomes: &[Outcome], metrics: &mut BTreeMap<String, f64>) {
    let made = || outcomes.iter().filter_map(|o| o.made.as_ref());
    let facts = [
        (
            "attack-success",
            mean(made().map(|m| f64::from(u8::from(m.success)))),
        ),
        ("attack-error", mean(made().map(|m| m.error))),
        (
            "attack-similarity",
            mean(made().filter_map(|m| m.similarity)),
        ),
    ];
    metrics.extend(
        facts
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?))),
    );
}

/// Step 3: the judged pictures against the truth.
fn judge(
    parts: &[Part],
    thresholds: &[f64],
    judged: &[&Outcome],
    metrics: &mut BTreeMap<String, f64>,
    curves: &mut Vec<Curve>,
) -> Result<()> {
    let accused = |scores: &[f64]| vote(parts, thresholds, scores).1;
    let rejected = judged.iter().filter(|o| accused(&o.clean)).count() as f64;
    let caught = judged.iter().filter(|o| accused(&o.attack)).count() as f64;
    let n = judged.len() as f64;
    let mut put = |name: &str, value: f64| metrics.insert(name.to_owned(), value);
    put("accuracy", (caught + n - rejected) / (2.0 * n));
    if caught + rejected > 0.0 {
        put("precision", caught / (caught + rejected));
    }
    put("recall", caught / n);
    put("false-acceptance-rate", 1.0 - caught / n);
    put("false-rejection-rate", rejected / n);
    for (p, part) in parts.iter().enumerate() {
        let sign = match part.test.side() {
            Side::High => 1.0,
            Side::Low => -1.0,
        };
        let mut truth = Vec::new();
        let mut values = Vec::new();
        for outcome in judged {
            truth.extend([false, true]);
            values.extend([sign * outcome.clean[p], sign * outcome.attack[p]]);
        }
        let auc = roc_auc(&truth, &values).map_err(|e| Error::Failed(e.to_string()))?;
        match parts.len() {
            1 => put("auc", auc),
            _ => put(&format!("{}-auc", part.name), auc),
        };
        curves.push(Curve {
            name: format!("{}: found against rejected", part.name),
            x: "share of clean pictures rejected".into(),
            y: "share of attacks found".into(),
            points: roc(&truth, &values),
        });
    }
    Ok(())
}

/// Shares of both kinds at or above each score, from the highest.
fn roc(truth: &[bool], scores: &[f64]) -> Vec<(f64, f64)> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let half = scores.len() as f64 / 2.0;
    let (mut clean, mut attack) = (0.0, 0.0);
    let mut points = vec![(0.0, 0.0)];
    for (at, i) in order.iter().enumerate() {
        *(if truth[*i] { &mut attack } else { &mut clean }) += 1.0;
        let last = order
            .get(at + 1)
            .is_none_or(|next| scores[*next] != scores[*i]);
        if last {
            points.push((clean / half, attack / half));
        }
    }
    points
}

/// Each test alone on the first pictures, one after another on this thread, the faster of two runs.
fn timing(
    subjects: &[Subject],
    parts: &[Part],
    asked: &TaskOptions,
    metrics: &mut BTreeMap<String, f64>,
) -> Result<()> {
    let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); parts.len()];
    for subject in subjects.iter().take(TIMED) {
        let view = View {
            target: subject.target,
            scaler: asked.scaler(),
        };
        for (part, seconds) in parts.iter().zip(&mut seconds) {
            let mut least = f64::INFINITY;
            for _ in 0..2 {
                let start = Instant::now();
                std::hint::black_box(part.test.score(&subject.picture, &view)?);
                least = least.min(start.elapsed().as_secs_f64());
            }
            seconds.push(1e3 * least);
        }
    }
    let median = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let slowest = seconds.iter().map(|s| median(s)).fold(0.0, f64::max);
    let pictures = subjects.len().min(TIMED) as f64;
    let all: f64 = seconds.iter().flatten().sum();
    metrics.insert("milliseconds-per-test".into(), slowest);
    metrics.insert("milliseconds-per-picture".into(), all / pictures);
    Ok(())
}
