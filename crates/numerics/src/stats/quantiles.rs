//! Quantiles of a sample.

use rayon::prelude::*;

use super::{StatsError, check_values};

/// The value below which a `share` of the values lies, linearly interpolated between the two nearest:
/// position `share (n - 1)` in ascending order counted from 0 (type 7 of Hyndman and Fan 1996, the default
/// of NumPy and R). O(n).
///
/// # Errors
/// [`StatsError::Empty`], [`StatsError::NotFinite`], [`StatsError::Share`].
pub fn quantile(values: &[f64], share: f64) -> Result<f64, StatsError> {
    let (below, fraction) = quantile_position(values, share)?;
    let mut values = values.to_vec();
    let (_, &mut low, above) = values.select_nth_unstable_by(below, f64::total_cmp);
    let high = above.iter().copied().min_by(f64::total_cmp).unwrap_or(low);
    Ok(interpolate(low, high, fraction))
}

/// [`quantile`] for each share, with one sort. O(n log n).
///
/// # Errors
/// As [`quantile`].
pub fn quantiles(values: &[f64], shares: &[f64]) -> Result<Vec<f64>, StatsError> {
    check_values(values)?;
    let mut sorted = values.to_vec();
    sorted.par_sort_unstable_by(f64::total_cmp);
    shares
        .iter()
        .map(|&share| quantile_of_sorted(&sorted, share))
        .collect()
}

fn quantile_of_sorted(sorted: &[f64], share: f64) -> Result<f64, StatsError> {
    let (below, fraction) = quantile_position(sorted, share)?;
    let high = sorted[(below + 1).min(sorted.len() - 1)];
    Ok(interpolate(sorted[below], high, fraction))
}

/// The place in ascending order, and the fraction of the step to the next.
fn quantile_position(values: &[f64], share: f64) -> Result<(usize, f64), StatsError> {
    check_values(values)?;
    if !(0.0..=1.0).contains(&share) {
        return Err(StatsError::Share(share));
    }
    let position = share * (values.len() - 1) as f64;
    Ok((position as usize, position.fract()))
}

fn interpolate(low: f64, high: f64, fraction: f64) -> f64 {
    // Not low + (high - low) * fraction, which overflows when they are far apart.
    if fraction == 0.0 {
        low
    } else {
        low * (1.0 - fraction) + high * fraction
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::tests::close;
    use proptest::prelude::*;

    #[test]
    fn quantiles_as_numpy() {
        // np.quantile([3, 1, 4, 1, 5, 9, 2, 6], [0, .1, .25, .5, .9, 1])
        let values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0];
        let shares = [0.0, 0.1, 0.25, 0.5, 0.9, 1.0];
        let expected = [1.0, 1.0, 1.75, 3.5, 6.8999999999999995, 9.0];
        let found = quantiles(&values, &shares).unwrap();
        for i in 0..6 {
            assert!(close(found[i], expected[i], 1e-14));
            assert_eq!(quantile(&values, shares[i]).unwrap(), found[i]);
        }
        assert_eq!(quantile(&[2.0], 0.3), Ok(2.0));
        assert_eq!(quantile(&[-f64::MAX, f64::MAX], 0.5), Ok(0.0));
        assert_eq!(quantile(&[], 0.5), Err(StatsError::Empty));
        assert_eq!(quantile(&[1.0], 1.5), Err(StatsError::Share(1.5)));
        assert!(matches!(
            quantile(&[1.0], f64::NAN),
            Err(StatsError::Share(_))
        ));
        assert!(matches!(
            quantiles(&[1.0, f64::NAN], &[0.5]),
            Err(StatsError::NotFinite { row: 1, .. })
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn quantiles_rise_and_stay_inside(values in prop::collection::vec(-1e6f64..1e6, 1..40), a in 0.0f64..=1.0, b in 0.0f64..=1.0) {
            let (a, b) = (a.min(b), a.max(b));
            let found = quantiles(&values, &[0.0, a, b, 1.0]).unwrap();
            // Interpolation rounds, so a plateau may waver in its last digit.
            prop_assert!(found.windows(2).all(|w| w[0] <= w[1] + 1e-9));
            prop_assert_eq!(quantile(&values, a).unwrap(), found[1]);
        }
    }
}
