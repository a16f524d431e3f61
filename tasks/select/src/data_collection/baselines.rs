//! What equitable sampling is compared with: fixed shares, simple rules, and allocations that know more than they may.

use super::curves::{self, Shape};
use super::equitable_sampling::start;
use super::problem::{Problem, Source};
use super::solve;
use super::{Collection, Collector};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A method without a paper.
const fn baseline(name: &'static str, about: &'static str) -> Facts {
    Facts {
        name,
        about,
        paper: None,
        streams: false,
    }
}

/// The counts with nothing to add.
fn only(counts: Vec<usize>) -> Result<Collection> {
    Ok(Collection {
        counts,
        ..Collection::default()
    })
}

/// Declares a baseline without options.
macro_rules! without_options {
    ($type:ident, $name:literal, $about:literal) => {
        #[doc = concat!("Baseline `", $name, "`: ", $about, ".")]
        #[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
        #[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
        pub struct $type {}

        impl Method for $type {
            const FACTS: Facts = baseline($name, $about);
        }
    };
}

/// Declares a baseline whose money follows fixed shares.
macro_rules! fixed_shares {
    ($type:ident, $name:literal, $about:literal, $share:expr) => {
        without_options!($type, $name, $about);

        impl Collector for $type {
            fn collect(&self, problem: &Problem, _: &Context) -> Result<Collection> {
                problem.setting().check()?;
                let share: fn(&solve::Group) -> f64 = $share;
                let shares: Vec<f64> = problem.groups.iter().map(share).collect();
                only(solve::by_shares(&problem.setting(), &shares))
            }
        }
    };
}

fixed_shares!(
    EqualShares,
    "equal-shares",
    "as many rows of every group",
    |g| g.cost
);
fixed_shares!(
    ProportionalShares,
    "proportional-shares",
    "rows in proportion to the groups' shares of the population",
    |g| g.cost * g.share
);
fixed_shares!(
    InverseShares,
    "inverse-shares",
    "rows in inverse proportion to the groups' shares of the population",
    |g| if g.share > 0.0 { g.cost / g.share } else { 0.0 }
);
fixed_shares!(
    SquareRootShares,
    "square-root-shares",
    "rows in proportion to the square root of the groups' shares of the population",
    |g| g.cost * g.share.sqrt()
);
fixed_shares!(
    EqualMoney,
    "equal-money",
    "as much money for every group, so fewer dear rows",
    |_| 1.0
);

without_options!(
    WorstFirst,
    "worst-first",
    "every batch goes to the group that is worst off at the time"
);

impl Collector for WorstFirst {
    fn collect(&self, problem: &Problem, context: &Context) -> Result<Collection> {
        let setting = problem.setting();
        setting.check()?;
        let (mut counts, points) = start(problem)?;
        let mut now: Vec<f64> = points
            .iter()
            .map(|p| p.last().map_or(0.0, |p| p.value))
            .collect();
        loop {
            let spent = setting.spent(&counts);
            context.step(
                "collecting",
                spent.min(1e15) as usize,
                problem.budget.min(1e15) as usize,
            );
            let left = problem.budget * (1.0 + solve::SLACK) + solve::SLACK - spent;
            let worst = (0..counts.len())
                .filter(|g| counts[*g] < problem.groups[*g].cap && problem.groups[*g].cost <= left)
                .min_by(|a, b| now[*a].total_cmp(&now[*b]));
            let Some(g) = worst else {
                return only(counts);
            };
            let group = &problem.groups[g];
            let rows = (problem.batch.min(left) / group.cost).floor().max(1.0) as usize;
            counts[g] += rows.min(group.cap - counts[g]);
            now[g] = problem
                .qualities(&counts, &[g])?
                .first()
                .map_or(0.0, |p| p.value);
        }
    }
}

without_options!(
    RandomRows,
    "random-rows",
    "rows drawn one by one at random from the population"
);

