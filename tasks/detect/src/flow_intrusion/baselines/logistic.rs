//! `logistic-regression`: a weighted sum of one flow's columns.
//!
//! x \[d\] is a flow with a column for each code, y its class as -1 and 1, z = x.w + b, v the weight of its class. The
//! fit minimises sum v ln(1 + exp(-y z)) + |w|^2 / 2c by Newton's method:
//! 1. g = sum v s x + w / c with s = -y / (1 + exp(y z)); H = sum v p (1 - p) x x' + 1 / c with p = 1 / (1 + exp(-z));
//! 2. solve H t = -g by Cholesky, and halve t until the objective falls by at least a 10,000th of g't;
//! 3. stop when -g't is below 1e-10 of the objective, or after 50 rounds.
//!
//! A flow has few numbers other than 0 (its numeric columns and one for each categorical one), so a round costs
//! n (numeric + categorical)^2 / 2 + d^3 / 3. Memory: 17 d^2 numbers.

use super::super::detector::{Detector, Fitted};
use super::super::prepare::{Flows, Layout};
use ndarray::{Array1, Array2};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::linalg::cholesky;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Options.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct LogisticRegression {
    /// Weight of the data against the pull of the weights to 0.
    #[schemars(range(min = 1e-6, max = 1e6))]
    pub c: f64,
}

impl Default for LogisticRegression {
    fn default() -> Self {
        LogisticRegression { c: 1.0 }
    }
}

impl Method for LogisticRegression {
    const FACTS: Facts = Facts {
        name: "logistic-regression",
        about: "a weighted sum of one flow's columns",
        paper: None,
        streams: true,
    };
}

/// Partial sums over rows: a fixed number, so that threads do not change them.
const PARTS: usize = 16;

const ROUNDS: usize = 50;

impl Detector for LogisticRegression {
    fn fit(
        &self,
        flows: &Flows,
        train: &[usize],
        _: usize,
        context: &Context,
    ) -> Result<Box<dyn Fitted>> {
        let (attacks, benign) = super::classes(flows, train)?;
        let of_class = super::weights(attacks.len(), benign.len());
        let width = flows.layout.one_hot() + 1;
        context.require(
            "the second derivatives",
            (8 * (PARTS + 1) * width * width) as u64,
        )?;
        let problem = Problem {
            flows,
            labels: flows.labels()?,
            train,
            of_class,
            pull: 1.0 / self.c,
            width,
        };
        let weights = problem.minimise(context)?;
        Ok(Box::new(Model {
            layout: (*flows.layout).clone(),
            weights,
        }))
    }
}

/// Calls `each` with every number of a flow that may be other than 0, and its column, ascending; the last is the
/// constant of the intercept.
fn numbers(flows: &Flows, row: usize, mut each: impl FnMut(usize, f64)) {
    let values = flows.numbers_of(row);
    for (column, value) in values.iter().enumerate() {
        each(column, f64::from(*value));
    }
    let mut first = values.len();
    for (code, codes) in flows.codes_of(row).iter().zip(&flows.layout.codes) {
        each(first + *code as usize, 1.0);
        first += codes;
    }
    each(first, 1.0);
}

/// x.w + b.
fn sum(flows: &Flows, row: usize, weights: &[f64]) -> f64 {
    let mut z = 0.0;
    numbers(flows, row, |column, value| z += weights[column] * value);
    z
}

struct Problem<'a> {
    flows: &'a Flows,
    labels: &'a [bool],
    train: &'a [usize],
    of_class: [f64; 2],
    pull: f64,
    width: usize,
}

