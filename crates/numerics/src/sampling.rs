//! Random draws, all of them made from the seed of one job.
//!
//! A job has one seed and many places that draw. `rng` gives each place a stream of its own, so that a
//! draw added in one place does not shift the draws of another, and so that the order in which threads
//! reach their places cannot matter.
//!
//! What a stream yields is fixed by the `ChaCha` definition and is the same on every platform. The draws
//! made from it here depend on nothing else than that stream, except that those with weights go through
//! `ln`, whose last bit may differ between platforms' mathematics libraries.

use std::collections::BTreeMap;

use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::seq::{SliceRandom, index};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Why no sample could be drawn.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// More was asked for, without replacement, than there is.
    #[error("cannot draw {wanted} of {available} without replacement")]
    TooMany {
        /// How many were asked for.
        wanted: usize,
        /// How many can be drawn at all: with weights, those of positive weight.
        available: usize,
    },
    /// A weight is negative, infinite or not a number.
    #[error("weight {value} in row {row} is not a finite number of at least 0")]
    Weight {
        /// The row, counted from 0.
        row: usize,
        /// The weight found there.
        value: f64,
    },
    /// No weight is positive, or their sum overflows.
    #[error("the weights sum to {sum}; the sum has to be positive and finite")]
    WeightSum {
        /// The sum found.
        sum: f64,
    },
    /// A class has fewer members than its quota.
    #[error("class {class} has {available} members, fewer than its quota of {wanted}")]
    Quota {
        /// The class.
        class: i32,
        /// Its quota.
        wanted: usize,
        /// Its members; 0 when the class does not occur.
        available: usize,
    },
}

/// A generator for one purpose of a job.
///
/// The key of the `ChaCha8` stream is 32 bytes: the seed (8, little-endian), 8 zeros, and the 128-bit
/// FNV-1a hash of the purpose's UTF-8 bytes (16, little-endian). Two seeds, or two purposes, therefore give
/// two keys, hence two unrelated streams; the same pair gives the same stream on every platform.
///
/// A purpose is a short constant text that says what is drawn, such as `"k-means start"`. A place that draws
/// in a loop or from several threads puts the number of the part into the purpose, or calls
/// [`ChaCha8Rng::set_stream`] with it.
pub fn rng(seed: u64, purpose: &str) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[16..].copy_from_slice(&fnv1a_128(purpose.as_bytes()).to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// The 128-bit FNV-1a hash, with its published offset and prime: short, and the same everywhere, which the
/// standard library's hasher does not promise.
fn fnv1a_128(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, &byte| {
        (hash ^ u128::from(byte)).wrapping_mul(PRIME)
    })
}

/// The numbers `0..n` in a uniformly random order. O(n).
pub fn permutation<R: Rng + ?Sized>(rng: &mut R, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(rng);
    order
}

/// `k` distinct numbers of `0..n`, every set of `k` equally likely, in random order.
///
/// Time and memory are O(k) where `k` is small beside `n`, and O(n) otherwise.
///
/// # Errors
/// [`SamplingError::TooMany`] if `k > n`.
pub fn sample_shuffled<R: Rng + ?Sized>(
    rng: &mut R,
    n: usize,
    k: usize,
) -> Result<Vec<usize>, SamplingError> {
    if k > n {
        return Err(SamplingError::TooMany {
            wanted: k,
            available: n,
        });
    }
    Ok(index::sample(rng, n, k).into_vec())
}

/// `k` distinct numbers of `0..n`, every set of `k` equally likely, in ascending order: the order in which
/// rows are best read. The set is the one that [`sample_shuffled`] draws from the same generator.
///
/// # Errors
/// [`SamplingError::TooMany`] if `k > n`.
pub fn sample_sorted<R: Rng + ?Sized>(
    rng: &mut R,
    n: usize,
    k: usize,
) -> Result<Vec<usize>, SamplingError> {
    let mut rows = sample_shuffled(rng, n, k)?;
    rows.sort_unstable();
    Ok(rows)
}

/// `k` independent draws from `0..weights.len()`, row `i` with probability `weights[i] / sum`.
///
/// O(n + k log n): the running sums of the weights, then a binary search for each draw. A row of weight 0 is
/// never drawn.
///
/// # Errors
/// [`SamplingError::Weight`] for a negative or non-finite weight, [`SamplingError::WeightSum`] if none is
/// positive (so also if there are none) while `k > 0`.
pub fn weighted_with_replacement<R: Rng + ?Sized>(
    rng: &mut R,
    weights: &[f64],
    k: usize,
) -> Result<Vec<usize>, SamplingError> {
    check_weights(weights)?;
    if k == 0 {
        return Ok(Vec::new());
    }
    let sum: f64 = weights.iter().sum();
    if !(sum > 0.0 && sum.is_finite()) {
        return Err(SamplingError::WeightSum { sum });
    }
    let rows = WeightedIndex::new(weights).map_err(|_| SamplingError::WeightSum { sum })?;
    Ok((0..k).map(|_| rows.sample(rng)).collect())
}

