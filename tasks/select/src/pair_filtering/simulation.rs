//! `noisy-digit-pairs`: real digit images with class prompts, most of which are made wrong.

use super::reading::PARTS;
use arrow::array::{ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::{Features, Labels, Roles, sets};
use papertrial_core::options::{self, Settings};
use papertrial_core::task::{Context, Simulation};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::{permutation, rng};
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// All simulations of the task.
pub(crate) const SIMULATIONS: &[Simulation] = &[Simulation {
    name: "noisy-digit-pairs",
    about: "8 x 8 images of handwritten digits with class prompts: a pool in which most prompts are of another digit and some images are damaged, and clean, test and fine-tuning pairs",
    options: options::describe::<NoisyDigitPairs>,
    roles,
    generate: noisy_digit_pairs,
}];

fn roles() -> Roles {
    Roles {
        label: Some("digit".into()),
        text: Some("text".into()),
        id: Some("uid".into()),
        features: vec!["image".into()],
        ..Roles::default()
    }
}

const DIGITS: [&str; 10] = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
];

const PROMPTS: [&str; 4] = [
    "a photo of the digit {}",
    "a scan of a handwritten {}",
    "the number {} on paper",
    "{}",
];

const SIDE: usize = 8;

/// Options of `noisy-digit-pairs`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct NoisyDigitPairs {
    /// Share of the pool whose prompt is of another digit.
    #[schemars(range(min = 0.0, max = 1.0))]
    mismatched: f64,
    /// Share of the pool whose image is damaged: its pixels in random order.
    #[schemars(range(min = 0.0, max = 1.0))]
    corrupted: f64,
    /// Number of clean pairs.
    clean: usize,
    /// Number of test pairs.
    #[schemars(range(min = 2))]
    test: usize,
    /// Number of fine-tuning pairs, right ones too.
    fine_tune: usize,
}

impl Default for NoisyDigitPairs {
    fn default() -> Self {
        NoisyDigitPairs {
            mismatched: 0.6,
            corrupted: 0.1,
            clean: 250,
            test: 400,
            fine_tune: 0,
        }
    }
}

/// Which damage a pair has.
#[derive(Clone, Copy, PartialEq)]
enum Damage {
    None,
    Prompt,
    Image,
}

/// Columns uid, image (list of 64 numbers from 0 to 1), text, digit, part and match.
fn noisy_digit_pairs(seed: u64, settings: &Settings) -> Result<RecordBatch> {
    let asked: NoisyDigitPairs = options::build("noisy-digit-pairs", settings)?;
    if asked.mismatched + asked.corrupted > 1.0 {
        return Err(Error::option(
            "corrupted",
            format!(
                "{} mismatched and {} corrupted are more than all pairs; a pair has one fault at most",
                asked.mismatched, asked.corrupted
            ),
        ));
    }
    let table = sets::open("digits")?;
    let roles = sets::find("digits")?.roles.clone();
    let images = Features::of(&table, &roles)?.matrix(&Context::with_seed(seed))?;
    let digits = Labels::of(&table, &roles)?
        .ok_or_else(|| Error::Failed("the digits have no labels".into()))?
        .codes;
    let n = digits.len();
    let apart = asked.clean + asked.test + asked.fine_tune;
    if apart >= n {
        return Err(Error::option(
            "clean",
            format!(
                "clean, test and fine-tuning pairs are {apart} together; there are {n} images, and some must be left for the pool"
            ),
        ));
    }

    let mut order = rng(seed, "images of the parts");
    let images_in_order = permutation(&mut order, n);
    let pool = n - apart;
    // Indices into PARTS, the pool last in the order of draws and first in the table.
    let parts: Vec<usize> = [
        (0, pool),
        (1, asked.clean),
        (2, asked.test),
        (3, asked.fine_tune),
    ]
    .iter()
    .flat_map(|(part, count)| std::iter::repeat_n(*part, *count))
    .collect();
    let faults = faults(pool, &asked, &mut rng(seed, "faults of the pool"));
    let mut prompts = rng(seed, "prompts");
    let mut damage = rng(seed, "damage of images");
    let mut names = rng(seed, "uids");

    let mut uids = Vec::with_capacity(n);
    let mut pixels: Vec<f32> = Vec::with_capacity(n * SIDE * SIDE);
    let mut texts = Vec::with_capacity(n);
    let mut labels = Vec::with_capacity(n);
    let mut right = Vec::with_capacity(n);
    for (row, image) in images_in_order.into_iter().enumerate() {
        let digit = digits[image] as usize % DIGITS.len();
        let fault = faults.get(row).copied().unwrap_or(Damage::None);
        let said = match fault {
            Damage::Prompt => (digit + prompts.random_range(1..DIGITS.len())) % DIGITS.len(),
            _ => digit,
        };
        let mut picture: Vec<f32> = images.row(image).iter().map(|v| *v as f32 / 16.0).collect();
        if fault == Damage::Image {
            picture.shuffle(&mut damage);
        }
        uids.push(format!(
            "{:032x}",
            u128::from(names.next_u64()) << 64 | u128::from(names.next_u64())
        ));
        pixels.extend(picture);
        texts.push(PROMPTS[prompts.random_range(0..PROMPTS.len())].replace("{}", DIGITS[said]));
        labels.push(DIGITS[digit]);
        right.push(fault == Damage::None);
    }

    // The shape goes along in the way of Arrow's fixed-shape tensors.
    let item = Arc::new(Field::new_list_field(DataType::Float32, false));
    let width = (SIDE * SIDE) as i32;
    let image = Field::new("image", DataType::FixedSizeList(item.clone(), width), false)
        .with_metadata(HashMap::from([
            (
                "ARROW:extension:name".to_owned(),
                "arrow.fixed_shape_tensor".to_owned(),
            ),
            (
                "ARROW:extension:metadata".to_owned(),
                format!(r#"{{"shape":[{SIDE},{SIDE}]}}"#),
            ),
        ]));
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let schema = Schema::new(vec![
        text("uid"),
        image,
        text("text"),
        text("digit"),
        text("part"),
        Field::new("match", DataType::Boolean, false),
    ]);
    let wrong = |e: arrow::error::ArrowError| Error::Failed(e.to_string());
    let lists =
        FixedSizeListArray::try_new(item, width, Arc::new(Float32Array::from(pixels)), None)
            .map_err(wrong)?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(uids)),
        Arc::new(lists),
        Arc::new(StringArray::from(texts)),
        Arc::new(StringArray::from(labels)),
        Arc::new(StringArray::from_iter_values(
            parts.iter().map(|p| PARTS[*p]),
        )),
        Arc::new(BooleanArray::from(right)),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).map_err(wrong)
}

