//! iLA-SDP: clusters of any shape by an iterated semidefinite relaxation of the Gaussian likelihood.
//!
//! Zhuang, Chen and Yang, *Likelihood Adjusted Semidefinite Programs for Clustering Heterogeneous Data*, ICML 2023, arXiv
//! 2209.15097.
//!
//! Model: row x_i ~ N(mu_k, S_k) for i in group G_k of n_k rows; the labels are parameters. With the means profiled out,
//! minus twice the log-likelihood is, up to a constant, the sum over k of n_k ln|S_k| + sum_{i in G_k} x_i' P_k x_i -
//! (1 / n_k) sum_{i, j in G_k} x_i' P_k x_j, where P_k is the inverse of S_k.
//!
//! Lifting: Z_k = 1_{G_k} 1_{G_k}' / n_k \[n, n\]. Then Z_k 1 is the indicator of the group, and with A_k = X P_k X' and
//! b_k = diag(A_k) + ln|S_k| 1 the sum of <A_k - (b_k 1' + 1 b_k') / 2, Z_k> is minus the expression above.
//!
//! X \[n, d\] rows, centred: on the feasible set the value does not depend on the origin, the conditioning does.
//! 1. Start. Labels from the k-means SDP (the default), agglomerative clustering, k-means, or at random. (A start from
//!    equal covariances is no other: the blocks then add up to the k-means SDP.)
//! 2. Covariances of the labels, as in step 5.
//! 3. LA-SDP: maximise the sum of <A_k - (b_k 1' + 1 b_k') / 2, Z_k> subject to Z_k positive semidefinite, Z_k >= 0,
//!    tr Z_k = 1, (sum_k Z_k) 1 = 1, from where the last round ended ([`crate::sdp`] has the solvers).
//! 4. m_k = Z_k 1. Labels: the largest m_k of each row; if it is below .6 for more than a twentieth of the rows, k-means
//!    on the k leading eigenvectors of sum_k Z_k.
//! 5. n_k = 1'm_k, S_k = (X' diag(m_k) X - X' Z_k X) / n_k, made symmetric; eigenvalues raised to 1e-3 of the mean
//!    variance of the columns. No mean is computed.
//! 6. From step 3 until the labels repeat, the objective moves by less than 1e-4 of itself, or 20 rounds. Since the
//!    objective is the likelihood, an exact solver never lowers it; with a loose one it can fall, so the best round is
//!    what is returned.
//! 7. Many columns: `project=fisher` runs each round on the Fisher discriminant directions of the current labels, with
//!    the within scatter raised as in step 5 (rounds then have different coordinates, so that the last one is returned);
//!    `project=shrink` draws S_k towards the pooled covariance with weight d / (d + n_k).
//! 8. Many rows: `subsample` runs steps 1 to 7 on a sample and gives every row to its most probable Gaussian
//!    (quadratic discriminant analysis), after one EM round on all rows if `polish` is set.
//! 9. `k-max`: steps 1 to 7 for each number of clusters from k to k-max; the least BIC of the profiled likelihood wins,
//!    the shares n_k / n counted as parameters: with labels free and shares left out, cutting a cluster in two would
//!    nearly always gain.
//!
//! What was not to be had is the authors' code; constant factors of the program are derived here and tested against the
//! likelihood itself. The floor, the rounding rule and the weight of `shrink` are this implementation's; the name of the
//! projected variant in the paper could not be checked.
//!
//! Cost: some rounds of an SDP with k blocks, each O(k n^2) to O(k n^3) per inner round and 40 k n^2 bytes; above 400
//! rows the low-rank solver, O(n k d) per step and no \[n, n\] matrix.

