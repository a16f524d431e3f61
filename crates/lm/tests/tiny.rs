//! A tiny BERT on disk, as a publisher would lay it out, against plain loops in double precision.

use papertrial_core::task::Context;
use papertrial_lm::{SentenceEncoder, VectorCache};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

const D: usize = 4;
const HEADS: usize = 2;
const INNER: usize = 6;
const LAYERS: usize = 2;
const WORDS: [&str; 7] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "green", "blue"];
const EPSILON: f64 = 1e-3;

type Weights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Weights of all sizes, drawn by a small congruential generator.
fn weights() -> Weights {
    let mut state = 12345u64;
    let mut draw = move |n: usize, around: f32| -> Vec<f32> {
        (0..n)
            .map(|_| {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                around + (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
            })
            .collect()
    };
    let mut all = Weights::new();
    let mut add = |name: String, shape: &[usize], around: f32| {
        let n = shape.iter().product();
        all.insert(name, (shape.to_vec(), draw(n, around)));
    };
    let e = "bert.embeddings";
    add(
        format!("{e}.word_embeddings.weight"),
        &[WORDS.len(), D],
        0.0,
    );
    add(format!("{e}.position_embeddings.weight"), &[8, D], 0.0);
    add(format!("{e}.token_type_embeddings.weight"), &[2, D], 0.0);
    add(format!("{e}.LayerNorm.weight"), &[D], 1.0);
    add(format!("{e}.LayerNorm.bias"), &[D], 0.0);
    for i in 0..LAYERS {
        let l = format!("bert.encoder.layer.{i}");
        let linear = [
            ("attention.self.query", D, D),
            ("attention.self.key", D, D),
            ("attention.self.value", D, D),
            ("attention.output.dense", D, D),
            ("intermediate.dense", INNER, D),
            ("output.dense", D, INNER),
        ];
        for (name, to, from) in linear {
            add(format!("{l}.{name}.weight"), &[to, from], 0.0);
            add(format!("{l}.{name}.bias"), &[to], 0.0);
        }
        for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
            add(format!("{l}.{name}.weight"), &[D], 1.0);
            add(format!("{l}.{name}.bias"), &[D], 0.0);
        }
    }
    add("bert.pooler.dense.weight".into(), &[D, D], 0.0);
    add("bert.pooler.dense.bias".into(), &[D], 0.0);
    all
}

