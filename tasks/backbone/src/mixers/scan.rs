//! The scan h_i = a_i h_{i-1} + b_i as one operation, with its backward pass.
//!
//! On the CPU, in single precision, it goes through the positions once, all channels side by side, rows in threads. On
//! any other device it is made of Burn's own operations, by doubling: after k rounds b_i holds what the last 2^k
//! positions left, and a_i the product of their factors. Neither divides by a factor; where a product underflows to 0,
//! nothing is left of that past.
//!
//! The gradient of b is d_i = g_i + a_{i+1} d_{i+1}, a scan from the end; that of a_i is d_i h_{i-1}.
//!
//! Cost: O(b l c) on the CPU, O(b l c log l) by doubling.

use super::neural::shifted;
use burn::backend::Dispatch;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Tensor, TensorData};
use papertrial_nn::ops::opened;
use rayon::prelude::*;

/// h_i = a_i h_{i-1} + b_i from 0, for all i: [b, l, c] both.
pub fn scan(a: Tensor<3>, b: Tensor<3>) -> Tensor<3> {
    match (opened(a), opened(b)) {
        ((a, true), (b, true)) => Tensor::from_dispatch(Dispatch::linear_scan(a, b)),
        ((a, _), (b, _)) => by_doubling(Tensor::from_dispatch(a), Tensor::from_dispatch(b)),
    }
}

fn by_doubling(mut a: Tensor<3>, mut b: Tensor<3>) -> Tensor<3> {
    let l = b.dims()[1];
    let mut reach = 1;
    while reach < l {
        b = b.clone() + a.clone() * shifted(b, reach);
        if 2 * reach < l {
            a = a.clone() * shifted(a, reach);
        }
        reach *= 2;
    }
    b
}

/// A tensor of the CPU backend.
type Values = FloatTensor<Flex>;

