//! Weighted sums of the last dimension, and their backward pass.

use super::blocks::Values;
use super::products::{column_sums, product, rows_of, weight_gradient};
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::TensorData;

/// The values in order, copied only if they are not.
pub(super) fn in_order(x: &Values) -> Values {
    if x.is_contiguous() {
        x.clone()
    } else {
        x.to_contiguous()
    }
}

/// The values of a tensor in order.
pub(super) fn slice(x: &Values) -> &[f32] {
    x.as_slice().unwrap_or(&[])
}

/// A tensor of these values.
pub(super) fn tensor(values: Vec<f32>, shape: &[usize]) -> Values {
    Values::from_data(TensorData::new(values, shape.to_vec()))
}

fn last(x: &Values) -> usize {
    x.shape().last().copied().unwrap_or(1)
}

/// `x` [.., k] times `weight` [k, n], plus `bias` [n]: [.., n].
pub(super) fn linear(x: &Values, weight: &Values, bias: &Values) -> Values {
    let (x, weight, bias) = (in_order(x), in_order(weight), in_order(bias));
    let (k, n) = (last(&x), last(&weight));
    let values = product(
        rows_of(slice(&x), k),
        rows_of(slice(&weight), n),
        slice(&bias),
    );
    let mut shape = x.shape().to_vec();
    if let Some(width) = shape.last_mut() {
        *width = n;
    }
    tensor(values, &shape)
}

/// The backward step of [`linear`]; its parents are x, weight and bias.
#[derive(Debug)]
pub(super) struct LinearStep;

impl Backward<Flex, 3> for LinearStep {
    /// x and weight.
    type State = (Values, Values);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = in_order(&gradients.consume::<Flex>(&ops.node));
        let (x, weight) = ops.state;
        let (x, weight) = (in_order(&x), in_order(&weight));
        let (k, n) = (last(&x), last(&weight));
        let g = rows_of(slice(&gradient), n);
        let [of_x, of_weight, of_bias] = ops.parents;
        if let Some(node) = of_x {
            let values = product(g, rows_of(slice(&weight), n).transpose(), &[]);
            gradients.register::<Flex>(node.id, tensor(values, &x.shape().to_vec()));
        }
        if let Some(node) = of_weight {
            let values = weight_gradient(rows_of(slice(&x), k), g);
            gradients.register::<Flex>(node.id, tensor(values, &[k, n]));
        }
        if let Some(node) = of_bias {
            let values = column_sums(slice(&gradient), n);
            gradients.register::<Flex>(node.id, tensor(values, &[n]));
        }
    }
}
