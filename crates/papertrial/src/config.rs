//! One experiment, one file: a TOML file becomes words of the command line.
//!
//! `command = "compare"` names the command and its positional words (`task`, `method`, `papers`, …) stand under
//! their own names; every other key is the option of that name. `set` is a table.

use papertrial_core::{Error, Result};
use std::path::Path;
use toml::{Table, Value};

/// Replaces `--config FILE` by the words that the file stands for, in front of those that were typed.
///
/// # Errors
/// The file is missing or malformed, or names no command.
pub fn expand(arguments: Vec<String>) -> Result<Vec<String>> {
    let Some((place, count, file)) = find(&arguments) else {
        return Ok(arguments);
    };
    let path = Path::new(&file);
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
    let table: Table = text.parse().map_err(|e: toml::de::Error| Error::Line {
        path: path.into(),
        line: text[..e.span().map_or(0, |s| s.start).min(text.len())]
            .matches('\n')
            .count()
            + 1,
        problem: e.message().replace('\n', " "),
    })?;
    let mut typed = arguments;
    typed.drain(place..place + count);
    let mut all = vec![typed.remove(0)];
    all.extend(words(path, &table, &typed)?);
    // A command that was typed as well must be the same one; its name is not given twice.
    if typed
        .first()
        .is_some_and(|w| Some(w.as_str()) == table.get("command").and_then(Value::as_str))
    {
        typed.remove(0);
    }
    all.extend(typed);
    Ok(all)
}

/// Where `--config` stands, how many words it takes, and its file.
fn find(arguments: &[String]) -> Option<(usize, usize, String)> {
    arguments.iter().enumerate().find_map(|(i, a)| {
        if a == "--config" {
            arguments.get(i + 1).map(|f| (i, 2, f.clone()))
        } else {
            a.strip_prefix("--config=").map(|f| (i, 1, f.to_owned()))
        }
    })
}

/// The words of the file, without the options that were typed too; settings add up, later ones win.
fn words(path: &Path, table: &Table, typed: &[String]) -> Result<Vec<String>> {
    let command = table
        .get("command")
        .and_then(Value::as_str)
        .ok_or_else(|| {
            Error::file(
                path,
                "names no command; its first line should be like: command = \"compare\"",
            )
        })?;
    let positional: &[&str] = match command {
        "papers" => &["words"],
        "show" => &["name"],
        "try" => &["papers"],
        "compare" => &["task"],
        "run" => &["method"],
        _ => &[],
    };
    let mut words = vec![command.to_owned()];
    for key in positional {
        match table.get(*key) {
            Some(Value::Array(items)) => words.extend(items.iter().map(text)),
            Some(value) => words.push(text(value)),
            None => {}
        }
    }
    for (key, value) in table {
        if key == "command" || positional.contains(&key.as_str()) {
            continue;
        }
        let option = format!("--{}", key.replace('_', "-"));
        let again = |t: &String| *t == option || t.starts_with(&format!("{option}="));
        if option != "--set" && typed.iter().any(again) {
            continue;
        }
        match value {
            Value::Boolean(true) => words.push(option),
            Value::Boolean(false) => {}
            Value::Table(settings) => {
                for (name, value) in settings {
                    words.push(option.clone());
                    words.push(format!("{name}={}", text(value)));
                }
            }
            Value::Array(items) => {
                words.push(option);
                words.push(items.iter().map(text).collect::<Vec<_>>().join(","));
            }
            other => {
                words.push(option);
                words.push(text(other));
            }
        }
    }
    Ok(words)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(content: &str, typed: &[&str]) -> Result<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.toml");
        std::fs::write(&path, content).unwrap();
        let mut arguments = vec![
            "papertrial".to_owned(),
            "--config".into(),
            path.display().to_string(),
        ];
        arguments.extend(typed.iter().map(|t| t.to_string()));
        expand(arguments).map(|a| a[1..].join(" "))
    }

    #[test]
    fn a_file_says_what_the_command_line_can_say() {
        let file = "command = \"compare\"\ntask = \"clustering\"\ndata = \"a.csv\"\nmethods = [\"k-means\", \"ppp\"]\nseeds = 5\nfresh = true\nset = { k = 3 }\n";
        assert_eq!(
            expanded(file, &[]).unwrap(),
            "compare clustering --data a.csv --fresh --methods k-means,ppp --seeds 5 --set k=3"
        );
        // Typed words come last and win.
        let more = expanded(file, &["compare", "--seeds", "9", "--methods=ward"]).unwrap();
        assert_eq!(
            more,
            "compare clustering --data a.csv --fresh --set k=3 --seeds 9 --methods=ward"
        );
    }

    #[test]
    fn without_a_file_nothing_changes_and_bad_files_are_told() {
        let plain = vec!["papertrial".to_owned(), "papers".into()];
        assert_eq!(expand(plain.clone()).unwrap(), plain);
        assert!(
            expanded("seeds = 3", &[])
                .unwrap_err()
                .to_string()
                .contains("names no command")
        );
        let e = expanded("command = \"try\"\nseeds = ", &[])
            .unwrap_err()
            .to_string();
        assert!(e.contains("e.toml:2"), "{e}");
    }
}
