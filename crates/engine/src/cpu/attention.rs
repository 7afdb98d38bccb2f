//! Multi-head attention, one head of one image at a time: its scores never leave the cache.

use super::buffer::{View, ViewMut};
use super::operand::Operand;
use super::product::product;
use super::simd::{LANES, Lanes, exp, load, map, multiversion, store, sum};
use crate::backend::AttentionShape;

/// What one attention reads, as [`crate::backend::AttentionInput`] says.
pub struct AttentionViews<'a> {
    pub shape: AttentionShape,
    pub query: View<'a>,
    pub key_value: View<'a>,
    pub query_bias: &'a [f32],
    pub value_bias: &'a [f32],
}

/// Keys and values of one head of one image.
struct HeadView<'a> {
    key: Operand<'a>,
    key_transposed: Operand<'a>,
    value: Operand<'a>,
    value_transposed: Operand<'a>,
}

impl AttentionViews<'_> {
    fn head(&self, image: usize, head: usize) -> HeadView<'_> {
        let AttentionShape {
            tokens,
            heads,
            head_width,
            ..
        } = self.shape;
        let stride = self.key_value.stride;
        let start = image * tokens * stride + head * head_width;
        let key = &self.key_value.values[start..];
        let value = &self.key_value.values[start + heads * head_width..];
        HeadView {
            key: Operand::rows(key, stride),
            key_transposed: Operand::transposed(key, stride),
            value: Operand::rows(value, stride),
            value_transposed: Operand::transposed(value, stride),
        }
    }

    /// `queries = (q + bias) / √head_width`
    fn load_queries(&self, image: usize, head: usize, queries: &mut [f32]) {
        let AttentionShape {
            queries: count,
            head_width,
            ..
        } = self.shape;
        let columns = head * head_width..(head + 1) * head_width;
        let bias = &self.query_bias[columns.clone()];
        let scale = 1.0 / (head_width as f32).sqrt();
        for (row, target) in queries.chunks_exact_mut(head_width).take(count).enumerate() {
            let source = &self.query.row(image * count + row)[columns.clone()];
            for ((target, &q), &bias) in target.iter_mut().zip(source).zip(bias) {
                *target = (q + bias) * scale;
            }
        }
    }
}

/// Values of scratch that [`forward`] and [`backward`] need.
pub fn scratch(shape: AttentionShape) -> usize {
    2 * shape.queries * (shape.tokens + shape.head_width)
}

/// Cuts scratch into `[queries, head_width]` twice and `[queries, tokens]` twice.
fn cut(scratch: &mut [f32], shape: AttentionShape) -> [&mut [f32]; 4] {
    let narrow = shape.queries * shape.head_width;
    let wide = shape.queries * shape.tokens;
    let (queries, rest) = scratch.split_at_mut(narrow);
    let (dqueries, rest) = rest.split_at_mut(narrow);
    let (scores, rest) = rest.split_at_mut(wide);
    [queries, dqueries, scores, &mut rest[..wide]]
}

/// Writes `context` and `log_sum`.
pub fn forward(
    input: &AttentionViews<'_>,
    context: &mut ViewMut<'_>,
    log_sum: &mut ViewMut<'_>,
    scratch: &mut [f32],
) {
    let AttentionShape {
        images,
        queries: count,
        tokens,
        heads,
        head_width,
    } = input.shape;
    let [queries, _, scores, _] = cut(scratch, input.shape);
    for image in 0..images {
        for head in 0..heads {
            let operands = input.head(image, head);
            input.load_queries(image, head, queries);
            product(
                [count, tokens, head_width],
                Operand::rows(queries, head_width),
                operands.key_transposed,
                scores,
                tokens,
            );
            let sums = &mut log_sum.values[image * count * log_sum.stride + head..];
            softmax_rows(scores, tokens, sums, log_sum.stride);
            let stride = context.stride;
            let out = &mut context.values[image * count * stride + head * head_width..];
            product(
                [count, head_width, tokens],
                Operand::rows(scores, tokens),
                operands.value,
                out,
                stride,
            );
        }
        // Rows of a softmax sum to one, so the bias of the values passes through as it is.
        for row in image * count..(image + 1) * count {
            for (value, bias) in context.row(row).iter_mut().zip(input.value_bias) {
                *value += bias;
            }
        }
    }
}

