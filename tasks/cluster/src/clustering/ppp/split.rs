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
    /// Share of the runs of 2-means that found this split.
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
/// `place` names the node among all, for the draws of the consensus. `None` if all rows are equal.
pub(super) fn split(
    x: ArrayView2<f64>,
    z: ArrayView2<f64>,
    place: &str,
    rules: &Rules,
) -> Result<Option<Split>> {
    // Step 1: the start.
    let (direction, projection) = principal_projection(x)?;
    let Some(start) = halves(x, &projection) else {
        return Ok(None);
    };
    let first = lloyd(kmeans_from(x, None, start.view(), LLOYD_ROUNDS, 0.0))?;

    // Step 2: Lloyd, and the consensus if it is asked for.
    let (found, stability) = consensus(x, first, place, rules)?;
    let KMeans {
        mut centres,
        labels: mut sides,
        ..
    } = found;
    if centres.row(0).dot(&direction) > centres.row(1).dot(&direction) {
        sides.iter_mut().for_each(|side| *side = 1 - *side);
        let swapped = gather(centres.view(), &[1, 0]);
        centres = swapped;
    }
    let second = sides.iter().filter(|side| **side == 1).count();
    let counts = [sides.len() - second, second];
    if counts.contains(&0) {
        return Ok(None);
    }

    // Step 3: the mixture, beside the single Gaussian.
    let m = x.nrows();
    let variance = mean_variance(z);
    if variance == 0.0 {
        return Ok(None);
    }
    let sample = stride(&projection);
    let two = mixture_of(z, &sample, &sides, 2, rules.covariance, variance)?;
    let one = mixture_of(z, &sample, &vec![0; m], 1, rules.covariance, variance)?;
    let (posterior, two_log) = if sample.len() == m {
        (two.responsibilities.clone(), two.log_likelihood)
    } else {
        gaussian::responsibilities(z, &two)?
    };
    let one_log = if sample.len() == m {
        one.log_likelihood
    } else {
        gaussian::responsibilities(z, &one)?.1
    };
    let bic = |k, log| {
        gaussian::bic(log, gaussian::free_parameters(k, z.ncols(), rules.covariance), m)
    };
    let own: Vec<f64> = sides.iter().enumerate().map(|(i, s)| posterior[[i, *s as usize]]).collect();
    let agreeing = posterior.outer_iter().zip(&sides);
    let agreeing = agreeing.filter(|(r, side)| gaussian::argmax(r.view()) == **side as usize);
    let agreement = agreeing.count() as f64 / m as f64;
    let overlap = posterior.outer_iter().map(|r| r[0].min(r[1])).sum::<f64>() / m as f64;
    let valley = if rules.bimodality {
        Some(valley(x, &centres, &sample, &sides)?)
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
        stability,
    };
    Ok(Some(Split {
        refusals: refusals(&measures, rules),
        sides,
        own,
        mixture: Mixture {
            responsibilities: Array2::zeros((0, 2)),
            ..two
        },
        sample,
        measures,
    }))
}

