//! Paired tests: does one sample tend to be larger than the other?

use rand::RngExt;
use statrs::function::erf::erfc;

use super::{StatsError, check_finite, midranks};
use crate::sampling;

/// What a paired test found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedTest {
    /// The test's statistic.
    pub statistic: f64,
    /// The probability, if neither sample tends to be larger, of a statistic at least this far from its
    /// centre, on either side.
    pub p_value: f64,
}

/// Wilcoxon's signed-rank test (1945) of paired samples. The statistic is the sum of the ranks of
/// `|first[i] - second[i]|` where the difference is positive; pairs without a difference are left out, equal
/// differences share their mean rank.
///
/// For up to 50 differences the p-value is exact, over all 2^n signs of the ranks as they are, ties
/// included; above, from the normal approximation with the variance corrected for ties. No difference at
/// all gives a p-value of 1.
///
/// # Errors
/// [`StatsError::LengthsDiffer`], [`StatsError::NotFinite`] with the row of the difference.
pub fn wilcoxon_signed_rank(first: &[f64], second: &[f64]) -> Result<PairedTest, StatsError> {
    let differences = differences(first, second)?;
    check_finite(&differences)?;
    let differences: Vec<f64> = differences.into_iter().filter(|&d| d != 0.0).collect();
    let magnitudes: Vec<f64> = differences.iter().map(|d| d.abs()).collect();
    let ranks = midranks(&magnitudes);
    let statistic: f64 = ranks
        .iter()
        .zip(&differences)
        .filter_map(|(&rank, &d)| (d > 0.0).then_some(rank))
        .sum();
    let p_value = if ranks.len() <= 50 {
        signed_rank_exact(&ranks, statistic)
    } else {
        signed_rank_normal(&ranks, statistic)
    };
    Ok(PairedTest { statistic, p_value })
}

/// Counts, for each possible sum, the sets of ranks with that sum. Ranks are doubled, since half ranks occur;
/// the counts stay below 2^53 and so are exact.
fn signed_rank_exact(ranks: &[f64], statistic: f64) -> f64 {
    let doubled: Vec<usize> = ranks.iter().map(|rank| (2.0 * rank) as usize).collect();
    let most: usize = doubled.iter().sum();
    let mut sets = vec![0.0f64; most + 1];
    sets[0] = 1.0;
    for rank in doubled {
        for sum in (rank..=most).rev() {
            sets[sum] += sets[sum - rank];
        }
    }
    let observed = (2.0 * statistic) as usize;
    let below: f64 = sets[..=observed].iter().sum();
    let above: f64 = sets[observed..].iter().sum();
    let all = 2f64.powi(ranks.len() as i32);
    (2.0 * below.min(above) / all).min(1.0)
}

fn signed_rank_normal(ranks: &[f64], statistic: f64) -> f64 {
    // Each rank enters with probability 1/2: mean r / 2, variance r^2 / 4. Mean ranks make the usual
    // correction for ties part of the sum.
    let mean: f64 = ranks.iter().sum::<f64>() / 2.0;
    let variance: f64 = ranks.iter().map(|rank| rank * rank).sum::<f64>() / 4.0;
    let z = (statistic - mean) / variance.sqrt();
    erfc(z.abs() / std::f64::consts::SQRT_2)
}

