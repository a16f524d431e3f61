//! Operations over the positions of feature maps, [b, h, w, c], with their backward passes.
//!
//! Channels come last, so that every step works on whole rows of channels and a 1 x 1 convolution is a matrix
//! product. Burn's CPU backend has these operations for channels first only, on one core and much slower. Other
//! devices than the CPU get Burn's own operations. Images are worked on in parallel, each alone, and what is summed
//! over images is summed in their order: the number of threads changes no bit.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions, PadMode};
use burn::tensor::{Tensor, TensorData, module};
use papertrial_nn::ops::opened;
use rayon::prelude::*;

/// A tensor of the CPU backend.
type Values = FloatTensor<Flex>;

/// Operations on `f32` tensors of the CPU, [b, h, w, c].
#[backend_extension(Flex, Autodiff)]
pub(super) trait Maps: Backend {
    fn map_pool(x: FloatTensor<Self>, k: usize) -> FloatTensor<Self>;
    fn map_depthwise(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;
    fn map_highest(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn map_patches(
        x: FloatTensor<Self>,
        k: usize,
        stride: usize,
        padding: usize,
    ) -> FloatTensor<Self>;
}

/// Height, width and channels of one map.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Size {
    h: usize,
    w: usize,
    c: usize,
}

impl Size {
    fn of(x: &Values) -> Self {
        let shape = x.shape();
        Size {
            h: shape[1],
            w: shape[2],
            c: shape[3],
        }
    }
    fn len(self) -> usize {
        self.h * self.w * self.c
    }
    fn at(self, y: usize, x: usize) -> std::ops::Range<usize> {
        let from = (y * self.w + x) * self.c;
        from..from + self.c
    }
}

/// Values of a tensor and its shape, in row-major order.
fn opened_values<R>(x: &Values, of: impl FnOnce(&[f32]) -> R) -> R {
    let x = x.to_contiguous();
    of(x.as_slice::<f32>().unwrap_or(&[]))
}

/// `of` of each image: a new tensor with `to` for the size of an image.
fn per_image(x: &Values, to: Size, of: impl Fn(&[f32], &mut [f32]) + Sync) -> Values {
    let size = Size::of(x);
    let b = x.shape()[0];
    let mut values = vec![0.0f32; b * to.len()];
    opened_values(x, |from| {
        values
            .par_chunks_mut(to.len().max(1))
            .zip(from.par_chunks(size.len().max(1)))
            .for_each(|(to, from)| of(from, to));
    });
    Values::from_data(TensorData::new(values, [b, to.h, to.w, to.c]))
}

fn add(to: &mut [f32], from: &[f32]) {
    for (t, f) in to.iter_mut().zip(from) {
        *t += f;
    }
}

/// Positions from `i` that a window of `k` around it covers within `n`.
fn window(i: usize, k: usize, n: usize) -> std::ops::Range<usize> {
    i.saturating_sub(k / 2)..(i + k / 2 + 1).min(n)
}

/// Sum over the window around each position, first along the width, then along the height.
fn box_sum(from: &[f32], to: &mut [f32], k: usize, size: Size) {
    let mut along = vec![0.0f32; size.len()];
    for y in 0..size.h {
        for x in 0..size.w {
            for i in window(x, k, size.w) {
                add(&mut along[size.at(y, x)], &from[size.at(y, i)]);
            }
        }
    }
    let row = size.w * size.c;
    for y in 0..size.h {
        for i in window(y, k, size.h) {
            add(
                &mut to[y * row..(y + 1) * row],
                &along[i * row..(i + 1) * row],
            );
        }
    }
}

/// One over the number of positions in the window around each, padding not counted.
fn shares(k: usize, size: Size) -> Vec<f32> {
    (0..size.h * size.w)
        .map(|i| {
            let n = window(i / size.w, k, size.h).len() * window(i % size.w, k, size.w).len();
            1.0 / n as f32
        })
        .collect()
}

fn pool(x: &Values, k: usize) -> Values {
    let size = Size::of(x);
    let shares = shares(k, size);
    per_image(x, size, |from, to| {
        box_sum(from, to, k, size);
        for ((to, from), share) in to
            .chunks_exact_mut(size.c)
            .zip(from.chunks_exact(size.c))
            .zip(&shares)
        {
            for (t, f) in to.iter_mut().zip(from) {
                *t = *t * share - f;
            }
        }
    })
}

/// The transpose of [`pool`], which is linear.
fn pool_back(gradient: &Values, k: usize) -> Values {
    let size = Size::of(gradient);
    let shares = shares(k, size);
    per_image(gradient, size, |from, to| {
        let mut shared = from.to_vec();
        for (g, share) in shared.chunks_exact_mut(size.c).zip(&shares) {
            g.iter_mut().for_each(|g| *g *= share);
        }
        box_sum(&shared, to, k, size);
        for (t, f) in to.iter_mut().zip(from) {
            *t -= f;
        }
    })
}

/// Calls `of(output position, input position, number of the weight)` for all pairs within a k x k window.
fn pairs(
    size: Size,
    k: usize,
    mut of: impl FnMut(std::ops::Range<usize>, std::ops::Range<usize>, usize),
) {
    for y in 0..size.h {
        for x in 0..size.w {
            for i in window(y, k, size.h) {
                for j in window(x, k, size.w) {
                    let weight = (i + k / 2 - y) * k + (j + k / 2 - x);
                    of(size.at(y, x), size.at(i, j), weight);
                }
            }
        }
    }
}

fn kernel_size(weight: &Values) -> usize {
    let n = weight.shape()[0];
    (1..=n).find(|k| k * k >= n).unwrap_or(1)
}

fn depthwise(x: &Values, weight: &Values) -> Values {
    let size = Size::of(x);
    let k = kernel_size(weight);
    opened_values(weight, |weight| {
        per_image(x, size, |from, to| {
            pairs(size, k, |at, of, n| {
                let weight = &weight[n * size.c..(n + 1) * size.c];
                for ((t, f), w) in to[at].iter_mut().zip(&from[of]).zip(weight) {
                    *t += f * w;
                }
            });
        })
    })
}

/// Gradients of x and of the weight.
fn depthwise_back(x: &Values, weight: &Values, gradient: &Values) -> (Values, Values) {
    let size = Size::of(x);
    let k = kernel_size(weight);
    let of_x = opened_values(weight, |weight| {
        per_image(gradient, size, |from, to| {
            pairs(size, k, |at, of, n| {
                let weight = &weight[n * size.c..(n + 1) * size.c];
                for ((t, f), w) in to[of].iter_mut().zip(&from[at]).zip(weight) {
                    *t += f * w;
                }
            });
        })
    });
    let sums: Vec<Vec<f32>> = opened_values(x, |x| {
        opened_values(gradient, |gradient| {
            x.par_chunks(size.len().max(1))
                .zip(gradient.par_chunks(size.len().max(1)))
                .map(|(x, gradient)| {
                    let mut sum = vec![0.0f32; k * k * size.c];
                    pairs(size, k, |at, of, n| {
                        let sum = &mut sum[n * size.c..(n + 1) * size.c];
                        for ((s, g), x) in sum.iter_mut().zip(&gradient[at]).zip(&x[of]) {
                            *s += g * x;
                        }
                    });
                    sum
                })
                .collect()
        })
    });
    let mut total = vec![0.0f32; k * k * size.c];
    for sum in &sums {
        add(&mut total, sum);
    }
    (
        of_x,
        Values::from_data(TensorData::new(total, [k * k, size.c])),
    )
}

fn highest(x: &Values) -> Values {
    let size = Size::of(x);
    per_image(x, size, |from, to| {
        to.fill(f32::NEG_INFINITY);
        pairs(size, 3, |at, of, _| {
            for (t, f) in to[at].iter_mut().zip(&from[of]) {
                *t = t.max(*f);
            }
        });
    })
}

/// The gradient goes to the first of the highest values of each window.
fn highest_back(x: &Values, gradient: &Values) -> Values {
    let size = Size::of(x);
    let b = x.shape()[0];
    let mut values = vec![0.0f32; b * size.len()];
    opened_values(x, |x| {
        opened_values(gradient, |gradient| {
            values
                .par_chunks_mut(size.len().max(1))
                .zip(x.par_chunks(size.len().max(1)))
                .zip(gradient.par_chunks(size.len().max(1)))
                .for_each(|((to, x), gradient)| {
                    let mut best = vec![f32::NEG_INFINITY; size.c];
                    let mut place = vec![0usize; size.c];
                    for y in 0..size.h {
                        for col in 0..size.w {
                            best.fill(f32::NEG_INFINITY);
                            for i in window(y, 3, size.h) {
                                for j in window(col, 3, size.w) {
                                    let from = size.at(i, j);
                                    let start = from.start;
                                    for (c, v) in x[from].iter().enumerate() {
                                        if *v > best[c] {
                                            best[c] = *v;
                                            place[c] = start + c;
                                        }
                                    }
                                }
                            }
                            for (g, place) in gradient[size.at(y, col)].iter().zip(&place) {
                                to[*place] += g;
                            }
                        }
                    }
                });
        });
    });
    Values::from_data(TensorData::new(values, [b, size.h, size.w, size.c]))
}

/// Where the patches of a convolution lie.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Patches {
    k: usize,
    stride: usize,
    padding: usize,
}

