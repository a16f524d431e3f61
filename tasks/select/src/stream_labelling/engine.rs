//! The engine: decides for each row as it comes whether to pay for its label, and learns from the labels that come back.
//!
//! For each row x_t:
//! 1. Labels that have come back by now are learned (a label of row s is known `delay` rows after s was decided).
//! 2. Running mean and deviation take in x_t, and scale it.
//! 3. The decider predicts. In the warm-up the label is asked for; later the decider wishes and the purse allows.
//! 4. The purse records the decision, whatever it was. A row that was asked for is held until its label comes.
//!
//! The label enters with [`Engine::learn`], a call of its own after the decision, so no decision can see its own label.
//! Cost O(d) a row beside the decider's.

use super::models::{ModelPlan, Prediction, Target, Truth};
use super::purse::{Estimate, Purse};
use papertrial_core::task::Method;
use papertrial_core::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

/// What a strategy is told before the first row.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The model to use, unless the strategy has its own kind.
    pub model: ModelPlan,
    /// Share of rows whose labels may be paid.
    pub budget: f64,
    /// How the spend is estimated.
    pub estimate: Estimate,
    /// Rows of the window of that estimate.
    pub window: u64,
    /// Rows at the start that are all asked for.
    pub warm_up: u64,
    /// Rows between a decision and its label.
    pub delay: u64,
    /// Scale each column by the mean and deviation of the rows so far.
    pub standardise: bool,
    /// Rows to come, where that is known.
    pub rows: Option<u64>,
    /// From which the strategy draws.
    pub seed: u64,
}

impl Setting {
    /// Number of classes, for a strategy that needs some.
    ///
    /// # Errors
    /// The label is a number.
    pub fn classes(&self, method: &str) -> Result<usize> {
        match self.model.target {
            Target::Classes(classes) => Ok(classes),
            Target::Number => Err(Error::option(
                "model",
                format!(
                    "{method} needs classes, and least-squares predicts a number; take another model, or norm-threshold or conditional-d-optimality"
                ),
            )),
        }
    }
}

/// What a decider wishes for a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wish {
    /// Ask for its label.
    pub ask: bool,
    /// How many rows its label counts as.
    pub weight: f64,
    /// Whether chance alone chose it, so that errors on such rows tell of all rows.
    pub random: bool,
}

impl Wish {
    /// An ordinary wish.
    pub fn plain(ask: bool) -> Wish {
        Wish {
            ask,
            weight: 1.0,
            random: false,
        }
    }
}

/// A label with its row and what was known when it was decided.
#[derive(Debug, Clone, Copy)]
pub struct Lesson<'a> {
    /// The row, scaled.
    pub x: &'a [f64],
    /// Its label.
    pub truth: Truth,
    /// How many rows it counts as.
    pub weight: f64,
    /// Whether chance alone chose it.
    pub random: bool,
    /// Whether the prediction was another class.
    pub missed: bool,
}

/// A strategy at work, with its model.
pub trait Decider: Send {
    /// What it says of a row.
    fn predict(&self, x: &[f64]) -> Prediction;
    /// Whether it wants the row's label. `open`: the purse allows one. Called once for each row after the warm-up.
    fn wish(&mut self, x: &[f64], prediction: &Prediction, open: bool) -> Wish;
    /// A label has come.
    fn learn(&mut self, lesson: &Lesson);
    /// A row of the warm-up, which is asked for anyway.
    fn warm(&mut self, _x: &[f64]) {}
    /// Whether the purse has a say; if not, the strategy keeps to the budget by itself.
    fn gated(&self) -> bool {
        true
    }
    /// Times the budget that may be spent now.
    fn rate(&self) -> f64 {
        1.0
    }
    /// Alarms of a change so far.
    fn alarms(&self) -> u64 {
        0
    }
}

/// A method of this task: options that start a decider, whose state can be kept.
pub trait Strategy: Method {
    /// The decider.
    type State: Decider + Serialize + DeserializeOwned + 'static;

    /// Begins a stream.
    ///
    /// # Errors
    /// Options that do not fit each other or the setting.
    fn begin(&self, setting: &Setting) -> Result<Self::State>;
}

/// A decider of any strategy.
pub trait Running: Decider {
    /// Its whole state.
    ///
    /// # Errors
    /// A state that cannot be written as JSON.
    fn save(&self) -> Result<Value>;
}

impl<T: Decider + Serialize> Running for T {
    fn save(&self) -> Result<Value> {
        serde_json::to_value(self).map_err(|e| Error::Failed(e.to_string()))
    }
}

