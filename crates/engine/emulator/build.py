"""Builds the tests of the kernels with the emulator: plain, with ASan and UBSan, with TSan; and the fake CUDA libraries over it.

Used by scripts/emulate and scripts/mutants. `build.py FOLDER` builds the fake libraries alone, in FOLDER/fake: for the tests of the
host code.
"""

import fcntl
import pathlib
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

EMULATOR = pathlib.Path(__file__).resolve().parent
ROOT = EMULATOR.parents[2]
KERNELS = ROOT / "crates/engine/src/cuda/kernels"
BASE = ["-g1", "-Wall", "-Wextra", "-Wno-unused-parameter"]
SCHEDULER = ["registry.cc", "fiber.cc", "scheduler.cc"]
FAKE = ["device.cc", "cuda.cc", "libraries.cc"]
# Names by which programs look for the fake libraries. All is in the first; the others only name it, each a library that is found by
# its name once it was opened by its path.
FAKE_NAMES = ["libcuda.so.1", "libcuda.so", "libcublas.so.13", "libcublas.so", "libnvrtc.so.13", "libnvrtc.so"]
ADDRESS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# For each way of building: options of the kernels, of the scheduler, of the link. The scheduler stays out of the race check, which
# then sees the kernels' accesses alone. Tests are built once: ASan guards the memory that they allocate in any case.
MODES = {
    "plain": (["-O2", "-fPIC"], ["-O2", "-fPIC"], []), # for the fake libraries too
    "asan": (["-O1", *ADDRESS], ["-O1", "-fsanitize=address", "-DEMULATOR_ASAN"], ADDRESS),
    "tsan": (["-O1", "-fsanitize=thread"], ["-O2", "-DEMULATOR_TSAN"], ["-fsanitize=thread"]),
}


def find_clang():
    """The newest clang++ with its run-time libraries for the race check, or None."""
    names = ["clang++"] + [f"clang++-{version}" for version in range(25, 17, -1)]
    for name in names:
        path = shutil.which(name)
        if path and subprocess.run([path, "-fsanitize=thread", "-x", "c++", "-", "-o", "/dev/null"], input=b"int main() {}", capture_output=True).returncode == 0:
            return path
    return None


def compiler(mode):
    return find_clang() if mode == "tsan" else shutil.which("g++") or shutil.which("c++") or find_clang()


def compile_file(command, source, target):
    """Compiles `source` to `target` unless `target` is newer than it and all headers."""
    newest = max(path.stat().st_mtime for path in [*EMULATOR.glob("**/*.h"), *KERNELS.glob("*.h"), EMULATOR / "build.py", source])
    if target.exists() and target.stat().st_mtime > newest:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    made = subprocess.run([*command, "-c", str(source), "-o", str(target)], capture_output=True, text=True)
    if made.returncode:
        raise SystemExit(f"{source.name} does not compile:\n{made.stderr}")
    if made.stderr:
        raise SystemExit(f"{source.name} compiles with warnings:\n{made.stderr}")


def kernel_command(cxx, mode, kernels=KERNELS):
    return [cxx, "-std=c++17", *BASE, *MODES[mode][0], "-DEMULATED", f"-I{EMULATOR}", f"-I{kernels}", "-x", "c++"]


def build(mode, folder, jobs=2):
    """Builds the tests of `mode` in `folder`; gives the program and the objects by name of their source."""
    cxx = compiler(mode)
    folder = pathlib.Path(folder) / mode
    scheduler_options = [cxx, "-std=c++20", *BASE, *MODES[mode][1], "-DEMULATED"]
    work = [(kernel_command(cxx, mode), path, folder / f"{path.name}.o") for path in sorted(KERNELS.glob("*.cu"))]
    work.append((kernel_command(cxx, mode), EMULATOR / "tests/faulty.cu", folder / "faulty.cu.o"))
    work += [(scheduler_options, EMULATOR / name, folder / f"{name}.o") for name in SCHEDULER]
    test_options = [compiler("plain"), "-std=c++20", *BASE, "-O0"]
    work += [(test_options, path, folder.parent / "tests" / f"{path.name}.o") for path in sorted((EMULATOR / "tests").glob("*.cc"))]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda item: compile_file(*item), work))
    objects = {item[1].name if item[1].parent != EMULATOR / "tests" else f"tests/{item[1].name}": item[2] for item in work}
    program = folder / "emulator-tests"
    link(cxx, mode, objects.values(), program)
    return program, objects


def build_libraries(folder, jobs=2):
    """Builds the fake CUDA libraries in `folder`/fake; gives the one that has all in it. Two that build at once wait for each other."""
    cxx, plain, fake = compiler("plain"), pathlib.Path(folder) / "plain", pathlib.Path(folder) / "fake"
    fake.mkdir(parents=True, exist_ok=True)
    with open(fake / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        work = [(kernel_command(cxx, "plain"), path, plain / f"{path.name}.o") for path in sorted(KERNELS.glob("*.cu"))]
        scheduler_options = [cxx, "-std=c++20", *BASE, *MODES["plain"][1], "-DEMULATED"]
        work += [(scheduler_options, EMULATOR / name, plain / f"{name}.o") for name in SCHEDULER]
        command = [cxx, "-std=c++20", *BASE, "-O2", "-fPIC"]
        work += [(command, EMULATOR / "fake" / name, fake / f"{name}.o") for name in FAKE]
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda item: compile_file(*item), work))
        objects = [item[2] for item in work]
        library = fake / FAKE_NAMES[0]
        names = [fake / name for name in FAKE_NAMES[1:]]
        newest = max(path.stat().st_mtime for path in objects)
        if all(path.exists() and path.stat().st_mtime > newest for path in [library, *names]):
            return library
        shared = [cxx, "-shared", f"-Wl,-soname,{library.name}", "-Wl,-Bsymbolic"]
        subprocess.run([*shared, *map(str, objects), "-o", str(library)], check=True)
        for path in names:
            path.unlink(missing_ok=True)
            named = [cxx, "-shared", f"-Wl,-soname,{path.name}", "-Wl,--no-as-needed", str(library), "-Wl,-rpath,$ORIGIN", "-o", str(path)]
            subprocess.run(named, check=True)
        return library


def build_fake(folder, jobs=2):
    """Builds the fake CUDA libraries in `folder`/fake and their test; gives the test and the library."""
    cxx = compiler("plain")
    library = build_libraries(folder, jobs)
    folder = pathlib.Path(folder) / "fake"
    compile_file([cxx, "-std=c++20", *BASE], EMULATOR / "fake/test.cc", folder / "test.o")
    subprocess.run([cxx, str(folder / "test.o"), "-ldl", "-o", str(folder / "fake-test")], check=True)
    return folder / "fake-test", library


def link(cxx, mode, objects, program):
    subprocess.run([cxx, *MODES[mode][2], *map(str, objects), "-o", str(program)], check=True)


def environment(mode):
    """What the sanitizers need to know; for os.environ.update."""
    if mode == "asan":
        return {"ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:halt_on_error=1", "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=0"}
    if mode == "tsan":
        return {"TSAN_OPTIONS": "halt_on_error=1:exitcode=66:history_size=2"}
    return {}


if __name__ == "__main__":
    if compiler("plain") is None:
        sys.exit("the emulator of the CUDA kernels needs a C++ compiler\nhint: on Debian, apt install g++")
    print(build_libraries(sys.argv[1]).parent)
