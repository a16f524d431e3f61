//! From a table and the task's options to a [`Problem`].

use super::curves::{self, LearningCurve, Point, Shape};
use super::problem::{Problem, Source};
use super::rows::{Labelled, Rows, numbers};
use super::solve::Group;
use super::utility::Utility;
use super::{TaskOptions, Training};
use papertrial_core::data::{Labels, Roles, Table};
use papertrial_core::task::{Context, Job};
use papertrial_core::{Error, Result};
use serde_json::Value;

/// Rows that can be collected where nothing limits them.
const ENDLESS: usize = 1 << 50;

/// The table as a population to buy from, or as curves.
///
/// # Errors
/// A table or options that do not fit.
pub fn population(job: &Job, asked: &TaskOptions, context: &Context) -> Result<Problem> {
    let table = job.table("data", context)?;
    let roles = roles(job, asked);
    if roles.label.is_none() {
        return Ok(summary(&table, &roles, asked)?.0);
    }
    let data = Labelled::of(&table, &roles, asked.model, context)?;
    let names = data.names.clone();
    let sizes: Vec<f64> = data.members.iter().map(|m| m.len() as f64).collect();
    let rows = Rows::new(
        data,
        asked.held_out,
        asked.training == Training::Shared,
        context.seed,
    )?;
    let caps: Vec<f64> = rows.pool.iter().map(|p| p.len() as f64).collect();
    let mut problem = build(
        &names,
        asked,
        &sizes,
        Defaults::default(),
        Source::Rows(rows),
    )?;
    for (group, cap) in problem.groups.iter_mut().zip(caps) {
        group.cap = group.cap.min(cap as usize);
    }
    Ok(problem)
}

/// The table as what is at hand: curves, the points they were fitted to (none where curves are given), notes.
///
/// # Errors
/// A table or options that do not fit, or a group with too few rows or points.
pub fn at_hand(
    job: &Job,
    asked: &TaskOptions,
    context: &Context,
) -> Result<(Problem, Vec<Vec<Point>>, Vec<String>)> {
    let table = job.table("data", context)?;
    let roles = roles(job, asked);
    if roles.label.is_none() {
        let (problem, points) = summary(&table, &roles, asked)?;
        return Ok((problem, points, Vec::new()));
    }
    let data = Labelled::of(&table, &roles, asked.model, context)?;
    let mut points = Vec::new();
    let mut fitted = Vec::new();
    let mut notes = Vec::new();
    for g in 0..data.names.len() {
        context.step("measuring curves", g, data.names.len());
        let measured = data.pilot(g, asked.repeats, context.seed)?;
        let curve = curves::fit(&measured, Shape::Power, (0.0, 1.0))?;
        if curve.beta == 0.0 {
            notes.push(format!(
                "group {}: no gain by more rows was seen, so none is expected",
                data.names[g]
            ));
        }
        fitted.push(curve);
        points.push(measured);
    }
    if asked.training == Training::Shared {
        notes.push("the curves are those of models of a group's own rows; what rows of others add is not in them".into());
    }
    let sizes: Vec<f64> = data.members.iter().map(|m| m.len() as f64).collect();
    let defaults = Defaults {
        have: Some(sizes.clone()),
        ..Defaults::default()
    };
    let problem = build(&data.names, asked, &sizes, defaults, Source::Curves(fitted))?;
    Ok((problem, points, notes))
}

/// The job's roles, with the group column of the task's options.
fn roles(job: &Job, asked: &TaskOptions) -> Roles {
    let mut roles = job.roles.clone();
    if let Some(group) = &asked.group {
        roles.group = Some(group.clone());
        roles.features.retain(|f| f != group);
    }
    roles
}

