"""Folders for this program from the tensors of a feasibility study in PyTorch, so that both measure the same adapters on the same pictures.

    python folders_of_study.py WORK OUT

WORK/glyphs.pt holds two dicts, base and novel: class -> pictures [N, 3, side, side], normalised as ImageNet pictures are.
WORK/loras.pt holds a list of (classes, [A_q, B_q, A_v, B_v] of each layer, head [classes, width]) of rank-r adapters whose change is 2·B·A.
OUT/base, OUT/novel become folders of PNGs, a sub-folder a class; OUT/adapters/NNNN PEFT folders without heads.
--per-class N takes the first N pictures of each class.
"""
import argparse
import json
import pathlib

import torch
from PIL import Image
from safetensors.torch import save_file

MEAN, STD = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
SCALE = 2


def pictures(classes, folder, per_class):
    for name, images in classes.items():
        own = folder / name
        own.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images[:per_class]):
            levels = ((image * STD + MEAN) * 255).round().clamp(0, 255).to(torch.uint8)
            Image.fromarray(levels.permute(1, 2, 0).numpy()).save(own / f"{index:03}.png")


def adapter(matrices, folder):
    rank = matrices[0].shape[0]
    tensors = {}
    for layer in range(len(matrices) // 4):
        for place, target in ((0, "query"), (2, "value")):
            name = f"base_model.model.encoder.layer.{layer}.attention.attention.{target}"
            tensors[f"{name}.lora_A.weight"] = matrices[4 * layer + place].contiguous()
            tensors[f"{name}.lora_B.weight"] = matrices[4 * layer + place + 1].contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": SCALE * rank, "target_modules": ["query", "value"], "bias": "none", "base_model_name_or_path": None}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--per-class", type=int)
    asked = parser.parse_args()
    base, novel = torch.load(asked.work / "glyphs.pt")
    pictures(base, asked.out / "base", asked.per_class)
    pictures(novel, asked.out / "novel", asked.per_class)
    for index, (_, matrices, _) in enumerate(torch.load(asked.work / "loras.pt")):
        adapter([tensor.detach() for tensor in matrices], asked.out / "adapters" / f"{index:04}")


if __name__ == "__main__":
    main()
