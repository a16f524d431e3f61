//! Searches all patches of all images: the score of an image is the largest of its patches'.
//!
//! 1. Patches v [p, d] of length 1, grouped by image; queries q [m, d]; a mix is a q_i + b q_j.
//! 2. Exact (fewer than 200,000 patches): D = q v^T in blocks of images. The score of a mix with a patch is
//!    a D_i + b D_j, so that all mixes of m queries cost m products and not one each.
//! 3. Approximate (more): an inverted file (Jégou, Douze and Schmid 2011). k-means of a sample gives about sqrt(p)
//!    lists; a patch belongs to the nearest centre; a mix looks only into the lists of its nearest centres, where all
//!    scores are exact, and computed as in 2. Images without a patch in these are unreached.
//! 4. The number of lists to look into is doubled until the approximate search gives at least 99 % of the images
//!    that the exact one returns, over trial queries of the kind that will come. Patches that fall into no clusters
//!    need so many lists that the exact search is faster; it is then taken, unless lists were asked for.
//!
//! Time exact: 2 m p d + 2 (mixes) p operations; approximate: the share of it that the lists looked into have of all
//! patches, plus 2 m sqrt(p) d. Memory: 4 (mixes) (images) bytes for the scores.

use super::score::UNREACHED;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::nearest;
use papertrial_numerics::kmeans::{KMeansOptions, kmeans};
use papertrial_numerics::linalg::{matmul_into, matmul_into_single};
use papertrial_numerics::{sampling, topk};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// From this number of patches on the search is approximate, unless asked otherwise.
const EXACT_BELOW: usize = 200_000;

/// Patches of a block, about.
const BLOCK: usize = 2048;

/// Rows of the sample for each list.
const SAMPLE: usize = 40;

/// Share of the exact search's images that the approximate one should give.
const WANTED_RECALL: f64 = 0.99;

/// How many times as long a patch takes in a list as in a block: its image may be anywhere. If more than one in so many
/// lists had to be looked into, the exact search is the faster one, and taken unless lists were asked for.
const DEARER: usize = 10;

/// Mixes that are searched together in the lists.
const TOGETHER: usize = 256;

/// How patches are searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IndexKind {
    /// Exact below 200,000 patches, from there on inverted lists if a tenth of them is enough.
    Auto,
    /// Every patch is looked at.
    Exact,
    /// Inverted lists.
    Ivf,
}

/// A query that mixes two rows of a matrix of queries: `a` times row `i` plus `b` times row `j`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    /// First row.
    pub i: usize,
    /// Its weight.
    pub a: f32,
    /// Second row.
    pub j: usize,
    /// Its weight.
    pub b: f32,
}

impl Mix {
    /// One row alone.
    pub fn single(row: usize) -> Mix {
        Mix {
            i: row,
            a: 1.0,
            j: row,
            b: 0.0,
        }
    }
}

/// Patches that can be searched.
pub struct Index<'a> {
    patches: ArrayView2<'a, f32>,
    starts: &'a [usize],
    lists: Option<Lists>,
    /// Share of the exact search's images that this one gives, where it is approximate.
    pub recall: Option<f64>,
}

/// The inverted lists.
struct Lists {
    /// [lists, d]
    centres: Array2<f32>,
    /// Half the squared length of each centre.
    half: Vec<f32>,
    /// Patches of each list, ascending.
    members: Vec<Vec<u32>>,
    /// Image of each patch.
    images: Vec<u32>,
    /// Lists that a query looks into.
    probes: usize,
}

impl<'a> Index<'a> {
    /// Makes patches [p, d] searchable; those of image i are the rows `starts[i]` to `starts[i + 1]`.
    ///
    /// `probes` is the number of lists to look into, if it is not to be found; the recall is measured with the queries
    /// `trial` [q, d], for `returns` images each.
    ///
    /// # Errors
    /// The lists cannot be made from the patches.
    pub fn new(
        patches: ArrayView2<'a, f32>,
        starts: &'a [usize],
        kind: IndexKind,
        probes: Option<usize>,
        trial: ArrayView2<'_, f32>,
        returns: usize,
        seed: u64,
    ) -> Result<Index<'a>> {
        let approximate = match kind {
            IndexKind::Auto => patches.nrows() >= EXACT_BELOW,
            IndexKind::Exact => false,
            IndexKind::Ivf => true,
        };
        let mut index = Index {
            patches,
            starts,
            lists: None,
            recall: None,
        };
        if !approximate {
            return Ok(index);
        }
        let mixes: Vec<Mix> = (0..trial.nrows()).map(Mix::single).collect();
        let exact = index.scores(trial, &mixes);
        let mut lists = Lists::new(patches, starts, seed)?;
        let most = lists.members.len();
        lists.probes = probes.unwrap_or(8).clamp(1, most);
        loop {
            index.lists = Some(lists);
            let found = index.scores(trial, &mixes);
            let recall = recall(&exact, &found, returns);
            index.recall = Some(recall);
            let Some(mut again) = index.lists.take() else {
                return Ok(index);
            };
            if kind == IndexKind::Auto && probes.is_none() && again.probes * DEARER > most {
                index.recall = None;
                return Ok(index);
            }
            if probes.is_some() || recall >= WANTED_RECALL || again.probes == most {
                index.lists = Some(again);
                return Ok(index);
            }
            again.probes = (again.probes * 2).min(most);
            lists = again;
        }
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// Lists there are and lists that a query looks into, where the search is approximate.
    pub fn probes(&self) -> Option<(usize, usize)> {
        let lists = self.lists.as_ref()?;
        Some((lists.members.len(), lists.probes))
    }

