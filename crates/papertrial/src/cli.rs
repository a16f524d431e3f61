//! The command line: every option is documented where it is defined.

use clap::{Args, Parser, Subcommand};
use papertrial_core::data::{ReadOptions, Roles};
use papertrial_core::options::{Settings, assignment};
use papertrial_core::plan::{self, Source};
use papertrial_core::task::{Family, Input, Task};
use papertrial_core::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Papers that run: machine-learning methods on your own data, and their claims on trial.
#[derive(Parser)]
#[command(
    name = "papertrial",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  papertrial try                                   try the quick claims and print their verdicts
  papertrial papers clustering                     search the catalogue
  papertrial compare clustering --data my.csv --label kind --set k=3
  papertrial run ppp --data my.csv --out groups.csv

Exit status: 0 done; 1 something failed to run; 2 bad usage or bad input; 130 interrupted."
)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args)]
pub struct Common {
    /// Print JSON instead of tables; errors are JSON too, on standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Folder with catalogue entries of your own, over the built-in ones
    #[arg(long, global = true, value_name = "DIR")]
    pub catalog: Option<PathBuf>,
    /// Read the command and its options from a TOML file; words on the command line win
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum Command {
    /// List the papers of the catalogue, or search it
    Papers(PapersArgs),
    /// Show a paper, method or task: facts, claims, options with their defaults
    Show(ShowArgs),
    /// Try claims and print their verdicts
    Try(TryArgs),
    /// Compare the methods of a task on your data
    Compare(CompareArgs),
    /// Apply one method to your data
    Run(RunArgs),
    /// List, download and check data sets
    Data(DataArgs),
    /// Show the journal: past verdicts and jobs
    History(HistoryArgs),
    /// Print completions for a shell
    #[command(
        after_help = "Example:\n  papertrial completions bash > ~/.local/share/bash-completion/completions/papertrial"
    )]
    Completions(CompletionsArgs),
    /// Do one job; papertrial calls this itself
    #[command(hide = true)]
    Job,
}

#[derive(Args)]
#[command(after_help = "Example:\n  papertrial papers federated fairness --status planned")]
pub struct PapersArgs {
    /// Words to search for in titles and summaries
    pub words: Vec<String>,
    /// Only papers of this task or family
    #[arg(long, value_name = "TASK")]
    pub task: Option<String>,
    /// Only papers with this status: built, planned, holds, fails, undecided
    #[arg(long, value_name = "STATUS", value_parser = ["built", "planned", "holds", "fails", "undecided"])]
    pub status: Option<String>,
    /// Print the status table of the README
    #[arg(long)]
    pub markdown: bool,
    /// Take the verdicts from a file that 'try --json' or 'history --json' wrote, not from the journal
    #[arg(long, value_name = "FILE")]
    pub verdicts: Option<PathBuf>,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  papertrial show ila-sdp\n  papertrial show clustering\n  papertrial show k-means"
)]
pub struct ShowArgs {
    /// Paper, method or task; without it, the tasks are listed
    pub name: Option<String>,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  papertrial try                        the quick claims\n  papertrial try ila-sdp                all claims of a paper\n  papertrial try --task clustering --seeds 5 --report trial.html"
)]
pub struct TryArgs {
    /// Papers whose claims are tried; without any, the quick claims are
    pub papers: Vec<String>,
    /// Try the claims about this task
    #[arg(long, value_name = "TASK")]
    pub task: Option<String>,
    /// Try every claim of the catalogue
    #[arg(long)]
    pub all: bool,
    /// Only quick claims
    #[arg(long)]
    pub quick: bool,
    /// Exit with status 1 if a claim fails
    #[arg(long)]
    pub strict: bool,
    /// Number of seeds in place of each claim's own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub seeds: Option<u64>,
    #[command(flatten)]
    pub running: Running,
    /// Where the HTML report goes; without it, into PAPERTRIAL_HOME
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  papertrial compare clustering --data my.csv --label kind --set k=3\n  papertrial compare clustering --data iris --methods k-means,ppp --seeds 5 --report iris.html\n  papertrial compare flow-intrusion --data flows.csv --methods flowtransformer --grid encoding,head --against parameters"
)]
pub struct CompareArgs {
    /// Task, such as clustering
    pub task: String,
    #[command(flatten)]
    pub data: DataArg,
    /// Methods to compare, with commas; without it, all of the task
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub methods: Vec<String>,
    /// Every combination of these options' values: an option that is one of several words, or NAME=A/B/C
    #[arg(long, value_name = "OPTION,OPTION=A/B", value_delimiter = ',')]
    pub grid: Vec<String>,
    /// Metric by which they are ordered
    #[arg(long, value_name = "METRIC")]
    pub metric: Option<String>,
    /// Metric against which it is weighed on the Pareto front; without it, seconds of a job
    #[arg(long, value_name = "METRIC")]
    pub against: Option<String>,
    /// Number of seeds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub seeds: u64,
    #[command(flatten)]
    pub running: Running,
    /// Write an HTML report
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  papertrial run ppp --data my.csv --id name --out groups.csv\n  papertrial run k-means --data new.csv --model groups.model.json --out new-groups.csv\n  tcpdump -w - | papertrial run flowtransformer --data - --follow --model detector --out alerts.jsonl"
)]
pub struct RunArgs {
    /// Method, such as k-means
    pub method: String,
    /// Task, where several have a method of that name
    #[arg(long, value_name = "TASK")]
    pub task: Option<String>,
    #[command(flatten)]
    pub data: DataArg,
    /// Apply a model that an earlier run wrote, instead of fitting one
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Where the output goes: .csv, .parquet, .arrow or .jsonl
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
    /// Go on reading as --data grows, or from standard input with --data -, until interrupted or its end
    #[arg(long)]
    pub follow: bool,
    /// Seed of every random draw
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub running: Running,
}

