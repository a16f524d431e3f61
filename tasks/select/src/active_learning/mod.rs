//! Task `active-learning`: what to ask next, and whom, where annotators err, tire, refuse and charge.
//!
//! Herde, Huseljic, Sick and Calma, *A survey on cost types, interaction schemes, and annotator performance models in
//! selection algorithms for active learning in classification*, arXiv 2109.11301, turned into one cycle (`state.rs`) with
//! strategies, models of annotators, aggregators and a simulator of annotators, each in a file of its own. Every strategy
//! states where it stands on the survey's three axes (`strategy.rs`). Here are the list of methods, the metrics and the
//! options of the task.

mod aggregate;
mod ceal;
mod crowd_logistic;
mod ie_adj_cost;
mod ie_thresh;
mod input;
mod log;
mod mcpal;
mod pair;
mod performance;
mod pool;
mod proactive;
mod region;
mod repeated;
mod run;
mod simulator;
mod softmax;
mod spread;
mod state;
mod strategy;
mod trial;
mod uncertainty;
mod unsure;
mod value;

pub use aggregate::{Aggregate, Aggregator, dawid_skene};
pub use ceal::Ceal;
pub use crowd_logistic::{Crowd as CrowdModel, CrowdLogistic};
pub use ie_adj_cost::IeAdjCost;
pub use ie_thresh::{Estimate, IeThresh};
pub use log::{Answer, Bound, Query, Question, Reply, Votes};
pub use mcpal::CostSensitiveMcpal;
pub use pair::PairQuery;
pub use performance::{Agreement, Belief};
pub use pool::{Annotator, Pool};
pub use proactive::{Case, ProactiveLearning};
pub use region::RegionQuery;
pub use repeated::{Ranking, RepeatedLabelling};
pub use run::{Next, next};
pub use simulator::{Crowd, Person, Specialists};
pub use softmax::Softmax;
pub use state::{Fees, Setting, State, first_questions, predictions};
pub use strategy::{Axes, Proposal, Strategy, Uncertainty, batch};
pub use trial::{HeldOut, Trial};
pub use uncertainty::{Ask, RandomQuery, UncertaintySampling};
pub use unsure::UnsureAware;
pub use value::{ReturnOnInvestment, ValueOfInformation};

use ndarray::Axis;
use papertrial_core::data::Labels;
use papertrial_core::methods;
use papertrial_core::task::{Applied, Context, Entry, Job, Measurement, MetricInfo, Task};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// The methods. A new one is a file of its own, a `mod` line above, and a line here.
const METHODS: &[Entry<dyn Strategy>] = methods![
    dyn Strategy;
    RandomQuery,
    UncertaintySampling,
    IeThresh,
    IeAdjCost,
    RepeatedLabelling,
    ProactiveLearning,
    Ceal,
    CrowdLogistic,
    ValueOfInformation,
    ReturnOnInvestment,
    CostSensitiveMcpal,
    UnsureAware,
    RegionQuery,
    PairQuery,
];

const METRICS: &[MetricInfo] = &[
    MetricInfo::new(
        "accuracy",
        Some(true),
        "share of rows held out that are predicted right when the money is spent, 0 to 1",
    ),
    MetricInfo::new(
        "accuracy-per-cost",
        Some(true),
        "area under this accuracy against the money spent, over the budget: its mean over every unit of money, 0 to 1",
    ),
    MetricInfo::new(
        "balanced-accuracy",
        Some(true),
        "mean over the classes of the share of rows held out that are predicted right, 0 to 1",
    ),
    MetricInfo::new(
        "mistake-cost",
        Some(false),
        "mean cost of the predictions of rows held out, by the cost matrix and the rows' factors",
    ),
    MetricInfo::new(
        "label-accuracy",
        Some(true),
        "share of labelled rows whose label, made of the answers, is right, 0 to 1",
    ),
    MetricInfo::new(
        "reliability-error",
        Some(false),
        "mean difference of an annotator's agreement with the labels and his share of right answers, 0 to 1",
    ),
    MetricInfo::new("labelled-rows", None, "rows with at least one class answer"),
    MetricInfo::new("spent", None, "money paid for answers after the first rows"),
    MetricInfo::new("answers", None, "questions asked after the first rows"),
    MetricInfo::new("refused", None, "of these, refused"),
    MetricInfo::new("unsure", None, "of these, answered with \"don't know\""),
    MetricInfo::new(
        "answers-per-second",
        Some(true),
        "answers, the first included, over the seconds of the whole cycle",
    )
    .timed(),
];

