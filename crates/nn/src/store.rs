//! Models on disk: safetensors, with their options in the header.

use burn::module::Module;
use burn::store::{ModuleSnapshot, SafetensorsStore};
use papertrial_core::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Read;
use std::path::Path;

/// Key of the options in the header.
const OPTIONS: &str = "options";

/// Longest header that is read: the format's own limit.
const LONGEST_HEADER: u64 = 100_000_000;

/// Writes the model's weights to `path`, with `options` in the header. The file appears whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn save<M: Module>(model: &M, options: &impl Serialize, path: &Path) -> Result<()> {
    let options = serde_json::to_string(options).map_err(|e| Error::Failed(e.to_string()))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = Path::new(&beside);
    let mut store = SafetensorsStore::from_file(beside)
        .overwrite(true)
        .metadata(OPTIONS, options);
    let written = model
        .save_into(&mut store)
        .map_err(|e| Error::file(path, e))
        .and_then(|()| std::fs::rename(beside, path).map_err(|e| Error::file(path, e)));
    if written.is_err() {
        // What was begun is of no use; if it cannot be removed, the first error still says more.
        let _ = std::fs::remove_file(beside);
    }
    written
}

/// Options with which the model in `path` was written, for building it before [`load`].
///
/// # Errors
/// The file cannot be read, is no safetensors file, or has no options of this kind.
pub fn options<O: DeserializeOwned>(path: &Path) -> Result<O> {
    let mut file = std::fs::File::open(path).map_err(|e| Error::file(path, e))?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| {
        Error::file(
            path,
            "is not a safetensors file: it is shorter than 8 bytes",
        )
    })?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return Err(Error::file(path, "is not a safetensors file"));
    }
    let mut header = Vec::new();
    file.take(length)
        .read_to_end(&mut header)
        .map_err(|e| Error::file(path, e))?;
    let header: serde_json::Value = serde_json::from_slice(&header)
        .map_err(|_| Error::file(path, "is not a safetensors file, or is cut off"))?;
    let options = header["__metadata__"][OPTIONS].as_str().ok_or_else(|| {
        Error::file(
            path,
            "has no options in its header: papertrial did not write it",
        )
    })?;
    serde_json::from_str(options)
        .map_err(|e| Error::file(path, format!("was written with other options: {e}")))
}

/// The weights in `path` in place of `model`'s own.
///
/// # Errors
/// The file cannot be read, or its tensors are not those of the model.
pub fn load<M: Module>(model: &M, path: &Path) -> Result<M> {
    // A load that fails half-way has changed what it was given.
    let mut loaded = model.clone();
    loaded
        .load_from(&mut SafetensorsStore::from_file(path))
        .map_err(|e| {
            let text = e.to_string();
            let first = text.lines().next().unwrap_or_default();
            Error::file(path, format!("does not fit this model: {first}"))
        })?;
    Ok(loaded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::{Activation, Mlp};
    use crate::{device, rows_of, seeded, values_of};
    use burn::tensor::Device;

    fn model(seed: u64, hidden: usize) -> Mlp {
        seeded(&device("cpu").unwrap(), seed, |d: &Device| {
            Mlp::new(&[3, hidden, 2], Activation::Relu, 0.0, d)
        })
        .valid()
    }

    fn answer(model: &Mlp) -> Vec<f32> {
        let x = rows_of(&[0.1, -2.0, 3.0], 3, &[0], &device("cpu").unwrap());
        values_of(model.forward(x)).unwrap()
    }

    #[test]
    fn what_is_loaded_answers_as_what_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let saved = model(1, 4);
        save(&saved, &vec![3, 4, 2], &path).unwrap();
        assert_eq!(options::<Vec<usize>>(&path).unwrap(), [3, 4, 2]);
        let other = model(2, 4);
        assert_ne!(answer(&saved), answer(&other));
        assert_eq!(answer(&saved), answer(&load(&other, &path).unwrap()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn files_that_do_not_fit_are_told_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        save(&model(1, 4), &4, &path).unwrap();
        let text = load(&model(1, 5), &path).unwrap_err().to_string();
        assert!(
            text.contains("model.safetensors") && text.contains("does not fit"),
            "{text}"
        );
        assert!(options::<String>(&path).is_err());
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 5, 40, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(load(&model(1, 4), &path).is_err(), "cut at {cut}");
        }
        assert!(options::<usize>(&folder.path().join("none")).is_err());
        let nowhere = folder.path().join("no/such/folder/m.safetensors");
        assert!(save(&model(1, 4), &4, &nowhere).is_err());
    }
}
