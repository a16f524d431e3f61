//! A schema: which columns of a flow table are looked at, and how.
//!
//! Built-in schemas are the TOML files in `schemas/`; a user's own has the same form. Column order is the schema's,
//! never the file's, so that two files with the same columns in another order give the same numbers.

use papertrial_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// What a flow table holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Schema {
    /// Its name.
    pub name: String,
    /// One sentence: which data have it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// Columns whose size has a meaning.
    #[serde(default)]
    pub numeric: Vec<String>,
    /// Columns of which only "the same or not" has a meaning: ports, protocols, flags.
    #[serde(default)]
    pub categorical: Vec<String>,
    /// Names that the column with the class has; the first that the file has counts.
    #[serde(default)]
    pub class: Vec<String>,
    /// Spellings of the class of harmless flows; upper and lower case are the same.
    #[serde(default)]
    pub benign: Vec<String>,
    /// The column that says whether a row is for testing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// The column with the time of the flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// All columns of files that have no header, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layout: Vec<String>,
    /// Columns that say who spoke to whom; for alerts only.
    #[serde(default)]
    pub five_tuple: FiveTuple,
}

/// Columns that say who spoke to whom.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct FiveTuple {
    /// Address that began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// Its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<String>,
    /// Address that was spoken to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_address: Option<String>,
    /// Its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<String>,
    /// Protocol of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

impl FiveTuple {
    /// The columns that are named, in order: both addresses with their ports, then the protocol.
    pub fn columns(&self) -> [Option<&str>; 5] {
        [
            self.source_address.as_deref(),
            self.source_port.as_deref(),
            self.destination_address.as_deref(),
            self.destination_port.as_deref(),
            self.protocol.as_deref(),
        ]
    }
}

/// The built-in schemas' texts. Of several that fit a file, the one with the most columns counts, then the first.
const BUILT_IN: [&str; 9] = [
    include_str!("schemas/nsl-kdd.toml"),
    include_str!("schemas/unified-flow.toml"),
    include_str!("schemas/cse-cic-ids-2018.toml"),
    include_str!("schemas/cse-cic-ids-2018-improved.toml"),
    include_str!("schemas/cse-cic-ids-2018-days.toml"),
    include_str!("schemas/mqtt.toml"),
    include_str!("schemas/netflow-v1.toml"),
    include_str!("schemas/unsw-nb15.toml"),
    include_str!("schemas/unsw-nb15-partition.toml"),
];

/// The built-in schemas.
///
/// # Errors
/// None that a user can cause: the texts are part of the program.
pub fn built_in() -> Result<Vec<Schema>> {
    BUILT_IN
        .iter()
        .map(|text| toml::from_str(text).map_err(|e| Error::Failed(format!("a schema: {e}"))))
        .collect()
}

impl Schema {
    /// The built-in schema called `name`, or the one in the TOML or JSON file of that name.
    ///
    /// # Errors
    /// Neither exists, or the file is no schema.
    pub fn named(name: &str) -> Result<Schema> {
        let known = built_in()?;
        if let Some(schema) = known.iter().find(|s| s.name == name) {
            return Ok(schema.clone());
        }
        if !name.contains(['.', '/', '\\']) {
            return Err(Error::unknown(
                "schema",
                name,
                known.iter().map(|s| s.name.as_str()),
                format!(
                    "built in are {}; or name a TOML or JSON file",
                    names(known.iter().map(|s| s.name.as_str()))
                ),
            ));
        }
        Schema::read(Path::new(name))
    }

    /// The schema in a TOML or JSON file.
    ///
    /// # Errors
    /// The file cannot be read, or is no schema.
    pub fn read(path: &Path) -> Result<Schema> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::file(path, format!("the schema cannot be read: {e}")))?;
        let wrong = |e: &dyn std::fmt::Display| Error::file(path, format!("is no schema: {e}"));
        let schema: Schema = if path.extension().is_some_and(|e| e == "json") {
            serde_json::from_str(&text).map_err(|e| wrong(&e))?
        } else {
            toml::from_str(&text).map_err(|e| wrong(&e))?
        };
        schema
            .check()
            .map_err(|problem| Error::file(path, problem))?;
        Ok(schema)
    }

    /// What is wrong with it.
    fn check(&self) -> std::result::Result<(), String> {
        if self.numeric.is_empty() && self.categorical.is_empty() {
            return Err("names neither numeric nor categorical columns".into());
        }
        let mut seen = BTreeSet::new();
        for column in self.numeric.iter().chain(&self.categorical) {
            if !seen.insert(column) {
                return Err(format!("names column '{column}' twice"));
            }
            if self.class.contains(column) || self.test.as_ref() == Some(column) {
                return Err(format!(
                    "column '{column}' is the class or the test flag and can't be looked at as well"
                ));
            }
        }
        if !self.class.is_empty() && self.benign.is_empty() {
            return Err("names a class column but no spelling of benign flows".into());
        }
        Ok(())
    }

    /// The built-in schema that fits the columns of a file called `file`.
    ///
    /// # Errors
    /// None fits.
    pub fn guess(file: &str, columns: &[&str]) -> Result<Schema> {
        let known = built_in()?;
        let missing = |s: &Schema| s.features().filter(|c| !columns.contains(c)).count();
        let mut best: Option<&Schema> = None;
        for schema in known.iter().filter(|s| missing(s) == 0) {
            if best.is_none_or(|b| schema.features().count() > b.features().count()) {
                best = Some(schema);
            }
        }
        if let Some(schema) = best {
            return Ok(schema.clone());
        }
        // By the share that is missing: a short schema lacks few columns of any file.
        let share = |s: &Schema| missing(s) as f64 / s.features().count() as f64;
        let near = known.iter().min_by(|a, b| share(a).total_cmp(&share(b)));
        let near = near
            .filter(|s| share(s) < 0.5)
            .map(|s| {
                let lacking = s.features().filter(|c| !columns.contains(c));
                format!(
                    "; nearest is {}, but there is no {}",
                    s.name,
                    names(lacking)
                )
            })
            .unwrap_or_default();
        Err(Error::option(
            "schema",
            format!(
                "the columns of {file} fit none of {}{near}; name a TOML or JSON file that describes them",
                names(known.iter().map(|s| s.name.as_str()))
            ),
        ))
    }

    /// The columns that are looked at, numeric ones first.
    pub fn features(&self) -> impl Iterator<Item = &str> {
        self.numeric
            .iter()
            .chain(&self.categorical)
            .map(String::as_str)
    }

    /// The same schema without the columns `unwanted`.
    ///
    /// # Errors
    /// A column that it does not look at, or nothing left.
    pub fn without(mut self, unwanted: &[String]) -> Result<Schema> {
        for column in unwanted {
            if !self.features().any(|c| c == column) {
                return Err(Error::unknown(
                    "column",
                    column,
                    self.features(),
                    format!(
                        "option drop; schema {} looks at {}",
                        self.name,
                        names(self.features())
                    ),
                ));
            }
        }
        self.numeric.retain(|c| !unwanted.contains(c));
        self.categorical.retain(|c| !unwanted.contains(c));
        if self.numeric.is_empty() && self.categorical.is_empty() {
            return Err(Error::option("drop", "leaves no column to look at"));
        }
        Ok(self)
    }

    /// Whether a flow of class `class` is an attack.
    pub fn is_attack(&self, class: &str) -> bool {
        !self.benign.iter().any(|b| b.eq_ignore_ascii_case(class))
    }

    /// Whether both look at the same columns in the same way.
    pub fn same_features(&self, other: &Schema) -> bool {
        self.numeric == other.numeric && self.categorical == other.categorical
    }
}

