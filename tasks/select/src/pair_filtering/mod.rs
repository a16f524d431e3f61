//! Task `pair-filtering`: keep the best share of a pool of noisy pairs, judged by the model that is trained on what is
//! kept.
//!
//! A pair is an image and a text, an embedding of each, or two texts. A filter learns from trusted pairs, from the pool
//! or from nothing, and scores every pair of the pool; the best share of the whole pool is kept. To judge it, a model of
//! two towers is trained on what was kept, seeing as many pairs as every other filter's model sees, and tells the images
//! of test pairs apart by their class' prompts. How good the filter itself is at that is told beside it, and counts for
//! nothing: that the two hardly go together is what the task is about.
//!
//! Here are the list of methods, the metrics and the options of the task; each method has a file of its own.

mod applied;
mod baselines;
mod binary;
mod crop;
mod dfn;
mod duplicates;
mod evaluate;
mod filter;
mod input;
mod keep;
mod loss;
mod net;
mod order;
mod pairs;
mod reading;
mod reconstruction;
pub(crate) mod simulation;
mod subset;
mod towers;
mod vocabulary;

pub use baselines::{CaptionLength, EmbeddingSimilarity, FullData, Uniform};
pub use binary::{BinaryFilter, PairFeatures, TowerUse};
pub use dfn::{Dfn, FixedThreshold, PoolFilter, TrainOn};
pub use evaluate::Prompts;
pub use filter::{PairFilter, Scorer, Sets, Trained};
pub use keep::{Keep, keep_above, keep_top};
pub use net::{FilterNet, Lessons};
pub use pairs::{Pairs, Shape, Side};
pub use reconstruction::ReconstructionFilter;
pub use subset::subset_file;
pub use towers::TowerKind;

use papertrial_core::methods;
use papertrial_core::options::{self};
use papertrial_core::task::{Applied, Context, Curve, Entry, Job, Measurement, MetricInfo, Task};
use papertrial_core::{Error, Result};
use papertrial_numerics::metrics::classification::roc_auc;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// The methods. A new one is a file of its own, a `mod` line above, and a line here.
const METHODS: &[Entry<dyn PairFilter>] = methods![
    dyn PairFilter;
    Dfn,
    PoolFilter,
    BinaryFilter,
    ReconstructionFilter,
    FixedThreshold,
    EmbeddingSimilarity,
    CaptionLength,
    Uniform,
    FullData,
];

const METRICS: &[MetricInfo] = &[
    MetricInfo::new(
        "accuracy",
        Some(true),
        "zero-shot accuracy on test images of the model trained on what was kept, 0 to 1",
    ),
    MetricInfo::new(
        "filter-accuracy",
        Some(true),
        "zero-shot accuracy on test images of the filter itself, where it has two towers, 0 to 1",
    ),
    MetricInfo::new(
        "kept-precision",
        Some(true),
        "share of the kept pairs that are known to be right, 0 to 1",
    ),
    MetricInfo::new(
        "kept-recall",
        Some(true),
        "share of the pairs known to be right that are kept, 0 to 1",
    ),
    MetricInfo::new(
        "score-auc",
        Some(true),
        "probability that a pair known to be right scores above one that is not, 0 to 1",
    ),
    MetricInfo::new("kept-share", None, "share of the pool that is kept, 0 to 1"),
    MetricInfo::new(
        "filter-seconds",
        Some(false),
        "wall seconds of training the filter",
    )
    .timed(),
    MetricInfo::new("pairs-per-second", Some(true), "pairs scored in a second").timed(),
];

