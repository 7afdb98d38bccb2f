// Convolution parts, BatchNorm, ReLU and pooling against plain loops.
#include "test.h"
using namespace test;

namespace {
struct Image {
    int images, height, width, channels;
    int pixels() const { return height * width; }
    size_t count() const { return (size_t)(images * pixels() * channels); }
    size_t at(int image, int y, int x, int channel) const { return (size_t)(((image * height + y) * width + x) * channels + channel); }
};
const Image IMAGES[] = {{2, 5, 4, 3}, {1, 1, 1, 1}, {1, 6, 7, 33}, {1, 1, 4, 2}};

struct Strides {
    int image, line, pixel, channel;
};
// [images, height, width, channels], or [images, channels, height, width].
Strides strides_of(const Image &shape, bool planes) {
    int size = shape.pixels() * shape.channels;
    return planes ? Strides{size, shape.width, 1, shape.pixels()} : Strides{size, shape.width * shape.channels, shape.channels, 1};
}
} // namespace

TEST(unfold_takes_what_lies_under_the_kernel_and_fold_is_its_adjoint) {
    const int kernels[][2] = {{1, 1}, {1, 2}, {3, 1}, {3, 2}, {7, 2}};
    for (const Image &shape : IMAGES)
        for (auto [kernel, step] : kernels)
            for (bool planes : {false, true}) {
                Strides s = strides_of(shape, planes);
                int out_height = (shape.height + step - 1) / step, out_width = (shape.width + step - 1) / step,
                    depth = kernel * kernel * shape.channels, rows = shape.images * out_height * out_width;
                Floats x = draw(shape.count()), patches = empty((size_t)(rows * depth)), dpatches = draw(patches.size()), dx = draw(shape.count());
                Doubles expected, sums = widen(dx);
                for (int row = 0; row < rows; row++)
                    for (int i = 0; i < depth; i++) {
                        int image = row / (out_height * out_width), channel = i % shape.channels, tap = i / shape.channels;
                        int y = row % (out_height * out_width) / out_width * step + tap / kernel - kernel / 2,
                            x_at = row % out_width * step + tap % kernel - kernel / 2;
                        bool inside = y >= 0 && x_at >= 0 && y < shape.height && x_at < shape.width;
                        size_t place = inside ? (size_t)(image * s.image + y * s.line + x_at * s.pixel + channel * s.channel) : 0;
                        expected.push_back(inside ? (double)x[place] : 0.0);
                        if (inside) sums[place] += (double)dpatches[(size_t)(row * depth + i)];
                    }
                launch("unfold", {(unsigned)rows}, 32, (const float *)x.data(), s.image, s.line, s.pixel, s.channel, patches.data(), shape.height,
                       shape.width, shape.channels, kernel, step);
                launch("fold", {(unsigned)(shape.images * shape.pixels())}, 32, (const float *)dpatches.data(), dx.data(), s.image, s.line, s.pixel,
                       s.channel, shape.height, shape.width, shape.channels, kernel, step);
                near("patches", patches, expected, EXACT);
                near("dx", dx, sums, FP32);
            }
}

TEST(batch_norm_equals_its_formula_with_and_without_shortcut_and_relu) {
    for (int kind = 0; kind < 4; kind++) {
        int rows = 7, channels = 35;
        Floats x = draw((size_t)(rows * channels)), shortcut = draw(x.size()), scale = draw((size_t)channels), shift = draw((size_t)channels),
               y = empty(x.size());
        launch("batch_norm", {(unsigned)rows}, 32, (const float *)x.data(), (const float *)scale.data(), (const float *)shift.data(),
               kind & 1 ? (const float *)shortcut.data() : nullptr, kind / 2, y.data(), channels);
        Doubles expected;
        for (size_t i = 0; i < x.size(); i++) {
            double value =
                (double)scale[i % (size_t)channels] * (double)x[i] + (double)shift[i % (size_t)channels] + (kind & 1 ? (double)shortcut[i] : 0.0);
            expected.push_back(kind & 2 ? fmax(value, 0.0) : value);
        }
        near("y", y, expected, FP32);
    }
}

