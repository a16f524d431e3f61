//! From the votes of several annotators to one label for each row.
//!
//! - majority: shares of the votes; a tie goes to a class drawn from the seed and the row.
//! - weighted: each vote counts ln(p (K - 1) / (1 - p)), p the annotator's agreement with the majority.
//! - dawid-skene: A. P. Dawid and A. M. Skene, *Maximum likelihood estimation of observer error-rates using the EM
//!   algorithm*, Applied Statistics 28, 1979. Posterior T \[m, K\], a confusion matrix for each annotator \[A, K, K\]:
//!   1. T from the shares of the votes.
//!   2. Confusion\[a, y, l\] = 1 + sum of T\[i, y\] over a's votes for l, each row y scaled to 1; prior\[y\] = mean T.
//!   3. T\[i, y\] ∝ prior\[y\] product of confusion\[a, y, l\] over the votes of row i.
//!   4. Repeat 2 and 3 until the mean |change of T| is below 1e-4, at most 100 times.
//!
//! Cost for v votes: O(v) for the first two, O(v K) for each round of the third, rows and annotators in parallel. Sums run
//! in the order of the votes, so that the number of threads changes nothing.

use super::log::Votes;
use ndarray::Array2;
use papertrial_numerics::sampling;
use rand::RngExt;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rows for each task of a thread.
const BLOCK: usize = 4096;
/// Rounds of EM at most.
const ROUNDS: usize = 100;
/// Mean change of a posterior below which EM stops.
const TOLERANCE: f64 = 1e-4;

/// How votes become a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregator {
    /// Shares of the votes.
    #[default]
    Majority,
    /// Votes weighted by the log-odds of their annotator's agreement with the majority.
    Weighted,
    /// EM with a confusion matrix for each annotator.
    DawidSkene,
}

/// The labels of the rows that have votes.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// Probabilities of the classes \[m, K\], a row for each of `Votes::rows`.
    pub posterior: Array2<f64>,
    /// The most probable class of each, m of them.
    pub labels: Vec<usize>,
}

impl Aggregator {
    /// The labels of the votes; `seed` decides ties.
    pub fn labels(self, votes: &Votes, seed: u64) -> Aggregate {
        let posterior = match self {
            Aggregator::Majority => shares(votes, |_| 1.0),
            Aggregator::Weighted => weighted(votes, seed),
            Aggregator::DawidSkene => dawid_skene(votes).0,
        };
        let labels = decide(&posterior, votes, seed);
        Aggregate { posterior, labels }
    }
}

/// The class of each row's greatest entry; among equal ones, one drawn from the seed and the row.
fn decide(posterior: &Array2<f64>, votes: &Votes, seed: u64) -> Vec<usize> {
    posterior
        .outer_iter()
        .zip(&votes.rows)
        .map(|(p, row)| {
            let top = p.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            let tied = || (0..p.len()).filter(|&c| p[c] >= top - 1e-12);
            match tied().count() {
                0 | 1 => tied().next().unwrap_or(0),
                count => {
                    let mut rng = sampling::rng(seed, &format!("active-learning tie {row}"));
                    tied().nth(rng.random_range(0..count)).unwrap_or(0)
                }
            }
        })
        .collect()
}

/// Shares of the classes among the votes of each row \[m, K\], each annotator's votes with a factor.
fn shares(votes: &Votes, factor: impl Fn(usize) -> f64 + Sync) -> Array2<f64> {
    let k = votes.classes;
    let mut posterior = Array2::zeros((votes.rows.len(), k));
    for (i, mut p) in posterior.outer_iter_mut().enumerate() {
        for (a, class, weight) in votes.of_row(i) {
            p[class] += weight * factor(a);
        }
        let sum: f64 = p.sum();
        if sum > 0.0 {
            p /= sum;
        } else {
            p.fill(1.0 / k as f64);
        }
    }
    posterior
}

/// Softmax over the classes of the summed log-odds of their voters.
fn weighted(votes: &Votes, seed: u64) -> Array2<f64> {
    let majority = decide(&shares(votes, |_| 1.0), votes, seed);
    // One agreement and one disagreement beforehand keep every rate away from 0 and 1.
    let mut agree = vec![1.0; votes.annotators];
    let mut all = vec![2.0; votes.annotators];
    for (i, &label) in majority.iter().enumerate() {
        for (a, class, _) in votes.of_row(i) {
            agree[a] += f64::from(u8::from(class == label));
            all[a] += 1.0;
        }
    }
    let others = (votes.classes - 1) as f64;
    let odds: Vec<f64> = agree
        .iter()
        .zip(&all)
        .map(|(g, n)| (g * others / (n - g)).ln())
        .collect();
    let mut posterior = Array2::zeros((votes.rows.len(), votes.classes));
    for (i, mut p) in posterior.outer_iter_mut().enumerate() {
        for (a, class, weight) in votes.of_row(i) {
            p[class] += weight * odds[a];
        }
        let top = p.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        p.mapv_inplace(|v| (v - top).exp());
        let sum = p.sum();
        p /= sum;
    }
    posterior
}

