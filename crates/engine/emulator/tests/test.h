// What the tests of kernels share: matrices with gaps between rows, launches, comparison with plain loops in double.
#pragma once
#include "../scheduler.h"
#include "../registry.h"
#include <cmath>
#include <functional>
#include <string>
#include <vector>

namespace test {
using emulator::Shape;
typedef std::vector<float> Floats;
typedef std::vector<double> Doubles;

// Allowed differences, relative to the largest expected value of a tensor. FP32: a few rounding steps of 6e-8, and those of a
// sum of some hundred terms. TF32: 10 bits of fraction, 5e-4 a rounded factor, averaged over a sum.
constexpr double FP32 = 1e-6;
constexpr double TF32 = 1e-3;
// Copies and choices.
constexpr double EXACT = 0.0;

// [rows, columns], rows `stride` values apart; nothing after the last row, so that ASan sees what goes past it. Gaps hold a
// value that must stay.
struct Matrix {
    int rows, columns, stride;
    Floats values;
    float &at(int row, int column) { return values[(size_t)row * (size_t)stride + (size_t)column]; }
    float at(int row, int column) const { return values[(size_t)row * (size_t)stride + (size_t)column]; }
    float *data() { return values.data(); }
    const float *read() const { return values.data(); }
    Doubles plain() const;
};

// Drawn from the normal distribution, the same at each run of a test.
Floats draw(size_t count, double deviation = 1.0);
Matrix draw_matrix(int rows, int columns, int gap = 0, double deviation = 1.0);
// Of NaN, so that what a kernel does not overwrite is found.
Matrix empty_matrix(int rows, int columns, int gap = 0);
Floats empty(size_t count);
int draw_below(int bound);
template <class T> Doubles widen(const std::vector<T> &values) { return Doubles(values.begin(), values.end()); }

// Runs a kernel by name after its arguments were compared with the registry. A grid without blocks is left out, as a caller
// leaves it out on a device.
void launch_with(const std::string &name, Shape grid, unsigned threads, size_t dynamic_bytes, const std::vector<emulator::Argument> &given,
                 void **arguments);
template <class... A> void launch_shared(const std::string &name, Shape grid, unsigned threads, size_t dynamic_bytes, A... arguments) {
    void *pointers[] = {(void *)&arguments...};
    launch_with(name, grid, threads, dynamic_bytes, {emulator::Argument{emulator::kind_of<A>(), sizeof(A)}...}, pointers);
}
template <class... A> void launch(const std::string &name, Shape grid, unsigned threads, A... arguments) {
    launch_shared(name, grid, threads, 0, arguments...);
}
inline Shape blocks_of(size_t count, unsigned threads) { return {(unsigned)((count + threads - 1) / threads)}; }

// Fails where a value differs by more than `tolerance`, relative to the largest expected value, or is not a number. Also
// notes the values, which must be the same in all orders of threads.
void near(const std::string &what, const Floats &found, const Doubles &expected, double tolerance);
void near(const std::string &what, const Doubles &found, const Doubles &expected, double tolerance);
// As above; gaps must be as they were.
void near(const std::string &what, const Matrix &found, const Doubles &expected, double tolerance);
void equal(const std::string &what, long long found, long long expected);

// The slope of `value` at each of `x`, by central differences.
Doubles slopes(const Doubles &x, const std::function<double(const Doubles &)> &value);
double dot(const Doubles &a, const Doubles &b);
inline double rounded(float value) { return value; }

struct Case {
    const char *name;
    void (*body)();
};
bool add_case(Case own);
int run_faulty(const char *name);
} // namespace test

// The name says what is true.
#define TEST(name)                                                                                                                                   \
    static void name();                                                                                                                              \
    static const bool name##_added = test::add_case({#name, name});                                                                                  \
    static void name()
