// Attention forward, with softmax over tiles of keys, so that scores never leave the processor; and the class token's attention.
//
// Per image and head, with q = (query + query_bias)/√head_width:
//   context = softmax(q·keyᵀ)·value + value_bias        (rows of a softmax sum to one, so the bias passes as it is)
//   log_sum = log Σ exp(q·keyᵀ) of each row              (for backward)
//
// query, context [queries of all images, heads·head_width], key_value [tokens of all images, 2·heads·head_width]: keys, then
// values; log_sum [queries of all images, heads]; each with its stride. query_bias, value_bias [heads·head_width].
// `query_starts`, `token_starts` [images + 1] hold where the rows of each image begin, for lists of unequal length; then `queries`
// is that of the longest list. Null: each image has `queries` and `tokens`. An image has at least one token.
// Names end with the largest head_width that they take, and `_fp32` where products are as good as FP32 (three products in TF32
// in place of one).
#include "attention.h"
#include "reduce.h"

// Overwrites context and log_sum. grid (⌈queries/64⌉, heads, images), 128 threads, static shared memory alone.
template <int HEAD, bool PRECISE>
__device__ inline void forward(const float *query, int query_stride, const float *key_value, int key_value_stride, const float *query_bias,
                               const float *value_bias, float *context, int context_stride, float *log_sum, int log_sum_stride, const int *query_starts,
                               const int *token_starts, int queries, int tokens, int heads, int head_width, float *keys, float *values) {
    Head own(blockIdx.z, query_starts, token_starts, queries, tokens);
    int first = blockIdx.x * KEPT_ROWS, columns = blockIdx.y * head_width;
    if (first >= own.queries) return; // the whole block
    int lane = threadIdx.x % 32, group = lane / 4, member = lane % 4, base = first + threadIdx.x / 32 * 16;
    const float *key_rows = row_at(key_value, own.first_token, key_value_stride) + columns;
    const float *value_rows = key_rows + heads * head_width;
    RowFragments<HEAD> q;
    q.load(row_at(query, own.first_query, query_stride) + columns, query_stride, query_bias + columns, 1.0f / sqrtf((float)head_width), base, own.queries,
           head_width);
    float sums[HEAD / 8][4] = {};
    // Of rows group and group + 8.
    float largest[2] = {-LARGEST_FLOAT, -LARGEST_FLOAT}, total[2] = {0.0f, 0.0f};
    for (int start = 0; start < own.tokens; start += PASSING_ROWS) {
        __syncthreads(); // before: the tiles are still read
        load_tile<HEAD>(keys, key_rows, key_value_stride, nullptr, 1.0f, start, own.tokens, head_width);
        load_tile<HEAD>(values, value_rows, key_value_stride, nullptr, 1.0f, start, own.tokens, head_width);
        __syncthreads(); // after: the tiles are written
        float scores[PASSING_ROWS / 8][4], tops[2] = {largest[0], largest[1]};
        for (int n = 0; n < PASSING_ROWS / 8; n++) {
            rows_by_tile<HEAD, PRECISE>(scores[n], q, keys, n * 8);
            for (int i = 0; i < 4; i++)
                if (start + n * 8 + 2 * member + i % 2 < own.tokens) tops[i / 2] = fmaxf(tops[i / 2], scores[n][i]);
        }
        for (int half = 0; half < 2; half++) {
            float top = quad_maximum(tops[half]), shrink = exponential<PRECISE>(largest[half] - top);
            largest[half] = top;
            total[half] *= shrink;
            for (int step = 0; step < HEAD / 8; step++) {
                sums[step][2 * half] *= shrink;
                sums[step][2 * half + 1] *= shrink;
            }
        }
        for (int n = 0; n < PASSING_ROWS / 8; n++) {
            for (int i = 0; i < 4; i++) {
                bool inside = start + n * 8 + 2 * member + i % 2 < own.tokens;
                scores[n][i] = inside ? exponential<PRECISE>(scores[n][i] - largest[i / 2]) : 0.0f;
                total[i / 2] += scores[n][i];
            }
            add_product<HEAD, PRECISE>(sums, scores[n], values, n * 8);
        }
    }
    for (int half = 0; half < 2; half++) {
        float all = quad_sum(total[half]);
        int row = base + group + half * 8;
        if (row >= own.queries) continue;
        float *out = row_at(context, own.first_query + row, context_stride) + columns;
        for (int step = 0; step < HEAD / 8; step++)
            for (int i = 0; i < 2; i++) {
                int column = step * 8 + 2 * member + i;
                if (column < head_width) out[column] = sums[step][2 * half + i] / all + value_bias[columns + column];
            }
        if (member == 0) row_at(log_sum, own.first_query + row, log_sum_stride)[blockIdx.y] = largest[half] + logf(all);
    }
}

