//! IEAdjCost: Y. Zheng, S. Scott, K. Deng, *Active learning from multiple noisy labelers with varied costs*, ICDM 2010.
//!
//! 1. Explore as IEThresh does until the interval of every annotator's accuracy is narrower than 0.2.
//! 2. Then ask, about the least certain row, the cheapest set of annotators whose majority is right with probability 0.9 or
//!    more. The set grows greedily: each round adds the annotator, or the two, that raise this probability most for their
//!    fees. The probability is exact (Poisson-binomial); a tie counts a half.
//!
//! Cost as IEThresh; a set of s among A annotators takes O(A² s²) for each annotator added.

use super::ie_thresh::IeThresh;
use super::state::State;
use super::strategy::{
    Axes, EXHAUSTED, Payment, Proposal, Reliability, Strategy, Uncertainty, divisor, most_uncertain,
};
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of IEAdjCost.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct IeAdjCost {
    /// Probability with which the majority must be right.
    #[schemars(range(min = 0.5, max = 1.0))]
    pub target: f64,
    /// Width of an interval below which an annotator is known.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub width: f64,
    /// While exploring: share of the greatest upper end that an annotator's must reach.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub eps: f64,
    /// One minus the level of the intervals.
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1.0))]
    pub alpha: f64,
    /// How uncertain the classifier is of a row.
    pub uncertainty: Uncertainty,
}

impl Default for IeAdjCost {
    fn default() -> Self {
        IeAdjCost {
            target: 0.9,
            width: 0.2,
            eps: 0.9,
            alpha: 0.05,
            uncertainty: Uncertainty::LeastConfidence,
        }
    }
}

impl Method for IeAdjCost {
    const FACTS: Facts = Facts {
        name: "ieadjcost",
        about: "learn who is reliable, then ask the cheapest set of annotators whose majority is right often enough",
        paper: Some("real-world-al"),
        streams: false,
    };
}

impl Strategy for IeAdjCost {
    fn axes(&self) -> Axes {
        Axes {
            mistakes: self.uncertainty.mistakes(),
            payment: Payment::AnnotatorAndRow,
            reliability: Reliability::Uniform,
            ..Axes::PLAIN
        }
    }

    fn propose(&self, state: &State) -> Result<Proposal> {
        let explore = IeThresh {
            eps: self.eps,
            alpha: self.alpha,
            uncertainty: self.uncertainty,
            ..IeThresh::default()
        };
        let beliefs = explore.beliefs(state);
        // 1. An annotator whom the rule no longer asks would stay unknown for ever; only those still in question count.
        let greatest = beliefs
            .iter()
            .map(|b| b.high)
            .fold(f64::NEG_INFINITY, f64::max);
        let unknown = beliefs
            .iter()
            .any(|b| b.high - b.low >= self.width && b.high >= self.eps * greatest);
        if unknown {
            return explore.propose(state);
        }
        // 2.
        let Some((row, score)) = most_uncertain(state, self.uncertainty) else {
            return Ok(EXHAUSTED);
        };
        let candidates: Vec<(usize, f64, f64)> = state
            .askable(row)
            .into_iter()
            .map(|a| (a, beliefs[a].mean, state.fee(row, a)))
            .collect();
        Ok(Proposal::Ask(
            cheapest(&candidates, self.target)
                .into_iter()
                .map(|a| state.about(row, a, score))
                .collect(),
        ))
    }
}

/// Annotators of a set that is right with probability `target`, or as often as the greedy search gets; from (annotator,
/// accuracy, fee).
fn cheapest(candidates: &[(usize, f64, f64)], target: f64) -> Vec<usize> {
    let mut set: Vec<usize> = Vec::new();
    let mut reached = 0.5;
    while reached < target {
        let free: Vec<usize> = (0..candidates.len()).filter(|i| !set.contains(i)).collect();
        let mut found: Option<(Vec<usize>, f64, f64)> = None;
        let alone = free.iter().map(|&i| vec![i]);
        let pairs = free
            .iter()
            .enumerate()
            .flat_map(|(at, &i)| free[at + 1..].iter().map(move |&j| vec![i, j]));
        for more in alone.chain(pairs) {
            let rates: Vec<f64> = set.iter().chain(&more).map(|&i| candidates[i].1).collect();
            let fee: f64 = more.iter().map(|&i| candidates[i].2).sum();
            let right = majority_accuracy(&rates);
            let gain = (right - reached) / divisor(fee);
            if gain > 1e-12 && found.as_ref().is_none_or(|(.., best)| gain > *best) {
                found = Some((more, right, gain));
            }
        }
        let Some((more, right, _)) = found else {
            break;
        };
        set.extend(more);
        reached = right;
    }
    if set.is_empty() {
        // Nobody is better than a coin: the best there is.
        let rates: Vec<f64> = candidates.iter().map(|c| c.1).collect();
        set.extend(super::strategy::best(&rates));
    }
    set.into_iter().map(|i| candidates[i].0).collect()
}

/// Probability that the majority of independent annotators with these accuracies is right; a tie counts a half. O(s²).
pub fn majority_accuracy(accuracies: &[f64]) -> f64 {
    // How probable each number of right answers is.
    let mut right = vec![1.0];
    for p in accuracies {
        let mut next = vec![0.0; right.len() + 1];
        for (count, q) in right.iter().enumerate() {
            next[count] += q * (1.0 - p);
            next[count + 1] += q * p;
        }
        right = next;
    }
    let n = accuracies.len();
    right
        .iter()
        .enumerate()
        .map(|(count, q)| match (2 * count).cmp(&n) {
            std::cmp::Ordering::Greater => *q,
            std::cmp::Ordering::Equal => 0.5 * q,
            std::cmp::Ordering::Less => 0.0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn majorities_by_hand() {
        let p = 0.8f64;
        let three = p.powi(3) + 3.0 * p * p * (1.0 - p);
        assert!((majority_accuracy(&[p; 3]) - three).abs() < 1e-12);
        assert!((majority_accuracy(&[p, p]) - p).abs() < 1e-12);
        assert_eq!(majority_accuracy(&[]), 0.5);
    }

    #[test]
    fn cheap_sets_reach_the_target() {
        // Three of 0.8 reach 0.896, five 0.942.
        let five: Vec<_> = (0..5).map(|a| (a, 0.8, 1.0)).collect();
        assert_eq!(cheapest(&five, 0.89).len(), 3);
        assert_eq!(cheapest(&five, 0.9).len(), 5);
        // One dear expert is cheaper than five of these.
        assert_eq!(cheapest(&[(0, 0.55, 1.0), (1, 0.95, 3.0)], 0.9), [1]);
        assert_eq!(cheapest(&[(4, 0.3, 1.0), (7, 0.4, 1.0)], 0.9), [7]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn majorities_agree_with_counting_all_outcomes(p in prop::collection::vec(0.0f64..1.0, 0..7)) {
            let n = p.len();
            let mut sum = 0.0;
            for outcome in 0u32..1 << n {
                let chance: f64 = p
                    .iter()
                    .enumerate()
                    .map(|(i, p)| if outcome >> i & 1 == 1 { *p } else { 1.0 - p })
                    .product();
                let twice = 2 * outcome.count_ones() as usize;
                sum += chance * if twice > n { 1.0 } else if twice == n { 0.5 } else { 0.0 };
            }
            prop_assert!((majority_accuracy(&p) - sum).abs() < 1e-12);
        }
    }
}
