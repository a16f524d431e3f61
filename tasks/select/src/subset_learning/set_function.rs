//! The set function F(S; V): networks on sums of element vectors, over S and over what S was picked from.
//!
//! Shapes: B sets of at most n elements with d features; e numbers of an element's vector; H of a hidden layer; L subsets
//! of each set.
//!
//! A subset enters only through the sum of its elements' vectors, and the first layer of a network is linear. So each
//! element is sent through the first layer once, p_i = W h_i; a subset's first layer is the sum of its p_i; and the
//! subset with one element more or less is that sum plus or minus p_i. What remains of the cost of n flips of each of M
//! subsets are the layers behind the first: B M n H^2. Naive masks of n x n for each subset would cost B M n^2 e before
//! them.

use super::batch::{Batch, Picked};
use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use papertrial_core::{Error, Result};
use papertrial_nn::blocks::{Activation, Mlp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the value of a subset depends on the set that it was picked from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Background {
    /// F = f(sum over S) + g(sum over the rest of V), as in the authors' program.
    Complement,
    /// F = w relu(f(sum over S) + g(sum over V)): added before a further layer, for two numbers added at the end would
    /// leave every comparison of two subsets of one set as it was.
    SupersetSum,
    /// F = w relu(f(sum over S, sum over V)), side by side.
    Concat,
    /// F = f(sum over S): blind to V.
    None,
}

/// How the vectors of a subset become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// Their sum, as in the paper; it grows with the set.
    Sum,
    /// Their mean, and the logarithm of 1 + their number; for large sets, or sets of very different sizes.
    MeanLogSize,
}

/// Sizes and kinds of the networks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Features of an element, d.
    pub features: usize,
    /// Numbers of an element's vector, e.
    pub embedding: usize,
    /// Numbers of a hidden layer, H.
    pub hidden: usize,
    /// Hidden layers of a network, at least 1.
    pub layers: usize,
    /// Hidden layers between an element's features and its vector; 0 for a linear map.
    pub encoder_layers: usize,
    /// Whether a map of V's mean vector is added to each element's vector.
    pub encoder_mean: bool,
    /// How the value depends on V.
    pub background: Background,
    /// How vectors become one.
    pub pooling: Pooling,
}

impl Shape {
    /// Checks that no size is 0.
    ///
    /// # Errors
    /// The option of the size that is.
    pub fn check(&self) -> Result<()> {
        for (option, value) in [
            ("embedding", self.embedding),
            ("hidden", self.hidden),
            ("layers", self.layers),
        ] {
            if value == 0 {
                return Err(Error::option(option, "must be at least 1"));
            }
        }
        Ok(())
    }

    /// Bytes that a step with `rows` subsets holds: their numbers behind each layer of two networks, and the gradients.
    pub fn bytes(&self, rows: usize) -> u64 {
        (rows as u64).saturating_mul((self.hidden * (self.layers + 1) * 4 * 4) as u64)
    }
}

/// Element vectors.
#[derive(Module, Debug)]
pub struct Encoder {
    embed: Mlp,
    mean: Option<Linear>,
}

impl Encoder {
    /// With the layers of `shape`.
    pub fn new(shape: &Shape, device: &Device) -> Self {
        let mut widths = vec![shape.features];
        widths.extend(vec![shape.embedding; shape.encoder_layers + 1]);
        Encoder {
            embed: Mlp::new(&widths, Activation::Relu, 0.0, device),
            mean: shape.encoder_mean.then(|| {
                LinearConfig::new(shape.embedding, shape.embedding)
                    .with_bias(false)
                    .init(device)
            }),
        }
    }

    /// Vectors h [B, n, e]; 0 for filling, so that no sum sees it.
    pub fn forward(&self, batch: &Batch) -> Tensor<3> {
        let [b, n, _] = batch.features.dims();
        let mask = batch.mask.clone().reshape([b, n, 1]);
        let h = self.embed.forward(batch.features.clone()) * mask.clone();
        match &self.mean {
            None => h,
            Some(linear) => {
                let mean = h.clone().sum_dim(1) / mask.clone().sum_dim(1);
                (h + linear.forward(mean)) * mask
            }
        }
    }
}

