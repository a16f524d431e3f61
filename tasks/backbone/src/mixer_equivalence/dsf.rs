//! The dynamical-systems framework: attention, state space models and gated recurrent networks as one linear system.
//!
//! Paper: *Understanding the differences in Foundation Models: Attention, State Space Models, and Recurrent Neural
//! Networks*, Sieber and others, 2024, 2405.15731.
//!
//! 1. Each mixer gives its matrices Lam_i, B_i, C_i and D for a sequence ([`crate::mixers`]).
//! 2. The usual formula, the matrix Phi, the recurrence and the scan by chunks are compared, two by two.
//! 3. What the paper says is equal is computed both ways.
//! 4. Softmax attention is cut to a finite state at several orders, its error compared with the Taylor remainder.
//! 5. The memory of an evaluation is counted at two lengths.
//!
//! Cost: step 2 is O(L^2 N) for each mixer, on at most [`COMPARED`] positions.

use super::statements::{self, relative};
use super::{Checks, Representation, Row, TaskOptions};
use crate::mixers::{
    Choice, Discretisation, Eta, Kernel, KeyValueStore, Maps, Mixer, Real, SequenceMixer, Stream,
    drawn, exact, recurrent,
};
use ndarray::{Array2, ArrayView2, s};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most positions on which forms are compared: the matrix needs their square.
const COMPARED: usize = 512;
/// Positions of a chunk of the scan.
const CHUNK: usize = 32;

/// The framework, and the mixer that is looked at.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Dsf {
    /// The mixer; if absent, all of them.
    pub mixer: Option<Mixer>,
    /// Features of queries and keys, all heads together; numbers a channel of S6 and SSD.
    #[schemars(range(min = 1, max = 4096))]
    pub state: usize,
    /// Heads of attention and SSD.
    #[schemars(range(min = 1))]
    pub heads: usize,
    /// Feature map of linear attention.
    pub kernel: Kernel,
    /// Normaliser of normalised attention.
    pub eta: Eta,
    /// Form of B in S6.
    pub discretisation: Discretisation,
    /// Order, even, at which softmax attention is cut to become a recurrence.
    pub order: usize,
    /// Evaluation whose memory is counted.
    pub form: Form,
}

/// A way of evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// Step by step.
    Recurrent,
    /// All positions by the matrix Phi.
    Parallel,
}

impl Default for Dsf {
    fn default() -> Self {
        Dsf {
            mixer: None,
            state: 8,
            heads: 1,
            kernel: Kernel::EluPlusOne,
            eta: Eta::Exponential,
            discretisation: Discretisation::Euler,
            order: 2,
            form: Form::Recurrent,
        }
    }
}

impl Method for Dsf {
    const FACTS: Facts = Facts {
        name: "dsf",
        about: "attention, state space models and gated recurrent networks as one linear system",
        paper: Some("dsf"),
        streams: false,
    };
}

impl Representation for Dsf {
    fn check(&self, u: ArrayView2<f64>, asked: &TaskOptions, context: &Context) -> Result<Checks> {
        let mixers = match self.mixer {
            Some(mixer) => vec![mixer],
            None => Mixer::SYSTEMS.to_vec(),
        };
        let mut checks = Checks::default();
        for (done, mixer) in mixers.iter().enumerate() {
            context.step("comparing forms", done, mixers.len());
            match asked.precision {
                super::Precision::F32 => {
                    self.forms(
                        *mixer,
                        u.mapv(|v| v as f32).view(),
                        asked,
                        context,
                        &mut checks,
                    )?;
                }
                super::Precision::F64 => self.forms(*mixer, u, asked, context, &mut checks)?,
            }
        }
        context.step("comparing forms", mixers.len(), mixers.len());
        let part = u.slice(s![..u.nrows().min(COMPARED), ..]);
        for (statement, difference) in [
            (
                "exp(-alpha softplus(x)) = sigmoid(-x)^alpha",
                statements::reversed_gate(),
            ),
            (
                "s6 with one number a channel = gated network with input gate softplus",
                statements::s6_is_a_gated_network(part, context.seed),
            ),
            (
                "ssd = separable attention with an accumulated normaliser",
                statements::ssd_is_separable_attention(part, context.seed),
            ),
        ] {
            checks.rows.push(Row {
                mixer: "statement".into(),
                check: statement.into(),
                value: difference,
                limit: Some(1e-10),
            });
            checks.raise("statement-difference", difference);
        }
        if mixers.contains(&Mixer::SoftmaxAttention) {
            self.taylor(part, asked, context, &mut checks);
        }
        Ok(checks)
    }
}