#[derive(Args)]
pub struct DataArgs {
    #[command(subcommand)]
    pub action: DataAction,
}

#[derive(Subcommand)]
pub enum DataAction {
    /// List the data sets and simulations
    #[command(after_help = "Example:\n  papertrial data list")]
    List,
    /// Download a data set from its publisher into the cache
    #[command(after_help = "Example:\n  papertrial data get adult")]
    Get {
        /// Data set
        name: String,
    },
    /// Print where a data set's file is
    #[command(after_help = "Example:\n  papertrial data path adult")]
    Path {
        /// Data set
        name: String,
    },
    /// Check the bytes of data sets
    #[command(after_help = "Example:\n  papertrial data verify iris")]
    Verify {
        /// Data sets; without any, all that are at hand
        names: Vec<String>,
    },
}

#[derive(Args)]
#[command(after_help = "Example:\n  papertrial history --jobs 20")]
pub struct HistoryArgs {
    /// Show the last jobs instead of the last verdicts
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "20")]
    pub jobs: Option<usize>,
    /// How many verdicts
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub most: usize,
    /// Show the newest verdict of every claim
    #[arg(long, conflicts_with = "most")]
    pub latest: bool,
}

#[derive(Args)]
pub struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell
    pub shell: clap_complete::Shell,
}

/// What is read, and the roles of its columns.
#[derive(Args)]
pub struct DataArg {
    /// File (CSV, Parquet, Arrow, JSON lines, .npy), data set or simulation
    #[arg(long, value_name = "FILE")]
    pub data: String,
    /// Rows that show what is wanted, for tasks that look for the like of them
    #[arg(long, value_name = "FILE")]
    pub query: Option<PathBuf>,
    /// Answers that came in so far, for tasks that ask step by step
    #[arg(long, value_name = "FILE")]
    pub answers: Option<PathBuf>,
    /// Any other file that the task reads ('show TASK' lists them); may be repeated
    #[arg(long, value_name = "NAME=FILE")]
    pub input: Vec<String>,
    /// Column with the truth
    #[arg(long, value_name = "COL")]
    pub label: Option<String>,
    /// Column with text
    #[arg(long, value_name = "COL")]
    pub text: Option<String>,
    /// Column with the group of a row
    #[arg(long, value_name = "COL")]
    pub group: Option<String>,
    /// Column that identifies a row
    #[arg(long, value_name = "COL")]
    pub id: Option<String>,
    /// Column with the time of a row
    #[arg(long, value_name = "COL")]
    pub time: Option<String>,
    /// Columns to compute with, with commas; without it, all that have no other role
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub features: Vec<String>,
    /// What separates the cells of a CSV file; found by itself otherwise
    #[arg(long, value_name = "CHAR")]
    pub delimiter: Option<String>,
    /// The first line of the CSV file holds names
    #[arg(long, overrides_with = "no_header")]
    pub header: bool,
    /// The first line of the CSV file is data
    #[arg(long)]
    pub no_header: bool,
}

impl DataArg {
    pub fn roles(&self) -> Roles {
        Roles {
            label: self.label.clone(),
            text: self.text.clone(),
            group: self.group.clone(),
            id: self.id.clone(),
            time: self.time.clone(),
            features: self.features.clone(),
        }
    }

    /// The data with everything that is read beside them. Data that are `growing` are a file that is still being written,
    /// or standard input for `-`, whose content is not known before its end.
    pub fn source(&self, family: &Family, task: &dyn Task, growing: bool) -> Result<Source> {
        let read = self.read()?;
        let mut source = if growing {
            Source {
                input: Input::File {
                    path: PathBuf::from(&self.data),
                    read: read.clone(),
                    checksum: String::new(),
                },
                roles: self.roles(),
                others: BTreeMap::new(),
            }
        } else {
            plan::source(&self.data, &Settings::new(), self.roles(), &read, family)?
        };
        let named = [("query", &self.query), ("answers", &self.answers)];
        for (name, path) in named {
            if let Some(path) = path {
                source = source.with(name, path, &read, task)?;
            }
        }
        for text in &self.input {
            let (name, path) = text
                .split_once('=')
                .ok_or_else(|| Error::option("--input", format!("'{text}' should be NAME=FILE")))?;
            source = source.with(name, Path::new(path), &read, task)?;
        }
        Ok(source)
    }

