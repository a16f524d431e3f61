//! The rows that a method groups: a matrix in memory, or chunks of a file that is larger than memory.

use ndarray::{Array2, Axis, CowArray, Ix2};
use papertrial_core::data::{Features, Roles, Table};
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::check_points;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use xsum::{Xsum, XsumSmall};

/// Mean and standard deviation of each column, by which rows were scaled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// Mean of each column.
    pub mean: Vec<f64>,
    /// Standard deviation of each column; 0 for a constant one, which becomes 0.
    pub deviation: Vec<f64>,
}

impl Scaling {
    /// Of all rows; `chunks` goes through them from the first each time it is called.
    ///
    /// Sums are exact and so do not depend on the order of the rows: a method that does not either gives the same
    /// result for a shuffled file to the last bit.
    fn of<'a, I>(width: usize, chunks: impl Fn() -> Result<I>) -> Result<Scaling>
    where
        I: Iterator<Item = Result<CowArray<'a, f64, Ix2>>>,
    {
        let mean = column_means(width, chunks()?, |_, value| value)?;
        let variance = column_means(width, chunks()?, |column, value| {
            (value - mean[column]) * (value - mean[column])
        })?;
        let deviation = variance
            .iter()
            .zip(&mean)
            // A column that is constant up to rounding is left at zero rather than blown up.
            .map(|(v, m)| {
                if v.sqrt() <= 1e-12 * m.abs() {
                    0.0
                } else {
                    v.sqrt()
                }
            })
            .collect();
        Ok(Scaling { mean, deviation })
    }

    /// Scales rows \[n, d\] in place.
    pub fn apply(&self, rows: &mut Array2<f64>) {
        for mut row in rows.axis_iter_mut(Axis(0)) {
            for ((value, mean), deviation) in row.iter_mut().zip(&self.mean).zip(&self.deviation) {
                *value = if *deviation > 0.0 {
                    (*value - mean) / deviation
                } else {
                    0.0
                };
            }
        }
    }
}

/// Mean of `of(column, value)` over all rows, for each column; sums are exact.
fn column_means<'a>(
    width: usize,
    chunks: impl Iterator<Item = Result<CowArray<'a, f64, Ix2>>>,
    of: impl Fn(usize, f64) -> f64 + Sync,
) -> Result<Vec<f64>> {
    let mut sums: Vec<XsumSmall> = (0..width).map(|_| XsumSmall::new()).collect();
    let mut rows = 0usize;
    for chunk in chunks {
        let chunk = chunk?;
        rows += chunk.nrows();
        sums.par_iter_mut().enumerate().for_each(|(column, sum)| {
            for value in chunk.column(column) {
                sum.add(of(column, *value));
            }
        });
    }
    Ok(sums
        .iter_mut()
        .map(|s| s.sum() / rows.max(1) as f64)
        .collect())
}

/// Rows of finite numbers, scaled if that was asked.
pub struct Points {
    features: Option<Features>,
    scaling: Option<Scaling>,
    matrix: OnceLock<Array2<f64>>,
    names: Vec<String>,
    rows: usize,
    notes: Vec<String>,
}

