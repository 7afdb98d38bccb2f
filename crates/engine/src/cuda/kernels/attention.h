// What forward and backward of attention share: operands, tiles in shared memory, fragments of tensor-core products.
#pragma once
#include "dialect.h"

// A block is 4 warps; each has 16 rows of the tile that the block keeps, and all columns of the tiles that go past.
#define ATTENTION_THREADS 128
#define KEPT_ROWS 64
#define PASSING_ROWS 32

// One head of one image, with rows of queries and of tokens from where the image's begin. `query_starts` and `token_starts`
// [images + 1] say where the rows of an image begin where lists have unequal lengths; null where each has `queries` and `tokens`.
struct Head {
    size_t first_query, first_token;
    int queries, tokens;
    __device__ inline Head(int image, const int *query_starts, const int *token_starts, int all_queries, int all_tokens) {
        first_query = query_starts ? query_starts[image] : (size_t)image * all_queries;
        first_token = token_starts ? token_starts[image] : (size_t)image * all_tokens;
        queries = query_starts ? query_starts[image + 1] - query_starts[image] : all_queries;
        tokens = token_starts ? token_starts[image + 1] - token_starts[image] : all_tokens;
    }
};

// Rows of a tile are padded by 4 values: then the values that a warp reads for a fragment lie in 32 different banks.
template <int HEAD> __device__ constexpr int tile_row() { return HEAD + 4; }

// Rows `first`.. of a head into `tile` [PASSING_ROWS, tile_row], (value + bias)·scale; zeros after the last of `count` rows and after
// `head_width` columns. Without bias (null) value·scale.
template <int HEAD>
__device__ inline void load_tile(float *tile, const float *rows, int stride, const float *bias, float scale, int first, int count, int head_width) {
    for (int i = threadIdx.x; i < PASSING_ROWS * HEAD; i += blockDim.x) {
        int row = i / HEAD, column = i % HEAD;
        float value = 0.0f;
        if (first + row < count && column < head_width) value = (row_at(rows, first + row, stride)[column] + (bias ? bias[column] : 0.0f)) * scale;
        tile[row * tile_row<HEAD>() + column] = value;
    }
}

// Fragments of a [16, HEAD] by steps of 8 columns, as mma_16x8x8 says, for 16 rows from `first` on; read once and kept.
template <int HEAD> struct RowFragments {
    float values[HEAD / 8][4];
    __device__ inline void load(const float *rows, int stride, const float *bias, float scale, int first, int count, int head_width) {
        int lane = threadIdx.x % 32, group = lane / 4, member = lane % 4;
        for (int step = 0; step < HEAD / 8; step++)
            for (int i = 0; i < 4; i++) {
                int row = first + group + i % 2 * 8, column = step * 8 + member + i / 2 * 4;
                values[step][i] = 0.0f;
                if (row < count && column < head_width)
                    values[step][i] = (row_at(rows, row, stride)[column] + (bias ? bias[column] : 0.0f)) * scale;
            }
    }
};

// d += a·b. PRECISE splits each factor into two TF32 values, which leaves an error of about 2^-22: as good as FP32.
template <bool PRECISE> __device__ inline void multiply_add(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
    unsigned upper_a[4], upper_b[2];
    for (int i = 0; i < 4; i++) upper_a[i] = PRECISE ? tf32_now(a[i]) : tf32(a[i]);
    for (int i = 0; i < 2; i++) upper_b[i] = tf32(b[i]);
    if (PRECISE) {
        unsigned lower_a[4], lower_b[2];
        for (int i = 0; i < 4; i++) lower_a[i] = tf32_now(a[i] - as_float(upper_a[i]));
        for (int i = 0; i < 2; i++) lower_b[i] = tf32(b[i] - as_float(upper_b[i]));
        mma_16x8x8(d, lower_a, upper_b);
        mma_16x8x8(d, upper_a, lower_b);
    }
    mma_16x8x8(d, upper_a, upper_b);
}

// d [16, 8] = a [16, HEAD] · the transposed of 8 rows of a tile from `first` on.
template <int HEAD, bool PRECISE> __device__ inline void rows_by_tile(float (&d)[4], const RowFragments<HEAD> &a, const float *tile, int first) {
    int lane = threadIdx.x % 32, group = lane / 4, member = lane % 4;
    for (int i = 0; i < 4; i++) d[i] = 0.0f;
    const float *row = tile + (first + group) * tile_row<HEAD>();
    for (int step = 0; step < HEAD / 8; step++) {
        float b[2] = {row[step * 8 + member], row[step * 8 + member + 4]};
        multiply_add<PRECISE>(d, a.values[step], b);
    }
}

// sums [16, HEAD] += p [16, 8] · 8 rows of a tile from `first` on. `p` is laid out as a result d, (group, 2·member)..: the sum over
// the 8 rows may run in any order, so column 2·member is taken for the operand's column member, and 2·member + 1 for member + 4.
template <int HEAD, bool PRECISE> __device__ inline void add_product(float (&sums)[HEAD / 8][4], const float (&p)[4], const float *tile, int first) {
    int lane = threadIdx.x % 32, group = lane / 4, member = lane % 4;
    float a[4] = {p[0], p[2], p[1], p[3]};
    const float *row = tile + (first + 2 * member) * tile_row<HEAD>() + group;
    for (int step = 0; step < HEAD / 8; step++) {
        float b[2] = {row[step * 8], row[tile_row<HEAD>() + step * 8]};
        multiply_add<PRECISE>(sums[step], a, b);
    }
}

// Sum and largest value over the 4 lanes that share a row of a result.
__device__ inline float quad_sum(float value) {
    value += __shfl_xor_sync(ALL_LANES, value, 1);
    return value + __shfl_xor_sync(ALL_LANES, value, 2);
}
__device__ inline float quad_maximum(float value) {
    value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 1));
    return fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 2));
}

template <bool PRECISE> __device__ inline float exponential(float x) { return PRECISE ? expf(x) : __expf(x); }
