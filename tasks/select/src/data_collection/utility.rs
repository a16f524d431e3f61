//! Utilities: one number for how good it is that the groups have the qualities m_1, …, m_G.

use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is wanted of the groups' qualities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// Weighted sum of the qualities.
    Sum,
    /// Quality of the worst-off group; ties are broken by the next worst.
    Min,
    /// Weighted sum of m^(1 - aversion) / (1 - aversion), ln m for aversion 1.
    Isoelastic,
    /// Weighted sum less penalty times (largest - smallest quality).
    Disparity,
    /// Every group at the target for the least money; its value is minus the weighted sum of what is missing.
    Target,
}

/// A goal with its numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Utility {
    /// The kind.
    pub goal: Goal,
    /// One weight a group, at least 0.
    pub weights: Vec<f64>,
    /// Aversion to inequality, of [`Goal::Isoelastic`].
    pub aversion: f64,
    /// Penalty on the gap, of [`Goal::Disparity`].
    pub penalty: f64,
    /// Quality wanted, of [`Goal::Target`].
    pub target: f64,
}

/// Below this a quality counts as this much under [`Goal::Isoelastic`], which has no value at 0.
const LEAST_QUALITY: f64 = 1e-6;

impl Utility {
    /// Checks the weights.
    ///
    /// # Errors
    /// Not one weight a group, a negative or infinite one, or none above 0.
    pub fn check(&self, groups: usize) -> Result<()> {
        if self.weights.len() != groups {
            return Err(Error::option(
                "weights",
                format!(
                    "there are {groups} groups and {} weights",
                    self.weights.len()
                ),
            ));
        }
        if self.weights.iter().any(|w| !(w.is_finite() && *w >= 0.0)) {
            return Err(Error::option("weights", "must be at least 0 and finite"));
        }
        if !self.weights.iter().any(|w| *w > 0.0) {
            return Err(Error::option("weights", "at least one must be above 0"));
        }
        Ok(())
    }

    /// The utility of the qualities, one a group.
    pub fn value(&self, qualities: &[f64]) -> f64 {
        let low = qualities.iter().copied().fold(f64::INFINITY, f64::min);
        if self.goal == Goal::Min {
            return low;
        }
        let sum: f64 = (0..qualities.len())
            .map(|g| self.part(g, qualities[g]))
            .sum();
        match self.goal {
            Goal::Disparity => {
                let high = qualities.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                sum - self.penalty * (high - low)
            }
            _ => sum,
        }
    }

    /// Whether the utility is a sum of one concave part a group.
    pub fn separable(&self) -> bool {
        matches!(self.goal, Goal::Sum | Goal::Isoelastic | Goal::Target)
    }

    /// Group g's part of the utility, without what hangs on several groups.
    pub fn part(&self, g: usize, quality: f64) -> f64 {
        let weight = self.weights[g];
        match self.goal {
            Goal::Sum | Goal::Min | Goal::Disparity => weight * quality,
            Goal::Target => -weight * (self.target - quality).max(0.0),
            Goal::Isoelastic => {
                let m = quality.max(LEAST_QUALITY);
                if (self.aversion - 1.0).abs() < 1e-9 {
                    weight * m.ln()
                } else {
                    weight * m.powf(1.0 - self.aversion) / (1.0 - self.aversion)
                }
            }
        }
    }

    /// Derivative of [`Utility::part`] by the quality.
    pub fn part_slope(&self, g: usize, quality: f64) -> f64 {
        let weight = self.weights[g];
        match self.goal {
            Goal::Sum | Goal::Min | Goal::Disparity => weight,
            Goal::Target if quality >= self.target => 0.0,
            Goal::Target => weight,
            Goal::Isoelastic => weight * quality.max(LEAST_QUALITY).powf(-self.aversion),
        }
    }
}

#[cfg(test)]
pub(super) fn plain(goal: Goal, groups: usize) -> Utility {
    Utility {
        goal,
        weights: vec![1.0; groups],
        aversion: 1.0,
        penalty: 1.0,
        target: 0.7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_by_hand() {
        let m = [0.5, 0.8];
        for (goal, expected) in [
            (Goal::Sum, 1.3),
            (Goal::Min, 0.5),
            (Goal::Isoelastic, 0.4f64.ln()),
            (Goal::Disparity, 1.0),
            (Goal::Target, -0.2),
        ] {
            assert!(
                (plain(goal, 2).value(&m) - expected).abs() < 1e-12,
                "{goal:?}"
            );
        }
        let roots = Utility {
            aversion: 0.5,
            ..plain(Goal::Isoelastic, 2)
        };
        assert!((roots.value(&[0.25, 0.64]) - 2.6).abs() < 1e-12);
    }

    #[test]
    fn weights_are_checked() {
        for weights in [
            vec![1.0],
            vec![1.0, -0.1],
            vec![0.0, 0.0],
            vec![f64::NAN, 1.0],
        ] {
            let u = Utility {
                weights,
                ..plain(Goal::Sum, 2)
            };
            assert!(u.check(2).unwrap_err().to_string().contains("weights"));
        }
        assert!(plain(Goal::Sum, 2).check(2).is_ok());
    }
}
