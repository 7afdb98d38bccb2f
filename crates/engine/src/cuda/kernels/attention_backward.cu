// Attention backward in two kernels, since each has sums over another axis and sums are never shared between blocks.
//
// With p = exp(q·keyᵀ − log_sum), q = (query + query_bias)/√head_width, dp = dcontext·valueᵀ and
// along = Σ_keys p∘dp of a row of queries:
//   ds = p∘(dp − along)
//   dquery = ds·key/√head_width        attention_backward_query, which also writes along
//   dkey = dsᵀ·q, dvalue = pᵀ·dcontext attention_backward_key, which reads along
// (A bias of the values adds the same to all dp of a row, so it has no part in ds.)
//
// Shapes as in attention.cu; dcontext, dquery like context and query, dkey_value like key_value, along like log_sum; each with
// its stride. dquery, dkey_value and along are overwritten. `queries` and `tokens` are those of the longest lists where starts are
// given. 128 threads, static shared memory alone.
#include "attention.h"

// Scores of 8 columns of a result as probabilities; zero after the last key and the last query.
template <bool PRECISE> __device__ inline float probability(float score, float log_sum, bool inside) {
    return inside ? exponential<PRECISE>(score - log_sum) : 0.0f;
}

// grid (⌈queries/64⌉, heads, images). Goes twice over the keys: for `along`, then for dquery.
template <int HEAD, bool PRECISE>
__device__ inline void backward_query(const float *query, int query_stride, const float *key_value, int key_value_stride, const float *query_bias,
                                      const float *log_sum, int log_sum_stride, const float *dcontext, int dcontext_stride, float *dquery,
                                      int dquery_stride, float *along, int along_stride, const int *query_starts, const int *token_starts, int queries,
                                      int tokens, int heads, int head_width, float *keys, float *values) {
    Head own(blockIdx.z, query_starts, token_starts, queries, tokens);
    int first = blockIdx.x * KEPT_ROWS, columns = blockIdx.y * head_width;
    if (first >= own.queries) return; // the whole block
    int lane = threadIdx.x % 32, group = lane / 4, member = lane % 4, base = first + threadIdx.x / 32 * 16;
    const float *key_rows = row_at(key_value, own.first_token, key_value_stride) + columns;
    const float *value_rows = key_rows + heads * head_width;
    float scale = 1.0f / sqrtf((float)head_width);
    RowFragments<HEAD> q, dout;
    q.load(row_at(query, own.first_query, query_stride) + columns, query_stride, query_bias + columns, scale, base, own.queries, head_width);
    dout.load(row_at(dcontext, own.first_query, dcontext_stride) + columns, dcontext_stride, nullptr, 1.0f, base, own.queries, head_width);
    float logs[2], sums[HEAD / 8][4] = {}, total[2] = {0.0f, 0.0f};
    for (int half = 0; half < 2; half++) {
        int row = base + group + half * 8;
        logs[half] = row < own.queries ? row_at(log_sum, own.first_query + row, log_sum_stride)[blockIdx.y] : 0.0f;
    }
    for (int pass = 0; pass < 2; pass++) {
        for (int start = 0; start < own.tokens; start += PASSING_ROWS) {
            __syncthreads(); // before: the tiles are still read
            load_tile<HEAD>(keys, key_rows, key_value_stride, nullptr, 1.0f, start, own.tokens, head_width);
            load_tile<HEAD>(values, value_rows, key_value_stride, nullptr, 1.0f, start, own.tokens, head_width);
            __syncthreads(); // after: the tiles are written
            for (int n = 0; n < PASSING_ROWS / 8; n++) {
                float p[4], dp[4], ds[4];
                rows_by_tile<HEAD, PRECISE>(p, q, keys, n * 8);
                rows_by_tile<HEAD, PRECISE>(dp, dout, values, n * 8);
                for (int i = 0; i < 4; i++) {
                    p[i] = probability<PRECISE>(p[i], logs[i / 2], start + n * 8 + 2 * member + i % 2 < own.tokens);
                    if (pass == 0) total[i / 2] += p[i] * dp[i];
                    ds[i] = p[i] * (dp[i] - total[i / 2]);
                }
                if (pass == 1) add_product<HEAD, PRECISE>(sums, ds, keys, n * 8);
            }
        }
        if (pass == 0)
            for (int half = 0; half < 2; half++) total[half] = quad_sum(total[half]);
    }
    for (int half = 0; half < 2; half++) {
        int row = base + group + half * 8;
        if (row >= own.queries) continue;
        float *out = row_at(dquery, own.first_query + row, dquery_stride) + columns;
        for (int step = 0; step < HEAD / 8; step++)
            for (int i = 0; i < 2; i++) {
                int column = step * 8 + 2 * member + i;
                if (column < head_width) out[column] = sums[step][2 * half + i] * scale;
            }
        if (member == 0) row_at(along, own.first_query + row, along_stride)[blockIdx.y] = total[half];
    }
}

