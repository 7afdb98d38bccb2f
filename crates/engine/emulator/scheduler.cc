// Compiled without -fsanitize=thread, so that only the kernels' accesses count in the race check.
#include "scheduler.h"
#include "device.h"
#include "fiber.h"
#include <algorithm>
#include <cstdlib>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

namespace emulator {
Place place;

namespace {
enum class State { Ready, AtBlock, AtWarp, Done };

struct Thread {
    Fiber fiber;
    State state = State::Ready;
    int line = 0;
    Coordinates index{};
};

// What a lane leaves for the others: a value to shuffle or its fragments.
struct alignas(8) Slot {
    unsigned words[6];
};

struct Warp {
    // By turns, since a lane may leave its next value before another has read this one.
    Slot slots[2][32];
    unsigned turn[32] = {};
};

// One byte each for the race check: threads of a block at a barrier, lanes of a warp, start and end of the launch.
char block_token, start_token, end_token;

struct Launch {
    const Kernel *kernel = nullptr;
    void **arguments = nullptr;
    Order order = Order::Forward;
    uint64_t random = 0;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::vector<char> warp_tokens;
    std::vector<std::pair<void *, size_t>> shared;
    void *dynamic = nullptr;
    size_t dynamic_bytes = 0;
    size_t running = 0;
    std::string failure;
};
Launch now;

uint64_t draw(uint64_t bound) {
    now.random = now.random * 6364136223846793005ull + 1442695040888963407ull;
    return (now.random >> 33) % bound;
}

// Not memset and memcpy, which sanitizers watch.
void fill_with_nan(void *memory, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) ((volatile unsigned char *)memory)[i] = 0xff;
}

#if defined(EMULATOR_TSAN)
// Fresh pages for each block: the race check knows no order between blocks, and memory that is freed and given out again
// would look shared. A raw call, since TSan takes its own mmap for a write by the thread that happens to come first; its
// munmap makes it forget whole pages.
void *take(size_t bytes) {
    long memory = syscall(SYS_mmap, nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);
    return memory == -1 ? nullptr : (void *)memory;
}
void give_back(void *memory, size_t bytes) { munmap(memory, (bytes + 4095) / 4096 * 4096); }
#else
// Exactly this long, so that ASan's red zones begin at once.
void *take(size_t bytes) {
    void *memory = nullptr;
    return posix_memalign(&memory, 16, bytes) ? nullptr : memory;
}
void give_back(void *memory, size_t) { free(memory); }
#endif

void wait(State state, int line) {
    Thread &own = now.threads[now.running];
    own.state = state;
    own.line = line;
    leave(own.fiber, false);
}

void thread_body() {
    arrived();
    acquire(&start_token);
    now.kernel->body(now.arguments);
    release(&end_token);
    Thread &own = now.threads[now.running];
    own.state = State::Done;
    leave(own.fiber, true);
    abort();
}

void resume(size_t index) {
    now.running = index;
    place.thread = now.threads[index].index;
    enter(now.threads[index].fiber);
}

bool fail(const std::string &why) {
    if (now.failure.empty()) now.failure = why;
    return false;
}

// The lanes' slots of this meeting, when all lanes have come.
const Slot *meet(const Slot &own, unsigned lanes, int line) {
    if (lanes != 0xffffffffu) fail("line " + std::to_string(line) + ": only whole warps are emulated");
    Warp &warp = now.warps[now.running / 32];
    size_t lane = now.running % 32;
    unsigned turn = warp.turn[lane]++ % 2;
    for (int i = 0; i < 6; i++) warp.slots[turn][lane].words[i] = own.words[i];
    wait(State::AtWarp, line);
    return now.warps[now.running / 32].slots[turn];
}

enum class Progress { Met, Stopped, Failed };

// Lets the lanes of a warp run to their next meeting. Met: they may go on. Stopped: all are at a barrier or have ended.
Progress run_warp(size_t warp) {
    size_t first = warp * 32, order[32];
    for (size_t i = 0; i < 32; i++) order[i] = now.order == Order::Backward ? 31 - i : i;
    if (now.order == Order::Random)
        for (size_t i = 31; i > 0; i--) std::swap(order[i], order[draw(i + 1)]);
    for (size_t lane : order)
        if (now.threads[first + lane].state == State::Ready) resume(first + lane);
    int waiting = 0, line = 0;
    for (size_t i = first; i < first + 32; i++)
        if (now.threads[i].state == State::AtWarp) {
            waiting++;
            line = now.threads[i].line;
        }
    if (!waiting) return Progress::Stopped;
    for (size_t i = first; i < first + 32; i++)
        if (now.threads[i].state != State::AtWarp || now.threads[i].line != line) {
            fail("divergence: line " + std::to_string(line) + ": " + std::to_string(waiting) + " lanes of a warp wait there, others are elsewhere");
            return Progress::Failed;
        }
    for (size_t i = first; i < first + 32; i++) now.threads[i].state = State::Ready;
    return Progress::Met;
}

// Until all threads wait at a barrier or have ended.
bool run_to_barrier() {
    size_t count = now.warps.size();
    std::vector<size_t> open(count);
    for (size_t i = 0; i < count; i++) open[i] = now.order == Order::Backward ? i : count - 1 - i;
    while (!open.empty()) {
        size_t at = now.order == Order::Random ? draw(open.size()) : open.size() - 1;
        switch (run_warp(open[at])) {
        case Progress::Met:
            break;
        case Progress::Stopped:
            open.erase(open.begin() + (long)at);
            break;
        case Progress::Failed:
            return false;
        }
    }
    return now.failure.empty();
}

bool run_block() {
    for (;;) {
        if (!run_to_barrier()) return false;
        size_t ended = 0, elsewhere = 0;
        int line = 0;
        for (const Thread &thread : now.threads) {
            if (thread.state == State::Done) ended++;
            else if (line == 0) line = thread.line;
            else elsewhere += thread.line != line;
        }
        if (ended == now.threads.size()) return true;
        if (ended > 0)
            return fail("divergence: the barrier of line " + std::to_string(line) + " waits for " + std::to_string(ended) +
                        " threads that have ended");
        if (elsewhere > 0) return fail("divergence: threads wait at the barrier of line " + std::to_string(line) + " and at others");
        for (Thread &thread : now.threads) thread.state = State::Ready;
    }
}

std::string refusal(const std::string &name, const Kernel *kernel, Shape grid, unsigned threads, size_t dynamic_bytes) {
    if (!kernel) return "there is no kernel " + name;
    auto wrong = [&](const std::string &what) { return name + ": " + what; };
    if (grid.count() == 0) return wrong("a grid without blocks");
    if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) return wrong("a grid that is too large");
    if (threads == 0 || threads % 32 != 0) return wrong("blocks of " + std::to_string(threads) + " threads, which are no whole warps");
    if (threads > kernel->largest_block)
        return wrong("blocks of " + std::to_string(threads) + " threads, more than " + std::to_string(kernel->largest_block));
    if (dynamic_bytes > 48 << 10) return wrong("more than 48 KiB of dynamic shared memory");
    return "";
}

