#!/usr/bin/env python3
"""How sure answers are where classes are few, and where they are many.

    python docs/experiments/many_classes.py WORK

Classes are letters, capitals, digits, Greek letters, drawn shapes and textures, and clothes, mixed, with the first 20 pictures of each. Tasks have 3, 20 and 90 of them, 4 queries each,
the adapter in the box. Writes WORK/many-classes.csv, which has accuracy, calibration error and log loss of both heads.
"""

from domains import lending
from recycled import Full, Program, Small, Table, common_options, glyphs, greek
from signs import first

HEADS = ["nearest-mean", "auto"]
BOX = "signs-and-shapes"
PICTURES, QUERIES = 20, 4
# As many queries in each row.
TASKS = {3: 600, 20: 90, 90: 20}
SHOTS = [1, 2, 5]


def main():
    parser = common_options(__doc__)
    asked = parser.parse_args()
    size, work = (Small if asked.small else Full), asked.work
    base, _, capitals = glyphs(work, size)
    folders = [base, capitals, greek(work, size), *lending(work, size).values(), work / "drawn/shapes"]
    folder = first(work / "many-classes", folders, PICTURES)
    program, table = Program(asked), Table(work / "many-classes.csv", "way shot head")
    for way, tasks in TASKS.items():
        if table.find(way=way):
            continue
        words = ["--way", way, "--methods", "adapter", "--adapter", BOX, "--head", ",".join(HEADS), "--certainty"]
        for report in program.reports(folder, SHOTS, *words, "--queries", QUERIES, "--tasks", 2 if asked.small else tasks):
            for method in report["methods"]:
                certainty = method["certainty"]
                table.add({
                    "way": way, "shot": report["shot"], "head": method["head"], "tasks": method["tasks"], "accuracy": 100 * method["accuracy"], "ci95": 100 * method["ci95"],
                    "calibration_error": certainty["calibration_error"], "log_loss": certainty["log_loss"],
                })
    print(table.path)


if __name__ == "__main__":
    main()
