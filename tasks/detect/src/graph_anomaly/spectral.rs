//! Energy of node features over the spectrum of a graph.
//!
//! L = I - D^(-1/2) A D^(-1/2) with a row of zeros for a node without neighbours; its eigenvalues lambda lie in
//! [0, 2]. With the eigenvectors u_i and x_i = u_i . x, the share of the energy up to lambda is
//! S(lambda) = sum of x_i^2 with lambda_i <= lambda, over x . x, and the Rayleigh quotient is
//! x . L x / x . x = sum of lambda_i x_i^2 / x . x: the mean eigenvalue under S.

use super::graphs::{Graph, GraphSet};
use ndarray::{Array2, ArrayView2};
use papertrial_core::{Error, Result};
use papertrial_numerics::linalg::{eigh, matmul};
use serde::{Deserialize, Serialize};

/// x_f . L x_f of each feature f, computed as the sum over edges of weight (x_i / sqrt(d_i) - x_j / sqrt(d_j))^2.
/// O(edges d).
pub fn energies(graph: Graph<'_>) -> Vec<f32> {
    let scales = graph.scales();
    let mut sums = vec![0.0f64; graph.all_features().len() / graph.nodes().max(1)];
    for i in 0..graph.nodes() {
        for (j, weight) in graph.neighbours(i).filter(|(j, _)| *j > i) {
            let pairs = graph.features(i).iter().zip(graph.features(j));
            for (sum, (a, b)) in sums.iter_mut().zip(pairs) {
                let gap = a * scales[i] - b * scales[j];
                *sum += f64::from(weight * gap * gap);
            }
        }
    }
    sums.into_iter().map(|s| s as f32).collect()
}

/// x_f . L x_f for each graph and feature, [graphs, d] in row-major order; zeros for graphs without edges.
pub fn all_energies(graphs: &GraphSet) -> Vec<f32> {
    let d = graphs.width();
    let mut all = Vec::with_capacity(graphs.len() * d);
    for row in graphs.map(energies) {
        all.extend_from_slice(&row);
        // A graph without nodes has no features to count.
        all.resize(all.len() + d - row.len(), 0.0);
    }
    all
}

/// Rayleigh quotient of each feature, 0 to 2; `None` where the feature is 0 at all nodes.
pub fn quotients(graph: Graph<'_>, d: usize) -> Vec<Option<f32>> {
    let mut squares = vec![0.0f64; d];
    for i in 0..graph.nodes() {
        for (sum, x) in squares.iter_mut().zip(graph.features(i)) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    let mut energies = energies(graph);
    energies.resize(d, 0.0);
    energies
        .into_iter()
        .zip(squares)
        .map(|(e, s)| (s > 0.0).then(|| (f64::from(e) / s) as f32))
        .collect()
}

/// L, [nodes, nodes].
pub fn laplacian(graph: Graph<'_>) -> Array2<f64> {
    let n = graph.nodes();
    let mut matrix = Array2::zeros((n, n));
    let scale = |i: usize| match f64::from(graph.degree(i)) {
        d if d > 0.0 => 1.0 / d.sqrt(),
        _ => 0.0,
    };
    for i in 0..n {
        if graph.degree(i) > 0.0 {
            matrix[(i, i)] = 1.0;
        }
        for (j, weight) in graph.neighbours(i) {
            matrix[(i, j)] = -f64::from(weight) * scale(i) * scale(j);
        }
    }
    matrix
}

/// Graphs with more nodes than this have no curve: their eigenvectors would take too long.
pub const MOST_NODES: usize = 600;

/// Points of a curve: eigenvalues from 0 to 2.
pub const GRID: usize = 41;

/// The eigenvalue at point `k` of a curve.
pub fn grid(k: usize) -> f64 {
    2.0 * k as f64 / (GRID - 1) as f64
}

/// S at the points of the grid, of all features together. `None` for a graph without energy, or of more than
/// [`MOST_NODES`] nodes. About 9 n^3 operations.
///
/// # Errors
/// The eigenvalues were not found.
pub fn curve(graph: Graph<'_>) -> Result<Option<Vec<f64>>> {
    let n = graph.nodes();
    if n == 0 || n > MOST_NODES {
        return Ok(None);
    }
    let x = graph.all_features();
    let x = ArrayView2::from_shape((n, x.len() / n), x)
        .map_err(|e| Error::Failed(e.to_string()))?
        .mapv(f64::from);
    let total: f64 = x.iter().map(|v| v * v).sum();
    if total <= 0.0 {
        return Ok(None);
    }
    let eigen = eigh(laplacian(graph).view()).map_err(|e| Error::Failed(e.to_string()))?;
    let parts = matmul(eigen.vectors.t(), x.view());
    let mut curve = vec![0.0; GRID];
    for (lambda, part) in eigen.values.iter().zip(parts.rows()) {
        let energy: f64 = part.iter().map(|v| v * v).sum();
        // Rounding must not move an eigenvalue beyond its point of the grid.
        let from = ((lambda - 1e-9).max(0.0) / grid(1)).ceil() as usize;
        for value in curve.iter_mut().skip(from.min(GRID - 1)) {
            *value += energy / total;
        }
    }
    Ok(Some(curve))
}

/// Mean and deviation over graphs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Spread {
    /// Mean of each number.
    pub mean: Vec<f64>,
    /// Standard deviation of each number.
    pub deviation: Vec<f64>,
}

