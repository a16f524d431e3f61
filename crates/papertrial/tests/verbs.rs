//! The verbs, their JSON, and the README's table.

mod common;

use common::Bench;
use serde_json::Value;

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn papers_lists_searches_and_filters() {
    let bench = Bench::new();
    assert!(bench.ok(&["papers"]).contains("90 papers"));
    let all = bench.json(&["papers"]);
    assert_eq!(all.as_array().unwrap().len(), 90);
    assert_eq!(all[0]["slug"], "flowtransformer");
    let found = bench.json(&["papers", "semidefinite", "clustring"]);
    assert_eq!(found[0]["slug"], "ila-sdp");
    let built = bench.json(&["papers", "--status", "built"]);
    let built = built.as_array().unwrap();
    assert!(
        built.iter().all(|p| p["status"]["built"] == true),
        "{built:?}"
    );
    for slug in ["ila-sdp", "ppp", "online-al"] {
        assert!(
            built.iter().any(|p| p["slug"] == slug),
            "{slug} is not built"
        );
    }
    let cluster = bench.json(&["papers", "--task", "clustering"]);
    assert_eq!(cluster.as_array().unwrap().len(), 2);
    bench.refused(
        &["papers", "--task", "clusterin"],
        &["did you mean 'clustering'"],
    );
    // Listing papers makes no journal.
    assert!(!bench.path("home").exists());
}

#[test]
fn a_catalogue_of_ones_own_is_read_and_its_mistakes_are_placed() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("mine")).unwrap();
    let entry = "number = 91\nslug = \"mine\"\ntitle = \"My own\"\nauthors = []\nyear = 2026\nfamily = \"cluster\"\ntasks = []\nmethods = []\nsummary = \"Mine.\"\n";
    bench.file("mine/mine.toml", entry);
    assert!(
        bench
            .ok(&["papers", "--catalog", "mine"])
            .contains("91 papers")
    );
    bench.file(
        "mine/mine.toml",
        entry.replace("year = 2026", "year = \"soon\""),
    );
    bench.refused(&["papers", "--catalog", "mine"], &["mine.toml:5", "soon"]);
}

#[test]
fn show_tells_options_with_defaults_and_claims() {
    let bench = Bench::new();
    let paper = bench.ok(&["show", "ila-sdp"]);
    for part in [
        "Likelihood Adjusted",
        "iris-error",
        "reads", /* none: */
    ]
    .iter()
    .take(2)
    {
        assert!(paper.contains(part), "{part}: {paper}");
    }
    let method = bench.json(&["show", "k-means"]);
    let options = &method["methods"][0]["options"];
    assert_eq!(options[0]["name"], "k");
    assert_eq!(options[0]["default"], 8);
    let task = bench.json(&["show", "clustering"]);
    assert_eq!(task["task"]["metrics"][0]["name"], "ari");
    assert!(bench.ok(&["show"]).contains("clustering"));
}

#[test]
fn try_json_has_the_documented_shape_and_reuses_jobs() {
    let bench = Bench::new();
    let words = ["try", "ppp", "--quick", "--seeds", "2"];
    let results = bench.json(&words);
    let result = &results[0];
    assert_eq!(
        keys(result),
        [
            "paper",
            "claim",
            "verdict",
            "why",
            "dataset",
            "metric",
            "margin",
            "method",
            "against",
            "difference",
            "seeds",
            "jobs",
            "seconds"
        ]
    );
    assert_eq!(keys(&result["method"]), ["name", "mean", "low", "high"]);
    assert_eq!(keys(&result["against"][0]), ["name", "mean", "low", "high"]);
    assert_eq!(keys(&result["difference"]), ["mean", "low", "high"]);
    assert_eq!(keys(&result["jobs"]), ["done", "failed", "reused"]);
    assert!(result["jobs"]["done"].as_u64().unwrap() > 0);
    assert_eq!(result["jobs"]["failed"], 0);
    let again = bench.json(&words);
    assert_eq!(again[0]["jobs"]["done"], 0);
    assert_eq!(again[0]["verdict"], result["verdict"]);
    assert!(bench.path("home/reports/try.html").exists());
    // A paper that is not built is listed as such, and is no failure.
    let other = bench.json(&["try", "torchdistill"]);
    assert_eq!(other[0]["verdict"], "not-tried");
    assert_eq!(other[0]["why"], "method not built yet");
    assert_eq!(other[0]["method"]["mean"], Value::Null);
    let history = bench.json(&["history"]);
    assert_eq!(history[0]["paper"], "ppp");
}

