// LayerNorm over the columns of each row, alone and after a residual sum, and its gradient at the input. The gains and biases
// are frozen, so they get no gradient.
//
// All matrices are [rows, width] with a stride between rows; `statistics` [rows, 2] holds mean m and reciprocal standard
// deviation r of a row, without gaps. One block a row: grid (rows), 32 to 256 threads in whole warps, no dynamic shared memory.
#include "reduce.h"

// Mean and reciprocal standard deviation of `row`, in every thread. The second pass avoids the cancellation of E[x²] − E[x]².
__device__ inline void row_moments(const float *row, int width, float epsilon, float *partial, float &mean, float &scale) {
    float sum[1] = {0.0f}, spread[1] = {0.0f};
    for (int i = threadIdx.x; i < width; i += blockDim.x) sum[0] += row[i];
    block_sum(sum, partial);
    mean = sum[0] / width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float centred = row[i] - mean;
        spread[0] += centred * centred;
    }
    block_sum(spread, partial);
    scale = 1.0f / sqrtf(spread[0] / width + epsilon);
}

__device__ inline void normalise(const float *row, const float *weight, const float *bias, float epsilon, float *out, float *statistics, int width,
                                 float *partial) {
    float mean, scale;
    row_moments(row, width, epsilon, partial, mean, scale);
    for (int i = threadIdx.x; i < width; i += blockDim.x) out[i] = (row[i] - mean) * scale * weight[i] + bias[i];
    if (threadIdx.x == 0) {
        statistics[0] = mean;
        statistics[1] = scale;
    }
}

// y = (x − m)·r·weight + bias with m = mean(x), r = 1/√(mean((x − m)²) + epsilon).
// Overwrites y and statistics. weight, bias [width].
KERNEL(norm_forward, 256)
(const float *x, int x_stride, const float *weight, const float *bias, float epsilon, float *y, int y_stride, float *statistics, int width) {
    SHARED(float, partial, MOST_WARPS);
    size_t row = blockIdx.x;
    normalise(row_at(x, row, x_stride), weight, bias, epsilon, row_at(y, row, y_stride), statistics + 2 * row, width, partial);
}

// dx += r·(g − mean(g) − n·mean(g∘n)) with g = dy∘weight and n = (x − m)·r.
// Adds to dx, the gradient of x; dy is the gradient of norm_forward's y.
KERNEL(norm_backward, 256)
(const float *dy, int dy_stride, const float *x, int x_stride, const float *statistics, const float *weight, float *dx, int dx_stride, int width) {
    SHARED(float, partial, 2 * MOST_WARPS);
    size_t row = blockIdx.x;
    const float *slope = row_at(dy, row, dy_stride), *value = row_at(x, row, x_stride);
    float *out = row_at(dx, row, dx_stride);
    float mean = statistics[2 * row], scale = statistics[2 * row + 1];
    float sums[2] = {0.0f, 0.0f};
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float g = slope[i] * weight[i];
        sums[0] += g;
        sums[1] += g * ((value[i] - mean) * scale);
    }
    block_sum(sums, partial);
    float mean_g = sums[0] / width, along = sums[1] / width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float n = (value[i] - mean) * scale;
        out[i] += scale * (slope[i] * weight[i] - mean_g - n * along);
    }
}

// sum[i] = x[rows[i]] + scale∘(branch[i] + bias); without `rows` (null) row i of x, without `scale` (null) no factor.
// Overwrites sum. rows [rows], bias and scale [width].
__device__ inline void add_branch(const float *x, int x_stride, const unsigned *rows, const float *branch, int branch_stride, const float *bias,
                                  const float *scale, float *out, int width) {
    size_t row = blockIdx.x;
    const float *from = row_at(x, rows ? rows[row] : row, x_stride), *added = row_at(branch, row, branch_stride);
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float value = added[i] + bias[i];
        out[i] = scale ? from[i] + value * scale[i] : from[i] + value;
    }
}

KERNEL(residual, 256)
(const float *x, int x_stride, const unsigned *rows, const float *branch, int branch_stride, const float *bias, const float *scale, float *sum,
 int sum_stride, int width) {
    add_branch(x, x_stride, rows, branch, branch_stride, bias, scale, row_at(sum, blockIdx.x, sum_stride), width);
}

// residual, then norm_forward of `sum` with `weight`, `norm_bias` and `epsilon`. Overwrites sum, y and statistics.
KERNEL(residual_norm, 256)
(const float *x, int x_stride, const unsigned *rows, const float *branch, int branch_stride, const float *bias, const float *scale, float *sum,
 int sum_stride, const float *weight, const float *norm_bias, float epsilon, float *y, int y_stride, float *statistics, int width) {
    SHARED(float, partial, MOST_WARPS);
    size_t row = blockIdx.x;
    float *own = row_at(sum, row, sum_stride);
    add_branch(x, x_stride, rows, branch, branch_stride, bias, scale, own, width);
    // Each thread reads back only what it has written itself.
    normalise(own, weight, norm_bias, epsilon, row_at(y, row, y_stride), statistics + 2 * row, width, partial);
}

REGISTER(norm_forward)
REGISTER(norm_backward)
REGISTER(residual)
REGISTER(residual_norm)
