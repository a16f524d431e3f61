//! Jobs in child processes: limits, crashes, reuse, interruption. This test is its own program: started with
//! `job` it is the child, with `parent` it is a program that tries claims and may be killed.

use arrow::array::{ArrayRef, Float64Array};
use arrow::record_batch::RecordBatch;
use libtest_mimic::{Arguments, Failed, Trial as Test};
use papertrial_core::catalogue::{Catalogue, Claim, Paper};
use papertrial_core::data::Roles;
use papertrial_core::journal::{Journal, Outcome};
use papertrial_core::judge::Verdict;
use papertrial_core::options::{self, OptionInfo, Settings};
use papertrial_core::runner;
use papertrial_core::task::{
    Applied, Context, Facts, Family, Job, Measurement, MethodInfo, MetricInfo, Simulation, Task,
};
use papertrial_core::trial::{Setting, Trial, try_claims};
use papertrial_core::{Error, Result, worker};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Options of every method here.
#[derive(Debug, Default, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Mischief {
    /// Value that is returned, plus the seed.
    value: f64,
    /// File to which each run adds a line.
    log: String,
}

struct Pranks;

const METHODS: [&str; 9] = [
    "good", "slow", "panics", "exits", "killed", "eats", "sleeps", "refuses", "prints",
];

impl Task for Pranks {
    fn name(&self) -> &'static str {
        "pranks"
    }
    fn about(&self) -> &'static str {
        "misbehave"
    }
    fn methods(&self) -> Vec<MethodInfo> {
        METHODS
            .iter()
            .map(|name| MethodInfo {
                facts: Facts {
                    name,
                    about: "",
                    paper: None,
                    streams: false,
                },
                options: options::describe::<Mischief>(),
            })
            .collect()
    }
    fn metrics(&self) -> &'static [MetricInfo] {
        &[
            MetricInfo {
                name: "score",
                about: "",
                higher_is_better: Some(true),
                timing: false,
            },
            MetricInfo {
                name: "pace",
                about: "",
                higher_is_better: Some(true),
                timing: true,
            },
        ]
    }
    fn options(&self) -> Vec<OptionInfo> {
        Vec::new()
    }
    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let given: Mischief = options::build("pranks", &job.options)?;
        let rows = job.table("data", context)?.rows();
        if !given.log.is_empty() {
            let mut log = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&given.log)
                .unwrap();
            writeln!(log, "{} {}", job.method, job.seed).unwrap();
        }
        match job.method.as_str() {
            "slow" => std::thread::sleep(Duration::from_millis(250)),
            "panics" => panic!("seed {} is unlucky", job.seed),
            "exits" => std::process::exit(7),
            "killed" => {
                std::process::Command::new("kill")
                    .args(["-9", &std::process::id().to_string()])
                    .status()
                    .unwrap();
            }
            "eats" => {
                let eaten = vec![1u8; 3 << 30];
                return Err(Error::Failed(format!(
                    "ate {}",
                    eaten.iter().map(|b| u64::from(*b)).sum::<u64>()
                )));
            }
            "sleeps" => std::thread::sleep(Duration::from_secs(600)),
            "refuses" => return Err(Error::option("value", "never right")),
            "prints" => println!("something that is not JSON\n{{\"nor\": \"ours\"}}"),
            _ => {}
        }
        let score = given.value + job.seed as f64 + rows as f64;
        Ok(Measurement {
            metrics: BTreeMap::from([("score".into(), score), ("pace".into(), score)]),
            ..Measurement::default()
        })
    }
    fn apply(&self, _: &Job, _: &Path, _: &Context) -> Result<Applied> {
        Err(Error::Failed("not here".into()))
    }
}

const FAMILIES: &[Family] = &[Family {
    name: "mischief",
    tasks: &[&Pranks],
    simulations: &[Simulation {
        name: "nothing",
        about: "one row",
        options: Vec::new,
        roles: Roles::default,
        generate: |_, _| {
            let column: ArrayRef = Arc::new(Float64Array::from(vec![0.0]));
            RecordBatch::try_from_iter([("x", column)]).map_err(|e| Error::Failed(e.to_string()))
        },
    }],
    version: "1",
}];

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("job") => worker::work(FAMILIES).unwrap(),
        Some("parent") => parent(Path::new(&std::env::args().nth(2).unwrap())),
        _ => tests(),
    }
}

