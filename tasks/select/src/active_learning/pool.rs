//! The pool: rows, classes, annotators and what mistakes and answers cost.

use ndarray::{Array2, ArrayView2};
use papertrial_core::{Error, Result};
use papertrial_numerics::stats::ColumnMoments;

/// Somebody who answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotator {
    /// Name, as in the log of answers.
    pub name: String,
    /// Money for an answer.
    pub fee: f64,
}

/// Rows without labels, and everything known of them beside the answers.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Features \[n, d\], each column of mean 0 and deviation 1.
    pub x: Array2<f64>,
    /// Names of the columns, d of them.
    pub columns: Vec<String>,
    /// Means of the columns before they were scaled.
    pub means: Vec<f64>,
    /// Deviations of the columns before they were scaled; 1 for a constant column.
    pub deviations: Vec<f64>,
    /// Names of the classes, K of them.
    pub classes: Vec<String>,
    /// Who can be asked.
    pub annotators: Vec<Annotator>,
    /// Cost of predicting class j where class y is true \[y, j\]; zeros on the diagonal.
    pub costs: Array2<f64>,
    /// Factor on the cost of a mistake in each row, n of them.
    pub row_costs: Vec<f64>,
    /// Factor on the fee of an answer about each row, n of them.
    pub row_fees: Vec<f64>,
}

impl Pool {
    /// A pool where all mistakes cost 1 and all rows are equally dear. `x` \[n, d\] is scaled here.
    ///
    /// # Errors
    /// No rows; values that are not finite; fewer than two classes; no annotator; a name twice; a fee that is negative
    /// or no number.
    pub fn new(
        mut x: Array2<f64>,
        columns: Vec<String>,
        classes: Vec<String>,
        annotators: Vec<Annotator>,
    ) -> Result<Pool> {
        let bad = |problem: String| Err(Error::BadInput(problem));
        let (n, d) = x.dim();
        if n == 0 || d == 0 {
            return bad(format!(
                "the pool has {n} rows and {d} columns of numbers; it needs at least one of each"
            ));
        }
        if let Some(((row, column), value)) = x.indexed_iter().find(|(_, v)| !v.is_finite()) {
            return bad(format!(
                "row {row}, column {column} of the pool is {value}; fill it in or drop the row"
            ));
        }
        if classes.len() < 2 {
            return Err(Error::option(
                "classes",
                format!(
                    "{} class is known, and at least two are needed; name all of them: classes=[\"a\",\"b\"]",
                    classes.len()
                ),
            ));
        }
        distinct("classes", classes.iter().map(String::as_str))?;
        if annotators.is_empty() {
            return Err(Error::option(
                "annotators",
                "nobody can be asked; name the annotators: annotators=[\"ann\",\"bob\"]",
            ));
        }
        distinct("annotators", annotators.iter().map(|a| a.name.as_str()))?;
        if let Some(a) = annotators
            .iter()
            .find(|a| !a.fee.is_finite() || a.fee < 0.0)
        {
            return Err(Error::option(
                "annotator-fee",
                format!(
                    "the fee of {} is {}; a fee is a number from 0",
                    a.name, a.fee
                ),
            ));
        }
        let (means, deviations) = scale(&mut x)?;
        let k = classes.len();
        Ok(Pool {
            x,
            columns,
            means,
            deviations,
            classes,
            annotators,
            costs: Array2::from_shape_fn((k, k), |(y, j)| f64::from(u8::from(y != j))),
            row_costs: vec![1.0; n],
            row_fees: vec![1.0; n],
        })
    }

    /// The same pool with a cost for each kind of mistake, `costs[true][predicted]`.
    ///
    /// # Errors
    /// Not one row and column for each class, a negative cost, a cost on the diagonal.
    pub fn with_costs(mut self, costs: &[Vec<f64>]) -> Result<Pool> {
        let k = self.classes.len();
        if costs.len() != k || costs.iter().any(|row| row.len() != k) {
            return Err(Error::option(
                "cost-matrix",
                format!(
                    "has {} rows of {:?} numbers; {k} classes need {k} rows of {k}",
                    costs.len(),
                    costs.iter().map(Vec::len).collect::<Vec<_>>()
                ),
            ));
        }
        for (y, row) in costs.iter().enumerate() {
            for (j, &cost) in row.iter().enumerate() {
                if !cost.is_finite() || cost < 0.0 || (y == j && cost != 0.0) {
                    return Err(Error::option(
                        "cost-matrix",
                        format!(
                            "row {y}, column {j} is {cost}; costs are numbers from 0, and 0 where the prediction is right"
                        ),
                    ));
                }
                self.costs[[y, j]] = cost;
            }
        }
        Ok(self)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.x.nrows()
    }

    /// Money for the answer of annotator `a` about `row`.
    pub fn fee(&self, row: usize, a: usize) -> f64 {
        self.annotators[a].fee * self.row_fees[row]
    }

    /// Scales rows \[m, d\] of the same columns as the pool's were scaled.
    pub fn scaled(&self, raw: ArrayView2<'_, f64>) -> Array2<f64> {
        let mut x = raw.to_owned();
        for mut row in x.rows_mut() {
            for ((value, mean), deviation) in row.iter_mut().zip(&self.means).zip(&self.deviations)
            {
                *value = (*value - mean) / deviation;
            }
        }
        x
    }

    /// The money that all answers about all rows would cost.
    pub fn worth(&self) -> f64 {
        let rows: f64 = self.row_fees.iter().sum();
        let fees: f64 = self.annotators.iter().map(|a| a.fee).sum();
        rows * fees
    }

