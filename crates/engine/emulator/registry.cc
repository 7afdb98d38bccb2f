#include "registry.h"
#include <cstdio>
#include <cstdlib>
#include <map>

namespace emulator {
// Filled by constructors of static objects, so made at the first use.
static std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

const Kernel *find_kernel(const std::string &name) {
    auto found = kernels().find(name);
    return found == kernels().end() ? nullptr : &found->second;
}

std::vector<std::string> kernel_names() {
    std::vector<std::string> names;
    for (const auto &entry : kernels()) names.push_back(entry.first);
    return names;
}

void add_kernel(const char *name, Kernel kernel) {
    if (!kernels().emplace(name, std::move(kernel)).second) {
        fprintf(stderr, "emulator: two kernels are called %s\n", name);
        abort();
    }
}

const char *kind_name(Kind kind) {
    switch (kind) {
    case Kind::Pointer:
        return "pointer";
    case Kind::Int:
        return "int";
    case Kind::Unsigned:
        return "unsigned";
    case Kind::LongLong:
        return "long long";
    case Kind::Float:
        return "float";
    case Kind::Double:
        return "double";
    }
    return "?";
}
} // namespace emulator
