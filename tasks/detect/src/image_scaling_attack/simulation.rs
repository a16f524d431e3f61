//! `photo-like`: pictures with the statistics of photographs, for where no photographs are at hand.

use super::picture::Picture;
use arrow::array::{ArrayRef, BinaryArray, StringArray};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::Roles;
use papertrial_core::options::{self, Settings};
use papertrial_core::task::Simulation;
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::rng;
use rand::RngExt;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// All simulations of the task.
pub(crate) const SIMULATIONS: &[Simulation] = &[Simulation {
    name: "photo-like",
    about: "coloured pictures with the statistics of photographs: shaded discs of all sizes before one another, slightly blurred, with a sensor's noise",
    options: options::describe::<PhotoLike>,
    roles,
    generate,
}];

fn roles() -> Roles {
    Roles {
        id: Some("file".into()),
        ..Roles::default()
    }
}

/// Options of `photo-like`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct PhotoLike {
    /// Number of pictures.
    #[schemars(range(min = 1, max = 10_000))]
    pictures: usize,
    /// Pixels of a row.
    #[schemars(range(min = 8, max = 8192))]
    picture_width: usize,
    /// Rows of pixels.
    #[schemars(range(min = 8, max = 8192))]
    picture_height: usize,
}

impl Default for PhotoLike {
    fn default() -> Self {
        PhotoLike {
            pictures: 48,
            picture_width: 480,
            picture_height: 320,
        }
    }
}

fn generate(seed: u64, settings: &Settings) -> Result<RecordBatch> {
    let asked: PhotoLike = options::build("photo-like", settings)?;
    let numbers = 0..asked.pictures as u64;
    let (height, width) = (asked.picture_height, asked.picture_width);
    let files: Vec<Vec<u8>> = (numbers.clone().into_par_iter())
        .map(|i| {
            photo_like(
                height,
                width,
                3,
                seed.wrapping_mul(1_000_003).wrapping_add(i),
            )
            .png()
        })
        .collect::<Result<_>>()?;
    let columns: [(&str, ArrayRef); 2] = [
        (
            "file",
            Arc::new(StringArray::from_iter_values(
                numbers.map(|i| format!("picture-{i:04}.png")),
            )),
        ),
        ("image", Arc::new(BinaryArray::from_iter_values(files))),
    ];
    RecordBatch::try_from_iter(columns).map_err(|e| Error::Failed(e.to_string()))
}

