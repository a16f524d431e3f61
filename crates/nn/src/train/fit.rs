//! The loop over epochs.

use super::stepper::Stepper;
use super::training::Training;
use crate::generator;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use papertrial_core::task::{Context, Curve};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The rows of one epoch, in the order in which they are trained on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pass {
    /// Rows.
    pub rows: Vec<usize>,
    /// Weight of each of `rows` in the loss; 1 if absent. Their mean should be 1, or the step changes its length.
    pub weights: Option<Vec<f32>>,
}

impl From<Vec<usize>> for Pass {
    fn from(rows: Vec<usize>) -> Self {
        Pass {
            rows,
            weights: None,
        }
    }
}

/// What is known after an epoch.
pub struct Epoch<'a, M> {
    /// The epoch, from 0.
    pub epoch: usize,
    /// Steps so far.
    pub steps: usize,
    /// Rows trained on so far.
    pub samples: usize,
    /// Seconds so far, of choosing rows and training; watching does not count.
    pub seconds: f64,
    /// Mean loss of the epoch's rows.
    pub loss: f64,
    /// The model as it is now, without dropout and on the plain device.
    pub model: &'a M,
}

/// An epoch in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Steps so far.
    pub steps: usize,
    /// Rows trained on so far.
    pub samples: usize,
    /// Seconds so far, without watching.
    pub seconds: f64,
    /// Mean loss of the epoch's rows.
    pub loss: f64,
    /// What watching said.
    pub score: Option<f64>,
}

/// A trained model.
#[derive(Debug, Clone)]
pub struct Fitted<M> {
    /// The model, without dropout and on the plain device: the last, or the best one where there was patience.
    pub model: M,
    /// Steps taken.
    pub steps: usize,
    /// Each epoch in numbers.
    pub points: Vec<Point>,
}

impl<M> Fitted<M> {
    /// Loss and score against steps, samples and seconds.
    pub fn curves(&self, score: &str) -> Vec<Curve> {
        let mut curves = Vec::new();
        for (i, x) in ["steps", "samples", "seconds"].into_iter().enumerate() {
            let at = |p: &Point| [p.steps as f64, p.samples as f64, p.seconds][i];
            let loss = self.points.iter().map(|p| (at(p), p.loss)).collect();
            let scores: Vec<(f64, f64)> = self
                .points
                .iter()
                .filter_map(|p| p.score.map(|s| (at(p), s)))
                .collect();
            for (y, points) in [("loss", loss), (score, scores)] {
                if !points.is_empty() {
                    curves.push(Curve {
                        name: format!("{y} against {x}"),
                        x: x.into(),
                        y: y.into(),
                        points,
                    });
                }
            }
        }
        curves
    }
}

type Schedule<'a, M> = Box<dyn FnMut(usize, &M) -> Result<Pass> + 'a>;
type Watch<'a, M> = Box<dyn FnMut(&Epoch<M>) -> Result<Option<f64>> + 'a>;

/// A training about to be run.
pub struct Fit<'a, M> {
    training: &'a Training,
    context: &'a Context<'a>,
    what: &'a str,
    per_epoch: usize,
    schedule: Option<Schedule<'a, M>>,
    weights: Option<&'a [f32]>,
    watch: Option<Watch<'a, M>>,
    checkpoint: Option<PathBuf>,
}

impl<'a, M: Module> Fit<'a, M> {
    /// A training that is still to be told its rows.
    pub fn new(training: &'a Training, context: &'a Context<'a>) -> Self {
        Fit {
            training,
            context,
            what: "training",
            per_epoch: 0,
            schedule: None,
            weights: None,
            watch: None,
            checkpoint: None,
        }
    }

    /// Trains on rows 0 to `n` in each epoch, shuffled from the seed and the epoch's number.
    pub fn rows(self, n: usize) -> Self {
        let seed = self.training.seed;
        self.schedule(n, move |epoch, _| Ok(shuffled(n, seed, epoch)))
    }

    /// Asks for each epoch's rows, given its number and the model so far (without dropout, on the plain device).
    /// `per_epoch` is how many come in each: the learning rate's schedule follows it.
    pub fn schedule<P: Into<Pass>>(
        mut self,
        per_epoch: usize,
        mut rows: impl FnMut(usize, &M) -> Result<P> + 'a,
    ) -> Self {
        self.per_epoch = per_epoch;
        self.schedule = Some(Box::new(move |epoch, model| Ok(rows(epoch, model)?.into())));
        self
    }

