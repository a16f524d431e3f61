//! Two towers that are trained to put right pairs together: the filter, and the model that judges it.

use super::evaluate::{self, Prompts};
use super::loss::{contrastive, targets};
use super::order::Order;
use super::pairs::Pairs;
use super::towers::{DIM, Inputs, Plan, Tower, TowerKind};
use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};
use ndarray::Array2;
use papertrial_core::task::{Context, Curve};
use papertrial_core::{Error, Result};
use papertrial_nn::train::{Optimiser, Schedule, Stepper, Training};
use papertrial_nn::{device, seeded, store, values_of};
use papertrial_numerics::sampling::rng;
use std::path::Path;

/// Pairs that are embedded at once.
const CHUNK: usize = 1024;

/// Scale of the similarities at the start, 1 / temperature.
const FIRST_SCALE: f64 = 1.0 / 0.07;

/// Largest scale.
const LAST_SCALE: f64 = 100.0;

/// How towers are trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Lessons {
    /// Pairs seen, the same ones again where there are fewer.
    pub samples: usize,
    /// Pairs of a step, which are each other's wrong answers.
    pub batch: usize,
    /// Learning rate at the start; it falls along half a cosine to 0.
    pub learning_rate: f64,
    /// AdamW's pull of the weights to 0, times the learning rate.
    pub weight_decay: f64,
    /// Random resized crops of pictures.
    pub crops: bool,
    /// Seed of weights, order and crops.
    pub seed: u64,
}

impl Default for Lessons {
    fn default() -> Self {
        Lessons {
            samples: 30_000,
            batch: 128,
            learning_rate: 2e-3,
            weight_decay: 0.2,
            crops: false,
            seed: 0,
        }
    }
}

/// Both towers and the learned scale of the similarities, kept as its logarithm.
#[derive(Module, Debug)]
struct Towers {
    left: Tower,
    right: Tower,
    log_scale: Param<Tensor<1>>,
}

impl Towers {
    fn new(plan: &Plan, device: &Device) -> Towers {
        let start = Initializer::Constant {
            value: FIRST_SCALE.ln(),
        };
        Towers {
            left: Tower::new(&plan.left, plan.kind, device),
            right: Tower::new(&plan.right, plan.kind, device),
            log_scale: start.init([1], device),
        }
    }

    /// Puts the scale back between 1 and [`LAST_SCALE`]. Clamped here and not within the loss, it can always come back:
    /// a clamped value has no gradient.
    fn clamped(mut self) -> Result<Towers> {
        let value = values_of(self.log_scale.val())?;
        let most = LAST_SCALE.ln() as f32;
        if let [value] = value[..]
            && !(0.0..=most).contains(&value)
        {
            let within = value.clamp(0.0, most);
            self.log_scale = self
                .log_scale
                .map(|t| Tensor::from_data([within], &t.device()).require_grad());
        }
        Ok(self)
    }
}

/// A filter, or a model trained on what a filter kept: an image tower and a text tower that meet in \[64\].
#[derive(Debug, Clone)]
pub struct FilterNet {
    plan: Plan,
    towers: Towers,
}

impl FilterNet {
    /// Trains on `pairs` from nothing; the curve is the loss against pairs seen.
    ///
    /// # Errors
    /// No pairs, towers that do not fit them, a training that diverged, or a device that is not there.
    pub fn train(
        kind: TowerKind,
        pairs: &Pairs,
        lessons: &Lessons,
        context: &Context,
        what: &str,
    ) -> Result<(FilterNet, Curve)> {
        let plan = Plan::of(kind, pairs)?;
        let device = device(&context.device)?;
        let towers = seeded(&device, lessons.seed, |d| Towers::new(&plan, d));
        FilterNet { plan, towers }.taught(pairs, lessons, context, what)
    }

