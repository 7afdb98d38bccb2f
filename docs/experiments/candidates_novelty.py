#!/usr/bin/env python3
"""Novelty with few supports, on validation classes: rules for how far queries of known classes are from the nearest class mean. The program has
`0.5V+0.5U` at 1 shot and `0.75V+0.25U` from 2 on.

    python docs/experiments/candidates_novelty.py WORK

Follows candidates.py on the same WORK, whose features it takes. 100 tasks of 8 queries for each class and as many of the other classes of the domain, with 2, 3
and 4 classes. A rule names a centre in log-distance; a query is refused where its log-distance to the nearest mean is above centre + c. c is the 95 % quantile of
what queries of known classes of the two other domains are above their centre with 4 classes, both models together; the share of V in the rule `chosen`
is chosen on the two other domains, too. Writes WORK/candidates-novelty.csv.

    V   mean log-distance of the copies of each support to the mean of its class, in the metric without that class
    U   mean log-distance of the supports to the nearest mean of the other classes, in the same metric
    K   mean log-distance of supports to the nearest mean where each was left out with its copies (2 supports)
    P   mean log-distance of each mean to the nearest other one
"""

import argparse
import csv
import pathlib

import numpy

from candidates import FOLDERS, distances, shrunk_rows, spread, unit

TASKS, QUERIES, SEED = 100, 8, 7


def mixed(share):
    return lambda own: share * own["V"] + (1 - share) * own["U"]


RULES = {
    "constant": lambda own: 0.0, "V": lambda own: own["V"], "U": lambda own: own["U"], "K": lambda own: own["K"],
    **{f"{share}V+{1 - share:.2g}U": mixed(share) for share in (0.4, 0.5, 0.6, 0.75)},
    "0.4V+0.6P": lambda own: 0.4 * own["V"] + 0.6 * own["P"],
    "0.7K+0.3U": lambda own: 0.7 * own["K"] + 0.3 * own["U"],
}


def logarithms(x, means, rows, to=None):
    """Log-distances of `rows` to `to`, or else to `means`, in the metric of `lda-augmented` of the supports `x` with class means `means`."""
    d, floor = shrunk_rows(spread(x, means))
    inverse = numpy.linalg.inv(numpy.linalg.cholesky(d @ d.T + floor * numpy.eye(len(d))))
    to = means if to is None else to
    squares = distances(rows, to) - distances(rows @ d.T @ inverse.T, to @ d.T @ inverse.T)
    return 0.5 * numpy.log(numpy.maximum(squares / floor, 1e-12))


def task(features, way, shot, random):
    """Log-distances of known and of unknown queries to the nearest mean, and what the rules take."""
    order = random.permutation(len(features))
    chosen = [features[c, random.permutation(features.shape[1])[: shot + QUERIES]] for c in order[:way]]
    x = numpy.stack([own[:shot] for own in chosen])
    known = numpy.concatenate([own[shot:, 0] for own in chosen])
    unknown = features[order[way:], :, 0].reshape(-1, x.shape[-1])
    unknown = unknown[random.permutation(len(unknown))[: len(known)]]
    means = x[:, :, 0].mean(1)
    found = {"V": [], "U": [], "K": []}
    for c in range(way):
        others = [other for other in range(way) if other != c]
        copies = x[c, :, 1:].reshape(-1, x.shape[-1])
        found["V"].append(logarithms(x[others], means[others], copies, means[c : c + 1]))
        found["U"].append(logarithms(x[others], means[others], x[c, :, 0]).min(1))
    for place in range(shot if shot > 1 else 0):
        kept = numpy.delete(x, place, 1)
        found["K"].append(logarithms(kept, kept[:, :, 0].mean(1), x[:, place, 0]).min(1))
    rules = {name: numpy.mean(own) for name, own in found.items() if own}
    apart = logarithms(x, means, means)
    rules["P"] = (apart + numpy.diag(numpy.full(way, numpy.inf))).min(1).mean()
    return logarithms(x, means, known).min(1), logarithms(x, means, unknown).min(1), rules


def area(higher, lower):
    return (1 + numpy.sign(higher[:, None] - lower[None]).mean()) / 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=pathlib.Path)
    work = parser.parse_args().work
    found = {}
    for domain in FOLDERS:
        for model in ("bare", "adapter"):
            features = unit(numpy.load(work / f"candidates/{domain}/{model}.npy")[..., -1, :].astype(float))
            for way in (2, 3, 4):
                for shot in (1, 2):
                    random = numpy.random.default_rng([SEED, way, shot])
                    found[domain, model, way, shot] = [task(features, way, shot, random) for _ in range(TASKS)]

    def above(domain, model, way, shot, rule, at=0):
        return numpy.concatenate([own[at] - rule(own[2]) for own in found[domain, model, way, shot]])

    def limit(others, shot, rule):
        return numpy.quantile(numpy.concatenate([above(*other, 4, shot, rule) for other in others]), 0.95)

    def chosen(others, shot):
        """The share of V with which the refused shares of the other domains are nearest to 5 %, the farthest counting."""

        def farthest(share):
            c = limit(others, shot, mixed(share))
            return max(abs((above(*other, 4, shot, mixed(share)) > c).mean() - 0.05) for other in others)

        return min(numpy.arange(21) / 20, key=farthest)

    with open(work / "candidates-novelty.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow("domain,model,way,shot,rule,share,c,known_refused,unknown_refused,auroc".split(","))
        for (domain, model, way, shot), tasks in found.items():
            auroc = numpy.mean([area(unknown, known) for known, unknown, _ in tasks])
            others = [(other, own) for other in FOLDERS if other != domain for own in ("bare", "adapter")]
            share = chosen(others, shot)
            for name, rule in {**RULES, "chosen": mixed(share)}.items():
                if "K" in name and shot == 1:
                    continue
                c = limit(others, shot, rule)
                refused = [100 * (above(domain, model, way, shot, rule, at) > c).mean() for at in (0, 1)]
                figures = [f"{c:.3f}", *(f"{value:.1f}" for value in (*refused, 100 * auroc))]
                writer.writerow([domain, model, way, shot, name, f"{share:.2f}" if name == "chosen" else "", *figures])


if __name__ == "__main__":
    main()
