//! Gaussian mixture whose number of groups and form of covariance the data choose.
//!
//! Baseline. Schwarz, *Estimating the dimension of a model*, 1978; Fraley and Raftery, *Model-based clustering,
//! discriminant analysis, and density estimation*, 2002, for the search over numbers and forms.
//!
//! 1. For every k of the range, group the rows X \[n, d\] by k-means, once for each start.
//! 2. From each grouping fit a mixture with each of the four forms of covariance; of several starts keep the
//!    highest log-likelihood L.
//! 3. With p free parameters, BIC = -2 L + p ln n. Keep the mixture with the lowest; of equal ones that with the
//!    fewest groups, then the fewest parameters.
//!
//! A fit that fails is left out and told. With few rows for a group, a singular covariance can win by a likelihood
//! that only the ridge bounds; the notes of the winner then say that covariances were singular.
//!
//! Cost: that of four fits of a Gaussian mixture for each k and start. Memory: that of two fits with the largest k.

use super::gaussian_mixture::{grouping, mixture_bytes};
use super::{Clusterer, Grouping, Points};
use crate::gaussian::{self, Covariance, Mixture};
use papertrial_core::task::{Context, Curve, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the Gaussian mixture chosen by BIC.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct GaussianMixtureBic {
    /// Fewest clusters tried.
    #[schemars(range(min = 1))]
    pub k_min: usize,
    /// Most clusters tried.
    #[schemars(range(min = 1))]
    pub k_max: usize,
    /// Starts of each fit, of which the one with the highest likelihood is kept.
    #[schemars(range(min = 1))]
    pub starts: usize,
    /// Added to every variance, as a share of the mean variance of the columns.
    #[schemars(range(min = 0.0))]
    pub ridge: f64,
    /// A fit ends when the mean log-likelihood of a row moves by no more than this in a round.
    #[schemars(range(min = 0.0))]
    pub tolerance: f64,
    /// Rounds of a start at most.
    #[schemars(range(min = 1))]
    pub max_rounds: usize,
}

impl Default for GaussianMixtureBic {
    fn default() -> Self {
        GaussianMixtureBic {
            k_min: 1,
            k_max: 10,
            starts: 1,
            ridge: 1e-6,
            tolerance: 1e-3,
            max_rounds: 100,
        }
    }
}

impl Method for GaussianMixtureBic {
    const FACTS: Facts = Facts {
        name: "gaussian-mixture-bic",
        about: "Gaussian mixture, its number of groups and form of covariance chosen by BIC",
        paper: None,
        streams: false,
    };
}

/// The forms, from the fewest parameters to the most in all but narrow tables.
const FORMS: [(Covariance, &str); 4] = [
    (Covariance::Spherical, "spherical"),
    (Covariance::Diagonal, "diagonal"),
    (Covariance::Tied, "tied"),
    (Covariance::Full, "full"),
];

/// The best mixture so far.
struct Choice {
    bic: f64,
    parameters: usize,
    k: usize,
    form: &'static str,
    mixture: Mixture,
}

impl Clusterer for GaussianMixtureBic {
    fn fit(&self, points: &Points, context: &Context) -> Result<Grouping> {
        points.check_k(self.k_min).map_err(|e| rename(e, "k-min"))?;
        if self.k_max < self.k_min {
            return Err(Error::option(
                "k-max",
                format!("{} is below k-min, {}", self.k_max, self.k_min),
            ));
        }
        let x = points.matrix(context)?.view();
        let (n, d) = x.dim();
        let mut notes = Vec::new();
        let k_max = self.k_max.min(n);
        if k_max < self.k_max {
            notes.push(format!("k-max was lowered to {n}, the number of rows"));
        }
        let fit = mixture_bytes(n, d, k_max, Covariance::Full);
        context.require("the mixtures", fit.saturating_mul(2))?;
        let mut settings = gaussian::Settings {
            covariance: Covariance::Full,
            ridge: gaussian::absolute_ridge(x, self.ridge),
            tolerance: self.tolerance,
            max_rounds: self.max_rounds,
        };
        let mut curves = FORMS.map(|(_, form)| Curve {
            name: format!("BIC, {form}"),
            x: "clusters".into(),
            y: "BIC".into(),
            points: Vec::new(),
        });
        let mut best: Option<Choice> = None;
        let mut failures = Vec::new();
        for k in self.k_min..=k_max {
            context.step(
                "choosing the number of clusters",
                k - self.k_min,
                k_max + 1 - self.k_min,
            );
            // Step 1.
            let starts = (0..self.starts).map(|start| {
                let purpose = format!("gaussian-mixture-bic k {k} start {start}");
                gaussian::k_means_start(x, k, sampling::rng(context.seed, &purpose).random())
            });
            let starts: Vec<_> = starts.collect::<Result<_>>()?;
            for ((covariance, form), curve) in FORMS.into_iter().zip(&mut curves) {
                // Step 2.
                settings.covariance = covariance;
                let mut likeliest: Option<Mixture> = None;
                for start in &starts {
                    match gaussian::fit(x, start, &settings) {
                        Ok(found)
                            if likeliest
                                .as_ref()
                                .is_none_or(|b| found.log_likelihood > b.log_likelihood) =>
                        {
                            likeliest = Some(found);
                        }
                        Ok(_) => {}
                        Err(e) => failures.push(format!("k = {k}, {form}: {e}")),
                    }
                }
                let Some(mixture) = likeliest else { continue };
                // Step 3.
                let parameters = gaussian::free_parameters(k, d, covariance);
                let bic = gaussian::bic(mixture.log_likelihood, parameters, n);
                curve.points.push((k as f64, bic));
                let better = best.as_ref().is_none_or(|b| {
                    bic < b.bic || (bic == b.bic && k == b.k && parameters < b.parameters)
                });
                if better {
                    best = Some(Choice {
                        bic,
                        parameters,
                        k,
                        form,
                        mixture,
                    });
                }
            }
        }
        let Some(best) = best else {
            let first = failures.into_iter().next().unwrap_or_default();
            return Err(Error::Failed(format!(
                "no mixture could be fitted: {first}"
            )));
        };
        notes.push(format!(
            "chosen by BIC: {} clusters, {} covariances",
            best.k, best.form
        ));
        if best.k == self.k_max && self.k_max > self.k_min {
            notes.push("the largest number of clusters was chosen: raise k-max".into());
        }
        if let Some(first) = failures.first() {
            notes.push(format!(
                "{} fits failed and were left out, first {first}",
                failures.len()
            ));
        }
        let mut found = grouping(best.mixture, context);
        found.curves.extend(curves);
        notes.append(&mut found.notes);
        found.notes = notes;
        Ok(found)
    }
}

fn rename(error: Error, option: &str) -> Error {
    match error {
        Error::Option { problem, .. } => Error::option(option, problem),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, Axis, array, concatenate};
    use proptest::prelude::*;
    use rand_distr::StandardNormal;

    fn normal(n: usize, d: usize, seed: u64) -> Array2<f64> {
        let mut rng = sampling::rng(seed, "normal");
        Array2::from_shape_fn((n, d), |_| rng.sample(StandardNormal))
    }

    fn fit(method: &GaussianMixtureBic, x: Array2<f64>, seed: u64) -> Result<Grouping> {
        method.fit(&Points::from_matrix(x)?, &Context::with_seed(seed))
    }

    fn chosen(found: &Grouping) -> &str {
        found
            .notes
            .iter()
            .find(|n| n.starts_with("chosen"))
            .unwrap()
    }

    #[test]
    fn one_group_has_the_criterion_of_hand() {
        // Mean 3, variance 4, two rows at one deviation: L = 2 (-ln(2 pi) / 2 - ln 2 - 1/2); p = 2, n = 2.
        let method = GaussianMixtureBic {
            k_max: 1,
            ridge: 0.0,
            ..GaussianMixtureBic::default()
        };
        let found = fit(&method, array![[1.0], [5.0]], 0).unwrap();
        let likelihood = -std::f64::consts::TAU.ln() - 2.0 * 2_f64.ln() - 1.0;
        let hand = -2.0 * likelihood + 2.0 * 2_f64.ln();
        // In one column all forms are the same; the first of them is kept.
        for curve in found.curves.iter().filter(|c| c.name.starts_with("BIC")) {
            assert!((curve.points[0].1 - hand).abs() < 1e-12, "{curve:?}");
        }
        assert_eq!(
            chosen(&found),
            "chosen by BIC: 1 clusters, spherical covariances"
        );
    }

    #[test]
    fn number_and_form_of_clear_groups_are_found() {
        let far = |x: f64, y: f64| array![x, y];
        let round = |seed| normal(150, 2, seed);
        let x = concatenate![
            Axis(0),
            round(1),
            round(2) + far(20.0, 0.0),
            round(3) + far(0.0, 20.0)
        ];
        let found = fit(&GaussianMixtureBic::default(), x.clone(), 0).unwrap();
        assert_eq!(
            chosen(&found),
            "chosen by BIC: 3 clusters, spherical covariances"
        );
        assert_eq!(found.groups(), 3);
        // The same groups, all stretched along one slanted line.
        let slanted = x.dot(&array![[3.0, 2.9], [0.0, 1.0]]);
        let found = fit(&GaussianMixtureBic::default(), slanted, 0).unwrap();
        assert_eq!(
            chosen(&found),
            "chosen by BIC: 3 clusters, tied covariances"
        );
        // Two groups that slant against each other.
        let x = concatenate![
            Axis(0),
            round(4).dot(&array![[3.0, 2.9], [0.0, 0.5]]),
            round(5).dot(&array![[3.0, -2.9], [0.0, 0.5]]) + far(40.0, 0.0)
        ];
        let found = fit(&GaussianMixtureBic::default(), x, 0).unwrap();
        assert_eq!(
            chosen(&found),
            "chosen by BIC: 2 clusters, full covariances"
        );
    }

    #[test]
    fn the_edges_are_survived_or_refused() {
        let method = GaussianMixtureBic::default();
        assert_eq!(fit(&method, array![[1.0, 2.0]], 0).unwrap().labels, [0]);
        let found = fit(&method, Array2::from_elem((12, 2), 3.0), 0).unwrap();
        assert_eq!(found.groups(), 1);
        let found = fit(&method, normal(4, 7, 0), 0).unwrap();
        assert!(found.notes.iter().any(|n| n.contains("lowered to 4")));
        let bad = |k_min, k_max| GaussianMixtureBic {
            k_min,
            k_max,
            ..GaussianMixtureBic::default()
        };
        let e = fit(&bad(5, 9), normal(4, 2, 0), 0).unwrap_err();
        assert!(e.to_string().contains("k-min"), "{e}");
        assert!(fit(&bad(0, 3), normal(4, 2, 0), 0).is_err());
        let e = fit(&bad(3, 2), normal(4, 2, 0), 0).unwrap_err();
        assert!(e.to_string().contains("k-max"), "{e}");
        // Without a ridge rows that are all equal have no density at all.
        let none = GaussianMixtureBic {
            ridge: 0.0,
            ..GaussianMixtureBic::default()
        };
        let e = fit(&none, Array2::from_elem((12, 2), 3.0), 0).unwrap_err();
        assert!(e.to_string().contains("ridge"), "{e}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn the_choice_is_the_lowest_point_of_the_curves(seed in 0_u64..1000) {
            let method = GaussianMixtureBic {
                k_max: 4,
                ..GaussianMixtureBic::default()
            };
            let x = concatenate![Axis(0), normal(40, 2, seed), normal(40, 2, seed + 1) + 6.0];
            let found = fit(&method, x, seed).unwrap();
            let points = found.curves.iter().filter(|c| c.name.starts_with("BIC"));
            let lowest = points
                .flat_map(|c| c.points.iter().map(move |p| (p.1, p.0, c.name.clone())))
                .min_by(|a, b| a.0.total_cmp(&b.0))
                .unwrap();
            let form = lowest.2.trim_start_matches("BIC, ");
            prop_assert_eq!(
                chosen(&found),
                format!("chosen by BIC: {} clusters, {form} covariances", lowest.1)
            );
        }
    }
}
