//! The contract between the network, written once in [`super::vit`], and those who compute: fused operations in one queue,
//! each forward with its backward. Knows matrices; knows nothing of layers or adapters.
//!
//! Sizes have the same letters everywhere: `rows` = images·tokens, `width` of a token, `rank` of an adapter.
//! Operands are handles into memory that the backend owns, so that one description of a pass serves every device.

use model::backbone::{Activation, Pooling};
use thiserror::Error;

/// Which buffer of a queue a matrix is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    /// What backward needs; one buffer a micro-batch.
    Kept,
    /// What dies within a layer.
    Scratch,
    /// Gradients of an adapter's low-rank pairs.
    Gradients,
    /// Images, and gradients at them.
    Pixels,
    /// Images that are optimised, with all that belongs to them. Laid out once, by [`super::image_backend`]; micro-batches come and go.
    Images,
}

/// A row-major `f32` matrix `[rows, columns]` whose rows start `stride` values apart. Index lists are stored as the bits
/// of `u32` values in a matrix of one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matrix {
    /// The buffer that it lies in.
    pub region: Region,
    /// Place of its first value in that buffer.
    pub start: usize,
    /// Number of rows.
    pub rows: usize,
    /// Values of a row that belong to the matrix.
    pub columns: usize,
    /// Values from the start of one row to the start of the next; at least `columns`.
    pub stride: usize,
}

impl Matrix {
    /// `count` columns from `first` on.
    pub fn columns_from(self, first: usize, count: usize) -> Self {
        debug_assert!(first + count <= self.columns);
        Self {
            start: self.start + first,
            columns: count,
            ..self
        }
    }

    /// The first half of the rows, and the second.
    pub fn halves(self) -> [Self; 2] {
        let rows = self.rows / 2;
        [0, rows].map(|first| Self {
            start: self.start + first * self.stride,
            rows,
            ..self
        })
    }

    /// Every `step`-th row, e.g. the class tokens with `step` = tokens.
    pub fn every(self, step: usize) -> Self {
        Self {
            rows: self.rows / step,
            stride: self.stride * step,
            ..self
        }
    }

    /// Values from the first to the last, gaps between rows included.
    pub fn extent(self) -> usize {
        match self.rows {
            0 => 0,
            rows => (rows - 1) * self.stride + self.columns,
        }
    }
}

/// Size of an attention: `queries` of the `tokens` of each image ask, all of them answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Images of the micro-batch; none looks at another.
    pub images: usize,
    /// Tokens of an image that ask, the first ones.
    pub queries: usize,
    /// Tokens of an image that answer, class token included.
    pub tokens: usize,
    /// Heads, which share the width among them.
    pub heads: usize,
    /// Values of a token in one head.
    pub head_width: usize,
}

/// What attention reads and what backward needs of it. Key biases have no part in a softmax, nor in its gradient.
pub struct AttentionInput<'w, Vector> {
    /// `[images·queries, width]`, without bias
    pub query: Matrix,
    /// `[images·tokens, 2·width]`: keys, then values, without bias
    pub key_value: Matrix,
    /// `[width]`
    pub query_bias: &'w Vector,
    /// `[width]`
    pub value_bias: &'w Vector,
    /// `[images·queries, heads]`: log of the sum of exponentials, written by forward and read by backward
    pub log_sum: Matrix,
    /// One row of [`Backend::attention_scratch`] values
    pub scratch: Matrix,
}

/// Values of a vector from `start` on; the operation knows how many.
#[derive(Debug)]
pub struct VectorPart<'w, Vector> {
    /// Holds them.
    pub vector: &'w Vector,
    /// Place of the first.
    pub start: usize,
}

/// LayerNorm's parameters.
pub struct Norm<'w, Vector> {
    /// `[width]`
    pub weight: &'w Vector,
    /// `[width]`
    pub bias: &'w Vector,
    /// Added to the variance under the root.
    pub epsilon: f32,
}

/// Where a LayerNorm writes.
#[derive(Debug, Clone, Copy)]
pub struct NormOutput {
    /// `[rows, width]`
    pub normed: Matrix,
    /// `[rows, 2]` without gaps: mean and reciprocal standard deviation, for backward
    pub statistics: Matrix,
}

