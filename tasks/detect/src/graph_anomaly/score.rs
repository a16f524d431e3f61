//! How good scores of graphs are.

use papertrial_core::{Error, Result};
use papertrial_numerics::metrics::classification::{
    Average, average_precision as precision, average_scores, confusion, roc_auc,
};

fn failed(e: impl std::fmt::Display) -> Error {
    Error::BadInput(format!("scores cannot be measured: {e}"))
}

/// Probability that an anomalous graph scores above a normal one.
///
/// # Errors
/// Graphs of one class only.
pub fn auc(truth: &[bool], scores: &[f64]) -> Result<f64> {
    roc_auc(truth, scores).map_err(failed)
}

/// Mean precision over the ranks of anomalous graphs.
///
/// # Errors
/// No anomalous graph.
pub fn average_precision(truth: &[bool], scores: &[f64]) -> Result<f64> {
    precision(truth, scores).map_err(failed)
}

/// Mean of the F1 of both classes, where graphs that score above `threshold` count as anomalous.
///
/// # Errors
/// No graphs.
pub fn macro_f1(truth: &[bool], scores: &[f64], threshold: f64) -> Result<f64> {
    let of = |anomalous: bool| i32::from(anomalous);
    let truth: Vec<i32> = truth.iter().map(|t| of(*t)).collect();
    let predicted: Vec<i32> = scores.iter().map(|s| of(*s > threshold)).collect();
    let table = confusion(&truth, &predicted).map_err(failed)?;
    Ok(average_scores(&table, Average::Macro).f1)
}

/// The threshold with the best [`macro_f1`]: half-way between two neighbouring scores; of equal ones the nearest to 0.5.
/// 0.5 if there are no graphs. O(n log n).
pub fn best_threshold(truth: &[bool], scores: &[f64]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let anomalous = truth.iter().filter(|t| **t).count() as f64;
    let n = truth.len() as f64;
    let (mut taken, mut hits) = (0.0, 0.0);
    let mut best = (f64::NEG_INFINITY, 0.5);
    for (place, g) in order.iter().enumerate() {
        taken += 1.0;
        hits += f64::from(u8::from(truth[*g]));
        let here = scores[*g];
        let next = order.get(place + 1).map(|g| scores[*g]);
        if next == Some(here) {
            continue;
        }
        let Some(next) = next else { break };
        let ratio = |twice: f64, below: f64| if below > 0.0 { twice / below } else { 0.0 };
        let rest = n - taken;
        let normal_hits = rest - (anomalous - hits);
        let f1 = 0.5
            * (ratio(2.0 * hits, taken + anomalous)
                + ratio(2.0 * normal_hits, rest + n - anomalous));
        let threshold = 0.5 * (here + next);
        let nearer = (threshold - 0.5).abs() < (best.1 - 0.5f64).abs();
        if f1 > best.0 || f1 == best.0 && nearer {
            best = (f1, threshold);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn macro_f1_by_hand() {
        let truth = [true, true, false, false, false];
        // One of two found, one of three wrongly: F1 1/2 and 2/3.
        let f1 = macro_f1(&truth, &[0.9, 0.1, 0.8, 0.2, 0.3], 0.5).unwrap();
        assert!((f1 - (0.5 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        assert!(macro_f1(&[], &[], 0.5).is_err());
        assert!(auc(&[true], &[0.3]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_other_threshold_is_better(
            rows in proptest::collection::vec((0u8..2, 0u8..8), 2..25),
        ) {
            let truth: Vec<bool> = rows.iter().map(|r| r.0 == 1).collect();
            let scores: Vec<f64> = rows.iter().map(|r| f64::from(r.1) / 8.0).collect();
            let found = macro_f1(&truth, &scores, best_threshold(&truth, &scores)).unwrap();
            let (low, high) = (scores.iter().copied().fold(1.0, f64::min), scores.iter().copied().fold(0.0, f64::max));
            for k in 0..16 {
                let threshold = f64::from(k) / 16.0;
                if (low..high).contains(&threshold) {
                    prop_assert!(macro_f1(&truth, &scores, threshold).unwrap() <= found + 1e-12);
                }
            }
        }
    }
}
