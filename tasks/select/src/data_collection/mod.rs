//! Task `data-collection`: decide how many rows to collect from each group for a given budget.
//!
//! Here are the task's trait, its list of methods, its metrics and its output; each method has a file of its own.
//!
//! Three kinds of tables are read:
//! - labelled rows with a group column. To score a method they are a population: it buys rows of a pool, and is
//!   scored by models of what it bought, on rows that are never sold. To plan they are what is at hand: curves are
//!   fitted to it, and the budget buys further rows.
//! - a history of qualities (columns group, n, metric, perhaps se), to which curves are fitted.
//! - curves (columns group, alpha, beta, gamma, perhaps kappa, cost, weight, share, have, cap).

mod baselines;
mod curves;
mod equitable_sampling;
mod input;
mod models;
mod problem;
mod rows;
pub(crate) mod simulations;
mod solve;
mod utility;

pub use baselines::{
    EqualMoney, EqualShares, ExhaustiveShares, InverseShares, OracleShares, PilotThenPlan,
    ProportionalShares, RandomRows, SquareRootShares, WorstFirst,
};
pub use curves::{LearningCurve, Point, Shape, fit};
pub use equitable_sampling::{EquitableSampling, Knowledge};
pub use models::Model;
pub use problem::{Problem, Source};
pub use rows::{Labelled, Rows};
pub use solve::{Group, Setting, by_shares, exhaustive, plan, qualities, shadow_prices};
pub use utility::{Goal, Utility};

use arrow::array::{ArrayRef, Float64Array, StringArray, UInt64Array};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::Output;
use papertrial_core::methods;
use papertrial_core::task::{Applied, Context, Curve, Entry, Job, Measurement, MetricInfo, Task};
use papertrial_core::{Error, Result};
use papertrial_numerics::{sampling, stats};
use rand::RngExt;
use rand_distr::StandardNormal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// A method of this task.
pub trait Collector: Send + Sync {
    /// Decides how many rows to have of each group.
    ///
    /// # Errors
    /// A budget, costs or weights that are impossible, or a model that cannot be trained.
    fn collect(&self, problem: &Problem, context: &Context) -> Result<Collection>;
}

/// What a method yields.
#[derive(Debug, Clone, Default)]
pub struct Collection {
    /// Rows of each group in all, those it had before among them.
    pub counts: Vec<usize>,
    /// How the counts grew, and the like.
    pub curves: Vec<Curve>,
    /// Remarks for the reader.
    pub notes: Vec<String>,
}

/// The methods. A new one is a file of its own, a `mod` line above, and a line here.
const METHODS: &[Entry<dyn Collector>] = methods![
    dyn Collector;
    EquitableSampling,
    EqualShares,
    ProportionalShares,
    InverseShares,
    SquareRootShares,
    EqualMoney,
    WorstFirst,
    RandomRows,
    PilotThenPlan,
    OracleShares,
    ExhaustiveShares,
];

const METRICS: &[MetricInfo] = &[
    MetricInfo::new(
        "utility",
        Some(true),
        "the stated utility of the groups' qualities on test rows",
    ),
    MetricInfo::new(
        "worst-group-accuracy",
        Some(true),
        "accuracy in the group where it is lowest; for classes",
    ),
    MetricInfo::new(
        "worst-group-r2",
        Some(true),
        "R² in the group where it is lowest; for numbers",
    ),
    MetricInfo::new(
        "mean-quality",
        Some(true),
        "mean over the groups of accuracy or R²",
    ),
    MetricInfo::new(
        "gap",
        Some(false),
        "largest less smallest quality of a group",
    ),
    MetricInfo::new("spent", None, "money spent"),
    MetricInfo::new("rows", None, "rows collected"),
];

