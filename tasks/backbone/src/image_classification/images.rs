//! Pictures with labels: folders with one folder for each class, IDX files, tables with a column of image bytes, and
//! tables with a column for each pixel.

use super::TaskOptions;
use arrow::array::Array;
use image::DynamicImage;
use image::imageops::FilterType;
use papertrial_core::data::{Features, Labels, Roles, Table, bytes_of, holds_bytes};
use papertrial_core::task::{Context, Input, Job};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Colours that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Colour {
    /// Those of the pictures, which must agree.
    Same,
    /// One channel.
    Grey,
    /// Three channels.
    Rgb,
}

/// Pictures in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Pictures {
    /// [n, h, w, colours] in row-major order.
    pub values: Vec<f32>,
    /// Height and width.
    pub picture: [usize; 2],
    /// Colours.
    pub channels: usize,
    /// Files or row numbers.
    pub names: Vec<String>,
    /// Class of each, if known.
    pub labels: Option<Vec<usize>>,
    /// Names of the classes.
    pub classes: Vec<String>,
}

impl Pictures {
    /// Pictures.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Values of a picture.
    pub fn width(&self) -> usize {
        self.picture[0] * self.picture[1] * self.channels
    }

    /// Reads the job's input `name`.
    ///
    /// # Errors
    /// Data of no known kind, a picture that cannot be read, sizes or colours that differ.
    pub fn read(job: &Job, name: &str, task: &TaskOptions, context: &Context) -> Result<Pictures> {
        if let Some(Input::File { path, .. }) = job.inputs.get(name) {
            if path.is_dir() {
                return folder(path, task);
            }
            if is_idx(path) {
                return idx(
                    path,
                    &std::fs::read(path).map_err(|e| Error::file(path, e))?,
                );
            }
        }
        let table = job.table(name, context)?;
        let mut roles = job.roles.clone();
        if name != "data"
            && roles
                .label
                .as_ref()
                .is_some_and(|l| !table.columns().contains(&l.as_str()))
        {
            roles.label = None;
        }
        let labels = Labels::of(&table, &roles)?;
        let mut pictures = match (0..table.columns().len()).find(|c| holds_bytes(&table, *c)) {
            Some(column) => bytes(&table, column, task)?,
            None => pixels(&table, &roles, task, context)?,
        };
        if let Some(labels) = labels {
            pictures.labels = Some(labels.codes.iter().map(|c| *c as usize).collect());
            pictures.classes = labels.names;
        }
        Ok(pictures)
    }
}

/// Decoded pictures brought to one size and one number of colours.
struct Gathered {
    pictures: Pictures,
    resize: Option<[usize; 2]>,
    colour: Colour,
}

impl Gathered {
    fn new(task: &TaskOptions) -> Self {
        Gathered {
            pictures: Pictures {
                values: Vec::new(),
                picture: [0, 0],
                channels: 0,
                names: Vec::new(),
                labels: None,
                classes: Vec::new(),
            },
            resize: task.image_size.map(|n| [n, n]),
            colour: task.colour,
        }
    }

    fn add(&mut self, name: String, content: &[u8]) -> Result<()> {
        let decoded = image::load_from_memory(content)
            .map_err(|e| Error::file(&name, format!("is no picture that can be read: {e}")))?;
        let decoded = match self.resize {
            Some([h, w]) => decoded.resize_exact(w as u32, h as u32, FilterType::Triangle),
            None => decoded,
        };
        let grey = match self.colour {
            Colour::Grey => true,
            Colour::Rgb => false,
            Colour::Same => matches!(
                decoded,
                DynamicImage::ImageLuma8(_)
                    | DynamicImage::ImageLumaA8(_)
                    | DynamicImage::ImageLuma16(_)
                    | DynamicImage::ImageLumaA16(_)
            ),
        };
        let size = [decoded.height() as usize, decoded.width() as usize];
        let channels = if grey { 1 } else { 3 };
        let p = &mut self.pictures;
        if p.names.is_empty() {
            p.picture = size;
            p.channels = channels;
        }
        if size != p.picture {
            return Err(Error::file(
                &name,
                format!(
                    "has {} x {} pixels, {} has {} x {}; set image-size to bring all to one size",
                    size[0], size[1], p.names[0], p.picture[0], p.picture[1]
                ),
            ));
        }
        if channels != p.channels {
            return Err(Error::file(
                &name,
                format!(
                    "has {channels} colour channels, {} has {}; set colour to grey or rgb",
                    p.names[0], p.channels
                ),
            ));
        }
        let bytes = if grey {
            decoded.to_luma8().into_raw()
        } else {
            decoded.to_rgb8().into_raw()
        };
        p.values.extend(bytes.iter().map(|b| f32::from(*b) / 255.0));
        p.names.push(name);
        Ok(())
    }
}

