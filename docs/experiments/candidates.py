#!/usr/bin/env python3
"""Candidates for a head, on validation classes: but for `queries-of-copies`, none of them is in the program.

    python docs/experiments/candidates.py WORK

Letters c f k p t y, five classes of clothes and eight of textures; the bare backbone and the adapter in the box; 100 tasks of each number of examples, 5-way,
15 queries. Differences are paired: line minus `lda-augmented` on the same tasks. Transductive heads are measured on as many queries of each class (`even`)
and on numbers of queries from Dirichlet(0.5): 75 (`dirichlet`) or as many as the name says, or as many as a class has pictures; and in 4-way tasks
with pictures of other classes among the queries, which do not count. Writes WORK/candidates.csv; a cell that is there is not measured again. Keeps features
in WORK/candidates. Needs numpy, Pillow and the folders that heads.py makes in WORK; features.py beside this script computes the features in numpy.
"""

import argparse
import csv
import multiprocessing
import pathlib

import numpy

from features import features_of

WAY, QUERIES, SHOTS, TASKS, SEED = 5, 15, [1, 2, 5, 10], 100, 7
FOLDERS = {"letters": "validation", "clothes": "clothes-lent", "textures": "textures-lent"}
OTHER_LETTERS = "abdeghijlmnoqrsuvwxz"
SHRINKAGE = 0.3


def unit(x):
    return x / numpy.linalg.norm(x, axis=-1, keepdims=True)