/// Options of the task: budget, goal and model. `weights`, `costs`, `shares` and `pools` are a list of one number a
/// group (in the order of their names; of a table of curves, of its rows) or an object from names to numbers.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskOptions {
    /// Column of the groups, in place of --group; it is no feature then.
    pub group: Option<String>,
    /// Money for rows; with costs of 1, their number.
    #[schemars(range(min = 0.0, max = 1e12))]
    pub budget: f64,
    /// Money for one round of methods that collect in rounds.
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e12))]
    pub batch: f64,
    /// What predicts the label.
    pub model: Model,
    /// Whether each group has a model of its own rows, or one model of all rows serves all groups.
    pub training: Training,
    /// What is wanted of the groups' qualities.
    pub utility: Goal,
    /// Aversion to inequality, of utility isoelastic.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub aversion: f64,
    /// Penalty on the gap between groups, of utility disparity.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub penalty: f64,
    /// Quality that every group should reach, of utility target.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub target: f64,
    /// Weights of the groups in the utility; 1 each if absent.
    pub weights: Value,
    /// Cost of a row of each group; 1 each if absent.
    pub costs: Value,
    /// Shares of the groups in the population; those of the table if absent.
    pub shares: Value,
    /// Rows of each group that can still be collected; the pool, or any number in a plan, if absent.
    pub pools: Value,
    /// New rows that every group gets at least.
    #[schemars(range(max = 1_000_000_000))]
    pub least: usize,
    /// Share of each group's rows that is held out for validation, and as much again for the test.
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 0.33))]
    pub held_out: f64,
    /// Splits over which the points of a group's curve are averaged for a plan.
    #[schemars(range(min = 1, max = 1000))]
    pub repeats: usize,
    /// Draws of the curves from which the intervals of a plan are computed; 0 for none.
    #[schemars(range(max = 10_000))]
    pub bootstraps: usize,
}

/// Whose rows train a group's model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Training {
    /// Its own.
    Own,
    /// Everybody's.
    Shared,
}

impl Default for TaskOptions {
    fn default() -> Self {
        TaskOptions {
            group: None,
            budget: 1500.0,
            batch: 75.0,
            model: Model::Auto,
            training: Training::Own,
            utility: Goal::Sum,
            aversion: 1.0,
            penalty: 1.0,
            target: 0.8,
            weights: Value::Null,
            costs: Value::Null,
            shares: Value::Null,
            pools: Value::Null,
            least: 0,
            held_out: 0.2,
            repeats: 5,
            bootstraps: 100,
        }
    }
}

/// The task.
pub struct DataCollection;

