//! One step of training: gradient, clipping, learning rate, optimiser.

use super::training::{Schedule, Training};
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use papertrial_core::{Error, Result};
use std::path::Path;

/// Takes steps with one optimiser; a method with two optimisers has two of these.
pub struct Stepper {
    optimiser: ModuleOptimizer,
    schedule: Schedule,
    rate: f64,
    clip: Option<f64>,
    steps: usize,
    done: usize,
}

impl Stepper {
    /// For `steps` steps in all, which the schedule of the learning rate follows.
    pub fn new(training: &Training, steps: usize) -> Self {
        Stepper {
            optimiser: training.optimiser.init(),
            schedule: training.schedule,
            rate: training.learning_rate,
            clip: training.clip,
            steps,
            done: 0,
        }
    }

    /// Steps taken.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Moves `model` against the gradient of `loss`, one number; gives the model and the loss.
    ///
    /// # Errors
    /// [`Error::Failed`] if the loss or the gradient is not a finite number.
    pub fn step<M: Module>(&mut self, model: M, loss: Tensor<1>) -> Result<(M, f32)> {
        let value = loss
            .clone()
            .try_into_scalar::<f32>()
            .map_err(|e| Error::Failed(format!("the loss is not one number: {e:?}")))?;
        if !value.is_finite() {
            return Err(self.diverged(&format!("the loss is {value}")));
        }
        let mut gradients = GradientsParams::from_grads(loss.backward(), &model);
        if let Some(longest) = self.clip {
            let mut length = Length {
                gradients: &gradients,
                squares: Vec::new(),
            };
            model.visit(&mut length);
            let norm = length.total().sqrt();
            if !norm.is_finite() {
                return Err(self.diverged("the gradient is not finite"));
            }
            if norm > longest {
                model.visit(&mut Scale {
                    gradients: &mut gradients,
                    factor: (longest / norm) as f32,
                });
            }
        }
        let rate = self.schedule.rate(self.rate, self.done, self.steps);
        self.done += 1;
        Ok((self.optimiser.step(rate, model, gradients), value))
    }

    fn diverged(&self, what: &str) -> Error {
        Error::Failed(format!(
            "training diverged: {what} at step {} of {}; try a lower learning rate than {}",
            self.done + 1,
            self.steps,
            self.rate
        ))
    }

    /// Writes the optimiser's state.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        self.optimiser
            .save(path)
            .map_err(|e| Error::file(path, format!("{e:?}")))
    }

    /// The state that [`Stepper::save`] wrote after `done` steps.
    pub(super) fn load(mut self, path: &Path, done: usize) -> Result<Self> {
        self.optimiser = self
            .optimiser
            .load(path)
            .map_err(|e| Error::file(path, format!("{e:?}")))?;
        self.done = done;
        Ok(self)
    }
}

/// Sums the squares of all gradients.
struct Length<'a> {
    gradients: &'a GradientsParams,
    squares: Vec<Tensor<1>>,
}

impl Length<'_> {
    /// One read from the device, not one for each weight.
    fn total(self) -> f64 {
        if self.squares.is_empty() {
            return 0.0;
        }
        Tensor::cat(self.squares, 0)
            .sum()
            .try_into_scalar::<f32>()
            .map_or(f64::NAN, f64::from)
    }
}

impl ModuleVisitor for Length<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.squares.push(gradient.square().sum());
        }
    }
}

