//! A test of normality.

use statrs::function::erf::erfc;

use super::{Moments, StatsError, check_finite};

/// The Anderson-Darling statistic of normality with mean and variance estimated from the values, corrected
/// for small samples as in G-means: A*^2 = A^2 (1 + 4/n - 25/n^2).
///
/// With z the ascending values, standardised by their mean and their (n - 1)-variance, and F the normal
/// distribution function, A^2 = -n - (1/n) sum_{i=1..n} (2i - 1) (ln F(z_i) + ln(1 - F(z_{n+1-i}))).
/// O(n log n). The larger, the less normal.
///
/// `None` for fewer than 8 values, for which the correction does not hold (it is even negative up to 3),
/// and for values that are all equal: there is no evidence against normality then.
///
/// # Errors
/// [`StatsError::NotFinite`].
pub fn anderson_darling(values: &[f64]) -> Result<Option<f64>, StatsError> {
    check_finite(values)?;
    let n = values.len();
    let moments: Moments = values.iter().copied().collect();
    let (Some(mean), Some(variance)) = (moments.mean(), moments.sample_variance()) else {
        return Ok(None);
    };
    if n < 8 || variance <= 0.0 {
        return Ok(None);
    }
    let deviation = variance.sqrt();
    let mut z: Vec<f64> = values.iter().map(|v| (v - mean) / deviation).collect();
    z.sort_unstable_by(f64::total_cmp);
    let sum: f64 = (0..n)
        .map(|i| (2 * i + 1) as f64 * (ln_normal(z[i]) + ln_normal(-z[n - 1 - i])))
        .sum();
    let n = n as f64;
    let a2 = -n - sum / n;
    Ok(Some(a2 * (1.0 + 4.0 / n - 25.0 / (n * n))))
}

/// ln F(z) of the standard normal distribution. Far out, where F itself is 0 to the machine, by its
/// asymptotic series.
fn ln_normal(z: f64) -> f64 {
    if z > -30.0 {
        (0.5 * erfc(-z / std::f64::consts::SQRT_2)).ln()
    } else {
        let z2 = z * z;
        -0.5 * z2 - (-z).ln() - 0.5 * std::f64::consts::TAU.ln()
            + (-1.0 / z2 + 3.0 / (z2 * z2)).ln_1p()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling;
    use crate::stats::tests::close;
    use rand::RngExt;

    /// The critical value at the level 0.0001, as Hamerly and Elkan give it for G-means (2003, Learning the
    /// k in k-means).
    const CRITICAL: f64 = 1.8692;

    /// The library's erfc is off by up to 1e-10 of its value: it has some constants of the approximation
    /// rounded to ten digits. That shows in the statistic, and is far below any use of it.
    #[test]
    fn anderson_darling_as_scipy() {
        // v = [148, 154, 158, 160, 161, 162, 166, 170, 182, 195, 236]; n = 11
        // scipy.stats.anderson(v, "norm").statistic * (1 + 4/n - 25/n**2)
        let v = [
            148., 154., 158., 160., 161., 162., 166., 170., 182., 195., 236.,
        ];
        let found = anderson_darling(&v).unwrap().unwrap();
        assert!(close(found, 1.0954385383788767, 1e-9), "{found}");
        // scipy.stats.anderson([i*i % 17 for i in range(40)], "norm").statistic
        let v: Vec<f64> = (0..40).map(|i| f64::from(i * i % 17)).collect();
        let found = anderson_darling(&v).unwrap().unwrap() / (1.0 + 4.0 / 40.0 - 25.0 / 1600.0);
        assert!(close(found, 1.4566904818976738, 1e-9), "{found}");
    }

    #[test]
    fn anderson_darling_tells_two_humps_from_one() {
        let mut rng = sampling::rng(2, "test");
        let mut normal = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let one: Vec<f64> = (0..500).map(|_| normal()).collect();
        let two: Vec<f64> = one
            .iter()
            .enumerate()
            .map(|(i, v)| v + (i % 2) as f64 * 8.0)
            .collect();
        assert!(anderson_darling(&one).unwrap().unwrap() < CRITICAL);
        assert!(anderson_darling(&two).unwrap().unwrap() > 10.0 * CRITICAL);
        // A value so far out that its probability is 0 to the machine still gives a number.
        let mut far = vec![0.0; 5000];
        far.iter_mut().zip(&one).for_each(|(v, o)| *v = *o);
        far[0] = 1e9;
        assert!(anderson_darling(&far).unwrap().unwrap().is_finite());
        assert_eq!(anderson_darling(&[1.0; 20]), Ok(None));
        assert_eq!(anderson_darling(&[1., 2., 3., 4., 5., 6., 7.]), Ok(None));
    }

    #[test]
    fn the_two_branches_of_ln_normal_meet() {
        let (near, far) = (ln_normal(-30.0 + 1e-9), ln_normal(-30.0));
        // The slope is about -z = 30, and the series' next term is 15 / z^6 = 2e-8.
        assert!((near - far).abs() < 1e-7, "{near} {far}");
        assert!(close(ln_normal(0.0), -std::f64::consts::LN_2, 1e-15));
    }
}