impl Spread {
    /// Of rows of equal length.
    pub fn of<'a, T: Into<f64> + Copy + 'a>(rows: impl Iterator<Item = &'a [T]> + Clone) -> Spread {
        let width = rows.clone().next().map_or(0, <[T]>::len);
        let count = rows.clone().count().max(1) as f64;
        let mut spread = Spread {
            mean: vec![0.0; width],
            deviation: vec![0.0; width],
        };
        for row in rows.clone() {
            for (mean, v) in spread.mean.iter_mut().zip(row) {
                *mean += (*v).into() / count;
            }
        }
        for row in rows {
            for ((square, v), mean) in spread.deviation.iter_mut().zip(row).zip(&spread.mean) {
                *square += ((*v).into() - mean).powi(2) / count;
            }
        }
        spread.deviation.iter_mut().for_each(|v| *v = v.sqrt());
        spread
    }

    /// Of the numbers that are known in rows of `width`; 0 where none is.
    fn of_known<'a>(rows: impl Iterator<Item = &'a [Option<f32>]> + Clone, width: usize) -> Spread {
        let mut spread = Spread::default();
        for f in 0..width {
            let known: Vec<[f32; 1]> = rows.clone().filter_map(|r| Some([r[f]?])).collect();
            let one = Spread::of(known.iter().map(<[f32; 1]>::as_slice));
            spread.mean.push(one.mean.first().copied().unwrap_or(0.0));
            spread
                .deviation
                .push(one.deviation.first().copied().unwrap_or(0.0));
        }
        spread
    }

    /// Squared distance of the mean to `row`.
    pub fn distance(&self, row: &[f64]) -> f64 {
        self.mean
            .iter()
            .zip(row)
            .map(|(m, v)| (m - v).powi(2))
            .sum()
    }
}

/// What is usual in a class of graphs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ClassSpectrum {
    /// Graphs with a curve.
    pub graphs: usize,
    /// S at the points of the grid.
    pub curve: Spread,
    /// Rayleigh quotient of each feature, over the graphs that have it.
    pub quotients: Spread,
}

