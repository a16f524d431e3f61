//! Task `targeted-selection`: from a large pool, choose the rows that resemble a few query rows.
//!
//! Ivison, Zhang, Brahman, Koh and Dasigi, *Large-Scale Data Selection for Instruction Tuning*, 2025, arXiv 2503.01807
//! (`rds_plus.rs`), its rivals there, and what a user would try first. Methods rank the pool for queries (`problem.rs`);
//! the queries, or several tasks, take turns in picking (`turns.rs`), whatever the method. Here are the list of methods, the
//! metrics and the options of the task.
//!
//! Embeddings of any model, as a library:
//!
//! ```
//! use ndarray::array;
//! use papertrial_select::targeted_selection::{Aggregate, Picking, RdsIndex, select_round_robin};
//!
//! let pool = array![[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]];
//! let index = RdsIndex::build([Ok(pool)]).unwrap();
//! let queries = array![[1.0, 0.05], [0.1, 2.0]];
//! let scores = index.query(queries.view()).unwrap();
//! let picking = Picking { rows: 2, aggregate: Aggregate::RoundRobin, retry: false, allowed: None, cap: None };
//! let picks = select_round_robin(&scores, &[0, 0], &picking).unwrap();
//! assert_eq!((picks[0].row, picks[1].row), (0, 2));
//! ```

mod chance;
mod choice;
mod duplicates;
mod embeddings;
mod index;
mod less;
mod lm;
mod perplexity;
mod problem;
mod rds_plus;
mod rows;
mod scores;
mod sentences;
pub(crate) mod simulations;
mod sources;
mod tokens;
mod trial;
mod turns;
mod vectors;
mod words;

pub use chance::{Balanced, Uniform};
pub use duplicates::Duplicates;
pub use embeddings::Embeddings;
pub use index::{Cosines, RdsIndex, TableCosines};
pub use less::Less;
pub use lm::{Lm, Loss, Plan};
pub use perplexity::{Ifd, MiddlePerplexity, TopPerplexity};
pub use problem::{Fitted, Pool, Queries, Ranking, Reading, Reads, Selector, States, Vectors};
pub use rds_plus::{LastTokenStates, MeanStates, RdsPlus};
pub use rows::{Message, Part, Row, Speaker};
pub use scores::{Aggregate, Block, Scores, See};
pub use sentences::Sentences;
pub use tokens::{Encoded, Tokens, Vocabulary};
pub use turns::{Pick, Picking, select_in_order, select_round_robin};
pub use words::{Bm25, TfIdf};

use papertrial_core::task::{Applied, Context, Entry, Job, Measurement, MetricInfo, Task};
use papertrial_core::{Error, Result, methods};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The methods. A new one is a file of its own, a `mod` line above, and a name here.
const METHODS: &[Entry<dyn Selector>] = methods![
    dyn Selector;
    RdsPlus,
    LastTokenStates,
    MeanStates,
    TopPerplexity,
    MiddlePerplexity,
    Ifd,
    Less,
    TfIdf,
    Bm25,
    Embeddings,
    Sentences,
    Uniform,
    Balanced,
];

const METRICS: &[MetricInfo] = &[
    MetricInfo::new(
        "precision",
        Some(true),
        "share of the picked rows that are of the target, mean over targets, 0 to 1",
    ),
    MetricInfo::new(
        "recall",
        Some(true),
        "share of the pool's rows of the target that were picked, mean over targets, 0 to 1",
    ),
    MetricInfo::new(
        "lift",
        Some(true),
        "precision over the target's share of the pool, mean over targets: 1 is chance",
    ),
    MetricInfo::new(
        "perplexity",
        Some(false),
        "of a fresh small language model, trained on the picked rows, on rows of the target that nothing else saw (option perplexity), geometric mean over targets",
    ),
    MetricInfo::new(
        "operations",
        Some(false),
        "operations of the models that the selection trained and ran, in thousands of millions",
    ),
    MetricInfo::new("seconds", Some(false), "seconds of the selection").timed(),
];

