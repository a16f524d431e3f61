//! One split and its trial: 2-means proposes, a Gaussian mixture disposes.

use super::order::gather;
use crate::gaussian::{self, Covariance, Mixture};
use ndarray::{Array1, Array2, ArrayView2, Axis};
use papertrial_core::{Error, Result};
use papertrial_numerics::kmeans::{KMeans, KMeansOptions, Start, kmeans, kmeans_from};
use papertrial_numerics::linalg::{self, column_means};
use papertrial_numerics::sampling;
use rand::Rng;
use rayon::prelude::*;
use serde::Serialize;

/// Rounds of Lloyd at most.
pub(super) const LLOYD_ROUNDS: usize = 100;

/// Rows from which a mixture is fitted at most.
const SAMPLE: usize = 20_000;

/// Least mean posterior of the side that a row is on.
const POSTERIOR: f64 = 0.85;

/// Ridge of a mixture, as a share of the mean variance of the columns.
const RIDGE: f64 = 1e-3;

/// Rounds of the power iteration at most; beyond them the two largest variances are as good as equal, and any
/// direction between them will do.
const POWER_ROUNDS: usize = 200;

/// The valley between two humps must lie below this share of the lower hump.
const VALLEY: f64 = 0.9;

/// By which rules splits are made and accepted.
pub(super) struct Rules {
    /// Least share of rows on which mixture and 2-means agree.
    pub theta: f64,
    /// Least number of rows of a side.
    pub least: usize,
    /// Form of the mixture's covariances.
    pub covariance: Covariance,
    /// Seeded runs of 2-means beside the deterministic one.
    pub consensus: usize,
    /// Principal directions along which a split is tried.
    pub directions: usize,
    /// Whether a valley between the two sides is asked for.
    pub bimodality: bool,
    /// Seed of the runs for the consensus.
    pub seed: u64,
}

/// What was measured of a split.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Measures {
    /// Rows of the two sides.
    pub sides: [usize; 2],
    /// BIC of one Gaussian minus that of two: evidence for two where positive.
    pub bic_gap: f64,
    /// Share of rows that the mixture puts on the side of 2-means.
    pub agreement: f64,
    /// Mean posterior of the side that a row is on.
    pub mean_posterior: f64,
    /// J = (m1 - m2)' inv(Sp) (m1 - m2), with Sp the covariance within the sides.
    pub separation: f64,
    /// Expected share of rows that the mixture misplaces.
    pub overlap: f64,
    /// Density in the valley between the sides over that of the lower hump; 1 where there is no valley.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valley: Option<f64>,
    /// Share of the runs for the consensus that found this split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stability: Option<f64>,
}

/// A split of the rows \[m\] of a node that was put on trial.
pub(super) struct Split {
    /// Side of each row, 0 or 1.
    pub sides: Vec<u32>,
    /// Posterior of each row's side.
    pub own: Vec<f64>,
    /// The mixture of two, without its responsibilities.
    pub mixture: Mixture,
    /// Rows from which the mixture was fitted, ascending; all where there are few.
    pub sample: Vec<u32>,
    pub measures: Measures,
    /// Why the split is refused; empty if it is accepted.
    pub refusals: Vec<String>,
}

/// Splits rows x \[m, d\] in two and tries the split on the same rows in the mixture's space, z \[m, q\].
///
/// `place` names the node among all, for the draws of the consensus. If no direction gives a split that is accepted,
/// the first is returned with its refusals; `None` if all rows are equal.
pub(super) fn split(
    x: ArrayView2<f64>,
    z: ArrayView2<f64>,
    place: &str,
    rules: &Rules,
) -> Result<Option<Split>> {
    let variance = mean_variance(z);
    if variance == 0.0 {
        return Ok(None);
    }
    let mut directions: Vec<Array1<f64>> = Vec::new();
    let mut votes: Vec<(KMeans<f64>, usize)> = Vec::new();
    let mut tried: Vec<Vec<u32>> = Vec::new();
    let mut refused: Option<Split> = None;
    while directions.len() < rules.directions {
        // Step 1: the start.
        let Some((direction, projection)) = principal_projection(x, &directions)? else {
            break;
        };
        let first = directions.is_empty();
        directions.push(direction);
        let Some(start) = halves(x, &projection) else {
            continue;
        };
        // Step 2: Lloyd, and the consensus if it is asked for.
        let own = lloyd(kmeans_from(x, None, start.view(), LLOYD_ROUNDS, 0.0))?;
        let mut proposals = vec![own];
        if first && rules.consensus > 0 {
            votes = consensus(x, &proposals[0], place, rules)?;
            proposals.insert(0, votes[0].0.clone());
            // A single try is that of the consensus.
            proposals.truncate(rules.directions);
        }
        for found in proposals {
            let stability = (rules.consensus > 0).then(|| {
                let count = votes
                    .iter()
                    .find(|(run, _)| same(&run.labels, &found.labels));
                count.map_or(0, |(_, count)| *count) as f64 / (rules.consensus + 1) as f64
            });
            let partition = Partition::of(found, &directions[0], stability);
            if partition.counts().contains(&0) || tried.iter().any(|t| same(t, &partition.sides)) {
                continue;
            }
            tried.push(partition.sides.clone());
            let trial = validate(x, z, partition, stride(&projection), variance, rules)?;
            if trial.refusals.is_empty() {
                return Ok(Some(trial));
            }
            refused = refused.or(Some(trial));
        }
    }
    Ok(refused)
}

