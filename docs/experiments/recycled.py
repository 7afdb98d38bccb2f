"""What the experiments share: the program on a data folder, tables that grow line by line, and the glyphs with their three kinds of classes."""

import argparse
import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
VALIDATION = "cfkpty"
TUNED = "abdeghijlmnoqrsuvwxz"
GREEK = "ΓΔΘΛΞΠΣΦΨΩαβγδεζηθλμξπρσφχψω"
# Fields of inversion recipes over their presets.
HARD = {"preset": "hard", "steps": 20}
PLAIN = {"preset": "fast", "steps": 24}


def common_options(description):
    """A parser of what all experiments take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=pathlib.Path, help="folder for pictures, adapters and tables")
    parser.add_argument("--seed", type=int, default=0, help="of the whole pipeline")
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "target/release/lora-recycle")
    parser.add_argument("--threads", type=int, help="of the program (default: all processors); for two seeds at once on two processors, one each")
    parser.add_argument("--small", action="store_true", help="says that everything runs, in minutes, and nothing of how good it is")
    return parser


class Program:
    """The program on one data folder."""

    def __init__(self, asked):
        self.path, self.data = asked.program.resolve(), asked.work / f"data-{asked.seed}"
        threads = {"LORA_RECYCLE_THREADS": str(asked.threads)} if asked.threads else {}
        self.environment = {**os.environ, **threads}

    def run(self, *words):
        return self.measured(*words)[0]

    def measured(self, *words):
        """Output, seconds of wall time, seconds of processor time and peak memory in MiB."""
        words = [str(word) for word in words]
        command = [str(self.path), "--data-dir", str(self.data), *words]
        print("+ lora-recycle", " ".join(words)[:200], file=sys.stderr, flush=True)
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment)
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"the command above ended with {process.returncode}")
        return output, time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024

    def json(self, *words):
        return json.loads(self.run(*words, "--json"))

    def reports(self, folder, shots, *words):
        """Reports of `evaluate`, one for each number of shots, from one pass over the pictures."""
        answer = self.json("evaluate", folder, "--shot", ",".join(map(str, shots)), *words)
        return answer if len(shots) > 1 else [answer]


class Table:
    """A CSV file; `key` names the columns that tell its lines apart, so that what was measured is not measured again."""

    def __init__(self, path, key):
        self.path, self.key, self.rows = path, key, []
        if path.exists():
            with open(path, newline="") as file:
                self.rows = list(csv.DictReader(file))

    def find(self, **key):
        wanted = {name: str(value) for name, value in key.items()}
        return [row for row in self.rows if all(row[name] == value for name, value in wanted.items())]

    def add(self, row):
        row = {name: f"{value:.4f}" if isinstance(value, float) else str(value) for name, value in row.items()}
        with open(self.path, "a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if not file.tell():
                writer.writeheader()
            writer.writerow(row)
        self.rows.append(row)


class Full:
    pictures, adapters, tune_steps, tasks, queries, per_class = 40, 20, 60, 600, 15, 8
    most_per_class = 40
    tune_method = []
    shots = (1, 5)
    recipe = {}


class Small:
    """Says that everything runs, and nothing of how good it is."""

    pictures, adapters, tune_steps, tasks, queries, per_class = 6, 3, 3, 10, 2, 4
    most_per_class = 5
    tune_method = ["--tune-tasks", 2, "--tune-steps", 3]
    shots = (1,)
    recipe = {"episodes": 4, "queries": 2}


def drawn(work, size, script, out, *more):
    """Whether the pictures that a script of examples/ makes are in `out`, which appears when they are all there."""
    if not out.exists():
        part = out.with_name(f"{out.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        command = [sys.executable, ROOT / "examples" / script, part, "--per-class", size.pictures, *more]
        if subprocess.run([str(word) for word in command], stdout=sys.stderr).returncode:
            return False
        part.rename(out)
    return True


def some(out, folders, wanted=lambda name: True):
    """A folder of links to the classes of `folders` that are wanted."""
    out.mkdir(exist_ok=True)
    for own in sorted(own for folder in folders for own in folder.iterdir()):
        link = out / own.name
        if own.is_dir() and wanted(own.name) and not link.exists():
            os.symlink(os.path.relpath(own, out), link)
    return out


def glyphs(work, size):
    """Base letters, validation letters as links into them, test letters."""
    if not drawn(work, size, "glyph_folders.py", work / "glyphs"):
        sys.exit("there are no letters to go on with")
    base = work / "glyphs/base"
    return base, some(work / "validation", [base], lambda letter: letter in VALIDATION), work / "glyphs/novel"


def greek(work, size):
    """Greek letters, which are for the test alone; None where no typeface has them."""
    if drawn(work, size, "glyph_folders.py", work / "scripts", "--split", f"greek={GREEK}"):
        return work / "scripts/greek"
    return None


def tune_letters(program, base, size, seed, name="letters", count=None):
    """Adapters on five random letters each; their names."""
    count = count or size.adapters
    names = [f"{name}-{index:04}" for index in range(count)]
    if {adapter["name"] for adapter in program.json("adapter", "list")}.issuperset(names):
        return names
    program.run("tune", base, "--classes", ",".join(TUNED), "--episodes", count, "--way", 5, "--batch-size", 20, "--steps", size.tune_steps, "--seed", seed, "--name", name)
    return names


def exported(program, out, kind, name):
    """An adapter or a pool as a folder."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        program.run(kind, "export", name, "--out", out)
    return out.resolve()


