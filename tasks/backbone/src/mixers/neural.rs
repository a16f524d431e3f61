//! What the trained mixers share: maps, convolution, products of attention in chunks, and the scan.

use super::maps::{Affine, Maps};
use burn::module::{Initializer, Module, Param};
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Bool, Device, Tensor, activation};
use ndarray::{Array1, Array2, s};
use papertrial_core::{Error, Result};
use papertrial_nn::blocks::Activation;
use papertrial_nn::{ops, values_of};

/// Positions of a chunk: within it attention goes by a matrix of weights, from one to the next by a state.
const CHUNK: usize = 64;

/// Added to a mean square, so that its root has a slope.
const EPSILON: f64 = 1e-5;

/// The logarithm of a weight that is to be 0: its exponential is.
const NOTHING: f64 = -1e4;

/// log(1 + exp(x)); beyond 20 it is x, from which it then differs by less than a rounding.
pub fn softplus<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::softplus(x, 1.0)
}

/// A map with or without an offset.
#[derive(Module, Debug)]
pub struct Linear {
    /// [inputs, outputs].
    weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// Weights of the normal distribution with this deviation, offsets 0.
    pub fn new(inputs: usize, outputs: usize, deviation: f64, bias: bool, device: &Device) -> Self {
        Linear {
            weight: normal(deviation).init([inputs, outputs], device),
            bias: bias.then(|| Initializer::Zeros.init([outputs], device)),
        }
    }

    /// Other offsets to begin with.
    pub fn set_bias(&mut self, bias: Tensor<1>) {
        self.bias = Some(Param::from_tensor(bias));
    }

    /// [b, l, inputs] to [b, l, outputs].
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        ops::linear(
            x,
            self.weight.val(),
            self.bias.as_ref().map(|bias| bias.val()),
        )
    }

    /// The same in double precision.
    ///
    /// # Errors
    /// The device cannot give the weights.
    pub fn plain(&self) -> Result<Affine<f64>> {
        let weight = matrix_of(self.weight.val())?.reversed_axes();
        let bias = match &self.bias {
            Some(bias) => row_of(bias.val())?,
            None => Array1::zeros(weight.nrows()),
        };
        Ok(Affine { weight, bias })
    }

    /// The same for `inputs` numbers, of which only the first count.
    ///
    /// # Errors
    /// The device cannot give the weights.
    pub fn plain_from_first(&self, inputs: usize) -> Result<Affine<f64>> {
        let Affine { weight, bias } = self.plain()?;
        let mut wider = Array2::zeros((weight.nrows(), inputs));
        wider.slice_mut(s![.., ..weight.ncols()]).assign(&weight);
        Ok(Affine {
            weight: wider,
            bias,
        })
    }
}

/// A normal distribution around 0.
pub fn normal(deviation: f64) -> Initializer {
    Initializer::Normal {
        mean: 0.0,
        std: deviation,
    }
}

/// Weights in double precision.
///
/// # Errors
/// The device cannot give them.
pub fn matrix_of(tensor: Tensor<2>) -> Result<Array2<f64>> {
    let [rows, columns] = tensor.dims();
    let values = values_of(tensor)?.into_iter().map(f64::from).collect();
    Array2::from_shape_vec((rows, columns), values).map_err(|e| Error::Failed(e.to_string()))
}

/// A row of weights in double precision.
///
/// # Errors
/// The device cannot give them.
pub fn row_of(tensor: Tensor<1>) -> Result<Array1<f64>> {
    Ok(values_of(tensor)?.into_iter().map(f64::from).collect())
}

/// Each position's numbers of `by` positions before, 0 where there are none: [b, l, d] to [b, l, d].
pub fn shifted(x: Tensor<3>, by: usize) -> Tensor<3> {
    let [b, l, d] = x.dims();
    if by == 0 {
        return x;
    }
    let by = by.min(l);
    let zeros = Tensor::zeros([b, by, d], &x.device());
    if by == l {
        return zeros;
    }
    Tensor::cat(vec![zeros, x.narrow(1, 0, l - by)], 1)
}

/// A convolution of each channel over the last positions, with offsets.
#[derive(Module, Debug)]
pub struct Convolution {
    /// [width, channels]: row t is for t positions before.
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Convolution {
    /// Weights even up to 1 / sqrt(width), as PyTorch draws them; offsets 0.
    pub fn new(width: usize, channels: usize, device: &Device) -> Self {
        let most = 1.0 / (width.max(1) as f64).sqrt();
        Convolution {
            weight: Initializer::Uniform {
                min: -most,
                max: most,
            }
            .init([width.max(1), channels], device),
            bias: Initializer::Zeros.init([channels], device),
        }
    }

    /// [b, l, channels] to [b, l, channels].
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let weight = self.weight.val();
        let [width, channels] = weight.dims();
        let mut y = self.bias.val().reshape([1, 1, channels]).expand(x.dims());
        for t in 0..width {
            let of_t = weight.clone().narrow(0, t, 1).unsqueeze::<3>();
            y = y + shifted(x.clone(), t) * of_t;
        }
        y
    }
}

