//! Tests of linear layers and convolutions: values by the definition in double precision, gradients by Burn's own
//! operations and by the definition.

use super::tests::noise;
use super::{conv2d, linear};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData, module};
use proptest::prelude::*;

fn random<const D: usize>(shape: [usize; D], seed: u32, device: &Device) -> Tensor<D> {
    let n = shape.iter().product();
    Tensor::from_data(TensorData::new(noise(n, seed), shape), device)
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().try_into_vec().unwrap()
}

/// Equal but for rounding: sums of `terms` products of numbers up to 1.
fn near(got: &[f32], want: &[f32], terms: usize) {
    assert_eq!(got.len(), want.len());
    let allowed = 1e-6 * (terms as f32).sqrt().max(1.0) * 4.0;
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= allowed, "{i}: {got}, not {want}");
    }
}

type Linear = fn(Tensor<3>, Tensor<2>, Option<Tensor<1>>) -> Tensor<3>;
type Conv = fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, usize) -> Tensor<4>;

/// The result, and the gradients of x, weight and bias of its sum with weights.
fn of_linear(of: Linear, [a, b, k, n]: [usize; 4]) -> [Vec<f32>; 4] {
    let device = Device::flex().autodiff();
    let x = random([a, b, k], 1, &device).require_grad();
    let weight = random([k, n], 2, &device).require_grad();
    let bias = random([n], 3, &device).require_grad();
    let y = of(x.clone(), weight.clone(), Some(bias.clone()));
    let gradients = (y.clone() * random([a, b, n], 4, &device)).sum().backward();
    [
        values(y),
        values(x.grad(&gradients).unwrap()),
        values(weight.grad(&gradients).unwrap()),
        values(bias.grad(&gradients).unwrap()),
    ]
}

/// As [`of_linear`], from the definitions.
fn exact_linear([a, b, k, n]: [usize; 4]) -> [Vec<f32>; 4] {
    let rows = a * b;
    let double = |n, seed| -> Vec<f64> { noise(n, seed).iter().map(|&v| v.into()).collect() };
    let (x, w, bias, g) = (
        double(rows * k, 1),
        double(k * n, 2),
        double(n, 3),
        double(rows * n, 4),
    );
    let mut y: Vec<f64> = (0..rows).flat_map(|_| bias.clone()).collect();
    let (mut of_x, mut of_w, mut of_b) = (vec![0.0; rows * k], vec![0.0; k * n], vec![0.0; n]);
    for r in 0..rows {
        for j in 0..n {
            of_b[j] += g[r * n + j];
            for i in 0..k {
                y[r * n + j] += x[r * k + i] * w[i * n + j];
                of_x[r * k + i] += g[r * n + j] * w[i * n + j];
                of_w[i * n + j] += g[r * n + j] * x[r * k + i];
            }
        }
    }
    [y, of_x, of_w, of_b].map(|v| v.iter().map(|&v| v as f32).collect())
}

fn of_conv(of: Conv, x: [usize; 4], weight: [usize; 4], padding: usize) -> [Vec<f32>; 4] {
    let device = Device::flex().autodiff();
    let bias = random([weight[0]], 3, &device).require_grad();
    let (x, weight) = (
        random(x, 1, &device).require_grad(),
        random(weight, 2, &device).require_grad(),
    );
    let y = of(x.clone(), weight.clone(), Some(bias.clone()), padding);
    let gradients = (y.clone() * random(y.dims(), 4, &device)).sum().backward();
    [
        values(y),
        values(x.grad(&gradients).unwrap()),
        values(weight.grad(&gradients).unwrap()),
        values(bias.grad(&gradients).unwrap()),
    ]
}

fn burns_conv(x: Tensor<4>, w: Tensor<4>, bias: Option<Tensor<1>>, padding: usize) -> Tensor<4> {
    let options = ConvOptions::new([1, 1], [padding, padding], [1, 1], 1);
    module::conv2d(x, w, bias, options)
}