/// Writes `dquery` and `dkey_value`.
pub fn backward(
    input: &AttentionViews<'_>,
    log_sum: View<'_>,
    dcontext: View<'_>,
    dquery: &mut ViewMut<'_>,
    dkey_value: &mut ViewMut<'_>,
    scratch: &mut [f32],
) {
    let AttentionShape {
        images,
        queries: count,
        tokens,
        heads,
        head_width,
    } = input.shape;
    let scale = 1.0 / (head_width as f32).sqrt();
    let [queries, _, scores, dscores] = cut(scratch, input.shape);
    let width = heads * head_width;
    for image in 0..images {
        for head in 0..heads {
            let operands = input.head(image, head);
            input.load_queries(image, head, queries);
            product(
                [count, tokens, head_width],
                Operand::rows(queries, head_width),
                operands.key_transposed,
                scores,
                tokens,
            );
            let sums = &log_sum.values[image * count * log_sum.stride + head..];
            let dout = &dcontext.values[image * count * dcontext.stride + head * head_width..];
            product(
                [count, tokens, head_width],
                Operand::rows(dout, dcontext.stride),
                operands.value_transposed,
                dscores,
                tokens,
            );
            softmax_backward_rows(scores, dscores, tokens, sums, log_sum.stride);
            let stride = dkey_value.stride;
            let start = image * tokens * stride + head * head_width;
            product(
                [tokens, head_width, count],
                Operand::transposed(dscores, tokens),
                Operand::rows(queries, head_width),
                &mut dkey_value.values[start..],
                stride,
            );
            product(
                [tokens, head_width, count],
                Operand::transposed(scores, tokens),
                Operand::rows(dout, dcontext.stride),
                &mut dkey_value.values[start + width..],
                stride,
            );
            let stride = dquery.stride;
            product(
                [count, head_width, tokens],
                Operand::rows(dscores, tokens),
                operands.key,
                &mut dquery.values[image * count * stride + head * head_width..],
                stride,
            );
            for row in image * count..(image + 1) * count {
                for value in &mut dquery.row(row)[head * head_width..][..head_width] {
                    *value *= scale;
                }
            }
        }
    }
}

#[inline(always)]
fn maximum(row: &[f32]) -> f32 {
    let mut largest: Lanes = [f32::NEG_INFINITY; LANES];
    let full = row.len() - row.len() % LANES;
    for at in (0..full).step_by(LANES) {
        let row = load(row, at);
        for lane in 0..LANES {
            largest[lane] = if row[lane] > largest[lane] {
                row[lane]
            } else {
                largest[lane]
            };
        }
    }
    let tail = row[full..].iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    largest.iter().fold(tail, |a, &b| a.max(b))
}

/// `row = exp(row − shift)`; returns the sum.
#[inline(always)]
fn exponentials(row: &mut [f32], shift: f32) -> f32 {
    let mut total: Lanes = [0.0; LANES];
    let full = row.len() - row.len() % LANES;
    for at in (0..full).step_by(LANES) {
        let values = map(load(row, at), |value| exp(value - shift));
        for lane in 0..LANES {
            total[lane] += values[lane];
        }
        store(row, at, values);
    }
    if full < row.len() {
        let values = map(load(row, full), |value| exp(value - shift));
        for (lane, value) in row[full..].iter_mut().enumerate() {
            *value = values[lane];
            total[lane] += values[lane];
        }
    }
    sum(total)
}

multiversion! {
    /// Softmax of each row of `tokens` scores; the log of the sum of exponentials of row i goes to `log_sums[i·stride]`.
    fn softmax_rows(scores: &mut [f32], tokens: usize, log_sums: &mut [f32], stride: usize) {
        for (index, row) in scores.chunks_exact_mut(tokens).enumerate() {
            let largest = maximum(row);
            let total = exponentials(row, largest);
            log_sums[index * stride] = largest + total.ln();
            let scale = 1.0 / total;
            for value in row {
                *value *= scale;
            }
        }
    }
}

multiversion! {
    /// Scores become probabilities p; gradients of p become those of the scores: ds = p∘(dp − Σ p∘dp).
    fn softmax_backward_rows(scores: &mut [f32], dscores: &mut [f32], tokens: usize, log_sums: &[f32], stride: usize) {
        let rows = scores.chunks_exact_mut(tokens).zip(dscores.chunks_exact_mut(tokens));
        for (index, (row, drow)) in rows.enumerate() {
            exponentials(row, log_sums[index * stride]);
            let mut along: Lanes = [0.0; LANES];
            for at in (0..tokens).step_by(LANES) {
                let (p, d) = (load(row, at), load(drow, at));
                for lane in 0..LANES {
                    along[lane] = p[lane].mul_add(d[lane], along[lane]);
                }
            }
            let along = sum(along);
            for at in (0..tokens).step_by(LANES) {
                let (p, mut d) = (load(row, at), load(drow, at));
                for lane in 0..LANES {
                    d[lane] = p[lane] * (d[lane] - along);
                }
                store(drow, at, d);
            }
        }
    }
}

/// Attention of the class token over the patches, mean over heads; `query` has one row per image.
pub fn class_attention(
    input: &AttentionViews<'_>,
    attention: &mut ViewMut<'_>,
    scratch: &mut [f32],
) {
    let AttentionShape {
        images,
        tokens,
        heads,
        head_width,
        ..
    } = input.shape;
    let [queries, _, scores, _] = cut(scratch, input.shape);
    let share = 1.0 / heads as f32;
    for image in 0..images {
        let out = attention.row(image);
        out.fill(0.0);
        for head in 0..heads {
            input.load_queries(image, head, queries);
            product(
                [1, tokens, head_width],
                Operand::rows(queries, head_width),
                input.head(image, head).key_transposed,
                scores,
                tokens,
            );
            softmax_rows(scores, tokens, &mut [0.0], 1);
            for (out, probability) in out.iter_mut().zip(&scores[1..]) {
                *out += share * probability;
            }
        }
    }
}
