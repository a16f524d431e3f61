//! G-means: k-means that splits every cluster whose rows do not look Gaussian.
//!
//! Baseline. Hamerly and Elkan, *Learning the k in k-means*, 2003.
//!
//! X \[n, d\] rows.
//! 1. One centre: the mean.
//! 2. For each centre c with its rows: children c + m and c - m, m = s sqrt(2 lambda / pi), s the principal direction of
//!    the rows and lambda its variance; 2-means from there.
//! 3. Project the rows on v, the line between the children; Anderson-Darling test of normality with estimated mean and
//!    variance. Above the critical value the children replace c.
//! 4. k-means on all rows from the centres so found. Repeat from step 2 until no centre is replaced.
//!
//! The default critical value, 1.8692, belongs to the paper's level 0.0001.
//!
//! Cost: O(n k d) a round, and O(n d^2 + k d^3) for the principal directions. No random numbers.

use super::x_means::{failed, rows_of, stacked};
use super::{Clusterer, Grouping, Model, Points};
use ndarray::{Array1, Array2, Axis};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::kmeans::{KMeansOptions, kmeans, kmeans_from};
use papertrial_numerics::linalg::pca;
use papertrial_numerics::stats::anderson_darling;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of G-means.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct GMeans {
    /// Clusters at most.
    #[schemars(range(min = 1))]
    pub k_max: usize,
    /// Anderson-Darling statistic above which a cluster is split.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub critical: f64,
}

impl Default for GMeans {
    fn default() -> Self {
        GMeans {
            k_max: 100,
            critical: 1.8692,
        }
    }
}

impl Method for GMeans {
    const FACTS: Facts = Facts {
        name: "g-means",
        about: "k-means that splits every cluster whose rows do not look Gaussian",
        paper: None,
        streams: false,
    };
}

impl Clusterer for GMeans {
    fn fit(&self, points: &Points, context: &Context) -> Result<Grouping> {
        let x = points.matrix(context)?;
        // Step 1.
        let mut now = kmeans(x.view(), None, &KMeansOptions::new(1)).map_err(failed)?;
        loop {
            let k = now.centres.nrows();
            context.step("splitting", k, self.k_max);
            let mut centres: Vec<Array1<f64>> = Vec::new();
            for (cluster, centre) in now.centres.outer_iter().enumerate() {
                let room = centres.len() + 2 + (k - cluster - 1) <= self.k_max;
                let rows = rows_of(&now.labels, cluster as u32);
                let children = if room {
                    self.children(&x.select(Axis(0), &rows))?
                } else {
                    None
                };
                match children {
                    Some(two) => centres.extend(two.outer_iter().map(|c| c.to_owned())),
                    None => centres.push(centre.to_owned()),
                }
            }
            if centres.len() == k {
                break;
            }
            // Step 4.
            let start = stacked(&centres)?;
            now = kmeans_from(x.view(), None, start.view(), 300, 1e-4).map_err(failed)?;
        }
        let mut notes = Vec::new();
        if now.centres.nrows() == self.k_max {
            notes.push(format!(
                "stopped at k-max {}; some clusters may not look Gaussian",
                self.k_max
            ));
        }
        Ok(Grouping {
            labels: now.labels.iter().map(|l| *l as i32).collect(),
            model: Some(Model::centres(&now.centres)),
            notes,
            ..Grouping::default()
        })
    }
}

impl GMeans {
    /// Steps 2 and 3: the two centres that replace a cluster, or none if its rows look Gaussian.
    fn children(&self, rows: &Array2<f64>) -> Result<Option<Array2<f64>>> {
        // The test needs eight rows.
        if rows.nrows() < 8 {
            return Ok(None);
        }
        let pca = pca(rows.view(), 1).map_err(|e| Error::Failed(e.to_string()))?;
        let lambda = pca.variances[0];
        if lambda == 0.0 {
            return Ok(None);
        }
        let mean = &pca.mean;
        let m = &pca.axes.row(0) * (2.0 * lambda / std::f64::consts::PI).sqrt();
        let start = ndarray::stack![Axis(0), mean + &m, mean - &m];
        let two = kmeans_from(rows.view(), None, start.view(), 300, 1e-4).map_err(failed)?;
        let v = &two.centres.row(0) - &two.centres.row(1);
        let length = v.dot(&v).sqrt();
        if length == 0.0 {
            return Ok(None);
        }
        // The test does not depend on the unit; along a direction of length 1 nothing overflows.
        let projected = (rows - mean).dot(&(v / length)).to_vec();
        let statistic = anderson_darling(&projected).map_err(|e| Error::Failed(e.to_string()))?;
        Ok(statistic
            .filter(|a| *a > self.critical)
            .map(|_| two.centres))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use papertrial_numerics::sampling::rng;
    use proptest::prelude::*;
    use rand_distr::{Distribution, StandardNormal};

    fn fit(x: Array2<f64>) -> Grouping {
        GMeans::default()
            .fit(&Points::from_matrix(x).unwrap(), &Context::with_seed(0))
            .unwrap()
    }

    fn normal(n: usize, gap: f64) -> Array2<f64> {
        let mut draw = rng(2, "normal");
        Array2::from_shape_fn((n, 2), |(i, j)| {
            let noise: f64 = StandardNormal.sample(&mut draw);
            noise * if j == 0 { 1.0 } else { 3.0 } + if i % 2 == 0 { gap } else { 0.0 }
        })
    }

    #[test]
    fn one_gaussian_stays_whole_and_two_are_parted() {
        assert_eq!(fit(normal(400, 0.0)).groups(), 1);
        let two = fit(normal(400, 15.0));
        assert_eq!(two.groups(), 2);
        assert!((0..398).all(|i| two.labels[i] == two.labels[i + 2]));
    }

    #[test]
    fn edges() {
        assert_eq!(fit(array![[1.0]]).labels, [0]);
        assert_eq!(fit(Array2::ones((20, 3))).groups(), 1);
        // More columns than rows, one of them constant.
        let wide = Array2::from_shape_fn((10, 30), |(i, j)| ((i * j) % 7) as f64);
        assert_eq!(fit(wide).labels.len(), 10);
        let two = normal(200, 15.0);
        assert_eq!(fit(&two * 1e150).labels, fit(two).labels);
        // Far apart, but too few rows for the test.
        assert_eq!(fit(array![[0.0], [100.0], [0.0], [100.0]]).groups(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn the_seed_changes_nothing_and_k_max_is_kept(values in prop::collection::vec(-9.0..9.0f64, 80), most in 1usize..5) {
            let points = Points::from_matrix(Array2::from_shape_vec((40, 2), values).unwrap()).unwrap();
            let method = GMeans { k_max: most, critical: 0.3 };
            let labels = |seed| method.fit(&points, &Context::with_seed(seed)).unwrap();
            prop_assert!(labels(0).groups() <= most);
            prop_assert_eq!(labels(0).labels, labels(1).labels);
        }
    }
}
