//! LESS: selection by the likeness of gradients. Xia, Malladi, Gururangan, Arora and Chen, *LESS: Selecting Influential Data
//! for Targeted Instruction Tuning*, 2024, arXiv 2402.04333. Here a baseline, with a low-rank adapter on the output layer
//! alone, whose gradients have a closed form; the paper has adapters on all attention layers of a large model.
//!
//! Shapes: L tokens, d numbers a state, V tokens in the vocabulary, r the adapter's rank, D numbers of a projection.
//!
//! 1. Warm-up: logits z = (W + s B A) h with A \[r, d\] drawn at random, B \[V, r\] of zeros, s = 1 / r. A share of the pool
//!    trains A and B with Adam for E epochs, the learning rate falling to 0 in a line; after each epoch i the adapter,
//!    Adam's moments m and v, and the epoch's mean learning rate eta_i are kept.
//! 2. Gradient of a row's mean loss (over its answers, or over all its tokens where it has none), with E_t = softmax(z_t) -
//!    next token: for B: s sum_t E_t (A h_t)', for A: s sum_t (B' E_t) h_t'.
//! 3. A pool row's feature at checkpoint i is the step that Adam would take with that gradient,
//!    m' / (sqrt(v') + 1e-8) with the moments moved by it and corrected for their start; a query's is the gradient itself.
//! 4. Features are projected to D numbers: each coordinate is added, with a random sign, to one of D places (a count sketch,
//!    which keeps inner products in the mean as the paper's dense random projection does) and scaled to length 1.
//! 5. Score: sum_i eta_i cos(query, row) over checkpoints. The checkpoints' projections stand one after the other, scaled by
//!    sqrt(eta_i), so that an index (`index.rs`) gives that sum.
//!
//! The paper then takes the best score over the queries of a task, then the best rows: `--set aggregate=max`.
//!
//! Cost: E checkpoints x tokens x V d multiplications for pool and queries, N E D numbers of two bytes.

use super::index::RdsIndex;
use super::problem::{Fitted, Pool, Queries, Ranking, Read, Selector};
use super::rows::Part;
use super::tokens::Encoded;
use ndarray::{Array2, ArrayView2, s};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use rand::RngExt;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of LESS.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Less {
    /// Rank of the adapter (128 in the paper, for a much wider model).
    #[schemars(range(min = 1))]
    pub rank: usize,
    /// Numbers of a projected gradient (8,192 in the paper, for a much larger adapter).
    #[schemars(range(min = 1))]
    pub projection: usize,
    /// Share of the pool that the warm-up trains on.
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1.0))]
    pub warm_up: f64,
    /// Epochs of the warm-up, each with a checkpoint.
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// Learning rate of the warm-up at its highest.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Rows of a step of the warm-up.
    #[schemars(range(min = 1))]
    pub batch: usize,
}

impl Default for Less {
    fn default() -> Self {
        Less {
            rank: 8,
            projection: 1024,
            warm_up: 0.05,
            epochs: 4,
            learning_rate: 1e-3,
            batch: 8,
        }
    }
}

impl Method for Less {
    const FACTS: Facts = Facts {
        name: "less",
        about: "rows whose gradient points as the queries' gradients do (LESS, output layer only)",
        paper: None,
        streams: false,
    };
}

/// Adam's constants.
const BETA: [f64; 2] = [0.9, 0.999];
const EPSILON: f32 = 1e-8;

/// Rows whose features are held in single precision at once.
const ROWS: usize = 2048;

impl Selector for Less {
    fn fit<'a>(&self, pool: &'a Pool, context: &Context) -> Result<Box<dyn Fitted + 'a>> {
        let read = Read::pool(pool, context)?;
        let numbers = (self.projection * self.epochs) as u64;
        context.require(
            "the projected gradients",
            (pool.count as u64 * 2 + ROWS as u64 * 4) * numbers,
        )?;
        let output = read.lm.output_layer()?;
        // Step 1.
        let checkpoints = self.warm(&read, &output, context)?;
        let sketch = Sketch::new(
            self.rank * (output.nrows() + output.ncols()),
            self.projection,
            context.seed,
        );
        let mut less = Gradients {
            read,
            output,
            checkpoints,
            sketch,
            index: RdsIndex::default(),
            part: pool.part,
        };
        let all = std::mem::take(&mut less.read.rows);
        for (part, rows) in all.chunks(ROWS).enumerate() {
            context.step("gradients of the pool", part * ROWS, all.len());
            let features = less.features(rows, true)?;
            less.index.push(features)?;
        }
        less.read.rows = all;
        Ok(Box::new(less))
    }
}

