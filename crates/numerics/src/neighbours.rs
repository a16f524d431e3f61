//! Exact k nearest neighbours by brute force, in blocks.
//!
//! For each block of queries and each block of points:
//! 1. A matrix product gives approximate squared distances (see [`crate::distance`] for their rounding).
//! 2. A pair whose approximate distance, less the most that rounding can have added, is below the query's
//!    k-th best distance so far is a candidate. Whole vectors of pairs without one are passed over.
//! 3. Candidates' distances are computed from differences; the k best are kept by partial selection.
//!
//! So the neighbours are those of exact distances, not of products: near-duplicates are told apart even far
//! from the origin. For double-precision data the products of step 1 are in single precision, which halves
//! their time and changes nothing in the result, because the allowance of step 2 covers their rounding
//! too. Data whose spread is so uneven that too many pairs become candidates (one point a million
//! times farther out than the rest) costs up to one distance from differences for each pair.

use faer::traits::pulp::Simd;
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::distance::{
    PointsError, Targets, check_points, check_width, shift_rows, squared_difference,
};
use crate::linalg::{Real, memory, product_with_transpose, standard};
use crate::simd::vectorised;
use crate::topk::{keep_first, order};

/// Queries of one block.
const QUERIES: usize = 128;

/// Points of one block: the block of products, in single precision, is 512 KB.
const POINTS: usize = 1024;

/// Pairs that are tested at once: a multiple of every vector width.
const GROUP: usize = 32;

/// What a search cannot work on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NeighbourError {
    /// The rows are unusable.
    #[error(transparent)]
    Points(#[from] PointsError),
    /// No neighbours were asked for.
    #[error("0 neighbours asked for: at least 1 is needed")]
    NoNeighbours,
    /// More neighbours than there are points to choose from.
    #[error(
        "{asked} neighbours asked for, but each query has only {available} points to choose from"
    )]
    TooManyNeighbours {
        /// Number asked for.
        asked: usize,
        /// Number of points (less one where a row is not its own neighbour).
        available: usize,
    },
}

/// The k nearest points of each of n queries.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours<T> {
    /// Indices of the points, [n, k], nearest first; of equally near ones the lower index first.
    pub indices: Array2<u32>,
    /// Squared distances to them, [n, k], computed from differences.
    pub squared: Array2<T>,
}

/// The `k` nearest rows of `points` [m, d] for every row of `queries` [n, d].
///
/// Time 2 n m d operations, memory n k results and a copy of the points.
///
/// # Errors
/// Unusable rows, different widths, no neighbours, more neighbours than points.
pub fn nearest_neighbours<T: Real>(
    queries: ArrayView2<'_, T>,
    points: ArrayView2<'_, T>,
    k: usize,
) -> Result<Neighbours<T>, NeighbourError> {
    check_points(queries.view())?;
    check_points(points.view())?;
    check_width(points.ncols(), queries.ncols())?;
    check_count(k, points.nrows())?;
    Ok(search(queries, points, k, false))
}

/// The `k` nearest other rows for every row of `points` [n, d]: a row is not its own neighbour, but its
/// duplicates are.
///
/// # Errors
/// As [`nearest_neighbours`]; each row has n - 1 others.
pub fn self_neighbours<T: Real>(
    points: ArrayView2<'_, T>,
    k: usize,
) -> Result<Neighbours<T>, NeighbourError> {
    check_points(points.view())?;
    check_count(k, points.nrows() - 1)?;
    Ok(search(points, points, k, true))
}

fn check_count(asked: usize, available: usize) -> Result<(), NeighbourError> {
    match asked {
        0 => Err(NeighbourError::NoNeighbours),
        _ if asked > available => Err(NeighbourError::TooManyNeighbours { asked, available }),
        _ => Ok(()),
    }
}

/// The points in the form that the search needs.
struct Index<'a, T> {
    /// The points as given, [m, d].
    points: &'a [T],
    d: usize,
    k: usize,
    /// The points minus their mean, times `scale`, in single precision, [m rounded up, d]; zeros behind the
    /// last.
    rows: Vec<f32>,
    /// Their squared norms, [m rounded up]; infinite behind the last.
    norms: Vec<f32>,
    shift: Vec<T>,
    /// A power of 2 that brings all points and queries, less the shift, between -2 and 2.
    scale: f64,
    /// For each block of points, the largest norm: it bounds the rounding of the block's products.
    largest: Vec<f32>,
    /// A row is not its own neighbour.
    others: bool,
}

