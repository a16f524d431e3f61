//! Pairs of two sides, and which of their contents are equal.

use papertrial_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::hash::Hash;

/// One side of all pairs.
#[derive(Debug, Clone, PartialEq)]
pub enum Side {
    /// Pixels or embeddings.
    Vectors {
        /// \[rows, width\], row after row.
        values: Vec<f32>,
        /// Numbers of a row.
        width: usize,
    },
    /// Texts, none of them blank.
    Texts(Vec<String>),
}

impl Side {
    /// The rows `rows`, which must be rows of it.
    fn select(&self, rows: &[usize]) -> Side {
        match self {
            Side::Vectors { values, width } => Side::Vectors {
                values: rows
                    .iter()
                    .flat_map(|r| &values[r * width..(r + 1) * width])
                    .copied()
                    .collect(),
                width: *width,
            },
            Side::Texts(texts) => Side::Texts(rows.iter().map(|r| texts[*r].clone()).collect()),
        }
    }

    fn append(&mut self, other: &Side) {
        match (self, other) {
            (Side::Vectors { values, .. }, Side::Vectors { values: more, .. }) => {
                values.extend_from_slice(more);
            }
            (Side::Texts(texts), Side::Texts(more)) => texts.extend(more.iter().cloned()),
            _ => (),
        }
    }

    /// A number for each row, from 0 in the order of first appearance; rows with equal content have equal numbers.
    pub fn identities(&self) -> Vec<u32> {
        match self {
            Side::Vectors { values, width } => {
                let bits: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
                numbered(bits.chunks_exact((*width).max(1)))
            }
            Side::Texts(texts) => numbered(texts.iter()),
        }
    }

    /// What it holds, in words.
    fn shown(&self) -> String {
        match self {
            Side::Vectors { width, .. } => format!("{width} numbers a row"),
            Side::Texts(_) => "text".into(),
        }
    }
}

fn numbered<K: Hash + Eq>(keys: impl Iterator<Item = K>) -> Vec<u32> {
    let mut seen: HashMap<K, u32> = HashMap::new();
    keys.map(|key| {
        let next = seen.len() as u32;
        *seen.entry(key).or_insert(next)
    })
    .collect()
}

/// Channels, height and width of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// 1 for grey, 3 for colours; the channels come one after the other.
    pub channels: usize,
    /// Rows of pixels.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
}

impl Shape {
    /// Numbers of an image.
    pub fn size(self) -> usize {
        self.channels * self.height * self.width
    }
}

/// Pairs of a left side, mostly an image or its embedding, and a right side, mostly a text or its embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Pairs {
    /// Identifier of each pair, all different.
    pub uids: Vec<String>,
    /// The image, its embedding, or a text.
    pub left: Side,
    /// The text or its embedding.
    pub right: Side,
    /// Shape of the left side where it is an image.
    pub shape: Option<Shape>,
    /// Class of each image, where known; an empty one is not known.
    pub labels: Option<Vec<String>>,
    /// Whether each pair is known to be right, where anything is known.
    pub matches: Option<Vec<bool>>,
}

impl Pairs {
    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.uids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }

    /// The pairs `rows`, in that order; each must be below [`Pairs::len`].
    pub fn select(&self, rows: &[usize]) -> Pairs {
        Pairs {
            uids: rows.iter().map(|r| self.uids[*r].clone()).collect(),
            left: self.left.select(rows),
            right: self.right.select(rows),
            shape: self.shape,
            labels: (self.labels.as_ref()).map(|l| rows.iter().map(|r| l[*r].clone()).collect()),
            matches: (self.matches.as_ref()).map(|m| rows.iter().map(|r| m[*r]).collect()),
        }
    }

    /// These pairs and `other`'s after them. What only one of them knows of labels and matches is dropped.
    ///
    /// # Errors
    /// As [`Pairs::fits`].
    pub fn with(mut self, other: &Pairs) -> Result<Pairs> {
        other.fits(&self, "the other pairs")?;
        self.uids.extend(other.uids.iter().cloned());
        self.left.append(&other.left);
        self.right.append(&other.right);
        self.labels = match (self.labels, &other.labels) {
            (Some(mut all), Some(more)) => {
                all.extend(more.iter().cloned());
                Some(all)
            }
            _ => None,
        };
        self.matches = match (self.matches, &other.matches) {
            (Some(mut all), Some(more)) => {
                all.extend(more);
                Some(all)
            }
            _ => None,
        };
        Ok(self)
    }

    /// Checks that these pairs have the same kind of sides as `pool`; `name` is what they are, for the message.
    ///
    /// # Errors
    /// [`Error::BadInput`] with what both hold.
    pub fn fits(&self, pool: &Pairs, name: &str) -> Result<()> {
        for (what, mine, theirs) in [
            ("left", &self.left, &pool.left),
            ("right", &self.right, &pool.right),
        ] {
            if mine.shown() != theirs.shown() {
                return Err(Error::BadInput(format!(
                    "the {what} side of {name} holds {}, that of the pool {}; both must be of one kind",
                    mine.shown(),
                    theirs.shown()
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(texts: &[&str]) -> Pairs {
        Pairs {
            uids: (0..texts.len()).map(|i| format!("u{i}")).collect(),
            left: Side::Vectors {
                values: (0..texts.len()).flat_map(|i| [i as f32, 1.0]).collect(),
                width: 2,
            },
            right: Side::Texts(texts.iter().map(|t| (*t).to_string()).collect()),
            shape: None,
            labels: None,
            matches: Some(vec![true; texts.len()]),
        }
    }

    #[test]
    fn equal_contents_have_equal_numbers() {
        assert_eq!(
            pairs(&["a", "b", "a", "c"]).right.identities(),
            [0, 1, 0, 2]
        );
        let twice = Side::Vectors {
            values: vec![1.0, 2.0, 1.0, 2.5, 1.0, 2.0],
            width: 2,
        };
        assert_eq!(twice.identities(), [0, 1, 0]);
    }

    #[test]
    fn rows_are_taken_and_put_together() {
        let some = pairs(&["a", "b", "c"]).select(&[2, 0]);
        assert_eq!(some.uids, ["u2", "u0"]);
        assert_eq!(some.right, Side::Texts(vec!["c".into(), "a".into()]));
        let Side::Vectors { values, .. } = &some.left else {
            panic!("vectors were put in");
        };
        assert_eq!(values, &[2.0, 1.0, 0.0, 1.0]);
        let mut unlabelled = pairs(&["d"]);
        unlabelled.matches = None;
        let all = some.with(&unlabelled).unwrap();
        assert_eq!((all.len(), all.matches.is_none()), (3, true));
    }

    #[test]
    fn other_kinds_of_sides_are_refused() {
        let mut other = pairs(&["a"]);
        other.left = Side::Vectors {
            values: vec![0.0; 3],
            width: 3,
        };
        let text = other
            .fits(&pairs(&["a"]), "the clean pairs")
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("the clean pairs")
                && text.contains("3 numbers")
                && text.contains("2 numbers"),
            "{text}"
        );
        other.left = Side::Texts(vec!["x".into()]);
        assert!(pairs(&["a"]).with(&other).is_err());
    }
}
