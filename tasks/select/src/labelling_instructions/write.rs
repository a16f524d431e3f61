//! Writes guides: one row a pair, a page to look at, and a form to let people choose between two guides.

use super::collection::Collection;
use super::lesson::{Guide, Pair};
use arrow::array::{ArrayRef, Float32Array, Float64Array, StringArray, UInt32Array};
use arrow::record_batch::RecordBatch;
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use rand::RngExt;
use std::fmt::Write;
use std::sync::Arc;

/// The guide of a class with the number of images that it was learned from.
pub struct Written {
    /// The class.
    pub class: usize,
    /// Images of the class.
    pub images: usize,
    /// Its pairs.
    pub guide: Guide,
}

impl Written {
    /// Each pair with its gain of average precision.
    fn gains(&self) -> impl Iterator<Item = (&Pair, f64, f64)> {
        let before = std::iter::once(0.0).chain(self.guide.values.iter().copied());
        let pairs = self.guide.pairs.iter().zip(&self.guide.values).zip(before);
        pairs.map(|((pair, value), before)| (pair, value - before, *value))
    }
}

/// One row a pair: class, rank, image, box, text, weight of the crop, gain, average precision so far.
///
/// # Errors
/// Arrow refuses the columns.
pub fn batch(collection: &Collection, guides: &[Written]) -> Result<RecordBatch> {
    let (mut class, mut rank, mut image, mut text) = (vec![], vec![], vec![], vec![]);
    let mut sides: [Vec<Option<f32>>; 4] = Default::default();
    let (mut alpha, mut gain, mut value) = (vec![], vec![], vec![]);
    for written in guides {
        for (i, (pair, gained, so_far)) in written.gains().enumerate() {
            let place = pair.crop.map(|c| collection.crops[c].0);
            class.push(collection.classes[written.class].as_str());
            rank.push(i as u32 + 1);
            image.push(place.map(|p| collection.images[p.image].as_str()));
            let bounds = place.and_then(|p| p.bounds);
            for (side, to) in sides.iter_mut().enumerate() {
                to.push(bounds.map(|b| b[side]));
            }
            text.push(pair.text.map(|t| collection.texts[t].1.as_str()));
            let weight = match (pair.crop, pair.text) {
                (Some(_), None) => 1.0,
                (None, _) => 0.0,
                _ => written.guide.alpha,
            };
            alpha.push(weight);
            gain.push(gained);
            value.push(so_far);
        }
    }
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("class", Arc::new(StringArray::from(class))),
        ("rank", Arc::new(UInt32Array::from(rank))),
        ("image", Arc::new(StringArray::from(image))),
    ];
    for (name, values) in ["x0", "y0", "x1", "y1"].into_iter().zip(sides) {
        columns.push((name, Arc::new(Float32Array::from(values))));
    }
    columns.push(("text", Arc::new(StringArray::from(text))));
    columns.push(("alpha", Arc::new(Float64Array::from(alpha))));
    columns.push(("gain", Arc::new(Float64Array::from(gain))));
    columns.push(("average_precision", Arc::new(Float64Array::from(value))));
    RecordBatch::try_from_iter(columns).map_err(|e| Error::Failed(e.to_string()))
}

/// A page with the pairs of every class. An image whose name is a picture's file or address is shown, cut to the crop.
pub fn page(collection: &Collection, guides: &[Written]) -> String {
    let mut html = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Labelling instructions</title>\n<style>body{font-family:sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}section{border-top:1px solid #ccc}ol{display:flex;flex-wrap:wrap;gap:1rem;padding:0}li{list-style:none;width:11rem}.crop{position:relative;overflow:hidden;background:#eee}.crop img{position:absolute}small{color:#555}</style></head><body>\n<h1>Labelling instructions</h1>\n",
    );
    let _ = writeln!(html, "<p>Made from {}.</p>", escaped(&collection.source));
    for written in guides {
        let _ = writeln!(
            html,
            "<section><h2>{}</h2><p>Average precision {:.3} of a search with these, from {} images.</p><ol>",
            escaped(&collection.classes[written.class]),
            written.guide.values.last().copied().unwrap_or_default(),
            written.images,
        );
        for (pair, gain, _) in written.gains() {
            html.push_str("<li>");
            if let Some(crop) = pair.crop {
                html.push_str(&figure(collection, crop));
            }
            if let Some(text) = pair.text {
                let _ = write!(html, "<p>{}</p>", escaped(&collection.texts[text].1));
            }
            let _ = writeln!(html, "<small>gain {gain:.3}</small></li>");
        }
        html.push_str("</ol></section>\n");
    }
    html.push_str("</body></html>\n");
    html
}

/// Side of a shown crop in pixels.
const SHOWN: f32 = 160.0;

