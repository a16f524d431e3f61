//! Mixers by name.

use super::linear_attention::{Kernel, LinearAttention};
use super::maps::Maps;
use super::mixer::SequenceMixer;
use super::normalised_attention::{Eta, NormalisedAttention};
use super::qlstm::QLstm;
use super::real::Real;
use super::rg_lru::RgLru;
use super::s6::{Discretisation, S6};
use super::softmax_attention::SoftmaxAttention;
use super::ssd::Ssd;
use papertrial_core::{Error, Result};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A mixer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mixer {
    /// Softmax attention.
    SoftmaxAttention,
    /// Linear attention, normalised by the sum of its weights.
    LinearAttention,
    /// Linear attention with a learned normaliser.
    NormalisedAttention,
    /// The selective state space model of Mamba.
    S6,
    /// That of Mamba-2, with one decay a head.
    Ssd,
    /// LSTM with gates of the input alone.
    Qlstm,
    /// The same with the reversed forget gate.
    ReversedQlstm,
    /// The recurrent mixer of Griffin.
    RgLru,
    /// LSTM, whose gates look at its own output: not one of the linear systems.
    Lstm,
    /// GRU, likewise.
    Gru,
}

impl Mixer {
    /// All that are linear systems.
    pub const SYSTEMS: [Mixer; 8] = [
        Mixer::SoftmaxAttention,
        Mixer::LinearAttention,
        Mixer::NormalisedAttention,
        Mixer::S6,
        Mixer::Ssd,
        Mixer::Qlstm,
        Mixer::ReversedQlstm,
        Mixer::RgLru,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Mixer::SoftmaxAttention => "softmax-attention",
            Mixer::LinearAttention => "linear-attention",
            Mixer::NormalisedAttention => "normalised-attention",
            Mixer::S6 => "s6",
            Mixer::Ssd => "ssd",
            Mixer::Qlstm => "qlstm",
            Mixer::ReversedQlstm => "reversed-qlstm",
            Mixer::RgLru => "rg-lru",
            Mixer::Lstm => "lstm",
            Mixer::Gru => "gru",
        }
    }

    /// Whether positions are learned beside it: attention and qLSTM, as in the authors' code.
    pub fn takes_positions(self) -> bool {
        !matches!(
            self,
            Mixer::S6 | Mixer::Ssd | Mixer::RgLru | Mixer::Lstm | Mixer::Gru
        )
    }

    /// Whether an MLP follows on it in a block: not where it has a gate and wider channels of its own.
    pub fn takes_mlp(self) -> bool {
        matches!(
            self,
            Mixer::SoftmaxAttention
                | Mixer::LinearAttention
                | Mixer::NormalisedAttention
                | Mixer::Lstm
                | Mixer::Gru
        )
    }
}

/// A mixer with its sizes and forms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Which.
    pub mixer: Mixer,
    /// Attention: m, features of queries and keys, all heads together. S6 and SSD: n, numbers a channel.
    pub state: usize,
    /// Heads of attention and SSD.
    pub heads: usize,
    /// phi of linear attention.
    pub kernel: Kernel,
    /// Normaliser of normalised attention.
    pub eta: Eta,
    /// B of S6.
    pub discretisation: Discretisation,
}

impl Choice {
    /// Checks the heads for a mixer of `channels` channels.
    ///
    /// # Errors
    /// Heads that do not share state or channels evenly.
    pub fn check(&self, channels: usize) -> Result<()> {
        let attention = matches!(
            self.mixer,
            Mixer::SoftmaxAttention | Mixer::LinearAttention | Mixer::NormalisedAttention
        );
        let heads = self.heads;
        if attention && (heads == 0 || !self.state.is_multiple_of(heads)) {
            return Err(Error::option(
                "heads",
                format!(
                    "{heads} heads do not share a state of {} evenly",
                    self.state
                ),
            ));
        }
        if (attention || self.mixer == Mixer::Ssd)
            && (heads == 0 || !channels.is_multiple_of(heads))
        {
            return Err(Error::option(
                "heads",
                format!("{heads} heads do not share {channels} channels evenly"),
            ));
        }
        Ok(())
    }
}

