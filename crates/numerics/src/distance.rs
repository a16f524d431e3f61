//! Squared Euclidean distances between rows, by matrix products.
//!
//! |x - y|^2 = |x|^2 - 2 x.y + |y|^2 turns all pairs into one matrix product, an order of magnitude
//! faster than differences. The price is **cancellation**: the absolute error is about
//! `EPSILON * (|x|^2 + |y|^2)` whatever the distance, so that two close points far from the origin lose
//! all digits (timestamps near 1.7e9 seconds that differ by 1 would come out as 0 or 1000). What is done
//! about it here:
//! - the mean of the right-hand rows is subtracted from both sides first, which leaves distances
//!   unchanged and makes the norms as small as the spread of the data allows;
//! - a negative result of rounding is set to 0;
//! - where few distances are returned ([`crate::distance::nearest`]), they are recomputed from differences.
//!
//! Close pairs inside widely spread data remain inexact in the full matrices: the error relative to the
//! squared spread, not to the distance, is of the order of `EPSILON`.
//!
//! All functions run on all threads in blocks of fixed size; the bits do not depend on the number of
//! threads.

use faer::traits::pulp::Simd;
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::linalg::{Real, column_means, memory, product_with_transpose, standard, sum_rows};
use crate::simd::vectorised;

/// Entries of one block of products: half a megabyte of doubles stays in the second-level cache.
const BLOCK_ENTRIES: usize = 1 << 16;

/// Columns of one block of products in [`nearest`].
const BLOCK_COLUMNS: usize = 1024;

/// What the rows of a matrix must not be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PointsError {
    /// There are no rows, or no columns.
    #[error("the data has {rows} rows and {columns} columns: at least one of each is needed")]
    Empty {
        /// Number of rows.
        rows: usize,
        /// Number of columns.
        columns: usize,
    },
    /// An entry is NaN or infinite.
    #[error("entry in row {row}, column {column} is {value}, not a finite number")]
    NotFinite {
        /// Row of the entry, from 0.
        row: usize,
        /// Column of the entry, from 0.
        column: usize,
        /// The entry.
        value: f64,
    },
    /// The square of an entry would overflow.
    #[error("entry in row {row}, column {column} is {value}: squared distances would overflow")]
    TooLarge {
        /// Row of the entry, from 0.
        row: usize,
        /// Column of the entry, from 0.
        column: usize,
        /// The entry.
        value: f64,
    },
    /// Two matrices have different numbers of columns.
    #[error("rows have {found} columns where {expected} were expected")]
    WidthMismatch {
        /// Number of columns of the reference.
        expected: usize,
        /// Number of columns found.
        found: usize,
    },
}

/// Checks that a matrix has rows and columns, and only entries whose distances do not overflow.
///
/// # Errors
/// Names the first bad entry in row order.
pub fn check_points<T: Real>(x: ArrayView2<'_, T>) -> Result<(), PointsError> {
    let (rows, columns) = x.dim();
    if rows == 0 || columns == 0 {
        return Err(PointsError::Empty { rows, columns });
    }
    // (2 * limit)^2 * columns, the largest squared distance, is a quarter of the largest number.
    let limit = T::from_f64((T::MAX.to_f64() / (16.0 * columns as f64)).sqrt());
    let x = standard(&x);
    let first_bad = memory(&x)
        .par_chunks(sum_rows(rows) * columns)
        .map(|chunk| {
            if all_within(chunk, limit) {
                None
            } else {
                chunk
                    .iter()
                    .position(|&value| !(value <= limit && value >= -limit))
            }
        })
        .enumerate()
        .find_first(|(_, bad)| bad.is_some());
    let Some((chunk, Some(position))) = first_bad else {
        return Ok(());
    };
    let position = chunk * sum_rows(rows) * columns + position;
    let (row, column) = (position / columns, position % columns);
    let value = x[[row, column]].to_f64();
    Err(if value.is_finite() {
        PointsError::TooLarge { row, column, value }
    } else {
        PointsError::NotFinite { row, column, value }
    })
}

vectorised! {
    /// Whether all values are between -limit and limit; NaN is not.
    fn all_within<'a, T>(simd; values: &'a [T], limit: T) -> bool {
        // Without an early exit inside a part the comparisons run on whole vectors.
        values.chunks(256).all(|part| {
            let mut good = true;
            for &value in part {
                good &= (value <= limit) & (value >= -limit);
            }
            good
        })
    }
}

