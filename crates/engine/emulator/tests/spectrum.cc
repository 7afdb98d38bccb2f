// The Fourier parametrisation: kernels and the products between them against the plain sum of cosines.
#include "test.h"
using namespace test;

namespace {
const double TURN = 2.0 * M_PI;

// Levels of one plane from spectrum [height, half, 2], wave by wave.
Doubles plain_levels(const Doubles &spectrum, int height, int width, const Floats &scale) {
    int half = width / 2 + 1;
    Doubles levels;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            double value = 0.0;
            for (int k = 0; k < height; k++)
                for (int l = 0; l < half; l++) {
                    double angle = TURN * ((double)k * y / height + (double)l * x / width), copies = l == 0 || 2 * l == width ? 1.0 : 2.0;
                    size_t at = (size_t)(k * half + l);
                    value += copies * (double)scale[at] * (spectrum[2 * at] * cos(angle) - spectrum[2 * at + 1] * sin(angle));
                }
            levels.push_back(1.0 / (1.0 + exp(-value)));
        }
    return levels;
}

// c [rows, columns] = a [rows, inner] · b [inner, columns], either transposed where asked; what cuBLAS does between the kernels.
Floats product(const Floats &a, const Floats &b, int rows, int inner, int columns, bool a_transposed, bool b_transposed) {
    Floats c((size_t)(rows * columns));
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            double sum = 0.0;
            for (int k = 0; k < inner; k++)
                sum += (double)a[(size_t)(a_transposed ? k * rows + i : i * inner + k)] *
                       (double)b[(size_t)(b_transposed ? j * inner + k : k * columns + j)];
            c[(size_t)(i * columns + j)] = (float)sum;
        }
    return c;
}
} // namespace

TEST(spectrum_with_two_products_gives_the_plain_levels_and_their_slopes) {
    const int sizes[][2] = {{1, 1}, {4, 5}, {5, 6}, {6, 3}};
    for (auto [height, width] : sizes) {
        int planes = 3, half = width / 2 + 1, plane = height * width;
        size_t frequencies = (size_t)(height * half), count = (size_t)planes * frequencies, pixels = (size_t)(planes * plane);
        Floats spectrum = draw(2 * count), scale = draw(frequencies), dimages = draw(pixels), mean = {0.5f, 0.25f, 0.0f},
               deviation = {0.5f, 1.0f, 2.0f};
        Floats along(2 * (size_t)(height * height)), across(2 * (size_t)(half * width));
        for (int y = 0; y < height; y++)
            for (int k = 0; k < height; k++) {
                along[(size_t)(y * 2 * height + k)] = (float)cos(TURN * k * y / height);
                along[(size_t)(y * 2 * height + height + k)] = (float)sin(TURN * k * y / height);
            }
        for (int l = 0; l < half; l++)
            for (int x = 0; x < width; x++) {
                double copies = l == 0 || 2 * l == width ? 1.0 : 2.0;
                across[(size_t)(2 * l * width + x)] = (float)(copies * cos(TURN * l * x / width));
                across[(size_t)((2 * l + 1) * width + x)] = (float)(-copies * sin(TURN * l * x / width));
            }
        Floats stacked = empty(4 * count), values, levels = empty(pixels), images = empty(pixels);
        launch("scale_spectrum", blocks_of(count, 32), 32, (const float *)spectrum.data(), (const float *)scale.data(), stacked.data(),
               (long long)count, height, half);
        for (int p = 0; p < planes; p++) {
            Floats own(stacked.begin() + (long)(4 * frequencies) * p, stacked.begin() + (long)(4 * frequencies) * (p + 1));
            Floats row = product(product(along, own, height, 2 * height, 2 * half, false, false), across, height, 2 * half, width, false, false);
            values.insert(values.end(), row.begin(), row.end());
        }
        launch("levels_forward", blocks_of(pixels, 32), 32, (const float *)values.data(), (const float *)mean.data(), (const float *)deviation.data(),
               levels.data(), images.data(), (long long)pixels, plane);
        auto part = [&](const Doubles &all, int p) {
            return Doubles(all.begin() + (long)(2 * frequencies) * p, all.begin() + (long)(2 * frequencies) * (p + 1));
        };
        auto plain_images = [&, height = height, width = width](const Doubles &at, bool levels_alone) {
            Doubles out;
            for (int p = 0; p < planes; p++)
                for (double level : plain_levels(part(at, p), height, width, scale))
                    out.push_back(levels_alone ? level : (level - (double)mean[(size_t)p]) / (double)deviation[(size_t)p]);
            return out;
        };
        near("levels", levels, plain_images(widen(spectrum), true), FP32);
        near("images", images, plain_images(widen(spectrum), false), FP32);
        Floats dvalues = empty(pixels), dstacked, dspectrum = empty(2 * count);
        launch("levels_backward", blocks_of(pixels, 32), 32, (const float *)dimages.data(), (const float *)levels.data(),
               (const float *)deviation.data(), dvalues.data(), (long long)pixels, plane);
        for (int p = 0; p < planes; p++) {
            Floats own(dvalues.begin() + plane * p, dvalues.begin() + plane * (p + 1));
            Floats row = product(along, product(own, across, height, width, 2 * half, false, true), 2 * height, height, 2 * half, true, false);
            dstacked.insert(dstacked.end(), row.begin(), row.end());
        }
        launch("scale_spectrum_backward", blocks_of(count, 32), 32, (const float *)dstacked.data(), (const float *)scale.data(), dspectrum.data(),
               (long long)count, height, half);
        near("dspectrum", dspectrum, slopes(widen(spectrum), [&](const Doubles &at) { return dot(plain_images(at, false), widen(dimages)); }), FP32);
    }
}
