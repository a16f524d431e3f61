//! Neural blocks and the training loop, on Burn: what the families with networks share.
//!
//! A model is any Burn module. [`seeded`] draws its weights from a seed, [`train::Fit`] trains it, [`store`] keeps it
//! together with its options, and [`blocks`] and [`ops`] are what models are made of.
//!
//! ```
//! use papertrial_core::task::Context;
//! use papertrial_nn::blocks::{Activation, Mlp};
//! use papertrial_nn::train::{Fit, Training};
//! use papertrial_nn::{burn::tensor::Tensor, device, rows_of, seeded};
//!
//! let context = Context::with_seed(7);
//! let device = device(&context.device).unwrap();
//! let x: Vec<f32> = (0..64).map(|i| i as f32 / 32.0 - 1.0).collect();
//! let model = seeded(&device, context.seed, |d| Mlp::new(&[1, 8, 1], Activation::Tanh, 0.0, d));
//! let training = Training { epochs: 3, batch: 16, ..Training::default() };
//! let fitted = Fit::new(&training, &context)
//!     .rows(64)
//!     .run(model, |model, rows| {
//!         let input = rows_of(&x, 1, rows, &device.clone().autodiff());
//!         (model.forward(input.clone()) - input.square()).square().squeeze_dim::<1>(1)
//!     })
//!     .unwrap();
//! assert_eq!(fitted.steps, 12);
//! ```

pub mod blocks;
mod device;
mod generator;
pub mod ops;
pub mod store;
pub mod train;

pub use burn;
pub use device::device;
pub use generator::{Guard, hold, seeded, try_seeded};

use burn::tensor::{Device, Int, Tensor, TensorData};

/// The rows `rows` of a matrix [n, `width`] in row-major order as a tensor [rows, width]; rows beyond n are zeros.
pub fn rows_of(matrix: &[f32], width: usize, rows: &[usize], device: &Device) -> Tensor<2> {
    let mut values = vec![0.0f32; rows.len() * width];
    for (to, row) in values.chunks_exact_mut(width.max(1)).zip(rows) {
        if let Some(from) = matrix.get(row * width..(row + 1) * width) {
            to.copy_from_slice(from);
        }
    }
    Tensor::from_data(TensorData::new(values, [rows.len(), width]), device)
}

/// Class numbers as a tensor [n].
pub fn classes_of(classes: impl IntoIterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let classes: Vec<i32> = classes.into_iter().map(|c| c as i32).collect();
    let n = classes.len();
    Tensor::from_data(TensorData::new(classes, [n]), device)
}

/// Cross-entropy of each row, [n]: minus the logarithm of the softmax of `logits`, [n, classes], at the row's class.
pub fn cross_entropy(logits: Tensor<2>, classes: Tensor<1, Int>) -> Tensor<1> {
    let logarithms = ops::log_softmax(logits).gather(1, classes.unsqueeze_dim::<2>(1));
    -logarithms.squeeze_dim::<1>(1)
}

/// Values of a tensor in row-major order.
///
/// # Errors
/// [`papertrial_core::Error::Failed`] if the device cannot give them.
pub fn values_of<const D: usize>(tensor: Tensor<D>) -> papertrial_core::Result<Vec<f32>> {
    tensor
        .try_into_vec_as::<f32>()
        .map_err(|e| papertrial_core::Error::Failed(format!("the device gave no values: {e:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_by_hand() {
        let device = device("cpu").unwrap();
        let logits = rows_of(&[0.0, 0.0, 2f32.ln(), 0.0], 2, &[0, 1], &device);
        let got = values_of(cross_entropy(logits, classes_of([1, 0], &device))).unwrap();
        // Shares 1/2 and 1/2, then 2/3 and 1/3.
        for (g, w) in got.iter().zip([2f32.ln(), 1.5f32.ln()]) {
            assert!((g - w).abs() < 1e-6, "{got:?}");
        }
        assert_eq!(got.len(), 2);
    }
}