use super::sdp_kmeans::{self, centred};
use super::ward::{Linkage, agglomerate, number_by_first_row};
use super::{Clusterer, Grouping, Model, Points};
use crate::gaussian::{self, Covariance, argmax};
use crate::sdp::{self, Admm, LowRank, Objective, Solution};
use ndarray::{Array1, Array2, Array3, ArrayView2, Axis, s};
use papertrial_core::task::{Context, Curve, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::kmeans::{KMeansOptions, kmeans};
use papertrial_numerics::linalg::{cholesky, eigh, gram};
use papertrial_numerics::sampling;
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Options of iLA-SDP.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct IlaSdp {
    /// Number of clusters; the least one if k-max is set.
    #[schemars(range(min = 1))]
    pub k: usize,
    /// Choose the number of clusters from k to this by BIC; none for k itself.
    #[schemars(range(min = 1))]
    pub k_max: Option<usize>,
    /// Where the first labels come from.
    pub start: Start,
    /// Rounds of covariances and programs at most.
    #[schemars(range(min = 1))]
    pub max_rounds: usize,
    /// Which solver is used for a program.
    pub solver: Solver,
    /// The solver ends when its residuals are below this.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub tolerance: f64,
    /// Rounds of the solver at most.
    #[schemars(range(min = 1))]
    pub solver_rounds: usize,
    /// What is done about many columns.
    pub project: Project,
    /// Fisher directions; 0 for one less than the number of clusters.
    pub directions: usize,
    /// Rows that the programs see, drawn at random; 0 for all.
    pub subsample: usize,
    /// One EM round on all rows after a subsample.
    pub polish: bool,
    /// Rows of a program at most.
    #[schemars(range(min = 1))]
    pub max_rows: usize,
}

/// Where the first labels come from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// The k-means SDP.
    Sdp,
    /// Agglomerative clustering with Ward's linkage.
    Hierarchical,
    /// One run of k-means.
    KMeans,
    /// Labels at random.
    Random,
}

/// Which solver is used for a program.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Solver {
    /// Dense up to 400 rows, low-rank above.
    Auto,
    /// Alternating directions on whole matrices.
    Admm,
    /// Factors with no negative entry.
    LowRank,
}

/// What is done about many columns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Project {
    /// Nothing.
    None,
    /// Work on the Fisher discriminant directions.
    Fisher,
    /// Draw covariances towards the pooled one.
    Shrink,
}

impl Default for IlaSdp {
    fn default() -> Self {
        IlaSdp {
            k: 8,
            k_max: None,
            start: Start::Sdp,
            max_rounds: 20,
            solver: Solver::Auto,
            tolerance: 1e-4,
            solver_rounds: 600,
            project: Project::None,
            directions: 0,
            subsample: 0,
            polish: false,
            max_rows: 1500,
        }
    }
}

impl Method for IlaSdp {
    const FACTS: Facts = Facts {
        name: "ila-sdp",
        about: "clusters of any shape by an iterated semidefinite relaxation of the Gaussian likelihood",
        paper: Some("ila-sdp"),
        streams: false,
    };
}

/// A row whose largest m_k is below this is undecided.
const UNDECIDED: f64 = 0.6;

/// Share of undecided rows above which labels come from eigenvectors.
const MANY: f64 = 0.05;

/// Eigenvalues of a covariance are at least this share of the mean variance.
const FLOOR: f64 = 1e-3;

/// Relative change of the objective that ends the rounds.
const SETTLED: f64 = 1e-4;

/// Rows up to which `auto` takes the dense solver.
const DENSE_ROWS: usize = 400;

impl Clusterer for IlaSdp {
    fn fit(&self, points: &Points, context: &Context) -> Result<Grouping> {
        let most = self.k_max.unwrap_or(self.k);
        if most < self.k {
            return Err(Error::option(
                "k-max",
                format!("{most} is below k, which is {}", self.k),
            ));
        }
        points.check_k(most)?;
        let all = points.matrix(context)?;
        // Step 8 begins with the sample.
        let limit = if self.dense(all.nrows()) || self.subsample > 0 {
            self.max_rows
        } else {
            usize::MAX
        };
        let rows = sdp_kmeans::sample(all.nrows(), self.subsample, most, limit, most, context)?;
        let inside = match &rows {
            Some(rows) => all.select(Axis(0), rows),
            None => all.clone(),
        };
        let x = centred(&inside);
        let origin = &inside.row(0) - &x.row(0);
        // Step 9.
        let mut best: Option<(f64, Fit)> = None;
        let mut bics = Vec::new();
        for k in self.k..=most {
            let fit = self.rounds(&x, k, context)?;
            let bic = fit.bic(&x)?;
            bics.push((k as f64, bic));
            if best.as_ref().is_none_or(|(least, _)| bic < *least) {
                best = Some((bic, fit));
            }
        }
        let Some((_, mut fit)) = best else {
            return Err(Error::Failed("no number of clusters was tried".into()));
        };
        if bics.len() > 1 {
            fit.notes.push(format!("chosen by BIC: {} clusters", fit.k));
            fit.curves.push(Curve {
                name: "BIC".into(),
                x: "clusters".into(),
                y: "BIC (lower is better)".into(),
                points: bics,
            });
        }
        let mut parts = fit.gaussians(&x)?;
        parts.means += &origin;
        let (labels, memberships) = if rows.is_some() {
            lift(all, &mut parts, self.polish)?
        } else {
            (fit.labels, fit.memberships)
        };
        Ok(Grouping {
            labels,
            memberships: Some(memberships),
            files: vec![("covariances.json".into(), parts.json(points.names())?)],
            model: Some(Model::gaussians(
                &parts.weights,
                &parts.means,
                &parts.covariances,
            )),
            curves: fit.curves,
            notes: fit.notes,
            ..Grouping::default()
        })
    }
}

