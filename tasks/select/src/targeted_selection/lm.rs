//! The small causal language model: trained on the pool for a bounded number of steps, then asked for states and losses.
//!
//! A decoder-only transformer with normalisation before each part, learned positions, ReLU, and an output layer that
//! shares its weights with the embedding of the tokens, as in GPT-2. Shapes: b rows, l tokens, d numbers a token, V
//! tokens in the vocabulary.
//!
//! 1. Training: `steps` batches of rows in an order drawn from the seed, rows of like length together; AdamW with a
//!    learning rate that rises for a tenth of the steps and falls to 0; loss: the mean of -log p(next token) over the
//!    batch's tokens.
//! 2. States: after block `layer` (from 1), or after the last normalisation.
//! 3. Losses: of each row the mean of -log p over all its tokens but the start mark, and over those of its answers.
//!
//! Cost: about 6 x weights x tokens operations for training, 2 x weights x tokens for states or losses.

use super::tokens::{Encoded, Vocabulary};
use ndarray::Array2;
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use papertrial_nn::blocks::{Attention, LayerNorm, Pool, Positions, causal_mask};
use papertrial_nn::burn::module::{Initializer, Module, Param};
use papertrial_nn::burn::nn::{Linear, LinearConfig};
use papertrial_nn::burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation};
use papertrial_nn::train::{Optimiser, Schedule, Stepper, Training};
use papertrial_nn::{classes_of, cross_entropy, device, seeded, values_of};
use papertrial_numerics::sampling;
use rand::seq::SliceRandom;

/// Sizes and training of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Numbers of a token's state, d.
    pub width: usize,
    /// Blocks.
    pub layers: usize,
    /// Heads of attention, which share d evenly.
    pub heads: usize,
    /// Steps of training.
    pub steps: usize,
    /// Rows of a step.
    pub batch: usize,
    /// Learning rate at its highest.
    pub learning_rate: f64,
    /// Seed of weights and order.
    pub seed: u64,
}

#[derive(Module, Debug)]
struct Block {
    before: LayerNorm,
    attention: Attention,
    between: LayerNorm,
    up: Linear,
    down: Linear,
}

#[derive(Module, Debug)]
struct Net {
    tokens: Param<Tensor<2>>,
    positions: Positions,
    blocks: Vec<Block>,
    last: LayerNorm,
}

impl Net {
    fn new(plan: &Plan, vocabulary: usize, longest: usize, device: &Device) -> Net {
        let d = plan.width;
        let narrow = Initializer::Normal {
            mean: 0.0,
            std: 0.02,
        };
        let linear = |from, to| {
            LinearConfig::new(from, to)
                .with_initializer(Initializer::XavierUniform { gain: 1.0 })
                .init(device)
        };
        Net {
            tokens: narrow.init([vocabulary, d], device),
            positions: Positions::new(longest, d, device),
            blocks: (0..plan.layers)
                .map(|_| Block {
                    before: LayerNorm::new(d, device),
                    attention: Attention::new(d, plan.heads, 0.0, device),
                    between: LayerNorm::new(d, device),
                    up: linear(d, 4 * d),
                    down: linear(4 * d, d),
                })
                .collect(),
            last: LayerNorm::new(d, device),
        }
    }

    /// States \[b, l, d\] of `batch` after `layer` blocks, or after the last normalisation.
    fn states(&self, batch: &Batch, layer: Option<usize>, device: &Device) -> Tensor<3> {
        let (b, l) = (batch.lengths.len(), batch.longest);
        let ids = Tensor::<1, Int>::from_data(TensorData::new(batch.ids.clone(), [b * l]), device);
        let table = self.tokens.val();
        let d = table.dims()[1];
        let mut x = self.positions.add(table.select(0, ids).reshape([b, l, d]));
        let later: Tensor<3, Bool> = causal_mask(l, device);
        for block in &self.blocks[..layer.unwrap_or(self.blocks.len())] {
            let normal = block.before.forward(x.clone());
            x = x + block
                .attention
                .forward(normal.clone(), normal, Some(&later));
            let inner = activation::relu(block.up.forward(block.between.forward(x.clone())));
            x = x + block.down.forward(inner);
        }
        match layer {
            None => self.last.forward(x),
            Some(_) => x,
        }
    }

