//! Matrix products for the losses and the ResNet, over the `gemm` crate on the calling thread.

#![allow(unsafe_code, reason = "gemm takes pointers")]

use gemm::Parallelism;

/// How an operand is laid out in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Row-major as the product reads it.
    Plain,
    /// Row-major of its transpose.
    Transposed,
}

/// `out [m, n] += left [m, k] · right [k, n]`, with `sizes = [m, n, k]`.
///
/// # Panics
/// When a slice does not have exactly the length that `sizes` gives it.
pub(crate) fn product(
    out: &mut [f32],
    sizes: [usize; 3],
    left: (&[f32], Layout),
    right: (&[f32], Layout),
) {
    let [m, n, k] = sizes;
    assert!(out.len() == m * n && left.0.len() == m * k && right.0.len() == k * n);
    let strides = |layout, rows: usize, columns: usize| match layout {
        Layout::Plain => (1, columns as isize),
        Layout::Transposed => (rows as isize, 1),
    };
    let (left_column, left_row) = strides(left.1, m, k);
    let (right_column, right_row) = strides(right.1, k, n);
    // SAFETY: the strides stay inside the slices, whose lengths have just been checked; `out` is borrowed uniquely.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            true,
            left.0.as_ptr(),
            left_column,
            left_row,
            right.0.as_ptr(),
            right_column,
            right_row,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element(operand: (&[f32], Layout), row: usize, column: usize, shape: [usize; 2]) -> f64 {
        f64::from(match operand.1 {
            Layout::Plain => operand.0[row * shape[1] + column],
            Layout::Transposed => operand.0[column * shape[0] + row],
        })
    }

    proptest! {
        #[test]
        fn product_equals_the_plain_loops_for_every_layout_and_size(
            m in 0usize..9, n in 0usize..9, k in 0usize..40, seed in 0u32..1000,
            left_transposed: bool, right_transposed: bool,
        ) {
            let value = |i: usize| ((i as f32 + seed as f32) * 0.7).sin();
            let layout = |transposed| if transposed { Layout::Transposed } else { Layout::Plain };
            let left: Vec<f32> = (0..m * k).map(value).collect();
            let right: Vec<f32> = (0..k * n).map(|i| value(i + 1000)).collect();
            let left = (left.as_slice(), layout(left_transposed));
            let right = (right.as_slice(), layout(right_transposed));
            let start: Vec<f32> = (0..m * n).map(|i| value(i + 5000)).collect();
            let mut out = start.clone();
            product(&mut out, [m, n, k], left, right);
            for row in 0..m {
                for column in 0..n {
                    let plain: f64 = f64::from(start[row * n + column]) + (0..k)
                        .map(|i| element(left, row, i, [m, k]) * element(right, i, column, [k, n]))
                        .sum::<f64>();
                    // 40 products of values below 1 in f32: a few units of the last place of 40.
                    prop_assert!((f64::from(out[row * n + column]) - plain).abs() < 1e-5);
                }
            }
        }
    }
}
