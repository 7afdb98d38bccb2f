// libcuda.so.1 as far as cudarc 0.19 needs it, over the emulator. Work is done when the host waits for it, not before, so that a
// missing wait shows; copies from pageable memory take their values at the call, as a driver does, those of a graph and of pinned
// memory when they run. A kernel's pointers must lie in allocations, and what a launch cannot do is a fault that sticks.
#include "../registry.h"
#include "../scheduler.h"
#include "device.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>

using namespace fake;
typedef uint64_t Address;

namespace {
// What a module was made from: the kernels' file that nvrtc (libraries.cc) names, or any.
struct Module {
    std::string file;
};
struct Function {
    std::string name;
};
std::set<void *> functions;

std::shared_ptr<Event> event_of(void *handle) { return *(std::shared_ptr<Event> *)handle; }

Result copy(void *stream, size_t bytes, Count count, std::function<void()> work) {
    if (bytes == 0) return device().fault;
    device().counts[count]++;
    return device().enqueue(stream, std::move(work));
}

// For calls that a stream being captured does not allow.
Result before_waiting(void *stream) {
    Stream *own = device().stream(stream);
    if (!own) return INVALID_HANDLE;
    if (own->capture) {
        own->invalidated = true;
        return CAPTURE_UNSUPPORTED;
    }
    return device().fault;
}

Result finished() {
    device().guards_intact();
    return device().fault;
}

Result wait_for_stream(void *stream) {
    Result result = before_waiting(stream);
    if (result) return result;
    device().run(*device().stream(stream));
    return finished();
}

// In which order the threads of kernels run: EMULATOR_ORDER is forward, backward or random.
emulator::Order order() {
    static const emulator::Order chosen = [] {
        const char *word = getenv("EMULATOR_ORDER");
        if (word && !strcmp(word, "backward")) return emulator::Order::Backward;
        return word && !strcmp(word, "random") ? emulator::Order::Random : emulator::Order::Forward;
    }();
    return chosen;
}

void run_kernel(const std::string &name, emulator::Shape grid, unsigned threads, size_t shared, std::vector<uint64_t> values) {
    const emulator::Kernel *kernel = emulator::find_kernel(name);
    std::vector<void *> pointers;
    for (size_t i = 0; i < values.size(); i++) {
        pointers.push_back(&values[i]);
        if (kernel->arguments[i].kind == emulator::Kind::Pointer && values[i] && !device().holds(values[i], 1))
            return device().fail(ILLEGAL_ADDRESS, name + ": argument " + std::to_string(i) + " does not point into memory of the device");
    }
    device().counts[KERNELS_RUN]++;
    std::string failure = emulator::launch(name, grid, threads, shared, pointers.data(), order(), device().counts[KERNELS_RUN]);
    if (!failure.empty()) device().fail(LAUNCH_FAILED, failure);
}
} // namespace

#define ENTER Entry entry

