//! Options of methods and tasks: plain structs whose schema yields help, checks and defaults.
//!
//! A method's options are a struct that derives `Serialize`, `Deserialize`, `JsonSchema` and has the paper's
//! values as its `Default`. Doc comments become the help text, `#[schemars(range(…))]` the allowed range and
//! enums the allowed words; nothing is written twice.

use crate::error::{Error, Result};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// Option values by name.
pub type Settings = Map<String, Value>;

/// A struct of options. Implemented for every struct with the four derives.
pub trait Options: Default + Serialize + DeserializeOwned + JsonSchema {}
impl<T: Default + Serialize + DeserializeOwned + JsonSchema> Options for T {}

/// What is known of one option.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OptionInfo {
    /// Name, in kebab-case.
    pub name: String,
    /// One sentence.
    pub about: String,
    /// Kind of value.
    pub kind: OptionKind,
    /// Value when the user says nothing.
    pub default: Value,
}

/// Kinds of option values, with their limits.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptionKind {
    /// `true` or `false`.
    Switch,
    /// Whole number within limits.
    Integer {
        /// Least value allowed.
        least: Option<f64>,
        /// Greatest value allowed.
        most: Option<f64>,
    },
    /// Number within limits.
    Number {
        /// Least value allowed.
        least: Option<f64>,
        /// The value must be above this.
        above: Option<f64>,
        /// Greatest value allowed.
        most: Option<f64>,
    },
    /// One of these words.
    Word(Vec<String>),
    /// Free text.
    Text,
    /// A list or another structure, written as JSON.
    Json,
}

impl std::fmt::Display for OptionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OptionKind::Switch => f.write_str("true or false"),
            OptionKind::Integer { least, most } => {
                f.write_str("a whole number")?;
                limits(f, *least, None, *most)
            }
            OptionKind::Number { least, above, most } => {
                f.write_str("a number")?;
                limits(f, *least, *above, *most)
            }
            OptionKind::Word(words) => write!(f, "one of {}", words.join(", ")),
            OptionKind::Text => f.write_str("text"),
            OptionKind::Json => f.write_str("JSON"),
        }
    }
}

fn limits(
    f: &mut std::fmt::Formatter<'_>,
    least: Option<f64>,
    above: Option<f64>,
    most: Option<f64>,
) -> std::fmt::Result {
    let low = least
        .map(|v| format!("at least {v}"))
        .or(above.map(|v| format!("above {v}")));
    let parts: Vec<String> = low
        .into_iter()
        .chain(most.map(|v| format!("at most {v}")))
        .collect();
    if parts.is_empty() {
        Ok(())
    } else {
        write!(f, ", {}", parts.join(" and "))
    }
}

/// The options of `T` in the order of its fields.
pub fn describe<T: Options>() -> Vec<OptionInfo> {
    let generator = schemars::generate::SchemaSettings::draft2020_12()
        .with(|s| s.inline_subschemas = true)
        .into_generator();
    let schema = generator.into_root_schema_for::<T>().to_value();
    let defaults = match serde_json::to_value(T::default()) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let Some(Value::Object(properties)) = schema.get("properties").cloned() else {
        return Vec::new();
    };
    properties
        .iter()
        .map(|(name, property)| OptionInfo {
            name: name.clone(),
            about: property
                .get("description")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .replace('\n', " "),
            kind: kind(property),
            default: defaults.get(name).cloned().unwrap_or(Value::Null),
        })
        .collect()
}

fn kind(property: &Value) -> OptionKind {
    if let Some(words) = words(property) {
        return OptionKind::Word(words);
    }
    let number = |key: &str| property.get(key).and_then(Value::as_f64);
    let names: Vec<&str> = match property.get("type") {
        Some(Value::String(name)) => vec![name.as_str()],
        Some(Value::Array(names)) => names
            .iter()
            .filter_map(Value::as_str)
            .filter(|n| *n != "null")
            .collect(),
        _ => vec![],
    };
    match names.as_slice() {
        ["boolean"] => OptionKind::Switch,
        ["integer"] => OptionKind::Integer {
            least: number("minimum"),
            most: number("maximum"),
        },
        ["number"] => OptionKind::Number {
            least: number("minimum"),
            above: number("exclusiveMinimum"),
            most: number("maximum"),
        },
        ["string"] => OptionKind::Text,
        _ => OptionKind::Json,
    }
}

