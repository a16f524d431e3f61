//! One file for each verb.

pub mod compare;
pub mod data;
pub mod history;
pub mod papers;
pub mod run;
pub mod show;
pub mod try_claims;

use papertrial_core::journal::Journal;
use papertrial_core::task::{Family, MethodInfo, Task};
use papertrial_core::{Result, home};

/// The journal in the program's folder.
fn journal() -> Result<Journal> {
    Journal::open(&home::home()?)
}

/// All tasks with their families.
fn tasks() -> impl Iterator<Item = (&'static Family, &'static dyn Task)> {
    crate::FAMILIES
        .iter()
        .flat_map(|f| f.tasks.iter().map(move |t| (f, *t)))
}

/// All methods of this name with their tasks.
fn methods_named(name: &str) -> Vec<(&'static Family, &'static dyn Task, MethodInfo)> {
    tasks()
        .flat_map(|(family, task)| task.methods().into_iter().map(move |m| (family, task, m)))
        .filter(|(_, _, m)| m.facts.name == name)
        .collect()
}
