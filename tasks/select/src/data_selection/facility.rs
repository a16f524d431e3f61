//! Facility location: rows near which all others are; and CRAIG, the same among gradients.
//!
//! Baselines. Facility location in DeepCore (Guo, Zhao, Bai 2022, arXiv 2204.08499); Mirzasoleiman, Bilmes, Leskovec,
//! *Coresets for Data-efficient Training of Machine Learning Models*, ICML 2020, arXiv 1906.01827 (CRAIG). Lazy greedy:
//! Minoux 1978; stochastic greedy: Mirzasoleiman et al., AAAI 2015, arXiv 1409.7938.
//!
//! d_ij distances of rows: facility location of what the last layer gets, each row over its length (or of the columns);
//! CRAIG of the gradients of the last layer.
//! 1. Gain of a row j: sum over i of max(0, b_i - d_ij), b_i the distance of i to its nearest chosen row, at first a bound
//!    above all distances. (The bound does not matter: it is the same for all j.)
//! 2. Take the row with the largest gain, the first of equal ones; lower b; k times. Lazy: gains only fall, so a row whose
//!    gain, computed anew, is still above the old gains of all others is the best; the others need not be computed.
//!    Stochastic: only (n / k) ln(1 / epsilon) rows, drawn anew each time, are compared.
//! 3. CRAIG's weight of a chosen row: the number of rows that are nearer to it than to the other chosen ones; it enters the
//!    loss, so that the weighted gradient follows that of all rows. (DeepCore's code adds 1 to each.)
//! 4. In each class apart, as the paper does, or of all rows together.
//!
//! Cost: the scoring model, then O(n^2 h) for distances. Lazy keeps them, 4 n^2 bytes for the largest group, and is
//! O(n) for each gain; stochastic keeps none, and computes O(n^2 h ln(1 / epsilon)) in all, by tiles.

use super::gradients::Gradients;
use super::pool::{Choice, Pool, Selector, Space};
use super::rows::{taken, unit_rows};
use ndarray::{Array2, ArrayView1, Axis};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::{PointsError, check_points, self_squared_distances};
use papertrial_numerics::linalg::matmul;
use papertrial_numerics::sampling;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Options of facility location.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct FacilityLocation {
    /// Choose in each class apart, as many as its share.
    pub balance: bool,
    /// Where distances are taken.
    pub space: Space,
    /// How the next row is found.
    pub greedy: Greedy,
    /// Stochastic only: the share of the objective that may be lost on average.
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 0.9))]
    pub epsilon: f64,
}

/// Options of CRAIG.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Craig {
    /// Choose in each class apart, as many as its share.
    pub balance: bool,
    /// Rounds after which rows are chosen anew, by the model being trained; 0 to choose once, by a scoring model.
    pub every: usize,
    /// How the next row is found.
    pub greedy: Greedy,
    /// Stochastic only: the share of the objective that may be lost on average.
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 0.9))]
    pub epsilon: f64,
}

/// How the next row is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Greedy {
    /// The best of all rows; keeps the distances of all pairs of a group.
    Lazy,
    /// The best of some rows drawn anew each time; keeps no distances.
    Stochastic,
}

impl Default for FacilityLocation {
    fn default() -> Self {
        FacilityLocation {
            balance: true,
            space: Space::Model,
            greedy: Greedy::Lazy,
            epsilon: 0.1,
        }
    }
}

impl Default for Craig {
    fn default() -> Self {
        Craig {
            balance: true,
            every: 0,
            greedy: Greedy::Lazy,
            epsilon: 0.1,
        }
    }
}

impl Method for FacilityLocation {
    const FACTS: Facts = Facts {
        name: "facility-location",
        about: "rows chosen one by one so that every row has a chosen one near it",
        paper: None,
        streams: false,
    };
}

impl Method for Craig {
    const FACTS: Facts = Facts {
        name: "craig",
        about: "rows near whose last-layer gradients all gradients are, with weights in the loss",
        paper: None,
        streams: false,
    };
}

impl Selector for FacilityLocation {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        pool.by_space(self.space, |f| {
            pool.in_groups(self.balance, |rows, quota| {
                let points = Points::new(unit_rows(taken(f, rows).view()))?;
                let chosen = locate(&points, quota, self.greedy, self.epsilon, pool.context)?;
                Ok((chosen, None))
            })
        })
    }
}

impl Selector for Craig {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        pool.by_model(self.every, |view| {
            let all = Gradients::of(view, pool.labels)?;
            pool.in_groups(self.balance, |rows, quota| {
                let gradients = all.taken(rows);
                let chosen = locate(&gradients, quota, self.greedy, self.epsilon, pool.context)?;
                let weights = nearest_counts(&gradients, &chosen)?;
                Ok((chosen, Some(weights)))
            })
        })
    }
}

