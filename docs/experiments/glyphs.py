#!/usr/bin/env python3
"""The whole way on coloured letters: tune a pool, invert it, recycle it in several ways, and measure all on letters that nothing was tuned on.

    cargo build --release
    python docs/experiments/glyphs.py WORK --seed 0
    python docs/experiments/glyphs.py WORK --seed 0 --only augmented real
    make experiments-smoke                       a small version of everything, in minutes

Classes: adapters are tuned on 20 small letters; the other six (c f k p t y) choose among recipes; capitals and digits test. A seed is that of the
whole pipeline: adapters, images, meta-training. Writes WORK/seed-S.csv: a line for each recipe and merge, on validation and on test classes, at 1
and 5 shots, 600 tasks; the paired difference is to the sum of the pool at the same rank. What was done is found again, so a run that was
stopped goes on. Needs Pillow and fonts (see examples/glyph_folders.py).
"""

import argparse
import csv
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
VALIDATION = "cfkpty"
TUNED = "abdeghijlmnoqrsuvwxz"
LONG = {"episodes": 600, "sparsity": 0.75}
AUGMENTED = {**LONG, "colour": True, "affine": True}
HARD, PLAIN = ["--inversion", "hard", "--inversion-steps", "20"], ["--inversion", "fast", "--inversion-steps", "24"]

# Name: fields of the meta-training recipe over the preset, and flags of `recycle`. `real` learns from the tuned letters' own pictures: the upper bound.
RECIPES = {
    "paper": ({"preset": "paper", "episodes": 300}, PLAIN),
    "fast": ({"preset": "fast"}, HARD),
    "rank-16": ({"preset": "fast", "rank": 16, **LONG}, HARD),
    "augmented": ({"preset": "fast", "rank": 16, **AUGMENTED}, HARD),
    "augmented-dense": ({"preset": "fast", "rank": 16, **AUGMENTED, "sparsity": 0.0}, HARD),
    "augmented-faster": ({"preset": "fast", "rank": 16, **AUGMENTED, "learning_rate": 3e-4}, HARD),
    "augmented-inverted": ({"preset": "fast", "rank": 16, **AUGMENTED, "learning_rate": 3e-4, "inversion_probability": 0.5}, HARD),
    "augmented-plain": ({"preset": "fast", "rank": 16, **AUGMENTED}, PLAIN),
    "augmented-from-zero": ({"preset": "fast", "rank": 16, **AUGMENTED, "start": "zero", "learning_rate": 1e-3}, HARD),
    "augmented-teacher-only": ({"preset": "fast", "rank": 16, **AUGMENTED, "share_of_mixed_episodes": 0.0}, HARD),
    "augmented-mixed-only": ({"preset": "fast", "rank": 16, **AUGMENTED, "share_of_mixed_episodes": 1.0}, HARD),
    "augmented-rank-4": ({"preset": "fast", "rank": 4, **AUGMENTED}, HARD),
    "real": ({"preset": "fast", "rank": 16, **AUGMENTED, "learning_rate": 3e-4, "sparsity": 0.0}, HARD),
}
MERGES = ["bare", "average", "sum:0.2", "ties", "knots", "tsv:0.6", "core", "ctm"]


class Program:
    """The program on one data folder."""

    def __init__(self, path, data):
        self.path, self.data = path, data

    def run(self, *words):
        command = [str(self.path), "--data-dir", str(self.data), *map(str, words)]
        print("+ lora-recycle", " ".join(command[3:])[:200], file=sys.stderr, flush=True)
        return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout

    def json(self, *words):
        return json.loads(self.run(*words, "--json"))


def folders(work, size):
    """Base letters, validation letters as links into them, test letters."""
    glyphs = work / "glyphs"
    if not (glyphs / "novel").exists():
        drawn = [sys.executable, ROOT / "examples/glyph_folders.py", glyphs, "--per-class", size.pictures]
        subprocess.run([str(word) for word in drawn], check=True, stdout=sys.stderr)
    validation = work / "validation"
    validation.mkdir(exist_ok=True)
    for letter in VALIDATION:
        link = validation / letter
        if not link.exists():
            os.symlink(os.path.relpath(glyphs / "base" / letter, validation), link)
    return glyphs / "base", validation, glyphs / "novel"


def measure(program, folder, split, shot, methods, adapters, pool, rank, size, seed):
    """Rows of one evaluation, each with the difference to the sum at that rank where it is among them."""
    words = ["evaluate", folder, "--shot", shot, "--queries", size.queries, "--tasks", size.tasks, "--methods", ",".join(methods)]
    for adapter in adapters:
        words += ["--adapter", adapter]
    if "sum:0.2" in methods:
        words += ["--against", "sum"]
    words += ["--merge-rank", rank] if rank else []
    report = program.json(*words, "--pool", *pool)
    for method in report["methods"]:
        difference = method["difference"] or {}
        yield {
            "seed": seed, "split": split, "shot": shot, "name": (method["adapter"] or method["name"]).split(":")[0],
            "rank": (method.get("merge") or {}).get("rank", rank), "tasks": method["tasks"], "accuracy": 100 * method["accuracy"], "ci95": 100 * method["ci95"],
            "to_sum": 100 * difference["mean"] if difference else "", "to_sum_ci95": 100 * difference["ci95"] if difference else "",
        }


class Full:
    pictures, adapters, tune_steps, tasks, queries, per_class = 40, 20, 60, 600, 15, 8
    recipe = {}


class Small:
    """Says that everything runs, and nothing of how good it is."""

    pictures, adapters, tune_steps, tasks, queries, per_class = 8, 3, 3, 10, 2, 4
    recipe = {"episodes": 4, "queries": 2}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "target/release/lora-recycle")
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args()
    size = Small if asked.small else Full
    asked.work.mkdir(parents=True, exist_ok=True)
    base, validation, test = folders(asked.work, size)
    program = Program(asked.program.resolve(), asked.work / f"data-{asked.seed}")
    pool = [f"letters-{index:04}" for index in range(size.adapters)]
    program.run("tune", base, "--classes", ",".join(TUNED), "--episodes", size.adapters, "--way", 5, "--batch-size", 20, "--steps", size.tune_steps, "--seed", asked.seed, "--name", "letters")
    made, seconds = [], {}
    for name in asked.only:
        fields, flags = RECIPES[name]
        path = asked.work / f"{name}.json"
        path.write_text(json.dumps({**fields, **size.recipe, "seed": asked.seed}))
        flags = [*flags[:2], "--inversion-steps", 2] if asked.small else flags
        real = ["--real", base] if name == "real" else []
        start = time.monotonic()
        program.run("recycle", *pool, "--name", name, "--recipe", path, "--images-per-class", size.per_class, *flags, *real)
        seconds[name] = round(time.monotonic() - start)
        made.append(name)
    with open(asked.work / f"seed-{asked.seed}.csv", "w", newline="") as file:
        writer = None
        for split, folder in (("validation", validation), ("test", test)):
            for shot in (1, 5):
                for rank in (None, 16, 4):
                    # The bare backbone and adapters have no other rank.
                    methods = (["adapter"] if rank == 16 else []) + (MERGES if rank is None else MERGES[2:])
                    for row in measure(program, folder, split, shot, methods, made if rank == 16 else [], pool, rank, size, asked.seed):
                        row["seconds"] = seconds.get(row["name"], "")
                        writer = writer or csv.DictWriter(file, row)
                        if not file.tell():
                            writer.writeheader()
                        writer.writerow(row)
                        file.flush()
    print(asked.work / f"seed-{asked.seed}.csv")


if __name__ == "__main__":
    main()
