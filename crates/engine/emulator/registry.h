// Kernels by name: how they are called with an array of pointers to arguments, as a driver calls them, and what types their
// arguments have, so that a wrong launch is a message.
#pragma once
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace emulator {
enum class Kind { Pointer, Int, Unsigned, LongLong, Float, Double };

struct Argument {
    Kind kind;
    size_t size;
};

struct Kernel {
    void (*body)(void **arguments);
    std::vector<Argument> arguments;
    unsigned largest_block;
    std::string file; // such as norm.cu
};

// nullptr where no kernel has this name.
const Kernel *find_kernel(const std::string &name);
std::vector<std::string> kernel_names();
void add_kernel(const char *name, Kernel kernel);
const char *kind_name(Kind kind);

template <class T> constexpr Kind kind_of() {
    if constexpr (std::is_pointer_v<T>) return Kind::Pointer;
    else if constexpr (std::is_same_v<T, int>) return Kind::Int;
    else if constexpr (std::is_same_v<T, unsigned>) return Kind::Unsigned;
    else if constexpr (std::is_same_v<T, long long>) return Kind::LongLong;
    else if constexpr (std::is_same_v<T, float>) return Kind::Float;
    else {
        static_assert(std::is_same_v<T, double>, "a kernel's argument of a type that the emulator does not know");
        return Kind::Double;
    }
}

template <auto function> struct Caller;
template <class... A, void (*function)(A...)> struct Caller<function> {
    template <size_t... I> static void unpack(void **arguments, std::index_sequence<I...>) { function(*(A *)arguments[I]...); }
    static void call(void **arguments) { unpack(arguments, std::index_sequence_for<A...>{}); }
    static std::vector<Argument> arguments() { return {Argument{kind_of<A>(), sizeof(A)}...}; }
};

template <auto function> bool add_kernel(const char *name, unsigned largest_block, const char *path) {
    std::string file = path;
    add_kernel(name, Kernel{Caller<function>::call, Caller<function>::arguments(), largest_block, file.substr(file.rfind('/') + 1)});
    return true;
}
} // namespace emulator
