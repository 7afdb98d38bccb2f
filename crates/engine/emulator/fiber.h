// Fibers: threads of a block that give the processor to each other by hand. Tells ASan (EMULATOR_ASAN) and TSan
// (EMULATOR_TSAN) about every switch.
#pragma once
#include <cstddef>

namespace emulator {
struct Fiber {
    char *stack = nullptr;
    void *stack_pointer = nullptr;
    void *race_checker = nullptr;
    void *fake_stack = nullptr;
};

// Reports of sanitizers need far more than kernels do.
constexpr size_t STACK = 256 << 10;

// Memory for `count` stacks; gone with free_stacks, also for the race check.
char *make_stacks(size_t count);
void free_stacks(char *stacks, size_t count);

// `fiber` will run `entry` on `stack`. `entry` ends with leave(fiber, true) and never returns.
void prepare(Fiber &fiber, char *stack, void (*entry)());
void dispose(Fiber &fiber);
// From the host into a fiber, until that fiber leaves.
void enter(Fiber &fiber);
void leave(Fiber &fiber, bool for_good);
// First call inside a new fiber.
void arrived();

// What the race check knows of order: all that came before a release of `token` comes before what follows its acquire.
void release(void *token);
void acquire(void *token);
} // namespace emulator