/// Options of the task: money, annotators, costs, the classifier and the simulation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskOptions {
    /// Money for answers after the first rows.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub budget: f64,
    /// Rows about which everybody is asked at first; these answers are not charged to the budget.
    #[schemars(range(min = 1))]
    pub seed_rows: usize,
    /// Rows, pairs or regions that are asked about in a turn, before anything is learned anew.
    #[schemars(range(min = 1))]
    pub questions: usize,
    /// How the votes about a row become a label.
    pub aggregator: Aggregator,
    /// With what an annotator's votes are compared to judge him: with-own flatters those who answer alone.
    pub agreement: Agreement,
    /// Penalty on the slopes of the classifier, softmax regression of the standardised columns.
    #[schemars(range(min = 0.0))]
    pub l2: f64,
    /// Whether an annotator may be asked the same twice.
    pub repeats: bool,
    /// Whether fees are known beforehand, or predicted from past answers.
    pub fees: Fees,
    /// Fee of each annotator, as a list; 1 if empty.
    pub annotator_fee: Vec<f64>,
    /// Cost of each mistake, as a list of rows, one for each true class; 1 if absent.
    pub cost_matrix: Option<Vec<Vec<f64>>>,
    /// Column of factors on the cost of a mistake in a row.
    pub row_cost: Option<String>,
    /// Column of factors on the fee of an answer about a row.
    pub row_fee: Option<String>,
    /// Runs only: names of the annotators, as a list; if empty, those in the answers.
    pub annotators: Vec<String>,
    /// Runs only: all classes, as a list; if absent, those of the label column or of the answers.
    pub classes: Option<Vec<Value>>,
    /// Trials only: share of the rows that are held out to judge the classifier.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub test_share: f64,
    /// Trials only: probability of a right answer of each annotator, as a list.
    pub annotator_accuracy: Vec<f64>,
    /// Trials only: probability of a refusal of each, as a list; 0 if empty.
    pub annotator_refusal: Vec<f64>,
    /// Trials only: probability of "don't know" of each, as a list; 0 if empty.
    pub annotator_unsure: Vec<f64>,
    /// Trials only: answers after which exp(-1) of the skill above chance is left, as a list; 0, or an empty list: nobody
    /// tires.
    pub annotator_endurance: Vec<f64>,
    /// Trials only: what each annotator knows better than the rest.
    pub specialists: Specialists,
}

impl Default for TaskOptions {
    fn default() -> Self {
        TaskOptions {
            budget: 100.0,
            seed_rows: 8,
            questions: 1,
            aggregator: Aggregator::Majority,
            agreement: Agreement::WithOwn,
            l2: 1.0,
            repeats: false,
            fees: Fees::Known,
            annotator_fee: Vec::new(),
            cost_matrix: None,
            row_cost: None,
            row_fee: None,
            annotators: Vec::new(),
            classes: None,
            test_share: 0.3,
            annotator_accuracy: vec![0.5, 0.6, 0.7, 0.8, 0.95],
            annotator_refusal: Vec::new(),
            annotator_unsure: Vec::new(),
            annotator_endurance: Vec::new(),
            specialists: Specialists::None,
        }
    }
}

impl TaskOptions {
    /// What stays the same over the cycle.
    pub fn setting(&self, seed: u64) -> Setting {
        Setting {
            budget: self.budget,
            aggregator: self.aggregator,
            agreement: self.agreement,
            l2: self.l2,
            repeats: self.repeats,
            fees: self.fees,
            first: self.seed_rows,
            seed,
        }
    }

    /// The simulated annotators.
    ///
    /// # Errors
    /// Nobody, or a list of another length.
    fn people(&self) -> Result<Vec<Person>> {
        let count = self.annotator_accuracy.len();
        let at = |option: &str, list: &[f64], a: usize| match list.get(a) {
            Some(value) => Ok(*value),
            None if list.is_empty() => Ok(0.0),
            None => Err(Error::option(
                option,
                format!("has {} numbers for {count} annotators", list.len()),
            )),
        };
        for (option, list) in [
            ("annotator-refusal", &self.annotator_refusal),
            ("annotator-unsure", &self.annotator_unsure),
            ("annotator-endurance", &self.annotator_endurance),
        ] {
            if list.len() > count {
                return Err(Error::option(
                    option,
                    format!("has {} numbers for {count} annotators", list.len()),
                ));
            }
        }
        (0..count)
            .map(|a| {
                let endurance = at("annotator-endurance", &self.annotator_endurance, a)?;
                Ok(Person {
                    accuracy: self.annotator_accuracy[a],
                    refusal: at("annotator-refusal", &self.annotator_refusal, a)?,
                    unsure: at("annotator-unsure", &self.annotator_unsure, a)?,
                    endurance: (endurance != 0.0).then_some(endurance),
                })
            })
            .collect()
    }

