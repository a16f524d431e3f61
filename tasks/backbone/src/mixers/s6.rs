//! S6, the mixer of Mamba (Gu and Dao, 2312.00752): a selective state space model with a state for each channel.
//!
//! 1. Delta_i = softplus(W_Delta x_i + b), one number a channel; b_i = W_b x_i and c_i = W_c x_i in R^n.
//! 2. For channel c and r: Lam_i = exp(Delta_i A), A below 0; B_i = Delta_i b_i (Euler's form) or, held exactly over a
//!    step, (exp(Delta_i A) - 1) / A b_i; C_i = c_i; D is learned.
//! 3. h_i = Lam_i h_{i-1} + B_i x_i, y_i = C_i h_i + D x_i.
//!
//! The same Delta sets how much is forgotten and how much is taken in.
//! With n = 1 and A = -1 it is a gated recurrent network whose forget gate is the reversed sigmoid and whose input gate
//! is softplus, for exp(-softplus(x)) = sigmoid(-x).
//!
//! The trained layer is Mamba's: a map to (gate, x), a causal convolution and SiLU on x, the system, times SiLU(gate),
//! a map back; twice as many channels as d; W_Delta of rank d / 16, b such that Delta begins between .001 and .1, A
//! begins as -1, ..., -n.
//!
//! Cost: O(L d n); the trained form is a scan over channels and states side by side.

use super::maps::{Affine, random};
use super::mixer::SequenceMixer;
use super::neural::{Gated, Linear, matrix_of, row_of, softplus as softplus_of};
use super::real::{Real, softplus};
use super::scan::scan;
use super::system::{Coefficients, Shape, Spread, Spreads};
use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the continuous system becomes one of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Discretisation {
    /// B = Delta b, as Mamba computes it.
    #[default]
    Euler,
    /// B = (exp(Delta A) - 1) / A b, exact for an input that stands still during a step.
    ZeroOrderHold,
}

/// S6 with its weights.
#[derive(Debug, Clone)]
pub struct S6<F> {
    /// To Delta before softplus, [channels, inputs].
    pub delta: Affine<F>,
    /// To b, [n, inputs].
    pub write: Array2<F>,
    /// To c, [n, inputs].
    pub read: Array2<F>,
    /// A, [channels, n], below 0.
    pub rate: Array2<F>,
    /// W, [channels, inputs].
    pub value: Array2<F>,
    /// D, [channels].
    pub skip: Array1<F>,
    /// The form of B.
    pub discretisation: Discretisation,
}

impl<F: Real> S6<F> {
    /// Drawn weights; A is -1, ..., -n, and the values are the inputs.
    pub fn random(
        channels: usize,
        n: usize,
        discretisation: Discretisation,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        S6 {
            delta: Affine::random(channels, channels, rng),
            write: random(n, channels, rng),
            read: random(n, channels, rng),
            rate: Array2::from_shape_fn((channels, n), |(_, r)| F::of(-(r as f64 + 1.0))),
            value: Array2::eye(channels),
            skip: random(channels, 1, rng).column(0).to_owned(),
            discretisation,
        }
    }

    /// What multiplies b, for a step of `delta` at the rate `a`.
    fn taken_in(&self, delta: F, a: F) -> F {
        match self.discretisation {
            Discretisation::Euler => delta,
            Discretisation::ZeroOrderHold => (delta * a).exp_m1() / a,
        }
    }
}

impl<F: Real> SequenceMixer<F> for S6<F> {
    fn shape(&self) -> Shape {
        Shape {
            channels: self.value.nrows(),
            n: self.rate.ncols(),
            heads: 1,
        }
    }

