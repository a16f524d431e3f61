//! Mosaics of real digits: images in which a class fills only a part, with single digits to learn an encoder from.

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, StringArray};
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use ndarray::{Array2, ArrayView2};
use papertrial_core::data::{Features, Labels, Roles, sets};
use papertrial_core::options::{self, Settings};
use papertrial_core::task::{Context, Simulation};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The simulations of task `labelling-instructions`.
pub(crate) const SIMULATIONS: &[Simulation] = &[Simulation {
    name: "digit-mosaics",
    about: "handwritten digits put together to larger pictures and cut into patches, with single digits and prompts for an encoder",
    options: options::describe::<DigitMosaics>,
    roles: || Roles {
        id: Some("image".into()),
        label: Some("class".into()),
        text: Some("prompt".into()),
        features: vec!["pixels".into()],
        ..Roles::default()
    },
    generate: digit_mosaics,
}];

/// Options of `digit-mosaics`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct DigitMosaics {
    /// Digits of a mosaic: a square number.
    #[schemars(range(min = 1, max = 64))]
    tiles: usize,
    /// Single digits with a prompt, for an encoder to learn from; no mosaic holds one of them.
    #[schemars(range(min = 20, max = 1700))]
    singles: usize,
    /// Cuts of each side into patches, as a list: 2 gives patches of half the side, half overlapping.
    cuts: Vec<usize>,
}

impl Default for DigitMosaics {
    fn default() -> Self {
        DigitMosaics {
            tiles: 4,
            singles: 600,
            cuts: vec![1, 2, 3, 4],
        }
    }
}

/// Pixels of a digit's side.
const SIDE: usize = 8;

/// Names of the classes.
const NAMES: [&str; 10] = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
];

/// What a digit is called: by its name alone, and in other words.
fn prompts(digit: usize) -> [String; 5] {
    let name = NAMES[digit];
    [
        name.into(),
        format!("the digit {digit}"),
        format!("a handwritten {name}"),
        format!("a picture of the number {digit}"),
        format!("{name} in pencil"),
    ]
}

/// One row a patch, a crop (with its class) or a single digit (with its class and a prompt).
#[derive(Default)]
struct Rows {
    image: Vec<String>,
    bounds: [Vec<f32>; 4],
    class: Vec<Option<&'static str>>,
    prompt: Vec<Option<String>>,
    pixels: Vec<f32>,
}

impl Rows {
    fn push(
        &mut self,
        image: &str,
        picture: ArrayView2<'_, f32>,
        (left, top, side): (f32, f32, f32),
        class: Option<usize>,
        prompt: Option<String>,
    ) {
        self.image.push(image.into());
        let box_ = [left, top, left + side, top + side];
        self.bounds
            .iter_mut()
            .zip(box_)
            .for_each(|(b, v)| b.push(v));
        self.class.push(class.map(|c| NAMES[c]));
        self.prompt.push(prompt);
        resample(picture, left, top, side, &mut self.pixels);
    }
}

