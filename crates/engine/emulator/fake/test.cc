// fake-test LIBRARY: the fake CUDA libraries through the entry points that cudarc calls, opened as cudarc opens them.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <functional>
#include <string>
#include <thread>
#include <vector>

typedef uint64_t Address;
typedef std::vector<float> Floats;
static void *library;
static int checks, failures;
static const char *running;

// Calls the entry point `name`, which gives a result code.
template <class... A> int call(const char *name, A... arguments) {
    auto *function = (int (*)(A...))dlsym(library, name);
    if (function) return function(arguments...);
    printf("FAIL %s: no entry point %s\n", running, name);
    failures++;
    return -1;
}
static void is(const char *what, double found, double expected) {
    checks++;
    if (found == expected) return;
    failures++;
    printf("FAIL %s: %s is %.9g, expected %.9g\n", running, what, found, expected);
}
static void near(const char *what, double found, double expected, double tolerance) {
    checks++;
    if (fabs(found - expected) <= tolerance) return;
    failures++;
    printf("FAIL %s: %s is %.9g, expected %.9g\n", running, what, found, expected);
}

// As fake::Count.
enum {
    LAUNCHES,
    KERNELS_RUN,
    GRAPH_LAUNCHES,
    PRODUCTS,
    SYNCHRONISATIONS,
    WAITING_COPIES,
    TO_DEVICE,
    TO_HOST,
    ON_DEVICE,
    FILLS,
    ALLOCATIONS,
    IN_USE,
    MOST_IN_USE,
    COUNTS
};
static std::vector<uint64_t> counts() {
    std::vector<uint64_t> all(COUNTS);
    ((void (*)(uint64_t *, size_t))dlsym(library, "emulator_counts"))(all.data(), COUNTS);
    return all;
}

static void *stream;
static Address allocate(size_t values) {
    Address address = 0;
    is("an allocation", call("cuMemAllocAsync", &address, 4 * values, stream), 0);
    return address;
}
static Address upload(const Floats &values) {
    Address address = allocate(values.size());
    is("a copy to the device", call("cuMemcpyHtoDAsync_v2", address, (const void *)values.data(), 4 * values.size(), stream), 0);
    return address;
}
static Floats download(Address address, size_t count) {
    Floats values(count);
    is("a copy to the host", call("cuMemcpyDtoHAsync_v2", (void *)values.data(), address, 4 * count, stream), 0);
    return values;
}
static void *function(const char *file, const char *name) {
    std::string image = std::string("emulated ") + file;
    void *module = nullptr, *found = nullptr;
    is("a module", call("cuModuleLoadData", &module, (const void *)image.c_str()), 0);
    is("a function", call("cuModuleGetFunction", &found, module, name), 0);
    return found;
}
template <class... A> int launch(void *function, unsigned grid, unsigned block, A... arguments) {
    void *pointers[] = {(void *)&arguments...};
    return call("cuLaunchKernel", function, grid, 1u, 1u, block, 1u, 1u, 0u, stream, (void **)pointers, (void **)nullptr);
}
static int synchronise() { return call("cuStreamSynchronize", stream); }

static void memory_is_not_a_number_until_it_is_written() {
    Address address = allocate(3);
    for (float value : download(address, 3)) is("NaN", std::isnan(value), 1);
    is("another copy", download(upload({1.0f, 2.0f, 3.0f}), 3)[2], 3);
    call("cuMemFreeAsync", address, stream);
}

static void work_is_done_when_the_host_waits_and_counted() {
    void *fill = function("elementwise.cu", "fill");
    Address address = allocate(8);
    synchronise();
    auto before = counts();
    is("a launch", launch(fill, 2, 32, address, 4, 4, 2.5f), 0);
    is("not done yet", std::isnan(*(volatile float *)address), 1);
    synchronise();
    is("done", *(volatile float *)address, 2.5);
    is("values", download(address, 8)[7], 2.5);
    auto after = counts();
    is("launches", (double)(after[LAUNCHES] - before[LAUNCHES]), 1);
    is("synchronisations", (double)(after[SYNCHRONISATIONS] - before[SYNCHRONISATIONS]), 1);
    is("copies that wait", (double)(after[WAITING_COPIES] - before[WAITING_COPIES]), 1);
}

static void a_graph_replays_with_what_its_inputs_hold_then() {
    void *scale = function("elementwise.cu", "scale");
    Address x = upload({1.0f, 2.0f}), y = allocate(2);
    float *host = nullptr;
    is("pinned memory", call("cuMemHostAlloc", (void **)&host, (size_t)8, 0u), 0);
    host[0] = 1.0f;
    synchronise();
    is("begin", call("cuStreamBeginCapture_v2", stream, 2), 0);
    call("cuMemcpyHtoDAsync_v2", x, (const void *)host, (size_t)8, stream);
    launch(scale, 1, 32, x, 2, 10.0f, y, 2, 2);
    void *graph = nullptr, *executable = nullptr;
    is("end", call("cuStreamEndCapture", stream, &graph), 0);
    is("instantiate", call("cuGraphInstantiateWithFlags", &executable, graph, 0ull), 0);
    is("captured work is not done", std::isnan(download(y, 2)[0]), 1);
    for (float value : {3.0f, 5.0f}) {
        host[1] = value;
        is("graph launch", call("cuGraphLaunch", executable, stream), 0);
        is("replayed", download(y, 2)[1], 10.0 * (double)value);
    }
    call("cuMemFreeHost", (void *)host);
}

