// Images as a Fourier spectrum: what is not a product of the inverse real transform, whose sums are products with two matrices.
//
// With half = width/2 + 1, spectrum [planes, height, half, 2] (real, imaginary) and scale [height, half] (1/frequency with the
// normalisation of the transform):
//   stacked [planes, 2·height, 2·half] = scaled spectrum s, then i·s                    scale_spectrum
//   columns [planes, height, 2·half] = [cos(2πky/height) | sin(2πky/height)] · stacked      product by plane, matrix [height, 2·height]
//   values [planes·height, width] = columns · matrix [2·half, width]                     product; rows (l, real): m·cos(2πlx/width),
//                                                                                        (l, imaginary): −m·sin(2πlx/width), with
//                                                                                        m = 1 for l = 0 and 2l = width, else 2
//   levels = σ(values), images = (levels − mean)/deviation                               levels_forward
// and backward: levels_backward, the two products with the transposed matrices, scale_spectrum_backward.
// Planes are in the order red, green, blue. No shared memory, up to 256 threads.
#include "dialect.h"

// Overwrites stacked. count = planes·height·half; grid (⌈count/threads⌉).
KERNEL(scale_spectrum, 256)(const float *spectrum, const float *scale, float *stacked, long long count, int height, int half) {
    size_t index = global_index(), area = (size_t)height * half;
    if (index >= (size_t)count) return;
    float factor = scale[index % area], real = factor * spectrum[2 * index], imaginary = factor * spectrum[2 * index + 1];
    float *upper = stacked + 4 * (index / area * area) + 2 * (index % area), *lower = upper + 2 * area;
    upper[0] = real;
    upper[1] = imaginary;
    lower[0] = -imaginary;
    lower[1] = real;
}

// dspectrum, the gradient of scale_spectrum's spectrum, from dstacked. Overwrites dspectrum. As scale_spectrum.
KERNEL(scale_spectrum_backward, 256)(const float *dstacked, const float *scale, float *dspectrum, long long count, int height, int half) {
    size_t index = global_index(), area = (size_t)height * half;
    if (index >= (size_t)count) return;
    float factor = scale[index % area];
    const float *upper = dstacked + 4 * (index / area * area) + 2 * (index % area), *lower = upper + 2 * area;
    dspectrum[2 * index] = factor * (upper[0] + lower[1]);
    dspectrum[2 * index + 1] = factor * (upper[1] - lower[0]);
}

// levels = 1/(1 + exp(−values)), images = (levels − mean[c])/deviation[c] with c = plane % 3. mean, deviation [3]; `plane` =
// height·width. Overwrites levels and images; values may be levels or images. count values; grid (⌈count/threads⌉).
KERNEL(levels_forward, 256)
(const float *values, const float *mean, const float *deviation, float *levels, float *images, long long count, int plane) {
    size_t index = global_index();
    if (index >= (size_t)count) return;
    int channel = (int)(index / plane % 3);
    float level = 1.0f / (1.0f + expf(-values[index]));
    levels[index] = level;
    images[index] = (level - mean[channel]) / deviation[channel];
}

// dvalues = dimages/deviation[c]·levels·(1 − levels). Overwrites dvalues, which may be dimages. As levels_forward.
KERNEL(levels_backward, 256)(const float *dimages, const float *levels, const float *deviation, float *dvalues, long long count, int plane) {
    size_t index = global_index();
    if (index >= (size_t)count) return;
    float level = levels[index];
    dvalues[index] = dimages[index] / deviation[index / plane % 3] * level * (1.0f - level);
}

REGISTER(scale_spectrum)
REGISTER(scale_spectrum_backward)
REGISTER(levels_forward)
REGISTER(levels_backward)
