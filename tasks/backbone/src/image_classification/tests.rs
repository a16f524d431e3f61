//! The task as a whole, on the embedded digits.

use super::*;
use papertrial_core::options::Settings;
use papertrial_core::plan::{self, Source};
use papertrial_core::task::Input;
use serde_json::{Value, json};

fn job(method: &str, shared: &[(&str, Value)], own: &[(&str, Value)]) -> Job {
    let settings = |given: &[(&str, Value)]| -> Settings {
        given
            .iter()
            .map(|(n, v)| ((*n).to_owned(), v.clone()))
            .collect()
    };
    let mut all = vec![
        ("widths", json!([16, 32])),
        ("depths", json!([1, 1])),
        ("stem-stride", json!(1)),
        ("epochs", json!(2)),
        ("learning-rates", json!([0.003])),
    ];
    all.extend(shared.iter().cloned());
    let source = Source {
        input: Input::Set {
            name: "digits".into(),
            checksum: String::new(),
        },
        roles: papertrial_core::data::sets::find("digits")
            .unwrap()
            .roles
            .clone(),
        others: Default::default(),
    };
    let method = plan::method(&ImageClassification, method).unwrap();
    plan::job(
        &ImageClassification,
        &method,
        &settings(&all),
        &settings(own),
        &source,
        1,
    )
    .unwrap()
}

#[test]
fn every_method_and_mixer_learns_and_does_so_again_alike() {
    let context = Context::with_seed(1);
    let mut jobs: Vec<Job> = ["poolformer", "small-cnn", "logistic-regression"]
        .iter()
        .map(|m| job(m, &[], &[]))
        .collect();
    // Attention begins to learn later.
    let longer = [("epochs", json!(6))];
    jobs.extend(["iformer", "vision-transformer"].map(|m| job(m, &longer, &[])));
    for mixer in [
        "identity",
        "random",
        "depthwise",
        "spatial-mlp",
        "pooling,attention",
    ] {
        let own = [("mixer", json!(mixer)), ("head-width", json!(16))];
        jobs.push(job("metaformer", &[], &own));
    }
    for job in &jobs {
        let first = ImageClassification.measure(job, &context).unwrap();
        let again = ImageClassification.measure(job, &context).unwrap();
        // Few steps, so not much better than a guess of ten, but by three deviations of one.
        assert!(
            first.metrics["accuracy"] > 0.15,
            "{} {:?} {:?}",
            job.method,
            job.options,
            first.metrics
        );
        assert_eq!(first.metrics["accuracy"], again.metrics["accuracy"]);
        assert_eq!(
            first.metrics.contains_key("high-frequency-block-share"),
            job.method == "iformer"
        );
    }
}

#[test]
fn a_model_that_was_written_names_the_same_classes() {
    let folder = tempfile::tempdir().unwrap();
    let context = Context::with_seed(1);
    let out = folder.path().join("named.csv");
    let applied = ImageClassification
        .apply(
            &job("iformer", &[("features", json!(true))], &[]),
            &out,
            &context,
        )
        .unwrap();
    assert_eq!(applied.files.len(), 3);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    let model = folder.path().join("named.model.safetensors");
    let again = folder.path().join("again.csv");
    let used = job("iformer", &[("model", json!(model.to_str().unwrap()))], &[]);
    ImageClassification.apply(&used, &again, &context).unwrap();
    let text = std::fs::read_to_string(&out).unwrap();
    assert_eq!(text, std::fs::read_to_string(&again).unwrap());
    assert!(
        text.starts_with("picture,class,probability,class_2,probability_2,class_3"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1798);
}
