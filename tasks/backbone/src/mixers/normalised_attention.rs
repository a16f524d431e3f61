//! Normalised attention: linear attention whose normaliser is learned.
//!
//! Paper: *Understanding the differences in Foundation Models: Attention, State Space Models, and Recurrent Neural
//! Networks*, Sieber and others, 2024, 2405.15731.
//!
//! 1. q_i, k_i in R^m and v_i in R^d are maps of the input, without a feature map and without a scale.
//! 2. y_i = sum over j <= i of q_i.k_j v_j / eta(u_i), with eta(u) = exp(w.u + b), one number a head (or softplus or
//!    sigmoid instead of exp), which looks at the position alone.
//! 3. As a system, a head: Lam_i = (eta(u_{i-1}) / eta(u_i)) I, B_i = I (x) k_i W / eta(u_i), C_i = I (x) q_i^T, n = m.
//!
//! w.u + b is held within -20 and 20, so that neither eta nor its inverse overflows; [`NormalisedAttention::held`]
//! counts how often that changes it. As Lam is a quotient of neighbours, its product over a span is the quotient of
//! the ends: normalised attention does not forget, it scales.
//!
//! The authors' code has eta = exp(W_n u) with an offset, and dropout on the weights after the division, as here.

use super::linear_attention::{LARGEST, SEPARABLE};
use super::maps::{Affine, Maps};
use super::mixer::SequenceMixer;
use super::neural::{self, AttentionMaps, Linear, Products, merge};
use super::real::{Real, log_sigmoid, sigmoid, softplus};
use super::system::{Coefficients, Shape, Spreads};
use burn::module::Module;
use burn::tensor::Tensor;
use ndarray::{Array2, ArrayView1, ArrayView2};
use papertrial_nn::ops;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The function that makes the normaliser positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Eta {
    /// exp(x), the paper's.
    #[default]
    Exponential,
    /// log(1 + exp(x)).
    Softplus,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
}

impl Eta {
    fn of<F: Real>(self, x: F) -> F {
        let x = held(x);
        match self {
            Eta::Exponential => x.exp(),
            Eta::Softplus => softplus(x),
            Eta::Sigmoid => sigmoid(x),
        }
    }

    fn log<F: Real>(self, x: F) -> F {
        let x = held(x);
        match self {
            Eta::Exponential => x,
            Eta::Softplus => softplus(x).ln(),
            Eta::Sigmoid => log_sigmoid(x),
        }
    }

    fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        let x = x.clamp(-LARGEST, LARGEST);
        match self {
            Eta::Exponential => x.exp(),
            Eta::Softplus => neural::softplus(x),
            Eta::Sigmoid => ops::sigmoid(x),
        }
    }
}

fn held<F: Real>(x: F) -> F {
    x.max(F::of(-LARGEST)).min(F::of(LARGEST))
}

/// Normalised attention with its weights.
#[derive(Debug, Clone)]
pub struct NormalisedAttention<F> {
    /// Queries, keys, values.
    pub maps: Maps<F>,
    /// w and b of each head.
    pub norm: Affine<F>,
    /// The normaliser's function.
    pub eta: Eta,
}

impl<F: Real> NormalisedAttention<F> {
    /// Drawn weights, as [`Maps::random`].
    pub fn random(
        inputs: usize,
        channels: usize,
        m: usize,
        heads: usize,
        eta: Eta,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        NormalisedAttention {
            maps: Maps::random(inputs, channels, m, heads, rng),
            norm: Affine::random(heads, inputs, rng),
            eta,
        }
    }

    /// How many of the exponents w.u + b of `u`, [L, inputs], are beyond -20 or 20, and how many there are.
    pub fn held(&self, u: ArrayView2<F>) -> (usize, usize) {
        let exponents = self.norm.all(u);
        let beyond = exponents.iter().filter(|x| **x != held(**x)).count();
        (beyond, exponents.len())
    }
}

impl<F: Real> SequenceMixer<F> for NormalisedAttention<F> {
    fn shape(&self) -> Shape {
        self.maps.shape(self.maps.width())
    }

    fn spreads(&self) -> Spreads {
        SEPARABLE
    }

    fn values(&self) -> ArrayView2<'_, F> {
        self.maps.value.view()
    }

    /// The logarithm of each head's last eta.
    fn carried(&self) -> usize {
        self.maps.heads
    }

    /// Step 3.
    fn coefficients(&self, u: ArrayView1<F>, carried: &mut [F], out: &mut Coefficients<F>) {
        let n = self.maps.width();
        for (head, last) in carried.iter_mut().enumerate() {
            let place = head * n..(head + 1) * n;
            let log = self.eta.log(self.norm.at(head, u));
            out.log_keep[head] = *last - log;
            *last = log;
            let scale = (-log).exp();
            for (write, k) in out.write[place.clone()]
                .iter_mut()
                .zip(self.maps.key_of(head, u))
            {
                *write = k * scale;
            }
            out.read[place].copy_from_slice(&self.maps.query_of(head, u));
        }
    }

    /// Step 2.
    fn native(&self, u: ArrayView2<F>) -> Array2<F> {
        let exponents = self.norm.all(u);
        self.maps.attend(u, |head, queries, keys| {
            let mut weights = queries.dot(&keys.t());
            for (mut row, x) in weights.rows_mut().into_iter().zip(exponents.column(head)) {
                let eta = self.eta.of(*x);
                row.mapv_inplace(|w| w / eta);
            }
            weights
        })
    }
}

/// Normalised attention as it is trained.
#[derive(Module, Debug)]
pub struct NormalisedAttentionLayer {
    maps: AttentionMaps,
    norm: Linear,
    products: Products,
    #[module(skip)]
    eta: Eta,
}

impl NormalisedAttentionLayer {
    /// With these maps; `norm` is from the layer's input to one number a head.
    pub(super) fn new(maps: AttentionMaps, norm: Linear, eta: Eta, dropout: f64) -> Self {
        NormalisedAttentionLayer {
            maps,
            norm,
            products: Products::new(dropout),
            eta,
        }
    }

    /// What goes into the system: [b, l, d] to [b, l, inputs].
    pub fn core(&self, x: Tensor<3>) -> Tensor<3> {
        self.maps.core(x)
    }

    /// The system: [b, l, inputs] to [b, l, channels].
    pub fn mix(&self, core: Tensor<3>) -> Tensor<3> {
        let (heads, now) = (self.maps.heads(), self.maps.now(core.clone()));
        let parts = self.maps.open(core);
        let y = self
            .products
            .plain(parts.queries, parts.keys, parts.values, None);
        let eta = self.eta.apply(self.norm.forward(now));
        merge(y / neural::split(eta, heads), heads)
    }

    /// [b, l, d] to [b, l, d].
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.maps.close(self.mix(self.core(x)))
    }

    /// The same with its weights in double precision.
    ///
    /// # Errors
    /// The device cannot give them.
    pub fn plain(&self) -> papertrial_core::Result<NormalisedAttention<f64>> {
        let maps = self.maps.plain()?;
        let inputs = maps.value.ncols();
        Ok(NormalisedAttention {
            maps,
            norm: self.norm.plain_from_first(inputs)?,
            eta: self.eta,
        })
    }
}
