//! Pairs that come twice: exact repeats in the pool, overlap of clean and test pairs, and near duplicates of test images.

use super::crop::difference_hash;
use super::pairs::{Pairs, Side};
use ndarray::{Array1, Array2, Axis};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::nearest;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Most bits of 64 in which the hashes of near duplicates differ.
const MOST_BITS: u32 = 10;

/// What has been seen before, kept as hashes of 128 bits.
#[derive(Debug, Default)]
pub(super) struct Seen(HashSet<u128>);

impl Seen {
    /// Whether `thing` comes for the first time.
    pub fn first(&mut self, thing: &impl Hash) -> bool {
        let half = |start: u8| {
            let mut hasher = DefaultHasher::new();
            start.hash(&mut hasher);
            thing.hash(&mut hasher);
            u128::from(hasher.finish())
        };
        self.0.insert(half(0) << 64 | half(1))
    }

    /// The rows of `pairs` that come for the first time: no earlier pair is equal on both sides.
    pub fn new_rows(&mut self, pairs: &Pairs) -> Vec<usize> {
        fn content(side: &Side, row: usize) -> (Vec<u32>, Option<&str>) {
            match side {
                Side::Vectors { values, width } => {
                    let bits = values[row * width..(row + 1) * width].iter();
                    (bits.map(|v| v.to_bits()).collect(), None)
                }
                Side::Texts(texts) => (Vec::new(), Some(&texts[row])),
            }
        }
        (0..pairs.len())
            .filter(|r| self.first(&(content(&pairs.left, *r), content(&pairs.right, *r))))
            .collect()
    }
}

/// Refuses pairs of `other` that are test pairs: equal on both sides.
///
/// # Errors
/// [`Error::BadInput`] with the uid of the first.
pub(super) fn refuse_overlap(test: &Pairs, other: &Pairs, name: &str) -> Result<()> {
    let both = test.clone().with(other)?;
    let (left, right) = (both.left.identities(), both.right.identities());
    let (n, all) = (test.len(), both.len());
    let tested: HashSet<(u32, u32)> = (0..n).map(|r| (left[r], right[r])).collect();
    match (n..all).find(|r| tested.contains(&(left[*r], right[*r]))) {
        None => Ok(()),
        Some(row) => Err(Error::BadInput(format!(
            "{name} and the test pairs overlap: {} is in both; take it out of one, or the test measures what was learned by heart",
            both.uids[row]
        ))),
    }
}

/// For each pair of `pairs`, whether its left side is a near duplicate of a left side of `test`.
///
/// For vectors: the cosine of both, less `mean`, is above `threshold`, and for pictures their difference
/// hashes differ in at most 10 of 64 bits. Texts must be equal.
///
/// # Errors
/// Numbers too large to multiply.
pub(super) fn near(
    test: &Pairs,
    pairs: &Pairs,
    mean: &Array1<f32>,
    threshold: f64,
) -> Result<Vec<bool>> {
    match (&test.left, &pairs.left) {
        (Side::Texts(tested), Side::Texts(texts)) => {
            let tested: HashSet<&String> = tested.iter().collect();
            return Ok(texts.iter().map(|t| tested.contains(t)).collect());
        }
        (Side::Vectors { width: a, .. }, Side::Vectors { width: b, .. })
            if a == b && !test.is_empty() && !pairs.is_empty() => {}
        _ => return Ok(vec![false; pairs.len()]),
    }
    let (tested, own) = (matrix(&test.left)?, matrix(&pairs.left)?);
    let (tested, own) = (directions(tested, mean), directions(own, mean));
    let found = nearest(own.view(), tested.view()).map_err(|e| Error::Failed(e.to_string()))?;
    // |a - b|^2 = 2 - 2 cos for unit vectors; a vector without a direction is zero and is near to nothing.
    let most = 2.0 - 2.0 * threshold;
    let picture = |pairs: &Pairs, row: usize| match (&pairs.left, pairs.shape) {
        (Side::Vectors { values, width }, Some(shape)) => Some(difference_hash(
            &values[row * width..(row + 1) * width],
            shape,
        )),
        _ => None,
    };
    Ok((0..pairs.len())
        .map(|row| {
            let other = found.indices[row] as usize;
            let close = f64::from(found.squared[row]) < most
                && own.row(row).iter().any(|v| *v != 0.0)
                && tested.row(other).iter().any(|v| *v != 0.0);
            close
                && match (picture(pairs, row), picture(test, other)) {
                    (Some(a), Some(b)) => (a ^ b).count_ones() <= MOST_BITS,
                    _ => true,
                }
        })
        .collect())
}

