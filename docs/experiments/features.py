"""Features of pictures and of their copies by the backbone in the box, in numpy: class token and means of patch tokens after several layers.

It need not agree with the program bit by bit: a copy is changed within the same limits, but by other random numbers. `check` compares with the
reference features that lie beside the backbone.
"""

import hashlib
import json
import pathlib
import struct

import numpy
from PIL import Image

ASSETS = pathlib.Path(__file__).resolve().parents[2] / "assets"
BACKBONE, BOX = ASSETS / "dinov2-s8", ASSETS / "signs-and-shapes"
SIDE, PATCH, COPIES, LAYERS = 98, 14, 6, 4
MEAN, DEVIATION = (numpy.array(values, numpy.float32)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def tensors(path):
    """Of a safetensors file, as float32."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    kinds, result = {"F16": numpy.float16, "F32": numpy.float32}, {}
    for name, of in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            start, end = (8 + length + offset for offset in of["data_offsets"])
            result[name] = numpy.frombuffer(data[start:end], kinds[of["dtype"]]).reshape(of["shape"]).astype(numpy.float32)
    return result


def positions(embedding, grid):
    """PyTorch's bicubic interpolation of the position embedding."""
    native = round((len(embedding) - 1) ** 0.5)
    taps = numpy.zeros((grid, native))
    for place in range(grid):
        centre = native / grid * (place + 0.5) - 0.5
        for index in range(int(numpy.floor(centre)) - 1, int(numpy.floor(centre)) + 3):
            x, a = abs(centre - index), -0.75
            weight = ((a + 2) * x - (a + 3)) * x * x + 1 if x <= 1 else ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
            taps[place, min(max(index, 0), native - 1)] += weight
    patches = numpy.einsum("ay,bx,yxd->abd", taps, taps, embedding[1:].reshape(native, native, -1))
    return numpy.concatenate([embedding[:1], patches.reshape(grid * grid, -1)]).astype(numpy.float32)


def normed(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / numpy.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-6) * weight + bias


def gelu(x):
    """By Abramowitz and Stegun 7.1.26, within 2e-7; few rows at once, which stay in the cache."""
    result = numpy.empty_like(x)
    for start in range(0, len(x), 16):
        own = x[start : start + 16]
        z = numpy.abs(own) * numpy.float32(0.5**0.5)
        t = 1 / (1 + 0.3275911 * z)
        powers = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
        z *= -z
        erf = 1 - powers * numpy.exp(z)
        result[start : start + 16] = 0.5 * own * (1 + numpy.copysign(erf, own))
    return result


class Backbone:
    def __init__(self, adapter=None):
        self.weights = tensors(BACKBONE / "model.safetensors")
        config = json.loads((BACKBONE / "config.json").read_text())
        self.heads, self.layers = config["num_attention_heads"], config["num_hidden_layers"]
        self.positions = positions(self.weights["embeddings.position_embeddings"][0], SIDE // PATCH)
        if adapter:
            asked, low = json.loads((adapter / "adapter_config.json").read_text()), tensors(adapter / "adapter_model.safetensors")
            for target in asked["target_modules"]:
                a, b = (low[f"base_model.model.{target}.lora_{which}.weight"] for which in "AB")
                self.weights[f"{target}.weight"] += asked["lora_alpha"] / asked["r"] * b @ a

    def features(self, pixels):
        """`[pictures, 1 + LAYERS, width]`: class token, then means of the patch tokens after the last layers, the last of all at the end."""
        w, count = self.weights, len(pixels)
        grid = SIDE // PATCH
        patches = pixels.reshape(count, 3, grid, PATCH, grid, PATCH).transpose(0, 2, 4, 1, 3, 5).reshape(count, grid * grid, -1)
        kernel = w["embeddings.patch_embeddings.projection.weight"]
        x = patches @ kernel.reshape(len(kernel), -1).T + w["embeddings.patch_embeddings.projection.bias"]
        first = numpy.broadcast_to(w["embeddings.cls_token"], (count, 1, x.shape[-1]))
        x = numpy.concatenate([first, x], 1) + self.positions
        tokens, width = x.shape[1:]
        x, means = x.reshape(count * tokens, width), []
        for layer in range(self.layers):
            start = f"encoder.layer.{layer}."
            own = {name.removeprefix(start): value for name, value in w.items() if name.startswith(start)}

            def linear(x, name):
                return x @ own[f"{name}.weight"].T + own[f"{name}.bias"]

            y = normed(x, own["norm1.weight"], own["norm1.bias"])
            q, k, v = (linear(y, f"attention.attention.{name}").reshape(count, tokens, self.heads, -1).transpose(0, 2, 1, 3) for name in ("query", "key", "value"))
            scores = q @ k.transpose(0, 1, 3, 2) * (width / self.heads) ** -0.5
            scores = numpy.exp(scores - scores.max(-1, keepdims=True))
            attended = (scores / scores.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3).reshape(count * tokens, width)
            x = x + own["layer_scale1.lambda1"] * linear(attended, "attention.output.dense")
            y = gelu(linear(normed(x, own["norm2.weight"], own["norm2.bias"]), "mlp.fc1"))
            x = x + own["layer_scale2.lambda1"] * linear(y, "mlp.fc2")
            if layer >= self.layers - LAYERS:
                last = normed(x, w["layernorm.weight"], w["layernorm.bias"])
                last = last.reshape(count, tokens, width)
                means.append(last[:, 1:].mean(1))
        return numpy.stack([last[:, 0], *means], 1)


def folded(positions, side):
    """The two pixels about each position and how far it is along; the picture is mirrored at its border."""
    x = numpy.mod(positions + 0.5, 2 * side)
    inside = numpy.clip(numpy.minimum(x, 2 * side - x) - 0.5, 0, side - 1)
    first = numpy.minimum(inside.astype(int), side - 1)
    return first, numpy.minimum(first + 1, side - 1), inside - first


def copy_of(pixels, index):
    """Turned, moved, scaled and recoloured as `recycle::head::copies` says; every other one a negative."""
    seed = hashlib.sha256(pixels.tobytes() + struct.pack("<I", index)).digest()
    random = numpy.random.default_rng(int.from_bytes(seed, "little"))
    angle, scale, *shift = random.uniform(-1, 1, 4) * (numpy.pi / 12, 0.15, 0.1, 0.1)
    y, x = numpy.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    sine, cosine, centre = numpy.sin(angle), numpy.cos(angle), (SIDE - 1) / 2
    top, bottom, down = folded((1 + scale) * (sine * x + cosine * y) + shift[0] * SIDE + centre, SIDE)
    left, right, along = folded((1 + scale) * (cosine * x - sine * y) + shift[1] * SIDE + centre, SIDE)
    above = pixels[:, top, left] * (1 - along) + pixels[:, top, right] * along
    below = pixels[:, bottom, left] * (1 - along) + pixels[:, bottom, right] * along
    gain, offset = 1 + 0.3 * random.uniform(-1, 1, (3, 1, 1)), 0.15 * random.uniform(-1, 1, (3, 1, 1))
    gain = -gain if index % 2 else gain
    return (gain * (above * (1 - down) + below * down) + (0.5 - MEAN) / DEVIATION * (1 - gain) + offset / DEVIATION).astype(numpy.float32)


def pixels_of(path):
    picture = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return (numpy.asarray(picture, numpy.float32).transpose(2, 0, 1) / 255 - MEAN) / DEVIATION


def features_of(folder, classes, cache, per_class=None, copies=COPIES):
    """Per model `[classes, pictures, 1 + copies, 1 + LAYERS, width]`; kept in the folder `cache`, under a name made of what it depends on."""
    models = {"bare": None, "adapter": BOX}
    if all((cache / f"{model}.npy").exists() for model in models):
        return {model: numpy.load(cache / f"{model}.npy") for model in models}
    cache.mkdir(parents=True, exist_ok=True)
    backbones = {model: Backbone(adapter) for model, adapter in models.items()}
    found = {model: [] for model in models}
    for name in classes:
        paths = sorted(path for path in (folder / name).iterdir())[:per_class]
        rows = {model: [] for model in models}
        for path in paths:
            pixels = pixels_of(path)
            batch = numpy.stack([pixels, *(copy_of(pixels, index) for index in range(copies))])
            for model in models:
                rows[model].append(backbones[model].features(batch))
        for model in models:
            found[model].append(numpy.stack(rows[model]))
    for model in models:
        numpy.save(cache / f"{model}.npy", numpy.stack(found[model]))
    return {model: numpy.stack(found[model]) for model in models}


def check():
    reference = tensors(BACKBONE / "reference.safetensors")
    backbone = Backbone()
    found = backbone.features(reference["pixels_98"])
    return max(numpy.abs(found[:, at] - reference[f"{name}_98"]).max() for at, name in ((0, "cls"), (-1, "mean_patch")))


if __name__ == "__main__":
    print(f"largest difference from the reference: {check():.1e}")
