#!/usr/bin/env python3
"""Cosine against squared Euclidean distance of the bare backbone's features.

    python docs/experiments/distance.py WORK

Clothes (Fashion-MNIST, first 100 test pictures per class), small letters, capitals and digits; 600 tasks, 5-way, 1 and 5 shots, 15 queries, tasks of seed 0.
Writes WORK/distance.csv; what is there already is not measured again. Needs Pillow, fonts and the data of examples/fashion_mnist_folders.py; clothes are left
out where their data is not there.
"""

from recycled import Full, Program, Small, Table, common_options, drawn, glyphs

DISTANCES = ["cosine", "squared-euclidean"]


class Hundred:
    pictures = 100


def main():
    asked = common_options(__doc__).parse_args()
    size = Small if asked.small else Full
    asked.work.mkdir(parents=True, exist_ok=True)
    base, _, novel = glyphs(asked.work, size)
    folders = {"small letters": base, "capitals and digits": novel}
    clothes = asked.work / "all-clothes"
    if drawn(asked.work, size if asked.small else Hundred, "fashion_mnist_folders.py", clothes):
        folders = {"clothes": clothes, **folders}
    program = Program(asked)
    table = Table(asked.work / "distance.csv", "pictures distance shot")
    for pictures, folder in folders.items():
        for distance in DISTANCES:
            if table.find(pictures=pictures, distance=distance):
                continue
            shots = ",".join(str(shot) for shot in size.shots)
            words = ["--methods", "bare", "--shot", shots, "--queries", size.queries, "--tasks", size.tasks, "--distance", distance]
            answer = program.json("evaluate", folder, *words)
            for report in answer if len(size.shots) > 1 else [answer]:
                own = report["methods"][0]
                table.add({
                    "pictures": pictures, "classes": report["classes"], "distance": distance, "shot": report["shot"],
                    "tasks": own["tasks"], "accuracy": 100 * own["accuracy"], "ci95": 100 * own["ci95"],
                })
    print(table.path)


if __name__ == "__main__":
    main()
