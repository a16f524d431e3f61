//! Other ways to detect, and the attack itself as something to use.

use super::score::{Measure, Part, Rule, Test};
use super::{Plan, ScalingMethod};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Colours before and after shrinking: what the finders of the attack suggest as a defence (Xiao et al., USENIX Security
/// 2019). A low correlation is an attack's; the threshold comes from known pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ColourHistogram {
    /// Bins of a channel.
    #[schemars(range(min = 2, max = 256))]
    pub bins: usize,
}

impl Default for ColourHistogram {
    fn default() -> Self {
        ColourHistogram { bins: 256 }
    }
}

impl Method for ColourHistogram {
    const FACTS: Facts = Facts {
        name: "colour-histogram",
        about: "correlates the colour histograms of a picture before and after shrinking",
        paper: None,
        streams: true,
    };
}

impl ScalingMethod for ColourHistogram {
    fn plan(&self) -> Result<Plan> {
        if !(2..=256).contains(&self.bins) {
            return Err(Error::option("bins", "should be from 2 to 256"));
        }
        Ok(Plan::Detect(vec![Part {
            name: "histogram",
            test: Test::Histogram { bins: self.bins },
            rule: Rule::Calibrated,
        }]))
    }
}

/// What the model sees against what it would see of the restored picture (Quiring et al., USENIX Security 2020): the
/// selective median filter, meant to undo attacks, used to find them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct MedianRestoration {
    /// How the two are compared.
    pub score: Measure,
    /// Side of the window whose median replaces a pixel, in ratios of shrinking.
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 4.0))]
    pub window: f64,
}

impl Default for MedianRestoration {
    fn default() -> Self {
        MedianRestoration {
            score: Measure::Mse,
            window: 2.0,
        }
    }
}

impl Method for MedianRestoration {
    const FACTS: Facts = Facts {
        name: "median-restoration",
        about: "compares what the model sees with what it sees once the pixels that count are replaced by medians",
        paper: None,
        streams: true,
    };
}

impl ScalingMethod for MedianRestoration {
    fn plan(&self) -> Result<Plan> {
        Ok(Plan::Detect(vec![Part {
            name: "restoration",
            test: Test::Restoration {
                score: self.score,
                window: self.window,
            },
            rule: Rule::Calibrated,
        }]))
    }
}

/// The rescaling test with a threshold drawn at random among the scores of the known pictures: the floor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RandomThreshold {}

impl Method for RandomThreshold {
    const FACTS: Facts = Facts {
        name: "random-threshold",
        about: "the rescaling test with a random score of known pictures as its threshold",
        paper: None,
        streams: true,
    };
}

impl ScalingMethod for RandomThreshold {
    fn plan(&self) -> Result<Plan> {
        Ok(Plan::Detect(vec![Part {
            name: "rescaling",
            test: Test::Rescaling(Measure::Mse),
            rule: Rule::Random,
        }]))
    }
}

/// The attack ([`super::forge`]), for testing one's own service: makes pictures instead of judging them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ForgeAttack {}

impl Method for ForgeAttack {
    const FACTS: Facts = Facts {
        name: "forge",
        about: "makes attacks, pictures that are scaled to another one, to test a service with",
        paper: None,
        streams: true,
    };
}

impl ScalingMethod for ForgeAttack {
    fn plan(&self) -> Result<Plan> {
        Ok(Plan::Forge)
    }
}