    /// Trains further, on other pairs with the same kinds of sides.
    ///
    /// # Errors
    /// As [`FilterNet::train`], and pairs of another kind.
    pub fn tune(
        self,
        pairs: &Pairs,
        lessons: &Lessons,
        context: &Context,
        what: &str,
    ) -> Result<(FilterNet, Curve)> {
        let towers = self.towers.train();
        let plan = self.plan;
        FilterNet { plan, towers }.taught(pairs, lessons, context, what)
    }

    /// Steps: a batch of pairs, their loss, AdamW, the scale put back within its limits.
    fn taught(
        self,
        pairs: &Pairs,
        lessons: &Lessons,
        context: &Context,
        what: &str,
    ) -> Result<(FilterNet, Curve)> {
        if pairs.is_empty() {
            return Err(Error::Failed(format!("{what}: there are no pairs")));
        }
        if lessons.batch == 0 {
            return Err(Error::option("batch", "must be at least 1"));
        }
        let FilterNet { plan, mut towers } = self;
        let device = device(&context.device)?.autodiff();
        let (left, right) = plan.inputs(pairs)?;
        let texts = pairs.right.identities();
        let steps = lessons.samples.div_ceil(lessons.batch);
        let training = Training {
            batch: lessons.batch,
            learning_rate: lessons.learning_rate,
            optimiser: Optimiser::AdamW {
                weight_decay: lessons.weight_decay,
            },
            schedule: Schedule::Cosine { floor: 0.0 },
            ..Training::default()
        };
        let mut stepper = Stepper::new(&training, steps);
        let mut order = Order::new(pairs.len(), lessons.seed, "order of pairs");
        let mut crops = rng(lessons.seed, "crops of pictures");
        let mut points = Vec::new();
        let (mut sum, mut count) = (0.0, 0);
        for step in 0..steps {
            context.step(what, step, steps);
            let rows = order.take(lessons.batch);
            let crops = lessons.crops.then_some(&mut crops);
            let z_left = towers.left.embed(left.batch(&rows, crops, &device));
            let z_right = towers.right.embed(right.batch(&rows, None, &device));
            let of_batch: Vec<u32> = rows.iter().map(|r| texts[*r]).collect();
            let scale = towers.log_scale.val().exp();
            let losses = contrastive(z_left, z_right, scale, targets(&of_batch, &device));
            let (next, value) = stepper.step(towers, losses.mean())?;
            towers = next.clamped()?;
            sum += f64::from(value);
            count += 1;
            // Some 50 points a curve.
            if count * 50 >= steps || step + 1 == steps {
                points.push((
                    ((step + 1) * lessons.batch) as f64,
                    sum / f64::from(count as u32),
                ));
                (sum, count) = (0.0, 0);
            }
        }
        let net = FilterNet {
            plan,
            towers: towers.valid(),
        };
        let curve = Curve {
            name: format!("loss: {what}"),
            x: "pairs seen".into(),
            y: "loss".into(),
            points,
        };
        Ok((net, curve))
    }

    /// Unit vectors of the left sides, \[pairs, 64\].
    ///
    /// # Errors
    /// Pairs of another kind, or a device that fails.
    pub fn left(&self, pairs: &Pairs, context: &Context) -> Result<Array2<f32>> {
        let (left, _) = self.plan.inputs(pairs)?;
        let rows: Vec<usize> = (0..pairs.len()).collect();
        embed(&self.towers.left, &left, &rows, context)
    }

    /// Unit vectors of the right sides of `rows`, \[rows, 64\].
    ///
    /// # Errors
    /// As [`FilterNet::left`].
    pub fn right(&self, pairs: &Pairs, rows: &[usize], context: &Context) -> Result<Array2<f32>> {
        let (_, right) = self.plan.inputs(pairs)?;
        embed(&self.towers.right, &right, rows, context)
    }

