//! The loop of training, the same for every network.
//!
//! 1. Draw the weights from the seed. Each epoch: shuffle the training graphs, cut them into batches; a last batch of one
//!    graph joins the one before, because the variance over one graph is 0 in batch normalisation.
//! 2. A step of Adam for each batch on the mean loss of its graphs.
//! 3. After each epoch: AUC and macro-F1 (threshold 0.5) on the validation graphs. Keep the model with the best AUC and
//!    the one with the best macro-F1, the later of equal ones.
//! 4. Stop when macro-F1 has not been as good as its best for more than `patience` epochs.
//!
//! Products of node vectors grow with their square and with the size of a graph, so a step may end in numbers that are
//! not finite. Then training starts again with a quarter of the learning rate and with gradients shortened to length 1,
//! at most twice, and a note says so.

use super::super::graphs::GraphSet;
use super::super::loss::{Loss, LossKind};
use super::super::score::{auc, macro_f1};
use super::super::{Epochs, Fitted, Split};
use super::{Net, Network, Prepared};
use burn::tensor::Device;
use papertrial_core::task::{Context, Curve};
use papertrial_core::{Error, Result};
use papertrial_nn::train::{Stepper, Training};
use papertrial_nn::{device, hold, seeded};
use papertrial_numerics::sampling::{permutation, rng};
use std::time::Instant;

/// How often training is begun.
const ATTEMPTS: usize = 3;

/// How networks are trained: the budget and the loss, the same for all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Lessons {
    /// Passes over the training graphs.
    pub epochs: usize,
    /// Graphs of a step.
    pub batch: usize,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// Epochs without as good a validation macro-F1 after which training ends.
    pub patience: usize,
    /// Loss.
    pub loss: LossKind,
    /// beta of the class weights.
    pub beta: f64,
    /// gamma of the focus.
    pub gamma: f64,
}

impl Default for Lessons {
    fn default() -> Self {
        Lessons {
            epochs: 100,
            batch: 512,
            learning_rate: 5e-3,
            patience: 50,
            loss: LossKind::BalancedFocal,
            beta: 0.999,
            gamma: 1.5,
        }
    }
}

/// What a network learns from.
pub struct Learner<'a> {
    /// Labelled graphs.
    pub graphs: &'a GraphSet,
    /// Which of them are for what.
    pub split: &'a Split,
    /// Budget and loss.
    pub lessons: &'a Lessons,
    /// Seed of weights, order and dropout.
    pub seed: u64,
}

/// An epoch in numbers.
struct Point {
    loss: f64,
    auc: f64,
    f1: f64,
}

/// A finished training.
struct Taught<N> {
    by_auc: N,
    by_f1: N,
    points: Vec<Point>,
    seconds: f64,
}

/// Trains the network that `build` makes.
///
/// # Errors
/// Graphs without labels, no epochs, a device that is not there, or training that diverges at every rate tried.
pub fn fit<N: Network + Send + 'static>(
    learner: &Learner<'_>,
    build: impl Fn(&Device) -> N,
    context: &Context,
) -> Result<Fitted> {
    let lessons = learner.lessons;
    if lessons.epochs == 0 {
        return Err(Error::option("epochs", "must be at least 1"));
    }
    if lessons.batch < 2 {
        return Err(Error::option(
            "batch",
            "must be at least 2: batch normalisation needs the spread over graphs",
        ));
    }
    if learner.graphs.width() == 0 {
        return Err(Error::BadInput(
            "the nodes have no features; give features, or labels of nodes".into(),
        ));
    }
    let device = device(&context.device)?;
    let prepared = Prepared::new(learner.graphs);
    let mut notes = Vec::new();
    let mut attempt = 0;
    let taught = loop {
        let rate = lessons.learning_rate / 4f64.powi(attempt as i32);
        let clip = (attempt > 0).then_some(1.0);
        let start = seeded(&device, learner.seed, |d| build(d));
        match run(learner, &prepared, start, (rate, clip), &device, context)? {
            Ok(taught) => break taught,
            Err(e) if attempt + 1 == ATTEMPTS => return Err(e),
            Err(e) => notes.push(format!(
                "{e}; it was begun again with learning rate {} and gradients of length 1 at most",
                rate / 4.0
            )),
        }
        attempt += 1;
    };
    let curve = |y: &str, of: fn(&Point) -> f64| Curve {
        name: format!("{y} against epochs"),
        x: "epochs".into(),
        y: y.into(),
        points: (taught.points.iter().enumerate())
            .map(|(i, p)| ((i + 1) as f64, of(p)))
            .collect(),
    };
    let curves = vec![
        curve("loss", |p| p.loss),
        curve("validation AUC", |p| p.auc),
        curve("validation macro-F1", |p| p.f1),
    ];
    let net = |network| {
        Box::new(Net {
            network,
            device: device.clone(),
        })
    };
    Ok(Fitted {
        epochs: Some(Epochs {
            count: taught.points.len(),
            seconds: taught.seconds,
        }),
        ranker: net(taught.by_auc),
        decider: Some(net(taught.by_f1)),
        curves,
        notes,
    })
}

