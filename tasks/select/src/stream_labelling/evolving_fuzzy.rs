//! Evolving fuzzy prototypes.
//!
//! After Lughofer's single-pass active learning with conflict and ignorance (2012), as the survey (arXiv 2302.08893) sets it
//! out.
//!
//! 1. A rule i is a Gaussian with running mean and covariance, and counts its labels n_ic of each class. Membership is
//!    g_i(x) = exp(-M_i^2 / 2), M the Mahalanobis distance. Covariances start as spread^2 I, which weighs as one row and
//!    keeps them from being singular.
//! 2. Support of class c is sum_i g_i n_ic / n_i; supports over their sum are the probabilities.
//! 3. A row is asked for in conflict (the two best supports differ by less than 0.2 of their sum) or in ignorance (the
//!    largest g is below 0.1).
//! 4. A label in ignorance starts a new rule; any other moves the rule of the largest g. A full set replaces the rule
//!    that was moved last the longest ago.
//!
//! M^2 grows with the number of columns: with d independent ones it is about d for a row that fits, so that from some ten
//! columns on every row is one of ignorance. `per-column` divides it by d.
//!
//! O(rules d^2) a row, O(d^3) a label. The model is its own; the model option has no say.

use super::engine::{Decider, Lesson, Setting, Strategy, Wish};
use super::models::{Prediction, Truth, largest};
use ndarray::{Array1, Array2};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::linalg::cholesky;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the fuzzy prototypes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct EvolvingFuzzy {
    /// Difference of the two best supports, over their sum, below which a row is in conflict.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub conflict: f64,
    /// Largest membership below which a row is unknown.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub ignorance: f64,
    /// Deviation of a new rule along each column.
    #[schemars(range(min = 0.0))]
    pub spread: f64,
    /// Divide the squared distance by the number of columns.
    pub per_column: bool,
    /// Rules at most.
    #[schemars(range(min = 1))]
    pub rules: usize,
}

impl Default for EvolvingFuzzy {
    fn default() -> Self {
        EvolvingFuzzy {
            conflict: 0.2,
            ignorance: 0.1,
            spread: 1.0,
            per_column: false,
            rules: 100,
        }
    }
}

impl Method for EvolvingFuzzy {
    const FACTS: Facts = Facts {
        name: "evolving-fuzzy",
        about: "Gaussian rules that grow with the stream, asking where they conflict or know nothing",
        paper: Some("online-al"),
        streams: false,
    };
}

/// A Gaussian with class counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Rule {
    n: f64,
    mean: Vec<f64>,
    /// Sum of products of deviations \[d, d\], row by row.
    products: Vec<f64>,
    /// Inverse of the covariance, row by row.
    inverse: Vec<f64>,
    classes: Vec<f64>,
    /// Label at which it was moved last.
    moved: u64,
}

impl Rule {
    fn new(x: &[f64], class: usize, classes: usize, spread: f64, now: u64) -> Rule {
        let d = x.len();
        let mut inverse = vec![0.0; d * d];
        (0..d).for_each(|i| inverse[i * d + i] = 1.0 / (spread * spread));
        let mut rule = Rule {
            n: 1.0,
            mean: x.to_vec(),
            products: vec![0.0; d * d],
            inverse,
            classes: vec![0.0; classes],
            moved: now,
        };
        rule.classes[class] = 1.0;
        rule
    }

    /// Squared Mahalanobis distance.
    fn distance(&self, x: &[f64]) -> f64 {
        let difference: Vec<f64> = x.iter().zip(&self.mean).map(|(x, m)| x - m).collect();
        let rows = self.inverse.chunks_exact(x.len());
        rows.zip(&difference)
            .map(|(row, a)| a * row.iter().zip(&difference).map(|(i, b)| i * b).sum::<f64>())
            .sum::<f64>()
            .max(0.0)
    }