void start_block(Shape grid, uint64_t block, char *stacks, unsigned threads) {
    place.block = {(unsigned)(block % grid.x), (unsigned)(block / grid.x % grid.y), (unsigned)(block / grid.x / grid.y)};
    place.block_size = {threads, 1, 1};
    place.grid = {grid.x, grid.y, grid.z};
    now.threads.assign(threads, Thread());
    now.warps.assign(threads / 32, Warp());
    for (unsigned i = 0; i < threads; i++) {
        now.threads[i].index = {i, 0, 0};
        prepare(now.threads[i].fiber, stacks + STACK * i, thread_body);
    }
    now.dynamic = nullptr;
    if (now.dynamic_bytes) {
        now.dynamic = take(now.dynamic_bytes);
        if (!now.dynamic) abort();
        fill_with_nan(now.dynamic, now.dynamic_bytes);
    }
    release(&start_token);
}

void end_block() {
    for (auto &[memory, bytes] : now.shared)
        if (memory) give_back(memory, bytes);
    now.shared.clear();
    if (now.dynamic) give_back(now.dynamic, now.dynamic_bytes);
    for (Thread &thread : now.threads) dispose(thread.fiber);
}
} // namespace

void block_barrier(int line) {
    release(&block_token);
    wait(State::AtBlock, line);
    acquire(&block_token);
}