impl Less {
    fn warm(
        &self,
        read: &Read,
        output: &Array2<f32>,
        context: &Context,
    ) -> Result<Vec<Checkpoint>> {
        let n = read.rows.len();
        let count = ((n as f64 * self.warm_up).ceil() as usize).clamp(1, n);
        let mut rng = sampling::rng(context.seed, "less warm-up");
        let chosen = sampling::sample_shuffled(&mut rng, n, count)
            .map_err(|e| Error::option("warm-up", e))?;
        let rows: Vec<Encoded> = chosen.iter().map(|r| read.rows[*r].clone()).collect();
        let mut states = vec![Array2::default((0, 0)); rows.len()];
        read.lm.token_states(&rows, &mut |some| {
            for (row, own) in some {
                states[row] = own;
            }
            Ok(())
        })?;
        let (v, d) = output.dim();
        let mut adapter = Adapter::new(self.rank, v, d, context.seed);
        let steps = self.epochs * count.div_ceil(self.batch);
        let mut adam = Moments::new(adapter.values.len());
        let mut checkpoints = Vec::new();
        for _ in 0..self.epochs {
            let order = sampling::permutation(&mut rng, count);
            let (mut rates, mut taken) = (0.0, 0);
            for batch in order.chunks(self.batch) {
                let own: Vec<Vec<f32>> = batch
                    .par_iter()
                    .map(|&r| adapter.gradient(&states[r], &rows[r], output))
                    .collect();
                let mut mean = vec![0.0f32; adapter.values.len()];
                for gradient in &own {
                    for (sum, g) in mean.iter_mut().zip(gradient) {
                        *sum += g / own.len() as f32;
                    }
                }
                let rate = self.learning_rate * (1.0 - adam.steps as f64 / steps as f64);
                adam.take(&mean);
                for (i, value) in adapter.values.iter_mut().enumerate() {
                    *value -= rate as f32 * adam.direction(i);
                }
                rates += rate;
                taken += 1;
            }
            checkpoints.push(Checkpoint {
                adapter: adapter.clone(),
                adam: adam.clone(),
                rate: rates / f64::from(taken),
            });
        }
        Ok(checkpoints)
    }
}

/// What is kept after an epoch of the warm-up.
struct Checkpoint {
    adapter: Adapter,
    adam: Moments,
    rate: f64,
}

/// The low-rank adapter: A \[r, d\], then B \[V, r\], in row-major order.
#[derive(Debug, Clone)]
struct Adapter {
    rank: usize,
    width: usize,
    values: Vec<f32>,
}

impl Adapter {
    fn new(rank: usize, vocabulary: usize, width: usize, seed: u64) -> Adapter {
        let mut rng = sampling::rng(seed, "less adapter");
        // As Kaiming's uniform draw with a slope of sqrt 5, the usual start of A.
        let bound = 1.0 / (width as f32).sqrt();
        let mut values: Vec<f32> = (0..rank * width)
            .map(|_| bound * (2.0 * rng.random::<f32>() - 1.0))
            .collect();
        values.resize(rank * (width + vocabulary), 0.0);
        Adapter {
            rank,
            width,
            values,
        }
    }

    /// A and B.
    fn parts(&self) -> (ArrayView2<'_, f32>, ArrayView2<'_, f32>) {
        let (a, b) = self.values.split_at(self.rank * self.width);
        let view = |values, columns: usize, rows| {
            ArrayView2::from_shape((rows, columns), values).unwrap_or(ArrayView2::from(&[[]]))
        };
        (
            view(a, self.width, self.rank),
            view(b, self.rank, b.len() / self.rank),
        )
    }

    /// Gradient of the row's mean loss (step 2), with its states \[L, d\] and the output layer \[V, d\].
    fn gradient(&self, states: &Array2<f32>, row: &Encoded, output: &Array2<f32>) -> Vec<f32> {
        let (a, b) = self.parts();
        let scale = 1.0 / self.rank as f32;
        // The token at place p is predicted from the state at p - 1.
        let places: Vec<usize> = match row.answers.as_slice() {
            [] => (1..row.tokens.len()).collect(),
            answers => answers
                .iter()
                .flat_map(|(from, to)| *from as usize..*to as usize)
                .collect(),
        };
        let before: Vec<usize> = places.iter().map(|p| p - 1).collect();
        let h = states.select(ndarray::Axis(0), &before);
        let low = h.dot(&a.t());
        let mut wrong = h.dot(&output.t()) + low.dot(&b.t()) * scale;
        let share = 1.0 / places.len().max(1) as f32;
        for (mut z, place) in wrong.rows_mut().into_iter().zip(&places) {
            let top = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            z.mapv_inplace(|v| (v - top).exp());
            let sum = z.sum();
            z.mapv_inplace(|v| v / sum * share);
            z[row.tokens[*place] as usize] -= share;
        }
        let of_a = wrong.dot(&b).t().dot(&h) * scale;
        let of_b = wrong.t().dot(&low) * scale;
        of_a.iter().chain(of_b.iter()).copied().collect()
    }
}

