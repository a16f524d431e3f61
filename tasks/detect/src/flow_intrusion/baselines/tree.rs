//! One decision tree over binned columns, for forests.
//!
//! Columns are binned once: a numeric column into at most 255 bins whose borders are quantiles of the training rows, a
//! categorical one by its codes. A node with b benign flows and a attacks has impurity 2 b a / (b + a) (Gini's, times
//! the rows). A split of a numeric column sends the bins up to one to the left; one of a categorical
//! column sends one code there. Growing a node of n rows over m drawn columns costs n m.

use super::super::prepare::Flows;
use rand::seq::index::sample;
use rand::{Rng, RngExt};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Bins of a numeric column at most.
const BINS: usize = 255;

/// The training rows, binned.
pub(super) struct Binned {
    /// Bin of each row, column by column.
    bins: Vec<Vec<u32>>,
    /// Upper ends of the bins of a numeric column, the last one left out; empty for a categorical one.
    borders: Vec<Vec<f32>>,
    /// Bins of each column.
    counts: Vec<usize>,
    numeric: usize,
    pub(super) attack: Vec<bool>,
}

impl Binned {
    /// Bins the rows `train`.
    pub(super) fn new(flows: &Flows, labels: &[bool], train: &[usize]) -> Binned {
        let numeric = flows.layout.numeric.len();
        let (mut bins, borders): (Vec<Vec<u32>>, Vec<Vec<f32>>) = (0..numeric)
            .into_par_iter()
            .map(|column| {
                let values: Vec<f32> = train.iter().map(|r| flows.numbers_of(*r)[column]).collect();
                let borders = borders(&values);
                let bin = |v: &f32| borders.partition_point(|b| b < v) as u32;
                (values.iter().map(bin).collect(), borders)
            })
            .unzip();
        let mut counts: Vec<usize> = borders.iter().map(|b| b.len() + 1).collect();
        for (column, codes) in flows.layout.codes.iter().enumerate() {
            bins.push(train.iter().map(|r| flows.codes_of(*r)[column]).collect());
            counts.push(*codes);
        }
        Binned {
            bins,
            borders,
            counts,
            numeric,
            attack: train.iter().map(|r| labels[*r]).collect(),
        }
    }

    pub(super) fn columns(&self) -> usize {
        self.bins.len()
    }
}

/// Values between which bins change: all that lie between neighbours if there are few, else quantiles.
fn borders(values: &[f32]) -> Vec<f32> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let mut different = sorted.clone();
    different.dedup();
    let mut borders: Vec<f32> = if different.len() <= BINS {
        different
    } else {
        (1..BINS)
            .map(|k| sorted[k * (sorted.len() - 1) / BINS])
            .collect()
    };
    borders.dedup();
    // The largest value of the rows needs no border of its own.
    if borders.last() == sorted.last() {
        borders.pop();
    }
    borders
}

/// A node: where to go, or the probability of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) enum Node {
    /// To `left` if the number in the column is at most `border`, else to the node after it.
    Number { column: u32, border: f32, left: u32 },
    /// To `left` if the code in the column (counted from the first categorical one) is `code`, else to the node after.
    Code { column: u32, code: u32, left: u32 },
    /// The end.
    Leaf(f32),
}

/// A tree; its root is the first node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Tree(Vec<Node>);

/// How trees are grown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Growth {
    /// Columns drawn for each split.
    pub(super) columns: usize,
    /// Rows that a leaf has at least.
    pub(super) leaf: usize,
    /// Most splits in a row.
    pub(super) depth: usize,
    /// Whether the place of a split is drawn instead of searched for.
    pub(super) drawn: bool,
}

/// A split that was found: column, bin or code, and the impurity after it.
#[derive(Clone, Copy)]
struct Split {
    column: usize,
    at: u32,
    impurity: f64,
}

fn impurity(cell: Cell) -> f64 {
    let [benign, attack] = cell.map(|n| n as f64);
    let both = benign + attack;
    if both > 0.0 {
        2.0 * benign * attack / both
    } else {
        0.0
    }
}

/// Benign flows and attacks in a bin.
type Cell = [usize; 2];

fn rows_of(cell: &Cell) -> usize {
    cell[0] + cell[1]
}

