"""Times steps of the engine's bench in PyTorch on one device: eager and compiled, products in TF32.

    python3 benches/pytorch/device.py --cases inversion:25,meta-dense:100 [--rounds 10] [--seconds 150] [--device cuda]

Prints a line of JSON about the device and one for each case and side as soon as it is measured: median and fastest milliseconds of synchronised
steps, steps per second, the most memory that tensors took and what was in use on the device, and how long the first step took, which
compiles. No case begins after `--seconds`. A case that fails has its reason in place of figures.
"""

import argparse
import json
import statistics
import time

import torch
from sizes import SIZES
from steps import prepare

# Not timed; the second step of a compiled case may compile again.
WARM_UP = 3


def synchronise(device):
    if device == "cuda":
        torch.cuda.synchronize()


def measure(size, step, batch, compiled, rank, rounds, device):
    torch.compiler.reset()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    with torch.device(device):
        once = prepare(size, step, compiled, batch, rank)
    first, milliseconds = None, []
    for round_ in range(WARM_UP + rounds):
        synchronise(device)
        start = time.perf_counter()
        once()
        synchronise(device)
        if first is None:
            first = time.perf_counter() - started
        if round_ >= WARM_UP:
            milliseconds.append((time.perf_counter() - start) * 1e3)
    median = statistics.median(milliseconds)
    figures = {"median_milliseconds": median, "fastest_milliseconds": min(milliseconds), "steps_per_second": 1e3 / median, "first_step_seconds": first}
    if device == "cuda":
        # Of tensors, weights and images among them; of the device, as nvidia-smi counts: with the context, the libraries and what the allocator holds.
        free, total = torch.cuda.mem_get_info()
        figures |= {"allocated_mebibytes": torch.cuda.max_memory_allocated() / 2**20, "used_mebibytes": (total - free) / 2**20}
    return {name: round(value, 3) for name, value in figures.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", required=True, help="step:batch, separated by commas")
    parser.add_argument("--sides", default="eager,compiled")
    parser.add_argument("--size", default="vit-b-224", choices=SIZES)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1e9, help="no case begins after this time")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    started = time.monotonic()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("device.py: PyTorch finds no CUDA device")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    print(json.dumps({"torch": torch.__version__, "device": name, "size": arguments.size, "rank": arguments.rank}), flush=True)
    cases = [case.split(":") for case in arguments.cases.split(",")]
    # Sides in turns of all cases: compiling takes long, and what is left out then is the compiled side of the last cases.
    for side in arguments.sides.split(","):
        for step, batch in cases:
            line = {"step": step, "batch": int(batch), "side": side}
            if time.monotonic() - started > arguments.seconds:
                line["left_out"] = f"{arguments.seconds:.0f} s are over"
            else:
                try:
                    line |= measure(arguments.size, step, int(batch), side == "compiled", arguments.rank, arguments.rounds, arguments.device)
                except Exception as error:  # The other cases go on, also after one that is out of memory.
                    line["failed"] = f"{type(error).__name__}: {error}"[:500]
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
