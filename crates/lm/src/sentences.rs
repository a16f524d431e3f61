//! Texts as vectors: an encoder in the layout of sentence-transformers (Reimers and Gurevych 2019, arXiv 1908.10084).
//!
//! 1. The tokenizer cuts a text into tokens, with its special ones, and no more than the model's longest.
//! 2. BERT gives a vector for each.
//! 3. They are pooled: their mean, the first one's, or the greatest of each number.
//! 4. If the model says so, the result is scaled to length 1.
//!
//! Texts are taken in batches of nearly one length, so that little is computed for padding; what a text gets does not
//! depend on the others in its batch, beyond the last bits.

use crate::bert::{Bert, BertConfig};
use crate::cache::VectorCache;
use burn::tensor::{Device, Int, Tensor, TensorData};
use papertrial_core::data::{checksum, file_checksum};
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use papertrial_nn::values_of;
use serde::Deserialize;
use std::collections::HashSet;
use std::path::Path;
use tokenizers::{Tokenizer, TruncationParams};

/// Tokens of a batch, padding included.
const BATCH: usize = 4096;

/// Texts after which vectors are written to the cache.
const KEPT_AT_ONCE: usize = 4096;

/// How the vectors of tokens become one of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// That of the first token.
    First,
    /// The greatest of each number.
    Max,
}

/// Vectors of a text's tokens, special ones included.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenVectors {
    /// The tokens.
    pub tokens: Vec<String>,
    /// Where each lies in the text, in bytes; an empty range for a special one.
    pub places: Vec<(usize, usize)>,
    /// Their vectors, one after the other: tokens x width.
    pub vectors: Vec<f32>,
}

/// A model that gives a vector for a text.
#[derive(Debug)]
pub struct SentenceEncoder {
    tokenizer: Tokenizer,
    bert: Bert,
    device: Device,
    pooling: Pooling,
    normalise: bool,
    longest: usize,
    width: usize,
    checksum: String,
}

/// `1_Pooling/config.json`.
#[derive(Deserialize)]
struct PoolingFile {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
}

/// `sentence_bert_config.json`.
#[derive(Deserialize)]
struct LimitFile {
    max_seq_length: Option<usize>,
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct ModuleEntry {
    path: String,
    r#type: String,
}

/// A text's tokens, and which text it is.
struct Cut {
    text: usize,
    tokens: Vec<u32>,
}

impl SentenceEncoder {
    /// Opens the model in `folder`. Without the files of sentence-transformers, token vectors are averaged and not
    /// scaled.
    ///
    /// # Errors
    /// A file is missing, broken, or of a model that is not known here.
    pub fn open(folder: &Path, device: &Device) -> Result<Self> {
        let config = BertConfig::read(&folder.join("config.json"))?;
        let (pooling, normalise) = layout(folder)?;
        let limit: Option<LimitFile> = json(&folder.join("sentence_bert_config.json"))?;
        let longest = limit
            .and_then(|l| l.max_seq_length)
            .unwrap_or(config.max_position_embeddings)
            .min(config.max_position_embeddings);
        let path = folder.join("tokenizer.json");
        let wrong = |e: tokenizers::Error| Error::file(&path, e);
        let mut tokenizer = Tokenizer::from_file(&path).map_err(wrong)?;
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(Some(TruncationParams {
                max_length: longest,
                ..TruncationParams::default()
            }))
            .map_err(wrong)?;
        let words = tokenizer.get_vocab_size(true);
        if words > config.vocab_size {
            return Err(Error::file(
                &path,
                format!(
                    "has {words} tokens, more than the {} of config.json",
                    config.vocab_size
                ),
            ));
        }
        let weights = folder.join("model.safetensors");
        let bert = Bert::load(&config, &weights, device)?;
        let facts = format!(
            "{} {} {pooling:?} {normalise} {longest}",
            file_checksum(&weights)?,
            file_checksum(&path)?
        );
        Ok(SentenceEncoder {
            tokenizer,
            bert,
            device: device.clone(),
            pooling,
            normalise,
            longest,
            width: config.hidden_size,
            checksum: checksum(facts.as_bytes()),
        })
    }