/// Multiplies all gradients.
struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: f32,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient * self.factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::training::Optimiser;
    use super::*;
    use crate::{device, rows_of, seeded, values_of};
    use burn::nn::{Linear, LinearConfig};

    /// y = w x with w = 1 and x = 1: the loss w^2 / 2 has gradient w.
    fn halves(model: &Linear) -> Tensor<1> {
        (model.weight.val().square() / 2.0).sum()
    }

    fn start() -> Linear {
        let device = device("cpu").unwrap();
        let mut model = seeded(&device, 0, |d| {
            LinearConfig::new(1, 1).with_bias(false).init(d)
        });
        let one = Tensor::<2>::ones([1, 1], &device.autodiff());
        model.weight = model.weight.map(|_| one.require_grad());
        model
    }

    fn walk(training: &Training, steps: usize) -> Vec<f32> {
        let mut stepper = Stepper::new(training, steps);
        let mut model = start();
        (0..steps)
            .map(|_| {
                let loss = halves(&model);
                model = stepper.step(model.clone(), loss).unwrap().0;
                values_of(model.weight.val()).unwrap()[0]
            })
            .collect()
    }

    fn close(got: &[f32], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(want) {
            assert!((f64::from(*g) - w).abs() < 1e-6, "{got:?} is not {want:?}");
        }
    }

    #[test]
    fn momentum_by_hand() {
        let sgd = |momentum, nesterov, weight_decay| Training {
            learning_rate: 0.1,
            optimiser: Optimiser::Sgd {
                momentum,
                nesterov,
                weight_decay,
            },
            ..Training::default()
        };
        // w1 = 1 - .1; v2 = .9 + .9 x 1 = 1.8, w2 = .9 - .18
        close(&walk(&sgd(0.9, false, 0.0), 2), &[0.9, 0.72]);
        // v1 = 1, step 1 + .9 = 1.9; v2 = .9 + .81 = 1.71, step .81 + .9 x 1.71 = 2.349
        close(&walk(&sgd(0.9, true, 0.0), 2), &[0.81, 0.5751]);
        // gradient w + .5 w
        close(&walk(&sgd(0.0, false, 0.5), 2), &[0.85, 0.7225]);
    }

    #[test]
    fn adam_takes_a_first_step_of_the_learning_rate() {
        let adam = |optimiser| Training {
            learning_rate: 0.1,
            optimiser,
            ..Training::default()
        };
        close(
            &walk(&adam(Optimiser::Adam { weight_decay: 0.0 }), 1),
            &[0.9],
        );
        // The pull apart from the gradient: 1 - .1 x .5, then less .1.
        close(
            &walk(&adam(Optimiser::AdamW { weight_decay: 0.5 }), 1),
            &[0.85],
        );
    }

    #[test]
    fn clipping_is_over_all_weights_together() {
        let device = device("cpu").unwrap();
        let training = Training {
            learning_rate: 1.0,
            optimiser: Optimiser::Sgd {
                momentum: 0.0,
                nesterov: false,
                weight_decay: 0.0,
            },
            clip: Some(1.0),
            ..Training::default()
        };
        let model = seeded(&device, 1, |d| LinearConfig::new(2, 2).init(d));
        let before = [
            values_of(model.weight.val()).unwrap(),
            values_of(model.bias.as_ref().unwrap().val()).unwrap(),
        ]
        .concat();
        let x = rows_of(&[30.0, 40.0], 2, &[0], &device.autodiff());
        let loss = model.forward(x).sum();
        let (model, _) = Stepper::new(&training, 1).step(model, loss).unwrap();
        let after = [
            values_of(model.weight.val()).unwrap(),
            values_of(model.bias.unwrap().val()).unwrap(),
        ]
        .concat();
        let moved: f32 = before
            .iter()
            .zip(&after)
            .map(|(a, b)| (a - b).powi(2))
            .sum();
        assert!((moved.sqrt() - 1.0).abs() < 1e-4, "{moved}");
    }

    #[test]
    fn a_loss_that_is_no_number_ends_with_the_step_and_a_remedy() {
        let mut stepper = Stepper::new(&Training::default(), 5);
        let model = start();
        let loss = halves(&model) / 0.0;
        let text = stepper.step(model, loss).unwrap_err().to_string();
        assert!(
            text.contains("step 1 of 5") && text.contains("lower learning rate"),
            "{text}"
        );
    }
}