/// What the rounds for one number of clusters ended with.
struct Fit {
    k: usize,
    labels: Vec<i32>,
    /// m_k of each row, scaled to sum 1, \[n, k\].
    memberships: Array2<f64>,
    curves: Vec<Curve>,
    notes: Vec<String>,
}

/// Gaussians of the clusters.
struct Gaussians {
    weights: Array1<f64>,
    means: Array2<f64>,
    covariances: Array3<f64>,
}

impl IlaSdp {
    fn dense(&self, n: usize) -> bool {
        match self.solver {
            Solver::Auto => n <= DENSE_ROWS,
            Solver::Admm => true,
            Solver::LowRank => false,
        }
    }

    fn settings(&self) -> sdp::Settings {
        sdp::Settings {
            tolerance: self.tolerance,
            max_rounds: self.solver_rounds,
        }
    }

    /// Steps 1 to 7 on centred rows \[n, d\].
    fn rounds(&self, x: &Array2<f64>, k: usize, context: &Context) -> Result<Fit> {
        let n = x.nrows();
        let mut notes = Vec::new();
        let mut labels = self.start(x, k, context, &mut notes)?;
        if k == 1 {
            return Ok(Fit {
                k,
                labels,
                memberships: Array2::ones((n, 1)),
                curves: Vec::new(),
                notes,
            });
        }
        let dense = self.dense(n);
        if dense {
            context.require(
                &format!("the semidefinite programs of {n} rows and {k} clusters"),
                sdp::dense_bytes(k, n),
            )?;
        }
        let traces = vec![1.0; k];
        let mut admm = dense.then(|| Admm::from_labels(traces.clone(), &labels, k));
        let mut low_rank =
            (!dense).then(|| LowRank::from_labels(traces.clone(), &labels, k, context.seed));
        // Z_k of the labels, in factors.
        let mut factors = indicators(&labels, k);
        let mut best: Option<(f64, Vec<i32>, Solution)> = None;
        let (mut curve, mut residuals, mut raised) = (Vec::new(), Vec::new(), 0);
        let mut last = f64::NAN;
        for round in 1..=self.max_rounds {
            context.step("rounds of programs", round, self.max_rounds);
            // Step 7.
            let y = match self.project {
                Project::Fisher => fisher(x, &labels, k, self.directions)?,
                _ => x.clone(),
            };
            // Steps 2 and 5.
            let (covariances, floors) = self.covariances(&y, &factors)?;
            raised += floors;
            let objectives: Vec<Objective> = covariances
                .iter()
                .map(|s| objective(&y, s))
                .collect::<Result<_>>()?;
            // Step 3.
            let solution = match (&mut admm, &mut low_rank) {
                (Some(admm), _) => admm.solve(&objectives, &self.settings(), context)?,
                (None, Some(low_rank)) => low_rank.solve(&objectives, &self.settings(), context),
                (None, None) => return Err(Error::Failed("no solver was chosen".into())),
            };
            // Step 4.
            let next = round_labels(&solution, k, context.seed)?;
            curve.push((round as f64, solution.objective));
            residuals.push((round as f64, solution.primal.max(solution.dual)));
            let repeated = canonical(&next) == canonical(&labels);
            let settled = (solution.objective - last).abs() <= SETTLED * last.abs();
            last = solution.objective;
            labels = next;
            factors = solution.factors.clone();
            let better = best
                .as_ref()
                .is_none_or(|(value, _, _)| solution.objective > *value);
            if better || self.project == Project::Fisher {
                best = Some((solution.objective, labels.clone(), solution));
            }
            if repeated || settled {
                break;
            }
        }
        // Step 6.
        let Some((_, labels, solution)) = best else {
            return Err(Error::Failed("no round was done".into()));
        };
        notes.extend(sdp_kmeans::told(&solution));
        if raised > 0 {
            notes.push(format!(
                "a covariance was raised to its floor {raised} times: a cluster has too few rows for its columns (project=shrink helps)"
            ));
        }
        let mut memberships = solution.memberships();
        for mut row in memberships.outer_iter_mut() {
            let sum = row.sum();
            if sum > 0.0 {
                row /= sum;
            } else {
                row.fill(1.0 / k as f64);
            }
        }
        let held: std::collections::BTreeSet<i32> = labels.iter().copied().collect();
        if held.len() < k {
            notes.push(format!("only {} of {k} clusters hold rows", held.len()));
        }
        Ok(Fit {
            k,
            labels,
            memberships,
            curves: vec![
                Curve {
                    name: "objective".into(),
                    x: "round".into(),
                    y: "profiled log-likelihood (twice, up to a constant)".into(),
                    points: curve,
                },
                Curve {
                    name: "residual of the program".into(),
                    x: "round".into(),
                    y: "largest residual".into(),
                    points: residuals,
                },
            ],
            notes,
        })
    }

