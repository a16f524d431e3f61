//! Exponential, normal tail, tanh and sigmoid of one `f32`, without branches, so that loops over them become vectors.
//!
//! All are within a few units in the last place over the whole range, also where results are tiny: the exponential is
//! kept as a product of two factors until the end, so that nothing is lost to subnormal numbers on the way.

/// How a * b + c is computed: in one instruction where the processor has it, else in two.
///
/// `f32::mul_add` alone would be a slow library call on processors without the instruction.
pub(super) trait Arithmetic {
    /// a * b + c
    fn fused(a: f32, b: f32, c: f32) -> f32;
}

/// Two roundings.
pub(super) struct Plain;

impl Arithmetic for Plain {
    #[inline(always)]
    fn fused(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}

/// One rounding.
pub(super) struct Fused;

impl Arithmetic for Fused {
    #[inline(always)]
    fn fused(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

/// 1.5 * 2^23: added to a small number, it leaves the nearest integer in the lowest bits.
const ROUNDER: f32 = 12_582_912.0;
/// ln 2 in two parts; the first has few bits, so that its product with an integer is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// (exp(r) - 1 - r) / r^2 for |r| <= 0.4: minimax, relative error of exp(r) - 1 at most 3e-8.
const EXP: [f32; 5] = [
    0.499_999_97,
    0.166_664_48,
    0.041_667_61,
    0.008_377_532_5,
    0.001_388_043,
];
/// (a + 4) erfcx(a / sqrt 2) / 2 for a in [0, 15.1], as a polynomial of (a - 4) / (a + 4): relative error at most 7e-8.
const TAIL: [f32; 9] = [
    0.755_285_2,
    -0.607_896_7,
    0.387_133_42,
    -0.186_520_76,
    0.060_444_303,
    -0.007_533_338,
    -0.003_670_778_6,
    0.001_526_571_8,
    0.000_383_541_02,
];
/// exp is 0 below minus this, and so is the product with it.
const EXP_END: f32 = 120.0;
/// The normal distribution's share beyond this is 0.
const TAIL_END: f32 = 15.0;
/// 1 / sqrt(2 pi)
const DENSITY_AT_0: f32 = 0.398_942_3;

/// The smaller; NaN if `x` is.
#[inline(always)]
fn at_most(x: f32, limit: f32) -> f32 {
    if x > limit { limit } else { x }
}

#[inline(always)]
fn polynomial<A: Arithmetic, const N: usize>(x: f32, coefficients: &[f32; N]) -> f32 {
    let mut sum = coefficients[N - 1];
    for c in coefficients[..N - 1].iter().rev() {
        sum = A::fused(sum, x, *c);
    }
    sum
}

/// (n, exp(x + extra) / 2^n - 1) for finite x and a small extra; |n| is at most about 170.
#[inline(always)]
fn split<A: Arithmetic>(x: f32, extra: f32) -> (i32, f32) {
    let shifted = A::fused(x, std::f32::consts::LOG2_E, ROUNDER);
    let n = shifted - ROUNDER;
    let rest = A::fused(n, -LN2_LOW, A::fused(n, -LN2_HIGH, x)) + extra;
    let power = A::fused(rest * rest, polynomial::<A, 5>(rest, &EXP), rest);
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32);
    (n, power)
}

/// 2^n for n in -126..=127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32).wrapping_shl(23))
}

/// Two factors whose product is exp(x + extra).
#[inline(always)]
fn factors<A: Arithmetic>(x: f32, extra: f32) -> (f32, f32) {
    let (n, power) = split::<A>(x, extra);
    let half = n >> 1;
    let first = power_of_two(half);
    (
        A::fused(power, first, first),
        power_of_two(n.wrapping_sub(half)),
    )
}

/// exp(x) for x <= 0; 0 at minus infinity.
#[inline(always)]
pub(super) fn exp_of_negative<A: Arithmetic>(x: f32) -> f32 {
    let (first, second) = factors::<A>(if x < -EXP_END { -EXP_END } else { x }, 0.0);
    first * second
}

/// For a = |x|, at most [`TAIL_END`]: exp(-a^2 / 2) as two factors, and what times it is the share of the normal
/// distribution beyond a.
#[inline(always)]
fn tail<A: Arithmetic>(a: f32) -> (f32, f32, f32) {
    // The square's rounding error would be multiplied by the exponential: a^2 = high^2 + (a - high) (a + high), where
    // high has 12 bits and an exact square.
    let high = f32::from_bits(a.to_bits() & 0xffff_f000);
    let (first, second) = factors::<A>(-0.5 * high * high, -0.5 * (a - high) * (a + high));
    let reciprocal = 1.0 / (a + 4.0);
    let ratio = polynomial::<A, 9>((a - 4.0) * reciprocal, &TAIL) * reciprocal;
    (first, second, ratio)
}

/// x times the normal distribution's share below x.
#[inline(always)]
pub(super) fn gelu<A: Arithmetic>(x: f32) -> f32 {
    let a = at_most(x.abs(), TAIL_END);
    let (first, second, ratio) = tail::<A>(a);
    let positive = if x > 0.0 { x } else { 0.0 };
    positive - first * (a * ratio) * second
}

/// The derivative of [`gelu`].
#[inline(always)]
pub(super) fn gelu_slope<A: Arithmetic>(x: f32) -> f32 {
    let a = at_most(x.abs(), TAIL_END);
    let (first, second, ratio) = tail::<A>(a);
    let below = first * A::fused(a, -DENSITY_AT_0, ratio) * second;
    if x > 0.0 { 1.0 - below } else { below }
}

/// Hyperbolic tangent.
#[inline(always)]
pub(super) fn tanh<A: Arithmetic>(x: f32) -> f32 {
    let (n, power) = split::<A>(-2.0 * at_most(x.abs(), 20.0), 0.0);
    let scale = power_of_two(n);
    // exp(-2 |x|) - 1, without loss near 0.
    let less = A::fused(power, scale, scale - 1.0);
    (-less / (2.0 + less)).copysign(x)
}

/// (sigmoid(x), 1 - sigmoid(x)), each without loss, as factors (first, second) with a common divisor taken in.
#[inline(always)]
fn shares<A: Arithmetic>(x: f32) -> (f32, f32, f32) {
    let (first, second) = factors::<A>(-at_most(x.abs(), EXP_END), 0.0);
    let larger = 1.0 / A::fused(first, second, 1.0);
    (larger, first * larger, second)
}

/// 1 / (1 + exp(-x))
#[inline(always)]
pub(super) fn sigmoid<A: Arithmetic>(x: f32) -> f32 {
    let (larger, first, second) = shares::<A>(x);
    if x > 0.0 { larger } else { first * second }
}

/// x times its sigmoid.
#[inline(always)]
pub(super) fn silu<A: Arithmetic>(x: f32) -> f32 {
    let (larger, first, second) = shares::<A>(x);
    let limited = if x < -EXP_END { -EXP_END } else { x };
    if x > 0.0 {
        x * larger
    } else {
        limited * first * second
    }
}

/// The derivative of [`silu`].
#[inline(always)]
pub(super) fn silu_slope<A: Arithmetic>(x: f32) -> f32 {
    let (larger, first, second) = shares::<A>(x);
    let smaller = first * second;
    let a = at_most(x.abs(), EXP_END);
    if x > 0.0 {
        larger * A::fused(a, smaller, 1.0)
    } else {
        first * A::fused(-a, larger, 1.0) * second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The normal distribution's density and its share below x, by series and continued fraction.
    fn normal(x: f64) -> (f64, f64) {
        let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        if x.abs() < 3.0 {
            let (mut term, mut sum, mut k) = (x, x, 1.0);
            while term.abs() > 1e-18 * sum.abs() {
                k += 2.0;
                term *= x * x / k;
                sum += term;
            }
            return (density, 0.5 + density * sum);
        }
        let fraction = (1..80)
            .rev()
            .fold(x.abs(), |f, k| x.abs() + f64::from(k) / f);
        let beyond = density / fraction;
        (density, if x > 0.0 { 1.0 - beyond } else { beyond })
    }

    fn sigmoid_of(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    /// Numbers of every size and sign, finite.
    fn everywhere() -> impl Iterator<Item = f32> {
        (0..u32::MAX)
            .step_by(14_983)
            .map(f32::from_bits)
            .chain((-4000..4000).map(|i| i as f32 / 200.0))
            .filter(|x| x.is_finite())
    }

    /// `scale` is the size of what is added up on the way to `exact`.
    fn near(x: f32, got: f32, exact: f64, scale: f64) {
        // Among subnormal numbers the last place is 1.4e-45.
        let allowed = 6e-7 * scale.abs() + 3e-45;
        assert!(
            (f64::from(got) - exact).abs() <= allowed,
            "{x:e}: {got:e}, not {exact:e}"
        );
    }

    fn agree_everywhere<A: Arithmetic>() {
        for x in everywhere() {
            let f = f64::from(x);
            let (density, below) = normal(f);
            near(x, gelu::<A>(x), f * below, f * below);
            near(
                x,
                gelu_slope::<A>(x),
                below + f * density,
                below + (f * density).abs(),
            );
            near(x, tanh::<A>(x), f.tanh(), f.tanh());
            let share = sigmoid_of(f);
            near(x, sigmoid::<A>(x), share, share);
            near(x, silu::<A>(x), f * share, f * share);
            let change = f * share * sigmoid_of(-f);
            near(x, silu_slope::<A>(x), share + change, share + change.abs());
            if x <= 0.0 {
                near(x, exp_of_negative::<A>(x), f.exp(), f.exp());
            }
        }
    }

    #[test]
    fn curves_agree_with_double_precision_everywhere() {
        agree_everywhere::<Plain>();
    }

    #[test]
    fn fused_curves_agree_too() {
        agree_everywhere::<Fused>();
    }

    #[test]
    fn limits_and_nan() {
        let ends = |f: fn(f32) -> f32| [f(f32::NEG_INFINITY), f(0.0), f(f32::INFINITY)];
        assert_eq!(ends(gelu::<Plain>), [0.0, 0.0, f32::INFINITY]);
        assert_eq!(ends(gelu_slope::<Plain>), [0.0, 0.5, 1.0]);
        assert_eq!(ends(tanh::<Plain>), [-1.0, 0.0, 1.0]);
        assert_eq!(ends(sigmoid::<Plain>), [0.0, 0.5, 1.0]);
        assert_eq!(ends(silu::<Plain>), [0.0, 0.0, f32::INFINITY]);
        assert_eq!(ends(silu_slope::<Plain>), [0.0, 0.5, 1.0]);
        assert_eq!(exp_of_negative::<Plain>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_of_negative::<Plain>(0.0), 1.0);
        assert!(tanh::<Plain>(-0.0).is_sign_negative());
        let all: [fn(f32) -> f32; 7] = [
            gelu::<Plain>,
            gelu_slope::<Plain>,
            tanh::<Plain>,
            sigmoid::<Plain>,
            silu::<Plain>,
            silu_slope::<Plain>,
            exp_of_negative::<Plain>,
        ];
        assert!(all.iter().all(|f| f(f32::NAN).is_nan()));
    }
}
