"""Milliseconds and memory of meta-training steps in the product's job, dense and sparse, all and the last layers, in turns.

    cargo build --release
    python benches/recycle_steps.py DATA_DIR letters-0000 letters-0001 --inversion hard --rounds 5

DATA_DIR has the adapters and their synthetic images by that inversion recipe (`tune` and `invert` make them). Each run is a whole `recycle` of
25 episodes that stores an adapter `steps-NAME`. A step's time is the mean of 24, from the first to the last episode that the command reports;
"before" is what the process holds just before the first one.
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import tempfile
import threading
import time

PROGRAM = pathlib.Path(__file__).parent.parent / "target/release/lora-recycle"
EPISODES = 25
RECIPES = {
    "dense": {"sparsity": 0.0, "layers": "all"},
    "sparse": {"sparsity": 0.75, "layers": "all"},
    "dense-last-6": {"sparsity": 0.0, "layers": "last-6"},
    "sparse-last-6": {"sparsity": 0.75, "layers": "last-6"},
}


def resident_mebibytes(process):
    try:
        status = pathlib.Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else None


def run(name, asked, folder):
    recipe = {"preset": "fast", "held_out": 0, "keep": "last", "moving_average": None, "episodes": EPISODES,
              # So that only what the names say differs, and later layers alone can be cached.
              "rank": 4, "colour": False, "affine": False, **RECIPES[name]}
    path = pathlib.Path(folder) / f"{name}.json"
    path.write_text(json.dumps(recipe))
    # A new name each time: the same work is not done twice.
    command = [asked.program, "--data-dir", asked.data, "recycle", *asked.adapters, "--name", f"steps-{name}-{time.time_ns()}", "--recipe", path, *asked.more]
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    memory, marks = [], []

    def watch():
        while (now := resident_mebibytes(process.pid)) is not None:
            memory.append((time.monotonic(), now))
            time.sleep(0.004)

    watcher = threading.Thread(target=watch)
    watcher.start()
    told = []
    for line in process.stderr:
        told.append(line)
        if found := re.match(r"meta-training (\d+)/", line):
            marks.append((time.monotonic(), int(found[1])))
    if process.wait() != 0:
        raise SystemExit("".join(told))
    watcher.join()
    (first, one), (last, all_of_them) = marks[0], marks[-1]
    step = (last - first) / (all_of_them - one)
    before = [resident for moment, resident in memory if moment < first - 1.2 * step]
    return 1000 * step, max(resident for _, resident in memory), before[-1] if before else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="data folder")
    parser.add_argument("adapters", nargs="+")
    parser.add_argument("--names", nargs="+", choices=RECIPES, default=["dense", "sparse"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--program", type=pathlib.Path, default=PROGRAM)
    asked, asked.more = parser.parse_known_args()
    results = {name: [] for name in asked.names}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(asked.rounds):
            for name in asked.names:
                results[name].append(run(name, asked, folder))
    print("| | ms per step: median of rounds | × the first, round by round | process at its peak, MiB | before the first step, MiB |")
    print("|---|---|---|---|---|")
    reference = results[asked.names[0]]
    for name, rounds in results.items():
        ratios = " ".join(f"{first[0] / own[0]:.2f}" for first, own in zip(reference, rounds))
        peak = statistics.median(own[1] for own in rounds)
        before = statistics.median(own[2] for own in rounds if own[2] is not None)
        print(f"| {name} | {statistics.median(own[0] for own in rounds):.0f} | {ratios} | {peak:.0f} | {before:.0f} |")


if __name__ == "__main__":
    main()