/// Posterior \[m, K\] and confusion matrices \[A * K, K\], that of annotator a in rows a K .. (a + 1) K.
pub fn dawid_skene(votes: &Votes) -> (Array2<f64>, Array2<f64>) {
    let (m, k) = (votes.rows.len(), votes.classes);
    // 1.
    let mut posterior = shares(votes, |_| 1.0);
    let mut confusion = Array2::zeros((votes.annotators * k, k));
    if m == 0 {
        confusion.fill(1.0 / k as f64);
        return (posterior, confusion);
    }
    let (from, which, row) = by_annotator(votes);
    for _ in 0..ROUNDS {
        // 2. An annotator's votes lie together, so each matrix is summed by one thread.
        {
            let known = posterior.as_slice().unwrap_or_default();
            let slots = confusion.as_slice_mut().unwrap_or_default();
            slots
                .par_chunks_mut(k * k)
                .enumerate()
                .for_each(|(a, slots)| {
                    slots.fill(1.0);
                    for &v in &which[from[a]..from[a + 1]] {
                        let i = row[v as usize] as usize;
                        let (class, weight) =
                            (votes.class[v as usize] as usize, votes.weight[v as usize]);
                        for (y, t) in known[i * k..(i + 1) * k].iter().enumerate() {
                            slots[y * k + class] += weight * t;
                        }
                    }
                    for slots in slots.chunks_mut(k) {
                        let sum: f64 = slots.iter().sum();
                        slots.iter_mut().for_each(|s| *s /= sum);
                    }
                });
        }
        let prior: Vec<f64> = posterior
            .columns()
            .into_iter()
            .map(|c| ((c.sum() + 1.0) / (m + k) as f64).ln())
            .collect();
        // 3. Logarithms by [annotator, answer, true class], so that a vote reads K numbers in a row.
        let mut log = vec![0.0; confusion.len()];
        for ((at, y), slots) in (0..votes.annotators)
            .flat_map(|a| (0..k).map(move |y| (a * k * k, y)))
            .zip(confusion.outer_iter())
        {
            for (class, slot) in slots.iter().enumerate() {
                log[at + class * k + y] = slot.ln();
            }
        }
        let moved: Vec<f64> = posterior
            .as_slice_mut()
            .unwrap_or_default()
            .par_chunks_mut(BLOCK * k)
            .enumerate()
            .map(|(block, rows)| {
                let mut moved = 0.0;
                let mut new = vec![0.0; k];
                for (offset, p) in rows.chunks_mut(k).enumerate() {
                    new.copy_from_slice(&prior);
                    for (a, class, weight) in votes.of_row(block * BLOCK + offset) {
                        let at = (a * k + class) * k;
                        for (sum, l) in new.iter_mut().zip(&log[at..at + k]) {
                            *sum += weight * l;
                        }
                    }
                    let top = new.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    new.iter_mut().for_each(|v| *v = (*v - top).exp());
                    let sum: f64 = new.iter().sum();
                    for (old, new) in p.iter_mut().zip(&new) {
                        let new = new / sum;
                        moved += (new - *old).abs();
                        *old = new;
                    }
                }
                moved
            })
            .collect();
        // 4.
        if moved.iter().sum::<f64>() / ((m * k) as f64) < TOLERANCE {
            break;
        }
    }
    (posterior, confusion)
}

