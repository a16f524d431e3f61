//! HTML reports: one file, readable without a network, in light and dark.

mod plot;
mod style;

use crate::catalogue::{Claim, Direction};
use crate::data::{sets, write_whole};
use crate::error::{Result, bytes};
use crate::journal::now;
use crate::judge::{Estimate, Verdict, plain};
use crate::leaderboard::Leaderboard;
use crate::options::Settings;
use crate::task::MetricInfo;
use crate::trial::{Scored, Side, Trial};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Writes the report of trials.
///
/// # Errors
/// The file cannot be written.
pub fn write_trials(trials: &[Trial], path: &Path) -> Result<()> {
    write_whole(path, trials_page(trials).into_string().as_bytes())
}

/// Writes the report of a comparison.
///
/// # Errors
/// The file cannot be written.
pub fn write_leaderboard(board: &Leaderboard, metrics: &[MetricInfo], path: &Path) -> Result<()> {
    write_whole(
        path,
        leaderboard_page(board, metrics).into_string().as_bytes(),
    )
}

fn page(title: &str, body: Markup) -> Markup {
    let moment = UNIX_EPOCH + Duration::from_secs(now().max(0) as u64);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(style::CSS)) }
            }
            body {
                main {
                    h1 { (title) }
                    p.meta {
                        "papertrial " (env!("CARGO_PKG_VERSION")) ", "
                        (humantime::format_rfc3339_seconds(moment)) ". Intervals are Student's, at 95 %, over the seeds."
                    }
                    (body)
                }
            }
        }
    }
}

fn badge(verdict: Verdict) -> Markup {
    let class = match verdict {
        Verdict::Holds => "badge holds",
        Verdict::Fails => "badge fails",
        Verdict::Undecided => "badge undecided",
        Verdict::NotTried => "badge not-tried",
    };
    html! { span class=(class) { (verdict) } }
}

fn trials_page(trials: &[Trial]) -> Markup {
    page(
        "Claims on trial",
        html! {
            (summary(trials))
            @for trial in trials {
                @if trial.result.verdict != Verdict::NotTried || !trial.sides.is_empty() {
                    (trial_section(trial))
                }
            }
        },
    )
}

fn summary(trials: &[Trial]) -> Markup {
    html! {
        div.scroll {
            table {
                thead { tr {
                    th { "paper" } th { "claim" } th { "verdict" } th { "data" } th { "metric" }
                    th { "method" } th { "advantage" }
                } }
                tbody {
                    @for t in trials {
                        @let r = &t.result;
                        tr {
                            td { (r.paper) }
                            td {
                                @if t.sides.is_empty() { (r.claim) }
                                @else { a href={ "#" (anchor(t)) } { (r.claim) } }
                            }
                            td { (badge(r.verdict)) @if t.sides.is_empty() { " " span.meta { (r.why) } } }
                            td { (r.dataset) }
                            td { (r.metric) }
                            td.number { (scored(&r.method)) }
                            td.number { (interval(r.difference.as_ref())) }
                        }
                    }
                }
            }
        }
    }
}

fn anchor(trial: &Trial) -> String {
    format!("{}-{}", trial.paper.slug, trial.claim.id)
}

fn trial_section(trial: &Trial) -> Markup {
    let (paper, claim, result) = (&trial.paper, &trial.claim, &trial.result);
    html! {
        section id=(anchor(trial)) {
            h2 { (claim.says) " " (badge(result.verdict)) }
            p.meta {
                @match &paper.link {
                    Some(link) => { a href=(link) { (paper.title) } },
                    None => { (paper.title) },
                }
                ", " (paper.year)
            }
            p { (result.why) "." }
            @if let Some(note) = &claim.note { p.note { (note) } }
            div.scroll {
                table {
                    thead { tr {
                        th { "method" } th { (claim.metric) } th { "seeds" } th { "seconds a job" }
                        th { "memory" } th { "options" }
                    } }
                    tbody {
                        @for (side, scored_side) in trial.sides.iter().zip(scores(trial)) {
                            tr {
                                td { (side.name) }
                                td.number { (scored(scored_side)) }
                                td.number { (side.values.len()) }
                                td.number { (plain(mean_seconds(side))) }
                                td.number { (bytes(side.costs.iter().map(|c| c.1).max().unwrap_or(0))) }
                                td { (options(&side.options)) }
                            }
                        }
                        @if let Some(target) = claim.target {
                            tr { td { "target" } td.number { (plain(target)) } td {} td {} td {} td {} }
                        }
                    }
                }
            }
            (PreEscaped(plot::seeds(trial)))
            (curves(trial.sides.iter().map(|s| (s.name.as_str(), &s.curves[..]))))
            @for side in &trial.sides {
                @for (seed, why) in &side.failures {
                    p.failure { (side.name) ", seed " (seed) ": " (why) }
                }
                @for note in &side.notes {
                    p.meta { (side.name) ": " (note) }
                }
            }
            (provenance(&claim.data, &claim.data_options))
            @if let Some(side) = trial.sides.first() {
                p.meta { "Options of the task: " (options(&side.task_options)) }
            }
            p.meta { "Direction: " (direction(claim)) ". Again: " code { (command(trial)) } }
        }
    }
}