impl Dsf {
    /// Steps 1, 2 and 5 for one mixer.
    fn forms<F: Real>(
        &self,
        mixer: Mixer,
        u: ArrayView2<F>,
        asked: &TaskOptions,
        context: &Context,
        checks: &mut Checks,
    ) -> Result<()> {
        let choice = Choice {
            mixer,
            state: self.state,
            heads: self.heads,
            kernel: self.kernel,
            eta: self.eta,
            discretisation: self.discretisation,
        };
        let (length, d) = u.dim();
        let name = mixer.name();
        let mut rng = rng(context.seed, name);
        let system = drawn::<F>(&choice, d, self.order, &mut rng)?;
        let system = system.as_ref();
        let limit = Some(asked.precision.limit());
        let mut row = |check: &str, value: f64, limit: Option<f64>| {
            checks.rows.push(Row {
                mixer: name.into(),
                check: check.into(),
                value,
                limit,
            });
        };
        row("numbers of the state", system.shape().state() as f64, None);

        let part = u.slice(s![..length.min(COMPARED), ..]);
        let matrices = system.matrices(part);
        let forms: [(&str, Array2<F>); 4] = [
            ("usual formula", system.native(part)),
            ("matrix", matrices.convolve(part)),
            ("recurrence", recurrent(system, part)),
            ("scan by chunks", matrices.scan(part, CHUNK)),
        ];
        let mut largest: f64 = 0.0;
        for (i, (one, a)) in forms.iter().enumerate() {
            for (other, b) in &forms[i + 1..] {
                let off = relative(a, b);
                largest = largest.max(off);
                row(&format!("{one} = {other}"), off, limit);
            }
        }
        if mixer == Mixer::SoftmaxAttention {
            // Not cut, its recurrence keeps all keys and values.
            let maps = Maps::<F>::random(d, d, self.state, self.heads, &mut rng);
            let mut store = KeyValueStore::new(&maps);
            let mut stepped = Array2::zeros(part.dim());
            for (u, mut y) in part.rows().into_iter().zip(stepped.rows_mut()) {
                for (y, value) in y.iter_mut().zip(store.step(u)) {
                    *y = value;
                }
            }
            let off = relative(&exact(&maps, part), &stepped);
            largest = largest.max(off);
            row(
                "exact: usual formula = recurrence with all keys",
                off,
                limit,
            );
            let short = asked.short_length.min(part.nrows());
            let mut of_short = KeyValueStore::new(&maps);
            for u in part.rows().into_iter().take(short) {
                of_short.step(u);
            }
            let grows = store.bytes() as f64 / of_short.bytes().max(1) as f64;
            row(
                &format!(
                    "exact: memory of {} positions to that of {short}",
                    part.nrows()
                ),
                grows,
                None,
            );
        }
        if length > COMPARED {
            checks.note(format!(
                "forms are compared on the first {COMPARED} positions"
            ));
        }
        checks.raise("form-difference", largest);
        checks.raise("state", system.shape().state() as f64);

        if asked.short_length < length {
            let short = u.slice(s![..asked.short_length, ..]);
            let ratio = self.bytes(system, u)? / self.bytes(system, short)?;
            checks.rows.push(Row {
                mixer: name.into(),
                check: format!(
                    "memory of {length} positions to that of {}",
                    asked.short_length
                ),
                value: ratio,
                limit: None,
            });
            checks.raise("memory-ratio", ratio);
        }
        Ok(())
    }

    /// Step 5: bytes that an evaluation of `u` holds, without inputs and outputs.
    fn bytes<F: Real>(&self, system: &dyn SequenceMixer<F>, u: ArrayView2<F>) -> Result<f64> {
        let length = u.nrows();
        let bytes = match self.form {
            Form::Recurrent => {
                let mut stream = Stream::new(system);
                for u in u.rows() {
                    if stream.step(u).iter().any(|y| !y.is_finite()) {
                        return Err(Error::Failed(
                            "the recurrence gives numbers that are not finite; scale the input down"
                                .into(),
                        ));
                    }
                }
                stream.bytes()
            }
            // One matrix at a time, and the coefficients of all positions, as many as a stream holds for one.
            Form::Parallel => {
                length * length * F::BYTES + length * Stream::new(system).coefficient_bytes()
            }
        };
        Ok(bytes as f64)
    }

    /// Step 4.
    fn taylor(
        &self,
        u: ArrayView2<f64>,
        asked: &TaskOptions,
        context: &Context,
        checks: &mut Checks,
    ) {
        if asked.orders.is_empty() {
            return;
        }
        let taylor = statements::taylor(u, self.state, &asked.orders, context.seed);
        for ((order, error), share) in taylor.errors.iter().zip(&taylor.shares) {
            checks.rows.push(Row {
                mixer: Mixer::SoftmaxAttention.name().into(),
                check: format!("error of order {order}"),
                value: *error,
                limit: None,
            });
            checks.rows.push(Row {
                mixer: Mixer::SoftmaxAttention.name().into(),
                check: format!("weight error of order {order} as a share of its bound"),
                value: *share,
                limit: Some(1.0),
            });
            checks.raise("bound-share", *share);
        }
        for pair in taylor.errors.windows(2) {
            checks.raise("largest-error-ratio", pair[1].1 / pair[0].1);
        }
        checks.note(format!(
            "largest |q.k| / sqrt(m) of the truncation: {:.3}",
            taylor.largest_logit
        ));
        checks.curves.push(papertrial_core::task::Curve {
            name: "error of the truncated softmax".into(),
            x: "order".into(),
            y: "largest difference from the exact output".into(),
            points: taylor
                .errors
                .iter()
                .map(|(order, error)| (*order as f64, *error))
                .collect(),
        });
    }
}
