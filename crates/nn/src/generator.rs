//! Burn's random draws, tied to a seed.
//!
//! On the CPU Burn has one generator for the whole process, weights are drawn at their first use, and the
//! generator's state cannot be saved. So draws happen under a lock that is seeded anew each time: for a model's
//! weights, all of them at once, and for each epoch of training (dropout). Two trainings in two threads then wait
//! for each other instead of mixing their draws.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};

static GENERATOR: Mutex<()> = Mutex::new(());

/// Holds Burn's generator; given back when dropped.
pub struct Guard {
    _held: MutexGuard<'static, ()>,
}

/// Seeds Burn's generator and holds it. A second call in the same thread before the guard is dropped waits for ever.
pub fn hold(device: &Device, seed: u64) -> Guard {
    let held = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    device.seed(seed);
    Guard { _held: held }
}

/// A model for training: `init` builds it on the device given, all its weights are drawn from `seed`.
pub fn seeded<M: Module>(device: &Device, seed: u64, init: impl FnOnce(&Device) -> M) -> M {
    let Ok(model) = try_seeded(device, seed, |device| Ok::<M, Infallible>(init(device)));
    model
}

/// As [`seeded`], of what may turn out to be impossible to build.
///
/// # Errors
/// Those of `init`.
pub fn try_seeded<M: Module, E>(
    device: &Device,
    seed: u64,
    init: impl FnOnce(&Device) -> Result<M, E>,
) -> Result<M, E> {
    let device = device.clone().autodiff();
    let _held = hold(&device, seed);
    let model = init(&device)?;
    model.visit(&mut Touch);
    Ok(model)
}

/// Makes every weight be drawn.
struct Touch;

impl ModuleVisitor for Touch {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let _ = param.val();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{device, values_of};
    use burn::nn::LinearConfig;

    #[test]
    fn the_seed_alone_decides_the_weights() {
        let device = device("cpu").unwrap();
        let weights = |seed| {
            let model = seeded(&device, seed, |d| LinearConfig::new(5, 4).init(d));
            values_of(model.weight.val()).unwrap()
        };
        let first = weights(1);
        device.seed(99);
        assert_eq!(first, weights(1));
        assert_ne!(first, weights(2));
    }
}
