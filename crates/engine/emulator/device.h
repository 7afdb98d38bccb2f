// CUDA C++ as plain C++, for kernels compiled with EMULATED: each thread of a block is a fiber, blocks run one after another.
// Kernels see this header alone of the emulator; what it calls is in scheduler.cc, out of sight of the sanitizers.
#pragma once
#include "registry.h"
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict

namespace emulator {
struct Coordinates {
    unsigned x, y, z;
};
// Which thread runs; set before each fiber continues.
struct Place {
    Coordinates thread, block, block_size, grid;
};
extern Place place;

// All threads of the block meet. `line` tells barriers apart, so that threads at different ones are reported.
void block_barrier(int line);
void warp_barrier(unsigned lanes, int line);
// The lanes of a warp meet; `value` (4 or 8 bytes) becomes that of lane `source`.
void shuffle(unsigned lanes, void *value, size_t size, int source, int line);
void multiply_16x8x8(float *d, const unsigned *a, const unsigned *b, int line);
// Memory of the block at one place of the text: an allocation of exactly this size, filled with NaN when the block starts.
void *shared_array(int place_in_text, size_t bytes);
void *dynamic_shared();
} // namespace emulator

#define threadIdx (emulator::place.thread)
#define blockIdx (emulator::place.block)
#define blockDim (emulator::place.block_size)
#define gridDim (emulator::place.grid)

#define KERNEL(name, threads)                                                                                                                        \
    static constexpr unsigned name##_largest_block = (threads);                                                                                      \
    static void name
#define SHARED(type, name, count) type *name = (type *)emulator::shared_array(__COUNTER__, sizeof(type) * (count))
#define SHARED_DYNAMIC(type, name) type *name = (type *)emulator::dynamic_shared()
#define REGISTER(name) static const bool name##_registered = emulator::add_kernel<name>(#name, name##_largest_block, __FILE__);

#define __syncthreads() emulator::block_barrier(__LINE__)
#define __syncwarp() emulator::warp_barrier(0xffffffffu, __LINE__)
#define __shfl_xor_sync(lanes, value, bits) emulator::shuffled(lanes, value, emulator::lane() ^ (bits), __LINE__)
#define __shfl_sync(lanes, value, source) emulator::shuffled(lanes, value, (source), __LINE__)
#define mma_16x8x8(d, a, b) emulator::multiply_16x8x8(d, a, b, __LINE__)

namespace emulator {
// Blocks have threads in x alone.
inline int lane() { return (int)(place.thread.x % 32); }
template <class T> T shuffled(unsigned lanes, T value, int source, int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    shuffle(lanes, &value, sizeof(T), source, line);
    return value;
}
// Relaxed, as on the device: an atomic orders nothing else.
template <class F> int exchange_atomically(int *target, F next) {
    int old = __atomic_load_n(target, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(target, &old, next(old), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
} // namespace emulator

inline int atomicOr(int *target, int bits) { return __atomic_fetch_or(target, bits, __ATOMIC_RELAXED); }
inline int atomicMin(int *target, int value) {
    return emulator::exchange_atomically(target, [=](int old) { return old < value ? old : value; });
}
inline int atomicMax(int *target, int value) {
    return emulator::exchange_atomically(target, [=](int old) { return old > value ? old : value; });
}

inline float __expf(float x) { return expf(x); }

// As the instruction rounds: to nearest, ties away from zero, 10 bits of fraction; infinities and NaN stay.
inline unsigned tf32(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7f800000u) != 0x7f800000u) bits = (bits + 0x1000u) & 0xffffe000u;
    return bits;
}
inline unsigned tf32_now(float value) { return tf32(value); }
inline float as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
