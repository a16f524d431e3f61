//! Uncertainty against a threshold: fixed, variable, randomised and split.
//!
//! Žliobaitė, Bifet, Pfahringer and Holmes, *Active learning with drifting streaming data*, 2014, as the survey
//! (arXiv 2302.08893) sets them out. c = max_k P(k | x), K classes, budget B, step s, spread delta, share v.
//!
//! - fixed: ask if c <= 1/K + B (1 - 1/K). A sure model stops asking.
//! - variable: theta starts at 1; ask if c < theta; on asking theta shrinks by the factor 1 - s, else it grows by 1 + s.
//! - randomised: as variable, but c is compared with theta eta, eta ~ N(1, delta).
//! - split: with probability v the row is decided at random (asked with probability B), else as variable.
//!
//! Theta moves only while the purse is open, so that a blocked stretch leaves it as it was; it stays within
//! \[1/K, 10\]: below 1/K nothing could be asked for, and above 10 a long sure stretch would take long to come down from.
//! The random part of split is a fair sample of all rows: a drift detector is fed by it alone.
//!
//! O(1) a row beside the model.

use super::ddm::{Ddm, State};
use super::draws::Draws;
use super::engine::{Lesson, Setting, Strategy, Wish};
use super::models::{Model, Prediction};
use super::single::{Reaction, Rule, Single};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const MOST: f64 = 10.0;

/// A moving threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variable {
    theta: f64,
    step: f64,
    least: f64,
}

impl Variable {
    /// Theta 1, never below 1 / `classes`.
    pub fn new(step: f64, classes: usize) -> Variable {
        Variable {
            theta: 1.0,
            step,
            least: 1.0 / classes as f64,
        }
    }

    /// Whether `confidence` is below theta `eta`; theta moves if `open`.
    pub fn asks(&mut self, confidence: f64, eta: f64, open: bool) -> bool {
        let ask = confidence < self.theta * eta;
        if open {
            let factor = if ask {
                1.0 - self.step
            } else {
                1.0 + self.step
            };
            self.theta = (self.theta * factor).clamp(self.least, MOST);
        }
        ask
    }
}

/// The fixed threshold.
pub fn fixed_threshold(classes: usize, budget: f64) -> f64 {
    let even = 1.0 / classes as f64;
    even + budget * (1.0 - even)
}

/// Refuses a step that would freeze the threshold or empty it at once.
pub fn check_step(step: f64) -> Result<()> {
    if step > 0.0 && step < 1.0 {
        Ok(())
    } else {
        Err(Error::option("step", "must be above 0 and below 1"))
    }
}

/// Options of the fixed threshold: none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct FixedUncertainty {}

impl Method for FixedUncertainty {
    const FACTS: Facts = Facts {
        name: "fixed-uncertainty",
        about: "ask where the model is less sure than a fixed threshold",
        paper: Some("online-al"),
        streams: false,
    };
}

/// The threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fixed {
    theta: f64,
}

impl Rule for Fixed {
    fn wish(&mut self, _x: &[f64], prediction: &Prediction, _open: bool) -> Wish {
        Wish::plain(prediction.confidence <= self.theta)
    }
}

impl Strategy for FixedUncertainty {
    type State = Single<Fixed>;

    fn begin(&self, setting: &Setting) -> Result<Self::State> {
        let classes = setting.classes(Self::FACTS.name)?;
        let theta = fixed_threshold(classes, setting.budget);
        Ok(Single::new(Model::new(&setting.model), Fixed { theta }))
    }
}

/// Options of the variable threshold.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct VariableUncertainty {
    /// Share by which the threshold moves with each row.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub step: f64,
}

impl Default for VariableUncertainty {
    fn default() -> Self {
        VariableUncertainty { step: 0.01 }
    }
}

impl Method for VariableUncertainty {
    const FACTS: Facts = Facts {
        name: "variable-uncertainty",
        about: "ask where the model is less sure than a threshold that moves with the spend",
        paper: Some("online-al"),
        streams: false,
    };
}

impl Rule for Variable {
    fn wish(&mut self, _x: &[f64], prediction: &Prediction, open: bool) -> Wish {
        Wish::plain(self.asks(prediction.confidence, 1.0, open))
    }
}

