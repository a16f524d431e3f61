//! Pictures of a job: files of a folder, files that a list names, or bytes in a table.

use super::picture::{Alpha, Picture};
use arrow::array::ArrayRef;
use papertrial_core::data::sets::{self, Place};
use papertrial_core::data::{ReadOptions, Roles, Table, bytes_of, holds_bytes};
use papertrial_core::task::{Context, Input, Job};
use papertrial_core::{Error, Result};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Endings of files that are taken for pictures.
const ENDINGS: [&str; 9] = [
    "png", "jpg", "jpeg", "webp", "bmp", "ppm", "pgm", "pbm", "pnm",
];
/// Columns that may hold names of files, where none is named.
const COLUMNS: [&str; 5] = ["file", "path", "filename", "file_name", "image"];
/// Files that are handed on at once.
const CHUNK: usize = 64;

/// A picture that is still to be read.
pub(super) struct Entry {
    /// Its name in outputs.
    pub name: String,
    content: Content,
}

enum Content {
    File(PathBuf),
    Bytes(Vec<u8>),
    /// The cell is empty.
    Nothing,
}

/// A picture that was read, or why it could not be.
pub(super) type Loaded = std::result::Result<(Picture, Vec<String>), String>;

impl Entry {
    /// Reads and decodes it.
    pub fn load(&self, alpha: Alpha) -> Loaded {
        match &self.content {
            Content::File(path) => {
                let bytes = std::fs::read(path).map_err(|e| match e.kind() {
                    std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
                    std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                    _ => e.to_string(),
                })?;
                Picture::decode(&bytes, alpha)
            }
            Content::Bytes(bytes) => Picture::decode(bytes, alpha),
            Content::Nothing => Err("the list's cell is empty".into()),
        }
    }
}

/// Hands on all pictures of the input `name` in order, some at a time: of a folder and its folders, by their names; of a
/// table, one a row, which is a picture's bytes or the name of its file from the table's own folder.
///
/// # Errors
/// The input is missing or no pictures, or what `each` returns.
pub(super) fn each(
    job: &Job,
    name: &str,
    context: &Context,
    each: impl FnMut(Vec<Entry>) -> Result<()>,
) -> Result<()> {
    match job.inputs.get(name) {
        Some(Input::File { path, read, .. }) => of_path(path, read, &job.roles, each),
        Some(Input::Set { name, .. }) => of_set(name, each),
        _ => {
            let table = job.table(name, context)?;
            of_table(&table, Path::new(""), &job.roles, each)
        }
    }
}

/// The pictures of a named data set or of a path, as [`each`] does it for inputs.
///
/// # Errors
/// As [`each`].
pub(super) fn each_named(name: &str, each: impl FnMut(Vec<Entry>) -> Result<()>) -> Result<()> {
    let path = Path::new(name);
    if sets::find(name).is_err() && path.exists() {
        return of_path(path, &ReadOptions::default(), &Roles::default(), each);
    }
    of_set(name, each)
}

fn of_set(name: &str, each: impl FnMut(Vec<Entry>) -> Result<()>) -> Result<()> {
    let set = sets::find(name)?;
    let folder = match set.place()? {
        Place::Local(path) | Place::Cached(path) => folder_of(&path),
        Place::Embedded | Place::Absent => PathBuf::new(),
    };
    of_table(&sets::open(name)?, &folder, &set.roles, each)
}

fn of_path(
    path: &Path,
    read: &ReadOptions,
    roles: &Roles,
    mut each: impl FnMut(Vec<Entry>) -> Result<()>,
) -> Result<()> {
    if path.is_dir() {
        let mut files = Vec::new();
        walk(path, &mut files)?;
        if files.is_empty() {
            return Err(Error::file(
                path,
                format!("has no pictures (files ending in {})", ENDINGS.join(", ")),
            ));
        }
        for some in files.chunks(CHUNK) {
            let entry = |file: &PathBuf| Entry {
                name: shown(file.strip_prefix(path).unwrap_or(file)),
                content: Content::File(file.clone()),
            };
            each(some.iter().map(entry).collect())?;
        }
        return Ok(());
    }
    if is_picture(path) {
        let name = path
            .file_name()
            .map_or_else(String::new, |n| shown(n.as_ref()));
        let content = Content::File(path.into());
        return each(vec![Entry { name, content }]);
    }
    of_table(&Table::open(path, read)?, &folder_of(path), roles, each)
}

/// The same letters on every system.
fn shown(path: &Path) -> String {
    let parts: Vec<String> = path
        .components()
        .map(|c| c.as_os_str().to_string_lossy().into_owned())
        .collect();
    parts.join("/")
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

pub(super) fn is_picture(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str());
    ending.is_some_and(|e| ENDINGS.contains(&e.to_lowercase().as_str()))
}

