//! Prequential scores: every row is predicted before its label can be learned, asked for or not.

use super::engine::Decision;
use super::models::Truth;
use papertrial_core::Error;
use papertrial_core::Result;
use papertrial_core::task::{Curve, Measurement};
use papertrial_numerics::metrics::classification::{cohen_kappa, confusion};

/// Points of a curve at most.
const POINTS: usize = 200;

/// Rows whose accuracy tells whether a model has recovered, and the share of the accuracy before that it must reach.
const RECOVERY: (usize, f64) = (100, 0.95);

/// What is taken down of each row.
pub struct Score {
    fading: f64,
    window: usize,
    /// Classes, true and predicted.
    classes: (Vec<i32>, Vec<i32>),
    /// Sum of squared differences of numbers.
    squares: f64,
    rows: usize,
    spent: u64,
    /// Fading sums of right rows and of rows.
    faded: (f64, f64),
    /// Sum over labels of the fading accuracy when each was asked for.
    area: f64,
    /// Spend and fading accuracy after each row of a curve.
    points: Vec<(f64, f64, f64)>,
    stride: usize,
}

impl Score {
    /// For a stream of `rows` rows.
    pub fn new(rows: usize, fading: f64, window: usize) -> Score {
        Score {
            fading,
            window,
            classes: (Vec::new(), Vec::new()),
            squares: 0.0,
            rows: 0,
            spent: 0,
            faded: (0.0, 0.0),
            area: 0.0,
            points: Vec::new(),
            stride: rows.div_ceil(POINTS).max(1),
        }
    }

    /// Takes down a row.
    pub fn add(&mut self, decision: &Decision, truth: Truth) {
        match (decision.prediction.value, truth) {
            (Truth::Class(said), Truth::Class(is)) => {
                self.classes.0.push(is as i32);
                self.classes.1.push(said as i32);
                let right = f64::from(u8::from(said == is));
                self.faded.0 = right + self.fading * self.faded.0;
                self.faded.1 = 1.0 + self.fading * self.faded.1;
            }
            (Truth::Number(said), Truth::Number(is)) => {
                self.squares += (said - is) * (said - is);
            }
            _ => {}
        }
        self.rows += 1;
        self.spent = decision.spent;
        let accuracy = self.faded.0 / self.faded.1;
        if decision.ask {
            self.area += accuracy;
        }
        if self.rows.is_multiple_of(self.stride) {
            self.points
                .push((self.rows as f64, self.spent as f64, accuracy));
        }
    }

    /// All metrics but the time; `changes` are the rows, from 0, at which the labels' rule is known to change.
    ///
    /// # Errors
    /// No rows.
    pub fn finish(self, changes: &[usize]) -> Result<Measurement> {
        let mut measurement = Measurement::default();
        let n = self.rows as f64;
        let mut put = |name: &str, value: f64| {
            measurement.metrics.insert(name.into(), value);
        };
        put("labels-used", self.spent as f64 / n);
        let (truth, said) = &self.classes;
        if truth.is_empty() {
            put("prequential-rmse", (self.squares / n).sqrt());
        } else {
            let right: Vec<bool> = truth.iter().zip(said).map(|(a, b)| a == b).collect();
            put("prequential-accuracy", share(&right));
            put("fading-accuracy", self.faded.0 / self.faded.1);
            let start = right.len().saturating_sub(self.window);
            put("window-accuracy", share(&right[start..]));
            let table = confusion(truth, said).map_err(|e| Error::Failed(e.to_string()))?;
            // Undefined where both agree on a single class.
            if let Ok(kappa) = cohen_kappa(&table) {
                put("kappa", kappa);
                if self.spent > 0 {
                    put("kappa-per-100-labels", 100.0 * kappa / self.spent as f64);
                }
            }
            if self.spent > 0 {
                put("accuracy-label-area", self.area / self.spent as f64);
            }
            if let Some(rows) = changes
                .first()
                .and_then(|c| recovery(&right, *c, self.window))
            {
                put("recovery-rows", rows as f64);
            }
            measurement.curves.push(Curve {
                name: "fading accuracy".into(),
                x: "rows".into(),
                y: "accuracy".into(),
                points: self.points.iter().map(|p| (p.0, p.2)).collect(),
            });
        }
        measurement.curves.push(Curve {
            name: "labels asked for".into(),
            x: "rows".into(),
            y: "labels".into(),
            points: self.points.iter().map(|p| (p.0, p.1)).collect(),
        });
        Ok(measurement)
    }
}

