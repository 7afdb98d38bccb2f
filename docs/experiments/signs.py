#!/usr/bin/env python3
"""All merges and the meta-LoRA on 59 signs, read by `auto` and by `nearest-mean` on the same tasks.

    for seed in 0 1 2; do python docs/experiments/signs.py WORK --seed $seed; done

Follows `glyphs.py` on the same WORK, whose adapters and chosen meta-LoRA it takes. The scale of a merge is chosen on the validation letters at 1 shot, read by `auto`,
with the adapters of seed 0, and is that of all seeds. Tasks have 20 pictures of each class to draw from, the first 20 by name: features with copies
take seven passes. Writes WORK/signs-scales.csv and WORK/signs.csv; what is there already is not done again. Differences are paired,
the meta-LoRA minus the line, each through the same head.
"""

from glyphs import BOUNDS, CHOSEN, RANK, RECIPES, TOGETHER
from recycled import HARD, Full, Program, Small, Table, common_options, glyphs, greek, recycle, tune_letters

HEADS = ["nearest-mean", "auto"]
PICTURES = 20
SCALES = {
    "sum": [0.1, 0.2, 0.33], "ties": [0.7, 1, 1.4], "knots": [1, 1.4, 2], "tsv": [0.7, 1, 1.4], "core-space": [1.4, 2, 2.8], "compress-then-merge": [1.4, 2, 2.8],
    "iso-c": [0.5, 1, 2], "iso-cts": [0.5, 1, 2], "tsv-iso": [0.5, 1, 2], "wudi": [0.5, 1, 2], "pico": [0.5, 1, 2],
    "pico+knots": [1, 2, 2.8], "pico+tsv": [1, 1.4, 2], "pico+iso-c": [0.5, 1, 2],
}
# Made here, as adapters: AdaMerging on the synthetic images, and the chosen recipe on the pictures that the adapters were tuned on, as the upper bound.
BOUND = "real-together"
MADE = {
    "adamerging": {**TOGETHER, "layers": "all", "episodes": 0, "merge_coefficients": {"steps": 60, "objective": "entropy"}},
    BOUND: BOUNDS[BOUND],
}


def first(out, folders, pictures):
    """A folder with links to the first `pictures` of each class of `folders`."""
    for own in sorted(own for folder in folders for own in folder.iterdir() if own.is_dir()):
        (out / own.name).mkdir(parents=True, exist_ok=True)
        for picture in sorted(own.iterdir())[:pictures]:
            link = out / own.name / picture.name
            if not link.exists():
                link.symlink_to(picture.resolve())
    return out


def evaluate(program, folder, methods, shots, queries, tasks, *more):
    return program.reports(folder, shots, "--head", ",".join(HEADS), "--methods", ",".join(methods), "--queries", queries, "--tasks", tasks, "--merge-rank", RANK, *more)


def main():
    parser = common_options(__doc__)
    parser.add_argument("--recipe", choices=RECIPES, default=CHOSEN, help="of the meta-LoRA")
    parser.add_argument("--merges", nargs="*", choices=SCALES, default=list(SCALES))
    parser.add_argument("--made", nargs="*", choices=MADE, default=list(MADE), help="AdaMerging and the upper bound, which takes longest")
    asked = parser.parse_args()
    size, seed, work = (Small if asked.small else Full), asked.seed, asked.work
    program = Program(asked)
    base, validation, capitals = glyphs(work, size)
    pool = tune_letters(program, base, size, seed)
    scales = Table(work / "signs-scales.csv", "merge")
    for merge in asked.merges:
        if scales.find(merge=merge):
            continue
        if seed:
            raise SystemExit(f"run seed 0 first: it chooses the scale of {merge}")
        folder = first(work / "validation-first", [validation], PICTURES)
        methods = [f"{merge}:{scale}" for scale in SCALES[merge]]
        report = evaluate(program, folder, methods, [1], size.queries, size.tasks // 3, "--pool", *pool)[0]
        for method in report["methods"]:
            scales.add({"merge": merge, "scale": method["merge"]["scale"], "head": method["head"], "tasks": method["tasks"], "accuracy": 100 * method["accuracy"], "ci95": 100 * method["ci95"]})

    def chosen(merge):
        return max(scales.find(merge=merge, head="auto"), key=lambda row: float(row["accuracy"]))["scale"]

    table = Table(work / "signs.csv", "seed name shot head")
    folder = first(work / "signs-first", [capitals, greek(work, size)], PICTURES)
    lines = [asked.recipe, *asked.merges, "average", *([] if table.find(name="bare") else ["bare"])]
    missing = [name for name in lines if not table.find(seed=seed, name=name)]
    if missing:
        add(table, program, folder, asked.recipe, missing, seed, size, pool, asked.merges, chosen)
    runs = Table(work / "signs-runs.csv", "seed name")
    for name in asked.made:
        real = {"per_class": size.pictures, "real": base} if name == BOUND else {}
        recycle(program, runs, work, name, pool, MADE[name], HARD, size, seed, **real)
    missing = [name for name in asked.made if not table.find(seed=seed, name=name)]
    if missing:
        names = [asked.recipe, *missing]
        more = [word for name in names for word in ("--adapter", name)]
        reports = program.reports(folder, size.shots, "--head", ",".join(HEADS), "--methods", "adapter", "--queries", size.queries, "--tasks", size.tasks, *more)
        write(table, reports, names, seed)
    print(table.path)


def add(table, program, folder, recipe, missing, seed, size, pool, merges, chosen):
    """Measures merges beside the meta-LoRA `recipe`."""
    words = {recipe: "adapter", "average": "average", "bare": "bare", **{merge: f"{merge}:{chosen(merge)}" for merge in merges}}
    names = [recipe, *(name for name in missing if name != recipe)]
    reports = evaluate(program, folder, [words[name] for name in names], size.shots, size.queries, size.tasks, "--adapter", recipe, "--pool", *pool)
    write(table, reports, names, seed)


def write(table, reports, names, seed):
    """Rows of what is not in `table` yet; each of `names`, of which the first is the meta-LoRA, has an entry for each head in every report."""
    for report in reports:
        for index, method in enumerate(report["methods"]):
            name = names[index // len(HEADS)]
            difference = report["pairwise"][index % len(HEADS)][index]
            if table.find(seed=seed, name=name, shot=report["shot"], head=method["head"]):
                continue
            table.add({
                "seed": seed, "name": name, "scale": (method.get("merge") or {}).get("scale", ""), "shot": report["shot"], "head": method["head"], "tasks": method["tasks"],
                "accuracy": 100 * method["accuracy"], "ci95": 100 * method["ci95"],
                "gain": 100 * difference["mean"] if difference else "", "gain_ci95": 100 * difference["ci95"] if difference else "",
            })


if __name__ == "__main__":
    main()
