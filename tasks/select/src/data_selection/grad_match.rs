//! GradMatch: rows whose weighted gradients add up to the gradient of all.
//!
//! Baseline. Killamsetty et al., *GRAD-MATCH: Gradient Matching based Data Subset Selection for Efficient Deep Model
//! Training*, ICML 2021, arXiv 2103.00123.
//!
//! g_i gradients of the last layer, [c (h + 1)], of the n rows of a group; b their mean.
//! 1. Residual r = b. k times take the row i not taken yet with the largest g_i r (orthogonal matching pursuit).
//! 2. After each, w = the minimiser over w >= 0 of ||sum over S of w_i g_i - b||^2 + lambda ||w||^2, and
//!    r = b - sum over S of w_i g_i. (The authors' code solves it without the sign, and mends that at the end; here it is
//!    kept at every step, by coordinate descent from the last w, so that the residual is that of the weights used.)
//! 3. Rows with weight 0 are dropped, and the weights of the others enter the loss, with mean 1 over all of them. So there
//!    may be fewer than k rows.
//! 4. In each class apart, as many as its share, or of all together.
//!
//! Cost: the scoring model, then O(n k c h) for the products and O(k^2) for each sweep of a group's weights; memory
//! O(n (c + h) + k^2).

use super::gradients::Gradients;
use super::pool::{Choice, Pool, Selector};
use super::rows::largest_free;
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of GradMatch.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct GradMatch {
    /// Pull of the weights to 0.
    #[schemars(range(min = 0.0))]
    pub lambda: f64,
    /// Choose in each class apart, as many as its share.
    pub balance: bool,
    /// Rounds after which rows are chosen anew, by the model being trained; 0 to choose once, by a scoring model.
    pub every: usize,
}

impl Default for GradMatch {
    fn default() -> Self {
        GradMatch {
            lambda: 0.5,
            balance: true,
            every: 0,
        }
    }
}

impl Method for GradMatch {
    const FACTS: Facts = Facts {
        name: "grad-match",
        about: "rows whose weighted last-layer gradients add up to the gradient of all rows",
        paper: None,
        streams: false,
    };
}

impl Selector for GradMatch {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        pool.by_model(self.every, |view| {
            let all = Gradients::of(view, pool.labels)?;
            pool.in_groups(self.balance, |rows, quota| {
                let (chosen, weights) = pursue(&all.taken(rows), quota, self.lambda);
                Ok((chosen, Some(weights)))
            })
        })
    }
}

/// Steps 1 to 3: rows and their weights above 0; the first row with weight 1 where no gradient helps.
fn pursue(g: &Gradients, k: usize, lambda: f64) -> (Vec<usize>, Vec<f64>) {
    let b = g.mean();
    let with_b = g.along(&b);
    let mut residual = b.clone();
    let mut used = vec![false; g.rows()];
    let mut problem = Ridge::new(lambda);
    let mut chosen: Vec<usize> = Vec::with_capacity(k);
    while chosen.len() < k {
        // Step 1.
        let along = g.along(&residual);
        let Some(best) = largest_free(along.iter().map(|v| f64::from(*v)), &used) else {
            break;
        };
        used[best] = true;
        chosen.push(best);
        // Step 2.
        let products = g.products(&[best]);
        let with_chosen = chosen.iter().map(|c| f64::from(products[[0, *c]]));
        problem.add(with_chosen.collect(), f64::from(with_b[best]));
        problem.solve();
        residual.assign(&b);
        for (row, w) in chosen.iter().zip(&problem.w) {
            g.add(&mut residual, *row, -*w as f32);
        }
    }
    // Step 3.
    let kept = chosen.iter().copied().zip(problem.w);
    let kept: Vec<(usize, f64)> = kept.filter(|(_, w)| *w > 0.0).collect();
    if kept.is_empty() {
        return (chosen.into_iter().take(1).collect(), vec![1.0]);
    }
    kept.into_iter().unzip()
}

/// Minimises w'(G + lambda I)w / 2 - q'w over w >= 0, with one more w at a time.
struct Ridge {
    lambda: f64,
    /// Lower triangle of G, line by line.
    g: Vec<Vec<f64>>,
    q: Vec<f64>,
    w: Vec<f64>,
}

/// Sweeps of coordinate descent at most; it starts near the end, and few are needed.
const SWEEPS: usize = 200;

