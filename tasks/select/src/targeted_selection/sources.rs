//! Pool and queries, read from the tables of a job.

use super::problem::{Pool, Queries, Reads, Vectors};
use super::rows::{self, Named};
use super::vectors;
use super::{TableLayout, TaskOptions};
use arrow::array::Array;
use papertrial_core::data::{Roles, Table};
use papertrial_core::task::{Context, Job};
use papertrial_core::{Error, Result};
use std::collections::HashMap;

/// A table with the roles of its columns, speeches already turned into rows.
pub struct Opened {
    /// The table.
    pub table: Table,
    /// Roles of its columns.
    pub roles: Roles,
}

/// Opens the pool.
///
/// # Errors
/// It cannot be read, or the roles name columns that it lacks.
pub fn pool_table(job: &Job, options: &TaskOptions, context: &Context) -> Result<Opened> {
    let table = job.table("data", context)?;
    job.roles.check(&table)?;
    Ok(match options.layout {
        TableLayout::Rows => Opened {
            table,
            roles: job.roles.clone(),
        },
        TableLayout::Speeches => Opened {
            table: rows::speeches(&table, &job.roles)?,
            roles: Roles {
                label: Some("speaker".into()),
                text: Some("text".into()),
                ..Roles::default()
            },
        },
    })
}

/// Opens the queries. A role counts where the queries have that column too.
///
/// # Errors
/// They are missing or cannot be read.
pub fn query_table(job: &Job, options: &TaskOptions, context: &Context) -> Result<Opened> {
    let table = job.table("query", context)?;
    let table = match options.layout {
        TableLayout::Rows => table,
        TableLayout::Speeches if table.columns().contains(&"text") => table,
        TableLayout::Speeches => rows::speeches(&table, &Roles::default())?,
    };
    let here = |column: &Option<String>| {
        column
            .clone()
            .filter(|c| table.columns().contains(&c.as_str()))
    };
    let roles = Roles {
        text: here(&job.roles.text),
        id: here(&job.roles.id),
        ..Roles::default()
    };
    Ok(Opened { table, roles })
}

/// The columns of text that the options name and `table` has.
fn named<'a>(options: &'a TaskOptions) -> Named<'a> {
    Named {
        messages: options.messages.as_deref(),
        prompt: options.prompt.as_deref(),
        response: options.response.as_deref(),
    }
}

/// The rows of text of a table.
///
/// # Errors
/// No text is found, or a row is empty or malformed.
pub fn text(opened: &Opened, options: &TaskOptions) -> Result<Vec<rows::Row>> {
    let layout = rows::layout(&opened.table, &opened.roles, &named(options))?;
    rows::read(&opened.table, &layout)
}

/// Whether the text of the rows is needed.
pub fn needs_text(reads: Reads, options: &TaskOptions) -> bool {
    reads == Reads::Text || options.duplicates != super::Duplicates::Keep || options.drop_queries
}

/// Whether the sources of the rows are needed.
pub fn needs_sources(reads: Reads, options: &TaskOptions) -> bool {
    reads == Reads::Sources || options.per_source.is_some()
}

/// Number of each row's source, in the order in which sources appear.
///
/// # Errors
/// There is no column of sources.
pub fn sources(opened: &Opened) -> Result<Vec<u32>> {
    let table = &opened.table;
    let named = opened.roles.group.as_deref();
    let column = named
        .or(["dataset", "source"]
            .into_iter()
            .find(|c| table.columns().contains(c)))
        .ok_or_else(|| {
            Error::option(
                "--group",
                format!(
                    "name the column of {} with each row's source (its columns: {})",
                    table.name(),
                    table.columns().join(", ")
                ),
            )
        })?;
    let index = table.column_for("--group", column)?;
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut all = Vec::new();
    for array in table.column(index)? {
        let cells = rows::texts(&array)
            .ok_or_else(|| Error::column(table.name(), column, "holds no names of sources"))?;
        for cell in &cells {
            let next = numbers.len() as u32;
            all.push(
                *numbers
                    .entry(cell.unwrap_or_default().to_owned())
                    .or_insert(next),
            );
        }
    }
    Ok(all)
}

/// The pool for a method that reads `reads`, its embeddings in `beside` if they stand in a table of their own.
///
/// # Errors
/// What the method reads is missing or broken.
pub fn pool<'a>(
    opened: &'a Opened,
    beside: Option<&'a Table>,
    reads: Reads,
    options: &TaskOptions,
    seed: u64,
) -> Result<Pool<'a>> {
    let count = opened.table.rows() as usize;
    let vectors = match (reads, beside) {
        (Reads::Vectors, Some(table)) => {
            if table.rows() as usize != count {
                return Err(Error::BadInput(format!(
                    "{} has {} rows of embeddings for {count} rows of the pool",
                    table.name(),
                    table.rows()
                )));
            }
            let column = vectors::column(table, "vectors", None)?;
            Some(Vectors::Table { table, column })
        }
        (Reads::Vectors, None) => {
            let table = &opened.table;
            let column = vectors::column(table, "vectors", options.vectors.as_deref())?;
            Some(Vectors::Table { table, column })
        }
        _ => None,
    };
    Ok(Pool {
        count,
        rows: if needs_text(reads, options) {
            text(opened, options)?
        } else {
            Vec::new()
        },
        sources: if needs_sources(reads, options) {
            Some(sources(opened)?)
        } else {
            None
        },
        vectors,
        part: options.part,
        reading: options.reading(seed),
    })
}

