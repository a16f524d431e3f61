//! Bad input and faults: each is told in words, with status 2, and leaves no half output.

mod common;

use common::{Bench, names};
use std::process::Command;
use std::sync::Arc;

const GOOD: &str = "x,y,kind\n1,2,a\n2,1,a\n9,8,b\n8,9,b\n";

/// Applies k-means with k = 2 to a file of this content and expects it to be refused.
fn refused(name: &str, content: impl AsRef<[u8]>, told: &[&str]) {
    let bench = Bench::new();
    let file = bench.file(name, content);
    let words = [
        "run", "k-means", "--data", &file, "--set", "k=2", "--out", "out.csv",
    ];
    bench.refused(&words, told);
    assert!(!bench.path("out.csv").exists());
}

#[test]
fn missing_file_and_folder_for_a_file() {
    let bench = Bench::new();
    bench.refused(
        &["run", "k-means", "--data", "no.csv", "--out", "o.csv"],
        &["no.csv", "no such file"],
    );
    let folder = bench.dir.path().display().to_string();
    bench.refused(
        &["run", "k-means", "--data", &folder, "--out", "o.csv"],
        &["is a folder", "CSV"],
    );
    bench.refused(
        &["compare", "clustering", "--data", "irsi"],
        &["did you mean 'iris'"],
    );
}

#[test]
fn empty_and_header_only_files() {
    refused("a.csv", "", &["a.csv", "is empty"]);
    refused("a.csv", "\n \n", &["is empty"]);
    refused("a.csv", "x,y\n", &["header line and no rows"]);
}

#[test]
fn wrong_delimiter_and_ragged_rows() {
    let bench = Bench::new();
    let file = bench.file("a.csv", "x;y\n1;2\n3;4\n");
    let words = [
        "run", "k-means", "--data", &file, "--set", "k=1", "--out", "o.csv",
    ];
    bench.ok(&words);
    let mut with = words.to_vec();
    with.extend(["--delimiter", ","]);
    bench.refused(&with, &["column 'x;y'", "not numbers", "--delimiter"]);
    refused(
        "a.csv",
        "x,y\n1,2\n3\n5,6\n",
        &["a.csv", "line 3", "same number of cells"],
    );
}

#[test]
fn text_that_is_not_utf8() {
    refused("a.csv", b"x,y\n1,2\n3,\xff\xfe\n", &["a.csv", "UTF-8"]);
}

#[test]
fn a_word_among_numbers_names_row_and_column() {
    refused(
        "a.csv",
        "x,y\n1,2\n3,4\n5,oops\n",
        &["column 'y'", "row 3", "oops"],
    );
}

#[test]
fn nan_infinity_and_gaps() {
    refused(
        "a.csv",
        "x,y\n1,2\n3,NaN\n",
        &["column 'y'", "row 2", "NaN"],
    );
    refused(
        "a.csv",
        "x,y\n1,2\ninf,4\n",
        &["column 'x'", "row 2", "infinite"],
    );
    refused("a.csv", "x,y\n1,2\n3,\n", &["column 'y'", "row 2", "empty"]);
}

#[test]
fn duplicate_names_and_unknown_roles() {
    refused("a.csv", "x,x\n1,2\n3,4\n", &["two columns are named 'x'"]);
    let bench = Bench::new();
    let file = bench.file("a.csv", GOOD);
    bench.refused(
        &[
            "compare",
            "clustering",
            "--data",
            &file,
            "--label",
            "knid",
            "--set",
            "k=2",
            "--methods",
            "k-means",
        ],
        &["--label", "did you mean 'kind'"],
    );
    bench.refused(
        &["run", "k-means", "--data", &file, "--out", "o.csv"],
        &["column 'kind'", "--features x,y"],
    );
}

#[test]
fn a_constant_column_is_noted_and_does_no_harm() {
    let bench = Bench::new();
    let file = bench.file("a.csv", "x,c\n1,7\n2,7\n9,7\n");
    let out = bench.ok(&[
        "run", "k-means", "--data", &file, "--set", "k=2", "--out", "o.csv",
    ]);
    assert!(
        out.contains("constant columns") && out.contains('c'),
        "{out}"
    );
}

