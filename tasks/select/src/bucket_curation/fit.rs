//! Fitting the laws to training runs on single buckets: a whole grid, then finer grids around its best point.
//!
//! The paper searches by grid because gradients were unstable; its script shuffles the grid and stops after 100,000
//! points, this one goes through all of it. That is cheap because for given normaliser and half-life the logarithm of
//! a prediction is linear in the exponent: going down the exponents multiplies by a constant, and d needs sums only.

use super::law::{Own, Shared, Wear, logarithms};
use papertrial_core::{Error, Result};
use rayon::prelude::*;
use serde::Serialize;

/// Error after training on one bucket for a while.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Samples seen, repeated rows counted each time.
    pub samples: f64,
    /// Error then, 0 to 1.
    pub error: f64,
}

/// A bucket with its training run.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    /// Name.
    pub name: String,
    /// Rows.
    pub rows: f64,
    /// Its run, samples ascending.
    pub points: Vec<Point>,
}

/// What is searched.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// What repetition wears out.
    pub wear: Wear,
    /// The slip of the paper's code.
    pub irreducible_decays: bool,
    /// Normalisers a'; none: from the size of the buckets.
    pub normalisers: Vec<f64>,
    /// Irreducible errors d.
    pub irreducible: Vec<f64>,
    /// Steepest exponent tried first; doubled while the best one lies at the edge.
    pub steepest: f64,
    /// Half-lives tried, ascending.
    pub half_lives: Vec<f64>,
    /// Points before this many passes are left out: the start of a training is no power law.
    pub from_passes: f64,
}

/// Laws of all buckets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Laws {
    /// What they share.
    pub shared: Shared,
    /// What is each one's own.
    pub own: Vec<Own>,
    /// Root mean squared difference from the points.
    pub rmse: f64,
}

/// Exponents, and half-lives, in a grid.
pub const STEPS: usize = 100;
/// Exponents are tried up to this one.
const STEEPEST: f64 = 4.0;
/// Finer grids around the best point, each a fifth as wide.
const ZOOMS: usize = 4;
const ZOOM_STEPS: usize = 11;

/// Sum of squared errors and the parameters that gave it.
#[derive(Debug, Clone, Copy)]
struct Best {
    squares: f64,
    own: Own,
}

/// Fits normaliser and d that all buckets share, and each one's exponent and half-life.
///
/// # Errors
/// A bucket with fewer than three points beyond its first pass, which cannot tell how fast repetition wears out.
pub fn fit(buckets: &[Bucket], grid: &Grid) -> Result<Laws> {
    let used: Vec<Vec<Point>> = buckets
        .iter()
        .map(|b| usable(b, grid.from_passes))
        .collect::<Result<_>>()?;
    let normalisers = if grid.normalisers.is_empty() {
        relative_normalisers(buckets)
    } else {
        grid.normalisers.clone()
    };
    // One task a normaliser; the best of all is taken in their order, so threads do not matter.
    let found: Vec<(f64, f64, Vec<Own>)> = normalisers
        .par_iter()
        .map(|a| {
            let mut by_d = vec![(0.0, Vec::new()); grid.irreducible.len()];
            for (bucket, points) in buckets.iter().zip(&used) {
                let best = search(bucket.rows, points, grid, *a, &grid.half_lives);
                for (sum, best) in by_d.iter_mut().zip(best) {
                    sum.0 += best.squares;
                    sum.1.push(best.own);
                }
            }
            let (d, (squares, own)) = by_d
                .into_iter()
                .enumerate()
                .min_by(|x, y| x.1.0.total_cmp(&y.1.0))
                .unwrap_or_default();
            (
                squares,
                grid.irreducible.get(d).copied().unwrap_or(0.0),
                own,
            )
        })
        .collect();
    let (place, (_, d, own)) = found
        .into_iter()
        .enumerate()
        .min_by(|x, y| x.1.0.total_cmp(&y.1.0))
        .ok_or_else(|| Error::option("normalisers", "needs at least one"))?;
    let shared = Shared {
        normaliser: normalisers[place],
        irreducible: d,
        wear: grid.wear,
        irreducible_decays: grid.irreducible_decays,
    };
    let mut squares = 0.0;
    let own = buckets
        .iter()
        .zip(&used)
        .zip(own)
        .map(|((bucket, points), own)| {
            let best = zoom(bucket.rows, points, &shared, own, &grid.half_lives);
            squares += best.squares;
            best.own
        })
        .collect();
    let n: usize = used.iter().map(Vec::len).sum();
    Ok(Laws {
        shared,
        own,
        rmse: (squares / n as f64).sqrt(),
    })
}

