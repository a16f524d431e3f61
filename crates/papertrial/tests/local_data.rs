//! Wider tests on data sets that are not part of the program: they run where `PAPERTRIAL_DATA` names a folder with
//! copies, and say so where it does not.

mod common;

use common::Bench;

fn local() -> Option<String> {
    let folder = std::env::var("PAPERTRIAL_DATA").ok();
    if folder.is_none() {
        eprintln!("SKIPPED: PAPERTRIAL_DATA names no folder with copies of the data sets");
    }
    folder
}

fn json(bench: &Bench, folder: &str, words: &[&str]) -> serde_json::Value {
    let output = bench
        .command(words)
        .arg("--json")
        .env("PAPERTRIAL_DATA", folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn local_copies_have_their_checksums() {
    let Some(folder) = local() else { return };
    let bench = Bench::new();
    let sets = json(&bench, &folder, &["data", "list"]);
    let found: Vec<&str> = sets
        .as_array()
        .unwrap()
        .iter()
        .filter(|s| s["place"] == "local")
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    assert!(!found.is_empty(), "{folder} holds none of the data sets");
    for name in found {
        assert_eq!(
            json(&bench, &folder, &["data", "verify", name])["place"],
            "local"
        );
    }
}

#[test]
fn pulsars_are_clustered_from_a_file_without_header() {
    let Some(folder) = local() else { return };
    let bench = Bench::new();
    let words = [
        "compare",
        "clustering",
        "--data",
        "htru2",
        "--methods",
        "k-means,gaussian-mixture",
        "--set",
        "k=2",
    ];
    let board = json(&bench, &folder, &words);
    assert_eq!(board["dataset"]["rows"], 17_898);
    for row in board["rows"].as_array().unwrap() {
        assert_eq!(row["failed"], 0, "{row}");
    }
}
