//! Gaussian mixtures by expectation and maximisation, for the methods that need one.
//!
//! Dempster, Laird and Rubin, *Maximum likelihood from incomplete data via the EM algorithm*, 1977. The order of
//! the steps, the rule by which they stop and the ridge are scikit-learn's, so that the same start takes the same
//! path.
//!
//! X \[n, d\] rows; k components with weights w \[k\], means m \[k, d\] and covariances S \[k, d, d\];
//! R \[n, k\] responsibilities: the probability that a row comes from a component.
//! 1. E-step. log p(i, j) = ln w_j - (d ln 2 pi + ln det S_j + |(x_i - m_j) U_j|^2) / 2 where U_j is the inverse of
//!    the transposed Cholesky factor of S_j: one product of a block of rows with a \[d, d\] matrix. R is p divided
//!    by its sum over j, and the log-likelihood is the sum over i of the logarithms of those sums, both with the
//!    largest exponent taken out first.
//! 2. M-step. N_j = sum of R_ij over i; w_j = N_j / n; m_j = sum of R_ij x_i / N_j; S_j from the squares and
//!    products of x_i - m_j, weighted with R_ij / N_j, plus the ridge on the diagonal.
//! 3. Repeat until the log-likelihood per row moves by no more than the tolerance. A last E-step gives the
//!    responsibilities and the log-likelihood of the final parameters.
//!
//! The four forms of S differ in what they share ([`Covariance`]). With one matrix for all components S is the
//! covariance of all rows, computed once, minus that of the means: a round then has no pass over products at all.
//!
//! Rules for the edges:
//! - A component whose N_j falls to 10 machine epsilons keeps its mean and covariance, with that weight. One that
//!   starts so has the mean and covariance of all rows.
//! - A covariance that is not positive definite, or by no more than rounding, gets more on its diagonal: 1e-12 of
//!   its mean diagonal, then ten times as much, until it is. One that is zero is an error that names the ridge.
//! - Responsibilities below 1e-25 are left out of the sums for S; together they stay below their rounding.
//!
//! Threads take blocks of rows whose sizes depend on the shapes only, and sums are added in the order of the
//! blocks, so that the bits do not depend on the number of threads.
//!
//! Cost of a round: full n k d^2 multiplications for the E-step and n a d^2 / 2 for the M-step, where a is the
//! number of components that a row belongs to with more than a negligible share; tied n d^2 + n k d; the others
//! 2 n k d. Memory: 2 n k numbers, and at most 32 + 3 k matrices of d^2 numbers (full).

use faer::linalg::matmul::triangular::{BlockStructure, matmul as matmul_triangular};
use faer::traits::pulp::{Arch, NullaryFnOnce};
use faer::{Accum, MatMut, MatRef, Par};
use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, ArrayViewMut2, Axis};
use papertrial_core::{Error, Result};
use papertrial_numerics::kmeans::{KMeansOptions, kmeans};
use papertrial_numerics::linalg::{
    Cholesky, LinalgError, cholesky, column_means, matmul_into_single,
};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Form of the covariances of a Gaussian mixture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Covariance {
    /// Each component has a matrix of its own.
    Full,
    /// All components share one matrix.
    Tied,
    /// Each component has a variance for each column.
    Diagonal,
    /// Each component has one variance.
    Spherical,
}

/// Covariances in as little memory as their form allows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Covariances {
    /// One matrix a component, \[k, d, d\].
    Full(Array3<f64>),
    /// One matrix for all, \[d, d\].
    Tied(Array2<f64>),
    /// Variances along the columns, \[k, d\].
    Diagonal(Array2<f64>),
    /// One variance a component, \[k\].
    Spherical(Array1<f64>),
}

impl Covariances {
    /// Written out as \[k, d, d\].
    pub(crate) fn full(&self, k: usize, d: usize) -> Array3<f64> {
        let diagonal = |i, j, value| if i == j { value } else { 0.0 };
        match self {
            Covariances::Full(all) => all.clone(),
            Covariances::Tied(one) => Array3::from_shape_fn((k, d, d), |(_, i, j)| one[[i, j]]),
            Covariances::Diagonal(v) => {
                Array3::from_shape_fn((k, d, d), |(c, i, j)| diagonal(i, j, v[[c, i]]))
            }
            Covariances::Spherical(v) => {
                Array3::from_shape_fn((k, d, d), |(c, i, j)| diagonal(i, j, v[c]))
            }
        }
    }
}

/// How a mixture is fitted.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Form of the covariances.
    pub covariance: Covariance,
    /// Added to every variance, in squared units of the data.
    pub ridge: f64,
    /// The fit ends when the mean log-likelihood of a row moves by no more than this in a round.
    pub tolerance: f64,
    /// Rounds at most.
    pub max_rounds: usize,
}

/// A fitted mixture.
#[derive(Debug, Clone)]
pub(crate) struct Mixture {
    /// Share of each component, \[k\]; they sum to 1.
    pub weights: Array1<f64>,
    /// Means, \[k, d\].
    pub means: Array2<f64>,
    /// Covariances, with the ridge.
    pub covariances: Covariances,
    /// Probability that a row comes from a component, \[n, k\].
    pub responsibilities: Array2<f64>,
    /// Log-likelihood of all rows.
    pub log_likelihood: f64,
    /// Rounds done.
    pub rounds: usize,
    /// Whether the tolerance was reached.
    pub converged: bool,
    /// Log-likelihood of all rows before each round and after the last, \[rounds + 1\].
    pub curve: Vec<f64>,
    /// Components without rows in the end.
    pub empty: usize,
    /// Covariances that were not positive definite, counted over all rounds.
    pub repaired: usize,
}

impl Mixture {
    /// The covariances written out as \[k, d, d\].
    pub(crate) fn full_covariances(&self) -> Array3<f64> {
        let (k, d) = self.means.dim();
        self.covariances.full(k, d)
    }

    /// The most probable component of each row, \[n\].
    pub(crate) fn labels(&self) -> Vec<i32> {
        let rows = self.responsibilities.outer_iter();
        rows.map(|row| argmax(row) as i32).collect()
    }

    /// What a reader should know of the fit: that it did not converge, that components are empty, that covariances
    /// were singular.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if !self.converged {
            remarks.push(format!(
                "the mixture did not converge in {} rounds: raise max-rounds or the tolerance",
                self.rounds
            ));
        }
        if self.empty > 0 {
            remarks.push(format!(
                "{} components of the mixture have no rows",
                self.empty
            ));
        }
        if self.repaired > 0 {
            remarks.push(format!(
                "a covariance was singular {} times and got more on its diagonal: raise the ridge, or take fewer clusters",
                self.repaired
            ));
        }
        remarks
    }
}

/// Share, in rows, at which a component counts as empty.
const EMPTY: f64 = 10.0 * f64::EPSILON;

/// Responsibilities below this are left out of the sums for the covariances.
const NEGLIGIBLE: f64 = 1e-25;