/// A strategy of any type.
pub trait Start: Send + Sync {
    /// Begins a stream.
    ///
    /// # Errors
    /// As [`Strategy::begin`].
    fn start(&self, setting: &Setting) -> Result<Box<dyn Running>>;
    /// Goes on from a state.
    ///
    /// # Errors
    /// The state is not one of this strategy.
    fn resume(&self, state: Value) -> Result<Box<dyn Running>>;
}

impl<S: Strategy> Start for S {
    fn start(&self, setting: &Setting) -> Result<Box<dyn Running>> {
        Ok(Box::new(self.begin(setting)?))
    }

    fn resume(&self, state: Value) -> Result<Box<dyn Running>> {
        let state: S::State = serde_json::from_value(state).map_err(|e| {
            Error::BadInput(format!(
                "the state is not one of {}: {e}; name the method that wrote it",
                S::FACTS.name
            ))
        })?;
        Ok(Box::new(state))
    }
}

/// Mean and spread of each column so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Scaler {
    n: f64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

/// Scaled values are cut at this many deviations: a column that was constant for n rows would else jump to sqrt n.
const CUT: f64 = 5.0;

impl Scaler {
    fn scale(&mut self, x: &[f64]) -> Vec<f64> {
        self.n += 1.0;
        let columns = self.mean.iter_mut().zip(&mut self.squares).zip(x);
        columns
            .map(|((mean, squares), x)| {
                let difference = x - *mean;
                *mean += difference / self.n;
                *squares += difference * (x - *mean);
                let deviation = (*squares / self.n).sqrt();
                if deviation > 1e-12 * mean.abs() {
                    ((x - *mean) / deviation).clamp(-CUT, CUT)
                } else {
                    0.0
                }
            })
            .collect()
    }
}

/// What was decided for a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Number of the row, from 0.
    pub row: u64,
    /// What the model says.
    pub prediction: Prediction,
    /// Whether the label is asked for.
    pub ask: bool,
    /// Labels asked for so far, this one included.
    pub spent: u64,
}

/// A row that waits for its label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Held {
    x: Vec<f64>,
    weight: f64,
    random: bool,
    prediction: Prediction,
    truth: Option<Truth>,
}

/// All but the decider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Books {
    target: Target,
    width: usize,
    purse: Purse,
    scaler: Option<Scaler>,
    warm_up: u64,
    delay: u64,
    /// Rows that were asked for and not learned yet.
    held: BTreeMap<u64, Held>,
    /// Those whose labels have come, in the order in which they did.
    come: VecDeque<u64>,
}

/// Decides and learns.
pub struct Engine {
    decider: Box<dyn Running>,
    books: Books,
}

impl Engine {
    /// Before the first row.
    ///
    /// # Errors
    /// A budget outside (0, 1], fewer than two classes, no columns, or options that the strategy refuses.
    pub fn new(strategy: &dyn Start, setting: &Setting) -> Result<Engine> {
        if !(setting.budget > 0.0 && setting.budget <= 1.0) {
            return Err(Error::option(
                "budget",
                format!("must be above 0 and at most 1, not {}", setting.budget),
            ));
        }
        if setting.window == 0 {
            return Err(Error::option("budget-window", "must be at least 1"));
        }
        if setting.model.width == 0 {
            return Err(Error::BadInput("the stream has no columns".into()));
        }
        if let Target::Classes(classes @ 0..2) = setting.model.target {
            return Err(Error::BadInput(format!(
                "the stream has {classes} class; labels pay only where there are at least two"
            )));
        }
        let width = setting.model.width;
        Ok(Engine {
            decider: strategy.start(setting)?,
            books: Books {
                target: setting.model.target,
                width,
                purse: Purse::new(setting.estimate, setting.budget, setting.window),
                scaler: setting.standardise.then(|| Scaler {
                    n: 0.0,
                    mean: vec![0.0; width],
                    squares: vec![0.0; width],
                }),
                warm_up: setting.warm_up,
                delay: setting.delay,
                held: BTreeMap::new(),
                come: VecDeque::new(),
            },
        })
    }

