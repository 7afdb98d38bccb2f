#!/usr/bin/env python3
"""Meta-LoRAs away from home: on other scripts, drawn shapes and textures, and clothes; and pools of adapters from several of these.

    python docs/experiments/domains.py WORK --seed 0
    python docs/experiments/domains.py WORK --seed 0 --pools letters

Follows `glyphs.py` on the same WORK, whose adapters and meta-LoRA `ours` it takes. Clothes (Fashion-MNIST) and textures lend some classes to adapters and
keep the others for the test; shapes and Greek letters are for the test alone. All meta-LoRAs have the recipe `ours`. Writes WORK/domains.csv (600 tasks, 5-way, 1
and 5 shots; differences are paired, line minus bare backbone) and WORK/domains-runs.csv. Needs Pillow, fonts, and the data of
examples/fashion_mnist_folders.py for clothes; without it they are left out.
"""

import argparse
import os
import pathlib
import subprocess
import sys

from glyphs import OURS
from recycled import HARD, ROOT, Full, Program, Small, Table, evaluate, glyphs, recycle, tune_letters

GREEK = "ΓΔΘΛΞΠΣΦΨΩαβγδεζηθλμξπρσφχψω"
# Classes that adapters are tuned on; the others test.
TUNED = {
    "clothes": ["bag", "dress", "pullover", "sandal", "t-shirt"],
    "textures": ["bricks", "dots", "hatch", "lattice", "rays", "scales", "stripes", "zigzag"],
}
WAY = 3
# Name of a pool: adapters from each domain.
POOLS = {
    "letters": {"letters": 20},
    "ten-letters": {"letters": 10},
    "letters-and-clothes": {"letters": 10, "clothes": 5},
    "letters-and-textures": {"letters": 10, "textures": 5},
    "three-domains": {"letters": 10, "clothes": 5, "textures": 5},
}


def drawn(work, size, script, out, *more):
    if not out.exists():
        command = [sys.executable, ROOT / "examples" / script, out, "--per-class", size.pictures, *more]
        done = subprocess.run([str(word) for word in command], stdout=sys.stderr)
        return done.returncode == 0
    return True


def held_out(work, folder, tuned):
    """A folder of links to the classes that no adapter is tuned on."""
    kept = work / f"{folder.name}-held-out"
    kept.mkdir(exist_ok=True)
    for own in sorted(folder.iterdir()):
        link = kept / own.name
        if own.is_dir() and own.name not in tuned and not link.exists():
            os.symlink(os.path.relpath(own, kept), link)
    return kept


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=list(POOLS))
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "target/release/lora-recycle")
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args()
    size, seed, work = (Small if asked.small else Full), asked.seed, asked.work
    program = Program(asked.program, work / f"data-{seed}")
    table, runs = Table(work / "domains.csv", "seed split shot name asked_rank"), Table(work / "glyphs-runs.csv", "seed name")

    base, _, capitals = glyphs(work, size)
    tests = {"capitals": capitals}
    if drawn(work, size, "glyph_folders.py", work / "scripts", "--split", f"greek={GREEK}"):
        tests["greek"] = work / "scripts/greek"
    folders = {}
    if drawn(work, size, "drawn_folders.py", work / "drawn"):
        tests["shapes"] = work / "drawn/shapes"
        folders["textures"] = work / "drawn/textures"
    if drawn(work, size, "fashion_mnist_folders.py", work / "clothes"):
        folders["clothes"] = work / "clothes"
    for domain, folder in folders.items():
        tests[domain] = held_out(work, folder, TUNED[domain])

    adapters = {"letters": tune_letters(program, base, size, seed)}
    few = 5 if size is Full else 2
    for domain, folder in folders.items():
        if any(domain in POOLS[name] for name in asked.pools):
            program.run("tune", folder, "--classes", ",".join(TUNED[domain]), "--episodes", few, "--way", WAY, "--batch-size", 20, "--steps", size.tune_steps, "--seed", seed, "--name", domain)
            adapters[domain] = [f"{domain}-{index:04}" for index in range(few)]
    for name in asked.pools:
        if not all(domain in adapters for domain in POOLS[name]):
            continue
        pool = [adapter for domain, count in POOLS[name].items() for adapter in adapters[domain][:count]]
        made = "ours" if name == "letters" else f"pool-{name}"
        recycle(program, runs, work, made, pool, OURS, HARD, size, seed)
        for domain, folder in tests.items():
            for shot in (1, 5):
                # Without a factor of its own the sum takes the recipe's, 4 through the number of adapters.
                evaluate(program, table, folder, domain, shot, size, seed, [made], pool, ["bare", f"sum:{min(1, 4 / len(pool)):.3g}"], OURS["rank"], "bare", f" of {name}")
    print(table.path)


if __name__ == "__main__":
    main()
