//! Images as patches to search, crops of the classes, and texts: all as vectors of one encoder.

use ndarray::{Array2, ArrayViewMut1, Axis};
use papertrial_core::{Error, Result};
use std::collections::HashMap;

/// A part of an image in pixels: left, top, right, bottom.
pub type Bounds = [f32; 4];

/// Where a patch or a crop lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Number of the image.
    pub image: usize,
    /// Part of the image; the whole where it is not known.
    pub bounds: Option<Bounds>,
}

/// What is known before it is checked and put in order.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// File or data set, for messages.
    pub source: String,
    /// Names of the images.
    pub images: Vec<String>,
    /// Width and height of the images in pixels, where known: one for each image, or none at all.
    pub sizes: Vec<Option<[f32; 2]>>,
    /// Patches that can be searched.
    pub patches: Vec<Place>,
    /// Their vectors [patches, d].
    pub patch_vectors: Array2<f32>,
    /// Crops with the class that they show.
    pub crops: Vec<(Place, String)>,
    /// Their vectors [crops, d].
    pub crop_vectors: Array2<f32>,
    /// Texts with the class that they name.
    pub texts: Vec<(String, String)>,
    /// Their vectors [texts, d].
    pub text_vectors: Array2<f32>,
}

/// Images, classes and texts, checked.
#[derive(Debug, Clone)]
pub struct Collection {
    /// File or data set, for messages.
    pub source: String,
    /// Names of the images.
    pub images: Vec<String>,
    /// Width and height of each image, where known.
    pub sizes: Vec<Option<[f32; 2]>>,
    /// Vectors of the patches [p, d], of length 1, grouped by image.
    pub patches: Array2<f32>,
    /// Where the patches of each image begin, and p.
    pub starts: Vec<usize>,
    /// Names of the classes, sorted; whole numbers in their numeric order.
    pub classes: Vec<String>,
    /// Crops: place and class.
    pub crops: Vec<(Place, usize)>,
    /// Their vectors [crops, d], of length 1.
    pub crop_vectors: Array2<f32>,
    /// Texts: class and words.
    pub texts: Vec<(usize, String)>,
    /// Their vectors [texts, d], of length 1.
    pub text_vectors: Array2<f32>,
}

impl Collection {
    /// Checks the parts, scales their vectors to length 1 and groups the patches by image.
    ///
    /// # Errors
    /// Vectors of different widths, of length 0 or not finite; a box outside its image; an image without a patch; a
    /// class without text or without crop; nothing at all.
    pub fn new(parts: Parts) -> Result<Collection> {
        let told = |problem: String| Error::file(&parts.source, problem);
        if parts.patches.is_empty() {
            return Err(told("has no patches to search".into()));
        }
        if parts.crops.is_empty() {
            return Err(told(
                "no image has a class; name the column of the classes with --label, or give --labels FILE".into(),
            ));
        }
        let width = parts.patch_vectors.ncols();
        for (what, vectors) in [
            ("crops", &parts.crop_vectors),
            ("texts", &parts.text_vectors),
        ] {
            if vectors.ncols() != width && vectors.nrows() > 0 {
                return Err(told(format!(
                    "the vectors of the {what} have {} numbers, those of the patches {width}; both must come from one encoder",
                    vectors.ncols()
                )));
            }
        }
        for (kind, place) in parts
            .patches
            .iter()
            .map(|p| ("patch", p))
            .chain(parts.crops.iter().map(|c| ("crop", &c.0)))
        {
            let size = parts.sizes.get(place.image).copied().flatten();
            if let Some(wrong) = place.bounds.and_then(|b| outside(b, size)) {
                return Err(told(format!(
                    "image {}: the box of a {kind} {wrong}",
                    parts.images[place.image]
                )));
            }
        }
        let classes = names(parts.crops.iter().map(|c| &c.1));
        let number: HashMap<&str, usize> = classes.iter().map(String::as_str).zip(0..).collect();
        let mut texts = Vec::with_capacity(parts.texts.len());
        for (class, words) in &parts.texts {
            let Some(class) = number.get(class.as_str()) else {
                return Err(told(format!(
                    "class {class} has a text ('{words}') but no crop: no image shows it; leave its texts out, or label an image"
                )));
            };
            texts.push((*class, words.clone()));
        }
        let mut named = vec![false; classes.len()];
        texts.iter().for_each(|(class, _)| named[*class] = true);
        if let Some(class) = named.iter().position(|n| !n) {
            return Err(told(format!(
                "class {} has no text; every class needs one at least, its name will do",
                classes[class]
            )));
        }

        let mut starts = vec![0usize; parts.images.len() + 1];
        parts.patches.iter().for_each(|p| starts[p.image + 1] += 1);
        if let Some(bare) = starts[1..].iter().position(|n| *n == 0) {
            return Err(told(format!(
                "image {} has no patch to search, only crops of classes; add rows of its patches without a class",
                parts.images[bare]
            )));
        }
        for i in 0..parts.images.len() {
            starts[i + 1] += starts[i];
        }
        let crops = parts
            .crops
            .iter()
            .map(|(place, class)| (*place, number.get(class.as_str()).copied().unwrap_or(0)))
            .collect();
        let patches = grouped(parts.patch_vectors, &parts.patches);
        let sizes = match parts.sizes.len() {
            n if n == parts.images.len() => parts.sizes,
            _ => vec![None; parts.images.len()],
        };
        Ok(Collection {
            patches: unit(patches, &parts.source, |row| {
                let image = starts.partition_point(|s| *s <= row).saturating_sub(1);
                format!("a patch of image {}", parts.images[image])
            })?,
            crop_vectors: unit(parts.crop_vectors, &parts.source, |row| {
                format!("a crop of image {}", parts.images[parts.crops[row].0.image])
            })?,
            text_vectors: unit(parts.text_vectors, &parts.source, |row| {
                format!("the text '{}'", parts.texts[row].1)
            })?,
            source: parts.source,
            images: parts.images,
            sizes,
            starts,
            classes,
            crops,
            texts,
        })
    }

