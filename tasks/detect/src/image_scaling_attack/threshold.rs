//! Thresholds from scores of known pictures, and the vote.

use super::score::{Part, Rule, Side};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::rng;
use papertrial_numerics::stats::quantile;
use rand::RngExt;

/// Pictures of a kind that calibration needs at least.
pub const LEAST: usize = 10;

/// The threshold with the most scores on their own side, among the middles between neighbouring scores of both kinds
/// together; of equally good ones, the middle of the widest gap, then the lowest.
///
/// # Errors
/// Fewer than [`LEAST`] scores of a kind; both kinds over the same range; a score that is no number.
pub fn white_box(clean: &[f64], attack: &[f64], side: Side) -> Result<f64> {
    enough(clean, "clean")?;
    enough(attack, "attack")?;
    let range = |scores: &[f64]| {
        let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (least, most)
    };
    if range(clean) == range(attack) {
        let (least, most) = range(clean);
        return Err(Error::BadInput(format!(
            "clean pictures and attacks both score from {least} to {most}: there is no usable threshold"
        )));
    }
    let mut pooled: Vec<(f64, bool)> = clean.iter().map(|s| (*s, false)).collect();
    pooled.extend(attack.iter().map(|s| (*s, true)));
    pooled.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Right decisions with a threshold between i - 1 and i, where attacks are high.
    let mut right = attack.len();
    let mut best: Option<(usize, f64, f64)> = None;
    for pair in pooled.windows(2) {
        let (below, above) = (pair[0], pair[1]);
        if below.1 {
            right -= 1;
        } else {
            right += 1;
        }
        let gap = above.0 - below.0;
        if gap <= 0.0 {
            continue;
        }
        let found = match side {
            Side::High => right,
            Side::Low => pooled.len() - right,
        };
        if best.is_none_or(|(r, g, _)| found > r || found == r && gap > g) {
            best = Some((found, gap, below.0 + gap / 2.0));
        }
    }
    best.map(|b| b.2)
        .ok_or_else(|| Error::BadInput("all pictures have one score: there is no threshold".into()))
}

/// The threshold that `percentile` per cent of the clean scores fail.
///
/// # Errors
/// Fewer than [`LEAST`] scores, or one that is no number.
pub fn black_box(clean: &[f64], side: Side, percentile: f64) -> Result<f64> {
    enough(clean, "clean")?;
    let share = match side {
        Side::High => 1.0 - percentile / 100.0,
        Side::Low => percentile / 100.0,
    };
    quantile(clean, share).map_err(|e| Error::Failed(e.to_string()))
}

fn enough(scores: &[f64], kind: &str) -> Result<()> {
    if scores.len() < LEAST {
        return Err(Error::BadInput(format!(
            "{} {kind} pictures are too few to set a threshold from; give {LEAST} at least",
            scores.len()
        )));
    }
    if scores.iter().any(|s| s.is_nan()) {
        return Err(Error::Failed(format!(
            "a score of the {kind} pictures is no number"
        )));
    }
    Ok(())
}

/// Scores of known pictures: for each picture, one of each part.
pub struct Known<'a> {
    /// Of clean pictures.
    pub clean: &'a [Vec<f64>],
    /// Of attacks; with none, thresholds come from the clean ones alone.
    pub attack: &'a [Vec<f64>],
    /// Per cent of clean pictures that may fail a test, where there are no attacks.
    pub percentile: f64,
    /// For thresholds at random.
    pub seed: u64,
}

/// A threshold for each part.
///
/// # Errors
/// As [`white_box`] and [`black_box`], with the name of the part.
pub fn thresholds(parts: &[Part], known: &Known) -> Result<Vec<f64>> {
    let of = |scores: &[Vec<f64>], p: usize| -> Vec<f64> { scores.iter().map(|s| s[p]).collect() };
    (parts.iter().enumerate())
        .map(|(p, part)| {
            let (clean, attack) = (of(known.clean, p), of(known.attack, p));
            let found = match part.rule {
                Rule::Fixed(threshold) => Ok(threshold),
                Rule::Random => {
                    enough(&clean, "clean")?;
                    let pooled: Vec<f64> = clean.iter().chain(&attack).copied().collect();
                    let mut draws = rng(known.seed, "random threshold");
                    Ok(pooled[draws.random_range(0..pooled.len())])
                }
                Rule::Calibrated if attack.is_empty() => {
                    black_box(&clean, part.test.side(), known.percentile)
                }
                Rule::Calibrated => white_box(&clean, &attack, part.test.side()),
            };
            found.map_err(|e| match e {
                Error::BadInput(told) => Error::BadInput(format!("{}: {told}", part.name)),
                other => other,
            })
        })
        .collect()
}

