//! Task `labelling-instructions`: write the missing annotation guide of a labelled set of images.
//!
//! A guide has for each class a few pairs of a crop and a text. It is as good as a search with it: the images that are
//! most like one of its pairs should be those of the class. Measured on folds of images that the guide never saw.
//!
//! Here are the task's trait, its list of methods, its metrics, measuring and applying; `collection.rs` holds what is
//! searched, `index.rs` the search, `lesson.rs` what a method sees of a class, and each method has a file of its own.

mod baselines;
mod coco;
mod collection;
mod encoder;
mod folds;
mod index;
mod lesson;
mod proxy_dataset_curator;
mod read;
mod score;
pub(crate) mod simulations;
mod write;

pub use baselines::{
    AllPairs, BestPair, BestText, ClassMeanCrop, ClassText, GivenGuide, KMedoids, RandomCrops,
};
pub use collection::{Bounds, Collection, Parts, Place};
pub use folds::folds;
pub use index::{Index, IndexKind, Mix};
pub use lesson::{ALPHAS, Fusion, Guide, Lesson, Pair, Scores, Search, Terms, best_guide, merge};
pub use proxy_dataset_curator::ProxyDatasetCurator;
pub use score::{DivideBy, Goal, REMOVED, Ranks, UNREACHED};

use ndarray::Axis;
use papertrial_core::data::Output;
use papertrial_core::task::{Applied, Context, Curve, Entry, Job, Measurement, MetricInfo, Task};
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;
use write::Written;

/// A method of this task.
pub trait Curator: Send + Sync {
    /// Chooses the pairs of one class.
    ///
    /// # Errors
    /// A computation failed, or the method needs what was not given.
    fn curate(&self, lesson: &Lesson) -> Result<Guide>;
}

/// The methods. A new one is a file of its own, a `mod` line above, and a line here.
const METHODS: &[Entry<dyn Curator>] = papertrial_core::methods![dyn Curator;
    ProxyDatasetCurator,
    ClassText,
    BestText,
    RandomCrops,
    ClassMeanCrop,
    KMedoids,
    BestPair,
    AllPairs,
    GivenGuide,
];

const METRICS: &[MetricInfo] = &[
    MetricInfo::new(
        "map",
        Some(true),
        "mean average precision over classes and folds of unseen images, 0 to 1, divided as option divide-by says",
    ),
    MetricInfo::new(
        "map-by-positives",
        Some(true),
        "the same, each average precision divided by the images of the class",
    ),
    MetricInfo::new(
        "map-by-reachable",
        Some(true),
        "the same, divided by the images of the class or the returns, whichever are fewer",
    ),
    MetricInfo::new(
        "pr-area",
        Some(true),
        "mean area under precision and recall with straight lines between the points, 0 to 1",
    ),
    MetricInfo::new(
        "precision-at-10",
        Some(true),
        "mean share of the class among the first ten images",
    ),
    MetricInfo::new(
        "recall",
        Some(true),
        "mean share of a class' images among the returns",
    ),
    MetricInfo::new(
        "learned-map",
        None,
        "mean average precision on the images that were learned from",
    ),
    MetricInfo::new("pairs", None, "mean number of pairs of a class"),
    MetricInfo::new(
        "index-recall",
        Some(true),
        "share of the images of an exact search that the approximate index gives; absent if the search is exact",
    ),
    MetricInfo::new(
        "curate-seconds",
        Some(false),
        "wall seconds of choosing the pairs, all classes and folds together",
    )
    .timed(),
];

