//! Weights of the plain mixers: how they are drawn, and the queries, keys and values of attention.

use super::real::Real;
use super::system::Shape;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, s};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// A map with an offset: [outputs, inputs] and [outputs].
#[derive(Debug, Clone)]
pub struct Affine<F> {
    /// Weights.
    pub weight: Array2<F>,
    /// Offsets.
    pub bias: Array1<F>,
}

impl<F: Real> Affine<F> {
    /// Weights of deviation 1 / sqrt(inputs), offsets of deviation .1.
    pub fn random(outputs: usize, inputs: usize, rng: &mut ChaCha8Rng) -> Self {
        let bias = random(outputs, 1, rng)
            .column(0)
            .mapv(|b: F| b * F::of(0.1));
        Affine {
            weight: random(outputs, inputs, rng),
            bias,
        }
    }

    /// Output `o` for input `u`.
    pub fn at(&self, o: usize, u: ArrayView1<F>) -> F {
        self.weight.row(o).dot(&u) + self.bias[o]
    }

    /// All outputs of all rows: [L, inputs] to [L, outputs].
    pub fn all(&self, u: ArrayView2<F>) -> Array2<F> {
        u.dot(&self.weight.t()) + &self.bias
    }
}

/// Weights of deviation 1 / sqrt(inputs).
pub fn random<F: Real>(outputs: usize, inputs: usize, rng: &mut ChaCha8Rng) -> Array2<F> {
    let scale = 1.0 / (inputs.max(1) as f64).sqrt();
    Array2::from_shape_simple_fn((outputs, inputs), || {
        let normal: f64 = StandardNormal.sample(rng);
        F::of(normal * scale)
    })
}

/// Queries, keys and values of heads.
#[derive(Debug, Clone)]
pub struct Maps<F> {
    /// To queries, m numbers a head.
    pub query: Affine<F>,
    /// To keys, m numbers a head.
    pub key: Affine<F>,
    /// W, to values.
    pub value: Array2<F>,
    /// Heads.
    pub heads: usize,
}

impl<F: Real> Maps<F> {
    /// For `inputs` numbers, `channels` values and `m` features of all heads together.
    pub fn random(
        inputs: usize,
        channels: usize,
        m: usize,
        heads: usize,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        Maps {
            query: Affine::random(m, inputs, rng),
            key: Affine::random(m, inputs, rng),
            value: random(channels, inputs, rng),
            heads,
        }
    }

    /// Features of a head, m.
    pub fn width(&self) -> usize {
        self.query.bias.len() / self.heads.max(1)
    }

    /// Sizes of a mixer with n numbers a channel.
    pub fn shape(&self, n: usize) -> Shape {
        Shape {
            channels: self.value.nrows(),
            n,
            heads: self.heads,
        }
    }

    /// The query of head `head`, [m].
    pub fn query_of(&self, head: usize, u: ArrayView1<F>) -> Vec<F> {
        let m = self.width();
        (head * m..(head + 1) * m)
            .map(|o| self.query.at(o, u))
            .collect()
    }

    /// The key of head `head`, [m].
    pub fn key_of(&self, head: usize, u: ArrayView1<F>) -> Vec<F> {
        let m = self.width();
        (head * m..(head + 1) * m)
            .map(|o| self.key.at(o, u))
            .collect()
    }

    /// Attention in its usual form: `weights` turns the queries and keys of a head, [L, m] each, into [L, L], of
    /// which only j <= i counts.
    pub fn attend(
        &self,
        u: ArrayView2<F>,
        mut weights: impl FnMut(usize, Array2<F>, Array2<F>) -> Array2<F>,
    ) -> Array2<F> {
        let (queries, keys) = (self.query.all(u), self.key.all(u));
        let v = u.dot(&self.value.t());
        let (m, wide) = (self.width(), v.ncols() / self.heads.max(1));
        let mut y = Array2::zeros(v.dim());
        for head in 0..self.heads {
            let part = s![.., head * m..(head + 1) * m];
            let columns = s![.., head * wide..(head + 1) * wide];
            let mut weights = weights(
                head,
                queries.slice(part).to_owned(),
                keys.slice(part).to_owned(),
            );
            for ((i, j), weight) in weights.indexed_iter_mut() {
                if j > i {
                    *weight = F::zero();
                }
            }
            y.slice_mut(columns).assign(&weights.dot(&v.slice(columns)));
        }
        y
    }
}

/// Each row of a lower triangle divided by its sum up to the diagonal.
pub fn share<F: Real>(mut weights: Array2<F>) -> Array2<F> {
    for (i, mut row) in weights.rows_mut().into_iter().enumerate() {
        let sum = row.slice(s![..=i]).sum();
        row.mapv_inplace(|w| w / sum);
    }
    weights
}
