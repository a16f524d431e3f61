//! Where the program keeps its files.

use crate::error::{Error, Result};
use etcetera::BaseStrategy;
use std::path::PathBuf;

/// Folder of the journal and settings: `PAPERTRIAL_HOME`, else the platform's data folder.
///
/// # Errors
/// The platform has none and none is set.
pub fn home() -> Result<PathBuf> {
    folder("PAPERTRIAL_HOME", |base| base.data_dir())
}

/// Folder of downloads: `PAPERTRIAL_CACHE`, else the platform's cache folder.
///
/// # Errors
/// The platform has none and none is set.
pub fn cache() -> Result<PathBuf> {
    folder("PAPERTRIAL_CACHE", |base| base.cache_dir())
}

/// Folders with local copies of data sets, from `PAPERTRIAL_DATA`.
pub fn data_folders() -> Vec<PathBuf> {
    std::env::var_os("PAPERTRIAL_DATA")
        .map(|value| std::env::split_paths(&value).collect())
        .unwrap_or_default()
}

fn folder(
    variable: &str,
    platform: impl Fn(&etcetera::base_strategy::Xdg) -> PathBuf,
) -> Result<PathBuf> {
    match std::env::var_os(variable) {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => etcetera::base_strategy::Xdg::new()
            .map(|base| platform(&base).join("papertrial"))
            .map_err(|_| {
                Error::BadInput(format!(
                    "this system has no home folder; set {variable} to a folder of your choice"
                ))
            }),
    }
}
