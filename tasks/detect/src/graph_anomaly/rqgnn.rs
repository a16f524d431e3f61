//! RQGNN: a graph's Rayleigh quotients and a network of Chebyshev wavelets, side by side.
//!
//! Dong, Zhang and Wang, *Rayleigh Quotient Graph Neural Networks for Graph-level Anomaly Detection*, ICLR 2024,
//! arXiv 2310.02861. Details that the paper leaves open were read in its reference code (xydong127/RQGNN): no division by
//! x . x in the quotients, no activation between the two layers of the first branch, leaky slope 0.01, the wavelets'
//! start (evenly up to sqrt(6 / 2d), offsets 0), the best models as the later of equal ones.
//!
//! Symbols: n nodes, d features, X [n, d]; H hidden width; act = leaky; L = I - D^(-1/2) A D^(-1/2).
//!
//! 1. q = diag(X' L X), [d], of each graph, computed once.
//! 2. Explicit branch: r = act(W6 (W5 q + b5) + b6), [H].
//! 3. h0 = act(W2 act(W1 X)), d to d to d.
//! 4. Wavelets: `width` filters, each the sum over k < `depth` of T_k(-D^(-1/2) A D^(-1/2)) h0 Theta_k, plus b; d to d.
//! 5. h = act(W4 act(W3 [filters side by side])), `width` d to H to H.
//! 6. RQ-pooling: a = act(W9 act(W8 q)), score of node i s_i = h_i . a, p = sum of s_i h_i.
//! 7. Batch normalisation of \[p; r\], dropout, two logits; the score of a graph is the second share of their softmax.
//! 8. Training and loss: see the task (Adam, class-balanced focal loss; the best models of two kinds are kept).
//!
//! All filters use the same T_k h0, which are computed once; and as nothing bends between the filters and W3, the
//! filters' weights are multiplied by W3 first: the same numbers for a third of the work.
//!
//! Cost of an epoch: O(depth edges d + nodes (d^2 + depth d H + H^2)).
//!
//! Ablations of the paper are options: without the explicit branch (`quotients = false`), other poolings (`pooling`),
//! a spatial convolution in place of wavelets (`filters = spatial`: `width` filters M h0 Theta + b with
//! M = D~^(-1/2) (A + I) D~^(-1/2)), and cross-entropy (the task's `loss`).

use super::graphs::GraphSet;
use super::networks::{Batch, Head, Learner, Lessons, Network, Readout, fit, load};
use super::ops::{self, Matrix};
use super::{Detector, Fitted, Scorer, Split, networks};
use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use papertrial_core::Result;
use papertrial_core::task::{Context, Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How the vectors of a graph's nodes become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// Their sum, each weighted by its product with a vector made of the graph's quotients.
    #[default]
    Rq,
    /// Their mean.
    Mean,
    /// Their sum.
    Sum,
    /// Their mean weighted by a softmax of learned scores.
    Attention,
}

/// What the filters of the implicit branch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Filters {
    /// Chebyshev wavelets.
    #[default]
    Wavelets,
    /// One step of a graph convolution each.
    Spatial,
}

/// RQGNN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rqgnn {
    /// Filters side by side.
    #[schemars(range(min = 1, max = 64))]
    pub width: usize,
    /// Terms of the Chebyshev series of a filter.
    #[schemars(range(min = 1, max = 64))]
    pub depth: usize,
    /// Width of the hidden layers.
    #[schemars(range(min = 1, max = 4096))]
    pub hidden: usize,
    /// Share of the head's inputs that is left out in training.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub dropout: f64,
    /// Whether there is the explicit branch, which reads the Rayleigh quotients.
    pub quotients: bool,
    /// How the vectors of a graph's nodes become one.
    pub pooling: Pooling,
    /// What the filters are.
    pub filters: Filters,
}

impl Default for Rqgnn {
    fn default() -> Self {
        Rqgnn {
            width: 4,
            depth: 6,
            hidden: 64,
            dropout: 0.4,
            quotients: true,
            pooling: Pooling::Rq,
            filters: Filters::Wavelets,
        }
    }
}

impl Method for Rqgnn {
    const FACTS: Facts = Facts {
        name: "rqgnn",
        about: "the Rayleigh quotients of node features beside Chebyshev wavelets whose pooling they weight",
        paper: Some("rqgnn"),
        streams: false,
    };
}