    /// The images of a class, ascending.
    pub fn images_of(&self, class: usize) -> Vec<usize> {
        let of = self.crops.iter().filter(|c| c.1 == class);
        let mut images: Vec<usize> = of.map(|c| c.0.image).collect();
        images.sort_unstable();
        images.dedup();
        images
    }

    /// The texts of a class: the class text first, which is the one that is the class' name, else the first given.
    pub fn texts_of(&self, class: usize) -> Vec<usize> {
        let mut texts: Vec<usize> = (0..self.texts.len())
            .filter(|t| self.texts[*t].0 == class)
            .collect();
        let name = &self.classes[class];
        if let Some(own) = texts.iter().position(|t| self.texts[*t].1 == *name) {
            texts[..=own].rotate_right(1);
        }
        texts
    }
}

/// Distinct names, sorted; by number if all are whole numbers.
fn names<'a>(all: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<String> = all.cloned().collect();
    names.sort_unstable();
    names.dedup();
    if names.iter().all(|n| n.parse::<i64>().is_ok()) {
        names.sort_by_key(|n| n.parse::<i64>().unwrap_or_default());
    }
    names
}

/// What is wrong with a box, if anything is.
fn outside([left, top, right, bottom]: Bounds, size: Option<[f32; 2]>) -> Option<String> {
    let shown = format!("({left}, {top}, {right}, {bottom})");
    // Half a pixel of slack for boxes that were rounded.
    const SLACK: f32 = 0.5;
    if !(right > left && bottom > top) {
        return Some(format!(
            "{shown} is empty; it must be left, top, right, bottom with left < right and top < bottom"
        ));
    }
    if left < -SLACK || top < -SLACK {
        return Some(format!("{shown} begins outside the image"));
    }
    match size {
        Some([width, height]) if right > width + SLACK || bottom > height + SLACK => Some(format!(
            "{shown} ends outside the image, which is {width} x {height}"
        )),
        _ => None,
    }
}

/// Rows in the order of their images; the rows themselves if they are in order already.
fn grouped(vectors: Array2<f32>, places: &[Place]) -> Array2<f32> {
    if places.is_sorted_by_key(|p| p.image) {
        return vectors;
    }
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|row| places[*row].image);
    vectors.select(Axis(0), &order)
}

