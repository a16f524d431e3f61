//! Reads a collection from the user's tables.
//!
//! The main table has one row a patch: the image's name (`--id`), its box (columns x0, y0, x1, y1, or others by option
//! `box-columns`; optional), its vector (a list column, or columns of numbers), and, if it is a crop that shows a class,
//! the class (`--label`). Rows without a class are searched; if every row has one, every row is searched as well. Columns
//! `width` and `height`, if there are any, hold the size of the image and boxes are checked against it.
//!
//! Texts come from input `texts`: columns class, text, and their vectors by the same encoder. Without it the main table
//! needs a column of texts (`--text`): rows with a text are single items from which a small encoder is learned, and the
//! vectors are then raw, such as pixels.
//!
//! Classes may come from input `labels` instead: columns image, class and, if known, x0, y0, x1, y1; or a COCO file of
//! annotations. A box then stands for the patch of its image that overlaps it most; without a box it is the largest.

use super::collection::{Bounds, Collection, Parts, Place};
use super::encoder::{self, Lessons};
use super::lesson::Pair;
use super::{TaskOptions, coco};
use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use ndarray::{Array2, Axis, s};
use papertrial_core::data::{Features, Roles, Table};
use papertrial_core::task::{Context, Input, Job};
use papertrial_core::{Error, Result};
use std::collections::HashMap;

/// Columns of a box, unless the user names others.
const BOX: [&str; 4] = ["x0", "y0", "x1", "y1"];

/// A collection, and what the reader should know of how it was read.
pub struct Read {
    /// The collection.
    pub collection: Collection,
    /// Remarks.
    pub notes: Vec<String>,
}

/// Classes told apart from the patches.
pub struct Annotation {
    /// Name of the image.
    pub image: String,
    /// The class.
    pub class: String,
    /// Part of the image that shows it, if known.
    pub bounds: Option<Bounds>,
}

/// Reads what the job names.
///
/// # Errors
/// A table cannot be read, lacks a column, or holds what cannot be: see [`Collection::new`].
pub fn collection(job: &Job, asked: &TaskOptions, context: &Context) -> Result<Read> {
    let table = job.table("data", context)?;
    let roles = &job.roles;
    roles.check(&table)?;
    let Some(id) = &roles.id else {
        return Err(Error::option(
            "--id",
            format!(
                "{} has one row a patch; name the column that holds the image's name",
                table.name()
            ),
        ));
    };
    let boxes = Boxes::of(&table, &asked.box_columns)?;
    let features = features(&table, roles, &boxes)?;
    context.require(
        &format!("the vectors of {} patches", table.rows()),
        table.rows().saturating_mul(features.width() as u64 * 4 * 2),
    )?;
    let name = text_column(&table, "--id", id)?;
    let mut notes = Vec::new();

    // Images are numbered as they come; rows with a text are no images of the collection.
    let given_texts = job.inputs.contains_key("texts");
    let teach = match &roles.text {
        Some(column) if given_texts => {
            return Err(Error::option(
                "--text",
                format!("texts come from --texts already; leave column '{column}' out"),
            ));
        }
        Some(column) => text_column(&table, "--text", column)?,
        None => vec![None; name.len()],
    };
    let class = match &roles.label {
        Some(column) if job.inputs.contains_key("labels") => {
            return Err(Error::option(
                "--label",
                format!("classes come from --labels already; leave column '{column}' out"),
            ));
        }
        Some(column) => text_column(&table, "--label", column)?,
        None => vec![None; name.len()],
    };
    let mut parts = Parts {
        source: table.name().to_owned(),
        ..Parts::default()
    };
    let mut number: HashMap<&str, usize> = HashMap::new();
    let (bounds, sizes) = (boxes.read(&table)?, sizes(&table)?);
    let (mut patch_rows, mut crop_rows, mut lesson_rows) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..name.len() {
        if teach[row].is_some() {
            lesson_rows.push(row);
            continue;
        }
        let Some(image) = &name[row] else {
            return Err(Error::column(
                table.name(),
                id,
                format!("row {} has no image", row + 1),
            ));
        };
        let image = *number.entry(image).or_insert_with(|| {
            parts.images.push(image.clone());
            parts.sizes.push(sizes.as_ref().and_then(|s| s[row]));
            parts.images.len() - 1
        });
        let place = Place {
            image,
            bounds: bounds[row],
        };
        match &class[row] {
            Some(class) => {
                crop_rows.push(row);
                parts.crops.push((place, class.clone()));
            }
            None => {
                patch_rows.push(row);
                parts.patches.push(place);
            }
        }
    }
    let mut vectors = vectors(&features)?;
    if given_texts {
        let texts = texts(job, context)?;
        (parts.texts, parts.text_vectors) = (texts.0, texts.1);
    } else if lesson_rows.is_empty() {
        return Err(Error::BadInput(
            "there are no texts: give --texts FILE with columns class, text and their vectors; or name with --text a column of texts from which a small encoder is learned".into(),
        ));
    } else {
        let lessons = Lessons::new(&table, &lesson_rows, &teach, &class, &vectors)?;
        let learned = encoder::learn(&lessons, context)?;
        vectors = learned.images(&vectors, context)?;
        parts.texts = lessons.texts();
        parts.text_vectors = learned.texts(&parts.texts, context)?;
        notes.push(format!(
            "a small encoder of pictures and texts was learned from {} single items",
            lesson_rows.len()
        ));
    }
    if patch_rows.is_empty() && !crop_rows.is_empty() {
        notes.push("every row has a class, so every row is searched as well as offered".into());
        patch_rows.clone_from(&crop_rows);
        parts.patches = parts.crops.iter().map(|c| c.0).collect();
    }
    // Rows that are all patches, in order, need no copy.
    parts.crop_vectors = vectors.select(Axis(0), &crop_rows);
    parts.patch_vectors = match patch_rows.len() == vectors.nrows() {
        true => vectors,
        false => vectors.select(Axis(0), &patch_rows),
    };
    if let Some(input) = job.inputs.get("labels") {
        let annotations = annotations(job, input, &mut parts, context)?;
        let number = number_of(&parts.images);
        notes.push(annotate(&mut parts, &annotations, &number));
    }
    Ok(Read {
        collection: Collection::new(parts)?,
        notes,
    })
}