/// A picture of the dead-leaves model: Lee, Mumford and Huang 2001, *Occlusion models for natural images*.
///
/// 1. Discs with radii of density r^-3, each with a colour and a shade that runs across it, before one another, on a
///    ground that runs as well: edges at every scale, and a spectrum that falls as that of photographs does.
/// 2. A blur of 3 x 3 (1 2 1), as of a lens, and noise of deviation 2, as of a sensor.
pub fn photo_like(height: usize, width: usize, channels: usize, seed: u64) -> Picture {
    let mut draws = rng(seed, "photo-like picture");
    let mut canvas = vec![[0.0f32; 3]; height * width];
    let mut paint = |centre: (f64, f64), radius: f64| {
        let light: f64 = draws.random_range(20.0..220.0);
        let colour: [f64; 3] = std::array::from_fn(|_| light + draws.random_range(-40.0..40.0));
        let slope: [f64; 2] = std::array::from_fn(|_| draws.random_range(-40.0..40.0));
        let rows = (centre.0 - radius).max(0.0) as usize
            ..((centre.0 + radius + 1.0).max(0.0) as usize).min(height);
        for y in rows {
            let dy = y as f64 - centre.0;
            let half = (radius * radius - dy * dy).max(0.0).sqrt();
            let columns = (centre.1 - half).ceil().max(0.0) as usize
                ..((centre.1 + half).floor() + 1.0).max(0.0) as usize;
            for x in columns.start..columns.end.min(width) {
                let dx = x as f64 - centre.1;
                let shade = (slope[0] * dy + slope[1] * dx) / radius;
                canvas[y * width + x] = colour.map(|c| (c + shade) as f32);
            }
        }
    };
    let size = height.max(width) as f64;
    paint((height as f64 / 2.0, width as f64 / 2.0), size);
    let (least, most): (f64, f64) = (4.0, (height.min(width) as f64 / 2.5).max(5.0));
    let mut places = rng(seed, "photo-like places");
    // Three layers in the mean: a disc covers 2 pi least^2 ln(most / least) pixels.
    let disc = 2.0 * std::f64::consts::PI * least * least * (most / least).ln();
    let count = (3.0 * (height * width) as f64 / disc).ceil() as usize;
    for _ in 0..count {
        let share: f64 = places.random();
        let tail = 1.0 / (least * least) - share * (1.0 / (least * least) - 1.0 / (most * most));
        let centre = (
            places.random_range(0.0..height as f64),
            places.random_range(0.0..width as f64),
        );
        paint(centre, tail.powf(-0.5));
    }
    let mut values = Vec::with_capacity(height * width * channels);
    let mut noise = rng(seed, "photo-like noise");
    for y in 0..height {
        for x in 0..width {
            let mut sums = [0.0; 3];
            for (dy, wy) in [(0usize, 1.0), (1, 2.0), (2, 1.0)] {
                for (dx, wx) in [(0usize, 1.0), (1, 2.0), (2, 1.0)] {
                    let y = (y + dy).saturating_sub(1).min(height - 1);
                    let x = (x + dx).saturating_sub(1).min(width - 1);
                    for (sum, value) in sums.iter_mut().zip(canvas[y * width + x]) {
                        *sum += wy * wx * value;
                    }
                }
            }
            for sum in sums.iter().take(channels) {
                // Four uniform bytes are normal enough: the deviation of their sum is 147.8.
                let bits: u32 = noise.random();
                let grain: i32 = (0..4).map(|i| ((bits >> (8 * i)) & 255) as i32).sum();
                let grain = (grain - 510) as f32 / 73.9;
                values.push((sum / 16.0 + grain).round().clamp(0.0, 255.0) as u8);
            }
        }
    }
    Picture::made(height, width, channels, values)
}

#[cfg(test)]
mod tests {
    use super::super::picture::Alpha;
    use super::super::spectrum::spectrum_points;
    use super::*;
    use arrow::array::AsArray;
    use serde_json::json;

    fn table(seed: u64, settings: serde_json::Value) -> Result<RecordBatch> {
        generate(seed, &settings.as_object().cloned().unwrap_or_default())
    }

    #[test]
    fn pictures_are_of_the_size_asked_for_and_the_seed_decides() {
        let asked = json!({"pictures": 3, "picture-width": 40, "picture-height": 24});
        let found = table(5, asked.clone()).unwrap();
        assert_eq!(found.num_rows(), 3);
        assert_eq!(found, table(5, asked.clone()).unwrap());
        assert_ne!(found, table(6, asked).unwrap());
        let bytes = found.column(1).as_binary::<i32>();
        assert_ne!(bytes.value(0), bytes.value(1));
        let (picture, notes) = Picture::decode(bytes.value(2), Alpha::Reject).unwrap();
        assert_eq!(
            (picture.height(), picture.width(), picture.channels()),
            (24, 40, 3)
        );
        assert!(notes.is_empty());
        assert!(table(0, json!({"pictures": 0})).is_err());
    }

    #[test]
    fn neighbours_are_alike_as_in_photographs_and_the_spectrum_has_one_middle() {
        for seed in 0..4 {
            let picture = photo_like(320, 480, 3, seed);
            let grey: Vec<f64> = picture.grey().iter().map(|v| f64::from(*v)).collect();
            let mean = grey.iter().sum::<f64>() / grey.len() as f64;
            let spread: f64 = grey.iter().map(|v| (v - mean).powi(2)).sum();
            let near: f64 = grey.windows(2).map(|p| (p[0] - mean) * (p[1] - mean)).sum();
            let alike = near / spread;
            assert!(alike > 0.9 && alike < 0.9999, "{alike}");
            assert_eq!(spectrum_points(&picture, 240), 1);
        }
    }
}
