//! The one form: a linear system whose matrices change with the position.
//!
//! h_i = Lam_i h_{i-1} + B_i u_i, y_i = C_i h_i + D u_i, from h_0 = 0, for i = 1 to L. Unrolled it is a matrix of
//! weights, y_i = sum over j <= i of Phi_ij u_j, with Phi_ij = C_i Lam_i ... Lam_{j+1} B_j, and D added where j = i.
//!
//! All mixers here fit one structure. `channels` numbers come out at each position, each read from n numbers of the
//! state, so that the state has N = channels n numbers, and number r of channel c is in place c n + r (the channel
//! outside, n inside). Lam_i is diagonal and positive. With v_i = W u_i, one number a channel:
//! - row c n + r of B_i is write_i(c, r) times row c of W; for attention this is I (x) psi(k_i) W / eta_i,
//! - row c of C_i has read_i(c, r) in place c n + r and 0 elsewhere; for attention this is I (x) phi(q_i)^T,
//! - D is W with row c multiplied by skip(c).
//!
//! Lam is kept as its logarithm, and a product over many positions is the exponential of a sum, so that it cannot
//! underflow before it is used, and Lam^-1 is never formed.
//!
//! Cost: recurrent O(L N) time and O(N) memory; scan O(L chunk N) and O(N + chunk); matrix O(L^2 N) and O(L^2).

use super::real::Real;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, s};

/// Sizes of a mixer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Numbers that come out at each position.
    pub channels: usize,
    /// Numbers of the state for each of them.
    pub n: usize,
    /// Heads, which share the channels evenly.
    pub heads: usize,
}

impl Shape {
    /// N, the numbers of the state. (The authors' code counts 2 d m for attention of m features, whatever the heads.)
    pub fn state(self) -> usize {
        self.channels * self.n
    }

    /// Channels of a head.
    fn width(self) -> usize {
        (self.channels / self.heads.max(1)).max(1)
    }
}

/// What a coefficient depends on besides the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// The head: one number a head.
    Head,
    /// The channel: one number a channel.
    Channel,
    /// Head and r: n numbers a head.
    Feature,
    /// Channel and r: one number for each number of the state.
    State,
}

impl Spread {
    /// How many numbers there are.
    pub fn count(self, shape: Shape) -> usize {
        match self {
            Spread::Head => shape.heads,
            Spread::Channel => shape.channels,
            Spread::Feature => shape.heads * shape.n,
            Spread::State => shape.state(),
        }
    }

    /// Place of the number for channel `c` and `r`.
    pub fn place(self, shape: Shape, c: usize, r: usize) -> usize {
        match self {
            Spread::Head => c / shape.width(),
            Spread::Channel => c,
            Spread::Feature => c / shape.width() * shape.n + r,
            Spread::State => c * shape.n + r,
        }
    }
}

/// The spreads of the three coefficients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spreads {
    /// Of log Lam.
    pub keep: Spread,
    /// Of B without W.
    pub write: Spread,
    /// Of C.
    pub read: Spread,
}

/// The coefficients at one position.
#[derive(Debug, Clone, PartialEq)]
pub struct Coefficients<F> {
    /// log Lam.
    pub log_keep: Vec<F>,
    /// B without W.
    pub write: Vec<F>,
    /// C.
    pub read: Vec<F>,
}

impl<F: Real> Coefficients<F> {
    /// Zeros in the right number.
    pub fn new(shape: Shape, spreads: Spreads) -> Self {
        let zeros = |spread: Spread| vec![F::zero(); spread.count(shape)];
        Coefficients {
            log_keep: zeros(spreads.keep),
            write: zeros(spreads.write),
            read: zeros(spreads.read),
        }
    }

