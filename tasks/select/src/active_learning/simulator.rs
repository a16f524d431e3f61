//! Simulated annotators: they err, tire, refuse, know some things better than others, and charge.
//!
//! Asked about a row as the t-th answer, an annotator of accuracy p (below 1/2: an adversary of two classes)
//! 1. refuses with his rate of refusal, for nothing;
//! 2. says "don't know" with his rate of that, for the fee;
//! 3. is right with probability 1/2 + (p - 1/2) exp(-t / T), T his endurance, else names another class, all alike.
//!
//! A specialist has this p in his part of the rows (a class, or a cluster), and (p + 1/K) / 2 elsewhere. Pairs are judged
//! right with the same probability; of a region he judges every row and tells the shares.
//!
//! What an annotator says about a row depends on the seed, the row and him alone (and on t, if he tires), so that strategies
//! that ask the same get the same answer.

use super::log::{Answer, Query, Question, Reply};
use super::pool::Pool;
use super::state::Fees;
use papertrial_core::{Error, Result};
use papertrial_numerics::kmeans::{KMeansOptions, kmeans};
use papertrial_numerics::sampling;
use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Seconds that an answer takes on average.
const SECONDS: f64 = 10.0;

/// What annotators know better than the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Specialists {
    /// Nothing.
    #[default]
    None,
    /// Annotator a knows class a, counted around.
    Class,
    /// Annotator a knows cluster a of as many clusters as there are annotators.
    Cluster,
}

/// A simulated annotator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Person {
    /// Probability of a right answer while fresh.
    pub accuracy: f64,
    /// Probability of refusing.
    pub refusal: f64,
    /// Probability of "don't know".
    pub unsure: f64,
    /// Answers T after which exp(-1) of the skill is left; none: he does not tire.
    pub endurance: Option<f64>,
}

/// The annotators of a pool whose truth is known.
pub struct Crowd<'a> {
    pool: &'a Pool,
    /// The class of each row.
    truth: &'a [usize],
    people: Vec<Person>,
    /// The part of the specialists to which each row belongs; empty without any.
    parts: Vec<usize>,
    /// How long each row takes relative to the mean.
    efforts: Vec<f64>,
    fees: Fees,
    seed: u64,
}

