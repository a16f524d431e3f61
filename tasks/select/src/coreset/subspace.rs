//! Principal components: the loss of a row is its squared distance to a plane of q axes.
//!
//! x \[n, d\] features; a model is \[1 + q, d\]: the mean m, then the axes V as orthonormal rows. Loss |p|^2 - |V p|^2 with
//! p = x - m. The fit of weighted rows is exact: the weighted mean and the q first eigenvectors of the weighted covariance,
//! or, for fewer rows than columns, of the rows' products with each other.
//!
//! Cost: m d min(m, d) + min(m, d)^3 for a fit of m rows; O(n q d) for losses.

use super::problem::{Problem, WeightedProblem, row_blocks};
use super::sensitivity::ridge_leverages;
use ndarray::{Array1, Array2, ArrayView2, Axis, CowArray, s};
use papertrial_core::{Error, Result};
use papertrial_numerics::linalg;
use rayon::prelude::*;

/// Rows with the loss of a plane.
#[derive(Debug, Clone)]
pub struct Subspace {
    x: Array2<f64>,
    axes: usize,
}

impl Subspace {
    /// A plane of `axes` axes.
    ///
    /// # Errors
    /// No axes, or as many as columns.
    pub fn new(x: Array2<f64>, axes: usize) -> Result<Subspace> {
        if axes == 0 || axes >= x.ncols() {
            return Err(Error::option(
                "axes",
                format!(
                    "{axes} axes for {} columns; take at least 1 and fewer than columns",
                    x.ncols()
                ),
            ));
        }
        Ok(Subspace {
            x: x.as_standard_layout().into_owned(),
            axes,
        })
    }
}

fn failed(e: linalg::LinalgError) -> Error {
    Error::Failed(format!("principal components cannot be computed: {e}"))
}

/// Squared distances of rows to the plane.
fn residuals(x: ArrayView2<'_, f64>, model: &Array2<f64>) -> Vec<f64> {
    let centred = &x - &model.row(0);
    let mut along = Array2::zeros((x.nrows(), model.nrows() - 1));
    let axes = model.slice(s![1.., ..]);
    linalg::matmul_into_single(along.view_mut(), 1.0, centred.view(), axes.t(), 0.0);
    centred
        .outer_iter()
        .zip(along.outer_iter())
        .map(|(p, a)| (p.dot(&p) - a.dot(&a)).max(0.0))
        .collect()
}

impl WeightedProblem for Subspace {
    type Model = Array2<f64>;

    fn rows(&self) -> usize {
        self.x.nrows()
    }

    fn fit(&self, rows: &[usize], weights: &[f64]) -> Result<Array2<f64>> {
        let d = self.x.ncols();
        let m = rows.len();
        if m <= self.axes {
            return Err(Error::option(
                "size",
                format!(
                    "{m} rows were chosen, too few for {} axes; raise size, or lower axes",
                    self.axes
                ),
            ));
        }
        let sum: f64 = weights.iter().sum();
        let mut mean = Array1::zeros(d);
        for (row, w) in rows.iter().zip(weights) {
            mean.scaled_add(w / sum, &self.x.row(*row));
        }
        let x = if m == self.x.nrows() {
            CowArray::from(self.x.view())
        } else {
            CowArray::from(self.x.select(Axis(0), rows))
        };
        let mut scaled = &x - &mean;
        for (mut row, w) in scaled.outer_iter_mut().zip(weights) {
            row *= (w / sum).sqrt();
        }
        let mut model = Array2::zeros((1 + self.axes, d));
        model.row_mut(0).assign(&mean);
        let mut axes = model.slice_mut(s![1.., ..]);
        if m >= d {
            let top =
                linalg::eigh_top(linalg::gram(scaled.view()).view(), self.axes).map_err(failed)?;
            axes.assign(&top.vectors.t());
        } else {
            // X X' u = s^2 u gives the axis X' u / s.
            let products = linalg::matmul(scaled.view(), scaled.t());
            let top = linalg::eigh_top(products.view(), self.axes).map_err(failed)?;
            axes.assign(&linalg::matmul(top.vectors.t(), scaled.view()));
            orthonormal(axes);
        }
        Ok(model)
    }

    fn loss(&self, row: usize, model: &Array2<f64>) -> f64 {
        residuals(self.x.slice(s![row..row + 1, ..]), model)[0]
    }

    fn losses(&self, model: &Array2<f64>) -> Result<Vec<f64>> {
        let parts: Vec<Vec<f64>> = row_blocks(&self.x.view())
            .into_par_iter()
            .map(|x| residuals(x, model))
            .collect();
        Ok(parts.concat())
    }
}

/// Makes the rows orthonormal, in order; one that depends on those before becomes 0, an axis along which nothing varies.
fn orthonormal(mut axes: ndarray::ArrayViewMut2<'_, f64>) {
    let first = axes.row(0).dot(&axes.row(0)).sqrt();
    for i in 0..axes.nrows() {
        let (done, mut rest) = axes.view_mut().split_at(Axis(0), i);
        let mut row = rest.row_mut(0);
        // Twice, since one pass leaves rounding of the length before.
        for _ in 0..2 {
            for other in done.outer_iter() {
                let along = row.dot(&other);
                row.scaled_add(-along, &other);
            }
        }
        let length = row.dot(&row).sqrt();
        if length > 1e-10 * first {
            row /= length;
        } else {
            row.fill(0.0);
        }
    }
}