    /// -log p of each next token of the batch, \[tokens\], in the order of [`Batch::targets`].
    fn losses(&self, batch: &Batch, device: &Device) -> Tensor<1> {
        let (places, next) = batch.targets();
        let states = self.states(batch, None, device);
        let [b, l, d] = states.dims();
        // Only tokens that have a next one reach the output layer.
        let states = states
            .reshape([b * l, d])
            .select(0, classes_of(places, device));
        let logits = states.matmul(self.tokens.val().transpose());
        cross_entropy(logits, classes_of(next, device))
    }
}

/// Rows of one pass through the model, filled up with the start mark to the longest.
struct Batch {
    /// Rows, as numbered by the caller.
    rows: Vec<usize>,
    /// \[b, l\] in row-major order.
    ids: Vec<i32>,
    lengths: Vec<usize>,
    longest: usize,
}

impl Batch {
    fn of(all: &[Encoded], rows: &[usize]) -> Batch {
        let lengths: Vec<usize> = rows.iter().map(|&r| all[r].tokens.len()).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut ids = vec![0; rows.len() * longest];
        for (to, &row) in ids.chunks_mut(longest.max(1)).zip(rows) {
            for (to, token) in to.iter_mut().zip(&all[row].tokens) {
                *to = *token as i32;
            }
        }
        Batch {
            rows: rows.to_vec(),
            ids,
            lengths,
            longest,
        }
    }

    /// Places \[b l\] of tokens that have a next one, and that one.
    fn targets(&self) -> (Vec<usize>, Vec<usize>) {
        let places = self.lengths.iter().enumerate().flat_map(|(row, length)| {
            (0..length.saturating_sub(1)).map(move |i| row * self.longest + i)
        });
        let places: Vec<usize> = places.collect();
        let next = places.iter().map(|p| self.ids[p + 1] as usize).collect();
        (places, next)
    }
}

/// Tokens of one pass, at most, but for a single longer row.
const PASS: usize = 8192;

/// All rows in passes of like length, shortest first.
fn passes(rows: &[Encoded]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&r| rows[r].tokens.len());
    let mut passes: Vec<Vec<usize>> = Vec::new();
    for row in order {
        let length = rows[row].tokens.len();
        match passes.last_mut() {
            Some(pass) if (pass.len() + 1) * length <= PASS => pass.push(row),
            _ => passes.push(vec![row]),
        }
    }
    passes
}

/// The batches of training: rows in random order, runs of eight batches sorted by length, batches shuffled again.
fn batches(rows: &[Encoded], plan: &Plan) -> Vec<Vec<usize>> {
    let mut all = Vec::with_capacity(plan.steps);
    let mut epoch = 0;
    while all.len() < plan.steps {
        let mut rng = sampling::rng(plan.seed, &format!("language model order {epoch}"));
        let mut order = sampling::permutation(&mut rng, rows.len());
        let mut some: Vec<Vec<usize>> = Vec::new();
        for run in order.chunks_mut(8 * plan.batch) {
            run.sort_by_key(|&r| rows[r].tokens.len());
            some.extend(run.chunks(plan.batch).map(<[usize]>::to_vec));
        }
        some.shuffle(&mut rng);
        all.extend(some);
        epoch += 1;
    }
    all.truncate(plan.steps);
    all
}

/// A trained model.
pub struct Lm {
    net: Net,
    device: Device,
    layers: usize,
    weights: usize,
    /// Operations spent on training, 6 x weights x tokens.
    pub training_operations: f64,
}

/// Losses of a row: means of -log p over tokens.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Loss {
    /// Over all tokens but the start mark.
    pub all: f64,
    /// Their number.
    pub tokens: usize,
    /// Over the tokens of answers; `None` without an answer.
    pub answer: Option<f64>,
}

