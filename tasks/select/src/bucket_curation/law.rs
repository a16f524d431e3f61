//! The law of one bucket and of a union of buckets: error against samples seen, with rows that repeat.

use serde::{Deserialize, Serialize};

/// The normaliser `a` counts in these units of samples, as in the paper's code.
const UNIT: f64 = 100_000.0;

/// What repetition wears out.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Wear {
    /// The utility of a pass: its exponent halves every half-life (the paper's choice).
    #[default]
    EffectiveUtility,
    /// The rows: those of a pass count as fewer (after Muennighoff et al., 2305.16264).
    EffectiveData,
}

/// What all buckets of a pool share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Shared {
    /// Normaliser a' of samples, in units of 1 / 100,000.
    pub normaliser: f64,
    /// Error that no training removes, d.
    pub irreducible: f64,
    /// What repetition wears out.
    pub wear: Wear,
    /// Whether d, too, shrinks with later passes: a slip of the paper's code, for comparison with it alone.
    pub irreducible_decays: bool,
}

/// What is a bucket's own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Own {
    /// Exponent b of the first pass, below 0; the lower, the more a sample helps.
    pub utility: f64,
    /// Passes after which half of it is left, tau.
    pub half_life: f64,
}

/// Part of a union: a bucket's own parameters and its rows.
pub type Part = (Own, f64);

/// Passes over `rows` rows within `samples` samples: ends of the passes, the last one possibly partial.
fn ends(samples: f64, rows: f64) -> impl Iterator<Item = f64> {
    // At an exact multiple there is no empty pass more.
    let passes = (samples / rows).ceil().max(1.0) as usize;
    (1..=passes).map(move |k| (k as f64 * rows).min(samples))
}

/// Share of the utility that is left in repetition `k`, from 0.
fn left(k: usize, half_life: f64) -> f64 {
    0.5f64.powf(k as f64 / half_life)
}

/// Predicted error of a union after `samples` samples; a union of one is the bucket's own law.
///
/// A union's pass is as long as all its rows together, so that a bucket is repeated less often: its half-life grows
/// by the inverse of its share of the rows. For buckets of one size this is the paper's rule; the shares are an
/// extension.
pub fn predict(shared: &Shared, parts: &[Part], samples: f64) -> f64 {
    let rows: f64 = parts.iter().map(|(_, rows)| rows).sum();
    let share = |part: &Part| part.1 / rows;
    let worn = |k: usize, part: &Part| left(k, part.0.half_life / share(part));
    let mut logarithm = 0.0;
    let mut later = 0.0;
    let mut before = 0.0;
    let mut effective = 0.0;
    for (k, end) in ends(samples, rows).enumerate() {
        let (exponent, from, to) = match shared.wear {
            Wear::EffectiveUtility => {
                let b = parts
                    .iter()
                    .map(|p| share(p) * p.0.utility * worn(k, p))
                    .sum::<f64>();
                (b, before, end)
            }
            Wear::EffectiveData => {
                let of = |f: &dyn Fn(&Part) -> f64| parts.iter().map(f).sum::<f64>();
                let counted = of(&|p| share(p) * worn(k, p));
                let b = of(&|p| share(p) * worn(k, p) * p.0.utility) / counted;
                let from = effective;
                effective += (end - before) * counted;
                (b, from, effective)
            }
        };
        if k == 0 {
            logarithm = exponent * (shared.normaliser * to / UNIT).ln();
        } else {
            later += exponent * (to / from).ln();
        }
        before = end;
    }
    let offset = if shared.irreducible_decays {
        shared.irreducible * later.exp()
    } else {
        shared.irreducible
    };
    (logarithm + later).exp() + offset
}