fn search<T: Real>(
    queries: ArrayView2<'_, T>,
    points: ArrayView2<'_, T>,
    k: usize,
    others: bool,
) -> Neighbours<T> {
    let (n, d) = queries.dim();
    let (queries, points) = (standard(&queries), standard(&points));
    let index = Index::new(memory(&points), memory(&queries), d, k, others);
    let mut indices = Array2::zeros((n, k));
    let mut squared = Array2::from_elem((n, k), T::ZERO);
    // Matrices made here are always one slice.
    let indices_out: &mut [u32] = indices.as_slice_mut().unwrap_or(&mut []);
    let squared_out: &mut [T] = squared.as_slice_mut().unwrap_or(&mut []);
    indices_out
        .par_chunks_mut(QUERIES * k)
        .zip(squared_out.par_chunks_mut(QUERIES * k))
        .zip(memory(&queries).par_chunks(QUERIES * d))
        .enumerate()
        .for_each_init(
            || Scratch::new(d, k),
            |scratch, (block, ((indices, squared), queries))| {
                index.search_block(queries, block * QUERIES, scratch);
                let results = indices.chunks_exact_mut(k).zip(squared.chunks_exact_mut(k));
                for (best, (indices, squared)) in scratch.best.iter_mut().zip(results) {
                    best.finish(k);
                    for (slot, &(distance, point)) in best.candidates.iter().enumerate() {
                        indices[slot] = point;
                        squared[slot] = distance;
                    }
                }
            },
        );
    Neighbours { indices, squared }
}

/// The largest magnitude of an entry of rows [m, d] minus the shift.
fn extent<T: Real>(rows: &[T], shift: &[T]) -> f64 {
    let parts = rows.par_chunks(POINTS * shift.len());
    let largest = parts.map(|rows| largest_magnitude(rows, shift).to_f64());
    largest.reduce(|| 0.0, f64::max)
}

vectorised! {
    fn largest_magnitude<'a, T>(simd; rows: &'a [T], shift: &'a [T]) -> T {
        let mut largest = T::ZERO;
        for row in rows.chunks_exact(shift.len()) {
            for (&value, &shift) in row.iter().zip(shift) {
                let value = value - shift;
                let magnitude = if value < T::ZERO { -value } else { value };
                largest = if magnitude > largest { magnitude } else { largest };
            }
        }
        largest
    }
}

/// Buffers of one thread.
struct Scratch<T> {
    shifted: Vec<T>,
    shifted_norms: Vec<T>,
    /// The shifted queries in single precision, [QUERIES, d].
    rows: Vec<f32>,
    products: Vec<f32>,
    best: Vec<Best<T>>,
}

impl<T: Real> Scratch<T> {
    fn new(d: usize, k: usize) -> Self {
        Scratch {
            shifted: vec![T::ZERO; QUERIES * d],
            shifted_norms: vec![T::ZERO; QUERIES],
            rows: vec![0.0; QUERIES * d],
            products: vec![0.0; QUERIES * POINTS],
            best: (0..QUERIES).map(|_| Best::new(k)).collect(),
        }
    }
}

/// The best candidates of one query so far, with exact distances.
struct Best<T> {
    candidates: Vec<(T, u32)>,
    /// The k-th best distance when the candidates were last cut back.
    bar: T,
}

impl<T: Real> Best<T> {
    fn new(k: usize) -> Self {
        Best {
            candidates: Vec::with_capacity(room(k)),
            bar: T::INFINITY,
        }
    }

    fn push(&mut self, distance: T, point: u32, k: usize) {
        // Points come in the order of their indices, so that a later equal one never wins.
        if distance < self.bar {
            self.candidates.push((distance, point));
            if self.candidates.len() == room(k) {
                keep_first(&mut self.candidates, k);
                let worst = self.candidates.iter().max_by(|a, b| order(a, b));
                self.bar = worst.map_or(T::INFINITY, |worst| worst.0);
            }
        }
    }

