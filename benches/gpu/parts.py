"""What is checked on a machine with a GPU: each function is a part, takes the seconds it has and gives what it found."""

import ctypes
import json
import os
import pathlib
import re
import shutil
import site
import sys
import tempfile
import threading
import time

from prepared import PROVIDER, ROOT, CannotPrepare, unpack
from runner import TAIL, Failed, Skipped, run, told

LEAST_CAPABILITY = (8, 0)
# Tests of tiny models, short enough for a sanitizer.
SANITIZED = ["golden::", "session::features_and_all_gradients", "session::a_choice_of_tokens"]
# What is timed on both sides: step, images, and the size that `lora-recycle bench` should know. Its steps have an adapter of rank 16 for query
# and value; `inversion` is a whole step with cross-entropy, total variation, roll and flip, Adam and the clamp.
CASES = [("inversion", 25, "vit-b-224-25"), ("meta-dense", 100, "vit-b-224-100"), ("meta-sparse-50", 100, "vit-b-224-100"), ("meta-sparse-75", 100, "vit-b-224-100")]
ON_PAPER = {"inversion": "inversion: pixels, teacher", "meta-dense": "meta-training, dense", "meta-sparse-50": "meta-training, 50 % sparse", "meta-sparse-75": "meta-training, 75 % sparse"}
# Largest difference of features between the processor and the device, relative to the largest value: TF32 keeps 10 bits of fraction.
FEATURE_TOLERANCE = 1e-2


class Prepared:
    """The prepared executables, put together when they are first asked for, and where the CUDA libraries are."""

    def __init__(self, folder, listed):
        self.folder, self.listed = folder, listed
        self.temporary = tempfile.TemporaryDirectory()
        self.library_path = os.pathsep.join([*library_folders(), os.environ.get("LD_LIBRARY_PATH", "")]).strip(os.pathsep)

    def executable(self, name):
        target = pathlib.Path(self.temporary.name) / name
        listed = self.listed.get("executables", {}).get(name)
        if listed is None:
            raise Skipped(f"{name} is not prepared")
        here = os.confstr("CS_GNU_LIBC_VERSION") or ""
        needed, found = listed["glibc"], re.search(r"[\d.]+$", here)
        numbers = lambda version: [int(number) for number in version.split(".")]
        if needed and found and numbers(found[0]) < numbers(needed):
            raise Failed(f"{name} needs the GNU C library {needed}, and here is {found[0]}: prepare on an older system")
        try:
            return target if target.exists() else unpack(listed, self.folder, target)
        except (CannotPrepare, OSError) as error:
            raise Failed(str(error)) from error

    def environment(self, **more):
        # Settings of a person's installation must not decide.
        return {"LD_LIBRARY_PATH": self.library_path, "HOME": self.temporary.name, "XDG_CONFIG_HOME": self.temporary.name, **more}


def library_folders():
    """Where cuBLAS and NVRTC are: CUDA's usual folder, and Python's wheels."""
    places = [pathlib.Path("/usr/local/cuda/lib64")]
    for packages in {*map(pathlib.Path, sys.path), pathlib.Path(site.getusersitepackages())}:
        places += sorted((packages / "nvidia").glob("*/lib"))
    named = lambda folder: [*folder.glob("libcublas.so*"), *folder.glob("libnvrtc.so*"), *folder.glob("libcudnn.so*"), *folder.glob("libcudart.so*")]
    return [str(folder) for folder in places if named(folder)]


