//! From a table to a problem: features, labels as the problem needs them, scaling, and the split of a trial.

use super::centres::{CentreLoss, Centres};
use super::linear::{Linear, LinearLoss};
use super::problem::Problem;
use super::softmax::Softmax;
use super::subspace::Subspace;
use super::{ProblemKind, TaskOptions};
use ndarray::{Array1, Array2, Axis};
use papertrial_core::data::{Features, Labels, Roles, Table};
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;

/// What the rows are labelled with.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// Nothing, or nothing that the problem reads.
    Nothing,
    /// Class of each row, and the number of classes.
    Classes(Vec<u32>, usize),
    /// A number of each row.
    Numbers(Vec<f64>),
}

impl Target {
    fn select(&self, rows: &[usize]) -> Target {
        match self {
            Target::Nothing => Target::Nothing,
            Target::Classes(codes, k) => {
                Target::Classes(rows.iter().map(|row| codes[*row]).collect(), *k)
            }
            Target::Numbers(y) => Target::Numbers(rows.iter().map(|row| y[*row]).collect()),
        }
    }

    /// Codes of the classes or the numbers.
    pub fn values(&self) -> Vec<f64> {
        match self {
            Target::Nothing => Vec::new(),
            Target::Classes(codes, _) => codes.iter().map(|code| f64::from(*code)).collect(),
            Target::Numbers(y) => y.clone(),
        }
    }
}

/// Features and labels of all rows.
pub(super) struct Data {
    /// \[n, d\]
    pub x: Array2<f64>,
    /// One for each row.
    pub target: Target,
}

impl Data {
    /// Reads a table for the problem that is asked for.
    ///
    /// # Errors
    /// No label column where one is needed, one class, more than two where two are needed, labels that are no numbers
    /// where numbers are needed, or features that cannot be used.
    pub fn of(
        table: &Table,
        roles: &Roles,
        asked: &TaskOptions,
        context: &Context,
    ) -> Result<Data> {
        let x = Features::of(table, roles)?.matrix(context)?;
        let label = || {
            roles.label.as_deref().ok_or_else(|| {
                Error::option(
                    "--label",
                    format!(
                        "problem={} needs a label column; name it, or take k-means, k-medians or pca",
                        asked.problem.name()
                    ),
                )
            })
        };
        let target = match asked.problem {
            ProblemKind::KMeans | ProblemKind::KMedians | ProblemKind::Pca => Target::Nothing,
            ProblemKind::LogisticRegression | ProblemKind::LinearSvm | ProblemKind::Softmax => {
                let column = label()?;
                let labels = Labels::of(table, roles)?.ok_or_else(|| {
                    Error::column(table.name(), column, "cannot be read as labels")
                })?;
                let k = labels.names.len();
                if k < 2 {
                    return Err(Error::column(
                        table.name(),
                        column,
                        "has one class only; at least two are needed",
                    ));
                }
                if k > 2 && asked.problem != ProblemKind::Softmax {
                    return Err(Error::column(
                        table.name(),
                        column,
                        format!(
                            "has {k} classes, but problem={} takes two; take problem=softmax",
                            asked.problem.name()
                        ),
                    ));
                }
                Target::Classes(labels.codes.iter().map(|code| *code as u32).collect(), k)
            }
            ProblemKind::LinearRegression | ProblemKind::Huber | ProblemKind::Quantile => {
                let column = label()?;
                let alone = Roles {
                    features: vec![column.to_owned()],
                    ..Roles::default()
                };
                let numbers = Features::of(table, &alone)?.matrix(context)?;
                if numbers.ncols() != 1 {
                    return Err(Error::column(
                        table.name(),
                        column,
                        format!(
                            "holds no numbers, but problem={} needs one for each row",
                            asked.problem.name()
                        ),
                    ));
                }
                Target::Numbers(numbers.column(0).to_vec())
            }
        };
        Ok(Data { x, target })
    }

    /// Training and test rows: `share` of them are for the test, of each class alike. The training rows keep one of each
    /// class.
    ///
    /// # Errors
    /// Fewer than two training rows are left.
    pub fn split(self, share: f64, seed: u64) -> Result<(Data, Option<Data>)> {
        let n = self.x.nrows();
        let mut rng = sampling::rng(seed, "coreset test rows");
        let order = sampling::permutation(&mut rng, n);
        let (codes, k) = match &self.target {
            Target::Classes(codes, k) => (codes.clone(), *k),
            _ => (vec![0; n], 1),
        };
        let mut sizes = vec![0usize; k];
        for code in &codes {
            sizes[*code as usize] += 1;
        }
        let mut left: Vec<usize> = sizes
            .iter()
            .map(|size| ((*size as f64 * share) as usize).min(size.saturating_sub(1)))
            .collect();
        let mut testing = vec![false; n];
        for row in order {
            let left = &mut left[codes[row] as usize];
            if *left > 0 {
                *left -= 1;
                testing[row] = true;
            }
        }
        let (test, train): (Vec<usize>, Vec<usize>) = (0..n).partition(|row| testing[*row]);
        if train.len() < 2 {
            return Err(Error::BadInput(format!(
                "{n} rows leave {} to choose from; at least 2 are needed",
                train.len()
            )));
        }
        if test.is_empty() {
            return Ok((self, None));
        }
        let part = |rows: &[usize]| Data {
            x: self.x.select(Axis(0), rows),
            target: self.target.select(rows),
        };
        Ok((part(&train), Some(part(&test))))
    }
}

