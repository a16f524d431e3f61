//! The judge: from the values of method and rivals, seed by seed, to a verdict.
//!
//! # The rule
//!
//! For each seed s with a value of both sides, the *advantage* is a(s) = method(s) - factor * rival(s) where
//! higher is better, factor * rival(s) - method(s) where lower is better, and the plain difference method(s) -
//! factor * rival(s) for a claim of equality. Seeds are paired because they share data and split, so what they
//! have in common cancels. A target takes the place of the rival's value.
//!
//! The *interval* is Student's, at level 95 %, for the mean of a(s) over the seeds. It is a single point if all
//! a(s) are equal, as they are when both sides are deterministic. One seed gives no interval.
//!
//! * `higher`, `lower` with margin m: **holds** if the whole interval is at or above m and, for m = 0, above 0
//!   (so two identical methods do not beat each other); **fails** if the whole interval is below m (for m = 0: at or
//!   below 0); else **undecided**.
//! * `equal` within m: **holds** if the whole interval lies in \[-m, m\] (an equivalence test: two one-sided tests
//!   at 2.5 %, not the mere absence of a difference); **fails** if the whole interval lies outside; else
//!   **undecided**.
//! * Several rivals, all to be beaten: **fails** if it fails against one; **holds** if it holds against all; else
//!   **undecided**. No correction for their number is needed, since all must hold. The best to be beaten: only
//!   the rival with the best mean over its seeds counts.
//! * A seed that failed on one side drops out of that pair and is told. Fewer than two pairs: **undecided**.
//!   No value of the method, or of a rival that counts, at all: **not tried**.

use crate::catalogue::{Claim, Direction, MustBeat};
use papertrial_numerics::stats::{Interval, mean_interval};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Level of all intervals.
pub const LEVEL: f64 = 0.95;

/// What a trial concludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The data bear the claim out.
    Holds,
    /// The data contradict it.
    Fails,
    /// The data do not tell at this number of seeds.
    Undecided,
    /// It could not be tried.
    NotTried,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Verdict::Holds => "holds",
            Verdict::Fails => "fails",
            Verdict::Undecided => "undecided",
            Verdict::NotTried => "not tried",
        })
    }
}

/// Mean and interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Mean over the seeds.
    pub mean: f64,
    /// Lower end; absent with one seed.
    pub low: Option<f64>,
    /// Upper end; absent with one seed.
    pub high: Option<f64>,
}

impl Estimate {
    /// Of values; `None` if there are none or one is not finite.
    pub fn of(values: &[f64]) -> Option<Estimate> {
        if values.is_empty() || values.iter().any(|v| !v.is_finite()) {
            return None;
        }
        match mean_interval(values, LEVEL) {
            Ok(Some(Interval {
                estimate: mean,
                low,
                high,
            })) => Some(Estimate {
                mean,
                low: Some(low),
                high: Some(high),
            }),
            _ => Some(Estimate {
                mean: values.iter().sum::<f64>() / values.len() as f64,
                low: None,
                high: None,
            }),
        }
    }
}

impl Estimate {
    /// The interval, unless it is no wider than rounding.
    pub fn interval(&self) -> Option<(f64, f64)> {
        let (low, high) = (self.low?, self.high?);
        (high - low > 1e-6 * self.mean.abs()).then_some((low, high))
    }
}

/// Values by seed.
pub type Values = BTreeMap<u64, f64>;

/// The judgement on one claim.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Its reason, in words.
    pub why: String,
    /// Advantage over the rival that decided, or over the target.
    pub difference: Option<Estimate>,
}

