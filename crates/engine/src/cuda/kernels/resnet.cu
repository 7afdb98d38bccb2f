// What a ResNet has between its convolutions (convolution.cu): BatchNorm with stored statistics as an affine map, ReLU, pooling.
//
// Activations are matrices [images·positions, channels] without gaps, positions row by row. scale, shift, offset, slope [channels].
// No shared memory.
#include "dialect.h"

// y = scale∘x + shift, plus `shortcut` where it is given (not null), then max(0, ·) where `relu`. Overwrites y, which may be x or
// shortcut. grid (rows), up to 256 threads.
KERNEL(batch_norm, 256)
(const float *x, const float *scale, const float *shift, const float *shortcut, int relu, float *y, int channels) {
    size_t start = (size_t)blockIdx.x * channels;
    for (int i = threadIdx.x; i < channels; i += blockDim.x) {
        float value = scale[i] * x[start + i] + shift[i];
        if (shortcut) value += shortcut[start + i];
        y[start + i] = relu && value < 0.0f ? 0.0f : value;
    }
}

// Turns dy, the gradient of batch_norm's y without shortcut, into that of x, in place, and adds the gradient of the statistics
// (moments.cu): dy = dy∘scale + (offset + slope∘x). With `masked` dy counts as zero where scale∘x + shift ≤ 0, the slope of the ReLU.
// grid (rows), up to 256 threads.
KERNEL(batch_norm_backward, 256)
(const float *x, const float *scale, const float *shift, int masked, const float *offset, const float *slope, float *dy, int channels) {
    size_t start = (size_t)blockIdx.x * channels;
    for (int i = threadIdx.x; i < channels; i += blockDim.x) {
        float value = x[start + i];
        float down = masked && scale[i] * value + shift[i] <= 0.0f ? 0.0f : dy[start + i];
        dy[start + i] = down * scale[i] + (offset[i] + slope[i] * value);
    }
}

// y = max(0, x). Overwrites y, which may be x. count values; grid (⌈count/threads⌉), up to 256 threads.
KERNEL(relu, 256)(const float *x, float *y, long long count) {
    size_t i = global_index();
    if (i < (size_t)count) y[i] = x[i] < 0.0f ? 0.0f : x[i];
}

// dy = 0 where the ReLU's output y is not above zero. As relu.
KERNEL(relu_backward, 256)(const float *y, float *dy, long long count) {
    size_t i = global_index();
    if (i < (size_t)count && y[i] <= 0.0f) dy[i] = 0.0f;
}

// The window of the maximum with side 3, step 2 and padding 1 at output position (row, column): the place, among the pixels of the
// image, of its first largest value.
__device__ inline int largest_at(const float *image, int height, int width, int channels, int row, int column) {
    int top = 2 * row > 0 ? 2 * row - 1 : 0, bottom = 2 * row + 2 < height ? 2 * row + 2 : height;
    int left = 2 * column > 0 ? 2 * column - 1 : 0, right = 2 * column + 2 < width ? 2 * column + 2 : width;
    int best = top * width + left;
    for (int y = top; y < bottom; y++)
        for (int x = left; x < right; x++)
            if (image[(size_t)(y * width + x) * channels] > image[(size_t)best * channels]) best = y * width + x;
    return best;
}

// y [images·⌈height/2⌉·⌈width/2⌉, channels] = the largest of 3×3 pixels, step 2, padding 1. Overwrites y. grid (rows of y), up to 256
// threads.
KERNEL(max_pool, 256)(const float *x, float *y, int height, int width, int channels) {
    int rows = (height + 1) / 2, columns = (width + 1) / 2, position = blockIdx.x % (rows * columns);
    const float *image = x + (size_t)(blockIdx.x / (rows * columns)) * height * width * channels;
    for (int i = threadIdx.x; i < channels; i += blockDim.x) {
        int place = largest_at(image + i, height, width, channels, position / columns, position % columns);
        y[(size_t)blockIdx.x * channels + i] = image[(size_t)place * channels + i];
    }
}

// dx = the sum of dy over the windows whose first largest value the pixel is. Overwrites dx. grid (images·height·width), up to 256
// threads.
KERNEL(max_pool_backward, 256)(const float *x, const float *dy, float *dx, int height, int width, int channels) {
    int rows = (height + 1) / 2, columns = (width + 1) / 2, number = blockIdx.x / (height * width), pixel = blockIdx.x % (height * width);
    const float *image = x + (size_t)number * height * width * channels;
    int y_at = pixel / width, x_at = pixel % width;
    for (int i = threadIdx.x; i < channels; i += blockDim.x) {
        float sum = 0.0f;
        // A pixel is in the windows of its half and, on odd lines and columns, of the next one.
        for (int row = y_at / 2; row <= (y_at + 1) / 2 && row < rows; row++)
            for (int column = x_at / 2; column <= (x_at + 1) / 2 && column < columns; column++)
                if (largest_at(image + i, height, width, channels, row, column) == pixel)
                    sum += dy[((size_t)(number * rows + row) * columns + column) * channels + i];
        dx[(size_t)blockIdx.x * channels + i] = sum;
    }
}

// y [images, channels] = the mean over `positions`. Overwrites y. grid (images, ⌈channels/threads⌉), up to 256 threads.
KERNEL(average_pool, 256)(const float *x, float *y, int positions, int channels) {
    int channel = blockIdx.y * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    double sum = 0.0;
    for (int position = 0; position < positions; position++) sum += x[((size_t)blockIdx.x * positions + position) * channels + channel];
    y[(size_t)blockIdx.x * channels + channel] = (float)(sum / positions);
}

// dx [images·positions, channels] = dy/positions. Overwrites dx. grid (images·positions), up to 256 threads.
KERNEL(average_pool_backward, 256)(const float *dy, float *dx, int positions, int channels) {
    float share = 1.0f / positions;
    for (int i = threadIdx.x; i < channels; i += blockDim.x)
        dx[(size_t)blockIdx.x * channels + i] = share * dy[(size_t)(blockIdx.x / positions) * channels + i];
}

REGISTER(batch_norm)
REGISTER(batch_norm_backward)
REGISTER(relu)
REGISTER(relu_backward)
REGISTER(max_pool)
REGISTER(max_pool_backward)
REGISTER(average_pool)
REGISTER(average_pool_backward)
