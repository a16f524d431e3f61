//! A learned model as a file: weights, and what must fit them.

use super::sets::Scale;
use burn::module::Module;
use papertrial_core::options::Settings;
use papertrial_core::task::Input;
use papertrial_core::{Error, Result};
use papertrial_nn::store;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What is kept beside the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Method.
    pub method: String,
    /// Its options, all of them.
    pub options: Settings,
    /// Names of the features, in order.
    pub features: Vec<String>,
    /// How features are scaled, if they are.
    pub scale: Option<Scale>,
}

/// The bytes of a file with `model` and `about`, by way of a file beside `out` that is gone afterwards.
///
/// # Errors
/// The folder cannot be written to.
pub fn bytes<M: Module>(model: &M, about: &About, out: &Path) -> Result<Vec<u8>> {
    let beside = out.with_extension("model.unfinished");
    let content = store::save(model, about, &beside)
        .and_then(|()| std::fs::read(&beside).map_err(|e| Error::file(&beside, e)));
    // Where saving failed there may be nothing to remove.
    let _ = std::fs::remove_file(&beside);
    content
}

/// What the file of input `model` keeps, for `method` and the features `columns`.
///
/// # Errors
/// No file, one of another kind or method, or other features.
pub fn read(input: &Input, method: &str, columns: &[String]) -> Result<(PathBuf, About)> {
    let Input::File { path, .. } = input else {
        return Err(Error::option(
            "--model",
            "name a model.safetensors of an earlier run",
        ));
    };
    let about: About = store::options(path)?;
    if about.method != method {
        return Err(Error::file(
            path,
            format!("is a model of {}, not of {method}", about.method),
        ));
    }
    if about.features != columns {
        return Err(Error::file(
            path,
            format!(
                "was learned from the features {}, and the data have {}",
                about.features.join(", "),
                columns.join(", ")
            ),
        ));
    }
    Ok((path.clone(), about))
}