impl Collector for RandomRows {
    fn collect(&self, problem: &Problem, context: &Context) -> Result<Collection> {
        let setting = problem.setting();
        setting.check()?;
        let mut rng = sampling::rng(context.seed, "data-collection random rows");
        let mut counts: Vec<usize> = (0..problem.groups.len()).map(|g| setting.low(g)).collect();
        let mut left =
            problem.budget * (1.0 + solve::SLACK) + solve::SLACK - setting.spent(&counts);
        loop {
            let weight = |g: usize| {
                let group = &problem.groups[g];
                if counts[g] < group.cap && group.cost <= left {
                    group.share
                } else {
                    0.0
                }
            };
            let total: f64 = (0..counts.len()).map(weight).sum();
            if total <= 0.0 {
                return only(counts);
            }
            let mut at = rng.random::<f64>() * total;
            let mut drawn = None;
            for g in (0..counts.len()).filter(|g| weight(*g) > 0.0) {
                drawn = Some(g);
                at -= weight(g);
                if at < 0.0 {
                    break;
                }
            }
            if let Some(g) = drawn {
                counts[g] += 1;
                left -= problem.groups[g].cost;
            }
        }
    }
}

without_options!(
    PilotThenPlan,
    "pilot-then-plan",
    "curves fitted once to the first batch of every group, all other money planned with them"
);

impl Collector for PilotThenPlan {
    fn collect(&self, problem: &Problem, context: &Context) -> Result<Collection> {
        let setting = problem.setting();
        setting.check()?;
        if let Some(curves) = problem.curves() {
            return only(solve::plan(&setting, curves, &[], context.seed)?.0);
        }
        let (counts, points) = start(problem)?;
        // A group with fewer than two points cannot be fitted; then nothing but equal rows remains.
        let fitted: Result<Vec<_>> = points
            .iter()
            .map(|p| curves::fit(p, Shape::Power, problem.range()))
            .collect();
        let Ok(fitted) = fitted else {
            let costs: Vec<f64> = problem.groups.iter().map(|g| g.cost).collect();
            return only(solve::by_shares(&setting, &costs));
        };
        // What the pilot bought stays bought.
        let groups: Vec<solve::Group> = problem
            .groups
            .iter()
            .zip(&counts)
            .map(|(g, n)| solve::Group {
                have: *n,
                ..g.clone()
            })
            .collect();
        let rest = solve::Setting {
            groups: &groups,
            budget: (problem.budget - setting.spent(&counts)).max(0.0),
            least: 0,
            ..setting
        };
        only(solve::plan(&rest, &fitted, &[], context.seed)?.0)
    }
}

/// Baseline `oracle-shares`: an allocation that knows the curves.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct OracleShares {
    /// Redraws of the population over which the true curves are averaged.
    #[schemars(range(min = 1, max = 1000))]
    pub repeats: usize,
    /// Sizes at which they are measured.
    #[schemars(range(min = 3, max = 100))]
    pub sizes: usize,
}

impl Default for OracleShares {
    fn default() -> Self {
        OracleShares {
            repeats: 5,
            sizes: 12,
        }
    }
}

impl Method for OracleShares {
    const FACTS: Facts = baseline(
        "oracle-shares",
        "the best allocation for the true curves: those given, or averages over redraws measured on the test rows",
    );
}

impl Collector for OracleShares {
    fn collect(&self, problem: &Problem, context: &Context) -> Result<Collection> {
        let setting = problem.setting();
        setting.check()?;
        let rows = match &problem.source {
            Source::Curves(curves) => {
                return only(solve::plan(&setting, curves, &[], context.seed)?.0);
            }
            Source::Rows(rows) => rows,
        };
        // Tables (n, quality) of every group, with 0 for no rows.
        let mut tables: Vec<Vec<(f64, f64)>> = Vec::new();
        for (g, group) in problem.groups.iter().enumerate() {
            context.step("measuring true curves", g, problem.groups.len());
            let most = ((problem.budget / group.cost).min(group.cap as f64)).max(1.0);
            let mut table = vec![(0.0, 0.0)];
            for i in 0..self.sizes {
                let n = most.min(10.0)
                    * (most / most.min(10.0)).powf(i as f64 / (self.sizes - 1) as f64);
                let n = n.round();
                if table.last().is_none_or(|(last, _)| n > *last) && group.cap > 0 {
                    table.push((n, rows.truth(g, n as usize, self.repeats, context.seed)?));
                }
            }
            tables.push(table);
        }
        let u = |counts: &[usize]| {
            let m: Vec<f64> = counts
                .iter()
                .zip(&tables)
                .map(|(n, t)| between(t, *n as f64))
                .collect();
            problem.utility.value(&m)
        };
        Ok(Collection {
            counts: solve::general(&setting, &u, context.seed),
            notes: vec![
                "the true curves were measured on the test rows, which no other method sees".into(),
            ],
            ..Collection::default()
        })
    }
}