/// Options of the task: which columns are what, how much is kept, and how the model that judges is trained.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskOptions {
    /// Pairs to keep: a share of the pool up to 1, or a number of them.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub budget: f64,
    /// Column that says whether a row belongs to the pool, the clean, test or fine-tune pairs; if it is not there, all
    /// rows are the pool.
    pub part: String,
    /// Column that says whether a pair is right, to measure agreement; never seen by a filter.
    pub matches: String,
    /// Channels, height and width of the images, such as \[1,8,8\], unless the column of a Parquet file says so itself.
    pub image_shape: Option<Vec<usize>>,
    /// Leave out rows without a usable image, text or uid, instead of stopping at the first.
    pub skip_bad: bool,
    /// Leave out pairs of the pool that are equal to an earlier one on both sides.
    pub dedup: bool,
    /// Cosine, less the mean, above which an image counts as a near duplicate of a test image and is left out; 1 for
    /// never.
    #[schemars(range(min = -1.0, max = 1.0))]
    pub near_duplicate: f64,
    /// Trials only: share of the clean pairs to test on, where no test pairs are given.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub test_share: f64,
    /// Trials only: pairs that the model sees, however many were kept.
    #[schemars(range(min = 1))]
    pub samples_seen: usize,
    /// Trials only: towers of the model.
    pub model_tower: TowerKind,
    /// Trials only: pairs of a step of the model.
    #[schemars(range(min = 2))]
    pub model_batch: usize,
    /// Trials only: learning rate of the model at the start; if absent 2e-3, and 5e-4 for small towers.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub model_rate: Option<f64>,
    /// Output only: most pairs of the pool, drawn at random, from which a filter that learns from the pool may learn; all
    /// pairs are scored.
    #[schemars(range(min = 1))]
    pub pool_sample: usize,
    /// Output only: write the scores of all pairs, with a column that says which are kept.
    pub all_scores: bool,
    /// Output only: write the kept uids in DataComp's subset format as well; they must be 32 hexadecimal digits.
    pub datacomp_subset: bool,
}

impl Default for TaskOptions {
    fn default() -> Self {
        let lessons = Lessons::default();
        TaskOptions {
            budget: 0.15,
            part: "part".into(),
            matches: "match".into(),
            image_shape: None,
            skip_bad: false,
            dedup: true,
            near_duplicate: 0.95,
            test_share: 0.3,
            samples_seen: lessons.samples,
            model_tower: TowerKind::Tiny,
            model_batch: lessons.batch,
            model_rate: None,
            pool_sample: 200_000,
            all_scores: false,
            datacomp_subset: false,
        }
    }
}

/// How scores and choice agree with what is known of the pairs.
struct Agreement {
    precision: f64,
    recall: f64,
    /// Absent if all pairs are right, or none.
    auc: Option<f64>,
}

impl Agreement {
    /// Of the rows `kept`, given whether each pair is known to be right.
    fn of(known: &[bool], scores: &[f32], kept: &[usize]) -> Agreement {
        let right = kept.iter().filter(|r| known[**r]).count() as f64;
        let all = known.iter().filter(|m| **m).count() as f64;
        let scores: Vec<f64> = scores.iter().map(|s| f64::from(*s)).collect();
        Agreement {
            precision: right / kept.len().max(1) as f64,
            recall: right / all.max(1.0),
            auc: roc_auc(known, &scores).ok(),
        }
    }
}

/// The rows of the pool that a filter keeps.
///
/// # Errors
/// A budget that is none of the pool's, or a threshold above all scores.
pub fn choose(keep: Keep, scores: &[f32], uids: &[String], budget: f64) -> Result<Vec<usize>> {
    let kept = match keep {
        Keep::All => (0..scores.len()).collect(),
        Keep::Best => keep_top(scores, uids, options::budget(budget, scores.len())?),
        Keep::AtLeast(threshold) => keep_above(scores, threshold),
    };
    if kept.is_empty() {
        let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        return Err(Error::option(
            "threshold",
            format!("no pair of the pool scores so much; the highest score is {most:.4}"),
        ));
    }
    Ok(kept)
}

/// The task.
pub struct PairFiltering;

impl Task for PairFiltering {
    papertrial_core::states! {
        "pair-filtering",
        "keep the best share of a pool of noisy pairs, judged by the model trained on what is kept",
        METHODS,
        METRICS,
        TaskOptions,
    }

