//! Models of the annotators: how reliable, how willing, how dear.
//!
//! - [`Agreement`]: which of an annotator's votes agree with the labels; with his own vote among those that make the label
//!   (optimistic: alone he always agrees with himself), or with the majority of the others only.
//! - [`interval`]: P. Donmez, J. Carbonell, J. Schneider, *Efficiently learning the accuracy of labeling sources for
//!   selective sampling*, KDD 2009: rewards 0 or 1, with one of each added; mean ± t s / sqrt(c), s the population's
//!   deviation, t Student's quantile for c - 1 degrees of freedom. The upper end may exceed 1.
//! - [`filter`]: P. Donmez, J. Carbonell, J. Schneider, *A probabilistic framework to learn from multiple annotators with
//!   time-varying accuracy*, SDM 2010: accuracy drifts, p_t = p_(t-1) + N(0, 0.02²) within (0.5, 1), followed by 200
//!   particles; resampled where fewer than 100 count.
//! - [`nearby`]: agreement on the 10 nearest rows that the annotator answered, shrunk to his mean by 2 pseudo-counts.
//! - [`willing`]: logistic regression of a kernel-smoothed rate, such as that of answered questions.
//! - [`Prices`]: ridge regression of the time, or the fee, of past answers on the row and the annotator.

use super::aggregate::Aggregate;
use super::log::{Answer, Query, Reply, Votes};
use super::pool::Pool;
use super::softmax::Softmax;
use ndarray::{Array1, Array2, Axis, s};
use papertrial_core::{Error, Result};
use papertrial_numerics::linalg::cholesky;
use papertrial_numerics::neighbours::nearest_neighbours;
use papertrial_numerics::sampling;
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Particles of a filter.
const PARTICLES: usize = 200;
/// Pseudo-counts of an annotator's mean in his quality near a row.
const SHRINK: f64 = 2.0;

/// With what an annotator's votes are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Agreement {
    /// The label, which his own vote helped to make.
    #[default]
    WithOwn,
    /// The majority of the other votes; rows that only he labelled do not count.
    LeaveOneOut,
}

impl Agreement {
    /// For each annotator: (row, 1 if his vote agrees, else 0; a half of a tie of the others), in the order of the rows.
    pub fn of(self, votes: &Votes, truth: &Aggregate) -> Vec<Vec<(usize, f64)>> {
        let mut found = vec![Vec::new(); votes.annotators];
        let mut sums = vec![0.0; votes.classes];
        for (i, (&row, &label)) in votes.rows.iter().zip(&truth.labels).enumerate() {
            let row = row as usize;
            match self {
                Agreement::WithOwn => {
                    for (a, class, _) in votes.of_row(i) {
                        found[a].push((row, f64::from(u8::from(class == label))));
                    }
                }
                Agreement::LeaveOneOut => {
                    sums.fill(0.0);
                    for (_, class, weight) in votes.of_row(i) {
                        sums[class] += weight;
                    }
                    for (a, class, weight) in votes.of_row(i) {
                        let without = |c: usize| sums[c] - if c == class { weight } else { 0.0 };
                        let top = (0..sums.len()).map(without).fold(0.0, f64::max);
                        if top <= 1e-12 {
                            continue;
                        }
                        let best: Vec<usize> = (0..sums.len())
                            .filter(|&c| without(c) >= top - 1e-12)
                            .collect();
                        let reward = match (best.contains(&class), best.len()) {
                            (true, 1) => 1.0,
                            (true, _) => 0.5,
                            _ => 0.0,
                        };
                        found[a].push((row, reward));
                    }
                }
            }
        }
        found
    }
}

/// What is believed of an annotator's accuracy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Belief {
    /// Its mean.
    pub mean: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
    /// Answers that it rests on.
    pub count: usize,
}

/// The interval of Donmez and others at level 1 - `alpha`, from rewards of 0 to 1.
pub fn interval(rewards: impl Iterator<Item = f64>, alpha: f64) -> Belief {
    let (mut sum, mut squares, mut count) = (1.0, 1.0, 2.0);
    for r in rewards {
        sum += r;
        squares += r * r;
        count += 1.0;
    }
    let mean: f64 = sum / count;
    let deviation = (squares / count - mean * mean).max(0.0).sqrt();
    let t = StudentsT::new(0.0, 1.0, count - 1.0)
        .map(|t| t.inverse_cdf(1.0 - alpha / 2.0))
        .unwrap_or(f64::INFINITY);
    let half = t * deviation / f64::sqrt(count);
    Belief {
        mean,
        low: mean - half,
        high: mean + half,
        count: count as usize - 2,
    }
}