/// Rows of one matrix product.
const BLOCK: usize = 256;

/// Rows of a block whose sums a processor holds in its registers; divides `BLOCK`.
const LANES: usize = 32;

/// Parts of a sum over rows at most.
const PARTS: usize = 32;

/// Responsibilities \[n, k\] that give each row wholly to its group.
///
/// # Errors
/// A label of k or more.
pub(crate) fn hard(labels: &[u32], k: usize) -> Result<Array2<f64>> {
    let mut r = Array2::zeros((labels.len(), k));
    for (i, &label) in labels.iter().enumerate() {
        match r.get_mut((i, label as usize)) {
            Some(entry) => *entry = 1.0,
            None => return Err(Error::Failed(format!("row {i} has label {label} of {k}"))),
        }
    }
    Ok(r)
}

/// Responsibilities \[n, k\] from one run of k-means on rows \[n, d\], as scikit-learn starts its mixtures.
///
/// # Errors
/// k is 0 or above n, or the rows are no finite numbers.
pub(crate) fn k_means_start(x: ArrayView2<f64>, k: usize, seed: u64) -> Result<Array2<f64>> {
    let options = KMeansOptions {
        seed,
        ..KMeansOptions::new(k)
    };
    let found = kmeans(x, None, &options).map_err(|e| Error::BadInput(e.to_string()))?;
    hard(&found.labels, k)
}

/// A ridge in squared units of the rows \[n, d\]: `share` of the mean variance of the columns, or `share` itself if
/// all are constant.
pub(crate) fn absolute_ridge(x: ArrayView2<f64>, share: f64) -> f64 {
    let mean = Array1::from(column_means(x)).insert_axis(Axis(0));
    let x = x.as_standard_layout();
    let squares = second_moments(x.view(), &mean, false, |_, _| 1.0);
    let variance = squares.iter().sum::<f64>() / x.len() as f64;
    if variance > 0.0 {
        share * variance
    } else {
        share
    }
}

/// Fits a mixture to rows \[n, d\] from responsibilities \[n, k\].
///
/// # Errors
/// Shapes that do not fit, negative or non-finite input, a component without variance, numbers too large to square.
pub(crate) fn fit(x: ArrayView2<f64>, start: &Array2<f64>, settings: &Settings) -> Result<Mixture> {
    let k = start.ncols();
    check(x, k, settings)?;
    if start.nrows() != x.nrows() {
        return Err(Error::BadInput(format!(
            "the start has {} rows, the data {}",
            start.nrows(),
            x.nrows()
        )));
    }
    if start.iter().any(|r| !(r.is_finite() && *r >= 0.0)) {
        return Err(Error::BadInput(
            "responsibilities must be finite and not negative".into(),
        ));
    }
    let x = x.as_standard_layout();
    let problem = Problem::new(x.view(), settings);
    let mut mixture = problem.begin(problem.repeated_mean(k), start.clone());
    let sums = sweep(problem.x, &mut mixture.responsibilities, None);
    problem.maximise(&mut mixture, &sums);
    problem.improve(mixture)
}

/// Fits a mixture to rows \[n, d\] from means \[k, d\], equal weights and the covariance of all rows.
///
/// # Errors
/// As [`fit`].
pub(crate) fn fit_from_means(
    x: ArrayView2<f64>,
    means: Array2<f64>,
    settings: &Settings,
) -> Result<Mixture> {
    let (k, d) = means.dim();
    check(x, k, settings)?;
    if d != x.ncols() {
        return Err(Error::BadInput(format!(
            "the means have {d} columns, the data {}",
            x.ncols()
        )));
    }
    let x = x.as_standard_layout();
    let problem = Problem::new(x.view(), settings);
    let responsibilities = Array2::zeros((x.nrows(), k));
    problem.improve(problem.begin(means, responsibilities))
}

fn check(x: ArrayView2<f64>, k: usize, settings: &Settings) -> Result<()> {
    papertrial_numerics::distance::check_points(x).map_err(|e| Error::BadInput(e.to_string()))?;
    if k == 0 {
        return Err(Error::BadInput(
            "a mixture needs at least one component".into(),
        ));
    }
    if !(settings.ridge.is_finite() && settings.ridge >= 0.0) {
        return Err(Error::option("ridge", "must be finite and not negative"));
    }
    if settings.tolerance.is_nan() || settings.max_rounds == 0 {
        return Err(Error::BadInput(
            "a mixture needs a tolerance and at least one round".into(),
        ));
    }
    Ok(())
}

/// The data of one fit, and what is computed from it once.
struct Problem<'a> {
    /// Rows \[n, d\], row-major.
    x: ArrayView2<'a, f64>,
    settings: &'a Settings,
    /// Mean of all rows, \[d\].
    mean: Array1<f64>,
    /// Covariance \[d, d\] of all rows, or their variances \[d, 1\] where the form needs no more; divisor n.
    whole: Array2<f64>,
}

impl<'a> Problem<'a> {
    fn new(x: ArrayView2<'a, f64>, settings: &'a Settings) -> Self {
        let (n, d) = x.dim();
        let mean = Array1::from(column_means(x));
        let pairs = matches!(settings.covariance, Covariance::Full | Covariance::Tied);
        let centre = mean.clone().insert_axis(Axis(0));
        let sums = second_moments(x, &centre, pairs, |_, _| 1.0);
        let width = if pairs { d } else { 1 };
        let whole = Array2::from_shape_fn((d, width), |(i, j)| sums[i * width + j] / n as f64);
        Problem {
            x,
            settings,
            mean,
            whole,
        }
    }

    fn repeated_mean(&self, k: usize) -> Array2<f64> {
        Array2::from_shape_fn((k, self.mean.len()), |(_, c)| self.mean[c])
    }

    /// A mixture with these means, equal weights and the covariance of all rows.
    fn begin(&self, means: Array2<f64>, responsibilities: Array2<f64>) -> Mixture {
        let (k, d) = means.dim();
        let ridge = self.settings.ridge;
        let whole = &self.whole;
        let entry = |i, j| whole[[i, j]] + if i == j { ridge } else { 0.0 };
        let covariances = match self.settings.covariance {
            Covariance::Full => {
                Covariances::Full(Array3::from_shape_fn((k, d, d), |(_, i, j)| entry(i, j)))
            }
            Covariance::Tied => {
                Covariances::Tied(Array2::from_shape_fn((d, d), |(i, j)| entry(i, j)))
            }
            Covariance::Diagonal => {
                Covariances::Diagonal(Array2::from_shape_fn((k, d), |(_, c)| {
                    whole[[c, 0]] + ridge
                }))
            }
            Covariance::Spherical => {
                Covariances::Spherical(Array1::from_elem(k, whole.sum() / d as f64 + ridge))
            }
        };
        Mixture {
            weights: Array1::from_elem(k, 1.0 / k as f64),
            means,
            covariances,
            responsibilities,
            log_likelihood: f64::NEG_INFINITY,
            rounds: 0,
            converged: false,
            curve: Vec::new(),
            empty: 0,
            repaired: 0,
        }
    }

