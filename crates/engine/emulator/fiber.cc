#include "fiber.h"
#include <cstdint>
#include <cstdlib>
#include <sys/mman.h>
// Elsewhere than on x86-64 the C library changes stacks, which asks the kernel each time and is some ten times slower.
#if !defined(__x86_64__)
#define EMULATOR_UCONTEXT
#endif
#if defined(EMULATOR_UCONTEXT)
#include <ucontext.h>
#endif

#if defined(EMULATOR_TSAN)
extern "C" {
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void *fiber);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
void __tsan_acquire(void *token);
void __tsan_release(void *token);
}
#endif
#if defined(EMULATOR_ASAN)
extern "C" {
void __sanitizer_start_switch_fiber(void **fake_stack, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *fake_stack, const void **bottom, size_t *size);
}
#endif

#if !defined(EMULATOR_UCONTEXT)
// Keeps the six registers that a call preserves on the old stack, changes stacks, takes them from the new one.
asm(R"(
.text
.globl emulator_switch_stacks
.type emulator_switch_stacks, @function
emulator_switch_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
extern "C" void emulator_switch_stacks(void **keep, void *to);
#endif

namespace emulator {
static Fiber host;
static const void *host_bottom;
static size_t host_size;

char *make_stacks(size_t count) {
    void *memory = mmap(nullptr, STACK * count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) abort();
    return (char *)memory;
}

void free_stacks(char *stacks, size_t count) { munmap(stacks, STACK * count); }

#if !defined(EMULATOR_UCONTEXT)
static void prepare_stack(Fiber &fiber, void (*entry)()) {
    uintptr_t top = ((uintptr_t)fiber.stack + STACK) & ~(uintptr_t)15;
    void **at = (void **)top - 1; // as after a call: the return address 8 bytes below a multiple of 16
    *at = nullptr;
    *--at = (void *)entry;
    at -= 6;
    fiber.stack_pointer = at;
}
static void switch_stacks(Fiber &from, Fiber &to) { emulator_switch_stacks(&from.stack_pointer, to.stack_pointer); }
#else
static void prepare_stack(Fiber &fiber, void (*entry)()) {
    ucontext_t *context = new ucontext_t;
    getcontext(context);
    context->uc_stack.ss_sp = fiber.stack;
    context->uc_stack.ss_size = STACK;
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
    fiber.stack_pointer = context;
}
static void switch_stacks(Fiber &from, Fiber &to) {
    if (!from.stack_pointer) from.stack_pointer = new ucontext_t;
    swapcontext((ucontext_t *)from.stack_pointer, (ucontext_t *)to.stack_pointer);
}
#endif

void prepare(Fiber &fiber, char *stack, void (*entry)()) {
    fiber = Fiber();
    fiber.stack = stack;
    prepare_stack(fiber, entry);
#if defined(EMULATOR_TSAN)
    fiber.race_checker = __tsan_create_fiber(0);
#endif
}

void dispose(Fiber &fiber) {
#if defined(EMULATOR_TSAN)
    __tsan_destroy_fiber(fiber.race_checker);
#endif
#if defined(EMULATOR_UCONTEXT)
    delete (ucontext_t *)fiber.stack_pointer;
#endif
    fiber = Fiber();
}

void enter(Fiber &fiber) {
#if defined(EMULATOR_TSAN)
    host.race_checker = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(fiber.race_checker, 1); // 1: the switch itself orders nothing
#endif
#if defined(EMULATOR_ASAN)
    __sanitizer_start_switch_fiber(&host.fake_stack, fiber.stack, STACK);
#endif
    switch_stacks(host, fiber);
#if defined(EMULATOR_ASAN)
    __sanitizer_finish_switch_fiber(host.fake_stack, nullptr, nullptr);
#endif
}

void leave(Fiber &fiber, bool for_good) {
#if defined(EMULATOR_ASAN)
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fiber.fake_stack, host_bottom, host_size);
#endif
#if defined(EMULATOR_TSAN)
    __tsan_switch_to_fiber(host.race_checker, 1);
#endif
    (void)for_good;
    switch_stacks(fiber, host);
#if defined(EMULATOR_ASAN)
    __sanitizer_finish_switch_fiber(fiber.fake_stack, nullptr, nullptr);
#endif
}

void arrived() {
#if defined(EMULATOR_ASAN)
    __sanitizer_finish_switch_fiber(nullptr, &host_bottom, &host_size);
#endif
    (void)host_bottom;
    (void)host_size;
}

#if defined(EMULATOR_TSAN)
void release(void *token) { __tsan_release(token); }
void acquire(void *token) { __tsan_acquire(token); }
#else
void release(void *) {}
void acquire(void *) {}
#endif
} // namespace emulator