const ENDINGS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "bmp", "pgm", "ppm", "pnm"];

fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|e| Error::file(path, e))? {
        found.push(entry.map_err(|e| Error::file(path, e))?.path());
    }
    found.sort();
    Ok(found)
}

fn is_picture(path: &Path) -> bool {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    ending.is_some_and(|e| ENDINGS.contains(&e.as_str()))
}

fn folder(path: &Path, task: &TaskOptions) -> Result<Pictures> {
    let mut gathered = Gathered::new(task);
    let inside = entries(path)?;
    let mut labels = Vec::new();
    let mut classes = Vec::new();
    let add = |gathered: &mut Gathered, file: &Path| {
        let content = std::fs::read(file).map_err(|e| Error::file(file, e))?;
        gathered.add(file.display().to_string(), &content)
    };
    for class in inside.iter().filter(|p| p.is_dir()) {
        let files: Vec<PathBuf> = entries(class)?
            .into_iter()
            .filter(|f| is_picture(f))
            .collect();
        if files.is_empty() {
            continue;
        }
        for file in files {
            add(&mut gathered, &file)?;
            labels.push(classes.len());
        }
        let name = class.file_name().unwrap_or_default();
        classes.push(name.to_string_lossy().into_owned());
    }
    if classes.is_empty() {
        for file in inside.iter().filter(|f| is_picture(f)) {
            add(&mut gathered, file)?;
        }
    } else {
        gathered.pictures.labels = Some(labels);
        gathered.pictures.classes = classes;
    }
    if gathered.pictures.is_empty() {
        return Err(Error::file(
            path,
            format!(
                "has no pictures; it should have a folder for each class with {} files",
                ENDINGS.join(", ")
            ),
        ));
    }
    Ok(gathered.pictures)
}

fn bytes(table: &Table, column: usize, task: &TaskOptions) -> Result<Pictures> {
    let mut gathered = Gathered::new(task);
    let name = table.schema().field(column).name().clone();
    for array in table.column(column)? {
        let array = bytes_of(&array).map_err(|e| Error::column(table.name(), &name, e))?;
        for i in 0..array.len() {
            let row = gathered.pictures.len() + 1;
            if array.is_null(i) {
                return Err(Error::column(
                    table.name(),
                    &name,
                    format!("row {row} has no picture"),
                ));
            }
            gathered.add(format!("{}, row {row}", table.name()), array.value(i))?;
        }
    }
    Ok(gathered.pictures)
}

fn pixels(table: &Table, roles: &Roles, task: &TaskOptions, context: &Context) -> Result<Pictures> {
    let matrix = Features::of(table, roles)?.matrix(context)?;
    let width = matrix.ncols();
    let channels = if task.colour == Colour::Rgb { 3 } else { 1 };
    let side = ((width / channels) as f64).sqrt().round() as usize;
    if side * side * channels != width {
        return Err(Error::BadInput(format!(
            "{} has {width} columns of pixels, which make no square picture of {channels} colour channels; name the pixel columns with --features, or give pictures as files",
            table.name()
        )));
    }
    // Whatever the scale of grey levels, the highest becomes 1.
    let highest = matrix.iter().fold(0.0f64, |a, v| a.max(v.abs())).max(1e-12);
    if !highest.is_finite() {
        return Err(Error::BadInput(format!(
            "{} has pixels that are not finite numbers",
            table.name()
        )));
    }
    let scale = if highest > 16.0 {
        255.0
    } else if highest > 1.0 {
        16.0
    } else {
        1.0
    };
    Ok(Pictures {
        values: matrix.iter().map(|v| (v / scale) as f32).collect(),
        picture: [side, side],
        channels,
        names: (1..=matrix.nrows()).map(|i| i.to_string()).collect(),
        labels: None,
        classes: Vec::new(),
    })
}