impl<'a> Crowd<'a> {
    /// A person for each annotator of the pool.
    ///
    /// # Errors
    /// Numbers that differ; a probability outside \[0, 1\]; an endurance that is not positive; clusters that fail.
    pub fn new(
        pool: &'a Pool,
        truth: &'a [usize],
        people: Vec<Person>,
        specialists: Specialists,
        fees: Fees,
        seed: u64,
    ) -> Result<Crowd<'a>> {
        if people.len() != pool.annotators.len() {
            return Err(Error::option(
                "annotator-accuracy",
                format!(
                    "is given for {} of {} annotators",
                    people.len(),
                    pool.annotators.len()
                ),
            ));
        }
        for person in &people {
            for (option, value) in [
                ("annotator-accuracy", person.accuracy),
                ("annotator-refusal", person.refusal),
                ("annotator-unsure", person.unsure),
            ] {
                if !(0.0..=1.0).contains(&value) {
                    return Err(Error::option(
                        option,
                        format!("{value} is no probability from 0 to 1"),
                    ));
                }
            }
            if let Some(t) = person.endurance
                && !(t > 0.0 && t.is_finite())
            {
                return Err(Error::option(
                    "annotator-endurance",
                    format!("{t} is not a positive number of answers"),
                ));
            }
        }
        let parts = match specialists {
            Specialists::None => Vec::new(),
            Specialists::Class => truth.to_vec(),
            Specialists::Cluster => {
                let options = KMeansOptions {
                    seed,
                    ..KMeansOptions::new(people.len().min(pool.rows()))
                };
                kmeans(pool.x.view(), None, &options)
                    .map_err(|e| Error::Failed(e.to_string()))?
                    .labels
                    .into_iter()
                    .map(|part| part as usize)
                    .collect()
            }
        };
        // Rows are longer in one direction, drawn from the seed.
        let mut rng = sampling::rng(seed, "active-learning efforts");
        let direction: Vec<f64> = (0..pool.x.ncols())
            .map(|_| StandardNormal.sample(&mut rng))
            .collect();
        let norm = direction
            .iter()
            .map(|v| v * v)
            .sum::<f64>()
            .sqrt()
            .max(1e-12);
        let mut efforts: Vec<f64> = pool
            .x
            .outer_iter()
            .map(|x| {
                let along: f64 = x.iter().zip(&direction).map(|(x, v)| x * v).sum();
                (0.5 * (along / norm).clamp(-3.0, 3.0)).exp()
            })
            .collect();
        let mean = efforts.iter().sum::<f64>() / efforts.len().max(1) as f64;
        efforts.iter_mut().for_each(|e| *e /= mean);
        Ok(Crowd {
            pool,
            truth,
            people,
            parts,
            efforts,
            fees,
            seed,
        })
    }

    /// The answer to a question of step `step` after `log`.
    pub fn answer(&self, question: &Question, step: usize, log: &[Answer]) -> Answer {
        let a = question.annotator;
        let own = log.iter().filter(|answer| answer.annotator == a);
        let (mut before, mut again) = (0, 0);
        for answer in own {
            before += usize::from(answer.reply != Reply::Refused);
            again += usize::from(answer.query == question.query);
        }
        let what = match &question.query {
            Query::Row(row) => format!("row {row}"),
            Query::Pair(x, y) => format!("pair {} {}", x.min(y), x.max(y)),
            Query::Region(bounds) => format!("region {bounds:?}"),
        };
        let mut rng = sampling::rng(
            self.seed,
            &format!("active-learning answer {a} {again} {what}"),
        );
        let person = &self.people[a];
        let (refuses, doubts): (f64, f64) = (rng.random(), rng.random());
        let reply = if refuses < person.refusal {
            Reply::Refused
        } else if doubts < person.unsure {
            Reply::Unsure
        } else {
            self.reply(&question.query, a, before, &mut rng)
        };
        let effort = match &question.query {
            Query::Region(_) => 1.0,
            query => query
                .rows()
                .map(|row| self.efforts[row])
                .fold(0.0, f64::max),
        };
        Answer {
            step,
            query: question.query.clone(),
            annotator: a,
            fee: match (&reply, self.fees) {
                (Reply::Refused, _) => 0.0,
                (_, Fees::Known) => question.fee,
                (_, Fees::Predicted) => self.pool.annotators[a].fee * effort,
            },
            seconds: Some(SECONDS * effort),
            reply,
        }
    }

    fn reply(&self, query: &Query, a: usize, before: usize, rng: &mut impl Rng) -> Reply {
        match query {
            Query::Row(row) => Reply::Class {
                class: self.class(*row, a, before, rng),
                confidence: 1.0,
            },
            Query::Pair(x, y) => {
                let same = self.truth[*x] == self.truth[*y];
                let right = rng.random::<f64>() < self.skill(*x, a, before);
                Reply::Same(same == right)
            }
            Query::Region(bounds) => {
                let rows = Query::matching(bounds, self.pool);
                let mut shares = vec![0.0; self.pool.classes.len()];
                for &row in &rows {
                    shares[self.class(row, a, before, rng)] += 1.0 / rows.len() as f64;
                }
                if rows.is_empty() {
                    return Reply::Unsure;
                }
                Reply::Shares(shares)
            }
        }
    }

    /// Probability that annotator `a` is right about a row after so many answers.
    pub fn skill(&self, row: usize, a: usize, before: usize) -> f64 {
        let person = &self.people[a];
        let tired = match person.endurance {
            Some(t) => 0.5 + (person.accuracy - 0.5) * (-(before as f64) / t).exp(),
            None => person.accuracy,
        };
        match self.parts.get(row) {
            Some(&part) if !self.knows(a, part) => {
                0.5 * (tired + 1.0 / self.pool.classes.len() as f64)
            }
            _ => tired,
        }
    }

    /// Whether a part is that of annotator `a`; both are counted around, so that every part is somebody's.
    fn knows(&self, a: usize, part: usize) -> bool {
        let parts = self.pool.classes.len();
        part == a || part % self.people.len() == a || part == a % parts
    }

    fn class(&self, row: usize, a: usize, before: usize, rng: &mut impl Rng) -> usize {
        let k = self.pool.classes.len();
        let (right, other): (f64, usize) = (rng.random(), rng.random_range(1..k));
        if right < self.skill(row, a, before) {
            self.truth[row]
        } else {
            (self.truth[row] + other) % k
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::Bound;
    use super::super::pool::tests::halves;
    use super::*;

    const HONEST: Person = Person {
        accuracy: 0.8,
        refusal: 0.0,
        unsure: 0.0,
        endurance: None,
    };

    fn about(query: Query, annotator: usize) -> Question {
        Question {
            query,
            annotator,
            score: 0.0,
            fee: 1.0,
        }
    }

    fn share(crowd: &Crowd, a: usize, holds: impl Fn(&Reply, usize) -> bool) -> f64 {
        let n = crowd.pool.rows();
        let hits = (0..n)
            .filter(|&row| holds(&crowd.answer(&about(Query::Row(row), a), 1, &[]).reply, row))
            .count();
        hits as f64 / n as f64
    }

    #[test]
    fn rates_are_as_asked_and_answers_do_not_depend_on_the_order() {
        let (pool, truth) = halves(2000, &[1.0; 3], 0);
        let people = vec![
            HONEST,
            Person {
                refusal: 0.3,
                ..HONEST
            },
            Person {
                unsure: 0.4,
                accuracy: 0.1,
                ..HONEST
            },
        ];
        let crowd = Crowd::new(&pool, &truth, people, Specialists::None, Fees::Known, 0).unwrap();
        let right = |reply: &Reply, row: usize| matches!(reply, Reply::Class { class, .. } if *class == truth[row]);
        assert!((share(&crowd, 0, right) - 0.8).abs() < 0.03);
        assert!((share(&crowd, 1, |r, _| *r == Reply::Refused) - 0.3).abs() < 0.04);
        assert!((share(&crowd, 2, |r, _| *r == Reply::Unsure) - 0.4).abs() < 0.04);
        assert!((share(&crowd, 2, right) - 0.06).abs() < 0.02);
        let once = crowd.answer(&about(Query::Row(7), 0), 1, &[]);
        let later = crowd.answer(
            &about(Query::Row(7), 0),
            1,
            &[crowd.answer(&about(Query::Row(3), 0), 1, &[])],
        );
        assert_eq!(once, later);
        let refusal = (0..2000)
            .map(|row| crowd.answer(&about(Query::Row(row), 1), 1, &[]))
            .find(|a| a.reply == Reply::Refused)
            .unwrap();
        assert_eq!(refusal.fee, 0.0);
    }

    #[test]
    fn the_tired_fall_to_chance_and_specialists_know_their_part() {
        let (pool, truth) = halves(50, &[1.0; 2], 0);
        let tired = Person {
            endurance: Some(10.0),
            ..HONEST
        };
        let people = vec![tired, HONEST];
        let crowd = Crowd::new(
            &pool,
            &truth,
            people.clone(),
            Specialists::None,
            Fees::Known,
            0,
        )
        .unwrap();
        assert_eq!(crowd.skill(0, 0, 0), 0.8);
        assert!((crowd.skill(0, 0, 10) - (0.5 + 0.3 * (-1f64).exp())).abs() < 1e-12);
        let crowd = Crowd::new(&pool, &truth, people, Specialists::Class, Fees::Known, 0).unwrap();
        assert_eq!((crowd.skill(1, 1, 0), crowd.skill(0, 1, 0)), (0.8, 0.65));
    }

    #[test]
    fn pairs_and_regions_are_answered() {
        let (pool, truth) = halves(200, &[1.0], 0);
        let perfect = Person {
            accuracy: 1.0,
            ..HONEST
        };
        let crowd = Crowd::new(
            &pool,
            &truth,
            vec![perfect],
            Specialists::None,
            Fees::Predicted,
            0,
        )
        .unwrap();
        let pair = crowd.answer(&about(Query::Pair(0, 3), 0), 1, &[]);
        assert_eq!(pair.reply, Reply::Same(false));
        let left = Bound {
            column: 0,
            low: -10.0,
            high: 0.0,
        };
        let region = crowd.answer(&about(Query::Region(vec![left]), 0), 1, &[]);
        let Reply::Shares(shares) = region.reply else {
            panic!("shares were expected");
        };
        assert!((shares[0] - 1.0).abs() < 1e-9);
        // Where fees are not known, what is paid follows the time.
        let answers: Vec<Answer> = (0..200)
            .map(|row| crowd.answer(&about(Query::Row(row), 0), 1, &[]))
            .collect();
        let mean = answers.iter().map(|a| a.fee).sum::<f64>() / 200.0;
        assert!((mean - 1.0).abs() < 1e-9);
        assert!(
            answers
                .iter()
                .all(|a| (a.seconds.unwrap() - 10.0 * a.fee).abs() < 1e-9)
        );
    }

    #[test]
    fn impossible_people_are_refused() {
        let (pool, truth) = halves(5, &[1.0], 0);
        let told = |people: Vec<Person>| {
            Crowd::new(&pool, &truth, people, Specialists::None, Fees::Known, 0)
                .err()
                .unwrap()
                .to_string()
        };
        assert!(told(vec![]).contains("0 of 1"));
        let wrong = |change: &dyn Fn(&mut Person)| {
            let mut person = HONEST;
            change(&mut person);
            told(vec![person])
        };
        assert!(wrong(&|p| p.accuracy = 1.2).contains("annotator-accuracy"));
        assert!(wrong(&|p| p.refusal = f64::NAN).contains("annotator-refusal"));
        assert!(wrong(&|p| p.endurance = Some(0.0)).contains("annotator-endurance"));
    }
}