/// Rows between which there are distances.
pub trait Metric: Sync {
    /// Number of rows, n.
    fn rows(&self) -> usize;

    /// Distances of the rows `which` to all rows, [which, n].
    ///
    /// # Errors
    /// Values that are not finite.
    fn distances(&self, which: &[usize]) -> Result<Array2<f32>>;

    /// Distances of all pairs, [n, n].
    ///
    /// # Errors
    /// As [`Metric::distances`].
    fn all(&self) -> Result<Array2<f32>> {
        let n = self.rows();
        let mut all = Array2::zeros((n, n));
        for (b, mut tile) in all.axis_chunks_iter_mut(Axis(0), TILE).enumerate() {
            let which: Vec<usize> = (b * TILE..b * TILE + tile.nrows()).collect();
            tile.assign(&self.distances(&which)?);
        }
        Ok(all)
    }
}

/// Rows whose distances to all are computed together.
const TILE: usize = 512;

/// Points with Euclidean distances.
pub struct Points {
    x: Array2<f32>,
    /// Squared lengths, `[n]`.
    squares: Vec<f32>,
}

impl Points {
    /// The rows of x, `[n, d]`.
    ///
    /// # Errors
    /// Values that are not finite.
    pub fn new(x: Array2<f32>) -> Result<Points> {
        check_points(x.view()).map_err(|e| {
            Error::Failed(format!(
                "no distances between the features of the rows: {e}; if the scoring model diverged, try a lower learning-rate"
            ))
        })?;
        let squares = x.outer_iter().map(|r| r.dot(&r)).collect();
        Ok(Points { x, squares })
    }
}

impl Metric for Points {
    fn rows(&self) -> usize {
        self.x.nrows()
    }

    fn distances(&self, which: &[usize]) -> Result<Array2<f32>> {
        let mut found = matmul(taken(self.x.view(), which).view(), self.x.t());
        for (mut line, i) in found.axis_iter_mut(Axis(0)).zip(which) {
            let own = self.squares[*i];
            for (p, s) in line.iter_mut().zip(&self.squares) {
                *p = (own + s - 2.0 * *p).max(0.0).sqrt();
            }
            line[*i] = 0.0;
        }
        Ok(found)
    }

    fn all(&self) -> Result<Array2<f32>> {
        // Half the products, as the matrix is symmetric.
        let failed = |e: PointsError| Error::Failed(e.to_string());
        let mut all = self_squared_distances(self.x.view()).map_err(failed)?;
        all.axis_chunks_iter_mut(Axis(0), TILE)
            .collect::<Vec<_>>()
            .into_par_iter()
            .for_each(|mut tile| tile.mapv_inplace(f32::sqrt));
        Ok(all)
    }
}

/// Steps 1 and 2: `k` rows in the order in which they are chosen.
///
/// # Errors
/// Values that are not finite; a matrix of pairs that does not fit into memory.
pub fn locate(
    metric: &dyn Metric,
    k: usize,
    greedy: Greedy,
    epsilon: f64,
    context: &Context,
) -> Result<Vec<usize>> {
    let k = k.min(metric.rows());
    match greedy {
        Greedy::Lazy => {
            let n = metric.rows() as u64;
            context.require(
                &format!("the distances of all pairs of {n} rows (stochastic greedy keeps none)"),
                4 * n * n,
            )?;
            Ok(lazy(&metric.all()?, k))
        }
        Greedy::Stochastic => stochastic(metric, k, epsilon, context.seed),
    }
}

/// A gain, and how many rows were chosen when it was computed.
#[derive(PartialEq)]
struct Gain {
    value: f64,
    row: Reverse<usize>,
    at: usize,
}

impl Eq for Gain {}

impl PartialOrd for Gain {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Gain {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_value = self.value.total_cmp(&other.value);
        by_value.then(self.row.cmp(&other.row))
    }
}

fn lazy(distances: &Array2<f32>, k: usize) -> Vec<usize> {
    let n = distances.nrows();
    let mut own = match distances.outer_iter().next() {
        Some(first) => bounds(first),
        None => Vec::new(),
    };
    let mut free = vec![true; n];
    let mut chosen: Vec<usize> = Vec::with_capacity(k);
    let mut heap: BinaryHeap<Gain> = BinaryHeap::new();
    while chosen.len() < k {
        let at = chosen.len();
        if at < 2 {
            // The first row lowers all gains so much that they are all computed anew.
            heap = (0..n)
                .into_par_iter()
                .filter(|row| free[*row])
                .map(|row| Gain {
                    value: gain(distances.row(row), &own),
                    row: Reverse(row),
                    at,
                })
                .collect::<Vec<_>>()
                .into();
        }
        let Some(best) = heap.pop() else { break };
        let row = best.row.0;
        if best.at < at {
            heap.push(Gain {
                value: gain(distances.row(row), &own),
                at,
                ..best
            });
            continue;
        }
        chosen.push(row);
        free[row] = false;
        lower(&mut own, distances.row(row));
    }
    chosen
}

