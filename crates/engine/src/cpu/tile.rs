//! The innermost loops of products on AVX2 and AVX-512: some rows of one operand against one panel of columns of the other, sums
//! in registers. Each sum goes over the depth in one fixed order, whatever the number of rows.

use std::arch::x86_64::*;

/// Rows of a tile: with two registers of columns, twelve sums hide the latency of the arithmetic and leave four registers of
/// AVX2 for operands.
pub const TILE_ROWS: usize = 6;
/// Columns of the widest panel: two registers of AVX-512.
pub const WIDEST: usize = 32;

/// A register of `f32` lanes.
///
/// # Safety
/// Its methods ask that the processor has the instructions of this register, and that pointers point to [`Self::LANES`] values.
pub trait Register: Copy {
    /// Values of a register.
    const LANES: usize;
    /// The values at `from`.
    unsafe fn load(from: *const f32) -> Self;
    /// Writes the values to `to`.
    unsafe fn store(self, to: *mut f32);
    /// The same value in each lane.
    unsafe fn splat(value: f32) -> Self;
    /// `self + left·right`, rounded once
    unsafe fn add_product(self, left: Self, right: Self) -> Self;
}

impl Register for __m256 {
    const LANES: usize = 8;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as the trait asks.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as the trait asks.
        unsafe { _mm256_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: as the trait asks.
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn add_product(self, left: Self, right: Self) -> Self {
        // SAFETY: as the trait asks.
        unsafe { _mm256_fmadd_ps(left, right, self) }
    }
}

impl Register for __m512 {
    const LANES: usize = 16;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as the trait asks.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as the trait asks.
        unsafe { _mm512_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: as the trait asks.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn add_product(self, left: Self, right: Self) -> Self {
        // SAFETY: as the trait asks.
        unsafe { _mm512_fmadd_ps(left, right, self) }
    }
}

/// Some rows of the left operand against one panel.
#[derive(Clone, Copy)]
pub struct Block {
    pub left: *const f32,
    /// Distance of neighbouring rows of the left operand.
    pub left_stride: usize,
    /// Distance of neighbours along the depth.
    pub depth_stride: usize,
    pub rows: usize,
    /// `[depth, width]`
    pub panel: *const f32,
    pub depth: usize,
    pub out: *mut f32,
    pub out_stride: usize,
    /// Columns of the panel that exist, at most its width.
    pub columns: usize,
    pub add: bool,
}

/// `ROWS` rows of a block, all columns.
///
/// # Safety
/// The processor has the instructions of `V`; `ROWS` rows of both operands and of `out` are in bounds, `out` for a whole width.
#[inline(always)]
unsafe fn tile<V: Register, const ROWS: usize>(block: Block) {
    let Block {
        left,
        left_stride,
        depth_stride,
        out,
        out_stride,
        ..
    } = block;
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[V::splat(0.0); 2]; ROWS];
        if block.add {
            for (row, sums) in sums.iter_mut().enumerate() {
                let out = out.add(row * out_stride);
                *sums = [V::load(out), V::load(out.add(V::LANES))];
            }
        }
        for depth in 0..block.depth {
            let panel = block.panel.add(depth * 2 * V::LANES);
            let right = [V::load(panel), V::load(panel.add(V::LANES))];
            for (row, sums) in sums.iter_mut().enumerate() {
                let left = V::splat(*left.add(row * left_stride + depth * depth_stride));
                sums[0] = sums[0].add_product(left, right[0]);
                sums[1] = sums[1].add_product(left, right[1]);
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let out = out.add(row * out_stride);
            sums[0].store(out);
            sums[1].store(out.add(V::LANES));
        }
    }
}

/// At most [`TILE_ROWS`] rows of a block.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn tile_of_rows<V: Register>(block: Block) {
    // SAFETY: the caller's promise.
    unsafe {
        match block.rows {
            0 => {}
            1 => tile::<V, 1>(block),
            2 => tile::<V, 2>(block),
            3 => tile::<V, 3>(block),
            4 => tile::<V, 4>(block),
            5 => tile::<V, 5>(block),
            _ => tile::<V, TILE_ROWS>(block),
        }
    }
}

/// All rows of a block.
///
/// # Safety
/// As [`tile`], but `out` needs to be in bounds for `columns` only.
#[inline(always)]
pub unsafe fn all_rows<V: Register>(block: Block) {
    let width = 2 * V::LANES;
    for first in (0..block.rows).step_by(TILE_ROWS) {
        // SAFETY: the caller's promise; the temporary has a whole width for each row of a tile.
        unsafe {
            let part = Block {
                left: block.left.add(first * block.left_stride),
                rows: TILE_ROWS.min(block.rows - first),
                out: block.out.add(first * block.out_stride),
                ..block
            };
            if block.columns == width {
                tile_of_rows::<V>(part);
                continue;
            }
            let mut whole = [0.0f32; TILE_ROWS * WIDEST];
            let whole = whole.as_mut_ptr();
            for row in 0..part.rows {
                let (own, temporary) =
                    (part.out.add(row * part.out_stride), whole.add(row * width));
                if part.add {
                    own.copy_to_nonoverlapping(temporary, part.columns);
                }
            }
            tile_of_rows::<V>(Block {
                out: whole,
                out_stride: width,
                ..part
            });
            for row in 0..part.rows {
                let (own, temporary) =
                    (part.out.add(row * part.out_stride), whole.add(row * width));
                temporary.copy_to_nonoverlapping(own, part.columns);
            }
        }
    }
}

/// Transposes `rows` rows of `columns` values, both multiples of 8; rows are `from_stride` and `to_stride` apart.
///
/// # Safety
/// The processor has AVX; both are in bounds.
#[inline(always)]
pub unsafe fn transpose(
    from: *const f32,
    from_stride: usize,
    to: *mut f32,
    to_stride: usize,
    [rows, columns]: [usize; 2],
) {
    for row in (0..rows).step_by(8) {
        for column in (0..columns).step_by(8) {
            // SAFETY: the caller's promise.
            unsafe {
                transpose_8(
                    from.add(row * from_stride + column),
                    from_stride,
                    to.add(column * to_stride + row),
                    to_stride,
                );
            }
        }
    }
}

/// Transposes 8 rows of 8 values; rows are `from_stride` and `to_stride` apart.
///
/// # Safety
/// The processor has AVX; both are in bounds.
#[inline(always)]
unsafe fn transpose_8(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let r: [__m256; 8] =
            std::array::from_fn(|row| _mm256_loadu_ps(from.add(row * from_stride)));
        let pairs: [__m256; 8] = std::array::from_fn(|i| {
            let row = i / 2 * 2;
            match i % 2 {
                0 => _mm256_unpacklo_ps(r[row], r[row + 1]),
                _ => _mm256_unpackhi_ps(r[row], r[row + 1]),
            }
        });
        let fours: [__m256; 8] = std::array::from_fn(|i| {
            let (a, b) = (
                pairs[i / 4 * 4 + i % 4 / 2],
                pairs[i / 4 * 4 + 2 + i % 4 / 2],
            );
            match i % 2 {
                0 => _mm256_shuffle_ps::<0x44>(a, b),
                _ => _mm256_shuffle_ps::<0xee>(a, b),
            }
        });
        for row in 0..4 {
            let (a, b) = (fours[row], fours[row + 4]);
            _mm256_storeu_ps(
                to.add(row * to_stride),
                _mm256_permute2f128_ps::<0x20>(a, b),
            );
            _mm256_storeu_ps(
                to.add((row + 4) * to_stride),
                _mm256_permute2f128_ps::<0x31>(a, b),
            );
        }
    }
}
