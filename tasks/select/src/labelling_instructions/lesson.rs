//! What a method sees of one class, and how its pairs search.
//!
//! A pair is a crop with a text. With vectors z_i of the crop and z_t of the text (unit length), its score of a patch
//! v is
//! - early fusion: cosine of v with alpha z_i + (1 - alpha) z_t, scaled to length 1, so that a query is one point of
//!   the space and like is compared with like;
//! - late fusion: the crop's and the text's own scores of an image, each standardised over the images learned from
//!   (the two kinds of vectors have cosines of different ranges), and their mean or the greater.
//!
//! The score of an image is the largest over its patches, that of a guide the largest over its pairs. The image that a
//! crop was cut from is removed from the searches with that crop: it would come first for nothing.

use super::collection::Collection;
use super::index::{Index, Mix};
use super::score::{Goal, REMOVED, UNREACHED};
use ndarray::{Array2, ArrayView1, Axis};
use papertrial_core::{Error, Result};
use papertrial_numerics::kmeans::{KMeansOptions, kmeans};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a crop and a text become one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fusion {
    /// One vector between the two.
    Early,
    /// Two searches, the mean of their standardised scores.
    LateMean,
    /// Two searches, the greater of their standardised scores.
    LateMax,
}

/// Weights of the crop among which one is chosen for each class, where none is given.
pub const ALPHAS: [f64; 3] = [0.3, 0.5, 0.7];

/// A crop with a text, by their numbers in the collection; one of the two may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The crop.
    pub crop: Option<usize>,
    /// The text.
    pub text: Option<usize>,
}

/// The pairs of a class.
#[derive(Debug, Clone, PartialEq)]
pub struct Guide {
    /// The pairs, the most useful first.
    pub pairs: Vec<Pair>,
    /// Weight of the crop in early fusion.
    pub alpha: f64,
    /// Average precision on the images learned from with the first pair, with the first two, and so on.
    pub values: Vec<f64>,
}

/// How pairs search a collection.
pub struct Search<'a> {
    /// What is searched.
    pub collection: &'a Collection,
    /// Its patches.
    pub index: &'a Index<'a>,
    /// How a crop and a text become one query.
    pub fusion: Fusion,
    /// Whether the scores of each pair are standardised before those of several pairs are compared.
    pub standardise: bool,
}

/// Scores of some pairs for the images of a lesson, those of the class first.
pub struct Scores {
    /// [pairs, images]
    rows: Array2<f32>,
    positives: usize,
    goal: Goal,
}

impl Scores {
    /// Number of pairs.
    pub fn pairs(&self) -> usize {
        self.rows.nrows()
    }

    /// Scores of one pair.
    pub fn of(&self, pair: usize) -> &[f32] {
        let width = self.rows.ncols();
        match self.rows.as_slice() {
            Some(all) => &all[pair * width..(pair + 1) * width],
            None => &[],
        }
    }

    /// Average precision of merged scores.
    pub fn value(&self, merged: &[f32]) -> f64 {
        let (positives, negatives) = merged.split_at(self.positives);
        self.goal.value(positives, negatives)
    }

    /// Average precision with the first pair, with the first two, and so on.
    pub fn values(&self) -> Vec<f64> {
        let mut merged = vec![REMOVED; self.rows.ncols()];
        (0..self.pairs())
            .map(|pair| {
                merge(&mut merged, self.of(pair));
                self.value(&merged)
            })
            .collect()
    }
}

/// The greater of each two scores.
pub fn merge(merged: &mut [f32], other: &[f32]) {
    for (m, o) in merged.iter_mut().zip(other) {
        *m = if *o > *m { *o } else { *m };
    }
}

/// The guide with the greatest value; of equal ones the first.
///
/// # Errors
/// There is none.
pub fn best_guide(guides: impl Iterator<Item = Guide>) -> Result<Guide> {
    let value = |g: &Guide| g.values.last().copied().unwrap_or_default();
    guides
        .reduce(|best, next| {
            if value(&next) > value(&best) {
                next
            } else {
                best
            }
        })
        .ok_or_else(|| Error::Failed("there is no guide to choose".into()))
}