impl Points {
    /// The feature columns of `table`, scaled to mean 0 and variance 1 if `standardise`.
    ///
    /// They are held in memory where they fit and read chunk by chunk where not.
    ///
    /// # Errors
    /// As [`Features::of`] and [`Features::chunks`].
    pub fn of(
        table: &Table,
        roles: &Roles,
        standardise: bool,
        context: &Context,
    ) -> Result<Points> {
        let features = Features::of(table, roles)?;
        let rows = usize::try_from(features.rows()).unwrap_or(usize::MAX);
        let mut loaded = match features.matrix(context) {
            Ok(matrix) => Some(matrix),
            // Too large: passes over the file check every cell and yield the moments.
            Err(Error::Memory { .. }) => None,
            Err(e) => return Err(e),
        };
        let scaling = match &loaded {
            Some(matrix) => Scaling::of(features.width(), || {
                Ok(std::iter::once(Ok(CowArray::from(matrix.view()))))
            })?,
            None => Scaling::of(features.width(), || {
                Ok(features.chunks()?.map(|c| c.map(CowArray::from)))
            })?,
        };
        let constant: Vec<&str> = scaling
            .deviation
            .iter()
            .zip(features.names())
            .filter(|(deviation, _)| **deviation == 0.0)
            .map(|(_, name)| name.as_str())
            .collect();
        let notes = if constant.is_empty() {
            Vec::new()
        } else {
            vec![format!(
                "constant columns tell nothing apart: {}",
                shortened(&constant)
            )]
        };
        let scaling = standardise.then_some(scaling);
        if let (Some(scaling), Some(matrix)) = (&scaling, &mut loaded) {
            scaling.apply(matrix);
        }
        let matrix = OnceLock::new();
        if let Some(loaded) = loaded {
            let _ = matrix.set(loaded);
        }
        Ok(Points {
            names: features.names().to_vec(),
            features: Some(features),
            scaling,
            matrix,
            rows,
            notes,
        })
    }

