//! The rows that a method groups: a matrix in memory, or chunks of a file that is larger than memory.

use ndarray::{Array2, ArrayView2, Axis};
use papertrial_core::data::{Features, Roles, Table};
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::check_points;
use papertrial_numerics::stats::ColumnMoments;
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;

/// Mean and standard deviation of each column, by which rows were scaled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// Mean of each column.
    pub mean: Vec<f64>,
    /// Standard deviation of each column; 1 for a constant one.
    pub deviation: Vec<f64>,
}

impl Scaling {
    fn of(moments: &ColumnMoments) -> Scaling {
        let mean: Vec<f64> = moments.mean().map(|m| m.to_vec()).unwrap_or_default();
        let deviation = moments
            .variance()
            .map(|v| {
                v.iter()
                    .zip(&mean)
                    // A column that is constant up to rounding is left at zero rather than blown up.
                    .map(|(v, m)| {
                        if v.sqrt() <= 1e-12 * m.abs() {
                            1.0
                        } else {
                            v.sqrt()
                        }
                    })
                    .collect()
            })
            .unwrap_or_default();
        Scaling { mean, deviation }
    }

    /// Scales rows \[n, d\] in place.
    pub fn apply(&self, rows: &mut Array2<f64>) {
        for mut row in rows.axis_iter_mut(Axis(0)) {
            for ((value, mean), deviation) in row.iter_mut().zip(&self.mean).zip(&self.deviation) {
                *value = (*value - mean) / deviation;
            }
        }
    }
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
        let mut moments = ColumnMoments::new(features.width());
        let mut push = |chunk: ArrayView2<f64>| {
            moments
                .push_chunk(chunk)
                .map_err(|e| Error::Failed(e.to_string()))
        };
        let mut loaded = match features.matrix(context) {
            Ok(matrix) => {
                push(matrix.view())?;
                Some(matrix)
            }
            // Too large: one pass over the file checks every cell and yields the moments.
            Err(Error::Memory { .. }) => {
                for chunk in features.chunks()? {
                    push(chunk?.view())?;
                }
                None
            }
            Err(e) => return Err(e),
        };
        let scaling = Scaling::of(&moments);
        let constant: Vec<&str> = moments
            .variance()
            .map(|v| {
                v.iter()
                    .zip(features.names())
                    .filter(|(v, _)| **v == 0.0)
                    .map(|(_, name)| name.as_str())
                    .collect()
            })
            .unwrap_or_default();
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
    fn nan_and_no_rows_are_refused() {
        assert!(Points::from_matrix(array![[1.0, f64::NAN]]).is_err());
        assert!(Points::from_matrix(Array2::zeros((0, 2))).is_err());
        let points = Points::from_matrix(array![[1.0], [2.0]]).unwrap();
        assert!(points.check_k(2).is_ok());
        assert!(points.check_k(0).is_err() && points.check_k(3).is_err());
    }
}