/// Names for a message, separated by commas.
pub(super) fn names<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    all.into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_schemas_are_whole() {
        let all = built_in().unwrap();
        let counts: Vec<(String, usize, usize)> = all
            .iter()
            .map(|s| {
                s.check().unwrap();
                (s.name.clone(), s.numeric.len(), s.categorical.len())
            })
            .collect();
        let expected = [
            ("nsl-kdd", 34, 7),
            ("unified-flow", 28, 9),
            ("cse-cic-ids-2018", 28, 9),
            ("cse-cic-ids-2018-improved", 73, 11),
            ("cse-cic-ids-2018-days", 72, 6),
            ("mqtt", 26, 3),
            ("netflow-v1", 5, 5),
            ("unsw-nb15", 34, 7),
            ("unsw-nb15-partition", 35, 5),
        ];
        for (got, want) in counts.iter().zip(expected) {
            assert_eq!((got.0.as_str(), got.1, got.2), want);
        }
        assert_eq!(all[0].layout.len(), 43);
    }

    #[test]
    fn the_widest_schema_that_fits_is_guessed() {
        let wide = Schema::named("unified-flow").unwrap();
        let mut columns: Vec<&str> = wide.features().collect();
        columns.reverse();
        columns.push("Label");
        assert_eq!(Schema::guess("f", &columns).unwrap().name, "unified-flow");
        let narrow = Schema::named("netflow-v1").unwrap();
        let columns: Vec<&str> = narrow.features().collect();
        assert_eq!(Schema::guess("f", &columns).unwrap().name, "netflow-v1");
        let columns: Vec<&str> = wide
            .features()
            .filter(|c| !["MIN_TTL", "PROTOCOL"].contains(c))
            .collect();
        let text = Schema::guess("f", &columns).unwrap_err().to_string();
        assert!(text.contains("no MIN_TTL, PROTOCOL"), "{text}");
        assert!(Schema::guess("f", &["a"]).is_err());
    }

    #[test]
    fn own_schemas_come_from_files_and_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let read = |file: &str, text: &str| {
            let path = folder.path().join(file);
            std::fs::write(&path, text).unwrap();
            Schema::named(path.to_str().unwrap())
        };
        let toml = "name = 'mine'\nnumeric = ['bytes']\ncategorical = ['port']\nclass = ['kind']\nbenign = ['ok']\n";
        let mine = read("a.toml", toml).unwrap();
        assert!(!mine.is_attack("OK") && mine.is_attack("scan"));
        let json = serde_json::to_string(&mine).unwrap();
        assert_eq!(read("b.json", &json).unwrap(), mine);
        for (text, told) in [
            ("name = 'x'", "neither numeric nor categorical"),
            (
                "name = 'x'\nnumeric = ['a']\ncategorical = ['a']",
                "'a' twice",
            ),
            ("name = 'x'\nnumeric = ['a']\nclass = ['c']", "no spelling"),
            (
                "name = 'x'\nnumeric = ['a']\nclass = ['a']\nbenign = ['0']",
                "can't be looked at",
            ),
            ("name = 'x'\nnumerics = ['a']", "unknown field"),
        ] {
            let e = read("c.toml", text).unwrap_err().to_string();
            assert!(e.contains(told), "{e}");
        }
        let e = Schema::named("unified").unwrap_err().to_string();
        assert!(e.contains("unified-flow"), "{e}");
        assert!(Schema::named("no.toml").is_err());
        assert!(
            mine.clone()
                .without(&["bytes".into(), "port".into()])
                .is_err()
        );
        assert!(mine.clone().without(&["ports".into()]).is_err());
        assert_eq!(mine.without(&["port".into()]).unwrap().categorical.len(), 0);
    }
}
