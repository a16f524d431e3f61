//! What a filter is given, and what it gives.

use super::keep::Keep;
use super::net::FilterNet;
use super::pairs::Pairs;
use papertrial_core::task::{Context, Curve};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::{rng, sample_shuffled};

/// What a filter may learn from. The test pairs are not among it.
pub struct Sets<'a> {
    /// The pool that is to be filtered.
    pub pool: &'a Pairs,
    /// Trusted pairs, if there are any.
    pub clean: Option<&'a Pairs>,
    /// Pairs of the tasks for which the filter is tuned, if there are any.
    pub fine_tune: Option<&'a Pairs>,
    /// Seed of every draw.
    pub seed: u64,
}

impl Sets<'_> {
    /// The trusted pairs, at least a batch of them; `count` random ones, or all.
    ///
    /// # Errors
    /// None were given, there are fewer than asked for, or fewer than a batch.
    pub(super) fn trusted(&self, count: Option<usize>, batch: usize) -> Result<Pairs> {
        let clean = self.clean.ok_or_else(|| {
            Error::BadInput(
                "this filter learns from trusted pairs, and none were given; name a file with --clean, or mark them 'clean' in the column that says the part".into(),
            )
        })?;
        some_of(clean, count, batch, "clean pairs", self.seed)
    }

    /// Pairs of the pool as they are; `count` random ones, or all.
    ///
    /// # Errors
    /// There are fewer than asked for, or fewer than a batch.
    pub(super) fn raw(&self, count: Option<usize>, batch: usize) -> Result<Pairs> {
        some_of(self.pool, count, batch, "pairs of the pool", self.seed)
    }
}

/// `count` random pairs, in random order so that fewer of the same seed are the first of more; all of them in their own
/// order where no count is given.
fn some_of(
    pairs: &Pairs,
    count: Option<usize>,
    batch: usize,
    name: &str,
    seed: u64,
) -> Result<Pairs> {
    let n = pairs.len();
    let count = count.unwrap_or(n);
    if count > n {
        return Err(Error::option(
            "train-pairs",
            format!("asks for {count} {name}; there are {n}"),
        ));
    }
    if count < batch {
        return Err(Error::option(
            "batch",
            format!(
                "is {batch}, more than the {count} {name} that the filter learns from; give at most {count}, or more pairs"
            ),
        ));
    }
    if count == n {
        return Ok(pairs.clone());
    }
    let rows = sample_shuffled(&mut rng(seed, name), n, count)
        .map_err(|e| Error::option("train-pairs", e))?;
    Ok(pairs.select(&rows))
}

/// A filter of this task.
pub trait PairFilter: Send + Sync {
    /// Learns from the sets.
    ///
    /// # Errors
    /// Sets that are missing or too small, options that do not fit them, or a training that failed.
    fn train(&self, sets: &Sets, context: &Context) -> Result<Trained>;
}

/// Something that gives each pair a number: more is better. Numbers of different scorers are not comparable, only their
/// ranks are.
pub trait Scorer {
    /// One score for each pair, which does not depend on the others.
    ///
    /// # Errors
    /// Pairs of another kind than those learned from.
    fn score(&self, pairs: &Pairs, context: &Context) -> Result<Vec<f32>>;

    /// The two towers, where the scorer has them.
    fn net(&self) -> Option<&FilterNet> {
        None
    }
}

/// A filter that has learned.
pub struct Trained {
    /// Scores pairs.
    pub scorer: Box<dyn Scorer>,
    /// What is kept of them.
    pub keep: Keep,
    /// Losses.
    pub curves: Vec<Curve>,
    /// Remarks for the reader.
    pub notes: Vec<String>,
}

impl Trained {
    /// The best share is kept; nothing else to tell.
    pub(super) fn best(scorer: impl Scorer + 'static) -> Trained {
        Trained {
            scorer: Box::new(scorer),
            keep: Keep::Best,
            curves: Vec::new(),
            notes: Vec::new(),
        }
    }
}

impl Scorer for FilterNet {
    fn score(&self, pairs: &Pairs, context: &Context) -> Result<Vec<f32>> {
        FilterNet::score(self, pairs, context)
    }

    fn net(&self) -> Option<&FilterNet> {
        Some(self)
    }
}