    /// Takes in a row; the covariance is (spread^2 I + products) / n.
    fn add(&mut self, x: &[f64], class: usize, spread: f64, now: u64) {
        let d = x.len();
        self.n += 1.0;
        self.classes[class] += 1.0;
        self.moved = now;
        let before: Vec<f64> = x.iter().zip(&self.mean).map(|(x, m)| x - m).collect();
        for (mean, difference) in self.mean.iter_mut().zip(&before) {
            *mean += difference / self.n;
        }
        let share = (self.n - 1.0) / self.n;
        for i in 0..d {
            for j in 0..d {
                self.products[i * d + j] += share * before[i] * before[j];
            }
        }
        let covariance = Array2::from_shape_fn((d, d), |(i, j)| {
            let ridge = if i == j { spread * spread } else { 0.0 };
            (self.products[i * d + j] + ridge) / self.n
        });
        // Positive definite by the ridge; if rounding says otherwise the shape stays as it was.
        if let Ok(factor) = cholesky(covariance.view()) {
            let inverse = factor.solve(Array2::from_diag(&Array1::ones(d)).view());
            self.inverse = inverse.iter().copied().collect();
        }
    }
}

/// The rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fuzzy {
    rules: Vec<Rule>,
    classes: usize,
    labels: u64,
    conflict: f64,
    ignorance: f64,
    spread: f64,
    per_column: bool,
    most: usize,
}

impl Fuzzy {
    /// Logarithm of each rule's membership.
    fn memberships(&self, x: &[f64]) -> Vec<f64> {
        let scale = if self.per_column { x.len() as f64 } else { 1.0 };
        let distances = self.rules.iter().map(|r| r.distance(x));
        distances.map(|m| -0.5 * m / scale).collect()
    }

    fn ignorant(&self, memberships: &[f64]) -> bool {
        let most = memberships
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        most < self.ignorance.ln()
    }
}

/// Whether the two best shares differ by less than `least` of their sum.
fn conflict(shares: &[f64], least: f64) -> bool {
    let best = largest(shares);
    let others = shares.iter().enumerate().filter(|(k, _)| *k != best);
    let second = others.map(|(_, s)| *s).fold(0.0, f64::max);
    shares[best] - second < least * (shares[best] + second)
}

impl Decider for Fuzzy {
    /// Step 2.
    fn predict(&self, x: &[f64]) -> Prediction {
        let memberships = self.memberships(x);
        // Relative to the largest, as all may be too small for a number.
        let most = memberships
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        let mut support = vec![0.0; self.classes];
        for (rule, g) in self.rules.iter().zip(&memberships) {
            for (support, n) in support.iter_mut().zip(&rule.classes) {
                *support += (g - most).exp() * n / rule.n;
            }
        }
        let sum: f64 = support.iter().sum();
        let even = 1.0 / self.classes as f64;
        let share = |s: &f64| if sum > 0.0 { s / sum } else { even };
        Prediction::of_classes(support.iter().map(share).collect())
    }

    /// Step 3.
    fn wish(&mut self, x: &[f64], prediction: &Prediction, _open: bool) -> Wish {
        let unknown = self.ignorant(&self.memberships(x));
        Wish::plain(unknown || conflict(&prediction.probabilities, self.conflict))
    }

    /// Step 4.
    fn learn(&mut self, lesson: &Lesson) {
        let Truth::Class(class) = lesson.truth else {
            return;
        };
        self.labels += 1;
        let memberships = self.memberships(lesson.x);
        if !self.ignorant(&memberships) {
            let nearest = largest(&memberships);
            self.rules[nearest].add(lesson.x, class, self.spread, self.labels);
            return;
        }
        let rule = Rule::new(lesson.x, class, self.classes, self.spread, self.labels);
        if self.rules.len() < self.most {
            self.rules.push(rule);
        } else if let Some(oldest) = self.rules.iter_mut().min_by_key(|r| r.moved) {
            *oldest = rule;
        }
    }
}

impl Strategy for EvolvingFuzzy {
    type State = Fuzzy;