/// Rows scaled to length 1.
fn unit(
    mut rows: Array2<f32>,
    source: &str,
    name: impl Fn(usize) -> String,
) -> Result<Array2<f32>> {
    for (i, row) in rows.rows_mut().into_iter().enumerate() {
        if !scale(row) {
            return Err(Error::file(
                source,
                format!(
                    "the vector of {} is all zeros or not finite, so it has no direction",
                    name(i)
                ),
            ));
        }
    }
    Ok(rows)
}

/// Scales to length 1, if there is a length.
fn scale(mut row: ArrayViewMut1<'_, f32>) -> bool {
    let squared: f64 = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
    let length = squared.sqrt();
    row.mapv_inplace(|v| (f64::from(v) / length) as f32);
    length > 0.0 && length.is_finite()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ndarray::array;

    pub fn place(image: usize) -> Place {
        Place {
            image,
            bounds: None,
        }
    }

    /// Two images of class a, one of b; patches out of order.
    fn parts() -> Parts {
        Parts {
            source: "test".into(),
            images: vec!["i0".into(), "i1".into(), "i2".into()],
            patches: vec![place(2), place(0), place(1), place(0)],
            patch_vectors: array![[0.0, 3.0], [2.0, 0.0], [1.0, 1.0], [0.0, 1.0]],
            crops: vec![
                (place(0), "a".into()),
                (place(2), "b".into()),
                (place(1), "a".into()),
                (place(1), "a".into()),
            ],
            crop_vectors: array![[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.0]],
            texts: vec![
                ("a".into(), "one a".into()),
                ("b".into(), "b".into()),
                ("a".into(), "a".into()),
            ],
            text_vectors: array![[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]],
            ..Parts::default()
        }
    }

    #[test]
    fn patches_are_grouped_and_scaled() {
        let c = Collection::new(parts()).unwrap();
        assert_eq!(c.starts, [0, 2, 3, 4]);
        assert_eq!(c.patches.row(0), array![1.0, 0.0]);
        assert_eq!(c.patches.row(1), array![0.0, 1.0]);
        assert_eq!(c.patches.row(3), array![0.0, 1.0]);
        assert!((c.patches[[2, 0]] - 0.5f32.sqrt()).abs() < 1e-6);
        assert_eq!(c.classes, ["a", "b"]);
        assert_eq!(c.images_of(0), [0, 1]);
        // The text that is the class' name comes first.
        assert_eq!(c.texts_of(0), [2, 0]);
        assert_eq!(c.texts_of(1), [1]);
    }

    #[test]
    fn what_cannot_be_is_told() {
        let told = |change: fn(&mut Parts)| {
            let mut parts = parts();
            change(&mut parts);
            Collection::new(parts).unwrap_err().to_string()
        };
        for (change, says) in [
            (
                (|p| p.texts[1].0 = "a".into()) as fn(&mut Parts),
                "class b has no text",
            ),
            (|p| p.texts[1].0 = "c".into(), "class c has a text"),
            (
                |p| p.text_vectors = Array2::ones((3, 5)),
                "texts have 5 numbers",
            ),
            (
                |p| p.patch_vectors.row_mut(2).fill(0.0),
                "a patch of image i1 is all zeros",
            ),
            (
                |p| p.crop_vectors.row_mut(1).fill(0.0),
                "a crop of image i2",
            ),
            (|p| p.text_vectors.row_mut(0).fill(f32::NAN), "'one a'"),
            (|p| p.patches[2].image = 0, "image i1 has no patch"),
            (
                |p| p.patches[2].bounds = Some([3.0, 0.0, 3.0, 2.0]),
                "is empty",
            ),
            (
                |p| p.crops[2].0.bounds = Some([-2.0, 0.0, 3.0, 2.0]),
                "begins outside",
            ),
            (
                |p| {
                    p.sizes = vec![Some([4.0, 4.0]); 3];
                    p.crops[0].0.bounds = Some([0.0, 0.0, 3.0, 5.0]);
                },
                "ends outside the image, which is 4 x 4",
            ),
            (|p| p.crops.clear(), "no image has a class"),
            (|p| p.patches.clear(), "no patches"),
        ] {
            let text = told(change);
            assert!(text.contains(says), "{text}");
        }
    }
}
