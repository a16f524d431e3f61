//! k-means as a semidefinite program: the relaxation whose optimum needs no start.
//!
//! Baseline. Peng and Wei, *Approximating k-means-type clustering via semidefinite programming*, 2007.
//!
//! X \[n, d\] rows.
//! 1. Centre X. C = X X' \[n, n\].
//! 2. Z = argmax <C, Z> subject to Z positive semidefinite, Z >= 0 entry by entry, tr Z = k, Z 1 = 1. At a partition Z
//!    is the sum over the groups of 1 1' / n_g, and <C, Z> is the total sum of squares less the inertia.
//! 3. Round: k-means on the rows of the k leading eigenvectors of Z.
//! 4. With `subsample`, steps 1 to 3 see a sample of the rows, and every row goes to the nearest mean of its clusters.
//!
//! Cost: see [`crate::sdp`]: O(n^2 k) a round for most rounds, 40 n^2 bytes of memory.

use super::{Clusterer, Grouping, Model, Points};
use crate::sdp::{self, Admm, Objective, Solution};
use ndarray::{Array1, Array2, Axis};
use papertrial_core::task::{Context, Curve, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::nearest;
use papertrial_numerics::kmeans::{KMeansOptions, kmeans};
use papertrial_numerics::sampling;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the k-means SDP.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct SdpKMeans {
    /// Number of clusters.
    #[schemars(range(min = 1))]
    pub k: usize,
    /// The solver ends when its residuals are below this.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub tolerance: f64,
    /// Rounds of the solver at most.
    #[schemars(range(min = 1))]
    pub max_rounds: usize,
    /// Starts of the k-means that rounds the solution.
    #[schemars(range(min = 1))]
    pub starts: usize,
    /// Rows that the program sees, drawn at random; 0 for all.
    pub subsample: usize,
    /// Rows of a program at most.
    #[schemars(range(min = 1))]
    pub max_rows: usize,
}

impl Default for SdpKMeans {
    fn default() -> Self {
        SdpKMeans {
            k: 8,
            tolerance: 1e-4,
            max_rounds: 600,
            starts: 10,
            subsample: 0,
            max_rows: 1500,
        }
    }
}

impl Method for SdpKMeans {
    const FACTS: Facts = Facts {
        name: "sdp-k-means",
        about: "k-means as a semidefinite program, whose optimum needs no start",
        paper: None,
        streams: false,
    };
}

impl Clusterer for SdpKMeans {
    fn fit(&self, points: &Points, context: &Context) -> Result<Grouping> {
        points.check_k(self.k)?;
        let x = points.matrix(context)?;
        // Step 4 begins with the sample.
        let rows = sample(x.nrows(), self.subsample, self.k, self.max_rows, 1, context)?;
        let inside = match &rows {
            Some(rows) => x.select(Axis(0), rows),
            None => x.clone(),
        };
        let settings = sdp::Settings {
            tolerance: self.tolerance,
            max_rounds: self.max_rounds,
        };
        let solution = solve(&inside, self.k, &settings, context)?;
        let labels = round(&solution, self.k, self.starts, context.seed)?;
        let means = means(&inside, &labels, self.k);
        let labels = if rows.is_some() {
            let near = nearest(x.view(), means.view()).map_err(|e| Error::Failed(e.to_string()))?;
            near.indices
        } else {
            labels
        };
        Ok(Grouping {
            labels: labels.iter().map(|l| *l as i32).collect(),
            model: Some(Model::centres(&means)),
            curves: vec![Curve {
                name: "objective of the program".into(),
                x: "rounds of the solver".into(),
                y: "<C, Z>".into(),
                points: vec![(solution.rounds as f64, solution.objective)],
            }],
            notes: told(&solution).into_iter().collect(),
            ..Grouping::default()
        })
    }
}

/// Steps 1 and 2 on rows \[n, d\].
///
/// # Errors
/// The memory that the solver needs is not there.
pub(super) fn solve(
    x: &Array2<f64>,
    k: usize,
    settings: &sdp::Settings,
    context: &Context,
) -> Result<Solution> {
    let n = x.nrows();
    context.require(
        &format!("the semidefinite program of {n} rows"),
        sdp::dense_bytes(1, n),
    )?;
    let objective = Objective {
        factor: centred(x),
        penalty: Array1::zeros(n),
    };
    Admm::new(vec![k as f64], n).solve(&[objective], settings, context)
}

/// Rows less their mean.
pub(super) fn centred(x: &Array2<f64>) -> Array2<f64> {
    match x.mean_axis(Axis(0)) {
        Some(mean) => x - &mean,
        None => x.clone(),
    }
}

/// Step 3: labels \[n\].
///
/// # Errors
/// The eigenvectors cannot be computed.
pub(super) fn round(solution: &Solution, k: usize, starts: usize, seed: u64) -> Result<Vec<u32>> {
    let vectors = solution.leading_eigenvectors(k)?;
    let options = KMeansOptions {
        starts,
        seed,
        ..KMeansOptions::new(k)
    };
    kmeans(vectors.view(), None, &options)
        .map(|found| found.labels)
        .map_err(|e| Error::Failed(e.to_string()))
}

/// Mean of each group \[k, d\]; that of all rows for an empty one.
fn means(x: &Array2<f64>, labels: &[u32], k: usize) -> Array2<f64> {
    let whole = x.mean_axis(Axis(0)).unwrap_or_default();
    let mut means = Array2::zeros((k, x.ncols()));
    for (group, mut mean) in means.outer_iter_mut().enumerate() {
        let rows: Vec<usize> = (0..labels.len())
            .filter(|i| labels[*i] as usize == group)
            .collect();
        let own = x.select(Axis(0), &rows).mean_axis(Axis(0));
        mean.assign(own.as_ref().unwrap_or(&whole));
    }
    means
}

/// What is remarkable about a solution.
pub(super) fn told(solution: &Solution) -> Option<String> {
    (!solution.converged).then(|| {
        format!(
            "the solver used all {} rounds; its residuals are {:.1e} (primal) and {:.1e} (dual)",
            solution.rounds, solution.primal, solution.dual
        )
    })
}

/// The rows that a program of `blocks` blocks sees; `None` for all.
///
/// # Errors
/// [`Error::Option`] if there are more rows than a program may have, with the memory it would take, or if the sample is
/// smaller than k.
pub(super) fn sample(
    n: usize,
    subsample: usize,
    k: usize,
    max_rows: usize,
    blocks: usize,
    context: &Context,
) -> Result<Option<Vec<usize>>> {
    let asked = if subsample == 0 { n } else { subsample.min(n) };
    if asked > max_rows {
        return Err(Error::option(
            if subsample == 0 {
                "subsample"
            } else {
                "max-rows"
            },
            format!(
                "a program of {asked} rows takes about {} of memory and long; at most {max_rows} rows are solved (max-rows), the rest can follow a sample: --set subsample={}",
                papertrial_core::error::bytes(sdp::dense_bytes(blocks, asked)),
                max_rows.min(1000)
            ),
        ));
    }
    if asked < k {
        return Err(Error::option(
            "subsample",
            format!("{asked} rows are fewer than the {k} clusters"),
        ));
    }
    if asked == n {
        return Ok(None);
    }
    let mut rng = sampling::rng(context.seed, "rows of the program");
    sampling::sample_sorted(&mut rng, n, asked)
        .map(Some)
        .map_err(|e| Error::Failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use papertrial_numerics::metrics::clustering::inertia;
    use proptest::prelude::*;

    fn fit(method: &SdpKMeans, x: Array2<f64>) -> Result<Grouping> {
        method.fit(&Points::from_matrix(x)?, &Context::with_seed(0))
    }

    fn of(k: usize) -> SdpKMeans {
        SdpKMeans {
            k,
            ..SdpKMeans::default()
        }
    }

    #[test]
    fn two_pairs_and_their_objective_by_hand() {
        let x = array![[0., 0.], [0., 2.], [10., 0.], [10., 2.]];
        let found = fit(&of(2), x).unwrap();
        assert_eq!(found.labels[0], found.labels[1]);
        assert_eq!(found.labels[2], found.labels[3]);
        assert_ne!(found.labels[0], found.labels[2]);
        // Sum of squares about the mean: 4 (25 + 1) = 104, inertia 4.
        let objective = found.curves[0].points[0].1;
        assert!((objective - 100.0).abs() < 0.05, "{objective}");
    }

    #[test]
    fn a_sample_labels_all_rows() {
        let x = Array2::from_shape_fn((300, 2), |(i, j)| {
            (if i % 3 == j { 20.0 } else { 0.0 }) + ((i * 7 + j) % 11) as f64 * 0.1
        });
        let whole = fit(&of(3), x.clone()).unwrap();
        let part = SdpKMeans {
            subsample: 60,
            ..of(3)
        };
        let part = fit(&part, x).unwrap();
        let same =
            papertrial_numerics::metrics::clustering::contingency(&whole.labels, &part.labels);
        let ari = papertrial_numerics::metrics::clustering::adjusted_rand_index(&same.unwrap());
        assert_eq!(ari, 1.0);
    }

    #[test]
    fn edges_and_bad_input() {
        assert_eq!(fit(&of(1), array![[1.0]]).unwrap().labels, [0]);
        assert_eq!(fit(&of(1), array![[1.0], [5.0]]).unwrap().labels, [0, 0]);
        assert_eq!(fit(&of(2), Array2::ones((6, 2))).unwrap().labels.len(), 6);
        assert!(fit(&of(3), array![[1.0]]).is_err());
        let small = SdpKMeans {
            max_rows: 10,
            ..of(2)
        };
        let e = fit(&small, Array2::zeros((20, 1))).unwrap_err().to_string();
        assert!(e.contains("subsample") && e.contains("KiB"), "{e}");
        let few = SdpKMeans {
            subsample: 2,
            ..of(3)
        };
        assert!(fit(&few, Array2::zeros((20, 1))).is_err());
        let tight = Context {
            memory: Some(1000),
            ..Context::with_seed(0)
        };
        let points = Points::from_matrix(Array2::zeros((50, 1))).unwrap();
        assert!(matches!(
            of(2).fit(&points, &tight),
            Err(Error::Memory { .. })
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn the_program_is_a_bound_on_every_partition(values in prop::collection::vec(-5.0..5.0f64, 24)) {
            let x = Array2::from_shape_vec((12, 2), values).unwrap();
            let total = inertia(x.view(), &[0; 12]).unwrap();
            let found = fit(&of(3), x.clone()).unwrap();
            let rounded = total - inertia(x.view(), &found.labels).unwrap();
            // To the solver's tolerance.
            prop_assert!(found.curves[0].points[0].1 >= rounded - 0.02 * total);
        }
    }
}
