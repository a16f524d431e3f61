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

use faer::traits::pulp::Simd;
use ndarray::{Array2, ArrayView2};
use rand::seq::index;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::distance::{
    LowestTwo, Nearest, PointsError, ROW_GROUP, Targets, block_rows, check_points, check_width,
    nearest, shift_rows, squared_difference, squared_distance,
};
use crate::linalg::{Real, column_means, memory, product_with_transpose, standard};
use crate::simd::vectorised;

/// Least number of rows in a chunk.
const CHUNK_ROWS: usize = 1024;

/// Largest number of numbers held in the partial sums of all chunks: 128 MB.
const PART_ENTRIES: usize = 1 << 24;

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

/// The data of one call, and what is computed from it once.
struct Problem<'a, T> {
    /// The rows, [n, d]. The algorithm works on rows minus `shift`, made as they are read.
    x: &'a [T],
    d: usize,
    k: usize,
    /// Mean of the rows, `[d]`: it makes norms small, so that products lose few digits to cancellation.
    shift: Vec<T>,
    /// Squared norms of the shifted rows, `[n]`.
    norms: Vec<T>,
    /// Weights divided by `weight_scale`, `[n]`.
    weights: Option<Vec<f64>>,
    /// The power of 2 below the largest weight: sums stay in range and their bits do not change.
    weight_scale: f64,
    /// Rows of one chunk.
    chunk: usize,
}

impl<'a, T: Real> Problem<'a, T> {
    fn new(x: &'a [T], d: usize, weights: Option<&[f64]>, k: usize) -> Self {
        let n = x.len() / d;
        let shift: Vec<T> = match ArrayView2::from_shape((n, d), x) {
            Ok(view) => column_means(view).into_iter().map(T::from_f64).collect(),
            Err(_) => vec![T::ZERO; d],
        };
        let parts = (PART_ENTRIES / (k * d)).clamp(16, 256);
        let chunk = n.div_ceil(parts).max(CHUNK_ROWS);
        let mut norms = vec![T::ZERO; n];
        norms
            .par_chunks_mut(chunk)
            .zip(x.par_chunks(chunk * d))
            .for_each_init(
                || vec![T::ZERO; chunk * d],
                |shifted, (norms, x)| shift_rows(x, &shift, &mut shifted[..x.len()], norms),
            );
        let largest = weights.into_iter().flatten().copied().fold(0.0, f64::max);
        let weight_scale = if largest > 0.0 {
            largest.log2().floor().exp2()
        } else {
            1.0
        };
        Problem {
            x,
            d,
            k,
            shift,
            norms,
            weights: weights.map(|weights| weights.iter().map(|w| w / weight_scale).collect()),
            weight_scale,
            chunk,
        }
    }

    fn row(&self, index: usize) -> &'a [T] {
        &self.x[index * self.d..][..self.d]
    }

    fn weight(&self, index: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |weights| weights[index])
    }

    /// Copies of some rows, shifted, [rows, d].
    fn shifted(&self, rows: &[usize]) -> Vec<T> {
        let shifted = |&row| self.row(row).iter().zip(&self.shift).map(|(&x, &s)| x - s);
        rows.iter().flat_map(shifted).collect()
    }

    /// The tolerance in squared length: relative to the mean variance of the columns.
    fn threshold(&self, tolerance: f64) -> f64 {
        let parts = self.norms.par_chunks(self.chunk);
        let parts: Vec<f64> = parts
            .map(|norms| norms.iter().map(|norm| norm.to_f64()).sum())
            .collect();
        tolerance * parts.iter().sum::<f64>() / self.norms.len() as f64 / self.d as f64
    }

    /// Weighted sum over rows of a value of each row, chunk by chunk.
    fn weighted_sum(&self, values: &[T]) -> f64 {
        let parts = values.par_chunks(self.chunk).enumerate();
        let parts: Vec<f64> = parts
            .map(|(chunk, values)| {
                let start = chunk * self.chunk;
                let terms = values.iter().enumerate();
                terms
                    .map(|(i, v)| self.weight(start + i) * v.to_f64())
                    .sum()
            })
            .collect();
        parts.iter().sum()
    }

    /// Squared distance of every row to the centre of its label, from differences, `[n]`.
    fn to_own_centre(&self, centres: &[T], labels: &[u32]) -> Vec<T> {
        let d = self.d;
        let mut squared = vec![T::ZERO; labels.len()];
        squared
            .par_chunks_mut(self.chunk)
            .zip(labels.par_chunks(self.chunk))
            .zip(self.x.par_chunks(self.chunk * d))
            .for_each(|((squared, labels), x)| {
                shifted_to_own(x, &self.shift, centres, labels, squared);
            });
        squared
    }
}

vectorised! {
    /// Squared distances of rows [m, d] to the centres of their labels.
    fn shifted_to_own<'a, T>(
        simd; x: &'a [T], shift: &'a [T], centres: &'a [T], labels: &'a [u32], squared: &'a mut [T],
    ) -> () {
        let d = shift.len();
        let rows = x.chunks_exact(d).zip(labels);
        for (squared, (row, &label)) in squared.iter_mut().zip(rows) {
            let centre = &centres[label as usize * d..][..d];
            *squared = shifted_difference(simd, row, shift, centre);
        }
    }
}

