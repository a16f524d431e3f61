//! Runs the program in a folder of its own.

// Each test program uses its own part of this.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub struct Bench {
    pub dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Bench {
        Bench {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// The program with these words, its folders inside the bench.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_papertrial"));
        command
            .args(words)
            .current_dir(self.dir.path())
            .env("PAPERTRIAL_HOME", self.path("home"))
            .env("PAPERTRIAL_CACHE", self.path("cache"))
            .env_remove("PAPERTRIAL_DATA");
        command
    }

    pub fn run(&self, words: &[&str]) -> Ran {
        Ran::of(self.command(words).output().unwrap(), words)
    }

    /// Runs words that must succeed; gives what was printed.
    pub fn ok(&self, words: &[&str]) -> String {
        let ran = self.run(words);
        assert_eq!(ran.status, 0, "{ran:?}");
        ran.out
    }

    /// Runs words that must succeed and print JSON.
    pub fn json(&self, words: &[&str]) -> serde_json::Value {
        let mut all = words.to_vec();
        all.push("--json");
        serde_json::from_str(&self.ok(&all)).unwrap()
    }

    /// Runs words that must be refused as bad input, each part told; gives the message.
    pub fn refused(&self, words: &[&str], told: &[&str]) -> String {
        let ran = self.run(words);
        assert_eq!(ran.status, 2, "{ran:?}");
        for part in told {
            assert!(ran.err.contains(part), "'{part}' is not told: {ran:?}");
        }
        assert!(!ran.err.contains("panicked"), "{ran:?}");
        ran.err
    }
}

#[derive(Debug)]
pub struct Ran {
    pub words: Vec<String>,
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    fn of(output: Output, words: &[&str]) -> Ran {
        Ran {
            words: words.iter().map(|w| w.to_string()).collect(),
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Names in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
