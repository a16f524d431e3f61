//! The catalogue: papers and their claims, from one TOML file each (`catalog/README.md` has the fields).

use crate::error::{Error, Result};
use crate::options::Settings;
use serde::{Deserialize, Serialize};
use std::path::Path;

include!(concat!(env!("OUT_DIR"), "/catalogue.rs"));

/// An entry of the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paper {
    /// Number in the catalogue.
    pub number: u32,
    /// Short name that users type.
    pub slug: String,
    /// Full title.
    pub title: String,
    /// Authors, where they are certain.
    pub authors: Vec<String>,
    /// Year of publication.
    pub year: u16,
    /// Conference or journal.
    pub venue: Option<String>,
    /// arXiv identifier.
    pub arxiv: Option<String>,
    /// Address of the paper.
    pub link: Option<String>,
    /// Family of tasks.
    pub family: String,
    /// Tasks that its methods do.
    pub tasks: Vec<String>,
    /// Methods that come from it.
    pub methods: Vec<String>,
    /// What it does, in one or two sentences.
    pub summary: String,
    /// Reference implementation.
    pub code: Option<Code>,
    /// What it reports.
    #[serde(default)]
    pub published: Vec<Published>,
    /// What is tried here.
    #[serde(default)]
    pub claims: Vec<Claim>,
}

/// A reference implementation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// Address of the repository.
    pub repository: String,
    /// Its licence.
    pub licence: Option<String>,
}

/// A figure or statement of a paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// The statement.
    pub says: String,
    /// On which data.
    pub data: Option<String>,
    /// In which metric.
    pub metric: Option<String>,
    /// The figure as published.
    pub value: Option<String>,
    /// Whether it was checked against the paper.
    #[serde(default = "yes")]
    pub verified: bool,
}

/// A checkable statement of a paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Unique within the paper.
    pub id: String,
    /// The statement.
    pub says: String,
    /// Task.
    pub task: String,
    /// Data set or simulation.
    pub data: String,
    /// Options of a simulation.
    #[serde(default)]
    pub data_options: Settings,
    /// Options of the task and of every method that has them.
    #[serde(default)]
    pub options: Settings,
    /// Metric that is compared.
    pub metric: String,
    /// The paper's method.
    pub method: Contender,
    /// Its rivals; none if there is a target.
    #[serde(default)]
    pub against: Vec<Contender>,
    /// A number to reach in place of rivals.
    pub target: Option<f64>,
    /// Which of several rivals must be beaten.
    #[serde(default)]
    pub must_beat: MustBeat,
    /// Which way is better.
    pub direction: Direction,
    /// By how much at least; for `equal`, how far apart at most; negative: how much worse it may be.
    #[serde(default)]
    pub margin: f64,
    /// The rival's value is multiplied by this first.
    #[serde(default = "one")]
    pub factor: f64,
    /// Number of seeds.
    pub seeds: u64,
    /// Whether it belongs to the quick trials.
    #[serde(default)]
    pub quick: bool,
    /// Our account of it.
    pub note: Option<String>,
}

/// A method with its options in a claim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contender {
    /// Method.
    pub name: String,
    /// Its options, over those of the claim.
    #[serde(default)]
    pub options: Settings,
    /// Tells two uses of one method apart.
    pub label: Option<String>,
}

impl Contender {
    /// Name for people.
    pub fn shown(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.name)
    }
}

/// Which of several rivals must be beaten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MustBeat {
    /// Each of them.
    #[default]
    All,
    /// The one with the best mean.
    Best,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Within the margin of each other.
    Equal,
}

fn yes() -> bool {
    true
}

fn one() -> f64 {
    1.0
}

/// All papers, in the order of their numbers.
#[derive(Debug, Clone)]
pub struct Catalogue {
    /// The papers.
    pub papers: Vec<Paper>,
}

