//! The task as a whole, on small data.

use super::*;
use papertrial_core::data::{ReadOptions, Roles};
use papertrial_core::options;
use papertrial_core::options::Settings;
use papertrial_core::plan::{self, Source};
use serde_json::{Value, json};

fn settings(value: Value) -> Settings {
    value.as_object().cloned().unwrap_or_default()
}

fn recall(value: Value) -> Source {
    let about = (simulation::SIMULATION.options)();
    Source {
        input: Input::Simulation {
            name: "associative-recall".into(),
            options: options::resolve("associative-recall", &about, &settings(value)).unwrap(),
        },
        roles: Roles::default(),
        others: Default::default(),
    }
}

fn file(path: &Path) -> Source {
    Source {
        input: plan::file(path, &ReadOptions::default()).unwrap(),
        roles: Roles::default(),
        others: Default::default(),
    }
}

fn job(method: &str, source: &Source, options: Value) -> Job {
    let method = plan::method(&SequenceModelling, method).unwrap();
    let none = Settings::new();
    plan::job(
        &SequenceModelling,
        &method,
        &settings(options),
        &none,
        source,
        1,
    )
    .unwrap()
}

fn context() -> Context<'static> {
    Context {
        simulations: &[simulation::SIMULATION],
        ..Context::with_seed(1)
    }
}

const SMALL: &str = r#"{"vocabulary": 14, "length": 12, "pairs": 2, "sequences": 300, "test": 60}"#;

fn small() -> Source {
    recall(serde_json::from_str(SMALL).unwrap())
}

#[test]
fn every_method_learns_and_repeats_itself() {
    for entry in METHODS {
        let options = json!({"d": 8, "layers": 1, "steps": 3, "batch": 16, "shift": 2, "state": 4});
        let job = job(entry.facts.name, &small(), options);
        let first = SequenceModelling.measure(&job, &context()).unwrap();
        let again = SequenceModelling.measure(&job, &context()).unwrap();
        let name = entry.facts.name;
        assert_eq!(
            first.metrics["accuracy"], again.metrics["accuracy"],
            "{name}"
        );
        for metric in first.metrics.keys() {
            assert!(METRICS.iter().any(|m| m.name == metric), "{name}: {metric}");
        }
        if name == "key-table" {
            assert_eq!(first.metrics["accuracy"], 1.0);
        } else {
            let perplexity = first.metrics["perplexity"];
            assert_eq!(perplexity, again.metrics["perplexity"], "{name}");
            // Three steps from nothing: about as many as there are tokens.
            assert!(
                perplexity > 5.0 && perplexity < 15.0,
                "{name}: {perplexity}"
            );
        }
    }
}

#[test]
fn softmax_attention_learns_to_recall() {
    let options = json!({"d": 16, "layers": 1, "steps": 300, "batch": 32, "shift": 2, "state": 8});
    let job = job(
        "softmax-attention",
        &recall(json!({
            "vocabulary": 14, "length": 12, "pairs": 2, "sequences": 9600, "test": 200
        })),
        options,
    );
    let measured = SequenceModelling.measure(&job, &context()).unwrap();
    assert!(measured.metrics["accuracy"] > 0.9, "{:?}", measured.metrics);
}

