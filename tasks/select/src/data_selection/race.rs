//! One race: choose rows, train on them round by round, and look at the accuracy after each round, by the clock.
//!
//! Time is what choosing takes (scoring models included) and what training takes; looking at the test rows is not
//! counted. All methods are trained by the same recipe from the same first weights. A method that takes more rows in a
//! round than the budget is looked at within the round, after about as many steps as a round of the others has, so that
//! it is not found out later that it has reached an accuracy.

use super::networks::{Net, Networks};
use super::pool::{Choice, Pool, Selector, Subset, shuffled};
use papertrial_core::Result;
use papertrial_core::task::Context;
use papertrial_nn::train::{Fit, Pass, Training};
use std::cell::{Cell, RefCell};
use std::time::Instant;

/// What is known after a round, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Rows trained on so far, a row once for each time.
    pub samples: usize,
    /// Steps so far.
    pub steps: usize,
    /// Seconds so far, of choosing and training.
    pub seconds: f64,
    /// Share of the test rows that are predicted right.
    pub accuracy: f64,
}

/// A race that is over.
#[derive(Debug, Clone)]
pub struct Race {
    /// After each round, or part of one.
    pub moments: Vec<Moment>,
    /// Seconds of choosing, before training and within it.
    pub selection_seconds: f64,
    /// Seconds of training, without choosing.
    pub training_seconds: f64,
    /// Times that each row of the pool was trained on, `[n]`.
    pub uses: Vec<usize>,
}

/// The rows of each round, in the order of training, without the model's word: `None` where it is needed.
pub fn schedule(choice: Choice, rounds: usize, seed: u64) -> Option<Result<Vec<Subset>>> {
    match choice {
        Choice::Once(subset) => Some(Ok((0..rounds)
            .map(|r| shuffled(&subset, seed, r))
            .collect())),
        Choice::Drawn(draw) => Some((0..rounds).map(draw).collect()),
        Choice::Followed(_) => None,
    }
}

/// Runs a race; `accuracy` looks at a model's test rows.
///
/// # Errors
/// What choosing, training or looking ends with.
pub fn race(
    selector: &dyn Selector,
    pool: &Pool,
    networks: &Networks,
    accuracy: impl Fn(&Net) -> Result<f64>,
) -> Result<Race> {
    let began = Instant::now();
    let choice = selector.choose(pool)?;
    let before = began.elapsed().as_secs_f64();
    let size = match &choice {
        Choice::Once(subset) => subset.rows.len(),
        _ => pool.choose,
    };
    let parts = parts(size, pool.choose, networks.batch());
    let part_rows = size.div_ceil(networks.batch()) / parts * networks.batch();
    let uses = RefCell::new(vec![0usize; pool.len()]);
    let within = Cell::new(0.0);
    let training = networks.training(pool.context.seed, pool.rounds * parts);
    let mut next = turns(choice, networks, pool.context.seed);
    let mut left = Subset::default();
    let fitted = fit(&training, pool.context)
        .schedule(part_rows, |part, model| {
            let began = Instant::now();
            if part.is_multiple_of(parts) {
                left = next(part / parts, model)?;
            }
            let rest = match part % parts == parts - 1 {
                true => Subset::default(),
                false => left.split_off(part_rows),
            };
            let subset = std::mem::replace(&mut left, rest);
            within.set(within.get() + began.elapsed().as_secs_f64());
            let mut uses = uses.borrow_mut();
            subset.rows.iter().for_each(|r| uses[*r] += 1);
            Ok(Pass {
                rows: subset.rows,
                weights: subset.weights,
            })
        })
        .watch(|epoch| Ok(Some(accuracy(epoch.model)?)))
        .run(
            networks.fresh(pool.context.seed),
            networks.loss(pool.context.seed),
        )?;
    let moments: Vec<Moment> = fitted
        .points
        .iter()
        .map(|p| Moment {
            samples: p.samples,
            steps: p.steps,
            seconds: before + p.seconds,
            accuracy: p.score.unwrap_or(f64::NAN),
        })
        .collect();
    let total = fitted.points.last().map_or(0.0, |p| p.seconds);
    Ok(Race {
        moments,
        selection_seconds: before + within.get(),
        training_seconds: total - within.get(),
        uses: uses.into_inner(),
    })
}

/// Parts of a round of `size` rows after which the model is looked at: of about `choose` rows, and of equally many steps,
/// so that the learning rate follows the same steps as in one piece. A single part where no number of parts fits.
fn parts(size: usize, choose: usize, batch: usize) -> usize {
    let (steps, wanted) = (size.div_ceil(batch), choose.div_ceil(batch));
    (1..=wanted)
        .rev()
        .find(|part| steps.is_multiple_of(*part))
        .filter(|part| 4 * part >= wanted)
        .map_or(1, |part| steps / part)
}

