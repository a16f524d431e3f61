//! Scaling as a service does it: the exact coefficients of each kernel in each library's convention.
//!
//! Scaling is linear and separable: S(I) = L I R. [`Weights`] is one of the two matrices, a sparse row of coefficients
//! for each output. They were compared with OpenCV 5.0.0, Pillow 13.0.0 and TensorFlow 2.21.0 (see the tests).

use super::picture::Picture;
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which pixels make an output pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    /// The nearest one.
    Nearest,
    /// A linear mean of neighbours.
    Bilinear,
    /// A cubic mean of neighbours.
    Bicubic,
    /// The mean of a box.
    Area,
    /// A windowed sinc.
    Lanczos,
}

/// Whose way of scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Convention {
    /// OpenCV's `resize`: half-pixel centres, no anti-aliasing, so that most pixels of a large picture count nothing.
    Opencv,
    /// Pillow's `resize`: half-pixel centres, kernels as wide as the shrinking asks, which leaves an attacker little.
    Pillow,
    /// TensorFlow 2's `image.resize` without `antialias`: half-pixel centres.
    Tensorflow,
    /// TensorFlow 1's `image.resize` with its defaults: pixels counted from the corner.
    #[serde(rename = "tensorflow-1")]
    Tensorflow1,
}

/// A kernel in a convention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaler {
    /// Which pixels count.
    pub kernel: Kernel,
    /// In whose way.
    pub convention: Convention,
}

/// One of the two matrices of a scaling: for each output, neighbouring inputs and their coefficients, which sum to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    inputs: usize,
    starts: Vec<usize>,
    /// Where the coefficients of each output begin; one more than outputs.
    bounds: Vec<usize>,
    values: Vec<f32>,
}

impl Scaler {
    /// What it does, for an output's reader.
    pub fn describe(self) -> String {
        let kernel = match self.kernel {
            Kernel::Nearest => "nearest",
            Kernel::Bilinear => "bilinear",
            Kernel::Bicubic => "bicubic",
            Kernel::Area => "area",
            Kernel::Lanczos => "lanczos",
        };
        let centres = match self.convention {
            Convention::Opencv if self.kernel == Kernel::Nearest => "opencv: corner coordinates",
            Convention::Opencv => "opencv: half-pixel centres, no anti-aliasing",
            Convention::Pillow if self.kernel == Kernel::Nearest => "pillow: half-pixel centres",
            Convention::Pillow => "pillow: half-pixel centres, anti-aliasing",
            Convention::Tensorflow => "tensorflow: half-pixel centres, no anti-aliasing",
            Convention::Tensorflow1 => "tensorflow-1: corner coordinates, no anti-aliasing",
        };
        format!("{kernel} ({centres})")
    }

