//! How many rows of a coreset go to each class.
//!
//! The released code of AutoCoreset mixes three ways to share m rows among classes of sizes n_c, with r_c = n_c / n:
//! 1. proportional: r_c; rare first: |ln r_c| over their sum; nearly equal: exp(-r_c) over their sum.
//! 2. The shares are a combination a of the three with a_j >= b, sum a = 1 and m share_c <= n_c, where
//!    b = min(n_c) / m, or 0.8 if that is 1 or more, times alpha; alpha falls from 1 to 0.4 in ten steps until a
//!    combination exists. If none does: proportional.
//!
//! The released linear program has the constant objective sum a, so every feasible a is a solution of it. Taken here: the
//! corner of the feasible set with the most of the proportional share. The released code rounds m share_c and rescales;
//! here the rounding makes the quotas sum to m, gives every class a row, and gives none more than it has.
//!
//! Cost: O(classes) for each alpha, as the three combinations form a triangle that each class cuts once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How rows are shared among classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Quotas {
    /// A mixture of proportional, rare classes first, and nearly equal.
    Mixed,
    /// In proportion to their sizes.
    Proportional,
}

/// The quota of each class, which sum to `m`; `m` must be at least the number of classes and at most the number of rows,
/// and no class empty.
pub(super) fn quotas(sizes: &[usize], m: usize, how: Quotas) -> Vec<usize> {
    let n: usize = sizes.iter().sum();
    let ratios: Vec<f64> = sizes.iter().map(|s| *s as f64 / n as f64).collect();
    let shares = match how {
        Quotas::Mixed if sizes.len() > 1 => mixed(sizes, &ratios, m).unwrap_or(ratios),
        _ => ratios,
    };
    rounded(&shares, sizes, m)
}

/// Steps 1 and 2.
fn mixed(sizes: &[usize], ratios: &[f64], m: usize) -> Option<Vec<f64>> {
    let normed = |values: Vec<f64>| -> Vec<f64> {
        let sum: f64 = values.iter().sum();
        values.iter().map(|v| v / sum).collect()
    };
    let rare = normed(ratios.iter().map(|r| r.ln().abs()).collect());
    let equal = normed(ratios.iter().map(|r| (-r).exp()).collect());
    let smallest = sizes.iter().min().copied().unwrap_or(0) as f64;
    let base = match smallest / m as f64 {
        enough if enough >= 1.0 => 0.8,
        less => less,
    };
    (0..10).find_map(|step| {
        let bound = base * (1.0 - 0.6 * f64::from(step) / 9.0);
        let corner = corner(bound, |cut| {
            for c in 0..sizes.len() {
                cut([ratios[c], rare[c], equal[c]], sizes[c] as f64 / m as f64);
            }
        })?;
        Some(
            (0..sizes.len())
                .map(|c| corner[0] * ratios[c] + corner[1] * rare[c] + corner[2] * equal[c])
                .collect(),
        )
    })
}

/// The corner with the largest first entry of the set of a with a_j >= bound, sum a = 1 and row.a <= most for each cut.
fn corner(bound: f64, cuts: impl FnOnce(&mut dyn FnMut([f64; 3], f64))) -> Option<[f64; 3]> {
    let free = 1.0 - 3.0 * bound;
    if free < 0.0 {
        return None;
    }
    let mut corners: Vec<[f64; 3]> = (0..3)
        .map(|j| {
            let mut a = [bound; 3];
            a[j] += free;
            a
        })
        .collect();
    cuts(&mut |row, most| {
        let excess = |a: &[f64; 3]| row[0] * a[0] + row[1] * a[1] + row[2] * a[2] - most;
        let mut kept = Vec::with_capacity(corners.len() + 1);
        for (i, a) in corners.iter().enumerate() {
            let b = &corners[(i + 1) % corners.len()];
            let (at, bt) = (excess(a), excess(b));
            if at <= 1e-12 {
                kept.push(*a);
            }
            if (at <= 1e-12) != (bt <= 1e-12) {
                let t = at / (at - bt);
                kept.push(std::array::from_fn(|j| a[j] + t * (b[j] - a[j])));
            }
        }
        corners = kept;
    });
    let mut best = *corners.first()?;
    for a in corners {
        if a[0] > best[0] {
            best = a;
        }
    }
    Some(best)
}