/// A table of curves or of a history.
fn summary(
    table: &Table,
    roles: &Roles,
    asked: &TaskOptions,
) -> Result<(Problem, Vec<Vec<Point>>)> {
    let has = |column: &str| table.columns().contains(&column);
    let group = roles.group.clone().unwrap_or_else(|| "group".into());
    let optional = |column: &str| -> Result<Option<Vec<f64>>> {
        if has(column) {
            numbers(table, column, "--data").map(Some)
        } else {
            Ok(None)
        }
    };
    let groups = |table: &Table| -> Result<Labels> {
        Labels::of(
            table,
            &Roles {
                label: Some(group.clone()),
                ..Roles::default()
            },
        )?
        .ok_or_else(|| Error::option("--group", "name the column of the groups"))
    };
    if has("alpha") && has("beta") && has("gamma") {
        let labels = groups(table)?;
        let names: Vec<String> = labels
            .codes
            .iter()
            .map(|c| labels.names[*c as usize].clone())
            .collect();
        if labels.names.len() != names.len() {
            return Err(Error::column(
                table.name(),
                &group,
                "names a group twice; a curve is one row a group",
            ));
        }
        let (alpha, beta, gamma) = (
            numbers(table, "alpha", "--data")?,
            numbers(table, "beta", "--data")?,
            numbers(table, "gamma", "--data")?,
        );
        let kappa = optional("kappa")?.unwrap_or_else(|| vec![1.0; names.len()]);
        for (column, values, valid) in [
            ("alpha", &alpha, (|v| v <= 1.0) as fn(f64) -> bool),
            ("beta", &beta, |v| v >= 0.0),
            ("gamma", &gamma, |v| v > 0.0),
            ("kappa", &kappa, |v| v > 0.0),
        ] {
            if values.iter().any(|v| !valid(*v)) {
                return Err(Error::column(
                    table.name(),
                    column,
                    "is out of range: alpha is at most 1, beta at least 0, gamma and kappa above 0",
                ));
            }
        }
        let curves: Vec<LearningCurve> = (0..names.len())
            .map(|g| LearningCurve {
                shape: Shape::Power,
                alpha: alpha[g],
                beta: beta[g],
                gamma: gamma[g],
                kappa: kappa[g],
                ceiling: 1.0,
            })
            .collect();
        let shares = optional("share")?.unwrap_or_else(|| vec![1.0; names.len()]);
        let defaults = Defaults {
            have: optional("have")?,
            cost: optional("cost")?,
            weight: optional("weight")?,
            cap: optional("cap")?,
        };
        return Ok((
            build(&names, asked, &shares, defaults, Source::Curves(curves))?,
            Vec::new(),
        ));
    }
    if has("n") && has("metric") {
        let labels = groups(table)?;
        let (n, metric) = (
            numbers(table, "n", "--data")?,
            numbers(table, "metric", "--data")?,
        );
        let error = optional("se")?.unwrap_or_else(|| vec![0.01; n.len()]);
        let mut points = vec![Vec::new(); labels.names.len()];
        for (row, code) in labels.codes.iter().enumerate() {
            if metric[row] > 1.0 || n[row] < 0.0 || error[row] <= 0.0 {
                return Err(Error::BadInput(format!(
                    "{}: row {}: metric must be at most 1, n at least 0 and se above 0",
                    table.name(),
                    row + 1
                )));
            }
            points[*code as usize].push(Point {
                n: n[row],
                value: metric[row],
                error: error[row],
            });
        }
        let mut fitted = Vec::new();
        for (name, group) in labels.names.iter().zip(&points) {
            if group.len() < 2 {
                return Err(Error::BadInput(format!(
                    "{}: group {name} has {} point; a learning curve needs at least 2",
                    table.name(),
                    group.len()
                )));
            }
            fitted.push(curves::fit(group, Shape::Power, (0.0, 1.0))?);
        }
        let have: Vec<f64> = points
            .iter()
            .map(|p| p.iter().fold(0.0, |m: f64, p| m.max(p.n)))
            .collect();
        let defaults = Defaults {
            have: Some(have.clone()),
            ..Defaults::default()
        };
        return Ok((
            build(
                &labels.names,
                asked,
                &have,
                defaults,
                Source::Curves(fitted),
            )?,
            points,
        ));
    }
    Err(Error::option(
        "--label",
        format!(
            "name the column to predict; without one, {} must have the columns group, alpha, beta, gamma (curves) or group, n, metric (a history)",
            table.name()
        ),
    ))
}

