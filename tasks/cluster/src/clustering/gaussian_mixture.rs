//! Gaussian mixture: groups as normal distributions, fitted by expectation and maximisation.
//!
//! Baseline. Dempster, Laird and Rubin, *Maximum likelihood from incomplete data via the EM algorithm*, 1977.
//!
//! X \[n, d\] rows; k components with weights w \[k\], means m \[k, d\] and covariances S \[k, d, d\] of the chosen
//! form; R \[n, k\] the probability that a row comes from a component.
//! 1. Start. `k-means`: R gives each row wholly to its group by one run of k-means, and an M-step follows.
//!    `random`: m are k different rows drawn at random, every S is the covariance of all rows, w is 1 / k.
//! 2. Repeat: R from w, m and S (E-step), then w, m and S from R (M-step), until the log-likelihood of a row moves
//!    by no more than the tolerance on average, or the rounds are used up. The formulas, the ridge on the diagonals
//!    and what becomes of empty components stand in the crate's file on mixtures.
//! 3. Of several starts keep the one with the highest log-likelihood. A row's label is its most probable component.
//!
//! Where a group shrinks onto a few rows the likelihood has no bound; the ridge keeps it finite.
//!
//! Cost of a round: full about 1.5 n k d^2 operations at most, tied n d^2 + n k d, diagonal and spherical 2 n k d.
//! Memory: 3 n k numbers and, full, at most (32 + 3 k) d^2.

use super::{Clusterer, Grouping, Model, Points};
use crate::gaussian::{self, Covariance, Mixture};
use papertrial_core::Result;
use papertrial_core::task::{Context, Curve, Facts, Method, matrix_bytes};
use papertrial_numerics::sampling;
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the Gaussian mixture.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct GaussianMixture {
    /// Number of clusters.
    #[schemars(range(min = 1))]
    pub k: usize,
    /// Form of the covariances.
    pub covariance: Covariance,
    /// How a fit starts.
    pub init: MixtureInit,
    /// Starts, of which the one with the highest likelihood is kept.
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

/// How the fit of a mixture starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MixtureInit {
    /// From the groups of one run of k-means.
    KMeans,
    /// From different rows as means and the covariance of all rows.
    Random,
}

impl Default for GaussianMixture {
    fn default() -> Self {
        GaussianMixture {
            k: 8,
            covariance: Covariance::Full,
            init: MixtureInit::KMeans,
            starts: 1,
            ridge: 1e-6,
            tolerance: 1e-3,
            max_rounds: 100,
        }
    }
}

impl Method for GaussianMixture {
    const FACTS: Facts = Facts {
        name: "gaussian-mixture",
        about: "normal distributions fitted by expectation and maximisation",
        paper: None,
        streams: false,
    };
}

impl Clusterer for GaussianMixture {
    fn fit(&self, points: &Points, context: &Context) -> Result<Grouping> {
        points.check_k(self.k)?;
        let x = points.matrix(context)?.view();
        let (n, d) = x.dim();
        context.require("the mixture", mixture_bytes(n, d, self.k, self.covariance))?;
        let settings = gaussian::Settings {
            covariance: self.covariance,
            ridge: gaussian::absolute_ridge(x, self.ridge),
            tolerance: self.tolerance,
            max_rounds: self.max_rounds,
        };
        let mut best: Option<Mixture> = None;
        for start in 0..self.starts {
            context.step("fitting mixtures", start, self.starts);
            let mut rng = sampling::rng(context.seed, &format!("gaussian-mixture start {start}"));
            // Steps 1 and 2.
            let found = match self.init {
                MixtureInit::KMeans => {
                    let labels = gaussian::k_means_start(x, self.k, rng.random())?;
                    gaussian::fit(x, &labels, &settings)?
                }
                MixtureInit::Random => {
                    let rows = sampling::sample_shuffled(&mut rng, n, self.k)
                        .map_err(|e| papertrial_core::Error::Failed(e.to_string()))?;
                    let means = x.select(ndarray::Axis(0), &rows);
                    gaussian::fit_from_means(x, means, &settings)?
                }
            };
            // Step 3.
            if best
                .as_ref()
                .is_none_or(|b| found.log_likelihood > b.log_likelihood)
            {
                best = Some(found);
            }
        }
        best.map(|mixture| grouping(mixture, context))
            .ok_or_else(|| papertrial_core::Error::option("starts", "there must be at least one"))
    }
}

/// Memory of a fit with n rows, d columns and k components, beside the rows.
pub(super) fn mixture_bytes(n: usize, d: usize, k: usize, covariance: Covariance) -> u64 {
    let (n, d, k) = (n as u64, d as u64, k as u64);
    let matrices = match covariance {
        Covariance::Full => 32 + 3 * k,
        Covariance::Tied => 32,
        Covariance::Diagonal | Covariance::Spherical => 0,
    };
    matrix_bytes(n, 3 * k).saturating_add(matrix_bytes(matrices * d, d))
}

