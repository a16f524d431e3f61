//! The journal: an embedded database of all jobs and verdicts.
//!
//! One row a finished job, written in one transaction when the job ends; SQLite's write-ahead log keeps it whole
//! through crashes, and several programs may use it at once.

use crate::error::{Error, Result};
use crate::task::{Job, Measurement};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long to wait for another program that uses the journal.
const PATIENCE: Duration = Duration::from_secs(30);

/// Steps from each version of the schema to the next; their number is the version that this program writes.
const MIGRATIONS: &[&str] = &[
    "CREATE TABLE jobs (
        fingerprint TEXT PRIMARY KEY,
        task TEXT NOT NULL,
        method TEXT NOT NULL,
        data TEXT NOT NULL,
        seed INTEGER NOT NULL,
        job TEXT NOT NULL,
        outcome TEXT NOT NULL,
        finished INTEGER NOT NULL
    );
    CREATE TABLE verdicts (
        id INTEGER PRIMARY KEY,
        paper TEXT NOT NULL,
        claim TEXT NOT NULL,
        verdict TEXT NOT NULL,
        result TEXT NOT NULL,
        finished INTEGER NOT NULL
    );",
    "CREATE INDEX verdicts_of_a_claim ON verdicts (paper, claim, id);
    CREATE INDEX jobs_by_time ON jobs (finished);",
];

/// How a job ended, and what it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What it yields; absent if it failed.
    pub measurement: Option<Measurement>,
    /// Why it failed.
    pub failure: Option<String>,
    /// Wall seconds of its process.
    pub seconds: f64,
    /// CPU seconds of its process and of the processes that it waited for.
    pub cpu_seconds: f64,
    /// Largest resident memory of its process, in bytes.
    pub peak_bytes: u64,
}

/// A job as the journal holds it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobRow {
    /// The job.
    pub job: Job,
    /// How it ended.
    pub outcome: Outcome,
    /// Seconds since 1970.
    pub finished: i64,
}

/// A verdict as the journal holds it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerdictRow {
    /// Paper's slug.
    pub paper: String,
    /// Claim's identifier.
    pub claim: String,
    /// The verdict.
    pub verdict: String,
    /// The whole result, as `try --json` gives it.
    pub result: serde_json::Value,
    /// Seconds since 1970.
    pub finished: i64,
}

/// The open journal.
pub struct Journal {
    connection: Connection,
    path: PathBuf,
}

impl Journal {
    /// Opens the journal in `folder`, making or migrating it as needed.
    ///
    /// # Errors
    /// The folder cannot be written, the file is no journal, or a newer program wrote it.
    pub fn open(folder: &Path) -> Result<Journal> {
        std::fs::create_dir_all(folder)
            .map_err(|e| Error::file(folder, crate::data::reason(&e)))?;
        let path = folder.join("journal.sqlite");
        let connection = Connection::open(&path).map_err(|e| Error::file(&path, e))?;
        let mut journal = Journal { connection, path };
        journal.prepare()?;
        Ok(journal)
    }

