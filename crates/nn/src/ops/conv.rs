//! Convolution of pictures with stride 1, and its backward pass: patches laid side by side, then products of matrices.

use super::blocks::Values;
use super::linear::{in_order, slice, tensor};
use super::products::{multiply, rows_of, total};
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};
use burn::backend::{Flex, TensorMetadata};
use faer::{Accum, MatMut, MatRef};
use rayon::prelude::*;

/// Values of the patches that are laid out at a time, about: 256 KiB, so that they stay in a near cache.
const PATCHES: usize = 64 * 1024;
/// Pictures whose gradients of the weights are summed at a time.
const TOGETHER: usize = 2;

/// What the shapes say.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    pictures: usize,
    channels: usize,
    height: usize,
    width: usize,
    outputs: usize,
    /// Of the kernel.
    rows: usize,
    columns: usize,
    padding: usize,
}

impl Sizes {
    /// `x` [pictures, channels, height, width] and `weight` [outputs, channels, rows, columns].
    fn of(x: &Values, weight: &Values, padding: usize) -> Sizes {
        let (x, weight) = (x.shape().to_vec(), weight.shape().to_vec());
        Sizes {
            pictures: x[0],
            channels: x[1],
            height: x[2],
            width: x[3],
            outputs: weight[0],
            rows: weight[2],
            columns: weight[3],
            padding,
        }
    }
    fn out_height(&self) -> usize {
        self.height + 2 * self.padding + 1 - self.rows
    }
    fn out_width(&self) -> usize {
        self.width + 2 * self.padding + 1 - self.columns
    }
    /// Values of a picture.
    fn picture(&self) -> usize {
        self.channels * self.height * self.width
    }
    /// Values of one channel of the result.
    fn plane(&self) -> usize {
        self.out_height() * self.out_width()
    }
    /// Values of a patch.
    fn patch(&self) -> usize {
        self.channels * self.rows * self.columns
    }
    /// Rows of the result that are made at a time.
    fn strip(&self) -> usize {
        let row = (self.patch() * self.out_width()).max(1);
        (PATCHES / row).clamp(1, self.out_height().max(1))
    }
    /// Calls `each` for all strips: (first row of the result, rows).
    fn strips(&self, mut each: impl FnMut(usize, usize)) {
        for from in (0..self.out_height()).step_by(self.strip()) {
            each(from, self.strip().min(self.out_height() - from));
        }
    }
    /// Calls `each` for every run of values that a strip takes from one row of the picture: (start in the patches, start
    /// in the picture, values). What lies beyond the picture's edges is left out.
    #[inline(always)]
    fn runs(&self, from: usize, rows: usize, mut each: impl FnMut(usize, usize, usize)) {
        let (width, padding) = (self.out_width(), self.padding);
        let mut at = 0;
        for channel in 0..self.channels {
            for i in 0..self.rows {
                for j in 0..self.columns {
                    // Columns of the result whose value lies in the picture.
                    let first = padding.saturating_sub(j).min(width);
                    let end = (self.width + padding).saturating_sub(j).clamp(first, width);
                    for row in from..from + rows {
                        if row + i >= padding && row + i < self.height + padding && first < end {
                            let row = channel * self.height + row + i - padding;
                            let start = row * self.width + first + j - padding;
                            each(at + first, start, end - first);
                        }
                        at += width;
                    }
                }
            }
        }
    }
}

/// Fills `patches`, [patch, rows * width of the result], for the rows of the result from `from` on.
fn lay_out(sizes: &Sizes, picture: &[f32], from: usize, rows: usize, patches: &mut [f32]) {
    patches.fill(0.0);
    sizes.runs(from, rows, |at, start, n| {
        patches[at..at + n].copy_from_slice(&picture[start..start + n]);
    });
}

/// Memory for the patches of one strip.
fn room(sizes: &Sizes) -> Vec<f32> {
    vec![0.0; sizes.patch() * sizes.strip() * sizes.out_width()]
}

/// Columns `from` to `from + n` of the rows of one picture, `plane` values each.
fn part(values: &[f32], plane: usize, from: usize, n: usize) -> MatRef<'_, f32> {
    rows_of(values, plane).subcols(from, n)
}

/// The convolution of `x` [b, channels, h, w], with `padding` zeros on each side, and `weight` [outputs, channels, rows,
/// columns], plus `bias` [outputs].
pub(super) fn conv(x: &Values, weight: &Values, bias: &Values, padding: usize) -> Values {
    let sizes = Sizes::of(x, weight, padding);
    let (x, weight, bias) = (in_order(x), in_order(weight), in_order(bias));
    let (x, bias) = (slice(&x), slice(&bias));
    let weight = rows_of(slice(&weight), sizes.patch());
    let (plane, picture) = (sizes.plane(), sizes.picture());
    let mut values = vec![0.0f32; sizes.pictures * sizes.outputs * plane];
    values
        .par_chunks_mut((sizes.outputs * plane).max(1))
        .zip(x.par_chunks(picture.max(1)))
        .for_each_init(
            || room(&sizes),
            |patches, (out, picture)| {
                for (out, bias) in out.chunks_mut(plane).zip(bias) {
                    out.fill(*bias);
                }
                sizes.strips(|from, rows| {
                    let n = rows * sizes.out_width();
                    let patches = &mut patches[..sizes.patch() * n];
                    lay_out(&sizes, picture, from, rows, patches);
                    let out = MatMut::from_row_major_slice_mut(out, sizes.outputs, plane)
                        .subcols_mut(from * sizes.out_width(), n);
                    multiply(out, Accum::Add, weight, rows_of(patches, n));
                });
            },
        );
    let shape = [
        sizes.pictures,
        sizes.outputs,
        sizes.out_height(),
        sizes.out_width(),
    ];
    tensor(values, &shape)
}

