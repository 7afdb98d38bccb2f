"""Times the engine's steps and the same steps in PyTorch and ONNX Runtime, taking turns in one run with equal threads.

    benches/pytorch/run.sh [--sizes vit-s-98,...] [--steps forward,...] [--rounds 7] [--threads 2] [--compile forward,...]

Prints a line of JSON for each step, which `table.py` makes a table of: of every side the median and the fastest milliseconds and its memory by the operating
system's account. Every step and side has a separate process. `idle_mib` is the process before the step is made ready (for
PyTorch and ONNX Runtime: with the library imported), `ready_mib` with weights and input, `peak_mib` the most while the timed
rounds ran. Weights of the vit sizes are random: the work does not depend on their values. The dinov2 sizes are the embedded
backbone, which ONNX Runtime reads from a graph that the engine bench exports.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sizes import SIZES, STEPS

# Batches of the embedded backbone, forward only.
EMBEDDED_SIZES = {"dinov2-s8-98": 40, "dinov2-s8-98-one": 1}
# What products are held against: PyTorch's alone, the best of many.
PEAK, PEAK_TURNS = "sgemm-2048", 8


def prepare(size, step, threads, compiled):
    """Returns a function that runs the step once."""
    import steps
    import torch

    torch.set_num_threads(threads)
    if step == PEAK:
        left, right = torch.randn(2048, 2048), torch.randn(2048, 2048)
        return lambda: torch.mm(left, right)
    return steps.prepare(size, step, compiled)


def prepare_graph(size, graph, threads):
    """Returns a function that runs the exported graph once, for its feature alone."""
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # A waiting thread must not take a core from the other sides.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    pixels = numpy.random.default_rng(0).standard_normal((EMBEDDED_SIZES[size], 3, 98, 98), dtype=numpy.float32)
    return lambda: session.run(["feature"], {"pixels": pixels})


def status_mebibytes(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def serve(graph):
    """Answers lines as the engine's bench does."""
    current, once = None, None
    for line in sys.stdin:
        if line != current:
            size, step, threads, side = line.split()
            current = line
            if side == "onnxruntime":
                import onnxruntime  # noqa: F401

                idle = status_mebibytes("VmRSS")
                once = prepare_graph(size, graph, int(threads))
            else:
                import torch  # noqa: F401

                idle = status_mebibytes("VmRSS")
                once = prepare(size, step, int(threads), side == "compiled")
            ready = status_mebibytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        start = time.perf_counter()
        once()
        milliseconds = (time.perf_counter() - start) * 1e3
        print(milliseconds, idle, ready, status_mebibytes("VmHWM"), flush=True)


class Side:
    def __init__(self, command, request):
        self.request = request
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.times, self.peak = [], 0.0

    def run(self, timed):
        self.process.stdin.write(self.request + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"\"{self.request}\" gave no answer; its process ended with {self.process.wait()}")
        milliseconds, self.idle, self.ready, peak = map(float, answer.split())
        if timed:
            self.times.append(milliseconds)
            self.peak = max(self.peak, peak)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        return {"median_ms": round(statistics.median(self.times), 2), "fastest_ms": round(min(self.times), 2),
                "idle_mib": round(self.idle), "ready_mib": round(self.ready), "peak_mib": round(self.peak)}


def sides_of(size, step, arguments, graph):
    """The processes that do a step, by name."""
    request = f"{size} {step} {arguments.threads}"
    python = [sys.executable, __file__, "--serve", graph]
    if step == PEAK:
        return {"eager": Side(python, f"{request} eager")}
    others = ["onnxruntime"] if size in EMBEDDED_SIZES else ["eager"] + ["compiled"] * (step in arguments.compile.split(","))
    engine = {"engine": Side([arguments.engine, "--lines"], request)}
    return engine | {name: Side(python, f"{request} {name}") for name in others}


def compare(size, steps, arguments, graph):
    """The lines of a size. All its steps and sides take turns: a machine that slows down for a while slows all of them."""
    all_sides = {step: sides_of(size, step, arguments, graph) for step in steps}
    # The first two rounds warm up, and compile.
    for round_ in range(arguments.rounds + 2):
        for step, sides in all_sides.items():
            for side in sides.values():
                for _ in range(PEAK_TURNS if step == PEAK else 1):
                    side.run(timed=round_ >= 2)
    for step, sides in all_sides.items():
        result = {"size": size, "step": step} | {name: side.close() for name, side in sides.items()}
        others = [name for name in sides if name != "engine"]
        for kind in ("median_ms", "fastest_ms"):
            if "engine" in sides:
                fastest = min(result[name][kind] for name in others)
                result["ratio_" + kind[:-3]] = round(fastest / result["engine"][kind], 3)
        yield result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", required=True, help="the built engine bench")
    parser.add_argument("--sizes", default=",".join([*SIZES, *EMBEDDED_SIZES]))
    parser.add_argument("--steps", default=",".join([PEAK, *STEPS]))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", default="", help="steps that torch.compile does too; a minute or two each to compile")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        graph = str(Path(folder) / "dinov2-s8.onnx")
        subprocess.run([arguments.engine, "--export-onnx", graph], check=True)
        for size in arguments.sizes.split(","):
            steps = [step for step in arguments.steps.split(",") if size not in EMBEDDED_SIZES or step == "forward"]
            for line in compare(size, steps, arguments, graph):
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    serve(sys.argv[2]) if sys.argv[1:2] == ["--serve"] else main()