impl Lm {
    /// Trains a model on `rows` (step 1).
    ///
    /// # Errors
    /// Options that do not fit together, rows without a token to predict, or losses that are no longer numbers.
    pub fn train(
        rows: &[Encoded],
        vocabulary: &Vocabulary,
        plan: &Plan,
        context: &Context,
    ) -> Result<Lm> {
        if plan.heads == 0 || !plan.width.is_multiple_of(plan.heads) {
            return Err(Error::option(
                "heads",
                format!(
                    "{} heads do not share width {} evenly",
                    plan.heads, plan.width
                ),
            ));
        }
        if rows.is_empty() {
            return Err(Error::BadInput(
                "there are no rows to train the language model on".into(),
            ));
        }
        if let Some(short) = rows.iter().position(|r| r.tokens.len() < 2) {
            return Err(Error::BadInput(format!(
                "row {} has no token to read; take it out, or use another part of the rows",
                short + 1
            )));
        }
        let plain = device(&context.device)?;
        let mut net = seeded(&plain, plan.seed, |d| {
            Net::new(plan, vocabulary.size(), vocabulary.longest(), d)
        });
        let weights = net.num_params();
        let training = Training {
            learning_rate: plan.learning_rate,
            optimiser: Optimiser::AdamW { weight_decay: 0.01 },
            schedule: Schedule::Linear { warmup: 0.1 },
            clip: Some(1.0),
            seed: plan.seed,
            ..Training::default()
        };
        let mut stepper = Stepper::new(&training, plan.steps);
        let learning = plain.clone().autodiff();
        let mut tokens = 0usize;
        for (step, some) in batches(rows, plan).iter().enumerate() {
            let batch = Batch::of(rows, some);
            tokens += batch.lengths.iter().sum::<usize>();
            let loss = net.losses(&batch, &learning).mean();
            net = stepper.step(net, loss)?.0;
            if step.is_multiple_of(8) {
                context.step("training the language model", step, plan.steps);
            }
        }
        Ok(Lm {
            net: net.valid(),
            device: plain,
            layers: plan.layers,
            weights,
            training_operations: 6.0 * weights as f64 * tokens as f64,
        })
    }

    /// Weights of the model.
    pub fn weights(&self) -> usize {
        self.weights
    }

    /// Operations of one pass over `rows`: 2 x weights x tokens.
    pub fn pass_operations(&self, rows: &[Encoded]) -> f64 {
        let tokens: usize = rows.iter().map(|r| r.tokens.len()).sum();
        2.0 * self.weights as f64 * tokens as f64
    }

    /// The output layer, \[V, d\].
    ///
    /// # Errors
    /// The device cannot give it.
    pub fn output_layer(&self) -> Result<Array2<f32>> {
        let table = self.net.tokens.val();
        let [v, d] = table.dims();
        Array2::from_shape_vec((v, d), values_of(table)?).map_err(|e| Error::Failed(e.to_string()))
    }

    /// Pooled states of all rows, \[rows, d\] (step 2).
    ///
    /// # Errors
    /// No such layer, or the device fails.
    pub fn pooled(
        &self,
        rows: &[Encoded],
        pool: Pool,
        layer: Option<usize>,
        context: &Context,
    ) -> Result<Array2<f32>> {
        if layer.is_some_and(|l| l > self.layers) {
            return Err(Error::option(
                "layer",
                format!(
                    "the model has {} layers; leave it out for the last",
                    self.layers
                ),
            ));
        }
        let mut whole = Array2::zeros((rows.len(), self.net.tokens.dims()[1]));
        let passes = passes(rows);
        for (done, pass) in passes.iter().enumerate() {
            context.step("states of the language model", done, passes.len());
            let batch = Batch::of(rows, pass);
            let states = self.net.states(&batch, layer, &self.device);
            let values = values_of(pool.apply(states, &batch.lengths))?;
            let width = whole.ncols();
            for (row, values) in batch.rows.iter().zip(values.chunks(width)) {
                for (to, from) in whole.row_mut(*row).iter_mut().zip(values) {
                    *to = *from;
                }
            }
        }
        Ok(whole)
    }

