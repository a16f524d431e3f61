//! The semidefinite programs behind the k-means SDP and its likelihood-adjusted form, and two solvers for them.
//!
//! With K blocks Z_k \[n, n\], objective matrices C_k and traces t_k:
//!
//! maximise sum_k <C_k, Z_k> subject to Z_k positive semidefinite, Z_k >= 0 entry by entry, tr Z_k = t_k,
//! (sum_k Z_k) 1 = 1.
//!
//! One block with C = X X' and t = K is the relaxation of k-means by Peng and Wei, *Approximating k-means-type
//! clustering via semidefinite programming*, 2007. K blocks with t_k = 1 are the likelihood-adjusted form. In both,
//! C_k = G_k G_k' - (b_k 1' + 1 b_k') / 2 with G_k \[n, d\] and b_k \[n\] ([`Objective`]), and a solution comes as
//! factors F_k \[n, r\] with Z_k = F_k F_k' ([`Solution`]), so that Z_k is symmetric to the last bit.
//!
//! # The dense solver ([`Admm`])
//! Alternating directions on the dual, in the form of Sun, Toh and Yang, *A convergent 3-block semiproximal
//! alternating direction method of multipliers for conic programming with 4-type constraints*, 2015, with one change:
//! the trace is part of the spectral set, so that projections onto it have few non-zero eigenvalues. With
//! E(y) = (y 1' + 1 y') / 2, h_k(S) = t_k lambda_max(S) and M_k >= 0 the dual is
//!
//! minimise sum_k h_k(S_k) - 1'y subject to S_k = C_k + E(y) + M_k.
//!
//! The multiplier of the constraint is X_k, the penalty sigma; N = sigma M and v = sigma y are what is stored, and
//! S drops out of the formulas. C is scaled by its largest absolute entry. A round:
//! 1. P_k = X_k + sigma C_k + E(v) + N_k.
//! 2. Z_k = nearest matrix to P_k with Z_k positive semidefinite and tr Z_k = t_k: the eigenvalues become
//!    max(l_i - theta, 0) with theta such that they sum to t_k. Only those above theta are needed. They come from the
//!    subspace of the last round, widened by residuals (block Krylov, Rayleigh-Ritz) until the residuals are far below
//!    those of the round; where that does not pay, from all eigenvalues.
//! 3. u = A(1 - (sum_k Z_k) 1), N_k' = max(N_k - E(u) - Z_k, 0), w = A(1 - (sum_k Z_k) 1 - sum_k (N_k' - N_k) 1):
//!    a symmetric sweep over y, M, y. Here A(g) = (2 / (K n)) (g - 1 (1'g) / (2 n)) inverts y -> sum_k E(y) 1, so that
//!    T_k -> T_k + E(A(1 - sum_k T_k 1)) is the projection onto the row sums.
//! 4. X_k += 1.618 (E(w) + N_k' - N_k + Z_k - X_k), v += w.
//! 5. Residuals, all relative: row sums and negative entries of Z, distance of X and Z (primal); the dual constraint.
//!    Stop when all are below the tolerance, after the largest number of rounds, and not before a Cholesky factor
//!    has shown that no eigenvalue above theta was missed in step 2.
//! 6. Every some rounds, ever more rarely: sigma up if the dual residual leads, down if the primal one does.
//!
//! Z is what is returned: its trace and definiteness are exact, the rest holds to the tolerance. The state (X, N, v,
//! sigma, subspaces) stays for the next solve, which may have other objectives.
//!
//! Cost of a round: O(K n^2 r) with r the number of eigenvalues kept (about K for one block, 1 to 10 for several);
//! the first rounds and doubtful ones O(K n^3). Memory: 5 K n^2 numbers.
//!
//! # The low-rank solver ([`LowRank`])
//! The factors are the variables: Z_k = U_k U_k', U_k \[n, r\] >= 0, |U_k|^2 = t_k; the row sums go into an augmented
//! Lagrangian, minimised by projected gradients. After Zhuang, Chen, Yang and Zhang, *Statistically optimal k-means
//! clustering via nonnegative low-rank semidefinite programming*, 2024 (arXiv 2305.18436); the step lengths
//! (Barzilai-Borwein, with a nonmonotone search) and the growth of the penalty are choices made here.
//! 1. y = 0, beta from the mean diagonal of C.
//! 2. With m = sum_k U_k (U_k' 1), q = m - 1 and L = -sum_k <C_k, U_k U_k'> + y'q + beta |q|^2 / 2: steps
//!    U <- Pi(U - a dL/dU), where Pi takes negative entries to 0 and then scales each U_k to its norm.
//! 3. y += beta q; beta grows where |q| did not halve. Repeat until q and the step are below the tolerance.
//!
//! It never forms an \[n, n\] matrix: a step costs O(n K r (d + r)), memory is O(n K (d + r)). The problem is not
//! convex, so that a start matters.

use faer::traits::pulp::{Arch, NullaryFnOnce};
use ndarray::{Array1, Array2, Array3, ArrayView1, ArrayView2, Axis, concatenate, s};
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use papertrial_numerics::linalg::{LinalgError, cholesky, eigh, gram, matmul, matmul_into_single};
use papertrial_numerics::sampling;
use rand::RngExt;
use rayon::prelude::*;

/// Step length of the multiplier, below the golden ratio.
const STEP: f64 = 1.618;

/// Rows of a task of the elementwise passes.
const ROWS: usize = 32;

/// Below this many rows all eigenvalues are computed.
const SMALL: usize = 40;

/// An objective matrix C = G G' - (b 1' + 1 b') / 2.
#[derive(Debug, Clone)]
pub(crate) struct Objective {
    /// G, \[n, d\].
    pub factor: Array2<f64>,
    /// b, \[n\].
    pub penalty: Array1<f64>,
}

impl Objective {
    /// C, \[n, n\], symmetric to the last bit.
    pub(crate) fn dense(&self) -> Array2<f64> {
        // The Gram matrix of the columns of G' is G G'.
        let mut c = gram(self.factor.t());
        for ((i, j), value) in c.indexed_iter_mut() {
            *value -= 0.5 * (self.penalty[i] + self.penalty[j]);
        }
        c
    }

    /// <C, F F'> for F \[n, r\].
    pub(crate) fn value(&self, f: &Array2<f64>) -> f64 {
        let g = matmul(self.factor.t(), f.view());
        let sums = f.sum_axis(Axis(0));
        let weighted = self.penalty.dot(f);
        g.iter().map(|v| v * v).sum::<f64>() - weighted.dot(&sums)
    }
}

/// When a solver stops.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Residuals below this end it.
    pub tolerance: f64,
    /// Rounds at most.
    pub max_rounds: usize,
}

/// What a solver found.
#[derive(Debug, Clone)]
pub(crate) struct Solution {
    /// F_k \[n, r_k\] with Z_k = F_k F_k'.
    pub factors: Vec<Array2<f64>>,
    /// sum_k <C_k, Z_k>.
    pub objective: f64,
    /// Largest relative violation of the constraints.
    pub primal: f64,
    /// Relative violation of the optimality conditions.
    pub dual: f64,
    /// Rounds done.
    pub rounds: usize,
    /// Whether the residuals came below the tolerance.
    pub converged: bool,
}

impl Solution {
    /// Z_k 1 in column k, \[n, K\], negative rounding taken to 0.
    pub(crate) fn memberships(&self) -> Array2<f64> {
        let n = self.factors.first().map_or(0, Array2::nrows);
        let mut m = Array2::zeros((n, self.factors.len()));
        for (mut column, f) in m.axis_iter_mut(Axis(1)).zip(&self.factors) {
            column.assign(&f.dot(&f.sum_axis(Axis(0))).mapv(|v| v.max(0.0)));
        }
        m
    }

