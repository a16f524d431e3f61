//! k-center greedy, and contextual diversity: rows far from all chosen before.
//!
//! Baselines. Sener and Savarese, *Active Learning for Convolutional Neural Networks: A Core-Set Approach*, ICLR 2018,
//! arXiv 1708.00489; Agarwal et al., *Contextual Diversity for Active Learning*, ECCV 2020, arXiv 2008.05723.
//!
//! f \[n, h\] what the last layer of a scoring model gets, or the columns; p \[n, c\] its probabilities.
//! 1. Start with the row nearest to the group's mean.
//! 2. Take the row with the largest distance to its nearest chosen row, until there are k; of equal ones the first.
//! 3. Distance: `k-center` ||f_i - f_j||; `contextual-diversity` (KL(p_i || p_j) + KL(p_j || p_i)) / 2, and the start is
//!    the row nearest to the mean of p (for pictures without parts the paper's mixture of a region is the row's p).
//!
//! The largest distance at the end is at most twice that of the best k rows (Gonzalez 1985), for k-center.
//!
//! Cost: the scoring model, then at most O(n k h): a row whose nearest chosen row is at most half as far from it as from
//! the new one is left alone (triangle inequality). Memory O(n h).

use super::contrast::log_probabilities;
use super::pool::{Choice, Pool, Selector, Space};
use super::rows::{sum_of_rows, taken};
use ndarray::{Array2, ArrayView2};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::squared_distance;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of k-center greedy.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct KCenter {
    /// Choose in each class apart, as many as its share.
    pub balance: bool,
    /// Where distances are taken.
    pub space: Space,
}

/// Options of contextual diversity.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ContextualDiversity {
    /// Choose in each class apart, as many as its share.
    pub balance: bool,
}

impl Default for KCenter {
    fn default() -> Self {
        KCenter {
            balance: true,
            space: Space::Model,
        }
    }
}

impl Default for ContextualDiversity {
    fn default() -> Self {
        ContextualDiversity { balance: true }
    }
}

impl Method for KCenter {
    const FACTS: Facts = Facts {
        name: "k-center",
        about: "rows chosen one by one, each the farthest from all chosen before",
        paper: None,
        streams: false,
    };
}

impl Method for ContextualDiversity {
    const FACTS: Facts = Facts {
        name: "contextual-diversity",
        about: "rows chosen one by one, each with the probabilities that differ most from all chosen before",
        paper: None,
        streams: false,
    };
}

impl Selector for KCenter {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        pool.by_space(self.space, |f| {
            pool.in_groups(self.balance, |rows, quota| {
                Ok((centers(taken(f, rows).view(), quota)?, None))
            })
        })
    }
}

impl Selector for ContextualDiversity {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        pool.by_model(0, |view| {
            let logs = log_probabilities(view);
            let p = view.probabilities();
            pool.in_groups(self.balance, |rows, quota| {
                let first = central(taken(p.view(), rows).view())?;
                let far = |i: usize, j: usize| {
                    let pairs = logs[rows[i]].iter().zip(&logs[rows[j]]);
                    let sum: f64 = pairs.map(|(p, q)| (p.exp() - q.exp()) * (p - q)).sum();
                    (0.5 * sum) as f32
                };
                Ok((greedy(rows.len(), quota, first, far, |_, _| false), None))
            })
        })
    }
}

/// `k` rows of f [n, h] by k-center greedy, in the order in which they are chosen.
///
/// # Errors
/// Values that are not finite.
pub fn centers(f: ArrayView2<f32>, k: usize) -> Result<Vec<usize>> {
    let first = central(f)?;
    let f: Array2<f32> = f.as_standard_layout().into_owned();
    let flat = f.as_slice().unwrap_or(&[]);
    let row = |i: usize| &flat[i * f.ncols()..(i + 1) * f.ncols()];
    Ok(greedy(
        f.nrows(),
        k,
        first,
        |i, j| squared_distance(row(i), row(j)),
        // Squares: half as far is a quarter; the factor leaves room for rounding.
        |between, own| own <= 0.2499 * between,
    ))
}