impl Strategy for VariableUncertainty {
    type State = Single<Variable>;

    fn begin(&self, setting: &Setting) -> Result<Self::State> {
        check_step(self.step)?;
        let classes = setting.classes(Self::FACTS.name)?;
        let rule = Variable::new(self.step, classes);
        Ok(Single::new(Model::new(&setting.model), rule))
    }
}

/// Options of the randomised variable threshold.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RandomisedVariableUncertainty {
    /// Share by which the threshold moves with each row.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub step: f64,
    /// Deviation of the factor on the threshold.
    #[schemars(range(min = 0.0))]
    pub delta: f64,
}

impl Default for RandomisedVariableUncertainty {
    fn default() -> Self {
        RandomisedVariableUncertainty {
            step: 0.01,
            delta: 1.0,
        }
    }
}

impl Method for RandomisedVariableUncertainty {
    const FACTS: Facts = Facts {
        name: "randomised-variable-uncertainty",
        about: "a variable threshold with a random factor, so that sure rows are asked for now and then",
        paper: Some("online-al"),
        streams: false,
    };
}

/// The threshold and the draws of its factor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Randomised {
    threshold: Variable,
    delta: f64,
    draws: Draws,
}

impl Randomised {
    /// A threshold with a factor of deviation `delta`.
    pub fn new(step: f64, delta: f64, classes: usize, draws: Draws) -> Randomised {
        Randomised {
            threshold: Variable::new(step, classes),
            delta,
            draws,
        }
    }

    /// As [`Variable::asks`], with a new factor.
    pub fn asks(&mut self, confidence: f64, open: bool) -> bool {
        let eta = 1.0 + self.delta * self.draws.normal();
        self.threshold.asks(confidence, eta, open)
    }
}

impl Rule for Randomised {
    fn wish(&mut self, _x: &[f64], prediction: &Prediction, open: bool) -> Wish {
        Wish::plain(self.asks(prediction.confidence, open))
    }
}

impl Strategy for RandomisedVariableUncertainty {
    type State = Single<Randomised>;

    fn begin(&self, setting: &Setting) -> Result<Self::State> {
        check_step(self.step)?;
        if !(self.delta >= 0.0 && self.delta.is_finite()) {
            return Err(Error::option("delta", "must be at least 0"));
        }
        let classes = setting.classes(Self::FACTS.name)?;
        let draws = Draws::new(setting.seed, "stream-labelling randomised threshold");
        let rule = Randomised::new(self.step, self.delta, classes, draws);
        Ok(Single::new(Model::new(&setting.model), rule))
    }
}

/// Options of the split strategy.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct SplitUncertainty {
    /// Share by which the threshold moves with each row.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub step: f64,
    /// Share of rows that are decided at random.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub random_share: f64,
    /// Start the model anew when the random part tells of a change; else only the alarm is counted.
    pub reset: bool,
}

impl Default for SplitUncertainty {
    fn default() -> Self {
        SplitUncertainty {
            step: 0.01,
            random_share: 0.1,
            reset: false,
        }
    }
}

impl Method for SplitUncertainty {
    const FACTS: Facts = Facts {
        name: "split-uncertainty",
        about: "a variable threshold for most rows and chance for the rest, which also tells of changes",
        paper: Some("online-al"),
        streams: false,
    };
}

/// The threshold, the draws, and the detector of changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Split {
    threshold: Variable,
    random_share: f64,
    budget: f64,
    reset: bool,
    draws: Draws,
    detector: Ddm,
    alarms: u64,
}

impl Rule for Split {
    fn wish(&mut self, _x: &[f64], prediction: &Prediction, open: bool) -> Wish {
        if self.draws.chance(self.random_share) {
            Wish {
                random: true,
                ..Wish::plain(self.draws.chance(self.budget))
            }
        } else {
            Wish::plain(self.threshold.asks(prediction.confidence, 1.0, open))
        }
    }

    fn told(&mut self, lesson: &Lesson) -> Reaction {
        if lesson.random && self.detector.add(lesson.missed) == State::Drift {
            self.alarms += 1;
            if self.reset {
                return Reaction::Reset;
            }
        }
        Reaction::Nothing
    }