impl Ridge {
    fn new(lambda: f64) -> Ridge {
        Ridge {
            lambda,
            g: Vec::new(),
            q: Vec::new(),
            w: Vec::new(),
        }
    }

    /// One more weight: its products with the others and itself, and with the target.
    fn add(&mut self, products: Vec<f64>, with_target: f64) {
        self.g.push(products);
        self.q.push(with_target);
        self.w.push(0.0);
    }

    /// Each weight in turn to its best value with the others fixed, until none moves by more than a millionth of the
    /// largest.
    fn solve(&mut self) {
        let m = self.w.len();
        for _ in 0..SWEEPS {
            let mut moved = 0.0f64;
            for i in 0..m {
                let others: f64 = (0..m)
                    .filter(|j| *j != i)
                    .map(|j| self.g[i.max(j)][i.min(j)] * self.w[j])
                    .sum();
                let own = self.g[i][i] + self.lambda;
                let best = if own > 0.0 {
                    ((self.q[i] - others) / own).max(0.0)
                } else {
                    0.0
                };
                moved = moved.max((best - self.w[i]).abs());
                self.w[i] = best;
            }
            let most = self.w.iter().fold(0.0f64, |a, b| a.max(*b));
            if moved <= 1e-6 * most {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::testing::Asked;
    use super::*;
    use ndarray::{Array2, array};

    /// Gradients that are the inputs themselves.
    fn plain(inputs: Array2<f32>) -> Gradients {
        Gradients {
            errors: Array2::ones((inputs.nrows(), 1)),
            inputs,
        }
    }

    #[test]
    fn two_directions_are_matched_by_hand() {
        // Mean (1.5, 1): 6 x w1 + 4 y w2 with w = (1/4, 1/4); the largest product with (1.5, 1) is 9, of row 0.
        let g = plain(array![[6.0, 0.0], [0.0, 4.0], [0.0, 0.0], [0.0, 0.0]]);
        let (rows, weights) = pursue(&g, 2, 0.0);
        assert_eq!(rows, [0, 1]);
        assert!(
            weights.iter().all(|w| (w - 0.25).abs() < 1e-9),
            "{weights:?}"
        );
        // With the pull: 9 / (36 + 4), 4 / (16 + 4).
        let (_, weights) = pursue(&g, 2, 4.0);
        assert!((weights[0] - 0.225).abs() < 1e-9 && (weights[1] - 0.2).abs() < 1e-9);
    }

    #[test]
    fn no_weight_is_negative_and_useless_rows_are_dropped() {
        // Mean (1, 0.5): row 2 points the other way and gets nothing.
        let g = plain(array![[4.0, 2.0], [0.0, 0.0], [-1.0, -0.5], [1.0, 0.5]]);
        let (rows, weights) = pursue(&g, 4, 0.0);
        assert!(!rows.contains(&2) && !rows.contains(&1), "{rows:?}");
        assert!(weights.iter().all(|w| *w > 0.0));
        let (rows, weights) = pursue(&plain(Array2::zeros((3, 2))), 2, 0.5);
        assert_eq!((rows, weights), (vec![0], vec![1.0]));
    }

    #[test]
    fn the_weights_are_a_minimum() {
        let mut ridge = Ridge::new(0.1);
        ridge.add(vec![2.0], 1.0);
        ridge.add(vec![0.5, 1.0], -0.3);
        ridge.add(vec![-0.7, 0.2, 1.5], 0.9);
        ridge.solve();
        let g = |i: usize, j: usize| ridge.g[i.max(j)][i.min(j)] + if i == j { 0.1 } else { 0.0 };
        for i in 0..3 {
            let slope: f64 = (0..3).map(|j| g(i, j) * ridge.w[j]).sum::<f64>() - ridge.q[i];
            if ridge.w[i] > 0.0 {
                assert!(slope.abs() < 1e-5, "{slope}");
            } else {
                assert!(slope > -1e-9, "{slope}");
            }
        }
        assert_eq!(ridge.w[1], 0.0);
    }

    #[test]
    fn weights_have_mean_one_and_rows_stay_within_the_budget() {
        let found = Asked::plain(30, 3, 9, 0)
            .once(&GradMatch::default())
            .unwrap();
        let weights = found.weights.unwrap();
        assert!(!found.rows.is_empty() && found.rows.len() <= 9);
        let mean = weights.iter().sum::<f32>() / weights.len() as f32;
        assert!((mean - 1.0).abs() < 1e-5);
    }
}
