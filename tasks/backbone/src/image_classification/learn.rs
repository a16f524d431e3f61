//! Training and use of a network on pictures in memory.

use super::TaskOptions;
use super::images::Pictures;
use super::nets::{Classifier, Design};
use burn::tensor::{Device, Tensor};
use papertrial_core::task::{Context, Curve};
use papertrial_core::{Error, Result};
use papertrial_nn::train::{Fit, Optimiser, Schedule, Training};
use papertrial_nn::{classes_of, cross_entropy, ops, rows_of, try_seeded, values_of};
use papertrial_numerics::sampling::rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Mean and deviation of each colour, taken off and divided by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// Means.
    pub mean: Vec<f32>,
    /// Deviations.
    pub deviation: Vec<f32>,
}

impl Scale {
    /// Of the pictures `rows`.
    pub fn of(pictures: &Pictures, rows: &[usize]) -> Scale {
        let c = pictures.channels;
        let width = pictures.width();
        let (mut sums, mut squares) = (vec![0.0f64; c], vec![0.0f64; c]);
        for row in rows {
            for (i, v) in pictures.values[row * width..(row + 1) * width]
                .iter()
                .enumerate()
            {
                sums[i % c] += f64::from(*v);
                squares[i % c] += f64::from(*v) * f64::from(*v);
            }
        }
        let n = (rows.len() * width / c).max(1) as f64;
        let mean: Vec<f32> = sums.iter().map(|s| (s / n) as f32).collect();
        let deviation = sums
            .iter()
            .zip(&squares)
            .map(|(s, q)| ((q / n - (s / n).powi(2)).max(0.0).sqrt() as f32).max(1e-3))
            .collect();
        Scale { mean, deviation }
    }

    /// The pictures, scaled.
    pub fn apply(&self, pictures: &Pictures) -> Vec<f32> {
        let c = pictures.channels;
        let scaled = pictures.values.iter().enumerate();
        scaled
            .map(|(i, v)| (v - self.mean[i % c]) / self.deviation[i % c])
            .collect()
    }
}

/// Scaled pictures.
pub struct Inputs<'a> {
    /// [n, h, w, c].
    pub values: &'a [f32],
    /// Height and width.
    pub picture: [usize; 2],
    /// Colours.
    pub channels: usize,
}

impl Inputs<'_> {
    /// Pictures `rows` as [rows, h, w, c].
    pub fn rows(&self, rows: &[usize], device: &Device) -> Tensor<4> {
        let [h, w] = self.picture;
        rows_of(self.values, h * w * self.channels, rows, device).reshape([
            rows.len(),
            h,
            w,
            self.channels,
        ])
    }
}

/// A trained network.
pub struct Learned {
    /// The network, on the plain device.
    pub model: Classifier,
    /// The learning rate that was chosen.
    pub rate: f64,
    /// Seconds of training with that rate.
    pub seconds: f64,
    /// Steps of it.
    pub steps: usize,
    /// Pictures trained on in it.
    pub samples: usize,
    /// Loss of epochs.
    pub curves: Vec<Curve>,
}