/// Options of the task: pairs, how they search, and how the search is measured.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskOptions {
    /// Pairs that the guide of a class may have.
    #[schemars(range(min = 1, max = 1000))]
    pub pairs: usize,
    /// Crops of a class among which methods that search choose: medoids of all its crops.
    #[schemars(range(min = 1, max = 10000))]
    pub candidates: usize,
    /// How a crop and a text become one query.
    pub fusion: Fusion,
    /// Weight of the crop in early fusion; if absent, the best of 0.3, 0.5 and 0.7 on the images learned from.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub alpha: Option<f64>,
    /// Standardise the scores of each pair before those of several pairs are compared.
    pub standardise: bool,
    /// Images that a search returns.
    #[schemars(range(min = 1))]
    pub returns: usize,
    /// What an average precision is divided by.
    pub divide_by: DivideBy,
    /// Trials only: folds of images; each is searched with a guide from the others.
    #[schemars(range(min = 2, max = 100))]
    pub folds: usize,
    /// How patches are searched.
    pub index: IndexKind,
    /// Inverted lists that a query looks into; if absent, as many as give 99 % of the exact search's images.
    #[schemars(range(min = 1))]
    pub probes: Option<usize>,
    /// Columns of a patch's box, left, top, right and bottom, as a list; if empty, x0, y0, x1, y1 where there are such.
    pub box_columns: Vec<String>,
}

impl Default for TaskOptions {
    fn default() -> Self {
        TaskOptions {
            pairs: 5,
            candidates: 50,
            fusion: Fusion::Early,
            alpha: None,
            standardise: false,
            returns: 1000,
            divide_by: DivideBy::Positives,
            folds: 5,
            index: IndexKind::Auto,
            probes: None,
            box_columns: Vec::new(),
        }
    }
}

impl TaskOptions {
    fn terms(&self, seed: u64, class: usize, fold: usize) -> Terms {
        Terms {
            goal: Goal {
                returns: self.returns,
                divide_by: self.divide_by,
            },
            pairs: self.pairs,
            candidates: self.candidates,
            alpha: self.alpha,
            seed: sampling::rng(seed, &format!("class {class} without fold {fold}")).random(),
        }
    }

    fn index<'a>(
        &self,
        collection: &'a Collection,
        seed: u64,
        context: &Context,
    ) -> Result<Index<'a>> {
        let texts = (0..collection.classes.len()).map(|c| collection.texts_of(c).len());
        let most = texts.max().unwrap_or(0) * self.candidates.min(collection.crops.len());
        let images = collection.images.len();
        context.require(
            &format!("the scores of up to {most} pairs for {images} images"),
            // Of each weight, whole and for the images learned from.
            (most * ALPHAS.len() * images) as u64 * 4 * 2,
        )?;
        // Queries of the kind that will come, midway between a crop and the text of its class.
        let mut rng = sampling::rng(seed, "trial queries");
        let count = TRIAL_QUERIES.min(collection.crops.len());
        let crops = sampling::sample_sorted(&mut rng, collection.crops.len(), count)
            .map_err(|e| Error::Failed(e.to_string()))?;
        let mut trial = collection.crop_vectors.select(Axis(0), &crops);
        for (mut query, crop) in trial.rows_mut().into_iter().zip(&crops) {
            let text = collection.texts_of(collection.crops[*crop].1)[0];
            query += &collection.text_vectors.row(text);
            // Opposite vectors cancel out, and such a query finds nothing anyway.
            let length = query.dot(&query).sqrt().max(1e-6);
            query /= length;
        }
        Index::new(
            collection.patches.view(),
            &collection.starts,
            self.index,
            self.probes,
            trial.view(),
            self.returns,
            seed,
        )
    }

    fn search<'a>(&self, collection: &'a Collection, index: &'a Index<'a>) -> Search<'a> {
        Search {
            collection,
            index,
            fusion: self.fusion,
            standardise: self.standardise,
        }
    }
}

/// Queries from which the recall of an approximate index is measured.
const TRIAL_QUERIES: usize = 100;

/// Fewer images of a class than this are told of.
const RARE: usize = 5;

/// Points of the mean curve of precision against recall.
const LEVELS: usize = 20;

/// The task.
pub struct LabellingInstructions;

impl Task for LabellingInstructions {
    papertrial_core::states! {
        "labelling-instructions",
        "write the missing annotation guide of a labelled set of images: pairs of crop and text for each class",
        METHODS,
        METRICS,
        TaskOptions,
    }

