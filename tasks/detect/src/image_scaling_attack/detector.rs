//! A method with its thresholds, ready to judge, and the file that keeps them.

use super::picture::Picture;
use super::score::{Part, Side, View};
use super::threshold::{Known, thresholds, vote};
use super::{Plan, ScalingMethod};
use papertrial_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Judges pictures of a service with one way of scaling.
#[derive(Debug, Clone)]
pub struct Detector {
    parts: Vec<Part>,
    view: View,
    thresholds: Option<Vec<f64>>,
}

impl Detector {
    /// A method that is not calibrated yet.
    ///
    /// # Errors
    /// Options that do not go together, or a method that does not judge.
    pub fn new(method: &dyn ScalingMethod, view: View) -> Result<Detector> {
        match method.plan()? {
            Plan::Detect(parts) => Ok(Detector::of(parts, view)),
            Plan::Forge => Err(Error::BadInput(
                "forge makes attacks, it judges none".into(),
            )),
        }
    }

    pub(super) fn of(parts: Vec<Part>, view: View) -> Detector {
        let fixed = parts.iter().map(|p| match p.rule {
            super::Rule::Fixed(threshold) => Some(threshold),
            _ => None,
        });
        let thresholds = fixed.collect();
        Detector {
            parts,
            view,
            thresholds,
        }
    }

    /// Its tests.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The scaling that it is for.
    pub fn view(&self) -> View {
        self.view
    }

    /// The threshold of each test, once they are known.
    pub fn thresholds(&self) -> Option<&[f64]> {
        self.thresholds.as_deref()
    }

    /// The score of each test.
    ///
    /// # Errors
    /// A picture too small for a test.
    pub fn scores(&self, picture: &Picture) -> Result<Vec<f64>> {
        (self.parts.iter())
            .map(|p| p.test.score(picture, &self.view))
            .collect()
    }

    /// Sets the thresholds.
    ///
    /// # Errors
    /// Too few pictures, or scores that allow no threshold.
    pub fn calibrate(&mut self, known: &Known) -> Result<()> {
        self.thresholds = Some(thresholds(&self.parts, known)?);
        Ok(())
    }

    /// The verdict of each test and of the vote, from their scores; `true` is an attack.
    ///
    /// # Errors
    /// Thresholds are not known yet.
    pub fn judge(&self, scores: &[f64]) -> Result<(Vec<bool>, bool)> {
        let thresholds = self.thresholds.as_deref().ok_or_else(|| {
            Error::BadInput("the thresholds are not known; calibrate first".into())
        })?;
        Ok(vote(&self.parts, thresholds, scores))
    }

    /// Whether the picture is an attack; one that does not shrink cannot be.
    ///
    /// # Errors
    /// Thresholds are not known yet, or a picture too small for a test.
    pub fn verdict(&self, picture: &Picture) -> Result<bool> {
        Ok(self.view.applies(picture) && self.judge(&self.scores(picture)?)?.1)
    }

    /// The thresholds as a file, with what they hold for; `told` says where they come from.
    ///
    /// # Errors
    /// Thresholds are not known yet.
    pub fn to_json(&self, told: &str) -> Result<String> {
        let thresholds = self.thresholds.as_deref().ok_or_else(|| {
            Error::BadInput("the thresholds are not known; calibrate first".into())
        })?;
        let tests = (self.parts.iter().zip(thresholds))
            .map(|(part, threshold)| {
                Ok(Kept {
                    name: part.name.into(),
                    test: serde_json::to_value(part.test)
                        .map_err(|e| Error::Failed(e.to_string()))?,
                    attack: part.test.side(),
                    threshold: *threshold,
                })
            })
            .collect::<Result<_>>()?;
        let file = ThresholdFile {
            format: FORMAT.into(),
            view: self.view,
            scaling: self.view.scaler.describe(),
            calibration: told.into(),
            tests,
        };
        serde_json::to_string_pretty(&file).map_err(|e| Error::Failed(e.to_string()))
    }