/// How the rows of a table are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TableLayout {
    /// One row each.
    Rows,
    /// Lines of a play: a speaker's name that ends in a colon, then the speech; each speech is a row, its speaker the
    /// label.
    Speeches,
}

/// Options of the task: the rows wanted, how they are picked and read, the language model, and trials.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskOptions {
    /// Rows to pick.
    #[schemars(range(min = 1))]
    pub rows: usize,
    /// How scores for several queries make one choice. Several tasks take turns in any case, each by the best score of
    /// its queries, or their mean.
    pub aggregate: Aggregate,
    /// Whether a query whose best row is taken tries its next one; if not, its turn is lost.
    pub retry: bool,
    /// Most rows of one source (--group, or the column dataset or source).
    #[schemars(range(min = 1))]
    pub per_source: Option<usize>,
    /// Which rows of the pool are duplicates, of which only the first may be picked.
    pub duplicates: Duplicates,
    /// Whether rows with the same words as a query may not be picked; if they may, they are told of.
    pub drop_queries: bool,
    /// Part of a row that is read.
    pub part: Part,
    /// How the rows of the table are laid out.
    pub layout: TableLayout,
    /// Column of lists of messages; found by its name, messages, if absent.
    pub messages: Option<String>,
    /// Column of prompts; found by its name if absent.
    pub prompt: Option<String>,
    /// Column of responses; found by its name if absent.
    pub response: Option<String>,
    /// Column of embeddings; the only one of lists of numbers if absent.
    pub vectors: Option<String>,
    /// Column of the queries with the task of each; task, if there is such a column, if absent.
    pub task: Option<String>,
    /// Whether to write the embeddings of pool and queries beside the output too, in half precision, as Arrow files in
    /// the order of the pool and of the queries' turns; the method embeddings chooses anew from them.
    pub keep_states: bool,
    /// What a token of the language model is.
    pub tokens: Tokens,
    /// Most tokens in its vocabulary; bytes need no limit.
    #[schemars(range(min = 16))]
    pub vocabulary: usize,
    /// Tokens after which a row is cut.
    #[schemars(range(min = 2))]
    pub length: usize,
    /// Numbers of a token's state.
    #[schemars(range(min = 1))]
    pub width: usize,
    /// Blocks of the language model.
    #[schemars(range(min = 1))]
    pub layers: usize,
    /// Heads of attention, which share the width evenly.
    #[schemars(range(min = 1))]
    pub heads: usize,
    /// Steps of its training on the pool.
    #[schemars(range(min = 1))]
    pub steps: usize,
    /// Rows of a step.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Learning rate of its training at its highest.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Trials only: query rows of each target, drawn from its rows and taken out of the pool.
    #[schemars(range(min = 1))]
    pub queries: usize,
    /// Trials only: targets, the most frequent labels, each a selection of its own.
    #[schemars(range(min = 1))]
    pub targets: usize,
    /// Trials only: share of the other rows that are the pool; a smaller pool is part of a larger one.
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1.0))]
    pub pool_share: f64,
    /// Trials only: whether to train a fresh model on the picked rows and measure its perplexity on a quarter of the
    /// target's rows, which are then taken out of the pool.
    pub perplexity: bool,
    /// Trials only: steps of that training.
    #[schemars(range(min = 1))]
    pub fresh_steps: usize,
}

impl Default for TaskOptions {
    fn default() -> Self {
        TaskOptions {
            rows: 100,
            aggregate: Aggregate::RoundRobin,
            retry: false,
            per_source: None,
            duplicates: Duplicates::Keep,
            drop_queries: false,
            part: Part::All,
            layout: TableLayout::Rows,
            messages: None,
            prompt: None,
            response: None,
            vectors: None,
            task: None,
            keep_states: false,
            tokens: Tokens::Words,
            vocabulary: 4096,
            length: 256,
            width: 128,
            layers: 2,
            heads: 4,
            steps: 300,
            batch: 32,
            learning_rate: 2e-3,
            queries: 20,
            targets: 3,
            pool_share: 1.0,
            perplexity: false,
            fresh_steps: 60,
        }
    }
}

