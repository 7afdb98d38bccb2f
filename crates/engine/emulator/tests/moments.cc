// Sums over rows and the loss on moments, with its gradient by slopes of the plain loss.
#include "test.h"
using namespace test;

// ‖mean − stored‖ + ‖variance − stored‖ over the columns of x [rows, columns].
static double plain_loss(const Doubles &x, const Floats &mean, const Floats &variance) {
    size_t columns = mean.size(), rows = x.size() / columns;
    double means = 0.0, variances = 0.0;
    for (size_t c = 0; c < columns; c++) {
        double m = 0.0, v = 0.0;
        for (size_t r = 0; r < rows; r++) m += x[r * columns + c] / (double)rows;
        for (size_t r = 0; r < rows; r++) v += (x[r * columns + c] - m) * (x[r * columns + c] - m) / (double)rows;
        means += (m - (double)mean[c]) * (m - (double)mean[c]);
        variances += (v - (double)variance[c]) * (v - (double)variance[c]);
    }
    return sqrt(means) + sqrt(variances);
}

static Doubles sums_of(const Matrix &x, int rows_per_part, Doubles sums) {
    int parts = (x.rows + rows_per_part - 1) / rows_per_part;
    Doubles partial((size_t)(parts * 2 * x.columns), NAN);
    launch("column_sums", {(unsigned)(x.columns + 31) / 32, (unsigned)parts}, 256, x.read(), x.stride, x.rows, x.columns, rows_per_part,
           partial.data());
    launch("add_column_sums", blocks_of(2 * (size_t)x.columns, 64), 64, (const double *)partial.data(), parts, x.columns, sums.data());
    return sums;
}

TEST(column_sums_equal_plain_sums_and_add) {
    const int sizes[][3] = {{1, 1, 4}, {19, 33, 6}, {0, 5, 8}, {40, 64, 40}};
    for (auto [rows, columns, per_part] : sizes) {
        Matrix x = draw_matrix(rows, columns, 3);
        Doubles start = widen(draw(2 * (size_t)columns)), expected = start;
        for (int row = 0; row < rows; row++)
            for (int i = 0; i < columns; i++) {
                expected[(size_t)i] += (double)x.at(row, i);
                expected[(size_t)(columns + i)] += (double)x.at(row, i) * (double)x.at(row, i);
            }
        near("sums", sums_of(x, per_part, start), expected, 1e-14);
    }
}

TEST(statistics_term_equals_the_plain_loss_and_its_line_the_slope_of_it) {
    for (int columns : {1, 37, 70}) {
        int sites = 2, rows = 5;
        std::vector<Matrix> x;
        Doubles sums;
        Floats mean = draw((size_t)(sites * columns)), variance = draw((size_t)(sites * columns));
        for (float &value : variance) value = fabsf(value);
        for (int site = 0; site < sites; site++) {
            x.push_back(draw_matrix(rows, columns, 1));
            Doubles own = sums_of(x.back(), 2, Doubles(2 * (size_t)columns, 0.0));
            sums.insert(sums.end(), own.begin(), own.end());
        }
        Doubles loss((size_t)sites, NAN);
        Floats offset = empty((size_t)(sites * columns)), slope = empty((size_t)(sites * columns));
        launch("statistics_term", {(unsigned)sites}, 64, (const double *)sums.data(), (double)rows, (const float *)mean.data(),
               (const float *)variance.data(), 0.5f, columns, loss.data(), offset.data(), slope.data());
        for (int site = 0; site < sites; site++) {
            auto part = [&](const Floats &all) { return Floats(all.begin() + site * columns, all.begin() + (site + 1) * columns); };
            const Matrix &own = x[(size_t)site];
            near("loss", Doubles{loss[(size_t)site]}, Doubles{plain_loss(own.plain(), part(mean), part(variance))}, 1e-12);
            Doubles expected = slopes(own.plain(), [&](const Doubles &at) { return 0.5 * plain_loss(at, part(mean), part(variance)); }), found;
            for (int row = 0; row < rows; row++)
                for (int i = 0; i < columns; i++)
                    found.push_back((double)offset[(size_t)(site * columns + i)] +
                                    (double)slope[(size_t)(site * columns + i)] * (double)own.at(row, i));
            near("gradient", found, expected, FP32);
        }
    }
}

TEST(statistics_that_agree_have_no_gradient) {
    // Two rows of −1 and 1: mean 0, variance 1.
    Doubles sums = {0.0, 0.0, 2.0, 2.0}, loss = {NAN};
    Floats mean = {0.0f, 0.0f}, variance = {1.0f, 1.0f}, offset = empty(2), slope = empty(2);
    launch("statistics_term", {1}, 32, (const double *)sums.data(), 2.0, (const float *)mean.data(), (const float *)variance.data(), 1.0f, 2,
           loss.data(), offset.data(), slope.data());
    near("loss", loss, Doubles{0.0}, EXACT);
    near("offset", offset, Doubles{0.0, 0.0}, EXACT);
    near("slope", slope, Doubles{0.0, 0.0}, EXACT);
}