/// Applies the rule above. `rivals` are in the order of the claim's `against`.
pub fn judge(claim: &Claim, method: &Values, rivals: &[Values]) -> Judgement {
    if method.is_empty() {
        return not_tried(format!(
            "{} gave no value of {}",
            claim.method.shown(),
            claim.metric
        ));
    }
    if let Some(target) = claim.target {
        let constant = method.keys().map(|seed| (*seed, target)).collect();
        return pair(claim, method, &constant, "the target", claim.seeds);
    }
    let mut order: Vec<usize> = (0..rivals.len()).collect();
    if let Some(i) = order.iter().find(|i| rivals[**i].is_empty()) {
        return not_tried(format!(
            "{} gave no value of {}",
            claim.against[*i].shown(),
            claim.metric
        ));
    }
    if claim.must_beat == MustBeat::Best {
        let mean = |i: &usize| rivals[*i].values().sum::<f64>() / rivals[*i].len() as f64;
        let best = order.iter().copied().min_by(|a, b| match claim.direction {
            Direction::Lower => mean(a).total_cmp(&mean(b)),
            _ => mean(b).total_cmp(&mean(a)),
        });
        order = best.into_iter().collect();
    }
    let judged: Vec<Judgement> = order
        .into_iter()
        .map(|i| {
            pair(
                claim,
                method,
                &rivals[i],
                claim.against[i].shown(),
                claim.seeds,
            )
        })
        .collect();
    // The pair that decides: a failure, else an indecision, else the closest success.
    let rank = |j: &Judgement| match j.verdict {
        Verdict::Fails => 0,
        Verdict::Undecided | Verdict::NotTried => 1,
        Verdict::Holds => 2,
    };
    let closeness = |j: &Judgement| {
        let mean = j.difference.map_or(f64::INFINITY, |d| d.mean);
        match claim.direction {
            Direction::Equal => -mean.abs(),
            _ => mean,
        }
    };
    judged
        .into_iter()
        .min_by(|a, b| {
            rank(a)
                .cmp(&rank(b))
                .then(closeness(a).total_cmp(&closeness(b)))
        })
        .unwrap_or_else(|| not_tried("the claim names no rival".into()))
}

fn not_tried(why: String) -> Judgement {
    Judgement {
        verdict: Verdict::NotTried,
        why,
        difference: None,
    }
}

/// One method against one rival.
fn pair(claim: &Claim, method: &Values, rival: &Values, name: &str, seeds: u64) -> Judgement {
    let advantages: Vec<f64> = method
        .iter()
        .filter_map(|(seed, m)| rival.get(seed).map(|r| (m, claim.factor * r)))
        .map(|(m, r)| match claim.direction {
            Direction::Lower => r - m,
            Direction::Higher | Direction::Equal => m - r,
        })
        .collect();
    let dropped = seeds.saturating_sub(advantages.len() as u64);
    let aside = if dropped > 0 {
        format!("; {dropped} of {seeds} seeds failed on one side and do not count")
    } else {
        String::new()
    };
    let rival = match (claim.factor == 1.0, claim.target) {
        (true, Some(t)) => format!("the target {t}"),
        (true, None) => name.to_owned(),
        (false, _) => format!("{} x {name}", claim.factor),
    };
    let Some(estimate) = Estimate::of(&advantages) else {
        return not_tried(format!(
            "no seed gave a value of both sides against {rival}{aside}"
        ));
    };
    let (Some(low), Some(high)) = (estimate.low, estimate.high) else {
        return Judgement {
            verdict: Verdict::Undecided,
            why: format!("only one seed counts against {rival}, which gives no interval{aside}"),
            difference: Some(estimate),
        };
    };
    let m = claim.margin;
    let verdict = match claim.direction {
        Direction::Equal if -m <= low && high <= m => Verdict::Holds,
        Direction::Equal if high < -m || low > m => Verdict::Fails,
        Direction::Equal => Verdict::Undecided,
        _ if m == 0.0 && low > 0.0 || m != 0.0 && low >= m => Verdict::Holds,
        _ if m == 0.0 && high <= 0.0 || m != 0.0 && high < m => Verdict::Fails,
        _ => Verdict::Undecided,
    };
    let what = match claim.direction {
        Direction::Equal => "difference from",
        _ => "advantage over",
    };
    let wanted = match claim.direction {
        Direction::Equal => format!("within ±{}", plain(m)),
        _ if m == 0.0 => "above 0".to_owned(),
        _ => format!("at least {}", plain(m)),
    };
    Judgement {
        verdict,
        why: format!(
            "{what} {rival}: {} (95 % interval {} to {}); claimed: {wanted}{aside}",
            plain(estimate.mean),
            plain(low),
            plain(high)
        ),
        difference: Some(estimate),
    }
}

