//! Counting the bright points of a picture's Fourier spectrum.

use super::picture::Picture;
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Number of centred spectrum points: a photograph has one, around frequency zero; a grid of planted pixels repeats it.
///
/// 1. The picture in grey, its discrete Fourier transform F with frequency zero in the middle.
/// 2. M = 20 ln |F|, rounded and cut to 0..255, not taken modulo 256: the middle would wrap otherwise. White where
///    M > `level`. As only that is asked, |F| is compared with the level's own amplitude, and ln 0 of flat pictures
///    never comes up.
/// 3. Median of 3 x 3, then a Gaussian blur of 21 x 21 (deviation 3.5), in 8 bits; what is not black then is a point.
/// 4. The number of connected points, 8 neighbours each.
///
/// O(H W log(H W)), for any sizes. A flat picture has a single white pixel, which the median takes away: it has 0
/// points. Pictures with a fine regular pattern, such as screenshots, have several points though nothing is hidden in
/// them: a known false alarm. And as |F| grows with the number of pixels, a small picture's attack may stay below the
/// level.
pub fn spectrum_points(picture: &Picture, level: u8) -> usize {
    let white = bright(picture, level);
    let points = blurred(&median(&white));
    components(points)
}

/// White and black pixels.
struct Mask {
    height: usize,
    width: usize,
    white: Vec<bool>,
}

fn plan(length: usize) -> Arc<dyn Fft<f32>> {
    static PLANNER: LazyLock<Mutex<FftPlanner<f32>>> =
        LazyLock::new(|| Mutex::new(FftPlanner::new()));
    // A planner that was interrupted plans again: it holds nothing but plans.
    let mut planner = PLANNER.lock().unwrap_or_else(PoisonError::into_inner);
    planner.plan_fft_forward(length)
}

/// Steps 1 and 2.
fn bright(picture: &Picture, level: u8) -> Mask {
    let (height, width) = (picture.height(), picture.width());
    let grey = picture.grey();
    let half = width / 2 + 1;
    // The transform of each row, its lower half of frequencies alone: the other half is its mirror image. Two rows go
    // through one complex transform. Stored frequency by frequency, for the second step.
    let along = plan(width);
    let mut scratch = vec![Complex::default(); along.get_inplace_scratch_len()];
    let mut line = vec![Complex::default(); width];
    let mut columns = vec![Complex::<f32>::default(); half * height];
    for (pair, rows) in grey.chunks(2 * width).enumerate() {
        let (first, second) = rows.split_at(width);
        for (x, (to, v)) in line.iter_mut().zip(first).enumerate() {
            *to = Complex::new(f32::from(*v), second.get(x).map_or(0.0, |v| f32::from(*v)));
        }
        along.process_with_scratch(&mut line, &mut scratch);
        for k in 0..half {
            let (z, mirrored) = (line[k], line[(width - k) % width].conj());
            let difference = z - mirrored;
            let at = k * height + 2 * pair;
            columns[at] = (z + mirrored) * 0.5;
            if !second.is_empty() {
                columns[at + 1] = Complex::new(difference.im, -difference.re) * 0.5;
            }
        }
    }
    let down = plan(height);
    scratch.resize(down.get_inplace_scratch_len(), Complex::default());
    // M > level after rounding: 20 ln |F| >= level + 1/2.
    let least = ((f64::from(level) + 0.5) / 10.0).exp() as f32;
    let mut white = vec![false; height * width];
    let centred = |frequency: usize, n: usize| (frequency + n / 2) % n;
    for (k, column) in columns.chunks_exact_mut(height).enumerate() {
        down.process_with_scratch(column, &mut scratch);
        for (u, f) in column.iter().enumerate() {
            if f.norm_sqr() >= least {
                white[centred(u, height) * width + centred(k, width)] = true;
                let (u, k) = ((height - u) % height, (width - k) % width);
                white[centred(u, height) * width + centred(k, width)] = true;
            }
        }
    }
    Mask {
        height,
        width,
        white,
    }
}

/// Median of 3 x 3, borders repeated: white where five of nine are.
fn median(mask: &Mask) -> Mask {
    let (height, width) = (mask.height, mask.width);
    let row = |y: usize| &mask.white[y * width..(y + 1) * width];
    let mut white = vec![false; height * width];
    let mut counts = vec![0u8; width];
    for (y, to) in white.chunks_exact_mut(width).enumerate() {
        let rows = [
            row(y.saturating_sub(1)),
            row(y),
            row((y + 1).min(height - 1)),
        ];
        if rows.iter().all(|r| !r.contains(&true)) {
            continue;
        }
        for (x, count) in counts.iter_mut().enumerate() {
            *count = rows.iter().map(|r| u8::from(r[x])).sum();
        }
        for (x, to) in to.iter_mut().enumerate() {
            let (left, right) = (x.saturating_sub(1), (x + 1).min(width - 1));
            *to = counts[left] + counts[x] + counts[right] >= 5;
        }
    }
    Mask {
        height,
        width,
        white,
    }
}