/// What the grid search needs of a checkpoint, for one half-life: the logarithm of the error above d is the exponent
/// times the sum of both numbers, and the second one is that of the later passes.
pub(super) fn logarithms(samples: f64, rows: f64, wear: Wear, half_life: f64) -> (f64, f64) {
    let mut first = 0.0;
    let mut later = 0.0;
    let mut before = 0.0;
    let mut effective = 0.0;
    for (k, end) in ends(samples, rows).enumerate() {
        let worn = left(k, half_life);
        match wear {
            Wear::EffectiveUtility if k == 0 => first = (end / UNIT).ln(),
            Wear::EffectiveUtility => later += worn * (end / before).ln(),
            Wear::EffectiveData => {
                effective += worn * (end - before);
                if k == 0 {
                    first = (effective / UNIT).ln();
                }
            }
        }
        before = end;
    }
    if wear == Wear::EffectiveData {
        later = (effective / UNIT).ln() - first;
    }
    (first, later)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shared(wear: Wear) -> Shared {
        Shared {
            normaliser: 1000.0,
            irreducible: 0.05,
            wear,
            irreducible_decays: false,
        }
    }

    const A: Own = Own {
        utility: -0.3,
        half_life: 2.0,
    };
    const B: Own = Own {
        utility: -0.1,
        half_life: 8.0,
    };

    #[test]
    fn three_passes_by_hand() {
        // 250 samples of 100 rows: passes end at 100, 200, 250.
        let want =
            1f64.powf(-0.3) * 2f64.powf(-0.3 * 0.5f64.sqrt()) * 1.25f64.powf(-0.3 * 0.5) + 0.05;
        let got = predict(&shared(Wear::EffectiveUtility), &[(A, 100.0)], 250.0);
        assert!((got - want).abs() < 1e-12, "{got} {want}");
        let effective = 100.0 + 100.0 * 0.5f64.sqrt() + 50.0 * 0.5;
        let want = (1000.0 * effective / 1e5).powf(-0.3) + 0.05;
        let got = predict(&shared(Wear::EffectiveData), &[(A, 100.0)], 250.0);
        assert!((got - want).abs() < 1e-12, "{got} {want}");
        let slip = Shared {
            irreducible_decays: true,
            ..shared(Wear::EffectiveUtility)
        };
        let later = 2f64.powf(-0.3 * 0.5f64.sqrt()) * 1.25f64.powf(-0.15);
        let got = predict(&slip, &[(A, 100.0)], 250.0);
        assert!((got - (1.0 + 0.05) * later).abs() < 1e-12);
    }

    #[test]
    fn a_union_of_two_by_hand() {
        // Passes of 200 rows end at 200 and 300; half-lives double.
        let b0 = (-0.3 - 0.1) / 2.0;
        let b1 = (-0.3 * 0.5f64.powf(1.0 / 4.0) - 0.1 * 0.5f64.powf(1.0 / 16.0)) / 2.0;
        let want = 2f64.powf(b0) * 1.5f64.powf(b1) + 0.05;
        let parts = [(A, 100.0), (B, 100.0)];
        let got = predict(&shared(Wear::EffectiveUtility), &parts, 300.0);
        assert!((got - want).abs() < 1e-12, "{got} {want}");
    }

    #[test]
    fn a_bucket_split_in_two_equal_halves_is_the_bucket() {
        // Halves of a homogeneous bucket forget twice as fast each, and the union gives the half-life back.
        let half = Own {
            half_life: A.half_life / 2.0,
            ..A
        };
        for wear in [Wear::EffectiveUtility, Wear::EffectiveData] {
            for samples in [50.0, 100.0, 330.0] {
                let whole = predict(&shared(wear), &[(A, 100.0)], samples);
                let halves = predict(&shared(wear), &[(half, 50.0), (half, 50.0)], samples);
                assert!((whole - halves).abs() < 1e-12, "{wear:?} {samples}");
            }
        }
    }

    proptest! {
        #[test]
        fn error_falls_without_jumps_and_the_search_sees_the_same_law(
            utility in -0.6f64..-0.01, half_life in 1.0f64..20.0, rows in 20.0f64..500.0, passes in 0.1f64..12.0,
        ) {
            let own = Own { utility, half_life };
            for wear in [Wear::EffectiveUtility, Wear::EffectiveData] {
                let law = shared(wear);
                let n = rows * passes;
                let at = |n: f64| predict(&law, &[(own, rows)], n);
                prop_assert!(at(n * 1.01) <= at(n) + 1e-12);
                // Continuous where a pass ends, and no empty pass at a multiple.
                let end = rows * passes.ceil();
                prop_assert!((at(end * (1.0 + 1e-9)) - at(end)).abs() < 1e-6);
                let (first, later) = logarithms(n, rows, wear, half_life);
                let seen = (utility * (law.normaliser.ln() + first + later)).exp() + law.irreducible;
                prop_assert!((seen - at(n)).abs() < 1e-9, "{} {}", seen, at(n));
            }
        }
    }
}