/// The guide that the user brings: the pairs of each class, in their order. Columns class, image (with x0, y0, x1, y1
/// where an image has several crops of the class) and text; either of image and text may be empty.
///
/// # Errors
/// A class, image or text that the collection does not have.
pub fn guide(job: &Job, collection: &Collection, context: &Context) -> Result<Vec<Vec<Pair>>> {
    let mut guide = vec![Vec::new(); collection.classes.len()];
    if !job.inputs.contains_key("guide") {
        return Ok(guide);
    }
    let table = job.table("guide", context)?;
    let class = text_column(&table, "--guide", "class")?;
    let optional = |column: &str| match table.columns().contains(&column) {
        true => text_column(&table, "--guide", column),
        false => Ok(vec![None; class.len()]),
    };
    let (image, words) = (optional("image")?, optional("text")?);
    let bounds = Boxes::of(&table, &[])?.read(&table)?;
    let wrong = |row: usize, column: &str, problem: String| {
        Error::column(table.name(), column, format!("row {} {problem}", row + 1))
    };
    for row in 0..class.len() {
        let name = class[row].clone().unwrap_or_default();
        let Some(of) = collection.classes.iter().position(|c| *c == name) else {
            return Err(wrong(
                row,
                "class",
                format!("names class '{name}', which no image shows"),
            ));
        };
        let text = match &words[row] {
            None => None,
            Some(w) => {
                let known = collection.texts.iter().position(|t| t.0 == of && t.1 == *w);
                Some(known.ok_or_else(|| {
                    wrong(
                        row,
                        "text",
                        format!("holds '{w}', which is no text of class {name}"),
                    )
                })?)
            }
        };
        let crop = match &image[row] {
            None => None,
            Some(image) => {
                let of_image = (0..collection.crops.len()).filter(|c| {
                    let (place, class) = &collection.crops[*c];
                    *class == of && collection.images[place.image] == *image
                });
                let overlap = |crop: &usize| match (collection.crops[*crop].0.bounds, bounds[row]) {
                    (Some(a), Some(b)) => overlap(a, b),
                    _ => 0.0,
                };
                // Of equal ones the first.
                let best = of_image
                    .rev()
                    .max_by(|a, b| overlap(a).total_cmp(&overlap(b)));
                Some(best.ok_or_else(|| {
                    wrong(
                        row,
                        "image",
                        format!("names '{image}', which has no crop of class {name}"),
                    )
                })?)
            }
        };
        if crop.is_none() && text.is_none() {
            return Err(wrong(row, "class", "has neither image nor text".into()));
        }
        guide[of].push(Pair { crop, text });
    }
    Ok(guide)
}

/// The columns to compute with: those that the user names, else the list columns, else all numbers without a role.
fn features(table: &Table, roles: &Roles, boxes: &Boxes) -> Result<Features> {
    let mut chosen = roles.features.clone();
    if chosen.is_empty() {
        let taken: Vec<&str> = roles.named().map(|(_, c)| c).collect();
        let free = |name: &str| {
            !taken.contains(&name) && !boxes.has(name) && name != "width" && name != "height"
        };
        let fields = table.schema().fields().iter().filter(|f| free(f.name()));
        let (lists, others): (Vec<_>, Vec<_>) = fields.partition(|f| {
            matches!(
                f.data_type(),
                DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _)
            )
        });
        let fields = if lists.is_empty() { others } else { lists };
        chosen = fields.into_iter().map(|f| f.name().clone()).collect();
    }
    if chosen.is_empty() {
        return Err(Error::option(
            "--features",
            format!("{} has no column of vectors; name it", table.name()),
        ));
    }
    Features::of(
        table,
        &Roles {
            features: chosen,
            ..Roles::default()
        },
    )
}