    fn inputs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            (
                "clean",
                "trusted pairs, from which a filter learns, in the form of the pool",
            ),
            (
                "test",
                "right pairs, on whose images the model that judges is tested",
            ),
            (
                "fine-tune",
                "pairs of the tasks that matter, on which a filter is tuned",
            ),
        ]
    }

    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let (filter, asked) = prepare(job)?;
        let loaded = input::load(job, &asked, None, context)?
            .with_test(asked.test_share, job.seed)?
            .without_duplicates(&asked)?;
        let Some(test) = &loaded.test else {
            return Err(Error::Failed("there are no test pairs".into()));
        };
        let prompts = Prompts::of(test)?;
        // A budget that cannot be is told before the work, not after it.
        options::budget(asked.budget, loaded.pool.len())?;
        let mut metrics = BTreeMap::new();
        let mut put = |name: &str, value: f64| {
            metrics.insert(name.to_owned(), value);
        };

        let start = Instant::now();
        let sets = Sets {
            pool: &loaded.pool,
            clean: loaded.clean.as_ref(),
            fine_tune: loaded.fine_tune.as_ref(),
            seed: job.seed,
        };
        let trained = filter.train(&sets, context)?;
        put("filter-seconds", start.elapsed().as_secs_f64());
        let start = Instant::now();
        let scores = trained.scorer.score(&loaded.pool, context)?;
        let seconds = start.elapsed().as_secs_f64();
        put("pairs-per-second", scores.len() as f64 / seconds.max(1e-9));
        let kept = choose(trained.keep, &scores, &loaded.pool.uids, asked.budget)?;
        put("kept-share", kept.len() as f64 / scores.len() as f64);
        if let Some(known) = &loaded.pool.matches {
            let agreement = Agreement::of(known, &scores, &kept);
            put("kept-precision", agreement.precision);
            put("kept-recall", agreement.recall);
            if let Some(auc) = agreement.auc {
                put("score-auc", auc);
            }
        }
        if let Some(net) = trained.scorer.net() {
            put("filter-accuracy", net.zero_shot(test, &prompts, context)?);
        }

        let lessons = Lessons {
            samples: asked.samples_seen,
            batch: asked.model_batch,
            learning_rate: asked.model_rate.unwrap_or(asked.model_tower.rate()),
            crops: true,
            seed: job.seed,
            ..Lessons::default()
        };
        let chosen = loaded.pool.select(&kept);
        let (model, curve) = FilterNet::train(
            asked.model_tower,
            &chosen,
            &lessons,
            context,
            "training the model",
        )?;
        put("accuracy", model.zero_shot(test, &prompts, context)?);

        let mut curves = trained.curves;
        curves.push(curve);
        curves.push(Curve {
            name: "scores of the pool".into(),
            x: "score".into(),
            y: "pairs".into(),
            points: keep::histogram(&scores, 50),
        });
        let mut notes = loaded.notes();
        notes.push(format!(
            "{} of {} pairs kept; the model saw {} pairs; {} test pairs of {} classes",
            kept.len(),
            scores.len(),
            asked.samples_seen.div_ceil(asked.model_batch) * asked.model_batch,
            test.len(),
            prompts.count
        ));
        notes.extend(trained.notes);
        Ok(Measurement {
            metrics,
            curves,
            notes,
        })
    }

    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied> {
        let (filter, asked) = prepare(job)?;
        applied::run(&*filter, &asked, job, out, context)
    }
}

