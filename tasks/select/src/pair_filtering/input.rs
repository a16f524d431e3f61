//! From a job's tables to the pool, the trusted pairs, the test pairs and the pairs for tuning.

use super::TaskOptions;
use super::duplicates::{self, Seen};
use super::pairs::{Pairs, Shape};
use super::reading::{Chunk, PARTS, Reading, fits_memory};
use ndarray::Array1;
use papertrial_core::task::{Context, Job};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::{permutation, rng, sample_sorted};

/// All pairs of a job.
pub(super) struct Loaded {
    /// The pool, or a random part of a large one.
    pub pool: Pairs,
    pub clean: Option<Pairs>,
    pub test: Option<Pairs>,
    pub fine_tune: Option<Pairs>,
    /// What was wrong with rows that were left out.
    pub bad: Vec<String>,
    /// Pairs of the pool that were equal to an earlier one and were left out.
    pub repeats: usize,
    /// Pairs whose image is a near duplicate of a test image and that were left out: of the pool, and of the others.
    pub near: [usize; 2],
    /// Mean of the pool's images, from which near duplicates are looked for.
    mean: Array1<f32>,
}

/// How the tables of a job are read.
fn reading<'a>(job: &'a Job, asked: &'a TaskOptions) -> Result<Reading<'a>> {
    let shape = match asked.image_shape.as_deref() {
        None => None,
        Some(&[channels, height, width]) if channels > 0 && height > 0 && width > 0 => {
            Some(Shape {
                channels,
                height,
                width,
            })
        }
        Some(other) => {
            return Err(Error::option(
                "image-shape",
                format!("takes channels, height and width, such as [1,8,8], not {other:?}"),
            ));
        }
    };
    Ok(Reading {
        roles: &job.roles,
        part: &asked.part,
        matches: &asked.matches,
        shape,
        skip_bad: asked.skip_bad,
    })
}

/// Reads everything that the job names; of a pool of more than `most` rows, random ones.
///
/// # Errors
/// As [`Reading::read`]; a part that is given both in the main table and as a file; pairs of different kinds.
pub(super) fn load(
    job: &Job,
    asked: &TaskOptions,
    most: Option<usize>,
    context: &Context,
) -> Result<Loaded> {
    let reading = reading(job, asked)?;
    let table = job.table("data", context)?;
    let total = table.rows();
    let count = usize::try_from(total).unwrap_or(usize::MAX);
    let sampled = match most {
        Some(most) if most < count => {
            let mut draws = rng(job.seed, "part of the pool to learn from");
            let rows = sample_sorted(&mut draws, count, most);
            Some(rows.map_err(|e| Error::option("pool-sample", e))?)
        }
        _ => None,
    };
    let mut parts: [Option<Pairs>; 4] = [None, None, None, None];
    let mut checked = false;
    let mut bad = reading.each(&table, &mut |chunk| {
        context.step("reading pairs", chunk.rows[0], count);
        if !checked {
            let rows = most.map_or(total, |m| total.min(m as u64));
            fits_memory(&table, &chunk.pairs, rows, context)?;
            checked = true;
        }
        for (p, part) in parts.iter_mut().enumerate() {
            let rows = of_part(&chunk, p, |at| {
                p > 0 || (sampled.as_ref()).is_none_or(|s| s.binary_search(&chunk.rows[at]).is_ok())
            });
            if !rows.is_empty() {
                let some = chunk.pairs.select(&rows);
                *part = Some(match part.take() {
                    Some(pairs) => pairs.with(&some)?,
                    None => some,
                });
            }
        }
        Ok(())
    })?;
    for (name, part) in PARTS.iter().zip(&mut parts).skip(1) {
        if job.inputs.contains_key(*name) {
            if part.is_some() {
                return Err(Error::option(
                    &format!("--{name}"),
                    format!(
                        "the main data hold {name} pairs already, in column '{}'",
                        asked.part
                    ),
                ));
            }
            let (pairs, more) = reading.read(&job.table(name, context)?, context)?;
            bad.extend(more.into_iter().map(|b| format!("{name}: {b}")));
            *part = Some(pairs);
        }
    }
    let [pool, clean, test, fine_tune] = parts;
    let pool = pool.ok_or_else(|| {
        Error::BadInput(format!(
            "no row is marked 'pool' in column '{}', so there is nothing to filter",
            asked.part
        ))
    })?;
    for (pairs, name) in [
        (&clean, PARTS[1]),
        (&test, PARTS[2]),
        (&fine_tune, PARTS[3]),
    ] {
        if let Some(pairs) = pairs {
            pairs.fits(&pool, &format!("the {name} pairs"))?;
        }
    }
    Ok(Loaded {
        mean: duplicates::mean(&pool)?,
        pool,
        clean,
        test,
        fine_tune,
        bad,
        repeats: 0,
        near: [0, 0],
    })
}

/// Rows of a chunk that belong to part `part` and are `wanted`; without a column of parts all are the pool.
fn of_part(chunk: &Chunk, part: usize, wanted: impl Fn(usize) -> bool) -> Vec<usize> {
    let is = |at: usize| match &chunk.parts {
        Some(parts) => parts[at] == part,
        None => part == 0,
    };
    (0..chunk.rows.len())
        .filter(|at| is(*at) && wanted(*at))
        .collect()
}

