//! Errors by training: a small model on a union of buckets, looked at when given numbers of samples have been seen.

use super::TaskOptions;
use super::fit::Point;
use burn::tensor::Tensor;
use ndarray::Array2;
use papertrial_core::data::{Features, Labels, Roles, Table};
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use papertrial_nn::blocks::{Activation, Mlp};
use papertrial_nn::train::{Fit, Optimiser, Schedule, Training};
use papertrial_nn::{classes_of, cross_entropy, ops, rows_of, seeded, values_of};
use papertrial_numerics::sampling::{permutation, rng};
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::HashMap;

/// The model that is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// A linear model.
    Softmax,
    /// One hidden layer of 64 numbers.
    #[default]
    Mlp,
}

/// Numbers of the hidden layer.
const HIDDEN: usize = 64;

/// Where the buckets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BucketBy {
    /// Drawn at random, each made worse by wrong labels: option label-noise.
    #[default]
    Noise,
    /// Ranked by how sure a linear model, trained on other rows, is of their labels.
    FilterScore,
    /// The column with the role group, in the order of first appearance.
    Group,
}

/// Rows in buckets, with others to look at errors on.
pub struct Rows {
    /// Features, scaled, n x d row by row.
    x: Vec<f32>,
    width: usize,
    /// Class of each row, as it is trained on.
    labels: Vec<usize>,
    classes: usize,
    /// Names of the buckets, best first.
    pub names: Vec<String>,
    /// Rows of each.
    pub buckets: Vec<Vec<usize>>,
    /// Rows on which the laws' errors are measured.
    validation: Vec<usize>,
    /// Rows on which the choice is scored.
    test: Vec<usize>,
    /// Errors already measured, by union.
    known: RefCell<HashMap<Vec<usize>, Run>>,
}

/// Errors of one union at each number of samples.
#[derive(Debug, Clone, Default)]
struct Run {
    validation: Vec<f64>,
    test: Vec<f64>,
}

impl Rows {
    /// The rows of a table with labels, cut into buckets from the seed.
    ///
    /// # Errors
    /// A table without labels or with one class, or with too few rows.
    pub fn of(
        table: &Table,
        roles: &Roles,
        asked: &TaskOptions,
        context: &Context,
    ) -> Result<Rows> {
        if asked.bucket_by == BucketBy::Group && roles.group.is_none() {
            return Err(Error::option(
                "--group",
                "should name the column with the bucket of each row",
            ));
        }
        let x = Features::of(table, roles)?.matrix(context)?;
        let labels = Labels::of(table, roles)?
            .ok_or_else(|| Error::option("--label", "should name the column with the class"))?;
        if labels.names.len() < 2 {
            return Err(Error::BadInput(format!(
                "{}: all rows have the same label; at least two classes are needed",
                table.name()
            )));
        }
        let truth: Vec<usize> = labels.codes.iter().map(|c| *c as usize).collect();
        let n = truth.len();
        let mut order = permutation(&mut rng(context.seed, "bucket-curation rows"), n);
        let mut take = |rows: usize, what: &str| -> Result<Vec<usize>> {
            if rows > order.len() {
                return Err(Error::BadInput(format!(
                    "{}: {n} rows are too few: {} are left for {rows} of {what}; lower bucket-rows, buckets, \
                     validation-rows or test-rows",
                    table.name(),
                    order.len()
                )));
            }
            let rest = order.split_off(rows);
            Ok(std::mem::replace(&mut order, rest))
        };
        let test = take(asked.test_rows, "the test")?;
        let validation = take(asked.validation_rows, "the validation")?;
        let mut labels = truth.clone();
        let (names, buckets) = match asked.bucket_by {
            BucketBy::Noise => {
                let mut buckets = Vec::with_capacity(asked.buckets);
                for b in 0..asked.buckets {
                    buckets.push(take(asked.bucket_rows, &format!("bucket {}", b + 1))?);
                }
                let names = spoil(&buckets, &mut labels, asked, context.seed)?;
                (names, buckets)
            }
            BucketBy::FilterScore => {
                let scorer = take(asked.scorer_rows, "the scoring model")?;
                let pool = std::mem::take(&mut order);
                let scores = sureness(&x, &truth, &scorer, &pool, context)?;
                ranked(&pool, &scores, asked)?
            }
            BucketBy::Group => grouped(table, roles, &order)?,
        };
        let classes = labels.iter().max().map_or(0, |c| c + 1);
        let pool: Vec<usize> = buckets.concat();
        Ok(Rows {
            width: x.ncols(),
            x: scaled(&x, &pool),
            labels,
            classes,
            names,
            buckets,
            validation,
            test,
            known: RefCell::default(),
        })
    }

