//! Baselines: chance, all labels, and the first labels only.
//!
//! - random: every row is asked for with probability B. The purse has no say: closing it half of the time would spend less
//!   than the budget and flatter its rivals.
//! - all-labels: what a model learns that pays for everything; the ceiling.
//! - first-labels: asks for the first n rows, then never again.

use super::draws::Draws;
use super::engine::{Setting, Strategy, Wish};
use super::models::{Model, Prediction};
use super::single::{Rule, Single};
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of chance: none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RandomLabels {}

impl Method for RandomLabels {
    const FACTS: Facts = Facts {
        name: "random",
        about: "ask for every row with the same probability, the budget",
        paper: None,
        streams: false,
    };
}

/// The probability and the draws.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chance {
    budget: f64,
    draws: Draws,
}

impl Rule for Chance {
    fn wish(&mut self, _x: &[f64], _prediction: &Prediction, _open: bool) -> Wish {
        Wish {
            random: true,
            ..Wish::plain(self.draws.chance(self.budget))
        }
    }

    fn gated(&self) -> bool {
        false
    }
}

impl Strategy for RandomLabels {
    type State = Single<Chance>;

    fn begin(&self, setting: &Setting) -> Result<Self::State> {
        let rule = Chance {
            budget: setting.budget,
            draws: Draws::new(setting.seed, "stream-labelling random"),
        };
        Ok(Single::new(Model::new(&setting.model), rule))
    }
}

/// Options of all labels: none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct AllLabels {}

impl Method for AllLabels {
    const FACTS: Facts = Facts {
        name: "all-labels",
        about: "ask for every row whatever the budget: the ceiling",
        paper: None,
        streams: false,
    };
}

/// The first rows so many, and how many have passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct First {
    left: u64,
}

impl Rule for First {
    fn wish(&mut self, _x: &[f64], _prediction: &Prediction, _open: bool) -> Wish {
        let ask = self.left > 0;
        self.left = self.left.saturating_sub(1);
        Wish {
            random: true,
            ..Wish::plain(ask)
        }
    }

    fn warm(&mut self, _x: &[f64]) {
        self.left = self.left.saturating_sub(1);
    }

    fn gated(&self) -> bool {
        false
    }
}

impl Strategy for AllLabels {
    type State = Single<First>;

    fn begin(&self, setting: &Setting) -> Result<Self::State> {
        let rule = First { left: u64::MAX };
        Ok(Single::new(Model::new(&setting.model), rule))
    }
}

/// Options of the first labels.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct FirstLabels {
    /// Labels asked for; if absent, the budget's share of the rows to come, or of 1,000 where their number is unknown.
    #[schemars(range(min = 1))]
    pub n: Option<u64>,
}

impl Method for FirstLabels {
    const FACTS: Facts = Facts {
        name: "first-labels",
        about: "ask for the first rows until the budget is spent, then never again",
        paper: None,
        streams: false,
    };
}

impl Strategy for FirstLabels {
    type State = Single<First>;

    fn begin(&self, setting: &Setting) -> Result<Self::State> {
        let rows = setting.rows.unwrap_or(1000) as f64;
        let left = self
            .n
            .unwrap_or((setting.budget * rows).round().max(1.0) as u64);
        Ok(Single::new(Model::new(&setting.model), First { left }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rows_are_asked_for_and_those_of_the_warm_up_count() {
        let mut rule = First { left: 3 };
        let prediction = Prediction::of_classes(vec![0.5, 0.5]);
        rule.warm(&[0.0]);
        let asked: Vec<bool> = (0..4)
            .map(|_| rule.wish(&[0.0], &prediction, false).ask)
            .collect();
        assert_eq!(asked, [true, true, false, false]);
    }

    #[test]
    fn chance_asks_for_its_share() {
        let mut rule = Chance {
            budget: 0.05,
            draws: Draws::new(0, "test"),
        };
        let prediction = Prediction::of_classes(vec![1.0, 0.0]);
        let asked = (0..20_000).filter(|_| rule.wish(&[0.0], &prediction, false).ask);
        let share = asked.count() as f64 / 20_000.0;
        assert!((share - 0.05).abs() < 0.008, "{share}");
    }
}