/// The belief after rewards in the order of time, about an accuracy that drifts by `sigma` an answer; level 1 - `alpha`.
pub fn filter(
    rewards: impl Iterator<Item = f64>,
    sigma: f64,
    alpha: f64,
    seed: u64,
    a: usize,
) -> Belief {
    let mut rng = sampling::rng(seed, &format!("active-learning filter {a}"));
    let mut particles: Vec<f64> = (0..PARTICLES)
        .map(|_| 0.5 + 0.5 * rng.random::<f64>())
        .collect();
    let mut weights = vec![1.0 / PARTICLES as f64; PARTICLES];
    let mut count = 0;
    for reward in rewards {
        count += 1;
        for (p, w) in particles.iter_mut().zip(&mut weights) {
            // Draws outside (0.5, 1) are drawn again; a narrow walk leaves soon, so a few tries do.
            for _ in 0..100 {
                let step: f64 = StandardNormal.sample(&mut rng);
                let moved = *p + sigma * step;
                if moved > 0.5 && moved < 1.0 {
                    *p = moved;
                    break;
                }
            }
            *w *= reward * *p + (1.0 - reward) * (1.0 - *p);
        }
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= sum);
        let effective = 1.0 / weights.iter().map(|w| w * w).sum::<f64>();
        if effective < PARTICLES as f64 / 2.0 {
            let offset: f64 = rng.random();
            let mut drawn = Vec::with_capacity(PARTICLES);
            let (mut i, mut below) = (0, weights[0]);
            for slot in 0..PARTICLES {
                let at = (slot as f64 + offset) / PARTICLES as f64;
                while below < at && i + 1 < PARTICLES {
                    i += 1;
                    below += weights[i];
                }
                drawn.push(particles[i]);
            }
            particles = drawn;
            weights.fill(1.0 / PARTICLES as f64);
        }
    }
    let mean = particles.iter().zip(&weights).map(|(p, w)| p * w).sum();
    let mut order: Vec<usize> = (0..PARTICLES).collect();
    order.sort_by(|&i, &j| particles[i].total_cmp(&particles[j]));
    let quantile = |share: f64| {
        let mut below = 0.0;
        order
            .iter()
            .find(|&&i| {
                below += weights[i];
                below >= share
            })
            .map_or(1.0, |&i| particles[i])
    };
    Belief {
        mean,
        low: quantile(alpha / 2.0),
        high: quantile(1.0 - alpha / 2.0),
        count,
    }
}

/// An annotator's rate of 1 over all his outcomes, with one success and one failure added.
pub fn mean(outcomes: &[(usize, f64)]) -> f64 {
    let sum: f64 = outcomes.iter().map(|(_, r)| r).sum();
    (sum + 1.0) / (outcomes.len() as f64 + 2.0)
}

/// Quality near each of `rows`: agreement on the `k` nearest of the rows with an outcome, shrunk to the mean.
///
/// # Errors
/// The search for neighbours fails.
pub fn nearby(
    pool: &Pool,
    rows: &[usize],
    outcomes: &[(usize, f64)],
    k: usize,
) -> Result<Vec<f64>> {
    let mean = mean(outcomes);
    if outcomes.is_empty() || rows.is_empty() {
        return Ok(vec![mean; rows.len()]);
    }
    let known: Vec<usize> = outcomes.iter().map(|(row, _)| *row).collect();
    let k = k.clamp(1, known.len());
    let near = nearest_neighbours(
        pool.x.select(Axis(0), rows).view(),
        pool.x.select(Axis(0), &known).view(),
        k,
    )
    .map_err(|e| Error::Failed(e.to_string()))?;
    Ok(near
        .indices
        .outer_iter()
        .map(|found| {
            let hits: f64 = found.iter().map(|&i| outcomes[i as usize].1).sum();
            (hits + SHRINK * mean) / (k as f64 + SHRINK)
        })
        .collect())
}

/// Width s of the kernel exp(-‖x - x'‖² / (2 s²)) by the mean criterion for columns of variance 1: D. Chaudhuri and
/// others, *The mean and median criteria for kernel bandwidth selection for support vector data description*, 2017.
pub fn bandwidth(n: usize, d: usize) -> f64 {
    let n = n.max(2) as f64;
    let delta_squared = 2e-12;
    (2.0 * n * d as f64 / ((n - 1.0) * ((n - 1.0) / delta_squared).ln())).sqrt()
}

