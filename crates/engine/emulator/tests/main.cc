// emulator-tests [one-order] [times] [PART OF A NAME]: runs the cases in three orders of threads, or in one, and compares the results
// of the orders bit by bit.
#include "test.h"
#include <chrono>
#include <cstdio>
#include <cstring>
#include <random>

namespace test {
static std::mt19937 generator;
static emulator::Order order;
static int checks, failures;
static const char *running;
static std::vector<float> noted;

static std::vector<Case> &cases() {
    static std::vector<Case> all;
    return all;
}
bool add_case(Case own) {
    cases().push_back(own);
    return true;
}

static void fail(const std::string &why) {
    failures++;
    printf("FAIL %s: %s\n", running, why.c_str());
}

static constexpr float GAP = 12345.0f;

Doubles Matrix::plain() const {
    Doubles all;
    for (int row = 0; row < rows; row++)
        for (int column = 0; column < columns; column++) all.push_back(at(row, column));
    return all;
}

Floats draw(size_t count, double deviation) {
    std::normal_distribution<double> normal(0.0, deviation);
    Floats values(count);
    for (float &value : values) value = (float)normal(generator);
    return values;
}
int draw_below(int bound) { return (int)(generator() % (unsigned)bound); }
Floats empty(size_t count) { return Floats(count, NAN); }

static Matrix with_gaps(int rows, int columns, int gap) {
    int stride = columns + gap;
    size_t extent = rows ? (size_t)(rows - 1) * (size_t)stride + (size_t)columns : 0;
    return {rows, columns, stride, Floats(extent, GAP)};
}
Matrix draw_matrix(int rows, int columns, int gap, double deviation) {
    Matrix matrix = with_gaps(rows, columns, gap);
    Floats values = draw((size_t)rows * (size_t)columns, deviation);
    for (int row = 0; row < rows; row++)
        for (int column = 0; column < columns; column++) matrix.at(row, column) = values[(size_t)row * (size_t)columns + (size_t)column];
    return matrix;
}
Matrix empty_matrix(int rows, int columns, int gap) {
    Matrix matrix = with_gaps(rows, columns, gap);
    for (int row = 0; row < rows; row++)
        for (int column = 0; column < columns; column++) matrix.at(row, column) = NAN;
    return matrix;
}

void launch_with(const std::string &name, Shape grid, unsigned threads, size_t dynamic_bytes, const std::vector<emulator::Argument> &given,
                 void **arguments) {
    const emulator::Kernel *kernel = emulator::find_kernel(name);
    if (!kernel) return fail("there is no kernel " + name);
    if (kernel->arguments.size() != given.size())
        return fail(name + ": " + std::to_string(given.size()) + " arguments where " + std::to_string(kernel->arguments.size()) + " are needed");
    for (size_t i = 0; i < given.size(); i++)
        if (kernel->arguments[i].kind != given[i].kind)
            return fail(name + ": argument " + std::to_string(i) + " is of kind " + emulator::kind_name(given[i].kind) + ", needed is " +
                        emulator::kind_name(kernel->arguments[i].kind));
    if (grid.count() == 0) return;
    std::string failure = emulator::launch(name, grid, threads, dynamic_bytes, arguments, order, 7);
    if (!failure.empty()) fail(failure);
}

static void compare(const std::string &what, const Doubles &found, const Doubles &expected, double tolerance) {
    checks++;
    if (found.size() != expected.size())
        return fail(what + ": " + std::to_string(found.size()) + " values where " + std::to_string(expected.size()) + " are expected");
    double largest = 0.0, worst = 0.0;
    for (double value : expected) largest = fmax(largest, fabs(value));
    if (largest == 0.0) largest = 1.0;
    size_t place = 0;
    for (size_t i = 0; i < found.size(); i++) {
        double difference = fabs(found[i] - expected[i]) / largest;
        if (found[i] == expected[i]) difference = 0.0; // infinities
        if (!(difference <= worst)) {
            worst = std::isnan(difference) ? INFINITY : difference;
            place = i;
        }
        noted.push_back((float)found[i]);
    }
    if (worst <= tolerance) return;
    char text[200];
    snprintf(text, sizeof text, ": value %zu of %zu is %.9g, expected %.9g; off by %.1e of the largest, allowed %.0e", place, found.size(),
             found[place], expected[place], worst, tolerance);
    fail(what + text);
}

void near(const std::string &what, const Doubles &found, const Doubles &expected, double tolerance) { compare(what, found, expected, tolerance); }
void near(const std::string &what, const Floats &found, const Doubles &expected, double tolerance) {
    compare(what, widen(found), expected, tolerance);
}
void near(const std::string &what, const Matrix &found, const Doubles &expected, double tolerance) {
    compare(what, found.plain(), expected, tolerance);
    for (int row = 0; row + 1 < found.rows; row++)
        for (int column = found.columns; column < found.stride; column++)
            if (found.at(row, column) != GAP) return fail(what + ": the gap after row " + std::to_string(row) + " was written");
}
void equal(const std::string &what, long long found, long long expected) {
    checks++;
    noted.push_back((float)found);
    if (found != expected) fail(what + ": " + std::to_string(found) + ", expected " + std::to_string(expected));
}

Doubles slopes(const Doubles &x, const std::function<double(const Doubles &)> &value) {
    const double step = 1e-5;
    Doubles at = x, slopes(x.size());
    for (size_t i = 0; i < x.size(); i++) {
        at[i] = x[i] + step;
        double above = value(at);
        at[i] = x[i] - step;
        slopes[i] = (above - value(at)) / (2.0 * step);
        at[i] = x[i];
    }
    return slopes;
}
double dot(const Doubles &a, const Doubles &b) {
    double sum = 0.0;
    for (size_t i = 0; i < a.size(); i++) sum += a[i] * b[i];
    return sum;
}

static int run(int orders, const char *part, bool times) {
    int ran = 0;
    for (const Case &own : cases()) {
        if (part && !strstr(own.name, part)) continue;
        running = own.name;
        std::vector<float> first;
        auto start = std::chrono::steady_clock::now();
        int before = failures;
        for (int i = 0; i < orders; i++) {
            order = (emulator::Order)i;
            generator.seed(3);
            noted.clear();
            own.body();
            if (failures > before) break;
            if (i == 0) first = noted;
            else if (first.size() != noted.size() || memcmp(first.data(), noted.data(), first.size() * sizeof(float)) != 0) {
                fail("the result depends on the order of threads");
                break;
            }
        }
        double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (times) printf("%7.0f ms %s\n", seconds * 1e3, own.name);
        ran++;
    }
    printf("%d cases, %d comparisons, %d failures\n", ran, checks, failures);
    return failures == 0 && ran > 0 ? 0 : 1;
}
} // namespace test

int main(int count, char **words) {
    int orders = 3;
    bool times = false;
    const char *part = nullptr;
    if (count == 3 && !strcmp(words[1], "faulty")) return test::run_faulty(words[2]);
    for (int i = 1; i < count; i++)
        if (!strcmp(words[i], "one-order")) orders = 1;
        else if (!strcmp(words[i], "times")) times = true;
        else part = words[i];
    return test::run(orders, part, times);
}