fn check_pair<T: Real>(x: &ArrayView2<'_, T>, y: &ArrayView2<'_, T>) -> Result<(), PointsError> {
    check_points(x.view())?;
    check_points(y.view())?;
    check_width(y.ncols(), x.ncols())
}

pub(crate) fn check_width(expected: usize, found: usize) -> Result<(), PointsError> {
    if expected == found {
        Ok(())
    } else {
        Err(PointsError::WidthMismatch { expected, found })
    }
}

/// The squared distance of two points from their differences, without cancellation.
///
/// # Panics
/// If the points have different lengths.
pub fn squared_distance<T: Real>(a: &[T], b: &[T]) -> T {
    assert!(a.len() == b.len(), "points of different lengths");
    squared_difference_of(a, b)
}

vectorised! {
    fn squared_difference_of<'a, T>(simd; a: &'a [T], b: &'a [T]) -> T {
        squared_difference(simd, a, b)
    }
}

/// As [`squared_distance`], inside vectorised code; extra entries of the longer point are ignored.
#[inline(always)]
pub(crate) fn squared_difference<S: Simd, T: Real>(simd: S, a: &[T], b: &[T]) -> T {
    let d = a.len().min(b.len());
    let ((a, a_rest), (b, b_rest)) = (T::split(simd, &a[..d]), T::split(simd, &b[..d]));
    // Four sums at once, because an addition takes several cycles to finish.
    let ((a_fours, a), (b_fours, b)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let mut sums = [T::splat(simd, T::ZERO); 4];
    for (a, b) in a_fours.iter().zip(b_fours) {
        for lane in 0..4 {
            let difference = T::minus(simd, a[lane], b[lane]);
            sums[lane] = T::fused(simd, difference, difference, sums[lane]);
        }
    }
    for (sum, (&a, &b)) in sums.iter_mut().zip(a.iter().zip(b)) {
        let difference = T::minus(simd, a, b);
        *sum = T::fused(simd, difference, difference, *sum);
    }
    let [first, second, third, fourth] = sums;
    let mut total = T::plus(
        simd,
        T::plus(simd, first, third),
        T::plus(simd, second, fourth),
    );
    if !a_rest.is_empty() {
        let difference = T::minus(simd, T::partial(simd, a_rest), T::partial(simd, b_rest));
        total = T::fused(simd, difference, difference, total);
    }
    T::total(simd, total)
}

#[inline(always)]
fn squared_norm<S: Simd, T: Real>(simd: S, a: &[T]) -> T {
    let (a, rest) = T::split(simd, a);
    let mut sum = T::splat(simd, T::ZERO);
    for &a in a {
        sum = T::fused(simd, a, a, sum);
    }
    if !rest.is_empty() {
        let rest = T::partial(simd, rest);
        sum = T::fused(simd, rest, rest, sum);
    }
    T::total(simd, sum)
}

/// The right-hand side of many products: rows minus a common shift, and their squared norms.
pub(crate) struct Targets<T> {
    /// The shifted rows, [m, d].
    pub rows: Vec<T>,
    /// Their squared norms, `[m]`.
    pub norms: Vec<T>,
    /// The shift, `[d]`.
    pub shift: Vec<T>,
}

impl<T: Real> Targets<T> {
    /// Rows [m, d] in row-major order, shifted by `shift`, `[d]`.
    pub fn new(rows: &[T], shift: Vec<T>) -> Self {
        let d = shift.len();
        let mut shifted = vec![T::ZERO; rows.len()];
        let mut norms = vec![T::ZERO; rows.len() / d];
        let block = sum_rows(norms.len());
        shifted
            .par_chunks_mut(block * d)
            .zip(norms.par_chunks_mut(block))
            .zip(rows.par_chunks(block * d))
            .for_each(|((shifted, norms), rows)| shift_rows(rows, &shift, shifted, norms));
        Targets {
            rows: shifted,
            norms,
            shift,
        }
    }

    /// Rows shifted by their own mean.
    pub fn centred(y: &ArrayView2<'_, T>) -> Self {
        let shift = column_means(y.view()).into_iter().map(T::from_f64);
        let shift = shift.collect();
        Targets::new(memory(&standard(y)), shift)
    }
}

vectorised! {
    /// `shifted = rows - shift` and the squared norms of the result; shapes [m, d], `[d]`, [m, d], `[m]`.
    pub(crate) fn shift_rows<'a, T>(
        simd; rows: &'a [T], shift: &'a [T], shifted: &'a mut [T], norms: &'a mut [T],
    ) -> () {
        let d = shift.len();
        let rows = rows.chunks_exact(d).zip(shifted.chunks_exact_mut(d));
        for ((row, out), norm) in rows.zip(norms) {
            for ((out, &value), &shift) in out.iter_mut().zip(row).zip(shift) {
                *out = value - shift;
            }
            *norm = squared_norm(simd, out);
        }
    }
}

