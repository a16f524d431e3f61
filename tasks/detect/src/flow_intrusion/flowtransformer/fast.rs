//! Scoring on the CPU without tensors: the same numbers as the network's, by fewer operations.
//!
//! 1. What depends on a flow alone is computed once for it and not for each of the w windows that it is in: its
//!    encoding x and, in the first block, the products below.
//! 2. A head's score of x as a query and y as a key is x Wq Wk' y + bq Wk' y, up to what is the same for all keys and
//!    therefore no matter to the softmax. Wq Wk' is one D x D matrix A, so that p = x A + bq Wk' is all that is needed
//!    of the query, and the key is y itself.
//! 3. A head's values go through Wv Wo, again one D x D matrix M; the offsets add up to one vector.
//! 4. Where the head reads the last position alone, the last block has one query; then the values are averaged before
//!    they are multiplied by M.
//!
//! Cost of a window with the shallow encoder, D = 64, w = 8 and the last-token head: about 0.2 million products, six
//! to seven times fewer than layer by layer; five in six of them are in the inner layers.

use super::super::prepare::Flows;
use super::encodings::{Encoding, table_starts};
use super::heads::Head;
use super::network::{Network, Shape};
use super::parts::{EPSILON, Norm};
use super::sequence::Block;
use burn::nn::Linear;
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use papertrial_core::{Error, Result};
use papertrial_nn::values_of;
use papertrial_numerics::linalg::{matmul, matmul_into_single};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Windows of one piece of work: their numbers stay in the cache of one core.
const CHUNK: usize = 128;

/// A dense layer.
struct Dense {
    /// [from, to]
    weight: Array2<f32>,
    /// [to], or empty.
    offset: Vec<f32>,
}

impl Dense {
    fn of(layer: &Linear) -> Result<Dense> {
        let shape = layer.weight.dims();
        Ok(Dense {
            weight: matrix(values_of(layer.weight.val())?, shape)?,
            offset: match &layer.bias {
                Some(bias) => values_of(bias.val())?,
                None => Vec::new(),
            },
        })
    }

    /// [n, from] to [n, to].
    fn forward(&self, x: &Array2<f32>) -> Array2<f32> {
        let mut out = product(x, &self.weight);
        add_to_rows(&mut out, &self.offset);
        out
    }
}

/// Gain and offset of a normalisation.
struct Scale {
    gain: Vec<f32>,
    offset: Vec<f32>,
}

impl Scale {
    fn of(norm: &Norm) -> Result<Scale> {
        Ok(Scale {
            gain: values_of(norm.gain.val())?,
            offset: values_of(norm.offset.val())?,
        })
    }

    fn apply(&self, x: &mut Array2<f32>) {
        let d = x.ncols().max(1);
        let Some(values) = x.as_slice_mut() else {
            return;
        };
        Arch::new().dispatch(Normalise {
            scale: self,
            values,
            d,
        });
    }
}

/// [`Scale::apply`] on rows of `d` values. Only what is inlined into `with_simd` gets the processor's widest vectors.
struct Normalise<'a> {
    scale: &'a Scale,
    values: &'a mut [f32],
    d: usize,
}

impl WithSimd for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Scale { gain, offset } = self.scale;
        for row in self.values.chunks_exact_mut(self.d) {
            let mean = sum(row) / self.d as f32;
            row.iter_mut().for_each(|v| *v -= mean);
            let scale = 1.0 / (dot(row, row) / self.d as f32 + EPSILON as f32).sqrt();
            for ((v, gain), offset) in row.iter_mut().zip(gain).zip(offset) {
                *v = *v * scale * gain + offset;
            }
        }
    }
}

/// Attention as products of whole vectors.
struct Attend {
    heads: usize,
    /// [D, heads x D]: the matrices A, scaled by 1 over the square root of a head's width.
    score: Array2<f32>,
    /// [heads x D]
    score_offset: Vec<f32>,
    /// [D, heads x D]: the matrices M side by side.
    value: Array2<f32>,
    /// [heads x D, D]: the same one below another.
    value_of_mean: Array2<f32>,
    /// [D]
    value_offset: Vec<f32>,
}

/// Vectors and, for each position of each window, which of them stands there.
struct At<'a> {
    vectors: &'a Array2<f32>,
    at: &'a [u32],
}

