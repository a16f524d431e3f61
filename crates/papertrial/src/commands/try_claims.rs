//! `papertrial try`: claims on trial.

use super::journal;
use crate::FAMILIES;
use crate::cli::{Common, TryArgs};
use crate::terminal::{self, Bars, print};
use papertrial_core::catalogue::{Catalogue, Claim, Paper};
use papertrial_core::judge::{Estimate, Verdict};
use papertrial_core::report;
use papertrial_core::trial::{Scored, Setting, Trial, try_claims};
use papertrial_core::worker::find_task;
use papertrial_core::{Error, Result, home};
use std::process::ExitCode;

pub fn run(args: &TryArgs, common: &Common) -> Result<ExitCode> {
    let catalogue = Catalogue::load(common.catalog.as_deref())?;
    let claims = chosen(args, &catalogue)?;
    let journal = journal()?;
    let bars = Bars::new();
    let trials = try_claims(
        &claims,
        &Setting {
            families: FAMILIES,
            runner: &args.running.runner()?,
            journal: &journal,
            seeds: args.seeds,
            options: &args.running.settings()?,
            fresh: args.running.fresh,
        },
        &|event| bars.tell(event),
    );
    bars.clear();
    let trials = trials?;
    let path = match &args.report {
        Some(path) => path.clone(),
        None => {
            let folder = home::home()?.join("reports");
            std::fs::create_dir_all(&folder).map_err(|e| Error::file(&folder, e))?;
            folder.join("try.html")
        }
    };
    report::write_trials(&trials, &path)?;
    if common.json {
        terminal::print_json(&trials.iter().map(|t| &t.result).collect::<Vec<_>>())?;
    } else {
        show(&trials);
        print(&format!("report: {}", path.display()));
    }
    let broken = trials.iter().any(|t| t.result.jobs.failed > 0);
    let lost = args.strict && trials.iter().any(|t| t.result.verdict == Verdict::Fails);
    Ok(ExitCode::from(u8::from(broken || lost)))
}

/// The claims that the words choose. Without words: the quick ones whose method is built.
fn chosen<'a>(args: &TryArgs, catalogue: &'a Catalogue) -> Result<Vec<(&'a Paper, &'a Claim)>> {
    let everything = args.all || args.task.is_some() || !args.papers.is_empty();
    let papers: Vec<&Paper> = if args.papers.is_empty() {
        catalogue.papers.iter().collect()
    } else {
        args.papers
            .iter()
            .map(|name| catalogue.paper(name))
            .collect::<Result<_>>()?
    };
    let mut claims: Vec<(&Paper, &Claim)> = papers
        .into_iter()
        .flat_map(|p| p.claims.iter().map(move |c| (p, c)))
        .collect();
    if let Some(task) = &args.task {
        let known: Vec<&str> = claims.iter().map(|(_, c)| c.task.as_str()).collect();
        if !known.contains(&task.as_str()) {
            return Err(Error::unknown(
                "task with claims",
                task,
                known,
                "'papertrial papers' shows the tasks",
            ));
        }
        claims.retain(|(_, c)| c.task == *task);
    }
    if args.quick || !everything {
        claims.retain(|(_, c)| c.quick);
    }
    if !everything {
        claims.retain(|(_, c)| {
            find_task(FAMILIES, &c.task)
                .is_ok_and(|(_, t)| t.methods().iter().any(|m| m.facts.name == c.method.name))
        });
    }
    if claims.is_empty() {
        return Err(Error::BadInput("no claim is left to try".into()));
    }
    Ok(claims)
}

fn show(trials: &[Trial]) {
    let mut table = terminal::table(&[
        "paper", "claim", "data", "metric", "method", "against", "verdict",
    ]);
    for trial in trials {
        let r = &trial.result;
        let against: Vec<String> = r.against.iter().map(scored).collect();
        let mut row = terminal::row([&r.paper, &r.claim, &r.dataset, &r.metric]);
        row.add_cell(scored(&r.method).into());
        row.add_cell(against.join("\n").into());
        row.add_cell(terminal::verdict(r.verdict));
        table.add_row(row);
    }
    print(&table.to_string());
    for trial in trials {
        let r = &trial.result;
        if r.verdict != Verdict::NotTried || trials.len() < 20 {
            print(&format!(
                "{}/{}: {}: {}",
                r.paper, r.claim, r.verdict, r.why
            ));
        }
    }
    let count = |v: Verdict| trials.iter().filter(|t| t.result.verdict == v).count();
    let (mut done, mut failed, mut reused) = (0, 0, 0);
    for jobs in trials.iter().map(|t| t.result.jobs) {
        done += jobs.done;
        failed += jobs.failed;
        reused += jobs.reused;
    }
    print(&format!(
        "{} claims: {} hold, {} fail, {} undecided, {} not tried; jobs: {done} done, {failed} failed, {reused} from the journal",
        trials.len(),
        count(Verdict::Holds),
        count(Verdict::Fails),
        count(Verdict::Undecided),
        count(Verdict::NotTried),
    ));
}

fn scored(s: &Scored) -> String {
    let estimate = s.mean.map(|mean| Estimate {
        mean,
        low: s.low,
        high: s.high,
    });
    format!("{} {}", s.name, terminal::estimate(estimate.as_ref()))
}
