//! Operations of tensors over graphs, each with its backward step.
//!
//! Burn has no sparse tensors. On the CPU these are operations of our own: the matrix of a batch is constant and
//! symmetric, so the backward step of a product is the same product, and all terms of a Chebyshev series of a graph are
//! computed while its nodes are in the nearest cache. On other devices they are made of gathers and scattered sums.

mod backends;
mod kernels;
mod links;

pub use links::{Links, Matrix};

use backends::Operations;
use burn::backend::Dispatch;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData, activation};
use papertrial_nn::ops::opened;
use std::sync::Arc;

/// M x: [n, d] to [n, d].
pub fn product(x: Tensor<2>, links: &Arc<Links>) -> Tensor<2> {
    match opened(x) {
        (x, true) => Tensor::from_dispatch(Dispatch::graph_product(x, links.clone())),
        (x, false) => scattered::product(Tensor::from_dispatch(x), links),
    }
}

/// The first `terms` Chebyshev polynomials of M, times x, side by side: [n, d] to [n, terms d].
pub fn chebyshev(x: Tensor<2>, links: &Arc<Links>, terms: usize) -> Tensor<2> {
    match opened(x) {
        (x, true) => Tensor::from_dispatch(Dispatch::graph_chebyshev(x, links.clone(), terms)),
        (x, false) => scattered::chebyshev(Tensor::from_dispatch(x), links, terms),
    }
}

/// Sum over each graph's nodes: [n, d] to [graphs, d].
pub fn pool(x: Tensor<2>, links: &Arc<Links>) -> Tensor<2> {
    match opened(x) {
        (x, true) => Tensor::from_dispatch(Dispatch::graph_pool(x, links.clone())),
        (x, false) => scattered::pool(Tensor::from_dispatch(x), links),
    }
}

/// Sum of (h_i . a) h_i over each graph's nodes: h of [n, d] and a of [graphs, d] to [graphs, d].
pub fn weighted_pool(h: Tensor<2>, a: Tensor<2>, links: &Arc<Links>) -> Tensor<2> {
    match (opened(h), opened(a)) {
        ((h, true), (a, true)) => {
            Tensor::from_dispatch(Dispatch::graph_weighted_pool(h, a, links.clone()))
        }
        ((h, _), (a, _)) => {
            scattered::weighted_pool(Tensor::from_dispatch(h), Tensor::from_dispatch(a), links)
        }
    }
}

/// x where it is positive, else a hundredth of x.
pub fn leaky(x: Tensor<2>) -> Tensor<2> {
    const SLOPE: f64 = 0.01;
    match opened(x) {
        (x, true) => Tensor::from_dispatch(Dispatch::graph_leaky(x, SLOPE)),
        (x, false) => activation::leaky_relu(Tensor::from_dispatch(x), SLOPE),
    }
}

/// Each graph's row for each of its nodes: [graphs, d] to [n, d].
pub fn spread(x: Tensor<2>, links: &Links) -> Tensor<2> {
    let graphs = scattered::whole(links.graph_of(), links.nodes(), &x.device());
    x.select(0, graphs)
}

/// The operations for any device.
mod scattered {
    use super::*;
    use burn::tensor::Device;

    pub(super) fn whole(
        numbers: impl Iterator<Item = usize>,
        count: usize,
        device: &Device,
    ) -> Tensor<1, Int> {
        let numbers: Vec<i32> = numbers.map(|v| v as i32).collect();
        Tensor::from_data(TensorData::new(numbers, [count]), device)
    }

    pub(super) fn product(x: Tensor<2>, links: &Links) -> Tensor<2> {
        let [n, d] = x.dims();
        let device = x.device();
        let values: Vec<f32> = links.entries().map(|e| e.2).collect();
        let count = values.len();
        let from = whole(links.entries().map(|e| e.1), count, &device);
        let to = whole(links.entries().map(|e| e.0), count, &device);
        let values = Tensor::<2>::from_data(TensorData::new(values, [count, 1]), &device);
        Tensor::zeros([n, d], &device).select_assign(
            0,
            to,
            x.select(0, from) * values,
            IndexingUpdateOp::Add,
        )
    }