/// One class, as far as a method may see it.
pub struct Lesson<'a, 's> {
    /// How pairs search.
    pub search: &'a Search<'s>,
    /// The class.
    pub class: usize,
    /// Images that are learned from: for each image, whether it is one.
    pub learned: &'a [bool],
    /// Images learned from, those of the class first.
    order: Vec<usize>,
    /// Images of the class among these.
    positives: usize,
    /// Crops of the class in images learned from.
    pub crops: Vec<usize>,
    /// Texts of the class, the class text first.
    pub texts: Vec<usize>,
    /// What is to become large.
    pub goal: Goal,
    /// Pairs that a guide may have.
    pub pairs: usize,
    /// Crops that a search for pairs may choose from.
    pub candidates: usize,
    /// Weight of the crop, if it is not to be chosen.
    pub alpha: Option<f64>,
    /// The pairs of a guide that the user has, in its order.
    pub given: &'a [Pair],
    /// Seed of this lesson's draws.
    pub seed: u64,
}

/// What all lessons of a job have in common.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// What is to become large.
    pub goal: Goal,
    /// Pairs that a guide may have.
    pub pairs: usize,
    /// Crops that a search for pairs may choose from.
    pub candidates: usize,
    /// Weight of the crop, if it is not to be chosen.
    pub alpha: Option<f64>,
    /// Seed of the draws.
    pub seed: u64,
}

impl<'a, 's> Lesson<'a, 's> {
    /// The lesson of a class from the images with `learned`; `None` if none of these shows it.
    pub fn new(
        search: &'a Search<'s>,
        class: usize,
        learned: &'a [bool],
        given: &'a [Pair],
        terms: Terms,
    ) -> Option<Lesson<'a, 's>> {
        let collection = search.collection;
        let mut order = collection.images_of(class);
        order.retain(|i| learned[*i]);
        let positives = order.len();
        if positives == 0 {
            return None;
        }
        let shown = order.clone();
        order.extend((0..learned.len()).filter(|i| learned[*i] && shown.binary_search(i).is_err()));
        Some(Lesson {
            search,
            class,
            learned,
            order,
            positives,
            crops: (0..collection.crops.len())
                .filter(|c| {
                    let (place, of) = &collection.crops[*c];
                    *of == class && learned[place.image]
                })
                .collect(),
            texts: collection.texts_of(class),
            goal: terms.goal,
            pairs: terms.pairs,
            candidates: terms.candidates,
            alpha: terms.alpha,
            given,
            seed: terms.seed,
        })
    }

    /// The class text.
    pub fn class_text(&self) -> usize {
        self.texts[0]
    }

    /// Weights to choose among.
    pub fn alphas(&self) -> Vec<f64> {
        match (self.search.fusion, self.alpha) {
            (Fusion::Early, None) => ALPHAS.to_vec(),
            (_, alpha) => vec![alpha.unwrap_or(0.5)],
        }
    }

    /// Scores of pairs for the images learned from, once for each of the weights `alphas`.
    ///
    /// # Errors
    /// A pair of nothing.
    pub fn scores(&self, pairs: &[Pair], alphas: &[f64]) -> Result<Vec<Scores>> {
        let all = self.search.scores(pairs, alphas, self.learned)?;
        let of_weight = |all: Array2<f32>| Scores {
            rows: all
                .select(Axis(1), &self.order)
                .as_standard_layout()
                .into_owned(),
            positives: self.positives,
            goal: self.goal,
        };
        Ok(all.into_iter().map(of_weight).collect())
    }

    /// A guide of just these pairs, with the weight that serves them best on the images learned from.
    ///
    /// # Errors
    /// A pair of nothing.
    pub fn guide(&self, pairs: Vec<Pair>) -> Result<Guide> {
        let alphas = self.alphas();
        let each = alphas.iter().zip(self.scores(&pairs, &alphas)?);
        best_guide(each.map(|(alpha, scores)| Guide {
            pairs: pairs.clone(),
            alpha: *alpha,
            values: scores.values(),
        }))
    }

