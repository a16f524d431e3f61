//! Draws of rows with replacement, and what is left of them: distinct rows, ascending, with weights.

use super::problem::WeightedProblem;
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use rand::{Rng, RngExt};

/// Rows with weights.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Chosen {
    /// Distinct rows, ascending.
    pub rows: Vec<usize>,
    /// Their weights, positive.
    pub weights: Vec<f64>,
}

impl Chosen {
    /// From pairs of row and weight in any order; a row that comes again adds its weight, a weight of 0 is left out.
    pub fn of(mut pairs: Vec<(usize, f64)>) -> Chosen {
        pairs.sort_by_key(|(row, _)| *row);
        let mut chosen = Chosen::default();
        for (row, weight) in pairs {
            match (chosen.rows.last(), chosen.weights.last_mut()) {
                (Some(last), Some(sum)) if *last == row => *sum += weight,
                _ if weight > 0.0 => {
                    chosen.rows.push(row);
                    chosen.weights.push(weight);
                }
                _ => {}
            }
        }
        chosen
    }
}

/// Weight that a row has to begin with.
pub(super) fn first_weight(weights: Option<&[f64]>, row: usize) -> f64 {
    weights.map_or(1.0, |w| w[row])
}

/// `m` of `members`, uniformly with replacement; each draw stands for as many rows as there are members to a draw.
pub(super) fn uniform<R: Rng>(
    members: &[usize],
    weights: Option<&[f64]>,
    m: usize,
    rng: &mut R,
) -> Vec<(usize, f64)> {
    let share = members.len() as f64 / m as f64;
    (0..m)
        .map(|_| {
            let row = members[rng.random_range(0..members.len())];
            (row, share * first_weight(weights, row))
        })
        .collect()
}

/// `m` of `members` with replacement, with probability proportional to their importance but at least `floor` of the sum;
/// each draw weighs 1 / (m p).
pub(super) fn by_importance<R: Rng>(
    members: &[usize],
    importance: &[f64],
    weights: Option<&[f64]>,
    floor: f64,
    m: usize,
    rng: &mut R,
) -> Result<Vec<(usize, f64)>> {
    let sum: f64 = importance.iter().sum();
    if !(sum > 0.0 && sum.is_finite()) {
        return Ok(uniform(members, weights, m, rng));
    }
    let p: Vec<f64> = importance.iter().map(|s| (s / sum).max(floor)).collect();
    let all: f64 = p.iter().sum();
    let drawn = sampling::weighted_with_replacement(rng, &p, m)
        .map_err(|e| Error::Failed(e.to_string()))?;
    Ok(drawn
        .into_iter()
        .map(|at| {
            let row = members[at];
            (row, first_weight(weights, row) * all / (m as f64 * p[at]))
        })
        .collect())
}

/// Draws that are made again because a class is missing.
const TRIES: usize = 100;

/// The rows of each class; one list of all rows where there are no classes.
pub(super) fn members<P: WeightedProblem + ?Sized>(problem: &P) -> Vec<Vec<usize>> {
    let Some(classes) = problem.classes() else {
        return vec![(0..problem.rows()).collect()];
    };
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (row, class) in classes.iter().enumerate() {
        let class = *class as usize;
        if class >= members.len() {
            members.resize(class + 1, Vec::new());
        }
        members[class].push(row);
    }
    members.retain(|rows| !rows.is_empty());
    members
}

