//! Strategies for numbers: norm threshold and conditional D-optimality.
//!
//! As the survey (arXiv 2302.08893) sets them out. Both ask for rows that are far out and need no labels to tell; the model
//! is recursive least squares.
//!
//! - norm-threshold (Riquelme, Johari and Zhang 2017): rows are whitened by the running mean and covariance of all rows so
//!   far (with 1e-6 of the mean variance added, so that a singular covariance can be inverted). Asked for if |z| > Gamma, the
//!   (1 - alpha) quantile of the whitened norms of the first 100 rows, alpha = B.
//! - conditional-d-optimality (Cacciarelli, Kulahci and Tyssedal 2022): with A = X'X + ridge I over the labelled rows (the
//!   constant included), asked for if x' A^-1 x > Gamma. Gamma is the (1 - B) quantile of that value over the first 100 rows,
//!   smoothed by a kernel density, computed anew every 50 labels. A^-1 follows each label by Sherman and Morrison, and
//!   with it all values shrink: with few labels so much that nothing would pass the old Gamma any more and the 50 labels
//!   would never come. So Gamma is also computed anew when 100 rows have passed since it last was.
//!
//! The first 100 rows are looked at, not asked for, but for those of the task's warm-up, and the purse holds both to the
//! budget. O(d^2) a row and a label; the whitening matrix is computed anew every 50 rows, O(d^3).

use super::engine::{Decider, Lesson, Setting, Strategy, Wish};
use super::models::{Model, Prediction, Target, Truth};
use ndarray::{Array1, Array2};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::linalg::cholesky;
use papertrial_numerics::stats::quantile;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rows or labels between two computations of what is costly.
const AGAIN: u64 = 50;

/// Rows after which Gamma is computed anew however few labels have come.
const AGAIN_ROWS: u64 = 100;

/// Refuses a stream of classes.
fn check_number(setting: &Setting, method: &str) -> Result<()> {
    match setting.model.target {
        Target::Number => Ok(()),
        Target::Classes(_) => Err(Error::option(
            "model",
            format!("{method} predicts numbers; its model is least-squares"),
        )),
    }
}

fn check_look(rows: usize) -> Result<()> {
    if rows < 2 {
        return Err(Error::option("look-rows", "must be at least 2"));
    }
    Ok(())
}

/// Options of the norm threshold.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct NormThreshold {
    /// Rows at the start that are only looked at.
    #[schemars(range(min = 2))]
    pub look_rows: usize,
}

impl Default for NormThreshold {
    fn default() -> Self {
        NormThreshold { look_rows: 100 }
    }
}

impl Method for NormThreshold {
    const FACTS: Facts = Facts {
        name: "norm-threshold",
        about: "for numbers: ask for rows whose whitened norm is large",
        paper: Some("online-al"),
        streams: false,
    };
}

/// Model, running covariance, and threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Norm {
    model: Model,
    budget: f64,
    look_rows: usize,
    n: f64,
    mean: Vec<f64>,
    /// Sum of products of deviations, row by row.
    products: Vec<f64>,
    /// Inverse of the covariance, row by row; empty before the first.
    inverse: Vec<f64>,
    /// The first rows, until the threshold is known.
    looked: Vec<Vec<f64>>,
    threshold: Option<f64>,
}

impl Norm {
    fn add(&mut self, x: &[f64]) {
        let d = x.len();
        self.n += 1.0;
        let before: Vec<f64> = x.iter().zip(&self.mean).map(|(x, m)| x - m).collect();
        for (mean, difference) in self.mean.iter_mut().zip(&before) {
            *mean += difference / self.n;
        }
        let share = (self.n - 1.0) / self.n;
        for i in 0..d {
            for j in 0..d {
                self.products[i * d + j] += share * before[i] * before[j];
            }
        }
        if self.threshold.is_none() {
            self.looked.push(x.to_vec());
            if self.looked.len() >= self.look_rows {
                self.whiten();
                let norms: Vec<f64> = self.looked.iter().map(|x| self.norm(x)).collect();
                self.threshold = quantile(&norms, 1.0 - self.budget).ok();
                self.looked = Vec::new();
            }
        } else if self.n % AGAIN as f64 == 0.0 {
            self.whiten();
        }
    }

