//! Single or double precision, and the curves of the gates without overflow or loss.

use ndarray::NdFloat;

/// `f32` or `f64`.
pub trait Real: NdFloat {
    /// Bytes of one number.
    const BYTES: usize;
    /// The nearest number.
    fn of(value: f64) -> Self;
    /// The same number in double precision.
    fn wide(self) -> f64;
}

impl Real for f32 {
    const BYTES: usize = 4;
    fn of(value: f64) -> Self {
        value as f32
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    const BYTES: usize = 8;
    fn of(value: f64) -> Self {
        value
    }
    fn wide(self) -> f64 {
        self
    }
}

/// log(1 + exp(x)), exact on both sides: no threshold is needed beyond which it is taken to be x.
pub fn softplus<F: Real>(x: F) -> F {
    x.max(F::zero()) + (-x.abs()).exp().ln_1p()
}

/// 1 / (1 + exp(-x)).
pub fn sigmoid<F: Real>(x: F) -> F {
    if x >= F::zero() {
        F::one() / (F::one() + (-x).exp())
    } else {
        x.exp() / (F::one() + x.exp())
    }
}

/// The logarithm of the sigmoid: finite where the sigmoid itself rounds to 0.
pub fn log_sigmoid<F: Real>(x: F) -> F {
    -softplus(-x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_hold_far_out() {
        assert_eq!(softplus(800.0), 800.0);
        assert!((softplus(-30.0f64) / (-30.0f64).exp() - 1.0).abs() < 1e-12);
        assert!((softplus(0.0f64) - 2f64.ln()).abs() < 1e-15);
        assert_eq!(log_sigmoid(-900.0), -900.0);
        assert_eq!(sigmoid(-900.0), 0.0);
        assert_eq!(sigmoid(900.0), 1.0);
        for x in [-3.0, -0.1, 0.0, 2.0] {
            assert!((log_sigmoid::<f64>(x) - sigmoid::<f64>(x).ln()).abs() < 1e-14);
            assert!((sigmoid::<f64>(x) + sigmoid::<f64>(-x) - 1.0).abs() < 1e-15);
        }
    }
}