/// Step 4: the conditions that a split does not meet.
fn refusals(found: &Measures, rules: &Rules) -> Vec<String> {
    let mut refusals = Vec::new();
    let smaller = found.sides[0].min(found.sides[1]);
    if smaller < rules.least {
        refusals.push(format!("a side would have {smaller} rows, fewer than {}", rules.least));
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

/// The first principal direction u \[d\] of rows \[m, d\], its entry of largest magnitude positive, and the rows'
/// projections on it from their mean, \[m\].
fn principal_projection(x: ArrayView2<f64>) -> Result<(Array1<f64>, Vec<f64>)> {
    let (m, d) = x.dim();
    let mean = Array1::from(column_means(x));
    let centred = &x - &mean;
    let squares = column_squares(centred.view());
    let mut start = 0;
    for (c, sum) in squares.iter().enumerate() {
        if *sum > squares[start] {
            start = c;
        }
    }
    if !squares[start].is_finite() {
        return Err(Error::BadInput(
            "the columns' variances are too large to compute with: standardise them".into(),
        ));
    }
    // The product with the covariance, from its matrix or, where that is larger than the rows, from the rows.
    let matrix = (d <= m).then(|| linalg::gram(centred.view()));
    let mut u = Array1::zeros(d);
    u[start] = 1.0;
    for _ in 0..POWER_ROUNDS {
        let mut next: Array1<f64> = match &matrix {
            Some(matrix) => matrix.dot(&u),
            None => centred.t().dot(&centred.dot(&u)),
        };
        let length = next.dot(&next).sqrt();
        if length == 0.0 || !length.is_finite() {
            break;
        }
        next /= length;
        let moved = next.iter().zip(&u).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
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
    Ok((u, projection.into_raw_vec_and_offset().0))
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

/// The partition that most runs of 2-means find, names aside, and the share of runs that do; of equally frequent
/// ones that of lower inertia, then the earlier. Without runs the first one.
fn consensus(
    x: ArrayView2<f64>,
    first: KMeans<f64>,
    place: &str,
    rules: &Rules,
) -> Result<(KMeans<f64>, Option<f64>)> {
    if rules.consensus == 0 {
        return Ok((first, None));
    }
    let mut draws = sampling::rng(rules.seed, &format!("ppp consensus {place}"));
    let mut found: Vec<(KMeans<f64>, usize)> = vec![(first, 1)];
    for _ in 0..rules.consensus {
        let options = KMeansOptions {
            start: Start::PlusPlus,
            max_rounds: LLOYD_ROUNDS,
            tolerance: 0.0,
            seed: draws.next_u64(),
            ..KMeansOptions::new(2)
        };
        let run = lloyd(kmeans(x, None, &options))?;
        match found.iter_mut().find(|(other, _)| same(&other.labels, &run.labels)) {
            Some((_, count)) => *count += 1,
            None => found.push((run, 1)),
        }
    }
    let mut best = 0;
    for (i, (run, count)) in found.iter().enumerate() {
        let (leader, most) = &found[best];
        if count > most || (count == most && run.inertia < leader.inertia) {
            best = i;
        }
    }
    let (run, count) = found.swap_remove(best);
    Ok((run, Some(count as f64 / (rules.consensus + 1) as f64)))
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
    let mut rows: Vec<u32> = (0..SAMPLE).map(|i| along[(2 * i + 1) * m / (2 * SAMPLE)].1).collect();
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
        fit(gather(z, sample).view(), &gaussian::hard(&groups, k)?, covariance, variance)
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
    if variance.sqrt() <= 1e-13 * sizes { 0.0 } else { variance }
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
    Ok(within.difference.dot(&factor.solve_vector(within.difference.view())))
}

/// Condition d: two Gaussians fitted to the projections on the line between the centres; their density at the
/// bottom of the valley over that of the lower hump, 1 without a valley.
fn valley(
    x: ArrayView2<f64>,
    centres: &Array2<f64>,
    sample: &[u32],
    sides: &[u32],
) -> Result<f64> {
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
            bimodality: false,
            seed: 0,
        }
    }

    #[test]
    fn the_first_direction_by_hand() {
        // Variances along (1, 1) and (1, -1) are 2 and 0.5 of the rows +-(1, 1), +-(0.5, -0.5).
        let x = array![[1.0, 1.0], [-1.0, -1.0], [0.5, -0.5], [-0.5, 0.5]] + 3.0;
        let (u, projection) = principal_projection(x.view()).unwrap();
        let half = 0.5_f64.sqrt();
        assert!(u.iter().all(|v| (v - half).abs() < 1e-9), "{u}");
        assert!((projection[0] - 2.0 * half).abs() < 1e-9);
        // Wider than long, so from the rows themselves.
        let wide = array![[3.0, 0.0, -4.0, 0.0], [-3.0, 0.0, 4.0, 0.0]];
        let (u, _) = principal_projection(wide.view()).unwrap();
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
        let poor = kmeans_from(x.view(), None, array![[4.0, 0.0], [4.0, 2.0]].view(), 100, 0.0);
        let poor = poor.unwrap();
        let by_y: Vec<u32> = (0..40).map(|i| i / 2 % 2).collect();
        assert!(same(&poor.labels, &by_y));
        let by_x: Vec<u32> = (0..40).map(|i| i % 2).collect();
        let voting = Rules {
            consensus: 20,
            ..rules()
        };
        let (found, share) = consensus(x.view(), poor.clone(), "", &voting).unwrap();
        assert!(same(&found.labels, &by_x));
        assert!(share.unwrap() > 0.5 && share.unwrap() < 1.0);
        let (kept, share) = consensus(x.view(), poor, "", &rules()).unwrap();
        assert!(same(&kept.labels, &by_y) && share.is_none());
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
        assert!(seen.windows(2).all(|w| (2.0..=3.0).contains(&(w[1] - w[0]))));
        assert_eq!(stride(&[3.0, 1.0]), [0, 1]);
    }

    #[test]
    fn one_skewed_cloud_has_no_valley_and_two_clouds_have() {
        // Quantiles of the exponential distribution, and of it twice with a gap.
        let skewed: Vec<f64> = (0..400).map(|i| -(1.0 - (f64::from(i) + 0.5) / 400.0).ln()).collect();
        let apart: Vec<f64> = skewed.iter().map(|v| v.min(3.0)).chain(skewed.iter().map(|v| v + 9.0)).collect();
        let trial = |values: &[f64]| {
            let x = Array2::from_shape_vec((values.len(), 1), values.to_vec()).unwrap();
            let asked = Rules {
                bimodality: true,
                ..rules()
            };
            split(x.view(), x.view(), "", &asked).unwrap().unwrap()
        };
        let one = trial(&skewed);
        assert_eq!(one.measures.valley, Some(1.0));
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
