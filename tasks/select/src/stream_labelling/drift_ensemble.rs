//! A drift-aware ensemble, after OALE.
//!
//! Shan, Zhang, Liu and Liu, *Online active learning ensemble framework for drifted data streams*, 2019, as the survey
//! (arXiv 2302.08893) sets it out; the paper's own details were not at hand.
//!
//! 1. A stable model learns every label. Beside it up to ten models, each learned from one chunk of 100 labels.
//! 2. A new row is predicted by the weighted mean of all models.
//! 3. When a chunk is full, the weight of each model shrinks by the factor 1 - MSE, the mean squared lack of
//!    probability of the true class over the chunk's labels before they were learned. The chunk's own model joins with the
//!    mean weight of the others; if there are ten already it replaces the one of least weight. Weights are then scaled so
//!    that the largest is 1.
//! 4. Half of the budget is spent at random, half on rows that a variable threshold finds uncertain, each half with a
//!    purse of its own.
//!
//! At most 12 times the cost of a model.

use super::draws::Draws;
use super::engine::{Decider, Lesson, Setting, Strategy, Wish};
use super::models::{Model, Prediction, Truth};
use super::purse::Purse;
use super::uncertainty::{Variable, check_step};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the ensemble.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct DriftAwareEnsemble {
    /// Models of chunks kept.
    #[schemars(range(min = 1))]
    pub members: usize,
    /// Labels of a chunk.
    #[schemars(range(min = 1))]
    pub chunk: usize,
    /// Share by which the threshold moves with each row.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub step: f64,
}

impl Default for DriftAwareEnsemble {
    fn default() -> Self {
        DriftAwareEnsemble {
            members: 10,
            chunk: 100,
            step: 0.01,
        }
    }
}

impl Method for DriftAwareEnsemble {
    const FACTS: Facts = Facts {
        name: "drift-aware-ensemble",
        about: "a stable model and models of recent chunks, with labels half at random and half by uncertainty",
        paper: Some("online-al"),
        streams: false,
    };
}

/// A model with its weight and its error on the chunk at hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Member {
    model: Model,
    weight: f64,
    squares: f64,
}

/// The models, the chunk, and the two halves of the budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ensemble {
    /// The stable one first.
    members: Vec<Member>,
    young: Model,
    fresh: Model,
    labels: usize,
    most: usize,
    chunk: usize,
    budget: f64,
    threshold: Variable,
    uncertain: Purse,
    draws: Draws,
}

impl Decider for Ensemble {
    /// Step 2.
    fn predict(&self, x: &[f64]) -> Prediction {
        let sum: f64 = self.members.iter().map(|m| m.weight).sum();
        let mut mean = Vec::new();
        for member in &self.members {
            let p = member.model.predict(x).probabilities;
            mean.resize(p.len(), 0.0);
            let share = member.weight / sum;
            mean.iter_mut().zip(&p).for_each(|(m, p)| *m += share * p);
        }
        Prediction::of_classes(mean)
    }

    /// Step 4.
    fn wish(&mut self, _x: &[f64], prediction: &Prediction, open: bool) -> Wish {
        let random = self.draws.chance(0.5 * self.budget);
        let own = open && self.uncertain.open(1.0);
        let uncertain = self.threshold.asks(prediction.confidence, 1.0, own) && own && !random;
        self.uncertain.record(uncertain);
        Wish {
            random,
            ..Wish::plain(random || uncertain)
        }
    }

    fn learn(&mut self, lesson: &Lesson) {
        let Truth::Class(class) = lesson.truth else {
            return;
        };
        for member in &mut self.members {
            let p = member.model.predict(lesson.x).probabilities;
            member.squares += (1.0 - p.get(class).copied().unwrap_or(0.0)).powi(2);
        }
        if let Some(stable) = self.members.first_mut() {
            stable.model.learn(lesson.x, lesson.truth, lesson.weight);
        }
        self.young.learn(lesson.x, lesson.truth, lesson.weight);
        self.labels += 1;
        if self.labels == self.chunk {
            self.turn();
        }
    }
}

