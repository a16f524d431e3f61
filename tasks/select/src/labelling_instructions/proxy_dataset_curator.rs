//! Proxy Dataset Curator (PDC): the method of Chang, Ferroni, Tarr, Hebert and Ramanan, *Thinking Like an Annotator:
//! Generation of Dataset Labeling Instructions*, 2023, arXiv 2306.14035.
//!
//! A guide is good if someone who has seen nothing but the guide finds the images of the class. The annotator is played
//! by a search with a frozen encoder of images and texts; nothing is trained.
//!
//! For one class, with n images to learn from, P of them of the class:
//! 1. Candidates C: the class' crops, cut down to at most 50 medoids of k-means for variety, each with each text of the
//!    class (its name, synonyms, prompts).
//! 2. Scores S [|C|, n]: of each candidate for each image, the largest over the image's patches; the image that the crop
//!    was cut from is removed. Computed once.
//! 3. Greedy: from an empty guide with scores m = -inf, add the candidate whose max(m, S_c) has the greatest average
//!    precision (area under precision and recall) over the first `returns` images. Stop at `pairs` pairs, or when the
//!    gain is below `min-gain`.
//! 4. With `beam` above 1 the best few guides of each size go on together. With `swap`, pairs are exchanged for other
//!    candidates after that, the best exchange first, while one gains at least `min-gain`.
//! 5. In early fusion the weight alpha of the crop is the one of .3, .5 and .7 whose guide is best by 3.
//!
//! Ours where the abstract and our sources leave it open: the weights of step 5, the kind of candidates of step 1, one
//! weight for all pairs of a class, and the beam and the exchanges of step 4. No code by the authors was found.
//!
//! Time: one search for |C| pairs, then O(pairs beam |C| (n + P log P)) for each weight; memory 4 |C| n bytes.

use super::Curator;
use super::lesson::{Guide, Lesson, Pair, Scores, best_guide, merge};
use super::score::REMOVED;
use papertrial_core::Result;
use papertrial_core::task::{Facts, Method};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of PDC.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProxyDatasetCurator {
    /// Least gain of average precision for which a guide grows: 0.001 is a tenth of a point.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_gain: f64,
    /// Guides that are kept at each size.
    #[schemars(range(min = 1, max = 100))]
    pub beam: usize,
    /// Exchange pairs for other candidates at the end.
    pub swap: bool,
}

impl Default for ProxyDatasetCurator {
    fn default() -> Self {
        ProxyDatasetCurator {
            min_gain: 0.001,
            beam: 1,
            swap: false,
        }
    }
}

impl Method for ProxyDatasetCurator {
    const FACTS: Facts = Facts {
        name: "proxy-dataset-curator",
        about: "greedy choice of pairs of crop and text by how well a search with them finds the class",
        paper: Some("labeling-instructions"),
        streams: false,
    };
}

impl Curator for ProxyDatasetCurator {
    fn curate(&self, lesson: &Lesson) -> Result<Guide> {
        // 1.
        let candidates = lesson.candidates()?;
        // 2.
        let alphas = lesson.alphas();
        let scores = lesson.scores(&candidates, &alphas)?;
        // 5.
        best_guide(alphas.iter().zip(&scores).map(|(alpha, scores)| {
            let mut chosen = self.search(scores, lesson.pairs);
            if self.swap {
                self.exchange(scores, &mut chosen);
            }
            guide(scores, &candidates, &chosen.members, *alpha)
        }))
    }
}

/// Some candidates in the order in which they were chosen, their merged scores and average precision.
#[derive(Debug, Clone)]
struct State {
    members: Vec<usize>,
    merged: Vec<f32>,
    value: f64,
}

