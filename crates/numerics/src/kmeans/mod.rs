//! k-means: Lloyd's algorithm with k-means++ starts, and a mini-batch form for streams.
//!
//! Sources: Lloyd, *Least squares quantization in PCM*, 1982; Arthur and Vassilvitskii, *k-means++: the
//! advantages of careful seeding*, 2007, in the greedy variant that scikit-learn uses; Hamerly, *Making
//! k-means even faster*, 2010; Sculley, *Web-scale k-means clustering*, 2010.
//!
//! One round of Lloyd gives every row the label of its nearest centre, then moves every centre to the
//! (weighted) mean of its rows. Here:
//! 1. The data is cut into chunks whose size depends on the shapes only; threads take chunks.
//! 2. A row keeps two bounds: an upper one on the distance to its own centre, a lower one on the
//!    distance to every other. When the bounds prove that the label cannot change, by more than rounding
//!    could hide, the row is skipped.
//! 3. The other rows are packed into blocks; a matrix product gives their distances to all centres.
//! 4. Every chunk keeps the sum of its rows for each label, computed anew only if a label in it changed.
//!    The sums are added in the order of the chunks.
//!
//! The skipped work is work whose outcome is known, so labels, centres, rounds and inertia are those of
//! plain Lloyd, whatever the number of threads.
//!
//! Rules for the edges: of equally near centres the lower index wins. A centre with no rows moves to the
//! row that is farthest from its own centre, among rows at positive distance that are not the only one of
//! their cluster; if there is none (fewer distinct rows than centres) it stays where it is, so that some
//! centres may coincide and some labels may be unused, but no centre is ever undefined.

mod lloyd;
mod mini_batch;
mod problem;
mod seeding;
mod sums;

use ndarray::{Array2, ArrayView2};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::distance::{PointsError, Targets, check_points, check_width};
use crate::linalg::{Real, memory, standard};
use lloyd::{Run, lloyd};
use problem::Problem;
use seeding::{plus_plus_rows, random_rows};

pub use mini_batch::MiniBatch;

/// What k-means cannot work on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum KMeansError {
    /// The rows are unusable.
    #[error(transparent)]
    Points(#[from] PointsError),
    /// No clusters were asked for.
    #[error("0 clusters asked for: at least 1 is needed")]
    NoClusters,
    /// No starts were asked for.
    #[error("0 starts asked for: at least 1 is needed")]
    NoStarts,
    /// More clusters than rows.
    #[error("{clusters} clusters asked for, but there are only {rows} rows")]
    TooManyClusters {
        /// Number of clusters asked for.
        clusters: usize,
        /// Number of rows.
        rows: usize,
    },
    /// The number of weights is not the number of rows.
    #[error("{weights} weights given for {rows} rows")]
    WeightCount {
        /// Number of weights.
        weights: usize,
        /// Number of rows.
        rows: usize,
    },
    /// A weight is negative, NaN or infinite.
    #[error("the weight of row {row} is {value}, but must be finite and not negative")]
    BadWeight {
        /// Row of the weight, from 0.
        row: usize,
        /// The weight.
        value: f64,
    },
    /// All weights are 0.
    #[error("all weights are 0")]
    ZeroWeight,
    /// The tolerance is negative or NaN.
    #[error("the tolerance is {0}, but must not be negative")]
    BadTolerance(f64),
    /// A mini-batch model was asked for labels before it saw data.
    #[error("the model has seen no data yet")]
    NotStarted,
}

/// How the first centres are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Greedy k-means++: each further centre is the best of 2 + ln k rows drawn with probability
    /// proportional to their weight times their squared distance to the centres so far.
    PlusPlus,
    /// Distinct rows, drawn with probability proportional to their weight.
    RandomRows,
}

/// The options of [`kmeans`].
#[derive(Clone, Debug, PartialEq)]
pub struct KMeansOptions {
    /// Number of clusters, k.
    pub clusters: usize,
    /// How the first centres are chosen.
    pub start: Start,
    /// Number of starts; the lowest inertia is kept (of equal ones the earliest).
    pub starts: usize,
    /// Largest number of rounds for each start.
    pub max_rounds: usize,
    /// Stop when the squared moves of all centres sum to at most this times the mean variance of the
    /// columns.
    pub tolerance: f64,
    /// Seed of all draws.
    pub seed: u64,
}

