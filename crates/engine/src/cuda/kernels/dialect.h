// The words that kernels are written in: CUDA C++ and a few macros, so that the same text is compiled by NVRTC for a GPU and
// by a C++ compiler for the emulator (crates/engine/emulator).
//
// KERNEL(name, threads)(parameters) { ... }   an entry point; blocks have at most `threads` threads, in x alone, whole warps
// SHARED(type, name, count);                  an array in the shared memory of the block
// SHARED_DYNAMIC(type, name);                 the shared memory whose size the launch says
// REGISTER(name)                              at the end of the file: makes the kernel known to the emulator
#pragma once

#ifdef EMULATED
#include "device.h"
#else
#define KERNEL(name, threads) extern "C" __global__ void __launch_bounds__(threads, 1) name
#define SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define SHARED_DYNAMIC(type, name)                         \
    extern __shared__ __align__(16) unsigned char bytes[]; \
    type *name = (type *)bytes
#define REGISTER(name)

// A value as tensor cores read it: 10 bits of fraction, to the nearest, ties away from zero.
__device__ inline unsigned tf32(float value) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}

// The same, made again at each use and never kept over a loop: saves registers where a fragment is split.
__device__ inline unsigned tf32_now(float value) {
    unsigned bits;
    asm volatile("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}

// The value of such bits.
__device__ inline float as_float(unsigned bits) { return __uint_as_float(bits); }

// One warp: d [16, 8] += a [16, 8] · b [8, 8]. With group = lane / 4 and member = lane % 4 a lane holds
//   a: (group, member), (group + 8, member), (group, member + 4), (group + 8, member + 4)
//   b: (member, group), (member + 4, group)
//   d: (group, 2·member), (group, 2·member + 1), (group + 8, 2·member), (group + 8, 2·member + 1)
__device__ inline void mma_16x8x8(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

#define ALL_LANES 0xffffffffu
#define LARGEST_FLOAT 3.402823466e38f

// Place of the thread among all threads of the launch, for kernels that treat values as one list.
__device__ inline size_t global_index() { return (size_t)blockIdx.x * blockDim.x + threadIdx.x; }

// Start of a row of a matrix whose rows start `stride` values apart.
template <class T> __device__ inline T *row_at(T *matrix, size_t row, int stride) { return matrix + row * (size_t)stride; }