    /// Up to `count` of the class' crops that stand for all: the medoid of each cluster of k-means, that is, the crop
    /// nearest to the cluster's mean. In ascending order.
    ///
    /// # Errors
    /// The clustering failed.
    pub fn medoids(&self, count: usize) -> Result<Vec<usize>> {
        if self.crops.len() <= count {
            return Ok(self.crops.clone());
        }
        let vectors = &self.search.collection.crop_vectors;
        let own = vectors.select(Axis(0), &self.crops);
        let options = KMeansOptions {
            max_rounds: 50,
            seed: self.seed,
            ..KMeansOptions::new(count)
        };
        let found = kmeans(own.view(), None, &options)
            .map_err(|e| Error::Failed(format!("clusters of the crops: {e}")))?;
        let mut nearest: BTreeMap<u32, (f32, usize)> = BTreeMap::new();
        for (row, label) in found.labels.iter().enumerate() {
            let away = &own.row(row) - &found.centres.row(*label as usize);
            let distance = away.dot(&away);
            let best = nearest.entry(*label).or_insert((distance, row));
            if distance < best.0 {
                *best = (distance, row);
            }
        }
        let mut medoids: Vec<usize> = nearest.values().map(|(_, row)| self.crops[*row]).collect();
        medoids.sort_unstable();
        Ok(medoids)
    }

    /// Every candidate crop with every text of the class.
    ///
    /// # Errors
    /// The clustering of the crops failed.
    pub fn candidates(&self) -> Result<Vec<Pair>> {
        let crops = self.medoids(self.candidates)?;
        let pairs = crops.iter().flat_map(|crop| {
            self.texts.iter().map(|text| Pair {
                crop: Some(*crop),
                text: Some(*text),
            })
        });
        Ok(pairs.collect())
    }
}

impl Search<'_> {
    /// Scores [pairs, images] of all images, once for each of the weights `alphas`; means and deviations for
    /// standardising are of the images in `base`. The patches are gone through once.
    ///
    /// # Errors
    /// A pair of nothing.
    pub fn scores(
        &self,
        pairs: &[Pair],
        alphas: &[f64],
        base: &[bool],
    ) -> Result<Vec<Array2<f32>>> {
        let collection = self.collection;
        // The distinct crops and texts are the queries.
        let mut rows: BTreeMap<(bool, usize), usize> = BTreeMap::new();
        for pair in pairs {
            for part in [pair.crop.map(|c| (false, c)), pair.text.map(|t| (true, t))] {
                rows.extend(part.map(|p| (p, 0)));
            }
        }
        rows.values_mut().zip(0..).for_each(|(row, i)| *row = i);
        let mut queries = Array2::zeros((rows.len(), collection.patches.ncols()));
        for ((is_text, number), row) in &rows {
            let from = match is_text {
                true => &collection.text_vectors,
                false => &collection.crop_vectors,
            };
            queries.row_mut(*row).assign(&from.row(*number));
        }
        let row_of = |pair: &Pair| {
            let crop = pair.crop.and_then(|c| rows.get(&(false, c)).copied());
            let text = pair.text.and_then(|t| rows.get(&(true, t)).copied());
            (crop, text)
        };
        let nothing = || Error::Failed("a pair has neither crop nor text".into());

        let mut scores = match self.fusion {
            Fusion::Early => {
                let mut mixes = Vec::with_capacity(alphas.len() * pairs.len());
                for alpha in alphas {
                    for pair in pairs {
                        mixes.push(match row_of(pair) {
                            (Some(crop), Some(text)) => {
                                let (z, t) = (queries.row(crop), queries.row(text));
                                early(z, t, crop, text, *alpha)
                            }
                            (Some(row), None) | (None, Some(row)) => Mix::single(row),
                            (None, None) => return Err(nothing()),
                        });
                    }
                }
                let all = self.index.scores(queries.view(), &mixes);
                let parts = all.axis_chunks_iter(Axis(0), pairs.len().max(1));
                parts.map(|part| part.to_owned()).collect()
            }
            Fusion::LateMean | Fusion::LateMax => {
                let singles: Vec<Mix> = (0..queries.nrows()).map(Mix::single).collect();
                let mut own = self.index.scores(queries.view(), &singles);
                own.rows_mut()
                    .into_iter()
                    .for_each(|row| standardise(row.into_slice(), base));
                let mut scores = Array2::zeros((pairs.len(), own.ncols()));
                for (pair, mut to) in pairs.iter().zip(scores.rows_mut()) {
                    match row_of(pair) {
                        (Some(crop), Some(text)) => {
                            let both = own.row(crop).into_iter().zip(own.row(text));
                            for (to, (a, b)) in to.iter_mut().zip(both) {
                                *to = late(*a, *b, self.fusion);
                            }
                        }
                        (Some(row), None) | (None, Some(row)) => to.assign(&own.row(row)),
                        (None, None) => return Err(nothing()),
                    }
                }
                // The weight does not matter.
                vec![scores; alphas.len()]
            }
        };
        for scores in &mut scores {
            for (pair, mut row) in pairs.iter().zip(scores.rows_mut()) {
                if self.standardise {
                    standardise(row.as_slice_mut(), base);
                }
                if let Some(crop) = pair.crop {
                    row[collection.crops[crop].0.image] = REMOVED;
                }
            }
        }
        Ok(scores)
    }

    /// The guide's score of every image.
    ///
    /// # Errors
    /// A pair of nothing.
    pub fn merged(&self, guide: &Guide, base: &[bool]) -> Result<Vec<f32>> {
        let mut merged = vec![REMOVED; self.index.images()];
        for scores in self.scores(&guide.pairs, &[guide.alpha], base)? {
            for row in scores.rows() {
                if let Some(row) = row.as_slice() {
                    merge(&mut merged, row);
                }
            }
        }
        Ok(merged)
    }
}

