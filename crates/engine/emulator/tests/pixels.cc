// Pixels, their priors and Adam against plain loops, gradients against slopes.
#include "test.h"
#include <limits>
using namespace test;

TEST(levels_become_the_values_of_the_table_mirrored_where_asked) {
    int side = 5, images = 3, length = 3 * side * side;
    std::vector<unsigned char> pool((size_t)(2 * length));
    for (auto &level : pool) level = (unsigned char)draw_below(256);
    Floats table = draw(3 * 256), pixels = empty((size_t)(images * length));
    std::vector<unsigned> indices = {1, 0, 1};
    std::vector<int> flips = {0, 1, 1};
    for (bool with_flips : {true, false}) {
        launch("normalise_levels", {(unsigned)(length + 31) / 32, (unsigned)images}, 32, (const unsigned char *)pool.data(),
               (const unsigned *)indices.data(), with_flips ? (const int *)flips.data() : nullptr, (const float *)table.data(), pixels.data(), side);
        Doubles expected;
        for (int image = 0; image < images; image++)
            for (int channel = 0; channel < 3; channel++)
                for (int y = 0; y < side; y++)
                    for (int x = 0; x < side; x++) {
                        int from = with_flips && flips[(size_t)image] ? side - 1 - x : x;
                        int level = pool[(size_t)((((int)indices[(size_t)image] * 3 + channel) * side + y) * side + from)];
                        expected.push_back((double)table[(size_t)(channel * 256 + level)]);
                    }
        near("pixels", pixels, expected, EXACT);
    }
}

TEST(clamping_brings_values_to_black_and_white_of_their_channel) {
    int plane = 7, channels = 3, images = 2;
    Floats pixels = draw((size_t)(plane * channels * images), 2.0), limits = {-1.0f, 1.0f, -2.0f, 0.5f, 0.0f, 3.0f};
    Doubles expected;
    for (size_t i = 0; i < pixels.size(); i++) {
        size_t channel = i / (size_t)plane % 3;
        expected.push_back(fmin(fmax((double)pixels[i], (double)limits[2 * channel]), (double)limits[2 * channel + 1]));
    }
    launch("clamp_pixels", blocks_of(pixels.size(), 32), 32, pixels.data(), (long long)pixels.size(), plane, channels, (const float *)limits.data());
    near("pixels", pixels, expected, EXACT);
}

static const int DIRECTIONS[4][2] = {{0, 1}, {1, 0}, {1, 1}, {1, -1}};

// Pairs of neighbours in direction d.
static double pairs_of(int d, int planes, int height, int width) {
    int down = DIRECTIONS[d][0], side = abs(DIRECTIONS[d][1]);
    return down >= height || side >= width ? 0.0 : (double)planes * (height - down) * (width - side);
}

static double plain_variation(const Doubles &pixels, int planes, int height, int width) {
    double loss = 0.0;
    for (int d = 0; d < 4; d++)
        for (int plane = 0; plane < planes; plane++)
            for (int y = 0; y < height; y++)
                for (int x = 0; x < width; x++) {
                    int b = y + DIRECTIONS[d][0], a = x + DIRECTIONS[d][1];
                    if (b >= height || a < 0 || a >= width) continue;
                    loss += fabs(pixels[(size_t)((plane * height + y) * width + x)] - pixels[(size_t)((plane * height + b) * width + a)]) /
                            pairs_of(d, planes, height, width);
                }
    return loss;
}

TEST(total_variation_equals_the_plain_sum_and_its_gradient_the_slope_of_it) {
    const int sizes[][3] = {{1, 1, 1}, {3, 4, 5}, {2, 1, 6}, {6, 7, 1}, {2, 9, 8}};
    for (auto [planes, height, width] : sizes)
        for (bool with_gradient : {true, false}) {
            size_t count = (size_t)(planes * height * width);
            Floats pixels = draw(count), dpixels = draw(count), steps;
            // Of steps of 1/64: neighbours are equal, or far apart against the step of the slopes.
            for (float &value : pixels) value = roundf(value * 64.0f) / 64.0f;
            Doubles shares, expected = widen(dpixels),
                            slope = slopes(widen(pixels), [&](const Doubles &at) { return 0.5 * plain_variation(at, planes, height, width); });
            for (int d = 0; d < 4; d++) {
                double pairs = pairs_of(d, planes, height, width);
                shares.push_back(pairs > 0.0 ? 1.0 / pairs : 0.0);
                steps.push_back(pairs > 0.0 ? (float)(0.5 / pairs) : 0.0f);
            }
            for (size_t i = 0; i < count && with_gradient; i++) expected[i] += slope[i];
            Shape grid = blocks_of(count, 64);
            Doubles partial(grid.x, NAN), loss = {NAN};
            launch("total_variation", grid, 64, (const float *)pixels.data(), planes, height, width, (const double *)shares.data(),
                   (const float *)steps.data(), with_gradient ? dpixels.data() : nullptr, partial.data());
            launch("sum_parts", {1}, 32, (const double *)partial.data(), (int)grid.x, loss.data());
            near("loss", loss, Doubles{plain_variation(widen(pixels), planes, height, width)}, FP32);
            near("dpixels", dpixels, expected, FP32);
        }
}