/// Means and deviations by which columns are scaled.
pub(super) struct Scaling {
    mean: Array1<f64>,
    deviation: Array1<f64>,
}

impl Scaling {
    /// Of the columns of rows; a constant column keeps its unit.
    pub fn of(x: &Array2<f64>) -> Scaling {
        let mean = Array1::from(papertrial_numerics::linalg::column_means(x.view()));
        let n = x.nrows() as f64;
        let mut squares = Array1::<f64>::zeros(x.ncols());
        for row in x.outer_iter() {
            squares.zip_mut_with(&(&row - &mean), |sum, v| *sum += v * v);
        }
        let deviation = squares.mapv(|s| {
            let deviation = (s / n).sqrt();
            if deviation > 0.0 { deviation } else { 1.0 }
        });
        Scaling { mean, deviation }
    }

    /// Scales rows.
    pub fn apply(&self, x: &mut Array2<f64>) {
        for mut row in x.outer_iter_mut() {
            row -= &self.mean;
            row /= &self.deviation;
        }
    }
}

/// The problem of rows. `spread` is the standard deviation of the training rows' numbers, the unit of Huber's delta.
/// Without `penalised` the rows' losses leave the penalty out, to score rows that were not fitted to.
pub(super) fn problem(
    data: Data,
    asked: &TaskOptions,
    spread: f64,
    penalised: bool,
    seed: u64,
) -> Result<Box<dyn Problem>> {
    let Data { x, target } = data;
    let linear = |problem: Linear| -> Box<dyn Problem> {
        if penalised {
            Box::new(problem)
        } else {
            Box::new(problem.unpenalised())
        }
    };
    let loss = match asked.problem {
        ProblemKind::LogisticRegression => LinearLoss::Logistic,
        ProblemKind::LinearSvm => LinearLoss::Hinge,
        ProblemKind::Huber => LinearLoss::Huber {
            delta: asked.huber_delta * spread,
        },
        ProblemKind::Quantile => LinearLoss::Quantile { level: asked.level },
        _ => LinearLoss::Squared,
    };
    Ok(match (asked.problem, target) {
        (ProblemKind::Softmax, Target::Classes(codes, k)) => {
            let softmax = Softmax::new(x, codes, k, asked.c)?;
            if penalised {
                Box::new(softmax)
            } else {
                Box::new(softmax.unpenalised())
            }
        }
        (_, Target::Classes(codes, _)) => linear(Linear::of_classes(x, codes, loss, asked.c)?),
        (_, Target::Numbers(y)) => linear(Linear::of_numbers(x, y, loss)?),
        (ProblemKind::Pca, Target::Nothing) => Box::new(Subspace::new(x, asked.axes)?),
        (kind, Target::Nothing) => {
            let loss = if kind == ProblemKind::KMedians {
                CentreLoss::Distance
            } else {
                CentreLoss::Squared
            };
            Box::new(Centres::new(x, asked.k, loss, asked.k_means_starts, seed)?)
        }
    })
}

/// Standard deviation of the numbers of a target, 1 where there are none or they are all the same.
pub(super) fn spread(target: &Target) -> f64 {
    let Target::Numbers(y) = target else {
        return 1.0;
    };
    let n = y.len() as f64;
    let mean = y.iter().sum::<f64>() / n;
    let deviation = (y.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    if deviation > 0.0 { deviation } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn data(n: usize, rare: usize) -> Data {
        Data {
            x: Array2::from_shape_fn((n, 1), |(i, _)| i as f64),
            target: Target::Classes((0..n).map(|i| u32::from(i < rare)).collect(), 2),
        }
    }

    #[test]
    fn each_class_gives_its_share_to_the_test() {
        let (train, test) = data(100, 10).split(0.3, 1).unwrap();
        let test = test.unwrap();
        let count = |d: &Data| match &d.target {
            Target::Classes(codes, _) => codes.iter().sum::<u32>(),
            _ => 0,
        };
        assert_eq!((train.x.nrows(), test.x.nrows()), (70, 30));
        assert_eq!((count(&train), count(&test)), (7, 3));
        // Together all rows, each with its own label.
        let mut all: Vec<f64> = train.x.iter().chain(test.x.iter()).copied().collect();
        all.sort_by(f64::total_cmp);
        assert_eq!(all, (0..100).map(f64::from).collect::<Vec<_>>());
        if let Target::Classes(codes, _) = &test.target {
            assert!(
                codes
                    .iter()
                    .zip(&test.x)
                    .all(|(c, x)| (*c == 1) == (*x < 10.0))
            );
        }
        let (again, _) = data(100, 10).split(0.3, 1).unwrap();
        assert_eq!(again.x, train.x);
        let (other, _) = data(100, 10).split(0.3, 2).unwrap();
        assert_ne!(other.x, train.x);
    }

    #[test]
    fn a_class_of_one_stays_in_training() {
        let (train, test) = data(10, 1).split(0.9, 0).unwrap();
        assert!(train.x.iter().any(|x| *x == 0.0));
        assert!(test.unwrap().x.iter().all(|x| *x > 0.0));
        assert!(data(10, 5).split(0.0, 0).unwrap().1.is_none());
    }

    #[test]
    fn scaling_by_hand_leaves_constant_columns_at_zero() {
        let mut x = array![[1.0, 5.0], [3.0, 5.0]];
        Scaling::of(&x).apply(&mut x);
        assert_eq!(x, array![[-1.0, 0.0], [1.0, 0.0]]);
    }
}
