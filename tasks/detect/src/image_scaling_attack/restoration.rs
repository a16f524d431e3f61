//! Restoring what a picture was: the strongest other plain defence.
//!
//! Quiring, Klein, Arp, Johns and Rieck, *Adversarial preprocessing: understanding and preventing image-scaling attacks
//! in machine learning*, USENIX Security 2020: their selective median filter. Only pixels that count for the scaled
//! picture can carry an attack, so each of them is replaced by the median of those around it that do not count.

use super::picture::Picture;
use super::scaler::Scaling;

/// The picture with every pixel that counts in `scaling` replaced by the median of the pixels that do not, in a window
/// of `window` ratios' height and width around it, a channel at a time.
///
/// Where all pixels of the window count, as with area scaling or anti-aliasing, the median of all of them is taken.
/// O(p r^2) for p pixels that count and windows of r x r.
pub fn restored(picture: &Picture, scaling: &Scaling, window: f64) -> Picture {
    let (height, width, channels) = (picture.height(), picture.width(), picture.channels());
    let (rows, columns) = (
        scaling.vertical.considered(),
        scaling.horizontal.considered(),
    );
    let reach = |from: usize, to: usize| {
        let ratio = from as f64 / to as f64;
        ((window * ratio / 2.0).ceil() as usize).max(1)
    };
    let (tall, wide) = (
        reach(height, scaling.vertical.outputs()),
        reach(width, scaling.horizontal.outputs()),
    );
    let mut restored = picture.clone();
    let to = restored.values_mut();
    for y in (0..height).filter(|y| rows[*y]) {
        let around = y.saturating_sub(tall)..(y + tall + 1).min(height);
        for x in (0..width).filter(|x| columns[*x]) {
            let (left, right) = (x.saturating_sub(wide), (x + wide + 1).min(width));
            for channel in 0..channels {
                let mut counts = [0u32; 256];
                let mut total = 0;
                for free in [true, false] {
                    if total > 0 {
                        break;
                    }
                    for y in around.clone() {
                        let row = picture.row(y);
                        for x in left..right {
                            if !free || !rows[y] || !columns[x] {
                                counts[usize::from(row[x * channels + channel])] += 1;
                                total += 1;
                            }
                        }
                    }
                }
                to[(y * width + x) * channels + channel] = median(&counts, total);
            }
        }
    }
    restored
}

/// The value in the middle; of an even number, the lower of the two.
fn median(counts: &[u32; 256], total: u32) -> u8 {
    let mut below = 0;
    for (value, count) in counts.iter().enumerate() {
        below += count;
        if 2 * below >= total {
            return value as u8;
        }
    }
    255
}

#[cfg(test)]
mod tests {
    use super::super::scaler::{Convention, Kernel, Scaler};
    use super::*;

    fn scaling(kernel: Kernel, from: (usize, usize), to: (usize, usize)) -> Scaling {
        let convention = Convention::Opencv;
        Scaler { kernel, convention }.between(from, to).unwrap()
    }

    #[test]
    fn planted_pixels_are_gone_and_others_stay() {
        // Nearest of 8 to 2 looks at rows and columns 0 and 4.
        let nearest = scaling(Kernel::Nearest, (8, 8), (2, 2));
        let values: Vec<u8> = (0..64)
            .map(|i| {
                if i / 8 % 4 == 0 && i % 8 % 4 == 0 {
                    255
                } else {
                    10 + i as u8 % 8
                }
            })
            .collect();
        let picture = Picture::made(8, 8, 1, values.clone());
        let found = restored(&picture, &nearest, 1.0);
        for (i, (after, before)) in found.values().iter().zip(&values).enumerate() {
            if *before == 255 {
                assert!(*after < 20, "{i}");
            } else {
                assert_eq!(after, before);
            }
        }
        // The middle one, by hand: columns 2 to 6 of rows 2 to 6 without itself; 12 to 16, each five times but 14, four
        // times: the middle of 24, the lower one, is 14.
        assert_eq!(found.values()[4 * 8 + 4], 14);
    }

    #[test]
    fn where_everything_counts_the_median_is_plain() {
        let area = scaling(Kernel::Area, (4, 4), (2, 2));
        let mut values = vec![7u8; 16];
        values[5] = 200;
        let picture = Picture::made(4, 4, 1, values);
        let found = restored(&picture, &area, 1.0);
        assert!(found.values().iter().all(|v| *v == 7));
    }
}