/// The row nearest to the mean.
fn central(f: ArrayView2<f32>) -> Result<usize> {
    if f.iter().any(|v| !v.is_finite()) {
        return Err(Error::Failed(
            "the scoring model gave values that are not finite; try a lower learning-rate".into(),
        ));
    }
    let mean = sum_of_rows(f) / f.nrows().max(1) as f64;
    let mut best = (0, f64::INFINITY);
    for (i, row) in f.outer_iter().enumerate() {
        let off = row
            .iter()
            .zip(&mean)
            .map(|(v, m)| (f64::from(*v) - m).powi(2));
        let off: f64 = off.sum();
        if off < best.1 {
            best = (i, off);
        }
    }
    Ok(best.0)
}

/// Rows of one piece of parallel work.
const BLOCK: usize = 256;

/// The `k` rows of n that are each the farthest from all before. `near(between, own)` tells from the distance of the new
/// row to a chosen one, and a row's own distance to that one, that the new row cannot be nearer.
fn greedy(
    n: usize,
    k: usize,
    first: usize,
    far: impl Fn(usize, usize) -> f32 + Sync,
    near: impl Fn(f32, f32) -> bool + Sync,
) -> Vec<usize> {
    let k = k.min(n);
    let mut chosen: Vec<usize> = Vec::with_capacity(k);
    // Distance to the nearest chosen row, and its place among the chosen; below 0 for a row that is chosen itself.
    let mut own = vec![f32::INFINITY; n];
    let mut whose = vec![0u32; n];
    let mut next = first;
    while chosen.len() < k {
        let between: Vec<f32> = chosen.iter().map(|c| far(next, *c)).collect();
        let place = chosen.len() as u32;
        chosen.push(next);
        let farthest: Vec<(usize, f32)> = own
            .par_chunks_mut(BLOCK)
            .zip(whose.par_chunks_mut(BLOCK))
            .enumerate()
            .map(|(b, (own, whose))| {
                let mut best = (0, f32::NEG_INFINITY);
                for (i, (d, c)) in own.iter_mut().zip(whose).enumerate() {
                    let row = b * BLOCK + i;
                    if row == next {
                        *d = -1.0;
                    } else if place == 0 || !near(between[*c as usize], *d) {
                        let new = far(row, next);
                        if new < *d {
                            (*d, *c) = (new, place);
                        }
                    }
                    if *d > best.1 {
                        best = (row, *d);
                    }
                }
                best
            })
            .collect();
        let mut best = (0, f32::NEG_INFINITY);
        for found in farthest {
            if found.1 > best.1 {
                best = found;
            }
        }
        next = best.0;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::super::pool::testing::Asked;
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;

    #[test]
    fn points_on_a_line_by_hand() {
        // Mean 5: start 4; farthest 12, then 0; then 7 (3 from 4; 2 is 2 from both).
        let f = array![[0.0f32], [2.0], [4.0], [7.0], [12.0]];
        assert_eq!(centers(f.view(), 4).unwrap(), [2, 4, 0, 3]);
        assert_eq!(centers(f.view(), 9).unwrap().len(), 5);
        let same = array![[1.0f32], [1.0], [1.0]];
        let mut all = centers(same.view(), 3).unwrap();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
        let e = centers(array![[f32::NAN]].view(), 1).unwrap_err();
        assert!(e.to_string().contains("not finite"), "{e}");
    }

    #[test]
    fn contextual_diversity_takes_the_model_s_opposites() {
        // Sure of the first class, of the second, of neither; mean nearest to the third.
        let asked = Asked::new(
            Array2::zeros((4, 1)),
            vec![0; 4],
            array![[3.0, 0.0], [0.0, 3.0], [0.0, 0.0], [0.1, 0.0]],
            3,
        );
        let found = asked.once(&ContextualDiversity::default()).unwrap();
        assert_eq!(found.rows, [0, 1, 2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn each_choice_is_the_farthest_by_the_definition(
            values in proptest::collection::vec(-20i8..20, 4..80), k in 1usize..12,
        ) {
            let n = values.len() / 2;
            let f = Array2::from_shape_fn((n, 2), |(i, j)| f32::from(values[2 * i + j]));
            let k = k.min(n);
            let found = centers(f.view(), k).unwrap();
            let far = |i: usize, j: usize| {
                let d = &f.row(i) - &f.row(j);
                d.dot(&d)
            };
            for t in 1..k {
                let own = |i: usize| {
                    found[..t].iter().map(|j| far(i, *j)).fold(f32::INFINITY, f32::min)
                };
                let most = (0..n).filter(|i| !found[..t].contains(i)).map(own).fold(-1.0, f32::max);
                prop_assert_eq!(own(found[t]), most);
                prop_assert!(!found[..t].contains(&found[t]));
            }
        }
    }
}