/// What the table says of the groups, where it does.
#[derive(Default)]
struct Defaults {
    have: Option<Vec<f64>>,
    cost: Option<Vec<f64>>,
    weight: Option<Vec<f64>>,
    cap: Option<Vec<f64>>,
}

/// The problem: what the options say goes before what the table says.
fn build(
    names: &[String],
    asked: &TaskOptions,
    shares: &[f64],
    defaults: Defaults,
    source: Source,
) -> Result<Problem> {
    let groups = names.len();
    let or = |values: Option<Vec<f64>>, value: f64| values.unwrap_or_else(|| vec![value; groups]);
    let have = or(defaults.have, 0.0);
    let costs = by_group("costs", &asked.costs, names, &or(defaults.cost, 1.0))?;
    let weights = by_group("weights", &asked.weights, names, &or(defaults.weight, 1.0))?;
    let shares = by_group("shares", &asked.shares, names, shares)?;
    let table_caps = defaults
        .cap
        .map(|caps| caps.iter().zip(&have).map(|(c, h)| c - h).collect());
    let more = by_group(
        "pools",
        &asked.pools,
        names,
        &or(table_caps, ENDLESS as f64),
    )?;
    if more.iter().any(|m| *m < 0.0) {
        return Err(Error::option("pools", "must be at least 0 rows a group"));
    }
    let total: f64 = shares.iter().sum();
    let problem = Problem {
        groups: (0..groups)
            .map(|g| Group {
                name: names[g].clone(),
                cost: costs[g],
                share: if total > 0.0 {
                    shares[g] / total
                } else {
                    shares[g]
                },
                have: have[g].max(0.0) as usize,
                cap: (have[g].max(0.0) + more[g]).min(ENDLESS as f64) as usize,
            })
            .collect(),
        utility: Utility {
            goal: asked.utility,
            weights,
            aversion: asked.aversion,
            penalty: asked.penalty,
            target: asked.target,
        },
        budget: asked.budget,
        batch: asked.batch,
        least: asked.least,
        source,
    };
    problem.setting().check()?;
    Ok(problem)
}

/// One number a group from a list in their order, from an object by their names, or `default`.
fn by_group(option: &str, value: &Value, names: &[String], default: &[f64]) -> Result<Vec<f64>> {
    let wrong = || {
        Error::option(
            option,
            format!(
                "takes a list of {} numbers or an object from group to number",
                names.len()
            ),
        )
    };
    match value {
        Value::Null => Ok(default.to_vec()),
        Value::Array(list) if list.len() == names.len() => {
            list.iter().map(|v| v.as_f64().ok_or_else(wrong)).collect()
        }
        Value::Object(map) => {
            let mut values = default.to_vec();
            for (name, v) in map {
                let g = names.iter().position(|n| n == name).ok_or_else(|| {
                    Error::unknown(
                        "group",
                        name,
                        names.iter().map(String::as_str),
                        format!("option {option}"),
                    )
                })?;
                values[g] = v.as_f64().ok_or_else(wrong)?;
            }
            Ok(values)
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_by_order_and_by_name() {
        let names = ["a".to_string(), "b".to_string()];
        let get = |v: Value| by_group("costs", &v, &names, &[1.0, 1.0]);
        assert_eq!(get(Value::Null).unwrap(), [1.0, 1.0]);
        assert_eq!(get(json!([2, 3.5])).unwrap(), [2.0, 3.5]);
        assert_eq!(get(json!({"b": 4})).unwrap(), [1.0, 4.0]);
        assert!(
            get(json!({"c": 4}))
                .unwrap_err()
                .to_string()
                .contains("'c'")
        );
        assert!(
            get(json!([1]))
                .unwrap_err()
                .to_string()
                .contains("list of 2")
        );
        assert!(get(json!("x")).is_err());
    }
}
