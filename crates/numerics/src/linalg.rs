//! Dense linear algebra on `ndarray` matrices, computed by faer.
//!
//! A thin bridge: it views `ndarray` memory as faer matrices without copying, and fixes what a method
//! must not have to think about.
//! - **Threads.** faer's own parallel forms split work by the number of threads, which changes the
//!   order of additions. Here work is cut into blocks whose sizes depend on the shapes only, each block
//!   runs on one thread, and partial sums are added in block order: the same input gives the same bits
//!   on one thread and on sixty-four.
//! - **Signs.** Eigenvectors and principal axes are fixed up to sign by mathematics; here the entry of
//!   largest magnitude (the first of equals) is positive.
//! - **Non-finite input** is an error with its row and column where an iteration would otherwise never
//!   end (eigenvalues, singular values, Cholesky).
//!
//! Matrices are row-major; a transposed view (`a.t()`) is used in place, any other layout is copied once.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::triangular::{BlockStructure, matmul as matmul_triangular};
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::linalg::triangular_solve::{
    solve_lower_triangular_in_place, solve_upper_triangular_in_place,
};
use faer::traits::RealField;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis, CowArray, Ix2};
use rayon::prelude::*;

use crate::simd::{Lanes, vectorised};

/// Rows of one block of a parallel product: large enough that packing the right operand is cheap,
/// small enough that two threads share a matrix of a thousand rows evenly.
const PRODUCT_ROWS: usize = 256;

/// Least number of rows in one partial sum of [`gram`] and [`column_means`].
const SUM_ROWS: usize = 2048;

/// Largest number of partial sums of [`gram`] and [`column_means`], which bounds their memory.
const SUM_PARTS: usize = 32;

/// A floating-point type that the kernels work on: `f32` or `f64`.
pub trait Real: sealed::Sealed + RealField + Lanes + Send + Sync + Default + 'static {
    /// Zero.
    const ZERO: Self;
    /// Positive infinity.
    const INFINITY: Self;
    /// The distance from 1 to the next larger number.
    const EPSILON: Self;
    /// Largest finite number.
    const MAX: Self;
    /// The nearest number of this type.
    fn from_f64(value: f64) -> Self;
    /// The same number in double precision.
    fn to_f64(self) -> f64;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const INFINITY: f32 = f32::INFINITY;
    const EPSILON: f32 = f32::EPSILON;
    const MAX: f32 = f32::MAX;
    #[inline(always)]
    fn from_f64(value: f64) -> f32 {
        value as f32
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const INFINITY: f64 = f64::INFINITY;
    const EPSILON: f64 = f64::EPSILON;
    const MAX: f64 = f64::MAX;
    #[inline(always)]
    fn from_f64(value: f64) -> f64 {
        value
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
}

/// What a decomposition cannot work on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LinalgError {
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
    /// The matrix must be square.
    #[error("the matrix is {rows} x {columns}, but must be square")]
    NotSquare {
        /// Number of rows.
        rows: usize,
        /// Number of columns.
        columns: usize,
    },
    /// A Cholesky factor does not exist.
    #[error("the matrix is not positive definite: pivot {pivot} is not positive")]
    NotPositiveDefinite {
        /// Index of the first pivot that is not positive.
        pivot: usize,
    },
    /// More components were asked for than exist.
    #[error("{asked} components asked for, but the matrix has only {available}")]
    TooManyComponents {
        /// Number asked for.
        asked: usize,
        /// Largest number possible.
        available: usize,
    },
    /// The matrix has no rows.
    #[error("the matrix has no rows")]
    Empty,
    /// The iteration did not converge.
    #[error("the eigenvalue iteration did not converge")]
    NoConvergence,
}

/// The matrix in row-major order with no gaps: borrowed when it is so already, else copied.
pub(crate) fn standard<'a, T: Real>(x: &'a ArrayView2<'_, T>) -> CowArray<'a, T, Ix2> {
    x.as_standard_layout()
}