/// What 2-means proposes.
struct Partition {
    /// Side of each row, 0 or 1.
    sides: Vec<u32>,
    /// \[2, d\].
    centres: Array2<f64>,
    stability: Option<f64>,
}

impl Partition {
    /// Side 0 is the one whose centre is lower along `direction`.
    fn of(found: KMeans<f64>, direction: &Array1<f64>, stability: Option<f64>) -> Partition {
        let KMeans {
            mut centres,
            labels: mut sides,
            ..
        } = found;
        if centres.row(0).dot(direction) > centres.row(1).dot(direction) {
            sides.iter_mut().for_each(|side| *side = 1 - *side);
            centres = gather(centres.view(), &[1, 0]);
        }
        Partition {
            sides,
            centres,
            stability,
        }
    }

    /// Rows of the two sides.
    fn counts(&self) -> [usize; 2] {
        let second = self.sides.iter().filter(|side| **side == 1).count();
        [self.sides.len() - second, second]
    }
}

/// Steps 3 and 4: the mixture beside the single Gaussian, fitted to the sampled rows.
fn validate(
    x: ArrayView2<f64>,
    z: ArrayView2<f64>,
    partition: Partition,
    sample: Vec<u32>,
    variance: f64,
    rules: &Rules,
) -> Result<Split> {
    let m = x.nrows();
    let counts = partition.counts();
    let sides = partition.sides;
    let two = mixture_of(z, &sample, &sides, 2, rules.covariance, variance)?;
    let one = mixture_of(z, &sample, &vec![0; m], 1, rules.covariance, variance)?;
    let (posterior, two_log, one_log) = if sample.len() == m {
        (
            two.responsibilities.clone(),
            two.log_likelihood,
            one.log_likelihood,
        )
    } else {
        let (posterior, two_log) = gaussian::responsibilities(z, &two)?;
        (posterior, two_log, gaussian::responsibilities(z, &one)?.1)
    };
    let bic = |k, log| {
        let parameters = gaussian::free_parameters(k, z.ncols(), rules.covariance);
        gaussian::bic(log, parameters, m)
    };
    let own: Vec<f64> = sides
        .iter()
        .enumerate()
        .map(|(i, s)| posterior[[i, *s as usize]])
        .collect();
    let agreeing = posterior.outer_iter().zip(&sides);
    let agreeing = agreeing.filter(|(r, side)| gaussian::argmax(r.view()) == **side as usize);
    let agreement = agreeing.count() as f64 / m as f64;
    let overlap = posterior.outer_iter().map(|r| r[0].min(r[1])).sum::<f64>() / m as f64;
    let valley = if rules.bimodality {
        Some(valley(x, &partition.centres, &sample, &sides)?)
    } else {
        None
    };
    let measures = Measures {
        sides: counts,
        bic_gap: bic(1, one_log) - bic(2, two_log),
        agreement,
        mean_posterior: own.iter().sum::<f64>() / m as f64,
        separation: separation(&Within::of(z, &sides)?)?,
        overlap,
        valley,
        stability: partition.stability,
    };
    Ok(Split {
        refusals: refusals(&measures, rules),
        sides,
        own,
        mixture: Mixture {
            responsibilities: Array2::zeros((0, 2)),
            ..two
        },
        sample,
        measures,
    })
}