impl Attend {
    fn of(block: &Block) -> Result<Attend> {
        let attention = &block.attention;
        let heads = attention.heads;
        let [d, wide] = attention.query.weight.dims();
        let k = wide / heads;
        let double = |layer: &Linear| -> Result<(Array2<f64>, Vec<f64>)> {
            let layer = Dense::of(layer)?;
            let offset = layer.offset.iter().map(|v| f64::from(*v)).collect();
            Ok((layer.weight.mapv(f64::from), offset))
        };
        let (query, query_offset) = double(&attention.query)?;
        let (key, _) = double(&attention.key)?;
        let (value, value_offset) = double(&attention.value)?;
        let (out, out_offset) = double(&attention.out)?;
        let scale = 1.0 / (k as f64).sqrt();
        let mut score = Array2::zeros((d, heads * d));
        let mut of_score = Vec::with_capacity(heads * d);
        let mut side = Array2::zeros((d, heads * d));
        let mut below = Array2::zeros((heads * d, d));
        let mut of_value = out_offset;
        for h in 0..heads {
            let own = ndarray::s![.., h * k..(h + 1) * k];
            let there = ndarray::s![.., h * d..(h + 1) * d];
            let keys = key.slice(own);
            let a = matmul(query.slice(own), keys.t()) * scale;
            score.slice_mut(there).assign(&a.mapv(|v| v as f32));
            for row in keys.rows() {
                let sum: f64 = row
                    .iter()
                    .zip(&query_offset[h * k..])
                    .map(|(w, b)| w * b)
                    .sum();
                of_score.push((sum * scale) as f32);
            }
            let outs = out.slice(ndarray::s![h * k..(h + 1) * k, ..]);
            let m = matmul(value.slice(own), outs).mapv(|v| v as f32);
            side.slice_mut(there).assign(&m);
            below
                .slice_mut(ndarray::s![h * d..(h + 1) * d, ..])
                .assign(&m);
            for (row, b) in outs.rows().into_iter().zip(&value_offset[h * k..]) {
                of_value
                    .iter_mut()
                    .zip(row)
                    .for_each(|(sum, w)| *sum += w * b);
            }
        }
        Ok(Attend {
            heads,
            score,
            score_offset: of_score,
            value: side,
            value_of_mean: below,
            value_offset: of_value.into_iter().map(|v| v as f32).collect(),
        })
    }

    /// From `q` positions of each of `windows` at `l` positions: [windows x q, D].
    fn forward(
        &self,
        from: At,
        to: At,
        windows: usize,
        q: usize,
        l: usize,
        causal: bool,
    ) -> Array2<f32> {
        let d = to.vectors.ncols();
        let wide = self.heads * d;
        let mut asked = product(from.vectors, &self.score);
        add_to_rows(&mut asked, &self.score_offset);
        // With one query the plain vectors are averaged, else the values.
        let values = (q > 1).then(|| product(to.vectors, &self.value));
        let mut means = Array2::zeros((windows * q, if q > 1 { d } else { wide }));
        if let (Some(asked), Some(vectors), Some(means)) = (
            asked.as_slice(),
            to.vectors.as_slice(),
            means.as_slice_mut(),
        ) {
            Arch::new().dispatch(Average {
                asked,
                at: from.at,
                vectors,
                values: values.as_ref().and_then(|v| v.as_slice()),
                keys: to.at,
                d,
                l,
                q,
                heads: self.heads,
                causal: causal && q > 1,
                means,
            });
        }
        let mut out = if q > 1 {
            means
        } else {
            product(&means, &self.value_of_mean)
        };
        add_to_rows(&mut out, &self.value_offset);
        out
    }
}

/// Adds to `means`, for `q` places of each window, the average of what they look at.
struct Average<'a> {
    /// [queries, heads x D]
    asked: &'a [f32],
    /// The row of `asked` of each place.
    at: &'a [u32],
    /// [vectors, D]
    vectors: &'a [f32],
    /// [vectors, heads x D], or the vectors themselves are averaged.
    values: Option<&'a [f32]>,
    /// The row of `vectors` of each position of each window.
    keys: &'a [u32],
    d: usize,
    l: usize,
    q: usize,
    heads: usize,
    causal: bool,
    /// Over all heads, [places, D]; or where the vectors themselves are averaged for each head, [places, heads x D].
    means: &'a mut [f32],
}

