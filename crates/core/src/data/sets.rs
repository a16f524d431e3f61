//! Named data sets: part of the program, found in folders of the user's, or downloaded into the cache.

use super::models::Model;
use super::{ReadOptions, Roles, Table, checksum, fetch, file_checksum};
use crate::error::{Error, Result};
use crate::home;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::LazyLock;

/// A named data set with its provenance.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    /// Name: `iris`.
    pub name: String,
    /// One sentence.
    pub about: String,
    /// Name of the file.
    pub file: String,
    /// Folder in which local copies are looked for, if it is not the name.
    pub folder: Option<String>,
    /// Whether the file is part of the program.
    #[serde(default)]
    pub embedded: bool,
    /// Number of rows.
    pub rows: u64,
    /// Number of columns.
    pub columns: u64,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Who made it, and where this copy comes from.
    pub source: String,
    /// Its licence.
    pub licence: String,
    /// The publisher's address of the file.
    pub url: Option<String>,
    /// Where users get it, if there is no address of the file itself.
    pub get: Option<String>,
    /// Roles of its columns.
    #[serde(default)]
    pub roles: Roles,
    /// How the file is read.
    #[serde(default)]
    pub read: ReadOptions,
}

/// Where a data set's file was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// In the program.
    Embedded,
    /// In a folder that `PAPERTRIAL_DATA` names.
    Local(PathBuf),
    /// In the cache.
    Cached(PathBuf),
    /// Nowhere yet.
    Absent,
}

include!(concat!(env!("OUT_DIR"), "/datasets.rs"));

/// `datasets/index.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    set: Vec<DataSet>,
    model: Vec<Model>,
}

static KNOWN: LazyLock<Result<Index>> =
    LazyLock::new(|| toml::from_str(INDEX).map_err(|e| Error::file("datasets/index.toml", e)));

/// All data sets.
///
/// # Errors
/// The index that was compiled in is malformed.
pub fn all() -> Result<&'static [DataSet]> {
    KNOWN.as_ref().map(|i| &i.set[..]).map_err(Clone::clone)
}

/// All models.
pub(super) fn models() -> Result<&'static [Model]> {
    KNOWN.as_ref().map(|i| &i.model[..]).map_err(Clone::clone)
}

/// The data set named `name`.
///
/// # Errors
/// [`Error::Unknown`] with the nearest name.
pub fn find(name: &str) -> Result<&'static DataSet> {
    let sets = all()?;
    sets.iter().find(|s| s.name == name).ok_or_else(|| {
        Error::unknown(
            "data set",
            name,
            sets.iter().map(|s| s.name.as_str()),
            "'papertrial data list' lists them",
        )
    })
}

/// Opens the data set named `name`, after checking its bytes.
///
/// # Errors
/// No such data set, no local copy, a wrong checksum, or a broken file.
pub fn open(name: &str) -> Result<Table> {
    let set = find(name)?;
    match set.place()? {
        Place::Embedded => {
            let content = set.content()?;
            set.compare("the program's own copy", &checksum(content))?;
            Table::embedded(&set.name, content)
        }
        Place::Local(path) | Place::Cached(path) => {
            set.compare(&path.display().to_string(), &file_checksum(&path)?)?;
            Table::open(&path, &set.read)
        }
        Place::Absent => Err(set.absent()),
    }
}

impl DataSet {
    /// Where the file is: folders of the user's first, then the program, then the cache.
    ///
    /// # Errors
    /// The platform has no cache folder and none is set.
    pub fn place(&self) -> Result<Place> {
        let folder = self.folder.as_deref().unwrap_or(&self.name);
        for root in home::data_folders() {
            for path in [root.join(folder).join(&self.file), root.join(&self.file)] {
                if path.is_file() {
                    return Ok(Place::Local(path));
                }
            }
        }
        if self.embedded {
            return Ok(Place::Embedded);
        }
        let cached = self.cache_path()?;
        Ok(if cached.is_file() {
            Place::Cached(cached)
        } else {
            Place::Absent
        })
    }

    /// Checks the file's bytes, wherever it is.
    ///
    /// # Errors
    /// It is absent or its checksum is wrong.
    pub fn verify(&self) -> Result<Place> {
        let place = self.place()?;
        match &place {
            Place::Embedded => {
                self.compare("the program's own copy", &checksum(self.content()?))?
            }
            Place::Local(path) | Place::Cached(path) => {
                self.compare(&path.display().to_string(), &file_checksum(path)?)?
            }
            Place::Absent => return Err(self.absent()),
        }
        Ok(place)
    }

    /// Brings the file into the cache, unless it is at hand.
    ///
    /// `progress` is told bytes done and in all.
    ///
    /// # Errors
    /// No address is known, the network fails, or the checksum is wrong.
    pub fn get(&self, progress: &dyn Fn(u64, u64)) -> Result<Place> {
        if self.place()? != Place::Absent {
            return self.verify();
        }
        let Some(url) = &self.url else {
            return Err(Error::BadInput(format!(
                "data set {} cannot be downloaded by its address. {} Then put the file {} into a folder that PAPERTRIAL_DATA names",
                self.name,
                self.get.as_deref().unwrap_or("Its publisher offers it."),
                self.file
            )));
        };
        let path = self.cache_path()?;
        fetch::fetch(url, &path, &self.sha256, self.bytes, progress)?;
        Ok(Place::Cached(path))
    }

    /// The embedded bytes.
    ///
    /// # Errors
    /// The data set is not part of the program.
    fn content(&self) -> Result<&'static [u8]> {
        FILES
            .iter()
            .find(|(file, _)| *file == self.file)
            .map(|(_, content)| *content)
            .ok_or_else(|| Error::file(&self.file, "is not part of the program"))
    }

    fn cache_path(&self) -> Result<PathBuf> {
        Ok(home::cache()?
            .join("data")
            .join(&self.name)
            .join(&self.file))
    }

    fn absent(&self) -> Error {
        let how = if self.url.is_some() {
            format!("'papertrial data get {}' downloads it", self.name)
        } else {
            let get = self.get.as_deref().unwrap_or_default();
            get.trim_end_matches('.').to_owned()
        };
        Error::BadInput(format!(
            "data set {} is not at hand: {how}; or name a folder with {} in PAPERTRIAL_DATA",
            self.name, self.file
        ))
    }

    fn compare(&self, place: &str, found: &str) -> Result<()> {
        if found == self.sha256 {
            Ok(())
        } else {
            Err(Error::file(
                place,
                format!(
                    "is not the data set {}: its SHA-256 is {found}, it should be {}",
                    self.name, self.sha256
                ),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_set_opens_with_the_stated_size_and_roles() {
        for set in all().unwrap().iter().filter(|s| s.embedded) {
            let content = set.content().unwrap();
            assert_eq!(checksum(content), set.sha256, "{}", set.name);
            assert_eq!(content.len() as u64, set.bytes, "{}", set.name);
            let table = Table::embedded(&set.name, content).unwrap();
            assert_eq!(table.rows(), set.rows, "{}", set.name);
            assert_eq!(table.columns().len() as u64, set.columns, "{}", set.name);
            set.roles.check(&table).unwrap();
            assert!(!set.licence.is_empty() && !set.source.is_empty());
        }
    }

    #[test]
    fn names_are_unique_and_slips_are_told() {
        let mut names: Vec<&str> = all().unwrap().iter().map(|s| s.name.as_str()).collect();
        names.sort_unstable();
        let n = names.len();
        names.dedup();
        assert_eq!(names.len(), n);
        let e = find("irsi").unwrap_err().to_string();
        assert!(e.contains("did you mean 'iris'"), "{e}");
    }
}