/// The filter of a job and what is asked of the task.
fn prepare(job: &Job) -> Result<(Box<dyn PairFilter>, TaskOptions)> {
    Entry::prepare(METHODS, job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, StringArray};
    use arrow::datatypes::{Field, Float32Type, UInt64Type};
    use arrow::record_batch::RecordBatch;
    use papertrial_core::data::{Output, ReadOptions, Roles, Table};
    use papertrial_core::options::Settings;
    use papertrial_core::plan;
    use papertrial_core::task::Family;
    use serde_json::{Value, json};
    use std::sync::Arc;

    const FAMILY: Family = Family {
        name: "select",
        tasks: &[&PairFiltering],
        simulations: simulation::SIMULATIONS,
        version: "test",
    };

    fn settings(value: Value) -> Settings {
        value.as_object().cloned().unwrap_or_default()
    }

    /// A job on `data`, a file or the simulation, with `options` for method and task together.
    fn job(data: &str, method: &str, roles: Roles, options: Value) -> Result<Job> {
        let simulated = match data {
            "noisy-digit-pairs" => settings(json!({"clean": 150, "test": 150})),
            _ => Settings::new(),
        };
        let read = ReadOptions::default();
        let source = plan::source(data, &simulated, roles, &read, &FAMILY)?;
        let method = plan::method(&PairFiltering, method)?;
        plan::job(
            &PairFiltering,
            &method,
            &Settings::new(),
            &settings(options),
            &source,
            7,
        )
    }

    fn context() -> Context<'static> {
        Context {
            simulations: simulation::SIMULATIONS,
            ..Context::with_seed(7)
        }
    }

    fn measure(method: &str, mut options: Value) -> Result<Measurement> {
        options["samples-seen"] = 3_000.into();
        options["budget"] = 0.3.into();
        let job = job("noisy-digit-pairs", method, Roles::default(), options)?;
        PairFiltering.measure(&job, &context())
    }

    fn told<T>(result: Result<T>) -> String {
        result.err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn every_method_is_judged_by_a_model_that_saw_as_many_pairs() {
        let mut found = BTreeMap::new();
        for entry in METHODS {
            let name = entry.facts.name;
            let quick = match (entry.options)().iter().any(|o| o.name == "samples") {
                true => json!({"samples": 4_000, "batch": 64}),
                false => json!({}),
            };
            if name == "embedding-similarity" {
                assert!(told(measure(name, quick)).contains("embedding"));
                continue;
            }
            let m = measure(name, quick).unwrap();
            let seen = m
                .curves
                .iter()
                .find(|c| c.name == "loss: training the model")
                .unwrap();
            assert_eq!(seen.points.last().unwrap().0, 3_072.0, "{name}");
            for metric in ["accuracy", "kept-precision", "kept-recall", "score-auc"] {
                assert!((0.0..=1.0).contains(&m.metrics[metric]), "{name} {metric}");
            }
            let towers = ["dfn", "pool-filter", "fixed-threshold"].contains(&name);
            assert_eq!(m.metrics.contains_key("filter-accuracy"), towers, "{name}");
            let all = ["full-data", "fixed-threshold"].contains(&name);
            assert!(
                all || (m.metrics["kept-share"] - 0.3).abs() < 0.01,
                "{name}"
            );
            found.insert(name, m.metrics["kept-precision"]);
        }
        assert_eq!(found.len(), METHODS.len() - 1);
        assert!(found["dfn"] > 0.6, "{found:?}");
        assert!(found["dfn"] > found["uniform"] + 0.2, "{found:?}");
        assert!((found["full-data"] - 0.3).abs() < 0.03, "{found:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let numbers = || {
            let mut m = measure("dfn", json!({"samples": 1_000, "batch": 64}))
                .unwrap()
                .metrics;
            m.retain(|name, _| !["filter-seconds", "pairs-per-second"].contains(&name.as_str()));
            m
        };
        assert_eq!(numbers(), numbers());
    }

    #[test]
    fn impossible_wishes_are_told_before_the_work() {
        assert!(
            told(measure(
                "fixed-threshold",
                json!({"samples": 500, "threshold": 1.0})
            ))
            .contains("highest score")
        );
        assert!(told(measure("dfn", json!({"batch": 200}))).contains("clean pairs"));
        assert!(told(measure("dfn", json!({"image-shape": [1, 8]}))).contains("[1,8,8]"));
        assert!(told(measure("dfn", json!({"image-shape": [3, 8, 8]}))).contains("64 numbers"));
        assert!(told(measure("dfn", json!({"part": "digit"}))).contains("not one of pool, clean"));
        for budget in [0.0, -0.1, 1.5, 1e9] {
            let job = job(
                "noisy-digit-pairs",
                "uniform",
                Roles::default(),
                json!({"budget": budget}),
            );
            let error = told(job.and_then(|j| PairFiltering.measure(&j, &context())));
            assert!(error.contains("budget"), "{budget}: {error}");
        }
    }

    /// The simulation's pool and clean pairs as two files without parts and truth, as a user has them.
    fn files(folder: &Path, count: usize) -> (String, String, Roles) {
        let simulation = &simulation::SIMULATIONS[0];
        let batch = (simulation.generate)(7, &settings(json!({}))).unwrap();
        let parts = batch.column_by_name("part").unwrap().as_string::<i32>();
        let write = |part: &str, file: &str, count: usize| {
            let rows: Vec<u64> = (0..parts.len())
                .filter(|r| parts.value(*r) == part)
                .take(count)
                .map(|r| r as u64)
                .collect();
            let rows = arrow::array::UInt64Array::from(rows);
            let mut chosen = arrow::compute::take_record_batch(&batch, &rows).unwrap();
            for name in ["part", "match", "digit"] {
                let at = chosen.schema().index_of(name).unwrap();
                chosen.remove_column(at);
            }
            let path = folder.join(file);
            let mut out = Output::table(&path).unwrap();
            out.write(&[chosen]).unwrap();
            out.finish().unwrap();
            path.display().to_string()
        };
        let roles = Roles {
            label: None,
            ..(simulation.roles)()
        };
        (
            write("pool", "pool.parquet", count),
            write("clean", "clean.parquet", 200),
            roles,
        )
    }

    fn with_input(mut job: Job, name: &str, path: &str) -> Job {
        let input = plan::file(Path::new(path), &ReadOptions::default()).unwrap();
        job.inputs.insert(name.into(), input);
        job
    }

    fn read(path: &Path) -> RecordBatch {
        let table = Table::open(path, &ReadOptions::default()).unwrap();
        table.batches().unwrap().next().unwrap().unwrap()
    }

    #[test]
    fn files_are_filtered_and_the_weights_filter_them_again() {
        let folder = tempfile::tempdir().unwrap();
        let (pool, clean, roles) = files(folder.path(), 300);
        let options = json!({"samples": 2_000, "budget": 0.3, "datacomp-subset": true});
        let out = folder.path().join("kept.parquet");
        let job_one = with_input(
            job(&pool, "dfn", roles.clone(), options).unwrap(),
            "clean",
            &clean,
        );
        let applied = PairFiltering.apply(&job_one, &out, &context()).unwrap();
        let names: Vec<String> = applied
            .files
            .iter()
            .map(|f| f.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(
            names,
            [
                "kept.parquet",
                "kept.subset.npy",
                "kept.filter.safetensors",
                "kept.report.json"
            ]
        );
        // Two inputs and four outputs: nothing else was left there.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 6);
        let kept = read(&out);
        assert_eq!(kept.num_rows(), 90);
        let mut ranks = kept
            .column(2)
            .as_primitive::<UInt64Type>()
            .values()
            .to_vec();
        ranks.sort_unstable();
        assert_eq!(ranks, (1..=90).collect::<Vec<u64>>());
        let subset = std::fs::read(&applied.files[1]).unwrap();
        assert_eq!(subset.len() % 16, 0);
        let report: Value =
            serde_json::from_slice(&std::fs::read(&applied.files[3]).unwrap()).unwrap();
        assert_eq!(
            (&report["pairs"], &report["kept"]),
            (&json!(300), &json!(90))
        );

        // The weights alone, on the same pool, all scores.
        let weights = applied.files[2].display().to_string();
        let again = folder.path().join("again.parquet");
        let options =
            json!({"init-weights": weights, "samples": 0, "budget": 0.3, "all-scores": true});
        let job_two = job(&pool, "dfn", roles, options).unwrap();
        PairFiltering.apply(&job_two, &again, &context()).unwrap();
        let all = read(&again);
        assert_eq!(all.num_rows(), 300);
        let flags = all.column(3).as_boolean();
        let scores = all.column(1).as_primitive::<Float32Type>();
        let chosen: Vec<f32> = (0..300)
            .filter(|r| flags.value(*r))
            .map(|r| scores.value(r))
            .collect();
        assert_eq!(
            chosen,
            kept.column(1)
                .as_primitive::<Float32Type>()
                .values()
                .to_vec()
        );
        let least = chosen.iter().copied().fold(f32::MAX, f32::min);
        assert!((0..300).all(|r| flags.value(r) || scores.value(r) <= least));
    }

    #[test]
    fn a_pool_and_clean_pairs_are_enough_to_compare() {
        let folder = tempfile::tempdir().unwrap();
        let (pool, clean, roles) = files(folder.path(), 300);
        let options = json!({"samples": 1_000, "batch": 32, "budget": 0.3, "samples-seen": 1_000});
        let plain = job(&pool, "dfn", roles.clone(), options).unwrap();
        assert!(told(PairFiltering.measure(&plain, &context())).contains("--clean"));
        let both = with_input(plain, "clean", &clean);
        let m = PairFiltering.measure(&both, &context()).unwrap();
        assert!(m.metrics["accuracy"] > 0.0 && !m.metrics.contains_key("kept-precision"));
        // The clean pairs as test pairs too: they overlap.
        let twice = with_input(both, "test", &clean);
        assert!(told(PairFiltering.measure(&twice, &context())).contains("overlap"));
        let none = job(
            &pool,
            "dfn",
            Roles {
                text: None,
                ..roles
            },
            json!({}),
        )
        .unwrap();
        assert!(told(PairFiltering.measure(&none, &context())).contains("--text"));
    }

    /// More rows than one batch of a table: one of the second batch is equal to one of the first.
    #[test]
    fn a_pool_is_scored_in_parts_and_judged_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool.parquet");
        let n = 9_000;
        let list = |turn: f32| -> ArrayRef {
            let angle = |i: usize| if i == 8_500 { 10.0 } else { i as f32 };
            let values: Vec<f32> = (0..n)
                .flat_map(|i| {
                    let angle = angle(i) + turn * angle(i) / n as f32;
                    [angle.cos(), angle.sin()]
                })
                .collect();
            let item = Arc::new(Field::new_list_field(
                arrow::datatypes::DataType::Float32,
                false,
            ));
            let values = Arc::new(Float32Array::from(values));
            Arc::new(FixedSizeListArray::new(item, 2, values, None))
        };
        let uids = StringArray::from_iter_values((0..n).map(|i| format!("u{i}")));
        let uids: ArrayRef = Arc::new(uids);
        // The two sides of pair i are i / n radians apart: the first pairs are the best.
        let columns = [("uid", uids), ("image", list(0.0)), ("text", list(1.0))];
        let mut output = Output::table(&path).unwrap();
        output
            .write(&[RecordBatch::try_from_iter(columns).unwrap()])
            .unwrap();
        output.finish().unwrap();
        let roles = Roles {
            text: Some("text".into()),
            ..Roles::default()
        };
        let pool = path.display().to_string();
        let out = folder.path().join("kept.parquet");
        for (dedup, repeats) in [(true, 1), (false, 0)] {
            let options = json!({"budget": 2_000, "pool-sample": 50, "dedup": dedup});
            let wish = job(&pool, "embedding-similarity", roles.clone(), options).unwrap();
            let applied = PairFiltering.apply(&wish, &out, &context()).unwrap();
            let kept = read(&out);
            let uids = kept.column(0).as_string::<i32>();
            assert_eq!(kept.num_rows(), 2_000);
            // Near the best, rounding mixes neighbours; the repeated pair counts among them once or twice.
            let first = (0..2_000).filter(|r| {
                let number: usize = uids.value(*r)[1..].parse().unwrap();
                number < 2_000 || number == 8_500
            });
            assert!(first.count() >= 1_990);
            assert_eq!(uids.iter().flatten().any(|u| u == "u8500"), !dedup);
            let report = std::fs::read(applied.files.last().unwrap()).unwrap();
            let report: Value = serde_json::from_slice(&report).unwrap();
            assert_eq!(
                (&report["repeats"], &report["pairs"]),
                (&json!(repeats), &json!(n - repeats))
            );
        }
        // A filter that learns from the pool gets the sample, and all pairs are scored.
        let options = json!({"pool-sample": 40, "samples": 64, "batch": 32, "all-scores": true});
        let wish = job(&pool, "pool-filter", roles.clone(), options).unwrap();
        PairFiltering.apply(&wish, &out, &context()).unwrap();
        let rows = Table::open(&out, &ReadOptions::default()).unwrap().rows();
        assert_eq!(rows, n as u64 - 1);
        let options = json!({"pool-sample": 20, "samples": 64, "batch": 32});
        let wish = job(&pool, "pool-filter", roles, options).unwrap();
        assert!(told(PairFiltering.apply(&wish, &out, &context())).contains("batch"));
    }

    /// Embeddings on both sides: those of right pairs point the same way.
    #[test]
    fn embeddings_are_pairs_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool.parquet");
        let n = 40;
        let list = |turn: fn(usize) -> f32| -> ArrayRef {
            let values: Vec<f32> = (0..n)
                .flat_map(|i| {
                    let angle = i as f32 + turn(i);
                    [angle.cos(), angle.sin()]
                })
                .collect();
            let item = Arc::new(Field::new_list_field(
                arrow::datatypes::DataType::Float32,
                false,
            ));
            Arc::new(FixedSizeListArray::new(
                item,
                2,
                Arc::new(Float32Array::from(values)),
                None,
            ))
        };
        let uids: ArrayRef = Arc::new(StringArray::from_iter_values(
            (0..n).map(|i| format!("u{i}")),
        ));
        let batch = RecordBatch::try_from_iter([
            ("uid", uids),
            ("image", list(|_| 0.0)),
            ("text", list(|i| if i < 30 { 1.5 } else { 0.01 * i as f32 })),
        ])
        .unwrap();
        let mut output = Output::table(&path).unwrap();
        output.write(&[batch]).unwrap();
        output.finish().unwrap();
        let roles = Roles {
            text: Some("text".into()),
            ..Roles::default()
        };
        let pool = path.display().to_string();
        let out = folder.path().join("kept.csv");
        let wished =
            |method: &str, options: Value| job(&pool, method, roles.clone(), options).unwrap();
        let similar = wished("embedding-similarity", json!({"budget": 10}));
        PairFiltering.apply(&similar, &out, &context()).unwrap();
        let kept = std::fs::read_to_string(&out).unwrap();
        let uids: Vec<&str> = kept
            .lines()
            .skip(1)
            .filter_map(|l| l.split(',').next())
            .collect();
        assert_eq!(
            uids,
            [
                "u30", "u31", "u32", "u33", "u34", "u35", "u36", "u37", "u38", "u39"
            ]
        );
        // Towers on embeddings; and the subset format needs other uids.
        let learned = with_input(
            wished("dfn", json!({"samples": 200, "batch": 8, "budget": 0.5})),
            "clean",
            &pool,
        );
        assert!(PairFiltering.apply(&learned, &out, &context()).is_ok());
        let subset = wished("uniform", json!({"budget": 10, "datacomp-subset": true}));
        assert!(told(PairFiltering.apply(&subset, &out, &context())).contains("32 hexadecimal"));
        let words = wished("caption-length", json!({}));
        assert!(told(PairFiltering.apply(&words, &out, &context())).contains("embeddings"));
    }
}