impl WithSimd for Average<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (d, l, q, heads) = (self.d, self.l, self.q, self.heads);
        let wide = heads * d;
        let width = if self.values.is_some() { d } else { wide };
        let mut shares = vec![0.0f32; l];
        for (place, mean) in self.means.chunks_exact_mut(width.max(1)).enumerate() {
            let (window, i) = (place / q, place % q);
            let visible = if self.causal { i + 1 } else { l };
            let keys = &self.keys[window * l..window * l + visible];
            let shares = &mut shares[..visible];
            let query = self.at[place] as usize * wide;
            for h in 0..heads {
                let query = &self.asked[query + h * d..query + (h + 1) * d];
                for (share, key) in shares.iter_mut().zip(keys) {
                    let key = *key as usize * d;
                    *share = dot(query, &self.vectors[key..key + d]);
                }
                softmax(shares);
                for (share, key) in shares.iter().zip(keys) {
                    let key = *key as usize;
                    match self.values {
                        Some(values) => {
                            let start = key * wide + h * d;
                            add_scaled(mean, *share, &values[start..start + d]);
                        }
                        None => {
                            let mean = &mut mean[h * d..(h + 1) * d];
                            add_scaled(mean, *share, &self.vectors[key * d..(key + 1) * d]);
                        }
                    }
                }
            }
        }
    }
}

/// One block.
struct Layer {
    attend: Attend,
    first: Scale,
    second: Scale,
    up: Dense,
    down: Dense,
}

/// A network for scoring on the CPU.
pub(super) struct Fast {
    shape: Shape,
    /// Record encodings: [n + K, width].
    record: Option<Dense>,
    /// Feature encodings: [rows, feature], and an offset for all columns together, or none.
    table: Option<(Array2<f32>, Vec<f32>)>,
    /// The first row of each column's table, or of its codes among the weights of a record encoding.
    starts: Vec<usize>,
    layers: Vec<Layer>,
    shared: Option<Dense>,
    hidden: Dense,
    out: Dense,
}

impl Fast {
    /// From a network's weights.
    pub(super) fn of(shape: &Shape, network: &Network) -> Result<Fast> {
        let layers = network
            .stack
            .blocks
            .iter()
            .map(|block| {
                Ok(Layer {
                    attend: Attend::of(block)?,
                    first: Scale::of(&block.first)?,
                    second: Scale::of(&block.second)?,
                    up: Dense::of(&block.up)?,
                    down: Dense::of(&block.down)?,
                })
            })
            .collect::<Result<_>>()?;
        let encode = &network.encode;
        let table = match &encode.table {
            Some(table) => {
                let shape = table.dims();
                let offset = match &encode.offset {
                    Some(offset) => values_of(offset.val())?,
                    None => Vec::new(),
                };
                Some((matrix(values_of(table.val())?, shape)?, offset))
            }
            None => None,
        };
        let mut starts = table_starts(shape.encoding, &shape.layout);
        if !shape.encoding.by_code() {
            starts
                .iter_mut()
                .for_each(|s| *s += shape.layout.numeric.len());
        }
        let classify = &network.classify;
        Ok(Fast {
            shape: shape.clone(),
            record: encode.record.as_ref().map(Dense::of).transpose()?,
            table,
            starts,
            layers,
            shared: classify.shared.as_ref().map(Dense::of).transpose()?,
            hidden: Dense::of(&classify.hidden)?,
            out: Dense::of(&classify.out)?,
        })
    }

    /// Probabilities of the windows whose rows are `rows`, [windows, w].
    pub(super) fn score(&self, flows: &Flows, rows: &[usize]) -> Vec<f32> {
        let piece = CHUNK * self.shape.window;
        if rows.len() <= piece {
            return self.piece(flows, rows);
        }
        let pieces: Vec<Vec<f32>> = rows
            .par_chunks(piece)
            .map(|rows| self.piece(flows, rows))
            .collect();
        pieces.concat()
    }

    fn piece(&self, flows: &Flows, rows: &[usize]) -> Vec<f32> {
        let w = self.shape.window;
        let windows = rows.len() / w;
        let (needed, mut at) = distinct(rows, w);
        let mut x = self.encode(flows, &needed);
        let mut l = w;
        if self.shape.head == Head::ClsToken {
            let (n, d) = x.dim();
            let mut wider = Array2::zeros((n + 1, d + 1));
            wider.slice_mut(ndarray::s![..n, ..d]).assign(&x);
            wider[[n, d]] = 1.0;
            x = wider;
            at = at
                .chunks(w)
                .flat_map(|window| window.iter().copied().chain([n as u32]))
                .collect();
            l += 1;
        }
        let last_only = self.shape.head.last_only();
        for (i, layer) in self.layers.iter().enumerate() {
            let of_last = last_only && i + 1 == self.layers.len();
            x = self.layer(layer, &x, &at, windows, l, of_last);
            at = (0..(windows * l) as u32).collect();
        }
        self.classify(x, windows, l)
    }

