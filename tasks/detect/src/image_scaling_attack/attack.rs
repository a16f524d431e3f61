//! The attack: a picture that looks like one thing and is scaled to another.
//!
//! Xiao, Chen, Shen, Chen and Li, *Seeing is not believing: camouflage attacks on image scaling algorithms*, USENIX
//! Security 2019, in its strong form. S(I) = L I R for the source s (H x W), the hidden picture t (h x w).
//!
//! 1. s' = s R, rounded (H x w): the source scaled along its rows alone.
//! 2. Down each column of s': the least change that makes L (s' + d) the column of t, to eps grey levels, values between
//!    0 and 255. Rounded, this is the intermediate picture A'.
//! 3. Along each row of s: the least change that makes (s + d) R the row of A', likewise. Rounded, this is the attack A.
//! 4. It works if the mean of |S(A) - t| is at most 2 eps; else again with twice the eps, from 1 to 16. What step 3 misses
//!    is weighed by |L| in the end, so that kernels with negative coefficients (bicubic, Lanczos) would miss more than 2
//!    eps at any eps: each step gets 2 eps / (1 + |L|), |L| being the greatest sum of a row's magnitudes, less a tenth for
//!    what rounding adds.
//!
//! A step's problem is min |d|^2 / 2 subject to 0 <= s + d <= 255 and |C (s + d) - t| <= eps. It is solved in its dual:
//! x = clip(s + C' l), and each multiplier in turn is set so that its own output is met, which is exact as its output
//! grows piecewise linearly. Where outputs share no input (nearest, bilinear, bicubic and Lanczos without anti-aliasing,
//! at ratios from 1, 2, 4 and 8) one round solves all; else rounds go on until nothing moves.
//!
//! Cost: O(h H + w W) times the kernel's reach a channel for one round.

use super::compare::ssim;
use super::picture::Picture;
use super::scaler::{Scaler, Scaling, Weights, rounded};
use papertrial_core::{Error, Result};
use rayon::prelude::*;

/// A made attack.
#[derive(Debug, Clone)]
pub struct Forged {
    /// The picture, of the source's size; to be kept in a format without loss.
    pub picture: Picture,
    /// Grey levels that the solution was allowed to miss.
    pub eps: u32,
    /// Mean of |S(A) - t|, in grey levels.
    pub error: f64,
    /// Structural similarity of A and its source, where they are large enough.
    pub similarity: Option<f64>,
    /// Whether the error is at most twice the eps.
    pub success: bool,
}

/// Hides `hidden`, of the size that the model sees, in `source`.
///
/// # Errors
/// A hidden picture that is not smaller in both directions, or a kernel that the convention does not have.
pub fn forge(source: &Picture, hidden: &Picture, scaler: Scaler) -> Result<Forged> {
    let from = (source.height(), source.width());
    let to = (hidden.height(), hidden.width());
    if to.0 >= from.0 || to.1 >= from.1 {
        return Err(Error::BadInput(format!(
            "nothing can be hidden in a picture of {} x {} pixels that is scaled to {} x {}",
            from.1, from.0, to.1, to.0
        )));
    }
    let scaling = scaler.between(from, to)?;
    let hidden = hidden.with_channels(source.channels());
    let share = 1.8 / (1.0 + scaling.vertical.greatest_row());
    let mut best: Option<Forged> = None;
    for eps in [1, 2, 4, 8, 16] {
        let picture = attempt(source, &hidden, &scaling, f64::from(eps) * share);
        let error = mean_gap(&scaling.apply(&picture), &hidden);
        let success = error <= 2.0 * f64::from(eps);
        if success || best.as_ref().is_none_or(|b| error < b.error) {
            best = Some(Forged {
                picture,
                eps,
                error,
                similarity: None,
                success,
            });
        }
        if success {
            break;
        }
    }
    let mut forged = best.ok_or_else(|| Error::Failed("no attack was tried".into()))?;
    forged.similarity = ssim(&forged.picture, source);
    Ok(forged)
}

fn mean_gap(a: &Picture, b: &Picture) -> f64 {
    let total: u64 = (a.values().iter().zip(b.values()))
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    total as f64 / a.values().len() as f64
}

