#!/usr/bin/env python3
"""One thing at a time: what each part of recycling is worth, on the adapters of `glyphs.py` (which is run first, at least `--only ours`).

    python docs/experiments/ablations.py WORK --seed 0
    python docs/experiments/ablations.py WORK --seed 0 --groups sparsity rank

Every line differs from the first of its group in what it names. That is `base`, the recipe `ours` cut to 300 episodes; where images are made anew for
every line it is `few`, 200 episodes on the first three adapters; in `around` it is `together` with 600 episodes, and in `stopping` that on 16 adapters. Needs Pillow
and numpy, and for the line `few-batch-norm` the data of examples/photo_folders.py. Writes WORK/ablations.csv (600 tasks, 5-way, validation and test letters; differences are paired, line
minus base) and WORK/ablations-runs.csv (time, memory, held-out synthetic tasks); what stands there is not done again.
"""

import json
import shutil
import sys

from glyphs import OURS, TOGETHER
from recycled import HARD, PLAIN, Full, Program, Small, Table, common_options, drawn, evaluate, exported, glyphs, recycle, tune_letters

BASE = {**OURS, "episodes": 300}
AROUND = {**TOGETHER, "episodes": 600}
FEW, FEW_EPISODES = 3, 200
# Tasks of further adapters are drawn with a seed of their own.
OTHER_SEED = 1000

# Fields of an inversion recipe over its preset.
IMAGES = {
    "hard": HARD,
    # How much the noise that images begin as is worth by itself.
    "other-noise": {**HARD, "seed": OTHER_SEED},
    "plain": PLAIN,
    "weak": {**HARD, "hard": {"weight": 0.5, "cap": 2.0, "score_scale": 20.0}},
    # Hard for where meta-training starts, and for what it made of images that were hard for the bare backbone.
    "against-sum": {**HARD, "against": f"sum-of-{FEW}"},
    "against-meta": {**HARD, "against": "few"},
    "against-meta-again": {**HARD, "against": "few-against-meta"},
    "total-variation": {**HARD, "prior_weight": 1.0, "priors": {"total_variation": 0.1}},
    "token-statistics": {**HARD, "prior_weight": 1.0, "priors": {"token_statistics": 0.1}},
    # Of filters that were never trained.
    "batch-norm": {**HARD, "prior_weight": 1.0, "priors": {"batch_norm": 0.01}},
    "pixels": {**HARD, "parametrisation": "pixels", "learning_rate": 0.25},
    "pruned-at-2": {**HARD, "pruning": {"2": 0.75}},
    "pruned-at-4": {**HARD, "pruning": {"4": 0.75}},
    "pruned-at-6": {**HARD, "pruning": {"6": 0.75}},
    "half-pruned-at-4": {**HARD, "pruning": {"4": 0.5}},
    # A rate so small that the images stay the noise they begin as.
    "noise": {"preset": "fast", "steps": 1, "learning_rate": 1e-9},
}


class Line:
    def __init__(self, name, fields=None, images="hard", adapters=None, per_class=None, untuned=False, by_left_out=False):
        self.name, self.fields, self.images = name, fields or {}, images
        self.adapters, self.per_class, self.untuned = adapters, per_class, untuned
        # Validated on the images of the adapters behind `adapters`.
        self.by_left_out = by_left_out


def few(name="", fields=None, **own):
    return Line(f"few-{name}" if name else "few", {"episodes": FEW_EPISODES, **(fields or {})}, adapters=FEW, **own)


def few_on(*kinds):
    return [few(), *(few(kind, images=kind) for kind in kinds)]


# The first of a group is what the others are compared with.
GROUPS = {
    "objective": [Line("base"), Line("teacher-only", {"share_of_mixed_episodes": 0.0}), Line("mixed-only", {"share_of_mixed_episodes": 1.0})],
    "start": [
        Line("base"),
        Line("from-zero", {"start": "zero", "learning_rate": 1e-3}),
        Line("factors-first", {"merge_coefficients": {"steps": 60}}),
        Line("factors-first-own-task-kept", {"merge_coefficients": {"steps": 60, "leave_one_out": False}}),
        Line("factors-alone", {"merge_coefficients": {"steps": 120}, "episodes": 0}),
    ],
    "start-of-few": [few(), few("factors-first", {"merge_coefficients": {"steps": 60}})],
    "augmentation": [
        Line("base"),
        Line("no-augmentation", {"colour": False, "affine": False}),
        Line("colour-alone", {"affine": False}),
        Line("affine-alone", {"colour": False}),
        Line("inverted-besides", {"inversion_probability": 0.5}),
    ],
    "sparsity": [Line("base"), *(Line(f"sparsity-{share}", {"sparsity": share / 100}) for share in (0, 25, 50, 90))],
    "rank": [Line("base"), *(Line(f"rank-{rank}", {"rank": rank}) for rank in (1, 2, 4, 8))],
    "layers": [Line("base"), Line("last-6", {"layers": "last-6"})],
    "scale": [
        Line("base"),
        *(Line(f"scale-{scale}", {"score_scale": float(scale)}) for scale in (2, 10, 20)),
        Line("plain-features", {"unit_features": False, "score_scale": 1.0}),
    ],
    "rate": [Line("base"), *(Line(f"rate-{rate}", {"learning_rate": float(rate)}) for rate in ("6e-4", "1e-3"))],
    "goals": [
        Line("base"),
        *(Line(f"temperature-{temperature}", {"temperature": float(temperature)}) for temperature in (2, 4)),
        Line("up-to-5-shots", {"shots": [1, 5]}),
        Line("no-average", {"moving_average": None}),
    ],
    "around": [
        Line("together-600", AROUND),
        Line("way-10", {**AROUND, "way": 10}),
        Line("half-the-rate", {**AROUND, "learning_rate": 3e-4}),
        Line("unmirrored", {**AROUND, "flip_probability": 0.0}),
        Line("unmirrored-all-images", {**AROUND, "flip_probability": 0.0, "held_out": 0.0, "keep": "last"}),
        Line("unmirrored-2-queries", {**AROUND, "flip_probability": 0.0, "queries": 2}),
    ],
    "stopping": [Line("sixteen", AROUND, adapters=16), Line("sixteen-by-four-left-out", AROUND, adapters=16, by_left_out=True)],
    "adapters": [Line("base"), *(Line(f"{count}-adapters", adapters=count) for count in (5, 10, 40))],
    "hardness": few_on("other-noise", "plain", "weak", "against-sum", "against-meta", "against-meta-again"),
    "priors": few_on("total-variation", "token-statistics", "pixels", "batch-norm"),
    "pruning": few_on("pruned-at-2", "pruned-at-4", "pruned-at-6", "half-pruned-at-4"),
    "per-class": [few(), *(few(f"{count}-images", per_class=count) for count in (5, 10, 20, 40))],
    "controls": [*few_on("noise"), few("untuned", untuned=True)],
}
# Those whose lines differ in the images themselves.
OF_IMAGES = ["hardness", "priors", "pruning", "controls"]