impl Catalogue {
    /// The catalogue that is part of the program, and the entries of the user's folder over it.
    ///
    /// # Errors
    /// An entry is malformed: file, line and field are named.
    pub fn load(folder: Option<&Path>) -> Result<Catalogue> {
        let mut papers = Vec::new();
        for (name, text) in ENTRIES {
            papers.push(parse(&Path::new("catalog").join(name), text)?);
        }
        if let Some(folder) = folder {
            for path in entries(folder)? {
                let text = std::fs::read_to_string(&path).map_err(|e| Error::file(&path, e))?;
                let paper = parse(&path, &text)?;
                papers.retain(|p| p.slug != paper.slug);
                papers.push(paper);
            }
        }
        papers.sort_by(|a, b| (a.number, &a.slug).cmp(&(b.number, &b.slug)));
        Ok(Catalogue { papers })
    }

    /// The paper with this slug or number.
    ///
    /// # Errors
    /// [`Error::Unknown`] with the nearest slug.
    pub fn paper(&self, name: &str) -> Result<&Paper> {
        let number: Option<u32> = name.parse().ok();
        self.papers
            .iter()
            .find(|p| p.slug == name || Some(p.number) == number)
            .ok_or_else(|| {
                Error::unknown(
                    "paper",
                    name,
                    self.papers.iter().map(|p| p.slug.as_str()),
                    "'papertrial papers' lists them",
                )
            })
    }
}

fn entries(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .map_err(|e| Error::file(folder, crate::data::reason(&e)))?
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .collect();
    paths.sort();
    Ok(paths)
}

/// Reads one entry.
///
/// # Errors
/// [`Error::Line`] with the line and the field.
pub fn parse(path: &Path, text: &str) -> Result<Paper> {
    let paper: Paper = toml::from_str(text).map_err(|e| {
        let at = e.span().map_or(0, |s| s.start);
        // An error without a place, or about the whole entry, is told at its first line.
        let line = text[..at.min(text.len())].matches('\n').count() + 1;
        Error::Line {
            path: path.into(),
            line,
            problem: e.message().replace('\n', " "),
        }
    })?;
    check(&paper).map_err(|(field, problem)| Error::Line {
        path: path.into(),
        line: line_of(text, field),
        problem,
    })?;
    Ok(paper)
}

/// First line on which the words of `field` stand.
fn line_of(text: &str, field: &str) -> usize {
    text.lines()
        .position(|l| l.contains(field))
        .map_or(1, |i| i + 1)
}

