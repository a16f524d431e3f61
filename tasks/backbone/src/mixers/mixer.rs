//! What every mixer gives, and its three ways of evaluation.

use super::real::Real;
use super::system::{Coefficients, LtvSystem, Shape, Spreads};
use ndarray::{Array2, ArrayView1, ArrayView2};

/// A sequence mixer with its weights, as a linear system.
///
/// A mixer says what its coefficients are at one position; matrices, parallel and recurrent evaluation follow from
/// that. `native` is the architecture's usual formula, written without the system, to be compared with them.
pub trait SequenceMixer<F: Real>: Send + Sync {
    /// Sizes.
    fn shape(&self) -> Shape;

    /// What the coefficients depend on.
    fn spreads(&self) -> Spreads;

    /// W, [channels, inputs].
    fn values(&self) -> ArrayView2<'_, F>;

    /// D without W, [channels].
    fn skip(&self) -> Option<ArrayView1<'_, F>> {
        None
    }

    /// Numbers that the coefficients need of the positions before, besides the state: a running sum of keys, the last
    /// normaliser. They begin with 0.
    fn carried(&self) -> usize {
        0
    }

    /// The coefficients at a position with input `u`; `carried` is brought forward.
    fn coefficients(&self, u: ArrayView1<F>, carried: &mut [F], out: &mut Coefficients<F>);

    /// The usual formula: [L, inputs] to [L, channels].
    fn native(&self, u: ArrayView2<F>) -> Array2<F>;

    /// The system of a sequence, [L, inputs].
    fn matrices(&self, u: ArrayView2<F>) -> LtvSystem<F> {
        let mut carried = vec![F::zero(); self.carried()];
        let mut coefficients = Coefficients::new(self.shape(), self.spreads());
        let positions = u.rows().into_iter().map(|u| {
            self.coefficients(u, &mut carried, &mut coefficients);
            coefficients.clone()
        });
        LtvSystem {
            shape: self.shape(),
            spreads: self.spreads(),
            positions: positions.collect(),
            values: self.values().to_owned(),
            skip: self.skip().map(|s| s.to_owned()),
        }
    }

    /// All positions at once by the matrix Phi: [L, inputs] to [L, channels].
    fn parallel(&self, u: ArrayView2<F>) -> Array2<F> {
        self.matrices(u).convolve(u)
    }
}

/// An evaluation step by step, in memory that does not depend on how many steps are taken.
pub struct Stream<'a, F> {
    mixer: &'a dyn SequenceMixer<F>,
    h: Vec<F>,
    carried: Vec<F>,
    coefficients: Coefficients<F>,
    v: Vec<F>,
    y: Vec<F>,
}

impl<'a, F: Real> Stream<'a, F> {
    /// Before the first position.
    pub fn new(mixer: &'a dyn SequenceMixer<F>) -> Self {
        let shape = mixer.shape();
        let zeros = |n: usize| vec![F::zero(); n];
        Stream {
            mixer,
            h: zeros(shape.state()),
            carried: zeros(mixer.carried()),
            coefficients: Coefficients::new(shape, mixer.spreads()),
            v: zeros(shape.channels),
            y: zeros(shape.channels),
        }
    }

    /// The output at the next position, whose input is `u`.
    pub fn step(&mut self, u: ArrayView1<F>) -> &[F] {
        let mixer = self.mixer;
        mixer.coefficients(u, &mut self.carried, &mut self.coefficients);
        for (v, w) in self.v.iter_mut().zip(mixer.values().rows()) {
            *v = w.dot(&u);
        }
        self.coefficients.advance(
            mixer.shape(),
            mixer.spreads(),
            mixer.skip(),
            &self.v,
            &mut self.h,
            &mut self.y,
        );
        &self.y
    }

    /// Bytes that it holds now.
    pub fn bytes(&self) -> usize {
        let rest = [&self.h, &self.carried, &self.v, &self.y];
        let rest: usize = rest.iter().map(|v| v.capacity() * F::BYTES).sum();
        rest + self.coefficient_bytes()
    }

    /// Bytes of the coefficients of one position.
    pub fn coefficient_bytes(&self) -> usize {
        let Coefficients {
            log_keep,
            write,
            read,
        } = &self.coefficients;
        (log_keep.capacity() + write.capacity() + read.capacity()) * F::BYTES
    }
}

/// The outputs of all positions, step by step.
pub fn recurrent<F: Real>(mixer: &dyn SequenceMixer<F>, u: ArrayView2<F>) -> Array2<F> {
    let mut stream = Stream::new(mixer);
    let mut y = Array2::zeros((u.nrows(), mixer.shape().channels));
    for (u, mut y) in u.rows().into_iter().zip(y.rows_mut()) {
        for (y, value) in y.iter_mut().zip(stream.step(u)) {
            *y = *value;
        }
    }
    y
}