/// |(row - shift) - centre|^2, without a copy of the shifted row.
#[inline(always)]
fn shifted_difference<S: Simd, T: Real>(simd: S, row: &[T], shift: &[T], centre: &[T]) -> T {
    let (row, row_rest) = T::split(simd, row);
    let (shift, shift_rest) = T::split(simd, shift);
    let (centre, centre_rest) = T::split(simd, centre);
    let (row_twos, row) = row.as_chunks::<2>();
    let (shift_twos, shift) = shift.as_chunks::<2>();
    let (centre_twos, centre) = centre.as_chunks::<2>();
    let mut sums = [T::splat(simd, T::ZERO); 2];
    for ((row, shift), centre) in row_twos.iter().zip(shift_twos).zip(centre_twos) {
        for lane in 0..2 {
            let shifted = T::minus(simd, row[lane], shift[lane]);
            let difference = T::minus(simd, shifted, centre[lane]);
            sums[lane] = T::fused(simd, difference, difference, sums[lane]);
        }
    }
    let mut sum = T::plus(simd, sums[0], sums[1]);
    for ((&row, &shift), &centre) in row.iter().zip(shift).zip(centre) {
        let difference = T::minus(simd, T::minus(simd, row, shift), centre);
        sum = T::fused(simd, difference, difference, sum);
    }
    if !row_rest.is_empty() {
        let row = T::partial(simd, row_rest);
        let shifted = T::minus(simd, row, T::partial(simd, shift_rest));
        let difference = T::minus(simd, shifted, T::partial(simd, centre_rest));
        sum = T::fused(simd, difference, difference, sum);
    }
    T::total(simd, sum)
}

/// Draws a row with probability proportional to `mass`, of which `parts` are the sums over chunks.
fn draw(mass: impl Fn(usize) -> f64, parts: &[f64], chunk: usize, n: usize, unit: f64) -> usize {
    let mut left = unit * parts.iter().sum::<f64>();
    let mut last = 0;
    for (index, &part) in parts.iter().enumerate() {
        // The last chunk with mass takes what rounding leaves over.
        let final_part = parts[index + 1..].iter().all(|&later| later <= 0.0);
        if part <= 0.0 || (left >= part && !final_part) {
            left -= part;
            continue;
        }
        for row in index * chunk..n.min((index + 1) * chunk) {
            let mass = mass(row);
            if mass > 0.0 {
                last = row;
                if left < mass {
                    return row;
                }
                left -= mass;
            }
        }
        break;
    }
    last
}

/// Distinct rows drawn without replacement, probability proportional to weight (Efraimidis, Spirakis).
fn random_rows<T: Real>(problem: &Problem<'_, T>, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let n = problem.norms.len();
    let Some(weights) = &problem.weights else {
        return index::sample(rng, n, problem.k).into_vec();
    };
    let mut keys: Vec<(f64, usize)> = weights
        .iter()
        .enumerate()
        .map(|(row, weight)| (-(1.0 - rng.random::<f64>()).ln() / weight, row))
        .map(|(key, row)| (if key.is_nan() { f64::INFINITY } else { key }, row))
        .collect();
    keys.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    keys.truncate(problem.k);
    keys.into_iter().map(|(_, row)| row).collect()
}

fn plus_plus_rows<T: Real>(problem: &Problem<'_, T>, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let &Problem { d, k, chunk, .. } = problem;
    let n = problem.norms.len();
    let trials = 2 + (k as f64).ln() as usize;
    let mut closest = vec![T::INFINITY; n];
    let mut owner = vec![0_u32; n];
    // Distances to the candidates of one step, chunk by chunk [trials, rows of the chunk].
    let mut tried = vec![T::ZERO; n * trials];
    let mut chosen: Vec<usize> = Vec::with_capacity(k);
    let mut taken = vec![false; n];

    let weights = vec![1.0; n];
    let weights = problem.weights.as_deref().unwrap_or(&weights);
    let mass: Vec<f64> = weights
        .chunks(chunk)
        .map(|part| part.iter().sum())
        .collect();
    let first = draw(|row| weights[row], &mass, chunk, n, rng.random());
    let mut candidates = vec![first];
    let mut potential = Vec::new();
    loop {
        let gaps = gaps(problem, &candidates, &chosen);
        let parts: Vec<Vec<f64>> = tried
            .par_chunks_mut(chunk * trials)
            .zip(closest.par_chunks(chunk))
            .zip(owner.par_chunks(chunk))
            .zip(weights.par_chunks(chunk))
            .zip(problem.x.par_chunks(chunk * d))
            .map(|((((tried, closest), owner), weights), x)| {
                let known = (closest, owner, weights);
                try_candidates(problem, &candidates, &gaps, x, known, tried)
            })
            .collect();
        let total = |trial: usize| parts.iter().map(|part| part[trial]).sum::<f64>();
        let totals: Vec<f64> = (0..candidates.len()).map(total).collect();
        let mut best = 0;
        for trial in 1..totals.len() {
            if totals[trial] < totals[best] {
                best = trial;
            }
        }
        potential.clear();
        potential.extend(parts.iter().map(|part| part[best]));
        let new = chosen.len() as u32;
        chosen.push(candidates[best]);
        taken[candidates[best]] = true;
        if chosen.len() == k {
            return chosen;
        }
        closest
            .par_chunks_mut(chunk)
            .zip(owner.par_chunks_mut(chunk))
            .zip(tried.par_chunks(chunk * trials))
            .for_each(|((closest, owner), tried)| {
                let tried = &tried[best * closest.len()..][..closest.len()];
                for ((closest, owner), &tried) in closest.iter_mut().zip(owner).zip(tried) {
                    if tried < *closest {
                        *closest = tried;
                        *owner = new;
                    }
                }
            });
        candidates.clear();
        if totals[best] > 0.0 {
            let mass = |row: usize| weights[row] * closest[row].to_f64();
            candidates.extend((0..trials).map(|_| draw(mass, &potential, chunk, n, rng.random())));
        } else {
            // Every row of positive weight lies on a centre: any row will do, the first not yet chosen.
            candidates.extend(taken.iter().position(|&taken| !taken));
        }
    }
}

/// Squared distances between candidates and chosen rows, [candidates, chosen].
fn gaps<T: Real>(problem: &Problem<'_, T>, candidates: &[usize], chosen: &[usize]) -> Vec<T> {
    let pairs = candidates
        .iter()
        .flat_map(|&from| chosen.iter().map(move |&to| (from, to)));
    pairs
        .map(|(from, to)| squared_distance(problem.row(from), problem.row(to)))
        .collect()
}

