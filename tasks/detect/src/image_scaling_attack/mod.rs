//! Task `image-scaling-attack`: find pictures that turn into another picture once they are scaled down.
//!
//! A service that scales every upload to its network's input size can be deceived by a large picture that looks harmless
//! and comes out of that very scaling as another one. A method here looks at a picture alone, without any training, and
//! says whether it is such an attack; most need a threshold, from clean pictures or from attacks made of them. What a
//! method finds depends on the scaling, which must be the service's own: kernel, convention and target size.
//!
//! Here are the list of methods, the metrics and the options of the task; each method has a file of its own, and so have
//! the parts: scaling, comparing, the spectrum, the attack.
//!
//! ```
//! use papertrial_detect::image_scaling_attack::{
//!     Convention, Decamouflage, Detector, Kernel, Known, Scaler, View, forge, photo_like,
//! };
//!
//! let scaler = Scaler { kernel: Kernel::Bilinear, convention: Convention::Opencv };
//! let view = View { target: (32, 32), scaler };
//! let mut detector = Detector::new(&Decamouflage::default(), view)?;
//! let clean: Vec<Vec<f64>> = (0..10)
//!     .map(|seed| detector.scores(&photo_like(200, 200, 3, seed)))
//!     .collect::<Result<_, _>>()?;
//! detector.calibrate(&Known { clean: &clean, attack: &[], percentile: 1.0, seed: 0 })?;
//!
//! let attack = forge(&photo_like(200, 200, 3, 11), &photo_like(32, 32, 3, 12), scaler)?;
//! assert!(detector.verdict(&attack.picture)?);
//! # Ok::<(), papertrial_core::Error>(())
//! ```

mod applied;
mod asked;
mod attack;
mod baselines;
mod compare;
mod decamouflage;
mod detector;
mod filters;
mod forging;
mod input;
mod picture;
mod restoration;
mod scaler;
mod score;
pub(crate) mod simulation;
mod spectrum;
mod threshold;
mod trial;

pub use asked::{Calibration, TaskOptions};
pub use attack::{Forged, forge};
pub use baselines::{ColourHistogram, ForgeAttack, MedianRestoration, RandomThreshold};
pub use compare::{histogram_correlation, mse_per_pixel, ssim};
pub use decamouflage::{Decamouflage, FilteringTest, RescalingTest, SteganalysisTest};
pub use detector::Detector;
pub use filters::{Filter, filtered};
pub use picture::{Alpha, Picture};
pub use restoration::restored;
pub use scaler::{Convention, Kernel, Scaler, Scaling, Weights};
pub use score::{Measure, Part, Rule, Side, Test, View};
pub use simulation::photo_like;
pub use spectrum::spectrum_points;
pub use threshold::{Known, black_box, vote, white_box};

use papertrial_core::methods;
use papertrial_core::task::{Applied, Context, Entry, Job, Measurement, MetricInfo, Task};
use papertrial_core::{Error, Result};
use std::path::Path;

/// A method of the task.
pub trait ScalingMethod: Send + Sync {
    /// What it does.
    ///
    /// # Errors
    /// Options that do not go together.
    fn plan(&self) -> Result<Plan>;
}

/// What a method does.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// Judges pictures by these tests; of several, most decide.
    Detect(Vec<Part>),
    /// Makes attacks.
    Forge,
}

/// The methods. A new one is a `mod` line above and a line here.
const METHODS: &[Entry<dyn ScalingMethod>] = methods![
    dyn ScalingMethod;
    Decamouflage,
    RescalingTest,
    FilteringTest,
    SteganalysisTest,
    MedianRestoration,
    ColourHistogram,
    RandomThreshold,
    ForgeAttack,
];

