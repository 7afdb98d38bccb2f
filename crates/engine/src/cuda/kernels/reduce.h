// Sums, largest values and counts over a block, in an order that does not depend on which thread comes first.
#pragma once
#include "dialect.h"

// Most warps of a block that reduces.
#define MOST_WARPS 8

// Each of `values` becomes its sum over the block, in every thread. `partial` [COUNT · MOST_WARPS] is in shared memory and
// free again afterwards. Lanes by halving distances, then warps in order.
template <int COUNT, class T> __device__ inline void block_sum(T (&values)[COUNT], T *partial) {
    for (int distance = 16; distance > 0; distance /= 2)
        for (int i = 0; i < COUNT; i++) values[i] += __shfl_xor_sync(ALL_LANES, values[i], distance);
    int warp = threadIdx.x / 32, warps = blockDim.x / 32;
    if (threadIdx.x % 32 == 0)
        for (int i = 0; i < COUNT; i++) partial[warp * COUNT + i] = values[i];
    __syncthreads();
    for (int i = 0; i < COUNT; i++) {
        T sum = 0;
        for (int other = 0; other < warps; other++) sum += partial[other * COUNT + i];
        values[i] = sum;
    }
    __syncthreads();
}

// The largest `value` of the block, in every thread. `partial` [MOST_WARPS] as above.
__device__ inline float block_maximum(float value, float *partial) {
    for (int distance = 16; distance > 0; distance /= 2) value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, distance));
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    value = partial[0];
    for (int other = 1; other < (int)blockDim.x / 32; other++) value = fmaxf(value, partial[other]);
    __syncthreads();
    return value;
}