/// Draws again, up to 100 times, until every class occurs; then draws within each class, shares kept.
///
/// `draw` makes `m` draws from a list of rows. The second value tells whether classes had to be drawn from one by one.
pub(super) fn every_class<P: WeightedProblem + ?Sized>(
    problem: &P,
    members: &[Vec<usize>],
    m: usize,
    mut draw: impl FnMut(&[usize], usize) -> Result<Vec<(usize, f64)>>,
) -> Result<(Chosen, bool)> {
    let all: Vec<usize> = (0..problem.rows()).collect();
    let Some(classes) = problem.classes() else {
        return Ok((Chosen::of(draw(&all, m)?), false));
    };
    for _ in 0..TRIES {
        let drawn = draw(&all, m)?;
        let mut seen: Vec<u32> = drawn.iter().map(|(row, _)| classes[*row]).collect();
        seen.sort_unstable();
        seen.dedup();
        if seen.len() == members.len() {
            return Ok((Chosen::of(drawn), false));
        }
    }
    let sizes: Vec<usize> = members.iter().map(Vec::len).collect();
    let quotas = super::quotas::quotas(&sizes, m, super::quotas::Quotas::Proportional);
    let mut drawn = Vec::new();
    for (rows, quota) in members.iter().zip(quotas) {
        drawn.extend(draw(rows, quota)?);
    }
    Ok((Chosen::of(drawn), true))
}

#[cfg(test)]
mod tests {
    use super::super::problem::toy::Mean;
    use super::*;

    #[test]
    fn draws_of_a_row_are_added() {
        let chosen = Chosen::of(vec![(5, 1.0), (2, 0.5), (5, 2.0), (3, 0.0)]);
        assert_eq!(chosen.rows, [2, 5]);
        assert_eq!(chosen.weights, [0.5, 3.0]);
    }

    #[test]
    fn uniform_weights_sum_to_the_rows() {
        let mut rng = sampling::rng(1, "test");
        let drawn = Chosen::of(uniform(&[4, 5, 6, 7, 8, 9, 10], None, 5, &mut rng));
        assert!((drawn.weights.iter().sum::<f64>() - 7.0).abs() < 1e-12);
        assert!(drawn.rows.iter().all(|row| (4..=10).contains(row)));
    }

    #[test]
    fn importance_sampling_estimates_sums_without_bias() {
        // Sum of a value over rows, each draw far from uniform; 400 samples of 10.
        let members: Vec<usize> = (0..50).collect();
        let importance: Vec<f64> = (0..50).map(|i| 0.1 + f64::from(i % 7)).collect();
        let first: Vec<f64> = (0..50).map(|i| 1.0 + f64::from(i % 2)).collect();
        let value = |row: usize| (row % 5) as f64 + 1.0;
        let truth: f64 = (0..50).map(|row| first[row] * value(row)).sum();
        let mut rng = sampling::rng(2, "test");
        let mut sum = 0.0;
        for _ in 0..400 {
            let drawn =
                by_importance(&members, &importance, Some(&first), 1e-12, 10, &mut rng).unwrap();
            sum += drawn.iter().map(|(row, w)| w * value(*row)).sum::<f64>();
        }
        // The standard error is about 2 %.
        assert!(
            (sum / 400.0 / truth - 1.0).abs() < 0.1,
            "{}",
            sum / 400.0 / truth
        );
    }

    #[test]
    fn rows_without_importance_do_no_harm() {
        let mut rng = sampling::rng(3, "test");
        let members = [3, 4, 5];
        let none = by_importance(&members, &[0.0; 3], None, 1e-12, 6, &mut rng).unwrap();
        assert!((none.iter().map(|(_, w)| w).sum::<f64>() - 3.0).abs() < 1e-12);
        let one = by_importance(&members, &[0.0, 2.0, 0.0], None, 1e-12, 6, &mut rng).unwrap();
        assert!(one.iter().all(|(row, w)| *row == 4 && w.is_finite()));
    }

    #[test]
    fn rare_classes_are_found_in_the_end() {
        let mut classes = vec![0; 100_000];
        classes[70_000] = 1;
        classes[5] = 2;
        let mean = Mean {
            classes: Some(classes),
            ..Mean::of(vec![0.0; 100_000])
        };
        let members = members(&mean);
        let mut rng = sampling::rng(4, "test");
        let (chosen, apart) = every_class(&mean, &members, 20, |rows, m| {
            Ok(uniform(rows, None, m, &mut rng))
        })
        .unwrap();
        assert!(apart);
        assert!(chosen.rows.contains(&5) && chosen.rows.contains(&70_000));
        assert!((chosen.weights.iter().sum::<f64>() - 100_000.0).abs() < 1e-6);
    }
}