const METRICS: &[MetricInfo] = &[
    MetricInfo::new(
        "accuracy",
        Some(true),
        "share of clean pictures and attacks that are judged rightly, 0 to 1",
    ),
    MetricInfo::new(
        "precision",
        Some(true),
        "share of attacks among the pictures judged to be attacks, 0 to 1",
    ),
    MetricInfo::new(
        "recall",
        Some(true),
        "share of the attacks that are found, 0 to 1",
    ),
    MetricInfo::new(
        "false-acceptance-rate",
        Some(false),
        "share of the attacks that are accepted, 0 to 1",
    ),
    MetricInfo::new(
        "false-rejection-rate",
        Some(false),
        "share of the clean pictures that are rejected, 0 to 1",
    ),
    MetricInfo::new(
        "auc",
        Some(true),
        "probability that an attack scores on the attacks' side of a clean picture, for a single test, 0 to 1",
    ),
    MetricInfo::new(
        "rescaling-auc",
        Some(true),
        "the same of the vote's rescaling test",
    ),
    MetricInfo::new(
        "filtering-auc",
        Some(true),
        "the same of the vote's filtering test",
    ),
    MetricInfo::new(
        "spectrum-auc",
        Some(true),
        "the same of the vote's steganalysis test",
    ),
    MetricInfo::new(
        "attack-success",
        None,
        "share of the attacks that the scaling turns into what they hide, 0 to 1",
    ),
    MetricInfo::new(
        "attack-error",
        None,
        "mean distance of a scaled attack from what it hides, in grey levels of 255",
    ),
    MetricInfo::new(
        "attack-similarity",
        None,
        "mean structural similarity of an attack and its source: how little it shows, at most 1",
    ),
    MetricInfo::new(
        "milliseconds-per-test",
        Some(false),
        "the method's slowest test on one core: median over pictures, in milliseconds",
    )
    .timed(),
    MetricInfo::new(
        "milliseconds-per-picture",
        Some(false),
        "all tests of the method on one core: mean over pictures, in milliseconds",
    )
    .timed(),
];

/// The task.
pub struct ImageScalingAttack;

impl Task for ImageScalingAttack {
    papertrial_core::states! {
        "image-scaling-attack",
        "find pictures that turn into another picture once they are scaled down",
        METHODS,
        METRICS,
        TaskOptions,
    }

    fn inputs(&self) -> &'static [(&'static str, &'static str)] {
        &[
            (
                "benign",
                "clean pictures of one's own, from which thresholds come: a folder, a list or a table",
            ),
            (
                "attack",
                "known attacks, beside which thresholds are set; without them, attacks are made of the clean pictures",
            ),
            (
                "hidden",
                "forge only: pictures to hide; without them, each picture hides the next one",
            ),
        ]
    }

    fn opens(&self, path: &Path) -> bool {
        path.is_dir() || input::is_picture(path)
    }

    fn measure(&self, job: &Job, context: &Context) -> Result<Measurement> {
        let (plan, asked) = prepare(job)?;
        trial::measure(&plan, &asked, job, context)
    }

    fn apply(&self, job: &Job, out: &Path, context: &Context) -> Result<Applied> {
        let (plan, asked) = prepare(job)?;
        match plan {
            Plan::Detect(parts) => applied::run(parts, &asked, job, out, context),
            Plan::Forge => forging::run(&asked, job, out, context),
        }
    }
}