/// The verdict of each part, and of most of them.
pub fn vote(parts: &[Part], thresholds: &[f64], scores: &[f64]) -> (Vec<bool>, bool) {
    let votes: Vec<bool> = (parts.iter().zip(thresholds).zip(scores))
        .map(|((part, threshold), score)| part.test.side().accuses(*score, *threshold))
        .collect();
    let accusing = votes.iter().filter(|v| **v).count();
    let verdict = 2 * accusing > votes.len();
    (votes, verdict)
}

#[cfg(test)]
mod tests {
    use super::super::score::{Measure, Test};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_best_threshold_lies_in_the_widest_of_equal_gaps() {
        let clean: Vec<f64> = (0..10).map(f64::from).collect();
        let attack: Vec<f64> = (0..10).map(|i| 20.0 + f64::from(i)).collect();
        assert_eq!(white_box(&clean, &attack, Side::High).unwrap(), 14.5);
        assert_eq!(white_box(&attack, &clean, Side::Low).unwrap(), 14.5);
        // One clean score among the attacks: still the gap between the groups, with one mistake.
        let mut mixed = clean.clone();
        mixed.push(25.5);
        assert_eq!(white_box(&mixed, &attack, Side::High).unwrap(), 14.5);
    }

    #[test]
    fn one_per_cent_of_the_clean_scores_fail() {
        let clean: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(black_box(&clean, Side::High, 1.0).unwrap(), 99.0);
        assert_eq!(black_box(&clean, Side::Low, 3.0).unwrap(), 3.0);
    }

    #[test]
    fn what_gives_no_threshold_is_told() {
        let ten = [1.0; 10];
        let told = |r: Result<f64>| r.unwrap_err().to_string();
        assert!(told(white_box(&ten[..9], &ten, Side::High)).contains("9 clean"));
        assert!(told(white_box(&ten, &ten[..3], Side::High)).contains("3 attack"));
        assert!(told(white_box(&ten, &ten, Side::High)).contains("no usable threshold"));
        assert!(told(black_box(&ten[..4], Side::High, 1.0)).contains("4 clean"));
        assert!(white_box(&[f64::NAN; 10], &ten, Side::High).is_err());
    }

    #[test]
    fn two_of_three_decide() {
        let part = |test, rule| Part {
            name: "p",
            test,
            rule,
        };
        let parts = [
            part(Test::Rescaling(Measure::Mse), Rule::Calibrated),
            part(Test::Rescaling(Measure::Ssim), Rule::Calibrated),
            part(Test::Spectrum { level: 240 }, Rule::Fixed(2.0)),
        ];
        let clean: Vec<Vec<f64>> = (0..10).map(|i| vec![f64::from(i), 0.9, 1.0]).collect();
        let attack: Vec<Vec<f64>> = (0..10)
            .map(|i| vec![f64::from(i) + 20.0, 0.1, 3.0])
            .collect();
        let known = Known {
            clean: &clean,
            attack: &attack,
            percentile: 1.0,
            seed: 0,
        };
        let found = thresholds(&parts, &known).unwrap();
        assert_eq!(found, [14.5, 0.5, 2.0]);
        assert_eq!(
            vote(&parts, &found, &[15.0, 0.4, 1.0]),
            (vec![true, true, false], true)
        );
        assert!(!vote(&parts, &found, &[15.0, 0.6, 1.0]).1);
        let alone = Known {
            attack: &[],
            ..known
        };
        let found = thresholds(&parts, &alone).unwrap();
        assert!((found[0] - 8.91).abs() < 1e-9, "{found:?}");
        assert_eq!(found[1..], [0.9, 2.0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn no_other_threshold_is_better(
            clean in proptest::collection::vec(0i32..40, 10..25),
            attack in proptest::collection::vec(5i32..50, 10..25),
            high: bool,
        ) {
            let numbers = |v: Vec<i32>| v.into_iter().map(f64::from).collect::<Vec<f64>>();
            let (clean, attack) = (numbers(clean), numbers(attack));
            let side = if high { Side::High } else { Side::Low };
            if let Ok(found) = white_box(&clean, &attack, side) {
                let right = |t: f64| {
                    clean.iter().filter(|s| !side.accuses(**s, t)).count()
                        + attack.iter().filter(|s| side.accuses(**s, t)).count()
                };
                let inside = |t: f64| {
                    let all = || clean.iter().chain(&attack);
                    all().any(|s| *s < t) && all().any(|s| *s > t)
                };
                for half in 0..110 {
                    let t = f64::from(half) / 2.0 + 0.25;
                    if inside(t) {
                        prop_assert!(right(t) <= right(found), "{} {}", t, found);
                    }
                }
            }
        }
    }
}
