//! What the classifier learns from: labelled rows, and rows to which other answers are spread.
//!
//! - A labelled row counts 1 for its label.
//! - Du and Ling, *Active learning with generalized queries*, 2010: the shares stated for a region become the weights of
//!   all rows in it that have no label; several answers are averaged.
//! - Fu and others, *Active learning without knowing individual instance labels: a pairwise label homogeneity query
//!   approach*, 2014: answers "same" and "different" are the edges of a signed graph, each weighing the difference of its
//!   two kinds of answer. Labels reach the rows that are connected with labelled ones:
//!   - two classes: along a heaviest spanning tree every row gets a side relative to its root, edges that contradict the
//!     tree are dropped, and a minimal cut parts the rows of the two labels;
//!   - more classes: rows connected by "same" take the vote of the labelled ones among them, less the labels of rows from
//!     which they are said to differ.

use super::log::{Answer, Query, Reply};
use super::pool::Pool;
use ndarray::Array2;
use std::collections::{BTreeMap, VecDeque};

/// Rows to learn from, ascending \[r\], and their weights for each class \[r, K\].
pub fn lessons(pool: &Pool, log: &[Answer], labels: &[Option<usize>]) -> (Vec<usize>, Array2<f64>) {
    let k = pool.classes.len();
    let mut weights: BTreeMap<usize, (Vec<f64>, f64)> = BTreeMap::new();
    for (row, label) in labels.iter().enumerate() {
        if let Some(label) = label {
            let mut own = vec![0.0; k];
            own[*label] = 1.0;
            weights.insert(row, (own, 1.0));
        }
    }
    for answer in log {
        if let (Query::Region(bounds), Reply::Shares(shares)) = (&answer.query, &answer.reply) {
            for row in Query::matching(bounds, pool) {
                if labels[row].is_none() {
                    let (sum, count) = weights.entry(row).or_insert_with(|| (vec![0.0; k], 0.0));
                    for (sum, share) in sum.iter_mut().zip(shares) {
                        *sum += share;
                    }
                    *count += 1.0;
                }
            }
        }
    }
    for (row, shares) in from_pairs(&edges(log), labels, k) {
        weights.entry(row).or_insert((shares, 1.0));
    }
    let mut targets = Array2::zeros((weights.len(), k));
    for ((sum, count), mut target) in weights.values().zip(targets.outer_iter_mut()) {
        for (t, s) in target.iter_mut().zip(sum) {
            *t = s / count;
        }
    }
    (weights.into_keys().collect(), targets)
}

/// An edge of the signed graph: two rows, and "same" answers less "different" ones; none where they balance.
type Edge = (usize, usize, f64);

fn edges(log: &[Answer]) -> Vec<Edge> {
    let mut sums: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    for answer in log {
        if let (Query::Pair(a, b), Reply::Same(same)) = (&answer.query, &answer.reply) {
            *sums.entry((*a.min(b), *a.max(b))).or_default() += if *same { 1.0 } else { -1.0 };
        }
    }
    sums.into_iter()
        .filter(|(_, w)| *w != 0.0)
        .map(|((a, b), w)| (a, b, w))
        .collect()
}

/// Rows that are connected with a labelled one by answers about pairs; those with a label included.
pub fn connected(log: &[Answer], labels: &[Option<usize>]) -> Vec<usize> {
    let edges = edges(log);
    let mut next: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for &(a, b, _) in &edges {
        next.entry(a).or_default().push(b);
        next.entry(b).or_default().push(a);
    }
    let mut reached: Vec<bool> = labels.iter().map(Option::is_some).collect();
    let mut queue: VecDeque<usize> = (0..labels.len()).filter(|&r| reached[r]).collect();
    while let Some(row) = queue.pop_front() {
        for &other in next.get(&row).into_iter().flatten() {
            if !reached[other] {
                reached[other] = true;
                queue.push_back(other);
            }
        }
    }
    (0..labels.len()).filter(|&r| reached[r]).collect()
}

/// Class shares of rows without a label that edges connect with labelled ones.
fn from_pairs(edges: &[Edge], labels: &[Option<usize>], k: usize) -> Vec<(usize, Vec<f64>)> {
    if edges.is_empty() {
        return Vec::new();
    }
    let mut rows: Vec<usize> = edges.iter().flat_map(|&(a, b, _)| [a, b]).collect();
    rows.sort_unstable();
    rows.dedup();
    let place: BTreeMap<usize, usize> = rows.iter().copied().zip(0..).collect();
    let edges: Vec<Edge> = edges
        .iter()
        .map(|&(a, b, w)| (place[&a], place[&b], w))
        .collect();
    let known: Vec<Option<usize>> = rows.iter().map(|&r| labels[r]).collect();
    let found = if k == 2 {
        two_classes(&edges, &known)
    } else {
        many_classes(&edges, &known, k)
    };
    rows.into_iter()
        .zip(known)
        .zip(found)
        .filter_map(|((row, known), found)| match known {
            Some(_) => None,
            None => found.map(|shares| (row, shares)),
        })
        .collect()
}

