//! k-means and k-medians: the loss of a row is its squared distance, or its distance, to the nearest of k centres.
//!
//! x \[n, d\] features; a model is C \[k, d\].
//! - k-means: Lloyd's algorithm from several k-means++ starts, on weighted rows.
//! - k-medians: from k-means++ starts, in turn give each row to its nearest centre and move each centre by one step of
//!   Weiszfeld, to T, the mean of its rows weighted by weight over distance. A centre that lies on rows of weight v moves only
//!   if the other rows pull harder: to (1 - v/r) T + v/r centre, r the length of sum weight (row - centre) / distance (Vardi
//!   and Zhang, *The multivariate L1-median and associated data depth*, 2000). Each step lowers the objective; a start ends
//!   when it falls by less than 1e-6 of itself.
//!
//! Cost: O(m k d) a round and start for a fit of m rows; O(n k d) for the losses of n rows.

use super::problem::{BLOCK, Problem, WeightedProblem};
use ndarray::{Array2, ArrayView2, Axis, CowArray, s};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::{Nearest, nearest};
use papertrial_numerics::kmeans::{self, KMeansOptions};
use rayon::prelude::*;

/// Which distance counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CentreLoss {
    /// Squared distance: k-means.
    Squared,
    /// Distance: k-medians.
    Distance,
}

/// Rounds of a start at most.
const ROUNDS: usize = 300;

/// Rows with the loss of k centres.
#[derive(Debug, Clone)]
pub struct Centres {
    x: Array2<f64>,
    k: usize,
    loss: CentreLoss,
    starts: usize,
    seed: u64,
}

impl Centres {
    /// `k` centres, found from `starts` starts drawn from `seed`.
    ///
    /// # Errors
    /// No centres, more than rows, or no starts.
    pub fn new(
        x: Array2<f64>,
        k: usize,
        loss: CentreLoss,
        starts: usize,
        seed: u64,
    ) -> Result<Centres> {
        if k == 0 || k > x.nrows() {
            return Err(Error::option(
                "k",
                format!(
                    "{k} centres for {} rows; take from 1 to as many as rows",
                    x.nrows()
                ),
            ));
        }
        if starts == 0 {
            return Err(Error::option("k-means-starts", "at least 1 is needed"));
        }
        Ok(Centres {
            x: x.as_standard_layout().into_owned(),
            k,
            loss,
            starts,
            seed,
        })
    }

    fn nearest(&self, model: &Array2<f64>) -> Result<Nearest<f64>> {
        nearest(self.x.view(), model.view()).map_err(|e| Error::BadInput(e.to_string()))
    }

    fn medians(&self, x: ArrayView2<'_, f64>, weights: &[f64]) -> Result<Array2<f64>> {
        let mut best: Option<(f64, Array2<f64>)> = None;
        for start in 0..self.starts {
            let seed = self.seed.wrapping_add(start as u64);
            let rows = kmeans::plus_plus(x, Some(weights), self.k, seed).map_err(unusable)?;
            let mut centres = x.select(Axis(0), &rows);
            let mut before = f64::INFINITY;
            for _ in 0..ROUNDS {
                let near =
                    nearest(x, centres.view()).map_err(|e| Error::BadInput(e.to_string()))?;
                let now: f64 = near
                    .squared
                    .iter()
                    .zip(weights)
                    .map(|(s, w)| w * s.sqrt())
                    .sum();
                if now >= before * (1.0 - 1e-6) {
                    break;
                }
                before = now;
                weiszfeld(x, weights, &near, &mut centres);
            }
            if best.as_ref().is_none_or(|(least, _)| before < *least) {
                best = Some((before, centres));
            }
        }
        best.map(|(_, centres)| centres)
            .ok_or_else(|| Error::Failed("no start of k-medians was made".into()))
    }
}

