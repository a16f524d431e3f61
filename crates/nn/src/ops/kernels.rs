//! What each operation does to a block of values.

use super::blocks::Kernel;
use super::curves::{self, Arithmetic, Plain};

/// Sums and maxima are taken in this many strands, so that the order is fixed and vectors fit.
const STRANDS: usize = 32;

/// How a row, or two of equal length, become one number.
///
/// A trait, not closures: those are not always inlined, and then not compiled for the widest vectors.
trait Fold {
    /// Where each strand starts; neutral.
    const START: f32 = 0.0;
    /// A strand with one more value, or pair of values.
    fn take<A: Arithmetic>(&self, strand: f32, a: f32, b: f32) -> f32;
    /// Two strands as one.
    #[inline(always)]
    fn join(left: f32, right: f32) -> f32 {
        left + right
    }
}

/// Folds two rows of equal length in a fixed order; for a fold of one row, give it twice.
#[inline(always)]
fn fold<A: Arithmetic, F: Fold>(fold: &F, a: &[f32], b: &[f32]) -> f32 {
    let mut strands = [F::START; STRANDS];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<STRANDS>(), b.as_chunks::<STRANDS>());
    for (a, b) in a.iter().zip(b) {
        for ((strand, a), b) in strands.iter_mut().zip(a).zip(b) {
            *strand = fold.take::<A>(*strand, *a, *b);
        }
    }
    finish(fold, strands, a_rest, b_rest)
}

/// The end of a fold. Never inlined: seeing it, the compiler would arrange the loop above for it, and badly.
#[inline(never)]
fn finish<F: Fold>(fold: &F, mut strands: [f32; STRANDS], a: &[f32], b: &[f32]) -> f32 {
    for ((strand, a), b) in strands.iter_mut().zip(a).zip(b) {
        *strand = fold.take::<Plain>(*strand, *a, *b);
    }
    let mut half = STRANDS / 2;
    while half > 0 {
        let (left, right) = strands.split_at_mut(half);
        for (left, right) in left.iter_mut().zip(right) {
            *left = F::join(*left, *right);
        }
        half /= 2;
    }
    strands[0]
}

struct Largest;
impl Fold for Largest {
    const START: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn take<A: Arithmetic>(&self, strand: f32, a: f32, _: f32) -> f32 {
        Self::join(strand, a)
    }
    #[inline(always)]
    fn join(left: f32, right: f32) -> f32 {
        if left > right { left } else { right }
    }
}

struct Sum;
impl Fold for Sum {
    #[inline(always)]
    fn take<A: Arithmetic>(&self, strand: f32, a: f32, _: f32) -> f32 {
        strand + a
    }
}

struct Dot;
impl Fold for Dot {
    #[inline(always)]
    fn take<A: Arithmetic>(&self, strand: f32, a: f32, b: f32) -> f32 {
        A::fused(a, b, strand)
    }
}

/// The sum of a - mean.
struct Deviations(f32);
impl Fold for Deviations {
    #[inline(always)]
    fn take<A: Arithmetic>(&self, strand: f32, a: f32, _: f32) -> f32 {
        strand + (a - self.0)
    }
}

/// The sum of (a - mean - rest)^2.
struct Squares(f32, f32);
impl Fold for Squares {
    #[inline(always)]
    fn take<A: Arithmetic>(&self, strand: f32, a: f32, _: f32) -> f32 {
        let a = a - self.0 - self.1;
        A::fused(a, a, strand)
    }
}