    /// The run of a single bucket, as the laws see it.
    ///
    /// # Errors
    /// A training that diverges.
    pub fn points(
        &self,
        bucket: usize,
        samples: &[usize],
        asked: &TaskOptions,
        context: &Context,
    ) -> Result<Vec<Point>> {
        let run = self.run(&[bucket], samples, asked, context)?;
        Ok(samples
            .iter()
            .zip(run.validation)
            .map(|(n, error)| Point {
                samples: *n as f64,
                error,
            })
            .collect())
    }

    /// Test errors of a union at each number of samples.
    ///
    /// # Errors
    /// A training that diverges.
    pub fn test_errors(
        &self,
        union: &[usize],
        samples: &[usize],
        asked: &TaskOptions,
        context: &Context,
    ) -> Result<Vec<f64>> {
        Ok(self.run(union, samples, asked, context)?.test)
    }

    /// Validation errors of a union at each number of samples.
    ///
    /// # Errors
    /// A training that diverges.
    pub fn validation_errors(
        &self,
        union: &[usize],
        samples: &[usize],
        asked: &TaskOptions,
        context: &Context,
    ) -> Result<Vec<f64>> {
        Ok(self.run(union, samples, asked, context)?.validation)
    }

    /// Mean errors of `repeats` trainings on a union.
    fn run(
        &self,
        union: &[usize],
        samples: &[usize],
        asked: &TaskOptions,
        context: &Context,
    ) -> Result<Run> {
        let mut key = union.to_vec();
        key.sort_unstable();
        if let Some(run) = self.known.borrow().get(&key) {
            return Ok(run.clone());
        }
        let rows: Vec<usize> = key
            .iter()
            .flat_map(|b| &self.buckets[*b])
            .copied()
            .collect();
        let mut mean = Run {
            validation: vec![0.0; samples.len()],
            test: vec![0.0; samples.len()],
        };
        for repeat in 0..asked.repeats {
            let seed = context.seed * 1000 + repeat as u64;
            let run = self.train(&rows, samples, seed, asked, context)?;
            let pairs = [
                (&mut mean.validation, run.validation),
                (&mut mean.test, run.test),
            ];
            for (mean, one) in pairs {
                for (mean, one) in mean.iter_mut().zip(one) {
                    *mean += one / asked.repeats as f64;
                }
            }
        }
        self.known.borrow_mut().insert(key, mean.clone());
        Ok(mean)
    }

    /// One training on `rows`, shuffled anew in each pass.
    fn train(
        &self,
        rows: &[usize],
        samples: &[usize],
        seed: u64,
        asked: &TaskOptions,
        context: &Context,
    ) -> Result<Run> {
        let device = papertrial_nn::device(&context.device)?;
        let training_device = device.clone().autodiff();
        let widths = match asked.model {
            Model::Softmax => vec![self.width, self.classes],
            Model::Mlp => vec![self.width, HIDDEN, self.classes],
        };
        let model = seeded(&device, seed, |d| {
            Mlp::new(&widths, Activation::Relu, 0.0, d)
        });
        // A rate that depended on the length of the run would make each length a curve of its own.
        let training = Training {
            epochs: samples.len(),
            batch: asked.batch,
            learning_rate: asked.learning_rate,
            optimiser: Optimiser::Sgd {
                momentum: 0.0,
                nesterov: false,
                weight_decay: 0.0,
            },
            schedule: Schedule::Constant,
            seed,
            ..Training::default()
        };
        let mut stream = Stream {
            rows: rows.to_vec(),
            next: rows.len(),
            pass: 0,
            seed,
        };
        let run = RefCell::new(Run::default());
        let longest = samples.last().copied().unwrap_or(0);
        Fit::new(&training, context)
            .named("training on buckets")
            .schedule(longest / samples.len().max(1), |epoch, _: &Mlp| {
                let before = if epoch == 0 { 0 } else { samples[epoch - 1] };
                Ok(stream.take(samples[epoch] - before))
            })
            .watch(|epoch| {
                let error = |rows: &[usize]| -> Result<f64> {
                    let x = rows_of(&self.x, self.width, rows, &device);
                    let logits = values_of(epoch.model.forward(x))?;
                    let wrong = logits
                        .chunks(self.classes)
                        .zip(rows)
                        .filter(|(scores, row)| argmax(scores) != self.labels[**row])
                        .count();
                    Ok(wrong as f64 / rows.len() as f64)
                };
                let mut run = run.borrow_mut();
                run.validation.push(error(&self.validation)?);
                run.test.push(error(&self.test)?);
                Ok(None)
            })
            .run(model, |model: &Mlp, rows| -> Tensor<1> {
                let x = rows_of(&self.x, self.width, rows, &training_device);
                let classes = classes_of(rows.iter().map(|r| self.labels[*r]), &training_device);
                cross_entropy(model.forward(x), classes)
            })?;
        Ok(run.into_inner())
    }
}