/// Pixels of the blur's window on each side.
const REACH: usize = 10;

/// What is not black after a Gaussian blur of white (255) on black, rounded to 8 bits; borders mirrored without the
/// border itself.
fn blurred(mask: &Mask) -> Mask {
    let (height, width) = (mask.height, mask.width);
    // The deviation that OpenCV takes for a window of 21.
    let sigma = 0.3 * (((2 * REACH + 1) as f32 - 1.0) * 0.5 - 1.0) + 0.8;
    let raw = |d: usize| (-((d * d) as f32) / (2.0 * sigma * sigma)).exp();
    let sum = raw(0) + 2.0 * (1..=REACH).map(raw).sum::<f32>();
    let kernel: [f32; REACH + 1] = std::array::from_fn(|d| raw(d) / sum);
    let weight = |d: isize| kernel[d.unsigned_abs()];
    let reach = REACH as isize;
    // Most of the spectrum is black: white pixels give to their neighbours, and rows without any are passed over.
    let mut along = vec![0.0f32; height * width];
    let mut busy = vec![false; height];
    for (y, row) in mask.white.chunks_exact(width).enumerate() {
        for (x, _) in row.iter().enumerate().filter(|(_, white)| **white) {
            busy[y] = true;
            let to = &mut along[y * width..(y + 1) * width];
            receivers(x, width, reach, |at, d| to[at] += weight(d));
        }
    }
    let mut sums = vec![0.0f32; height * width];
    for (y, _) in busy.iter().enumerate().filter(|(_, busy)| **busy) {
        let from = &along[y * width..(y + 1) * width];
        receivers(y, height, reach, |at, d| {
            let to = &mut sums[at * width..(at + 1) * width];
            for (to, from) in to.iter_mut().zip(from) {
                *to += weight(d) * from;
            }
        });
    }
    Mask {
        height,
        width,
        white: sums.iter().map(|v| 255.0 * v >= 0.5).collect(),
    }
}

/// Who takes from the pixel at `x` of `n`, and at which distance: those around it, and those near a border whose mirror
/// image of it is near enough.
fn receivers(x: usize, n: usize, reach: isize, mut give: impl FnMut(usize, isize)) {
    let (x, last) = (x as isize, n as isize - 1);
    if last == 0 {
        (-reach..=reach).for_each(|d| give(0, d));
        return;
    }
    let near = |at: isize| (at - reach).max(0)..=(at + reach).min(last);
    if n as isize > reach {
        for at in near(x) {
            give(at as usize, at - x);
        }
        // The images of x at -x and 2 last - x; the border's own pixel has none.
        for image in [-x, 2 * last - x] {
            if image != x {
                for at in near(image) {
                    give(at as usize, at - image);
                }
            }
        }
        return;
    }
    // So small that the mirrors mirror each other.
    let period = 2 * last;
    for at in 0..=last {
        for d in -reach..=reach {
            let place = (at + d).rem_euclid(period);
            if place.min(period - place) == x {
                give(at as usize, d);
            }
        }
    }
}