/// The spectra of normal and of anomalous graphs; their curves stay empty unless asked for.
///
/// # Errors
/// As [`curve`]; graphs without labels.
pub fn class_spectra(graphs: &GraphSet, with_curves: bool) -> Result<[ClassSpectrum; 2]> {
    let labels = graphs
        .labels
        .as_ref()
        .ok_or_else(|| Error::BadInput("the spectrum of a class needs labelled graphs".into()))?;
    let d = graphs.width();
    let curves: Vec<Option<Vec<f64>>> = match with_curves {
        true => graphs.map(curve).into_iter().collect::<Result<_>>()?,
        false => vec![None; graphs.len()],
    };
    let quotients = graphs.map(|g| quotients(g, d));
    let of = |class: bool| {
        let members = || labels.iter().enumerate().filter(move |(_, l)| **l == class);
        let curves = members().filter_map(|(g, _)| curves[g].as_deref());
        ClassSpectrum {
            graphs: curves.clone().count(),
            curve: Spread::of(curves),
            quotients: Spread::of_known(members().map(|(g, _)| quotients[g].as_slice()), d),
        }
    };
    Ok([of(false), of(true)])
}

#[cfg(test)]
mod tests {
    use super::super::graphs::Builder;
    use super::super::graphs::tests::of_edges;
    use super::*;
    use proptest::prelude::*;

    /// The quotient of the one feature of a graph.
    fn quotient(set: &GraphSet, g: usize) -> f32 {
        quotients(set.graph(g), 1)[0].unwrap_or(0.0)
    }

    #[test]
    fn a_path_by_hand() {
        // Degrees 1, 2, 1 and x = 1, 2, 3: (1 - 2 / sqrt 2)^2 + (2 / sqrt 2 - 3)^2.
        let set = of_edges(&[(3, &[(0, 1), (1, 2)]), (2, &[]), (0, &[])]);
        let root = 2f32.sqrt();
        let want = (1.0 - root).powi(2) + (root - 3.0).powi(2);
        let got = all_energies(&set);
        assert!((got[0] - want).abs() < 1e-6, "{got:?}");
        assert_eq!(got[1..], [0.0, 0.0]);
        assert!((quotient(&set, 0) - want / 14.0).abs() < 1e-6);
        assert_eq!(quotients(set.graph(2), 1), [None]);
        // The eigenvalues of a path of three are 0, 1 and 2.
        let curve = curve(set.graph(0)).unwrap().unwrap();
        let low = (1.0 + 2.0 * 2f64.sqrt() + 3.0).powi(2) / 4.0 / 14.0;
        assert!((curve[0] - low).abs() < 1e-9 && (curve[GRID - 1] - 1.0).abs() < 1e-9);
        assert!((curve[20] - curve[39]).abs() < 1e-12 && curve[19] < curve[20]);
    }

    #[test]
    fn spread_by_hand() {
        let rows = [[1.0f32, 5.0], [3.0, 5.0]];
        let spread = Spread::of(rows.iter().map(<[f32; 2]>::as_slice));
        assert_eq!(spread.mean, [2.0, 5.0]);
        assert_eq!(spread.deviation, [1.0, 0.0]);
        assert_eq!(spread.distance(&[2.0, 7.0]), 4.0);
    }

    #[test]
    fn classes_have_their_own_curves() {
        let mut set = of_edges(&[(2, &[(0, 1)]), (2, &[]), (2, &[(0, 1)])]);
        assert!(class_spectra(&set, true).is_err());
        set.labels = Some(vec![false, true, false]);
        let [normal, anomalous] = class_spectra(&set, true).unwrap();
        assert_eq!((normal.graphs, anomalous.graphs), (2, 1));
        // x = 1, 2 on one edge: 9/2 of 5 at 0 and 1/2 of 5 at 2.
        assert!((normal.quotients.mean[0] - 0.2).abs() < 1e-6);
        assert!((normal.curve.mean[0] - 0.9).abs() < 1e-9);
        assert_eq!(
            (anomalous.curve.mean[0], anomalous.quotients.mean[0]),
            (1.0, 0.0)
        );
        let [normal, _] = class_spectra(&set, false).unwrap();
        assert!(normal.curve.mean.is_empty() && normal.quotients.mean.len() == 1);
        let rows = [[Some(1.0f32), None], [None, None], [Some(3.0), None]];
        let known = Spread::of_known(rows.iter().map(<[_; 2]>::as_slice), 2);
        assert_eq!(
            (known.mean, known.deviation),
            (vec![2.0, 0.0], vec![1.0, 0.0])
        );
    }

