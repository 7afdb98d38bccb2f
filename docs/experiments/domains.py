#!/usr/bin/env python3
"""Meta-LoRAs away from home: on other scripts, drawn shapes and textures, clothes and photographs; pools of adapters from several of these; and the
one in the box.

    python docs/experiments/domains.py WORK --seed 0 --pools letters                       the one in the box
    python docs/experiments/domains.py WORK --seed 0 --pools letters --recipe together
    python docs/experiments/domains.py WORK --seed 0 --pools letters --recipe together --head auto
    python docs/experiments/domains.py WORK --seed 1 --without-scale

Follows `glyphs.py` on the same WORK, whose adapters and meta-LoRA it takes. Clothes (Fashion-MNIST) and textures lend some classes to adapters and
keep the others for the test; shapes, Greek letters and photographs are for the test alone. All meta-LoRAs have one recipe of `glyphs.py`. The one in the
box is that of the letters times the largest scale with which it is not worse than the bare backbone (paired CI) on validation letters and on the lent
clothes and textures, which no adapter of its pool has seen. Writes WORK/domains.csv (600 tasks, 5-way, 1
and 5 shots; differences are paired, line minus bare backbone) and a line of WORK/glyphs-runs.csv for each pool. Needs Pillow, fonts, and the data of
examples/fashion_mnist_folders.py and examples/photo_folders.py; domains whose data is not there are left out.
"""

from glyphs import RANK, RECIPES
from recycled import FIRST_HEAD, Full, Program, Small, Table, common_options, drawn, evaluate, glyphs, greek, recycle, some, tune_letters

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

# Of the meta-LoRA's effect.
SCALES = [0.15, 0.3, 0.5, 0.7, 1.0]
# Some classes of photographs have 5 pictures.
FEWER_QUERIES = 4


def lending(work, size):
    """Folders of the domains that lend some classes to adapters and keep the others for the test; those whose data is there."""
    folders = {}
    if drawn(work, size, "drawn_folders.py", work / "drawn"):
        folders["textures"] = work / "drawn/textures"
    if drawn(work, size, "fashion_mnist_folders.py", work / "clothes"):
        folders["clothes"] = work / "clothes"
    return folders


def lent(work, domain, folder):
    return some(work / f"{domain}-lent", [folder], lambda name: name in TUNED[domain])


def held_out(work, domain, folder):
    return some(work / f"{domain}-held-out", [folder], lambda name: name not in TUNED[domain])


def damped(program, table, seed, size, made, validation, tests, head):
    """The largest scale with which the meta-LoRA `made` harms nothing of `validation`; measures that one on the tests."""

    def measure(folders, split, scales):
        for domain, (folder, shots) in folders.items():
            own = with_fewer_queries(size) if domain == "photographs" else size
            evaluate(program, table, folder, f"{split}{domain}", shots, own, seed, [], [made], ["bare", *(f"sum:{scale}" for scale in scales)], RANK, "bare", f" of {made}", head=head)

    measure(validation, "validation ", SCALES)

    def harms(scale):
        rows = [table.find(seed=seed, split=f"validation {domain}", name=f"sum:{scale} of {made}") for domain in validation]
        return any(float(row["difference"]) < -float(row["difference_ci95"]) for own in rows for row in own)

    harmless = [scale for scale in SCALES if not harms(scale)]
    if harmless:
        measure(tests, "", [max(harmless)])
    return max(harmless, default=None)


def with_fewer_queries(size):
    return type("Few", (size,), {"queries": min(size.queries, FEWER_QUERIES)})


def main():
    parser = common_options(__doc__)
    parser.add_argument("--pools", nargs="+", choices=POOLS, help="default: all; with --small one of each kind")
    parser.add_argument("--without-scale", action="store_true", help="do not choose the scale of the adapter in the box")
    parser.add_argument("--recipe", choices=RECIPES, default="ours")
    parser.add_argument("--head", choices=["nearest-mean", "auto"], default=FIRST_HEAD, help="what reads the features; auto writes domains-auto.csv")
    asked = parser.parse_args()
    asked.pools = asked.pools or (["letters", "letters-and-textures"] if asked.small else list(POOLS))
    size, seed, work = (Small if asked.small else Full), asked.seed, asked.work
    program = Program(asked)
    suffix = "" if asked.head == FIRST_HEAD else f"-{asked.head}"
    table, runs = Table(work / f"domains{suffix}.csv", "seed split shot name asked_rank"), Table(work / "glyphs-runs.csv", "seed name")

    base, letters, capitals = glyphs(work, size)
    tests, validation = {"capitals": (capitals, size.shots)}, {"letters": (letters, size.shots)}
    if other_script := greek(work, size):
        tests["greek"] = (other_script, size.shots)
    if drawn(work, size, "drawn_folders.py", work / "drawn"):
        tests["shapes"] = (work / "drawn/shapes", size.shots)
    folders = lending(work, size)
    for domain, folder in folders.items():
        tests[domain] = (held_out(work, domain, folder), size.shots)
        validation[domain] = (lent(work, domain, folder), size.shots)
    if drawn(work, size, "photo_folders.py", work / "photographs"):
        tests["photographs"] = (work / "photographs", (1,))

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
        made = asked.recipe if name == "letters" else f"pool-{name}" + ("" if asked.recipe == "ours" else f"-{asked.recipe}")
        recycle(program, runs, work, made, pool, *RECIPES[asked.recipe], size, seed)
        for domain, (folder, shots) in tests.items():
            own = with_fewer_queries(size) if domain == "photographs" else size
            # The scale is that of the recipe, 4 through the number of adapters.
            evaluate(program, table, folder, domain, shots, own, seed, [made], pool, ["bare", f"sum:{min(1, 4 / len(pool)):.3g}"], RANK, "bare", f" of {name}", head=asked.head)
        if name == "letters" and not asked.without_scale:
            print(f"{made} harms nothing of validation up to the scale {damped(program, table, seed, size, made, validation, tests, asked.head)}")
    print(table.path)


if __name__ == "__main__":
    main()
