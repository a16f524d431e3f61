//! How far two pictures of one size are apart: squared differences, structural similarity, histograms.

use super::picture::Picture;

/// Sum of the squared differences of all channels over the number of pixels.
///
/// For a coloured picture three times the mean over all values: so the reference code of Decamouflage defines it, and
/// published thresholds mean this. A grey picture has one channel and no factor 3.
pub fn mse_per_pixel(a: &Picture, b: &Picture) -> f64 {
    // Whole numbers, so that the order does not matter; blocks small enough for 32 bits.
    let total: u64 = (a.values().chunks(4096).zip(b.values().chunks(4096)))
        .map(|(a, b)| {
            let block: u32 = (a.iter().zip(b))
                .map(|(a, b)| {
                    let gap = i32::from(*a) - i32::from(*b);
                    (gap * gap) as u32
                })
                .sum();
            u64::from(block)
        })
        .sum();
    total as f64 / (a.height() * a.width()) as f64
}

/// Taps of the Gaussian window on each side: 3.5 standard deviations of 1.5, rounded.
const REACH: usize = 5;
/// The window.
const WINDOW: usize = 2 * REACH + 1;

/// Structural similarity, mean over pixels and channels; `None` for a picture smaller than the window of 11 x 11.
///
/// Wang et al. 2004 with a Gaussian window of deviation 1.5, K1 = 0.01, K2 = 0.03, L = 255 and unbiased covariances,
/// averaged over the places where the window fits: scikit-image's `structural_similarity(gaussian_weights=True,
/// sigma=1.5)`, which the reference code calls. O(H W).
pub fn ssim(a: &Picture, b: &Picture) -> Option<f64> {
    let (height, width, channels) = (a.height(), a.width(), a.channels());
    if height < WINDOW || width < WINDOW {
        return None;
    }
    let mut total = 0.0;
    let mut rows = Ring::new(width - WINDOW + 1);
    let mut first = vec![0.0f32; width];
    let mut second = vec![0.0f32; width];
    for channel in 0..channels {
        for y in 0..height {
            // Around the middle of the range, squares are smaller and single precision is enough.
            let centred = |row: &[u8], to: &mut [f32]| {
                let pixels = row.iter().skip(channel).step_by(channels);
                for (to, v) in to.iter_mut().zip(pixels) {
                    *to = f32::from(*v) - MIDDLE;
                }
            };
            centred(a.row(y), &mut first);
            centred(b.row(y), &mut second);
            rows.push(y, &first, &second);
            if y + 1 >= WINDOW {
                total += rows.row_total(y);
            }
        }
    }
    let places = (height - WINDOW + 1) * (width - WINDOW + 1) * channels;
    Some(total / places as f64)
}

const MIDDLE: f32 = 128.0;

/// The last rows of a channel, smoothed along the row: of both pictures, of the sum of their squares, and of their
/// product.
struct Ring {
    kernel: [f32; REACH + 1],
    width: usize,
    rows: Vec<[Vec<f32>; 4]>,
    sums: [Vec<f32>; 4],
    squares: Vec<f32>,
    products: Vec<f32>,
}

impl Ring {
    fn new(width: usize) -> Ring {
        let weight = |d: usize| (-((d * d) as f64) / (2.0 * 1.5 * 1.5)).exp();
        let sum: f64 = weight(0) + 2.0 * (1..=REACH).map(weight).sum::<f64>();
        let line = || vec![0.0; width];
        let whole = || vec![0.0; width + WINDOW - 1];
        Ring {
            kernel: std::array::from_fn(|d| (weight(d) / sum) as f32),
            width,
            rows: (0..WINDOW)
                .map(|_| std::array::from_fn(|_| line()))
                .collect(),
            sums: std::array::from_fn(|_| line()),
            squares: whole(),
            products: whole(),
        }
    }

