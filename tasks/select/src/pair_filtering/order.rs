//! The order in which pairs are seen: whole passes in random order, one after the other, as many as it takes.
//!
//! Trainings are compared at equal numbers of pairs seen and equal steps, not at equal passes, or small sets would get
//! fewer steps.

use papertrial_numerics::sampling::{permutation, rng};
use rand_chacha::ChaCha8Rng;

/// Endless rows of 0 to n.
pub(super) struct Order {
    n: usize,
    rng: ChaCha8Rng,
    pass: Vec<usize>,
}

impl Order {
    /// For `n` rows, at least one; the seed and the purpose decide the order.
    pub fn new(n: usize, seed: u64, purpose: &str) -> Self {
        Order {
            n,
            rng: rng(seed, purpose),
            pass: Vec::new(),
        }
    }

    /// The next `count` rows.
    pub fn take(&mut self, count: usize) -> Vec<usize> {
        let mut rows = Vec::with_capacity(count);
        while rows.len() < count && self.n > 0 {
            if self.pass.is_empty() {
                self.pass = permutation(&mut self.rng, self.n);
            }
            let left = self.pass.len() - (count - rows.len()).min(self.pass.len());
            rows.extend(self.pass.drain(left..).rev());
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_comes_once_a_pass_however_it_is_cut() {
        let mut order = Order::new(5, 1, "test");
        let rows: Vec<usize> = [3, 4, 1, 7].iter().flat_map(|c| order.take(*c)).collect();
        assert_eq!(rows.len(), 15);
        for pass in rows.chunks(5) {
            let mut sorted = pass.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
        assert_eq!(Order::new(5, 1, "test").take(15), rows);
        assert_ne!(Order::new(5, 2, "test").take(15), rows);
        assert!(Order::new(0, 1, "test").take(3).is_empty());
    }
}