/// For every candidate, the distances of one chunk's rows to the nearest of it and the chosen centres.
///
/// Writes them to `tried` [candidates, rows] and returns their weighted sums, [candidates].
fn try_candidates<T: Real>(
    problem: &Problem<'_, T>,
    candidates: &[usize],
    gaps: &[T],
    x: &[T],
    (closest, owner, weights): (&[T], &[u32], &[f64]),
    tried: &mut [T],
) -> Vec<f64> {
    let chosen = gaps.len() / candidates.len();
    let mut near = Vec::new();
    let mut sums = Vec::with_capacity(candidates.len());
    for (trial, &candidate) in candidates.iter().enumerate() {
        sums.push(try_candidate(
            problem.row(candidate),
            &gaps[trial * chosen..][..chosen],
            x,
            closest,
            owner,
            weights,
            &mut tried[trial * closest.len()..][..closest.len()],
            &mut near,
        ));
    }
    sums
}

vectorised! {
    fn try_candidate<'a, T>(
        simd; candidate: &'a [T], gaps: &'a [T], x: &'a [T],
        closest: &'a [T], owner: &'a [u32], weights: &'a [f64], tried: &'a mut [T],
        near: &'a mut Vec<u32>,
    ) -> f64 {
        let four = T::from_f64(4.0);
        // If the candidate is at least twice as far from a row's centre as the row is, the row is nearer
        // to its centre. The others are listed first, because a branch for each row would be mispredicted.
        near.clear();
        near.resize(closest.len(), 0);
        let mut count = 0;
        for (i, (&low, &owner)) in closest.iter().zip(owner).enumerate() {
            near[count] = i as u32;
            let gap = gaps.get(owner as usize).copied().unwrap_or(T::ZERO);
            count += usize::from(gap < four * low);
        }
        tried.copy_from_slice(closest);
        let d = candidate.len();
        for &i in &near[..count] {
            let i = i as usize;
            let distance = squared_difference(simd, &x[i * d..][..d], candidate);
            tried[i] = if distance < tried[i] { distance } else { tried[i] };
        }
        let mut sums = [0.0; 8];
        let ((eights, rest), (weights, weights_rest)) =
            (tried.as_chunks::<8>(), weights.as_chunks::<8>());
        for (low, weight) in eights.iter().zip(weights) {
            for lane in 0..8 {
                sums[lane] += weight[lane] * low[lane].to_f64();
            }
        }
        for (sum, (low, weight)) in sums.iter_mut().zip(rest.iter().zip(weights_rest)) {
            *sum += weight * low.to_f64();
        }
        sums.iter().sum()
    }
}

/// Bounds on the distances of a row: `upper` to its own centre, `lower` to every other.
#[derive(Clone, Copy)]
struct Bounds {
    upper: f64,
    lower: f64,
}

/// What a round knows about its centres.
struct Centres<T> {
    /// Shifted centres, [k, d].
    rows: Vec<T>,
    /// Their squared norms, `[k]`.
    norms: Vec<T>,
    /// The largest squared norm.
    largest: f64,
    /// A lower bound on half the distance to the nearest other centre, `[k]`.
    half_gaps: Vec<f64>,
    /// How far each centre moved since the last assignment, `[k]`.
    moves: Vec<f64>,
    /// The centre that moved farthest.
    restless: usize,
    /// The farthest move of another centre.
    second_move: f64,
}

/// Relative rounding error of a sum over `d` columns, with room to spare.
fn rounding<T: Real>(d: usize) -> f64 {
    (d + 8) as f64 * T::EPSILON.to_f64()
}

impl<T: Real> Centres<T> {
    /// Without `half_gaps` (all 0) where `prune` is off.
    fn new(rows: Vec<T>, d: usize, moves: Vec<f64>, prune: bool) -> Self {
        let k = rows.len() / d;
        let mut norms = vec![T::ZERO; k];
        let mut copy = vec![T::ZERO; rows.len()];
        shift_rows(&rows, &vec![T::ZERO; d], &mut copy, &mut norms);
        let largest = norms.iter().map(|norm| norm.to_f64()).fold(0.0, f64::max);
        let half_gaps = if prune {
            half_gaps(&rows, &norms, largest, d)
        } else {
            vec![0.0; k]
        };
        let mut restless = 0;
        for (j, &length) in moves.iter().enumerate() {
            if length > moves[restless] {
                restless = j;
            }
        }
        let others = moves.iter().enumerate().filter(|&(j, _)| j != restless);
        let second_move = others.map(|(_, &length)| length).fold(0.0, f64::max);
        Centres {
            rows,
            norms,
            largest,
            half_gaps,
            moves,
            restless,
            second_move,
        }
    }
}

fn half_gaps<T: Real>(rows: &[T], norms: &[T], largest: f64, d: usize) -> Vec<f64> {
    let k = norms.len();
    let block = block_rows(k);
    let slack = rounding::<T>(d) * 4.0 * largest;
    let mut gaps = vec![f64::INFINITY; k];
    gaps.par_chunks_mut(block)
        .zip(rows.par_chunks(block * d))
        .enumerate()
        .for_each_init(
            || vec![T::ZERO; block * k],
            |out, (index, (gaps, left))| {
                let out = &mut out[..gaps.len() * k];
                let shape = (gaps.len(), k, d);
                product_with_transpose(out, T::from_f64(-2.0), left, rows, shape);
                for (i, (gap, products)) in gaps.iter_mut().zip(out.chunks_exact(k)).enumerate() {
                    let own = index * block + i;
                    let mut low = T::INFINITY;
                    for (j, (&product, &norm)) in products.iter().zip(norms).enumerate() {
                        let value = product + norm;
                        if j != own && value < low {
                            low = value;
                        }
                    }
                    let squared = low.to_f64() + norms[own].to_f64() - slack;
                    *gap = 0.5 * squared.max(0.0).sqrt();
                }
            },
        );
    gaps
}