    fn graph(n: usize, edges: &[(usize, usize)], x: &[f32]) -> GraphSet {
        let mut builder = Builder::new(vec!["f0".into()]);
        let edges: Vec<_> = edges.iter().map(|(a, b)| (a % n, b % n, 1.0)).collect();
        builder.push("g".into(), n, &edges, &x[..n]).unwrap();
        builder.finish().0
    }

    /// Largest absolute eigenvalue.
    fn norm(matrix: Array2<f64>) -> f64 {
        eigh(matrix.view())
            .unwrap()
            .values
            .iter()
            .fold(0.0, |m, v| v.abs().max(m))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn edges_dense_matrix_and_spectrum_agree(
            n in 1usize..12,
            edges in proptest::collection::vec((0usize..12, 0usize..12), 0..24),
            x in proptest::collection::vec(-3f32..3.0, 12),
        ) {
            let set = graph(n, &edges, &x);
            let dense = laplacian(set.graph(0));
            let x = ndarray::Array1::from_iter(x[..n].iter().map(|v| f64::from(*v)));
            let want = x.dot(&dense.dot(&x));
            let got = f64::from(energies(set.graph(0))[0]);
            prop_assert!((got - want).abs() < 1e-4 * (1.0 + want.abs()), "{got} {want}");
            let eigen = eigh(dense.view()).unwrap();
            prop_assert!(eigen.values.iter().all(|v| (-1e-9..=2.0 + 1e-9).contains(v)));
            if let Some(curve) = curve(set.graph(0)).unwrap() {
                prop_assert!(curve.windows(2).all(|w| w[0] <= w[1] + 1e-12));
                prop_assert!((curve[GRID - 1] - 1.0).abs() < 1e-9);
                let quotient = f64::from(quotient(&set, 0));
                prop_assert!((0.0..=2.0 + 1e-5).contains(&quotient));
                // The mean of a distribution from its distribution function, to the width of the grid.
                let mean: f64 = curve.iter().take(GRID - 1).map(|s| (1.0 - s) * grid(1)).sum();
                prop_assert!((mean - quotient).abs() <= grid(1) + 1e-5, "{mean} {quotient}");
            }
        }

        #[test]
        fn a_changed_graph_moves_the_quotient_by_no_more_than_the_change_of_its_matrix(
            n in 2usize..10,
            edges in proptest::collection::vec((0usize..10, 0usize..10), 0..16),
            others in proptest::collection::vec((0usize..10, 0usize..10), 0..16),
            x in proptest::collection::vec(0.1f32..3.0, 10),
        ) {
            let (a, b) = (graph(n, &edges, &x), graph(n, &others, &x));
            let change = norm(laplacian(a.graph(0)) - laplacian(b.graph(0)));
            let moved = (quotient(&a, 0) - quotient(&b, 0)).abs();
            prop_assert!(f64::from(moved) <= change + 1e-5, "{moved} {change}");
        }

        #[test]
        fn a_changed_signal_moves_the_quotient_by_no_more_than_its_relative_length(
            n in 2usize..10,
            edges in proptest::collection::vec((0usize..10, 0usize..10), 0..16),
            x in proptest::collection::vec(-3f32..3.0, 10),
            delta in proptest::collection::vec(-0.2f32..0.2, 10),
        ) {
            let length = |v: &[f32]| v[..n].iter().map(|v| v * v).sum::<f32>().sqrt();
            let moved: Vec<f32> = x.iter().zip(&delta).map(|(a, b)| a + b).collect();
            prop_assume!(length(&x) > 0.1 && length(&moved) > 0.1);
            let (a, b) = (graph(n, &edges, &x), graph(n, &edges, &moved));
            let gap = (quotient(&a, 0) - quotient(&b, 0)).abs();
            // With unit vectors u and v: |u.Lu - v.Lv| = |(u - v).L(u + v)| <= 4 |u - v|, and |u - v| <= 2 |delta| / |x|.
            prop_assert!(gap <= 8.0 * length(&delta) / length(&x) + 1e-4, "{gap}");
        }
    }
}
