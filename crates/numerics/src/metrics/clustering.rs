//! Quality of clusterings.
//!
//! The first half compares two labelings of the same rows through their `Contingency`. The label -1, which
//! density methods give to noise, counts there as a cluster like any other, as it does in scikit-learn: a
//! method is not rewarded for calling hard rows noise.
//!
//! The second half judges a labeling by the data alone. Noise is no cluster there: its rows are left out.
//! All of it computes in double precision, reads each matrix row by row, and gives the same bits on any
//! number of threads.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::{MetricError, check_lengths};
use crate::assignment::match_labels;
use crate::linalg::{Real, product_with_transpose};
use crate::sampling;
use crate::simd::vectorised;

/// The label of a row that belongs to no cluster.
pub const NOISE: i32 = -1;

/// How many rows have each pair of labels, for two labelings of the same rows (at least one).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contingency {
    /// The number of rows.
    pub rows: u64,
    /// (true label, predicted label, rows with both), ascending, for the pairs that occur.
    pub cells: Vec<(i32, i32, u64)>,
    /// Rows of each true label.
    pub truth: BTreeMap<i32, u64>,
    /// Rows of each predicted label.
    pub predicted: BTreeMap<i32, u64>,
}

/// Counts the pairs of labels. O(n log n), and memory for the pairs that occur only.
///
/// # Errors
/// [`MetricError::LengthsDiffer`]; [`MetricError::Empty`] (scikit-learn calls two labelings of nothing
/// equal; here nothing is not scored).
pub fn contingency(truth: &[i32], predicted: &[i32]) -> Result<Contingency, MetricError> {
    check_lengths(truth.len(), predicted.len())?;
    let mut pairs: Vec<(i32, i32)> = truth
        .iter()
        .copied()
        .zip(predicted.iter().copied())
        .collect();
    pairs.par_sort_unstable();
    let cells: Vec<(i32, i32, u64)> = pairs
        .chunk_by(|a, b| a == b)
        .map(|run| (run[0].0, run[0].1, run.len() as u64))
        .collect();
    let mut table = Contingency {
        rows: pairs.len() as u64,
        cells,
        truth: BTreeMap::new(),
        predicted: BTreeMap::new(),
    };
    for &(a, b, count) in &table.cells {
        *table.truth.entry(a).or_default() += count;
        *table.predicted.entry(b).or_default() += count;
    }
    Ok(table)
}

/// The adjusted Rand index (Hubert and Arabie 1985): the share of pairs of rows on which the labelings agree
/// (both together or both apart), shifted and scaled so that random labelings of the same sizes give 0 on
/// average and equal ones 1. At least -0.5.
///
/// 1 if the labelings are equal up to names, so also if both have one cluster.
pub fn adjusted_rand_index(table: &Contingency) -> f64 {
    let square_sum = |counts: &mut dyn Iterator<Item = u64>| -> i128 {
        counts.map(|c| i128::from(c) * i128::from(c)).sum()
    };
    let both = square_sum(&mut table.cells.iter().map(|cell| cell.2));
    let truth = square_sum(&mut table.truth.values().copied());
    let predicted = square_sum(&mut table.predicted.values().copied());
    let n = i128::from(table.rows);
    // Ordered pairs: together in both, in the truth only, in the prediction only, in neither.
    let tp = both - n;
    let missed = truth - both;
    let wrong = predicted - both;
    let tn = n * n - truth - predicted + both;
    if missed == 0 && wrong == 0 {
        return 1.0;
    }
    // The counts are exact; their products would overflow from 2^31 rows on, and in floating point lose no
    // more than the last digits of 1.
    let [tp, missed, wrong, tn] = [tp, missed, wrong, tn].map(|pairs| pairs as f64);
    2.0 * (tp * tn - missed * wrong) / ((tp + missed) * (missed + tn) + (tp + wrong) * (wrong + tn))
}

/// Mutual information of the labelings in nats. Terms below the rounding of 1 count as 0, so that independent
/// labelings give 0.
fn mutual_information(table: &Contingency) -> f64 {
    if table.truth.len() == 1 || table.predicted.len() == 1 {
        return 0.0;
    }
    let n = table.rows as f64;
    let sum: f64 = table
        .cells
        .iter()
        .map(|&(a, b, count)| {
            let outer = table.truth[&a] as f64 * table.predicted[&b] as f64;
            let count = count as f64;
            let term = count / n * (count.ln() - n.ln()) + count / n * (2.0 * n.ln() - outer.ln());
            if term.abs() < f64::EPSILON { 0.0 } else { term }
        })
        .sum();
    sum.max(0.0)
}

fn entropy(sizes: &BTreeMap<i32, u64>, rows: u64) -> f64 {
    if sizes.len() == 1 {
        return 0.0;
    }
    let n = rows as f64;
    -sizes
        .values()
        .map(|&size| size as f64 / n * ((size as f64).ln() - n.ln()))
        .sum::<f64>()
}

/// Normalised mutual information: mutual information over the arithmetic mean of the two entropies, 0 to 1.
///
/// 1 if both labelings have one cluster; 0 if only one of them does.
pub fn normalized_mutual_information(table: &Contingency) -> f64 {
    if table.truth.len() == 1 && table.predicted.len() == 1 {
        return 1.0;
    }
    let information = mutual_information(table);
    if information == 0.0 {
        return 0.0;
    }
    let entropies = entropy(&table.truth, table.rows) + entropy(&table.predicted, table.rows);
    information / (entropies / 2.0)
}