/// Queries and keys of a head are made from the last `shift` positions, values from the position itself.
#[derive(Module, Debug)]
pub struct AttentionMaps {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: usize,
    shift: usize,
    d: usize,
}

/// Queries, keys and values, [b heads, l, m or d / heads].
pub struct Parts {
    /// Queries.
    pub queries: Tensor<3>,
    /// Keys.
    pub keys: Tensor<3>,
    /// Values.
    pub values: Tensor<3>,
}

impl AttentionMaps {
    /// For d numbers, `m` features of all heads together; `deviations` are those of the maps in and of the map out.
    pub fn new(
        d: usize,
        m: usize,
        heads: usize,
        shift: usize,
        deviations: (f64, f64),
        device: &Device,
    ) -> Self {
        let shift = shift.max(1);
        AttentionMaps {
            query: Linear::new(shift * d, m, deviations.0, true, device),
            key: Linear::new(shift * d, m, deviations.0, true, device),
            value: Linear::new(d, d, deviations.0, false, device),
            out: Linear::new(d, d, deviations.1, true, device),
            heads,
            shift,
            d,
        }
    }

    /// Heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// The last positions side by side, the position itself first: [b, l, d] to [b, l, shift d].
    pub fn core(&self, x: Tensor<3>) -> Tensor<3> {
        if self.shift == 1 {
            return x;
        }
        Tensor::cat((0..self.shift).map(|t| shifted(x.clone(), t)).collect(), 2)
    }

    /// The position itself: [b, l, shift d] to [b, l, d].
    pub fn now(&self, core: Tensor<3>) -> Tensor<3> {
        core.narrow(2, 0, self.d)
    }

    /// From [b, l, shift d].
    pub fn open(&self, core: Tensor<3>) -> Parts {
        Parts {
            queries: split(self.query.forward(core.clone()), self.heads),
            keys: split(self.key.forward(core.clone()), self.heads),
            values: split(self.value.forward(self.now(core)), self.heads),
        }
    }

    /// The map out: [b, l, d] to [b, l, d].
    pub fn close(&self, y: Tensor<3>) -> Tensor<3> {
        self.out.forward(y)
    }

    /// The maps in, in double precision.
    ///
    /// # Errors
    /// The device cannot give the weights.
    pub fn plain(&self) -> Result<Maps<f64>> {
        Ok(Maps {
            query: self.query.plain()?,
            key: self.key.plain()?,
            value: self.value.plain_from_first(self.shift * self.d)?.weight,
            heads: self.heads,
        })
    }
}

/// [b, l, heads w] to [b heads, l, w].
pub fn split(x: Tensor<3>, heads: usize) -> Tensor<3> {
    let [b, l, d] = x.dims();
    if heads == 1 {
        return x;
    }
    x.reshape([b, l, heads, d / heads])
        .swap_dims(1, 2)
        .reshape([b * heads, l, d / heads])
}

/// [b heads, l, w] to [b, l, heads w].
pub fn merge(x: Tensor<3>, heads: usize) -> Tensor<3> {
    let [rows, l, w] = x.dims();
    if heads == 1 {
        return x;
    }
    x.reshape([rows / heads, heads, l, w])
        .swap_dims(1, 2)
        .reshape([rows / heads, l, heads * w])
}

/// Sums over j <= i of q_i.k_j v_j, in chunks.
#[derive(Module, Debug)]
pub struct Products {
    dropout: Dropout,
}

impl Products {
    /// With dropout on the weights, within a chunk.
    pub fn new(dropout: f64) -> Self {
        Products {
            dropout: DropoutConfig::new(dropout).init(),
        }
    }

    /// With `log_keep`, [g, l], each weight is multiplied by the exponential of the sum of it from j + 1 to i; it must
    /// be at most 0. q and k are [g, l, n], v and the result [g, l, w].
    pub fn plain(
        &self,
        q: Tensor<3>,
        k: Tensor<3>,
        v: Tensor<3>,
        log_keep: Option<Tensor<2>>,
    ) -> Tensor<3> {
        self.run(q, k, v, log_keep, false).0
    }

    /// Also the sums of the weights, [g, l, 1].
    pub fn normalised(&self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        let (y, sums) = self.run(q, k, v, None, true);
        let sums = sums.unwrap_or_else(|| y.ones_like().narrow(2, 0, 1));
        (y, sums)
    }