/// All rows [rows, width], read in chunks so that they need no more than their own room.
fn vectors(features: &Features) -> Result<Array2<f32>> {
    let rows = usize::try_from(features.rows()).unwrap_or(usize::MAX);
    let mut all = Array2::zeros((rows, features.width()));
    let mut start = 0;
    for chunk in features.chunks()? {
        let chunk = chunk?;
        let end = start + chunk.nrows();
        if end > rows {
            return Err(Error::file(features.source(), "changed while it was read"));
        }
        let mut to = all.slice_mut(s![start..end, ..]);
        to.zip_mut_with(&chunk, |to, from| *to = *from as f32);
        start = end;
    }
    if start < rows {
        return Err(Error::file(features.source(), "changed while it was read"));
    }
    Ok(all)
}

/// Texts and their vectors.
type Texts = (Vec<(String, String)>, Array2<f32>);

/// The input `texts`.
fn texts(job: &Job, context: &Context) -> Result<Texts> {
    let table = job.table("texts", context)?;
    let class = text_column(&table, "--texts", "class")?;
    let words = text_column(&table, "--texts", "text")?;
    let mut texts = Vec::with_capacity(class.len());
    for (row, (class, words)) in class.into_iter().zip(words).enumerate() {
        match (class, words) {
            (Some(class), Some(words)) => texts.push((class, words)),
            (None, _) => {
                let problem = format!("row {} has no class", row + 1);
                return Err(Error::column(table.name(), "class", problem));
            }
            (_, None) => {
                let problem = format!("row {} has no text", row + 1);
                return Err(Error::column(table.name(), "text", problem));
            }
        }
    }
    let roles = Roles {
        label: Some("class".into()),
        text: Some("text".into()),
        ..Roles::default()
    };
    let vectors = vectors(&features(&table, &roles, &Boxes::none())?)?;
    Ok((texts, vectors))
}

/// The input `labels`: a table, or a COCO file.
fn annotations(
    job: &Job,
    input: &Input,
    parts: &mut Parts,
    context: &Context,
) -> Result<Vec<Annotation>> {
    if let Input::File { path, .. } = input
        && path.extension().is_some_and(|e| e == "json")
    {
        let file = coco::read(path)?;
        return file.annotations(&parts.images, &mut parts.sizes);
    }
    let table = job.table("labels", context)?;
    let image = text_column(&table, "--labels", "image")?;
    let class = text_column(&table, "--labels", "class")?;
    let bounds = Boxes::of(&table, &[])?.read(&table)?;
    let rows = image.into_iter().zip(class).zip(bounds).enumerate();
    rows.map(|(row, ((image, class), bounds))| match (image, class) {
        (Some(image), Some(class)) => Ok(Annotation {
            image,
            class,
            bounds,
        }),
        (image, _) => {
            let column = if image.is_none() { "image" } else { "class" };
            let problem = format!("row {} is empty", row + 1);
            Err(Error::column(table.name(), column, problem))
        }
    })
    .collect()
}

fn number_of(images: &[String]) -> HashMap<String, usize> {
    images.iter().cloned().zip(0..).collect()
}

/// Makes a crop of each annotation: the patch of its image that overlaps its box most, or the largest if it has none.
/// The remark tells how well they overlap.
fn annotate(
    parts: &mut Parts,
    annotations: &[Annotation],
    number: &HashMap<String, usize>,
) -> String {
    let mut of_image = vec![Vec::new(); parts.images.len()];
    for (patch, place) in parts.patches.iter().enumerate() {
        of_image[place.image].push(patch);
    }
    let (mut chosen, mut total, mut boxed, mut elsewhere) = (Vec::new(), 0.0, 0usize, 0usize);
    for annotation in annotations {
        let Some(&image) = number.get(&annotation.image) else {
            // Annotations of images that are not searched do no harm.
            elsewhere += 1;
            continue;
        };
        let worth = |patch: &usize| match (annotation.bounds, parts.patches[*patch].bounds) {
            (Some(a), Some(b)) => overlap(a, b),
            (None, Some(b)) => (b[2] - b[0]) * (b[3] - b[1]),
            (_, None) => 0.0,
        };
        let best = of_image[image]
            .iter()
            .rev()
            .max_by(|a, b| worth(a).total_cmp(&worth(b)));
        let Some(best) = best else { continue };
        if annotation.bounds.is_some() {
            boxed += 1;
            total += f64::from(worth(best));
        }
        chosen.push(*best);
        let place = Place {
            image,
            bounds: annotation.bounds.or(parts.patches[*best].bounds),
        };
        parts.crops.push((place, annotation.class.clone()));
    }
    parts.crop_vectors = parts.patch_vectors.select(Axis(0), &chosen);
    let mut note = format!("{} labels of images that are searched", chosen.len());
    if boxed > 0 {
        let mean = total / boxed as f64;
        note += &format!(
            "; a box stands for the patch that overlaps it most, on average {:.0} % of their union",
            100.0 * mean
        );
    }
    if elsewhere > 0 {
        note += &format!("; {elsewhere} labels of other images were left out");
    }
    note
}

