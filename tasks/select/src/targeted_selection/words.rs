//! Baselines that compare words: TF-IDF cosine and BM25.
//!
//! Words are those of `tokens.rs`. N rows, df rows that hold a word, tf times that it stands in a row.
//!
//! - tf-idf: weight (1 + ln tf) x (ln((1 + N) / (1 + df)) + 1), rows and queries scaled to length 1, score the cosine.
//! - bm25 (Robertson and Zaragoza, *The Probabilistic Relevance Framework*, 2009): the sum over the query's different words
//!   of ln(1 + (N - df + .5) / (df + .5)) x tf (k1 + 1) / (tf + k1 (1 - b + b x length / mean length)).
//!
//! Only words that some query holds count: each row looks its words up in the queries' table. Cost: the words of the pool,
//! and for each the queries that hold it.

use super::problem::{Fitted, Pool, Queries, Ranking, Selector};
use super::rows::Part;
use super::scores::{Scores, See, visit_in_blocks};
use super::tokens::each_word;
use ndarray::Array2;
use papertrial_core::Result;
use papertrial_core::task::{Context, Facts, Method};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Options of TF-IDF: none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TfIdf {}

impl Method for TfIdf {
    const FACTS: Facts = Facts {
        name: "tf-idf",
        about: "nearest rows by the cosine of their words, rare words counting more",
        paper: None,
        streams: false,
    };
}

impl Selector for TfIdf {
    fn fit<'a>(&self, pool: &'a Pool, _context: &Context) -> Result<Box<dyn Fitted + 'a>> {
        Ok(Box::new(Bags::of(pool, Weighing::Cosine)))
    }
}

/// Options of BM25.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Bm25 {
    /// How slowly a word that stands often stops to count.
    #[schemars(range(min = 0.0))]
    pub k1: f64,
    /// How much long rows are held back, 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub b: f64,
}

impl Default for Bm25 {
    fn default() -> Self {
        Bm25 { k1: 1.2, b: 0.75 }
    }
}

impl Method for Bm25 {
    const FACTS: Facts = Facts {
        name: "bm25",
        about: "best rows by BM25, the score of search engines, with each query as a search",
        paper: None,
        streams: false,
    };
}

impl Selector for Bm25 {
    fn fit<'a>(&self, pool: &'a Pool, _context: &Context) -> Result<Box<dyn Fitted + 'a>> {
        let weighing = Weighing::Bm25 {
            k1: self.k1,
            b: self.b,
        };
        Ok(Box::new(Bags::of(pool, weighing)))
    }
}

#[derive(Debug, Clone, Copy)]
enum Weighing {
    Cosine,
    Bm25 { k1: f64, b: f64 },
}

/// Words of a row, by number, with how often they stand there.
type Bag = Vec<(u32, u32)>;

/// The pool as bags of words.
struct Bags {
    words: HashMap<String, u32>,
    rows: Vec<Bag>,
    /// Weight of each word by its rarity.
    rarity: Vec<f64>,
    /// Length over which a row is held back (tf-idf: its norm; BM25: its words over their mean).
    lengths: Vec<f64>,
    weighing: Weighing,
    part: Part,
}

impl Bags {
    fn of(pool: &Pool, weighing: Weighing) -> Bags {
        let mut words: HashMap<String, u32> = HashMap::new();
        let rows: Vec<Bag> = pool
            .rows
            .iter()
            .map(|row| {
                let mut numbers = Vec::new();
                each_word(&row.words(pool.part), |w| {
                    let next = words.len() as u32;
                    numbers.push(match words.get(w) {
                        Some(number) => *number,
                        None => *words.entry(w.to_owned()).or_insert(next),
                    });
                });
                bag(numbers)
            })
            .collect();
        let mut holders = vec![0u32; words.len()];
        for (word, _) in rows.iter().flatten() {
            holders[*word as usize] += 1;
        }
        let n = rows.len() as f64;
        let rarity: Vec<f64> = holders
            .iter()
            .map(|&df| match weighing {
                Weighing::Cosine => ((1.0 + n) / (1.0 + f64::from(df))).ln() + 1.0,
                Weighing::Bm25 { .. } => {
                    (1.0 + (n - f64::from(df) + 0.5) / (f64::from(df) + 0.5)).ln()
                }
            })
            .collect();
        let size = |bag: &Bag| bag.iter().map(|(_, tf)| f64::from(*tf)).sum::<f64>();
        let mean = rows.iter().map(size).sum::<f64>() / n.max(1.0);
        let lengths = rows
            .iter()
            .map(|bag| match weighing {
                Weighing::Cosine => norm(bag, &rarity),
                Weighing::Bm25 { .. } => size(bag) / mean.max(1.0),
            })
            .collect();
        Bags {
            words,
            rows,
            rarity,
            lengths,
            weighing,
            part: pool.part,
        }
    }
}

/// Counts words, in the order of their numbers.
fn bag(mut numbers: Vec<u32>) -> Bag {
    numbers.sort_unstable();
    let mut bag: Bag = Vec::new();
    for word in numbers {
        match bag.last_mut() {
            Some((last, tf)) if *last == word => *tf += 1,
            _ => bag.push((word, 1)),
        }
    }
    bag
}

fn term(tf: u32, rarity: f64) -> f64 {
    (1.0 + f64::from(tf).ln()) * rarity
}

fn norm(bag: &Bag, rarity: &[f64]) -> f64 {
    bag.iter()
        .map(|(word, tf)| term(*tf, rarity[*word as usize]).powi(2))
        .sum::<f64>()
        .sqrt()
}

