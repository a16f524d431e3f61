//! `gradient-boosting`: trees over one flow, each grown on what those before it got wrong.
//!
//! Friedman, *Greedy function approximation: a gradient boosting machine* (2001), as the crate forust-ml computes it:
//! second-order steps of the logistic loss, 255 bins for each column. A categorical column is one column of codes in
//! the order of their frequency.

use super::super::detector::{Detector, Fitted};
use super::super::prepare::{Flows, Layout};
use forust_ml::Matrix;
use forust_ml::gradientbooster::GradientBooster;
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Options.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct GradientBoosting {
    /// Trees.
    #[schemars(range(min = 1, max = 100_000))]
    pub trees: usize,
    /// Share of a tree's answer that is added.
    #[schemars(range(min = 1e-4, max = 1.0))]
    pub learning_rate: f64,
    /// Most splits in a row.
    #[schemars(range(min = 1, max = 30))]
    pub depth: usize,
    /// Pull of the leaves to 0.
    #[schemars(range(min = 0.0))]
    pub pull: f64,
}

impl Default for GradientBoosting {
    fn default() -> Self {
        GradientBoosting {
            trees: 200,
            learning_rate: 0.1,
            depth: 6,
            pull: 1.0,
        }
    }
}

impl Method for GradientBoosting {
    const FACTS: Facts = Facts {
        name: "gradient-boosting",
        about: "trees over one flow, each on what those before it got wrong",
        paper: None,
        streams: true,
    };
}

/// Rows in memory for the trees at once while scoring.
const TOGETHER: usize = 1 << 16;

impl Detector for GradientBoosting {
    fn fit(
        &self,
        flows: &Flows,
        train: &[usize],
        _: usize,
        context: &Context,
    ) -> Result<Box<dyn Fitted>> {
        let (attacks, benign) = super::classes(flows, train)?;
        let labels = flows.labels()?;
        let of_class = super::weights(attacks.len(), benign.len());
        let width = flows.layout.numeric.len() + flows.layout.categorical.len();
        // The numbers in double precision, their bins, and gradients.
        context.require(
            "the columns for the trees",
            (train.len() * (10 * width + 64)) as u64,
        )?;
        let columns = columns(flows, train);
        let y: Vec<f64> = train
            .iter()
            .map(|r| f64::from(u8::from(labels[*r])))
            .collect();
        let weights: Vec<f64> = train
            .iter()
            .map(|r| of_class[usize::from(labels[*r])])
            .collect();
        let mut booster = GradientBooster::default()
            .set_iterations(self.trees)
            .set_learning_rate(self.learning_rate as f32)
            .set_max_depth(self.depth)
            .set_l2(self.pull as f32)
            // Bins of 256 levels count the one for missing numbers, of which there are none.
            .set_nbins(255)
            .set_seed(context.seed);
        booster
            .fit(
                &Matrix::new(&columns, train.len(), width),
                &y,
                &weights,
                None,
            )
            .map_err(|e| Error::Failed(format!("gradient boosting: {e}")))?;
        Ok(Box::new(Model {
            layout: (*flows.layout).clone(),
            booster,
        }))
    }
}

/// Numbers and codes of `rows`, column by column.
fn columns(flows: &Flows, rows: &[usize]) -> Vec<f64> {
    let (numeric, categorical) = (flows.layout.numeric.len(), flows.layout.categorical.len());
    let mut all = Vec::with_capacity(rows.len() * (numeric + categorical));
    for column in 0..numeric {
        all.extend(rows.iter().map(|r| f64::from(flows.numbers_of(*r)[column])));
    }
    for column in 0..categorical {
        all.extend(rows.iter().map(|r| f64::from(flows.codes_of(*r)[column])));
    }
    all
}

/// The trees.
#[derive(Serialize, Deserialize)]
pub(super) struct Model {
    layout: Layout,
    booster: GradientBooster,
}

/// The model that [`Fitted::save`] wrote into `folder`.
///
/// # Errors
/// Its file is missing or broken.
pub(super) fn load(folder: &Path) -> Result<Model> {
    super::read(folder)
}

impl Fitted for Model {
    fn window(&self) -> usize {
        1
    }

    fn parameters(&self) -> usize {
        self.booster.trees.iter().map(|tree| tree.nodes.len()).sum()
    }

    fn score(&self, flows: &Flows, rows: &[usize], _: &Context) -> Result<Vec<f32>> {
        super::check(flows, &self.layout, rows, 1)?;
        let width = self.layout.numeric.len() + self.layout.categorical.len();
        let mut scores = Vec::with_capacity(rows.len());
        for rows in rows.chunks(TOGETHER) {
            let columns = columns(flows, rows);
            let data = Matrix::new(&columns, rows.len(), width);
            let logits = self.booster.predict(&data, rows.len() > 1000);
            scores.extend(
                logits
                    .into_iter()
                    .map(|z| (1.0 / (1.0 + (-z).exp())) as f32),
            );
        }
        Ok(scores)
    }

    fn save(&self, folder: &Path) -> Result<bool> {
        super::write(self, folder)
    }
}