    /// [needed, D]
    fn encode(&self, flows: &Flows, needed: &[usize]) -> Array2<f32> {
        let layout = &self.shape.layout;
        let n = layout.numeric.len();
        let mut x = Array2::zeros((needed.len(), self.shape.encoded()));
        if let Some(record) = &self.record {
            let mut numbers = Array2::zeros((needed.len(), n));
            for (mut to, at) in numbers.rows_mut().into_iter().zip(needed) {
                to.iter_mut()
                    .zip(flows.numbers_of(*at))
                    .for_each(|(to, v)| *to = *v);
            }
            let weights = record.weight.slice(ndarray::s![..n, ..]);
            matmul_into_single(x.view_mut(), 1.0, numbers.view(), weights, 0.0);
            add_to_rows(&mut x, &record.offset);
        }
        for (mut to, at) in x.rows_mut().into_iter().zip(needed) {
            let Some(to) = to.as_slice_mut() else {
                continue;
            };
            let codes = flows.codes_of(*at).iter().zip(&self.starts);
            let codes = codes.map(|(code, start)| *code as usize + start);
            if let Some(record) = &self.record {
                for code in codes {
                    add_scaled(to, 1.0, row(&record.weight, code));
                }
                continue;
            }
            to[..n].copy_from_slice(flows.numbers_of(*at));
            match &self.table {
                Some((table, offset)) => {
                    let own = &mut to[n..];
                    for (own, code) in own.chunks_exact_mut(table.ncols()).zip(codes) {
                        own.copy_from_slice(row(table, code));
                    }
                    own.iter_mut().zip(offset).for_each(|(v, o)| *v += o);
                }
                None if self.shape.encoding == Encoding::None => {
                    codes.for_each(|code| to[code] = 1.0)
                }
                None => (),
            }
        }
        x
    }

    fn layer(
        &self,
        layer: &Layer,
        x: &Array2<f32>,
        at: &[u32],
        windows: usize,
        l: usize,
        of_last: bool,
    ) -> Array2<f32> {
        let q = if of_last { 1 } else { l };
        let causal = self.shape.causal;
        // With one query for each window only its vector is needed, else all of them.
        let asking;
        let identity: Vec<u32>;
        let from = if of_last {
            let last: Vec<usize> = at.chunks(l).map(|window| window[l - 1] as usize).collect();
            asking = x.select(ndarray::Axis(0), &last);
            identity = (0..windows as u32).collect();
            At {
                vectors: &asking,
                at: &identity,
            }
        } else {
            At { vectors: x, at }
        };
        let keys = || At { vectors: x, at };
        let add_from = |to: &mut Array2<f32>| {
            for (mut row_to, at) in to.rows_mut().into_iter().zip(from.at) {
                if let Some(row_to) = row_to.as_slice_mut() {
                    add_scaled(row_to, 1.0, row(from.vectors, *at as usize));
                }
            }
        };
        let inner = |x: &Array2<f32>| {
            let mut f = layer.up.forward(x);
            f.mapv_inplace(|v| v.max(0.0));
            layer.down.forward(&f)
        };
        let a = layer.attend.forward(
            At {
                vectors: from.vectors,
                at: from.at,
            },
            keys(),
            windows,
            q,
            l,
            causal,
        );
        if self.shape.sequence.decoder {
            let mut o1 = a;
            add_from(&mut o1);
            layer.first.apply(&mut o1);
            let own: Vec<u32> = (0..(windows * q) as u32).collect();
            let mut o2 = layer.attend.forward(
                At {
                    vectors: &o1,
                    at: &own,
                },
                keys(),
                windows,
                q,
                l,
                causal,
            );
            o2 += &o1;
            layer.second.apply(&mut o2);
            let mut out = inner(&o2);
            out += &o2;
            layer.second.apply(&mut out);
            return out;
        }
        let mut u = a.clone();
        add_from(&mut u);
        layer.first.apply(&mut u);
        let mut out = inner(&u);
        if self.shape.reference {
            out.mapv_inplace(|v| v.max(0.0));
            out += &a;
        } else {
            out += &u;
        }
        layer.second.apply(&mut out);
        out
    }