    /// Scores [mixes, images] of mixes of the queries [m, d]; the same bits whatever the number of threads.
    pub fn scores(&self, queries: ArrayView2<'_, f32>, mixes: &[Mix]) -> Array2<f32> {
        match &self.lists {
            None => self.exact(queries, mixes),
            Some(lists) => lists.scores(self.patches, self.images(), queries, mixes),
        }
    }

    fn exact(&self, queries: ArrayView2<'_, f32>, mixes: &[Mix]) -> Array2<f32> {
        let blocks = blocks(self.starts);
        let parts: Vec<Array2<f32>> = blocks
            .par_iter()
            .map(|&(first, last)| {
                let (low, high) = (self.starts[first], self.starts[last]);
                let block = self.patches.slice(s![low..high, ..]);
                let mut products = Array2::zeros((queries.nrows(), high - low));
                matmul_into_single(products.view_mut(), 1.0, queries, block.t(), 0.0);
                let mut part = Array2::zeros((mixes.len(), last - first));
                for (mix, mut row) in mixes.iter().zip(part.rows_mut()) {
                    let (x, y) = (products.row(mix.i), products.row(mix.j));
                    let (Some(x), Some(y)) = (x.as_slice(), y.as_slice()) else {
                        continue;
                    };
                    for (image, best) in (first..last).zip(row.iter_mut()) {
                        let (from, to) = (self.starts[image] - low, self.starts[image + 1] - low);
                        *best = largest(&x[from..to], mix.a, &y[from..to], mix.b);
                    }
                }
                part
            })
            .collect();
        let mut scores = Array2::zeros((mixes.len(), self.images()));
        for (&(first, last), part) in blocks.iter().zip(&parts) {
            scores.slice_mut(s![.., first..last]).assign(part);
        }
        scores
    }
}

/// The largest a x + b y, in eight lanes.
fn largest(x: &[f32], a: f32, y: &[f32], b: f32) -> f32 {
    let mut lanes = [UNREACHED; 8];
    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
    let (rest_x, rest_y) = (xs.remainder(), ys.remainder());
    for (x, y) in xs.zip(ys) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            let score = a * x + b * y;
            *lane = if score > *lane { score } else { *lane };
        }
    }
    for ((lane, x), y) in lanes.iter_mut().zip(rest_x).zip(rest_y) {
        let score = a * x + b * y;
        *lane = if score > *lane { score } else { *lane };
    }
    lanes.into_iter().fold(UNREACHED, f32::max)
}

/// Runs of whole images with about [`BLOCK`] patches each.
fn blocks(starts: &[usize]) -> Vec<(usize, usize)> {
    let images = starts.len().saturating_sub(1);
    let mut blocks = Vec::new();
    let mut first = 0;
    for image in 0..images {
        if starts[image + 1] - starts[first] >= BLOCK || image + 1 == images {
            blocks.push((first, image + 1));
            first = image + 1;
        }
    }
    blocks
}

/// Mean share of each row's best `returns` images in `exact` that are among the reached best ones of `found`.
fn recall(exact: &Array2<f32>, found: &Array2<f32>, returns: usize) -> f64 {
    let shares: Vec<f64> = exact
        .rows()
        .into_iter()
        .zip(found.rows())
        .map(|(exact, found)| {
            let wanted = topk::largest(&exact.to_vec(), returns);
            let got = topk::largest(&found.to_vec(), returns);
            let mut got: Vec<usize> = got.into_iter().filter(|i| found[*i] != UNREACHED).collect();
            got.sort_unstable();
            let hits = wanted.iter().filter(|i| got.binary_search(i).is_ok());
            hits.count() as f64 / wanted.len().max(1) as f64
        })
        .collect();
    shares.iter().sum::<f64>() / shares.len().max(1) as f64
}

