//! From scores to a subset, and from subsets to the Jaccard index.

use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the size of a subset is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SizeRule {
    /// It is known: in a trial the size of the right subset, else option k.
    Known,
    /// All elements with psi of 0.5 or more, one at least.
    Threshold,
    /// The first so many in the order of psi that the method values most, one at least; where it has no value of a
    /// subset, the likeliest first so many, which are those of threshold.
    BestPrefix,
}

/// What a method says of one set.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// Estimated probability that an element belongs to the right subset, for each.
    pub psi: Vec<f64>,
    /// Elements, the first to choose first; all of them, or at least as many as were asked for.
    pub order: Vec<usize>,
    /// Value of the first 1, 2, … of `order`, if it was asked for and the method has a value of subsets.
    pub values: Option<Vec<f64>>,
}

impl Ranking {
    /// In descending order of psi, ties to the lower number.
    pub fn by_psi(psi: Vec<f64>) -> Ranking {
        let order = descending(&psi);
        Ranking {
            psi,
            order,
            values: None,
        }
    }
}

/// Numbers of `values` in descending order, ties to the lower number.
pub fn descending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    order
}

/// The subset that follows from a ranking; `known` is its size, for rule known. In the order of the ranking.
///
/// # Errors
/// Rule known without a size, or with one of 0 or above the set's.
pub fn cut(ranking: &Ranking, rule: SizeRule, known: Option<usize>) -> Result<Vec<usize>> {
    let n = ranking.psi.len();
    let size = match rule {
        SizeRule::Known => match known {
            Some(k) if k >= 1 && k <= n => k,
            Some(k) => {
                return Err(Error::option(
                    "k",
                    format!("{k} elements cannot be chosen from a set of {n}; give 1 to {n}"),
                ));
            }
            None => {
                return Err(Error::option(
                    "k",
                    "say how many elements to choose, or let size=threshold or size=best-prefix decide",
                ));
            }
        },
        SizeRule::BestPrefix if ranking.values.is_some() => {
            let values = ranking.values.as_deref().unwrap_or_default();
            // The first of equal values: the smaller subset.
            1 + (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
        }
        SizeRule::Threshold | SizeRule::BestPrefix => {
            ranking.psi.iter().filter(|p| **p >= 0.5).count().max(1)
        }
    };
    Ok(ranking.order.iter().copied().take(size).collect())
}

/// Elements in both over elements in either; 1 for two empty subsets.
pub fn jaccard(one: &[usize], other: &[usize]) -> f64 {
    let both = one.iter().filter(|i| other.contains(i)).count();
    match one.len() + other.len() - both {
        0 => 1.0,
        either => both as f64 / either as f64,
    }
}

/// Expected Jaccard index of k of n elements drawn without looking, the right subset having s.
pub fn chance(n: usize, s: usize, k: usize) -> f64 {
    // Hypergeometric: P(i) = C(s, i) C(n - s, k - i) / C(n, k), from logarithms of factorials.
    let mut log = vec![0.0; n + 1];
    for i in 1..=n {
        log[i] = log[i - 1] + (i as f64).ln();
    }
    let choose = |a: usize, b: usize| log[a] - log[b] - log[a - b];
    if s > n || k > n || s + k == 0 {
        return 0.0;
    }
    ((s + k).saturating_sub(n)..=s.min(k))
        .map(|i| {
            let p = (choose(s, i) + choose(n - s, k - i) - choose(n, k)).exp();
            p * i as f64 / (s + k - i) as f64
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_three_rules_by_hand() {
        let mut ranking = Ranking::by_psi(vec![0.2, 0.9, 0.5, 0.9]);
        assert_eq!(ranking.order, [1, 3, 2, 0]);
        assert_eq!(cut(&ranking, SizeRule::Known, Some(2)).unwrap(), [1, 3]);
        assert_eq!(cut(&ranking, SizeRule::Threshold, None).unwrap(), [1, 3, 2]);
        assert_eq!(
            cut(&ranking, SizeRule::BestPrefix, None).unwrap(),
            [1, 3, 2]
        );
        ranking.values = Some(vec![1.0, 3.0, 3.0, 2.0]);
        assert_eq!(cut(&ranking, SizeRule::BestPrefix, None).unwrap(), [1, 3]);
        let low = Ranking::by_psi(vec![0.1, 0.3]);
        assert_eq!(cut(&low, SizeRule::Threshold, None).unwrap(), [1]);
    }

    #[test]
    fn impossible_sizes_are_told() {
        let ranking = Ranking::by_psi(vec![0.2, 0.9]);
        for (known, words) in [
            (Some(0), "give 1 to 2"),
            (Some(3), "set of 2"),
            (None, "say how many"),
        ] {
            let text = cut(&ranking, SizeRule::Known, known)
                .unwrap_err()
                .to_string();
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn jaccard_and_chance_by_hand() {
        assert_eq!(jaccard(&[0, 1, 2], &[2, 1, 5]), 0.5);
        assert_eq!(jaccard(&[], &[]), 1.0);
        assert_eq!(jaccard(&[1], &[]), 0.0);
        // 1 of 2 elements, one right: half the time 1, else 0.
        assert!((chance(2, 1, 1) - 0.5).abs() < 1e-12);
        // 2 of 4, two right: (1 x 1 + 4 x 1/3) / 6.
        assert!((chance(4, 2, 2) - (1.0 + 4.0 / 3.0) / 6.0).abs() < 1e-12);
        assert!((chance(5, 5, 2) - 0.4).abs() < 1e-12);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn chance_is_the_mean_over_all_subsets(n in 2usize..9, s in 1usize..8, k in 1usize..8) {
            prop_assume!(s <= n && k <= n);
            let right: Vec<usize> = (0..s).collect();
            let (mut total, mut count) = (0.0, 0);
            for bits in 0u32..1 << n {
                let subset: Vec<usize> = (0..n).filter(|i| bits >> i & 1 == 1).collect();
                if subset.len() == k {
                    total += jaccard(&subset, &right);
                    count += 1;
                }
            }
            prop_assert!((chance(n, s, k) - total / f64::from(count)).abs() < 1e-9);
        }
    }
}
