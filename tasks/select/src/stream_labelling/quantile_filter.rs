//! The balanced incremental quantile filter, a budget manager for utilities of any scale.
//!
//! Kottke, Krempl and Spiliopoulou, *Probabilistic active learning in datastreams*, 2015. Of the last w utilities, the new
//! one among them, theta is the (1 - B) quantile; with a = B seen - asked labels left over, a row is asked for if
//! u >= theta - range a / w_tol, the range being that of the window. O(w) a row.

use papertrial_numerics::stats::quantile;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The window and the counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantileFilter {
    window: usize,
    tolerance: f64,
    budget: f64,
    utilities: VecDeque<f64>,
    seen: f64,
    asked: f64,
}

impl QuantileFilter {
    /// An empty window of `window` utilities.
    pub fn new(budget: f64, window: usize, tolerance: f64) -> QuantileFilter {
        QuantileFilter {
            window,
            tolerance,
            budget,
            utilities: VecDeque::new(),
            seen: 0.0,
            asked: 0.0,
        }
    }

    /// Whether to ask for a row of this utility; counted as asked only if `open`.
    pub fn asks(&mut self, utility: f64, open: bool) -> bool {
        self.utilities.push_back(utility);
        if self.utilities.len() > self.window {
            self.utilities.pop_front();
        }
        self.seen += 1.0;
        let values = self.utilities.make_contiguous();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let left = self.budget * self.seen - self.asked;
        let ask = quantile(values, 1.0 - self.budget)
            .is_ok_and(|theta| utility >= theta - (most - least) * left / self.tolerance);
        self.asked += f64::from(u8::from(ask && open));
        ask
    }

    /// A row that was asked for in the warm-up.
    pub fn warm(&mut self) {
        self.seen += 1.0;
        self.asked += 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_rows_by_hand() {
        let mut filter = QuantileFilter::new(0.5, 10, 10.0);
        // One value is its own quantile.
        assert!(filter.asks(1.0, true));
        // 1, 0: median 0.5; a = 1 - 1 = 0; 0 is below.
        assert!(!filter.asks(0.0, true));
        // 1, 0, 0.45: median 0.45.
        assert!(filter.asks(0.45, true));
        // 1, 0, 0.45, 0.3: median 0.375; a = 2 - 2 = 0.
        assert!(!filter.asks(0.3, true));
        // and 0.2: median 0.3; a = 2.5 - 2 = 0.5: 0.3 - 1 * 0.5 / 10 = 0.25.
        assert!(!filter.asks(0.2, true));
    }

    #[test]
    fn the_share_comes_near_the_budget() {
        let mut draws = crate::stream_labelling::draws::Draws::new(0, "test");
        let mut filter = QuantileFilter::new(0.1, 100, 50.0);
        let asked = (0..5000)
            .filter(|_| filter.asks(draws.share(), true))
            .count();
        assert!((450..=550).contains(&asked), "{asked}");
    }
}