/// Whether a file begins as IDX pictures do.
pub(super) fn is_idx(path: &Path) -> bool {
    let mut start = [0; 4];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut start))
        .is_ok_and(|()| start == [0, 0, 8, 3])
}

/// IDX pictures, [n, h, w] bytes behind a header of 16, with labels in the file of the same name with `labels-idx1`
/// for `images-idx3`.
fn idx(path: &Path, content: &[u8]) -> Result<Pictures> {
    let number = |content: &[u8], at: usize| {
        content
            .get(at..at + 4)
            .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize)
    };
    let cut = || Error::file(path, "is an IDX file that is cut off");
    let (Some(n), Some(h), Some(w)) = (number(content, 4), number(content, 8), number(content, 12))
    else {
        return Err(cut());
    };
    let size = n
        .checked_mul(h)
        .and_then(|s| s.checked_mul(w))
        .ok_or_else(cut)?;
    let pixels = content
        .get(16..)
        .filter(|p| p.len() == size && size > 0)
        .ok_or_else(cut)?;
    let file = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let beside = path.with_file_name(
        file.replace("images-idx3", "labels-idx1")
            .replace("images.idx3", "labels.idx1"),
    );
    let mut labels = None;
    let mut classes = Vec::new();
    if beside != path && beside.is_file() {
        let content = std::fs::read(&beside).map_err(|e| Error::file(&beside, e))?;
        if !content.starts_with(&[0, 0, 8, 1]) || content.len() != 8 + n {
            return Err(Error::file(
                &beside,
                format!("should be an IDX file with {n} labels"),
            ));
        }
        let codes: Vec<usize> = content[8..].iter().map(|b| usize::from(*b)).collect();
        classes = (0..=codes.iter().copied().max().unwrap_or(0))
            .map(|c| c.to_string())
            .collect();
        labels = Some(codes);
    }
    Ok(Pictures {
        values: pixels.iter().map(|b| f32::from(*b) / 255.0).collect(),
        picture: [h, w],
        channels: 1,
        names: (1..=n).map(|i| i.to_string()).collect(),
        labels,
        classes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_name_classes_and_refuse_what_does_not_fit() {
        let dir = tempfile::tempdir().unwrap();
        let save = |class: &str, name: &str, side: u32| {
            let folder = dir.path().join(class);
            std::fs::create_dir_all(&folder).unwrap();
            image::GrayImage::from_pixel(side, side, image::Luma([51]))
                .save(folder.join(name))
                .unwrap();
        };
        save("cat", "a.png", 4);
        save("dog", "b.png", 4);
        let task = TaskOptions::default();
        let read = folder(dir.path(), &task).unwrap();
        assert_eq!(read.classes, ["cat", "dog"]);
        assert_eq!(read.labels, Some(vec![0, 1]));
        assert_eq!((read.picture, read.channels), ([4, 4], 1));
        assert!((read.values[0] - 0.2).abs() < 1e-6);
        save("dog", "c.png", 5);
        let text = folder(dir.path(), &task).unwrap_err().to_string();
        assert!(
            text.contains("c.png") && text.contains("image-size"),
            "{text}"
        );
        let resized = TaskOptions {
            image_size: Some(4),
            ..TaskOptions::default()
        };
        assert_eq!(folder(dir.path(), &resized).unwrap().len(), 3);
        std::fs::write(dir.path().join("dog/d.png"), b"no picture").unwrap();
        let text = folder(dir.path(), &resized).unwrap_err().to_string();
        assert!(text.contains("d.png"), "{text}");
    }

    #[test]
    fn idx_by_hand_and_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train-images-idx3-ubyte");
        let mut content = vec![0, 0, 8, 3];
        for n in [2u32, 1, 2] {
            content.extend(n.to_be_bytes());
        }
        content.extend([0, 255, 51, 102]);
        std::fs::write(
            dir.path().join("train-labels-idx1-ubyte"),
            [0, 0, 8, 1, 0, 0, 0, 2, 1, 0],
        )
        .unwrap();
        let read = idx(&path, &content).unwrap();
        assert_eq!(read.picture, [1, 2]);
        assert_eq!(read.values, [0.0, 1.0, 0.2, 0.4]);
        assert_eq!(read.labels, Some(vec![1, 0]));
        assert!(idx(&path, &content[..18]).is_err());
    }
}
