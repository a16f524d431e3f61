//! RG-LRU, the recurrent mixer of Griffin (De and others, 2402.19427).
//!
//! 1. Gates, each a map of the input with offsets: r_i = sigmoid(.) and g_i = sigmoid(.), one number a channel.
//! 2. a_i = exp(-c softplus(A) r_i) with c = 8 and A learned, one number a channel.
//! 3. Lam_i = diag(a_i), B_i = diag(sqrt(1 - a_i^2) g_i) W, C_i = I, D = 0, n = 1.
//! 4. h_i = Lam_i h_{i-1} + B_i u_i, y_i = h_i.
//!
//! The trained layer: a map to (gate, x), a causal convolution of width 4 on x, the system with W = I, times
//! GELU(gate), a map back; twice as many channels as d, as for qLSTM; A such that exp(-c softplus(A)) begins between
//! .9 and .999, as in Griffin.
//!
//! Cost: O(L d); the trained form is a scan over the channels side by side.

use super::maps::{Affine, random};
use super::mixer::SequenceMixer;
use super::neural::{Gated, Linear, row_of, softplus as softplus_of};
use super::qlstm::ONE_EACH;
use super::real::{Real, sigmoid, softplus};
use super::scan::scan;
use super::system::{Coefficients, Shape, Spreads};
use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, s};
use papertrial_nn::ops;
use rand_chacha::ChaCha8Rng;

/// c of step 2.
const SHARPNESS: f64 = 8.0;
/// Least 1 - a^2 whose root is taken while training: at 0 the root has no slope.
const LEAST: f64 = 1e-6;

/// RG-LRU with its weights.
#[derive(Debug, Clone)]
pub struct RgLru<F> {
    /// To the gates before their curves, [2 channels, inputs]: recurrence, input.
    pub gates: Affine<F>,
    /// A, [channels].
    pub rate: Array1<F>,
    /// W, [channels, inputs].
    pub value: Array2<F>,
}

impl<F: Real> RgLru<F> {
    /// Drawn weights; the values are the inputs.
    pub fn random(channels: usize, rng: &mut ChaCha8Rng) -> Self {
        RgLru {
            gates: Affine::random(2 * channels, channels, rng),
            rate: random(channels, 1, rng)
                .column(0)
                .mapv(|a: F| a - F::of(3.0)),
            value: Array2::eye(channels),
        }
    }
}

impl<F: Real> SequenceMixer<F> for RgLru<F> {
    fn shape(&self) -> Shape {
        Shape {
            channels: self.value.nrows(),
            n: 1,
            heads: 1,
        }
    }

    fn spreads(&self) -> Spreads {
        ONE_EACH
    }

    fn values(&self) -> ArrayView2<'_, F> {
        self.value.view()
    }

    /// Steps 1 to 3; 1 - a^2 is taken from the logarithm, so that it keeps its digits where a is near 1.
    fn coefficients(&self, u: ArrayView1<F>, _: &mut [F], out: &mut Coefficients<F>) {
        let channels = self.value.nrows();
        for c in 0..channels {
            let log = -F::of(SHARPNESS) * softplus(self.rate[c]) * sigmoid(self.gates.at(c, u));
            out.log_keep[c] = log;
            let room = -(F::of(2.0) * log).exp_m1();
            out.write[c] = room.sqrt() * sigmoid(self.gates.at(channels + c, u));
            out.read[c] = F::one();
        }
    }

    /// Step 4 as it is written.
    fn native(&self, u: ArrayView2<F>) -> Array2<F> {
        let gates = self.gates.all(u).mapv(sigmoid);
        let x = u.dot(&self.value.t());
        let channels = x.ncols();
        let base = self.rate.mapv(|a| (-softplus(a)).exp());
        let mut h = Array1::<F>::zeros(channels);
        let mut y = Array2::zeros(x.dim());
        for i in 0..x.nrows() {
            let gates = gates.row(i);
            for c in 0..channels {
                let power = F::of(SHARPNESS) * gates[c];
                let a = base[c].powf(power);
                let room = ((F::one() - a) * (F::one() + a)).sqrt();
                h[c] = a * h[c] + room * gates[channels + c] * x[[i, c]];
            }
            y.slice_mut(s![i, ..]).assign(&h);
        }
        y
    }
}

/// RG-LRU as it is trained, with its gate and convolution.
#[derive(Module, Debug)]
pub struct RgLruLayer {
    gated: Gated,
    gates: Linear,
    rate: Param<Tensor<1>>,
}

impl RgLruLayer {
    /// Inside `gated`.
    pub(super) fn new(gated: Gated, deviation: f64, device: &Device) -> Self {
        let channels = gated.channels();
        let first = Tensor::<1>::random([channels], Distribution::Uniform(0.9, 0.999), device);
        // Of softplus(A) = -log(first) / c, by softplus's inverse.
        let rate = ((-first.log() / SHARPNESS).exp() - 1.0).log();
        RgLruLayer {
            gates: Linear::new(channels, 2 * channels, deviation, true, device),
            rate: Param::from_tensor(rate),
            gated,
        }
    }

    /// What goes into the system, [b, l, channels], and the gate.
    pub fn core(&self, x: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        self.gated.open(x)
    }

    /// Steps 1 to 4: [b, l, channels] to [b, l, channels].
    pub fn mix(&self, x: Tensor<3>) -> Tensor<3> {
        let channels = self.gated.channels();
        let gates = ops::sigmoid(self.gates.forward(x.clone()));
        let part = |i: usize| gates.clone().narrow(2, i * channels, channels);
        let rate = softplus_of(self.rate.val()).unsqueeze::<3>() * -SHARPNESS;
        let keep = (part(0) * rate).exp();
        let room = (-keep.clone().square() + 1.0).clamp_min(LEAST).sqrt();
        scan(keep, room * part(1) * x)
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
    pub fn plain(&self) -> papertrial_core::Result<RgLru<f64>> {
        Ok(RgLru {
            gates: self.gates.plain()?,
            rate: row_of(self.rate.val())?,
            value: Array2::eye(self.gated.channels()),
        })
    }
}
