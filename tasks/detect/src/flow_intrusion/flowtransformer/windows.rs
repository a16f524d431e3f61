//! Which rows a window has. Windows are lists of row numbers; no flow is copied for them.

use papertrial_numerics::sampling::rng;
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The flows before the last one of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Before {
    /// Those that come before it in the file.
    InOrder,
    /// Any flows at hand, drawn anew for each window: tells whether the order carries anything.
    Random,
}

/// The rows of the windows that end in `rows`, [rows, window]; `all` rows are at hand.
pub(super) fn windows(
    rows: &[usize],
    window: usize,
    before: Before,
    all: usize,
    seed: u64,
) -> Vec<usize> {
    let mut out = Vec::with_capacity(rows.len() * window);
    for row in rows {
        match before {
            Before::InOrder => out.extend(row + 1 - window..=*row),
            Before::Random => {
                // By the row, so that neither the order nor the number of windows asked for matters.
                let mut draws = rng(seed, &format!("flows before flow {row}"));
                out.extend((1..window).map(|_| draws.random_range(0..all)));
                out.push(*row);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_end_in_their_row() {
        assert_eq!(
            windows(&[2, 7], 3, Before::InOrder, 9, 0),
            [0, 1, 2, 5, 6, 7]
        );
        let drawn = windows(&[4, 2], 3, Before::Random, 9, 1);
        assert_eq!((drawn[2], drawn[5]), (4, 2));
        assert_eq!(drawn[3..], windows(&[2], 3, Before::Random, 9, 1));
        assert!(drawn.iter().all(|r| *r < 9));
        assert_eq!(windows(&[3], 1, Before::Random, 9, 1), [3]);
    }
}