    /// Numbers of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Tokens of the longest text that is read whole.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// SHA-256 of all that determines the vectors: the name of the model in a [`crate::VectorCache`].
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    /// The vectors of `texts`, one after the other: texts x width.
    ///
    /// # Errors
    /// The tokenizer refuses a text, or the device fails.
    pub fn encode(&self, texts: &[&str], context: &Context) -> Result<Vec<f32>> {
        let mut all = vec![0.0f32; texts.len() * self.width];
        let mut done = 0;
        self.in_batches(&self.tokenize(texts)?, |cuts, states| {
            let pooled = self.pool(states, cuts);
            for (cut, vector) in cuts.iter().zip(values_of(pooled)?.chunks_exact(self.width)) {
                all[cut.text * self.width..][..self.width].copy_from_slice(vector);
            }
            done += cuts.len();
            context.step("texts encoded", done, texts.len());
            Ok(())
        })?;
        Ok(all)
    }

    /// As [`SentenceEncoder::encode`], with the vectors that `cache` knows; the others are added to it.
    ///
    /// # Errors
    /// As there, or the cache cannot be written.
    pub fn encode_kept(
        &self,
        texts: &[&str],
        cache: &mut VectorCache,
        context: &Context,
    ) -> Result<Vec<f32>> {
        let mut seen = HashSet::new();
        let fresh: Vec<&str> = texts
            .iter()
            .copied()
            .filter(|text| cache.get(text).is_none() && seen.insert(*text))
            .collect();
        // What was computed is kept even if the work is stopped later.
        for part in fresh.chunks(KEPT_AT_ONCE) {
            let vectors = self.encode(part, context)?;
            cache.add(part.iter().copied().zip(vectors.chunks_exact(self.width)))?;
        }
        Ok(texts
            .iter()
            .flat_map(|text| cache.get(text).unwrap_or_default())
            .copied()
            .collect())
    }

    /// The vectors of the tokens of each text, before pooling.
    ///
    /// # Errors
    /// The tokenizer refuses a text, or the device fails.
    pub fn encode_tokens(&self, texts: &[&str], context: &Context) -> Result<Vec<TokenVectors>> {
        let encodings = self.tokenize(texts)?;
        let mut all: Vec<TokenVectors> = encodings
            .iter()
            .map(|encoding| TokenVectors {
                tokens: encoding.get_tokens().to_vec(),
                places: encoding.get_offsets().to_vec(),
                vectors: Vec::new(),
            })
            .collect();
        let mut done = 0;
        self.in_batches(&encodings, |cuts, states| {
            let [_, longest, d] = states.dims();
            let values = values_of(states)?;
            for (cut, rows) in cuts.iter().zip(values.chunks_exact(longest * d)) {
                all[cut.text].vectors = rows[..cut.tokens.len() * d].to_vec();
            }
            done += cuts.len();
            context.step("texts encoded", done, texts.len());
            Ok(())
        })?;
        Ok(all)
    }

    fn tokenize(&self, texts: &[&str]) -> Result<Vec<tokenizers::Encoding>> {
        self.tokenizer
            .encode_batch(texts.to_vec(), true)
            .map_err(|e| Error::BadInput(format!("a text cannot be cut into tokens: {e}")))
    }