/// Replaces each value by a function of it, or of it (a gradient) and the value beside it.
macro_rules! values {
    ($($(#[$meta:meta])* $name:ident, $kind:ident, |$value:ident $(, $beside:ident)?| $body:expr;)*) => {$(
        $(#[$meta])*
        #[derive(Debug)]
        pub(super) struct $name;
        impl Kernel for $name {
            type Yield = ();
            #[inline(always)]
            fn run<$kind: Arithmetic>(&self, block: &mut [f32], beside: &[f32]) {
                let _ = beside;
                values!(@loop block, beside, $value, $($beside,)? $body);
            }
        }
    )*};
    (@loop $block:ident, $all:ident, $value:ident, $body:expr) => {
        for place in $block {
            let $value = *place;
            *place = $body;
        }
    };
    (@loop $block:ident, $all:ident, $value:ident, $beside:ident, $body:expr) => {
        for (place, other) in $block.iter_mut().zip($all) {
            let ($value, $beside) = (*place, *other);
            *place = $body;
        }
    };
}

values! {
    Gelu, A, |x| curves::gelu::<A>(x);
    /// Beside the gradient: x.
    GeluBack, A, |gradient, x| gradient * curves::gelu_slope::<A>(x);
    Tanh, A, |x| curves::tanh::<A>(x);
    /// Beside the gradient: the result y; the derivative is (1 - y) (1 + y).
    TanhBack, A, |gradient, y| gradient * A::fused(-y, y, 1.0);
    Sigmoid, A, |x| curves::sigmoid::<A>(x);
    /// Beside the gradient: the result y; the derivative is y (1 - y).
    SigmoidBack, A, |gradient, y| gradient * A::fused(-y, y, y);
    Silu, A, |x| curves::silu::<A>(x);
    /// Beside the gradient: x.
    SiluBack, A, |gradient, x| gradient * curves::silu_slope::<A>(x);
}

/// Rows of this width become their softmax.
#[derive(Debug)]
pub(super) struct Softmax(pub usize);

impl Kernel for Softmax {
    type Yield = ();
    #[inline(always)]
    fn run<A: Arithmetic>(&self, block: &mut [f32], _: &[f32]) {
        for row in block.chunks_exact_mut(self.0) {
            let top = fold::<A, _>(&Largest, row, row);
            for x in row {
                *x -= top;
            }
        }
        // Over the whole block at once: rows may be shorter than a vector.
        for x in block.iter_mut() {
            *x = curves::exp_of_negative::<A>(*x);
        }
        for row in block.chunks_exact_mut(self.0) {
            let scale = 1.0 / fold::<A, _>(&Sum, row, row);
            for x in row {
                *x *= scale;
            }
        }
    }
}

/// Beside the gradient: the result y. y (g - sum of g y)
#[derive(Debug)]
pub(super) struct SoftmaxBack(pub usize);

impl Kernel for SoftmaxBack {
    type Yield = ();
    #[inline(always)]
    fn run<A: Arithmetic>(&self, block: &mut [f32], beside: &[f32]) {
        for (row, y) in block
            .chunks_exact_mut(self.0)
            .zip(beside.chunks_exact(self.0))
        {
            let mean = fold::<A, _>(&Dot, row, y);
            for (g, y) in row.iter_mut().zip(y) {
                *g = y * (*g - mean);
            }
        }
    }
}

/// Rows of this width become the logarithms of their softmax.
#[derive(Debug)]
pub(super) struct LogSoftmax(pub usize);

impl Kernel for LogSoftmax {
    type Yield = ();
    #[inline(always)]
    fn run<A: Arithmetic>(&self, block: &mut [f32], _: &[f32]) {
        for row in block.chunks_exact_mut(self.0) {
            let top = fold::<A, _>(&Largest, row, row);
            for x in row {
                *x -= top;
            }
        }
        let mut exponentials = block.to_vec();
        for x in &mut exponentials {
            *x = curves::exp_of_negative::<A>(*x);
        }
        for (row, exponentials) in block
            .chunks_exact_mut(self.0)
            .zip(exponentials.chunks_exact(self.0))
        {
            let log = fold::<A, _>(&Sum, exponentials, exponentials).ln();
            for x in row {
                *x -= log;
            }
        }
    }
}

/// Beside the gradient: the result y. g - exp(y) sum of g
#[derive(Debug)]
pub(super) struct LogSoftmaxBack(pub usize);

impl Kernel for LogSoftmaxBack {
    type Yield = ();
    #[inline(always)]
    fn run<A: Arithmetic>(&self, block: &mut [f32], beside: &[f32]) {
        for (row, y) in block
            .chunks_exact_mut(self.0)
            .zip(beside.chunks_exact(self.0))
        {
            let total = fold::<A, _>(&Sum, row, row);
            for (g, y) in row.iter_mut().zip(y) {
                *g = A::fused(-total, curves::exp_of_negative::<A>(*y), *g);
            }
        }
    }
}

/// Each row of as many values as `gain` gets mean 0 and deviation 1, then gain and bias.
pub(super) struct LayerNorm<'a> {
    pub gain: &'a [f32],
    /// As long as `gain`, or empty.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
}

/// What the normalisation of a row takes: (x - `mean` - `rest`) * `scale`.
///
/// Of values far from 0 the mean is rounded; `rest` is the mean of what is left.
struct Moments {
    mean: f32,
    rest: f32,
    scale: f32,
}

impl Moments {
    #[inline(always)]
    fn of<A: Arithmetic>(row: &[f32], epsilon: f32) -> Moments {
        let share = 1.0 / row.len() as f32;
        let mean = fold::<A, _>(&Sum, row, row) * share;
        let rest = fold::<A, _>(&Deviations(mean), row, row) * share;
        let squares = fold::<A, _>(&Squares(mean, rest), row, row);
        let scale = 1.0 / (squares * share + epsilon).sqrt();
        Moments { mean, rest, scale }
    }

    #[inline(always)]
    fn normal(&self, x: f32) -> f32 {
        (x - self.mean - self.rest) * self.scale
    }
}

impl Kernel for LayerNorm<'_> {
    type Yield = ();
    #[inline(always)]
    fn run<A: Arithmetic>(&self, block: &mut [f32], _: &[f32]) {
        for row in block.chunks_exact_mut(self.gain.len()) {
            let moments = Moments::of::<A>(row, self.epsilon);
            if self.bias.is_empty() {
                for (x, gain) in row.iter_mut().zip(self.gain) {
                    *x = moments.normal(*x) * gain;
                }
            } else {
                for ((x, gain), bias) in row.iter_mut().zip(self.gain).zip(self.bias) {
                    *x = A::fused(moments.normal(*x), *gain, *bias);
                }
            }
        }
    }
}