/// The memory of a matrix that [`standard`] returned.
pub(crate) fn memory<'a, T: Real>(x: &'a CowArray<'_, T, Ix2>) -> &'a [T] {
    // A standard-layout array is always one slice; the fallback is never taken.
    x.as_slice().unwrap_or(&[])
}

/// A matrix that faer can read: the caller's memory when its rows or its columns are contiguous.
struct Readable<'a, T> {
    data: CowArray<'a, T, Ix2>,
    transposed: bool,
}

impl<'a, T: Real> Readable<'a, T> {
    fn new(a: &'a ArrayView2<'_, T>) -> Self {
        let transposed = !a.is_standard_layout() && a.t().is_standard_layout();
        let data = if transposed {
            CowArray::from((*a).reversed_axes())
        } else {
            a.as_standard_layout()
        };
        Readable { data, transposed }
    }

    fn view(&self) -> MatRef<'_, T> {
        let (rows, columns) = self.data.dim();
        let whole = MatRef::from_row_major_slice(memory(&self.data), rows, columns);
        if self.transposed {
            whole.transpose()
        } else {
            whole
        }
    }
}

/// `out = alpha * a * b`, or `out += alpha * a * b`, on slices in row-major order, on one thread.
///
/// `a` is [rows, depth] and `b` is [columns, depth]: the product is with `b` transposed, the form that
/// distances need.
pub(crate) fn product_with_transpose<T: Real>(
    out: &mut [T],
    alpha: T,
    a: &[T],
    b: &[T],
    (rows, columns, depth): (usize, usize, usize),
) {
    faer::linalg::matmul::matmul(
        MatMut::from_row_major_slice_mut(out, rows, columns),
        Accum::Replace,
        MatRef::from_row_major_slice(a, rows, depth),
        MatRef::from_row_major_slice(b, columns, depth).transpose(),
        alpha,
        Par::Seq,
    );
}

fn multiply<T: Real>(c: MatMut<'_, T>, alpha: T, a: MatRef<'_, T>, b: MatRef<'_, T>, beta: T) {
    let mut c = c;
    let accumulate = if beta == T::ZERO {
        Accum::Replace
    } else {
        if beta != T::from_f64(1.0) {
            faer::zip!(c.as_mut()).for_each(|faer::unzip!(entry)| *entry *= beta);
        }
        Accum::Add
    };
    faer::linalg::matmul::matmul(c, accumulate, a, b, alpha, Par::Seq);
}

fn check_product<T>(c: &ArrayViewMut2<'_, T>, a: &ArrayView2<'_, T>, b: &ArrayView2<'_, T>) {
    assert!(
        a.ncols() == b.nrows() && c.nrows() == a.nrows() && c.ncols() == b.ncols(),
        "shapes do not fit: {:?} x {:?} into {:?}",
        a.dim(),
        b.dim(),
        c.dim()
    );
}

/// `c = alpha * a * b + beta * c` on the calling thread: a is [m, p], b is [p, n], c is [m, n].
///
/// With `beta` 0 the old values of `c` are not read. For a product with a transposed matrix pass
/// `b.t()`; nothing is copied. Use this form inside a loop that is itself parallel.
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul_into_single<T: Real>(
    mut c: ArrayViewMut2<'_, T>,
    alpha: T,
    a: ArrayView2<'_, T>,
    b: ArrayView2<'_, T>,
    beta: T,
) {
    check_product(&c, &a, &b);
    let (left, right) = (Readable::new(&a), Readable::new(&b));
    let (rows, columns) = c.dim();
    if let Some(out) = c.as_slice_mut() {
        let out = MatMut::from_row_major_slice_mut(out, rows, columns);
        multiply(out, alpha, left.view(), right.view(), beta);
    } else {
        let mut copy = c.to_owned();
        matmul_into_single(copy.view_mut(), alpha, a, b, beta);
        c.assign(&copy);
    }
}

