#!/usr/bin/env python3
"""Heads on validation classes: what chose the settings of `lda-augmented`.

    python docs/experiments/heads.py WORK

Letters c f k p t y, five classes of clothes and eight of textures; the bare backbone and the adapter in the box; 100 tasks of each number of examples, 5-way,
15 queries. Writes WORK/heads.csv; a line that is there is not measured again. Needs what glyphs.py and domains.py need.
"""

import csv

from domains import TUNED
from recycled import Full, Program, Small, common_options, drawn, glyphs, some

HEADS = [
    "nearest-mean", "lda:shrinkage=0.3", "lda:shrinkage=0.5", "lda:shrinkage=oas",
    *(f"lda-augmented:shrinkage={share}" for share in (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, "oas")),
    *(f"lda-augmented:shrinkage={share}:means=true" for share in (0.1, 0.3, 0.5, "oas")),
    "lda-augmented:shrinkage=0.3:negatives=false", "lda-augmented:shrinkage=0.3:negatives=false:means=true",
    "lda-augmented:shrinkage=0.3:mirrored=true:means=true",
]
SHOTS = [1, 2, 5, 10]
BOX = "signs-and-shapes"


def main():
    parser = common_options(__doc__)
    asked = parser.parse_args()
    size, work = (Small if asked.small else Full), asked.work
    program = Program(asked)
    folders = {"letters": glyphs(work, size)[1]}
    if drawn(work, size, "drawn_folders.py", work / "drawn"):
        folders["textures"] = some(work / "textures-lent", [work / "drawn/textures"], lambda name: name in TUNED["textures"])
    if drawn(work, size, "fashion_mnist_folders.py", work / "clothes"):
        folders["clothes"] = some(work / "clothes-lent", [work / "clothes"], lambda name: name in TUNED["clothes"])
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