/// Probability of an outcome at each of `rows`: the known outcomes are smoothed by the kernel, with one pseudo-count of
/// their mean, and a logistic regression is fitted to the smoothed rates.
///
/// # Errors
/// Distances cannot be computed.
pub fn willing(pool: &Pool, rows: &[usize], outcomes: &[(usize, f64)]) -> Result<Vec<f64>> {
    let mean = mean(outcomes);
    if outcomes.is_empty() || rows.is_empty() {
        return Ok(vec![mean; rows.len()]);
    }
    let known: Vec<usize> = outcomes.iter().map(|(row, _)| *row).collect();
    let x = pool.x.select(Axis(0), &known);
    let squared = papertrial_numerics::distance::self_squared_distances(x.view())
        .map_err(|e| Error::Failed(e.to_string()))?;
    let width = bandwidth(pool.rows(), pool.x.ncols());
    let mut targets = Array2::zeros((known.len(), 2));
    for (mut t, squared) in targets.outer_iter_mut().zip(squared.outer_iter()) {
        let (mut hits, mut all) = (mean, 1.0);
        for (d, (_, outcome)) in squared.iter().zip(outcomes) {
            let w = (-d / (2.0 * width * width)).exp();
            hits += w * outcome;
            all += w;
        }
        t[1] = hits / all;
        t[0] = 1.0 - t[1];
    }
    let model = Softmax::flat(x.ncols(), 2).fitted(x.view(), targets.view(), 1.0, 100);
    Ok(model
        .probabilities(pool.x.select(Axis(0), rows).view())
        .column(1)
        .to_vec())
}

/// Predicted costs of answers: w · \[1, x, annotator\].
#[derive(Debug, Clone, PartialEq)]
pub struct Prices {
    weights: Array1<f64>,
    /// No prediction is below this.
    least: f64,
}

impl Prices {
    /// Ridge regression (penalty 1, the intercept free) of what past answers cost. Where all of them tell how long they
    /// took, of that time, each second worth the mean fee of a second.
    ///
    /// # Errors
    /// The equations cannot be solved.
    pub fn of(pool: &Pool, log: &[Answer]) -> Result<Prices> {
        let paid: Vec<(usize, &Answer)> = log
            .iter()
            .filter(|a| a.reply != Reply::Refused)
            .filter_map(|a| match a.query {
                Query::Row(row) => Some((row, a)),
                _ => None,
            })
            .collect();
        let fees: f64 = paid.iter().map(|(_, a)| a.fee).sum();
        let times: Option<f64> = paid.iter().map(|(_, a)| a.seconds).sum();
        let cost = |a: &Answer| match (times, a.seconds) {
            (Some(all), Some(seconds)) if all > 0.0 => seconds * fees / all,
            _ => a.fee,
        };
        let mean = fees / paid.len().max(1) as f64;
        let (d, people) = (pool.x.ncols(), pool.annotators.len());
        let width = d + people;
        let mut rows = Array2::zeros((paid.len(), width));
        let mut rest = Array2::zeros((paid.len(), 1));
        for (i, (row, a)) in paid.iter().enumerate() {
            rows.slice_mut(s![i, ..d]).assign(&pool.x.row(*row));
            rows[[i, d + a.annotator]] = 1.0;
            rest[[i, 0]] = cost(a) - mean;
        }
        let centre = rows
            .mean_axis(Axis(0))
            .unwrap_or_else(|| Array1::zeros(width));
        rows -= &centre;
        let mut normal = rows.t().dot(&rows);
        normal.diag_mut().mapv_inplace(|v| v + 1.0);
        let solved = cholesky(normal.view())
            .map_err(|e| Error::Failed(format!("costs cannot be predicted: {e}")))?
            .solve_vector(rows.t().dot(&rest).column(0));
        let mut weights = Array1::zeros(width + 1);
        weights[0] = mean - centre.dot(&solved);
        weights.slice_mut(s![1..]).assign(&solved);
        Ok(Prices {
            weights,
            least: 0.1 * mean,
        })
    }

    /// The expected cost of an answer of `a` about `row`.
    pub fn of_answer(&self, pool: &Pool, row: usize, a: usize) -> f64 {
        let d = pool.x.ncols();
        let cost = self.weights[0]
            + pool.x.row(row).dot(&self.weights.slice(s![1..=d]))
            + self.weights[1 + d + a];
        cost.max(self.least)
    }
}

#[cfg(test)]
mod tests {
    use super::super::aggregate::Aggregator;
    use super::super::pool::tests::halves;
    use super::*;

    #[test]
    fn interval_by_hand() {
        // Rewards 1, 1 and the added 0, 1: mean 3/4, deviation sqrt(3)/4, t(3 degrees, 97.5 %) = 3.18245.
        let belief = interval([1.0, 1.0].into_iter(), 0.05);
        assert!((belief.mean - 0.75).abs() < 1e-12);
        assert!((belief.high - 0.75 - 3.182446 * 0.4330127 / 2.0).abs() < 1e-5);
        assert!((belief.low + belief.high - 1.5).abs() < 1e-12);
        assert!(belief.high > 1.0);
        assert_eq!(belief.count, 2);
        let none = interval(std::iter::empty(), 0.05);
        assert_eq!((none.mean, none.count), (0.5, 0));
        let more = interval(std::iter::repeat_n(1.0, 100), 0.05);
        assert!(more.high - more.low < belief.high - belief.low);
    }

