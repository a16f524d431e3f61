//! Operations of one tensor, fast on the CPU, each with its backward pass.
//!
//! Burn's CPU backend computes an activation on one core, a value at a time, and under autodiff it takes softmax and
//! layer normalisation apart. Here they are single steps on whole vectors and all threads, for `f32` on the CPU, with
//! or without autodiff; any other device or type of number gets Burn's own operation. Results are within a few units
//! in the last place of exact ones over the whole range (for x below 0 closer than Burn's, which forms 1 + erf),
//! infinite values give the limits, NaN stays NaN, and the number of threads does not change a bit. The backward
//! steps of tanh, sigmoid and softmax use the result, as is usual: far out, where it rounds to 1, they are 0.
//!
//! Cost: one pass over the values, about a nanosecond or less each. The input's memory is reused if nothing else
//! needs it.

mod backends;
mod blocks;
mod conv;
mod curves;
mod kernels;
mod linear;
mod products;
#[cfg(test)]
mod tests_of_products;

use backends::Operations;
use burn::backend::{Dispatch, DispatchTensor, DispatchTensorKind, TensorMetadata};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Tensor, activation, module};

/// The primitive, and whether an operation of our own can take it: `f32` on the CPU, with or without autodiff. What it
/// cannot take goes back by `Tensor::from_dispatch` to Burn's own operations.
pub fn opened<const D: usize>(x: Tensor<D>) -> (DispatchTensor, bool) {
    let x = x.into_dispatch();
    let kind = match &x.kind {
        DispatchTensorKind::Autodiff(inner) => inner.as_ref(),
        kind => kind,
    };
    let known = matches!(kind, DispatchTensorKind::Flex(_)) && kind.dtype() == DType::F32;
    (x, known)
}

/// `fast` of a tensor that it knows, else `burns`.
fn either<const D: usize>(
    x: Tensor<D>,
    fast: fn(DispatchTensor) -> DispatchTensor,
    burns: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    match opened(x) {
        (x, true) => Tensor::from_dispatch(fast(x)),
        (x, false) => burns(Tensor::from_dispatch(x)),
    }
}

/// GELU, exact: x times the normal distribution's share below x (Hendrycks and Gimpel, 1606.08415).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    either(x, Dispatch::fast_gelu, activation::gelu)
}

/// Hyperbolic tangent.
pub fn tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    either(x, Dispatch::fast_tanh, activation::tanh)
}

/// 1 / (1 + exp(-x)).
pub fn sigmoid<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    either(x, Dispatch::fast_sigmoid, activation::sigmoid)
}

/// SiLU: x times its sigmoid.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    either(x, Dispatch::fast_silu, activation::silu)
}

/// exp(x) divided by its sum over the last dimension.
///
/// A row of minus infinities, or with plus infinity or NaN, becomes NaN, as in Burn and PyTorch.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    either(x, Dispatch::fast_softmax, |x| activation::softmax(x, D - 1))
}

/// The logarithm of [`softmax`], without loss where that is tiny. Rows without a softmax become NaN.
pub fn log_softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    either(x, Dispatch::fast_log_softmax, |x| {
        activation::log_softmax(x, D - 1)
    })
}

/// Layer normalisation over the last dimension (Ba and others, 1607.06450): mean 0 and variance 1 (the mean square;
/// `epsilon` is added to it), times `gain`, plus `bias`, as many values as the last dimension each.
///
/// # Panics
/// If gain or bias has another length.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gain: Tensor<1>,
    bias: Option<Tensor<1>>,
    epsilon: f64,
) -> Tensor<D> {
    let width = x.dims()[D - 1];
    let fits = |row: &Tensor<1>| row.dims()[0] == width;
    assert!(
        fits(&gain) && bias.as_ref().is_none_or(fits),
        "gain and bias of a layer normalisation have {width} values"
    );
    match (opened(x), opened(gain), bias.map(opened)) {
        ((x, true), (gain, true), None) => {
            Tensor::from_dispatch(Dispatch::fast_scale_norm(x, gain, epsilon))
        }
        ((x, true), (gain, true), Some((bias, true))) => {
            Tensor::from_dispatch(Dispatch::fast_layer_norm(x, gain, bias, epsilon))
        }
        ((x, _), (gain, _), bias) => module::layer_norm(
            Tensor::from_dispatch(x),
            Tensor::from_dispatch(gain),
            bias.map(|(bias, _)| Tensor::from_dispatch(bias)),
            epsilon,
        ),
    }
}

