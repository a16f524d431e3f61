//! Pictures cut and stretched: the augmentation of training, and hashes that find near duplicates.

use super::pairs::Shape;
use rand::{Rng, RngExt};

/// Least share of the area that a crop keeps, open_clip's default.
const LEAST_AREA: f64 = 0.9;

/// A part of a picture: its upper left corner and its size, in pixels.
#[derive(Debug, Clone, Copy)]
struct Window {
    top: f64,
    left: f64,
    height: f64,
    width: f64,
}

/// Random resized crop, in place: a window of random area and proportions, stretched to the whole picture.
///
/// The area is drawn evenly between [`LEAST_AREA`] and all, the logarithm of width over height evenly between 3 / 4 and
/// 4 / 3 of the picture's own, and the place evenly; a window beyond the picture is cut to it.
pub(super) fn random_crop<R: Rng>(picture: &mut [f32], shape: Shape, rng: &mut R) {
    let (height, width) = (shape.height as f64, shape.width as f64);
    let area = LEAST_AREA + (1.0 - LEAST_AREA) * rng.random::<f64>();
    let limit = (4.0f64 / 3.0).ln();
    let ratio = (limit * (2.0 * rng.random::<f64>() - 1.0)).exp();
    let tall = (height * (area / ratio).sqrt()).min(height);
    let wide = (width * (area * ratio).sqrt()).min(width);
    let window = Window {
        top: (height - tall) * rng.random::<f64>(),
        left: (width - wide) * rng.random::<f64>(),
        height: tall,
        width: wide,
    };
    let source = picture.to_vec();
    let size = shape.height * shape.width;
    for (to, from) in picture
        .chunks_exact_mut(size)
        .zip(source.chunks_exact(size))
    {
        stretch(
            from,
            (shape.height, shape.width),
            window,
            to,
            shape.height,
            shape.width,
        );
    }
}

/// The window of `from`, a channel of `size` = (height, width), at `height` x `width` pixels, between pixels in lines.
fn stretch(
    from: &[f32],
    size: (usize, usize),
    window: Window,
    to: &mut [f32],
    height: usize,
    width: usize,
) {
    let places = |count: usize, start: f64, length: f64, most: usize| -> Vec<(usize, usize, f32)> {
        (0..count)
            .map(|i| {
                // Centres of pixels on centres of pixels.
                let at = start + (i as f64 + 0.5) * length / count as f64 - 0.5;
                let at = at.clamp(0.0, (most - 1) as f64);
                let low = at.floor() as usize;
                (low, (low + 1).min(most - 1), (at - low as f64) as f32)
            })
            .collect()
    };
    let rows = places(height, window.top, window.height, size.0);
    let columns = places(width, window.left, window.width, size.1);
    for (line, (r0, r1, down)) in to.chunks_exact_mut(width).zip(rows) {
        for (pixel, (c0, c1, right)) in line.iter_mut().zip(&columns) {
            let at = |r: usize, c: usize| from[r * size.1 + c];
            let above = at(r0, *c0) + right * (at(r0, *c1) - at(r0, *c0));
            let below = at(r1, *c0) + right * (at(r1, *c1) - at(r1, *c0));
            *pixel = above + down * (below - above);
        }
    }
}

/// Difference hash: at 9 x 8 pixels, whether each is brighter than its right neighbour, 64 bits. Small changes of a
/// picture change few of them.
pub(super) fn difference_hash(picture: &[f32], shape: Shape) -> u64 {
    let size = shape.height * shape.width;
    let mut grey = vec![0.0; size];
    for channel in picture.chunks_exact(size) {
        for (g, v) in grey.iter_mut().zip(channel) {
            *g += v;
        }
    }
    let whole = Window {
        top: 0.0,
        left: 0.0,
        height: shape.height as f64,
        width: shape.width as f64,
    };
    let mut small = [0.0; 72];
    stretch(&grey, (shape.height, shape.width), whole, &mut small, 8, 9);
    let bits = small
        .chunks_exact(9)
        .flat_map(|line| line.windows(2).map(|p| p[0] > p[1]));
    bits.fold(0, |hash, bit| hash << 1 | u64::from(bit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_numerics::sampling::rng;
    use proptest::prelude::*;

    const SMALL: Shape = Shape {
        channels: 1,
        height: 2,
        width: 2,
    };

    #[test]
    fn stretching_by_hand() {
        let whole = Window {
            top: 0.0,
            left: 0.0,
            height: 2.0,
            width: 2.0,
        };
        let mut same = [0.0; 4];
        stretch(&[1., 2., 3., 4.], (2, 2), whole, &mut same, 2, 2);
        assert_eq!(same, [1., 2., 3., 4.]);
        // Three columns over two pixels: the middle one lies between them.
        let mut three = [0.0; 6];
        stretch(&[1., 2., 3., 4.], (2, 2), whole, &mut three, 2, 3);
        assert_eq!(three[..], [1., 1.5, 2., 3., 3.5, 4.]);
        // The right half alone.
        let half = Window {
            left: 1.0,
            width: 1.0,
            ..whole
        };
        let mut right = [0.0; 4];
        stretch(&[1., 2., 3., 4.], (2, 2), half, &mut right, 2, 2);
        assert_eq!(right, [1.75, 2., 3.75, 4.]);
    }

    #[test]
    fn hashes_tell_pictures_apart_but_not_their_brightness() {
        let shape = Shape {
            channels: 1,
            height: 8,
            width: 9,
        };
        let falling: Vec<f32> = (0..72).map(|i| -((i % 9) as f32)).collect();
        let rising: Vec<f32> = falling.iter().map(|v| -v).collect();
        let bright: Vec<f32> = falling.iter().map(|v| 2.0 * v + 5.0).collect();
        assert_eq!(difference_hash(&falling, shape), u64::MAX);
        assert_eq!(difference_hash(&rising, shape), 0);
        assert_eq!(difference_hash(&bright, shape), u64::MAX);
        assert_eq!(difference_hash(&[0.0; 4], SMALL), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_crop_stays_within_the_pixels_values(seed in 0u64..1000, h in 1usize..7, w in 1usize..7) {
            let shape = Shape { channels: 2, height: h, width: w };
            let mut rng = rng(seed, "test");
            let before: Vec<f32> = (0..shape.size()).map(|_| rng.random()).collect();
            let mut after = before.clone();
            random_crop(&mut after, shape, &mut rng);
            for (a, b) in after.chunks(h * w).zip(before.chunks(h * w)) {
                let low = b.iter().copied().fold(f32::MAX, f32::min) - 1e-6;
                let high = b.iter().copied().fold(f32::MIN, f32::max) + 1e-6;
                prop_assert!(a.iter().all(|v| (low..=high).contains(v)));
            }
        }
    }
}