/// A mixer of drawn weights for `d` numbers a position; softmax attention is cut at `order`.
///
/// # Errors
/// Heads that do not fit, an order that cannot be used, or a mixer that is not a linear system.
pub fn drawn<F: Real>(
    choice: &Choice,
    d: usize,
    order: usize,
    rng: &mut ChaCha8Rng,
) -> Result<Box<dyn SequenceMixer<F>>> {
    choice.check(d)?;
    let Choice { state, heads, .. } = *choice;
    Ok(match choice.mixer {
        Mixer::SoftmaxAttention => Box::new(SoftmaxAttention::new(
            Maps::random(d, d, state, heads, rng),
            order,
        )?),
        Mixer::LinearAttention => Box::new(LinearAttention::random(
            d,
            d,
            state,
            heads,
            choice.kernel,
            rng,
        )),
        Mixer::NormalisedAttention => Box::new(NormalisedAttention::random(
            d, d, state, heads, choice.eta, rng,
        )),
        Mixer::S6 => Box::new(S6::random(d, state, choice.discretisation, rng)),
        Mixer::Ssd => Box::new(Ssd::random(d, d, state, heads, rng)),
        Mixer::Qlstm => Box::new(QLstm::random(d, false, rng)),
        Mixer::ReversedQlstm => Box::new(QLstm::random(d, true, rng)),
        Mixer::RgLru => Box::new(RgLru::random(d, rng)),
        Mixer::Lstm | Mixer::Gru => {
            return Err(Error::option(
                "mixer",
                format!(
                    "{} is not a linear system: its gates look at its own output",
                    choice.mixer.name()
                ),
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixers::recurrent;
    use ndarray::{Array2, ArrayView2};
    use papertrial_numerics::sampling::rng;
    use proptest::prelude::*;

    fn choice(mixer: Mixer, heads: usize) -> Choice {
        Choice {
            mixer,
            state: 2 * heads,
            heads,
            kernel: Kernel::EluPlusOne,
            eta: Eta::Exponential,
            discretisation: Discretisation::Euler,
        }
    }

    fn close(a: &Array2<f64>, b: &Array2<f64>, tolerance: f64) -> bool {
        let size = a.iter().fold(1e-3, |m: f64, x| m.max(x.abs()));
        a.iter()
            .zip(b)
            .all(|(a, b)| (a - b).abs() <= tolerance * size)
    }

    fn all_forms(mixer: &dyn SequenceMixer<f64>, u: ArrayView2<f64>) -> Vec<Array2<f64>> {
        vec![
            mixer.native(u),
            mixer.parallel(u),
            recurrent(mixer, u),
            mixer.matrices(u).scan(u, 3),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn every_form_of_every_mixer_agrees(
            seed in 0u64..1000, length in 0usize..14, heads in 1usize..3,
            kernel in 0usize..4, eta in 0usize..3, exact in any::<bool>(),
        ) {
            for mixer in Mixer::SYSTEMS {
                let mut choice = choice(mixer, heads);
                choice.kernel = [Kernel::EluPlusOne, Kernel::Exponential, Kernel::Softplus, Kernel::Relu][kernel];
                choice.eta = [Eta::Exponential, Eta::Softplus, Eta::Sigmoid][eta];
                if exact {
                    choice.discretisation = Discretisation::ZeroOrderHold;
                }
                let mut rng = rng(seed, "mixer");
                let mixer = drawn::<f64>(&choice, 4, 2, &mut rng).unwrap();
                let u = super::super::maps::random(length, 4, &mut rng) * 2.0;
                let forms = all_forms(mixer.as_ref(), u.view());
                for form in &forms[1..] {
                    prop_assert!(close(&forms[0], form, 1e-11), "{choice:?}\n{:?}\n{form:?}", forms[0]);
                }
            }
        }
    }

    /// Linear attention of one feature and one channel, by hand: phi = elu + 1.
    #[test]
    fn linear_attention_by_hand() {
        let one = |v: f64| super::super::maps::Affine {
            weight: Array2::from_elem((1, 1), v),
            bias: ndarray::Array1::zeros(1),
        };
        let mixer = LinearAttention {
            maps: Maps {
                query: one(1.0),
                key: one(1.0),
                value: Array2::from_elem((1, 1), 3.0),
                heads: 1,
            },
            kernel: Kernel::EluPlusOne,
        };
        let u = Array2::from_shape_vec((2, 1), vec![1.0, 2.0]).unwrap();
        // Keys 2 and 3, values 3 and 6: y_1 = 3 and y_2 = (2 x 3 + 3 x 6) / 5.
        for form in all_forms(&mixer, u.view()) {
            assert!((form[[0, 0]] - 3.0).abs() < 1e-14);
            assert!((form[[1, 0]] - 4.8).abs() < 1e-14);
        }
    }

    #[test]
    fn the_future_changes_nothing() {
        for mixer in Mixer::SYSTEMS {
            let mut rng = rng(3, "causal");
            let mixer = drawn::<f64>(&choice(mixer, 1), 4, 2, &mut rng).unwrap();
            let mut u = super::super::maps::random(8, 4, &mut rng);
            let before = mixer.native(u.view());
            u.row_mut(7).fill(9.0);
            let after = mixer.native(u.view());
            assert_eq!(before.row(6), after.row(6));
            assert_ne!(before.row(7), after.row(7));
        }
    }

    #[test]
    fn heads_that_do_not_fit_are_refused() {
        let mut rng = rng(1, "refused");
        let mut bad = choice(Mixer::LinearAttention, 2);
        bad.state = 5;
        assert!(
            drawn::<f64>(&bad, 4, 2, &mut rng)
                .err()
                .unwrap()
                .to_string()
                .contains("state of 5")
        );
        bad.state = 6;
        bad.heads = 3;
        assert!(
            drawn::<f64>(&bad, 4, 2, &mut rng)
                .err()
                .unwrap()
                .to_string()
                .contains("4 channels")
        );
        assert!(drawn::<f64>(&choice(Mixer::Gru, 1), 4, 2, &mut rng).is_err());
    }
}
