//! k-means on rows that arrive in chunks.

use ndarray::{Array2, ArrayView2};
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use super::problem::Problem;
use super::seeding::plus_plus_rows;
use super::sums::sum_all;
use super::{KMeansError, check};
use crate::distance::{Nearest, check_points, nearest};
use crate::linalg::{Real, memory, standard};

/// A centre with fewer rows than this share of the fullest one's is starved.
const STARVED: f64 = 0.01;

/// k-means on a stream of chunks (mini-batches): memory for the centres and one chunk only.
///
/// Each chunk's rows go to their nearest centres, then each centre moves to the mean of all the rows it
/// ever got: a row moves its centre with the learning rate 1 / (rows so far) (Sculley 2010, for a whole
/// chunk at once).
///
/// Starved centres, with fewer than 1 % of the rows of the fullest, are moved to random rows of the chunk
/// (at most half as many as the chunk has rows, the most starved first) whenever a centre has no rows at
/// all, and else once in every 10 k rows; a moved centre gets the lowest count of the others, so that it is
/// not moved again at once. The rule is scikit-learn's.
#[derive(Clone, Debug)]
pub struct MiniBatch<T> {
    clusters: usize,
    rng: ChaCha8Rng,
    centres: Option<Array2<T>>,
    counts: Vec<f64>,
    since_reassignment: usize,
}

impl<T: Real> MiniBatch<T> {
    /// A model of `clusters` centres that has seen nothing yet.
    ///
    /// # Errors
    /// No clusters.
    pub fn new(clusters: usize, seed: u64) -> Result<Self, KMeansError> {
        if clusters == 0 {
            return Err(KMeansError::NoClusters);
        }
        Ok(MiniBatch {
            clusters,
            rng: ChaCha8Rng::seed_from_u64(seed),
            centres: None,
            counts: vec![0.0; clusters],
            since_reassignment: 0,
        })
    }