/// One training from its start; the inner error is a step that was not finite.
fn run<N: Network>(
    learner: &Learner<'_>,
    prepared: &Prepared<'_>,
    start: N,
    (learning_rate, clip): (f64, Option<f64>),
    device: &Device,
    context: &Context,
) -> Result<Result<Taught<N>>> {
    let (lessons, split) = (learner.lessons, learner.split);
    let labels = learner.graphs.labels.as_deref().ok_or_else(|| {
        Error::BadInput("a network learns from labelled graphs; these have no labels".into())
    })?;
    let training = Training {
        epochs: lessons.epochs,
        batch: lessons.batch,
        learning_rate,
        clip,
        seed: learner.seed,
        ..Training::default()
    };
    let anomalous = split.train.iter().filter(|g| labels[**g]).count();
    let counts = [split.train.len() - anomalous, anomalous];
    let loss = Loss::new(lessons.loss, lessons.beta, lessons.gamma, counts);
    let truth: Vec<bool> = split.validation.iter().map(|g| labels[*g]).collect();
    let learning = device.clone().autodiff();
    let steps = lessons.epochs * split.train.len().div_ceil(lessons.batch);
    let mut stepper = Stepper::new(&training, steps);
    let mut model = start;
    let mut best: Option<(f64, f64, N, N)> = None;
    let mut points = Vec::new();
    let (mut waited, mut seconds) = (0, 0.0);
    for epoch in 0..lessons.epochs {
        context.step("training", epoch, lessons.epochs);
        let began = Instant::now();
        let mut draws = rng(
            learner.seed,
            &format!("graph-anomaly order of epoch {epoch}"),
        );
        let order: Vec<usize> = permutation(&mut draws, split.train.len())
            .into_iter()
            .map(|i| split.train[i])
            .collect();
        let mut total = 0.0;
        {
            let mixed = (epoch as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let _held = hold(device, learner.seed ^ mixed);
            for some in batches(&order, lessons.batch) {
                let batch = prepared.batch(some, model.matrix(), &learning);
                let known: Vec<bool> = some.iter().map(|g| labels[*g]).collect();
                let mean = loss.of(model.logits(&batch), &known).mean();
                match stepper.step(model, mean) {
                    Ok((next, value)) => {
                        model = next;
                        total += f64::from(value) * some.len() as f64;
                    }
                    Err(e) => return Ok(Err(e)),
                }
            }
        }
        seconds += began.elapsed().as_secs_f64();
        let plain = model.valid();
        let scores = prepared.probabilities(&plain, &split.validation, device)?;
        let (area, f1) = (auc(&truth, &scores)?, macro_f1(&truth, &scores, 0.5)?);
        points.push(Point {
            loss: total / order.len().max(1) as f64,
            auc: area,
            f1,
        });
        best = Some(match best {
            None => (area, f1, plain.clone(), plain),
            Some((best_area, best_f1, by_auc, by_f1)) => {
                let (keep_auc, keep_f1) = (area < best_area, f1 < best_f1);
                waited = if keep_f1 { waited + 1 } else { 0 };
                (
                    best_area.max(area),
                    best_f1.max(f1),
                    if keep_auc { by_auc } else { plain.clone() },
                    if keep_f1 { by_f1 } else { plain },
                )
            }
        });
        if waited > lessons.patience {
            break;
        }
    }
    context.step("training", lessons.epochs, lessons.epochs);
    let (_, _, by_auc, by_f1) =
        best.ok_or_else(|| Error::option("epochs", "must be at least 1"))?;
    Ok(Ok(Taught {
        by_auc,
        by_f1,
        points,
        seconds,
    }))
}

/// `order` in batches of `size`; a single graph at the end joins the batch before.
fn batches(order: &[usize], size: usize) -> Vec<&[usize]> {
    let mut all: Vec<&[usize]> = order.chunks(size).collect();
    if order.len() > size && order.len() % size == 1 {
        all.truncate(all.len() - 2);
        all.push(&order[all.len() * size..]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_graph_at_the_end_joins_the_batch_before() {
        let order: Vec<usize> = (0..9).collect();
        let sizes = |n: usize, size| {
            let parts = batches(&order[..n], size);
            assert_eq!(parts.concat(), order[..n]);
            parts.iter().map(|b| b.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(9, 4), [4, 5]);
        assert_eq!(sizes(9, 8), [9]);
        assert_eq!(sizes(8, 4), [4, 4]);
        assert_eq!(sizes(7, 4), [4, 3]);
        assert_eq!(sizes(9, 20), [9]);
        assert_eq!(sizes(3, 2), [3]);
    }
}