impl Ensemble {
    /// Step 3.
    fn turn(&mut self) {
        for member in &mut self.members {
            member.weight *= 1.0 - member.squares / self.chunk as f64;
            member.squares = 0.0;
        }
        let sum: f64 = self.members.iter().map(|m| m.weight).sum();
        let weight = sum / self.members.len() as f64;
        if self.members.len() > self.most {
            // The stable model stays.
            let chunks = (1..self.members.len())
                .min_by(|a, b| self.members[*a].weight.total_cmp(&self.members[*b].weight));
            if let Some(worst) = chunks {
                self.members.remove(worst);
            }
        }
        self.members.push(Member {
            model: std::mem::replace(&mut self.young, self.fresh.clone()),
            weight,
            squares: 0.0,
        });
        self.labels = 0;
        let most = self.members.iter().map(|m| m.weight).fold(0.0, f64::max);
        for member in &mut self.members {
            // All were wrong throughout: nothing tells them apart.
            member.weight = if most > 0.0 {
                member.weight / most
            } else {
                1.0
            };
        }
    }
}

impl Strategy for DriftAwareEnsemble {
    type State = Ensemble;

    fn begin(&self, setting: &Setting) -> Result<Ensemble> {
        check_step(self.step)?;
        let classes = setting.classes(Self::FACTS.name)?;
        if self.members == 0 || self.chunk == 0 {
            return Err(Error::option(
                "members",
                "members and chunk must be at least 1",
            ));
        }
        let fresh = Model::new(&setting.model);
        Ok(Ensemble {
            members: vec![Member {
                model: fresh.clone(),
                weight: 1.0,
                squares: 0.0,
            }],
            young: fresh.clone(),
            fresh,
            labels: 0,
            most: self.members,
            chunk: self.chunk,
            budget: setting.budget,
            threshold: Variable::new(self.step, classes),
            uncertain: Purse::new(setting.estimate, 0.5 * setting.budget, setting.window),
            draws: Draws::new(setting.seed, "stream-labelling drift-aware ensemble"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream_labelling::{Target, engine::tests::setting};

    fn lesson(x: &[f64], class: usize) -> Lesson<'_> {
        Lesson {
            x,
            truth: Truth::Class(class),
            weight: 1.0,
            random: false,
            missed: false,
        }
    }

    #[test]
    fn weights_of_a_first_chunk_by_hand() {
        let method = DriftAwareEnsemble {
            chunk: 1,
            members: 2,
            ..DriftAwareEnsemble::default()
        };
        let mut e = method.begin(&setting(Target::Classes(2), 1)).unwrap();
        e.learn(&lesson(&[0.0], 1));
        // Before the label both classes had 1/2: MSE 1/4, weight 3/4 for both, scaled to 1.
        assert_eq!(e.members.len(), 2);
        assert_eq!((e.members[0].weight, e.members[1].weight), (1.0, 1.0));
        // Both learned the same row alike; the next label shrinks both alike, and a third model joins.
        assert_eq!(e.members[0].model, e.members[1].model);
        e.learn(&lesson(&[0.0], 1));
        assert_eq!(e.members.len(), 3);
        // From now on the number stays, and the stable model, which learned all, stays first.
        for _ in 0..5 {
            e.learn(&lesson(&[0.0], 1));
        }
        assert_eq!(e.members.len(), 3);
        let sure = |m: &Member| m.model.predict(&[0.0]).probabilities[1];
        assert!(sure(&e.members[0]) > sure(&e.members[2]));
    }

    #[test]
    fn models_of_the_old_rule_lose_weight_after_a_change() {
        let method = DriftAwareEnsemble {
            chunk: 50,
            ..DriftAwareEnsemble::default()
        };
        let mut e = method.begin(&setting(Target::Classes(2), 1)).unwrap();
        let side = |i: usize| if i.is_multiple_of(2) { 1.0 } else { -1.0 };
        (0..100).for_each(|i| e.learn(&lesson(&[side(i)], i % 2)));
        (0..150).for_each(|i| e.learn(&lesson(&[side(i)], (i + 1) % 2)));
        let (old, new) = (&e.members[1], e.members.last().unwrap());
        assert!(
            old.weight < 0.5 * new.weight,
            "{} {}",
            old.weight,
            new.weight
        );
    }
}
