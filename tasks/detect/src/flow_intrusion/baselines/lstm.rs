//! `lstm`: a recurrent network reads the flows of the window in their order; its last state is classified.
//!
//! Hochreiter and Schmidhuber, *Long short-term memory* (1997), with the forget gate of Gers and others (2000). x_t is
//! flow t of the window, d numbers after a dense layer; h and c have the width of the state, both 0 at first:
//! 1. (i, f, o, g) = x_t W + h U + b, the logistic function of i, f and o, the hyperbolic tangent of g;
//! 2. c = f c + i g, h = o tanh(c);
//! 3. the logit is a network with one hidden layer, relu and dropout 0.1, over the last h.
//!
//! The products x_t W of all flows are one. The offset of f starts at 1, as usual. Cost of a step: 6 x windows x w x
//! weights operations, w times one after the other.

use super::super::detector::{Detector, Fitted};
use super::super::lessons::{BatchOrder, Lessons};
use super::super::prepare::Flows;
use super::neural::{self, Model, Network};
use papertrial_core::Result;
use papertrial_core::task::{Context, Facts, Method};
use papertrial_nn::blocks::{self, Activation};
use papertrial_nn::burn;
use papertrial_nn::burn::module::{Module, Param};
use papertrial_nn::burn::nn::{Linear, LinearConfig};
use papertrial_nn::burn::tensor::{Device, Tensor};
use papertrial_nn::ops;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Share of the classifier's numbers that are dropped while training.
const DROPOUT: f64 = 0.1;

/// Width of the classifier, as in the paper's method.
const CLASSIFIER: usize = 128;

/// Options.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Lstm {
    /// Width of a flow after the dense layer.
    #[schemars(range(min = 1, max = 65536))]
    pub width: usize,
    /// Width of the state.
    #[schemars(range(min = 1, max = 65536))]
    pub hidden: usize,
    /// Epochs at most.
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// Steps of an epoch.
    #[schemars(range(min = 1))]
    pub steps: usize,
    /// Windows of a step, half of them attacks.
    #[schemars(range(min = 2))]
    pub batch: usize,
    /// Learning rate of Adam.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Epochs without a lower loss of any batch after which training ends: more than these.
    pub patience: usize,
}

impl Default for Lstm {
    fn default() -> Self {
        Lstm {
            width: 64,
            hidden: 128,
            epochs: 100,
            steps: 128,
            batch: 128,
            learning_rate: 1e-3,
            patience: 5,
        }
    }
}

impl Method for Lstm {
    const FACTS: Facts = Facts {
        name: "lstm",
        about: "a recurrent network over the window whose last state is classified",
        paper: None,
        streams: true,
    };
}

impl Detector for Lstm {
    fn fit(
        &self,
        flows: &Flows,
        train: &[usize],
        window: usize,
        context: &Context,
    ) -> Result<Box<dyn Fitted>> {
        let lessons = Lessons {
            epochs: self.epochs,
            steps: self.steps,
            batch: self.batch,
            batches: BatchOrder::Drawn,
            learning_rate: self.learning_rate,
            patience: self.patience,
        };
        let sizes = Sizes {
            width: self.width,
            hidden: self.hidden,
            window,
        };
        let model = neural::fit::<Recurrent>(sizes, &lessons, flows, train, context)?;
        Ok(Box::new(model))
    }
}

/// The model that was written into `folder`.
///
/// # Errors
/// The weights are missing, broken, or of another network.
pub(super) fn load(folder: &Path, context: &Context) -> Result<impl Fitted + use<>> {
    Model::<Recurrent>::load(folder, context)
}

/// What the network is built from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sizes {
    width: usize,
    hidden: usize,
    window: usize,
}

#[derive(Module, Debug)]
pub(super) struct Recurrent {
    dense: Linear,
    /// W and b; gates in the order i, f, o, g.
    inputs: Linear,
    /// U.
    states: Linear,
    classifier: blocks::Mlp,
}