/// Rows pass after pass, shuffled in each.
struct Stream {
    rows: Vec<usize>,
    next: usize,
    pass: usize,
    seed: u64,
}

impl Stream {
    fn take(&mut self, n: usize) -> Vec<usize> {
        let mut taken = Vec::with_capacity(n);
        while taken.len() < n {
            if self.next == self.rows.len() {
                let mut rng = rng(self.seed, &format!("bucket-curation pass {}", self.pass));
                let order = permutation(&mut rng, self.rows.len());
                self.rows = order.iter().map(|i| self.rows[*i]).collect();
                self.pass += 1;
                self.next = 0;
            }
            let to = (self.next + n - taken.len()).min(self.rows.len());
            taken.extend_from_slice(&self.rows[self.next..to]);
            self.next = to;
        }
        taken
    }
}

/// Gives a share of each bucket's rows another label; names the buckets by it.
fn spoil(
    buckets: &[Vec<usize>],
    labels: &mut [usize],
    asked: &TaskOptions,
    seed: u64,
) -> Result<Vec<String>> {
    if asked.label_noise.len() != buckets.len() {
        return Err(Error::option(
            "label-noise",
            format!(
                "has {} shares for {} buckets; give one for each",
                asked.label_noise.len(),
                buckets.len()
            ),
        ));
    }
    if asked.label_noise.iter().any(|s| !(0.0..=1.0).contains(s)) {
        return Err(Error::option("label-noise", "must be shares from 0 to 1"));
    }
    let classes = labels.iter().max().map_or(0, |c| c + 1);
    let mut rng = rng(seed, "bucket-curation wrong labels");
    for (rows, share) in buckets.iter().zip(&asked.label_noise) {
        let wrong = (share * rows.len() as f64).round() as usize;
        // The rows of a bucket are in random order already.
        for row in &rows[..wrong] {
            let other = rng.random_range(0..classes - 1);
            labels[*row] = if other >= labels[*row] {
                other + 1
            } else {
                other
            };
        }
    }
    Ok(asked
        .label_noise
        .iter()
        .enumerate()
        .map(|(b, share)| format!("{} ({:.0} % wrong labels)", b + 1, share * 100.0))
        .collect())
}

/// How sure a linear model, trained on `scorer`, is of the label of each row of `pool`.
fn sureness(
    x: &Array2<f64>,
    truth: &[usize],
    scorer: &[usize],
    pool: &[usize],
    context: &Context,
) -> Result<Vec<f64>> {
    let device = papertrial_nn::device(&context.device)?;
    let training_device = device.clone().autodiff();
    let classes = truth.iter().max().map_or(0, |c| c + 1);
    let width = x.ncols();
    let x = scaled(x, scorer);
    let model = seeded(&device, context.seed, |d| {
        Mlp::new(&[width, classes], Activation::Relu, 0.0, d)
    });
    let training = Training {
        epochs: 20,
        batch: 32,
        learning_rate: 1e-2,
        seed: context.seed,
        ..Training::default()
    };
    let fitted = Fit::new(&training, context)
        .named("training the scorer")
        .schedule(scorer.len(), |epoch, _: &Mlp| {
            let mut rng = rng(context.seed, &format!("bucket-curation scorer {epoch}"));
            let order = permutation(&mut rng, scorer.len());
            Ok(order.iter().map(|i| scorer[*i]).collect::<Vec<usize>>())
        })
        .run(model, |model: &Mlp, rows| {
            let input = rows_of(&x, width, rows, &training_device);
            let labels = classes_of(rows.iter().map(|r| truth[*r]), &training_device);
            cross_entropy(model.forward(input), labels)
        })?;
    let shares = ops::log_softmax(fitted.model.forward(rows_of(&x, width, pool, &device)));
    Ok(values_of(shares)?
        .chunks(classes)
        .zip(pool)
        .map(|(shares, row)| f64::from(shares[truth[*row]]))
        .collect())
}