/// The words of an enum: schemars writes `enum: [..]`, or `oneOf: [{const: ..}]` where variants have docs.
fn words(property: &Value) -> Option<Vec<String>> {
    let strings = |values: Vec<&Value>| -> Option<Vec<String>> {
        values
            .into_iter()
            .filter(|v| !v.is_null())
            .map(|v| v.as_str().map(str::to_owned))
            .collect()
    };
    if let Some(Value::Array(values)) = property.get("enum") {
        return strings(values.iter().collect());
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(Value::Array(variants)) = property.get(key) {
            let mut all = Vec::new();
            for variant in variants {
                if let Some(word) = variant.get("const").and_then(Value::as_str) {
                    all.push(word.to_owned());
                } else if let Some(inner) = words(variant) {
                    all.extend(inner);
                } else if variant.get("type").and_then(Value::as_str) != Some("null") {
                    return None;
                }
            }
            return Some(all);
        }
    }
    None
}

/// Splits `name=value` as typed after `--set`; the value is read as JSON where it is JSON, else as text.
///
/// # Errors
/// [`Error::Option`] if there is no `=` or no name.
pub fn assignment(text: &str) -> Result<(String, Value)> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            let value = value.trim();
            let parsed =
                serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            Ok((name.trim().to_owned(), parsed))
        }
        _ => Err(Error::option(
            "--set",
            format!("'{text}' is not of the form option=value, for example k=3"),
        )),
    }
}

/// Checks `value` against what is known of the option; gives it in the option's own type.
///
/// # Errors
/// [`Error::Option`] with the allowed values if the value has the wrong type or is out of range.
pub fn check(owner: &str, info: &OptionInfo, value: &Value) -> Result<Value> {
    let wrong = || {
        let shown = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Error::option(
            &info.name,
            format!("{owner} takes {}, not {shown}", info.kind),
        )
    };
    if value.is_null() && info.default.is_null() {
        return Ok(Value::Null);
    }
    let within = |v: f64, least: Option<f64>, above: Option<f64>, most: Option<f64>| {
        v.is_finite()
            && least.is_none_or(|l| v >= l)
            && above.is_none_or(|l| v > l)
            && most.is_none_or(|m| v <= m)
    };
    match &info.kind {
        OptionKind::Switch => value.as_bool().map(Value::Bool).ok_or_else(wrong),
        OptionKind::Integer { least, most } => {
            let v = value
                .as_f64()
                .filter(|v| v.fract() == 0.0)
                .ok_or_else(wrong)?;
            if !within(v, *least, None, *most) {
                return Err(wrong());
            }
            if value.is_f64() {
                Ok(Value::from(v as i64))
            } else {
                Ok(value.clone())
            }
        }
        OptionKind::Number { least, above, most } => {
            let v = value.as_f64().ok_or_else(wrong)?;
            if within(v, *least, *above, *most) {
                Ok(Value::from(v))
            } else {
                Err(wrong())
            }
        }
        OptionKind::Word(words) => match value.as_str() {
            Some(word) if words.iter().any(|w| w == word) => Ok(value.clone()),
            _ => Err(wrong()),
        },
        OptionKind::Text => match value {
            Value::String(_) => Ok(value.clone()),
            Value::Array(_) | Value::Object(_) | Value::Null => Err(wrong()),
            other => Ok(Value::String(other.to_string())),
        },
        OptionKind::Json => Ok(value.clone()),
    }
}

/// All options of `owner`: its defaults with `given` over them, each checked.
///
/// # Errors
/// [`Error::Unknown`] for an option that `owner` does not have, [`Error::Option`] for an impossible value.
pub fn resolve(owner: &str, infos: &[OptionInfo], given: &Settings) -> Result<Settings> {
    for name in given.keys() {
        if !infos.iter().any(|i| i.name == *name) {
            return Err(Error::unknown(
                "option",
                name,
                infos.iter().map(|i| i.name.as_str()),
                format!("'papertrial show {owner}' lists its options"),
            ));
        }
    }
    infos
        .iter()
        .map(|info| {
            let value = match given.get(&info.name) {
                Some(value) => check(owner, info, value)?,
                None => info.default.clone(),
            };
            Ok((info.name.clone(), value))
        })
        .collect()
}

