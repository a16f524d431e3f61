//! What is computed for each graph of a union; graphs are shared out to the threads in fixed groups.
//!
//! Every number is computed by one thread in one order, so results do not depend on the number of threads.

use super::links::Links;
use rayon::prelude::*;

/// Graphs of a group: some tens of thousands of numbers for graphs of a few tens of nodes.
const GROUP: usize = 8;

/// A group: its graphs, and the rows of an output that belong to their nodes.
struct Group<'a> {
    graphs: std::ops::Range<usize>,
    out: &'a mut [f32],
}

/// `out`, `width` numbers for each node, in groups of graphs.
fn groups<'a>(links: &Links, mut out: &'a mut [f32], width: usize) -> Vec<Group<'a>> {
    let mut all = Vec::with_capacity(links.graphs().div_ceil(GROUP));
    for first in (0..links.graphs()).step_by(GROUP) {
        let last = (first + GROUP).min(links.graphs());
        let size = (links.starts[last] - links.starts[first]) * width;
        let (mine, rest) = out.split_at_mut(size);
        out = rest;
        all.push(Group {
            graphs: first..last,
            out: mine,
        });
    }
    all
}

/// M x, for x of [n, d].
pub(super) fn product(links: &Links, x: &[f32], d: usize) -> Vec<f32> {
    let mut out = vec![0.0f32; x.len()];
    groups(links, &mut out, d)
        .into_par_iter()
        .for_each(|group| {
            let first = links.starts[group.graphs.start];
            for (node, row) in group.out.chunks_exact_mut(d.max(1)).enumerate() {
                links.add_row(first + node, row, |j| &x[j * d..(j + 1) * d]);
            }
        });
    out
}

/// T_0(M) x to T_(terms - 1)(M) x side by side, [n, terms d], for x of [n, d]: T_0 x = x, T_1 x = M x and
/// T_k x = 2 M T_(k-1) x - T_(k-2) x.
pub(super) fn chebyshev(links: &Links, x: &[f32], d: usize, terms: usize) -> Vec<f32> {
    let width = terms * d;
    let mut out = vec![0.0f32; links.nodes() * width];
    groups(links, &mut out, width)
        .into_par_iter()
        .for_each(|group| {
            let mut sum = vec![0.0f32; d];
            let first = links.starts[group.graphs.start];
            for (row, x) in group
                .out
                .chunks_exact_mut(width.max(1))
                .zip(x[first * d..].chunks_exact(d.max(1)))
            {
                row[..d].copy_from_slice(x);
            }
            for g in group.graphs {
                let nodes = links.starts[g]..links.starts[g + 1];
                for k in 1..terms {
                    for node in nodes.clone() {
                        sum.fill(0.0);
                        let part = |node: usize, k: usize| {
                            let at = (node - first) * width + k * d;
                            at..at + d
                        };
                        links.add_row(node, &mut sum, |j| &group.out[part(j, k - 1)]);
                        if k > 1 {
                            for (s, before) in sum.iter_mut().zip(&group.out[part(node, k - 2)]) {
                                *s = 2.0 * *s - before;
                            }
                        }
                        group.out[part(node, k)].copy_from_slice(&sum);
                    }
                }
            }
        });
    out
}

/// The gradient of x from that of [`chebyshev`]'s result, which is used up: the recursion backwards. M is its own
/// transpose, so from the last term down G_(k-1) gets 2 M G_k and G_(k-2) gets -G_k.
pub(super) fn chebyshev_back(
    links: &Links,
    mut gradient: Vec<f32>,
    d: usize,
    terms: usize,
) -> Vec<f32> {
    let width = terms * d;
    groups(links, &mut gradient, width)
        .into_par_iter()
        .for_each(|group| {
            let mut sum = vec![0.0f32; d];
            let first = links.starts[group.graphs.start];
            let part = |node: usize, k: usize| {
                let at = (node - first) * width + k * d;
                at..at + d
            };
            for g in group.graphs {
                let nodes = links.starts[g]..links.starts[g + 1];
                for k in (1..terms).rev() {
                    let factor = if k > 1 { 2.0 } else { 1.0 };
                    for node in nodes.clone() {
                        sum.fill(0.0);
                        links.add_row(node, &mut sum, |j| &group.out[part(j, k)]);
                        for (g, s) in group.out[part(node, k - 1)].iter_mut().zip(&sum) {
                            *g += factor * s;
                        }
                        if k > 1 {
                            let (low, high) = (part(node, k - 2), part(node, k));
                            let (before, after) = group.out.split_at_mut(high.start);
                            for (g, s) in before[low].iter_mut().zip(&after[..d]) {
                                *g -= s;
                            }
                        }
                    }
                }
            }
        });
    let mut out = Vec::with_capacity(links.nodes() * d);
    for row in gradient.chunks_exact(width.max(1)) {
        out.extend_from_slice(&row[..d]);
    }
    out
}

