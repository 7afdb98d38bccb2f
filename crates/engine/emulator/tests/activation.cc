// GELU and QuickGELU against their definitions in double.
#include "test.h"
using namespace test;

static double gelu(double x) { return x * 0.5 * erfc(-x / sqrt(2.0)); }
static double quick_gelu(double x) { return x / (1.0 + exp(-1.702 * x)); }

static void compare(const std::string &name, double (*plain)(double)) {
    const int sizes[][2] = {{3, 1}, {2, 33}, {4, 300}, {0, 5}};
    for (auto [rows, columns] : sizes) {
        Matrix x = draw_matrix(rows, columns, 3, 3.0), y = empty_matrix(rows, columns, 1), dy = draw_matrix(rows, columns, 2), in_place = x;
        if (rows) {
            x.at(0, 0) = -40.0f;
            x.at(rows - 1, columns - 1) = 40.0f;
            in_place = x;
        }
        Floats bias = draw((size_t)columns);
        Doubles value, slope;
        for (int row = 0; row < rows; row++)
            for (int i = 0; i < columns; i++) {
                double v = (double)(x.at(row, i) + bias[(size_t)i]), step = 1e-5;
                value.push_back(plain(v));
                slope.push_back((plain(v + step) - plain(v - step)) / (2.0 * step) * (double)dy.at(row, i));
            }
        launch(name + "_forward", {(unsigned)rows}, 64, x.read(), x.stride, (const float *)bias.data(), y.data(), y.stride, columns);
        near("y", y, value, FP32);
        launch(name + "_forward", {(unsigned)rows}, 64, (const float *)in_place.data(), in_place.stride, (const float *)bias.data(), in_place.data(),
               in_place.stride, columns);
        near("y in place of x", in_place, value, FP32);
        launch(name + "_backward", {(unsigned)rows}, 64, x.read(), x.stride, (const float *)bias.data(), dy.data(), dy.stride, columns);
        near("dy", dy, slope, FP32);
    }
}

TEST(activation_gelu_equals_its_definition_and_its_slope) { compare("gelu", gelu); }
TEST(activation_quick_gelu_equals_its_definition_and_its_slope) { compare("quick_gelu", quick_gelu); }

TEST(activation_gelu_keeps_relative_precision_in_the_tail) {
    Floats x = {-1.0f, -3.0f, -5.0f}, bias = {0.0f, 0.0f, 0.0f}, y = empty(3);
    launch("gelu_forward", {1}, 32, (const float *)x.data(), 3, (const float *)bias.data(), y.data(), 3, 3);
    // Rounding the argument of erfc costs x²·6e-8.
    for (size_t i = 0; i < 3; i++) near("y", Floats{y[i]}, Doubles{gelu((double)x[i])}, 3e-6);
}