    fn finish(&mut self, k: usize) {
        keep_first(&mut self.candidates, k);
        self.candidates.sort_unstable_by(order);
    }
}

/// Candidates that are gathered before they are cut back to k.
fn room(k: usize) -> usize {
    k + (k / 2).max(8)
}

/// Relative rounding error of a sum of `d` products in single precision, with room to spare.
fn rounding(d: usize) -> f32 {
    (d + 16) as f32 * f32::EPSILON
}

impl<'a, T: Real> Index<'a, T> {
    fn new(points: &'a [T], queries: &[T], d: usize, k: usize, others: bool) -> Self {
        let m = points.len() / d;
        let centred = match ArrayView2::from_shape((m, d), points) {
            Ok(view) => Targets::centred(&view),
            Err(_) => Targets::new(points, vec![T::ZERO; d]),
        };
        let shift = centred.shift;
        let extent = extent(points, &shift).max(extent(queries, &shift));
        let scale = if extent > 0.0 {
            (-extent.log2().floor()).exp2()
        } else {
            1.0
        };
        let padded = m.next_multiple_of(GROUP);
        let mut rows = vec![0.0; padded * d];
        let mut norms = vec![f32::INFINITY; padded];
        for (row, value) in rows.iter_mut().zip(&centred.rows) {
            *row = (value.to_f64() * scale) as f32;
        }
        for (norm, row) in norms.iter_mut().zip(rows.chunks_exact(d)).take(m) {
            *norm = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() as f32;
        }
        let largest = norms[..m].chunks(POINTS);
        let largest = largest.map(|norms| norms.iter().copied().fold(0.0, f32::max));
        Index {
            points,
            d,
            k,
            largest: largest.collect(),
            rows,
            norms,
            shift,
            scale,
            others,
        }
    }

    /// Searches the neighbours of a block of queries, the first of which has index `start`.
    fn search_block(&self, queries: &[T], start: usize, scratch: &mut Scratch<T>) {
        let d = self.d;
        let count = queries.len() / d;
        shift_rows(
            queries,
            &self.shift,
            &mut scratch.shifted[..count * d],
            &mut scratch.shifted_norms[..count],
        );
        for (row, value) in scratch.rows.iter_mut().zip(&scratch.shifted) {
            *row = (value.to_f64() * self.scale) as f32;
        }
        for best in &mut scratch.best {
            best.candidates.clear();
            best.bar = T::INFINITY;
        }
        let blocks = self.rows.chunks(POINTS * d).zip(self.norms.chunks(POINTS));
        for (block, (rows, norms)) in blocks.enumerate() {
            let columns = norms.len();
            let products = &mut scratch.products[..count * columns];
            let shape = (count, columns, d);
            product_with_transpose(products, -2.0, &scratch.rows[..count * d], rows, shape);
            for (i, products) in products.chunks_exact(columns).enumerate() {
                let query = Query {
                    row: &queries[i * d..][..d],
                    norm: scratch.shifted_norms[i].to_f64() * self.scale * self.scale,
                    own: self.others.then_some((start + i) as u32),
                };
                let best = &mut scratch.best[i];
                let slack = self.slack(query.norm, self.largest[block]);
                scan(self, &query, products, norms, block * POINTS, slack, best);
            }
        }
    }

    /// The most by which rounding can have raised a scaled squared distance above the exact one.
    fn slack(&self, query_norm: f64, largest: f32) -> f64 {
        let scale = 2.0 * (query_norm + f64::from(largest));
        f64::from(rounding(self.d)) * (scale + f64::from(f32::MIN_POSITIVE))
    }
}

/// One query.
struct Query<'a, T> {
    row: &'a [T],
    /// Squared norm of the shifted and scaled row.
    norm: f64,
    /// Its own index among the points, if it is not to be found.
    own: Option<u32>,
}