extern "C" {
// ---- what tests ask ----

// Overwrites `out` with the first `count` of fake::Count.
void emulator_counts(uint64_t *out, size_t count) {
    ENTER;
    for (size_t i = 0; i < count && i < COUNTS; i++) out[i] = device().counts[i];
}
void emulator_reset_counts() {
    ENTER;
    uint64_t in_use = device().counts[BYTES_IN_USE];
    memset(device().counts, 0, sizeof device().counts);
    device().counts[BYTES_IN_USE] = device().counts[MOST_BYTES_IN_USE] = in_use;
}
void emulator_set_memory(size_t bytes) {
    ENTER;
    device().memory = bytes;
}
// The device is lost at the launch number `launch` from now on; 0: not at all.
void emulator_lose_device_at(uint64_t launch) {
    ENTER;
    device().lost_at_launch = launch ? device().counts[LAUNCHES] + launch : 0;
}
// As a new process would find it; memory stays.
void emulator_clear_fault() {
    ENTER;
    device().fault = SUCCESS;
}

// ---- device and context ----

int cuInit(unsigned) { return SUCCESS; }
int cuDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }
int cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }
int cuDeviceGet(int *number, int ordinal) { return ordinal ? 101 : (*number = 0, SUCCESS); }
int cuDeviceGetName(char *name, int length, int) { return snprintf(name, (size_t)length, "emulated device"), SUCCESS; }
int cuDeviceGetUuid_v2(void *uuid, int) { return memset(uuid, 0x5a, 16), SUCCESS; }
int cuDeviceGetUuid(void *uuid, int number) { return cuDeviceGetUuid_v2(uuid, number); }
int cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = device().memory, SUCCESS; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
    static const std::map<int, int> known = {
        {1, 1024}, {2, 1024},  {3, 1024}, {4, 64}, {5, 0x7fffffff}, {6, 65535},  {7, 65535}, {8, 48 << 10},   {10, 32}, {12, 65536},
        {16, 4},   {39, 2048}, {75, 8},   {76, 0}, {81, 164 << 10}, {82, 65536}, {95, 1},    {97, 163 << 10}, {115, 1},
    };
    auto found = known.find(attribute);
    *value = found == known.end() ? 0 : found->second;
    return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void **context, int) { return *context = (void *)&device(), SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxCreate_v4(void **context, void *, unsigned, int) { return *context = (void *)&device(), SUCCESS; }
int cuCtxDestroy_v2(void *) { return SUCCESS; }
int cuCtxSetCurrent(void *) { return device().fault; }
int cuCtxGetCurrent(void **context) { return *context = (void *)&device(), SUCCESS; }
int cuCtxSetFlags(unsigned) { return SUCCESS; }
int cuCtxSetLimit(int, size_t) { return SUCCESS; }
int cuCtxGetLimit(size_t *value, int) { return *value = 0, SUCCESS; }
int cuCtxGetStreamPriorityRange(int *least, int *greatest) { return *least = *greatest = 0, SUCCESS; }
int cuCtxSynchronize() {
    ENTER;
    if (device().capturing()) return CAPTURE_UNSUPPORTED;
    device().counts[SYNCHRONISATIONS]++;
    device().run_all();
    return finished();
}

// ---- streams and events ----

int cuStreamCreate(void **stream, unsigned) {
    ENTER;
    return *stream = device().add_stream(), SUCCESS;
}
int cuStreamCreateWithPriority(void **stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }
int cuStreamDestroy_v2(void *stream) {
    ENTER;
    return device().remove_stream(stream), SUCCESS;
}
int cuStreamSynchronize(void *stream) {
    ENTER;
    device().counts[SYNCHRONISATIONS]++;
    return wait_for_stream(stream);
}
int cuStreamWaitEvent(void *stream, void *handle, unsigned) {
    ENTER;
    std::shared_ptr<Event> event = event_of(handle);
    if (event->recorded || event->stream == device().stream(stream)) return device().fault; // done, or in order as it is
    // A capture of several streams is not emulated.
    if (event->stream && event->stream->capture) return CAPTURE_ISOLATION;
    return device().enqueue(stream, [event] { device().wait_for(*event); });
}
int cuEventCreate(void **handle, unsigned) {
    ENTER;
    return *handle = new std::shared_ptr<Event>(std::make_shared<Event>()), SUCCESS;
}
int cuEventDestroy_v2(void *handle) {
    ENTER;
    return delete (std::shared_ptr<Event> *)handle, SUCCESS;
}
int cuEventRecord(void *handle, void *stream) {
    ENTER;
    if (!device().stream(stream)) return INVALID_HANDLE;
    return device().record(event_of(handle), stream), device().fault;
}
int cuEventQuery(void *handle) {
    ENTER;
    return event_of(handle)->recorded ? device().fault : NOT_READY;
}
int cuEventSynchronize(void *handle) {
    ENTER;
    std::shared_ptr<Event> event = event_of(handle);
    device().counts[SYNCHRONISATIONS]++;
    device().wait_for(*event);
    return finished();
}
int cuEventElapsedTime_v2(float *milliseconds, void *start, void *end) {
    ENTER;
    if (!event_of(start)->recorded || !event_of(end)->recorded) return NOT_READY;
    return *milliseconds = (float)((event_of(end)->seconds - event_of(start)->seconds) * 1e3), SUCCESS;
}
int cuEventElapsedTime(float *milliseconds, void *start, void *end) { return cuEventElapsedTime_v2(milliseconds, start, end); }
int cuLaunchHostFunc(void *stream, void (*function)(void *), void *argument) {
    ENTER;
    return device().enqueue(stream, [=] { function(argument); });
}

// ---- memory ----

int cuMemAlloc_v2(Address *address, size_t bytes) {
    ENTER;
    if (Result forbidden = device().forbidden_by_captures()) return forbidden;
    return device().fault ? device().fault : device().allocate(address, bytes);
}
// Memory of a graph's own is not emulated.
int cuMemAllocAsync(Address *address, size_t bytes, void *stream) {
    ENTER;
    if (Result waiting = before_waiting(stream)) return waiting;
    return cuMemAlloc_v2(address, bytes);
}
int cuMemFree_v2(Address address) {
    ENTER;
    if (Result forbidden = device().forbidden_by_captures()) return forbidden;
    device().run_all();
    return device().release(address);
}
int cuMemFreeAsync(Address address, void *stream) {
    ENTER;
    // A fault must not keep memory: the program goes on with another device or without.
    if (device().fault) return device().release(address);
    return device().enqueue(stream, [address] {
        if (device().release(address)) device().fail(INVALID_VALUE, "memory is freed twice");
    });
}
int cuMemGetInfo_v2(size_t *free, size_t *total) {
    ENTER;
    return *total = device().memory, *free = device().memory - device().counts[BYTES_IN_USE], SUCCESS;
}
int cuMemHostAlloc(void **memory, size_t bytes, unsigned) {
    ENTER;
    if (Result forbidden = device().forbidden_by_captures()) return forbidden;
    return (*memory = device().allocate_host(bytes)) ? SUCCESS : OUT_OF_MEMORY;
}
int cuMemFreeHost(void *memory) {
    ENTER;
    if (Result forbidden = device().forbidden_by_captures()) return forbidden;
    return device().free_host(memory), SUCCESS;
}
int cuMemsetD8Async(Address target, unsigned char value, size_t bytes, void *stream) {
    ENTER;
    if (bytes && !device().holds(target, bytes)) return INVALID_VALUE;
    return copy(stream, bytes, FILLS, [=] { memset((void *)target, value, bytes); });
}
int cuMemsetD32Async(Address target, unsigned value, size_t count, void *stream) {
    ENTER;
    if (count && !device().holds(target, 4 * count)) return INVALID_VALUE;
    return copy(stream, count, FILLS, [=] {
        for (size_t i = 0; i < count; i++) ((unsigned *)target)[i] = value;
    });
}
int cuMemsetD8_v2(Address target, unsigned char value, size_t bytes) { return cuMemsetD8Async(target, value, bytes, nullptr); }
int cuMemcpyHtoDAsync_v2(Address target, const void *source, size_t bytes, void *stream) {
    ENTER;
    if (bytes && !device().holds(target, bytes)) return INVALID_VALUE;
    Stream *own = device().stream(stream);
    if (!own) return INVALID_HANDLE;
    if (!device().pinned(source) && own->capture) return before_waiting(stream);
    device().counts[BYTES_TO_DEVICE] += bytes;
    if (device().pinned(source)) return copy(stream, bytes, COPIES_TO_DEVICE, [=] { memcpy((void *)target, source, bytes); });
    std::string values((const char *)source, bytes);
    return copy(stream, bytes, COPIES_TO_DEVICE, [=] { memcpy((void *)target, values.data(), bytes); });
}
int cuMemcpyDtoHAsync_v2(void *target, Address source, size_t bytes, void *stream) {
    ENTER;
    if (bytes && !device().holds(source, bytes)) return INVALID_VALUE;
    Stream *own = device().stream(stream);
    if (!own) return INVALID_HANDLE;
    if (!device().pinned(target) && own->capture) return before_waiting(stream);
    Result result = copy(stream, bytes, COPIES_TO_HOST, [=] { memcpy(target, (void *)source, bytes); });
    if (result || device().pinned(target)) return result;
    device().counts[WAITING_COPIES]++;
    return wait_for_stream(stream);
}
int cuMemcpyDtoDAsync_v2(Address target, Address source, size_t bytes, void *stream) {
    ENTER;
    if (bytes && (!device().holds(target, bytes) || !device().holds(source, bytes))) return INVALID_VALUE;
    return copy(stream, bytes, COPIES_ON_DEVICE, [=] { memmove((void *)target, (void *)source, bytes); });
}
int cuMemcpyHtoD_v2(Address target, const void *source, size_t bytes) {
    int result = cuMemcpyHtoDAsync_v2(target, source, bytes, nullptr);
    return result ? result : cuStreamSynchronize(nullptr);
}
int cuMemcpyDtoH_v2(void *target, Address source, size_t bytes) { return cuMemcpyDtoHAsync_v2(target, source, bytes, nullptr); }
int cuMemcpyDtoD_v2(Address target, Address source, size_t bytes) { return cuMemcpyDtoDAsync_v2(target, source, bytes, nullptr); }

// ---- modules and launches ----

// An image is what this nvrtc made, "emulated FILE", or a cubin, which stands for any file.
int cuModuleLoadData(void **module, const void *image) {
    ENTER;
    static const char own[] = "emulated ", cubin[] = "\x7f"
                                                     "ELF";
    if (memcmp(image, own, sizeof own - 1) == 0) *module = new Module{(const char *)image + sizeof own - 1};
    else if (memcmp(image, cubin, 4) == 0) *module = new Module{""};
    else return INVALID_IMAGE;
    return device().fault;
}
int cuModuleUnload(void *module) { return delete (Module *)module, SUCCESS; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
    ENTER;
    const emulator::Kernel *kernel = emulator::find_kernel(name);
    const std::string &file = ((Module *)module)->file;
    if (!kernel || (!file.empty() && file != kernel->file)) return NOT_FOUND;
    functions.insert(*function = new Function{name});
    return SUCCESS;
}
int cuFuncSetAttribute(void *, int, int) { return SUCCESS; }
int cuFuncGetAttribute(int *value, int attribute, void *function) {
    const emulator::Kernel *kernel = emulator::find_kernel(((Function *)function)->name);
    return *value = attribute == 0 ? (int)kernel->largest_block : 0, SUCCESS;
}
int cuFuncSetCacheConfig(void *, int) { return SUCCESS; }
int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                   unsigned shared, void *stream, void **arguments, void **extra) {
    ENTER;
    if (!functions.count(function)) return INVALID_HANDLE;
    std::string name = ((Function *)function)->name;
    const emulator::Kernel *kernel = emulator::find_kernel(name);
    auto refuse = [&](const char *why) {
        fprintf(stderr, "emulated device: %s: %s\n", name.c_str(), why);
        return INVALID_VALUE;
    };
    if (extra || block_y != 1 || block_z != 1) return refuse("only arguments by pointer and blocks in x are emulated");
    if (!grid_x || !grid_y || !grid_z || !block_x) return refuse("a grid or a block without threads");
    if (block_x > kernel->largest_block) return refuse("more threads in a block than its launch bounds");
    if (++device().counts[LAUNCHES] == device().lost_at_launch) device().fail(LAUNCH_FAILED, "the device is lost, as asked for");
    std::vector<uint64_t> values(kernel->arguments.size(), 0);
    for (size_t i = 0; i < values.size(); i++) memcpy(&values[i], arguments[i], kernel->arguments[i].size);
    emulator::Shape grid{grid_x, grid_y, grid_z};
    return device().enqueue(stream, [=] { run_kernel(name, grid, block_x, shared, values); });
}

