//! The task as a whole: every method measured and applied, models kept and used again, real molecules.

use super::*;
use arrow::array::{Array, AsArray};
use arrow::datatypes::Float64Type;
use papertrial_core::data::{ReadOptions, Roles, Table};
use papertrial_core::options::Settings;
use papertrial_core::plan;
use papertrial_core::task::Family;
use serde_json::{Value, json};
use std::path::PathBuf;

const FAMILY: Family = Family {
    name: "detect",
    tasks: &[&GraphAnomaly],
    simulations: simulations::SIMULATIONS,
    version: "test",
};

fn settings(value: Value) -> Settings {
    value.as_object().cloned().unwrap_or_default()
}

fn source(data: &str, options: Value) -> Result<plan::Source> {
    let read = ReadOptions::default();
    plan::source(data, &settings(options), Roles::default(), &read, &FAMILY)
}

fn job(source: &plan::Source, method: &str, options: Value) -> Result<Job> {
    let method = plan::method(&GraphAnomaly, method)?;
    plan::job(
        &GraphAnomaly,
        &method,
        &Settings::new(),
        &settings(options),
        source,
        7,
    )
}

fn context() -> Context<'static> {
    Context {
        simulations: simulations::SIMULATIONS,
        ..Context::with_seed(7)
    }
}

/// Graphs that are told apart with ease: a third of the nodes is flipped, a quarter of the graphs is anomalous.
fn easy() -> plan::Source {
    let options = json!({"graphs": 160, "anomaly-share": 0.25, "flipped": 0.3, "features": 4});
    source("flipped-signals", options).unwrap()
}

/// Few epochs for networks.
fn brief(method: &str) -> Value {
    match method {
        "rqgnn" | "gcn" | "gin" | "chebnet" => json!({"epochs": 8, "batch": 16, "hidden": 16}),
        "statistics-boosting" => json!({"trees": 20}),
        _ => json!({}),
    }
}

fn told<T>(result: Result<T>) -> String {
    result.err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn every_method_measures_and_those_that_see_signals_find_them() {
    for entry in METHODS {
        let name = entry.facts.name;
        let job = job(&easy(), name, brief(name)).unwrap();
        let measured = GraphAnomaly.measure(&job, &context()).unwrap();
        for (metric, value) in &measured.metrics {
            assert!(METRICS.iter().any(|m| m.name == metric), "{metric}");
            assert!(
                value.is_finite() && *value >= 0.0,
                "{name} {metric} {value}"
            );
        }
        let auc = measured.metrics["auc"];
        let floor = match name {
            "rqgnn" | "rayleigh-quotient" | "statistics-boosting" => 0.9,
            // The kernels see the graphs' shape alone, which tells nothing here.
            _ => 0.0,
        };
        assert!(auc >= floor, "{name}: {auc}");
        assert!(
            measured
                .notes
                .iter()
                .any(|n| n.contains("taken as anomalous (40 graphs)"))
        );
    }
}

#[test]
fn the_seed_decides_whatever_the_number_of_threads() {
    for name in ["rqgnn", "gin", "wl-one-class", "statistics-boosting"] {
        let job = job(&easy(), name, brief(name)).unwrap();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let mut metrics = pool
                .install(|| GraphAnomaly.measure(&job, &context()))
                .unwrap()
                .metrics;
            metrics.retain(|m, _| METRICS.iter().any(|k| k.name == m && !k.timing));
            metrics
        };
        assert_eq!(run(1), run(3), "{name}");
    }
}

fn scores(path: &Path) -> Vec<f64> {
    let table = Table::open(path, &ReadOptions::default()).unwrap();
    let at = table.column_for("score", "score").unwrap();
    let arrays = table.column(at).unwrap();
    arrays
        .iter()
        .flat_map(|a| a.as_primitive::<Float64Type>().values().to_vec())
        .collect()
}