    /// Decides on the next row \[d\].
    ///
    /// # Errors
    /// A row of another width, or a value that is NaN or infinite.
    pub fn decide(&mut self, x: &[f64]) -> Result<Decision> {
        let row = self.books.purse.seen();
        if x.len() != self.books.width {
            return Err(Error::BadInput(format!(
                "row {} has {} columns, not {}",
                row + 1,
                x.len(),
                self.books.width
            )));
        }
        if let Some(place) = x.iter().position(|v| !v.is_finite()) {
            return Err(Error::BadInput(format!(
                "row {}, column {} is {}; a finite number is needed",
                row + 1,
                place + 1,
                x[place]
            )));
        }
        // Step 1.
        self.catch_up();
        // Step 2.
        let books = &mut self.books;
        let x = match &mut books.scaler {
            Some(scaler) => scaler.scale(x),
            None => x.to_vec(),
        };
        // Step 3.
        let prediction = self.decider.predict(&x);
        let wish = if row < books.warm_up {
            self.decider.warm(&x);
            Wish {
                random: true,
                ..Wish::plain(true)
            }
        } else {
            let open = !self.decider.gated() || books.purse.open(self.decider.rate());
            let wish = self.decider.wish(&x, &prediction, open);
            Wish {
                ask: wish.ask && open,
                ..wish
            }
        };
        // Step 4.
        books.purse.record(wish.ask);
        if wish.ask {
            let held = Held {
                x,
                weight: wish.weight,
                random: wish.random,
                prediction: prediction.clone(),
                truth: None,
            };
            books.held.insert(row, held);
        }
        Ok(Decision {
            row,
            prediction,
            ask: wish.ask,
            spent: books.purse.asked(),
        })
    }

    /// Takes in the label of a row that was asked for; the model learns it when the delay is over.
    ///
    /// # Errors
    /// A row that was not decided yet, was not asked for, or has its label already; a label of the wrong kind or class.
    pub fn learn(&mut self, row: u64, truth: Truth) -> Result<()> {
        let books = &mut self.books;
        let shown = row.saturating_add(1);
        if row >= books.purse.seen() {
            return Err(Error::BadInput(format!(
                "a label came for row {shown} before its decision"
            )));
        }
        match (books.target, truth) {
            (Target::Classes(classes), Truth::Class(class)) if class < classes => {}
            (Target::Number, Truth::Number(value)) if value.is_finite() => {}
            (target, truth) => {
                return Err(Error::BadInput(format!(
                    "the label of row {shown} is {truth:?}, which is none of {target:?}"
                )));
            }
        }
        match books.held.get_mut(&row) {
            Some(held) if held.truth.is_none() => held.truth = Some(truth),
            _ => {
                return Err(Error::BadInput(format!(
                    "a label came for row {shown}, which does not wait for one"
                )));
            }
        }
        books.come.push_back(row);
        self.catch_up();
        Ok(())
    }

    /// Lets go of a row whose label will not come.
    pub fn forget(&mut self, row: u64) {
        self.books.held.remove(&row);
        self.books.come.retain(|r| *r != row);
    }

    /// Learns the labels whose delay is over.
    fn catch_up(&mut self) {
        let books = &mut self.books;
        while let Some(row) = books.come.front().copied() {
            if row.saturating_add(books.delay) >= books.purse.seen() {
                break;
            }
            books.come.pop_front();
            if let Some(held) = books.held.remove(&row)
                && let Some(truth) = held.truth
            {
                self.decider.learn(&Lesson {
                    x: &held.x,
                    truth,
                    weight: held.weight,
                    random: held.random,
                    missed: held.prediction.misses(truth),
                });
            }
        }
    }

    /// What is predicted.
    pub fn target(&self) -> Target {
        self.books.target
    }

    /// Rows decided.
    pub fn seen(&self) -> u64 {
        self.books.purse.seen()
    }

    /// Alarms of a change so far.
    pub fn alarms(&self) -> u64 {
        self.decider.alarms()
    }

    /// The whole state.
    ///
    /// # Errors
    /// A state that cannot be written as JSON.
    pub fn save(&self) -> Result<Value> {
        let books = serde_json::to_value(&self.books).map_err(|e| Error::Failed(e.to_string()))?;
        Ok(serde_json::json!({ "books": books, "decider": self.decider.save()? }))
    }