/// Tries a slow claim in this folder; a test kills this program meanwhile.
fn parent(folder: &Path) {
    let log = folder.join("log").display().to_string();
    run(folder, &[claim("slow", &["good"], 4, &log)], &settings(1)).unwrap();
}

fn tests() {
    let test = |name: &str, body: fn()| {
        Test::test(name, move || {
            std::panic::catch_unwind(body).map_err(|e| {
                let text = e.downcast_ref::<String>().cloned();
                let text = text.or(e.downcast_ref::<&str>().map(|t| t.to_string()));
                Failed::from(text.unwrap_or_default())
            })
        })
    };
    libtest_mimic::run(
        &Arguments::from_args(),
        vec![
            test(
                "bad_methods_are_failed_rows_and_the_others_stand",
                bad_methods_are_failed_rows,
            ),
            test("a_job_over_time_is_stopped", a_job_over_time_is_stopped),
            test("a_job_over_memory_is_stopped", a_job_over_memory_is_stopped),
            test(
                "jobs_are_reused_and_shared_by_claims",
                jobs_are_reused_and_shared,
            ),
            test(
                "a_killed_parent_loses_at_most_the_running_job",
                a_killed_parent_loses_little,
            ),
            test(
                "children_end_with_their_parent",
                children_end_with_their_parent,
            ),
            test(
                "two_programs_share_one_journal",
                two_programs_share_one_journal,
            ),
            test("costs_are_the_childs_own", costs_are_the_childs_own),
        ],
    )
    .exit();
}

fn settings(jobs: usize) -> runner::Settings {
    runner::Settings {
        program: std::env::current_exe().unwrap(),
        jobs,
        threads: 1,
        timeout: None,
        memory: None,
        device: "cpu".into(),
    }
}

fn paper() -> Paper {
    let mut paper = Catalogue::load(None).unwrap().papers.remove(0);
    paper.slug = "prank-paper".into();
    paper
}

fn claim(method: &str, against: &[&str], seeds: u64, log: &str) -> Claim {
    let against: Vec<String> = against
        .iter()
        .map(|a| format!("{{ name = \"{a}\" }}"))
        .collect();
    toml::from_str(&format!(
        "id = \"c\"\nsays = \"s\"\ntask = \"pranks\"\ndata = \"nothing\"\nmetric = \"score\"\ndirection = \"higher\"\nseeds = {seeds}\nmethod = {{ name = \"{method}\", options = {{ value = 1.0, log = '{log}' }} }}\nagainst = [{}]",
        against.join(", ")
    ))
    .unwrap()
}

fn run(folder: &Path, claims: &[Claim], runner: &runner::Settings) -> Result<Vec<Trial>> {
    let paper = paper();
    let pairs: Vec<(&Paper, &Claim)> = claims.iter().map(|c| (&paper, c)).collect();
    try_claims(
        &pairs,
        &Setting {
            families: FAMILIES,
            runner,
            journal: &Journal::open(folder)?,
            seeds: None,
            options: &Settings::new(),
            fresh: false,
        },
        &|_| (),
    )
}

fn failure(method: &str, runner: &runner::Settings) -> String {
    let dir = tempfile::tempdir().unwrap();
    let trials = run(dir.path(), &[claim(method, &["good"], 2, "")], runner).unwrap();
    let trial = &trials[0];
    assert_eq!(trial.result.verdict, Verdict::NotTried, "{method}");
    assert_eq!(
        (trial.result.jobs.done, trial.result.jobs.failed),
        (2, 2),
        "{method}"
    );
    // The rival's values are there all the same.
    assert_eq!(trial.sides[1].values.len(), 2);
    trial.sides[0].failures[0].1.clone()
}

fn bad_methods_are_failed_rows() {
    for (method, told) in [
        ("panics", "panicked: seed 0 is unlucky"),
        ("exits", "status 7"),
        ("killed", "signal 9"),
        ("refuses", "never right"),
    ] {
        let why = failure(method, &settings(2));
        assert!(why.contains(told), "{method}: {why}");
    }
    let dir = tempfile::tempdir().unwrap();
    let trials = run(
        dir.path(),
        &[claim("prints", &["good"], 2, "")],
        &settings(1),
    )
    .unwrap();
    assert_eq!(trials[0].result.verdict, Verdict::Holds);
}

fn a_job_over_time_is_stopped() {
    let limit = runner::Settings {
        timeout: Some(Duration::from_millis(400)),
        ..settings(2)
    };
    let why = failure("sleeps", &limit);
    assert!(why.contains("--timeout 0.4"), "{why}");
}