    /// Rounds of E-step and M-step until nothing moves, then a last E-step.
    fn improve(&self, mut mixture: Mixture) -> Result<Mixture> {
        let n = self.x.nrows() as f64;
        while mixture.rounds < self.settings.max_rounds && !mixture.converged {
            let before = mixture.log_likelihood;
            let sums = self.expect(&mut mixture)?;
            self.maximise(&mut mixture, &sums);
            mixture.rounds += 1;
            // In the first round there is nothing to compare with: the gain is infinite.
            let gain = (mixture.log_likelihood - before) / n;
            mixture.converged = gain.abs() <= self.settings.tolerance;
        }
        self.expect(&mut mixture)?;
        Ok(mixture)
    }

    /// Step 1.
    fn expect(&self, mixture: &mut Mixture) -> Result<Sums> {
        let (density, repaired) = Density::new(
            &mixture.weights,
            &mixture.means,
            &mut mixture.covariances,
            REPAIRS,
        )?;
        mixture.repaired += repaired;
        let sums = sweep(self.x, &mut mixture.responsibilities, Some(&density));
        mixture.log_likelihood = checked(sums.log_likelihood)?;
        mixture.curve.push(sums.log_likelihood);
        Ok(sums)
    }

    /// Step 2.
    fn maximise(&self, mixture: &mut Mixture, sums: &Sums) {
        let (k, d) = mixture.means.dim();
        let ridge = self.settings.ridge;
        let full: Vec<usize> = (0..k).filter(|&j| sums.mass[j] > EMPTY).collect();
        mixture.empty = k - full.len();
        let total: f64 = sums.mass.iter().map(|mass| mass.max(EMPTY)).sum();
        mixture.weights = sums
            .mass
            .iter()
            .map(|mass| mass.max(EMPTY) / total)
            .collect();
        for &j in &full {
            for c in 0..d {
                mixture.means[[j, c]] = sums.weighted[[j, c]] / sums.mass[j];
            }
        }
        let means = &mixture.means;
        let r = mixture.responsibilities.view();
        let r = memory(&r);
        let moments = |pairs| second_moments(self.x, means, pairs, |i, j| r[i * k + j]);
        match &mut mixture.covariances {
            Covariances::Full(all) => {
                let moments = moments(true);
                for &j in &full {
                    let part = &moments[j * d * d..][..d * d];
                    for (entry, sum) in all.index_axis_mut(Axis(0), j).iter_mut().zip(part) {
                        *entry = sum / sums.mass[j];
                    }
                    all.index_axis_mut(Axis(0), j)
                        .diag_mut()
                        .iter_mut()
                        .for_each(|v| *v += ridge);
                }
            }
            Covariances::Tied(one) => {
                let mut apart = Array2::zeros((full.len(), d));
                for (mut row, &j) in apart.outer_iter_mut().zip(&full) {
                    let share = (sums.mass[j] / total).sqrt();
                    row.assign(&((&means.row(j) - &self.mean) * share));
                }
                one.assign(&self.whole);
                matmul_into_single(one.view_mut(), -1.0, apart.t(), apart.view(), 1.0);
                one.diag_mut().iter_mut().for_each(|v| *v += ridge);
            }
            Covariances::Diagonal(variances) => {
                let moments = moments(false);
                for &j in &full {
                    for c in 0..d {
                        variances[[j, c]] = moments[j * d + c] / sums.mass[j] + ridge;
                    }
                }
            }
            Covariances::Spherical(variances) => {
                let moments = moments(false);
                for &j in &full {
                    let sum: f64 = moments[j * d..][..d].iter().sum();
                    variances[j] = sum / (sums.mass[j] * d as f64) + ridge;
                }
            }
        }
    }
}

fn checked(log_likelihood: f64) -> Result<f64> {
    if log_likelihood.is_finite() {
        Ok(log_likelihood)
    } else {
        Err(Error::Failed(
            "the log-likelihood of the mixture is not finite: standardise the columns, or raise the ridge".into(),
        ))
    }
}

/// Calls `work` compiled for the widest vectors of this processor; what it calls must be inlined.
#[inline(always)]
fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}

/// Sums over rows and weights of squares (`pairs` false: \[k, d\]) or of products of two columns (`pairs` true:
/// \[k, d, d\]) of the differences to the means \[k, d\]; `weight` is that of a row in a component.
fn second_moments(
    x: ArrayView2<f64>,
    means: &Array2<f64>,
    pairs: bool,
    weight: impl Fn(usize, usize) -> f64 + Sync,
) -> Vec<f64> {
    let (n, d) = x.dim();
    let k = means.nrows();
    let (x, means) = (memory(&x), means.as_standard_layout());
    let width = if pairs { d * d } else { d };
    let parts = (PARTS / k).clamp(1, n.div_ceil(8 * BLOCK));
    let rows = n.div_ceil(parts);
    let sums: Vec<Vec<f64>> = (0..k * parts)
        .into_par_iter()
        .map(|task| {
            let (j, part) = (task / parts, task % parts);
            let (first, last) = ((part * rows).min(n), ((part + 1) * rows).min(n));
            let rows = x[first * d..last * d].chunks_exact(d).enumerate();
            let rows = rows
                .map(|(i, row)| (weight(first + i, j), row))
                .filter(|(weight, _)| *weight > NEGLIGIBLE);
            let mean = means.row(j).to_vec();
            let mut out = vec![0.0; width];
            if pairs {
                add_products(&mut out, rows, &mean);
            } else {
                add_squares(&mut out, rows, &mean);
            }
            out
        })
        .collect();
    let mut total = vec![0.0; k * width];
    for (task, part) in sums.iter().enumerate() {
        let into = &mut total[task / parts * width..][..width];
        into.iter_mut()
            .zip(part)
            .for_each(|(sum, value)| *sum += value);
    }
    if pairs {
        for matrix in total.chunks_exact_mut(width) {
            for i in 0..d {
                for j in 0..i {
                    matrix[j * d + i] = matrix[i * d + j];
                }
            }
        }
    }
    total
}

/// Adds the weighted squares of rows minus the mean \[d\] to `out` \[d\].
fn add_squares<'a>(out: &mut [f64], rows: impl Iterator<Item = (f64, &'a [f64])>, mean: &[f64]) {
    vectorised(|| {
        for (weight, row) in rows {
            for ((sum, value), mean) in out.iter_mut().zip(row).zip(mean) {
                let difference = value - mean;
                *sum += weight * difference * difference;
            }
        }
    });
}

