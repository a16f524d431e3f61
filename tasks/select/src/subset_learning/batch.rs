//! Sets of different sizes side by side in one tensor, with masks for what is only filling.

use super::sets::GroundSet;
use burn::tensor::{Device, Int, Tensor, TensorData};
use papertrial_numerics::sampling;
use rand_chacha::ChaCha8Rng;

/// B sets, padded to the n elements of the largest.
pub struct Batch {
    /// Features [B, n, d]; filling is 0.
    pub features: Tensor<3>,
    /// 1 for an element, 0 for filling: [B, n].
    pub mask: Tensor<2>,
    /// Number of elements of each set.
    pub sizes: Vec<usize>,
}

impl Batch {
    /// Sets side by side.
    pub fn new(sets: &[&GroundSet], device: &Device) -> Batch {
        let b = sets.len();
        let n = sets.iter().map(|s| s.len()).max().unwrap_or(0);
        let d = sets.first().map_or(0, |s| s.features.ncols());
        let mut features = vec![0.0f32; b * n * d];
        let mut mask = vec![0.0f32; b * n];
        for (i, set) in sets.iter().enumerate() {
            for (to, from) in features[i * n * d..].iter_mut().zip(&set.features) {
                *to = *from;
            }
            mask[i * n..i * n + set.len()].fill(1.0);
        }
        Batch {
            features: Tensor::from_data(TensorData::new(features, [b, n, d]), device),
            mask: Tensor::from_data(TensorData::new(mask, [b, n]), device),
            sizes: sets.iter().map(|s| s.len()).collect(),
        }
    }

    /// Number of sets.
    pub fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Elements of the largest set.
    pub fn width(&self) -> usize {
        self.mask.dims()[1]
    }
}

/// K elements of each of B sets, by their places in the batch's B x n rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Picked {
    /// Places, B x K of them; filling repeats a set's first element.
    pub places: Vec<i32>,
    /// 1 for an element, 0 for filling.
    pub mask: Vec<f32>,
    /// K.
    pub width: usize,
}

impl Picked {
    /// The elements `picks` of each set; `n` is the batch's width.
    pub fn new(picks: &[Vec<usize>], n: usize) -> Picked {
        let width = picks.iter().map(Vec::len).max().unwrap_or(0);
        let mut places = Vec::with_capacity(picks.len() * width);
        let mut mask = Vec::with_capacity(picks.len() * width);
        for (set, picks) in picks.iter().enumerate() {
            for k in 0..width {
                places.push((set * n + picks.get(k).copied().unwrap_or(0)) as i32);
                mask.push(if k < picks.len() { 1.0 } else { 0.0 });
            }
        }
        Picked {
            places,
            mask,
            width,
        }
    }

    /// Elements `from` to `to` of every set of a batch, filling among them.
    pub fn range(batch: &Batch, from: usize, to: usize) -> Picked {
        let n = batch.width();
        Picked {
            places: (0..batch.len())
                .flat_map(|set| (from..to).map(move |i| (set * n + i) as i32))
                .collect(),
            mask: batch
                .sizes
                .iter()
                .flat_map(|size| (from..to).map(move |i| f32::from(u8::from(i < *size))))
                .collect(),
            width: to - from,
        }
    }

    /// Places as a tensor [B K].
    pub fn places(&self, device: &Device) -> Tensor<1, Int> {
        let n = self.places.len();
        Tensor::from_data(TensorData::new(self.places.clone(), [n]), device)
    }
}

/// What one step of training is scored on: the right elements of each set and as many others, drawn anew.
pub struct Targets {
    /// The elements.
    pub picked: Picked,
    /// 1 where an element is right: [B, K].
    pub right: Tensor<2>,
    /// 1 where there is an element: [B, K].
    pub mask: Tensor<2>,
}

