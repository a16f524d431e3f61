//! The block-diagonal union of some graphs as one sparse symmetric matrix.

use super::super::graphs::GraphSet;

/// Which matrix of a graph its node features are multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matrix {
    /// 2 L / 2 - I = -D^(-1/2) A D^(-1/2): the Laplacian with its eigenvalues moved to [-1, 1].
    Wavelet,
    /// D~^(-1/2) (A + I) D~^(-1/2) with the degrees D~ of A + I (Kipf and Welling, 1609.02907).
    Convolution,
    /// A + I (Xu and others, 1810.00826).
    Sum,
}

/// A symmetric matrix [n, n] over the nodes of some graphs, one behind the other, in compressed rows.
///
/// No graph touches another's rows, so graphs are worked on one by one, each small enough for the nearest cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Links {
    /// First node of each graph, and n at the end.
    pub starts: Vec<usize>,
    /// First entry of each node, and the number of entries at the end.
    rows: Vec<usize>,
    /// Column of each entry.
    columns: Vec<u32>,
    /// Value of each entry off the diagonal.
    values: Vec<f32>,
    /// Values on the diagonal.
    diagonal: Vec<f32>,
}

impl Links {
    /// `matrix` over the graphs at `which`.
    pub fn new(graphs: &GraphSet, which: &[usize], matrix: Matrix) -> Links {
        let mut links = Links {
            starts: vec![0],
            rows: vec![0],
            columns: Vec::new(),
            values: Vec::new(),
            diagonal: Vec::new(),
        };
        let mut scales = Vec::new();
        for &index in which {
            let graph = graphs.graph(index);
            let first = links.diagonal.len();
            scales.clear();
            scales.extend((0..graph.nodes()).map(|i| {
                match (matrix, graph.degree(i)) {
                    (Matrix::Sum, _) => 1.0,
                    (Matrix::Convolution, d) => 1.0 / (d + 1.0).sqrt(),
                    (Matrix::Wavelet, d) if d > 0.0 => 1.0 / d.sqrt(),
                    // A node without neighbours has a row of zeros.
                    (Matrix::Wavelet, _) => 0.0,
                }
            }));
            let sign = if matrix == Matrix::Wavelet { -1.0 } else { 1.0 };
            for i in 0..graph.nodes() {
                for (j, weight) in graph.neighbours(i) {
                    links.columns.push((first + j) as u32);
                    links.values.push(sign * weight * scales[i] * scales[j]);
                }
                links.rows.push(links.columns.len());
                links.diagonal.push(match matrix {
                    Matrix::Wavelet => 0.0,
                    Matrix::Convolution => scales[i] * scales[i],
                    Matrix::Sum => 1.0,
                });
            }
            links.starts.push(links.diagonal.len());
        }
        links
    }

    /// Number of nodes, n.
    pub fn nodes(&self) -> usize {
        self.diagonal.len()
    }

    /// Number of graphs.
    pub fn graphs(&self) -> usize {
        self.starts.len() - 1
    }

    /// Adds to `sum`, as long as a row, the row `node` of the matrix times the rows that `of` gives.
    #[inline]
    pub fn add_row<'a>(&self, node: usize, sum: &mut [f32], of: impl Fn(usize) -> &'a [f32]) {
        let own = self.diagonal[node];
        if own != 0.0 {
            for (s, x) in sum.iter_mut().zip(of(node)) {
                *s += own * x;
            }
        }
        let entries = self.rows[node]..self.rows[node + 1];
        for (column, value) in self.columns[entries.clone()]
            .iter()
            .zip(&self.values[entries])
        {
            for (s, x) in sum.iter_mut().zip(of(*column as usize)) {
                *s += value * x;
            }
        }
    }

    /// Every entry with its row and column, the diagonal among them.
    pub fn entries(&self) -> impl Iterator<Item = (usize, usize, f32)> + '_ {
        (0..self.nodes()).flat_map(move |node| {
            let entries = self.rows[node]..self.rows[node + 1];
            let off = entries.map(move |e| (node, self.columns[e] as usize, self.values[e]));
            std::iter::once((node, node, self.diagonal[node])).chain(off)
        })
    }

    /// The graph of each node.
    pub fn graph_of(&self) -> impl Iterator<Item = usize> + '_ {
        self.starts
            .windows(2)
            .enumerate()
            .flat_map(|(g, w)| std::iter::repeat_n(g, w[1] - w[0]))
    }
}