impl Task for DataCollection {
    papertrial_core::states! {
        "data-collection",
        "decide how many rows to collect from each group for a given budget",
        METHODS,
        METRICS,
        TaskOptions,
    }

    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let (method, asked) = prepare(job)?;
        let problem = input::population(job, &asked, context)?;
        let found = method.collect(&problem, context)?;
        let all: Vec<usize> = (0..problem.groups.len()).collect();
        let qualities: Vec<f64> = match &problem.source {
            Source::Curves(_) => problem.qualities(&found.counts, &all)?,
            Source::Rows(rows) => rows.qualities(&found.counts, &all, rows::Held::Test)?,
        }
        .iter()
        .map(|p| p.value)
        .collect();
        let mut measurement = Measurement {
            curves: found.curves,
            notes: found.notes,
            ..Measurement::default()
        };
        let shown: Vec<String> = problem
            .groups
            .iter()
            .zip(&found.counts)
            .zip(&qualities)
            .map(|((group, n), m)| format!("{}: {n} rows, {m:.4}", group.name))
            .collect();
        measurement.notes.push(shown.join("; "));
        let low = qualities.iter().copied().fold(f64::INFINITY, f64::min);
        let high = qualities.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut set = |name: &str, value: f64| measurement.metrics.insert(name.into(), value);
        set("utility", problem.utility.value(&qualities));
        match &problem.source {
            Source::Rows(rows) if rows.accuracy() => set("worst-group-accuracy", low),
            Source::Rows(_) => set("worst-group-r2", low),
            Source::Curves(_) => None,
        };
        set(
            "mean-quality",
            qualities.iter().sum::<f64>() / qualities.len() as f64,
        );
        set("gap", high - low);
        set("spent", problem.setting().spent(&found.counts));
        let rows: usize = found
            .counts
            .iter()
            .zip(&problem.groups)
            .map(|(n, g)| n - g.have.min(*n))
            .sum();
        set("rows", rows as f64);
        Ok(measurement)
    }

    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied> {
        let mut output = Output::table(out)?;
        let (method, asked) = prepare(job)?;
        let (problem, points, mut notes) = input::at_hand(job, &asked, context)?;
        let curves = problem.curves().unwrap_or_default().to_vec();
        let found = method.collect(&problem, context)?;
        notes.extend(found.notes.iter().cloned());
        let spread = intervals(&*method, &problem, &points, &found.counts, &asked, context)?;
        output.write(&[table(&problem, &curves, &found.counts, &spread)?])?;
        let told = serde_json::json!({
            "curves": problem.groups.iter().zip(&curves)
                .map(|(g, c)| serde_json::json!({"group": g.name, "curve": c})).collect::<Vec<_>>(),
            "utility-against-gap": pareto(&problem, &curves, context)?,
        });
        let text = serde_json::to_string_pretty(&told).map_err(|e| Error::Failed(e.to_string()))?;
        output.side("curves.json", text.as_bytes())?;
        let setting = problem.setting();
        let after = qualities(&curves, &found.counts, &[]);
        let now: Vec<usize> = problem.groups.iter().map(|g| g.have).collect();
        let prices = shadow_prices(&setting, &curves, &found.counts);
        let spent = setting.spent(&found.counts);
        if spent
            + problem
                .groups
                .iter()
                .map(|g| g.cost)
                .fold(f64::INFINITY, f64::min)
            <= problem.budget
        {
            notes.push(format!(
                "{} of the budget is left: more rows bring nothing or there are none",
                problem.budget - spent
            ));
        }
        Ok(Applied {
            files: output.finish()?,
            summary: vec![
                ("groups".into(), problem.groups.len().to_string()),
                ("spent".into(), format!("{spent} of {}", problem.budget)),
                (
                    "expected utility".into(),
                    format!(
                        "{:.4}, now {:.4}",
                        problem.utility.value(&after),
                        problem.utility.value(&qualities(&curves, &now, &[]))
                    ),
                ),
                (
                    "utility of one more unit of money".into(),
                    format!("{:.3e}", prices.iter().copied().fold(0.0, f64::max)),
                ),
            ],
            notes,
            ..Applied::default()
        })
    }
}

/// The method of a job and what is asked of the task.
fn prepare(job: &Job) -> Result<(Box<dyn Collector>, TaskOptions)> {
    Entry::prepare(METHODS, job)
}

/// 95 % intervals of a group, over curves fitted to points with noise of their standard errors.
struct Spread {
    /// Quality with the planned rows.
    quality: (f64, f64),
    /// Rows that the method would plan.
    rows: (f64, f64),
}

/// One [`Spread`] a group; none where curves are given without points or no bootstraps are asked for.
fn intervals(
    method: &dyn Collector,
    problem: &Problem,
    points: &[Vec<Point>],
    counts: &[usize],
    asked: &TaskOptions,
    context: &Context,
) -> Result<Vec<Spread>> {
    if points.is_empty() || asked.bootstraps == 0 {
        return Ok(Vec::new());
    }
    let mut rng = sampling::rng(context.seed, "data-collection intervals");
    let mut quality = vec![Vec::new(); counts.len()];
    let mut rows = vec![Vec::new(); counts.len()];
    for draw in 0..asked.bootstraps {
        context.step("drawing curves", draw, asked.bootstraps);
        let mut fitted = Vec::with_capacity(points.len());
        for group in points {
            let noisy: Vec<Point> = group
                .iter()
                .map(|p| Point {
                    value: p.value + p.error * rng.sample::<f64, _>(StandardNormal),
                    ..*p
                })
                .collect();
            fitted.push(fit(&noisy, Shape::Power, problem.range())?);
        }
        for (q, (curve, n)) in quality.iter_mut().zip(fitted.iter().zip(counts)) {
            q.push(curve.value(*n as f64));
        }
        let again = Problem {
            groups: problem.groups.clone(),
            utility: problem.utility.clone(),
            source: Source::Curves(fitted),
            ..*problem
        };
        for (r, n) in rows.iter_mut().zip(method.collect(&again, context)?.counts) {
            r.push(n as f64);
        }
    }
    let ends = |values: &[f64]| -> Result<(f64, f64)> {
        let q =
            stats::quantiles(values, &[0.025, 0.975]).map_err(|e| Error::Failed(e.to_string()))?;
        Ok((q[0], q[1]))
    };
    quality
        .iter()
        .zip(&rows)
        .map(|(q, r)| {
            Ok(Spread {
                quality: ends(q)?,
                rows: ends(r)?,
            })
        })
        .collect()
}

