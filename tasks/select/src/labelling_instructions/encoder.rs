//! A small encoder of pictures and texts, learned on the spot from single items with a text, for users without one.
//!
//! The two towers and the contrastive loss of Radford and others, *Learning Transferable Visual Models From Natural
//! Language Supervision*, 2021, arXiv 2103.00020, at a size that is learned in seconds:
//! 1. Pictures x [n, w] as numbers, shifted and scaled by the mean and deviation of all of them; texts as shares of
//!    known words t [n, v].
//! 2. u = f(x) with two layers, w = g(t) with one, both [n, 32] and scaled to length 1.
//! 3. In a batch, logits [b, b] = u w^T / 0.1. The loss of item i is the mean of two cross entropies, of row i and of
//!    column i. As many items share a class, the target is spread evenly over the items of i's class.
//!
//! Time O(epochs n (w h + b)), some seconds for 600 pictures of 64 numbers.

use ndarray::{Array2, ArrayView2, Axis, s};
use papertrial_core::data::Table;
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use papertrial_nn::blocks::{Activation, Mlp};
use papertrial_nn::burn::module::Module;
use papertrial_nn::burn::tensor::{Device, Tensor, TensorData};
use papertrial_nn::train::{Fit, Optimiser, Schedule, Training};
use papertrial_nn::{burn, device, ops, rows_of, seeded, values_of};
use std::collections::BTreeMap;

/// Numbers of an embedding.
const WIDTH: usize = 32;

/// Units between the layers of the pictures' tower.
const HIDDEN: usize = 128;

/// What similarities are divided by.
const TEMPERATURE: f64 = 0.1;

/// Passes over the items.
const EPOCHS: usize = 60;

/// Items of a step.
const BATCH: usize = 100;

/// Rows that are encoded at once.
const CHUNK: usize = 8192;

/// Single items with their class and a text.
pub struct Lessons {
    /// [items, w]
    pictures: Array2<f32>,
    /// Class of each item.
    classes: Vec<String>,
    /// Text of each item.
    words: Vec<String>,
}

impl Lessons {
    /// The rows `rows` of a table, whose texts, classes and vectors are given for all rows.
    ///
    /// # Errors
    /// A row without a class, or less than two classes.
    pub fn new(
        table: &Table,
        rows: &[usize],
        texts: &[Option<String>],
        classes: &[Option<String>],
        vectors: &Array2<f32>,
    ) -> Result<Lessons> {
        let mut of_rows = Vec::with_capacity(rows.len());
        for row in rows {
            of_rows.push(classes[*row].clone().ok_or_else(|| {
                Error::file(
                    table.name(),
                    format!(
                        "row {} has a text but no class; name the column of the classes with --label and fill it in",
                        row + 1
                    ),
                )
            })?);
        }
        if of_rows.windows(2).all(|w| w[0] == w[1]) {
            return Err(Error::file(
                table.name(),
                "the rows with a text are of a single class; an encoder needs two to tell apart",
            ));
        }
        Ok(Lessons {
            pictures: vectors.select(Axis(0), rows),
            classes: of_rows,
            words: rows.iter().filter_map(|r| texts[*r].clone()).collect(),
        })
    }

    /// Each class with each of its texts once, in the order of the rows.
    pub fn texts(&self) -> Vec<(String, String)> {
        let mut texts: Vec<(String, String)> = Vec::new();
        for pair in self.classes.iter().zip(&self.words) {
            if !texts.iter().any(|t| (&t.0, &t.1) == pair) {
                texts.push((pair.0.clone(), pair.1.clone()));
            }
        }
        texts
    }
}

/// The two towers.
#[derive(Module, Debug)]
struct Towers {
    pictures: Mlp,
    texts: Mlp,
}

/// A learned encoder.
pub struct Encoder {
    towers: Towers,
    words: BTreeMap<String, usize>,
    mean: f32,
    deviation: f32,
    device: Device,
}