impl Network for Recurrent {
    type Sizes = Sizes;

    fn new(sizes: &Sizes, inputs: usize, device: &Device) -> Self {
        let gates = 4 * sizes.hidden;
        let mut own = LinearConfig::new(sizes.width, gates).init(device);
        let remember: Vec<f32> = (0..gates)
            .map(|i| if i / sizes.hidden == 1 { 1.0 } else { 0.0 })
            .collect();
        own.bias = Some(Param::from_tensor(Tensor::from_floats(&*remember, device)));
        Recurrent {
            dense: LinearConfig::new(inputs, sizes.width).init(device),
            inputs: own,
            states: LinearConfig::new(sizes.hidden, gates)
                .with_bias(false)
                .init(device),
            classifier: blocks::Mlp::new(
                &[sizes.hidden, CLASSIFIER, 1],
                Activation::Relu,
                DROPOUT,
                device,
            ),
        }
    }

    fn window(sizes: &Sizes) -> usize {
        sizes.window
    }

    fn logits(&self, sizes: &Sizes, x: Tensor<2>) -> Tensor<1> {
        let [b, all] = x.dims();
        let (w, n) = (sizes.window, sizes.hidden);
        let device = x.device();
        let flows = x.reshape([b * w, all / w]);
        let parts = self
            .inputs
            .forward(self.dense.forward(flows))
            .reshape([b, w, 4 * n]);
        let mut h: Option<Tensor<2>> = None;
        let mut c: Option<Tensor<2>> = None;
        for t in 0..w {
            let mut gates: Tensor<2> = parts.clone().narrow(1, t, 1).squeeze_dim(1);
            if let Some(h) = h {
                gates = gates + self.states.forward(h);
            }
            // The three logistic ones at once.
            let open = ops::sigmoid(gates.clone().narrow(1, 0, 3 * n));
            let new = ops::tanh(gates.narrow(1, 3 * n, n));
            let mut cell = open.clone().narrow(1, 0, n) * new;
            if let Some(c) = c {
                cell = cell + open.clone().narrow(1, n, n) * c;
            }
            h = Some(open.narrow(1, 2 * n, n) * ops::tanh(cell.clone()));
            c = Some(cell);
        }
        let last = h.unwrap_or_else(|| Tensor::zeros([b, n], &device));
        self.classifier.forward(last).squeeze_dim(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_nn::{device, rows_of, seeded, values_of};

    #[test]
    fn two_flows_by_hand() {
        let device = device("cpu").unwrap();
        let sizes = Sizes {
            width: 1,
            hidden: 1,
            window: 2,
        };
        let network = seeded(&device, 3, |d| Recurrent::new(&sizes, 1, d)).valid();
        let of = |layer: &Linear| {
            let bias = layer.bias.as_ref().map(|b| values_of(b.val()).unwrap());
            (values_of(layer.weight.val()).unwrap(), bias)
        };
        let ((a, a0), (w, b), (u, _)) =
            (of(&network.dense), of(&network.inputs), of(&network.states));
        let (a0, b) = (a0.unwrap(), b.unwrap());
        assert_eq!(b, [0.0, 1.0, 0.0, 0.0]);
        let logistic = |x: f32| 1.0 / (1.0 + (-x).exp());
        let (mut h, mut c) = (0.0f32, 0.0f32);
        let x = [0.7f32, -1.2];
        for x in x {
            let v = x * a[0] + a0[0];
            let z: Vec<f32> = (0..4).map(|k| v * w[k] + h * u[k] + b[k]).collect();
            c = logistic(z[1]) * c + logistic(z[0]) * z[3].tanh();
            h = logistic(z[2]) * c.tanh();
        }
        let want = values_of(network.classifier.forward(rows_of(&[h], 1, &[0], &device))).unwrap();
        let got = values_of(network.logits(&sizes, rows_of(&x, 2, &[0], &device))).unwrap();
        assert!((got[0] - want[0]).abs() < 1e-6, "{got:?} {want:?}");
    }
}