/// Pictures of a folder and its folders, in the order of their names; links to folders are not followed.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut here = std::fs::read_dir(folder)
        .and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>())
        .map_err(|e| Error::file(folder, e))?;
    here.sort_by_key(std::fs::DirEntry::file_name);
    for entry in here {
        let kind = entry
            .file_type()
            .map_err(|e| Error::file(entry.path(), e))?;
        if kind.is_dir() {
            walk(&entry.path(), files)?;
        } else if is_picture(&entry.path()) {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn of_table(
    table: &Table,
    folder: &Path,
    roles: &Roles,
    mut each: impl FnMut(Vec<Entry>) -> Result<()>,
) -> Result<()> {
    let columns = table.columns();
    let named = match &roles.id {
        Some(id) => Some(table.column_for("--id", id)?),
        None => COLUMNS.iter().find_map(|known| {
            (0..columns.len())
                .find(|c| columns[*c].eq_ignore_ascii_case(known) && !holds_bytes(table, *c))
        }),
    };
    let bytes = (0..columns.len()).find(|c| holds_bytes(table, *c));
    if named.is_none() && bytes.is_none() {
        return Err(Error::BadInput(format!(
            "{}: no column holds pictures; there should be one of bytes, or one of file names (--id names it; else it should be called {})",
            table.name(),
            COLUMNS.join(", ")
        )));
    }
    let mut row = 0;
    for batch in table.batches()? {
        let batch = batch?;
        let names = match named {
            Some(column) => table.texts_of(&batch, column)?,
            None => vec![None; batch.num_rows()],
        };
        let contents = match bytes {
            Some(column) => contents(batch.column(column))
                .ok_or_else(|| Error::column(table.name(), columns[column], "holds no bytes"))?,
            None => names
                .iter()
                .map(|name| match name {
                    Some(name) => Content::File(folder.join(name)),
                    None => Content::Nothing,
                })
                .collect(),
        };
        let mut entries: Vec<Entry> = Vec::with_capacity(CHUNK);
        for (name, content) in names.into_iter().zip(contents) {
            row += 1;
            entries.push(Entry {
                name: name.unwrap_or_else(|| format!("row {row}")),
                content,
            });
            if entries.len() == CHUNK {
                each(std::mem::take(&mut entries))?;
            }
        }
        if !entries.is_empty() {
            each(entries)?;
        }
    }
    Ok(())
}

fn contents(column: &ArrayRef) -> Option<Vec<Content>> {
    let column = bytes_of(column).ok()?;
    let cells = column.iter();
    Some(
        cells
            .map(|cell| cell.map_or(Content::Nothing, |bytes| Content::Bytes(bytes.to_vec())))
            .collect(),
    )
}

/// All pictures of an input in memory, with their names; and what could not be read.
pub(super) struct Collection {
    /// The pictures.
    pub pictures: Vec<(String, Picture)>,
    /// Names and reasons of the others.
    pub unreadable: Vec<String>,
}

impl Collection {
    /// Reads what `source` hands on.
    ///
    /// # Errors
    /// As `source`; no readable picture; more than the memory holds.
    pub fn read(
        alpha: Alpha,
        context: &Context,
        source: impl FnOnce(&mut dyn FnMut(Vec<Entry>) -> Result<()>) -> Result<()>,
    ) -> Result<Collection> {
        let mut all = Collection {
            pictures: Vec::new(),
            unreadable: Vec::new(),
        };
        let mut bytes = 0;
        source(&mut |entries| {
            let loaded: Vec<Loaded> = entries.par_iter().map(|e| e.load(alpha)).collect();
            for (entry, loaded) in entries.into_iter().zip(loaded) {
                match loaded {
                    Ok((picture, _)) => {
                        bytes += picture.values().len() as u64;
                        all.pictures.push((entry.name, picture));
                    }
                    Err(told) => all.unreadable.push(format!("{}: {told}", entry.name)),
                }
            }
            context.step("reading pictures", all.pictures.len(), 0);
            context.require("holding the pictures", bytes)
        })?;
        if all.pictures.is_empty() {
            return Err(Error::BadInput(match all.unreadable.first() {
                Some(first) => format!("no picture can be read; the first: {first}"),
                None => "there are no pictures".into(),
            }));
        }
        Ok(all)
    }

    /// A note on what could not be read.
    pub fn note(&self) -> Option<String> {
        let first = self.unreadable.first()?;
        Some(format!(
            "{} files cannot be read and were left out; the first: {first}",
            self.unreadable.len()
        ))
    }
}