def device(_seconds):
    """Name, memory, compute capability and driver, as the driver says."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise Failed("there is no CUDA driver: libcuda.so.1 is not found") from None

    def call(name, *arguments):
        if status := getattr(driver, name)(*arguments):
            raise Failed(f"{name} gives error {status}")

    number, count, version, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name, capability = ctypes.create_string_buffer(100), (ctypes.c_int(), ctypes.c_int())
    call("cuInit", 0)
    call("cuDeviceGetCount", ctypes.byref(count))
    if count.value == 0:
        raise Failed("the driver finds no device")
    call("cuDeviceGet", ctypes.byref(number), 0)
    call("cuDeviceGetName", name, len(name), number)
    call("cuDeviceTotalMem_v2", ctypes.byref(memory), number)
    call("cuDriverGetVersion", ctypes.byref(version))
    for attribute, value in zip((75, 76), capability):
        call("cuDeviceGetAttribute", ctypes.byref(value), attribute, number)
    found = {
        "name": name.value.decode(errors="replace"),
        "memory_bytes": memory.value,
        "capability": [value.value for value in capability],
        "cuda_of_driver": f"{version.value // 1000}.{version.value % 1000 // 10}",
        "library_folders": library_folders(),
    }
    if tuple(found["capability"]) < LEAST_CAPABILITY:
        raise Failed(f"{found['name']} has compute capability {found['capability']}; the kernels need 8.0", found)
    if shutil.which("nvidia-smi"):
        _, out, _ = run(["nvidia-smi", "--query-gpu=driver_version,memory.used,clocks.max.sm,power.limit", "--format=csv"], 10)
        found["nvidia_smi"] = out.strip()
    return found


def tests(prepared, name, words, seconds, before=()):
    """Runs a test executable on the device; its counts."""
    environment = prepared.environment(LORA_RECYCLE_CUDA_DEVICE="real", LORA_RECYCLE_PROJECT=str(ROOT), RUST_BACKTRACE="0")
    status, out, errors = run([*before, prepared.executable(name), *words, "--show-output"], seconds, environment)
    # A test may show the output of another run; the summary of this one comes last.
    summary = re.findall(r"(\d+) passed; (\d+) failed", out)
    found = {"passed": int(summary[-1][0]), "failed": int(summary[-1][1])} if summary else {}
    found["left_out"] = out.count("left out: only an emulated device")
    if status != 0:
        # Names and reasons of tests that failed come at the end.
        reason, said = told(status, errors + out, "")
        raise Failed(f"{name}: {reason}", found | said)
    if not found.get("passed"):
        raise Failed(f"{name}: no test ran", found)
    return found


def suite(prepared, seconds):
    """Whole passes against the processor's and the reference values, and each operation against its plain twin."""
    started = time.monotonic()
    found, failed = {}, []
    for name, words in (("cuda-tests", []), ("engine-tests", ["twins::cuda::"])):
        try:
            found[name] = tests(prepared, name, words, seconds - (time.monotonic() - started))
        except Failed as error:
            found[name] = error.results
            failed.append(str(error))
    if failed:
        raise Failed("; ".join(failed), found)
    return found


def sanitizer(prepared, tool, seconds):
    """The tests of tiny models under compute-sanitizer."""
    found = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not pathlib.Path(found).exists():
        raise Skipped("compute-sanitizer is not found")
    before = [found, "--tool", tool, "--error-exitcode", "9"]
    return tests(prepared, "cuda-tests", [*SANITIZED, "--test-threads", "1"], seconds, before)


def answers(prepared, seconds):
    """Features of the example pictures by ONNX Runtime: CUDA against the processor."""
    if PROVIDER not in prepared.listed["onnxruntime"]:
        raise Skipped(f"ONNX Runtime with CUDA is not prepared ({PROVIDER})")
    program = prepared.executable("lora-recycle")
    libraries = prepared.folder / "onnxruntime"
    plain = sorted(libraries.glob("libonnxruntime.so*"))
    pictures = sorted((ROOT / "assets/examples").rglob("*.jpg"))
    features = {}
    for device in ("cpu", "cuda"):
        # One cannot take all of the time.
        words = [program, "embed", "--json", "--encoder", "ort", "--device", device, "--data-dir", f"{prepared.temporary.name}/data", *pictures]
        path = os.pathsep.join([str(libraries), prepared.library_path])
        status, out, errors = run(words, seconds / 2, prepared.environment(ORT_DYLIB_PATH=str(plain[0]), LD_LIBRARY_PATH=path))
        if status != 0:
            reason, said = told(status, "", errors)
            raise Failed(f"embed --device {device}: {reason}", said)
        features[device] = [own["feature"] for own in json.loads(out)]
    pairs = [(a, b) for one, other in zip(features["cpu"], features["cuda"], strict=True) for a, b in zip(one, other, strict=True)]
    largest = max(abs(a - b) for a, b in pairs) / max(abs(a) for a, _ in pairs)
    found = {"pictures": len(pictures), "largest_difference": largest, "tolerance": FEATURE_TOLERANCE}
    if not largest <= FEATURE_TOLERANCE:
        raise Failed(f"features differ by {largest:.2g} of the largest value", found)
    return found