/// Adam's moments.
#[derive(Debug, Clone)]
struct Moments {
    m: Vec<f32>,
    v: Vec<f32>,
    steps: i32,
}

impl Moments {
    fn new(n: usize) -> Moments {
        Moments {
            m: vec![0.0; n],
            v: vec![0.0; n],
            steps: 0,
        }
    }

    fn take(&mut self, gradient: &[f32]) {
        self.steps += 1;
        for (i, g) in gradient.iter().enumerate() {
            (self.m[i], self.v[i]) = self.moved(i, *g);
        }
    }

    /// The moments of coordinate `i` after a gradient `g`.
    fn moved(&self, i: usize, g: f32) -> (f32, f32) {
        let [one, two] = BETA.map(|b| b as f32);
        (
            one * self.m[i] + (1.0 - one) * g,
            two * self.v[i] + (1.0 - two) * g * g,
        )
    }

    /// The step of coordinate `i`, over the learning rate.
    fn direction(&self, i: usize) -> f32 {
        let [one, two] = self.corrections(self.steps);
        self.m[i] / one / ((self.v[i] / two).sqrt() + EPSILON)
    }

    /// How much of each moment's weight is not its start of 0, after `steps`.
    fn corrections(&self, steps: i32) -> [f32; 2] {
        BETA.map(|b| (1.0 - b.powi(steps)) as f32)
    }

    /// The step that Adam would take with `gradient` next (step 3).
    fn step(&self, gradient: &mut [f32]) {
        let [one, two] = self.corrections(self.steps + 1);
        for (i, g) in gradient.iter_mut().enumerate() {
            let (m, v) = self.moved(i, *g);
            *g = m / one / ((v / two).sqrt() + EPSILON);
        }
    }
}

/// A random projection with one signed place for each coordinate (step 4).
struct Sketch {
    places: Vec<(u32, f32)>,
    width: usize,
}

impl Sketch {
    fn new(coordinates: usize, width: usize, seed: u64) -> Sketch {
        let mut rng = sampling::rng(seed, "less projection");
        let places = (0..coordinates)
            .map(|_| {
                let place = rng.random_range(0..width) as u32;
                (place, if rng.random::<bool>() { 1.0 } else { -1.0 })
            })
            .collect();
        Sketch { places, width }
    }

    fn project(&self, vector: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; self.width];
        for (v, (place, sign)) in vector.iter().zip(&self.places) {
            out[*place as usize] += sign * v;
        }
        out
    }
}

/// What knows the pool's gradients.
struct Gradients {
    read: Read,
    output: Array2<f32>,
    checkpoints: Vec<Checkpoint>,
    sketch: Sketch,
    index: RdsIndex,
    part: Part,
}

impl Gradients {
    /// Steps 2 to 5: \[rows, E D\].
    fn features(&self, rows: &[Encoded], adam: bool) -> Result<Array2<f32>> {
        let width = self.sketch.width;
        let rates: f64 = self.checkpoints.iter().map(|c| c.rate).sum();
        let mut all = Array2::zeros((rows.len(), width * self.checkpoints.len()));
        self.read.lm.token_states(rows, &mut |some| {
            let made: Vec<(usize, Vec<f32>)> = some
                .par_iter()
                .map(|(row, states)| {
                    let mut feature = Vec::with_capacity(all.ncols());
                    for checkpoint in &self.checkpoints {
                        let mut gradient =
                            checkpoint
                                .adapter
                                .gradient(states, &rows[*row], &self.output);
                        if adam {
                            checkpoint.adam.step(&mut gradient);
                        }
                        let mut low = self.sketch.project(&gradient);
                        let length = low
                            .iter()
                            .map(|v| f64::from(*v) * f64::from(*v))
                            .sum::<f64>()
                            .sqrt();
                        let factor = (checkpoint.rate / rates).sqrt() / length.max(1e-30);
                        low.iter_mut()
                            .for_each(|v| *v = (f64::from(*v) * factor) as f32);
                        feature.extend(low);
                    }
                    (*row, feature)
                })
                .collect();
            for (row, feature) in made {
                all.slice_mut(s![row, ..])
                    .assign(&ndarray::aview1(&feature));
            }
            Ok(())
        })?;
        Ok(all)
    }
}

impl Fitted for Gradients {
    fn rank<'q>(&'q self, queries: &'q Queries, _context: &Context) -> Result<Ranking<'q>> {
        let rows = self.read.queries(queries, self.part)?;
        let features = self.features(&rows, false)?;
        Ok(Ranking::ByQuery(Box::new(
            self.index.query(features.view())?,
        )))
    }

