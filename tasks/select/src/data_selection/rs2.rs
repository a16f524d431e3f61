//! RS2: a fresh random subset for every round.
//!
//! Okanovic, Waleffe, Mageirakos, Nikolakakis, Karbasi, Kalogerias, Gurel, Rekatsinas, *Repeated Random Sampling for
//! Minimizing the Time-to-Accuracy of Learning*, ICLR 2024, arXiv 2305.18424.
//!
//! N rows, k = floor(r N) of them in each of X rounds, b rows in a step.
//! 1. Without replacement (default): keep a permutation of the rows. Round t trains on the next k of it, in its order.
//! 2. Where fewer than k are left, take these, draw a new permutation, and fill up from its head, passing over rows that
//!    the round has already; rows passed over come first in the next round. So every row comes once in each
//!    permutation, and no row twice in a round. (The authors' code fills up from the head of the old permutation and
//!    throws the rest of it away: the same up to the ends of a permutation.)
//! 3. With replacement: each round draws k different rows anew, whatever came before.
//! 4. By classes: 1 to 3 within each class, which keeps its share of k, and the round's rows shuffled.
//! 5. The learning rate follows the X k / b steps that are taken, not the X N / b of training on all rows.
//!
//! Permutation p is the order in which plain training would visit the rows in epoch p: without replacement RS2 is plain
//! training that stops after X r epochs with its schedule shortened, so what is known of the convergence of stochastic
//! gradient descent after X k / b steps holds here; with r = 1 it is plain training, bit for bit.
//!
//! Cost: O(k) a round, and O(N) for each permutation; memory O(N).

use super::pool::{Choice, Needs, Pool, Selector, Subset, order_of, shuffled};
use papertrial_core::task::{Facts, Method};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{HashSet, VecDeque};

/// Options of RS2.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Rs2 {
    /// Draw each round from all rows, instead of only from those not seen since all were seen last.
    pub replacement: bool,
    /// Keep the classes' shares in every round.
    pub balance: bool,
}

impl Method for Rs2 {
    const FACTS: Facts = Facts {
        name: "rs2",
        about: "a fresh random subset for every round",
        paper: Some("rs2"),
        streams: false,
    };
}

impl Selector for Rs2 {
    fn choose<'a>(&'a self, pool: &'a Pool<'_>) -> Result<Choice<'a>> {
        let seed = pool.context.seed;
        if self.replacement {
            // Steps 3 and 4.
            return Ok(Choice::Drawn(Box::new(move |round| {
                let mut rng = sampling::rng(seed, &format!("rows of round {round}"));
                let subset = pool.in_groups(self.balance, |rows, quota| {
                    let places = sampling::sample_sorted(&mut rng, rows.len(), quota)
                        .map_err(|e| Error::option("budget", e))?;
                    Ok((places, None))
                })?;
                Ok(shuffled(&subset, seed, round))
            })));
        }
        if !self.balance {
            // Steps 1 and 2.
            let mut deck = Deck::new(pool.len(), seed, String::new());
            return Ok(Choice::Drawn(Box::new(move |_| {
                Ok(deck.deal(pool.choose).into())
            })));
        }
        // Step 4.
        let mut decks: Vec<(Vec<usize>, usize, Deck)> = pool
            .groups(true)?
            .into_iter()
            .enumerate()
            .map(|(g, (rows, quota))| {
                let deck = Deck::new(rows.len(), seed, format!("class {g}, "));
                (rows, quota, deck)
            })
            .collect();
        Ok(Choice::Drawn(Box::new(move |round| {
            let mut rows: Vec<usize> = Vec::with_capacity(pool.choose);
            for (members, quota, deck) in &mut decks {
                rows.extend(deck.deal(*quota).into_iter().map(|i| members[i]));
            }
            rows.sort_unstable();
            Ok(shuffled(&Subset::from(rows), seed, round))
        })))
    }

    fn needs(&self) -> Needs {
        if self.balance {
            Needs::Labels
        } else {
            Needs::Number
        }
    }
}