/// What a job's method does and what is asked of the task.
fn prepare(job: &Job) -> Result<(Plan, TaskOptions)> {
    let (method, asked): (Box<dyn ScalingMethod>, TaskOptions) = Entry::prepare(METHODS, job)?;
    asked.target()?;
    // A kernel that the convention lacks is told before any picture is read.
    asked.scaler().weights(2, 1)?;
    if !(asked.percentile > 0.0 && asked.percentile < 50.0) {
        return Err(Error::option(
            "percentile",
            "should be above 0 and below 50",
        ));
    }
    if !(asked.train_fraction > 0.0 && asked.train_fraction < 1.0) {
        return Err(Error::option(
            "train-fraction",
            "should be above 0 and below 1",
        ));
    }
    if asked.ratio_min > asked.ratio_max {
        return Err(Error::option(
            "ratio-min",
            format!(
                "{} is above ratio-max, {}",
                asked.ratio_min, asked.ratio_max
            ),
        ));
    }
    Ok((method.plan()?, asked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use papertrial_core::data::{ReadOptions, Roles};
    use papertrial_core::options::Settings;
    use papertrial_core::plan;
    use papertrial_core::task::{Family, Input};
    use serde_json::{Value, json};
    use std::path::PathBuf;

    const FAMILY: Family = Family {
        name: "detect",
        tasks: &[&ImageScalingAttack],
        simulations: simulation::SIMULATIONS,
        version: "test",
    };

    fn settings(value: Value) -> Settings {
        value.as_object().cloned().unwrap_or_default()
    }

    /// A job on a path, or on the simulation with small pictures.
    fn job(data: &str, method: &str, options: Value) -> Result<Job> {
        let simulated = match data {
            "photo-like" => settings(json!({
                "pictures": 24, "picture-width": 200, "picture-height": 160
            })),
            _ => Settings::new(),
        };
        let read = ReadOptions::default();
        let source = plan::source(data, &simulated, Roles::default(), &read, &FAMILY)?;
        let method = plan::method(&ImageScalingAttack, method)?;
        let none = Settings::new();
        plan::job(
            &ImageScalingAttack,
            &method,
            &none,
            &settings(options),
            &source,
            3,
        )
    }

    fn context() -> Context<'static> {
        Context {
            simulations: simulation::SIMULATIONS,
            ..Context::with_seed(3)
        }
    }

    fn measure(method: &str, options: Value) -> Result<Measurement> {
        ImageScalingAttack.measure(&job("photo-like", method, options)?, &context())
    }

    fn told<T>(result: Result<T>) -> String {
        result.err().map(|e| e.to_string()).unwrap_or_default()
    }

    /// A folder with `count` photograph-like PNG files in it.
    fn folder(path: PathBuf, count: u64, first: u64) -> PathBuf {
        std::fs::create_dir_all(&path).unwrap();
        for i in first..first + count {
            let file = path.join(format!("p{i:02}.png"));
            std::fs::write(file, photo_like(160, 200, 3, i).png().unwrap()).unwrap();
        }
        path
    }

    fn input(path: &Path) -> Input {
        plan::file(path, &ReadOptions::default()).unwrap()
    }

    /// The lines of a written report, by column.
    fn lines(path: &Path) -> Vec<std::collections::BTreeMap<String, String>> {
        let table = papertrial_core::data::Table::open(path, &ReadOptions::default()).unwrap();
        let columns: Vec<(String, Vec<Option<String>>)> = (table.columns().iter().enumerate())
            .map(|(i, name)| ((*name).to_owned(), table.texts(i).unwrap()))
            .collect();
        (0..table.rows() as usize)
            .map(|row| {
                let cell = |(name, cells): &(String, Vec<Option<String>>)| {
                    (name.clone(), cells[row].clone().unwrap_or_default())
                };
                columns.iter().map(cell).collect()
            })
            .collect()
    }

    #[test]
    fn every_method_is_measured_and_the_floor_is_the_lowest() {
        let mut found = std::collections::BTreeMap::new();
        for entry in METHODS {
            let m = measure(entry.facts.name, json!({})).unwrap();
            assert!(m.notes[0].contains("no anti-aliasing"), "{:?}", m.notes);
            assert_eq!(m.metrics["attack-success"], 1.0);
            for (name, value) in &m.metrics {
                assert!(METRICS.iter().any(|m| m.name == name), "{name}");
                assert!(value.is_finite(), "{name}");
            }
            if entry.facts.name != "forge" {
                found.insert(entry.facts.name, m);
            }
        }
        let accuracy = |name: &str| found[name].metrics["accuracy"];
        assert!(accuracy("rescaling-test") >= 0.9);
        assert!(accuracy("decamouflage") >= 0.9);
        assert!(accuracy("rescaling-test") >= accuracy("random-threshold"));
        let vote = &found["decamouflage"].metrics;
        assert!(vote["rescaling-auc"] > 0.95 && !vote.contains_key("auc"));
        assert!(found["rescaling-test"].metrics["auc"] > 0.95);
        let m = vote;
        let errors = m["false-acceptance-rate"] + m["false-rejection-rate"];
        assert!((m["accuracy"] - (1.0 - errors / 2.0)).abs() < 1e-12);
        assert!((m["recall"] + m["false-acceptance-rate"] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_same_seed_gives_the_same_result_and_thresholds_can_come_from_elsewhere() {
        let untimed = |mut m: Measurement| {
            m.metrics
                .retain(|name, _| !name.starts_with("milliseconds"));
            m
        };
        let first = untimed(measure("decamouflage", json!({})).unwrap());
        assert_eq!(untimed(measure("decamouflage", json!({})).unwrap()), first);
        let dir = tempfile::tempdir().unwrap();
        let other = folder(dir.path().join("other"), 12, 70);
        let elsewhere = json!({"calibrate-on": other, "calibration": "black-box"});
        let m = untimed(measure("rescaling-test", elsewhere).unwrap());
        assert!(
            m.notes
                .last()
                .unwrap()
                .contains("from 12 clean pictures and 0 attacks")
        );
        assert!(m.metrics["recall"] > 0.9);
        let fixed = json!({"target-size": "40x32", "width": 240, "height": 200});
        let m = measure("filtering-test", fixed).unwrap();
        assert!(m.metrics["accuracy"] > 0.8);
    }

    #[test]
    fn a_folder_is_judged_with_thresholds_of_the_users_own() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let benign = folder(at("benign"), 12, 0);
        let uploads = folder(at("uploads"), 3, 40);
        let scaler = Scaler {
            kernel: Kernel::Bilinear,
            convention: Convention::Opencv,
        };
        let attack = forge(
            &photo_like(160, 200, 3, 50),
            &photo_like(32, 40, 3, 51),
            scaler,
        )
        .unwrap();
        std::fs::create_dir(uploads.join("more")).unwrap();
        std::fs::write(uploads.join("more/bad.png"), attack.picture.png().unwrap()).unwrap();
        std::fs::write(
            uploads.join("small.png"),
            photo_like(30, 40, 1, 1).png().unwrap(),
        )
        .unwrap();
        std::fs::write(uploads.join("torn.jpg"), b"\xFF\xD8\xFF\xE0 torn").unwrap();
        std::fs::write(uploads.join("readme.txt"), b"no picture").unwrap();

        for calibration in ["black-box", "white-box"] {
            let options = json!({
                "target-size": "40x32", "views": true, "calibration": calibration
            });
            let data = uploads.display().to_string();
            let mut made = job(&data, "decamouflage", options.clone()).unwrap();
            let out = at("report.csv");
            let missing = told(ImageScalingAttack.apply(&made, &out, &context()));
            assert!(missing.contains("--input benign"), "{missing}");
            made.inputs.insert("benign".into(), input(&benign));
            let applied = ImageScalingAttack.apply(&made, &out, &context()).unwrap();
            let found = lines(&out);
            let verdicts: Vec<(&str, &str)> = (found.iter())
                .map(|l| (l["file"].as_str(), l["verdict"].as_str()))
                .collect();
            assert_eq!(
                verdicts,
                [
                    ("more/bad.png", "attack"),
                    ("p40.png", "clean"),
                    ("p41.png", "clean"),
                    ("p42.png", "clean"),
                    ("small.png", "not-applicable"),
                    ("torn.jpg", "unreadable"),
                ],
                "{calibration}"
            );
            assert!(found[0]["scaling"].contains("40x32 by bilinear (opencv: half-pixel"));
            let number = |name: &str| found[0][name].parse::<f64>().unwrap();
            assert!(
                (number("rescaling_mse") / 3.0 - number("rescaling_mse_per_value")).abs() < 1e-9
            );
            assert!(number("filtering_ssim") < 1.0 && number("spectrum_points") >= 1.0);
            assert_eq!(found[0]["rescaling_verdict"], "attack");
            assert_eq!(applied.skipped.len(), 1);
            assert!(
                applied.skipped[0].contains("torn.jpg"),
                "{:?}",
                applied.skipped
            );
            let unreadable = ("unreadable".to_owned(), "1".to_owned());
            assert!(applied.summary.contains(&unreadable));
            // What the model sees of the attack is what it hides.
            let bytes = std::fs::read(at("report.views/more_bad.png")).unwrap();
            let (seen, _) = Picture::decode(&bytes, Alpha::Reject).unwrap();
            assert!(mse_per_pixel(&seen, &photo_like(32, 40, 3, 51)) < 27.0);

            // The thresholds serve again, for the same scaling alone.
            let kept = at("report.thresholds.json");
            let mut again = job(&data, "decamouflage", options).unwrap();
            again.inputs.insert("model".into(), input(&kept));
            let second = at("again.csv");
            ImageScalingAttack
                .apply(&again, &second, &context())
                .unwrap();
            let read = |path: &Path| std::fs::read_to_string(path).unwrap();
            assert_eq!(read(&out), read(&second));
            assert!(!at("again.thresholds.json").exists());
            let other = json!({"target-size": "32x32"});
            let mut wrong = job(&data, "decamouflage", other).unwrap();
            wrong.inputs.insert("model".into(), input(&kept));
            let wrong = told(ImageScalingAttack.apply(&wrong, &second, &context()));
            assert!(wrong.contains("holds for 40x32"), "{wrong}");
        }
    }

    #[test]
    fn forged_pictures_are_found_again_and_need_a_lossless_format() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let clean = folder(at("clean"), 12, 20);
        let options = json!({"target-size": "40x32", "convention": "tensorflow"});
        let made = job(&clean.display().to_string(), "forge", options.clone()).unwrap();
        let out = at("made.csv");
        let applied = ImageScalingAttack.apply(&made, &out, &context()).unwrap();
        assert!(applied.files.contains(&at("made.attacks")));
        let found = lines(&out);
        assert_eq!(found.len(), 12);
        assert_eq!(
            (found[11]["hidden"].as_str(), found[11]["success"].as_str()),
            ("p20.png", "true")
        );

        let attacks = at("made.attacks");
        let mut judged = job(&attacks.display().to_string(), "rescaling-test", options).unwrap();
        judged.inputs.insert("benign".into(), input(&clean));
        judged.inputs.insert("attack".into(), input(&attacks));
        let out = at("judged.csv");
        let applied = ImageScalingAttack.apply(&judged, &out, &context()).unwrap();
        assert!(
            applied
                .summary
                .iter()
                .any(|s| s.1.contains("12 given attacks")),
            "{:?}",
            applied.summary
        );
        assert!(lines(&out).iter().all(|l| l["verdict"] == "attack"));

        // Known attacks serve in a trial as well.
        let mut trial = job(
            &clean.display().to_string(),
            "rescaling-test",
            json!({"target-size": "40x32", "convention": "tensorflow", "train-fraction": 0.84}),
        )
        .unwrap();
        trial.inputs.insert("attack".into(), input(&attacks));
        let m = ImageScalingAttack.measure(&trial, &context()).unwrap();
        assert_eq!(m.metrics["recall"], 1.0);
        assert!(!m.metrics.contains_key("attack-success"));
        // A JPEG of the same picture hides nothing any more.
        let bytes = std::fs::read(attacks.join("p20.png")).unwrap();
        let picture = image::load_from_memory(&bytes).unwrap();
        let mut lossy = std::io::Cursor::new(Vec::new());
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut lossy, 60)
            .encode_image(&picture)
            .unwrap();
        let view = View {
            target: (32, 40),
            scaler: Scaler {
                kernel: Kernel::Bilinear,
                convention: Convention::Tensorflow,
            },
        };
        let seen = |bytes: &[u8]| {
            let picture = Picture::decode(bytes, Alpha::Reject).unwrap().0;
            view.seen(&picture).unwrap()
        };
        let (kept, lost) = (seen(&bytes), seen(&lossy.into_inner()));
        assert!(mse_per_pixel(&kept, &lost) > 100.0);
    }

    #[test]
    fn lists_and_tables_of_bytes_are_pictures_too() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        folder(at("photos"), 2, 0);
        std::fs::write(
            at("list.csv"),
            "n,file\n1,photos/p01.png\n2,photos/none.png\n3,\n",
        )
        .unwrap();
        let options = json!({"target-size": "40x32"});
        let out = at("report.jsonl");
        let made = job(
            &at("list.csv").display().to_string(),
            "steganalysis-test",
            options.clone(),
        )
        .unwrap();
        ImageScalingAttack.apply(&made, &out, &context()).unwrap();
        let found = lines(&out);
        assert_eq!(found[0]["verdict"], "clean");
        assert_eq!(found[1]["notes"], "there is no such file");
        assert_eq!(
            (found[2]["file"].as_str(), found[2]["verdict"].as_str()),
            ("row 3", "unreadable")
        );
        assert!(!at("report.thresholds.json").exists());
        let made = job("photo-like", "steganalysis-test", options.clone()).unwrap();
        ImageScalingAttack.apply(&made, &out, &context()).unwrap();
        assert_eq!(lines(&out).len(), 24);
        std::fs::write(at("other.csv"), "a,b\n1,2\n").unwrap();
        let made = job(
            &at("other.csv").display().to_string(),
            "steganalysis-test",
            options,
        )
        .unwrap();
        let e = told(ImageScalingAttack.apply(&made, &out, &context()));
        assert!(e.contains("no column holds pictures"), "{e}");
    }

    #[test]
    fn options_that_cannot_be_are_refused() {
        for (bad, why) in [
            (json!({"target-size": "224"}), "width x height"),
            (json!({"target-size": "0x9"}), "width x height"),
            (
                json!({"scaler": "lanczos", "convention": "tensorflow-1"}),
                "lanczos",
            ),
            (json!({"ratio-min": 8, "ratio-max": 4}), "ratio-max"),
            (json!({"percentile": 0}), "percentile"),
            (json!({"train-fraction": 1}), "train-fraction"),
            (json!({"window": 4}), "window"),
            (json!({"scaler": "cubic"}), "bicubic"),
            (json!({"train-fraction": 0.2}), "too few"),
            (json!({"target-size": "400x400"}), "larger"),
        ] {
            let e = told(measure("filtering-test", bad.clone()));
            assert!(e.contains(why), "{bad}: {e}");
        }
        let dir = tempfile::tempdir().unwrap();
        let few = folder(dir.path().join("few"), 9, 0);
        let trial = json!({"calibrate-on": "elsewhere"});
        let made = job(&few.display().to_string(), "rescaling-test", trial).unwrap();
        let e = told(ImageScalingAttack.apply(&made, &dir.path().join("o.csv"), &context()));
        assert!(e.contains("is for trials"), "{e}");
        let options = json!({"target-size": "40x32"});
        let mut made = job(&few.display().to_string(), "rescaling-test", options).unwrap();
        made.inputs.insert("benign".into(), input(&few));
        let e = told(ImageScalingAttack.apply(&made, &dir.path().join("o.csv"), &context()));
        assert!(e.contains("9 clean pictures are too few"), "{e}");
        assert!(!dir.path().join("o.csv").exists());
    }
}