    /// Shows the last states of each row, \[its tokens, d\], some rows at a time.
    ///
    /// # Errors
    /// The device or `see` fails.
    pub fn token_states(
        &self,
        rows: &[Encoded],
        see: &mut dyn FnMut(Vec<(usize, Array2<f32>)>) -> Result<()>,
    ) -> Result<()> {
        for pass in passes(rows) {
            let batch = Batch::of(rows, &pass);
            let states = self.net.states(&batch, None, &self.device);
            let [_, l, d] = states.dims();
            let values = values_of(states)?;
            let each = batch.rows.iter().zip(&batch.lengths).enumerate();
            let some: Vec<(usize, Array2<f32>)> = each
                .map(|(i, (row, length))| {
                    let own = values[i * l * d..(i * l + length) * d].to_vec();
                    (
                        *row,
                        Array2::from_shape_vec((*length, d), own).unwrap_or_default(),
                    )
                })
                .collect();
            see(some)?;
        }
        Ok(())
    }

    /// Losses of all rows (step 3).
    ///
    /// # Errors
    /// The device fails, or a loss is not a number.
    pub fn losses(&self, rows: &[Encoded], context: &Context) -> Result<Vec<Loss>> {
        let mut losses = vec![Loss::default(); rows.len()];
        let passes = passes(rows);
        for (done, pass) in passes.iter().enumerate() {
            context.step("losses of the language model", done, passes.len());
            let batch = Batch::of(rows, pass);
            let values = values_of(self.net.losses(&batch, &self.device))?;
            let mut rest = values.as_slice();
            for (&row, length) in batch.rows.iter().zip(&batch.lengths) {
                let (own, others) = rest.split_at(length.saturating_sub(1));
                rest = others;
                losses[row] = Loss::of(own, &rows[row].answers);
                if !losses[row].all.is_finite() {
                    return Err(Error::Failed(format!(
                        "the loss of row {} is not a number",
                        row + 1
                    )));
                }
            }
        }
        Ok(losses)
    }
}

