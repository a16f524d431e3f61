//! The task from files to files.

use super::*;
use arrow::array::AsArray;
use arrow::datatypes::Float32Type;
use papertrial_core::data::{ReadOptions, Roles, Table};
use papertrial_core::plan;
use papertrial_core::task::Family;
use papertrial_numerics::sampling::rng;
use rand::RngExt;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;

static FAMILY: Family = Family {
    name: "detect",
    tasks: &[&FlowIntrusion],
    simulations: &[],
    version: "1",
};

/// Flows with the columns of NetFlow version 1: in attacks, which come in runs, one port and small flows.
fn flows(rows: usize, seed: u64) -> String {
    let mut draws = rng(seed, "flows of a test");
    let mut text = String::from(
        "L4_DST_PORT,L4_SRC_PORT,PROTOCOL,L7_PROTO,TCP_FLAGS,IN_BYTES,OUT_BYTES,IN_PKTS,OUT_PKTS,FLOW_DURATION_MILLISECONDS,Attack,host\n",
    );
    for i in 0..rows {
        let attack = i / 20 % 3 == 2;
        let port = if attack {
            22
        } else {
            [80, 443, 53][draws.random_range(0..3)]
        };
        let bytes = if attack {
            draws.random_range(40..90)
        } else {
            draws.random_range(60..90_000)
        };
        writeln!(
            text,
            "{port},{},6,7.0,{},{bytes},{},3,{},{},{},h{i}",
            draws.random_range(1024..65535),
            if attack { 2 } else { 27 },
            bytes / 2,
            draws.random_range(1..9),
            draws.random_range(1..4000),
            if attack { "scan" } else { "Benign" }
        )
        .unwrap();
    }
    text
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }
}

fn job(data: &Path, options: Value, others: &[(&str, &Path)]) -> Result<Job> {
    let mut shared = json!({
        "width": 8, "inner": 8, "epochs": 3, "steps": 25, "batch": 16, "learning-rate": 0.01, "window": 4,
    });
    for (name, value) in options.as_object().unwrap() {
        shared[name.as_str()] = value.clone();
    }
    let read = ReadOptions::default();
    let roles = Roles {
        id: Some("host".into()),
        ..Roles::default()
    };
    let name = data.to_str().unwrap();
    let mut source = plan::source(name, &Default::default(), roles, &read, &FAMILY)?;
    for (name, path) in others {
        source = source.with(name, path, &read, &FlowIntrusion)?;
    }
    let method = plan::method(&FlowIntrusion, "flowtransformer")?;
    let shared = shared.as_object().unwrap();
    plan::job(
        &FlowIntrusion,
        &method,
        shared,
        &Default::default(),
        &source,
        3,
    )
}

fn probabilities(path: &Path) -> Vec<Option<f32>> {
    let table = Table::open(path, &ReadOptions::default()).unwrap();
    let at = table.column_for("x", "probability").unwrap();
    let columns = table.column(at).unwrap();
    columns
        .iter()
        .flat_map(|c| c.as_primitive::<Float32Type>().iter().collect::<Vec<_>>())
        .collect()
}