static void a_capture_refuses_what_waits_what_allocates_and_memory_that_is_not_pinned() {
    void *graph = nullptr, *other = nullptr, *event = nullptr;
    Address x = upload({1.0f, 2.0f}), none = 0;
    synchronise();
    call("cuStreamCreate", &other, 1u);
    call("cuEventCreate", &event, 2u);
    Floats pageable = {1.0f, 2.0f};
    void *memory = nullptr;
    const int global = 0, of_thread = 1, relaxed = 2;
    auto refused = [&](const char *what, int mode, const std::function<int()> &work) {
        is("begin", call("cuStreamBeginCapture_v2", stream, mode), 0);
        is(what, work(), 900);
        is("what follows", call("cuMemsetD8Async", x, (unsigned char)0, (size_t)8, stream), 901);
        is("end of an invalid capture", call("cuStreamEndCapture", stream, &graph), 901);
    };
    refused("waiting for the stream", relaxed, [] { return synchronise(); });
    refused("a pageable source", relaxed, [&] { return call("cuMemcpyHtoDAsync_v2", x, (const void *)pageable.data(), (size_t)8, stream); });
    refused("a pageable target", relaxed, [&] { return call("cuMemcpyDtoHAsync_v2", (void *)pageable.data(), x, (size_t)8, stream); });
    for (int mode : {global, of_thread}) {
        refused("an allocation", mode, [&] { return call("cuMemAlloc_v2", &none, (size_t)8); });
        refused("pinned memory", mode, [&] { return call("cuMemHostAlloc", &memory, (size_t)8, 0u); });
        refused("freeing", mode, [&] { return call("cuMemFree_v2", x); });
    }
    // Other threads allocate while one captures, where the capture is its own.
    is("begin", call("cuStreamBeginCapture_v2", stream, of_thread), 0);
    std::thread([&] { is("another thread's", call("cuMemAlloc_v2", &none, (size_t)8), 0); }).join();
    // Work of another stream is not captured, and cannot wait for what is.
    is("another stream", call("cuMemsetD8Async", none, (unsigned char)0, (size_t)8, other), 0);
    call("cuEventRecord", event, stream);
    is("an event of a capture", call("cuStreamWaitEvent", other, event, 0u), 905);
    is("end", call("cuStreamEndCapture", stream, &graph), 0);
    call("cuGraphDestroy", graph);
    call("cuEventDestroy_v2", event);
    call("cuStreamDestroy_v2", other);
    call("cuMemFree_v2", none);
}

static void a_stream_waits_for_the_event_of_another() {
    void *other = nullptr, *event = nullptr, *own = stream;
    call("cuStreamCreate", &other, 1u);
    call("cuEventCreate", &event, 2u);
    void *fill = function("elementwise.cu", "fill"), *add = function("elementwise.cu", "add_bias");
    Address x = upload({1.0f});
    synchronise();
    launch(fill, 1, 32, x, 1, 1, 4.0f);
    call("cuEventRecord", event, own);
    stream = other;
    call("cuStreamWaitEvent", other, event, 0u);
    Address bias = upload({0.5f});
    launch(add, 1, 32, bias, x, 1, 1);
    is("after the other stream", download(x, 1)[0], 4.5);
    stream = own;
    call("cuEventDestroy_v2", event);
    call("cuStreamDestroy_v2", other);
}

static void faults_stick_and_say_what_they_are() {
    void *fill = function("elementwise.cu", "fill");
    Address x = upload({1.0f, 2.0f, 3.0f});
    auto clear = [] { ((void (*)())dlsym(library, "emulator_clear_fault"))(); };
    launch(fill, 1, 32, (Address)4096, 3, 3, 0.0f);
    is("a pointer that is none", synchronise(), 700);
    is("the fault stays", launch(fill, 1, 32, x, 3, 3, 0.0f), 700);
    clear();
    launch(fill, 1, 32, x, 3, 3, 1.0f);
    is("inside its memory", synchronise(), 0);
    is("blocks too large", launch(fill, 1, 512, x, 3, 3, 0.0f), 1);
    is("no blocks", launch(fill, 0, 32, x, 3, 3, 0.0f), 1);
    ((void (*)(uint64_t))dlsym(library, "emulator_lose_device_at"))(2);
    is("a launch before the loss", launch(fill, 1, 32, x, 3, 3, 1.0f), 0);
    is("the loss", launch(fill, 1, 32, x, 3, 3, 1.0f), 719);
    is("after it", synchronise(), 719);
    clear();
    launch(fill, 1, 32, x, 4, 4, 1.0f);
    is("one value past the end", synchronise(), 700);
    clear();
    ((void (*)(size_t))dlsym(library, "emulator_set_memory"))((size_t)counts()[IN_USE] + 100);
    Address none = 0;
    is("out of memory", call("cuMemAllocAsync", &none, (size_t)1000, stream), 2);
    ((void (*)(size_t))dlsym(library, "emulator_set_memory"))((size_t)1 << 30);
    void *module = nullptr, *found = nullptr;
    call("cuModuleLoadData", &module, (const void *)"emulated norm.cu");
    is("a function of another file", call("cuModuleGetFunction", &found, module, "fill"), 500);
    is("an image that is none", call("cuModuleLoadData", &module, (const void *)"something else"), 200);
}

