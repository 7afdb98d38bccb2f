#!/usr/bin/env python3
"""Chooses the temperature of the probabilities, and measures how far they can be trusted.

    python3 docs/experiments/temperature.py LORA_RECYCLE fashion/ glyphs/

Features come from `LORA_RECYCLE embed --json`. The temperature is the one of a fixed grid with the smallest mean negative
log-likelihood on validation classes: the first five of Fashion-MNIST by name. The table then shows it on classes that had no part in
the choice. Glyphs, which the bare backbone hardly tells apart, are reported and not chosen on: near chance any temperature that flattens
the probabilities wins. 200 tasks a row, 15 queries a class, seed 0. Needs numpy.
"""
import json
import subprocess
import sys
from pathlib import Path

import numpy

GRID = [0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3]
TASKS, QUERIES, WAY = 200, 15, 5


def features(program, folder):
    output = subprocess.run(
        [program, "embed", "--json", str(folder)], check=True, capture_output=True
    ).stdout
    classes = {}
    for row in json.loads(output):
        vector = numpy.array(row["feature"], dtype=numpy.float64)
        classes.setdefault(Path(row["image"]).parent.name, []).append(vector / numpy.linalg.norm(vector))
    return {name: numpy.array(vectors) for name, vectors in sorted(classes.items())}


def distances(classes, shot, seed):
    """Cosine distances [tasks·queries, way] of queries to prototypes; the right class is column 0."""
    random = numpy.random.default_rng(seed)
    names = list(classes)
    rows = []
    for _ in range(TASKS):
        chosen = random.choice(len(names), WAY, replace=False)
        pictures = [random.permutation(len(classes[names[c]]))[: shot + QUERIES] for c in chosen]
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
    program, fashion_folder, glyph_folder = sys.argv[1:4]
    fashion = features(program, fashion_folder)
    names = list(fashion)
    sets = {"fashion, first five classes": {name: fashion[name] for name in names[:5]}}
    held_out = {
        "fashion, other five classes": {name: fashion[name] for name in names[5:]},
        "glyphs, base": features(program, Path(glyph_folder) / "base"),
        "glyphs, novel": features(program, Path(glyph_folder) / "novel"),
    }
    validation = {(name, shot): distances(c, shot, 0) for name, c in sets.items() for shot in (1, 5)}
    mean = {t: numpy.mean([likelihood(d, t) for d in validation.values()]) for t in GRID}
    for t in GRID:
        print(f"T {t:<5} mean negative log-likelihood on validation classes {mean[t]:.4f}")
    best = min(GRID, key=mean.get)
    print(f"chosen: {best}\n")
    print("| classes | shots | accuracy % | negative log-likelihood | expected calibration error |")
    print("|---|---|---|---|---|")
    for name, classes in {**sets, **held_out}.items():
        for shot in (1, 5):
            d = distances(classes, shot, 0)
            accuracy = 100 * (d.argmin(1) == 0).mean()
            print(f"| {name} | {shot} | {accuracy:.1f} | {likelihood(d, best):.3f} | {calibration_error(d, best):.3f} |")


if __name__ == "__main__":
    main()
