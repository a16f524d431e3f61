//! Work on a tensor's values in place, in fixed blocks, on all threads and in the processor's widest vectors.

use super::curves::{Arithmetic, Plain};
use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;
use rayon::prelude::*;

/// A tensor of the CPU backend.
pub(super) type Values = FloatTensor<Flex>;

/// Values in a block, about: 16 KiB, so that a block and what is read beside it stay in the nearest cache.
const BLOCK: usize = 4096;
/// Below this many values one thread is faster than waking another.
const ALONE: usize = 16 * 1024;

/// What is done to each block.
pub(super) trait Kernel: Sync {
    /// What a block yields besides its new values.
    type Yield: Send;
    /// Replaces the values of `block`, whole rows; `beside` holds as many values of another tensor, or none.
    ///
    /// Must be `#[inline(always)]`: only what is inlined is compiled for the widest vectors.
    fn run<A: Arithmetic>(&self, block: &mut [f32], beside: &[f32]) -> Self::Yield;
}

/// `kernel` over the rows of `tensor`, `width` values each; what its blocks yield comes in their order.
///
/// The blocks depend on the shape alone. Memory that nothing else uses is written in place.
pub(super) fn transform<K: Kernel>(
    kernel: &K,
    tensor: Values,
    beside: Option<&Values>,
    width: usize,
) -> (Values, Vec<K::Yield>) {
    let beside = beside.map(|t| {
        if t.is_contiguous() {
            t.clone()
        } else {
            t.to_contiguous()
        }
    });
    let beside = beside
        .as_ref()
        .and_then(|t| t.as_slice::<f32>())
        .unwrap_or(&[]);
    let mut tensor = if tensor.is_contiguous() {
        tensor
    } else {
        tensor.to_contiguous()
    };
    let len = tensor.layout().num_elements();
    let length = width.max(1) * (BLOCK / width.max(1)).max(1);
    let whole = tensor.layout().start_offset() == 0;
    if let Some(values) = tensor.try_storage_mut::<f32>()
        && whole
        && values.len() == len
    {
        let work = |(block, beside): (&mut [f32], &[f32])| wide(kernel, block, beside);
        let yields = if len <= ALONE {
            paired(values, beside, length).map(work).collect()
        } else {
            paired_in_threads(values, beside, length)
                .map(work)
                .collect()
        };
        return (tensor, yields);
    }
    let from = tensor.as_slice::<f32>().unwrap_or(&[]);
    let mut values = vec![0.0f32; from.len()];
    let work = |((block, beside), from): ((&mut [f32], &[f32]), &[f32])| {
        block.copy_from_slice(from);
        wide(kernel, block, beside)
    };
    let yields = if len <= ALONE {
        paired(&mut values, beside, length)
            .zip(from.chunks(length))
            .map(work)
            .collect()
    } else {
        paired_in_threads(&mut values, beside, length)
            .zip(from.par_chunks(length))
            .map(work)
            .collect()
    };
    let shape = tensor.layout().shape().clone();
    (Values::from_data(TensorData::new(values, shape)), yields)
}

/// Blocks of `values` with those of `beside`, which is as long or empty.
fn paired<'a>(
    values: &'a mut [f32],
    beside: &'a [f32],
    length: usize,
) -> impl Iterator<Item = (&'a mut [f32], &'a [f32])> {
    values
        .chunks_mut(length)
        .enumerate()
        .map(move |(i, block)| {
            let end = i * length + block.len();
            (block, beside.get(i * length..end).unwrap_or(&[]))
        })
}

/// As [`paired`].
fn paired_in_threads<'a>(
    values: &'a mut [f32],
    beside: &'a [f32],
    length: usize,
) -> impl IndexedParallelIterator<Item = (&'a mut [f32], &'a [f32])> {
    values
        .par_chunks_mut(length)
        .enumerate()
        .map(move |(i, block)| {
            let end = i * length + block.len();
            (block, beside.get(i * length..end).unwrap_or(&[]))
        })
}

/// The kernel compiled for the processor's widest vectors.
fn wide<K: Kernel>(kernel: &K, block: &mut [f32], beside: &[f32]) -> K::Yield {
    use super::curves::Fused;
    use pulp::{Arch, Simd, WithSimd};
    struct Work<'a, K> {
        kernel: &'a K,
        block: &'a mut [f32],
        beside: &'a [f32],
    }
    impl<K: Kernel> WithSimd for Work<'_, K> {
        type Output = K::Yield;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> K::Yield {
            self.kernel.run::<Fused>(self.block, self.beside)
        }
    }
    match Arch::new() {
        Arch::Scalar => kernel.run::<Plain>(block, beside),
        arch => arch.dispatch(Work {
            kernel,
            block,
            beside,
        }),
    }
}
