//! k-means: Lloyd's algorithm from k-means++ starts.
//!
//! Baseline. Lloyd, *Least squares quantization in PCM*, 1982; start: Arthur and Vassilvitskii, *k-means++: the
//! advantages of careful seeding*, 2007, in the greedy form that tries several candidates at each step.
//!
//! X \[n, d\] rows; C \[k, d\] centres.
//! 1. Draw C: k-means++ (each new centre among the rows, with probability proportional to the squared distance
//!    to the nearest centre so far), or k different rows at random.
//! 2. Give each row to the nearest centre, then move each centre to the mean of its rows; repeat until no row
//!    changes, or the centres move less than the tolerance, or the rounds are used up.
//! 3. Of several starts keep the one with the lowest inertia (sum of squared distances).
//!
//! Cost: O(n k d) a round at most, memory O(n + k d) beside the rows.

use super::{Clusterer, Grouping, Model, Points};
use papertrial_core::task::{Context, Curve, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::kmeans;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of k-means.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct KMeans {
    /// Number of clusters.
    #[schemars(range(min = 1))]
    pub k: usize,
    /// How the first centres are drawn.
    pub init: Init,
    /// Starts, of which the one with the lowest inertia is kept.
    #[schemars(range(min = 1))]
    pub starts: usize,
    /// Rounds of a start at most.
    #[schemars(range(min = 1))]
    pub max_rounds: usize,
    /// A start ends when the centres move less than this, relative to the mean variance of the columns.
    #[schemars(range(min = 0.0))]
    pub tolerance: f64,
}

/// How the first centres are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub enum Init {
    /// Far from each other, at random.
    #[serde(rename = "k-means++")]
    PlusPlus,
    /// Different rows at random.
    #[serde(rename = "random")]
    Random,
}

impl Default for KMeans {
    fn default() -> Self {
        KMeans {
            k: 8,
            init: Init::PlusPlus,
            starts: 10,
            max_rounds: 300,
            tolerance: 1e-4,
        }
    }
}

impl Method for KMeans {
    const FACTS: Facts = Facts {
        name: "k-means",
        about: "Lloyd's algorithm from several k-means++ starts",
        paper: None,
        streams: false,
    };
}

impl Clusterer for KMeans {
    fn fit(&self, points: &Points, context: &Context) -> Result<Grouping> {
        points.check_k(self.k)?;
        let x = points.matrix(context)?;
        // Steps 1 to 3.
        let found = kmeans::kmeans(
            x.view(),
            None,
            &kmeans::KMeansOptions {
                clusters: self.k,
                start: match self.init {
                    Init::PlusPlus => kmeans::Start::PlusPlus,
                    Init::Random => kmeans::Start::RandomRows,
                },
                starts: self.starts,
                max_rounds: self.max_rounds,
                tolerance: self.tolerance,
                seed: context.seed,
            },
        )
        .map_err(|e| Error::BadInput(e.to_string()))?;
        let mut notes = Vec::new();
        if found.rounds == self.max_rounds {
            notes.push(format!(
                "the best start used all {} rounds and may not have settled; raise max-rounds",
                self.max_rounds
            ));
        }
        Ok(Grouping {
            labels: found.labels.iter().map(|l| *l as i32).collect(),
            model: Some(Model::centres(&found.centres)),
            curves: vec![Curve {
                name: "inertia".into(),
                x: "round".into(),
                y: "inertia".into(),
                points: (1..).map(f64::from).zip(found.curve).collect(),
            }],
            notes,
            ..Grouping::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};
    use proptest::prelude::*;

    fn fit(options: &KMeans, x: Array2<f64>, seed: u64) -> Result<Grouping> {
        options.fit(&Points::from_matrix(x)?, &Context::with_seed(seed))
    }

    #[test]
    fn four_points_make_two_pairs_with_the_inertia_of_hand() {
        let x = array![[0., 0.], [0., 2.], [10., 0.], [10., 2.]];
        let found = fit(
            &KMeans {
                k: 2,
                ..KMeans::default()
            },
            x,
            0,
        )
        .unwrap();
        assert_eq!(found.labels[0], found.labels[1]);
        assert_eq!(found.labels[2], found.labels[3]);
        assert_ne!(found.labels[0], found.labels[2]);
        // Each point is 1 from its mean: 4 in all.
        let last = found.curves[0].points.last().unwrap().1;
        assert!((last - 4.0).abs() < 1e-9, "{last}");
    }

    #[test]
    fn bad_numbers_of_clusters_are_refused() {
        let x = array![[0.], [1.]];
        for k in [0, 3] {
            let e = fit(
                &KMeans {
                    k,
                    ..KMeans::default()
                },
                x.clone(),
                0,
            )
            .unwrap_err();
            assert!(e.to_string().contains("k must be from 1 to 2"), "{e}");
        }
    }

    #[test]
    fn equal_rows_and_single_rows_are_grouped_without_a_fuss() {
        let same = Array2::ones((5, 2));
        let found = fit(
            &KMeans {
                k: 3,
                ..KMeans::default()
            },
            same,
            0,
        )
        .unwrap();
        assert_eq!(found.labels.len(), 5);
        let one = fit(
            &KMeans {
                k: 1,
                ..KMeans::default()
            },
            array![[3.0]],
            0,
        )
        .unwrap();
        assert_eq!(one.labels, [0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_row_is_with_its_nearest_mean_and_the_seed_fixes_the_result(
            values in prop::collection::vec(-10.0..10.0f64, 40),
            k in 1usize..6,
            seed in 0u64..100,
        ) {
            let x = Array2::from_shape_vec((20, 2), values).unwrap();
            let options = KMeans { k, starts: 2, tolerance: 0.0, ..KMeans::default() };
            let found = fit(&options, x.clone(), seed).unwrap();
            prop_assert_eq!(&found.labels, &fit(&options, x.clone(), seed).unwrap().labels);
            let Some(Model::Centres(centres)) = found.model else { panic!("no centres") };
            for (row, label) in x.outer_iter().zip(&found.labels) {
                let distance = |c: &Vec<f64>| row.iter().zip(c).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
                let own = distance(&centres[*label as usize]);
                prop_assert!(centres.iter().all(|c| own <= distance(c) + 1e-9));
            }
        }
    }
}
