//! The method of the paper: three tests without training and their vote.
//!
//! Kim, Abuadbba, Gao, Zheng, Ahmed, Kim and Nepal, *Decamouflage: a framework to detect image-scaling attacks on
//! convolutional neural networks*, arXiv 2010.03735, 2020.
//!
//! For a picture I (H x W) and the scaling S to the model's h x w:
//! 1. Rescaling: I against U = S'(S(I)), shrunk and enlarged again with the same kernel. A photograph comes back; an
//!    attack comes back as what it hides.
//! 2. Filtering: I against its minimum filter. Planted pixels stick out of their surroundings.
//! 3. Steganalysis: the number of points in the centred spectrum ([`super::spectrum_points`]). A grid of planted pixels
//!    repeats the spectrum; two points are an attack, whatever the pictures.
//! 4. The verdict of most of the three.
//!
//! Tests 1 and 2 compare by squared error by pixel (an attack's is high) or structural similarity (low), with thresholds
//! from known pictures: the most accurate one between clean pictures and attacks (white box), or the one that a small
//! percentage of clean pictures fails (black box). The paper's text has the minimum filter with a window of 2 x 2, its
//! published script one of 3 x 3; its script lets pictures go through JPEG files in between, which shifts the scores and
//! is not done here. As a check, thresholds near 1715 (squared error) and 0.61 (similarity) for rescaling and 5683 and
//! 0.38 for filtering are remembered from the paper's collections with 224 x 224 pixels.
//!
//! Cost: O(H W) for 1 and 2, O(H W log(H W)) for 3.

use super::filters::Filter;
use super::score::{Measure, Part, Rule, Test};
use super::{Plan, ScalingMethod};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Slug of the paper.
const PAPER: Option<&str> = Some("decamouflage");

/// The vote of the three tests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Decamouflage {
    /// How the rescaling test compares.
    pub rescaling_score: Measure,
    /// How the filtering test compares.
    pub filtering_score: Measure,
    /// Filter of the filtering test.
    pub filter: Filter,
    /// Side of the filter's window: 2 or 3.
    #[schemars(range(min = 2, max = 3))]
    pub window: usize,
    /// Level of the spectrum, of 255, above which it is bright; the published script tries 240 and 250.
    #[schemars(range(min = 0, max = 254))]
    pub level: u8,
    /// Points of the spectrum that make an attack.
    #[schemars(range(min = 1))]
    pub threshold: usize,
}

impl Default for Decamouflage {
    fn default() -> Self {
        Decamouflage {
            rescaling_score: Measure::Mse,
            filtering_score: Measure::Mse,
            filter: Filter::Minimum,
            window: 2,
            level: 240,
            threshold: 2,
        }
    }
}

impl Method for Decamouflage {
    const FACTS: Facts = Facts {
        name: "decamouflage",
        about: "the vote of rescaling, filtering and steganalysis test",
        paper: PAPER,
        streams: true,
    };
}

impl ScalingMethod for Decamouflage {
    fn plan(&self) -> Result<Plan> {
        let rescaling = RescalingTest {
            score: self.rescaling_score,
        };
        let filtering = FilteringTest {
            score: self.filtering_score,
            filter: self.filter,
            window: self.window,
        };
        let steganalysis = SteganalysisTest {
            level: self.level,
            threshold: self.threshold,
        };
        Ok(Plan::Detect(vec![
            rescaling.part(),
            filtering.part()?,
            steganalysis.part(),
        ]))
    }
}

/// The first test alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RescalingTest {
    /// How the picture is compared with itself shrunk and enlarged again.
    pub score: Measure,
}

impl Default for RescalingTest {
    fn default() -> Self {
        RescalingTest {
            score: Measure::Mse,
        }
    }
}

impl Method for RescalingTest {
    const FACTS: Facts = Facts {
        name: "rescaling-test",
        about: "compares a picture with itself shrunk and enlarged again",
        paper: PAPER,
        streams: true,
    };
}

impl RescalingTest {
    fn part(&self) -> Part {
        Part {
            name: "rescaling",
            test: Test::Rescaling(self.score),
            rule: Rule::Calibrated,
        }
    }
}

impl ScalingMethod for RescalingTest {
    fn plan(&self) -> Result<Plan> {
        Ok(Plan::Detect(vec![self.part()]))
    }
}

/// The second test alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct FilteringTest {
    /// How the picture is compared with its filtered self.
    pub score: Measure,
    /// The filter.
    pub filter: Filter,
    /// Side of the filter's window: 2 or 3.
    #[schemars(range(min = 2, max = 3))]
    pub window: usize,
}

impl Default for FilteringTest {
    fn default() -> Self {
        FilteringTest {
            score: Measure::Mse,
            filter: Filter::Minimum,
            window: 2,
        }
    }
}

impl Method for FilteringTest {
    const FACTS: Facts = Facts {
        name: "filtering-test",
        about: "compares a picture with its minimum filter",
        paper: PAPER,
        streams: true,
    };
}

impl FilteringTest {
    fn part(&self) -> Result<Part> {
        if !matches!(self.window, 2 | 3) {
            return Err(Error::option(
                "window",
                format!("{} is not 2 or 3", self.window),
            ));
        }
        Ok(Part {
            name: "filtering",
            test: Test::Filtering {
                score: self.score,
                filter: self.filter,
                window: self.window,
            },
            rule: Rule::Calibrated,
        })
    }
}

impl ScalingMethod for FilteringTest {
    fn plan(&self) -> Result<Plan> {
        Ok(Plan::Detect(vec![self.part()?]))
    }
}

/// The third test alone, which needs no known pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct SteganalysisTest {
    /// Level of the spectrum, of 255, above which it is bright; the published script tries 240 and 250.
    #[schemars(range(min = 0, max = 254))]
    pub level: u8,
    /// Points of the spectrum that make an attack.
    #[schemars(range(min = 1))]
    pub threshold: usize,
}

impl Default for SteganalysisTest {
    fn default() -> Self {
        SteganalysisTest {
            level: 240,
            threshold: 2,
        }
    }
}

impl Method for SteganalysisTest {
    const FACTS: Facts = Facts {
        name: "steganalysis-test",
        about: "counts the points of a picture's spectrum, without known pictures",
        paper: PAPER,
        streams: true,
    };
}

impl SteganalysisTest {
    fn part(&self) -> Part {
        Part {
            name: "spectrum",
            test: Test::Spectrum { level: self.level },
            rule: Rule::Fixed(self.threshold as f64),
        }
    }
}

impl ScalingMethod for SteganalysisTest {
    fn plan(&self) -> Result<Plan> {
        Ok(Plan::Detect(vec![self.part()]))
    }
}
