//! A small convolutional network for small pictures.

use super::through;
use crate::ops;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

/// Two rounds of 3 x 3 convolution, ReLU and 2 x 2 maximum, then a hidden layer and the classes.
#[derive(Module, Debug)]
pub struct SmallCnn {
    first: Conv2d,
    second: Conv2d,
    pool: MaxPool2d,
    hidden: Linear,
    head: Linear,
}

/// `layer` of [b, channels, height, width], with zeros around that keep height and width.
fn convolve(layer: &Conv2d, x: Tensor<4>) -> Tensor<4> {
    let bias = layer.bias.as_ref().map(|b| b.val());
    ops::conv2d(x, layer.weight.val(), bias, 1)
}

/// Numbers of the hidden layer.
const HIDDEN: usize = 128;

impl SmallCnn {
    /// For pictures of `channels` x `height` x `width`, of at least 4 x 4, and `classes` classes.
    pub fn new(
        channels: usize,
        height: usize,
        width: usize,
        classes: usize,
        device: &Device,
    ) -> Self {
        let conv = |from, to| {
            Conv2dConfig::new([from, to], [3, 3])
                .with_padding(PaddingConfig2d::Same)
                .init(device)
        };
        SmallCnn {
            first: conv(channels, 32),
            second: conv(32, 64),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            hidden: LinearConfig::new(64 * (height / 4) * (width / 4), HIDDEN).init(device),
            head: LinearConfig::new(HIDDEN, classes).init(device),
        }
    }

    /// [b, channels, height, width] to [b, 128].
    pub fn hidden(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(relu(convolve(&self.first, x)));
        let x = self.pool.forward(relu(convolve(&self.second, x)));
        relu(through(&self.hidden, x.flatten::<2>(1, 3)))
    }

    /// [b, channels, height, width] to [b, classes].
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        through(&self.head, self.hidden(x))
    }

    /// The last layer.
    pub fn head(&self) -> &Linear {
        &self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{device, seeded, values_of};
    use burn::tensor::TensorData;

    #[test]
    fn a_convolution_by_hand_and_the_shapes() {
        let device = device("cpu").unwrap();
        let model = seeded(&device, 1, |d| SmallCnn::new(1, 9, 8, 3, d)).valid();
        let x: Vec<f32> = (0..72).map(|i| ((i * 37) % 11) as f32 - 5.0).collect();
        let input = Tensor::<4>::from_data(TensorData::new(x.clone(), [1, 1, 9, 8]), &device);
        let out = values_of(convolve(&model.first, input.clone())).unwrap();
        let w = values_of(model.first.weight.val()).unwrap();
        let b = values_of(model.first.bias.as_ref().unwrap().val()).unwrap();
        // Channel 4 at row 2, column 0: the column to the left is zeros.
        let mut want = b[4];
        for i in 0..3 {
            for j in 1..3 {
                want += w[4 * 9 + i * 3 + j] * x[(1 + i) * 8 + j - 1];
            }
        }
        let got = out[4 * 72 + 2 * 8];
        assert!((got - want).abs() < 1e-5, "{got} {want}");
        assert_eq!(model.hidden(input.clone()).dims(), [1, 128]);
        assert_eq!(model.forward(input).dims(), [1, 3]);
    }
}