    fn begin(&self, setting: &Setting) -> Result<Fuzzy> {
        for (option, value) in [("conflict", self.conflict), ("ignorance", self.ignorance)] {
            if !(value > 0.0 && value < 1.0) {
                return Err(Error::option(option, "must be above 0 and below 1"));
            }
        }
        if !(self.spread > 0.0 && self.spread.is_finite()) {
            return Err(Error::option("spread", "must be above 0"));
        }
        if self.rules == 0 {
            return Err(Error::option("rules", "must be at least 1"));
        }
        Ok(Fuzzy {
            rules: Vec::new(),
            classes: setting.classes(Self::FACTS.name)?,
            labels: 0,
            conflict: self.conflict,
            ignorance: self.ignorance,
            spread: self.spread,
            per_column: self.per_column,
            most: self.rules,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_labelling::{Target, engine::tests::setting};

    fn learn(fuzzy: &mut Fuzzy, x: &[f64], class: usize) {
        fuzzy.learn(&Lesson {
            x,
            truth: Truth::Class(class),
            weight: 1.0,
            random: false,
            missed: false,
        });
    }

    fn start(method: EvolvingFuzzy) -> Fuzzy {
        method.begin(&setting(Target::Classes(2), 2)).unwrap()
    }

    #[test]
    fn a_rule_by_hand() {
        let mut rule = Rule::new(&[0.0, 0.0], 0, 2, 1.0, 1);
        assert_eq!(rule.distance(&[3.0, 4.0]), 25.0);
        rule.add(&[2.0, 0.0], 1, 1.0, 2);
        // Mean (1, 0), products diag(2, 0), covariance diag(3, 1) / 2.
        assert_eq!(rule.mean, [1.0, 0.0]);
        assert!((rule.distance(&[2.0, 1.0]) - (2.0 / 3.0 + 2.0)).abs() < 1e-12);
    }

    #[test]
    fn ignorance_and_conflict_ask_and_what_is_known_does_not() {
        let mut fuzzy = start(EvolvingFuzzy::default());
        let asks = |fuzzy: &mut Fuzzy, x: &[f64]| {
            let prediction = fuzzy.predict(x);
            fuzzy.wish(x, &prediction, true).ask
        };
        assert!(asks(&mut fuzzy, &[0.0, 0.0]));
        learn(&mut fuzzy, &[0.0, 0.0], 0);
        // exp(-M^2 / 2) = 0.1 at M = 2.146.
        assert!(!asks(&mut fuzzy, &[2.14, 0.0]));
        assert!(asks(&mut fuzzy, &[2.15, 0.0]));
        learn(&mut fuzzy, &[4.0, 0.0], 1);
        assert_eq!(fuzzy.rules.len(), 2);
        // Halfway both have the same support, 0.135.
        assert!(asks(&mut fuzzy, &[2.0, 0.0]));
        assert!(!asks(&mut fuzzy, &[1.0, 0.0]));
        assert_eq!(fuzzy.predict(&[1e6, 0.0]).value, Truth::Class(1));
        assert!(conflict(&[0.55, 0.45], 0.2) && !conflict(&[0.61, 0.39], 0.2));
    }

    #[test]
    fn a_full_set_replaces_the_one_that_rested_longest() {
        let mut fuzzy = start(EvolvingFuzzy {
            rules: 2,
            ..EvolvingFuzzy::default()
        });
        for x in [0.0, 50.0] {
            learn(&mut fuzzy, &[x, 0.0], 0);
        }
        learn(&mut fuzzy, &[0.5, 0.0], 0);
        learn(&mut fuzzy, &[100.0, 0.0], 1);
        let means: Vec<f64> = fuzzy.rules.iter().map(|r| r.mean[0]).collect();
        assert_eq!(means, [0.25, 100.0]);
    }

    #[test]
    fn distances_can_be_taken_per_column() {
        let mut fuzzy = start(EvolvingFuzzy {
            per_column: true,
            ..EvolvingFuzzy::default()
        });
        learn(&mut fuzzy, &[0.0, 0.0], 0);
        // exp(-M^2 / 4) = 0.1 at M = 3.035.
        assert!(!fuzzy.ignorant(&fuzzy.memberships(&[3.03, 0.0])));
        assert!(fuzzy.ignorant(&fuzzy.memberships(&[3.04, 0.0])));
    }
}