/// Step 4: the conditions that a split does not meet.
fn refusals(found: &Measures, rules: &Rules) -> Vec<String> {
    let mut refusals = Vec::new();
    let smaller = found.sides[0].min(found.sides[1]);
    if smaller < rules.least {
        refusals.push(format!(
            "a side would have {smaller} rows, fewer than {}",
            rules.least
        ));
    }
    if found.agreement < rules.theta {
        refusals.push(format!(
            "the mixture agrees with the split on {:.3} of the rows, less than {}",
            found.agreement, rules.theta
        ));
    }
    if found.bic_gap <= 0.0 {
        refusals.push(format!(
            "one Gaussian explains the rows as well as two (BIC gap {:.1})",
            found.bic_gap
        ));
    }
    if found.mean_posterior < POSTERIOR {
        refusals.push(format!(
            "rows belong to their side with {:.3} on average, less than {POSTERIOR}",
            found.mean_posterior
        ));
    }
    if let Some(valley) = found.valley
        && valley > VALLEY
    {
        refusals.push(format!(
            "there is no valley between the sides (density {valley:.2} of the lower hump)"
        ));
    }
    refusals
}

/// The principal direction u \[d\] of rows \[m, d\] that follows those found before, its entry of largest magnitude
/// positive, and the rows' projections on it from their mean, \[m\]; `None` if nothing varies there.
fn principal_projection(
    x: ArrayView2<f64>,
    found: &[Array1<f64>],
) -> Result<Option<(Array1<f64>, Vec<f64>)>> {
    let (m, d) = x.dim();
    let mean = Array1::from(column_means(x));
    let centred = &x - &mean;
    let squares = column_squares(centred.view());
    // The column of largest variance, of what the directions before leave of it.
    let left = |c: usize| squares[c] * (1.0 - found.iter().map(|u| u[c] * u[c]).sum::<f64>());
    let mut start = 0;
    for c in 1..d {
        if left(c) > left(start) {
            start = c;
        }
    }
    if !squares.iter().sum::<f64>().is_finite() {
        return Err(Error::BadInput(
            "the columns' variances are too large to compute with: standardise them".into(),
        ));
    }
    if left(start) <= 1e-12 * squares[start] {
        return Ok(None);
    }
    // The product with the covariance, from its matrix or, where that is larger than the rows, from the rows.
    let matrix = (d <= m).then(|| linalg::gram(centred.view()));
    let apart = |mut v: Array1<f64>| {
        for u in found {
            let along = u.dot(&v);
            v.scaled_add(-along, u);
        }
        let length = v.dot(&v).sqrt();
        (v / length, length)
    };
    let mut u = Array1::zeros(d);
    u[start] = 1.0;
    u = apart(u).0;
    for _ in 0..POWER_ROUNDS {
        let (next, length) = apart(match &matrix {
            Some(matrix) => matrix.dot(&u),
            None => centred.t().dot(&centred.dot(&u)),
        });
        if length == 0.0 || !length.is_finite() {
            break;
        }
        let moved = next
            .iter()
            .zip(&u)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        u = next;
        if moved <= 1e-12 {
            break;
        }
    }
    let mut largest: f64 = 0.0;
    for value in &u {
        if value.abs() > largest.abs() {
            largest = *value;
        }
    }
    if largest < 0.0 {
        u.mapv_inplace(|v| -v);
    }
    let projection = linalg::matmul(centred.view(), u.view().insert_axis(Axis(1)));
    Ok(Some((u, projection.into_raw_vec_and_offset().0)))
}

/// Means \[2, d\] of the rows at or below their mean projection and of those above; `None` if one has no rows.
fn halves(x: ArrayView2<f64>, projection: &[f64]) -> Option<Array2<f64>> {
    let mean = projection.iter().sum::<f64>() / projection.len() as f64;
    let mut sums = Array2::zeros((2, x.ncols()));
    let mut counts = [0usize; 2];
    for (row, p) in x.outer_iter().zip(projection) {
        let side = usize::from(*p > mean);
        counts[side] += 1;
        let mut sum = sums.row_mut(side);
        sum += &row;
    }
    if counts.contains(&0) {
        return None;
    }
    for (mut sum, count) in sums.outer_iter_mut().zip(counts) {
        sum /= count as f64;
    }
    Some(sums)
}

pub(super) fn lloyd<E: std::fmt::Display>(
    run: std::result::Result<KMeans<f64>, E>,
) -> Result<KMeans<f64>> {
    run.map_err(|e| Error::Failed(e.to_string()))
}