/// Roots of a forest of joined nodes.
struct Forest(Vec<usize>);

impl Forest {
    fn root(&mut self, mut node: usize) -> usize {
        while self.0[node] != node {
            self.0[node] = self.0[self.0[node]];
            node = self.0[node];
        }
        node
    }

    /// False if the two were joined before.
    fn join(&mut self, a: usize, b: usize) -> bool {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
        a != b
    }
}

fn two_classes(edges: &[Edge], known: &[Option<usize>]) -> Vec<Option<Vec<f64>>> {
    let n = known.len();
    // The heaviest spanning tree, and each node's side relative to its root.
    let mut order: Vec<&Edge> = edges.iter().collect();
    order.sort_by(|x, y| y.2.abs().total_cmp(&x.2.abs()));
    let mut forest = Forest((0..n).collect());
    let mut tree: Vec<Vec<(usize, bool)>> = vec![Vec::new(); n];
    for &&(a, b, w) in &order {
        if forest.join(a, b) {
            tree[a].push((b, w < 0.0));
            tree[b].push((a, w < 0.0));
        }
    }
    let mut side: Vec<Option<bool>> = vec![None; n];
    for start in 0..n {
        if side[start].is_some() {
            continue;
        }
        side[start] = Some(false);
        let mut queue = VecDeque::from([(start, false)]);
        while let Some((node, own)) = queue.pop_front() {
            for &(other, differs) in &tree[node] {
                if side[other].is_none() {
                    side[other] = Some(own != differs);
                    queue.push_back((other, own != differs));
                }
            }
        }
    }
    let flipped: Vec<bool> = side.into_iter().map(|s| s == Some(true)).collect();
    // Seen from its side every node is of the same class, but where labels contradict that. Node n is the source, which
    // has class 0 relative to the side, n + 1 the sink.
    let mut flow = Flow::new(n + 2);
    for &(a, b, w) in edges {
        if (w < 0.0) == (flipped[a] != flipped[b]) {
            flow.link(a, b, w.abs(), w.abs());
        }
    }
    for (node, label) in known.iter().enumerate() {
        match label.map(|l| (l == 1) != flipped[node]) {
            Some(false) => flow.link(n, node, f64::INFINITY, 0.0),
            Some(true) => flow.link(node, n + 1, f64::INFINITY, 0.0),
            None => {}
        }
    }
    flow.saturate(n, n + 1);
    let from_source = flow.reached(n);
    let mut component_has = vec![[false; 2]; n];
    for (node, label) in known.iter().enumerate() {
        if let Some(l) = label {
            component_has[forest.root(node)][usize::from((*l == 1) != flipped[node])] = true;
        }
    }
    (0..n)
        .map(|node| {
            let relative = match component_has[forest.root(node)] {
                [false, false] => return None,
                [true, false] => false,
                [false, true] => true,
                [true, true] => !from_source[node],
            };
            let class = usize::from(relative != flipped[node]);
            Some((0..2).map(|c| f64::from(u8::from(c == class))).collect())
        })
        .collect()
}

fn many_classes(edges: &[Edge], known: &[Option<usize>], k: usize) -> Vec<Option<Vec<f64>>> {
    let n = known.len();
    let mut forest = Forest((0..n).collect());
    for &(a, b, w) in edges {
        if w > 0.0 {
            forest.join(a, b);
        }
    }
    let mut votes = vec![vec![0.0; k]; n];
    for (node, label) in known.iter().enumerate() {
        if let Some(label) = label {
            votes[forest.root(node)][*label] += 1.0;
        }
    }
    (0..n)
        .map(|node| {
            let mut shares = votes[forest.root(node)].clone();
            for &(a, b, w) in edges {
                let other = if a == node {
                    b
                } else if b == node {
                    a
                } else {
                    continue;
                };
                if w < 0.0
                    && let Some(label) = known[other]
                {
                    shares[label] = 0.0;
                }
            }
            let sum: f64 = shares.iter().sum();
            (sum > 0.0).then(|| shares.into_iter().map(|s| s / sum).collect())
        })
        .collect()
}

/// A network; links lie in pairs, each with its reverse.
struct Flow {
    links: Vec<(usize, f64)>,
    of: Vec<Vec<usize>>,
}

impl Flow {
    fn new(nodes: usize) -> Flow {
        Flow {
            links: Vec::new(),
            of: vec![Vec::new(); nodes],
        }
    }

    fn link(&mut self, a: usize, b: usize, there: f64, back: f64) {
        self.of[a].push(self.links.len());
        self.links.push((b, there));
        self.of[b].push(self.links.len());
        self.links.push((a, back));
    }

