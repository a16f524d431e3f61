//! Options of the task: the service's scaling, the calibration, and what a trial is made of.

use super::picture::Alpha;
use super::scaler::{Convention, Kernel, Scaler};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where thresholds come from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Calibration {
    /// Clean pictures and attacks.
    WhiteBox,
    /// Clean pictures alone.
    BlackBox,
}

/// Options of the task: the service's scaling, the calibration, and what a trial is made of.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskOptions {
    /// Width x height that the model takes, such as 224x224; if absent, 224x224 in a run, and in a trial the ratio of
    /// each picture is drawn.
    pub target_size: Option<String>,
    /// Kernel of the service's scaling.
    pub scaler: Kernel,
    /// Whose way of scaling it is.
    pub convention: Convention,
    /// Where thresholds come from: clean pictures and attacks (of the input attack, or made of the clean ones), or clean
    /// pictures alone.
    pub calibration: Calibration,
    /// Black box: per cent of clean pictures that each test may reject; 1, 2 or 3 in the paper.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 50.0))]
    pub percentile: f64,
    /// What is done with transparency.
    pub alpha: Alpha,
    /// Output only: write what the model sees of each picture into a folder beside the report.
    pub views: bool,
    /// Trials without a target size: least ratio of a picture's sides to what the model sees.
    #[schemars(range(min = 1.0, max = 100.0))]
    pub ratio_min: f64,
    /// Trials without a target size: greatest ratio.
    #[schemars(range(min = 1.0, max = 100.0))]
    pub ratio_max: f64,
    /// Trials only: share of the pictures from which thresholds come; the others are judged.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub train_fraction: f64,
    /// Trials only: data set, list or folder from which thresholds come, or same for the pictures themselves.
    pub calibrate_on: String,
    /// Trials only: scale pictures to this width first.
    #[schemars(range(min = 1))]
    pub width: Option<usize>,
    /// Trials only: scale pictures to this height first.
    #[schemars(range(min = 1))]
    pub height: Option<usize>,
}

impl Default for TaskOptions {
    fn default() -> Self {
        TaskOptions {
            target_size: None,
            scaler: Kernel::Bilinear,
            convention: Convention::Opencv,
            calibration: Calibration::WhiteBox,
            percentile: 1.0,
            alpha: Alpha::Composite,
            views: false,
            ratio_min: 4.0,
            ratio_max: 8.0,
            train_fraction: 0.5,
            calibrate_on: "same".into(),
            width: None,
            height: None,
        }
    }
}

impl TaskOptions {
    /// The service's scaling.
    pub fn scaler(&self) -> Scaler {
        Scaler {
            kernel: self.scaler,
            convention: self.convention,
        }
    }

    /// Height and width of the target size, if there is one.
    ///
    /// # Errors
    /// A size that is not width x height.
    pub fn target(&self) -> Result<Option<(usize, usize)>> {
        let Some(text) = &self.target_size else {
            return Ok(None);
        };
        let sides = text.split_once(['x', 'X']).map(|(w, h)| {
            let side = |s: &str| {
                s.trim()
                    .parse::<usize>()
                    .ok()
                    .filter(|n| (1..=65_535).contains(n))
            };
            (side(w), side(h))
        });
        match sides {
            Some((Some(width), Some(height))) => Ok(Some((height, width))),
            _ => Err(Error::option(
                "target-size",
                format!("'{text}' should be width x height in pixels, such as 224x224"),
            )),
        }
    }
}
