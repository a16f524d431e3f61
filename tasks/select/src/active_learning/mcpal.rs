//! Cost-sensitive McPAL: D. Kottke, G. Krempl, D. Lang, J. Teschner, M. Spiliopoulou, *Multi-class probabilistic active
//! learning*, ECAI 2016, with a cost for each kind of mistake.
//!
//! 1. Frequencies k(x) \[K\]: the labels of the learned rows, weighted by exp(-‖x - x'‖² / (2 s²)).
//! 2. For m = 1 .. m_max further labels near x: their counts l follow the Dirichlet-multinomial distribution with
//!    parameters α = k + prior, all in logarithms.
//! 3. Without them the decision is j(k) = argmin_j sum_y k_y C\[y, j\] and costs sum_y α_y C\[y, j(k)\] / sum α; with them it
//!    is j(k + l) and costs sum_y (α_y + l_y) C\[y, j(k + l)\] / (sum α + m).
//! 4. Score: the greatest (cost without - expected cost with m) / m, times the density at x, over the fee.
//!
//! The annotator is the one of the most reliability for his fee. Cost O(n (r d + K^m_max)) for n open and r learned rows,
//! and the density from 1000 rows of the pool.

use super::performance::bandwidth;
use super::state::State;
use super::strategy::{
    Axes, EXHAUSTED, Mistakes, Payment, Proposal, Reliability, Strategy, best, best_value, divisor,
    reliabilities,
};
use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::distance::squared_distances;
use papertrial_numerics::linalg::matmul;
use papertrial_numerics::sampling::{rng, sample_sorted};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Open rows that are scored at once, so that memory stays in bounds.
const BLOCK: usize = 2048;
/// Rows from which the density is estimated.
const DENSITY_ROWS: usize = 1000;

/// Options of cost-sensitive McPAL.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct CostSensitiveMcpal {
    /// Further labels that are looked ahead to.
    #[schemars(range(min = 1, max = 3))]
    pub m_max: usize,
    /// Pseudo-count of each class.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub prior: f64,
}

impl Default for CostSensitiveMcpal {
    fn default() -> Self {
        CostSensitiveMcpal {
            m_max: 2,
            prior: 1e-3,
        }
    }
}

impl Method for CostSensitiveMcpal {
    const FACTS: Facts = Facts {
        name: "cost-sensitive-mcpal",
        about: "ask where further labels are expected to save most cost of mistakes, by density and for the fee",
        paper: Some("real-world-al"),
        streams: false,
    };
}

impl Strategy for CostSensitiveMcpal {
    fn axes(&self) -> Axes {
        Axes {
            mistakes: Mistakes::Matrix,
            payment: Payment::AnnotatorAndRow,
            reliability: Reliability::Uniform,
            ..Axes::PLAIN
        }
    }

    fn propose(&self, state: &State) -> Result<Proposal> {
        let open = state.open();
        let pool = state.pool;
        let n = pool.rows();
        let width = bandwidth(n, pool.x.ncols());
        let learned = pool.x.select(Axis(0), &state.learned);
        let mut draws = rng(state.setting.seed, "active-learning density");
        let sample = sample_sorted(&mut draws, n, n.min(DENSITY_ROWS))
            .map_err(|e| Error::Failed(e.to_string()))?;
        let sample = pool.x.select(Axis(0), &sample);
        let kernel = |a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>| -> Result<Array2<f64>> {
            Ok(squared_distances(a, b)
                .map_err(|e| Error::Failed(e.to_string()))?
                .mapv(|d| (-d / (2.0 * width * width)).exp()))
        };
        let outcomes = Outcomes::new(pool.classes.len(), self.m_max);
        let mut gains = Vec::with_capacity(open.len());
        for block in open.chunks(BLOCK) {
            let x = pool.x.select(Axis(0), block);
            // 1.
            let counts = matmul(
                kernel(x.view(), learned.view())?.view(),
                state.targets.view(),
            );
            let density = kernel(x.view(), sample.view())?
                .mean_axis(Axis(1))
                .unwrap_or_default();
            let found: Vec<f64> = block
                .par_iter()
                .enumerate()
                .map(|(i, &row)| {
                    outcomes.gain(counts.row(i), self.prior, pool.costs.view())
                        * density[i]
                        * pool.row_costs[row]
                })
                .collect();
            gains.extend(found);
        }
        // 4.
        let reliability = reliabilities(state);
        let who: Vec<Option<usize>> = open
            .iter()
            .map(|&row| best_value(&state.askable(row), &reliability, |a| state.fee(row, a)))
            .collect();
        let scores: Vec<f64> = gains
            .iter()
            .zip(&open)
            .zip(&who)
            .map(|((gain, &row), who)| who.map_or(f64::NAN, |a| gain / divisor(state.fee(row, a))))
            .collect();
        Ok(match best(&scores).and_then(|i| who[i].map(|a| (i, a))) {
            Some((i, a)) => Proposal::Ask(vec![state.about(open[i], a, scores[i])]),
            None => EXHAUSTED,
        })
    }
}

