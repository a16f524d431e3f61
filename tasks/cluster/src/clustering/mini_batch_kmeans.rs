//! Mini-batch k-means: centres that move with each chunk of rows, for data larger than memory.
//!
//! Baseline. Sculley, *Web-scale k-means clustering*, 2010, with starved centres drawn anew as scikit-learn does.
//!
//! Rows come in chunks \[b, d\]; C \[k, d\] centres, v \[k\] rows each has seen.
//! 1. C from the first chunk by k-means++.
//! 2. For each chunk: give its rows to the nearest centres; each row x moves its centre c by (x - c) / v_c.
//! 3. Go through the rows `epochs` times.
//! 4. Once more through the rows for their labels.
//!
//! Cost: O(n k d) for each epoch; memory O(b d + k d), and 4 n bytes for the labels. The rows are never all in memory.

use super::{Clusterer, Grouping, Model, Points};
use papertrial_core::task::{Context, Curve, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::kmeans::MiniBatch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of mini-batch k-means.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct MiniBatchKMeans {
    /// Number of clusters.
    #[schemars(range(min = 1))]
    pub k: usize,
    /// Times that all rows are gone through before they are labelled.
    #[schemars(range(min = 1))]
    pub epochs: usize,
}

impl Default for MiniBatchKMeans {
    fn default() -> Self {
        MiniBatchKMeans { k: 8, epochs: 3 }
    }
}

impl Method for MiniBatchKMeans {
    const FACTS: Facts = Facts {
        name: "mini-batch-k-means",
        about: "k-means whose centres move with each chunk of rows",
        paper: None,
        streams: true,
    };
}

impl Clusterer for MiniBatchKMeans {
    fn fit(&self, points: &Points, context: &Context) -> Result<Grouping> {
        points.check_k(self.k)?;
        let failed = |e: papertrial_numerics::kmeans::KMeansError| Error::BadInput(e.to_string());
        let mut model = MiniBatch::new(self.k, context.seed).map_err(failed)?;
        let mut curve = Vec::new();
        // Steps 1 to 3.
        for epoch in 0..self.epochs {
            let mut done = 0;
            for chunk in points.chunks()? {
                let chunk = chunk?;
                done += chunk.nrows();
                let inertia = model.partial_fit(chunk.view()).map_err(failed)?;
                curve.push((curve.len() as f64 + 1.0, inertia / chunk.nrows() as f64));
                context.step(&format!("epoch {}", epoch + 1), done, points.rows());
            }
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
                name: "inertia of a row".into(),
                x: "chunk".into(),
                y: "inertia".into(),
                points: curve,
            }],
            ..Grouping::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clustering::KMeans;
    use ndarray::{Array2, array};
    use papertrial_core::data::{Roles, Table};
    use papertrial_numerics::metrics::clustering::inertia;
    use papertrial_numerics::sampling::rng;
    use proptest::prelude::*;
    use rand::RngExt;

    /// Rows around four corners, in chunks of a table that does not fit into the allowed memory.
    #[test]
    fn chunks_reach_nearly_the_inertia_of_all_rows_at_once() {
        let mut draw = rng(3, "corners");
        let n = 20_000;
        let x = Array2::from_shape_fn((n, 2), |(i, j)| {
            let corner = if (i / 7 >> j) & 1 == 0 { -5.0 } else { 5.0 };
            corner + draw.random_range(-1.0..1.0)
        });
        let columns = (0..2).map(|j| {
            let column: arrow::array::ArrayRef =
                std::sync::Arc::new(arrow::array::Float64Array::from(x.column(j).to_vec()));
            (format!("x{j}"), column)
        });
        let batch = arrow::record_batch::RecordBatch::try_from_iter(columns).unwrap();
        let batches = (0..n / 1000).map(|i| batch.slice(i * 1000, 1000)).collect();
        let tight = Context {
            memory: Some(100_000),
            ..Context::with_seed(1)
        };
        let points = Points::of(
            &Table::memory("t", batches),
            &Roles::default(),
            false,
            &tight,
        )
        .unwrap();
        let method = MiniBatchKMeans { k: 4, epochs: 2 };
        let found = method.fit(&points, &tight).unwrap();
        assert!(points.matrix(&tight).is_err());
        let whole = KMeans {
            k: 4,
            ..KMeans::default()
        }
        .fit(
            &Points::from_matrix(x.clone()).unwrap(),
            &Context::with_seed(1),
        )
        .unwrap();
        let ratio =
            inertia(x.view(), &found.labels).unwrap() / inertia(x.view(), &whole.labels).unwrap();
        assert!(ratio < 1.05, "{ratio}");
    }

    #[test]
    fn edges() {
        let fit = |x: Array2<f64>, k| {
            MiniBatchKMeans { k, epochs: 1 }
                .fit(&Points::from_matrix(x).unwrap(), &Context::with_seed(0))
        };
        assert_eq!(fit(array![[1.0]], 1).unwrap().labels, [0]);
        assert_eq!(fit(Array2::ones((5, 2)), 3).unwrap().labels.len(), 5);
        assert!(fit(array![[1.0]], 2).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn labels_are_those_of_the_model(values in prop::collection::vec(-5.0..5.0f64, 40), k in 1usize..5, seed in 0u64..50) {
            let x = Array2::from_shape_vec((20, 2), values).unwrap();
            let points = Points::from_matrix(x.clone()).unwrap();
            let found = MiniBatchKMeans { k, epochs: 2 }.fit(&points, &Context::with_seed(seed)).unwrap();
            let (labels, _) = found.model.unwrap().label(&x).unwrap();
            prop_assert_eq!(labels, found.labels);
        }
    }
}
