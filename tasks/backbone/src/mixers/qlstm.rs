//! qLSTM: an LSTM whose gates look at the input alone, plain and with the reversed gate.
//!
//! Paper: *Understanding the differences in Foundation Models: Attention, State Space Models, and Recurrent Neural
//! Networks*, Sieber and others, 2024, 2405.15731.
//!
//! 1. Gates, each a map of the input with offsets: f_i, g_i, o_i, one number a channel.
//! 2. Lam_i = diag(sigmoid(f_i)), B_i = diag(sigmoid(g_i)) W, C_i = diag(sigmoid(o_i)), D = 0, n = 1.
//! 3. Reversed: Lam_i = diag(sigmoid(-f_i)^relu(alpha)), alpha one learned number, at first 1. This is how S6 forgets:
//!    sigmoid(-x)^alpha = exp(-alpha softplus(x)), which is how it is computed.
//! 4. h_i = Lam_i h_{i-1} + B_i u_i, y_i = C_i h_i.
//!
//! The trained layer: a map to (gate, x), a causal convolution of width 4 on x, the system with W = I, times
//! GELU(gate), a map back; twice as many channels as d. So does the authors' code, offsets included.
//!
//! Cost: O(L d); the trained form is a scan over the channels side by side.

use super::maps::Affine;
use super::mixer::SequenceMixer;
use super::neural::{Gated, Linear, row_of, softplus as softplus_of};
use super::real::{Real, log_sigmoid, sigmoid, softplus};
use super::scan::scan;
use super::system::{Coefficients, Shape, Spread, Spreads};
use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor, activation};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, s};
use papertrial_nn::ops;
use rand_chacha::ChaCha8Rng;

/// qLSTM with its weights.
#[derive(Debug, Clone)]
pub struct QLstm<F> {
    /// To the gates before their curves, [3 channels, inputs]: forget, input, output.
    pub gates: Affine<F>,
    /// W, [channels, inputs].
    pub value: Array2<F>,
    /// alpha of the reversed gate; the plain gate without.
    pub alpha: Option<F>,
}

impl<F: Real> QLstm<F> {
    /// Drawn weights; the values are the inputs.
    pub fn random(channels: usize, reversed: bool, rng: &mut ChaCha8Rng) -> Self {
        QLstm {
            gates: Affine::random(3 * channels, channels, rng),
            value: Array2::eye(channels),
            alpha: reversed.then(|| F::of(1.3)),
        }
    }
}

/// The spreads of a mixer with one number of the state a channel.
pub(super) const ONE_EACH: Spreads = Spreads {
    keep: Spread::Channel,
    write: Spread::Channel,
    read: Spread::Channel,
};

impl<F: Real> SequenceMixer<F> for QLstm<F> {
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

    /// Steps 1 to 3.
    fn coefficients(&self, u: ArrayView1<F>, _: &mut [F], out: &mut Coefficients<F>) {
        let channels = self.value.nrows();
        for c in 0..channels {
            let f = self.gates.at(c, u);
            out.log_keep[c] = match self.alpha {
                Some(alpha) => -alpha.max(F::zero()) * softplus(f),
                None => log_sigmoid(f),
            };
            out.write[c] = sigmoid(self.gates.at(channels + c, u));
            out.read[c] = sigmoid(self.gates.at(2 * channels + c, u));
        }
    }

    /// Step 4 as the cell of a recurrent network, with powers of sigmoids.
    fn native(&self, u: ArrayView2<F>) -> Array2<F> {
        let gates = self.gates.all(u);
        let x = u.dot(&self.value.t());
        let channels = x.ncols();
        let mut h = Array1::<F>::zeros(channels);
        let mut y = Array2::zeros(x.dim());
        for i in 0..x.nrows() {
            let gates = gates.row(i);
            let forget = gates.slice(s![..channels]).mapv(|f| match self.alpha {
                Some(alpha) => sigmoid(-f).powf(alpha.max(F::zero())),
                None => sigmoid(f),
            });
            let input = gates.slice(s![channels..2 * channels]).mapv(sigmoid);
            let output = gates.slice(s![2 * channels..]).mapv(sigmoid);
            h = h * forget + input * x.row(i);
            y.row_mut(i).assign(&(output * &h));
        }
        y
    }
}

/// qLSTM as it is trained, with its gate and convolution.
#[derive(Module, Debug)]
pub struct QLstmLayer {
    gated: Gated,
    gates: Linear,
    alpha: Option<Param<Tensor<1>>>,
}

impl QLstmLayer {
    /// Inside `gated`.
    pub(super) fn new(gated: Gated, reversed: bool, deviation: f64, device: &Device) -> Self {
        let channels = gated.channels();
        QLstmLayer {
            gates: Linear::new(channels, 3 * channels, deviation, true, device),
            alpha: reversed.then(|| Initializer::Ones.init([1], device)),
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
        let gates = self.gates.forward(x.clone());
        let part = |i: usize| gates.clone().narrow(2, i * channels, channels);
        let keep = match &self.alpha {
            Some(alpha) => {
                let alpha = activation::relu(alpha.val()).unsqueeze::<3>();
                (-softplus_of(part(0)) * alpha).exp()
            }
            None => ops::sigmoid(part(0)),
        };
        scan(keep, ops::sigmoid(part(1)) * x) * ops::sigmoid(part(2))
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
    pub fn plain(&self) -> papertrial_core::Result<QLstm<f64>> {
        let alpha = match &self.alpha {
            Some(alpha) => row_of(alpha.val())?.first().copied(),
            None => None,
        };
        Ok(QLstm {
            gates: self.gates.plain()?,
            value: Array2::eye(self.gated.channels()),
            alpha,
        })
    }
}