    /// The transformer's output, [windows x l or windows, D], to probabilities.
    fn classify(&self, x: Array2<f32>, windows: usize, l: usize) -> Vec<f32> {
        let d = x.ncols();
        let pooled = match (self.shape.head, &self.shared) {
            (Head::LastToken | Head::ClsToken, _) => {
                // A stack without a layer gives all positions.
                let each = x.nrows() / windows.max(1);
                let last: Vec<usize> = (1..=windows).map(|i| i * each - 1).collect();
                x.select(ndarray::Axis(0), &last)
            }
            (_, Some(shared)) => reshaped(shared.forward(&x), [windows, l]),
            (Head::GlobalAveragePooling, _) => {
                let mut means = Array2::zeros((windows, d));
                for (i, position) in x.rows().into_iter().enumerate() {
                    means.row_mut(i / l).scaled_add(1.0 / l as f32, &position);
                }
                means
            }
            _ => reshaped(x, [windows, l * d]),
        };
        let mut hidden = self.hidden.forward(&pooled);
        hidden.mapv_inplace(|v| v.max(0.0));
        let logits = self.out.forward(&hidden);
        logits.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect()
    }
}

/// The distinct rows of windows, as far as a window shares them with the one before, and where each position's is.
fn distinct(rows: &[usize], w: usize) -> (Vec<usize>, Vec<u32>) {
    let mut needed: Vec<usize> = Vec::new();
    let mut at = Vec::with_capacity(rows.len());
    let in_order = |window: &[usize]| window.windows(2).all(|p| p[1] == p[0] + 1);
    let mut before = false;
    for window in rows.chunks_exact(w) {
        let own = in_order(window);
        let mut shared = 0;
        if let Some(last) = needed.last()
            && before
            && own
            && window[0] <= *last
            && *last <= window[w - 1]
        {
            shared = last - window[0] + 1;
        }
        let first = needed.len() - shared;
        needed.extend_from_slice(&window[shared..]);
        at.extend((first..first + w).map(|i| i as u32));
        before = own;
    }
    (needed, at)
}

fn matrix(values: Vec<f32>, [rows, columns]: [usize; 2]) -> Result<Array2<f32>> {
    Array2::from_shape_vec((rows, columns), values).map_err(|e| Error::Failed(e.to_string()))
}

fn reshaped(x: Array2<f32>, [rows, columns]: [usize; 2]) -> Array2<f32> {
    let mut out = Array2::zeros((rows, columns));
    out.iter_mut().zip(x.iter()).for_each(|(to, v)| *to = *v);
    out
}

fn product(x: &Array2<f32>, w: &Array2<f32>) -> Array2<f32> {
    let mut out = Array2::zeros((x.nrows(), w.ncols()));
    let (to, x, w): (ArrayViewMut2<f32>, ArrayView2<f32>, ArrayView2<f32>) =
        (out.view_mut(), x.view(), w.view());
    matmul_into_single(to, 1.0, x, w, 0.0);
    out
}

fn row(x: &Array2<f32>, i: usize) -> &[f32] {
    let d = x.ncols();
    x.as_slice()
        .map_or(&[], |values| &values[i * d..(i + 1) * d])
}

fn add_to_rows(x: &mut Array2<f32>, offset: &[f32]) {
    if !offset.is_empty() {
        for mut row in x.rows_mut() {
            row.iter_mut().zip(offset).for_each(|(v, o)| *v += o);
        }
    }
}

#[inline(always)]
fn add_scaled(to: &mut [f32], factor: f32, from: &[f32]) {
    to.iter_mut()
        .zip(from)
        .for_each(|(to, v)| *to += factor * v);
}

/// Lanes that are summed side by side, in a fixed order: four vectors of eight, so that no sum waits for the one before.
const LANES: usize = 32;

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    for (i, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] += a * b;
    }
    total(&lanes)
}

#[inline(always)]
fn sum(a: &[f32]) -> f32 {
    let (chunks, rest) = a.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += chunk[i];
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane += v;
    }
    total(&lanes)
}

#[inline(always)]
fn total(lanes: &[f32; LANES]) -> f32 {
    let mut eight = [0.0f32; 8];
    for (i, lane) in lanes.iter().enumerate() {
        eight[i % 8] += lane;
    }
    eight.iter().sum()
}

#[inline(always)]
fn softmax(scores: &mut [f32]) {
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - top).exp();
        total += *score;
    }
    scores.iter_mut().for_each(|s| *s /= total);
}