#define ATTENTION_FORWARD(name, HEAD, PRECISE)                                                                                             \
    KERNEL(name, ATTENTION_THREADS)                                                                                                        \
    (const float *query, int query_stride, const float *key_value, int key_value_stride, const float *query_bias, const float *value_bias, \
     float *context, int context_stride, float *log_sum, int log_sum_stride, const int *query_starts, const int *token_starts,            \
     int queries, int tokens, int heads, int head_width) {                                                                                \
        SHARED(float, keys, PASSING_ROWS * tile_row<HEAD>());                                                                              \
        SHARED(float, values, PASSING_ROWS * tile_row<HEAD>());                                                                            \
        forward<HEAD, PRECISE>(query, query_stride, key_value, key_value_stride, query_bias, value_bias, context, context_stride, log_sum, \
                               log_sum_stride, query_starts, token_starts, queries, tokens, heads, head_width, keys, values);              \
    }                                                                                                                                      \
    REGISTER(name)

ATTENTION_FORWARD(attention_forward_32, 32, false)
ATTENTION_FORWARD(attention_forward_64, 64, false)
ATTENTION_FORWARD(attention_forward_32_fp32, 32, true)
ATTENTION_FORWARD(attention_forward_64_fp32, 64, true)

// attention [images, tokens − 1] (with its stride) = mean over heads of softmax(q·keyᵀ) without the class token's own column,
// for one query per image: `class_query` [images, heads·head_width] without bias. All in FP32, since the choice of tokens hangs
// on it. Overwrites attention.
// grid (images), 256 threads; dynamic shared memory for 2·tokens + head_width values, of the longest list. `token_starts` as above.
KERNEL(class_attention, 256)
(const float *class_query, int class_query_stride, const float *key_value, int key_value_stride, const float *query_bias, float *attention,
 int attention_stride, const int *token_starts, int all_tokens, int heads, int head_width) {
    SHARED_DYNAMIC(float, memory);
    SHARED(float, partial, MOST_WARPS);
    int image = blockIdx.x, lane = threadIdx.x % 32;
    Head own(image, nullptr, token_starts, 1, all_tokens);
    float *scores = memory, *means = memory + own.tokens, *q = memory + 2 * own.tokens;
    float share = 1.0f / heads, scale = 1.0f / sqrtf((float)head_width);
    for (int token = threadIdx.x; token < own.tokens; token += blockDim.x) means[token] = 0.0f;
    for (int head = 0; head < heads; head++) {
        int columns = head * head_width;
        for (int i = threadIdx.x; i < head_width; i += blockDim.x)
            q[i] = (row_at(class_query, image, class_query_stride)[columns + i] + query_bias[columns + i]) * scale;
        __syncthreads(); // q is written
        // A warp a token.
        for (int token = threadIdx.x / 32; token < own.tokens; token += blockDim.x / 32) {
            const float *key = row_at(key_value, own.first_token + token, key_value_stride) + columns;
            float score = 0.0f;
            for (int i = lane; i < head_width; i += 32) score += q[i] * key[i];
            for (int distance = 16; distance > 0; distance /= 2) score += __shfl_xor_sync(ALL_LANES, score, distance);
            if (lane == 0) scores[token] = score;
        }
        __syncthreads(); // scores are written
        float top = -LARGEST_FLOAT, total[1] = {0.0f};
        for (int token = threadIdx.x; token < own.tokens; token += blockDim.x) top = fmaxf(top, scores[token]);
        top = block_maximum(top, partial);
        for (int token = threadIdx.x; token < own.tokens; token += blockDim.x) {
            scores[token] = expf(scores[token] - top);
            total[0] += scores[token];
        }
        block_sum(total, partial);
        // Each thread reads the scores that it has written. The next head's scores come after the barrier that ends its q.
        for (int token = threadIdx.x; token < own.tokens; token += blockDim.x) means[token] += share * (scores[token] / total[0]);
    }
    for (int token = threadIdx.x; token < own.tokens; token += blockDim.x)
        if (token > 0) row_at(attention, image, attention_stride)[token - 1] = means[token];
}
REGISTER(class_attention)
