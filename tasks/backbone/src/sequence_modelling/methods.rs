//! The methods: one mixer each in the same model, and a table of keys.
//!
//! Papers: *Understanding the differences in Foundation Models: Attention, State Space Models, and Recurrent Neural
//! Networks*, Sieber and others, 2024, 2405.15731, for the framework, normalised attention and the reversed qLSTM; the
//! others are its baselines. How each mixer works is told in its file in [`crate::mixers`].

use super::Modeller;
use crate::mixers::{Choice, Discretisation, Eta, Kernel, Mixer};
use papertrial_core::task::{Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Features of queries and keys, or numbers a channel, where nothing is asked.
const STATE: usize = 16;

/// A choice with the defaults of what the mixer does not use.
fn choice(mixer: Mixer, state: usize, heads: usize) -> Choice {
    Choice {
        mixer,
        state,
        heads,
        kernel: Kernel::default(),
        eta: Eta::default(),
        discretisation: Discretisation::default(),
    }
}

/// Facts of a method.
const fn facts(name: &'static str, about: &'static str, ours: bool) -> Facts {
    Facts {
        name,
        about,
        paper: if ours { Some("dsf") } else { None },
        streams: false,
    }
}

/// Any mixer, by name.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Dsf {
    /// The mixer.
    pub mixer: Mixer,
    /// Features of queries and keys, all heads together; numbers a channel of S6 and SSD.
    #[schemars(range(min = 1, max = 65_536))]
    pub state: usize,
    /// Heads of attention and SSD.
    #[schemars(range(min = 1))]
    pub heads: usize,
    /// Feature map of linear attention.
    pub kernel: Kernel,
    /// Normaliser of normalised attention.
    pub eta: Eta,
    /// Form of B in S6.
    pub discretisation: Discretisation,
}

impl Default for Dsf {
    fn default() -> Self {
        Dsf {
            mixer: Mixer::NormalisedAttention,
            state: STATE,
            heads: 1,
            kernel: Kernel::default(),
            eta: Eta::default(),
            discretisation: Discretisation::default(),
        }
    }
}

impl Method for Dsf {
    const FACTS: Facts = facts("dsf", "any of the mixers, by its option mixer", true);
}

impl Modeller for Dsf {
    fn mixer(&self) -> Option<Choice> {
        Some(Choice {
            mixer: self.mixer,
            state: self.state,
            heads: self.heads,
            kernel: self.kernel,
            eta: self.eta,
            discretisation: self.discretisation,
        })
    }
}

/// Normalised attention.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct NormalisedAttention {
    /// Features of queries and keys, all heads together.
    #[schemars(range(min = 1, max = 65_536))]
    pub state: usize,
    /// Heads.
    #[schemars(range(min = 1))]
    pub heads: usize,
    /// Normaliser.
    pub eta: Eta,
}

impl Default for NormalisedAttention {
    fn default() -> Self {
        NormalisedAttention {
            state: STATE,
            heads: 1,
            eta: Eta::default(),
        }
    }
}

impl Method for NormalisedAttention {
    const FACTS: Facts = facts(
        "normalised-attention",
        "linear attention with a learned normaliser",
        true,
    );
}

impl Modeller for NormalisedAttention {
    fn mixer(&self) -> Option<Choice> {
        Some(Choice {
            eta: self.eta,
            ..choice(Mixer::NormalisedAttention, self.state, self.heads)
        })
    }
}

/// Linear attention.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct LinearAttention {
    /// Features of queries and keys, all heads together.
    #[schemars(range(min = 1, max = 65_536))]
    pub state: usize,
    /// Heads.
    #[schemars(range(min = 1))]
    pub heads: usize,
    /// Feature map.
    pub kernel: Kernel,
}

impl Default for LinearAttention {
    fn default() -> Self {
        LinearAttention {
            state: STATE,
            heads: 1,
            kernel: Kernel::default(),
        }
    }
}

impl Method for LinearAttention {
    const FACTS: Facts = facts(
        "linear-attention",
        "attention by feature maps, normalised by the sum of its weights",
        false,
    );
}

impl Modeller for LinearAttention {
    fn mixer(&self) -> Option<Choice> {
        Some(Choice {
            kernel: self.kernel,
            ..choice(Mixer::LinearAttention, self.state, self.heads)
        })
    }
}

/// Softmax attention.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct SoftmaxAttention {
    /// Features of queries and keys, all heads together.
    #[schemars(range(min = 1, max = 65_536))]
    pub state: usize,
    /// Heads.
    #[schemars(range(min = 1))]
    pub heads: usize,
}

