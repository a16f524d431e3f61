//! The k largest or smallest values of a slice, without sorting it.
//!
//! One pass keeps the candidates that beat the k-th best so far in a buffer of a few k; a full buffer is
//! cut back to its k best by partial selection. Random order costs about n comparisons and k ln(n / k)
//! insertions, the worst order O(n). From k = n / 16 on, partial selection from all values is faster.
//!
//! Rules: results are sorted, best first; of equal values the lower index comes first (and 0.0 equals
//! -0.0); NaN is worse than every number, both for the largest and for the smallest, so that it is returned
//! only if there are fewer than k numbers.

use std::cmp::Ordering;

use crate::linalg::Real;

/// The indices of the `k` largest values, largest first; all of them if there are fewer than `k`.
pub fn largest<T: Real>(values: &[T], k: usize) -> Vec<usize> {
    select(values, k, |value| -value)
}

/// The indices of the `k` smallest values, smallest first; all of them if there are fewer than `k`.
pub fn smallest<T: Real>(values: &[T], k: usize) -> Vec<usize> {
    select(values, k, |value| value)
}

/// Orders (value, index) pairs: smaller values first, then lower indices, NaN last.
#[inline(always)]
pub(crate) fn order<T: Real, I: Ord>(a: &(T, I), b: &(T, I)) -> Ordering {
    match a.0.partial_cmp(&b.0) {
        Some(Ordering::Equal) => a.1.cmp(&b.1),
        Some(order) => order,
        None => {
            let by_nan = is_nan(a.0).cmp(&is_nan(b.0));
            by_nan.then_with(|| a.1.cmp(&b.1))
        }
    }
}

#[inline(always)]
fn is_nan<T: Real>(value: T) -> bool {
    value.partial_cmp(&value).is_none()
}

/// Cuts candidates back to the `k` first of [`order`], in no particular order.
pub(crate) fn keep_first<T: Real, I: Ord>(candidates: &mut Vec<(T, I)>, k: usize) {
    if k > 0 && k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, order);
    }
    candidates.truncate(k);
}

fn select<T: Real>(values: &[T], k: usize, key: impl Fn(T) -> T) -> Vec<usize> {
    if k == 0 {
        return Vec::new();
    }
    if k >= values.len() / 16 {
        // So many that the bar would pass much of the rest.
        let mut all: Vec<(T, usize)> = (0..values.len()).map(|i| (key(values[i]), i)).collect();
        keep_first(&mut all, k);
        all.sort_unstable_by(order);
        return all.into_iter().map(|(_, index)| index).collect();
    }
    // The first k set the bar, then only what beats it is looked at. Later equals never beat it: their
    // index is higher. NaN never does, and as the bar it lets every number pass.
    let room = k + k.max(32);
    let mut best: Vec<(T, usize)> = Vec::with_capacity(room);
    best.extend((0..k).map(|i| (key(values[i]), i)));
    let mut bar = worst(&best);
    for (start, part) in (k..).step_by(BLOCK).zip(values[k..].chunks(BLOCK)) {
        // Most blocks hold nothing: one test without branches on entries passes them.
        let mut any = is_nan(bar);
        for &value in part {
            any |= key(value) < bar;
        }
        if !any {
            continue;
        }
        for (index, &value) in (start..).zip(part) {
            let value = key(value);
            if value < bar || (is_nan(bar) && !is_nan(value)) {
                best.push((value, index));
                if best.len() == room {
                    keep_first(&mut best, k);
                    bar = worst(&best);
                }
            }
        }
    }
    keep_first(&mut best, k);
    best.sort_unstable_by(order);
    best.into_iter().map(|(_, index)| index).collect()
}

/// Entries that are tested at once.
const BLOCK: usize = 64;

fn worst<T: Real>(best: &[(T, usize)]) -> T {
    best.iter()
        .max_by(|a, b| order(a, b))
        .map_or(T::INFINITY, |worst| worst.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_sorting(values: &[f64], k: usize, sign: f64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..values.len()).collect();
        // A stable sort keeps equal values in the order of their indices.
        order.sort_by(|&a, &b| {
            let (a, b) = (sign * values[a], sign * values[b]);
            match (a.is_nan(), b.is_nan()) {
                (false, false) => a.partial_cmp(&b).unwrap(),
                (a, b) => a.cmp(&b),
            }
        });
        order.truncate(k);
        order
    }

    #[test]
    fn by_hand() {
        let values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0];
        assert_eq!(largest(&values, 4), vec![5, 7, 4, 8]);
        assert_eq!(smallest(&values, 3), vec![1, 3, 6]);
        assert_eq!(largest(&[2.0_f32, 2.0, 3.0, 2.0], 3), vec![2, 0, 1]);
        assert_eq!(smallest(&[0.0, -0.0, 1.0], 2), vec![0, 1]);
    }

    #[test]
    fn nan_comes_last() {
        let values = [f64::NAN, 1.0, f64::INFINITY, f64::NAN, f64::NEG_INFINITY];
        assert_eq!(largest(&values, 5), vec![2, 1, 4, 0, 3]);
        assert_eq!(smallest(&values, 5), vec![4, 1, 2, 0, 3]);
        assert_eq!(largest(&values, 2), vec![2, 1]);
        let mut many = vec![f64::NAN; 500];
        many[300] = f64::INFINITY;
        many[400] = 7.0;
        assert_eq!(smallest(&many, 3), vec![400, 300, 0]);
        assert_eq!(largest(&many, 4), vec![300, 400, 0, 1]);
    }

    #[test]
    fn edges() {
        assert_eq!(largest::<f64>(&[], 3), Vec::<usize>::new());
        assert_eq!(largest(&[1.0, 2.0], 0), Vec::<usize>::new());
        assert_eq!(largest(&[1.0, 2.0], 9), vec![1, 0]);
        assert_eq!(smallest(&[7.0; 1000], 5), vec![0, 1, 2, 3, 4]);
    }

    #[test]
    fn the_worst_orders_are_right_too() {
        let up: Vec<f64> = (0..20_000).map(f64::from).collect();
        let down: Vec<f64> = up.iter().rev().copied().collect();
        for k in [1, 31, 32, 33, 1000, 19_999] {
            let first: Vec<usize> = (0..k).collect();
            let last: Vec<usize> = (0..k).map(|i| 19_999 - i).collect();
            assert_eq!(
                (smallest(&up, k), largest(&up, k)),
                (first.clone(), last.clone())
            );
            assert_eq!((smallest(&down, k), largest(&down, k)), (last, first));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_sorting(
            values in prop::collection::vec(
                prop_oneof![8 => (-20i32..20).prop_map(f64::from), 8 => -1.0..1.0f64, 1 => Just(f64::NAN)],
                0..700,
            ),
            k in 0usize..80,
        ) {
            prop_assert_eq!(smallest(&values, k), by_sorting(&values, k, 1.0));
            prop_assert_eq!(largest(&values, k), by_sorting(&values, k, -1.0));
        }
    }
}