impl KMeansOptions {
    /// k-means++, one start, at most 300 rounds, tolerance 1e-4, seed 0.
    pub fn new(clusters: usize) -> Self {
        KMeansOptions {
            clusters,
            start: Start::PlusPlus,
            starts: 1,
            max_rounds: 300,
            tolerance: 1e-4,
            seed: 0,
        }
    }
}

/// A clustering by k-means.
#[derive(Clone, Debug, PartialEq)]
pub struct KMeans<T> {
    /// The centres, [k, d].
    pub centres: Array2<T>,
    /// Index of the nearest centre of each row, `[n]`.
    pub labels: Vec<u32>,
    /// Weighted sum of the squared distances of rows to their centres, from differences.
    pub inertia: f64,
    /// Number of rounds done, each an assignment and an update.
    pub rounds: usize,
    /// Inertia after the assignment of each round, `[rounds]`. From norms, so that it costs nothing: its
    /// rounding error is relative to the inertia of a single cluster at the mean.
    pub curve: Vec<f64>,
}

/// Clusters the rows of x [n, d] by Lloyd's algorithm, with a weight for each row or none.
///
/// Stops when no label changes, when the centres move no more than the tolerance, or after the largest
/// number of rounds; the labels always belong to the returned centres. Rows of weight 0 get a label but
/// move no centre. Time at most 2 n k d operations for each round, far fewer once most rows are settled;
/// memory beside the data: 28 n bytes, 128 MB at most for partial sums (more only if 16 k d numbers are
/// more), and during a k-means++ start another 8 n (5 + ln k) bytes.
///
/// # Errors
/// Unusable rows or weights (named), no clusters, more clusters than rows, no starts, a bad tolerance.
pub fn kmeans<T: Real>(
    x: ArrayView2<'_, T>,
    weights: Option<&[f64]>,
    options: &KMeansOptions,
) -> Result<KMeans<T>, KMeansError> {
    if options.starts == 0 {
        return Err(KMeansError::NoStarts);
    }
    check(&x, weights, options.clusters)?;
    check_tolerance(options.tolerance)?;
    let data = standard(&x);
    let problem = Problem::new(memory(&data), x.ncols(), weights, options.clusters);
    let threshold = problem.threshold(options.tolerance);
    let mut best: Option<Run<T>> = None;
    for start in 0..options.starts {
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        rng.set_stream(start as u64);
        let rows = match options.start {
            Start::PlusPlus => plus_plus_rows(&problem, &mut rng),
            Start::RandomRows => random_rows(&problem, &mut rng),
        };
        let run = lloyd(
            &problem,
            problem.shifted(&rows),
            options.max_rounds,
            threshold,
            true,
        );
        if best.as_ref().is_none_or(|best| run.inertia < best.inertia) {
            best = Some(run);
        }
    }
    // There was at least one start.
    best.map(|run| run.finish(&problem))
        .ok_or(KMeansError::NoStarts)
}

/// As [`kmeans`] with one start, from the given centres [k, d].
///
/// # Errors
/// As [`kmeans`], and centres of another width than the rows.
pub fn kmeans_from<T: Real>(
    x: ArrayView2<'_, T>,
    weights: Option<&[f64]>,
    centres: ArrayView2<'_, T>,
    max_rounds: usize,
    tolerance: f64,
) -> Result<KMeans<T>, KMeansError> {
    check(&x, weights, centres.nrows())?;
    check_tolerance(tolerance)?;
    check_points(centres.view())?;
    check_width(x.ncols(), centres.ncols())?;
    let data = standard(&x);
    let problem = Problem::new(memory(&data), x.ncols(), weights, centres.nrows());
    let threshold = problem.threshold(tolerance);
    let start = Targets::new(memory(&standard(&centres)), problem.shift.clone());
    Ok(lloyd(&problem, start.rows, max_rounds, threshold, true).finish(&problem))
}

/// The rows that greedy k-means++ chooses as first centres, `[k]`, distinct.
///
/// Time at most 3 n k d (2 + ln k) operations; rows that the triangle inequality shows to be nearer to
/// their present centre than to a candidate are not read.
///
/// # Errors
/// As [`kmeans`].
pub fn plus_plus<T: Real>(
    x: ArrayView2<'_, T>,
    weights: Option<&[f64]>,
    clusters: usize,
    seed: u64,
) -> Result<Vec<usize>, KMeansError> {
    check(&x, weights, clusters)?;
    let data = standard(&x);
    let problem = Problem::new(memory(&data), x.ncols(), weights, clusters);
    Ok(plus_plus_rows(
        &problem,
        &mut ChaCha8Rng::seed_from_u64(seed),
    ))
}