    fn push(&mut self, y: usize, a: &[f32], b: &[f32]) {
        for (x, (a, b)) in a.iter().zip(b).enumerate() {
            self.squares[x] = a * a + b * b;
            self.products[x] = a * b;
        }
        let slot = &mut self.rows[y % WINDOW];
        let lines = [a, b, &self.squares[..], &self.products[..]];
        for (to, from) in slot.iter_mut().zip(lines) {
            smooth(&self.kernel, from, to);
        }
    }

    /// Sum of the similarities of the row whose window ends with row `y`.
    fn row_total(&mut self, y: usize) -> f64 {
        let row = |d: usize| &self.rows[(y + 1 + d) % WINDOW];
        for (q, sum) in self.sums.iter_mut().enumerate() {
            let middle = &row(REACH)[q][..sum.len()];
            for (s, m) in sum.iter_mut().zip(middle) {
                *s = self.kernel[0] * m;
            }
            for d in 1..=REACH {
                let above = &row(REACH - d)[q];
                let below = &row(REACH + d)[q];
                let weight = self.kernel[d];
                for ((s, a), b) in sum.iter_mut().zip(above).zip(below) {
                    *s += weight * (a + b);
                }
            }
        }
        const C1: f32 = (0.01 * 255.0) * (0.01 * 255.0);
        const C2: f32 = (0.03 * 255.0) * (0.03 * 255.0);
        const UNBIASED: f32 = (WINDOW * WINDOW) as f32 / (WINDOW * WINDOW - 1) as f32;
        let [a, b, squares, products] = &self.sums;
        let mut total = 0.0f64;
        let mut some = [0.0f32; 64];
        for start in (0..self.width).step_by(some.len()) {
            let end = (start + some.len()).min(self.width);
            let block = &mut some[..end - start];
            let lines = a[start..end].iter().zip(&b[start..end]);
            let more = squares[start..end].iter().zip(&products[start..end]);
            for (to, ((a, b), (squares, product))) in block.iter_mut().zip(lines.zip(more)) {
                let spread = UNBIASED * (squares - a * a - b * b);
                let joint = UNBIASED * (product - a * b);
                let (a, b) = (a + MIDDLE, b + MIDDLE);
                *to = (2.0 * a * b + C1) * (2.0 * joint + C2)
                    / ((a * a + b * b + C1) * (spread + C2));
            }
            total += block.iter().map(|v| f64::from(*v)).sum::<f64>();
        }
        total
    }
}

/// The row under the window wherever it fits.
fn smooth(kernel: &[f32; REACH + 1], from: &[f32], to: &mut [f32]) {
    let n = to.len();
    for (t, m) in to.iter_mut().zip(&from[REACH..REACH + n]) {
        *t = kernel[0] * m;
    }
    for d in 1..=REACH {
        let left = &from[REACH - d..REACH - d + n];
        let right = &from[REACH + d..REACH + d + n];
        for ((t, l), r) in to.iter_mut().zip(left).zip(right) {
            *t += kernel[d] * (l + r);
        }
    }
}

