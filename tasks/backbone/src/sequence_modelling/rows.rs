//! What is learned: sequences of tokens with targets, from a text's bytes or from a table of lists.

use super::TaskOptions;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use papertrial_core::data::{Table, sets};
use papertrial_core::task::{Context, Input, Job};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::{permutation, rng};
use std::path::{Path, PathBuf};

/// Endings of files that are tables; others are texts.
const TABLES: [&str; 9] = [
    "csv", "tsv", "parquet", "arrow", "feather", "ipc", "jsonl", "ndjson", "npy",
];
/// Share of the data that is held out, where nothing says which.
const HELD_OUT: f64 = 0.1;
/// Most tokens that there may be.
const MOST_TOKENS: i64 = 1_000_000;

/// Sequences: of each, where it starts in `tokens` and `targets`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// Tokens of all sequences, one after the other.
    pub tokens: Vec<u32>,
    /// What is to be said at each of them; -1 where nothing is.
    pub targets: Vec<i32>,
    /// Tokens of a sequence.
    pub length: usize,
    /// Tokens that there are.
    pub vocabulary: usize,
    /// Starts of the sequences to train on.
    pub train: Vec<usize>,
    /// Starts of the sequences to test on.
    pub test: Vec<usize>,
    /// Whether the tokens are the bytes of a text.
    pub text: bool,
}

impl Rows {
    /// The sequences of a job's main input.
    ///
    /// # Errors
    /// A file that cannot be read, columns that are missing or are no lists of equal length, or too few tokens.
    pub fn of(job: &Job, asked: &TaskOptions, context: &Context) -> Result<Rows> {
        if let Some(path) = text_file(job)? {
            let bytes = std::fs::read(&path).map_err(|e| Error::file(&path, e))?;
            return Rows::of_text(&bytes, asked.window, &path.display().to_string());
        }
        let table = job.table("data", context)?;
        if let Some(column) = &job.roles.text {
            let texts = table.texts(table.column_for("--text", column)?)?;
            let lines: Vec<String> = texts.into_iter().flatten().collect();
            return Rows::of_text(lines.join("\n").as_bytes(), asked.window, table.name());
        }
        Rows::of_table(&table, asked, context.seed)
    }

    /// Windows of a text: any of its first nine tenths to train on, those that follow each other in the rest to test.
    fn of_text(bytes: &[u8], window: usize, name: &str) -> Result<Rows> {
        let tokens: Vec<u32> = bytes.iter().map(|b| u32::from(*b)).collect();
        let targets: Vec<i32> = bytes.iter().skip(1).map(|b| i32::from(*b)).collect();
        let held_out = (bytes.len() as f64 * HELD_OUT).ceil() as usize;
        let cut = bytes.len() - held_out;
        // A window of the training part must not look at the first byte held out.
        if cut <= window || held_out <= window {
            return Err(Error::BadInput(format!(
                "{name} has {} bytes; windows of {window} need at least {}, a tenth of them to test on",
                bytes.len(),
                (window + 1) * 10
            )));
        }
        Ok(Rows {
            train: (0..cut - window).collect(),
            test: (cut..bytes.len() - window).step_by(window).collect(),
            tokens,
            targets,
            length: window,
            vocabulary: 256,
            text: true,
        })
    }

    fn of_table(table: &Table, asked: &TaskOptions, seed: u64) -> Result<Rows> {
        let read = |option: &str, column: &str| -> Result<(Vec<i64>, usize)> {
            let arrays = table.column(table.column_for(option, column)?)?;
            lists(&arrays).map_err(|problem| Error::column(table.name(), column, problem))
        };
        let (tokens, length) = read("tokens-column", &asked.tokens_column)?;
        let has = |column: &str| table.columns().contains(&column);
        let targets = if has(&asked.targets_column) {
            let (targets, of_targets) = read("targets-column", &asked.targets_column)?;
            if of_targets != length || targets.len() != tokens.len() {
                return Err(Error::column(
                    table.name(),
                    &asked.targets_column,
                    format!("has lists of {of_targets}, the tokens lists of {length}"),
                ));
            }
            targets
        } else {
            // The next token; the last of a sequence has none.
            let next = |i: usize| !(i + 1).is_multiple_of(length);
            (0..tokens.len())
                .map(|i| if next(i) { tokens[i + 1] } else { -1 })
                .collect()
        };
        let highest = tokens.iter().chain(&targets).copied().max().unwrap_or(0);
        if tokens.iter().any(|t| *t < 0) || highest >= MOST_TOKENS {
            return Err(Error::column(
                table.name(),
                &asked.tokens_column,
                format!("tokens are numbers from 0 to {}", MOST_TOKENS - 1),
            ));
        }
        let rows = tokens.len() / length;
        let (train, test) = if has(&asked.part_column) {
            let parts = table.texts(table.column_for("part-column", &asked.part_column)?)?;
            let of = |part: &str| -> Vec<usize> {
                (0..rows)
                    .filter(|r| parts[*r].as_deref() == Some(part))
                    .collect()
            };
            (of("train"), of("test"))
        } else {
            let order = permutation(&mut rng(seed, "rows held out"), rows);
            let held_out = (rows as f64 * HELD_OUT).ceil() as usize;
            let mut test = order[..held_out].to_vec();
            let mut train = order[held_out..].to_vec();
            test.sort_unstable();
            train.sort_unstable();
            (train, test)
        };
        if train.is_empty() || test.is_empty() {
            return Err(Error::BadInput(format!(
                "{} has {} sequences to train on and {} to test on; both are needed (column '{}' says train or test)",
                table.name(),
                train.len(),
                test.len(),
                asked.part_column
            )));
        }
        let starts = |rows: Vec<usize>| rows.into_iter().map(|r| r * length).collect();
        Ok(Rows {
            tokens: tokens.into_iter().map(|t| t as u32).collect(),
            targets: targets.into_iter().map(|t| t.max(-1) as i32).collect(),
            length,
            vocabulary: highest as usize + 1,
            train: starts(train),
            test: starts(test),
            text: false,
        })
    }