#[test]
fn a_text_is_learned_sampled_and_looked_into() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("text.txt");
    std::fs::write(&data, "abcabcabd ".repeat(60)).unwrap();
    let source = file(&data);
    let options = |write: &str| {
        json!({"d": 8, "layers": 2, "steps": 2, "batch": 4, "window": 10, "write": write,
               "samples": 2, "sample-length": 15})
    };
    let out = folder.path().join("out.csv");
    let applied = SequenceModelling
        .apply(&job("ssd", &source, options("scores")), &out, &context())
        .unwrap();
    assert_eq!(
        applied.files,
        [out.clone(), folder.path().join("out.safetensors")]
    );
    let text = std::fs::read_to_string(&out).unwrap();
    assert!(
        text.starts_with("start,targets,met,cross_entropy\n540,10,"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 6);

    // The model that was written, instead of a new one.
    let model = plan::file(&applied.files[1], &ReadOptions::default()).unwrap();
    let with_model = |method: &str, write: &str, out: &Path| {
        let mut job = job(method, &source, options(write));
        job.inputs.insert("model".into(), model.clone());
        SequenceModelling.apply(&job, out, &context())
    };
    let again = folder.path().join("again.csv");
    let applied = with_model("ssd", "scores", &again).unwrap();
    assert_eq!(applied.files, std::slice::from_ref(&again));
    assert_eq!(std::fs::read_to_string(&again).unwrap(), text);
    with_model("ssd", "samples", &again).unwrap();
    let samples = std::fs::read_to_string(&again).unwrap();
    assert!(samples.starts_with("sample,text\n"));
    with_model("ssd", "memory", &again).unwrap();
    let memory = std::fs::read_to_string(&again).unwrap();
    // A header, and 16 channels of each of 2 blocks.
    assert_eq!(memory.lines().count(), 1 + 2 * 16, "{memory}");
    with_model("ssd", "weights", &again).unwrap();
    let weights = std::fs::read_to_string(&again).unwrap();
    assert_eq!(weights.lines().count(), 1 + 2 * 16 * 55);
    let told = with_model("s6", "scores", &again).unwrap_err().to_string();
    assert!(told.contains("is a model with ssd, not s6"), "{told}");
}

#[test]
fn attention_is_looked_into_by_heads_and_knows_its_positions() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.csv");
    for (method, eigenvalue) in [("softmax-attention", false), ("normalised-attention", true)] {
        let options = json!({"d": 8, "layers": 1, "steps": 2, "batch": 4, "state": 4, "heads": 2, "write": "memory"});
        SequenceModelling
            .apply(&job(method, &small(), options), &out, &context())
            .unwrap();
        let text = std::fs::read_to_string(&out).unwrap();
        let row: Vec<&str> = text.lines().nth(2).unwrap().split(',').collect();
        assert_eq!(row[..2], ["1", "2"]);
        assert_eq!(!row[3].is_empty(), eigenvalue, "{text}");
        let distance: f64 = row[6].parse().unwrap();
        assert!(distance > 0.0 && distance < 12.0);
    }
    let model = plan::file(
        &folder.path().join("out.safetensors"),
        &ReadOptions::default(),
    )
    .unwrap();
    let longer =
        recall(json!({"vocabulary": 16, "length": 14, "pairs": 2, "sequences": 3, "test": 3}));
    let told = |source: &Source| {
        let mut job = job("normalised-attention", source, json!({}));
        job.inputs.insert("model".into(), model.clone());
        SequenceModelling
            .measure(&job, &context())
            .unwrap_err()
            .to_string()
    };
    assert!(told(&longer).contains("tokens"), "{}", told(&longer));
    let longer =
        recall(json!({"vocabulary": 15, "length": 14, "pairs": 2, "sequences": 1, "test": 1}));
    assert!(told(&longer).contains("positions") || told(&longer).contains("tokens"));
}

#[test]
fn impossible_requests_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.csv");
    let told = |method: &str, options: Value| {
        let error = SequenceModelling.apply(&job(method, &small(), options), &out, &context());
        assert!(!out.exists());
        error.unwrap_err().to_string()
    };
    let quick = |mut more: Value| {
        for (name, value) in [("d", 8), ("layers", 1), ("steps", 1)] {
            if more.get(name).is_none() {
                more[name] = json!(value);
            }
        }
        more
    };
    assert!(told("ssd", quick(json!({"write": "samples"}))).contains("table of tokens"));
    assert!(told("gru", quick(json!({"write": "memory"}))).contains("not linear systems"));
    assert!(told("key-table", quick(json!({"write": "memory"}))).contains("nothing but scores"));
    assert!(told("softmax-attention", quick(json!({"heads": 3}))).contains("heads"));
    assert!(told("ssd", quick(json!({"learning-rate": 1e30, "steps": 20}))).contains("diverged"));
    assert!(!folder.path().join("out.safetensors").exists());
}