/// What [`v_measure`] finds; each is 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VMeasure {
    /// How far each cluster holds one class only: mutual information over the entropy of the classes; 1 if
    /// there is one class.
    pub homogeneity: f64,
    /// How far each class lies in one cluster only: mutual information over the entropy of the clusters; 1
    /// if there is one cluster.
    pub completeness: f64,
    /// Their harmonic mean; 0 if both are 0.
    pub v: f64,
}

/// Homogeneity, completeness and their harmonic mean (Rosenberg and Hirschberg 2007).
pub fn v_measure(table: &Contingency) -> VMeasure {
    let information = mutual_information(table);
    let share = |entropy: f64| {
        if entropy == 0.0 {
            1.0
        } else {
            information / entropy
        }
    };
    let homogeneity = share(entropy(&table.truth, table.rows));
    let completeness = share(entropy(&table.predicted, table.rows));
    let v = if homogeneity + completeness == 0.0 {
        0.0
    } else {
        2.0 * homogeneity * completeness / (homogeneity + completeness)
    };
    VMeasure {
        homogeneity,
        completeness,
        v,
    }
}

/// The share of rows that disagree after the best one-to-one matching of predicted to true labels, 0 to 1.
/// Rows of a label that found no partner disagree.
pub fn misclustering_error(table: &Contingency) -> f64 {
    let agreeing = match_labels(&table.cells).agreeing;
    (table.rows - agreeing) as f64 / table.rows as f64
}

/// A random part of the rows, to bound a cost that grows with their square.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowSample {
    /// At most this many rows.
    pub rows: usize,
    /// Where the draw comes from.
    pub seed: u64,
}

/// The mean silhouette (Rousseeuw 1987) of x [n, d] under Euclidean distance, -1 to 1.
///
/// Of a row, with a its mean distance to the others of its cluster and b the least of its mean distances to
/// the other clusters, the silhouette is (b - a) / max(a, b); it is 0 in a cluster of one row, and where a
/// and b are both 0. Noise rows are left out. With a `sample`, if there are more rows than it allows, only a
/// uniform sample of them is looked at, as if it were all the data.
///
/// Exact: no distance is approximated, and those so small beside the rows' norms that the product form
/// would lose digits are computed directly. O(m^2 d) time in matrix products over m rows, O(m d) memory.
///
/// # Errors
/// [`MetricError::LengthsDiffer`], [`MetricError::Empty`] (also if all is noise),
/// [`MetricError::NotFinite`], [`MetricError::ClusterCount`] unless there are 2 to m - 1 clusters.
pub fn silhouette<T: Real>(
    x: ArrayView2<'_, T>,
    labels: &[i32],
    sample: Option<RowSample>,
) -> Result<f64, MetricError> {
    check_data(x, labels)?;
    let mut rows: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] != NOISE).collect();
    if let Some(sample) = sample
        && rows.len() > sample.rows
    {
        let mut rng = sampling::rng(sample.seed, "silhouette sample");
        let kept = sampling::sample_sorted(&mut rng, rows.len(), sample.rows);
        rows = kept
            .unwrap_or_default()
            .into_iter()
            .map(|i| rows[i])
            .collect();
    }
    let clusters = Clusters::of_rows(rows, labels);
    clusters.check_count()?;
    let values = silhouettes(&Centred::new(x, &clusters.order), &clusters.starts);
    Ok(values.iter().sum::<f64>() / values.len() as f64)
}

/// Rows of a block whose distances one thread computes at a time, and rows that it compares them with.
const SILHOUETTE_BLOCK: usize = 128;
const SILHOUETTE_TILE: usize = 1024;

/// The silhouette of each row, rows being sorted by cluster; cluster c is `starts[c]..starts[c + 1]`.
fn silhouettes(data: &Centred, starts: &[usize]) -> Vec<f64> {
    let (n, clusters) = (data.norms.len(), starts.len() - 1);
    let blocks: Vec<Vec<f64>> = (0..n.div_ceil(SILHOUETTE_BLOCK))
        .into_par_iter()
        .map(|block| {
            let rows = block * SILHOUETTE_BLOCK..n.min((block + 1) * SILHOUETTE_BLOCK);
            let mut sums = vec![0.0; rows.len() * clusters];
            let mut tile = vec![0.0; rows.len() * SILHOUETTE_TILE];
            for start in (0..n).step_by(SILHOUETTE_TILE) {
                let columns = start..n.min(start + SILHOUETTE_TILE);
                let tile = &mut tile[..rows.len() * columns.len()];
                data.distances(rows.clone(), columns.clone(), tile);
                let first = starts.partition_point(|&s| s <= start) - 1;
                for (distances, sums) in tile
                    .chunks_exact(columns.len())
                    .zip(sums.chunks_exact_mut(clusters))
                {
                    for c in first..clusters {
                        if starts[c] >= columns.end {
                            break;
                        }
                        let from = starts[c].max(start) - start;
                        let to = starts[c + 1].min(columns.end) - start;
                        sums[c] += sum_in_lanes(&distances[from..to]);
                    }
                }
            }
            rows.zip(sums.chunks_exact(clusters))
                .map(|(row, sums)| {
                    let own = starts.partition_point(|&s| s <= row) - 1;
                    silhouette_of_row(sums, starts, own)
                })
                .collect()
        })
        .collect();
    blocks.concat()
}