#[test]
fn a_fit_scores_its_flows_and_its_model_scores_them_alike() {
    let folder = Folder::new();
    let data = folder.write("flows.csv", &flows(600, 1));
    let context = Context::with_seed(3);
    let out = folder.path("scores.parquet");
    let done = FlowIntrusion
        .apply(&job(&data, json!({}), &[]).unwrap(), &out, &context)
        .unwrap();
    assert_eq!(done.files, [out.clone(), folder.path("scores.model")]);
    assert!(
        done.notes.iter().any(|n| n.contains("first 3 flows")),
        "{:?}",
        done.notes
    );
    let first = probabilities(&out);
    assert_eq!(first.len(), 600);
    assert!(first[..3].iter().all(Option::is_none) && first[3..].iter().all(Option::is_some));
    let table = Table::open(&out, &ReadOptions::default()).unwrap();
    assert_eq!(
        table.columns(),
        ["host", "row", "probability", "alert", "class", "held_out"]
    );
    let value = |name: &str| -> f64 {
        done.summary
            .iter()
            .find(|(n, _)| n == name)
            .unwrap()
            .1
            .parse()
            .unwrap()
    };
    assert!(value("balanced-accuracy") > 0.9, "{:?}", done.summary);

    let model = folder.path("scores.model");
    let again = folder.path("again.parquet");
    let scoring = job(&data, json!({}), &[("model", &model)]).unwrap();
    FlowIntrusion.apply(&scoring, &again, &context).unwrap();
    assert_eq!(first, probabilities(&again));
    assert!(!folder.path("again.model").exists());

    // Columns in another order, no class: the same scores, and only alerts if so asked.
    let text = flows(600, 1);
    let turned: String = text.lines().fold(String::new(), |mut to, line| {
        let mut cells: Vec<&str> = line.split(',').collect();
        cells.remove(10);
        cells.reverse();
        to.push_str(&cells.join(","));
        to.push('\n');
        to
    });
    let data = folder.write("turned.csv", &turned);
    let scoring = job(&data, json!({"alerts-only": true}), &[("model", &model)]).unwrap();
    let alerts = folder.path("alerts.parquet");
    let done = FlowIntrusion.apply(&scoring, &alerts, &context).unwrap();
    let want: Vec<Option<f32>> = first
        .into_iter()
        .filter(|p| p.is_some_and(|p| p > 0.5))
        .collect();
    assert_eq!(probabilities(&alerts), want);
    assert!(
        done.summary
            .contains(&("alerts".into(), want.len().to_string()))
    );
}

#[test]
fn batches_of_any_size_give_the_scores_of_the_whole() {
    let folder = Folder::new();
    let data = folder.write("flows.csv", &flows(300, 1));
    let context = Context::with_seed(3);
    let out = folder.path("scores.csv");
    FlowIntrusion
        .apply(&job(&data, json!({}), &[]).unwrap(), &out, &context)
        .unwrap();
    let (known, detector) = load(&folder.path("scores.model"), &context).unwrap();
    let table = Table::open(&data, &ReadOptions::default()).unwrap();
    let batch = table.batches().unwrap().next().unwrap().unwrap();
    let columns = Source::columns(&table);
    let scores = |sizes: &[usize]| -> Vec<Option<f32>> {
        let mut scorer = Scorer::new(&known, &*detector, "flows", &columns, None).unwrap();
        let mut all = Vec::new();
        let mut sizes = sizes.iter().cycle();
        while all.len() < 300 {
            let n = (*sizes.next().unwrap()).min(300 - all.len());
            all.extend(
                scorer
                    .push(&batch.slice(all.len(), n), &context)
                    .unwrap()
                    .probabilities,
            );
        }
        all
    };
    let whole = scores(&[300]);
    for sizes in [&[1][..], &[2, 5, 0, 31]] {
        for (a, b) in whole.iter().zip(scores(sizes)) {
            assert_eq!(a.is_some(), b.is_some());
            assert!((a.unwrap_or(0.0) - b.unwrap_or(0.0)).abs() < 1e-5);
        }
    }
}

#[test]
fn models_of_other_schemas_and_broken_folders_are_refused() {
    let folder = Folder::new();
    let data = folder.write("flows.csv", &flows(300, 1));
    let context = Context::with_seed(3);
    let out = folder.path("scores.csv");
    FlowIntrusion
        .apply(
            &job(&data, json!({"epochs": 1}), &[]).unwrap(),
            &out,
            &context,
        )
        .unwrap();
    let model = folder.path("scores.model");
    let fails = |data: &Path, options: Value, model: &Path| {
        let job = job(data, options, &[("model", model)]).unwrap();
        let text = FlowIntrusion
            .apply(&job, &folder.path("x.csv"), &context)
            .unwrap_err()
            .to_string();
        assert!(!folder.path("x.csv").exists());
        text
    };
    let text = fails(&data, json!({"schema": "nsl-kdd"}), &model);
    assert!(
        text.contains("schema netflow-v1, not with nsl-kdd") && text.contains("41 columns"),
        "{text}"
    );
    let other = folder.write("other.csv", "PROTOCOL,IN_BYTES,host\n6,1,a\n");
    let text = fails(&other, json!({}), &model);
    assert!(
        text.contains("8 of the 10") && text.contains("OUT_BYTES") && text.contains("TCP_FLAGS"),
        "{text}"
    );
    let text = fails(&data, json!({}), folder.0.path());
    assert!(text.contains("no model.json"), "{text}");
    let facts = model.join("model.json");
    let good = std::fs::read_to_string(&facts).unwrap();
    std::fs::write(
        &facts,
        good.replace("\"scan\"", "\"x\"")
            .replace("\"window\": 4", "\"window\": 5"),
    )
    .unwrap();
    assert!(fails(&data, json!({}), &model).contains("do not belong together"));
    std::fs::write(&facts, &good[..good.len() / 2]).unwrap();
    assert!(fails(&data, json!({}), &model).contains("not a model's description"));

    // What is not a model is not replaced.
    std::fs::create_dir(folder.path("mine.model")).unwrap();
    folder.write("mine.model/notes.txt", "x");
    let e = FlowIntrusion.apply(
        &job(&data, json!({}), &[]).unwrap(),
        &folder.path("mine.csv"),
        &context,
    );
    assert!(e.unwrap_err().to_string().contains("is no model"));
}