/// `k` distinct rows of `0..weights.len()`, as if drawn one after the other, each with probability
/// proportional to its weight among those not drawn yet, and returned in that order.
///
/// Efraimidis and Spirakis (2006), Weighted random sampling with a reservoir: row `i` gets the key
/// `u_i^(1/w_i)`, and the `k` largest keys win. Here the key is its logarithm's logarithm,
/// `ln(-ln u_i) - ln w_i`, whose smallest win: the same order, without the underflow that makes all keys of
/// small weights 0. O(n + k log k). A row of weight 0 is never drawn.
///
/// # Errors
/// [`SamplingError::Weight`] for a negative or non-finite weight, [`SamplingError::TooMany`] if fewer than
/// `k` weights are positive.
pub fn weighted_without_replacement<R: Rng + ?Sized>(
    rng: &mut R,
    weights: &[f64],
    k: usize,
) -> Result<Vec<usize>, SamplingError> {
    check_weights(weights)?;
    let mut keys: Vec<(f64, usize)> = weights
        .iter()
        .enumerate()
        .filter(|&(_, &weight)| weight > 0.0)
        .map(|(row, &weight)| {
            let u = 1.0 - rng.random::<f64>(); // in (0, 1]
            ((-u.ln()).ln() - weight.ln(), row)
        })
        .collect();
    if k > keys.len() {
        return Err(SamplingError::TooMany {
            wanted: k,
            available: keys.len(),
        });
    }
    let by_key = |a: &(f64, usize), b: &(f64, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
    if k < keys.len() {
        keys.select_nth_unstable_by(k, by_key);
        keys.truncate(k);
    }
    keys.sort_unstable_by(by_key);
    Ok(keys.into_iter().map(|(_, row)| row).collect())
}

/// Rows drawn uniformly without replacement within each class, `quotas[class]` of them, in ascending order.
/// A class without a quota gives none.
///
/// # Errors
/// [`SamplingError::Quota`] for the first class, in ascending order, with fewer members than its quota.
pub fn stratified<R: Rng + ?Sized>(
    rng: &mut R,
    labels: &[i32],
    quotas: &BTreeMap<i32, usize>,
) -> Result<Vec<usize>, SamplingError> {
    let mut members: BTreeMap<i32, Vec<usize>> =
        quotas.keys().map(|&class| (class, Vec::new())).collect();
    for (row, label) in labels.iter().enumerate() {
        if let Some(rows) = members.get_mut(label) {
            rows.push(row);
        }
    }
    let mut drawn = Vec::with_capacity(quotas.values().sum());
    for ((&class, rows), &quota) in members.iter().zip(quotas.values()) {
        let picks = sample_shuffled(rng, rows.len(), quota).map_err(|_| SamplingError::Quota {
            class,
            wanted: quota,
            available: rows.len(),
        })?;
        drawn.extend(picks.into_iter().map(|i| rows[i]));
    }
    drawn.sort_unstable();
    Ok(drawn)
}

/// Quotas for a stratified sample of `k` rows that keep the classes' shares: `k` times the share, rounded
/// down, and the rest one each to the largest remainders (ties to the lower class). No quota exceeds its
/// class, and they sum to `k`.
///
/// # Errors
/// [`SamplingError::TooMany`] if `k` exceeds the number of labels.
pub fn proportional_quotas(
    labels: &[i32],
    k: usize,
) -> Result<BTreeMap<i32, usize>, SamplingError> {
    let n = labels.len();
    if k > n {
        return Err(SamplingError::TooMany {
            wanted: k,
            available: n,
        });
    }
    let mut sizes: BTreeMap<i32, usize> = BTreeMap::new();
    for &label in labels {
        *sizes.entry(label).or_default() += 1;
    }
    // In integers, so that equal shares have equal remainders: k * size = quota * n + remainder.
    let mut quotas = BTreeMap::new();
    let mut remainders = Vec::with_capacity(sizes.len());
    for (&class, &size) in &sizes {
        let product = k as u128 * size as u128;
        quotas.insert(class, (product / n as u128) as usize);
        remainders.push((product % n as u128, class));
    }
    remainders.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let rest = k - quotas.values().sum::<usize>();
    for (_, class) in remainders.into_iter().take(rest) {
        *quotas.entry(class).or_default() += 1;
    }
    Ok(quotas)
}

fn check_weights(weights: &[f64]) -> Result<(), SamplingError> {
    match weights.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
        Some(row) => Err(SamplingError::Weight {
            row,
            value: weights[row],
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_hash_is_fnv1a_128() {
        // Values of the FNV reference (empty text: the offset; "a": one step).
        assert_eq!(fnv1a_128(b""), 0x6c62272e07bb014262b821756295c58d);
        assert_eq!(fnv1a_128(b"a"), 0xd228cb696f1a8caf78912b704e4a8964);
    }

    #[test]
    fn streams_are_fixed_and_apart() {
        let first = |seed, purpose| rng(seed, purpose).next_u64();
        // The key, built by hand from its documented layout.
        let mut key = [0u8; 32];
        key[0] = 7;
        key[16..].copy_from_slice(&0xd228cb696f1a8caf78912b704e4a8964u128.to_le_bytes());
        assert_eq!(first(7, "a"), ChaCha8Rng::from_seed(key).next_u64());
        // Computed by another implementation of ChaCha8 and FNV-1a, in Python. A change of these numbers
        // makes every recorded result unrepeatable.
        assert_eq!(
            [first(0, "start"), first(1, "start"), first(0, "split")],
            [
                13106841183043954660,
                346662841255574581,
                8284905213022184946
            ]
        );
    }

    #[test]
    fn every_subset_is_equally_likely() {
        // 10 subsets of 2 of 5, 20,000 draws: each expected 2000, standard deviation 42.4.
        let mut rng = rng(3, "test");
        let mut counts = BTreeMap::new();
        for _ in 0..20_000 {
            *counts
                .entry(sample_sorted(&mut rng, 5, 2).unwrap())
                .or_insert(0i32) += 1;
        }
        assert_eq!(counts.len(), 10);
        assert!(
            counts.values().all(|&c| (c - 2000).abs() < 212),
            "{counts:?}"
        );
    }

    #[test]
    fn shuffled_samples_have_no_preferred_order() {
        // The first of 3 of 6 is each number with probability 1/6: 12,000 draws, sd 40.8.
        let mut rng = rng(4, "test");
        let mut first = [0i32; 6];
        for _ in 0..12_000 {
            first[sample_shuffled(&mut rng, 6, 3).unwrap()[0]] += 1;
        }
        assert!(first.iter().all(|&c| (c - 2000).abs() < 204), "{first:?}");
    }

    #[test]
    fn weights_give_the_frequencies() {
        let weights = [0.0, 1.0, 2.0, 0.0, 5.0, 0.0];
        let draws = weighted_with_replacement(&mut rng(5, "test"), &weights, 16_000).unwrap();
        let mut counts = [0i32; 6];
        draws.iter().for_each(|&row| counts[row] += 1);
        assert_eq!([counts[0], counts[3], counts[5]], [0, 0, 0]);
        // Expected 2000, 4000, 10000; five standard deviations.
        for (row, expected, sd) in [(1, 2000, 41.8), (2, 4000, 54.8), (4, 10_000, 61.2)] {
            assert!(
                f64::from(counts[row] - expected).abs() < 5.0 * sd,
                "{counts:?}"
            );
        }
    }

    #[test]
    fn keys_draw_as_one_after_the_other() {
        // P(first = i, second = j) = w_i / W * w_j / (W - w_i), for weights 1, 2, 3.
        let weights = [1.0, 2.0, 3.0];
        let rounds = 30_000;
        let mut rng = rng(6, "test");
        let mut counts = [[0f64; 3]; 3];
        for _ in 0..rounds {
            let pair = weighted_without_replacement(&mut rng, &weights, 2).unwrap();
            counts[pair[0]][pair[1]] += 1.0;
        }
        for i in 0..3 {
            for j in 0..3 {
                let p = if i == j {
                    0.0
                } else {
                    weights[i] / 6.0 * weights[j] / (6.0 - weights[i])
                };
                let sd = (p * (1.0 - p) * f64::from(rounds)).sqrt();
                assert!((counts[i][j] - p * f64::from(rounds)).abs() <= 5.0 * sd);
            }
        }
    }

    #[test]
    fn tiny_and_huge_weights_keep_their_order() {
        // u^(1/w) would be 0 for all of the small ones.
        let weights = [1e-300, 1e300, 2e-308, 0.0];
        for seed in 0..50 {
            let rows = weighted_without_replacement(&mut rng(seed, "test"), &weights, 3).unwrap();
            assert_eq!(rows, [1, 0, 2]);
        }
    }

    #[test]
    fn bad_input_is_named() {
        let rng = &mut rng(0, "test");
        let too_many = |wanted, available| SamplingError::TooMany { wanted, available };
        assert_eq!(sample_sorted(rng, 3, 4), Err(too_many(4, 3)));
        assert_eq!(
            weighted_without_replacement(rng, &[1.0, 0.0, 2.0], 3),
            Err(too_many(3, 2))
        );
        assert_eq!(
            weighted_with_replacement(rng, &[1.0, -1.0], 1),
            Err(SamplingError::Weight {
                row: 1,
                value: -1.0
            })
        );
        assert!(matches!(
            weighted_without_replacement(rng, &[f64::NAN], 1),
            Err(SamplingError::Weight { row: 0, .. })
        ));
        assert_eq!(
            weighted_with_replacement(rng, &[0.0, 0.0], 1),
            Err(SamplingError::WeightSum { sum: 0.0 })
        );
        assert_eq!(
            weighted_with_replacement(rng, &[f64::MAX, f64::MAX], 1),
            Err(SamplingError::WeightSum { sum: f64::INFINITY })
        );
        assert_eq!(
            stratified(rng, &[0, 0, 1], &BTreeMap::from([(0, 1), (2, 1)])),
            Err(SamplingError::Quota {
                class: 2,
                wanted: 1,
                available: 0
            })
        );
        assert_eq!(proportional_quotas(&[0], 2), Err(too_many(2, 1)));
    }

    #[test]
    fn nothing_is_drawn_from_nothing() {
        let rng = &mut rng(0, "test");
        assert!(permutation(rng, 0).is_empty());
        assert!(sample_sorted(rng, 0, 0).unwrap().is_empty());
        assert!(weighted_with_replacement(rng, &[], 0).unwrap().is_empty());
        assert!(
            weighted_without_replacement(rng, &[0.0], 0)
                .unwrap()
                .is_empty()
        );
        assert!(stratified(rng, &[], &BTreeMap::new()).unwrap().is_empty());
        assert!(proportional_quotas(&[], 0).unwrap().is_empty());
    }

    #[test]
    fn remainders_are_shared_by_size_then_class() {
        // 7 rows, k = 3: shares 3*3/7 = 1 rest 2, 3*2/7 = 0 rest 6, 3*2/7 = 0 rest 6.
        let labels = [5, 5, 5, -1, -1, 9, 9];
        assert_eq!(
            proportional_quotas(&labels, 3).unwrap(),
            BTreeMap::from([(-1, 1), (5, 1), (9, 1)])
        );
        // 2 rows of 2 classes, k = 1: equal remainders, the lower class.
        assert_eq!(
            proportional_quotas(&[4, 2], 1).unwrap(),
            BTreeMap::from([(2, 1), (4, 0)])
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn samples_are_sets_of_the_right_size(seed: u64, n in 0usize..700, share in 0.0f64..=1.0) {
            let k = (share * n as f64) as usize;
            let sorted = sample_sorted(&mut rng(seed, "t"), n, k).unwrap();
            prop_assert_eq!(sorted.len(), k);
            prop_assert!(sorted.windows(2).all(|w| w[0] < w[1]));
            prop_assert!(sorted.iter().all(|&row| row < n));
            let mut shuffled = sample_shuffled(&mut rng(seed, "t"), n, k).unwrap();
            shuffled.sort_unstable();
            prop_assert_eq!(shuffled, sorted);
            let mut order = permutation(&mut rng(seed, "t"), n);
            order.sort_unstable();
            prop_assert_eq!(order, (0..n).collect::<Vec<_>>());
        }

        #[test]
        fn quotas_are_met(seed: u64, labels in prop::collection::vec(-1i32..4, 0..80), share in 0.0f64..=1.0) {
            let k = (share * labels.len() as f64) as usize;
            let quotas = proportional_quotas(&labels, k).unwrap();
            prop_assert_eq!(quotas.values().sum::<usize>(), k);
            let rows = stratified(&mut rng(seed, "t"), &labels, &quotas).unwrap();
            prop_assert!(rows.windows(2).all(|w| w[0] < w[1]));
            for (&class, &quota) in &quotas {
                prop_assert_eq!(rows.iter().filter(|&&row| labels[row] == class).count(), quota);
                let size = labels.iter().filter(|&&l| l == class).count();
                let exact = k as f64 * size as f64 / labels.len() as f64;
                prop_assert!((quota as f64 - exact).abs() < 1.0 && quota <= size);
            }
        }

        #[test]
        fn weighted_rows_are_distinct_and_positive(seed: u64, weights in prop::collection::vec(prop_oneof![Just(0.0), 1e-9f64..1e9], 0..60)) {
            let positive = weights.iter().filter(|&&w| w > 0.0).count();
            let mut rows = weighted_without_replacement(&mut rng(seed, "t"), &weights, positive).unwrap();
            rows.sort_unstable();
            let expected: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0.0).collect();
            prop_assert_eq!(rows, expected);
        }
    }
}
