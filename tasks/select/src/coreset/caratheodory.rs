//! Caratheodory's theorem made a program: fewer rows with the same weighted sums, exactly.
//!
//! Any weighted rows in t dimensions hold at most t + 1 rows with the same weighted mean and the same sum of weights. The
//! fast way of Maalouf, Jubran and Feldman, *Fast and accurate least-mean-squares solvers*, NeurIPS 2019:
//! 1. Cut the rows into 2t + 2 groups; each is a point, the weighted mean of its rows, with the sum of their weights.
//! 2. Take t + 2 points. A null vector v of their t + 1 differences, from an SVD, with v_0 minus the sum of the others,
//!    has sum v = 0 and sum v point = 0: weights - a v keeps sum and mean for every a. The largest a that leaves no weight
//!    negative, a = min of weight / v over v > 0, makes one of them 0; that group goes with all its rows.
//! 3. Repeat 2 until t + 1 groups are left, then 1 with the rows of those, each weight times the ratio of its group's
//!    weights. Stop as soon as at most m rows are left.
//!
//! Each round of 1 to 3 halves the rows: O(n t + t^4 log(n / t)). Weights below 1e-12 of the sum are set to 0, the sum is
//! restored at the end, and the means are checked to 1e-8.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{Mat, Par};
use papertrial_core::{Error, Result};

/// At most `most` of `rows` with weights, whose sums over all `columns` are those of all rows under their first weights.
///
/// # Errors
/// As many columns as `most` or more, or sums that rounding did not preserve.
pub(super) fn reduce(
    columns: &[Vec<f64>],
    rows: &[(usize, f64)],
    most: usize,
) -> Result<Vec<(usize, f64)>> {
    let t = columns.len();
    if t + 1 > most {
        return Err(Error::Failed(format!(
            "{t} columns need {} rows, more than the {most} allowed",
            t + 1
        )));
    }
    let total: f64 = rows.iter().map(|(_, w)| w).sum();
    // Columns count alike, whatever their units.
    let scales: Vec<f64> = columns
        .iter()
        .map(|column| {
            let largest = rows
                .iter()
                .fold(0.0f64, |m, (row, _)| m.max(column[*row].abs()));
            if largest > 0.0 { 1.0 / largest } else { 0.0 }
        })
        .collect();
    let sums = |rows: &[(usize, f64)]| -> Vec<f64> {
        columns
            .iter()
            .zip(&scales)
            .map(|(column, scale)| {
                scale * rows.iter().map(|(row, w)| w * column[*row]).sum::<f64>()
            })
            .collect()
    };
    let wanted = sums(rows);
    let mut live: Vec<(usize, f64)> = rows.iter().filter(|(_, w)| *w > 0.0).copied().collect();
    while live.len() > most {
        // Step 1.
        let size = live.len().div_ceil(2 * t + 2);
        let groups: Vec<&[(usize, f64)]> = live.chunks(size).collect();
        let before: Vec<f64> = groups
            .iter()
            .map(|group| group.iter().map(|(_, w)| w).sum())
            .collect();
        let means: Vec<Vec<f64>> = groups
            .iter()
            .zip(&before)
            .map(|(group, weight)| sums(group).iter().map(|s| s / weight).collect())
            .collect();
        let mut weights = before.clone();
        let mut alive: Vec<usize> = (0..groups.len()).collect();
        let mut left = live.len();
        // Step 2.
        while alive.len() > t + 1 && left > most {
            let points: Vec<&[f64]> = alive[..t + 2].iter().map(|g| &means[*g][..]).collect();
            let v = null_vector(&points)?;
            let mut step: Option<(f64, usize)> = None;
            for (v, group) in v.iter().zip(&alive) {
                if *v > 0.0 {
                    let ratio = weights[*group] / v;
                    if step.is_none_or(|(least, _)| ratio < least) {
                        step = Some((ratio, *group));
                    }
                }
            }
            let Some((step, gone)) = step else {
                return Err(Error::Failed(
                    "a null vector of losses has no positive entry".into(),
                ));
            };
            for (v, group) in v.iter().zip(&alive) {
                weights[*group] -= step * v;
                if weights[*group] < 1e-12 * total {
                    weights[*group] = 0.0;
                }
            }
            weights[gone] = 0.0;
            alive.retain(|group| {
                if weights[*group] > 0.0 {
                    return true;
                }
                left -= groups[*group].len();
                false
            });
        }
        // Step 3.
        live = alive
            .iter()
            .flat_map(|g| {
                let ratio = weights[*g] / before[*g];
                groups[*g].iter().map(move |(row, w)| (*row, w * ratio))
            })
            .collect();
    }
    let sum: f64 = live.iter().map(|(_, w)| w).sum();
    for (_, w) in &mut live {
        *w *= total / sum;
    }
    let found = sums(&live);
    for (wanted, found) in wanted.iter().zip(&found) {
        if (wanted - found).abs() > 1e-8 * wanted.abs() {
            return Err(Error::Failed(format!(
                "rounding lost the sum of a column of losses ({found} instead of {wanted}); take another sampler"
            )));
        }
    }
    Ok(live)
}