/// The rows of each round where they depend on the model: trains it, and gives them back.
///
/// # Errors
/// What choosing or training ends with.
pub fn followed(choice: Choice, pool: &Pool, networks: &Networks) -> Result<Vec<Subset>> {
    let training = networks.training(pool.context.seed, pool.rounds);
    let mut next = turns(choice, networks, pool.context.seed);
    let mut all = Vec::with_capacity(pool.rounds);
    fit(&training, pool.context)
        .schedule(pool.choose, |round, model| {
            let subset = next(round, model)?;
            all.push(subset.clone());
            Ok(Pass {
                rows: subset.rows,
                weights: subset.weights,
            })
        })
        .run(
            networks.fresh(pool.context.seed),
            networks.loss(pool.context.seed),
        )?;
    Ok(all)
}

/// A few steps that are not counted, so that the first method to race does not pay for what is done once.
///
/// # Errors
/// A training that fails.
pub fn warm_up(networks: &Networks, rows: usize, context: &Context) -> Result<()> {
    let training = networks.training(0, 1);
    let n = rows.min(4 * training.batch);
    fit(&training, context)
        .rows(n)
        .run(networks.fresh(0), networks.loss(0))?;
    Ok(())
}

fn fit<'a>(training: &'a Training, context: &'a Context<'a>) -> Fit<'a, Net> {
    Fit::new(training, context).named("rounds")
}

type Turn<'a> = Box<dyn FnMut(usize, &Net) -> Result<Subset> + 'a>;