/// Steps 1 to 3.
fn attempt(source: &Picture, hidden: &Picture, scaling: &Scaling, eps: f64) -> Picture {
    let channels = source.channels();
    let (height, width) = (source.height(), source.width());
    let (low, narrow) = (hidden.height(), hidden.width());
    let mut made = source.clone();
    for channel in 0..channels {
        let rows: Vec<f64> = of_channel(source, channel);
        let targets: Vec<f64> = of_channel(hidden, channel);
        // Columns of the intermediate picture, one after another.
        let mut between = vec![0.0; narrow * height];
        let horizontal = &scaling.horizontal;
        for (y, row) in rows.chunks_exact(width).enumerate() {
            for x in 0..narrow {
                between[x * height + y] = f64::from(rounded(meets(horizontal, x, row) as f32));
            }
        }
        between
            .par_chunks_exact_mut(height)
            .enumerate()
            .for_each_init(Dual::default, |dual, (x, column)| {
                let target: Vec<f64> = (0..low).map(|y| targets[y * narrow + x]).collect();
                dual.settle(&scaling.vertical, column, &target, eps);
            });
        let length = width * channels;
        made.values_mut()
            .par_chunks_exact_mut(length)
            .enumerate()
            .for_each_init(Dual::default, |dual, (y, line)| {
                let mut row = rows[y * width..(y + 1) * width].to_vec();
                let target: Vec<f64> = (0..narrow).map(|x| between[x * height + y]).collect();
                dual.settle(horizontal, &mut row, &target, eps);
                for (to, value) in line.iter_mut().skip(channel).step_by(channels).zip(&row) {
                    *to = rounded(*value as f32);
                }
            });
    }
    made
}

fn of_channel(picture: &Picture, channel: usize) -> Vec<f64> {
    let values = picture.values().iter().skip(channel);
    values
        .step_by(picture.channels())
        .map(|v| f64::from(*v))
        .collect()
}

/// Output `k` of `values`.
fn meets(weights: &Weights, k: usize, values: &[f64]) -> f64 {
    let (start, coefficients) = weights.row(k);
    (coefficients.iter().zip(&values[start..]))
        .map(|(c, v)| f64::from(*c) * v)
        .sum()
}

/// Rounds of the dual, where outputs overlap.
const ROUNDS: usize = 100;
/// Grey levels that an output may still move when the rounds end.
const ENOUGH: f64 = 0.02;

/// Working memory of one problem.
#[derive(Default)]
struct Dual {
    multipliers: Vec<f64>,
    /// Where an input begins or ends to follow the multiplier, and the change of the output's slope there.
    turns: Vec<(f64, f64)>,
}

impl Dual {
    /// Changes `values` as little as makes each output its target to `eps`, as far as values of 0 to 255 can; rounded.
    fn settle(&mut self, weights: &Weights, values: &mut [f64], targets: &[f64], eps: f64) {
        self.multipliers.clear();
        self.multipliers.resize(targets.len(), 0.0);
        let rounds = if weights.overlap() { ROUNDS } else { 1 };
        for _ in 0..rounds {
            let mut moved: f64 = 0.0;
            for (k, target) in targets.iter().enumerate() {
                let (start, coefficients) = weights.row(k);
                let inputs = &mut values[start..start + coefficients.len()];
                let before = self.multipliers[k];
                let after = self.multiplier(inputs, coefficients, before, *target, eps);
                if after != before {
                    self.multipliers[k] = after;
                    let mut length = 0.0;
                    for (value, c) in inputs.iter_mut().zip(coefficients) {
                        let c = f64::from(*c);
                        *value += c * (after - before);
                        length += c * c;
                    }
                    moved = moved.max((after - before).abs() * length);
                }
            }
            if moved < ENOUGH {
                break;
            }
        }
        for value in values.iter_mut() {
            *value = f64::from(rounded(*value as f32));
        }
    }