/// v with sum v = 0 and sum v point = 0 for t + 2 points of t dimensions, |v| about 1.
fn null_vector(points: &[&[f64]]) -> Result<Vec<f64>> {
    let t = points.len() - 2;
    let differences = Mat::from_fn(t, t + 1, |j, i| points[i + 1][j] - points[0][j]);
    // On one thread, so that the number of threads changes no bit.
    let mut values = faer::Col::<f64>::zeros(t);
    let mut right = Mat::<f64>::zeros(t + 1, t + 1);
    let (none, full) = (ComputeSvdVectors::No, ComputeSvdVectors::Full);
    let scratch = svd_scratch::<f64>(t, t + 1, none, full, Par::Seq, Default::default());
    svd(
        differences.as_ref(),
        values.as_mut().as_diagonal_mut(),
        None,
        Some(right.as_mut()),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        Default::default(),
    )
    .map_err(|_| Error::Failed("the decomposition of a matrix of losses failed".into()))?;
    let last = right.col(t);
    let mut v = Vec::with_capacity(t + 2);
    v.push(-(0..=t).map(|i| last[i]).sum::<f64>());
    v.extend((0..=t).map(|i| last[i]));
    Ok(v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_null_vector_by_hand() {
        // 0, 1 and 3 on a line: v is proportional to (2, -3, 1).
        let v = null_vector(&[&[0.0], &[1.0], &[3.0]]).unwrap();
        assert!((v[1] / v[0] + 1.5).abs() < 1e-12 && (v[2] / v[0] - 0.5).abs() < 1e-12);
    }

    #[test]
    fn two_rows_stand_for_a_line() {
        let column: Vec<f64> = (0..1000).map(|i| f64::from(i % 10)).collect();
        let rows: Vec<(usize, f64)> = (0..1000).map(|row| (row, 1.0)).collect();
        let found = reduce(std::slice::from_ref(&column), &rows, 2).unwrap();
        assert_eq!(found.len(), 2);
        assert!((found.iter().map(|(_, w)| w).sum::<f64>() - 1000.0).abs() < 1e-9);
        let mean = found.iter().map(|(row, w)| w * column[*row]).sum::<f64>() / 1000.0;
        assert!((mean - 4.5).abs() < 1e-9);
    }

    #[test]
    fn columns_that_are_nearly_equal_or_zero_are_kept() {
        let a: Vec<f64> = (0..500).map(|i| f64::from(i * i % 101)).collect();
        let b = a.iter().map(|v| v * (1.0 + 1e-14)).collect();
        let c = vec![0.0; 500];
        let rows: Vec<(usize, f64)> = (0..500).map(|row| (row, 1.0)).collect();
        let found = reduce(&[a, b, c], &rows, 4).unwrap();
        assert!(found.len() <= 4);
    }

    #[test]
    fn too_many_columns_are_refused() {
        let rows = [(0, 1.0), (1, 1.0), (2, 1.0)];
        assert!(reduce(&[vec![1.0; 3], vec![2.0; 3]], &rows, 2).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn sums_are_preserved(n in 1usize..400, t in 1usize..7, more in 0usize..60, seed in 0usize..1000) {
            let columns: Vec<Vec<f64>> = (0..t)
                .map(|j| (0..n).map(|i| ((i * 7919 + j * 104_729 + seed * 31 + i * i * j) % 1009) as f64 / 37.0).collect())
                .collect();
            let rows: Vec<(usize, f64)> = (0..n).map(|row| (row, 0.5 + (row % 3) as f64)).collect();
            let most = t + 1 + more;
            let found = reduce(&columns, &rows, most).unwrap();
            prop_assert!(found.len() <= most);
            prop_assert!(found.iter().all(|(_, w)| *w > 0.0));
            let total: f64 = rows.iter().map(|(_, w)| w).sum();
            prop_assert!((found.iter().map(|(_, w)| w).sum::<f64>() - total).abs() <= 1e-9 * total);
            for column in &columns {
                let wanted: f64 = rows.iter().map(|(row, w)| w * column[*row]).sum();
                let sum: f64 = found.iter().map(|(row, w)| w * column[*row]).sum();
                prop_assert!((sum - wanted).abs() <= 1e-8 * wanted);
            }
        }
    }
}
