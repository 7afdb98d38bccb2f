//! Attention and its gradients against the plain formula.

use super::{SUMS, TestMemory, assert_near_all, dot};
use crate::backend::{AttentionInput, AttentionShape, Backend};
use proptest::prelude::*;
use test_support::gradient_check::{assert_gradient, noise, widen};

/// Calls `visit(row of the query, first column of the head, probability of each token)`.
fn for_each_query(
    shape: AttentionShape,
    query: &[f64],
    key_value: &[f64],
    query_bias: &[f64],
    mut visit: impl FnMut(usize, usize, Vec<f64>),
) {
    let width = shape.heads * shape.head_width;
    for row in 0..shape.images * shape.queries {
        let first_token = row / shape.queries * shape.tokens;
        for first in (0..width).step_by(shape.head_width) {
            let scores = (0..shape.tokens).map(|token| {
                let key = &key_value[(first_token + token) * 2 * width..];
                let products = (first..first + shape.head_width)
                    .map(|c| (query[row * width + c] + query_bias[c]) * key[c]);
                products.sum::<f64>() / (shape.head_width as f64).sqrt()
            });
            let exponentials: Vec<f64> = scores.map(f64::exp).collect();
            let total: f64 = exponentials.iter().sum();
            let probabilities = exponentials.iter().map(|value| value / total).collect();
            visit(row, first, probabilities);
        }
    }
}

/// The context of queries, keys and values with their biases.
fn plain_attention(
    shape: AttentionShape,
    query: &[f64],
    key_value: &[f64],
    query_bias: &[f64],
    value_bias: &[f64],
) -> Vec<f64> {
    let width = shape.heads * shape.head_width;
    let mut context = vec![0.0; shape.images * shape.queries * width];
    for_each_query(shape, query, key_value, query_bias, |row, first, p| {
        for (token, p) in p.iter().enumerate() {
            let at = row / shape.queries * shape.tokens + token;
            let value = &key_value[at * 2 * width + width..];
            for c in first..first + shape.head_width {
                context[row * width + c] += p * (value[c] + value_bias[c]);
            }
        }
    });
    context
}

/// Gradients at queries, and at keys and values: ds = p∘(dp − Σ p∘dp).
fn plain_attention_backward(
    shape: AttentionShape,
    query: &[f64],
    key_value: &[f64],
    query_bias: &[f64],
    value_bias: &[f64],
    dcontext: &[f64],
) -> [Vec<f64>; 2] {
    let width = shape.heads * shape.head_width;
    let scale = 1.0 / (shape.head_width as f64).sqrt();
    let mut dquery = vec![0.0; query.len()];
    let mut dkey_value = vec![0.0; key_value.len()];
    for_each_query(shape, query, key_value, query_bias, |row, first, p| {
        let columns = first..first + shape.head_width;
        let start = |token: usize| (row / shape.queries * shape.tokens + token) * 2 * width;
        let dp: Vec<f64> = (0..shape.tokens)
            .map(|token| {
                let value = &key_value[start(token) + width..];
                let products = columns
                    .clone()
                    .map(|c| dcontext[row * width + c] * (value[c] + value_bias[c]));
                products.sum()
            })
            .collect();
        let along = dot(&p, &dp);
        for token in 0..shape.tokens {
            let ds = p[token] * (dp[token] - along) * scale;
            for c in columns.clone() {
                dquery[row * width + c] += ds * key_value[start(token) + c];
                dkey_value[start(token) + c] += ds * (query[row * width + c] + query_bias[c]);
                dkey_value[start(token) + width + c] += p[token] * dcontext[row * width + c];
            }
        }
    });
    [dquery, dkey_value]
}

/// One attention of drawn values: what goes in and what the backend makes of it.
struct AttentionRun {
    query: Vec<f32>,
    key_value: Vec<f32>,
    query_bias: Vec<f32>,
    value_bias: Vec<f32>,
    dcontext: Vec<f32>,
    context: Vec<f32>,
    dquery: Vec<f32>,
    dkey_value: Vec<f32>,
    /// `[images, tokens − 1]`; empty for one token.
    class_attention: Vec<f32>,
}

fn run<B: Backend>(backend: &B, shape: AttentionShape, seed: u64) -> AttentionRun {
    let AttentionShape {
        images,
        queries,
        tokens,
        heads,
        head_width,
    } = shape;
    let width = heads * head_width;
    let [query_rows, token_rows] = [images * queries, images * tokens];
    let q = noise(seed, query_rows * width);
    let kv = noise(seed + 1, token_rows * 2 * width);
    let (query_bias, value_bias) = (noise(seed + 2, width), noise(seed + 3, width));
    let dcontext = noise(seed + 4, query_rows * width);
    let vectors = [&query_bias, &value_bias].map(|values| backend.vector(values));
    let mut memory = TestMemory::new(backend);
    let scratch = memory.take(1, backend.attention_scratch(shape));
    let query = memory.put(query_rows, width, &q);
    let key_value = memory.put(token_rows, 2 * width, &kv);
    let log_sum = memory.take(query_rows, heads);
    let context = memory.take(query_rows, width);
    let dcontext_at = memory.put(query_rows, width, &dcontext);
    let dquery = memory.take(query_rows, width);
    let dkey_value = memory.take(token_rows, 2 * width);
    let input = || AttentionInput {
        query,
        key_value,
        query_bias: &vectors[0],
        value_bias: &vectors[1],
        log_sum,
        scratch,
    };
    backend.attention(&mut memory.queue, shape, input(), context);
    let borrowed = &mut memory.queue;
    backend.attention_backward(borrowed, shape, input(), dcontext_at, dquery, dkey_value);
    let mut class_attention = Vec::new();
    if tokens > 1 {
        let attention = memory.take(images, tokens - 1);
        backend.class_attention(
            &mut memory.queue,
            shape,
            query.every(queries),
            key_value,
            &vectors[0],
            scratch,
            attention,
        );
        class_attention = memory.get(attention);
    }
    AttentionRun {
        context: memory.get(context),
        dquery: memory.get(dquery),
        dkey_value: memory.get(dkey_value),
        query: q,
        key_value: kv,
        query_bias,
        value_bias,
        dcontext,
        class_attention,
    }
}

