//! BERT (Devlin, Chang, Lee and Toutanova, 2018, arXiv 1810.04805): its encoder, with weights as they are published.
//!
//! A token's vector is the sum of three learned ones (word, position, kind of sentence), normalised; layers of attention
//! with post-normalisation follow ([`papertrial_nn::blocks::Transformer`]). The pooler that was trained for predicting
//! the next sentence is not read: no sentence encoder uses it.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig};
use burn::store::{ModuleSnapshot, PyTorchToBurnAdapter, SafetensorsStore};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use papertrial_core::{Error, Result};
use papertrial_nn::blocks::{Activation, Encoder, LayerNorm, Transformer, padding_mask};
use serde::Deserialize;
use std::path::Path;

/// Names in published files, and those of the modules here.
const NAMES: &[(&str, &str)] = &[
    (r"^bert\.", ""),
    (r"^embeddings\.word_embeddings\.", "words."),
    (r"^embeddings\.position_embeddings\.", "positions."),
    (r"^embeddings\.token_type_embeddings\.", "kinds."),
    (r"^embeddings\.LayerNorm\.", "norm."),
    (r"^encoder\.layer\.", "encoder.layers."),
    (r"\.attention\.self\.", ".attention."),
    (r"\.attention\.output\.dense\.", ".attention.out."),
    (
        r"\.attention\.output\.LayerNorm\.",
        ".around_attention.norm.",
    ),
    (r"\.intermediate\.dense\.", ".inner.first."),
    (r"\.output\.dense\.", ".inner.second."),
    (r"\.output\.LayerNorm\.", ".around_inner.norm."),
    (r"norm\.(weight|gamma)$", "norm.gain"),
    (r"norm\.beta$", "norm.bias"),
];

/// Sizes of a BERT, as its `config.json` states them.
#[derive(Debug, Clone, Deserialize)]
pub struct BertConfig {
    /// What kind of model it is; only `bert` is known here.
    pub model_type: String,
    /// Words of the vocabulary.
    pub vocab_size: usize,
    /// Numbers of a vector.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of attention.
    pub num_attention_heads: usize,
    /// Numbers inside each layer's MLP.
    pub intermediate_size: usize,
    /// Longest text, in tokens.
    pub max_position_embeddings: usize,
    /// Kinds of sentences.
    pub type_vocab_size: usize,
    /// Activation of the MLP.
    pub hidden_act: String,
    /// What is added to a variance before its root.
    pub layer_norm_eps: f64,
}

impl BertConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// The file cannot be read, describes another kind of model, or has impossible sizes.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
        let config: BertConfig = serde_json::from_str(&text)
            .map_err(|e| Error::file(path, format!("does not describe a BERT: {e}")))?;
        let wrong = |why: String| Err(Error::file(path, why));
        if config.model_type != "bert" {
            return wrong(format!(
                "describes a model of type {}; only bert can be read",
                config.model_type
            ));
        }
        if config.hidden_act != "gelu" {
            return wrong(format!(
                "names the activation {}; only gelu is known",
                config.hidden_act
            ));
        }
        let (d, heads) = (config.hidden_size, config.num_attention_heads);
        let sizes = [
            d,
            heads,
            config.vocab_size,
            config.num_hidden_layers,
            config.intermediate_size,
            config.max_position_embeddings,
            config.type_vocab_size,
        ];
        if sizes.contains(&0) || !d.is_multiple_of(heads) {
            return wrong(format!(
                "has impossible sizes: {heads} heads must share {d} numbers evenly, and no size may be 0"
            ));
        }
        Ok(config)
    }
}

/// The encoder of a BERT.
#[derive(Module, Debug)]
pub struct Bert {
    words: Embedding,
    positions: Embedding,
    kinds: Embedding,
    norm: LayerNorm,
    encoder: Encoder,
}

impl Bert {
    /// With weights drawn anew.
    pub fn new(config: &BertConfig, device: &Device) -> Self {
        let d = config.hidden_size;
        let table = |rows| EmbeddingConfig::new(rows, d).init(device);
        let sizes = Transformer {
            d,
            heads: config.num_attention_heads,
            layers: config.num_hidden_layers,
            inner: config.intermediate_size,
            activation: Activation::Gelu,
            dropout: 0.0,
            pre_norm: false,
        };
        Bert {
            words: table(config.vocab_size),
            positions: table(config.max_position_embeddings),
            kinds: table(config.type_vocab_size),
            norm: LayerNorm::new(d, device).with_epsilon(config.layer_norm_eps),
            encoder: sizes.encoder(device).with_epsilon(config.layer_norm_eps),
        }
    }

    /// With the weights in `path`, a safetensors file with the names that PyTorch's models have.
    ///
    /// # Errors
    /// The file cannot be read, or lacks a weight, or has one of another shape.
    pub fn load(config: &BertConfig, path: &Path, device: &Device) -> Result<Self> {
        let mut model = Bert::new(config, device);
        let mut store = SafetensorsStore::from_file(path).with_from_adapter(PyTorchToBurnAdapter);
        for (from, to) in NAMES {
            store = store.with_key_remapping(*from, *to);
        }
        model.load_from(&mut store).map_err(|e| {
            let text = e.to_string();
            let first = text.lines().next().unwrap_or_default();
            Error::file(path, format!("does not fit its config.json: {first}"))
        })?;
        Ok(model)
    }

    /// A vector for each token: of `tokens`, [b, l], of which each row's first `lengths` are its own; gives [b, l, d].
    pub fn forward(&self, tokens: Tensor<2, Int>, lengths: &[usize]) -> Tensor<3> {
        let [_, l] = tokens.dims();
        let device = tokens.device();
        let places: Vec<i32> = (0..l as i32).collect();
        let places: Tensor<2, Int> = Tensor::from_data(TensorData::new(places, [1, l]), &device);
        let first_kind: Tensor<2, Int> = Tensor::zeros([1, 1], &device);
        let added = self.positions.forward(places) + self.kinds.forward(first_kind);
        let x = self.norm.forward(self.words.forward(tokens) + added);
        // Rows of one length hide nothing.
        let hidden: Option<Tensor<3, Bool>> = lengths
            .iter()
            .any(|n| *n != l)
            .then(|| padding_mask(lengths, l, &device));
        self.encoder.forward(x, hidden.as_ref())
    }
}
