//! Lloyd's algorithm from given centres: rounds, bounds that spare work, and empty clusters.

use faer::traits::pulp::Simd;
use ndarray::Array2;
use rayon::prelude::*;

use super::KMeans;
use super::problem::{Problem, shifted_difference};
use super::sums::{Sums, sum_all, sum_chunk};
use crate::distance::{LowestTwo, ROW_GROUP, block_rows, shift_rows};
use crate::linalg::{Real, product_with_transpose};
use crate::simd::vectorised;

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
pub(super) struct Run<T> {
    centres: Vec<T>,
    labels: Vec<u32>,
    pub(super) inertia: f64,
    rounds: usize,
    curve: Vec<f64>,
}

impl<T: Real> Run<T> {
    /// Undoes the shift and the scaling of the weights.
    pub(super) fn finish(self, problem: &Problem<'_, T>) -> KMeans<T> {
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
pub(super) fn lloyd<T: Real>(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distance::Targets;
    use crate::kmeans::kmeans_from;
    use crate::kmeans::tests::{groups, random};
    use ndarray::{Axis, array, s};
    use proptest::prelude::*;

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
    fn an_empty_cluster_takes_the_farthest_row() {
        let x = array![[0.0], [1.0], [2.0], [9.0]];
        // The second centre gets no row; 9 is farthest from its centre 1.
        let start = array![[1.0], [100.0]];
        let fit = kmeans_from(x.view(), None, start.view(), 10, 0.0).unwrap();
        assert_eq!(fit.labels, vec![0, 0, 0, 1]);
        assert_eq!(fit.centres, array![[1.0], [9.0]]);
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
    }
}
