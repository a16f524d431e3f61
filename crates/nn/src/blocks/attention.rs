//! Scaled dot-product attention with several heads (Vaswani et al., *Attention is all you need*, 1706.03762).

use super::through;
use crate::ops;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Initializer, Linear, LinearConfig};
use burn::tensor::{Bool, Device, Tensor, TensorData};

/// What a weight is where a position may not be looked at: low enough that its share is 0, and finite, so that a row
/// in which nothing may be looked at is not a number of its own kind.
const HIDDEN: f64 = -1e9;

/// Several heads of attention.
#[derive(Module, Debug)]
pub struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    dropout: Dropout,
    heads: usize,
}

impl Attention {
    /// `heads` heads over `d` numbers, which they must share evenly.
    ///
    /// # Panics
    /// If they do not: check options before.
    pub fn new(d: usize, heads: usize, dropout: f64, device: &Device) -> Self {
        assert!(
            heads > 0 && d.is_multiple_of(heads),
            "{heads} heads do not share {d} numbers evenly"
        );
        let linear = || {
            LinearConfig::new(d, d)
                .with_initializer(Initializer::XavierUniform { gain: 1.0 })
                .init(device)
        };
        Attention {
            query: linear(),
            key: linear(),
            value: linear(),
            out: linear(),
            dropout: DropoutConfig::new(dropout).init(),
            heads,
        }
    }

    /// Looks from each position of `x` [b, l, d] at those of `at` [b, m, d]; gives [b, l, d]. `hidden`, [b or 1, l or
    /// 1, m], is true where a position may not be looked at.
    pub fn forward(
        &self,
        x: Tensor<3>,
        at: Tensor<3>,
        hidden: Option<&Tensor<3, Bool>>,
    ) -> Tensor<3> {
        let [b, l, d] = x.dims();
        let [_, m, _] = at.dims();
        let (heads, width) = (self.heads, d / self.heads);
        let split = |t: Tensor<3>, n: usize| t.reshape([b, n, heads, width]).swap_dims(1, 2);
        // Scaling the queries is cheaper than scaling the weights.
        let query = split(through(&self.query, x) / (width as f64).sqrt(), l);
        let key = split(through(&self.key, at.clone()), m);
        let value = split(through(&self.value, at), m);
        let mut weights = query.matmul(key.transpose());
        if let Some(hidden) = hidden {
            let [of, from, to] = hidden.dims();
            let hidden = hidden
                .clone()
                .reshape([of, 1, from, to])
                .expand([b, heads, l, m]);
            weights = weights.mask_fill(hidden, HIDDEN);
        }
        let shares = self.dropout.forward(ops::softmax(weights));
        let seen = shares.matmul(value).swap_dims(1, 2).reshape([b, l, d]);
        through(&self.out, seen)
    }
}

/// True where a position would look at a later one: [1, l, l].
pub fn causal_mask(l: usize, device: &Device) -> Tensor<3, Bool> {
    let later: Vec<bool> = (0..l).flat_map(|i| (0..l).map(move |j| j > i)).collect();
    Tensor::from_data(TensorData::new(later, [1, l, l]), device)
}

/// True at positions from each row's length on: [b, 1, l].
pub fn padding_mask(lengths: &[usize], l: usize, device: &Device) -> Tensor<3, Bool> {
    let beyond: Vec<bool> = lengths
        .iter()
        .flat_map(|length| (0..l).map(move |j| j >= *length))
        .collect();
    Tensor::from_data(TensorData::new(beyond, [lengths.len(), 1, l]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{device, seeded, values_of};
    use burn::nn::attention::{MhaInput, MultiHeadAttentionConfig};
    use burn::tensor::Distribution;

    fn random(shape: [usize; 3], seed: u64) -> Tensor<3> {
        let device = device("cpu").unwrap();
        let _held = crate::hold(&device, seed);
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &device)
    }

    /// With the same weights, Burn's own attention is the independent formula.
    #[test]
    fn agrees_with_burns_own() {
        let device = device("cpu").unwrap();
        let ours = seeded(&device, 1, |d| Attention::new(8, 2, 0.0, d)).valid();
        let mut theirs = MultiHeadAttentionConfig::new(8, 2)
            .with_dropout(0.0)
            .init(&device);
        theirs.query = ours.query.clone();
        theirs.key = ours.key.clone();
        theirs.value = ours.value.clone();
        theirs.output = ours.out.clone();
        let (x, at) = (random([3, 4, 8], 1), random([3, 5, 8], 2));
        let padding = padding_mask(&[5, 2, 1], 5, &device);
        let got = ours.forward(x.clone(), at.clone(), Some(&padding));
        let want = theirs
            .forward(MhaInput::new(x, at.clone(), at).mask_pad(padding.reshape([3, 5])))
            .context;
        let apart = values_of((got - want).abs().max()).unwrap()[0];
        assert!(apart < 1e-5, "{apart}");
    }

    #[test]
    fn what_is_hidden_does_not_matter() {
        let device = device("cpu").unwrap();
        let attention = seeded(&device, 1, |d| Attention::new(4, 2, 0.0, d)).valid();
        let x = random([1, 3, 4], 3);
        let other = Tensor::cat(vec![x.clone().narrow(1, 0, 2), random([1, 1, 4], 9)], 1);
        let causal = causal_mask(3, &device);
        let look = |x: &Tensor<3>| {
            let out = attention.forward(x.clone(), x.clone(), Some(&causal));
            values_of(out.narrow(1, 0, 2)).unwrap()
        };
        assert_eq!(look(&x), look(&other));
        // Nothing to look at: still numbers.
        let all = padding_mask(&[0], 3, &device);
        let out = values_of(attention.forward(x.clone(), x, Some(&all))).unwrap();
        assert!(out.iter().all(|v| v.is_finite()));
    }
}
