// The emulator itself: it plays warps as a device does, and faults are found.
#include "test.h"
#include <cstring>
using namespace test;

// What a launch that must fail says.
template <class... A> static std::string failure_of(const char *name, Shape grid, unsigned threads, A... arguments) {
    void *pointers[] = {(void *)&arguments...};
    return emulator::launch(name, grid, threads, 0, pointers);
}
static void says(const std::string &found, const char *part) { equal(part, found.find(part) != std::string::npos, 1); }

TEST(emulator_exchanges_between_lanes_of_a_warp_and_starts_with_fresh_memory) {
    Floats exchanged = empty(64), fresh(64, 0.0f);
    Doubles expected;
    launch("faultless_lanes", {1}, 64, exchanged.data(), fresh.data());
    for (int thread = 0; thread < 64; thread++) expected.push_back(thread ^ 5);
    near("exchanged", exchanged, expected, EXACT);
    for (float value : fresh) equal("shared memory is not a number", std::isnan(value), 1);
}

TEST(emulator_multiplies_with_ten_bits_of_fraction) {
    Floats a = draw(128), b = draw(64), c = draw(128);
    Doubles exact, rounded;
    auto short_of = [](float value) {
        double scale = exp2(10 - ilogb((double)value));
        return round((double)value * scale) / scale; // away from zero where it is in the middle
    };
    for (int row = 0; row < 16; row++)
        for (int column = 0; column < 8; column++) {
            double sum = (double)c[(size_t)(row * 8 + column)], other = sum;
            for (int k = 0; k < 8; k++) {
                sum += (double)a[(size_t)(row * 8 + k)] * (double)b[(size_t)(k * 8 + column)];
                other += short_of(a[(size_t)(row * 8 + k)]) * short_of(b[(size_t)(k * 8 + column)]);
            }
            exact.push_back(sum);
            rounded.push_back(other);
        }
    launch("faultless_product", {1}, 32, (const float *)a.data(), (const float *)b.data(), c.data());
    near("c", c, rounded, FP32);
    near("c without rounding", c, exact, TF32);
}

TEST(emulator_finds_threads_that_wait_in_vain_and_refuses_what_a_device_refuses) {
    float none[64];
    equal("all at one barrier", failure_of("faulty_barrier", {1}, 64, 0).empty(), 1);
    says(failure_of("faulty_barrier", {1}, 64, 1), "and at others");
    says(failure_of("faulty_barrier", {1}, 64, 2), "threads that have ended");
    says(failure_of("faulty_shuffle", {1}, 32, (float *)none), "16 lanes of a warp wait there");
    says(failure_of("faulty_race", {0}, 64, (float *)none), "without blocks");
    says(failure_of("faulty_race", {1}, 33, (float *)none), "no whole warps");
    says(failure_of("faulty_race", {1}, 96, (float *)none), "more than 64");
    says(failure_of("faulty_race", {1, 70000}, 64, (float *)none), "too large");
    says(failure_of("faulty_nothing", {1}, 32, (float *)none), "there is no kernel");
}

// emulator-tests faulty NAME: runs one of the kernels that only a sanitizer finds faulty.
int test::run_faulty(const char *name) {
    Floats out(64, 0.0f);
    std::vector<int> whole(64, 1);
    std::string failure;
    if (!strcmp(name, "race")) failure = failure_of("faulty_race", {1}, 64, out.data());
    else if (!strcmp(name, "blocks")) failure = failure_of("faulty_blocks", {2}, 32, out.data());
    else if (!strcmp(name, "overflow")) failure = failure_of("faulty_overflow", {1}, 32, out.data());
    else if (!strcmp(name, "integer")) failure = failure_of("faulty_integer", {1}, 32, whole.data());
    else failure = "no such fault";
    return failure.empty() ? 0 : 3;
}
