//! What the paper says is equal, computed both ways in double precision.

use crate::mixers::system::{Coefficients, LtvSystem};
use crate::mixers::{Discretisation, exact, logits};
use crate::mixers::{Maps, Real, S6, SequenceMixer, Ssd, sigmoid, softplus, truncated};
use ndarray::{Array1, Array2, ArrayView2};
use papertrial_numerics::sampling::rng;

/// Largest difference of two results, divided by the largest number of the first.
pub fn relative<F: Real>(a: &Array2<F>, b: &Array2<F>) -> f64 {
    let size = a.iter().fold(0.0, |m: f64, x| m.max(x.wide().abs()));
    let off = a.iter().zip(b).fold(0.0, |m: f64, (a, b)| {
        let off = (a.wide() - b.wide()).abs();
        // A result that is not a number differs without limit.
        if off.is_nan() {
            f64::INFINITY
        } else {
            m.max(off)
        }
    });
    if off == 0.0 { 0.0 } else { off / size }
}

/// exp(-alpha softplus(x)) = sigmoid(-x)^alpha: the largest relative difference for x from -40 to 40.
pub fn reversed_gate() -> f64 {
    let mut largest: f64 = 0.0;
    for alpha in [0.5, 1.0, 2.7] {
        for step in -400..=400 {
            let x = f64::from(step) / 10.0;
            let left = (-alpha * softplus(x)).exp();
            let right = sigmoid(-x).powf(alpha);
            largest = largest.max((left / right - 1.0).abs());
        }
    }
    largest
}

/// S6 with one number a channel and A = -1 is a gated recurrent network: forget gate sigmoid(-f), input gate
/// softplus(f) b, f the same map.
pub fn s6_is_a_gated_network(u: ArrayView2<f64>, seed: u64) -> f64 {
    let d = u.ncols();
    let s6 = S6::<f64>::random(
        d,
        1,
        Discretisation::Euler,
        &mut rng(seed, "s6 as a network"),
    );
    let mut h = Array1::<f64>::zeros(d);
    let mut y = Array2::zeros(u.dim());
    for (i, x) in u.rows().into_iter().enumerate() {
        let (b, c) = (s6.write.row(0).dot(&x), s6.read.row(0).dot(&x));
        for channel in 0..d {
            let f = s6.delta.at(channel, x);
            h[channel] = sigmoid(-f) * h[channel] + softplus(f) * b * x[channel];
            y[[i, channel]] = c * h[channel] + s6.skip[channel] * x[channel];
        }
    }
    relative(&s6.native(u), &y)
}

/// Most that the logarithm of an accumulated normaliser may be, so that it is a number.
const MOST: f64 = 300.0;

/// SSD is separable attention with eta_i = exp(sum of Delta_j exp(A) for j <= i), keys Delta_j eta_j b_j and queries c_i,
/// built from eta itself as far as that does not overflow.
pub fn ssd_is_separable_attention(u: ArrayView2<f64>, seed: u64) -> f64 {
    let d = u.ncols();
    let ssd = Ssd::<f64>::random(d, d, 4, 1, &mut rng(seed, "ssd as attention"));
    let rate = ssd.log_rate[0].exp();
    let delta = ssd.steps(u);
    let mut log_eta = 0.0;
    let mut etas = Vec::new();
    for step in delta.column(0) {
        log_eta += step * rate;
        if log_eta > MOST {
            break;
        }
        etas.push(log_eta.exp());
    }
    let u = u.slice(ndarray::s![..etas.len(), ..]);
    let (b, c) = (u.dot(&ssd.write.t()), u.dot(&ssd.read.t()));
    let positions = etas.iter().enumerate().map(|(i, eta)| {
        let before = if i == 0 { 1.0 } else { etas[i - 1] };
        let keys = b.row(i).mapv(|b| delta[[i, 0]] * eta * b);
        Coefficients {
            log_keep: vec![(before / eta).ln()],
            write: (keys / *eta).to_vec(),
            read: c.row(i).to_vec(),
        }
    });
    let system = LtvSystem {
        shape: ssd.shape(),
        spreads: ssd.spreads(),
        positions: positions.collect(),
        values: ssd.value.clone(),
        skip: Some(ssd.skip.clone()),
    };
    relative(&ssd.native(u), &system.convolve(u))
}

