//! The recognition network q: for each element of V a first estimate of the probability that it is right, and draws of
//! subsets through which a gradient can flow.

use super::batch::{Batch, softplus};
use super::set_function::{Encoder, Shape};
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use papertrial_nn::blocks::{Activation, Mlp};
use papertrial_nn::ops;
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

/// How elements of a drawn subset hang together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ties {
    /// Each element is drawn by itself.
    Independent,
    /// By a normal copula whose correlation has this rank.
    Copula(usize),
}

/// q.
#[derive(Module, Debug)]
pub struct Recognition {
    encoder: Encoder,
    body: Mlp,
    mean: Linear,
    spread: Option<Linear>,
    factors: Option<Linear>,
}

/// Numbers drawn for one batch of subsets, on the host, so that they come from the job's seed on every device.
pub struct Noise {
    /// Normal numbers [B, M, n] for a copula, even numbers between 0 and 1 without.
    own: Vec<f32>,
    /// Normal numbers [B, M, r].
    common: Vec<f32>,
    /// Even numbers [B, M, n] that decide what is in a subset.
    toss: Vec<f32>,
    samples: usize,
}

impl Noise {
    /// For `samples` subsets of each set of a batch.
    pub fn draw<R: Rng + ?Sized>(batch: &Batch, samples: usize, ties: Ties, rng: &mut R) -> Noise {
        let each = batch.len() * samples;
        let all = each * batch.width();
        let mut even = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.random()).collect() };
        let toss = even(all);
        let (own, common) = match ties {
            Ties::Independent => (even(all), Vec::new()),
            Ties::Copula(rank) => {
                let mut normal =
                    |n: usize| -> Vec<f32> { (0..n).map(|_| rng.sample(StandardNormal)).collect() };
                (normal(all), normal(each * rank))
            }
        };
        Noise {
            own,
            common,
            toss,
            samples,
        }
    }
}

/// How near an even number may come to 0 and 1, so that its logit stays finite.
const LEAST: f64 = 1e-7;

impl Recognition {
    /// With the layers of `shape`.
    pub fn new(shape: &Shape, ties: Ties, device: &Device) -> Self {
        let hidden = shape.hidden;
        let mut widths = vec![shape.embedding];
        widths.extend(vec![hidden; shape.layers.max(1)]);
        let linear = |out: usize| LinearConfig::new(hidden, out).init(device);
        let rank = match ties {
            Ties::Independent => None,
            Ties::Copula(rank) => Some(rank),
        };
        Recognition {
            encoder: Encoder::new(shape, device),
            body: Mlp::new(&widths, Activation::Relu, 0.0, device),
            mean: linear(1),
            spread: rank.map(|_| linear(1)),
            factors: rank.map(linear),
        }
    }

    /// Hidden numbers of each element: [B n, H].
    fn hidden(&self, batch: &Batch) -> Tensor<2> {
        let h = self.encoder.forward(batch);
        let [b, n, e] = h.dims();
        relu(self.body.forward(h.reshape([b * n, e])))
    }

    /// Logits of the means psi: [B, n].
    pub fn logits(&self, batch: &Batch) -> Tensor<2> {
        let shape = batch.mask.dims();
        self.mean.forward(self.hidden(batch)).reshape(shape)
    }

    /// Subsets [B, M, n], 0 and 1 with the gradient of their probabilities (straight-through), and the logits of the
    /// means [B, n].
    ///
    /// 1. g = std eps + U eps', eps in R^n and eps' in R^r normal; u = share of the normal distribution below g.
    ///    Without a copula u is even.
    /// 2. probability = sigmoid((logit(psi) + logit(u)) / tau); an element is in where an even number lies below.
    pub fn subsets(&self, batch: &Batch, noise: &Noise, tau: f64) -> (Tensor<3>, Tensor<2>) {
        let [b, n] = batch.mask.dims();
        let m = noise.samples;
        let device = batch.mask.device();
        let tensor = |values: &[f32], last: usize| {
            Tensor::<3>::from_data(TensorData::new(values.to_vec(), [b, m, last]), &device)
        };
        let hidden = self.hidden(batch);
        let logits = self.mean.forward(hidden.clone()).reshape([b, n]);
        let u = match (&self.spread, &self.factors) {
            (Some(spread), Some(factors)) => {
                let rank = noise.common.len() / (b * m).max(1);
                let std = softplus(spread.forward(hidden.clone())).reshape([b, 1, n]);
                let u = ops::tanh(factors.forward(hidden)).reshape([b, n, rank]);
                let common = tensor(&noise.common, rank).matmul(u.swap_dims(1, 2));
                let g = tensor(&noise.own, n) * std + common;
                ((g / std::f64::consts::SQRT_2).erf() + 1.0) / 2.0
            }
            _ => tensor(&noise.own, n),
        };
        let u = u.clamp(LEAST, 1.0 - LEAST);
        let pull = u.clone().log() - (u.neg() + 1.0).log();
        let wide = logits.clone().reshape([b, 1, n]);
        let probability = ops::sigmoid((wide + pull) / tau);
        let drawn = tensor(&noise.toss, n)
            .lower(probability.clone().detach())
            .float();
        let straight = probability.clone() + (drawn - probability).detach();
        let mask = batch.mask.clone().reshape([b, 1, n]);
        (straight * mask, logits)
    }

