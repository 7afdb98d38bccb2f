#!/usr/bin/env python3
"""Meta-training through the head, and other wins that stand in no preset, on validation letters.

    python docs/experiments/through_the_head.py WORK --seed 0

Follows `glyphs.py` on the same WORK, whose adapters it takes. Each recipe is the preset `standard` with 300 episodes and one or two changes. 600 tasks of the letters
c f k p t y, 5-way, 15 queries, 1 and 5 shots, read by both heads. Writes WORK/through-the-head.csv; differences are paired, line minus `v-base` with the same head.
"""

from glyphs import TOGETHER
from recycled import HARD, Full, Program, Small, Table, common_options, glyphs, recycle, tune_letters

STANDARD = {**TOGETHER, "episodes": 300}
NO_MIRRORING, TEN_CLASSES, MORE_SHOTS = {"flip_probability": 0.0}, {"way": 10}, {"shots": [2, 4]}
THROUGH_LDA = {"head": "lda", **MORE_SHOTS}
RECIPES = {
    "v-base": {},
    "v-noflip": NO_MIRRORING,
    "v-ten": TEN_CLASSES,
    "v-noflip-ten": {**NO_MIRRORING, **TEN_CLASSES},
    "v-shots": MORE_SHOTS,
    "v-lda": {**THROUGH_LDA, "score_scale": 3.0},
    "v-lda10": {**THROUGH_LDA, "score_scale": 10.0},
    "v-lda10-noflip": {**THROUGH_LDA, **NO_MIRRORING, "score_scale": 10.0},
}
HEADS = ["nearest-mean", "auto"]


def main():
    asked = common_options(__doc__).parse_args()
    size, seed, work = (Small if asked.small else Full), asked.seed, asked.work
    program, runs = Program(asked), Table(work / f"runs-{seed}.csv", "seed name")
    table = Table(work / "through-the-head.csv", "seed name shot head")
    base, validation, _ = glyphs(work, size)
    pool = tune_letters(program, base, size, seed)
    for name, changes in RECIPES.items():
        recycle(program, runs, work, name, pool, {**STANDARD, **changes}, HARD, size, seed)
    made = {own["name"] for own in program.json("adapter", "list")}
    names = [own for name in RECIPES for own in (name, f"{name}-last") if own in made]
    missing = [name for name in names if not table.find(seed=seed, name=name)]
    if not missing:
        return
    # What the others are compared with comes first.
    names = [*dict.fromkeys(["v-base", *missing])]
    methods = [word for name in names for word in ("--adapter", name)]
    compared = ["--head", ",".join(HEADS), "--methods", "adapter", *methods]
    for report in program.reports(validation, size.shots, *compared, "--queries", size.queries, "--tasks", size.tasks):
        for index, method in enumerate(report["methods"]):
            name, base_index = names[index // len(HEADS)], index % len(HEADS)
            if table.find(seed=seed, name=name, shot=report["shot"], head=method["head"]):
                continue
            difference = report["pairwise"][index][base_index]
            table.add({
                "seed": seed, "name": name, "shot": report["shot"], "head": method["head"], "accuracy": 100 * method["accuracy"], "ci95": 100 * method["ci95"],
                "difference": 100 * difference["mean"] if difference else "", "difference_ci95": 100 * difference["ci95"] if difference else "",
            })
    print(table.path)


if __name__ == "__main__":
    main()