    /// The `q` leading eigenvectors of sum_k Z_k, \[n, q\]; zeros where its rank is lower.
    ///
    /// # Errors
    /// The eigenvalues cannot be computed.
    pub(crate) fn leading_eigenvectors(&self, q: usize) -> Result<Array2<f64>> {
        let views: Vec<_> = self.factors.iter().map(|f| f.view()).collect();
        let all = concatenate(Axis(1), &views).map_err(|e| Error::Failed(e.to_string()))?;
        // B B' and B' B have the same eigenvalues; B y / sqrt(l) are the vectors.
        let small = eigh(gram(all.view()).view()).map_err(failed)?;
        let rank = small.values.len();
        let largest = small.values.last().copied().unwrap_or(0.0);
        let mut vectors = Array2::zeros((all.nrows(), q));
        for j in 0..q.min(rank) {
            let from = rank - 1 - j;
            let value = small.values[from];
            if value > 1e-12 * largest {
                let mut column = vectors.column_mut(j);
                column.assign(&all.dot(&small.vectors.column(from)));
                column /= value.sqrt();
            }
        }
        Ok(vectors)
    }
}

/// Bytes that [`Admm`] needs for `k` blocks of `n` rows.
pub(crate) fn dense_bytes(k: usize, n: usize) -> u64 {
    5 * 8 * (k as u64) * (n as u64).saturating_mul(n as u64)
}

fn failed(e: LinalgError) -> Error {
    Error::Failed(format!("the semidefinite program failed: {e}"))
}

/// A(g) = (2 / (K n)) (g - 1 (1'g) / (2 n)), the inverse of y -> sum_k E(y) 1.
fn row_multiplier(g: ArrayView1<f64>, blocks: usize) -> Array1<f64> {
    let n = g.len() as f64;
    let middle = g.sum() / (2.0 * n);
    g.mapv(|v| 2.0 * (v - middle) / (blocks as f64 * n))
}

/// Lowers falling `values` by one level and to no less than 0, so that they sum to `total`: the level and how many
/// stay above 0.
fn water_level(values: &[f64], total: f64) -> (f64, usize) {
    let mut sum = 0.0;
    let mut found = (f64::NEG_INFINITY, 0);
    for (i, &value) in values.iter().enumerate() {
        sum += value;
        let level = (sum - total) / (i + 1) as f64;
        if value <= level {
            break;
        }
        found = (level, i + 1);
    }
    found
}

/// The dense solver, with the state that the next solve starts from.
pub(crate) struct Admm {
    traces: Vec<f64>,
    /// X, \[K, n, n\].
    x: Array3<f64>,
    /// N = sigma M, \[K, n, n\].
    n: Array3<f64>,
    /// v = sigma y, \[n\].
    v: Array1<f64>,
    /// sigma for C as given; 0 before the first solve.
    sigma: f64,
    /// Rows span the leading eigenvectors of the last round, \[q, n\]; none yet where empty.
    bases: Vec<Array2<f64>>,
    /// A fixed direction that no subspace can be blind to, \[1, n\].
    probe: Array2<f64>,
}

impl Admm {
    /// A solver for `n` rows and a block for each of `traces`, which starts from nothing.
    pub(crate) fn new(traces: Vec<f64>, n: usize) -> Admm {
        let blocks = traces.len();
        let mut rng = sampling::rng(0, "sdp probe");
        Admm {
            x: Array3::zeros((blocks, n, n)),
            n: Array3::zeros((blocks, n, n)),
            v: Array1::zeros(n),
            sigma: 0.0,
            bases: vec![Array2::zeros((0, n)); blocks],
            probe: Array2::from_shape_simple_fn((1, n), || rng.random_range(-1.0..1.0)),
            traces,
        }
    }

    /// One that starts from a partition: with one block the sum of all groups, with several each its own.
    pub(crate) fn from_labels(traces: Vec<f64>, labels: &[i32], k: usize) -> Admm {
        let mut start = Admm::new(traces, labels.len());
        let mut sizes = vec![0.0_f64; k];
        for &label in labels {
            sizes[label as usize] += 1.0;
        }
        let single = start.traces.len() == 1;
        for (i, &label) in labels.iter().enumerate() {
            let block = if single { 0 } else { label as usize };
            for (j, &other) in labels.iter().enumerate() {
                if other == label {
                    start.x[[block, i, j]] = 1.0 / sizes[label as usize];
                }
            }
        }
        for (block, basis) in start.bases.iter_mut().enumerate() {
            let groups: Vec<usize> = if single {
                (0..k).collect()
            } else {
                vec![block]
            };
            let groups: Vec<usize> = groups.into_iter().filter(|g| sizes[*g] > 0.0).collect();
            *basis = Array2::from_shape_fn((groups.len(), labels.len()), |(g, i)| {
                let hit = labels[i] as usize == groups[g];
                if hit {
                    1.0 / sizes[groups[g]].sqrt()
                } else {
                    0.0
                }
            });
        }
        start
    }