impl Lists {
    /// Step 3.
    fn new(patches: ArrayView2<'_, f32>, starts: &[usize], seed: u64) -> Result<Lists> {
        let p = patches.nrows();
        let count = (p as f64).sqrt().round().max(1.0) as usize;
        let mut rng = sampling::rng(seed, "index sample");
        let rows = sampling::sample_sorted(&mut rng, p, (SAMPLE * count).min(p))
            .map_err(|e| Error::Failed(e.to_string()))?;
        let sample = patches.select(Axis(0), &rows);
        let options = KMeansOptions {
            max_rounds: 10,
            start: papertrial_numerics::kmeans::Start::RandomRows,
            seed,
            ..KMeansOptions::new(count)
        };
        let centres = kmeans(sample.view(), None, &options)
            .map_err(|e| Error::Failed(format!("the index of the patches: {e}")))?
            .centres;
        let labels = nearest(patches, centres.view())
            .map_err(|e| Error::Failed(format!("the index of the patches: {e}")))?;
        let mut members = vec![Vec::new(); count];
        for (patch, list) in labels.indices.iter().enumerate() {
            members[*list as usize].push(patch as u32);
        }
        let mut images = Vec::with_capacity(p);
        for (image, span) in starts.windows(2).enumerate() {
            images.extend((span[0]..span[1]).map(|_| image as u32));
        }
        let half = centres
            .rows()
            .into_iter()
            .map(|c| c.dot(&c) / 2.0)
            .collect();
        Ok(Lists {
            centres,
            half,
            members,
            images,
            probes: 1,
        })
    }

    fn scores(
        &self,
        patches: ArrayView2<'_, f32>,
        images: usize,
        queries: ArrayView2<'_, f32>,
        mixes: &[Mix],
    ) -> Array2<f32> {
        let mut scores = Array2::from_elem((mixes.len(), images), UNREACHED);
        let mut near = Array2::zeros((queries.nrows(), self.half.len()));
        matmul_into(near.view_mut(), 1.0, queries, self.centres.t(), 0.0);
        // A block of mixes belongs to one thread.
        scores
            .axis_chunks_iter_mut(Axis(0), TOGETHER)
            .collect::<Vec<_>>()
            .into_par_iter()
            .zip(mixes.par_chunks(TOGETHER))
            .for_each(|(mut scores, mixes)| {
                let mut visitors = vec![Vec::new(); self.half.len()];
                for (m, mix) in mixes.iter().enumerate() {
                    // Of vectors of length 1 the nearest centre is the one with the greatest of these.
                    let both = near.row(mix.i).into_iter().zip(near.row(mix.j));
                    let keys = both.zip(&self.half);
                    let keys: Vec<f32> = keys
                        .map(|((x, y), half)| mix.a * x + mix.b * y - half)
                        .collect();
                    for list in topk::largest(&keys, self.probes) {
                        visitors[list].push(m);
                    }
                }
                for (members, visitors) in self.members.iter().zip(&visitors) {
                    self.visit(members, visitors, patches, queries, mixes, &mut scores);
                }
            });
        scores
    }

