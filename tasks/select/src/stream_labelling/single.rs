//! Deciders of one model and a rule: what most strategies are.

use super::engine::{Decider, Lesson, Wish};
use super::models::{Model, Prediction};
use serde::{Deserialize, Serialize};

/// What a rule wants done to the model after a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing.
    Nothing,
    /// Start anew, then learn the label.
    Reset,
    /// Halve what was learned, then learn the label.
    Halve,
}

/// When to ask, given what the model says.
pub trait Rule: Send {
    /// As [`Decider::wish`].
    fn wish(&mut self, x: &[f64], prediction: &Prediction, open: bool) -> Wish;
    /// A label has come; called before the model learns it.
    fn told(&mut self, _lesson: &Lesson) -> Reaction {
        Reaction::Nothing
    }
    /// As [`Decider::warm`].
    fn warm(&mut self, _x: &[f64]) {}
    /// As [`Decider::gated`].
    fn gated(&self) -> bool {
        true
    }
    /// As [`Decider::rate`].
    fn rate(&self) -> f64 {
        1.0
    }
    /// As [`Decider::alarms`].
    fn alarms(&self) -> u64 {
        0
    }
}

/// A model and a rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Single<R> {
    model: Model,
    /// What the model is after a reset.
    fresh: Model,
    rule: R,
}

impl<R: Rule> Single<R> {
    /// A model that has seen nothing, and a rule.
    pub fn new(model: Model, rule: R) -> Single<R> {
        Single {
            fresh: model.clone(),
            model,
            rule,
        }
    }
}

impl<R: Rule> Decider for Single<R> {
    fn predict(&self, x: &[f64]) -> Prediction {
        self.model.predict(x)
    }

    fn wish(&mut self, x: &[f64], prediction: &Prediction, open: bool) -> Wish {
        self.rule.wish(x, prediction, open)
    }

    fn learn(&mut self, lesson: &Lesson) {
        match self.rule.told(lesson) {
            Reaction::Nothing => {}
            Reaction::Reset => self.model = self.fresh.clone(),
            Reaction::Halve => self.model.halve(),
        }
        self.model.learn(lesson.x, lesson.truth, lesson.weight);
    }

    fn warm(&mut self, x: &[f64]) {
        self.rule.warm(x);
    }

    fn gated(&self) -> bool {
        self.rule.gated()
    }

    fn rate(&self) -> f64 {
        self.rule.rate()
    }

    fn alarms(&self) -> u64 {
        self.rule.alarms()
    }
}