    /// The matrix that takes `from` values to `to`: S(I) = L I R with L for heights and R, transposed, for widths.
    ///
    /// # Errors
    /// Sizes of 0, or a kernel that the convention does not have.
    pub fn weights(self, from: usize, to: usize) -> Result<Weights> {
        if from == 0 || to == 0 {
            return Err(Error::BadInput(format!(
                "{from} pixels cannot be scaled to {to}; both need to be 1 at least"
            )));
        }
        let scale = from as f64 / to as f64;
        let row: Box<dyn Fn(usize) -> Vec<(isize, f64)>> = match (self.convention, self.kernel) {
            (Convention::Opencv | Convention::Tensorflow1, Kernel::Nearest) => {
                Box::new(move |i| vec![((i as f64 * scale).floor() as isize, 1.0)])
            }
            (_, Kernel::Nearest) => {
                Box::new(move |i| vec![(((i as f64 + 0.5) * scale).floor() as isize, 1.0)])
            }
            (Convention::Opencv, Kernel::Area) if scale < 1.0 => {
                Box::new(move |i| enlarged_area(i, scale))
            }
            (Convention::Pillow, kernel) => Box::new(move |i| widened(i, scale, from, kernel)),
            (_, Kernel::Area) => Box::new(move |i| overlaps(i, scale, from)),
            (Convention::Opencv | Convention::Tensorflow, Kernel::Bilinear) => {
                Box::new(move |i| taps((i as f64 + 0.5) * scale - 0.5, 1, linear))
            }
            (Convention::Tensorflow1, Kernel::Bilinear) => {
                Box::new(move |i| taps(i as f64 * scale, 1, linear))
            }
            (Convention::Opencv, Kernel::Bicubic) => {
                Box::new(move |i| taps((i as f64 + 0.5) * scale - 0.5, 2, |d| cubic(d, -0.75)))
            }
            (Convention::Tensorflow1, Kernel::Bicubic) => {
                Box::new(move |i| taps(in_table(i as f64 * scale), 2, |d| cubic(d, -0.75)))
            }
            (Convention::Tensorflow, Kernel::Bicubic) => Box::new(move |i| {
                let at = in_table((i as f64 + 0.5) * scale - 0.5);
                within(taps(at, 2, |d| cubic(d, -0.5)), from)
            }),
            (Convention::Opencv, Kernel::Lanczos) => {
                Box::new(move |i| taps((i as f64 + 0.5) * scale - 0.5, 4, |d| lanczos(d, 4.0)))
            }
            (Convention::Tensorflow, Kernel::Lanczos) => Box::new(move |i| {
                let at = (i as f64 + 0.5) * scale - 0.5;
                within(taps(at, 3, |d| lanczos(d, 3.0)), from)
            }),
            (Convention::Tensorflow1, Kernel::Lanczos) => {
                return Err(Error::option(
                    "scaler",
                    "TensorFlow 1 does not scale with lanczos; take nearest, bilinear, bicubic or area, or another convention",
                ));
            }
        };
        Ok(Weights::of(from, to, row))
    }

    /// Both matrices from `from` to `to`, each height and width.
    ///
    /// # Errors
    /// As [`Scaler::weights`].
    pub fn between(self, from: (usize, usize), to: (usize, usize)) -> Result<Scaling> {
        Ok(Scaling {
            vertical: self.weights(from.0, to.0)?,
            horizontal: self.weights(from.1, to.1)?,
            rounds_between: self.convention == Convention::Pillow,
        })
    }
}

impl Picture {
    /// The picture at another size, height and width, by the means of boxes: for what no model's scaling is meant, such as
    /// a picture to hide.
    ///
    /// # Errors
    /// A side of 0.
    pub fn scaled(&self, size: (usize, usize)) -> Result<Picture> {
        let plain = Scaler {
            kernel: Kernel::Area,
            convention: Convention::Opencv,
        };
        let from = (self.height(), self.width());
        Ok(plain.between(from, size)?.apply(self))
    }
}

/// Neighbours of the position `at`, `reach` on each side, with the kernel's value at their distance.
fn taps(at: f64, reach: isize, kernel: impl Fn(f64) -> f64) -> Vec<(isize, f64)> {
    let first = at.floor() as isize - reach + 1;
    (first..first + 2 * reach)
        .map(|p| (p, kernel(p as f64 - at)))
        .collect()
}

/// Those of `taps` that exist; the others count nothing.
fn within(mut taps: Vec<(isize, f64)>, from: usize) -> Vec<(isize, f64)> {
    taps.retain(|(p, _)| *p >= 0 && *p < from as isize);
    taps
}

/// TensorFlow's bicubic kernel is a table of 1,024 positions a pixel.
fn in_table(at: f64) -> f64 {
    at.floor() + ((at - at.floor()) * 1024.0).round_ties_even() / 1024.0
}