/// `x` [.., k] times `weight` [k, n], plus `bias` [n]: [.., n].
///
/// Burn takes a batch of three dimensions for a batch of products, and its gradient of the weights for a sum of as many;
/// here it is one product of all rows.
///
/// # Panics
/// If the shapes do not fit.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let [k, n] = weight.dims();
    let bias = bias.unwrap_or_else(|| Tensor::zeros([n], &weight.device()));
    assert!(
        x.dims()[D - 1] == k && bias.dims()[0] == n,
        "weights [{k}, {n}] do not fit inputs {:?} and bias {:?}",
        x.dims(),
        bias.dims()
    );
    match (opened(x), opened(weight), opened(bias)) {
        ((x, true), (weight, true), (bias, true)) => {
            Tensor::from_dispatch(Dispatch::fast_linear(x, weight, bias))
        }
        ((x, _), (weight, _), (bias, _)) => module::linear(
            Tensor::from_dispatch(x),
            Tensor::from_dispatch(weight),
            Some(Tensor::from_dispatch(bias)),
        ),
    }
}

/// Convolution of `x` [b, channels, h, w], with `padding` zeros on each side, and `weight` [outputs, channels, rows,
/// columns] at every place, plus `bias` [outputs].
///
/// # Panics
/// If the shapes do not fit, or the kernel is larger than the picture with its zeros.
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    padding: usize,
) -> Tensor<4> {
    let ([_, channels, height, width], [outputs, inputs, rows, columns]) =
        (x.dims(), weight.dims());
    let bias = bias.unwrap_or_else(|| Tensor::zeros([outputs], &weight.device()));
    assert!(
        channels == inputs
            && bias.dims()[0] == outputs
            && rows <= height + 2 * padding
            && columns <= width + 2 * padding,
        "a kernel {:?} with {padding} zeros around does not fit pictures {:?}",
        weight.dims(),
        x.dims()
    );
    match (opened(x), opened(weight), opened(bias)) {
        ((x, true), (weight, true), (bias, true)) => {
            Tensor::from_dispatch(Dispatch::fast_conv(x, weight, bias, padding))
        }
        ((x, _), (weight, _), (bias, _)) => module::conv2d(
            Tensor::from_dispatch(x),
            Tensor::from_dispatch(weight),
            Some(Tensor::from_dispatch(bias)),
            ConvOptions::new([1, 1], [padding, padding], [1, 1], 1),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};
    use proptest::prelude::*;

    /// Numbers that look random, about -1 to 1.
    pub(super) fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_769).wrapping_add(1);
        (0..n)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state as f32 / u32::MAX as f32 * 2.0 - 1.0
            })
            .collect()
    }

    fn tensor(values: &[f32], shape: [usize; 2], device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
    }

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().try_into_vec().unwrap()
    }

    type Operation = fn(Tensor<2>) -> Tensor<2>;

    /// Name, ours, Burn's.
    const OF_ONE: [(&str, Operation, Operation); 6] = [
        ("gelu", gelu, activation::gelu),
        ("tanh", tanh, activation::tanh),
        ("sigmoid", sigmoid, activation::sigmoid),
        ("silu", silu, activation::silu),
        ("softmax", softmax, |x| activation::softmax(x, 1)),
        ("log_softmax", log_softmax, |x| {
            activation::log_softmax(x, 1)
        }),
    ];

    /// A row of the result in double precision, from the definitions.
    fn exact(name: &str, row: &[f64]) -> Vec<f64> {
        let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|x| (x - top).exp()).sum();
        let of = |x: f64| match name {
            "gelu" => x * share_below(x),
            "tanh" => x.tanh(),
            "sigmoid" => 1.0 / (1.0 + (-x).exp()),
            "silu" => x / (1.0 + (-x).exp()),
            "softmax" => (x - top).exp() / sum,
            _ => x - top - sum.ln(),
        };
        row.iter().map(|&x| of(x)).collect()
    }

    /// The normal distribution's share below x, by Simpson's rule over its density.
    fn share_below(x: f64) -> f64 {
        let step = x / 200.0;
        let density = |i: usize| (-(step * i as f64).powi(2) / 2.0).exp();
        let odd: f64 = (1..200).step_by(2).map(density).sum();
        let even: f64 = (2..200).step_by(2).map(density).sum();
        let area = (density(0) + 4.0 * odd + 2.0 * even + density(200)) * step / 3.0;
        0.5 + area / (2.0 * std::f64::consts::PI).sqrt()
    }

    fn exact_norm(row: &[f64], gain: &[f64], bias: &[f64], epsilon: f64) -> Vec<f64> {
        let n = row.len() as f64;
        let mean = row.iter().sum::<f64>() / n;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let scale = (variance + epsilon).sqrt();
        (0..row.len())
            .map(|i| (row[i] - mean) / scale * gain[i] + bias[i])
            .collect()
    }

    fn doubles(row: &[f32]) -> Vec<f64> {
        row.iter().map(|&x| f64::from(x)).collect()
    }

    /// The derivative of the sum of `weights` times `of(row)`, by central differences.
    fn differences(row: &[f64], weights: &[f32], of: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
        let total = |row: &[f64]| -> f64 {
            of(row)
                .iter()
                .zip(weights)
                .map(|(y, w)| y * f64::from(*w))
                .sum()
        };
        (0..row.len())
            .map(|i| {
                let step = 1e-5 * (1.0 + row[i].abs());
                let (mut up, mut down) = (row.to_vec(), row.to_vec());
                up[i] += step;
                down[i] -= step;
                (total(&up) - total(&down)) / (2.0 * step)
            })
            .collect()
    }

    /// The gradient of the sum of `weights` times `of(x)`.
    fn gradient(of: Operation, x: &[f32], weights: &[f32], shape: [usize; 2]) -> Vec<f32> {
        let device = Device::flex().autodiff();
        let x = tensor(x, shape, &device).require_grad();
        let total = (of(x.clone()) * tensor(weights, shape, &device)).sum();
        values(x.grad(&total.backward()).unwrap())
    }

    fn check(name: &str, got: &[f32], exact: &[f64], allowed: f64) {
        for (got, exact) in got.iter().zip(exact) {
            let gap = (f64::from(*got) - exact).abs();
            assert!(
                gap <= allowed * (1.0 + exact.abs()),
                "{name}: {got}, not {exact}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn values_and_gradients_agree_with_double_precision(
            rows in 1usize..4, width in 1usize..80, size in -3i32..2, seed in 0u32..1000,
        ) {
            let shape = [rows, width];
            let x: Vec<f32> = noise(rows * width, seed).iter().map(|v| v * 10f32.powi(size)).collect();
            let weights = noise(rows * width, seed + 1);
            for (name, ours, _) in OF_ONE {
                let got = values(ours(tensor(&x, shape, &Device::flex())));
                let slopes = gradient(ours, &x, &weights, shape);
                for r in 0..rows {
                    let at = r * width..(r + 1) * width;
                    let row = doubles(&x[at.clone()]);
                    check(name, &got[at.clone()], &exact(name, &row), 1e-6);
                    let expected = differences(&row, &weights[at.clone()], |row| exact(name, row));
                    // log_softmax sums the weights of the whole row.
                    check(name, &slopes[at], &expected, 1e-6 * (1.0 + (width as f64).sqrt()));
                }
            }
        }

        #[test]
        fn layer_norm_and_its_gradients_agree_with_double_precision(
            rows in 1usize..6, width in 2usize..80, shift in -100f32..100.0, with_bias: bool, seed in 0u32..1000,
        ) {
            let shape = [rows, width];
            let x: Vec<f32> = noise(rows * width, seed).iter().map(|v| v + shift).collect();
            let weights = noise(rows * width, seed + 1);
            let (gain, mut bias) = (noise(width, seed + 2), noise(width, seed + 3));
            let device = Device::flex().autodiff();
            let row_of = |v: &[f32]| Tensor::<1>::from_data(TensorData::new(v.to_vec(), [width]), &device).require_grad();
            let (x_in, gain_in) = (tensor(&x, shape, &device).require_grad(), row_of(&gain));
            let bias_in = with_bias.then(|| row_of(&bias));
            if !with_bias {
                bias.fill(0.0);
            }
            let y = layer_norm(x_in.clone(), gain_in.clone(), bias_in.clone(), 1e-3);
            let gradients = (y.clone() * tensor(&weights, shape, &device)).sum().backward();
            let (y, of_x) = (values(y), values(x_in.grad(&gradients).unwrap()));
            let (gain, bias) = (doubles(&gain), doubles(&bias));
            let (mut of_gain, mut of_bias) = (vec![0.0; width], vec![0.0; width]);
            for r in 0..rows {
                let at = r * width..(r + 1) * width;
                let (row, weights) = (doubles(&x[at.clone()]), &weights[at.clone()]);
                check("y", &y[at.clone()], &exact_norm(&row, &gain, &bias, 1e-3), 3e-6);
                let of = |row: &[f64]| exact_norm(row, &gain, &bias, 1e-3);
                check("x", &of_x[at], &differences(&row, weights, of), 2e-5);
                let of = |gain: &[f64]| exact_norm(&row, gain, &bias, 1e-3);
                for (total, d) in of_gain.iter_mut().zip(differences(&gain, weights, of)) {
                    *total += d;
                }
                for (total, w) in of_bias.iter_mut().zip(weights) {
                    *total += f64::from(*w);
                }
            }
            check("gain", &values(gain_in.grad(&gradients).unwrap()), &of_gain, 1e-5);
            if let Some(bias) = bias_in {
                check("bias", &values(bias.grad(&gradients).unwrap()), &of_bias, 1e-6);
            }
        }
    }

    /// Sizes below, at and beyond one block and the threads' threshold, and memory that is not in order.
    #[test]
    fn agrees_with_burn_at_every_size_and_layout() {
        let device = Device::flex();
        for shape in [
            [1, 1],
            [1, 4096],
            [3, 4097],
            [700, 33],
            [1, 20_000],
            [20_000, 1],
        ] {
            let n = shape[0] * shape[1];
            let (x, weights) = (noise(n, 5), noise(n, 6));
            for (name, ours, burns) in OF_ONE {
                let input = tensor(&x, shape, &device);
                let expected = doubles(&values(burns(input.clone())));
                check(name, &values(ours(input.clone())), &expected, 2e-6);
                // Memory of its own is written in place.
                let (turned, alone) = (input.clone().transpose(), input + 0.0);
                check(name, &values(ours(alone)), &expected, 2e-6);
                let expected = doubles(&values(burns(turned.clone())));
                check(name, &values(ours(turned)), &expected, 2e-6);
                let expected = doubles(&gradient(burns, &x, &weights, shape));
                check(name, &gradient(ours, &x, &weights, shape), &expected, 1e-4);
            }
        }
    }

    #[test]
    fn a_part_of_a_tensor_is_not_taken_for_the_whole() {
        let device = Device::flex();
        let x = noise(60, 7);
        for (name, ours, _) in OF_ONE {
            let middle = tensor(&x, [6, 10], &device).narrow(0, 2, 3);
            let alone = tensor(&x[20..50], [3, 10], &device);
            assert_eq!(values(ours(middle)), values(ours(alone)), "{name}");
        }
    }

    #[test]
    fn empty_tensors_stay_empty() {
        for shape in [[0, 5], [5, 0]] {
            for (_, ours, _) in OF_ONE {
                let device = Device::flex();
                assert_eq!(ours(tensor(&[], shape, &device)).dims(), shape);
                assert!(gradient(ours, &[], &[], shape).is_empty());
            }
            let device = Device::flex();
            let gain = Tensor::<1>::from_data(
                TensorData::new(vec![1.0f32; shape[1]], [shape[1]]),
                &device,
            );
            let y = layer_norm(tensor(&[], shape, &device), gain, None, 1e-5);
            assert_eq!(y.dims(), shape);
        }
    }

    #[test]
    fn rows_without_a_softmax() {
        let low = f32::NEG_INFINITY;
        let x = [low, low, low, 0.0, f32::NAN, 1.0];
        let y = values(softmax(tensor(&x, [3, 2], &Device::flex())));
        assert!(y[0].is_nan() && y[1].is_nan());
        assert_eq!(y[2..4], [0.0, 1.0]);
        assert!(y[4].is_nan() && y[5].is_nan());
        let y = values(log_softmax(tensor(&x, [3, 2], &Device::flex())));
        assert!(y[0].is_nan() && y[4].is_nan());
        assert_eq!(y[2..4], [low, 0.0]);
    }

    #[test]
    fn other_types_of_number_go_to_burn() {
        let device = Device::flex();
        let double = |v: Vec<f32>, shape: [usize; 2]| tensor(&v, shape, &device).cast(DType::F64);
        for (name, ours, burns) in OF_ONE {
            let y = ours(double(noise(12, 3), [3, 4]));
            assert_eq!(y.dtype(), DType::F64, "{name}");
            y.into_data()
                .assert_eq(&burns(double(noise(12, 3), [3, 4])).into_data(), true);
        }
        let (gain, bias) = (
            double(noise(4, 1), [1, 4]).squeeze_dim(0),
            double(noise(4, 2), [1, 4]).squeeze_dim(0),
        );
        for bias in [None, Some(bias)] {
            let y = layer_norm::<2>(
                double(noise(12, 3), [3, 4]),
                gain.clone(),
                bias.clone(),
                1e-5,
            );
            let expected =
                module::layer_norm::<2>(double(noise(12, 3), [3, 4]), gain.clone(), bias, 1e-5);
            y.into_data().assert_eq(&expected.into_data(), true);
        }
    }

    /// Far from 0, where a mean in single precision is itself rounded.
    #[test]
    fn layer_norm_of_large_values() {
        let x: Vec<f32> = (0..1000).map(|i| 3e6 + (i % 7) as f32).collect();
        let device = Device::flex();
        let gain = Tensor::<1>::ones([1000], &device);
        let y = values(layer_norm(tensor(&x, [1, 1000], &device), gain, None, 1e-5));
        let exact = exact_norm(&doubles(&x), &[1.0; 1000], &[0.0; 1000], 1e-5);
        check("y", &y, &exact, 1e-6);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                let shape = [900, 70];
                let (x, weights) = (noise(63_000, 1), noise(63_000, 2));
                let device = Device::flex().autodiff();
                let row = |seed| {
                    Tensor::<1>::from_data(TensorData::new(noise(70, seed), [70]), &device)
                        .require_grad()
                };
                let (gain, bias) = (row(3), row(4));
                let y = layer_norm(
                    softmax(gelu(tensor(&x, shape, &device))),
                    gain.clone(),
                    Some(bias.clone()),
                    1e-5,
                );
                let gradients = (y.clone() * tensor(&weights, shape, &device))
                    .sum()
                    .backward();
                let found = [
                    y.into_data(),
                    gain.grad(&gradients).unwrap().into_data(),
                    bias.grad(&gradients).unwrap().into_data(),
                ];
                found.map(|d| {
                    d.try_into_vec::<f32>()
                        .unwrap()
                        .iter()
                        .map(|v| v.to_bits())
                        .collect::<Vec<_>>()
                })
            })
        };
        let alone = run(1);
        assert_eq!(alone, run(2));
        assert_eq!(alone, run(3));
    }
}
