//! Rows that stand twice: in the pool, exactly or nearly, and in pool and queries both.
//!
//! Exactly: the same words in the same order (`tokens.rs`: case and white space do not count). Nearly: the sets of runs of
//! three words have a Jaccard likeness of at least .8 (Broder, *On the resemblance and containment of documents*, 1997).
//!
//! 1. Each row's runs are hashed; under each of 125 further hashes the least one is kept (MinHash).
//! 2. Rows that agree in all 5 of one of 25 bands of these are candidates: a pair of likeness .8 is one with probability
//!    .99995, one of likeness .5 with probability .55.
//! 3. A candidate pair whose likeness, counted exactly, is high enough is near. In the order of the pool, a row is dropped if
//!    it is near a row that was kept.
//!
//! Cost: words x 125 hashes, and one count of likeness for each candidate pair.

use super::rows::{Part, Row};
use super::tokens::each_word;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Which rows count as the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Duplicates {
    /// None: duplicates may be picked.
    Keep,
    /// Rows of the same words.
    Exact,
    /// Rows of nearly the same words.
    Near,
}

/// Least likeness of near rows.
const LIKENESS: f64 = 0.8;
/// Words of a run.
const RUN: usize = 3;
const BANDS: usize = 25;
const BAND: usize = 5;

/// Marks the rows that are not a duplicate of an earlier one that is kept.
pub fn first_ones(rows: &[Row], part: Part, kind: Duplicates) -> Vec<bool> {
    match kind {
        Duplicates::Keep => vec![true; rows.len()],
        Duplicates::Exact => {
            let mut seen = HashSet::new();
            fingerprints(rows, part)
                .into_iter()
                .map(|f| seen.insert(f))
                .collect()
        }
        Duplicates::Near => first_of_near(rows, part),
    }
}

/// Rows of the pool with the same words as a query: pairs of query and row.
pub fn shared(queries: &[Row], rows: &[Row], part: Part) -> Vec<(usize, usize)> {
    let mut asked: HashMap<u128, Vec<usize>> = HashMap::new();
    for (q, fingerprint) in fingerprints(queries, part).into_iter().enumerate() {
        asked.entry(fingerprint).or_default().push(q);
    }
    let found = fingerprints(rows, part);
    found
        .iter()
        .enumerate()
        .flat_map(|(row, f)| asked.get(f).into_iter().flatten().map(move |q| (*q, row)))
        .collect()
}

/// 128 bits of each row's words.
fn fingerprints(rows: &[Row], part: Part) -> Vec<u128> {
    rows.par_iter()
        .map(|row| {
            let (mut low, mut high) = (DefaultHasher::new(), DefaultHasher::new());
            1u8.hash(&mut high);
            each_word(&row.words(part), |w| {
                w.hash(&mut low);
                w.hash(&mut high);
            });
            u128::from(low.finish()) << 64 | u128::from(high.finish())
        })
        .collect()
}

/// Hashes of the row's runs of words, sorted, each once. A row shorter than a run is one run.
fn runs(row: &Row, part: Part) -> Vec<u64> {
    let mut words: Vec<u64> = Vec::new();
    each_word(&row.words(part), |w| {
        let mut hasher = DefaultHasher::new();
        w.hash(&mut hasher);
        words.push(hasher.finish());
    });
    let hash = |run: &[u64]| {
        let mut hasher = DefaultHasher::new();
        run.hash(&mut hasher);
        hasher.finish()
    };
    let mut runs: Vec<u64> = if words.len() < RUN {
        vec![hash(&words)]
    } else {
        words.windows(RUN).map(hash).collect()
    };
    runs.sort_unstable();
    runs.dedup();
    runs
}

