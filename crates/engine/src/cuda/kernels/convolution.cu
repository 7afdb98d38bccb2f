// Convolutions as products: patches out of an image and their adjoint. A kernel is square, padded by half its side.
//
// An activation is a matrix [images·height·width, channels]; a convolution is patches [images·out_height·out_width, kernel²·channels]
// (tap row, tap column, channel) times the transposed weight [out_channels, kernel²·channels] in the same order, one product for all
// images. The image itself is read and its gradient written by strides: the value of channel c at (y, x) of image n is at
// n·image_stride + y·line_stride + x·pixel_stride + c·channel_stride, so that [images, 3, height, width] needs no copy.
// Output sides are ⌈side/step⌉. No shared memory.
#include "dialect.h"

__device__ inline size_t value_at(int image, int y, int x, int channel, int image_stride, int line_stride, int pixel_stride, int channel_stride) {
    return (size_t)image * image_stride + (size_t)y * line_stride + (size_t)x * pixel_stride + (size_t)channel * channel_stride;
}

// patches = the pixels under the kernel at each output position, zeros outside the image. Overwrites patches (without gaps).
// grid (images·out_height·out_width), up to 256 threads.
KERNEL(unfold, 256)
(const float *x, int image_stride, int line_stride, int pixel_stride, int channel_stride, float *patches, int height, int width, int channels,
 int kernel, int step) {
    int out_height = (height + step - 1) / step, out_width = (width + step - 1) / step, padding = kernel / 2;
    int row = blockIdx.x, image = row / (out_height * out_width), position = row % (out_height * out_width);
    int top = position / out_width * step - padding, left = position % out_width * step - padding;
    int depth = kernel * kernel * channels;
    float *out = row_at(patches, row, depth);
    for (int i = threadIdx.x; i < depth; i += blockDim.x) {
        int channel = i % channels, tap = i / channels, y = top + tap / kernel, x_at = left + tap % kernel;
        bool inside = y >= 0 && y < height && x_at >= 0 && x_at < width;
        out[i] = inside ? x[value_at(image, y, x_at, channel, image_stride, line_stride, pixel_stride, channel_stride)] : 0.0f;
    }
}

// dx += the gradients of all patches that hold the pixel, in the order of taps: the adjoint of unfold. Adds to dx.
// grid (images·height·width), up to 256 threads.
KERNEL(fold, 256)
(const float *dpatches, float *dx, int image_stride, int line_stride, int pixel_stride, int channel_stride, int height, int width, int channels,
 int kernel, int step) {
    int out_height = (height + step - 1) / step, out_width = (width + step - 1) / step, padding = kernel / 2;
    int image = blockIdx.x / (height * width), pixel = blockIdx.x % (height * width), y = pixel / width, x = pixel % width;
    int depth = kernel * kernel * channels;
    for (int channel = threadIdx.x; channel < channels; channel += blockDim.x) {
        float sum = 0.0f;
        for (int tap = 0; tap < kernel * kernel; tap++) {
            int row = y + padding - tap / kernel, column = x + padding - tap % kernel;
            if (row < 0 || column < 0 || row % step || column % step) continue;
            row /= step;
            column /= step;
            if (row >= out_height || column >= out_width) continue;
            sum += row_at(dpatches, ((size_t)image * out_height + row) * out_width + column, depth)[tap * channels + channel];
        }
        dx[value_at(image, y, x, channel, image_stride, line_stride, pixel_stride, channel_stride)] += sum;
    }
}

REGISTER(unfold)
REGISTER(fold)
