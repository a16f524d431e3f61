//! What blocks are made of: linear maps, convolutions as matrix products, norms, attention.

use super::maps;
use burn::module::{Initializer, Module, Param};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::{Device, Tensor};
use papertrial_nn::ops;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Weights are drawn from a normal distribution of this deviation. The reference codes cut it at +-2, a hundred
/// deviations away, which cuts nothing.
pub(super) fn normal() -> Initializer {
    Initializer::Normal {
        mean: 0.0,
        std: 0.02,
    }
}

/// A linear map of the channels, a 1 x 1 convolution.
#[derive(Module, Debug)]
pub struct Linear {
    /// [inputs, outputs].
    pub(super) weight: Param<Tensor<2>>,
    pub(super) bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// `inputs` to `outputs` channels.
    pub fn new(inputs: usize, outputs: usize, bias: bool, device: &Device) -> Self {
        Linear {
            weight: normal().init([inputs, outputs], device),
            bias: bias.then(|| Initializer::Zeros.init([outputs], device)),
        }
    }

    /// [.., inputs] to [.., outputs].
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::linear(
            x,
            self.weight.val(),
            self.bias.as_ref().map(|bias| bias.val()),
        )
    }

    /// Multiply-adds for `n` positions.
    pub(super) fn macs(&self, n: usize) -> u64 {
        let [inputs, outputs] = self.weight.shape().dims();
        (n * inputs * outputs) as u64
    }
}

/// A convolution over windows, as a matrix product of the values under them.
#[derive(Module, Debug)]
pub struct Conv {
    pub(super) linear: Linear,
    k: usize,
    stride: usize,
    padding: usize,
}

impl Conv {
    /// `inputs` to `outputs` channels by windows of `k` x `k`.
    pub fn new(
        [inputs, outputs]: [usize; 2],
        [k, stride, padding]: [usize; 3],
        bias: bool,
        device: &Device,
    ) -> Self {
        Conv {
            linear: Linear::new(k * k * inputs, outputs, bias, device),
            k,
            stride,
            padding,
        }
    }

    /// [b, h, w, inputs] to [b, h', w', outputs].
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.linear
            .forward(maps::windows(x, self.k, self.stride, self.padding))
    }

    /// Height or width after it.
    pub(super) fn after(&self, n: usize) -> usize {
        maps::after(n, self.k, self.stride, self.padding)
    }
}

/// Weights of a depthwise convolution.
pub(super) fn depthwise(k: usize, channels: usize, device: &Device) -> Param<Tensor<2>> {
    normal().init([k * k, channels], device)
}

/// What is normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NormKind {
    /// Mean and variance over channels and positions together, gain and bias by channel: group normalisation with
    /// one group, the paper's modified layer norm.
    Group,
    /// Mean and variance over the channels of each position.
    Layer,
    /// Mean and variance of each channel over positions and images.
    Batch,
    /// No normalisation.
    None,
}

/// Gain and bias by channel.
#[derive(Module, Debug)]
pub struct Affine {
    pub(super) weight: Param<Tensor<1>>,
    pub(super) bias: Param<Tensor<1>>,
    epsilon: f64,
    positions: bool,
}

/// A norm.
#[derive(Module, Debug)]
pub struct Norm {
    pub(super) affine: Option<Affine>,
    batch: Option<BatchNorm>,
}

impl Norm {
    /// For `channels` channels; `epsilon` is added to the variance.
    pub fn new(kind: NormKind, channels: usize, epsilon: f64, device: &Device) -> Self {
        let affine = matches!(kind, NormKind::Group | NormKind::Layer).then(|| Affine {
            weight: Initializer::Ones.init([channels], device),
            bias: Initializer::Zeros.init([channels], device),
            epsilon,
            positions: kind == NormKind::Group,
        });
        let batch = (kind == NormKind::Batch).then(|| BatchNormConfig::new(channels).init(device));
        Norm { affine, batch }
    }

    /// Running means and variances, which are not trained.
    pub(super) fn running(&self) -> usize {
        self.batch.as_ref().map_or(0, |b| 2 * b.gamma.shape()[0])
    }

    /// [b, h, w, c] to the same.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [b, h, w, c] = x.dims();
        if let Some(affine) = &self.affine {
            let (weight, bias) = (affine.weight.val(), affine.bias.val());
            if !affine.positions {
                return ops::layer_norm(x, weight, Some(bias), affine.epsilon);
            }
            // The same gain at every position.
            let spread = |v: Tensor<1>| v.unsqueeze::<2>().expand([h * w, c]).reshape([h * w * c]);
            let x = x.reshape([b, h * w * c]);
            return ops::layer_norm(x, spread(weight), Some(spread(bias)), affine.epsilon)
                .reshape([b, h, w, c]);
        }
        match &self.batch {
            Some(norm) => norm
                .forward(x.reshape([b * h * w, c]))
                .reshape([b, h, w, c]),
            None => x,
        }
    }
}

