// LayerNorm and the residual sum against plain loops.
#include "test.h"
using namespace test;

static const double EPSILON = 1e-3;

// (x − m)/√(variance + ε)·weight + bias, row by row.
static Doubles plain_norm(const Doubles &x, const Floats &weight, const Floats &bias) {
    size_t width = weight.size();
    Doubles y(x.size());
    for (size_t first = 0; first < x.size(); first += width) {
        double mean = 0.0, variance = 0.0;
        for (size_t i = 0; i < width; i++) mean += x[first + i] / (double)width;
        for (size_t i = 0; i < width; i++) variance += (x[first + i] - mean) * (x[first + i] - mean) / (double)width;
        for (size_t i = 0; i < width; i++)
            y[first + i] = (x[first + i] - mean) / sqrt(variance + (double)(float)EPSILON) * (double)weight[i] + (double)bias[i];
    }
    return y;
}

static Doubles plain_statistics(const Doubles &x, size_t width) {
    Doubles all;
    for (size_t first = 0; first < x.size(); first += width) {
        double mean = 0.0, variance = 0.0;
        for (size_t i = 0; i < width; i++) mean += x[first + i] / (double)width;
        for (size_t i = 0; i < width; i++) variance += (x[first + i] - mean) * (x[first + i] - mean) / (double)width;
        all.push_back(mean);
        all.push_back(1.0 / sqrt(variance + (double)(float)EPSILON));
    }
    return all;
}

TEST(norm_equals_the_plain_formula_and_its_gradient_the_slope_of_it) {
    const int sizes[][3] = {{3, 1, 32}, {5, 31, 64}, {2, 33, 256}, {4, 70, 96}, {0, 8, 32}, {1, 300, 256}};
    for (auto [rows, width, threads] : sizes) {
        Matrix x = draw_matrix(rows, width, 3), y = empty_matrix(rows, width, 2), dy = draw_matrix(rows, width, 1), dx = draw_matrix(rows, width, 5);
        Floats weight = draw((size_t)width), bias = draw((size_t)width), statistics = empty(2 * (size_t)rows);
        launch("norm_forward", {(unsigned)rows}, (unsigned)threads, x.read(), x.stride, (const float *)weight.data(), (const float *)bias.data(),
               (float)EPSILON, y.data(), y.stride, statistics.data(), width);
        near("y", y, plain_norm(x.plain(), weight, bias), FP32);
        near("statistics", statistics, plain_statistics(x.plain(), (size_t)width), FP32);
        Doubles expected = dx.plain(), slope = slopes(x.plain(), [&](const Doubles &at) { return dot(plain_norm(at, weight, bias), dy.plain()); });
        for (size_t i = 0; i < expected.size(); i++) expected[i] += slope[i];
        launch("norm_backward", {(unsigned)rows}, (unsigned)threads, dy.read(), dy.stride, x.read(), x.stride, (const float *)statistics.data(),
               (const float *)weight.data(), dx.data(), dx.stride, width);
        near("dx", dx, expected, FP32);
    }
}

TEST(norm_of_rows_far_from_zero_loses_no_digits) {
    int width = 96;
    Matrix x = draw_matrix(2, width), y = empty_matrix(2, width);
    for (float &value : x.values) value = value * 0.5f + 64.0f;
    Floats weight((size_t)width, 1.0f), bias((size_t)width, 0.0f), statistics = empty(4);
    launch("norm_forward", {2}, 64, x.read(), x.stride, (const float *)weight.data(), (const float *)bias.data(), (float)EPSILON, y.data(), y.stride,
           statistics.data(), width);
    // The mean itself is good to half a unit of the last place of 64, 4e-6, against a deviation of 0.5.
    near("y", y, plain_norm(x.plain(), weight, bias), 1e-5);
}

TEST(norm_after_a_residual_sum_equals_the_two_steps) {
    for (int kind = 0; kind < 4; kind++) {
        int rows = 5, width = 45, sources = 7;
        Matrix x = draw_matrix(sources, width, 1), branch = draw_matrix(rows, width, 2), sum = empty_matrix(rows, width, 3),
               y = empty_matrix(rows, width, 4), alone = sum;
        Floats bias = draw((size_t)width), scale = draw((size_t)width), weight = draw((size_t)width), norm_bias = draw((size_t)width),
               statistics = empty(2 * (size_t)rows);
        std::vector<unsigned> chosen = {6, 0, 3, 3, 1};
        const unsigned *rows_read = kind & 1 ? chosen.data() : nullptr;
        const float *scale_read = kind & 2 ? scale.data() : nullptr;
        launch("residual_norm", {(unsigned)rows}, 64, x.read(), x.stride, rows_read, branch.read(), branch.stride, (const float *)bias.data(),
               scale_read, sum.data(), sum.stride, (const float *)weight.data(), (const float *)norm_bias.data(), (float)EPSILON, y.data(), y.stride,
               statistics.data(), width);
        launch("residual", {(unsigned)rows}, 64, x.read(), x.stride, rows_read, branch.read(), branch.stride, (const float *)bias.data(), scale_read,
               alone.data(), alone.stride, width);
        Doubles expected;
        for (int row = 0; row < rows; row++)
            for (int i = 0; i < width; i++) {
                double factor = scale_read ? (double)scale[(size_t)i] : 1.0;
                int source = rows_read ? (int)chosen[(size_t)row] : row;
                expected.push_back((double)x.at(source, i) + factor * ((double)branch.at(row, i) + (double)bias[(size_t)i]));
            }
        near("sum", sum, expected, FP32);
        near("sum alone", alone, expected, FP32);
        near("y", y, plain_norm(expected, weight, norm_bias), FP32);
        near("statistics", statistics, plain_statistics(expected, (size_t)width), FP32);
    }
}
