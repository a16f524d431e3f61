//! The errors of the workspace: each names the file, column or option and says what would be right.

use std::path::{Path, PathBuf};

/// The result of everything that can go wrong here.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in the words that a user sees.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be used.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it and what would be right.
        problem: String,
    },
    /// A line of a text file is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A column of a table cannot be used.
    #[error("{table}: column '{column}': {problem}")]
    Column {
        /// The file or data set.
        table: String,
        /// The column.
        column: String,
        /// What is wrong with it and what would be right.
        problem: String,
    },
    /// An option has a value that it cannot have.
    #[error("option {option}: {problem}")]
    Option {
        /// The option, as the user types it.
        option: String,
        /// What is wrong with it and what would be right.
        problem: String,
    },
    /// A name that nothing has.
    #[error("there is no {what} named '{name}'{}", suggestion(.nearest, .list))]
    Unknown {
        /// What kind of thing was named: `method`, `column`, …
        what: &'static str,
        /// The name that was given.
        name: String,
        /// The nearest name that exists.
        nearest: Option<String>,
        /// The command that lists what exists, or the names themselves.
        list: String,
    },
    /// More memory is needed than may be used.
    #[error(
        "{what} needs about {} of memory, more than the limit of {}: raise --memory, use fewer rows, or take a method that streams ({streams})",
        bytes(*needed), bytes(*limit)
    )]
    Memory {
        /// What needs it.
        what: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        limit: u64,
        /// Methods of the task that can stream, in words.
        streams: String,
    },
    /// Bad usage or bad input of another kind.
    #[error("{0}")]
    BadInput(String),
    /// The work itself failed.
    #[error("{0}")]
    Failed(String),
    /// The user stopped the program.
    #[error("interrupted; finished jobs are in the journal, the same command goes on from there")]
    Interrupted,
}

impl Error {
    /// A file that cannot be used.
    pub fn file(path: impl AsRef<Path>, problem: impl std::fmt::Display) -> Self {
        Error::File {
            path: path.as_ref().to_path_buf(),
            problem: problem.to_string(),
        }
    }

    /// A column that cannot be used.
    pub fn column(table: &str, column: &str, problem: impl std::fmt::Display) -> Self {
        Error::Column {
            table: table.into(),
            column: column.into(),
            problem: problem.to_string(),
        }
    }

    /// An option with an impossible value.
    pub fn option(option: &str, problem: impl std::fmt::Display) -> Self {
        Error::Option {
            option: option.into(),
            problem: problem.to_string(),
        }
    }

    /// A name that nothing has, with the nearest of `known` as a suggestion.
    pub fn unknown<'a>(
        what: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
        list: impl Into<String>,
    ) -> Self {
        Error::Unknown {
            what,
            name: name.into(),
            nearest: nearest(name, known).map(str::to_owned),
            list: list.into(),
        }
    }

    /// The exit status of the program: 1 failed to run, 2 bad usage or input, 130 interrupted.
    pub fn exit_status(&self) -> u8 {
        match self {
            Error::Failed(_) => 1,
            Error::Interrupted => 130,
            _ => 2,
        }
    }

    /// The kind of error, as `--json` gives it.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Failed(_) => "failed",
            Error::Interrupted => "interrupted",
            _ => "bad-input",
        }
    }
}

fn suggestion(nearest: &Option<String>, list: &str) -> String {
    match nearest {
        Some(name) => format!("; did you mean '{name}'? ({list})"),
        None => format!(" ({list})"),
    }
}

/// The name nearest to `name`, if one is near enough to be a slip of the keyboard.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    known
        .into_iter()
        .map(|k| {
            (
                strsim::normalized_damerau_levenshtein(&lower, &k.to_lowercase()),
                k,
            )
        })
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

/// Bytes in words: `1.5 GiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_the_nearest_name_and_strangers_find_none() {
        let known = ["k-means", "ppp", "ila-sdp"];
        assert_eq!(nearest("kmeans", known), Some("k-means"));
        assert_eq!(nearest("ILA-SPD", known), Some("ila-sdp"));
        assert_eq!(nearest("transformer", known), None);
        let e = Error::unknown("method", "kmeens", known, "see papertrial show clustering");
        assert_eq!(
            e.to_string(),
            "there is no method named 'kmeens'; did you mean 'k-means'? (see papertrial show clustering)"
        );
    }

    #[test]
    fn bytes_are_readable() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }

    #[test]
    fn exit_statuses_tell_failure_from_bad_input() {
        assert_eq!(Error::Failed("x".into()).exit_status(), 1);
        assert_eq!(Error::option("k", "x").exit_status(), 2);
        assert_eq!(Error::Interrupted.exit_status(), 130);
    }
}
