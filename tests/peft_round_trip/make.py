"""Tunes nothing, but saves adapters as PEFT does, with random numbers: run by `run`, once for each transformers version.

usage: make.py OUT GOLDEN v4|v5
Writes OUT/made/MODEL.CASE-STYLE/ (the folder that PEFT saves) and OUT/MODEL.CASE-STYLE.features.safetensors.
"""

import sys
from pathlib import Path

import torch
from check import CLASSES, features
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

# Endings of (query, key, value, output, MLP in, MLP out) by model and version.
NAMES = {
    ("vit-tiny", "v4"): ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"),
    ("dinov2-tiny", "v4"): ("query", "key", "value", "attention.output.dense", "mlp.fc1", "mlp.fc2"),
    ("vit-tiny", "v5"): ("q_proj", "k_proj", "v_proj", "o_proj", "mlp.fc1", "mlp.fc2"),
    ("dinov2-tiny", "v5"): ("q_proj", "k_proj", "v_proj", "o_proj", "mlp.fc1", "mlp.fc2"),
}
HEADS = {"vit-tiny": "ViTForImageClassification", "dinov2-tiny": "Dinov2ForImageClassification"}
BARE = {"vit-tiny": "ViTModel", "dinov2-tiny": "Dinov2Model"}


def cases(model, style):
    query, key, value, output, mlp_in, mlp_out = NAMES[model, style]
    head = {"modules_to_save": ["classifier"]}
    yield "all-linear", HEADS[model], dict(r=3, lora_alpha=7, target_modules="all-linear", **head)
    yield "rslora", HEADS[model], dict(r=4, lora_alpha=8, use_rslora=True, target_modules=[query, value], **head)
    yield "patterns", HEADS[model], dict(
        r=4,
        lora_alpha=8,
        target_modules=[query, key, output, mlp_in, mlp_out],
        rank_pattern={rf"1\..*{query}": 6, query: 2, mlp_in.split(".")[-1]: 5},
        alpha_pattern={key: 3, mlp_out.split(".")[-1]: 1.5},
    )
    yield "layers", HEADS[model], dict(r=2, lora_alpha=2, target_modules=[query, value], layers_to_transform=[1, 3])
    yield "regex", HEADS[model], dict(r=2, lora_alpha=4, target_modules=rf".*\.[02]\..*({query}|{value})")
    yield "bare", BARE[model], dict(r=2, lora_alpha=4, target_modules=[query, output])


def clip_cases():
    yield "regex", "CLIPModel", dict(r=4, lora_alpha=6, target_modules=r"vision_model\..*(k_proj|out_proj|fc1|fc2)")


def main():
    out, golden, style = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    for model in ("vit-tiny", "dinov2-tiny", "clip-tiny"):
        pixels = load_file(golden / model / "reference.safetensors")["pixel_values"]
        for case, kind, options in clip_cases() if model == "clip-tiny" else cases(model, style):
            torch.manual_seed(1)
            base = CLASSES[kind].from_pretrained(golden / model, **({} if "Image" not in kind else {"num_labels": 5}))
            adapter = get_peft_model(base, LoraConfig(**options)).eval()
            for name, parameter in adapter.named_parameters():
                if "lora_" in name:
                    torch.nn.init.normal_(parameter, std=0.3)
            adapter.save_pretrained(out / "made" / f"{model}.{case}-{style}")
            save_file(
                {"features": features(adapter, pixels).contiguous()},
                out / f"{model}.{case}-{style}.features.safetensors",
            )


if __name__ == "__main__":
    main()