/// Whole numbers that sum to `m`, each at least 1 and at most its class, as near to `m` times the shares as that allows.
fn rounded(shares: &[f64], sizes: &[usize], m: usize) -> Vec<usize> {
    let wanted: Vec<f64> = shares.iter().map(|s| s * m as f64).collect();
    let mut quotas: Vec<usize> = wanted
        .iter()
        .zip(sizes)
        .map(|(w, size)| (*w as usize).clamp(1, *size))
        .collect();
    let mut sum: usize = quotas.iter().sum();
    while sum != m {
        let up = sum < m;
        let mut best: Option<(f64, usize)> = None;
        for c in 0..quotas.len() {
            let lack = wanted[c] - quotas[c] as f64;
            let (possible, gain) = if up {
                (quotas[c] < sizes[c], lack)
            } else {
                (quotas[c] > 1, -lack)
            };
            if possible && best.is_none_or(|(most, _)| gain > most) {
                best = Some((gain, c));
            }
        }
        match best {
            Some((_, c)) if up => {
                quotas[c] += 1;
                sum += 1;
            }
            Some((_, c)) => {
                quotas[c] -= 1;
                sum -= 1;
            }
            None => break,
        }
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_large_classes_by_hand() {
        // Bound 0.8 alpha; the first feasible alpha is 0.4, so a = (0.36, 0.32, 0.32).
        let r = [0.8f64, 0.2];
        let rare = r[0].ln().abs() / (r[0].ln().abs() + r[1].ln().abs());
        let equal = (-0.8f64).exp() / ((-0.8f64).exp() + (-0.2f64).exp());
        let share = 0.36 * 0.8 + 0.32 * rare + 0.32 * equal;
        let expected = (100.0 * share).round() as usize;
        assert_eq!(
            quotas(&[800, 200], 100, Quotas::Mixed),
            [expected, 100 - expected]
        );
        assert_eq!(quotas(&[800, 200], 100, Quotas::Proportional), [80, 20]);
    }

    #[test]
    fn equal_classes_get_equal_quotas() {
        assert_eq!(quotas(&[50; 4], 40, Quotas::Mixed), [10; 4]);
        assert_eq!(quotas(&[7], 3, Quotas::Mixed), [3]);
    }

    #[test]
    fn a_rare_class_is_taken_whole_at_most() {
        let q = quotas(&[10_000, 3], 100, Quotas::Mixed);
        assert_eq!(q.iter().sum::<usize>(), 100);
        assert!((1..=3).contains(&q[1]), "{q:?}");
    }

    #[test]
    fn the_corner_of_an_uncut_triangle_is_the_proportional_one() {
        let a = corner(0.2, |_| ()).unwrap();
        assert!((a[0] - 0.6).abs() < 1e-12 && (a[1] - 0.2).abs() < 1e-12);
        assert!(corner(0.4, |_| ()).is_none());
        // A cut that nothing survives, and one through the middle.
        assert!(corner(0.0, |cut| cut([1.0, 1.0, 1.0], 0.5)).is_none());
        let a = corner(0.0, |cut| cut([1.0, 0.0, 0.0], 0.25)).unwrap();
        assert!((a[0] - 0.25).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn quotas_sum_up_within_the_classes(
            sizes in prop::collection::vec(1usize..200, 1..9), part in 0.0f64..1.0, mixed in any::<bool>(),
        ) {
            let n: usize = sizes.iter().sum();
            let m = sizes.len() + (part * (n - sizes.len()) as f64) as usize;
            let how = if mixed { Quotas::Mixed } else { Quotas::Proportional };
            let q = quotas(&sizes, m, how);
            prop_assert_eq!(q.iter().sum::<usize>(), m);
            prop_assert!(q.iter().zip(&sizes).all(|(q, s)| *q >= 1 && q <= s));
        }
    }
}
