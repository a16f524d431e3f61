//! How good alerts are. On traffic of which nearly all is benign, accuracy says nothing: the balanced accuracy and the
//! share of false alarms lead.

use papertrial_core::task::MetricInfo;
use std::collections::BTreeMap;

/// The metrics, the most telling first.
pub(super) const METRICS: &[MetricInfo] = &[
    MetricInfo::new(
        "balanced-accuracy",
        Some(true),
        "mean of the shares of attacks and of benign flows that are recognised, 0 to 1; chance is 0.5",
    ),
    MetricInfo::new(
        "false-alarm-rate",
        Some(false),
        "share of benign flows that raise an alert, 0 to 1",
    ),
    MetricInfo::new(
        "detection-rate",
        Some(true),
        "share of attacks that raise an alert, 0 to 1",
    ),
    MetricInfo::new(
        "f1",
        Some(true),
        "harmonic mean of precision and detection rate, 0 to 1",
    ),
    MetricInfo::new(
        "precision",
        Some(true),
        "share of alerts that are attacks, 0 to 1",
    ),
    MetricInfo::new(
        "auc",
        Some(true),
        "probability that an attack scores higher than a benign flow, 0 to 1, whatever the threshold",
    ),
    MetricInfo::new("true-positives", None, "attacks that raise an alert"),
    MetricInfo::new("false-positives", None, "benign flows that raise an alert"),
    MetricInfo::new("true-negatives", None, "benign flows without an alert"),
    MetricInfo::new("false-negatives", None, "attacks without an alert"),
    MetricInfo::new("parameters", Some(false), "numbers that were fitted"),
    MetricInfo::new(
        "label-correlation",
        None,
        "correlation of a flow's label with the next one's: 0 where the order of the file says nothing of attacks",
    ),
    MetricInfo::new(
        "seconds-per-step",
        Some(false),
        "mean wall seconds of a training step, the first left out",
    )
    .timed(),
    MetricInfo::new(
        "seconds-per-window",
        Some(false),
        "wall seconds to score one held-out flow, all of them at once, data in memory",
    )
    .timed(),
    MetricInfo::new(
        "fit-seconds",
        Some(false),
        "wall seconds of fitting, data in memory",
    )
    .timed(),
];

/// Alerts against the truth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Confusion {
    /// Attacks that raise an alert.
    pub true_positives: u64,
    /// Benign flows that do.
    pub false_positives: u64,
    /// Benign flows that don't.
    pub true_negatives: u64,
    /// Attacks that don't.
    pub false_negatives: u64,
}

impl Confusion {
    /// Adds a flow.
    pub fn add(&mut self, attack: bool, alert: bool) {
        *match (attack, alert) {
            (true, true) => &mut self.true_positives,
            (false, true) => &mut self.false_positives,
            (false, false) => &mut self.true_negatives,
            (true, false) => &mut self.false_negatives,
        } += 1;
    }

    /// Of scored flows; a score above `threshold` is an alert.
    pub fn of(attacks: &[bool], scores: &[f32], threshold: f64) -> Confusion {
        let mut confusion = Confusion::default();
        for (attack, score) in attacks.iter().zip(scores) {
            confusion.add(*attack, f64::from(*score) > threshold);
        }
        confusion
    }

    /// Balanced accuracy, false-alarm rate and so on, and the counts; those that divide by 0 are absent.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let [tp, fp, tn, fn_] = [
            self.true_positives,
            self.false_positives,
            self.true_negatives,
            self.false_negatives,
        ]
        .map(|count| count as f64);
        let share = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        let detection = share(tp, tp + fn_);
        let alarm = share(fp, fp + tn);
        let balanced = detection.zip(alarm).map(|(d, a)| (d + 1.0 - a) / 2.0);
        let f1 = detection.and_then(|_| share(2.0 * tp, 2.0 * tp + fp + fn_));
        [
            ("balanced-accuracy", balanced),
            ("false-alarm-rate", alarm),
            ("detection-rate", detection),
            ("f1", f1),
            ("precision", share(tp, tp + fp)),
            ("true-positives", Some(tp)),
            ("false-positives", Some(fp)),
            ("true-negatives", Some(tn)),
            ("false-negatives", Some(fn_)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_string(), value?)))
        .collect()
    }
}

