//! ResNet-18 in its form for pictures of 32 x 32, the network of the paper's trials.
//!
//! He, Zhang, Ren, Sun, *Deep Residual Learning for Image Recognition*, CVPR 2016, arXiv 1512.03385, with a first
//! convolution of 3 x 3 and no pooling after it, as is usual for small pictures.
//!
//! 1. 3 x 3 convolution to `width` channels, normalisation over the batch, ReLU.
//! 2. Four stages of two blocks, with 1, 2, 4 and 8 times `width` channels; the last three halve the sides. A block is
//!    relu(bn(conv(relu(bn(conv(x))))) + x), with a 1 x 1 convolution and normalisation of x where its shape changes.
//! 3. The mean over the picture, and a linear layer.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

/// ResNet-18 for small pictures.
#[derive(Module, Debug)]
pub struct ResNet18 {
    first: Normed,
    blocks: Vec<Block>,
    head: Linear,
}

/// A convolution without offsets, and normalisation over the batch.
#[derive(Module, Debug)]
struct Normed {
    conv: Conv2d,
    norm: BatchNorm,
}

#[derive(Module, Debug)]
struct Block {
    first: Normed,
    second: Normed,
    shortcut: Option<Normed>,
}

/// Channels of the first stage.
pub const WIDTH: usize = 64;

impl Normed {
    /// An odd kernel; the sides are divided by `stride`, rounded up.
    fn new(from: usize, to: usize, kernel: usize, stride: usize, device: &Device) -> Normed {
        let border = kernel / 2;
        Normed {
            conv: Conv2dConfig::new([from, to], [kernel, kernel])
                .with_stride([stride, stride])
                .with_padding(PaddingConfig2d::Explicit(border, border, border, border))
                .with_bias(false)
                .init(device),
            norm: BatchNormConfig::new(to).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x))
    }
}

impl Block {
    fn new(from: usize, to: usize, stride: usize, device: &Device) -> Block {
        Block {
            first: Normed::new(from, to, 3, stride, device),
            second: Normed::new(to, to, 3, 1, device),
            shortcut: (stride != 1 || from != to).then(|| Normed::new(from, to, 1, stride, device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let inner = relu(self.first.forward(x.clone()));
        let around = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        relu(self.second.forward(inner) + around)
    }
}

impl ResNet18 {
    /// For pictures of `channels` colours; `width` is [`WIDTH`] in the paper.
    pub fn new(channels: usize, classes: usize, width: usize, device: &Device) -> ResNet18 {
        let mut blocks = Vec::with_capacity(8);
        let mut from = width;
        for stage in 0..4 {
            let to = width << stage;
            blocks.push(Block::new(from, to, if stage == 0 { 1 } else { 2 }, device));
            blocks.push(Block::new(to, to, 1, device));
            from = to;
        }
        ResNet18 {
            first: Normed::new(channels, width, 3, 1, device),
            blocks,
            head: LinearConfig::new(from, classes).init(device),
        }
    }

    /// What the last layer gets: [b, channels, side, side] to [b, 8 width].
    pub fn hidden(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.first.forward(x));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        x.flatten::<3>(2, 3).mean_dim(2).squeeze_dim::<2>(2)
    }

    /// The last layer.
    pub fn head(&self) -> &Linear {
        &self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;
    use papertrial_nn::{device, seeded, values_of};

    fn pictures(n: usize, side: usize, device: &Device) -> Tensor<4> {
        let values: Vec<f32> = (0..n * side * side)
            .map(|i| ((i * 37) % 11) as f32 / 5.0 - 1.0)
            .collect();
        Tensor::from_data(TensorData::new(values, [n, 1, side, side]), device)
    }

    #[test]
    fn it_has_the_weights_and_the_shapes_of_a_resnet_18() {
        let device = device("cpu").unwrap();
        let net = seeded(&device, 0, |d| ResNet18::new(1, 3, 2, d));
        let conv = |from: usize, to: usize, kernel: usize| from * to * kernel + 2 * to;
        let count = |channels, classes, width: usize| {
            let mut count = conv(channels, width, 9) + 4 * conv(width, width, 9);
            for to in [2 * width, 4 * width, 8 * width] {
                count += conv(to / 2, to, 9) + 3 * conv(to, to, 9) + conv(to / 2, to, 1);
            }
            count + 8 * width * classes + classes
        };
        // The number that is known of the network for CIFAR-10.
        assert_eq!(count(3, 10, WIDTH), 11_173_962);
        // And the means and variances that normalisation keeps of each of its channels.
        let kept = 2 * 5 * (2 + 4 + 8 + 16);
        assert_eq!(net.num_params(), count(1, 3, 2) + kept);
        let hidden = net.valid().hidden(pictures(3, 9, &device));
        assert_eq!(hidden.dims(), [3, 16]);
    }

    #[test]
    fn a_block_that_adds_nothing_is_the_relu_of_its_input() {
        let device = device("cpu").unwrap();
        let mut block = seeded(&device, 0, |d| Block::new(1, 1, 1, d)).valid();
        assert!(block.shortcut.is_none());
        block.second.norm.gamma = block.second.norm.gamma.map(|g| g * 0.0);
        let x = pictures(1, 5, &device);
        let want: Vec<f32> = values_of(x.clone())
            .unwrap()
            .iter()
            .map(|v| v.max(0.0))
            .collect();
        assert_eq!(values_of(block.forward(x)).unwrap(), want);
    }
}
