//! How well a ranked list of images finds a class: everything from the ranks of the class' images.
//!
//! A rank counts the images that score at least as much, so that of equally scored images those of the class come
//! last: a search that cannot tell images apart gets no credit for their order. Images that are removed from a search
//! have the score [`REMOVED`], images that a search did not reach have [`UNREACHED`]; the former do not count at all,
//! the latter count as not returned.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Score of an image that is taken out of a search, such as the one that the query was cut from.
pub const REMOVED: f32 = f32::NEG_INFINITY;

/// Score of an image that an approximate search did not reach; below every cosine and every standardised score.
pub const UNREACHED: f32 = f32::MIN;

/// What an average precision is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DivideBy {
    /// The images of the class.
    Positives,
    /// The images of the class, or the returns if these are fewer.
    Reachable,
}

/// Which average precision is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goal {
    /// Images that a search returns.
    pub returns: usize,
    /// What the sum of precisions is divided by.
    pub divide_by: DivideBy,
}

impl Goal {
    /// Average precision of the positives' scores against the negatives', 0 to 1; 0 if there are no positives.
    pub fn value(&self, positives: &[f32], negatives: &[f32]) -> f64 {
        Ranks::of(positives, negatives, self.returns).average_precision(self.divide_by)
    }
}

/// The ranks at which the images of a class come among those that a search returns.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranks {
    /// Rank from 1 of each image of the class that was returned, ascending.
    ranks: Vec<usize>,
    /// Images of the class, returned or not.
    positives: usize,
    /// All images that were searched.
    images: usize,
    /// Images that the search may return.
    returns: usize,
}

impl Ranks {
    /// From the scores of the class' images and of all others.
    ///
    /// Time O((P + N) log R) for P positives, N negatives and R returns: only the best R positives are sorted, and a
    /// negative below all of these is passed over.
    pub fn of(positives: &[f32], negatives: &[f32], returns: usize) -> Ranks {
        let mut sorted: Vec<f32> = positives.to_vec();
        sorted.retain(|s| *s != REMOVED);
        let count = sorted.len();
        sorted.retain(|s| *s != UNREACHED);
        if returns > 0 && sorted.len() > returns {
            sorted.select_nth_unstable_by(returns - 1, |a, b| b.total_cmp(a));
        }
        sorted.truncate(returns);
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        // ahead[j]: negatives that come before the j-th positive, but not before the one ahead of it.
        let mut ahead = vec![0usize; sorted.len() + 1];
        let mut images = count;
        let lowest = sorted.last().copied().unwrap_or(f32::INFINITY);
        for &score in negatives {
            images += usize::from(score != REMOVED);
            if score >= lowest {
                ahead[sorted.partition_point(|s| *s > score)] += 1;
            }
        }
        let mut before = 0;
        let ranks = (0..sorted.len()).map(|j| {
            before += ahead[j];
            before + j + 1
        });
        Ranks {
            ranks: ranks.take_while(|r| *r <= returns).collect(),
            positives: count,
            images,
            returns,
        }
    }

    /// Mean precision at the ranks of the class' images, 0 to 1.
    pub fn average_precision(&self, divide_by: DivideBy) -> f64 {
        let whole = match divide_by {
            DivideBy::Positives => self.positives,
            DivideBy::Reachable => self.positives.min(self.returns),
        };
        if whole == 0 {
            return 0.0;
        }
        self.precisions().sum::<f64>() / whole as f64
    }

    /// Area under the line through the points (recall, precision) of the class' images, flat before the first.
    pub fn area(&self) -> f64 {
        let (mut area, mut last) = (0.0, None);
        for precision in self.precisions() {
            area += (last.unwrap_or(precision) + precision) / 2.0;
            last = Some(precision);
        }
        area / self.positives.max(1) as f64
    }

    /// Share of the class among the first `k` images, or among all if there are fewer.
    pub fn precision_at(&self, k: usize) -> f64 {
        let found = self.ranks.partition_point(|r| *r <= k);
        found as f64 / k.min(self.images).max(1) as f64
    }