    fn notes(&self) -> Vec<String> {
        self.read.notes()
    }

    fn operations(&self) -> f64 {
        self.read.operations(1) + self.checkpoints.len() as f64 * self.output_operations()
    }
}

impl Gradients {
    /// Operations of the output layer's gradients over the pool: 4 V d a token.
    fn output_operations(&self) -> f64 {
        let tokens: usize = self.read.rows.iter().map(|r| r.tokens.len()).sum();
        4.0 * self.output.len() as f64 * tokens as f64
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::tests::{best, pool, queries};
    use super::*;

    fn small() -> (Adapter, Array2<f32>, Encoded, Array2<f32>) {
        let mut adapter = Adapter::new(2, 5, 3, 1);
        // B away from 0, so that A has a gradient too.
        for (i, v) in adapter.values.iter_mut().enumerate().skip(6) {
            *v = ((i * 37 % 11) as f32 - 5.0) / 7.0;
        }
        let value = |(i, j)| ((i * 5 + j * 3) % 7) as f32 / 4.0 - 0.6;
        let states = Array2::from_shape_fn((4, 3), value);
        let output = Array2::from_shape_fn((5, 3), |(i, j)| value((j + 2, i)));
        let row = Encoded {
            tokens: vec![0, 4, 2, 1],
            ..Encoded::default()
        };
        (adapter, states, row, output)
    }

    fn loss(adapter: &Adapter, states: &Array2<f32>, row: &Encoded, output: &Array2<f32>) -> f64 {
        let (a, b) = adapter.parts();
        let whole = output + &(b.dot(&a) / adapter.rank as f32);
        let z = states.dot(&whole.t());
        let from = row.answers.first().map_or(1, |a| a.0 as usize);
        let each = (from..row.tokens.len()).map(|p| {
            let own = z.row(p - 1);
            let sum: f64 = own.iter().map(|v| f64::from(*v).exp()).sum();
            sum.ln() - f64::from(own[row.tokens[p] as usize])
        });
        each.sum::<f64>() / (row.tokens.len() - from) as f64
    }

    #[test]
    fn gradients_agree_with_differences_of_the_loss() {
        let (adapter, states, mut row, output) = small();
        for answers in [vec![], vec![(2, 4)]] {
            row.answers = answers;
            let gradient = adapter.gradient(&states, &row, &output);
            assert_eq!(gradient.len(), adapter.values.len());
            for (i, got) in gradient.iter().enumerate() {
                let moved = |by: f32| {
                    let mut other = adapter.clone();
                    other.values[i] += by;
                    loss(&other, &states, &row, &output)
                };
                let want = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                assert!((f64::from(*got) - want).abs() < 1e-3, "{i}: {got} {want}");
            }
        }
    }

    #[test]
    fn adam_s_next_step_by_hand() {
        let mut adam = Moments::new(1);
        adam.take(&[2.0]);
        // m = .2, v = .004; with g = -1 next: m' = .18 - .1 = .08, v' = .003996 + .001 = .004996.
        let mut g = [-1.0f32];
        adam.step(&mut g);
        let want = (0.08 / 0.19) / (0.004996f64 / 0.001999).sqrt();
        assert!((f64::from(g[0]) - want).abs() < 1e-4, "{} {want}", g[0]);
        // After one step the direction is the gradient's sign.
        assert!((adam.direction(0) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn a_projection_keeps_inner_products_in_the_mean() {
        let (x, y): (Vec<f32>, Vec<f32>) = (0..400)
            .map(|i| ((i % 7) as f32 - 3.0, (i % 5) as f32 - 1.0))
            .unzip();
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let n = 300;
        let mean = (0..n)
            .map(|seed| {
                let sketch = Sketch::new(400, 64, seed);
                dot(&sketch.project(&x), &sketch.project(&y))
            })
            .sum::<f64>()
            / n as f64;
        // One projection's deviation is sqrt((|x|^2 |y|^2 + (x y)^2) / 64).
        let deviation = ((dot(&x, &x) * dot(&y, &y) + dot(&x, &y).powi(2)) / 64.0).sqrt();
        assert!(
            (mean - dot(&x, &y)).abs() < 4.0 * deviation / (n as f64).sqrt(),
            "{mean}"
        );
    }

    #[test]
    fn rows_of_the_query_s_kind_come_first() {
        let pool = pool(80, 40);
        let less = Less {
            rank: 4,
            projection: 256,
            warm_up: 0.3,
            epochs: 2,
            ..Less::default()
        };
        let picked = best(
            &less,
            &pool,
            &queries(&["two three one", "three one two"]),
            20,
        );
        let right = picked.iter().filter(|r| *r % 2 == 1).count();
        assert!(right >= 17, "{right}: {picked:?}");
    }
}