    /// Solves for these objectives from where the last solve ended.
    ///
    /// # Errors
    /// The eigenvalues cannot be computed, which only non-finite numbers bring about.
    pub(crate) fn solve(
        &mut self,
        objectives: &[Objective],
        settings: &Settings,
        context: &Context,
    ) -> Result<Solution> {
        let (blocks, n, _) = self.x.dim();
        let mut c = Array3::zeros((blocks, n, n));
        for (mut block, objective) in c.outer_iter_mut().zip(objectives) {
            block.assign(&objective.dense());
        }
        let largest = c.iter().fold(0.0_f64, |a, v| a.max(v.abs()));
        let scale = if largest > 0.0 { largest } else { 1.0 };
        c.mapv_inplace(|v| v / scale);
        let size = c.iter().map(|v| v * v).sum::<f64>().sqrt();
        let mut sigma = if self.sigma > 0.0 {
            self.sigma * scale
        } else if size > 0.0 {
            self.traces.iter().sum::<f64>().sqrt() / size
        } else {
            1.0
        };
        // Step 1.
        let mut p = Array3::zeros((blocks, n, n));
        self.combine(&c, &mut p, &Array1::zeros(n), 1.0, sigma);

        let (mut primal, mut dual) = (1.0_f64, 1.0_f64);
        let mut exact = false;
        let (mut leading_primal, mut leading_dual, mut next_change, mut pause) = (0, 0, 10, 10);
        let mut round = 0;
        loop {
            round += 1;
            if round % 25 == 1 {
                context.step(
                    "solving the semidefinite program",
                    round,
                    settings.max_rounds,
                );
            }
            // Step 2, more exact as the residuals fall.
            let accuracy = (0.02 * primal.max(dual)).clamp(1e-9, 1e-3);
            let spectra = self.spectra(&p, accuracy, exact)?;

            // Step 3: the first y, M with the part of step 4 that needs it, the second y.
            let mut g = Array1::ones(n);
            for spectrum in &spectra {
                g -= &spectrum.row_sums();
            }
            let first = row_multiplier(g.view(), blocks);
            let sums = self.sweep(&spectra, &first);
            let second = row_multiplier((&g - &sums.rows).view(), blocks);

            // Step 5. a = N' - N + Z - X is the change of X without E(w), b = X + 1.618 a - Z its distance to Z.
            let norm =
                |y: &Array1<f64>| blocks as f64 * 0.5 * (n as f64 * y.dot(y) + y.sum().powi(2));
            let z_size = spectra.iter().map(Spectrum::squared_norm).sum::<f64>();
            let a_rows = &sums.rows + &sums.difference_rows;
            let a = sums.moved - 2.0 * sums.cross + sums.apart;
            let change = a + 2.0 * a_rows.dot(&second) + norm(&second);
            let b_rows = &sums.difference_rows * (STEP - 1.0) + &sums.rows * STEP;
            let b = (1.0 - STEP).powi(2) * sums.apart
                + 2.0 * STEP * (1.0 - STEP) * sums.cross
                + STEP * STEP * sums.moved;
            let distance = b + 2.0 * STEP * b_rows.dot(&second) + STEP * STEP * norm(&second);
            let whole = 1.0 + z_size.sqrt();
            primal = (g.dot(&g).sqrt() / (1.0 + (n as f64).sqrt()))
                .max(sums.negative.sqrt() / whole)
                .max(distance.max(0.0).sqrt() / whole);
            dual = change.max(0.0).sqrt() / sigma / (1.0 + size);
            let mut done = primal.max(dual) < settings.tolerance;
            if done && !exact {
                let blocks: Vec<_> = spectra.iter().zip(p.outer_iter()).collect();
                let missed = blocks
                    .par_iter()
                    .any(|(spectrum, p)| !spectrum.is_complete(*p, 10.0 * accuracy));
                // Then the next round computes all eigenvalues and decides.
                done = !missed;
                exact = missed;
            } else {
                exact = false;
            }
            if done || round >= settings.max_rounds.max(1) {
                // The next solve goes on from step 4 of this round.
                self.combine(&c, &mut p, &second, 1.0, sigma);
                self.sigma = sigma / scale;
                let factors: Vec<Array2<f64>> = spectra.iter().map(Spectrum::factor).collect();
                let values = objectives.iter().zip(&factors);
                return Ok(Solution {
                    objective: values.map(|(c, f)| c.value(f)).sum(),
                    factors,
                    primal,
                    dual,
                    rounds: round,
                    converged: done,
                });
            }

            // Step 6.
            if primal < dual {
                leading_dual += 1;
            } else {
                leading_primal += 1;
            }
            let mut factor = 1.0;
            if round == next_change {
                if primal > 1.2 * dual && leading_primal > leading_dual {
                    factor = 1.0 / 1.4;
                } else if dual > 1.2 * primal && leading_dual > leading_primal {
                    factor = 1.4;
                }
                if leading_primal + leading_dual >= 50 {
                    (leading_primal, leading_dual) = (0, 0);
                }
                pause += usize::from(round > 200);
                next_change += pause;
            }
            sigma *= factor;
            // Step 4, and step 1 of the next round.
            self.combine(&c, &mut p, &second, factor, sigma);
        }
    }

    /// Step 2 for all blocks; keeps the subspaces for the next round.
    fn spectra(&mut self, p: &Array3<f64>, accuracy: f64, exact: bool) -> Result<Vec<Spectrum>> {
        let single = self.traces.len() == 1;
        let probe = &self.probe;
        let found: Result<Vec<Spectrum>> = self
            .bases
            .par_iter()
            .zip(p.outer_iter().collect::<Vec<_>>())
            .zip(&self.traces)
            .map(|((basis, p), &trace)| {
                let few = if exact || p.nrows() < SMALL || basis.nrows() == 0 {
                    None
                } else {
                    let start = concatenate(Axis(0), &[basis.view(), probe.view()])
                        .map_err(|e| Error::Failed(e.to_string()))?;
                    leading(p, start, trace, accuracy, single)?
                };
                match few {
                    Some(few) => Ok(few),
                    None => Spectrum::of_all(p, trace),
                }
            })
            .collect();
        let found = found?;
        for (basis, spectrum) in self.bases.iter_mut().zip(&found) {
            *basis = spectrum.vectors.clone();
        }
        Ok(found)
    }

    /// Step 3's N' and step 4 without E(w), in one pass over X and N.
    fn sweep(&mut self, spectra: &[Spectrum], first: &Array1<f64>) -> Sums {
        let (_, n, _) = self.x.dim();
        let weighted: Vec<Array2<f64>> = spectra.iter().map(Spectrum::weighted).collect();
        let first = first.as_slice().unwrap_or(&[]);
        let (x, multiplier) = (self.x.as_slice_mut(), self.n.as_slice_mut());
        let (x, multiplier) = (x.unwrap_or(&mut []), multiplier.unwrap_or(&mut []));
        let tasks: Vec<(usize, usize, &mut [f64], &mut [f64])> = x
            .chunks_mut(n * n)
            .zip(multiplier.chunks_mut(n * n))
            .enumerate()
            .flat_map(|(block, (x, m))| {
                let parts = x.chunks_mut(ROWS * n).zip(m.chunks_mut(ROWS * n));
                parts
                    .enumerate()
                    .map(move |(part, (x, m))| (block, part * ROWS, x, m))
            })
            .collect();
        let parts: Vec<(usize, Vec<RowSums>)> = tasks
            .into_par_iter()
            .map(|(block, start, x, m)| {
                let mut z = vec![0.0; n];
                let rows = x.chunks_exact_mut(n).zip(m.chunks_exact_mut(n)).enumerate();
                let sums = rows
                    .map(|(i, (x, m))| {
                        Arch::new().dispatch(SweepRow {
                            x,
                            m,
                            z: &mut z,
                            weighted: &weighted[block],
                            first,
                            row: start + i,
                        })
                    })
                    .collect();
                (start, sums)
            })
            .collect();
        let mut total = Sums {
            rows: Array1::zeros(n),
            difference_rows: Array1::zeros(n),
            moved: 0.0,
            cross: 0.0,
            apart: 0.0,
            negative: 0.0,
        };
        for (start, rows) in parts {
            for (i, sums) in rows.into_iter().enumerate() {
                let [moved_sum, difference_sum, moved, cross, apart, negative] = sums;
                total.rows[start + i] += moved_sum;
                total.difference_rows[start + i] += difference_sum;
                total.moved += moved;
                total.cross += cross;
                total.apart += apart;
                total.negative += negative;
            }
        }
        total
    }

    /// The rest of step 4, a change of sigma by `factor`, and step 1, in one pass.
    fn combine(
        &mut self,
        c: &Array3<f64>,
        p: &mut Array3<f64>,
        w: &Array1<f64>,
        factor: f64,
        sigma: f64,
    ) {
        let (_, n, _) = self.x.dim();
        self.v = (&self.v + w) * factor;
        let halves: Vec<f64> = self.v.iter().map(|v| 0.5 * v).collect();
        let steps: Vec<f64> = w.iter().map(|v| 0.5 * STEP * v).collect();
        let (x, multiplier) = (self.x.as_slice_mut(), self.n.as_slice_mut());
        let (x, multiplier) = (x.unwrap_or(&mut []), multiplier.unwrap_or(&mut []));
        let (p, c) = (
            p.as_slice_mut().unwrap_or(&mut []),
            c.as_slice().unwrap_or(&[]),
        );
        // A part is ROWS rows of a block or of two neighbours: only the row within its block matters.
        p.par_chunks_mut(ROWS * n)
            .zip(c.par_chunks(ROWS * n))
            .zip(
                x.par_chunks_mut(ROWS * n)
                    .zip(multiplier.par_chunks_mut(ROWS * n)),
            )
            .enumerate()
            .for_each(|(part, ((p, c), (x, m)))| {
                let rows = p.chunks_exact_mut(n).zip(c.chunks_exact(n));
                let others = x.chunks_exact_mut(n).zip(m.chunks_exact_mut(n));
                for (i, ((p, c), (x, m))) in rows.zip(others).enumerate() {
                    let row = (part * ROWS + i) % n;
                    Arch::new().dispatch(CombineRow {
                        p,
                        c,
                        x,
                        m,
                        halves: &halves,
                        steps: &steps,
                        row,
                        factor,
                        sigma,
                    });
                }
            });
    }
}