/// The part of `given` that `infos` knows.
pub fn known(infos: &[OptionInfo], given: &Settings) -> Settings {
    given
        .iter()
        .filter(|(name, _)| infos.iter().any(|i| i.name == **name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Rows that a `budget` option means for a pool of `pool` rows: up to 1 it is a share of them, rounded down; above, a
/// number of rows.
///
/// # Errors
/// [`Error::Option`] for a budget that is not positive, gives no row, is neither a share nor a whole number, or is
/// above the pool.
pub fn budget(asked: f64, pool: usize) -> Result<usize> {
    let wrong = |why: String| {
        Err(Error::option(
            "budget",
            format!(
                "{why}; give a share of the rows above 0 and up to 1, or a whole number of rows up to {pool}"
            ),
        ))
    };
    if !asked.is_finite() || asked <= 0.0 {
        return wrong(format!("{asked} is not positive"));
    }
    if asked <= 1.0 {
        let rows = (asked * pool as f64 + 1e-9).floor() as usize;
        return match rows {
            0 => wrong(format!("{asked} of {pool} rows is less than one row")),
            _ => Ok(rows),
        };
    }
    if asked.fract() != 0.0 {
        return wrong(format!("{asked} is neither a share nor a number of rows"));
    }
    if asked > pool as f64 {
        return wrong(format!("{asked} is more than the pool's {pool} rows"));
    }
    Ok(asked as usize)
}

/// The options struct itself, from checked settings.
///
/// # Errors
/// [`Error::Option`] if the settings do not fit the struct.
pub fn build<T: Options>(owner: &str, settings: &Settings) -> Result<T> {
    let settings = resolve(owner, &describe::<T>(), settings)?;
    serde_json::from_value(Value::Object(settings)).map_err(|e| Error::option(owner, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
    struct Sample {
        /// Number of clusters.
        #[schemars(range(min = 1))]
        k: usize,
        /// Share of the rows.
        #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1.0))]
        share: f64,
        /// Shape.
        shape: Shape,
        /// Rows to take, all where absent.
        #[schemars(range(min = 1))]
        max_rows: Option<usize>,
        /// Whether to repair.
        repair: bool,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case")]
    enum Shape {
        /// One matrix for each.
        Full,
        /// One for all.
        Tied,
    }

    impl Default for Sample {
        fn default() -> Self {
            Sample {
                k: 3,
                share: 0.5,
                shape: Shape::Full,
                max_rows: None,
                repair: true,
            }
        }
    }

    fn set(items: &[&str]) -> Settings {
        items.iter().map(|i| assignment(i).unwrap()).collect()
    }

    #[test]
    fn schema_yields_names_help_kinds_and_defaults() {
        let infos = describe::<Sample>();
        let names: Vec<&str> = infos.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["k", "share", "shape", "max-rows", "repair"]);
        assert_eq!(infos[0].about, "Number of clusters.");
        assert_eq!(infos[0].kind.to_string(), "a whole number, at least 1");
        assert_eq!(infos[1].kind.to_string(), "a number, above 0 and at most 1");
        assert_eq!(infos[2].kind.to_string(), "one of full, tied");
        assert_eq!(infos[2].default, "full");
        assert_eq!(infos[3].kind.to_string(), "a whole number, at least 1");
        assert_eq!(infos[3].default, Value::Null);
        assert_eq!(infos[4].kind, OptionKind::Switch);
    }

    #[test]
    fn values_are_checked_and_typed() {
        let built: Sample = build(
            "sample",
            &set(&[
                "k=5",
                "share=1",
                "shape=tied",
                "max-rows=10",
                "repair=false",
            ]),
        )
        .unwrap();
        assert_eq!(
            built,
            Sample {
                k: 5,
                share: 1.0,
                shape: Shape::Tied,
                max_rows: Some(10),
                repair: false
            }
        );
        for (bad, told) in [
            ("k=0", "at least 1"),
            ("k=2.5", "whole number"),
            ("k=three", "whole number"),
            ("k=-4", "at least 1"),
            ("share=0", "above 0"),
            ("share=1.01", "at most 1"),
            ("shape=round", "one of full, tied"),
            ("repair=1", "true or false"),
            ("max-rows=0", "at least 1"),
        ] {
            let e = build::<Sample>("sample", &set(&[bad])).unwrap_err();
            assert!(e.to_string().contains(told), "{bad}: {e}");
            assert_eq!(e.exit_status(), 2);
        }
    }

    #[test]
    fn unknown_options_suggest_the_nearest() {
        let e = build::<Sample>("sample", &set(&["max-row=3"])).unwrap_err();
        assert!(e.to_string().contains("did you mean 'max-rows'"), "{e}");
        assert!(assignment("k").is_err());
        assert!(assignment("=3").is_err());
        assert_eq!(assignment("a=b=c").unwrap().1, "b=c");
    }

    #[test]
    fn a_budget_is_a_share_or_a_number_of_rows() {
        assert_eq!(budget(0.05, 1297).unwrap(), 64);
        assert_eq!(budget(1.0, 7).unwrap(), 7);
        assert_eq!(budget(7.0, 7).unwrap(), 7);
        // 0.29 x 100 is 28.999... in doubles, and means 29.
        assert_eq!(budget(0.29, 100).unwrap(), 29);
        for wrong in [0.0, -1.0, f64::NAN, 1.5, 8.0, 0.1] {
            let text = budget(wrong, 7).unwrap_err().to_string();
            assert!(
                text.contains("budget") && text.contains("up to 7"),
                "{text}"
            );
        }
    }
}
