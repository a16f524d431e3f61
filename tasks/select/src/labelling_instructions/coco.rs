//! COCO files of annotations: the classes and boxes of images.

use super::read::Annotation;
use papertrial_core::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A file of annotations; what is not needed is not read.
#[derive(Debug)]
pub struct Coco {
    path: PathBuf,
    content: Content,
}

#[derive(Debug, Deserialize)]
struct Content {
    images: Vec<Image>,
    annotations: Vec<Mark>,
    categories: Vec<Category>,
}

#[derive(Debug, Deserialize)]
struct Image {
    id: Value,
    #[serde(default)]
    file_name: String,
    width: Option<f32>,
    height: Option<f32>,
}

#[derive(Debug, Deserialize)]
struct Mark {
    image_id: Value,
    category_id: Value,
    /// Left, top, width, height.
    bbox: Option<[f32; 4]>,
}

#[derive(Debug, Deserialize)]
struct Category {
    id: Value,
    name: String,
}

/// Reads a file.
///
/// # Errors
/// It cannot be read or is no COCO file.
pub fn read(path: &Path) -> Result<Coco> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
    let content = serde_json::from_str(&text).map_err(|e| {
        Error::file(
            path,
            format!("is not a COCO file with images, annotations and categories: {e}"),
        )
    })?;
    Ok(Coco {
        path: path.into(),
        content,
    })
}

impl Coco {
    /// The annotations of the images named; an image is named by its file or by its number. Sizes are filled in.
    ///
    /// # Errors
    /// An annotation of an image or a category that the file does not have; a box outside its image.
    pub fn annotations(
        &self,
        images: &[String],
        sizes: &mut Vec<Option<[f32; 2]>>,
    ) -> Result<Vec<Annotation>> {
        sizes.resize(images.len(), None);
        let number: HashMap<&str, usize> = images.iter().map(String::as_str).zip(0..).collect();
        let told = |problem: String| Error::file(&self.path, problem);
        let mut of_id: HashMap<String, (String, Option<[f32; 2]>)> = HashMap::new();
        for image in &self.content.images {
            let id = shown(&image.id);
            let name = match number.contains_key(image.file_name.as_str()) {
                true => image.file_name.clone(),
                false => id.clone(),
            };
            let size = image.width.zip(image.height).map(|(w, h)| [w, h]);
            if let (Some(i), Some(size)) = (number.get(name.as_str()), size) {
                sizes[*i] = Some(size);
            }
            of_id.insert(id, (name, size));
        }
        let category: HashMap<String, &str> = self
            .content
            .categories
            .iter()
            .map(|c| (shown(&c.id), c.name.as_str()))
            .collect();
        self.content
            .annotations
            .iter()
            .enumerate()
            .map(|(i, mark)| {
                let id = shown(&mark.image_id);
                let (image, size) = of_id.get(&id).ok_or_else(|| {
                    told(format!("annotation {} is of image {id}, which is not listed", i + 1))
                })?;
                let class = category.get(&shown(&mark.category_id)).ok_or_else(|| {
                    told(format!(
                        "annotation {} is of category {}, which is not listed",
                        i + 1,
                        mark.category_id
                    ))
                })?;
                let bounds = mark.bbox.map(|[x, y, w, h]| [x, y, x + w, y + h]);
                if let (Some(b), Some([width, height])) = (bounds, size)
                    && (b[0] < -0.5 || b[1] < -0.5 || b[2] > width + 0.5 || b[3] > height + 0.5)
                {
                    return Err(told(format!(
                        "annotation {}: the box ({}, {}, {}, {}) lies outside image {image}, which is {width} x {height}",
                        i + 1, b[0], b[1], b[2], b[3]
                    )));
                }
                Ok(Annotation {
                    image: image.clone(),
                    class: (*class).to_owned(),
                    bounds,
                })
            })
            .collect()
    }
}

/// A number or a text as an identifier.
fn shown(id: &Value) -> String {
    match id {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn coco(content: Value) -> Coco {
        Coco {
            path: "marks.json".into(),
            content: serde_json::from_value(content).unwrap(),
        }
    }

    fn sample() -> Value {
        json!({
            "info": {"year": 2017},
            "images": [
                {"id": 7, "file_name": "a.jpg", "width": 40, "height": 30},
                {"id": 8, "file_name": "b.jpg"}
            ],
            "annotations": [
                {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 5, 20, 10], "iscrowd": 0},
                {"id": 2, "image_id": 8, "category_id": 3}
            ],
            "categories": [{"id": 3, "name": "dog"}]
        })
    }

    #[test]
    fn images_are_found_by_file_or_number() {
        let mut sizes = Vec::new();
        let images = ["8".to_owned(), "a.jpg".to_owned()];
        let found = coco(sample()).annotations(&images, &mut sizes).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].image.as_str(), found[0].bounds),
            ("a.jpg", Some([10.0, 5.0, 30.0, 15.0]))
        );
        assert_eq!((found[1].image.as_str(), found[1].bounds), ("8", None));
        assert!(found.iter().all(|a| a.class == "dog"));
        assert_eq!(sizes, [None, Some([40.0, 30.0])]);
    }

    #[test]
    fn what_is_not_listed_or_lies_outside_is_told() {
        let told = |at: &str, value: Value| {
            let mut content = sample();
            *content.pointer_mut(at).unwrap() = value;
            let found = coco(content).annotations(&["a.jpg".into()], &mut Vec::new());
            found.err().unwrap().to_string()
        };
        assert!(told("/annotations/0/image_id", json!(9)).contains("image 9, which is not listed"));
        assert!(told("/annotations/1/category_id", json!(4)).contains("category 4"));
        let text = told("/annotations/0/bbox/2", json!(31));
        assert!(
            text.contains("outside image a.jpg, which is 40 x 30"),
            "{text}"
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        std::fs::write(&path, "{\"images\": []}").unwrap();
        assert!(
            read(&path)
                .unwrap_err()
                .to_string()
                .contains("is not a COCO file")
        );
    }
}