/// Adds the weighted products of the columns of rows minus the mean \[d\] to the lower triangle of `out` \[d, d\].
fn add_products<'a>(out: &mut [f64], rows: impl Iterator<Item = (f64, &'a [f64])>, mean: &[f64]) {
    let d = mean.len();
    let mut packed = vec![0.0; BLOCK * d];
    let mut rows = rows.peekable();
    while rows.peek().is_some() {
        let mut filled = 0;
        vectorised(|| {
            for (packed, (weight, row)) in packed.chunks_exact_mut(d).zip(&mut rows) {
                let root = weight.sqrt();
                for ((packed, value), mean) in packed.iter_mut().zip(row).zip(mean) {
                    *packed = (value - mean) * root;
                }
                filled += 1;
            }
        });
        let packed = MatRef::from_row_major_slice(&packed[..filled * d], filled, d);
        matmul_triangular(
            MatMut::from_row_major_slice_mut(out, d, d),
            BlockStructure::TriangularLower,
            Accum::Add,
            packed.transpose(),
            BlockStructure::Rectangular,
            packed,
            BlockStructure::Rectangular,
            1.0,
            Par::Seq,
        );
    }
}

/// The memory of a matrix in row-major order.
fn memory<'a>(x: &ArrayView2<'a, f64>) -> &'a [f64] {
    // Whoever calls has brought the matrix into this order; the fallback is never taken.
    x.to_slice().unwrap_or(&[])
}

/// What the M-step needs of one pass over the rows.
struct Sums {
    /// Log-likelihood of all rows; 0 if no density was given.
    log_likelihood: f64,
    /// Responsibility that each component has, \[k\].
    mass: Array1<f64>,
    /// Rows summed with their responsibilities, \[k, d\].
    weighted: Array2<f64>,
}

impl Sums {
    fn new(k: usize, d: usize) -> Self {
        Sums {
            log_likelihood: 0.0,
            mass: Array1::zeros(k),
            weighted: Array2::zeros((k, d)),
        }
    }

    fn add_mass(&mut self, r: ArrayView2<f64>) {
        for row in memory(&r).chunks_exact(self.mass.len()) {
            for (mass, value) in self.mass.iter_mut().zip(row) {
                *mass += value;
            }
        }
    }
}

/// One pass over the rows \[n, d\]: with a density it replaces the responsibilities \[n, k\] by the density's, and
/// in any case it sums.
fn sweep(x: ArrayView2<f64>, r: &mut Array2<f64>, density: Option<&Density>) -> Sums {
    let (n, d) = x.dim();
    let k = r.ncols();
    let rows = n.div_ceil(PARTS).max(1).next_multiple_of(BLOCK);
    let chunks = r.axis_chunks_iter_mut(Axis(0), rows);
    let chunks: Vec<_> = chunks.zip(x.axis_chunks_iter(Axis(0), rows)).collect();
    let parts: Vec<Sums> = chunks
        .into_par_iter()
        .map(|(mut r, x)| {
            let mut sums = Sums::new(k, d);
            let mut scratch = Scratch::new(k, d);
            let blocks = r.axis_chunks_iter_mut(Axis(0), BLOCK);
            for (mut r, x) in blocks.zip(x.axis_chunks_iter(Axis(0), BLOCK)) {
                if let Some(density) = density {
                    density.log_joint(x, &mut scratch);
                    sums.log_likelihood += scratch.normalise(&mut r);
                }
                sums.add_mass(r.view());
                matmul_into_single(sums.weighted.view_mut(), 1.0, r.t(), x, 1.0);
            }
            sums
        })
        .collect();
    let mut total = Sums::new(k, d);
    for part in &parts {
        total.log_likelihood += part.log_likelihood;
        total.mass += &part.mass;
        total.weighted += &part.weighted;
    }
    total
}

/// Memory of one thread. Blocks of rows lie column by column, so that loops over the rows of a block run on vectors.
struct Scratch {
    /// Rows, \[d, BLOCK\].
    x: Vec<f64>,
    /// Rows minus a mean, \[d, BLOCK\].
    centred: Vec<f64>,
    /// Rows in coordinates in which a component is a unit ball, \[d, BLOCK\].
    white: Vec<f64>,
    /// log p(i, j), \[k, BLOCK\].
    logs: Vec<f64>,
}

impl Scratch {
    fn new(k: usize, d: usize) -> Self {
        Scratch {
            x: vec![0.0; d * BLOCK],
            centred: vec![0.0; d * BLOCK],
            white: vec![0.0; d * BLOCK],
            logs: vec![0.0; k * BLOCK],
        }
    }

    /// Turns the first rows of `logs` into responsibilities \[m, k\]; the sum of their log densities.
    fn normalise(&mut self, r: &mut ArrayViewMut2<f64>) -> f64 {
        let (m, k) = r.dim();
        let mut largest = [f64::NEG_INFINITY; BLOCK];
        let mut total = [0.0; BLOCK];
        vectorised(|| {
            for logs in self.logs.chunks_exact(BLOCK) {
                for (largest, &log) in largest.iter_mut().zip(logs) {
                    *largest = if log > *largest { log } else { *largest };
                }
            }
        });
        for logs in self.logs.chunks_exact_mut(BLOCK) {
            for i in 0..m {
                logs[i] = (logs[i] - largest[i]).exp();
                total[i] += logs[i];
            }
        }
        for (i, row) in r
            .as_slice_mut()
            .unwrap_or_default()
            .chunks_exact_mut(k)
            .enumerate()
        {
            let share = total[i].recip();
            for (r, logs) in row.iter_mut().zip(self.logs.chunks_exact(BLOCK)) {
                *r = logs[i] * share;
            }
        }
        (0..m).map(|i| largest[i] + total[i].ln()).sum()
    }
}

/// A mixture in the form in which densities are computed.
struct Density {
    /// ln w_j - (d ln 2 pi + ln det S_j) / 2, \[k\].
    constants: Vec<f64>,
    /// Means \[k, d\], in the coordinates of `form`.
    means: Array2<f64>,
    form: Form,
}

enum Form {
    /// The transpose of U of each component, \[k, d, d\].
    Full(Array3<f64>),
    /// The transpose of the common U \[d, d\], and a point \[d\] amid the means that is subtracted first, so that
    /// little is lost when products are subtracted.
    Tied(Array2<f64>, Array1<f64>),
    /// One over the standard deviations, \[k, d\].
    Axes(Array2<f64>),
}

/// How often a covariance's diagonal may grow until it is positive definite: 1e-12 to 1 of its mean.
const REPAIRS: i32 = 13;

