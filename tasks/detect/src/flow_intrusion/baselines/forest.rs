//! `random-forest` and `extra-trees`: many decision trees over one flow, each on its own draw.
//!
//! Breiman, *Random forests* (2001): each tree is grown to the end on rows drawn with replacement, over columns drawn
//! for each split. Geurts, Ernst, Wehenkel, *Extremely randomized trees* (2006): on rows drawn at most once, and the
//! place of each split is drawn too. The probability is the mean of the leaves' shares. Each tree gets as many attacks
//! as benign flows, all that the rarer class has (Chen, Liaw, Breiman, *Using random forest to learn imbalanced data*,
//! 2004): weights of rows would do nothing, as a leaf of one row is that row's class whatever it weighs. A categorical
//! column is one column here, whose splits ask for one code, so that a column of many levels is not drawn more often
//! than others.

use super::super::detector::{Detector, Fitted};
use super::super::prepare::{Flows, Layout};
use super::tree::{Binned, Growth, Tree};
use papertrial_core::task::{Context, Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::rng;
use rand::RngExt;
use rand::seq::index::sample;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Options of a random forest.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RandomForest {
    /// Trees.
    #[schemars(range(min = 1, max = 10_000))]
    pub trees: usize,
    /// Columns drawn for each split; the square root of all if not given.
    #[schemars(range(min = 1))]
    pub columns: Option<usize>,
    /// Rows that a leaf has at least.
    #[schemars(range(min = 1))]
    pub leaf: usize,
    /// Most splits in a row.
    #[schemars(range(min = 1, max = 1000))]
    pub depth: usize,
}

impl Default for RandomForest {
    fn default() -> Self {
        RandomForest {
            trees: 100,
            columns: None,
            leaf: 1,
            depth: 64,
        }
    }
}

/// Options of extra trees.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ExtraTrees {
    /// Trees.
    #[schemars(range(min = 1, max = 10_000))]
    pub trees: usize,
    /// Columns drawn for each split; the square root of all if not given.
    #[schemars(range(min = 1))]
    pub columns: Option<usize>,
    /// Rows that a leaf has at least.
    #[schemars(range(min = 1))]
    pub leaf: usize,
    /// Most splits in a row.
    #[schemars(range(min = 1, max = 1000))]
    pub depth: usize,
}

impl Default for ExtraTrees {
    fn default() -> Self {
        ExtraTrees {
            trees: 100,
            columns: None,
            leaf: 1,
            depth: 64,
        }
    }
}

impl Method for RandomForest {
    const FACTS: Facts = Facts {
        name: "random-forest",
        about: "decision trees over one flow, each on drawn rows and columns",
        paper: None,
        streams: true,
    };
}

impl Method for ExtraTrees {
    const FACTS: Facts = Facts {
        name: "extra-trees",
        about: "decision trees over one flow whose splits are drawn",
        paper: None,
        streams: true,
    };
}

impl Detector for RandomForest {
    fn fit(
        &self,
        flows: &Flows,
        train: &[usize],
        _: usize,
        context: &Context,
    ) -> Result<Box<dyn Fitted>> {
        let how = Growth {
            columns: columns(self.columns, flows)?,
            leaf: self.leaf,
            depth: self.depth,
            drawn: false,
        };
        fit(flows, train, self.trees, how, context)
    }
}

impl Detector for ExtraTrees {
    fn fit(
        &self,
        flows: &Flows,
        train: &[usize],
        _: usize,
        context: &Context,
    ) -> Result<Box<dyn Fitted>> {
        let how = Growth {
            columns: columns(self.columns, flows)?,
            leaf: self.leaf,
            depth: self.depth,
            drawn: true,
        };
        fit(flows, train, self.trees, how, context)
    }
}

fn columns(asked: Option<usize>, flows: &Flows) -> Result<usize> {
    let all = flows.layout.numeric.len() + flows.layout.categorical.len();
    match asked {
        Some(columns) if columns > all => Err(Error::option(
            "columns",
            format!("{columns} of {all} columns cannot be drawn"),
        )),
        Some(columns) => Ok(columns),
        None => Ok(((all as f64).sqrt() as usize).max(1)),
    }
}

