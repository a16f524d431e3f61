//! The trained mixers behind one face.

use super::choice::{Choice, Mixer};
use super::linear_attention::LinearAttentionLayer;
use super::maps::Maps;
use super::mixer::SequenceMixer;
use super::neural::{Around, AttentionMaps, Gated, Linear};
use super::normalised_attention::{NormalisedAttention, NormalisedAttentionLayer};
use super::qlstm::QLstmLayer;
use super::rg_lru::RgLruLayer;
use super::s6::S6Layer;
use super::softmax_attention::{SoftmaxAttentionLayer, exact_weights, logits};
use super::ssd::SsdLayer;
use burn::module::Module;
use burn::nn::gru::{Gru, GruConfig};
use burn::nn::{Lstm, LstmConfig};
use burn::tensor::{Device, Tensor};
use ndarray::{Array2, ArrayView2, s};
use papertrial_core::Result;
use papertrial_nn::blocks::Activation;

/// Channels of the gated mixers for each number of a position.
const EXPANSION: usize = 2;
/// Positions that the convolution of the gated mixers looks at, where nothing is asked.
const CONVOLUTION: usize = 4;

/// A mixer as a layer: [b, l, d] to [b, l, d].
// A model has a few of these, and most of a layer is its weights.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum Layer {
    /// Softmax attention.
    SoftmaxAttention(SoftmaxAttentionLayer),
    /// Linear attention.
    LinearAttention(LinearAttentionLayer),
    /// Normalised attention.
    NormalisedAttention(NormalisedAttentionLayer),
    /// S6.
    S6(S6Layer),
    /// SSD.
    Ssd(SsdLayer),
    /// qLSTM, plain or reversed.
    QLstm(QLstmLayer),
    /// RG-LRU.
    RgLru(RgLruLayer),
    /// LSTM.
    Lstm(Lstm),
    /// GRU.
    Gru(Gru),
}

/// Sizes of a layer.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Numbers of a position.
    pub d: usize,
    /// Positions from which queries and keys are made, or at which the convolution looks; without it 1 and 4.
    pub shift: Option<usize>,
    /// Share of the weights of attention that are dropped while training.
    pub dropout: f64,
    /// Deviations of the drawn weights: of maps in general, and of the map that ends the layer.
    pub deviations: (f64, f64),
}

/// What a mixer does with one sequence.
pub enum Plain {
    /// A linear system, and what goes into it.
    System(Box<dyn SequenceMixer<f64>>),
    /// Normalised attention, whose exponents can be counted.
    Normalised(NormalisedAttention<f64>),
    /// Softmax attention, exact.
    Softmax(Maps<f64>),
}

impl Layer {
    /// Of drawn weights.
    ///
    /// # Errors
    /// Heads that do not share state or channels evenly.
    pub fn new(choice: &Choice, sizes: &Sizes, device: &Device) -> Result<Layer> {
        let Sizes {
            d,
            dropout,
            deviations,
            ..
        } = *sizes;
        let Choice { state, heads, .. } = *choice;
        let channels = EXPANSION * d;
        choice.check(if choice.mixer == Mixer::Ssd {
            channels
        } else {
            d
        })?;
        let maps = || {
            let shift = sizes.shift.unwrap_or(1);
            AttentionMaps::new(d, state, heads, shift, deviations, device)
        };
        let gated = |convolved: usize, beside: usize, curved: bool, gate: Activation| {
            let around = Around {
                d,
                channels,
                convolved,
                beside,
                width: sizes.shift.unwrap_or(CONVOLUTION),
                curved,
                gate,
                deviations,
            };
            Gated::new(&around, device)
        };
        Ok(match choice.mixer {
            Mixer::SoftmaxAttention => {
                Layer::SoftmaxAttention(SoftmaxAttentionLayer::new(maps(), dropout))
            }
            Mixer::LinearAttention => {
                Layer::LinearAttention(LinearAttentionLayer::new(maps(), choice.kernel, dropout))
            }
            Mixer::NormalisedAttention => {
                Layer::NormalisedAttention(NormalisedAttentionLayer::new(
                    maps(),
                    Linear::new(d, heads, deviations.0, true, device),
                    choice.eta,
                    dropout,
                ))
            }
            Mixer::S6 => Layer::S6(S6Layer::new(
                gated(channels, 0, true, Activation::Silu),
                state,
                d,
                choice.discretisation,
                deviations.0,
                device,
            )),
            Mixer::Ssd => Layer::Ssd(SsdLayer::new(
                gated(channels + 2 * state, heads, true, Activation::Silu),
                state,
                heads,
                device,
            )),
            Mixer::Qlstm | Mixer::ReversedQlstm => Layer::QLstm(QLstmLayer::new(
                gated(channels, 0, false, Activation::Gelu),
                choice.mixer == Mixer::ReversedQlstm,
                deviations.0,
                device,
            )),
            Mixer::RgLru => Layer::RgLru(RgLruLayer::new(
                gated(channels, 0, false, Activation::Gelu),
                deviations.0,
                device,
            )),
            Mixer::Lstm => Layer::Lstm(LstmConfig::new(d, d, true).init(device)),
            Mixer::Gru => Layer::Gru(GruConfig::new(d, d, true).init(device)),
        })
    }

