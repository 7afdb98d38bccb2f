"""Checks that an adapter of the registry does in Python's peft what it does here: features of pictures, and accuracy on few-shot tasks.

usage: accuracy.py PROGRAM ADAPTER BACKBONE_FOLDER PICTURES [--data-dir DIR]
PICTURES has a folder for each class. PROGRAM exports the adapter and gives its features; peft computes its own with transformers'
preprocessing. Tasks are drawn once with a seed, 5-way 1-shot with 15 queries, and both sets of features classify them by the nearest
prototype. Exits 1 when a feature differs by more than 0.01 % of the largest, or the accuracy by more than 0.01 points.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

# Of pictures in the size that the backbone sees: two programs resize others with levels that differ by 1 at times.
TOLERANCE, POINTS = 1e-4, 1e-4
WAY, QUERIES, TASKS, SEED = 5, 15, 600, 0


def own_features(program, adapter, pictures, data):
    command = [program, "embed", "--json", "--encoder", "native", "--adapter", adapter, *data, *map(str, pictures)]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return np.array([row["feature"] for row in rows], np.float32)


@torch.no_grad()
def peft_features(folder, backbone, pictures):
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(backbone), folder).eval()
    processor = AutoImageProcessor.from_pretrained(backbone, use_fast=False)
    # The embedded backbone's feature is the mean of its patches.
    is_mean = json.loads((Path(backbone) / "config.json").read_text()).get("pooling") == "mean"
    features = []
    for start in range(0, len(pictures), 32):
        images = [Image.open(path).convert("RGB") for path in pictures[start : start + 32]]
        # A preprocessor file that says nothing of cropping gets it by default, and DINOv2 sees another picture then.
        pixels = processor(images=images, do_center_crop=False, return_tensors="pt")
        hidden = model(**pixels).last_hidden_state
        features.append((hidden[:, 1:].mean(1) if is_mean else hidden[:, 0]).numpy())
    return np.concatenate(features)


def accuracies(features, classes, tasks):
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    for chosen in tasks:
        prototypes = np.stack([features[classes[name][images[0]]] for name, images in chosen])
        queries = np.stack([features[[classes[name][image] for image in images[1:]]] for name, images in chosen])
        distances = ((queries[:, :, None] - prototypes) ** 2).sum(-1)
        yield float((distances.argmin(-1) == np.arange(WAY)[:, None]).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("adapter")
    parser.add_argument("backbone")
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--data-dir")
    arguments = parser.parse_args()
    data = ["--data-dir", arguments.data_dir] if arguments.data_dir else []
    pictures, classes = [], {}
    for folder in sorted(path for path in arguments.pictures.iterdir() if path.is_dir()):
        for path in sorted(folder.iterdir()):
            classes.setdefault(folder.name, []).append(len(pictures))
            pictures.append(path)
    draw = random.Random(SEED)
    names = [name for name in classes if len(classes[name]) > QUERIES]
    tasks = [
        [(name, draw.sample(range(len(classes[name])), 1 + QUERIES)) for name in draw.sample(names, WAY)]
        for _ in range(TASKS)
    ]
    with tempfile.TemporaryDirectory() as parent:
        folder = os.path.join(parent, "exported")
        subprocess.run([arguments.program, "adapter", "export", arguments.adapter, "--out", folder, *data], check=True)
        own = own_features(arguments.program, arguments.adapter, pictures, data)
        other = peft_features(folder, arguments.backbone, pictures)
    distance = float(np.abs(own - other).max() / np.abs(other).max())
    means = [float(np.mean(list(accuracies(features, classes, tasks)))) for features in (own, other)]
    fine = distance < TOLERANCE and abs(means[0] - means[1]) < POINTS
    print(
        f"{'ok    ' if fine else 'FAILED'} {arguments.adapter}: {len(pictures)} pictures, features differ by {distance:.1e} of the largest,"
        f" accuracy on {TASKS} tasks {100 * means[0]:.2f} % here, {100 * means[1]:.2f} % in peft"
    )
    sys.exit(not fine)


if __name__ == "__main__":
    main()
