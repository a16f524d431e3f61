//! What a method is asked: groups, money, the goal, and where qualities come from.

use super::curves::{LearningCurve, Point};
use super::rows::{Held, Rows};
use super::solve::{Group, Setting};
use super::utility::Utility;
use papertrial_core::Result;

/// The groups, the money and the goal.
pub struct Problem {
    /// The groups.
    pub groups: Vec<Group>,
    /// The goal.
    pub utility: Utility,
    /// Money for new rows.
    pub budget: f64,
    /// Money for one round of collecting.
    pub batch: f64,
    /// New rows that every group gets at least.
    pub least: usize,
    /// Where qualities come from.
    pub source: Source,
}

/// Where qualities come from.
pub enum Source {
    /// Curves that are given or were fitted to rows at hand; nothing can be bought to learn more.
    Curves(Vec<LearningCurve>),
    /// A population of which rows are bought.
    Rows(Rows),
}

impl Problem {
    /// What limits the counts.
    pub fn setting(&self) -> Setting<'_> {
        Setting {
            groups: &self.groups,
            utility: &self.utility,
            budget: self.budget,
            least: self.least,
        }
    }

    /// Quality of the groups `of` once `counts` rows were bought, on rows that are never bought.
    ///
    /// # Errors
    /// A model cannot be trained.
    pub fn qualities(&self, counts: &[usize], of: &[usize]) -> Result<Vec<Point>> {
        match &self.source {
            Source::Curves(curves) => Ok(of
                .iter()
                .map(|g| Point {
                    n: counts[*g] as f64,
                    value: curves[*g].value(counts[*g] as f64),
                    error: 1e-3,
                })
                .collect()),
            Source::Rows(rows) => rows.qualities(counts, of, Held::Validation),
        }
    }

    /// Least and greatest value of a learning curve's limit.
    pub fn range(&self) -> (f64, f64) {
        (0.0, 1.0)
    }

    /// The given curves, if there are.
    pub fn curves(&self) -> Option<&[LearningCurve]> {
        match &self.source {
            Source::Curves(curves) => Some(curves),
            Source::Rows(_) => None,
        }
    }
}
