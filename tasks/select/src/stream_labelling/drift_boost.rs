//! More labels after a change.
//!
//! As the survey (arXiv 2302.08893) sets it out. Rows are asked for by a variable threshold. Two detectors, DDM and
//! ADWIN, watch whether the predictions of rows that were asked for were wrong, each as told when its label comes.
//!
//! 1. When either tells of a change the model starts anew, or what it learned is halved, and both detectors start anew.
//! 2. The budget is doubled for the next 2 w rows, w the window of the spend.
//! 3. Then it is halved for 4 w rows, by which the extra labels are paid back. A change in that time waits for its
//!    double budget until all is paid back, so that the debt never exceeds 2 w B labels.
//!
//! The detectors see rows of uncertain predictions only. The error they know is higher than that on all rows, and a change
//! far from the border, where the model is sure, escapes them.

use super::adwin::Adwin;
use super::ddm::{Ddm, State};
use super::engine::{Lesson, Setting, Strategy, Wish};
use super::models::{Model, Prediction};
use super::single::{Reaction, Rule, Single};
use super::uncertainty::{Variable, check_step};
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is done to the model at a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnDrift {
    /// It starts anew.
    Reset,
    /// What it learned is halved.
    Halve,
}

/// Options of the boost.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct DriftTriggeredBoost {
    /// Share by which the threshold moves with each row.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub step: f64,
    /// What is done to the model at a change.
    pub on_drift: OnDrift,
}

impl Default for DriftTriggeredBoost {
    fn default() -> Self {
        DriftTriggeredBoost {
            step: 0.01,
            on_drift: OnDrift::Reset,
        }
    }
}

impl Method for DriftTriggeredBoost {
    const FACTS: Facts = Facts {
        name: "drift-triggered-boost",
        about: "a variable threshold with twice the budget after a change is noticed, paid back later",
        paper: Some("online-al"),
        streams: false,
    };
}

/// Threshold, detectors and debt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Boost {
    threshold: Variable,
    on_drift: OnDrift,
    ddm: Ddm,
    adwin: Adwin,
    window: u64,
    /// Rows left of the double budget, then of the half one.
    double: u64,
    half: u64,
    /// A change that waits.
    waits: bool,
    alarms: u64,
}

impl Rule for Boost {
    fn wish(&mut self, _x: &[f64], prediction: &Prediction, open: bool) -> Wish {
        // Steps 2 and 3: the row is decided at the rate that was told before.
        if self.double > 0 {
            self.double -= 1;
        } else if self.half > 0 {
            self.half -= 1;
        }
        if self.waits && self.double == 0 && self.half == 0 {
            self.waits = false;
            self.borrow_labels();
        }
        Wish::plain(self.threshold.asks(prediction.confidence, 1.0, open))
    }

    fn told(&mut self, lesson: &Lesson) -> Reaction {
        let ddm = self.ddm.add(lesson.missed) == State::Drift;
        let adwin = self.adwin.add(f64::from(u8::from(lesson.missed)));
        if !(ddm || adwin) {
            return Reaction::Nothing;
        }
        // Step 1.
        self.alarms += 1;
        self.ddm = Ddm::default();
        self.adwin = Adwin::default();
        if self.double == 0 && self.half == 0 {
            self.borrow_labels();
        } else {
            self.waits = true;
        }
        match self.on_drift {
            OnDrift::Reset => Reaction::Reset,
            OnDrift::Halve => Reaction::Halve,
        }
    }

    fn rate(&self) -> f64 {
        if self.double > 0 {
            2.0
        } else if self.half > 0 {
            0.5
        } else {
            1.0
        }
    }

    fn alarms(&self) -> u64 {
        self.alarms
    }
}

impl Boost {
    fn borrow_labels(&mut self) {
        self.double = 2 * self.window;
        self.half = 4 * self.window;
    }
}

impl Strategy for DriftTriggeredBoost {
    type State = Single<Boost>;

    fn begin(&self, setting: &Setting) -> Result<Self::State> {
        check_step(self.step)?;
        let classes = setting.classes(Self::FACTS.name)?;
        let rule = Boost {
            threshold: Variable::new(self.step, classes),
            on_drift: self.on_drift,
            ddm: Ddm::default(),
            adwin: Adwin::default(),
            window: setting.window,
            double: 0,
            half: 0,
            waits: false,
            alarms: 0,
        };
        Ok(Single::new(Model::new(&setting.model), rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_labelling::models::Truth;

    fn boost() -> Boost {
        Boost {
            threshold: Variable::new(0.01, 2),
            on_drift: OnDrift::Reset,
            ddm: Ddm::default(),
            adwin: Adwin::default(),
            window: 10,
            double: 0,
            half: 0,
            waits: false,
            alarms: 0,
        }
    }

    fn tell(boost: &mut Boost, missed: bool) -> Reaction {
        boost.told(&Lesson {
            x: &[0.0],
            truth: Truth::Class(0),
            weight: 1.0,
            random: false,
            missed,
        })
    }

    fn alarm(boost: &mut Boost) {
        (0..60).for_each(|_| {
            tell(boost, false);
        });
        let before = boost.alarms;
        while boost.alarms == before {
            tell(boost, true);
        }
    }

    #[test]
    fn a_change_doubles_then_halves_and_a_second_one_waits() {
        let mut boost = boost();
        let prediction = Prediction::of_classes(vec![0.9, 0.1]);
        assert_eq!(boost.rate(), 1.0);
        alarm(&mut boost);
        let rates = |boost: &mut Boost, n: usize| -> f64 {
            (0..n)
                .map(|_| {
                    let rate = boost.rate();
                    boost.wish(&[0.0], &prediction, true);
                    rate
                })
                .sum()
        };
        // 20 rows at 2 and 40 at 1/2 are as many labels as 60 at 1.
        assert_eq!(rates(&mut boost, 20), 40.0);
        alarm(&mut boost);
        assert_eq!(rates(&mut boost, 40), 20.0);
        assert_eq!(boost.rate(), 2.0);
        assert_eq!(rates(&mut boost, 60), 60.0);
        assert_eq!((boost.rate(), boost.alarms), (1.0, 2));
    }

    #[test]
    fn right_predictions_are_no_alarm() {
        let mut boost = boost();
        assert!((0..500).all(|_| tell(&mut boost, false) == Reaction::Nothing));
        assert_eq!(tell(&mut boost, true), Reaction::Reset);
    }
}
