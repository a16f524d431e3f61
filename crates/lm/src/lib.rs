//! Language models: tokenizers, sentence encoders with their published weights, and vectors kept on disk.
//!
//! A [`SentenceEncoder`] is opened from a folder as its publisher lays it out (`config.json`, `tokenizer.json`,
//! `model.safetensors`, and the files of sentence-transformers). It gives a vector for each text, or for each token;
//! [`VectorCache`] keeps those of texts, so that a text is computed once.

mod bert;
mod cache;
mod sentences;

pub use bert::{Bert, BertConfig};
pub use cache::VectorCache;
pub use sentences::{Pooling, SentenceEncoder, TokenVectors};