    /// Weight of each row in the loss, by its number.
    pub fn weights(mut self, weights: &'a [f32]) -> Self {
        self.weights = Some(weights);
        self
    }

    /// Looks at the model after each epoch; a score that it gives (more is better) goes into the curves and decides
    /// about patience.
    pub fn watch(mut self, watch: impl FnMut(&Epoch<M>) -> Result<Option<f64>> + 'a) -> Self {
        self.watch = Some(Box::new(watch));
        self
    }

    /// Name of the work in the progress bar.
    pub fn named(mut self, what: &'a str) -> Self {
        self.what = what;
        self
    }

    /// Keeps the state of training in `folder` after each epoch, and goes on from there. A resumed training ends
    /// with the same weights as one without a break, provided that the rows of an epoch depend on nothing but the
    /// epoch's number and the model.
    pub fn checkpoint(mut self, folder: impl Into<PathBuf>) -> Self {
        self.checkpoint = Some(folder.into());
        self
    }

    /// Trains. `loss` gives the loss of each of the rows, [rows]; a step follows the gradient of their weighted mean.
    ///
    /// `loss` must not train or seed another model: the generator of this one is held meanwhile.
    ///
    /// # Errors
    /// No rows, a loss of another shape or one that is not finite, an error of the schedule or of watching, or a
    /// checkpoint that cannot be used.
    pub fn run(mut self, model: M, loss: impl Fn(&M, &[usize]) -> Tensor<1>) -> Result<Fitted<M>> {
        let Some(mut schedule) = self.schedule.take() else {
            return Err(Error::Failed("a training was given no rows".into()));
        };
        let training = self.training;
        if training.batch == 0 {
            return Err(Error::option("batch", "must be at least 1"));
        }
        let device = device_of(&model)?;
        let steps = training.epochs * self.per_epoch.div_ceil(training.batch);
        let mut state = State {
            epoch: 0,
            best: None,
            waited: 0,
            points: Vec::new(),
        };
        let mut stepper = Stepper::new(training, steps);
        let mut model = model;
        let mut best: Option<M> = None;
        if let Some(folder) = &self.checkpoint
            && let Some(found) = State::read(folder, training)?
        {
            let done = found.points.last().map_or(0, |p| p.steps);
            model = load(model, &folder.join(MODEL))?;
            if found.best.is_some() {
                best = Some(load(model.valid(), &folder.join(BEST))?);
            }
            stepper = stepper.load(&folder.join(OPTIMISER), done)?;
            state = found;
        }
        while state.epoch < training.epochs && !state.patience_is_over(training) {
            self.context.step(self.what, state.epoch, training.epochs);
            let began = Instant::now();
            let pass = schedule(state.epoch, &model.valid())?;
            check(&pass, self.weights)?;
            let weights = |at: usize| {
                let of_pass = pass.weights.as_ref().map_or(1.0, |w| w[at]);
                let of_row = self.weights.map_or(1.0, |w| w[pass.rows[at]]);
                of_pass * of_row
            };
            let weighted = pass.weights.is_some() || self.weights.is_some();
            let mut total = 0.0;
            {
                let _held = generator::hold(&device, training.seed ^ mixed(state.epoch));
                for (b, rows) in pass.rows.chunks(training.batch).enumerate() {
                    let mut losses = loss(&model, rows);
                    if losses.dims() != [rows.len()] {
                        return Err(Error::Failed(format!(
                            "the loss has shape {:?}, not one number for each of {} rows",
                            losses.dims(),
                            rows.len()
                        )));
                    }
                    if weighted {
                        let first = b * training.batch;
                        let w: Vec<f32> = (first..first + rows.len()).map(weights).collect();
                        losses =
                            losses * Tensor::from_data(TensorData::new(w, [rows.len()]), &device);
                    }
                    let (next, value) = stepper.step(model, losses.mean())?;
                    model = next;
                    total += f64::from(value) * rows.len() as f64;
                }
            }
            let last = state.points.last().copied();
            let mut point = Point {
                steps: stepper.done(),
                samples: last.map_or(0, |p| p.samples) + pass.rows.len(),
                seconds: last.map_or(0.0, |p| p.seconds) + began.elapsed().as_secs_f64(),
                loss: total / pass.rows.len() as f64,
                score: None,
            };
            if let Some(watch) = &mut self.watch {
                let plain = model.valid();
                point.score = watch(&Epoch {
                    epoch: state.epoch,
                    steps: point.steps,
                    samples: point.samples,
                    seconds: point.seconds,
                    loss: point.loss,
                    model: &plain,
                })?;
                if let Some(score) = point.score {
                    if state.best.is_none_or(|b| score > b) {
                        state.best = Some(score);
                        state.waited = 0;
                        best = training.patience.is_some().then_some(plain);
                    } else {
                        state.waited += 1;
                    }
                }
            }
            state.points.push(point);
            state.epoch += 1;
            if let Some(folder) = &self.checkpoint {
                save(&model, best.as_ref(), &stepper, &state, folder, training)?;
            }
        }
        self.context
            .step(self.what, training.epochs, training.epochs);
        Ok(Fitted {
            model: best.unwrap_or_else(|| model.valid()),
            steps: stepper.done(),
            points: state.points,
        })
    }
}