fn stochastic(metric: &dyn Metric, k: usize, epsilon: f64, seed: u64) -> Result<Vec<usize>> {
    let n = metric.rows();
    let mut free: Vec<usize> = (0..n).collect();
    let mut chosen: Vec<usize> = Vec::with_capacity(k);
    let mut rng = sampling::rng(seed, "rows compared by stochastic greedy");
    let compared = (n as f64 / k.max(1) as f64 * (1.0 / epsilon).ln()).ceil() as usize;
    let compared = compared.clamp(1, n.max(1));
    let mut own: Vec<f32> = Vec::new();
    while chosen.len() < k {
        let places = sampling::sample_sorted(&mut rng, free.len(), compared.min(free.len()))
            .map_err(|e| Error::Failed(e.to_string()))?;
        let mut best: Option<(f64, usize, Vec<f32>)> = None;
        for some in places.chunks(TILE) {
            let which: Vec<usize> = some.iter().map(|p| free[*p]).collect();
            let distances = metric.distances(&which)?;
            if own.is_empty() {
                own = bounds(distances.row(0));
            }
            let gains: Vec<f64> = (0..which.len())
                .into_par_iter()
                .map(|i| gain(distances.row(i), &own))
                .collect();
            for (i, value) in gains.into_iter().enumerate() {
                if best.as_ref().is_none_or(|(b, _, _)| value > *b) {
                    best = Some((value, some[i], distances.row(i).to_vec()));
                }
            }
        }
        let Some((_, place, distances)) = best else {
            break;
        };
        chosen.push(free.remove(place));
        lower(&mut own, ArrayView1::from(&distances));
    }
    Ok(chosen)
}

/// A bound above all distances for each row: by the triangle inequality none is above twice the largest from one row.
fn bounds(from_one: ArrayView1<f32>) -> Vec<f32> {
    vec![2.0 * from_one.fold(0.0f32, |a, b| a.max(*b)); from_one.len()]
}

/// The sum over i of max(0, own_i - d_i). In eight lanes of single precision over 256 numbers, these sums in double: fast,
/// and in a fixed order.
fn gain(distances: ArrayView1<f32>, own: &[f32]) -> f64 {
    let Some(distances) = distances.as_slice() else {
        let pairs = distances.iter().zip(own);
        return pairs.map(|(d, o)| f64::from((o - d).max(0.0))).sum();
    };
    let mut total = 0.0;
    for (d, o) in distances.chunks(256).zip(own.chunks(256)) {
        let mut lanes = [0.0f32; 8];
        let (whole, rest) = d.as_chunks::<8>();
        let (of_whole, of_rest) = o.as_chunks::<8>();
        for (d, o) in whole.iter().zip(of_whole) {
            for lane in 0..8 {
                lanes[lane] += (o[lane] - d[lane]).max(0.0);
            }
        }
        for (lane, (d, o)) in rest.iter().zip(of_rest).enumerate() {
            lanes[lane] += (o - d).max(0.0);
        }
        total += lanes.iter().map(|l| f64::from(*l)).sum::<f64>();
    }
    total
}

fn lower(own: &mut [f32], distances: ArrayView1<f32>) {
    for (o, d) in own.iter_mut().zip(distances) {
        *o = o.min(*d);
    }
}

