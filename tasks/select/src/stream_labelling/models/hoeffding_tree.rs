//! Hoeffding tree with naive Bayes leaves (Domingos and Hulten 2000; Gama and others 2003).
//!
//! 1. A row goes down to a leaf, which keeps for each class mean and spread of each column.
//! 2. Every 200 labels a leaf that holds more than one class looks for a split: for each column ten thresholds between
//!    its least and greatest value, with the classes on each side taken from their normal curves; the gain is that of
//!    entropy in bits.
//! 3. It splits on the best column if its gain exceeds the second best (or that of no split, 0) by
//!    e = sqrt(R^2 ln(1 / 1e-7) / (2 n)), R = log2 K, or if e is below 0.05.
//! 4. A leaf predicts by naive Bayes. A new leaf starts empty, so until it has labels of its own it says what its
//!    parent's class shares on that side were.
//!
//! O(depth + K d) for a prediction, O(depth + d) for a label, O(10 K d) for a look.

use super::naive_bayes::{Sums, probabilities};
use serde::{Deserialize, Serialize};

const GRACE: f64 = 200.0;
const DELTA: f64 = 1e-7;
const TIE: f64 = 0.05;
const THRESHOLDS: usize = 10;

/// The nodes; the first is the root.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HoeffdingTree {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Node {
    Split {
        column: usize,
        threshold: f64,
        /// Where rows with at most the threshold go; the others go to the next node.
        below: usize,
    },
    Leaf(Leaf),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Leaf {
    classes: Vec<Sums>,
    /// Class shares of the parent on this side; weigh as one row.
    before: Vec<f64>,
    /// Least and greatest value of each column; empty before the first label.
    range: Vec<(f64, f64)>,
    /// Weight at the last look for a split.
    looked: f64,
}

impl Leaf {
    fn new(classes: usize, width: usize, before: Vec<f64>) -> Leaf {
        Leaf {
            classes: vec![Sums::new(width); classes],
            before,
            range: Vec::new(),
            looked: 0.0,
        }
    }

    fn weight(&self) -> f64 {
        self.classes.iter().map(|c| c.n).sum()
    }

    fn add(&mut self, x: &[f64], y: usize, weight: f64) {
        if let Some(class) = self.classes.get_mut(y) {
            class.add(x, weight);
            if self.range.is_empty() {
                self.range = x.iter().map(|v| (*v, *v)).collect();
            }
            for ((least, most), v) in self.range.iter_mut().zip(x) {
                *least = least.min(*v);
                *most = most.max(*v);
            }
        }
    }

    /// Step 4.
    fn probabilities(&self, x: &[f64]) -> Vec<f64> {
        let n = self.weight();
        if n == 0.0 {
            return self.before.clone();
        }
        let own = probabilities(&self.classes, x);
        let pairs = own.iter().zip(&self.before);
        pairs.map(|(p, b)| (n * p + b) / (n + 1.0)).collect()
    }

    /// Steps 2 and 3: column, threshold, class weights below and above.
    fn split(&self) -> Option<(usize, f64, Vec<f64>, Vec<f64>)> {
        let n = self.weight();
        let counts: Vec<f64> = self.classes.iter().map(|c| c.n).collect();
        if counts.iter().filter(|c| **c > 0.0).count() < 2 {
            return None;
        }
        let whole = entropy(&counts);
        let (mut best, mut second) = (None::<(f64, usize, f64, Vec<f64>, Vec<f64>)>, 0.0f64);
        for (column, (least, most)) in self.range.iter().enumerate() {
            if least >= most {
                continue;
            }
            let mut own = None::<(f64, usize, f64, Vec<f64>, Vec<f64>)>;
            for i in 1..=THRESHOLDS {
                let threshold = least + (most - least) * i as f64 / (THRESHOLDS + 1) as f64;
                let below: Vec<f64> = self
                    .classes
                    .iter()
                    .map(|c| c.n * share_below(c, column, threshold))
                    .collect();
                let above: Vec<f64> = counts.iter().zip(&below).map(|(n, b)| n - b).collect();
                let (b, a): (f64, f64) = (below.iter().sum(), above.iter().sum());
                if b < 0.01 * n || a < 0.01 * n {
                    continue;
                }
                let gain = whole - (b * entropy(&below) + a * entropy(&above)) / n;
                if own.as_ref().is_none_or(|o| gain > o.0) {
                    own = Some((gain, column, threshold, below, above));
                }
            }
            if let Some(own) = own {
                match &best {
                    Some(b) if own.0 <= b.0 => second = second.max(own.0),
                    _ => {
                        second = second.max(best.as_ref().map_or(0.0, |b| b.0));
                        best = Some(own);
                    }
                }
            }
        }
        let (gain, column, threshold, below, above) = best?;
        let range = (counts.len() as f64).log2();
        let bound = (range * range * (1.0 / DELTA).ln() / (2.0 * n)).sqrt();
        let clear = gain - second > bound || bound < TIE;
        (gain > 0.0 && clear).then_some((column, threshold, below, above))
    }
}

impl HoeffdingTree {
    /// One empty leaf.
    pub fn new(classes: usize, width: usize) -> HoeffdingTree {
        let before = vec![1.0 / classes.max(1) as f64; classes];
        HoeffdingTree {
            nodes: vec![Node::Leaf(Leaf::new(classes, width, before))],
        }
    }

