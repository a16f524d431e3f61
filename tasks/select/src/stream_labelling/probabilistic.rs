//! Stream probabilistic active learning.
//!
//! Kottke, Krempl and Spiliopoulou, *Probabilistic active learning in datastreams*, 2015, with the gain for several classes
//! of Kottke and others 2016, as the survey (arXiv 2302.08893) sets it out.
//!
//! 1. Label frequencies at x: k_c = sum over the last labelled rows of class c of exp(-|x - x_i|^2 / (2 h^2)), h = sqrt d / 2
//!    for scaled columns. At most `memory` labelled rows are kept, the newest, so that the frequencies follow a drift.
//! 2. The probability of the classes there is Dirichlet with a_c = k_c + 1e-3. For m = 1, …, m_max (2) labels more: the gain
//!    in expected accuracy over all outcomes l (c_1 + … = m), each with its Dirichlet-multinomial probability,
//!    g_m = sum_l P(l) (max_c (a_c + l_c) - (a_d + l_d)) / (sum a + m), d the class decided now.
//! 3. The utility is max_m g_m / m; the balanced quantile filter chooses.
//!
//! O(memory d + K^m_max) a row beside the model, which only predicts.

use super::engine::{Lesson, Setting, Strategy, Wish};
use super::models::{Model, Prediction, Truth, largest};
use super::quantile_filter::QuantileFilter;
use super::single::{Reaction, Rule, Single};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::squared_distance;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Options of stream probabilistic active learning.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct StreamProbabilistic {
    /// Labels that are looked ahead.
    #[schemars(range(min = 1, max = 3))]
    pub most_labels: usize,
    /// Frequency that each class has before any label.
    #[schemars(range(min = 0.0))]
    pub prior: f64,
    /// Labelled rows kept.
    #[schemars(range(min = 1))]
    pub memory: usize,
    /// Utilities of which the quantile is taken.
    #[schemars(range(min = 1))]
    pub window: usize,
    /// Labels left over, or overdrawn, that move the quantile by the whole range.
    #[schemars(range(min = 0.0))]
    pub tolerance: f64,
}

impl Default for StreamProbabilistic {
    fn default() -> Self {
        StreamProbabilistic {
            most_labels: 2,
            prior: 1e-3,
            memory: 500,
            window: 100,
            tolerance: 50.0,
        }
    }
}

impl Method for StreamProbabilistic {
    const FACTS: Facts = Facts {
        name: "stream-probabilistic",
        about: "ask where a label or two would raise the expected accuracy most",
        paper: Some("online-al"),
        streams: false,
    };
}

/// Labelled rows and the filter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probabilistic {
    labelled: VecDeque<(Vec<f64>, usize)>,
    memory: usize,
    classes: usize,
    most_labels: usize,
    prior: f64,
    filter: QuantileFilter,
}

impl Probabilistic {
    /// Step 1, with the prior.
    fn frequencies(&self, x: &[f64]) -> Vec<f64> {
        let mut frequencies = vec![self.prior; self.classes];
        // 2 h^2 = d / 2.
        let width = x.len() as f64 / 2.0;
        for (row, class) in &self.labelled {
            frequencies[*class] += (-squared_distance(row, x) / width).exp();
        }
        frequencies
    }
}

/// Steps 2 and 3.
fn utility(a: &[f64], most_labels: usize) -> f64 {
    let now = largest(a);
    let mut best = 0.0f64;
    for m in 1..=most_labels {
        let mut gain = 0.0;
        outcomes(&mut a.to_vec(), 0, m, 1.0, &mut |after, probability| {
            let sum: f64 = after.iter().sum();
            gain += probability * (after[largest(after)] - after[now]) / sum;
        });
        best = best.max(gain / m as f64);
    }
    best
}

