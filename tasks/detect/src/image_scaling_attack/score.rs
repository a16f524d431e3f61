//! What a test looks at, and the numbers it yields.

use super::compare::{histogram_correlation, mse_per_pixel, ssim};
use super::filters::{Filter, filtered};
use super::picture::Picture;
use super::restoration;
use super::scaler::Scaler;
use super::spectrum::spectrum_points;
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// How a service sees pictures: scaled to `target`, height and width, by `scaler`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Height and width that the model takes.
    pub target: (usize, usize),
    /// How pictures are brought to it.
    pub scaler: Scaler,
}

impl View {
    /// The picture that the model sees.
    ///
    /// # Errors
    /// A kernel that the convention does not have.
    pub fn seen(&self, picture: &Picture) -> Result<Picture> {
        let from = (picture.height(), picture.width());
        Ok(self.scaler.between(from, self.target)?.apply(picture))
    }

    /// Whether the picture shrinks in some direction, so that something can be hidden in it at all.
    pub fn applies(&self, picture: &Picture) -> bool {
        picture.height() > self.target.0 || picture.width() > self.target.1
    }
}

/// How two pictures are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Mean squared error by pixel: a high one is an attack's.
    Mse,
    /// Structural similarity: a low one is an attack's.
    Ssim,
}

/// A test without its threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// The picture against itself shrunk and enlarged again.
    Rescaling(Measure),
    /// The picture against its filtered self.
    Filtering {
        /// How they are compared.
        score: Measure,
        /// The filter.
        filter: Filter,
        /// Its side: 2 or 3.
        window: usize,
    },
    /// Points of the spectrum above a level.
    Spectrum {
        /// The level.
        level: u8,
    },
    /// Histograms of the picture and of what the model sees.
    Histogram {
        /// Bins of a channel.
        bins: usize,
    },
    /// What the model sees against what it sees of the picture with the pixels that count replaced.
    Restoration {
        /// How they are compared.
        score: Measure,
        /// Side of the window that replaces a pixel, in ratios.
        window: f64,
    },
}

/// On which side of its threshold a score is an attack's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// At the threshold or above.
    High,
    /// At the threshold or below.
    Low,
}

impl Side {
    /// Whether `score` is an attack's.
    pub fn accuses(self, score: f64, threshold: f64) -> bool {
        match self {
            Side::High => score >= threshold,
            Side::Low => score <= threshold,
        }
    }
}

/// Where a threshold comes from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// From scores of known pictures.
    Calibrated,
    /// Known beforehand.
    Fixed(f64),
    /// Drawn at random among scores of known pictures: what a test is worth without calibration.
    Random,
}

/// A test with the rule for its threshold; a method is one, or an odd number that vote.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Part {
    /// Name in outputs.
    pub name: &'static str,
    /// What it looks at.
    pub test: Test,
    /// Where its threshold comes from.
    pub rule: Rule,
}

impl Test {
    /// On which side of a threshold attacks are.
    pub fn side(self) -> Side {
        match self {
            Test::Spectrum { .. } => Side::High,
            Test::Histogram { .. } => Side::Low,
            Test::Rescaling(score)
            | Test::Filtering { score, .. }
            | Test::Restoration { score, .. } => match score {
                Measure::Mse => Side::High,
                Measure::Ssim => Side::Low,
            },
        }
    }