    fn inputs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            (
                "texts",
                "texts of the classes: columns class, text and their vectors by the patches' encoder",
            ),
            (
                "labels",
                "classes of the images, if the patches have no column of them: columns image, class, x0, y0, x1, y1, or a COCO file",
            ),
            (
                "guide",
                "a guide that there is already: columns class, image, x0, y0, x1, y1, text",
            ),
        ]
    }

    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let (method, asked) = prepare(job)?;
        let read = read::collection(job, &asked, context)?;
        let collection = &read.collection;
        let given = read::guide(job, collection, context)?;
        let index = asked.index(collection, job.seed, context)?;
        let search = asked.search(collection, &index);
        let images = collection.images.len();
        let of_class: Vec<Vec<usize>> = (0..collection.classes.len())
            .map(|class| collection.images_of(class))
            .collect();
        let fold_of = folds(images, &of_class, asked.folds, job.seed);

        let mut tally = Tally::default();
        let mut left_out = vec![0usize; of_class.len()];
        let mut seconds = 0.0;
        for fold in 0..asked.folds {
            let learned: Vec<bool> = fold_of.iter().map(|f| *f != fold).collect();
            let mut of_fold = Tally::default();
            for class in 0..of_class.len() {
                let done = fold * of_class.len() + class;
                context.step("guides", done, asked.folds * of_class.len());
                let terms = asked.terms(job.seed, class, fold);
                let lesson = Lesson::new(&search, class, &learned, &given[class], terms);
                let seen = of_class[class].iter().any(|i| !learned[*i]);
                let Some(lesson) = lesson.filter(|_| seen) else {
                    left_out[class] += 1;
                    continue;
                };
                let began = Instant::now();
                let guide = method.curate(&lesson)?;
                seconds += began.elapsed().as_secs_f64();
                let merged = search.merged(&guide, &learned)?;
                let shows = |i: &usize| of_class[class].binary_search(i).is_ok();
                let unseen = (0..images).filter(|i| !learned[*i]);
                let (of, others): (Vec<usize>, Vec<usize>) = unseen.partition(shows);
                let scores =
                    |rows: &[usize]| -> Vec<f32> { rows.iter().map(|i| merged[*i]).collect() };
                let ranks = Ranks::of(&scores(&of), &scores(&others), asked.returns);
                of_fold.add(&ranks, &guide, &asked);
            }
            if of_fold.count == 0.0 {
                return Err(Error::option(
                    "folds",
                    format!(
                        "fold {} of {} has no image of a class that the other folds show: {images} images are too few; ask for fewer folds",
                        fold + 1,
                        asked.folds
                    ),
                ));
            }
            tally.join(&of_fold);
        }

        let mut measurement = tally.finish(asked.divide_by);
        let metrics = &mut measurement.metrics;
        metrics.insert("curate-seconds".into(), seconds);
        metrics.extend(index.recall.map(|r| ("index-recall".to_owned(), r)));
        measurement.notes = read.notes;
        measurement.notes.extend(remarks(&asked, &index));
        for (class, left_out) in left_out.iter().enumerate() {
            let count = of_class[class].len();
            let name = &collection.classes[class];
            if *left_out > 0 {
                measurement.notes.push(format!(
                    "class {name} has n = {count} images; {left_out} of {} folds without one to learn from or to find were left out",
                    asked.folds
                ));
            } else if count < RARE {
                measurement
                    .notes
                    .push(format!("class {name} has n = {count} images only"));
            }
        }
        Ok(measurement)
    }

    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied> {
        let mut output = Output::table(out)?;
        let (method, asked) = prepare(job)?;
        let read = read::collection(job, &asked, context)?;
        let collection = &read.collection;
        let given = read::guide(job, collection, context)?;
        let index = asked.index(collection, job.seed, context)?;
        let search = asked.search(collection, &index);
        let learned = vec![true; collection.images.len()];
        let mut notes = read.notes;
        notes.extend(remarks(&asked, &index));
        let mut guides = Vec::new();
        for (class, name) in collection.classes.iter().enumerate() {
            context.step("guides", class, collection.classes.len());
            let terms = asked.terms(job.seed, class, asked.folds);
            let images = collection.images_of(class).len();
            if images < RARE {
                notes.push(format!("class {name} has n = {images} images only"));
            }
            if let Some(lesson) = Lesson::new(&search, class, &learned, &given[class], terms) {
                let guide = method.curate(&lesson)?;
                guides.push(Written {
                    class,
                    images,
                    guide,
                });
            }
        }
        output.write(&[write::batch(collection, &guides)?])?;
        output.side("html", write::page(collection, &guides).as_bytes())?;
        let (form, key) = write::form(collection, &guides, &given, job.seed);
        output.side("form.csv", form.as_bytes())?;
        output.side("key.csv", key.as_bytes())?;
        let count = guides.len().max(1) as f64;
        let last = |w: &Written| w.guide.values.last().copied().unwrap_or_default();
        let pairs: usize = guides.iter().map(|w| w.guide.pairs.len()).sum();
        let mean = guides.iter().map(last).sum::<f64>() / count;
        Ok(Applied {
            files: output.finish()?,
            summary: vec![
                ("classes".into(), guides.len().to_string()),
                ("pairs".into(), pairs.to_string()),
                (
                    "mean average precision on the images learned from".into(),
                    format!("{mean:.4}"),
                ),
            ],
            notes,
            ..Applied::default()
        })
    }
}