/// The probability that an attack scores higher than a benign flow, equal scores counting half; `None` where one class
/// is absent. O(n log n).
pub fn auc(attacks: &[bool], scores: &[f32]) -> Option<f64> {
    let mut order: Vec<(f32, bool)> = scores
        .iter()
        .copied()
        .zip(attacks.iter().copied())
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut wins, mut positives) = (0.0f64, 0.0f64, 0.0f64);
    for equal in order.chunk_by(|a, b| a.0 == b.0) {
        let hits = equal.iter().filter(|(_, attack)| *attack).count() as f64;
        let misses = equal.len() as f64 - hits;
        wins += hits * (below + misses / 2.0);
        below += misses;
        positives += hits;
    }
    (below > 0.0 && positives > 0.0).then(|| wins / (below * positives))
}

/// Correlation of each label with the next; `None` where one of the two does not vary.
pub fn label_correlation(attacks: &[bool]) -> Option<f64> {
    let pairs = attacks.len().checked_sub(1)? as f64;
    let count = |of: &dyn Fn(bool, bool) -> bool| {
        attacks.windows(2).filter(|w| of(w[0], w[1])).count() as f64 / pairs
    };
    let (first, second) = (count(&|a, _| a), count(&|_, b| b));
    let spread = (first * (1.0 - first) * second * (1.0 - second)).sqrt();
    (spread > 0.0).then(|| (count(&|a, b| a && b) - first * second) / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_by_hand() {
        let attacks = [true, true, true, false, false, false, false, false];
        let scores = [0.9, 0.6, 0.5, 0.7, 0.1, 0.2, 0.5, 0.3];
        let confusion = Confusion::of(&attacks, &scores, 0.5);
        // A score of exactly the threshold is no alert.
        assert_eq!(
            confusion,
            Confusion {
                true_positives: 2,
                false_positives: 1,
                true_negatives: 4,
                false_negatives: 1
            }
        );
        let metrics = confusion.metrics();
        let close = |name: &str, want: f64| assert!((metrics[name] - want).abs() < 1e-12, "{name}");
        close("detection-rate", 2.0 / 3.0);
        close("false-alarm-rate", 0.2);
        close("balanced-accuracy", (2.0 / 3.0 + 0.8) / 2.0);
        close("precision", 2.0 / 3.0);
        close("f1", 2.0 / 3.0);
        // 0.9 beats 5, 0.6 beats 4, 0.5 beats 3 and equals one: 12.5 of 15.
        assert!((auc(&attacks, &scores).unwrap() - 12.5 / 15.0).abs() < 1e-12);
    }

    #[test]
    fn what_divides_by_nothing_is_absent() {
        let metrics = Confusion::of(&[true, true], &[0.1, 0.2], 0.5).metrics();
        assert!(!metrics.contains_key("false-alarm-rate") && !metrics.contains_key("precision"));
        assert!(!metrics.contains_key("balanced-accuracy"));
        assert_eq!(metrics["f1"], 0.0);
        assert_eq!(auc(&[true], &[0.5]), None);
        assert_eq!(auc(&[], &[]), None);
    }

    #[test]
    fn correlation_of_neighbours() {
        let runs: Vec<bool> = (0..40).map(|i| i / 20 == 1).collect();
        assert!(label_correlation(&runs).unwrap() > 0.9);
        let alternating: Vec<bool> = (0..40).map(|i| i % 2 == 1).collect();
        assert!((label_correlation(&alternating).unwrap() + 1.0).abs() < 1e-9);
        assert_eq!(label_correlation(&[true, true, true]), None);
        assert_eq!(label_correlation(&[]), None);
    }
}