TEST(norm_prior_equals_the_plain_mean_and_its_gradient_the_slope_of_it) {
    const int sizes[][3] = {{1, 1, 4}, {3, 50, 17}, {40, 3, 2}};
    for (auto [images, length, per_part] : sizes) {
        size_t count = (size_t)(images * length);
        Floats pixels = draw(count), dpixels = draw(count), factor_of_image = empty((size_t)images);
        if (images > 1)
            for (int i = 0; i < length; i++) pixels[(size_t)(length + i)] = 0.0f; // an image of zeros has no slope
        auto plain = [&, images = images, length = length](const Doubles &at) {
            double loss = 0.0;
            for (int image = 0; image < images; image++) {
                double square = 0.0;
                for (int i = 0; i < length; i++) square += at[(size_t)(image * length + i)] * at[(size_t)(image * length + i)];
                loss += sqrt(square) / images;
            }
            return loss;
        };
        Doubles expected = widen(dpixels), slope = slopes(widen(pixels), plain);
        for (size_t i = 0; i < count; i++) expected[i] += 0.25 * slope[i];
        int parts = (length + per_part - 1) / per_part;
        Doubles partial((size_t)(images * parts), NAN), loss = {NAN};
        launch("image_squares", {(unsigned)parts, (unsigned)images}, 32, (const float *)pixels.data(), length, per_part, partial.data());
        launch("norm_slopes", {1}, 32, (const double *)partial.data(), images, parts, 0.25f, loss.data(), factor_of_image.data());
        launch("add_images_scaled", {(unsigned)(length + 31) / 32, (unsigned)images}, 32, (const float *)pixels.data(),
               (const float *)factor_of_image.data(), dpixels.data(), length);
        near("loss", loss, Doubles{plain(widen(pixels))}, FP32);
        near("dpixels", dpixels, expected, FP32);
    }
}

TEST(sums_of_parts_are_good_to_double) {
    Doubles parts = widen(draw(100)), sum = {NAN};
    double expected = 0.0;
    for (double part : parts) expected += part;
    launch("sum_parts", {1}, 96, (const double *)parts.data(), 100, sum.data());
    near("sum", sum, Doubles{expected}, 1e-12);
}

TEST(adam_follows_the_plain_steps_clamps_and_stands_still_after_a_bad_gradient) {
    size_t count = 100;
    int plane = 10, channels = 3;
    for (bool with_limits : {false, true}) {
        Floats values = draw(count), first(count, 0.0f), second(count, 0.0f), limits = {-0.5f, 0.5f, -1.0f, 0.2f, -9.0f, 9.0f};
        Doubles v = widen(values), m(count, 0.0), s(count, 0.0);
        for (int n = 1; n <= 4; n++) {
            Floats gradient = draw(count);
            double rate = 0.1, beta1 = 0.9, beta2 = 0.999, decay = 0.01;
            Floats step = {(float)(-rate / (1.0 - pow(beta1, n))), (float)sqrt(1.0 - pow(beta2, n))};
            int flags = n == 3 ? 2 : 0;
            launch("adam", blocks_of(count, 32), 32, values.data(), (const float *)gradient.data(), first.data(), second.data(), (long long)count,
                   (const float *)step.data(), (float)(1.0 - beta1), (float)beta2, (float)(1.0 - beta2), 1e-8f, (float)decay,
                   n == 1 ? (const int *)nullptr : (const int *)&flags, with_limits ? (const float *)limits.data() : nullptr, plane, channels);
            for (size_t i = 0; i < count && !flags; i++) {
                double slope = (double)gradient[i] + (double)(float)decay * v[i];
                m[i] += (double)(float)(1.0 - beta1) * (slope - m[i]);
                s[i] = s[i] * (double)(float)beta2 + (double)(float)(1.0 - beta2) * slope * slope;
                v[i] += (double)step[0] * m[i] / (sqrt(s[i]) / (double)step[1] + (double)1e-8f);
                size_t channel = i / (size_t)plane % (size_t)channels;
                if (with_limits) v[i] = fmin(fmax(v[i], (double)limits[2 * channel]), (double)limits[2 * channel + 1]);
            }
            near("values", values, v, FP32);
            near("first", first, m, FP32);
            near("second", second, s, FP32);
        }
    }
}
