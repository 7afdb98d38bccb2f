#!/usr/bin/env python3
"""What synthetic images of each kind look like beside real ones, and whether that tells how good a meta-LoRA they make.

    python docs/experiments/quality.py WORK --seed 0

Follows `ablations.py --groups hardness priors pruning controls` on the same WORK: measures the images that each of its lines was learned from against the real pictures
of all small letters (`pool quality --real`). Writes WORK/quality.csv, means over the adapters; what is there already is not measured again.
"""

import statistics

from ablations import GROUPS, OF_IMAGES
from recycled import Full, Program, Small, Table, common_options, glyphs

FIGURES = ["teacher_accuracy", "teacher_cross_entropy", "bare_cross_entropy", "diversity"]
OF_REAL = ["frechet_distance", "precision", "recall"]


def main():
    asked = common_options(__doc__).parse_args()
    size, seed = (Small if asked.small else Full), asked.seed
    base, _, _ = glyphs(asked.work, size)
    program = Program(asked)
    table = Table(asked.work / "quality.csv", "seed name")
    made = {adapter["name"] for adapter in program.json("adapter", "list")}
    for line in [line for group in OF_IMAGES for line in GROUPS[group]]:
        if line.name not in made or table.find(seed=seed, name=line.name):
            continue
        own = program.json("adapter", "show", line.name)["lineage"]["recipe"]["pools"]
        measured = program.json("pool", "quality", *own, "--real", base)["pools"]

        def mean(name, of=lambda pool: pool):
            values = [of(pool)[name] for pool in measured]
            return statistics.mean(values) if None not in values else ""

        table.add({"seed": seed, "name": line.name, "pools": len(own), "images": sum(pool["images"] for pool in measured), **{name: mean(name) for name in FIGURES}, **{name: mean(name, lambda pool: pool["real"]) for name in OF_REAL}})
    print(table.path)


if __name__ == "__main__":
    main()