/// The share of output `i`'s box that each pixel covers.
fn overlaps(i: usize, scale: f64, from: usize) -> Vec<(isize, f64)> {
    let (start, end) = (i as f64 * scale, (i + 1) as f64 * scale);
    let last = (end.ceil() as usize).min(from);
    (start.floor() as usize..last.max(start.floor() as usize + 1))
        .map(|p| {
            let covered = end.min(p as f64 + 1.0) - start.max(p as f64);
            // A sliver of rounding is no pixel.
            (p as isize, if covered < 1e-9 { 0.0 } else { covered })
        })
        .collect()
}

/// OpenCV's area kernel where it enlarges: linear, but only across the borders of pixels.
fn enlarged_area(i: usize, scale: f64) -> Vec<(isize, f64)> {
    let at = (i as f64 * scale).floor();
    let past = (i as f64 + 1.0) - (at + 1.0) / scale;
    let share = if past <= 0.0 { 0.0 } else { past.fract() };
    vec![(at as isize, 1.0 - share), (at as isize + 1, share)]
}

/// Pillow's kernels: as wide as the shrinking asks, cut at the borders.
fn widened(i: usize, scale: f64, from: usize, kernel: Kernel) -> Vec<(isize, f64)> {
    let wide = scale.max(1.0);
    let reach = match kernel {
        Kernel::Nearest | Kernel::Area => 0.5,
        Kernel::Bilinear => 1.0,
        Kernel::Bicubic => 2.0,
        Kernel::Lanczos => 3.0,
    } * wide;
    let centre = (i as f64 + 0.5) * scale;
    let first = (centre - reach + 0.5).max(0.0) as isize;
    let end = ((centre + reach + 0.5).max(0.0) as isize).min(from as isize);
    (first..end)
        .map(|p| {
            let distance = (p as f64 - centre + 0.5) / wide;
            let value = match kernel {
                Kernel::Nearest | Kernel::Area => f64::from(distance > -0.5 && distance <= 0.5),
                Kernel::Bilinear => linear(distance),
                Kernel::Bicubic => cubic(distance, -0.5),
                Kernel::Lanczos => lanczos(distance, 3.0),
            };
            (p, value)
        })
        .collect()
}

fn linear(distance: f64) -> f64 {
    (1.0 - distance.abs()).max(0.0)
}

/// The cubic of Keys with the slope `a` at distance 1.
fn cubic(distance: f64, a: f64) -> f64 {
    let d = distance.abs();
    if d < 1.0 {
        ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    } else if d < 2.0 {
        ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    } else {
        0.0
    }
}

/// sinc(d) sinc(d / reach) up to `reach`.
fn lanczos(distance: f64, reach: f64) -> f64 {
    let sinc = |x: f64| match x {
        0.0 => 1.0,
        x => (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x),
    };
    if distance.abs() < reach {
        sinc(distance) * sinc(distance / reach)
    } else {
        0.0
    }
}

impl Weights {
    /// From each output's inputs: those outside are those at the border, coefficients are made to sum to 1.
    fn of(inputs: usize, outputs: usize, row: impl Fn(usize) -> Vec<(isize, f64)>) -> Weights {
        let mut weights = Weights {
            inputs,
            starts: Vec::with_capacity(outputs),
            bounds: vec![0],
            values: Vec::new(),
        };
        let last = inputs as isize - 1;
        for i in 0..outputs {
            let taps = row(i);
            let at = |p: isize| p.clamp(0, last) as usize;
            let low = taps.iter().map(|t| at(t.0)).min().unwrap_or(0);
            let high = taps.iter().map(|t| at(t.0)).max().unwrap_or(0);
            let mut dense = vec![0.0; high - low + 1];
            for (p, value) in &taps {
                dense[at(*p) - low] += value;
            }
            let sum: f64 = dense.iter().sum();
            // What is 0 but for rounding is no coefficient: an attacker could do nothing with it.
            dense.iter_mut().for_each(|v| *v /= sum);
            let counts = |v: &f64| v.abs() > 1e-9;
            let before = dense.iter().position(counts).unwrap_or(0);
            let after = dense.iter().rposition(counts).unwrap_or(0);
            weights.starts.push(low + before);
            let kept = dense[before..=after].iter();
            weights
                .values
                .extend(kept.map(|v| if counts(v) { *v as f32 } else { 0.0 }));
            weights.bounds.push(weights.values.len());
        }
        weights
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.starts.len()
    }