/// What [`Admm::sweep`] adds up, over all blocks.
struct Sums {
    /// sum_k (N' - N) 1, \[n\].
    rows: Array1<f64>,
    /// sum_k (Z - X) 1, \[n\].
    difference_rows: Array1<f64>,
    /// |N' - N|^2.
    moved: f64,
    /// <N' - N, X - Z>.
    cross: f64,
    /// |X - Z|^2.
    apart: f64,
    /// Squares of the negative entries of Z.
    negative: f64,
}

/// Sum of N' - N, sum of Z - X, and the four squares of [`Sums`], of one row.
type RowSums = [f64; 6];

/// Numbers that go through the vector units together.
const LANES: usize = 8;

/// One row of [`Admm::sweep`]. A struct, because a closure would not be inlined into its vectorised caller.
struct SweepRow<'a> {
    x: &'a mut [f64],
    m: &'a mut [f64],
    /// Receives the row of Z.
    z: &'a mut [f64],
    /// Z = weighted' weighted, \[r, n\].
    weighted: &'a Array2<f64>,
    first: &'a [f64],
    row: usize,
}

impl NullaryFnOnce for SweepRow<'_> {
    type Output = RowSums;

    #[inline(always)]
    fn call(self) -> RowSums {
        let n = self.x.len();
        self.z.fill(0.0);
        for vector in self.weighted.outer_iter() {
            let vector = vector.to_slice().unwrap_or(&[]);
            let own = vector[self.row];
            for (z, value) in self.z.iter_mut().zip(vector) {
                *z += own * value;
            }
        }
        let own = self.first[self.row];
        let mut sums = [[0.0; LANES]; 6];
        let whole = n - n % LANES;
        for j in (0..whole).step_by(LANES) {
            for lane in 0..LANES {
                sweep_entry(
                    &mut self.x[j + lane],
                    &mut self.m[j + lane],
                    self.z[j + lane],
                    own,
                    self.first[j + lane],
                    lane,
                    &mut sums,
                );
            }
        }
        for j in whole..n {
            sweep_entry(
                &mut self.x[j],
                &mut self.m[j],
                self.z[j],
                own,
                self.first[j],
                j - whole,
                &mut sums,
            );
        }
        sums.map(|lanes| lanes.iter().sum())
    }
}

#[inline(always)]
fn sweep_entry(
    x: &mut f64,
    m: &mut f64,
    z: f64,
    own: f64,
    other: f64,
    lane: usize,
    sums: &mut [[f64; LANES]; 6],
) {
    let new = (*m - 0.5 * (own + other) - z).max(0.0);
    let moved = new - *m;
    let apart = *x - z;
    let below = z.min(0.0);
    *m = new;
    *x += STEP * (moved - apart);
    sums[0][lane] += moved;
    sums[1][lane] -= apart;
    sums[2][lane] += moved * moved;
    sums[3][lane] += moved * apart;
    sums[4][lane] += apart * apart;
    sums[5][lane] += below * below;
}

/// One row of [`Admm::combine`].
struct CombineRow<'a> {
    p: &'a mut [f64],
    c: &'a [f64],
    x: &'a mut [f64],
    m: &'a mut [f64],
    halves: &'a [f64],
    steps: &'a [f64],
    row: usize,
    factor: f64,
    sigma: f64,
}

impl NullaryFnOnce for CombineRow<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let (half, step) = (self.halves[self.row], self.steps[self.row]);
        let values = self
            .p
            .iter_mut()
            .zip(self.c)
            .zip(self.x.iter_mut().zip(self.m.iter_mut()));
        let shifts = self.halves.iter().zip(self.steps);
        for (((p, c), (x, m)), (other_half, other_step)) in values.zip(shifts) {
            *x += step + other_step;
            *m *= self.factor;
            // Of two sums the same pairs are added first, whichever of (i, j) and (j, i) this is.
            *p = *x + self.sigma * c + (half + other_half) + *m;
        }
    }
}

/// The part of a spectrum that step 2 keeps.
struct Spectrum {
    /// Leading eigenvalues, falling: those kept and some more.
    values: Vec<f64>,
    /// Their eigenvectors as rows, \[q, n\].
    vectors: Array2<f64>,
    /// theta.
    level: f64,
    /// How many are above theta.
    kept: usize,
    /// Whether all eigenvalues were computed.
    all: bool,
}

impl Spectrum {
    /// From all eigenvalues of P.
    fn of_all(p: ArrayView2<f64>, trace: f64) -> Result<Spectrum> {
        let eigen = eigh(p).map_err(failed)?;
        let n = p.nrows();
        let values: Vec<f64> = eigen.values.iter().rev().copied().collect();
        let (level, kept) = water_level(&values, trace);
        let wanted = with_spare(kept).min(n);
        Ok(Spectrum {
            vectors: Array2::from_shape_fn((wanted, n), |(j, i)| eigen.vectors[[i, n - 1 - j]]),
            values: values[..wanted].to_vec(),
            level,
            kept,
            all: true,
        })
    }

    /// \[kept, n\]: Z = weighted' weighted.
    fn weighted(&self) -> Array2<f64> {
        Array2::from_shape_fn((self.kept, self.vectors.ncols()), |(j, i)| {
            (self.values[j] - self.level).sqrt() * self.vectors[[j, i]]
        })
    }

    /// F \[n, kept\] with Z = F F'.
    fn factor(&self) -> Array2<f64> {
        self.weighted().t().as_standard_layout().into_owned()
    }

    /// Z 1, \[n\].
    fn row_sums(&self) -> Array1<f64> {
        let weighted = self.weighted();
        weighted.t().dot(&weighted.sum_axis(Axis(1)))
    }

    /// |Z|^2.
    fn squared_norm(&self) -> f64 {
        let kept = &self.values[..self.kept];
        kept.iter().map(|v| (v - self.level).powi(2)).sum()
    }

    /// Whether P has no other eigenvalue above theta by more than `slack`: then (theta + slack) I - P, with the
    /// kept ones taken out, has a Cholesky factor.
    fn is_complete(&self, p: ArrayView2<f64>, slack: f64) -> bool {
        if self.all {
            return true;
        }
        let kept = self.vectors.slice(s![..self.kept, ..]);
        let mut scaled = kept.to_owned();
        for (mut row, value) in scaled.outer_iter_mut().zip(&self.values) {
            row *= *value;
        }
        let mut rest = p.mapv(|v| -v);
        matmul_into_single(rest.view_mut(), 1.0, kept.t(), scaled.view(), 1.0);
        for i in 0..p.nrows() {
            rest[[i, i]] += self.level + slack;
        }
        cholesky(rest.view()).is_ok()
    }
}

/// Eigenvectors to keep for the next round when `kept` were needed in this one.
fn with_spare(kept: usize) -> usize {
    kept + 2 + kept / 4
}

