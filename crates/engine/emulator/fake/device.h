// The device that the fake CUDA libraries play: memory with guarded ends, streams whose work is done as late as it may be, events,
// captured graphs, counters. One lock over all of it; callers hold it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace fake {
// CUresult values that are given.
enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_CONTEXT = 201,
    INVALID_IMAGE = 200,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNJOINED = 904,
    CAPTURE_ISOLATION = 905,
};

// What emulator_counts gives, in this order.
enum Count {
    LAUNCHES, // kernels that the host launched, captured ones too
    KERNELS_RUN, // kernels that ran, those of graphs too
    GRAPH_LAUNCHES,
    PRODUCTS, // products that ran
    SYNCHRONISATIONS, // calls by which the host waits for a stream, an event or the device
    WAITING_COPIES, // copies into pageable host memory: the host waits for these, too
    COPIES_TO_DEVICE,
    COPIES_TO_HOST,
    COPIES_ON_DEVICE,
    FILLS,
    ALLOCATIONS,
    BYTES_IN_USE,
    MOST_BYTES_IN_USE,
    BYTES_TO_DEVICE, // of all copies to the device
    COUNTS,
};

struct Event;
// One piece of work of a stream.
typedef std::function<void()> Work;

struct Graph {
    std::vector<Work> work;
};

// Whose calls a capture forbids: those of all threads, of the one that captures, of nobody.
enum class CaptureMode { Global, ThreadLocal, Relaxed };

struct Stream {
    std::deque<Work> queue;
    std::unique_ptr<Graph> capture;
    CaptureMode mode = CaptureMode::Global;
    std::thread::id capturing; // who began the capture
    bool invalidated = false;
};

struct Event {
    Stream *stream = nullptr; // where it waits to be recorded
    bool recorded = true;
    double seconds = 0.0;
};

class Device {
  public:
    std::recursive_mutex lock;
    uint64_t counts[COUNTS] = {};

    // Sticky, as after a fault on a device: every later call gives it.
    Result fault = SUCCESS;
    void fail(Result result, const std::string &why);

    Result allocate(uint64_t *address, size_t bytes);
    Result release(uint64_t address);
    // Whether all of [address, address + bytes) lies in one allocation.
    bool holds(uint64_t address, size_t bytes) const;
    // Values after the ends of all allocations are as they were.
    bool guards_intact();

    Stream *stream(void *handle);
    void *add_stream();
    void remove_stream(void *handle);
    // Appends to the stream, or to its graph.
    Result enqueue(void *handle, Work work);
    // Does all work of a stream, of all streams.
    void run(Stream &stream);
    void run_all();
    bool capturing() const;
    // For calls that a capture forbids in its mode, allocations among them: invalidates it.
    Result forbidden_by_captures();

    // Queues share events, since a host may destroy one before it is done.
    void record(const std::shared_ptr<Event> &event, void *handle);
    void wait_for(Event &event);

    // Pinned host memory: copies to and from it happen when the stream comes to them.
    void *allocate_host(size_t bytes);
    void free_host(void *memory);
    bool pinned(const void *memory) const;

    // Of all allocations; OUT_OF_MEMORY beyond.
    size_t memory = (size_t)8 << 30;
    // The device is lost at this launch; 0: never.
    uint64_t lost_at_launch = 0;

  private:
    struct Allocation {
        size_t bytes;
        char *base;
    };
    std::map<uint64_t, Allocation> allocations;
    std::map<void *, size_t> host_allocations;
    std::map<void *, std::unique_ptr<Stream>> streams;
    bool guard_intact(const Allocation &allocation) const;
};

Device &device();
// Held for the length of an entry point.
struct Entry {
    std::lock_guard<std::recursive_mutex> held;
    Entry() : held(device().lock) {}
};
} // namespace fake