/// The partitions that `first` and the seeded runs of 2-means find, names aside, and how many of them find each; the
/// most frequent first, of equally frequent ones that of lower inertia, then the earlier.
fn consensus(
    x: ArrayView2<f64>,
    first: &KMeans<f64>,
    place: &str,
    rules: &Rules,
) -> Result<Vec<(KMeans<f64>, usize)>> {
    let mut draws = sampling::rng(rules.seed, &format!("ppp consensus {place}"));
    let mut votes = vec![(first.clone(), 1)];
    for _ in 0..rules.consensus {
        let options = KMeansOptions {
            start: Start::PlusPlus,
            max_rounds: LLOYD_ROUNDS,
            tolerance: 0.0,
            seed: draws.next_u64(),
            ..KMeansOptions::new(2)
        };
        let run = lloyd(kmeans(x, None, &options))?;
        match votes
            .iter_mut()
            .find(|(other, _)| same(&other.labels, &run.labels))
        {
            Some((_, count)) => *count += 1,
            None => votes.push((run, 1)),
        }
    }
    votes.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.inertia.total_cmp(&b.0.inertia)));
    Ok(votes)
}

/// Whether two partitions in two are equal up to the names of the sides.
fn same(a: &[u32], b: &[u32]) -> bool {
    let flip = a.first().copied().unwrap_or(0) ^ b.first().copied().unwrap_or(0);
    a.iter().zip(b).all(|(a, b)| *a == b ^ flip)
}

/// The rows from which a mixture is fitted: all, or `SAMPLE` of them at equal steps along the projection, ascending.
pub(super) fn stride(projection: &[f64]) -> Vec<u32> {
    let m = projection.len();
    if m <= SAMPLE {
        return (0..m as u32).collect();
    }
    let mut along: Vec<(f64, u32)> = projection.iter().copied().zip(0..m as u32).collect();
    along.par_sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    // The middle of each of SAMPLE equal stretches.
    let mut rows: Vec<u32> = (0..SAMPLE)
        .map(|i| along[(2 * i + 1) * m / (2 * SAMPLE)].1)
        .collect();
    rows.sort_unstable();
    rows
}

/// A mixture of k Gaussians of the sampled rows of z \[m, q\], started from the groups of all rows \[m\].
pub(super) fn mixture_of(
    z: ArrayView2<f64>,
    sample: &[u32],
    groups: &[u32],
    k: usize,
    covariance: Covariance,
    variance: f64,
) -> Result<Mixture> {
    if sample.len() == z.nrows() {
        fit(z, &gaussian::hard(groups, k)?, covariance, variance)
    } else {
        let groups: Vec<u32> = sample.iter().map(|row| groups[*row as usize]).collect();
        fit(
            gather(z, sample).view(),
            &gaussian::hard(&groups, k)?,
            covariance,
            variance,
        )
    }
}

/// A mixture from responsibilities; `variance` is the mean variance of the columns, which sets the ridge.
pub(super) fn fit(
    z: ArrayView2<f64>,
    start: &Array2<f64>,
    covariance: Covariance,
    variance: f64,
) -> Result<Mixture> {
    gaussian::fit(
        z,
        start,
        &gaussian::Settings {
            covariance,
            ridge: RIDGE * variance,
            tolerance: 1e-6,
            max_rounds: 200,
        },
    )
}

/// Sums of squares of the columns, \[d\].
fn column_squares(x: ArrayView2<f64>) -> Vec<f64> {
    let mut sums = vec![0.0; x.ncols()];
    for row in x.outer_iter() {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value * value;
        }
    }
    sums
}

/// The mean over columns of their variance, with divisor m; 0 for rows that are equal up to rounding.
pub(super) fn mean_variance(z: ArrayView2<f64>) -> f64 {
    let means = column_means(z);
    let (mut sums, mut sizes) = (vec![0.0; z.ncols()], 0.0_f64);
    for row in z.outer_iter() {
        for ((sum, value), mean) in sums.iter_mut().zip(row).zip(&means) {
            let difference = value - mean;
            *sum += difference * difference;
            sizes = sizes.max(value.abs());
        }
    }
    let variance = sums.iter().sum::<f64>() / z.len().max(1) as f64;
    if variance.sqrt() <= 1e-13 * sizes {
        0.0
    } else {
        variance
    }
}

/// The difference of the means of two sides, \[q\], and the covariance within them, \[q, q\], with the ridge.
pub(super) struct Within {
    pub difference: Array1<f64>,
    pub covariance: Array2<f64>,
}

