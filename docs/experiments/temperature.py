#!/usr/bin/env python3
"""Chooses the temperature of the probabilities, and measures how far they can be trusted.

    python3 docs/experiments/temperature.py LORA_RECYCLE fashion/ glyphs/ [--small]

Features come from `LORA_RECYCLE embed --json`. How hard a person's task is, is not known beforehand: a low temperature suits classes that the
backbone tells apart, a high one those that it does not. So that temperature of a fixed grid is taken which loses least to the best
one of each validation set (the first five classes of Fashion-MNIST by name; base letters), in negative log-likelihood, the worse set
counting. The table then shows it on classes that had no part in the choice. 200 tasks per row, 15 queries per class, seed 0.
Needs numpy. --small says that everything runs.
"""
import argparse
import json
import subprocess
from pathlib import Path

import numpy

GRID = [0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3]
TASKS, QUERIES, WAY = 200, 15, 5
FEW_TASKS, FEW_QUERIES = 5, 2


def features(program, folder):
    output = subprocess.run(
        [program, "embed", "--json", str(folder)], check=True, capture_output=True
    ).stdout
    classes = {}
    for row in json.loads(output):
        vector = numpy.array(row["feature"], dtype=numpy.float64)
        classes.setdefault(Path(row["image"]).parent.name, []).append(vector / numpy.linalg.norm(vector))
    return {name: numpy.array(vectors) for name, vectors in sorted(classes.items())}


def distances(classes, shot, seed, tasks, queries):
    """Cosine distances [tasks·queries, way] of queries to prototypes; the right class is column 0."""
    random = numpy.random.default_rng(seed)
    names = list(classes)
    rows = []
    for _ in range(tasks):
        chosen = random.choice(len(names), WAY, replace=False)
        pictures = [random.permutation(len(classes[names[c]]))[: shot + queries] for c in chosen]
        prototypes = numpy.array([classes[names[c]][p[:shot]].mean(0) for c, p in zip(chosen, pictures)])
        prototypes /= numpy.linalg.norm(prototypes, axis=1, keepdims=True)
        for place, (c, p) in enumerate(zip(chosen, pictures)):
            distance = 1 - classes[names[c]][p[shot:]] @ prototypes.T
            rows.append(numpy.roll(distance, -place, axis=1))
    return numpy.concatenate(rows)


def probabilities(distance, temperature):
    logits = -distance / temperature
    weights = numpy.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def likelihood(distance, temperature):
    return -numpy.log(numpy.maximum(probabilities(distance, temperature)[:, 0], 1e-30)).mean()


def calibration_error(distance, temperature, bins=15):
    """Expected calibration error: how far confidence and accuracy are apart, mean over bins of confidence."""
    p = probabilities(distance, temperature)
    confidence, right = p.max(1), p.argmax(1) == 0
    place = numpy.minimum((confidence * bins).astype(int), bins - 1)
    return sum(
        abs(confidence[place == b].mean() - right[place == b].mean()) * (place == b).mean()
        for b in range(bins)
        if (place == b).any()
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("fashion", type=Path)
    parser.add_argument("glyphs", type=Path)
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args()
    program, glyph_folder = asked.program, asked.glyphs
    size = (FEW_TASKS, FEW_QUERIES) if asked.small else (TASKS, QUERIES)
    fashion = features(program, asked.fashion)
    names = list(fashion)
    sets = {
        "fashion, first five classes": {name: fashion[name] for name in names[:5]},
        "glyphs, base": features(program, glyph_folder / "base"),
    }
    held_out = {
        "fashion, other five classes": {name: fashion[name] for name in names[5:]},
        "glyphs, novel": features(program, glyph_folder / "novel"),
    }
    loss = {
        name: {t: numpy.mean([likelihood(distances(classes, shot, 0, *size), t) for shot in (1, 5)]) for t in GRID}
        for name, classes in sets.items()
    }
    excess = {t: max(of_set[t] - min(of_set.values()) for of_set in loss.values()) for t in GRID}
    for t in GRID:
        parts = ", ".join(f"{name} {of_set[t]:.3f}" for name, of_set in loss.items())
        print(f"T {t:<5} negative log-likelihood: {parts}; worst excess {excess[t]:.3f}")
    best = min(GRID, key=excess.get)
    print(f"chosen: {best}\n")
    print("| classes | shots | accuracy % | negative log-likelihood | expected calibration error |")
    print("|---|---|---|---|---|")
    for name, classes in {**sets, **held_out}.items():
        for shot in (1, 5):
            d = distances(classes, shot, 0, *size)
            accuracy = 100 * (d.argmin(1) == 0).mean()
            print(f"| {name} | {shot} | {accuracy:.1f} | {likelihood(d, best):.3f} | {calibration_error(d, best):.3f} |")


if __name__ == "__main__":
    main()