fn gradient_of_x(sizes: &Sizes, g: &[f32], weight: &[f32]) -> Vec<f32> {
    let weight = rows_of(weight, sizes.patch());
    let plane = sizes.plane();
    let mut values = vec![0.0f32; sizes.pictures * sizes.picture()];
    values
        .par_chunks_mut(sizes.picture().max(1))
        .zip(g.par_chunks((sizes.outputs * plane).max(1)))
        .for_each_init(
            || room(sizes),
            |patches, (picture, g)| {
                sizes.strips(|from, rows| {
                    let n = rows * sizes.out_width();
                    let patches = &mut patches[..sizes.patch() * n];
                    let of_patches = MatMut::from_row_major_slice_mut(patches, sizes.patch(), n);
                    let g = part(g, plane, from * sizes.out_width(), n);
                    multiply(of_patches, Accum::Replace, weight.transpose(), g);
                    sizes.runs(from, rows, |at, start, n| {
                        let picture = &mut picture[start..start + n];
                        for (to, value) in picture.iter_mut().zip(&patches[at..at + n]) {
                            *to += value;
                        }
                    });
                });
            },
        );
    values
}

fn gradient_of_weight(sizes: &Sizes, g: &[f32], x: &[f32]) -> Vec<f32> {
    let plane = sizes.plane();
    let parts = x
        .par_chunks((TOGETHER * sizes.picture()).max(1))
        .zip(g.par_chunks((TOGETHER * sizes.outputs * plane).max(1)))
        .map_init(
            || room(sizes),
            |patches, (x, g)| {
                let mut sum = vec![0.0f32; sizes.outputs * sizes.patch()];
                let pictures = x.chunks(sizes.picture());
                for (picture, g) in pictures.zip(g.chunks(sizes.outputs * plane)) {
                    sizes.strips(|from, rows| {
                        let n = rows * sizes.out_width();
                        let patches = &mut patches[..sizes.patch() * n];
                        lay_out(sizes, picture, from, rows, patches);
                        let sum = MatMut::from_row_major_slice_mut(
                            &mut sum,
                            sizes.outputs,
                            sizes.patch(),
                        );
                        let g = part(g, plane, from * sizes.out_width(), n);
                        multiply(sum, Accum::Add, g, rows_of(patches, n).transpose());
                    });
                }
                sum
            },
        )
        .collect::<Vec<_>>();
    total(parts)
}

fn gradient_of_bias(sizes: &Sizes, g: &[f32]) -> Vec<f32> {
    let mut sums = vec![0.0f64; sizes.outputs];
    for picture in g.chunks_exact((sizes.outputs * sizes.plane()).max(1)) {
        for (sum, plane) in sums.iter_mut().zip(picture.chunks_exact(sizes.plane())) {
            // In strands, so that the order is fixed and vectors fit.
            let (chunks, rest) = plane.as_chunks::<16>();
            let mut strands = [0.0f32; 16];
            for chunk in chunks {
                for (strand, value) in strands.iter_mut().zip(chunk) {
                    *strand += value;
                }
            }
            *sum += f64::from(strands.iter().chain(rest).sum::<f32>());
        }
    }
    sums.iter().map(|&s| s as f32).collect()
}

/// The backward step of [`conv`]; its parents are x, weight and bias.
#[derive(Debug)]
pub(super) struct ConvStep {
    pub padding: usize,
}

impl Backward<Flex, 3> for ConvStep {
    /// x and weight.
    type State = (Values, Values);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = in_order(&gradients.consume::<Flex>(&ops.node));
        let (x, weight) = ops.state;
        let (x, weight) = (in_order(&x), in_order(&weight));
        let sizes = Sizes::of(&x, &weight, self.padding);
        let g = slice(&gradient);
        let [of_x, of_weight, of_bias] = ops.parents;
        if let Some(node) = of_x {
            let values = gradient_of_x(&sizes, g, slice(&weight));
            gradients.register::<Flex>(node.id, tensor(values, &x.shape().to_vec()));
        }
        if let Some(node) = of_weight {
            let values = gradient_of_weight(&sizes, g, slice(&x));
            gradients.register::<Flex>(node.id, tensor(values, &weight.shape().to_vec()));
        }
        if let Some(node) = of_bias {
            let values = gradient_of_bias(&sizes, g);
            gradients.register::<Flex>(node.id, tensor(values, &[sizes.outputs]));
        }
    }
}