impl Within {
    pub(super) fn of(z: ArrayView2<f64>, sides: &[u32]) -> Result<Within> {
        let q = z.ncols();
        let mut means = Array2::zeros((2, q));
        let mut counts = [0.0f64; 2];
        for (row, side) in z.outer_iter().zip(sides) {
            counts[*side as usize] += 1.0;
            let mut mean = means.row_mut(*side as usize);
            mean += &row;
        }
        for (mut mean, count) in means.outer_iter_mut().zip(counts) {
            mean /= count.max(1.0);
        }
        let mut centred = z.to_owned();
        for (mut row, side) in centred.outer_iter_mut().zip(sides) {
            row -= &means.row(*side as usize);
        }
        let mut covariance = linalg::gram(centred.view()) / z.nrows().max(1) as f64;
        let ridge = RIDGE * mean_variance(z);
        covariance.diag_mut().iter_mut().for_each(|v| *v += ridge);
        Ok(Within {
            difference: &means.row(0) - &means.row(1),
            covariance,
        })
    }
}

/// J, the squared distance of the two means in units of the spread within the sides.
pub(super) fn separation(within: &Within) -> Result<f64> {
    let factor = linalg::cholesky(within.covariance.view())
        .map_err(|e| Error::Failed(format!("the covariance within the sides: {e}")))?;
    Ok(within
        .difference
        .dot(&factor.solve_vector(within.difference.view())))
}