impl Problem for Subspace {
    fn points(&self) -> ArrayView2<'_, f64> {
        self.x.view()
    }

    /// Ridge leverage of the centred rows, whose ridge is the residual of the best plane over q (Cohen, Musco and Musco,
    /// *Input sparsity time low-rank approximation via ridge leverage score sampling*, 2017), plus 1/n for the mean.
    fn sensitivities(&self, _seed: u64) -> Result<Vec<f64>> {
        let n = self.x.nrows();
        let rows: Vec<usize> = (0..n).collect();
        let plane = self.fit(&rows, &vec![1.0; n])?;
        let rest: f64 = self.losses(&plane)?.iter().sum();
        let centred = &self.x - &plane.row(0);
        let leverages = ridge_leverages(centred.view(), rest / self.axes as f64)?;
        Ok(leverages.into_iter().map(|l| l + 1.0 / n as f64).collect())
    }

    fn predict(&self, _model: &Array2<f64>, _x: ArrayView2<'_, f64>) -> Option<Vec<f64>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;

    #[test]
    fn a_line_by_hand() {
        // Weighted rows on the line through (1, 1) along (1, 2), and one row off it by sqrt 5.
        let x = array![[0.0, -1.0], [2.0, 3.0], [1.0, 1.0], [3.0, 0.0]];
        let problem = Subspace::new(x, 1).unwrap();
        let model = problem.fit(&[0, 1, 2], &[2.0, 2.0, 5.0]).unwrap();
        assert!((model[[0, 0]] - 1.0).abs() < 1e-12 && (model[[0, 1]] - 1.0).abs() < 1e-12);
        for row in 0..3 {
            assert!(problem.loss(row, &model) < 1e-12);
        }
        assert!((problem.loss(3, &model) - 5.0).abs() < 1e-12);
    }

    #[test]
    fn more_columns_than_rows_give_orthonormal_axes() {
        let x = Array2::from_shape_fn((6, 9), |(i, j)| ((i * 5 + j * j * 3) % 11) as f64);
        let problem = Subspace::new(x, 3).unwrap();
        let model = problem
            .fit(&[0, 1, 2, 3, 4], &[1.0, 2.0, 1.0, 1.0, 1.0])
            .unwrap();
        let axes = model.slice(s![1.., ..]);
        let products = axes.dot(&axes.t());
        for ((i, j), v) in products.indexed_iter() {
            assert!((v - if i == j { 1.0 } else { 0.0 }).abs() < 1e-10);
        }
        // Four axes hold five rows exactly; three do not, four do.
        let all = Subspace::new(problem.x.clone(), 4).unwrap();
        let model = all.fit(&[0, 1, 2, 3, 4], &[1.0; 5]).unwrap();
        assert!((0..5).all(|row| all.loss(row, &model) < 1e-9));
    }

    #[test]
    fn equal_rows_have_no_axis_and_no_loss() {
        let x = Array2::from_elem((4, 9), 2.0);
        let problem = Subspace::new(x, 2).unwrap();
        let model = problem.fit(&[0, 1, 2], &[1.0; 3]).unwrap();
        assert!(model.iter().all(|v| v.is_finite()));
        assert!(problem.losses(&model).unwrap().iter().all(|l| *l < 1e-12));
    }

    #[test]
    fn bad_axes_and_too_few_rows_are_named() {
        let x = Array2::from_shape_fn((5, 3), |(i, j)| (i * j) as f64);
        assert!(Subspace::new(x.clone(), 3).is_err());
        assert!(Subspace::new(x.clone(), 0).is_err());
        let problem = Subspace::new(x, 2).unwrap();
        let e = problem.fit(&[0, 1], &[1.0, 1.0]).unwrap_err().to_string();
        assert!(e.contains("size"), "{e}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        /// Weights are repetitions, and turning the plane makes it no better.
        #[test]
        fn the_weighted_plane_is_the_best(seed in 0usize..1000, e in 0.02f64..0.3) {
            let x = Array2::from_shape_fn((30, 4), |(i, j)| {
                ((i * 29 + j * 43 + i * j * seed) % 61) as f64 / 17.0
            });
            let problem = Subspace::new(x, 2).unwrap();
            let rows: Vec<usize> = (0..30).collect();
            let weights: Vec<f64> = (0..30).map(|i| f64::from(1 + i % 3)).collect();
            let mut model = problem.fit(&rows, &weights).unwrap();
            let objective = |model: &Array2<f64>| -> f64 {
                problem.losses(model).unwrap().iter().zip(&weights).map(|(l, w)| l * w).sum()
            };
            let best = objective(&model);
            model[[0, seed % 4]] += e;
            prop_assert!(objective(&model) >= best * (1.0 - 1e-12));
            model[[0, seed % 4]] -= e;
            // A turn towards a direction off the plane keeps the axes orthonormal.
            let first = model.row(1).to_owned();
            let second = model.row(2).to_owned();
            let mut other = Array1::<f64>::zeros(4);
            other[seed % 4] = 1.0;
            for axis in [&first, &second] {
                let along = other.dot(axis);
                other.scaled_add(-along, axis);
            }
            let length = other.dot(&other).sqrt();
            prop_assume!(length > 0.1);
            other /= length;
            model.row_mut(1).assign(&(&first * e.cos() + &other * e.sin()));
            prop_assert!(objective(&model) >= best * (1.0 - 1e-12));
        }
    }
}