    /// Refuses options that only a trial understands.
    ///
    /// # Errors
    /// One of them differs from its default.
    fn refuse_trial_options(&self) -> Result<()> {
        let usual = TaskOptions::default();
        let used = [
            ("test-share", self.test_share != usual.test_share),
            (
                "annotator-accuracy",
                self.annotator_accuracy != usual.annotator_accuracy,
            ),
            ("annotator-refusal", !self.annotator_refusal.is_empty()),
            ("annotator-unsure", !self.annotator_unsure.is_empty()),
            ("annotator-endurance", !self.annotator_endurance.is_empty()),
            ("specialists", self.specialists != usual.specialists),
        ];
        match used.iter().find(|(_, used)| *used) {
            Some((option, _)) => Err(Error::option(
                option,
                "simulates annotators in trials; in a run people answer",
            )),
            None => Ok(()),
        }
    }
}

/// The task.
pub struct ActiveLearning;

impl Task for ActiveLearning {
    papertrial_core::states! {
        "active-learning",
        "choose what to ask next and whom, where annotators err, tire, refuse and charge differently",
        METHODS,
        METRICS,
        TaskOptions,
    }

    fn inputs(&self) -> &'static [(&'static str, &'static str)] {
        &[(
            "answers",
            "log of the answers so far: columns row, annotator, answer, and where known with, region, step, fee, seconds, confidence",
        )]
    }

    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let (strategy, asked) = prepare(job)?;
        if let Some(option) = [
            ("annotators", !asked.annotators.is_empty()),
            ("classes", asked.classes.is_some()),
        ]
        .iter()
        .find_map(|(option, used)| used.then_some(*option))
        {
            return Err(Error::option(
                option,
                "is for runs; a trial simulates its annotators and knows all labels",
            ));
        }
        let table = job.table("data", context)?;
        let labels = Labels::of(&table, &job.roles)?.ok_or_else(|| {
            Error::option(
                "--label",
                "name the column of the labels; a trial needs them to simulate answers",
            )
        })?;
        let x = input::features(&table, &job.roles, &asked)?.matrix(context)?;
        let row_costs = input::factors(&table, "row-cost", asked.row_cost.as_deref())?;
        let row_fees = input::factors(&table, "row-fee", asked.row_fee.as_deref())?;
        let (inside, outside) = split(&labels.codes, asked.test_share, job.seed)?;

        let people = asked.people()?;
        let names = (1..=people.len()).map(|a| a.to_string()).collect();
        let take = |values: &[f64], rows: &[usize]| rows.iter().map(|&r| values[r]).collect();
        let names_of_columns = (0..x.ncols()).map(|c| c.to_string()).collect();
        let mut pool = Pool::new(
            x.select(Axis(0), &inside),
            names_of_columns,
            labels.names.clone(),
            input::annotators(names, &asked.annotator_fee)?,
        )?;
        pool.row_costs = take(&row_costs, &inside);
        pool.row_fees = take(&row_fees, &inside);
        if let Some(costs) = &asked.cost_matrix {
            pool = pool.with_costs(costs)?;
        }
        let setting = asked.setting(job.seed);
        pool.check_budget(setting.budget)?;
        let truth: Vec<usize> = inside.iter().map(|&r| labels.codes[r] as usize).collect();
        let crowd = Crowd::new(
            &pool,
            &truth,
            people,
            asked.specialists,
            asked.fees,
            job.seed,
        )?;
        let held = HeldOut {
            x: pool.scaled(x.select(Axis(0), &outside).view()),
            truth: outside.iter().map(|&r| labels.codes[r]).collect(),
            row_costs: take(&row_costs, &outside),
        };
        let trial = Trial {
            pool: &pool,
            truth: &truth,
            crowd: &crowd,
            held: &held,
            setting: &setting,
            questions: asked.questions,
        };
        trial::run(&*strategy, &trial, context)
    }

    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied> {
        let (strategy, asked) = prepare(job)?;
        run::write(&*strategy, &asked, job, out, context)
    }
}

/// The strategy of a job and what is asked of the task.
fn prepare(job: &Job) -> Result<(Box<dyn Strategy>, TaskOptions)> {
    Entry::prepare(METHODS, job)
}