    /// Goes on from a state, bit by bit as if it had never stopped.
    ///
    /// # Errors
    /// The state is of another strategy, or broken.
    pub fn resume(strategy: &dyn Start, mut state: Value) -> Result<Engine> {
        let books: Books = serde_json::from_value(state["books"].take())
            .map_err(|e| Error::BadInput(format!("the state is broken: {e}")))?;
        Ok(Engine {
            decider: strategy.resume(state["decider"].take())?,
            books,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::stream_labelling::METHODS;
    use crate::stream_labelling::draws::Draws;
    use crate::stream_labelling::models::{ModelKind, tests::plan};
    use papertrial_core::task::Entry;
    use proptest::prelude::*;
    use serde_json::Map;

    pub fn setting(target: Target, width: usize) -> Setting {
        let kind = match target {
            Target::Classes(_) => ModelKind::Softmax,
            Target::Number => ModelKind::LeastSquares,
        };
        Setting {
            model: ModelPlan {
                target,
                ..plan(kind, 2, width)
            },
            budget: 0.2,
            estimate: Estimate::Fading,
            window: 50,
            warm_up: 4,
            delay: 0,
            standardise: true,
            rows: Some(300),
            seed: 7,
        }
    }

    fn strategy(name: &str) -> Box<dyn Start> {
        let entry = Entry::find(METHODS, "stream-labelling", name).unwrap();
        (entry.build)(&Map::new()).unwrap()
    }

    /// What a strategy can predict.
    fn target(name: &str) -> Target {
        if ["norm-threshold", "conditional-d-optimality"].contains(&name) {
            Target::Number
        } else {
            Target::Classes(3)
        }
    }

    /// Rows and labels with a change in the middle.
    fn stream(n: usize, seed: u64, target: Target) -> Vec<([f64; 3], Truth)> {
        let mut draws = Draws::new(seed, "test stream");
        (0..n)
            .map(|i| {
                let x = [draws.normal(), draws.normal(), draws.normal()];
                let turn = if i < n / 2 { 1.0 } else { -1.0 };
                let score = turn * (x[0] + 0.5 * x[1]);
                let truth = match target {
                    Target::Number => Truth::Number(score),
                    Target::Classes(_) => Truth::Class(if score < -0.4 {
                        0
                    } else {
                        1 + usize::from(score > 0.4)
                    }),
                };
                (x, truth)
            })
            .collect()
    }

    fn run(engine: &mut Engine, rows: &[([f64; 3], Truth)]) -> Vec<Decision> {
        rows.iter()
            .map(|(x, truth)| {
                let decision = engine.decide(x).unwrap();
                if decision.ask {
                    engine.learn(decision.row, *truth).unwrap();
                }
                decision
            })
            .collect()
    }

    #[test]
    fn every_method_keeps_its_budget_and_repeats_its_bits() {
        for entry in METHODS {
            let name = entry.facts.name;
            let target = target(name);
            let setting = setting(target, 3);
            let rows = stream(600, 1, target);
            let mut engine = Engine::new(&*strategy(name), &setting).unwrap();
            let decisions = run(&mut engine, &rows);
            let mut again = Engine::new(&*strategy(name), &setting).unwrap();
            assert_eq!(decisions, run(&mut again, &rows), "{name}");
            let spent = decisions.last().unwrap().spent as f64;
            assert!(spent > 4.0, "{name} never asks");
            let bound = match name {
                "all-labels" => 600.0,
                // Five standard errors of a count with probability 0.2.
                "random" => 4.0 + 120.0 + 5.0 * (600.0f64 * 0.16).sqrt(),
                "first-labels" => 60.0,
                // At most twice the budget for some time.
                "drift-triggered-boost" => (0.4 + 0.02) * 600.0 + 21.0 + 4.0,
                _ => (0.2 + 0.02) * 600.0 + 11.0 + 4.0,
            };
            assert!(spent <= bound, "{name}: {spent} labels");
        }
    }

    #[test]
    fn every_method_goes_on_from_a_file_with_the_same_bits() {
        for entry in METHODS {
            let name = entry.facts.name;
            let target = target(name);
            let mut setting = setting(target, 3);
            setting.delay = 5;
            let rows = stream(400, 2, target);
            let mut whole = Engine::new(&*strategy(name), &setting).unwrap();
            let decisions = run(&mut whole, &rows);
            let mut first = Engine::new(&*strategy(name), &setting).unwrap();
            run(&mut first, &rows[..217]);
            let text = first.save().unwrap().to_string();
            let state = serde_json::from_str(&text).unwrap();
            let mut second = Engine::resume(&*strategy(name), state).unwrap();
            assert_eq!(run(&mut second, &rows[217..]), decisions[217..], "{name}");
            assert_eq!(second.save().unwrap(), whole.save().unwrap(), "{name}");
        }
    }

    #[test]
    fn a_label_changes_nothing_before_its_delay_is_over() {
        for entry in METHODS {
            let name = entry.facts.name;
            let target = target(name);
            for delay in [0, 10] {
                let setting = Setting {
                    delay,
                    ..setting(target, 3)
                };
                let rows = stream(300, 3, target);
                let other = |t: Truth| match t {
                    Truth::Class(c) => Truth::Class((c + 1) % 3),
                    Truth::Number(v) => Truth::Number(v + 5.0),
                };
                let mut changed = rows.clone();
                changed.iter_mut().skip(150).for_each(|r| r.1 = other(r.1));
                let decide = |rows: &[([f64; 3], Truth)]| {
                    run(&mut Engine::new(&*strategy(name), &setting).unwrap(), rows)
                };
                let (a, b) = (decide(&rows), decide(&changed));
                let same = 150 + delay as usize;
                assert_eq!(a[..=same], b[..=same], "{name}");
            }
        }
    }

    #[test]
    fn labels_out_of_turn_are_refused() {
        let mut engine =
            Engine::new(&*strategy("all-labels"), &setting(Target::Classes(2), 1)).unwrap();
        let told = |e: Result<()>| e.unwrap_err().to_string();
        assert!(told(engine.learn(0, Truth::Class(0))).contains("before its decision"));
        engine.decide(&[1.0]).unwrap();
        assert!(told(engine.learn(0, Truth::Class(2))).contains("none of"));
        assert!(told(engine.learn(0, Truth::Number(1.0))).contains("none of"));
        engine.learn(0, Truth::Class(1)).unwrap();
        assert!(told(engine.learn(0, Truth::Class(1))).contains("does not wait"));
        assert!(engine.decide(&[f64::NAN]).is_err());
        assert!(engine.decide(&[1.0, 2.0]).is_err());
        // A refused row is no row.
        assert_eq!(engine.decide(&[1.0]).unwrap().row, 1);
        engine.forget(1);
        assert!(told(engine.learn(1, Truth::Class(1))).contains("does not wait"));
    }

    #[test]
    fn impossible_settings_are_refused() {
        let good = setting(Target::Classes(2), 2);
        for budget in [0.0, -1.0, 1.1, f64::NAN] {
            let bad = Setting {
                budget,
                ..good.clone()
            };
            assert!(Engine::new(&*strategy("random"), &bad).is_err());
        }
        for bad in [
            setting(Target::Classes(1), 2),
            setting(Target::Classes(2), 0),
        ] {
            assert!(Engine::new(&*strategy("random"), &bad).is_err());
        }
        for entry in METHODS {
            let other = match target(entry.facts.name) {
                Target::Number => Target::Classes(2),
                Target::Classes(_) => Target::Number,
            };
            let wrong = Engine::new(&*strategy(entry.facts.name), &setting(other, 2));
            let general = ["random", "all-labels", "first-labels"];
            assert_eq!(wrong.is_ok(), general.contains(&entry.facts.name));
        }
    }

    #[test]
    fn a_constant_column_and_a_late_jump_are_scaled_to_finite_values() {
        let mut scaler = Scaler {
            n: 0.0,
            mean: vec![0.0; 2],
            squares: vec![0.0; 2],
        };
        for _ in 0..100 {
            assert_eq!(scaler.scale(&[3.0, 0.0])[0], 0.0);
        }
        assert_eq!(scaler.scale(&[3.0, 1.0]), [0.0, CUT]);
        // 1, 3: mean 2, deviation 1.
        let mut scaler = Scaler {
            n: 0.0,
            mean: vec![0.0],
            squares: vec![0.0],
        };
        scaler.scale(&[1.0]);
        assert_eq!(scaler.scale(&[3.0]), [1.0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn spends_stay_below_the_bound_for_any_budget(
            budget in 0.02f64..0.9, window in 5u64..150, seed in any::<u64>(), warm_up in 0u64..20,
        ) {
            for name in ["fixed-uncertainty", "variable-uncertainty", "randomised-variable-uncertainty", "split-uncertainty"] {
                let setting = Setting { budget, window, warm_up, seed, ..setting(Target::Classes(3), 3) };
                let rows = stream(300, seed, Target::Classes(3));
                let mut engine = Engine::new(&*strategy(name), &setting).unwrap();
                let spent = run(&mut engine, &rows).last().unwrap().spent as f64;
                let w = window as f64;
                let bound = (budget + 1.0 / w) * 300.0 + budget * w + 1.0 + warm_up as f64;
                prop_assert!(spent <= bound, "{name}: {spent} > {bound}");
            }
        }
    }
}
