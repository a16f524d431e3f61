//! `mlp` and `window-mlp`: layers of weighted sums over one flow, and over all flows of the window in their places.
//!
//! Flows have a column for each code. The hidden layers have relu and dropout 0.1; the sigmoid of the last layer's
//! number is the probability. Training is that of the paper's method.

use super::super::detector::{Detector, Fitted};
use super::super::lessons::{BatchOrder, Lessons};
use super::super::prepare::Flows;
use super::neural::{self, Model, Network};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_nn::blocks::{self, Activation};
use papertrial_nn::burn;
use papertrial_nn::burn::module::Module;
use papertrial_nn::burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Share of the hidden numbers that are dropped while training.
const DROPOUT: f64 = 0.1;

/// Options of the network over one flow.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Mlp {
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Epochs at most.
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// Steps of an epoch.
    #[schemars(range(min = 1))]
    pub steps: usize,
    /// Flows of a step, half of them attacks.
    #[schemars(range(min = 2))]
    pub batch: usize,
    /// Learning rate of Adam.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Epochs without a lower loss of any batch after which training ends: more than these.
    pub patience: usize,
}

impl Default for Mlp {
    fn default() -> Self {
        Mlp {
            hidden: vec![128, 128],
            epochs: 100,
            steps: 128,
            batch: 128,
            learning_rate: 1e-3,
            patience: 5,
        }
    }
}

/// Options of the network over the window.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct WindowMlp {
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
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

impl Default for WindowMlp {
    fn default() -> Self {
        let Mlp {
            hidden,
            epochs,
            steps,
            batch,
            learning_rate,
            patience,
        } = Mlp::default();
        WindowMlp {
            hidden,
            epochs,
            steps,
            batch,
            learning_rate,
            patience,
        }
    }
}

impl Method for Mlp {
    const FACTS: Facts = Facts {
        name: "mlp",
        about: "a network of weighted sums over one flow",
        paper: None,
        streams: true,
    };
}

impl Method for WindowMlp {
    const FACTS: Facts = Facts {
        name: "window-mlp",
        about: "a network of weighted sums over all flows of the window side by side",
        paper: None,
        streams: true,
    };
}

impl Detector for Mlp {
    fn fit(
        &self,
        flows: &Flows,
        train: &[usize],
        _: usize,
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
        fit(&self.hidden, 1, &lessons, flows, train, context)
    }
}

impl Detector for WindowMlp {
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
        fit(&self.hidden, window, &lessons, flows, train, context)
    }
}

fn fit(
    hidden: &[usize],
    window: usize,
    lessons: &Lessons,
    flows: &Flows,
    train: &[usize],
    context: &Context,
) -> Result<Box<dyn Fitted>> {
    if hidden.iter().any(|width| !(1..=65_536).contains(width)) {
        return Err(Error::option("hidden", "each width must be 1 to 65536"));
    }
    let sizes = Sizes {
        hidden: hidden.to_vec(),
        window,
    };
    Ok(Box::new(neural::fit::<Layers>(
        sizes, lessons, flows, train, context,
    )?))
}

/// The model that was written into `folder`.
///
/// # Errors
/// The weights are missing, broken, or of another network.
pub(super) fn load(folder: &Path, context: &Context) -> Result<impl Fitted + use<>> {
    Model::<Layers>::load(folder, context)
}

/// What the network is built from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sizes {
    hidden: Vec<usize>,
    window: usize,
}

#[derive(Module, Debug)]
pub(super) struct Layers {
    layers: blocks::Mlp,
}

impl Network for Layers {
    type Sizes = Sizes;

    fn new(sizes: &Sizes, inputs: usize, device: &Device) -> Self {
        let mut widths = vec![inputs * sizes.window];
        widths.extend(&sizes.hidden);
        widths.push(1);
        Layers {
            layers: blocks::Mlp::new(&widths, Activation::Relu, DROPOUT, device),
        }
    }

    fn window(sizes: &Sizes) -> usize {
        sizes.window
    }

    fn logits(&self, _: &Sizes, x: Tensor<2>) -> Tensor<1> {
        self.layers.forward(x).squeeze_dim(1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::flows;
    use super::*;

    #[test]
    fn parameters_by_hand_and_bad_options() {
        let some = flows(80, false, 1);
        let train: Vec<usize> = (2..80).collect();
        let context = Context::with_seed(0);
        let mut options = WindowMlp {
            hidden: vec![5],
            epochs: 1,
            steps: 2,
            batch: 8,
            ..WindowMlp::default()
        };
        let fitted = options.fit(&some, &train, 3, &context).unwrap();
        // 6 columns, 3 flows: 18 x 5 + 5 + 5 + 1.
        assert_eq!(fitted.parameters(), 101);
        assert_eq!(fitted.losses().len(), 1);
        assert!(fitted.seconds_per_step().unwrap() > 0.0);
        options.hidden = vec![0];
        assert!(options.fit(&some, &train, 3, &context).is_err());
        options = WindowMlp {
            batch: 400,
            ..WindowMlp::default()
        };
        let e = options
            .fit(&some, &train, 3, &context)
            .err()
            .unwrap()
            .to_string();
        assert!(e.contains("200 attacks"), "{e}");
    }

    #[test]
    fn training_ends_when_no_batch_gets_better() {
        let some = flows(200, false, 1);
        let train: Vec<usize> = (0..200).collect();
        let options = Mlp {
            epochs: 400,
            steps: 1,
            batch: 16,
            learning_rate: 1e-9,
            patience: 0,
            ..Mlp::default()
        };
        let fitted = options
            .fit(&some, &train, 1, &Context::with_seed(0))
            .unwrap();
        assert!(fitted.losses().len() < 100);
        assert!(fitted.notes()[0].contains("ended early"));
    }
}
