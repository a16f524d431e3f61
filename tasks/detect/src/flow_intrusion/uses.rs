//! How long a detector stays good: curves of the balanced accuracy with time after training, and with the share of
//! flows from elsewhere.
//!
//! The paper names three uses of a comparison beside the plain one. Transfer, to train on one data set and measure on
//! another, is the task's input `test`. The other two are here:
//! - temporal gap: the flows held out behind the training part are cut into [`PARTS`] stretches of equal length, and
//!   each is measured alone;
//! - drift: a stream goes over from the held-out flows to those of `test` bit by bit, and its stretches are measured.

use super::metrics::Confusion;
use super::prepare::Flows;
use papertrial_core::task::Curve;
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling::rng;
use rand::RngExt;

/// Stretches of a curve.
pub const PARTS: usize = 10;

/// Balanced accuracy in stretches of flows in their order, each against the mean of `place` over the stretch; a stretch
/// with one class only has no point.
fn stretches(place: &[f64], attacks: &[bool], scores: &[f32], threshold: f64) -> Vec<(f64, f64)> {
    let length = attacks.len().div_ceil(PARTS).max(1);
    let parts = place
        .chunks(length)
        .zip(attacks.chunks(length))
        .zip(scores.chunks(length));
    parts
        .filter_map(|((place, attacks), scores)| {
            let metrics = Confusion::of(attacks, scores, threshold).metrics();
            let mean = place.iter().sum::<f64>() / place.len() as f64;
            Some((mean, *metrics.get("balanced-accuracy")?))
        })
        .collect()
}

/// Balanced accuracy against the flows since the end of training: `rows` are held-out ones in order, the last flow
/// trained on is `trained`, and `attacks` and `scores` belong to `rows`.
pub fn temporal_gap(
    rows: &[usize],
    trained: usize,
    attacks: &[bool],
    scores: &[f32],
    threshold: f64,
) -> Curve {
    let place: Vec<f64> = rows
        .iter()
        .map(|row| row.saturating_sub(trained) as f64)
        .collect();
    Curve {
        name: "balanced accuracy after training".into(),
        x: "flows since training".into(),
        y: "balanced accuracy".into(),
        points: stretches(&place, attacks, scores, threshold),
    }
}

/// A stream that goes over from one source to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Drifting {
    /// The flows.
    pub flows: Flows,
    /// For each of them whether it is from the other source.
    pub away: Vec<bool>,
}

/// Mixes the flows `home` of `flows`, in ascending order, with those of `other`, which is prepared in the same way: at
/// the part p of the stream the next flow is from `other` with probability p, so that windows hold flows of both. Each
/// source keeps its order; the stream is as long as twice the shorter source.
///
/// # Errors
/// Other columns, no flows, or flows without a class.
pub fn drifting(flows: &Flows, home: &[usize], other: &Flows, seed: u64) -> Result<Drifting> {
    if *flows.layout != *other.layout {
        return Err(Error::Failed(
            "the flows to be mixed have different columns".into(),
        ));
    }
    let (here, there) = (flows.labels()?, other.labels()?);
    let length = 2 * home.len().min(other.rows);
    if length == 0 {
        return Err(Error::BadInput("there are no flows to be mixed".into()));
    }
    let mut draws = rng(seed, "drifting stream");
    let mut mixed = Flows {
        layout: flows.layout.clone(),
        numeric: Vec::with_capacity(length * flows.layout.numeric.len()),
        codes: Vec::with_capacity(length * flows.layout.categorical.len()),
        attack: None,
        rows: length,
    };
    let (mut attack, mut away) = (Vec::with_capacity(length), Vec::with_capacity(length));
    let (mut taken, mut taken_away) = (0, 0);
    for i in 0..length {
        let wanted = draws.random::<f64>() < (i as f64 + 0.5) / length as f64;
        // One source may end a little before the stream does.
        let from_other = (wanted && taken_away < other.rows) || taken == home.len();
        let (source, labels, row) = if from_other {
            taken_away += 1;
            (other, there, taken_away - 1)
        } else {
            taken += 1;
            (flows, here, home[taken - 1])
        };
        mixed.numeric.extend_from_slice(source.numbers_of(row));
        mixed.codes.extend_from_slice(source.codes_of(row));
        attack.push(labels[row]);
        away.push(from_other);
    }
    mixed.attack = Some(attack);
    Ok(Drifting { flows: mixed, away })
}