/// The weighted sum of the rows of each label, and their weight, over one chunk or all.
#[derive(Clone)]
struct Sums {
    /// [k, d].
    rows: Vec<f64>,
    /// `[k]`.
    weights: Vec<f64>,
}

impl Sums {
    fn new(k: usize, d: usize) -> Self {
        Sums {
            rows: vec![0.0; k * d],
            weights: vec![0.0; k],
        }
    }

    fn add(&mut self, other: &Sums) {
        for (sum, value) in self.rows.iter_mut().zip(&other.rows) {
            *sum += value;
        }
        for (sum, value) in self.weights.iter_mut().zip(&other.weights) {
            *sum += value;
        }
    }
}

vectorised! {
    /// The sums of one chunk of rows; no weights means 1 each.
    fn sum_chunk<'a, T>(
        simd; sums: &'a mut Sums, x: &'a [T], shift: &'a [T], labels: &'a [u32], weights: &'a [f64],
    ) -> () {
        let d = shift.len();
        sums.rows.fill(0.0);
        sums.weights.fill(0.0);
        let rows = x.chunks_exact(d).zip(labels);
        if weights.is_empty() {
            for (row, &label) in rows {
                let sum = &mut sums.rows[label as usize * d..][..d];
                for ((sum, &value), &shift) in sum.iter_mut().zip(row).zip(shift) {
                    *sum += (value - shift).to_f64();
                }
                sums.weights[label as usize] += 1.0;
            }
        } else {
            for ((row, &label), &weight) in rows.zip(weights) {
                let sum = &mut sums.rows[label as usize * d..][..d];
                for ((sum, &value), &shift) in sum.iter_mut().zip(row).zip(shift) {
                    *sum += weight * (value - shift).to_f64();
                }
                sums.weights[label as usize] += weight;
            }
        }
    }
}

/// The state of a run of Lloyd's algorithm, cut into chunks.
struct State {
    labels: Vec<u32>,
    bounds: Vec<Bounds>,
    sums: Vec<Sums>,
}

/// Buffers of one thread.
struct Scratch<T> {
    /// Shifted copies of the rows whose nearest centre must be searched, [block, d].
    rows: Vec<T>,
    /// Which rows of the chunk they are.
    pending: Vec<u32>,
    /// Products of all centres and these rows, [k, block].
    products: Vec<T>,
    /// The nearest centres of these rows.
    lowest: LowestTwo<T>,
}

/// The outcome of one start.
struct Run<T> {
    centres: Vec<T>,
    labels: Vec<u32>,
    inertia: f64,
    rounds: usize,
    curve: Vec<f64>,
}

impl<T: Real> Run<T> {
    /// Undoes the shift and the scaling of the weights.
    fn finish(self, problem: &Problem<'_, T>) -> KMeans<T> {
        let (k, d) = (problem.k, problem.d);
        let scale = problem.weight_scale;
        KMeans {
            centres: Array2::from_shape_fn((k, d), |(j, c)| {
                self.centres[j * d + c] + problem.shift[c]
            }),
            labels: self.labels,
            inertia: self.inertia * scale,
            rounds: self.rounds,
            curve: self.curve.into_iter().map(|value| value * scale).collect(),
        }
    }
}

/// Lloyd's algorithm from shifted centres [k, d]; without `prune` no row is ever skipped.
fn lloyd<T: Real>(
    problem: &Problem<'_, T>,
    start: Vec<T>,
    max_rounds: usize,
    threshold: f64,
    prune: bool,
) -> Run<T> {
    let &Problem { d, k, chunk, .. } = problem;
    let n = problem.norms.len();
    let mut state = State {
        labels: vec![u32::MAX; n],
        bounds: vec![
            Bounds {
                upper: f64::INFINITY,
                lower: 0.0,
            };
            n
        ],
        sums: vec![Sums::new(k, d); n.div_ceil(chunk)],
    };
    let spread = problem.weighted_sum(&problem.norms);
    let mut centres = Centres::new(start, d, vec![0.0; k], prune);
    let mut curve = Vec::new();
    let mut labels_fit = false;
    for _ in 0..max_rounds {
        let changed = assign(problem, &centres, &mut state, prune, true);
        let mut sums = Sums::new(k, d);
        for part in &state.sums {
            sums.add(part);
        }
        curve.push(inertia_from_sums(spread, &centres, &sums));
        let relocated = relocate(problem, &centres.rows, &state.labels, &mut sums);
        let mut rows = centres.rows.clone();
        let mut moves = vec![0.0; k];
        for j in (0..k).filter(|&j| sums.weights[j] > 0.0) {
            let mut squared = 0.0;
            let sum = &sums.rows[j * d..(j + 1) * d];
            for (old, sum) in rows[j * d..(j + 1) * d].iter_mut().zip(sum) {
                let mean = T::from_f64(sum / sums.weights[j]);
                squared += (mean - *old).to_f64().powi(2);
                *old = mean;
            }
            moves[j] = squared.sqrt();
        }
        let moved: f64 = moves.iter().map(|length| length * length).sum();
        centres = Centres::new(rows, d, moves, prune);
        if !changed && !relocated {
            labels_fit = true;
            break;
        }
        if moved <= threshold {
            break;
        }
    }
    if !labels_fit {
        assign(problem, &centres, &mut state, prune, false);
    }
    let squared = problem.to_own_centre(&centres.rows, &state.labels);
    Run {
        inertia: problem.weighted_sum(&squared),
        centres: centres.rows,
        labels: state.labels,
        rounds: curve.len(),
        curve,
    }
}

