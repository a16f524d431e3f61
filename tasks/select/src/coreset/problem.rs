//! What is summarised: rows with a loss, and a fit that takes weights.
//!
//! A coreset needs nothing else of a problem: the loss of a row under a model, and a model for weighted rows. A neural
//! network with a loss for each row fits the trait as well as the problems shipped here, which beside that know the
//! sensitivity bounds published for them.

use ndarray::{Array2, ArrayView2, Axis};
use papertrial_core::{Error, Result};
use rayon::prelude::*;

/// Rows of a block that one thread takes; fixed, so that the number of threads changes no bit.
pub(super) const BLOCK: usize = 4096;

/// A matrix cut into blocks of rows.
pub(super) fn row_blocks<'a>(x: &'a ArrayView2<'_, f64>) -> Vec<ArrayView2<'a, f64>> {
    x.axis_chunks_iter(Axis(0), BLOCK).collect()
}

/// Rows that can be weighted, with a loss and a fit.
///
/// The objective is the sum over rows of weight times [`WeightedProblem::loss`]; a penalty on the model, such as a
/// ridge, is part of each row's loss, divided by the number of rows.
pub trait WeightedProblem: Sync {
    /// What a fit yields.
    type Model: Send + Sync;

    /// Number of rows, n.
    fn rows(&self) -> usize;

    /// The model of some distinct rows, ascending, with positive weights.
    ///
    /// Weights are relative: all of them doubled give the same model, so that a penalty keeps its balance with the
    /// data. The same arguments give the same model.
    ///
    /// # Errors
    /// The rows do not suffice, or the computation fails.
    fn fit(&self, rows: &[usize], weights: &[f64]) -> Result<Self::Model>;

    /// Loss of a row under a model, finite and at least 0.
    fn loss(&self, row: usize, model: &Self::Model) -> f64;

    /// Losses of all rows, `[n]`.
    ///
    /// # Errors
    /// The computation fails.
    fn losses(&self, model: &Self::Model) -> Result<Vec<f64>> {
        let mut losses = vec![0.0; self.rows()];
        losses
            .par_chunks_mut(BLOCK)
            .enumerate()
            .for_each(|(block, losses)| {
                for (row, loss) in (block * BLOCK..).zip(losses) {
                    *loss = self.loss(row, model);
                }
            });
        Ok(losses)
    }

    /// Class of each row, `[n]`, numbered from 0, where every class must be among the rows of a fit.
    fn classes(&self) -> Option<&[u32]> {
        None
    }

    /// Weights that the rows have to begin with, `[n]`, positive; 1 each where absent.
    fn weights(&self) -> Option<&[f64]> {
        None
    }
}

/// A problem shipped here: models are matrices, and more is known of it than its losses.
pub trait Problem: WeightedProblem<Model = Array2<f64>> {
    /// The rows' features, \[n, d\].
    fn points(&self) -> ArrayView2<'_, f64>;

    /// An upper bound, up to one factor for all rows, on each row's largest share in the loss of any model, `[n]`.
    ///
    /// # Errors
    /// The computation fails.
    fn sensitivities(&self, seed: u64) -> Result<Vec<f64>>;

    /// The class number or the number that a model predicts for rows \[m, d\]; `None` where there is nothing to predict.
    fn predict(&self, model: &Array2<f64>, x: ArrayView2<'_, f64>) -> Option<Vec<f64>>;
}

/// The losses of all rows under a model, checked.
pub(super) fn checked_losses<P: WeightedProblem + ?Sized>(
    problem: &P,
    model: &P::Model,
) -> Result<Vec<f64>> {
    let losses = problem.losses(model)?;
    if losses.len() != problem.rows() {
        return Err(Error::Failed(format!(
            "the problem has {} rows but gave {} losses; one for each row is needed",
            problem.rows(),
            losses.len()
        )));
    }
    match losses.iter().position(|l| !(l.is_finite() && *l >= 0.0)) {
        Some(row) => Err(Error::Failed(format!(
            "row {} has the loss {}; a loss must be finite and at least 0",
            row + 1,
            losses[row]
        ))),
        None => Ok(losses),
    }
}

/// Sum of weight times loss over all rows.
pub(super) fn total<P: WeightedProblem + ?Sized>(problem: &P, losses: &[f64]) -> f64 {
    match problem.weights() {
        Some(weights) => weights.iter().zip(losses).map(|(w, l)| w * l).sum(),
        None => losses.iter().sum(),
    }
}

/// Checks that a problem's fit obeys its weights, on the given sample of rows.
///
/// All weights doubled must give the same losses. And with a weight of 10,000 for every second row and 1 for the others, the
/// heavy rows rule: a solver that still gives the model of equal weights, to the last digits, ignores weights, unless the
/// heavy rows alone give that model too. Three fits, a fourth in doubt.
///
/// # Errors
/// The fit depends on the scale of the weights, or not on the weights at all.
pub fn check_solver<P: WeightedProblem + ?Sized>(problem: &P, rows: &[usize]) -> Result<()> {
    // Losses of the sample alone: a pass over all rows would cost more than the fits.
    let sample = rows;
    let losses = |rows: &[usize], weights: &[f64]| -> Result<Vec<f64>> {
        let model = problem.fit(rows, weights)?;
        Ok(sample
            .iter()
            .map(|row| problem.loss(*row, &model))
            .collect())
    };
    let equal = losses(rows, &vec![1.0; rows.len()])?;
    if apart(&equal, &losses(rows, &vec![2.0; rows.len()])?) > 0.05 {
        return Err(Error::Failed(
            "the solver gives another model when all weights are doubled; weights must count relative to their sum (multiply a regularisation constant C by rows over sum of weights)".into(),
        ));
    }
    let unequal: Vec<f64> = (0..rows.len())
        .map(|i| if i % 2 == 0 { 1e4 } else { 1.0 })
        .collect();
    if apart(&equal, &losses(rows, &unequal)?) > 1e-9 {
        return Ok(());
    }
    let heavy: Vec<usize> = rows.iter().step_by(2).copied().collect();
    match losses(&heavy, &vec![1.0; heavy.len()]) {
        Ok(heavy) if apart(&equal, &heavy) > 1e-3 => Err(Error::Failed(
            "the solver ignores weights: rows of weight 10,000 and rows of weight 1 gave the model of equal weights; a coreset needs a solver that takes weights".into(),
        )),
        _ => Ok(()),
    }
}

/// Sum of the differences of losses, relative to their sum.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    let difference: f64 = a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum();
    let sum: f64 = a.iter().zip(b).map(|(a, b)| a + b).sum();
    if sum > 0.0 { difference / sum } else { 0.0 }
}