/// 1. Digits in an order drawn from the seed: the first `singles` become single digits, each with one of five prompts;
///    of the rest every `tiles` make a mosaic, so that no digit is in two.
/// 2. Each mosaic gives the crops of its tiles with their class, and for each cut s its (2 s - 1)^2 half overlapping
///    patches without a class, all resampled to the size of a digit.
fn digit_mosaics(seed: u64, settings: &Settings) -> Result<RecordBatch> {
    let o: DigitMosaics = options::build("digit-mosaics", settings)?;
    let across = (1..=8usize)
        .find(|a| a * a == o.tiles)
        .ok_or_else(|| Error::option("tiles", format!("{} is not a square number", o.tiles)))?;
    if o.cuts.is_empty() || o.cuts.iter().any(|c| !(1..=8).contains(c)) {
        return Err(Error::option(
            "cuts",
            "must be a list of numbers from 1 to 8",
        ));
    }
    let table = sets::open("digits")?;
    let roles = sets::find("digits")?.roles.clone();
    let pixels = Features::of(&table, &roles)?.matrix(&Context::with_seed(seed))?;
    let labels = Labels::of(&table, &roles)?
        .ok_or_else(|| Error::Failed("the digits have no label column".into()))?;
    let item = |row: usize| -> Result<Array2<f32>> {
        let values = pixels.row(row).iter().map(|v| (v / 16.0) as f32).collect();
        Array2::from_shape_vec((SIDE, SIDE), values).map_err(|e| Error::Failed(e.to_string()))
    };
    let class = |row: usize| (labels.codes[row].max(0) as usize).min(9);

    let mut rng = sampling::rng(seed, "digit-mosaics");
    let order = sampling::permutation(&mut rng, pixels.nrows());
    let (singles, rest) = order.split_at(o.singles.min(order.len()));
    let mut rows = Rows::default();
    for (i, &row) in singles.iter().enumerate() {
        let words = prompts(class(row))[rng.random_range(0..5)].clone();
        let name = format!("single-{i}");
        let whole = (0.0, 0.0, SIDE as f32);
        rows.push(
            &name,
            item(row)?.view(),
            whole,
            Some(class(row)),
            Some(words),
        );
    }
    let side = (SIDE * across) as f32;
    for (m, tiles) in rest.chunks_exact(o.tiles).enumerate() {
        let name = format!("mosaic-{m}");
        let mut picture = Array2::zeros((SIDE * across, SIDE * across));
        let corner = |t: usize| (t % across * SIDE, t / across * SIDE);
        for (t, &row) in tiles.iter().enumerate() {
            let (x, y) = corner(t);
            picture
                .slice_mut(ndarray::s![y..y + SIDE, x..x + SIDE])
                .assign(&item(row)?);
        }
        for (t, &row) in tiles.iter().enumerate() {
            let (x, y) = corner(t);
            let at = (x as f32, y as f32, SIDE as f32);
            rows.push(&name, picture.view(), at, Some(class(row)), None);
        }
        for cut in &o.cuts {
            let size = side / *cut as f32;
            for step in 0..(2 * cut - 1) * (2 * cut - 1) {
                let (i, j) = (step % (2 * cut - 1), step / (2 * cut - 1));
                let at = (i as f32 * size / 2.0, j as f32 * size / 2.0, size);
                rows.push(&name, picture.view(), at, None, None);
            }
        }
    }
    batch(rows)
}

/// The square of `side` at (left, top), resampled to a digit's size: means of bilinear values at evenly spaced points,
/// as many as it takes to miss no pixel.
fn resample(picture: ArrayView2<'_, f32>, left: f32, top: f32, side: f32, to: &mut Vec<f32>) {
    let step = side / SIDE as f32;
    let points = step.ceil().max(1.0) as usize;
    let at = |from: f32, cell: usize, point: usize| {
        from + (cell as f32 + (point as f32 + 0.5) / points as f32) * step - 0.5
    };
    for row in 0..SIDE {
        for column in 0..SIDE {
            let mut sum = 0.0;
            for p in 0..points {
                for q in 0..points {
                    sum += bilinear(picture, at(left, column, p), at(top, row, q));
                }
            }
            to.push(sum / (points * points) as f32);
        }
    }
}

/// The picture at (x, y), where whole numbers are the centres of pixels; its edge goes on outside.
fn bilinear(picture: ArrayView2<'_, f32>, x: f32, y: f32) -> f32 {
    let last = picture.ncols() - 1;
    let (x, y) = (x.clamp(0.0, last as f32), y.clamp(0.0, last as f32));
    let (i, j) = (x as usize, y as usize);
    let (fx, fy) = (x - i as f32, y - j as f32);
    let (i1, j1) = ((i + 1).min(last), (j + 1).min(last));
    let upper = picture[[j, i]] * (1.0 - fx) + picture[[j, i1]] * fx;
    let lower = picture[[j1, i]] * (1.0 - fx) + picture[[j1, i1]] * fx;
    upper * (1.0 - fy) + lower * fy
}