/// Rows 0 to `n` in the order of epoch `epoch`.
fn shuffled(n: usize, seed: u64, epoch: usize) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..n).collect();
    rows.shuffle(&mut rng(seed, &format!("order of epoch {epoch}")));
    rows
}

/// Spreads the epoch's number over all bits, so that neighbouring seeds and epochs share no draws.
fn mixed(epoch: usize) -> u64 {
    (epoch as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn check(pass: &Pass, of_rows: Option<&[f32]>) -> Result<()> {
    if pass.rows.is_empty() {
        return Err(Error::Failed("an epoch was given no rows".into()));
    }
    if let Some(weights) = &pass.weights
        && weights.len() != pass.rows.len()
    {
        return Err(Error::Failed(format!(
            "an epoch was given {} weights for {} rows",
            weights.len(),
            pass.rows.len()
        )));
    }
    if let Some(weights) = of_rows
        && let Some(row) = pass.rows.iter().find(|r| **r >= weights.len())
    {
        return Err(Error::Failed(format!(
            "row {row} has no weight: there are {}",
            weights.len()
        )));
    }
    Ok(())
}

/// The device on which the model's weights are.
fn device_of<M: Module>(model: &M) -> Result<Device> {
    struct Find(Option<Device>);
    impl ModuleVisitor for Find {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.0.is_none() {
                self.0 = Some(param.val().device());
            }
        }
    }
    let mut find = Find(None);
    model.visit(&mut find);
    find.0
        .ok_or_else(|| Error::Failed("the model has no weights".into()))
}

const MODEL: &str = "model.bpk";
const BEST: &str = "best.bpk";
const OPTIMISER: &str = "optimiser.bpk";
const STATE: &str = "state.json";

/// Where a training is.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    epoch: usize,
    best: Option<f64>,
    waited: usize,
    points: Vec<Point>,
}

impl State {
    fn patience_is_over(&self, training: &Training) -> bool {
        training.patience.is_some_and(|p| self.waited >= p.max(1))
    }

    /// The state kept in `folder`; `None` if there is none yet.
    fn read(folder: &Path, training: &Training) -> Result<Option<State>> {
        let path = folder.join(STATE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::file(&path, e)),
        };
        let (kept, state): (Training, State) =
            serde_json::from_str(&text).map_err(|e| Error::file(&path, e))?;
        if kept != *training {
            return Err(Error::file(
                &path,
                "belongs to a training with other options; choose another folder or remove it",
            ));
        }
        Ok(Some(state))
    }
}

/// Keeps everything in a folder beside, which then takes the place of the last one.
fn save<M: Module>(
    model: &M,
    best: Option<&M>,
    stepper: &Stepper,
    state: &State,
    folder: &Path,
    training: &Training,
) -> Result<()> {
    let wrong = |e: std::io::Error| Error::file(folder, e);
    let mut beside = folder.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    if beside.exists() {
        std::fs::remove_dir_all(&beside).map_err(wrong)?;
    }
    std::fs::create_dir_all(&beside).map_err(wrong)?;
    write(model, &beside.join(MODEL))?;
    if let Some(best) = best {
        write(best, &beside.join(BEST))?;
    }
    stepper.save(&beside.join(OPTIMISER))?;
    let text =
        serde_json::to_string(&(training, state)).map_err(|e| Error::Failed(e.to_string()))?;
    std::fs::write(beside.join(STATE), text).map_err(wrong)?;
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(wrong)?;
    }
    std::fs::rename(&beside, folder).map_err(wrong)
}