    /// h = Lam h + B u and y = C h + D u, with v = W u.
    pub fn advance(
        &self,
        shape: Shape,
        spreads: Spreads,
        skip: Option<ArrayView1<F>>,
        v: &[F],
        h: &mut [F],
        y: &mut [F],
    ) {
        let n = shape.n;
        for (c, (h, y)) in h.chunks_exact_mut(n).zip(y.iter_mut()).enumerate() {
            let mut sum = skip.map_or(F::zero(), |s| s[c] * v[c]);
            // Where a channel's numbers all fade alike, one exponential serves for them.
            let same = match spreads.keep {
                Spread::Head | Spread::Channel => {
                    Some(self.log_keep[spreads.keep.place(shape, c, 0)].exp())
                }
                _ => None,
            };
            let write = &self.write[spreads.write.place(shape, c, 0)..];
            let read = &self.read[spreads.read.place(shape, c, 0)..];
            for (r, h) in h.iter_mut().enumerate() {
                let keep = match same {
                    Some(keep) => keep,
                    None => self.log_keep[spreads.keep.place(shape, c, r)].exp(),
                };
                *h = keep * *h + at(write, spreads.write, r) * v[c];
                sum += at(read, spreads.read, r) * *h;
            }
            *y = sum;
        }
    }
}

/// Number `r` of a channel's coefficients, which begin with `from`.
fn at<F: Real>(from: &[F], spread: Spread, r: usize) -> F {
    match spread {
        Spread::Head | Spread::Channel => from[0],
        Spread::Feature | Spread::State => from[r],
    }
}

/// A sequence's system.
#[derive(Debug, Clone)]
pub struct LtvSystem<F> {
    /// Sizes.
    pub shape: Shape,
    /// What the coefficients depend on.
    pub spreads: Spreads,
    /// The coefficients at each position.
    pub positions: Vec<Coefficients<F>>,
    /// W, [channels, inputs].
    pub values: Array2<F>,
    /// D without W.
    pub skip: Option<Array1<F>>,
}

impl<F: Real> LtvSystem<F> {
    fn log_keep(&self, i: usize, c: usize, r: usize) -> F {
        self.positions[i].log_keep[self.spreads.keep.place(self.shape, c, r)]
    }

    fn write(&self, i: usize, c: usize, r: usize) -> F {
        self.positions[i].write[self.spreads.write.place(self.shape, c, r)]
    }

    fn read(&self, i: usize, c: usize, r: usize) -> F {
        self.positions[i].read[self.spreads.read.place(self.shape, c, r)]
    }

    /// Whether the n numbers of a channel all fade alike.
    fn fades_alike(&self) -> bool {
        matches!(self.spreads.keep, Spread::Head | Spread::Channel)
    }

    /// The diagonal of Lam_i, [N].
    pub fn transition(&self, i: usize) -> Array1<F> {
        let n = self.shape.n;
        Array1::from_shape_fn(self.shape.state(), |s| self.log_keep(i, s / n, s % n).exp())
    }

    /// B_i, [N, inputs].
    pub fn input(&self, i: usize) -> Array2<F> {
        let n = self.shape.n;
        Array2::from_shape_fn((self.shape.state(), self.values.ncols()), |(s, p)| {
            self.write(i, s / n, s % n) * self.values[[s / n, p]]
        })
    }

    /// C_i, [channels, N].
    pub fn output(&self, i: usize) -> Array2<F> {
        let n = self.shape.n;
        Array2::from_shape_fn((self.shape.channels, self.shape.state()), |(c, s)| {
            if s / n == c {
                self.read(i, c, s % n)
            } else {
                F::zero()
            }
        })
    }

    /// D, [channels, inputs].
    pub fn direct(&self) -> Array2<F> {
        Array2::from_shape_fn(self.values.dim(), |(c, p)| match &self.skip {
            Some(skip) => skip[c] * self.values[[c, p]],
            None => F::zero(),
        })
    }