    /// Cosine of image and text of each pair, without the temperature. Computed in batches, judged as a whole.
    ///
    /// # Errors
    /// As [`FilterNet::left`].
    pub fn score(&self, pairs: &Pairs, context: &Context) -> Result<Vec<f32>> {
        let (left, right) = self.plan.inputs(pairs)?;
        let device = device(&context.device)?;
        let rows: Vec<usize> = (0..pairs.len()).collect();
        let mut scores = Vec::with_capacity(rows.len());
        for chunk in rows.chunks(CHUNK) {
            context.step("scoring", scores.len(), rows.len());
            let z_left = self.towers.left.embed(left.batch(chunk, None, &device));
            let z_right = self.towers.right.embed(right.batch(chunk, None, &device));
            scores.extend(values_of((z_left * z_right).sum_dim(1))?);
        }
        Ok(scores)
    }

    /// Share of the pairs whose image lies nearest to the prompts of its own class, 0 to 1.
    ///
    /// # Errors
    /// As [`FilterNet::left`].
    pub fn zero_shot(&self, test: &Pairs, prompts: &Prompts, context: &Context) -> Result<f64> {
        let images = self.left(test, context)?;
        let texts = self.right(test, &prompts.rows, context)?;
        Ok(evaluate::zero_shot(&images, &texts, prompts))
    }

    /// Temperature that was learned, the reciprocal of the scale.
    ///
    /// # Errors
    /// A device that fails.
    pub fn temperature(&self) -> Result<f64> {
        let scale = values_of(self.towers.log_scale.val())?;
        Ok(scale.first().map_or(f64::NAN, |s| (-f64::from(*s)).exp()))
    }

    /// Writes the weights, with what the towers read, as safetensors.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        store::save(&self.towers, &self.plan, path)
    }

    /// Reads what [`FilterNet::save`] wrote.
    ///
    /// # Errors
    /// The file cannot be read or holds something else.
    pub fn load(path: &Path, context: &Context) -> Result<FilterNet> {
        let plan: Plan = store::options(path)?;
        let device = device(&context.device)?;
        let towers = seeded(&device, 0, |d| Towers::new(&plan, d)).valid();
        let towers = store::load(&towers, path)?;
        Ok(FilterNet { plan, towers })
    }

    /// What its towers read, the image tower and the text tower, ready to be trained or frozen.
    pub(super) fn into_towers(self) -> (Plan, Tower, Tower) {
        let towers = self.towers.train();
        (self.plan, towers.left, towers.right)
    }
}