/// The method of a job and what is asked of the task.
fn prepare(job: &Job) -> Result<(Box<dyn Curator>, TaskOptions)> {
    let (method, asked): (_, TaskOptions) = Entry::prepare(METHODS, job)?;
    if asked.alpha.is_some() && asked.fusion != Fusion::Early {
        return Err(Error::option(
            "alpha",
            "is the weight of early fusion; late fusion has none, leave it out",
        ));
    }
    Ok((method, asked))
}

/// What the reader should know of the rule and the index.
fn remarks(asked: &TaskOptions, index: &Index) -> Vec<String> {
    let rule = match asked.divide_by {
        DivideBy::Positives => "the images of the class",
        DivideBy::Reachable => "the images of the class or the returns, whichever are fewer",
    };
    let mut notes = vec![format!(
        "average precision of {} returns, divided by {rule}",
        asked.returns
    )];
    if let (Some(recall), Some((lists, probes))) = (index.recall, index.probes()) {
        notes.push(format!(
            "approximate index of {lists} lists, {probes} looked into: {:.1} % of the exact search's images",
            100.0 * recall
        ));
        if recall < 0.99 {
            notes.push("a recall of the index below 99 % changes average precisions; ask for more probes or an exact index".into());
        }
    }
    notes
}

/// Sums of measures.
#[derive(Default)]
struct Tally {
    count: f64,
    by_positives: f64,
    by_reachable: f64,
    area: f64,
    precision: f64,
    recall: f64,
    learned: f64,
    pairs: f64,
    /// Precision at even levels of recall.
    levels: Vec<f64>,
    /// Average precision on the images learned from, by number of pairs.
    growth: Vec<f64>,
}

impl Tally {
    /// Adds a class of a fold.
    fn add(&mut self, ranks: &Ranks, guide: &Guide, asked: &TaskOptions) {
        let last = guide.values.last().copied().unwrap_or_default();
        let by = |rule| ranks.average_precision(rule);
        let level = |l: usize| ranks.precision_at_recall(l as f64 / LEVELS as f64);
        // A guide that stopped early stays as good as it was.
        let grown = |i: usize| guide.values.get(i).copied().unwrap_or(last);
        self.merge(&Tally {
            count: 1.0,
            by_positives: by(DivideBy::Positives),
            by_reachable: by(DivideBy::Reachable),
            area: ranks.area(),
            precision: ranks.precision_at(10),
            recall: ranks.recall(),
            learned: last,
            pairs: guide.pairs.len() as f64,
            levels: (0..=LEVELS).map(level).collect(),
            growth: (0..asked.pairs).map(grown).collect(),
        });
    }

    /// Adds a fold as the mean of its classes.
    fn join(&mut self, fold: &Tally) {
        let share = 1.0 / fold.count;
        let scaled = |values: &[f64]| values.iter().map(|v| v * share).collect();
        self.merge(&Tally {
            count: 1.0,
            by_positives: fold.by_positives * share,
            by_reachable: fold.by_reachable * share,
            area: fold.area * share,
            precision: fold.precision * share,
            recall: fold.recall * share,
            learned: fold.learned * share,
            pairs: fold.pairs * share,
            levels: scaled(&fold.levels),
            growth: scaled(&fold.growth),
        });
    }