    fn whiten(&mut self) {
        let d = self.mean.len();
        let trace: f64 = (0..d).map(|i| self.products[i * d + i]).sum::<f64>() / self.n;
        // Rows that are all equal have no variance at all.
        let ridge = 1e-6 * (trace / d as f64) + f64::MIN_POSITIVE.sqrt();
        let covariance = Array2::from_shape_fn((d, d), |(i, j)| {
            self.products[i * d + j] / self.n + if i == j { ridge } else { 0.0 }
        });
        // Positive definite by the ridge; if rounding says otherwise the last one stays.
        if let Ok(factor) = cholesky(covariance.view()) {
            let inverse = factor.solve(Array2::from_diag(&Array1::ones(d)).view());
            self.inverse = inverse.iter().copied().collect();
        }
    }

    fn norm(&self, x: &[f64]) -> f64 {
        let z: Vec<f64> = x.iter().zip(&self.mean).map(|(x, m)| x - m).collect();
        form(&self.inverse, &z).max(0.0).sqrt()
    }
}

/// z' A z, A row by row; 0 while A is empty.
fn form(a: &[f64], z: &[f64]) -> f64 {
    let rows = a.chunks_exact(z.len());
    rows.zip(z)
        .map(|(row, v)| v * row.iter().zip(z).map(|(a, b)| a * b).sum::<f64>())
        .sum()
}

impl Decider for Norm {
    fn predict(&self, x: &[f64]) -> Prediction {
        self.model.predict(x)
    }

    fn wish(&mut self, x: &[f64], _prediction: &Prediction, _open: bool) -> Wish {
        let ask = self.threshold.is_some_and(|t| self.norm(x) > t);
        self.add(x);
        Wish::plain(ask)
    }

    fn learn(&mut self, lesson: &Lesson) {
        self.model.learn(lesson.x, lesson.truth, lesson.weight);
    }

    fn warm(&mut self, x: &[f64]) {
        self.add(x);
    }
}

impl Strategy for NormThreshold {
    type State = Norm;

    fn begin(&self, setting: &Setting) -> Result<Norm> {
        check_number(setting, Self::FACTS.name)?;
        check_look(self.look_rows)?;
        let d = setting.model.width;
        Ok(Norm {
            model: Model::new(&setting.model),
            budget: setting.budget,
            look_rows: self.look_rows,
            n: 0.0,
            mean: vec![0.0; d],
            products: vec![0.0; d * d],
            inverse: Vec::new(),
            looked: Vec::new(),
            threshold: None,
        })
    }
}

/// Options of conditional D-optimality.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ConditionalDOptimality {
    /// Rows at the start that are only looked at.
    #[schemars(range(min = 2))]
    pub look_rows: usize,
    /// Added to the diagonal of X'X.
    #[schemars(range(min = 0.0))]
    pub ridge: f64,
}

impl Default for ConditionalDOptimality {
    fn default() -> Self {
        ConditionalDOptimality {
            look_rows: 100,
            ridge: 1.0,
        }
    }
}

impl Method for ConditionalDOptimality {
    const FACTS: Facts = Facts {
        name: "conditional-d-optimality",
        about: "for numbers: ask for rows that would shrink the uncertainty of the coefficients most",
        paper: Some("online-al"),
        streams: false,
    };
}

/// Model, A^-1, and threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DOptimal {
    model: Model,
    budget: f64,
    look_rows: usize,
    inverse: Vec<f64>,
    looked: Vec<Vec<f64>>,
    labels: u64,
    /// Rows since the threshold was computed.
    rows: u64,
    threshold: Option<f64>,
}

fn extended(x: &[f64]) -> Vec<f64> {
    x.iter().copied().chain([1.0]).collect()
}