/// The value at `x` on the line through the points of a rising table; at the ends, the last value.
fn between(table: &[(f64, f64)], x: f64) -> f64 {
    for pair in table.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        if x <= x1 {
            return y0 + (y1 - y0) * ((x - x0) / (x1 - x0)).max(0.0);
        }
    }
    table.last().map_or(0.0, |last| last.1)
}

/// Baseline `exhaustive-shares`: every allocation is tried.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ExhaustiveShares {
    /// Rows between two allocations that are tried.
    #[schemars(range(min = 1))]
    pub step: usize,
}

impl Default for ExhaustiveShares {
    fn default() -> Self {
        ExhaustiveShares { step: 1 }
    }
}

impl Method for ExhaustiveShares {
    const FACTS: Facts = baseline(
        "exhaustive-shares",
        "the best of all allocations for known curves, by trying each",
    );
}

impl Collector for ExhaustiveShares {
    fn collect(&self, problem: &Problem, _: &Context) -> Result<Collection> {
        let curves = problem.curves().ok_or_else(|| {
            Error::BadInput(
                "exhaustive-shares needs known curves: a table with the columns group, alpha, beta and gamma".into(),
            )
        })?;
        only(solve::exhaustive(&problem.setting(), curves, self.step)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::{Rows, toy};
    use super::super::utility::{Goal, plain};
    use super::*;

    fn problem(shares: [f64; 2], costs: [f64; 2]) -> Problem {
        let rows = Rows::new(toy(&[100, 200]), 0.2, false, 1).unwrap();
        let groups = (0..2)
            .map(|g| solve::Group {
                name: g.to_string(),
                cost: costs[g],
                share: shares[g],
                have: 0,
                cap: rows.pool[g].len(),
            })
            .collect();
        Problem {
            groups,
            utility: plain(Goal::Sum, 2),
            budget: 50.0,
            batch: 10.0,
            least: 0,
            source: Source::Rows(rows),
        }
    }

    fn counts(method: &dyn Collector, problem: &Problem) -> Vec<usize> {
        method
            .collect(problem, &Context::with_seed(2))
            .unwrap()
            .counts
    }

    #[test]
    fn shares_by_hand() {
        let p = problem([0.8, 0.2], [1.0, 1.0]);
        assert_eq!(counts(&EqualShares {}, &p), [25, 25]);
        assert_eq!(counts(&ProportionalShares {}, &p), [40, 10]);
        assert_eq!(counts(&InverseShares {}, &p), [10, 40]);
        assert_eq!(counts(&SquareRootShares {}, &p), [33, 17]);
        // Equal rows at 4 and 1: ten of each. Equal money: 25 each, six rows and 25, and what is left buys one more.
        let dear = problem([0.5, 0.5], [4.0, 1.0]);
        assert_eq!(counts(&EqualShares {}, &dear), [10, 10]);
        assert_eq!(counts(&EqualMoney {}, &dear), [6, 26]);
    }

    #[test]
    fn every_rule_spends_the_money() {
        let p = problem([0.7, 0.3], [1.0, 1.0]);
        let methods: [&dyn Collector; 4] = [
            &WorstFirst {},
            &RandomRows {},
            &PilotThenPlan {},
            &OracleShares::default(),
        ];
        for method in methods {
            let n = counts(method, &p);
            assert!(
                n.iter().sum::<usize>() <= 50 && n[0] <= p.groups[0].cap,
                "{n:?}"
            );
        }
        assert_eq!(counts(&RandomRows {}, &p).iter().sum::<usize>(), 50);
        assert!(
            ExhaustiveShares::default()
                .collect(&p, &Context::with_seed(0))
                .is_err()
        );
    }

    #[test]
    fn tables_are_read_between_their_points() {
        let t = [(0.0, 0.0), (10.0, 0.5), (20.0, 0.6)];
        assert_eq!(
            (between(&t, 5.0), between(&t, 10.0), between(&t, 99.0)),
            (0.25, 0.5, 0.6)
        );
        assert!((between(&t, 15.0) - 0.55).abs() < 1e-12);
    }
}