    pub(super) fn chebyshev(x: Tensor<2>, links: &Links, terms: usize) -> Tensor<2> {
        let mut all = vec![x.clone()];
        for k in 1..terms {
            let next = product(all[k - 1].clone(), links);
            all.push(match k {
                1 => next,
                _ => next * 2.0 - all[k - 2].clone(),
            });
        }
        Tensor::cat(all, 1)
    }

    pub(super) fn pool(x: Tensor<2>, links: &Links) -> Tensor<2> {
        let [n, d] = x.dims();
        let device = x.device();
        let graphs = whole(links.graph_of(), n, &device);
        Tensor::zeros([links.graphs(), d], &device).select_assign(
            0,
            graphs,
            x,
            IndexingUpdateOp::Add,
        )
    }

    pub(super) fn weighted_pool(h: Tensor<2>, a: Tensor<2>, links: &Links) -> Tensor<2> {
        let scores = (h.clone() * spread(a, links)).sum_dim(1);
        pool(h * scores, links)
    }
}

#[cfg(test)]
mod tests {
    use super::super::graphs::tests::of_edges;
    use super::super::spectral::laplacian;
    use super::*;
    use burn::tensor::Device;
    use papertrial_nn::values_of;
    use papertrial_numerics::linalg::eigh;
    use proptest::prelude::*;

    fn tensor(values: &[f32], shape: [usize; 2], device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
    }

    /// Numbers that look random, -1 to 1.
    fn noise(n: usize, seed: u32) -> Vec<f32> {
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

    fn close(name: &str, a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len(), "{name}");
        for (a, b) in a.iter().zip(b) {
            assert!(
                (a - b).abs() < 2e-4 * (1.0 + b.abs()),
                "{name}: {a} is not {b}"
            );
        }
    }

