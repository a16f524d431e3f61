//! What a fitted method leaves behind to label new rows.

use super::Scaling;
use crate::gaussian;
use ndarray::{Array1, Array2, Array3};
use papertrial_core::data::{Features, Roles, Table};
use papertrial_core::task::{Input, Job};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::nearest;
use serde::{Deserialize, Serialize};

/// Rule that gives a new row its group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// The group of the nearest centre; centres \[k, d\].
    Centres(Vec<Vec<f64>>),
    /// The most probable component of a Gaussian mixture.
    Gaussians {
        /// Share of each component \[k\].
        weights: Vec<f64>,
        /// Mean of each component \[k, d\].
        means: Vec<Vec<f64>>,
        /// Covariance of each component \[k, d, d\].
        covariances: Vec<Vec<Vec<f64>>>,
    },
}

/// Group of each row and, where the model tells, how much it belongs to each group.
pub type Labelled = (Vec<i32>, Option<Array2<f64>>);

impl Model {
    /// From centres \[k, d\].
    pub fn centres(centres: &Array2<f64>) -> Model {
        Model::Centres(centres.outer_iter().map(|r| r.to_vec()).collect())
    }

    /// From weights \[k\], means \[k, d\] and covariances \[k, d, d\].
    pub fn gaussians(
        weights: &Array1<f64>,
        means: &Array2<f64>,
        covariances: &Array3<f64>,
    ) -> Model {
        Model::Gaussians {
            weights: weights.to_vec(),
            means: means.outer_iter().map(|r| r.to_vec()).collect(),
            covariances: covariances
                .outer_iter()
                .map(|m| m.outer_iter().map(|r| r.to_vec()).collect())
                .collect(),
        }
    }

    /// Labels rows \[n, d\], scaled as the rows were from which the model was fitted.
    ///
    /// # Errors
    /// A model whose parts do not fit together, or a covariance that cannot be inverted.
    pub fn label(&self, rows: &Array2<f64>) -> Result<Labelled> {
        match self {
            Model::Centres(centres) => {
                let centres = matrix(centres)?;
                let near = nearest(rows.view(), centres.view())
                    .map_err(|e| Error::BadInput(e.to_string()))?;
                let labels = near.indices.iter().map(|i| *i as i32).collect();
                Ok((labels, None))
            }
            Model::Gaussians {
                weights,
                means,
                covariances,
            } => {
                let means = matrix(means)?;
                let (k, d) = means.dim();
                let flat: Vec<f64> = covariances.iter().flatten().flatten().copied().collect();
                let covariances = Array3::from_shape_vec((k, d, d), flat).map_err(|_| misfit())?;
                let posterior = gaussian::posteriors(
                    rows.view(),
                    &Array1::from(weights.clone()),
                    &means,
                    &covariances,
                )?;
                let labels = posterior
                    .outer_iter()
                    .map(|r| gaussian::argmax(r) as i32)
                    .collect();
                Ok((labels, Some(posterior)))
            }
        }
    }
}

fn matrix(rows: &[Vec<f64>]) -> Result<Array2<f64>> {
    let width = rows.first().map_or(0, Vec::len);
    let flat: Vec<f64> = rows.iter().flatten().copied().collect();
    Array2::from_shape_vec((rows.len(), width), flat).map_err(|_| misfit())
}

fn misfit() -> Error {
    Error::BadInput("the model's parts do not fit together; was its file edited?".into())
}

/// A model with all that is needed to use it on a file: the columns and how they were scaled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labeller {
    /// Method that fitted it.
    pub method: String,
    /// Feature columns, in order.
    pub columns: Vec<String>,
    /// How they were scaled.
    pub scaling: Option<Scaling>,
    /// The rule.
    pub model: Model,
}

impl Labeller {
    /// As the content of a file.
    ///
    /// # Errors
    /// Never for numbers that are finite.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|e| Error::Failed(e.to_string()))
    }

    /// Reads the job's input `name`.
    ///
    /// # Errors
    /// The file is missing or not a model.
    pub fn read(job: &Job, name: &str) -> Result<Labeller> {
        let Some(Input::File { path, .. }) = job.inputs.get(name) else {
            return Err(Error::option("--model", "must name a file"));
        };
        let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
        let labeller: Labeller = serde_json::from_str(&text).map_err(|e| {
            Error::file(
                path,
                format!("is not a model that 'papertrial run' wrote: {e}"),
            )
        })?;
        if labeller.method == job.method {
            Ok(labeller)
        } else {
            Err(Error::file(
                path,
                format!("is a model of {}, not of {}", labeller.method, job.method),
            ))
        }
    }

    /// Labels the rows of `table`, chunk by chunk.
    ///
    /// # Errors
    /// Its feature columns are not those of the model, or a cell is no finite number.
    pub fn label(&self, table: &Table, roles: &Roles) -> Result<Labelled> {
        let features = Features::of(table, roles)?;
        if features.names() != self.columns {
            return Err(Error::file(
                table.name(),
                format!(
                    "has the feature columns {}; the model was fitted on {} (--features chooses them)",
                    features.names().join(", "),
                    self.columns.join(", ")
                ),
            ));
        }
        let mut labels = Vec::new();
        let mut parts = Vec::new();
        for chunk in features.chunks()? {
            let mut chunk = chunk?;
            if let Some(scaling) = &self.scaling {
                scaling.apply(&mut chunk);
            }
            let (found, memberships) = self.model.label(&chunk)?;
            labels.extend(found);
            parts.extend(memberships);
        }
        let views: Vec<_> = parts.iter().map(|p| p.view()).collect();
        let memberships = if views.is_empty() {
            None
        } else {
            Some(
                ndarray::concatenate(ndarray::Axis(0), &views)
                    .map_err(|e| Error::Failed(e.to_string()))?,
            )
        };
        Ok((labels, memberships))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn centres_label_by_the_nearest_and_survive_json() {
        let labeller = Labeller {
            method: "k-means".into(),
            columns: vec!["x".into()],
            scaling: None,
            model: Model::centres(&array![[0.0], [10.0]]),
        };
        let back: Labeller = serde_json::from_str(&labeller.to_json().unwrap()).unwrap();
        assert_eq!(back, labeller);
        let (labels, none) = back.model.label(&array![[1.0], [9.0], [5.0]]).unwrap();
        // A row in the middle goes to the lower index.
        assert_eq!(labels, [0, 1, 0]);
        assert!(none.is_none());
    }

    #[test]
    fn gaussians_label_by_posterior() {
        let model = Model::gaussians(
            &array![0.5, 0.5],
            &array![[0.0], [0.0]],
            &array![[[1.0]], [[100.0]]],
        );
        let (labels, memberships) = model.label(&array![[0.0], [9.0]]).unwrap();
        assert_eq!(labels, [0, 1]);
        // At 0 the densities are as 10 to 1.
        let at_zero = memberships.unwrap()[[0, 0]];
        assert!((at_zero - 10.0 / 11.0).abs() < 1e-12);
    }

    #[test]
    fn a_model_that_was_damaged_is_refused() {
        assert!(
            Model::Centres(vec![vec![1.0], vec![1.0, 2.0]])
                .label(&array![[0.0]])
                .is_err()
        );
    }
}