/// The own parameters of a bucket whose shared ones are known.
pub fn refit(rows: f64, points: &[Point], grid: &Grid, shared: &Shared) -> Own {
    let grid = Grid {
        irreducible: vec![shared.irreducible],
        ..grid.clone()
    };
    let half_lives: Vec<f64> = grid.half_lives.iter().copied().step_by(4).collect();
    search(rows, points, &grid, shared.normaliser, &half_lives)[0].own
}

/// The points of a run that the fit uses.
///
/// # Errors
/// Fewer than three lie beyond the first pass.
pub fn usable(bucket: &Bucket, from_passes: f64) -> Result<Vec<Point>> {
    let points: Vec<Point> = bucket
        .points
        .iter()
        .copied()
        .filter(|p| p.samples >= from_passes * bucket.rows)
        .collect();
    let beyond = points.iter().filter(|p| p.samples > bucket.rows).count();
    if beyond < 3 {
        return Err(Error::BadInput(format!(
            "bucket {} has {beyond} checkpoints beyond its first pass of {} rows; at least 3 are needed to tell how \
             fast repetition wears out",
            bucket.name, bucket.rows
        )));
    }
    Ok(points)
}

/// Normalisers that put the first pass of a mean bucket where the paper's grid puts that of its own buckets: between a
/// few hundredths and hundreds of normalised samples.
fn relative_normalisers(buckets: &[Bucket]) -> Vec<f64> {
    let rows = buckets.iter().map(|b| b.rows).sum::<f64>() / buckets.len().max(1) as f64;
    spaced(0.1f64.ln(), 300f64.ln(), 60)
        .iter()
        .map(|l| l.exp() * 100_000.0 / rows)
        .collect()
}

/// For each d, the best exponent and half-life of a bucket.
fn search(
    rows: f64,
    points: &[Point],
    grid: &Grid,
    normaliser: f64,
    half_lives: &[f64],
) -> Vec<Best> {
    let none = Best {
        squares: f64::INFINITY,
        own: Own {
            utility: -grid.steepest,
            half_life: half_lives[0],
        },
    };
    let mut steepest = grid.steepest;
    loop {
        let mut best = vec![none; grid.irreducible.len()];
        let step = steepest / STEPS as f64;
        let mut factors = vec![(0.0, 0.0); points.len()];
        let mut values = vec![(0.0, 0.0); points.len()];
        for half_life in half_lives {
            for ((factor, value), point) in factors.iter_mut().zip(&mut values).zip(points) {
                let (first, later) = logarithms(point.samples, rows, grid.wear, *half_life);
                let whole = normaliser.ln() + first + later;
                let offset = if grid.irreducible_decays { later } else { 0.0 };
                *factor = ((-step * whole).exp(), (-step * offset).exp());
                *value = (1.0, 1.0);
            }
            for i in 1..=STEPS {
                let (mut squares, mut cross, mut offsets) = (0.0, 0.0, 0.0);
                for ((factor, value), point) in factors.iter().zip(&mut values).zip(points) {
                    value.0 *= factor.0;
                    value.1 *= factor.1;
                    let gap = value.0 - point.error;
                    squares += gap * gap;
                    cross += gap * value.1;
                    offsets += value.1 * value.1;
                }
                for (best, d) in best.iter_mut().zip(&grid.irreducible) {
                    let sum = squares + 2.0 * d * cross + d * d * offsets;
                    if sum < best.squares {
                        *best = Best {
                            squares: sum,
                            own: Own {
                                utility: -step * i as f64,
                                half_life: *half_life,
                            },
                        };
                    }
                }
            }
        }
        let edge = |b: &Best| b.own.utility <= -steepest * (1.0 - 1e-9);
        if steepest * 2.0 > STEEPEST || !best.iter().any(edge) {
            return best;
        }
        steepest *= 2.0;
    }
}