fn silhouette_of_row(sums: &[f64], starts: &[usize], own: usize) -> f64 {
    let size = |c: usize| starts[c + 1] - starts[c];
    if size(own) == 1 {
        return 0.0;
    }
    let a = sums[own] / (size(own) - 1) as f64;
    let b = (0..sums.len())
        .filter(|&c| c != own)
        .map(|c| sums[c] / size(c) as f64)
        .fold(f64::INFINITY, f64::min);
    let larger = a.max(b);
    if larger == 0.0 { 0.0 } else { (b - a) / larger }
}

vectorised! {
    /// A sum in eight interleaved parts: the order is fixed, and the parts run side by side.
    fn sum_in_lanes<'a>(simd; values: &'a [f64]) -> f64 {
        let mut lanes = [0.0; 8];
        let (whole, rest) = values.as_chunks::<8>();
        for eight in whole {
            for lane in 0..8 {
                lanes[lane] += eight[lane];
            }
        }
        lanes.iter().sum::<f64>() + rest.iter().sum::<f64>()
    }
}

/// Rows in double precision, moved so that their mean is 0, which costs distances the fewest digits.
struct Centred {
    /// Row-major [m, d].
    values: Vec<f64>,
    /// Squared lengths of the rows.
    norms: Vec<f64>,
    width: usize,
}

/// A squared distance below this share of the two rows' squared lengths has lost half of its 16 digits or
/// so to cancellation, and is computed again directly.
const CANCELLED: f64 = 1e-6;

impl Centred {
    fn new<T: Real>(x: ArrayView2<'_, T>, rows: &[usize]) -> Self {
        let width = x.ncols();
        let mut mean = vec![0.0; width];
        for &row in rows {
            for (sum, v) in mean.iter_mut().zip(x.row(row)) {
                *sum += v.to_f64();
            }
        }
        mean.iter_mut().for_each(|sum| *sum /= rows.len() as f64);
        let mut values = Vec::with_capacity(rows.len() * width);
        for &row in rows {
            values.extend(x.row(row).iter().zip(&mean).map(|(v, m)| v.to_f64() - m));
        }
        let norms = (0..rows.len())
            .map(|i| {
                values[i * width..(i + 1) * width]
                    .iter()
                    .map(|v| v * v)
                    .sum()
            })
            .collect();
        Self {
            values,
            norms,
            width,
        }
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.width..(i + 1) * self.width]
    }

    /// Distances of `rows` to `columns`, both ranges of rows, into `out` [rows, columns].
    fn distances(
        &self,
        rows: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
        out: &mut [f64],
    ) {
        let part = |range: &std::ops::Range<usize>| {
            &self.values[range.start * self.width..range.end * self.width]
        };
        let shape = (rows.len(), columns.len(), self.width);
        product_with_transpose(out, -2.0, part(&rows), part(&columns), shape);
        let column_norms = &self.norms[columns.clone()];
        for (row, out) in rows.zip(out.chunks_exact_mut(columns.len())) {
            let norm = self.norms[row];
            let cancelled = finish_squares(out, norm, column_norms);
            if cancelled {
                for (j, value) in out.iter_mut().enumerate() {
                    if *value <= CANCELLED * (norm + column_norms[j]) {
                        *value = squared_distance(self.row(row), self.row(columns.start + j));
                    }
                }
            }
            take_roots(out);
        }
    }
}

vectorised! {
    /// Adds the squared lengths to minus twice the products; true if any result has lost digits.
    fn finish_squares<'a>(
        simd; out: &'a mut [f64], norm: f64, column_norms: &'a [f64],
    ) -> bool {
        let mut cancelled = false;
        for (value, &column_norm) in out.iter_mut().zip(column_norms) {
            let sum = norm + column_norm;
            *value += sum;
            cancelled |= *value <= CANCELLED * sum;
        }
        cancelled
    }
}

vectorised! {
    fn take_roots<'a>(simd; values: &'a mut [f64]) -> () {
        for value in values {
            *value = value.sqrt();
        }
    }
}

fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// The Davies-Bouldin index (1979) of x [n, d]: the mean over clusters of the largest ratio, over the other
/// clusters, of the two clusters' spreads (mean distance to their centroid) added up to the distance of
/// their centroids. At least 0; lower is better. Noise rows are left out.
///
/// Centroids that coincide (up to 1e-8 of the rows' root mean square distance from their mean) have no
/// ratio; 0 if all do, or if all spreads are 0 in that sense. (scikit-learn takes 1e-8 itself, which says
/// something else in other units.) O(n d + k^2 d).
///
/// # Errors
/// As [`silhouette`].
pub fn davies_bouldin<T: Real>(x: ArrayView2<'_, T>, labels: &[i32]) -> Result<f64, MetricError> {
    check_data(x, labels)?;
    let clusters = Clusters::of_labels(labels);
    clusters.check_count()?;
    let centroids = clusters.centroids(x);
    let squares = clusters.squares(x, &centroids);
    let scatter = between(&clusters, &centroids) + squares.iter().sum::<f64>();
    let zero = 1e-8 * (scatter / squares.len() as f64).sqrt();
    let spreads: Vec<f64> = (0..clusters.count())
        .map(|c| {
            let range = clusters.starts[c]..clusters.starts[c + 1];
            let size = range.len() as f64;
            squares[range].iter().map(|s| s.sqrt()).sum::<f64>() / size
        })
        .collect();
    if spreads.iter().all(|&spread| spread <= zero) {
        return Ok(0.0);
    }
    let worst: Vec<f64> = (0..clusters.count())
        .into_par_iter()
        .map(|a| {
            (0..clusters.count())
                .filter(|&b| b != a)
                .map(|b| {
                    let apart = (&centroids.row(a) - &centroids.row(b)).pow2().sum().sqrt();
                    if apart <= zero {
                        0.0
                    } else {
                        (spreads[a] + spreads[b]) / apart
                    }
                })
                .fold(0.0, f64::max)
        })
        .collect();
    Ok(worst.iter().sum::<f64>() / worst.len() as f64)
}

/// The Calinski-Harabasz index (1974) of x [n, d]: the scatter between the k clusters over that within, each
/// divided by its degrees of freedom: (B / (k - 1)) / (W / (n - k)). Higher is better; 1 if W is 0. Noise
/// rows are left out. O(n d).
///
/// # Errors
/// As [`silhouette`].
pub fn calinski_harabasz<T: Real>(
    x: ArrayView2<'_, T>,
    labels: &[i32],
) -> Result<f64, MetricError> {
    check_data(x, labels)?;
    let clusters = Clusters::of_labels(labels);
    clusters.check_count()?;
    let centroids = clusters.centroids(x);
    let within: f64 = clusters.squares(x, &centroids).iter().sum();
    if within == 0.0 {
        return Ok(1.0);
    }
    let (n, k) = (clusters.order.len() as f64, clusters.count() as f64);
    Ok(between(&clusters, &centroids) * (n - k) / (within * (k - 1.0)))
}

/// The sum over the rows of x [n, d] of the squared distance to the mean of their cluster. Noise rows are
/// left out. O(n d).
///
/// # Errors
/// [`MetricError::LengthsDiffer`], [`MetricError::Empty`] (also if all is noise), [`MetricError::NotFinite`].
pub fn inertia<T: Real>(x: ArrayView2<'_, T>, labels: &[i32]) -> Result<f64, MetricError> {
    check_data(x, labels)?;
    let clusters = Clusters::of_labels(labels);
    if clusters.order.is_empty() {
        return Err(MetricError::Empty);
    }
    let centroids = clusters.centroids(x);
    Ok(clusters.squares(x, &centroids).iter().sum())
}

/// The sum over clusters of size times squared distance of the centroid from the mean of all rows.
fn between(clusters: &Clusters, centroids: &Array2<f64>) -> f64 {
    let sizes = Array1::from_iter((0..clusters.count()).map(|c| clusters.size(c) as f64));
    let mean = sizes.dot(centroids) / clusters.order.len() as f64;
    let squares = (centroids - &mean).pow2().sum_axis(Axis(1));
    (squares * sizes).sum()
}

/// Rows grouped by cluster.
struct Clusters {
    /// The rows, by ascending label and within a label in ascending order.
    order: Vec<usize>,
    /// Where in `order` each cluster starts, and at the end its length.
    starts: Vec<usize>,
}

/// Rows that are summed up by one thread at a time.
const ROWS_PER_SUM: usize = 4096;

impl Clusters {
    fn of_labels(labels: &[i32]) -> Self {
        let rows = (0..labels.len()).filter(|&i| labels[i] != NOISE).collect();
        Self::of_rows(rows, labels)
    }

    fn of_rows(mut rows: Vec<usize>, labels: &[i32]) -> Self {
        rows.par_sort_unstable_by_key(|&row| (labels[row], row));
        let mut starts = vec![0];
        for cluster in rows.chunk_by(|&a, &b| labels[a] == labels[b]) {
            starts.push(starts[starts.len() - 1] + cluster.len());
        }
        Self {
            order: rows,
            starts,
        }
    }

    fn count(&self) -> usize {
        self.starts.len() - 1
    }

    fn size(&self, cluster: usize) -> usize {
        self.starts[cluster + 1] - self.starts[cluster]
    }

    fn check_count(&self) -> Result<(), MetricError> {
        let (clusters, rows) = (self.count(), self.order.len());
        if rows == 0 {
            Err(MetricError::Empty)
        } else if clusters < 2 || clusters >= rows {
            Err(MetricError::ClusterCount { clusters, rows })
        } else {
            Ok(())
        }
    }

