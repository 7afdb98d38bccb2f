// What goes value by value, and the flag of values that are not finite.
#include "test.h"
using namespace test;

TEST(elementwise_operations_equal_plain_loops) {
    const int sizes[][2] = {{3, 1}, {5, 70}, {0, 4}, {1, 300}};
    for (auto [rows, columns] : sizes) {
        Matrix x = draw_matrix(rows, columns, 2), filled = empty_matrix(rows, columns, 1), scaled = empty_matrix(rows, columns, 3),
               by_column = empty_matrix(rows, columns, 1);
        Matrix added = draw_matrix(rows, columns, 4), biased = draw_matrix(rows, columns, 1), line = draw_matrix(rows, columns, 2);
        Floats bias = draw((size_t)columns), slope = draw((size_t)columns);
        Doubles of_scale, of_columns, of_add, of_bias, of_line;
        for (int row = 0; row < rows; row++)
            for (int i = 0; i < columns; i++) {
                double value = (double)x.at(row, i), b = (double)bias[(size_t)i], s = (double)slope[(size_t)i];
                of_scale.push_back(0.75 * value);
                of_columns.push_back(s * value);
                of_add.push_back((double)added.at(row, i) - 1.5 * value);
                of_bias.push_back((double)biased.at(row, i) + b);
                of_line.push_back((double)line.at(row, i) + b + s * value);
            }
        Shape grid = {(unsigned)rows};
        launch("fill", grid, 64, filled.data(), filled.stride, columns, 2.5f);
        launch("scale", grid, 64, x.read(), x.stride, 0.75f, scaled.data(), scaled.stride, columns);
        launch("scale_columns", grid, 64, x.read(), x.stride, (const float *)slope.data(), by_column.data(), by_column.stride, columns);
        launch("add_scaled", grid, 64, x.read(), x.stride, -1.5f, added.data(), added.stride, columns);
        launch("add_bias", grid, 64, (const float *)bias.data(), biased.data(), biased.stride, columns);
        launch("add_affine", grid, 64, x.read(), x.stride, (const float *)bias.data(), (const float *)slope.data(), line.data(), line.stride,
               columns);
        near("fill", filled, Doubles(of_scale.size(), 2.5), EXACT);
        near("scale", scaled, of_scale, FP32);
        near("scale_columns", by_column, of_columns, FP32);
        near("add_scaled", added, of_add, FP32);
        near("add_bias", biased, of_bias, FP32);
        near("add_affine", line, of_line, FP32);
    }
}

TEST(flag_is_set_by_a_value_that_is_not_finite_and_by_no_other) {
    for (float bad : {NAN, INFINITY, -INFINITY, 3.4e38f, 0.0f}) {
        Floats x = draw(100);
        x[97] = bad;
        int flags[2] = {1, 0};
        launch("flag_not_finite", blocks_of(100, 64), 64, (const float *)x.data(), 100ll, 4, &flags[0]);
        equal("flags", flags[0], std::isfinite(bad) ? 1 : 5);
        launch("flag_not_finite", blocks_of(97, 64), 64, (const float *)x.data(), 97ll, 4, &flags[1]);
        equal("flags of the values before it", flags[1], 0);
    }
}