def first(pool, program, base, size, seed, count):
    """The first adapters; more than there are begin with all of them and go on with others, tuned likewise on other tasks."""
    if size is Small:
        return pool[: count and min(count, len(pool) - 1)]
    more = count - len(pool) if count else 0
    others = tune_letters(program, base, size, seed + OTHER_SEED, "others", more) if more > 0 else []
    return [*pool, *others][:count]


def images_of(program, work, indices, seed):
    """The images that `base` was learned from, of the adapters at `indices`, with a folder for each letter."""
    out = work / f"images-of-left-out-{seed}"
    pools = program.json("adapter", "show", "base")["lineage"]["recipe"]["pools"]
    for index in indices:
        pool = exported(program, out / "pools" / str(index), "pool", pools[index])
        manifest = json.loads((pool / "manifest.json").read_text())
        labels = [own["label"] for own in manifest["classes"]]
        # Images take their classes in turns; one letter of two adapters is one class.
        for image in range(manifest["images"]):
            folder = out / "classes" / labels[image % len(labels)]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(pool / f"preview-{image:04}.png", folder / f"{index}-{image:04}.png")
    return out / "classes"


def resnet_of(work):
    """The ResNet of random filters for the BatchNorm prior, with statistics of the photographs."""
    # Needs numpy, which tables.py does without.
    from random_resnet import random_resnet, write

    out = work / "random-resnet.safetensors"
    write(random_resnet(work / "photographs"), out)
    return out


def untuned_letters(program, base, count, seed):
    """Adapters after one step that changes nothing: heads and low-rank pairs as they begin."""
    program.run("tune", base, "--episodes", count, "--way", 5, "--batch-size", 20, "--steps", 1, "--learning-rate", 1e-9, "--seed", seed, "--name", "untuned")
    return [f"untuned-{index:04}" for index in range(count)]


def main():
    parser = common_options(__doc__)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--without", nargs="+", default=[], metavar="LINE", help="lines to leave out, such as 40-adapters, which tunes 20 more")
    asked = parser.parse_args()
    size, seed = (Small if asked.small else Full), asked.seed
    base, validation, test = glyphs(asked.work, size)
    program = Program(asked)
    table = Table(asked.work / "ablations.csv", "seed split shot name asked_rank")
    runs = Table(asked.work / "ablations-runs.csv", "seed name")
    pool = tune_letters(program, base, size, seed)
    for group in asked.groups:
        lines = [line for line in GROUPS[group] if line.name not in asked.without]
        if asked.small:
            # The BatchNorm prior has a script of its own to try.
            lines = [line for index, line in enumerate(lines) if index < 2 or line.images == "batch-norm"]
        if any("against-sum" == line.images for line in lines):
            start = pool[:FEW]
            program.run("adapter", "merge", *start, "--method", "sum", "--scale", min(1, 4 / len(start)), "--rank", BASE["rank"], "--name", f"sum-of-{FEW}")
        for line in lines:
            if runs.find(seed=seed, name=line.name):
                continue
            if line.untuned:
                own = untuned_letters(program, base, min(line.adapters, size.adapters), seed)
            else:
                own = first(pool, program, base, size, seed, line.adapters)
            per_class = line.per_class and min(line.per_class, size.most_per_class)
            more = []
            if line.by_left_out:
                recycle(program, runs, asked.work, "base", pool, BASE, HARD, size, seed)
                more = ["--validation", images_of(program, asked.work, range(len(own), len(pool)), seed)]
            if line.images == "batch-norm":
                if not drawn(asked.work, size, "photo_folders.py", asked.work / "photographs"):
                    print(f"{line.name} is left out", file=sys.stderr)
                    continue
                more = ["--batch-norm", resnet_of(asked.work)]
            recycle(program, runs, asked.work, line.name, own, {**BASE, **line.fields}, IMAGES[line.images], size, seed, per_class, more=more)
        made = [line.name for line in lines if runs.find(seed=seed, name=line.name)]
        for split, folder in (("validation", validation), ("test", test)):
            evaluate(program, table, folder, split, size.shots, size, seed, made)
    print(table.path)


if __name__ == "__main__":
    main()
