//! Vector summaries: few weighted rows whose loss vectors sum to nearly what those of all rows sum to.
//!
//! Row i has the vector l_i = (f(p_i, x_1), .., f(p_i, x_t)) of its losses under the models so far, and a first weight. The
//! ways to choose m of n rows:
//! - caratheodory: the sums are kept exactly, up to rounding (`caratheodory.rs`).
//! - importance: m draws with probability s_i / sum s, s_i = first weight times |l_i|, at least 1e-12; a draw weighs
//!   1 / (m p_i). The released code divides by the length of zero vectors; the floor is ours.
//! - median-of-means: of 100 uniform samples with replacement, the one whose mean vector is nearest to the true one. So the
//!   released code; it bears the name of the estimator but takes no median.
//! - frank-wolfe and sparse: greedy steps (`frank_wolfe.rs`).
//! - random: one uniform sample with replacement, the baseline.

use super::caratheodory;
use super::draws::{by_importance, first_weight, uniform};
use super::frank_wolfe;
use papertrial_core::Result;
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How loss vectors are summarised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sampler {
    /// Exact sums, for fewer models than rows chosen.
    Caratheodory,
    /// Draws in proportion to the length of the loss vectors.
    Importance,
    /// The best of many uniform samples.
    MedianOfMeans,
    /// Greedy steps towards the mean.
    FrankWolfe,
    /// Greedy steps towards the mean on normalised vectors.
    Sparse,
    /// A uniform sample.
    Random,
}

/// Importance below which no row falls, as a share of the sum.
const FLOOR: f64 = 1e-12;

/// The losses of all rows under the models so far.
pub(super) struct Losses {
    /// \[t\] columns of \[n\] losses; empty where the sampler does without.
    columns: Vec<Vec<f64>>,
    /// Squared lengths of the rows' vectors, `[n]`.
    squares: Vec<f64>,
    keep: bool,
    scaled: bool,
}

impl Losses {
    /// For a sampler; `scaled` divides each column by its sum.
    pub fn new(rows: usize, sampler: Sampler, scaled: bool) -> Losses {
        Losses {
            columns: Vec::new(),
            squares: vec![0.0; rows],
            // Importance needs only lengths, random nothing: n numbers in place of n t.
            keep: !matches!(sampler, Sampler::Importance | Sampler::Random),
            scaled,
        }
    }

    /// Adds the losses under one more model.
    pub fn push(&mut self, mut column: Vec<f64>) {
        let sum: f64 = column.iter().sum();
        if self.scaled && sum > 0.0 {
            column.iter_mut().for_each(|v| *v /= sum);
        }
        for (square, v) in self.squares.iter_mut().zip(&column) {
            *square += v * v;
        }
        if self.keep {
            self.columns.push(column);
        }
    }
}

/// At most `m` of `members` (more than `m`), with weights.
pub(super) fn summarise<R: Rng>(
    sampler: Sampler,
    losses: &Losses,
    members: &[usize],
    weights: Option<&[f64]>,
    m: usize,
    resamples: usize,
    rng: &mut R,
) -> Result<Vec<(usize, f64)>> {
    let pairs = || -> Vec<(usize, f64)> {
        members
            .iter()
            .map(|row| (*row, first_weight(weights, *row)))
            .collect()
    };
    match sampler {
        Sampler::Caratheodory => caratheodory::reduce(&losses.columns, &pairs(), m),
        Sampler::Importance => {
            let importance: Vec<f64> = members
                .iter()
                .map(|row| first_weight(weights, *row) * losses.squares[*row].sqrt())
                .collect();
            by_importance(members, &importance, weights, FLOOR, m, rng)
        }
        Sampler::MedianOfMeans => Ok(best_sample(
            &losses.columns,
            &pairs(),
            weights,
            members,
            m,
            resamples,
            rng,
        )),
        Sampler::FrankWolfe => Ok(frank_wolfe::greedy(&losses.columns, &pairs(), m, false)),
        Sampler::Sparse => Ok(frank_wolfe::greedy(&losses.columns, &pairs(), m, true)),
        Sampler::Random => Ok(uniform(members, weights, m, rng)),
    }
}

