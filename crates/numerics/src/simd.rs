//! Vector code for `f32` and `f64`, compiled several times and chosen at run time for the processor.
//!
//! The compiler's default target has vectors of two doubles; a loop inside a function made by
//! [`vectorised!`] gets the widest that the processor has and Rust can use here. Only what is inlined
//! into the function counts, so helpers are `#[inline(always)]`, and closures must be small.

use faer::traits::pulp::Simd;

/// Vectors of a floating-point type.
pub trait Lanes: Copy {
    /// A vector on the instruction set `S`.
    type Vector<S: Simd>: Copy;
    /// Whole vectors of a slice, and the entries left over.
    fn split<S: Simd>(simd: S, values: &[Self]) -> (&[Self::Vector<S>], &[Self])
    where
        Self: Sized;
    /// As [`Lanes::split`].
    fn split_mut<S: Simd>(simd: S, values: &mut [Self]) -> (&mut [Self::Vector<S>], &mut [Self])
    where
        Self: Sized;
    /// A vector of fewer entries than it has room for, zeros behind them.
    fn partial<S: Simd>(simd: S, values: &[Self]) -> Self::Vector<S>
    where
        Self: Sized;
    /// A vector of equal entries.
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;
    /// a + b
    fn plus<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// a - b
    fn minus<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// a * b + c, rounded once where that is fast
    fn fused<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        c: Self::Vector<S>,
    ) -> Self::Vector<S>;
    /// The smaller of each pair.
    fn lower<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// The larger of each pair.
    fn upper<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `then` where a < b, else `other`.
    fn if_less<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        then: Self::Vector<S>,
        other: Self::Vector<S>,
    ) -> Self::Vector<S>;
    /// The sum of the entries.
    fn total<S: Simd>(simd: S, a: Self::Vector<S>) -> Self;
    /// The smallest entry.
    fn lowest<S: Simd>(simd: S, a: Self::Vector<S>) -> Self;
}

macro_rules! lanes {
    ($real:ident, $vector:ident, $split:ident, $split_mut:ident, $partial:ident, $splat:ident,
     $add:ident, $sub:ident, $mul_add:ident, $min:ident, $max:ident, $less:ident, $select:ident,
     $sum:ident, $lowest:ident) => {
        impl Lanes for $real {
            type Vector<S: Simd> = S::$vector;
            #[inline(always)]
            fn split<S: Simd>(_: S, values: &[Self]) -> (&[S::$vector], &[Self]) {
                S::$split(values)
            }
            #[inline(always)]
            fn split_mut<S: Simd>(_: S, values: &mut [Self]) -> (&mut [S::$vector], &mut [Self]) {
                S::$split_mut(values)
            }
            #[inline(always)]
            fn partial<S: Simd>(simd: S, values: &[Self]) -> S::$vector {
                simd.$partial(values)
            }
            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: Self) -> S::$vector {
                simd.$splat(value)
            }
            #[inline(always)]
            fn plus<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(a, b)
            }
            #[inline(always)]
            fn minus<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$sub(a, b)
            }
            #[inline(always)]
            fn fused<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                simd.$mul_add(a, b, c)
            }
            #[inline(always)]
            fn lower<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$min(a, b)
            }
            #[inline(always)]
            fn upper<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$max(a, b)
            }
            #[inline(always)]
            fn if_less<S: Simd>(
                simd: S,
                a: S::$vector,
                b: S::$vector,
                then: S::$vector,
                other: S::$vector,
            ) -> S::$vector {
                simd.$select(simd.$less(a, b), then, other)
            }
            #[inline(always)]
            fn total<S: Simd>(simd: S, a: S::$vector) -> Self {
                simd.$sum(a)
            }
            #[inline(always)]
            fn lowest<S: Simd>(simd: S, a: S::$vector) -> Self {
                simd.$lowest(a)
            }
        }
    };
}

lanes!(
    f32,
    f32s,
    as_simd_f32s,
    as_mut_simd_f32s,
    partial_load_f32s,
    splat_f32s,
    add_f32s,
    sub_f32s,
    mul_add_e_f32s,
    min_f32s,
    max_f32s,
    less_than_f32s,
    select_f32s,
    reduce_sum_f32s,
    reduce_min_f32s
);
lanes!(
    f64,
    f64s,
    as_simd_f64s,
    as_mut_simd_f64s,
    partial_load_f64s,
    splat_f64s,
    add_f64s,
    sub_f64s,
    mul_add_e_f64s,
    min_f64s,
    max_f64s,
    less_than_f64s,
    select_f64s,
    reduce_sum_f64s,
    reduce_min_f64s
);

/// Defines a function whose body is compiled for each instruction set; `simd` names the one in use.
///
/// Generic over a lifetime and, where it is named, over a type of [`Real`](crate::linalg::Real) numbers.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$life:lifetime $(, $real:ident)?>(
        $simd:ident; $($arg:ident: $kind:ty),* $(,)?
    ) -> $out:ty $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name<$life $(, $real: $crate::linalg::Real)?>($($arg: $kind),*) -> $out {
            struct Work<$life $(, $real)?> {
                $($arg: $kind,)*
                unused: std::marker::PhantomData<(&$life (), $($real)?)>,
            }
            impl<$life $(, $real: $crate::linalg::Real)?> faer::traits::pulp::WithSimd
                for Work<$life $(, $real)?>
            {
                type Output = $out;
                #[inline(always)]
                fn with_simd<S: faer::traits::pulp::Simd>(self, $simd: S) -> $out {
                    let _ = $simd;
                    let Work { $($arg,)* .. } = self;
                    $body
                }
            }
            faer::traits::pulp::Arch::new().dispatch(Work::<$life $(, $real)?> {
                $($arg,)*
                unused: std::marker::PhantomData,
            })
        }
    };
}
pub(crate) use vectorised;

#[cfg(test)]
mod tests {
    use crate::linalg::Real;

    vectorised! {
        fn run_all<'a, T>(simd; values: &'a [T], out: &'a mut Vec<f64>) -> usize {
            let (whole, rest) = T::split(simd, values);
            let last = T::partial(simd, rest);
            let two = T::splat(simd, T::from_f64(2.0));
            let mut sum = T::splat(simd, T::ZERO);
            let mut low = T::splat(simd, T::INFINITY);
            for &v in whole.iter().chain([&last]) {
                sum = T::plus(simd, sum, T::fused(simd, two, v, T::minus(simd, v, two)));
                low = T::lower(simd, low, T::upper(simd, v, two));
                let floor = T::if_less(simd, v, two, two, v);
                out.push(T::total(simd, T::minus(simd, floor, T::upper(simd, v, two))).to_f64());
            }
            out.push(T::total(simd, sum).to_f64());
            out.push(T::lowest(simd, low).to_f64());
            (whole.len() + 1) * std::mem::size_of_val(&last) / std::mem::size_of::<T>()
        }
    }

    fn check<T: Real>() {
        let values: Vec<T> = (0..37).map(|i| T::from_f64(f64::from(i))).collect();
        let mut out = Vec::new();
        let lanes = run_all(&values, &mut out) as f64;
        let low = out.pop();
        // 3 v - 2 over all lanes, of which those behind the values hold 0.
        assert_eq!(out.pop(), Some(3.0 * 666.0 - 2.0 * lanes));
        assert_eq!(low, Some(2.0));
        assert!(out.iter().all(|&difference| difference == 0.0));
    }

    #[test]
    fn operations_mean_what_they_say() {
        check::<f32>();
        check::<f64>();
    }
}
