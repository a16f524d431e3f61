//! GLISTER: rows whose steps lower the loss of validation rows most.
//!
//! Baseline. Killamsetty et al., *GLISTER: Generalization based Data Subset Selection for Efficient and Robust Learning*,
//! AAAI 2021, arXiv 2012.10630.
//!
//! g_i gradients of the last layer of the rows, [c (h + 1)]; z \[n, c\] logits, u \[n, h + 1\] inputs of the last layer.
//! 1. v = the mean gradient of the validation rows. Take the rows not taken yet with the largest g_i v: to first order
//!    their steps lower the validation loss most. Not one by one, but `looks` times k / looks of them.
//! 2. Look ahead: the last layer after a step of the learning rate along the mean gradient of the rows chosen so far,
//!    z' = z - eta u M', M the mean; v anew from z'. Back to 1.
//! 3. In each class apart (validation rows of the class), or of all together.
//!
//! Validation rows are those of the pool itself, as in DeepCore's code where no others are given: no test row is used.
//!
//! Cost: the scoring model, then O(looks n c h); memory O(n (c + h)).

use super::gradients::Gradients;
use super::pool::{Choice, Pool, Selector, softmax_rows};
use super::rows::taken;
use ndarray::{Array2, Axis};
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use papertrial_numerics::linalg::matmul;
use papertrial_numerics::topk;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of GLISTER.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Glister {
    /// Choose in each class apart, as many as its share.
    pub balance: bool,
    /// Rounds after which rows are chosen anew, by the model being trained; 0 to choose once, by a scoring model.
    pub every: usize,
    /// Times that the validation gradient is computed, in each group.
    #[schemars(range(min = 1))]
    pub looks: usize,
}

impl Default for Glister {
    fn default() -> Self {
        Glister {
            balance: true,
            every: 0,
            looks: 20,
        }
    }
}

impl Method for Glister {
    const FACTS: Facts = Facts {
        name: "glister",
        about: "rows whose steps of the last layer lower the loss of all rows most",
        paper: None,
        streams: false,
    };
}

impl Selector for Glister {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        pool.by_model(self.every, |view| {
            let all = Gradients::of(view, pool.labels)?;
            pool.in_groups(self.balance, |rows, quota| {
                let labels: Vec<usize> = rows.iter().map(|r| pool.labels[*r]).collect();
                let ahead = Ahead {
                    gradients: all.taken(rows),
                    logits: taken(view.logits.view(), rows),
                    labels: &labels,
                    rate: pool.learning_rate as f32,
                };
                Ok((ahead.choose(quota, self.looks), None))
            })
        })
    }
}

/// A group as step 2 needs it.
struct Ahead<'a> {
    gradients: Gradients,
    logits: Array2<f32>,
    labels: &'a [usize],
    rate: f32,
}

impl Ahead<'_> {
    fn choose(&self, k: usize, looks: usize) -> Vec<usize> {
        let k = k.min(self.gradients.rows());
        let at_once = k.div_ceil(looks.max(1));
        let mut chosen: Vec<usize> = Vec::with_capacity(k);
        let mut sum = self.gradients.mean() * 0.0;
        let mut validation = self.gradients.mean();
        while chosen.len() < k {
            // Step 1.
            let mut gains = self.gradients.along(&validation);
            chosen.iter().for_each(|c| gains[*c] = f32::NEG_INFINITY);
            for best in topk::largest(&gains, at_once.min(k - chosen.len())) {
                self.gradients.add(&mut sum, best, 1.0);
                chosen.push(best);
            }
            // Step 2.
            if chosen.len() < k {
                validation = self.validation(&(&sum / chosen.len() as f32));
            }
        }
        chosen
    }

    /// The mean gradient after a step along `mean`, [c, h + 1].
    fn validation(&self, mean: &Array2<f32>) -> Array2<f32> {
        let mut errors =
            &self.logits - &(matmul(self.gradients.inputs.view(), mean.t()) * self.rate);
        softmax_rows(&mut errors);
        for (mut row, label) in errors.axis_iter_mut(Axis(0)).zip(self.labels) {
            row[*label] -= 1.0;
        }
        matmul(errors.t(), self.gradients.inputs.view()) / errors.nrows().max(1) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::View;
    use super::super::pool::testing::Asked;
    use super::*;
    use ndarray::array;

    fn ahead(view: &View, labels: &'static [usize], rate: f32) -> Ahead<'static> {
        Ahead {
            gradients: Gradients::of(view, labels).unwrap(),
            logits: view.logits.clone(),
            labels,
            rate,
        }
    }

    fn view() -> View {
        View {
            features: array![[1.0], [1.0], [1.0], [-1.0]],
            logits: array![[0.0, 0.0], [0.0, 2.0], [0.5, 0.0], [0.0, 0.0]],
            head: array![[1.0, -1.0]],
        }
    }

    #[test]
    fn the_first_choice_follows_the_mean_gradient() {
        // All of class 0: errors -(1 - p) x (1, -1); the second is the most wrong, and along the mean.
        let found = ahead(&view(), &[0, 0, 0, 0], 0.1).choose(1, 1);
        assert_eq!(found, [1]);
        let all = ahead(&view(), &[0, 0, 0, 0], 0.1).choose(9, 2);
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn looking_ahead_is_the_gradient_after_the_step() {
        let before = ahead(&view(), &[0, 1, 0, 1], 0.5);
        let step = array![[0.4f32, -0.2], [-0.4, 0.3]];
        let mut moved = view();
        for i in 0..4 {
            for c in 0..2 {
                moved.logits[[i, c]] -=
                    0.5 * (step[[c, 0]] * moved.features[[i, 0]] + step[[c, 1]]);
            }
        }
        let want = ahead(&moved, &[0, 1, 0, 1], 0.5).gradients.mean();
        let got = before.validation(&step);
        assert!(
            got.iter().zip(&want).all(|(g, w)| (g - w).abs() < 1e-6),
            "{got} {want}"
        );
        // Without a step it is where it was.
        let still = before.validation(&(step * 0.0));
        let mean = before.gradients.mean();
        assert!(still.iter().zip(&mean).all(|(g, w)| (g - w).abs() < 1e-7));
    }

    #[test]
    fn a_long_step_turns_the_choice_to_the_other_side() {
        // Two rows of class 0 and one of class 1 with the same features: after a huge step towards class 0 its rows are
        // right and the row of class 1 is the only one left to mend.
        let view = View {
            features: array![[1.0], [1.0], [1.0]],
            logits: Array2::zeros((3, 2)),
            head: array![[1.0, -1.0]],
        };
        assert_eq!(ahead(&view, &[0, 0, 1], 100.0).choose(2, 2), [0, 2]);
        assert_eq!(ahead(&view, &[0, 0, 1], 1e-6).choose(2, 2), [0, 1]);
    }

    #[test]
    fn classes_keep_their_shares() {
        let asked = Asked::plain(30, 3, 9, 0);
        let found = asked.once(&Glister::default()).unwrap();
        for class in 0..3 {
            assert_eq!(found.rows.iter().filter(|r| *r % 3 == class).count(), 3);
        }
    }
}