/// The weights.
#[derive(Module, Debug)]
pub(super) struct WaveletNet {
    /// W1 and W2.
    inputs: [Linear; 2],
    /// Theta of all filters, [depth d, width d].
    theta: Param<Tensor<2>>,
    /// b of all filters, [width d].
    offsets: Param<Tensor<1>>,
    /// W3 and W4.
    hidden: [Linear; 2],
    /// W5 and W6, or none without the explicit branch.
    explicit: Option<[Linear; 2]>,
    /// W8 and W9 of RQ-pooling, or one layer of attention, or none.
    weighting: Vec<Linear>,
    head: Head,
    #[module(skip)]
    options: Rqgnn,
}

impl Rqgnn {
    /// Terms of a filter.
    fn terms(&self) -> usize {
        match self.filters {
            Filters::Wavelets => self.depth,
            Filters::Spatial => 1,
        }
    }

    /// The network for d features of a node, at least one.
    fn build(&self, d: usize, device: &Device) -> WaveletNet {
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        let h = self.hidden;
        let bound = (6.0 / (2 * d) as f64).sqrt();
        let start = Initializer::Uniform {
            min: -bound,
            max: bound,
        };
        WaveletNet {
            inputs: [linear(d, d), linear(d, d)],
            theta: start.init([self.terms() * d, self.width * d], device),
            offsets: Initializer::Zeros.init([self.width * d], device),
            hidden: [linear(self.width * d, h), linear(h, h)],
            explicit: self.quotients.then(|| [linear(d, h), linear(h, h)]),
            weighting: match self.pooling {
                Pooling::Rq => vec![linear(d, h), linear(h, h)],
                Pooling::Attention => vec![linear(h, 1)],
                Pooling::Mean | Pooling::Sum => vec![],
            },
            head: Head::new(if self.quotients { 2 * h } else { h }, self.dropout, device),
            options: self.clone(),
        }
    }
}

impl WaveletNet {
    /// Steps 4 and 5: node vectors [n, d] to [n, H].
    fn filtered(&self, h0: Tensor<2>, batch: &Batch) -> Tensor<2> {
        let terms = match self.options.filters {
            Filters::Wavelets => ops::chebyshev(h0, &batch.links, self.options.depth),
            Filters::Spatial => ops::product(h0, &batch.links),
        };
        let [third, fourth] = &self.hidden;
        let weights = self.theta.val().matmul(third.weight.val());
        let mut offsets = self
            .offsets
            .val()
            .unsqueeze::<2>()
            .matmul(third.weight.val());
        if let Some(bias) = &third.bias {
            offsets = offsets + bias.val().unsqueeze::<2>();
        }
        let h = ops::leaky(terms.matmul(weights) + offsets);
        ops::leaky(fourth.forward(h))
    }

    /// Step 6: [n, H] to [graphs, H].
    fn pooled(&self, h: Tensor<2>, batch: &Batch) -> Tensor<2> {
        match (self.options.pooling, self.weighting.as_slice()) {
            (Pooling::Rq, [eighth, ninth]) => {
                let a = ops::leaky(eighth.forward(batch.energies.clone()));
                let a = ops::leaky(ninth.forward(a));
                ops::weighted_pool(h, a, &batch.links)
            }
            (Pooling::Attention, [score]) => {
                let scores = score.forward(h.clone());
                networks::attention(h, scores, &batch.links)
            }
            (Pooling::Sum, _) => Readout::Sum.apply(h, &batch.links),
            _ => Readout::Mean.apply(h, &batch.links),
        }
    }
}

impl Network for WaveletNet {
    fn matrix(&self) -> Matrix {
        match self.options.filters {
            Filters::Wavelets => Matrix::Wavelet,
            Filters::Spatial => Matrix::Convolution,
        }
    }

    fn logits(&self, batch: &Batch) -> Tensor<2> {
        let [first, second] = &self.inputs;
        let h0 = ops::leaky(first.forward(batch.features.clone()));
        let h0 = ops::leaky(second.forward(h0)); // 3
        let h = self.filtered(h0, batch); // 4, 5
        let p = self.pooled(h, batch); // 6
        let z = match &self.explicit {
            Some([fifth, sixth]) => {
                let r = ops::leaky(sixth.forward(fifth.forward(batch.energies.clone()))); // 2
                Tensor::cat(vec![p, r], 1)
            }
            None => p,
        };
        self.head.forward(z) // 7
    }
}