void warp_barrier(unsigned lanes, int line) {
    void *token = &now.warp_tokens[now.running / 32];
    release(token);
    meet(Slot(), lanes, line);
    acquire(token);
}

// A shuffle orders no memory, so the race check hears nothing about it.
void shuffle(unsigned lanes, void *value, size_t size, int source, int line) {
    Slot own = {};
    size_t words = size / 4;
    for (size_t i = 0; i < words; i++) own.words[i] = ((volatile unsigned *)value)[i];
    const Slot *all = meet(own, lanes, line);
    for (size_t i = 0; i < words; i++) ((volatile unsigned *)value)[i] = all[source & 31].words[i];
}

void multiply_16x8x8(float *d, const unsigned *a, const unsigned *b, int line) {
    Slot own;
    for (int i = 0; i < 4; i++) own.words[i] = ((const volatile unsigned *)a)[i];
    for (int i = 0; i < 2; i++) own.words[4 + i] = ((const volatile unsigned *)b)[i];
    size_t lane = now.running % 32;
    const Slot *all = meet(own, 0xffffffffu, line);
    // The instruction reads the upper 19 bits of each operand.
    auto number = [](unsigned bits) {
        float value;
        bits &= 0xffffe000u;
        __builtin_memcpy(&value, &bits, sizeof value);
        return value;
    };
    size_t group = lane / 4, member = lane % 4;
    for (size_t i = 0; i < 4; i++) {
        size_t row = group + i / 2 * 8, column = 2 * member + i % 2;
        float sum = 0.0f;
        for (size_t k = 0; k < 8; k++)
            sum += number(all[row % 8 * 4 + k % 4].words[row / 8 + k / 4 * 2]) * number(all[column * 4 + k % 4].words[4 + k / 4]);
        ((volatile float *)d)[i] = ((volatile float *)d)[i] + sum;
    }
}

void *shared_array(int place_in_text, size_t bytes) {
    if (now.shared.size() <= (size_t)place_in_text) now.shared.resize((size_t)place_in_text + 1, {nullptr, 0});
    auto &own = now.shared[(size_t)place_in_text];
    if (!own.first) {
        own = {take(bytes), bytes};
        if (!own.first) abort();
        fill_with_nan(own.first, bytes);
    }
    return own.first;
}

void *dynamic_shared() { return now.dynamic; }

// Stacks for the next block.
#if defined(EMULATOR_TSAN)
// New ones for each: the race check knows no order between blocks.
static char *stacks_for(unsigned threads) { return make_stacks(threads); }
static void done_with(char *stacks, unsigned threads, bool) { free_stacks(stacks, threads); }
#else
static char *kept_stacks;
static unsigned kept_count;

static char *stacks_for(unsigned threads) {
    if (kept_count < threads) {
        if (kept_stacks) free_stacks(kept_stacks, kept_count);
        kept_stacks = make_stacks(threads);
        kept_count = threads;
    }
    return kept_stacks;
}
// After a failure they may be poisoned and are never used again.
static void done_with(char *, unsigned, bool good) {
    if (!good) kept_stacks = nullptr, kept_count = 0;
}
#endif

std::string launch(const std::string &name, Shape grid, unsigned threads, size_t dynamic_bytes, void **arguments, Order order, uint64_t seed) {
    const Kernel *kernel = find_kernel(name);
    std::string refused = refusal(name, kernel, grid, threads, dynamic_bytes);
    if (!refused.empty()) return refused;
    now.kernel = kernel;
    now.arguments = arguments;
    now.order = order;
    now.random = seed * 2 + 1;
    now.dynamic_bytes = dynamic_bytes;
    now.failure.clear();
    now.warp_tokens.assign(32, 0);
    for (uint64_t block = 0; block < grid.count(); block++) {
        char *stacks = stacks_for(threads);
        start_block(grid, order == Order::Backward ? grid.count() - 1 - block : block, stacks, threads);
        bool good = run_block();
        end_block();
        done_with(stacks, threads, good);
        if (!good) return name + ": " + now.failure;
    }
    acquire(&end_token);
    return "";
}
} // namespace emulator