    #[test]
    fn own_votes_flatter_and_leave_one_out_does_not() {
        // Row 0: a alone. Row 1: a says 0, b and c say 1. Row 2: a and b disagree.
        let votes = [
            (0, 0, 1, 1.0),
            (1, 0, 0, 1.0),
            (1, 1, 1, 1.0),
            (1, 2, 1, 1.0),
            (2, 0, 0, 1.0),
            (2, 1, 1, 1.0),
        ];
        let votes = Votes::new(&votes, 3, 3, 2);
        let truth = Aggregator::Majority.labels(&votes, 0);
        let own = Agreement::WithOwn.of(&votes, &truth);
        assert_eq!(own[0][..2], [(0, 1.0), (1, 0.0)]);
        let others = Agreement::LeaveOneOut.of(&votes, &truth);
        assert_eq!(others[0], [(1, 0.0), (2, 0.0)]);
        // Without b's vote, row 1 is a tie of 0 and 1.
        assert_eq!(others[1], [(1, 0.5), (2, 0.0)]);
    }

    #[test]
    fn a_filter_follows_a_fall() {
        let good = filter(std::iter::repeat_n(1.0, 60), 0.02, 0.05, 0, 0);
        assert!(good.mean > 0.9, "{good:?}");
        let mixed = (0..60).map(|t| f64::from(u8::from(t % 2 == 0)));
        let fallen = filter(std::iter::repeat_n(1.0, 60).chain(mixed), 0.02, 0.05, 0, 0);
        assert!(
            fallen.mean < 0.7 && fallen.low >= 0.5 && fallen.high <= 1.0,
            "{fallen:?}"
        );
        // The plain mean of the same rewards forgets nothing.
        assert!(fallen.mean < 0.75);
    }

    #[test]
    fn quality_near_a_row_by_hand() {
        let (mut pool, _) = halves(12, &[1.0], 0);
        // Only the side counts for distances.
        pool.x.column_mut(1).fill(0.0);
        // Agrees on the left (even rows), not on the right.
        let outcomes: Vec<(usize, f64)> = (0..8)
            .map(|r| (r, f64::from(u8::from(r % 2 == 0))))
            .collect();
        let q = nearby(&pool, &[8, 9], &outcomes, 4).unwrap();
        // The mean is (4 + 1) / 10; four hits, or none, and two pseudo-counts.
        assert!(
            (q[0] - 5.0 / 6.0).abs() < 1e-12 && (q[1] - 1.0 / 6.0).abs() < 1e-12,
            "{q:?}"
        );
        assert_eq!(nearby(&pool, &[8], &[], 4).unwrap(), [0.5]);
        let p = willing(&pool, &[8, 9], &outcomes).unwrap();
        assert!(p[0] > 0.6 && p[1] < 0.4, "{p:?}");
    }

    #[test]
    fn prices_tell_dear_annotators_and_long_rows() {
        let (pool, _) = halves(40, &[1.0, 1.0], 0);
        let log: Vec<Answer> = (0..60)
            .map(|i| Answer {
                step: 1,
                query: Query::Row(i % 40),
                annotator: i % 3 % 2,
                reply: Reply::Unsure,
                fee: 2.0 + pool.x[[i % 40, 0]] + (i % 3 % 2) as f64,
                seconds: None,
            })
            .collect();
        let prices = Prices::of(&pool, &log).unwrap();
        for row in [0, 7, 33] {
            for a in 0..2 {
                let expected = 2.0 + pool.x[[row, 0]] + a as f64;
                let found = prices.of_answer(&pool, row, a);
                assert!(
                    (found - expected).abs() < 0.12,
                    "{row} {a}: {found} {expected}"
                );
            }
        }
        let timed: Vec<Answer> = log
            .iter()
            .map(|a| Answer {
                seconds: Some(a.fee * 7.0),
                fee: 1.0,
                ..a.clone()
            })
            .collect();
        let by_time = Prices::of(&pool, &timed).unwrap();
        let ratio = by_time.of_answer(&pool, 0, 1) / by_time.of_answer(&pool, 0, 0);
        assert!(
            (ratio - prices.of_answer(&pool, 0, 1) / prices.of_answer(&pool, 0, 0)).abs() < 1e-6
        );
    }
}