/// Step 3: for each chosen row, how many rows are nearest to it; of equally near ones the one chosen first counts.
fn nearest_counts(metric: &dyn Metric, chosen: &[usize]) -> Result<Vec<f64>> {
    let n = metric.rows();
    let mut own = vec![f32::INFINITY; n];
    let mut whose = vec![0usize; n];
    for (t, tile) in chosen.chunks(TILE).enumerate() {
        for (i, line) in metric.distances(tile)?.outer_iter().enumerate() {
            for ((o, w), d) in own.iter_mut().zip(&mut whose).zip(line) {
                if *d < *o {
                    (*o, *w) = (*d, t * TILE + i);
                }
            }
        }
    }
    let mut counts = vec![0.0; chosen.len()];
    for w in whose {
        if let Some(count) = counts.get_mut(w) {
            *count += 1.0;
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::super::pool::testing::Asked;
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;

    fn line(at: &[f32]) -> Points {
        Points::new(Array2::from_shape_fn((at.len(), 1), |(i, _)| at[i])).unwrap()
    }

    fn lazily(points: &Points, k: usize) -> Vec<usize> {
        locate(points, k, Greedy::Lazy, 0.1, &Context::with_seed(0)).unwrap()
    }

    #[test]
    fn points_on_a_line_by_hand() {
        // Sums of distances 27, 24, 23, 25, 73: 2 first, then 20, which saves 18.
        let points = line(&[0.0, 1.0, 2.0, 4.0, 20.0]);
        let found = lazily(&points, 3);
        assert_eq!(found[..2], [2, 4]);
        // 0 saves 2, 1 saves 1 + 1, 4 saves 2: the first of equal ones.
        assert_eq!(found[2], 0);
        assert_eq!(nearest_counts(&points, &[2, 4]).unwrap(), [4.0, 1.0]);
        assert_eq!(lazily(&points, 9).len(), 5);
    }

    #[test]
    fn equal_points_give_the_first_rows() {
        let same = line(&[1.0; 4]);
        assert_eq!(lazily(&same, 2), [0, 1]);
        assert_eq!(nearest_counts(&same, &[0, 1]).unwrap(), [4.0, 0.0]);
    }

    #[test]
    fn too_many_pairs_are_refused_before_they_are_computed() {
        let context = Context {
            memory: Some(50),
            ..Context::with_seed(0)
        };
        let points = line(&[0.0, 1.0, 2.0, 3.0]);
        let e = locate(&points, 2, Greedy::Lazy, 0.1, &context).unwrap_err();
        assert!(
            e.to_string().contains("stochastic greedy keeps none"),
            "{e}"
        );
        let few = locate(&points, 2, Greedy::Stochastic, 0.1, &context).unwrap();
        assert_eq!(few.len(), 2);
    }

    #[test]
    fn craig_s_weights_enter_and_have_mean_one() {
        let asked = Asked::plain(40, 2, 6, 0);
        for greedy in [Greedy::Lazy, Greedy::Stochastic] {
            let options = Craig {
                greedy,
                ..Craig::default()
            };
            let found = asked.once(&options).unwrap();
            let weights = found.weights.unwrap();
            assert_eq!((found.rows.len(), weights.len()), (6, 6));
            assert!((weights.iter().sum::<f32>() - 6.0).abs() < 1e-4);
            assert!(weights.iter().any(|w| (w - 1.0).abs() > 0.1));
        }
        let anew = Craig {
            every: 2,
            ..Craig::default()
        };
        let rounds = asked.rounds(&anew, 3).unwrap();
        assert!(
            rounds
                .iter()
                .all(|s| s.rows.len() == 6 && s.weights.is_some())
        );
    }

    #[test]
    fn facility_location_of_two_directions() {
        let asked = Asked::new(
            array![[1.0, 0.0], [2.0, 0.1], [3.0, 0.0], [0.0, 1.0], [0.1, 4.0]],
            vec![0; 5],
            Array2::zeros((5, 1)),
            2,
        );
        let found = asked.once(&FacilityLocation::default()).unwrap();
        assert!(found.rows[0] < 3 && found.rows[1] >= 3, "{:?}", found.rows);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn lazy_is_plain_greedy_and_stochastic_with_all_rows_too(
            values in proptest::collection::vec(-30i8..30, 4..60), k in 1usize..8,
        ) {
            let n = values.len() / 2;
            let points = Points::new(Array2::from_shape_fn((n, 2), |(i, j)| f32::from(values[2 * i + j]))).unwrap();
            let k = k.min(n);
            let found = lazily(&points, k);
            let d = points.all().unwrap();
            let cost = |set: &[usize]| -> f64 {
                (0..n).map(|i| set.iter().map(|j| f64::from(d[[i, *j]])).fold(f64::INFINITY, f64::min)).sum()
            };
            let all = locate(&points, k, Greedy::Stochastic, 1e-30, &Context::with_seed(1)).unwrap();
            for found in [&found, &all] {
                for t in 0..k {
                    let with = |j: usize| cost(&[&found[..t], &[j]].concat());
                    let least = (0..n).map(with).fold(f64::INFINITY, f64::min);
                    prop_assert!(with(found[t]) <= least * (1.0 + 1e-5) + 1e-3);
                }
            }
            let counts = nearest_counts(&points, &found).unwrap();
            prop_assert_eq!(counts.iter().sum::<f64>(), n as f64);
        }
    }
}
