//! `papertrial show`: a paper, a method or a task.

use super::{methods_named, tasks};
use crate::FAMILIES;
use crate::cli::{Common, ShowArgs};
use crate::terminal::{heading, print, print_json, table};
use papertrial_core::catalogue::{Catalogue, Claim, Direction, Paper};
use papertrial_core::options::OptionInfo;
use papertrial_core::task::{MethodInfo, Task};
use papertrial_core::worker::find_task;
use papertrial_core::{Error, Result};
use serde_json::{Value, json};
use std::process::ExitCode;

pub fn run(args: &ShowArgs, common: &Common) -> Result<ExitCode> {
    let catalogue = Catalogue::load(common.catalog.as_deref())?;
    let Some(name) = &args.name else {
        list(common)?;
        return Ok(ExitCode::SUCCESS);
    };
    // One name may be a paper and its method: both are shown.
    let paper = catalogue.paper(name).ok();
    let methods = methods_named(name);
    let task = find_task(FAMILIES, name).ok().map(|(_, task)| task);
    if paper.is_none() && methods.is_empty() && task.is_none() {
        let known = catalogue
            .papers
            .iter()
            .map(|p| p.slug.as_str())
            .chain(tasks().flat_map(|(_, t)| t.methods().into_iter().map(|m| m.facts.name)))
            .chain(tasks().map(|(_, t)| t.name()));
        return Err(Error::unknown(
            "paper, method or task",
            name,
            known,
            "'papertrial papers' and 'papertrial show' list them",
        ));
    }
    if common.json {
        print_json(&json!({
            "paper": paper,
            "methods": methods.iter().map(|(_, t, m)| method_json(*t, m)).collect::<Vec<_>>(),
            "task": task.map(task_json),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(paper) = paper {
        show_paper(paper);
    }
    for (_, task, method) in &methods {
        show_method(*task, method);
    }
    if let Some(task) = task {
        show_task(task);
    }
    Ok(ExitCode::SUCCESS)
}

fn list(common: &Common) -> Result<()> {
    if common.json {
        return print_json(&tasks().map(|(_, t)| task_json(t)).collect::<Vec<_>>());
    }
    let mut rows = table(&["family", "task", "what it does", "methods"]);
    for (family, task) in tasks() {
        let methods: Vec<&str> = task.methods().iter().map(|m| m.facts.name).collect();
        rows.add_row([family.name, task.name(), task.about(), &methods.join(", ")]);
    }
    print(&rows.to_string());
    Ok(())
}

fn task_json(task: &dyn Task) -> Value {
    json!({
        "name": task.name(),
        "about": task.about(),
        "metrics": task.metrics(),
        "options": task.options(),
        "inputs": task.inputs().iter().map(|(name, about)| json!({"name": name, "about": about})).collect::<Vec<_>>(),
        "methods": task.methods().iter().map(|m| method_json(task, m)).collect::<Vec<_>>(),
    })
}

fn method_json(task: &dyn Task, method: &MethodInfo) -> Value {
    json!({
        "name": method.facts.name,
        "about": method.facts.about,
        "task": task.name(),
        "paper": method.facts.paper,
        "streams": method.facts.streams,
        "options": method.options,
    })
}

fn show_paper(paper: &Paper) {
    print(&heading(&paper.title));
    let place = paper
        .venue
        .clone()
        .or(paper.arxiv.as_ref().map(|a| format!("arXiv {a}")));
    let facts = [
        Some(format!(
            "paper {} · {} · {}",
            paper.number, paper.slug, paper.year
        )),
        place,
        (!paper.authors.is_empty()).then(|| paper.authors.join(", ")),
        paper.link.clone(),
        paper.code.as_ref().map(|c| {
            let licence = c.licence.as_deref().unwrap_or("licence not stated");
            format!("reference code: {} ({licence})", c.repository)
        }),
        Some(format!(
            "task: {} (family {})",
            paper.tasks.join(", "),
            paper.family
        )),
        Some(format!("methods: {}", paper.methods.join(", "))),
    ];
    for fact in facts.into_iter().flatten() {
        print(&fact);
    }
    print(&format!("\n{}\n", paper.summary));
    if !paper.published.is_empty() {
        print(&heading("Published"));
        for p in &paper.published {
            let details: Vec<&str> = [&p.data, &p.metric, &p.value]
                .into_iter()
                .filter_map(|d| d.as_deref())
                .collect();
            let details = if details.is_empty() {
                String::new()
            } else {
                format!(" [{}]", details.join(", "))
            };
            let doubt = if p.verified {
                ""
            } else {
                " (not checked against the paper)"
            };
            print(&format!("- {}{details}{doubt}", p.says));
        }
        print("");
    }
    print(&heading("Claims to try"));
    for claim in &paper.claims {
        let built = find_task(FAMILIES, &claim.task).is_ok_and(|(_, t)| {
            t.methods()
                .iter()
                .any(|m| m.facts.name == claim.method.name)
        });
        let state = match (built, claim.quick) {
            (false, _) => " (not built yet)",
            (true, true) => " (quick)",
            (true, false) => "",
        };
        print(&format!("- {}{state}: {}", claim.id, claim.says));
        print(&format!("    {}", condition(claim)));
        if let Some(note) = &claim.note {
            print(&format!("    {note}"));
        }
    }
    print("");
}

/// A claim as a formula in words.
fn condition(claim: &Claim) -> String {
    let rivals: Vec<&str> = claim.against.iter().map(|c| c.shown()).collect();
    let rival = match claim.target {
        Some(target) => target.to_string(),
        None => rivals.join(", "),
    };
    let rival = if claim.factor == 1.0 {
        rival
    } else {
        format!("{} x ({rival})", claim.factor)
    };
    let relation = match claim.direction {
        Direction::Higher => format!("above {rival}"),
        Direction::Lower => format!("below {rival}"),
        Direction::Equal => format!("equal to {rival} within {}", claim.margin),
    };
    let margin = if claim.margin != 0.0 && claim.direction != Direction::Equal {
        format!(" by {}", claim.margin)
    } else {
        String::new()
    };
    format!(
        "{} of {} on {}: {relation}{margin}; {} seeds",
        claim.metric,
        claim.method.shown(),
        claim.data,
        claim.seeds
    )
}

fn show_method(task: &dyn Task, method: &MethodInfo) {
    let facts = method.facts;
    print(&heading(&format!(
        "{} (method of task {})",
        facts.name,
        task.name()
    )));
    print(facts.about);
    match facts.paper {
        Some(paper) => print(&format!("from paper {paper}")),
        None => print("a baseline"),
    }
    if facts.streams {
        print("reads data larger than memory");
    }
    options(&method.options);
}

fn show_task(task: &dyn Task) {
    print(&heading(&format!("task {}", task.name())));
    print(&format!("{}\n", task.about()));
    let mut rows = table(&["method", "what it is", "from"]);
    for m in task.methods() {
        rows.add_row([
            m.facts.name,
            m.facts.about,
            m.facts.paper.unwrap_or("baseline"),
        ]);
    }
    print(&rows.to_string());
    let mut rows = table(&["metric", "better", "what it is"]);
    for m in task.metrics() {
        let better = match m.higher_is_better {
            Some(true) => "higher",
            Some(false) => "lower",
            None => "",
        };
        rows.add_row([m.name, better, m.about]);
    }
    print(&rows.to_string());
    if !task.inputs().is_empty() {
        print("\nFiles that it reads beside --data (--input name=FILE):");
        for (name, about) in task.inputs() {
            print(&format!("  {name}: {about}"));
        }
    }
    print("\nOptions of the task (--set option=value):");
    options(&task.options());
}

fn options(infos: &[OptionInfo]) {
    let mut rows = table(&["option", "default", "value", "what it does"]);
    for info in infos {
        let default = match &info.default {
            Value::String(text) => text.clone(),
            Value::Null => "none".into(),
            other => other.to_string(),
        };
        rows.add_row([
            info.name.clone(),
            default,
            info.kind.to_string(),
            info.about.clone(),
        ]);
    }
    print(&format!("{rows}\n"));
}
