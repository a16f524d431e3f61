//! The operations as Burn's backends see them: on the CPU, and with gradients on the CPU.

use super::blocks::{Kernel, Values, transform};
use super::conv::{ConvStep, conv};
use super::kernels::{
    Gelu, GeluBack, LayerNorm, LayerNormBack, LogSoftmax, LogSoftmaxBack, Sigmoid, SigmoidBack,
    Silu, SiluBack, Softmax, SoftmaxBack, Tanh, TanhBack,
};
use super::linear::{LinearStep, linear};
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn::tensor::TensorData;
use std::fmt::Debug;

/// Operations that work on `f32` tensors of the CPU, and panic on any other.
#[backend_extension(Flex, Autodiff)]
pub(super) trait Operations: Backend {
    fn fast_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fast_tanh(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fast_sigmoid(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fast_silu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fast_softmax(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fast_log_softmax(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fast_scale_norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self>;
    fn fast_layer_norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self>;
    fn fast_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
    fn fast_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        padding: usize,
    ) -> FloatTensor<Self>;
}

fn width(x: &Values) -> usize {
    x.shape().last().copied().unwrap_or(1)
}

fn new<K: Kernel>(kernel: K, x: Values) -> Values {
    let width = width(&x);
    transform(&kernel, x, None, width).0
}

fn layer_norm(x: Values, gain: &Values, bias: Option<&Values>, epsilon: f64) -> Values {
    let width = width(&x);
    let (gain, bias) = (gain.to_contiguous(), bias.map(|b| b.to_contiguous()));
    let kernel = LayerNorm {
        gain: gain.as_slice().unwrap_or(&[]),
        bias: bias.as_ref().and_then(|b| b.as_slice()).unwrap_or(&[]),
        epsilon: epsilon as f32,
    };
    transform(&kernel, x, None, width).0
}

impl Operations for Flex {
    fn fast_gelu(x: Values) -> Values {
        new(Gelu, x)
    }
    fn fast_tanh(x: Values) -> Values {
        new(Tanh, x)
    }
    fn fast_sigmoid(x: Values) -> Values {
        new(Sigmoid, x)
    }
    fn fast_silu(x: Values) -> Values {
        new(Silu, x)
    }
    fn fast_softmax(x: Values) -> Values {
        let width = width(&x);
        new(Softmax(width), x)
    }
    fn fast_log_softmax(x: Values) -> Values {
        let width = width(&x);
        new(LogSoftmax(width), x)
    }
    fn fast_scale_norm(x: Values, gain: Values, epsilon: f64) -> Values {
        layer_norm(x, &gain, None, epsilon)
    }
    fn fast_layer_norm(x: Values, gain: Values, bias: Values, epsilon: f64) -> Values {
        layer_norm(x, &gain, Some(&bias), epsilon)
    }
    fn fast_linear(x: Values, weight: Values, bias: Values) -> Values {
        linear(&x, &weight, &bias)
    }
    fn fast_conv(x: Values, weight: Values, bias: Values, padding: usize) -> Values {
        conv(&x, &weight, &bias, padding)
    }
}

/// A step of the backward pass that turns the gradient of the result into that of x, given what was kept: x or the
/// result.
#[derive(Debug)]
struct Step<K>(fn(usize) -> K);

impl<K: Kernel + Debug + 'static> Backward<Flex, 1> for Step<K> {
    type State = Values;

    fn backward(self, ops: Ops<Values, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let [x] = ops.parents;
        if let Some(x) = x {
            let width = width(&gradient);
            let gradient = transform(&(self.0)(width), gradient, Some(&ops.state), width).0;
            gradients.register::<Flex>(x.id, gradient);
        }
    }
}

/// What the backward step needs besides the gradient.
enum Keep {
    Input,
    Output,
}

/// `forward` with `back` as its backward step.
fn tracked<C: CheckpointStrategy, K: Kernel + Debug + 'static>(
    x: FloatTensor<Autodiff<Flex, C>>,
    forward: fn(Values) -> Values,
    keep: Keep,
    back: fn(usize) -> K,
) -> FloatTensor<Autodiff<Flex, C>> {
    let (x, node) = x.into_parts();
    match Step(back).prepare::<C>([node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => match keep {
            Keep::Input => prep.finish(x.clone(), forward(x)),
            Keep::Output => {
                let y = forward(x);
                prep.finish(y.clone(), y)
            }
        },
        OpsKind::UnTracked(prep) => prep.finish(forward(x)),
    }
}

/// The backward step of layer normalisation; its parents are x, gain and, if there is one, bias.
#[derive(Debug)]
struct LayerNormStep {
    epsilon: f64,
}

impl<const N: usize> Backward<Flex, N> for LayerNormStep {
    /// x and gain.
    type State = (Values, Values);

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let (x, gain) = ops.state;
        let gain = gain.to_contiguous();
        let kernel = LayerNormBack {
            gain: gain.as_slice().unwrap_or(&[]),
            epsilon: self.epsilon as f32,
        };
        let width = width(&gradient);
        let (gradient, sums) = transform(&kernel, gradient, Some(&x), width);
        let mut of_parameters = vec![0.0f64; 2 * width];
        for block in sums {
            for (total, sum) in of_parameters.iter_mut().zip(block) {
                *total += f64::from(sum);
            }
        }
        let mut parents = ops.parents.into_iter();
        if let Some(x) = parents.next().flatten() {
            gradients.register::<Flex>(x.id, gradient);
        }
        for (parameter, total) in parents.zip(of_parameters.chunks(width.max(1))) {
            if let Some(parameter) = parameter {
                let values: Vec<f32> = total.iter().map(|&t| t as f32).collect();
                gradients.register::<Flex>(
                    parameter.id,
                    Values::from_data(TensorData::new(values, [width])),
                );
            }
        }
    }
}

impl<C: CheckpointStrategy> Operations for Autodiff<Flex, C> {
    fn fast_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<C, _>(x, Flex::fast_gelu, Keep::Input, |_| GeluBack)
    }
    fn fast_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<C, _>(x, Flex::fast_tanh, Keep::Output, |_| TanhBack)
    }
    fn fast_sigmoid(x: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<C, _>(x, Flex::fast_sigmoid, Keep::Output, |_| SigmoidBack)
    }
    fn fast_silu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<C, _>(x, Flex::fast_silu, Keep::Input, |_| SiluBack)
    }
    fn fast_softmax(x: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<C, _>(x, Flex::fast_softmax, Keep::Output, SoftmaxBack)
    }
    fn fast_log_softmax(x: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<C, _>(x, Flex::fast_log_softmax, Keep::Output, LogSoftmaxBack)
    }
    fn fast_scale_norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (gain, gain_node)) = (x.into_parts(), gain.into_parts());
        let step = LayerNormStep { epsilon };
        match step
            .prepare::<C>([x_node, gain_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let y = layer_norm(x.clone(), &gain, None, epsilon);
                prep.finish((x, gain), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(layer_norm(x, &gain, None, epsilon)),
        }
    }
    fn fast_layer_norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (gain, gain_node)) = (x.into_parts(), gain.into_parts());
        let (bias, bias_node) = bias.into_parts();
        let step = LayerNormStep { epsilon };
        match step
            .prepare::<C>([x_node, gain_node, bias_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let y = layer_norm(x.clone(), &gain, Some(&bias), epsilon);
                prep.finish((x, gain), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(layer_norm(x, &gain, Some(&bias), epsilon)),
        }
    }
    fn fast_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let (bias, bias_node) = bias.into_parts();
        let y = linear(&x, &weight, &bias);
        match LinearStep
            .prepare::<C>([x_node, weight_node, bias_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((x, weight), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
    fn fast_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        padding: usize,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (weight, weight_node)) = (x.into_parts(), weight.into_parts());
        let (bias, bias_node) = bias.into_parts();
        let y = conv(&x, &weight, &bias, padding);
        let step = ConvStep { padding };
        match step
            .prepare::<C>([x_node, weight_node, bias_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish((x, weight), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}
