//! Uncertainty in dense places: density window, and cognitive dual query.
//!
//! As the survey (arXiv 2302.08893) sets them out.
//!
//! - density-window (Ienco, Žliobaitė and Pfahringer 2014): the last 100 rows are kept, each with the distance to the
//!   nearest row it has met so far. The density of a new row is the number of kept rows
//!   whose nearest neighbour it becomes. Only rows of density 1 or more may be asked for; of these a variable threshold
//!   chooses.
//! - cognitive-dual-query (Liu and others 2023): the same with a memory of 10 rows. A kept row is recalled when a new one
//!   becomes its nearest neighbour; n_i counts recalls, t_i is the time of the last. Its strength is
//!   exp(-(t - t_i) / (n_i + 1)), and the weakest leaves when the memory is full, the older one of equals. One of four
//!   managers chooses: chance, the fixed, the variable or the randomised threshold.
//!
//! O(w d) a row beside the model. Distances are Euclidean, of scaled columns.

use super::draws::Draws;
use super::engine::{Setting, Strategy, Wish};
use super::models::{Model, Prediction};
use super::single::{Rule, Single};
use super::uncertainty::{Randomised, Variable, check_step, fixed_threshold};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::squared_distance;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A kept row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    x: Vec<f64>,
    /// Squared distance to its nearest row; `None` before it had one.
    nearest: Option<f64>,
    /// Time of its last recall, or of its coming.
    time: u64,
    recalls: u64,
}

/// The kept rows, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Memory {
    rows: Vec<Kept>,
    size: usize,
    time: u64,
}

impl Memory {
    fn new(size: usize) -> Memory {
        Memory {
            rows: Vec::new(),
            size,
            time: 0,
        }
    }

    /// Takes in a row and gives its density. `leaves` says which row leaves a memory that is too full.
    fn add(&mut self, x: &[f64], leaves: impl Fn(&[Kept], u64) -> usize) -> usize {
        self.time += 1;
        let mut density = 0;
        let mut own = None::<f64>;
        for kept in &mut self.rows {
            let distance = squared_distance(&kept.x, x);
            if kept.nearest.is_none_or(|n| distance < n) {
                kept.nearest = Some(distance);
                kept.time = self.time;
                kept.recalls += 1;
                density += 1;
            }
            own = Some(own.map_or(distance, |o| o.min(distance)));
        }
        self.rows.push(Kept {
            x: x.to_vec(),
            nearest: own,
            time: self.time,
            recalls: 0,
        });
        if self.rows.len() > self.size {
            let place = leaves(&self.rows, self.time);
            self.rows.remove(place);
        }
        density
    }
}

fn oldest(_rows: &[Kept], _time: u64) -> usize {
    0
}

/// Place of the least strength; the logarithm orders alike.
fn weakest(rows: &[Kept], time: u64) -> usize {
    let strength = |k: &Kept| -((time - k.time) as f64) / (k.recalls + 1) as f64;
    let mut place = 0;
    for (i, kept) in rows.iter().enumerate() {
        if strength(kept) < strength(&rows[place]) {
            place = i;
        }
    }
    place
}

/// Options of the density window.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct DensityWindow {
    /// Rows kept.
    #[schemars(range(min = 1))]
    pub window: usize,
    /// Share by which the threshold moves with each dense row.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub step: f64,
}

impl Default for DensityWindow {
    fn default() -> Self {
        DensityWindow {
            window: 100,
            step: 0.01,
        }
    }
}

impl Method for DensityWindow {
    const FACTS: Facts = Facts {
        name: "density-window",
        about: "a variable threshold on uncertainty, for rows that have neighbours among the last ones",
        paper: Some("online-al"),
        streams: false,
    };
}

/// The kept rows and the threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dense {
    memory: Memory,
    threshold: Variable,
}

impl Rule for Dense {
    fn wish(&mut self, x: &[f64], prediction: &Prediction, open: bool) -> Wish {
        let dense = self.memory.add(x, oldest) > 0;
        Wish::plain(dense && self.threshold.asks(prediction.confidence, 1.0, open))
    }

    fn warm(&mut self, x: &[f64]) {
        self.memory.add(x, oldest);
    }
}

impl Strategy for DensityWindow {
    type State = Single<Dense>;

    fn begin(&self, setting: &Setting) -> Result<Self::State> {
        check_step(self.step)?;
        check_size("window", self.window)?;
        let classes = setting.classes(Self::FACTS.name)?;
        let rule = Dense {
            memory: Memory::new(self.window),
            threshold: Variable::new(self.step, classes),
        };
        Ok(Single::new(Model::new(&setting.model), rule))
    }
}

fn check_size(option: &str, size: usize) -> Result<()> {
    if size == 0 {
        return Err(Error::option(option, "must be at least 1"));
    }
    Ok(())
}

/// What chooses among dense rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Manager {
    /// Chance, with the budget as probability.
    Random,
    /// The fixed threshold.
    Fixed,
    /// The variable threshold.
    Variable,
    /// The randomised variable threshold.
    Randomised,
}

