// Kernels with faults, compiled as the real ones are: the emulator and the sanitizers must find them. See tests/emulator.cc.
#include "dialect.h"

// Each thread reads what its neighbour writes, without a barrier.
KERNEL(faulty_race, 64)(float *out) {
    SHARED(float, values, 64);
    values[threadIdx.x] = (float)threadIdx.x;
    out[threadIdx.x] = values[threadIdx.x ^ 33];
}

// Two blocks write one value.
KERNEL(faulty_blocks, 32)(float *out) {
    if (threadIdx.x == 0) out[0] = (float)blockIdx.x;
}

// One value past the end of shared memory.
KERNEL(faulty_overflow, 32)(float *out) {
    SHARED(float, values, 31);
    values[threadIdx.x] = 1.0f;
    out[threadIdx.x] = values[threadIdx.x];
}

// A sum of ints that does not fit.
KERNEL(faulty_integer, 32)(int *out) { out[threadIdx.x] += 2147483647; }

// Half of the threads meet at another barrier.
KERNEL(faulty_barrier, 64)(int which) {
    if (threadIdx.x < 32 || which == 0) {
        __syncthreads();
    } else if (which == 1) {
        __syncthreads();
    }
}

// Half of a warp does not come.
KERNEL(faulty_shuffle, 32)(float *out) {
    float value = (float)threadIdx.x;
    if (threadIdx.x < 16) value = __shfl_xor_sync(ALL_LANES, value, 1);
    out[threadIdx.x] = value;
}

// What a lane gets, and what shared memory holds at the start.
KERNEL(faultless_lanes, 64)(float *exchanged, float *fresh) {
    SHARED(float, values, 64);
    exchanged[threadIdx.x] = __shfl_xor_sync(ALL_LANES, (float)threadIdx.x, 5);
    fresh[threadIdx.x] = values[threadIdx.x];
}

// c [16, 8] += a [16, 8] · b [8, 8], all row-major.
KERNEL(faultless_product, 32)(const float *a, const float *b, float *c) {
    int group = threadIdx.x / 4, member = threadIdx.x % 4;
    unsigned x[4] = {tf32(a[group * 8 + member]), tf32(a[(group + 8) * 8 + member]), tf32(a[group * 8 + member + 4]), tf32(a[(group + 8) * 8 + member + 4])};
    unsigned y[2] = {tf32(b[member * 8 + group]), tf32(b[(member + 4) * 8 + group])};
    float d[4];
    for (int i = 0; i < 4; i++) d[i] = c[(group + i / 2 * 8) * 8 + 2 * member + i % 2];
    mma_16x8x8(d, x, y);
    for (int i = 0; i < 4; i++) c[(group + i / 2 * 8) * 8 + 2 * member + i % 2] = d[i];
}

REGISTER(faulty_race)
REGISTER(faulty_blocks)
REGISTER(faulty_overflow)
REGISTER(faulty_integer)
REGISTER(faulty_barrier)
REGISTER(faulty_shuffle)
REGISTER(faultless_lanes)
REGISTER(faultless_product)