    /// [b, l, d] to [b, l, d].
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Layer::SoftmaxAttention(layer) => layer.forward(x),
            Layer::LinearAttention(layer) => layer.forward(x),
            Layer::NormalisedAttention(layer) => layer.forward(x),
            Layer::S6(layer) => layer.forward(x),
            Layer::Ssd(layer) => layer.forward(x),
            Layer::QLstm(layer) => layer.forward(x),
            Layer::RgLru(layer) => layer.forward(x),
            Layer::Lstm(layer) => layer.forward(x, None).0,
            Layer::Gru(layer) => layer.forward(x, None),
        }
    }

    /// What goes into the mixer itself: [b, l, d] to [b, l, inputs].
    pub fn core(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Layer::SoftmaxAttention(layer) => layer.core(x),
            Layer::LinearAttention(layer) => layer.core(x),
            Layer::NormalisedAttention(layer) => layer.core(x),
            Layer::S6(layer) => layer.core(x).0,
            Layer::Ssd(layer) => layer.core(x).0,
            Layer::QLstm(layer) => layer.core(x).0,
            Layer::RgLru(layer) => layer.core(x).0,
            Layer::Lstm(_) | Layer::Gru(_) => x,
        }
    }

    /// The mixer itself: [b, l, inputs] to [b, l, channels].
    pub fn mix(&self, core: Tensor<3>) -> Tensor<3> {
        match self {
            Layer::SoftmaxAttention(layer) => layer.mix(core),
            Layer::LinearAttention(layer) => layer.mix(core),
            Layer::NormalisedAttention(layer) => layer.mix(core),
            Layer::S6(layer) => layer.mix(core),
            Layer::Ssd(layer) => layer.mix(core),
            Layer::QLstm(layer) => layer.mix(core),
            Layer::RgLru(layer) => layer.mix(core),
            Layer::Lstm(_) | Layer::Gru(_) => self.forward(core),
        }
    }

    /// The mixer in double precision; `None` where it is not a linear system.
    ///
    /// # Errors
    /// The device cannot give the weights.
    pub fn plain(&self) -> Result<Option<Plain>> {
        Ok(Some(match self {
            Layer::SoftmaxAttention(layer) => Plain::Softmax(layer.plain()?),
            Layer::LinearAttention(layer) => Plain::System(Box::new(layer.plain()?)),
            Layer::NormalisedAttention(layer) => Plain::Normalised(layer.plain()?),
            Layer::S6(layer) => Plain::System(Box::new(layer.plain()?)),
            Layer::Ssd(layer) => Plain::System(Box::new(layer.plain()?)),
            Layer::QLstm(layer) => Plain::System(Box::new(layer.plain()?)),
            Layer::RgLru(layer) => Plain::System(Box::new(layer.plain()?)),
            Layer::Lstm(_) | Layer::Gru(_) => return Ok(None),
        }))
    }
}

impl Plain {
    /// The system; `None` for softmax attention, whose state has no end.
    pub fn system(&self) -> Option<&dyn SequenceMixer<f64>> {
        match self {
            Plain::System(system) => Some(system.as_ref()),
            Plain::Normalised(system) => Some(system),
            Plain::Softmax(_) => None,
        }
    }

    /// Phi of softmax attention's head `head`, [L, L].
    pub fn softmax_weights(maps: &Maps<f64>, head: usize, u: ArrayView2<f64>) -> Array2<f64> {
        let m = maps.width();
        let part = s![.., head * m..(head + 1) * m];
        let (queries, keys) = (maps.query.all(u), maps.key.all(u));
        let shares = exact_weights(logits(
            queries.slice(part).to_owned(),
            keys.slice(part).to_owned(),
        ));
        Array2::from_shape_fn(
            shares.dim(),
            |(i, j)| {
                if j <= i { shares[[i, j]] } else { 0.0 }
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixers::{Discretisation, Eta, Kernel, exact, recurrent};
    use burn::tensor::TensorData;
    use papertrial_nn::{device, seeded, values_of};
    use papertrial_numerics::sampling::rng;

    /// The trained layer, in single precision and by chunks, against the recurrent form of its weights in double.
    #[test]
    fn layers_are_their_systems_beyond_a_chunk() {
        let device = device("cpu").unwrap();
        let (length, d) = (150, 4);
        for mixer in Mixer::SYSTEMS {
            for heads in [1, 2] {
                let choice = Choice {
                    mixer,
                    state: 6,
                    heads,
                    kernel: Kernel::EluPlusOne,
                    eta: Eta::Exponential,
                    discretisation: Discretisation::ZeroOrderHold,
                };
                let sizes = Sizes {
                    d,
                    shift: Some(2),
                    dropout: 0.1,
                    deviations: (0.5, 0.5),
                };
                let layer = seeded(&device, 3, |device| {
                    Layer::new(&choice, &sizes, device).unwrap()
                });
                let layer = layer.valid();
                let x = crate::mixers::maps::random::<f32>(length, d, &mut rng(1, "x")) * 2.0;
                let x = Tensor::<3>::from_data(
                    TensorData::new(x.iter().copied().collect::<Vec<f32>>(), [1, length, d]),
                    &device,
                );
                let core = layer.core(x);
                let [_, _, inputs] = core.dims();
                let got = values_of(layer.mix(core.clone())).unwrap();
                let u: Vec<f64> = values_of(core)
                    .unwrap()
                    .iter()
                    .map(|v| f64::from(*v))
                    .collect();
                let u = Array2::from_shape_vec((length, inputs), u).unwrap();
                let plain = layer.plain().unwrap().unwrap();
                let want = match plain {
                    Plain::Softmax(maps) => exact(&maps, u.view()),
                    other => recurrent(other.system().unwrap(), u.view()),
                };
                let size = want.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
                assert!(size > 1e-2, "{mixer:?} gives nothing: {size}");
                for (g, w) in got.iter().zip(&want) {
                    let off = (f64::from(*g) - w).abs() / size;
                    assert!(off < 2e-5, "{mixer:?} of {heads} heads: {g} {w}");
                }
            }
        }
    }
}
