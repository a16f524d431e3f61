//! The real all-MiniLM-L6-v2 against sentence-transformers (`minilm.json`, written by `minilm.py`).

use papertrial_core::data::models;
use papertrial_core::task::Context;
use papertrial_lm::SentenceEncoder;
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    texts: Vec<String>,
    vectors: Vec<Vec<f64>>,
    tokens: Vec<Vec<Vec<f64>>>,
}

#[test]
fn agrees_with_sentence_transformers() {
    let folder = match models::folder("all-minilm-l6-v2") {
        Ok(folder) => folder,
        Err(e) => {
            println!("SKIPPED: {e}");
            return;
        }
    };
    let expected: Expected = serde_json::from_str(include_str!("minilm.json")).unwrap();
    let device = papertrial_nn::device("cpu").unwrap();
    let encoder = SentenceEncoder::open(&folder, &device).unwrap();
    assert_eq!((encoder.width(), encoder.longest()), (384, 256));
    let texts: Vec<&str> = expected.texts.iter().map(String::as_str).collect();
    let context = Context::with_seed(0);
    let vectors = encoder.encode(&texts, &context).unwrap();
    let mut most = 0f64;
    for (got, want) in vectors.chunks_exact(384).zip(&expected.vectors) {
        for (g, w) in got.iter().zip(want) {
            most = most.max((f64::from(*g) - w).abs());
        }
    }
    println!("texts: largest difference {most:e}");
    assert!(most < 1e-5, "{most:e}");
    let tokens = encoder.encode_tokens(&texts[..2], &context).unwrap();
    for (text, want) in tokens.iter().zip(&expected.tokens) {
        assert_eq!(text.tokens.len(), want.len(), "{:?}", text.tokens);
        for (got, want) in text.vectors.chunks_exact(384).zip(want) {
            for (g, w) in got.iter().zip(want) {
                assert!((f64::from(*g) - w).abs() < 1e-4, "{g} {w}");
            }
        }
    }
    // What it is for: a dog and puppies are nearer than a dog and the market.
    let dot = |i: usize, j: usize| -> f32 {
        let row = |i: usize| &vectors[i * 384..(i + 1) * 384];
        row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum()
    };
    assert!(dot(0, 5) > dot(0, 1) + 0.2);
}