/// One step for each centre; a centre without rows stays.
fn weiszfeld(
    x: ArrayView2<'_, f64>,
    weights: &[f64],
    near: &Nearest<f64>,
    centres: &mut Array2<f64>,
) {
    let (k, d) = centres.dim();
    let most = near.squared.iter().fold(0.0f64, |most, s| most.max(*s));
    // Rows as near as this lie on their centre.
    let least = 1e-9 * most.sqrt();
    // At most 64 partial sums, in the order of the rows.
    let block = x.nrows().div_ceil(64).max(BLOCK);
    let parts: Vec<Array2<f64>> = (0..x.nrows().div_ceil(block))
        .into_par_iter()
        .map(|b| {
            // The last two columns hold the sum of the factors and the weight on the centre.
            let mut sums = Array2::zeros((k, d + 2));
            let rows = b * block..((b + 1) * block).min(x.nrows());
            for (row, weight) in rows.clone().zip(&weights[rows]) {
                let mut to = sums.row_mut(near.indices[row] as usize);
                let distance = near.squared[row].sqrt();
                if distance <= least {
                    to[d + 1] += weight;
                    continue;
                }
                let factor = weight / distance;
                to.slice_mut(s![..d]).scaled_add(factor, &x.row(row));
                to[d] += factor;
            }
            sums
        })
        .collect();
    let mut sums = Array2::<f64>::zeros((k, d + 2));
    for part in parts {
        sums += &part;
    }
    for (mut centre, sum) in centres.outer_iter_mut().zip(sums.outer_iter()) {
        if sum[d] == 0.0 {
            continue;
        }
        let mut step = &sum.slice(s![..d]) / sum[d];
        step -= &centre;
        let pull = sum[d] * step.dot(&step).sqrt();
        if pull > sum[d + 1] {
            centre.scaled_add(1.0 - sum[d + 1] / pull, &step);
        }
    }
}

fn unusable(e: kmeans::KMeansError) -> Error {
    match e {
        kmeans::KMeansError::TooManyClusters { clusters, rows } => Error::option(
            "size",
            format!(
                "{rows} rows were chosen, too few for {clusters} centres; raise size, or lower k"
            ),
        ),
        other => Error::BadInput(other.to_string()),
    }
}

impl WeightedProblem for Centres {
    type Model = Array2<f64>;

    fn rows(&self) -> usize {
        self.x.nrows()
    }

    fn fit(&self, rows: &[usize], weights: &[f64]) -> Result<Array2<f64>> {
        let x = if rows.len() == self.x.nrows() {
            CowArray::from(self.x.view())
        } else {
            CowArray::from(self.x.select(Axis(0), rows))
        };
        match self.loss {
            CentreLoss::Distance => self.medians(x.view(), weights),
            CentreLoss::Squared => {
                let options = KMeansOptions {
                    starts: self.starts,
                    max_rounds: ROUNDS,
                    seed: self.seed,
                    ..KMeansOptions::new(self.k)
                };
                kmeans::kmeans(x.view(), Some(weights), &options)
                    .map(|found| found.centres)
                    .map_err(unusable)
            }
        }
    }

    fn loss(&self, row: usize, model: &Array2<f64>) -> f64 {
        let x = self.x.row(row);
        let squared = model
            .outer_iter()
            .map(|c| x.iter().zip(c).map(|(a, b)| (a - b).powi(2)).sum())
            .fold(f64::INFINITY, f64::min);
        match self.loss {
            CentreLoss::Squared => squared,
            CentreLoss::Distance => squared.sqrt(),
        }
    }

    fn losses(&self, model: &Array2<f64>) -> Result<Vec<f64>> {
        let mut losses = self.nearest(model)?.squared;
        if self.loss == CentreLoss::Distance {
            losses.iter_mut().for_each(|l| *l = l.sqrt());
        }
        Ok(losses)
    }
}