impl Patches {
    fn out(self, n: usize) -> usize {
        (n + 2 * self.padding).saturating_sub(self.k) / self.stride + 1
    }

    /// Calls `of(place among the patches' values, place in the image)` for each row of channels.
    fn each(self, size: Size, mut of: impl FnMut(usize, std::ops::Range<usize>)) {
        let (rows, columns) = (self.out(size.h), self.out(size.w));
        let mut place = 0;
        for y in 0..rows {
            for x in 0..columns {
                for i in 0..self.k {
                    for j in 0..self.k {
                        let inside =
                            |at: usize, n: usize| at.checked_sub(self.padding).filter(|at| *at < n);
                        if let (Some(i), Some(j)) = (
                            inside(y * self.stride + i, size.h),
                            inside(x * self.stride + j, size.w),
                        ) {
                            of(place, size.at(i, j));
                        }
                        place += size.c;
                    }
                }
            }
        }
    }
}

fn patches(x: &Values, at: Patches) -> Values {
    let size = Size::of(x);
    let to = Size {
        h: at.out(size.h),
        w: at.out(size.w),
        c: at.k * at.k * size.c,
    };
    per_image(x, to, |from, to| {
        at.each(size, |place, of| {
            to[place..place + size.c].copy_from_slice(&from[of]);
        });
    })
}