    /// Checks a budget: above 0, enough for one answer, no more than all answers cost.
    ///
    /// # Errors
    /// It is not.
    pub fn check_budget(&self, budget: f64) -> Result<()> {
        if !budget.is_finite() || budget <= 0.0 {
            return Err(Error::option(
                "budget",
                format!("{budget} is not positive; give the money for answers"),
            ));
        }
        let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
        let fee = least(&mut self.annotators.iter().map(|a| a.fee))
            * least(&mut self.row_fees.iter().copied());
        if budget < fee {
            return Err(Error::option(
                "budget",
                format!("{budget} is less than the lowest fee, {fee}"),
            ));
        }
        let worth = self.worth();
        if worth > 0.0 && budget > worth {
            return Err(Error::option(
                "budget",
                format!(
                    "{budget} is more than the {worth} that all annotators' answers about all {} rows cost; give at most that",
                    self.rows()
                ),
            ));
        }
        Ok(())
    }
}

/// Refuses a name that occurs twice or is empty.
fn distinct<'a>(option: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if name.is_empty() {
            return Err(Error::option(option, "holds an empty name"));
        }
        if !seen.insert(name) {
            return Err(Error::option(option, format!("names '{name}' twice")));
        }
    }
    Ok(())
}

/// Scales the columns of `x` in place; gives their means and deviations.
fn scale(x: &mut Array2<f64>) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut moments = ColumnMoments::new(x.ncols());
    moments
        .push_chunk(x.view())
        .map_err(|e| Error::Failed(e.to_string()))?;
    let (Some(means), Some(variances)) = (moments.mean(), moments.variance()) else {
        return Err(Error::BadInput("the pool has no rows".into()));
    };
    let means = means.to_vec();
    let deviations: Vec<f64> = variances
        .iter()
        .zip(&means)
        // A column that is constant up to rounding stays where it is.
        .map(|(v, m)| match v.sqrt() {
            s if s > 1e-12 * m.abs().max(1e-290) => s,
            _ => 1.0,
        })
        .collect();
    for mut row in x.rows_mut() {
        for ((value, mean), deviation) in row.iter_mut().zip(&means).zip(&deviations) {
            *value = (*value - mean) / deviation;
        }
    }
    Ok((means, deviations))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use papertrial_numerics::sampling;
    use rand::RngExt;

    /// Annotators of these fees, named a, b, ..
    pub fn annotators(fees: &[f64]) -> Vec<Annotator> {
        fees.iter()
            .zip('a'..)
            .map(|(&fee, name)| Annotator {
                name: name.to_string(),
                fee,
            })
            .collect()
    }

    /// `n` rows of two columns, two classes told apart by the sign of the first; with the truth.
    pub fn halves(n: usize, fees: &[f64], seed: u64) -> (Pool, Vec<usize>) {
        let mut rng = sampling::rng(seed, "two halves");
        let x = Array2::from_shape_fn((n, 2), |(i, c)| {
            let side = if i % 2 == 0 { -1.5 } else { 1.5 };
            rng.random::<f64>() * 2.0 - 1.0 + if c == 0 { side } else { 0.0 }
        });
        let truth = (0..n).map(|i| i % 2).collect();
        let pool = Pool::new(
            x,
            vec!["u".into(), "v".into()],
            vec!["no".into(), "yes".into()],
            annotators(fees),
        )
        .unwrap();
        (pool, truth)
    }

    #[test]
    fn columns_are_scaled_and_a_constant_one_stays() {
        let x = ndarray::array![[1.0, 5.0], [3.0, 5.0]];
        let names = || vec!["u".to_owned(), "v".to_owned()];
        let pool = Pool::new(x.clone(), names(), names(), annotators(&[1.0])).unwrap();
        assert_eq!(pool.x, ndarray::array![[-1.0, 0.0], [1.0, 0.0]]);
        assert_eq!(pool.scaled(x.view()), pool.x);
    }

    #[test]
    fn bad_pools_are_refused_with_the_reason() {
        let (pool, _) = halves(4, &[1.0, 2.0], 0);
        let names = || vec!["u".to_owned(), "v".to_owned()];
        let told = |result: Result<Pool>| result.unwrap_err().to_string();
        let build = |x: Array2<f64>, classes: &[&str], fees: &[f64]| {
            let classes = classes.iter().map(|c| (*c).to_owned()).collect();
            Pool::new(x, names(), classes, annotators(fees))
        };
        let x = || Array2::<f64>::eye(2);
        assert!(told(build(Array2::zeros((0, 2)), &["a", "b"], &[1.0])).contains("0 rows"));
        assert!(told(build(x() * f64::NAN, &["a", "b"], &[1.0])).contains("NaN"));
        assert!(told(build(x(), &["a"], &[1.0])).contains("at least two"));
        assert!(told(build(x(), &["a", "a"], &[1.0])).contains("twice"));
        assert!(told(build(x(), &["a", "b"], &[])).contains("nobody"));
        assert!(told(build(x(), &["a", "b"], &[-1.0])).contains("a number from 0"));
        assert!(told(pool.clone().with_costs(&[vec![0.0, 1.0]])).contains("2 rows of 2"));
        let diagonal = [vec![1.0, 1.0], vec![1.0, 0.0]];
        assert!(told(pool.clone().with_costs(&diagonal)).contains("row 0, column 0"));
        for (budget, reason) in [
            (0.0, "not positive"),
            (0.5, "lowest fee"),
            (12.5, "more than the 12"),
            (f64::NAN, "not positive"),
        ] {
            let e = pool.check_budget(budget).unwrap_err().to_string();
            assert!(e.contains(reason), "{budget}: {e}");
        }
        assert!(pool.check_budget(12.0).is_ok());
    }
}