#[test]
fn impossible_numbers_of_clusters() {
    let bench = Bench::new();
    let file = bench.file("a.csv", "x\n1\n2\n3\n");
    for (k, told) in [
        ("4", "from 1 to 3"),
        ("0", "at least 1"),
        ("-1", "at least 1"),
        ("2.5", "whole number"),
    ] {
        let set = format!("k={k}");
        bench.refused(
            &[
                "run", "k-means", "--data", &file, "--set", &set, "--out", "o.csv",
            ],
            &["option k", told],
        );
    }
}

#[test]
fn one_row_one_class_and_equal_rows_are_answered() {
    let bench = Bench::new();
    let one = bench.file("one.csv", "x,y\n1,2\n");
    bench.ok(&[
        "run",
        "k-means",
        "--data",
        &one,
        "--set",
        "k=1",
        "--out",
        "one.parquet",
    ]);
    let equal = bench.file("equal.csv", format!("x,y,kind\n{}", "1,2,a\n".repeat(20)));
    let board = bench.json(&[
        "compare",
        "clustering",
        "--data",
        &equal,
        "--label",
        "kind",
        "--set",
        "k=2",
        "--seeds",
        "2",
    ]);
    for row in board["rows"].as_array().unwrap() {
        // A method may refuse equal rows, in words; none may crash.
        let why = row["why"].as_str().unwrap_or_default();
        assert!(
            !why.contains("panicked") && !why.contains("signal"),
            "{row}"
        );
    }
}

#[test]
fn broken_parquet_and_a_wrong_checksum() {
    let bench = Bench::new();
    let iris = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../datasets/iris.parquet"
    ))
    .unwrap();
    refused(
        "cut.parquet",
        &iris[..iris.len() / 2],
        &["cut.parquet", "not a whole Parquet file"],
    );
    std::fs::create_dir(bench.path("iris")).unwrap();
    let mut other = iris.clone();
    other[100] ^= 1;
    bench.file("iris/iris.parquet", &other);
    let output = bench
        .command(&["run", "k-means", "--data", "iris", "--out", "o.csv"])
        .env("PAPERTRIAL_DATA", bench.dir.path())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(
        err.contains("is not the data set iris") && err.contains("SHA-256"),
        "{err}"
    );
}

#[test]
fn ten_million_rows_in_one_gibibyte() {
    use arrow::array::{ArrayRef, Int8Array};
    use arrow::record_batch::RecordBatch;
    let bench = Bench::new();
    let path = bench.path("large.parquet");
    let columns: Vec<(String, ArrayRef)> = (0..10u32)
        .map(|c| {
            let values =
                Int8Array::from_iter_values((0..100_000u32).map(|i| (i * (c + 3) % 11) as i8));
            (format!("x{c}"), Arc::new(values) as ArrayRef)
        })
        .collect();
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    for _ in 0..100 {
        writer.write(&batch).unwrap();
    }
    writer.close().unwrap();
    let data = path.display().to_string();
    // The matrix would take 800 MB, and what is computed from it as much again.
    bench.refused(
        &[
            "run", "k-means", "--data", &data, "--memory", "1G", "--out", "o.csv",
        ],
        &["10000000 rows", "1.5 GiB", "1.0 GiB", "mini-batch-k-means"],
    );
    let applied = bench.json(&[
        "run",
        "mini-batch-k-means",
        "--data",
        &data,
        "--set",
        "k=3",
        "--memory",
        "1G",
        "--out",
        "o.parquet",
    ]);
    assert_eq!(applied["summary"]["rows"], "10000000");
    assert!(
        applied["peak_bytes"].as_u64().unwrap() < 1 << 30,
        "{applied}"
    );
}