/// The leading eigenvalues of a symmetric matrix by a Krylov space on the rows of `start` \[q, n\], restarted.
///
/// Ends when every eigenpair above theta has a residual below `accuracy` and the next one lies below theta; `None`
/// where that takes too long to pay.
fn leading(
    p: ArrayView2<f64>,
    start: Array2<f64>,
    trace: f64,
    accuracy: f64,
    parallel: bool,
) -> Result<Option<Spectrum>> {
    const TRIES: usize = 24;
    let n = p.nrows();
    // The products p * basis row by row; p is symmetric.
    let product = |rows: &Array2<f64>| {
        if parallel {
            matmul(p, rows.t()).t().as_standard_layout().into_owned()
        } else {
            let mut out = Array2::zeros(rows.dim());
            matmul_into_single(out.view_mut(), 1.0, rows.view(), p, 0.0);
            out
        }
    };
    let mut basis = orthonormal(start, &Array2::zeros((0, n)));
    let mut image = product(&basis);
    for _ in 0..TRIES {
        let m = basis.nrows();
        if m < 2 || 3 * m > n {
            return Ok(None);
        }
        // Rayleigh and Ritz, the largest value first.
        let mut small = Array2::zeros((m, m));
        matmul_into_single(small.view_mut(), 1.0, basis.view(), image.t(), 0.0);
        let small = (&small + &small.t()) * 0.5;
        let eigen = eigh(small.view()).map_err(failed)?;
        let values: Vec<f64> = eigen.values.iter().rev().copied().collect();
        let (level, kept) = water_level(&values, trace);
        let wanted = with_spare(kept);
        if kept >= m {
            return Ok(None);
        }
        let wanted = wanted.min(m);
        let turn = eigen.vectors.slice(s![.., ..;-1]);
        let turn = turn
            .slice(s![.., ..wanted])
            .t()
            .as_standard_layout()
            .into_owned();
        let rotate = |from: &Array2<f64>| {
            let mut out = Array2::zeros((wanted, n));
            matmul_into_single(out.view_mut(), 1.0, turn.view(), from.view(), 0.0);
            out
        };
        let (vectors, images) = (rotate(&basis), rotate(&image));
        let mut residuals = images.clone();
        for ((mut row, vector), value) in residuals
            .outer_iter_mut()
            .zip(vectors.outer_iter())
            .zip(&values)
        {
            row.scaled_add(-value, &vector);
        }
        let sizes: Vec<f64> = residuals.outer_iter().map(|r| r.dot(&r).sqrt()).collect();
        let settled =
            |j: usize| sizes[j] <= accuracy || (j == kept && values[j] + sizes[j] <= level);
        let open: Vec<usize> = (0..=kept).filter(|j| !settled(*j)).collect();
        if open.is_empty() {
            return Ok(Some(Spectrum {
                values: values[..wanted].to_vec(),
                vectors,
                level,
                kept,
                all: false,
            }));
        }
        // Widen by what is not settled; start again from the best where the space has become large.
        if m + open.len() > 4 * wanted {
            (basis, image) = (vectors, images);
        }
        let more = orthonormal(residuals.select(Axis(0), &open), &basis);
        if more.nrows() == 0 {
            return Ok(None);
        }
        let more_image = product(&more);
        let joined = |a: &Array2<f64>, b: &Array2<f64>| {
            concatenate(Axis(0), &[a.view(), b.view()]).map_err(|e| Error::Failed(e.to_string()))
        };
        basis = joined(&basis, &more)?;
        image = joined(&image, &more_image)?;
    }
    Ok(None)
}

/// Orthonormal rows that span, together with the orthonormal rows of `against`, what `rows` spans; those that add
/// nothing are dropped.
fn orthonormal(mut rows: Array2<f64>, against: &Array2<f64>) -> Array2<f64> {
    let n = rows.ncols();
    let before: Vec<f64> = rows.outer_iter().map(|r| r.dot(&r).sqrt()).collect();
    // Twice is enough.
    for _ in 0..2 {
        if against.nrows() > 0 {
            let mut shares = Array2::zeros((rows.nrows(), against.nrows()));
            matmul_into_single(shares.view_mut(), 1.0, rows.view(), against.t(), 0.0);
            matmul_into_single(rows.view_mut(), -1.0, shares.view(), against.view(), 1.0);
        }
    }
    let mut out = Array2::zeros((0, n));
    for (row, before) in rows.outer_iter().zip(before) {
        let mut row = row.to_owned();
        for _ in 0..2 {
            for other in out.outer_iter() {
                let share = row.dot(&other);
                row.scaled_add(-share, &other);
            }
        }
        let size = row.dot(&row).sqrt();
        if size > 1e-10 * before && size > 1e-300 {
            row /= size;
            // The shapes fit: n columns each.
            let _ = out.push_row(row.view());
        }
    }
    out
}

/// The low-rank solver, with the factors and multipliers that the next solve starts from.
pub(crate) struct LowRank {
    traces: Vec<f64>,
    /// U_k, \[n, r\].
    factors: Vec<Array2<f64>>,
    /// y for the scaled objective, \[n\].
    y: Array1<f64>,
    /// beta; 0 before the first solve.
    beta: f64,
}

/// A point of the low-rank solver and what belongs to it.
struct Point {
    factors: Vec<Array2<f64>>,
    /// The augmented Lagrangian.
    value: f64,
    /// q = m - 1, \[n\].
    violation: Array1<f64>,
}

impl LowRank {
    /// Steps for each round that the settings allow: a step is that much cheaper than a round of [`Admm`].
    const STEPS: usize = 5;

    /// Largest beta, for objectives whose entries are at most 1.
    const STIFFEST: f64 = 1e6;

    /// A solver that starts from a partition: indicators of the groups, with a little noise from `seed` everywhere
    /// so that no entry is stuck at 0. One block gets 2 k columns, each of several gets 3.
    pub(crate) fn from_labels(traces: Vec<f64>, labels: &[i32], k: usize, seed: u64) -> LowRank {
        let n = labels.len();
        let single = traces.len() == 1;
        let rank = if single { 2 * k } else { 3 }.min(n);
        let mut sizes = vec![0.0_f64; k];
        for &label in labels {
            sizes[label as usize] += 1.0;
        }
        let mut rng = sampling::rng(seed, "low-rank start");
        let noise = 0.1 / (n as f64).sqrt();
        let mut factors = Vec::with_capacity(traces.len());
        for (block, trace) in traces.iter().enumerate() {
            let mut u = Array2::from_shape_simple_fn((n, rank), || rng.random_range(0.0..noise));
            for (i, &label) in labels.iter().enumerate() {
                let label = label as usize;
                if single && label < rank {
                    u[[i, label]] += 1.0 / sizes[label].sqrt();
                } else if label == block {
                    u[[i, 0]] += 1.0 / sizes[label].sqrt();
                }
            }
            // All of a block at noise level would be the same in every row, where the gradient is blind: a group
            // without rows starts at one.
            if !single && sizes.get(block) == Some(&0.0) {
                u[[block % n, 0]] += 1.0;
            }
            project(&mut u, *trace);
            factors.push(u);
        }
        LowRank {
            traces,
            factors,
            y: Array1::zeros(n),
            beta: 0.0,
        }
    }

