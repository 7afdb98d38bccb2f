// Changes of images against plain loops, adjoints against the equation ⟨A·x, y⟩ = ⟨x, Aᵀ·y⟩ term by term.
#include "test.h"
using namespace test;

TEST(roll_and_flip_move_each_pixel_and_its_adjoint_brings_it_back) {
    const int draws[][3] = {{0, 0, 0}, {2, -3, 0}, {-4, 1, 1}, {7, 9, 1}};
    for (auto [down, right, flip] : draws) {
        int planes = 2, height = 5, width = 4;
        size_t count = (size_t)(planes * height * width);
        Floats source = draw(count), target = empty(count), dtarget = draw(count), dsource = empty(count);
        std::vector<int> own = {down, right, flip};
        Doubles expected(count), back(count);
        auto wrap = [](int value, int side) { return ((value % side) + side) % side; };
        for (int plane = 0; plane < planes; plane++)
            for (int y = 0; y < height; y++)
                for (int x = 0; x < width; x++) {
                    int to_y = wrap(y + down, height), to_x = wrap(x + right, width);
                    if (flip) to_x = width - 1 - to_x;
                    size_t from = (size_t)((plane * height + y) * width + x), to = (size_t)((plane * height + to_y) * width + to_x);
                    expected[to] = (double)source[from];
                    back[from] = (double)dtarget[to];
                }
        launch("roll_flip", blocks_of(count, 32), 32, (const float *)source.data(), (const int *)own.data(), target.data(), (long long)count, height,
               width);
        launch("roll_flip_adjoint", blocks_of(count, 32), 32, (const float *)dtarget.data(), (const int *)own.data(), dsource.data(),
               (long long)count, height, width);
        near("target", target, expected, EXACT);
        near("dsource", dsource, back, EXACT);
    }
}

namespace {
struct Change {
    double angle, scale, down, right;
};

// The two pixels around a position and the weight of the second, mirrored half a pixel outside.
void taps(double position, int side, int &first, int &second, double &along) {
    double length = side, folded = fmod(position + 0.5, 2.0 * length);
    if (folded < 0.0) folded += 2.0 * length;
    double inside = fmin(fmax(fmin(folded, 2.0 * length - folded) - 0.5, 0.0), length - 1.0);
    first = std::min((int)inside, side - 1);
    second = std::min(first + 1, side - 1);
    along = inside - first;
}
} // namespace

TEST(warp_samples_as_the_plain_loops_do_and_its_adjoint_is_theirs_transposed) {
    const Change changes[] = {{0.0, 1.0, 0.0, 0.0},  {0.2, 1.12, 0.05, -0.03}, {-3.0, 0.3, 0.4, 1.4},
                              {1.0, 2.9, -1.3, 0.6}, {0.0, 1.0, 0.5, -0.5},    {0.5, -0.8, 0.0, 0.1}};
    const int sizes[][3] = {{2, 7, 6}, {1, 1, 5}, {3, 8, 8}, {1, 1, 1}};
    int images = 6;
    for (auto [channels, height, width] : sizes) {
        int area = height * width;
        size_t count = (size_t)(images * channels * area);
        Floats source = draw(count), target = empty(count), dtarget = draw(count), dsource = empty(count);
        Doubles maps, expected(count, 0.0), back(count, 0.0);
        for (const Change &own : changes) {
            double sine = own.scale * sin(own.angle), cosine = own.scale * cos(own.angle), down = own.down * height, right = own.right * width;
            maps.insert(maps.end(), {sine, cosine, down, right});
            int image = (int)(&own - changes);
            double centre_y = (height - 1) / 2.0, centre_x = (width - 1) / 2.0;
            for (int row = 0; row < height; row++)
                for (int column = 0; column < width; column++) {
                    double y = row - centre_y, x = column - centre_x, dy, dx;
                    int top, bottom, left, end;
                    taps(sine * x + cosine * y + down + centre_y, height, top, bottom, dy);
                    taps(cosine * x - sine * y + right + centre_x, width, left, end, dx);
                    const int places[4] = {top * width + left, top * width + end, bottom * width + left, bottom * width + end};
                    const double weights[4] = {(1.0 - dy) * (1.0 - dx), (1.0 - dy) * dx, dy * (1.0 - dx), dy * dx};
                    for (int channel = 0; channel < channels; channel++)
                        for (int tap = 0; tap < 4; tap++) {
                            size_t start = (size_t)((image * channels + channel) * area), to = start + (size_t)(row * width + column),
                                   from = start + (size_t)places[tap];
                            expected[to] += weights[tap] * (double)source[from];
                            back[from] += weights[tap] * (double)dtarget[to];
                        }
                }
        }
        Shape grid = {(unsigned)(area + 31) / 32, (unsigned)images};
        launch("warp", grid, 32, (const float *)source.data(), (const double *)maps.data(), target.data(), channels, height, width);
        launch("warp_adjoint", grid, 32, (const float *)dtarget.data(), (const double *)maps.data(), dsource.data(), channels, height, width);
        near("target", target, expected, FP32);
        near("dsource", dsource, back, FP32);
    }
}

TEST(recolouring_is_a_line_of_each_channel_and_its_adjoint_the_gain) {
    int planes = 6, area = 35;
    Floats source = draw((size_t)(planes * area)), lines = draw((size_t)(2 * planes)), target = empty(source.size()), back = empty(source.size());
    Doubles expected, slopes;
    for (size_t i = 0; i < source.size(); i++) {
        double gain = (double)lines[2 * (i / (size_t)area)], constant = (double)lines[2 * (i / (size_t)area) + 1];
        expected.push_back(gain * (double)source[i] + constant);
        slopes.push_back(gain * (double)source[i]);
    }
    Shape grid = {(unsigned)(area + 31) / 32, (unsigned)planes};
    launch("recolour", grid, 32, (const float *)source.data(), (const float *)lines.data(), 0, target.data(), area);
    launch("recolour", grid, 32, (const float *)source.data(), (const float *)lines.data(), 1, back.data(), area);
    near("target", target, expected, FP32);
    near("adjoint", back, slopes, FP32);
}
