#!/usr/bin/env python3
"""Token pruning in inversion by layer and ratio, with and without the published residual; and what the tokens hold that are left out.

    python docs/experiments/pruned.py WORK --seed 0

Follows `glyphs.py` on the same WORK: exports its first adapters with their images and gives both to the examples `pruned_inversion` and
`token_contents` of the core crate, which it builds. Writes WORK/pruned.csv, a line for each adapter, place of pruning and mode, and WORK/tokens.csv, a
line for each share of patches that is left out, means over the adapters; what is there already is not done again.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys

from recycled import ROOT, Full, Program, Small, Table, common_options, exported, glyphs, tune_letters

PLACES = [(2, 0.75), (4, 0.75), (6, 0.75), (4, 0.5)]
SHARES = [0.25, 0.5, 0.75, 0.9]


EXAMPLES = ["pruned_inversion", "token_contents"]


def build():
    """The folder of the examples."""
    names = [word for name in EXAMPLES for word in ("--example", name)]
    subprocess.run(["cargo", "build", "--release", "--locked", "--workspace", *names], check=True, cwd=ROOT)
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/examples"


def lines_of(command):
    """What an example prints."""
    command = [str(word) for word in command]
    print("+", " ".join(command)[:200], file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def main():
    asked = common_options(__doc__).parse_args()
    size, seed = (Small if asked.small else Full), asked.seed
    # With fewer steps each one judges the images, and none is timed.
    adapters, steps, places = (1, 20, PLACES[:1]) if asked.small else (2, 24, PLACES)
    base, _, _ = glyphs(asked.work, size)
    program, examples = Program(asked), build()
    letters = tune_letters(program, base, size, seed)
    folder = asked.work / f"exported-{seed}"
    folders = {name: exported(program, folder / name, "adapter", name) for name in letters}

    tokens = Table(asked.work / "tokens.csv", "seed sparsity prototypes tokens")
    missing_shares = [share for share in (SHARES[:1] if asked.small else SHARES) if not tokens.find(seed=seed, sparsity=f"{share:.4f}")]
    if missing_shares:
        # Those that meta-training of `ours` learned from.
        pools = program.json("adapter", "show", "ours")["lineage"]["recipe"]["pools"]
        pairs = [exported(program, folder / f"images-of-{name}", "pool", pool) for name, pool in zip(letters, pools)]
        pairs = [path for name, images in zip(letters, pairs) for path in (folders[name], images)]
    for share in missing_shares:
        lines = lines_of([examples / "token_contents", "--sparsity", share, *pairs])
        for prototypes in ("class_token", "patches"):
            for kind in ("kept", "pruned"):
                own = [line["of"][prototypes][kind] for line in lines]
                means = {figure: statistics.mean(line[figure] for line in own) for figure in ("own_class", "other_class", "nearest_to_own")}
                tokens.add({"seed": seed, "sparsity": share, "prototypes": prototypes, "tokens": kind, "adapters": len(own), **means})

    pruned = Table(asked.work / "pruned.csv", "seed adapter layer ratio mode")
    for layer, ratio in places:
        missing = [name for name in letters[:adapters] if not pruned.find(seed=seed, adapter=name, layer=layer, ratio=f"{ratio:.4f}")]
        if missing:
            options = ["--layer", layer, "--ratio", ratio, "--steps", steps, "--threads", asked.threads or os.cpu_count(), "--seed", seed]
            for line in lines_of([examples / "pruned_inversion", *options, *(folders[name] for name in missing)]):
                pruned.add({"seed": seed, "adapter": line.pop("adapter"), "layer": layer, "ratio": ratio, **line})
    print(pruned.path, tokens.path)


if __name__ == "__main__":
    main()
