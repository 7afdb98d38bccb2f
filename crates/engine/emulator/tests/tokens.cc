// Moving tokens about against plain loops; what only copies or chooses is equal bit for bit.
#include "test.h"
#include <algorithm>
using namespace test;

namespace {
struct Grid {
    int images, patches, patch_size, patch_grid; // `patches` of the grid enter, or all where it is −1
    int tokens() const { return 1 + (patches < 0 ? patch_grid * patch_grid : patches); }
    int side() const { return patch_size * patch_grid; }
    int depth() const { return 3 * patch_size * patch_size; }
};
const Grid GRIDS[] = {{2, -1, 3, 2}, {3, 2, 2, 3}, {1, -1, 1, 1}, {2, 0, 2, 2}, {2, 4, 5, 2}};

std::vector<unsigned> positions_of(const Grid &grid) {
    std::vector<unsigned> all;
    int count = grid.patch_grid * grid.patch_grid;
    for (int image = 0; image < grid.images; image++) {
        std::vector<unsigned> own;
        for (int i = 0; i < grid.tokens() - 1; i++) own.push_back((unsigned)(grid.patches < 0 ? i + 1 : (i + image) % count + 1));
        std::sort(own.begin(), own.end());
        all.push_back(0);
        all.insert(all.end(), own.begin(), own.end());
    }
    return all;
}

// Which pixel value `at` of the patch row of `position` is.
size_t pixel_of(const Grid &grid, int image, unsigned position, int at) {
    int size = grid.patch_size, patch = (int)position - 1, channel = at / (size * size), line = at / size % size, column = at % size;
    return (size_t)(((image * 3 + channel) * grid.side() + patch / grid.patch_grid * size + line) * grid.side() + patch % grid.patch_grid * size +
                    column);
}
} // namespace

TEST(patchify_takes_the_pixels_of_each_patch_and_its_adjoint_puts_them_back) {
    for (const Grid &grid : GRIDS) {
        std::vector<unsigned> positions = positions_of(grid);
        int rows = (int)positions.size();
        size_t count = (size_t)(grid.images * 3 * grid.side() * grid.side());
        Floats pixels = draw(count), dpixels = grid.patches < 0 ? empty(count) : Floats(count, 0.0f);
        Matrix patches = empty_matrix(rows, grid.depth(), 2), dpatches = draw_matrix(rows, grid.depth(), 1);
        const unsigned *read = grid.patches < 0 ? nullptr : positions.data();
        launch("patchify", {(unsigned)rows}, 32, (const float *)pixels.data(), read, patches.data(), patches.stride, grid.tokens(), grid.patch_size,
               grid.patch_grid);
        launch("patchify_backward", {(unsigned)rows}, 32, dpatches.read(), dpatches.stride, read, dpixels.data(), grid.tokens(), grid.patch_size,
               grid.patch_grid);
        Doubles expected, back(count, 0.0);
        for (int row = 0; row < rows; row++)
            for (int at = 0; at < grid.depth(); at++) {
                if (positions[(size_t)row] == 0) {
                    expected.push_back(0.0);
                    continue;
                }
                size_t pixel = pixel_of(grid, row / grid.tokens(), positions[(size_t)row], at);
                expected.push_back((double)pixels[pixel]);
                back[pixel] = (double)dpatches.at(row, at);
            }
        near("patches", patches, expected, EXACT);
        near("dpixels", dpixels, back, EXACT);
    }
}

TEST(embed_adds_bias_and_position_to_patches_and_replaces_class_rows) {
    for (const Grid &grid : GRIDS)
        for (int with_bias = 0; with_bias < 2; with_bias++) {
            std::vector<unsigned> positions = positions_of(grid);
            int rows = (int)positions.size(), width = 37;
            Matrix tokens = draw_matrix(rows, width, 3), before = tokens;
            Floats bias = draw((size_t)width), class_token = draw((size_t)width),
                   offset = draw((size_t)(width * (1 + grid.patch_grid * grid.patch_grid)));
            launch("embed", {(unsigned)rows}, 32, tokens.data(), tokens.stride, grid.patches < 0 ? nullptr : (const unsigned *)positions.data(),
                   with_bias ? (const float *)bias.data() : nullptr, (const float *)class_token.data(), (const float *)offset.data(), grid.tokens(),
                   width);
            Doubles expected;
            for (int row = 0; row < rows; row++)
                for (int i = 0; i < width; i++) {
                    double own = (double)before.at(row, i) + (with_bias ? (double)bias[(size_t)i] : 0.0);
                    if (positions[(size_t)row] == 0) own = (double)class_token[(size_t)i];
                    expected.push_back(own + (double)offset[positions[(size_t)row] * (size_t)width + (size_t)i]);
                }
            near("tokens", tokens, expected, FP32);
        }
}