/// The result from the definition, in double precision.
fn exact_conv([b, c, h, w]: [usize; 4], [o, _, p, q]: [usize; 4], padding: usize) -> Vec<f32> {
    let (x, weight, bias) = (
        noise(b * c * h * w, 1),
        noise(o * c * p * q, 2),
        noise(o, 3),
    );
    let (high, wide) = (h + 2 * padding + 1 - p, w + 2 * padding + 1 - q);
    let mut y = Vec::new();
    for at in 0..b * o * high * wide {
        let (col, row) = (at % wide, at / wide % high);
        let (out, picture) = (at / wide / high % o, at / wide / high / o);
        let mut sum = f64::from(bias[out]);
        for k in 0..c * p * q {
            let (j, i, channel) = (k % q, k / q % p, k / q / p);
            let inside = |v: usize, n: usize| v.checked_sub(padding).filter(|&v| v < n);
            if let (Some(row), Some(col)) = (inside(row + i, h), inside(col + j, w)) {
                let value = x[((picture * c + channel) * h + row) * w + col];
                sum += f64::from(value) * f64::from(weight[out * c * p * q + k]);
            }
        }
        y.push(sum as f32);
    }
    y
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn linear_agrees_with_the_definition(
        a in 0usize..5, b in 1usize..9, k in 1usize..20, n in 1usize..20,
    ) {
        let sizes = [a, b, k, n];
        let exact = exact_linear(sizes);
        for (got, want) in of_linear(linear, sizes).iter().zip(&exact) {
            near(got, want, k.max(n).max(a * b));
        }
    }

    #[test]
    fn convolution_agrees_with_the_definition_and_with_burn(
        b in 1usize..4, c in 1usize..4, h in 3usize..9, w in 3usize..9,
        o in 1usize..5, p in 1usize..4, q in 1usize..4, padding in 0usize..4,
    ) {
        let (x, weight) = ([b, c, h, w], [o, c, p, q]);
        let got = of_conv(conv2d, x, weight, padding);
        near(&got[0], &exact_conv(x, weight, padding), c * p * q);
        for (got, want) in got.iter().zip(&of_conv(burns_conv, x, weight, padding)) {
            near(got, want, b * o * (h + 6) * (w + 6));
        }
    }
}

/// Sizes at which rows, columns and depth are shared among threads and blocks.
#[test]
fn large_sizes_agree() {
    for sizes in [
        [150, 8, 30, 40],
        [1025, 2, 20, 16],
        [1, 8, 700, 65],
        [300, 1, 40, 300],
    ] {
        let want = exact_linear(sizes);
        for (got, want) in of_linear(linear, sizes).iter().zip(&want) {
            near(got, want, sizes[0] * sizes[1] + sizes[2]);
        }
    }
    // Strips of several rows, the last one shorter.
    let (x, weight) = ([3, 20, 25, 30], [7, 20, 3, 3]);
    let got = of_conv(conv2d, x, weight, 1);
    near(&got[0], &exact_conv(x, weight, 1), 180);
    for (got, want) in got.iter().zip(&of_conv(burns_conv, x, weight, 1)) {
        near(got, want, 3 * 750);
    }
}

#[test]
fn memory_out_of_order_and_no_bias() {
    let device = Device::flex();
    let x = random([6, 5, 4], 1, &device);
    let weight = random([3, 6], 2, &device);
    let turned = x.clone().swap_dims(0, 2).narrow(1, 1, 3);
    let plain = Tensor::<3>::from_data(turned.to_data(), &device);
    let flat = Tensor::<2>::from_data(weight.clone().transpose().to_data(), &device);
    assert_eq!(
        values(linear(turned, weight.transpose(), None)),
        values(linear(plain, flat, None))
    );
    let x = random([2, 5, 6, 3], 1, &device);
    let weight = random([4, 3, 2, 2], 2, &device);
    let turned = x.swap_dims(1, 3);
    let got = values(conv2d(turned.clone(), weight.clone(), None, 1));
    near(&got, &values(burns_conv(turned, weight, None, 1)), 12);
}

#[test]
fn threads_do_not_change_a_bit() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let bits =
                |v: [Vec<f32>; 4]| v.map(|v| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
            [
                bits(of_linear(linear, [900, 4, 32, 48])),
                bits(of_linear(linear, [4, 4, 600, 64])),
                bits(of_conv(conv2d, [7, 5, 20, 21], [6, 5, 3, 3], 1)),
            ]
        })
    };
    let alone = run(1);
    assert_eq!(alone, run(2));
    assert_eq!(alone, run(3));
}

#[test]
#[should_panic(expected = "do not fit")]
fn weights_of_other_inputs_panic() {
    let device = Device::flex();
    linear(
        random([2, 3, 4], 1, &device),
        random([5, 2], 2, &device),
        None,
    );
}
