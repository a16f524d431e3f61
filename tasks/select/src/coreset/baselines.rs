//! What AutoCoreset is compared with: uniform samples, the best of many, the seeds of k-means++, and all rows.
//!
//! - uniform: m rows drawn with replacement, weight n/m each, one fit.
//! - best-of-uniform: that many times over, the sample whose model has the lowest loss on all rows. It spends as many fits
//!   and passes over all rows as AutoCoreset does with as many models, so it is the fair rival.
//! - k-means-plus-plus: within each class (shares kept) the rows that greedy k-means++ would seed clusters with, far from each
//!   other, each weighted by the rows that are nearest to it (Arthur and Vassilvitskii 2007; as a coreset: Ackermann et al.,
//!   *StreamKM++*, 2012).
//! - full-data: all rows, weight 1: what a coreset gives away is measured from here.

use super::draws::{Chosen, every_class, members, uniform};
use super::problem::{Problem, checked_losses, total};
use super::quotas::{Quotas, quotas};
use super::{Chooser, Coreset, all_rows, too_small};
use ndarray::{Array2, Axis};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::nearest;
use papertrial_numerics::{kmeans, sampling};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of a uniform sample: none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Uniform {}

impl Method for Uniform {
    const FACTS: Facts = Facts {
        name: "uniform",
        about: "draws rows uniformly, each with the same weight",
        paper: None,
        streams: false,
    };
}

impl Chooser for Uniform {
    fn choose(
        &self,
        problem: &dyn Problem,
        size: usize,
        context: &Context,
    ) -> Result<Coreset<Array2<f64>>> {
        best_of(problem, size, 1, context)
    }
}

/// Options of the best of several uniform samples.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct BestOfUniform {
    /// Samples, each with a fit and a pass over all rows.
    #[schemars(range(min = 1))]
    pub tries: usize,
}

impl Default for BestOfUniform {
    fn default() -> Self {
        BestOfUniform { tries: 12 }
    }
}

impl Method for BestOfUniform {
    const FACTS: Facts = Facts {
        name: "best-of-uniform",
        about: "of several uniform samples the one whose model has the lowest loss on all rows",
        paper: None,
        streams: false,
    };
}

impl Chooser for BestOfUniform {
    fn choose(
        &self,
        problem: &dyn Problem,
        size: usize,
        context: &Context,
    ) -> Result<Coreset<Array2<f64>>> {
        best_of(problem, size, self.tries, context)
    }
}

fn best_of(
    problem: &dyn Problem,
    size: usize,
    tries: usize,
    context: &Context,
) -> Result<Coreset<Array2<f64>>> {
    let members = members(problem);
    if let Some(all) = too_small(problem, &members, size)? {
        return Ok(all);
    }
    let mut sums = Vec::with_capacity(tries);
    let mut best: Option<Coreset<Array2<f64>>> = None;
    for one in 0..tries {
        context.step("fits", one, tries);
        let mut rng = sampling::rng(context.seed, &format!("uniform coreset {one}"));
        let (chosen, apart) = every_class(problem, &members, size, |rows, m| {
            Ok(uniform(rows, problem.weights(), m, &mut rng))
        })?;
        let found = finish(problem, chosen, apart)?;
        sums.push(found.loss);
        if best.as_ref().is_none_or(|best| found.loss < best.loss) {
            best = Some(found);
        }
    }
    best.map(|best| Coreset { sums, ..best })
        .ok_or_else(|| Error::option("tries", "at least 1 is needed"))
}

/// The coreset of chosen rows: one fit and a pass over all rows.
pub(super) fn finish(
    problem: &dyn Problem,
    chosen: Chosen,
    apart: bool,
) -> Result<Coreset<Array2<f64>>> {
    let model = problem.fit(&chosen.rows, &chosen.weights)?;
    let loss = total(problem, &checked_losses(problem, &model)?);
    Ok(Coreset {
        rows: chosen.rows,
        weights: chosen.weights,
        model,
        loss,
        sums: vec![loss],
        notes: if apart {
            vec!["a class is so rare that samples miss it: rows were drawn class by class".into()]
        } else {
            Vec::new()
        },
    })
}

/// Options of the seeds of k-means++: none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct KMeansPlusPlus {}

impl Method for KMeansPlusPlus {
    const FACTS: Facts = Facts {
        name: "k-means-plus-plus",
        about: "rows far from each other, as k-means++ seeds clusters, each weighted by the rows nearest to it",
        paper: None,
        streams: false,
    };
}

impl Chooser for KMeansPlusPlus {
    fn choose(
        &self,
        problem: &dyn Problem,
        size: usize,
        context: &Context,
    ) -> Result<Coreset<Array2<f64>>> {
        let members = members(problem);
        if let Some(all) = too_small(problem, &members, size)? {
            return Ok(all);
        }
        let sizes: Vec<usize> = members.iter().map(Vec::len).collect();
        let mut pairs = Vec::with_capacity(size);
        for (rows, quota) in members
            .iter()
            .zip(quotas(&sizes, size, Quotas::Proportional))
        {
            let x = problem.points().select(Axis(0), rows);
            let seeds = kmeans::plus_plus(x.view(), None, quota, context.seed)
                .map_err(|e| Error::BadInput(e.to_string()))?;
            let near = nearest(x.view(), x.select(Axis(0), &seeds).view())
                .map_err(|e| Error::BadInput(e.to_string()))?;
            let mut counts = vec![0.0; seeds.len()];
            for at in near.indices {
                counts[at as usize] += 1.0;
            }
            pairs.extend(seeds.iter().map(|at| rows[*at]).zip(counts));
        }
        finish(problem, Chosen::of(pairs), false)
    }
}