fn figure(collection: &Collection, crop: usize) -> String {
    let place = collection.crops[crop].0;
    let name = escaped(&collection.images[place.image]);
    let lower = name.to_lowercase();
    let picture = [".jpg", ".jpeg", ".png", ".gif", ".webp"]
        .iter()
        .any(|e| lower.ends_with(e));
    let caption = match place.bounds {
        Some([left, top, right, bottom]) => {
            format!("{name} ({left}, {top}) to ({right}, {bottom})")
        }
        None => name.clone(),
    };
    let shown = match place.bounds {
        _ if !picture => String::new(),
        Some([left, top, right, bottom]) => {
            let (w, h) = (right - left, bottom - top);
            format!(
                "<div class=\"crop\" style=\"width:{w}px;height:{h}px;zoom:{}\"><img src=\"{name}\" alt=\"\" style=\"left:-{left}px;top:-{top}px\"></div>",
                SHOWN / w.max(h)
            )
        }
        None => format!("<img src=\"{name}\" alt=\"\" width=\"{SHOWN}\">"),
    };
    format!("{shown}<small>{caption}</small>")
}

/// A form for a forced choice between two guides of each class, and the key to it: which side is which was drawn from
/// the seed. Other guides are the ones given, or the class text alone where none was given.
pub fn form(
    collection: &Collection,
    guides: &[Written],
    given: &[Vec<Pair>],
    seed: u64,
) -> (String, String) {
    let mut rng = sampling::rng(seed, "forced choice");
    let mut form = String::from("class,left,right,choice (left or right)\n");
    let mut key = String::from("class,left,right\n");
    for written in guides {
        let class = &collection.classes[written.class];
        let other = match given[written.class].as_slice() {
            [] => {
                let text = collection.texts_of(written.class).first().copied();
                vec![Pair { crop: None, text }]
            }
            pairs => pairs.to_vec(),
        };
        let sets = [
            (words(collection, &written.guide.pairs), "found"),
            (words(collection, &other), "original"),
        ];
        let swapped: bool = rng.random();
        let (left, right) = match swapped {
            false => (&sets[0], &sets[1]),
            true => (&sets[1], &sets[0]),
        };
        let class = cell(class);
        let _ = writeln!(form, "{class},{},{},", cell(&left.0), cell(&right.0));
        let _ = writeln!(key, "{class},{},{}", left.1, right.1);
    }
    (form, key)
}

/// Pairs in words.
fn words(collection: &Collection, pairs: &[Pair]) -> String {
    let each = pairs.iter().map(|pair| {
        let crop = pair.crop.map(|c| {
            let place = collection.crops[c].0;
            let name = &collection.images[place.image];
            match place.bounds {
                Some(b) => format!("{name} ({}, {}) to ({}, {})", b[0], b[1], b[2], b[3]),
                None => name.clone(),
            }
        });
        let text = pair.text.map(|t| collection.texts[t].1.clone());
        let parts: Vec<String> = crop.into_iter().chain(text).collect();
        parts.join(": ")
    });
    each.collect::<Vec<_>>().join("; ")
}

/// A cell of a CSV file.
fn cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::lesson::tests::two_looks;
    use super::*;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Float64Type;

    fn sample(collection: &mut Collection) -> Vec<Written> {
        collection.images[0] = "a <b>.jpg".into();
        collection.crops[0].0.bounds = Some([2.0, 3.0, 10.0, 7.0]);
        vec![Written {
            class: 0,
            images: 20,
            guide: Guide {
                pairs: vec![
                    Pair {
                        crop: Some(0),
                        text: Some(1),
                    },
                    Pair {
                        crop: None,
                        text: Some(0),
                    },
                ],
                alpha: 0.3,
                values: vec![0.5, 0.75],
            },
        }]
    }

    #[test]
    fn rows_hold_pairs_gains_and_boxes() {
        let mut collection = two_looks().collection;
        let guides = sample(&mut collection);
        let b = batch(&collection, &guides).unwrap();
        assert_eq!(b.num_rows(), 2);
        let numbers = |name: &str| {
            let column = b.column_by_name(name).unwrap();
            column.as_primitive::<Float64Type>().values().to_vec()
        };
        assert_eq!(numbers("gain"), [0.5, 0.25]);
        assert_eq!(numbers("average_precision"), [0.5, 0.75]);
        assert_eq!(numbers("alpha"), [0.3, 0.0]);
        let image = b.column_by_name("image").unwrap().as_string::<i32>();
        assert!(image.value(0) == "a <b>.jpg" && image.is_null(1));
    }

    #[test]
    fn the_page_shows_crops_and_escapes_names() {
        let mut collection = two_looks().collection;
        let guides = sample(&mut collection);
        let html = page(&collection, &guides);
        assert!(html.contains("a &lt;b&gt;.jpg") && !html.contains("a <b>"));
        assert!(
            html.contains("width:8px;height:4px;zoom:20") && html.contains("left:-2px;top:-3px")
        );
        assert!(html.contains("sort of a") && html.contains("gain 0.250"));
    }

    #[test]
    fn the_form_hides_what_the_key_tells() {
        let mut collection = two_looks().collection;
        let guides = sample(&mut collection);
        let sides: Vec<bool> = (0..20)
            .map(|seed| {
                let (form, key) = form(&collection, &guides, &[vec![], vec![]], seed);
                let found_left = key.contains("a,found,original");
                assert!(found_left || key.contains("a,original,found"));
                let row = form.lines().nth(1).unwrap();
                // The guide has commas, so its cell is quoted; the class text alone is not.
                assert_eq!(
                    row.starts_with("a,\"a <b>.jpg (2, 3) to (10, 7): sort of a; a\","),
                    found_left
                );
                found_left
            })
            .collect();
        assert!(sides.contains(&true) && sides.contains(&false));
    }
}