/// Mixes a hash with the number of a further hash function (the finaliser of SplitMix64).
fn mixed(hash: u64, function: usize) -> u64 {
    let mut z = hash ^ (function as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One key for each band (steps 1 and 2).
fn bands(runs: &[u64]) -> Vec<u64> {
    (0..BANDS)
        .map(|band| {
            let mut hasher = DefaultHasher::new();
            band.hash(&mut hasher);
            for function in band * BAND..(band + 1) * BAND {
                let least = runs.iter().map(|r| mixed(*r, function)).min();
                least.hash(&mut hasher);
            }
            hasher.finish()
        })
        .collect()
}

/// Size of the common part over the size of both together; both sorted.
fn likeness(a: &[u64], b: &[u64]) -> f64 {
    let (mut i, mut j, mut common) = (0, 0, 0usize);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                common += 1;
                i += 1;
                j += 1;
            }
        }
    }
    common as f64 / (a.len() + b.len() - common).max(1) as f64
}

fn first_of_near(rows: &[Row], part: Part) -> Vec<bool> {
    let keys: Vec<Vec<u64>> = rows.par_iter().map(|r| bands(&runs(r, part))).collect();
    let mut holders: HashMap<u64, Vec<u32>> = HashMap::new();
    let mut kept = Vec::with_capacity(rows.len());
    for (row, keys) in keys.iter().enumerate() {
        let mut candidates: Vec<u32> = keys
            .iter()
            .filter_map(|k| holders.get(k))
            .flatten()
            .copied()
            .collect();
        candidates.sort_unstable();
        candidates.dedup();
        let near = !candidates.is_empty() && {
            let own = runs(&rows[row], part);
            candidates
                .par_iter()
                .any(|&other| likeness(&own, &runs(&rows[other as usize], part)) >= LIKENESS)
        };
        if !near {
            for key in keys {
                holders.entry(*key).or_default().push(row as u32);
            }
        }
        kept.push(!near);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(texts: &[&str]) -> Vec<Row> {
        texts.iter().map(|t| Row::plain(t)).collect()
    }

    #[test]
    fn case_and_white_space_do_not_tell_rows_apart_and_order_does() {
        let pool = rows(&["To be", "to  be\n", "be to", "To be."]);
        let kept = first_ones(&pool, Part::All, Duplicates::Exact);
        assert_eq!(kept, [true, false, true, true]);
        assert_eq!(first_ones(&pool, Part::All, Duplicates::Keep), [true; 4]);
        let asked = rows(&["BE TO", "nowhere", "to be"]);
        assert_eq!(shared(&asked, &pool, Part::All), [(2, 0), (2, 1), (0, 2)]);
    }

    #[test]
    fn likeness_of_runs_by_hand() {
        // Runs: abc bcd cde; abc bcd cdf: 2 of 4.
        let two = rows(&["a b c d e", "a b c d f", "a b"]);
        let all: Vec<Vec<u64>> = two.iter().map(|r| runs(r, Part::All)).collect();
        assert_eq!(likeness(&all[0], &all[1]), 0.5);
        assert_eq!((all[2].len(), likeness(&all[2], &all[2])), (1, 1.0));
    }

    #[test]
    fn a_row_with_one_word_changed_is_near_and_one_with_many_is_not() {
        let words: Vec<String> = (0..40).map(|i| format!("w{i}")).collect();
        let change = |at: &[usize]| {
            let mut other = words.clone();
            for i in at {
                other[*i] = format!("x{i}");
            }
            Row::plain(&other.join(" "))
        };
        // One word inside changes 3 of 38 runs: 35 / 41 = .85. Two words far apart: 32 / 44 = .73.
        let pool = [change(&[]), change(&[20]), change(&[10, 30]), change(&[])];
        let kept = first_ones(&pool, Part::All, Duplicates::Near);
        assert_eq!(kept, [true, false, true, false]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn near_finds_at_least_what_exact_finds(
            texts in proptest::collection::vec("[ab]( [ab]){0,3}", 1..20)
        ) {
            let pool: Vec<Row> = texts.iter().map(|t| Row::plain(t)).collect();
            let exact = first_ones(&pool, Part::All, Duplicates::Exact);
            let near = first_ones(&pool, Part::All, Duplicates::Near);
            for (e, n) in exact.iter().zip(&near) {
                prop_assert!(*e || !*n);
            }
        }
    }
}