/// `c = alpha * a * b + beta * c` on all threads: a is [m, p], b is [p, n], c is [m, n].
///
/// As [`matmul_into_single`], over blocks of 256 rows of `a` and `c`; the bits do not depend on the
/// number of threads.
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul_into<T: Real>(
    mut c: ArrayViewMut2<'_, T>,
    alpha: T,
    a: ArrayView2<'_, T>,
    b: ArrayView2<'_, T>,
    beta: T,
) {
    check_product(&c, &a, &b);
    let (left, right) = (Readable::new(&a), Readable::new(&b));
    let (left, right) = (left.view(), right.view());
    let columns = b.ncols();
    if columns == 0 {
        return;
    }
    if let Some(out) = c.as_slice_mut() {
        out.par_chunks_mut(PRODUCT_ROWS * columns)
            .enumerate()
            .for_each(|(block, out)| {
                let rows = out.len() / columns;
                let out = MatMut::from_row_major_slice_mut(out, rows, columns);
                let left = left.subrows(block * PRODUCT_ROWS, rows);
                multiply(out, alpha, left, right, beta);
            });
    } else {
        let mut copy = c.to_owned();
        matmul_into(copy.view_mut(), alpha, a, b, beta);
        c.assign(&copy);
    }
}

/// The product a * b on all threads: a is [m, p], b is [p, n], the result [m, n].
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul<T: Real>(a: ArrayView2<'_, T>, b: ArrayView2<'_, T>) -> Array2<T> {
    let mut c = Array2::from_elem((a.nrows(), b.ncols()), T::ZERO);
    matmul_into(c.view_mut(), T::from_f64(1.0), a, b, T::ZERO);
    c
}

/// Rows of each partial sum over `n` rows: a function of `n` alone, so that sums have fixed bits.
pub(crate) fn sum_rows(n: usize) -> usize {
    n.div_ceil(SUM_PARTS).max(SUM_ROWS)
}

/// The Gram matrix x' x of the columns, [d, d], symmetric to the last bit, on all threads.
///
/// Computes one triangle of each of at most 32 partial sums over rows, added in order: time n d^2 / 2
/// multiplications, memory 32 d^2 numbers.
pub fn gram<T: Real>(x: ArrayView2<'_, T>) -> Array2<T> {
    let d = x.ncols();
    let x = standard(&x);
    let parts: Vec<Array2<T>> = memory(&x)
        .par_chunks((sum_rows(x.nrows()) * d).max(1))
        .map(|chunk| {
            let mut part = Array2::from_elem((d, d), T::ZERO);
            let rows = MatRef::from_row_major_slice(chunk, chunk.len() / d, d);
            if let Some(out) = part.as_slice_mut() {
                matmul_triangular(
                    MatMut::from_row_major_slice_mut(out, d, d),
                    BlockStructure::TriangularLower,
                    Accum::Replace,
                    rows.transpose(),
                    BlockStructure::Rectangular,
                    rows,
                    BlockStructure::Rectangular,
                    T::from_f64(1.0),
                    Par::Seq,
                );
            }
            part
        })
        .collect();
    let mut total = Array2::from_elem((d, d), T::ZERO);
    for part in parts {
        total.zip_mut_with(&part, |sum, value| *sum += *value);
    }
    for i in 0..d {
        for j in 0..i {
            total[[j, i]] = total[[i, j]];
        }
    }
    total
}

/// The mean of every column, `[d]`, summed in double precision; zeros if there are no rows.
pub fn column_means<T: Real>(x: ArrayView2<'_, T>) -> Vec<f64> {
    let (n, d) = x.dim();
    let mut total = vec![0.0; d];
    if n == 0 || d == 0 {
        return total;
    }
    let x = standard(&x);
    let parts: Vec<Vec<f64>> = memory(&x)
        .par_chunks(sum_rows(n) * d)
        .map(|chunk| {
            let mut sums = vec![0.0; d];
            sum_rows_into(&mut sums, chunk);
            sums
        })
        .collect();
    for part in parts {
        for (sum, value) in total.iter_mut().zip(part) {
            *sum += value;
        }
    }
    for sum in &mut total {
        *sum /= n as f64;
    }
    total
}

