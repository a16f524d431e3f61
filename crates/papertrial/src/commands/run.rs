//! `papertrial run`: one method applied to the user's data.

use super::methods_named;
use crate::FAMILIES;
use crate::cli::{Common, RunArgs};
use crate::terminal::{self, Bars, print};
use papertrial_core::journal::Outcome;
use papertrial_core::options::Settings;
use papertrial_core::runner::{self, Event};
use papertrial_core::task::{Applied, Context, Family, Job, Task, unknown_method};
use papertrial_core::worker::{self, Word, Work, find_task};
use papertrial_core::{Error, Result, plan};
use std::process::ExitCode;

pub fn run(args: &RunArgs, common: &Common) -> Result<ExitCode> {
    let (family, task, method) = {
        let mut found = methods_named(&args.method);
        if let Some(task) = &args.task {
            let (_, task) = find_task(FAMILIES, task)?;
            found.retain(|(_, t, _)| t.name() == task.name());
        }
        if found.len() > 1 {
            let tasks: Vec<&str> = found.iter().map(|(_, t, _)| t.name()).collect();
            return Err(Error::option(
                "--task",
                format!(
                    "several tasks have a method {}: {}; name one",
                    args.method,
                    tasks.join(", ")
                ),
            ));
        }
        found.pop().ok_or_else(|| {
            let known =
                super::tasks().flat_map(|(_, t)| t.methods().into_iter().map(|m| m.facts.name));
            unknown_method("TASK", &args.method, known)
        })?
    };
    let given = args.running.settings()?;
    plan::check_shared(task, std::slice::from_ref(&method), &given)?;
    let own = match args.follow {
        true => Settings::from_iter([("follow".into(), true.into())]),
        false => Settings::new(),
    };
    let source = args.data.source(family, task, args.follow)?;
    let mut job = plan::job(task, &method, &given, &own, &source, args.seed)?;
    if let Some(model) = &args.model {
        job.inputs
            .insert("model".into(), plan::file(model, &args.data.read()?)?);
    }
    let (applied, cost) = if args.follow {
        (follow(&job, args, family, task)?, None)
    } else {
        in_a_child(&job, args)?
    };
    if common.json {
        terminal::print_json(&serde_json::json!({
            "method": args.method, "task": task.name(), "files": applied.files,
            "summary": applied.summary.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "notes": applied.notes, "skipped": applied.skipped,
            "seconds": cost.as_ref().map(|c| c.seconds), "peak_bytes": cost.as_ref().map(|c| c.peak_bytes),
        }))?;
    } else {
        for (name, value) in &applied.summary {
            print(&format!("{name}: {value}"));
        }
        for note in &applied.notes {
            print(&format!("note: {note}"));
        }
        for what in &applied.skipped {
            print(&format!("skipped: {what}"));
        }
        for file in &applied.files {
            print(&format!("wrote {}", file.display()));
        }
    }
    Ok(ExitCode::from(u8::from(!applied.skipped.is_empty())))
}

/// Runs the job in a process of its own, with its limits.
fn in_a_child(job: &Job, args: &RunArgs) -> Result<(Applied, Option<Outcome>)> {
    let bars = Bars::new();
    bars.tell(Event::Planned(1));
    bars.tell(Event::Started(job));
    let settings = args.running.runner()?;
    let threads = match settings.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let work = Work::Apply(job.clone(), args.out.clone());
    let ended = runner::child(&work, &settings, threads, &|p| {
        bars.tell(Event::Step(job, p))
    });
    bars.clear();
    let (outcome, word) = ended?;
    match word {
        Some(Word::Applied { applied, .. }) => Ok((applied, Some(outcome))),
        Some(Word::Failed {
            message,
            bad_input: true,
        }) => Err(Error::BadInput(message)),
        _ => Err(Error::Failed(outcome.failure.unwrap_or_default())),
    }
}

/// Runs the job in this process, which has the standard input that it may read; it ends when that does, or when the
/// user stops it.
fn follow(job: &Job, args: &RunArgs, family: &Family, task: &dyn Task) -> Result<Applied> {
    let context = Context {
        memory: args.running.memory,
        device: args.running.device.clone(),
        ..worker::context(family, task, job.seed, &|_| ())
    };
    task.apply(job, &args.out, &context)
}
