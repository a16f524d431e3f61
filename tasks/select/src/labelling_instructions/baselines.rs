//! Guides to compare with: what one would show without searching for it.
//!
//! Each is a choice of pairs; the weight of the crop is then chosen on the images learned from, as for every method.
//! - class-text: the class text alone, without any picture.
//! - best-text: of all texts of the class the one that finds it best, alone.
//! - random-crops: as many crops as there may be pairs, drawn at random, each with the class text.
//! - class-mean-crop: the crop nearest to the mean of the class' crops, with the class text.
//! - k-medoids: the medoids of as many clusters of k-means as there may be pairs, each with the class text.
//! - best-pair: the one candidate that finds the class best.
//! - all-pairs: every candidate, without a choice; more pairs than the budget allows, for comparison only.
//! - given-guide: the guide that the user brings.
//!
//! Time: one search for the pairs; memory 4 (pairs) (images) bytes.

use super::Curator;
use super::lesson::{Guide, Lesson, Pair, best_guide};
use ndarray::{Array1, Axis};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Makes a method without options of its own.
macro_rules! baseline {
    ($name:ident, $slug:literal, $about:literal, $choice:expr) => {
        #[doc = $about]
        #[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
        #[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
        pub struct $name {}

        impl Method for $name {
            const FACTS: Facts = Facts {
                name: $slug,
                about: $about,
                paper: None,
                streams: false,
            };
        }

        impl Curator for $name {
            fn curate(&self, lesson: &Lesson) -> Result<Guide> {
                let choice: fn(&Lesson) -> Result<Guide> = $choice;
                choice(lesson)
            }
        }
    };
}

baseline!(
    ClassText,
    "class-text",
    "the class text alone, without a picture",
    |lesson| lesson.guide(vec![text_alone(lesson.class_text())])
);

baseline!(
    BestText,
    "best-text",
    "of all texts of the class the one that finds it best, without a picture",
    |lesson| best_of(
        lesson,
        lesson.texts.iter().map(|t| text_alone(*t)).collect()
    )
);

baseline!(
    RandomCrops,
    "random-crops",
    "as many random crops as there may be pairs, with the class text",
    |lesson| {
        let mut rng = sampling::rng(lesson.seed, "random crops");
        let count = lesson.pairs.min(lesson.crops.len());
        let drawn = sampling::sample_shuffled(&mut rng, lesson.crops.len(), count)
            .map_err(|e| Error::Failed(e.to_string()))?;
        let crops = drawn.into_iter().map(|c| lesson.crops[c]);
        lesson.guide(crops.map(|c| with_class_text(lesson, c)).collect())
    }
);

baseline!(
    ClassMeanCrop,
    "class-mean-crop",
    "the crop nearest to the mean of the class, with the class text",
    |lesson| {
        let vectors = &lesson.search.collection.crop_vectors;
        let mut mean = Array1::<f64>::zeros(vectors.ncols());
        for crop in &lesson.crops {
            mean += &vectors.row(*crop).mapv(f64::from);
        }
        mean /= lesson.crops.len() as f64;
        let away = |crop: &usize| {
            let row = vectors.index_axis(Axis(0), *crop);
            let squares = row.iter().zip(&mean);
            squares
                .map(|(v, m)| (f64::from(*v) - m).powi(2))
                .sum::<f64>()
        };
        let nearest = lesson
            .crops
            .iter()
            .min_by(|a, b| away(a).total_cmp(&away(b)));
        lesson.guide(
            nearest
                .map(|c| with_class_text(lesson, *c))
                .into_iter()
                .collect(),
        )
    }
);

baseline!(
    KMedoids,
    "k-medoids",
    "the medoids of as many clusters of crops as there may be pairs, with the class text",
    |lesson| {
        let crops = lesson.medoids(lesson.pairs)?;
        lesson.guide(
            crops
                .into_iter()
                .map(|c| with_class_text(lesson, c))
                .collect(),
        )
    }
);

baseline!(
    BestPair,
    "best-pair",
    "the one pair of crop and text that finds the class best",
    |lesson| best_of(lesson, lesson.candidates()?)
);

baseline!(
    AllPairs,
    "all-pairs",
    "every candidate pair without a choice, more than the budget allows",
    |lesson| lesson.guide(lesson.candidates()?)
);

baseline!(
    GivenGuide,
    "given-guide",
    "the guide that you bring, to score it",
    |lesson| {
        if lesson.given.is_empty() {
            return Err(Error::BadInput(format!(
                "method given-guide needs a guide with pairs of class {}: --guide FILE with columns class, image and text",
                lesson.search.collection.classes[lesson.class]
            )));
        }
        lesson.guide(lesson.given.to_vec())
    }
);

fn text_alone(text: usize) -> Pair {
    Pair {
        crop: None,
        text: Some(text),
    }
}

fn with_class_text(lesson: &Lesson, crop: usize) -> Pair {
    Pair {
        crop: Some(crop),
        text: Some(lesson.class_text()),
    }
}

/// The best single pair over all weights; of equal ones the first.
fn best_of(lesson: &Lesson, pairs: Vec<Pair>) -> Result<Guide> {
    let alphas = lesson.alphas();
    let scores = lesson.scores(&pairs, &alphas)?;
    best_guide(alphas.iter().zip(&scores).flat_map(|(alpha, scores)| {
        pairs.iter().enumerate().map(|(i, pair)| Guide {
            pairs: vec![*pair],
            alpha: *alpha,
            values: vec![scores.value(scores.of(i))],
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::super::lesson::tests::two_looks;
    use super::*;

    #[test]
    fn each_baseline_chooses_what_it_says() {
        let made = two_looks();
        let crops = &made.collection.crops;
        let text = made.curate(&ClassText {}, 3);
        assert_eq!(text.pairs, [text_alone(0)]);
        let best = made.curate(&BestText {}, 3);
        assert!(best.pairs[0].crop.is_none() && best.values[0] >= text.values[0]);
        let random = made.curate(&RandomCrops {}, 3);
        assert_eq!(random.pairs.len(), 3);
        assert!(
            random
                .pairs
                .iter()
                .all(|p| p.text == Some(0) && crops[p.crop.unwrap()].1 == 0)
        );
        assert_eq!(random, made.curate(&RandomCrops {}, 3));
        assert_eq!(made.curate(&ClassMeanCrop {}, 3).pairs.len(), 1);
        // Two clusters of crops: one medoid of each look.
        let medoids = made.curate(&KMedoids {}, 2);
        let looks: Vec<bool> = medoids
            .pairs
            .iter()
            .map(|p| made.collection.crop_vectors[[p.crop.unwrap(), 0]] > 0.5)
            .collect();
        assert!(looks == [true, false] || looks == [false, true]);
        let one = made.curate(&BestPair {}, 3);
        assert!(
            one.pairs.len() == 1 && one.values[0] >= made.curate(&ClassMeanCrop {}, 1).values[0]
        );
        let all = made.curate(&AllPairs {}, 3);
        assert_eq!(
            all.pairs.len(),
            2 * crops.iter().filter(|c| c.1 == 0).count()
        );
        let e = made.try_curate(&GivenGuide {}, 3).unwrap_err().to_string();
        assert!(e.contains("needs a guide with pairs of class a"), "{e}");
    }
}
