//! Selective sampling by margin.
//!
//! Cesa-Bianchi, Gentile and Zaniboni, *Worst-case analysis of selective sampling for linear classification*, 2006, as the
//! survey (arXiv 2302.08893) sets it out. A linear model with scores s_k = w_k (x, 1) and margin m = best score - second
//! best. The label is asked for with probability b / (b + |m|); a label that shows a mistake moves w_y by + (x, 1) and the
//! wrongly predicted w by - (x, 1), the perceptron's step, here of rows scaled to unit length so that b means the same for
//! any number of columns. More than two classes: the margin above is the natural one; the paper has two.
//!
//! O(K d) a row. The model is its own; the model option has no say.

use super::draws::Draws;
use super::engine::{Decider, Lesson, Setting, Strategy, Wish};
use super::models::{Prediction, Softmax, Truth, largest};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of selective sampling.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct SelectiveSampling {
    /// Margin at which every other row is asked for.
    #[schemars(range(min = 0.0))]
    pub b: f64,
}

impl Default for SelectiveSampling {
    fn default() -> Self {
        SelectiveSampling { b: 1.0 }
    }
}

impl Method for SelectiveSampling {
    const FACTS: Facts = Facts {
        name: "selective-sampling",
        about: "a perceptron that asks the more often the smaller its margin is",
        paper: Some("online-al"),
        streams: false,
    };
}

/// Weights and draws.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampler {
    weights: Softmax,
    b: f64,
    draws: Draws,
}

/// The row at unit length, the constant included.
fn unit(x: &[f64]) -> Vec<f64> {
    let length = (1.0 + x.iter().map(|v| v * v).sum::<f64>()).sqrt();
    x.iter().map(|v| v / length).collect()
}

/// Best score less second best.
fn margin(scores: &[f64]) -> f64 {
    let best = largest(scores);
    let others = scores.iter().enumerate().filter(|(k, _)| *k != best);
    let second = others.map(|(_, s)| *s).fold(f64::NEG_INFINITY, f64::max);
    scores.get(best).map_or(0.0, |s| s - second)
}

impl Decider for Sampler {
    fn predict(&self, x: &[f64]) -> Prediction {
        Prediction::of_classes(self.weights.probabilities(&unit(x)))
    }

    fn wish(&mut self, x: &[f64], _prediction: &Prediction, _open: bool) -> Wish {
        let m = margin(&self.weights.scores(&unit(x)));
        Wish::plain(self.draws.chance(self.b / (self.b + m)))
    }

    fn learn(&mut self, lesson: &Lesson) {
        let x = unit(lesson.x);
        let said = largest(&self.weights.scores(&x));
        if let Truth::Class(is) = lesson.truth
            && said != is
        {
            let mut by = vec![0.0; self.weights.classes()];
            by[is] = 1.0;
            by[said] = -1.0;
            self.weights.shift(&x, &by, 1.0);
        }
    }
}

impl Strategy for SelectiveSampling {
    type State = Sampler;

    fn begin(&self, setting: &Setting) -> Result<Sampler> {
        if !(self.b > 0.0 && self.b.is_finite()) {
            return Err(Error::option("b", "must be above 0"));
        }
        let classes = setting.classes(Self::FACTS.name)?;
        Ok(Sampler {
            weights: Softmax::new(classes, setting.model.width, 1.0),
            b: self.b,
            draws: Draws::new(setting.seed, "stream-labelling selective sampling"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_labelling::{Target, engine::tests::setting};

    fn lesson(x: &[f64], class: usize) -> Lesson<'_> {
        Lesson {
            x,
            truth: Truth::Class(class),
            weight: 1.0,
            random: false,
            missed: false,
        }
    }

    #[test]
    fn it_moves_on_mistakes_only() {
        let setting = setting(Target::Classes(3), 2);
        let mut sampler = SelectiveSampling::default().begin(&setting).unwrap();
        let before = sampler.clone();
        // All scores 0: class 0 is said, which is right.
        sampler.learn(&lesson(&[2.0, 2.0], 0));
        assert_eq!(sampler, before);
        sampler.learn(&lesson(&[2.0, 2.0], 2));
        // (2, 2, 1) / 3, and the constant's weight moves by 1.
        let scores = sampler.weights.scores(&[2.0 / 3.0, 2.0 / 3.0]);
        let expected = 8.0 / 9.0 + 1.0;
        assert!((scores[2] - expected).abs() < 1e-12 && (scores[0] + expected).abs() < 1e-12);
        assert!((margin(&scores) - expected).abs() < 1e-12);
    }

    #[test]
    fn it_asks_with_the_probability_of_the_margin() {
        let setting = setting(Target::Classes(2), 1);
        let mut sampler = SelectiveSampling { b: 0.5 }.begin(&setting).unwrap();
        let row = [0.0];
        let prediction = sampler.predict(&row);
        assert!((0..100).all(|_| sampler.wish(&row, &prediction, true).ask));
        sampler.learn(&lesson(&row, 1));
        // The constant's weights are 1 and -1: margin 2, probability 0.5 / 2.5.
        let n = 10_000;
        let asked = (0..n).filter(|_| sampler.wish(&row, &prediction, true).ask);
        let share = asked.count() as f64 / f64::from(n);
        assert!((share - 0.2).abs() < 0.02, "{share}");
    }
}
