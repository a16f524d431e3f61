//! From tables and options to a pool.

use super::TaskOptions;
use super::pool::{Annotator, Pool};
use super::run::Lines;
use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use papertrial_core::data::{Features, Roles, Table};
use papertrial_core::task::{Context, Job};
use papertrial_core::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;

/// How the rows are called: by the id column, else by their number from 0.
pub struct RowNames {
    names: Option<Vec<String>>,
    places: HashMap<String, usize>,
    rows: usize,
}

impl RowNames {
    /// The names of a table's rows.
    ///
    /// # Errors
    /// The id column is missing, or an id is empty or occurs twice.
    pub fn of(table: &Table, roles: &Roles) -> Result<RowNames> {
        let rows = table.rows() as usize;
        let Some(column) = &roles.id else {
            return Ok(RowNames {
                names: None,
                places: HashMap::new(),
                rows,
            });
        };
        let index = table.column_for("--id", column)?;
        let mut names = Vec::with_capacity(rows);
        let mut places = HashMap::with_capacity(rows);
        for array in table.column(index)? {
            let text = cast(&array, &DataType::Utf8)
                .map_err(|e| Error::column(table.name(), column, e))?;
            for cell in text.as_string::<i32>() {
                let row = names.len();
                let name = cell
                    .map(str::trim)
                    .filter(|c| !c.is_empty())
                    .ok_or_else(|| {
                        Error::column(table.name(), column, format!("row {} has no id", row + 1))
                    })?;
                if let Some(first) = places.insert(name.to_owned(), row) {
                    return Err(Error::column(
                        table.name(),
                        column,
                        format!(
                            "rows {} and {} have the same id '{name}'; answers could not be told apart",
                            first + 1,
                            row + 1
                        ),
                    ));
                }
                names.push(name.to_owned());
            }
        }
        Ok(RowNames {
            names: Some(names),
            places,
            rows,
        })
    }

    /// The row of that name.
    pub fn find(&self, name: &str) -> Option<usize> {
        match &self.names {
            Some(_) => self.places.get(name).copied(),
            None => name.parse().ok().filter(|row| *row < self.rows),
        }
    }

    /// The name of a row.
    pub fn name(&self, row: usize) -> String {
        match &self.names {
            Some(names) => names.get(row).cloned().unwrap_or_default(),
            None => row.to_string(),
        }
    }
}

/// Features of a table without the columns of costs that the options name.
///
/// # Errors
/// As [`Features::of`].
pub fn features(table: &Table, roles: &Roles, asked: &TaskOptions) -> Result<Features> {
    let costs: Vec<&str> = [&asked.row_cost, &asked.row_fee]
        .into_iter()
        .filter_map(|c| c.as_deref())
        .collect();
    if costs.is_empty() {
        return Features::of(table, roles);
    }
    let mut roles = roles.clone();
    if roles.features.is_empty() {
        let taken: Vec<&str> = roles
            .named()
            .map(|(_, column)| column)
            .chain(costs)
            .collect();
        roles.features = table
            .columns()
            .into_iter()
            .filter(|c| !taken.contains(c))
            .map(str::to_owned)
            .collect();
    }
    Features::of(table, &roles)
}

/// A column of factors for each row; ones without a name.
///
/// # Errors
/// The column is missing, or holds something else than numbers from 0.
pub fn factors(table: &Table, option: &str, column: Option<&str>) -> Result<Vec<f64>> {
    let Some(column) = column else {
        return Ok(vec![1.0; table.rows() as usize]);
    };
    let index = table.column_for(option, column)?;
    let mut found = Vec::new();
    for array in table.column(index)? {
        let numbers =
            cast(&array, &DataType::Float64).map_err(|e| Error::column(table.name(), column, e))?;
        for value in numbers.as_primitive::<Float64Type>() {
            match value {
                Some(v) if v.is_finite() && v >= 0.0 => found.push(v),
                _ => {
                    return Err(Error::column(
                        table.name(),
                        column,
                        format!("row {} is not a number from 0", found.len() + 1),
                    ));
                }
            }
        }
    }
    Ok(found)
}

/// The annotators of the options: names and fees. `count` of them without names.
///
/// # Errors
/// Fees for another number of annotators.
pub fn annotators(names: Vec<String>, fees: &[f64]) -> Result<Vec<Annotator>> {
    if !fees.is_empty() && fees.len() != names.len() {
        return Err(Error::option(
            "annotator-fee",
            format!("has {} fees for {} annotators", fees.len(), names.len()),
        ));
    }
    Ok(names
        .into_iter()
        .enumerate()
        .map(|(a, name)| Annotator {
            name,
            fee: fees.get(a).copied().unwrap_or(1.0),
        })
        .collect())
}

/// The pool of a run: classes and annotators from the options, else from the answers.
///
/// # Errors
/// As [`Features::matrix`] and [`Pool::new`].
pub fn pool(
    table: &Table,
    job: &Job,
    asked: &TaskOptions,
    lines: Option<&Lines>,
    context: &Context,
) -> Result<Pool> {
    let features = features(table, &job.roles, asked)?;
    let names = match (asked.annotators.is_empty(), lines) {
        (true, Some(lines)) => lines.annotators(),
        _ => asked.annotators.clone(),
    };
    let people = annotators(names, &asked.annotator_fee)?;
    let classes = match &asked.classes {
        Some(given) => words(given)?,
        None => match &job.roles.label {
            Some(column) => known_classes(table, column)?,
            None => sorted(lines.map(Lines::classes).unwrap_or_default()),
        },
    };
    let x = features.matrix(context)?;
    let mut pool = Pool::new(x, features.names().to_vec(), classes, people)?;
    pool.row_costs = factors(table, "row-cost", asked.row_cost.as_deref())?;
    pool.row_fees = factors(table, "row-fee", asked.row_fee.as_deref())?;
    match &asked.cost_matrix {
        Some(costs) => pool.with_costs(costs),
        None => Ok(pool),
    }
}

/// The labels that occur in a column, some of which may be empty.
fn known_classes(table: &Table, column: &str) -> Result<Vec<String>> {
    let index = table.column_for("--label", column)?;
    let mut found = std::collections::BTreeSet::new();
    for array in table.column(index)? {
        let text =
            cast(&array, &DataType::Utf8).map_err(|e| Error::column(table.name(), column, e))?;
        found.extend(
            text.as_string::<i32>()
                .iter()
                .flatten()
                .map(str::trim)
                .filter(|c| !c.is_empty())
                .map(str::to_owned),
        );
    }
    Ok(sorted(found.into_iter().collect()))
}

/// Whole numbers in their numeric order, words in that of the alphabet.
fn sorted(mut names: Vec<String>) -> Vec<String> {
    if names.iter().all(|n| n.parse::<i64>().is_ok()) {
        names.sort_by_key(|n| n.parse::<i64>().unwrap_or_default());
    } else {
        names.sort_unstable();
    }
    names
}

/// Words or numbers of the option `classes` as texts.
///
/// # Errors
/// Something else.
pub fn words(given: &[Value]) -> Result<Vec<String>> {
    given
        .iter()
        .map(|value| match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            other => Err(Error::option(
                "classes",
                format!("takes a list of labels, not {other}"),
            )),
        })
        .collect()
}
