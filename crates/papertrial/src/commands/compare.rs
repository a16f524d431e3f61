//! `papertrial compare`: a leaderboard on the user's data.

use super::journal;
use crate::FAMILIES;
use crate::cli::{Common, CompareArgs};
use crate::terminal::{self, Bars, print};
use papertrial_core::error::bytes;
use papertrial_core::judge::plain;
use papertrial_core::leaderboard::{Comparison, Leaderboard, compare};
use papertrial_core::options::assignment;
use papertrial_core::plan::{self, Axis};
use papertrial_core::worker::find_task;
use papertrial_core::{Result, report};
use std::process::ExitCode;

pub fn run(args: &CompareArgs, common: &Common) -> Result<ExitCode> {
    let (family, task) = find_task(FAMILIES, &args.task)?;
    let methods: Vec<_> = if args.methods.is_empty() {
        task.methods()
    } else {
        args.methods
            .iter()
            .map(|name| plan::method(task, name))
            .collect::<Result<_>>()?
    };
    let metric = |name: &Option<String>| name.as_deref().map(|m| plan::metric(task, m)).transpose();
    let axes = args
        .grid
        .iter()
        .map(|text| axis(text))
        .collect::<Result<Vec<_>>>()?;
    let source = args.data.source(family, task, false)?;
    let bars = Bars::new();
    let board = compare(
        &Comparison {
            family,
            task,
            contenders: plan::grid(task, &methods, &axes)?,
            source,
            options: args.running.settings()?,
            seeds: args.seeds,
            by: metric(&args.metric)?,
            against: metric(&args.against)?,
        },
        &args.running.runner()?,
        &journal()?,
        args.running.fresh,
        &|event| bars.tell(event),
    );
    bars.clear();
    let board = board?;
    if let Some(path) = &args.report {
        report::write_leaderboard(&board, task.metrics(), path)?;
    }
    if common.json {
        terminal::print_json(&board)?;
    } else {
        show(&board, task.metrics().iter().map(|m| m.name));
        if let Some(path) = &args.report {
            print(&format!("report: {}", path.display()));
        }
    }
    // Methods that do not suit the data are rows with their reason; it is a failure only if nothing ran.
    let none_ran = board.rows.iter().all(|r| r.metrics.is_empty());
    Ok(ExitCode::from(u8::from(none_ran)))
}

/// An axis of the grid as typed: `encoding`, or `window=4/8/16`.
fn axis(text: &str) -> Result<Axis> {
    if !text.contains('=') {
        return Ok(Axis {
            option: text.trim().into(),
            values: None,
        });
    }
    let (option, _) = assignment(text)?;
    let values = text[text.find('=').map_or(0, |i| i + 1)..]
        .split('/')
        .map(|value| assignment(&format!("{option}={value}")).map(|(_, value)| value))
        .collect::<Result<_>>()?;
    Ok(Axis {
        option,
        values: Some(values),
    })
}

fn show(board: &Leaderboard, metrics: impl Iterator<Item = &'static str>) {
    let d = &board.dataset;
    let size = match (d.rows, d.columns) {
        (Some(rows), Some(columns)) => format!(" ({rows} rows, {columns} columns)"),
        _ => String::new(),
    };
    print(&format!(
        "{} on {}{size}, {} seeds",
        board.task, d.path, board.seeds
    ));
    let shown: Vec<&str> = metrics
        .filter(|m| board.rows.iter().any(|r| r.metrics.contains_key(*m)))
        .collect();
    let mut heads = vec!["method"];
    heads.extend(&shown);
    heads.extend(["seconds", "memory"]);
    let mut table = terminal::table(&heads);
    for row in &board.rows {
        let mut name = row.method.clone();
        for (mark, has) in [(" *", row.best), (" +", row.front)] {
            if has {
                name.push_str(mark);
            }
        }
        let mut cells = vec![name];
        cells.extend(
            shown
                .iter()
                .map(|m| terminal::estimate(row.metrics.get(*m))),
        );
        cells.push(plain(row.seconds));
        cells.push(bytes(row.peak_bytes));
        table.add_row(cells);
    }
    print(&table.to_string());
    if let Some(by) = board.by {
        print(&format!("* best mean {}: {}", by.name, by.about));
        let cost = board.against.map_or("seconds of a job", |m| m.name);
        print(&format!(
            "+ on the Pareto front: none is better in {} at no higher {cost}",
            by.name
        ));
    }
    for row in board.rows.iter().filter(|r| r.failed > 0) {
        let why = row.why.as_deref().unwrap_or("no reason given");
        print(&format!(
            "{}: {} of {} jobs failed: {why}",
            row.method, row.failed, board.seeds
        ));
    }
    for note in &board.notes {
        print(&format!("note: {note}"));
    }
}