    pub fn read(&self) -> Result<ReadOptions> {
        let delimiter = match self.delimiter.as_deref() {
            None => None,
            Some("\\t" | "tab") => Some('\t'),
            Some(text) => {
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(c), None) => Some(c),
                    _ => {
                        return Err(Error::option(
                            "--delimiter",
                            format!("'{text}' should be one character, or tab"),
                        ));
                    }
                }
            }
        };
        Ok(ReadOptions {
            delimiter,
            header: match (self.header, self.no_header) {
                (_, true) => Some(false),
                (true, _) => Some(true),
                _ => None,
            },
            columns: Vec::new(),
        })
    }
}

/// How jobs are run.
#[derive(Args)]
pub struct Running {
    /// Set an option of the methods or of the task; may be repeated
    #[arg(long, value_name = "OPTION=VALUE")]
    pub set: Vec<String>,
    /// Option budget: a share of the rows (5% or 0.05) or a number of rows (10000)
    #[arg(long, value_name = "ROWS", value_parser = budget)]
    pub budget: Option<f64>,
    /// Jobs at a time; timed ones always run alone
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: u16,
    /// Threads of a job; without it, the cores over the jobs
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: u16,
    /// Stop a job after this long: 90, 90s, 5m, 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Memory that a job may use: 500M, 2G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub memory: Option<u64>,
    /// Device of neural computations
    #[arg(long, value_name = "cpu|cuda:N|vulkan:N", default_value = "cpu", value_parser = device)]
    pub device: String,
    /// Run jobs again even if the journal has their results
    #[arg(long)]
    pub fresh: bool,
}

impl Running {
    pub fn settings(&self) -> Result<Settings> {
        let mut all = Settings::new();
        if let Some(budget) = self.budget {
            all.insert("budget".into(), budget.into());
        }
        for text in &self.set {
            let (name, value) = assignment(text)?;
            all.insert(name, value);
        }
        Ok(all)
    }

    pub fn runner(&self) -> Result<papertrial_core::runner::Settings> {
        Ok(papertrial_core::runner::Settings {
            program: std::env::current_exe()
                .map_err(|e| Error::Failed(format!("this program cannot find itself: {e}")))?,
            jobs: self.jobs.into(),
            threads: self.threads.into(),
            timeout: self.timeout,
            memory: self.memory,
            device: self.device.clone(),
        })
    }
}

fn budget(text: &str) -> std::result::Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(n) if n.is_finite() && (unit == 1.0 || n <= 100.0) => Ok(n / unit),
        _ => Err("should be a share, 5% or 0.05, or a number of rows".into()),
    }
}

/// Checks the form of a device's name; whether this build has it is told where it is used.
fn device(text: &str) -> std::result::Result<String, String> {
    let known = match text.split_once(':') {
        None => matches!(text, "cpu" | "cuda" | "vulkan"),
        Some((kind, index)) => matches!(kind, "cuda" | "vulkan") && index.parse::<usize>().is_ok(),
    };
    if known {
        Ok(text.to_owned())
    } else {
        Err("should be cpu, cuda:N or vulkan:N".into())
    }
}

fn duration(text: &str) -> std::result::Result<Duration, String> {
    let told = || "should be seconds, or a number with s, m or h: 90, 5m, 2h".to_owned();
    let duration = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| told())?,
        Err(_) => humantime::parse_duration(text).map_err(|_| told())?,
    };
    if duration.is_zero() {
        Err("should be above 0".into())
    } else {
        Ok(duration)
    }
}

fn size(text: &str) -> std::result::Result<u64, String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let power = match unit
        .trim()
        .trim_end_matches("iB")
        .trim_end_matches(['B', 'b'])
    {
        "" => 0,
        "K" | "k" => 1,
        "M" | "m" => 2,
        "G" | "g" => 3,
        "T" | "t" => 4,
        _ => return Err("should be bytes, or end in K, M, G or T: 500M, 2G".into()),
    };
    match number.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 1e9 => Ok((n * 1024f64.powi(power)) as u64),
        _ => Err("should be a number above 0".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn budgets_and_devices() {
        assert_eq!(budget("5%").unwrap(), 0.05);
        assert_eq!(budget("0.05").unwrap(), 0.05);
        assert_eq!(budget("10000").unwrap(), 10000.0);
        for bad in ["", "x", "101%", "inf"] {
            assert!(budget(bad).is_err(), "{bad}");
        }
        assert!(device("cpu").is_ok() && device("cuda:1").is_ok());
        for bad in ["", "gpu", "cpu:0", "cuda:x"] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_and_sizes() {
        assert_eq!(duration("90").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("1m 30s").unwrap(), Duration::from_secs(90));
        assert_eq!(size("1G").unwrap(), 1 << 30);
        assert_eq!(size("512 MiB").unwrap(), 512 << 20);
        assert_eq!(size("10").unwrap(), 10);
        for bad in ["", "x", "-1", "1 moon", "0"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for bad in ["", "G", "0", "1X"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