impl Density {
    /// Factorises the covariances; those that are not positive definite are repaired in place, in at most `repairs`
    /// steps, and counted.
    fn new(
        weights: &Array1<f64>,
        means: &Array2<f64>,
        covariances: &mut Covariances,
        repairs: i32,
    ) -> Result<(Density, usize)> {
        let (k, d) = means.dim();
        let mut repaired = 0;
        let mut log_dets = vec![0.0; k];
        let mut placed = means.clone();
        let form = match covariances {
            Covariances::Full(all) => {
                let mut factors = Array3::zeros((k, d, d));
                for (j, log_det) in log_dets.iter_mut().enumerate() {
                    let factor = factor(all.index_axis_mut(Axis(0), j), j, repairs)?;
                    factors.index_axis_mut(Axis(0), j).assign(&factor.inverse);
                    *log_det = factor.log_det;
                    repaired += usize::from(factor.repaired);
                }
                Form::Full(factors)
            }
            Covariances::Tied(one) => {
                let factor = factor(one.view_mut(), 0, repairs)?;
                log_dets.fill(factor.log_det);
                repaired += usize::from(factor.repaired);
                let amid = weights.dot(means);
                placed = (means - &amid).dot(&factor.inverse.t());
                Form::Tied(factor.inverse, amid)
            }
            Covariances::Diagonal(variances) => {
                for (j, mut row) in variances.outer_iter_mut().enumerate() {
                    let mean = row.sum() / d as f64;
                    let repair = repairs > 0 && mean > 0.0;
                    let floor = if repair { FIRST_REPAIR * mean } else { 0.0 };
                    if row.iter().any(|v| *v <= 0.0) && repair {
                        row.mapv_inplace(|v| if v <= 0.0 { floor } else { v });
                        repaired += 1;
                    }
                    if !row.iter().all(|v| *v > 0.0 && v.is_finite()) {
                        return Err(no_variance(j));
                    }
                    log_dets[j] = row.iter().map(|v| v.ln()).sum();
                }
                Form::Axes(variances.mapv(|v| v.sqrt().recip()))
            }
            Covariances::Spherical(variances) => {
                for (j, v) in variances.iter().enumerate() {
                    if !(*v > 0.0 && v.is_finite()) {
                        return Err(no_variance(j));
                    }
                    log_dets[j] = d as f64 * v.ln();
                }
                Form::Axes(Array2::from_shape_fn((k, d), |(j, _)| {
                    variances[j].sqrt().recip()
                }))
            }
        };
        let volume = d as f64 * std::f64::consts::TAU.ln();
        let constants = weights.iter().zip(log_dets);
        let constants = constants
            .map(|(w, log_det)| w.ln() - 0.5 * (volume + log_det))
            .collect();
        Ok((
            Density {
                constants,
                means: placed,
                form,
            },
            repaired,
        ))
    }

    /// log p(i, j) of at most `BLOCK` rows \[m, d\], into `scratch.logs`.
    fn log_joint(&self, x: ArrayView2<f64>, scratch: &mut Scratch) {
        let (m, d) = x.dim();
        let x = memory(&x);
        // Few columns at a time, so that both sides of the transposition stay in the cache.
        for (first, columns) in (0..d).step_by(8).zip(scratch.x.chunks_mut(8 * BLOCK)) {
            for (i, row) in x.chunks_exact(d).enumerate() {
                for (column, value) in columns.chunks_exact_mut(BLOCK).zip(&row[first..]) {
                    column[i] = *value;
                }
            }
        }
        let Scratch {
            x: rows,
            centred,
            white,
            logs,
        } = scratch;
        let mut columns = vec![(0.0, 1.0); d];
        if let Form::Tied(factor, amid) = &self.form {
            subtract(centred, rows, amid.view());
            whiten(white, centred, factor.view(), m);
        }
        for (j, logs) in logs.chunks_exact_mut(BLOCK).enumerate() {
            let mean = self.means.row(j);
            let rows = match &self.form {
                Form::Full(factors) => {
                    subtract(centred, rows, mean);
                    whiten(white, centred, factors.index_axis(Axis(0), j), m);
                    &*white
                }
                Form::Tied(..) => {
                    columns
                        .iter_mut()
                        .zip(mean)
                        .for_each(|(c, mean)| c.0 = *mean);
                    &*white
                }
                Form::Axes(scales) => {
                    let pairs = mean.iter().zip(scales.row(j));
                    columns
                        .iter_mut()
                        .zip(pairs)
                        .for_each(|(c, (mean, scale))| *c = (*mean, *scale));
                    &*rows
                }
            };
            Arch::new().dispatch(Heights {
                rows,
                columns: &columns,
                constant: self.constants[j],
                logs,
            });
        }
    }
}

/// The constant of a component minus half the squared norm of (rows - mean) scale, for a block of rows \[d, BLOCK\].
struct Heights<'a> {
    rows: &'a [f64],
    /// Mean and scale of each column, \[d\].
    columns: &'a [(f64, f64)],
    constant: f64,
    /// Receives the results, \[BLOCK\].
    logs: &'a mut [f64],
}

// A struct rather than a closure, because only a function can be told to be inlined into its vectorised caller.
impl NullaryFnOnce for Heights<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (start, logs) in (0..BLOCK)
            .step_by(LANES)
            .zip(self.logs.chunks_exact_mut(LANES))
        {
            let mut sums = [0.0; LANES];
            for (values, (mean, scale)) in self.rows.chunks_exact(BLOCK).zip(self.columns) {
                for (sum, value) in sums.iter_mut().zip(&values[start..start + LANES]) {
                    let value = (value - mean) * scale;
                    *sum += value * value;
                }
            }
            for (log, sum) in logs.iter_mut().zip(sums) {
                *log = self.constant - 0.5 * sum;
            }
        }
    }
}

/// `out` = rows minus a mean, all \[d, BLOCK\].
fn subtract(out: &mut [f64], rows: &[f64], mean: ArrayView1<f64>) {
    vectorised(|| {
        let columns = out.chunks_exact_mut(BLOCK).zip(rows.chunks_exact(BLOCK));
        for ((out, column), mean) in columns.zip(mean) {
            for (out, value) in out.iter_mut().zip(column) {
                *out = value - mean;
            }
        }
    });
}

/// `out` = rows times the transpose of `factor`, for m rows of blocks \[d, BLOCK\].
fn whiten(out: &mut [f64], rows: &[f64], factor: ArrayView2<f64>, m: usize) {
    let d = factor.nrows();
    // A factor is a whole matrix of its own; the fallback is never taken.
    let factor = MatRef::from_row_major_slice(factor.to_slice().unwrap_or(&[]), d, d);
    matmul_triangular(
        MatMut::from_column_major_slice_with_stride_mut(out, m, d, BLOCK),
        BlockStructure::Rectangular,
        Accum::Replace,
        MatRef::from_column_major_slice_with_stride(rows, m, d, BLOCK),
        BlockStructure::Rectangular,
        factor.transpose(),
        BlockStructure::TriangularUpper,
        1.0,
        Par::Seq,
    );
}

struct Factor {
    /// Inverse of the lower Cholesky factor, \[d, d\].
    inverse: Array2<f64>,
    log_det: f64,
    repaired: bool,
}

/// What is added to the diagonal first, as a share of its mean.
const FIRST_REPAIR: f64 = 1e-12;