def recycle(program, runs, work, name, pool, fields, images, size, seed, per_class=None, real=None, more=()):
    """Makes the meta-LoRA `name` with meta-training `fields` and inversion fields `images`; writes what it took and what held-out synthetic tasks say.

    With `real`, a folder, its pictures stand in for synthetic images; `more` are further words of the command.
    """
    if runs.find(seed=seed, name=name):
        return
    recipes = work / "recipes"
    recipes.mkdir(exist_ok=True)
    learning, inversion = recipes / f"{name}-{seed}.json", recipes / f"{name}-{seed}-images.json"
    learning.write_text(json.dumps({"preset": "standard", **fields, **size.recipe, "seed": seed}))
    shortened = {"steps": 2} if size is Small else {}
    inversion.write_text(json.dumps({"seed": seed, **images, **shortened, "images_per_class": per_class or size.per_class}))
    # Weak images are part of what is measured.
    flags = ["--recipe", learning, "--inversion", inversion, "--use-failed-images", *more] + (["--real", real] if real else [])
    _, wall, processor, peak = program.measured("recycle", *pool, "--name", name, *flags)
    figures = json.loads(program.run("adapter", "show", name, "--json"))["lineage"]["recipe"]["figures"]
    kept = [state for state in figures["validations"] if state["episode"] == figures["kept_episode"]] or figures["validations"][-1:]
    runs.add({
        "seed": seed, "name": name, "adapters": len(pool), "episodes": figures["episodes"], "kept_episode": figures["kept_episode"],
        "synthetic_accuracy": 100 * kept[0]["accuracy"] if kept else "", "synthetic_loss": kept[0]["loss"] if kept else "",
        "wall_seconds": round(wall), "processor_seconds": round(processor), "peak_mebibytes": round(peak),
    })


# What the tables call a merge is what the program called it when they were begun.
NAMES_NOW = {"core": "core-space", "ctm": "compress-then-merge"}  # old spelling


def name_now(merge):
    name, colon, scale = merge.partition(":")
    return NAMES_NOW.get(name, name) + colon + scale


# All tables but those that name another head were begun with it.
FIRST_HEAD = "nearest-mean"


def evaluate(program, table, folder, split, shots, size, seed, adapters, pool=(), merges=(), rank=None, against="adapter", of="", validation=None, head=FIRST_HEAD):
    """Adds the lines that are missing. Differences are paired: line minus the first adapter where there is one, or minus a method.

    `of` tells the merges of one pool from those of another; `tune` chooses its learning rate on `validation`.
    """
    names = {merge: merge if merge == "bare" else merge + of for merge in merges}

    def is_missing(**key):
        return any(not table.find(seed=seed, split=split, shot=shot, **key) for shot in shots)

    missing = [name for name in adapters if is_missing(name=name)]
    merges = [merge for merge in merges if is_missing(name=names[merge], asked_rank=rank or "exact")]
    if not missing and not merges:
        return
    # What others are compared with is measured again.
    if against != "adapter":
        merges = [against, *(merge for merge in merges if merge != against)]
    elif adapters:
        missing = adapters[:1] + [name for name in missing if name != adapters[0]]
    words = ["--head", head, "--queries", size.queries, "--tasks", size.tasks]
    words += ["--methods", ",".join((["adapter"] if missing else []) + [name_now(merge) for merge in merges])]
    for adapter in missing:
        words += ["--adapter", adapter]
    compared = against if against != "adapter" or missing else ""
    words += ["--against", name_now(compared)] if compared else []
    words += ["--pool", *pool] if any(merge != "bare" for merge in merges) else []
    words += ["--validation", validation] if validation else []
    words += size.tune_method if "tune" in merges else []
    words += ["--merge-rank", rank] if rank and any(merge not in ("bare", "average") for merge in merges) else []
    reports = program.reports(folder, shots, *words)
    assert all(len(report["methods"]) == len(missing) + len(merges) for report in reports)
    lines = [*missing, *(names[merge] for merge in merges)]
    for name, method, shot in [(*line, report["shot"]) for report in reports for line in zip(lines, report["methods"])]:
        asked_rank = "" if name in missing else rank or "exact"
        key = {"seed": seed, "split": split, "shot": shot}
        if table.find(**key, name=name, asked_rank=asked_rank):
            continue
        difference = method["difference"] if compared else None
        table.add({
            **key, "name": name, "asked_rank": asked_rank, "rank": (method.get("merge") or {}).get("rank", ""),
            "tasks": method["tasks"], "accuracy": 100 * method["accuracy"], "ci95": 100 * method["ci95"],
            "against": (missing[0] if compared == "adapter" else compared) if difference else "",
            "difference": 100 * difference["mean"] if difference else "", "difference_ci95": 100 * difference["ci95"] if difference else "",
        })


def mean_accuracy(table, **key):
    rows = table.find(**key)
    return sum(float(row["accuracy"]) for row in rows) / len(rows)
