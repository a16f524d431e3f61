//! Models that learn one row at a time, each in a file of its own, and all of them as one type.

mod bagging;
mod hoeffding_tree;
mod least_squares;
mod naive_bayes;
mod softmax;

pub use bagging::Bagging;
pub use hoeffding_tree::HoeffdingTree;
pub use least_squares::LeastSquares;
pub use naive_bayes::NaiveBayes;
pub use softmax::Softmax;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// One of so many classes.
    Classes(usize),
    /// A number.
    Number,
}

/// A row's label.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Truth {
    /// Index of its class.
    Class(usize),
    /// Its number.
    Number(f64),
}

/// What a model says of a row before its label is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Probability of each class; empty where a number is predicted.
    pub probabilities: Vec<f64>,
    /// The class or the number.
    pub value: Truth,
    /// Probability of the class; for a number 1 / (1 + leverage), which is near 1 where much was seen.
    pub confidence: f64,
}

impl Prediction {
    /// The most probable class, the lower one of equals.
    pub fn of_classes(probabilities: Vec<f64>) -> Prediction {
        let best = largest(&probabilities);
        Prediction {
            confidence: probabilities.get(best).copied().unwrap_or(0.0),
            value: Truth::Class(best),
            probabilities,
        }
    }

    /// Whether the label is another one; never for numbers.
    pub fn misses(&self, truth: Truth) -> bool {
        matches!((self.value, truth), (Truth::Class(a), Truth::Class(b)) if a != b)
    }
}

/// Sum of products, over the shorter of both.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Place of the largest value, the first of equals.
pub fn largest(values: &[f64]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}

/// Logarithms turned into shares that sum to 1; the largest may be of any size.
pub fn shares(mut logarithms: Vec<f64>) -> Vec<f64> {
    let top = logarithms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for value in &mut logarithms {
        *value = (*value - top).exp();
    }
    let sum: f64 = logarithms.iter().sum();
    for value in &mut logarithms {
        *value /= sum;
    }
    logarithms
}

/// Kinds of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    /// Softmax regression, a step for each label.
    Softmax,
    /// Hoeffding tree with naive Bayes leaves.
    HoeffdingTree,
    /// Ten Hoeffding trees, each of which sees a row a random number of times.
    Bagging,
    /// Gaussian naive Bayes that forgets.
    NaiveBayes,
    /// Recursive least squares that forget; the label is a number.
    LeastSquares,
}

/// How a model is made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ModelPlan {
    /// Kind.
    pub kind: ModelKind,
    /// What is predicted.
    pub target: Target,
    /// Columns.
    pub width: usize,
    /// Step of softmax regression.
    pub learning_rate: f64,
    /// What a label keeps of its weight with each later one, in naive Bayes and least squares.
    pub forgetting: f64,
    /// From which a bag's draws come.
    pub seed: u64,
}

/// A model of any kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// Softmax regression.
    Softmax(Softmax),
    /// Hoeffding tree.
    HoeffdingTree(HoeffdingTree),
    /// A bag of models.
    Bagging(Box<Bagging>),
    /// Naive Bayes.
    NaiveBayes(NaiveBayes),
    /// Least squares.
    LeastSquares(LeastSquares),
}

impl Model {
    /// A model that has seen nothing.
    pub fn new(plan: &ModelPlan) -> Model {
        let classes = match plan.target {
            Target::Classes(classes) => classes,
            Target::Number => 0,
        };
        match plan.kind {
            ModelKind::Softmax => {
                Model::Softmax(Softmax::new(classes, plan.width, plan.learning_rate))
            }
            ModelKind::HoeffdingTree => {
                Model::HoeffdingTree(HoeffdingTree::new(classes, plan.width))
            }
            ModelKind::Bagging => Model::Bagging(Box::new(Bagging::new(
                &ModelPlan {
                    kind: ModelKind::HoeffdingTree,
                    ..*plan
                },
                10,
            ))),
            ModelKind::NaiveBayes => {
                Model::NaiveBayes(NaiveBayes::new(classes, plan.width, plan.forgetting))
            }
            ModelKind::LeastSquares => {
                Model::LeastSquares(LeastSquares::new(plan.width, plan.forgetting))
            }
        }
    }

