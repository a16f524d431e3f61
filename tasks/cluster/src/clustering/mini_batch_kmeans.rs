//! Mini-batch k-means: centres that move with each chunk of rows, for data larger than memory.
//!
//! Baseline. Sculley, *Web-scale k-means clustering*, 2010, with starved centres drawn anew as scikit-learn does.
//!
//! Rows come in batches \[b, d\]; C \[k, d\] centres, v \[k\] rows each has seen.
//! 1. Draw a sample of 3 b rows (3 k if that is more) from all rows, so that a file sorted by group does no harm. C from
//!    the sample by k-means++, the best of several starts; the sample is the first batch.
//! 2. For each batch: give its rows to the nearest centres; each row x moves its centre c by (x - c) / v_c. Centres that
//!    get hardly any rows are drawn anew.
//! 3. Go through the rows `epochs` times, in their order.
//! 4. Once more through the rows for their labels.
//!
//! Cost: O(n k d) for each epoch; `epochs` + 2 readings of the rows; memory O((b + k) d), and 4 n bytes for the labels.
//! The rows are never all in memory, and the result does not depend on the chunks in which they are read.

use super::{Clusterer, Grouping, Model, Points};
use ndarray::{Array2, ArrayView2};
use papertrial_core::task::{Context, Curve, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::kmeans::{KMeansError, MiniBatch};
use papertrial_numerics::sampling::rng;
use rand::{Rng, RngExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of mini-batch k-means.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct MiniBatchKMeans {
    /// Number of clusters.
    #[schemars(range(min = 1))]
    pub k: usize,
    /// Draws of the first centres from the sample, of which the one with the lowest inertia there is kept.
    #[schemars(range(min = 1))]
    pub starts: usize,
    /// Rows of a batch.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Times that all rows are gone through before they are labelled.
    #[schemars(range(min = 1))]
    pub epochs: usize,
}

impl Default for MiniBatchKMeans {
    fn default() -> Self {
        MiniBatchKMeans {
            k: 8,
            starts: 10,
            batch: 1024,
            epochs: 3,
        }
    }
}

impl Method for MiniBatchKMeans {
    const FACTS: Facts = Facts {
        name: "mini-batch-k-means",
        about: "k-means whose centres move with each batch of rows",
        paper: None,
        streams: true,
    };
}

impl Clusterer for MiniBatchKMeans {
    fn fit(&self, points: &Points, context: &Context) -> Result<Grouping> {
        points.check_k(self.k)?;
        if self.batch == 0 {
            return Err(Error::option("batch", "must be at least 1"));
        }
        // Step 1.
        let mut draw = rng(context.seed, "mini-batch k-means");
        let size = self.batch.max(self.k).saturating_mul(3).min(points.rows());
        let first = sample(points, size, &mut draw, context)?;
        let mut best: Option<(f64, MiniBatch<f64>)> = None;
        for _ in 0..self.starts {
            let mut model = MiniBatch::new(self.k, draw.random()).map_err(failed)?;
            model.partial_fit(first.view()).map_err(failed)?;
            // Once the centres are means, a group without a centre weighs more than where in a group a centre began.
            let near = model.assign(first.view()).map_err(failed)?;
            let inertia = near.squared.iter().sum();
            if best.as_ref().is_none_or(|(least, _)| inertia < *least) {
                best = Some((inertia, model));
            }
        }
        let Some((_, mut model)) = best else {
            return Err(Error::option("starts", "must be at least 1"));
        };
        // Steps 2 and 3.
        let mut curve = Vec::new();
        for epoch in 1..=self.epochs {
            let (mut done, mut sum) = (0, 0.0);
            batches(points, self.batch, |batch| {
                sum += model.partial_fit(batch).map_err(failed)?;
                done += batch.nrows();
                context.step(&format!("epoch {epoch}"), done, points.rows());
                Ok(())
            })?;
            curve.push((epoch as f64, sum));
        }
        // Step 4.
        let mut labels = Vec::with_capacity(points.rows());
        for chunk in points.chunks()? {
            let near = model.assign(chunk?.view()).map_err(failed)?;
            labels.extend(near.indices.iter().map(|i| *i as i32));
            context.step("labelling", labels.len(), points.rows());
        }
        Ok(Grouping {
            labels,
            model: model.centres().map(|c| Model::centres(&c.to_owned())),
            curves: vec![Curve {
                name: "inertia as the centres move".into(),
                x: "epoch".into(),
                y: "inertia".into(),
                points: curve,
            }],
            ..Grouping::default()
        })
    }
}

fn failed(e: KMeansError) -> Error {
    Error::BadInput(e.to_string())
}

/// `size` rows drawn from all rows, each set of rows as likely as any other (Vitter's reservoir).
fn sample(
    points: &Points,
    size: usize,
    draw: &mut impl Rng,
    context: &Context,
) -> Result<Array2<f64>> {
    let mut chosen = Array2::zeros((size, points.width()));
    let mut seen = 0;
    for chunk in points.chunks()? {
        for row in chunk?.outer_iter() {
            let place = if seen < size {
                seen
            } else {
                draw.random_range(0..=seen)
            };
            if place < size {
                chosen.row_mut(place).assign(&row);
            }
            seen += 1;
        }
        context.step("sampling", seen, points.rows());
    }
    Ok(chosen)
}

/// Calls `visit` with all rows in batches of `size`; the last may be smaller.
fn batches(
    points: &Points,
    size: usize,
    mut visit: impl FnMut(ArrayView2<f64>) -> Result<()>,
) -> Result<()> {
    let d = points.width();
    let mut pass = |rows: &[f64]| {
        let batch = ArrayView2::from_shape((rows.len() / d, d), rows);
        visit(batch.map_err(|e| Error::Failed(e.to_string()))?)
    };
    let mut waiting: Vec<f64> = Vec::new();
    for chunk in points.chunks()? {
        waiting.extend(chunk?.iter());
        let whole = waiting.chunks_exact(size * d);
        let rest = whole.remainder().to_vec();
        for batch in whole {
            pass(batch)?;
        }
        waiting = rest;
    }
    if waiting.is_empty() {
        Ok(())
    } else {
        pass(&waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clustering::KMeans;
    use ndarray::array;
    use papertrial_core::data::{Roles, Table};
    use papertrial_numerics::metrics::clustering::inertia;
    use proptest::prelude::*;

    fn inertia_of(x: &Array2<f64>, found: &Grouping) -> f64 {
        inertia(x.view(), &found.labels).unwrap()
    }

    /// A table in small batches, far larger than the memory that is allowed.
    fn streamed(x: &Array2<f64>) -> (Points, Context<'static>) {
        let columns = (0..x.ncols()).map(|j| {
            let column: arrow::array::ArrayRef =
                std::sync::Arc::new(arrow::array::Float64Array::from(x.column(j).to_vec()));
            (format!("x{j}"), column)
        });
        let batch = arrow::record_batch::RecordBatch::try_from_iter(columns).unwrap();
        let batches = (0..x.nrows())
            .step_by(300)
            .map(|i| batch.slice(i, 300.min(x.nrows() - i)))
            .collect();
        let tight = Context {
            memory: Some(10_000),
            ..Context::with_seed(1)
        };
        let table = Table::memory("t", batches);
        let points = Points::of(&table, &Roles::default(), false, &tight).unwrap();
        (points, tight)
    }

    #[test]
    fn streams_reach_nearly_the_inertia_of_all_rows_at_once_even_if_sorted() {
        let mut draw = rng(3, "grid");
        let n = 24_000;
        for sorted in [false, true] {
            // Twelve squares on a grid of 4 by 3.
            let x = Array2::from_shape_fn((n, 2), |(i, j)| {
                let group = if sorted { i * 12 / n } else { i % 12 };
                let place = if j == 0 { group % 4 } else { group / 4 };
                10.0 * place as f64 + draw.random_range(-3.0..3.0)
            });
            let (points, tight) = streamed(&x);
            let method = MiniBatchKMeans {
                k: 12,
                ..MiniBatchKMeans::default()
            };
            let found = method.fit(&points, &tight).unwrap();
            assert!(points.matrix(&tight).is_err());
            let inside = Points::from_matrix(x.clone()).unwrap();
            let whole = KMeans {
                k: 12,
                ..KMeans::default()
            };
            let whole = whole.fit(&inside, &Context::with_seed(1)).unwrap();
            let ratio = inertia_of(&x, &found) / inertia_of(&x, &whole);
            assert!(ratio < 1.05, "sorted {sorted}: {ratio}");
            // The same rows from memory, in other chunks.
            let again = method.fit(&inside, &Context::with_seed(1)).unwrap();
            assert_eq!(again.labels, found.labels);
            assert_eq!(again.model, found.model);
        }
    }

    #[test]
    fn more_clusters_than_rows_of_a_batch_or_a_chunk() {
        let x = Array2::from_shape_fn((700, 1), |(i, _)| i as f64);
        let (points, tight) = streamed(&x);
        let method = MiniBatchKMeans {
            k: 500,
            starts: 1,
            batch: 10,
            epochs: 1,
        };
        let found = method.fit(&points, &tight).unwrap();
        assert!(found.groups() > 400, "{}", found.groups());
    }

    #[test]
    fn the_sample_is_uniform_and_the_batches_are_all_rows_in_order() {
        let x = Array2::from_shape_fn((1000, 1), |(i, _)| i as f64);
        let (points, _) = streamed(&x);
        let mut times = [0; 4];
        for seed in 0..100 {
            let drawn = sample(
                &points,
                40,
                &mut rng(seed, "sample"),
                &Context::with_seed(seed),
            )
            .unwrap();
            let mut rows: Vec<usize> = drawn.iter().map(|v| *v as usize).collect();
            rows.iter().for_each(|r| times[r / 250] += 1);
            rows.sort_unstable();
            rows.dedup();
            assert_eq!(rows.len(), 40);
        }
        // 4000 draws: 1000 a quarter, with a standard deviation below 28.
        assert!(times.iter().all(|t| (900..1100).contains(t)), "{times:?}");
        let mut rows = Vec::new();
        let mut sizes = Vec::new();
        batches(&points, 470, |batch| {
            sizes.push(batch.nrows());
            rows.extend(batch.iter().copied());
            Ok(())
        })
        .unwrap();
        assert_eq!(sizes, [470, 470, 60]);
        assert_eq!(rows, x.iter().copied().collect::<Vec<f64>>());
    }

    #[test]
    fn edges() {
        let fit = |x: Array2<f64>, k| {
            let method = MiniBatchKMeans {
                k,
                ..MiniBatchKMeans::default()
            };
            method.fit(&Points::from_matrix(x).unwrap(), &Context::with_seed(0))
        };
        assert_eq!(fit(array![[1.0]], 1).unwrap().labels, [0]);
        assert_eq!(fit(Array2::ones((5, 2)), 3).unwrap().groups(), 1);
        assert_eq!(fit(array![[1.0], [2.0], [5.0]], 3).unwrap().groups(), 3);
        assert!(fit(array![[1.0]], 2).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn labels_are_those_of_the_model(values in prop::collection::vec(-5.0..5.0f64, 40), k in 1usize..5, seed in 0u64..50) {
            let x = Array2::from_shape_vec((20, 2), values).unwrap();
            let points = Points::from_matrix(x.clone()).unwrap();
            let found = MiniBatchKMeans { k, starts: 2, batch: 7, epochs: 2 }.fit(&points, &Context::with_seed(seed)).unwrap();
            let (labels, _) = found.model.unwrap().label(&x).unwrap();
            prop_assert_eq!(labels, found.labels);
        }
    }
}
