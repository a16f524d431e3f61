//! DDM, a detector of changes in a rate of errors.
//!
//! Gama, Medas, Castillo and Rodrigues, *Learning with drift detection*, 2004. p is the share of errors so far and
//! s = sqrt(p (1 - p) / n). After 30 labels the least p + s is remembered as p_min + s_min; p + s above p_min + 2 s_min is a
//! warning, above p_min + 3 s_min a drift, after which the detector starts anew. It sees labelled rows only: fed with rows
//! that were asked for because they were uncertain it knows the errors on those, not on all. O(1) a label.

use serde::{Deserialize, Serialize};

const LEAST: u64 = 30;

/// What the detector says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No change.
    Stable,
    /// There may be one.
    Warning,
    /// There is one.
    Drift,
}

/// The counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ddm {
    n: u64,
    errors: u64,
    /// p and s where p + s was least.
    least: Option<(f64, f64)>,
}

impl Ddm {
    /// Takes in whether a prediction was wrong.
    pub fn add(&mut self, error: bool) -> State {
        self.n += 1;
        self.errors += u64::from(error);
        if self.n < LEAST {
            return State::Stable;
        }
        let p = self.errors as f64 / self.n as f64;
        let s = (p * (1.0 - p) / self.n as f64).sqrt();
        let (p_min, s_min) = match self.least {
            Some((a, b)) if a + b <= p + s => (a, b),
            _ => *self.least.insert((p, s)),
        };
        if p + s > p_min + 3.0 * s_min {
            *self = Ddm::default();
            State::Drift
        } else if p + s > p_min + 2.0 * s_min {
            State::Warning
        } else {
            State::Stable
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_sequence() {
        // Every fifth of 100 labels is an error: p = 0.2, s = 0.04 at 100. p + s is least at 99: 19 errors,
        // 0.191919 + 0.039579. Then errors only: n = 100 + m has 20 + m errors.
        let mut ddm = Ddm::default();
        for i in 1..=100 {
            assert_eq!(ddm.add(i % 5 == 0), State::Stable, "{i}");
        }
        let (p_min, s_min): (f64, f64) =
            (19.0 / 99.0, (19.0 / 99.0 * 80.0 / 99.0 / 99.0f64).sqrt());
        assert_eq!(ddm.least, Some((p_min, s_min)));
        // p + s is 23/103 + 0.0410 = 0.264 at m = 3 and 24/104 + 0.0413 = 0.272 at 4: the warning, beyond 0.2711.
        // 29/109 + 0.0423 = 0.308 at 9 and 30/110 + 0.0425 = 0.315 at 10: the drift, beyond 0.3107.
        let (warn, drift) = (4, 10);
        for m in 1..=drift {
            let state = ddm.add(true);
            let expected = match m {
                m if m >= drift => State::Drift,
                m if m >= warn => State::Warning,
                _ => State::Stable,
            };
            assert_eq!(state, expected, "{m}");
        }
        assert_eq!(ddm, Ddm::default());
    }

    #[test]
    fn nothing_is_said_of_30_labels_or_of_a_fall() {
        let mut ddm = Ddm::default();
        assert!((0..29).all(|_| ddm.add(true) == State::Stable));
        assert!((0..500).all(|_| ddm.add(false) == State::Stable));
    }

    #[test]
    fn after_no_error_at_all_the_first_one_is_a_drift() {
        let mut ddm = Ddm::default();
        assert!((0..100).all(|_| ddm.add(false) == State::Stable));
        assert_eq!(ddm.add(true), State::Drift);
    }
}