impl ProxyDatasetCurator {
    /// Steps 3 and 4: the best guide of at most `pairs` candidates. There is at least one candidate.
    fn search(&self, scores: &Scores, pairs: usize) -> State {
        let empty = State {
            members: Vec::new(),
            merged: vec![REMOVED; scores.of(0).len()],
            value: 0.0,
        };
        let mut best = empty.clone();
        let mut beam = vec![empty];
        for size in 0..pairs.min(scores.pairs()) {
            let grown = self.grow(scores, &beam);
            let Some(first) = grown.first() else { break };
            // One pair there must be, however little it finds.
            if size > 0 && first.value < best.value + self.min_gain {
                break;
            }
            best = first.clone();
            beam = grown;
        }
        best
    }

    /// The best sets that are one candidate larger, each once, best first; of equal ones the earlier.
    fn grow(&self, scores: &Scores, beam: &[State]) -> Vec<State> {
        let mut options: Vec<(f64, usize, usize)> = Vec::new();
        for (from, state) in beam.iter().enumerate() {
            let values: Vec<f64> = (0..scores.pairs())
                .into_par_iter()
                .map_init(Vec::new, |merged, candidate| {
                    merged.clone_from(&state.merged);
                    merge(merged, scores.of(candidate));
                    scores.value(merged)
                })
                .collect();
            let new = (0..values.len()).filter(|c| !state.members.contains(c));
            options.extend(new.map(|c| (values[c], from, c)));
        }
        options.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        let mut seen: Vec<Vec<usize>> = Vec::new();
        let mut grown = Vec::new();
        for (value, from, candidate) in options {
            if grown.len() == self.beam {
                break;
            }
            let mut members = beam[from].members.clone();
            members.push(candidate);
            let mut set = members.clone();
            set.sort_unstable();
            if seen.contains(&set) {
                continue;
            }
            seen.push(set);
            let mut merged = beam[from].merged.clone();
            merge(&mut merged, scores.of(candidate));
            grown.push(State {
                members,
                merged,
                value,
            });
        }
        grown
    }

    /// Step 4, the exchanges; every one gains, so it ends.
    fn exchange(&self, scores: &Scores, state: &mut State) {
        loop {
            let mut best: Option<(f64, usize, usize)> = None;
            for place in 0..state.members.len() {
                let mut rest = vec![REMOVED; state.merged.len()];
                for (_, m) in state
                    .members
                    .iter()
                    .enumerate()
                    .filter(|(p, _)| *p != place)
                {
                    merge(&mut rest, scores.of(*m));
                }
                let values: Vec<f64> = (0..scores.pairs())
                    .into_par_iter()
                    .map_init(Vec::new, |merged, candidate| {
                        merged.clone_from(&rest);
                        merge(merged, scores.of(candidate));
                        scores.value(merged)
                    })
                    .collect();
                for (candidate, value) in values.into_iter().enumerate() {
                    let bar = best.map_or(state.value + self.min_gain.max(1e-9), |b| b.0);
                    if value > bar && !state.members.contains(&candidate) {
                        best = Some((value, place, candidate));
                    }
                }
            }
            let Some((value, place, candidate)) = best else {
                return;
            };
            state.members[place] = candidate;
            state.value = value;
            state.merged.fill(REMOVED);
            for m in &state.members {
                merge(&mut state.merged, scores.of(*m));
            }
        }
    }
}

/// The guide of some candidates, with its value after each.
fn guide(scores: &Scores, candidates: &[Pair], members: &[usize], alpha: f64) -> Guide {
    let mut merged = vec![REMOVED; scores.of(0).len()];
    let mut values = Vec::new();
    for m in members {
        merge(&mut merged, scores.of(*m));
        values.push(scores.value(&merged));
    }
    Guide {
        pairs: members.iter().map(|m| candidates[*m]).collect(),
        alpha,
        values,
    }
}

#[cfg(test)]
mod tests {
    use super::super::lesson::tests::{Made, two_looks};
    use super::*;
    use proptest::prelude::*;

    fn scores(rows: &[Vec<f32>], positives: usize) -> Scores {
        Scores::made(rows, positives)
    }

