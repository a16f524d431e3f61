//! Filters over small windows: minimum, median, maximum.

use super::picture::Picture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a pixel becomes of its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// The least value.
    Minimum,
    /// The middle value; of four, the third.
    Median,
    /// The greatest value.
    Maximum,
}

/// The filtered picture, each channel for itself; pixels at the border are repeated outwards.
///
/// A window of 3 x 3 lies around its pixel, one of 2 x 2 has it at the top left. O(H W).
pub fn filtered(picture: &Picture, filter: Filter, window: usize) -> Picture {
    let values = match (filter, window) {
        (Filter::Minimum, 2) => extreme::<2>(picture, u8::min),
        (Filter::Maximum, 2) => extreme::<2>(picture, u8::max),
        (Filter::Minimum, _) => extreme::<3>(picture, u8::min),
        (Filter::Maximum, _) => extreme::<3>(picture, u8::max),
        (Filter::Median, 2) => median::<2, 4>(picture),
        (Filter::Median, _) => median::<3, 9>(picture),
    };
    Picture::made(
        picture.height(),
        picture.width(),
        picture.channels(),
        values,
    )
}

/// Row `y` with a border of one pixel repeated on both sides, if a window of 3 needs it, or on the right.
fn bordered<const N: usize>(picture: &Picture, y: usize, to: &mut Vec<u8>) {
    let channels = picture.channels();
    let row = picture.row(y);
    to.clear();
    if N == 3 {
        to.extend_from_slice(&row[..channels]);
    }
    to.extend_from_slice(row);
    to.extend_from_slice(&row[row.len() - channels..]);
}

/// The rows of the window of row `y`, cut at the border.
fn window_row<const N: usize>(picture: &Picture, y: usize, d: usize) -> usize {
    (y + d)
        .saturating_sub(usize::from(N == 3))
        .min(picture.height() - 1)
}

/// First along the rows, then across them.
fn extreme<const N: usize>(picture: &Picture, of: impl Fn(u8, u8) -> u8) -> Vec<u8> {
    let (channels, length) = (picture.channels(), picture.width() * picture.channels());
    let mut along = vec![0; picture.values().len()];
    let mut row = Vec::with_capacity(length + 2 * channels);
    for (y, to) in along.chunks_exact_mut(length).enumerate() {
        bordered::<N>(picture, y, &mut row);
        let next = &row[channels..channels + length];
        for ((to, a), b) in to.iter_mut().zip(&row).zip(next) {
            *to = of(*a, *b);
        }
        if N == 3 {
            for (to, c) in to.iter_mut().zip(&row[2 * channels..]) {
                *to = of(*to, *c);
            }
        }
    }
    let mut values = Vec::with_capacity(along.len());
    for y in 0..picture.height() {
        let line = |d: usize| {
            let y = window_row::<N>(picture, y, d);
            &along[y * length..(y + 1) * length]
        };
        let two = line(0).iter().zip(line(1)).map(|(a, b)| of(*a, *b));
        if N == 3 {
            values.extend(two.zip(line(2)).map(|(a, b)| of(a, *b)));
        } else {
            values.extend(two);
        }
    }
    values
}

fn median<const N: usize, const SQUARE: usize>(picture: &Picture) -> Vec<u8> {
    let (channels, length) = (picture.channels(), picture.width() * picture.channels());
    let mut rows: [Vec<u8>; N] = std::array::from_fn(|_| Vec::new());
    let mut values = Vec::with_capacity(picture.values().len());
    for y in 0..picture.height() {
        for (d, row) in rows.iter_mut().enumerate() {
            bordered::<N>(picture, window_row::<N>(picture, y, d), row);
        }
        for x in 0..length {
            let mut window = [0u8; SQUARE];
            for (at, value) in window.iter_mut().enumerate() {
                *value = rows[at / N][x + at % N * channels];
            }
            window.sort_unstable();
            values.push(window[SQUARE / 2]);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, pixel by pixel.
    fn slow(picture: &Picture, filter: Filter, window: usize) -> Vec<u8> {
        let (height, width, channels) = (picture.height(), picture.width(), picture.channels());
        let before = isize::from(window == 3);
        let mut out = Vec::new();
        for y in 0..height as isize {
            for x in 0..width as isize {
                for c in 0..channels {
                    let mut seen: Vec<u8> = (0..(window * window) as isize)
                        .map(|i| {
                            let (dy, dx) = (i / window as isize, i % window as isize);
                            let y = (y + dy - before).clamp(0, height as isize - 1) as usize;
                            let x = (x + dx - before).clamp(0, width as isize - 1) as usize;
                            picture.values()[(y * width + x) * channels + c]
                        })
                        .collect();
                    seen.sort_unstable();
                    out.push(match filter {
                        Filter::Minimum => seen[0],
                        Filter::Median => seen[seen.len() / 2],
                        Filter::Maximum => seen[seen.len() - 1],
                    });
                }
            }
        }
        out
    }

    #[test]
    fn a_window_of_two_looks_right_and_down() {
        let picture = Picture::made(2, 3, 1, vec![5, 1, 9, 7, 8, 6]);
        let found = filtered(&picture, Filter::Minimum, 2);
        assert_eq!(found.values(), [1, 1, 6, 7, 6, 6]);
        let found = filtered(&picture, Filter::Median, 2);
        assert_eq!(found.values(), [7, 8, 9, 8, 8, 6]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]

        #[test]
        fn fast_ways_do_what_the_definition_says(
            height in 1usize..7, width in 1usize..9, colour: bool, seed: u64
        ) {
            let channels = if colour { 3 } else { 1 };
            let values = (0..height * width * channels)
                .map(|i| (seed.wrapping_add(i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8)
                .collect();
            let picture = Picture::made(height, width, channels, values);
            for filter in [Filter::Minimum, Filter::Median, Filter::Maximum] {
                for window in [2, 3] {
                    let found = filtered(&picture, filter, window);
                    prop_assert_eq!(found.values(), slow(&picture, filter, window));
                }
            }
        }
    }
}
