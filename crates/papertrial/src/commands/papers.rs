//! `papertrial papers`: the catalogue, listed or searched, and the README's status table.

use super::{journal, methods_named};
use crate::cli::{Common, PapersArgs};
use crate::terminal;
use papertrial_core::catalogue::{Catalogue, Paper};
use papertrial_core::{Error, Result, home, search};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;

/// Where a paper stands.
#[derive(Debug, Clone, Default, Serialize)]
struct Status {
    /// Whether every method of it is built.
    built: bool,
    /// Claims by their newest verdict.
    holds: usize,
    fails: usize,
    undecided: usize,
    not_tried: usize,
}

impl Status {
    fn of(paper: &Paper, verdicts: &HashMap<(String, String), String>) -> Status {
        let mut status = Status {
            built: paper.methods.iter().all(|m| !methods_named(m).is_empty()),
            ..Status::default()
        };
        for claim in &paper.claims {
            let key = (paper.slug.clone(), claim.id.clone());
            match verdicts.get(&key).map(String::as_str) {
                Some("holds") => status.holds += 1,
                Some("fails") => status.fails += 1,
                Some("undecided") => status.undecided += 1,
                _ => status.not_tried += 1,
            }
        }
        status
    }

    fn has(&self, word: &str) -> bool {
        match word {
            "built" => self.built,
            "planned" => !self.built,
            "holds" => self.holds > 0,
            "fails" => self.fails > 0,
            _ => self.undecided > 0,
        }
    }

    fn words(&self) -> String {
        let counts = [
            (self.holds, "holds"),
            (self.fails, "fails"),
            (self.undecided, "undecided"),
            (self.not_tried, "not tried"),
        ];
        let counts: Vec<String> = counts
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, word)| format!("{n} {word}"))
            .collect();
        if self.built {
            counts.join(", ")
        } else {
            "not built yet".into()
        }
    }
}

pub fn run(args: &PapersArgs, common: &Common) -> Result<ExitCode> {
    let catalogue = Catalogue::load(common.catalog.as_deref())?;
    let verdicts = match &args.verdicts {
        Some(path) => verdicts_of_file(path)?,
        None => verdicts_of_journal()?,
    };
    if args.markdown {
        terminal::print(markdown(&catalogue, &verdicts).trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let words = args.words.join(" ");
    let order: Vec<usize> = if words.trim().is_empty() {
        (0..catalogue.papers.len()).collect()
    } else {
        search::search(&catalogue.papers, &words)?
    };
    if let Some(task) = &args.task {
        check_task(&catalogue, task)?;
    }
    let found: Vec<(&Paper, Status)> = order
        .into_iter()
        .map(|i| &catalogue.papers[i])
        .filter(|p| {
            args.task
                .as_ref()
                .is_none_or(|t| p.tasks.contains(t) || p.family == *t)
        })
        .map(|p| (p, Status::of(p, &verdicts)))
        .filter(|(_, s)| args.status.as_ref().is_none_or(|word| s.has(word)))
        .collect();
    if common.json {
        let rows: Vec<serde_json::Value> = found
            .iter()
            .map(|(p, s)| {
                serde_json::json!({
                    "number": p.number, "slug": p.slug, "title": p.title, "year": p.year,
                    "venue": p.venue, "arxiv": p.arxiv, "link": p.link, "family": p.family,
                    "tasks": p.tasks, "methods": p.methods, "summary": p.summary, "status": s,
                })
            })
            .collect();
        terminal::print_json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    if found.is_empty() {
        terminal::print("no paper matches; 'papertrial papers' without words lists all");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = terminal::table(&["", "paper", "title", "task", "status"]);
    for (paper, status) in &found {
        table.add_row([
            paper.number.to_string(),
            paper.slug.clone(),
            paper.title.clone(),
            paper.tasks.join(", "),
            status.words(),
        ]);
    }
    terminal::print(&table.to_string());
    terminal::print(&format!(
        "{} papers. 'papertrial show PAPER' tells more, 'papertrial try PAPER' tries its claims.",
        found.len()
    ));
    Ok(ExitCode::SUCCESS)
}

fn check_task(catalogue: &Catalogue, task: &str) -> Result<()> {
    let known: Vec<&str> = catalogue
        .papers
        .iter()
        .flat_map(|p| p.tasks.iter().chain([&p.family]))
        .map(String::as_str)
        .collect();
    if known.contains(&task) {
        Ok(())
    } else {
        Err(Error::unknown(
            "task",
            task,
            known,
            "'papertrial papers' shows the tasks",
        ))
    }
}

/// Newest verdict by paper and claim. A journal that does not exist yet is not made for this.
fn verdicts_of_journal() -> Result<HashMap<(String, String), String>> {
    if !home::home()?.join("journal.sqlite").exists() {
        return Ok(HashMap::new());
    }
    Ok(journal()?
        .latest_verdicts()?
        .into_iter()
        .map(|v| ((v.paper, v.claim), v.verdict))
        .collect())
}

/// What is read of a verdict in a file.
#[derive(Deserialize)]
struct Row {
    paper: String,
    claim: String,
    verdict: String,
}

fn verdicts_of_file(path: &Path) -> Result<HashMap<(String, String), String>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
    let rows: Vec<Row> = serde_json::from_str(&text).map_err(|e| {
        Error::file(
            path,
            format!(
                "is not what 'papertrial try --json' or 'papertrial history --json' prints: {e}"
            ),
        )
    })?;
    Ok(rows
        .into_iter()
        .map(|r| ((r.paper, r.claim), r.verdict))
        .collect())
}

/// The status table of the README.
fn markdown(catalogue: &Catalogue, verdicts: &HashMap<(String, String), String>) -> String {
    use std::fmt::Write;
    let mut text =
        String::from("| | paper | family | task | claims |\n| --- | --- | --- | --- | --- |\n");
    for paper in &catalogue.papers {
        let title = match &paper.link {
            Some(link) => format!("[{}]({link})", paper.slug),
            None => paper.slug.clone(),
        };
        let _ = writeln!(
            text,
            "| {} | {title} | {} | {} | {} |",
            paper.number,
            paper.family,
            paper.tasks.join(", "),
            Status::of(paper, verdicts).words()
        );
    }
    text
}
