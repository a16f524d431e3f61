//! First slot: how the columns of a flow become one vector. All encodings are linear.

use super::super::prepare::{Flows, Layout};
use super::parts::linear;
use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use papertrial_nn::blocks::through;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Encodings of a flow's columns. With n numeric columns, c categorical ones and K codes in all:
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// Numbers and a column for each code as they are: n + K wide.
    None,
    /// One dense layer over all of them: `width` wide.
    RecordEmbedding,
    /// The same without an offset.
    RecordProjection,
    /// A dense layer for each categorical column, beside the numbers: n + c x `feature-width` wide.
    FeatureEmbedding,
    /// The same without an offset.
    FeatureProjection,
    /// A table of vectors for each categorical column, beside the numbers; one vector more than codes.
    FeatureLookup,
}

impl Encoding {
    /// Whether it reads codes by number; the others read a column for each code.
    pub fn by_code(self) -> bool {
        matches!(
            self,
            Encoding::FeatureEmbedding | Encoding::FeatureProjection | Encoding::FeatureLookup
        )
    }

    /// Width of the encoded flow.
    pub fn width(self, layout: &Layout, record: usize, feature: usize) -> usize {
        match self {
            Encoding::None => layout.one_hot(),
            Encoding::RecordEmbedding | Encoding::RecordProjection => record,
            _ => layout.numeric.len() + layout.categorical.len() * feature,
        }
    }
}

/// The weights of an encoding.
#[derive(Module, Debug)]
pub(super) struct Encode {
    /// [n + K, width], of a record encoding.
    pub(super) record: Option<Linear>,
    /// [rows, feature], the tables of all columns one below another, of a feature encoding.
    pub(super) table: Option<Param<Tensor<2>>>,
    /// [c x feature], of a feature embedding.
    pub(super) offset: Option<Param<Tensor<1>>>,
}

impl Encode {
    pub(super) fn new(
        encoding: Encoding,
        layout: &Layout,
        record: usize,
        feature: usize,
        device: &Device,
    ) -> Self {
        let mut encode = Encode {
            record: None,
            table: None,
            offset: None,
        };
        match encoding {
            Encoding::None => (),
            Encoding::RecordEmbedding | Encoding::RecordProjection => {
                let bias = encoding == Encoding::RecordEmbedding;
                encode.record = Some(linear(layout.one_hot(), record, bias, device));
            }
            _ if layout.codes.is_empty() => (),
            _ => {
                let tables = layout
                    .codes
                    .iter()
                    .map(|codes| {
                        let (rows, limit) = if encoding == Encoding::FeatureLookup {
                            (codes + 1, 0.05)
                        } else {
                            (*codes, (6.0 / (codes + feature) as f64).sqrt())
                        };
                        Tensor::random(
                            [rows, feature],
                            Distribution::Uniform(-limit, limit),
                            device,
                        )
                    })
                    .collect();
                encode.table = Some(Param::from_tensor(Tensor::cat(tables, 0)));
                if encoding == Encoding::FeatureEmbedding {
                    let width = layout.codes.len() * feature;
                    encode.offset = Some(Param::from_tensor(Tensor::zeros([width], device)));
                }
            }
        }
        encode
    }

    /// The flows at `rows`, encoded: [rows, width].
    pub(super) fn forward(
        &self,
        encoding: Encoding,
        flows: &Flows,
        rows: &[usize],
        device: &Device,
    ) -> Tensor<2> {
        if !encoding.by_code() {
            let x = one_hot(flows, rows, device);
            return match &self.record {
                Some(record) => through(record, x),
                None => x,
            };
        }
        let numbers =
            papertrial_nn::rows_of(&flows.numeric, flows.layout.numeric.len(), rows, device);
        let Some(table) = &self.table else {
            return numbers;
        };
        let table = table.val();
        let width = flows.layout.codes.len() * table.dims()[1];
        let mut levels = table
            .select(0, places(encoding, flows, rows, device))
            .reshape([rows.len(), width]);
        if let Some(offset) = &self.offset {
            levels = levels + offset.val().unsqueeze::<2>();
        }
        Tensor::cat(vec![numbers, levels], 1)
    }
}

/// Rows of the tables for each categorical cell of the flows at `rows`.
fn places(encoding: Encoding, flows: &Flows, rows: &[usize], device: &Device) -> Tensor<1, Int> {
    let starts = table_starts(encoding, &flows.layout);
    let places: Vec<i32> = rows
        .iter()
        .flat_map(|row| flows.codes_of(*row).iter().zip(&starts))
        .map(|(code, start)| (*code as usize + start) as i32)
        .collect();
    let n = places.len();
    Tensor::from_data(TensorData::new(places, [n]), device)
}

/// The first row of each column's table.
pub(super) fn table_starts(encoding: Encoding, layout: &Layout) -> Vec<usize> {
    let more = usize::from(encoding == Encoding::FeatureLookup);
    layout
        .codes
        .iter()
        .scan(0, |start, codes| {
            let own = *start;
            *start += codes + more;
            Some(own)
        })
        .collect()
}

fn one_hot(flows: &Flows, rows: &[usize], device: &Device) -> Tensor<2> {
    let width = flows.layout.one_hot();
    let mut values = vec![0.0f32; rows.len() * width];
    values
        .par_chunks_mut(width.max(1))
        .zip(rows)
        .with_min_len(64)
        .for_each(|(to, row)| flows.write_one_hot(*row, to));
    Tensor::from_data(TensorData::new(values, [rows.len(), width]), device)
}