fn share(right: &[bool]) -> f64 {
    right.iter().filter(|r| **r).count() as f64 / right.len() as f64
}

/// Rows after a change at row `change` until the last 100, all after it, are right as often as 95 % of the `window` rows
/// before it; all rows after it if that never comes. `None` without rows on both sides.
fn recovery(right: &[bool], change: usize, window: usize) -> Option<usize> {
    let (before, after) = right.split_at_checked(change)?;
    if before.is_empty() || after.is_empty() {
        return None;
    }
    let needed = RECOVERY.1 * share(&before[before.len().saturating_sub(window)..]);
    let found = after
        .windows(RECOVERY.0)
        .position(|rows| share(rows) >= needed);
    Some(found.map_or(after.len(), |start| start + RECOVERY.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_labelling::models::Prediction;

    fn decision(row: u64, class: usize, ask: bool, spent: u64) -> Decision {
        let mut p = vec![0.0, 0.0];
        p[class] = 1.0;
        Decision {
            row,
            prediction: Prediction::of_classes(p),
            ask,
            spent,
        }
    }

    #[test]
    fn scores_of_four_rows_by_hand() {
        // Right, wrong, right, right; labels at rows 0 and 2; fading 1/2, window 2.
        let mut score = Score::new(4, 0.5, 2);
        let rows = [
            (0, 0, true, 1),
            (0, 1, false, 1),
            (1, 1, true, 2),
            (0, 0, false, 2),
        ];
        for (i, (said, is, ask, spent)) in rows.into_iter().enumerate() {
            score.add(&decision(i as u64, said, ask, spent), Truth::Class(is));
        }
        let m = score.finish(&[]).unwrap().metrics;
        let close = |name: &str, value: f64| {
            assert!((m[name] - value).abs() < 1e-12, "{name}: {}", m[name]);
        };
        close("prequential-accuracy", 0.75);
        close("window-accuracy", 1.0);
        close("labels-used", 0.5);
        // Sums 1, 0.5, 1.25, 1.625 over 1, 1.5, 1.75, 1.875.
        close("fading-accuracy", 1.625 / 1.875);
        close("accuracy-label-area", (1.0 + 1.25 / 1.75) / 2.0);
        // Agreement 3/4; by chance 1/2 * 3/4 + 1/2 * 1/4 = 1/2.
        close("kappa", 0.5);
        close("kappa-per-100-labels", 25.0);
        assert!(!m.contains_key("recovery-rows") && !m.contains_key("prequential-rmse"));
    }

    #[test]
    fn recovery_is_the_first_hundred_good_rows() {
        let mut right = vec![true; 500];
        right.extend(vec![false; 50]);
        right.extend(vec![true; 300]);
        // 95 of the last 100: all but 5 of the wrong ones must have passed.
        assert_eq!(recovery(&right, 500, 500), Some(145));
        assert_eq!(recovery(&right[..600], 500, 500), Some(100));
        assert_eq!(recovery(&right, 0, 500), None);
        assert_eq!(recovery(&right, 10_000, 500), None);
    }

    #[test]
    fn numbers_have_a_root_mean_square() {
        let mut score = Score::new(2, 0.9, 5);
        for (said, is) in [(1.0, 4.0), (2.0, -2.0)] {
            let d = Decision {
                row: 0,
                prediction: Prediction {
                    probabilities: Vec::new(),
                    value: Truth::Number(said),
                    confidence: 1.0,
                },
                ask: false,
                spent: 0,
            };
            score.add(&d, Truth::Number(is));
        }
        let m = score.finish(&[]).unwrap().metrics;
        assert!((m["prequential-rmse"] - 12.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(m.len(), 2);
    }
}
