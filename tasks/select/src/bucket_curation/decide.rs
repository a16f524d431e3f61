//! From laws to decisions: the union with the lowest predicted error at each budget, and where it changes.

use super::fit::Laws;
use super::law::{Part, predict};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which unions are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unions {
    /// The best bucket, the best two, and so on, by fitted utility (the paper's).
    #[default]
    Nested,
    /// Every set of buckets, for up to 12.
    All,
}

/// Buckets in an order of their own, best first.
pub type Union = Vec<usize>;

/// The unions to compare.
///
/// # Errors
/// All sets of more than 12 buckets.
pub fn candidates(kind: Unions, order: &[usize]) -> Result<Vec<Union>> {
    match kind {
        Unions::Nested => Ok((1..=order.len()).map(|k| order[..k].to_vec()).collect()),
        Unions::All if order.len() > 12 => Err(Error::option(
            "unions",
            format!(
                "all sets of {} buckets are too many; give nested, or at most 12 buckets",
                order.len()
            ),
        )),
        Unions::All => Ok((1..1usize << order.len())
            .map(|set| {
                let of = order.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1);
                of.map(|(_, b)| *b).collect()
            })
            .collect()),
    }
}

/// Buckets by fitted utility, the steepest first; equal ones in their given order.
pub fn by_utility(laws: &Laws) -> Vec<usize> {
    let mut order: Vec<usize> = (0..laws.own.len()).collect();
    order.sort_by(|a, b| laws.own[*a].utility.total_cmp(&laws.own[*b].utility));
    order
}

/// The predicted error of a union.
pub fn error(laws: &Laws, rows: &[f64], union: &[usize], samples: f64) -> f64 {
    let parts: Vec<Part> = union.iter().map(|b| (laws.own[*b], rows[*b])).collect();
    predict(&laws.shared, &parts, samples)
}

/// The place among `unions` of the lowest predicted error, and that error; of equal ones the first.
pub fn best(laws: &Laws, rows: &[f64], unions: &[Union], samples: f64) -> (usize, f64) {
    unions
        .iter()
        .map(|u| error(laws, rows, u, samples))
        .enumerate()
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap_or((0, f64::NAN))
}

/// Budgets between `from` and `to` at which the best union changes, each with the union from there on.
pub fn crossovers(
    laws: &Laws,
    rows: &[f64],
    unions: &[Union],
    from: f64,
    to: f64,
) -> Vec<(f64, usize)> {
    /// Parts of the range in which at most one change is looked for.
    const PARTS: usize = 200;
    let at = |i: usize| (from.ln() + (to / from).ln() * i as f64 / PARTS as f64).exp();
    let mut changes = Vec::new();
    let mut last = best(laws, rows, unions, from).0;
    for i in 1..=PARTS {
        let next = best(laws, rows, unions, at(i)).0;
        if next == last {
            continue;
        }
        let (mut low, mut high) = (at(i - 1), at(i));
        while high / low > 1.0 + 1e-6 {
            let middle = (low * high).sqrt();
            if best(laws, rows, unions, middle).0 == last {
                low = middle;
            } else {
                high = middle;
            }
        }
        changes.push((high, best(laws, rows, unions, high).0));
        last = next;
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::super::law::{Own, Shared, Wear};
    use super::*;

    /// One bucket better at first that wears out fast, one that lasts.
    fn laws() -> Laws {
        Laws {
            shared: Shared {
                normaliser: 1000.0,
                irreducible: 0.05,
                wear: Wear::EffectiveUtility,
                irreducible_decays: false,
            },
            own: vec![
                Own {
                    utility: -0.1,
                    half_life: 20.0,
                },
                Own {
                    utility: -0.2,
                    half_life: 1.0,
                },
            ],
            rmse: 0.0,
        }
    }

    #[test]
    fn unions_are_nested_by_utility_or_all() {
        let order = by_utility(&laws());
        assert_eq!(order, [1, 0]);
        assert_eq!(
            candidates(Unions::Nested, &order).unwrap(),
            [vec![1], vec![1, 0]]
        );
        let all = candidates(Unions::All, &order).unwrap();
        assert_eq!(all, [vec![1], vec![0], vec![1, 0]]);
        assert!(candidates(Unions::All, &[0; 13]).is_err());
    }

    #[test]
    fn more_compute_calls_for_more_data_and_the_change_is_where_both_are_equal() {
        let laws = laws();
        let rows = [1000.0, 1000.0];
        let unions = candidates(Unions::Nested, &by_utility(&laws)).unwrap();
        assert_eq!(best(&laws, &rows, &unions, 500.0).0, 0);
        assert_eq!(best(&laws, &rows, &unions, 50_000.0).0, 1);
        let changes = crossovers(&laws, &rows, &unions, 500.0, 50_000.0);
        assert_eq!(changes.len(), 1);
        let (at, to) = changes[0];
        assert_eq!(to, 1);
        let gap = error(&laws, &rows, &unions[0], at) - error(&laws, &rows, &unions[1], at);
        assert!(gap.abs() < 1e-6, "{gap}");
    }
}