    /// Share of the class' images that were returned.
    pub fn recall(&self) -> f64 {
        self.ranks.len() as f64 / self.positives.max(1) as f64
    }

    /// The greatest precision at a recall of at least `recall`; 0 if it is not reached.
    pub fn precision_at_recall(&self, recall: f64) -> f64 {
        let least = (recall * self.positives as f64 - 1e-9).ceil().max(1.0) as usize;
        self.precisions().skip(least - 1).fold(0.0, f64::max)
    }

    /// Precision at each image of the class.
    fn precisions(&self) -> impl Iterator<Item = f64> + '_ {
        let found = self.ranks.iter().zip(1..);
        found.map(|(rank, found)| f64::from(found) / *rank as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use DivideBy::{Positives, Reachable};

    #[test]
    fn a_list_ranked_by_hand() {
        // Order: + - + - - +, ranks 1, 3, 6.
        let list = |returns| Ranks::of(&[0.9, 0.5, 0.1], &[0.7, 0.3, 0.2], returns);
        let ranks = list(1000);
        assert_eq!(ranks.ranks, [1, 3, 6]);
        let ap = (1.0 + 2.0 / 3.0 + 3.0 / 6.0) / 3.0;
        assert!((ranks.average_precision(Positives) - ap).abs() < 1e-12);
        let area = (1.0 + (1.0 + 2.0 / 3.0) / 2.0 + (2.0 / 3.0 + 0.5) / 2.0) / 3.0;
        assert!((ranks.area() - area).abs() < 1e-12);
        assert_eq!(ranks.precision_at(3), 2.0 / 3.0);
        assert_eq!(ranks.precision_at(10), 0.5);
        assert_eq!(ranks.recall(), 1.0);
        assert_eq!(ranks.precision_at_recall(0.5), 2.0 / 3.0);
        assert_eq!(list(5).precision_at_recall(1.0), 0.0);
        // Two returns: one image of three found; the rules differ in what that is a share of.
        let two = list(2);
        assert!((two.average_precision(Positives) - 1.0 / 3.0).abs() < 1e-12);
        assert!((two.average_precision(Reachable) - 0.5).abs() < 1e-12);
        assert!((two.recall() - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn ties_removed_and_unreached_images() {
        // Nothing is told apart: the class comes last.
        assert_eq!(Ranks::of(&[0.0], &[0.0, 0.0, 0.0], 9).ranks, [4]);
        let ranks = Ranks::of(&[REMOVED, 0.5, UNREACHED], &[REMOVED, 0.6, UNREACHED], 9);
        assert_eq!((ranks.positives, ranks.images), (2, 4));
        assert_eq!(ranks.average_precision(Positives), 0.25);
        let none = Ranks::of(&[], &[0.3], 9);
        assert_eq!(none.average_precision(Positives), 0.0);
        assert_eq!(Ranks::of(&[REMOVED], &[], 9).precision_at(10), 0.0);
    }

    proptest! {
        #[test]
        fn agrees_with_sorting_everything(scores in prop::collection::vec((0u8..12, any::<bool>()), 1..40), returns in 1usize..40) {
            let part = |which: bool| -> Vec<f32> {
                scores.iter().filter(|s| s.1 == which).map(|s| f32::from(s.0)).collect()
            };
            let mut order = scores.clone();
            order.sort_by_key(|(score, positive)| (std::cmp::Reverse(*score), *positive));
            let (mut found, mut sum) = (0.0, 0.0);
            for (rank, (_, positive)) in order.iter().enumerate().take(returns) {
                if *positive {
                    found += 1.0;
                    sum += found / (rank as f64 + 1.0);
                }
            }
            let positives = part(true).len().max(1) as f64;
            let goal = Goal { returns, divide_by: DivideBy::Positives };
            prop_assert!((goal.value(&part(true), &part(false)) - sum / positives).abs() < 1e-12);
        }
    }
}