/// Trains at each learning rate and keeps the network with the highest accuracy on `validation`; ties go to the
/// rate named first.
///
/// # Errors
/// A design that cannot be built, or training that diverges at every rate.
pub fn learn(
    design: &Design,
    inputs: &Inputs,
    labels: &[usize],
    [train, validation]: [&[usize]; 2],
    task: &TaskOptions,
    device: &Device,
    context: &Context,
) -> Result<Learned> {
    if task.batch_size < 2 || train.len() < 2 {
        return Err(Error::option(
            "batch-size",
            "batch norm needs at least 2 pictures a step; give a batch-size of at least 2 and at least 2 pictures to train on",
        ));
    }
    if task.learning_rates.is_empty()
        || task
            .learning_rates
            .iter()
            .any(|r| !r.is_finite() || *r <= 0.0)
    {
        return Err(Error::option(
            "learning-rates",
            "must be a list of numbers above 0",
        ));
    }
    // A last step of one picture would leave batch norm without a variance.
    let per_epoch = train.len() - usize::from(train.len() % task.batch_size == 1);
    let on = device.clone().autodiff();
    let mut best: Option<(f64, Learned)> = None;
    let mut failed = None;
    for rate in &task.learning_rates {
        let training = Training {
            epochs: task.epochs,
            batch: task.batch_size,
            learning_rate: *rate,
            optimiser: Optimiser::AdamW {
                weight_decay: task.weight_decay,
            },
            schedule: Schedule::Cosine { floor: 1e-6 },
            clip: Some(5.0),
            patience: None,
            seed: context.seed,
        };
        let model = try_seeded(device, context.seed, |d| design.build(d))?;
        let fitted = Fit::new(&training, context)
            .named("training the network")
            .schedule(per_epoch, |epoch, _| {
                let mut order = train.to_vec();
                order.shuffle(&mut rng(
                    context.seed,
                    &format!("pictures of epoch {epoch}"),
                ));
                order.truncate(per_epoch);
                Ok(order)
            })
            .run(model, |model, rows| {
                let x = inputs.rows(rows, &on);
                let classes = classes_of(rows.iter().map(|r| labels[*r]), &on);
                match model.forward(x) {
                    Ok(scores) if task.label_smoothing > 0.0 => {
                        let s = task.label_smoothing;
                        let [b, c] = scores.dims();
                        let even = -ops::log_softmax(scores.clone()).sum_dim(1).reshape([b]);
                        cross_entropy(scores, classes) * (1.0 - s) + even * (s / c as f64)
                    }
                    Ok(scores) => cross_entropy(scores, classes),
                    // Every picture has the plan's size; a loss that is no number ends the training.
                    Err(_) => Tensor::<1>::full([rows.len()], f32::NAN, &on),
                }
            });
        let fitted = match fitted {
            Ok(fitted) => fitted,
            Err(e) => {
                failed = Some(e);
                continue;
            }
        };
        let score = if task.learning_rates.len() > 1 {
            accuracy(
                &predict(&fitted.model, inputs, validation, device)?,
                labels,
                validation,
            )
        } else {
            0.0
        };
        if best.as_ref().is_none_or(|(b, _)| score > *b) {
            let last = fitted.points.last().copied();
            best = Some((
                score,
                Learned {
                    rate: *rate,
                    seconds: last.map_or(0.0, |p| p.seconds),
                    steps: fitted.steps,
                    samples: last.map_or(0, |p| p.samples),
                    curves: fitted.curves("accuracy"),
                    model: fitted.model,
                },
            ));
        }
    }
    match (best, failed) {
        (Some((_, learned)), _) => Ok(learned),
        (None, Some(e)) => Err(e),
        (None, None) => Err(Error::option("learning-rates", "names none")),
    }
}

/// Probabilities of the classes for each of `rows`.
///
/// # Errors
/// Pictures of a size that the network cannot take.
pub fn predict(
    model: &Classifier,
    inputs: &Inputs,
    rows: &[usize],
    device: &Device,
) -> Result<Vec<Vec<f32>>> {
    let mut all = Vec::with_capacity(rows.len());
    for some in rows.chunks(128) {
        let shares = ops::softmax(model.forward(inputs.rows(some, device))?);
        let c = shares.dims()[1];
        all.extend(values_of(shares)?.chunks(c).map(<[f32]>::to_vec));
    }
    Ok(all)
}

/// The class of the highest probability; of equal ones the first.
pub fn highest(shares: &[f32]) -> usize {
    let mut best = 0;
    for (c, share) in shares.iter().enumerate() {
        if *share > shares[best] {
            best = c;
        }
    }
    best
}

/// Share of `rows` whose highest probability is that of their label.
pub fn accuracy(shares: &[Vec<f32>], labels: &[usize], rows: &[usize]) -> f64 {
    let right = shares
        .iter()
        .zip(rows)
        .filter(|(s, r)| highest(s) == labels[**r]);
    right.count() as f64 / rows.len().max(1) as f64
}

/// Milliseconds for one picture, in batches of 128 of `rows`.
pub fn milliseconds(
    model: &Classifier,
    inputs: &Inputs,
    rows: &[usize],
    device: &Device,
) -> Result<f64> {
    let began = Instant::now();
    predict(model, inputs, rows, device)?;
    Ok(began.elapsed().as_secs_f64() * 1e3 / rows.len().max(1) as f64)
}
