//! Matrix products on the calling thread.

use super::operand::Operand;
#[cfg(target_arch = "x86_64")]
use super::packed;
use gemm::Parallelism;
use rayon::prelude::*;

/// `out = left·right` of small operands, with `sizes = [m, n, k]` for `left [m, k]` and `right [k, n]`. Rows of `out` are `out_stride`
/// apart. Allocates nothing where the processor has AVX2.
///
/// # Panics
/// When a slice is too short for its sizes.
pub fn product(
    sizes: [usize; 3],
    left: Operand<'_>,
    right: Operand<'_>,
    out: &mut [f32],
    out_stride: usize,
) {
    #[cfg(target_arch = "x86_64")]
    {
        check(sizes, left, right, out, out_stride);
        // SAFETY: has just been checked.
        if sizes[2] > 0 && unsafe { packed::product(sizes, left, right, out, out_stride) } {
            return;
        }
    }
    spread_product(1, sizes, left, right, out, out_stride, false);
}

/// # Panics
/// When a slice is too short for its sizes.
fn check(
    [m, n, k]: [usize; 3],
    left: Operand<'_>,
    right: Operand<'_>,
    out: &[f32],
    out_stride: usize,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(left.holds(m, k) && right.holds(k, n));
    assert!(n <= out_stride || m == 1);
    assert!((m - 1) * out_stride + n <= out.len());
}

/// Columns that a helper takes at least; fewer are not worth waking it.
const LEAST_COLUMNS: usize = 96;

/// `out = left·right` as [`product`], with `add` added, and the columns of `out` shared among `threads` threads of the calling pool.
///
/// # Panics
/// As [`product`].
pub fn spread_product(
    threads: usize,
    [m, n, k]: [usize; 3],
    left: Operand<'_>,
    right: Operand<'_>,
    out: &mut [f32],
    out_stride: usize,
    add: bool,
) {
    check([m, n, k], left, right, out, out_stride);
    if m == 0 || n == 0 {
        return;
    }
    let target = SharedOutput(out.as_mut_ptr());
    let part = |first: usize, columns: usize| {
        let target = &target;
        // SAFETY: the strides stay inside the slices, as has just been checked; `out` is borrowed uniquely, and each
        // part writes other columns of it.
        unsafe {
            gemm::gemm(
                m,
                columns,
                k,
                target.0.add(first),
                1,
                out_stride as isize,
                add,
                left.values.as_ptr(),
                left.column_stride as isize,
                left.row_stride as isize,
                right.values.as_ptr().add(first * right.column_stride),
                right.column_stride as isize,
                right.row_stride as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    };
    let parts = threads.min(n / LEAST_COLUMNS).max(1);
    if parts == 1 {
        return part(0, n);
    }
    let bound = |index: usize| index * n / parts;
    (0..parts).into_par_iter().for_each(|index| {
        part(bound(index), bound(index + 1) - bound(index));
    });
}

/// Where parts of a product write side by side.
struct SharedOutput(*mut f32);

// SAFETY: only used for disjoint columns, see `spread_product`.
unsafe impl Sync for SharedOutput {}