    /// First input and coefficients of output `i`.
    pub fn row(&self, i: usize) -> (usize, &[f32]) {
        (
            self.starts[i],
            &self.values[self.bounds[i]..self.bounds[i + 1]],
        )
    }

    /// Whether each input counts for some output.
    pub fn considered(&self) -> Vec<bool> {
        let mut considered = vec![false; self.inputs];
        for i in 0..self.outputs() {
            let (start, values) = self.row(i);
            for (p, value) in values.iter().enumerate() {
                considered[start + p] |= *value != 0.0;
            }
        }
        considered
    }

    /// The greatest sum of a row's magnitudes: 1 unless some coefficients are negative.
    pub fn greatest_row(&self) -> f64 {
        (0..self.outputs())
            .map(|i| self.row(i).1.iter().map(|c| f64::from(c.abs())).sum())
            .fold(1.0, f64::max)
    }

    /// Whether an input counts for several outputs, so that they cannot be set one by one.
    pub fn overlap(&self) -> bool {
        (1..self.outputs()).any(|i| {
            let (start, values) = self.row(i - 1);
            self.row(i).0 < start + values.len()
        })
    }
}

/// A scaling from one size to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// For heights: outputs are rows.
    pub vertical: Weights,
    /// For widths: outputs are columns.
    pub horizontal: Weights,
    /// Whether values are rounded after the horizontal step, which then comes first.
    pub rounds_between: bool,
}

impl Scaling {
    /// The scaled picture.
    ///
    /// `picture` has the size that the scaling is from.
    pub fn apply(&self, picture: &Picture) -> Picture {
        let channels = picture.channels();
        let (rows, columns) = (self.vertical.outputs(), self.horizontal.outputs());
        let mut values = Vec::with_capacity(rows * columns * channels);
        if self.rounds_between || rows >= picture.height() {
            // Horizontally first: fewer rows are stretched, and Pillow does so.
            let mut between = Vec::with_capacity(picture.height() * columns * channels);
            let mut line = vec![0.0; columns * channels];
            for y in 0..picture.height() {
                self.horizontal
                    .across(picture.row(y), channels, f32::from, &mut line);
                if self.rounds_between {
                    line.iter_mut().for_each(|v| *v = f32::from(rounded(*v)));
                }
                between.extend_from_slice(&line);
            }
            for y in 0..rows {
                self.vertical.down(&between, y, |v| v, &mut line);
                values.extend(line.iter().map(|v| rounded(*v)));
            }
        } else {
            let mut tall = vec![0.0; picture.width() * channels];
            let mut line = vec![0.0; columns * channels];
            for y in 0..rows {
                self.vertical
                    .down(picture.values(), y, f32::from, &mut tall);
                self.horizontal.across(&tall, channels, |v| v, &mut line);
                values.extend(line.iter().map(|v| rounded(*v)));
            }
        }
        Picture::made(rows, columns, channels, values)
    }
}

/// The nearest value that a pixel can have.
#[inline(always)]
pub(super) fn rounded(value: f32) -> u8 {
    // Added to 2^23, a number has its whole part in the lowest bits, which takes vector instructions alone. Halves go up,
    // as those of OpenCV and Pillow do.
    ((value + 1e-4).clamp(0.0, 255.0) + 8_388_608.0).to_bits() as u8
}

impl Weights {
    /// Output row `y` of rows as wide as `line`.
    fn down<T: Copy>(&self, rows: &[T], y: usize, number: impl Fn(T) -> f32, line: &mut [f32]) {
        let (start, coefficients) = self.row(y);
        let width = line.len();
        line.fill(0.0);
        for (p, coefficient) in coefficients.iter().enumerate() {
            if *coefficient != 0.0 {
                let row = &rows[(start + p) * width..(start + p + 1) * width];
                for (sum, value) in line.iter_mut().zip(row) {
                    *sum += coefficient * number(*value);
                }
            }
        }
    }

