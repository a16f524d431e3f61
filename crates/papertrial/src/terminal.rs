//! What a person sees: tables, colours, progress bars, errors.

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Row, Table, presets};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use papertrial_core::Error;
use papertrial_core::judge::{Estimate, Verdict, plain};
use papertrial_core::runner::Event;
use papertrial_core::task::Job;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, UNIX_EPOCH};

/// Tells an error, in words or as JSON, and gives its exit status.
pub fn tell_error(e: &Error, json: bool) -> ExitCode {
    if json {
        let value = serde_json::json!({"error": {"kind": e.kind(), "message": e.to_string()}});
        eprintln!("{value}");
    } else {
        anstream::eprintln!("\x1b[1;31merror:\x1b[0m {e}");
    }
    ExitCode::from(e.exit_status())
}

/// Prints a value as JSON.
pub fn print_json<T: serde::Serialize>(value: &T) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Failed(e.to_string()))?;
    print(&text);
    Ok(())
}

/// Prints a text; a reader that has gone away is no error.
pub fn print(text: &str) {
    use std::io::Write;
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// A heading in bold.
pub fn heading(text: &str) -> String {
    format!("\x1b[1m{text}\x1b[0m")
}

/// An empty table with these heads.
pub fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(
        heads
            .iter()
            .map(|h| Cell::new(h).add_attribute(Attribute::Bold)),
    );
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    // Read by a program, a row is one line, and never coloured.
    if coloured() {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

fn coloured() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// A row that starts with these texts.
pub fn row(texts: [&String; 4]) -> Row {
    Row::from(texts)
}

/// A verdict in its colour.
pub fn verdict(verdict: Verdict) -> Cell {
    let cell = Cell::new(verdict);
    match verdict {
        Verdict::Holds => cell.fg(Color::Green),
        Verdict::Fails => cell.fg(Color::Red),
        Verdict::Undecided => cell.fg(Color::Yellow),
        Verdict::NotTried => cell.add_attribute(Attribute::Dim),
    }
}

/// Mean and half the interval: `0.95 ±0.02`.
pub fn estimate(e: Option<&Estimate>) -> String {
    match e {
        None => "-".into(),
        Some(e) => match e.interval() {
            Some((low, high)) => format!("{} ±{}", plain(e.mean), plain((high - low) / 2.0)),
            None => plain(e.mean),
        },
    }
}

/// Seconds since 1970 as a date and time (UTC).
pub fn date(seconds: i64) -> String {
    let moment = UNIX_EPOCH + Duration::from_secs(seconds.max(0) as u64);
    humantime::format_rfc3339_seconds(moment)
        .to_string()
        .replace('T', " ")
        .replace('Z', "")
}

/// Bars for running jobs, on standard error; nothing where that is no terminal.
pub struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    running: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    /// Empty bars.
    pub fn new() -> Bars {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let total = all.add(ProgressBar::new(0));
        total.set_style(style("{elapsed_precise} [{bar:30}] {pos}/{len} jobs {msg}"));
        Bars {
            all,
            total,
            running: Mutex::default(),
        }
    }

    /// Shows what happens.
    pub fn tell(&self, event: Event) {
        let Ok(mut running) = self.running.lock() else {
            return;
        };
        match event {
            Event::Planned(jobs) => self.total.set_length(jobs as u64),
            Event::Started(job) => {
                let bar = self.all.add(ProgressBar::new(0));
                bar.set_style(style("         {spinner} {msg}"));
                bar.set_message(name(job));
                bar.enable_steady_tick(Duration::from_millis(120));
                running.insert(name(job), bar);
            }
            Event::Step(job, step) => {
                if let Some(bar) = running.get(&name(job)) {
                    let of = if step.total > 0 {
                        format!("/{}", step.total)
                    } else {
                        String::new()
                    };
                    bar.set_message(format!("{}: {} {}{of}", name(job), step.what, step.done));
                }
            }
            Event::Ended(job, _, _) => {
                if let Some(bar) = running.remove(&name(job)) {
                    bar.finish_and_clear();
                }
                self.total.inc(1);
            }
        }
    }

    /// Takes the bars away.
    pub fn clear(&self) {
        self.total.finish_and_clear();
        let _ = self.all.clear();
    }
}

/// A bar of bytes.
pub fn byte_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(style(
        "{elapsed_precise} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
    ));
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn name(job: &Job) -> String {
    let data = job
        .inputs
        .get("data")
        .map(|i| i.shown())
        .unwrap_or_default();
    format!("{} on {data}, seed {}", job.method, job.seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_show_the_interval_only_where_there_is_one() {
        let e = |low, high| Estimate {
            mean: 0.5,
            low,
            high,
        };
        assert_eq!(estimate(Some(&e(Some(0.25), Some(0.75)))), "0.5 ±0.25");
        assert_eq!(estimate(Some(&e(Some(0.5), Some(0.5)))), "0.5");
        assert_eq!(estimate(Some(&e(None, None))), "0.5");
        assert_eq!(estimate(None), "-");
    }
}
