#!/usr/bin/env python3
"""Writes what is drawn from the CSV files in docs/experiments/results: the tables of README.md, docs/METHOD.md and docs/experiments/NOTEBOOK.md, between
marks like `<!-- table glyphs-16 -->`, and the chart docs/images/results.svg.

    python3 docs/experiments/tables.py             rewrites them
    python3 docs/experiments/tables.py --check     says with its exit status whether they are up to date
    python3 docs/experiments/tables.py --results WORK --out FOLDER     the same files with other results, written into FOLDER

The CSV files are what the other scripts here write into WORK, copied. Needs the standard library only.
"""

import argparse
import pathlib
import re
import statistics
import sys

from ablations import GROUPS
from chart import BOUND, chart
from deviations import DEVIATIONS
from distance import DISTANCES
from domains import POOLS
from glyphs import BOUNDS, CHOSEN, MERGES, RANK, RECIPES, WITHOUT_SCALE
from quality import FIGURES, OF_REAL
from recycled import NAMES_NOW, ROOT, Table, mean_accuracy

# Best validated and last.
STATES = [state for name in RECIPES for state in (name, f"{name}-last")]
RESULTS = ROOT / "docs/experiments/results"
DOCUMENTS = [ROOT / "README.md", ROOT / "docs/METHOD.md", ROOT / "docs/experiments/NOTEBOOK.md"]
CHART = ROOT / "docs/images/results.svg"
# What results and notebook call by an older name.
PUBLIC_NAMES = {"together": "standard", **NAMES_NOW}
# Of the hint that a label is wrong, `recycle::check::LEAST_SCORE`.
LEAST_SCORE = "0.4000"
MARK = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def number(value, ci):
    return f"{float(value):.2f} ± {float(ci):.2f}"