/// Softmax attention over positions: `joined`, [b, n, 3 c], holds queries, keys and values, each `heads` heads side
/// by side; gives [b, n, c].
pub(super) fn attend(joined: Tensor<3>, heads: usize) -> Tensor<3> {
    let [b, n, c3] = joined.dims();
    let (c, width) = (c3 / 3, c3 / 3 / heads);
    let part = |i: usize| {
        joined
            .clone()
            .narrow(2, i * c, c)
            .reshape([b, n, heads, width])
            .swap_dims(1, 2)
    };
    let query = part(0) * (1.0 / (width as f64).sqrt());
    let shares = ops::softmax(query.matmul(part(1).transpose()));
    shares.matmul(part(2)).swap_dims(1, 2).reshape([b, n, c])
}

/// A map of positions, [h w, c], brought to `to` by bilinear interpolation with the corners' pixels as areas (as
/// PyTorch's `interpolate` does without aligned corners).
pub(super) fn resized(map: Tensor<2>, from: [usize; 2], to: [usize; 2]) -> Tensor<2> {
    if from == to {
        return map;
    }
    let axis = |from: usize, to: usize, i: usize| {
        let at = ((i as f32 + 0.5) * from as f32 / to as f32 - 0.5).max(0.0);
        let low = (at as usize).min(from - 1);
        (low, (low + 1).min(from - 1), at - low as f32)
    };
    let mut weights = vec![0.0f32; to[0] * to[1] * from[0] * from[1]];
    for (n, row) in weights.chunks_exact_mut(from[0] * from[1]).enumerate() {
        let (y0, y1, fy) = axis(from[0], to[0], n / to[1]);
        let (x0, x1, fx) = axis(from[1], to[1], n % to[1]);
        for (y, a) in [(y0, 1.0 - fy), (y1, fy)] {
            for (x, b) in [(x0, 1.0 - fx), (x1, fx)] {
                row[y * from[1] + x] += a * b;
            }
        }
    }
    let rows: Vec<usize> = (0..to[0] * to[1]).collect();
    papertrial_nn::rows_of(&weights, from[0] * from[1], &rows, &map.device()).matmul(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, TensorData};
    use papertrial_nn::{device, values_of};

    #[test]
    fn group_and_layer_norm_differ_in_what_they_average_over() {
        let device = device("cpu").unwrap();
        let _held = papertrial_nn::hold(&device, 0);
        let x = Tensor::<4>::random([2, 3, 2, 4], Distribution::Normal(1.0, 2.0), &device);
        let group = Norm::new(NormKind::Group, 4, 1e-5, &device).forward(x.clone());
        let layer = Norm::new(NormKind::Layer, 4, 1e-5, &device).forward(x.clone());
        let values = values_of(group.clone()).unwrap();
        for image in values.chunks(24) {
            let mean: f32 = image.iter().sum::<f32>() / 24.0;
            let square: f32 = image.iter().map(|v| v * v).sum::<f32>() / 24.0;
            assert!(mean.abs() < 1e-5 && (square - 1.0).abs() < 1e-3);
        }
        for position in values_of(layer.clone()).unwrap().chunks(4) {
            assert!(position.iter().sum::<f32>().abs() < 1e-4);
        }
        let gap = (group - layer).abs().max().into_scalar::<f32>();
        assert!(gap > 0.1, "{gap}");
    }

    #[test]
    fn resizing_keeps_lines_and_halves_by_hand() {
        let device = device("cpu").unwrap();
        let map = Tensor::<2>::from_data(
            TensorData::new(vec![0.0f32, 1.0, 2.0, 3.0], [4, 1]),
            &device,
        );
        // Four pixels in a row to two: the middles of pairs.
        let half = values_of(resized(map.clone(), [1, 4], [1, 2])).unwrap();
        assert_eq!(half, [0.5, 2.5]);
        assert_eq!(
            values_of(resized(map, [1, 4], [1, 4])).unwrap(),
            [0.0, 1.0, 2.0, 3.0]
        );
    }

    #[test]
    fn attention_to_equal_keys_is_the_mean_of_values() {
        let device = device("cpu").unwrap();
        // One image, two positions, one head of one channel: query, key, value.
        let joined = Tensor::<3>::from_data(
            TensorData::new(vec![5.0f32, 2.0, 1.0, -3.0, 2.0, 4.0], [1, 2, 3]),
            &device,
        );
        assert_eq!(values_of(attend(joined, 1)).unwrap(), [2.5, 2.5]);
    }
}