/// Learns an encoder.
///
/// # Errors
/// The device is unknown, or the training failed.
pub fn learn(lessons: &Lessons, context: &Context) -> Result<Encoder> {
    let device = device(&context.device)?;
    // 1.
    let (n, width) = lessons.pictures.dim();
    let count = (n * width).max(1) as f64;
    let mean = lessons.pictures.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
    let squares = lessons
        .pictures
        .iter()
        .map(|v| (f64::from(*v) - mean).powi(2));
    let deviation = (squares.sum::<f64>() / count).sqrt().max(1e-12);
    let mut words = BTreeMap::new();
    for text in &lessons.words {
        words.extend(split(text).map(|w| (w, 0)));
    }
    words.values_mut().zip(0..).for_each(|(w, i)| *w = i);
    let mut encoder = Encoder {
        towers: seeded(&device, context.seed, |d| Towers {
            pictures: Mlp::new(&[width, HIDDEN, WIDTH], Activation::Relu, 0.0, d),
            texts: Mlp::new(&[words.len(), WIDTH], Activation::Relu, 0.0, d),
        }),
        words,
        mean: mean as f32,
        deviation: deviation as f32,
        device: device.clone(),
    };
    let pictures = encoder.scaled(lessons.pictures.view());
    let texts = encoder.shares(&lessons.words);
    let known = encoder.words.len();
    let training = Training {
        epochs: EPOCHS,
        batch: BATCH,
        learning_rate: 3e-3,
        optimiser: Optimiser::AdamW { weight_decay: 1e-2 },
        schedule: Schedule::Cosine { floor: 0.0 },
        seed: context.seed,
        ..Training::default()
    };
    let training_device = device.autodiff();
    let fitted = Fit::new(&training, context).named("encoder").rows(n).run(
        encoder.towers.clone(),
        |towers, rows| {
            // 2.
            let x = rows_of(&pictures, width, rows, &training_device);
            let t = rows_of(&texts, known, rows, &training_device);
            let u = unit(towers.pictures.forward(x));
            let w = unit(towers.texts.forward(t));
            // 3.
            let logits = u.matmul(w.transpose()) / TEMPERATURE;
            let targets = targets(rows, &lessons.classes, &training_device);
            let across = ops::log_softmax(logits.clone()) * targets.clone();
            let down = ops::log_softmax(logits.transpose()) * targets;
            ((across + down).sum_dim(1) / -2.0).squeeze_dim::<1>(1)
        },
    )?;
    encoder.towers = fitted.model;
    Ok(encoder)
}

impl Encoder {
    /// Embeddings [n, 32] of pictures [n, w].
    ///
    /// # Errors
    /// The device gave no values.
    pub fn images(&self, pictures: &Array2<f32>, context: &Context) -> Result<Array2<f32>> {
        let (n, width) = pictures.dim();
        let mut all = Array2::zeros((n, WIDTH));
        for start in (0..n).step_by(CHUNK) {
            context.step("encoding", start, n);
            let end = (start + CHUNK).min(n);
            let part = self.scaled(pictures.slice(s![start..end, ..]));
            let rows: Vec<usize> = (0..end - start).collect();
            let x = rows_of(&part, width, &rows, &self.device);
            let u = values_of(self.towers.pictures.forward(x))?;
            assign(&mut all, start, &u);
        }
        Ok(all)
    }

    /// Embeddings [n, 32] of texts, given with their class.
    ///
    /// # Errors
    /// The device gave no values.
    pub fn texts(&self, texts: &[(String, String)], context: &Context) -> Result<Array2<f32>> {
        let words: Vec<String> = texts.iter().map(|t| t.1.clone()).collect();
        let shares = self.shares(&words);
        let rows: Vec<usize> = (0..words.len()).collect();
        let t = rows_of(&shares, self.words.len(), &rows, &self.device);
        let w = values_of(self.towers.texts.forward(t))?;
        context.step("encoding", words.len(), words.len());
        let mut all = Array2::zeros((words.len(), WIDTH));
        assign(&mut all, 0, &w);
        Ok(all)
    }

    fn scaled(&self, pictures: ArrayView2<'_, f32>) -> Vec<f32> {
        let scale = |v: &f32| (v - self.mean) / self.deviation;
        pictures.iter().map(scale).collect()
    }

    /// Shares of the known words in each text, row by row.
    fn shares(&self, texts: &[String]) -> Vec<f32> {
        let mut shares = vec![0.0; texts.len() * self.words.len()];
        for (text, row) in texts
            .iter()
            .zip(shares.chunks_exact_mut(self.words.len().max(1)))
        {
            let known: Vec<usize> = split(text)
                .filter_map(|w| self.words.get(&w).copied())
                .collect();
            for w in &known {
                row[*w] += 1.0 / known.len() as f32;
            }
        }
        shares
    }
}

/// Words in small letters.
fn split(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty())
        .map(str::to_lowercase)
}

