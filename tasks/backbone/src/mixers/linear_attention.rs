//! Linear attention (Katharopoulos and others, *Transformers are RNNs*, 2006.16236), and the statements of *Understanding
//! the differences in Foundation Models* (Sieber and others, 2405.15731) about it.
//!
//! 1. q_i, k_i in R^m and v_i in R^d are maps of the input; phi is a function of each number, above 0.
//! 2. y_i = sum over j <= i of phi(q_i).phi(k_j) v_j / eta_i, with eta_i = phi(q_i).z_i and z_i = the sum of phi(k_j).
//! 3. As a system, a head: Lam_i = (eta_{i-1} / eta_i) I, B_i = I (x) phi(k_i) W / eta_i, C_i = I (x) phi(q_i)^T, n = m.
//!
//! eta_i depends on all positions before: z_i and the logarithm of the last eta are carried. A feature map above 0
//! keeps eta above 0.
//!
//! Cost: O(L m d) in steps of O(m d) memory; the trained form takes O(L chunk (m + d)).

use super::maps::{Maps, share};
use super::mixer::SequenceMixer;
use super::neural::{AttentionMaps, Products, merge};
use super::real::{Real, softplus};
use super::system::{Coefficients, Shape, Spread, Spreads};
use burn::module::Module;
use burn::tensor::{Tensor, activation};
use ndarray::{Array2, ArrayView1, ArrayView2};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The function phi of each number of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    /// elu(x) + 1: x + 1 above 0, exp(x) below.
    #[default]
    EluPlusOne,
    /// exp(x), x held within -20 and 20.
    Exponential,
    /// log(1 + exp(x)).
    Softplus,
    /// max(x, 0) + 1e-3.
    Relu,
}

/// Added by [`Kernel::Relu`], so that the sum of the weights stays above 0.
const ABOVE_ZERO: f64 = 1e-3;
/// Largest exponent, either way.
pub(super) const LARGEST: f64 = 20.0;

impl Kernel {
    /// Of a number.
    pub fn of<F: Real>(self, x: F) -> F {
        match self {
            Kernel::EluPlusOne if x > F::zero() => x + F::one(),
            Kernel::EluPlusOne => x.exp(),
            Kernel::Exponential => x.max(F::of(-LARGEST)).min(F::of(LARGEST)).exp(),
            Kernel::Softplus => softplus(x),
            Kernel::Relu => x.max(F::zero()) + F::of(ABOVE_ZERO),
        }
    }

    /// Of each number of a tensor.
    fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            // relu(x) + exp(min(x, 0)) is the same on both sides.
            Kernel::EluPlusOne => activation::relu(x.clone()) + x.clamp_max(0.0).exp(),
            Kernel::Exponential => x.clamp(-LARGEST, LARGEST).exp(),
            Kernel::Softplus => super::neural::softplus(x),
            Kernel::Relu => activation::relu(x) + ABOVE_ZERO,
        }
    }
}

/// Linear attention with its weights.
#[derive(Debug, Clone)]
pub struct LinearAttention<F> {
    /// Queries, keys, values.
    pub maps: Maps<F>,
    /// phi.
    pub kernel: Kernel,
}

impl<F: Real> LinearAttention<F> {
    /// Drawn weights, as [`Maps::random`].
    pub fn random(
        inputs: usize,
        channels: usize,
        m: usize,
        heads: usize,
        kernel: Kernel,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        LinearAttention {
            maps: Maps::random(inputs, channels, m, heads, rng),
            kernel,
        }
    }
}

/// Step 3 for feature maps that are already computed: what linear attention and the truncated softmax share.
/// `carried` holds z of each head, then the logarithm of each head's last eta.
pub(super) fn separable<F: Real>(
    heads: usize,
    n: usize,
    feature: impl Fn(usize) -> (Vec<F>, Vec<F>),
    carried: &mut [F],
    out: &mut Coefficients<F>,
) {
    let (sums, last) = carried.split_at_mut(heads * n);
    for (head, last) in last.iter_mut().enumerate() {
        let place = head * n..(head + 1) * n;
        let (phi, psi) = feature(head);
        let mut eta = F::zero();
        for ((z, psi), phi) in sums[place.clone()].iter_mut().zip(&psi).zip(&phi) {
            *z += *psi;
            eta += *z * *phi;
        }
        out.log_keep[head] = *last - eta.ln();
        *last = eta.ln();
        for (write, psi) in out.write[place.clone()].iter_mut().zip(&psi) {
            *write = *psi / eta;
        }
        out.read[place].copy_from_slice(&phi);
    }
}

/// The spreads of separable attention.
pub(super) const SEPARABLE: Spreads = Spreads {
    keep: Spread::Head,
    write: Spread::Feature,
    read: Spread::Feature,
};

impl<F: Real> SequenceMixer<F> for LinearAttention<F> {
    fn shape(&self) -> Shape {
        self.maps.shape(self.maps.width())
    }

    fn spreads(&self) -> Spreads {
        SEPARABLE
    }

    fn values(&self) -> ArrayView2<'_, F> {
        self.maps.value.view()
    }

    fn carried(&self) -> usize {
        self.maps.heads * (self.maps.width() + 1)
    }

    fn coefficients(&self, u: ArrayView1<F>, carried: &mut [F], out: &mut Coefficients<F>) {
        let feature = |head: usize| {
            let mut phi = self.maps.query_of(head, u);
            let mut psi = self.maps.key_of(head, u);
            for x in phi.iter_mut().chain(&mut psi) {
                *x = self.kernel.of(*x);
            }
            (phi, psi)
        };
        separable(self.maps.heads, self.maps.width(), feature, carried, out);
    }

    /// Step 2.
    fn native(&self, u: ArrayView2<F>) -> Array2<F> {
        self.maps.attend(u, |_, queries, keys| {
            let phi = |x: F| self.kernel.of(x);
            share(queries.mapv(phi).dot(&keys.mapv(phi).t()))
        })
    }
}

/// Linear attention as it is trained.
#[derive(Module, Debug)]
pub struct LinearAttentionLayer {
    maps: AttentionMaps,
    products: Products,
    #[module(skip)]
    kernel: Kernel,
}

impl LinearAttentionLayer {
    /// With these maps.
    pub(super) fn new(maps: AttentionMaps, kernel: Kernel, dropout: f64) -> Self {
        LinearAttentionLayer {
            maps,
            products: Products::new(dropout),
            kernel,
        }
    }

    /// What goes into the system: [b, l, d] to [b, l, inputs].
    pub fn core(&self, x: Tensor<3>) -> Tensor<3> {
        self.maps.core(x)
    }

    /// The system: [b, l, inputs] to [b, l, channels].
    pub fn mix(&self, core: Tensor<3>) -> Tensor<3> {
        let parts = self.maps.open(core);
        let (queries, keys) = (
            self.kernel.apply(parts.queries),
            self.kernel.apply(parts.keys),
        );
        let (y, sums) = self.products.normalised(queries, keys, parts.values);
        merge(y / sums, self.maps.heads())
    }

    /// [b, l, d] to [b, l, d].
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.maps.close(self.mix(self.core(x)))
    }

    /// The same with its weights in double precision.
    ///
    /// # Errors
    /// The device cannot give them.
    pub fn plain(&self) -> papertrial_core::Result<LinearAttention<f64>> {
        Ok(LinearAttention {
            maps: self.maps.plain()?,
            kernel: self.kernel,
        })
    }
}
