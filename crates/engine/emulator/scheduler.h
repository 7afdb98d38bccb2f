// Runs a launch: blocks one after another, the threads of a block as fibers that meet at barriers, shuffles and products of a
// warp. Not for several host threads at once.
#pragma once
#include <cstdint>
#include <string>

namespace emulator {
// In which order threads run between two meetings. Results must not depend on it.
enum class Order { Forward, Backward, Random };

struct Shape {
    unsigned x = 1, y = 1, z = 1;
    uint64_t count() const { return (uint64_t)x * y * z; }
};

// Empty where the launch went well, else what went wrong: a name or a shape that a device would refuse, or threads that wait
// for each other in vain.
std::string launch(const std::string &name, Shape grid, unsigned threads, size_t dynamic_bytes, void **arguments, Order order = Order::Forward,
                   uint64_t seed = 0);
} // namespace emulator