/// A number with four significant digits.
pub fn plain(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let size = value.abs();
    if !(1e-4..1e6).contains(&size) {
        return format!("{value:.3e}");
    }
    let digits = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Contender;

    fn claim(direction: Direction, margin: f64, rivals: usize) -> Claim {
        let contender = |name: String| Contender {
            name,
            options: Default::default(),
            label: None,
        };
        Claim {
            id: "c".into(),
            says: "s".into(),
            task: "t".into(),
            data: "d".into(),
            data_options: Default::default(),
            options: Default::default(),
            metric: "m".into(),
            method: contender("ours".into()),
            against: (0..rivals)
                .map(|i| contender(format!("rival{i}")))
                .collect(),
            target: None,
            must_beat: MustBeat::All,
            direction,
            margin,
            factor: 1.0,
            seeds: 3,
            quick: false,
            note: None,
        }
    }

    fn values(v: &[f64]) -> Values {
        (0..).zip(v.iter().copied()).collect()
    }

    fn verdict(claim: &Claim, method: &[f64], rivals: &[&[f64]]) -> Verdict {
        let rivals: Vec<Values> = rivals.iter().map(|r| values(r)).collect();
        judge(claim, &values(method), &rivals).verdict
    }

    #[test]
    fn interval_is_students() {
        // Differences 1, 2, 3: mean 2, s = 1, half-width t(0.975; 2) / sqrt 3 = 4.302653 / 1.732051 = 2.484138.
        let j = judge(
            &claim(Direction::Higher, 0.0, 1),
            &values(&[1., 2., 3.]),
            &[values(&[0., 0., 0.])],
        );
        let d = j.difference.unwrap();
        assert_eq!(d.mean, 2.0);
        assert!((d.low.unwrap() - (2.0 - 2.484138)).abs() < 1e-5);
        assert!((d.high.unwrap() - (2.0 + 2.484138)).abs() < 1e-5);
        assert_eq!(j.verdict, Verdict::Undecided);
    }

    #[test]
    fn pairing_removes_what_seeds_share() {
        let c = claim(Direction::Higher, 0.0, 1);
        assert_eq!(
            verdict(&c, &[1.1, 5.12, 9.11], &[&[1., 5., 9.]]),
            Verdict::Holds
        );
        assert_eq!(
            verdict(&c, &[1., 5., 9.], &[&[1.1, 5.12, 9.11]]),
            Verdict::Fails
        );
        assert_eq!(
            verdict(&c, &[1.1, 9.11, 5.12], &[&[1., 5., 9.]]),
            Verdict::Undecided
        );
    }

    #[test]
    fn lower_is_the_mirror_of_higher() {
        let c = claim(Direction::Lower, 0.0, 1);
        assert_eq!(
            verdict(&c, &[1., 5., 9.], &[&[1.1, 5.12, 9.11]]),
            Verdict::Holds
        );
    }

    #[test]
    fn zero_variance_decides_by_the_point() {
        let c = claim(Direction::Higher, 0.0, 1);
        assert_eq!(verdict(&c, &[2., 2.], &[&[1., 1.]]), Verdict::Holds);
        // Equal methods do not beat each other.
        assert_eq!(verdict(&c, &[1., 1.], &[&[1., 1.]]), Verdict::Fails);
        let c = claim(Direction::Higher, 1.0, 1);
        assert_eq!(verdict(&c, &[2., 2.], &[&[1., 1.]]), Verdict::Holds);
        assert_eq!(verdict(&c, &[1.5, 1.5], &[&[1., 1.]]), Verdict::Fails);
    }

    #[test]
    fn two_seeds_need_a_large_and_steady_lead() {
        // t(0.975; 1) = 12.7: leads of 1.0 and 1.1 do, of 1 and 2 do not.
        let c = claim(Direction::Higher, 0.0, 1);
        assert_eq!(verdict(&c, &[1.0, 1.1], &[&[0., 0.]]), Verdict::Holds);
        assert_eq!(verdict(&c, &[1.0, 2.0], &[&[0., 0.]]), Verdict::Undecided);
    }

    #[test]
    fn one_seed_is_never_decided() {
        let c = claim(Direction::Higher, 0.0, 1);
        assert_eq!(verdict(&c, &[9.], &[&[0.]]), Verdict::Undecided);
    }

    #[test]
    fn margins_move_the_line() {
        let lead = [1.0, 1.02, 0.98];
        let zero: &[f64] = &[0., 0., 0.];
        assert_eq!(
            verdict(&claim(Direction::Higher, 0.9, 1), &lead, &[zero]),
            Verdict::Holds
        );
        assert_eq!(
            verdict(&claim(Direction::Higher, 1.0, 1), &lead, &[zero]),
            Verdict::Undecided
        );
        assert_eq!(
            verdict(&claim(Direction::Higher, 1.1, 1), &lead, &[zero]),
            Verdict::Fails
        );
        // A negative margin allows to be a little worse.
        let behind = [-1.0, -1.02, -0.98];
        assert_eq!(
            verdict(&claim(Direction::Higher, -1.1, 1), &behind, &[zero]),
            Verdict::Holds
        );
    }

    #[test]
    fn equality_needs_evidence_and_not_just_noise() {
        let zero: &[f64] = &[0., 0., 0.];
        let c = claim(Direction::Equal, 0.5, 1);
        assert_eq!(verdict(&c, &[0.01, -0.01, 0.02], &[zero]), Verdict::Holds);
        // No significant difference, yet nothing like equal.
        assert_eq!(verdict(&c, &[3., -3., 0.1], &[zero]), Verdict::Undecided);
        assert_eq!(verdict(&c, &[1., 1.01, 1.02], &[zero]), Verdict::Fails);
        assert_eq!(
            verdict(&claim(Direction::Equal, 0.0, 1), &[1., 1.], &[&[1., 1.]]),
            Verdict::Holds
        );
    }

    #[test]
    fn factor_scales_the_rival() {
        let mut c = claim(Direction::Lower, 0.0, 1);
        c.factor = 0.5;
        assert_eq!(
            verdict(&c, &[0.4, 0.41, 0.42], &[&[1., 1., 1.]]),
            Verdict::Holds
        );
        assert_eq!(
            verdict(&c, &[0.6, 0.61, 0.62], &[&[1., 1., 1.]]),
            Verdict::Fails
        );
    }

    #[test]
    fn a_target_replaces_the_rivals() {
        let mut c = claim(Direction::Equal, 1e-9, 0);
        c.target = Some(1.0);
        assert_eq!(verdict(&c, &[1., 1.], &[]), Verdict::Holds);
        c.direction = Direction::Lower;
        c.margin = 0.0;
        c.target = Some(60.0);
        assert_eq!(verdict(&c, &[30., 31., 29.], &[]), Verdict::Holds);
    }

    #[test]
    fn all_must_be_beaten_or_the_best_one() {
        let ours: &[f64] = &[5.0, 5.1, 4.9];
        let (weak, noisy, strong): (&[f64], &[f64], &[f64]) =
            (&[1., 1., 1.], &[5., 9., 1.], &[9., 9.1, 8.9]);
        let mut c = claim(Direction::Higher, 0.0, 2);
        assert_eq!(verdict(&c, ours, &[weak, weak]), Verdict::Holds);
        assert_eq!(verdict(&c, ours, &[weak, noisy]), Verdict::Undecided);
        assert_eq!(verdict(&c, ours, &[noisy, strong]), Verdict::Fails);
        c.must_beat = MustBeat::Best;
        assert_eq!(verdict(&c, ours, &[weak, strong]), Verdict::Fails);
        let j = judge(&c, &values(ours), &[values(weak), values(&[4., 4., 4.])]);
        assert_eq!(j.verdict, Verdict::Holds);
        assert!(j.why.contains("rival1"), "{}", j.why);
    }

    #[test]
    fn failed_seeds_drop_out_and_are_told() {
        let c = claim(Direction::Higher, 0.0, 1);
        let method = Values::from([(0, 2.0), (1, 2.1), (2, 2.2)]);
        let j = judge(&c, &method, &[Values::from([(0, 1.0), (2, 1.2)])]);
        assert_eq!(j.verdict, Verdict::Holds);
        assert!(j.why.contains("1 of 3 seeds failed"), "{}", j.why);
        let j = judge(&c, &method, &[Values::from([(0, 1.0)])]);
        assert_eq!(j.verdict, Verdict::Undecided);
        let j = judge(&c, &method, &[Values::new()]);
        assert_eq!(j.verdict, Verdict::NotTried);
        let j = judge(&c, &Values::new(), &[method]);
        assert_eq!(j.verdict, Verdict::NotTried);
        assert!(j.why.contains("ours"), "{}", j.why);
    }

    #[test]
    fn numbers_are_shown_with_four_digits() {
        assert_eq!(plain(0.123456), "0.1235");
        assert_eq!(plain(12.0), "12");
        assert_eq!(plain(1234.56), "1235");
        assert_eq!(plain(0.00001), "1.000e-5");
        assert_eq!(plain(-0.5), "-0.5");
    }
}
