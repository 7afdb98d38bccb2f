//! Products of small operands on AVX2 and AVX-512, such as those of one attention head: the right one is packed on the stack, so
//! that nothing is allocated.

use super::operand::Operand;
use super::simd::{Level, level};
use super::tile::{Block, Register, WIDEST, all_rows, transpose};
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// Depth that is packed at a time: 16 kB of the widest panel, half a first-level cache.
const DEPTH: usize = 128;

/// Where a product writes; rows are `stride` apart.
#[derive(Clone, Copy)]
struct PackedOutput {
    values: *mut f32,
    stride: usize,
}

/// `out = left·right` with `sizes = [m, n, k]`; false where the processor lacks the instructions, then nothing has been done.
///
/// # Safety
/// `left` holds `[m, k]`, `right` holds `[k, n]`, and `out` holds m rows of n values, `out_stride` apart.
pub unsafe fn product(
    sizes: [usize; 3],
    left: Operand<'_>,
    right: Operand<'_>,
    out: &mut [f32],
    out_stride: usize,
) -> bool {
    let out = PackedOutput {
        values: out.as_mut_ptr(),
        stride: out_stride,
    };
    // SAFETY: the caller's promise; `level` has asked the processor.
    unsafe {
        match level() {
            Level::Avx512 => product_avx512(sizes, left, right, out),
            Level::Avx2 => product_avx2(sizes, left, right, out),
            Level::Baseline => return false,
        }
    }
    true
}

#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn product_avx512(
    sizes: [usize; 3],
    left: Operand<'_>,
    right: Operand<'_>,
    out: PackedOutput,
) {
    // SAFETY: the caller's promise.
    unsafe { product_with::<__m512>(sizes, left, right, out) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn product_avx2(
    sizes: [usize; 3],
    left: Operand<'_>,
    right: Operand<'_>,
    out: PackedOutput,
) {
    // SAFETY: the caller's promise.
    unsafe { product_with::<__m256>(sizes, left, right, out) }
}

/// # Safety
/// The processor has the instructions of `V`, and the operands hold their sizes.
#[inline(always)]
unsafe fn product_with<V: Register>(
    [m, n, k]: [usize; 3],
    left: Operand<'_>,
    right: Operand<'_>,
    out: PackedOutput,
) {
    let width = 2 * V::LANES;
    let mut panel = [MaybeUninit::<f32>::uninit(); DEPTH * WIDEST];
    let panel = panel.as_mut_ptr().cast::<f32>();
    for first in (0..n).step_by(width) {
        let columns = width.min(n - first);
        for start in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - start);
            // SAFETY: the caller's promise; the panel has room for `DEPTH` rows of the widest width.
            unsafe {
                let from = right
                    .values
                    .as_ptr()
                    .add(start * right.row_stride + first * right.column_stride);
                if right.column_stride == 1 {
                    pack_rows(from, right.row_stride, [depth, columns, width], panel);
                } else {
                    pack_transposed(from, right.column_stride, [depth, columns, width], panel);
                }
                all_rows::<V>(Block {
                    left: left.values.as_ptr().add(start * left.column_stride),
                    left_stride: left.row_stride,
                    depth_stride: left.column_stride,
                    rows: m,
                    panel,
                    depth,
                    out: out.values.add(first),
                    out_stride: out.stride,
                    columns,
                    add: start > 0,
                });
            }
        }
    }
}

/// Copies `depth` rows of `columns` values, filled up with zeros to `width`.
///
/// # Safety
/// Both are in bounds.
#[inline(always)]
unsafe fn pack_rows(
    from: *const f32,
    stride: usize,
    [depth, columns, width]: [usize; 3],
    panel: *mut f32,
) {
    for row in 0..depth {
        // SAFETY: the caller's promise.
        unsafe {
            let to = panel.add(row * width);
            from.add(row * stride).copy_to_nonoverlapping(to, columns);
            to.add(columns).write_bytes(0, width - columns);
        }
    }
}

/// The transpose of `columns` rows of `depth` values, `stride` apart; columns filled up with zeros to `width`.
///
/// # Safety
/// Both are in bounds; the processor has AVX.
#[inline(always)]
unsafe fn pack_transposed(
    from: *const f32,
    stride: usize,
    [depth, columns, width]: [usize; 3],
    panel: *mut f32,
) {
    let (whole_columns, whole_depth) = (columns - columns % 8, depth - depth % 8);
    // SAFETY: the caller's promise.
    unsafe {
        transpose(from, stride, panel, width, [whole_columns, whole_depth]);
        for column in 0..columns {
            let first = if column < whole_columns {
                whole_depth
            } else {
                0
            };
            for row in first..depth {
                *panel.add(row * width + column) = *from.add(column * stride + row);
            }
        }
        for row in 0..depth {
            panel
                .add(row * width + columns)
                .write_bytes(0, width - columns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::gradient_check::{noise, widen};

    /// `[rows, columns]` of an operand.
    fn at(operand: Operand<'_>, row: usize, column: usize) -> f64 {
        f64::from(operand.values[row * operand.row_stride + column * operand.column_stride])
    }

    #[test]
    fn small_products_of_any_layout_equal_plain_sums_on_odd_sizes() {
        if level() == Level::Baseline {
            return;
        }
        for [m, n, k] in [
            [0, 3, 4],
            [3, 0, 4],
            [1, 1, 1],
            [1, 50, 64],
            [7, 9, 17],
            [6, 32, 128],
            [13, 33, 129],
            [50, 70, 300],
        ] {
            let (left, right) = (noise(1, m * k), noise(2, k * n));
            for transposed in [[false, false], [true, false], [false, true], [true, true]] {
                let left = match transposed[0] {
                    false => Operand::rows(&left, k),
                    true => Operand::transposed(&left, m),
                };
                let right = match transposed[1] {
                    false => Operand::rows(&right, n),
                    true => Operand::transposed(&right, k),
                };
                let stride = n + 3;
                let mut out = vec![7.0; m * stride];
                // SAFETY: the operands are made for the sizes.
                assert!(unsafe { product([m, n, k], left, right, &mut out, stride) });
                for (row, found) in widen(&out).chunks(stride).enumerate() {
                    for (column, found) in found[..n].iter().enumerate() {
                        let products = (0..k).map(|i| at(left, row, i) * at(right, i, column));
                        let expected: f64 = products.sum();
                        // Sums of at most 300 products of size 1 in f32.
                        assert!(
                            (found - expected).abs() < 1e-4,
                            "{found}, expected {expected}"
                        );
                    }
                    assert!(found[n..].iter().all(|&value| value == 7.0));
                }
            }
        }
    }
}