    /// Place of the leaf of `x`.
    fn place(&self, x: &[f64]) -> usize {
        let mut at = 0;
        while let Node::Split {
            column,
            threshold,
            below,
        } = &self.nodes[at]
        {
            at = below + usize::from(x[*column] > *threshold);
        }
        at
    }

    /// Probability of each class.
    pub fn probabilities(&self, x: &[f64]) -> Vec<f64> {
        match &self.nodes[self.place(x)] {
            Node::Leaf(leaf) => leaf.probabilities(x),
            Node::Split { .. } => Vec::new(),
        }
    }

    /// Adds a row to its leaf, and splits the leaf where it pays.
    pub fn learn(&mut self, x: &[f64], y: usize, weight: f64) {
        if weight <= 0.0 {
            return;
        }
        let at = self.place(x);
        let next = self.nodes.len();
        let Node::Leaf(leaf) = &mut self.nodes[at] else {
            return;
        };
        leaf.add(x, y, weight);
        let n = leaf.weight();
        if n - leaf.looked < GRACE {
            return;
        }
        leaf.looked = n;
        if let Some((column, threshold, below, above)) = leaf.split() {
            let (classes, width) = (leaf.classes.len(), x.len());
            self.nodes[at] = Node::Split {
                column,
                threshold,
                below: next,
            };
            for side in [below, above] {
                let sum: f64 = side.iter().sum();
                let shares = side.iter().map(|w| w / sum).collect();
                self.nodes
                    .push(Node::Leaf(Leaf::new(classes, width, shares)));
            }
        }
    }

    /// Halves the weights in all leaves.
    pub fn halve(&mut self) {
        for node in &mut self.nodes {
            if let Node::Leaf(leaf) = node {
                leaf.classes.iter_mut().for_each(|c| c.scale(0.5));
                leaf.looked *= 0.5;
            }
        }
    }
}

/// Share of a class that its normal curve puts at or below `threshold`.
fn share_below(class: &Sums, column: usize, threshold: f64) -> f64 {
    let deviation = if class.n > 1.0 {
        (class.squares[column] / (class.n - 1.0)).max(0.0).sqrt()
    } else {
        0.0
    };
    let difference = threshold - class.mean[column];
    if deviation > 0.0 {
        normal_share(difference / deviation)
    } else {
        f64::from(u8::from(difference >= 0.0))
    }
}

/// Share of the standard normal curve below z. The logistic curve of Bowling and others (2009), exact to 0.0002, which is
/// far below what the choice of a split can tell.
fn normal_share(z: f64) -> f64 {
    1.0 / (1.0 + (-0.07056 * z.powi(3) - 1.5976 * z).exp())
}

/// In bits, of weights that need not sum to 1.
fn entropy(weights: &[f64]) -> f64 {
    let sum: f64 = weights.iter().sum();
    weights
        .iter()
        .filter(|w| **w > 0.0)
        .map(|w| -(w / sum) * (w / sum).log2())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_labelling::draws::Draws;

    #[test]
    fn entropy_and_normal_shares_are_the_known_ones() {
        assert!((entropy(&[2.0, 2.0]) - 1.0).abs() < 1e-12);
        assert!((entropy(&[3.0, 1.0]) - 0.811_278_124_459_132_8).abs() < 1e-12);
        assert_eq!(entropy(&[5.0, 0.0]), 0.0);
        for (z, share) in [
            (0.0, 0.5),
            (1.0, 0.841_345),
            (-2.0, 0.022_750),
            (3.0, 0.998_650),
        ] {
            assert!((normal_share(z) - share).abs() < 2e-4, "{z}");
        }
    }

    #[test]
    fn it_splits_on_the_column_that_tells_and_not_on_noise() {
        let mut tree = HoeffdingTree::new(2, 2);
        let mut noise = HoeffdingTree::new(2, 2);
        let mut draws = Draws::new(5, "test");
        for i in 0..1000 {
            let y = i % 2;
            let tells = if y == 0 { -3.0 } else { 3.0 };
            let x = [draws.normal(), tells + draws.normal()];
            tree.learn(&x, y, 1.0);
            noise.learn(&[draws.normal(), draws.normal()], y, 1.0);
        }
        assert!(matches!(
            tree.nodes[0],
            Node::Split { column: 1, threshold, .. } if threshold.abs() < 1.5
        ));
        // Of two columns without any gain the tie rule would split only after 3,224 labels.
        assert_eq!(noise.nodes.len(), 1);
    }

    #[test]
    fn grace_is_200_labels_and_pure_leaves_stay() {
        let mut tree = HoeffdingTree::new(2, 1);
        for i in 0..199 {
            tree.learn(&[f64::from(i % 2) * 10.0], i as usize % 2, 1.0);
        }
        assert_eq!(tree.nodes.len(), 1);
        tree.learn(&[10.0], 1, 1.0);
        assert_eq!(tree.nodes.len(), 3);
        let mut pure = HoeffdingTree::new(2, 1);
        (0..1000).for_each(|i| pure.learn(&[f64::from(i)], 1, 1.0));
        assert_eq!(pure.nodes.len(), 1);
    }
}