/// alpha z_i + (1 - alpha) z_t over its length, as a mix of the two rows.
fn early(
    crop: ArrayView1<'_, f32>,
    text: ArrayView1<'_, f32>,
    i: usize,
    j: usize,
    alpha: f64,
) -> Mix {
    let cosine = f64::from(crop.dot(&text));
    let beta = 1.0 - alpha;
    let squared = alpha * alpha + beta * beta + 2.0 * alpha * beta * cosine;
    // Opposite vectors of equal weight cancel out and point nowhere: every patch then scores about 0.
    let length = squared.max(1e-12).sqrt();
    Mix {
        i,
        a: (alpha / length) as f32,
        j,
        b: (beta / length) as f32,
    }
}

/// One of two standardised scores, or their mean; an image that one search did not reach has the other's.
fn late(a: f32, b: f32, fusion: Fusion) -> f32 {
    if fusion == Fusion::LateMax || a == UNREACHED || b == UNREACHED {
        a.max(b)
    } else {
        (a + b) / 2.0
    }
}

/// Subtracts the mean of the images in `base` and divides by their deviation, leaving unreached images out.
fn standardise(row: Option<&mut [f32]>, base: &[bool]) {
    let Some(row) = row else { return };
    let reached = |(score, in_base): (&f32, &bool)| {
        (*in_base && *score != UNREACHED).then_some(f64::from(*score))
    };
    let count = row.iter().zip(base).filter_map(reached).count() as f64;
    if count == 0.0 {
        return;
    }
    let mean = row.iter().zip(base).filter_map(reached).sum::<f64>() / count;
    let squares = row
        .iter()
        .zip(base)
        .filter_map(reached)
        .map(|v| (v - mean) * (v - mean));
    let deviation = (squares.sum::<f64>() / count).sqrt().max(1e-12);
    for score in row.iter_mut().filter(|s| **s != UNREACHED) {
        *score = ((f64::from(*score) - mean) / deviation) as f32;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Curator;
    use super::super::collection::{Parts, tests::place};
    use super::super::index::IndexKind;
    use super::super::score::DivideBy;
    use super::*;
    use ndarray::array;
    use papertrial_numerics::sampling;
    use rand::RngExt;

    impl Scores {
        /// Scores as given, the first `positives` columns of the class.
        pub fn made(rows: &[Vec<f32>], positives: usize) -> Scores {
            let width = rows[0].len();
            Scores {
                rows: Array2::from_shape_vec((rows.len(), width), rows.concat()).unwrap(),
                positives,
                goal: GOAL,
            }
        }
    }

    const GOAL: Goal = Goal {
        returns: 1000,
        divide_by: DivideBy::Positives,
    };

    pub const TERMS: Terms = Terms {
        goal: GOAL,
        pairs: 5,
        candidates: 20,
        alpha: None,
        seed: 1,
    };

    /// A collection for tests.
    pub struct Made {
        pub collection: Collection,
    }

    impl Made {
        pub fn try_curate(&self, method: &dyn Curator, pairs: usize) -> Result<Guide> {
            self.with(Fusion::Early, false, |search| {
                let learned = vec![true; self.collection.images.len()];
                let terms = Terms { pairs, ..TERMS };
                method.curate(&Lesson::new(search, 0, &learned, &[], terms).unwrap())
            })
        }

        pub fn curate(&self, method: &dyn Curator, pairs: usize) -> Guide {
            self.try_curate(method, pairs).unwrap()
        }

        fn with<R>(&self, fusion: Fusion, standardise: bool, then: impl FnOnce(&Search) -> R) -> R {
            let c = &self.collection;
            let index = {
                let p = c.patches.view();
                Index::new(p, &c.starts, IndexKind::Exact, None, p, 1000, 0).unwrap()
            };
            then(&Search {
                collection: c,
                index: &index,
                fusion,
                standardise,
            })
        }
    }

    /// Class a looks in two ways (axes 0 and 1), class b in one (axis 2); half of the patches are neither (axis 3).
    pub fn two_looks() -> Made {
        let mut rng = sampling::rng(5, "two looks");
        let mut noisy = |axis: usize| -> Vec<f32> {
            let at = |i: usize| if i == axis { 1.0 } else { 0.0 };
            (0..5)
                .map(|i| at(i) + rng.random_range(-0.15f32..0.15))
                .collect()
        };
        let mut parts = Parts {
            source: "looks".into(),
            ..Parts::default()
        };
        let (mut patches, mut crops) = (Vec::new(), Vec::new());
        for image in 0..60 {
            parts.images.push(format!("image {image}"));
            let axis = match image % 6 {
                0 => 0,
                1 => 1,
                2 => 2,
                _ => 3,
            };
            parts.patches.extend([place(image), place(image)]);
            patches.extend(noisy(axis));
            patches.extend(noisy(3));
            if axis < 3 {
                let class = if axis < 2 { "a" } else { "b" };
                parts.crops.push((place(image), class.into()));
                crops.extend(noisy(axis));
            }
        }
        parts.patch_vectors = Array2::from_shape_vec((120, 5), patches).unwrap();
        parts.crop_vectors = Array2::from_shape_vec((30, 5), crops).unwrap();
        parts.texts = vec![
            ("a".into(), "a".into()),
            ("a".into(), "sort of a".into()),
            ("b".into(), "b".into()),
        ];
        // The texts are near to each other and far from all patches; they hardly hint at their class.
        parts.text_vectors = array![
            [0.04, 0.02, 0.0, 0.1, 1.0],
            [0.0, 0.05, 0.02, 0.0, 1.0],
            [0.0, 0.0, 0.05, 0.1, 1.0]
        ];
        Made {
            collection: Collection::new(parts).unwrap(),
        }
    }

    fn pair(crop: Option<usize>, text: Option<usize>) -> Pair {
        Pair { crop, text }
    }

    #[test]
    fn early_fusion_is_the_cosine_with_the_vector_between() {
        let made = two_looks();
        let c = &made.collection;
        let learned = vec![true; 60];
        let pairs = [pair(Some(4), Some(1)), pair(None, Some(1))];
        let each = made.with(Fusion::Early, false, |s| {
            s.scores(&pairs, &[0.7, 0.3], &learned).unwrap()
        });
        let scores = &each[1];
        let mut q = &c.crop_vectors.row(4) * 0.3 + &c.text_vectors.row(1) * 0.7;
        q /= q.dot(&q).sqrt();
        let own = c.crops[4].0.image;
        for image in 0..60 {
            let best = |q: ArrayView1<f32>| {
                let of = (2 * image..2 * image + 2).map(|p| c.patches.row(p).dot(&q));
                of.fold(f32::MIN, f32::max)
            };
            if image == own {
                assert_eq!(scores[[0, image]], REMOVED);
            } else {
                assert!((scores[[0, image]] - best(q.view())).abs() < 1e-6);
            }
            // A text was cut from no image.
            assert!((scores[[1, image]] - best(c.text_vectors.row(1))).abs() < 1e-6);
        }
    }

    #[test]
    fn late_fusion_compares_standardised_scores() {
        let made = two_looks();
        // Only the first half counts for means and deviations.
        let base: Vec<bool> = (0..60).map(|i| i < 30).collect();
        let pairs = [
            pair(Some(4), None),
            pair(None, Some(1)),
            pair(Some(4), Some(1)),
        ];
        let own = made.collection.crops[4].0.image;
        let mean = made.with(Fusion::LateMean, false, |s| {
            s.scores(&pairs, &[0.5], &base).unwrap().remove(0)
        });
        let max = made.with(Fusion::LateMax, false, |s| {
            s.scores(&pairs, &[0.5], &base).unwrap().remove(0)
        });
        for image in (0..60).filter(|i| *i != own) {
            let (a, b) = (mean[[0, image]], mean[[1, image]]);
            assert!((mean[[2, image]] - (a + b) / 2.0).abs() < 1e-6);
            assert_eq!(max[[2, image]], a.max(b));
        }
        let text = mean.row(1);
        let average = text.iter().take(30).sum::<f32>() / 30.0;
        let squares = text.iter().take(30).map(|v| v * v).sum::<f32>() / 30.0;
        assert!(average.abs() < 1e-4 && (squares - 1.0).abs() < 1e-4);
        let nothing = made.with(Fusion::LateMax, false, |s| {
            s.scores(&[pair(None, None)], &[0.5], &base)
        });
        assert!(nothing.is_err());
    }

    #[test]
    fn merging_unlike_scores_hides_texts_unless_standardised() {
        let made = two_looks();
        let learned = vec![true; 60];
        let guide = Guide {
            pairs: vec![pair(Some(0), None), pair(None, Some(0))],
            alpha: 0.5,
            values: Vec::new(),
        };
        let wins = |standardise: bool| {
            made.with(Fusion::Early, standardise, |s| {
                let each = s.scores(&guide.pairs, &[0.5], &learned).unwrap().remove(0);
                let merged = s.merged(&guide, &learned).unwrap();
                (1..60)
                    .filter(|i| merged[*i] == each[[1, *i]] && merged[*i] > each[[0, *i]])
                    .count()
            })
        };
        assert!(wins(true) > 15 && wins(true) < 45, "{}", wins(true));
        assert_ne!(wins(true), wins(false));
    }

    #[test]
    fn only_images_learned_from_are_seen() {
        let made = two_looks();
        made.with(Fusion::Early, false, |search| {
            let learned: Vec<bool> = (0..60).map(|i| i >= 20).collect();
            let lesson = Lesson::new(search, 0, &learned, &[], TERMS).unwrap();
            let crops = &made.collection.crops;
            assert!(lesson.crops.iter().all(|c| crops[*c].0.image >= 20));
            let scores = lesson
                .scores(&[pair(None, Some(0))], &[0.5])
                .unwrap()
                .remove(0);
            assert_eq!((scores.of(0).len(), scores.positives), (40, 12));
            let medoids = lesson.medoids(4).unwrap();
            assert!(medoids.len() == 4 && medoids.iter().all(|m| lesson.crops.contains(m)));
            assert_eq!(lesson.medoids(100).unwrap(), lesson.crops);
            let none = vec![false; 60];
            assert!(Lesson::new(search, 0, &none, &[], TERMS).is_none());
        });
    }
}
