//! Learning curves: how well a group is served by a model trained on n of its rows.
//!
//! A curve is m(n) = alpha - beta b(n) with beta >= 0 and a falling convex b, so it rises and is concave:
//!
//! | shape | b(n) |
//! | --- | --- |
//! | power | (n + kappa)^-gamma, gamma in \[0.05, 2\] |
//! | inverse | (n + kappa)^-1 |
//! | exponential | exp(-gamma n) |
//! | log | -ln(n + kappa) |
//!
//! [`fit`] takes weighted least squares over a grid of gamma, with alpha and beta solved for each. Two points fit
//! every gamma; what the data do not say about it is settled by a weak prior, ln gamma ~ N(ln 0.5, 1), whose square
//! counts like one more squared standardised residual. Cost O(40 p) for p points.

use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Shape of a learning curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// alpha - beta (n + kappa)^-gamma.
    Power,
    /// alpha - beta / (n + kappa).
    Inverse,
    /// alpha - beta exp(-gamma n).
    Exponential,
    /// alpha + beta ln(n + kappa), at most the metric's greatest value.
    Log,
}

/// One group's learning curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LearningCurve {
    /// Its shape.
    pub shape: Shape,
    /// Quality with endless rows (of `log`: with n + kappa = 1).
    pub alpha: f64,
    /// How much there is to learn, at least 0.
    pub beta: f64,
    /// How fast it is learned, above 0.
    pub gamma: f64,
    /// Rows that the group starts with in effect, above 0.
    pub kappa: f64,
    /// Greatest value of the metric.
    pub ceiling: f64,
}

/// A measured point of a curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Rows that the model was trained on.
    pub n: f64,
    /// Quality on held-out rows.
    pub value: f64,
    /// Standard error of `value`, above 0.
    pub error: f64,
}

impl LearningCurve {
    /// Quality with `n` rows.
    pub fn value(&self, n: f64) -> f64 {
        (self.alpha - self.beta * basis(self.shape, self.gamma, self.kappa, n)).min(self.ceiling)
    }

    /// Gain by one more row, the derivative of [`LearningCurve::value`].
    pub fn slope(&self, n: f64) -> f64 {
        let m = n + self.kappa;
        match self.shape {
            Shape::Power | Shape::Inverse => self.beta * self.gamma * m.powf(-self.gamma - 1.0),
            Shape::Exponential => self.beta * self.gamma * (-self.gamma * n).exp(),
            Shape::Log if self.alpha + self.beta * m.ln() >= self.ceiling => 0.0,
            Shape::Log => self.beta / m,
        }
    }
}

/// The falling part b(n) of a curve.
fn basis(shape: Shape, gamma: f64, kappa: f64, n: f64) -> f64 {
    match shape {
        Shape::Power | Shape::Inverse => (n + kappa).powf(-gamma),
        Shape::Exponential => (-gamma * n).exp(),
        Shape::Log => -(n + kappa).ln(),
    }
}

/// Values of gamma that are tried.
const GRID: usize = 40;

/// The curve of `shape` with kappa 1 that is nearest to `points` in weighted squares, with beta >= 0 and alpha
/// within `range`. Points without a trend give a flat curve.
///
/// # Errors
/// Fewer than two points, or a value, count or standard error that is impossible.
pub fn fit(points: &[Point], shape: Shape, range: (f64, f64)) -> Result<LearningCurve> {
    if points.len() < 2 {
        return Err(Error::BadInput(format!(
            "a learning curve needs at least 2 points; there are {}",
            points.len()
        )));
    }
    if let Some(bad) = points.iter().find(|p| {
        !(p.value.is_finite()
            && p.n >= 0.0
            && p.n.is_finite()
            && p.error > 0.0
            && p.error.is_finite())
    }) {
        return Err(Error::BadInput(format!(
            "the point n = {}, value {}, standard error {} cannot be fitted",
            bad.n, bad.value, bad.error
        )));
    }
    let most = points.iter().fold(1.0, |m: f64, p| m.max(p.n));
    let (grid, centre): (Vec<f64>, f64) = match shape {
        Shape::Power => (spread(0.05, 2.0), 0.5),
        Shape::Exponential => (spread(0.05 / most, 20.0 / most), 1.0 / most),
        Shape::Inverse | Shape::Log => (vec![1.0], 1.0),
    };
    let kappa = 1.0;
    let mut best: Option<(f64, LearningCurve)> = None;
    for gamma in grid {
        let (alpha, beta, squares) = line(points, range, |n| basis(shape, gamma, kappa, n), shape);
        let cost = squares + (gamma / centre).ln().powi(2);
        if best.as_ref().is_none_or(|(least, _)| cost < *least) {
            let curve = LearningCurve {
                shape,
                alpha,
                beta,
                gamma,
                kappa,
                ceiling: range.1,
            };
            best = Some((cost, curve));
        }
    }
    best.map(|(_, curve)| curve)
        .ok_or_else(|| Error::Failed("no learning curve fits the points".into()))
}

/// Numbers from `low` to `high` in equal ratios.
fn spread(low: f64, high: f64) -> Vec<f64> {
    (0..GRID)
        .map(|i| low * (high / low).powf(i as f64 / (GRID - 1) as f64))
        .collect()
}