vectorised! {
    /// Adds rows [m, d] to `sums`, `[d]`.
    fn sum_rows_into<'a, T>(simd; sums: &'a mut [f64], rows: &'a [T]) -> () {
        for row in rows.chunks_exact(sums.len()) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value.to_f64();
            }
        }
    }
}

fn check_finite(a: &ArrayView2<'_, f64>) -> Result<(), LinalgError> {
    match a.indexed_iter().find(|(_, value)| !value.is_finite()) {
        Some(((row, column), &value)) => Err(LinalgError::NotFinite { row, column, value }),
        None => Ok(()),
    }
}

fn check_square(a: &ArrayView2<'_, f64>) -> Result<usize, LinalgError> {
    let (rows, columns) = a.dim();
    if rows == columns {
        Ok(rows)
    } else {
        Err(LinalgError::NotSquare { rows, columns })
    }
}

/// Makes the entry of largest magnitude of every column positive (the first of equals).
fn fix_signs(vectors: &mut Array2<f64>) {
    for mut column in vectors.axis_iter_mut(Axis(1)) {
        let mut largest = 0.0_f64;
        for &value in column.iter() {
            if value.abs() > largest.abs() {
                largest = value;
            }
        }
        if largest < 0.0 {
            column.mapv_inplace(|value| -value);
        }
    }
}

/// Eigenvalues and eigenvectors of a symmetric matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Eigen {
    /// The eigenvalues, `[q]`.
    pub values: Array1<f64>,
    /// The eigenvectors as columns, [n, q], orthonormal, signs fixed.
    pub vectors: Array2<f64>,
}

/// All eigenvalues of a symmetric matrix [n, n], ascending, and their vectors as columns.
///
/// Reads the lower triangle only. Time about 9 n^3 operations, on one thread.
///
/// # Errors
/// A matrix that is not square or not finite, or no convergence.
pub fn eigh(a: ArrayView2<'_, f64>) -> Result<Eigen, LinalgError> {
    let n = check_square(&a)?;
    check_finite(&a)?;
    let source = Readable::new(&a);
    let mut values = faer::Col::<f64>::zeros(n);
    let mut vectors = Mat::<f64>::zeros(n, n);
    let scratch =
        self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, Par::Seq, Default::default());
    self_adjoint_evd(
        source.view(),
        values.as_mut().as_diagonal_mut(),
        Some(vectors.as_mut()),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        Default::default(),
    )
    .map_err(|_| LinalgError::NoConvergence)?;
    let mut vectors = Array2::from_shape_fn((n, n), |(i, j)| vectors[(i, j)]);
    fix_signs(&mut vectors);
    Ok(Eigen {
        values: Array1::from_shape_fn(n, |i| values[i]),
        vectors,
    })
}

/// The `q` largest eigenvalues of a symmetric matrix [n, n], descending, and their vectors.
///
/// Computes all of them and drops the rest, so it costs what [`eigh`] costs.
///
/// # Errors
/// As [`eigh`], and `q` larger than n.
pub fn eigh_top(a: ArrayView2<'_, f64>, q: usize) -> Result<Eigen, LinalgError> {
    let n = check_square(&a)?;
    if q > n {
        return Err(LinalgError::TooManyComponents {
            asked: q,
            available: n,
        });
    }
    let all = eigh(a)?;
    Ok(Eigen {
        values: Array1::from_shape_fn(q, |j| all.values[n - 1 - j]),
        vectors: Array2::from_shape_fn((n, q), |(i, j)| all.vectors[[i, n - 1 - j]]),
    })
}

/// The Cholesky factor L of a positive definite matrix A = L L'.
#[derive(Clone, Debug)]
pub struct Cholesky {
    factor: Mat<f64>,
}