fn patches_back(gradient: &Values, size: Size, at: Patches) -> Values {
    per_image(gradient, size, |from, to| {
        at.each(size, |place, of| {
            add(&mut to[of], &from[place..place + size.c]);
        });
    })
}

impl Maps for Flex {
    fn map_pool(x: Values, k: usize) -> Values {
        pool(&x, k)
    }
    fn map_depthwise(x: Values, weight: Values) -> Values {
        depthwise(&x, &weight)
    }
    fn map_highest(x: Values) -> Values {
        highest(&x)
    }
    fn map_patches(x: Values, k: usize, stride: usize, padding: usize) -> Values {
        patches(&x, Patches { k, stride, padding })
    }
}

/// The backward steps of operations on one tensor.
#[derive(Debug, Clone)]
enum Step {
    Pool(usize),
    Highest(Values),
    Patches(Size, Patches),
}

impl Backward<Flex, 1> for Step {
    type State = ();

    fn backward(self, ops: Ops<(), 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let [x] = ops.parents;
        if let Some(x) = x {
            let of_x = match self {
                Step::Pool(k) => pool_back(&gradient, k),
                Step::Highest(x) => highest_back(&x, &gradient),
                Step::Patches(size, at) => patches_back(&gradient, size, at),
            };
            gradients.register::<Flex>(x.id, of_x);
        }
    }
}

#[derive(Debug)]
struct DepthwiseStep;

impl Backward<Flex, 2> for DepthwiseStep {
    type State = (Values, Values);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let (x, weight) = ops.state;
        let (of_x, of_weight) = depthwise_back(&x, &weight, &gradient);
        for (parent, value) in ops.parents.into_iter().zip([of_x, of_weight]) {
            if let Some(parent) = parent {
                gradients.register::<Flex>(parent.id, value);
            }
        }
    }
}

