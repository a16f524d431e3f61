//! Positions of a sequence as vectors. (Tokens as vectors: `burn::nn::Embedding`.)

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor, TensorData};

/// A learned vector for each position.
#[derive(Module, Debug)]
pub struct Positions {
    table: Param<Tensor<2>>,
}

impl Positions {
    /// For sequences of up to `longest` positions of `d` numbers; drawn from a normal distribution of deviation .02.
    pub fn new(longest: usize, d: usize, device: &Device) -> Self {
        Positions {
            table: Initializer::Normal {
                mean: 0.0,
                std: 0.02,
            }
            .init([longest, d], device),
        }
    }

    /// Adds its vector to each position: [b, l, d] to [b, l, d], l no more than the longest.
    pub fn add(&self, x: Tensor<3>) -> Tensor<3> {
        let [_, l, _] = x.dims();
        x + self.table.val().narrow(0, 0, l).unsqueeze::<3>()
    }
}

/// Fixed vectors of positions, [l, d]: sines in even places and cosines in odd ones, of wavelengths from 2 pi to
/// 10,000 times that (Vaswani et al., *Attention is all you need*, 1706.03762).
pub fn sinusoids(l: usize, d: usize, device: &Device) -> Tensor<2> {
    let values = (0..l)
        .flat_map(|position| {
            (0..d).map(move |i| {
                let wave = 10_000f64.powf((i - i % 2) as f64 / d as f64);
                let angle = position as f64 / wave;
                (if i % 2 == 0 { angle.sin() } else { angle.cos() }) as f32
            })
        })
        .collect::<Vec<f32>>();
    Tensor::from_data(TensorData::new(values, [l, d]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{device, seeded, values_of};

    #[test]
    fn sines_and_cosines_by_hand() {
        let got = values_of(sinusoids(3, 4, &device("cpu").unwrap())).unwrap();
        let want = [
            0.0,
            1.0,
            0.0,
            1.0,
            1f64.sin(),
            1f64.cos(),
            0.01f64.sin(),
            0.01f64.cos(),
        ];
        for (g, w) in got.iter().zip(want) {
            assert!((f64::from(*g) - w).abs() < 1e-6);
        }
    }

    #[test]
    fn each_position_gets_its_own_vector() {
        let device = device("cpu").unwrap();
        let positions = seeded(&device, 1, |d| Positions::new(4, 2, d)).valid();
        let table = values_of(positions.table.val()).unwrap();
        let out = values_of(positions.add(Tensor::zeros([2, 3, 2], &device))).unwrap();
        assert_eq!(out, [&table[..6], &table[..6]].concat());
    }
}