    /// Solves for these objectives from where the last solve ended; `max_rounds` times five steps at most.
    pub(crate) fn solve(
        &mut self,
        objectives: &[Objective],
        settings: &Settings,
        context: &Context,
    ) -> Solution {
        let n = self.y.len();
        let root = 1.0 + (n as f64).sqrt();
        // A bound on the entries of C, and the objectives scaled by it.
        let bound = objectives
            .iter()
            .flat_map(|c| {
                let rows = c.factor.outer_iter().zip(&c.penalty);
                rows.map(|(g, b)| g.dot(&g) + b.abs())
            })
            .fold(0.0_f64, f64::max);
        let scale = if bound > 0.0 { bound } else { 1.0 };
        let scaled: Vec<Objective> = objectives
            .iter()
            .map(|c| Objective {
                factor: &c.factor / scale.sqrt(),
                penalty: &c.penalty / scale,
            })
            .collect();
        // Step 1.
        if self.beta == 0.0 {
            let diagonal: f64 = scaled
                .iter()
                .map(|c| c.factor.iter().map(|v| v * v).sum::<f64>())
                .sum();
            self.beta = (diagonal / (n * scaled.len()) as f64).max(1e-3);
        }
        let limit = settings.max_rounds * Self::STEPS;
        let mut steps = 0;
        let mut before = f64::INFINITY;
        let mut point = self.point(&scaled, self.factors.clone());
        let (mut primal, mut dual);
        loop {
            context.step("solving the semidefinite program", steps, limit);
            // Step 2.
            let aim = (0.1 * point.violation.dot(&point.violation).sqrt() / root)
                .max(0.3 * settings.tolerance);
            (point, dual) = self.descend(&scaled, point, aim, limit, &mut steps);
            // Step 3.
            primal = point.violation.dot(&point.violation).sqrt() / root;
            self.y.scaled_add(self.beta, &point.violation);
            if primal > 0.5 * before && primal > settings.tolerance {
                self.beta = (2.0 * self.beta).min(Self::STIFFEST);
            }
            // An update of y counts too, so that a point that cannot move does not go on for ever.
            steps += 1;
            before = primal;
            if (primal < settings.tolerance && dual < settings.tolerance) || steps >= limit {
                break;
            }
            point = self.point(&scaled, point.factors);
        }
        self.factors = point.factors.clone();
        let values = objectives.iter().zip(&point.factors);
        Solution {
            objective: values.map(|(c, f)| c.value(f)).sum(),
            factors: point.factors,
            primal,
            dual,
            rounds: steps,
            converged: primal < settings.tolerance && dual < settings.tolerance,
        }
    }

    /// The augmented Lagrangian at `factors`.
    fn point(&self, scaled: &[Objective], factors: Vec<Array2<f64>>) -> Point {
        let mut violation = Array1::from_elem(self.y.len(), -1.0);
        let mut value = 0.0;
        for (c, u) in scaled.iter().zip(&factors) {
            violation += &u.dot(&u.sum_axis(Axis(0)));
            value -= c.value(u);
        }
        value += self.y.dot(&violation) + 0.5 * self.beta * violation.dot(&violation);
        Point {
            factors,
            value,
            violation,
        }
    }

    /// Its gradients: -2 G (G' U) + (b + w) (1'U) + 1 ((b + w)' U) with w = y + beta q.
    fn gradients(&self, scaled: &[Objective], point: &Point) -> Vec<Array2<f64>> {
        let w = &self.y + &(&point.violation * self.beta);
        let blocks = scaled.iter().zip(&point.factors);
        blocks
            .map(|(c, u)| {
                let inner = matmul(c.factor.t(), u.view());
                let mut gradient = matmul(c.factor.view(), inner.view());
                let linear = &c.penalty + &w;
                let sums = u.sum_axis(Axis(0));
                let weighted = linear.dot(u);
                for (mut row, l) in gradient.outer_iter_mut().zip(&linear) {
                    row.zip_mut_with(&sums, |g, s| *g = -2.0 * *g + l * s);
                    row += &weighted;
                }
                gradient
            })
            .collect()
    }

    /// Projected gradient steps until one of unit length would move less than `aim`, relative to the norm.
    fn descend(
        &self,
        scaled: &[Objective],
        start: Point,
        aim: f64,
        limit: usize,
        steps: &mut usize,
    ) -> (Point, f64) {
        const MEMORY: usize = 8;
        const MOST: usize = 200;
        let whole = 1.0 + self.traces.iter().sum::<f64>().sqrt();
        let mut point = start;
        let mut gradients = self.gradients(scaled, &point);
        let mut recent = vec![point.value];
        let mut length = 1.0 / (1.0 + inner(&gradients, &gradients).sqrt());
        let mut moved = self.stationarity(&point, &gradients) / whole;
        for _ in 0..MOST {
            if moved < aim || *steps >= limit {
                break;
            }
            let reference = recent.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let next = loop {
                let next = self.point(scaled, self.moved(&point, &gradients, length));
                let step = differences(&next.factors, &point.factors);
                let travelled = inner(&step, &step);
                if next.value <= reference - 1e-4 * travelled / length || length < 1e-12 {
                    break next;
                }
                length *= 0.4;
            };
            *steps += 1;
            let next_gradients = self.gradients(scaled, &next);
            let step = differences(&next.factors, &point.factors);
            let bend = inner(&step, &differences(&next_gradients, &gradients));
            let travelled = inner(&step, &step);
            length = if bend > 0.0 {
                travelled / bend
            } else {
                4.0 * length
            };
            length = length.clamp(1e-8, 1e4);
            (point, gradients) = (next, next_gradients);
            if recent.len() == MEMORY {
                recent.remove(0);
            }
            recent.push(point.value);
            moved = self.stationarity(&point, &gradients) / whole;
        }
        (point, moved)
    }

    /// Pi(U - length * gradient).
    fn moved(&self, point: &Point, gradients: &[Array2<f64>], length: f64) -> Vec<Array2<f64>> {
        let blocks = point.factors.iter().zip(gradients).zip(&self.traces);
        blocks
            .map(|((u, g), trace)| {
                let mut next = u - &(g * length);
                project(&mut next, *trace);
                next
            })
            .collect()
    }

    /// |Pi(U - gradient) - U|, with the part of the gradient along U, which Pi undoes, taken out first.
    fn stationarity(&self, point: &Point, gradients: &[Array2<f64>]) -> f64 {
        let blocks = point.factors.iter().zip(gradients).zip(&self.traces);
        blocks
            .map(|((u, g), trace)| {
                let radial = (u * g).sum() / trace;
                let pairs = u.iter().zip(g);
                pairs
                    .map(|(u, g)| ((u - (g - radial * u)).max(0.0) - u).powi(2))
                    .sum::<f64>()
            })
            .sum::<f64>()
            .sqrt()
    }
}

/// The nearest matrix with no negative entry and squared norm `trace`.
fn project(u: &mut Array2<f64>, trace: f64) {
    let size: f64 = u.iter().map(|v| v.max(0.0).powi(2)).sum();
    if size > 0.0 {
        let by = (trace / size).sqrt();
        u.mapv_inplace(|v| v.max(0.0) * by);
    } else {
        // All entries are at most 0: the largest one takes the whole norm.
        let mut best = (0, f64::NEG_INFINITY);
        for (i, &v) in u.iter().enumerate() {
            if v > best.1 {
                best = (i, v);
            }
        }
        u.fill(0.0);
        if let Some(entry) = u.iter_mut().nth(best.0) {
            *entry = trace.sqrt();
        }
    }
}

fn inner(a: &[Array2<f64>], b: &[Array2<f64>]) -> f64 {
    let pairs = a.iter().zip(b);
    pairs
        .map(|(a, b)| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>())
        .sum()
}

