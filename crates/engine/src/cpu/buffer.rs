//! Memory of the CPU backend: aligned allocations, and views of them that cannot overlap.

use crate::backend::{BufferLengths, Matrix, Region};

/// Values that one allocation unit holds: a cache line of `f32`.
const LINE: usize = 16;

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line {
    _values: [f32; LINE],
}

const ZERO: Line = Line {
    _values: [0.0; LINE],
};

/// Growing memory, aligned to cache lines.
#[derive(Default)]
pub struct Buffer {
    lines: Vec<Line>,
}

impl Buffer {
    /// Makes the buffer at least `length` values long; what it held is lost when it grows.
    pub fn reserve(&mut self, length: usize) {
        let lines = length.div_ceil(LINE);
        if lines > self.lines.len() {
            // Freed first, so that the old and the new never count together.
            self.lines = Vec::new();
            self.lines = vec![ZERO; lines];
        }
    }

    /// Makes the buffer at least `length` values long and all of these zero.
    fn clear(&mut self, length: usize) {
        self.reserve(length);
        let lines = self.lines.iter_mut();
        lines
            .take(length.div_ceil(LINE))
            .for_each(|line| *line = ZERO);
    }

    /// Values that it can hold.
    pub fn capacity(&self) -> usize {
        self.lines.len() * LINE
    }

    fn base(&mut self) -> (*mut f32, usize) {
        (self.lines.as_mut_ptr().cast(), self.capacity())
    }

    /// All values that it can hold, those of no matrix too.
    pub fn values(&self) -> &[f32] {
        // SAFETY: `Line` is `LINE` values of `f32` without padding.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.capacity()) }
    }

    /// As [`Self::values`], to be written.
    #[cfg(target_arch = "x86_64")]
    pub fn values_mut(&mut self) -> &mut [f32] {
        let (base, length) = self.base();
        // SAFETY: as above; the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(base, length) }
    }
}

/// Memory of one worker; operations are done when they return.
pub struct Queue {
    /// One a micro-batch that waits for its backward; the first serves all others.
    kept: Vec<Buffer>,
    /// The one in use.
    slot: usize,
    scratch: Buffer,
    gradients: Buffer,
    pixels: Buffer,
    images: Buffer,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            kept: vec![Buffer::default()],
            slot: 0,
            scratch: Buffer::default(),
            gradients: Buffer::default(),
            pixels: Buffer::default(),
            images: Buffer::default(),
        }
    }
}

impl Queue {
    /// As [`crate::backend::Backend::enter`].
    pub fn enter(&mut self, slot: usize, lengths: BufferLengths) {
        if self.kept.len() <= slot {
            self.kept.resize_with(slot + 1, Buffer::default);
        }
        self.slot = slot;
        self.kept[slot].reserve(lengths.kept);
        self.scratch.reserve(lengths.scratch);
        self.pixels.reserve(lengths.pixels);
    }

    /// As [`crate::backend::Backend::clear_gradients`].
    pub fn clear_gradients(&mut self, length: usize) {
        self.gradients.clear(length);
    }

    /// As [`crate::image_backend::ImageBackend::lay_out_images`].
    pub fn lay_out_images(&mut self, length: usize) {
        self.images.clear(length);
    }

    /// In the order of [`Region`].
    fn bases(&mut self) -> [(*mut f32, usize); 5] {
        [
            self.kept[self.slot].base(),
            self.scratch.base(),
            self.gradients.base(),
            self.pixels.base(),
            self.images.base(),
        ]
    }
}

/// A matrix in memory that may be read.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub values: &'a [f32],
    pub columns: usize,
    pub stride: usize,
    pub rows: usize,
}

impl<'a> View<'a> {
    pub fn row(self, index: usize) -> &'a [f32] {
        &self.values[index * self.stride..][..self.columns]
    }

    /// The bits of the first column as indices.
    pub fn index(self, row: usize) -> usize {
        self.values[row * self.stride].to_bits() as usize
    }
}

/// A matrix in memory that may be written.
pub struct ViewMut<'a> {
    pub values: &'a mut [f32],
    pub columns: usize,
    pub stride: usize,
    pub rows: usize,
}

impl ViewMut<'_> {
    pub fn row(&mut self, index: usize) -> &mut [f32] {
        &mut self.values[index * self.stride..][..self.columns]
    }
}

fn overlap(a: Matrix, b: Matrix) -> bool {
    a.region == b.region
        && a.start < b.start + b.extent()
        && b.start < a.start + a.extent()
        && a.extent() > 0
        && b.extent() > 0
}

fn check_bounds(matrix: Matrix, length: usize) {
    let end = matrix.start + matrix.extent();
    assert!(end <= length, "{matrix:?} ends past its buffer of {length}");
    assert!(matrix.columns <= matrix.stride || matrix.rows <= 1);
}

/// Writable `outs` together with readable `ins`.
///
/// # Panics
/// When an out overlaps any other operand, or an operand ends past its buffer.
pub fn views<'m, const OUTS: usize, const INS: usize>(
    queue: &'m mut Queue,
    outs: [Matrix; OUTS],
    ins: [Matrix; INS],
) -> ([ViewMut<'m>; OUTS], [View<'m>; INS]) {
    let (outs, (ins, _)) = views_with_optional(queue, outs, ins, None);
    (outs, ins)
}

/// [`views`] with one more readable matrix that may be absent.
///
/// # Panics
/// As [`views`].
pub fn views_with_optional<'m, const OUTS: usize, const INS: usize>(
    queue: &'m mut Queue,
    outs: [Matrix; OUTS],
    ins: [Matrix; INS],
    optional: Option<Matrix>,
) -> ([ViewMut<'m>; OUTS], ([View<'m>; INS], Option<View<'m>>)) {
    for (index, &out) in outs.iter().enumerate() {
        for &other in outs[index + 1..].iter().chain(&ins).chain(&optional) {
            assert!(!overlap(out, other), "{out:?} overlaps {other:?}");
        }
    }
    let bases = queue.bases();
    let start = |matrix: Matrix| {
        let (base, length) = bases[matrix.region as usize];
        check_bounds(matrix, length);
        base.wrapping_add(matrix.start)
    };
    let readable = |matrix: Matrix| View {
        // SAFETY: `start` has checked the bounds; the memory is borrowed for 'm, and no out overlaps another operand.
        values: unsafe { std::slice::from_raw_parts(start(matrix), matrix.extent()) },
        columns: matrix.columns,
        stride: matrix.stride,
        rows: matrix.rows,
    };
    let outs = outs.map(|matrix| ViewMut {
        // SAFETY: as above; the borrow is unique.
        values: unsafe { std::slice::from_raw_parts_mut(start(matrix), matrix.extent()) },
        columns: matrix.columns,
        stride: matrix.stride,
        rows: matrix.rows,
    });
    (outs, (ins.map(readable), optional.map(readable)))
}

/// A readable matrix.
///
/// # Panics
/// When it ends past its buffer.
pub fn view<'m>(queue: &'m Queue, matrix: Matrix) -> View<'m> {
    let buffer = match matrix.region {
        Region::Kept => &queue.kept[queue.slot],
        Region::Scratch => &queue.scratch,
        Region::Gradients => &queue.gradients,
        Region::Pixels => &queue.pixels,
        Region::Images => &queue.images,
    };
    check_bounds(matrix, buffer.capacity());
    View {
        values: &buffer.values()[matrix.start..][..matrix.extent()],
        columns: matrix.columns,
        stride: matrix.stride,
        rows: matrix.rows,
    }
}