/// What the types cannot say: returns the text to look for and the problem.
fn check(paper: &Paper) -> std::result::Result<(), (&str, String)> {
    let word = |w: &str| {
        !w.is_empty()
            && w.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    if !word(&paper.slug) {
        return Err((
            "slug",
            format!(
                "field slug: '{}' should be small letters, digits and hyphens",
                paper.slug
            ),
        ));
    }
    for (i, claim) in paper.claims.iter().enumerate() {
        let wrong = |field: &str, problem: &str| {
            Err((
                claim.id.as_str(),
                format!("claim {}: field {field}: {problem}", claim.id),
            ))
        };
        if paper.claims[..i].iter().any(|c| c.id == claim.id) {
            return wrong("id", "another claim has it already");
        }
        if claim.against.is_empty() == claim.target.is_none() {
            return wrong("against", "a claim has either rivals or a target");
        }
        if claim.seeds < 2 {
            return wrong("seeds", "at least 2 are needed for an interval");
        }
        if !claim.margin.is_finite() || !claim.factor.is_finite() {
            return wrong("margin", "must be a finite number");
        }
        if claim.direction == Direction::Equal && claim.margin < 0.0 {
            return wrong("margin", "of an equality must not be negative");
        }
        if !paper.tasks.contains(&claim.task) {
            return wrong("task", "is not one of the paper's tasks");
        }
        if !paper.methods.contains(&claim.method.name) {
            return wrong("method", "is not one of the paper's methods");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
number = 1
slug = "some-paper"
title = "Some paper"
authors = []
year = 2020
family = "cluster"
tasks = ["clustering"]
methods = ["some"]
summary = "It does something."

[[claims]]
id = "better"
says = "It is better."
task = "clustering"
data = "iris"
metric = "ari"
method = { name = "some" }
against = [{ name = "k-means", options = { k = 3 } }]
direction = "higher"
seeds = 3
"#;

    fn problem(text: &str) -> String {
        parse(Path::new("x.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn the_whole_catalogue_reads_and_has_ninety_papers() {
        let catalogue = Catalogue::load(None).unwrap();
        let numbers: Vec<u32> = catalogue.papers.iter().map(|p| p.number).collect();
        assert_eq!(numbers, (1..=90).collect::<Vec<u32>>());
        for (paper, (file, _)) in catalogue.papers.iter().zip(ENTRIES) {
            assert_eq!(*file, format!("{:02}-{}.toml", paper.number, paper.slug));
            assert!(!paper.claims.is_empty(), "{file} has no claim");
        }
    }

    #[test]
    fn defaults_are_filled_in() {
        let paper = parse(Path::new("x.toml"), GOOD).unwrap();
        let claim = &paper.claims[0];
        assert_eq!((claim.margin, claim.factor, claim.quick), (0.0, 1.0, false));
        assert_eq!(claim.must_beat, MustBeat::All);
        assert_eq!(claim.against[0].options["k"], 3);
    }

    #[test]
    fn malformed_entries_name_file_line_and_field() {
        let e = problem(&GOOD.replace("year = 2020", "year = \"new\""));
        assert!(
            e.starts_with("x.toml:6:") && e.contains("invalid type"),
            "{e}"
        );
        let e = problem(&GOOD.replace("year = 2020", "yaer = 2020"));
        assert!(e.starts_with("x.toml:6:") && e.contains("yaer"), "{e}");
        let e = problem(&GOOD.replace("title = \"Some paper\"\n", ""));
        assert!(e.contains("title"), "{e}");
        let e = problem(&GOOD.replace("\"higher\"", "\"upward\""));
        assert!(e.starts_with("x.toml:20:") && e.contains("upward"), "{e}");
        let e = problem("number = \n");
        assert!(e.starts_with("x.toml:1:"), "{e}");
    }

    #[test]
    fn claims_that_make_no_sense_are_refused() {
        for (from, to, told) in [
            ("against =", "target = 1.0\nagainst =", "rivals or a target"),
            ("seeds = 3", "seeds = 1", "at least 2"),
            (
                "task = \"clustering\"",
                "task = \"sorting\"",
                "paper's tasks",
            ),
            (
                "method = { name = \"some\" }",
                "method = { name = \"other\" }",
                "paper's methods",
            ),
            (
                "direction = \"higher\"",
                "direction = \"equal\"\nmargin = -1",
                "negative",
            ),
        ] {
            let e = problem(&GOOD.replace(from, to));
            assert!(e.contains(told) && e.contains("better"), "{e}");
        }
    }

    #[test]
    fn a_folder_of_the_users_adds_and_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let mine = GOOD.replace("number = 1", "number = 91");
        std::fs::write(dir.path().join("mine.toml"), mine).unwrap();
        let own = GOOD.replace("some-paper", "ppp");
        std::fs::write(dir.path().join("ppp.toml"), own).unwrap();
        let catalogue = Catalogue::load(Some(dir.path())).unwrap();
        assert_eq!(catalogue.papers.len(), 91);
        assert_eq!(catalogue.paper("ppp").unwrap().title, "Some paper");
        assert_eq!(catalogue.paper("91").unwrap().slug, "some-paper");
        let e = catalogue.paper("ila-spd").unwrap_err().to_string();
        assert!(e.contains("did you mean 'ila-sdp'"), "{e}");
    }
}