    /// Every output of one row of pixels.
    fn across<T: Copy>(
        &self,
        row: &[T],
        channels: usize,
        number: impl Fn(T) -> f32,
        line: &mut [f32],
    ) {
        for (i, pixel) in line.chunks_exact_mut(channels).enumerate() {
            let (start, coefficients) = self.row(i);
            let inputs = &row[start * channels..(start + coefficients.len()) * channels];
            if let [sum] = pixel {
                *sum = (inputs.iter().zip(coefficients))
                    .map(|(value, c)| c * number(*value))
                    .sum();
            } else if let [red, green, blue] = pixel {
                let mut sums = [0.0; 3];
                for (value, c) in inputs.chunks_exact(3).zip(coefficients) {
                    for (sum, v) in sums.iter_mut().zip(value) {
                        *sum += c * number(*v);
                    }
                }
                [*red, *green, *blue] = sums;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KERNELS: [Kernel; 5] = [
        Kernel::Nearest,
        Kernel::Bilinear,
        Kernel::Bicubic,
        Kernel::Area,
        Kernel::Lanczos,
    ];
    const CONVENTIONS: [Convention; 4] = [
        Convention::Opencv,
        Convention::Pillow,
        Convention::Tensorflow,
        Convention::Tensorflow1,
    ];

    fn scaler(kernel: Kernel, convention: Convention) -> Scaler {
        Scaler { kernel, convention }
    }

    fn dense(weights: &Weights) -> Vec<Vec<f64>> {
        (0..weights.outputs())
            .map(|i| {
                let mut row = vec![0.0; weights.inputs()];
                let (start, values) = weights.row(i);
                for (p, v) in values.iter().enumerate() {
                    row[start + p] = f64::from(*v);
                }
                row
            })
            .collect()
    }

    /// The first two rows of what OpenCV 5.0.0 and Pillow 13.0.0 make of an identity matrix of 10 rows scaled to 4; the
    /// other two are their mirror images for kernels with half-pixel centres.
    #[test]
    fn ten_to_four_is_what_opencv_and_pillow_do() {
        let cases: [(Kernel, Convention, [&[f64]; 2]); 8] = [
            (
                Kernel::Bilinear,
                Convention::Opencv,
                [&[0.25, 0.75], &[0.0, 0.0, 0.0, 0.75, 0.25]],
            ),
            (
                Kernel::Bicubic,
                Convention::Opencv,
                [
                    &[0.226562, 0.878906, -0.105469],
                    &[0.0, 0.0, -0.105469, 0.878906, 0.261719, -0.035156],
                ],
            ),
            (
                Kernel::Area,
                Convention::Opencv,
                [&[0.4, 0.4, 0.2], &[0.0, 0.0, 0.2, 0.4, 0.4]],
            ),
            (
                Kernel::Lanczos,
                Convention::Opencv,
                [
                    &[0.21852, 0.893389, -0.152304, 0.055449, -0.015054],
                    &[
                        -0.015054, 0.055449, -0.152304, 0.893389, 0.282684, -0.091661, 0.031468,
                        -0.003971,
                    ],
                ],
            ),
            (
                Kernel::Area,
                Convention::Pillow,
                [&[0.333333, 0.333333, 0.333333], &[0.0, 0.0, 0.0, 0.5, 0.5]],
            ),
            (
                Kernel::Bilinear,
                Convention::Pillow,
                [
                    &[0.318182, 0.409091, 0.227273, 0.045455],
                    &[0.0, 0.04, 0.2, 0.36, 0.28, 0.12],
                ],
            ),
            (
                Kernel::Bicubic,
                Convention::Pillow,
                [
                    &[0.351812, 0.421268, 0.242666, 0.029551, -0.031708, -0.013589],
                    &[
                        -0.029034, 0.027059, 0.2222, 0.38574, 0.322141, 0.114359, -0.015998,
                        -0.024689, -0.001778,
                    ],
                ],
            ),
            (
                Kernel::Lanczos,
                Convention::Pillow,
                [
                    &[
                        0.360049, 0.418679, 0.259236, 0.040005, -0.060693, -0.035492, 0.007348,
                        0.010369, 0.000498,
                    ],
                    &[
                        -0.056419, 0.037188, 0.24098, 0.389196, 0.334695, 0.133114, -0.028111,
                        -0.053551, -0.009422, 0.01233,
                    ],
                ],
            ),
        ];
        for (kernel, convention, rows) in cases {
            let found = dense(&scaler(kernel, convention).weights(10, 4).unwrap());
            for (i, row) in rows.iter().enumerate() {
                for p in 0..10 {
                    let expected = row.get(p).copied().unwrap_or(0.0);
                    assert!(
                        (found[i][p] - expected).abs() < 2e-6,
                        "{kernel:?} {convention:?} row {i}: {:?}",
                        found[i]
                    );
                    let mirrored = found[3 - i][9 - p];
                    // Pillow's box takes its upper end but not its lower one.
                    if kernel != Kernel::Area {
                        assert!((mirrored - found[i][p]).abs() < 1e-6, "{kernel:?} {i}");
                    }
                }
            }
        }
        let nearest = |c| -> Vec<usize> {
            let w = scaler(Kernel::Nearest, c).weights(10, 4).unwrap();
            (0..4).map(|i| w.row(i).0).collect()
        };
        assert_eq!(nearest(Convention::Opencv), [0, 2, 5, 7]);
        assert_eq!(nearest(Convention::Pillow), [1, 3, 6, 8]);
        assert_eq!(nearest(Convention::Tensorflow), [1, 3, 6, 8]);
        assert_eq!(nearest(Convention::Tensorflow1), [0, 2, 5, 7]);
    }

    #[test]
    fn tensorflow_counts_from_the_corner_in_version_one_and_drops_what_lies_outside_in_two() {
        let first = dense(
            &scaler(Kernel::Bilinear, Convention::Tensorflow1)
                .weights(10, 4)
                .unwrap(),
        );
        // Positions 0, 2.5, 5 and 7.5.
        assert_eq!(first[0][0], 1.0);
        assert_eq!((first[1][2], first[1][3]), (0.5, 0.5));
        assert_eq!((first[3][7], first[3][8]), (0.5, 0.5));
        let second = scaler(Kernel::Bicubic, Convention::Tensorflow);
        let second = dense(&second.weights(10, 4).unwrap());
        // Position 0.75: cubic(-0.75), cubic(0.25), cubic(1.25) with a = -0.5, and one outside that counts nothing.
        let taps = [0.2265625, 0.8671875, -0.0703125];
        let sum: f64 = taps.iter().sum();
        for (found, tap) in second[0].iter().zip(taps) {
            assert!((found - tap / sum).abs() < 1e-6);
        }
        // What TensorFlow 2.21.0 makes of an identity with lanczos3.
        let third = scaler(Kernel::Lanczos, Convention::Tensorflow);
        let third = dense(&third.weights(10, 4).unwrap());
        for (found, expected) in third[0]
            .iter()
            .zip([0.255521, 0.841745, -0.125657, 0.028391])
        {
            assert!((found - expected).abs() < 2e-6, "{third:?}");
        }
    }

    #[test]
    fn halves_are_rounded_up_and_what_is_outside_is_cut() {
        for (value, expected) in [
            (-3.0, 0),
            (-0.4, 0),
            (0.49, 0),
            (0.5, 1),
            (1.5, 2),
            (2.5, 3),
            (127.4, 127),
            (254.5, 255),
            (255.0, 255),
            (300.0, 255),
        ] {
            assert_eq!(rounded(value), expected, "{value}");
        }
        assert!((0..=255u8).all(|v| rounded(f32::from(v)) == v));
    }

    #[test]
    fn enlarging_is_linear_too() {
        // OpenCV 5.0.0, area, 3 to 7: between the borders of pixels only.
        let area = dense(
            &scaler(Kernel::Area, Convention::Opencv)
                .weights(3, 7)
                .unwrap(),
        );
        let expected = [
            [1.0, 0.0, 0.0],
            [1.0, 0.0, 0.0],
            [1.0 / 3.0, 2.0 / 3.0, 0.0],
            [0.0, 1.0, 0.0],
            [0.0, 2.0 / 3.0, 1.0 / 3.0],
            [0.0, 0.0, 1.0],
            [0.0, 0.0, 1.0],
        ];
        for (found, expected) in area.iter().zip(expected) {
            for (f, e) in found.iter().zip(expected) {
                assert!((f - e).abs() < 1e-6, "{area:?}");
            }
        }
    }

    #[test]
    fn lanczos_is_not_in_tensorflow_one_and_sizes_are_checked() {
        assert!(
            scaler(Kernel::Lanczos, Convention::Tensorflow1)
                .weights(9, 3)
                .is_err()
        );
        assert!(
            scaler(Kernel::Area, Convention::Opencv)
                .weights(0, 3)
                .is_err()
        );
        assert!(
            scaler(Kernel::Area, Convention::Opencv)
                .weights(3, 0)
                .is_err()
        );
        let shown = scaler(Kernel::Bilinear, Convention::Opencv).describe();
        assert!(shown.contains("bilinear") && shown.contains("no anti-aliasing"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn rows_sum_to_one_and_a_flat_picture_stays_flat(
            from in 1usize..80, to in 1usize..40, value: u8
        ) {
            for kernel in KERNELS {
                for convention in CONVENTIONS {
                    let Ok(scaling) = scaler(kernel, convention).between((from, from), (to, to)) else {
                        continue;
                    };
                    for i in 0..to {
                        let (start, values) = scaling.vertical.row(i);
                        prop_assert!(start + values.len() <= from);
                        prop_assert!((values.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                    }
                    let flat = Picture::made(from, from, 1, vec![value; from * from]);
                    let scaled = scaling.apply(&flat);
                    prop_assert!(scaled.values().iter().all(|v| *v == value));
                }
            }
        }

        #[test]
        fn an_identity_shows_the_matrix_as_an_attacker_finds_it(from in 4usize..40, to in 1usize..20) {
            // Rows of an identity of value 255, scaled vertically alone, are the columns of L times 255.
            let mut values = vec![0; from * from];
            (0..from).for_each(|i| values[i * from + i] = 255);
            let identity = Picture::made(from, from, 1, values);
            let scaler = scaler(Kernel::Area, Convention::Opencv);
            let mut scaling = scaler.between((from, from), (to, from)).unwrap();
            scaling.horizontal = scaler.weights(from, from).unwrap();
            let seen = scaling.apply(&identity);
            for (i, row) in dense(&scaling.vertical).iter().enumerate() {
                for (p, w) in row.iter().enumerate() {
                    prop_assert!((f64::from(seen.values()[i * from + p]) - 255.0 * w).abs() <= 0.501);
                }
            }
        }

        #[test]
        fn grey_and_colour_are_scaled_alike(height in 1usize..20, width in 1usize..20, seed: u64) {
            let values: Vec<u8> = (0..height * width)
                .map(|i| (seed.wrapping_mul(i as u64 * 2 + 1) >> 33) as u8)
                .collect();
            let grey = Picture::made(height, width, 1, values);
            for convention in CONVENTIONS {
                let scaling = scaler(Kernel::Bicubic, convention).between((height, width), (7, 9)).unwrap();
                let colour = scaling.apply(&grey.with_channels(3));
                prop_assert_eq!(scaling.apply(&grey).with_channels(3), colour);
            }
        }
    }
}