impl Loss {
    /// From -log p of the tokens after the first.
    fn of(own: &[f32], answers: &[(u32, u32)]) -> Loss {
        let mean = |values: &[f32]| {
            values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len().max(1) as f64
        };
        let mut said: Vec<f32> = Vec::new();
        for (from, to) in answers {
            // The token at place p is predicted from p - 1.
            said.extend(&own[*from as usize - 1..*to as usize - 1]);
        }
        Loss {
            all: mean(own),
            tokens: own.len(),
            answer: (!said.is_empty()).then(|| mean(&said)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::rows::{Part, Row};
    use super::super::tokens::Tokens;
    use super::*;

    pub fn tiny(steps: usize, seed: u64) -> Plan {
        Plan {
            width: 16,
            layers: 2,
            heads: 2,
            steps,
            batch: 8,
            learning_rate: 1e-2,
            seed,
        }
    }

    /// Rows of two kinds of sentences.
    pub fn sentences(n: usize) -> Vec<Row> {
        let words = [["red", "blue", "green"], ["one", "two", "three"]];
        (0..n)
            .map(|i| {
                let w = words[i % 2];
                let text: Vec<&str> = (0..3 + i % 4).map(|j| w[(i / 2 + j) % 3]).collect();
                Row::plain(&text.join(" "))
            })
            .collect()
    }

    fn model(steps: usize, seed: u64) -> (Lm, Vec<Encoded>) {
        let rows = sentences(60);
        let vocabulary = Vocabulary::of(&rows, Tokens::Words, 64, 16);
        let rows = vocabulary.encode_all(&rows, Part::All);
        let context = Context::with_seed(seed);
        let lm = Lm::train(&rows, &vocabulary, &tiny(steps, seed), &context).unwrap();
        (lm, rows)
    }

    #[test]
    fn training_lowers_the_loss_and_the_seed_decides_the_bits() {
        let context = Context::with_seed(0);
        let mean = |(lm, rows): &(Lm, Vec<Encoded>)| {
            let losses = lm.losses(rows, &context).unwrap();
            losses.iter().map(|l| l.all).sum::<f64>() / losses.len() as f64
        };
        let (fresh, trained) = (model(1, 3), model(60, 3));
        // Untrained: near the logarithm of 13 tokens. Trained: the first word is a guess of six, the rest follow.
        assert!((mean(&fresh) - 13f64.ln()).abs() < 0.5, "{}", mean(&fresh));
        assert!(mean(&trained) < 1.2, "{}", mean(&trained));
        assert_eq!(mean(&model(60, 3)), mean(&trained));
        assert_ne!(mean(&model(60, 4)), mean(&trained));
    }

    #[test]
    fn a_row_has_the_same_states_alone_and_among_others() {
        let (lm, rows) = model(20, 1);
        let context = Context::with_seed(0);
        for pool in [Pool::WeightedMean, Pool::Last, Pool::Mean] {
            let together = lm.pooled(&rows, pool, None, &context).unwrap();
            for r in [0, 7, 59] {
                let alone = lm.pooled(&rows[r..=r], pool, None, &context).unwrap();
                let apart = (&together.row(r) - &alone.row(0)).mapv(f32::abs);
                assert!(apart.iter().all(|v| *v < 1e-4), "{pool:?} {apart}");
            }
        }
        // The weighted mean of the tokens' states, by hand: weights 1, 2, ... over the row's own length.
        let pooled = lm
            .pooled(&rows, Pool::WeightedMean, None, &context)
            .unwrap();
        lm.token_states(&rows, &mut |some| {
            for (row, states) in some {
                let n = states.nrows();
                assert_eq!(n, rows[row].tokens.len());
                let total = (n * (n + 1) / 2) as f32;
                for j in 0..states.ncols() {
                    let want: f32 = (0..n)
                        .map(|i| (i + 1) as f32 / total * states[[i, j]])
                        .sum();
                    assert!((pooled[[row, j]] - want).abs() < 1e-4);
                }
            }
            Ok(())
        })
        .unwrap();
        let text = lm
            .pooled(&rows, Pool::Mean, Some(3), &context)
            .unwrap_err()
            .to_string();
        assert!(text.contains("2 layers"), "{text}");
        let first = lm.pooled(&rows, Pool::Mean, Some(1), &context).unwrap();
        assert_ne!(
            first,
            lm.pooled(&rows, Pool::Mean, Some(2), &context).unwrap()
        );
    }

    #[test]
    fn the_losses_are_those_of_the_output_layer_on_the_states() {
        let (lm, rows) = model(20, 1);
        let losses = lm.losses(&rows, &Context::with_seed(0)).unwrap();
        let table = lm.output_layer().unwrap();
        lm.token_states(&rows[..4], &mut |some| {
            for (row, states) in some {
                let logits = states.dot(&table.t());
                let tokens = &rows[row].tokens;
                let mut sum = 0.0;
                for i in 0..tokens.len() - 1 {
                    let exp: f64 = logits.row(i).iter().map(|v| f64::from(*v).exp()).sum();
                    sum += exp.ln() - f64::from(logits[[i, tokens[i + 1] as usize]]);
                }
                let want = sum / (tokens.len() - 1) as f64;
                assert!(
                    (losses[row].all - want).abs() < 1e-4,
                    "{} {want}",
                    losses[row].all
                );
            }
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn answers_have_a_loss_of_their_own() {
        let loss = Loss::of(&[1.0, 2.0, 3.0, 5.0], &[(3, 5)]);
        assert_eq!((loss.all, loss.tokens, loss.answer), (2.75, 4, Some(4.0)));
        assert_eq!(Loss::of(&[1.0], &[]).answer, None);
    }

    #[test]
    fn plans_that_do_not_fit_are_told() {
        let rows = sentences(4);
        let vocabulary = Vocabulary::of(&rows, Tokens::Words, 64, 16);
        let encoded = vocabulary.encode_all(&rows, Part::All);
        let context = Context::with_seed(0);
        let plan = Plan {
            heads: 3,
            ..tiny(1, 0)
        };
        let text = Lm::train(&encoded, &vocabulary, &plan, &context)
            .err()
            .unwrap()
            .to_string();
        assert!(text.contains("3 heads"), "{text}");
        let none = vocabulary.encode_all(&rows, Part::Response);
        assert!(Lm::train(&none, &vocabulary, &tiny(1, 0), &context).is_err());
        assert!(Lm::train(&[], &vocabulary, &tiny(1, 0), &context).is_err());
    }
}
