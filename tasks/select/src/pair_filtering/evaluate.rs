//! Zero-shot accuracy: which class' prompts lie nearest to an image.

use super::pairs::Pairs;
use ndarray::{Array2, Axis};
use papertrial_core::{Error, Result};
use papertrial_numerics::linalg::matmul;
use std::collections::{BTreeMap, HashSet};

/// The classes of test pairs and their prompts.
///
/// With labels, the prompts of a class are the different texts of its test pairs; without, each different text is a
/// class of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompts {
    /// Test pairs that stand for the prompts: one for each different text of a class.
    pub rows: Vec<usize>,
    /// Class of each of `rows`.
    pub of: Vec<usize>,
    /// Class of each test pair.
    pub classes: Vec<usize>,
    /// Number of classes.
    pub count: usize,
}

impl Prompts {
    /// Of these test pairs.
    ///
    /// # Errors
    /// No pairs, a label that is missing, or a single class.
    pub fn of(test: &Pairs) -> Result<Prompts> {
        let texts = test.right.identities();
        let classes: Vec<usize> = match &test.labels {
            None => texts.iter().map(|t| *t as usize).collect(),
            Some(labels) => {
                if let Some(row) = labels.iter().position(String::is_empty) {
                    return Err(Error::BadInput(format!(
                        "test pair {} has no label; give each test pair its class, or name no --label",
                        test.uids[row]
                    )));
                }
                let mut numbers: BTreeMap<&str, usize> =
                    labels.iter().map(|l| (l.as_str(), 0)).collect();
                for (number, class) in numbers.values_mut().enumerate() {
                    *class = number;
                }
                labels.iter().map(|l| numbers[l.as_str()]).collect()
            }
        };
        let count = classes.iter().max().map_or(0, |c| c + 1);
        if count < 2 {
            return Err(Error::BadInput(
                "the test pairs have fewer than two classes (different labels, or different texts where there are no labels), so nothing can be told apart".into(),
            ));
        }
        let mut seen = HashSet::new();
        let rows: Vec<usize> = (0..classes.len())
            .filter(|r| seen.insert((classes[*r], texts[*r])))
            .collect();
        Ok(Prompts {
            of: rows.iter().map(|r| classes[*r]).collect(),
            rows,
            classes,
            count,
        })
    }
}

/// Share of `images`, unit rows \[test pairs, d\], that are nearest to their own class.
///
/// A class is the mean of the unit vectors of its prompts, `texts` \[prompts, d\], at length 1. Of equally near classes
/// the first is taken.
pub(super) fn zero_shot(images: &Array2<f32>, texts: &Array2<f32>, prompts: &Prompts) -> f64 {
    let mut classes = Array2::<f32>::zeros((prompts.count, texts.ncols()));
    for (text, class) in texts.outer_iter().zip(&prompts.of) {
        let mut sum = classes.row_mut(*class);
        sum += &text;
    }
    for mut class in classes.axis_iter_mut(Axis(0)) {
        let length = class.dot(&class).sqrt();
        class /= length.max(f32::MIN_POSITIVE);
    }
    let near = matmul(images.view(), classes.t());
    let right = near
        .outer_iter()
        .zip(&prompts.classes)
        .filter(|(row, class)| {
            let mut best = 0;
            for (c, value) in row.iter().enumerate() {
                if *value > row[best] {
                    best = c;
                }
            }
            best == **class
        })
        .count();
    right as f64 / prompts.classes.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::super::pairs::Side;
    use super::*;
    use ndarray::array;

    fn test(labels: Option<&[&str]>, texts: &[&str]) -> Pairs {
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_string()).collect::<Vec<_>>();
        Pairs {
            uids: (0..texts.len()).map(|i| format!("u{i}")).collect(),
            left: Side::Vectors {
                values: vec![0.0; texts.len()],
                width: 1,
            },
            right: Side::Texts(owned(texts)),
            shape: None,
            labels: labels.map(owned),
            matches: None,
        }
    }

    #[test]
    fn prompts_are_the_different_texts_of_a_class() {
        let labels = ["cat", "dog", "cat", "cat"];
        let prompts =
            Prompts::of(&test(Some(&labels), &["a cat", "a pet", "a pet", "a cat"])).unwrap();
        assert_eq!(prompts.rows, [0, 1, 2]);
        assert_eq!(prompts.of, [0, 1, 0]);
        assert_eq!(prompts.classes, [0, 1, 0, 0]);
        let without = Prompts::of(&test(None, &["x", "y", "x"])).unwrap();
        assert_eq!(
            (without.rows, without.classes, without.count),
            (vec![0, 1], vec![0, 1, 0], 2)
        );
    }

    #[test]
    fn accuracy_by_hand() {
        let prompts = Prompts {
            rows: vec![0, 1, 2],
            of: vec![0, 0, 1],
            classes: vec![0, 1, 1, 0],
            count: 2,
        };
        // Class 0 is the direction (1, 1), class 1 is (1, 0).
        let texts = array![[1.0f32, 0.0], [0.0, 1.0], [1.0, 0.0]];
        let images = array![[0.0f32, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]];
        // Right, right, wrong, and a tie that goes to class 0, which is right.
        assert_eq!(zero_shot(&images, &texts, &prompts), 0.75);
    }

    #[test]
    fn missing_labels_and_single_classes_are_told() {
        let text = Prompts::of(&test(Some(&["a", ""]), &["x", "y"]))
            .unwrap_err()
            .to_string();
        assert!(text.contains("u1 has no label"), "{text}");
        assert!(Prompts::of(&test(Some(&["a", "a"]), &["x", "y"])).is_err());
        assert!(Prompts::of(&test(None, &[])).is_err());
    }
}