    #[test]
    fn the_greedy_steps_by_hand() {
        // Images: three of the class, then two others. Candidate 0 finds the first two above the others, candidate 1
        // the third alone, candidate 2 is a bit of everything.
        let s = scores(
            &[
                vec![0.9, 0.8, 0.1, 0.5, 0.4],
                vec![0.1, 0.1, 0.9, 0.3, 0.2],
                vec![0.6, 0.3, 0.6, 0.5, 0.1],
            ],
            3,
        );
        let pdc = ProxyDatasetCurator::default();
        let first = pdc.search(&s, 1);
        // Ranks 1, 2, 5 give (1 + 1 + 3/5) / 3; candidate 2 has ranks 1, 2, 4 and is better.
        assert_eq!(first.members, [2]);
        assert!((first.value - (1.0 + 1.0 + 0.75) / 3.0).abs() < 1e-12);
        let two = pdc.search(&s, 5);
        assert_eq!(two.members, [2, 0]);
        assert_eq!(two.value, 1.0);
    }

    #[test]
    fn a_beam_and_exchanges_get_over_a_poor_first_step() {
        // Candidate 2 alone is the best single one, but 0 and 1 together are perfect.
        let rows = [
            vec![0.9, 0.8, 0.1, 0.1, 0.5, 0.1, 0.1],
            vec![0.1, 0.1, 0.9, 0.8, 0.1, 0.5, 0.1],
            vec![0.9, 0.95, 0.85, 0.1, 0.1, 0.1, 0.8],
        ];
        let s = scores(&rows, 4);
        let plain = ProxyDatasetCurator::default();
        let greedy = plain.search(&s, 2);
        assert_eq!(greedy.members[0], 2);
        assert!(greedy.value < 1.0);
        let wide = ProxyDatasetCurator {
            beam: 3,
            ..plain.clone()
        };
        let mut found = wide.search(&s, 2).members;
        found.sort_unstable();
        assert_eq!(found, [0, 1]);
        let mut exchanged = greedy;
        plain.exchange(&s, &mut exchanged);
        assert_eq!(exchanged.value, 1.0);
        exchanged.members.sort_unstable();
        assert_eq!(exchanged.members, [0, 1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_guide_never_gets_worse_and_stops_by_the_gain(
            raw in prop::collection::vec(prop::collection::vec(0u8..50, 12), 1..9),
            positives in 1usize..11, pairs in 1usize..6, beam in 1usize..4
        ) {
            let rows: Vec<Vec<f32>> = raw.iter().map(|r| r.iter().map(|v| f32::from(*v)).collect()).collect();
            let s = scores(&rows, positives);
            let pdc = ProxyDatasetCurator { beam, ..ProxyDatasetCurator::default() };
            let mut state = pdc.search(&s, pairs);
            prop_assert!(!state.members.is_empty() && state.members.len() <= pairs);
            let single = (0..rows.len()).map(|c| s.value(&rows[c])).fold(0.0, f64::max);
            prop_assert!(state.value >= single);
            let candidates: Vec<Pair> = (0..rows.len()).map(|c| Pair { crop: Some(c), text: None }).collect();
            let made = guide(&s, &candidates, &state.members, 0.5);
            prop_assert_eq!(made.values.last().copied(), Some(state.value));
            let before = state.value;
            pdc.exchange(&s, &mut state);
            prop_assert!(state.value >= before);
            let mut distinct = state.members.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), state.members.len());
        }
    }

    #[test]
    fn two_looks_of_a_class_need_two_pairs() {
        let made: Made = two_looks();
        let guide = made.curate(&ProxyDatasetCurator::default(), 5);
        let looks: Vec<bool> = guide
            .pairs
            .iter()
            .map(|p| made.collection.crop_vectors[[p.crop.unwrap(), 0]] > 0.5)
            .collect();
        assert!(looks.contains(&true) && looks.contains(&false), "{looks:?}");
        assert!(guide.pairs.len() < 5 && *guide.values.last().unwrap() > 0.95);
        assert!(guide.values.is_sorted());
        // Of one pair, one look stays behind.
        assert!(made.curate(&ProxyDatasetCurator::default(), 1).values[0] < 0.95);
    }
}