/// All counts of up to m_max labels over K classes, grouped by their number.
struct Outcomes {
    /// For m = 1 .. m_max: the classes that occur, with their counts.
    by_number: Vec<Vec<Vec<(usize, u32)>>>,
}

impl Outcomes {
    fn new(k: usize, m_max: usize) -> Outcomes {
        // Ascending lists of classes, one entry for each label.
        let mut lists: Vec<Vec<usize>> = vec![Vec::new()];
        let mut by_number = Vec::new();
        for _ in 0..m_max {
            lists = lists
                .iter()
                .flat_map(|list| {
                    let from = list.last().copied().unwrap_or(0);
                    (from..k).map(move |class| [list.as_slice(), &[class]].concat())
                })
                .collect();
            by_number.push(
                lists
                    .iter()
                    .map(|list| {
                        let mut counts: Vec<(usize, u32)> = Vec::new();
                        for &class in list {
                            match counts.last_mut() {
                                Some((last, count)) if *last == class => *count += 1,
                                _ => counts.push((class, 1)),
                            }
                        }
                        counts
                    })
                    .collect(),
            );
        }
        Outcomes { by_number }
    }

    /// The greatest saving for each label, for label counts k \[K\] around a row.
    fn gain(&self, counts: ArrayView1<'_, f64>, prior: f64, costs: ArrayView2<'_, f64>) -> f64 {
        let k = counts.len();
        let alpha: Vec<f64> = counts.iter().map(|c| c.max(0.0) + prior).collect();
        let total: f64 = alpha.iter().sum();
        // Sums over the true class, for each decision: by counts, and by parameters.
        let by_counts = counts.dot(&costs);
        let by_alpha = ArrayView1::from(&alpha).dot(&costs);
        let cheapest = |by: &dyn Fn(usize) -> f64| {
            (0..k)
                .fold((0, f64::INFINITY), |found, j| {
                    let cost = by(j);
                    if cost < found.1 { (j, cost) } else { found }
                })
                .0
        };
        let without = by_alpha[cheapest(&|j| by_counts[j])] / total;
        let mut greatest = f64::NEG_INFINITY;
        for (outcomes, m) in self.by_number.iter().zip(1u32..) {
            // 2. ln of m! / (total (total + 1) .. (total + m - 1)).
            let front: f64 = (0..m)
                .map(|i| f64::from(i + 1).ln() - (total + f64::from(i)).ln())
                .sum();
            let with: f64 = outcomes
                .iter()
                .map(|labels| {
                    let chance: f64 = labels
                        .iter()
                        .flat_map(|&(class, count)| {
                            let alpha = alpha[class];
                            (0..count)
                                .map(move |i| (alpha + f64::from(i)).ln() - f64::from(i + 1).ln())
                        })
                        .sum();
                    let more = |j: usize| -> f64 {
                        labels
                            .iter()
                            .map(|&(class, count)| f64::from(count) * costs[[class, j]])
                            .sum()
                    };
                    // 3.
                    let decision = cheapest(&|j| by_counts[j] + more(j));
                    let cost = (by_alpha[decision] + more(decision)) / (total + f64::from(m));
                    (front + chance).exp() * cost
                })
                .sum();
            greatest = greatest.max((without - with) / f64::from(m));
        }
        greatest
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::tests::halves;
    use super::super::state::Setting;
    use super::super::state::tests::start;
    use super::*;
    use ndarray::array;

    fn equal(k: usize) -> Array2<f64> {
        Array2::from_shape_fn((k, k), |(y, j)| f64::from(u8::from(y != j)))
    }

    #[test]
    fn gain_by_hand() {
        // No labels, two classes, prior p: without, the decision is class 0 and costs 1/2. One label l is 0 or 1 with
        // probability 1/2, then the cost is p / (2 p + 1).
        let p = 1e-3;
        let gain = Outcomes::new(2, 1).gain(array![0.0, 0.0].view(), p, equal(2).view());
        assert!((gain - (0.5 - p / (2.0 * p + 1.0))).abs() < 1e-12);
        // Two labels cannot be worth more than twice as much as one here, so that the answer is the same.
        let two = Outcomes::new(2, 2).gain(array![0.0, 0.0].view(), p, equal(2).view());
        assert!((gain - two).abs() < 1e-12);
    }

    #[test]
    fn one_label_cannot_turn_a_clear_decision_but_many_labels_need_no_overflow() {
        let gain = |k: [f64; 2], m| {
            Outcomes::new(2, m).gain(array![k[0], k[1]].view(), 1e-3, equal(2).view())
        };
        assert!(gain([5.0, 0.0], 2).abs() < 1e-9);
        assert!(gain([1e6, 1e6], 2).is_finite());
        // At 2 against 1 one label only ties, two turn it: looking two ahead is worth more.
        assert!(gain([2.0, 1.0], 2) > gain([2.0, 1.0], 1) + 1e-6);
    }

    #[test]
    fn gains_agree_with_drawing_labels() {
        use rand::RngExt;
        let costs = array![[0.0, 1.0, 4.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]];
        let counts = array![1.2, 0.7, 0.4];
        let prior = 0.3;
        let exact = Outcomes::new(3, 1).gain(counts.view(), prior, costs.view());
        // The urn: each label is drawn with the parameters' shares.
        let alpha = counts.mapv(|c| c + prior);
        let total = alpha.sum();
        let decide = |k: &ndarray::Array1<f64>| {
            let by = k.dot(&costs);
            (0..3).min_by(|&a, &b| by[a].total_cmp(&by[b])).unwrap()
        };
        let without = alpha.dot(&costs)[decide(&counts)] / total;
        let mut rng = rng(0, "urn");
        let mut with = 0.0;
        let rounds = 100_000;
        for _ in 0..rounds {
            let mut u = rng.random::<f64>() * total;
            let mut y = 0;
            while y < 2 && u > alpha[y] {
                u -= alpha[y];
                y += 1;
            }
            let (mut later, mut after) = (counts.clone(), alpha.clone());
            later[y] += 1.0;
            after[y] += 1.0;
            with += after.dot(&costs)[decide(&later)] / (total + 1.0);
        }
        let drawn = without - with / f64::from(rounds);
        assert!((drawn - exact).abs() < 5e-3, "{drawn} {exact}");
    }

    #[test]
    fn the_cheaper_of_two_alike_is_asked_about_an_open_row() {
        let (pool, truth) = halves(50, &[2.0, 1.0], 0);
        let setting = Setting::default();
        let log = start(&pool, &truth, &setting);
        let state = State::new(&pool, &log, &setting).unwrap();
        let Proposal::Ask(found) = CostSensitiveMcpal::default().propose(&state).unwrap() else {
            panic!("a question was expected");
        };
        assert_eq!(found[0].annotator, 1);
        assert!(found[0].query.rows().all(|r| state.labels[r].is_none()));
    }
}