/// Sum of w |x - c|^2 = sum of w |x|^2 - 2 c.S + W |c|^2 over centres.
fn inertia_from_sums<T: Real>(spread: f64, centres: &Centres<T>, sums: &Sums) -> f64 {
    let cross = centres.rows.iter().zip(&sums.rows);
    let cross: f64 = cross.map(|(c, s)| c.to_f64() * s).sum();
    let own = centres.norms.iter().zip(&sums.weights);
    let own: f64 = own.map(|(norm, weight)| norm.to_f64() * weight).sum();
    (spread - 2.0 * cross + own).max(0.0)
}

/// Gives every row its label; says whether any changed. Sums are brought up to date if asked for.
fn assign<T: Real>(
    problem: &Problem<'_, T>,
    centres: &Centres<T>,
    state: &mut State,
    prune: bool,
    sum: bool,
) -> bool {
    let &Problem { d, k, chunk, .. } = problem;
    let block = block_rows(k);
    state
        .labels
        .par_chunks_mut(chunk)
        .zip(state.bounds.par_chunks_mut(chunk))
        .zip(&mut state.sums)
        .enumerate()
        .map_init(
            || Scratch {
                rows: vec![T::ZERO; block * d],
                pending: Vec::with_capacity(block),
                products: vec![T::ZERO; block * k],
                lowest: LowestTwo::new(block),
            },
            |scratch, (index, ((labels, bounds), sums))| {
                let start = index * chunk;
                let chunk = Chunk {
                    x: &problem.x[start * d..(start + labels.len()) * d],
                    norms: &problem.norms[start..start + labels.len()],
                    shift: &problem.shift,
                };
                let changed = chunk.assign(centres, labels, bounds, scratch, prune);
                if changed && sum {
                    let weights = match &problem.weights {
                        Some(weights) => &weights[start..start + labels.len()],
                        None => &[],
                    };
                    sum_chunk(sums, chunk.x, &problem.shift, labels, weights);
                }
                changed
            },
        )
        .reduce(|| false, |a, b| a | b)
}

/// Consecutive rows of the data.
struct Chunk<'a, T> {
    x: &'a [T],
    norms: &'a [T],
    shift: &'a [T],
}

impl<T: Real> Chunk<'_, T> {
    fn assign(
        &self,
        centres: &Centres<T>,
        labels: &mut [u32],
        bounds: &mut [Bounds],
        scratch: &mut Scratch<T>,
        prune: bool,
    ) -> bool {
        let mut changed = false;
        let mut next = 0;
        while next < labels.len() {
            next = collect(self, centres, labels, bounds, scratch, next, prune);
            changed |= self.search(centres, labels, bounds, scratch);
        }
        changed
    }

    /// How much rounding may change the difference of two computed squared distances of row `i`.
    #[inline(always)]
    fn slack(&self, centres: &Centres<T>, i: usize) -> f64 {
        4.0 * rounding::<T>(self.shift.len()) * (centres.largest + self.norms[i].to_f64())
    }

    /// Moves the bounds of row `i` along with the centres; true if they prove that its label stays.
    #[inline(always)]
    fn settled<S: Simd>(
        &self,
        simd: S,
        centres: &Centres<T>,
        i: usize,
        row: &[T],
        label: u32,
        bounds: &mut Bounds,
    ) -> bool {
        let own = label as usize;
        if own >= centres.moves.len() {
            return false;
        }
        let d = self.shift.len();
        let grow = 1.0 + rounding::<f64>(d);
        let other_move = if own == centres.restless {
            centres.second_move
        } else {
            centres.moves[centres.restless]
        };
        bounds.upper = (bounds.upper + centres.moves[own]) * grow;
        bounds.lower = ((bounds.lower - other_move * grow) * (2.0 - grow)).max(0.0);
        // A centre b that is 2g from the row's own centre is at least 2g - upper from the row: if upper
        // is below g, b is farther than g.
        let far = bounds.lower.max(centres.half_gaps[own]);
        let slack = self.slack(centres, i);
        if bounds.upper * bounds.upper + slack < far * far {
            return true;
        }
        let centre = &centres.rows[own * d..][..d];
        let squared = shifted_difference(simd, row, self.shift, centre).to_f64();
        let squared = squared * (1.0 + rounding::<T>(d));
        bounds.upper = squared.sqrt();
        squared + slack < far * far
    }

    /// Searches the nearest centres of the pending rows; says whether a label changed.
    fn search(
        &self,
        centres: &Centres<T>,
        labels: &mut [u32],
        bounds: &mut [Bounds],
        scratch: &mut Scratch<T>,
    ) -> bool {
        let (k, d) = (centres.norms.len(), self.shift.len());
        // The surplus rows of the last group are old ones.
        let rows = scratch.pending.len().next_multiple_of(ROW_GROUP);
        let products = &mut scratch.products[..rows * k];
        product_with_transpose(
            products,
            T::from_f64(-2.0),
            &centres.rows,
            &scratch.rows[..rows * d],
            (k, rows, d),
        );
        let lowest = &mut scratch.lowest;
        lowest.find(products, rows, &centres.norms);
        let mut changed = false;
        for (slot, i) in scratch.pending.drain(..).enumerate() {
            let i = i as usize;
            let label = lowest.at[slot].to_f64() as u32;
            let norm = self.norms[i].to_f64();
            let slack = self.slack(centres, i);
            bounds[i] = Bounds {
                upper: (lowest.low[slot].to_f64() + norm + slack).max(0.0).sqrt(),
                lower: (lowest.second[slot].to_f64() + norm - slack)
                    .max(0.0)
                    .sqrt(),
            };
            changed |= labels[i] != label;
            labels[i] = label;
        }
        changed
    }
}