impl TaskOptions {
    /// How the language model is made.
    fn reading(&self, seed: u64) -> Reading {
        Reading {
            tokens: self.tokens,
            vocabulary: self.vocabulary,
            longest: self.length,
            plan: Plan {
                width: self.width,
                layers: self.layers,
                heads: self.heads,
                steps: self.steps,
                batch: self.batch,
                learning_rate: self.learning_rate,
                seed,
            },
        }
    }
}

/// The task.
pub struct TargetedSelection;

const NAME: &str = "targeted-selection";

impl Task for TargetedSelection {
    papertrial_core::states! {
        NAME,
        "choose rows of a large pool that resemble a few query rows",
        METHODS,
        METRICS,
        TaskOptions,
    }

    fn inputs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            (
                "query",
                "a few rows of what is wanted; a column task tells several wishes apart",
            ),
            (
                "vectors",
                "embeddings of the pool's rows in their order, where the pool has no column of them",
            ),
            (
                "query-vectors",
                "embeddings of the query rows in their order, likewise",
            ),
        ]
    }

    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let (selector, options) = prepare(job)?;
        trial::measure(&*selector, &options, job, context)
    }

    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied> {
        let (selector, options) = prepare(job)?;
        choice::apply(&*selector, &options, job, out, context)
    }
}