/// The truncated softmax against the exact one.
pub struct Taylor {
    /// Largest |q.k| / sqrt m, r.
    pub largest_logit: f64,
    /// Of each order: it, and the largest difference of the outputs from the exact ones.
    pub errors: Vec<(usize, f64)>,
    /// Of each order: the largest error of a weight before normalisation, as a share of e^r r^(p+1) / (p+1)!.
    pub shares: Vec<f64>,
}

/// Errors of `orders` for `u`, [L, d], with `m` features. The queries are scaled so that the largest |q.k| / sqrt m is
/// the largest |u.u'| / sqrt d.
pub fn taylor(u: ArrayView2<f64>, m: usize, orders: &[usize], seed: u64) -> Taylor {
    let d = u.ncols();
    let mut maps = Maps::<f64>::random(d, d, m, 1, &mut rng(seed, "taylor"));
    let largest_of = |products: &Array2<f64>| products.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let wanted = largest_of(&u.dot(&u.t())) / (d as f64).sqrt();
    let all = |maps: &Maps<f64>| logits(maps.query.all(u), maps.key.all(u));
    let found = largest_of(&all(&maps));
    if found > 0.0 {
        let scale = wanted / found;
        maps.query.weight *= scale;
        maps.query.bias *= scale;
    }
    let logits = all(&maps);
    let r = largest_of(&logits);
    let want = exact(&maps, u);
    let mut errors = Vec::new();
    let mut shares = Vec::new();
    for order in orders {
        let got = truncated(&maps, *order, u);
        let off = (&got - &want).iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        errors.push((*order, off));
        let factorial: f64 = (1..=order + 1).map(|t| t as f64).product();
        let bound = r.exp() * r.powi(*order as i32 + 1) / factorial;
        let weight = logits.iter().fold(0.0, |m: f64, x| {
            m.max((crate::mixers::polynomial(*x, *order) - x.exp()).abs())
        });
        shares.push(if bound > 0.0 { weight / bound } else { 0.0 });
    }
    Taylor {
        largest_logit: r,
        errors,
        shares,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixers::maps::random;

    #[test]
    fn the_statements_hold_to_rounding() {
        let u = random::<f64>(40, 6, &mut rng(2, "u")) * 2.0;
        assert!(reversed_gate() < 1e-13);
        assert!(s6_is_a_gated_network(u.view(), 1) < 1e-13);
        assert!(ssd_is_separable_attention(u.view(), 1) < 1e-11);
    }

    #[test]
    fn taylor_errors_fall_below_their_bound() {
        let u = random::<f64>(20, 6, &mut rng(2, "u"));
        let taylor = taylor(u.view(), 4, &[1, 2, 3, 4, 5, 6], 1);
        let expected = u.dot(&u.t()).iter().fold(0.0, |m: f64, x| m.max(x.abs())) / 6f64.sqrt();
        assert!((taylor.largest_logit - expected).abs() < 1e-12);
        assert!(taylor.errors.windows(2).all(|w| w[1].1 < w[0].1));
        // The remainder is reached nearly at r itself, where it is e^s r^(p+1) / (p+1)! for some s < r.
        assert!(taylor.shares.iter().all(|s| *s > 0.0 && *s <= 1.0));
    }

    #[test]
    fn a_difference_that_is_no_number_is_told() {
        let a = Array2::from_elem((1, 2), 1.0);
        assert_eq!(relative(&a, &a), 0.0);
        assert_eq!(relative(&a, &Array2::from_elem((1, 2), 1.5)), 0.5);
        assert_eq!(
            relative(&a, &Array2::from_elem((1, 2), f64::NAN)),
            f64::INFINITY
        );
    }
}
