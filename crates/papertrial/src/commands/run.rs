//! `papertrial run`: one method applied to the user's data.

use super::methods_named;
use crate::FAMILIES;
use crate::cli::{Common, RunArgs};
use crate::terminal::{self, Bars, print};
use papertrial_core::options::Settings;
use papertrial_core::runner::{self, Event};
use papertrial_core::task::unknown_method;
use papertrial_core::worker::{Word, Work, find_task};
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
    let source = args.data.source(family, task)?;
    let given = args.running.settings()?;
    plan::check_shared(task, std::slice::from_ref(&method), &given)?;
    let mut job = plan::job(task, &method, &given, &Settings::new(), &source, args.seed)?;
    if let Some(model) = &args.model {
        job.inputs
            .insert("model".into(), plan::file(model, &args.data.read()?)?);
    }
    let bars = Bars::new();
    bars.tell(Event::Planned(1));
    bars.tell(Event::Started(&job));
    let settings = args.running.runner()?;
    let threads = match settings.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let work = Work::Apply(job.clone(), args.out.clone());
    let ended = runner::child(&work, &settings, threads, &|p| {
        bars.tell(Event::Step(&job, p))
    });
    bars.clear();
    let (outcome, word) = ended?;
    let applied = match word {
        Some(Word::Applied { applied, .. }) => applied,
        Some(Word::Failed {
            message,
            bad_input: true,
        }) => return Err(Error::BadInput(message)),
        _ => return Err(Error::Failed(outcome.failure.unwrap_or_default())),
    };
    if common.json {
        terminal::print_json(&serde_json::json!({
            "method": args.method, "task": task.name(), "files": applied.files,
            "summary": applied.summary.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "notes": applied.notes, "seconds": outcome.seconds, "peak_bytes": outcome.peak_bytes,
        }))?;
    } else {
        for (name, value) in &applied.summary {
            print(&format!("{name}: {value}"));
        }
        for note in &applied.notes {
            print(&format!("note: {note}"));
        }
        for file in &applied.files {
            print(&format!("wrote {}", file.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}