/// Factorises the covariance of component j, after at most `repairs` additions to its diagonal.
fn factor(mut covariance: ArrayViewMut2<f64>, j: usize, repairs: i32) -> Result<Factor> {
    let d = covariance.nrows();
    let size = covariance.diag().sum() / d as f64;
    let mut added = 0.0;
    for attempt in 0..=repairs {
        match cholesky(covariance.view()) {
            Ok(factor) if attempt == repairs || !rounded_away(&factor, covariance.view()) => {
                return Ok(Factor {
                    inverse: factor.solve_lower(Array2::eye(d).view()),
                    log_det: factor.log_det(),
                    repaired: attempt > 0,
                });
            }
            Ok(_) | Err(LinalgError::NotPositiveDefinite { .. }) if size > 0.0 => {
                let wanted = size * FIRST_REPAIR * 10_f64.powi(attempt);
                covariance
                    .diag_mut()
                    .iter_mut()
                    .for_each(|v| *v += wanted - added);
                added = wanted;
            }
            _ => break,
        }
    }
    Err(no_variance(j))
}

/// Whether a column's variance, given the columns before it, is rounding noise: the factor exists by chance only.
fn rounded_away(factor: &Cholesky, covariance: ArrayView2<f64>) -> bool {
    let lower = factor.lower();
    let noise = 4.0 * f64::EPSILON * lower.nrows() as f64;
    let left = lower.diag().mapv(|pivot| pivot * pivot);
    left.iter()
        .zip(covariance.diag())
        .any(|(left, all)| *left <= noise * all)
}

fn no_variance(j: usize) -> Error {
    Error::Failed(format!(
        "the covariance of component {j} is not positive definite: raise the ridge, or take fewer clusters"
    ))
}

/// The probability \[m, k\] that each of the rows \[m, d\] comes from each component, and the log-likelihood of all
/// rows.
///
/// # Errors
/// Rows of another width, or so far away that no density is above zero.
pub(crate) fn responsibilities(
    x: ArrayView2<f64>,
    mixture: &Mixture,
) -> Result<(Array2<f64>, f64)> {
    let mut covariances = mixture.covariances.clone();
    evaluate(x, &mixture.weights, &mixture.means, &mut covariances)
}

/// The probability \[m, k\] that each of the rows \[m, d\] comes from each component, from weights \[k\], means
/// \[k, d\] and covariances \[k, d, d\].
///
/// # Errors
/// Shapes that do not fit, weights that are negative, a covariance that is not positive definite, rows so far away
/// that no density is above zero.
pub(crate) fn posteriors(
    x: ArrayView2<f64>,
    weights: &Array1<f64>,
    means: &Array2<f64>,
    covariances: &Array3<f64>,
) -> Result<Array2<f64>> {
    let mut covariances = Covariances::Full(covariances.as_standard_layout().into_owned());
    Ok(evaluate(x, weights, means, &mut covariances)?.0)
}

fn evaluate(
    x: ArrayView2<f64>,
    weights: &Array1<f64>,
    means: &Array2<f64>,
    covariances: &mut Covariances,
) -> Result<(Array2<f64>, f64)> {
    let (k, d) = means.dim();
    let fits = match covariances {
        Covariances::Full(all) => all.dim() == (k, d, d),
        Covariances::Tied(one) => one.dim() == (d, d),
        Covariances::Diagonal(variances) => variances.dim() == (k, d),
        Covariances::Spherical(variances) => variances.len() == k,
    };
    if !fits || k == 0 || d == 0 || weights.len() != k || x.ncols() != d {
        return Err(Error::BadInput(format!(
            "the mixture has {} weights and {k} means of {d} columns; its covariances or the rows, of {} columns, do not fit",
            weights.len(),
            x.ncols()
        )));
    }
    if weights.iter().any(|w| !(w.is_finite() && *w >= 0.0)) {
        return Err(Error::BadInput(
            "the weights of a mixture must be finite and not negative".into(),
        ));
    }
    let (density, _) = Density::new(weights, means, covariances, 0)?;
    let x = x.as_standard_layout();
    let mut r = Array2::zeros((x.nrows(), k));
    let sums = sweep(x.view(), &mut r, Some(&density));
    Ok((r, checked(sums.log_likelihood)?))
}

/// Position of the largest entry; of equal ones the first.
pub(crate) fn argmax(row: ArrayView1<f64>) -> usize {
    let mut best = 0;
    for (j, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = j;
        }
    }
    best
}

/// Number of free parameters of a mixture of k components in d columns.
pub(crate) fn free_parameters(k: usize, d: usize, covariance: Covariance) -> usize {
    let spread = match covariance {
        Covariance::Full => k * d * (d + 1) / 2,
        Covariance::Tied => d * (d + 1) / 2,
        Covariance::Diagonal => k * d,
        Covariance::Spherical => k,
    };
    (k - 1) + k * d + spread
}

