//! SSD, the mixer of Mamba-2 (Dao and Gu, 2405.21060): a selective state space model with one decay a head.
//!
//! 1. Delta_i = softplus(delta_i + offset), one number a head; b_i and c_i in R^n, which all heads share.
//! 2. A head: Lam_i = exp(-Delta_i exp(A)) I, B_i = I (x) Delta_i b_i W, C_i = I (x) c_i^T, D is learned.
//! 3. h_i = Lam_i h_{i-1} + B_i u_i, y_i = C_i h_i + D W u_i.
//!
//! It is linear attention with decay: queries c_i, keys b_i, values Delta_i x_i, and the product of the decays from
//! j + 1 to i on each weight. It is also separable attention, with eta_i = exp(the sum of Delta_j exp(A) for j <= i)
//! and keys Delta_i eta_i b_i: that eta is accumulated over the positions, where normalised attention's looks at one.
//!
//! The trained layer is Mamba-2's: a map to (gate, x, b, c, delta), a causal convolution and SiLU on x, b and c, the
//! system, times SiLU(gate), divided by the root mean square and times a gain, a map back; twice as many channels as d.
//!
//! Cost: O(L n d); the trained form is made of matrix products in chunks.

use super::maps::{Affine, random};
use super::mixer::SequenceMixer;
use super::neural::{Gated, Products, merge, row_of, softplus as softplus_of, split};
use super::real::{Real, softplus};
use super::s6::first_delta;
use super::system::{Coefficients, Shape, Spread, Spreads};
use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2};
use rand_chacha::ChaCha8Rng;

/// SSD with its weights.
#[derive(Debug, Clone)]
pub struct Ssd<F> {
    /// To Delta before softplus, [heads, inputs].
    pub delta: Affine<F>,
    /// A, [heads].
    pub log_rate: Array1<F>,
    /// To b, [n, inputs].
    pub write: Array2<F>,
    /// To c, [n, inputs].
    pub read: Array2<F>,
    /// W, [channels, inputs].
    pub value: Array2<F>,
    /// D, [channels].
    pub skip: Array1<F>,
}

impl<F: Real> Ssd<F> {
    /// Drawn weights; A between 0 and 1.
    pub fn random(
        inputs: usize,
        channels: usize,
        n: usize,
        heads: usize,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        Ssd {
            delta: Affine::random(heads, inputs, rng),
            log_rate: random(heads, 1, rng)
                .column(0)
                .mapv(|x: F| x.abs().min(F::one())),
            write: random(n, inputs, rng),
            read: random(n, inputs, rng),
            value: random(channels, inputs, rng),
            skip: random(channels, 1, rng).column(0).to_owned(),
        }
    }

    /// Delta, [L, heads].
    pub fn steps(&self, u: ArrayView2<F>) -> Array2<F> {
        self.delta.all(u).mapv(softplus)
    }
}

impl<F: Real> SequenceMixer<F> for Ssd<F> {
    fn shape(&self) -> Shape {
        Shape {
            channels: self.value.nrows(),
            n: self.write.nrows(),
            heads: self.log_rate.len(),
        }
    }

    fn spreads(&self) -> Spreads {
        Spreads {
            keep: Spread::Head,
            write: Spread::Feature,
            read: Spread::Feature,
        }
    }

    fn values(&self) -> ArrayView2<'_, F> {
        self.value.view()
    }

    fn skip(&self) -> Option<ArrayView1<'_, F>> {
        Some(self.skip.view())
    }

    /// Steps 1 and 2.
    fn coefficients(&self, u: ArrayView1<F>, _: &mut [F], out: &mut Coefficients<F>) {
        let (b, c) = (self.write.dot(&u), self.read.dot(&u));
        let n = b.len();
        for (head, log_rate) in self.log_rate.iter().enumerate() {
            let delta = softplus(self.delta.at(head, u));
            out.log_keep[head] = -delta * log_rate.exp();
            for r in 0..n {
                out.write[head * n + r] = delta * b[r];
                out.read[head * n + r] = c[r];
            }
        }
    }

    /// Linear attention with decay: the decays multiplied one by one.
    fn native(&self, u: ArrayView2<F>) -> Array2<F> {
        let x = u.dot(&self.value.t());
        let delta = self.steps(u);
        let products = u.dot(&self.read.t()).dot(&u.dot(&self.write.t()).t());
        let wide = x.ncols() / self.log_rate.len().max(1);
        let mut y = &x * &self.skip;
        for i in 0..x.nrows() {
            for (head, log_rate) in self.log_rate.iter().enumerate() {
                let mut left = F::one();
                for j in (0..=i).rev() {
                    let weight = left * products[[i, j]] * delta[[j, head]];
                    for c in head * wide..(head + 1) * wide {
                        y[[i, c]] += weight * x[[j, c]];
                    }
                    left *= (-delta[[j, head]] * log_rate.exp()).exp();
                }
            }
        }
        y
    }
}