    fn merge(&mut self, other: &Tally) {
        self.count += other.count;
        self.by_positives += other.by_positives;
        self.by_reachable += other.by_reachable;
        self.area += other.area;
        self.precision += other.precision;
        self.recall += other.recall;
        self.learned += other.learned;
        self.pairs += other.pairs;
        for (to, from) in [
            (&mut self.levels, &other.levels),
            (&mut self.growth, &other.growth),
        ] {
            to.resize(from.len(), 0.0);
            to.iter_mut().zip(from).for_each(|(t, f)| *t += f);
        }
    }

    /// Means.
    fn finish(self, rule: DivideBy) -> Measurement {
        let mean = |sum: f64| sum / self.count;
        let map = match rule {
            DivideBy::Positives => self.by_positives,
            DivideBy::Reachable => self.by_reachable,
        };
        let metrics = [
            ("map", map),
            ("map-by-positives", self.by_positives),
            ("map-by-reachable", self.by_reachable),
            ("pr-area", self.area),
            ("precision-at-10", self.precision),
            ("recall", self.recall),
            ("learned-map", self.learned),
            ("pairs", self.pairs),
        ];
        let points = |values: &[f64], x: &dyn Fn(usize) -> f64| {
            let each = values.iter().enumerate();
            each.map(|(i, v)| (x(i), mean(*v))).collect()
        };
        Measurement {
            metrics: metrics.map(|(n, v)| (n.to_owned(), mean(v))).into(),
            curves: vec![
                Curve {
                    name: "precision against recall".into(),
                    x: "recall".into(),
                    y: "greatest precision".into(),
                    points: points(&self.levels, &|i| i as f64 / LEVELS as f64),
                },
                Curve {
                    name: "pairs".into(),
                    x: "pairs".into(),
                    y: "average precision on the images learned from".into(),
                    points: points(&self.growth, &|i| i as f64 + 1.0),
                },
            ],
            notes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, StringArray};
    use arrow::datatypes::{DataType, Field};
    use arrow::record_batch::RecordBatch;
    use papertrial_core::data::{ReadOptions, Roles};
    use papertrial_core::options::Settings;
    use papertrial_core::plan;
    use serde_json::{Value, json};
    use std::path::PathBuf;
    use std::sync::Arc;
    use tempfile::TempDir;

    const FAMILY: papertrial_core::task::Family = papertrial_core::task::Family {
        name: "test",
        tasks: &[&LabellingInstructions],
        simulations: simulations::SIMULATIONS,
        version: "test",
    };

    fn settings(value: Value) -> Settings {
        value.as_object().cloned().unwrap_or_default()
    }

    fn job(
        data: &str,
        data_options: Value,
        roles: Roles,
        method: &str,
        options: Value,
    ) -> Result<Job> {
        let read = ReadOptions::default();
        let source = plan::source(data, &settings(data_options), roles, &read, &FAMILY)?;
        let method = plan::method(&LabellingInstructions, method)?;
        let none = Settings::new();
        plan::job(
            &LabellingInstructions,
            &method,
            &settings(options),
            &none,
            &source,
            0,
        )
    }

    fn context() -> Context<'static> {
        Context {
            simulations: FAMILY.simulations,
            ..Context::with_seed(0)
        }
    }

    /// A file of rows with list vectors: columns of text first.
    fn table(
        folder: &TempDir,
        name: &str,
        texts: &[(&str, Vec<Option<String>>)],
        numbers: &[(&str, Vec<f32>)],
        vectors: &[Vec<f32>],
    ) -> PathBuf {
        let width = vectors[0].len() as i32;
        let item = Arc::new(Field::new_list_field(DataType::Float32, false));
        let flat = Arc::new(Float32Array::from(vectors.concat()));
        let lists: ArrayRef = Arc::new(FixedSizeListArray::new(item, width, flat, None));
        let mut columns: Vec<(&str, ArrayRef, bool)> = Vec::new();
        for (name, values) in texts {
            columns.push((name, Arc::new(StringArray::from(values.clone())), true));
        }
        for (name, values) in numbers {
            columns.push((name, Arc::new(Float32Array::from(values.clone())), true));
        }
        columns.push(("vector", lists, false));
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let path = folder.path().join(name);
        let mut out = Output::table(&path).unwrap();
        out.write(&[batch]).unwrap();
        out.finish().unwrap();
        path
    }

