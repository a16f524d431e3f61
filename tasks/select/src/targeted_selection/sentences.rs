//! A sentence encoder with its published weights, such as all-MiniLM-L6-v2: the nearest rows by the cosine of their
//! vectors (Reimers and Gurevych, *Sentence-BERT*, 2019, arXiv 1908.10084).
//!
//! What a user would take before any method that trains or runs a model on the pool. Vectors are kept in the cache by
//! model and text, so a second run computes only what is new. Cost: one pass of the encoder over pool and queries; memory
//! of two bytes a number for the pool's vectors, beside the texts.

use super::index::RdsIndex;
use super::problem::{Fitted, Pool, Queries, Ranking, Selector, States};
use super::rows::{Part, Row};
use ndarray::Array2;
use papertrial_core::data::models;
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result, home};
use papertrial_lm::{SentenceEncoder, VectorCache};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;

/// Options of the sentence encoder.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sentences {
    /// Model: one that 'papertrial data list' names, or a folder in the layout of sentence-transformers with a BERT.
    pub model: String,
}

impl Default for Sentences {
    fn default() -> Self {
        Sentences {
            model: "all-minilm-l6-v2".into(),
        }
    }
}

impl Method for Sentences {
    const FACTS: Facts = Facts {
        name: "sentence-encoder",
        about: "nearest rows by the vectors of a published sentence encoder",
        paper: None,
        streams: false,
    };
}

/// Rows whose texts are encoded before they go into the index.
const PART: usize = 16_384;

impl Selector for Sentences {
    fn fit<'a>(&self, pool: &'a Pool, context: &Context) -> Result<Box<dyn Fitted + 'a>> {
        let folder = models::folder(&self.model)?;
        let device = papertrial_nn::device(&context.device)?;
        let encoder = SentenceEncoder::open(&folder, &device)?;
        let kept = home::cache()?.join("vectors");
        let mut cache = VectorCache::open(&kept, encoder.checksum(), encoder.width())?;
        let blocks = pool.rows.chunks(PART);
        let index = RdsIndex::build(
            blocks.map(|rows| encoded(&encoder, &mut cache, rows, pool.part, context)),
        )?;
        Ok(Box::new(Encoded {
            encoder,
            cache: RefCell::new(cache),
            index,
            part: pool.part,
        }))
    }
}

/// Vectors of rows: \[rows, d\].
fn encoded(
    encoder: &SentenceEncoder,
    cache: &mut VectorCache,
    rows: &[Row],
    part: Part,
    context: &Context,
) -> Result<Array2<f32>> {
    let texts: Vec<String> = rows.iter().map(|row| row.words(part)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let vectors = encoder.encode_kept(&texts, cache, context)?;
    Array2::from_shape_vec((rows.len(), encoder.width()), vectors)
        .map_err(|e| Error::Failed(e.to_string()))
}

/// The pool's vectors, and the model for those of queries.
struct Encoded {
    encoder: SentenceEncoder,
    cache: RefCell<VectorCache>,
    index: RdsIndex,
    part: Part,
}

impl Encoded {
    fn asked(&self, queries: &Queries, context: &Context) -> Result<Array2<f32>> {
        let mut cache = self.cache.borrow_mut();
        encoded(&self.encoder, &mut cache, &queries.rows, self.part, context)
    }
}

impl Fitted for Encoded {
    fn rank<'q>(&'q self, queries: &'q Queries, context: &Context) -> Result<Ranking<'q>> {
        let vectors = self.asked(queries, context)?;
        Ok(Ranking::ByQuery(Box::new(
            self.index.query(vectors.view())?,
        )))
    }

    fn states(&self, queries: &Queries, context: &Context) -> Result<Option<States<'_>>> {
        Ok(Some(States {
            pool: &self.index,
            queries: RdsIndex::build([self.asked(queries, context)])?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::tests::{best, pool, queries};
    use super::*;

    #[test]
    fn a_model_that_is_not_there_is_told() {
        let pool = pool(2, 1);
        let wrong = Sentences {
            model: "all-minilm".into(),
        };
        let e = wrong.fit(&pool, &Context::with_seed(0)).err().unwrap();
        assert!(e.to_string().contains("all-minilm-l6-v2"), "{e}");
    }

    #[test]
    fn meaning_is_found_without_a_shared_word() {
        let method = Sentences::default();
        if let Err(e) = models::folder(&method.model) {
            println!("SKIPPED: {e}");
            return;
        }
        let texts = [
            "The stock market fell sharply on Monday.",
            "A dog runs across the field.",
            "Bake the bread for forty minutes.",
            "Shares lost a tenth of their value.",
        ];
        let mut pool = pool(4, 1);
        pool.rows = texts.iter().map(|t| Row::plain(t)).collect();
        assert_eq!(
            best(&method, &pool, &queries(&["puppies playing outside"]), 1),
            [1]
        );
        let money = queries(&["equity prices collapse"]);
        let mut both = best(&method, &pool, &money, 2);
        both.sort_unstable();
        assert_eq!(both, [0, 3]);
    }
}