#[test]
fn unknown_methods_options_and_formats() {
    let bench = Bench::new();
    bench.refused(
        &["run", "kmeans", "--data", "iris", "--out", "o.csv"],
        &["did you mean 'k-means'"],
    );
    bench.refused(
        &["compare", "clustring", "--data", "iris"],
        &["did you mean 'clustering'"],
    );
    bench.refused(
        &[
            "run", "k-means", "--data", "iris", "--set", "strats=3", "--out", "o.csv",
        ],
        &["did you mean 'starts'"],
    );
    bench.refused(
        &[
            "run", "k-means", "--data", "iris", "--set", "starts=0", "--out", "o.csv",
        ],
        &["option starts", "at least 1"],
    );
    bench.refused(
        &["run", "k-means", "--data", "iris", "--out", "o.xlsx"],
        &[".parquet"],
    );
    bench.refused(
        &["show", "nothing-of-the-kind"],
        &["no paper, method or task"],
    );
    bench.refused(&["try", "ila-spd"], &["did you mean 'ila-sdp'"]);
    bench.refused(&["try", "--memory", "lots"], &["500M"]);
}

#[test]
fn errors_are_json_where_json_was_asked() {
    let bench = Bench::new();
    for words in [
        vec![
            "run", "kmeans", "--data", "iris", "--out", "o.csv", "--json",
        ],
        vec!["compare", "--json"],
    ] {
        let ran = bench.run(&words);
        assert_eq!(ran.status, 2, "{ran:?}");
        let error: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
        assert_eq!(error["error"]["kind"], "bad-input");
        assert!(error["error"]["message"].as_str().unwrap().len() > 10);
    }
}

/// A small file system of its own; `None`, told aloud, where mounting is not allowed.
struct Mount(std::path::PathBuf);

impl Mount {
    fn new(bench: &Bench, options: &str) -> Option<Mount> {
        let path = bench.path("mount");
        std::fs::create_dir(&path).unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "papertrial-test"])
            .arg(&path)
            .output()
            .is_ok_and(|o| o.status.success());
        if !done {
            eprintln!("SKIPPED: a tmpfs cannot be mounted here (needs root)");
        }
        done.then_some(Mount(path))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_no_half_output() {
    let bench = Bench::new();
    let Some(mount) = Mount::new(&bench, "size=64k") else {
        return;
    };
    let rows: String = (0..50_000).map(|i| format!("{i},{}\n", i % 7)).collect();
    let file = bench.file("a.csv", format!("x,y\n{rows}"));
    let out = mount.0.join("o.csv").display().to_string();
    bench.refused(
        &[
            "run", "k-means", "--data", &file, "--set", "k=2", "--out", &out,
        ],
        &["o.csv", "cannot be written"],
    );
    assert_eq!(names(&mount.0), Vec::<String>::new());
}

#[test]
fn a_read_only_folder_is_told_before_the_work() {
    let bench = Bench::new();
    let Some(mount) = Mount::new(&bench, "size=64k,ro") else {
        return;
    };
    let out = mount.0.join("o.csv").display().to_string();
    bench.refused(
        &["run", "k-means", "--data", "iris", "--out", &out],
        &["o.csv", "cannot be written"],
    );
}

#[test]
fn ctrl_c_keeps_the_journal_and_ends_with_130() {
    let bench = Bench::new();
    let rows: String = (0..60_000)
        .map(|i| format!("{},{},{}\n", i % 89, i % 97, i % 101))
        .collect();
    let file = bench.file("a.csv", format!("x,y,z\n{rows}"));
    let words = [
        "compare",
        "clustering",
        "--data",
        &file,
        "--methods",
        "k-means",
        "--seeds",
        "200",
        "--set",
        "k=50",
        "--set",
        "starts=5",
    ];
    let child = bench
        .command(&words)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let jobs = || {
        bench
            .json(&["history", "--jobs", "500"])
            .as_array()
            .unwrap()
            .len()
    };
    for _ in 0..600 {
        if jobs() >= 1 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(err.contains("interrupted"), "{err}");
    let kept = jobs();
    assert!((1..200).contains(&kept), "{kept}");
}