impl Detector for Rqgnn {
    fn fit(
        &self,
        graphs: &GraphSet,
        split: &Split,
        lessons: &Lessons,
        context: &Context,
    ) -> Result<Fitted> {
        let d = graphs.width();
        let learner = Learner {
            graphs,
            split,
            lessons,
            seed: context.seed,
        };
        fit(&learner, |device| self.build(d, device), context)
    }

    fn load(&self, folder: &Path, d: usize, context: &Context) -> Result<Box<dyn Scorer>> {
        load(|device| self.build(d, device), folder, context)
    }
}

#[cfg(test)]
mod tests {
    use super::super::graphs::{Builder, GraphSet};
    use super::super::networks::Prepared;
    use super::super::spectral::laplacian;
    use super::*;
    use burn::tensor::Device;
    use ndarray::{Array1, Array2, Axis, concatenate};
    use papertrial_nn::{seeded, values_of};

    fn parameters(options: &Rqgnn, d: usize) -> usize {
        networks::weights(&seeded(&Device::flex(), 1, |device| {
            options.build(d, device)
        }))
    }

    #[test]
    fn as_many_parameters_as_the_paper_s_network_has() {
        for (d, h) in [(46, 64), (8, 16), (1, 4)] {
            let options = Rqgnn {
                hidden: h,
                ..Rqgnn::default()
            };
            let two_layers = d * h + h + h * h + h;
            let want = 2 * d * (d + 1)
                + 4 * (6 * d * d + d)
                + (4 * d * h + h)
                + (h * h + h)
                + 2 * two_layers
                + 4 * h
                + (4 * h + 2);
            assert_eq!(parameters(&options, d), want, "d {d}, H {h}");
        }
        // Each part that is left out takes its weights along.
        let (d, h) = (8, 64);
        let all = parameters(&Rqgnn::default(), d);
        let without = |options: Rqgnn| all - parameters(&options, d);
        let explicit = d * h + h + h * h + h;
        let plain = Rqgnn {
            quotients: false,
            ..Rqgnn::default()
        };
        assert_eq!(without(plain), explicit + 2 * h + 2 * h);
        let mean = Rqgnn {
            pooling: Pooling::Mean,
            ..Rqgnn::default()
        };
        assert_eq!(without(mean), explicit);
        let spatial = Rqgnn {
            filters: Filters::Spatial,
            ..Rqgnn::default()
        };
        assert_eq!(without(spatial), 4 * 5 * d * d);
    }

    /// Two graphs of three features; one node has no neighbours.
    fn graphs() -> GraphSet {
        let mut builder = Builder::new(["a", "b", "c"].map(String::from).to_vec());
        let x: Vec<f32> = (0..15).map(|i| (i as f32 * 1.7).sin()).collect();
        let edges = [(0, 1), (1, 2), (2, 0), (2, 3)].map(|(a, b)| (a, b, 1.0));
        builder.push("one".into(), 5, &edges, &x).unwrap();
        builder
            .push("two".into(), 2, &[(0, 1, 1.0)], &x[..6])
            .unwrap();
        builder.finish().0
    }

    fn matrix(tensor: Tensor<2>) -> Array2<f64> {
        let [n, d] = tensor.dims();
        let values = values_of(tensor)
            .unwrap()
            .into_iter()
            .map(f64::from)
            .collect();
        Array2::from_shape_vec((n, d), values).unwrap()
    }

    fn row(tensor: Tensor<1>) -> Array1<f64> {
        values_of(tensor)
            .unwrap()
            .into_iter()
            .map(f64::from)
            .collect()
    }

    fn layer(linear: &Linear, x: &Array2<f64>) -> Array2<f64> {
        let bias = linear.bias.as_ref().map(|b| row(b.val())).unwrap();
        x.dot(&matrix(linear.weight.val())) + bias
    }

    fn act(x: Array2<f64>) -> Array2<f64> {
        x.mapv(|v| if v > 0.0 { v } else { 0.01 * v })
    }