/// Options of all rows: none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct FullData {}

impl Method for FullData {
    const FACTS: Facts = Facts {
        name: "full-data",
        about: "all rows, whatever the size asked for",
        paper: None,
        streams: false,
    };
}

impl Chooser for FullData {
    fn choose(
        &self,
        problem: &dyn Problem,
        _size: usize,
        _context: &Context,
    ) -> Result<Coreset<Array2<f64>>> {
        all_rows(problem)
    }
}

#[cfg(test)]
mod tests {
    use super::super::centres::{CentreLoss, Centres};
    use super::super::linear::{Linear, LinearLoss};
    use super::super::sensitivity::SensitivitySampling;
    use super::super::subspace::Subspace;
    use super::*;

    fn points(n: usize) -> Array2<f64> {
        Array2::from_shape_fn((n, 3), |(i, j)| {
            ((i * 37 + j * 71 + i * i * (j + 1)) % 97) as f64 / 31.0
                + if i % 20 == 0 { 9.0 } else { 0.0 }
        })
    }

    fn problems(n: usize) -> Vec<Box<dyn Problem>> {
        let x = points(n);
        let classes: Vec<u32> = x
            .outer_iter()
            .map(|r| u32::from(r[0] + r[1] > 3.5))
            .collect();
        let y: Vec<f64> = x
            .outer_iter()
            .map(|r| r[0] - 2.0 * r[1] + r[2] * r[2])
            .collect();
        vec![
            Box::new(Linear::of_classes(x.clone(), classes, LinearLoss::Logistic, 1.0).unwrap()),
            Box::new(Linear::of_numbers(x.clone(), y.clone(), LinearLoss::Squared).unwrap()),
            Box::new(
                Linear::of_numbers(x.clone(), y, LinearLoss::Quantile { level: 0.3 }).unwrap(),
            ),
            Box::new(Centres::new(x.clone(), 3, CentreLoss::Squared, 3, 0).unwrap()),
            Box::new(Centres::new(x.clone(), 3, CentreLoss::Distance, 3, 0).unwrap()),
            Box::new(Subspace::new(x, 1).unwrap()),
        ]
    }

    #[test]
    fn each_baseline_gives_a_coreset_of_each_problem() {
        let methods: [Box<dyn Chooser>; 4] = [
            Box::new(Uniform {}),
            Box::new(BestOfUniform { tries: 3 }),
            Box::new(SensitivitySampling {}),
            Box::new(KMeansPlusPlus {}),
        ];
        for problem in problems(400) {
            let full = FullData {}
                .choose(&*problem, 5, &Context::with_seed(0))
                .unwrap();
            assert_eq!(full.rows.len(), 400);
            for method in &methods {
                let found = method
                    .choose(&*problem, 60, &Context::with_seed(1))
                    .unwrap();
                assert!(found.rows.len() <= 60 && found.rows.is_sorted());
                let weight: f64 = found.weights.iter().sum();
                assert!((weight / 400.0 - 1.0).abs() < 0.5, "{weight}");
                // The full fit is the best of all, centres aside, where another start may be luckier.
                assert!(
                    found.loss >= full.loss * 0.98,
                    "{} {}",
                    found.loss,
                    full.loss
                );
                assert!(
                    found.loss <= full.loss * 3.0,
                    "{} {}",
                    found.loss,
                    full.loss
                );
                let again = method
                    .choose(&*problem, 60, &Context::with_seed(1))
                    .unwrap();
                assert_eq!((found.rows, found.weights), (again.rows, again.weights));
            }
        }
    }

    #[test]
    fn the_best_of_many_is_the_lowest_of_them() {
        let problem = &problems(300)[0];
        let context = Context::with_seed(4);
        let best = BestOfUniform { tries: 6 }
            .choose(&**problem, 40, &context)
            .unwrap();
        assert_eq!(best.sums.len(), 6);
        assert_eq!(
            best.loss,
            best.sums.iter().copied().fold(f64::INFINITY, f64::min)
        );
        let one = Uniform {}.choose(&**problem, 40, &context).unwrap();
        assert_eq!(one.loss, best.sums[0]);
    }

    #[test]
    fn seeds_stand_for_the_rows_nearest_to_them() {
        // Three heaps of 5, 10 and 15 rows, far apart: three seeds, one in each, weighted by its heap.
        let x = Array2::from_shape_fn((30, 1), |(i, _)| {
            f64::from(if i < 5 {
                0
            } else if i < 15 {
                100
            } else {
                200
            }) + i as f64 * 1e-3
        });
        let problem = Centres::new(x, 3, CentreLoss::Squared, 1, 0).unwrap();
        let found = KMeansPlusPlus {}
            .choose(&problem, 3, &Context::with_seed(0))
            .unwrap();
        assert_eq!(found.weights, [5.0, 10.0, 15.0]);
    }

    #[test]
    fn a_size_that_cannot_be_is_refused() {
        for problem in problems(50) {
            let context = Context::with_seed(0);
            let e = Uniform {}
                .choose(&*problem, 0, &context)
                .unwrap_err()
                .to_string();
            assert!(e.contains("size"), "{e}");
            let all = Uniform {}.choose(&*problem, 50, &context).unwrap();
            assert_eq!(all.weights, [1.0; 50]);
        }
    }
}
