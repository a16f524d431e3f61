//! The rivals: detectors that look at one flow, and two that look at the whole window in other ways.
//!
//! All see the same prepared columns as the paper's method, and all give both classes the same weight: the networks by
//! batches with as many attacks as benign flows, the trees of a forest by such draws, the others by weights of rows. The networks have the paper's training
//! (batches, steps, learning rate, early stop) as their defaults, so that one option sets it for all.

mod always_benign;
mod boosting;
mod forest;
mod logistic;
mod lstm;
mod mlp;
mod neural;
mod tree;

pub use always_benign::AlwaysBenign;
pub use boosting::GradientBoosting;
pub use forest::{ExtraTrees, RandomForest};
pub use logistic::LogisticRegression;
pub use lstm::Lstm;
pub use mlp::{Mlp, WindowMlp};

use super::detector::Fitted;
use super::prepare::{Flows, Layout};
use papertrial_core::data::write_whole;
use papertrial_core::task::{Context, Method};
use papertrial_core::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// The file of a detector that is no network, in a model's folder.
const FILE: &str = "detector.json";

/// The detector of method `method` in a model's folder; `None` if no rival has that name.
///
/// # Errors
/// Its file is missing, broken, or of another program.
pub(super) fn load(
    method: &str,
    folder: &Path,
    context: &Context,
) -> Result<Option<Box<dyn Fitted>>> {
    let is = |name: &str| method == name;
    Ok(Some(if is(AlwaysBenign::FACTS.name) {
        Box::new(read::<always_benign::Model>(folder)?)
    } else if is(LogisticRegression::FACTS.name) {
        Box::new(read::<logistic::Model>(folder)?)
    } else if is(RandomForest::FACTS.name) || is(ExtraTrees::FACTS.name) {
        Box::new(read::<forest::Model>(folder)?)
    } else if is(GradientBoosting::FACTS.name) {
        Box::new(boosting::load(folder)?)
    } else if is(Mlp::FACTS.name) || is(WindowMlp::FACTS.name) {
        Box::new(mlp::load(folder, context)?)
    } else if is(Lstm::FACTS.name) {
        Box::new(lstm::load(folder, context)?)
    } else {
        return Ok(None);
    }))
}

fn write(model: &impl Serialize, folder: &Path) -> Result<bool> {
    let text = serde_json::to_vec(model).map_err(|e| Error::Failed(e.to_string()))?;
    write_whole(&folder.join(FILE), &text)?;
    Ok(true)
}

fn read<T: DeserializeOwned>(folder: &Path) -> Result<T> {
    let path = folder.join(FILE);
    let text = std::fs::read(&path).map_err(|e| Error::file(&path, e))?;
    serde_json::from_slice(&text)
        .map_err(|e| Error::file(&path, format!("is not such a detector: {e}")))
}

/// The attacks and the benign flows among `train`.
///
/// # Errors
/// No labels, or one class alone.
fn classes(flows: &Flows, train: &[usize]) -> Result<(Vec<usize>, Vec<usize>)> {
    let labels = flows.labels()?;
    let (attacks, benign): (Vec<usize>, Vec<usize>) =
        train.iter().copied().partition(|row| labels[*row]);
    if attacks.is_empty() || benign.is_empty() {
        return Err(Error::BadInput(format!(
            "the training part has {} attacks and {} benign flows; both are needed",
            attacks.len(),
            benign.len()
        )));
    }
    Ok((attacks, benign))
}

/// The weight of a row of each class, benign and attack, with which both classes weigh the same and all rows together
/// as much as their number.
fn weights(attacks: usize, benign: usize) -> [f64; 2] {
    let half = (attacks + benign) as f64 / 2.0;
    [half / benign as f64, half / attacks as f64]
}

