//! Every network of the task: what it is ([`Design`]) and its weights ([`Classifier`]).

use super::frame::{Net, Plan};
use super::mixers::Mixer;
use super::parts::Linear;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use papertrial_core::{Error, Result};
use papertrial_nn::blocks::SmallCnn;
use serde::{Deserialize, Serialize};

/// What decides a network's shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Design {
    /// The MetaFormer frame.
    Frame(Plan),
    /// Two rounds of convolution and maximum, and a hidden layer.
    SmallCnn {
        /// Height and width.
        picture: [usize; 2],
        /// Colours.
        channels: usize,
        /// Classes.
        classes: usize,
    },
    /// One linear map of all pixels.
    Pixels {
        /// Pixels times colours.
        inputs: usize,
        /// Classes.
        classes: usize,
    },
}

impl Design {
    /// The network, its weights drawn from Burn's generator.
    ///
    /// # Errors
    /// A design that cannot be built.
    pub fn build(&self, device: &Device) -> Result<Classifier> {
        Ok(match self {
            Design::Frame(plan) => Classifier::Frame(Net::new(plan, device)?),
            Design::SmallCnn {
                picture: [h, w],
                channels,
                classes,
            } => {
                if *h < 4 || *w < 4 {
                    return Err(Error::BadInput(format!(
                        "pictures of {h} x {w} pixels are too small for two rounds of halving; they must be at least 4 x 4"
                    )));
                }
                Classifier::SmallCnn(SmallCnn::new(*channels, *h, *w, *classes, device))
            }
            Design::Pixels { inputs, classes } => {
                Classifier::Pixels(Linear::new(*inputs, *classes, true, device))
            }
        })
    }
}

impl Design {
    /// Numbers that training changes in its network. Weights that are drawn for the count disturb no others.
    ///
    /// # Errors
    /// A design that cannot be built.
    pub fn parameters(&self) -> Result<usize> {
        let device = Device::flex();
        let _held = papertrial_nn::hold(&device, 0);
        Ok(self.build(&device)?.parameters())
    }
}

/// A network of the task.
// There is one of them, and a box is no module.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum Classifier {
    /// The MetaFormer frame.
    Frame(Net<Mixer>),
    /// The small convolutional network.
    SmallCnn(SmallCnn),
    /// Logistic regression.
    Pixels(Linear),
}

impl Classifier {
    /// Pictures [b, h, w, colours] to scores [b, classes].
    ///
    /// # Errors
    /// Pictures of a size that the network cannot take.
    pub fn forward(&self, x: Tensor<4>) -> Result<Tensor<2>> {
        match self {
            Classifier::Frame(net) => net.classes(x),
            Classifier::SmallCnn(net) => Ok(net.forward(x.permute([0, 3, 1, 2]))),
            Classifier::Pixels(linear) => Ok(linear.forward(x.flatten::<2>(1, 3))),
        }
    }

    /// Numbers that training changes.
    pub fn parameters(&self) -> usize {
        let mut count = Count(0);
        self.visit(&mut count);
        let frozen: usize = match self {
            Classifier::Frame(net) => net.frozen(),
            _ => 0,
        };
        count.0 - frozen
    }
}

struct Count(usize);

impl ModuleVisitor for Count {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0 += param.shape().dims::<D>().iter().product::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use super::super::methods::{Shape, iformer, poolformer};
    use super::*;

    const IMAGENET: Shape = Shape {
        picture: [224, 224],
        channels: 3,
        classes: 1000,
    };

    fn parameters(plan: Plan) -> usize {
        Design::Frame(plan).parameters().unwrap()
    }

    #[test]
    fn published_models_have_their_published_sizes() {
        let pools = [("s12", 11_915_176), ("s24", 21_388_968)];
        for (preset, count) in pools {
            let plan = poolformer(preset, &IMAGENET).unwrap();
            assert_eq!(parameters(plan), count, "{preset}");
        }
        for (preset, millions) in [("s", 19.87), ("b", 47.87), ("l", 86.64)] {
            let plan = iformer(preset, &IMAGENET).unwrap();
            let got = parameters(plan) as f64 / 1e6;
            assert!((got - millions).abs() < 0.005, "iFormer-{preset}: {got}");
        }
    }
}