    /// Sends flow along shortest paths until none is left (Edmonds and Karp).
    fn saturate(&mut self, source: usize, sink: usize) {
        loop {
            let mut by: Vec<Option<usize>> = vec![None; self.of.len()];
            let mut queue = VecDeque::from([source]);
            while let Some(node) = queue.pop_front() {
                for &link in &self.of[node] {
                    let (to, room) = self.links[link];
                    if room > 0.0 && to != source && by[to].is_none() {
                        by[to] = Some(link);
                        queue.push_back(to);
                    }
                }
            }
            let mut path = Vec::new();
            let mut node = sink;
            while let Some(link) = by[node] {
                path.push(link);
                node = self.links[link ^ 1].0;
            }
            let room = path
                .iter()
                .map(|&l| self.links[l].1)
                .fold(f64::INFINITY, f64::min);
            if path.is_empty() || !room.is_finite() {
                return;
            }
            for link in path {
                self.links[link].1 -= room;
                self.links[link ^ 1].1 += room;
            }
        }
    }

    /// Nodes to which flow could still be sent from `source`.
    fn reached(&self, source: usize) -> Vec<bool> {
        let mut reached = vec![false; self.of.len()];
        reached[source] = true;
        let mut queue = VecDeque::from([source]);
        while let Some(node) = queue.pop_front() {
            for &link in &self.of[node] {
                let (to, room) = self.links[link];
                if room > 0.0 && !reached[to] {
                    reached[to] = true;
                    queue.push_back(to);
                }
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::Bound;
    use super::super::pool::tests::halves;
    use super::super::state::tests::answer;
    use super::*;

    fn pair(a: usize, b: usize, same: bool) -> Answer {
        Answer {
            query: Query::Pair(a, b),
            reply: Reply::Same(same),
            ..answer(1, 0, 0, 0)
        }
    }

    #[test]
    fn answers_about_pairs_carry_labels_along() {
        let (pool, _) = halves(8, &[1.0], 0);
        let mut labels = vec![None; 8];
        labels[0] = Some(0);
        let log = [
            pair(0, 1, false),
            pair(1, 2, true),
            pair(2, 3, false),
            pair(5, 6, true),
        ];
        let (rows, t) = lessons(&pool, &log, &labels);
        assert_eq!(rows, [0, 1, 2, 3]);
        assert_eq!(
            t,
            ndarray::array![[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]
        );
        assert_eq!(connected(&log, &labels), [0, 1, 2, 3]);
    }

    #[test]
    fn the_weakest_link_between_contradicting_labels_is_cut() {
        let (pool, _) = halves(6, &[1.0], 0);
        let mut labels = vec![None; 6];
        labels[0] = Some(0);
        labels[3] = Some(1);
        // 0 = 1 (twice), 1 = 2 (once), 2 = 3 (twice): the single answer is the wrong one.
        let log = [
            pair(0, 1, true),
            pair(0, 1, true),
            pair(1, 2, true),
            pair(2, 3, true),
            pair(2, 3, true),
        ];
        let (rows, t) = lessons(&pool, &log, &labels);
        assert_eq!(rows, [0, 1, 2, 3]);
        assert_eq!(t.column(1).to_vec(), [0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn an_answer_that_contradicts_a_heavier_circle_is_dropped() {
        let (pool, _) = halves(6, &[1.0], 0);
        let mut labels = vec![None; 6];
        labels[0] = Some(1);
        let log = [
            pair(0, 1, true),
            pair(0, 1, true),
            pair(1, 2, true),
            pair(1, 2, true),
            pair(0, 2, false),
        ];
        let (_, t) = lessons(&pool, &log, &labels);
        assert_eq!(t.column(1).to_vec(), [1.0, 1.0, 1.0]);
    }

    #[test]
    fn more_classes_vote_and_exclude() {
        let edges = [(0, 2, 1.0), (1, 2, 1.0), (2, 3, 1.0), (2, 4, -1.0)];
        let known = [Some(0), Some(1), None, None, Some(1)];
        let found = many_classes(&edges, &known, 3);
        assert_eq!(found[2], Some(vec![1.0, 0.0, 0.0]));
        assert_eq!(found[3], Some(vec![0.5, 0.5, 0.0]));
    }

    #[test]
    fn shares_of_a_region_go_to_its_rows_without_a_label() {
        let (pool, _) = halves(6, &[1.0], 0);
        let mut labels = vec![None; 6];
        labels[0] = Some(1);
        let mut log = vec![Answer {
            query: Query::Region(vec![Bound {
                column: 0,
                low: -10.0,
                high: 0.0,
            }]),
            reply: Reply::Shares(vec![0.75, 0.25]),
            ..answer(1, 0, 0, 0)
        }];
        log.push(Answer {
            reply: Reply::Shares(vec![0.25, 0.75]),
            ..log[0].clone()
        });
        let (rows, t) = lessons(&pool, &log, &labels);
        assert_eq!(rows, [0, 2, 4]);
        assert_eq!(t, ndarray::array![[0.0, 1.0], [0.5, 0.5], [0.5, 0.5]]);
    }
}
