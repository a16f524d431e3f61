//! CAL: rows that a model sees otherwise than their neighbours.
//!
//! Baseline. Margatina, Vernikos, Barrault, Aletras, *Active Learning by Acquiring Contrastive Examples*, EMNLP 2021,
//! arXiv 2109.03764.
//!
//! p \[n, c\] probabilities of a scoring model, f \[n, h\] what its last layer gets.
//! 1. For each row i find the rows j nearest in f, `neighbours` of them (among all others: every label is known here).
//! 2. Score: the mean over j of KL(p_j || p_i).
//! 3. Keep the k rows with the highest scores (hard) or the lowest (easy), in each class its share or of all together.
//!    (DeepCore's code looks for neighbours within the class when it balances, takes the symmetric divergence, and keeps
//!    the lowest scores; here is what the paper says.)
//!
//! Cost: the scoring model, then O(n^2 h) for the neighbours; memory O(n (c + neighbours)).

use super::pool::{Choice, Keep, Pool, Selector, View};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::neighbours::self_neighbours;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of CAL.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cal {
    /// Which rows are kept.
    pub keep: Keep,
    /// Keep the classes' shares.
    pub balance: bool,
    /// Neighbours that a row is compared with.
    #[schemars(range(min = 1))]
    pub neighbours: usize,
}

impl Default for Cal {
    fn default() -> Self {
        Cal {
            keep: Keep::Hard,
            balance: true,
            neighbours: 10,
        }
    }
}

impl Method for Cal {
    const FACTS: Facts = Facts {
        name: "cal",
        about: "rows whose probabilities differ most from those of their neighbours",
        paper: None,
        streams: false,
    };
}

impl Selector for Cal {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        pool.by_model(0, |view| {
            pool.best(&contrasts(view, self.neighbours)?, self.keep, self.balance)
        })
    }
}

/// Steps 1 and 2, `[n]`; a single row has no neighbour and scores 0.
fn contrasts(view: &View, neighbours: usize) -> Result<Vec<f64>> {
    let n = view.features.nrows();
    if n < 2 {
        return Ok(vec![0.0; n]);
    }
    let near = self_neighbours(view.features.view(), neighbours.min(n - 1))
        .map_err(|e| Error::Failed(format!("the features of the scoring model: {e}")))?;
    let logs = log_probabilities(view);
    Ok((0..n)
        .map(|i| {
            let of_pairs = near.indices.row(i);
            let sum: f64 = of_pairs
                .iter()
                .map(|j| divergence(&logs[*j as usize], &logs[i]))
                .sum();
            sum / of_pairs.len() as f64
        })
        .collect())
}

/// ln p of each row: from the logits, so that a probability of nearly 0 has a logarithm too.
pub fn log_probabilities(view: &View) -> Vec<Vec<f64>> {
    view.logits
        .outer_iter()
        .map(|row| {
            let most = row.fold(f32::NEG_INFINITY, |a, b| a.max(*b));
            let sum: f64 = row.iter().map(|v| f64::from(*v - most).exp()).sum();
            row.iter()
                .map(|v| f64::from(*v - most) - sum.ln())
                .collect()
        })
        .collect()
}

/// KL(p || q) from logarithms.
pub fn divergence(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum()
}

#[cfg(test)]
mod tests {
    use super::super::pool::testing::Asked;
    use super::*;
    use ndarray::array;

    #[test]
    fn divergence_by_hand() {
        let (p, q) = ([0.5f64.ln(), 0.5f64.ln()], [0.25f64.ln(), 0.75f64.ln()]);
        let want = 0.5 * 2f64.ln() + 0.5 * (2.0f64 / 3.0).ln();
        assert!((divergence(&p, &q) - want).abs() < 1e-12);
        assert_eq!(divergence(&q, &q), 0.0);
    }

    #[test]
    fn the_row_that_differs_from_its_neighbours_is_found() {
        // Two heaps; row 1 lies in the first and looks like the second.
        let asked = Asked::new(
            array![[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]],
            vec![0; 6],
            array![
                [4.0, 0.0],
                [0.0, 4.0],
                [4.0, 0.0],
                [0.0, 4.0],
                [0.0, 4.0],
                [0.0, 4.0]
            ],
            1,
        );
        let cal = |keep| Cal {
            keep,
            balance: false,
            neighbours: 2,
        };
        assert_eq!(asked.once(&cal(Keep::Hard)).unwrap().rows, [1]);
        assert_eq!(asked.once(&cal(Keep::Easy)).unwrap().rows, [3]);
        let scores = contrasts(&asked.view, 2).unwrap();
        let logs = log_probabilities(&asked.view);
        assert!((scores[1] - divergence(&logs[0], &logs[1])).abs() < 1e-12);
        assert!((scores[0] - divergence(&logs[1], &logs[0]) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn fewer_rows_than_neighbours() {
        for n in 1..4 {
            let asked = Asked::plain(n, 1, 1, 0);
            assert_eq!(asked.once(&Cal::default()).unwrap().rows.len(), 1);
        }
    }
}