    /// The means [k, d] of the clusters.
    fn centroids<T: Real>(&self, x: ArrayView2<'_, T>) -> Array2<f64> {
        let parts: Vec<(usize, &[usize])> = (0..self.count())
            .flat_map(|c| {
                self.order[self.starts[c]..self.starts[c + 1]]
                    .chunks(ROWS_PER_SUM)
                    .map(move |rows| (c, rows))
            })
            .collect();
        let sums: Vec<Array1<f64>> = parts
            .par_iter()
            .map(|(_, rows)| {
                let mut sum = Array1::zeros(x.ncols());
                for &row in *rows {
                    sum.zip_mut_with(&x.row(row), |sum: &mut f64, v| *sum += v.to_f64());
                }
                sum
            })
            .collect();
        let mut centroids = Array2::zeros((self.count(), x.ncols()));
        for ((c, _), sum) in parts.iter().zip(&sums) {
            let mut centroid = centroids.row_mut(*c);
            centroid += sum;
        }
        for (c, mut centroid) in centroids.rows_mut().into_iter().enumerate() {
            centroid /= self.size(c) as f64;
        }
        centroids
    }

    /// The squared distance of each row, in the order of `order`, to the centroid of its cluster.
    fn squares<T: Real>(&self, x: ArrayView2<'_, T>, centroids: &Array2<f64>) -> Vec<f64> {
        let mut squares = vec![0.0; self.order.len()];
        squares
            .par_chunks_mut(ROWS_PER_SUM)
            .enumerate()
            .for_each(|(chunk, squares)| {
                for (i, square) in squares.iter_mut().enumerate() {
                    let place = chunk * ROWS_PER_SUM + i;
                    let cluster = self.starts.partition_point(|&s| s <= place) - 1;
                    *square = x
                        .row(self.order[place])
                        .iter()
                        .zip(centroids.row(cluster))
                        .map(|(v, centre)| (v.to_f64() - centre).powi(2))
                        .sum();
                }
            });
        squares
    }
}

