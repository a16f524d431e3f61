//! Softmax attention (Vaswani and others, *Attention is all you need*, 1706.03762), exact and cut to a finite state.
//!
//! 1. q_i, k_i in R^m and v_i in R^d are maps of the input.
//! 2. y_i = sum over j <= i of exp(q_i.k_j / sqrt m) v_j, divided by the sum of the weights.
//! 3. exp(x.y) with x = q / m^(1/4) and y = k / m^(1/4) is the product of two feature maps: the monomials x^a / sqrt(a!)
//!    for all exponents a in N^m. Those of degree 0 to p give the Taylor polynomial of order p, with
//!    n_p = the sum over t <= p of C(m + t - 1, t) numbers. This is separable attention with phi = psi, and the system
//!    is that of linear attention.
//!
//! No finite n is exact for all inputs. On inputs with |q.k| / sqrt m <= r a weight is wrong by at most
//! e^r r^(p+1) / (p+1)!. An even order is above 0 everywhere, so that eta is; an odd one is not, and is refused.
//!
//! The exact form keeps all keys and values: [`KeyValueStore`] grows with the length.
//!
//! Cost: O(L n_p d) cut, in O(n_p d) memory; O(L^2 (m + d)) exact.

use super::linear_attention::{SEPARABLE, separable};
use super::maps::{Maps, share};
use super::mixer::SequenceMixer;
use super::neural::{AttentionMaps, merge};
use super::real::Real;
use super::system::{Coefficients, Shape, Spreads};
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Bool, Tensor};
use ndarray::{Array2, ArrayView1, ArrayView2};
use papertrial_core::{Error, Result};
use papertrial_nn::ops;

/// Most monomials of a truncation.
const MOST_FEATURES: usize = 1_000_000;

/// n_p, the monomials of `m` numbers up to degree `order`; the largest number there is if that overflows.
pub fn monomials(m: usize, order: usize) -> usize {
    let mut total: usize = 1;
    let mut of_degree: u128 = 1;
    for t in 1..=order {
        of_degree = of_degree.saturating_mul((m + t - 1) as u128) / t as u128;
        total = total.saturating_add(usize::try_from(of_degree).unwrap_or(usize::MAX));
    }
    total
}

/// How each monomial comes from one of lower degree: which, by what number, and the factor.
#[derive(Debug, Clone)]
struct Monomials<F> {
    made: Vec<(usize, usize, F)>,
}

impl<F: Real> Monomials<F> {
    fn new(m: usize, order: usize) -> Self {
        let mut made = Vec::new();
        // Of the last degree: place of the monomial, its last number, how often that occurs in it. Place 0 is 1.
        let mut last: Vec<(usize, usize, usize)> = vec![(0, 0, 0)];
        for _ in 0..order {
            let mut next = Vec::new();
            for (place, number, times) in &last {
                for by in *number..m {
                    let times = if by == *number { times + 1 } else { 1 };
                    made.push((*place, by, F::of(1.0 / (times as f64).sqrt())));
                    next.push((made.len(), by, times));
                }
            }
            last = next;
        }
        Monomials { made }
    }

    /// x^a / sqrt(a!) for all a, that of degree 0 first.
    fn of(&self, x: &[F]) -> Vec<F> {
        let mut features = Vec::with_capacity(self.made.len() + 1);
        features.push(F::one());
        for (from, by, factor) in &self.made {
            features.push(features[*from] * x[*by] * *factor);
        }
        features
    }
}

/// Softmax attention with its weights, cut to a state of n_p numbers a channel.
#[derive(Debug, Clone)]
pub struct SoftmaxAttention<F> {
    /// Queries, keys, values.
    pub maps: Maps<F>,
    order: usize,
    monomials: Monomials<F>,
}

impl<F: Real> SoftmaxAttention<F> {
    /// With these maps, cut at an even `order`.
    ///
    /// # Errors
    /// An odd order, or one that makes more than a million monomials.
    pub fn new(maps: Maps<F>, order: usize) -> Result<Self> {
        if !order.is_multiple_of(2) {
            return Err(Error::option(
                "order",
                format!(
                    "{order} is odd; a Taylor polynomial of the exponential stays above 0 only where its order is even"
                ),
            ));
        }
        let n = monomials(maps.width(), order);
        if n > MOST_FEATURES {
            return Err(Error::option(
                "order",
                format!(
                    "order {order} of {} features makes a state of {n} numbers a channel; at most {MOST_FEATURES} are allowed: lower order or state",
                    maps.width()
                ),
            ));
        }
        Ok(SoftmaxAttention {
            order,
            monomials: Monomials::new(maps.width(), order),
            maps,
        })
    }