impl Problem<'_> {
    fn parts(&self) -> rayon::slice::Chunks<'_, usize> {
        self.train.par_chunks(self.train.len().div_ceil(PARTS))
    }

    fn sign_and_weight(&self, row: usize) -> (f64, f64) {
        let attack = self.labels[row];
        let sign = if attack { 1.0 } else { -1.0 };
        (sign, self.of_class[usize::from(attack)])
    }

    fn objective(&self, w: &[f64]) -> f64 {
        let of_part = |rows: &[usize]| -> f64 {
            let of_row = |row: &usize| {
                let (y, v) = self.sign_and_weight(*row);
                let against = -y * sum(self.flows, *row, w);
                v * (against.max(0.0) + (-against.abs()).exp().ln_1p())
            };
            rows.iter().map(of_row).sum()
        };
        let parts: Vec<f64> = self.parts().map(of_part).collect();
        let free = &w[..self.width - 1];
        parts.iter().sum::<f64>() + self.pull / 2.0 * free.iter().map(|x| x * x).sum::<f64>()
    }

    /// First and second derivatives; of the second only one triangle.
    fn derivatives(&self, w: &[f64]) -> (Array1<f64>, Array2<f64>) {
        let d = self.width;
        let of_part = |rows: &[usize]| {
            let mut g = Array1::zeros(d);
            let mut h = Array2::zeros((d, d));
            let mut few: Vec<(usize, f64)> = Vec::new();
            for row in rows {
                let (y, v) = self.sign_and_weight(*row);
                few.clear();
                let mut z = 0.0;
                numbers(self.flows, *row, |column, value| {
                    z += w[column] * value;
                    if value != 0.0 {
                        few.push((column, value));
                    }
                });
                let slope = -v * y / (1.0 + (y * z).exp());
                let p = 1.0 / (1.0 + (-z).exp());
                let curvature = v * p * (1.0 - p);
                for (i, (a, value)) in few.iter().enumerate() {
                    g[*a] += slope * value;
                    let scaled = curvature * value;
                    for (b, other) in &few[..=i] {
                        h[[*a, *b]] += scaled * other;
                    }
                }
            }
            (g, h)
        };
        let parts: Vec<(Array1<f64>, Array2<f64>)> = self.parts().map(of_part).collect();
        let mut g = Array1::zeros(d);
        let mut h = Array2::zeros((d, d));
        for (part_g, part_h) in &parts {
            g += part_g;
            h += part_h;
        }
        for i in 0..d - 1 {
            g[i] += self.pull * w[i];
            h[[i, i]] += self.pull;
        }
        // A column of one value and a class told without doubt leave the intercept free.
        h[[d - 1, d - 1]] += 1e-9;
        (g, h)
    }

    fn minimise(&self, context: &Context) -> Result<Vec<f64>> {
        let mut w = vec![0.0; self.width];
        let mut value = self.objective(&w);
        for round in 0..ROUNDS {
            context.step("logistic regression", round, ROUNDS);
            let (g, h) = self.derivatives(&w);
            let factor = cholesky(h.view())
                .map_err(|e| Error::Failed(format!("logistic regression: {e}")))?;
            let step = factor.solve_vector((-&g).view());
            let fall = -g.dot(&step);
            if fall <= 1e-10 * value {
                break;
            }
            let mut length = 1.0;
            loop {
                let next: Vec<f64> = w.iter().zip(&step).map(|(w, t)| w + length * t).collect();
                let found = self.objective(&next);
                if found <= value - 1e-4 * length * fall {
                    (w, value) = (next, found);
                    break;
                }
                length /= 2.0;
                if length < 1e-6 {
                    return Ok(w);
                }
            }
        }
        Ok(w)
    }
}

/// The fitted weights, the intercept last.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Model {
    layout: Layout,
    weights: Vec<f64>,
}

impl Fitted for Model {
    fn window(&self) -> usize {
        1
    }

    fn parameters(&self) -> usize {
        self.weights.len()
    }

    fn score(&self, flows: &Flows, rows: &[usize], _: &Context) -> Result<Vec<f32>> {
        super::check(flows, &self.layout, rows, 1)?;
        if self.weights.len() != self.layout.one_hot() + 1 {
            return Err(Error::Failed(
                "the detector's weights do not fit its columns".into(),
            ));
        }
        let score = |row: &usize| (1.0 / (1.0 + (-sum(flows, *row, &self.weights)).exp())) as f32;
        Ok(rows.par_iter().with_min_len(1024).map(score).collect())
    }

    fn save(&self, folder: &Path) -> Result<bool> {
        super::write(self, folder)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::flows;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn the_gradient_vanishes_and_is_that_of_the_objective(seed in 0u64..99, c in 0.01f64..100.0) {
            let mut some = flows(120, false, seed);
            // Attacks that no column tells apart fully.
            let mixed = (0..120).map(|r| some.codes[r] == 2 && some.numeric[2 * r] > 0.3 || r % 11 == 0).collect();
            some.attack = Some(mixed);
            let train: Vec<usize> = (0..120).collect();
            let (attacks, benign) = super::super::classes(&some, &train).unwrap();
            let problem = Problem {
                flows: &some,
                labels: some.labels().unwrap(),
                train: &train,
                of_class: super::super::weights(attacks.len(), benign.len()),
                pull: 1.0 / c,
                width: 7,
            };
            let w = problem.minimise(&Context::with_seed(0)).unwrap();
            let (g, _) = problem.derivatives(&w);
            prop_assert!(g.iter().all(|g| g.abs() < 1e-2), "{g:?}");
            let start: Vec<f64> = (0..7).map(|i| 0.3 * i as f64 - 1.0).collect();
            let (g, h) = problem.derivatives(&start);
            for i in 0..7 {
                let at = |step: f64| {
                    let mut w = start.clone();
                    w[i] += step;
                    w
                };
                let slope = (problem.objective(&at(1e-5)) - problem.objective(&at(-1e-5))) / 2e-5;
                prop_assert!((slope - g[i]).abs() < 1e-4 * (1.0 + slope.abs()), "{slope} {}", g[i]);
                let (up, down) = (problem.derivatives(&at(1e-5)).0, problem.derivatives(&at(-1e-5)).0);
                for j in 0..=i {
                    let curvature = (up[j] - down[j]) / 2e-5;
                    prop_assert!((curvature - h[[i, j]]).abs() < 1e-4 * (1.0 + curvature.abs()));
                }
            }
        }
    }
}