    /// Tokens of the sequence that starts at `start`.
    pub fn tokens_at(&self, start: usize) -> &[u32] {
        &self.tokens[start..start + self.length]
    }

    /// Its targets.
    pub fn targets_at(&self, start: usize) -> &[i32] {
        &self.targets[start..start + self.length]
    }
}

/// The file, if the main input is a text.
fn text_file(job: &Job) -> Result<Option<PathBuf>> {
    let is_text = |path: &Path| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        let bare = name.strip_suffix(".gz").unwrap_or(&name);
        let ending = Path::new(bare).extension().and_then(|e| e.to_str());
        !ending.is_some_and(|e| TABLES.contains(&e) || e == "json") && bare == name
    };
    Ok(match job.inputs.get("data") {
        Some(Input::File { path, .. }) if is_text(path) => Some(path.clone()),
        Some(Input::Set { name, .. }) => match sets::find(name)?.verify()? {
            sets::Place::Local(path) | sets::Place::Cached(path) if is_text(&path) => Some(path),
            _ => None,
        },
        _ => None,
    })
}

/// The numbers of lists of equal length, and that length.
fn lists(arrays: &[ArrayRef]) -> std::result::Result<(Vec<i64>, usize), String> {
    let mut all = Vec::new();
    let mut length = None;
    for array in arrays {
        for row in 0..array.len() {
            if array.is_null(row) {
                return Err(format!("row {}: there is no list", row + 1));
            }
            let list = match array.data_type() {
                DataType::FixedSizeList(_, _) => array.as_fixed_size_list().value(row),
                DataType::List(_) => array.as_list::<i32>().value(row),
                DataType::LargeList(_) => array.as_list::<i64>().value(row),
                other => return Err(format!("has {other}, not lists of whole numbers")),
            };
            let list = cast(&list, &DataType::Int64).map_err(|e| e.to_string())?;
            if list.null_count() > 0 {
                return Err(format!("row {}: a number is missing", row + 1));
            }
            let length = *length.get_or_insert(list.len());
            if list.len() != length || length == 0 {
                return Err(format!(
                    "row {}: a list of {}, where the first has {length}; all need the same length, at least 1",
                    row + 1,
                    list.len()
                ));
            }
            all.extend_from_slice(list.as_primitive::<Int64Type>().values());
        }
    }
    Ok((all, length.unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ListArray, StringArray};
    use arrow::datatypes::{Field, Schema};
    use arrow::record_batch::RecordBatch;
    use std::sync::Arc;

    #[test]
    fn windows_of_a_text_keep_the_held_out_bytes_apart() {
        let bytes: Vec<u8> = (0..100).collect();
        let rows = Rows::of_text(&bytes, 4, "t").unwrap();
        assert_eq!(rows.train.last(), Some(&85));
        // The last target of training is byte 89; testing begins at byte 90.
        assert_eq!(rows.targets_at(85), [86, 87, 88, 89]);
        assert_eq!(rows.test, [90, 94]);
        assert_eq!(rows.tokens_at(94), [94, 95, 96, 97]);
        assert_eq!(rows.targets_at(94), [95, 96, 97, 98]);
        assert!(
            Rows::of_text(&bytes, 10, "t")
                .unwrap_err()
                .to_string()
                .contains("at least 110")
        );
        assert!(Rows::of_text(&[], 4, "t").is_err());
    }

    fn table(lists: Vec<Option<Vec<Option<i32>>>>, parts: Vec<&str>) -> Table {
        let tokens = ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>(lists);
        let schema = Schema::new(vec![
            Field::new("tokens", tokens.data_type().clone(), true),
            Field::new("part", DataType::Utf8, false),
        ]);
        let columns: Vec<ArrayRef> = vec![Arc::new(tokens), Arc::new(StringArray::from(parts))];
        Table::memory(
            "t",
            vec![RecordBatch::try_new(Arc::new(schema), columns).unwrap()],
        )
    }

    fn list(numbers: &[i32]) -> Option<Vec<Option<i32>>> {
        Some(numbers.iter().copied().map(Some).collect())
    }

    #[test]
    fn without_targets_the_next_token_is_learned() {
        let table = table(
            vec![list(&[5, 1, 2]), list(&[0, 3, 4])],
            vec!["train", "test"],
        );
        let rows = Rows::of_table(&table, &TaskOptions::default(), 0).unwrap();
        assert_eq!(rows.targets, [1, 2, -1, 3, 4, -1]);
        assert_eq!((rows.train, rows.test), (vec![0], vec![3]));
        assert_eq!((rows.length, rows.vocabulary), (3, 6));
    }

    #[test]
    fn broken_lists_are_told_by_row() {
        let told = |lists| {
            let table = table(lists, vec!["train", "test"]);
            Rows::of_table(&table, &TaskOptions::default(), 0)
                .unwrap_err()
                .to_string()
        };
        assert!(told(vec![list(&[1, 2]), list(&[1])]).contains("row 2"));
        assert!(told(vec![list(&[1, 2]), None]).contains("row 2"));
        assert!(told(vec![list(&[1]), Some(vec![None])]).contains("missing"));
        assert!(told(vec![list(&[1]), list(&[-3])]).contains("from 0"));
        let one_part = table(vec![list(&[1]), list(&[2])], vec!["test", "test"]);
        let error = Rows::of_table(&one_part, &TaskOptions::default(), 0).unwrap_err();
        assert!(error.to_string().contains("0 sequences to train on"));
    }
}