/// Beside the gradient: x, of which the moments are taken again (that is cheaper than to read them).
///
/// With n the normalised row and h = g gain: (h - mean of h - n mean of h n) scale.
pub(super) struct LayerNormBack<'a> {
    pub gain: &'a [f32],
    pub epsilon: f32,
}

impl Kernel for LayerNormBack<'_> {
    /// The gradients of gain and bias, one after the other.
    type Yield = Vec<f32>;
    #[inline(always)]
    fn run<A: Arithmetic>(&self, block: &mut [f32], beside: &[f32]) -> Vec<f32> {
        let width = self.gain.len();
        let mut sums = vec![0.0f32; 2 * width];
        let (of_gain, of_bias) = sums.split_at_mut(width);
        let mut normal = vec![0.0f32; width];
        let share = 1.0 / width as f32;
        for (row, x) in block
            .chunks_exact_mut(width)
            .zip(beside.chunks_exact(width))
        {
            let moments = Moments::of::<A>(x, self.epsilon);
            for (normal, x) in normal.iter_mut().zip(x) {
                *normal = moments.normal(*x);
            }
            for (((g, n), gain), (to_gain, to_bias)) in row
                .iter_mut()
                .zip(&normal)
                .zip(self.gain)
                .zip(of_gain.iter_mut().zip(of_bias.iter_mut()))
            {
                *to_gain = A::fused(*g, *n, *to_gain);
                *to_bias += *g;
                *g *= gain;
            }
            let mean = fold::<A, _>(&Sum, row, row) * share;
            let slope = fold::<A, _>(&Dot, row, &normal) * share;
            for (g, n) in row.iter_mut().zip(&normal) {
                *g = A::fused(-slope, *n, *g - mean) * moments.scale;
            }
        }
        sums
    }
}
