//! Runs jobs, each in a child process of the same program.
//!
//! The child's time, CPU and memory are its own; a limit can be enforced; a crash is one failed job. The child
//! speaks in lines of JSON on its standard output (see [`crate::worker`]).

use crate::error::{Error, Result, bytes};
use crate::journal::{Journal, Outcome};
use crate::task::{Job, Progress};
use crate::worker::{Order, Word, Work};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use wait4::{ResUse, Wait4};

/// How jobs are run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program that is started as a child, with the argument `job`.
    pub program: PathBuf,
    /// Jobs at a time.
    pub jobs: usize,
    /// Threads of a job; the machine's cores over `jobs` if 0.
    pub threads: usize,
    /// A job that takes longer is stopped and has failed.
    pub timeout: Option<Duration>,
    /// A job that takes more bytes of memory is stopped and has failed.
    pub memory: Option<u64>,
    /// Device of neural computations.
    pub device: String,
}

/// A job, where its result goes, and whether it must run alone.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The job.
    pub job: Job,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Whether it is timed and so must not share the machine.
    pub alone: bool,
}

/// What happens while jobs run.
pub enum Event<'a> {
    /// So many jobs are planned.
    Planned(usize),
    /// A job starts.
    Started(&'a Job),
    /// A running job tells how far it is.
    Step(&'a Job, Progress),
    /// A job ended, or was found in the journal (`true`).
    Ended(&'a Job, &'a Outcome, bool),
}

/// Set when the user asks the program to stop.
pub static STOP: AtomicBool = AtomicBool::new(false);

/// A job's outcome, and whether the journal had it.
pub type Ended = (Outcome, bool);

/// Runs all jobs that the journal does not hold; gives the outcomes in the order of `plan`.
///
/// Jobs that must run alone come after the others, one at a time. With `fresh`, the journal is not asked.
///
/// # Errors
/// [`Error::Interrupted`], or a journal that cannot be written. A job that fails is an outcome, not an error.
pub fn run(
    plan: &[Planned],
    settings: &Settings,
    journal: &Journal,
    fresh: bool,
    tell: &(dyn Fn(Event) + Sync),
) -> Result<Vec<Ended>> {
    tell(Event::Planned(plan.len()));
    let mut ended: Vec<Option<Ended>> = vec![None; plan.len()];
    let mut waiting = VecDeque::new();
    for (i, planned) in plan.iter().enumerate() {
        let known = if fresh {
            None
        } else {
            journal.find(&planned.fingerprint)?
        };
        match known {
            Some(outcome) => {
                tell(Event::Ended(&planned.job, &outcome, true));
                ended[i] = Some((outcome, true));
            }
            None => waiting.push_back(i),
        }
    }
    let (alone, shared): (VecDeque<usize>, VecDeque<usize>) =
        waiting.into_iter().partition(|i| plan[*i].alone);
    for (queue, jobs) in [(shared, settings.jobs.max(1)), (alone, 1)] {
        let queue = Mutex::new(queue);
        let (sender, receiver) = mpsc::channel::<(usize, Result<Outcome>)>();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = match settings.threads {
            0 => (cores / jobs).max(1),
            n => n,
        };
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                let sender = sender.clone();
                let queue = &queue;
                scope.spawn(move || {
                    while !STOP.load(Ordering::SeqCst) {
                        let next = queue.lock().ok().and_then(|mut q| q.pop_front());
                        let Some(i) = next else { break };
                        let job = &plan[i].job;
                        tell(Event::Started(job));
                        let outcome = child(&Work::Measure(job.clone()), settings, threads, &|p| {
                            tell(Event::Step(job, p));
                        })
                        .map(|(outcome, _)| outcome);
                        if sender.send((i, outcome)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            // The journal is written by this thread alone, as soon as a job ends.
            for (i, outcome) in receiver {
                let outcome = outcome?;
                journal.record(&plan[i].fingerprint, &plan[i].job, &outcome)?;
                tell(Event::Ended(&plan[i].job, &outcome, false));
                ended[i] = Some((outcome, false));
            }
            Ok::<(), Error>(())
        })?;
    }
    ended
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .ok_or(Error::Interrupted)
}

/// Runs one piece of work in a child process; gives its outcome and, of an application or a failure, its last word.
///
/// # Errors
/// [`Error::Interrupted`], or a child that cannot be started.
pub fn child(
    work: &Work,
    settings: &Settings,
    threads: usize,
    progress: &dyn Fn(Progress),
) -> Result<(Outcome, Option<Word>)> {
    let start = Instant::now();
    let mut child = Command::new(&settings.program)
        .arg("job")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env("RAYON_NUM_THREADS", threads.to_string())
        // The allocator takes a gigabyte ahead otherwise, which would count against a job's limit of memory.
        .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
        // A group of its own: a stop reaches the job's own processes too, and the terminal's Ctrl-C does not.
        .process_group(0)
        .spawn()
        .map_err(|e| Error::file(&settings.program, format!("cannot be started: {e}")))?;
    let group = Pid::from_raw(child.id() as i32);
    let order = Order {
        work: work.clone(),
        memory: settings.memory,
        device: settings.device.clone(),
    };
    // Standard input stays open: when it closes, because this program died, the child ends itself.
    let input = hand_over(&mut child, &order)?;
    let words = lines(child.stdout.take());
    let complaint = std::thread::spawn({
        let stderr = child.stderr.take();
        move || last_words(stderr)
    });
    let mut last = None;
    let mut stopped = None;
    let used = loop {
        match words.recv_timeout(Duration::from_millis(20)) {
            Ok(Word::Progress(p)) => progress(p),
            Ok(word) => last = Some(word),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if let Some(used) = child
            .try_wait4()
            .map_err(|e| Error::Failed(format!("a job could not be waited for: {e}")))?
        {
            break used;
        }
        let late = settings.timeout.filter(|limit| start.elapsed() > *limit);
        if stopped.is_none() {
            stopped = if STOP.load(Ordering::SeqCst) {
                Some(Error::Interrupted)
            } else {
                late.map(|limit| {
                    Error::Failed(format!(
                        "stopped: it took longer than --timeout {} s",
                        limit.as_secs_f64()
                    ))
                })
            };
            if stopped.is_some() {
                let _ = killpg(group, Signal::SIGKILL);
            }
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    // Whatever the job left running in its group ends with it.
    let _ = killpg(group, Signal::SIGKILL);
    drop(input);
    last = words
        .iter()
        .filter(|w| !matches!(w, Word::Progress(_)))
        .last()
        .or(last);
    let complaint = complaint.join().unwrap_or_default();
    if let Some(Error::Interrupted) = stopped {
        return Err(Error::Interrupted);
    }
    let failure = stopped.map(|e| e.to_string());
    Ok(conclude(
        last, failure, &used, &complaint, seconds, settings,
    ))
}

fn hand_over(child: &mut Child, order: &Order) -> Result<impl Write + use<>> {
    let mut input = child
        .stdin
        .take()
        .ok_or_else(|| Error::Failed("a job has no standard input".into()))?;
    let text = serde_json::to_string(order).map_err(|e| Error::Failed(e.to_string()))?;
    // A child that died at once shows in its status, not here.
    let _ = writeln!(input, "{text}").and_then(|()| input.flush());
    Ok(input)
}

fn lines(stdout: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Word> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let Some(stdout) = stdout else { return };
        for line in BufReader::new(stdout).lines().map_while(|l| l.ok()) {
            // A library that prints does no harm: only our own words are JSON.
            if let Ok(word) = serde_json::from_str(&line)
                && sender.send(word).is_err()
            {
                return;
            }
        }
    });
    receiver
}

/// The end of what the child wrote to standard error.
fn last_words(stderr: Option<impl Read>) -> String {
    const KEPT: usize = 4000;
    let mut text = Vec::new();
    if let Some(mut stderr) = stderr {
        let mut piece = [0u8; 4096];
        while let Ok(n @ 1..) = stderr.read(&mut piece) {
            text.extend_from_slice(&piece[..n]);
            if text.len() > 2 * KEPT {
                text.drain(..text.len() - KEPT);
            }
        }
    }
    String::from_utf8_lossy(&text).trim().to_owned()
}

fn conclude(
    last: Option<Word>,
    stopped: Option<String>,
    used: &ResUse,
    complaint: &str,
    seconds: f64,
    settings: &Settings,
) -> (Outcome, Option<Word>) {
    let mut outcome = Outcome {
        measurement: None,
        failure: None,
        seconds,
        cpu_seconds: (used.rusage.utime + used.rusage.stime).as_secs_f64(),
        peak_bytes: used.rusage.maxrss,
    };
    let over = settings.memory.is_some_and(|limit| {
        complaint.contains("memory allocation of") || used.rusage.maxrss > limit
    });
    match (stopped, last) {
        (Some(why), _) => outcome.failure = Some(why),
        (
            None,
            Some(Word::Measured {
                measurement,
                peak_bytes,
            }),
        ) => {
            outcome.measurement = Some(measurement);
            outcome.peak_bytes = peak_bytes.unwrap_or(outcome.peak_bytes);
        }
        (None, Some(word)) => {
            if let Word::Failed { message, .. } = &word {
                outcome.failure = Some(message.clone());
            }
            return (outcome, Some(word));
        }
        (None, _) if over => {
            outcome.failure = Some(format!(
                "stopped: it needed more than --memory {}",
                bytes(settings.memory.unwrap_or_default())
            ));
        }
        (None, _) => {
            let how = match (used.status.code(), used.status.signal()) {
                (_, Some(9)) => {
                    "was killed (signal 9): the system may have run out of memory".into()
                }
                (_, Some(signal)) => format!("was ended by signal {signal}"),
                (Some(code), _) => format!("ended with status {code} and no result"),
                _ => "ended without a result".into(),
            };
            let told = if complaint.is_empty() {
                String::new()
            } else {
                format!(": {complaint}")
            };
            outcome.failure = Some(format!("the job {how}{told}"));
        }
    }
    (outcome, None)
}