/// A network's first layer, to which subsets come as sums.
#[derive(Module, Debug)]
struct Entry {
    first: Linear,
    bias: Param<Tensor<1>>,
    size: Option<Param<Tensor<1>>>,
}

impl Entry {
    fn new(shape: &Shape, device: &Device) -> Self {
        let bound = 1.0 / (shape.embedding as f64).sqrt();
        let vector = || {
            Initializer::Uniform {
                min: -bound,
                max: bound,
            }
            .init([shape.hidden], device)
        };
        Entry {
            first: LinearConfig::new(shape.embedding, shape.hidden)
                .with_bias(false)
                .init(device),
            bias: vector(),
            size: (shape.pooling == Pooling::MeanLogSize).then(vector),
        }
    }

    /// p_i of each element: [B, n, e] to [B, n, H].
    fn project(&self, h: Tensor<3>) -> Tensor<3> {
        let [b, n, e] = h.dims();
        let p = self.first.forward(h.reshape([b * n, e]));
        let hidden = p.dims()[1];
        p.reshape([b, n, hidden])
    }

    /// The first layer of subsets with sums `z` [B, L, H] and sizes [B, L, 1].
    fn pool(&self, z: Tensor<3>, size: Tensor<3>) -> Tensor<3> {
        let hidden = z.dims()[2];
        let wide = |p: &Param<Tensor<1>>| p.val().reshape([1, 1, hidden]);
        let z = match &self.size {
            None => z,
            Some(weight) => z / size.clone().clamp_min(1.0) + size.log1p() * wide(weight),
        };
        z + wide(&self.bias)
    }
}

/// F(S; V).
#[derive(Module, Debug)]
pub struct SetFunction {
    encoder: Encoder,
    subset: Entry,
    subset_rest: Mlp,
    background: Option<Entry>,
    background_rest: Option<Mlp>,
    top: Option<Linear>,
    #[module(skip)]
    kind: Background,
}

/// Elements of a batch behind the first layers.
pub struct Projected {
    subset: Tensor<3>,
    background: Option<Tensor<3>>,
    /// Sum of `background` over V: [B, 1, H].
    whole: Option<Tensor<3>>,
    /// Sizes of the sets: [B, 1, 1].
    sizes: Tensor<3>,
}

impl SetFunction {
    /// With the layers of `shape`.
    pub fn new(shape: &Shape, device: &Device) -> Self {
        let (hidden, kind) = (shape.hidden, shape.background);
        let above = matches!(kind, Background::SupersetSum | Background::Concat);
        let out = if above { hidden } else { 1 };
        let rest = || {
            let mut widths = vec![hidden; shape.layers.max(1)];
            widths.push(out);
            Mlp::new(&widths, Activation::Relu, 0.0, device)
        };
        let two = matches!(kind, Background::Complement | Background::SupersetSum);
        SetFunction {
            encoder: Encoder::new(shape, device),
            subset: Entry::new(shape, device),
            subset_rest: rest(),
            background: (kind != Background::None).then(|| Entry::new(shape, device)),
            background_rest: two.then(rest),
            top: above.then(|| LinearConfig::new(hidden, 1).init(device)),
            kind,
        }
    }

    /// Sends the elements of a batch through the first layers.
    pub fn project(&self, batch: &Batch) -> Projected {
        let h = self.encoder.forward(batch);
        let [b, n] = batch.mask.dims();
        let background = self.background.as_ref().map(|e| e.project(h.clone()));
        Projected {
            subset: self.subset.project(h),
            whole: background.as_ref().map(|p| p.clone().sum_dim(1)),
            background,
            sizes: batch.mask.clone().reshape([b, n, 1]).sum_dim(1),
        }
    }

    /// F of subsets given as masks [B, L, n], 0 at filling: [B, L].
    pub fn values(&self, parts: &Projected, masks: Tensor<3>) -> Tensor<2> {
        let z = masks.clone().matmul(parts.subset.clone());
        let c = parts
            .background
            .as_ref()
            .filter(|_| self.kind == Background::Complement)
            .map(|p| masks.clone().matmul(p.clone()));
        self.finish(parts, z, c, masks.sum_dim(2))
    }

