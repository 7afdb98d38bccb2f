//! Frozen linear maps packed once into panels, and their products on AVX2 and AVX-512.
//!
//! A product that packs its operands again pays for that on every call, which matters with few rows: a small batch, few tokens, a
//! micro-batch that fits the cache. Panels are `[input, width]` blocks of `width` outputs each, which forward streams as they
//! lie; backward turns one block of inputs at a time, so that one copy of the weights serves both. Each output is summed over
//! the depth in one fixed order, whatever the number of rows.

use super::buffer::{Buffer, View, ViewMut};
use super::simd::{Level, level};
use super::tile::{Block, Register, TILE_ROWS, WIDEST, all_rows, transpose};
use rayon::prelude::*;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Depth that is worked on at a time: a panel's share stays in the first-level cache.
const DEPTH: usize = 512;
/// Rows that are worked on at a time: their share of the depth stays in the second-level cache.
const ROWS: usize = 192;

/// A linear map `[outputs, inputs]` in panels.
pub struct Panels {
    /// `[panels, inputs, width]`, both axes filled up with zeros to multiples of `width`
    values: Buffer,
    /// Outputs of a panel: two registers.
    width: usize,
    outputs: usize,
    inputs: usize,
}

/// Where threads write side by side, and the strides of a product.
#[derive(Clone, Copy)]
struct Product {
    left: *const f32,
    left_stride: usize,
    rows: usize,
    out: *mut f32,
    out_stride: usize,
    add: bool,
}

// SAFETY: threads write disjoint columns, see `Panels::share`.
unsafe impl Sync for Product {}

/// Parts of at most `most`, as equal as multiples of [`TILE_ROWS`] allow.
fn row_blocks(rows: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = rows.div_ceil(most).max(1);
    let size = rows.div_ceil(parts).next_multiple_of(TILE_ROWS);
    (0..rows)
        .step_by(size.max(1))
        .map(move |first| first..(first + size).min(rows))
}

impl Panels {
    /// Packs the rows of `parts`, each `[out, inputs]`, where the processor has the instructions for it.
    pub fn new(parts: &[&[f32]], inputs: usize) -> Option<Self> {
        let width = match level() {
            Level::Avx512 => 2 * <__m512 as Register>::LANES,
            Level::Avx2 => 2 * <__m256 as Register>::LANES,
            Level::Baseline => return None,
        };
        Some(Self::of_width(parts, inputs, width))
    }

    fn of_width(parts: &[&[f32]], inputs: usize, width: usize) -> Self {
        let outputs = parts.iter().map(|part| part.len() / inputs).sum::<usize>();
        let panel = inputs.next_multiple_of(width) * width;
        let mut values = Buffer::default();
        values.reserve(outputs.div_ceil(width) * panel);
        let packed = values.values_mut();
        let rows = parts.iter().flat_map(|part| part.chunks_exact(inputs));
        for (output, row) in rows.enumerate() {
            let column = &mut packed[output / width * panel + output % width..];
            for (target, value) in column.iter_mut().step_by(width).zip(row) {
                *target = *value;
            }
        }
        Self {
            values,
            width,
            outputs,
            inputs,
        }
    }

    fn panel_length(&self) -> usize {
        self.inputs.next_multiple_of(self.width) * self.width
    }

    /// `y = x·weightᵀ`, panels shared among `threads` threads of the calling pool.
    ///
    /// # Panics
    /// When the shapes do not go together.
    pub fn forward(&self, threads: usize, x: View<'_>, y: &mut ViewMut<'_>) {
        assert!(x.columns == self.inputs && y.columns == self.outputs && x.rows == y.rows);
        let product = product(x, y, false);
        self.share(threads, self.outputs, |panels| {
            // SAFETY: the shapes go together and views hold what they say; `new` has asked the processor.
            unsafe {
                match self.width {
                    WIDEST => self.forward_avx512(&product, panels),
                    _ => self.forward_avx2(&product, panels),
                }
            }
        });
    }

    /// `dx = dy·weight`, with `add` added; groups of inputs shared among `threads` threads of the calling pool.
    ///
    /// # Panics
    /// When the shapes do not go together.
    pub fn backward(&self, threads: usize, dy: View<'_>, dx: &mut ViewMut<'_>, add: bool) {
        assert!(dy.columns == self.outputs && dx.columns == self.inputs && dy.rows == dx.rows);
        let product = product(dy, dx, add);
        self.share(threads, self.inputs, |groups| {
            // SAFETY: as in `forward`.
            unsafe {
                match self.width {
                    WIDEST => self.backward_avx512(&product, groups),
                    _ => self.backward_avx2(&product, groups),
                }
            }
        });
    }

