//! Graph cut: rows like many others and unlike each other.
//!
//! Baseline. Iyer et al., *Submodular Combinatorial Information Measures with Applications in Machine Learning*, ALT 2021,
//! arXiv 2006.15412.
//!
//! f \[n, h\] what the last layer of a scoring model gets, or the columns, each row over its length; s_ij = f_i f_j.
//! 1. f(S) = lambda sum over i in V, j in S of s_ij - sum over i, j in S of s_ij.
//! 2. For t = 1 .. k take the row j not taken yet with the largest gain lambda sum_i s_ij - 2 sum over i in S of s_ij (the
//!    last term s_jj of the gain is 1 for all). The sums of products are products with sums: one product with each row.
//!
//! Cost: the scoring model, then O(n k h), and no matrix of pairs; memory O(n h).

use super::pool::{Choice, Pool, Selector, Space};
use super::rows::{largest_free, products, sum_of_rows, taken, unit_rows};
use ndarray::ArrayView2;
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of graph cut.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct GraphCut {
    /// Weight of being like all rows, over being unlike those chosen.
    #[schemars(range(min = 0.0))]
    pub lambda: f64,
    /// Choose in each class apart, as many as its share.
    pub balance: bool,
    /// Where similarities are taken.
    pub space: Space,
}

impl Default for GraphCut {
    fn default() -> Self {
        GraphCut {
            lambda: 1.0,
            balance: true,
            space: Space::Model,
        }
    }
}

impl Method for GraphCut {
    const FACTS: Facts = Facts {
        name: "graph-cut",
        about: "rows chosen one by one, each like many rows and unlike those chosen before",
        paper: None,
        streams: false,
    };
}

impl Selector for GraphCut {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        pool.by_space(self.space, |f| {
            pool.in_groups(self.balance, |rows, quota| {
                let unit = unit_rows(taken(f, rows).view());
                Ok((cut(unit.view(), quota, self.lambda), None))
            })
        })
    }
}

/// `k` rows of f [n, h], in the order in which they are chosen.
fn cut(f: ArrayView2<f32>, k: usize, lambda: f64) -> Vec<usize> {
    let mut along = sum_of_rows(f) * lambda;
    let mut used = vec![false; f.nrows()];
    let mut chosen = Vec::with_capacity(k);
    while chosen.len() < k {
        let gains = products(f, along.mapv(|v| v as f32).view());
        let Some(best) = largest_free(gains.iter().map(|g| f64::from(*g)), &used) else {
            break;
        };
        used[best] = true;
        along.zip_mut_with(&f.row(best), |a, v| *a -= 2.0 * f64::from(*v));
        chosen.push(best);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::super::pool::testing::Asked;
    use super::*;
    use ndarray::{Array2, array};
    use proptest::prelude::*;

    #[test]
    fn the_second_row_comes_from_the_smaller_heap() {
        // Three rows along x, two along y: gains 3, 3, 3, 2, 2; then 1, 1 and 2, 2.
        let f = array![[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]];
        assert_eq!(cut(f.view(), 3, 1.0), [0, 3, 1]);
        assert_eq!(cut(f.view(), 9, 1.0).len(), 5);
        let asked = Asked::new(f * 7.0, vec![0; 5], Array2::zeros((5, 1)), 2);
        assert_eq!(asked.once(&GraphCut::default()).unwrap().rows, [0, 3]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn each_choice_raises_the_objective_most(
            values in proptest::collection::vec(-3i8..4, 6..30), k in 1usize..5, lambda in 0.5f64..2.0,
        ) {
            let n = values.len() / 2;
            let f = unit_rows(
                Array2::from_shape_fn((n, 2), |(i, j)| f32::from(values[2 * i + j]) + 0.5).view(),
            );
            let s = f.dot(&f.t()).mapv(f64::from);
            let objective = |set: &[usize]| {
                let all: f64 = set.iter().map(|j| s.column(*j).sum()).sum();
                let pairs: f64 = set.iter().flat_map(|i| set.iter().map(|j| s[[*i, *j]])).sum();
                lambda * all - pairs
            };
            let found = cut(f.view(), k.min(n), lambda);
            for t in 0..found.len() {
                let with = |i: usize| objective(&[&found[..t], &[i]].concat());
                let most = (0..n).filter(|i| !found[..t].contains(i)).map(with).fold(f64::MIN, f64::max);
                prop_assert!(with(found[t]) >= most - 1e-4);
            }
        }
    }
}
