//! The two traits of a detector: one that can be fitted, and one that is fitted and scores flows.

use super::prepare::Flows;
use papertrial_core::Result;
use papertrial_core::task::Context;
use std::path::Path;

/// A detector that can be fitted.
pub trait Detector: Send + Sync {
    /// Fits to the flows `train`, indices into `flows`, in ascending order, each at least `window` - 1.
    ///
    /// Flows between them may be looked at as context only: their labels must not be used.
    ///
    /// # Errors
    /// Unlabelled flows, too few of a class, options out of range, or a training that fails.
    fn fit(
        &self,
        flows: &Flows,
        train: &[usize],
        window: usize,
        context: &Context,
    ) -> Result<Box<dyn Fitted>>;
}

/// A detector after fitting.
pub trait Fitted: Send + Sync {
    /// Flows that it looks at for one answer: the flow itself and those before it; 1 for a detector without context.
    fn window(&self) -> usize;

    /// Numbers that were fitted: weights of a network, thresholds and leaves of trees.
    fn parameters(&self) -> usize;

    /// The probability that each of `rows` is an attack, 0 to 1. Every row must be at least [`Fitted::window`] - 1.
    ///
    /// # Errors
    /// A row without a whole window, or a device that fails.
    fn score(&self, flows: &Flows, rows: &[usize], context: &Context) -> Result<Vec<f32>>;

    /// Seconds that one training step took, the first left out; `None` where fitting is no sequence of steps.
    fn seconds_per_step(&self) -> Option<f64> {
        None
    }

    /// Loss of the training against steps, if there is such a curve: (step, loss).
    fn losses(&self) -> Vec<(f64, f64)> {
        Vec::new()
    }

    /// Remarks for the reader.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Writes what is needed for scoring into `folder`, if the detector can be kept; returns whether it was.
    ///
    /// # Errors
    /// The folder cannot be written to.
    fn save(&self, _folder: &Path) -> Result<bool> {
        Ok(false)
    }
}