/// Writes in the format that keeps the weights' identifiers, by which the optimiser knows them.
fn write<M: Module>(model: &M, path: &Path) -> Result<()> {
    model
        .clone()
        .save_file(path)
        .map_err(|e| Error::file(path, format!("{e:?}")))
}

fn load<M: Module>(model: M, path: &Path) -> Result<M> {
    model
        .try_load_file(path)
        .map_err(|e| Error::file(path, format!("{e:?}")))
}

#[cfg(test)]
mod tests {
    use super::super::training::Optimiser;
    use super::*;
    use crate::blocks::{Activation, Mlp};
    use crate::{device, rows_of, seeded, values_of};

    const N: usize = 40;

    fn data() -> (Vec<f32>, Vec<f32>) {
        let x: Vec<f32> = (0..2 * N)
            .map(|i| ((i * 7919) % 100) as f32 / 50.0 - 1.0)
            .collect();
        let y = x.chunks(2).map(|r| r[0] * r[1]).collect();
        (x, y)
    }

    fn model(dropout: f64) -> Mlp {
        seeded(&device("cpu").unwrap(), 3, |d| {
            Mlp::new(&[2, 16, 1], Activation::Relu, dropout, d)
        })
    }

    fn loss<'a>(x: &'a [f32], y: &'a [f32]) -> impl Fn(&Mlp, &[usize]) -> Tensor<1> + 'a {
        let device = device("cpu").unwrap().autodiff();
        move |model, rows| {
            let out = model.forward(rows_of(x, 2, rows, &device));
            (out - rows_of(y, 1, rows, &device))
                .square()
                .squeeze_dim::<1>(1)
        }
    }

    fn training(epochs: usize) -> Training {
        Training {
            epochs,
            batch: 16,
            learning_rate: 0.01,
            seed: 5,
            ..Training::default()
        }
    }

    fn answers(model: &Mlp) -> Vec<u32> {
        let (x, _) = data();
        let rows: Vec<usize> = (0..N).collect();
        values_of(model.forward(rows_of(&x, 2, &rows, &device("cpu").unwrap())))
            .unwrap()
            .iter()
            .map(|v| v.to_bits())
            .collect()
    }

    #[test]
    fn it_learns_counts_and_repeats_itself() {
        let context = Context::with_seed(0);
        let (x, y) = data();
        let run = |dropout| {
            Fit::new(&training(30), &context)
                .rows(N)
                .watch(|e| Ok(Some(-e.loss)))
                .run(model(dropout), loss(&x, &y))
                .unwrap()
        };
        let a = run(0.2);
        assert_eq!(answers(&a.model), answers(&run(0.2).model));
        assert_ne!(answers(&a.model), answers(&run(0.0).model));
        assert_eq!((a.steps, a.points.len()), (90, 30));
        assert_eq!(a.points[29].samples, 30 * N);
        assert!(a.points[29].loss < 0.7 * a.points[0].loss, "{:?}", a.points);
        let curves = a.curves("score");
        assert_eq!(curves.len(), 6);
        assert!(curves.iter().all(|c| c.points.len() == 30));
    }

    #[test]
    fn a_training_cut_off_and_resumed_ends_as_one_in_one_piece() {
        let context = Context::with_seed(0);
        let (x, y) = data();
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("state");
        let whole = Fit::new(&training(6), &context)
            .rows(N)
            .run(model(0.2), loss(&x, &y))
            .unwrap();
        let cut = Fit::new(&training(6), &context)
            .rows(N)
            .watch(|e| {
                if e.epoch == 3 {
                    return Err(Error::Interrupted);
                }
                Ok(None)
            })
            .checkpoint(&kept)
            .run(model(0.2), loss(&x, &y));
        assert_eq!(cut.unwrap_err(), Error::Interrupted);
        let mut epochs = Vec::new();
        let resumed = Fit::new(&training(6), &context)
            .rows(N)
            .watch(|e| {
                epochs.push(e.epoch);
                Ok(None)
            })
            .checkpoint(&kept)
            .run(model(0.2), loss(&x, &y))
            .unwrap();
        assert_eq!(epochs, [3, 4, 5]);
        assert_eq!(answers(&whole.model), answers(&resumed.model));
        // Another training does not go on from it.
        let text = Fit::new(&training(7), &context)
            .rows(N)
            .checkpoint(&kept)
            .run(model(0.2), loss(&x, &y))
            .unwrap_err()
            .to_string();
        assert!(text.contains("other options"), "{text}");
    }

