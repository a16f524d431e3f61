//! Makes the catalogue and the small data sets part of the program: a file put into those folders is enough.

use std::fmt::Write;
use std::path::{Path, PathBuf};

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets OUT_DIR"));

    let mut papers = String::from("static ENTRIES: &[(&str, &str)] = &[\n");
    for path in files(&root.join("catalog"), "toml") {
        let name = path.file_name().expect("a file has a name");
        let _ = writeln!(papers, "({name:?}, include_str!({path:?})),");
    }
    papers.push_str("];\n");
    std::fs::write(out.join("catalogue.rs"), papers).expect("OUT_DIR can be written");

    let folder = root.join("datasets");
    let mut sets = format!(
        "static INDEX: &str = include_str!({:?});\nstatic FILES: &[(&str, &[u8])] = &[\n",
        folder.join("index.toml")
    );
    for path in files(&folder, "parquet") {
        let name = path.file_name().expect("a file has a name");
        let _ = writeln!(sets, "({name:?}, include_bytes!({path:?})),");
    }
    sets.push_str("];\n");
    std::fs::write(out.join("datasets.rs"), sets).expect("OUT_DIR can be written");
}

/// Files of a folder with this ending, sorted; cargo looks at the folder again when it changes.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|e| e.path()).collect())
        .unwrap_or_default();
    files.retain(|p| p.extension().is_some_and(|e| e == ending));
    files.sort();
    files
}
