#!/usr/bin/env python3
"""Heads on validation classes: what chose the settings of `lda-augmented`.

    python docs/experiments/heads.py WORK

Letters c f k p t y, five classes of clothes and eight of textures; the bare backbone and the adapter in the box; 100 tasks of each number of examples, 5-way,
15 queries. Writes WORK/heads.csv; a line that is there is not measured again. Needs what glyphs.py and domains.py need.

    python docs/experiments/heads.py WORK --test

`auto` beside `nearest-mean` on the test classes of six domains, 600 tasks: WORK/heads-test.csv, where a difference is paired, `auto` minus `nearest-mean`; and how
sure answers are, on 4-way tasks with 8 queries: WORK/certainty-test.csv.
"""

import csv
import json

from domains import FEWER_QUERIES, held_out, lending, lent
from recycled import Full, Program, Small, Table, common_options, drawn, glyphs, greek, some

HEADS = [
    "nearest-mean", "lda:shrinkage=0.3", "lda:shrinkage=0.5", "lda:shrinkage=oas",
    *(f"lda-augmented:shrinkage={share}" for share in (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, "oas")),
    *(f"lda-augmented:shrinkage={share}:means=true" for share in (0.1, 0.3, 0.5, "oas")),
    "lda-augmented:shrinkage=0.3:negatives=false", "lda-augmented:shrinkage=0.3:negatives=false:means=true",
    "lda-augmented:shrinkage=0.3:mirrored=true:means=true",
]
SHOTS = [1, 2, 5, 10]
BOX = "signs-and-shapes"
TEST_HEADS = ["nearest-mean", "auto"]


def test_folders(work, size):
    """Folder, queries of each class, and the way for each number of examples, by domain."""
    capitals = glyphs(work, size)[2]
    every = {shot: 5 for shot in SHOTS}
    folders = {}
    if other_script := greek(work, size):
        folders["signs"] = (some(work / "signs", [capitals, other_script]), size.queries, every)
        folders["Greek"] = (other_script, size.queries, every)
    if drawn(work, size, "drawn_folders.py", work / "drawn"):
        folders["shapes"] = (work / "drawn/shapes", size.queries, every)
    for domain, folder in lending(work, size).items():
        folders[domain] = (held_out(work, domain, folder), size.queries, every)
    if drawn(work, size, "photo_folders.py", work / "photographs"):
        # Four classes have 14 pictures.
        folders["photographs"] = (work / "photographs", FEWER_QUERIES, {**every, 10: 4})
    return folders


def reports(program, folder, way, shots, queries, tasks, *more):
    """One report for each number of examples, from one pass over the pictures."""
    words = ["--way", way, "--queries", queries, "--tasks", tasks, "--seed", 0]
    compared = ["--head", ",".join(TEST_HEADS), "--methods", "bare,adapter", "--adapter", BOX]
    return program.reports(folder, shots, *compared, *words, *more)


def test(program, work, size, small):
    accuracies = Table(work / "heads-test.csv", "domain shot")
    certainties = Table(work / "certainty-test.csv", "domain shot")
    for domain, (folder, queries, ways) in test_folders(work, size).items():
        missing = [shot for shot in (SHOTS[:1] if small else SHOTS) if not accuracies.find(domain=domain, shot=shot)]
        for way in sorted({ways[shot] for shot in missing}, reverse=True):
            for report in reports(program, folder, way, [shot for shot in missing if ways[shot] == way], queries, size.tasks):
                before = {method["name"]: index for index, method in enumerate(report["methods"]) if method["head"] == TEST_HEADS[0]}
                for index, method in enumerate(report["methods"]):
                    difference = report["pairwise"][index][before[method["name"]]]
                    accuracies.add({
                        "domain": domain, "shot": report["shot"], "way": way, "model": method["name"], "head": method["head"], "tasks": method["tasks"],
                        "accuracy": 100 * method["accuracy"], "ci95": 100 * method["ci95"],
                        "difference": 100 * difference["mean"] if difference else "", "difference_ci95": 100 * difference["ci95"] if difference else "",
                    })
        # As many pictures of other classes as queries; few photographs have 14 pictures.
        missing = [shot for shot in (SHOTS[:1] if small else SHOTS) if not certainties.find(domain=domain, shot=shot) and ways[shot] > 4]
        for report in reports(program, folder, 4, missing, min(queries, 8), 5 if small else 200, "--certainty") if missing else []:
            for method in report["methods"]:
                certainty = method["certainty"]
                line = {"domain": domain, "shot": report["shot"], "model": method["name"], "head": method["head"], "tasks": method["tasks"]}
                line |= {name: certainty[name] for name in ("calibration_error", "log_loss")}
                for name in ("confidence_auroc", "novelty_auroc"):
                    own = certainty[name]
                    line |= {name: own["mean"] if own else "", f"{name}_ci95": own["ci95"] if own else ""}
                line |= {name: "" if certainty[name] is None else certainty[name] for name in ("known_refused", "unknown_refused")}
                certainties.add(line)
    print(accuracies.path)
    print(certainties.path)


def main():
    parser = common_options(__doc__)
    parser.add_argument("--test", action="store_true", help="measure on test classes what was chosen on those of validation")
    asked = parser.parse_args()
    size, work = (Small if asked.small else Full), asked.work
    program = Program(asked)
    if asked.test:
        return test(program, work, size, asked.small)
    folders = {"letters": glyphs(work, size)[1]}
    folders |= {domain: lent(work, domain, folder) for domain, folder in lending(work, size).items()}
    path = work / "heads.csv"
    known = set()
    if path.exists():
        with open(path, newline="") as file:
            known = {line["domain"] for line in csv.DictReader(file)}
    for domain, folder in folders.items():
        if domain in known:
            continue
        shots = SHOTS[:1] if asked.small else SHOTS
        output = program.run(
            "evaluate", folder, "--head", ",".join(HEADS), "--methods", "bare,adapter", "--adapter", BOX, "--shot", ",".join(map(str, shots)),
            "--queries", size.queries, "--tasks", 5 if asked.small else 100, "--seed", 7, "--csv",
        )
        head, *lines = output.splitlines()
        with open(path, "a") as file:
            if not file.tell():
                print(f"domain,{head}", file=file)
            for line in lines:
                print(f"{domain},{line}", file=file)
    print(path)


if __name__ == "__main__":
    main()
