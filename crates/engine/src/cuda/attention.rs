//! Attention, its gradients, and the class token's attention.

use super::driver::Geometry;
use super::geometry::int;
use super::kernels::{
    AttentionBackwardKey, AttentionBackwardQuery, AttentionForward, ClassAttention, Ints,
};
use super::product::Precision;
use super::queue::{Queue, Stored};
use crate::backend::{AttentionInput, AttentionShape, DeviceError, Matrix};

/// Threads of a block, and rows that it keeps: `ATTENTION_THREADS` and `KEPT_ROWS` of the kernels.
const THREADS: u32 = 128;
const KEPT_ROWS: usize = 64;

/// Most values of a token in one head.
const WIDEST_HEAD: usize = 64;

/// All images have the same number of tokens.
const EVEN: Ints = Ints(0);

/// Values of scratch that the backward needs: one a query and head.
pub fn scratch(shape: AttentionShape) -> usize {
    shape.images * shape.queries * shape.heads
}

/// Which of the kernels takes heads of this width, in the order of their names; an error is kept where none does.
fn variant(queue: &mut Queue, shape: AttentionShape) -> Option<usize> {
    if shape.head_width > WIDEST_HEAD {
        queue.fail(DeviceError::Unsupported {
            reason: format!(
                "heads of {} values; its attention takes {WIDEST_HEAD} at most",
                shape.head_width
            ),
        });
        return None;
    }
    let exact = queue.precision() == Precision::Fp32;
    Some(usize::from(shape.head_width > 32) + 2 * usize::from(exact))
}

fn geometry(shape: AttentionShape, rows: usize) -> Geometry {
    // Without rows there is no block.
    Geometry {
        grid: [rows.div_ceil(KEPT_ROWS), shape.heads, shape.images],
        threads: THREADS,
        shared: 0,
    }
}

/// As [`crate::backend::Backend::attention`].
pub fn forward(
    queue: &mut Queue,
    shape: AttentionShape,
    input: &AttentionInput<'_, Stored>,
    context: Matrix,
) {
    let Some(variant) = variant(queue, shape) else {
        return;
    };
    let width = shape.heads * shape.head_width;
    let kernel = AttentionForward {
        query: queue.rows(input.query),
        key_value: queue.rows(input.key_value),
        query_bias: queue.vector(input.query_bias, width),
        value_bias: queue.vector(input.value_bias, width),
        context: queue.rows_mut(context),
        log_sum: queue.rows_mut(input.log_sum),
        query_starts: EVEN,
        token_starts: EVEN,
        queries: int(shape.queries),
        tokens: int(shape.tokens),
        heads: int(shape.heads),
        head_width: int(shape.head_width),
    };
    queue.launch_variant(variant, geometry(shape, shape.queries), &kernel);
}

/// As [`crate::backend::Backend::attention_backward`].
pub fn backward(
    queue: &mut Queue,
    shape: AttentionShape,
    input: &AttentionInput<'_, Stored>,
    dcontext: Matrix,
    dquery: Matrix,
    dkey_value: Matrix,
) {
    let Some(variant) = variant(queue, shape) else {
        return;
    };
    let along = Matrix {
        rows: shape.images * shape.queries,
        columns: shape.heads,
        stride: shape.heads,
        ..input.scratch
    };
    let width = shape.heads * shape.head_width;
    let by_query = AttentionBackwardQuery {
        query: queue.rows(input.query),
        key_value: queue.rows(input.key_value),
        query_bias: queue.vector(input.query_bias, width),
        log_sum: queue.rows(input.log_sum),
        dcontext: queue.rows(dcontext),
        dquery: queue.rows_mut(dquery),
        along: queue.rows_mut(along),
        query_starts: EVEN,
        token_starts: EVEN,
        queries: int(shape.queries),
        tokens: int(shape.tokens),
        heads: int(shape.heads),
        head_width: int(shape.head_width),
    };
    queue.launch_variant(variant, geometry(shape, shape.queries), &by_query);
    let by_key = AttentionBackwardKey {
        query: by_query.query,
        key_value: by_query.key_value,
        query_bias: by_query.query_bias,
        log_sum: by_query.log_sum,
        dcontext: by_query.dcontext,
        along: queue.rows(along),
        dkey_value: queue.rows_mut(dkey_value),
        query_starts: EVEN,
        token_starts: EVEN,
        queries: by_query.queries,
        tokens: by_query.tokens,
        heads: by_query.heads,
        head_width: by_query.head_width,
    };
    queue.launch_variant(variant, geometry(shape, shape.tokens), &by_key);
}

/// As [`crate::backend::Backend::class_attention`].
pub fn class_attention(
    queue: &mut Queue,
    shape: AttentionShape,
    class_query: Matrix,
    key_value: Matrix,
    query_bias: &Stored,
    attention: Matrix,
) {
    let kernel = ClassAttention {
        class_query: queue.rows(class_query),
        key_value: queue.rows(key_value),
        query_bias: queue.vector(query_bias, shape.heads * shape.head_width),
        attention: queue.rows_mut(attention),
        token_starts: EVEN,
        all_tokens: int(shape.tokens),
        heads: int(shape.heads),
        head_width: int(shape.head_width),
    };
    let geometry = Geometry {
        grid: [shape.images, 1, 1],
        threads: 256,
        shared: (2 * shape.tokens + shape.head_width) * size_of::<f32>(),
    };
    queue.launch(geometry, &kernel);
}
