//! The networks that RQGNN is compared with: GCN, GIN and ChebNet, with the same head, loss and budget.
//!
//! All: h_0 = X; h_l = leaky(layer of h_(l-1)), width H; the mean (or sum) over each graph's nodes; batch normalisation,
//! dropout, two logits.
//!
//! - GCN (Kipf and Welling, *Semi-Supervised Classification with Graph Convolutional Networks*, 1609.02907): the layer is
//!   M h W + b, M = D~^(-1/2) (A + I) D~^(-1/2).
//! - GIN (Xu and others, *How Powerful are Graph Neural Networks?*, 1810.00826): the layer is a perceptron of two layers,
//!   with batch normalisation between them, of (A + I) h. Its epsilon is 0.
//! - ChebNet (Defferrard and others, *Convolutional Neural Networks on Graphs with Fast Localized Spectral Filtering*,
//!   1606.09375): the layer is the sum of T_k(-D^(-1/2) A D^(-1/2)) h W_k over k < K, plus b.
//!
//! Cost of an epoch: O(edges H + nodes H^2) a layer; K times as much for ChebNet.

use super::super::graphs::GraphSet;
use super::super::ops::{self, Matrix};
use super::super::{Detector, Fitted, Scorer, Split};
use super::{Batch, Head, Learner, Lessons, Network, Readout, fit, load};
use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use papertrial_core::Result;
use papertrial_core::task::{Context, Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What a layer does before its weights.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Convolution,
    Isomorphism,
    Chebyshev(usize),
}

/// A layer: weighted sums, and for GIN a second one after batch normalisation.
#[derive(Module, Debug)]
struct Layer {
    first: Linear,
    second: Option<(BatchNorm, Linear)>,
}

/// Any of the three networks.
#[derive(Module, Debug)]
struct Plain {
    layers: Vec<Layer>,
    head: Head,
    #[module(skip)]
    kind: Kind,
    #[module(skip)]
    readout: Readout,
}

/// What a network is built from.
#[derive(Debug, Clone, Copy)]
struct Plan {
    kind: Kind,
    layers: usize,
    hidden: usize,
    dropout: f64,
    readout: Readout,
}

impl Plan {
    /// For d features of a node.
    fn build(self, d: usize, device: &Device) -> Plain {
        let terms = match self.kind {
            Kind::Chebyshev(terms) => terms,
            _ => 1,
        };
        let layers = (0..self.layers)
            .map(|l| {
                let inputs = if l == 0 { d } else { self.hidden };
                Layer {
                    first: LinearConfig::new(terms * inputs, self.hidden).init(device),
                    second: (self.kind == Kind::Isomorphism).then(|| {
                        (
                            BatchNormConfig::new(self.hidden).init(device),
                            LinearConfig::new(self.hidden, self.hidden).init(device),
                        )
                    }),
                }
            })
            .collect();
        Plain {
            layers,
            head: Head::new(self.hidden, self.dropout, device),
            kind: self.kind,
            readout: self.readout,
        }
    }
}

impl Network for Plain {
    fn matrix(&self) -> Matrix {
        match self.kind {
            Kind::Convolution => Matrix::Convolution,
            Kind::Isomorphism => Matrix::Sum,
            Kind::Chebyshev(_) => Matrix::Wavelet,
        }
    }

    fn logits(&self, batch: &Batch) -> Tensor<2> {
        let mut h = batch.features.clone();
        for layer in &self.layers {
            h = match self.kind {
                Kind::Chebyshev(terms) => ops::chebyshev(h, &batch.links, terms),
                _ => ops::product(h, &batch.links),
            };
            h = layer.first.forward(h);
            if let Some((norm, second)) = &layer.second {
                h = second.forward(ops::leaky(norm.forward(h)));
            }
            h = ops::leaky(h);
        }
        self.head.forward(self.readout.apply(h, &batch.links))
    }
}