    /// The rows of a matrix \[n, d\], as they are.
    ///
    /// # Errors
    /// No rows, no columns, NaN or infinity, each with its place.
    pub fn from_matrix(matrix: Array2<f64>) -> Result<Points> {
        check_points(matrix.view()).map_err(|e| Error::BadInput(e.to_string()))?;
        // Kernels want row-major memory.
        let matrix = if matrix.is_standard_layout() {
            matrix
        } else {
            matrix.as_standard_layout().into_owned()
        };
        Ok(Points {
            names: (0..matrix.ncols()).map(|i| format!("x{i}")).collect(),
            features: None,
            scaling: None,
            rows: matrix.nrows(),
            matrix: OnceLock::from(matrix),
            notes: Vec::new(),
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.names.len()
    }

    /// Names of the columns.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How the rows were scaled, if they were.
    pub fn scaling(&self) -> Option<&Scaling> {
        self.scaling.as_ref()
    }

    /// Remarks on the data.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// All rows \[n, d\] in memory, row-major.
    ///
    /// # Errors
    /// [`Error::Memory`] with the needed size if they do not fit.
    pub fn matrix(&self, context: &Context) -> Result<&Array2<f64>> {
        if let Some(matrix) = self.matrix.get() {
            return Ok(matrix);
        }
        let mut matrix = match &self.features {
            Some(features) => features.matrix(context)?,
            None => Array2::zeros((0, self.width())),
        };
        if let Some(scaling) = &self.scaling {
            scaling.apply(&mut matrix);
        }
        Ok(self.matrix.get_or_init(|| matrix))
    }

    /// The rows in chunks \[some thousands, d\], from the first, whether they fit into memory or not.
    ///
    /// # Errors
    /// The file cannot be opened; each chunk may tell of a file that changed.
    pub fn chunks(&self) -> Result<Box<dyn Iterator<Item = Result<Array2<f64>>> + '_>> {
        const ROWS: usize = 8192;
        match (self.matrix.get(), &self.features) {
            (Some(matrix), _) => Ok(Box::new(
                matrix
                    .axis_chunks_iter(Axis(0), ROWS)
                    .map(|c| Ok(c.to_owned())),
            )),
            (None, Some(features)) => Ok(Box::new(features.chunks()?.map(|chunk| {
                let mut chunk = chunk?;
                if let Some(scaling) = &self.scaling {
                    scaling.apply(&mut chunk);
                }
                Ok(chunk)
            }))),
            (None, None) => Ok(Box::new(std::iter::empty())),
        }
    }

    /// Checks that `k` groups can be made of these rows.
    ///
    /// # Errors
    /// [`Error::Option`] if `k` is 0 or above the number of rows.
    pub fn check_k(&self, k: usize) -> Result<()> {
        if k == 0 || k > self.rows {
            Err(Error::option(
                "k",
                format!(
                    "{k} clusters cannot be made of {} rows; k must be from 1 to {}",
                    self.rows, self.rows
                ),
            ))
        } else {
            Ok(())
        }
    }
}

fn shortened(names: &[&str]) -> String {
    let mut text = names[..names.len().min(8)].join(", ");
    if names.len() > 8 {
        text.push_str(&format!(" and {} more", names.len() - 8));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float64Array};
    use arrow::record_batch::RecordBatch;
    use ndarray::array;
    use std::sync::Arc;

    fn table(columns: &[(&str, Vec<f64>)]) -> Table {
        let columns = columns.iter().map(|(name, values)| {
            let column: ArrayRef = Arc::new(Float64Array::from(values.clone()));
            (*name, column)
        });
        Table::memory("t", vec![RecordBatch::try_from_iter(columns).unwrap()])
    }

    #[test]
    fn standardised_columns_have_mean_zero_and_variance_one_and_constants_stay_zero() {
        let t = table(&[("a", vec![1., 3.]), ("c", vec![7., 7.])]);
        let context = Context::with_seed(0);
        let points = Points::of(&t, &Roles::default(), true, &context).unwrap();
        assert_eq!(
            points.matrix(&context).unwrap(),
            array![[-1., 0.], [1., 0.]]
        );
        assert!(points.notes()[0].contains("c"));
        let raw = Points::of(&t, &Roles::default(), false, &context).unwrap();
        assert_eq!(raw.matrix(&context).unwrap(), array![[1., 7.], [3., 7.]]);
    }

    #[test]
    fn rows_that_do_not_fit_come_in_chunks_with_the_same_numbers() {
        let values: Vec<f64> = (0..20_000).map(|i| f64::from(i % 17)).collect();
        let t = table(&[
            ("a", values.clone()),
            ("b", values.iter().map(|v| v * v).collect()),
        ]);
        let free = Context::with_seed(0);
        let tight = Context {
            memory: Some(1000),
            ..Context::with_seed(0)
        };
        let whole = Points::of(&t, &Roles::default(), true, &free).unwrap();
        let parts = Points::of(&t, &Roles::default(), true, &tight).unwrap();
        assert!(matches!(parts.matrix(&tight), Err(Error::Memory { .. })));
        let chunks: Vec<_> = parts.chunks().unwrap().map(Result::unwrap).collect();
        let views: Vec<_> = chunks.iter().map(|c| c.view()).collect();
        let joined = ndarray::concatenate(Axis(0), &views).unwrap();
        let difference = (&joined - whole.matrix(&free).unwrap()).mapv(f64::abs);
        assert!(difference.iter().all(|d| *d < 1e-12));
    }

    #[test]
    fn the_order_of_the_rows_changes_no_bit_of_the_scaling() {
        let values: Vec<f64> = (0..999)
            .map(|i| (f64::from(i) * 0.7).sin() * 1e3 + 1e5)
            .collect();
        let reversed: Vec<f64> = values.iter().rev().copied().collect();
        let context = Context::with_seed(0);
        let scaling = |v: Vec<f64>| {
            let points =
                Points::of(&table(&[("a", v)]), &Roles::default(), true, &context).unwrap();
            points.scaling().cloned().unwrap()
        };
        assert_eq!(scaling(values), scaling(reversed));
    }

    #[test]
    fn nan_and_no_rows_are_refused() {
        assert!(Points::from_matrix(array![[1.0, f64::NAN]]).is_err());
        assert!(Points::from_matrix(Array2::zeros((0, 2))).is_err());
        let points = Points::from_matrix(array![[1.0], [2.0]]).unwrap();
        assert!(points.check_k(2).is_ok());
        assert!(points.check_k(0).is_err() && points.check_k(3).is_err());
    }
}