/// How images are cut into patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchGrid {
    /// Images of the micro-batch.
    pub images: usize,
    /// Tokens per image, class token included.
    pub tokens: usize,
    /// Pixels along a patch's side.
    pub patch_size: usize,
    /// Patches along a side.
    pub grid: usize,
}

/// Why a device could not do what was asked of it. What was queued before may be lost; the queue is empty afterwards.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the message of each variant says what it means"
)]
pub enum DeviceError {
    #[error("the device has no room for {bytes} more bytes")]
    OutOfMemory { bytes: usize },
    #[error("the device cannot be used any more: {reason}")]
    Lost { reason: String },
    #[error("the device cannot compute this: {reason}")]
    Unsupported { reason: String },
}

/// Values of each buffer that a micro-batch needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferLengths {
    /// Of [`Region::Kept`].
    pub kept: usize,
    /// Of [`Region::Scratch`].
    pub scratch: usize,
    /// Of [`Region::Pixels`].
    pub pixels: usize,
}

/// How a device wants its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkShape {
    /// Queues that work side by side, each with its own host thread; at least 1.
    pub queues: usize,
    /// Rows of a micro-batch that are aimed at.
    pub rows_aimed_at: usize,
}

/// Fused operations on the memory of one queue. They begin in the order in which they are asked for and may still run when the call
/// returns; [`Self::finish`] waits for them. Outputs are overwritten unless the text says "adds". An output never overlaps another
/// operand, except where the text allows it.
///
/// Operations do not check what they are given beyond what memory safety needs: shapes are checked once, when a pass is
/// planned, and a mismatch after that is a defect of the caller and panics.
pub trait Backend: Clone + Send + Sync + Sized {
    /// Operations in order, and the memory that they work on.
    type Queue: Send;
    /// A frozen linear map `[out, in]`.
    type Weight: Send + Sync;
    /// Read-only values, `[length]`; written only between passes.
    type Vector: Send + Sync;

    /// Whether memory of a queue is that of the host, so that nothing is won by leaving images there.
    fn is_host(&self) -> bool {
        false
    }
    /// How the device wants its work, where the host has `threads` threads.
    fn work_shape(&self, threads: usize) -> WorkShape;
    /// Values of scratch that [`Self::attention`] and its backward need.
    fn attention_scratch(&self, shape: AttentionShape) -> usize;
    /// The same backend for a queue that has `threads` threads to itself, its caller among them.
    fn spread(&self, threads: usize) -> Self;
    /// An empty queue without memory.
    fn queue(&self) -> Self::Queue;
    /// Lays out memory for a micro-batch. There is a [`Region::Kept`] for each `slot`; operations that follow mean this one. What a buffer held
    /// is lost when it grows.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`]
    fn enter(
        &self,
        queue: &mut Self::Queue,
        slot: usize,
        lengths: BufferLengths,
    ) -> Result<(), DeviceError>;
    /// Lays out `length` values of [`Region::Gradients`], all zero.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`]
    fn clear_gradients(&self, queue: &mut Self::Queue, length: usize) -> Result<(), DeviceError>;
    /// Waits until everything in the queue is done.
    ///
    /// # Errors
    /// What went wrong since the last call.
    fn finish(&self, queue: &mut Self::Queue) -> Result<(), DeviceError>;

    /// What is queued from here on becomes one piece of work, which a device may put off until [`Self::end_piece`] or [`Self::finish`] and do faster
    /// where it has done the same before. Meanwhile no vector is written. What an unfinished piece had put off is left out.
    fn begin_piece(&self, _queue: &mut Self::Queue) {}
    /// The piece is whole.
    fn end_piece(&self, _queue: &mut Self::Queue) {}

    /// A linear map whose rows are those of `parts` one after another, each `[out, inputs]`.
    fn weight(&self, parts: &[&[f32]], inputs: usize) -> Self::Weight;
    /// A vector that holds `values`.
    fn vector(&self, values: &[f32]) -> Self::Vector;
    /// Replaces the values of a vector of the same length.
    fn write_vector(&self, vector: &mut Self::Vector, values: &[f32]);