vectorised! {
    /// Packs the rows of the chunk that are not settled, from `next` on, until a block is full; returns
    /// where to go on.
    fn collect<'a, T>(
        simd; chunk: &'a Chunk<'a, T>, centres: &'a Centres<T>, labels: &'a [u32],
        bounds: &'a mut [Bounds], scratch: &'a mut Scratch<T>, next: usize, prune: bool,
    ) -> usize {
        let d = chunk.shift.len();
        let block = scratch.rows.len() / d;
        for (i, row) in chunk.x.chunks_exact(d).enumerate().skip(next) {
            if prune && chunk.settled(simd, centres, i, row, labels[i], &mut bounds[i]) {
                continue;
            }
            let slot = scratch.pending.len() * d;
            let copy = &mut scratch.rows[slot..slot + d];
            for ((copy, &value), &shift) in copy.iter_mut().zip(row).zip(chunk.shift) {
                *copy = value - shift;
            }
            scratch.pending.push(i as u32);
            if scratch.pending.len() == block {
                return i + 1;
            }
        }
        labels.len()
    }
}

/// Gives every cluster without weight the row farthest from its own centre; says whether any got one.
fn relocate<T: Real>(
    problem: &Problem<'_, T>,
    centres: &[T],
    labels: &[u32],
    sums: &mut Sums,
) -> bool {
    let empty: Vec<usize> = (0..problem.k).filter(|&j| sums.weights[j] == 0.0).collect();
    if empty.is_empty() {
        return false;
    }
    let squared = problem.to_own_centre(centres, labels);
    let mut members = vec![0_usize; problem.k];
    let mut order = Vec::new();
    for (row, &label) in labels.iter().enumerate() {
        if problem.weight(row) > 0.0 {
            members[label as usize] += 1;
            // A mean of equal rows may differ from them by rounding: that is not a distance.
            let noise = rounding::<T>(problem.d).powi(2) * problem.norms[row].to_f64();
            if squared[row].to_f64() > noise {
                order.push(row);
            }
        }
    }
    order.sort_unstable_by(|&a, &b| {
        let (near, far) = (squared[a].to_f64(), squared[b].to_f64());
        far.total_cmp(&near).then(a.cmp(&b))
    });
    let mut moved = labels.to_vec();
    let mut empty = empty.into_iter().peekable();
    let mut any = false;
    for row in order {
        let Some(&target) = empty.peek() else {
            break;
        };
        let own = labels[row] as usize;
        if members[own] > 1 {
            members[own] -= 1;
            moved[row] = target as u32;
            empty.next();
            any = true;
        }
    }
    if any {
        *sums = sum_all(problem, &moved);
    }
    any
}

/// The sums over all rows, chunk by chunk.
fn sum_all<T: Real>(problem: &Problem<'_, T>, labels: &[u32]) -> Sums {
    let &Problem { d, k, chunk, .. } = problem;
    let parts: Vec<Sums> = labels
        .par_chunks(chunk)
        .zip(problem.x.par_chunks(chunk * d))
        .enumerate()
        .map(|(index, (labels, x))| {
            let start = index * chunk;
            let weights = match &problem.weights {
                Some(weights) => &weights[start..start + labels.len()],
                None => &[],
            };
            let mut sums = Sums::new(k, d);
            sum_chunk(&mut sums, x, &problem.shift, labels, weights);
            sums
        })
        .collect();
    let mut total = Sums::new(k, d);
    for part in &parts {
        total.add(part);
    }
    total
}

/// A centre with fewer rows than this share of the fullest one's is starved.
const STARVED: f64 = 0.01;

/// k-means on a stream of chunks (mini-batches): memory for the centres and one chunk only.
///
/// Each chunk's rows go to their nearest centres, then each centre moves to the mean of all the rows it
/// ever got: a row moves its centre with the learning rate 1 / (rows so far) (Sculley 2010, for a whole
/// chunk at once).
///
/// Starved centres, with fewer than 1 % of the rows of the fullest, are moved to random rows of the chunk
/// (at most half as many as the chunk has rows, the most starved first) whenever a centre has no rows at
/// all, and else once in every 10 k rows; a moved centre gets the lowest count of the others, so that it is
/// not moved again at once. The rule is scikit-learn's.
#[derive(Clone, Debug)]
pub struct MiniBatch<T> {
    clusters: usize,
    rng: ChaCha8Rng,
    centres: Option<Array2<T>>,
    counts: Vec<f64>,
    since_reassignment: usize,
}

impl<T: Real> MiniBatch<T> {
    /// A model of `clusters` centres that has seen nothing yet.
    ///
    /// # Errors
    /// No clusters.
    pub fn new(clusters: usize, seed: u64) -> Result<Self, KMeansError> {
        if clusters == 0 {
            return Err(KMeansError::NoClusters);
        }
        Ok(MiniBatch {
            clusters,
            rng: ChaCha8Rng::seed_from_u64(seed),
            centres: None,
            counts: vec![0.0; clusters],
            since_reassignment: 0,
        })
    }

