//! Vectors of texts on disk, so that a text is computed once for a model.
//!
//! One file a model, to which records of one size are appended: the first 16 bytes of the text's SHA-256, then the
//! vector as little-endian f32. A record that was cut off by a crash is overwritten by the next. Programs that share the
//! file append one after the other.

use papertrial_core::{Error, Result};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes of a text's key.
const KEY: usize = 16;

/// Key of a text.
type Key = [u8; KEY];

/// The vectors of one model.
#[derive(Debug)]
pub struct VectorCache {
    path: PathBuf,
    width: usize,
    vectors: HashMap<Key, Vec<f32>>,
}

impl VectorCache {
    /// The cache in `folder` of the model whose name is `model` (a checksum of its files), with vectors of `width`
    /// numbers. The folder is made if it is missing.
    ///
    /// # Errors
    /// The folder cannot be made or the file cannot be read.
    pub fn open(folder: &Path, model: &str, width: usize) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        let path = folder.join(format!("{model}-{width}.vectors"));
        let mut cache = VectorCache {
            path,
            width,
            vectors: HashMap::new(),
        };
        let file = match File::open(&cache.path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(cache),
            Err(e) => return Err(Error::file(&cache.path, e)),
        };
        let mut reader = BufReader::with_capacity(1 << 18, file);
        let mut record = vec![0; cache.record()];
        loop {
            match reader.read_exact(&mut record) {
                Ok(()) => {
                    let (key, vector) = record.split_at(KEY);
                    let mut own = Key::default();
                    own.copy_from_slice(key);
                    cache.vectors.insert(own, numbers(vector));
                }
                // What is left is a record that was cut off.
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(cache),
                Err(e) => return Err(Error::file(&cache.path, e)),
            }
        }
    }

    /// The vector of `text`, if it is known.
    pub fn get(&self, text: &str) -> Option<&[f32]> {
        self.vectors.get(&key(text)).map(Vec::as_slice)
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// Keeps the vectors of texts; those that are known already are left as they are.
    ///
    /// # Errors
    /// A vector has not the cache's width, or the file cannot be written.
    pub fn add<'a>(&mut self, texts: impl IntoIterator<Item = (&'a str, &'a [f32])>) -> Result<()> {
        let mut bytes = Vec::new();
        let mut fresh = Vec::new();
        for (text, vector) in texts {
            if vector.len() != self.width {
                return Err(Error::Failed(format!(
                    "a vector of {} numbers was to be kept among those of {}",
                    vector.len(),
                    self.width
                )));
            }
            let key = key(text);
            if !self.vectors.contains_key(&key) {
                bytes.extend_from_slice(&key);
                vector
                    .iter()
                    .for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
                fresh.push((key, vector.to_vec()));
            }
        }
        if !bytes.is_empty() {
            self.append(&bytes)
                .map_err(|e| Error::file(&self.path, e))?;
        }
        self.vectors.extend(fresh);
        Ok(())
    }

    fn append(&self, bytes: &[u8]) -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.path)?;
        file.lock()?;
        let whole = file.metadata()?.len() / self.record() as u64 * self.record() as u64;
        file.seek(SeekFrom::Start(whole))?;
        file.write_all(bytes)?;
        file.sync_data()
    }

    /// Bytes of a record.
    fn record(&self) -> usize {
        KEY + 4 * self.width
    }
}

fn key(text: &str) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&Sha256::digest(text.as_bytes())[..KEY]);
    key
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_again_and_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let open = || VectorCache::open(folder.path(), "m", 2).unwrap();
        let mut cache = open();
        assert!(cache.is_empty());
        let mut other = open();
        cache
            .add([("a", &[1.0, 2.0][..]), ("b", &[3.0, 4.0][..])])
            .unwrap();
        // Another program that began earlier adds the same and one more.
        other
            .add([("b", &[3.0, 4.0][..]), ("c", &[5.0, -0.0][..])])
            .unwrap();
        cache.add([("a", &[9.0, 9.0][..])]).unwrap();
        let again = open();
        assert_eq!(again.len(), 3);
        assert_eq!(again.get("a"), Some(&[1.0, 2.0][..]));
        assert_eq!(again.get("c"), Some(&[5.0, -0.0][..]));
        assert_eq!(again.get("d"), None);
        assert!(VectorCache::open(folder.path(), "m", 3).unwrap().is_empty());
    }

    #[test]
    fn a_record_that_was_cut_off_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let open = || VectorCache::open(folder.path(), "m", 1).unwrap();
        open().add([("a", &[1.0][..]), ("b", &[2.0][..])]).unwrap();
        let path = open().path;
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let mut cache = open();
        assert_eq!((cache.get("a"), cache.get("b")), (Some(&[1.0][..]), None));
        cache.add([("c", &[3.0][..])]).unwrap();
        let again = open();
        assert_eq!((again.len(), again.get("c")), (2, Some(&[3.0][..])));
    }

    #[test]
    fn a_vector_of_another_width_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = VectorCache::open(folder.path(), "m", 2).unwrap();
        assert!(cache.add([("a", &[1.0][..])]).is_err());
        assert!(cache.is_empty());
    }
}