    /// Forty images of two patches; even images show a cat on the left patch, every fourth a dog on the right one.
    struct Files {
        folder: TempDir,
        patches: PathBuf,
        texts: PathBuf,
        labels: PathBuf,
    }

    fn files(labelled: bool) -> Files {
        let folder = tempfile::tempdir().unwrap();
        let (mut image, mut class, mut vectors) = (vec![], vec![], vec![]);
        let mut sides: [Vec<f32>; 4] = Default::default();
        let mut labels = String::from("image,class,x0,y0,x1,y1\n");
        for i in 0..40usize {
            let (cat, dog) = (i % 2 == 0, i % 4 == 1);
            let wobble = |k: usize| ((i * 7 + k * 3) % 5) as f32 / 20.0;
            let patches = [(0.0, cat, "cat", 0), (10.0, dog, "dog", 1)];
            for (left, shown, name, axis) in patches {
                let mut v = vec![wobble(0), wobble(1), wobble(2), 0.5];
                if shown {
                    v[axis] += 1.5;
                    labels += &format!("img{i}.jpg,{name},{},1,{},9\n", left + 1.0, left + 9.0);
                }
                for with_class in [false, true] {
                    if with_class && !(labelled && shown) {
                        continue;
                    }
                    image.push(Some(format!("img{i}.jpg")));
                    class.push(with_class.then(|| name.to_owned()));
                    let box_ = [left, 0.0, left + 10.0, 10.0];
                    sides.iter_mut().zip(box_).for_each(|(s, b)| s.push(b));
                    vectors.push(v.clone());
                }
            }
        }
        let names = ["x0", "y0", "x1", "y1"];
        let numbers: Vec<(&str, Vec<f32>)> = names.into_iter().zip(sides).collect();
        let mut columns = vec![("image", image)];
        if labelled {
            columns.push(("class", class));
        }
        let patches = table(&folder, "patches.parquet", &columns, &numbers, &vectors);
        let words = |w: [&str; 3]| w.map(|w| Some(w.to_owned())).to_vec();
        let texts = table(
            &folder,
            "texts.parquet",
            &[
                ("class", words(["cat", "cat", "dog"])),
                ("text", words(["a feline", "cat", "dog"])),
            ],
            &[],
            &[
                vec![0.4, 0.0, 0.0, 1.0],
                vec![0.3, 0.2, 0.1, 1.0],
                vec![0.0, 0.4, 0.0, 1.0],
            ],
        );
        let path = folder.path().join("labels.csv");
        std::fs::write(&path, labels).unwrap();
        Files {
            folder,
            patches,
            texts,
            labels: path,
        }
    }

    fn user(files: &Files, labelled: bool, method: &str, options: Value) -> Result<Job> {
        let roles = Roles {
            id: Some("image".into()),
            label: labelled.then(|| "class".into()),
            ..Roles::default()
        };
        let path = files.patches.display().to_string();
        let mut job = job(&path, json!({}), roles, method, options)?;
        let mut input = |name: &str, path: &Path| {
            let file = plan::file(path, &ReadOptions::default())?;
            job.inputs.insert(name.into(), file);
            Ok::<_, Error>(())
        };
        input("texts", &files.texts)?;
        if !labelled {
            input("labels", &files.labels)?;
        }
        Ok(job)
    }