TEST(choose_rows_keeps_those_with_the_most_attention_and_the_first_of_equals) {
    const int sizes[][3] = {{2, 1, 0}, {3, 9, 4}, {1, 71, 35}, {2, 40, 40}, {2, 6, 1}, {0, 5, 2}};
    for (auto [images, patches, keep] : sizes) {
        Matrix attention = draw_matrix(images, patches, 2);
        for (float &value : attention.values) value = value < 1000.0f ? (float)(int)(value * 2.0f) : value; // many equals
        std::vector<unsigned> rows((size_t)(images * (1 + keep)), 77777u);
        launch_shared("choose_rows", {(unsigned)images}, 64, sizeof(int) * (size_t)patches, keep ? attention.read() : nullptr, attention.stride,
                      patches + 1, keep, rows.data());
        std::vector<unsigned> expected;
        for (int image = 0; image < images; image++) {
            std::vector<int> order((size_t)patches);
            for (int i = 0; i < patches; i++) order[(size_t)i] = i;
            std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return attention.at(image, a) > attention.at(image, b); });
            order.resize((size_t)keep);
            std::sort(order.begin(), order.end());
            expected.push_back((unsigned)(image * (patches + 1)));
            for (int patch : order) expected.push_back((unsigned)(image * (patches + 1) + 1 + patch));
        }
        near("rows", widen(rows), widen(expected), EXACT);
    }
}

TEST(choose_rows_of_attention_that_is_not_a_number_stays_inside_its_memory) {
    Matrix attention = draw_matrix(2, 8);
    for (int i = 0; i < 6; i++) attention.at(0, i) = NAN;
    std::vector<unsigned> rows(2 * 3, 77777u);
    launch_shared("choose_rows", {2}, 32, sizeof(int) * 8, attention.read(), attention.stride, 9, 2, rows.data());
    for (unsigned row : rows) equal("a row of the images", row < 18, 1);
}

TEST(gather_copies_rows_and_scatter_adds_them_back_also_where_one_is_named_twice) {
    for (int count : {0, 1, 7, 45}) {
        int sources = 9, width = 37;
        std::vector<unsigned> rows;
        for (int i = 0; i < count; i++) rows.push_back((unsigned)draw_below(sources));
        Matrix x = draw_matrix(sources, width, 1), y = empty_matrix(count, width, 2), dy = draw_matrix(count, width, 3),
               dx = draw_matrix(sources, width, 4);
        Doubles expected, sums = dx.plain();
        for (int i = 0; i < count; i++)
            for (int column = 0; column < width; column++) {
                expected.push_back((double)x.at((int)rows[(size_t)i], column));
                sums[rows[(size_t)i] * (size_t)width + (size_t)column] += (double)dy.at(i, column);
            }
        launch("gather", {(unsigned)count}, 32, x.read(), x.stride, (const unsigned *)rows.data(), y.data(), y.stride, width);
        launch("scatter_add", {(unsigned)count}, 32, dy.read(), dy.stride, (const unsigned *)rows.data(), count, dx.data(), dx.stride, width);
        near("y", y, expected, EXACT);
        near("dx", dx, sums, FP32);
    }
}

TEST(pooling_equals_plain_means_and_its_backward_spreads_them) {
    for (int kind = 0; kind < 3; kind++)
        for (int images : {1, 3}) {
            int per_image = 6, width = 41, columns = kind == 2 ? 2 * width : width;
            Matrix x = draw_matrix(images * per_image, width, 1), pooled = empty_matrix(images, columns, 2),
                   dpooled = draw_matrix(images, columns, 3), dx = empty_matrix(images * per_image, width, 4);
            launch("pool", {(unsigned)images, 2}, 32, x.read(), x.stride, pooled.data(), pooled.stride, per_image, width, kind);
            launch("pool_backward", {(unsigned)(images * per_image)}, 32, dpooled.read(), dpooled.stride, dx.data(), dx.stride, per_image, width,
                   kind);
            Doubles expected((size_t)(images * columns)), slopes((size_t)(images * per_image * width));
            for (int image = 0; image < images; image++)
                for (int token = 0; token < per_image; token++)
                    for (int column = 0; column < columns; column++) {
                        bool of_class = kind == 0 || (kind == 2 && column < width);
                        double share = of_class ? token == 0 : token == 0 ? 0.0 : 1.0 / (per_image - 1);
                        int row = image * per_image + token;
                        expected[(size_t)(image * columns + column)] += share * (double)x.at(row, column % width);
                        slopes[(size_t)(row * width + column % width)] += share * (double)dpooled.at(image, column);
                    }
            near("pooled", pooled, expected, FP32);
            near("dx", dx, slopes, FP32);
        }
}