/// Rows of a block of products that has `columns` columns.
pub(crate) fn block_rows(columns: usize) -> usize {
    (BLOCK_ENTRIES / columns.max(1)).clamp(ROW_GROUP, 256) / ROW_GROUP * ROW_GROUP
}

vectorised! {
    /// Turns `out` = -2 x.y into squared distances in place.
    fn add_norms<'a, T>(simd; out: &'a mut [T], x_norms: &'a [T], y_norms: &'a [T]) -> () {
        for (out, &x_norm) in out.chunks_exact_mut(y_norms.len()).zip(x_norms) {
            for (out, &y_norm) in out.iter_mut().zip(y_norms) {
                let distance = *out + (x_norm + y_norm);
                *out = if distance < T::ZERO {
                    T::ZERO
                } else {
                    distance
                };
            }
        }
    }
}

/// Buffers of one thread that computes blocks of distances.
struct Scratch<T> {
    shifted: Vec<T>,
    norms: Vec<T>,
    out: Vec<T>,
}

impl<T: Real> Scratch<T> {
    fn new(rows: usize, depth: usize, columns: usize) -> Self {
        Scratch {
            shifted: vec![T::ZERO; rows * depth],
            norms: vec![T::ZERO; rows],
            out: vec![T::ZERO; rows * columns],
        }
    }
}

/// All squared distances between rows of x [n, d] and of y [m, d]: [n, m], never negative.
///
/// Time 2 n m d operations, memory n m numbers; see [`map_distance_blocks`] when that is too much.
///
/// # Errors
/// Empty data, entries that are not finite or too large, different widths.
pub fn squared_distances<T: Real>(
    x: ArrayView2<'_, T>,
    y: ArrayView2<'_, T>,
) -> Result<Array2<T>, PointsError> {
    check_pair(&x, &y)?;
    let (m, d) = y.dim();
    let targets = Targets::centred(&y);
    let x = standard(&x);
    let rows = block_rows(m);
    let mut distances = Array2::from_elem((x.nrows(), m), T::ZERO);
    entries(&mut distances)
        .par_chunks_mut(rows * m)
        .zip(memory(&x).par_chunks(rows * d))
        .for_each_init(
            || Scratch::new(rows, d, 0),
            |scratch, (out, x)| {
                let Scratch { shifted, norms, .. } = scratch;
                distance_block(x, &targets, shifted, norms, out);
            },
        );
    Ok(distances)
}

/// One block of distances: x [rows, d] and all targets into `out`, [rows, m].
fn distance_block<T: Real>(
    x: &[T],
    targets: &Targets<T>,
    shifted: &mut [T],
    norms: &mut [T],
    out: &mut [T],
) {
    let (m, d) = (targets.norms.len(), targets.shift.len());
    let rows = x.len() / d;
    let (shifted, norms) = (&mut shifted[..x.len()], &mut norms[..rows]);
    shift_rows(x, &targets.shift, shifted, norms);
    let minus_two = T::from_f64(-2.0);
    product_with_transpose(out, minus_two, shifted, &targets.rows, (rows, m, d));
    add_norms(out, norms, &targets.norms);
}

fn entries<T>(matrix: &mut Array2<T>) -> &mut [T] {
    // A matrix made here is always one slice; the fallback is never taken.
    matrix.as_slice_mut().unwrap_or(&mut [])
}

