//! Training: what is set ([`Training`]), one step ([`Stepper`]), and the loop over epochs ([`Fit`]).

mod fit;
mod stepper;
mod training;

pub use fit::{Epoch, Fit, Fitted, Pass, Point};
pub use stepper::Stepper;
pub use training::{Optimiser, Schedule, Training};
