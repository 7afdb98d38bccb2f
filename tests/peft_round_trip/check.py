"""Loads exported folders with PEFT and compares with what the tests hold: run by `run`, once for each transformers version.

usage: check.py FOLDERS GOLDEN v4|v5
Exits 1 when a key is missing or left over, or when features differ by more than 1e-4.
"""

import json
import sys
import warnings
from pathlib import Path

import peft
import torch
import transformers
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import CLIPModel, Dinov2ForImageClassification, Dinov2Model, ViTForImageClassification, ViTModel

CLASSES = {c.__name__: c for c in (CLIPModel, Dinov2ForImageClassification, Dinov2Model, ViTForImageClassification, ViTModel)}
TOLERANCE = 1e-4

# The models are tiny; threads that wait for each other only cost time on a busy machine.
torch.set_num_threads(1)


def load(folder, golden, model):
    config = json.loads((folder / "adapter_config.json").read_text())
    base = CLASSES[config["auto_mapping"]["base_model_class"]].from_pretrained(golden / model, num_labels=5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = PeftModel.from_pretrained(base, folder).eval()
    complaints = [str(w.message) for w in caught if "adapter keys" in str(w.message) or "unexpected" in str(w.message).lower()]
    return loaded, complaints


@torch.no_grad()
def features(loaded, pixels):
    base = loaded.base_model.model
    if isinstance(base, CLIPModel):
        out = base.get_image_features(pixel_values=pixels)
        return out if torch.is_tensor(out) else out.pooler_output
    inner = getattr(base, "vit", None) or getattr(base, "dinov2", None) or base
    return inner(pixel_values=pixels).last_hidden_state[:, 0]


def main():
    folders, golden, style = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    print(f"transformers {transformers.__version__}, peft {peft.__version__}, torch {torch.__version__}")
    failed = checked = 0
    for folder in sorted(folders.glob(f"*.{style}")):
        model, case, _ = folder.name.split(".")
        loaded, complaints = load(folder, golden, model)
        written = load_file(folder / "adapter_model.safetensors")
        held = get_peft_model_state_dict(loaded)
        same_keys = set(written) == set(held)
        tensors = max((float((written[k] - held[k]).abs().max()) for k in written if k in held), default=float("inf"))
        reference = load_file(golden / model / "reference.safetensors")
        pixels = reference["pixel_values"]
        found = features(loaded, pixels)
        if case == "golden":
            expected = reference["adapter_features"]
        elif case != "mixed":
            expected = load_file(folders / f"{model}.{case}.features.safetensors")["features"]
        else:
            # Our sum of weight and change, written next to the folder.
            expected = merged_features(folders / f"{model}.{case}.merged.safetensors", golden, model, pixels)
        distance = float((found - expected).abs().max() / expected.abs().max())
        effect = float((found - reference["features"]).abs().max())
        fine = same_keys and not complaints and tensors == 0.0 and distance < TOLERANCE and effect > 1e-3
        if case == "golden" and "adapter_logits" in reference and "classifier.bias" in "".join(written):
            with torch.no_grad():
                logits = loaded(pixel_values=pixels).logits
            logit_distance = float((logits - reference["adapter_logits"]).abs().max())
            fine = fine and logit_distance < TOLERANCE
        else:
            logit_distance = None
        checked += 1
        failed += not fine
        print(
            f"{'ok    ' if fine else 'FAILED'} {folder.name}: keys equal {same_keys}, largest tensor difference {tensors:.1e},"
            f" features {distance:.1e} (effect {effect:.1e})"
            + (f", logits {logit_distance:.1e}" if logit_distance is not None else "")
        )
        for complaint in complaints:
            print("      ", complaint)
    if failed or not checked:
        print(f"{failed} of {checked} folders failed")
        sys.exit(1)


@torch.no_grad()
def merged_features(path, golden, model, pixels):
    """Features of the backbone after its weights were replaced by those with the change added."""
    kind = {"vit-tiny": ViTModel, "dinov2-tiny": Dinov2Model, "clip-tiny": CLIPModel}[model]
    base = kind.from_pretrained(golden / model).eval()
    linears = dict(base.named_modules())
    for name, weight in load_file(path).items():
        layer, target = name.split(".")
        linears[map_name(linears, int(layer), target)].weight.copy_(weight)
    if model == "clip-tiny":
        out = base.get_image_features(pixel_values=pixels)
        return out if torch.is_tensor(out) else out.pooler_output
    return base(pixel_values=pixels).last_hidden_state[:, 0]


# The end of each map's name in whichever version is installed; the longest that exists is meant.
ENDS = {
    "query": ["attention.attention.query", "attention.q_proj", "self_attn.q_proj"],
    "key": ["attention.attention.key", "attention.k_proj", "self_attn.k_proj"],
    "value": ["attention.attention.value", "attention.v_proj", "self_attn.v_proj"],
    "output": ["attention.output.dense", "attention.o_proj", "self_attn.out_proj"],
    "mlp_in": ["intermediate.dense", "mlp.fc1"],
    "mlp_out": ["output.dense", "mlp.fc2"],
}


def map_name(linears, layer, target):
    stems = ["vision_model.encoder.layers", "encoder.layer", "layers"]
    for stem in stems:
        for end in ENDS[target]:
            name = f"{stem}.{layer}.{end}"
            if name in linears:
                return name
    raise KeyError((layer, target))


if __name__ == "__main__":
    main()
