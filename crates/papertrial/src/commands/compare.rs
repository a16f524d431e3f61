//! `papertrial compare`: a leaderboard on the user's data.

use super::journal;
use crate::FAMILIES;
use crate::cli::{Common, CompareArgs};
use crate::terminal::{self, Bars, print};
use papertrial_core::error::bytes;
use papertrial_core::judge::plain;
use papertrial_core::leaderboard::{Comparison, Leaderboard, compare};
use papertrial_core::worker::find_task;
use papertrial_core::{Result, plan, report};
use std::process::ExitCode;

pub fn run(args: &CompareArgs, common: &Common) -> Result<ExitCode> {
    let (family, task) = find_task(FAMILIES, &args.task)?;
    let methods = if args.methods.is_empty() {
        task.methods()
    } else {
        args.methods
            .iter()
            .map(|name| plan::method(task, name))
            .collect::<Result<_>>()?
    };
    let by = args
        .metric
        .as_deref()
        .map(|m| plan::metric(task, m))
        .transpose()?;
    let source = args.data.source(family, task)?;
    let bars = Bars::new();
    let board = compare(
        &Comparison {
            family,
            task,
            methods,
            source,
            options: args.running.settings()?,
            seeds: args.seeds,
            by,
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

fn show(board: &Leaderboard, metrics: impl Iterator<Item = &'static str>) {
    let d = &board.dataset;
    print(&format!(
        "{} on {} ({} rows, {} columns), {} seeds",
        board.task, d.path, d.rows, d.columns, board.seeds
    ));
    let shown: Vec<&str> = metrics
        .filter(|m| board.rows.iter().any(|r| r.metrics.contains_key(*m)))
        .collect();
    let mut heads = vec!["method"];
    heads.extend(&shown);
    heads.extend(["seconds", "memory"]);
    let mut table = terminal::table(&heads);
    for row in &board.rows {
        let name = if row.best {
            format!("{} *", row.method)
        } else {
            row.method.clone()
        };
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