/// The options of a network, its facts, and that it is a method of the task.
macro_rules! network {
    ($(#[$meta:meta])* $name:ident, $called:literal, $about:literal, $layers:literal,
     { $($(#[$option:meta])* $field:ident: $value:literal,)* }, |$self:ident| $kind:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
        pub struct $name {
            /// Layers.
            #[schemars(range(min = 1, max = 16))]
            pub layers: usize,
            /// Width of the layers.
            #[schemars(range(min = 1, max = 4096))]
            pub hidden: usize,
            $($(#[$option])* pub $field: usize,)*
            /// How the vectors of a graph's nodes become one.
            pub pooling: Readout,
            /// Share of the head's inputs that is left out in training.
            #[schemars(range(min = 0.0, max = 0.95))]
            pub dropout: f64,
        }

        impl Default for $name {
            fn default() -> Self {
                $name {
                    layers: $layers,
                    hidden: 64,
                    $($field: $value,)*
                    pooling: Readout::Mean,
                    dropout: 0.4,
                }
            }
        }

        impl Method for $name {
            const FACTS: Facts = Facts {
                name: $called,
                about: $about,
                paper: None,
                streams: false,
            };
        }

        impl $name {
            fn plan(&self) -> Plan {
                let $self = self;
                Plan {
                    kind: $kind,
                    layers: self.layers,
                    hidden: self.hidden,
                    dropout: self.dropout,
                    readout: self.pooling,
                }
            }
        }

        impl Detector for $name {
            fn fit(
                &self,
                graphs: &GraphSet,
                split: &Split,
                lessons: &Lessons,
                context: &Context,
            ) -> Result<Fitted> {
                let (plan, d) = (self.plan(), graphs.width());
                let learner = Learner { graphs, split, lessons, seed: context.seed };
                fit(&learner, |device| plan.build(d, device), context)
            }

            fn load(&self, folder: &Path, d: usize, context: &Context) -> Result<Box<dyn Scorer>> {
                let plan = self.plan();
                load(|device| plan.build(d, device), folder, context)
            }
        }
    };
}

network! {
    /// Graph convolution network.
    Gcn, "gcn", "graph convolutions, the mean over each graph's nodes, and the same head and loss as rqgnn", 3, {},
    |_own| Kind::Convolution
}

network! {
    /// Graph isomorphism network.
    Gin, "gin", "sums over neighbours with perceptrons, the mean over each graph's nodes, and the same head and loss as rqgnn", 3, {},
    |_own| Kind::Isomorphism
}

network! {
    /// Chebyshev network.
    ChebNet, "chebnet", "Chebyshev filters, the mean over each graph's nodes, and the same head and loss as rqgnn", 2,
    {
        /// Terms of a filter.
        #[schemars(range(min = 1, max = 32))]
        terms: 4,
    },
    |own| Kind::Chebyshev(own.terms)
}

#[cfg(test)]
mod tests {
    use super::super::super::graphs::tests::of_edges;
    use super::super::Prepared;
    use super::*;
    use papertrial_nn::{seeded, values_of};

    #[test]
    fn a_relabelled_graph_has_the_same_logits_and_a_lone_node_is_no_danger() {
        let one = of_edges(&[(3, &[(0, 1), (1, 2)]), (1, &[]), (0, &[])]);
        let device = Device::flex();
        for plan in [
            Gcn::default().plan(),
            Gin::default().plan(),
            ChebNet::default().plan(),
        ] {
            let net = seeded(&device, 1, |d| plan.build(1, d)).valid();
            let logits = |set: &GraphSet, which: &[usize]| {
                let batch = Prepared::new(set).batch(which, net.matrix(), &device);
                values_of(net.logits(&batch)).unwrap()
            };
            let all = logits(&one, &[0, 1, 2]);
            assert!(all.iter().all(|v| v.is_finite()));
            // Alone or among others, and with its nodes in another order: the features 1, 2, 3 stay with them.
            assert_eq!(logits(&one, &[0]), all[..2]);
            let mut builder = super::super::super::graphs::Builder::new(vec!["f0".into()]);
            let edges = [(2, 0, 1.0), (0, 1, 1.0)];
            builder
                .push("turned".into(), 3, &edges, &[2., 3., 1.])
                .unwrap();
            let turned = logits(&builder.finish().0, &[0]);
            for (a, b) in turned.iter().zip(&all) {
                assert!((a - b).abs() < 1e-5, "{turned:?} {all:?}");
            }
        }
    }
}