/// Balanced accuracy against the share of flows from the other source; `rows` are those of the stream that `attacks`
/// and `scores` belong to.
pub fn drift(
    stream: &Drifting,
    rows: &[usize],
    attacks: &[bool],
    scores: &[f32],
    threshold: f64,
) -> Curve {
    let place: Vec<f64> = rows
        .iter()
        .map(|row| f64::from(u8::from(stream.away[*row])))
        .collect();
    Curve {
        name: "balanced accuracy while the traffic changes".into(),
        x: "share of flows from elsewhere".into(),
        y: "balanced accuracy".into(),
        points: stretches(&place, attacks, scores, threshold),
    }
}

#[cfg(test)]
mod tests {
    use super::super::baselines::tests::flows;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stretches_by_hand() {
        // 20 flows in 10 stretches of two; benign and attack in turn, told right in the first half only.
        let rows: Vec<usize> = (100..120).collect();
        let attacks: Vec<bool> = (0..20).map(|i| i % 2 == 1).collect();
        let scores: Vec<f32> = (0..20)
            .map(|i| if i < 10 { f32::from(i as u8 % 2) } else { 0.9 })
            .collect();
        let curve = temporal_gap(&rows, 99, &attacks, &scores, 0.5);
        assert_eq!(curve.points.len(), PARTS);
        assert_eq!(curve.points[0], (1.5, 1.0));
        assert_eq!(curve.points[9], (19.5, 0.5));
        // Without both classes a stretch says nothing.
        assert!(
            temporal_gap(&rows, 99, &[false; 20], &scores, 0.5)
                .points
                .is_empty()
        );
        assert!(temporal_gap(&[], 99, &[], &[], 0.5).points.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn streams_keep_both_orders_and_go_over(n in 40usize..200, m in 40usize..200, seed in 0u64..99) {
            let (here, there) = (flows(n + 10, false, seed), flows(m, false, seed + 1));
            let home: Vec<usize> = (10..10 + n).collect();
            let stream = drifting(&here, &home, &there, seed).unwrap();
            prop_assert_eq!(stream.flows.rows, 2 * n.min(m));
            let labels = stream.flows.labels().unwrap();
            let (mut a, mut b) = (10, 0);
            for (i, away) in stream.away.iter().enumerate() {
                let (source, row) = if *away { (&there, b) } else { (&here, a) };
                prop_assert_eq!(stream.flows.numbers_of(i), source.numbers_of(row));
                prop_assert_eq!(stream.flows.codes_of(i), source.codes_of(row));
                prop_assert_eq!(labels[i], source.labels().unwrap()[row]);
                if *away { b += 1 } else { a += 1 }
            }
            let share = |part: &[bool]| part.iter().filter(|a| **a).count() as f64 / part.len() as f64;
            let third = stream.away.len() / 3;
            prop_assert!(share(&stream.away[..third]) < share(&stream.away[2 * third..]));
            let rows: Vec<usize> = (0..stream.flows.rows).collect();
            let scores: Vec<f32> = labels.iter().map(|a| f32::from(u8::from(*a))).collect();
            let curve = drift(&stream, &rows, labels, &scores, 0.5);
            prop_assert!(curve.points.iter().all(|p| p.1 == 1.0 && (0.0..=1.0).contains(&p.0)));
        }
    }

    #[test]
    fn what_cannot_be_mixed_is_refused() {
        let some = flows(30, false, 1);
        assert!(drifting(&some, &[], &some, 0).is_err());
        let mut other = some.clone();
        other.attack = None;
        assert!(drifting(&some, &[1, 2], &other, 0).is_err());
        let mut layout = (*some.layout).clone();
        layout.codes[0] += 1;
        other = some.clone();
        other.layout = std::sync::Arc::new(layout);
        assert!(drifting(&some, &[1, 2], &other, 0).is_err());
    }
}