/// The paired permutation test (Fisher 1935): the mean of `first[i] - second[i]` against its distribution
/// over the signs of the differences.
///
/// Where all 2^n signs are no more than `rounds`, they are all tried and the p-value is exact; otherwise
/// `rounds` random ones are, and it is (1 + as extreme) / (1 + rounds), which is never 0. Sums that differ
/// by rounding alone count as equally extreme. No pairs give a statistic of 0 and a p-value of 1.
///
/// # Errors
/// [`StatsError::LengthsDiffer`], [`StatsError::NotFinite`] with the row of the difference,
/// [`StatsError::NoRounds`].
pub fn paired_permutation(
    first: &[f64],
    second: &[f64],
    rounds: usize,
    seed: u64,
) -> Result<PairedTest, StatsError> {
    let differences = differences(first, second)?;
    check_finite(&differences)?;
    if rounds == 0 {
        return Err(StatsError::NoRounds);
    }
    let n = differences.len();
    if n == 0 {
        return Ok(PairedTest {
            statistic: 0.0,
            p_value: 1.0,
        });
    }
    let total: f64 = differences.iter().sum();
    let rounding = 1e-12 * differences.iter().map(|d| d.abs()).sum::<f64>();
    let extreme = |signs: &mut dyn FnMut(usize) -> bool| {
        let sum: f64 = differences
            .iter()
            .enumerate()
            .map(|(i, &d)| if signs(i) { -d } else { d })
            .sum();
        sum.abs() >= total.abs() - rounding
    };
    let p_value = if n < 63 && 1usize << n <= rounds {
        let all = 1usize << n;
        let as_extreme = (0..all)
            .filter(|mask| extreme(&mut |i| mask >> i & 1 == 1))
            .count();
        as_extreme as f64 / all as f64
    } else {
        let mut rng = sampling::rng(seed, "paired permutation");
        let as_extreme = (0..rounds)
            .filter(|_| extreme(&mut |_| rng.random()))
            .count();
        (1 + as_extreme) as f64 / (1 + rounds) as f64
    };
    Ok(PairedTest {
        statistic: total / n as f64,
        p_value,
    })
}
fn differences(first: &[f64], second: &[f64]) -> Result<Vec<f64>, StatsError> {
    if first.len() != second.len() {
        return Err(StatsError::LengthsDiffer {
            first: first.len(),
            second: second.len(),
        });
    }
    Ok(first.iter().zip(second).map(|(a, b)| a - b).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::tests::close;
    use proptest::prelude::*;

    /// The depression scores of R's example of the test, the pair before the last moved by 0.01.
    const BEFORE: [f64; 9] = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.05, 1.30];
    const AFTER: [f64; 9] = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.13, 1.29];

    #[test]
    fn wilcoxon_as_scipy() {
        // scipy.stats.wilcoxon(before, after): (5.0, 0.0390625), its statistic being the smaller sum.
        let test = wilcoxon_signed_rank(&BEFORE, &AFTER).unwrap();
        assert_eq!((test.statistic, test.p_value), (40.0, 0.0390625));
        // x = [(i*37 % 101 - 30) / 7 for i in range(60)]
        // scipy.stats.wilcoxon(x, method="approx", correction=False)
        let x: Vec<f64> = (0..60)
            .map(|i| f64::from(i * 37 % 101 - 30) / 7.0)
            .collect();
        let test = wilcoxon_signed_rank(&x, &[0.0; 60]).unwrap();
        assert!(
            close(test.p_value / 2.7991965601159334e-05, 1.0, 1e-9),
            "{test:?}"
        );
        // With ties and zeros: x = [i*37 % 23 - 8 for i in range(60)]
        let x: Vec<f64> = (0..60).map(|i| f64::from(i * 37 % 23 - 8)).collect();
        let test = wilcoxon_signed_rank(&x, &[0.0; 60]).unwrap();
        assert!(
            close(test.p_value / 0.0031533488349645717, 1.0, 1e-9),
            "{test:?}"
        );
    }

    #[test]
    fn no_difference_is_no_evidence() {
        assert_eq!(
            wilcoxon_signed_rank(&[1.0, 2.0], &[1.0, 2.0])
                .unwrap()
                .p_value,
            1.0
        );
        assert_eq!(wilcoxon_signed_rank(&[], &[]).unwrap().p_value, 1.0);
        assert_eq!(
            paired_permutation(&[1.0; 3], &[1.0; 3], 100, 0)
                .unwrap()
                .p_value,
            1.0
        );
        assert_eq!(paired_permutation(&[], &[], 100, 0).unwrap().p_value, 1.0);
        assert!(matches!(
            wilcoxon_signed_rank(&[1.0, f64::INFINITY], &[1.0, 2.0]),
            Err(StatsError::NotFinite { row: 1, .. })
        ));
        assert_eq!(
            paired_permutation(&[1.0], &[2.0], 0, 0),
            Err(StatsError::NoRounds)
        );
        assert_eq!(
            wilcoxon_signed_rank(&[3.1, 4.5], &[1.0]),
            Err(StatsError::LengthsDiffer {
                first: 2,
                second: 1
            })
        );
    }

    #[test]
    fn permutations_as_scipy_and_sampled_near_exact() {
        // scipy.stats.permutation_test((before - after,), np.mean, permutation_type="samples",
        //                              n_resamples=np.inf).pvalue
        let exact = paired_permutation(&BEFORE, &AFTER, 512, 0).unwrap();
        assert_eq!(exact.p_value, 0.02734375);
        // 511 rounds are too few for all signs, 100,000 random ones come near: sd 0.0005.
        let longer = |v: &[f64]| [v, v].concat();
        let (before, after) = (longer(&BEFORE), longer(&AFTER));
        let exact = paired_permutation(&before, &after, 1 << 18, 0).unwrap();
        let sampled = paired_permutation(&before, &after, 100_000, 3).unwrap();
        let sd = (exact.p_value / 1e5).sqrt();
        assert_ne!(exact.p_value, sampled.p_value);
        assert!((exact.p_value - sampled.p_value).abs() < 5.0 * sd + 1e-5);
        assert_eq!(exact.statistic, sampled.statistic);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn exact_wilcoxon_is_the_enumeration(values in prop::collection::vec(-4i32..5, 1..11)) {
            let d: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            let test = wilcoxon_signed_rank(&d, &vec![0.0; d.len()]).unwrap();
            let magnitudes: Vec<f64> = d.iter().filter(|&&v| v != 0.0).map(|v| v.abs()).collect();
            // Ranks by counting: those smaller, and the middle of those equal.
            let ranks: Vec<f64> = magnitudes.iter().map(|m| {
                let smaller = magnitudes.iter().filter(|o| *o < m).count() as f64;
                let equal = magnitudes.iter().filter(|o| *o == m).count() as f64;
                smaller + (equal + 1.0) / 2.0
            }).collect();
            let n = ranks.len();
            let sum_of = |mask: u32| (0..n).filter(|i| mask >> i & 1 == 1).map(|i| ranks[i]).sum::<f64>();
            let (mut below, mut above) = (0, 0);
            for mask in 0..1u32 << n {
                below += i32::from(sum_of(mask) <= test.statistic);
                above += i32::from(sum_of(mask) >= test.statistic);
            }
            let expected = (2.0 * f64::from(below.min(above)) / f64::from(1u32 << n)).min(1.0);
            prop_assert_eq!(test.p_value, expected);
        }
    }
}