/// The largest approximate value, products plus the point's norm, that can belong to a candidate.
#[inline(always)]
fn limit<T: Real>(index: &Index<'_, T>, best: &Best<T>, norm: f64, slack: f64) -> f32 {
    // Half a unit of rounding to f32 must not lose a candidate.
    let limit = best.bar.to_f64() * index.scale * index.scale - norm + slack;
    (limit + limit.abs() * f64::from(f32::EPSILON)) as f32
}

vectorised! {
    /// Adds the candidates among the points from `first` on to the best of a query.
    fn scan<'a, T>(
        simd; index: &'a Index<'a, T>, query: &'a Query<'a, T>, products: &'a [f32],
        norms: &'a [f32], first: usize, slack: f64, best: &'a mut Best<T>,
    ) -> () {
        let mut bar = limit(index, best, query.norm, slack);
        let groups = products.chunks_exact(GROUP).zip(norms.chunks_exact(GROUP));
        for (group, (products, norms)) in groups.enumerate() {
            if lowest(simd, products, norms) >= bar {
                continue;
            }
            for (offset, (&product, &norm)) in products.iter().zip(norms).enumerate() {
                if product + norm < bar {
                    let point = first + group * GROUP + offset;
                    if query.own == Some(point as u32) {
                        continue;
                    }
                    let row = &index.points[point * index.d..][..index.d];
                    best.push(squared_difference(simd, query.row, row), point as u32, index.k);
                    bar = limit(index, best, query.norm, slack);
                }
            }
        }
    }
}