/// The Cholesky factorisation of a symmetric positive definite matrix [n, n].
///
/// Reads the lower triangle only. Time n^3 / 3 operations, on one thread.
///
/// # Errors
/// A matrix that is not square, not finite, or not positive definite.
pub fn cholesky(a: ArrayView2<'_, f64>) -> Result<Cholesky, LinalgError> {
    let n = check_square(&a)?;
    check_finite(&a)?;
    let mut factor = Mat::from_fn(n, n, |i, j| if i >= j { a[[i, j]] } else { 0.0 });
    let scratch = llt::factor::cholesky_in_place_scratch::<f64>(n, Par::Seq, Default::default());
    llt::factor::cholesky_in_place(
        factor.as_mut(),
        Default::default(),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        Default::default(),
    )
    .map_err(|error| {
        let llt::factor::LltError::NonPositivePivot { index } = error;
        LinalgError::NotPositiveDefinite { pivot: index }
    })?;
    Ok(Cholesky { factor })
}

impl Cholesky {
    /// The factor L, [n, n], zero above the diagonal.
    pub fn lower(&self) -> Array2<f64> {
        let n = self.factor.nrows();
        Array2::from_shape_fn(
            (n, n),
            |(i, j)| {
                if i >= j { self.factor[(i, j)] } else { 0.0 }
            },
        )
    }

    /// The logarithm of the determinant of A.
    pub fn log_det(&self) -> f64 {
        let n = self.factor.nrows();
        (0..n).map(|i| 2.0 * self.factor[(i, i)].ln()).sum()
    }

    /// The solution X of A X = B, [n, m], for a right side [n, m].
    ///
    /// # Panics
    /// If `b` does not have n rows.
    pub fn solve(&self, b: ArrayView2<'_, f64>) -> Array2<f64> {
        self.solved(b, |factor, mut out| {
            solve_lower_triangular_in_place(factor, out.as_mut(), Par::Seq);
            solve_upper_triangular_in_place(factor.transpose(), out, Par::Seq);
        })
    }

    /// The solution Y of L Y = B, [n, m]: the squared norm of a column of Y is b' inv(A) b.
    ///
    /// # Panics
    /// If `b` does not have n rows.
    pub fn solve_lower(&self, b: ArrayView2<'_, f64>) -> Array2<f64> {
        self.solved(b, |factor, out| {
            solve_lower_triangular_in_place(factor, out, Par::Seq);
        })
    }

    /// The solution x of A x = b, `[n]`.
    ///
    /// # Panics
    /// If `b` does not have n entries.
    pub fn solve_vector(&self, b: ArrayView1<'_, f64>) -> Array1<f64> {
        let solution = self.solve(b.insert_axis(Axis(1)));
        solution.index_axis_move(Axis(1), 0)
    }

    fn solved(
        &self,
        b: ArrayView2<'_, f64>,
        solve: impl FnOnce(MatRef<'_, f64>, MatMut<'_, f64>),
    ) -> Array2<f64> {
        let (rows, columns) = b.dim();
        assert!(
            rows == self.factor.nrows(),
            "the right side has {rows} rows, the matrix {}",
            self.factor.nrows()
        );
        let mut out = Mat::from_fn(rows, columns, |i, j| b[[i, j]]);
        solve(self.factor.as_ref(), out.as_mut());
        Array2::from_shape_fn((rows, columns), |(i, j)| out[(i, j)])
    }
}

/// Principal axes of a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Pca {
    /// The mean of the rows, `[d]`.
    pub mean: Array1<f64>,
    /// The principal axes as rows, [q, d], orthonormal, by falling variance, signs fixed.
    pub axes: Array2<f64>,
    /// The variance along each axis, `[q]`, with divisor n - 1 (0 if n = 1).
    pub variances: Array1<f64>,
}

impl Pca {
    /// The coordinates of rows [m, d] along the axes, [m, q].
    ///
    /// # Panics
    /// If `x` does not have d columns.
    pub fn transform(&self, x: ArrayView2<'_, f64>) -> Array2<f64> {
        matmul((&x - &self.mean).view(), self.axes.t())
    }
}