fn check<T: Real>(
    x: &ArrayView2<'_, T>,
    weights: Option<&[f64]>,
    clusters: usize,
) -> Result<(), KMeansError> {
    check_points(x.view())?;
    let rows = x.nrows();
    if clusters == 0 {
        return Err(KMeansError::NoClusters);
    }
    if clusters > rows {
        return Err(KMeansError::TooManyClusters { clusters, rows });
    }
    let Some(weights) = weights else {
        return Ok(());
    };
    if weights.len() != rows {
        return Err(KMeansError::WeightCount {
            weights: weights.len(),
            rows,
        });
    }
    let usable = |weight: &f64| weight.is_finite() && *weight >= 0.0;
    if let Some(row) = weights.iter().position(|weight| !usable(weight)) {
        let value = weights[row];
        return Err(KMeansError::BadWeight { row, value });
    }
    if weights.iter().all(|&weight| weight == 0.0) {
        return Err(KMeansError::ZeroWeight);
    }
    Ok(())
}

fn check_tolerance(tolerance: f64) -> Result<(), KMeansError> {
    if tolerance >= 0.0 {
        Ok(())
    } else {
        Err(KMeansError::BadTolerance(tolerance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distance::nearest;
    use ndarray::{Array1, Axis, array, concatenate, s};
    use proptest::prelude::*;
    use rand::RngExt;

    pub(super) fn random(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_simple_fn((rows, columns), || rng.random_range(-1.0..1.0))
    }

    /// `count` groups of `rows` rows each, on a line, far apart.
    pub(super) fn groups(count: usize, rows: usize, columns: usize, seed: u64) -> Array2<f64> {
        let mut x = random(count * rows, columns, seed);
        for (i, mut row) in x.outer_iter_mut().enumerate() {
            row += 10.0 * (i / rows) as f64;
        }
        x
    }

    fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(work)
    }

    #[test]
    fn two_pairs_by_hand() {
        let x = array![[0.0], [2.0], [10.0], [12.0]];
        let fit = kmeans_from(x.view(), None, array![[0.0], [2.0]].view(), 10, 0.0).unwrap();
        // Round 1: {0}, {2, 10, 12}: 0 and 8; round 2: {0, 2}, {10, 12}: 1 and 11; round 3 repeats.
        assert_eq!(fit.centres, array![[1.0], [11.0]]);
        assert_eq!(fit.labels, vec![0, 0, 1, 1]);
        assert_eq!((fit.inertia, fit.rounds), (4.0, 3));
        assert_eq!(fit.curve, vec![164.0, 24.0, 4.0]);
    }

    #[test]
    fn weights_by_hand() {
        let x = array![[0.0], [2.0], [10.0], [99.0]];
        let weights = [3.0, 1.0, 2.0, 0.0];
        let start = array![[0.0], [10.0]];
        let fit = kmeans_from(x.view(), Some(&weights), start.view(), 10, 0.0).unwrap();
        assert_eq!(fit.centres, array![[0.5], [10.0]]);
        assert_eq!(fit.labels, vec![0, 0, 1, 1]);
        // 3 * 0.25 + 1 * 2.25, and nothing for the row without weight.
        assert_eq!(fit.inertia, 3.0);
    }

    #[test]
    fn weights_act_as_copies() {
        let x = groups(3, 40, 4, 1);
        let start = x.select(Axis(0), &[0, 41, 82]);
        let weights: Vec<f64> = (0..120).map(|i| f64::from(1 + i % 3)).collect();
        let copies: Vec<usize> = (0..120)
            .flat_map(|i| std::iter::repeat_n(i, 1 + i % 3))
            .collect();
        let copied = x.select(Axis(0), &copies);
        let a = kmeans_from(x.view(), Some(&weights), start.view(), 50, 0.0).unwrap();
        let b = kmeans_from(copied.view(), None, start.view(), 50, 0.0).unwrap();
        assert!((&a.centres - &b.centres).iter().all(|v| v.abs() < 1e-12));
        assert!((a.inertia - b.inertia).abs() < 1e-10 * a.inertia);
        let huge: Vec<f64> = weights.iter().map(|w| w * 1e300).collect();
        let c = kmeans_from(x.view(), Some(&huge), start.view(), 50, 0.0).unwrap();
        assert!((&a.centres - &c.centres).iter().all(|v| v.abs() < 1e-12));
        assert!((c.inertia / 1e300 - a.inertia).abs() < 1e-10 * a.inertia);
    }

    #[test]
    fn finds_separate_groups_from_both_starts() {
        let x = groups(5, 300, 6, 2);
        for start in [Start::PlusPlus, Start::RandomRows] {
            let options = KMeansOptions {
                start,
                starts: 20,
                ..KMeansOptions::new(5)
            };
            let fit = kmeans(x.view(), None, &options).unwrap();
            for group in fit.labels.chunks(300) {
                assert!(group.iter().all(|label| *label == group[0]), "{start:?}");
            }
            let mean = x.slice(s![..300, ..]).mean_axis(Axis(0)).unwrap();
            let centre = fit.centres.row(fit.labels[0] as usize);
            assert!((&centre - &mean).iter().all(|v| v.abs() < 1e-12));
        }
    }

    #[test]
    fn more_starts_never_do_worse() {
        let x = random(500, 3, 3);
        let inertia = |starts| {
            let options = KMeansOptions {
                starts,
                start: Start::RandomRows,
                ..KMeansOptions::new(12)
            };
            kmeans(x.view(), None, &options).unwrap().inertia
        };
        assert!(inertia(8) < inertia(1));
    }

    #[test]
    fn bits_do_not_depend_on_threads_or_layout() {
        let x = random(6000, 7, 4);
        let options = KMeansOptions::new(20);
        let one = on_threads(1, || kmeans(x.view(), None, &options).unwrap());
        let three = on_threads(3, || kmeans(x.view(), None, &options).unwrap());
        assert_eq!(one, three);
        let columns = x.t().as_standard_layout().to_owned();
        assert_eq!(one, kmeans(columns.t(), None, &options).unwrap());
        let other = KMeansOptions { seed: 1, ..options };
        assert_ne!(one.labels, kmeans(x.view(), None, &other).unwrap().labels);
    }

    #[test]
    fn fewer_distinct_rows_than_clusters() {
        let x: Array2<f64> = concatenate![
            Axis(0),
            Array2::from_elem((30, 2), 1.5),
            Array2::from_elem((20, 2), -2.5)
        ];
        for start in [Start::PlusPlus, Start::RandomRows] {
            let options = KMeansOptions {
                start,
                ..KMeansOptions::new(5)
            };
            let fit: KMeans<f64> = kmeans(x.view(), None, &options).unwrap();
            assert!(fit.centres.iter().all(|v| v.is_finite()));
            // The mean of equal rows is theirs up to rounding.
            assert!(fit.inertia < 1e-27, "{start:?} {}", fit.inertia);
            assert_eq!(fit.labels[..30], vec![fit.labels[0]; 30]);
            assert_eq!(fit.labels[30..], vec![fit.labels[30]; 20]);
            assert_ne!(fit.labels[0], fit.labels[30]);
        }
        let constant = Array2::from_elem((7, 1), 3.0);
        let fit = kmeans(constant.view(), None, &KMeansOptions::new(7)).unwrap();
        assert_eq!((fit.inertia, fit.labels), (0.0, vec![0; 7]));
        let mut rows = plus_plus(constant.view(), None, 7, 0).unwrap();
        rows.sort_unstable();
        assert_eq!(rows, (0..7).collect::<Vec<_>>());
    }

    #[test]
    fn one_cluster_is_the_mean_and_n_clusters_are_the_rows() {
        let x = random(40, 3, 5);
        let fit = kmeans(x.view(), None, &KMeansOptions::new(1)).unwrap();
        let mean: Array1<f64> = x.mean_axis(Axis(0)).unwrap();
        assert!(
            (&fit.centres.row(0) - &mean)
                .iter()
                .all(|v| v.abs() < 1e-15)
        );
        assert!((fit.inertia - (&x - &mean).mapv(|v| v * v).sum()).abs() < 1e-12);
        let fit = kmeans(x.view(), None, &KMeansOptions::new(40)).unwrap();
        assert!(fit.inertia < 1e-28);
        let single = kmeans(x.slice(s![..1, ..]), None, &KMeansOptions::new(1)).unwrap();
        assert_eq!((single.inertia, single.labels), (0.0, vec![0]));
    }

    #[test]
    fn no_rounds_only_assigns() {
        let x = random(50, 2, 6);
        let start = x.slice(s![..4, ..]);
        let fit = kmeans_from(x.view(), None, start, 0, 0.0).unwrap();
        assert_eq!((fit.rounds, fit.curve.len()), (0, 0));
        assert_eq!(fit.labels, nearest(x.view(), start).unwrap().indices);
        assert!((&fit.centres - &start).iter().all(|v| v.abs() < 1e-15));
    }

    #[test]
    fn single_precision_agrees_with_double() {
        let x = groups(4, 200, 5, 12);
        let options = KMeansOptions::new(4);
        let double = kmeans(x.view(), None, &options).unwrap();
        let single = kmeans(x.mapv(|v| v as f32).view(), None, &options).unwrap();
        assert_eq!(double.labels, single.labels);
        assert!((double.inertia - single.inertia).abs() < 1e-5 * double.inertia);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn inertia_falls_and_centres_are_finite(
            n in 1usize..120, d in 1usize..4, share in 0.0f64..1.0, seed: u64, lattice: bool,
        ) {
            let k = 1 + (share * (n - 1) as f64) as usize;
            let mut x = random(n, d, seed);
            if lattice {
                x.mapv_inplace(|v| (v * 2.0).round());
            }
            let options = KMeansOptions { tolerance: 0.0, start: Start::RandomRows, seed, ..KMeansOptions::new(k) };
            let fit: KMeans<f64> = kmeans(x.view(), None, &options).unwrap();
            prop_assert!(fit.centres.iter().all(|v| v.is_finite()));
            prop_assert!(fit.curve.windows(2).all(|w| w[1] <= w[0] + 1e-12 * n as f64));
            let last = fit.curve[fit.rounds - 1];
            prop_assert!(fit.inertia <= last + 1e-12 * n as f64);
            let near = nearest(x.view(), fit.centres.view()).unwrap();
            let total: f64 = near.squared.iter().sum();
            prop_assert!((total - fit.inertia).abs() < 1e-12 * n as f64);
        }
    }

    #[test]
    fn bad_input_is_named() {
        let x = random(4, 2, 15);
        let fit = |k| kmeans(x.view(), None, &KMeansOptions::new(k)).unwrap_err();
        assert_eq!(fit(0), KMeansError::NoClusters);
        assert_eq!(
            fit(5),
            KMeansError::TooManyClusters {
                clusters: 5,
                rows: 4
            }
        );
        let weighted = |w: &[f64]| kmeans(x.view(), Some(w), &KMeansOptions::new(2)).unwrap_err();
        assert_eq!(
            weighted(&[1.0]),
            KMeansError::WeightCount {
                weights: 1,
                rows: 4
            }
        );
        assert_eq!(
            weighted(&[1.0, 1.0, -1.0, 1.0]),
            KMeansError::BadWeight {
                row: 2,
                value: -1.0
            }
        );
        assert!(matches!(
            weighted(&[1.0, f64::NAN, 1.0, 1.0]),
            KMeansError::BadWeight { row: 1, .. }
        ));
        assert_eq!(weighted(&[0.0; 4]), KMeansError::ZeroWeight);
        let wide = kmeans_from(x.view(), None, array![[0.0]].view(), 5, 0.0).unwrap_err();
        assert_eq!(
            wide,
            KMeansError::Points(PointsError::WidthMismatch {
                expected: 2,
                found: 1
            })
        );
        let nan = array![[0.0, f64::NAN]];
        let error = kmeans(nan.view(), None, &KMeansOptions::new(1)).unwrap_err();
        assert!(error.to_string().contains("row 0, column 1"), "{error}");
        let options = KMeansOptions {
            starts: 0,
            ..KMeansOptions::new(1)
        };
        assert_eq!(
            kmeans(x.view(), None, &options).unwrap_err(),
            KMeansError::NoStarts
        );
        let options = KMeansOptions {
            tolerance: f64::NAN,
            ..KMeansOptions::new(1)
        };
        assert!(matches!(
            kmeans(x.view(), None, &options),
            Err(KMeansError::BadTolerance(_))
        ));
    }
}