    fn prepare(&mut self) -> Result<()> {
        let path = self.path.clone();
        let wrong =
            |e: rusqlite::Error| Error::file(&path, format!("is not a usable journal: {e}"));
        self.connection.busy_timeout(PATIENCE).map_err(wrong)?;
        // Asked before anything is changed, so that a newer journal stays as it is.
        self.version().and_then(|v| self.not_newer(v))?;
        self.write_ahead().map_err(wrong)?;
        let transaction = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(wrong)?;
        let version: usize = transaction
            .pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))
            .map_err(wrong)? as usize;
        for step in MIGRATIONS.iter().skip(version) {
            transaction.execute_batch(step).map_err(wrong)?;
        }
        if version < MIGRATIONS.len() {
            transaction
                .pragma_update(None, "user_version", MIGRATIONS.len() as i64)
                .map_err(wrong)?;
        }
        transaction.commit().map_err(wrong)
    }

    /// Switches to a write-ahead log. Where two programs open a new journal at once, SQLite refuses the switch to one of
    /// them at once instead of waiting.
    fn write_ahead(&self) -> rusqlite::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.connection.pragma_update(None, "journal_mode", "WAL") {
                Err(e)
                    if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
                        && Instant::now() < until =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                done => return done,
            }
        }
    }

    fn version(&self) -> Result<i64> {
        self.connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(|e| Error::file(&self.path, format!("is not a usable journal: {e}")))
    }

    fn not_newer(&self, version: i64) -> Result<()> {
        if version as usize > MIGRATIONS.len() {
            return Err(Error::file(
                &self.path,
                format!(
                    "was written by a newer papertrial (journal version {version}, this program knows {}); use that program, or name another folder in PAPERTRIAL_HOME",
                    MIGRATIONS.len()
                ),
            ));
        }
        Ok(())
    }

    /// The finished job with this fingerprint, if it did not fail.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn find(&self, fingerprint: &str) -> Result<Option<Outcome>> {
        let text: Option<String> = self
            .connection
            .query_row(
                "SELECT outcome FROM jobs WHERE fingerprint = ?1",
                [fingerprint],
                |row| row.get(0),
            )
            .optional()
            .map_err(|e| self.broken(e))?;
        let outcome: Option<Outcome> = match text {
            Some(text) => Some(self.read(&text)?),
            None => None,
        };
        // A failed job is tried again: its cause may be gone.
        Ok(outcome.filter(|o| o.measurement.is_some()))
    }

    /// Writes a finished job.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn record(&self, fingerprint: &str, job: &Job, outcome: &Outcome) -> Result<()> {
        let data = job.inputs.get("data").map(|i| i.shown());
        self.connection
            .execute(
                "INSERT OR REPLACE INTO jobs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    fingerprint,
                    job.task,
                    job.method,
                    data.unwrap_or_default(),
                    job.seed as i64,
                    self.write(job)?,
                    self.write(outcome)?,
                    now()
                ],
            )
            .map(drop)
            .map_err(|e| self.broken(e))
    }

    /// Writes a verdict.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn record_verdict(
        &self,
        paper: &str,
        claim: &str,
        verdict: &str,
        result: &serde_json::Value,
    ) -> Result<()> {
        self.connection
            .execute(
                "INSERT INTO verdicts (paper, claim, verdict, result, finished) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![paper, claim, verdict, result.to_string(), now()],
            )
            .map(drop)
            .map_err(|e| self.broken(e))
    }

    /// The last verdicts, newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn verdicts(&self, most: usize) -> Result<Vec<VerdictRow>> {
        self.verdict_rows(
            "SELECT paper, claim, verdict, result, finished FROM verdicts ORDER BY id DESC LIMIT ?1",
            most as i64,
        )
    }

    /// The newest verdict of every claim that was tried.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn latest_verdicts(&self) -> Result<Vec<VerdictRow>> {
        self.verdict_rows(
            "SELECT paper, claim, verdict, result, finished FROM verdicts
             WHERE id IN (SELECT MAX(id) FROM verdicts GROUP BY paper, claim) AND ?1 = ?1
             ORDER BY paper, claim",
            0,
        )
    }

    fn verdict_rows(&self, query: &str, parameter: i64) -> Result<Vec<VerdictRow>> {
        let mut statement = self.connection.prepare(query).map_err(|e| self.broken(e))?;
        let rows = statement
            .query_map([parameter], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2)?,
                    row.get::<_, String>(3)?,
                    row.get::<_, i64>(4)?,
                ))
            })
            .map_err(|e| self.broken(e))?;
        rows.map(|row| {
            let (paper, claim, verdict, result, finished) = row.map_err(|e| self.broken(e))?;
            Ok(VerdictRow {
                paper,
                claim,
                verdict,
                result: self.read(&result)?,
                finished,
            })
        })
        .collect()
    }

    /// The last jobs, newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn jobs(&self, most: usize) -> Result<Vec<JobRow>> {
        let mut statement = self
            .connection
            .prepare("SELECT job, outcome, finished FROM jobs ORDER BY finished DESC, rowid DESC LIMIT ?1")
            .map_err(|e| self.broken(e))?;
        let rows = statement
            .query_map([most as i64], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, i64>(2)?,
                ))
            })
            .map_err(|e| self.broken(e))?;
        rows.map(|row| {
            let (job, outcome, finished) = row.map_err(|e| self.broken(e))?;
            Ok(JobRow {
                job: self.read(&job)?,
                outcome: self.read(&outcome)?,
                finished,
            })
        })
        .collect()
    }

    fn write<T: Serialize>(&self, value: &T) -> Result<String> {
        serde_json::to_string(value).map_err(|e| Error::Failed(e.to_string()))
    }

    fn read<T: for<'a> Deserialize<'a>>(&self, text: &str) -> Result<T> {
        serde_json::from_str(text)
            .map_err(|e| Error::file(&self.path, format!("holds a row that cannot be read: {e}")))
    }

    fn broken(&self, e: rusqlite::Error) -> Error {
        Error::file(&self.path, e)
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Settings;
    use std::collections::BTreeMap;

    fn job(seed: u64) -> Job {
        Job {
            task: "clustering".into(),
            method: "k-means".into(),
            options: Settings::new(),
            task_options: Settings::new(),
            inputs: BTreeMap::new(),
            roles: Default::default(),
            seed,
        }
    }

    fn outcome(ari: Option<f64>) -> Outcome {
        Outcome {
            measurement: ari.map(|a| Measurement {
                metrics: BTreeMap::from([("ari".to_string(), a)]),
                ..Default::default()
            }),
            failure: ari.is_none().then(|| "out of luck".into()),
            seconds: 0.5,
            cpu_seconds: 0.25,
            peak_bytes: 1024,
        }
    }

    #[test]
    fn finished_jobs_are_found_again_and_failed_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let good = outcome(Some(0.1 + 0.2));
        journal.record("a", &job(0), &good).unwrap();
        journal.record("b", &job(1), &outcome(None)).unwrap();
        drop(journal);
        let journal = Journal::open(dir.path()).unwrap();
        // Floats come back to the last bit.
        assert_eq!(journal.find("a").unwrap(), Some(good));
        assert_eq!(journal.find("b").unwrap(), None);
        assert_eq!(journal.find("c").unwrap(), None);
        assert_eq!(journal.jobs(10).unwrap().len(), 2);
        // A second try replaces the failure.
        journal.record("b", &job(1), &outcome(Some(1.0))).unwrap();
        assert!(journal.find("b").unwrap().is_some());
    }

    #[test]
    fn latest_verdict_of_each_claim() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let null = serde_json::Value::Null;
        journal.record_verdict("p", "a", "fails", &null).unwrap();
        journal.record_verdict("p", "a", "holds", &null).unwrap();
        journal
            .record_verdict("p", "b", "undecided", &null)
            .unwrap();
        let latest: Vec<_> = journal.latest_verdicts().unwrap();
        let shown: Vec<_> = latest
            .iter()
            .map(|v| (&v.claim[..], &v.verdict[..]))
            .collect();
        assert_eq!(shown, [("a", "holds"), ("b", "undecided")]);
        assert_eq!(journal.verdicts(2).unwrap().len(), 2);
    }

    #[test]
    fn two_programs_write_at_once() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4u64 {
                let folder = dir.path();
                scope.spawn(move || {
                    let journal = Journal::open(folder).unwrap();
                    for i in 0..25 {
                        let key = format!("{writer}-{i}");
                        journal.record(&key, &job(i), &outcome(Some(1.0))).unwrap();
                    }
                });
            }
        });
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.jobs(1000).unwrap().len(), 100);
        let check: String = journal
            .connection
            .pragma_query_value(None, "integrity_check", |r| r.get(0))
            .unwrap();
        assert_eq!(check, "ok");
    }

    #[test]
    fn older_journals_are_migrated_and_newer_ones_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.sqlite");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        old.execute(
            "INSERT INTO verdicts (paper, claim, verdict, result, finished) VALUES ('p', 'c', 'holds', 'null', 1)",
            [],
        )
        .unwrap();
        drop(old);
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.version().unwrap(), MIGRATIONS.len() as i64);
        assert_eq!(journal.verdicts(5).unwrap().len(), 1);
        journal
            .connection
            .pragma_update(None, "user_version", 99)
            .unwrap();
        drop(journal);
        let e = Journal::open(dir.path()).err().unwrap().to_string();
        assert!(e.contains("newer papertrial") && e.contains("99"), "{e}");
    }

    #[test]
    fn a_file_that_is_no_journal_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("journal.sqlite"), vec![7u8; 5000]).unwrap();
        let e = Journal::open(dir.path()).err().unwrap().to_string();
        assert!(e.contains("not a usable journal"), "{e}");
    }

    #[test]
    fn many_may_open_a_new_journal_at_once() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            std::thread::scope(|threads| {
                let opened: Vec<_> = (0..8)
                    .map(|_| threads.spawn(|| Journal::open(folder.path()).map(drop)))
                    .collect();
                for one in opened {
                    one.join().unwrap().unwrap();
                }
            });
        }
    }
}