    fn spreads(&self) -> Spreads {
        Spreads {
            keep: Spread::State,
            write: Spread::State,
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
        let b = self.write.dot(&u);
        for (read, w) in out.read.iter_mut().zip(self.read.rows()) {
            *read = w.dot(&u);
        }
        let n = self.rate.ncols();
        for (c, rates) in self.rate.rows().into_iter().enumerate() {
            let delta = softplus(self.delta.at(c, u));
            for (r, a) in rates.iter().enumerate() {
                out.log_keep[c * n + r] = delta * *a;
                out.write[c * n + r] = self.taken_in(delta, *a) * b[r];
            }
        }
    }

    /// Step 3, channel by channel.
    fn native(&self, u: ArrayView2<F>) -> Array2<F> {
        let x = u.dot(&self.value.t());
        let delta = self.delta.all(u).mapv(softplus);
        let (b, c) = (u.dot(&self.write.t()), u.dot(&self.read.t()));
        let mut y = Array2::zeros(x.dim());
        for channel in 0..x.ncols() {
            let mut h = Array1::<F>::zeros(self.rate.ncols());
            for i in 0..x.nrows() {
                let (delta, x) = (delta[[i, channel]], x[[i, channel]]);
                let rates = self.rate.row(channel);
                h.zip_mut_with(&rates, |h, a| *h *= (delta * *a).exp());
                let taken = rates.mapv(|a| self.taken_in(delta, a) * x);
                h += &(&taken * &b.row(i));
                y[[i, channel]] = h.dot(&c.row(i)) + self.skip[channel] * x;
            }
        }
        y
    }
}

/// S6 as it is trained, with its gate and convolution.
#[derive(Module, Debug)]
pub struct S6Layer {
    gated: Gated,
    /// To the low-rank form of Delta, b and c.
    parts: Linear,
    delta: Linear,
    log_rate: Param<Tensor<2>>,
    skip: Param<Tensor<1>>,
    n: usize,
    #[module(skip)]
    discretisation: Discretisation,
}

/// Smallest and largest Delta at the start, as in Mamba.
const FIRST_DELTA: (f64, f64) = (1e-3, 1e-1);

/// Offsets from which softplus gives numbers between 1e-3 and 1e-1, evenly on a logarithmic scale.
pub(super) fn first_delta(count: usize, device: &Device) -> Tensor<1> {
    let (low, high) = FIRST_DELTA;
    let delta =
        Tensor::<1>::random([count], Distribution::Uniform(low.ln(), high.ln()), device).exp();
    // The inverse of softplus: log(exp(x) - 1).
    (delta.exp() - 1.0).log()
}

impl S6Layer {
    /// Inside `gated`, with `n` numbers a channel, for `d` numbers a position.
    pub(super) fn new(
        gated: Gated,
        n: usize,
        d: usize,
        discretisation: Discretisation,
        deviation: f64,
        device: &Device,
    ) -> Self {
        let channels = gated.channels();
        let rank = d.div_ceil(16);
        let rates: Vec<f32> = (0..channels)
            .flat_map(|_| (1..=n).map(|r| (r as f32).ln()))
            .collect();
        let mut delta = Linear::new(rank, channels, deviation, true, device);
        delta.set_bias(first_delta(channels, device));
        S6Layer {
            parts: Linear::new(channels, rank + 2 * n, deviation, false, device),
            delta,
            log_rate: Param::from_tensor(Tensor::from_data(
                burn::tensor::TensorData::new(rates, [channels, n]),
                device,
            )),
            skip: Initializer::Ones.init([channels], device),
            gated,
            n,
            discretisation,
        }
    }

    /// What goes into the system, [b, l, channels], and the gate.
    pub fn core(&self, x: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        self.gated.open(x)
    }

    /// Steps 1 to 3: [b, l, channels] to [b, l, channels].
    pub fn mix(&self, x: Tensor<3>) -> Tensor<3> {
        let [b, l, channels] = x.dims();
        let n = self.n;
        let parts = self.parts.forward(x.clone());
        let rank = parts.dims()[2] - 2 * n;
        let delta = softplus_of(self.delta.forward(parts.clone().narrow(2, 0, rank)));
        let write = parts.clone().narrow(2, rank, n).reshape([b, l, 1, n]);
        let read = parts.narrow(2, rank + n, n).reshape([b, l, n, 1]);
        let rate = -self.log_rate.val().exp().reshape([1, 1, channels, n]);
        let delta: Tensor<4> = delta.reshape([b, l, channels, 1]);
        let value: Tensor<4> = x.clone().reshape([b, l, channels, 1]);
        let keep = (delta.clone() * rate.clone()).exp();
        let taken = match self.discretisation {
            Discretisation::Euler => (delta * value) * write,
            Discretisation::ZeroOrderHold => (keep.clone() - 1.0) / rate * (value * write),
        };
        let flat = |t: Tensor<4>| t.reshape([b, l, channels * n]);
        let h = scan(flat(keep), flat(taken)).reshape([b, l, channels, n]);
        let y = h.matmul(read).reshape([b, l, channels]);
        y + x * self.skip.val().unsqueeze::<3>()
    }

    /// [b, l, d] to [b, l, d].
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let (core, gate) = self.core(x);
        self.gated.close(self.mix(core), gate)
    }

    /// The same with its weights in double precision.
    ///
    /// # Errors
    /// The device cannot give them.
    pub fn plain(&self) -> papertrial_core::Result<S6<f64>> {
        let parts = self.parts.plain()?.weight;
        let delta = self.delta.plain()?;
        let rank = delta.weight.ncols();
        let n = self.n;
        let rows =
            |from: usize, count: usize| parts.slice(ndarray::s![from..from + count, ..]).to_owned();
        Ok(S6 {
            delta: Affine {
                weight: delta.weight.dot(&rows(0, rank)),
                bias: delta.bias,
            },
            write: rows(rank, n),
            read: rows(rank + n, n),
            rate: matrix_of(self.log_rate.val())?.mapv(|a| -a.exp()),
            value: Array2::eye(self.gated.channels()),
            skip: row_of(self.skip.val())?,
            discretisation: self.discretisation,
        })
    }
}