/// The method of a job and what is asked of the task.
fn prepare(job: &Job) -> Result<(Box<dyn Selector>, TaskOptions)> {
    let (method, options): (_, TaskOptions) = Entry::prepare(METHODS, job)?;
    if !options.width.is_multiple_of(options.heads) {
        return Err(Error::option(
            "heads",
            format!(
                "{} heads do not share width {} evenly",
                options.heads, options.width
            ),
        ));
    }
    Ok((method, options))
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_core::data::{ReadOptions, Roles, Table};
    use papertrial_core::options::Settings;
    use papertrial_core::{plan, task::Input};
    use serde_json::{Value, json};
    use simulations::SIMULATIONS;
    use std::path::PathBuf;

    fn settings(value: Value) -> Settings {
        value.as_object().cloned().unwrap_or_default()
    }

    /// A language model small enough for a test.
    fn small(more: Value) -> Settings {
        let mut all = settings(json!({
            "rows": 30, "queries": 8, "targets": 2, "width": 16, "heads": 2, "layers": 1, "steps": 60, "batch": 16,
            "learning-rate": 0.01, "vocabulary": 300, "fresh-steps": 40,
        }));
        all.extend(settings(more));
        all
    }

    fn job(input: Input, roles: Roles, method: &str, options: Settings, seed: u64) -> Result<Job> {
        let source = plan::Source {
            input,
            roles,
            others: Default::default(),
        };
        let method = plan::method(&TargetedSelection, method)?;
        plan::check_shared(&TargetedSelection, std::slice::from_ref(&method), &options)?;
        plan::job(
            &TargetedSelection,
            &method,
            &options,
            &Settings::new(),
            &source,
            seed,
        )
    }

    fn measure(method: &str, options: Value, seed: u64) -> Result<Measurement> {
        let input = Input::Simulation {
            name: "topic-dialogues".into(),
            options: Settings::new(),
        };
        let job = job(
            input,
            (SIMULATIONS[0].roles)(),
            method,
            small(options),
            seed,
        )?;
        let context = Context {
            simulations: &SIMULATIONS,
            ..Context::with_seed(seed)
        };
        TargetedSelection.measure(&job, &context)
    }

    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Files {
            Files(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, content: &str) -> Input {
            std::fs::write(self.path(name), content).unwrap();
            plan::file(&self.path(name), &ReadOptions::default()).unwrap()
        }
    }

    fn apply(job: &Job, out: &Path) -> Result<(Applied, Vec<Value>)> {
        let applied = TargetedSelection.apply(job, out, &Context::with_seed(job.seed))?;
        let text = std::fs::read_to_string(out).unwrap();
        let rows = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        Ok((applied, rows))
    }

    fn picked(rows: &[Value], column: &str) -> Vec<String> {
        rows.iter()
            .map(|r| match &r[column] {
                Value::String(s) => s.clone(),
                other => other.to_string(),
            })
            .collect()
    }

    #[test]
    fn every_method_measures_and_words_and_embeddings_beat_chance() {
        for (method, least) in [
            ("rds-plus", 0.0),
            ("last-token-states", 0.0),
            ("mean-states", 0.0),
            ("tf-idf", 2.0),
            ("bm25", 2.0),
            ("embeddings", 2.0),
            ("less", 0.0),
            ("top-perplexity", 0.0),
            ("middle-perplexity", 0.0),
            ("uniform", 0.0),
            ("balanced", 0.0),
        ] {
            let m = measure(method, json!({}), 1).unwrap();
            assert!(m.metrics["lift"] > least, "{method}: {:?}", m.metrics);
            let (p, r) = (m.metrics["precision"], m.metrics["recall"]);
            assert!(
                (0.0..=1.0).contains(&p) && (0.0..=1.0).contains(&r),
                "{method}"
            );
            assert_eq!(
                m.metrics["operations"] > 0.0,
                !["tf-idf", "bm25", "embeddings", "uniform", "balanced"].contains(&method)
            );
            let last = m.curves[0].points.last().unwrap();
            assert!(last.0 == 30.0 && (last.1 - p).abs() < 1e-12, "{method}");
            assert!(!m.metrics.contains_key("perplexity"));
        }
        let mut first = measure("rds-plus", json!({}), 1).unwrap();
        let again = measure("rds-plus", json!({}), 1).unwrap();
        first
            .metrics
            .insert("seconds".into(), again.metrics["seconds"]);
        assert_eq!(first, again);
    }

    #[test]
    fn difficulty_ranks_pairs_and_a_smaller_pool_is_part_of_a_larger_one() {
        let operations =
            |method| measure(method, json!({"rows": 5}), 1).unwrap().metrics["operations"];
        // Two passes over the pool, not one.
        assert!(operations("ifd") > operations("top-perplexity"));
        let whole = measure("tf-idf", json!({}), 1).unwrap();
        let part = measure("tf-idf", json!({"pool-share": 0.5}), 1).unwrap();
        assert!(
            part.notes.iter().any(|n| n.contains("pool of 192 rows")),
            "{:?}",
            part.notes
        );
        assert!(
            whole.notes.iter().any(|n| n.contains("pool of 384 rows")),
            "{:?}",
            whole.notes
        );
        assert!(whole.metrics["precision"] >= part.metrics["precision"]);
    }

    #[test]
    fn what_is_trained_on_rows_like_the_target_predicts_it_better() {
        let perplexity = |method| {
            let m = measure(
                method,
                json!({"perplexity": true, "targets": 1, "fresh-steps": 80}),
                2,
            );
            m.unwrap().metrics["perplexity"]
        };
        let (near, chance) = (perplexity("tf-idf"), perplexity("uniform"));
        assert!(near > 1.0 && near < chance, "{near} {chance}");
    }

    fn pool() -> String {
        let line = |user: &str, answer: &str, source: &str| {
            let messages = json!([{"role": "user", "content": user}, {"role": "assistant", "content": answer}]);
            format!(
                "{}\n",
                json!({"messages": messages, "dataset": source, "score": 7})
            )
        };
        let mut text = String::new();
        for i in 0..12 {
            text += &line(
                &format!("what is {i} plus one"),
                "a sum of numbers",
                "maths",
            );
            text += &line(&format!("name tree {i}"), "oak and pine leaves", "garden");
        }
        text
    }

    fn files(queries: &str) -> (Files, Job) {
        let files = Files::new();
        let data = files.write("pool.jsonl", &pool());
        let query = files.write("query.jsonl", queries);
        let mut job = job(
            data,
            Roles::default(),
            "tf-idf",
            small(json!({"rows": 6})),
            0,
        )
        .unwrap();
        job.inputs.insert("query".into(), query);
        (files, job)
    }

    fn set(job: &mut Job, name: &str, value: Value) {
        job.task_options.insert(name.into(), value);
    }

    #[test]
    fn chats_are_chosen_with_rank_score_and_who_took_them() {
        let (files, mut job) = files(
            "{\"id\": 2, \"messages\": [{\"role\": \"user\", \"content\": \"plus one\"}]}\n{\"id\": 10, \"messages\": [{\"role\": \"user\", \"content\": \"Name tree 3\"}, {\"role\": \"assistant\", \"content\": \"oak and pine leaves\"}]}\n",
        );
        let out = files.path("out.jsonl");
        let (applied, rows) = apply(&job, &out).unwrap();
        assert_eq!(picked(&rows, "rank"), ["1", "2", "3", "4", "5", "6"]);
        // Query 2 before query 10, in turn; the pool's own column score keeps its name.
        assert_eq!(picked(&rows, "query"), ["2", "10", "2", "10", "2", "10"]);
        assert_eq!(
            picked(&rows, "dataset")[..4],
            ["maths", "garden", "maths", "garden"]
        );
        assert_eq!(
            (rows[0]["score"].as_i64(), rows[0]["task"].is_null()),
            (Some(7), true)
        );
        assert!((rows[1]["selection-score"].as_f64().unwrap() - 1.0).abs() < 1e-6);
        assert_eq!(rows[1]["messages"][0]["content"], "name tree 3");
        // The second query stands in the pool: told, and left out if wished.
        assert!(
            applied
                .notes
                .iter()
                .any(|n| n.contains("query 10 in row 8")),
            "{:?}",
            applied.notes
        );
        set(&mut job, "drop-queries", json!(true));
        let (_, rows) = apply(&job, &out).unwrap();
        assert_ne!(rows[1]["messages"][0]["content"], "name tree 3");
        // No more than one row of a source: there are two sources.
        set(&mut job, "per-source", json!(1));
        assert!(
            apply(&job, &out)
                .unwrap_err()
                .to_string()
                .contains("2 are left")
        );
        set(&mut job, "rows", json!(2));
        let (_, rows) = apply(&job, &out).unwrap();
        assert_eq!(picked(&rows, "dataset"), ["maths", "garden"]);
    }

    #[test]
    fn tasks_take_turns_and_duplicates_are_left_out() {
        let (files, mut job) = files(
            "{\"task\": \"trees\", \"messages\": [{\"role\": \"user\", \"content\": \"tree\"}]}\n{\"task\": \"sums\", \"messages\": [{\"role\": \"user\", \"content\": \"plus\"}]}\n",
        );
        let out = files.path("out.jsonl");
        let (applied, rows) = apply(&job, &out).unwrap();
        assert_eq!(
            picked(&rows, "task")[..4],
            ["sums", "trees", "sums", "trees"]
        );
        assert_eq!(picked(&rows, "query")[0], "2");
        assert_eq!(applied.summary[3], ("tasks".into(), "2".into()));
        // Answers alone are the same in all rows of a kind.
        set(&mut job, "part", json!("response"));
        set(&mut job, "duplicates", json!("exact"));
        set(&mut job, "rows", json!(2));
        let (applied, rows) = apply(&job, &out).unwrap();
        assert_eq!(picked(&rows, "dataset"), ["maths", "garden"]);
        assert!(
            applied.notes.iter().any(|n| n.contains("22 rows")),
            "{:?}",
            applied.notes
        );
        set(&mut job, "rows", json!(3));
        assert!(apply(&job, &out).is_err());
    }

    #[test]
    fn the_language_model_chooses_for_a_user_and_tells_what_it_cut() {
        let (files, mut job) = files(
            "{\"messages\": [{\"role\": \"user\", \"content\": \"what is 3 plus one\"}, {\"role\": \"assistant\", \"content\": \"a sum of numbers\"}]}\n",
        );
        let out = files.path("out.jsonl");
        job.method = "rds-plus".into();
        set(&mut job, "length", json!(7));
        let (applied, rows) = apply(&job, &out).unwrap();
        assert!(
            picked(&rows, "dataset").iter().all(|d| d == "maths"),
            "{rows:?}"
        );
        assert!(
            applied
                .notes
                .iter()
                .any(|n| n.contains("12 of them before their answer")),
            "{:?}",
            applied.notes
        );
        let first = std::fs::read_to_string(&out).unwrap();
        apply(&job, &out).unwrap();
        assert_eq!(first, std::fs::read_to_string(&out).unwrap());
        // Its embeddings choose again.
        set(&mut job, "keep-states", json!(true));
        let (applied, rows) = apply(&job, &out).unwrap();
        assert_eq!(applied.files.len(), 3);
        let mut again = job.clone();
        again.method = "embeddings".into();
        for (input, name) in [("vectors", "states"), ("query-vectors", "query-states")] {
            let path = files.path(&format!("out.{name}.arrow"));
            let file = plan::file(&path, &ReadOptions::default()).unwrap();
            again.inputs.insert(input.into(), file);
        }
        let told = apply(&again, &files.path("again.jsonl"))
            .unwrap_err()
            .to_string();
        assert!(told.contains("embeddings makes no embeddings"), "{told}");
        set(&mut again, "keep-states", json!(false));
        let (_, same) = apply(&again, &files.path("again.jsonl")).unwrap();
        // They are kept in half precision, so that rows with all but the same score may change places.
        for (kept, first) in same.iter().zip(&rows) {
            let score = |row: &Value| row["selection-score"].as_f64().unwrap();
            assert!((score(kept) - score(first)).abs() < 2e-3, "{kept} {first}");
        }
        assert!(picked(&same, "dataset").iter().all(|d| d == "maths"));
        // Without labels, the perplexity of queries held out.
        set(&mut job, "perplexity", json!(true));
        job.inputs.insert("query".into(), files.write("two.csv", "prompt,response\nwhat is 5 plus one,a sum of numbers\nwhat is 9 plus one,a sum of numbers\n"));
        let m = TargetedSelection
            .measure(&job, &Context::with_seed(0))
            .unwrap();
        assert!(m.metrics["perplexity"] > 1.0 && !m.metrics.contains_key("precision"));
    }

    #[test]
    fn embeddings_come_from_the_table_or_from_tables_of_their_own() {
        let files = Files::new();
        let list = |rows: &[[f64; 2]]| -> String {
            let line = |(i, v): (usize, &[f64; 2])| {
                format!("{}\n", json!({"name": format!("r{i}"), "vector": v}))
            };
            rows.iter().enumerate().map(line).collect()
        };
        let data = files.write(
            "pool.jsonl",
            &list(&[[1.0, 0.0], [0.0, 2.0], [0.5, 0.5], [-1.0, 0.0]]),
        );
        let query = files.write("query.jsonl", &list(&[[0.1, 1.0]]));
        let mut job = job(
            data,
            Roles::default(),
            "embeddings",
            small(json!({"rows": 2})),
            0,
        )
        .unwrap();
        job.inputs.insert("query".into(), query.clone());
        let out = files.path("out.jsonl");
        let (_, rows) = apply(&job, &out).unwrap();
        assert_eq!(picked(&rows, "name"), ["r1", "r2"]);
        assert!(rows[0].get("vector").is_none());
        // Beside a pool of names alone.
        let names = files.write("names.csv", "name,n\na,1\nb,2\nc,3\nd,4\n");
        let vectors = job.inputs.insert("data".into(), names).unwrap();
        job.inputs.insert("vectors".into(), vectors);
        job.inputs
            .insert("query".into(), files.write("q.csv", "id,n\nq,1\n"));
        job.inputs.insert("query-vectors".into(), query);
        let (_, rows) = apply(&job, &out).unwrap();
        assert_eq!(
            (picked(&rows, "name"), picked(&rows, "query")),
            (
                vec!["b".into(), "c".into()],
                vec!["q".into(), "q".to_owned()]
            )
        );
        // Too few of them, and of another width.
        let short = files.write("short.jsonl", &list(&[[1.0, 0.0]]));
        let whole = job.inputs.insert("vectors".into(), short).unwrap();
        assert!(
            apply(&job, &out)
                .unwrap_err()
                .to_string()
                .contains("1 rows of embeddings for 4")
        );
        job.inputs.insert("vectors".into(), whole);
        job.inputs.insert(
            "query-vectors".into(),
            files.write("wide.jsonl", "{\"vector\": [1.0, 2.0, 3.0]}\n"),
        );
        assert!(
            apply(&job, &out)
                .unwrap_err()
                .to_string()
                .contains("of 2 numbers where")
        );
    }

    #[test]
    fn a_play_is_tried_and_chosen_from() {
        let files = Files::new();
        let speech = |name: &str, i: usize| format!("{name}:\nword{} of {name} and more.\n", i % 3);
        let play: String = (0..40)
            .map(|i| speech(if i % 2 == 0 { "ROMEO" } else { "First Citizen" }, i))
            .collect();
        let data = files.write("play.csv", &format!("line\n{play}"));
        let options = small(json!({"layout": "speeches", "targets": 1, "queries": 3, "rows": 10}));
        let mut job = job(data, Roles::default(), "bm25", options, 0).unwrap();
        let m = TargetedSelection
            .measure(&job, &Context::with_seed(0))
            .unwrap();
        assert!(m.metrics["precision"] > 0.9, "{:?}", m.metrics);
        job.inputs.insert(
            "query".into(),
            files.write("query.csv", "text,n\nof Romeo,1\n"),
        );
        let (_, rows) = apply(&job, &files.path("out.jsonl")).unwrap();
        assert!(picked(&rows, "speaker").iter().all(|s| s == "ROMEO"));
    }

    #[test]
    fn bad_input_is_told_and_leaves_no_output() {
        let (files, good) =
            files("{\"messages\": [{\"role\": \"user\", \"content\": \"tree\"}]}\n");
        let out = files.path("out.jsonl");
        let told = |job: &Job| {
            let e = TargetedSelection
                .apply(job, &out, &Context::with_seed(0))
                .unwrap_err();
            assert!(!out.exists());
            e.to_string()
        };
        let mut job = good.clone();
        set(&mut job, "rows", json!(25));
        assert!(told(&job).contains("25 is more than the pool's 24 rows"));
        let mut job = good.clone();
        job.inputs.remove("query");
        assert!(told(&job).contains("--query"));
        let mut job = good.clone();
        set(&mut job, "heads", json!(3));
        assert!(told(&job).contains("heads"));
        let mut job = good.clone();
        job.method = "embeddings".into();
        assert!(told(&job).contains("no column of embeddings"));
        let mut job = good.clone();
        job.method = "ifd".into();
        job.inputs.insert(
            "data".into(),
            files.write("plain.csv", "text,n\nno answer here,1\nnor here,2\n"),
        );
        set(&mut job, "rows", json!(1));
        assert!(told(&job).contains("row 1 has no answer"));
        let e = TargetedSelection
            .measure(&good, &Context::with_seed(0))
            .unwrap_err();
        assert!(e.to_string().contains("perplexity"), "{e}");
        for bad in [
            json!({"targets": 7}),
            json!({"queries": 200}),
            json!({"rows": 500}),
        ] {
            assert!(measure("tf-idf", bad.clone(), 0).is_err(), "{bad}");
        }
        assert!(Table::open(&out, &ReadOptions::default()).is_err());
    }
}
