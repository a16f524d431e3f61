//! ADWIN, a detector of changes in the mean of a stream of numbers from 0 to 1.
//!
//! Bifet and Gavaldà, *Learning from time-changing data with adaptive windowing*, 2007. The window is kept as buckets of
//! 1, 2, 4, … values, at most five of a size, so that W values need O(log W) sums. After each value every cut between
//! buckets with at least five values on either side is looked at: with n0 and n1 values, m = 1 / (1/n0 + 1/n1),
//! d' = delta / ln W and v the variance of the window, the older part is dropped while the means differ by more than
//!
//! e = sqrt(2 v ln(2 / d') / m) + 2 ln(2 / d') / (3 m).
//!
//! O(log W) for a value. What is said of rows that were chosen for their uncertainty holds for such rows only.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

const DELTA: f64 = 0.002;
const EQUAL: usize = 5;
const LEAST: f64 = 5.0;

/// The window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Adwin {
    /// Oldest first; sizes never grow towards the new end.
    buckets: VecDeque<Bucket>,
}

/// Count, sum and sum of squares of neighbouring values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Bucket {
    n: f64,
    sum: f64,
    squares: f64,
}

impl Bucket {
    fn and(self, other: Bucket) -> Bucket {
        Bucket {
            n: self.n + other.n,
            sum: self.sum + other.sum,
            squares: self.squares + other.squares,
        }
    }
}

const NONE: Bucket = Bucket {
    n: 0.0,
    sum: 0.0,
    squares: 0.0,
};

impl Adwin {
    /// Takes in a value; tells whether the window was cut because the mean rose. A fall cuts it silently: fewer errors are
    /// no alarm.
    pub fn add(&mut self, value: f64) -> bool {
        self.buckets.push_back(Bucket {
            n: 1.0,
            sum: value,
            squares: value * value,
        });
        self.compress();
        let mut rose = false;
        while let Some(up) = self.cut() {
            rose |= up;
            self.buckets.pop_front();
        }
        rose
    }

    /// Joins the two oldest of six buckets of one size, from the new end on.
    fn compress(&mut self) {
        let mut size = 1.0;
        loop {
            let first = self.buckets.iter().position(|b| b.n <= size);
            let Some(first) = first else { return };
            let equal = self.buckets.iter().skip(first).filter(|b| b.n == size);
            if equal.count() <= EQUAL {
                return;
            }
            if let Some(second) = self.buckets.remove(first + 1) {
                self.buckets[first] = self.buckets[first].and(second);
            }
            size *= 2.0;
        }
    }

    /// Whether some cut parts two means; `true` if the newer is higher.
    fn cut(&self) -> Option<bool> {
        let all = self.buckets.iter().fold(NONE, |a, b| a.and(*b));
        if all.n < 2.0 * LEAST {
            return None;
        }
        let mean = all.sum / all.n;
        let variance = (all.squares / all.n - mean * mean).max(0.0);
        let logarithm = (2.0 * all.n.ln() / DELTA).ln();
        let mut old = NONE;
        for bucket in &self.buckets {
            old = old.and(*bucket);
            let new = all.n - old.n;
            if new < LEAST {
                return None;
            }
            if old.n < LEAST {
                continue;
            }
            let m = 1.0 / (1.0 / old.n + 1.0 / new);
            let bound = (2.0 * variance * logarithm / m).sqrt() + 2.0 * logarithm / (3.0 * m);
            let difference = (all.sum - old.sum) / new - old.sum / old.n;
            if difference.abs() > bound {
                return Some(difference > 0.0);
            }
        }
        None
    }

    /// Number of values in the window.
    #[cfg(test)]
    fn len(&self) -> f64 {
        self.buckets.iter().map(|b| b.n).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_known_sequence_of_zeros_then_ones() {
        // 32 zeros, then ones. With W = 32 + m values, v = (m / W) (32 / W), the cut at 32: the first m >= 5 for which
        // 1 exceeds the bound, computed here from the formula.
        let over = |m: f64| {
            let w = 32.0 + m;
            let v = m / w * 32.0 / w;
            let l = (2.0 * w.ln() / 0.002f64).ln();
            let h = 1.0 / (1.0 / 32.0 + 1.0 / m);
            1.0 > (2.0 * v * l / h).sqrt() + 2.0 * l / (3.0 * h)
        };
        let expected = (5..).find(|m| over(f64::from(*m))).unwrap();
        let mut adwin = Adwin::default();
        assert!((0..32).all(|_| !adwin.add(0.0)));
        let alarm = (1..).find(|_| adwin.add(1.0)).unwrap();
        // The cut lies between buckets, which may hold the first ones together with zeros: a value or two later.
        assert!(
            (expected..=expected + 2).contains(&alarm),
            "{alarm} {expected}"
        );
        assert!(adwin.len() < 32.0 + f64::from(alarm));
    }

    #[test]
    fn a_fall_shortens_the_window_without_an_alarm() {
        let mut adwin = Adwin::default();
        assert!((0..200).all(|_| !adwin.add(1.0)));
        assert!((0..200).all(|_| !adwin.add(0.0)));
        assert!(adwin.len() < 250.0, "{}", adwin.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn buckets_are_few_powers_of_two_in_order(values in prop::collection::vec(0.0f64..0.3, 1..600)) {
            let mut adwin = Adwin::default();
            for value in values {
                adwin.add(value);
                let sizes: Vec<f64> = adwin.buckets.iter().map(|b| b.n).collect();
                prop_assert!(sizes.windows(2).all(|w| w[0] >= w[1]));
                for size in &sizes {
                    prop_assert!(size.log2().fract() == 0.0);
                    prop_assert!(sizes.iter().filter(|s| *s == size).count() <= EQUAL);
                }
            }
        }
    }
}