#[test]
fn a_kept_model_scores_as_it_did_when_it_was_learned() {
    let folder = tempfile::tempdir().unwrap();
    for entry in METHODS {
        let name = entry.facts.name;
        let out = folder.path().join(format!("{name}.parquet"));
        let learn = job(&easy(), name, brief(name)).unwrap();
        let applied = GraphAnomaly.apply(&learn, &out, &context()).unwrap();
        let model = folder.path().join(format!("{name}.model"));
        assert_eq!(
            applied.files,
            [
                out.clone(),
                folder.path().join(format!("{name}.spectrum.json")),
                model.clone()
            ]
        );
        let again = folder.path().join("again.parquet");
        let with = easy()
            .with("model", &model, &ReadOptions::default(), &GraphAnomaly)
            .unwrap();
        let applied = GraphAnomaly
            .apply(&job(&with, name, json!({})).unwrap(), &again, &context())
            .unwrap();
        assert_eq!(scores(&out), scores(&again), "{name}");
        // The labels of the new graphs are known, so it is told how good the scores are.
        assert!(
            applied.summary.iter().any(|s| s.0 == "on these graphs"),
            "{:?}",
            applied.summary
        );
    }
    // A model of another method is refused by name.
    let with = easy()
        .with(
            "model",
            &folder.path().join("gcn.model"),
            &ReadOptions::default(),
            &GraphAnomaly,
        )
        .unwrap();
    let out = folder.path().join("x.csv");
    let text = told(GraphAnomaly.apply(&job(&with, "gin", json!({})).unwrap(), &out, &context()));
    assert!(text.contains("is a model of gcn, not of gin"), "{text}");
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .filter(|e| {
            e.as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .contains("part")
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn new_graphs_get_scores_with_reasons() {
    let folder = tempfile::tempdir().unwrap();
    let new = folder.path().join("new.jsonl");
    // Smooth and not smooth, on a path of four.
    let graph = |x: [i32; 4]| {
        let x: Vec<Vec<i32>> = x.iter().map(|v| vec![*v; 4]).collect();
        json!({"id": format!("{x:?}"), "features": x, "edges": [[0, 1], [1, 2], [2, 3]]})
            .to_string()
    };
    let lines = [graph([1, 1, 1, 1]), graph([1, -1, 1, -1])].join("\n");
    std::fs::write(&new, lines).unwrap();
    let with = easy()
        .with("score", &new, &ReadOptions::default(), &GraphAnomaly)
        .unwrap();
    let out = folder.path().join("scores.jsonl");
    let learn = job(
        &with,
        "rayleigh-quotient",
        json!({"normalised": true, "top": 2}),
    )
    .unwrap();
    let applied = GraphAnomaly.apply(&learn, &out, &context()).unwrap();
    let scores = scores(&out);
    assert!(
        scores.len() == 2 && scores[0] < 0.2 && scores[1] > 0.8,
        "{scores:?}"
    );
    let rows = std::fs::read_to_string(&out).unwrap();
    let rows: Vec<Value> = rows
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(rows[1]["nearest_curve"], "1");
    assert_eq!(
        (&rows[0]["part"], &rows[1]["anomalous"]),
        (&json!("new"), &json!(true))
    );
    // With the signs of every second node turned, a quotient q of x becomes 2 - q.
    let quotient = |r: usize| rows[r]["quotient_1"].as_f64().unwrap();
    assert!((quotient(0) + quotient(1) - 2.0).abs() < 1e-6);
    assert!(rows[1]["deviations_2"].as_f64().unwrap() > 3.0);
    assert!(rows[0].get("feature_3").is_none());
    let spectrum = std::fs::read_to_string(&applied.files[1]).unwrap();
    let spectrum: Value = serde_json::from_str(&spectrum).unwrap();
    let mean = |class: &str| spectrum[class]["quotients"][0]["mean"].as_f64().unwrap();
    assert!(mean("anomalous") > mean("normal"));
    let curve = spectrum["normal"]["energy-up-to"]["mean"]
        .as_array()
        .unwrap();
    assert!((curve[40].as_f64().unwrap() - 1.0).abs() < 1e-9);
}

#[test]
fn ablations_are_options_and_what_cannot_be_is_told() {
    for options in [
        json!({"quotients": false}),
        json!({"pooling": "attention"}),
        json!({"pooling": "sum"}),
        json!({"filters": "spatial"}),
        json!({"loss": "cross-entropy"}),
    ] {
        let mut options = options;
        options["epochs"] = 2.into();
        options["batch"] = 32.into();
        let job = job(&easy(), "rqgnn", options).unwrap();
        assert!(
            GraphAnomaly
                .measure(&job, &context())
                .unwrap()
                .metrics
                .contains_key("auc")
        );
    }
    let few = source(
        "flipped-signals",
        json!({"graphs": 100, "anomaly-share": 0.1}),
    )
    .unwrap();
    let text = told(GraphAnomaly.measure(&job(&few, "gcn", json!({})).unwrap(), &context()));
    assert!(
        text.contains("10 anomalous graphs") && text.contains("about 34"),
        "{text}"
    );
    let text = told(GraphAnomaly.measure(
        &job(&easy(), "gcn", json!({"anomaly": "2"})).unwrap(),
        &context(),
    ));
    assert!(text.contains("no graph has the label '2'"), "{text}");
    assert!(job(&easy(), "gcn", json!({"batch": 1})).is_err());
}

#[test]
fn a_rate_that_is_far_too_high_is_lowered_and_it_is_told() {
    let options = json!({"epochs": 3, "batch": 16, "learning-rate": 1e12});
    let measured = GraphAnomaly.measure(&job(&easy(), "rqgnn", options).unwrap(), &context());
    // Either it is saved by shorter gradients, with a note, or it ends with an error that names the rate.
    match measured {
        Ok(measured) => assert!(
            measured.notes.iter().any(|n| n.contains("begun again")),
            "{:?}",
            measured.notes
        ),
        Err(e) => assert!(e.to_string().contains("learning rate"), "{e}"),
    }
}

/// The folder of real data that PAPERTRIAL_DATA names, if it is there.
fn real(name: &str) -> Option<PathBuf> {
    let roots = std::env::var("PAPERTRIAL_DATA").unwrap_or_default();
    let found = roots
        .split(':')
        .map(|r| Path::new(r).join(name))
        .find(|p| p.exists());
    if found.is_none() {
        eprintln!("skipped: {name} is in no folder of PAPERTRIAL_DATA");
    }
    found
}

#[test]
fn the_tox21_molecules_are_read_and_are_too_few_to_be_split() {
    let Some(folder) = real("tox21-ar-lbd") else {
        return;
    };
    let source = source(&folder.to_string_lossy(), json!({})).unwrap();
    let job = job(&source, "rqgnn", json!({})).unwrap();
    let loaded = input::load(&job, "data", false, Classes::Rarer, &context()).unwrap();
    assert_eq!((loaded.graphs.len(), loaded.graphs.nodes()), (253, 5529));
    assert!(
        loaded
            .notes
            .iter()
            .any(|n| n.contains("'1' is taken as anomalous (4 graphs)")),
        "{:?}",
        loaded.notes
    );
    let text = told(GraphAnomaly.measure(&job, &context()));
    assert!(text.contains("4 anomalous graphs"), "{text}");
    // Eigenvalues, quotients and curves of real molecules keep their laws.
    for graph in loaded.graphs.graphs() {
        for q in quotients(graph, loaded.graphs.width())
            .into_iter()
            .flatten()
        {
            assert!((0.0..=2.0 + 1e-5).contains(&q));
        }
        let curve = curve(graph).unwrap().unwrap();
        assert!((curve[curve.len() - 1] - 1.0).abs() < 1e-9);
    }
}

/// Molecules of an SDF file as JSON lines, labelled by whether a property is above `least`.
fn molecules(text: &str, property: &str, least: f64) -> String {
    let mut lines = String::new();
    for record in text.split("$$$$") {
        let rows: Vec<&str> = record.trim_start_matches('\n').lines().collect();
        let Some(at) = rows.iter().position(|r| r.contains("V2000")) else {
            continue;
        };
        let number =
            |row: &str, from: usize| row.get(from..from + 3).and_then(|t| t.trim().parse().ok());
        let (Some(atoms), Some(bonds)): (Option<usize>, Option<usize>) =
            (number(rows[at], 0), number(rows[at], 3))
        else {
            continue;
        };
        let kinds: Vec<&str> = rows[at + 1..at + 1 + atoms]
            .iter()
            .filter_map(|r| r.split_whitespace().nth(3))
            .collect();
        let edges: Vec<[usize; 2]> = rows[at + 1 + atoms..at + 1 + atoms + bonds]
            .iter()
            .filter_map(|r| Some([number(r, 0)? - 1usize, number(r, 3)? - 1]))
            .collect();
        let Some(place) = rows
            .iter()
            .position(|r| r.starts_with('>') && r.contains(property))
        else {
            continue;
        };
        let Ok(value) = rows[place + 1].trim().parse::<f64>() else {
            continue;
        };
        let line = json!({"label": u8::from(value > least), "node_labels": kinds, "edges": edges});
        lines.push_str(&format!("{line}\n"));
    }
    lines
}

#[test]
fn real_ligands_are_told_apart_better_than_by_chance() {
    let Some(folder) = real("molecules") else {
        return;
    };
    let text = std::fs::read_to_string(folder.join("bzr_163.sdf")).unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("bzr.jsonl");
    std::fs::write(&path, molecules(&text, "ACTIVITY", 8.25)).unwrap();
    let source = source(&path.to_string_lossy(), json!({})).unwrap();
    let mut found = BTreeMap::new();
    for name in ["rqgnn", "gin", "wl-logistic", "statistics-boosting"] {
        let options = match name {
            "rqgnn" | "gin" => json!({"epochs": 30, "batch": 16}),
            _ => json!({}),
        };
        let measured = GraphAnomaly
            .measure(&job(&source, name, options).unwrap(), &context())
            .unwrap();
        found.insert(name, measured.metrics["auc"]);
        eprintln!(
            "{name}: AUC {:.3}; {:?}",
            measured.metrics["auc"], measured.notes
        );
    }
    assert!(found.values().any(|auc| *auc > 0.6), "{found:?}");
}

#[test]
fn cells_of_the_output_have_their_types() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("o.parquet");
    let learn = job(
        &easy(),
        "rayleigh-quotient",
        json!({"spectrum": false, "top": 1}),
    )
    .unwrap();
    GraphAnomaly.apply(&learn, &out, &context()).unwrap();
    let table = Table::open(&out, &ReadOptions::default()).unwrap();
    assert_eq!(
        table.columns(),
        [
            "id",
            "score",
            "anomalous",
            "part",
            "label",
            "feature_1",
            "quotient_1",
            "deviations_1"
        ]
    );
    let parts = table.texts(3).unwrap();
    let validation = parts
        .iter()
        .filter(|p| p.as_deref() == Some("validation"))
        .count();
    assert_eq!((parts.len(), validation), (160, 24));
    assert!(table.column(7).unwrap().iter().all(|a| a.null_count() == 0));
}
