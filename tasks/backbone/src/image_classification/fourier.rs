//! How much high frequency a map carries: the relative log amplitude of its two-dimensional Fourier transform.

use super::frame::Net;
use super::mixers::Mixer;
use burn::tensor::Tensor;
use papertrial_core::Result;
use papertrial_nn::values_of;
use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

/// A block's paths: relative log amplitude of each, at half the sampling frequency against frequency 0. Below 0
/// where high frequencies are weaker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockFrequencies {
    /// Block, over all stages.
    pub block: usize,
    /// Convolution.
    pub convolution: Option<f64>,
    /// Maximum pooling.
    pub pooling: Option<f64>,
    /// Attention.
    pub attention: f64,
}

/// Relative log amplitude by radius of maps [n, h, w, c]: for each whole radius r in steps of the lowest frequency, up
/// to half the sampling frequency of the shorter side, the mean of log amplitude over maps, channels and frequencies
/// that round to r, minus that at radius 0.
pub fn relative_log_amplitude(values: &[f32], [n, h, w, c]: [usize; 4]) -> Vec<f64> {
    let mut planner = FftPlanner::<f64>::new();
    let (along, across) = (planner.plan_fft_forward(w), planner.plan_fft_forward(h));
    let last = h.min(w) / 2;
    let (mut sums, mut counts) = (vec![0.0; last + 1], vec![0usize; last + 1]);
    let mut map = vec![Complex::new(0.0, 0.0); h * w];
    let mut column = vec![Complex::new(0.0, 0.0); h];
    for picture in 0..n {
        for channel in 0..c {
            for (p, value) in map.iter_mut().enumerate() {
                *value = Complex::new(f64::from(values[(picture * h * w + p) * c + channel]), 0.0);
            }
            along.process(&mut map);
            for x in 0..w {
                for y in 0..h {
                    column[y] = map[y * w + x];
                }
                across.process(&mut column);
                for (y, value) in column.iter().enumerate() {
                    let of = |i: usize, n: usize| i.min(n - i) as f64 / n as f64;
                    let radius = of(y, h).hypot(of(x, w)) * h.min(w) as f64;
                    let ring = radius.round() as usize;
                    if ring <= last {
                        sums[ring] += (value.norm() + 1e-6).ln();
                        counts[ring] += 1;
                    }
                }
            }
        }
    }
    let means: Vec<f64> = sums
        .iter()
        .zip(&counts)
        .map(|(s, n)| s / (*n).max(1) as f64)
        .collect();
    means.iter().map(|m| m - means[0]).collect()
}

/// The paths of every inception block on pictures [b, h, w, colours].
///
/// # Errors
/// Pictures of a size that the network cannot take.
pub fn frequencies(net: &Net<Mixer>, pictures: Tensor<4>) -> Result<Vec<BlockFrequencies>> {
    let mut blocks = Vec::new();
    let mut number = 0;
    net.stages(pictures, |mixer, x| {
        if let Mixer::Inception(inception) = mixer {
            blocks.push((number, inception.paths(x.clone())));
        }
        number += 1;
    })?;
    let highest = |map: Tensor<4>| -> Result<f64> {
        let dims = map.dims();
        let by_radius = relative_log_amplitude(&values_of(map)?, dims);
        Ok(by_radius.last().copied().unwrap_or(0.0))
    };
    blocks
        .into_iter()
        .map(|(block, paths)| {
            Ok(BlockFrequencies {
                block,
                convolution: paths.convolution.map(highest).transpose()?,
                pooling: paths.pooling.map(highest).transpose()?,
                attention: highest(paths.attention)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_at_half_the_sampling_frequency_is_the_highest_radius() {
        // 1 + cos(pi x): amplitudes 16 at 0 and 16 at radius 2 (one of the frequencies that round to 2).
        let wave: Vec<f32> = (0..16)
            .map(|i| if i % 2 == 0 { 2.0 } else { 0.0 })
            .collect();
        let checked = relative_log_amplitude(&wave, [1, 4, 4, 1]);
        let flat = relative_log_amplitude(&[1.0; 16], [1, 4, 4, 1]);
        assert_eq!(checked.len(), 3);
        assert_eq!(checked[0], 0.0);
        assert!(checked[2] > flat[2] + 1.0, "{checked:?} {flat:?}");
        assert!((checked[1] - flat[1]).abs() < 1e-6);
        // An impulse has all frequencies alike.
        let mut impulse = [0.0f32; 25];
        impulse[7] = 3.0;
        assert!(
            relative_log_amplitude(&impulse, [1, 5, 5, 1])
                .iter()
                .all(|r| r.abs() < 1e-9)
        );
    }
}