class Task:
    """`supports` `[way, shot, 1 + copies, 1 + layers, width]`, `queries` `[n, 1 + copies, 1 + layers, width]`, all of length one; the label of pictures
    of other classes is −1."""

    def __init__(self, features, shot, random, way=WAY, queries=WAY * QUERIES, proportions=None, others=0):
        order = random.permutation(len(features))
        pictures = [random.permutation(features.shape[1]) for _ in order[:way]]
        counts = numpy.full(way, queries // way)
        if proportions:
            counts = random.multinomial(queries, random.dirichlet([proportions] * way))
        self.supports = numpy.stack([features[c, own[:shot]] for c, own in zip(order, pictures)]).astype(float)
        found = [features[c, own[shot : shot + count]] for c, own, count in zip(order, pictures, counts)]
        self.labels = numpy.repeat(numpy.arange(way), [len(own) for own in found])
        if others:
            unknown = features[order[way:]].reshape(-1, *features.shape[2:])
            found.append(unknown[random.permutation(len(unknown))[:others]])
            self.labels = numpy.append(self.labels, numpy.full(others, -1))
        self.queries = numpy.concatenate(found).astype(float)
        self.kept = {}

    def once(self, make, *more):
        """What several heads need."""
        if (make, more) not in self.kept:
            self.kept[make, more] = make(self, *more)
        return self.kept[make, more]

    def last(self):
        """Supports with copies, queries: means of patch tokens after the last layer, the program's features."""
        return self.supports[..., -1, :], self.queries[:, 0, -1]


def deviations(x, means):
    return (x - means[:, None, None]).reshape(-1, x.shape[-1])


def linear(q, means, solved):
    """Scores of the queries `q` for `solved` = Σ⁻¹m."""
    return q @ solved.T - 0.5 * (means * solved).sum(-1)


def inverse_times(rows, floor, right, signs=1.0):
    """(floor·I + Σ ±row·rowᵀ)⁻¹ times each row of `right`."""
    inner = numpy.linalg.solve(rows @ rows.T + floor * numpy.diag(numpy.broadcast_to(signs, len(rows))), rows @ right.T)
    return (right - inner.T @ rows) / floor


def lda(x, q, a=SHRINKAGE, means=None):
    """The program's `lda-augmented`."""
    means = x[:, :, 0].mean(1) if means is None else means
    rows, floor = shrunk_rows(spread(x, means), a)
    return linear(q, means, inverse_times(rows, floor, means))


def spread(x, means):
    """Rows whose products add up to the covariance within classes."""
    d = deviations(x, means)
    return d / max(len(d) - len(x), 1) ** 0.5


def shrunk_rows(rows, a=SHRINKAGE):
    return (1 - a) ** 0.5 * rows, a * (rows * rows).sum() / rows.shape[1]


def covariance(x, means):
    rows = spread(x, means)
    return rows.T @ rows


def shrunk(s, a=SHRINKAGE):
    return (1 - a) * s + a * numpy.trace(s) / len(s) * numpy.eye(len(s))


def nearest_mean(task):
    x, q = task.last()
    return q @ unit(x[:, :, 0].mean(1)).T


def default(task):
    return lda(*task.last())


def ridge_scores(x, q, strength):
    """Ridge regression to one-hot labels with an intercept; `strength` in units of the mean variance times the number of rows."""
    way, width = len(x), x.shape[-1]
    rows, labels = x.reshape(-1, width), numpy.repeat(numpy.eye(way), x.shape[1] * x.shape[2], 0)
    middle = rows.mean(0)
    d = rows - middle
    penalty = strength * (d * d).sum() / width
    inner = numpy.linalg.solve(d @ d.T + penalty * numpy.eye(len(d)), labels - labels.mean(0))
    return (q - middle) @ d.T @ inner


def ridge(strength):
    return lambda task: ridge_scores(*task.last(), strength)


def power(x):
    """Tukey's transform with exponent 1/2 of values of either sign."""
    return numpy.sign(x) * numpy.sqrt(numpy.abs(x))


def fecam(tukey=False):
    """FeCAM with shrinkages of 1.

    After a LayerNorm the sum of a feature's values hardly varies, and shrinking covariances to their mean makes the matrix singular; without Tukey's
    transform only variances are shrunk.
    """

    def scores(task):
        x, q = (power(part) if tukey else part for part in task.last())
        means, width, result = x[:, :, 0].mean(1), x.shape[-1], []
        for own, mean in zip(x, means):
            rows = spread(own[None], mean[None])
            diagonal = (rows * rows).sum(0)
            others = tukey * ((rows.sum(1) ** 2).sum() - diagonal.sum()) / width / (width - 1)
            rows = numpy.concatenate([rows, numpy.full((1, width), abs(others) ** 0.5)])
            signs = numpy.append(numpy.ones(len(rows) - 1), -1 if others < 0 else 1)
            # The inverse of the correlations is that of the covariances between values times their standard deviations.
            d = (q - mean) * numpy.sqrt(diagonal + diagonal.mean())
            result.append(-(d * inverse_times(rows, diagonal.mean() - others, d, signs)).sum(-1))
        return numpy.stack(result, 1)

    return scores


def own_covariance(share):
    """`lda-augmented` with that share of each class's own covariance in its metric, scaled to the trace of that of all."""

    def scores(task):
        x, q = task.last()
        means, result = x[:, :, 0].mean(1), []
        shared = spread(x, means)
        for own, mean in zip(x, means):
            rows = spread(own[None], mean[None])
            rows *= (share * (shared * shared).sum() / (rows * rows).sum()) ** 0.5
            rows, floor = shrunk_rows(numpy.concatenate([(1 - share) ** 0.5 * shared, rows]))
            result.append(-((q - mean) * inverse_times(rows, floor, q - mean)).sum(-1))
        return numpy.stack(result, 1)

    return scores


def projected(task, count):
    x, q = task.last()
    projection = numpy.random.default_rng(0).standard_normal((x.shape[-1], count))
    return numpy.maximum(x @ projection, 0), numpy.maximum(q @ projection, 0)


def ranpac(count, strength=None):
    """Random projection to `count` values and ReLU; then ridge with `strength`, or else `lda-augmented`."""

    def scores(task):
        x, q = task.once(projected, count)
        return ridge_scores(x, q, strength) if strength else lda(x, q)

    return scores


def joined(*parts):
    """`lda-augmented` on several features one after the other: 0 is the class token, the others are layers."""

    def scores(task):
        x, q = (numpy.concatenate([of[..., part, :] for part in parts], -1) for of in (task.supports, task.queries[:, 0]))
        return lda(x, q)

    return scores


def summed(*parts):
    """Scores of `lda-augmented` on each, added."""
    return lambda task: sum(lda(task.supports[..., part, :], task.queries[:, 0, part]) for part in parts)


def with_prior(prior, weight):
    """The covariance within the classes of other pictures, scaled to the trace of that of the supports, as this number of rows more or as that share."""

    def scores(task):
        x, q = task.last()
        means = x[:, :, 0].mean(1)
        s = covariance(x, means)
        share = weight if weight < 1 else weight / (weight + x.shape[0] * (x.shape[1] * x.shape[2] - 1))
        s = (1 - share) * s + share * prior * numpy.trace(s) / numpy.trace(prior)
        return linear(q, means, numpy.linalg.solve(shrunk(s), means.T).T)

    return scores


def averaged(of_supports=False, step=1):
    """A query stands for the mean of itself and its copies, the mean of a class for those of its supports: 7 (or 4) times the work for a query."""

    def scores(task):
        x = task.supports[..., -1, :]
        means = x[:, :, ::step].mean((1, 2)) if of_supports else None
        places = [0, *range(1, x.shape[2], step)]
        return lda(x, unit(task.queries[:, places, -1].mean(1)), means=means)

    return scores


def turned(task):
    """Rows of supports and copies along their own directions, these directions, and what the rows are taken from."""
    x, _ = task.last()
    rows = x.reshape(-1, x.shape[-1])
    u, s, directions = numpy.linalg.svd(rows - rows.mean(0), full_matrices=False)
    return u * s, directions, rows.mean(0)


def logistic(strength, steps=150):
    """Multinomial logistic regression on supports and copies by accelerated gradient; `strength` in units of the largest curvature."""

    def scores(task):
        x, q = task.last()
        rows, directions, middle = task.once(turned)
        labels = numpy.repeat(numpy.eye(len(x)), len(rows) // len(x), 0)
        curvature = (rows[:, 0] ** 2).sum() / len(rows) / 2
        penalty, momentum = strength * curvature, (1 - strength**0.5) / (1 + strength**0.5)
        weight = at = numpy.zeros((rows.shape[1], len(x)))
        for _ in range(steps):
            p = numpy.exp(rows @ at)
            gap = (p / p.sum(-1, keepdims=True) - labels) / len(rows)
            last, weight = weight, at - (rows.T @ gap + penalty * at) / (curvature + penalty)
            at = weight + momentum * (weight - last)
        return (q - middle) @ directions.T @ weight

    return scores


def whitened(task, of_copies):
    """Means and queries in the metric of `lda-augmented`."""
    x, q = task.last()
    if of_copies:
        q = unit(task.queries[..., -1, :].mean(1))
    means = x[:, :, 0].mean(1)
    root = numpy.linalg.cholesky(shrunk(covariance(x, means)))
    return [numpy.linalg.solve(root, rows.T).T for rows in (means, q)]


def soft_k_means(steps, temperature=1.0, weight=1.0, prior=None, of_copies=False):
    """Class means that move to the queries; `temperature` in units of the program's, `weight` how many queries a support is worth,
    `prior` how many queries the even proportions of the classes are worth, None for even ones throughout; with `of_copies` as `averaged`."""

    def scores(task):
        first, q = task.once(whitened, of_copies)
        t, held = temperature * 0.3 * q.shape[1], weight * task.supports.shape[1]
        means, logs = first, numpy.zeros(len(first))
        for _ in range(steps):
            p = distances(q, means) / -t + logs
            p = numpy.exp(p - p.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            total = p.sum(0)
            means = (held * first + p.T @ q) / (held + total)[:, None]
            if prior is not None:
                logs = numpy.log((total + prior / len(first)) / (len(q) + prior))
        return distances(q, means) / -t + logs

    return scores


def distances(q, means):
    return (q * q).sum(-1)[:, None] - 2 * q @ means.T + (means * means).sum(-1)


def candidates(priors):
    result = {
        "lda-augmented": default, "nearest-mean": nearest_mean,
        **{f"ridge:{strength}": ridge(strength) for strength in (0.1, 1, 10)},
        "fecam": fecam(), "fecam:tukey": fecam(True), "own-covariance:0.3": own_covariance(0.3),
        "ranpac:2000:ridge=1": ranpac(2000, 1), "ranpac:2000:lda": ranpac(2000),
        "class-token": joined(0), "class-token+mean": joined(0, 4), "layers-78": joined(3, 4), "layers-678": joined(2, 3, 4), "scores-78": summed(3, 4), "scores-68": summed(2, 4),
        "queries-of-copies": averaged(), "queries-of-copies:means": averaged(True), "queries-of-4": averaged(step=2),
        **{f"logistic:{strength}": logistic(strength) for strength in (0.001, 0.01)},
    }
    for name, prior in priors.items():
        for weight in (0.3, 30, 100):
            result[f"prior:{name}:{weight}"] = with_prior(prior, weight)
    return result


def transductive():
    settings = {
        "1": (1,), "3": (3,), "10": (10,), "3:t=0.3": (3, 0.3), "3:t=2": (3, 2.0),
        "3:weight=5": (3, 1.0, 5.0), "3:weight=15": (3, 1.0, 15.0), "3:t=0.3:weight=5": (3, 0.3, 5.0), "1:t=0.3:weight=15": (1, 0.3, 15.0),
        "3:t=0.3:weight=15": (3, 0.3, 15.0), "10:t=0.3:weight=15": (10, 0.3, 15.0), "3:t=0.1:weight=15": (3, 0.1, 15.0), "3:t=0.3:weight=50": (3, 0.3, 50.0),
        "3:prior=10": (3, 1.0, 1.0, 10.0), "3:weight=5:prior=10": (3, 1.0, 5.0, 10.0), "3:t=0.3:weight=15:prior=50": (3, 0.3, 15.0, 50.0),
    }
    return {"lda-augmented": default, **{f"soft-k-means:{name}": soft_k_means(*own) for name, own in settings.items()}}


def within(features):
    """The covariance within classes of pictures `[classes, pictures, ...]`."""
    x = features[:, :, 0, -1].astype(float)
    return covariance(x[:, :, None], x.mean(1))


def interval(values):
    return values.mean(), 1.96 * values.std(ddof=1) / len(values) ** 0.5


def further():
    return {
        "lda-augmented": default, "queries-of-copies": averaged(),
        "soft-k-means:3:t=0.3:weight=15": soft_k_means(3, 0.3, 15.0), "soft-k-means:3:t=0.1:weight=15": soft_k_means(3, 0.1, 15.0),
        "soft-k-means:3:t=0.1:weight=15:queries-of-copies": soft_k_means(3, 0.1, 15.0, of_copies=True),
    }


DIRICHLET = 0.5
# Queries of a task: heads, shots, how they are drawn.
STUDIES = {
    "even": (lambda priors: {**candidates(priors), **transductive()}, SHOTS, {}),
    "dirichlet": (lambda priors: transductive(), SHOTS, {"proportions": DIRICHLET}),
    **{f"dirichlet-{count}": (lambda priors: further(), [1, 5], {"proportions": DIRICHLET, "queries": count}) for count in (15, 75, 190)},
    "dirichlet-60-others-20": (lambda priors: further(), [1, 5], {"way": 4, "proportions": DIRICHLET, "queries": 60, "others": 20}),
}


def lines(work, domain, model, shot, known):
    """Of all studies that are not in the table."""
    features = {name: unit(numpy.load(work / f"candidates/{name}/{model}.npy")) for name in [*FOLDERS, "other-letters"]}
    priors = {"letters": within(features["other-letters"])}
    if domain == "letters":
        others = [within(features[name]) for name in ("clothes", "textures")]
        priors["wrong"] = sum(own / numpy.trace(own) for own in others)
    result = []
    for number, (study, (heads, shots, drawn)) in enumerate(STUDIES.items()):
        if shot not in shots or (domain, model, str(shot), study) in known:
            continue
        random, heads = numpy.random.default_rng([SEED, shot, number]), heads(priors)
        found = {name: numpy.zeros(TASKS) for name in heads}
        for index in range(TASKS):
            task = Task(features[domain], shot, random, **drawn)
            counted = task.labels >= 0
            for name, head in heads.items():
                found[name][index] = (head(task).argmax(-1) == task.labels)[counted].mean()
        for name, values in found.items():
            figures = [*interval(values), *interval(values - found["lda-augmented"])]
            result.append([domain, model, shot, study, name, *(f"{100 * figure:.2f}" for figure in figures)])
    return result


def of_cell(cell):
    return lines(*cell)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=pathlib.Path, help="folder for pictures and tables")
    parser.add_argument("--processes", type=int, default=1)
    asked = parser.parse_args()
    for name, folder in FOLDERS.items():
        classes = sorted(own.name for own in (asked.work / folder).iterdir())
        features_of(asked.work / folder, classes, asked.work / "candidates" / name)
    features_of(asked.work / "glyphs/base", OTHER_LETTERS, asked.work / "candidates/other-letters", 20, copies=0)
    path, known = asked.work / "candidates.csv", set()
    if path.exists():
        with open(path, newline="") as file:
            known = {(own["domain"], own["model"], own["shot"], own["queries"]) for own in csv.DictReader(file)}
    cells = [(asked.work, domain, model, shot, known) for domain in FOLDERS for model in ("bare", "adapter") for shot in SHOTS]
    with multiprocessing.Pool(asked.processes) as pool, open(path, "a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not file.tell():
            writer.writerow("domain,model,shot,queries,head,accuracy,ci95,difference,difference_ci95".split(","))
        for own in pool.imap(of_cell, cells):
            writer.writerows(own)
            file.flush()


if __name__ == "__main__":
    main()