TEST(batch_norm_backward_is_the_slope_through_the_relu_and_adds_the_line) {
    for (int masked = 0; masked < 2; masked++) {
        int rows = 7, channels = 35;
        Floats x = draw((size_t)(rows * channels)), dy = draw(x.size()), scale = draw((size_t)channels), shift = draw((size_t)channels),
               offset = draw((size_t)channels), slope = draw((size_t)channels);
        Doubles expected;
        for (size_t i = 0; i < x.size(); i++) {
            size_t c = i % (size_t)channels;
            bool off = masked && (double)scale[c] * (double)x[i] + (double)shift[c] <= 0.0;
            expected.push_back((off ? 0.0 : (double)dy[i] * (double)scale[c]) + (double)offset[c] + (double)slope[c] * (double)x[i]);
        }
        launch("batch_norm_backward", {(unsigned)rows}, 32, (const float *)x.data(), (const float *)scale.data(), (const float *)shift.data(), masked,
               (const float *)offset.data(), (const float *)slope.data(), dy.data(), channels);
        near("dy", dy, expected, FP32);
    }
}

TEST(relu_cuts_below_zero_and_its_backward_the_slope_there) {
    Floats x = draw(101), y = empty(101), dy = draw(101);
    x[5] = 0.0f;
    Doubles expected, back;
    for (size_t i = 0; i < 101; i++) {
        expected.push_back(fmax((double)x[i], 0.0));
        back.push_back(x[i] > 0.0f ? (double)dy[i] : 0.0);
    }
    launch("relu", blocks_of(101, 64), 64, (const float *)x.data(), y.data(), 101ll);
    launch("relu_backward", blocks_of(101, 64), 64, (const float *)y.data(), dy.data(), 101ll);
    near("y", y, expected, EXACT);
    near("dy", dy, back, EXACT);
}

TEST(max_pool_takes_the_largest_of_each_window_and_sends_slopes_to_the_first_of_equals) {
    for (const Image &shape : IMAGES) {
        Image out{shape.images, (shape.height + 1) / 2, (shape.width + 1) / 2, shape.channels};
        Floats x = draw(shape.count()), y = empty(out.count()), dy = draw(out.count()), dx = empty(shape.count());
        for (float &value : x) value = (float)(int)(value * 2.0f); // many equals
        Doubles expected(out.count()), back(shape.count(), 0.0);
        for (int image = 0; image < shape.images; image++)
            for (int row = 0; row < out.height; row++)
                for (int column = 0; column < out.width; column++)
                    for (int c = 0; c < shape.channels; c++) {
                        int best_y = -1, best_x = -1;
                        for (int b = 2 * row - 1; b <= 2 * row + 1; b++)
                            for (int a = 2 * column - 1; a <= 2 * column + 1; a++) {
                                if (a < 0 || b < 0 || a >= shape.width || b >= shape.height) continue;
                                if (best_y < 0 || x[shape.at(image, b, a, c)] > x[shape.at(image, best_y, best_x, c)]) best_y = b, best_x = a;
                            }
                        expected[out.at(image, row, column, c)] = (double)x[shape.at(image, best_y, best_x, c)];
                        back[shape.at(image, best_y, best_x, c)] += (double)dy[out.at(image, row, column, c)];
                    }
        launch("max_pool", {(unsigned)(out.images * out.pixels())}, 32, (const float *)x.data(), y.data(), shape.height, shape.width, shape.channels);
        launch("max_pool_backward", {(unsigned)(shape.images * shape.pixels())}, 32, (const float *)x.data(), (const float *)dy.data(), dx.data(),
               shape.height, shape.width, shape.channels);
        near("y", y, expected, EXACT);
        near("dx", dx, back, FP32);
    }
}

TEST(average_pool_is_the_mean_over_positions_and_spreads_its_slope) {
    for (const Image &shape : IMAGES) {
        int positions = shape.pixels(), channels = shape.channels;
        Floats x = draw(shape.count()), y = empty((size_t)(shape.images * channels)), dy = draw(y.size()), dx = empty(x.size());
        Doubles expected(y.size()), back(x.size());
        for (int image = 0; image < shape.images; image++)
            for (int p = 0; p < positions; p++)
                for (int c = 0; c < channels; c++) {
                    size_t at = (size_t)((image * positions + p) * channels + c), out = (size_t)(image * channels + c);
                    expected[out] += (double)x[at] / positions;
                    back[at] = (double)dy[out] / positions;
                }
        launch("average_pool", {(unsigned)shape.images, (unsigned)(channels + 31) / 32}, 32, (const float *)x.data(), y.data(), positions, channels);
        launch("average_pool_backward", {(unsigned)(shape.images * positions)}, 32, (const float *)dy.data(), dx.data(), positions, channels);
        near("y", y, expected, FP32);
        near("dx", dx, back, FP32);
    }
}