impl Default for SoftmaxAttention {
    fn default() -> Self {
        SoftmaxAttention {
            state: STATE,
            heads: 1,
        }
    }
}

impl Method for SoftmaxAttention {
    const FACTS: Facts = facts(
        "softmax-attention",
        "attention as in transformers, whose memory grows with the length",
        false,
    );
}

impl Modeller for SoftmaxAttention {
    fn mixer(&self) -> Option<Choice> {
        Some(choice(Mixer::SoftmaxAttention, self.state, self.heads))
    }
}

/// S6.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct S6 {
    /// Numbers of the state for each channel.
    #[schemars(range(min = 1, max = 4096))]
    pub state: usize,
    /// Form of B.
    pub discretisation: Discretisation,
}

impl Default for S6 {
    fn default() -> Self {
        S6 {
            state: STATE,
            discretisation: Discretisation::default(),
        }
    }
}

impl Method for S6 {
    const FACTS: Facts = facts(
        "s6",
        "the selective state space model of Mamba, a decay for each channel",
        false,
    );
}

impl Modeller for S6 {
    fn mixer(&self) -> Option<Choice> {
        Some(Choice {
            discretisation: self.discretisation,
            ..choice(Mixer::S6, self.state, 1)
        })
    }
}

/// SSD.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ssd {
    /// Numbers of the state for each channel.
    #[schemars(range(min = 1, max = 4096))]
    pub state: usize,
    /// Heads, each with its own decay.
    #[schemars(range(min = 1))]
    pub heads: usize,
}

impl Default for Ssd {
    fn default() -> Self {
        Ssd {
            state: STATE,
            heads: 1,
        }
    }
}

impl Method for Ssd {
    const FACTS: Facts = facts(
        "ssd",
        "the selective state space model of Mamba-2, a decay for each head",
        false,
    );
}

impl Modeller for Ssd {
    fn mixer(&self) -> Option<Choice> {
        Some(choice(Mixer::Ssd, self.state, self.heads))
    }
}

/// Methods whose mixer has no options.
macro_rules! bare {
    ($($(#[$about:meta])* $name:ident, $text:literal, $says:literal, $ours:literal, $mixer:expr;)*) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
        #[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
        pub struct $name {}

        impl Method for $name {
            const FACTS: Facts = facts($text, $says, $ours);
        }

        impl Modeller for $name {
            fn mixer(&self) -> Option<Choice> {
                let mixer: Option<Mixer> = $mixer;
                mixer.map(|mixer| choice(mixer, 1, 1))
            }
        }
    )*};
}

bare! {
    /// qLSTM with the reversed gate.
    ReversedQlstm, "reversed-qlstm", "LSTM with gates of the input alone, its forget gate reversed as in S6", true,
        Some(Mixer::ReversedQlstm);
    /// qLSTM.
    Qlstm, "qlstm", "LSTM with gates of the input alone", false, Some(Mixer::Qlstm);
    /// RG-LRU.
    RgLru, "rg-lru", "the recurrent mixer of Griffin", false, Some(Mixer::RgLru);
    /// LSTM.
    Lstm, "lstm", "LSTM, whose gates look at its own output", false, Some(Mixer::Lstm);
    /// GRU.
    Gru, "gru", "GRU, whose gates look at its own output", false, Some(Mixer::Gru);
    /// A table of keys, not learned: says what followed the token the last time it occurred in the sequence.
    KeyTable, "key-table", "says what followed the same token before; nothing is learned", false, None;
}

/// What [`KeyTable`] says at each position of a sequence; `None` where the token has not occurred before.
pub fn look_up(tokens: &[u32]) -> Vec<Option<u32>> {
    let mut followed = std::collections::HashMap::new();
    let mut said = Vec::with_capacity(tokens.len());
    for (i, token) in tokens.iter().enumerate() {
        if i > 0 {
            // Only now is it known what follows the token before.
            followed.insert(tokens[i - 1], *token);
        }
        said.push(followed.get(token).copied());
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_followed() {
        let said = look_up(&[3, 9, 4, 8, 3, 0, 4, 3]);
        assert_eq!(
            said,
            [None, None, None, None, Some(9), None, Some(8), Some(0)]
        );
        // A token that follows itself.
        assert_eq!(look_up(&[5, 5, 5]), [None, Some(5), Some(5)]);
        assert!(look_up(&[]).is_empty());
    }
}