impl Targets {
    /// Draws `negatives` others for each right element, or all there are.
    pub fn draw(
        sets: &[&GroundSet],
        negatives: usize,
        n: usize,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Targets {
        let mut picks = Vec::with_capacity(sets.len());
        let mut truths = Vec::with_capacity(sets.len());
        for set in sets {
            let marks = set.chosen.as_deref().unwrap_or_default();
            let mut elements = set.right();
            let others: Vec<usize> = (0..marks.len()).filter(|i| !marks[*i]).collect();
            let wanted = (negatives * elements.len()).min(others.len());
            let order = sampling::permutation(rng, others.len());
            truths.push(elements.len());
            elements.extend(order.into_iter().take(wanted).map(|i| others[i]));
            picks.push(elements);
        }
        let picked = Picked::new(&picks, n);
        let shape = [sets.len(), picked.width];
        let right: Vec<f32> = truths
            .iter()
            .flat_map(|s| (0..picked.width).map(move |k| if k < *s { 1.0 } else { 0.0 }))
            .collect();
        Targets {
            right: Tensor::from_data(TensorData::new(right, shape), device),
            mask: Tensor::from_data(TensorData::new(picked.mask.clone(), shape), device),
            picked,
        }
    }

    /// Cross-entropy of logits [B, K], summed over the elements of a set, mean over the sets.
    ///
    /// From logits, so that a probability of exactly 0 or 1 makes no infinity: softplus(l) - y l.
    pub fn cross_entropy(&self, logits: Tensor<2>) -> Tensor<1> {
        let b = logits.dims()[0] as f64;
        let each = softplus(logits.clone()) - self.right.clone() * logits;
        (each * self.mask.clone()).sum() / b
    }
}

/// log(1 + exp(x)) without overflow.
pub fn softplus<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let tail = x.clone().abs().neg().exp().log1p();
    burn::tensor::activation::relu(x) + tail
}

#[cfg(test)]
mod tests {
    use super::super::sets::tests::set;
    use super::*;
    use papertrial_nn::{device, values_of};

    #[test]
    fn filling_is_masked_everywhere() {
        let device = device("cpu").unwrap();
        let (a, b) = (
            set("a", &[1.0, 2.0, 3.0], &[1]),
            set("b", &[4.0, 5.0], &[0]),
        );
        let batch = Batch::new(&[&a, &b], &device);
        assert_eq!((batch.len(), batch.width()), (2, 3));
        assert_eq!(
            values_of(batch.features.clone()).unwrap(),
            [1.0, 2.0, 3.0, 4.0, 5.0, 0.0]
        );
        assert_eq!(
            values_of(batch.mask.clone()).unwrap(),
            [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
        );
        let all = Picked::range(&batch, 1, 3);
        assert_eq!(
            (all.places, all.mask),
            (vec![1, 2, 4, 5], vec![1.0, 1.0, 1.0, 0.0])
        );
        let last = Picked::range(&Batch::new(&[&b, &a], &device), 2, 3);
        assert_eq!((last.places, last.mask), (vec![2, 5], vec![0.0, 1.0]));
    }

    #[test]
    fn targets_are_the_right_ones_and_as_many_others() {
        let device = device("cpu").unwrap();
        let a = set("a", &[0.0; 9], &[2, 7]);
        // Only one other element is there.
        let b = set("b", &[0.0; 4], &[0, 1, 3]);
        let mut rng = sampling::rng(1, "test");
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..60 {
            let t = Targets::draw(&[&a, &b], 1, 9, &mut rng, &device);
            assert_eq!(t.picked.width, 4);
            assert_eq!(t.picked.places[..2], [2, 7]);
            assert_eq!(t.picked.places[4..8], [9, 10, 12, 11]);
            assert_eq!(
                values_of(t.right).unwrap(),
                [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]
            );
            assert_eq!(values_of(t.mask).unwrap(), [1.0; 8]);
            assert_ne!(t.picked.places[2], t.picked.places[3]);
            seen.extend(t.picked.places[2..4].iter().copied());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 3, 4, 5, 6, 8]);
    }

    #[test]
    fn cross_entropy_by_hand_and_without_infinities() {
        let device = device("cpu").unwrap();
        let (a, b) = (set("a", &[0.0; 4], &[0, 1]), set("b", &[0.0; 3], &[0]));
        let mut rng = sampling::rng(1, "test");
        let t = Targets::draw(&[&a, &b], 1, 4, &mut rng, &device);
        let logits =
            |v: [f32; 8]| Tensor::<2>::from_data(TensorData::new(v.to_vec(), [2, 4]), &device);
        let got = values_of(t.cross_entropy(logits([0.0, 0.0, 0.0, 0.0, 2.0, -1.0, 55.0, 9.0])))
            .unwrap()[0];
        let want = (4.0 * 2f64.ln() + (-2f64).exp().ln_1p() + (-1f64).exp().ln_1p()) / 2.0;
        assert!((f64::from(got) - want).abs() < 1e-6, "{got} {want}");
        let far = values_of(t.cross_entropy(logits([-500.0; 8]))).unwrap()[0];
        assert!((far - 750.0).abs() < 1e-3, "{far}");
        assert_eq!(values_of(softplus(logits([1e4; 8]))).unwrap()[0], 1e4);
    }
}