impl Tree {
    /// Grows a tree on `rows`; a row may occur several times.
    pub(super) fn grow(
        data: &Binned,
        mut rows: Vec<u32>,
        how: Growth,
        draws: &mut impl Rng,
    ) -> Tree {
        let mut nodes = vec![Node::Leaf(0.0)];
        let mut waiting = vec![(0usize, 0usize, rows.len(), 0usize)];
        let mut cells: Vec<Cell> = Vec::new();
        while let Some((node, from, to, depth)) = waiting.pop() {
            let own = &mut rows[from..to];
            let mut all = [0; 2];
            for row in own.iter() {
                all[usize::from(data.attack[*row as usize])] += 1;
            }
            let pure = all[0] == 0 || all[1] == 0;
            let may = !pure && depth < how.depth && own.len() >= 2 * how.leaf;
            let split = if may {
                best(data, own, all, how, draws, &mut cells)
            } else {
                None
            };
            let Some(split) = split else {
                nodes[node] = Node::Leaf(all[1] as f32 / rows_of(&all).max(1) as f32);
                continue;
            };
            let bins = &data.bins[split.column];
            let number = split.column < data.numeric;
            let goes_left = |row: u32| {
                let bin = bins[row as usize];
                if number {
                    bin <= split.at
                } else {
                    bin == split.at
                }
            };
            let mut middle = 0;
            for i in 0..own.len() {
                if goes_left(own[i]) {
                    own.swap(i, middle);
                    middle += 1;
                }
            }
            let left = nodes.len();
            nodes.extend([Node::Leaf(0.0); 2]);
            nodes[node] = if number {
                Node::Number {
                    column: split.column as u32,
                    border: data.borders[split.column][split.at as usize],
                    left: left as u32,
                }
            } else {
                Node::Code {
                    column: (split.column - data.numeric) as u32,
                    code: split.at,
                    left: left as u32,
                }
            };
            waiting.push((left, from, from + middle, depth + 1));
            waiting.push((left + 1, from + middle, to, depth + 1));
        }
        Tree(nodes)
    }

    /// The probability at the leaf that a flow comes to.
    pub(super) fn score(&self, numbers: &[f32], codes: &[u32]) -> f32 {
        let mut at = 0;
        loop {
            at = match self.0[at] {
                Node::Leaf(share) => return share,
                Node::Number {
                    column,
                    border,
                    left,
                } => left as usize + usize::from(numbers[column as usize] > border),
                Node::Code { column, code, left } => {
                    left as usize + usize::from(codes[column as usize] != code)
                }
            };
        }
    }

    /// Borders, codes and leaves.
    pub(super) fn numbers(&self) -> usize {
        self.0.len()
    }

    /// Whether each way through the tree ends, and looks at nothing but columns that exist.
    pub(super) fn is_whole(&self, numeric: usize, categorical: usize) -> bool {
        let nodes = self.0.iter().enumerate();
        !self.0.is_empty()
            && nodes.into_iter().all(|(i, node)| {
                let fits = |left: u32| left as usize > i && (left as usize) + 1 < self.0.len();
                match *node {
                    Node::Leaf(_) => true,
                    Node::Number { column, left, .. } => fits(left) && (column as usize) < numeric,
                    Node::Code { column, left, .. } => {
                        fits(left) && (column as usize) < categorical
                    }
                }
            })
    }
}