    /// Deals the panels of `columns` columns to threads.
    fn share(&self, threads: usize, columns: usize, work: impl Fn(Range<usize>) + Sync) {
        // Fewer columns a thread are not worth waking it.
        const LEAST_COLUMNS: usize = 96;
        let panels = columns.div_ceil(self.width);
        let parts = threads.min(columns / LEAST_COLUMNS).max(1);
        if parts == 1 {
            return work(0..panels);
        }
        let bound = |part: usize| part * panels / parts;
        (0..parts)
            .into_par_iter()
            .for_each(|part| work(bound(part)..bound(part + 1)));
    }

    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn forward_avx512(&self, product: &Product, panels: Range<usize>) {
        // SAFETY: the caller's promise.
        unsafe { self.forward_with::<__m512>(product, panels) }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn forward_avx2(&self, product: &Product, panels: Range<usize>) {
        // SAFETY: the caller's promise.
        unsafe { self.forward_with::<__m256>(product, panels) }
    }

    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn backward_avx512(&self, product: &Product, groups: Range<usize>) {
        // SAFETY: the caller's promise.
        unsafe { self.backward_with::<__m512>(product, groups) }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn backward_avx2(&self, product: &Product, groups: Range<usize>) {
        // SAFETY: the caller's promise.
        unsafe { self.backward_with::<__m256>(product, groups) }
    }

    /// # Safety
    /// The processor has the instructions of `V`, `product` is in bounds, and no other thread writes these panels' columns.
    #[inline(always)]
    unsafe fn forward_with<V: Register>(&self, product: &Product, panels: Range<usize>) {
        let width = 2 * V::LANES;
        for rows in row_blocks(product.rows, ROWS) {
            for depth in (0..self.inputs).step_by(DEPTH) {
                for panel in panels.clone() {
                    let start = panel * self.panel_length() + depth * width;
                    // SAFETY: the caller's promise.
                    unsafe {
                        all_rows::<V>(Block {
                            left: product.left.add(rows.start * product.left_stride + depth),
                            left_stride: product.left_stride,
                            depth_stride: 1,
                            rows: rows.len(),
                            panel: self.values.values().as_ptr().add(start),
                            depth: DEPTH.min(self.inputs - depth),
                            out: product
                                .out
                                .add(rows.start * product.out_stride + panel * width),
                            out_stride: product.out_stride,
                            columns: width.min(self.outputs - panel * width),
                            add: product.add || depth > 0,
                        });
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`Self::forward_with`].
    #[inline(always)]
    unsafe fn backward_with<V: Register>(&self, product: &Product, groups: Range<usize>) {
        let width = 2 * V::LANES;
        let mut turned = [MaybeUninit::<f32>::uninit(); DEPTH * WIDEST];
        let turned = turned.as_mut_ptr().cast::<f32>();
        for rows in row_blocks(product.rows, 2 * ROWS) {
            for depth in (0..self.outputs).step_by(DEPTH) {
                let end = self.outputs.min(depth + DEPTH);
                for group in groups.clone() {
                    // SAFETY: the caller's promise; panels are filled up, so whole blocks of them are in bounds, and
                    // `turned` holds `DEPTH` of them since that is a multiple of every width.
                    unsafe {
                        for panel in depth / width..end.div_ceil(width) {
                            let start = panel * self.panel_length() + group * width * width;
                            let from = self.values.values().as_ptr().add(start);
                            let to = turned.add((panel * width - depth) * width);
                            transpose(from, width, to, width, [width, width]);
                        }
                        all_rows::<V>(Block {
                            left: product.left.add(rows.start * product.left_stride + depth),
                            left_stride: product.left_stride,
                            depth_stride: 1,
                            rows: rows.len(),
                            panel: turned,
                            depth: end - depth,
                            out: product
                                .out
                                .add(rows.start * product.out_stride + group * width),
                            out_stride: product.out_stride,
                            columns: width.min(self.inputs - group * width),
                            add: product.add || depth > 0,
                        });
                    }
                }
            }
        }
    }
}

fn product(left: View<'_>, out: &mut ViewMut<'_>, add: bool) -> Product {
    Product {
        left: left.values.as_ptr(),
        left_stride: left.stride,
        rows: left.rows,
        out: out.values.as_mut_ptr(),
        out_stride: out.stride,
        add,
    }
}

#[cfg(test)]
mod tests {
    use super::super::operand::Operand;
    use super::super::product::spread_product;
    use super::*;

    fn wave(length: usize, seed: f32) -> Vec<f32> {
        (0..length)
            .map(|index| (index as f32 * 0.37 + seed).sin())
            .collect()
    }

    fn view(values: &[f32], rows: usize, columns: usize) -> View<'_> {
        View {
            values,
            columns,
            stride: columns,
            rows,
        }
    }

    fn assert_close(found: &[f32], expected: &[f32], what: &str) {
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            // Sums of up to 1100 products of size 1, in another order.
            let allowed = 2e-4 + 1e-5 * expected.abs();
            assert!(
                (found - expected).abs() < allowed,
                "{what} at {index}: {found}, expected {expected}"
            );
        }
    }

    /// Widths that this processor can work with.
    fn widths() -> Vec<usize> {
        match level() {
            Level::Avx512 => vec![16, 32],
            Level::Avx2 => vec![16],
            Level::Baseline => vec![],
        }
    }

    #[test]
    fn products_in_panels_equal_plain_ones_on_odd_sizes() {
        for width in widths() {
            for (rows, inputs, outputs) in [
                (0, 5, 7),
                (1, 1, 1),
                (1, 16, 16),
                (5, 17, 33),
                (6, 48, 32),
                (13, 31, 130),
                (50, 513, 20),
                (400, 40, 1100),
            ] {
                let weight = wave(outputs * inputs, 0.1);
                let (first, second) = weight.split_at(outputs / 2 * inputs);
                let panels = Panels::of_width(&[first, second], inputs, width);
                let (x, dy) = (wave(rows * inputs, 0.5), wave(rows * outputs, 0.7));
                let what = format!("width {width}, [{rows}, {inputs}] to {outputs}");
                for threads in [1, 3] {
                    let mut found = wave(rows * outputs, 0.9);
                    let mut expected = found.clone();
                    let mut y = ViewMut {
                        values: &mut found,
                        columns: outputs,
                        stride: outputs,
                        rows,
                    };
                    panels.forward(threads, view(&x, rows, inputs), &mut y);
                    let right = Operand::transposed(&weight, inputs);
                    let sizes = [rows, outputs, inputs];
                    spread_product(
                        1,
                        sizes,
                        Operand::rows(&x, inputs),
                        right,
                        &mut expected,
                        outputs,
                        false,
                    );
                    assert_close(&found, &expected, &what);
                    for add in [false, true] {
                        let mut found = wave(rows * inputs, 0.9);
                        let mut expected = found.clone();
                        let mut dx = ViewMut {
                            values: &mut found,
                            columns: inputs,
                            stride: inputs,
                            rows,
                        };
                        panels.backward(threads, view(&dy, rows, outputs), &mut dx, add);
                        let right = Operand::rows(&weight, inputs);
                        let sizes = [rows, inputs, outputs];
                        spread_product(
                            1,
                            sizes,
                            Operand::rows(&dy, outputs),
                            right,
                            &mut expected,
                            inputs,
                            add,
                        );
                        assert_close(&found, &expected, &format!("backward of {what}"));
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others() {
        for width in widths() {
            let (inputs, outputs, rows) = (600, 40, 401);
            let weight = wave(outputs * inputs, 0.3);
            let panels = Panels::of_width(&[&weight], inputs, width);
            let x = wave(rows * inputs, 0.2);
            let mut all = vec![0.0; rows * outputs];
            let mut alone = vec![0.0; outputs];
            fn out(values: &mut [f32], columns: usize, rows: usize) -> ViewMut<'_> {
                ViewMut {
                    values,
                    columns,
                    stride: columns,
                    rows,
                }
            }
            let whole = view(&x, rows, inputs);
            panels.forward(1, whole, &mut out(&mut all, outputs, rows));
            for row in [0, 5, 200, 400] {
                let x = view(&x[row * inputs..][..inputs], 1, inputs);
                panels.forward(1, x, &mut out(&mut alone, outputs, 1));
                assert_eq!(alone, all[row * outputs..][..outputs]);
            }
        }
    }
}
