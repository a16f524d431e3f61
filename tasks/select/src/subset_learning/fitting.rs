//! Training that all networks of this task share: epochs, batches, and the model that did best on validation sets.

use super::choose::{Ranking, SizeRule, cut, jaccard};
use super::sets::{GroundSet, check_marked};
use super::{Ask, Selector};
use papertrial_core::task::{Context, Curve};
use papertrial_core::{Error, Result};
use papertrial_nn::train::{Optimiser, Training};
use papertrial_numerics::sampling;
use rand_chacha::ChaCha8Rng;

/// How long and how fast is learned, the same for all methods.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Passes over the training sets.
    pub epochs: usize,
    /// Sets of a step.
    pub batch: usize,
    /// Learning rate of Adam.
    pub learning_rate: f64,
    /// Pull of the weights to 0.
    pub weight_decay: f64,
    /// Longest gradient of a network; longer ones are shortened to it.
    pub clip: f64,
    /// Epochs in a row without a better score on validation sets that are borne; one more ends training.
    pub patience: usize,
    /// Other elements drawn for each right one in the loss.
    pub negatives: usize,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule {
            epochs: 100,
            batch: 4,
            learning_rate: 1e-4,
            weight_decay: 1e-5,
            clip: 10.0,
            patience: 6,
            negatives: 1,
        }
    }
}

impl Schedule {
    /// The same for one optimiser.
    pub fn training(&self, seed: u64) -> Training {
        Training {
            epochs: self.epochs,
            batch: self.batch,
            learning_rate: self.learning_rate,
            optimiser: Optimiser::Adam {
                weight_decay: self.weight_decay,
            },
            clip: Some(self.clip),
            seed,
            ..Training::default()
        }
    }

    /// Steps in all for `sets` training sets.
    pub fn steps(&self, sets: usize) -> usize {
        self.epochs * sets.div_ceil(self.batch.max(1))
    }

    fn check(&self) -> Result<()> {
        for (option, whole) in [
            ("epochs", self.epochs),
            ("batch", self.batch),
            ("negatives", self.negatives),
        ] {
            if whole == 0 {
                return Err(Error::option(option, "must be at least 1"));
            }
        }
        for (option, number) in [("learning-rate", self.learning_rate), ("clip", self.clip)] {
            if !(number > 0.0 && number.is_finite()) {
                return Err(Error::option(option, "must be above 0"));
            }
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return Err(Error::option("weight-decay", "must be 0 or more"));
        }
        Ok(())
    }
}

/// What a method learns from.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Sets with marks to learn from.
    pub train: Vec<GroundSet>,
    /// Sets with marks that tell when to stop; without them training goes on for all epochs.
    pub validation: Vec<GroundSet>,
    /// How long and how fast.
    pub schedule: Schedule,
    /// Seed of every draw.
    pub seed: u64,
}

impl Problem {
    /// Checks sets and schedule; gives the number of features.
    ///
    /// # Errors
    /// A set from which nothing can be learned, or an impossible schedule.
    pub fn check(&self) -> Result<usize> {
        self.schedule.check()?;
        check_marked(&self.train, "training")?;
        let width = self.train.first().map_or(0, |s| s.features.ncols());
        if !self.validation.is_empty() {
            check_marked(&self.validation, "validation")?;
            super::sets::check_open(&self.validation, width)?;
        }
        Ok(width)
    }
}

/// What takes steps.
pub trait Trainee {
    /// What it is once trained.
    type Trained: Selector + 'static;
    /// One step on some sets; gives the loss.
    ///
    /// # Errors
    /// Training diverged.
    fn step(&mut self, sets: &[&GroundSet], draws: &mut ChaCha8Rng) -> Result<f64>;
    /// What it is now, on the plain device.
    fn trained(&self) -> Self::Trained;
}

/// What training yields.
pub struct Learned {
    /// What chooses.
    pub model: Box<dyn Selector>,
    /// Loss and validation score by epoch.
    pub curves: Vec<Curve>,
    /// Remarks for the reader.
    pub notes: Vec<String>,
}

/// Trains for the schedule's epochs, or until the validation score has not risen for longer than its patience; gives
/// the model of the best epoch.
///
/// # Errors
/// Training diverged.
pub fn train<T: Trainee>(mut trainee: T, problem: &Problem, context: &Context) -> Result<Learned> {
    let Problem {
        train,
        validation,
        schedule,
        seed,
    } = problem;
    let mut draws = sampling::rng(*seed, "subset-learning training");
    let (mut losses, mut scores) = (Vec::new(), Vec::new());
    let mut best: Option<(f64, usize, T::Trained)> = None;
    let mut bad = 0;
    let mut ended = schedule.epochs;
    for epoch in 0..schedule.epochs {
        context.step("training", epoch, schedule.epochs);
        let order = sampling::permutation(&mut draws, train.len());
        let mut total = 0.0;
        for batch in order.chunks(schedule.batch) {
            let sets: Vec<&GroundSet> = batch.iter().map(|i| &train[*i]).collect();
            total += trainee.step(&sets, &mut draws)? * sets.len() as f64;
        }
        losses.push((epoch as f64 + 1.0, total / train.len() as f64));
        if validation.is_empty() {
            continue;
        }
        let now = trainee.trained();
        let score = known_size_jaccard(&now, validation, *seed)?;
        scores.push((epoch as f64 + 1.0, score));
        if best.as_ref().is_none_or(|b| score > b.0) {
            best = Some((score, epoch, now));
            bad = 0;
        } else {
            bad += 1;
            if bad > schedule.patience {
                ended = epoch + 1;
                break;
            }
        }
    }
    context.step("training", schedule.epochs, schedule.epochs);
    let mut curves = vec![curve("loss", losses)];
    let mut notes = Vec::new();
    if let Some((score, epoch, _)) = &best {
        curves.push(curve("validation jaccard", scores));
        notes.push(format!(
            "best of {ended} epochs: epoch {} with {score:.4} on validation sets",
            epoch + 1
        ));
    } else {
        notes.push(format!(
            "no validation sets: the model after all {ended} epochs"
        ));
    }
    Ok(Learned {
        model: match best {
            Some((_, _, model)) => Box::new(model),
            None => Box::new(trainee.trained()),
        },
        curves,
        notes,
    })
}

