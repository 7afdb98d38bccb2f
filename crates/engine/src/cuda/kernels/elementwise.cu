// What goes value by value over matrices [rows, columns] with a stride between rows. One block a row: grid (rows), up to 256
// threads, no shared memory. With the products of cuBLAS they are the low-rank path: u = scale·x·Aᵀ and y += u·B are products with
// alpha and beta, scaling and adding of parts that lie apart is here.
#include "dialect.h"

// target = value.
KERNEL(fill, 256)(float *target, int stride, int columns, float value) {
    float *out = row_at(target, blockIdx.x, stride);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) out[i] = value;
}

// y = scale·x. Overwrites y, which may be x.
KERNEL(scale, 256)(const float *x, int x_stride, float factor, float *y, int y_stride, int columns) {
    const float *from = row_at(x, blockIdx.x, x_stride);
    float *to = row_at(y, blockIdx.x, y_stride);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) to[i] = factor * from[i];
}

// y += factor·x.
KERNEL(add_scaled, 256)(const float *x, int x_stride, float factor, float *y, int y_stride, int columns) {
    const float *from = row_at(x, blockIdx.x, x_stride);
    float *to = row_at(y, blockIdx.x, y_stride);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) to[i] += factor * from[i];
}

// y += bias, the same for each row. bias [columns].
KERNEL(add_bias, 256)(const float *bias, float *y, int y_stride, int columns) {
    float *to = row_at(y, blockIdx.x, y_stride);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) to[i] += bias[i];
}

// y = x∘scales, the same scales for each row: the backward of LayerScale. scales [columns]. Overwrites y, which may be x.
KERNEL(scale_columns, 256)(const float *x, int x_stride, const float *scales, float *y, int y_stride, int columns) {
    const float *from = row_at(x, blockIdx.x, x_stride);
    float *to = row_at(y, blockIdx.x, y_stride);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) to[i] = scales[i] * from[i];
}

// dx += offset + slope∘x, the same offset and slope for each row: the gradient of a loss on the moments of columns (moments.cu).
// offset, slope [columns].
KERNEL(add_affine, 256)
(const float *x, int x_stride, const float *offset, const float *slope, float *dx, int dx_stride, int columns) {
    const float *from = row_at(x, blockIdx.x, x_stride);
    float *to = row_at(dx, blockIdx.x, dx_stride);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) to[i] += offset[i] + slope[i] * from[i];
}

// flags[0] |= bit where a value of x [count], without gaps, is infinite or not a number. flags is set to 0 by the caller before a
// step and read at its end. grid (⌈count/threads⌉), up to 256 threads.
KERNEL(flag_not_finite, 256)(const float *x, long long count, int bit, int *flags) {
    size_t index = global_index();
    if (index < (size_t)count && !(fabsf(x[index]) <= LARGEST_FLOAT)) atomicOr(flags, bit);
}

REGISTER(fill)
REGISTER(scale)
REGISTER(add_scaled)
REGISTER(add_bias)
REGISTER(scale_columns)
REGISTER(add_affine)
REGISTER(flag_not_finite)