/// Values of the sides, in their order.
fn scores(trial: &Trial) -> impl Iterator<Item = &Scored> {
    std::iter::once(&trial.result.method).chain(&trial.result.against)
}

fn mean_seconds(side: &Side) -> f64 {
    side.costs.iter().map(|c| c.0).sum::<f64>() / side.costs.len().max(1) as f64
}

fn direction(claim: &Claim) -> &'static str {
    match claim.direction {
        Direction::Higher => "higher is better",
        Direction::Lower => "lower is better",
        Direction::Equal => "should be equal within the margin",
    }
}

/// The command that tries this trial's paper again, with this trial's number of seeds.
fn command(trial: &Trial) -> String {
    format!(
        "papertrial try {} --seeds {}",
        trial.paper.slug, trial.claim.seeds
    )
}

fn provenance(data: &str, given: &Settings) -> Markup {
    match sets::find(data) {
        Ok(set) => html! {
            p.meta {
                "Data: " (set.name) ", " (set.rows) " rows. Source: " (set.source) ". Licence: " (set.licence)
                ". SHA-256: " code { (set.sha256) }
            }
        },
        Err(_) => html! {
            p.meta { "Data: simulation " (data) ", drawn anew for each seed " (options(given)) }
        },
    }
}

fn options(settings: &Settings) -> Markup {
    html! {
        @for (name, value) in settings {
            code { (name) "=" (shown(value)) } " "
        }
    }
}

fn shown(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn scored(s: &Scored) -> String {
    let estimate = s.mean.map(|mean| Estimate {
        mean,
        low: s.low,
        high: s.high,
    });
    interval(estimate.as_ref())
}

fn interval(e: Option<&Estimate>) -> String {
    match e {
        None => "–".into(),
        Some(e) => match e.interval() {
            Some((low, high)) => format!("{} [{}, {}]", plain(e.mean), plain(low), plain(high)),
            None => plain(e.mean),
        },
    }
}

/// Curves of several methods: one plot for each name of a curve.
fn curves<'a>(sides: impl Iterator<Item = (&'a str, &'a [crate::task::Curve])>) -> Markup {
    let mut plots: Vec<(&str, Vec<(&str, &crate::task::Curve)>)> = Vec::new();
    for (side, curves) in sides {
        for curve in curves.iter().filter(|c| c.points.len() > 1) {
            match plots.iter_mut().find(|(name, _)| *name == curve.name) {
                Some((_, lines)) => lines.push((side, curve)),
                None => plots.push((&curve.name, vec![(side, curve)])),
            }
        }
    }
    html! {
        @if !plots.is_empty() {
            details {
                summary { "Curves of the first seed" }
                @for (name, lines) in &plots {
                    (PreEscaped(plot::curves(name, lines)))
                }
            }
        }
    }
}