fn tracked<C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<Flex, C>>,
    forward: impl Fn(Values) -> Values,
    step: impl FnOnce(&Values) -> Step,
) -> FloatTensor<Autodiff<Flex, C>> {
    let (x, node) = x.into_parts();
    match step(&x).prepare::<C>([node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((), forward(x)),
        OpsKind::UnTracked(prep) => prep.finish(forward(x)),
    }
}

impl<C: CheckpointStrategy> Maps for Autodiff<Flex, C> {
    fn map_pool(x: FloatTensor<Self>, k: usize) -> FloatTensor<Self> {
        tracked::<C>(x, |x| pool(&x, k), |_| Step::Pool(k))
    }
    fn map_depthwise(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((x, of_x), (weight, of_weight)) = (x.into_parts(), weight.into_parts());
        match DepthwiseStep
            .prepare::<C>([of_x, of_weight])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let y = depthwise(&x, &weight);
                prep.finish((x, weight), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(depthwise(&x, &weight)),
        }
    }
    fn map_highest(x: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<C>(x, |x| highest(&x), |x| Step::Highest(x.clone()))
    }
    fn map_patches(
        x: FloatTensor<Self>,
        k: usize,
        stride: usize,
        padding: usize,
    ) -> FloatTensor<Self> {
        let at = Patches { k, stride, padding };
        tracked::<C>(x, |x| patches(&x, at), |x| Step::Patches(Size::of(x), at))
    }
}

fn channels_first(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 3, 1, 2])
}

fn channels_last(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 2, 3, 1])
}

/// The mean over a `k` x `k` window, padding not counted, minus the value itself; `k` is odd.
pub fn average_minus_self(x: Tensor<4>, k: usize) -> Tensor<4> {
    match opened(x) {
        (x, true) => Tensor::from_dispatch(Dispatch::map_pool(x, k)),
        (x, false) => {
            let x = Tensor::<4>::from_dispatch(x);
            burns_mean(x.clone(), k) - x
        }
    }
}

fn burns_mean(x: Tensor<4>, k: usize) -> Tensor<4> {
    let options = AvgPoolOptions {
        kernel_size: [k, k],
        stride: [1, 1],
        padding: [(k / 2, k / 2); 2],
        count_include_pad: false,
        ceil_mode: false,
    };
    channels_last(module::avg_pool2d(channels_first(x), options))
}

fn burns_highest(x: Tensor<4>) -> Tensor<4> {
    let options = MaxPoolOptions {
        stride: [1, 1],
        padding: [(1, 1); 2],
        ..MaxPoolOptions::new([3, 3])
    };
    channels_last(module::max_pool2d(channels_first(x), options))
}

/// A convolution of each channel alone, stride 1, zero padding of half the window; `weight` is [k k, c], k odd.
pub fn depthwise_convolution(x: Tensor<4>, weight: Tensor<2>) -> Tensor<4> {
    let [n, c] = weight.dims();
    match (opened(x), opened(weight)) {
        ((x, true), (weight, true)) => Tensor::from_dispatch(Dispatch::map_depthwise(x, weight)),
        ((x, _), (weight, _)) => {
            let k = (1..=n).find(|k| k * k >= n).unwrap_or(1);
            let weight = Tensor::<2>::from_dispatch(weight)
                .transpose()
                .reshape([c, 1, k, k]);
            let options = ConvOptions::new([1, 1], [k / 2, k / 2], [1, 1], c);
            let x = channels_first(Tensor::from_dispatch(x));
            channels_last(module::conv2d(x, weight, None, options))
        }
    }
}

/// The highest value of each 3 x 3 window, stride 1; positions outside do not count.
pub fn highest_of_window(x: Tensor<4>) -> Tensor<4> {
    match opened(x) {
        (x, true) => Tensor::from_dispatch(Dispatch::map_highest(x)),
        (x, false) => burns_highest(Tensor::from_dispatch(x)),
    }
}

/// The values under each window of a convolution, [b, rows, columns, k k c], zeros outside the map.
pub fn windows(x: Tensor<4>, k: usize, stride: usize, padding: usize) -> Tensor<4> {
    let [b, h, w, c] = x.dims();
    let at = Patches { k, stride, padding };
    match opened(x) {
        (x, true) => Tensor::from_dispatch(Dispatch::map_patches(x, k, stride, padding)),
        (x, false) => {
            let x = Tensor::<4>::from_dispatch(x).pad(
                [(0, 0), (padding, padding), (padding, padding), (0, 0)],
                PadMode::Constant(0.0),
            );
            let (rows, columns) = (at.out(h), at.out(w));
            let under = (0..k * k).map(|n| {
                let (i, j) = (n / k, n % k);
                let pick = |from: usize, count: usize| {
                    burn::tensor::Slice::new(
                        from as isize,
                        Some((from + (count - 1) * stride + 1) as isize),
                        stride as isize,
                    )
                };
                x.clone().slice([
                    burn::tensor::Slice::from(0..b),
                    pick(i, rows),
                    pick(j, columns),
                    burn::tensor::Slice::from(0..c),
                ])
            });
            Tensor::cat(under.collect(), 3)
        }
    }
}