def markdown(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def table_of(name):
    return Table(RESULTS / f"{name}.csv", "")


def cells(rows):
    """Accuracy of the one row there is, and its difference."""
    if not rows:
        return ["", ""]
    row = rows[0]
    return [number(row["accuracy"], row["ci95"]), number(row["difference"], row["difference_ci95"]) if row.get("difference") else ""]


def methods(asked_rank, split="test"):
    """A line for each method; a merge has the scale that validation chose, which differs from seed to seed."""
    table = table_of("glyphs")
    scales_of = [name for scales in MERGES.values() for name in scales]
    chosen = {row["seed"]: row["against"] for row in table.find(split=split, asked_rank=asked_rank) if row["name"] in scales_of}
    seeds = sorted(chosen)
    ours = [(name, [name], "") for name in [*STATES, *BOUNDS]]
    others = [(name, [name], "exact") for name in [*WITHOUT_SCALE, "tune"]]
    merges = [(name, scales, asked_rank) for name, scales in MERGES.items()]
    head = ["method"] + [text for seed in seeds for text in (f"seed {seed}: 1 shot", "to the chosen", "5 shots", "to the chosen")]
    rows = []
    for label, names, rank in [*ours, *others, *merges]:
        found = {(row["seed"], row["shot"]): row for name in names for row in table.find(split=split, name=name, asked_rank=rank)}
        if not found:
            continue
        row = [label]
        for seed in seeds:
            for shot in ("1", "5"):
                own = found.get((seed, shot))
                accuracy, difference = cells([own] if own else [])
                # A recipe that was measured by itself has no pairs.
                if own and own["against"] != chosen[seed]:
                    difference = ""
                if own and ":" in own["name"]:
                    accuracy += f" (× {own['name'].split(':')[1]})"
                row += [accuracy, difference]
        rows.append(row)
    return markdown(head, rows)


def distance_to_bound(split="test"):
    """How much of the way from the bare backbone to real pictures each meta-LoRA goes; to the bound that validation letters choose."""
    table = table_of("glyphs")
    seeds = sorted({row["seed"] for row in table.rows})
    bounds = {}
    for seed in seeds:
        measured = [name for name in BOUNDS if table.find(seed=seed, split="validation", name=name)]
        bounds[seed] = max(measured, key=lambda name: mean_accuracy(table, seed=seed, split="validation", name=name))
    rows = []
    for recipe in STATES:
        for seed in seeds:
            for shot in (1, 5):
                bare, own, real = ([float(row["accuracy"]) for row in table.find(seed=seed, split=split, shot=shot, name=name)] for name in ("bare", recipe, bounds[seed]))
                if bare and own and real:
                    rows.append([recipe, seed, str(shot), bounds[seed], f"{bare[0]:.2f}", f"{own[0]:.2f}", f"{real[0]:.2f}", f"{100 * (own[0] - bare[0]) / (real[0] - bare[0]):.1f} %"])
    return markdown(["meta-LoRA", "seed", "shots", "bound", "bare", "meta-LoRA", "real pictures", "of the distance"], rows)


def pruned():
    """Inversion with pruning by layer, ratio and mode, means over the adapters; cross-entropies and times beside those of the same run without pruning."""
    table = table_of("pruned")
    rows = []
    for seed, layer, ratio in dict.fromkeys((row["seed"], row["layer"], row["ratio"]) for row in table.rows):
        modes = dict.fromkeys(row["mode"] for row in table.rows)
        own = {mode: table.find(seed=seed, layer=layer, ratio=ratio, mode=mode) for mode in modes}
        for mode in modes:

            def mean(name, mode=mode):
                return statistics.mean(float(row[name]) for row in own[mode])

            faster = mean("milliseconds_a_step", "dense") / mean("milliseconds_a_step")
            rows.append([seed, f"layer {layer}, {float(ratio):.2f}", mode, f"{faster:.2f}", f"{100 * mean('teacher_accuracy'):.1f}", f"{mean('teacher_cross_entropy'):.3f}", f"{mean('bare_cross_entropy'):.3f}"])
    return markdown(["seed", "pruned", "", "× steps a second", "teacher accuracy %", "teacher cross-entropy", "bare cross-entropy"], rows)


def tokens():
    """What patches hold that stay, and those that are left out."""
    rows = []
    for row in table_of("tokens").rows:
        if row["prototypes"] == "patches":
            share = f"{100 * float(row['sparsity']):.0f} %"
            rows.append([row["seed"], share, "stay" if row["tokens"] == "kept" else "left out", *(f"{float(row[figure]):.3f}" for figure in ("own_class", "other_class")), f"{100 * float(row['nearest_to_own']):.1f} %"])
    return markdown(["seed", "left out", "patches", "cosine to their class", "to the nearest other", "nearest to their class"], rows)


def ablation(group):
    table, runs = table_of("ablations"), table_of("ablations-runs")
    # Where images are made for each line, they are most of the time.
    with_speed = group == "sparsity"
    rows = []
    first, *others = GROUPS[group]
    for seed in sorted({run["seed"] for line in others for run in runs.find(name=line.name)}):
        for run in [run for line in [first, *others] for run in runs.find(seed=seed, name=line.name)]:
            row = [seed, run["name"], f"{float(run['synthetic_accuracy']):.1f}" if run["synthetic_accuracy"] else ""]
            for split in ("validation", "test"):
                for shot in (1, 5):
                    accuracy, difference = cells(table.find(seed=seed, split=split, shot=shot, name=run["name"]))
                    row += [accuracy] if split == "validation" else [accuracy, difference]
            speed = [f"{int(run['episodes']) / int(run['processor_seconds']):.2f}"] if with_speed else []
            rows.append([*row, *speed, run["processor_seconds"], run["peak_mebibytes"]])
    speed = ["episodes a second"] if with_speed else []
    head = ["seed", "", "synthetic tasks", "validation: 1 shot", "5 shots", "test: 1 shot", "to the first", "5 shots", "to the first", *speed, "processor s", "peak MiB"]
    return markdown(head, rows)


def domains(seed, of_choice=False):
    """On test domains, or on those that chose the scale of the meta-LoRA in the box."""
    table = table_of("domains")
    own = table.find(seed=seed)
    splits = [split for split in dict.fromkeys(row["split"] for row in own) if split.startswith("validation ") == of_choice]
    names = list(dict.fromkeys(row["name"] for row in own))
    lines = [("bare backbone", "bare")]
    # Those of the letters have the names of their recipes.
    recipes = [name for name in RECIPES if name in names or any(other.endswith(f" of {name}") for other in names)]
    of_letters = {recipe: "meta-LoRA of letters" if recipe == "ours" else f"{recipe} of letters" for recipe in recipes}
    for pool in POOLS:
        lines += [(label, recipe) for recipe, label in of_letters.items()] if pool == "letters" else [(f"meta-LoRA of {pool}", f"pool-{pool}")]
        lines += [(f"sum of {pool} × {name.split()[0][4:]}", name) for name in names if name.endswith(f" of {pool}")]
    for recipe, label in of_letters.items():
        lines += [(f"{label} × {name.split()[0][4:]}", name) for name in names if name.endswith(f" of {recipe}")]
    rows = []
    for shot in (1, 5):
        for label, name in lines:
            found = [cells(table.find(seed=seed, split=split, shot=shot, name=name)) for split in splits]
            if any(accuracy for accuracy, _ in found):
                rows.append([label, str(shot), *(f"{accuracy} ({difference})" if difference else accuracy for accuracy, difference in found)])
    return markdown(["", "shots", *(split.removeprefix("validation ") for split in splits)], rows)


def pools():
    """The seed in which there are meta-LoRAs of several domains."""
    return domains(next((row["seed"] for row in table_of("domains").rows if row["name"].startswith("pool-")), 1))


def ranks(values):
    """Places in ascending order; equal values share the middle of theirs."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]


def quality():
    """Figures of the images of each kind beside what the meta-LoRA made of them reaches, and how far the two go together."""
    table, accuracies = table_of("quality"), table_of("ablations")
    figures = [*FIGURES, *OF_REAL]
    rows, found = [], []
    for own in table.rows:
        reached = [row for shot in (1, 5) for row in accuracies.find(seed=own["seed"], split="test", shot=shot, name=own["name"])]
        if reached:
            found.append((own, reached))
            measured = [number(row["accuracy"], row["ci95"]) for row in reached]
            rows.append([own["seed"], own["name"], *(f"{float(own[name]):.3f}" if own[name] else "" for name in figures), *measured, *[""] * (2 - len(measured))])
    controls = {line.name for line in GROUPS["controls"][1:]}
    of_tuned = [(own, reached) for own, reached in found if own["name"] not in controls]
    for label, kinds, shot in [("all", found, 0), ("without the controls", of_tuned, 0), ("without the controls", of_tuned, 1)]:
        if len(kinds) > 2 and all(len(reached) > shot for _, reached in kinds):
            accuracy = ranks([float(reached[shot]["accuracy"]) for _, reached in kinds])
            row = ["", f"rank correlation with {['1 shot', '5 shots'][shot]}, {label}"]
            for name in figures:
                values = [own[name] for own, _ in kinds]
                places = ranks([float(value) for value in values]) if "" not in values else []
                row.append(f"{statistics.correlation(places, accuracy):.2f}" if min(len(set(places)), len(set(accuracy))) > 1 else "")
            rows.append([*row, "", ""])
    return markdown(["seed", "", *(name.replace("_", " ") for name in figures), "test: 1 shot", "5 shots"], rows)


def distances():
    """The bare backbone with each distance."""
    table = table_of("distance")
    rows = []
    for pictures, classes, shot in dict.fromkeys((row["pictures"], row["classes"], row["shot"]) for row in table.rows):
        own = [cells(table.find(pictures=pictures, shot=shot, distance=distance))[0] for distance in DISTANCES]
        rows.append([f"{pictures}, {classes} classes", shot, *own])
    return markdown(["pictures", "shots", "cosine", "squared Euclidean"], rows)


def only(rows):
    return rows[0] if len(rows) == 1 else None


def result():
    """The chosen meta-LoRA on all test signs, beside the bare backbone, the best merge of its rank and real pictures."""
    table = table_of("glyphs")
    rows = []
    for seed in sorted({row["seed"] for row in table.find(split="signs", name=CHOSEN)}):
        for shot in (1, 5):
            own, bare, real = (only(table.find(seed=seed, split="signs", shot=shot, name=name)) for name in (CHOSEN, "bare", BOUND))
            merges = [row for row in table.find(seed=seed, split="signs", shot=shot, asked_rank=RANK) if ":" in row["name"]]
            if not (own and bare and real and merges):
                continue
            best = max(merges, key=lambda row: float(row["accuracy"]))
            method, scale = best["name"].split(":")
            bare_accuracy, own_accuracy, real_accuracy = (float(row["accuracy"]) for row in (bare, own, real))
            rows.append([
                seed, str(shot), cells([bare])[0], f"{cells([best])[0]} (`{PUBLIC_NAMES.get(method, method)}`, scale {scale})", cells([own])[0],
                number(-float(best["difference"]), best["difference_ci95"]) if best["against"] == CHOSEN else "",
                cells([real])[0], f"{100 * (own_accuracy - bare_accuracy) / (real_accuracy - bare_accuracy):.1f} %",
            ])
    name = PUBLIC_NAMES[CHOSEN]
    return markdown(["seed", "shots", "bare backbone", f"best merge of rank {RANK}", f"`{name}`", "gain over merge", "real pictures", "share of the way"], rows)


def signed(value):
    return f"{value:+.2f}".replace("-", "−")


def gain(of, shot):
    """What a deviation gains, by seed: paired differences on the test letters, or on all signs for what was measured there."""
    table = table_of(of.table)
    found = []
    for seed in of.seeds:
        row, without = (only(table.find(seed=seed, split=of.split, shot=shot, name=name)) for name in (of.name, of.without))
        if row and without:
            found.append(signed(float(row["accuracy"]) - float(without["accuracy"])))
        elif row and row["difference"] and not of.without:
            found.append(f"{signed(of.sign * float(row['difference']))} ± {float(row['difference_ci95']):.2f}")
    return ", ".join(found)


def deviations():
    rows = [[what, paper, here, ", ".join(of.seeds), gain(of, 1), gain(of, 5)] for what, paper, here, of in DEVIATIONS]
    return markdown(["", "paper", "here", "seeds", "gain at 1 shot", "gain at 5 shots"], rows)


def heads_test():
    """`auto` beside `nearest-mean` on the same tasks: differences at each number of shots, in brackets the accuracy of `auto`."""
    table = table_of("heads-test")
    shots = list(dict.fromkeys(row["shot"] for row in table.rows))
    rows = []
    for domain in dict.fromkeys(row["domain"] for row in table.rows):
        for model in ("bare", "adapter"):
            row = [domain, {"bare": "bare", "adapter": "box"}[model]]
            for shot in shots:
                own = only(table.find(domain=domain, shot=shot, model=model, head="auto"))
                row.append(f"{float(own['difference']):+.1f} ± {float(own['difference_ci95']):.1f} ({float(own['accuracy']):.1f})".replace("-", "−") if own else "-")
            rows.append(row)
    return markdown(["classes", "adapter", *(f"{shot} shot{'' if shot == '1' else 's'}" for shot in shots)], rows)


def signs():
    """Every method with both heads on the same tasks of 59 signs, by seed, and how much more `standard` gives with the same head."""
    table = table_of("signs")
    seeds = sorted({row["seed"] for row in table.rows})
    names = {"together": "`standard`", "bare": "bare backbone", "adamerging": "AdaMerging", BOUND: "real pictures (upper bound)"}
    rows = []
    for shot in ("1", "5"):
        for name in dict.fromkeys(row["name"] for row in table.rows):
            for seed in seeds:
                # The bare backbone is the same in all seeds.
                nearest, auto = (only(table.find(seed=seed, name=name, shot=shot, head=head)) for head in ("nearest-mean", "auto"))
                if not auto:
                    continue
                scale = f", scale {float(auto['scale']):g}" if auto["scale"] and name != "average" else ""
                more = f"{float(auto['gain']):+.2f} ± {float(auto['gain_ci95']):.2f}".replace("-", "−") if auto["gain"] else "-"
                rows.append([shot, names.get(name, f"`{name}`") + scale, seed, number(nearest["accuracy"], nearest["ci95"]), number(auto["accuracy"], auto["ci95"]), more])
    return markdown(["shots", "method", "seed", "`nearest-mean`", "`auto`", "`standard` minus it, both with `auto`"], rows)


def through_the_head():
    """Recipes that differ from `standard` in one or two things, on validation letters, each with both heads."""
    table = table_of("through-the-head")
    rows = []
    for name in dict.fromkeys(row["name"] for row in table.rows):
        row = [f"`{name}`"]
        for head in ("nearest-mean", "auto"):
            for shot in ("1", "5"):
                own = only(table.find(name=name, shot=shot, head=head))
                difference = f" ({float(own['difference']):+.2f} ± {float(own['difference_ci95']):.2f})".replace("-", "−") if own["difference"] else ""
                row.append(number(own["accuracy"], own["ci95"]) + difference)
        rows.append(row)
    return markdown(["recipe", "`nearest-mean`, 1 shot", "5 shots", "`auto`, 1 shot", "5 shots"], rows)


def many_classes():
    table = table_of("many-classes")
    rows = []
    for way, shot in dict.fromkeys((row["way"], row["shot"]) for row in table.rows):
        before, after = (only(table.find(way=way, shot=shot, head=head)) for head in ("nearest-mean", "auto"))
        change = lambda name, digits: " → ".join(f"{float(own[name]):.{digits}f}" for own in (before, after))
        rows.append([way, shot, number(before["accuracy"], before["ci95"]) + " → " + number(after["accuracy"], after["ci95"]), change("calibration_error", 3), change("log_loss", 2)])
    return markdown(["classes", "shots", "accuracy", "calibration error", "log loss"], rows)


def hints():
    """Of planted errors, those that a check names (recall), and of the hints of their kind, those that name one (precision); Wilson's intervals of the sums over plantings."""
    table = table_of("hints")
    words = {"wrong_label": "wrong label", "near_duplicate": "copy in the same class", "in_two_classes": "copy in another class", "alike_classes": "a class cut in two"}
    rows = []
    for split, domain in dict.fromkeys((row["split"], row["domain"]) for row in table.rows):
        for kind, text in words.items():
            own = [row for row in table.find(split=split, domain=domain, kind=kind) if row["least_score"] in ("", LEAST_SCORE)]
            planted, hinted, right = (sum(int(row[name]) for row in own) for name in ("planted", "hints", "right"))
            shares = [f"{right}/{of}, {100 * right / of:.0f} % ({low:.0f} to {high:.0f})" if of else "-" for of in (hinted, planted) for low, high in [wilson(right, of)]]
            rows.append([split, domain, text, str(len(own)), *shares])
    return markdown(["classes", "domain", "planted", "plantings", "precision", "recall"], rows)


def wilson(right, of):
    """Wilson's 95 % interval of a share, in percent."""
    if not of:
        return 0, 100
    z, share = 1.96, right / of
    middle, reach = share + z * z / (2 * of), z * (share * (1 - share) / of + z * z / (4 * of * of)) ** 0.5
    return tuple(100 * (middle + sign * reach) / (1 + z * z / of) for sign in (-1, 1))


def certainty_test(shots=("1", "2", "5")):
    """How sure answers are, before (`nearest-mean`) and after (`auto`), with the adapter in the box."""
    table = table_of("certainty-test")

    def percent(row, name):
        if not row[name]:
            return "-"
        interval = f" ± {100 * float(row[f'{name}_ci95']):.1f}" if row.get(f"{name}_ci95") else ""
        return f"{100 * float(row[name]):.1f}{interval}"

    rows = []
    for domain in dict.fromkeys(row["domain"] for row in table.rows):
        for shot in shots:
            before, after = (only(table.find(domain=domain, shot=shot, model="adapter", head=head)) for head in ("nearest-mean", "auto"))
            if before and after:
                both = [[f"{float(row[name]):.3f}" for row in (before, after)] for name in ("calibration_error", "log_loss")]
                areas = [percent(before, "confidence_auroc"), percent(after, "confidence_auroc"), percent(after, "novelty_auroc")]
                rows.append([domain, shot, *(" → ".join(pair) for pair in both), *areas, percent(after, "known_refused"), percent(after, "unknown_refused")])
    head = ["classes", "shots", "calibration error", "log loss", "AUROC by probability, before", "after", "by novelty", "known refused", "others refused"]
    return markdown(head, rows)


TABLES = {
    "heads-test": heads_test,
    "signs": signs,
    "through-the-head": through_the_head,
    "hints": hints,
    "many-classes": many_classes,
    "certainty-test": certainty_test,
    "result": result,
    "deviations": deviations,
    "distance-of-features": distances,
    "glyphs-16": lambda: methods("16"),
    "glyphs-exact": lambda: methods("exact"),
    "signs-16": lambda: methods("16", "signs"),
    "greek-16": lambda: methods("16", "greek"),
    "distance": distance_to_bound,
    "distance-greek": lambda: distance_to_bound("greek"),
    "distance-signs": lambda: distance_to_bound("signs"),
    "domains": lambda: domains(0),
    "domains-choice": lambda: domains(0, of_choice=True),
    "pools": pools,
    "quality": quality,
    "pruned": pruned,
    "tokens": tokens,
    **{f"ablation-{group}": lambda group=group: ablation(group) for group in GROUPS},
}


def written(text):
    return MARK.sub(lambda match: match[1] + TABLES[match[2]]() + match[3], text)


def main():
    global RESULTS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--out", type=pathlib.Path)
    asked = parser.parse_args()
    RESULTS = asked.results
    files = {path: written(path.read_text(encoding="utf-8")) for path in DOCUMENTS}
    files[CHART] = chart(table_of("glyphs"))
    for path, text in files.items():
        if not asked.check:
            (asked.out / path.name if asked.out else path).write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path.relative_to(ROOT)} does not show what stands in {RESULTS}\nhint: run python3 docs/experiments/tables.py")


if __name__ == "__main__":
    main()