// grid (⌈tokens/64⌉, heads, images). A warp keeps 16 keys with their values; queries go past, with rows and columns exchanged.
template <int HEAD, bool PRECISE>
__device__ inline void backward_key(const float *query, int query_stride, const float *key_value, int key_value_stride, const float *query_bias,
                                    const float *log_sum, int log_sum_stride, const float *dcontext, int dcontext_stride, const float *along,
                                    int along_stride, float *dkey_value, int dkey_value_stride, const int *query_starts, const int *token_starts,
                                    int queries, int tokens, int heads, int head_width, float *q, float *dout, float *row_logs, float *row_alongs) {
    Head own(blockIdx.z, query_starts, token_starts, queries, tokens);
    int first = blockIdx.x * KEPT_ROWS, columns = blockIdx.y * head_width, width = heads * head_width;
    if (first >= own.tokens) return; // the whole block
    int lane = threadIdx.x % 32, group = lane / 4, member = lane % 4, base = first + threadIdx.x / 32 * 16;
    const float *key_rows = row_at(key_value, own.first_token, key_value_stride) + columns;
    const float *query_rows = row_at(query, own.first_query, query_stride) + columns;
    const float *dcontext_rows = row_at(dcontext, own.first_query, dcontext_stride) + columns;
    float scale = 1.0f / sqrtf((float)head_width);
    RowFragments<HEAD> key, value;
    key.load(key_rows, key_value_stride, nullptr, 1.0f, base, own.tokens, head_width);
    value.load(key_rows + width, key_value_stride, nullptr, 1.0f, base, own.tokens, head_width);
    float dkey[HEAD / 8][4] = {}, dvalue[HEAD / 8][4] = {};
    for (int start = 0; start < own.queries; start += PASSING_ROWS) {
        __syncthreads(); // before: the tiles are still read
        load_tile<HEAD>(q, query_rows, query_stride, query_bias + columns, scale, start, own.queries, head_width);
        load_tile<HEAD>(dout, dcontext_rows, dcontext_stride, nullptr, 1.0f, start, own.queries, head_width);
        if (threadIdx.x < PASSING_ROWS) {
            int row = start + threadIdx.x;
            bool inside = row < own.queries;
            row_logs[threadIdx.x] = inside ? row_at(log_sum, own.first_query + row, log_sum_stride)[blockIdx.y] : 0.0f;
            row_alongs[threadIdx.x] = inside ? row_at(along, own.first_query + row, along_stride)[blockIdx.y] : 0.0f;
        }
        __syncthreads(); // after: the tiles are written
        for (int n = 0; n < PASSING_ROWS / 8; n++) {
            float p[4], dp[4], ds[4];
            rows_by_tile<HEAD, PRECISE>(p, key, q, n * 8);
            rows_by_tile<HEAD, PRECISE>(dp, value, dout, n * 8);
            for (int i = 0; i < 4; i++) {
                int row = n * 8 + 2 * member + i % 2;
                p[i] = probability<PRECISE>(p[i], row_logs[row], start + row < own.queries);
                ds[i] = p[i] * (dp[i] - row_alongs[row]);
            }
            add_product<HEAD, PRECISE>(dkey, ds, q, n * 8);
            add_product<HEAD, PRECISE>(dvalue, p, dout, n * 8);
        }
    }
    for (int half = 0; half < 2; half++) {
        int row = base + group + half * 8;
        if (row >= own.tokens) continue;
        float *out = row_at(dkey_value, own.first_token + row, dkey_value_stride) + columns;
        for (int step = 0; step < HEAD / 8; step++)
            for (int i = 0; i < 2; i++) {
                int column = step * 8 + 2 * member + i;
                if (column >= head_width) continue;
                out[column] = dkey[step][2 * half + i];
                out[width + column] = dvalue[step][2 * half + i];
            }
    }
}