/// Of `resamples` uniform samples the one whose weighted mean is nearest to that of all; of equally near ones the first.
fn best_sample<R: Rng>(
    columns: &[Vec<f64>],
    pairs: &[(usize, f64)],
    weights: Option<&[f64]>,
    members: &[usize],
    m: usize,
    resamples: usize,
    rng: &mut R,
) -> Vec<(usize, f64)> {
    let mean = |pairs: &[(usize, f64)]| -> Vec<f64> {
        let sum: f64 = pairs.iter().map(|(_, w)| w).sum();
        columns
            .iter()
            .map(|column| pairs.iter().map(|(row, w)| w * column[*row]).sum::<f64>() / sum)
            .collect()
    };
    let truth = mean(pairs);
    let mut best = (f64::INFINITY, Vec::new());
    for _ in 0..resamples {
        let drawn = uniform(members, weights, m, rng);
        let off: f64 = mean(&drawn)
            .iter()
            .zip(&truth)
            .map(|(a, b)| (a - b).powi(2))
            .sum();
        if off < best.0 {
            best = (off, drawn);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_numerics::sampling;

    const ALL: [Sampler; 6] = [
        Sampler::Caratheodory,
        Sampler::Importance,
        Sampler::MedianOfMeans,
        Sampler::FrankWolfe,
        Sampler::Sparse,
        Sampler::Random,
    ];

    fn losses(sampler: Sampler, n: usize) -> (Losses, Vec<Vec<f64>>) {
        let mut losses = Losses::new(n, sampler, false);
        let columns: Vec<Vec<f64>> = (1..4)
            .map(|j| (0..n).map(|i| ((i * i * j) % 97) as f64 + 0.5).collect())
            .collect();
        for column in &columns {
            losses.push(column.clone());
        }
        (losses, columns)
    }

    #[test]
    fn every_sampler_comes_near_the_sums_with_few_rows_of_its_own_class() {
        let members: Vec<usize> = (100..900).collect();
        for sampler in ALL {
            let (losses, columns) = losses(sampler, 1000);
            let mut rng = sampling::rng(5, "test");
            let found = summarise(sampler, &losses, &members, None, 200, 100, &mut rng).unwrap();
            assert!(!found.is_empty() && found.len() <= 200, "{sampler:?}");
            assert!(
                found
                    .iter()
                    .all(|(row, w)| (100..900).contains(row) && *w > 0.0)
            );
            for column in &columns {
                let all: f64 = members.iter().map(|row| column[*row]).sum();
                let few: f64 = found.iter().map(|(row, w)| w * column[*row]).sum();
                // 200 draws of numbers up to 97: a standard error of 4 %.
                assert!((few / all - 1.0).abs() < 0.16, "{sampler:?} {}", few / all);
            }
        }
    }

    #[test]
    fn first_weights_are_part_of_the_sums() {
        let members: Vec<usize> = (0..300).collect();
        let first: Vec<f64> = (0..300).map(|i| if i < 30 { 20.0 } else { 0.5 }).collect();
        let wanted: f64 = first.iter().sum();
        for sampler in ALL {
            let (losses, _) = losses(sampler, 300);
            let mut rng = sampling::rng(6, "test");
            let mut sum = 0.0;
            for _ in 0..20 {
                let found =
                    summarise(sampler, &losses, &members, Some(&first), 100, 50, &mut rng).unwrap();
                sum += found.iter().map(|(_, w)| w).sum::<f64>() / 20.0;
            }
            assert!(
                (sum / wanted - 1.0).abs() < 0.2,
                "{sampler:?} {}",
                sum / wanted
            );
        }
    }

    #[test]
    fn more_samples_come_nearer() {
        let members: Vec<usize> = (0..1000).collect();
        let (losses, columns) = losses(Sampler::MedianOfMeans, 1000);
        let off = |resamples: usize, seed: u64| -> f64 {
            let mut rng = sampling::rng(seed, "test");
            let found = summarise(
                Sampler::MedianOfMeans,
                &losses,
                &members,
                None,
                50,
                resamples,
                &mut rng,
            )
            .unwrap();
            let gap = |c: &Vec<f64>| {
                let all: f64 = c.iter().sum();
                (found.iter().map(|(row, w)| w * c[*row]).sum::<f64>() - all).powi(2)
            };
            columns.iter().map(gap).sum()
        };
        let one: f64 = (0..20).map(|seed| off(1, seed)).sum();
        let many: f64 = (0..20).map(|seed| off(100, seed)).sum();
        assert!(many < 0.3 * one, "{many} {one}");
    }

    #[test]
    fn scaled_columns_count_alike() {
        let mut plain = Losses::new(2, Sampler::FrankWolfe, false);
        let mut scaled = Losses::new(2, Sampler::FrankWolfe, true);
        for column in [vec![1.0, 3.0], vec![4e6, 0.0], vec![0.0, 0.0]] {
            plain.push(column.clone());
            scaled.push(column);
        }
        assert_eq!(scaled.columns, [[0.25, 0.75], [1.0, 0.0], [0.0, 0.0]]);
        assert_eq!(plain.squares, [1.0 + 16e12, 9.0]);
    }
}
