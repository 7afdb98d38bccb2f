// Images as pixels: from stored levels, kept in the valid range, and the priors on pixels alone: total variation and L2 norm.
//
// Images are [images, channels, height, width] without gaps; a plane is one channel of one image. Losses are sums in double, by
// block and then in the order of the blocks. What a step draws or counts again is read from device memory, so that a captured graph
// can be replayed.
#include "reduce.h"

// pixels [images, 3, side, side] = table[channel][level] of picture `indices[image]` of the pool `levels` [pictures, 3, side, side], a
// byte each; lines mirrored where flips[image] is not 0 (flips may be null). table [3, 256]. Overwrites pixels.
// grid (⌈3·side²/threads⌉, images), up to 256 threads, no shared memory.
KERNEL(normalise_levels, 256)
(const unsigned char *levels, const unsigned *indices, const int *flips, const float *table, float *pixels, int side) {
    int length = 3 * side * side, index = blockIdx.x * blockDim.x + threadIdx.x, image = blockIdx.y;
    if (index >= length) return;
    int column = index % side;
    int from = flips && flips[image] ? index - column + side - 1 - column : index;
    pixels[(size_t)image * length + index] = table[index / (side * side) * 256 + levels[(size_t)indices[image] * length + from]];
}

// Each value becomes at least limits[channel][0] and at most limits[channel][1], the channel's black and white. limits [channels, 2];
// `plane` = height·width. In place. count values; grid (⌈count/threads⌉), up to 256 threads, no shared memory.
KERNEL(clamp_pixels, 256)(float *pixels, long long count, int plane, int channels, const float *limits) {
    size_t index = global_index();
    if (index >= (size_t)count) return;
    const float *own = limits + index / plane % channels * 2;
    float value = pixels[index];
    pixels[index] = value < own[0] ? own[0] : value > own[1] ? own[1] : value;
}

__device__ inline float sign(float value) { return (float)(value > 0.0f) - (float)(value < 0.0f); }

// Total variation: the sum over four directions d (right, down, down and right, down and left) of the mean of |p − q|, q being the
// neighbour of p in that direction. shares[d] = 1/pairs of direction d (0 where there are none), steps[d] = weight/pairs; [4] each.
// partial [blocks] = the block's share of the loss; dpixels += steps[d]·sign(p − q) at p and −steps[d]·sign(p − q) at q, over all
// directions; dpixels may be null. Overwrites partial, adds to dpixels.
// grid (⌈planes·height·width/threads⌉), 32 to 256 threads, static shared memory.
KERNEL(total_variation, 256)
(const float *pixels, int planes, int height, int width, const double *shares, const float *steps, float *dpixels, double *partial) {
    SHARED(double, sums, MOST_WARPS);
    size_t index = global_index(), area = (size_t)height * width;
    double loss[1] = {0.0};
    if (index < area * planes) {
        int y = (int)(index % area) / width, x = (int)(index % area) % width;
        float own = pixels[index], slope = 0.0f;
        for (int d = 0; d < 4; d++) {
            int down = d > 0, right = d == 1 ? 0 : d == 3 ? -1 : 1;
            long long distance = (long long)down * width + right;
            if (y + down < height && x + right >= 0 && x + right < width) {
                float difference = own - pixels[index + distance];
                loss[0] += shares[d] * fabsf(difference);
                slope += steps[d] * sign(difference);
            }
            // The pixel as the neighbour of another.
            if (y - down >= 0 && x - right >= 0 && x - right < width) slope -= steps[d] * sign(pixels[index - distance] - own);
        }
        if (dpixels) dpixels[index] += slope;
    }
    block_sum(loss, sums);
    if (threadIdx.x == 0) partial[blockIdx.x] = loss[0];
}

// out[0] = the sum of partial [count]. One block of 32 to 256 threads: grid (1).
KERNEL(sum_parts, 256)(const double *partial, int count, double *out) {
    SHARED(double, sums, MOST_WARPS);
    double sum[1] = {0.0};
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum[0] += partial[i];
    block_sum(sum, sums);
    if (threadIdx.x == 0) out[0] = sum[0];
}

// partial [images, parts] = sums of squares over `per_part` values of an image of `length` values. Overwrites partial.
// grid (parts, images) with parts = ⌈length/per_part⌉, 32 to 256 threads, static shared memory.
KERNEL(image_squares, 256)(const float *pixels, int length, int per_part, double *partial) {
    SHARED(double, sums, MOST_WARPS);
    const float *image = pixels + (size_t)blockIdx.y * length;
    int first = blockIdx.x * per_part, last = first + per_part < length ? first + per_part : length;
    double sum[1] = {0.0};
    for (int i = first + threadIdx.x; i < last; i += blockDim.x) sum[0] += (double)image[i] * image[i];
    block_sum(sum, sums);
    if (threadIdx.x == 0) partial[(size_t)blockIdx.y * gridDim.x + blockIdx.x] = sum[0];
}

// loss[0] = the mean over images of their L2 norm; slopes[image] = weight/(images·norm), what an image's values are multiplied by to
// give the gradient, 0 for an image of zeros. Overwrites loss and slopes. One block of 32 to 256 threads: grid (1).
KERNEL(norm_slopes, 256)(const double *partial, int images, int parts, float weight, double *loss, float *slopes) {
    SHARED(double, sums, MOST_WARPS);
    double total[1] = {0.0};
    for (int image = threadIdx.x; image < images; image += blockDim.x) {
        double square = 0.0;
        for (int part = 0; part < parts; part++) square += partial[(size_t)image * parts + part];
        double norm = sqrt(square);
        total[0] += norm;
        slopes[image] = norm > 0.0 ? (float)(weight / (images * norm)) : 0.0f;
    }
    block_sum(total, sums);
    if (threadIdx.x == 0) loss[0] = total[0] / images;
}

// dpixels += slopes[image]·pixels. grid (⌈length/threads⌉, images), up to 256 threads, no shared memory.
KERNEL(add_images_scaled, 256)(const float *pixels, const float *slopes, float *dpixels, int length) {
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    size_t place = (size_t)blockIdx.y * length + index;
    if (index < length) dpixels[place] += slopes[blockIdx.y] * pixels[place];
}

REGISTER(normalise_levels)
REGISTER(clamp_pixels)
REGISTER(total_variation)
REGISTER(sum_parts)
REGISTER(image_squares)
REGISTER(norm_slopes)
REGISTER(add_images_scaled)