    /// Step 1: labels 0 to k - 1.
    fn start(
        &self,
        x: &Array2<f64>,
        k: usize,
        context: &Context,
        notes: &mut Vec<String>,
    ) -> Result<Vec<i32>> {
        let n = x.nrows();
        if k == 1 {
            return Ok(vec![0; n]);
        }
        let of_kmeans = |starts: usize| -> Result<Vec<u32>> {
            let options = KMeansOptions {
                starts,
                seed: context.seed,
                ..KMeansOptions::new(k)
            };
            kmeans(x.view(), None, &options)
                .map(|found| found.labels)
                .map_err(|e| Error::BadInput(e.to_string()))
        };
        let labels =
            match self.start {
                Start::Sdp if self.dense(n) => {
                    let solution = sdp_kmeans::solve(x, k, &self.settings(), context)?;
                    notes.extend(
                        sdp_kmeans::told(&solution)
                            .map(|t| format!("in the k-means SDP of the start, {t}")),
                    );
                    sdp_kmeans::round(&solution, k, 10, context.seed)?
                }
                Start::Sdp => {
                    // The low-rank form is not convex; its own start is the best of some runs of k-means.
                    let first: Vec<i32> = of_kmeans(10)?.iter().map(|l| *l as i32).collect();
                    let objective = Objective {
                        factor: x.clone(),
                        penalty: Array1::zeros(n),
                    };
                    let solution = LowRank::from_labels(vec![k as f64], &first, k, context.seed)
                        .solve(&[objective], &self.settings(), context);
                    sdp_kmeans::round(&solution, k, 10, context.seed)?
                }
                Start::Hierarchical => return agglomerate(x, k, Linkage::Ward, context),
                Start::KMeans => of_kmeans(1)?,
                Start::Random => {
                    let mut rng = sampling::rng(context.seed, "labels at random");
                    (0..n).map(|_| rng.random_range(0..k as u32)).collect()
                }
            };
        Ok(labels.iter().map(|l| *l as i32).collect())
    }

    /// Step 5 and the shrinking of step 7: S_k from Z_k = F_k F_k', and how many eigenvalues' floors were needed.
    fn covariances(
        &self,
        y: &Array2<f64>,
        factors: &[Array2<f64>],
    ) -> Result<(Vec<Array2<f64>>, usize)> {
        let d = y.ncols();
        let floor = FLOOR * mean_variance(y);
        let mut found = Vec::new();
        let mut sizes = Vec::new();
        for f in factors {
            let m = f.dot(&f.sum_axis(Axis(0))).mapv(|v| v.max(0.0));
            let size = m.sum();
            let weighted = y * &m.view().insert_axis(Axis(1));
            let through = y.t().dot(f);
            let raw = (y.t().dot(&weighted) - through.dot(&through.t())) / size.max(1e-12);
            found.push((&raw + &raw.t()) / 2.0);
            sizes.push(size);
        }
        if self.project == Project::Shrink {
            let all: f64 = sizes.iter().sum();
            let mut pooled = Array2::zeros((d, d));
            for (s, size) in found.iter().zip(&sizes) {
                pooled += &(s * (size / all));
            }
            for (s, size) in found.iter_mut().zip(&sizes) {
                let weight = d as f64 / (d as f64 + size);
                *s = &*s * (1.0 - weight) + &pooled * weight;
            }
        }
        let mut raised = 0;
        for s in &mut found {
            raised += usize::from(raise(s, floor)?);
        }
        Ok((found, raised))
    }
}

impl Fit {
    /// Weights, means and covariances of the labels, in the coordinates of `x`.
    fn gaussians(&self, x: &Array2<f64>) -> Result<Gaussians> {
        let (n, d) = x.dim();
        let floor = FLOOR * mean_variance(x);
        let mut parts = Gaussians {
            weights: Array1::zeros(self.k),
            means: Array2::zeros((self.k, d)),
            covariances: Array3::zeros((self.k, d, d)),
        };
        for group in 0..self.k {
            let rows: Vec<usize> = (0..n).filter(|i| self.labels[*i] == group as i32).collect();
            parts.weights[group] = rows.len() as f64 / n as f64;
            let inside = x.select(Axis(0), &rows);
            let mut covariance = Array2::zeros((d, d));
            if let Some(mean) = inside.mean_axis(Axis(0)) {
                covariance = gram((&inside - &mean).view()) / rows.len() as f64;
                parts.means.row_mut(group).assign(&mean);
            }
            raise(&mut covariance, floor)?;
            parts
                .covariances
                .slice_mut(s![group, .., ..])
                .assign(&covariance);
        }
        Ok(parts)
    }