/// Principal component analysis of rows [n, d] with `q` axes.
///
/// With at least as many rows as columns: eigenvectors of the covariance matrix, time n d^2 / 2 + 9 d^3,
/// and variances below about 1e-16 of the largest are rounding noise, set to 0 when negative. With fewer
/// rows than columns: singular vectors of the centred data, time about 6 n^2 d, on one thread.
///
/// # Errors
/// No rows, `q` larger than min(n, d), an entry that is not finite, or no convergence.
pub fn pca(x: ArrayView2<'_, f64>, q: usize) -> Result<Pca, LinalgError> {
    let (n, d) = x.dim();
    if n == 0 {
        return Err(LinalgError::Empty);
    }
    if q > n.min(d) {
        return Err(LinalgError::TooManyComponents {
            asked: q,
            available: n.min(d),
        });
    }
    check_finite(&x)?;
    let mean = Array1::from(column_means(x));
    let centred = &x - &mean;
    let divisor = (n.max(2) - 1) as f64;
    let (vectors, variances) = if n >= d {
        let top = eigh_top((gram(centred.view()) / divisor).view(), q)?;
        (top.vectors, top.values.mapv(|value| value.max(0.0)))
    } else {
        right_singular(centred.view(), q, divisor)?
    };
    Ok(Pca {
        mean,
        axes: vectors.reversed_axes().as_standard_layout().to_owned(),
        variances,
    })
}

