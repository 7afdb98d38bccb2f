"""The steps of the engine's bench in PyTorch: a vision transformer with random weights and an adapter of query and value, since the work does not
depend on their values."""

import torch
from sizes import LAYERS, RANK, SIZES
from torch import nn
from torch.nn import functional as F


class LoraLinear(nn.Module):
    def __init__(self, width, rank):
        super().__init__()
        self.base = nn.Linear(width, width)
        self.a = nn.Parameter(torch.randn(rank, width) * 0.05) if rank else None
        self.b = nn.Parameter(torch.randn(width, rank) * 0.05) if rank else None

    def forward(self, x):
        y = self.base(x)
        return y if self.a is None else y + F.linear(F.linear(x, self.a), self.b)


class Layer(nn.Module):
    """`keep`: patches that go on after attention, those that the class token looks at most; None for all."""

    def __init__(self, width, heads, rank, keep):
        super().__init__()
        self.heads, self.keep = heads, keep
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.q, self.k, self.v = LoraLinear(width, rank), nn.Linear(width, width), LoraLinear(width, rank)
        self.o = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        n = self.norm1(x)
        b, t, width = n.shape
        q, k, v = (m(n).view(b, t, self.heads, -1).transpose(1, 2) for m in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, width))
        if self.keep is not None:
            scores = (q[:, :, :1] @ k.transpose(2, 3)) * (width // self.heads) ** -0.5
            attention = scores.softmax(-1).mean(1)[:, 0, 1:]
            kept = attention.topk(self.keep, dim=1).indices.sort(1).values + 1
            kept = torch.cat([torch.zeros_like(kept[:, :1]), kept], 1)
            x = x.gather(1, kept[..., None].expand(-1, -1, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Vit(nn.Module):
    """Its layers from `first` on; the class token is the feature. `rank` 0 is the bare backbone."""

    def __init__(self, width, heads, patch, side, rank, first=0, prune=False):
        super().__init__()
        patches = (side // patch) ** 2
        self.patch = nn.Conv2d(3, width, patch, patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 1 + patches, width) * 0.02)
        keep = lambda layer: patches - int(patches * 0.75) if prune and layer == LAYERS // 2 else None
        self.layers = nn.ModuleList(Layer(width, heads, rank, keep(layer)) for layer in range(first, LAYERS))
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


def prepare(size, step, compiled, batch=None, rank=RANK):
    """Returns a function that runs the step once, on the default device of PyTorch."""
    torch.manual_seed(0)
    width, heads, patch, side, usual_batch = SIZES[size]
    batch, patches = batch or usual_batch, (side // patch) ** 2
    cached = step == "meta-last-6-cached"
    prune = step in ("pruned-input-gradient", "pruned-inversion")
    adapts = step.startswith("meta") or prune or step == "inversion"
    model = Vit(width, heads, patch, side, rank if adapts else 0, LAYERS - 6 if cached else 0, prune).eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(step.startswith("meta") and name.endswith((".a", ".b")))
    if step in ("inversion", "pruned-inversion"):
        return inversion(model, width, batch, side, compiled)
    tokens = None
    if step.startswith("meta-sparse"):
        kept = patches - patches * int(step.rsplit("-", 1)[1]) // 100
        tokens = torch.tensor([i * patches // kept for i in range(kept + 1)])
    x = torch.randn(batch, 1 + patches, width) if cached else torch.randn(batch, 3, side, side)
    run = torch.compile(model) if compiled else model
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

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


def total_variation(x):
    right, down = x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]
    falling, rising = x[..., 1:, 1:] - x[..., :-1, :-1], x[..., 1:, :-1] - x[..., :-1, 1:]
    return sum(difference.abs().mean() for difference in (right, down, falling, rising))


def inversion(model, width, batch, side, compiled, classes=5):
    """A step of inversion: the published recipe's change of the images, cross-entropy, total variation, Adam, clamp."""
    images = nn.Parameter(torch.randn(batch, 3, side, side))
    head = nn.Linear(width, classes).requires_grad_(False)
    labels = torch.arange(batch, device=images.device) % classes
    limits = torch.tensor([2.5, 2.5, 2.5], device=images.device).view(1, 3, 1, 1)
    optimiser = torch.optim.Adam([images], lr=0.25, betas=(0.5, 0.99), fused=images.is_cuda)

    def loss(x):
        return F.cross_entropy(head(model(x)), labels) + 0.01 * total_variation(x)

    loss = torch.compile(loss) if compiled else loss

    def once():
        optimiser.zero_grad(set_to_none=True)
        # Outside of what is compiled: another draw must not compile again.
        loss(images.roll((3, -5), (2, 3)).flip(3)).backward()
        optimiser.step()
        with torch.no_grad():
            torch.clamp(images, -limits, limits, out=images)

    return once