/// Buckets of equal size by falling score; a remainder at the end is left out.
fn ranked(
    pool: &[usize],
    scores: &[f64],
    asked: &TaskOptions,
) -> Result<(Vec<String>, Vec<Vec<usize>>)> {
    let size = pool.len() / asked.buckets;
    if size == 0 {
        return Err(Error::option(
            "buckets",
            format!("{} are too many for {} rows", asked.buckets, pool.len()),
        ));
    }
    let mut order: Vec<usize> = (0..pool.len()).collect();
    order.sort_by(|a, b| {
        scores[*b]
            .total_cmp(&scores[*a])
            .then(pool[*a].cmp(&pool[*b]))
    });
    let buckets: Vec<Vec<usize>> = order
        .chunks_exact(size)
        .take(asked.buckets)
        .map(|chunk| chunk.iter().map(|i| pool[*i]).collect())
        .collect();
    let names = (1..=buckets.len()).map(|b| format!("rank {b}")).collect();
    Ok((names, buckets))
}

/// Buckets by the group column, in the order of first appearance in the table.
fn grouped(table: &Table, roles: &Roles, pool: &[usize]) -> Result<(Vec<String>, Vec<Vec<usize>>)> {
    let groups = Labels::of(
        table,
        &Roles {
            label: roles.group.clone(),
            ..Roles::default()
        },
    )?
    .ok_or_else(|| Error::option("--group", "should name the column with the bucket"))?;
    let mut sorted = pool.to_vec();
    sorted.sort_unstable();
    let mut names: Vec<String> = Vec::new();
    let mut buckets: Vec<Vec<usize>> = Vec::new();
    for row in sorted {
        let name = &groups.names[groups.codes[row] as usize];
        match names.iter().position(|n| n == name) {
            Some(b) => buckets[b].push(row),
            None => {
                names.push(name.clone());
                buckets.push(vec![row]);
            }
        }
    }
    Ok((names, buckets))
}

/// Each column less its mean over `rows`, over its deviation there.
fn scaled(x: &Array2<f64>, rows: &[usize]) -> Vec<f32> {
    let n = rows.len().max(1) as f64;
    let columns: Vec<(f64, f64)> = x
        .columns()
        .into_iter()
        .map(|column| {
            let mean = rows.iter().map(|r| column[*r]).sum::<f64>() / n;
            let square = rows
                .iter()
                .map(|r| (column[*r] - mean).powi(2))
                .sum::<f64>()
                / n;
            (mean, if square > 0.0 { square.sqrt() } else { 1.0 })
        })
        .collect();
    x.rows()
        .into_iter()
        .flat_map(|row| {
            row.into_iter()
                .zip(&columns)
                .map(|(v, (mean, deviation))| ((v - mean) / deviation) as f32)
                .collect::<Vec<f32>>()
        })
        .collect()
}

/// Place of the largest score, of equal ones the first.
fn argmax(scores: &[f32]) -> usize {
    scores
        .iter()
        .enumerate()
        .fold(0, |best, (i, s)| if *s > scores[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_gives_every_row_once_a_pass() {
        let mut stream = Stream {
            rows: vec![4, 7, 9],
            next: 3,
            pass: 0,
            seed: 1,
        };
        let mut first = stream.take(2);
        first.extend(stream.take(1));
        first.sort_unstable();
        assert_eq!(first, [4, 7, 9]);
        let mut two = stream.take(6);
        two.sort_unstable();
        assert_eq!(two, [4, 4, 7, 7, 9, 9]);
    }

    #[test]
    fn buckets_by_score_are_cut_from_the_best_down() {
        let asked = TaskOptions {
            buckets: 2,
            ..TaskOptions::default()
        };
        let (_, buckets) = ranked(&[5, 6, 7, 8, 9], &[0.1, 0.9, 0.5, 0.9, 0.7], &asked).unwrap();
        assert_eq!(buckets, [vec![6, 8], vec![9, 7]]);
        let asked = TaskOptions {
            buckets: 9,
            ..asked
        };
        assert!(ranked(&[5], &[0.1], &asked).is_err());
    }

    #[test]
    fn wrong_labels_are_as_many_as_asked_for_and_never_the_right_one() {
        let truth: Vec<usize> = (0..40).map(|i| i % 4).collect();
        let mut labels = truth.clone();
        let asked = TaskOptions {
            label_noise: vec![0.0, 0.5],
            ..TaskOptions::default()
        };
        let buckets = [(0..20).collect(), (20..40).collect()];
        spoil(&buckets, &mut labels, &asked, 3).unwrap();
        let wrong = |r: std::ops::Range<usize>| r.filter(|i| labels[*i] != truth[*i]).count();
        assert_eq!((wrong(0..20), wrong(20..40)), (0, 10));
        assert!(labels.iter().all(|l| *l < 4));
        let short = TaskOptions {
            label_noise: vec![0.1],
            ..asked
        };
        assert!(spoil(&buckets, &mut labels, &short, 3).is_err());
    }
}