fn check_data<T: Real>(x: ArrayView2<'_, T>, labels: &[i32]) -> Result<(), MetricError> {
    check_lengths(x.nrows(), labels.len())?;
    let bad = (0..x.nrows()).into_par_iter().find_map_first(|row| {
        let values = x.row(row);
        let column = values.iter().position(|v| !v.to_f64().is_finite())?;
        Some((row, column))
    });
    match bad {
        Some((row, column)) => Err(MetricError::NotFinite {
            row,
            column,
            value: x[(row, column)].to_f64(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-10 * b.abs().max(1.0)
    }

    fn table(truth: &[i32], predicted: &[i32]) -> Contingency {
        contingency(truth, predicted).unwrap()
    }

    // The data of all values marked "scikit-learn 1.9.1" below:
    // t = [(i*i*7 + i) % 31 % 5 - 1 for i in range(80)]
    // p = [(i*i*3 + i//4) % 29 % 4 - 1 for i in range(80)]
    // q = [x if i % 5 else -1 for i, x in enumerate(t)]
    // X = [[(i*37 + j*53) % 97 / 10 + 9*(p[i] == 1)*(j == 0) + 5*(p[i] == 2)*(j == 1)
    //       for j in range(3)] for i in range(80)]
    fn t() -> Vec<i32> {
        (0..80).map(|i| (i * i * 7 + i) % 31 % 5 - 1).collect()
    }
    fn p() -> Vec<i32> {
        (0..80).map(|i| (i * i * 3 + i / 4) % 29 % 4 - 1).collect()
    }
    fn x() -> Array2<f64> {
        let p = p();
        Array2::from_shape_fn((80, 3), |(i, j)| {
            ((i * 37 + j * 53) % 97) as f64 / 10.0
                + 9.0 * f64::from(u8::from(p[i] == 1 && j == 0))
                + 5.0 * f64::from(u8::from(p[i] == 2 && j == 1))
        })
    }

    #[test]
    fn labelings_as_scikit_learn() {
        // adjusted_rand_score(t, p), normalized_mutual_info_score(t, p),
        // homogeneity_completeness_v_measure(t, p); then the same of (t, q). scikit-learn 1.9.1
        let t = t();
        let q: Vec<i32> = (0..80).map(|i| if i % 5 > 0 { t[i] } else { -1 }).collect();
        for (other, ari, nmi, hcv) in [
            (
                p(),
                -0.02728858018546569,
                0.01703384617032916,
                [
                    0.016247535260791153,
                    0.017900135849001103,
                    0.017033846170329155,
                ],
            ),
            (
                q,
                0.5648054557142907,
                0.684021036902688,
                [0.6469964915649694, 0.7255402707779481, 0.6840210369026881],
            ),
        ] {
            let table = table(&t, &other);
            assert!(close(adjusted_rand_index(&table), ari));
            assert!(close(normalized_mutual_information(&table), nmi));
            let found = v_measure(&table);
            assert!(close(found.homogeneity, hcv[0]));
            assert!(close(found.completeness, hcv[1]));
            assert!(close(found.v, hcv[2]));
        }
    }

    #[test]
    fn edge_cases_as_scikit_learn() {
        // (labels, adjusted_rand_score, normalized_mutual_info_score, homogeneity_completeness_v_measure)
        for (a, b, ari, nmi, hcv) in [
            (vec![0, 0, 0], vec![1, 1, 1], 1.0, 1.0, [1.0, 1.0, 1.0]),
            (vec![0, 0, 0], vec![0, 1, 2], 0.0, 0.0, [1.0, 0.0, 0.0]),
            (vec![0, 1, 2], vec![5, 5, 5], 0.0, 0.0, [0.0, 1.0, 0.0]),
            (vec![0, 1, 2], vec![2, 1, 0], 1.0, 1.0, [1.0, 1.0, 1.0]),
            (
                vec![0, 0, 1, 1],
                vec![0, 1, 0, 1],
                -0.5,
                0.0,
                [0.0, 0.0, 0.0],
            ),
            (vec![0], vec![3], 1.0, 1.0, [1.0, 1.0, 1.0]),
        ] {
            let table = table(&a, &b);
            assert_eq!(adjusted_rand_index(&table), ari, "{a:?} {b:?}");
            assert!(close(normalized_mutual_information(&table), nmi));
            let found = v_measure(&table);
            assert!(close(found.homogeneity, hcv[0]) && close(found.completeness, hcv[1]));
            assert!(close(found.v, hcv[2]));
        }
        assert_eq!(contingency(&[], &[]), Err(MetricError::Empty));
        assert_eq!(
            contingency(&[1], &[]),
            Err(MetricError::LengthsDiffer {
                first: 1,
                second: 0
            })
        );
    }

    #[test]
    fn a_table_by_hand() {
        let table = table(&[0, 0, 1, 1, -1, i32::MIN], &[5, 5, 5, -1, -1, i32::MAX]);
        assert_eq!(
            table.cells,
            [
                (i32::MIN, i32::MAX, 1),
                (-1, -1, 1),
                (0, 5, 2),
                (1, -1, 1),
                (1, 5, 1)
            ]
        );
        assert_eq!(table.rows, 6);
        assert_eq!(
            table.predicted,
            BTreeMap::from([(5, 3), (-1, 2), (i32::MAX, 1)])
        );
        // 5 to 0 (2 rows), -1 to -1 or 1 (1 row), the last pair (1 row): 4 of 6 agree.
        assert!(close(misclustering_error(&table), 2.0 / 6.0));
    }

    #[test]
    fn large_counts_do_not_overflow() {
        // Two halves of 2^32 rows each, and the same labeling but for one row.
        let half = 1u64 << 32;
        let table = Contingency {
            rows: 2 * half,
            cells: vec![(0, 0, half - 1), (0, 1, 1), (1, 1, half)],
            truth: BTreeMap::from([(0, half), (1, half)]),
            predicted: BTreeMap::from([(0, half - 1), (1, half + 1)]),
        };
        let ari = adjusted_rand_index(&table);
        assert!(ari < 1.0 && ari > 1.0 - 1e-8, "{ari}");
    }

    #[test]
    fn the_data_indices_as_scikit_learn() {
        // With m = (p != -1): silhouette_score(X[m], p[m]), davies_bouldin_score(X[m], p[m]),
        // calinski_harabasz_score(X[m], p[m]); then on all rows with the label -1 renamed to 3.
        // scikit-learn 1.9.1
        let renamed: Vec<i32> = p().iter().map(|&l| if l == -1 { 3 } else { l }).collect();
        for (labels, sil, db, ch) in [
            (
                p(),
                0.23905713920211055,
                1.666970021658878,
                27.578653787490737,
            ),
            (
                renamed,
                0.13791240390028808,
                6.187293352967554,
                21.319548399263272,
            ),
        ] {
            let x = x();
            assert!(close(silhouette(x.view(), &labels, None).unwrap(), sil));
            assert!(close(davies_bouldin(x.view(), &labels).unwrap(), db));
            assert!(close(calinski_harabasz(x.view(), &labels).unwrap(), ch));
            // Single precision of the same data is off by its own rounding only.
            let single = x.mapv(|v| v as f32);
            let found = silhouette(single.view(), &labels, None).unwrap();
            assert!((found - sil).abs() < 1e-6);
        }
    }

    #[test]
    fn a_cluster_of_one_counts_as_zero() {
        // p2 = p with p2[0] = 7 and -1 kept as a cluster; silhouette_score(X, p2). scikit-learn 1.9.1
        let mut labels: Vec<i32> = p().iter().map(|&l| if l == -1 { 3 } else { l }).collect();
        labels[0] = 7;
        let found = silhouette(x().view(), &labels, None).unwrap();
        assert!(close(found, 0.045059096872441785), "{found}");
        // By hand: rows 0, 1 | 4. Row 0: a 1, b 4; row 1: a 1, b 3; the third 0.
        let line = array![[0.0], [1.0], [4.0]];
        let found = silhouette(line.view(), &[0, 0, 1], None).unwrap();
        assert!(close(found, (0.75 + 2.0 / 3.0) / 3.0), "{found}");
    }

    /// Silhouette from its definition, pair by pair.
    fn silhouette_by_definition(x: &Array2<f64>, labels: &[i32]) -> f64 {
        let rows: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] != -1).collect();
        let names: BTreeSet<i32> = rows.iter().map(|&i| labels[i]).collect();
        let mean_to = |i: usize, label: i32| {
            let others: Vec<f64> = rows
                .iter()
                .filter(|&&j| j != i && labels[j] == label)
                .map(|&j| (&x.row(i) - &x.row(j)).pow2().sum().sqrt())
                .collect();
            others.iter().sum::<f64>() / others.len() as f64
        };
        let total: f64 = rows
            .iter()
            .map(|&i| {
                let a = mean_to(i, labels[i]);
                let b = names
                    .iter()
                    .filter(|&&label| label != labels[i])
                    .map(|&label| mean_to(i, label))
                    .fold(f64::INFINITY, f64::min);
                if a.is_nan() || a.max(b) == 0.0 {
                    0.0
                } else {
                    (b - a) / a.max(b)
                }
            })
            .sum();
        total / rows.len() as f64
    }

    #[test]
    fn silhouette_over_several_blocks_and_with_tight_clusters() {
        // 300 rows cross block borders. The tight pairs (1e-6 apart, 1e3 from the mean of all) would have
        // no right digit from the product form.
        let labels: Vec<i32> = (0..300).map(|i| i % 7 - 1).collect();
        let x = Array2::from_shape_fn((300, 4), |(i, j)| {
            let tight = 1e-6 * ((i * 31 + j * 17) % 101) as f64;
            f64::from(labels[i]) * 1e3 + tight
        });
        let expected = silhouette_by_definition(&x, &labels);
        let found = silhouette(x.view(), &labels, None).unwrap();
        // The product form alone is off by 1e-8 here.
        assert!((found - expected).abs() < 1e-14, "{found} {expected}");
        let loose = Array2::from_shape_fn((2500, 4), |(i, j)| {
            ((i * i * 31 + i * j * 17) % 1009) as f64
        });
        let labels: Vec<i32> = (0..2500).map(|i| i * i % 11 - 1).collect();
        let expected = silhouette_by_definition(&loose, &labels);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let found = pool
                .install(|| silhouette(loose.view(), &labels, None))
                .unwrap();
            assert!(close(found, expected));
            assert_eq!(found, silhouette(loose.view(), &labels, None).unwrap());
        }
    }

    #[test]
    fn a_sample_is_the_silhouette_of_its_rows() {
        let (x, labels) = (x(), p());
        let sample = |rows, seed| silhouette(x.view(), &labels, Some(RowSample { rows, seed }));
        let whole = silhouette(x.view(), &labels, None).unwrap();
        assert_eq!(sample(80, 1).unwrap(), whole);
        assert_eq!(sample(30, 1).unwrap(), sample(30, 1).unwrap());
        assert_ne!(sample(30, 1).unwrap(), sample(30, 2).unwrap());
        assert!((sample(45, 1).unwrap() - whole).abs() < 0.1);
        assert!(matches!(
            sample(1, 1),
            Err(MetricError::ClusterCount {
                clusters: 1,
                rows: 1
            })
        ));
        assert_eq!(sample(0, 1), Err(MetricError::Empty));
    }

    #[test]
    fn indices_by_hand() {
        // Two clusters on a line: 0, 2 (mean 1) and 10, 14 (mean 12); mean of all 6.5.
        let x = array![[0.0], [99.0], [2.0], [10.0], [14.0]];
        let labels = [4, -1, 4, 0, 0];
        assert!(close(inertia(x.view(), &labels).unwrap(), 2.0 + 8.0));
        assert!(close(
            davies_bouldin(x.view(), &labels).unwrap(),
            (1.0 + 2.0) / 11.0
        ));
        let between = 2.0 * 5.5 * 5.5 * 2.0;
        assert!(close(
            calinski_harabasz(x.view(), &labels).unwrap(),
            between / (10.0 / 2.0)
        ));
    }

    #[test]
    fn degenerate_clusters_as_scikit_learn() {
        let same = Array2::from_elem((4, 2), 0.1);
        let labels = [0, 0, 1, 1];
        assert_eq!(silhouette(same.view(), &labels, None), Ok(0.0));
        assert_eq!(davies_bouldin(same.view(), &labels), Ok(0.0));
        assert_eq!(calinski_harabasz(same.view(), &labels), Ok(1.0));
        // Centroids coincide, spreads do not vanish.
        let crossed = array![[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]];
        assert_eq!(davies_bouldin(crossed.view(), &labels), Ok(0.0));
        // In other units the index is the same.
        let x = x();
        let tiny = davies_bouldin((&x * 1e-12).view(), &p()).unwrap();
        assert!(close(tiny, davies_bouldin(x.view(), &p()).unwrap()));
    }

    #[test]
    fn bad_input_is_named() {
        let x = array![[0.0], [1.0], [2.0]];
        let count = |clusters, rows| Err(MetricError::ClusterCount { clusters, rows });
        assert_eq!(silhouette(x.view(), &[0, 0, 0], None), count(1, 3));
        assert_eq!(silhouette(x.view(), &[0, 1, 2], None), count(3, 3));
        assert_eq!(davies_bouldin(x.view(), &[0, 1, -1]), count(2, 2));
        assert_eq!(
            calinski_harabasz(x.view(), &[-1, -1, -1]),
            Err(MetricError::Empty)
        );
        assert_eq!(inertia(x.view(), &[-1, -1, -1]), Err(MetricError::Empty));
        assert_eq!(
            inertia(x.view(), &[0]),
            Err(MetricError::LengthsDiffer {
                first: 3,
                second: 1
            })
        );
        let bad = array![[0.0, 1.0], [f32::INFINITY, 2.0]];
        assert_eq!(
            inertia(bad.view(), &[0, 0]),
            Err(MetricError::NotFinite {
                row: 1,
                column: 0,
                value: f64::INFINITY
            })
        );
    }

    fn labelings() -> impl Strategy<Value = (Vec<i32>, Vec<i32>)> {
        prop::collection::vec((-1i32..4, -1i32..3), 1..40).prop_map(|v| v.into_iter().unzip())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn rand_index_by_counting_pairs((a, b) in labelings()) {
            // Hubert and Arabie's form: (index - expected) / (maximum - expected), over unordered pairs.
            let (mut both, mut first, mut second, mut pairs) = (0.0, 0.0, 0.0, 0.0);
            for i in 0..a.len() {
                for j in 0..i {
                    let (in_a, in_b) = (a[i] == a[j], b[i] == b[j]);
                    both += f64::from(u8::from(in_a && in_b));
                    first += f64::from(u8::from(in_a));
                    second += f64::from(u8::from(in_b));
                    pairs += 1.0;
                }
            }
            let expected = first * second / pairs;
            let most = (first + second) / 2.0;
            let found = adjusted_rand_index(&table(&a, &b));
            if both == first && both == second {
                prop_assert_eq!(found, 1.0);
            } else {
                prop_assert!(close(found, (both - expected) / (most - expected)));
            }
            prop_assert!(close(found, adjusted_rand_index(&table(&b, &a))));
        }

        #[test]
        fn information_by_joint_entropy((a, b) in labelings()) {
            let entropy = |count: &dyn Fn(usize) -> usize| -> f64 {
                (0..a.len()).map(|i| -(count(i) as f64 / a.len() as f64).ln()).sum::<f64>() / a.len() as f64
            };
            let h_a = entropy(&|i| a.iter().filter(|&&l| l == a[i]).count());
            let h_b = entropy(&|i| b.iter().filter(|&&l| l == b[i]).count());
            let h_ab = entropy(&|i| (0..a.len()).filter(|&j| a[j] == a[i] && b[j] == b[i]).count());
            let table = table(&a, &b);
            if h_a + h_b > 0.0 {
                let expected = 2.0 * (h_a + h_b - h_ab) / (h_a + h_b);
                prop_assert!((normalized_mutual_information(&table) - expected).abs() < 1e-9);
                prop_assert!((v_measure(&table).v - expected).abs() < 1e-9);
            }
        }

        #[test]
        fn matching_error_over_all_renamings((a, b) in labelings()) {
            // b has at most 4 labels; give each a place among a's 5 labels or none, all different.
            let mut fewest = a.len();
            for code in 0..6usize.pow(4) {
                let to: Vec<i32> = (0..4).map(|l| (code / 6usize.pow(l) % 6) as i32 - 1).collect();
                let mut used: Vec<i32> = to.iter().copied().filter(|&l| l < 4).collect();
                let taken = used.len();
                used.sort_unstable();
                used.dedup();
                if used.len() == taken {
                    let wrong = (0..a.len()).filter(|&i| to[(b[i] + 1) as usize] != a[i]).count();
                    fewest = fewest.min(wrong);
                }
            }
            prop_assert!(close(misclustering_error(&table(&a, &b)), fewest as f64 / a.len() as f64));
        }

        #[test]
        fn names_do_not_matter((a, b) in labelings(), shift in 1i32..1000) {
            let renamed: Vec<i32> = b.iter().map(|l| shift - 3 * l).collect();
            let (first, second) = (table(&a, &b), table(&a, &renamed));
            prop_assert_eq!(adjusted_rand_index(&first), adjusted_rand_index(&second));
            prop_assert!(close(v_measure(&first).v, v_measure(&second).v));
            prop_assert_eq!(misclustering_error(&first), misclustering_error(&second));
        }

        #[test]
        fn silhouette_by_its_definition(values in prop::collection::vec((-5i32..5, -1i32..3), 3..40), scale in 0.01f64..100.0) {
            let x = Array2::from_shape_fn((values.len(), 2), |(i, j)| {
                scale * f64::from(values[i].0) * if j == 0 { 1.0 } else { 0.3 + i as f64 }
            });
            let labels: Vec<i32> = values.iter().map(|v| v.1).collect();
            if let Ok(found) = silhouette(x.view(), &labels, None) {
                prop_assert!(close(found, silhouette_by_definition(&x, &labels)));
            }
        }

        #[test]
        fn scatter_within_and_between_is_the_whole(values in prop::collection::vec((-5.0f64..5.0, 0i32..3), 4..40)) {
            let x = Array2::from_shape_fn((values.len(), 2), |(i, j)| values[(i + j) % values.len()].0);
            let labels: Vec<i32> = values.iter().map(|v| v.1).collect();
            let within = inertia(x.view(), &labels).unwrap();
            let whole = inertia(x.view(), &vec![0; labels.len()]).unwrap();
            let k = Clusters::of_labels(&labels).count() as f64;
            prop_assert!(within <= whole + 1e-9);
            if k > 1.0 {
                let n = labels.len() as f64;
                let expected = (whole - within) / within * (n - k) / (k - 1.0);
                let found = calinski_harabasz(x.view(), &labels).unwrap();
                prop_assert!((found - expected).abs() <= 1e-9 * whole / within * n);
            }
        }
    }
}
