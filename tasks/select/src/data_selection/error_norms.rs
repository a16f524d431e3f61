//! EL2N and GraNd: the length of the error, and of the gradient, early in training.
//!
//! Baselines. Paul, Ganguli, Dziugaite, *Deep Learning on a Data Diet*, NeurIPS 2021, arXiv 2107.07075.
//!
//! p \[n, c\] probabilities, y \[n, c\] labels as 0 and 1, f \[n, h\] what the last layer gets.
//! 1. Train `models` scoring models on all rows, each from weights of its own, for the scoring epochs.
//! 2. Score a row in each: EL2N ||p - y||; GraNd ||p - y|| sqrt(||f||^2 + 1), which is exactly the length of the
//!    gradient of the loss by the weights and offsets of the last layer (the whole network's has no closed form).
//! 3. Average over the models; keep the k highest (hard) or lowest (easy), in each class its share or of all together.
//!
//! The authors average 10 models and score at epoch 20 of 200; the scoring epochs are an option of the task.
//!
//! Cost: `models` scoring models, then O(n (c + h)) for each.

use super::pool::{Choice, Keep, Pool, Selector, View};
use ndarray::Axis;
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of EL2N.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct El2n {
    /// Which rows are kept.
    pub keep: Keep,
    /// Keep the classes' shares.
    pub balance: bool,
    /// Scoring models, over which the score is averaged.
    #[schemars(range(min = 1))]
    pub models: usize,
}

/// Options of GraNd.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct GraNd {
    /// Which rows are kept.
    pub keep: Keep,
    /// Keep the classes' shares.
    pub balance: bool,
    /// Scoring models, over which the score is averaged.
    #[schemars(range(min = 1))]
    pub models: usize,
}

impl Default for El2n {
    fn default() -> Self {
        El2n {
            keep: Keep::Hard,
            balance: true,
            models: 10,
        }
    }
}

impl Default for GraNd {
    fn default() -> Self {
        GraNd {
            keep: Keep::Hard,
            balance: true,
            models: 10,
        }
    }
}

impl Method for El2n {
    const FACTS: Facts = Facts {
        name: "el2n",
        about: "rows with the longest error vector early in training, averaged over models",
        paper: None,
        streams: false,
    };
}

impl Method for GraNd {
    const FACTS: Facts = Facts {
        name: "grand",
        about: "rows with the longest gradient of the last layer early in training, averaged over models",
        paper: None,
        streams: false,
    };
}

impl Selector for El2n {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        let scores = averaged(pool, self.models, |view| error_lengths(view, pool.labels))?;
        Ok(Choice::Once(pool.best(&scores, self.keep, self.balance)?))
    }
}

impl Selector for GraNd {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        let scores = averaged(pool, self.models, |view| {
            gradient_lengths(view, pool.labels)
        })?;
        Ok(Choice::Once(pool.best(&scores, self.keep, self.balance)?))
    }
}

/// ||p - y|| of each row, `[n]`.
pub fn error_lengths(view: &View, labels: &[usize]) -> Vec<f64> {
    let errors = view.errors(labels);
    let lengths = errors.axis_iter(Axis(0));
    lengths.map(|e| f64::from(e.dot(&e)).sqrt()).collect()
}

/// Length of the gradient of the last layer's weights and offsets for each row, `[n]`.
pub fn gradient_lengths(view: &View, labels: &[usize]) -> Vec<f64> {
    let lengths = error_lengths(view, labels);
    let rows = view.features.axis_iter(Axis(0)).zip(lengths);
    rows.map(|(f, e)| e * (f64::from(f.dot(&f)) + 1.0).sqrt())
        .collect()
}

fn averaged(pool: &Pool, models: usize, score: impl Fn(&View) -> Vec<f64>) -> Result<Vec<f64>> {
    let mut sums = vec![0.0; pool.len()];
    for model in 0..models {
        pool.context.step("scoring models", model, models);
        // Step 1; the first is the one that methods with a single scoring model use.
        let seed = pool.context.seed ^ (model as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // Step 2.
        for (sum, score) in sums.iter_mut().zip(score(&pool.scored(seed)?)) {
            *sum += score / models as f64;
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::super::pool::testing::Asked;
    use super::*;
    use ndarray::array;

    /// Probabilities of the true class .5, .25, .75, .5, features of lengths 0, 0, 3, 1.
    fn asked(choose: usize) -> Asked {
        let l = 3f32.ln();
        Asked::new(
            array![[0.0, 0.0], [0.0, 0.0], [3.0, 0.0], [0.0, 1.0]],
            vec![0, 0, 1, 1],
            array![[0.0, 0.0], [0.0, l], [0.0, l], [0.0, 0.0]],
            choose,
        )
    }

    #[test]
    fn lengths_by_hand() {
        let asked = asked(1);
        let errors = error_lengths(&asked.view, &asked.labels);
        let root = 2f64.sqrt();
        for (e, want) in errors
            .iter()
            .zip([0.5 * root, 0.75 * root, 0.25 * root, 0.5 * root])
        {
            assert!((e - want).abs() < 1e-6, "{errors:?}");
        }
        let gradients = gradient_lengths(&asked.view, &asked.labels);
        assert!(
            (gradients[2] - 0.25 * root * 10f64.sqrt()).abs() < 1e-6,
            "{gradients:?}"
        );
        assert!(
            (gradients[3] - 0.5 * root * root).abs() < 1e-6,
            "{gradients:?}"
        );
    }

    #[test]
    fn the_closed_form_is_the_gradient_by_differences() {
        // Loss of row 2 as the weights of the last layer move; f = (3, 0), class 1, offsets 0 and ln 3.
        let loss = |w: [[f64; 2]; 2], b: [f64; 2]| {
            let z = [3.0 * w[0][0] + b[0], 3.0 * w[0][1] + 3f64.ln() + b[1]];
            (z[0].exp() + z[1].exp()).ln() - z[1]
        };
        let mut squares = 0.0;
        let h = 1e-5;
        for c in 0..2 {
            for part in 0..3 {
                let at = |s: f64| {
                    let (mut w, mut b) = ([[0.0; 2]; 2], [0.0; 2]);
                    if part < 2 {
                        w[part][c] = s;
                    } else {
                        b[c] = s;
                    }
                    loss(w, b)
                };
                squares += ((at(h) - at(-h)) / (2.0 * h)).powi(2);
            }
        }
        let asked = asked(1);
        let got = gradient_lengths(&asked.view, &asked.labels)[2];
        assert!(
            (got - squares.sqrt()).abs() < 1e-5,
            "{got} {}",
            squares.sqrt()
        );
    }

    #[test]
    fn ends_of_the_scores() {
        let el2n = |keep, balance| El2n {
            keep,
            balance,
            models: 2,
        };
        let rows = |k, o: &dyn Selector| asked(k).once(o).unwrap().rows;
        assert_eq!(rows(1, &el2n(Keep::Hard, false)), [1]);
        assert_eq!(rows(1, &el2n(Keep::Easy, false)), [2]);
        assert_eq!(rows(2, &el2n(Keep::Hard, true)), [1, 3]);
        let grand = GraNd {
            keep: Keep::Hard,
            balance: false,
            models: 1,
        };
        // .75, .25 sqrt 10 = .79, .5 sqrt 2 = .71 (times sqrt 2).
        assert_eq!(rows(1, &grand), [2]);
    }
}
