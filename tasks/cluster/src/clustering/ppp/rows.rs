//! What is found of each row: its cluster and how much it belongs there.

use super::order::Ordered;
use crate::gaussian::{self, Mixture};
use ndarray::{Array2, ArrayView2, Axis, s};
use papertrial_core::Result;

/// What is found of the rows, in the order of their content.
pub(super) struct Rows {
    pub labels: Vec<u32>,
    /// How much each belongs to its own cluster.
    pub own: Vec<f64>,
    /// \[n, k\].
    pub memberships: Option<Array2<f64>>,
}

impl Rows {
    /// The E-step of a mixture on rows z \[n, q\], some at a time, so that the posteriors need not be kept.
    pub(super) fn of_mixture(z: ArrayView2<f64>, mixture: &Mixture, keep: bool) -> Result<Rows> {
        const CHUNK: usize = 65_536;
        let (n, k) = (z.nrows(), mixture.weights.len());
        let mut rows = Rows {
            labels: Vec::with_capacity(n),
            own: Vec::with_capacity(n),
            memberships: keep.then(|| Array2::zeros((n, k))),
        };
        for (i, chunk) in z.axis_chunks_iter(Axis(0), CHUNK).enumerate() {
            let (posterior, _) = gaussian::responsibilities(chunk, mixture)?;
            for row in posterior.outer_iter() {
                let label = gaussian::argmax(row);
                rows.labels.push(label as u32);
                rows.own.push(row[label]);
            }
            if let Some(all) = &mut rows.memberships {
                all.slice_mut(s![i * CHUNK..i * CHUNK + chunk.nrows(), ..])
                    .assign(&posterior);
            }
        }
        Ok(rows)
    }

    /// Gives equal rows the same values: a row's place in a block may change the last bit of a product.
    pub(super) fn make_equal(&mut self, duplicates: &[(usize, usize)]) {
        for &(first, count) in duplicates {
            let (label, own) = (self.labels[first], self.own[first]);
            self.labels[first..first + count].fill(label);
            self.own[first..first + count].fill(own);
            if let Some(all) = &mut self.memberships {
                let row = all.row(first).to_owned();
                all.slice_mut(s![first..first + count, ..]).assign(&row);
            }
        }
    }

    /// Numbers the k groups by falling size, of equal ones that of the first row first; the new number of each.
    pub(super) fn number(&mut self, k: usize) -> Vec<usize> {
        let mut sizes = vec![0usize; k];
        let mut firsts = vec![usize::MAX; k];
        for (i, label) in self.labels.iter().enumerate() {
            let label = *label as usize;
            sizes[label] += 1;
            firsts[label] = firsts[label].min(i);
        }
        let mut places: Vec<usize> = (0..k).collect();
        places.sort_by_key(|g| (std::cmp::Reverse(sizes[*g]), firsts[*g], *g));
        let mut new = vec![0; k];
        for (number, group) in places.iter().enumerate() {
            new[*group] = number;
        }
        self.labels
            .iter_mut()
            .for_each(|l| *l = new[*l as usize] as u32);
        if let Some(all) = &mut self.memberships {
            for mut row in all.outer_iter_mut() {
                let old = row.to_vec();
                row.iter_mut()
                    .zip(&places)
                    .for_each(|(v, place)| *v = old[*place]);
            }
        }
        new
    }
}

/// Rows of a matrix \[n, k\] put back into the order of the file.
pub(super) fn restored(ordered: &Ordered, rows: &Array2<f64>) -> Array2<f64> {
    let mut out = Array2::zeros(rows.raw_dim());
    for (row, place) in rows.outer_iter().zip(&ordered.from) {
        out.row_mut(*place as usize).assign(&row);
    }
    out
}
