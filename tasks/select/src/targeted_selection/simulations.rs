//! Data for tries of this task.

use arrow::array::{ArrayRef, FixedSizeListBuilder, Float32Builder, StringArray};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::Roles;
use papertrial_core::options::{self, Settings};
use papertrial_core::task::Simulation;
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_distr::{Distribution, StandardNormal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The simulations of this task.
pub static SIMULATIONS: [Simulation; 1] = [Simulation {
    name: "topic-dialogues",
    about: "made-up questions and answers on several topics, each topic with words of its own among common ones, from three sources, with embeddings",
    options: options::describe::<TopicDialogues>,
    roles: || Roles {
        label: Some("topic".into()),
        group: Some("source".into()),
        ..Roles::default()
    },
    generate: topic_dialogues,
}];

/// Options of the simulation.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TopicDialogues {
    /// Rows.
    #[schemars(range(min = 1))]
    pub rows: usize,
    /// Topics; the first is the most frequent.
    #[schemars(range(min = 1, max = 100))]
    pub topics: usize,
    /// Words of an answer.
    #[schemars(range(min = 1))]
    pub words: usize,
    /// Share of words that belong to the topic.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub own: f64,
}

impl Default for TopicDialogues {
    fn default() -> Self {
        TopicDialogues {
            rows: 400,
            topics: 6,
            words: 10,
            own: 0.4,
        }
    }
}

/// Words of one topic, and words that all share.
const WORDS: usize = 40;
/// Numbers of an embedding.
const WIDTH: usize = 16;

fn topic_dialogues(seed: u64, settings: &Settings) -> Result<RecordBatch> {
    let o: TopicDialogues = options::build("topic-dialogues", settings)?;
    let mut rng = sampling::rng(seed, "topic dialogues");
    let word = |topic: usize, i: usize| format!("w{topic}x{i}");
    let centres: Vec<Vec<f32>> = (0..o.topics)
        .map(|_| {
            (0..WIDTH)
                .map(|_| StandardNormal.sample(&mut rng))
                .collect()
        })
        .collect();
    let mut columns: [Vec<String>; 4] = Default::default();
    let mut vectors = FixedSizeListBuilder::new(Float32Builder::new(), WIDTH as i32);
    for _ in 0..o.rows {
        // Earlier topics are more frequent.
        let topic = rng
            .random_range(0..o.topics)
            .min(rng.random_range(0..o.topics));
        let mut say = |n: usize| -> String {
            let mut said = String::new();
            // A word is often followed by its neighbour, so that order tells something.
            let mut last = 0;
            for _ in 0..n {
                last = if rng.random_bool(0.5) {
                    (last + 1) % WORDS
                } else {
                    rng.random_range(0..WORDS)
                };
                let of = if rng.random_bool(o.own) { topic + 1 } else { 0 };
                if !said.is_empty() {
                    said.push(' ');
                }
                said.push_str(&word(of, last));
            }
            said
        };
        let row = [
            say(o.words.div_ceil(2)),
            say(o.words),
            format!("topic {topic}"),
        ];
        for (column, cell) in columns.iter_mut().zip(row) {
            column.push(cell);
        }
        let source = ["forum", "books", "forum", "manuals"].choose(&mut rng);
        columns[3].push(source.copied().unwrap_or_default().to_owned());
        for centre in &centres[topic] {
            let noise: f32 = StandardNormal.sample(&mut rng);
            vectors.values().append_value(centre + noise);
        }
        vectors.append(true);
    }
    let [prompt, response, topic, source] =
        columns.map(|c| Arc::new(StringArray::from(c)) as ArrayRef);
    RecordBatch::try_from_iter([
        ("prompt", prompt),
        ("response", response),
        ("topic", topic),
        ("source", source),
        ("vector", Arc::new(vectors.finish()) as ArrayRef),
    ])
    .map_err(|e| Error::Failed(format!("the simulation does not make a table: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_and_the_first_topic_is_the_most_frequent() {
        let made = |seed| topic_dialogues(seed, &Settings::new()).unwrap();
        let batch = made(3);
        assert_eq!((batch.num_rows(), batch.num_columns()), (400, 5));
        assert_eq!(batch, made(3));
        assert_ne!(batch, made(4));
        let topics = batch
            .column(2)
            .as_any()
            .downcast_ref::<StringArray>()
            .unwrap();
        let count = |t: &str| topics.iter().filter(|x| *x == Some(t)).count();
        assert!(count("topic 0") > count("topic 5") && count("topic 5") > 0);
    }
}