    /// The centres, [k, d]; none before the first chunk.
    pub fn centres(&self) -> Option<ArrayView2<'_, T>> {
        self.centres.as_ref().map(|centres| centres.view())
    }

    /// Number of rows that each centre got so far, `[k]` (a reassigned centre's is set anew).
    pub fn counts(&self) -> &[f64] {
        &self.counts
    }

    /// Learns from one chunk of rows, [m, d]; the first must have at least k rows and chooses the centres
    /// by k-means++.
    ///
    /// Returns the sum of the squared distances of the rows to their nearest centres before the update.
    ///
    /// # Errors
    /// Unusable rows, another width than before, a first chunk with fewer than k rows. The model is then
    /// unchanged.
    pub fn partial_fit(&mut self, x: ArrayView2<'_, T>) -> Result<f64, KMeansError> {
        check_points(x.view())?;
        let data = standard(&x);
        let mut centres = match self.centres.take() {
            Some(centres) => centres,
            None => self.first_centres(&x)?,
        };
        let near = match nearest(x.view(), centres.view()) {
            Ok(near) => near,
            Err(error) => {
                self.centres = Some(centres);
                return Err(error.into());
            }
        };
        let problem = Problem::new(memory(&data), x.ncols(), None, self.clusters);
        let inertia = problem.weighted_sum(&near.squared);
        let sums = sum_all(&problem, &near.indices);
        for (j, mut centre) in centres.outer_iter_mut().enumerate() {
            let new = sums.weights[j];
            if new == 0.0 {
                continue;
            }
            self.counts[j] += new;
            let rate = 1.0 / self.counts[j];
            for (c, value) in centre.iter_mut().enumerate() {
                let total = sums.rows[j * problem.d + c] + new * problem.shift[c].to_f64();
                let old = value.to_f64();
                *value = T::from_f64(old + (total - new * old) * rate);
            }
        }
        self.reassign(&x, &mut centres);
        self.centres = Some(centres);
        Ok(inertia)
    }

    /// The nearest centre of each row of a chunk, [m, d].
    ///
    /// # Errors
    /// No data seen yet, unusable rows, another width than the centres.
    pub fn assign(&self, x: ArrayView2<'_, T>) -> Result<Nearest<T>, KMeansError> {
        let centres = self.centres().ok_or(KMeansError::NotStarted)?;
        Ok(nearest(x, centres)?)
    }

    fn first_centres(&mut self, x: &ArrayView2<'_, T>) -> Result<Array2<T>, KMeansError> {
        check(x, None, self.clusters)?;
        let data = standard(x);
        let problem = Problem::new(memory(&data), x.ncols(), None, self.clusters);
        let rows = plus_plus_rows(&problem, &mut self.rng);
        Ok(Array2::from_shape_fn((rows.len(), x.ncols()), |(j, c)| {
            x[[rows[j], c]]
        }))
    }

    fn reassign(&mut self, x: &ArrayView2<'_, T>, centres: &mut Array2<T>) {
        self.since_reassignment += x.nrows();
        let any_empty = self.counts.contains(&0.0);
        if !any_empty && self.since_reassignment < 10 * self.clusters {
            return;
        }
        self.since_reassignment = 0;
        let fullest = self.counts.iter().copied().fold(0.0, f64::max);
        let mut starved: Vec<usize> = (0..self.clusters)
            .filter(|&j| self.counts[j] < STARVED * fullest)
            .collect();
        starved.sort_by(|&a, &b| self.counts[a].total_cmp(&self.counts[b]));
        starved.truncate(x.nrows() / 2);
        let others = (0..self.clusters).filter(|j| !starved.contains(j));
        let lowest = others.map(|j| self.counts[j]).fold(f64::INFINITY, f64::min);
        let rows = index::sample(&mut self.rng, x.nrows(), starved.len());
        for (&j, row) in starved.iter().zip(rows) {
            centres.row_mut(j).assign(&x.row(row));
            self.counts[j] = lowest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array1, Axis, array, concatenate, s};
    use proptest::prelude::*;

    fn random(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_simple_fn((rows, columns), || rng.random_range(-1.0..1.0))
    }

    /// `count` groups of `rows` rows each, on a line, far apart.
    fn groups(count: usize, rows: usize, columns: usize, seed: u64) -> Array2<f64> {
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

    fn run<T: Real>(x: &Array2<T>, start: &Array2<T>, tolerance: f64, prune: bool) -> KMeans<T> {
        let problem = Problem::new(x.as_slice().unwrap(), x.ncols(), None, start.nrows());
        let start = Targets::new(start.as_slice().unwrap(), problem.shift.clone());
        let threshold = problem.threshold(tolerance);
        lloyd(&problem, start.rows, 300, threshold, prune).finish(&problem)
    }

    /// Lloyd's algorithm from its definition; none if a cluster becomes empty.
    fn by_definition(
        x: &Array2<f64>,
        start: &Array2<f64>,
    ) -> Option<(Vec<u32>, Array2<f64>, usize)> {
        let mut centres = start.clone();
        let mut labels = vec![u32::MAX; x.nrows()];
        for round in 1.. {
            let new: Vec<u32> = x
                .outer_iter()
                .map(|row| {
                    let squared = |j: &usize| (&row - &centres.row(*j)).mapv(|v| v * v).sum();
                    let nearest = (0..centres.nrows())
                        .min_by(|a, b| f64::total_cmp(&squared(a), &squared(b)));
                    nearest.unwrap() as u32
                })
                .collect();
            let same = new == labels;
            labels = new;
            for j in 0..centres.nrows() {
                let members: Vec<usize> =
                    (0..x.nrows()).filter(|&i| labels[i] == j as u32).collect();
                let mean = x.select(Axis(0), &members).mean_axis(Axis(0))?;
                centres.row_mut(j).assign(&mean);
            }
            if same {
                return Some((labels, centres, round));
            }
        }
        None
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
    fn an_empty_cluster_takes_the_farthest_row() {
        let x = array![[0.0], [1.0], [2.0], [9.0]];
        // The second centre gets no row; 9 is farthest from its centre 1.
        let start = array![[1.0], [100.0]];
        let fit = kmeans_from(x.view(), None, start.view(), 10, 0.0).unwrap();
        assert_eq!(fit.labels, vec![0, 0, 0, 1]);
        assert_eq!(fit.centres, array![[1.0], [9.0]]);
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
    fn skipping_rows_changes_nothing() {
        // Several chunks and blocks; data with structure, without it, far from the origin, on a lattice
        // with exact ties, and with one huge outlier.
        let mut outlier = random(2500, 5, 9);
        outlier[[77, 0]] = 1e9;
        let cases = [
            ("groups", groups(6, 500, 9, 7)),
            ("noise", random(5000, 8, 8)),
            ("far", random(2500, 5, 10) + 1e6),
            ("lattice", random(3000, 2, 11).mapv(|v| (v * 4.0).round())),
            ("outlier", outlier),
        ];
        for (name, x) in cases {
            let start = x.slice(s![..; x.nrows() / 17, ..]).to_owned();
            let plain = run(&x, &start, 0.0, false);
            assert_eq!(run(&x, &start, 0.0, true), plain, "{name}");
            let single = x.mapv(|v| v as f32);
            let start = start.mapv(|v| v as f32);
            let plain = run(&single, &start, 0.0, false);
            assert_eq!(run(&single, &start, 0.0, true), plain, "{name}, f32");
        }
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

    #[test]
    fn plus_plus_spreads_over_groups() {
        let x = groups(8, 50, 3, 13);
        for seed in 0..10 {
            let rows = plus_plus(x.view(), None, 8, seed).unwrap();
            let mut hit: Vec<usize> = rows.iter().map(|row| row / 50).collect();
            hit.sort_unstable();
            assert_eq!(hit, (0..8).collect::<Vec<_>>());
        }
    }

    #[test]
    fn draws_follow_the_mass() {
        let mass = [0.0, 1.0, 0.0, 2.0, 0.0, 1.0, 0.0];
        let parts = [1.0, 2.0, 1.0, 0.0];
        let at = |unit| draw(|row| mass[row], &parts, 2, 7, unit);
        let found: Vec<usize> = [0.0, 0.24, 0.25, 0.74, 0.75, 0.999].map(at).to_vec();
        assert_eq!(found, vec![1, 1, 3, 3, 5, 5]);
        assert_eq!(at(1.0), 5);
    }

    #[test]
    fn rows_without_weight_are_never_drawn() {
        let x = random(100, 2, 14);
        let weights: Vec<f64> = (0..100).map(|i| f64::from(u8::from(i % 10 == 0))).collect();
        for seed in 0..5 {
            let rows = plus_plus(x.view(), Some(&weights), 10, seed).unwrap();
            assert!(rows.iter().all(|row| row % 10 == 0), "{rows:?}");
            let problem = Problem::new(x.as_slice().unwrap(), 2, Some(&weights), 10);
            let rows = random_rows(&problem, &mut ChaCha8Rng::seed_from_u64(seed));
            assert!(rows.iter().all(|row| row % 10 == 0), "{rows:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn agrees_with_the_definition(n in 12usize..200, d in 1usize..6, k in 1usize..5, seed: u64) {
            let x = random(n, d, seed);
            let start = x.slice(s![..k, ..]).to_owned();
            let fit = kmeans_from(x.view(), None, start.view(), 1000, 0.0).unwrap();
            let expected = by_definition(&x, &start);
            prop_assume!(expected.is_some());
            let (labels, centres, rounds) = expected.unwrap();
            prop_assert_eq!(&fit.labels, &labels);
            prop_assert_eq!(fit.rounds, rounds);
            prop_assert!((&fit.centres - &centres).iter().all(|v| v.abs() < 1e-12));
        }

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

    #[test]
    fn mini_batch_by_hand() {
        let mut model = MiniBatch::new(1, 0).unwrap();
        let inertia = model.partial_fit(array![[1.0], [3.0]].view()).unwrap();
        assert!(inertia == 4.0, "one of the two rows is the first centre");
        assert_eq!(model.centres().unwrap(), array![[2.0]]);
        assert_eq!(model.partial_fit(array![[8.0]].view()).unwrap(), 36.0);
        // The third row moves the centre by a third of the way.
        assert_eq!(model.centres().unwrap(), array![[4.0]]);
        assert_eq!(model.counts(), &[3.0]);
        let near = model.assign(array![[5.0]].view()).unwrap();
        assert_eq!((near.indices[0], near.squared[0]), (0, 1.0));
    }

    #[test]
    fn mini_batches_find_separate_groups() {
        let x = groups(4, 500, 3, 16);
        let mut model = MiniBatch::new(4, 1).unwrap();
        // Strides mix the groups in each chunk.
        for start in 0..20 {
            model.partial_fit(x.slice(s![start..;20, ..])).unwrap();
        }
        let near = model.assign(x.view()).unwrap();
        let full = kmeans(x.view(), None, &KMeansOptions::new(4)).unwrap();
        let total: f64 = near.squared.iter().sum();
        assert!(total < 1.02 * full.inertia, "{total} {}", full.inertia);
        assert_eq!(model.counts().iter().sum::<f64>(), 2000.0);
    }

    #[test]
    fn mini_batch_moves_a_starved_centre() {
        let near = random(200, 2, 17);
        let mut model = MiniBatch::new(2, 3).unwrap();
        let first = array![[0.0, 0.0], [0.1, 0.0], [1e6, 0.0]];
        model.partial_fit(first.view()).unwrap();
        for _ in 0..3 {
            model.partial_fit(near.view()).unwrap();
        }
        let centres = model.centres().unwrap();
        assert!(centres.iter().all(|v| v.abs() <= 1.0), "{centres}");
        assert!(model.counts().iter().all(|&count| count > 1.0));
    }

    #[test]
    fn mini_batch_bad_input() {
        assert!(matches!(
            MiniBatch::<f64>::new(0, 0),
            Err(KMeansError::NoClusters)
        ));
        let mut model = MiniBatch::new(2, 0).unwrap();
        let one = array![[1.0, 1.0]];
        assert_eq!(
            model.assign(one.view()).unwrap_err(),
            KMeansError::NotStarted
        );
        assert!(matches!(
            model.partial_fit(one.view()),
            Err(KMeansError::TooManyClusters { .. })
        ));
        model.partial_fit(random(5, 2, 18).view()).unwrap();
        let before = model.centres().unwrap().to_owned();
        assert!(model.partial_fit(array![[1.0]].view()).is_err());
        assert!(model.partial_fit(array![[1.0, f64::NAN]].view()).is_err());
        assert_eq!(model.centres().unwrap(), before);
    }
}