/// The output: one row a group.
fn table(
    problem: &Problem,
    curves: &[LearningCurve],
    counts: &[usize],
    spread: &[Spread],
) -> Result<RecordBatch> {
    let groups = &problem.groups;
    let whole = |f: &dyn Fn(usize) -> usize| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(
            (0..groups.len()).map(|g| f(g) as u64),
        ))
    };
    let number = |f: &dyn Fn(usize) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values((0..groups.len()).map(f)))
    };
    let new = |g: usize| counts[g].saturating_sub(groups[g].have);
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(
        groups.iter().map(|g| &g.name),
    ));
    let prices = shadow_prices(&problem.setting(), curves, counts);
    let mut columns = vec![
        ("group", names),
        ("have", whole(&|g| groups[g].have)),
        ("collect", whole(&new)),
        ("money", number(&|g| new(g) as f64 * groups[g].cost)),
        (
            "quality_now",
            number(&|g| curves[g].value(groups[g].have as f64)),
        ),
        (
            "quality_expected",
            number(&|g| curves[g].value(counts[g] as f64)),
        ),
    ];
    if !spread.is_empty() {
        let have = |g: usize| groups[g].have as f64;
        columns.push(("quality_low", number(&|g| spread[g].quality.0)));
        columns.push(("quality_high", number(&|g| spread[g].quality.1)));
        columns.push(("collect_low", number(&|g| spread[g].rows.0 - have(g))));
        columns.push(("collect_high", number(&|g| spread[g].rows.1 - have(g))));
    }
    columns.push(("shadow_price", number(&|g| prices[g])));
    RecordBatch::try_from_iter(columns).map_err(|e| Error::Failed(e.to_string()))
}

