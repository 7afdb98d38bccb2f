"""Times the engine's steps and the same steps in PyTorch, alternating in one run with equal threads.

    cargo build --release --bench engine
    benches/pytorch/run.sh [--sizes vit-s-98,...] [--steps forward,...] [--rounds 7] [--threads 2] [--compile]

Prints for each step the median milliseconds of both, their ratio and both peak memories (operating system's account;
every step and side has a process of its own). Weights are random: the work does not depend on their values.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

SIZES = {
    "vit-s-98": (384, 6, 14, 98, 40),
    "vit-s-98-one": (384, 6, 14, 98, 1),
    "vit-s-224": (384, 6, 14, 224, 8),
    "vit-b-224": (768, 12, 16, 224, 4),
}
STEPS = ["forward", "input-gradient", "pruned-input-gradient", "meta-dense", "meta-sparse-25",
         "meta-sparse-50", "meta-sparse-75", "meta-last-6-cached"]
LAYERS, RANK = 12, 4


def prepare(size, step, threads, compiled):
    """Returns a function that runs the step once."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    width, heads, patch, side, batch = SIZES[size]
    grid = side // patch

    class LoraLinear(nn.Module):
        def __init__(self, adapted):
            super().__init__()
            self.base = nn.Linear(width, width)
            self.a = nn.Parameter(torch.randn(RANK, width) * 0.05) if adapted else None
            self.b = nn.Parameter(torch.randn(width, RANK) * 0.05) if adapted else None

        def forward(self, x):
            y = self.base(x)
            return y if self.a is None else y + F.linear(F.linear(x, self.a), self.b)

    class Layer(nn.Module):
        def __init__(self, adapted, keep):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
            self.q, self.k, self.v = LoraLinear(adapted), nn.Linear(width, width), LoraLinear(adapted)
            self.o = nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.keep = keep

        def forward(self, x):
            n = self.norm1(x)
            b, t, _ = n.shape
            q, k, v = (m(n).view(b, t, heads, -1).transpose(1, 2) for m in (self.q, self.k, self.v))
            y = F.scaled_dot_product_attention(q, k, v)
            x = x + self.o(y.transpose(1, 2).reshape(b, t, width))
            if self.keep is not None:
                scores = (q[:, :, :1] @ k.transpose(2, 3)) * (width // heads) ** -0.5
                attention = scores.softmax(-1).mean(1)[:, 0, 1:]
                kept = attention.topk(self.keep, dim=1).indices.sort(1).values + 1
                kept = torch.cat([torch.zeros_like(kept[:, :1]), kept], 1)
                x = x.gather(1, kept[..., None].expand(-1, -1, width))
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    class Vit(nn.Module):
        def __init__(self, first_adapted, first, prune):
            super().__init__()
            self.patch = nn.Conv2d(3, width, patch, patch)
            self.cls = nn.Parameter(torch.zeros(1, 1, width))
            self.position = nn.Parameter(torch.randn(1, 1 + grid * grid, width) * 0.02)
            patches = grid * grid
            self.layers = nn.ModuleList(
                Layer(i >= first_adapted, patches - int(patches * 0.75) if prune and i == LAYERS // 2 else None)
                for i in range(first, LAYERS))
            self.norm = nn.LayerNorm(width, 1e-6)

        def forward(self, x, tokens=None):
            if x.dim() == 4:
                x = self.patch(x).flatten(2).transpose(1, 2)
                x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.position
            if tokens is not None:
                x = x[:, tokens]
            for layer in self.layers:
                x = layer(x)
            return self.norm(x)[:, 0]

    cached = step == "meta-last-6-cached"
    adapts = step.startswith("meta") or step == "pruned-input-gradient"
    model = Vit(0 if adapts else LAYERS, LAYERS - 6 if cached else 0, step == "pruned-input-gradient").eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(step.startswith("meta") and name.endswith((".a", ".b")))
    tokens = None
    if step.startswith("meta-sparse"):
        kept = grid * grid - grid * grid * int(step.rsplit("-", 1)[1]) // 100
        tokens = torch.tensor([i * grid * grid // kept for i in range(kept + 1)])
    x = torch.randn(batch, 1 + grid * grid, width) if cached else torch.randn(batch, 3, side, side)
    run = torch.compile(model) if compiled else model
    trained = [p for p in model.parameters() if p.requires_grad]

    def once():
        if step == "forward":
            with torch.inference_mode():
                run(x)
        elif step.startswith("meta"):
            torch.autograd.grad(0.5 * run(x, tokens).square().sum(), trained)
        else:
            pixels = x.detach().requires_grad_(True)
            torch.autograd.grad(0.5 * run(pixels).square().sum(), pixels)

    return once


def serve():
    """Answers lines as the engine's bench does."""
    current, once = None, None
    for line in sys.stdin:
        if line != current:
            size, step, threads, compiled = line.split()
            current, once = line, prepare(size, step, int(threads), compiled == "compile")
        start = time.perf_counter()
        once()
        milliseconds = (time.perf_counter() - start) * 1e3
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(milliseconds, peak, flush=True)


class Side:
    def __init__(self, command, request):
        self.request = request
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self):
        self.process.stdin.write(self.request + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"\"{self.request}\" gave no answer; its process ended with {self.process.wait()}")
        milliseconds, self.peak = map(float, answer.split())
        return milliseconds

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", required=True, help="the built engine bench")
    parser.add_argument("--sizes", default="vit-s-98,vit-s-224,vit-b-224")
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="torch.compile as a third side")
    arguments = parser.parse_args()
    for size in arguments.sizes.split(","):
        for step in arguments.steps.split(","):
            request = f"{size} {step} {arguments.threads}"
            python = [sys.executable, __file__, "--serve"]
            sides = {"engine": Side([arguments.engine, "--lines"], request),
                     "eager": Side(python, request + " eager")}
            if arguments.compile:
                sides["compiled"] = Side(python, request + " compile")
            times = {name: [] for name in sides}
            for round_ in range(arguments.rounds + 2):
                for name, side in sides.items():
                    milliseconds = side.run()
                    # The first two rounds warm up.
                    if round_ >= 2:
                        times[name].append(milliseconds)
            result = {"size": size, "step": step}
            for name, side in sides.items():
                result[name] = {"median_ms": round(statistics.median(times[name]), 2),
                                "fastest_ms": round(min(times[name]), 2), "peak_mib": round(side.peak)}
                side.close()
            others = [result[name] for name in sides if name != "engine"]
            for kind in ("median_ms", "fastest_ms"):
                fastest = min(other[kind] for other in others)
                result["ratio_" + kind[:-3]] = round(fastest / result["engine"][kind], 3)
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main()
