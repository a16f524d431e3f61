//! Frank and Wolfe's greedy steps towards the mean of the rows' loss vectors, with non-negative weights.
//!
//! l_i \[t\] loss vectors with weights w_i of sum W, mu their weighted mean. Two forms:
//! - plain: from the l_i nearest to mu, each step takes the l_i with the least product with (c - mu), c the point so far, and
//!   moves c towards it as far as brings it nearest to mu. Weights are those of the combination, times W.
//! - normalised (Feldman, Ozer and Rus, *Coresets for vector summarization with applications to network graphs*, ICML 2017; the
//!   paper names this variant, its released code has none of it, so the details are ours): let s^2 be the weighted variance
//!   and a_i = (l_i - mu, s). The vectors a_i / |a_i|^2 with weights w_i |a_i|^2 / 2 s^2 W have the mean (0, 1 / 2s); steps as
//!   above towards it, weights turned back by 2 s^2 W / |a_i|^2. After m steps the mean is off by at most a constant times
//!   s / sqrt m however long the longest vector is, where the plain form depends on the longest.
//!
//! The rows are cut into m / 3 runs of consecutive rows, and each is summarised on its own with 3 steps, as the released
//! code lays out its chunks (it has no such steps itself any more). Without that, few rows would do: with t models the hull's
//! mean is a combination of t + 1 of them, which match these models and tell nothing of others.
//!
//! Deterministic: of equally good rows the first. Cost: O(n t) for each step of a run, on all threads.

use rayon::prelude::*;

/// Steps of a run.
const STEPS: usize = 3;

/// At most `m` of `rows` (with their first weights), and weights that bring the weighted mean of `columns` near that of all.
pub(super) fn greedy(
    columns: &[Vec<f64>],
    rows: &[(usize, f64)],
    m: usize,
    normalised: bool,
) -> Vec<(usize, f64)> {
    let runs = (m / STEPS).clamp(1, rows.len());
    let cut = |of: usize, run: usize| of * run / runs;
    let parts: Vec<Vec<(usize, f64)>> = (0..runs)
        .into_par_iter()
        .map(|run| {
            let own = &rows[cut(rows.len(), run)..cut(rows.len(), run + 1)];
            walk(columns, own, cut(m, run + 1) - cut(m, run), normalised)
        })
        .collect();
    parts.concat()
}

/// The steps of one run, `m` in all.
fn walk(
    columns: &[Vec<f64>],
    rows: &[(usize, f64)],
    m: usize,
    normalised: bool,
) -> Vec<(usize, f64)> {
    let t = columns.len();
    let total: f64 = rows.iter().map(|(_, w)| w).sum();
    let mean: Vec<f64> = columns
        .iter()
        .map(|column| rows.iter().map(|(row, w)| w * column[*row]).sum::<f64>() / total)
        .collect();
    // Squared distance of each row to the mean.
    let mut squares = vec![0.0; rows.len()];
    for (column, mean) in columns.iter().zip(&mean) {
        for (square, (row, _)) in squares.iter_mut().zip(rows) {
            *square += (column[*row] - mean).powi(2);
        }
    }
    let variance = rows
        .iter()
        .zip(&squares)
        .map(|((_, w), s)| w * s)
        .sum::<f64>()
        / total;
    if variance == 0.0 {
        // All rows are the mean: the first stands for all.
        return vec![(rows[0].0, total)];
    }
    let s = variance.sqrt();
    // The last entry of a vector, what it is divided by, and the target; the mean is taken off in both forms.
    let (last, target) = if normalised { (s, 0.5 / s) } else { (0.0, 0.0) };
    let divisor = |at: usize| {
        if normalised {
            squares[at] + variance
        } else {
            1.0
        }
    };
    let vector = |at: usize| -> Vec<f64> {
        let row = rows[at].0;
        columns
            .iter()
            .zip(&mean)
            .map(|(column, mean)| (column[row] - mean) / divisor(at))
            .chain([last / divisor(at)])
            .collect()
    };
    let mut parts: Vec<(usize, f64)> = Vec::new();
    let start = if normalised {
        // Towards the target from nowhere.
        let mut direction = vec![0.0; t + 1];
        direction[t] = -1.0;
        lowest(columns, rows, &mean, last, &direction, &divisor)
    } else {
        first_smallest(&squares)
    };
    parts.push((start, 1.0));
    let mut point = vector(start);
    for _ in 1..m {
        let mut gap = point.clone();
        gap[t] -= target;
        let chosen = lowest(columns, rows, &mean, last, &gap, &divisor);
        let towards: Vec<f64> = vector(chosen)
            .iter()
            .zip(&point)
            .map(|(v, p)| v - p)
            .collect();
        let length: f64 = towards.iter().map(|v| v * v).sum();
        let down: f64 = -gap.iter().zip(&towards).map(|(g, v)| g * v).sum::<f64>();
        // No vertex leads nearer: the point is the best of the hull.
        if !(down > 1e-15 * length && length > 0.0) {
            break;
        }
        let step = (down / length).min(1.0);
        for (p, v) in point.iter_mut().zip(&towards) {
            *p += step * v;
        }
        for (_, w) in &mut parts {
            *w *= 1.0 - step;
        }
        match parts.iter_mut().find(|(at, _)| *at == chosen) {
            Some((_, w)) => *w += step,
            None => parts.push((chosen, step)),
        }
    }
    parts
        .into_iter()
        .filter(|(_, w)| *w > 0.0)
        .map(|(at, w)| {
            let back = if normalised {
                2.0 * variance / divisor(at)
            } else {
                1.0
            };
            (rows[at].0, w * back * total)
        })
        .collect()
}

