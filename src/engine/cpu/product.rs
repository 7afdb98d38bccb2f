//! Matrix products on the calling thread.

use gemm::Parallelism;

/// A readable operand: `[rows, columns]` with the distances of neighbours along each axis.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    pub values: &'a [f32],
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a> Operand<'a> {
    /// Rows of `stride` values.
    pub fn rows(values: &'a [f32], stride: usize) -> Self {
        Self {
            values,
            row_stride: stride,
            column_stride: 1,
        }
    }

    /// The transpose of rows of `stride` values.
    pub fn transposed(values: &'a [f32], stride: usize) -> Self {
        Self {
            values,
            row_stride: 1,
            column_stride: stride,
        }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < self.values.len()
    }
}

/// `out = scale·left·right`, with `sizes = [m, n, k]` for `left [m, k]` and `right [k, n]`; with `add` it adds. Rows of `out` are
/// `out_stride` apart.
///
/// # Panics
/// When a slice is too short for its sizes.
pub fn product(
    [m, n, k]: [usize; 3],
    scale: f32,
    left: Operand<'_>,
    right: Operand<'_>,
    out: &mut [f32],
    out_stride: usize,
    add: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(left.holds(m, k) && right.holds(k, n));
    assert!(n <= out_stride || m == 1);
    assert!((m - 1) * out_stride + n <= out.len());
    // SAFETY: the strides stay inside the slices, as has just been checked; `out` is borrowed uniquely.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
            add,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