/// The safetensors format by hand: length of the header, header, numbers.
fn write_weights(path: &Path, weights: &Weights) {
    let (mut header, mut bytes) = (serde_json::Map::new(), Vec::new());
    for (name, (shape, values)) in weights {
        let from = bytes.len();
        values
            .iter()
            .for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
        header.insert(
            name.clone(),
            json!({"dtype": "F32", "shape": shape, "data_offsets": [from, bytes.len()]}),
        );
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(bytes);
    std::fs::write(path, file).unwrap();
}

fn folder(weights: &Weights, config: serde_json::Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, value: &serde_json::Value| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value.to_string()).unwrap();
    };
    let special = |id: usize| {
        json!({"id": id, "content": WORDS[id], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let vocabulary: serde_json::Map<String, serde_json::Value> = WORDS
        .iter()
        .enumerate()
        .map(|(i, w)| (w.to_string(), i.into()))
        .collect();
    write(
        "tokenizer.json",
        &json!({"version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [special(0), special(1), special(2), special(3)],
            "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
            "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}}),
    );
    write("config.json", &config);
    let st = "sentence_transformers.models";
    write(
        "modules.json",
        &json!([{"path": "", "type": format!("{st}.Transformer")},
            {"path": "1_Pooling", "type": format!("{st}.Pooling")},
            {"path": "2_Normalize", "type": format!("{st}.Normalize")}]),
    );
    write(
        "1_Pooling/config.json",
        &json!({"pooling_mode_mean_tokens": true}),
    );
    write("sentence_bert_config.json", &json!({"max_seq_length": 6}));
    write_weights(&folder.path().join("model.safetensors"), weights);
    folder
}

fn config() -> serde_json::Value {
    json!({"model_type": "bert", "vocab_size": WORDS.len(), "hidden_size": D, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "intermediate_size": INNER, "max_position_embeddings": 8,
        "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": EPSILON})
}

/// The error function by its series (Abramowitz and Stegun 7.1.5), enough terms for |x| < 4.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..80 {
        term *= -x * x / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

/// Token vectors by plain loops.
fn by_hand(w: &Weights, tokens: &[usize]) -> Vec<Vec<f64>> {
    let get = |name: &str, i: usize| f64::from(w[&format!("bert.{name}")].1[i]);
    let linear = |x: &[Vec<f64>], name: &str| -> Vec<Vec<f64>> {
        let to = w[&format!("bert.{name}.bias")].1.len();
        x.iter()
            .map(|row| {
                (0..to)
                    .map(|o| {
                        let own = |(i, v): (usize, &f64)| {
                            v * get(&format!("{name}.weight"), o * row.len() + i)
                        };
                        row.iter().enumerate().map(own).sum::<f64>()
                            + get(&format!("{name}.bias"), o)
                    })
                    .collect()
            })
            .collect()
    };
    let normal = |x: &[Vec<f64>], name: &str| -> Vec<Vec<f64>> {
        x.iter()
            .map(|row| {
                let mean = row.iter().sum::<f64>() / D as f64;
                let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / D as f64;
                let scale = |(i, v): (usize, &f64)| {
                    (v - mean) / (variance + EPSILON).sqrt() * get(&format!("{name}.weight"), i)
                        + get(&format!("{name}.bias"), i)
                };
                row.iter().enumerate().map(scale).collect()
            })
            .collect()
    };
    let add = |a: &[Vec<f64>], b: &[Vec<f64>]| -> Vec<Vec<f64>> {
        a.iter()
            .zip(b)
            .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect())
            .collect()
    };
    let mut x: Vec<Vec<f64>> = tokens
        .iter()
        .enumerate()
        .map(|(place, token)| {
            (0..D)
                .map(|i| {
                    get("embeddings.word_embeddings.weight", token * D + i)
                        + get("embeddings.position_embeddings.weight", place * D + i)
                        + get("embeddings.token_type_embeddings.weight", i)
                })
                .collect()
        })
        .collect();
    x = normal(&x, "embeddings.LayerNorm");
    for layer in 0..LAYERS {
        let l = format!("encoder.layer.{layer}");
        let q = linear(&x, &format!("{l}.attention.self.query"));
        let k = linear(&x, &format!("{l}.attention.self.key"));
        let v = linear(&x, &format!("{l}.attention.self.value"));
        let n = D / HEADS;
        let mut seen = vec![vec![0.0; D]; x.len()];
        for h in 0..HEADS {
            let part = h * n..(h + 1) * n;
            for i in 0..x.len() {
                let logits: Vec<f64> = k
                    .iter()
                    .map(|k| {
                        let dot: f64 = q[i][part.clone()]
                            .iter()
                            .zip(&k[part.clone()])
                            .map(|(a, b)| a * b)
                            .sum();
                        (dot / (n as f64).sqrt()).exp()
                    })
                    .collect();
                let all: f64 = logits.iter().sum();
                for (share, v) in logits.iter().zip(&v) {
                    for p in part.clone() {
                        seen[i][p] += share / all * v[p];
                    }
                }
            }
        }
        let out = linear(&seen, &format!("{l}.attention.output.dense"));
        x = normal(&add(&x, &out), &format!("{l}.attention.output.LayerNorm"));
        let mut inner = linear(&x, &format!("{l}.intermediate.dense"));
        inner
            .iter_mut()
            .flatten()
            .for_each(|v| *v *= 0.5 * (1.0 + erf(*v / 2f64.sqrt())));
        let out = linear(&inner, &format!("{l}.output.dense"));
        x = normal(&add(&x, &out), &format!("{l}.output.LayerNorm"));
    }
    x
}

/// Texts, and the tokens that they have here: at most six, with the two special ones.
const TEXTS: [(&str, &[usize]); 4] = [
    ("red Green blue", &[2, 4, 5, 6, 3]),
    ("blue", &[2, 6, 3]),
    ("", &[2, 3]),
    ("red red red mauve red red", &[2, 4, 4, 4, 1, 3]),
];

#[test]
fn token_and_text_vectors_agree_with_plain_loops() {
    let weights = weights();
    let folder = folder(&weights, config());
    let device = papertrial_nn::device("cpu").unwrap();
    let encoder = SentenceEncoder::open(folder.path(), &device).unwrap();
    assert_eq!((encoder.width(), encoder.longest()), (D, 6));
    let texts: Vec<&str> = TEXTS.iter().map(|t| t.0).collect();
    let context = Context::with_seed(0);
    let vectors = encoder.encode(&texts, &context).unwrap();
    let of_tokens = encoder.encode_tokens(&texts, &context).unwrap();
    for (i, (text, tokens)) in TEXTS.iter().enumerate() {
        let want = by_hand(&weights, tokens);
        assert_eq!(of_tokens[i].tokens.len(), tokens.len(), "{text}");
        for (got, want) in of_tokens[i].vectors.iter().zip(want.iter().flatten()) {
            assert!(
                (f64::from(*got) - want).abs() < 1e-5,
                "{text}: {got} {want}"
            );
        }
        let mean: Vec<f64> = (0..D)
            .map(|d| want.iter().map(|row| row[d]).sum::<f64>() / want.len() as f64)
            .collect();
        let length = mean.iter().map(|v| v * v).sum::<f64>().sqrt();
        for (got, want) in vectors[i * D..(i + 1) * D].iter().zip(&mean) {
            assert!(
                (f64::from(*got) - want / length).abs() < 1e-5,
                "{text}: {got} {}",
                want / length
            );
        }
        // Alone it is the same as among others.
        let alone = encoder.encode(&[text], &context).unwrap();
        for (got, want) in alone.iter().zip(&vectors[i * D..(i + 1) * D]) {
            assert!((got - want).abs() < 1e-6);
        }
    }
    let (from, to) = of_tokens[0].places[2];
    assert_eq!(&texts[0][from..to], "Green");
    assert!(encoder.encode(&[], &context).unwrap().is_empty());
    // The cache gives the same, in the order of the texts, and knows each text once.
    let place = tempfile::tempdir().unwrap();
    let mut cache = VectorCache::open(place.path(), encoder.checksum(), D).unwrap();
    encoder
        .encode_kept(&texts[2..], &mut cache, &context)
        .unwrap();
    let twice: Vec<&str> = texts.iter().chain(&texts).copied().collect();
    let kept = encoder.encode_kept(&twice, &mut cache, &context).unwrap();
    assert_eq!((kept.len(), cache.len()), (2 * vectors.len(), texts.len()));
    for (got, want) in kept.iter().zip(vectors.iter().chain(&vectors)) {
        assert!((got - want).abs() < 1e-6);
    }
}

#[test]
fn models_that_do_not_fit_are_told_by_file() {
    let device = papertrial_nn::device("cpu").unwrap();
    let told = |folder: &Path| {
        SentenceEncoder::open(folder, &device)
            .unwrap_err()
            .to_string()
    };
    let whole = weights();
    let mut changed = config();
    changed["model_type"] = "roberta".into();
    let text = told(folder(&whole, changed).path());
    assert!(
        text.contains("config.json") && text.contains("roberta"),
        "{text}"
    );
    let mut changed = config();
    changed["num_attention_heads"] = 3.into();
    let text = told(folder(&whole, changed).path());
    assert!(text.contains("3 heads"), "{text}");
    let mut changed = config();
    changed["vocab_size"] = 3.into();
    let text = told(folder(&whole, changed).path());
    assert!(
        text.contains("tokenizer.json") && text.contains("7 tokens"),
        "{text}"
    );
    let mut lacking = whole.clone();
    lacking.remove("bert.encoder.layer.1.output.dense.weight");
    let text = told(folder(&lacking, config()).path());
    assert!(text.contains("model.safetensors"), "{text}");
    let complete = folder(&whole, config());
    std::fs::write(complete.path().join("1_Pooling/config.json"), "{}").unwrap();
    let text = told(complete.path());
    assert!(text.contains("pooling"), "{text}");
    for missing in ["config.json", "tokenizer.json", "model.safetensors"] {
        let complete = folder(&whole, config());
        std::fs::remove_file(complete.path().join(missing)).unwrap();
        let text = told(complete.path());
        assert!(text.contains(missing), "{text}");
    }
}