/// Calls `each` with every state that `left` labels more of class `from` or later can lead to, and its probability.
///
/// Labels come one by one: each has class c with probability a_c / sum a, which then grows (Pólya's urn); a multiset of
/// labels is reached in one order here and has as many orders of the same probability.
fn outcomes(
    a: &mut Vec<f64>,
    from: usize,
    left: usize,
    probability: f64,
    each: &mut dyn FnMut(&[f64], f64),
) {
    if left == 0 {
        each(a, probability);
        return;
    }
    if from == a.len() {
        return;
    }
    // How many of the labels left are of class `from`: 0, 1, .., left.
    let sum: f64 = a.iter().sum();
    let start = a[from];
    let mut p = probability;
    for count in 0..=left {
        if count > 0 {
            // The binomial factor grows from C(left, count - 1) to C(left, count).
            let orders = (left - count + 1) as f64 / count as f64;
            p *= orders * a[from] / (sum + (count - 1) as f64);
            a[from] += 1.0;
        }
        outcomes(a, from + 1, left - count, p, each);
    }
    a[from] = start;
}

impl Rule for Probabilistic {
    fn wish(&mut self, x: &[f64], _prediction: &Prediction, open: bool) -> Wish {
        let u = utility(&self.frequencies(x), self.most_labels);
        Wish::plain(self.filter.asks(u, open))
    }

    fn told(&mut self, lesson: &Lesson) -> Reaction {
        if let Truth::Class(class) = lesson.truth {
            self.labelled.push_back((lesson.x.to_vec(), class));
            if self.labelled.len() > self.memory {
                self.labelled.pop_front();
            }
        }
        Reaction::Nothing
    }

    fn warm(&mut self, _x: &[f64]) {
        self.filter.warm();
    }
}

impl Strategy for StreamProbabilistic {
    type State = Single<Probabilistic>;

    fn begin(&self, setting: &Setting) -> Result<Self::State> {
        let classes = setting.classes(Self::FACTS.name)?;
        for (option, value) in [("prior", self.prior), ("tolerance", self.tolerance)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::option(option, "must be above 0"));
            }
        }
        if !(1..=3).contains(&self.most_labels) {
            return Err(Error::option("most-labels", "must be from 1 to 3"));
        }
        if self.memory == 0 || self.window == 0 {
            return Err(Error::option(
                "memory",
                "memory and window must be at least 1",
            ));
        }
        let rule = Probabilistic {
            labelled: VecDeque::new(),
            memory: self.memory,
            classes,
            most_labels: self.most_labels,
            prior: self.prior,
            filter: QuantileFilter::new(setting.budget, self.window, self.tolerance),
        };
        Ok(Single::new(Model::new(&setting.model), rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_label_more_by_hand() {
        // a = (2, 1.5): class 0 is decided. A label of class 0 changes nothing; one of class 1 (3/7) makes it (2, 2.5):
        // 0.5 of 4.5 gained. Two labels: (0, 2) has 1.5/3.5 * 2.5/4.5, (2, 3.5): 1.5 of 5.5; (1, 1) gives (3, 2.5): nothing.
        let one = 1.5 / 3.5 * 0.5 / 4.5;
        let two = 1.5 / 3.5 * 2.5 / 4.5 * 1.5 / 5.5 / 2.0;
        assert!((utility(&[2.0, 1.5], 1) - one).abs() < 1e-12);
        assert!((utility(&[2.0, 1.5], 2) - one.max(two)).abs() < 1e-12);
        // A lead of two cannot be turned by one label.
        assert_eq!(utility(&[3.5, 1.0], 1), 0.0);
    }

    #[test]
    fn places_without_labels_gain_most() {
        let empty = utility(&[1e-3; 3], 2);
        // Two of three classes at first sight, with almost the whole probability.
        assert!((empty - 2.0 / 3.0).abs() < 0.01, "{empty}");
        assert!(empty > utility(&[1.0, 0.9, 0.0], 2));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn probabilities_of_outcomes_sum_to_one(a in prop::collection::vec(1e-3f64..5.0, 2..6), m in 1usize..4) {
            let mut sum = 0.0;
            let mut count = 0;
            let mut state = a.clone();
            outcomes(&mut state, 0, m, 1.0, &mut |after, p| {
                sum += p;
                count += 1;
                assert!((after.iter().sum::<f64>() - a.iter().sum::<f64>() - m as f64).abs() < 1e-9);
            });
            prop_assert!((sum - 1.0).abs() < 1e-9, "{sum}");
            // Multisets of m of K classes.
            let k = a.len();
            let expected = (0..m).fold(1, |c, i| c * (k + i) / (i + 1));
            prop_assert_eq!(count, expected);
            prop_assert_eq!(state, a);
        }
    }
}
