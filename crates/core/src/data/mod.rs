//! Data: files of many formats as tables, roles of their columns, features, labels, outputs and named data sets.

mod bytes;
mod csv;
mod features;
mod fetch;
mod labels;
pub mod models;
mod npy;
mod output;
mod roles;
pub mod sets;
mod table;

pub use bytes::{bytes_of, holds_bytes};
pub use features::Features;
pub use labels::Labels;
pub use output::{Output, write_whole};
pub use roles::Roles;
pub use table::{Batches, ReadOptions, Table};

use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;

/// SHA-256 in hexadecimal digits.
pub fn checksum(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// SHA-256 of a file, read once in pieces.
///
/// # Errors
/// The file cannot be read.
pub fn file_checksum(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).map_err(|e| Error::file(path, reason(&e)))?;
    let mut hash = Sha256::new();
    let mut piece = vec![0u8; 1 << 20];
    loop {
        let n = file
            .read(&mut piece)
            .map_err(|e| Error::file(path, reason(&e)))?;
        if n == 0 {
            return Ok(hexadecimal(&hash.finalize()));
        }
        hash.update(&piece[..n]);
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// An input or output error without the operating system's number.
pub(crate) fn reason(e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::NotFound => "there is no such file or folder".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::StorageFull => "no space is left on the disk".into(),
        std::io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".into(),
        _ => {
            let text = e.to_string();
            match text.split_once(" (os error") {
                Some((words, _)) => words.to_lowercase(),
                None => text,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_known_text() {
        // The published test vector of SHA-256 for "abc".
        assert_eq!(
            checksum(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(file_checksum(&path).unwrap(), checksum(b"abc"));
        let e = file_checksum(&dir.path().join("no")).unwrap_err();
        assert!(e.to_string().contains("no such file"), "{e}");
    }
}