/// Rows scaled to length 1.
fn unit(x: Tensor<2>) -> Tensor<2> {
    let length = (x.clone().square().sum_dim(1) + 1e-12).sqrt();
    x / length
}

/// [b, b]: for each item the even shares of the items of its class.
fn targets(rows: &[usize], classes: &[String], device: &Device) -> Tensor<2> {
    let b = rows.len();
    let mut shares = vec![0.0f32; b * b];
    for (row, to) in rows.iter().zip(shares.chunks_exact_mut(b.max(1))) {
        let same = |other: &&usize| classes[**other] == classes[*row];
        let count = rows.iter().filter(same).count() as f32;
        for (other, to) in rows.iter().zip(to) {
            *to = if same(&other) { 1.0 / count } else { 0.0 };
        }
    }
    Tensor::from_data(TensorData::new(shares, [b, b]), device)
}

/// Copies rows of values to the rows from `start`.
fn assign(all: &mut Array2<f32>, start: usize, values: &[f32]) {
    for (row, from) in all
        .rows_mut()
        .into_iter()
        .skip(start)
        .zip(values.chunks_exact(WIDTH))
    {
        row.into_iter().zip(from).for_each(|(to, v)| *to = *v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_numerics::sampling;
    use rand::RngExt;

    /// Pictures of three classes with two texts each.
    fn lessons(n: usize) -> Lessons {
        let mut rng = sampling::rng(2, "encoder");
        let names = ["cat", "dog", "owl"];
        let mut pictures = Array2::zeros((n, 6));
        for (i, mut row) in pictures.rows_mut().into_iter().enumerate() {
            row.iter_mut()
                .for_each(|v| *v = rng.random_range(0.0..60.0));
            row[i % 3] += 200.0;
        }
        let class = |i: usize| names[i % 3].to_owned();
        Lessons {
            pictures,
            classes: (0..n).map(class).collect(),
            words: (0..n)
                .map(|i| match i / 3 % 2 {
                    0 => format!("A photo of the {}.", names[i % 3]),
                    _ => names[i % 3].into(),
                })
                .collect(),
        }
    }

    #[test]
    fn pictures_come_near_to_their_texts() {
        let lessons = lessons(90);
        let context = Context::with_seed(3);
        let encoder = learn(&lessons, &context).unwrap();
        let texts = lessons.texts();
        assert_eq!(texts.len(), 6);
        let w = encoder.texts(&texts, &context).unwrap();
        let u = encoder.images(&lessons.pictures, &context).unwrap();
        let cosine = |i: usize, t: usize| {
            let (a, b) = (u.row(i), w.row(t));
            a.dot(&b) / (a.dot(&a) * b.dot(&b)).sqrt()
        };
        let right = (0..90)
            .filter(|i| {
                let best = (0..6)
                    .max_by(|a, b| cosine(*i, *a).total_cmp(&cosine(*i, *b)))
                    .unwrap();
                texts[best].0 == lessons.classes[*i]
            })
            .count();
        assert!(right >= 85, "{right}");
        // The same seed learns the same, and a chunk does not change what a row becomes.
        let again = learn(&lessons, &context).unwrap();
        assert_eq!(u, again.images(&lessons.pictures, &context).unwrap());
    }

    #[test]
    fn targets_are_even_shares_of_the_class() {
        let classes: Vec<String> = ["a", "b", "a"].map(String::from).to_vec();
        let device = device("cpu").unwrap();
        let t = values_of(targets(&[2, 0, 1], &classes, &device)).unwrap();
        assert_eq!(t, [0.5, 0.5, 0.0, 0.5, 0.5, 0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn words_are_split_and_small() {
        let words: Vec<String> = split("A photo, of 7 Cats!").collect();
        assert_eq!(words, ["a", "photo", "of", "7", "cats"]);
    }

    #[test]
    fn lessons_need_a_class_each_and_two_in_all() {
        let table = Table::memory("pictures", Vec::new());
        let words = vec![Some("a".to_owned()); 2];
        let vectors = Array2::zeros((2, 3));
        let told = |classes: &[Option<String>]| {
            let made = Lessons::new(&table, &[0, 1], &words, classes, &vectors);
            made.err().unwrap().to_string()
        };
        let text = told(&[Some("x".into()), None]);
        assert!(text.contains("row 2 has a text but no class"), "{text}");
        let text = told(&[Some("x".into()), Some("x".into())]);
        assert!(text.contains("single class"), "{text}");
    }
}