    /// F(S + i) - F(S - i) for M subsets S of each set and K of its elements i: [B, M, K].
    ///
    /// `masks` are the subsets, M B n numbers in the order [B, M, n]. One of S + i and S - i is S itself, so F is
    /// computed for S once and for each S with i flipped.
    pub fn flips(&self, parts: &Projected, masks: &[f32], picked: &Picked) -> Tensor<3> {
        let [b, n, hidden] = parts.subset.dims();
        let k = picked.width;
        let m = masks.len() / (b * n).max(1);
        let device = parts.subset.device();
        // +1 where the flip adds i, -1 where it takes i away.
        let mut signs = Vec::with_capacity(b * m * k);
        for (set, places) in picked.places.chunks(k.max(1)).enumerate() {
            for subset in masks[set * m * n..(set + 1) * m * n].chunks(n) {
                signs.extend(
                    places
                        .iter()
                        .map(|p| 1.0 - 2.0 * subset[*p as usize - set * n]),
                );
            }
        }
        let signs = Tensor::<4>::from_data(TensorData::new(signs, [b, m, k, 1]), &device);
        let masks = Tensor::<3>::from_data(TensorData::new(masks.to_vec(), [b, m, n]), &device);
        let places = picked.places(&device);
        let size = masks.clone().sum_dim(2);
        // Sums of S, [B, M, H], and of S with i flipped, [B, M K, H].
        let sums = |p: &Tensor<3>| {
            let whole = masks.clone().matmul(p.clone());
            let one = p.clone().reshape([b * n, hidden]).select(0, places.clone());
            let step = one.reshape([b, 1, k, hidden]) * signs.clone();
            let flipped = whole.clone().reshape([b, m, 1, hidden]) + step;
            (whole, flipped.reshape([b, m * k, hidden]))
        };
        let (z, z_flipped) = sums(&parts.subset);
        let (c, c_flipped) = match &parts.background {
            // The sum over V does not change with S.
            Some(p) if self.kind == Background::Complement => {
                let (c, f) = sums(p);
                (Some(c), Some(f))
            }
            _ => (None, None),
        };
        let size_flipped = size.clone().reshape([b, m, 1, 1]) + signs.clone();
        let before = self.finish(parts, z, c, size).reshape([b, m, 1]);
        let after = self
            .finish(
                parts,
                z_flipped,
                c_flipped,
                size_flipped.reshape([b, m * k, 1]),
            )
            .reshape([b, m, k]);
        (after - before) * signs.reshape([b, m, k])
    }

