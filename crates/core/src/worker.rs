//! The child's side of a job: reads an order from standard input, works, and answers in lines of JSON.

use crate::error::{Error, Result};
use crate::task::{Applied, Context, Family, Job, Measurement, Progress, Task};
use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Read, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What the child is to do, and within which limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// The work.
    pub work: Work,
    /// Bytes of memory that may be used.
    pub memory: Option<u64>,
    /// Device of neural computations.
    pub device: String,
}

/// A piece of work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Work {
    /// Run a method and score it.
    Measure(Job),
    /// Apply a method and write its output.
    Apply(Job, PathBuf),
}

/// A line of the child's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// How far it is.
    Progress(Progress),
    /// A measurement, the last word.
    Measured {
        /// What the job yields.
        measurement: Measurement,
        /// Largest resident memory of this process, where the system tells.
        ///
        /// More exact than what the parent learns: that number starts at the parent's own size.
        peak_bytes: Option<u64>,
    },
    /// Something was applied, the last word.
    Applied {
        /// What was written.
        applied: Applied,
        /// As above.
        peak_bytes: Option<u64>,
    },
    /// The work failed, the last word.
    Failed {
        /// Why.
        message: String,
        /// Whether the input was at fault.
        bad_input: bool,
    },
}

/// Does what standard input orders. The program calls this as its `job` command.
///
/// # Errors
/// The order cannot be read. A failure of the work is told to the parent and is no error here.
pub fn work(families: &[Family]) -> Result<()> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|e| Error::BadInput(format!("no order on standard input: {e}")))?;
    let order: Order = serde_json::from_str(&line).map_err(|_| {
        Error::BadInput("'papertrial job' is for papertrial itself; use 'papertrial run'".into())
    })?;
    end_with_parent();
    tell_panics();
    if let Some(limit) = order.memory {
        limit_memory(limit);
    }
    let word = match perform(&order, families) {
        Ok(word) => word,
        Err(e) => Word::Failed {
            message: e.to_string(),
            bad_input: e.exit_status() == 2,
        },
    };
    say(&word);
    Ok(())
}

fn perform(order: &Order, families: &[Family]) -> Result<Word> {
    let (Work::Measure(job) | Work::Apply(job, _)) = &order.work;
    let (family, task) = find_task(families, &job.task)?;
    let last = Mutex::new(Instant::now());
    let progress = |p: Progress| {
        // Ten lines a second are enough for a bar.
        if let Ok(mut last) = last.lock()
            && (last.elapsed() > Duration::from_millis(100) || p.done == p.total)
        {
            *last = Instant::now();
            say(&Word::Progress(p));
        }
    };
    let context = Context {
        memory: order.memory,
        device: order.device.clone(),
        ..context(family, task, job.seed, &progress)
    };
    Ok(match &order.work {
        Work::Measure(job) => Word::Measured {
            measurement: task.measure(job, &context)?,
            peak_bytes: peak_bytes(),
        },
        Work::Apply(job, out) => Word::Applied {
            applied: task.apply(job, out, &context)?,
            peak_bytes: peak_bytes(),
        },
    })
}

/// What a job of `task` may use, on the CPU and with no limit but the machine's.
pub fn context<'a>(
    family: &Family,
    task: &dyn Task,
    seed: u64,
    progress: &'a (dyn Fn(Progress) + Sync),
) -> Context<'a> {
    let streams: Vec<&str> = task
        .methods()
        .iter()
        .filter(|m| m.facts.streams)
        .map(|m| m.facts.name)
        .collect();
    Context {
        simulations: family.simulations,
        streams: streams.join(", "),
        progress,
        ..Context::with_seed(seed)
    }
}

/// The task named `name` and its family.
///
/// # Errors
/// [`Error::Unknown`] with the nearest name.
pub fn find_task<'a>(
    families: &'a [Family],
    name: &str,
) -> Result<(&'a Family, &'static dyn Task)> {
    families
        .iter()
        .flat_map(|f| f.tasks.iter().map(move |t| (f, *t)))
        .find(|(_, t)| t.name() == name)
        .ok_or_else(|| {
            Error::unknown(
                "task",
                name,
                families
                    .iter()
                    .flat_map(|f| f.tasks.iter().map(|t| t.name())),
                "'papertrial show' lists the tasks",
            )
        })
}

fn say(word: &Word) {
    if let Ok(text) = serde_json::to_string(word) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}

/// Standard input closes when the parent is gone, however it died; then this process ends too.
fn end_with_parent() {
    std::thread::spawn(|| {
        let mut rest = [0u8; 64];
        while let Ok(1..) = std::io::stdin().read(&mut rest) {}
        std::process::exit(1);
    });
}

/// A panic is a failed job with the panic's words.
fn tell_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("no message");
        let place = info
            .location()
            .map(|l| format!(" ({}:{})", l.file(), l.line()))
            .unwrap_or_default();
        say(&Word::Failed {
            message: format!("the method panicked: {text}{place}"),
            bad_input: false,
        });
        std::process::exit(101);
    }));
}

/// Memory beyond the limit is refused by the system; the allocation that asks for it ends the process.
fn limit_memory(limit: u64) {
    let _ = setrlimit(Resource::RLIMIT_DATA, limit, limit);
}

/// Largest resident memory of this process.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