fn batch(rows: Rows) -> Result<RecordBatch> {
    let item = Arc::new(Field::new_list_field(DataType::Float32, false));
    let pixels = Arc::new(Float32Array::from(rows.pixels));
    let pixels = FixedSizeListArray::try_new(item, (SIDE * SIDE) as i32, pixels, None)
        .map_err(|e| Error::Failed(e.to_string()))?;
    let mut columns: Vec<(&str, ArrayRef)> =
        vec![("image", Arc::new(StringArray::from(rows.image)))];
    for (name, values) in ["x0", "y0", "x1", "y1"].into_iter().zip(rows.bounds) {
        columns.push((name, Arc::new(Float32Array::from(values))));
    }
    columns.push(("class", Arc::new(StringArray::from(rows.class))));
    columns.push(("prompt", Arc::new(StringArray::from(rows.prompt))));
    columns.push(("pixels", Arc::new(pixels)));
    let with_nulls = columns
        .into_iter()
        .map(|(name, column)| (name, column, name == "class" || name == "prompt"));
    RecordBatch::try_from_iter_with_nullable(with_nulls).map_err(|e| Error::Failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Float32Type;
    use ndarray::array;
    use serde_json::json;

    fn drawn(seed: u64, given: serde_json::Value) -> Result<RecordBatch> {
        digit_mosaics(seed, given.as_object().unwrap())
    }

    #[test]
    fn resampling_keeps_a_crop_and_averages_the_whole() {
        let picture = Array2::from_shape_fn((16, 16), |(y, x)| (y * 16 + x) as f32);
        let mut crop = Vec::new();
        resample(picture.view(), 8.0, 0.0, 8.0, &mut crop);
        assert_eq!(crop[..3], [8.0, 9.0, 10.0]);
        assert_eq!(crop[8], 24.0);
        let mut whole = Vec::new();
        resample(picture.view(), 0.0, 0.0, 16.0, &mut whole);
        // Means of 2 x 2 pixels: (0 + 1 + 16 + 17) / 4.
        assert_eq!(whole[..2], [8.5, 10.5]);
        let small = array![[0.0f32, 1.0], [2.0, 3.0]];
        assert_eq!(bilinear(small.view(), 0.5, 0.5), 1.5);
        assert_eq!(bilinear(small.view(), -3.0, 9.0), 2.0);
    }

    #[test]
    fn every_digit_is_used_once_and_boxes_lie_inside() {
        let b = drawn(3, json!({"singles": 597})).unwrap();
        // 1797 - 597 = 1200 digits in 300 mosaics of 4 crops and 1 + 9 + 25 + 49 patches.
        assert_eq!(b.num_rows(), 597 + 300 * (4 + 84));
        let class = b.column_by_name("class").unwrap().as_string::<i32>();
        let prompt = b.column_by_name("prompt").unwrap().as_string::<i32>();
        assert_eq!(class.iter().flatten().count(), 1797);
        assert_eq!(prompt.iter().flatten().count(), 597);
        for (c, p) in class.iter().zip(prompt.iter()).take(597) {
            let digit = NAMES.iter().position(|n| Some(*n) == c).unwrap();
            assert!(prompts(digit).iter().any(|w| Some(w.as_str()) == p));
        }
        let edge = b
            .column_by_name("x1")
            .unwrap()
            .as_primitive::<Float32Type>();
        let largest = edge.values().iter().copied().fold(0.0, f32::max);
        assert_eq!(largest, 16.0);
        assert_eq!(b, drawn(3, json!({"singles": 597})).unwrap());
        assert_ne!(b, drawn(4, json!({"singles": 597})).unwrap());
    }

    #[test]
    fn impossible_options_are_refused() {
        for (bad, told) in [
            (json!({"tiles": 3}), "square"),
            (json!({"cuts": []}), "cuts"),
            (json!({"cuts": [0]}), "cuts"),
            (json!({"singles": 3}), "singles"),
        ] {
            let e = drawn(0, bad).unwrap_err().to_string();
            assert!(e.contains(told), "{e}");
        }
    }
}
