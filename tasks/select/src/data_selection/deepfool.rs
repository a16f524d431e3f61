//! DeepFool: rows near the border between two classes.
//!
//! Baseline. Ducoffe and Precioso, *Adversarial Active Learning for Deep Networks: a Margin Based Approach*, 2018, arXiv
//! 1802.09841, with the distance of Moosavi-Dezfooli, Fawzi, Frossard, *DeepFool*, CVPR 2016, arXiv 1511.04599.
//!
//! z \[n, c\] logits of a scoring model, W \[h, c\] weights of its last layer, a the predicted class of a row.
//! 1. Distance of a row to the border of a and class b: |z_a - z_b| / ||W_a - W_b||; to the nearest border: the least
//!    over b. The last layer is linear, so this is exact where it looks from, and DeepFool's iteration ends after its
//!    first step: in the columns themselves for softmax regression, in what the last layer gets for the other networks.
//! 2. Keep the k rows nearest to a border (hard) or farthest from all (easy), in each class its share or of all together.
//!
//! Cost: the scoring model, then O(n c + c^2 h).

use super::pool::{Choice, Keep, Pool, Selector, View};
use ndarray::Array2;
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the choice by distance to the border.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct DeepFool {
    /// Which rows are kept.
    pub keep: Keep,
    /// Keep the classes' shares.
    pub balance: bool,
}

impl Default for DeepFool {
    fn default() -> Self {
        DeepFool {
            keep: Keep::Hard,
            balance: true,
        }
    }
}

impl Method for DeepFool {
    const FACTS: Facts = Facts {
        name: "deepfool",
        about: "rows nearest to the border between two classes of a scoring model's last layer",
        paper: None,
        streams: false,
    };
}

impl Selector for DeepFool {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        pool.by_model(0, |view| {
            let nearness: Vec<f64> = distances(view).iter().map(|d| -d).collect();
            pool.best(&nearness, self.keep, self.balance)
        })
    }
}

/// Step 1, `[n]`: infinite where there is no border, so with one class or two classes with the same weights.
fn distances(view: &View) -> Vec<f64> {
    let classes = view.logits.ncols();
    let apart = Array2::from_shape_fn((classes, classes), |(a, b)| {
        let difference = &view.head.column(a) - &view.head.column(b);
        f64::from(difference.dot(&difference)).sqrt()
    });
    view.logits
        .outer_iter()
        .map(|z| {
            let mut predicted = 0;
            for class in 1..classes {
                if z[class] > z[predicted] {
                    predicted = class;
                }
            }
            (0..classes)
                .filter(|b| *b != predicted && apart[[predicted, *b]] > 0.0)
                .map(|b| f64::from(z[predicted] - z[b]) / apart[[predicted, b]])
                .fold(f64::INFINITY, f64::min)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::pool::testing::Asked;
    use super::*;
    use ndarray::array;

    #[test]
    fn distances_of_points_to_lines_by_hand() {
        // Classes (1, 0), (0, 1) and (-1, 0): borders x = y, x = 0 and y = -x.
        let x = array![[3.0, 1.0], [2.0, -9.0], [0.0, 5.0], [0.25, 0.0]];
        let head = array![[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]];
        let view = View {
            logits: x.dot(&head),
            features: x,
            head,
        };
        let found = distances(&view);
        let root = 2f64.sqrt();
        for (d, want) in found.iter().zip([2.0 / root, 2.0, 5.0 / root, 0.25 / root]) {
            assert!((d - want).abs() < 1e-6, "{found:?}");
        }
    }

    #[test]
    fn nearest_to_the_border_is_hardest() {
        let x = array![[3.0f32, 0.0], [1.0, 0.0], [0.0, 2.0]];
        let asked = |choose| Asked::new(x.clone(), vec![0, 0, 1], x.clone(), choose);
        let options = |keep, balance| DeepFool { keep, balance };
        let rows = |k, o: DeepFool| asked(k).once(&o).unwrap().rows;
        assert_eq!(rows(1, options(Keep::Hard, false)), [1]);
        assert_eq!(rows(1, options(Keep::Easy, false)), [0]);
        // With one class there is no border, and the earlier rows are taken.
        let one = Asked::plain(4, 1, 2, 0);
        assert_eq!(one.once(&DeepFool::default()).unwrap().rows, [0, 1]);
    }
}
