//! What papertrial is about: papers, claims, jobs, measurements, trials, verdicts, the journal, reports and data.
//!
//! Families export [`task::Family`]; the program lists, tries, compares and applies what they hold.

pub mod catalogue;
pub mod data;
pub mod error;
pub mod home;
pub mod journal;
pub mod judge;
pub mod leaderboard;
pub mod options;
pub mod plan;
pub mod report;
pub mod runner;
pub mod search;
pub mod task;
pub mod trial;
pub mod worker;

pub use error::{Error, Result};