fn a_job_over_memory_is_stopped() {
    let limit = runner::Settings {
        memory: Some(256 << 20),
        ..settings(2)
    };
    let why = failure("eats", &limit);
    assert!(why.contains("--memory 256.0 MiB"), "{why}");
}

fn jobs_are_reused_and_shared() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let text = log.display().to_string();
    let first = claim("good", &["slow"], 3, &text);
    let second = Claim {
        id: "d".into(),
        ..first.clone()
    };
    let trials = run(dir.path(), &[first.clone(), second], &settings(2)).unwrap();
    assert_eq!(trials[0].result.verdict, Verdict::Holds);
    assert_eq!(trials[1].result.verdict, Verdict::Holds);
    // Two claims on the same jobs ran them once.
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 3);
    let again = run(dir.path(), &[first], &settings(1)).unwrap();
    assert_eq!(again[0].result.jobs.reused, 6);
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 3);
    assert_eq!(again[0].result.method, trials[0].result.method);
    // More seeds run only what is missing.
    let more = run(
        dir.path(),
        &[claim("good", &["slow"], 4, &text)],
        &settings(1),
    )
    .unwrap();
    assert_eq!(
        (more[0].result.jobs.reused, more[0].result.jobs.done),
        (6, 2)
    );
}

fn start_parent(folder: &Path) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args([Path::new("parent"), folder])
        .spawn()
        .unwrap()
}

fn lines(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("waited in vain for {what}");
}

fn finished_slow_jobs(folder: &Path) -> Vec<u64> {
    let journal = Journal::open(folder).unwrap();
    let rows = journal.jobs(100).unwrap();
    rows.iter()
        .filter(|r| r.job.method == "slow")
        .map(|r| r.job.seed)
        .collect()
}

fn a_killed_parent_loses_little() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut parent = start_parent(dir.path());
    wait_for("the second job", || lines(&log).len() == 2);
    parent.kill().unwrap();
    parent.wait().unwrap();
    let kept = finished_slow_jobs(dir.path());
    assert!(!kept.is_empty() && kept.len() < 4, "{kept:?}");
    assert!(start_parent(dir.path()).wait().unwrap().success());
    assert_eq!(finished_slow_jobs(dir.path()).len(), 4);
    // What was in the journal did not run again: at most the running job ran twice.
    let ran = lines(&log);
    for seed in &kept {
        assert_eq!(
            ran.iter().filter(|l| **l == format!("slow {seed}")).count(),
            1,
            "{ran:?}"
        );
    }
    assert!(ran.len() <= 5, "{ran:?}");
}

fn children_end_with_their_parent() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut parent = start_parent(dir.path());
    wait_for("the first job", || !lines(&log).is_empty());
    let id = parent.id();
    // A child is started by one of the parent's threads.
    let all: Vec<PathBuf> = std::fs::read_dir(format!("/proc/{id}/task"))
        .unwrap()
        .flatten()
        .flat_map(|t| {
            let text = std::fs::read_to_string(t.path().join("children")).unwrap_or_default();
            text.split_whitespace()
                .map(|c| Path::new("/proc").join(c))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(!all.is_empty());
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_for("the children to end", || {
        all.iter().all(|c| {
            let state = std::fs::read_to_string(c.join("stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z")
        })
    });
}

fn two_programs_share_one_journal() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = start_parent(dir.path());
    let mut second = start_parent(dir.path());
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    let mut seeds = finished_slow_jobs(dir.path());
    seeds.sort_unstable();
    assert_eq!(seeds, [0, 1, 2, 3]);
}

fn costs_are_the_childs_own() {
    let dir = tempfile::tempdir().unwrap();
    // A large parent must not make its children look large.
    let ballast = vec![1u8; 200 << 20];
    run(dir.path(), &[claim("slow", &["good"], 2, "")], &settings(1)).unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let outcomes: Vec<Outcome> = journal
        .jobs(10)
        .unwrap()
        .into_iter()
        .map(|r| r.outcome)
        .collect();
    assert_eq!(
        ballast.iter().map(|b| u64::from(*b)).sum::<u64>(),
        200 << 20
    );
    for outcome in &outcomes {
        assert!(
            outcome.peak_bytes > 1 << 20 && outcome.peak_bytes < 100 << 20,
            "{outcome:?}"
        );
        assert!(outcome.cpu_seconds < outcome.seconds + 0.1, "{outcome:?}");
    }
    assert!(outcomes.iter().any(|o| o.seconds >= 0.25));
}
