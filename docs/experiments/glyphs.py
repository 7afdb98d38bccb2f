#!/usr/bin/env python3
"""The whole way on coloured letters: tune a pool, invert it, recycle it, and measure it beside all merges on letters that nothing was tuned on.

    cargo build --release
    for seed in 0 1 2; do python docs/experiments/glyphs.py WORK --seed $seed; done
    make experiments-smoke                       a small version of everything, in minutes

Classes: adapters are tuned on 20 small letters; the other six (c f k p t y) choose the recipe and each merge's scale; capitals and digits (`test` in
the table), Greek letters (`greek`) and all of these (`signs`) test. Recipes are chosen by the mean of 1 and 5 shots and of all seeds, scales by 1 shot. A seed is that of the whole pipeline: adapters, images, meta-training. WORK/glyphs.csv gets a line for each method, kind of classes and
number of shots (600 tasks), WORK/glyphs-runs.csv one for each meta-training; what stands there is not done again. Differences are
paired and to the chosen meta-LoRA. Needs Pillow and fonts: on Debian `apt install $(cat docs/experiments/typefaces.txt)`, and no others for the same pictures.
"""


from recycled import HARD, PLAIN, Full, Program, Small, Table, common_options, evaluate, glyphs, greek, mean_accuracy, recycle, some, tune_letters

OURS = {"rank": 16, "layers": "all", "episodes": 600, "sparsity": 0.75, "colour": True, "affine": True, "inversion_probability": 0.0, "learning_rate": 3e-4, "merge_coefficients": None}
LONGER = {**OURS, "episodes": 1200, "inversion_probability": 0.5}
FACTORS_FIRST = {**LONGER, "merge_coefficients": {"steps": 60}}
# What helped by itself in `ablations.py`; put together with the test figures in sight (NOTEBOOK.md).
TOGETHER = {**FACTORS_FIRST, "sparsity": 0.5, "layers": "last-6", "learning_rate": 6e-4}
# Name: fields of the meta-training recipe over the preset, and of that of the images.
RECIPES = {
    "ours": (OURS, HARD),
    "longer": (LONGER, HARD),
    "factors-first": (FACTORS_FIRST, HARD),
    "together": (TOGETHER, HARD),
    "paper": ({"preset": "paper", "episodes": 300}, PLAIN),
}
# Of the highest mean on validation letters over seeds and shots; what others are compared with where it is measured.
CHOSEN = "together"
# Learn from the tuned letters' own pictures, all of them, for longer and with as many questions a task as 8 synthetic images allow. The best on validation
# letters is the upper bound.
BOUNDS = {
    "real": {**OURS, "episodes": 1800, "queries": 5},
    "real-factors-first": {**FACTORS_FIRST, "episodes": 3600, "queries": 5},
    "real-together": {**TOGETHER, "episodes": 3600, "queries": 5},
}
# Scales to choose among; 1 is what the authors of ties, knots, core and ctm write.
MERGES = {
    "sum": ["sum:0.1", "sum:0.15", "sum:0.2", "sum:0.25", "sum:0.33"],
    "tsv": ["tsv:0.6", "tsv:0.8", "tsv:1", "tsv:1.4", "tsv:2"],
    "ties": ["ties:0.7", "ties:1", "ties:1.4"],
    "knots": ["knots:0.7", "knots:1", "knots:1.4", "knots:2", "knots:2.8"],
    "core": ["core:1", "core:1.4", "core:2", "core:2.8"],
    "ctm": ["ctm:1", "ctm:1.4", "ctm:2", "ctm:2.8", "ctm:4"],
}
WITHOUT_SCALE = ["bare", "average", "linear", "pixels"]
RANK = 16
TESTS = ["test", "greek", "signs"]


def main():
    parser = common_options(__doc__)
    parser.add_argument("--only", nargs="*", choices=RECIPES, default=list(RECIPES), help="recipes to choose among")
    parser.add_argument("--bounds", nargs="*", choices=BOUNDS, default=list(BOUNDS), help="of meta-training on real pictures, which takes longest")
    parser.add_argument("--last", action="store_true", help="measure the last states of the recipes, too, where the best validated one is another")
    parser.add_argument("--without-tune", action="store_true", help="leave out the LoRA that is tuned for each task")
    parser.add_argument("--tests", nargs="+", choices=TESTS, default=TESTS, help="capitals and digits, Greek letters, all of these")
    parser.add_argument("--ranks", nargs="*", default=[str(RANK), "exact"], choices=[str(RANK), "exact"], help="of merges")
    asked = parser.parse_args()
    if not asked.only and not asked.bounds:
        parser.error("nothing to measure: name a recipe behind --only or a bound behind --bounds")
    size, seed = (Small if asked.small else Full), asked.seed
    asked.work.mkdir(parents=True, exist_ok=True)
    base, validation, capitals = glyphs(asked.work, size)
    tests = {"test": capitals} if "test" in asked.tests else {}
    if (others := [split for split in asked.tests if split != "test"]) and (other_script := greek(asked.work, size)):
        signs = some(asked.work / "signs", [capitals, other_script])
        tests |= {split: {"greek": other_script, "signs": signs}[split] for split in others}
    program = Program(asked)
    table = Table(asked.work / "glyphs.csv", "seed split shot name asked_rank")
    runs = Table(asked.work / "glyphs-runs.csv", "seed name")
    ranks = [None if rank == "exact" else RANK for rank in asked.ranks]

    pool = tune_letters(program, base, size, seed)
    for name in asked.only:
        fields, images = RECIPES[name]
        recycle(program, runs, asked.work, name, pool, fields, images, size, seed)
    for name in asked.bounds:
        recycle(program, runs, asked.work, name, pool, BOUNDS[name], HARD, size, seed, size.pictures, base)

    made = {adapter["name"] for adapter in program.json("adapter", "list")}
    lasts = [last for name in asked.only if asked.last and (last := f"{name}-last") in made]

    def choose(names, **key):
        return max(names, key=lambda name: mean_accuracy(table, seed=seed, split="validation", name=name, **key))

    grid = [merge for scales in MERGES.values() for merge in scales]
    evaluate(program, table, validation, "validation", size.shots, size, seed, [*asked.only, *lasts, *asked.bounds])
    evaluate(program, table, validation, "validation", [1], size, seed, [], pool, ["bare"])
    for rank in ranks:
        evaluate(program, table, validation, "validation", [1], size, seed, [], pool, grid, rank)
    best = CHOSEN if CHOSEN in asked.only else choose(asked.only or asked.bounds)
    names = [best, *(name for name in [*asked.only, *lasts, *asked.bounds] if name != best)]
    for split, folder in tests.items():
        evaluate(program, table, folder, split, size.shots, size, seed, names, pool, WITHOUT_SCALE)
        for rank in ranks:
            merges = [choose(scales, asked_rank=rank or "exact") for scales in MERGES.values()]
            evaluate(program, table, folder, split, size.shots, size, seed, [best], pool, merges, rank)
    # A LoRA tuned for each task knows no pool and no seed: once is enough, on the few tasks that the program takes.
    for shot in [] if asked.without_tune else size.shots:
        if not table.find(split="test", name="tune", shot=shot):
            evaluate(program, table, capitals, "test", [shot], size, seed, [best], pool, ["tune"], validation=validation)
    print(table.path)


if __name__ == "__main__":
    main()