impl Problem for Centres {
    fn points(&self) -> ArrayView2<'_, f64> {
        self.x.view()
    }

    /// From k-means++ centres B with mean loss c: 2 a loss_i / c + 4 a (sum of losses of i's cluster) / (its size c) +
    /// 4 n / (its size), a = 16 (ln k + 2), over n (Bachem, Lucic and Krause, *Practical coreset constructions for machine
    /// learning*, 2017); for medians the same with distances.
    fn sensitivities(&self, seed: u64) -> Result<Vec<f64>> {
        let rows = kmeans::plus_plus(self.x.view(), None, self.k, seed)
            .map_err(|e| Error::BadInput(e.to_string()))?;
        let centres = self.x.select(Axis(0), &rows);
        let near = self.nearest(&centres)?;
        let losses = self.losses(&centres)?;
        let n = losses.len() as f64;
        let mean = losses.iter().sum::<f64>() / n;
        let mut sizes = vec![0.0f64; self.k];
        let mut sums = vec![0.0; self.k];
        for (cluster, loss) in near.indices.iter().zip(&losses) {
            sizes[*cluster as usize] += 1.0;
            sums[*cluster as usize] += loss;
        }
        let a = 16.0 * ((self.k as f64).ln() + 2.0);
        // All rows on the centres: only the sizes of the clusters tell rows apart.
        let scale = if mean > 0.0 { a / mean } else { 0.0 };
        Ok(near
            .indices
            .iter()
            .zip(&losses)
            .map(|(cluster, loss)| {
                let (size, sum) = (sizes[*cluster as usize], sums[*cluster as usize]);
                (2.0 * scale * loss + 4.0 * scale * sum / size + 4.0 * n / size) / n
            })
            .collect())
    }

    fn predict(&self, _model: &Array2<f64>, _x: ArrayView2<'_, f64>) -> Option<Vec<f64>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;

    #[test]
    fn weighted_means_and_medians_by_hand() {
        let x = array![[0.0], [1.0], [5.0], [100.0], [104.0]];
        let mean = Centres::new(x.clone(), 2, CentreLoss::Squared, 5, 0).unwrap();
        let mut found = mean.fit(&[0, 1, 3, 4], &[3.0, 1.0, 1.0, 1.0]).unwrap();
        if found[[0, 0]] > found[[1, 0]] {
            found.invert_axis(Axis(0));
        }
        assert!((found[[0, 0]] - 0.25).abs() < 1e-12 && (found[[1, 0]] - 102.0).abs() < 1e-12);
        let median = Centres::new(x, 1, CentreLoss::Distance, 1, 0).unwrap();
        let found = median.fit(&[0, 1, 2, 3, 4], &[1.0; 5]).unwrap();
        assert!((found[[0, 0]] - 5.0).abs() < 0.05, "{found}");
        // Half of the weight on 100 and more: the median moves there.
        let found = median
            .fit(&[0, 1, 2, 3, 4], &[1.0, 1.0, 1.0, 4.0, 1.0])
            .unwrap();
        assert!((found[[0, 0]] - 100.0).abs() < 0.5, "{found}");
    }

    #[test]
    fn the_geometric_median_of_a_triangle() {
        // Equilateral: the centroid. The sum of distances is 3 times the circumradius.
        let h = 3f64.sqrt() / 2.0;
        let x = array![[0.0, 0.0], [1.0, 0.0], [0.5, h]];
        let problem = Centres::new(x, 1, CentreLoss::Distance, 1, 3).unwrap();
        let found = problem.fit(&[0, 1, 2], &[1.0; 3]).unwrap();
        let sum: f64 = problem.losses(&found).unwrap().iter().sum();
        assert!((sum - 3f64.sqrt()).abs() < 1e-4, "{sum}");
    }

    #[test]
    fn sensitivities_by_hand() {
        // One centre, whichever row: mean loss c, so s_i n = 2a l_i / c + 4a + 4 with a = 32.
        let x = array![[0.0], [1.0], [3.0]];
        let problem = Centres::new(x, 1, CentreLoss::Squared, 1, 0).unwrap();
        let s = problem.sensitivities(1).unwrap();
        let sum: f64 = s.iter().sum();
        assert!((sum - (64.0 + 128.0 + 4.0)).abs() < 1e-9, "{s:?}");
    }

    #[test]
    fn rows_on_the_centres_have_finite_sensitivities() {
        let x = array![[0.0], [0.0], [1.0]];
        let problem = Centres::new(x, 2, CentreLoss::Distance, 1, 0).unwrap();
        let s = problem.sensitivities(0).unwrap();
        assert!(s.iter().all(|v| v.is_finite() && *v > 0.0));
        assert!(s[2] > s[0]);
    }

    #[test]
    fn too_few_rows_name_the_option() {
        let x = array![[0.0], [1.0], [2.0]];
        assert!(Centres::new(x.clone(), 4, CentreLoss::Squared, 1, 0).is_err());
        for loss in [CentreLoss::Squared, CentreLoss::Distance] {
            let problem = Centres::new(x.clone(), 3, loss, 1, 0).unwrap();
            let e = problem.fit(&[0, 1], &[1.0, 1.0]).unwrap_err().to_string();
            assert!(e.contains("size") && e.contains("3 centres"), "{e}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn all_losses_are_those_of_each_and_scale_free(seed in 0u64..500, squared in any::<bool>()) {
            let x = Array2::from_shape_fn((60, 3), |(i, j)| {
                ((i * 31 + j * 17 + seed as usize * 7) % 53) as f64 / 9.0
            });
            let loss = if squared { CentreLoss::Squared } else { CentreLoss::Distance };
            let problem = Centres::new(x, 4, loss, 2, seed).unwrap();
            let rows: Vec<usize> = (0..60).step_by(2).collect();
            let weights: Vec<f64> = (0..30).map(|i| 1.0 + f64::from(i % 5)).collect();
            let model = problem.fit(&rows, &weights).unwrap();
            let doubled: Vec<f64> = weights.iter().map(|w| 2.0 * w).collect();
            let again = problem.fit(&rows, &doubled).unwrap();
            for (row, l) in problem.losses(&model).unwrap().into_iter().enumerate() {
                prop_assert!((l - problem.loss(row, &model)).abs() < 1e-9);
                prop_assert!((l - problem.loss(row, &again)).abs() < 1e-9);
            }
        }
    }
}