fn curve(y: &str, points: Vec<(f64, f64)>) -> Curve {
    Curve {
        name: format!("{y} by epoch"),
        x: "epoch".into(),
        y: y.into(),
        points,
    }
}

/// Mean Jaccard index of subsets of the right size.
fn known_size_jaccard(model: &dyn Selector, sets: &[GroundSet], seed: u64) -> Result<f64> {
    let sizes: Vec<usize> = sets.iter().map(GroundSet::right_size).collect();
    let ask = Ask {
        most: Some(&sizes),
        values: false,
        seed,
    };
    let rankings: Vec<Ranking> = model.rank(sets, &ask)?;
    let mut total = 0.0;
    for (set, ranking) in sets.iter().zip(&rankings) {
        let chosen = cut(ranking, SizeRule::Known, Some(set.right_size()))?;
        total += jaccard(&chosen, &set.right());
    }
    Ok(total / sets.len().max(1) as f64)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::About;
    use super::super::sets::tests::set;
    use super::*;
    use std::path::Path;

    /// Sets of one feature in which the right elements are those that stand out: -1 among 1 or 1 among -1, with noise.
    pub(crate) fn odd_ones(n: usize, seed: u64) -> Vec<GroundSet> {
        use rand::RngExt;
        let mut rng = sampling::rng(seed, "odd ones");
        (0..n)
            .map(|i| {
                let size = 6 + i % 3;
                let side: f32 = if rng.random() { 1.0 } else { -1.0 };
                let values: Vec<f32> = (0..size)
                    .map(|e| (if e < 2 { -side } else { side }) + rng.random_range(-0.3..0.3))
                    .collect();
                set(&format!("s{i}"), &values, &[0, 1])
            })
            .collect()
    }

    pub(crate) fn problem(train: usize, epochs: usize) -> Problem {
        Problem {
            train: odd_ones(train, 1),
            validation: odd_ones(20, 2),
            schedule: Schedule {
                epochs,
                batch: 8,
                learning_rate: 3e-3,
                ..Schedule::default()
            },
            seed: 5,
        }
    }

    /// Scores rise to the third epoch, then fall.
    struct Fake {
        steps: usize,
        per_epoch: usize,
    }

    struct Fixed(usize);

    impl Selector for Fixed {
        fn rank(&self, sets: &[GroundSet], _: &Ask) -> Result<Vec<Ranking>> {
            // Right for as many sets as the distance from epoch 3 leaves.
            let good = 10usize.saturating_sub(2 * self.0.abs_diff(3));
            Ok(sets
                .iter()
                .enumerate()
                .map(|(i, s)| {
                    let sign = if i < good { 1.0 } else { -1.0 };
                    Ranking::by_psi(
                        (0..s.len())
                            .map(|e| if e < 2 { sign } else { 0.0 })
                            .collect(),
                    )
                })
                .collect())
        }
        fn keep(&self, _: &About, _: &Path) -> Result<Option<Vec<u8>>> {
            Ok(None)
        }
    }

    impl Trainee for Fake {
        type Trained = Fixed;
        fn step(&mut self, sets: &[&GroundSet], _: &mut ChaCha8Rng) -> Result<f64> {
            assert!(sets.len() <= 8);
            self.steps += 1;
            Ok(1.0)
        }
        fn trained(&self) -> Fixed {
            Fixed(self.steps / self.per_epoch)
        }
    }

    #[test]
    fn the_best_epoch_is_kept_and_patience_ends_training() {
        let mut p = problem(20, 50);
        p.schedule.patience = 2;
        let context = Context::with_seed(0);
        let fake = || Fake {
            steps: 0,
            per_epoch: 3,
        };
        let learned = train(fake(), &p, &context).unwrap();
        // Epochs 4, 5 and 6 are worse than 3: the third of them is one more than two.
        assert_eq!(learned.curves[1].points.len(), 6);
        assert!(
            learned.notes[0].contains("best of 6 epochs: epoch 3"),
            "{:?}",
            learned.notes
        );
        assert_eq!(
            known_size_jaccard(&*learned.model, &p.validation, 0).unwrap(),
            0.5
        );
        p.validation.clear();
        let learned = train(fake(), &p, &context).unwrap();
        assert_eq!(learned.curves[0].points.len(), 50);
        assert!(learned.notes[0].contains("all 50 epochs"));
    }

    #[test]
    fn impossible_schedules_are_told() {
        let good = problem(4, 1);
        assert_eq!(good.check().unwrap(), 1);
        type Change = fn(&mut Problem);
        let cases: [(Change, &str); 6] = [
            (|p| p.schedule.epochs = 0, "epochs"),
            (|p| p.schedule.batch = 0, "batch"),
            (|p| p.schedule.negatives = 0, "negatives"),
            (|p| p.schedule.learning_rate = f64::NAN, "learning-rate"),
            (|p| p.schedule.weight_decay = -1.0, "weight-decay"),
            (|p| p.train.clear(), "no training sets"),
        ];
        for (change, word) in cases {
            let mut p = good.clone();
            change(&mut p);
            let text = p.check().unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        }
    }
}