    /// 1 / m^(1/4).
    fn scale(&self) -> F {
        F::of((self.maps.width() as f64).powf(-0.25))
    }
}

/// Step 2, exact: [L, inputs] to [L, channels].
pub fn exact<F: Real>(maps: &Maps<F>, u: ArrayView2<F>) -> Array2<F> {
    maps.attend(u, |_, queries, keys| exact_weights(logits(queries, keys)))
}

/// The shares of each row, [L, L], from q_i.k_j / sqrt m.
pub fn exact_weights<F: Real>(mut logits: Array2<F>) -> Array2<F> {
    for (i, mut row) in logits.rows_mut().into_iter().enumerate() {
        let top = row
            .iter()
            .take(i + 1)
            .fold(F::neg_infinity(), |a, b| a.max(*b));
        row.mapv_inplace(|x| (x - top).min(F::zero()).exp());
    }
    share(logits)
}

/// q_i.k_j / sqrt m, [L, L].
pub fn logits<F: Real>(queries: Array2<F>, keys: Array2<F>) -> Array2<F> {
    let scale = F::of((queries.ncols().max(1) as f64).sqrt());
    queries.dot(&keys.t()) / scale
}

/// The Taylor polynomial of the exponential, of any order, in place of the exponential: [L, inputs] to [L, channels].
pub fn truncated<F: Real>(maps: &Maps<F>, order: usize, u: ArrayView2<F>) -> Array2<F> {
    maps.attend(u, |_, queries, keys| {
        share(logits(queries, keys).mapv(|x| polynomial(x, order)))
    })
}

/// 1 + x + ... + x^p / p!, by Horner.
pub fn polynomial<F: Real>(x: F, order: usize) -> F {
    (1..=order)
        .rev()
        .fold(F::one(), |sum, t| F::one() + x * sum / F::of(t as f64))
}

/// The exact form step by step: all keys and values so far.
pub struct KeyValueStore<'a, F> {
    maps: &'a Maps<F>,
    /// Of each position: the keys of all heads, then the values.
    rows: Vec<Vec<F>>,
}

impl<'a, F: Real> KeyValueStore<'a, F> {
    /// Before the first position.
    pub fn new(maps: &'a Maps<F>) -> Self {
        KeyValueStore {
            maps,
            rows: Vec::new(),
        }
    }

    /// The output at the next position, whose input is `u`.
    pub fn step(&mut self, u: ArrayView1<F>) -> Vec<F> {
        let maps = self.maps;
        let (heads, m) = (maps.heads, maps.width());
        let channels = maps.value.nrows();
        let wide = channels / heads.max(1);
        let mut row: Vec<F> = (0..heads).flat_map(|h| maps.key_of(h, u)).collect();
        row.extend(maps.value.rows().into_iter().map(|w| w.dot(&u)));
        self.rows.push(row);
        let mut y = vec![F::zero(); channels];
        let scale = F::of((m as f64).sqrt());
        for (head, y) in y.chunks_exact_mut(wide).enumerate() {
            let query = maps.query_of(head, u);
            // The largest logit so far, and sums that are scaled anew whenever it grows.
            let (mut top, mut sum) = (F::neg_infinity(), F::zero());
            for row in &self.rows {
                let keys = &row[head * m..(head + 1) * m];
                let dot = query
                    .iter()
                    .zip(keys)
                    .fold(F::zero(), |s, (q, k)| s + *q * *k);
                let logit = dot / scale;
                let higher = top.max(logit);
                let (old, new) = ((top - higher).exp(), (logit - higher).exp());
                sum = sum * old + new;
                let values = &row[heads * m + head * wide..];
                for (y, v) in y.iter_mut().zip(values) {
                    *y = *y * old + new * *v;
                }
                top = higher;
            }
            for y in y {
                *y /= sum;
            }
        }
        y
    }

    /// Bytes that it holds now.
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(|r| r.capacity() * F::BYTES).sum()
    }
}

impl<F: Real> SequenceMixer<F> for SoftmaxAttention<F> {
    fn shape(&self) -> Shape {
        self.maps.shape(self.monomials.made.len() + 1)
    }

    fn spreads(&self) -> Spreads {
        SEPARABLE
    }