    #[test]
    fn mosaics_are_measured_by_every_metric_and_again_alike() {
        let small = json!({"singles": 1200, "cuts": [2]});
        let made = |method: &str, options: Value| {
            let job = job(
                "digit-mosaics",
                small.clone(),
                Roles::default(),
                method,
                options,
            )?;
            LabellingInstructions.measure(&job, &context())
        };
        let options = json!({"folds": 2, "candidates": 6, "pairs": 2});
        let m = made("proxy-dataset-curator", options.clone()).unwrap();
        for metric in METRICS.iter().filter(|m| m.name != "index-recall") {
            assert!(m.metrics.contains_key(metric.name), "{}", metric.name);
        }
        let map = m.metrics["map"];
        assert!(map > 0.4 && map <= 1.0, "{map}");
        assert!(m.metrics["pairs"] <= 2.0 && m.curves.len() == 2);
        assert!(
            m.notes.iter().any(|n| n.contains("encoder")),
            "{:?}",
            m.notes
        );
        let mut again = made("proxy-dataset-curator", options).unwrap();
        let seconds = m.metrics["curate-seconds"];
        again.metrics.insert("curate-seconds".into(), seconds);
        assert_eq!(again, m);
        // A few returns: the two rules part.
        let m = made(
            "class-text",
            json!({"folds": 2, "returns": 3, "divide-by": "reachable"}),
        )
        .unwrap();
        assert!(m.metrics["map"] == m.metrics["map-by-reachable"]);
        assert!(m.metrics["map-by-positives"] < m.metrics["map-by-reachable"]);
    }

    #[test]
    fn a_users_tables_become_a_guide() {
        for labelled in [true, false] {
            let files = files(labelled);
            let job = user(&files, labelled, "proxy-dataset-curator", json!({})).unwrap();
            let out = files.folder.path().join("guide.jsonl");
            let applied = LabellingInstructions.apply(&job, &out, &context()).unwrap();
            assert_eq!(applied.files.len(), 4, "{:?}", applied.files);
            let text = std::fs::read_to_string(&out).unwrap();
            let rows: Vec<Value> = text
                .lines()
                .map(|l| serde_json::from_str(l).unwrap())
                .collect();
            let first = &rows[0];
            assert_eq!(
                (first["class"].as_str(), first["rank"].as_u64()),
                (Some("cat"), Some(1))
            );
            let image = first["image"].as_str().unwrap();
            let number: usize = image[3..image.len() - 4].parse().unwrap();
            assert_eq!(number % 2, 0);
            assert_eq!(first["x0"], if labelled { json!(0.0) } else { json!(1.0) });
            assert!(first["gain"].as_f64().unwrap() > 0.99, "{first}");
            let html = std::fs::read_to_string(files.folder.path().join("guide.html")).unwrap();
            assert!(html.contains("<h2>cat</h2>") && html.contains(image));
            if !labelled {
                // Crops of 8 x 8 in patches of 10 x 10.
                assert!(
                    applied.notes.iter().any(|n| n.contains("64 %")),
                    "{:?}",
                    applied.notes
                );
            }

            // The guide that was written can be scored, and its own images do not count.
            let mut job = user(&files, labelled, "given-guide", json!({"folds": 3})).unwrap();
            let file = plan::file(&out, &ReadOptions::default()).unwrap();
            job.inputs.insert("guide".into(), file);
            let m = LabellingInstructions.measure(&job, &context()).unwrap();
            assert!(m.metrics["map"] > 0.99, "{:?}", m.metrics);
        }
    }

    #[test]
    fn an_approximate_index_tells_its_recall() {
        let files = files(true);
        let options = json!({"index": "ivf", "folds": 2, "fusion": "late-mean"});
        let job = user(&files, true, "k-medoids", options).unwrap();
        let m = LabellingInstructions.measure(&job, &context()).unwrap();
        assert!(m.metrics["index-recall"] >= 0.99);
        assert!(m.notes.iter().any(|n| n.contains("lists")), "{:?}", m.notes);
    }