/// Options of cognitive dual query.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct CognitiveDualQuery {
    /// Rows kept in memory.
    #[schemars(range(min = 1))]
    pub memory: usize,
    /// What chooses among dense rows.
    pub manager: Manager,
    /// Share by which a variable threshold moves with each dense row.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub step: f64,
    /// Deviation of the factor on a randomised threshold.
    #[schemars(range(min = 0.0))]
    pub delta: f64,
}

impl Default for CognitiveDualQuery {
    fn default() -> Self {
        CognitiveDualQuery {
            memory: 10,
            manager: Manager::Variable,
            step: 0.01,
            delta: 1.0,
        }
    }
}

impl Method for CognitiveDualQuery {
    const FACTS: Facts = Facts {
        name: "cognitive-dual-query",
        about: "uncertainty for rows that are nearest to one of a few remembered ones, which fade unless recalled",
        paper: Some("online-al"),
        streams: false,
    };
}

/// The memory and the manager.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cognitive {
    memory: Memory,
    chooser: Chooser,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Chooser {
    Random(f64, Draws),
    Fixed(f64),
    Variable(Variable),
    Randomised(Randomised),
}

impl Rule for Cognitive {
    fn wish(&mut self, x: &[f64], prediction: &Prediction, open: bool) -> Wish {
        if self.memory.add(x, weakest) == 0 {
            return Wish::plain(false);
        }
        let c = prediction.confidence;
        Wish::plain(match &mut self.chooser {
            Chooser::Random(p, draws) => draws.chance(*p),
            Chooser::Fixed(theta) => c <= *theta,
            Chooser::Variable(threshold) => threshold.asks(c, 1.0, open),
            Chooser::Randomised(threshold) => threshold.asks(c, open),
        })
    }

    fn warm(&mut self, x: &[f64]) {
        self.memory.add(x, weakest);
    }
}

impl Strategy for CognitiveDualQuery {
    type State = Single<Cognitive>;

    fn begin(&self, setting: &Setting) -> Result<Self::State> {
        check_step(self.step)?;
        check_size("memory", self.memory)?;
        if !(self.delta >= 0.0 && self.delta.is_finite()) {
            return Err(Error::option("delta", "must be at least 0"));
        }
        let classes = setting.classes(Self::FACTS.name)?;
        let draws = Draws::new(setting.seed, "stream-labelling cognitive dual query");
        let rule = Cognitive {
            memory: Memory::new(self.memory),
            chooser: match self.manager {
                Manager::Random => Chooser::Random(setting.budget, draws),
                Manager::Fixed => Chooser::Fixed(fixed_threshold(classes, setting.budget)),
                Manager::Variable => Chooser::Variable(Variable::new(self.step, classes)),
                Manager::Randomised => {
                    Chooser::Randomised(Randomised::new(self.step, self.delta, classes, draws))
                }
            },
        };
        Ok(Single::new(Model::new(&setting.model), rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn densities_by_hand() {
        let mut memory = Memory::new(3);
        let mut add = |x: f64| memory.add(&[x], oldest);
        assert_eq!(add(0.0), 0); // nobody there
        assert_eq!(add(10.0), 1); // nearest of 0, at 10
        assert_eq!(add(4.0), 2); // nearer to 0 (4) and to 10 (6)
        assert_eq!(add(20.0), 0); // 0, 10 and 4 have nearer ones; 0 leaves
        assert_eq!(add(11.0), 2); // nearest of 10 (1) and of 20 (9; it had 10)
        assert_eq!(memory.rows.len(), 3);
        assert_eq!(memory.rows[0].x, [4.0]);
    }

    #[test]
    fn the_weakest_leaves_and_recalls_keep() {
        let mut memory = Memory::new(2);
        memory.add(&[0.0], weakest);
        memory.add(&[5.0], weakest); // recalls 0 at time 2
        memory.add(&[1.0], weakest); // recalls 0 and 5 at time 3: the others have strength 0, the first leaves
        let kept: Vec<f64> = memory.rows.iter().map(|k| k.x[0]).collect();
        assert_eq!(kept, [5.0, 1.0]);
        // At time 4: 5 was recalled at 3 once, -1/2; 1 came at 3, -1: it leaves.
        memory.add(&[100.0], weakest);
        let kept: Vec<f64> = memory.rows.iter().map(|k| k.x[0]).collect();
        assert_eq!(kept, [5.0, 100.0]);
    }

    #[test]
    fn lonely_rows_are_never_asked_for() {
        let setting = crate::stream_labelling::engine::tests::setting(
            crate::stream_labelling::Target::Classes(2),
            1,
        );
        let prediction = Prediction::of_classes(vec![0.5, 0.5]);
        let mut rule = Dense {
            memory: Memory::new(50),
            threshold: Variable::new(0.01, 2),
        };
        // Each row is twice as far from all others as they are from each other.
        let asked = (0..30).filter(|i| rule.wish(&[3f64.powi(*i)], &prediction, true).ask);
        assert_eq!(asked.count(), 1); // the second is the first neighbour of the first
        for manager in [Manager::Random, Manager::Fixed, Manager::Randomised] {
            let method = CognitiveDualQuery {
                manager,
                ..CognitiveDualQuery::default()
            };
            assert!(method.begin(&setting).is_ok());
        }
        assert!(
            DensityWindow {
                window: 0,
                step: 0.01
            }
            .begin(&setting)
            .is_err()
        );
    }
}