/// Rows of the pool and rows held out, a share of each class, both ascending.
fn split(labels: &[i32], share: f64, seed: u64) -> Result<(Vec<usize>, Vec<usize>)> {
    let count = (share * labels.len() as f64).round() as usize;
    if count == 0 || count == labels.len() {
        return Err(Error::option(
            "test-share",
            format!(
                "{share} of {} rows leaves nothing to learn from, or to judge by",
                labels.len()
            ),
        ));
    }
    let failed = |e: sampling::SamplingError| Error::Failed(e.to_string());
    let quotas = sampling::proportional_quotas(labels, count).map_err(failed)?;
    let mut rng = sampling::rng(seed, "active-learning split");
    let outside = sampling::stratified(&mut rng, labels, &quotas).map_err(failed)?;
    let mut held = vec![false; labels.len()];
    outside.iter().for_each(|&row| held[row] = true);
    let inside = (0..labels.len()).filter(|&row| !held[row]).collect();
    Ok((inside, outside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_core::data::{ReadOptions, Roles};
    use papertrial_core::options::Settings;
    use papertrial_core::plan;
    use papertrial_core::task::Family;
    use serde_json::json;
    use std::fmt::Write;
    use std::path::PathBuf;

    const FAMILY: Family = Family {
        name: "select",
        tasks: &[&ActiveLearning],
        simulations: &[],
        version: "test",
    };

    fn job(
        data: &str,
        answers: Option<&Path>,
        method: &str,
        options: Value,
        id: bool,
    ) -> Result<Job> {
        let settings: Settings = options.as_object().cloned().unwrap_or_default();
        let roles = Roles {
            id: id.then(|| "name".into()),
            ..Roles::default()
        };
        let read = ReadOptions::default();
        let mut source = plan::source(data, &Settings::new(), roles, &read, &FAMILY)?;
        if let Some(path) = answers {
            source = source.with("answers", path, &read, &ActiveLearning)?;
        }
        let method = plan::method(&ActiveLearning, method)?;
        plan::job(
            &ActiveLearning,
            &method,
            &settings,
            &Settings::new(),
            &source,
            3,
        )
    }

    fn measure(data: &str, method: &str, options: Value) -> Result<Measurement> {
        ActiveLearning.measure(
            &job(data, None, method, options, false)?,
            &Context::with_seed(3),
        )
    }

    /// 40 rows named r0 .. r39 with columns u and v; the class is the side of u.
    fn pool(folder: &Path) -> String {
        let mut text = String::from("name,u,v\n");
        for i in 0..40 {
            let side = if i % 2 == 0 { -1.5 } else { 1.5 };
            let _ = writeln!(
                text,
                "r{i},{},{}",
                side + f64::from(i * 7 % 11) / 8.0 - 0.6,
                i * 5 % 13
            );
        }
        let path = folder.join("pool.csv");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn options() -> Value {
        json!({"annotators": ["ann", "bob"], "classes": ["no", "yes"], "seed-rows": 4, "budget": 12})
    }

    /// Lines of the questions with the answers that ann (always right) and bob (wrong on rows that 5 divides) give.
    fn answered(questions: &str) -> Vec<String> {
        questions
            .lines()
            .skip(1)
            .map(|line| {
                let cells: Vec<&str> = line.split(',').collect();
                let class = |name: &str| -> usize { name[1..].parse::<usize>().unwrap() };
                let answer = if !cells[3].is_empty() {
                    let same = class(cells[0]) % 2 == class(cells[3]) % 2;
                    if same { "same" } else { "different" }.to_owned()
                } else if cells[0].is_empty() {
                    "no=0.5;yes=0.5".to_owned()
                } else {
                    let row = class(cells[0]);
                    let lies = cells[1] == "bob" && row % 5 == 0;
                    ["no", "yes"][(row + usize::from(lies)) % 2].to_owned()
                };
                format!(
                    "{},{},{answer},{}",
                    cells[0],
                    cells[1],
                    cells[3..].join(",")
                )
            })
            .collect()
    }

    /// One run after another until nothing is asked any more; of each answers file only `share` of the lines is taken on
    /// when `torn`, so that steps are interrupted. Gives the log.
    fn cycle(method: &str, torn: bool) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let data = pool(folder.path());
        let out: PathBuf = folder.path().join("next.csv");
        let log = folder.path().join("log.csv");
        let mut lines: Vec<String> = Vec::new();
        for _ in 0..200 {
            let answers = (!lines.is_empty()).then_some(log.as_path());
            let job = job(&data, answers, method, options(), true).unwrap();
            ActiveLearning
                .apply(&job, &out, &Context::with_seed(3))
                .unwrap();
            let text = std::fs::read_to_string(&out).unwrap();
            let (head, _) = text.split_once('\n').unwrap();
            let mut new = answered(&text);
            if new.is_empty() {
                return lines;
            }
            if torn {
                new.truncate(1);
            }
            lines.extend(new);
            std::fs::write(&log, format!("{head}\n{}\n", lines.join("\n"))).unwrap();
        }
        panic!("{method} does not end");
    }

    #[test]
    fn an_interrupted_run_asks_what_an_uninterrupted_one_asks() {
        for method in ["iethresh", "uncertainty-sampling", "ceal", "pair-query"] {
            let whole = cycle(method, false);
            assert!(whole.len() > 12, "{method}: {}", whole.len());
            assert_eq!(whole, cycle(method, true), "{method}");
        }
    }

    #[test]
    fn steps_of_files_are_those_of_a_trial_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let data = pool(folder.path());
        let job = job(&data, None, "iethresh", options(), true).unwrap();
        let (strategy, asked) = prepare(&job).unwrap();
        let context = Context::with_seed(3);
        let table = job.table("data", &context).unwrap();
        let pool = input::pool(&table, &job, &asked, None, &context).unwrap();
        let setting = asked.setting(3);
        let mut log: Vec<Answer> = Vec::new();
        let mut asked_for = Vec::new();
        loop {
            let found = next(&*strategy, &pool, &log, true, &setting, 1).unwrap();
            if found.questions.is_empty() {
                break;
            }
            for q in found.questions {
                let row = q.query.rows().next().unwrap();
                let lies = q.annotator == 1 && row % 5 == 0;
                asked_for.push(format!("r{row},{}", ["ann", "bob"][q.annotator]));
                log.push(Answer {
                    step: found.step,
                    query: q.query,
                    annotator: q.annotator,
                    reply: Reply::Class {
                        class: (row + usize::from(lies)) % 2,
                        confidence: 1.0,
                    },
                    fee: q.fee,
                    seconds: None,
                });
            }
        }
        let of_files: Vec<String> = cycle("iethresh", false)
            .iter()
            .map(|line| line.splitn(3, ',').take(2).collect::<Vec<_>>().join(","))
            .collect();
        assert_eq!(of_files, asked_for);
        let spent: f64 = log.iter().filter(|a| a.step > 0).map(|a| a.fee).sum();
        assert!(spent <= 12.0 && spent > 10.0, "{spent}");
    }

    #[test]
    fn regions_go_through_the_file_and_back() {
        let log = cycle("region-query", false);
        assert!(
            log.iter().any(|line| line.contains("no=0.5;yes=0.5")),
            "{log:?}"
        );
    }

    #[test]
    fn bad_answers_and_options_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let data = pool(folder.path());
        let told = |answers: &str, change: Value| {
            let path = folder.path().join("answers.csv");
            std::fs::write(&path, answers).unwrap();
            let mut all = options();
            for (name, value) in change.as_object().unwrap() {
                all[name] = value.clone();
            }
            let out = folder.path().join("out.csv");
            let _ = std::fs::remove_file(&out);
            let result = job(&data, Some(&path), "iethresh", all, true)
                .and_then(|job| ActiveLearning.apply(&job, &out, &Context::with_seed(3)));
            match result {
                Ok(_) => "fine".to_owned(),
                Err(e) => {
                    assert!(!out.exists());
                    e.to_string()
                }
            }
        };
        let good = "row,annotator,answer\nr1,ann,yes\nr2,ann,no\n";
        assert_eq!(told(good, json!({})), "fine");
        for (answers, reason) in [
            ("row,annotator,answer\nr77,ann,yes\n", "names the row 'r77'"),
            ("row,annotator,answer\nr1,eve,yes\n", "names 'eve'"),
            (
                "row,annotator,answer\nr1,ann,perhaps\n",
                "none of the classes no, yes",
            ),
            (
                "row,annotator,answer\nr1,ann,unsure\n",
                "no row has a label",
            ),
            (
                "row,annotator,answer\nr1,ann,yes\nr1,ann,no\n",
                "asked the same question before",
            ),
            ("row,annotator,answer,fee\nr1,ann,yes,-2\n", "the fee is -2"),
            ("row,annotator,answer,fee\nr1,ann,yes,NaN\n", "no number"),
            (
                "row,annotator,answer,confidence\nr1,ann,yes,1.5\n",
                "confidence is 1.5",
            ),
            (
                "row,annotator,answer,with\nr1,ann,yes,r2\n",
                "a pair is same, different",
            ),
            (
                "row,annotator,answer,region\n,ann,no=1;yes=0,u from 1\n",
                "is not of the form",
            ),
            ("row,annotator\nr1,ann\n", "is missing"),
        ] {
            let e = told(answers, json!({}));
            assert!(e.contains(reason), "{answers}: {e}");
        }
        for (change, reason) in [
            (json!({"budget": 0}), "above 0"),
            (json!({"budget": 0.5}), "less than the lowest fee"),
            (json!({"budget": 1000}), "more than the 80"),
            (json!({"classes": ["yes"]}), "at least two"),
            (json!({"annotators": ["ann", "ann"]}), "'ann' twice"),
            (json!({"annotator-fee": [1.0, -1.0]}), "a number from 0"),
            (json!({"annotator-fee": [1.0]}), "1 fees for 2"),
            (json!({"cost-matrix": [[0.0, 1.0]]}), "2 rows of 2"),
            (
                json!({"annotator-accuracy": [0.5, 1.0]}),
                "simulates annotators",
            ),
        ] {
            let e = told(good, change.clone());
            assert!(e.contains(reason), "{change}: {e}");
        }
        let twice = folder.path().join("twice.csv");
        std::fs::write(&twice, "name,u\na,1\na,2\n").unwrap();
        let job = job(
            &twice.display().to_string(),
            None,
            "random",
            options(),
            true,
        )
        .unwrap();
        let e = ActiveLearning
            .apply(&job, &folder.path().join("out.csv"), &Context::with_seed(0))
            .unwrap_err();
        assert!(e.to_string().contains("same id 'a'"), "{e}");
    }

    #[test]
    fn every_strategy_spends_no_more_than_the_budget_and_learns() {
        for method in ActiveLearning.methods() {
            let name = method.facts.name;
            let asked = json!({
                "budget": 20,
                "annotator-accuracy": [0.9, 0.8, 0.7],
                "annotator-fee": [2.0, 1.0, 1.0],
                "annotator-refusal": [0.0, 0.2, 0.0],
                "annotator-unsure": [0.0, 0.0, 0.2],
            });
            let found =
                measure("iris", name, asked.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
            let of = |metric: &str| found.metrics[metric];
            assert!(of("spent") <= 20.0 + 1e-9, "{name}: {}", of("spent"));
            // The value of an answer may fall below its fee, and a small pool runs out of regions.
            if !["value-of-information", "region-query"].contains(&name) {
                assert!(of("spent") > 17.0, "{name}: {}", of("spent"));
            }
            assert!(of("accuracy") > 0.5, "{name}: {}", of("accuracy"));
            for metric in ActiveLearning.metrics() {
                assert!(
                    found.metrics.contains_key(metric.name),
                    "{name}: {}",
                    metric.name
                );
            }
            let again = measure("iris", name, asked).unwrap();
            let timeless = |m: &Measurement| {
                let mut metrics = m.metrics.clone();
                metrics.remove("answers-per-second");
                (metrics, m.curves.clone())
            };
            assert_eq!(timeless(&found), timeless(&again), "{name}");
        }
    }

    #[test]
    fn trials_know_tired_specialists_and_unknown_fees() {
        let found = measure(
            "iris",
            "return-on-investment",
            json!({
                "budget": 15,
                "annotator-accuracy": [0.9, 0.9, 0.2],
                "annotator-endurance": [20, 0, 0],
                "specialists": "cluster",
                "fees": "predicted",
                "agreement": "leave-one-out",
                "aggregator": "dawid-skene",
                "cost-matrix": [[0, 1, 1], [1, 0, 5], [1, 1, 0]],
                "questions": 3,
            }),
        )
        .unwrap();
        assert!(found.metrics["mistake-cost"] >= 0.0);
        assert!(found.metrics["answers"] >= 5.0);
        let e = measure("iris", "random", json!({"annotator-refusal": [0.5]})).unwrap_err();
        assert!(e.to_string().contains("1 numbers for 5"), "{e}");
        let e = measure(
            "iris",
            "uncertainty-sampling",
            json!({"ask": "fixed", "fixed": 7}),
        )
        .unwrap_err();
        assert!(e.to_string().contains("0 to 4"), "{e}");
    }
}
