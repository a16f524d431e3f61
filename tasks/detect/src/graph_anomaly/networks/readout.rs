//! One vector for a graph from those of its nodes.

use super::super::ops::{self, Links};
use burn::tensor::{Tensor, TensorData};
use papertrial_nn::values_of;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How the vectors of a graph's nodes become one, without regard to the graph's quotients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Readout {
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

impl Readout {
    /// [n, d] to [graphs, d]; zeros for a graph without nodes.
    pub fn apply(self, h: Tensor<2>, links: &Arc<Links>) -> Tensor<2> {
        let sums = ops::pool(h, links);
        match self {
            Readout::Sum => sums,
            Readout::Mean => {
                let shares: Vec<f32> = links
                    .starts
                    .windows(2)
                    .map(|w| 1.0 / (w[1] - w[0]).max(1) as f32)
                    .collect();
                let count = shares.len();
                let device = sums.device();
                sums * Tensor::<2>::from_data(TensorData::new(shares, [count, 1]), &device)
            }
        }
    }
}

/// Mean of each graph's nodes weighted by the softmax of `scores` over the graph: h of [n, d] and scores of [n, 1] to
/// [graphs, d].
pub fn attention(h: Tensor<2>, scores: Tensor<2>, links: &Arc<Links>) -> Tensor<2> {
    // The softmax does not change with what is subtracted from all of a graph's scores; its largest keeps exp finite.
    let known = values_of(scores.clone().detach()).unwrap_or_default();
    let mut largest = vec![0.0f32; known.len()];
    for w in links.starts.windows(2) {
        let top = known[w[0]..w[1]]
            .iter()
            .copied()
            .fold(f32::NEG_INFINITY, f32::max);
        largest[w[0]..w[1]].fill(top);
    }
    let count = largest.len();
    let device = scores.device();
    let largest = Tensor::<2>::from_data(TensorData::new(largest, [count, 1]), &device);
    let shares = (scores - largest).exp();
    // A graph without nodes has the sum 0 twice.
    let total = ops::pool(shares.clone(), links).clamp_min(f32::MIN_POSITIVE);
    ops::pool(h * shares, links) / total
}

#[cfg(test)]
mod tests {
    use super::super::super::graphs::tests::of_edges;
    use super::super::super::ops::Matrix;
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn readouts_by_hand() {
        let set = of_edges(&[(2, &[(0, 1)]), (0, &[]), (1, &[])]);
        let links = Arc::new(Links::new(&set, &[0, 1, 2], Matrix::Sum));
        let device = Device::flex();
        let tensor =
            |v: &[f32], w| Tensor::<2>::from_data(TensorData::new(v.to_vec(), [3, w]), &device);
        let h = tensor(&[1., 2., 5., 6., 7., 8.], 2);
        let of = |t| values_of(t).unwrap();
        assert_eq!(
            of(Readout::Sum.apply(h.clone(), &links)),
            [6., 8., 0., 0., 7., 8.]
        );
        assert_eq!(
            of(Readout::Mean.apply(h.clone(), &links)),
            [3., 4., 0., 0., 7., 8.]
        );
        // Weights 1/4 and 3/4, however large the scores are.
        let scores = tensor(&[100.0, 100.0 + 3f32.ln(), -500.0], 1);
        let got = of(attention(h, scores, &links));
        let want = [4.0, 5.0, 0.0, 0.0, 7.0, 8.0];
        assert!(
            got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-3),
            "{got:?}"
        );
    }
}