#define ATTENTION_BACKWARD_QUERY(name, HEAD, PRECISE)                                                                                         \
    KERNEL(name, ATTENTION_THREADS)                                                                                                           \
    (const float *query, int query_stride, const float *key_value, int key_value_stride, const float *query_bias, const float *log_sum,       \
     int log_sum_stride, const float *dcontext, int dcontext_stride, float *dquery, int dquery_stride, float *along, int along_stride,        \
     const int *query_starts, const int *token_starts, int queries, int tokens, int heads, int head_width) {                                 \
        SHARED(float, keys, PASSING_ROWS * tile_row<HEAD>());                                                                                 \
        SHARED(float, values, PASSING_ROWS * tile_row<HEAD>());                                                                               \
        backward_query<HEAD, PRECISE>(query, query_stride, key_value, key_value_stride, query_bias, log_sum, log_sum_stride, dcontext,        \
                                      dcontext_stride, dquery, dquery_stride, along, along_stride, query_starts, token_starts, queries,       \
                                      tokens, heads, head_width, keys, values);                                                               \
    }                                                                                                                                         \
    REGISTER(name)

#define ATTENTION_BACKWARD_KEY(name, HEAD, PRECISE)                                                                                           \
    KERNEL(name, ATTENTION_THREADS)                                                                                                           \
    (const float *query, int query_stride, const float *key_value, int key_value_stride, const float *query_bias, const float *log_sum,       \
     int log_sum_stride, const float *dcontext, int dcontext_stride, const float *along, int along_stride, float *dkey_value,                 \
     int dkey_value_stride, const int *query_starts, const int *token_starts, int queries, int tokens, int heads, int head_width) {          \
        SHARED(float, q, PASSING_ROWS * tile_row<HEAD>());                                                                                    \
        SHARED(float, dout, PASSING_ROWS * tile_row<HEAD>());                                                                                 \
        SHARED(float, row_logs, PASSING_ROWS);                                                                                                \
        SHARED(float, row_alongs, PASSING_ROWS);                                                                                              \
        backward_key<HEAD, PRECISE>(query, query_stride, key_value, key_value_stride, query_bias, log_sum, log_sum_stride, dcontext,          \
                                    dcontext_stride, along, along_stride, dkey_value, dkey_value_stride, query_starts, token_starts, queries, \
                                    tokens, heads, head_width, q, dout, row_logs, row_alongs);                                                \
    }                                                                                                                                         \
    REGISTER(name)

ATTENTION_BACKWARD_QUERY(attention_backward_query_32, 32, false)
ATTENTION_BACKWARD_QUERY(attention_backward_query_64, 64, false)
ATTENTION_BACKWARD_QUERY(attention_backward_query_32_fp32, 32, true)
ATTENTION_BACKWARD_QUERY(attention_backward_query_64_fp32, 64, true)
ATTENTION_BACKWARD_KEY(attention_backward_key_32, 32, false)
ATTENTION_BACKWARD_KEY(attention_backward_key_64, 64, false)
ATTENTION_BACKWARD_KEY(attention_backward_key_32_fp32, 32, true)
ATTENTION_BACKWARD_KEY(attention_backward_key_64_fp32, 64, true)
