//! The contrastive loss, symmetric and with shared positives.

use burn::tensor::{Device, Tensor, TensorData};
use papertrial_nn::ops;

/// Share of each column in the target of each row, \[n, n\]: rows with the same text share the mass evenly.
///
/// Where few texts come again and again, as class prompts do, the other pairs of a batch with the same text are right
/// answers; the plain loss, whose target is the diagonal, would push them apart.
pub(super) fn targets(texts: &[u32], device: &Device) -> Tensor<2> {
    let n = texts.len();
    let mut shares = vec![0.0f32; n * n];
    for (i, row) in shares.chunks_exact_mut(n.max(1)).enumerate() {
        let same = texts.iter().filter(|t| **t == texts[i]).count();
        for (share, text) in row.iter_mut().zip(texts) {
            if *text == texts[i] {
                *share = 1.0 / same as f32;
            }
        }
    }
    Tensor::from_data(TensorData::new(shares, [n, n]), device)
}

/// Loss of each pair, \[n\]: half the cross-entropy from its image to the texts, and half that from its text to the images.
///
/// With l = s z_left z_right', T of [`targets`]: -1/2 (sum_j T_ij log softmax(l)_ij + sum_j T_ij log softmax(l')_ij).
/// `scale` is s, \[1\]; the embeddings are unit rows \[n, d\].
pub(super) fn contrastive(
    left: Tensor<2>,
    right: Tensor<2>,
    scale: Tensor<1>,
    targets: Tensor<2>,
) -> Tensor<1> {
    let logits = left.matmul(right.transpose()) * scale.unsqueeze::<2>();
    let to_texts = ops::log_softmax(logits.clone());
    let to_images = ops::log_softmax(logits.transpose());
    ((to_texts + to_images) * targets)
        .sum_dim(1)
        .squeeze_dim::<1>(1)
        .mul_scalar(-0.5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_nn::{device, values_of};

    fn tensor(values: &[f32], n: usize) -> Tensor<2> {
        let data = TensorData::new(values.to_vec(), [n, values.len() / n]);
        Tensor::from_data(data, &device("cpu").unwrap())
    }

    fn losses(left: &[f32], right: &[f32], scale: f32, texts: &[u32]) -> Vec<f32> {
        let device = device("cpu").unwrap();
        let n = texts.len();
        let scale = Tensor::from_data(TensorData::new(vec![scale], [1]), &device);
        values_of(contrastive(
            tensor(left, n),
            tensor(right, n),
            scale,
            targets(texts, &device),
        ))
        .unwrap()
    }

    #[test]
    fn two_pairs_by_hand() {
        // Similarities 1 on the diagonal and 0 beside it: -log(e^s / (e^s + 1)) each way.
        let unit = [1.0, 0.0, 0.0, 1.0];
        let want = (1.0 + (-2f32).exp()).ln();
        for loss in losses(&unit, &unit, 2.0, &[0, 1]) {
            assert!((loss - want).abs() < 1e-6, "{loss} {want}");
        }
        // The same texts: half the mass on each, -(log p + log(1 - p)) / 2.
        let want = (1.0 + (-2f32).exp()).ln() + 1.0;
        for loss in losses(&unit, &unit, 2.0, &[7, 7]) {
            assert!((loss - want).abs() < 1e-6, "{loss} {want}");
        }
    }

    #[test]
    fn the_loss_is_that_of_the_formula_on_three_pairs() {
        let left = [0.6, 0.8, 1.0, 0.0, 0.0, -1.0];
        let right = [0.8, 0.6, 0.0, 1.0, 0.8, 0.6];
        let texts = [4, 2, 4];
        let s = 3.0f64;
        let logit = |i: usize, j: usize| {
            s * (0..2)
                .map(|k| f64::from(left[2 * i + k]) * f64::from(right[2 * j + k]))
                .sum::<f64>()
        };
        let got = losses(&left, &right, 3.0, &texts);
        for (i, loss) in got.iter().enumerate() {
            let row: f64 = (0..3).map(|j| logit(i, j).exp()).sum();
            let column: f64 = (0..3).map(|j| logit(j, i).exp()).sum();
            let same: Vec<usize> = (0..3).filter(|j| texts[*j] == texts[i]).collect();
            let want: f64 = same
                .iter()
                .map(|j| {
                    -0.5 * (logit(i, *j) - row.ln() + logit(*j, i) - column.ln())
                        / same.len() as f64
                })
                .sum();
            assert!((f64::from(*loss) - want).abs() < 1e-5, "{i}: {loss} {want}");
        }
    }

    /// With every text the same, the loss is least where all similarities are equal: nothing is pushed apart.
    #[test]
    fn equal_texts_are_not_pushed_apart() {
        let same = [1.0, 0.0, 1.0, 0.0];
        let apart = [1.0, 0.0, 0.0, 1.0];
        let together: f32 = losses(&same, &same, 10.0, &[1, 1]).iter().sum();
        assert!((together / 2.0 - 2f32.ln()).abs() < 1e-6);
        assert!(losses(&apart, &apart, 10.0, &[1, 1]).iter().sum::<f32>() > together);
    }
}