/// The votes of each annotator: those of a are `which[from[a]..from[a + 1]]`; and the place in `rows` of each vote.
fn by_annotator(votes: &Votes) -> (Vec<usize>, Vec<u32>, Vec<u32>) {
    let mut row = vec![0u32; votes.annotator.len()];
    for i in 0..votes.rows.len() {
        row[votes.starts[i]..votes.starts[i + 1]].fill(i as u32);
    }
    let mut from = vec![0usize; votes.annotators + 1];
    for &a in &votes.annotator {
        from[a as usize + 1] += 1;
    }
    for a in 0..votes.annotators {
        from[a + 1] += from[a];
    }
    let mut next = from.clone();
    let mut which = vec![0u32; votes.annotator.len()];
    for (v, &a) in votes.annotator.iter().enumerate() {
        which[next[a as usize]] = v as u32;
        next[a as usize] += 1;
    }
    (from, which, row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Votes about `n` rows of annotators with these accuracies, each answering each row; and the truth.
    fn crowd(n: usize, k: usize, accuracies: &[f64], seed: u64) -> (Votes, Vec<usize>) {
        let mut rng = sampling::rng(seed, "a crowd");
        let truth: Vec<usize> = (0..n).map(|_| rng.random_range(0..k)).collect();
        let mut votes = Vec::new();
        for (row, &y) in truth.iter().enumerate() {
            for (a, &p) in accuracies.iter().enumerate() {
                let class = if rng.random::<f64>() < p {
                    y
                } else {
                    (y + rng.random_range(1..k)) % k
                };
                votes.push((row as u32, a as u32, class as u32, 1.0));
            }
        }
        (Votes::new(&votes, n, accuracies.len(), k), truth)
    }

    fn right(labels: &[usize], truth: &[usize]) -> f64 {
        let hits = labels.iter().zip(truth).filter(|(a, b)| a == b).count();
        hits as f64 / truth.len() as f64
    }

    #[test]
    fn majority_counts_votes_and_breaks_ties_by_the_seed() {
        let votes = [
            (0, 0, 1, 1.0),
            (0, 1, 1, 1.0),
            (0, 2, 0, 1.0),
            (2, 0, 0, 1.0),
            (2, 1, 1, 1.0),
        ];
        let votes = Votes::new(&votes, 3, 3, 2);
        let found = Aggregator::Majority.labels(&votes, 0);
        assert_eq!(found.labels[0], 1);
        assert!((found.posterior[[0, 1]] - 2.0 / 3.0).abs() < 1e-15);
        let ties: Vec<usize> = (0..40)
            .map(|seed| Aggregator::Majority.labels(&votes, seed).labels[1])
            .collect();
        assert!(ties.contains(&0) && ties.contains(&1));
        assert_eq!(found, Aggregator::Majority.labels(&votes, 0));
    }

    #[test]
    fn log_odds_of_the_weights_are_those_of_the_agreement() {
        // Annotators 0 and 1 always agree (6 rows), 2 never: rates 7/8, 7/8, 1/8, odds ±ln 7.
        let votes: Vec<_> = (0..6)
            .flat_map(|row| [(row, 0, 0, 1.0), (row, 1, 0, 1.0), (row, 2, 1, 1.0)])
            .collect();
        let found = Aggregator::Weighted.labels(&Votes::new(&votes, 6, 3, 2), 0);
        let odds = 3.0 * 7f64.ln();
        let expected = 1.0 / (1.0 + (-odds).exp());
        assert!((found.posterior[[0, 0]] - expected).abs() < 1e-12);
    }

    #[test]
    fn the_best_annotator_is_heard_by_dawid_and_skene_but_not_by_the_majority() {
        let (votes, truth) = crowd(4000, 3, &[0.95, 0.5, 0.5, 0.45, 0.45], 1);
        let majority = right(&Aggregator::Majority.labels(&votes, 0).labels, &truth);
        let weighted = right(&Aggregator::Weighted.labels(&votes, 0).labels, &truth);
        let em = right(&Aggregator::DawidSkene.labels(&votes, 0).labels, &truth);
        assert!(
            em > 0.92 && em > weighted && weighted > majority,
            "{em} {weighted} {majority}"
        );
        // EM ends before it has converged to the last digit, so the rates are only near: 0.95, and 0.45 to 0.5.
        let (_, confusion) = dawid_skene(&votes);
        for y in 0..3 {
            assert!(confusion[[y, y]] > 0.85, "{confusion:?}");
            for a in 1..5 {
                assert!(confusion[[3 * a + y, y]] < 0.6, "{confusion:?}");
            }
        }
    }

    #[test]
    fn one_round_of_em_by_hand() {
        // One row, one vote for class 1 of 2: T = [0, 1]; confusion rows [1, 1] and [1, 2], prior (1, 2) / 3.
        // New T ∝ [1/3 * 1/2, 2/3 * 2/3] = [3, 8] / 18; the fixed point is found by the same formula, iterated.
        let votes = Votes::new(&[(0, 0, 1, 1.0)], 1, 1, 2);
        let mut t = 1.0f64;
        for _ in 0..100 {
            let hit = |t: f64| (1.0 + t) / (2.0 + t);
            let (p0, p1) = ((2.0 - t) / 3.0 * hit(1.0 - t), (1.0 + t) / 3.0 * hit(t));
            t = p1 / (p0 + p1);
        }
        let (posterior, _) = dawid_skene(&votes);
        assert!((posterior[[0, 1]] - t).abs() < 1e-2, "{posterior:?} {t}");
    }

    #[test]
    fn a_million_answers_take_seconds() {
        let (votes, truth) = crowd(200_000, 4, &[0.9, 0.8, 0.7, 0.6, 0.5], 2);
        let start = std::time::Instant::now();
        let found = Aggregator::DawidSkene.labels(&votes, 0);
        assert!(start.elapsed().as_secs_f64() < 10.0);
        assert!(right(&found.labels, &truth) > 0.9);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn posteriors_sum_to_one_and_names_of_annotators_do_not_matter(
            seed in 0u64..1000, n in 1usize..20, k in 2usize..5, kind in 0usize..3
        ) {
            let kind = [Aggregator::Majority, Aggregator::Weighted, Aggregator::DawidSkene][kind];
            let (votes, _) = crowd(n, k, &[0.9, 0.6, 0.3], seed);
            let found = kind.labels(&votes, seed);
            for p in found.posterior.outer_iter() {
                prop_assert!((p.sum() - 1.0).abs() < 1e-9);
            }
            let mut other = votes.clone();
            other.annotator.iter_mut().for_each(|a| *a = 2 - *a);
            let renamed = kind.labels(&other, seed);
            for (a, b) in found.posterior.iter().zip(&renamed.posterior) {
                prop_assert!((a - b).abs() < 1e-9);
            }
        }
    }
}