/// The best split of `rows` over columns drawn until `how.columns` of them vary or none is left.
fn best(
    data: &Binned,
    rows: &[u32],
    all: Cell,
    how: Growth,
    draws: &mut impl Rng,
    cells: &mut Vec<Cell>,
) -> Option<Split> {
    let mut best: Option<Split> = None;
    let mut looked_at = 0;
    for column in sample(draws, data.columns(), data.columns()) {
        if looked_at == how.columns {
            break;
        }
        cells.clear();
        cells.resize(data.counts[column], [0; 2]);
        for row in rows {
            let class = usize::from(data.attack[*row as usize]);
            cells[data.bins[column][*row as usize] as usize][class] += 1;
        }
        let used = |c: &Cell| rows_of(c) > 0;
        let (Some(low), Some(high)) = (cells.iter().position(used), cells.iter().rposition(used))
        else {
            continue;
        };
        if low == high {
            continue;
        }
        looked_at += 1;
        let mut consider = |at: usize, left: Cell| {
            if rows_of(&left) < how.leaf || rows.len() - rows_of(&left) < how.leaf {
                return;
            }
            let right = [all[0] - left[0], all[1] - left[1]];
            let impurity = impurity(left) + impurity(right);
            if best.is_none_or(|b| impurity < b.impurity) {
                best = Some(Split {
                    column,
                    at: at as u32,
                    impurity,
                });
            }
        };
        if column >= data.numeric {
            if how.drawn {
                let codes: Vec<usize> = (low..=high).filter(|c| used(&cells[*c])).collect();
                let code = codes[draws.random_range(0..codes.len())];
                consider(code, cells[code]);
            } else {
                (low..=high)
                    .filter(|c| used(&cells[*c]))
                    .for_each(|c| consider(c, cells[c]));
            }
            continue;
        }
        // A drawn place is even between the borders of the node's lowest and highest bin.
        let place = how.drawn.then(|| {
            let borders = &data.borders[column];
            let (from, to) = (borders[low], borders[high - 1]);
            let value = from + (to - from) * draws.random::<f32>();
            borders
                .partition_point(|b| *b <= value)
                .saturating_sub(1)
                .clamp(low, high - 1)
        });
        let mut left = [0; 2];
        for (bin, cell) in cells.iter().enumerate().take(high).skip(low) {
            left = [left[0] + cell[0], left[1] + cell[1]];
            if used(cell) && place.is_none() || place == Some(bin) {
                consider(bin, left);
            }
        }
    }
    // One that tells nothing is taken too: two splits may tell what one does not.
    best
}

#[cfg(test)]
mod tests {
    use super::super::tests::flows;
    use super::*;
    use papertrial_numerics::sampling::rng;
    use proptest::prelude::*;

    const ALL: Growth = Growth {
        columns: 3,
        leaf: 1,
        depth: 64,
        drawn: false,
    };

    #[test]
    fn the_best_first_split_by_hand() {
        let some = flows(200, false, 4);
        let train: Vec<usize> = (0..200).collect();
        let data = Binned::new(&some, some.labels().unwrap(), &train);
        let tree = Tree::grow(&data, (0..200).collect(), ALL, &mut rng(0, "tree"));
        // The rule is the code 2, so one split is enough.
        assert_eq!(
            tree.0,
            [
                Node::Code {
                    column: 0,
                    code: 2,
                    left: 1
                },
                Node::Leaf(1.0),
                Node::Leaf(0.0)
            ]
        );
        assert!(tree.is_whole(2, 1) && !tree.is_whole(2, 0));
    }

    #[test]
    fn bins_are_values_or_quantiles() {
        assert_eq!(borders(&[0.5, 0.1, 0.5, 0.9]), [0.1, 0.5]);
        assert!(borders(&[0.3; 5]).is_empty());
        let many: Vec<f32> = (0..10_000).map(|i| i as f32).collect();
        let found = borders(&many);
        assert!(
            found.len() == BINS - 1 && (found[0] - 39.0).abs() < 2.0,
            "{found:?}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn grown_to_the_end_it_knows_its_rows(n in 2usize..120, seed in 0u64..999, drawn: bool) {
            let mut some = flows(n, false, seed);
            // Labels without any rule: only rows with the same numbers could disagree, and none have.
            some.attack = Some((0..n).map(|i| (i * 7 + seed as usize).is_multiple_of(3)).collect());
            let labels = some.labels().unwrap();
            let train: Vec<usize> = (0..n).collect();
            let data = Binned::new(&some, labels, &train);
            let how = Growth { drawn, columns: 1 + seed as usize % 3, ..ALL };
            let tree = Tree::grow(&data, (0..n as u32).collect(), how, &mut rng(seed, "tree"));
            prop_assert!(tree.is_whole(2, 1));
            for (row, label) in labels.iter().enumerate() {
                let score = tree.score(some.numbers_of(row), some.codes_of(row));
                prop_assert_eq!(score, f32::from(u8::from(*label)));
            }
            let how = Growth { leaf: 5, depth: 2, ..how };
            let small = Tree::grow(&data, (0..n as u32).collect(), how, &mut rng(seed, "tree"));
            prop_assert!(small.numbers() <= 7);
        }
    }
}