class MemoryWatch:
    """The most memory in use on the device while a program runs, by nvidia-smi; other programs count too."""

    def __init__(self):
        self.most, self.ended = None, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self):
        while shutil.which("nvidia-smi") and not self.ended.wait(0.2):
            _, out, _ = run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"], 5)
            if out.strip().isdigit():
                self.most = max(self.most or 0, int(out))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def ours(prepared, seconds):
    """The cases by `lora-recycle bench`, each in a process, so that its memory is its own."""
    program = prepared.executable("lora-recycle")
    status, out, errors = run([program, "bench", "--help"], 10, prepared.environment())
    if status != 0:
        reason, said = told(status, out, errors)
        raise Failed(f"bench --help: {reason}", said)
    words = set(re.findall(r"[\w-]+", out))
    missing = sorted({word for step, _, size in CASES for word in (step, size) if word not in words})
    if missing:
        raise Skipped(f"this program's bench does not know {', '.join(missing)}")
    started = time.monotonic()
    found, failed = [], []
    for step, batch, size in CASES:
        with MemoryWatch() as watch:
            command = [program, "bench", "--device", "cuda", "--size", size, "--step", step, "--rounds", "30", "--json"]
            status, out, errors = run(command, max(1.0, seconds - (time.monotonic() - started)), prepared.environment())
        case = {"step": step, "batch": batch, "used_mebibytes": watch.most}
        if status != 0:
            reason, said = told(status, "", errors)
            failed.append(f"{step}: {reason}")
            found.append(case | said)
            continue
        report = json.loads(out)
        row = report["engine"][0]
        # Without it the steps may have run on the processor.
        if not report.get("device") or "cpu" in str(report["device"]).lower() or row["batch"] != batch:
            failed.append(f"{step}: bench does not name the device that it computed on, or took another batch")
            continue
        found.append(case | {key: row[key] for key in row if key not in ("name", "batch")} | {"steps_per_second": 1e3 / row["median_milliseconds"]})
    if failed:
        raise Failed("; ".join(failed), {"cases": found})
    return {"cases": found}


def pytorch(seconds):
    """The cases in PyTorch, eager and compiled, in a process."""
    cases = ",".join(f"{step}:{batch}" for step, batch, _ in CASES)
    script = ROOT / "benches/pytorch/device.py"
    status, _, _ = run([sys.executable, "-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)"], 20)
    if status != 0:
        raise Skipped(f"{sys.executable} has no PyTorch")
    # Compiling a case takes up to half a minute, and a case that has begun should end.
    status, out, errors = run([sys.executable, "-B", script, "--cases", cases, "--seconds", max(seconds - 45, seconds / 2)], seconds)
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    found = {"versions": lines[0] if lines else None, "cases": lines[1:]}
    if status != 0:
        reason, said = told(status, "", errors)
        raise Failed(reason, found | said)
    failed = [f"{case['step']}, {case['side']}: {case['failed']}" for case in lines[1:] if "failed" in case]
    if failed:
        raise Failed("; ".join(failed)[:TAIL], found)
    return found


def comparison(parts, name):
    """A row for each case: ours and PyTorch's, and on paper where the device is one of those of scripts/roofline."""
    sys.path.insert(0, str(ROOT / "benches/roofline"))
    from devices import device_named
    from steps import MODELS, steps_of

    device, on_paper = device_named(name), {step.name: step for step in steps_of(MODELS[0])}
    results = {part["name"]: part.get("results") or {} for part in parts}
    measured = [("ours", case) for case in results.get("ours", {}).get("cases", [])]
    measured += [(f"pytorch_{case['side']}", case) for case in results.get("pytorch", {}).get("cases", [])]
    rows = []
    for step, batch, _ in CASES:
        row = {"step": step, "batch": batch, "milliseconds": {}, "mebibytes": {}}
        for side, case in measured:
            if case["step"] == step and "median_milliseconds" in case:
                row["milliseconds"][side] = case["median_milliseconds"]
                row["mebibytes"][side] = case.get("used_mebibytes")
        paper = on_paper[ON_PAPER[step]]
        row["mebibytes"]["on_paper"] = round(paper.bytes / 2**20)
        if device:
            row["milliseconds"]["on_paper"] = round(1e3 * paper.seconds(device), 3)
        rows.append(row)
    return rows