    /// Takes the thresholds of a file; where they came from is returned.
    ///
    /// # Errors
    /// No such file, or one for another scaling or other tests; in words without the file's name.
    pub fn take_json(&mut self, text: &str) -> std::result::Result<String, String> {
        let file: ThresholdFile = serde_json::from_str(text)
            .map_err(|e| format!("is no file of thresholds that a run has written: {e}"))?;
        if file.format != FORMAT {
            return Err(format!("has the format '{}', not '{FORMAT}'", file.format));
        }
        if file.view != self.view {
            let shown = |view: View| {
                format!(
                    "{}x{} by {}",
                    view.target.1,
                    view.target.0,
                    view.scaler.describe()
                )
            };
            return Err(format!(
                "holds for {}, but this run scales to {}; thresholds of one scaling say nothing of another",
                shown(file.view),
                shown(self.view)
            ));
        }
        let fits = file.tests.len() == self.parts.len()
            && (file.tests.iter().zip(&self.parts)).all(|(kept, part)| {
                kept.name == part.name
                    && serde_json::to_value(part.test).is_ok_and(|test| test == kept.test)
                    && kept.threshold.is_finite()
            });
        if !fits {
            let names: Vec<&str> = file.tests.iter().map(|t| t.name.as_str()).collect();
            return Err(format!(
                "has thresholds of other tests or options ({}); give the method and options that it was made with",
                names.join(", ")
            ));
        }
        self.thresholds = Some(file.tests.iter().map(|t| t.threshold).collect());
        Ok(file.calibration)
    }
}

const FORMAT: &str = "papertrial image-scaling-attack thresholds 1";

/// A file of thresholds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ThresholdFile {
    format: String,
    view: View,
    scaling: String,
    calibration: String,
    tests: Vec<Kept>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    name: String,
    test: serde_json::Value,
    attack: Side,
    threshold: f64,
}

#[cfg(test)]
mod tests {
    use super::super::{Convention, Decamouflage, FilteringTest, Kernel, Scaler, SteganalysisTest};
    use super::*;

    fn view(side: usize) -> View {
        View {
            target: (side, side),
            scaler: Scaler {
                kernel: Kernel::Bilinear,
                convention: Convention::Opencv,
            },
        }
    }

    #[test]
    fn thresholds_are_kept_for_their_own_tests_and_scaling() {
        let method = Decamouflage::default();
        let mut detector = Detector::new(&method, view(32)).unwrap();
        assert!(detector.judge(&[1.0, 1.0, 1.0]).is_err());
        assert!(detector.to_json("").is_err());
        let clean: Vec<Vec<f64>> = (0..20).map(|i| vec![f64::from(i), 5.0, 1.0]).collect();
        let known = Known {
            clean: &clean,
            attack: &[],
            percentile: 1.0,
            seed: 0,
        };
        detector.calibrate(&known).unwrap();
        let kept = detector.to_json("20 clean pictures").unwrap();
        let mut other = Detector::new(&method, view(32)).unwrap();
        assert_eq!(other.take_json(&kept).unwrap(), "20 clean pictures");
        assert_eq!(other.thresholds(), detector.thresholds());
        assert_eq!(
            other.judge(&[19.0, 4.0, 2.0]).unwrap(),
            (vec![true, false, true], true)
        );

        let told = Detector::new(&method, view(64)).unwrap().take_json(&kept);
        assert!(told.unwrap_err().contains("holds for 32x32"));
        let alone = FilteringTest::default();
        let told = Detector::new(&alone, view(32)).unwrap().take_json(&kept);
        assert!(told.unwrap_err().contains("other tests"));
        let wide = Decamouflage {
            window: 3,
            ..Decamouflage::default()
        };
        let told = Detector::new(&wide, view(32)).unwrap().take_json(&kept);
        assert!(told.unwrap_err().contains("other tests"));
        assert!(other.take_json("{}").is_err());
    }

    #[test]
    fn a_fixed_threshold_needs_no_calibration() {
        let detector = Detector::new(&SteganalysisTest::default(), view(32)).unwrap();
        assert_eq!(detector.judge(&[2.0]).unwrap(), (vec![true], true));
        assert_eq!(detector.judge(&[1.0]).unwrap(), (vec![false], false));
    }
}