fn leaderboard_page(board: &Leaderboard, metrics: &[MetricInfo]) -> Markup {
    let shown_metrics: Vec<&MetricInfo> = metrics
        .iter()
        .filter(|m| board.rows.iter().any(|r| r.metrics.contains_key(m.name)))
        .collect();
    let d = &board.dataset;
    page(
        &format!("{} on {}", board.task, d.path),
        html! {
            p {
                @if let (Some(rows), Some(columns)) = (d.rows, d.columns) { (rows) " rows, " (columns) " columns, " }
                (board.seeds) " seeds."
                @if let Some(sum) = &d.checksum { " SHA-256: " code { (sum) } }
            }
            div.scroll {
                table {
                    thead { tr {
                        th { "method" }
                        @for m in &shown_metrics { th title=(m.about) { (m.name) } }
                        th { "seconds" } th { "CPU seconds" } th { "memory" }
                    } }
                    tbody {
                        @for row in &board.rows {
                            tr class=[row.best.then_some("best")] {
                                td { (row.method) @if row.best { " ★" } @if row.front { " ◆" } }
                                @for m in &shown_metrics {
                                    td.number { (interval(row.metrics.get(m.name))) }
                                }
                                td.number { (plain(row.seconds)) }
                                td.number { (plain(row.cpu_seconds)) }
                                td.number { (bytes(row.peak_bytes)) }
                            }
                        }
                    }
                }
            }
            @if let Some(by) = board.by {
                p.meta {
                    "★ best mean " (by.name) ": " (by.about) ". ◆ on the Pareto front: none is better at no higher "
                    (board.against.map_or("seconds of a job", |m| m.name)) "."
                }
                (PreEscaped(plot::leaderboard(board, by)))
            }
            @for row in board.rows.iter().filter(|r| r.failed > 0) {
                p.failure { (row.method) ": " (row.failed) " of " (board.seeds) " jobs failed: " (row.why.as_deref().unwrap_or("")) }
            }
            (curves(board.rows.iter().zip(&board.curves).map(|(r, c)| (r.method.as_str(), &c[..]))))
            @for note in &board.notes { p.meta { (note) } }
            h2 { "Options" }
            div.scroll { table { tbody {
                @for (row, given) in board.rows.iter().zip(&board.options) {
                    tr { td { (row.method) } td { (options(given)) } }
                }
            } } }
            h2 { "Metrics" }
            ul { @for m in &shown_metrics { li { b { (m.name) } ": " (m.about) } } }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;
    use crate::trial::{JobCounts, TrialResult};

    fn trial() -> Trial {
        let catalogue = Catalogue::load(None).unwrap();
        let paper = catalogue.paper("ila-sdp").unwrap().clone();
        let claim = paper.claims[0].clone();
        let side = |name: &str, values: &[f64]| Side {
            name: name.into(),
            options: Settings::new(),
            task_options: Settings::new(),
            values: (0..).zip(values.iter().copied()).collect(),
            curves: Vec::new(),
            notes: vec!["<b>note & more</b>".into()],
            failures: vec![(2, "out of luck".into())],
            costs: vec![(1.5, 1 << 20)],
        };
        let scored = |name: &str, mean: f64| Scored {
            name: name.into(),
            mean: Some(mean),
            low: Some(mean - 0.1),
            high: Some(mean + 0.1),
        };
        Trial {
            result: TrialResult {
                paper: paper.slug.clone(),
                claim: claim.id.clone(),
                verdict: Verdict::Holds,
                why: "because".into(),
                dataset: "iris".into(),
                metric: "error".into(),
                margin: 0.0,
                method: scored("ila-sdp", 0.25),
                against: vec![scored("k-means", 0.5)],
                difference: None,
                seeds: 3,
                jobs: JobCounts::default(),
                seconds: 3.0,
            },
            paper,
            claim,
            sides: vec![side("ila-sdp", &[0.2, 0.3]), side("k-means", &[0.5, 0.5])],
        }
    }

    #[test]
    fn report_is_self_contained_and_escapes_what_it_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.html");
        write_trials(&[trial()], &path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for part in [
            "Claims on trial",
            "holds",
            "0.25 [0.15, 0.35]",
            "<svg",
            "out of luck",
            "CC BY",
            "papertrial try ila-sdp --seeds 3",
        ] {
            assert!(text.contains(part), "{part} is missing");
        }
        assert!(text.contains("&lt;b&gt;note &amp; more&lt;/b&gt;"));
        // Nothing is fetched: links to the paper are the only addresses.
        for loader in ["<script", "<link", "src=", "@import", "url("] {
            assert!(!text.contains(loader), "{loader}");
        }
    }

    #[test]
    fn report_into_a_missing_folder_is_told() {
        let e = write_trials(&[trial()], Path::new("no/such/r.html")).unwrap_err();
        assert!(e.to_string().contains("does not exist"), "{e}");
    }
}