/// All squared distances between the rows of x [n, d]: [n, n], symmetric to the last bit, diagonal 0.
///
/// Half the products of [`squared_distances`]; memory n^2 numbers.
///
/// # Errors
/// Empty data, entries that are not finite or too large.
pub fn self_squared_distances<T: Real>(x: ArrayView2<'_, T>) -> Result<Array2<T>, PointsError> {
    check_points(x.view())?;
    let (n, d) = x.dim();
    let targets = Targets::centred(&x);
    let rows = block_rows(n);
    let mut distances = Array2::from_elem((n, n), T::ZERO);
    let out = entries(&mut distances);
    out.par_chunks_mut(rows * n).enumerate().for_each_init(
        || vec![T::ZERO; rows * n],
        |block, (index, out)| {
            let start = index * rows;
            let end = start + out.len() / n;
            let block = &mut block[..(end - start) * end];
            product_with_transpose(
                block,
                T::from_f64(-2.0),
                &targets.rows[start * d..end * d],
                &targets.rows[..end * d],
                (end - start, end, d),
            );
            let norms = &targets.norms;
            add_norms(block, &norms[start..end], &norms[..end]);
            for (i, (row, out)) in block.chunks(end).zip(out.chunks_mut(n)).enumerate() {
                out[..start + i].copy_from_slice(&row[..start + i]);
            }
        },
    );
    mirror(out, n);
    Ok(distances)
}

/// Copies the lower triangle of [n, n] to the upper, in tiles so that both sides stay in cache.
fn mirror<T: Real>(matrix: &mut [T], n: usize) {
    const TILE: usize = 64;
    for top in (0..n).step_by(TILE) {
        for left in (0..=top).step_by(TILE) {
            for i in top..n.min(top + TILE) {
                for j in left..i.min(left + TILE) {
                    matrix[j * n + i] = matrix[i * n + j];
                }
            }
        }
    }
}

/// Calls `visit` with blocks of squared distances between rows of x [n, d] and all rows of y [m, d].
///
/// `visit` gets the index of the block's first row of x and the block [rows, m], at most 256 rows. Blocks
/// are visited on all threads, in no order; what `visit` returns comes back in the order of the blocks.
/// Memory: one block for each thread.
///
/// # Errors
/// As [`squared_distances`].
pub fn map_distance_blocks<T: Real, R: Send>(
    x: ArrayView2<'_, T>,
    y: ArrayView2<'_, T>,
    visit: impl Fn(usize, ArrayView2<'_, T>) -> R + Sync,
) -> Result<Vec<R>, PointsError> {
    check_pair(&x, &y)?;
    let (m, d) = y.dim();
    let targets = Targets::centred(&y);
    let x = standard(&x);
    let rows = block_rows(m);
    let results = memory(&x)
        .par_chunks(rows * d)
        .enumerate()
        .map_init(
            || {
                let scratch = Scratch::new(rows, d, 0);
                (scratch, Array2::from_elem((rows, m), T::ZERO))
            },
            |(scratch, block), (index, x)| {
                let mut block = block.slice_mut(ndarray::s![..x.len() / d, ..]);
                if let Some(out) = block.as_slice_mut() {
                    distance_block(x, &targets, &mut scratch.shifted, &mut scratch.norms, out);
                }
                visit(index * rows, block.view())
            },
        )
        .collect();
    Ok(results)
}

/// The nearest of some centres for every row.
#[derive(Clone, Debug, PartialEq)]
pub struct Nearest<T> {
    /// Index of the nearest centre of each row, `[n]`; of equally near ones the lowest.
    pub indices: Vec<u32>,
    /// Squared distance to it, `[n]`, computed from differences.
    pub squared: Vec<T>,
}

/// The nearest row of `centres` [k, d] for every row of x [n, d].
///
/// Two centres whose squared distances differ by less than rounding of the products (see the module)
/// count as equally near or in either order. Time 2 n k d operations, memory proportional to n + k d.
///
/// # Errors
/// Empty data, entries that are not finite or too large, different widths.
pub fn nearest<T: Real>(
    x: ArrayView2<'_, T>,
    centres: ArrayView2<'_, T>,
) -> Result<Nearest<T>, PointsError> {
    check_pair(&x, &centres)?;
    let (k, d) = centres.dim();
    let targets = Targets::centred(&centres);
    let columns = k.min(BLOCK_COLUMNS);
    let rows = block_rows(columns);
    let (x, centres) = (standard(&x), standard(&centres));
    let centres = memory(&centres);
    let mut indices = vec![0_u32; x.nrows()];
    let mut squared = vec![T::ZERO; x.nrows()];
    indices
        .par_chunks_mut(rows)
        .zip(squared.par_chunks_mut(rows))
        .zip(memory(&x).par_chunks(rows * d))
        .for_each_init(
            || (Scratch::new(rows, d, columns), LowestTwo::new(rows)),
            |(scratch, lowest), ((indices, squared), x)| {
                let m = indices.len();
                shift_rows(
                    x,
                    &targets.shift,
                    &mut scratch.shifted[..m * d],
                    &mut scratch.norms[..m],
                );
                squared.fill(T::INFINITY);
                let padded = m.next_multiple_of(ROW_GROUP);
                for start in (0..k).step_by(columns) {
                    let end = k.min(start + columns);
                    let out = &mut scratch.out[..padded * (end - start)];
                    product_with_transpose(
                        out,
                        T::from_f64(-2.0),
                        &targets.rows[start * d..end * d],
                        &scratch.shifted[..padded * d],
                        (end - start, padded, d),
                    );
                    lowest.find(out, padded, &targets.norms[start..end]);
                    let found = lowest.low.iter().zip(&lowest.at);
                    let best = squared.iter_mut().zip(indices.iter_mut());
                    for ((squared, index), (&low, &at)) in best.zip(found) {
                        if low < *squared {
                            *squared = low;
                            *index = (start + at.to_f64() as usize) as u32;
                        }
                    }
                }
                to_chosen(x, centres, d, indices, squared);
            },
        );
    Ok(Nearest { indices, squared })
}

vectorised! {
    /// Squared distances of rows [m, d] to their chosen centres, from differences.
    fn to_chosen<'a, T>(
        simd; x: &'a [T], centres: &'a [T], d: usize, indices: &'a [u32], squared: &'a mut [T],
    ) -> () {
        let rows = x.chunks_exact(d).zip(indices);
        for (squared, (row, &index)) in squared.iter_mut().zip(rows) {
            let centre = &centres[index as usize * d..][..d];
            *squared = squared_difference(simd, row, centre);
        }
    }
}