    /// Copies host values into `target`, which has no gaps.
    fn upload(&self, queue: &mut Self::Queue, values: &[f32], target: Matrix);
    /// As [`Self::upload`], for indices: `target` has one column.
    fn upload_indices(&self, queue: &mut Self::Queue, values: &[u32], target: Matrix);
    /// Sends `source` to the host. Nothing may write there before [`Self::finish`].
    fn download(&self, queue: &mut Self::Queue, source: Matrix);
    /// What [`Self::download`] has sent, after [`Self::finish`], without gaps.
    fn downloaded(&self, queue: &Self::Queue, source: Matrix, values: &mut [f32]);
    /// As [`Self::downloaded`], for indices: `source` has one column.
    fn downloaded_indices(&self, queue: &Self::Queue, source: Matrix, values: &mut [u32]);
    /// Overwrites `target` with zeros.
    fn fill_zero(&self, queue: &mut Self::Queue, target: Matrix);

    /// `pixels [images, 3·side²]` to `patches [images·tokens, 3·patch²]`, the row of a class token zero. `positions`
    /// (`[images·tokens, 1]` indices: 0 the class token, patch p = p + 1) says which patch each row is; without it all in order.
    fn patchify(
        &self,
        queue: &mut Self::Queue,
        pixels: Matrix,
        grid: PatchGrid,
        positions: Option<Matrix>,
        patches: Matrix,
    );
    /// Overwrites `dpixels`; patches that no row represents get zero.
    fn patchify_backward(
        &self,
        queue: &mut Self::Queue,
        dpatches: Matrix,
        grid: PatchGrid,
        positions: Option<Matrix>,
        dpixels: Matrix,
    );
    /// Adds bias and position embedding to the patch rows of `tokens`; class rows become class token + position.
    #[expect(clippy::too_many_arguments, reason = "operands of one fused operation")]
    fn embed(
        &self,
        queue: &mut Self::Queue,
        tokens: Matrix,
        grid: PatchGrid,
        positions: Option<Matrix>,
        bias: Option<&Self::Vector>,
        class_token: &Self::Vector,
        position_embedding: &Self::Vector,
    );

    /// `y = x·weightᵀ`
    fn linear(&self, queue: &mut Self::Queue, x: Matrix, weight: &Self::Weight, y: Matrix);
    /// `dx = dy·weight`; with `add` it adds.
    fn linear_backward(
        &self,
        queue: &mut Self::Queue,
        dy: Matrix,
        weight: &Self::Weight,
        dx: Matrix,
        add: bool,
    );

    /// `u [rows, rank] = scale·x·matrixᵀ`, `matrix` is `[rank, width]`
    fn low_rank_down(
        &self,
        queue: &mut Self::Queue,
        x: Matrix,
        matrix: VectorPart<'_, Self::Vector>,
        scale: f32,
        u: Matrix,
    );
    /// Adds `u·matrix` to `y [rows, width]`, `matrix` is `[rank, width]`.
    fn low_rank_up(
        &self,
        queue: &mut Self::Queue,
        u: Matrix,
        matrix: VectorPart<'_, Self::Vector>,
        y: Matrix,
    );
    /// Adds `uᵀ·x` to `dmatrix [rank, width]`.
    fn low_rank_gradient(&self, queue: &mut Self::Queue, u: Matrix, x: Matrix, dmatrix: Matrix);