/// Finer and finer grids around `own`.
fn zoom(rows: f64, points: &[Point], shared: &Shared, own: Own, half_lives: &[f64]) -> Best {
    let (shortest, longest) = (half_lives[0], half_lives[half_lives.len() - 1]);
    let squares = |own: Own| {
        points
            .iter()
            .map(|p| (super::law::predict(shared, &[(own, rows)], p.samples) - p.error).powi(2))
            .sum::<f64>()
    };
    let mut best = Best {
        squares: squares(own),
        own,
    };
    let mut width = (
        -own.utility.min(-0.005) * 0.2,
        (longest - shortest) / half_lives.len() as f64 * 2.0,
    );
    for _ in 0..ZOOMS {
        let centre = best.own;
        for b in spaced(
            centre.utility - width.0,
            centre.utility + width.0,
            ZOOM_STEPS,
        ) {
            for tau in spaced(
                (centre.half_life - width.1).max(shortest),
                (centre.half_life + width.1).min(longest),
                ZOOM_STEPS,
            ) {
                let own = Own {
                    // More training never hurts under this law.
                    utility: b.min(-1e-6),
                    half_life: tau,
                };
                let sum = squares(own);
                if sum < best.squares {
                    best = Best { squares: sum, own };
                }
            }
        }
        width = (width.0 / 5.0, width.1 / 5.0);
    }
    best
}

/// `n` numbers from `from` to `to`.
pub fn spaced(from: f64, to: f64, n: usize) -> Vec<f64> {
    (0..n)
        .map(|i| from + (to - from) * i as f64 / (n - 1).max(1) as f64)
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::law::predict;
    use super::*;

    pub fn grid() -> Grid {
        Grid {
            wear: Wear::EffectiveUtility,
            irreducible_decays: false,
            normalisers: Vec::new(),
            irreducible: spaced(0.02, 0.15, 10),
            steepest: 0.5,
            half_lives: spaced(1.0, 30.0, STEPS),
            from_passes: 0.5,
        }
    }

    pub fn bucket(name: &str, rows: f64, shared: &Shared, own: Own) -> Bucket {
        let points = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0]
            .iter()
            .map(|passes| Point {
                samples: passes * rows,
                error: predict(shared, &[(own, rows)], passes * rows),
            })
            .collect();
        Bucket {
            name: name.into(),
            rows,
            points,
        }
    }

    #[test]
    fn laws_that_made_the_points_are_found_again() {
        for wear in [Wear::EffectiveUtility, Wear::EffectiveData] {
            let truth = Shared {
                normaliser: 2_000.0,
                irreducible: 0.1,
                wear,
                irreducible_decays: false,
            };
            let own = [(-0.21, 2.3), (-0.12, 4.1), (-0.7, 3.0)]
                .map(|(utility, half_life)| Own { utility, half_life });
            let buckets: Vec<Bucket> = own
                .iter()
                .enumerate()
                .map(|(i, own)| bucket(&i.to_string(), 1000.0, &truth, *own))
                .collect();
            let found = fit(
                &buckets,
                &Grid {
                    wear,
                    normalisers: vec![500.0, 2_000.0, 8_000.0],
                    irreducible: vec![0.02, 0.1, 0.15],
                    ..grid()
                },
            )
            .unwrap();
            assert_eq!(found.shared, truth);
            assert!(found.rmse < 1e-3, "{found:?}");
            for (got, want) in found.own.iter().zip(&own) {
                assert!(
                    (got.utility - want.utility).abs() < 0.01,
                    "{got:?} {want:?}"
                );
                assert!(
                    (got.half_life - want.half_life).abs() < 0.1,
                    "{got:?} {want:?}"
                );
            }
        }
    }

    #[test]
    fn without_a_given_normaliser_predictions_are_still_close() {
        let truth = Shared {
            normaliser: 900.0,
            irreducible: 0.07,
            wear: Wear::EffectiveUtility,
            irreducible_decays: false,
        };
        let own = Own {
            utility: -0.25,
            half_life: 3.0,
        };
        let buckets = [bucket("a", 400.0, &truth, own)];
        let found = fit(&buckets, &grid()).unwrap();
        assert!(found.rmse < 3e-3, "{found:?}");
    }

    #[test]
    fn too_few_points_beyond_the_first_pass_are_an_error() {
        let points = [100.0, 200.0, 300.0].map(|samples| Point {
            samples,
            error: 0.5,
        });
        let bucket = Bucket {
            name: "a".into(),
            rows: 100.0,
            points: points.to_vec(),
        };
        let text = fit(&[bucket], &grid()).unwrap_err().to_string();
        assert!(text.contains("bucket a has 2 checkpoints"), "{text}");
    }
}
