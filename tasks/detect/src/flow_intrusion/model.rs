//! A model on disk: a folder with `model.json` (schema, preparation, window, threshold) and the detector's own files.

use super::baselines;
use super::detector::Fitted;
use super::flowtransformer::{self, FlowTransformer};
use super::prepare::Preparation;
use super::schema::{Schema, names};
use papertrial_core::data::write_whole;
use papertrial_core::task::{Context, Method};
use papertrial_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The file beside the detector's own.
const DESCRIPTION: &str = "model.json";

/// The form of the folder.
const FORMAT: u32 = 1;

/// All that scoring new flows needs beside the detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Known {
    /// Form of the folder.
    format: u32,
    /// Method that was fitted.
    pub method: String,
    /// Flows in a window.
    pub window: usize,
    /// A probability above it is an alert.
    pub threshold: f64,
    /// Columns.
    pub schema: Schema,
    /// What the training rows showed.
    pub preparation: Preparation,
}

impl Known {
    /// For a detector of method `method`.
    pub fn new(
        method: &str,
        window: usize,
        threshold: f64,
        schema: Schema,
        preparation: Preparation,
    ) -> Known {
        Known {
            format: FORMAT,
            method: method.into(),
            window,
            threshold,
            schema,
            preparation,
        }
    }

    /// Refuses `asked` if it is not the schema that the model in `folder` was fitted with.
    ///
    /// # Errors
    /// It is another one; columns that only one of them has are listed.
    pub fn check_schema(&self, asked: &Schema, folder: &Path) -> Result<()> {
        if self.schema.same_features(asked) {
            return Ok(());
        }
        let lacks = |one: &Schema, other: &Schema| {
            let lacking: Vec<&str> = one
                .features()
                .filter(|c| !other.features().any(|o| o == *c))
                .collect();
            match lacking.len() {
                0 => "no column".to_string(),
                n if n > 8 => format!("{}, … ({n} columns)", names(lacking[..8].iter().copied())),
                _ => names(lacking),
            }
        };
        Err(Error::file(
            folder,
            format!(
                "this model was fitted with schema {}, not with {}: only the model knows {}; only {} knows {}; leave the option schema at auto, or fit a model with the other schema",
                self.schema.name,
                asked.name,
                lacks(&self.schema, asked),
                asked.name,
                lacks(asked, &self.schema),
            ),
        ))
    }
}

/// Writes a model to `folder`; an older model there is replaced, anything else is refused. Returns whether the detector
/// can be kept.
///
/// # Errors
/// The folder cannot be written, or holds something else.
pub fn save(known: &Known, detector: &dyn Fitted, folder: &Path) -> Result<bool> {
    check_target(folder)?;
    let parent = match folder.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let wrong =
        |e: std::io::Error| Error::file(folder, format!("the model cannot be written: {e}"));
    // Everything appears together, or nothing does.
    let beside = tempfile::Builder::new()
        .prefix(".model")
        .tempdir_in(parent)
        .map_err(wrong)?;
    if !detector.save(beside.path())? {
        return Ok(false);
    }
    let text = serde_json::to_string_pretty(known).map_err(|e| Error::Failed(e.to_string()))?;
    write_whole(&beside.path().join(DESCRIPTION), text.as_bytes())?;
    if folder.is_dir() {
        std::fs::remove_dir_all(folder).map_err(wrong)?;
    }
    std::fs::rename(beside.keep(), folder).map_err(wrong)?;
    Ok(true)
}

/// Refuses a folder that is not a model's, so that nothing of a user's is replaced.
///
/// # Errors
/// Something else is there.
pub fn check_target(folder: &Path) -> Result<()> {
    let taken = folder.exists() && !folder.join(DESCRIPTION).is_file();
    if taken {
        return Err(Error::file(
            folder,
            "the model would be written here, but this exists and is no model; move it away or name another output",
        ));
    }
    Ok(())
}

/// The folder of the model that belongs to the output `out`: `scores.csv` and `scores.model`.
pub fn beside(out: &Path) -> PathBuf {
    out.with_extension("model")
}

/// The model in `folder`.
///
/// # Errors
/// It is not there, is broken, or was written by another program.
pub fn load(folder: &Path, context: &Context) -> Result<(Known, Box<dyn Fitted>)> {
    let path = folder.join(DESCRIPTION);
    let text = std::fs::read_to_string(&path).map_err(|_| {
        Error::file(
            folder,
            "is not the folder of a model: there is no model.json in it; name the folder that a fit wrote beside its output",
        )
    })?;
    let known: Known = serde_json::from_str(&text)
        .map_err(|e| Error::file(&path, format!("is not a model's description: {e}")))?;
    if known.format != FORMAT {
        return Err(Error::file(
            &path,
            format!(
                "has form {}; this program reads form {FORMAT}",
                known.format
            ),
        ));
    }
    let detector: Box<dyn Fitted> = if known.method == FlowTransformer::FACTS.name {
        let model = flowtransformer::Model::load(folder, context)?;
        if *model.layout() != known.preparation.layout() {
            return Err(apart(folder));
        }
        Box::new(model)
    } else {
        baselines::load(&known.method, folder, context)?.ok_or_else(|| {
            Error::file(
                &path,
                format!(
                    "is a model of '{}', a method that this program does not have",
                    known.method
                ),
            )
        })?
    };
    if detector.window() != known.window {
        return Err(apart(folder));
    }
    Ok((known, detector))
}

fn apart(folder: &Path) -> Error {
    Error::file(folder, "model.json and the weights do not belong together")
}