/// Weighted least squares of value = alpha - beta b(n) within the bounds: alpha, beta, sum of squares.
fn line(
    points: &[Point],
    range: (f64, f64),
    b: impl Fn(f64) -> f64,
    shape: Shape,
) -> (f64, f64, f64) {
    let (mut w, mut wb, mut wv, mut wbb, mut wbv) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for p in points {
        let weight = p.error.powi(-2);
        let x = b(p.n);
        w += weight;
        wb += weight * x;
        wv += weight * p.value;
        wbb += weight * x * x;
        wbv += weight * x * p.value;
    }
    let spread = wbb - wb * wb / w;
    let mut beta = if spread > 1e-12 * wbb {
        (-(wbv - wb * wv / w) / spread).max(0.0)
    } else {
        0.0
    };
    let mut alpha = (wv + beta * wb) / w;
    // The alpha of `log` is no limit of quality, so the metric's range does not bound it from below.
    let low = if shape == Shape::Log {
        f64::NEG_INFINITY
    } else {
        range.0
    };
    if alpha > range.1 || alpha < low {
        alpha = alpha.clamp(low, range.1);
        beta = if wbb > 0.0 {
            ((alpha * wb - wbv) / wbb).max(0.0)
        } else {
            0.0
        };
    }
    let squares = points
        .iter()
        .map(|p| ((p.value - alpha + beta * b(p.n)) / p.error).powi(2))
        .sum();
    (alpha, beta, squares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points(curve: &LearningCurve, error: f64) -> Vec<Point> {
        [10.0, 30.0, 100.0, 300.0, 1000.0]
            .map(|n| Point {
                n,
                value: curve.value(n),
                error,
            })
            .to_vec()
    }

    #[test]
    fn exact_points_give_the_curve_back() {
        let truth = LearningCurve {
            shape: Shape::Inverse,
            alpha: 0.8,
            beta: 2.0,
            gamma: 1.0,
            kappa: 1.0,
            ceiling: 1.0,
        };
        let found = fit(&points(&truth, 1e-4), Shape::Inverse, (0.0, 1.0)).unwrap();
        assert!(
            (found.alpha - 0.8).abs() < 1e-9 && (found.beta - 2.0).abs() < 1e-9,
            "{found:?}"
        );
        // The grid has steps of 9.9 %, so a power is found to within one of them.
        let power = LearningCurve {
            shape: Shape::Power,
            gamma: 0.4,
            ..truth
        };
        let found = fit(&points(&power, 1e-5), Shape::Power, (0.0, 1.0)).unwrap();
        assert!((found.gamma / 0.4).ln().abs() < 0.1, "{found:?}");
        assert!((found.value(500.0) - power.value(500.0)).abs() < 0.005);
    }

    #[test]
    fn falling_points_give_a_flat_curve_and_no_gain() {
        let falling = [(10.0, 0.9), (20.0, 0.8), (40.0, 0.7)].map(|(n, value)| Point {
            n,
            value,
            error: 0.1,
        });
        for shape in [Shape::Power, Shape::Inverse, Shape::Exponential, Shape::Log] {
            let curve = fit(&falling, shape, (0.0, 1.0)).unwrap();
            assert_eq!((curve.beta, curve.slope(40.0)), (0.0, 0.0));
            assert!((curve.value(5.0) - 0.8).abs() < 1e-12);
        }
    }

    #[test]
    fn bad_points_are_refused() {
        let one = Point {
            n: 1.0,
            value: 0.5,
            error: 0.1,
        };
        assert!(
            fit(&[one], Shape::Power, (0.0, 1.0))
                .unwrap_err()
                .to_string()
                .contains("at least 2")
        );
        for bad in [
            Point {
                value: f64::NAN,
                ..one
            },
            Point { error: 0.0, ..one },
            Point { n: -1.0, ..one },
        ] {
            assert!(fit(&[one, bad], Shape::Power, (0.0, 1.0)).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn fitted_curves_rise_and_stay_in_range(
            values in proptest::collection::vec((1.0..500.0f64, 0.0..1.0f64, 0.01..0.2f64), 2..8),
            shape in prop_oneof![Just(Shape::Power), Just(Shape::Inverse), Just(Shape::Exponential), Just(Shape::Log)],
        ) {
            let points: Vec<Point> = values.iter().map(|(n, value, error)| Point { n: *n, value: *value, error: *error }).collect();
            let curve = fit(&points, shape, (0.0, 1.0)).unwrap();
            let at: Vec<f64> = (0..20).map(|i| curve.value(50.0 * f64::from(i))).collect();
            prop_assert!(at.windows(2).all(|w| w[1] >= w[0]));
            prop_assert!(at.iter().all(|v| *v <= 1.0));
            // The slope is the derivative.
            let (h, n) = (1e-4, 77.0);
            let numeric = (curve.value(n + h) - curve.value(n - h)) / (2.0 * h);
            prop_assert!((numeric - curve.slope(n)).abs() <= 1e-5 * (1.0 + curve.slope(n)));
        }
    }
}