    /// LayerNorm of the rows of `x`.
    fn norm(
        &self,
        queue: &mut Self::Queue,
        x: Matrix,
        norm: Norm<'_, Self::Vector>,
        out: NormOutput,
    );
    /// Adds the gradient of [`Self::norm`] at `x` to `dx`.
    fn norm_backward(
        &self,
        queue: &mut Self::Queue,
        dnormed: Matrix,
        x: Matrix,
        statistics: Matrix,
        norm: Norm<'_, Self::Vector>,
        dx: Matrix,
    );
    /// `sum = x[rows] + scale∘(branch + bias)`, then LayerNorm of `sum` where `norm` is given. Without `rows` (indices
    /// `[sum.rows, 1]`) row i reads row i.
    #[expect(clippy::too_many_arguments, reason = "operands of one fused operation")]
    fn residual_norm(
        &self,
        queue: &mut Self::Queue,
        x: Matrix,
        rows: Option<Matrix>,
        branch: Matrix,
        bias: &Self::Vector,
        scale: Option<&Self::Vector>,
        sum: Matrix,
        norm: Option<(Norm<'_, Self::Vector>, NormOutput)>,
    );
    /// `y = x∘scale`, the backward of LayerScale.
    fn scale_columns(&self, queue: &mut Self::Queue, x: Matrix, scale: &Self::Vector, y: Matrix);

    /// `y = activation(x + bias)`; `y` may be `x`.
    fn activation(
        &self,
        queue: &mut Self::Queue,
        x: Matrix,
        bias: &Self::Vector,
        activation: Activation,
        y: Matrix,
    );
    /// Multiplies `dy` by the slope of the activation at `x + bias`.
    fn activation_backward(
        &self,
        queue: &mut Self::Queue,
        x: Matrix,
        bias: &Self::Vector,
        activation: Activation,
        dy: Matrix,
    );

    /// `context [images·queries, width] = softmax((q + query_bias)·kᵀ / √head_width)·(v + value_bias)`
    fn attention(
        &self,
        queue: &mut Self::Queue,
        shape: AttentionShape,
        input: AttentionInput<'_, Self::Vector>,
        context: Matrix,
    );
    /// Gradients of [`Self::attention`] at queries, and at keys and values.
    fn attention_backward(
        &self,
        queue: &mut Self::Queue,
        shape: AttentionShape,
        input: AttentionInput<'_, Self::Vector>,
        dcontext: Matrix,
        dquery: Matrix,
        dkey_value: Matrix,
    );
    /// `attention [images, tokens − 1]` of the class token over the patches, mean over heads. `class_query` is
    /// `[images, width]` without bias; `scratch` as in [`AttentionInput`].
    #[expect(clippy::too_many_arguments, reason = "operands of one fused operation")]
    fn class_attention(
        &self,
        queue: &mut Self::Queue,
        shape: AttentionShape,
        class_query: Matrix,
        key_value: Matrix,
        query_bias: &Self::Vector,
        scratch: Matrix,
        attention: Matrix,
    );
    /// `rows [images·(1 + keep), 1]`: for each image of `tokens` tokens the row of its class token and the rows of the
    /// `keep` patches with the most attention, ascending; of equals the first stays. With `keep` = 0 attention is not read.
    fn choose_rows(
        &self,
        queue: &mut Self::Queue,
        attention: Option<Matrix>,
        tokens: usize,
        keep: usize,
        rows: Matrix,
    );
    /// `y[i] = x[rows[i]]`
    fn gather(&self, queue: &mut Self::Queue, x: Matrix, rows: Matrix, y: Matrix);
    /// Adds `dy[i]` to `dx[rows[i]]`.
    fn scatter_add(&self, queue: &mut Self::Queue, dy: Matrix, rows: Matrix, dx: Matrix);

    /// `sums [1, 4·width]`: for each column the sum over all rows as an `f64`, then for each column that of the squares, the lower half of the
    /// bits first. They begin at an even place of their buffer.
    fn column_sums(&self, queue: &mut Self::Queue, x: Matrix, sums: Matrix);
    /// Adds `offset + slope∘x` to `dx`; both are `[width]`.
    fn add_affine(
        &self,
        queue: &mut Self::Queue,
        x: Matrix,
        offset: VectorPart<'_, Self::Vector>,
        slope: VectorPart<'_, Self::Vector>,
        dx: Matrix,
    );
    /// Adds `x` to `y`.
    fn add(&self, queue: &mut Self::Queue, x: Matrix, y: Matrix);

    /// Reduces the tokens of each image to `pooled [images, width]` (`[images, 2·width]` for class token and mean).
    fn pool(&self, queue: &mut Self::Queue, tokens: Matrix, pooling: Pooling, pooled: Matrix);
    /// Overwrites `dtokens`.
    fn pool_backward(
        &self,
        queue: &mut Self::Queue,
        dpooled: Matrix,
        pooling: Pooling,
        dtokens: Matrix,
    );
}

/// An `f64` as two values of a matrix, the lower half of its bits first.
pub fn halves(value: f64) -> [f32; 2] {
    let bits = value.to_bits();
    [
        f32::from_bits(bits as u32),
        f32::from_bits((bits >> 32) as u32),
    ]
}

/// What [`halves`] was made of.
pub fn whole([low, high]: [f32; 2]) -> f64 {
    f64::from_bits(u64::from(low.to_bits()) | u64::from(high.to_bits()) << 32)
}