/// The queries of a table, their embeddings in `beside` if they stand in a table of their own.
///
/// Tasks come in the order of their names, queries in the order of their identifiers (as numbers if all are).
///
/// # Errors
/// No rows, or what the method reads is missing or broken.
pub fn queries(
    opened: &Opened,
    beside: Option<&Table>,
    reads: Reads,
    options: &TaskOptions,
) -> Result<Queries> {
    let table = &opened.table;
    let count = table.rows() as usize;
    let cells = |option: &str, column: &str| -> Result<Vec<String>> {
        let index = table.column_for(option, column)?;
        let mut all = Vec::with_capacity(count);
        for array in table.column(index)? {
            let cells = rows::texts(&array)
                .ok_or_else(|| Error::column(table.name(), column, "should hold names"))?;
            all.extend((0..cells.len()).map(|i| {
                if cells.is_null(i) {
                    String::new()
                } else {
                    cells.value(i).to_owned()
                }
            }));
        }
        Ok(all)
    };
    let usual = |name: &'static str| table.columns().contains(&name).then_some(name);
    let ids = match opened.roles.id.as_deref().or(usual("id")) {
        Some(column) => cells("--id", column)?,
        None => (1..=count).map(|i| i.to_string()).collect(),
    };
    let tasks = match options.task.as_deref().or(usual("task")) {
        Some(column) => cells("task", column)?,
        None => vec![String::new(); count],
    };
    let all = Queries {
        rows: if needs_text(reads, options) {
            text(opened, options)?
        } else {
            Vec::new()
        },
        vectors: match (reads, beside) {
            (Reads::Vectors, Some(beside)) => {
                if beside.rows() as usize != count {
                    return Err(Error::BadInput(format!(
                        "{} has {} rows of embeddings for {count} queries",
                        beside.name(),
                        beside.rows()
                    )));
                }
                Some(vectors::all(
                    beside,
                    vectors::column(beside, "vectors", None)?,
                )?)
            }
            (Reads::Vectors, None) => {
                let column = vectors::column(table, "vectors", options.vectors.as_deref())?;
                Some(vectors::all(table, column)?)
            }
            _ => None,
        },
        ids,
        ..Queries::default()
    };
    Ok(in_order(all, &tasks))
}

/// The queries in the order in which they take turns.
pub fn in_order(all: Queries, tasks: &[String]) -> Queries {
    let mut names: Vec<String> = tasks.to_vec();
    names.sort_unstable();
    names.dedup();
    let numbers: Option<Vec<i64>> = all.ids.iter().map(|id| id.trim().parse().ok()).collect();
    let mut order: Vec<usize> = (0..all.ids.len()).collect();
    match numbers {
        Some(numbers) => order.sort_by_key(|&i| (&tasks[i], numbers[i], i)),
        None => order.sort_by_key(|&i| (&tasks[i], &all.ids[i], i)),
    }
    Queries {
        rows: if all.rows.is_empty() {
            Vec::new()
        } else {
            order.iter().map(|&i| all.rows[i].clone()).collect()
        },
        ids: order.iter().map(|&i| all.ids[i].clone()).collect(),
        tasks: order
            .iter()
            .map(|&i| names.binary_search(&tasks[i]).unwrap_or(0))
            .collect(),
        names,
        vectors: all.vectors.map(|v| v.select(ndarray::Axis(0), &order)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_stand_by_task_and_by_number() {
        let all = |ids: &[&str]| Queries {
            rows: ids.iter().map(|i| rows::Row::plain(i)).collect(),
            ids: ids.iter().map(|i| (*i).to_owned()).collect(),
            vectors: Some(ndarray::Array2::from_shape_fn((ids.len(), 1), |(i, _)| {
                i as f32
            })),
            ..Queries::default()
        };
        let tasks: Vec<String> = ["b", "a", "b", "a"].map(str::to_owned).to_vec();
        let q = in_order(all(&["10", "9", "2", "30"]), &tasks);
        assert_eq!(q.ids, ["9", "30", "2", "10"]);
        assert_eq!(
            (q.tasks, q.names),
            (vec![0, 0, 1, 1], vec!["a".to_owned(), "b".into()])
        );
        assert_eq!(
            q.vectors.unwrap(),
            ndarray::array![[1.0], [3.0], [2.0], [0.0]]
        );
        assert_eq!(q.rows[0].words(super::super::Part::All), "9");
        // One that is no number, and all are texts.
        let q = in_order(all(&["10", "9", "2", "x"]), &tasks);
        assert_eq!(q.ids, ["9", "x", "10", "2"]);
    }
}