fn embed(tower: &Tower, inputs: &Inputs, rows: &[usize], context: &Context) -> Result<Array2<f32>> {
    let device = device(&context.device)?;
    let mut values = Vec::with_capacity(rows.len() * DIM);
    for chunk in rows.chunks(CHUNK) {
        values.extend(values_of(tower.embed(inputs.batch(chunk, None, &device)))?);
    }
    Array2::from_shape_vec((rows.len(), DIM), values).map_err(|e| Error::Failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::pairs::Side;
    use super::*;

    /// Pictures of 4 numbers whose largest place is named by the text.
    fn pairs(n: usize, seed: u64) -> Pairs {
        use rand::RngExt;
        let mut rng = rng(seed, "test");
        let names = ["north", "east", "south", "west"];
        let mut values = Vec::new();
        let mut texts = Vec::new();
        for i in 0..n {
            let class = i % 4;
            for j in 0..4 {
                values.push(0.3 * rng.random::<f32>() + if j == class { 1.0 } else { 0.0 });
            }
            let form = ["to the", "from"][rng.random_range(0..2)];
            texts.push(format!("{form} {}", names[class]));
        }
        Pairs {
            uids: (0..n).map(|i| i.to_string()).collect(),
            left: Side::Vectors { values, width: 4 },
            right: Side::Texts(texts),
            shape: None,
            labels: Some((0..n).map(|i| names[i % 4].to_string()).collect()),
            matches: None,
        }
    }

    fn lessons(samples: usize) -> Lessons {
        Lessons {
            samples,
            batch: 16,
            learning_rate: 1e-2,
            ..Lessons::default()
        }
    }

    fn trained(kind: TowerKind, samples: usize) -> FilterNet {
        let context = Context::with_seed(0);
        FilterNet::train(kind, &pairs(64, 1), &lessons(samples), &context, "test")
            .unwrap()
            .0
    }

    #[test]
    fn it_learns_which_texts_belong_to_which_vectors() {
        let context = Context::with_seed(0);
        let net = trained(TowerKind::Tiny, 1600);
        let test = pairs(40, 2);
        let prompts = Prompts::of(&test).unwrap();
        assert!(net.zero_shot(&test, &prompts, &context).unwrap() > 0.95);
        // Right pairs score above those with the texts moved on by one class.
        let mut wrong = test.clone();
        wrong.right = test
            .select(&(0..40).map(|i| (i + 1) % 40).collect::<Vec<_>>())
            .right;
        let (right, wrong) = (
            net.score(&test, &context).unwrap(),
            net.score(&wrong, &context).unwrap(),
        );
        assert!(right.iter().zip(&wrong).filter(|(r, w)| r > w).count() >= 38);
        let t = net.temperature().unwrap();
        assert!((1.0 / LAST_SCALE - 1e-6..=1.0).contains(&t), "{t}");
    }

    #[test]
    fn the_same_seed_gives_the_same_bits() {
        let context = Context::with_seed(0);
        let scores = |seed| {
            let lessons = Lessons {
                seed,
                ..lessons(160)
            };
            let net = FilterNet::train(TowerKind::Tiny, &pairs(64, 1), &lessons, &context, "test")
                .unwrap()
                .0;
            net.score(&pairs(9, 3), &context).unwrap()
        };
        assert_eq!(scores(1), scores(1));
        assert_ne!(scores(1), scores(2));
    }

    #[test]
    fn the_scale_is_kept_within_its_limits_and_still_learns() {
        let device = device("cpu").unwrap();
        let plan = Plan::of(TowerKind::Tiny, &pairs(8, 1)).unwrap();
        for (start, want) in [(9.0f32, 100f64.ln()), (-2.0, 0.0), (1.0, 1.0)] {
            let mut towers = seeded(&device, 0, |d| Towers::new(&plan, d));
            let auto = device.clone().autodiff();
            towers.log_scale = towers
                .log_scale
                .map(|_| Tensor::from_data([start], &auto).require_grad());
            let towers = towers.clamped().unwrap();
            let got = values_of(towers.log_scale.val()).unwrap()[0];
            assert!((f64::from(got) - want).abs() < 1e-6, "{start}: {got}");
            let gradients = towers.log_scale.val().exp().sum().backward();
            assert!(towers.log_scale.val().grad(&gradients).is_some());
        }
    }

    #[test]
    fn saved_weights_score_the_same_and_can_be_trained_further() {
        let context = Context::with_seed(0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("filter.safetensors");
        for kind in [TowerKind::Tiny, TowerKind::Small] {
            let net = trained(kind, 64);
            net.save(&path).unwrap();
            let loaded = FilterNet::load(&path, &context).unwrap();
            let test = pairs(9, 3);
            let before = net.score(&test, &context).unwrap();
            assert_eq!(before, loaded.score(&test, &context).unwrap());
            let lessons = lessons(64);
            let a = net.tune(&test, &lessons, &context, "tuning").unwrap().0;
            let b = loaded.tune(&test, &lessons, &context, "tuning").unwrap().0;
            let after = a.score(&test, &context).unwrap();
            assert_eq!(after, b.score(&test, &context).unwrap());
            assert_ne!(before, after);
        }
        std::fs::write(&path, b"nothing").unwrap();
        assert!(FilterNet::load(&path, &context).is_err());
    }

    #[test]
    fn wrong_pairs_are_told() {
        let context = Context::with_seed(0);
        let net = trained(TowerKind::Tiny, 16);
        let mut other = pairs(4, 1);
        other.right = Side::Vectors {
            values: vec![0.5; 8],
            width: 2,
        };
        assert!(net.score(&other, &context).is_err());
        let none = pairs(4, 1).select(&[]);
        assert!(FilterNet::train(TowerKind::Tiny, &none, &lessons(16), &context, "test").is_err());
    }
}