    /// The multiplier with which the output of `inputs`, cut to 0..255, is nearest to 0 among those that meet the target.
    ///
    /// `inputs` contain the part of the multiplier's present value, `before`.
    fn multiplier(
        &mut self,
        inputs: &[f64],
        coefficients: &[f32],
        before: f64,
        target: f64,
        eps: f64,
    ) -> f64 {
        let pairs = || {
            (inputs.iter().zip(coefficients))
                .map(|(v, c)| (*v - f64::from(*c) * before, f64::from(*c)))
        };
        let at_zero: f64 = pairs().map(|(v, c)| c * v.clamp(0.0, 255.0)).sum();
        let gap = if at_zero < target - eps {
            target - eps - at_zero
        } else if at_zero > target + eps {
            target + eps - at_zero
        } else {
            return 0.0;
        };
        let way = gap.signum();
        // Along `way` the output grows by c^2 for each input within the range.
        self.turns.clear();
        let mut slope = 0.0;
        for (v, c) in pairs().filter(|(_, c)| *c != 0.0) {
            let c = c * way;
            let ends = [(0.0 - v) / c, (255.0 - v) / c];
            let (enters, leaves) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
            if leaves <= 0.0 {
                continue;
            }
            if enters <= 0.0 {
                slope += c * c;
            } else {
                self.turns.push((enters, c * c));
            }
            self.turns.push((leaves, -c * c));
        }
        self.turns.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let (mut at, mut left) = (0.0, gap.abs());
        for (turn, change) in &self.turns {
            let gain = slope * (turn - at);
            if gain >= left && slope > 1e-12 {
                return way * (at + left / slope);
            }
            left -= gain.max(0.0);
            at = *turn;
            slope += change;
        }
        // All inputs are at their limits: the target is out of reach.
        way * at
    }
}

#[cfg(test)]
mod tests {
    use super::super::compare::mse_per_pixel;
    use super::super::scaler::{Convention, Kernel};
    use super::*;
    use proptest::prelude::*;

    fn scaler(kernel: Kernel, convention: Convention) -> Scaler {
        Scaler { kernel, convention }
    }

    fn smooth(height: usize, width: usize, channels: usize, phase: f64) -> Picture {
        let values = (0..height * width * channels)
            .map(|i| {
                let (y, x, c) = (i / (width * channels), i / channels % width, i % channels);
                let wave = (x as f64 / 23.0 + phase).sin() * (y as f64 / 17.0 + c as f64).cos();
                (128.0 + 90.0 * wave) as u8
            })
            .collect();
        Picture::made(height, width, channels, values)
    }