    #[test]
    fn whole_images_with_a_class_each_are_searched_too() {
        let folder = tempfile::tempdir().unwrap();
        let name = |i: usize| if i < 3 { "rare" } else { ["cat", "dog"][i % 2] };
        let vectors: Vec<Vec<f32>> = (0..30)
            .map(|i| match name(i) {
                "rare" => vec![0.0, 0.1, 1.0],
                "cat" => vec![1.0, i as f32 / 100.0, 0.1],
                _ => vec![0.1, 1.0, i as f32 / 100.0],
            })
            .collect();
        let class = (0..30).map(|i| Some(name(i).to_owned())).collect();
        let image = (0..30).map(|i| Some(i.to_string())).collect();
        let patches = table(
            &folder,
            "p.parquet",
            &[("image", image), ("class", class)],
            &[],
            &vectors,
        );
        let texts: Vec<Option<String>> =
            ["cat", "dog", "rare"].map(|w| Some(w.to_owned())).to_vec();
        let vectors = [
            vec![1.0, 0.5, 0.0],
            vec![0.5, 1.0, 0.0],
            vec![0.5, 0.5, 0.3],
        ];
        let columns = [("class", texts.clone()), ("text", texts)];
        let texts = table(&folder, "t.parquet", &columns, &[], &vectors);
        let files = Files {
            patches,
            texts,
            labels: PathBuf::new(),
            folder,
        };
        let job = user(&files, true, "best-pair", json!({})).unwrap();
        let m = LabellingInstructions.measure(&job, &context()).unwrap();
        assert!(m.metrics["map"] > 0.9);
        let told = |words: &str| m.notes.iter().any(|n| n.contains(words));
        assert!(
            told("every row has a class") && told("class rare has n = 3 images; 2 of 5 folds"),
            "{:?}",
            m.notes
        );
    }

    #[test]
    fn what_cannot_be_is_told() {
        let files = files(true);
        let told = |change: &dyn Fn(&mut Job), method: &str, options: Value| {
            let mut job = user(&files, true, method, options).unwrap();
            change(&mut job);
            LabellingInstructions
                .measure(&job, &context())
                .unwrap_err()
                .to_string()
        };
        let as_is = |_: &mut Job| ();
        let text = told(&|j| j.roles.id = None, "class-text", json!({}));
        assert!(
            text.contains("--id") && text.contains("image's name"),
            "{text}"
        );
        let text = told(&|j| drop(j.inputs.remove("texts")), "class-text", json!({}));
        assert!(text.contains("--texts FILE"), "{text}");
        let text = told(&|j| j.roles.label = None, "class-text", json!({}));
        assert!(text.contains("--labels FILE"), "{text}");
        let text = told(&as_is, "class-text", json!({"box-columns": ["x0"]}));
        assert!(text.contains("takes four"), "{text}");
        let text = told(
            &as_is,
            "class-text",
            json!({"box-columns": ["x0", "y0", "x1", "y2"]}),
        );
        assert!(text.contains("did you mean"), "{text}");
        let text = told(
            &as_is,
            "class-text",
            json!({"box-columns": ["x1", "y0", "x0", "y1"]}),
        );
        assert!(text.contains("is empty"), "{text}");
        let text = told(
            &as_is,
            "class-text",
            json!({"fusion": "late-max", "alpha": 0.5}),
        );
        assert!(text.contains("late fusion has none"), "{text}");
        let text = told(&as_is, "given-guide", json!({}));
        assert!(text.contains("needs a guide"), "{text}");
        let text = told(&as_is, "class-text", json!({"folds": 90}));
        assert!(text.contains("fewer folds"), "{text}");
        let label_twice = |j: &mut Job| {
            let file = plan::file(&files.labels, &ReadOptions::default()).unwrap();
            j.inputs.insert("labels".into(), file);
        };
        let text = told(&label_twice, "class-text", json!({}));
        assert!(text.contains("already"), "{text}");
        let guide = files.folder.path().join("bad.csv");
        for (row, says) in [
            ("cow,img0.jpg,cat", "class 'cow'"),
            ("cat,img1.jpg,cat", "no crop of class cat"),
            ("cat,img0.jpg,puss", "no text of class cat"),
            ("cat,,", "neither image nor text"),
        ] {
            std::fs::write(&guide, format!("class,image,text\n{row}\n")).unwrap();
            let with_guide = |j: &mut Job| {
                let file = plan::file(&guide, &ReadOptions::default()).unwrap();
                j.inputs.insert("guide".into(), file);
            };
            let text = told(&with_guide, "given-guide", json!({}));
            assert!(text.contains(says) && text.contains("row 1"), "{text}");
        }
    }
}