/// The first `q` right singular vectors [d, q] of a wide matrix, and squared singular values / divisor.
fn right_singular(
    a: ArrayView2<'_, f64>,
    q: usize,
    divisor: f64,
) -> Result<(Array2<f64>, Array1<f64>), LinalgError> {
    let (n, d) = a.dim();
    let size = n.min(d);
    let source = Readable::new(&a);
    let mut values = faer::Col::<f64>::zeros(size);
    let mut right = Mat::<f64>::zeros(d, size);
    let scratch = svd_scratch::<f64>(
        n,
        d,
        ComputeSvdVectors::No,
        ComputeSvdVectors::Thin,
        Par::Seq,
        Default::default(),
    );
    svd(
        source.view(),
        values.as_mut().as_diagonal_mut(),
        None,
        Some(right.as_mut()),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        Default::default(),
    )
    .map_err(|_| LinalgError::NoConvergence)?;
    let mut vectors = Array2::from_shape_fn((d, q), |(i, j)| right[(i, j)]);
    fix_signs(&mut vectors);
    let variances = Array1::from_shape_fn(q, |j| values[j] * values[j] / divisor);
    Ok((vectors, variances))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{array, s};
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn random(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_simple_fn((rows, columns), || rng.random_range(-1.0..1.0))
    }

    fn close(a: &Array2<f64>, b: &Array2<f64>, tolerance: f64) -> bool {
        a.dim() == b.dim() && a.iter().zip(b).all(|(x, y)| (x - y).abs() <= tolerance)
    }

    fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(work)
    }

    #[test]
    fn product_by_hand_with_alpha_and_beta() {
        let a = array![[1.0, 2.0], [3.0, 4.0]];
        let b = array![[5.0, 6.0], [7.0, 8.0]];
        assert_eq!(
            matmul(a.view(), b.view()),
            array![[19.0, 22.0], [43.0, 50.0]]
        );
        assert_eq!(matmul(a.view(), b.t()), array![[17.0, 23.0], [39.0, 53.0]]);
        let mut c = array![[1.0, 0.0], [0.0, 1.0]];
        matmul_into(c.view_mut(), 2.0, a.view(), b.view(), 10.0);
        assert_eq!(c, array![[48.0, 44.0], [86.0, 110.0]]);
        matmul_into_single(c.view_mut(), 1.0, a.view(), b.view(), -1.0);
        assert_eq!(c, array![[-29.0, -22.0], [-43.0, -60.0]]);
    }

    #[test]
    fn product_ignores_old_values_when_beta_is_zero() {
        let a = array![[2.0]];
        let mut c = array![[f64::NAN]];
        matmul_into_single(c.view_mut(), 1.0, a.view(), a.view(), 0.0);
        assert_eq!(c, array![[4.0]]);
    }

    #[test]
    fn product_of_views_with_gaps_agrees_with_copies() {
        let x = random(40, 30, 1);
        let (a, b) = (x.slice(s![..;2, 1..21]), x.slice(s![..20, ..;3]));
        let expected = a.to_owned().dot(&b.to_owned());
        assert!(close(&matmul(a, b), &expected, 1e-12));
        let mut wide = Array2::from_elem((20, 25), 7.0);
        matmul_into(wide.slice_mut(s![.., 5..15]), 1.0, a, b, 0.0);
        assert!(close(
            &wide.slice(s![.., 5..15]).to_owned(),
            &expected,
            1e-12
        ));
        assert!(wide.slice(s![.., ..5]).iter().all(|&v| v == 7.0));
    }

    #[test]
    fn empty_products() {
        let none = Array2::<f64>::zeros((0, 3));
        assert_eq!(matmul(none.view(), none.t()).dim(), (0, 0));
        assert_eq!(matmul(none.t(), none.view()), Array2::zeros((3, 3)));
        assert_eq!(gram(none.view()), Array2::zeros((3, 3)));
        assert_eq!(gram(Array2::<f64>::zeros((3, 0)).view()).dim(), (0, 0));
        assert_eq!(column_means(none.view()), vec![0.0; 3]);
    }

    #[test]
    fn bits_do_not_depend_on_threads() {
        let x = random(5000, 17, 2);
        let y = random(17, 33, 3);
        let one = on_threads(1, || (matmul(x.view(), y.view()), gram(x.view())));
        let four = on_threads(4, || (matmul(x.view(), y.view()), gram(x.view())));
        assert_eq!(one, four);
        assert_eq!(
            on_threads(1, || column_means(x.view())),
            on_threads(4, || column_means(x.view()))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn product_agrees_with_ndarray(m in 0usize..40, p in 0usize..40, n in 0usize..40, seed: u64) {
            let (a, b) = (random(m, p, seed), random(p, n, seed ^ 1));
            prop_assert!(close(&matmul(a.view(), b.view()), &a.dot(&b), 1e-12));
            prop_assert!(close(&gram(a.view()), &a.t().dot(&a), 1e-12));
        }

        #[test]
        fn eigenvectors_reassemble_the_matrix(n in 1usize..30, seed: u64) {
            let x = random(n, n, seed);
            let a = &x + &x.t();
            let Eigen { values, vectors } = eigh(a.view()).unwrap();
            prop_assert!(values.windows(2).into_iter().all(|w| w[0] <= w[1]));
            prop_assert!(close(&(&vectors * &values).dot(&vectors.t()), &a, 1e-11));
            prop_assert!(close(&vectors.t().dot(&vectors), &Array2::eye(n), 1e-11));
            let top = eigh_top(a.view(), n / 2).unwrap();
            for j in 0..n / 2 {
                prop_assert_eq!(top.values[j], values[n - 1 - j]);
                prop_assert_eq!(top.vectors.column(j), vectors.column(n - 1 - j));
            }
        }

        #[test]
        fn cholesky_reassembles_and_solves(n in 1usize..30, seed: u64) {
            let x = random(n, n, seed);
            let a = x.dot(&x.t()) + Array2::<f64>::eye(n);
            let factor = cholesky(a.view()).unwrap();
            let lower = factor.lower();
            prop_assert!(close(&lower.dot(&lower.t()), &a, 1e-11));
            let b = random(n, 3, seed ^ 2);
            prop_assert!(close(&a.dot(&factor.solve(b.view())), &b, 1e-10));
            prop_assert!(close(&lower.dot(&factor.solve_lower(b.view())), &b, 1e-11));
            let vector = factor.solve_vector(b.column(0));
            prop_assert!((a.dot(&vector) - b.column(0)).iter().all(|v| v.abs() < 1e-10));
            let from_eigenvalues: f64 = eigh(a.view()).unwrap().values.iter().map(|v| v.ln()).sum();
            prop_assert!((factor.log_det() - from_eigenvalues).abs() < 1e-10);
        }

        #[test]
        fn pca_keeps_all_variance_tall_and_wide(n in 2usize..30, d in 1usize..30, seed: u64) {
            let x = random(n, d, seed);
            let q = n.min(d);
            let fit = pca(x.view(), q).unwrap();
            let total = x.var_axis(Axis(0), 1.0).sum();
            prop_assert!((fit.variances.sum() - total).abs() < 1e-10);
            prop_assert!(close(&fit.axes.dot(&fit.axes.t()), &Array2::eye(q), 1e-9));
            let coordinates = fit.transform(x.view());
            for j in 0..q {
                let variance = coordinates.column(j).var(1.0);
                prop_assert!((variance - fit.variances[j]).abs() < 1e-10);
            }
        }
    }

    #[test]
    fn eigh_by_hand_and_signs() {
        let Eigen { values, vectors } = eigh(array![[2.0, -1.0], [-1.0, 2.0]].view()).unwrap();
        let h = 0.5_f64.sqrt();
        assert!((values[0] - 1.0).abs() < 1e-15 && (values[1] - 3.0).abs() < 1e-15);
        assert!((vectors[[0, 0]] - h).abs() < 1e-15 && (vectors[[1, 0]] - h).abs() < 1e-15);
        let mut columns = array![[0.5, -0.6], [-0.8, 0.6]];
        fix_signs(&mut columns);
        assert_eq!(columns, array![[-0.5, 0.6], [0.8, -0.6]]);
        assert_eq!(eigh(Array2::zeros((0, 0)).view()).unwrap().values.len(), 0);
    }

    #[test]
    fn cholesky_by_hand() {
        let factor = cholesky(array![[4.0, 0.0], [2.0, 5.0]].view()).unwrap();
        assert_eq!(factor.lower(), array![[2.0, 0.0], [1.0, 2.0]]);
        assert!((factor.log_det() - 16.0_f64.ln()).abs() < 1e-15);
        assert_eq!(
            factor.solve_vector(array![8.0, 9.0].view()),
            array![1.375, 1.25]
        );
    }

    #[test]
    fn pca_by_hand() {
        let x = array![[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]];
        let fit = pca(x.view(), 1).unwrap();
        assert!((fit.variances[0] - 8.0).abs() < 1e-14);
        assert!((fit.axes[[0, 0]] - 0.5_f64.sqrt()).abs() < 1e-15);
        let single = pca(x.slice(s![..1, ..]), 1).unwrap();
        assert_eq!(single.variances[0], 0.0);
    }

    #[test]
    fn bad_input_is_named() {
        let nan = array![[1.0, 0.0], [f64::NAN, 1.0]];
        for error in [
            eigh(nan.view()).unwrap_err(),
            cholesky(nan.view()).unwrap_err(),
            pca(nan.view(), 1).unwrap_err(),
        ] {
            assert!(matches!(
                error,
                LinalgError::NotFinite {
                    row: 1,
                    column: 0,
                    ..
                }
            ));
        }
        let wide = Array2::<f64>::zeros((2, 3));
        let not_square = LinalgError::NotSquare {
            rows: 2,
            columns: 3,
        };
        assert_eq!(eigh(wide.view()).unwrap_err(), not_square);
        assert_eq!(cholesky(wide.view()).unwrap_err(), not_square);
        let indefinite = array![[1.0, 0.0], [2.0, 1.0]];
        assert_eq!(
            cholesky(indefinite.view()).unwrap_err(),
            LinalgError::NotPositiveDefinite { pivot: 1 }
        );
        let singular = array![[1.0, 0.0], [1.0, 1.0]];
        assert!(cholesky(singular.view()).is_err());
        assert!(matches!(
            pca(wide.view(), 3).unwrap_err(),
            LinalgError::TooManyComponents {
                asked: 3,
                available: 2
            }
        ));
        assert_eq!(
            pca(wide.slice(s![..0, ..]), 0).unwrap_err(),
            LinalgError::Empty
        );
    }
}