    fn run(
        &self,
        q: Tensor<3>,
        k: Tensor<3>,
        v: Tensor<3>,
        log_keep: Option<Tensor<2>>,
        summed: bool,
    ) -> (Tensor<3>, Option<Tensor<3>>) {
        let [g, l, _] = q.dims();
        let device = q.device();
        let (mut ys, mut all_sums) = (Vec::new(), Vec::new());
        // Of the chunks before: the sums of k v^T, [g, n, w], and of k, [g, n, 1].
        let mut state: Option<(Tensor<3>, Tensor<3>)> = None;
        for start in (0..l).step_by(CHUNK) {
            let c = CHUNK.min(l - start);
            let [q, k, v] = [&q, &k, &v].map(|t| t.clone().narrow(1, start, c));
            let later = Tensor::<2, Bool>::tril_mask([c, c], 0, &device).unsqueeze::<3>();
            let mut weights = q.clone().matmul(k.clone().transpose());
            // log of what is left, of the chunk's start at each position, [g, c, 1].
            let left = log_keep.as_ref().map(|log| {
                let upper = Tensor::<2>::ones([c, c], &device).triu(0);
                let left = log.clone().narrow(1, start, c).matmul(upper);
                left.reshape([g, c, 1])
            });
            weights = match &left {
                Some(left) => {
                    let between = left.clone() - left.clone().swap_dims(1, 2);
                    weights * between.mask_fill(later, NOTHING).exp()
                }
                None => weights.mask_fill(later, 0.0),
            };
            let mut sums = summed.then(|| weights.clone().sum_dim(2));
            let mut y = self.dropout.forward(weights).matmul(v.clone());
            if let Some((products, keys)) = &state {
                let q = match &left {
                    Some(left) => q * left.clone().exp(),
                    None => q,
                };
                y = y + q.clone().matmul(products.clone());
                sums = sums.map(|s| s + q.matmul(keys.clone()));
            }
            if start + c < l {
                let (k, kept) = match left {
                    Some(left) => {
                        let end = left.clone().narrow(1, c - 1, 1);
                        (k * (end.clone() - left).exp(), Some(end.exp()))
                    }
                    None => (k, None),
                };
                let k = k.transpose();
                let (mut products, mut keys) = (k.clone().matmul(v), k.sum_dim(2));
                if let Some((before, keys_before)) = state {
                    let fade = |t: Tensor<3>| match &kept {
                        Some(kept) => t * kept.clone(),
                        None => t,
                    };
                    products = products + fade(before);
                    keys = keys + fade(keys_before);
                }
                state = Some((products, keys));
            }
            ys.push(y);
            all_sums.extend(sums);
        }
        let joined = |mut parts: Vec<Tensor<3>>| match parts.len() {
            0 => None,
            1 => parts.pop(),
            _ => Some(Tensor::cat(parts, 1)),
        };
        (joined(ys).unwrap_or(v), joined(all_sums))
    }
}

/// What stands around a gated mixer: a map to (gate, x), a convolution on x, the mixer, times the gate, a map back.
#[derive(Module, Debug)]
pub struct Gated {
    input: Linear,
    convolution: Convolution,
    output: Linear,
    channels: usize,
    convolved: usize,
    /// Whether SiLU follows on the convolution.
    curved: bool,
    #[module(skip)]
    gate: Activation,
}

/// Sizes and curves of what stands around a gated mixer.
pub struct Around {
    /// Numbers of a position outside.
    pub d: usize,
    /// Numbers of the gate and of what comes out of the mixer.
    pub channels: usize,
    /// Numbers that go into the mixer after the convolution.
    pub convolved: usize,
    /// Numbers that go into the mixer without it, placed behind.
    pub beside: usize,
    /// Positions that the convolution looks at.
    pub width: usize,
    /// Whether SiLU follows on the convolution.
    pub curved: bool,
    /// The gate's curve.
    pub gate: Activation,
    /// Deviations of the map in and of the map out.
    pub deviations: (f64, f64),
}

impl Gated {
    /// Of drawn weights.
    pub fn new(around: &Around, device: &Device) -> Self {
        let Around {
            d,
            channels,
            convolved,
            ..
        } = *around;
        let inside = channels + convolved + around.beside;
        Gated {
            input: Linear::new(d, inside, around.deviations.0, false, device),
            convolution: Convolution::new(around.width, convolved, device),
            output: Linear::new(channels, d, around.deviations.1, false, device),
            channels,
            convolved,
            curved: around.curved,
            gate: around.gate,
        }
    }

    /// Numbers that come out of the mixer.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// What goes into the mixer and the gate: from [b, l, d].
    pub fn open(&self, x: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        let inside = self.input.forward(x);
        let [_, _, width] = inside.dims();
        let gate = inside.clone().narrow(2, 0, self.channels);
        let x = inside.clone().narrow(2, self.channels, self.convolved);
        let mut core = self.convolution.forward(x);
        if self.curved {
            core = ops::silu(core);
        }
        let used = self.channels + self.convolved;
        if used < width {
            core = Tensor::cat(vec![core, inside.narrow(2, used, width - used)], 2);
        }
        (core, gate)
    }

    /// [b, l, channels] and the gate to [b, l, d].
    pub fn close(&self, y: Tensor<3>, gate: Tensor<3>) -> Tensor<3> {
        self.output.forward(y * self.gate.apply(gate))
    }

    /// The same with what comes before the map out divided by its root mean square, times `gain`.
    pub fn close_normalised(&self, y: Tensor<3>, gate: Tensor<3>, gain: Tensor<1>) -> Tensor<3> {
        let y = y * self.gate.apply(gate);
        let size = (y.clone().square().mean_dim(2) + EPSILON).sqrt();
        self.output.forward(y / size * gain.unsqueeze::<3>())
    }
}