/// Rows or columns of a map that the windows of a convolution leave of `n`.
pub fn after(n: usize, k: usize, stride: usize, padding: usize) -> usize {
    Patches { k, stride, padding }.out(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};
    use proptest::prelude::*;

    fn close(a: Tensor<4>, b: Tensor<4>) {
        assert_eq!(a.dims(), b.dims());
        let gap = (a - b).abs().max().into_scalar::<f32>();
        assert!(gap < 1e-4, "{gap}");
    }

    /// Value and gradient of x (and of the weight) of ours beside Burn's own operation.
    fn compare(
        shape: [usize; 4],
        ours: impl Fn(Tensor<4>, Tensor<2>) -> Tensor<4>,
        burns: impl Fn(Tensor<4>, Tensor<2>) -> Tensor<4>,
        weight: [usize; 2],
    ) {
        let device = Device::flex().autodiff();
        let _held = papertrial_nn::hold(&device, 0);
        let normal = Distribution::Normal(0.0, 1.0);
        let x = Tensor::<4>::random(shape, normal, &device).require_grad();
        let w = Tensor::<2>::random(weight, normal, &device).require_grad();
        let mine = ours(x.clone(), w.clone());
        let theirs = burns(x.clone(), w.clone());
        close(mine.clone(), theirs.clone());
        let pull = Tensor::<4>::random(mine.dims(), normal, &device);
        let a = (mine * pull.clone()).sum().backward();
        let b = (theirs * pull).sum().backward();
        close(x.grad(&a).unwrap(), x.grad(&b).unwrap());
        if let (Some(a), Some(b)) = (w.grad(&a), w.grad(&b)) {
            close(a.unsqueeze(), b.unsqueeze());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn values_and_gradients_are_those_of_burn(
            b in 1usize..4, h in 1usize..7, w in 1usize..7, c in 1usize..6, large: bool, stride in 1usize..3,
        ) {
            let k = if large { 5 } else { 3 };
            let shape = [b, h, w, c];
            compare(shape, |x, _| average_minus_self(x, k), |x, _| {
                burns_mean(x.clone(), k) - x
            }, [1, 1]);
            compare(shape, depthwise_convolution, |x, weight| {
                let weight = weight.transpose().reshape([c, 1, k, k]);
                let options = ConvOptions::new([1, 1], [k / 2, k / 2], [1, 1], c);
                channels_last(module::conv2d(channels_first(x), weight, None, options))
            }, [k * k, c]);
            compare(shape, |x, _| highest_of_window(x), |x, _| burns_highest(x), [1, 1]);
            compare(shape, |x, weight| {
                let y = windows(x, k, stride, k / 2);
                let [b, h, w, n] = y.dims();
                y.reshape([b * h * w, n]).matmul(weight).reshape([b, h, w, 2])
            }, |x, weight| {
                let weight = weight.reshape([k, k, c, 2]).permute([3, 2, 0, 1]);
                let options = ConvOptions::new([stride, stride], [k / 2, k / 2], [1, 1], 1);
                channels_last(module::conv2d(channels_first(x), weight, None, options))
            }, [k * k * c, 2]);
        }
    }

    #[test]
    fn pooling_by_hand_leaves_padding_out_and_takes_the_value_off() {
        let device = Device::flex();
        let x = Tensor::<4>::from_data(
            TensorData::new(vec![1.0f32, 2.0, 3.0, 4.0], [1, 2, 2, 1]),
            &device,
        );
        // Every window covers all four: the mean is 2.5 everywhere.
        let y = papertrial_nn::values_of(average_minus_self(x, 3)).unwrap();
        assert_eq!(y, [1.5, 0.5, -0.5, -1.5]);
        // A constant map has no difference, at its borders neither.
        let flat = Tensor::<4>::ones([1, 5, 4, 2], &device) * 7.0;
        let gap = average_minus_self(flat, 3).abs().max().into_scalar::<f32>();
        assert!(gap < 1e-5);
    }
}