/// Refuses flows with other columns, or a row without a whole window.
fn check(flows: &Flows, layout: &Layout, rows: &[usize], window: usize) -> Result<()> {
    if *flows.layout != *layout {
        return Err(Error::Failed(
            "the flows were prepared for another detector".into(),
        ));
    }
    match rows
        .iter()
        .find(|row| **row + 1 < window || **row >= flows.rows)
    {
        Some(row) => Err(Error::Failed(format!(
            "flow {row} has no window of {window} flows"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::detector::Detector;
    use super::*;
    use papertrial_numerics::sampling::rng;
    use rand::RngExt;
    use std::sync::Arc;

    /// Flows of two numbers and a column of four codes: an attack where the code is 2, or, for `by_window`, where the
    /// code of the flow before is.
    pub(in super::super) fn flows(rows: usize, by_window: bool, seed: u64) -> Flows {
        let mut draws = rng(seed, "test flows");
        let codes: Vec<u32> = (0..rows).map(|_| draws.random_range(0..4)).collect();
        let numeric = (0..2 * rows).map(|_| draws.random::<f32>()).collect();
        let attack = (0..rows)
            .map(|i| {
                if by_window {
                    i > 0 && codes[i - 1] == 2
                } else {
                    codes[i] == 2
                }
            })
            .collect();
        Flows {
            layout: Arc::new(Layout {
                numeric: vec!["a".into(), "b".into()],
                categorical: vec!["c".into()],
                codes: vec![4],
            }),
            numeric,
            codes,
            attack: Some(attack),
            rows,
        }
    }

    /// Share of `rows` that `fitted` tells right at one half.
    pub(in super::super) fn right(fitted: &dyn Fitted, flows: &Flows, rows: &[usize]) -> f64 {
        let scores = fitted.score(flows, rows, &Context::with_seed(0)).unwrap();
        let labels = flows.labels().unwrap();
        let hits = rows
            .iter()
            .zip(&scores)
            .filter(|(r, s)| labels[**r] == (**s > 0.5));
        hits.count() as f64 / rows.len() as f64
    }

    fn rivals() -> Vec<(&'static str, Box<dyn Detector>, bool)> {
        let (epochs, steps, learning_rate) = (4, 40, 1e-2);
        vec![
            (
                LogisticRegression::FACTS.name,
                Box::new(LogisticRegression::default()),
                false,
            ),
            (
                RandomForest::FACTS.name,
                Box::new(RandomForest {
                    trees: 10,
                    ..Default::default()
                }),
                false,
            ),
            (
                ExtraTrees::FACTS.name,
                Box::new(ExtraTrees {
                    trees: 10,
                    ..Default::default()
                }),
                false,
            ),
            (
                GradientBoosting::FACTS.name,
                Box::new(GradientBoosting {
                    trees: 10,
                    learning_rate: 0.3,
                    ..Default::default()
                }),
                false,
            ),
            (
                Mlp::FACTS.name,
                Box::new(Mlp {
                    epochs,
                    steps,
                    learning_rate,
                    batch: 32,
                    ..Default::default()
                }),
                false,
            ),
            (
                WindowMlp::FACTS.name,
                Box::new(WindowMlp {
                    epochs,
                    steps,
                    learning_rate,
                    batch: 32,
                    ..Default::default()
                }),
                true,
            ),
            (
                Lstm::FACTS.name,
                Box::new(Lstm {
                    epochs,
                    steps,
                    learning_rate,
                    batch: 32,
                    hidden: 16,
                    ..Default::default()
                }),
                true,
            ),
        ]
    }

    #[test]
    fn each_finds_what_it_can_see_and_is_the_same_after_a_file() {
        let context = Context::with_seed(3);
        let train: Vec<usize> = (3..900).collect();
        let held: Vec<usize> = (900..1200).collect();
        for (name, rival, sees_window) in rivals() {
            for by_window in [false, true] {
                let flows = flows(1200, by_window, 1);
                let fitted = rival.fit(&flows, &train, 4, &context).unwrap();
                let share = right(&*fitted, &flows, &held);
                if sees_window || !by_window {
                    assert!(share > 0.97, "{name} {by_window}: {share}");
                } else {
                    // A quarter are attacks, and nothing tells which.
                    assert!(share < 0.8, "{name} {by_window}: {share}");
                }
                assert_eq!(fitted.window(), if sees_window { 4 } else { 1 }, "{name}");
                assert!(fitted.parameters() > 0, "{name}");
                let folder = tempfile::tempdir().unwrap();
                assert!(fitted.save(folder.path()).unwrap(), "{name}");
                let again = load(name, folder.path(), &context).unwrap().unwrap();
                let scores = |f: &dyn Fitted| f.score(&flows, &held, &context).unwrap();
                assert_eq!(scores(&*fitted), scores(&*again), "{name}");
                assert_eq!(fitted.parameters(), again.parameters(), "{name}");
                // One row alone scores as among others, but for the rounding of a product of matrices.
                let one = again.score(&flows, &held[7..8], &context).unwrap();
                assert!((one[0] - scores(&*fitted)[7]).abs() < 1e-5, "{name}");
                assert!(again.score(&flows, &[1200], &context).is_err(), "{name}");
            }
        }
    }

    #[test]
    fn threads_and_unseen_labels_change_nothing() {
        let train: Vec<usize> = (3..400).filter(|r| r % 3 > 0).collect();
        let held: Vec<usize> = (400..500).collect();
        let mut flows = flows(500, false, 2);
        for (name, rival, _) in rivals() {
            let mut run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| {
                    let context = Context::with_seed(5);
                    let fitted = rival.fit(&flows, &train, 4, &context).unwrap();
                    let scores = fitted.score(&flows, &held, &context).unwrap();
                    // What is not trained on may be called anything.
                    if let Some(labels) = &mut flows.attack {
                        let apart = (0..500).filter(|r| train.binary_search(r).is_err());
                        apart.for_each(|r| labels[r] = !labels[r]);
                    }
                    scores
                })
            };
            let first = run(1);
            assert_eq!(first, run(3), "{name}");
        }
    }

    #[test]
    fn one_class_is_refused() {
        let mut flows = flows(100, false, 1);
        flows.attack = Some(vec![false; 100]);
        let train: Vec<usize> = (3..100).collect();
        for (name, rival, _) in rivals() {
            let text = rival
                .fit(&flows, &train, 4, &Context::with_seed(0))
                .err()
                .unwrap()
                .to_string();
            assert!(text.contains('0') && text.contains("97"), "{name}: {text}");
        }
        flows.attack = None;
        for (name, rival, _) in rivals() {
            let e = rival
                .fit(&flows, &train, 4, &Context::with_seed(0))
                .err()
                .unwrap();
            assert!(e.to_string().contains("--label"), "{name}");
        }
        assert!(
            load("nobody", Path::new("."), &Context::with_seed(0))
                .unwrap()
                .is_none()
        );
        let folder = tempfile::tempdir().unwrap();
        for (name, _, _) in rivals() {
            assert!(
                load(name, folder.path(), &Context::with_seed(0)).is_err(),
                "{name}"
            );
        }
    }
}
