//! Choices without training: all pairs, random ones, long captions, and the cosine of embeddings that are given.

use super::filter::{PairFilter, Scorer, Sets, Trained};
use super::keep::Keep;
use super::pairs::{Pairs, Side};
use super::vocabulary::words;
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::rng;
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// No filter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct FullData {}

impl Method for FullData {
    const FACTS: Facts = Facts {
        name: "full-data",
        about: "no filter: all pairs of the pool",
        paper: None,
        streams: true,
    };
}

impl PairFilter for FullData {
    fn train(&self, sets: &Sets, context: &Context) -> Result<Trained> {
        let trained = Uniform {}.train(sets, context)?;
        Ok(Trained {
            keep: Keep::All,
            ..trained
        })
    }
}

/// A random subset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Uniform {}

impl Method for Uniform {
    const FACTS: Facts = Facts {
        name: "uniform",
        about: "random pairs of the pool, as many as the budget says",
        paper: None,
        streams: true,
    };
}

impl PairFilter for Uniform {
    fn train(&self, sets: &Sets, _: &Context) -> Result<Trained> {
        Ok(Trained::best(Draws { seed: sets.seed }))
    }
}

/// A random number for each uid, whatever the order of the pool.
struct Draws {
    seed: u64,
}

impl Scorer for Draws {
    fn score(&self, pairs: &Pairs, _: &Context) -> Result<Vec<f32>> {
        let draw = |uid: &String| rng(self.seed, &format!("uniform choice of {uid}")).random();
        Ok(pairs.uids.iter().map(draw).collect())
    }
}

/// The longest captions: a heuristic that looks at nothing but the text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct CaptionLength {}

impl Method for CaptionLength {
    const FACTS: Facts = Facts {
        name: "caption-length",
        about: "a heuristic: the pairs whose text has most words, of equally many the one with most letters",
        paper: None,
        streams: true,
    };
}

impl PairFilter for CaptionLength {
    fn train(&self, sets: &Sets, _: &Context) -> Result<Trained> {
        captions(sets.pool)?;
        Ok(Trained::best(Lengths))
    }
}

struct Lengths;

impl Scorer for Lengths {
    fn score(&self, pairs: &Pairs, _: &Context) -> Result<Vec<f32>> {
        let score = |text: &String| {
            let letters = text.chars().count().min(9_999);
            words(text).count() as f32 + letters as f32 / 10_000.0
        };
        Ok(captions(pairs)?.iter().map(score).collect())
    }
}

fn captions(pairs: &Pairs) -> Result<&[String]> {
    match &pairs.right {
        Side::Texts(texts) => Ok(texts),
        Side::Vectors { .. } => Err(Error::BadInput(
            "caption-length looks at texts, and the --text column holds embeddings; take another method".into(),
        )),
    }
}

/// The cosine of embeddings that an existing model made, such as CLIP's: the usual filter without a training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct EmbeddingSimilarity {}

impl Method for EmbeddingSimilarity {
    const FACTS: Facts = Facts {
        name: "embedding-similarity",
        about: "the cosine of image and text embeddings as they are given, such as CLIP's; needs both sides as embeddings of one width",
        paper: None,
        streams: true,
    };
}

impl PairFilter for EmbeddingSimilarity {
    fn train(&self, sets: &Sets, _: &Context) -> Result<Trained> {
        embeddings(sets.pool)?;
        Ok(Trained::best(Cosines))
    }
}

struct Cosines;

impl Scorer for Cosines {
    fn score(&self, pairs: &Pairs, _: &Context) -> Result<Vec<f32>> {
        let (left, right, width) = embeddings(pairs)?;
        let cosine = |(a, b): (&[f32], &[f32])| {
            let sum = |f: fn(f64, f64) -> f64| -> f64 {
                a.iter()
                    .zip(b)
                    .map(|(a, b)| f(f64::from(*a), f64::from(*b)))
                    .sum()
            };
            let lengths = (sum(|a, _| a * a) * sum(|_, b| b * b)).sqrt();
            // An embedding of zeros has no direction; such a pair is as good as an unrelated one.
            (sum(|a, b| a * b) / lengths.max(f64::MIN_POSITIVE)) as f32
        };
        let rows = left.chunks_exact(width).zip(right.chunks_exact(width));
        Ok(rows.map(cosine).collect())
    }
}

fn embeddings(pairs: &Pairs) -> Result<(&[f32], &[f32], usize)> {
    match (&pairs.left, &pairs.right) {
        (
            Side::Vectors { values: left, width },
            Side::Vectors { values: right, width: other },
        ) if width == other => Ok((left, right, (*width).max(1))),
        _ => Err(Error::BadInput(
            "embedding-similarity needs an embedding of the image and one of the text, of the same width; take another method, or give such columns with --features and --text".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs() -> Pairs {
        Pairs {
            uids: vec!["a".into(), "b".into(), "c".into()],
            left: Side::Vectors {
                values: vec![1.0, 0.0, 3.0, 4.0, 0.0, 0.0],
                width: 2,
            },
            right: Side::Texts(vec![
                "a dog".into(),
                "one two three".into(),
                "ab dog".into(),
            ]),
            shape: None,
            labels: None,
            matches: None,
        }
    }

    fn scores(filter: &dyn PairFilter, pairs: &Pairs, seed: u64) -> Result<Vec<f32>> {
        let context = Context::with_seed(seed);
        let sets = Sets {
            pool: pairs,
            clean: None,
            fine_tune: None,
            seed,
        };
        filter.train(&sets, &context)?.scorer.score(pairs, &context)
    }

    #[test]
    fn words_come_before_letters() {
        assert_eq!(
            scores(&CaptionLength {}, &pairs(), 0).unwrap(),
            [2.0005, 3.0013, 2.0006]
        );
    }

    #[test]
    fn random_scores_belong_to_the_uid() {
        let all = scores(&Uniform {}, &pairs(), 1).unwrap();
        let turned = scores(&Uniform {}, &pairs().select(&[2, 0]), 1).unwrap();
        assert_eq!(turned, [all[2], all[0]]);
        assert_ne!(all, scores(&Uniform {}, &pairs(), 2).unwrap());
        assert!(all.iter().all(|s| (0.0..1.0).contains(s)));
    }

    #[test]
    fn cosines_by_hand_and_only_of_embeddings() {
        let mut both = pairs();
        both.right = Side::Vectors {
            values: vec![1.0, 1.0, 0.0, 2.0, 5.0, 1.0],
            width: 2,
        };
        let got = scores(&EmbeddingSimilarity {}, &both, 0).unwrap();
        for (g, w) in got.iter().zip([0.5f32.sqrt(), 0.8, 0.0]) {
            assert!((g - w).abs() < 1e-6);
        }
        assert!(scores(&EmbeddingSimilarity {}, &pairs(), 0).is_err());
        let text = scores(&CaptionLength {}, &both, 0).unwrap_err().to_string();
        assert!(text.contains("embeddings"), "{text}");
    }
}
