//! What a trained model's mixers keep of a sequence: Phi, the magnitudes of the eigenvalues of Lam, and how far back
//! they look.

use super::model::{Model, tokens_of};
use crate::mixers::SequenceMixer;
use crate::mixers::layer::Plain;
use burn::tensor::{Device, Tensor};
use ndarray::{Array2, ArrayView2};
use papertrial_core::{Error, Result};
use papertrial_nn::values_of;

/// A head of attention, or a channel of another mixer.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    /// Block, from 1.
    pub layer: usize,
    /// Head or channel, from 1.
    pub unit: usize,
    /// Smallest, mean and largest eigenvalue of Lam over positions; none where there is no finite system.
    pub eigenvalues: Option<(f64, f64, f64)>,
    /// Positions in which a state fades to 1/e at the mean rate; none where it does not fade on the whole.
    pub fades_in: Option<f64>,
    /// Mean distance of the positions looked at, each weighted by |Phi_ij|, over all i.
    pub distance: f64,
    /// Phi, [L, L], without the map of values.
    pub phi: Array2<f64>,
}

/// The units of all blocks for one sequence.
///
/// # Errors
/// A mixer that is not a linear system, or a device that gives no values.
pub fn inspect(model: &Model, tokens: &[u32], device: &Device) -> Result<Vec<Unit>> {
    let mut units = Vec::new();
    let input = tokens_of([tokens], tokens.len(), device);
    for (layer, (core, mixer)) in model.mixers(input).into_iter().enumerate() {
        let Some(plain) = mixer.plain()? else {
            return Err(Error::option(
                "write",
                "lstm and gru are not linear systems: there is nothing to look into; take scores or samples",
            ));
        };
        let u = matrix(core)?;
        let push = |unit: usize, eigenvalues, fades_in, phi: Array2<f64>| {
            units.push(Unit {
                layer: layer + 1,
                unit: unit + 1,
                eigenvalues,
                fades_in,
                distance: distance(&phi),
                phi,
            });
        };
        match &plain {
            Plain::Softmax(maps) => softmax(maps, u.view(), push),
            Plain::System(system) => of_system(system.as_ref(), u.view(), push),
            Plain::Normalised(system) => of_system(system, u.view(), push),
        }
    }
    Ok(units)
}

/// How many exponents of learned normalisers are beyond their limits for one sequence, and how many there are.
///
/// # Errors
/// A device that gives no values.
pub fn held(model: &Model, tokens: &[u32], device: &Device) -> Result<(usize, usize)> {
    let mut held = (0, 0);
    let input = tokens_of([tokens], tokens.len(), device);
    for (core, mixer) in model.mixers(input) {
        if let Some(Plain::Normalised(system)) = mixer.plain()? {
            let (beyond, all) = system.held(matrix(core)?.view());
            held = (held.0 + beyond, held.1 + all);
        }
    }
    Ok(held)
}

/// Numbers that the first block's mixer keeps between positions; `None` where it is no finite linear system.
///
/// # Errors
/// A device that gives no values.
pub fn state(model: &Model) -> Result<Option<usize>> {
    let plain = match model.first_mixer() {
        Some(mixer) => mixer.plain()?,
        None => None,
    };
    Ok(plain.and_then(|p| p.system().map(|s| s.shape().state())))
}

type Range = Option<(f64, f64, f64)>;

fn softmax(
    maps: &crate::mixers::Maps<f64>,
    u: ArrayView2<f64>,
    mut push: impl FnMut(usize, Range, Option<f64>, Array2<f64>),
) {
    for head in 0..maps.heads {
        push(head, None, None, Plain::softmax_weights(maps, head, u));
    }
}

fn of_system(
    system: &dyn SequenceMixer<f64>,
    u: ArrayView2<f64>,
    mut push: impl FnMut(usize, Range, Option<f64>, Array2<f64>),
) {
    let shape = system.shape();
    let matrices = system.matrices(u);
    let step = if matrices.alike_within_heads() {
        shape.channels / shape.heads
    } else {
        1
    };
    for (unit, c) in (0..shape.channels).step_by(step).enumerate() {
        // At the first position there is nothing to be kept.
        let logs: Vec<f64> = matrices
            .positions
            .iter()
            .skip(1)
            .flat_map(|p| {
                (0..shape.n).map(move |r| p.log_keep[system.spreads().keep.place(shape, c, r)])
            })
            .collect();
        let (mut range, mut fades_in) = (None, None);
        if !logs.is_empty() {
            let n = logs.len() as f64;
            let low = logs.iter().copied().fold(f64::INFINITY, f64::min);
            let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mean = logs.iter().map(|l| l.exp()).sum::<f64>() / n;
            range = Some((low.exp(), mean, high.exp()));
            let rate = logs.iter().sum::<f64>() / n;
            fades_in = (rate < 0.0).then(|| -1.0 / rate);
        }
        push(unit, range, fades_in, matrices.convolution_matrix(c));
    }
}

/// Mean over i of the distance i - j, each j weighted by |Phi_ij|.
fn distance(phi: &Array2<f64>) -> f64 {
    let mut total = 0.0;
    for (i, row) in phi.rows().into_iter().enumerate() {
        let (mut weights, mut distances) = (0.0, 0.0);
        for (j, weight) in row.iter().take(i + 1).enumerate() {
            weights += weight.abs();
            distances += weight.abs() * (i - j) as f64;
        }
        if weights > 0.0 {
            total += distances / weights;
        }
    }
    total / phi.nrows().max(1) as f64
}

/// [1, l, inputs] in double precision.
fn matrix(core: Tensor<3>) -> Result<Array2<f64>> {
    let [_, l, inputs] = core.dims();
    let values = values_of(core)?.into_iter().map(f64::from).collect();
    Array2::from_shape_vec((l, inputs), values).map_err(|e| Error::Failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_by_hand() {
        let phi = ndarray::array![[2.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 3.0, 1.0]];
        // 0, then (1 + 0) / 2, then 3 / 4.
        assert!((distance(&phi) - (0.5 + 0.75) / 3.0).abs() < 1e-15);
        assert_eq!(distance(&Array2::zeros((2, 2))), 0.0);
    }
}
