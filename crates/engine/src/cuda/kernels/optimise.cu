// Adam as PyTorch computes it, in the order of its single-tensor step, with the clamp to the valid range of pixels.
#include "dialect.h"

// slope = gradient + weight_decay·value; first += first_share·(slope − first); second = second·decay + second_share·slope²;
// value += step[0]·first/(√second/step[1] + epsilon), then clamped as clamp_pixels where `limits` [channels, 2] is given.
// step [2] in device memory, since it changes from step to step: −learning rate/(1 − β₁ⁿ) and √(1 − β₂ⁿ). first_share = 1 − β₁,
// decay = β₂, second_share = 1 − β₂. Nothing changes where flags[0] is not 0 (flags may be null): a gradient was not finite.
// Changes values, first and second, [count] each; `plane` values of a channel. grid (⌈count/threads⌉), up to 256 threads, no shared
// memory.
KERNEL(adam, 256)
(float *values, const float *gradient, float *first, float *second, long long count, const float *step, float first_share, float decay,
 float second_share, float epsilon, float weight_decay, const int *flags, const float *limits, int plane, int channels) {
    size_t i = global_index();
    if (i >= (size_t)count || (flags && flags[0])) return;
    float value = values[i], slope = gradient[i] + weight_decay * value;
    float mean = first[i] + first_share * (slope - first[i]);
    float square = second[i] * decay + second_share * slope * slope;
    value += step[0] * mean / (sqrtf(square) / step[1] + epsilon);
    if (limits) {
        const float *own = limits + i / plane % channels * 2;
        value = value < own[0] ? own[0] : value > own[1] ? own[1] : value;
    }
    first[i] = mean;
    second[i] = square;
    values[i] = value;
}

REGISTER(adam)