    /// BIC of the profiled likelihood of the labels and their shares, lower is better.
    fn bic(&self, x: &Array2<f64>) -> Result<f64> {
        let (n, d) = x.dim();
        let parts = self.gaussians(x)?;
        let shares = parts.weights.iter().filter(|w| **w > 0.0);
        let chosen: f64 = shares.map(|w| n as f64 * w * w.ln()).sum();
        let value = profiled(x, &self.labels, &parts)? + 2.0 * chosen;
        let parameters = gaussian::free_parameters(self.k, d, Covariance::Full);
        let constant = (n * d) as f64 * std::f64::consts::TAU.ln();
        Ok(constant - value + parameters as f64 * (n as f64).ln())
    }
}

impl Gaussians {
    fn json(&self, columns: &[String]) -> Result<String> {
        let clusters: Vec<serde_json::Value> = (0..self.weights.len())
            .map(|k| {
                let covariance = self.covariances.index_axis(Axis(0), k);
                json!({
                    "share": self.weights[k],
                    "mean": self.means.row(k).to_vec(),
                    "covariance": covariance.outer_iter().map(|r| r.to_vec()).collect::<Vec<_>>(),
                })
            })
            .collect();
        serde_json::to_string_pretty(&json!({"columns": columns, "clusters": clusters}))
            .map_err(|e| Error::Failed(e.to_string()))
    }
}

/// Twice the profiled log-likelihood of labels under given covariances, without its constant: minus the expression in
/// the doc above, computed from means.
fn profiled(x: &Array2<f64>, labels: &[i32], parts: &Gaussians) -> Result<f64> {
    let mut value = 0.0;
    for group in 0..parts.weights.len() {
        let rows: Vec<usize> = (0..labels.len())
            .filter(|i| labels[*i] == group as i32)
            .collect();
        let inside = x.select(Axis(0), &rows);
        let Some(mean) = inside.mean_axis(Axis(0)) else {
            continue;
        };
        let factor = cholesky(parts.covariances.index_axis(Axis(0), group)).map_err(failed)?;
        let white = factor.solve_lower((&inside - &mean).t());
        value -= rows.len() as f64 * factor.log_det() + white.iter().map(|v| v * v).sum::<f64>();
    }
    Ok(value)
}

fn failed(e: papertrial_numerics::linalg::LinalgError) -> Error {
    Error::Failed(e.to_string())
}

/// Mean over the columns of their variances; 1 if all rows are equal.
fn mean_variance(x: &Array2<f64>) -> f64 {
    let centred = centred(x);
    let variance = centred.iter().map(|v| v * v).sum::<f64>() / centred.len().max(1) as f64;
    if variance > 0.0 { variance } else { 1.0 }
}

/// Raises the eigenvalues of a symmetric matrix to at least `floor`; tells whether one was lower.
fn raise(s: &mut Array2<f64>, floor: f64) -> Result<bool> {
    let spectrum = eigh(s.view()).map_err(failed)?;
    if spectrum.values.iter().all(|v| *v >= floor) {
        return Ok(false);
    }
    let scaled = &spectrum.vectors * &spectrum.values.mapv(|v| v.max(floor).sqrt());
    // A product with its own transpose is symmetric to the last bit.
    *s = gram(scaled.t());
    Ok(true)
}

/// C_k of step 3 for rows \[n, d\] and a covariance: A_k = G G' with G = X L'^-1, S_k = L L'.
fn objective(x: &Array2<f64>, covariance: &Array2<f64>) -> Result<Objective> {
    let factor = cholesky(covariance.view()).map_err(failed)?;
    let g = factor
        .solve_lower(x.t())
        .reversed_axes()
        .as_standard_layout()
        .into_owned();
    let log_det = factor.log_det();
    let penalty = g.outer_iter().map(|row| row.dot(&row) + log_det).collect();
    Ok(Objective { factor: g, penalty })
}