#[test]
fn measurements_have_all_metrics_and_depend_on_the_seed_alone() {
    let folder = Folder::new();
    let data = folder.write("flows.csv", &flows(600, 1));
    let context = Context::with_seed(3);
    let asked = json!({"split": "random", "eval-fraction": 0.1});
    let run = || {
        FlowIntrusion
            .measure(&job(&data, asked.clone(), &[]).unwrap(), &context)
            .unwrap()
    };
    let first = run();
    for metric in FlowIntrusion.metrics() {
        assert!(first.metrics.contains_key(metric.name), "{}", metric.name);
    }
    assert!(first.metrics["balanced-accuracy"] > 0.9);
    // Runs of 20: neighbours agree.
    assert!(first.metrics["label-correlation"] > 0.8);
    assert!(
        first
            .notes
            .iter()
            .any(|n| n.contains("lie among training flows"))
    );
    let one_thread = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    let second = one_thread.install(run);
    for (name, value) in &first.metrics {
        if !name.contains("seconds") {
            assert_eq!(second.metrics[name], *value, "{name}");
        }
    }
    // Other flows to be measured on.
    let other = folder.write("other.csv", &flows(200, 9));
    let job = job(&data, json!({}), &[("test", &other)]).unwrap();
    let transfer = FlowIntrusion.measure(&job, &context).unwrap();
    assert!(transfer.metrics["balanced-accuracy"] > 0.9);
    assert!(
        transfer
            .notes
            .iter()
            .any(|n| n.starts_with("measured on 197 flows"))
    );
}

#[test]
fn files_that_cannot_teach_are_told_apart() {
    let folder = Folder::new();
    let text = flows(200, 1);
    let context = Context::with_seed(3);
    let fails = |text: &str, options: Value| {
        let data = folder.write("bad.csv", text);
        let done = job(&data, options, &[]).and_then(|job| FlowIntrusion.measure(&job, &context));
        done.unwrap_err().to_string()
    };
    assert!(fails(&text.replace("scan", "Benign"), json!({})).contains("are benign"));
    assert!(fails(&text.replace("Benign", "fine"), json!({})).contains("fine, scan"));
    assert!(fails(&text.replace("Attack", "kind"), json!({})).contains("--label"));
    assert!(fails(&text, json!({"schema": "unified-flow"})).contains("27 of the 37"));
    assert!(fails(&text, json!({"batch": 500})).contains("attacks and 250 benign"));
    assert!(fails(&text, json!({"drop": ["IN_BYTE"]})).contains("IN_BYTES"));
    assert!(fails(&text, json!({"eval-fraction": 1.0})).contains("eval-fraction"));
    assert!(fails(&text, json!({"split": "column"})).contains("no test column"));
    assert!(fails(&text, json!({"window": 100})).contains("too few"));
    assert!(fails("IN_BYTES,OUT_BYTES\n1,2\n", json!({})).contains("fit none of"));
    let told = fails(
        &format!("{text}80,1,6,7,2,many,1,1,1,1,Benign,hx\n"),
        json!({}),
    );
    assert!(
        told.contains("IN_BYTES") && told.contains("row 201: 'many'"),
        "{told}"
    );
}