/// SSD as it is trained, with its gate and convolution.
#[derive(Module, Debug)]
pub struct SsdLayer {
    gated: Gated,
    offset: Param<Tensor<1>>,
    log_rate: Param<Tensor<1>>,
    skip: Param<Tensor<1>>,
    gain: Param<Tensor<1>>,
    products: Products,
    n: usize,
    heads: usize,
}

impl SsdLayer {
    /// Inside `gated`, which gives x, b and c after the convolution, and delta beside them. The rates exp(A) begin as
    /// 1 to 16, evenly, as in Mamba-2.
    pub(super) fn new(gated: Gated, n: usize, heads: usize, device: &Device) -> Self {
        let rates: Vec<f32> = (0..heads)
            .map(|h| (1.0 + 15.0 * h as f32 / (heads.max(2) - 1) as f32).ln())
            .collect();
        SsdLayer {
            offset: Param::from_tensor(first_delta(heads, device)),
            log_rate: Param::from_tensor(Tensor::from_data(
                burn::tensor::TensorData::new(rates, [heads]),
                device,
            )),
            skip: Initializer::Ones.init([gated.channels()], device),
            gain: Initializer::Ones.init([gated.channels()], device),
            products: Products::new(0.0),
            gated,
            n,
            heads,
        }
    }

    /// What goes into the system, [b, l, channels + 2 n + heads], and the gate.
    pub fn core(&self, x: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        self.gated.open(x)
    }

    /// Steps 1 to 3: [b, l, channels + 2 n + heads] to [b, l, channels].
    pub fn mix(&self, core: Tensor<3>) -> Tensor<3> {
        let (channels, n, heads) = (self.gated.channels(), self.n, self.heads);
        let [b, l, _] = core.dims();
        let x = core.clone().narrow(2, 0, channels);
        let shared = |t: Tensor<3>| match heads {
            1 => t,
            _ => t
                .reshape([b, 1, l, n])
                .expand([b, heads, l, n])
                .reshape([b * heads, l, n]),
        };
        let keys = shared(core.clone().narrow(2, channels, n));
        let queries = shared(core.clone().narrow(2, channels + n, n));
        let delta = core.narrow(2, channels + 2 * n, heads);
        let delta = softplus_of(delta + self.offset.val().unsqueeze::<3>());
        let log_keep = -delta.clone() * self.log_rate.val().exp().unsqueeze::<3>();
        let log_keep = split(log_keep, heads).reshape([b * heads, l]);
        let values = split(x.clone(), heads) * split(delta, heads);
        let y = self.products.plain(queries, keys, values, Some(log_keep));
        merge(y, heads) + x * self.skip.val().unsqueeze::<3>()
    }

    /// [b, l, d] to [b, l, d].
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let (core, gate) = self.core(x);
        self.gated
            .close_normalised(self.mix(core), gate, self.gain.val())
    }

    /// The same with its weights in double precision: maps that pick parts of the input.
    ///
    /// # Errors
    /// The device cannot give them.
    pub fn plain(&self) -> papertrial_core::Result<Ssd<f64>> {
        let (channels, n, heads) = (self.gated.channels(), self.n, self.heads);
        let inputs = channels + 2 * n + heads;
        let pick = |from: usize, count: usize| {
            Array2::from_shape_fn((count, inputs), |(row, column)| {
                f64::from(u8::from(from + row == column))
            })
        };
        Ok(Ssd {
            delta: Affine {
                weight: pick(channels + 2 * n, heads),
                bias: row_of(self.offset.val())?,
            },
            log_rate: row_of(self.log_rate.val())?,
            write: pick(channels, n),
            read: pick(channels + n, n),
            value: pick(0, channels),
            skip: row_of(self.skip.val())?,
        })
    }
}