    /// Phi of one channel, [L, L], without W: y_i(c) is the sum over j of Phi_ij v_j(c).
    pub fn convolution_matrix(&self, c: usize) -> Array2<F> {
        let (length, n) = (self.positions.len(), self.shape.n);
        let mut phi = Array2::zeros((length, length));
        let alike = self.fades_alike();
        // The sum of log Lam from j + 1 to i, built from i downwards, so that no large sums are subtracted.
        let mut faded = vec![F::zero(); if alike { 1 } else { n }];
        for i in 0..length {
            faded.fill(F::zero());
            for j in (0..=i).rev() {
                let mut weight = F::zero();
                if alike {
                    for r in 0..n {
                        weight += self.read(i, c, r) * self.write(j, c, r);
                    }
                    weight *= faded[0].exp();
                } else {
                    for (r, faded) in faded.iter().enumerate() {
                        weight += self.read(i, c, r) * faded.exp() * self.write(j, c, r);
                    }
                }
                phi[[i, j]] = weight;
                for (r, faded) in faded.iter_mut().enumerate() {
                    *faded += self.log_keep(j, c, r);
                }
            }
            if let Some(skip) = &self.skip {
                phi[[i, i]] += skip[c];
            }
        }
        phi
    }

    /// Whether all channels of a head have the same Phi.
    pub fn alike_within_heads(&self) -> bool {
        let within = |s: Spread| matches!(s, Spread::Head | Spread::Feature);
        let Spreads { keep, write, read } = self.spreads;
        within(keep) && within(write) && within(read) && self.skip.is_none()
    }

    /// The outputs by Phi: [L, inputs] to [L, channels].
    pub fn convolve(&self, u: ArrayView2<F>) -> Array2<F> {
        let v = u.dot(&self.values.t());
        let mut y = Array2::zeros(v.dim());
        let step = if self.alike_within_heads() {
            self.shape.width()
        } else {
            1
        };
        for c in (0..self.shape.channels).step_by(step) {
            let columns = s![.., c..c + step];
            let product = self.convolution_matrix(c).dot(&v.slice(columns));
            y.slice_mut(columns).assign(&product);
        }
        y
    }