    /// Looks for the mixes `visitors` into one list.
    fn visit(
        &self,
        members: &[u32],
        visitors: &[usize],
        patches: ArrayView2<'_, f32>,
        queries: ArrayView2<'_, f32>,
        mixes: &[Mix],
        scores: &mut ArrayViewMut2<'_, f32>,
    ) {
        let mut needed: Vec<usize> = visitors
            .iter()
            .flat_map(|m| [mixes[*m].i, mixes[*m].j])
            .collect();
        needed.sort_unstable();
        needed.dedup();
        let asking = queries.select(Axis(0), &needed);
        let row_of = |query: usize| needed.partition_point(|n| *n < query);
        for members in members.chunks(BLOCK) {
            let rows: Vec<usize> = members.iter().map(|m| *m as usize).collect();
            let block = patches.select(Axis(0), &rows);
            let mut products = Array2::zeros((asking.nrows(), rows.len()));
            matmul_into_single(products.view_mut(), 1.0, asking.view(), block.t(), 0.0);
            for m in visitors {
                let mix = &mixes[*m];
                let (x, y) = (products.row(row_of(mix.i)), products.row(row_of(mix.j)));
                let mut best = scores.row_mut(*m);
                for ((patch, x), y) in rows.iter().zip(x).zip(y) {
                    let score = mix.a * x + mix.b * y;
                    let best = &mut best[self.images[*patch] as usize];
                    *best = if score > *best { score } else { *best };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;
    use rand::RngExt;

    /// Unit rows around ten directions, and a few to each image.
    fn drawn(images: usize, each: usize, seed: u64) -> (Array2<f32>, Vec<usize>) {
        let mut rng = sampling::rng(seed, "test patches");
        let directions: Array2<f32> =
            Array2::from_shape_simple_fn((10, 12), || rng.random_range(-1.0..1.0));
        let mut patches =
            Array2::from_shape_simple_fn((images * each, 12), || rng.random_range(-0.3f32..0.3));
        for (i, mut row) in patches.rows_mut().into_iter().enumerate() {
            row += &directions.row((i * 7 + i / 13) % 10);
            let length = row.dot(&row).sqrt();
            row /= length;
        }
        (patches, (0..=images).map(|i| i * each).collect())
    }

    #[test]
    fn the_best_patch_decides_by_hand() {
        let patches = array![[1.0f32, 0.0], [0.0, 1.0], [0.6, 0.8]];
        let starts = [0, 2, 3];
        let index = Index::new(
            patches.view(),
            &starts,
            IndexKind::Auto,
            None,
            patches.view(),
            10,
            0,
        )
        .unwrap();
        let queries = array![[1.0f32, 0.0], [0.0, 1.0]];
        let both = Mix {
            i: 0,
            a: 0.5,
            j: 1,
            b: 0.5,
        };
        let scores = index.scores(queries.view(), &[Mix::single(0), Mix::single(1), both]);
        // The mix is best met by the one patch that has a bit of both.
        let wanted = array![[1.0, 0.6], [1.0, 0.8], [0.5, 0.7]];
        assert!(
            scores
                .iter()
                .zip(&wanted)
                .all(|(a, b)| (a - b).abs() < 1e-6)
        );
        assert_eq!((index.images(), index.recall), (2, None));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn looking_into_every_list_is_exact(seed in 0u64..1000, images in 1usize..300, each in 1usize..12) {
            let (patches, starts) = drawn(images, each, seed);
            let exact = Index::new(patches.view(), &starts, IndexKind::Exact, None, patches.view(), 10, seed).unwrap();
            let lists = Index::new(patches.view(), &starts, IndexKind::Ivf, Some(usize::MAX), patches.view(), 10, seed).unwrap();
            let queries = patches.slice(s![..1, ..]);
            let mixes = [Mix::single(0), Mix { i: 0, a: -0.7, j: 0, b: 0.1 }];
            let (a, b) = (exact.scores(queries, &mixes), lists.scores(queries, &mixes));
            prop_assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5));
            // Every patch once, by another route.
            for image in 0..images {
                let best = (starts[image]..starts[image + 1])
                    .map(|p| patches.row(p).dot(&queries.row(0)))
                    .fold(f32::MIN, f32::max);
                prop_assert!((a[[0, image]] - best).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn few_lists_give_a_measured_recall_and_are_raised_to_99_per_cent() {
        let (patches, starts) = drawn(600, 4, 3);
        let trial = patches.slice(s![..100, ..]);
        let low = Index::new(
            patches.view(),
            &starts,
            IndexKind::Ivf,
            Some(1),
            trial,
            50,
            3,
        )
        .unwrap();
        let low = low.recall.unwrap();
        assert!(low > 0.0 && low < WANTED_RECALL, "{low}");
        let found =
            Index::new(patches.view(), &starts, IndexKind::Ivf, None, trial, 50, 3).unwrap();
        assert!(found.recall.unwrap() >= WANTED_RECALL);
        let (lists, probes) = found.probes().unwrap();
        assert!(probes > 1 && probes <= lists);
    }

    #[test]
    fn from_200_000_patches_on_lists_are_used_where_they_pay() {
        let kept = |d: usize, returns: usize| {
            let mut rng = sampling::rng(d as u64, "many patches");
            let mut patches =
                Array2::from_shape_simple_fn((EXACT_BELOW, d), || rng.random_range(-1.0f32..1.0));
            for mut row in patches.rows_mut() {
                let length = row.dot(&row).sqrt();
                row /= length;
            }
            let starts: Vec<usize> = (0..=EXACT_BELOW / 4).map(|i| i * 4).collect();
            let trial = patches.slice(s![..20, ..]);
            let auto = IndexKind::Auto;
            let index = Index::new(patches.view(), &starts, auto, None, trial, returns, 1).unwrap();
            index.recall
        };
        // Of points on a sphere the nearest are all in a few lists; directions in 24 dimensions are all far apart.
        assert!(kept(3, 10).is_some_and(|r| r >= WANTED_RECALL));
        assert_eq!(kept(24, 1000), None);
    }
}
