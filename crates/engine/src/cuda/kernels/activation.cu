// GELU with the exact normal distribution and QuickGELU, with the bias of the linear map before them, and their slopes.
//
// Matrices are [rows, columns] with a stride between rows, bias [columns]. One block a row: grid (rows), up to 256 threads, no
// shared memory.
#include "dialect.h"

// Distribution function Φ and density of the standard normal distribution. erfc keeps the tail's relative precision.
__device__ inline float below(float x) { return 0.5f * erfcf(-0.707106781f * x); }
__device__ inline float density(float x) { return 0.398942280f * expf(-0.5f * x * x); }

struct Gelu {
    static __device__ inline float value(float x) { return x * below(x); }
    static __device__ inline float slope(float x) { return below(x) + x * density(x); }
};

#define QUICK 1.702f
struct QuickGelu {
    static __device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
    static __device__ inline float value(float x) { return x * sigmoid(QUICK * x); }
    static __device__ inline float slope(float x) {
        float s = sigmoid(QUICK * x);
        return s + QUICK * x * s * (1.0f - s);
    }
};

template <class F> __device__ inline void forward(const float *x, int x_stride, const float *bias, float *y, int y_stride, int columns) {
    const float *from = row_at(x, blockIdx.x, x_stride);
    float *to = row_at(y, blockIdx.x, y_stride);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) to[i] = F::value(from[i] + bias[i]);
}

template <class F> __device__ inline void backward(const float *x, int x_stride, const float *bias, float *dy, int dy_stride, int columns) {
    const float *from = row_at(x, blockIdx.x, x_stride);
    float *to = row_at(dy, blockIdx.x, dy_stride);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) to[i] *= F::slope(from[i] + bias[i]);
}

// y = v·Φ(v) with v = x + bias. Overwrites y, which may be x.
KERNEL(gelu_forward, 256)(const float *x, int x_stride, const float *bias, float *y, int y_stride, int columns) {
    forward<Gelu>(x, x_stride, bias, y, y_stride, columns);
}

// dy ∘= Φ(v) + v·φ(v) with v = x + bias: turns the gradient of y into that of x, in place.
KERNEL(gelu_backward, 256)(const float *x, int x_stride, const float *bias, float *dy, int dy_stride, int columns) {
    backward<Gelu>(x, x_stride, bias, dy, dy_stride, columns);
}

// y = v·σ(1.702·v) with v = x + bias. Overwrites y, which may be x.
KERNEL(quick_gelu_forward, 256)(const float *x, int x_stride, const float *bias, float *y, int y_stride, int columns) {
    forward<QuickGelu>(x, x_stride, bias, y, y_stride, columns);
}

// dy ∘= s + 1.702·v·s·(1 − s) with v = x + bias and s = σ(1.702·v), in place.
KERNEL(quick_gelu_backward, 256)(const float *x, int x_stride, const float *bias, float *dy, int dy_stride, int columns) {
    backward<QuickGelu>(x, x_stride, bias, dy, dy_stride, columns);
}

REGISTER(gelu_forward)
REGISTER(gelu_backward)
REGISTER(quick_gelu_forward)
REGISTER(quick_gelu_backward)