impl Fitted for Bags {
    fn rank<'q>(&'q self, queries: &'q Queries, _context: &Context) -> Result<Ranking<'q>> {
        let mut holders: HashMap<u32, Vec<(usize, f64)>> = HashMap::new();
        for (q, row) in queries.rows.iter().enumerate() {
            let mut numbers = Vec::new();
            // A word that no row of the pool holds can match nothing.
            each_word(&row.words(self.part), |w| numbers.extend(self.words.get(w)));
            let bag = bag(numbers);
            let norm = norm(&bag, &self.rarity).max(f64::MIN_POSITIVE);
            for (word, tf) in bag {
                let rarity = self.rarity[word as usize];
                let weight = match self.weighing {
                    Weighing::Cosine => term(tf, rarity) / norm,
                    Weighing::Bm25 { .. } => rarity,
                };
                holders.entry(word).or_default().push((q, weight));
            }
        }
        Ok(Ranking::ByQuery(Box::new(Matches {
            bags: self,
            holders,
            queries: queries.rows.len(),
        })))
    }
}

/// Rows against the words of the queries.
struct Matches<'a> {
    bags: &'a Bags,
    /// Queries that hold a word, with its weight in each.
    holders: HashMap<u32, Vec<(usize, f64)>>,
    queries: usize,
}

impl Matches<'_> {
    fn score(&self, row: usize) -> Vec<f32> {
        let mut scores = vec![0.0f64; self.queries];
        let length = self.bags.lengths[row];
        for (word, tf) in &self.bags.rows[row] {
            let Some(holders) = self.holders.get(word) else {
                continue;
            };
            let own = match self.bags.weighing {
                Weighing::Cosine => term(*tf, self.bags.rarity[*word as usize]) / length,
                Weighing::Bm25 { k1, b } => {
                    let tf = f64::from(*tf);
                    tf * (k1 + 1.0) / (tf + k1 * (1.0 - b + b * length))
                }
            };
            for (q, weight) in holders {
                scores[*q] += own * weight;
            }
        }
        scores.into_iter().map(|s| s as f32).collect()
    }
}

impl Scores for Matches<'_> {
    fn rows(&self) -> usize {
        self.bags.rows.len()
    }

    fn queries(&self) -> usize {
        self.queries
    }

    fn visit(&self, see: &mut See) -> Result<()> {
        let block = |first: usize, n: usize| {
            let rows: Vec<Vec<f32>> = (first..first + n)
                .into_par_iter()
                .map(|row| self.score(row))
                .collect();
            Ok(Array2::from_shape_fn((self.queries, n), |(q, j)| {
                rows[j][q]
            }))
        };
        visit_in_blocks(self.rows(), 1024, block, see)
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::tests::{best, pool, queries};
    use super::super::rows::Row;
    use super::*;

    fn scores(method: &dyn Selector, rows: &[&str], query: &str) -> Vec<f32> {
        let mut pool = pool(rows.len(), 1);
        pool.rows = rows.iter().map(|t| Row::plain(t)).collect();
        let context = Context::with_seed(0);
        let fitted = method.fit(&pool, &context).unwrap();
        let queries = queries(&[query]);
        let Ranking::ByQuery(scores) = fitted.rank(&queries, &context).unwrap() else {
            panic!("words give scores by query");
        };
        let mut all = Vec::new();
        scores
            .visit(&mut |b| {
                all.extend(b.scores.row(0).iter().copied());
                Ok(())
            })
            .unwrap();
        all
    }

    const ROWS: [&str; 3] = ["cat sat sat", "dog ran", "cat ran far away"];

    #[test]
    fn cosines_by_hand() {
        let got = scores(&TfIdf::default(), &ROWS, "cat sat unheard");
        // ln(4/3) + 1 for cat (two rows), ln(4/2) + 1 for sat (one row).
        let (cat, sat) = ((4f64 / 3.0).ln() + 1.0, 2f64.ln() + 1.0);
        let twice = (1.0 + 2f64.ln()) * sat;
        let query = (cat * cat + sat * sat).sqrt();
        let first = (cat * cat + twice * sat) / query / (cat * cat + twice * twice).sqrt();
        let (ran, rare) = (cat, sat);
        let last = cat * cat / query / (cat * cat + ran * ran + 2.0 * rare * rare).sqrt();
        for (got, want) in got.iter().zip([first, 0.0, last]) {
            assert!((f64::from(*got) - want).abs() < 1e-6, "{got} {want}");
        }
        // A row that is the query has cosine 1.
        let same = scores(&TfIdf::default(), &ROWS, "Dog ran");
        assert!((same[1] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn bm25_by_hand() {
        let got = scores(&Bm25::default(), &ROWS, "sat sat cat");
        // Lengths 3, 2, 4, mean 3.
        let idf = |df: f64| (1.0 + (3.0 - df + 0.5) / (df + 0.5)).ln();
        let part = |tf: f64, length: f64| tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length / 3.0));
        let want = [
            idf(1.0) * part(2.0, 3.0) + idf(2.0) * part(1.0, 3.0),
            0.0,
            idf(2.0) * part(1.0, 4.0),
        ];
        for (got, want) in got.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-6, "{got} {want}");
        }
    }

    #[test]
    fn rows_of_the_query_s_words_come_first() {
        let pool = pool(40, 1);
        for method in [&TfIdf::default() as &dyn Selector, &Bm25::default()] {
            let picked = best(method, &pool, &queries(&["one two", "three"]), 20);
            assert!(picked.iter().all(|r| r % 2 == 1), "{picked:?}");
        }
    }
}