/// Condition d: two Gaussians fitted to the projections on the line between the centres; their density at the
/// bottom of the valley over that of the lower hump, 1 without a valley.
fn valley(x: ArrayView2<f64>, centres: &Array2<f64>, sample: &[u32], sides: &[u32]) -> Result<f64> {
    let line = &centres.row(1) - &centres.row(0);
    let along = linalg::matmul(x, line.view().insert_axis(Axis(1)));
    let variance = mean_variance(along.view());
    if variance == 0.0 {
        return Ok(1.0);
    }
    let two = mixture_of(along.view(), sample, sides, 2, Covariance::Full, variance)?;
    let spread = two.full_covariances();
    let density = |t: f64| -> f64 {
        let of = |j: usize| {
            let v = spread[[j, 0, 0]];
            let away = t - two.means[[j, 0]];
            two.weights[j] * (-0.5 * away * away / v).exp() / v.sqrt()
        };
        of(0) + of(1)
    };
    // Both humps of two Gaussians on a line lie between their means.
    const STEPS: usize = 400;
    let (from, to) = (two.means[[0, 0]], two.means[[1, 0]]);
    let heights: Vec<f64> = (0..=STEPS)
        .map(|i| density(from + (to - from) * i as f64 / STEPS as f64))
        .collect();
    let mut right = heights.clone();
    for i in (0..STEPS).rev() {
        right[i] = right[i].max(right[i + 1]);
    }
    let mut left: f64 = 0.0;
    let mut deepest: f64 = 1.0;
    for (height, right) in heights.iter().zip(right) {
        left = left.max(*height);
        deepest = deepest.min(height / left.min(right));
    }
    Ok(deepest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn rules() -> Rules {
        Rules {
            theta: 0.85,
            least: 2,
            covariance: Covariance::Full,
            consensus: 0,
            directions: 1,
            bimodality: false,
            seed: 0,
        }
    }

    #[test]
    fn the_first_direction_by_hand() {
        // Variances along (1, 1) and (1, -1) are 2 and 0.5 of the rows +-(1, 1), +-(0.5, -0.5).
        let x = array![[1.0, 1.0], [-1.0, -1.0], [0.5, -0.5], [-0.5, 0.5]] + 3.0;
        let (u, projection) = principal_projection(x.view(), &[]).unwrap().unwrap();
        let half = 0.5_f64.sqrt();
        assert!(u.iter().all(|v| (v - half).abs() < 1e-9), "{u}");
        assert!((projection[0] - 2.0 * half).abs() < 1e-9);
        // Wider than long, so from the rows themselves.
        let wide = array![[3.0, 0.0, -4.0, 0.0], [-3.0, 0.0, 4.0, 0.0]];
        let (u, _) = principal_projection(wide.view(), &[]).unwrap().unwrap();
        let expected = array![-0.6, 0.0, 0.8, 0.0];
        assert!((&u - &expected).iter().all(|v| v.abs() < 1e-12), "{u}");
    }

    #[test]
    fn separation_by_hand() {
        // Sides at -+1 around 0 and around 10: difference 10, variance within 1, of all rows 26.
        let z = array![[-1.0], [1.0], [9.0], [11.0]];
        let within = Within::of(z.view(), &[0, 0, 1, 1]).unwrap();
        let j = separation(&within).unwrap();
        assert!((j - 100.0 / (1.0 + 0.026)).abs() < 1e-9, "{j}");
    }

    #[test]
    fn partitions_are_compared_without_their_names() {
        assert!(same(&[0, 1, 1], &[1, 0, 0]));
        assert!(same(&[0, 1, 1], &[0, 1, 1]));
        assert!(!same(&[0, 1, 1], &[0, 1, 0]));
    }

    #[test]
    fn a_consensus_outvotes_a_poor_start() {
        // Four groups at the corners of a long rectangle: the long way is the better split, and a first run that
        // was forced across the short way is outvoted.
        let mut x = Array2::zeros((40, 2));
        for i in 0..40 {
            x[[i, 0]] = if i % 2 == 0 { 0.0 } else { 8.0 } + (i / 4) as f64 * 0.01;
            x[[i, 1]] = if i / 2 % 2 == 0 { 0.0 } else { 2.0 };
        }
        let poor = kmeans_from(
            x.view(),
            None,
            array![[4.0, 0.0], [4.0, 2.0]].view(),
            100,
            0.0,
        );
        let poor = poor.unwrap();
        let by_y: Vec<u32> = (0..40).map(|i| i / 2 % 2).collect();
        assert!(same(&poor.labels, &by_y));
        let by_x: Vec<u32> = (0..40).map(|i| i % 2).collect();
        let voting = Rules {
            consensus: 20,
            ..rules()
        };
        let votes = consensus(x.view(), &poor, "", &voting).unwrap();
        assert!(same(&votes[0].0.labels, &by_x));
        assert!(votes[0].1 > 10 && same(&votes[1].0.labels, &by_y));
        assert_eq!(votes.iter().map(|(_, count)| count).sum::<usize>(), 21);
        let found = split(x.view(), x.view(), "", &voting).unwrap().unwrap();
        // Here the first run is one of those that go the long way.
        let share = (votes[0].1 + 1) as f64 / 21.0;
        assert_eq!(found.measures.stability, Some(share));
        assert!(same(&found.sides, &by_x));
    }

    #[test]
    fn a_stride_covers_the_projection_evenly() {
        let m = 50_000;
        let projection: Vec<f64> = (0..m).map(|i| f64::from((i * 7919) % m)).collect();
        let rows = stride(&projection);
        assert_eq!(rows.len(), SAMPLE);
        let mut seen: Vec<f64> = rows.iter().map(|r| projection[*r as usize]).collect();
        seen.sort_by(f64::total_cmp);
        assert_eq!((seen[0], seen[SAMPLE - 1]), (1.0, 49_998.0));
        assert!(
            seen.windows(2)
                .all(|w| (2.0..=3.0).contains(&(w[1] - w[0])))
        );
        assert_eq!(stride(&[3.0, 1.0]), [0, 1]);
    }

    #[test]
    fn one_skewed_cloud_has_no_valley_and_two_clouds_have() {
        // Quantiles of the exponential distribution, and of it twice with a gap.
        let skewed: Vec<f64> = (0..400)
            .map(|i| -(1.0 - (f64::from(i) + 0.5) / 400.0).ln())
            .collect();
        let apart: Vec<f64> = skewed
            .iter()
            .map(|v| v.min(3.0))
            .chain(skewed.iter().map(|v| v + 9.0))
            .collect();
        let trial = |values: &[f64]| {
            let x = Array2::from_shape_vec((values.len(), 1), values.to_vec()).unwrap();
            let asked = Rules {
                bimodality: true,
                ..rules()
            };
            split(x.view(), x.view(), "", &asked).unwrap().unwrap()
        };
        let one = trial(&skewed);
        assert!(
            one.measures.valley.unwrap() > 0.98,
            "{:?}",
            one.measures.valley
        );
        assert!(one.refusals.iter().any(|r| r.contains("valley")));
        let two = trial(&apart);
        assert!(two.measures.valley.unwrap() < 0.2);
        assert!(two.refusals.is_empty(), "{:?}", two.refusals);
        assert_eq!(two.measures.sides, [400, 400]);
    }

    #[test]
    fn equal_rows_are_not_split() {
        let x = Array2::from_elem((30, 2), 0.1);
        assert!(split(x.view(), x.view(), "", &rules()).unwrap().is_none());
    }
}