// ---- graphs ----

int cuStreamBeginCapture_v2(void *stream, int mode) {
    ENTER;
    Stream *own = device().stream(stream);
    if (!own || !stream) return INVALID_HANDLE; // the default stream cannot be captured
    if (own->capture) return INVALID_VALUE;
    if (mode < 0 || mode > 2) return INVALID_VALUE;
    own->capture = std::make_unique<Graph>();
    own->mode = (CaptureMode)mode;
    own->capturing = std::this_thread::get_id();
    own->invalidated = false;
    return device().fault;
}
int cuStreamEndCapture(void *stream, void **graph) {
    ENTER;
    Stream *own = device().stream(stream);
    if (!own || !own->capture) return INVALID_VALUE;
    bool invalidated = own->invalidated;
    own->invalidated = false;
    *graph = invalidated ? nullptr : own->capture.release();
    own->capture.reset();
    return invalidated ? CAPTURE_INVALIDATED : device().fault;
}
int cuStreamIsCapturing(void *stream, int *status) {
    ENTER;
    Stream *own = device().stream(stream);
    if (!own) return INVALID_HANDLE;
    return *status = own->capture ? own->invalidated ? 2 : 1 : 0, SUCCESS;
}
int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long) { return *executable = new Graph(*(Graph *)graph), SUCCESS; }
int cuGraphLaunch(void *executable, void *stream) {
    ENTER;
    device().counts[GRAPH_LAUNCHES]++;
    std::vector<Work> work = ((Graph *)executable)->work;
    return device().enqueue(stream, [work] {
        for (const Work &own : work)
            if (!device().fault) own();
    });
}
int cuGraphUpload(void *, void *) { return SUCCESS; }
int cuGraphDestroy(void *graph) { return delete (Graph *)graph, SUCCESS; }
int cuGraphExecDestroy(void *graph) { return delete (Graph *)graph, SUCCESS; }

// ---- errors ----

int cuGetErrorName(int error, const char **name) {
    static const std::map<int, const char *> names = {
        {SUCCESS, "CUDA_SUCCESS"},
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
        {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
        {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
        {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
    };
    auto found = names.find(error);
    return *name = found == names.end() ? "CUDA_ERROR_EMULATED" : found->second, SUCCESS;
}
int cuGetErrorString(int error, const char **text) {
    static const std::map<int, const char *> texts = {{OUT_OF_MEMORY, "out of memory"},
                                                      {LAUNCH_FAILED, "unspecified launch failure"},
                                                      {ILLEGAL_ADDRESS, "an illegal memory access was encountered"}};
    auto found = texts.find(error);
    return *text = found == texts.end() ? "an error of the emulated device" : found->second, SUCCESS;
}
}