/// Correlation of the two pictures' histograms of `bins` bins a channel, mean over channels; the sizes may differ.
///
/// A histogram that is flat says nothing: it correlates by 1 with an equal one, by 0 with any other.
pub fn histogram_correlation(a: &Picture, b: &Picture, bins: usize) -> f64 {
    let channels = a.channels();
    let histogram = |picture: &Picture, channel: usize| {
        let mut counts = vec![0.0f64; bins];
        for v in picture.values().iter().skip(channel).step_by(channels) {
            counts[usize::from(*v) * bins / 256] += 1.0;
        }
        let pixels = (picture.height() * picture.width()) as f64;
        let mean = 1.0 / bins as f64;
        counts.iter_mut().for_each(|c| *c = *c / pixels - mean);
        counts
    };
    let of_channel = |channel: usize| {
        let (a, b) = (histogram(a, channel), histogram(b, channel));
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let length = (product(&a, &a) * product(&b, &b)).sqrt();
        if length > 0.0 {
            product(&a, &b) / length
        } else {
            f64::from(u8::from(a == b))
        }
    };
    (0..channels).map(of_channel).sum::<f64>() / channels as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_numerics::sampling::rng;
    use proptest::prelude::*;
    use rand::RngExt;

    /// Two pictures by formula, the second rougher than the first.
    fn pair(height: usize, width: usize, channels: usize) -> (Picture, Picture) {
        let value = |i: usize, m: usize| {
            let (y, x, c) = (i / (width * channels), i / channels % width, i % channels);
            ((x * x + 3 * x * y + 7 * y + 40 * c + m * (x * y % 5)) % 256) as u8
        };
        let n = height * width * channels;
        (
            Picture::made(
                height,
                width,
                channels,
                (0..n).map(|i| value(i, 0)).collect(),
            ),
            Picture::made(
                height,
                width,
                channels,
                (0..n).map(|i| value(i, 13)).collect(),
            ),
        )
    }

    #[test]
    fn squared_differences_count_by_pixel() {
        let a = Picture::made(1, 2, 3, vec![0, 0, 0, 255, 10, 0]);
        let b = Picture::made(1, 2, 3, vec![1, 2, 3, 0, 10, 0]);
        assert_eq!(mse_per_pixel(&a, &b), (1.0 + 4.0 + 9.0 + 65025.0) / 2.0);
        let grey = Picture::made(1, 2, 1, vec![0, 4]);
        let other = Picture::made(1, 2, 1, vec![2, 4]);
        assert_eq!(mse_per_pixel(&grey, &other), 2.0);
        assert_eq!(
            mse_per_pixel(&grey.with_channels(3), &other.with_channels(3)),
            6.0
        );
    }

    #[test]
    fn similarity_is_that_of_scikit_image() {
        // scikit-image 0.26.0 on the same formula: see `pair`.
        let (a, b) = pair(24, 31, 1);
        assert!(
            (ssim(&a, &b).unwrap() - SSIM_GREY).abs() < 1e-5,
            "{:?}",
            ssim(&a, &b)
        );
        let (a, b) = pair(40, 23, 3);
        assert!(
            (ssim(&a, &b).unwrap() - SSIM_COLOUR).abs() < 1e-5,
            "{:?}",
            ssim(&a, &b)
        );
        assert_eq!(ssim(&pair(10, 30, 1).0, &pair(10, 30, 1).1), None);
    }

    const SSIM_GREY: f64 = 0.505_714_753;
    const SSIM_COLOUR: f64 = 0.592_481_297;

    #[test]
    fn histograms_correlate_as_pearson_says() {
        // Bins of 128: (1, 3) and (2, 2) of four pixels; the second is flat.
        let a = Picture::made(1, 4, 1, vec![0, 200, 201, 255]);
        let b = Picture::made(1, 4, 1, vec![0, 1, 201, 255]);
        assert_eq!(histogram_correlation(&a, &b, 2), 0.0);
        assert_eq!(histogram_correlation(&b, &b, 2), 1.0);
        assert!((histogram_correlation(&a, &a, 2) - 1.0).abs() < 1e-12);
        let c = Picture::made(1, 2, 1, vec![0, 1]);
        assert!((histogram_correlation(&a, &c, 2) + 1.0).abs() < 1e-12);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]

        #[test]
        fn similarity_is_symmetric_and_one_for_equals(
            height in 11usize..20, width in 11usize..30, seed: u64
        ) {
            let n = height * width * 3;
            let draw = |seed: u64| {
                let mut draws = rng(seed, "noise");
                Picture::made(height, width, 3, (0..n).map(|_| draws.random()).collect())
            };
            let (a, b) = (draw(seed), draw(!seed));
            prop_assert!((ssim(&a, &a).unwrap() - 1.0).abs() < 1e-5);
            let found = ssim(&a, &b).unwrap();
            prop_assert!((found - ssim(&b, &a).unwrap()).abs() < 1e-6);
            prop_assert!(found < 0.5);
            prop_assert_eq!(mse_per_pixel(&a, &a), 0.0);
        }
    }
}
