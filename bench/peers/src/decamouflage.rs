//! `papertrial-bench decamouflage FILE TARGET_HEIGHT TARGET_WIDTH REPEATS`: seconds and scores of each test of Decamouflage on one picture, for
//! `bench/decamouflage.py`.

use crate::Result;
use papertrial_detect::image_scaling_attack::{
    Alpha, Convention, Filter, Kernel, Measure, Picture, Scaler, Test, View, forge, photo_like,
};
use serde_json::{Value, json};
use std::time::Instant;

pub fn run(words: &[String]) -> Result<Value> {
    let [file, height, width, repeats] = words else {
        return Err(
            "usage: papertrial-bench decamouflage FILE TARGET_HEIGHT TARGET_WIDTH REPEATS".into(),
        );
    };
    let (picture, _) = Picture::decode(&std::fs::read(file)?, Alpha::Drop)?;
    let view = View {
        target: (height.parse()?, width.parse()?),
        scaler: Scaler {
            kernel: Kernel::Bilinear,
            convention: Convention::Opencv,
        },
    };
    let filtering = |score| Test::Filtering {
        score,
        filter: Filter::Minimum,
        window: 2,
    };
    let mut found = serde_json::Map::new();
    for (name, test) in [
        ("rescaling", Test::Rescaling(Measure::Mse)),
        ("rescaling-ssim", Test::Rescaling(Measure::Ssim)),
        ("filtering", filtering(Measure::Mse)),
        ("filtering-ssim", filtering(Measure::Ssim)),
        ("spectrum", Test::Spectrum { level: 240 }),
    ] {
        let mut seconds = Vec::new();
        let mut score = 0.0;
        for _ in 0..repeats.parse()? {
            let start = Instant::now();
            score = test.score(&picture, &view)?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        found.insert(name.into(), json!({ "seconds": seconds, "score": score }));
    }
    let hidden = photo_like(view.target.0, view.target.1, 3, 1);
    let start = Instant::now();
    let forged = forge(&picture, &hidden, view.scaler)?;
    let seconds = start.elapsed().as_secs_f64();
    found.insert(
        "forge".into(),
        json!({ "seconds": [seconds], "score": forged.error }),
    );
    Ok(Value::Object(found))
}
