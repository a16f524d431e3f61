//! One vector for a sequence.

use crate::ops;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the vectors of a sequence become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// Their mean.
    #[default]
    Mean,
    /// Their mean, weighted by the position from 1 (Muennighoff, *SGPT*, 2202.08904).
    WeightedMean,
    /// The first.
    First,
    /// The last.
    Last,
    /// The largest number of each column.
    Max,
}

impl Pool {
    /// [b, l, d] to [b, d]: of the first `lengths[i]` positions of row i, at least one each.
    pub fn apply(self, x: Tensor<3>, lengths: &[usize]) -> Tensor<2> {
        let [b, l, d] = x.dims();
        let device = x.device();
        match self {
            Pool::First => x.narrow(1, 0, 1).reshape([b, d]),
            Pool::Last => last_positions(x, lengths),
            Pool::Max => {
                let beyond = super::padding_mask(lengths, l, &device)
                    .swap_dims(1, 2)
                    .expand([b, l, d]);
                x.mask_fill(beyond, f32::MIN).max_dim(1).reshape([b, d])
            }
            Pool::Mean => average(x, lengths, |_| 1.0),
            Pool::WeightedMean => average(x, lengths, |i| (i + 1) as f32),
        }
    }
}

/// The mean of each row's positions, weighted by `weight` of the position.
fn average(x: Tensor<3>, lengths: &[usize], weight: impl Fn(usize) -> f32) -> Tensor<2> {
    let [b, l, d] = x.dims();
    let mut shares = vec![0.0f32; b * l];
    for (row, length) in shares.chunks_mut(l.max(1)).zip(lengths) {
        let length = (*length).clamp(1, l);
        let total: f32 = (0..length).map(&weight).sum();
        for (i, share) in row.iter_mut().enumerate().take(length) {
            *share = weight(i) / total;
        }
    }
    let shares = Tensor::<3>::from_data(TensorData::new(shares, [b, 1, l]), &x.device());
    shares.matmul(x).reshape([b, d])
}

/// The vector at each row's last position: [b, l, d] to [b, d].
pub fn last_positions(x: Tensor<3>, lengths: &[usize]) -> Tensor<2> {
    let [b, l, d] = x.dims();
    let at: Vec<i32> = lengths
        .iter()
        .enumerate()
        .map(|(row, length)| (row * l + (*length).clamp(1, l.max(1)) - 1) as i32)
        .collect();
    let at = Tensor::from_data(TensorData::new(at, [b]), &x.device());
    x.reshape([b * l, d]).select(0, at)
}

/// A learned weighted mean: the weights are the softmax of a learned sum at each position.
#[derive(Module, Debug)]
pub struct AttentionPool {
    score: Linear,
}

impl AttentionPool {
    /// For `d` numbers at each position.
    pub fn new(d: usize, device: &Device) -> Self {
        AttentionPool {
            score: LinearConfig::new(d, 1).init(device),
        }
    }

    /// [b, l, d] to [b, d], of the first `lengths[i]` positions of row i.
    pub fn forward(&self, x: Tensor<3>, lengths: &[usize]) -> Tensor<2> {
        let [b, l, d] = x.dims();
        let beyond = super::padding_mask(lengths, l, &x.device());
        let scores = self.score.forward(x.clone()).reshape([b, 1, l]);
        let shares = ops::softmax(scores.mask_fill(beyond, -1e9));
        shares.matmul(x).reshape([b, d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{device, seeded, values_of};

    fn sequence() -> Tensor<3> {
        // Two rows of three positions of two numbers; the second row is two positions long.
        let values: Vec<f32> = vec![1., 10., 2., 20., 6., 0., 3., -1., 5., -9., 99., 99.];
        Tensor::from_data(TensorData::new(values, [2, 3, 2]), &device("cpu").unwrap())
    }

    #[test]
    fn pools_by_hand() {
        let pool = |p: Pool| values_of(p.apply(sequence(), &[3, 2])).unwrap();
        assert_eq!(pool(Pool::First), [1., 10., 3., -1.]);
        assert_eq!(pool(Pool::Last), [6., 0., 5., -9.]);
        assert_eq!(pool(Pool::Max), [6., 20., 5., -1.]);
        assert_eq!(pool(Pool::Mean), [3., 10., 4., -5.]);
        let weighted = pool(Pool::WeightedMean);
        let want = [23. / 6., 50. / 6., 13. / 3., -19. / 3.];
        assert!(
            weighted.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5),
            "{weighted:?}"
        );
    }

    #[test]
    fn learned_weights_are_a_softmax_over_the_row_alone() {
        let device = device("cpu").unwrap();
        let pool = seeded(&device, 1, |d| AttentionPool::new(2, d)).valid();
        let got = values_of(pool.forward(sequence(), &[3, 2])).unwrap();
        let w = values_of(pool.score.weight.val()).unwrap();
        let score = |x: [f32; 2]| (x[0] * w[0] + x[1] * w[1]).exp();
        let (a, b) = (score([3., -1.]), score([5., -9.]));
        let want = [(3. * a + 5. * b) / (a + b), (-a - 9. * b) / (a + b)];
        assert!(
            (got[2] - want[0]).abs() < 1e-4 && (got[3] - want[1]).abs() < 1e-4,
            "{got:?} {want:?}"
        );
    }
}