fn differences(a: &[Array2<f64>], b: &[Array2<f64>]) -> Vec<Array2<f64>> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;

    fn tight() -> Settings {
        Settings {
            tolerance: 1e-6,
            max_rounds: 3000,
        }
    }

    /// The k-means objective <X X', Z>.
    fn kmeans_objective(x: &Array2<f64>) -> Objective {
        Objective {
            factor: x.clone(),
            penalty: Array1::zeros(x.nrows()),
        }
    }

    fn draw(n: usize, d: usize, seed: u64) -> Array2<f64> {
        let mut rng = sampling::rng(seed, "sdp test");
        Array2::from_shape_simple_fn((n, d), || rng.random_range(-1.0..1.0))
    }

    /// Three groups of `n / 3` rows each, far apart.
    fn three_groups(n: usize, seed: u64) -> (Array2<f64>, Vec<i32>) {
        let centres = [[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]];
        let mut x = draw(n, 2, seed);
        let labels: Vec<i32> = (0..n).map(|i| (i % 3) as i32).collect();
        for (mut row, label) in x.outer_iter_mut().zip(&labels) {
            row += &ArrayView1::from(&centres[*label as usize]);
        }
        let mean = x.mean_axis(Axis(0)).unwrap();
        (x - &mean, labels)
    }

    fn z(solution: &Solution) -> Vec<Array2<f64>> {
        solution.factors.iter().map(|f| f.dot(&f.t())).collect()
    }

    #[test]
    fn row_sums_are_met_by_the_nearest_matrices() {
        // Against least squares on the constraints themselves: Z = T - A' (A A')^-1 (A T - 1), where row i of A is
        // the symmetric matrix (e_i 1' + 1 e_i') / 2, repeated for each block.
        let (n, blocks) = (4, 3);
        let t: Vec<Array2<f64>> = (0..blocks)
            .map(|k| {
                let t = draw(n, n, k as u64);
                (&t + &t.t()) * 0.5
            })
            .collect();
        let a = Array2::from_shape_fn((n, blocks * n * n), |(i, c)| {
            let (r, s) = ((c / n) % n, c % n);
            0.5 * (f64::from(u8::from(r == i)) + f64::from(u8::from(s == i)))
        });
        let flat = Array1::from_iter(t.iter().flatten().copied());
        let excess = a.dot(&flat) - 1.0;
        let multiplier = cholesky(a.dot(&a.t()).view())
            .unwrap()
            .solve_vector(excess.view());
        let expected = &flat - &a.t().dot(&multiplier);

        let missing = Array1::ones(n)
            - t.iter()
                .map(|t| t.sum_axis(Axis(1)))
                .fold(Array1::<f64>::zeros(n), |a, b| a + b);
        let y = row_multiplier(missing.view(), blocks);
        for (k, t) in t.iter().enumerate() {
            for i in 0..n {
                for j in 0..n {
                    let ours = t[[i, j]] + 0.5 * (y[i] + y[j]);
                    assert!((ours - expected[(k * n + i) * n + j]).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn the_water_level_is_that_of_hand() {
        // 3 + 2 = 5, less 2 * 1.5 is 2; 1 lies below.
        assert_eq!(water_level(&[3.0, 2.0, 1.0], 2.0), (1.5, 2));
        assert_eq!(water_level(&[5.0, 2.0], 1.0), (4.0, 1));
        assert_eq!(water_level(&[0.0, 0.0], 1.0), (-0.5, 2));
    }

    #[test]
    fn the_objective_matrix_is_its_formula_and_symmetric_to_the_bit() {
        let objective = Objective {
            factor: draw(20, 3, 1),
            penalty: draw(20, 1, 2).column(0).to_owned(),
        };
        let c = objective.dense();
        let g = &objective.factor;
        for i in 0..20 {
            for j in 0..20 {
                let expected =
                    g.row(i).dot(&g.row(j)) - 0.5 * (objective.penalty[i] + objective.penalty[j]);
                assert!((c[[i, j]] - expected).abs() < 1e-14);
                assert_eq!(c[[i, j]].to_bits(), c[[j, i]].to_bits());
            }
        }
        let f = draw(20, 2, 3);
        let direct = (&c * &f.dot(&f.t())).sum();
        assert!((objective.value(&f) - direct).abs() < 1e-12);
    }

    #[test]
    fn two_pairs_have_the_block_matrix_of_hand() {
        let x = array![[-5.0, 0.0], [-5.0, 1.0], [5.0, 0.0], [5.0, -1.0]];
        let context = Context::with_seed(0);
        let solution = Admm::new(vec![2.0], 4)
            .solve(&[kmeans_objective(&x)], &tight(), &context)
            .unwrap();
        assert!(solution.converged);
        let h = 0.5;
        let expected = array![
            [h, h, 0., 0.],
            [h, h, 0., 0.],
            [0., 0., h, h],
            [0., 0., h, h]
        ];
        let error = (&z(&solution)[0] - &expected).mapv(f64::abs);
        assert!(error.iter().all(|e| *e < 1e-4), "{error}");
        // <X X', Z> = |sum of a pair|^2 / 2 for both pairs: (100 + 1) / 2 each.
        assert!(
            (solution.objective - 101.0).abs() < 1e-3,
            "{}",
            solution.objective
        );

        // With a block a group: cluster 0 likes the first pair, cluster 1 the second.
        let separate = [
            Objective {
                factor: x.clone(),
                penalty: array![0., 0., 60., 60.],
            },
            Objective {
                factor: x.clone(),
                penalty: array![60., 60., 0., 0.],
            },
        ];
        let solution = Admm::new(vec![1.0, 1.0], 4)
            .solve(&separate, &tight(), &context)
            .unwrap();
        let m = solution.memberships();
        let error = (&m - &array![[1., 0.], [1., 0.], [0., 1.], [0., 1.]]).mapv(f64::abs);
        assert!(error.iter().all(|e| *e < 1e-3), "{m}");
    }

    #[test]
    fn the_relaxation_is_at_least_as_good_as_every_partition() {
        // All 31 partitions of 6 rows into two groups; the relaxation may only be better.
        let x = draw(6, 2, 5);
        let objective = kmeans_objective(&x);
        let mut best = f64::NEG_INFINITY;
        for mask in 1..32_u32 {
            let mut factor = Array2::zeros((6, 2));
            let sizes = [
                f64::from(6 - mask.count_ones()),
                f64::from(mask.count_ones()),
            ];
            for i in 0..6 {
                let side = (mask >> i & 1) as usize;
                factor[[i, side]] = 1.0 / sizes[side].sqrt();
            }
            best = best.max(objective.value(&factor));
        }
        let solution = Admm::new(vec![2.0], 6)
            .solve(&[objective], &tight(), &Context::with_seed(0))
            .unwrap();
        assert!(
            solution.objective > best - 1e-4,
            "{} {best}",
            solution.objective
        );
        assert!(
            solution.objective < best + 0.5,
            "{} {best}",
            solution.objective
        );
    }

    #[test]
    fn leading_eigenvalues_from_a_subspace_are_those_from_all() {
        let n = 120;
        let (x, labels) = three_groups(n, 2);
        let mut p = Admm::from_labels(vec![3.0], &labels, 3)
            .x
            .index_axis(Axis(0), 0)
            .to_owned();
        // Twice the projection: then the level that leaves a trace of 3 lies above the noise.
        p *= 2.0;
        let noise = draw(n, n, 9) * 0.02;
        p += &(&noise + &noise.t());
        p += &(kmeans_objective(&x).dense() * 1e-4);
        let all = Spectrum::of_all(p.view(), 3.0).unwrap();
        for parallel in [false, true] {
            // As in a round: the subspace of the last one, a little off.
            let near = &Admm::from_labels(vec![3.0], &labels, 3).bases[0] + &(draw(3, n, 3) * 0.05);
            let start = concatenate(Axis(0), &[near.view(), draw(1, n, 4).view()]).unwrap();
            let few = leading(p.view(), start, 3.0, 1e-9, parallel)
                .unwrap()
                .unwrap();
            assert_eq!(few.kept, all.kept);
            let difference =
                few.factor().dot(&few.factor().t()) - all.factor().dot(&all.factor().t());
            assert!(difference.iter().all(|d| d.abs() < 1e-7));
            assert!(few.is_complete(p.view(), 1e-8));
            // With one of the kept ones lost, the Cholesky factor tells.
            let lost = Spectrum {
                values: few.values[1..].to_vec(),
                vectors: few.vectors.slice(s![1.., ..]).to_owned(),
                kept: few.kept - 1,
                ..few
            };
            assert!(!lost.is_complete(p.view(), 1e-8));
        }
    }

    #[test]
    fn separated_groups_are_recovered_by_both_solvers() {
        let (x, labels) = three_groups(90, 1);
        let objective = [kmeans_objective(&x)];
        let context = Context::with_seed(0);
        let mut truth = Array2::zeros((90, 3));
        for (i, label) in labels.iter().enumerate() {
            truth[[i, *label as usize]] = 1.0 / 30.0_f64.sqrt();
        }
        let best = objective[0].value(&truth);
        let dense = Admm::new(vec![3.0], 90)
            .solve(&objective, &tight(), &context)
            .unwrap();
        assert!(dense.converged && (dense.objective / best - 1.0).abs() < 1e-5);
        // From a wrong partition.
        let wrong: Vec<i32> = labels
            .iter()
            .enumerate()
            .map(|(i, l)| if i < 20 { 0 } else { *l })
            .collect();
        let few =
            LowRank::from_labels(vec![3.0], &wrong, 3, 0).solve(&objective, &tight(), &context);
        assert!(few.converged, "{} {}", few.primal, few.dual);
        assert!(
            (few.objective / best - 1.0).abs() < 1e-4,
            "{} {best}",
            few.objective
        );
        for solution in [&dense, &few] {
            let vectors = solution.leading_eigenvectors(3).unwrap();
            let gram = vectors.t().dot(&vectors);
            assert!(
                (&gram - &Array2::<f64>::eye(3))
                    .iter()
                    .all(|e| e.abs() < 1e-8)
            );
            // The space is that of the indicators.
            let inside = truth.t().dot(&vectors);
            assert!(
                (inside.t().dot(&inside) - Array2::<f64>::eye(3))
                    .iter()
                    .all(|e: &f64| e.abs() < 1e-2)
            );
        }
    }

    #[test]
    fn a_warm_start_saves_rounds_and_threads_change_no_bit() {
        let (mut x, labels) = three_groups(60, 3);
        x += &(draw(60, 2, 8) * 3.0);
        let context = Context::with_seed(0);
        let settings = Settings {
            tolerance: 1e-4,
            max_rounds: 600,
        };
        let objective = [kmeans_objective(&x)];
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                let mut solver = Admm::from_labels(vec![3.0], &labels, 3);
                let cold = solver.solve(&objective, &settings, &context).unwrap();
                let near = [Objective {
                    factor: &x * 1.01,
                    ..objective[0].clone()
                }];
                (cold, solver.solve(&near, &settings, &context).unwrap())
            })
        };
        let (cold, warm) = run(1);
        assert!(cold.converged && warm.converged);
        assert!(
            warm.rounds * 2 < cold.rounds,
            "{} {}",
            warm.rounds,
            cold.rounds
        );
        let again = run(3);
        assert_eq!(again.0.factors, cold.factors);
        assert_eq!(again.1.factors, warm.factors);
    }

    #[test]
    fn the_low_rank_solver_ends_from_a_start_without_groups() {
        let zero = vec![kmeans_objective(&Array2::zeros((8, 2))); 3];
        let mut solver = LowRank::from_labels(vec![1.0; 3], &[0; 8], 3, 0);
        let solution = solver.solve(&zero, &tight(), &Context::with_seed(0));
        assert!(solution.converged, "{} {}", solution.primal, solution.dual);
        let rows = solution.memberships().sum_axis(Axis(1));
        assert!(rows.iter().all(|r| (r - 1.0).abs() < 1e-4), "{rows}");
        // Two blocks of trace 1 cannot share one row: no step helps, and it ends all the same.
        let few = Settings {
            tolerance: 1e-6,
            max_rounds: 20,
        };
        let mut stuck = LowRank::from_labels(vec![1.0; 2], &[0], 2, 0);
        let solution = stuck.solve(
            &vec![kmeans_objective(&array![[0.0]]); 2],
            &few,
            &Context::with_seed(0),
        );
        assert!(!solution.converged && solution.primal > 0.1);
        assert_eq!(solution.rounds, 20 * LowRank::STEPS);
    }

    #[test]
    fn rounds_run_out_without_harm_and_zero_objectives_are_solved() {
        let context = Context::with_seed(0);
        let (x, _) = three_groups(30, 4);
        let few = Settings {
            tolerance: 1e-9,
            max_rounds: 3,
        };
        let solution = Admm::new(vec![3.0], 30)
            .solve(&[kmeans_objective(&x)], &few, &context)
            .unwrap();
        assert!(!solution.converged && solution.rounds == 3);
        let zero = [kmeans_objective(&Array2::zeros((5, 2)))];
        let solution = Admm::new(vec![2.0], 5)
            .solve(&zero, &tight(), &context)
            .unwrap();
        assert!(solution.converged && solution.objective == 0.0);
        let one = Admm::new(vec![1.0], 1)
            .solve(&[kmeans_objective(&array![[0.0]])], &tight(), &context)
            .unwrap();
        assert!((one.memberships()[[0, 0]] - 1.0).abs() < 1e-6);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn solutions_are_feasible(n in 2usize..=12, blocks in 1usize..=3, seed in 0u64..1000) {
            let blocks = blocks.min(n);
            let objectives: Vec<Objective> = (0..blocks).map(|k| Objective {
                factor: draw(n, 2, seed + k as u64),
                penalty: draw(n, 1, seed + 100 + k as u64).column(0).to_owned(),
            }).collect();
            let settings = Settings { tolerance: 1e-5, max_rounds: 5000 };
            let context = Context::with_seed(seed);
            let solution = Admm::new(vec![1.0; blocks], n).solve(&objectives, &settings, &context).unwrap();
            prop_assert!(solution.converged, "{} {}", solution.primal, solution.dual);
            let z = z(&solution);
            let mut rows = Array1::<f64>::zeros(n);
            for z in &z {
                prop_assert!((z.diag().sum() - 1.0).abs() < 1e-9);
                prop_assert!(z.iter().all(|v| *v > -1e-3));
                rows += &z.sum_axis(Axis(1));
            }
            // A partition is feasible, so that none may be better.
            prop_assert!(rows.iter().all(|r| (r - 1.0).abs() < 1e-3), "{}", rows);
            let mut value = 0.0;
            for (k, c) in objectives.iter().enumerate() {
                let last = k + 1 == blocks;
                let size = if last { n + 1 - blocks } else { 1 };
                let f = Array2::from_shape_fn((n, 1), |(i, _)| {
                    if i == k || (last && i >= k) { 1.0 / (size as f64).sqrt() } else { 0.0 }
                });
                value += c.value(&f);
            }
            prop_assert!(solution.objective > value - 1e-3, "{} {}", solution.objective, value);
        }
    }
}