    /// The centres, [k, d]; none before the first chunk.
    pub fn centres(&self) -> Option<ArrayView2<'_, T>> {
        self.centres.as_ref().map(|centres| centres.view())
    }

    /// Number of rows that each centre got so far, `[k]` (a reassigned centre's is set anew).
    pub fn counts(&self) -> &[f64] {
        &self.counts
    }

    /// Learns from one chunk of rows, [m, d]; the first must have at least k rows and chooses the centres
    /// by k-means++.
    ///
    /// Returns the sum of the squared distances of the rows to their nearest centres before the update.
    ///
    /// # Errors
    /// Unusable rows, another width than before, a first chunk with fewer than k rows. The model is then
    /// unchanged.
    pub fn partial_fit(&mut self, x: ArrayView2<'_, T>) -> Result<f64, KMeansError> {
        check_points(x.view())?;
        let data = standard(&x);
        let mut centres = match self.centres.take() {
            Some(centres) => centres,
            None => self.first_centres(&x)?,
        };
        let near = match nearest(x.view(), centres.view()) {
            Ok(near) => near,
            Err(error) => {
                self.centres = Some(centres);
                return Err(error.into());
            }
        };
        let problem = Problem::new(memory(&data), x.ncols(), None, self.clusters);
        let inertia = problem.weighted_sum(&near.squared);
        let sums = sum_all(&problem, &near.indices);
        for (j, mut centre) in centres.outer_iter_mut().enumerate() {
            let new = sums.weights[j];
            if new == 0.0 {
                continue;
            }
            self.counts[j] += new;
            let rate = 1.0 / self.counts[j];
            for (c, value) in centre.iter_mut().enumerate() {
                let total = sums.rows[j * problem.d + c] + new * problem.shift[c].to_f64();
                let old = value.to_f64();
                *value = T::from_f64(old + (total - new * old) * rate);
            }
        }
        self.reassign(&x, &mut centres);
        self.centres = Some(centres);
        Ok(inertia)
    }

    /// The nearest centre of each row of a chunk, [m, d].
    ///
    /// # Errors
    /// No data seen yet, unusable rows, another width than the centres.
    pub fn assign(&self, x: ArrayView2<'_, T>) -> Result<Nearest<T>, KMeansError> {
        let centres = self.centres().ok_or(KMeansError::NotStarted)?;
        Ok(nearest(x, centres)?)
    }

    fn first_centres(&mut self, x: &ArrayView2<'_, T>) -> Result<Array2<T>, KMeansError> {
        check(x, None, self.clusters)?;
        let data = standard(x);
        let problem = Problem::new(memory(&data), x.ncols(), None, self.clusters);
        let rows = plus_plus_rows(&problem, &mut self.rng);
        Ok(Array2::from_shape_fn((rows.len(), x.ncols()), |(j, c)| {
            x[[rows[j], c]]
        }))
    }

    fn reassign(&mut self, x: &ArrayView2<'_, T>, centres: &mut Array2<T>) {
        self.since_reassignment += x.nrows();
        let any_empty = self.counts.contains(&0.0);
        if !any_empty && self.since_reassignment < 10 * self.clusters {
            return;
        }
        self.since_reassignment = 0;
        let fullest = self.counts.iter().copied().fold(0.0, f64::max);
        let mut starved: Vec<usize> = (0..self.clusters)
            .filter(|&j| self.counts[j] < STARVED * fullest)
            .collect();
        starved.sort_by(|&a, &b| self.counts[a].total_cmp(&self.counts[b]));
        starved.truncate(x.nrows() / 2);
        let others = (0..self.clusters).filter(|j| !starved.contains(j));
        let lowest = others.map(|j| self.counts[j]).fold(f64::INFINITY, f64::min);
        let rows = index::sample(&mut self.rng, x.nrows(), starved.len());
        for (&j, row) in starved.iter().zip(rows) {
            centres.row_mut(j).assign(&x.row(row));
            self.counts[j] = lowest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kmeans::tests::{groups, random};
    use crate::kmeans::{KMeansOptions, kmeans};
    use ndarray::{array, s};

    #[test]
    fn mini_batch_by_hand() {
        let mut model = MiniBatch::new(1, 0).unwrap();
        let inertia = model.partial_fit(array![[1.0], [3.0]].view()).unwrap();
        assert!(inertia == 4.0, "one of the two rows is the first centre");
        assert_eq!(model.centres().unwrap(), array![[2.0]]);
        assert_eq!(model.partial_fit(array![[8.0]].view()).unwrap(), 36.0);
        // The third row moves the centre by a third of the way.
        assert_eq!(model.centres().unwrap(), array![[4.0]]);
        assert_eq!(model.counts(), &[3.0]);
        let near = model.assign(array![[5.0]].view()).unwrap();
        assert_eq!((near.indices[0], near.squared[0]), (0, 1.0));
    }

    #[test]
    fn mini_batches_find_separate_groups() {
        let x = groups(4, 500, 3, 16);
        let mut model = MiniBatch::new(4, 1).unwrap();
        // Strides mix the groups in each chunk.
        for start in 0..20 {
            model.partial_fit(x.slice(s![start..;20, ..])).unwrap();
        }
        let near = model.assign(x.view()).unwrap();
        let full = kmeans(x.view(), None, &KMeansOptions::new(4)).unwrap();
        let total: f64 = near.squared.iter().sum();
        assert!(total < 1.02 * full.inertia, "{total} {}", full.inertia);
        assert_eq!(model.counts().iter().sum::<f64>(), 2000.0);
    }

    #[test]
    fn mini_batch_moves_a_starved_centre() {
        let near = random(200, 2, 17);
        let mut model = MiniBatch::new(2, 3).unwrap();
        let first = array![[0.0, 0.0], [0.1, 0.0], [1e6, 0.0]];
        model.partial_fit(first.view()).unwrap();
        for _ in 0..3 {
            model.partial_fit(near.view()).unwrap();
        }
        let centres = model.centres().unwrap();
        assert!(centres.iter().all(|v| v.abs() <= 1.0), "{centres}");
        assert!(model.counts().iter().all(|&count| count > 1.0));
    }

    #[test]
    fn mini_batch_bad_input() {
        assert!(matches!(
            MiniBatch::<f64>::new(0, 0),
            Err(KMeansError::NoClusters)
        ));
        let mut model = MiniBatch::new(2, 0).unwrap();
        let one = array![[1.0, 1.0]];
        assert_eq!(
            model.assign(one.view()).unwrap_err(),
            KMeansError::NotStarted
        );
        assert!(matches!(
            model.partial_fit(one.view()),
            Err(KMeansError::TooManyClusters { .. })
        ));
        model.partial_fit(random(5, 2, 18).view()).unwrap();
        let before = model.centres().unwrap().to_owned();
        assert!(model.partial_fit(array![[1.0]].view()).is_err());
        assert!(model.partial_fit(array![[1.0, f64::NAN]].view()).is_err());
        assert_eq!(model.centres().unwrap(), before);
    }
}