    #[test]
    fn patience_keeps_the_best_model() {
        let context = Context::with_seed(0);
        let (x, y) = data();
        let scores = [1.0, 3.0, 2.0, 2.5, 9.0];
        let stopped = Fit::new(
            &Training {
                patience: Some(2),
                ..training(5)
            },
            &context,
        )
        .rows(N)
        .watch(|e| Ok(Some(scores[e.epoch])))
        .run(model(0.0), loss(&x, &y))
        .unwrap();
        assert_eq!(stopped.points.len(), 4);
        let two = Fit::new(&training(2), &context)
            .rows(N)
            .run(model(0.0), loss(&x, &y))
            .unwrap();
        assert_eq!(answers(&stopped.model), answers(&two.model));
    }

    #[test]
    fn weights_count_as_copies() {
        // A row of weight 2 and one of weight 0 pull as two copies of the first do.
        let context = Context::with_seed(0);
        let (x, y) = data();
        let one_step = Training {
            epochs: 1,
            batch: 2,
            learning_rate: 0.1,
            optimiser: Optimiser::Sgd {
                momentum: 0.0,
                nesterov: false,
                weight_decay: 0.0,
            },
            ..training(1)
        };
        let twice = Fit::new(&one_step, &context)
            .schedule(2, |_, _| Ok(vec![4, 4]))
            .run(model(0.0), loss(&x, &y))
            .unwrap();
        let heavy = Fit::new(&one_step, &context)
            .schedule(2, |_, _| {
                Ok(Pass {
                    rows: vec![4, 7],
                    weights: Some(vec![2.0, 0.0]),
                })
            })
            .run(model(0.0), loss(&x, &y))
            .unwrap();
        let mut by_row = vec![0.0; N];
        by_row[4] = 2.0;
        let by_row = Fit::new(&one_step, &context)
            .schedule(2, |_, _| Ok(vec![4, 7]))
            .weights(&by_row)
            .run(model(0.0), loss(&x, &y))
            .unwrap();
        let close = |a: &Mlp, b: &Mlp| {
            answers(a)
                .iter()
                .zip(answers(b))
                .all(|(a, b)| (f32::from_bits(*a) - f32::from_bits(b)).abs() < 1e-6)
        };
        assert!(close(&twice.model, &heavy.model) && close(&twice.model, &by_row.model));
        assert!(!close(&twice.model, &model(0.0).valid()));
    }

    #[test]
    fn wrong_rows_and_losses_are_errors() {
        let context = Context::with_seed(0);
        let (x, y) = data();
        let run = |pass: Pass, weights: Option<&[f32]>| {
            let options = training(1);
            let mut fit = Fit::new(&options, &context).schedule(1, move |_, _| Ok(pass.clone()));
            if let Some(w) = weights {
                fit = fit.weights(w);
            }
            fit.run(model(0.0), loss(&x, &y)).unwrap_err().to_string()
        };
        assert!(run(Pass::default(), None).contains("no rows"));
        assert!(run(vec![3].into(), Some(&[1.0])).contains("row 3 has no weight"));
        let short = Pass {
            rows: vec![1, 2],
            weights: Some(vec![1.0]),
        };
        assert!(run(short, None).contains("1 weights for 2 rows"));
        let options = training(1);
        let wrong = Fit::new(&options, &context)
            .rows(4)
            .run(model(0.0), |m, r| loss(&x, &y)(m, r).sum())
            .unwrap_err();
        assert!(wrong.to_string().contains("shape [1]"), "{wrong}");
        assert!(
            Fit::new(&options, &context)
                .run(model(0.0), loss(&x, &y))
                .is_err()
        );
    }
}
