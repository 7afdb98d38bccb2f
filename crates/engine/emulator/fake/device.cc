#include "device.h"
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace fake {
// Before and after every allocation, in whole words: NaN, so that reading it shows in values, and known, so that writing it is
// found.
static const size_t GUARD = 1024;
static const uint32_t MARK = 0x7fedcafe;

static void mark(char *base, size_t first, size_t last) {
    for (size_t i = (first + 3) / 4 * 4; i + 4 <= last; i += 4) memcpy(base + i, &MARK, 4);
}
static bool marked(const char *base, size_t first, size_t last) {
    for (size_t i = (first + 3) / 4 * 4; i + 4 <= last; i += 4)
        if (memcmp(base + i, &MARK, 4)) return false;
    return true;
}

Device &device() {
    static Device *one = [] {
        auto *made = new Device;
        if (const char *bytes = getenv("EMULATOR_MEMORY")) made->memory = strtoull(bytes, nullptr, 10);
        return made;
    }();
    return *one;
}

void Device::fail(Result result, const std::string &why) {
    fprintf(stderr, "emulated device: %s\n", why.c_str());
    if (fault == SUCCESS) fault = result;
}

Result Device::allocate(uint64_t *address, size_t bytes) {
    if (bytes == 0) return INVALID_VALUE;
    if (counts[BYTES_IN_USE] + bytes > memory) return OUT_OF_MEMORY;
    size_t padded = (bytes + 255) / 256 * 256;
    char *base = (char *)aligned_alloc(256, GUARD + padded + GUARD);
    if (!base) return OUT_OF_MEMORY;
    memset(base + GUARD, 0xff, padded); // NaN: nothing may be read before it is written
    mark(base, 0, GUARD);
    mark(base, GUARD + bytes, GUARD + padded + GUARD);
    *address = (uint64_t)(base + GUARD);
    allocations[*address] = {bytes, base};
    counts[ALLOCATIONS]++;
    counts[BYTES_IN_USE] += bytes;
    if (counts[BYTES_IN_USE] > counts[MOST_BYTES_IN_USE]) counts[MOST_BYTES_IN_USE] = counts[BYTES_IN_USE];
    return SUCCESS;
}

bool Device::guard_intact(const Allocation &allocation) const {
    size_t padded = (allocation.bytes + 255) / 256 * 256;
    return marked(allocation.base, 0, GUARD) && marked(allocation.base, GUARD + allocation.bytes, GUARD + padded + GUARD);
}

bool Device::guards_intact() {
    for (const auto &[address, allocation] : allocations)
        if (!guard_intact(allocation)) {
            fail(ILLEGAL_ADDRESS, "memory next to an allocation of " + std::to_string(allocation.bytes) + " bytes was written");
            return false;
        }
    return true;
}

Result Device::release(uint64_t address) {
    auto found = allocations.find(address);
    if (found == allocations.end()) return INVALID_VALUE;
    if (!guard_intact(found->second))
        fail(ILLEGAL_ADDRESS, "memory next to an allocation of " + std::to_string(found->second.bytes) + " bytes was written");
    counts[BYTES_IN_USE] -= found->second.bytes;
    free(found->second.base);
    allocations.erase(found);
    return SUCCESS;
}

bool Device::holds(uint64_t address, size_t bytes) const {
    auto after = allocations.upper_bound(address);
    if (after == allocations.begin()) return false;
    const auto &[start, allocation] = *--after;
    return address + bytes <= start + allocation.bytes;
}

Stream *Device::stream(void *handle) {
    auto found = streams.find(handle);
    if (found != streams.end()) return found->second.get();
    // The default stream is there from the start.
    if (handle == nullptr) return (streams[nullptr] = std::make_unique<Stream>()).get();
    return nullptr;
}

void *Device::add_stream() {
    auto made = std::make_unique<Stream>();
    void *handle = made.get();
    streams[handle] = std::move(made);
    return handle;
}

void Device::remove_stream(void *handle) {
    if (Stream *own = stream(handle)) run(*own);
    streams.erase(handle);
}

Result Device::enqueue(void *handle, Work work) {
    if (fault) return fault;
    Stream *own = stream(handle);
    if (!own) return INVALID_HANDLE;
    if (own->invalidated) return CAPTURE_INVALIDATED;
    if (own->capture) own->capture->work.push_back(std::move(work));
    else own->queue.push_back(std::move(work));
    return SUCCESS;
}

void Device::run(Stream &own) {
    while (!own.queue.empty()) {
        Work work = std::move(own.queue.front());
        own.queue.pop_front();
        if (!fault) work();
    }
}

void Device::run_all() {
    for (auto &entry : streams) run(*entry.second);
}

bool Device::capturing() const {
    for (const auto &entry : streams)
        if (entry.second->capture) return true;
    return false;
}

Result Device::forbidden_by_captures() {
    Result result = SUCCESS;
    for (auto &entry : streams) {
        Stream &own = *entry.second;
        bool ours = own.mode == CaptureMode::Global || (own.mode == CaptureMode::ThreadLocal && own.capturing == std::this_thread::get_id());
        if (!own.capture || !ours) continue;
        own.invalidated = true;
        result = CAPTURE_UNSUPPORTED;
    }
    return result;
}

void Device::record(const std::shared_ptr<Event> &event, void *handle) {
    event->stream = stream(handle);
    event->recorded = false;
    enqueue(handle, [event] {
        event->recorded = true;
        event->seconds = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    });
}

void Device::wait_for(Event &event) {
    // Work before the event is done, what came after it stays.
    while (!event.recorded && event.stream && !event.stream->queue.empty()) {
        Work work = std::move(event.stream->queue.front());
        event.stream->queue.pop_front();
        if (!fault) work();
        else event.recorded = true;
    }
}

void *Device::allocate_host(size_t bytes) {
    void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (memory) host_allocations[memory] = bytes;
    return memory;
}

void Device::free_host(void *memory) {
    run_all();
    host_allocations.erase(memory);
    free(memory);
}

bool Device::pinned(const void *memory) const {
    auto after = host_allocations.upper_bound((void *)memory);
    if (after == host_allocations.begin()) return false;
    const auto &[start, bytes] = *--after;
    return (const char *)memory < (const char *)start + bytes;
}
} // namespace fake