    fn alarms(&self) -> u64 {
        self.alarms
    }
}

impl Strategy for SplitUncertainty {
    type State = Single<Split>;

    fn begin(&self, setting: &Setting) -> Result<Self::State> {
        check_step(self.step)?;
        if !(0.0..=1.0).contains(&self.random_share) {
            return Err(Error::option("random-share", "must be from 0 to 1"));
        }
        let classes = setting.classes(Self::FACTS.name)?;
        let rule = Split {
            threshold: Variable::new(self.step, classes),
            random_share: self.random_share,
            budget: setting.budget,
            reset: self.reset,
            draws: Draws::new(setting.seed, "stream-labelling split"),
            detector: Ddm::default(),
            alarms: 0,
        };
        Ok(Single::new(Model::new(&setting.model), rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_labelling::engine::Strategy;
    use proptest::prelude::*;

    fn sure(confidence: f64) -> Prediction {
        Prediction::of_classes(vec![confidence, 1.0 - confidence])
    }

    #[test]
    fn thresholds_by_hand() {
        assert!((fixed_threshold(10, 0.1) - 0.19).abs() < 1e-12);
        assert!((fixed_threshold(2, 1.0) - 1.0).abs() < 1e-12);
        let mut theta = Variable::new(0.1, 2);
        assert!(theta.asks(0.95, 1.0, true)); // 1 -> 0.9
        assert!(!theta.asks(0.9, 1.0, true)); // equal is not below: 0.99
        assert!((theta.theta - 0.99).abs() < 1e-12);
        assert!(theta.asks(0.98, 1.0, false)); // frozen
        assert!((theta.theta - 0.99).abs() < 1e-12);
    }

    #[test]
    fn without_spread_the_randomised_threshold_is_the_variable_one() {
        let mut plain = Variable::new(0.01, 2);
        let mut random = Randomised::new(0.01, 0.0, 2, Draws::new(0, "test"));
        let mut draws = Draws::new(1, "test");
        for _ in 0..300 {
            let c = 0.5 + 0.5 * f64::from(u8::from(draws.chance(0.7))) * 0.9;
            assert_eq!(plain.asks(c, 1.0, true), random.asks(c, true));
        }
    }

    #[test]
    fn split_feeds_its_detector_with_random_rows_only() {
        let setting =
            super::super::engine::tests::setting(super::super::models::Target::Classes(2), 1);
        let state = SplitUncertainty::default().begin(&setting).unwrap();
        let value = serde_json::to_value(&state).unwrap();
        let mut rule: Split = serde_json::from_value(value["rule"].clone()).unwrap();
        let lesson = |random, missed| Lesson {
            x: &[0.0],
            truth: super::super::models::Truth::Class(0),
            weight: 1.0,
            random,
            missed,
        };
        let before = rule.clone();
        for _ in 0..100 {
            rule.told(&lesson(false, true));
        }
        assert_eq!(rule, before);
        (0..100).for_each(|_| {
            rule.told(&lesson(true, false));
        });
        (0..100).for_each(|_| {
            rule.told(&lesson(true, true));
        });
        assert!(rule.alarms >= 1);
        // A tenth of a tenth of sure rows is asked for by chance.
        rule.threshold.theta = 0.5;
        let asked = (0..20_000).filter(|_| {
            rule.threshold.theta = 0.5;
            rule.wish(&[0.0], &sure(1.0), true).ask
        });
        let share = asked.count() as f64 / 20_000.0;
        assert!((share - 0.1 * setting.budget).abs() < 0.005, "{share}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn theta_stays_within_its_limits(
            confidences in prop::collection::vec((0.0f64..=1.0, any::<bool>()), 1..2000), step in 0.001f64..0.9,
        ) {
            let mut theta = Variable::new(step, 4);
            for (c, open) in confidences {
                let before = theta.theta;
                theta.asks(c, 1.0, open);
                prop_assert!((0.25..=MOST).contains(&theta.theta));
                prop_assert!(open || theta.theta == before);
            }
        }
    }
}