/// `of` each graph, given its nodes' rows of x and its row of [graphs, width].
fn each_graph(
    links: &Links,
    x: &[f32],
    d: usize,
    width: usize,
    of: impl Fn(usize, &[f32], &mut [f32]) + Sync,
) -> Vec<f32> {
    let mut out = vec![0.0f32; links.graphs() * width];
    out.par_chunks_mut((GROUP * width).max(1))
        .enumerate()
        .for_each(|(group, rows)| {
            for (i, row) in rows.chunks_exact_mut(width.max(1)).enumerate() {
                let g = group * GROUP + i;
                of(g, &x[links.starts[g] * d..links.starts[g + 1] * d], row);
            }
        });
    out
}

/// Sum of each graph's rows: [n, d] to [graphs, d].
pub(super) fn pool(links: &Links, x: &[f32], d: usize) -> Vec<f32> {
    each_graph(links, x, d, d, |_, rows, sum| {
        for row in rows.chunks_exact(d.max(1)) {
            for (s, v) in sum.iter_mut().zip(row) {
                *s += v;
            }
        }
    })
}

/// Each graph's row for each of its nodes: [graphs, d] to [n, d].
pub(super) fn spread(links: &Links, x: &[f32], d: usize) -> Vec<f32> {
    let mut out = vec![0.0f32; links.nodes() * d];
    groups(links, &mut out, d)
        .into_par_iter()
        .for_each(|group| {
            let first = links.starts[group.graphs.start];
            for g in group.graphs {
                let rows = (links.starts[g] - first) * d..(links.starts[g + 1] - first) * d;
                for row in group.out[rows].chunks_exact_mut(d.max(1)) {
                    row.copy_from_slice(&x[g * d..(g + 1) * d]);
                }
            }
        });
    out
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Sum of (h_i . a) h_i over each graph's nodes, for h of [n, d] and a of [graphs, d].
pub(super) fn weighted_pool(links: &Links, h: &[f32], a: &[f32], d: usize) -> Vec<f32> {
    each_graph(links, h, d, d, |g, rows, sum| {
        let a = &a[g * d..(g + 1) * d];
        for row in rows.chunks_exact(d.max(1)) {
            let score = dot(row, a);
            for (s, v) in sum.iter_mut().zip(row) {
                *s += score * v;
            }
        }
    })
}

/// The gradients of h and a from that of [`weighted_pool`]'s result p: with s_i = h_i . a and t_i = h_i . dp,
/// dh_i = s_i dp + t_i a and da = sum of t_i h_i, which is the same pooling with dp in the place of a.
pub(super) fn weighted_pool_back(
    links: &Links,
    h: &[f32],
    a: &[f32],
    gradient: &[f32],
    d: usize,
) -> (Vec<f32>, Vec<f32>) {
    let of_a = weighted_pool(links, h, gradient, d);
    let mut of_h = vec![0.0f32; h.len()];
    groups(links, &mut of_h, d)
        .into_par_iter()
        .for_each(|group| {
            let first = links.starts[group.graphs.start];
            for g in group.graphs {
                let (a, p) = (&a[g * d..(g + 1) * d], &gradient[g * d..(g + 1) * d]);
                for node in links.starts[g]..links.starts[g + 1] {
                    let row = &h[node * d..(node + 1) * d];
                    let (s, t) = (dot(row, a), dot(row, p));
                    let out = &mut group.out[(node - first) * d..(node - first + 1) * d];
                    for ((o, p), a) in out.iter_mut().zip(p).zip(a) {
                        *o = s * p + t * a;
                    }
                }
            }
        });
    (of_h, of_a)
}

/// Numbers worked on at once by one thread.
const BLOCK: usize = 16 * 1024;

/// x where it is positive, else x times `slope`.
pub(super) fn leaky(mut x: Vec<f32>, slope: f32) -> Vec<f32> {
    x.par_chunks_mut(BLOCK).for_each(|block| {
        for v in block {
            *v = if *v > 0.0 { *v } else { slope * *v };
        }
    });
    x
}

/// The gradient of [`leaky`], given its result, whose sign is that of x.
pub(super) fn leaky_back(mut gradient: Vec<f32>, y: &[f32], slope: f32) -> Vec<f32> {
    gradient
        .par_chunks_mut(BLOCK)
        .zip(y.par_chunks(BLOCK))
        .for_each(|(block, y)| {
            for (g, y) in block.iter_mut().zip(y) {
                *g *= if *y > 0.0 { 1.0 } else { slope };
            }
        });
    gradient
}