    #[test]
    fn one_output_is_the_projection_by_hand() {
        // Bilinear of 8 to 2: output 0 is half of inputs 1 and 2. To bring it from 100 to 200 less 1 grey level, each
        // of them moves by 99.
        let weights = scaler(Kernel::Bilinear, Convention::Opencv)
            .weights(8, 2)
            .unwrap();
        let mut values = vec![100.0; 8];
        Dual::default().settle(&weights, &mut values, &[200.0, 100.5], 1.0);
        assert_eq!(
            values,
            [100.0, 199.0, 199.0, 100.0, 100.0, 100.0, 100.0, 100.0]
        );
        // One that meets its limit leaves the rest to the other: 250 goes to 255, so the other must be 149 x 2 - 255.
        let mut values = vec![0.0, 250.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        Dual::default().settle(&weights, &mut values, &[150.0, 0.0], 1.0);
        assert_eq!(&values[..3], [0.0, 255.0, 43.0]);
        // Out of reach: everything is at its limit.
        let mut values = vec![9.0; 8];
        Dual::default().settle(&weights, &mut values, &[400.0, -50.0], 1.0);
        assert_eq!(values, [9.0, 255.0, 255.0, 9.0, 9.0, 0.0, 0.0, 9.0]);
    }

    #[test]
    fn overlapping_outputs_are_met_with_the_least_change() {
        // Box of 5 to 2 in halves: inputs 0 1 and half of 2, half of 2 and 3 4. Both outputs up by 10: by symmetry d0 =
        // d1 = d3 = d4 = a, d2 = b with 0.8 a + 0.2 b = 10; least change puts d = 0.4 l, 0.4 l, 0.4 l: all 10.
        let weights = scaler(Kernel::Area, Convention::Opencv)
            .weights(5, 2)
            .unwrap();
        assert!(weights.overlap());
        let mut values = vec![100.0; 5];
        Dual::default().settle(&weights, &mut values, &[110.0, 110.0], 0.0);
        assert_eq!(values, [110.0; 5]);
        // Opposite ways: the shared input stays, the others carry 10 / 0.8.
        let mut values = vec![100.0; 5];
        Dual::default().settle(&weights, &mut values, &[110.0, 90.0], 0.0);
        for (found, expected) in values.iter().zip([112.5, 112.5, 100.0, 87.5, 87.5]) {
            assert!((found - expected).abs() <= 0.5 + 0.05, "{values:?}");
        }
    }

    #[test]
    fn attacks_come_out_as_the_hidden_picture() {
        for (kernel, convention) in [
            (Kernel::Nearest, Convention::Opencv),
            (Kernel::Nearest, Convention::Pillow),
            (Kernel::Bilinear, Convention::Opencv),
            (Kernel::Bilinear, Convention::Tensorflow1),
            (Kernel::Bicubic, Convention::Opencv),
            (Kernel::Bicubic, Convention::Tensorflow),
            (Kernel::Lanczos, Convention::Opencv),
            (Kernel::Area, Convention::Opencv),
            (Kernel::Bilinear, Convention::Pillow),
        ] {
            for (from, to) in [((90, 121), (20, 24)), ((60, 50), (24, 21))] {
                let source = smooth(from.0, from.1, 3, 0.0);
                let hidden = smooth(to.0, to.1, 1, 2.0);
                let found = forge(&source, &hidden, scaler(kernel, convention)).unwrap();
                let told = format!(
                    "{kernel:?} {convention:?} {to:?}: {} {}",
                    found.eps, found.error
                );
                assert!(
                    found.success && found.error <= 2.0 * f64::from(found.eps),
                    "{told}"
                );
                if convention != Convention::Pillow || kernel == Kernel::Nearest {
                    assert!(found.eps <= 2, "{told}");
                }
                let scaling = scaler(kernel, convention).between(from, to).unwrap();
                let seen = scaling.apply(&found.picture);
                let hidden = hidden.with_channels(3);
                assert!((mean_gap(&seen, &hidden) - found.error).abs() < 1e-12);
                let innocent = scaling.apply(&source);
                let (near, far) = (
                    mse_per_pixel(&seen, &hidden),
                    mse_per_pixel(&innocent, &hidden),
                );
                assert!(near < 0.5 * far, "{told}: {near} of {far}");
            }
        }
    }

    #[test]
    fn little_is_changed_without_anti_aliasing_and_much_with_it() {
        let source = smooth(240, 240, 1, 0.0);
        let hidden = smooth(40, 40, 1, 2.0);
        let of = |convention| {
            let scaler = scaler(Kernel::Bilinear, convention);
            let forged = forge(&source, &hidden, scaler).unwrap();
            let kept = (forged.picture.values().iter().zip(source.values()))
                .filter(|(a, b)| a == b)
                .count();
            (kept as f64 / source.values().len() as f64, forged)
        };
        let (kept, forged) = of(Convention::Opencv);
        // Of each 6 x 6 block only 2 x 2 pixels count.
        assert!(kept >= 32.0 / 36.0, "{kept}");
        assert_eq!(forged.eps, 1);
        let (kept, _) = of(Convention::Pillow);
        assert!(kept < 0.5, "{kept}");
    }

    #[test]
    fn sizes_that_hide_nothing_are_refused() {
        let picture = smooth(20, 20, 1, 0.0);
        let bilinear = scaler(Kernel::Bilinear, Convention::Opencv);
        for to in [(20, 10), (10, 20), (30, 30)] {
            assert!(forge(&picture, &smooth(to.0, to.1, 1, 0.0), bilinear).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn the_dual_finds_the_optimum(inputs in 8usize..24, outputs in 2usize..6, seed: u64) {
            let draw = |i: u64| (seed.wrapping_add(i).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 % 256.0;
            let weights = scaler(Kernel::Bilinear, Convention::Pillow).weights(inputs, outputs).unwrap();
            let start: Vec<f64> = (0..inputs as u64).map(draw).collect();
            // Targets that can be met: outputs of some other values.
            let other: Vec<f64> = (0..inputs as u64).map(|i| draw(i + 1000)).collect();
            let targets: Vec<f64> = (0..outputs).map(|k| meets(&weights, k, &other)).collect();
            let mut found = start.clone();
            Dual::default().settle(&weights, &mut found, &targets, 1.0);
            for (k, target) in targets.iter().enumerate() {
                // eps, rounding of the inputs, and what is left of the rounds.
                prop_assert!((meets(&weights, k, &found) - target).abs() <= 1.0 + 0.5 + 0.5, "{} {}", k, target);
            }
            let far = |x: &[f64]| x.iter().zip(&start).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
            prop_assert!(far(&found).sqrt() <= far(&other).sqrt() + 0.5 * (inputs as f64).sqrt() + 1.0);
        }
    }
}
