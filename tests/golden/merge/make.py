"""Writes reference.safetensors: two small LoRAs merged by PEFT's add_weighted_adapter, as changes of a weight.

Needs torch and peft (made with torch 2.15 and peft 0.21.2). The result is committed; the tests need no Python.
`dare_linear` is stored at density 1 only, since torch's random choice cannot be repeated elsewhere.
"""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

OUT, IN = 6, 5
ADAPTERS = {"a": (2, 4.0), "b": (2, 1.0), "c": (3, 6.0)}  # rank, alpha


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.map = torch.nn.Linear(IN, OUT)


def model():
    torch.manual_seed(0)
    peft = None
    for name, (rank, alpha) in ADAPTERS.items():
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["map"])
        if peft is None:
            peft = get_peft_model(Model(), config, adapter_name=name)
        else:
            peft.add_adapter(name, config)
    layer = peft.base_model.model.map
    for name in ADAPTERS:
        layer.lora_A[name].weight.data = torch.randn_like(layer.lora_A[name].weight)
        layer.lora_B[name].weight.data = torch.randn_like(layer.lora_B[name].weight)
    return peft, layer


def main():
    peft, layer = model()
    tensors = {}
    for name in ADAPTERS:
        tensors[f"{name}.lora_A"] = layer.lora_A[name].weight.data
        tensors[f"{name}.lora_B"] = layer.lora_B[name].weight.data
        tensors[f"{name}.scale"] = torch.tensor([layer.scaling[name]])
    cases = {
        "linear": (["a", "b"], [0.7, 0.4], {}),
        "linear_negative": (["a", "b"], [1.0, -0.5], {"combination_type": "linear"}),
        "linear_single": (["a"], [0.3], {"combination_type": "linear"}),
        "cat": (["a", "b", "c"], [0.5, -0.25, 2.0], {}),
        "svd": (["a", "b", "c"], [0.5, -0.25, 2.0], {}),
        "svd_rank_1": (["a", "c"], [1.0, 1.0], {"combination_type": "svd", "svd_rank": 1}),
        "ties": (["a", "b"], [0.7, 0.4], {"density": 0.5}),
        "ties_dense": (["a", "b"], [0.7, 0.4], {"combination_type": "ties", "density": 1.0}),
        "ties_frequency": (
            ["a", "b"],
            [0.7, -0.4],
            {"combination_type": "ties", "density": 0.8, "majority_sign_method": "frequency"},
        ),
        "dare_linear": (["a", "b"], [0.7, 0.4], {"density": 1.0}),
    }
    for case, (names, weights, options) in cases.items():
        options.setdefault("combination_type", case)
        peft.add_weighted_adapter(names, weights, case, **options)
        tensors[f"{case}.delta"] = layer.get_delta_weight(case).detach()
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, Path(__file__).parent / "reference.safetensors")


if __name__ == "__main__":
    main()