fn first_smallest(values: &[f64]) -> usize {
    let mut best = 0;
    for (at, value) in values.iter().enumerate() {
        if *value < values[best] {
            best = at;
        }
    }
    best
}

/// The first row whose vector has the least product with `direction` \[t + 1\].
fn lowest(
    columns: &[Vec<f64>],
    rows: &[(usize, f64)],
    mean: &[f64],
    last: f64,
    direction: &[f64],
    divisor: &dyn Fn(usize) -> f64,
) -> usize {
    let t = columns.len();
    let shift: f64 =
        last * direction[t] - mean.iter().zip(direction).map(|(m, g)| m * g).sum::<f64>();
    let mut products = vec![shift; rows.len()];
    for (column, g) in columns.iter().zip(direction) {
        for (product, (row, _)) in products.iter_mut().zip(rows) {
            *product += g * column[*row];
        }
    }
    for (at, product) in products.iter_mut().enumerate() {
        *product /= divisor(at);
    }
    first_smallest(&products)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Distance of the chosen rows' sum over W from the mean, and the sum of their weights.
    fn error(columns: &[Vec<f64>], rows: &[(usize, f64)], chosen: &[(usize, f64)]) -> (f64, f64) {
        let total: f64 = rows.iter().map(|(_, w)| w).sum();
        let squared: f64 = columns
            .iter()
            .map(|c| {
                let all: f64 = rows.iter().map(|(row, w)| w * c[*row]).sum();
                let few: f64 = chosen.iter().map(|(row, w)| w * c[*row]).sum();
                ((all - few) / total).powi(2)
            })
            .sum();
        (
            squared.sqrt(),
            chosen.iter().map(|(_, w)| w).sum::<f64>() / total,
        )
    }

    #[test]
    fn a_line_is_solved_in_two_steps() {
        // Mean 3: nearest row 2, then the row of 10 with (3 - 2) / (10 - 2) = 1/8.
        let column = vec![0.0, 2.0, 0.0, 10.0];
        let rows: Vec<(usize, f64)> = (0..4).map(|row| (row, 1.0)).collect();
        let found = greedy(&[column], &rows, 2, false);
        assert_eq!(found, [(1, 3.5), (3, 0.5)]);
    }

    #[test]
    fn equal_rows_are_one() {
        let rows = [(4, 1.0), (2, 2.0)];
        for normalised in [false, true] {
            assert_eq!(greedy(&[vec![7.0; 5]], &rows, 3, normalised), [(4, 3.0)]);
        }
    }

    #[test]
    fn one_long_vector_does_not_spoil_the_normalised_form() {
        let mut column: Vec<f64> = (0..2000).map(|i| f64::from(i % 13)).collect();
        column[77] = 1000.0;
        let rows: Vec<(usize, f64)> = (0..2000).map(|row| (row, 1.0)).collect();
        let columns = [column];
        let (off, weight) = error(&columns, &rows, &walk(&columns, &rows, 200, true));
        // s is about 22.7.
        assert!(
            off < 22.7 / 200f64.sqrt() && (weight - 1.0).abs() < 0.1,
            "{off} {weight}"
        );
    }

    #[test]
    fn each_run_stands_for_itself() {
        let column: Vec<f64> = (0..90).map(|i| f64::from(i * i % 17)).collect();
        let rows: Vec<(usize, f64)> = (0..90).map(|row| (row, 1.0)).collect();
        // Ten steps: runs of 30 rows with 3, 3 and 4 of them.
        let found = greedy(std::slice::from_ref(&column), &rows, 10, false);
        for run in 0..3 {
            let own = |row: usize| (30 * run..30 * (run + 1)).contains(&row);
            let part: Vec<_> = found.iter().filter(|(row, _)| own(*row)).collect();
            assert!(part.len() <= 3 + run / 2);
            assert!((part.iter().map(|(_, w)| w).sum::<f64>() - 30.0).abs() < 1e-9);
        }
        // More steps than rows.
        assert_eq!(greedy(&[column], &rows[..2], 30, false).len(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn the_mean_comes_nearer_as_promised(n in 2usize..300, t in 1usize..6, seed in 0usize..1000, normalised in any::<bool>()) {
            let columns: Vec<Vec<f64>> = (0..t)
                .map(|j| (0..n).map(|i| ((i * 7919 + j * 104_729 + seed * 31 + i * i * j) % 1009) as f64 / 100.0).collect())
                .collect();
            let rows: Vec<(usize, f64)> = (0..n).map(|row| (row, 0.5 + (row % 3) as f64)).collect();
            let m = 64;
            let found = walk(&columns, &rows, m, normalised);
            prop_assert!(found.len() <= m && found.iter().all(|(_, w)| *w > 0.0));
            let mut distinct: Vec<usize> = found.iter().map(|(row, _)| *row).collect();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), found.len());
            let (off, weight) = error(&columns, &rows, &found);
            // Frank and Wolfe: distance^2 <= 4 diameter^2 / (m + 2); the entries are below 10.1.
            let diameter = 10.1 * (t as f64).sqrt();
            prop_assert!(off <= 2.0 * diameter / (m as f64 + 2.0).sqrt());
            if !normalised {
                prop_assert!((weight - 1.0).abs() < 1e-9);
            }
        }
    }
}