/// Plans for rising penalties on the gap: weighted sum of qualities, gap, rows.
fn pareto(problem: &Problem, curves: &[LearningCurve], context: &Context) -> Result<Vec<Value>> {
    [0.0, 0.1, 0.3, 1.0, 3.0, 10.0]
        .iter()
        .map(|penalty| {
            let utility = Utility { goal: Goal::Disparity, penalty: *penalty, ..problem.utility.clone() };
            let setting = Setting { utility: &utility, ..problem.setting() };
            let (counts, _) = plan(&setting, curves, &[], context.seed)?;
            let m = qualities(curves, &counts, &[]);
            let sum = Utility { penalty: 0.0, ..utility.clone() }.value(&m);
            let high = m.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let low = m.iter().copied().fold(f64::INFINITY, f64::min);
            Ok(serde_json::json!({"penalty": penalty, "sum": sum, "gap": high - low, "rows": counts}))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_core::data::{Roles, Table};
    use papertrial_core::task::Input;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn job(
        method: &str,
        data: (&str, Value),
        options: Value,
        method_options: Value,
        seed: u64,
    ) -> Job {
        let object = |v: Value| {
            if let Value::Object(map) = v {
                map
            } else {
                Default::default()
            }
        };
        let simulation = simulations::SIMULATIONS
            .iter()
            .find(|s| s.name == data.0)
            .unwrap();
        Job {
            task: "data-collection".into(),
            method: method.into(),
            options: object(method_options),
            task_options: object(options),
            inputs: BTreeMap::from([(
                "data".to_string(),
                Input::Simulation {
                    name: data.0.into(),
                    options: object(data.1),
                },
            )]),
            roles: (simulation.roles)(),
            seed,
        }
    }

    fn context(seed: u64) -> Context<'static> {
        Context {
            simulations: simulations::SIMULATIONS,
            ..Context::with_seed(seed)
        }
    }

    fn small() -> (&'static str, Value) {
        (
            "polygenic-groups",
            json!({"n": 600, "snps": 8, "causal": [4, 6, 8], "shares": [0.5, 0.3, 0.2]}),
        )
    }

    #[test]
    fn closed_form_and_trying_everything_agree() {
        for seed in 0..3 {
            let utility = |method: &str, options: Value| {
                let job = job(
                    method,
                    ("known-curves", json!({"groups": 3})),
                    json!({"budget": 300, "utility": "sum"}),
                    options,
                    seed,
                );
                DataCollection
                    .measure(&job, &context(seed))
                    .unwrap()
                    .metrics["utility"]
            };
            let (a, b) = (
                utility("equitable-sampling", json!({"curves": "known"})),
                utility("exhaustive-shares", json!({})),
            );
            assert!((a - b).abs() <= 1e-9, "{a} {b}");
        }
    }

    #[test]
    fn every_method_runs_on_rows_within_its_budget_and_twice_the_same() {
        for entry in METHODS
            .iter()
            .filter(|e| e.facts.name != "exhaustive-shares")
        {
            let options = json!({"budget": 120, "batch": 20, "costs": {"b": 2}});
            let job = job(entry.facts.name, small(), options, json!({}), 1);
            let first = DataCollection.measure(&job, &context(1)).unwrap();
            assert!(
                first.metrics["spent"] <= 120.0 && first.metrics["spent"] > 118.0,
                "{}: {first:?}",
                entry.facts.name
            );
            assert_eq!(
                first.metrics,
                DataCollection.measure(&job, &context(1)).unwrap().metrics
            );
            assert!(
                first
                    .metrics
                    .keys()
                    .all(|k| METRICS.iter().any(|m| m.name == k))
            );
        }
    }

    #[test]
    fn a_plan_has_one_line_a_group_and_spends_the_budget() {
        let folder = std::env::temp_dir().join(format!("papertrial-plan-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let out = folder.join("plan.csv");
        let options = json!({"budget": 200, "bootstraps": 20, "repeats": 2});
        let done = DataCollection
            .apply(
                &job("equitable-sampling", small(), options, json!({}), 0),
                &out,
                &context(0),
            )
            .unwrap();
        let plan = Table::open(&out, &Default::default()).unwrap();
        let column = |name: &str| rows::numbers(&plan, name, "x").unwrap();
        assert_eq!(plan.rows(), 3);
        assert_eq!(column("collect").iter().sum::<f64>(), 200.0);
        assert_eq!(column("have").iter().sum::<f64>(), 600.0);
        for g in 0..3 {
            assert!(column("quality_low")[g] <= column("quality_high")[g]);
            assert!(column("quality_expected")[g] >= column("quality_now")[g]);
        }
        assert_eq!(done.files.len(), 2);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn impossible_questions_are_told() {
        for (options, told) in [
            (json!({"costs": [1, 0, 1]}), "costs"),
            (json!({"weights": [1, -1, 1]}), "weights"),
            (json!({"shares": {"nobody": 1}}), "nobody"),
            (json!({"budget": 2, "least": 1}), "budget"),
            (json!({"pools": [-1, 1, 1]}), "pools"),
            (json!({"batch": 0}), "above 0"),
            (json!({"group": "trait"}), "--group"),
            (json!({"group": "tribe"}), "tribe"),
            (json!({"model": "logistic"}), "2 to 100 classes"),
        ] {
            let e = DataCollection
                .measure(
                    &job("equitable-sampling", small(), options, json!({}), 0),
                    &context(0),
                )
                .unwrap_err();
            assert!(e.to_string().contains(told), "{told}: {e}");
        }
        let mut no_label = job("equal-shares", small(), json!({}), json!({}), 0);
        no_label.roles = Roles::default();
        let e = DataCollection.measure(&no_label, &context(0)).unwrap_err();
        assert!(e.to_string().contains("alpha, beta, gamma"), "{e}");
    }
}