#[backend_extension(Flex, Autodiff)]
trait LinearScan: Backend {
    fn linear_scan(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl LinearScan for Flex {
    fn linear_scan(a: Values, b: Values) -> Values {
        let (shape, [row, channels]) = sizes(&b);
        let (a, b) = (a.to_contiguous(), b.to_contiguous());
        let a = a.as_slice::<f32>().unwrap_or(&[]);
        let mut h = b.as_slice::<f32>().unwrap_or(&[]).to_vec();
        let work = |(h, a): (&mut [f32], &[f32])| {
            for i in (channels..row).step_by(channels) {
                let (before, now) = h.split_at_mut(i);
                let before = &before[i - channels..];
                let a = &a[i..i + channels];
                for ((h, before), a) in now.iter_mut().zip(before).zip(a) {
                    *h += a * before;
                }
            }
        };
        h.par_chunks_mut(row).zip(a.par_chunks(row)).for_each(work);
        Values::from_data(TensorData::new(h, shape))
    }
}

/// The shape; numbers of a row, [l, c], and c, at least 1 each.
fn sizes(x: &Values) -> (Vec<usize>, [usize; 2]) {
    let shape = x.shape().to_vec();
    let channels = shape[2].max(1);
    (shape.clone(), [(shape[1] * channels).max(1), channels])
}

/// The backward step; its parents are a and b, what is kept are a and h.
#[derive(Debug)]
struct ScanStep;

impl Backward<Flex, 2> for ScanStep {
    type State = (Values, Values);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let (a, h) = ops.state;
        let (shape, [row, channels]) = sizes(&h);
        let a = a.to_contiguous();
        let (a, h) = (
            a.as_slice::<f32>().unwrap_or(&[]),
            h.as_slice::<f32>().unwrap_or(&[]),
        );
        let mut of_b = gradient.as_slice::<f32>().unwrap_or(&[]).to_vec();
        let mut of_a = vec![0.0f32; of_b.len()];
        of_b.par_chunks_mut(row)
            .zip(of_a.par_chunks_mut(row))
            .zip(a.par_chunks(row).zip(h.par_chunks(row)))
            .for_each(|((of_b, of_a), (a, h))| {
                for i in (channels..row).step_by(channels).rev() {
                    let (before, now) = of_b.split_at_mut(i);
                    let before = &mut before[i - channels..];
                    let a = &a[i..i + channels];
                    let (h, of_a) = (&h[i - channels..i], &mut of_a[i..i + channels]);
                    let now = now[..channels].iter();
                    for ((((d, before), a), h), of_a) in now.zip(before).zip(a).zip(h).zip(of_a) {
                        *before += a * d;
                        *of_a = d * h;
                    }
                }
            });
        let values = |values: Vec<f32>| Values::from_data(TensorData::new(values, shape.clone()));
        let [to_a, to_b] = ops.parents;
        if let Some(to_a) = to_a {
            gradients.register::<Flex>(to_a.id, values(of_a));
        }
        if let Some(to_b) = to_b {
            gradients.register::<Flex>(to_b.id, values(of_b));
        }
    }
}

impl<C: CheckpointStrategy> LinearScan for Autodiff<Flex, C> {
    fn linear_scan(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((a, to_a), (b, to_b)) = (a.into_parts(), b.into_parts());
        match ScanStep
            .prepare::<C>([to_a, to_b])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let h = Flex::linear_scan(a.clone(), b);
                prep.finish((a, h.clone()), h)
            }
            OpsKind::UnTracked(prep) => prep.finish(Flex::linear_scan(a, b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixers::maps::random;
    use papertrial_nn::{device, values_of};
    use papertrial_numerics::sampling::rng;

    fn tensor(seed: u64, shape: [usize; 3]) -> Tensor<3> {
        let [b, l, c] = shape;
        let values = random::<f32>(b * l, c, &mut rng(seed, "scan"));
        let device = device("cpu").unwrap().autodiff();
        let data = TensorData::new(values.iter().copied().collect::<Vec<f32>>(), shape);
        Tensor::<3>::from_data(data, &device).require_grad()
    }

    /// Values and both gradients of a weighted sum, against those that Burn derives from the doubling.
    #[test]
    fn values_and_gradients_are_those_of_doubling() {
        for shape in [[2, 7, 3], [1, 1, 2], [3, 2, 1], [2, 9, 40], [1, 0, 2]] {
            let (a, b, w) = (tensor(1, shape), tensor(2, shape), tensor(3, shape));
            let of = |scan: fn(Tensor<3>, Tensor<3>) -> Tensor<3>| {
                let (a, b) = (a.clone(), b.clone());
                let h = scan(a.clone(), b.clone());
                let gradients = (h.clone() * w.clone()).sum().backward();
                let values = |t: Option<Tensor<3>>| values_of(t.unwrap()).unwrap();
                (
                    values_of(h).unwrap(),
                    values(
                        a.grad(&gradients)
                            .or_else(|| Some(a.clone().inner().zeros_like())),
                    ),
                    values(b.grad(&gradients)),
                )
            };
            let (got, want) = (of(scan), of(by_doubling));
            for (got, want) in [(&got.0, &want.0), (&got.1, &want.1), (&got.2, &want.2)] {
                assert_eq!(got.len(), want.len());
                for (g, w) in got.iter().zip(want) {
                    assert!((g - w).abs() < 1e-5, "{shape:?}: {g} {w}");
                }
            }
        }
    }

    #[test]
    fn a_scan_by_hand() {
        let device = device("cpu").unwrap();
        let of = |values: [f32; 3]| {
            Tensor::<3>::from_data(TensorData::new(values.to_vec(), [1, 3, 1]), &device)
        };
        let h = scan(of([9.0, 0.5, 2.0]), of([1.0, 1.0, -1.0]));
        assert_eq!(values_of(h).unwrap(), [1.0, 1.5, 2.0]);
    }
}