/// Factors of the Z_k of a partition: 1_{G_k} / sqrt(n_k), \[n, 1\] each; zeros for an empty group.
fn indicators(labels: &[i32], k: usize) -> Vec<Array2<f64>> {
    (0..k as i32)
        .map(|group| {
            let size = labels.iter().filter(|l| **l == group).count() as f64;
            let entry = if size > 0.0 { 1.0 / size.sqrt() } else { 0.0 };
            Array2::from_shape_fn((labels.len(), 1), |(i, _)| {
                if labels[i] == group { entry } else { 0.0 }
            })
        })
        .collect()
}

/// Step 4.
fn round_labels(solution: &Solution, k: usize, seed: u64) -> Result<Vec<i32>> {
    let m = solution.memberships();
    let undecided = m
        .outer_iter()
        .filter(|row| row.iter().all(|v| *v < UNDECIDED))
        .count();
    if undecided as f64 > MANY * m.nrows() as f64 {
        let labels = sdp_kmeans::round(solution, k, 10, seed)?;
        return Ok(labels.iter().map(|l| *l as i32).collect());
    }
    Ok(m.outer_iter().map(|row| argmax(row) as i32).collect())
}

/// Labels numbered by first appearance, so that two labelings can be compared.
fn canonical(labels: &[i32]) -> Vec<i32> {
    number_by_first_row(labels.iter().map(|l| Some(*l as usize)))
}

/// Step 7: rows in the Fisher directions of the labels, \[n, q\]: the leading eigenvectors of the between scatter in
/// the coordinates in which the within scatter is the identity.
fn fisher(x: &Array2<f64>, labels: &[i32], k: usize, directions: usize) -> Result<Array2<f64>> {
    let (n, d) = x.dim();
    let q = if directions == 0 { k - 1 } else { directions }.clamp(1, d);
    let mut within = Array2::zeros((d, d));
    let mut means = Vec::new();
    for group in 0..k as i32 {
        let rows: Vec<usize> = (0..n).filter(|i| labels[*i] == group).collect();
        let inside = x.select(Axis(0), &rows);
        if let Some(mean) = inside.mean_axis(Axis(0)) {
            within += &gram((&inside - &mean).view());
            means.push(mean * (rows.len() as f64).sqrt());
        }
    }
    within /= n as f64;
    raise(&mut within, FLOOR * mean_variance(x))?;
    let factor = cholesky(within.view()).map_err(failed)?;
    let white = factor.solve_lower(x.t());
    let views: Vec<_> = means.iter().map(|m| m.view()).collect();
    let stacked = ndarray::stack(Axis(0), &views).map_err(|e| Error::Failed(e.to_string()))?;
    let between = factor.solve_lower(stacked.t());
    let top = eigh(gram(between.t()).view()).map_err(failed)?;
    // Ascending: the last q are the leading ones.
    let vectors = top.vectors.slice(s![.., d - q..]).to_owned();
    Ok(centred(&white.t().dot(&vectors)))
}

/// Step 8: labels and posteriors of all rows \[n, d\].
fn lift(all: &Array2<f64>, parts: &mut Gaussians, polish: bool) -> Result<(Vec<i32>, Array2<f64>)> {
    let posteriors = |parts: &Gaussians| {
        gaussian::posteriors(all.view(), &parts.weights, &parts.means, &parts.covariances)
    };
    let mut memberships = posteriors(parts)?;
    if polish {
        let settings = gaussian::Settings {
            covariance: Covariance::Full,
            ridge: 1e-6 * mean_variance(all),
            tolerance: 0.0,
            max_rounds: 1,
        };
        let mixture = gaussian::fit(all.view(), &memberships, &settings)?;
        *parts = Gaussians {
            weights: mixture.weights.clone(),
            covariances: mixture.full_covariances(),
            means: mixture.means.clone(),
        };
        memberships = posteriors(parts)?;
    }
    Ok((labels_of(memberships.view()), memberships))
}