/// The mean of the left sides, from which [`near`] looks at them: without it all pictures on a dark ground, and all
/// embeddings of one model, point much the same way. Empty for texts and for no pairs.
///
/// # Errors
/// None that well-formed pairs can cause.
pub(super) fn mean(pairs: &Pairs) -> Result<Array1<f32>> {
    Ok(matrix(&pairs.left)?.mean_axis(Axis(0)).unwrap_or_default())
}

fn matrix(side: &Side) -> Result<Array2<f32>> {
    let (values, width) = match side {
        Side::Vectors { values, width } => (values.clone(), (*width).max(1)),
        Side::Texts(_) => (Vec::new(), 1),
    };
    Array2::from_shape_vec((values.len() / width, width), values)
        .map_err(|e| Error::Failed(e.to_string()))
}

/// Rows less the mean, at length 1.
fn directions(mut rows: Array2<f32>, mean: &Array1<f32>) -> Array2<f32> {
    for mut row in rows.axis_iter_mut(Axis(0)) {
        row -= mean;
        let length = row.dot(&row).sqrt();
        if length > 0.0 {
            row /= length;
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::pairs::Shape;
    use super::*;

    fn pairs(rows: &[[f32; 3]], texts: &[&str]) -> Pairs {
        Pairs {
            uids: (0..rows.len()).map(|i| format!("u{i}")).collect(),
            left: Side::Vectors {
                values: rows.concat(),
                width: 3,
            },
            right: Side::Texts(texts.iter().map(|t| (*t).to_string()).collect()),
            shape: None,
            labels: None,
            matches: None,
        }
    }

    #[test]
    fn repeats_are_equal_on_both_sides() {
        let a = [1.0, 0.0, 0.0];
        let b = [0.0, 1.0, 0.0];
        let all = pairs(&[a, a, b, a], &["x", "y", "x", "x"]);
        let mut seen = Seen::default();
        assert_eq!(seen.new_rows(&all), [0, 1, 2]);
        // Across calls too.
        assert_eq!(seen.new_rows(&pairs(&[b, b], &["x", "y"])), [1]);
    }

    #[test]
    fn overlap_is_told_by_uid() {
        let test = pairs(&[[1.0, 0.0, 0.0]], &["x"]);
        let fine = pairs(&[[1.0, 0.0, 0.0], [1.0, 0.5, 0.0]], &["y", "x"]);
        assert!(refuse_overlap(&test, &fine, "the clean pairs").is_ok());
        let same = pairs(&[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], &["x", "x"]);
        let text = refuse_overlap(&test, &same, "the clean pairs")
            .unwrap_err()
            .to_string();
        assert!(text.contains("u1 is in both"), "{text}");
    }

    #[test]
    fn near_vectors_point_the_same_way_from_the_mean() {
        // Mean (0, 0, 0).
        let own = pairs(
            &[
                [1.0, 0.0, 0.0],
                [-1.0, 0.3, 0.0],
                [0.0, -0.3, 0.0],
                [0.0; 3],
            ],
            &["t"; 4],
        );
        let mean = mean(&own).unwrap();
        let test = pairs(&[[2.0, 0.1, 0.0], [0.0, 0.0, 5.0], [0.0; 3]], &["t"; 3]);
        assert_eq!(
            near(&test, &own, &mean, 0.95).unwrap(),
            [true, false, false, false]
        );
        // The cosine is 0.99875.
        assert_eq!(near(&test, &own, &mean, 0.999).unwrap(), [false; 4]);
        let none = own.select(&[]);
        assert_eq!(near(&none, &own, &mean, 0.95).unwrap(), [false; 4]);
    }

    #[test]
    fn pictures_must_have_like_hashes_too() {
        let shape = Shape {
            channels: 1,
            height: 1,
            width: 3,
        };
        let picture = |rows: &[[f32; 3]]| Pairs {
            shape: Some(shape),
            ..pairs(rows, &vec!["t"; rows.len()])
        };
        let own = picture(&[[1.0, 0.9, 0.0], [-1.0, -0.9, 0.0]]);
        let mean = mean(&own).unwrap();
        // Almost the same direction; which of the two first pixels is brighter turns round.
        let same = picture(&[[1.0, 0.85, 0.0]]);
        let other = picture(&[[0.9, 1.0, 0.0]]);
        assert_eq!(near(&same, &own, &mean, 0.95).unwrap(), [true, false]);
        assert_eq!(near(&other, &own, &mean, 0.95).unwrap(), [false, false]);
        assert_eq!(
            near(
                &Pairs {
                    shape: None,
                    ..other
                },
                &own,
                &mean,
                0.95
            )
            .unwrap(),
            [true, false]
        );
    }
}