    /// What it says of the row `x` \[d\].
    pub fn predict(&self, x: &[f64]) -> Prediction {
        match self {
            Model::Softmax(m) => Prediction::of_classes(m.probabilities(x)),
            Model::HoeffdingTree(m) => Prediction::of_classes(m.probabilities(x)),
            Model::Bagging(m) => m.predict(x),
            Model::NaiveBayes(m) => Prediction::of_classes(m.probabilities(x)),
            Model::LeastSquares(m) => Prediction {
                probabilities: Vec::new(),
                value: Truth::Number(m.value(x)),
                confidence: 1.0 / (1.0 + m.leverage(x)),
            },
        }
    }

    /// Learns from a row and its label, as from `weight` such rows. A label of the wrong kind teaches nothing.
    pub fn learn(&mut self, x: &[f64], truth: Truth, weight: f64) {
        match (self, truth) {
            (Model::Softmax(m), Truth::Class(y)) => m.learn(x, y, weight),
            (Model::HoeffdingTree(m), Truth::Class(y)) => m.learn(x, y, weight),
            (Model::Bagging(m), _) => m.learn(x, truth, weight),
            (Model::NaiveBayes(m), Truth::Class(y)) => m.learn(x, y, weight),
            (Model::LeastSquares(m), Truth::Number(y)) => m.learn(x, y, weight),
            _ => {}
        }
    }

    /// Halves what it has learned, so that new labels count for more. A tree keeps its splits.
    pub fn halve(&mut self) {
        match self {
            Model::Softmax(m) => m.halve(),
            Model::HoeffdingTree(m) => m.halve(),
            Model::Bagging(m) => m.halve(),
            Model::NaiveBayes(m) => m.halve(),
            Model::LeastSquares(m) => m.halve(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::stream_labelling::draws::Draws;
    use proptest::prelude::*;

    pub const CLASSIFIERS: [ModelKind; 4] = [
        ModelKind::Softmax,
        ModelKind::HoeffdingTree,
        ModelKind::Bagging,
        ModelKind::NaiveBayes,
    ];

    pub fn plan(kind: ModelKind, classes: usize, width: usize) -> ModelPlan {
        ModelPlan {
            kind,
            target: Target::Classes(classes),
            width,
            learning_rate: 1.0,
            forgetting: 0.995,
            seed: 1,
        }
    }

    #[test]
    fn every_classifier_learns_two_groups_and_keeps_its_state() {
        for kind in CLASSIFIERS {
            let mut model = Model::new(&plan(kind, 2, 2));
            let even = model.predict(&[0.0, 0.0]).probabilities;
            assert!(even.iter().all(|p| (p - 0.5).abs() < 1e-12));
            let mut draws = Draws::new(0, "test");
            // Fewer than a tree's 200, after which its new leaves are empty.
            for i in 0..150 {
                let y = i % 2;
                let centre = if y == 0 { -2.0 } else { 2.0 };
                let x = [centre + draws.normal(), draws.normal()];
                model.learn(&x, Truth::Class(y), 1.0);
            }
            assert_eq!(
                model.predict(&[-3.0, 0.0]).value,
                Truth::Class(0),
                "{kind:?}"
            );
            assert_eq!(
                model.predict(&[3.0, 0.0]).value,
                Truth::Class(1),
                "{kind:?}"
            );
            let text = serde_json::to_string(&model).unwrap();
            let again: Model = serde_json::from_str(&text).unwrap();
            assert_eq!(again, model);
            let before = model.clone();
            model.learn(&[0.0, 0.0], Truth::Number(3.0), 1.0);
            if kind != ModelKind::Bagging {
                assert_eq!(model, before);
            }
            model.halve();
            assert_ne!(model, before);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn probabilities_are_shares_whatever_was_learned(
            rows in prop::collection::vec((prop::array::uniform3(-1e6f64..1e6), 0usize..4), 0..60),
            x in prop::array::uniform3(-1e8f64..1e8),
        ) {
            for kind in CLASSIFIERS {
                let mut model = Model::new(&plan(kind, 4, 3));
                for (row, y) in &rows {
                    model.learn(row, Truth::Class(*y), 1.0);
                }
                let p = model.predict(&x).probabilities;
                prop_assert!(p.iter().all(|v| (0.0..=1.0).contains(v)), "{kind:?} {p:?}");
                prop_assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn shares_survive_any_size_and_ties_go_to_the_lower() {
        assert_eq!(shares(vec![1000.0, 1000.0]), [0.5, 0.5]);
        assert_eq!(shares(vec![-1e9, 0.0]), [0.0, 1.0]);
        assert_eq!(largest(&[1.0, 3.0, 3.0]), 1);
    }
}