    /// F from sums over S behind the first layers: `z` of the subset's entry, `c` of the background's.
    fn finish(
        &self,
        parts: &Projected,
        z: Tensor<3>,
        c: Option<Tensor<3>>,
        size: Tensor<3>,
    ) -> Tensor<2> {
        let [b, l, hidden] = z.dims();
        // Flat matrices make one large product of many small ones.
        let through = |rest: &Mlp, z: Tensor<3>| {
            let [b, l, _] = z.dims();
            let out = rest.forward(relu(z.reshape([b * l, hidden])));
            let width = out.dims()[1];
            out.reshape([b, l, width])
        };
        let top = |z: Tensor<3>| match &self.top {
            Some(top) => top
                .forward(relu(z.reshape([b * l, hidden])))
                .reshape([b, l]),
            None => z.reshape([b, l]),
        };
        let z = self.subset.pool(z, size.clone());
        let (Some(entry), Some(whole)) = (&self.background, &parts.whole) else {
            return top(through(&self.subset_rest, z));
        };
        let all = parts.sizes.clone();
        match (&self.background_rest, c) {
            (Some(rest), Some(c)) if self.kind == Background::Complement => {
                let complement = entry.pool(whole.clone() - c, all - size);
                top(through(&self.subset_rest, z) + through(rest, complement))
            }
            (Some(rest), _) => {
                let superset = through(rest, entry.pool(whole.clone(), all));
                top(through(&self.subset_rest, z) + superset)
            }
            (None, _) => {
                let side_by_side = z + entry.pool(whole.clone(), all);
                top(through(&self.subset_rest, side_by_side))
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::sets::GroundSet;
    use super::*;
    use ndarray::Array2;
    use papertrial_nn::{device, seeded, values_of};
    use papertrial_numerics::sampling;
    use proptest::prelude::*;
    use rand::RngExt;

    pub(crate) const ALL: [Background; 4] = [
        Background::Complement,
        Background::SupersetSum,
        Background::Concat,
        Background::None,
    ];

    pub(crate) fn shape(background: Background) -> Shape {
        Shape {
            features: 3,
            embedding: 8,
            hidden: 12,
            layers: 2,
            encoder_layers: 0,
            encoder_mean: false,
            background,
            pooling: Pooling::Sum,
        }
    }

    fn function(shape: &Shape, seed: u64) -> SetFunction {
        seeded(&device("cpu").unwrap(), seed, |d| {
            SetFunction::new(shape, d)
        })
        .valid()
    }

    fn random_set(n: usize, seed: u64) -> GroundSet {
        let mut rng = sampling::rng(seed, "random set");
        GroundSet {
            name: "s".into(),
            elements: (0..n).map(|i| i.to_string()).collect(),
            features: Array2::from_shape_fn((n, 3), |_| rng.random_range(-2.0..2.0)),
            chosen: Some((0..n).map(|i| i == 0).collect()),
        }
    }

    /// F of subsets of one set, which lies beside a larger one if `padded`.
    fn values(f: &SetFunction, set: &GroundSet, subsets: &[Vec<f32>], padded: bool) -> Vec<f32> {
        let device = device("cpu").unwrap();
        let other = random_set(set.len() + 3, 77);
        let sets: Vec<&GroundSet> = if padded { vec![set, &other] } else { vec![set] };
        let batch = Batch::new(&sets, &device);
        let (b, n, l) = (batch.len(), batch.width(), subsets.len());
        let mut masks = vec![0.0f32; b * l * n];
        for (i, subset) in subsets.iter().enumerate() {
            masks[i * n..i * n + set.len()].copy_from_slice(subset);
        }
        let masks = Tensor::from_data(TensorData::new(masks, [b, l, n]), &device);
        let out = values_of(f.values(&f.project(&batch), masks)).unwrap();
        out[..l].to_vec()
    }

    fn close(a: f32, b: f32) -> bool {
        (a - b).abs() <= 2e-5 * (1.0 + a.abs().max(b.abs()))
    }

    /// The formula of `complement` on plain numbers.
    #[test]
    fn complement_is_two_networks_on_two_sums() {
        let f = function(&shape(Background::Complement), 3);
        let set = random_set(5, 1);
        let subset = [1.0, 0.0, 0.0, 1.0, 0.0];
        let matrix = |l: &Linear| {
            let w = values_of(l.weight.val()).unwrap();
            let [i, o] = l.weight.dims();
            let b = l
                .bias
                .as_ref()
                .map_or(vec![0.0; o], |b| values_of(b.val()).unwrap());
            move |x: &[f32]| -> Vec<f32> {
                assert_eq!(x.len(), i);
                (0..o)
                    .map(|c| b[c] + (0..i).map(|r| x[r] * w[r * o + c]).sum::<f32>())
                    .collect()
            }
        };
        let network = |entry: &Entry, rest: &Mlp, sum: &[f32]| -> f32 {
            let bias = values_of(entry.bias.val()).unwrap();
            let z = matrix(&entry.first)(sum);
            let z: Vec<f32> = z.iter().zip(&bias).map(|(a, b)| (a + b).max(0.0)).collect();
            let x = Tensor::<1>::from_data(TensorData::new(z, [12]), &device("cpu").unwrap());
            values_of(rest.forward(x.reshape([1, 12]))).unwrap()[0]
        };
        let sum = |right: f32| -> Vec<f32> {
            let embed = matrix(f.encoder.embed.head().unwrap());
            let mut total = vec![0.0; 8];
            for (row, mark) in set.features.outer_iter().zip(subset) {
                if mark == right {
                    for (t, v) in total.iter_mut().zip(embed(&row.to_vec())) {
                        *t += v;
                    }
                }
            }
            total
        };
        let want = network(&f.subset, &f.subset_rest, &sum(1.0))
            + network(
                f.background.as_ref().unwrap(),
                f.background_rest.as_ref().unwrap(),
                &sum(0.0),
            );
        let got = values(&f, &set, &[subset.to_vec()], false)[0];
        assert!(close(got, want), "{got} {want}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn order_and_filling_do_not_matter_and_the_background_does(
            seed in 0u64..1000,
            n in 2usize..8,
            kind in 0usize..4,
            mean_pooling: bool,
            encoder_mean: bool,
        ) {
            let shape = Shape {
                pooling: if mean_pooling { Pooling::MeanLogSize } else { Pooling::Sum },
                encoder_mean,
                encoder_layers: usize::from(encoder_mean),
                hidden: 32,
                ..shape(ALL[kind])
            };
            let f = function(&shape, seed);
            let set = random_set(n, seed);
            let subset: Vec<f32> = (0..n).map(|i| if i % 2 == 0 { 1.0 } else { 0.0 }).collect();
            let plain = values(&f, &set, std::slice::from_ref(&subset), false)[0];
            prop_assert!(close(plain, values(&f, &set, std::slice::from_ref(&subset), true)[0]));
            // Another order of V.
            let order = sampling::permutation(&mut sampling::rng(seed, "order"), n);
            let turned = GroundSet {
                features: set.features.select(ndarray::Axis(0), &order),
                ..set.clone()
            };
            let turned_subset: Vec<f32> = order.iter().map(|i| subset[*i]).collect();
            prop_assert!(close(plain, values(&f, &turned, &[turned_subset], false)[0]));
            // Another V around the same S: the difference of two subsets tells what choices depend on. The networks are
            // linear in pieces, so only a far element is sure to change the piece, and one of several nearly so.
            let pad = |s: &[f32], n: usize| { let mut s = s.to_vec(); s.resize(n, 0.0); s };
            let gap = |set: &GroundSet| {
                let subsets = [pad(&subset, set.len()), pad(&[], set.len())];
                let v = values(&f, set, &subsets, false);
                v[0] - v[1]
            };
            let near = gap(&set);
            let seen = [[30.0, -20.0, 40.0], [-30.0, 20.0, 40.0], [30.0, 20.0, -40.0]].iter().any(|x| {
                let mut features = set.features.clone();
                features.push_row(ndarray::aview1(x)).unwrap();
                let wider = GroundSet {
                    features,
                    elements: (0..=n).map(|i| i.to_string()).collect(),
                    ..set.clone()
                };
                !close(near, gap(&wider))
            });
            let blind = ALL[kind] == Background::None && !encoder_mean;
            prop_assert_eq!(seen, !blind);
        }

        #[test]
        fn flips_are_differences_of_values(seed in 0u64..1000, kind in 0usize..4, mean_pooling: bool) {
            let shape = Shape {
                pooling: if mean_pooling { Pooling::MeanLogSize } else { Pooling::Sum },
                ..shape(ALL[kind])
            };
            let f = function(&shape, seed);
            let device = device("cpu").unwrap();
            let sets = [random_set(4, seed), random_set(6, seed + 1)];
            let batch = Batch::new(&[&sets[0], &sets[1]], &device);
            let (n, m) = (6, 3);
            let mut rng = sampling::rng(seed, "masks");
            let mut masks = vec![0.0f32; 2 * m * n];
            for (set, size) in batch.sizes.iter().enumerate() {
                for s in 0..m {
                    for i in 0..*size {
                        masks[(set * m + s) * n + i] = f32::from(u8::from(rng.random::<bool>()));
                    }
                }
            }
            let picks = vec![vec![3, 0], vec![5, 1, 2]];
            let picked = Picked::new(&picks, n);
            let got = values_of(f.flips(&f.project(&batch), &masks, &picked)).unwrap();
            for (set, picks) in picks.iter().enumerate() {
                for s in 0..m {
                    let subset = &masks[(set * m + s) * n..][..sets[set].len()];
                    for (k, i) in picks.iter().enumerate() {
                        let with = |v: f32| { let mut x = subset.to_vec(); x[*i] = v; x };
                        let v = values(&f, &sets[set], &[with(1.0), with(0.0)], false);
                        let got = got[(set * m + s) * 3 + k];
                        prop_assert!((got - (v[0] - v[1])).abs() < 1e-4, "{} {:?}", got, v);
                    }
                }
            }
        }
    }
}