fn fit(
    flows: &Flows,
    train: &[usize],
    trees: usize,
    how: Growth,
    context: &Context,
) -> Result<Box<dyn Fitted>> {
    super::classes(flows, train)?;
    let width = flows.layout.numeric.len() + flows.layout.categorical.len();
    context.require(
        "the binned columns",
        (train.len() * (4 * width + 8 * rayon::current_num_threads())) as u64,
    )?;
    let n = u32::try_from(train.len())
        .map_err(|_| Error::BadInput("more than 4294967295 flows cannot be trained on".into()))?;
    let data = Binned::new(flows, flows.labels()?, train);
    // Places in `train`, class by class.
    let (attacks, benign): (Vec<u32>, Vec<u32>) = (0..n).partition(|at| data.attack[*at as usize]);
    let each = attacks.len().min(benign.len());
    let trees = (0..trees)
        .into_par_iter()
        .map(|tree| {
            let mut draws = rng(context.seed, &format!("tree {tree}"));
            let mut rows: Vec<u32> = Vec::with_capacity(2 * each);
            for of_class in [&attacks, &benign] {
                if how.drawn {
                    let drawn = sample(&mut draws, of_class.len(), each);
                    rows.extend(drawn.into_iter().map(|i| of_class[i]));
                } else {
                    let mut drawn = || of_class[draws.random_range(0..of_class.len())];
                    rows.extend((0..each).map(|_| drawn()));
                }
            }
            Tree::grow(&data, rows, how, &mut draws)
        })
        .collect();
    Ok(Box::new(Model {
        layout: (*flows.layout).clone(),
        trees,
    }))
}

/// The trees.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Model {
    layout: Layout,
    trees: Vec<Tree>,
}

/// Rows that go through one tree after the other, so that it stays in the cache.
const TOGETHER: usize = 256;

impl Fitted for Model {
    fn window(&self) -> usize {
        1
    }

    fn parameters(&self) -> usize {
        self.trees.iter().map(Tree::numbers).sum()
    }

    fn score(&self, flows: &Flows, rows: &[usize], _: &Context) -> Result<Vec<f32>> {
        super::check(flows, &self.layout, rows, 1)?;
        let (numeric, categorical) = (self.layout.numeric.len(), self.layout.categorical.len());
        if self.trees.is_empty() || !self.trees.iter().all(|t| t.is_whole(numeric, categorical)) {
            return Err(Error::Failed("the detector's trees are broken".into()));
        }
        let of_rows = |rows: &[usize]| -> Vec<f32> {
            let mut sums = vec![0.0f32; rows.len()];
            for tree in &self.trees {
                for (sum, row) in sums.iter_mut().zip(rows) {
                    *sum += tree.score(flows.numbers_of(*row), flows.codes_of(*row));
                }
            }
            let mean = |sum: f32| sum / self.trees.len() as f32;
            sums.into_iter().map(mean).collect()
        };
        Ok(rows.par_chunks(TOGETHER).flat_map_iter(of_rows).collect())
    }

    fn save(&self, folder: &Path) -> Result<bool> {
        super::write(self, folder)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::flows;
    use super::*;

    #[test]
    fn too_many_columns_and_broken_trees_are_refused() {
        let some = flows(60, false, 1);
        let train: Vec<usize> = (0..60).collect();
        let context = Context::with_seed(0);
        let forest = RandomForest {
            columns: Some(4),
            ..RandomForest::default()
        };
        let e = forest.fit(&some, &train, 1, &context).err().unwrap();
        assert!(e.to_string().contains("option columns"), "{e}");
        let broken = Model {
            layout: (*some.layout).clone(),
            trees: Vec::new(),
        };
        assert!(broken.score(&some, &[1], &context).is_err());
    }

    #[test]
    fn more_trees_disagree_less() {
        let mut some = flows(600, false, 8);
        // A tenth of the labels are turned round, so that single trees err.
        let noisy = some
            .labels()
            .unwrap()
            .iter()
            .enumerate()
            .map(|(i, a)| *a != (i % 10 == 0));
        some.attack = Some(noisy.collect());
        let clean = flows(600, false, 8);
        let train: Vec<usize> = (0..300).collect();
        let held: Vec<usize> = (300..600).collect();
        let share = |trees: usize| {
            let forest = RandomForest {
                trees,
                ..RandomForest::default()
            };
            let fitted = forest
                .fit(&some, &train, 1, &Context::with_seed(1))
                .unwrap();
            super::super::tests::right(&*fitted, &clean, &held)
        };
        let (one, many) = (share(1), share(100));
        assert!(many > one && many > 0.93, "{one} {many}");
    }
}