/// Rows of a block that [`LowestTwo`] searches at once: a multiple of two vectors of any width.
pub(crate) const ROW_GROUP: usize = 32;

/// The nearest and the second nearest centre of each row of a block.
pub(crate) struct LowestTwo<T> {
    /// The smallest value of each row.
    pub low: Vec<T>,
    /// The second smallest (as small as the smallest where two are equal), infinity if there is none.
    pub second: Vec<T>,
    /// The first position of the smallest, a whole number.
    pub at: Vec<T>,
}

impl<T: Real> LowestTwo<T> {
    /// For blocks of up to `rows` rows.
    pub fn new(rows: usize) -> Self {
        let padded = rows.next_multiple_of(ROW_GROUP);
        LowestTwo {
            low: vec![T::ZERO; padded],
            second: vec![T::ZERO; padded],
            at: vec![T::ZERO; padded],
        }
    }

    /// Searches `products[j, i] + norms[j]` over j for every row i; products are [k, rows], and the
    /// number of rows a multiple of [`ROW_GROUP`].
    pub fn find(&mut self, products: &[T], rows: usize, norms: &[T]) {
        let LowestTwo { low, second, at } = self;
        lowest_two(products, rows, norms, low, second, at);
    }
}

vectorised! {
    fn lowest_two<'a, T>(
        simd; products: &'a [T], rows: usize, norms: &'a [T],
        low: &'a mut [T], second: &'a mut [T], at: &'a mut [T],
    ) -> () {
        let (low, _) = T::split_mut(simd, low);
        let (second, _) = T::split_mut(simd, second);
        let (at, _) = T::split_mut(simd, at);
        let width = ROW_GROUP / T::split(simd, &[T::ZERO; ROW_GROUP]).0.len();
        let one = T::splat(simd, T::from_f64(1.0));
        let outputs = low.chunks_exact_mut(2).zip(second.chunks_exact_mut(2));
        let outputs = outputs.zip(at.chunks_exact_mut(2)).take(rows / (2 * width));
        for (group, ((low, second), at)) in outputs.enumerate() {
            let infinite = T::splat(simd, T::INFINITY);
            let mut lows = [infinite; 2];
            let mut seconds = [infinite; 2];
            let mut ats = [T::splat(simd, T::ZERO); 2];
            let mut index = T::splat(simd, T::ZERO);
            for (row, &norm) in products.chunks_exact(rows).zip(norms) {
                let (values, _) = T::split(simd, &row[group * 2 * width..][..2 * width]);
                let norm = T::splat(simd, norm);
                for (lane, &value) in values.iter().enumerate().take(2) {
                    let value = T::plus(simd, value, norm);
                    let rest = T::upper(simd, value, lows[lane]);
                    seconds[lane] = T::lower(simd, rest, seconds[lane]);
                    ats[lane] = T::if_less(simd, value, lows[lane], index, ats[lane]);
                    lows[lane] = T::lower(simd, value, lows[lane]);
                }
                index = T::plus(simd, index, one);
            }
            low.copy_from_slice(&lows);
            second.copy_from_slice(&seconds);
            at.copy_from_slice(&ats);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array1, array, s};
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn random(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_simple_fn((rows, columns), || rng.random_range(-1.0..1.0))
    }

    fn by_differences(x: &Array2<f64>, y: &Array2<f64>) -> Array2<f64> {
        Array2::from_shape_fn((x.nrows(), y.nrows()), |(i, j)| {
            let difference: Array1<f64> = &x.row(i) - &y.row(j);
            difference.dot(&difference)
        })
    }

    #[test]
    fn distances_by_hand() {
        let x = array![[0.0, 0.0], [3.0, 4.0]];
        let y = array![[0.0, 0.0], [6.0, 8.0], [3.0, 0.0]];
        let expected = array![[0.0, 100.0, 9.0], [25.0, 25.0, 16.0]];
        let found: Array2<f64> = squared_distances(x.view(), y.view()).unwrap();
        assert!(
            (&found - &expected).iter().all(|v| v.abs() < 1e-13),
            "{found}"
        );
        let near = nearest(x.view(), y.view()).unwrap();
        assert_eq!(near.indices, vec![0, 2]);
        assert_eq!(near.squared, vec![0.0, 16.0]);
        assert_eq!(squared_distance(&[1.0_f32, 2.0], &[4.0, 6.0]), 25.0);
    }

    #[test]
    fn far_from_the_origin_little_is_lost() {
        let x = array![[1.7e9, 1.0], [1.7e9 + 1.0, 1.0], [1.7e9 + 3.0, 1.0]];
        let found: Array2<f64> = self_squared_distances(x.view()).unwrap();
        let expected = array![[0.0, 1.0, 9.0], [1.0, 0.0, 4.0], [9.0, 4.0, 0.0]];
        assert!(
            (&found - &expected).iter().all(|v| v.abs() < 1e-5),
            "{found}"
        );
        assert_eq!(nearest(x.view(), x.view()).unwrap().indices, vec![0, 1, 2]);
    }

    #[test]
    fn equal_centres_give_the_lower_index() {
        // 40 copies cross every vector width; 1100 cross the block of columns.
        for copies in [2, 7, 8, 9, 40, 1100] {
            let row = random(1, 13, 5);
            let centres = row.broadcast((copies, 13)).unwrap();
            let x = random(300, 13, 6);
            let near = nearest(x.view(), centres).unwrap();
            assert!(near.indices.iter().all(|&j| j == 0), "{copies} copies");
        }
    }

    #[test]
    fn blocks_cover_all_rows_in_order() {
        let (x, y) = (random(700, 5, 7), random(300, 5, 8));
        let whole = squared_distances(x.view(), y.view()).unwrap();
        let blocks =
            map_distance_blocks(x.view(), y.view(), |start, block| (start, block.to_owned()))
                .unwrap();
        let mut next = 0;
        for (start, block) in blocks {
            assert_eq!(start, next);
            assert_eq!(block, whole.slice(s![start..start + block.nrows(), ..]));
            next += block.nrows();
        }
        assert_eq!(next, 700);
    }

    #[test]
    fn bits_do_not_depend_on_threads() {
        let (x, y) = (random(3000, 9, 9), random(70, 9, 10));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.unwrap().install(|| {
                (
                    squared_distances(x.view(), y.view()).unwrap(),
                    nearest(x.view(), y.view()).unwrap(),
                    self_squared_distances(y.view()).unwrap(),
                )
            })
        };
        assert_eq!(run(1), run(3));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn products_agree_with_differences(n in 1usize..60, m in 1usize..60, d in 1usize..40, seed: u64) {
            let (x, y) = (random(n, d, seed), random(m, d, seed ^ 1));
            let expected = by_differences(&x, &y);
            let found = squared_distances(x.view(), y.view()).unwrap();
            prop_assert!((&found - &expected).iter().all(|v| v.abs() < 1e-12));
            let near = nearest(x.view(), y.view()).unwrap();
            for (i, row) in expected.outer_iter().enumerate() {
                let low = row.iter().copied().fold(f64::INFINITY, f64::min);
                prop_assert!((near.squared[i] - low).abs() < 1e-12);
                prop_assert!((row[near.indices[i] as usize] - low).abs() < 1e-12);
            }
            let single = nearest(x.mapv(|v| v as f32).view(), y.mapv(|v| v as f32).view()).unwrap();
            for (i, &value) in single.squared.iter().enumerate() {
                prop_assert!((f64::from(value) - near.squared[i]).abs() < 1e-4);
            }
        }

        #[test]
        fn self_distances_are_symmetric_with_zero_diagonal(n in 1usize..150, d in 1usize..20, seed: u64) {
            let x = random(n, d, seed);
            let found = self_squared_distances(x.view()).unwrap();
            prop_assert_eq!(&found, &found.t());
            prop_assert!(found.diag().iter().all(|&v| v == 0.0));
            prop_assert!((&found - &by_differences(&x, &x)).iter().all(|v| v.abs() < 1e-12));
        }

        #[test]
        fn lowest_two_agree_with_sorting(k in 1usize..40, seed: u64) {
            // Whole numbers, so that ties are common.
            let products = random(k, 64, seed).mapv(|v| (v * 4.0).round());
            let norms: Vec<f64> = (0..k).map(|j| (j % 3) as f64).collect();
            let mut found = LowestTwo::new(64);
            found.find(products.as_slice().unwrap(), 64, &norms);
            for i in 0..64 {
                let sums: Vec<f64> = (0..k).map(|j| products[[j, i]] + norms[j]).collect();
                let mut sorted = sums.clone();
                sorted.sort_by(f64::total_cmp);
                sorted.push(f64::INFINITY);
                let first = sums.iter().position(|&v| v == sorted[0]).unwrap();
                let at = found.at[i] as usize;
                prop_assert_eq!((at, found.low[i], found.second[i]), (first, sorted[0], sorted[1]));
            }
        }
    }

    #[test]
    fn bad_input_is_named() {
        let x = array![[1.0, 2.0], [3.0, f64::NAN], [f64::INFINITY, 0.0]];
        let not_finite = nearest(x.view(), array![[0.0, 0.0]].view()).unwrap_err();
        assert!(matches!(
            not_finite,
            PointsError::NotFinite {
                row: 1,
                column: 1,
                ..
            }
        ));
        let last = check_points(x.slice(s![2.., ..])).unwrap_err();
        assert!(matches!(
            last,
            PointsError::NotFinite {
                row: 0,
                column: 0,
                ..
            }
        ));
        assert!(matches!(
            check_points(array![[0.0_f32, 1e20]].view()).unwrap_err(),
            PointsError::TooLarge {
                row: 0,
                column: 1,
                ..
            }
        ));
        assert_eq!(check_points(array![[1e150, -1e150]].view()), Ok(()));
        let empty = Array2::<f64>::zeros((0, 2));
        assert_eq!(
            squared_distances(x.slice(s![..1, ..]), empty.view()).unwrap_err(),
            PointsError::Empty {
                rows: 0,
                columns: 2
            }
        );
        assert_eq!(
            nearest(x.slice(s![..1, ..]), array![[0.0]].view()).unwrap_err(),
            PointsError::WidthMismatch {
                expected: 1,
                found: 2
            }
        );
        let mut large = Array2::<f64>::zeros((100_000, 3));
        large[[99_999, 1]] = f64::NAN;
        large[[70_001, 2]] = f64::NAN;
        let first = check_points(large.view()).unwrap_err();
        assert!(matches!(
            first,
            PointsError::NotFinite {
                row: 70_001,
                column: 2,
                ..
            }
        ));
    }
}