#[cfg(test)]
pub(super) mod toy {
    use super::*;

    /// A weighted mean of numbers under the squared loss, with ways to be wrong.
    pub struct Mean {
        pub values: Vec<f64>,
        pub classes: Option<Vec<u32>>,
        pub weights: Option<Vec<f64>>,
        pub wrong: Wrong,
    }

    #[derive(Clone, Copy, PartialEq)]
    pub enum Wrong {
        Nothing,
        IgnoresWeights,
        CountsWeights,
        Nan,
        Negative,
        Constant,
    }

    impl Mean {
        pub fn of(values: Vec<f64>) -> Mean {
            Mean {
                values,
                classes: None,
                weights: None,
                wrong: Wrong::Nothing,
            }
        }
    }

    impl WeightedProblem for Mean {
        type Model = f64;

        fn rows(&self) -> usize {
            self.values.len()
        }

        fn fit(&self, rows: &[usize], weights: &[f64]) -> Result<f64> {
            let weight = |w: f64| match self.wrong {
                Wrong::IgnoresWeights => 1.0,
                _ => w,
            };
            let pairs = || rows.iter().zip(weights);
            let sum: f64 = pairs().map(|(r, w)| weight(*w) * self.values[*r]).sum();
            let all: f64 = pairs().map(|(_, w)| weight(*w)).sum();
            Ok(match self.wrong {
                // A ridge that does not grow with the weights.
                Wrong::CountsWeights => sum / (all + 100.0),
                _ => sum / all,
            })
        }

        fn loss(&self, row: usize, model: &f64) -> f64 {
            match self.wrong {
                Wrong::Nan if row == 3 => f64::NAN,
                Wrong::Negative if row == 3 => -1.0,
                Wrong::Constant => 2.0,
                _ => (self.values[row] - model).powi(2),
            }
        }

        fn classes(&self) -> Option<&[u32]> {
            self.classes.as_deref()
        }

        fn weights(&self) -> Option<&[f64]> {
            self.weights.as_deref()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::toy::{Mean, Wrong};
    use super::*;

    fn spread(wrong: Wrong) -> Mean {
        Mean {
            wrong,
            ..Mean::of((0..40).map(|i| f64::from(i * i % 37)).collect())
        }
    }

    #[test]
    fn losses_of_all_rows_are_those_of_each() {
        let n = 2 * BLOCK + 3;
        let mean = Mean::of((0..n).map(|i| i as f64).collect());
        let losses = mean.losses(&5.0).unwrap();
        assert_eq!(losses.len(), n);
        assert!((0..n).all(|row| losses[row] == (row as f64 - 5.0).powi(2)));
    }

    #[test]
    fn a_right_solver_passes_and_wrong_ones_are_told_apart() {
        let rows: Vec<usize> = (0..20).collect();
        check_solver(&spread(Wrong::Nothing), &rows).unwrap();
        let ignores = check_solver(&spread(Wrong::IgnoresWeights), &rows).unwrap_err();
        assert!(ignores.to_string().contains("ignores weights"), "{ignores}");
        let counts = check_solver(&spread(Wrong::CountsWeights), &rows).unwrap_err();
        assert!(counts.to_string().contains("doubled"), "{counts}");
    }

    #[test]
    fn rows_that_agree_prove_nothing_and_pass() {
        let mean = Mean::of(vec![3.0; 12]);
        check_solver(&mean, &(0..12).collect::<Vec<_>>()).unwrap();
    }

    #[test]
    fn bad_losses_are_named() {
        for (wrong, told) in [(Wrong::Nan, "NaN"), (Wrong::Negative, "-1")] {
            let e = checked_losses(&spread(wrong), &1.0)
                .unwrap_err()
                .to_string();
            assert!(e.contains("row 4") && e.contains(told), "{e}");
        }
    }

    #[test]
    fn first_weights_count_in_the_total() {
        let mut mean = Mean::of(vec![1.0, 2.0]);
        assert_eq!(total(&mean, &[3.0, 4.0]), 7.0);
        mean.weights = Some(vec![2.0, 0.5]);
        assert_eq!(total(&mean, &[3.0, 4.0]), 8.0);
    }
}
