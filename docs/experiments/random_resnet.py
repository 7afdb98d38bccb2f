#!/usr/bin/env python3
"""A ResNet for the BatchNorm prior where no trained one is at hand: random filters, whose running statistics are those of a folder of pictures.

    python docs/experiments/random_resnet.py PICTURES OUT.safetensors

torchvision's names, one basic block a stage, He-normal filters, BatchNorm without scale and shift. It says how colours, edges and their mixtures are
spread in real pictures, and knows no class. `ablations.py --groups priors` makes it from photographs. Needs Pillow and numpy.
"""

import argparse
import json
import pathlib
import struct
import sys

try:
    import numpy
    from PIL import Image
except ImportError as missing:
    sys.exit(f"{missing.name} is missing\nhint: python3 -m pip install numpy pillow")

SIDE = 98
CHANNELS = [32, 64, 128, 256]
# Those that the embedded backbone's pictures are normalised with.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EPSILON = 1e-5


def pictures_of(folder):
    """`[pictures, 3, side, side]`, normalised."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    levels = [numpy.asarray(Image.open(file).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for file in files]
    values = (numpy.stack(levels).astype(numpy.float32) / 255 - numpy.float32(MEAN)) / numpy.float32(DEVIATION)
    return values.transpose(0, 3, 1, 2)


def windows(values, kernel, stride, fill):
    """`[pictures, channels, height, width, kernel, kernel]`, padded by half a kernel."""
    half = kernel // 2
    padded = numpy.pad(values, [(0, 0), (0, 0), (half, half), (half, half)], constant_values=fill)
    return numpy.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]


class Network:
    """Runs all pictures through layer by layer, and keeps what it meets as the running statistics."""

    def __init__(self, seed):
        self.random, self.tensors = numpy.random.default_rng(seed), {}

    def unit(self, values, convolution, norm, channels, kernel, stride):
        inputs = values.shape[1]
        deviation = (2 / (inputs * kernel * kernel)) ** 0.5
        weight = self.random.normal(0, deviation, (channels, inputs, kernel, kernel)).astype(numpy.float32)
        out = numpy.tensordot(windows(values, kernel, stride, 0), weight, ([1, 4, 5], [1, 2, 3])).transpose(0, 3, 1, 2)
        mean, variance = out.mean((0, 2, 3)), out.var((0, 2, 3))
        self.tensors |= {
            f"{convolution}.weight": weight,
            f"{norm}.weight": numpy.ones_like(mean), f"{norm}.bias": numpy.zeros_like(mean),
            f"{norm}.running_mean": mean, f"{norm}.running_var": variance,
        }
        return (out - mean[:, None, None]) / numpy.sqrt(variance + EPSILON)[:, None, None]

    def block(self, values, name, channels, stride):
        out = numpy.maximum(self.unit(values, f"{name}.conv1", f"{name}.bn1", channels, 3, stride), 0)
        out = self.unit(out, f"{name}.conv2", f"{name}.bn2", channels, 3, 1)
        if values.shape[1:] != out.shape[1:]:
            values = self.unit(values, f"{name}.downsample.0", f"{name}.downsample.1", channels, 1, stride)
        return numpy.maximum(out + values, 0)


def random_resnet(folder, seed=0):
    network = Network(seed)
    values = numpy.maximum(network.unit(pictures_of(folder), "conv1", "bn1", CHANNELS[0], 7, 2), 0)
    values = windows(values, 3, 2, -numpy.inf).max((4, 5))
    for stage, channels in enumerate(CHANNELS, 1):
        values = network.block(values, f"layer{stage}.0", channels, 1 if stage == 1 else 2)
    return network.tensors


def write(tensors, path):
    header, content = {}, b""
    for name, values in tensors.items():
        own = numpy.ascontiguousarray(values, numpy.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [len(content), len(content) + len(own)]}
        content += own
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    asked = parser.parse_args()
    write(random_resnet(asked.pictures), asked.out)


if __name__ == "__main__":
    main()
