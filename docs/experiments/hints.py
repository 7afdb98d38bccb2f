#!/usr/bin/env python3
"""Errors that are planted among the pictures of a classifier, and which of them its check finds.

    python docs/experiments/hints.py WORK                 the classes that thresholds were chosen on
    python docs/experiments/hints.py WORK --test          other classes

Each planting takes up to 20 pictures of each of five or six classes (photographs: eight classes, all they have) and plants, from its seed: in a tenth of the pictures the
label of another class; of one picture of each class a changed copy in the same class, and of two pictures a changed copy in another class (smaller, lighter,
compressed again); and, in a second classifier, one class cut in two at random. Ten plantings of each domain. Writes a line for each kind of hint to WORK/hints.csv: how many errors
were planted, how many hints there were, how many of these name a planted error. Wrong labels have a line for each least score. Needs Pillow and what glyphs.py and domains.py need.
"""

import random
import shutil

from domains import held_out, lending, lent
from recycled import Full, Program, Table, common_options, drawn, glyphs

PER_CLASS = 20
SEEDS = 10
LEAST_SCORES = [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
LETTERS = 6
KINDS = ["near_duplicate", "in_two_classes"]


def folders(work, size, test):
    """The folder of each domain, and how many of its classes a planting takes."""
    _, letters, capitals = glyphs(work, size)
    found = {"letters": (capitals if test else letters, LETTERS)}
    for domain, folder in lending(work, size).items():
        found[domain] = ((held_out if test else lent)(work, domain, folder), LETTERS)
    if test and drawn(work, size, "photo_folders.py", work / "photographs"):
        found["photographs"] = (work / "photographs", 8)
    return found


def changed(source, out):
    """A copy that a person would call the same picture: four fifths as wide, a little lighter, compressed again."""
    from PIL import Image, ImageEnhance

    picture = Image.open(source).convert("RGB")
    picture = picture.resize([max(1, round(0.8 * side)) for side in picture.size], Image.Resampling.LANCZOS)
    ImageEnhance.Brightness(picture).enhance(1.08).save(out, quality=75)


class Planting:
    """Folders of classes with errors, and which those are. `labels`: wrong labels and copies; otherwise a class cut in two."""

    def __init__(self, folder, classes, out, seed, labels):
        draws = random.Random(f"{folder.name} {seed}")
        shutil.rmtree(out, ignore_errors=True)
        names = sorted(own.name for own in folder.iterdir() if own.is_dir())
        names = sorted(draws.sample(names, min(classes, len(names))))
        every = {name: draws.sample(sorted((folder / name).iterdir()), len(list((folder / name).iterdir()))) for name in names}
        pictures = [(name, file) for name in names for file in every[name][:PER_CLASS]]
        self.out, self.wrong, self.copies, self.twins = out, {}, {kind: set() for kind in KINDS}, None
        if not labels:
            whole = max(names, key=lambda name: len(every[name]))
            self.twins = {whole, f"{whole} too"}
            both = every[whole][: 2 * PER_CLASS]
            pictures = [own for own in pictures if own[0] != whole] + [((whole, f"{whole} too")[index % 2], file) for index, file in enumerate(both)]
        wrong = set(draws.sample(range(len(pictures)), round(0.1 * len(pictures)))) if labels else ()
        right = {name: [] for name in names}
        for index, (name, file) in enumerate(pictures):
            label = draws.choice([other for other in names if other != name]) if index in wrong else name
            own = f"{name}-{index:04}{file.suffix}"
            self.put(label, own, lambda to, file=file: shutil.copyfile(file, to))
            if index in wrong:
                self.wrong[own] = name
            elif labels:
                right[name].append((own, file))
        if labels:
            for name in names:
                self.copy("near_duplicate", name, draws.choice(right[name]))
            for name in draws.sample(names, 2):
                self.copy("in_two_classes", draws.choice([other for other in names if other != name]), draws.choice(right[name]))

    def put(self, label, name, write):
        (self.out / label).mkdir(parents=True, exist_ok=True)
        write(self.out / label / name)

    def copy(self, kind, label, picture):
        name, file = picture
        own = f"copy-of-{name.rsplit('.', 1)[0]}-{kind}.jpg"
        self.put(label, own, lambda to: changed(file, to))
        self.copies[kind].add(frozenset([name, own]))


def checked(program, folder):
    """The hints, with names of pictures and classes in place of ids."""
    made = program.json("classifier", "create", "planted", folder)
    shown = program.json("classifier", "show", "planted", "--pictures")
    pictures = {own["id"]: own["name"] for own in shown["pictures"]}
    classes = {own["id"]: own["name"] for own in shown["classes"]}
    check = program.json("classifier", "check", "planted")
    program.run("classifier", "rm", "planted", "--yes")
    assert not made["refused"], made["refused"]
    hints = [{**own, "images": [pictures[image] for image in own["images"]], "classes": [classes[own] for own in own["classes"]]} for own in check["hints"]]
    return hints, check["accuracy"]["share"]


def main():
    parser = common_options(__doc__)
    parser.add_argument("--test", action="store_true", help="classes that no threshold was chosen on")
    asked = parser.parse_args()
    program, table = Program(asked), Table(asked.work / "hints.csv", "split domain seed kind least_score")
    program.data = asked.work / "data-hints"
    split = "test" if asked.test else "validation"
    for domain, (folder, classes) in folders(asked.work, Full, asked.test).items():
        for seed in range(2 if asked.small else SEEDS):
            if table.find(split=split, domain=domain, seed=seed, kind="alike_classes"):
                continue
            planted = Planting(folder, classes, asked.work / "planted", seed, labels=True)
            hints, accuracy = checked(program, planted.out)
            line = {"split": split, "domain": domain, "seed": seed, "accuracy": 100 * accuracy}
            of = lambda kind: [own for own in hints if own["kind"] == kind]

            def add(kind, count, named, right, least_score=""):
                table.add({**line, "kind": kind, "least_score": least_score, "planted": count, "hints": named, "right": right})

            copies = {name for pairs in planted.copies.values() for pair in pairs for name in pair}
            for least in LEAST_SCORES:
                # Copies in another class are planted errors of another kind.
                named = [own for own in of("wrong_label") if own["score"] >= least and own["images"][0] not in copies]
                right = sum(planted.wrong.get(own["images"][0]) == own["classes"][1] for own in named)
                add("wrong_label", len(planted.wrong), len(named), right, least)
            for kind in KINDS:
                named = {frozenset(own["images"]) for own in of(kind)}
                add(kind, len(planted.copies[kind]), len(named), len(named & planted.copies[kind]))
            planted = Planting(folder, classes, asked.work / "planted", seed, labels=False)
            hints, accuracy = checked(program, planted.out)
            named = [set(own["classes"]) for own in hints if own["kind"] == "alike_classes"]
            line["accuracy"] = 100 * accuracy
            add("alike_classes", 1, len(named), sum(own == planted.twins for own in named))
    print(table.path)


if __name__ == "__main__":
    main()