/// Bayesian information criterion; less is better.
pub(crate) fn bic(log_likelihood: f64, parameters: usize, n: usize) -> f64 {
    -2.0 * log_likelihood + parameters as f64 * (n as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{array, concatenate, s};
    use proptest::prelude::*;

    const FORMS: [Covariance; 4] = [
        Covariance::Full,
        Covariance::Tied,
        Covariance::Diagonal,
        Covariance::Spherical,
    ];

    fn settings(covariance: Covariance, ridge: f64, max_rounds: usize) -> Settings {
        Settings {
            covariance,
            ridge,
            tolerance: 0.0,
            max_rounds,
        }
    }

    /// Numbers in [-0.5, 0.5) without a pattern that a fit could find.
    fn noise(n: usize, d: usize, seed: u64) -> Array2<f64> {
        use rand::RngExt;
        let mut rng = papertrial_numerics::sampling::rng(seed, "noise");
        Array2::from_shape_fn((n, d), |_| rng.random::<f64>() - 0.5)
    }

    /// Two oblong heaps, one of them turned.
    fn heaps(n: usize, seed: u64) -> (Array2<f64>, Array2<f64>) {
        let mut x = noise(n, 3, seed);
        for (i, mut row) in x.outer_iter_mut().enumerate() {
            row[0] *= 3.0;
            row[1] += 0.7 * row[0];
            if i % 3 == 0 {
                row[0] = -row[0] + 1.5;
                row[2] *= 0.2;
            }
        }
        let labels: Vec<u32> = (0..n).map(|i| u32::from(i % 3 == 0)).collect();
        (x, hard(&labels, 2).unwrap())
    }

    /// Log-likelihood and posteriors from the textbook formula for two columns, with determinant and inverse written
    /// out.
    fn by_hand(
        x: &Array2<f64>,
        w: &Array1<f64>,
        m: &Array2<f64>,
        s: &Array3<f64>,
    ) -> (f64, Array2<f64>) {
        let mut r = Array2::zeros((x.nrows(), w.len()));
        let mut total = 0.0;
        for i in 0..x.nrows() {
            for j in 0..w.len() {
                let (a, b, c) = (s[[j, 0, 0]], s[[j, 0, 1]], s[[j, 1, 1]]);
                let det = a * c - b * b;
                let (u, v) = (x[[i, 0]] - m[[j, 0]], x[[i, 1]] - m[[j, 1]]);
                let q = (c * u * u - 2.0 * b * u * v + a * v * v) / det;
                r[[i, j]] = w[j] * (-0.5 * q).exp() / (std::f64::consts::TAU * det.sqrt());
            }
            let sum = r.row(i).sum();
            total += sum.ln();
            r.row_mut(i).mapv_inplace(|p| p / sum);
        }
        (total, r)
    }

    fn close(a: f64, b: f64, relative: f64) -> bool {
        (a - b).abs() <= relative * a.abs().max(b.abs()).max(1.0)
    }

    #[test]
    fn one_component_is_the_sample_mean_and_variance() {
        // Mean 3, variance ((1-3)^2 + (5-3)^2) / 2 = 4; two points at z = 1 and -1:
        // ln p = 2 (-ln(2 pi) / 2 - ln 2 - 1 / 2).
        let x = array![[1.0], [5.0]];
        for form in FORMS {
            let fitted = fit(x.view(), &array![[1.0], [1.0]], &settings(form, 0.0, 5)).unwrap();
            assert_eq!(fitted.weights, array![1.0]);
            assert_eq!(fitted.means, array![[3.0]]);
            assert_eq!(fitted.full_covariances(), array![[[4.0]]], "{form:?}");
            let log = -std::f64::consts::TAU.ln() - 2.0 * 2_f64.ln() - 1.0;
            assert!(close(fitted.log_likelihood, log, 1e-14));
            // The start is the solution: the second round shows that nothing moves.
            assert!(fitted.converged && fitted.rounds == 2);
            assert_eq!(fitted.curve.len(), 3);
        }
    }

    #[test]
    fn first_m_step_of_each_form_is_that_of_hand() {
        // Group 0: (0,0), (2,2); group 1: (10,0), (12,0). With no weight shared and far apart, one round returns the
        // moments of the groups.
        let x = array![[0.0, 0.0], [2.0, 2.0], [110.0, 0.0], [112.0, 0.0]];
        let start = hard(&[0, 0, 1, 1], 2).unwrap();
        let found = |form| {
            let fitted = fit(x.view(), &start, &settings(form, 0.5, 1)).unwrap();
            assert_eq!(fitted.weights, array![0.5, 0.5]);
            fitted.full_covariances()
        };
        let near = |a: Array3<f64>, b: Array3<f64>| {
            assert!((&a - &b).iter().all(|d| d.abs() < 1e-10), "{a} {b}");
        };
        near(
            found(Covariance::Full),
            array![[[1.5, 1.0], [1.0, 1.5]], [[1.5, 0.0], [0.0, 0.5]]],
        );
        near(
            found(Covariance::Tied),
            array![[[1.5, 0.5], [0.5, 1.0]], [[1.5, 0.5], [0.5, 1.0]]],
        );
        near(
            found(Covariance::Diagonal),
            array![[[1.5, 0.0], [0.0, 1.5]], [[1.5, 0.0], [0.0, 0.5]]],
        );
        near(
            found(Covariance::Spherical),
            array![[[1.5, 0.0], [0.0, 1.5]], [[1.0, 0.0], [0.0, 1.0]]],
        );
    }

    #[test]
    fn every_form_agrees_with_the_textbook_density() {
        // More rows than a block, and not a whole number of blocks.
        let (x, start) = heaps(3 * BLOCK + 7, 1);
        let x = x.slice_move(s![.., ..2]);
        for form in FORMS {
            let fitted = fit(x.view(), &start, &settings(form, 1e-9, 7)).unwrap();
            let covariances = fitted.full_covariances();
            let (log, r) = by_hand(&x, &fitted.weights, &fitted.means, &covariances);
            assert!(close(fitted.log_likelihood, log, 1e-12), "{form:?}");
            let differences = &r - &fitted.responsibilities;
            assert!(differences.iter().all(|d| d.abs() < 1e-11), "{form:?}");
            // The other two ways to the same numbers.
            let (again, total) = responsibilities(x.view(), &fitted).unwrap();
            assert_eq!(again, fitted.responsibilities);
            assert_eq!(total, fitted.log_likelihood);
            let posterior = posteriors(x.view(), &fitted.weights, &fitted.means, &covariances);
            let differences = posterior.unwrap() - &r;
            assert!(differences.iter().all(|d| d.abs() < 1e-11), "{form:?}");
            // A maximum over the parameters: the gradient in the means, sum of R (x - m), is as good as zero.
            if fitted.converged {
                let sums = fitted.responsibilities.t().dot(&x);
                for j in 0..2 {
                    let mass = fitted.responsibilities.column(j).sum();
                    for c in 0..2 {
                        assert!(close(sums[[j, c]], mass * fitted.means[[j, c]], 1e-6));
                    }
                }
            }
        }
    }

    #[test]
    fn the_tied_matrix_is_the_mean_of_the_scatter_within() {
        let (x, start) = heaps(400, 5);
        let fitted = fit(x.view(), &start, &settings(Covariance::Tied, 0.0, 1)).unwrap();
        // One round: responsibilities of the start's parameters, then an M-step. Both again, in plain loops.
        let mut r = start;
        let mut means = Array2::zeros((2, 3));
        let mut within = Array2::zeros((3, 3));
        for step in 0..2 {
            within.fill(0.0);
            let mass = r.sum_axis(Axis(0));
            for j in 0..2 {
                means.row_mut(j).assign(&(r.column(j).dot(&x) / mass[j]));
                for (i, row) in x.outer_iter().enumerate() {
                    let gap = (&row - &means.row(j)).insert_axis(Axis(1));
                    within += &(gap.dot(&gap.t()) * (r[[i, j]] / 400.0));
                }
            }
            if step == 0 {
                let all = Covariances::Tied(within.clone()).full(2, 3);
                r = posteriors(x.view(), &(mass / 400.0), &means, &all).unwrap();
            }
        }
        let found = fitted.full_covariances();
        let differences = &found.index_axis(Axis(0), 0) - &within;
        assert!(differences.iter().all(|d| d.abs() < 1e-13), "{differences}");
    }

    #[test]
    fn rows_far_from_all_means_keep_posteriors() {
        // Every density underflows; the nearer mean still gets the row.
        let covariances = array![[[1.0]], [[1.0]]];
        let r = posteriors(
            array![[1e6]].view(),
            &array![0.5, 0.5],
            &array![[0.0], [1.0]],
            &covariances,
        )
        .unwrap();
        assert_eq!(r, array![[0.0, 1.0]]);
    }

    #[test]
    fn an_empty_component_is_kept_and_told() {
        let x = concatenate![Axis(0), noise(20, 2, 3), noise(20, 2, 4) + 50.0];
        let labels: Vec<u32> = (0..40).map(|i| 2 * u32::from(i >= 20)).collect();
        let start = hard(&labels, 3).unwrap();
        for form in FORMS {
            let one = fit(x.view(), &start, &settings(form, 1e-6, 1)).unwrap();
            // The empty one starts as the mean and covariance of all rows, and with next to no weight.
            assert!(one.weights.iter().all(|w| *w > 0.0) && close(one.weights.sum(), 1.0, 1e-15));
            let more = fit(x.view(), &start, &settings(form, 1e-6, 50)).unwrap();
            assert!(more.means.iter().all(|m| m.is_finite()));
            assert_eq!(
                more.labels(),
                labels.iter().map(|l| *l as i32).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn singular_covariances_are_repaired_and_zero_ones_are_refused() {
        // The second column repeats the first: rank 1.
        let x = array![[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [4.0, 4.0]];
        let all = Array2::ones((4, 1));
        let fitted = fit(x.view(), &all, &settings(Covariance::Full, 0.0, 3)).unwrap();
        assert!(fitted.repaired > 0 && fitted.log_likelihood.is_finite());
        assert!(fitted.remarks().iter().any(|r| r.contains("singular")));
        // A constant column.
        let x = array![[0.0, 7.0], [1.0, 7.0]];
        let all = Array2::ones((2, 1));
        for form in [Covariance::Full, Covariance::Tied, Covariance::Diagonal] {
            let fitted = fit(x.view(), &all, &settings(form, 0.0, 3)).unwrap();
            assert!(fitted.repaired > 0, "{form:?}");
        }
        let x = Array2::from_elem((3, 2), 7.0);
        for form in FORMS {
            let all = Array2::ones((3, 1));
            let e = fit(x.view(), &all, &settings(form, 0.0, 3)).unwrap_err();
            assert!(e.to_string().contains("ridge"), "{form:?} {e}");
            let fitted = fit(x.view(), &all, &settings(form, 1e-6, 3)).unwrap();
            assert_eq!(fitted.means, array![[7.0, 7.0]]);
        }
    }

    #[test]
    fn bad_input_is_refused() {
        let x = array![[0.0], [1.0]];
        let good = settings(Covariance::Full, 1e-6, 5);
        assert!(fit(x.view(), &Array2::ones((3, 1)), &good).is_err());
        assert!(fit(x.view(), &Array2::ones((2, 0)), &good).is_err());
        assert!(fit(x.view(), &array![[-1.0], [1.0]], &good).is_err());
        assert!(fit(x.view(), &array![[f64::NAN], [1.0]], &good).is_err());
        assert!(fit(array![[f64::NAN]].view(), &Array2::ones((1, 1)), &good).is_err());
        assert!(fit_from_means(x.view(), array![[0.0, 1.0]], &good).is_err());
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(
                fit(
                    x.view(),
                    &Array2::ones((2, 1)),
                    &settings(Covariance::Full, bad, 5)
                )
                .is_err()
            );
        }
        // Finite rows whose squares are not.
        let huge = array![[1e200], [-1e200]];
        assert!(fit(huge.view(), &Array2::ones((2, 1)), &good).is_err());
        assert!(hard(&[0, 2], 2).is_err());

        let (w, m) = (array![0.5, 0.5], array![[0.0], [1.0]]);
        let s = array![[[1.0]], [[1.0]]];
        assert!(posteriors(x.view(), &w, &m, &s).is_ok());
        assert!(posteriors(x.view(), &array![1.0], &m, &s).is_err());
        assert!(posteriors(x.view(), &array![-0.5, 0.5], &m, &s).is_err());
        assert!(posteriors(x.view(), &array![0.0, 0.0], &m, &s).is_err());
        assert!(posteriors(array![[0.0, 0.0]].view(), &w, &m, &s).is_err());
        assert!(posteriors(x.view(), &w, &m, &array![[[1.0]], [[-1.0]]]).is_err());
        assert!(posteriors(x.view(), &w, &m, &array![[[1.0]], [[f64::NAN]]]).is_err());
        assert!(
            posteriors(Array2::zeros((0, 1)).view(), &w, &m, &s)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn counts_criterion_and_ties_are_those_of_hand() {
        // k = 3, d = 4: 2 weights, 12 means, and 30, 10, 12 or 3 of the covariances.
        let counts = FORMS.map(|form| free_parameters(3, 4, form));
        assert_eq!(counts, [44, 24, 26, 17]);
        assert!(close(bic(-100.0, 5, 20), 200.0 + 5.0 * 20_f64.ln(), 1e-15));
        assert_eq!(argmax(array![0.2, 0.4, 0.4].view()), 1);
        assert_eq!(argmax(array![1.0].view()), 0);
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let (x, start) = heaps(9000, 8);
        for form in FORMS {
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| fit(x.view(), &start, &settings(form, 1e-6, 3)).unwrap())
            };
            let (one, three) = (run(1), run(3));
            assert_eq!(one.curve, three.curve);
            assert_eq!(one.covariances, three.covariances);
        }
    }

    #[test]
    fn the_ridge_scales_with_the_data() {
        let x = array![[0.0, 0.0], [2.0, 4.0]];
        // Variances 1 and 4.
        assert!(close(absolute_ridge(x.view(), 0.1), 0.25, 1e-15));
        assert_eq!(absolute_ridge(array![[3.0], [3.0]].view(), 0.1), 0.1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn likelihood_never_falls_without_a_ridge(seed in 0_u64..10_000, k in 1_usize..4, form in 0_usize..4) {
            let x = noise(90, 3, seed);
            let start = noise(90, k, seed + 1) + 0.6;
            let start = &start / &start.sum_axis(Axis(1)).insert_axis(Axis(1));
            let fitted = fit(x.view(), &start, &settings(FORMS[form], 0.0, 25)).unwrap();
            for pair in fitted.curve.windows(2) {
                prop_assert!(pair[1] >= pair[0] - 1e-9 * pair[0].abs().max(1.0), "{:?}", fitted.curve);
            }
            prop_assert!(close(fitted.weights.sum(), 1.0, 1e-12));
            for row in fitted.responsibilities.outer_iter() {
                prop_assert!(close(row.sum(), 1.0, 1e-12));
            }
        }

        #[test]
        fn rows_in_another_order_give_the_same_mixture(seed in 0_u64..10_000, form in 0_usize..4) {
            let (x, start) = heaps(300, seed);
            let mut rng = papertrial_numerics::sampling::rng(seed, "order");
            let order = papertrial_numerics::sampling::permutation(&mut rng, 300);
            let settings = settings(FORMS[form], 1e-6, 5);
            let one = fit(x.view(), &start, &settings).unwrap();
            let other = fit(
                x.select(Axis(0), &order).view(),
                &start.select(Axis(0), &order),
                &settings,
            )
            .unwrap();
            prop_assert!(close(one.log_likelihood, other.log_likelihood, 1e-11));
            for (place, row) in order.iter().enumerate() {
                for j in 0..2 {
                    let gap = one.responsibilities[[*row, j]] - other.responsibilities[[place, j]];
                    prop_assert!(gap.abs() < 1e-9);
                }
            }
        }
    }
}
