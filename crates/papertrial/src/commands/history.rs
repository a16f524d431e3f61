//! `papertrial history`: the journal.

use super::journal;
use crate::cli::{Common, HistoryArgs};
use crate::terminal::{self, date, print};
use papertrial_core::Result;
use papertrial_core::error::bytes;
use papertrial_core::judge::plain;
use std::process::ExitCode;

pub fn run(args: &HistoryArgs, common: &Common) -> Result<ExitCode> {
    let journal = journal()?;
    match args.jobs {
        Some(most) => {
            let rows = journal.jobs(most)?;
            if common.json {
                terminal::print_json(&rows)?;
                return Ok(ExitCode::SUCCESS);
            }
            let mut table = terminal::table(&[
                "finished (UTC)",
                "method",
                "data",
                "seed",
                "seconds",
                "memory",
                "outcome",
            ]);
            for row in &rows {
                let outcome = &row.outcome;
                table.add_row([
                    date(row.finished),
                    row.job.method.clone(),
                    row.job
                        .inputs
                        .get("data")
                        .map(|i| i.shown())
                        .unwrap_or_default(),
                    row.job.seed.to_string(),
                    plain(outcome.seconds),
                    bytes(outcome.peak_bytes),
                    outcome.failure.clone().unwrap_or_else(|| "done".into()),
                ]);
            }
            print(&table.to_string());
        }
        None => {
            let rows = if args.latest {
                journal.latest_verdicts()?
            } else {
                journal.verdicts(args.most)?
            };
            if common.json {
                terminal::print_json(&rows)?;
                return Ok(ExitCode::SUCCESS);
            }
            let mut table =
                terminal::table(&["finished (UTC)", "paper", "claim", "verdict", "why"]);
            for row in &rows {
                table.add_row([
                    date(row.finished),
                    row.paper.clone(),
                    row.claim.clone(),
                    row.verdict.clone(),
                    row.result["why"].as_str().unwrap_or_default().to_owned(),
                ]);
            }
            print(&table.to_string());
        }
    }
    Ok(ExitCode::SUCCESS)
}