    /// The outputs by chunks of `chunk` positions: within a chunk by weights, from one to the next by the state.
    pub fn scan(&self, u: ArrayView2<F>, chunk: usize) -> Array2<F> {
        let v = u.dot(&self.values.t());
        let (length, n) = (v.nrows(), self.shape.n);
        let mut y = Array2::zeros(v.dim());
        let mut h = vec![F::zero(); self.shape.state()];
        let mut faded = vec![F::zero(); n];
        for start in (0..length).step_by(chunk.max(1)) {
            let end = (start + chunk.max(1)).min(length);
            for c in 0..self.shape.channels {
                let h = &mut h[c * n..(c + 1) * n];
                for i in start..end {
                    faded.fill(F::zero());
                    let mut sum = self.skip.as_ref().map_or(F::zero(), |s| s[c] * v[[i, c]]);
                    for j in (start..=i).rev() {
                        for (r, faded) in faded.iter_mut().enumerate() {
                            let weight = self.read(i, c, r) * faded.exp() * self.write(j, c, r);
                            sum += weight * v[[j, c]];
                            *faded += self.log_keep(j, c, r);
                        }
                    }
                    for (r, (faded, h)) in faded.iter().zip(h.iter()).enumerate() {
                        sum += self.read(i, c, r) * faded.exp() * *h;
                    }
                    y[[i, c]] = sum;
                }
                for (r, h) in h.iter_mut().enumerate() {
                    let mut faded = F::zero();
                    let mut next = F::zero();
                    for j in (start..end).rev() {
                        next += faded.exp() * self.write(j, c, r) * v[[j, c]];
                        faded += self.log_keep(j, c, r);
                    }
                    *h = faded.exp() * *h + next;
                }
            }
        }
        y
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_numerics::sampling::rng;
    use proptest::prelude::*;
    use rand::RngExt;

    const SPREADS: [Spread; 4] = [
        Spread::Head,
        Spread::Channel,
        Spread::Feature,
        Spread::State,
    ];

    fn system(seed: u64, length: usize, shape: Shape, spreads: Spreads) -> LtvSystem<f64> {
        let mut rng = rng(seed, "system");
        let mut draw = |count: usize, low: f64, high: f64| -> Vec<f64> {
            (0..count).map(|_| rng.random_range(low..high)).collect()
        };
        let positions = (0..length)
            .map(|_| Coefficients {
                log_keep: draw(spreads.keep.count(shape), -2.0, 0.3),
                write: draw(spreads.write.count(shape), -1.0, 1.0),
                read: draw(spreads.read.count(shape), -1.0, 1.0),
            })
            .collect();
        let inputs = 7;
        let values = draw(shape.channels * inputs, -1.0, 1.0);
        LtvSystem {
            shape,
            spreads,
            positions,
            values: Array2::from_shape_vec((shape.channels, inputs), values).unwrap(),
            skip: Some(Array1::from_vec(draw(shape.channels, -1.0, 1.0))),
        }
    }

    /// The system by its dense matrices, as it is defined.
    fn by_definition(system: &LtvSystem<f64>, u: ArrayView2<f64>) -> Array2<f64> {
        let mut h = Array1::<f64>::zeros(system.shape.state());
        let mut y = Array2::zeros((u.nrows(), system.shape.channels));
        for (i, u) in u.rows().into_iter().enumerate() {
            h = system.transition(i) * h + system.input(i).dot(&u);
            let out = system.output(i).dot(&h) + system.direct().dot(&u);
            y.row_mut(i).assign(&out);
        }
        y
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn matrix_chunks_and_definition_agree(
            seed in 0u64..1000, length in 0usize..12, chunk in 1usize..5,
            keep in 0usize..4, write in 0usize..4, read in 0usize..4,
        ) {
            let shape = Shape { channels: 4, n: 3, heads: 2 };
            let spreads = Spreads { keep: SPREADS[keep], write: SPREADS[write], read: SPREADS[read] };
            let system = system(seed, length, shape, spreads);
            let mut rng = rng(seed, "u");
            let u = Array2::from_shape_fn((length, 7), |_| rng.random_range(-1.0..1.0));
            let want = by_definition(&system, u.view());
            for got in [system.convolve(u.view()), system.scan(u.view(), chunk)] {
                for (g, w) in got.iter().zip(&want) {
                    prop_assert!((g - w).abs() < 1e-11, "{g} {w}");
                }
            }
        }
    }

    /// d = 3 channels of n = 5: the channel is outside, so that B is I (x) psi and C is I (x) phi^T, in this order.
    #[test]
    fn the_order_of_the_kronecker_product() {
        let shape = Shape {
            channels: 3,
            n: 5,
            heads: 1,
        };
        let spreads = Spreads {
            keep: Spread::Head,
            write: Spread::Feature,
            read: Spread::Feature,
        };
        let mut system = system(1, 2, shape, spreads);
        system.values = Array2::eye(3);
        let psi = Array2::from_shape_vec((5, 1), system.positions[1].write.clone()).unwrap();
        let phi = Array2::from_shape_vec((1, 5), system.positions[1].read.clone()).unwrap();
        let eye = Array2::<f64>::eye(3);
        assert_eq!(system.input(1), ndarray::linalg::kron(&eye, &psi));
        assert_eq!(system.output(1), ndarray::linalg::kron(&eye, &phi));
        assert_ne!(system.input(1), ndarray::linalg::kron(&psi, &eye));
    }

    #[test]
    fn a_long_fading_neither_underflows_nor_divides() {
        let shape = Shape {
            channels: 1,
            n: 1,
            heads: 1,
        };
        let spreads = Spreads {
            keep: Spread::Head,
            write: Spread::Feature,
            read: Spread::Feature,
        };
        let mut system = system(1, 300, shape, spreads);
        for position in &mut system.positions {
            position.log_keep[0] = -40.0;
        }
        let u = Array2::ones((300, 7));
        let want = by_definition(&system, u.view());
        for got in [system.convolve(u.view()), system.scan(u.view(), 64)] {
            for (g, w) in got.iter().zip(&want) {
                assert!(g.is_finite() && (g - w).abs() < 1e-12);
            }
        }
    }
}