/// The smallest of `products[j] + norms[j]` over a group.
#[inline(always)]
fn lowest<S: Simd>(simd: S, products: &[f32], norms: &[f32]) -> f32 {
    let (products, norms) = (S::as_simd_f32s(products).0, S::as_simd_f32s(norms).0);
    let mut low = simd.splat_f32s(f32::INFINITY);
    for (&product, &norm) in products.iter().zip(norms) {
        low = simd.min_f32s(low, simd.add_f32s(product, norm));
    }
    simd.reduce_min_f32s(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Axis, array, concatenate, s};
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn random(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_simple_fn((rows, columns), || rng.random_range(-1.0..1.0))
    }

    fn by_sorting(
        queries: &Array2<f64>,
        points: &Array2<f64>,
        k: usize,
        others: bool,
    ) -> Vec<Vec<u32>> {
        let row = |i: usize| {
            let squared = |j: u32| {
                crate::distance::squared_distance(
                    queries.row(i).as_slice().unwrap(),
                    points.row(j as usize).as_slice().unwrap(),
                )
            };
            let mut order: Vec<u32> = (0..points.nrows() as u32)
                .filter(|&j| !others || j as usize != i)
                .collect();
            order.sort_by(|&a, &b| squared(a).total_cmp(&squared(b)));
            order.truncate(k);
            order
        };
        (0..queries.nrows()).map(row).collect()
    }

    fn rows(found: &Neighbours<f64>) -> Vec<Vec<u32>> {
        found.indices.outer_iter().map(|row| row.to_vec()).collect()
    }

    #[test]
    fn by_hand() {
        let points = array![[0.0, 0.0], [3.0, 4.0], [1.0, 0.0], [0.0, 1.0]];
        let found = nearest_neighbours(array![[0.0, 0.0]].view(), points.view(), 3).unwrap();
        assert_eq!(found.indices, array![[0, 2, 3]]);
        assert_eq!(found.squared, array![[0.0, 1.0, 1.0]]);
        let found = self_neighbours(points.view(), 1).unwrap();
        assert_eq!(found.indices, array![[2], [3], [0], [0]]);
        assert_eq!(found.squared, array![[1.0], [18.0], [1.0], [1.0]]);
    }

    #[test]
    fn duplicates_come_in_the_order_of_their_indices() {
        let points = Array2::from_elem((3000, 3), 0.7);
        let found = self_neighbours(points.view(), 4).unwrap();
        assert_eq!(found.indices.row(0), array![1, 2, 3, 4]);
        assert_eq!(found.indices.row(2), array![0, 1, 3, 4]);
        assert_eq!(found.indices.row(2999), array![0, 1, 2, 3]);
        assert!(found.squared.iter().all(|&v| v == 0.0));
    }

    #[test]
    fn close_pairs_are_told_apart_in_wide_data() {
        // Pairs 1e-9 apart in data of spread 1, which single-precision products cannot see.
        let x = random(1500, 6, 1);
        let points = concatenate![Axis(0), x, &x + 1e-9];
        let found = self_neighbours(points.view(), 2).unwrap();
        for i in 0..1500 {
            assert_eq!(found.indices[[i, 0]] as usize, i + 1500);
            assert_eq!(found.indices[[i + 1500, 0]] as usize, i);
        }
        let far = &points + 1e3;
        assert_eq!(
            self_neighbours(far.view(), 1).unwrap().indices,
            found.indices.slice(s![.., ..1])
        );
    }

    #[test]
    fn an_outlier_changes_nothing_for_the_others() {
        let mut points = random(1200, 4, 2);
        let before = self_neighbours(points.slice(s![..1199, ..]), 3).unwrap();
        points.row_mut(1199).fill(1e12);
        let after = self_neighbours(points.view(), 3).unwrap();
        assert_eq!(after.indices.slice(s![..1199, ..]), before.indices);
    }

    #[test]
    fn huge_and_tiny_values_do_not_break_single_precision() {
        for scale in [1e-140, 1e-30, 1e30, 1e140] {
            let points = random(300, 3, 3) * scale;
            let found = self_neighbours(points.view(), 2).unwrap();
            assert_eq!(
                rows(&found),
                by_sorting(&points, &points, 2, true),
                "{scale}"
            );
        }
    }

    #[test]
    fn bits_do_not_depend_on_threads() {
        let points = random(1000, 8, 4);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.unwrap()
                .install(|| self_neighbours(points.view(), 5).unwrap())
        };
        assert_eq!(run(1), run(3));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn agrees_with_sorting(
            n in 1usize..150, m in 2usize..1300, d in 1usize..9, k in 1usize..20, seed: u64, lattice: bool,
        ) {
            let (mut queries, mut points) = (random(n, d, seed), random(m, d, seed ^ 1));
            if lattice {
                queries.mapv_inplace(|v| (v * 2.0).round());
                points.mapv_inplace(|v| (v * 2.0).round());
            }
            let k = k.min(m);
            let found = nearest_neighbours(queries.view(), points.view(), k).unwrap();
            prop_assert_eq!(rows(&found), by_sorting(&queries, &points, k, false));
            let k = k.min(m - 1);
            let own = points.slice(s![..m.min(200), ..]).to_owned();
            let k = k.min(own.nrows() - 1);
            let found = self_neighbours(own.view(), k).unwrap();
            prop_assert_eq!(rows(&found), by_sorting(&own, &own, k, true));
            for (index, &squared) in found.squared.indexed_iter() {
                let other = own.row(found.indices[index] as usize);
                prop_assert!(((&own.row(index.0) - &other).mapv(|v| v * v).sum() - squared).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn single_precision_data() {
        let points = random(400, 5, 5).mapv(|v| v as f32);
        let found = self_neighbours(points.view(), 3).unwrap();
        let double = self_neighbours(points.mapv(f64::from).view(), 3).unwrap();
        assert_eq!(found.indices, double.indices);
    }

    #[test]
    fn bad_input_is_named() {
        let points = random(4, 2, 6);
        assert_eq!(
            self_neighbours(points.view(), 0).unwrap_err(),
            NeighbourError::NoNeighbours
        );
        assert_eq!(
            self_neighbours(points.view(), 4).unwrap_err(),
            NeighbourError::TooManyNeighbours {
                asked: 4,
                available: 3
            }
        );
        assert_eq!(
            nearest_neighbours(points.view(), points.view(), 5).unwrap_err(),
            NeighbourError::TooManyNeighbours {
                asked: 5,
                available: 4
            }
        );
        assert!(nearest_neighbours(array![[0.0]].view(), points.view(), 1).is_err());
        assert!(matches!(
            nearest_neighbours(array![[0.0, f64::NAN]].view(), points.view(), 1).unwrap_err(),
            NeighbourError::Points(PointsError::NotFinite {
                row: 0,
                column: 1,
                ..
            })
        ));
    }
}
