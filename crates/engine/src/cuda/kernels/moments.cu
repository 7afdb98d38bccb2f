// Means and variances of columns over all rows of a batch, and a loss on how far they are from stored ones: the token statistics
// of LayerNorm inputs and the BatchNorm statistics of a ResNet (whose activations are [images·positions, channels]).
//
// Sums are in double, as on the CPU, so that E[x²] − E[x]² loses nothing that matters: column_sums for parts of the rows, then
// add_column_sums in the order of the parts; micro-batches add to the same sums. statistics_term turns the sums of the whole batch
// into the loss and the line `offset + slope·x` of its gradient, which elementwise.cu's add_affine or resnet.cu's
// batch_norm_backward add.
#include "reduce.h"

// Columns and rows that the threads of a block share among them.
#define SUM_COLUMNS 32
#define SUM_ROWS 8

// partial [parts, 2, columns]: sums and sums of squares of x [rows, columns] over `rows_per_part` rows each. Overwrites partial.
// grid (⌈columns/32⌉, parts) with parts = ⌈rows/rows_per_part⌉, 256 threads, static shared memory.
KERNEL(column_sums, 256)(const float *x, int x_stride, int rows, int columns, int rows_per_part, double *partial) {
    SHARED(double, sums, SUM_ROWS * SUM_COLUMNS);
    SHARED(double, squares, SUM_ROWS * SUM_COLUMNS);
    int lane = threadIdx.x % SUM_COLUMNS, line = threadIdx.x / SUM_COLUMNS, column = blockIdx.x * SUM_COLUMNS + lane;
    int first = blockIdx.y * rows_per_part, last = first + rows_per_part < rows ? first + rows_per_part : rows;
    double sum = 0.0, square = 0.0;
    if (column < columns)
        for (int row = first + line; row < last; row += SUM_ROWS) {
            double value = row_at(x, row, x_stride)[column];
            sum += value;
            square += value * value;
        }
    sums[threadIdx.x] = sum;
    squares[threadIdx.x] = square;
    __syncthreads();
    if (line > 0 || column >= columns) return;
    for (int other = 1; other < SUM_ROWS; other++) {
        sum += sums[other * SUM_COLUMNS + lane];
        square += squares[other * SUM_COLUMNS + lane];
    }
    double *out = partial + (size_t)blockIdx.y * 2 * columns;
    out[column] = sum;
    out[columns + column] = square;
}

// sums [2·columns] += the parts, in order. grid (⌈2·columns/threads⌉), up to 256 threads.
KERNEL(add_column_sums, 256)(const double *partial, int parts, int columns, double *sums) {
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= 2 * columns) return;
    double sum = sums[index];
    for (int part = 0; part < parts; part++) sum += partial[(size_t)part * 2 * columns + index];
    sums[index] = sum;
}

// For each of several sites, with m and v the mean and the biased variance of `count` rows (from sums) and M, V the stored ones:
//   loss = ‖m − M‖₂ + ‖v − V‖₂
//   its gradient at a value x of column c: offset[c] + slope[c]·x, times `weight`;
//   slope = 2·weight·(v − V)/(‖v − V‖·count), offset = weight·(m − M)/(‖m − M‖·count) − slope·m; a norm of zero has gradient zero.
// sums [sites, 2, columns], mean and variance [sites, columns]. Overwrites loss [sites], offset and slope [sites, columns].
// grid (sites), 32 to 256 threads.
KERNEL(statistics_term, 256)
(const double *sums, double count, const float *mean, const float *variance, float weight, int columns, double *loss, float *offset, float *slope) {
    SHARED(double, partial, 2 * MOST_WARPS);
    size_t site = blockIdx.x, start = site * columns;
    const double *own = sums + 2 * start;
    double norms[2] = {0.0, 0.0};
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        double m = own[i] / count, v = own[columns + i] / count - m * m;
        double from_mean = m - mean[start + i], from_variance = (v > 0.0 ? v : 0.0) - variance[start + i];
        norms[0] += from_mean * from_mean;
        norms[1] += from_variance * from_variance;
    }
    block_sum(norms, partial);
    double mean_norm = sqrt(norms[0]), variance_norm = sqrt(norms[1]);
    double mean_share = mean_norm > 0.0 ? weight / (mean_norm * count) : 0.0;
    double variance_share = variance_norm > 0.0 ? weight / (variance_norm * count) : 0.0;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        double m = own[i] / count, v = own[columns + i] / count - m * m;
        double from_mean = m - mean[start + i], from_variance = (v > 0.0 ? v : 0.0) - variance[start + i];
        double line = 2.0 * variance_share * from_variance;
        slope[start + i] = (float)line;
        offset[start + i] = (float)(mean_share * from_mean - line * m);
    }
    if (threadIdx.x == 0) loss[site] = mean_norm + variance_norm;
}

REGISTER(column_sums)
REGISTER(add_column_sums)
REGISTER(statistics_term)