    /// Entropy of the means, summed over the elements of a set: [B]. It is that of the marginals, not of the copula, as
    /// in the authors' program.
    ///
    /// From logits l, where nothing becomes 0 times infinity: softplus(l) - l sigmoid(l).
    pub fn entropy(batch: &Batch, logits: Tensor<2>) -> Tensor<1> {
        let b = batch.len();
        let each = softplus(logits.clone()) - logits.clone() * ops::sigmoid(logits);
        (each * batch.mask.clone()).sum_dim(1).reshape([b])
    }
}

#[cfg(test)]
mod tests {
    use super::super::set_function::tests::shape;
    use super::super::set_function::{Background, Shape};
    use super::super::sets::tests::set;
    use super::*;
    use papertrial_nn::{device, seeded, values_of};
    use papertrial_numerics::sampling;

    fn network(ties: Ties) -> Recognition {
        let shape = Shape {
            features: 1,
            ..shape(Background::None)
        };
        seeded(&device("cpu").unwrap(), 4, |d| {
            Recognition::new(&shape, ties, d)
        })
        .valid()
    }

    #[test]
    fn subsets_follow_the_means_and_leave_filling_out() {
        let device = device("cpu").unwrap();
        let (a, b) = (
            set("a", &[-3.0, 0.0, 3.0], &[0]),
            set("b", &[1.0, 2.0], &[0]),
        );
        let batch = Batch::new(&[&a, &b], &device);
        for ties in [Ties::Independent, Ties::Copula(2)] {
            let q = network(ties);
            let m = 4000;
            let noise = Noise::draw(&batch, m, ties, &mut sampling::rng(2, "test"));
            let (subsets, logits) = q.subsets(&batch, &noise, 0.1);
            let subsets = values_of(subsets).unwrap();
            // A straight-through number is 0 or 1 but for rounding.
            assert!(
                subsets
                    .iter()
                    .all(|s| s.abs() < 1e-6 || (s - 1.0).abs() < 1e-6)
            );
            let psi: Vec<f32> = values_of(ops::sigmoid(logits)).unwrap();
            for i in 0..6 {
                let share: f32 = (0..m)
                    .map(|s| subsets[(i / 3 * m + s) * 3 + i % 3].round())
                    .sum::<f32>()
                    / m as f32;
                if i == 5 {
                    assert_eq!(share, 0.0);
                } else if ties == Ties::Independent {
                    // An even number below psi: P(logit(psi) + logit(u) > 0) = psi; deviation .008.
                    assert!((share - psi[i]).abs() < 0.04, "{share} {}", psi[i]);
                } else {
                    assert!(share > 0.0 && share < 1.0, "{share}");
                }
            }
        }
    }

    #[test]
    fn entropy_by_hand_and_at_certainty() {
        let device = device("cpu").unwrap();
        let (a, b) = (
            set("a", &[1.0, 2.0], &[0]),
            set("b", &[1.0, 2.0, 3.0], &[0]),
        );
        let batch = Batch::new(&[&a, &b], &device);
        let logits = Tensor::from_data(
            TensorData::new(vec![0.0f32, 1.0, 7.0, 200.0, -200.0, 0.0], [2, 3]),
            &device,
        );
        let got = values_of(Recognition::entropy(&batch, logits)).unwrap();
        let p = 1.0 / (1.0 + (-1f64).exp());
        let want = 2f64.ln() - p * p.ln() - (1.0 - p) * (1.0 - p).ln();
        assert!((f64::from(got[0]) - want).abs() < 1e-6);
        assert!((f64::from(got[1]) - 2f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn one_set_of_one_batch_keeps_its_shape() {
        let device = device("cpu").unwrap();
        let a = set("a", &[1.0, 2.0], &[0]);
        let batch = Batch::new(&[&a], &device);
        let q = network(Ties::Copula(1));
        assert_eq!(q.logits(&batch).dims(), [1, 2]);
        let noise = Noise::draw(&batch, 1, Ties::Copula(1), &mut sampling::rng(2, "test"));
        assert_eq!(q.subsets(&batch, &noise, 0.1).0.dims(), [1, 1, 2]);
    }
}