/// Intersection over union of two boxes.
fn overlap(a: Bounds, b: Bounds) -> f32 {
    let across = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let down = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let area = |c: Bounds| (c[2] - c[0]) * (c[3] - c[1]);
    let common = across * down;
    let union = area(a) + area(b) - common;
    if union > 0.0 { common / union } else { 0.0 }
}

/// The columns of boxes, if there are any.
struct Boxes(Option<[String; 4]>);

impl Boxes {
    fn none() -> Boxes {
        Boxes(None)
    }

    /// The named columns, else x0, y0, x1, y1 if the table has them.
    fn of(table: &Table, named: &[String]) -> Result<Boxes> {
        if named.is_empty() {
            let there = BOX.iter().all(|c| table.columns().contains(c));
            return Ok(Boxes(there.then(|| BOX.map(str::to_owned))));
        }
        let columns: [String; 4] = named.to_vec().try_into().map_err(|_| {
            Error::option(
                "box-columns",
                format!(
                    "{} names were given; it takes four: left, top, right, bottom",
                    named.len()
                ),
            )
        })?;
        for column in &columns {
            table.column_for("box-columns", column)?;
        }
        Ok(Boxes(Some(columns)))
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().flatten().any(|c| c == name)
    }

    /// The box of each row; a row with an empty cell has none.
    fn read(&self, table: &Table) -> Result<Vec<Option<Bounds>>> {
        let mut boxes = vec![Some([0.0; 4]); table.rows() as usize];
        let Some(columns) = &self.0 else {
            boxes.fill(None);
            return Ok(boxes);
        };
        for (side, column) in columns.iter().enumerate() {
            for (to, cell) in boxes.iter_mut().zip(number_column(table, column)?) {
                match (to.as_mut(), cell) {
                    (Some(b), Some(v)) => b[side] = v,
                    _ => *to = None,
                }
            }
        }
        Ok(boxes)
    }
}

/// Width and height of each row's image, where the table has such columns.
fn sizes(table: &Table) -> Result<Option<Vec<Option<[f32; 2]>>>> {
    if !["width", "height"]
        .iter()
        .all(|c| table.columns().contains(c))
    {
        return Ok(None);
    }
    let both = number_column(table, "width")?
        .into_iter()
        .zip(number_column(table, "height")?);
    Ok(Some(both.map(|(w, h)| Some([w?, h?])).collect()))
}

/// A column as numbers; an empty cell is none.
fn number_column(table: &Table, column: &str) -> Result<Vec<Option<f32>>> {
    let index = table.column_for("box-columns", column)?;
    let mut all = Vec::new();
    for array in table.column(index)? {
        let numbers = cast(&array, &DataType::Float64)
            .map_err(|_| Error::column(table.name(), column, "should hold numbers"))?;
        for value in numbers.as_primitive::<Float64Type>() {
            if value.is_some_and(|v| !v.is_finite()) {
                let problem = format!("row {} is not a finite number", all.len() + 1);
                return Err(Error::column(table.name(), column, problem));
            }
            all.push(value.map(|v| v as f32));
        }
    }
    Ok(all)
}

/// A column as text; an empty cell is none.
fn text_column(table: &Table, option: &str, column: &str) -> Result<Vec<Option<String>>> {
    let index = table.column_for(option, column)?;
    let mut all = Vec::new();
    for array in table.column(index)? {
        let texts = cast(&array, &DataType::Utf8).map_err(|_| {
            Error::column(table.name(), column, "should hold text or whole numbers")
        })?;
        let cells = texts.as_string::<i32>().iter();
        all.extend(cells.map(|c| {
            c.map(str::trim)
                .filter(|t| !t.is_empty())
                .map(str::to_owned)
        }));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_by_hand() {
        let a = [0.0, 0.0, 4.0, 4.0];
        assert_eq!(overlap(a, a), 1.0);
        assert_eq!(overlap(a, [2.0, 0.0, 6.0, 4.0]), 8.0 / 24.0);
        assert_eq!(overlap(a, [4.0, 0.0, 6.0, 4.0]), 0.0);
    }
}
