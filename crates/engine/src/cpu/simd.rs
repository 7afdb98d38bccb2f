//! Run-time choice of vector instructions, and the arithmetic on groups of lanes that the compiler turns into them.
//!
//! A body written with [`Lanes`] is compiled once for each instruction set and gives the same bits on all of them:
//! the order of sums is fixed by the lanes, and products are always fused into the sum.

/// Values that are worked on together: one AVX-512 register, two of AVX2, four of NEON.
pub const LANES: usize = 16;

pub type Lanes = [f32; LANES];

/// Defines a function whose body is compiled for AVX-512, AVX2 + FMA and the target's baseline, chosen at run time.
macro_rules! multiversion {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident $(<const $constant:ident: $constant_type:ty>)? ($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $visibility fn $name $(<const $constant: $constant_type>)? ($($argument: $type),*) {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "as many as the function has that is compiled")]
            fn body $(<const $constant: $constant_type>)? ($($argument: $type),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                #[allow(clippy::too_many_arguments, reason = "as many as the function has that is compiled")]
                fn avx512 $(<const $constant: $constant_type>)? ($($argument: $type),*) {
                    body $(::<$constant>)? ($($argument),*);
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments, reason = "as many as the function has that is compiled")]
                fn avx2 $(<const $constant: $constant_type>)? ($($argument: $type),*) {
                    body $(::<$constant>)? ($($argument),*);
                }
                match $crate::cpu::simd::level() {
                    // SAFETY: `level` has asked the processor for these instructions.
                    $crate::cpu::simd::Level::Avx512 => return unsafe { avx512 $(::<$constant>)? ($($argument),*) },
                    // SAFETY: as above.
                    $crate::cpu::simd::Level::Avx2 => return unsafe { avx2 $(::<$constant>)? ($($argument),*) },
                    $crate::cpu::simd::Level::Baseline => {}
                }
            }
            body $(::<$constant>)? ($($argument),*);
        }
    };
}
pub(crate) use multiversion;

/// Vector instructions that the processor has. On aarch64 the baseline is NEON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Baseline,
}

/// The best level of this processor.
pub fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("fma")
        {
            return Level::Avx512;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Level::Avx2;
        }
    }
    Level::Baseline
}

/// `f` of each lane.
#[inline(always)]
pub fn map(x: Lanes, f: impl Fn(f32) -> f32) -> Lanes {
    let mut y = [0.0; LANES];
    for lane in 0..LANES {
        y[lane] = f(x[lane]);
    }
    y
}

/// Sum over lanes in a fixed order.
#[inline(always)]
pub fn sum(x: Lanes) -> f32 {
    let mut half = [0.0; 8];
    for lane in 0..8 {
        half[lane] = x[lane] + x[lane + 8];
    }
    let mut quarter = [0.0; 4];
    for lane in 0..4 {
        quarter[lane] = half[lane] + half[lane + 4];
    }
    (quarter[0] + quarter[2]) + (quarter[1] + quarter[3])
}

/// The lanes of `values` at `at`, zeros after its end.
#[inline(always)]
pub fn load(values: &[f32], at: usize) -> Lanes {
    let mut lanes = [0.0; LANES];
    if let Some(full) = values.get(at..at + LANES) {
        lanes.copy_from_slice(full);
    } else if let Some(rest) = values.get(at..) {
        lanes[..rest.len()].copy_from_slice(rest);
    }
    lanes
}

/// Writes as many lanes as `values` has left at `at`.
#[inline(always)]
pub fn store(values: &mut [f32], at: usize, lanes: Lanes) {
    if let Some(full) = values.get_mut(at..at + LANES) {
        full.copy_from_slice(&lanes);
    } else if let Some(rest) = values.get_mut(at..) {
        let count = rest.len();
        rest.copy_from_slice(&lanes[..count]);
    }
}

/// `e^x`, within 2 units of the last place; results below the smallest normal number are that number's neighbourhood.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, so that the product with a whole number is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5·2^23 rounds to a whole number, which is then in the low bits; a conversion of the language would check
    // each lane for overflow.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let rest = whole.mul_add(-LN_2_LOW, whole.mul_add(-LN_2_HIGH, x));
    let mut y = 1.987_569_1e-4f32;
    y = y.mul_add(rest, 1.398_2e-3);
    y = y.mul_add(rest, 8.333_452e-3);
    y = y.mul_add(rest, 4.166_579_6e-2);
    y = y.mul_add(rest, 0.166_666_65);
    y = y.mul_add(rest, 0.5);
    y = y.mul_add(rest * rest, rest + 1.0);
    // The whole number lies within ±127, so the exponent field cannot overflow; what was above it is shifted out.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    y * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_good_to_f32() {
        for step in -86_900..=87_900 {
            let x = step as f32 * 1e-3;
            let exact = f64::from(x).exp();
            let relative = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(relative < 2.5e-7, "exp({x}) is off by {relative:e}");
        }
    }

    #[test]
    fn exp_past_its_range_neither_overflows_nor_is_not_a_number() {
        assert!(exp(-1e30) < 1e-37 && exp(-1e30) >= 0.0);
        assert!(exp(1e30).is_finite());
    }

    #[test]
    fn rest_of_a_row_is_padded_with_zeros_and_stored_alone() {
        let values: Vec<f32> = (0..21).map(|i| i as f32).collect();
        let lanes = load(&values, 16);
        assert_eq!(lanes[..5], values[16..]);
        assert!(lanes[5..].iter().all(|&lane| lane == 0.0));
        let mut out = vec![7.0; 21];
        store(&mut out, 16, map(lanes, |x| -x));
        assert_eq!(out[15], 7.0);
        assert_eq!(out[20], -20.0);
    }
}