pub fn attention_its_gradients_and_the_class_tokens_attention_equal_plain_loops<B: Backend>(
    backend: &B,
) {
    proptest!(ProptestConfig::with_cases(40), |(
        images in 0usize..3, class_only in any::<bool>(), tokens in 1usize..34, heads in 1usize..4, head_width in 1usize..20, seed in any::<u16>(),
    )| {
        let queries = if class_only { 1 } else { tokens };
        let shape = AttentionShape { images, queries, tokens, heads, head_width };
        let run = run(backend, shape, u64::from(seed));
        let [q, kv] = [widen(&run.query), widen(&run.key_value)];
        let [query_bias, value_bias] = [widen(&run.query_bias), widen(&run.value_bias)];
        let context = plain_attention(shape, &q, &kv, &query_bias, &value_bias);
        assert_near_all("context", &run.context, &context, SUMS);
        let [dquery, dkey_value] =
            plain_attention_backward(shape, &q, &kv, &query_bias, &value_bias, &widen(&run.dcontext));
        assert_near_all("dquery", &run.dquery, &dquery, SUMS);
        assert_near_all("dkey_value", &run.dkey_value, &dkey_value, SUMS);
        let mut class_attention = vec![0.0; images * (tokens - 1)];
        for_each_query(shape, &q, &kv, &query_bias, |row, _, p| {
            if row % queries == 0 {
                let own = &mut class_attention[row / queries * (tokens - 1)..];
                for (mean, p) in own.iter_mut().zip(&p[1..]) {
                    *mean += p / heads as f64;
                }
            }
        });
        assert_near_all("class attention", &run.class_attention, &class_attention, SUMS);
    });
}

pub fn gradients_of_attention_are_the_slopes_of_the_plain_formula<B: Backend>(backend: &B) {
    let sizes = [
        (1, 1, 1, 1, 1),
        (2, 3, 3, 2, 5),
        (1, 1, 7, 3, 4),
        (2, 5, 19, 1, 17),
        (1, 17, 17, 2, 8),
        // Wide heads, and more rows than a block of a device keeps.
        (2, 3, 5, 2, 40),
        (1, 67, 67, 1, 3),
        (2, 1, 67, 1, 3),
    ];
    for (images, queries, tokens, heads, head_width) in sizes {
        let shape = AttentionShape {
            images,
            queries,
            tokens,
            heads,
            head_width,
        };
        let run = run(backend, shape, 1);
        let [q, kv] = [widen(&run.query), widen(&run.key_value)];
        let weights = widen(&run.dcontext);
        let loss = |q: &[f64], kv: &[f64]| {
            let (query_bias, value_bias) = (widen(&run.query_bias), widen(&run.value_bias));
            let context = plain_attention(shape, q, kv, &query_bias, &value_bias);
            dot(&context, &weights)
        };
        assert_gradient("dquery", &run.query, &run.dquery, |q| loss(q, &kv));
        assert_gradient("dkey_value", &run.key_value, &run.dkey_value, |kv| {
            loss(&q, kv)
        });
    }
}

pub fn scores_of_thousands_neither_overflow_nor_vanish<B: Backend>(backend: &B) {
    let shape = AttentionShape {
        images: 1,
        queries: 1,
        tokens: 3,
        heads: 1,
        head_width: 1,
    };
    let mut memory = TestMemory::new(backend);
    let scratch = memory.take(1, backend.attention_scratch(shape));
    let query = memory.put(1, 1, &[100.0]);
    let key_value = memory.put(3, 2, &[-90.0, 1.0, 90.0, 2.0, 80.0, 4.0]);
    let [log_sum, context, dquery] = std::array::from_fn(|_| memory.take(1, 1));
    let dcontext = memory.put(1, 1, &[1.0]);
    let dkey_value = memory.take(3, 2);
    let zero = backend.vector(&[0.0]);
    let input = || AttentionInput {
        query,
        key_value,
        query_bias: &zero,
        value_bias: &zero,
        log_sum,
        scratch,
    };
    backend.attention(&mut memory.queue, shape, input(), context);
    let borrowed = &mut memory.queue;
    backend.attention_backward(borrowed, shape, input(), dcontext, dquery, dkey_value);
    assert_eq!(memory.get(context), [2.0]);
    // The exponential of what is far below ends at the smallest normal numbers.
    let gradients = [memory.get(dquery), memory.get(dkey_value)].concat();
    for (found, expected) in gradients.iter().zip([0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]) {
        assert!((found - expected).abs() < 1e-30, "{gradients:?}");
    }
}
