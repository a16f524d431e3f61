//! Herding: rows whose mean follows the mean of all.
//!
//! Baseline. Welling, *Herding Dynamical Weights to Learn*, ICML 2009; for choosing examples: Rebuffi et al., *iCaRL*,
//! CVPR 2017, arXiv 1611.07725.
//!
//! f \[n, h\] what the last layer of a scoring model gets, or the columns; m the mean of a group's f.
//! 1. S = 0. For t = 1 .. k take the row i not taken yet with the least ||m - (S + f_i) / t||, and add f_i to S.
//!    Since ||S + f_i - t m||^2 = ||f_i||^2 - 2 f_i (t m - S) + a constant, that is one product with each row.
//!
//! Cost: the scoring model, then O(n k h); memory O(n h).

use super::pool::{Choice, Pool, Selector, Space};
use super::rows::{largest_free, products, sum_of_rows, taken};
use ndarray::{ArrayView2, Axis};
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of herding.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Herding {
    /// Choose in each class apart, as many as its share.
    pub balance: bool,
    /// Where means are taken.
    pub space: Space,
}

impl Default for Herding {
    fn default() -> Self {
        Herding {
            balance: true,
            space: Space::Model,
        }
    }
}

impl Method for Herding {
    const FACTS: Facts = Facts {
        name: "herding",
        about: "rows chosen one by one so that their mean stays near the mean of all",
        paper: None,
        streams: false,
    };
}

impl Selector for Herding {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        pool.by_space(self.space, |f| {
            pool.in_groups(self.balance, |rows, quota| {
                Ok((herd(taken(f, rows).view(), quota), None))
            })
        })
    }
}

/// `k` rows of f [n, h], in the order in which they are chosen.
pub fn herd(f: ArrayView2<f32>, k: usize) -> Vec<usize> {
    let n = f.nrows();
    let mean = sum_of_rows(f) / n.max(1) as f64;
    let squares: Vec<f64> = f.axis_iter(Axis(0)).map(|r| f64::from(r.dot(&r))).collect();
    let mut sum = mean.clone() * 0.0;
    let mut used = vec![false; n];
    let mut chosen = Vec::with_capacity(k);
    for t in 1..=k {
        let target = &mean * t as f64 - &sum;
        let along = products(f, target.mapv(|v| v as f32).view());
        let closeness = along
            .iter()
            .zip(&squares)
            .map(|(p, s)| 2.0 * f64::from(*p) - s);
        let Some(best) = largest_free(closeness, &used) else {
            break;
        };
        used[best] = true;
        sum.zip_mut_with(&f.row(best), |s, v| *s += f64::from(*v));
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
    fn points_on_a_line_by_hand() {
        // Mean 4: first 3 (nearest), then 6 (mean 4.5; 2 gives 2.5, 9 gives 6), then 2 (11 / 3; 0 gives 3, 9 gives 6).
        let f = array![[0.0f32], [2.0], [3.0], [6.0], [9.0]];
        assert_eq!(herd(f.view(), 3), [2, 3, 1]);
        assert_eq!(herd(f.view(), 5).len(), 5);
        assert_eq!(herd(f.view(), 9).len(), 5);
    }

    #[test]
    fn columns_need_no_model_and_classes_are_apart() {
        let asked = Asked::new(
            array![[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]],
            vec![0, 0, 0, 1, 1, 1],
            Array2::zeros((6, 2)),
            2,
        );
        let options = Herding {
            space: Space::Columns,
            ..Herding::default()
        };
        assert_eq!(asked.once(&options).unwrap().rows, [1, 4]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn each_choice_is_the_best_by_the_definition(
            values in proptest::collection::vec(-4i8..5, 6..30), k in 1usize..4,
        ) {
            let n = values.len() / 2;
            let f = Array2::from_shape_fn((n, 2), |(i, j)| f32::from(values[2 * i + j]));
            let found = herd(f.view(), k.min(n));
            let mean = f.mean_axis(Axis(0)).unwrap();
            for t in 1..=found.len() {
                let off = |last: usize| {
                    let mut sum = f.row(last).to_owned();
                    found[..t - 1].iter().for_each(|i| sum += &f.row(*i));
                    let d = sum / t as f32 - &mean;
                    d.dot(&d)
                };
                let least = (0..n)
                    .filter(|i| !found[..t - 1].contains(i))
                    .map(off)
                    .fold(f32::INFINITY, f32::min);
                prop_assert!(off(found[t - 1]) <= least + 1e-4);
            }
        }
    }
}