/// Hands over the whole pool, some thousands of pairs at a time, without the pairs that [`Loaded::without_duplicates`]
/// leaves out; counts those in `loaded`.
///
/// # Errors
/// As [`Reading::each`], and those of `take`.
pub(super) fn whole_pool(
    job: &Job,
    asked: &TaskOptions,
    loaded: &mut Loaded,
    context: &Context,
    mut take: impl FnMut(Pairs) -> Result<()>,
) -> Result<()> {
    let table = job.table("data", context)?;
    let mut seen = asked.dedup.then(Seen::default);
    let (mut repeats, mut gone) = (0, 0);
    reading(job, asked)?.each(&table, &mut |chunk| {
        let rows = of_part(&chunk, 0, |_| true);
        if rows.is_empty() {
            return Ok(());
        }
        let mut pairs = chunk.pairs.select(&rows);
        if let Some(seen) = &mut seen {
            let new = seen.new_rows(&pairs);
            repeats += pairs.len() - new.len();
            pairs = pairs.select(&new);
        }
        if let Some(test) = &loaded.test {
            let near = duplicates::near(test, &pairs, &loaded.mean, asked.near_duplicate)?;
            let apart: Vec<usize> = (0..pairs.len()).filter(|r| !near[*r]).collect();
            gone += pairs.len() - apart.len();
            pairs = pairs.select(&apart);
        }
        if pairs.is_empty() {
            Ok(())
        } else {
            take(pairs)
        }
    })?;
    loaded.repeats = repeats;
    loaded.near[0] = gone;
    Ok(())
}

impl Loaded {
    /// Takes the test pairs out of the trusted ones where none are given: a share of them, drawn from the seed.
    ///
    /// # Errors
    /// Neither test nor trusted pairs, or a share that leaves one of them empty.
    pub fn with_test(mut self, share: f64, seed: u64) -> Result<Loaded> {
        if self.test.is_some() {
            return Ok(self);
        }
        let Some(clean) = self.clean.take() else {
            return Err(Error::BadInput(
                "a filter is judged on pairs that are known to be right, and none were given; name a file with --test or --clean, or mark rows 'test' or 'clean' in the column that says the part".into(),
            ));
        };
        let n = clean.len();
        let count = (share * n as f64).round() as usize;
        if count < 2 || count >= n {
            return Err(Error::option(
                "test-share",
                format!(
                    "{share} of {n} clean pairs is {count} test pairs; at least 2 must be tested on, and some be left"
                ),
            ));
        }
        let order = permutation(&mut rng(seed, "test pairs among the clean ones"), n);
        let (test, rest) = order.split_at(count);
        let sorted = |rows: &[usize]| {
            let mut rows = rows.to_vec();
            rows.sort_unstable();
            rows
        };
        self.test = Some(clean.select(&sorted(test)));
        self.clean = Some(clean.select(&sorted(rest)));
        Ok(self)
    }

    /// Leaves out pairs of the pool that come again, and, where there are test pairs, all other pairs whose image is a
    /// near duplicate of a test image.
    ///
    /// # Errors
    /// Trusted or tuning pairs that are test pairs; nothing is left.
    pub fn without_duplicates(mut self, asked: &TaskOptions) -> Result<Loaded> {
        if asked.dedup {
            let first = Seen::default().new_rows(&self.pool);
            self.repeats = self.pool.len() - first.len();
            if self.repeats > 0 {
                self.pool = self.pool.select(&first);
            }
        }
        let Some(test) = &self.test else {
            return Ok(self);
        };
        let threshold = asked.near_duplicate;
        let apart = |pairs: &Pairs, name: &str| -> Result<(Pairs, usize)> {
            let near = duplicates::near(test, pairs, &self.mean, threshold)?;
            let rows: Vec<usize> = (0..pairs.len()).filter(|r| !near[*r]).collect();
            if rows.is_empty() {
                return Err(Error::BadInput(format!(
                    "every image of the {name} pairs is a near duplicate of a test image; give other test pairs, or raise near-duplicate above {threshold}"
                )));
            }
            Ok((pairs.select(&rows), pairs.len() - rows.len()))
        };
        let (pool, gone) = apart(&self.pool, PARTS[0])?;
        self.pool = pool;
        self.near[0] = gone;
        for (pairs, name) in [(&mut self.clean, PARTS[1]), (&mut self.fine_tune, PARTS[3])] {
            if let Some(some) = pairs {
                duplicates::refuse_overlap(test, some, &format!("the {name} pairs"))?;
                let (rest, gone) = apart(some, name)?;
                *some = rest;
                self.near[1] += gone;
            }
        }
        Ok(self)
    }

    /// What was left out, in words.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(first) = self.bad.first() {
            notes.push(format!(
                "{} rows were left out; the first: {first}",
                self.bad.len()
            ));
        }
        if self.repeats > 0 {
            notes.push(format!(
                "{} pairs of the pool were equal to an earlier one and were left out",
                self.repeats
            ));
        }
        if self.test.is_some() {
            notes.push(format!(
                "near duplicates of test images, left out: {} of the pool, {} of the clean and fine-tuning pairs",
                self.near[0], self.near[1]
            ));
        }
        notes
    }
}