// y [rows, out] = x [rows, inner]·wᵀ, row-major: column-major it is op(w)·x.
static void products_are_those_of_cublas_with_strides_and_rounding() {
    int rows = 3, inner = 11, out = 2, stride_x = 13, stride_y = 5;
    Floats x((size_t)(rows * stride_x)), w((size_t)(out * inner)), start((size_t)(rows * stride_y), 1.0f);
    for (size_t i = 0; i < x.size(); i++) x[i] = (float)sin(0.7 * (double)i);
    for (size_t i = 0; i < w.size(); i++) w[i] = (float)cos(0.3 * (double)i);
    void *blas = nullptr;
    is("create", call("cublasCreate_v2", &blas), 0);
    call("cublasSetStream_v2", blas, stream);
    Address at_x = upload(x), at_w = upload(w), at_y = upload(start);
    float alpha = 2.0f, beta = 0.5f;
    auto multiply = [&](int compute, int leading) {
        return call("cublasGemmEx", blas, 1, 0, out, rows, inner, (const void *)&alpha, (const void *)at_w, 0, leading, (const void *)at_x, 0,
                    stride_x, (const void *)&beta, (void *)at_y, 0, stride_y, compute, -1);
    };
    is("product", multiply(68, inner), 0);
    Floats y = download(at_y, start.size());
    double largest = 0.0;
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < stride_y; i++) {
            double sum = 0.0;
            for (int k = 0; k < inner && i < out; k++) sum += (double)x[(size_t)(row * stride_x + k)] * (double)w[(size_t)(i * inner + k)];
            near("y", y[(size_t)(row * stride_y + i)], i < out ? 2.0 * sum + 0.5 : 1.0, 2e-6);
        }
    multiply(77, inner);
    Floats rounded = download(at_y, start.size());
    for (size_t i = 0; i < 2; i++) largest = fmax(largest, fabs((double)rounded[i] - (1.5 * (double)y[i] - 0.5)));
    is("TF32 differs from FP32, a little", largest > 1e-6 && largest < 1e-2, 1);
    is("a leading dimension that is too short", multiply(68, inner - 1), 7);
    is("an operand past its memory", multiply(68, inner + 5), 7);
    is("half precision", multiply(64, inner), 15);
    call("cublasDestroy_v2", blas);
}

int main(int, char **words) {
    library = dlopen(words[1], RTLD_NOW | RTLD_GLOBAL);
    if (!library) return printf("%s\n", dlerror()), 1;
    running = "start";
    // Opened by path once, the others are found by name.
    std::string folder = words[1];
    folder.resize(folder.rfind('/') + 1);
    for (const char *name : {"libcuda.so", "libcublas.so", "libcublas.so.13", "libnvrtc.so", "libnvrtc.so.13"}) {
        is(name, dlopen((folder + name).c_str(), RTLD_NOW | RTLD_GLOBAL) != nullptr, 1);
        void *found = dlopen(name, RTLD_NOW);
        is(name, found && dlsym(found, "cublasCreate_v2") == dlsym(library, "cublasCreate_v2"), 1);
    }
    is("init", call("cuInit", 0u), 0);
    call("cuStreamCreate", &stream, 1u);
    struct {
        const char *name;
        void (*body)();
    } cases[] = {
        {"memory_is_not_a_number_until_it_is_written", memory_is_not_a_number_until_it_is_written},
        {"work_is_done_when_the_host_waits_and_counted", work_is_done_when_the_host_waits_and_counted},
        {"a_graph_replays_with_what_its_inputs_hold_then", a_graph_replays_with_what_its_inputs_hold_then},
        {"a_capture_refuses_what_waits_what_allocates_and_memory_that_is_not_pinned",
         a_capture_refuses_what_waits_what_allocates_and_memory_that_is_not_pinned},
        {"a_stream_waits_for_the_event_of_another", a_stream_waits_for_the_event_of_another},
        {"products_are_those_of_cublas_with_strides_and_rounding", products_are_those_of_cublas_with_strides_and_rounding},
        {"faults_stick_and_say_what_they_are", faults_stick_and_say_what_they_are},
    };
    for (auto &own : cases) {
        running = own.name;
        own.body();
    }
    printf("%zu cases, %d comparisons, %d failures\n", sizeof cases / sizeof *cases, checks, failures);
    return failures != 0;
}