    fn values(&self) -> ArrayView2<'_, F> {
        self.maps.value.view()
    }

    fn carried(&self) -> usize {
        self.maps.heads * (self.monomials.made.len() + 2)
    }

    /// Step 3.
    fn coefficients(&self, u: ArrayView1<F>, carried: &mut [F], out: &mut Coefficients<F>) {
        let feature = |head: usize| {
            let scaled = |mut x: Vec<F>| {
                x.iter_mut().for_each(|x| *x *= self.scale());
                self.monomials.of(&x)
            };
            (
                scaled(self.maps.query_of(head, u)),
                scaled(self.maps.key_of(head, u)),
            )
        };
        let n = self.monomials.made.len() + 1;
        separable(self.maps.heads, n, feature, carried, out);
    }

    /// The polynomial in place of the exponential.
    fn native(&self, u: ArrayView2<F>) -> Array2<F> {
        truncated(&self.maps, self.order, u)
    }
}

/// Softmax attention as it is trained, exact.
#[derive(Module, Debug)]
pub struct SoftmaxAttentionLayer {
    maps: AttentionMaps,
    dropout: Dropout,
}

impl SoftmaxAttentionLayer {
    /// With these maps.
    pub(super) fn new(maps: AttentionMaps, dropout: f64) -> Self {
        SoftmaxAttentionLayer {
            maps,
            dropout: DropoutConfig::new(dropout).init(),
        }
    }

    /// What goes into the mixer: [b, l, d] to [b, l, inputs].
    pub fn core(&self, x: Tensor<3>) -> Tensor<3> {
        self.maps.core(x)
    }

    /// Step 2: [b, l, inputs] to [b, l, channels].
    pub fn mix(&self, core: Tensor<3>) -> Tensor<3> {
        let parts = self.maps.open(core);
        let [_, l, m] = parts.queries.dims();
        let logits = (parts.queries / (m as f64).sqrt()).matmul(parts.keys.transpose());
        let later = Tensor::<2, Bool>::tril_mask([l, l], 0, &logits.device());
        let shares = ops::softmax(logits.mask_fill(later.unsqueeze::<3>(), -1e9));
        let y = self.dropout.forward(shares).matmul(parts.values);
        merge(y, self.maps.heads())
    }

    /// [b, l, d] to [b, l, d].
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.maps.close(self.mix(self.core(x)))
    }

    /// Its weights in double precision.
    ///
    /// # Errors
    /// The device cannot give them.
    pub fn plain(&self) -> Result<Maps<f64>> {
        self.maps.plain()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_numerics::sampling::rng;
    use rand::RngExt;

    #[test]
    fn the_number_of_monomials() {
        // Of 3 numbers: 1, 3 and 6 of degree 0, 1 and 2.
        assert_eq!(monomials(3, 2), 10);
        assert_eq!(monomials(8, 2), 45);
        for (m, order) in [(1, 4), (3, 4), (5, 2)] {
            let made = Monomials::<f64>::new(m, order).made.len() + 1;
            assert_eq!(made, monomials(m, order));
        }
        assert_eq!(monomials(4000, 40), usize::MAX);
    }

    #[test]
    fn the_features_multiply_to_the_polynomial() {
        let mut rng = rng(5, "features");
        let mut draw = || -> Vec<f64> { (0..4).map(|_| rng.random_range(-1.0..1.0)).collect() };
        let (x, y) = (draw(), draw());
        let dot: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
        for order in 0..=6 {
            let monomials = Monomials::new(4, order);
            let (phi, psi) = (monomials.of(&x), monomials.of(&y));
            let got: f64 = phi.iter().zip(&psi).map(|(a, b)| a * b).sum();
            assert!((got - polynomial(dot, order)).abs() < 1e-13);
        }
        assert!((polynomial(0.5f64, 3) - (1.0 + 0.5 + 0.125 + 0.125 / 6.0)).abs() < 1e-15);
    }

    #[test]
    fn the_store_gives_the_exact_form_and_grows() {
        let mut rng = rng(1, "store");
        let maps = Maps::<f64>::random(6, 4, 4, 2, &mut rng);
        let u = super::super::maps::random(20, 6, &mut rng) * 5.0;
        let want = exact(&maps, u.view());
        let mut store = KeyValueStore::new(&maps);
        for (u, want) in u.rows().into_iter().zip(want.rows()) {
            for (got, want) in store.step(u).iter().zip(want) {
                assert!((got - want).abs() < 1e-12);
            }
        }
        assert_eq!(store.bytes(), 20 * 8 * 8);
    }

    #[test]
    fn odd_and_huge_orders_are_refused() {
        let maps = Maps::<f64>::random(16, 16, 16, 1, &mut rng(1, "maps"));
        let told = |order| {
            SoftmaxAttention::new(maps.clone(), order)
                .unwrap_err()
                .to_string()
        };
        assert!(told(3).contains("odd"));
        assert!(told(10).contains(&monomials(16, 10).to_string()));
    }
}