impl DOptimal {
    fn look(&mut self, x: &[f64]) {
        if self.looked.len() < self.look_rows {
            self.looked.push(extended(x));
            if self.looked.len() == self.look_rows {
                self.renew();
            }
            return;
        }
        self.rows += 1;
        if self.rows == AGAIN_ROWS {
            self.renew();
        }
    }

    fn renew(&mut self) {
        let values: Vec<f64> = self.looked.iter().map(|z| form(&self.inverse, z)).collect();
        self.threshold = Some(smooth_quantile(&values, 1.0 - self.budget));
        self.rows = 0;
    }
}

impl Decider for DOptimal {
    fn predict(&self, x: &[f64]) -> Prediction {
        self.model.predict(x)
    }

    fn wish(&mut self, x: &[f64], _prediction: &Prediction, _open: bool) -> Wish {
        let value = form(&self.inverse, &extended(x));
        let ask = self.threshold.is_some_and(|t| value > t);
        self.look(x);
        Wish::plain(ask)
    }

    fn learn(&mut self, lesson: &Lesson) {
        self.model.learn(lesson.x, lesson.truth, lesson.weight);
        if !matches!(lesson.truth, Truth::Number(_)) {
            return;
        }
        // A^-1 - A^-1 z z' A^-1 / (1 + z' A^-1 z).
        let z = extended(lesson.x);
        let rows = self.inverse.chunks_exact(z.len());
        let az: Vec<f64> = rows
            .map(|row| row.iter().zip(&z).map(|(a, b)| a * b).sum())
            .collect();
        let denominator = 1.0 + az.iter().zip(&z).map(|(a, b)| a * b).sum::<f64>();
        for (row, a) in self.inverse.chunks_exact_mut(z.len()).zip(&az) {
            for (value, b) in row.iter_mut().zip(&az) {
                *value -= a * b / denominator;
            }
        }
        self.labels += 1;
        if self.labels.is_multiple_of(AGAIN) && self.threshold.is_some() {
            self.renew();
        }
    }

    fn warm(&mut self, x: &[f64]) {
        self.look(x);
    }
}