/// Rows 0 to n in random order, dealt until they are used up, then shuffled anew.
struct Deck {
    n: usize,
    seed: u64,
    purpose: String,
    shuffles: usize,
    left: VecDeque<usize>,
}

impl Deck {
    fn new(n: usize, seed: u64, purpose: String) -> Deck {
        Deck {
            n,
            seed,
            purpose,
            shuffles: 0,
            left: VecDeque::new(),
        }
    }

    /// The next `k` rows, all different; `k` at most n.
    fn deal(&mut self, k: usize) -> Vec<usize> {
        let mut hand: Vec<usize> = self.left.drain(..k.min(self.left.len())).collect();
        if hand.len() == k {
            return hand;
        }
        let held: HashSet<usize> = hand.iter().copied().collect();
        let purpose = format!("{}{}", self.purpose, order_of(self.shuffles));
        let fresh = sampling::permutation(&mut sampling::rng(self.seed, &purpose), self.n);
        self.shuffles += 1;
        let mut passed_over = Vec::new();
        for row in fresh {
            if hand.len() == k {
                self.left.push_back(row);
            } else if held.contains(&row) {
                passed_over.push(row);
            } else {
                hand.push(row);
            }
        }
        for row in passed_over.into_iter().rev() {
            self.left.push_front(row);
        }
        hand
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::testing::Asked;
    use super::*;
    use proptest::prelude::*;

    fn rounds(asked: &Asked, options: &Rs2, rounds: usize) -> Vec<Vec<usize>> {
        let found = asked.rounds(options, rounds).unwrap();
        found.into_iter().map(|s| s.rows).collect()
    }

    #[test]
    fn a_permutation_is_dealt_in_its_own_order() {
        let found = rounds(&Asked::plain(6, 2, 2, 3), &Rs2::default(), 4);
        let order = |p| sampling::permutation(&mut sampling::rng(3, &order_of(p)), 6);
        assert_eq!(found[..3].concat(), order(0));
        assert_eq!(found[3], order(1)[..2]);
    }

    #[test]
    fn all_rows_in_every_round_come_in_the_order_of_plain_training() {
        for replacement in [false, true] {
            let options = Rs2 {
                replacement,
                balance: false,
            };
            let found = rounds(&Asked::plain(9, 3, 9, 5), &options, 3);
            for (round, rows) in found.iter().enumerate() {
                let order = sampling::permutation(&mut sampling::rng(5, &order_of(round)), 9);
                assert_eq!(*rows, order, "{replacement}");
            }
        }
    }

    #[test]
    fn with_replacement_rounds_forget_what_came_before() {
        let options = Rs2 {
            replacement: true,
            balance: false,
        };
        let found = rounds(&Asked::plain(10, 2, 5, 0), &options, 40);
        let twice = found
            .windows(2)
            .filter(|w| w[1].iter().any(|r| w[0].contains(r)));
        assert!(twice.count() > 30);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn rows_come_equally_often_and_never_twice_in_a_round(
            n in 1usize..40, share in 0.0f64..1.0, seed in 0u64..50, balance: bool, replacement: bool,
        ) {
            let k = 1 + ((n - 1) as f64 * share) as usize;
            let asked = Asked::plain(n, 2.min(n), k, seed);
            let found = rounds(&asked, &Rs2 { replacement, balance }, 12);
            let mut seen = vec![0usize; n];
            for rows in &found {
                prop_assert_eq!(rows.len(), k);
                let mut sorted = rows.clone();
                sorted.sort_unstable();
                sorted.dedup();
                prop_assert_eq!(sorted.len(), k);
                rows.iter().for_each(|r| seen[*r] += 1);
            }
            if !replacement {
                for class in 0..2 {
                    let members = || {
                        seen.iter().enumerate().filter(|(r, _)| !balance || r % 2 == class).map(|(_, s)| *s)
                    };
                    let (least, most) = (members().min().unwrap_or(0), members().max().unwrap_or(0));
                    prop_assert!(most - least <= 1, "{:?}", seen);
                }
            }
            prop_assert_eq!(found, rounds(&asked, &Rs2 { replacement, balance }, 12));
        }
    }
}