/// A fault for each pair of the pool: exactly the shares asked for, in random places.
fn faults(pool: usize, asked: &NoisyDigitPairs, rng: &mut ChaCha8Rng) -> Vec<Damage> {
    let mismatched = (asked.mismatched * pool as f64).round() as usize;
    let corrupted = (asked.corrupted * pool as f64).round() as usize;
    let mut faults = vec![Damage::None; pool];
    for (i, row) in permutation(rng, pool).into_iter().enumerate() {
        if i < mismatched {
            faults[row] = Damage::Prompt;
        } else if i < mismatched + corrupted {
            faults[row] = Damage::Image;
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::super::pairs::{Pairs, Side};
    use super::super::reading::Reading;
    use super::*;
    use papertrial_core::data::Table;
    use serde_json::json;

    /// All pairs and the part of each.
    fn read(seed: u64, settings: serde_json::Value) -> Result<(Pairs, Vec<usize>)> {
        let settings = settings.as_object().cloned().unwrap_or_default();
        let table = Table::memory("t", vec![noisy_digit_pairs(seed, &settings)?]);
        let roles = roles();
        let reading = Reading {
            roles: &roles,
            part: "part",
            matches: "match",
            shape: None,
            skip_bad: false,
        };
        let mut all = None;
        reading.each(&table, &mut |chunk| {
            all = Some((chunk.pairs, chunk.parts.unwrap_or_default()));
            Ok(())
        })?;
        Ok(all.unwrap())
    }

    fn part((pairs, parts): &(Pairs, Vec<usize>), part: usize) -> Pairs {
        let rows: Vec<usize> = (0..parts.len()).filter(|r| parts[*r] == part).collect();
        pairs.select(&rows)
    }

    #[test]
    fn the_shares_are_exact_and_only_the_pool_is_wrong() {
        let read = read(3, json!({"clean": 200, "fine-tune": 20})).unwrap();
        let pool = part(&read, 0);
        assert_eq!(pool.len(), 1797 - 620);
        let right = pool
            .matches
            .as_ref()
            .unwrap()
            .iter()
            .filter(|m| **m)
            .count();
        assert_eq!(right, 1177 - 706 - 118);
        let Side::Texts(texts) = &pool.right else {
            panic!("prompts are texts");
        };
        let named: Vec<bool> = texts
            .iter()
            .zip(pool.labels.as_ref().unwrap())
            .map(|(text, digit)| text.contains(digit.as_str()))
            .collect();
        assert_eq!(named.iter().filter(|n| !**n).count(), 706);
        for (p, count) in [(1, 200), (2, 400), (3, 20)] {
            let pairs = part(&read, p);
            assert_eq!(pairs.len(), count);
            assert!(pairs.matches.unwrap().iter().all(|m| *m));
        }
        assert_eq!(
            read.0.shape.map(|s| (s.channels, s.height, s.width)),
            Some((1, 8, 8))
        );
        assert!(read.0.uids.iter().all(|u| u.len() == 32));
    }

    #[test]
    fn the_seed_decides() {
        let uids = |seed| read(seed, json!({})).unwrap().0;
        assert_eq!(uids(1), uids(1));
        assert_ne!(uids(1), uids(2));
    }

    #[test]
    fn impossible_shares_are_refused() {
        for wrong in [
            json!({"mismatched": 0.7, "corrupted": 0.4}),
            json!({"clean": 1500}),
        ] {
            assert!(read(0, wrong).is_err());
        }
    }
}