    /// Calls `take` with batches of texts of nearly one length and their states [b, l, d].
    fn in_batches(
        &self,
        encodings: &[tokenizers::Encoding],
        mut take: impl FnMut(&[Cut], Tensor<3>) -> Result<()>,
    ) -> Result<()> {
        let mut cuts: Vec<Cut> = encodings
            .iter()
            .enumerate()
            .map(|(text, encoding)| Cut {
                text,
                tokens: encoding.get_ids().to_vec(),
            })
            .collect();
        cuts.sort_by_key(|cut| cut.tokens.len());
        let mut rest = &cuts[..];
        while !rest.is_empty() {
            // Sorted, so the last of a batch is its longest.
            let fits = |n: &usize| n * rest[n - 1].tokens.len().max(1) <= BATCH;
            let n = (1..=rest.len()).take_while(fits).last().unwrap_or(1);
            let longest = rest[n - 1].tokens.len().max(1);
            let (batch, after) = rest.split_at(n);
            let mut tokens = vec![0i32; n * longest];
            for (row, cut) in tokens.chunks_exact_mut(longest).zip(batch) {
                for (to, token) in row.iter_mut().zip(&cut.tokens) {
                    *to = *token as i32;
                }
            }
            let tokens: Tensor<2, Int> =
                Tensor::from_data(TensorData::new(tokens, [n, longest]), &self.device);
            let lengths: Vec<usize> = batch.iter().map(|cut| cut.tokens.len()).collect();
            take(batch, self.bert.forward(tokens, &lengths))?;
            rest = after;
        }
        Ok(())
    }

    /// [b, l, d] to [b, d].
    fn pool(&self, states: Tensor<3>, cuts: &[Cut]) -> Tensor<2> {
        let [b, l, d] = states.dims();
        let per_token = |own: f32, beyond: f32| {
            let values: Vec<f32> = cuts
                .iter()
                .flat_map(|cut| {
                    (0..l).map(move |i| if i < cut.tokens.len() { own } else { beyond })
                })
                .collect();
            Tensor::<3>::from_data(TensorData::new(values, [b, l, 1]), &self.device)
        };
        let pooled: Tensor<2> = match self.pooling {
            Pooling::First => states.narrow(1, 0, 1).reshape([b, d]),
            Pooling::Max => (states + per_token(0.0, f32::MIN))
                .max_dim(1)
                .reshape([b, d]),
            Pooling::Mean => {
                let counts: Vec<f32> = cuts
                    .iter()
                    .map(|cut| cut.tokens.len().max(1) as f32)
                    .collect();
                let counts: Tensor<2> =
                    Tensor::from_data(TensorData::new(counts, [b, 1]), &self.device);
                let sums: Tensor<2> = (states * per_token(1.0, 0.0)).sum_dim(1).reshape([b, d]);
                sums / counts
            }
        };
        if self.normalise {
            let lengths = pooled.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
            pooled / lengths
        } else {
            pooled
        }
    }
}

/// Pooling and scaling as `modules.json` and the files that it names tell.
fn layout(folder: &Path) -> Result<(Pooling, bool)> {
    let path = folder.join("modules.json");
    let Some(modules) = json::<Vec<ModuleEntry>>(&path)? else {
        return Ok((Pooling::Mean, false));
    };
    let (mut pooling, mut normalise) = (Pooling::Mean, false);
    for module in modules {
        match module.r#type.rsplit('.').next() {
            Some("Transformer") => {}
            Some("Normalize") => normalise = true,
            Some("Pooling") => {
                let path = folder.join(&module.path).join("config.json");
                let file: PoolingFile = json(&path)?
                    .ok_or_else(|| Error::file(&path, "is missing; modules.json names it"))?;
                pooling = match file {
                    PoolingFile {
                        pooling_mode_mean_tokens: true,
                        pooling_mode_cls_token: false,
                        pooling_mode_max_tokens: false,
                    } => Pooling::Mean,
                    PoolingFile {
                        pooling_mode_mean_tokens: false,
                        pooling_mode_cls_token: true,
                        pooling_mode_max_tokens: false,
                    } => Pooling::First,
                    PoolingFile {
                        pooling_mode_mean_tokens: false,
                        pooling_mode_cls_token: false,
                        pooling_mode_max_tokens: true,
                    } => Pooling::Max,
                    _ => {
                        return Err(Error::file(
                            path,
                            "asks for a pooling that is not known; one of mean, cls and max can be used",
                        ));
                    }
                };
            }
            _ => {
                return Err(Error::file(
                    path,
                    format!("names a module {} that is not known here", module.r#type),
                ));
            }
        }
    }
    Ok((pooling, normalise))
}

/// A JSON file, or `None` if there is none.
fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|e| Error::file(path, e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::file(path, e)),
    }
}