    /// p and r of a graph, each step as it is written above, with dense matrices and each filter on its own.
    fn by_the_book(net: &WaveletNet, set: &GraphSet, g: usize) -> Array2<f64> {
        let graph = set.graph(g);
        let n = graph.nodes();
        let x = Array2::from_shape_vec((n, 3), graph.all_features().to_vec())
            .unwrap()
            .mapv(f64::from);
        let l = laplacian(graph);
        let q = x.t().dot(&l.dot(&x)).diag().to_owned().insert_axis(Axis(0));
        let [fifth, sixth] = net.explicit.as_ref().unwrap();
        let r = act(layer(sixth, &layer(fifth, &q)));
        let h0 = act(layer(&net.inputs[1], &act(layer(&net.inputs[0], &x))));
        let mut shifted = l;
        for i in 0..n {
            if graph.degree(i) > 0.0 {
                shifted[(i, i)] -= 1.0;
            }
        }
        let mut terms = vec![h0.clone(), shifted.dot(&h0)];
        for k in 2..6 {
            let next = 2.0 * shifted.dot(&terms[k - 1]) - &terms[k - 2];
            terms.push(next);
        }
        let (theta, offsets) = (matrix(net.theta.val()), row(net.offsets.val()));
        let filters: Vec<Array2<f64>> = (0..4)
            .map(|f| {
                let columns = 3 * f..3 * (f + 1);
                let mut sum = Array2::zeros((n, 3));
                for (k, term) in terms.iter().enumerate() {
                    let own = theta.slice(ndarray::s![3 * k..3 * (k + 1), columns.clone()]);
                    sum += &term.dot(&own);
                }
                sum + offsets.slice(ndarray::s![columns])
            })
            .collect();
        let views: Vec<_> = filters.iter().map(|f| f.view()).collect();
        let beside = concatenate(Axis(1), &views).unwrap();
        let h = act(layer(&net.hidden[1], &act(layer(&net.hidden[0], &beside))));
        let a = act(layer(&net.weighting[1], &act(layer(&net.weighting[0], &q))));
        let scores = h.dot(&a.t());
        let p = (&h * &scores).sum_axis(Axis(0)).insert_axis(Axis(0));
        concatenate(Axis(1), &[p.view(), r.view()]).unwrap()
    }

    #[test]
    fn logits_are_those_of_the_steps_written_out_with_dense_matrices() {
        let set = graphs();
        let device = Device::flex();
        let options = Rqgnn {
            hidden: 5,
            ..Rqgnn::default()
        };
        let net = seeded(&device, 3, |d| options.build(3, d)).valid();
        let batch = Prepared::new(&set).batch(&[1, 0], net.matrix(), &device);
        let got = matrix(net.logits(&batch));
        for (row, g) in [1, 0].into_iter().enumerate() {
            let z = by_the_book(&net, &set, g).mapv(|v| v as f32);
            let z = Tensor::from_data(
                burn::tensor::TensorData::new(z.into_raw_vec_and_offset().0, [1, 10]),
                &device,
            );
            let want = matrix(net.head.forward(z));
            for c in 0..2 {
                let (got, want) = (got[(row, c)], want[(0, c)]);
                assert!(
                    (got - want).abs() < 1e-5 * (1.0 + want.abs()),
                    "{got} {want}"
                );
            }
        }
    }

    #[test]
    fn every_weight_of_every_form_gets_a_gradient() {
        let set = graphs();
        for pooling in [Pooling::Rq, Pooling::Mean, Pooling::Sum, Pooling::Attention] {
            for filters in [Filters::Wavelets, Filters::Spatial] {
                let options = Rqgnn {
                    hidden: 4,
                    pooling,
                    filters,
                    ..Rqgnn::default()
                };
                let net = seeded(&Device::flex(), 1, |d| options.build(3, d));
                let device = Device::flex().autodiff();
                let batch = Prepared::new(&set).batch(&[0, 1, 0], net.matrix(), &device);
                let gradients = net.logits(&batch).square().sum().backward();
                assert!(net.theta.val().grad(&gradients).is_some());
                assert!(net.offsets.val().grad(&gradients).is_some());
                for linear in net.inputs.iter().chain(&net.hidden).chain(&net.weighting) {
                    assert!(linear.weight.val().grad(&gradients).is_some());
                }
            }
        }
    }
}