/// Connected white regions, diagonal neighbours included.
fn components(mut mask: Mask) -> usize {
    let (height, width) = (mask.height, mask.width);
    let mut count = 0;
    let mut open = Vec::new();
    for start in 0..mask.white.len() {
        if !std::mem::take(&mut mask.white[start]) {
            continue;
        }
        count += 1;
        open.push(start);
        while let Some(at) = open.pop() {
            let (y, x) = (at / width, at % width);
            for y in y.saturating_sub(1)..=(y + 1).min(height - 1) {
                for x in x.saturating_sub(1)..=(x + 1).min(width - 1) {
                    if std::mem::take(&mut mask.white[y * width + x]) {
                        open.push(y * width + x);
                    }
                }
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask(rows: &[&str]) -> Mask {
        Mask {
            height: rows.len(),
            width: rows[0].len(),
            white: rows
                .iter()
                .flat_map(|r| r.bytes().map(|b| b == b'#'))
                .collect(),
        }
    }

    #[test]
    fn regions_touch_at_corners() {
        assert_eq!(components(mask(&["#..#", ".#..", "...#", "...#"])), 3);
        assert_eq!(components(mask(&["...", "..."])), 0);
        assert_eq!(components(mask(&["###", "#.#", "###"])), 1);
    }

    #[test]
    fn five_of_nine_are_a_majority_with_borders_repeated() {
        // The corner sees 8 white of 9, its neighbours 5, the middle 3.
        let corner = mask(&["##.", "#..", "..."]);
        assert_eq!(median(&corner).white, corner.white);
        let line = mask(&["....", "####", "....", "...."]);
        assert!(median(&line).white.iter().all(|w| !w));
    }

    /// The transform by its definition.
    fn slow(picture: &Picture, level: u8) -> Vec<bool> {
        let (height, width) = (picture.height(), picture.width());
        let grey = picture.grey();
        let tau = 2.0 * std::f64::consts::PI;
        let mut white = vec![false; height * width];
        for u in 0..height {
            for k in 0..width {
                let (mut re, mut im) = (0.0, 0.0);
                for (i, v) in grey.iter().enumerate() {
                    let turns = (u * (i / width)) as f64 / height as f64
                        + (k * (i % width)) as f64 / width as f64;
                    re += f64::from(*v) * (tau * turns).cos();
                    im -= f64::from(*v) * (tau * turns).sin();
                }
                let m = 20.0 * f64::hypot(re, im).max(1.0).ln();
                let (y, x) = ((u + height / 2) % height, (k + width / 2) % width);
                white[y * width + x] = m.round().clamp(0.0, 255.0) > f64::from(level);
            }
        }
        white
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn the_spectrum_of_any_size_is_that_of_the_definition(
            height in 1usize..12, width in 1usize..12, seed: u64
        ) {
            let values = (0..height * width)
                .map(|i| (seed.wrapping_add(i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8)
                .collect();
            let picture = Picture::made(height, width, 1, values);
            for level in [100, 120, 140] {
                let found = bright(&picture, level).white;
                let wrong = found.iter().zip(slow(&picture, level)).filter(|(a, b)| **a != *b).count();
                // A value that lies on the level but for rounding may fall on either side, with its mirror image.
                prop_assert!(wrong <= 2, "{} wrong", wrong);
            }
        }

        #[test]
        fn the_blur_is_that_of_the_definition(
            height in 1usize..26, width in 1usize..26, seed: u64
        ) {
            let white: Vec<bool> = (0..height * width)
                .map(|i| (seed.wrapping_add(i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) % 97 == 0)
                .collect();
            let found = blurred(&Mask { height, width, white: white.clone() }).white;
            let mirrored = |p: isize, n: usize| -> usize {
                let (mut p, last) = (p, n as isize - 1);
                while p < 0 || p > last {
                    if last == 0 { return 0; }
                    p = if p < 0 { -p } else { 2 * last - p };
                }
                p as usize
            };
            let g = |d: isize| (-((d * d) as f64) / 24.5).exp();
            let total: f64 = (-10..=10).map(g).sum();
            for y in 0..height as isize {
                for x in 0..width as isize {
                    let mut sum = 0.0;
                    for dy in -10..=10 {
                        for dx in -10..=10 {
                            if white[mirrored(y + dy, height) * width + mirrored(x + dx, width)] {
                                sum += g(dy) * g(dx) / (total * total);
                            }
                        }
                    }
                    let value = 255.0 * sum;
                    if (value - 0.5).abs() > 1e-3 {
                        prop_assert_eq!(found[y as usize * width + x as usize], value > 0.5);
                    }
                }
            }
        }
    }

    #[test]
    fn a_flat_picture_has_no_point_a_ramp_one_and_a_grid_several() {
        let made = |value: fn(usize, usize) -> u8| {
            let values = (0..256 * 323).map(|i| value(i / 323, i % 323)).collect();
            Picture::made(256, 323, 1, values)
        };
        assert_eq!(spectrum_points(&made(|_, _| 200), 240), 0);
        assert_eq!(spectrum_points(&made(|_, _| 0), 240), 0);
        let ramp = made(|y, x| ((x + y) * 255 / 576) as u8);
        assert_eq!(spectrum_points(&ramp, 240), 1);
        let grid = made(|y, x| {
            let base = (x + y) * 255 / 579;
            // Another picture, the ramp the other way round, at every fifth pixel.
            (if y % 5 < 2 && x % 5 < 2 {
                255 - base
            } else {
                base
            }) as u8
        });
        assert!(spectrum_points(&grid, 240) >= 2);
    }
}