/// Quantile of a kernel density of `values`: the place below which the smoothed distribution has the share `share`.
///
/// The kernel is Epanechnikov's, whose distribution is a polynomial; the bandwidth is Silverman's for it,
/// 2.34 s n^(-1/5). Found by halving the interval 60 times.
fn smooth_quantile(values: &[f64], share: f64) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    let h = 2.34 * variance.sqrt() * n.powf(-0.2);
    if h <= 0.0 {
        return mean;
    }
    let below = |t: f64| {
        let parts = values.iter().map(|v| {
            let u = ((t - v) / h).clamp(-1.0, 1.0);
            (2.0 + 3.0 * u - u * u * u) / 4.0
        });
        parts.sum::<f64>() / n
    };
    let mut low = values.iter().copied().fold(f64::INFINITY, f64::min) - h;
    let mut high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max) + h;
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if below(middle) < share {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

impl Strategy for ConditionalDOptimality {
    type State = DOptimal;

    fn begin(&self, setting: &Setting) -> Result<DOptimal> {
        check_number(setting, Self::FACTS.name)?;
        check_look(self.look_rows)?;
        if !(self.ridge > 0.0 && self.ridge.is_finite()) {
            return Err(Error::option("ridge", "must be above 0"));
        }
        let size = setting.model.width + 1;
        let mut inverse = vec![0.0; size * size];
        (0..size).for_each(|i| inverse[i * size + i] = 1.0 / self.ridge);
        Ok(DOptimal {
            model: Model::new(&setting.model),
            budget: setting.budget,
            look_rows: self.look_rows,
            inverse,
            looked: Vec::new(),
            labels: 0,
            rows: 0,
            threshold: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_labelling::draws::Draws;
    use crate::stream_labelling::engine::tests::setting;

    fn lesson(x: &[f64]) -> Lesson<'_> {
        Lesson {
            x,
            truth: Truth::Number(1.0),
            weight: 1.0,
            random: false,
            missed: false,
        }
    }

    #[test]
    fn sherman_and_morrison_give_the_inverse() {
        let mut method = ConditionalDOptimality::default()
            .begin(&setting(Target::Number, 1))
            .unwrap();
        for x in [1.0, 3.0] {
            method.learn(&lesson(&[x]));
        }
        // A = I + [[10, 4], [4, 2]] = [[11, 4], [4, 3]], determinant 17.
        for (found, is) in method.inverse.iter().zip([3.0, -4.0, -4.0, 11.0]) {
            assert!((found - is / 17.0).abs() < 1e-12);
        }
        assert!((form(&method.inverse, &[1.0, 1.0]) - 6.0 / 17.0).abs() < 1e-12);
    }

    #[test]
    fn whitened_norms_forget_scale_and_direction() {
        let mut method = NormThreshold { look_rows: 400 }
            .begin(&setting(Target::Number, 2))
            .unwrap();
        let mut draws = Draws::new(0, "test");
        let mut asked = 0;
        for i in 0..2400 {
            let (a, b) = (draws.normal(), draws.normal());
            let x = [2.0 * a, a + 0.5 * b];
            let prediction = method.predict(&x);
            let ask = method.wish(&x, &prediction, true).ask;
            assert!(i >= 400 || !ask);
            asked += usize::from(ask);
        }
        // A fifth of 2,000; the quantile of 400 rows has a standard error of 2 %.
        assert!((280..=520).contains(&asked), "{asked}");
        // Two normal columns: the squared norm is 2 in the mean, its quantile -2 ln 0.2.
        let t = method.threshold.unwrap();
        assert!((t * t + 2.0 * 0.2f64.ln()).abs() < 0.5, "{t}");
    }

    #[test]
    fn equal_rows_do_no_harm() {
        let s = setting(Target::Number, 2);
        let mut norm = NormThreshold { look_rows: 3 }.begin(&s).unwrap();
        for _ in 0..200 {
            let prediction = norm.predict(&[1.0, 1.0]);
            assert!(!norm.wish(&[1.0, 1.0], &prediction, true).ask);
        }
        assert!(norm.norm(&[1.0, 1.0]).is_finite());
    }

    #[test]
    fn smooth_quantiles_are_those_of_the_density() {
        // Symmetric: the median is the middle.
        assert!((smooth_quantile(&[-1.0, 0.0, 1.0], 0.5)).abs() < 1e-9);
        assert_eq!(smooth_quantile(&[2.0, 2.0], 0.9), 2.0);
        // Far apart for their bandwidth: half of the mass at each, and the upper quarter begins in the middle of the upper.
        let mut values = vec![0.0; 50_000];
        values.extend(vec![1.0; 50_000]);
        assert!((smooth_quantile(&values, 0.75) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn shrinking_values_do_not_starve_it() {
        let s = setting(Target::Number, 3);
        let mut method = ConditionalDOptimality::default().begin(&s).unwrap();
        let mut draws = Draws::new(2, "test");
        let mut asked = [0; 2];
        for i in 0..4000 {
            // Bounded columns: no row lies ever farther out than those looked at.
            let x = [draws.share(), draws.share(), draws.share()];
            let prediction = method.predict(&x);
            if method.wish(&x, &prediction, true).ask {
                method.learn(&lesson(&x));
                asked[i / 2000] += 1;
            }
        }
        assert!(asked.iter().all(|n| *n > 40), "{asked:?}");
    }

    #[test]
    fn d_optimality_asks_for_outliers_after_its_look() {
        let s = setting(Target::Number, 1);
        let mut method = ConditionalDOptimality::default().begin(&s).unwrap();
        let mut draws = Draws::new(1, "test");
        for _ in 0..100 {
            let x = [draws.normal()];
            let prediction = method.predict(&x);
            assert!(!method.wish(&x, &prediction, true).ask);
        }
        let mut asks = |x: f64| {
            let prediction = method.predict(&[x]);
            method.wish(&[x], &prediction, true).ask
        };
        assert!(asks(4.0) && asks(-4.0) && !asks(0.0));
    }
}