    #[test]
    fn chebyshev_terms_are_cosines_of_the_spectrum() {
        // T_k(M) = U cos(k arccos(mu)) U' with the eigenvalues mu of M.
        let edges = [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4)];
        let set = of_edges(&[(6, &edges), (2, &[(0, 1)])]);
        let links = Arc::new(Links::new(&set, &[1, 0], Matrix::Wavelet));
        let x = noise(8 * 3, 1);
        let device = Device::flex();
        let terms = 6;
        let got = values_of(chebyshev(tensor(&x, [8, 3], &device), &links, terms)).unwrap();
        for (g, first, n) in [(1, 0, 2), (0, 2, 6)] {
            let graph = set.graph(g);
            let mut shifted = laplacian(graph);
            for i in 0..n {
                // A node without neighbours keeps a row of zeros on both sides.
                if graph.degree(i) > 0.0 {
                    shifted[(i, i)] -= 1.0;
                }
            }
            let eigen = eigh(shifted.view()).unwrap();
            for k in 0..terms {
                for i in 0..n {
                    for f in 0..3 {
                        let mut want = 0.0;
                        for (v, mu) in eigen.values.iter().enumerate() {
                            let part: f64 = (0..n)
                                .map(|j| eigen.vectors[(j, v)] * f64::from(x[(first + j) * 3 + f]))
                                .sum();
                            let t = (k as f64 * mu.clamp(-1.0, 1.0).acos()).cos();
                            want += eigen.vectors[(i, v)] * t * part;
                        }
                        let got = f64::from(got[(first + i) * terms * 3 + k * 3 + f]);
                        assert!((got - want).abs() < 1e-5, "term {k}: {got} {want}");
                    }
                }
            }
        }
    }

    /// An operation of x and a, on the union of some graphs.
    type Operation = fn(Tensor<2>, Tensor<2>, &Arc<Links>) -> Tensor<2>;

    const OPERATIONS: [(&str, Operation, Operation); 5] = [
        (
            "product",
            |x, _, l| product(x, l),
            |x, _, l| scattered::product(x, l),
        ),
        (
            "chebyshev",
            |x, _, l| chebyshev(x, l, 5),
            |x, _, l| scattered::chebyshev(x, l, 5),
        ),
        (
            "pool",
            |x, _, l| pool(x, l),
            |x, _, l| scattered::pool(x, l),
        ),
        ("weighted pool", weighted_pool, |x, a, l| {
            scattered::weighted_pool(x, a, l)
        }),
        (
            "leaky",
            |x, _, _| leaky(x),
            |x, _, _| activation::leaky_relu(x, 0.01),
        ),
    ];

    /// The result, and the gradients of the sum of its products with fixed numbers.
    fn run(
        operation: Operation,
        x: &[f32],
        a: &[f32],
        d: usize,
        links: &Arc<Links>,
    ) -> [Vec<f32>; 3] {
        let device = Device::flex().autodiff();
        let x = tensor(x, [links.nodes(), d], &device).require_grad();
        let a = tensor(a, [links.graphs(), d], &device).require_grad();
        let y = operation(x.clone(), a.clone(), links);
        let [rows, width] = y.dims();
        let weights = tensor(&noise(rows * width, 77), [rows, width], &device);
        let gradients = (y.clone() * weights).sum().backward();
        let of = |t: &Tensor<2>| t.grad(&gradients).map(|g| values_of(g).unwrap());
        [
            values_of(y).unwrap(),
            of(&x).unwrap_or_default(),
            of(&a).unwrap_or_default(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn ours_agree_with_gathers_and_scattered_sums_in_values_and_gradients(
            d in 1usize..6,
            edges in proptest::collection::vec((0usize..7, 0usize..7), 0..20),
            seed in 0u32..1000,
        ) {
            let set = of_edges(&[(7, &edges), (0, &[]), (3, &[(0, 2)]), (1, &[])]);
            for matrix in [Matrix::Wavelet, Matrix::Convolution, Matrix::Sum] {
                let links = Arc::new(Links::new(&set, &[2, 0, 1, 3, 0], matrix));
                let x = noise(links.nodes() * d, seed);
                let a = noise(links.graphs() * d, seed + 1);
                for (name, ours, burns) in OPERATIONS {
                    let (got, want) = (run(ours, &x, &a, d, &links), run(burns, &x, &a, d, &links));
                    for (got, want) in got.iter().zip(&want) {
                        close(name, got, want);
                    }
                }
            }
        }
    }

    #[test]
    fn columns_that_do_not_lie_in_order_are_read_as_they_stand() {
        let set = of_edges(&[(4, &[(0, 1), (1, 2)])]);
        let links = Arc::new(Links::new(&set, &[0], Matrix::Convolution));
        let device = Device::flex();
        let x = tensor(&noise(12, 3), [3, 4], &device).transpose();
        let alone = tensor(&values_of(x.clone()).unwrap(), [4, 3], &device);
        assert_eq!(
            values_of(product(x, &links)).unwrap(),
            values_of(product(alone, &links)).unwrap()
        );
    }

    #[test]
    fn the_matrix_of_a_convolution_by_hand() {
        // One edge: degrees 2 and 2 with the loops, so every entry is 1/2. A lone node keeps its value.
        let set = of_edges(&[(3, &[(0, 1)])]);
        let device = Device::flex();
        let product = |matrix| {
            let links = Arc::new(Links::new(&set, &[0], matrix));
            values_of(super::product(
                tensor(&[1., 3., 5.], [3, 1], &device),
                &links,
            ))
            .unwrap()
        };
        close("convolution", &product(Matrix::Convolution), &[2., 2., 5.]);
        close("sum", &product(Matrix::Sum), &[4., 4., 5.]);
        close("wavelet", &product(Matrix::Wavelet), &[-3., -1., 0.]);
    }
}