#[test]
fn strict_makes_a_failed_claim_an_error() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("mine")).unwrap();
    let entry = "number = 91\nslug = \"mine\"\ntitle = \"T\"\nauthors = []\nyear = 2026\nfamily = \"cluster\"\ntasks = [\"clustering\"]\nmethods = [\"k-means\"]\nsummary = \"S.\"\n[[claims]]\nid = \"beats-itself\"\nsays = \"k-means beats itself.\"\ntask = \"clustering\"\ndata = \"iris\"\noptions = { k = 3 }\nmetric = \"ari\"\nmethod = { name = \"k-means\" }\nagainst = [{ name = \"k-means\" }]\ndirection = \"higher\"\nseeds = 2\n";
    bench.file("mine/mine.toml", entry);
    let words = ["try", "mine", "--catalog", "mine"];
    assert!(bench.ok(&words).contains("fails"));
    assert_eq!(
        bench
            .run(&["try", "mine", "--catalog", "mine", "--strict"])
            .status,
        1
    );
}

#[test]
fn a_grid_compares_every_combination_and_marks_the_front() {
    let bench = Bench::new();
    let words = ["compare", "clustering", "--data", "iris", "--seeds", "1"];
    let grid = ["--methods", "k-means,ward", "--grid", "k=2/3,init"];
    let board = bench.json(&[&words[..], &grid[..]].concat());
    let rows = board["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|r| r["method"].as_str().unwrap()).collect();
    // Ward takes k but knows no init.
    assert_eq!(names.iter().filter(|n| n.starts_with("ward ")).count(), 2);
    assert!(names.contains(&"k-means k=3 init=random"), "{names:?}");
    assert!(rows.iter().any(|r| r["front"] == true));
    for (axis, told) in [("k", "k=A/B/C"), ("hue", "hue"), ("k=x", "whole number")] {
        let grid = ["--methods", "k-means", "--grid", axis];
        bench.refused(&[&words[..], &grid[..]].concat(), &[told]);
    }
}

#[test]
fn compare_json_has_the_documented_shape() {
    let bench = Bench::new();
    let file = bench.file("a.csv", "x,y,kind\n1,2,a\n2,1,a\n9,8,b\n8,9,b\n");
    let board = bench.json(&[
        "compare",
        "clustering",
        "--data",
        &file,
        "--label",
        "kind",
        "--methods",
        "k-means,ward",
        "--set",
        "k=2",
        "--seeds",
        "2",
        "--report",
        "r.html",
    ]);
    assert_eq!(keys(&board), ["task", "dataset", "rows"]);
    assert_eq!(
        keys(&board["dataset"]),
        ["path", "rows", "columns", "checksum"]
    );
    assert_eq!(board["dataset"]["rows"], 4);
    let row = &board["rows"][0];
    assert_eq!(
        keys(row),
        [
            "method",
            "metrics",
            "seconds",
            "cpu_seconds",
            "peak_bytes",
            "failed",
            "why",
            "best",
            "front"
        ]
    );
    assert_eq!(keys(&row["metrics"]["ari"]), ["mean", "low", "high"]);
    assert_eq!(row["metrics"]["ari"]["mean"], 1.0);
    assert_eq!(row["best"], true);
    let report = std::fs::read_to_string(bench.path("r.html")).unwrap();
    assert!(report.contains("k-means") && report.contains("<svg"));
    // Without labels the silhouette decides.
    let blind = bench.ok(&[
        "compare",
        "clustering",
        "--data",
        &file,
        "--features",
        "x,y",
        "--methods",
        "k-means",
        "--set",
        "k=2",
    ]);
    assert!(blind.contains("best mean silhouette"), "{blind}");
}

#[test]
fn run_keeps_identifiers_and_its_model_labels_new_rows() {
    let bench = Bench::new();
    let file = bench.file("a.csv", "name,x,y\np,1,2\nq,2,1\nr,9,8\ns,8,9\n");
    bench.ok(&[
        "run", "k-means", "--data", &file, "--id", "name", "--set", "k=2", "--out", "o.csv",
    ]);
    let out = std::fs::read_to_string(bench.path("o.csv")).unwrap();
    let rows: Vec<Vec<&str>> = out.lines().map(|l| l.split(',').collect()).collect();
    assert_eq!(rows[0], ["name", "label"]);
    assert_eq!([rows[1][0], rows[4][0]], ["p", "s"]);
    assert!(
        rows[1][1] == rows[2][1] && rows[3][1] == rows[4][1] && rows[1][1] != rows[3][1],
        "{out}"
    );
    let new = bench.file("new.csv", "name,x,y\nt,1,1\nu,9,9\n");
    bench.ok(&[
        "run",
        "k-means",
        "--data",
        &new,
        "--id",
        "name",
        "--model",
        "o.model.json",
        "--out",
        "n.csv",
    ]);
    let labels = std::fs::read_to_string(bench.path("n.csv")).unwrap();
    assert_eq!(
        labels,
        format!("name,label\nt,{}\nu,{}\n", rows[1][1], rows[3][1])
    );
    let odd = bench.file("odd.csv", "a,b\n1,1\n");
    bench.refused(
        &[
            "run",
            "k-means",
            "--data",
            &odd,
            "--model",
            "o.model.json",
            "--out",
            "n.csv",
        ],
        &["feature columns a, b", "fitted on x, y"],
    );
}

#[test]
fn every_format_gives_the_same_groups() {
    let bench = Bench::new();
    let csv = bench.file("a.csv", "x,y\n1,2\n2,1\n9,8\n8,9\n");
    let mut seen = Vec::new();
    for ending in ["parquet", "arrow", "jsonl"] {
        // A table of labels is a table too: written in one format, read as the next one's input.
        let copy = format!("copy.{ending}");
        bench.ok(&[
            "run",
            "k-means",
            "--data",
            &csv,
            "--id",
            "x",
            "--features",
            "y",
            "--set",
            "k=2",
            "--out",
            &copy,
        ]);
        seen.push(bench.ok(&[
            "run",
            "k-means",
            "--data",
            &copy,
            "--features",
            "x",
            "--set",
            "k=2",
            "--out",
            "o.csv",
        ]));
    }
    assert!(seen.windows(2).all(|p| p[0] == p[1]), "{seen:?}");
}

#[test]
fn data_verbs() {
    let bench = Bench::new();
    let list = bench.json(&["data", "list"]);
    let names: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|s| s["name"].as_str())
        .collect();
    for name in [
        "digits",
        "iris",
        "wine",
        "breast-cancer",
        "gaussian-blobs",
        "thin-clusters",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    assert!(
        bench
            .ok(&["data", "verify"])
            .contains("iris: part of the program")
    );
    bench.refused(
        &["data", "path", "adult"],
        &["not at hand", "papertrial data get adult"],
    );
    bench.refused(&["data", "get", "htru2"], &["PAPERTRIAL_DATA"]);
    bench.refused(&["data", "verify", "irsi"], &["did you mean 'iris'"]);
}

#[test]
fn one_file_holds_an_experiment() {
    let bench = Bench::new();
    let file = bench.file(
        "e.toml",
        "command = \"compare\"\ntask = \"clustering\"\ndata = \"iris\"\nmethods = [\"k-means\"]\nseeds = 2\nset = { k = 3 }\n",
    );
    let board = bench.json(&["--config", &file]);
    assert_eq!(board["rows"].as_array().unwrap().len(), 1);
    let more = bench.json(&["--config", &file, "--methods", "k-means,ward"]);
    assert_eq!(more["rows"].as_array().unwrap().len(), 2);
}

#[test]
fn help_has_examples_and_completions_are_written() {
    let bench = Bench::new();
    for verb in [
        "papers",
        "show",
        "try",
        "compare",
        "run",
        "history",
        "completions",
    ] {
        let help = bench.ok(&[verb, "--help"]);
        assert!(help.contains("Example"), "{verb}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            bench.ok(&["completions", shell]).contains("papertrial"),
            "{shell}"
        );
    }
    let plain = bench.ok(&["try", "ppp", "--quick", "--seeds", "2"]);
    assert!(!plain.contains('\u{1b}'), "colours without a terminal");
}

#[test]
fn every_claim_whose_methods_are_built_can_be_planned() {
    let bench = Bench::new();
    let results = bench.json(&["try", "--all", "--quick", "--seeds", "2"]);
    for result in results.as_array().unwrap() {
        let why = result["why"].as_str().unwrap();
        assert!(
            result["verdict"] != "not-tried" || why.contains("not built yet"),
            "{}/{}: {why}",
            result["paper"],
            result["claim"]
        );
    }
}

#[test]
fn the_readme_holds_the_current_status_table() {
    let bench = Bench::new();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let readme = std::fs::read_to_string(format!("{root}/README.md")).unwrap();
    let verdicts = format!("{root}/docs/verdicts.json");
    let table = bench.ok(&["papers", "--markdown", "--verdicts", &verdicts]);
    assert!(
        readme.contains(table.trim()),
        "the status table of README.md is stale; CONTRIBUTING.md says how to renew it"
    );
}