/// What a fitted mixture says of its rows.
pub(super) fn grouping(mixture: Mixture, context: &Context) -> Grouping {
    let (k, d) = mixture.means.dim();
    let mut notes = mixture.remarks();
    // The model writes out all covariances, twice on the way: for many columns that is far more than the fit needs.
    let written = matrix_bytes(3 * k as u64 * d as u64, d as u64);
    let model = match context.require("the model", written) {
        Ok(()) => Some(Model::gaussians(
            &mixture.weights,
            &mixture.means,
            &mixture.full_covariances(),
        )),
        Err(e) => {
            notes.push(format!("no model was kept: {e}"));
            None
        }
    };
    Grouping {
        labels: mixture.labels(),
        model,
        curves: vec![Curve {
            name: "log-likelihood".into(),
            x: "round".into(),
            y: "log-likelihood".into(),
            points: (0..).map(f64::from).zip(mixture.curve).collect(),
        }],
        memberships: Some(mixture.responsibilities),
        notes,
        ..Grouping::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, Axis, array, concatenate};
    use proptest::prelude::*;
    use rand_distr::StandardNormal;

    const FORMS: [Covariance; 4] = [
        Covariance::Full,
        Covariance::Tied,
        Covariance::Diagonal,
        Covariance::Spherical,
    ];

    fn normal(n: usize, d: usize, seed: u64) -> Array2<f64> {
        let mut rng = sampling::rng(seed, "normal");
        Array2::from_shape_fn((n, d), |_| rng.sample(StandardNormal))
    }

    fn fit(method: &GaussianMixture, x: Array2<f64>, seed: u64) -> Result<Grouping> {
        method.fit(&Points::from_matrix(x)?, &Context::with_seed(seed))
    }

    #[test]
    fn two_pairs_have_the_likelihood_of_hand() {
        // Each pair has variance 1 about its mean, and weight 1/2: four rows at one deviation, all with
        // ln(1/2) - ln(2 pi) / 2 - 1/2.
        let x = array![[0.0], [2.0], [100.0], [102.0]];
        let method = GaussianMixture {
            k: 2,
            ridge: 0.0,
            ..GaussianMixture::default()
        };
        let found = fit(&method, x, 1).unwrap();
        assert!(found.labels[0] == found.labels[1] && found.labels[2] == found.labels[3]);
        assert_ne!(found.labels[0], found.labels[2]);
        let hand = 4.0 * (0.5_f64.ln() - 0.5 * std::f64::consts::TAU.ln() - 0.5);
        let reached = found.curves[0].points.last().unwrap().1;
        assert!((reached - hand).abs() < 1e-9, "{reached} {hand}");
    }

    #[test]
    fn long_groups_that_k_means_cuts_are_found_with_full_covariances() {
        // Two parallel bars, 20 long and 1 thick, 2 apart.
        let mut a = normal(300, 2, 1) * array![6.0, 0.2];
        let b = normal(300, 2, 2) * array![6.0, 0.2] + array![0.0, 2.0];
        a = concatenate![Axis(0), a, b];
        let method = GaussianMixture {
            k: 2,
            starts: 10,
            init: MixtureInit::Random,
            tolerance: 1e-6,
            max_rounds: 500,
            ..GaussianMixture::default()
        };
        let found = fit(&method, a.clone(), 0).unwrap();
        let agree = (0..600).filter(|i| (found.labels[*i] == found.labels[0]) == (*i < 300));
        assert!(agree.count() > 590);
        // The model says of the same rows what the fit said.
        let (labels, memberships) = found.model.unwrap().label(&a).unwrap();
        assert_eq!(labels, found.labels);
        let gap = memberships.unwrap() - found.memberships.unwrap();
        assert!(gap.iter().all(|g| g.abs() < 1e-9));
    }

    #[test]
    fn more_starts_never_lower_the_likelihood() {
        let x = normal(200, 3, 5);
        let reached = |starts, init| {
            let method = GaussianMixture {
                k: 4,
                starts,
                init,
                ..GaussianMixture::default()
            };
            fit(&method, x.clone(), 3).unwrap().curves[0]
                .points
                .last()
                .unwrap()
                .1
        };
        for init in [MixtureInit::KMeans, MixtureInit::Random] {
            assert!(reached(8, init) >= reached(1, init));
        }
    }

    #[test]
    fn the_edges_have_defined_results() {
        for covariance in FORMS {
            for init in [MixtureInit::KMeans, MixtureInit::Random] {
                let method = |k| GaussianMixture {
                    k,
                    covariance,
                    init,
                    ..GaussianMixture::default()
                };
                assert_eq!(fit(&method(1), array![[3.0, 4.0]], 0).unwrap().labels, [0]);
                // All rows equal, k = n, a constant column, more columns than rows.
                for (k, x) in [
                    (3, Array2::from_elem((5, 2), 7.0)),
                    (6, normal(6, 2, 0)),
                    (2, normal(9, 2, 1) * array![1.0, 0.0]),
                    (2, normal(4, 9, 2)),
                    (2, concatenate![Axis(0), normal(3, 2, 3), normal(3, 2, 3)]),
                ] {
                    let found = fit(&method(k), x, 0).unwrap();
                    let memberships = found.memberships.unwrap();
                    assert!(memberships.iter().all(|m| m.is_finite()));
                    assert!(found.labels.iter().all(|l| (0..k as i32).contains(l)));
                }
                assert!(fit(&method(0), normal(3, 1, 0), 0).is_err());
                assert!(fit(&method(4), normal(3, 1, 0), 0).is_err());
            }
        }
    }

    #[test]
    fn too_few_rounds_are_told() {
        let method = GaussianMixture {
            k: 3,
            max_rounds: 1,
            ..GaussianMixture::default()
        };
        let found = fit(&method, normal(50, 2, 0), 0).unwrap();
        assert!(found.notes.iter().any(|n| n.contains("did not converge")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn other_units_change_nothing(seed in 0_u64..1000, form in 0_usize..4, power in -12_i32..12) {
            // The ridge is relative: multiplied by a power of two, every number keeps its bits.
            let method = GaussianMixture {
                k: 3,
                covariance: FORMS[form],
                ..GaussianMixture::default()
            };
            let x = normal(60, 2, seed);
            let one = fit(&method, x.clone(), seed).unwrap();
            let other = fit(&method, x * 2_f64.powi(power), seed).unwrap();
            prop_assert_eq!(one.labels, other.labels);
        }
    }
}