    /// The pictures that a test compares, if it compares any.
    fn pair<'a>(
        self,
        picture: &'a Picture,
        view: &View,
    ) -> Result<Option<(Cow<'a, Picture>, Picture)>> {
        let size = (picture.height(), picture.width());
        Ok(match self {
            Test::Rescaling(_) => {
                let seen = view.seen(picture)?;
                let again = view.scaler.between(view.target, size)?.apply(&seen);
                Some((Cow::Borrowed(picture), again))
            }
            Test::Filtering { filter, window, .. } => {
                Some((Cow::Borrowed(picture), filtered(picture, filter, window)))
            }
            Test::Restoration { window, .. } => {
                let scaling = view.scaler.between(size, view.target)?;
                let restored = restoration::restored(picture, &scaling, window);
                Some((Cow::Owned(scaling.apply(picture)), scaling.apply(&restored)))
            }
            Test::Spectrum { .. } | Test::Histogram { .. } => None,
        })
    }

    /// The number that is held against the threshold.
    ///
    /// # Errors
    /// A picture too small for structural similarity, or a kernel that the convention does not have.
    pub fn score(self, picture: &Picture, view: &View) -> Result<f64> {
        match self {
            Test::Spectrum { level } => Ok(spectrum_points(picture, level) as f64),
            Test::Histogram { bins } => {
                Ok(histogram_correlation(picture, &view.seen(picture)?, bins))
            }
            Test::Rescaling(score)
            | Test::Filtering { score, .. }
            | Test::Restoration { score, .. } => {
                let Some((a, b)) = self.pair(picture, view)? else {
                    return Err(Error::Failed("nothing to compare".into()));
                };
                match score {
                    Measure::Mse => Ok(mse_per_pixel(&a, &b)),
                    Measure::Ssim => ssim(&a, &b).ok_or_else(|| {
                        Error::BadInput(format!(
                            "{} x {} pixels are too few for structural similarity; it needs 11 x 11, take score=mse",
                            a.width(),
                            a.height()
                        ))
                    }),
                }
            }
        }
    }

    /// Names of all its numbers, in the order of [`Test::readings`].
    pub fn reading_names(self) -> &'static [&'static str] {
        match self {
            Test::Spectrum { .. } => &["points"],
            Test::Histogram { .. } => &["correlation"],
            _ => &["mse", "mse_per_value", "ssim"],
        }
    }

    /// All its numbers, for a report: the squared error by pixel as published thresholds mean it, the same as the mean
    /// over all values, and the similarity, absent for a picture too small for it.
    ///
    /// # Errors
    /// As [`Test::score`], but a picture too small is none.
    pub fn readings(self, picture: &Picture, view: &View) -> Result<Vec<Option<f64>>> {
        Ok(match self.pair(picture, view)? {
            Some((a, b)) => {
                let mse = mse_per_pixel(&a, &b);
                let per_value = mse / picture.channels() as f64;
                vec![Some(mse), Some(per_value), ssim(&a, &b)]
            }
            None => vec![Some(self.score(picture, view)?)],
        })
    }

    /// The one of its readings that is held against the threshold.
    pub fn decisive(self, readings: &[Option<f64>]) -> Option<f64> {
        let at = match self {
            Test::Rescaling(Measure::Ssim)
            | Test::Filtering {
                score: Measure::Ssim,
                ..
            }
            | Test::Restoration {
                score: Measure::Ssim,
                ..
            } => 2,
            _ => 0,
        };
        readings.get(at).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::super::attack::forge;
    use super::super::scaler::{Convention, Kernel};
    use super::super::simulation::photo_like;
    use super::*;

    const VIEW: View = View {
        target: (40, 60),
        scaler: Scaler {
            kernel: Kernel::Bilinear,
            convention: Convention::Opencv,
        },
    };

    fn all() -> Vec<Test> {
        let mut tests = vec![Test::Spectrum { level: 240 }, Test::Histogram { bins: 256 }];
        for score in [Measure::Mse, Measure::Ssim] {
            tests.push(Test::Rescaling(score));
            for window in [2, 3] {
                let filter = Filter::Minimum;
                tests.push(Test::Filtering {
                    score,
                    filter,
                    window,
                });
            }
            tests.push(Test::Restoration { score, window: 1.0 });
        }
        tests
    }

    #[test]
    fn an_attack_lies_on_its_side_of_every_test_of_the_paper() {
        let source = photo_like(480, 720, 3, 1);
        let hidden = photo_like(80, 120, 3, 2);
        let attack = forge(&source, &hidden, VIEW.scaler).unwrap().picture;
        let view = View {
            target: (80, 120),
            ..VIEW
        };
        for test in all() {
            let clean = test.score(&source, &view).unwrap();
            let found = test.score(&attack, &view).unwrap();
            match test.side() {
                Side::High => assert!(found > clean, "{test:?} {clean} {found}"),
                Side::Low => assert!(found < clean, "{test:?} {clean} {found}"),
            }
            let readings = test.readings(&attack, &view).unwrap();
            assert_eq!(readings.len(), test.reading_names().len());
            assert_eq!(test.decisive(&readings), Some(found), "{test:?}");
        }
        let points = |p| spectrum_points(p, 240);
        assert!(points(&source) < 2 && points(&attack) >= 2);
        // What is scaled again comes back as the hidden picture.
        let seen = view.seen(&attack).unwrap();
        assert!(mse_per_pixel(&seen, &hidden) < 3.0 * 9.0);
    }

    #[test]
    fn grey_pictures_count_one_channel_and_small_ones_have_no_similarity() {
        let grey = photo_like(100, 100, 1, 3);
        let colour = grey.with_channels(3);
        for test in all() {
            let (a, b) = (
                test.readings(&grey, &VIEW).unwrap(),
                test.readings(&colour, &VIEW).unwrap(),
            );
            match test {
                Test::Spectrum { .. } | Test::Histogram { .. } => assert_eq!(a, b),
                _ => {
                    assert!((3.0 * a[0].unwrap() - b[0].unwrap()).abs() < 1e-9);
                    assert_eq!(a[1], a[0]);
                }
            }
        }
        let small = photo_like(10, 200, 1, 4);
        let view = View {
            target: (5, 20),
            ..VIEW
        };
        let told = Test::Rescaling(Measure::Ssim)
            .score(&small, &view)
            .unwrap_err();
        assert!(told.to_string().contains("11 x 11"), "{told}");
        let readings = Test::Rescaling(Measure::Mse)
            .readings(&small, &view)
            .unwrap();
        assert!(readings[0].is_some() && readings[2].is_none());
        assert!(view.applies(&small));
        assert!(!VIEW.applies(&photo_like(40, 60, 1, 5)));
        assert!(VIEW.applies(&photo_like(40, 61, 1, 5)));
    }

    #[test]
    fn a_score_at_the_threshold_is_an_attacks() {
        assert!(Side::High.accuses(2.0, 2.0) && !Side::High.accuses(1.9, 2.0));
        assert!(Side::Low.accuses(0.4, 0.4) && !Side::Low.accuses(0.5, 0.4));
    }
}