fn labels_of(memberships: ArrayView2<f64>) -> Vec<i32> {
    memberships
        .outer_iter()
        .map(|row| argmax(row) as i32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use papertrial_core::data::{Labels, Roles, Table};
    use papertrial_numerics::metrics::clustering::{contingency, misclustering_error};
    use proptest::prelude::*;

    fn of(k: usize) -> IlaSdp {
        IlaSdp {
            k,
            ..IlaSdp::default()
        }
    }

    fn fit(method: &IlaSdp, x: Array2<f64>) -> Result<Grouping> {
        method.fit(&Points::from_matrix(x)?, &Context::with_seed(0))
    }

    fn iris() -> (Points, Vec<i32>) {
        let table: Table = papertrial_core::data::sets::open("iris").unwrap();
        let roles = Roles {
            label: Some("species".into()),
            ..Roles::default()
        };
        let truth = Labels::of(&table, &roles).unwrap().unwrap();
        let points = Points::of(&table, &roles, true, &Context::with_seed(0)).unwrap();
        (points, truth.codes)
    }

    fn error(truth: &[i32], found: &Grouping) -> f64 {
        misclustering_error(&contingency(truth, &found.labels).unwrap())
    }

    /// Two long thin clouds that cross at a right angle; 40 rows.
    fn cross() -> (Array2<f64>, Vec<i32>) {
        let mut rng = sampling::rng(4, "cross");
        let x = Array2::from_shape_fn((40, 2), |(i, j)| {
            let long = (i / 2) as f64 - 9.5;
            let thin = rng.random_range(-0.3..0.3);
            let along = (i % 2 == 0) == (j == 0);
            if along {
                long
            } else {
                thin + if j == 0 { 14.0 } else { 0.0 }
            }
        });
        (x, (0..40).map(|i| i % 2).collect())
    }

    #[test]
    fn iris_is_grouped_better_than_by_k_means() {
        let (points, truth) = iris();
        let found = of(3).fit(&points, &Context::with_seed(0)).unwrap();
        let rounds = found.curves[0].points.len();
        // k-means and the k-means SDP misplace a sixth.
        assert!(
            error(&truth, &found) < 0.08,
            "{} {rounds}",
            error(&truth, &found)
        );
        assert!((2..20).contains(&rounds), "{rounds}");
    }

    #[test]
    fn the_objective_rises_from_round_to_round() {
        let (x, truth) = cross();
        let found = fit(
            &IlaSdp {
                tolerance: 1e-6,
                solver_rounds: 5000,
                start: Start::KMeans,
                ..of(2)
            },
            x,
        )
        .unwrap();
        assert!(error(&truth, &found) < 0.1);
        let objective: Vec<f64> = found.curves[0].points.iter().map(|p| p.1).collect();
        let slack = 1e-3 * objective[0].abs();
        assert!(
            objective.windows(2).all(|w| w[1] >= w[0] - slack),
            "{objective:?}"
        );
    }

    #[test]
    fn both_solvers_agree() {
        let (x, _) = cross();
        let by = |solver| {
            fit(
                &IlaSdp {
                    solver,
                    start: Start::KMeans,
                    ..of(2)
                },
                x.clone(),
            )
            .unwrap()
        };
        let (dense, low) = (by(Solver::Admm), by(Solver::LowRank));
        assert_eq!(canonical(&dense.labels), canonical(&low.labels));
    }

    #[test]
    fn a_sample_labels_all_rows_and_bic_finds_the_number() {
        let mut rng = sampling::rng(8, "two groups");
        let x = Array2::from_shape_fn((240, 2), |(i, j)| {
            let noise: f64 = rng.sample(rand_distr::StandardNormal);
            [0.3, 1.0][i % 2] * noise + if i % 2 == 1 && j == 0 { 9.0 } else { 0.0 }
        });
        let truth: Vec<i32> = (0..240).map(|i| i % 2).collect();
        for polish in [false, true] {
            let part = fit(
                &IlaSdp {
                    subsample: 60,
                    polish,
                    ..of(2)
                },
                x.clone(),
            )
            .unwrap();
            assert_eq!(error(&truth, &part), 0.0);
        }
        let part = x.slice(s![..60, ..]).to_owned();
        let chosen = fit(
            &IlaSdp {
                k_max: Some(3),
                ..of(1)
            },
            part,
        )
        .unwrap();
        assert_eq!(chosen.groups(), 2, "{:?}", chosen.curves.last());
        assert!(chosen.notes.iter().any(|n| n.contains("chosen by BIC")));
    }

    #[test]
    fn many_columns_can_be_projected_or_shrunk() {
        // Two groups apart along the first of 30 columns, 20 rows each: raw covariances are singular.
        let mut rng = sampling::rng(6, "columns");
        let x = Array2::from_shape_fn((40, 30), |(i, j)| {
            rng.random_range(-1.0..1.0) + if i % 2 == 0 && j == 0 { 8.0 } else { 0.0 }
        });
        let truth: Vec<i32> = (0..40).map(|i| i % 2).collect();
        for project in [Project::Fisher, Project::Shrink] {
            let found = fit(&IlaSdp { project, ..of(2) }, x.clone()).unwrap();
            assert_eq!(error(&truth, &found), 0.0, "{project:?}");
        }
    }

    #[test]
    fn edges_and_bad_input() {
        assert_eq!(fit(&of(1), array![[1.0, 2.0]]).unwrap().labels, [0]);
        assert_eq!(fit(&of(2), array![[1.0], [9.0]]).unwrap().groups(), 2);
        assert_eq!(fit(&of(2), Array2::ones((8, 2))).unwrap().labels.len(), 8);
        assert!(fit(&of(3), array![[1.0]]).is_err());
        let few = IlaSdp {
            k_max: Some(2),
            ..of(3)
        };
        assert!(fit(&few, Array2::zeros((9, 1))).is_err());
        let dense = IlaSdp {
            solver: Solver::Admm,
            max_rows: 10,
            ..of(2)
        };
        let e = fit(&dense, Array2::zeros((20, 1))).unwrap_err().to_string();
        assert!(e.contains("subsample") && e.contains("KiB"), "{e}");
    }

    #[test]
    fn both_solvers_survive_rows_that_tell_little() {
        for solver in [Solver::Admm, Solver::LowRank] {
            let by = |k| IlaSdp { solver, ..of(k) };
            // As many clusters as rows; equal rows; fewer distinct rows than clusters; a constant column; more columns
            // than rows; numbers whose squares are near the largest; an origin far away.
            let distinct = Array2::from_shape_fn((6, 2), |(i, j)| ((3 * i + 5 * j) % 7) as f64);
            let apart = |i: usize| [0.0, 9.0][i % 2] + (i * i % 5) as f64 * 0.1;
            let cases = [
                (6, distinct.clone()),
                (4, Array2::ones((4, 2))),
                (3, Array2::ones((8, 2))),
                (3, Array2::from_shape_fn((12, 2), |(i, _)| (i % 2) as f64)),
                (
                    2,
                    Array2::from_shape_fn((12, 2), |(i, j)| if j == 0 { 1.0 } else { apart(i) }),
                ),
                (
                    2,
                    Array2::from_shape_fn((8, 30), |(i, j)| apart(i * 31 + j)),
                ),
                (2, Array2::from_shape_fn((8, 2), |(i, _)| apart(i) * 1e150)),
                (2, Array2::from_shape_fn((12, 2), |(i, _)| 1e9 + apart(i))),
            ];
            for (k, x) in cases {
                let found = fit(&by(k), x.clone()).unwrap();
                let memberships = found.memberships.unwrap();
                assert_eq!(memberships.dim(), (x.nrows(), k));
                assert!(
                    memberships
                        .outer_iter()
                        .all(|row| (row.sum() - 1.0).abs() < 1e-9 && row.iter().all(|v| *v >= 0.0)),
                    "{solver:?} {k} {memberships}"
                );
                assert!(found.labels.iter().all(|l| (0..k as i32).contains(l)));
            }
            let found = fit(&by(6), distinct.clone()).unwrap();
            assert_eq!(found.groups(), 6, "{solver:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn at_a_partition_the_program_is_the_profiled_likelihood(
            values in prop::collection::vec(-3.0..3.0f64, 30),
            labels in prop::collection::vec(0i32..3, 15),
            shift in -2.0..2.0f64,
        ) {
            let x = Array2::from_shape_vec((15, 2), values).unwrap();
            let fit = Fit {
                k: 3,
                labels: labels.clone(),
                memberships: Array2::zeros((15, 3)),
                curves: Vec::new(),
                notes: Vec::new(),
            };
            let parts = fit.gaussians(&x).unwrap();
            let by_means = profiled(&x, &labels, &parts).unwrap();
            // The program's value, also of rows that are not centred: the origin does not matter.
            let moved = &x + shift;
            let mut by_program = 0.0;
            for (group, f) in indicators(&labels, 3).iter().enumerate() {
                let s = parts.covariances.index_axis(Axis(0), group).to_owned();
                by_program += objective(&moved, &s).unwrap().value(f);
            }
            prop_assert!((by_means - by_program).abs() < 1e-8 * (1.0 + by_means.abs()));
        }

        #[test]
        fn covariances_of_indicators_are_those_of_the_groups(values in prop::collection::vec(-3.0..3.0f64, 40)) {
            let x = Array2::from_shape_vec((20, 2), values).unwrap();
            let labels: Vec<i32> = (0..20).map(|i| i % 2).collect();
            let (found, _) = of(2).covariances(&x, &indicators(&labels, 2)).unwrap();
            let fit = Fit { k: 2, labels, memberships: Array2::zeros((20, 2)), curves: Vec::new(), notes: Vec::new() };
            let direct = fit.gaussians(&x).unwrap();
            for (group, s) in found.iter().enumerate() {
                let gap = s - &direct.covariances.index_axis(Axis(0), group);
                prop_assert!(gap.iter().all(|v| v.abs() < 1e-9));
            }
        }
    }
}