fn turns<'a>(choice: Choice<'a>, networks: &'a Networks, seed: u64) -> Turn<'a> {
    match choice {
        Choice::Once(subset) => Box::new(move |round, _| Ok(shuffled(&subset, seed, round))),
        Choice::Drawn(mut draw) => Box::new(move |round, _| draw(round)),
        Choice::Followed(mut follow) => {
            Box::new(move |round, model| follow(round, &|| networks.view(model)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::baselines::{FullData, Uniform};
    use super::super::facility::Craig;
    use super::super::networks::{ModelKind, Recipe};
    use super::super::rs2::Rs2;
    use super::*;
    use ndarray::ArrayView2;

    struct Setting {
        x: Vec<f32>,
        labels: Vec<usize>,
        choose: usize,
        rounds: usize,
    }

    impl Setting {
        fn new(n: usize, choose: usize) -> Setting {
            Setting {
                x: (0..n * 3)
                    .map(|i| ((i * 37) % 19) as f32 / 9.0 - 1.0)
                    .collect(),
                labels: (0..n).map(|i| (i * 7) % 3).collect(),
                choose,
                rounds: 3,
            }
        }

        /// Calls `work` with the pool and the networks.
        fn with<R>(&self, work: impl FnOnce(&Pool, &Networks) -> R) -> R {
            let context = Context::with_seed(4);
            let recipe = Recipe {
                model: ModelKind::Mlp,
                hidden: 5,
                channels: 1,
                augment: false,
                batch: 4,
                learning_rate: 0.1,
            };
            let networks = Networks::new(recipe, &self.x, 3, &self.labels, 3, &context).unwrap();
            let pool = Pool {
                x: ArrayView2::from_shape((self.labels.len(), 3), &self.x).unwrap(),
                labels: &self.labels,
                classes: 3,
                choose: self.choose,
                rounds: self.rounds,
                scoring_epochs: 2,
                learning_rate: 0.1,
                trainer: &networks,
                context: &context,
            };
            work(&pool, &networks)
        }

        /// Logits of the trained model: they tell the weights apart to the last bit.
        fn logits(&self, selector: &dyn Selector) -> Vec<u32> {
            self.with(|pool, networks| {
                let last = RefCell::new(Vec::new());
                race(selector, pool, networks, |model| {
                    let view = networks.view(model)?;
                    *last.borrow_mut() = view.logits.iter().map(|v| v.to_bits()).collect();
                    Ok(0.5)
                })
                .unwrap();
                last.into_inner()
            })
        }
    }

    #[test]
    fn all_rows_in_every_round_are_plain_training_to_the_last_bit() {
        let setting = Setting::new(30, 30);
        let plain = setting.with(|_, networks| {
            let training = networks.training(4, 3);
            let context = Context::with_seed(4);
            let fitted = Fit::new(&training, &context)
                .rows(30)
                .run(networks.fresh(4), networks.loss(4))
                .unwrap();
            let view = networks.view(&fitted.model).unwrap();
            view.logits
                .iter()
                .map(|v| v.to_bits())
                .collect::<Vec<u32>>()
        });
        assert_eq!(plain.len(), 90);
        let all: [&dyn Selector; 6] = [
            &FullData {},
            &Uniform {},
            &Rs2::default(),
            &Rs2 {
                replacement: false,
                balance: true,
            },
            &Rs2 {
                replacement: true,
                balance: false,
            },
            &Rs2 {
                replacement: true,
                balance: true,
            },
        ];
        for (i, selector) in all.into_iter().enumerate() {
            assert_eq!(setting.logits(selector), plain, "{i}");
        }
        // Fewer rows are not plain training.
        assert_ne!(Setting::new(30, 29).logits(&Rs2::default()), plain);
    }

    #[test]
    fn moments_count_rows_steps_and_time() {
        Setting::new(30, 6).with(|pool, networks| {
            let found = race(&Rs2::default(), pool, networks, |_| Ok(0.25)).unwrap();
            let of = |f: fn(&Moment) -> usize| found.moments.iter().map(f).collect::<Vec<_>>();
            assert_eq!(of(|m| m.samples), [6, 12, 18]);
            assert_eq!(of(|m| m.steps), [2, 4, 6]);
            assert_eq!(found.uses.iter().sum::<usize>(), 18);
            let last = found.moments[2].seconds;
            let parts = found.selection_seconds + found.training_seconds;
            assert!((last - parts).abs() < 1e-9 && found.moments[0].seconds < last);
        });
    }

    #[test]
    fn weights_reach_the_loss_and_scoring_takes_time() {
        /// CRAIG's rows without its weights.
        struct Unweighted(Craig);
        impl Selector for Unweighted {
            fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
                match self.0.choose(pool)? {
                    Choice::Once(subset) => Ok(Choice::Once(subset.rows.into())),
                    other => Ok(other),
                }
            }
        }
        let setting = Setting::new(30, 6);
        let weighted = setting.logits(&Craig::default());
        assert_ne!(weighted, setting.logits(&Unweighted(Craig::default())));
        setting.with(|pool, networks| {
            let time = |s: &dyn Selector| race(s, pool, networks, |_| Ok(0.0)).unwrap();
            let (craig, uniform) = (time(&Craig::default()), time(&Uniform {}));
            assert!(craig.selection_seconds > uniform.selection_seconds);
        });
    }

    #[test]
    fn a_schedule_is_what_the_race_trains_on() {
        let anew = Craig {
            every: 1,
            ..Craig::default()
        };
        let all: [&dyn Selector; 3] = [&Uniform {}, &Rs2::default(), &anew];
        for selector in all {
            Setting::new(20, 5).with(|pool, networks| {
                let raced = race(selector, pool, networks, |_| Ok(0.0)).unwrap();
                let choice = selector.choose(pool).unwrap();
                let rounds = match schedule(choice, pool.rounds, 4) {
                    Some(rounds) => rounds.unwrap(),
                    None => followed(selector.choose(pool).unwrap(), pool, networks).unwrap(),
                };
                let mut uses = vec![0; 20];
                rounds
                    .iter()
                    .flat_map(|s| &s.rows)
                    .for_each(|r| uses[*r] += 1);
                assert_eq!((rounds.len(), uses), (3, raced.uses));
            });
        }
    }

    #[test]
    fn more_rows_than_the_budget_are_looked_at_within_the_round() {
        // 81 steps, looked at after 3; 83 have no divisor near 40.
        assert_eq!(parts(1294, 64, 16), 27);
        assert_eq!(parts(83 * 16, 640, 16), 1);
        assert_eq!(parts(64, 64, 16), 1);
        assert_eq!(parts(7, 7, 16), 1);
        let setting = Setting::new(30, 6);
        setting.with(|pool, networks| {
            // Eight steps of which the last has two rows: four parts.
            let found = race(&FullData {}, pool, networks, |_| Ok(0.0)).unwrap();
            let samples: Vec<usize> = found.moments[..5].iter().map(|m| m.samples).collect();
            assert_eq!(samples, [8, 16, 24, 30, 38]);
            assert_eq!(found.moments.len(), 12);
            assert_eq!(found.uses, [3; 30]);
        });
        let whole = Setting::new(30, 30);
        assert_eq!(setting.logits(&FullData {}), whole.logits(&FullData {}));
    }

    #[test]
    fn a_warm_up_is_short_and_harmless() {
        Setting::new(3, 3).with(|pool, networks| {
            warm_up(networks, pool.len(), pool.context).unwrap();
        });
    }
}
