//! The budget: whether the next label may be paid.
//!
//! B is the share of rows whose labels may be paid, w the window, q_t 1 if row t was asked for and 0 if not.
//!
//! - `fading`: u_t = u_{t-1} (w - 1) / w + q_t, open while u_t / w < B. An empty purse lets a burst of about B w labels
//!   through. As u never passes B w + 1 (or what a warm-up put there), n rows cost at most
//!   (B + 1 / w) n + B w + 1 labels on top of the warm-up.
//! - `quota`: every w rows have a quota of B w labels, carried over as a fraction of a label but never as whole ones.
//! - `running`: open if one more label keeps asked / seen at B or below. Exact, without a burst.
//!
//! Every row is recorded, those that were not asked for and those that were blocked too. O(1) a row.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the spend is estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Estimate {
    /// A fading count of the last labels.
    Fading,
    /// A quota for each chunk of rows.
    Quota,
    /// The exact share of all rows so far.
    Running,
}

/// What was spent so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Purse {
    estimate: Estimate,
    budget: f64,
    window: f64,
    faded: f64,
    left: f64,
    seen: u64,
    asked: u64,
}

impl Purse {
    /// An untouched purse; `budget` in (0, 1], `window` at least 1.
    pub fn new(estimate: Estimate, budget: f64, window: u64) -> Purse {
        Purse {
            estimate,
            budget,
            window: window as f64,
            faded: 0.0,
            left: 0.0,
            seen: 0,
            asked: 0,
        }
    }

    /// Whether the label of the next row may be paid, at `rate` times the budget.
    pub fn open(&self, rate: f64) -> bool {
        let budget = (self.budget * rate).min(1.0);
        // A budget of all rows is never exhausted; the fading count alone would block a row now and then.
        budget >= 1.0
            || match self.estimate {
                Estimate::Fading => self.faded / self.window < budget,
                Estimate::Quota => {
                    let fresh = (self.seen as f64 % self.window == 0.0) as u8;
                    let quota = self.left + f64::from(fresh) * self.window * self.budget;
                    quota + (rate - 1.0) * self.budget * self.window >= 1.0
                }
                Estimate::Running => (self.asked + 1) as f64 <= budget * (self.seen + 1) as f64,
            }
    }

    /// Takes note of a row's decision.
    pub fn record(&mut self, ask: bool) {
        let q = f64::from(u8::from(ask));
        self.faded = self.faded * (self.window - 1.0) / self.window + q;
        if self.seen as f64 % self.window == 0.0 {
            // A debt stays, a rest of whole labels does not.
            self.left = self.left.min(self.left.rem_euclid(1.0)) + self.budget * self.window;
        }
        self.left -= q;
        self.seen += 1;
        self.asked += u64::from(ask);
    }

    /// Rows recorded.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Labels paid.
    pub fn asked(&self) -> u64 {
        self.asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_fading_count_by_hand() {
        // w = 2, B = 0.6: open while u < 1.2. u: 1, 1.5 (blocked), 0.75, 1.375 (blocked), 0.6875, ..
        let mut purse = Purse::new(Estimate::Fading, 0.6, 2);
        let mut asked = Vec::new();
        for _ in 0..6 {
            let ask = purse.open(1.0);
            purse.record(ask);
            asked.push(u8::from(ask));
        }
        assert_eq!(asked, [1, 1, 0, 1, 0, 1]);
        assert_eq!((purse.asked(), purse.seen()), (4, 6));
    }

    #[test]
    fn quotas_and_running_shares_by_hand() {
        let greedy = |estimate, n: usize| -> Vec<usize> {
            let mut purse = Purse::new(estimate, 0.25, 6);
            (0..n)
                .filter(|_| {
                    let ask = purse.open(1.0);
                    purse.record(ask);
                    ask
                })
                .collect()
        };
        // 1.5 labels for each six rows: one, then one and the two halves.
        assert_eq!(greedy(Estimate::Quota, 18), [0, 6, 7, 12]);
        // One label for each four rows that have passed.
        assert_eq!(greedy(Estimate::Running, 13), [3, 7, 11]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_wishes_spend_more_than_the_stated_bound(
            budget in 0.01f64..1.0, window in 1u64..200, n in 1usize..2000, eager in 0.0f64..1.0, seed in any::<u64>(),
        ) {
            for estimate in [Estimate::Fading, Estimate::Quota, Estimate::Running] {
                let mut purse = Purse::new(estimate, budget, window);
                let mut draws = super::super::draws::Draws::new(seed, "test");
                for _ in 0..n {
                    let ask = draws.chance(eager) && purse.open(1.0);
                    purse.record(ask);
                }
                let (n, w, asked) = (n as f64, window as f64, purse.asked() as f64);
                let bound = match estimate {
                    Estimate::Fading => (budget + 1.0 / w) * n + budget * w + 1.0,
                    Estimate::Quota => (n / w).ceil() * budget * w,
                    Estimate::Running => budget * n,
                };
                prop_assert!(asked <= bound + 1e-6, "{estimate:?}: {asked} > {bound}");
            }
        }
    }
}
