//! The slots put together: rows of flows to logits.

use super::super::prepare::{Flows, Layout};
use super::encodings::{Encode, Encoding};
use super::heads::{Classify, Head, before};
use super::sequence::{Sizes, Stack};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// All that decides the shape of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Shape {
    /// First slot.
    pub encoding: Encoding,
    /// Width of a record encoding.
    pub width: usize,
    /// Width of each column in a feature encoding.
    pub feature_width: usize,
    /// Second slot.
    pub sequence: Sizes,
    /// Whether positions see only those before them.
    pub causal: bool,
    /// Third slot.
    pub head: Head,
    /// Width of the classifier.
    pub hidden: usize,
    /// Flows in a window.
    pub window: usize,
    /// The blocks of the code of the paper's authors.
    pub reference: bool,
    /// Columns.
    pub layout: Layout,
}

impl Shape {
    /// Width of an encoded flow.
    pub fn encoded(&self) -> usize {
        self.encoding
            .width(&self.layout, self.width, self.feature_width)
    }

    /// Weights, by formula.
    pub fn parameters(&self) -> usize {
        let layout = &self.layout;
        let codes: usize = layout.codes.iter().sum();
        let (c, f) = (layout.codes.len(), self.feature_width);
        let encoding = match self.encoding {
            Encoding::None => 0,
            Encoding::RecordEmbedding => layout.one_hot() * self.width + self.width,
            Encoding::RecordProjection => layout.one_hot() * self.width,
            Encoding::FeatureEmbedding => codes * f + c * f,
            Encoding::FeatureProjection => codes * f,
            Encoding::FeatureLookup => (codes + c) * f,
        };
        let d = self.encoded();
        encoding
            + self.sequence.parameters(self.head.before(self.window, d).1)
            + self.head.parameters(self.window, d, self.hidden)
    }
}

/// A network.
#[derive(Module, Debug)]
pub(super) struct Network {
    pub(super) encode: Encode,
    pub(super) stack: Stack,
    pub(super) classify: Classify,
}

impl Network {
    pub(super) fn new(shape: &Shape, device: &Device) -> Self {
        let d = shape.encoded();
        let inside = shape.head.before(shape.window, d).1;
        Network {
            encode: Encode::new(
                shape.encoding,
                &shape.layout,
                shape.width,
                shape.feature_width,
                device,
            ),
            stack: Stack::new(
                &shape.sequence,
                inside,
                shape.causal,
                shape.reference,
                device,
            ),
            classify: Classify::new(
                shape.head,
                shape.window,
                d,
                shape.hidden,
                super::CLASSIFIER_DROPOUT,
                device,
            ),
        }
    }

    /// Logits [windows] of the windows whose rows are `rows`, [windows, w].
    pub(super) fn forward(
        &self,
        shape: &Shape,
        flows: &Flows,
        rows: &[usize],
        device: &Device,
    ) -> Tensor<1> {
        let windows = rows.len() / shape.window;
        let x = self.encode.forward(shape.encoding, flows, rows, device);
        let x = x.reshape([windows, shape.window, shape.encoded()]);
        let x = self
            .stack
            .forward(before(shape.head, x), shape.head.last_only());
        self.classify.forward(shape.head, x)
    }
}
